//! What readers ask for, where the control plane does not say everything unasked.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::mesh::{Mesh, lock};
use crate::model::{Lookups, Wanted};

/// Between two looks at which answers have grown old.
const TURN: Duration = Duration::from_secs(5);
/// Questions that are taken together.
const TOGETHER_MAX: usize = 256;

/// The questions of readers; without any, nothing ever happens here.
#[derive(Debug)]
pub(super) struct Readers {
    lookups: Option<Lookups>,
    turns: Interval,
}

/// What has happened.
#[derive(Debug)]
pub(super) enum Event {
    /// Readers ask.
    Wanted(Vec<Wanted>),
    /// A while has passed.
    Turn,
}

impl Readers {
    pub(super) fn new(lookups: Option<Lookups>) -> Self {
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { lookups, turns }
    }

    /// What happens next. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Event {
        let Some(lookups) = &mut self.lookups else { return std::future::pending().await };
        let mut wanted = Vec::new();
        tokio::select! {
            biased;
            taken = lookups.recv_many(&mut wanted, TOGETHER_MAX) => match taken {
                // Nobody will ever ask again.
                0 => std::future::pending().await,
                _ => Event::Wanted(wanted),
            },
            _ = self.turns.tick() => Event::Turn,
        }
    }

    /// Waits for something without a stream, noting what readers ask for meanwhile: the next
    /// stream begins with it.
    pub(super) async fn meanwhile<T>(
        &mut self,
        mesh: &Mutex<Mesh>,
        work: impl Future<Output = T>,
    ) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                event = self.next() => match event {
                    Event::Wanted(wanted) => lock(mesh).want(wanted),
                    // Without a stream what was said stands.
                    Event::Turn => {}
                },
            }
        }
    }
}
