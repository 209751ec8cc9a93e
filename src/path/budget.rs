//! How many of something there may be at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
}
