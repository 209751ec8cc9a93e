//! One writer, many readers: how a snapshot is published and loaded.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{Delta, Snapshot};

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
}

impl Publisher {
    /// A writer and its first reader, at the empty snapshot.
    pub fn new() -> (Self, View) {
        let current = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let (sender, receiver) = watch::channel(0);
        let view = View { current: Arc::clone(&current), generation: receiver };
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
