//! Which worker keeps a connection: the one that has its tunnel, unless another would serve it
//! sooner. An accepted socket moves at most once, before its first byte.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use tokio::runtime::RuntimeMetrics;

use super::tunnel::TunnelKey;

/// How many connections more than the least busy worker one may have and still be preferred because
/// it has the tunnel.
const BUSY_LEAD: usize = 32;
/// The same for connections of which nobody can know yet how much they will carry: those of the
/// window that is still being measured. Few long flows that begin together are spread by it.
const FRESH_LEAD: usize = 1;
/// A worker that works more than so much of its time, per mille, is no longer preferred.
const BUSY: u32 = 400;
/// Workers whose work together is below so much, per mille, are more than a tunnel needs.
const QUIET: u32 = 300;
/// The least time over which the work of a worker is measured.
const WINDOW: Duration = Duration::from_millis(100);
/// Tunnels one worker remembers the places of; past it everything is forgotten and learned again.
const PLACES_MAX: usize = 4_096;

/// What one worker has to do, as the others can see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    connections: Arc<AtomicUsize>,
    runtime: Arc<OnceLock<RuntimeMetrics>>,
}

/// One connection's weight on its worker.
#[derive(Debug)]
pub(super) struct Loaded(Arc<AtomicUsize>);

/// What a worker has to do at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Work {
    connections: usize,
    /// How many more those are than when the work of the others was measured.
    fresh: usize,
    /// Of its time, per mille.
    busy: u32,
}

/// How one worker places connections.
#[derive(Debug, Default)]
pub(super) struct Placement {
    meter: RefCell<Meter>,
    places: RefCell<HashMap<TunnelKey, Vec<usize>>>,
}

/// Measures how much of their time workers work, whenever somebody asks: an idle node is not woken
/// for it.
#[derive(Debug, Default)]
struct Meter {
    since: Option<Instant>,
    totals: Vec<Duration>,
    busy: Vec<u32>,
    /// Connections at the end of the last window.
    connections: Vec<usize>,
}

impl Load {
    /// To be called on the worker's own thread, once its runtime runs.
    pub(super) fn measure(&self) {
        let metrics = tokio::runtime::Handle::current().metrics();
        // It is set once; a second call would bring the same.
        let _ = self.runtime.set(metrics);
    }

    /// Counts a connection for as long as the guard lives.
    pub(super) fn add(&self) -> Loaded {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Loaded(Arc::clone(&self.connections))
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How long it has worked since its start.
    fn worked(&self) -> Duration {
        self.runtime.get().map(|runtime| runtime.worker_total_busy_duration(0)).unwrap_or_default()
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Meter {
    /// What each worker has to do: how busy it was in the last whole window, and what has come to
    /// it since.
    fn read<'a>(
        &mut self,
        workers: impl Iterator<Item = &'a Load> + Clone,
        now: Instant,
    ) -> Vec<Work> {
        let window = self.since.map(|since| now.saturating_duration_since(since));
        if window.is_none_or(|window| window >= WINDOW) {
            self.measure(workers.clone().map(Load::worked).collect(), now);
            self.connections = workers.clone().map(Load::connections).collect();
        }
        let works = workers.zip(&self.busy).zip(&self.connections);
        let work = |((load, &busy), &before): ((&Load, &u32), &usize)| {
            let connections = load.connections();
            Work { connections, fresh: connections.saturating_sub(before), busy }
        };
        works.map(work).collect()
    }

    /// Ends a window in which the workers came to have worked for `totals` since their start.
    fn measure(&mut self, totals: Vec<Duration>, now: Instant) {
        let window = self.since.map(|since| now.saturating_duration_since(since));
        let share = |(i, total): (usize, &Duration)| {
            let (Some(window), Some(before)) = (window, self.totals.get(i)) else { return 0 };
            let worked = total.saturating_sub(*before).as_micros() * 1_000;
            u32::try_from(worked / window.as_micros().max(1))
                .map_or(1_000, |share| share.min(1_000))
        };
        self.busy = totals.iter().enumerate().map(share).collect();
        (self.since, self.totals) = (Some(now), totals);
    }
}

impl Placement {
    /// The worker for a connection that `me` accepted, with its tunnel if that is known.
    pub(super) fn choose<'a>(
        &self,
        key: Option<TunnelKey>,
        workers: impl Iterator<Item = &'a Load> + Clone,
        me: usize,
        now: Instant,
    ) -> usize {
        let work = self.meter.borrow_mut().read(workers, now);
        self.decide(key, &work, me)
    }

    fn decide(&self, key: Option<TunnelKey>, work: &[Work], me: usize) -> usize {
        // Of equals this one: moving a socket costs more than a quiet node gains by it.
        let least = (0..work.len()).min_by_key(|&i| (work[i].rank(), i != me)).unwrap_or(me);
        let Some(key) = key else { return least };
        let mut places = self.places.borrow_mut();
        if places.len() >= PLACES_MAX && !places.contains_key(&key) {
            places.clear();
        }
        let homes = places.entry(key).or_default();
        let quiet = homes.iter().map(|&i| work[i].busy).sum::<u32>() < QUIET;
        if homes.len() > 1 && quiet && homes.iter().all(|&i| work[i].fresh == 0) {
            homes.pop();
        }
        let home = homes.iter().copied().min_by_key(|&i| work[i].rank());
        if let Some(home) = home
            && !work[home].has_too_much_beside(work[least])
        {
            return home;
        }
        // None of them yet: beside itself, no worker has too much.
        homes.push(least);
        least
    }

    /// Forgets the tunnels of a pod that leaves.
    pub(super) fn forget(&self, pod: u64) {
        self.places.borrow_mut().retain(|key, _| key.pod != pod);
    }
}

impl Work {
    /// Less is better: not to be busy counts most, because one bulk flow can fill a worker, and
    /// each that is new may be one.
    fn rank(self) -> (bool, usize, usize) {
        (self.busy >= BUSY, self.fresh, self.connections)
    }

