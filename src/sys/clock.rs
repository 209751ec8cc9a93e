//! The only place that reads a clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Where the time comes from: the machine, or a test that moves it by hand.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    offset: Option<Arc<Offset>>,
}

#[derive(Debug, Default)]
struct Offset {
    wall_seconds: AtomicI64,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self { offset: None }
    }

    /// The machine's clock, whose wall time can be shifted with [`Clock::shift_wall`].
    pub fn shiftable() -> Self {
        Self { offset: Some(Arc::default()) }
    }

    /// Monotonic time: tokio's, so that a paused runtime pauses it too.
    #[expect(clippy::disallowed_methods, reason = "this is where monotonic time is read")]
    pub fn monotonic(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// Wall time.
    #[expect(clippy::disallowed_methods, reason = "this is where wall time is read")]
    pub fn wall(&self) -> SystemTime {
        let now = SystemTime::now();
        let Some(offset) = &self.offset else { return now };
        let seconds = offset.wall_seconds.load(Ordering::Relaxed);
        let shift = Duration::from_secs(seconds.unsigned_abs());
        let shifted = if seconds < 0 { now.checked_sub(shift) } else { now.checked_add(shift) };
        shifted.unwrap_or(now)
    }

    /// Moves the wall time of a shiftable clock to `seconds` from the machine's.
    pub fn shift_wall(&self, seconds: i64) {
        if let Some(offset) = &self.offset {
            offset.wall_seconds.store(seconds, Ordering::Relaxed);
        }
    }
}
