//! One writer, many readers: how a snapshot is published and loaded.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use super::{Delta, Snapshot, Wanted};

/// Questions to the control plane that wait to be taken.
const LOOKUPS_MAX: usize = 1_024;

/// What readers ask for, where the control plane does not say everything unasked.
pub type Lookups = mpsc::Receiver<Wanted>;

/// The one writer. It lives on the control thread.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<ArcSwap<Snapshot>>,
    generation: watch::Sender<u64>,
}

/// A reader. Loading a snapshot takes no lock.
#[derive(Clone, Debug)]
pub struct View {
    current: Arc<ArcSwap<Snapshot>>,
    generation: watch::Receiver<u64>,
    lookups: Option<mpsc::Sender<Wanted>>,
}

impl Publisher {
    /// A writer and its first reader, at the empty snapshot.
    pub fn new() -> (Self, View) {
        Self::of(Snapshot::default(), None)
    }

    /// The same, of a mesh that readers ask for one by one.
    pub fn on_demand() -> (Self, View, Lookups) {
        let (asked, lookups) = mpsc::channel(LOOKUPS_MAX);
        let (publisher, view) = Self::of(Snapshot::on_demand(), Some(asked));
        (publisher, view, lookups)
    }

    fn of(snapshot: Snapshot, lookups: Option<mpsc::Sender<Wanted>>) -> (Self, View) {
        let current = Arc::new(ArcSwap::from_pointee(snapshot));
        let (sender, receiver) = watch::channel(0);
        let view = View { current: Arc::clone(&current), generation: receiver, lookups };
        (Self { current, generation: sender }, view)
    }

    /// What was published last.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Applies a batch and makes the result the current snapshot.
    ///
    /// Readers that load after this returns see it; readers that wait are woken after it is there.
    pub fn publish(&mut self, delta: Delta) -> u64 {
        let next = delta.apply(&self.current.load());
        let generation = next.generation();
        self.current.store(Arc::new(next));
        self.generation.send_replace(generation);
        generation
    }
}

impl View {
    /// The current snapshot.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Has the control plane asked, if it has to be; the answer is in a later snapshot. `false` if
    /// nobody takes the question.
    pub fn ask(&self, wanted: Wanted) -> bool {
        self.lookups.as_ref().is_some_and(|lookups| lookups.try_send(wanted).is_ok())
    }

    /// Waits for a generation newer than the last one this reader was told of.
    ///
    /// Returns `false` when the writer is gone and nothing will ever change again.
    pub async fn changed(&mut self) -> bool {
        self.generation.changed().await.is_ok()
    }

    /// Waits until `find` finds something in the current snapshot, at most `limit`.
    pub async fn wait_for<T>(
        &self,
        limit: Duration,
        mut find: impl FnMut(&Snapshot) -> Option<T>,
    ) -> Option<T> {
        // The common case allocates and arms nothing.
        if let Some(found) = find(&self.load()) {
            return Some(found);
        }
        let mut reader = self.clone();
        let search = async {
            loop {
                // Mark what is there as seen before looking, so that no change is missed.
                reader.generation.borrow_and_update();
                if let Some(found) = find(&reader.load()) {
                    return Some(found);
                }
                if !reader.changed().await {
                    return None;
                }
            }
        };
        tokio::time::timeout(limit, search).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests;
