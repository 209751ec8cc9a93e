//! How many of something there may be at once.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use crate::sys::clock::Clock;

/// For so long nobody has to give way.
const GRACE: Duration = Duration::from_secs(1);
/// For so long somebody waits for a turn: half of what a peer has until its first CONNECT.
const WAIT: Duration = Duration::from_secs(5);

/// A bound that many threads share.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    used: Arc<AtomicUsize>,
    max: usize,
}

/// One place in a budget; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    used: Arc<AtomicUsize>,
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self { used: Arc::default(), max }
    }

    /// A place, unless all are taken.
    pub(super) fn take(&self) -> Option<Place> {
        // Taken first and given back if it was one too many: never above the bound plus the number
        // of threads that are refused at this moment.
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place { used: Arc::clone(&self.used) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// It lets one in at a time, in the order of their coming.
type Door = tokio::sync::Mutex<()>;

/// A bound on what should be over soon. Where all turns are taken, the oldest has to give way once
/// it has had its second, so that those who do nothing with theirs keep nobody out for long.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    taken: Arc<Mutex<VecDeque<Taken>>>,
    /// One of them is over.
    freed: Arc<Notify>,
    /// Where those wait who come when all are taken.
    door: Arc<Door>,
    max: usize,
}

#[derive(Debug)]
struct Taken {
    since: Instant,
    lost: Arc<Notify>,
}

/// One turn; dropping it ends it.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    lost: Arc<Notify>,
}

impl Turns {
    pub(super) fn new(max: usize) -> Self {
        Self { taken: Arc::default(), freed: Arc::default(), door: Arc::default(), max }
    }

    /// A turn, as soon as there is one: many who come together are served in their order. `None` if
    /// there was none for [`WAIT`], which happens only if others come all the time.
    pub(super) async fn wait(&self, clock: &Clock) -> Option<Turn> {
        timeout(WAIT, self.next(clock)).await.ok()
    }

    async fn next(&self, clock: &Clock) -> Turn {
        // Only who is the first of those who wait looks on: a crowd must cost nothing.
        let _first = self.door.lock().await;
        loop {
            let mut freed = pin!(self.freed.notified());
            // From here on none is missed.
            freed.as_mut().enable();
            let due = match self.take(clock.monotonic()) {
                Ok(turn) => return turn,
                Err(due) => due,
            };
            tokio::select! {
                () = freed => {}
                () = sleep_until(due.into()) => {}
            }
        }
    }

    /// A turn, or when the oldest has to give way.
    fn take(&self, now: Instant) -> Result<Turn, Instant> {
        let mut taken = locked(&self.taken);
        if taken.len() >= self.max
            && let Some(oldest) = taken.front()
        {
            let due = oldest.since + GRACE;
            if now < due {
                return Err(due);
            }
            oldest.lost.notify_one();
            taken.pop_front();
        }
        let lost = Arc::new(Notify::new());
        taken.push_back(Taken { since: now, lost: Arc::clone(&lost) });
        Ok(Turn { turns: self.clone(), lost })
    }
}

impl Turn {
    /// Waits until it has to give way.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Few, and the one that ends is most often among the oldest.
        let mut taken = locked(&self.turns.taken);
        if let Some(at) = taken.iter().position(|other| Arc::ptr_eq(&other.lost, &self.lost)) {
            taken.remove(at);
            self.turns.freed.notify_one();
        }
    }
}

fn locked(taken: &Mutex<VecDeque<Taken>>) -> MutexGuard<'_, VecDeque<Taken>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn refuses_at_the_limit_and_recovers() {
        let budget = Budget::new(2);
        let first = budget.take();
        let second = budget.take();
        assert!(first.is_some() && second.is_some());
        assert!(budget.take().is_none());
        drop(first);
        assert!(budget.take().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_turn_gives_way_after_a_second() {
        let begin = Clock::system().monotonic();
        let at = |millis| begin + Duration::from_millis(millis);
        let turns = Turns::new(2);
        let first = turns.take(at(0)).unwrap();
        let second = turns.take(at(500)).unwrap();
        assert_eq!(turns.take(at(999)).map(|_| ()), Err(at(1_000)));
        let third = turns.take(at(1_000)).unwrap();
        first.lost().await;
        // The next in line is the second one, and not before its time either.
        drop(first);
        assert_eq!(turns.take(at(1_499)).map(|_| ()), Err(at(1_500)));
        let _fourth = turns.take(at(1_500)).unwrap();
        second.lost().await;
        drop(third);
        assert!(turns.take(at(1_500)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_has_the_turn_that_is_over_or_that_of_the_oldest() {
        let clock = Clock::system();
        let begin = clock.monotonic();
        let turns = Turns::new(2);
        let (first, second) = (turns.wait(&clock).await, turns.wait(&clock).await.unwrap());
        // Two wait; one turn is over at once.
        let (mut third, mut fourth) = (pin!(turns.wait(&clock)), pin!(turns.wait(&clock)));
        assert!((&mut third).now_or_never().is_none() && (&mut fourth).now_or_never().is_none());
        drop(first);
        let _third = third.await.unwrap();
        assert_eq!(clock.monotonic(), begin);
        assert!((&mut fourth).now_or_never().is_none());
        let _fourth = fourth.await.unwrap();
        assert_eq!(clock.monotonic() - begin, GRACE);
        second.lost().await;
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let clock = Clock::system();
        let (begin, turns) = (clock.monotonic(), Turns::new(1));
        // Whoever has the turn gives it to a friend before its second is over.
        let friends = async {
            let mut held = turns.take(begin);
            loop {
                tokio::time::sleep(GRACE * 2 / 3).await;
                drop(held);
                held = turns.take(clock.monotonic());
            }
        };
        tokio::select! {
            biased;
            () = friends => {}
            turn = turns.wait(&clock) => assert!(turn.is_none()),
        }
        assert_eq!(clock.monotonic() - begin, WAIT);
    }
}
