//! How many of something there may be at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// For so long nobody has to give way.
const GRACE: Duration = Duration::from_secs(1);

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

/// A bound on what should be over soon. Where all turns are taken, the oldest has to give way once
/// it has had its second, so that those who do nothing with theirs keep nobody out for long.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    taken: Arc<Mutex<VecDeque<Taken>>>,
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
    taken: Arc<Mutex<VecDeque<Taken>>>,
    lost: Arc<Notify>,
}

impl Turns {
    pub(super) fn new(max: usize) -> Self {
        Self { taken: Arc::default(), max }
    }

    /// A turn, unless all are taken and none has lasted long enough.
    pub(super) fn take(&self, now: Instant) -> Option<Turn> {
        let mut taken = locked(&self.taken);
        if taken.len() >= self.max {
            let long = |oldest: &Taken| now.saturating_duration_since(oldest.since) >= GRACE;
            taken.front().filter(|oldest| long(oldest))?.lost.notify_one();
            taken.pop_front();
        }
        let lost = Arc::new(Notify::new());
        taken.push_back(Taken { since: now, lost: Arc::clone(&lost) });
        Some(Turn { taken: Arc::clone(&self.taken), lost })
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
        let mut taken = locked(&self.taken);
        if let Some(at) = taken.iter().position(|other| Arc::ptr_eq(&other.lost, &self.lost)) {
            taken.remove(at);
        }
    }
}

fn locked(taken: &Mutex<VecDeque<Taken>>) -> MutexGuard<'_, VecDeque<Taken>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
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

    #[tokio::test]
    async fn the_oldest_turn_gives_way_after_a_second() {
        let begin = crate::sys::clock::Clock::system().monotonic();
        let at = |millis| begin + Duration::from_millis(millis);
        let turns = Turns::new(2);
        let first = turns.take(at(0)).unwrap();
        let second = turns.take(at(500)).unwrap();
        assert!(turns.take(at(999)).is_none());
        let third = turns.take(at(1_000)).unwrap();
        first.lost().await;
        // The next in line is the second one, and not before its time either.
        drop(first);
        assert!(turns.take(at(1_499)).is_none());
        let _fourth = turns.take(at(1_500)).unwrap();
        second.lost().await;
        drop(third);
        assert!(turns.take(at(1_500)).is_some());
    }
}