    fn has_too_much_beside(self, least: Self) -> bool {
        let busy = self.busy >= BUSY && least.busy < BUSY;
        let many = self.connections > least.connections + BUSY_LEAD;
        busy || many || self.fresh > least.fresh + FRESH_LEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::tunnel::in_memory;
    use crate::sys::clock::Clock;

    fn work(loads: &[(usize, u32)]) -> Vec<Work> {
        let work = |&(connections, busy): &(usize, u32)| Work { connections, fresh: 0, busy };
        loads.iter().map(work).collect()
    }

    fn key(pod: u64) -> Option<TunnelKey> {
        Some(TunnelKey { pod, ..in_memory::key() })
    }

    #[test]
    fn a_connection_stays_with_its_tunnel_until_load_asks_for_another() {
        let placement = Placement::default();
        let steps: &[(&[(usize, u32)], usize)] = &[
            // Nobody has it yet: here, as all are equal; then where it is.
            (&[(0, 0), (0, 0), (0, 0)], 1),
            (&[(0, 0), (5, 100), (9, 0)], 1),
            (&[(0, 399), (32, 399), (0, 399)], 1),
            // Too many connections, or too much work: one more tunnel, at the least busy.
            (&[(0, 0), (33, 399), (1, 0)], 0),
            (&[(9, 500), (9, 500), (20, 10)], 2),
            // Now there are three: the one with the fewest connections.
            (&[(9, 300), (2, 300), (4, 300)], 1),
            (&[(9, 800), (2, 800), (4, 800)], 1),
            (&[(9, 300), (2, 800), (4, 300)], 2),
            // Quiet again: the last one is given up first.
            (&[(3, 99), (3, 99), (0, 99)], 1),
            (&[(3, 0), (3, 0), (0, 0)], 1),
            (&[(0, 0), (3, 0), (0, 0)], 1),
        ];
        for (i, (loads, expected)) in steps.iter().enumerate() {
            assert_eq!(placement.decide(key(7), &work(loads), 1), *expected, "step {i}");
        }
    }

    #[test]
    fn what_has_no_tunnel_goes_to_the_least_busy() {
        let placement = Placement::default();
        for (loads, expected) in [
            (&[(3, 0), (3, 0)][..], 1),
            (&[(2, 0), (3, 0)], 0),
            (&[(1, 400), (3, 399)], 1),
            (&[(1, 400), (3, 900)], 0),
        ] {
            assert_eq!(placement.decide(None, &work(loads), 1), expected, "{loads:?}");
        }
        assert_eq!(placement.decide(key(1), &work(&[(2, 0), (3, 0)]), 1), 0);
        placement.forget(1);
        assert!(placement.places.borrow().is_empty());
        for pod in 0..=PLACES_MAX as u64 {
            placement.decide(key(pod), &work(&[(0, 0)]), 0);
        }
        assert_eq!(placement.places.borrow().len(), 1, "bounded");
    }

    #[test]
    fn work_is_measured_over_whole_windows() {
        let (mut meter, start) = (Meter::default(), Clock::system().monotonic());
        let ms = Duration::from_millis;
        let mut measure = |at, totals: [u64; 2]| {
            meter.measure(totals.map(ms).to_vec(), start + ms(at));
            meter.busy.clone()
        };
        assert_eq!(measure(0, [7, 9]), [0, 0], "no window yet");
        assert_eq!(measure(100, [57, 9]), [500, 0]);
        assert_eq!(measure(300, [107, 309]), [250, 1_000], "never more than all of it");
        assert_eq!(measure(300_000, [207, 309]), [0, 0]);
    }

    /// Long flows that begin within a window are told apart by nothing but their number.
    #[test]
    fn flows_that_begin_together_are_spread() {
        let (placement, start) = (Placement::default(), Clock::system().monotonic());
        let loads: [Load; 4] = Default::default();
        let mut guards = Vec::new();
        let mut flow = |key, ms| {
            let now = start + Duration::from_millis(ms);
            let chosen = placement.choose(key, loads.iter(), 2, now);
            guards.push(loads[chosen].add());
            chosen
        };
        let flows: Vec<usize> = (0..16).map(|_| flow(key(7), 0)).collect();
        assert_eq!(flows[..2], [2, 2], "two are served by one tunnel");
        let on = |worker| flows.iter().filter(|&&flow| flow == worker).count();
        assert!((0..4).all(|worker| (3..=5).contains(&on(worker))), "{flows:?}");
        // The next window: those that were quiet do not count as new any more. Their tunnels are
        // given up one after the other.
        let later: Vec<usize> = (1..=4).map(|window| flow(key(7), window * 100)).collect();
        assert_eq!(later[3], 2, "{later:?}");
        // One that has ended leaves its place to the next.
        drop(guards);
        for _ in 0..100 {
            let now = start + Duration::from_secs(1);
            let chosen = placement.choose(key(9), loads.iter(), 1, now);
            assert_eq!(chosen, 1);
            drop(loads[chosen].add());
        }
    }
}
