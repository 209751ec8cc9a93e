//! Readiness: ready when every part that was named is (spec operations 5).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the readiness server answers from. Cloning one is cheap.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    parts: Arc<Mutex<Vec<Part>>>,
}

#[derive(Debug)]
struct Part {
    name: &'static str,
    ready: bool,
}

/// One part that must be ready. It stays as it is when the handle is dropped: what died before it
/// was ready never becomes ready.
#[derive(Debug)]
pub struct Task {
    readiness: Readiness,
    index: usize,
}

impl Readiness {
    /// Nothing to wait for.
    pub fn new() -> Self {
        Self::default()
    }

    /// A part that is pending until it says otherwise. Name all parts before the server starts.
    pub fn task(&self, name: &'static str) -> Task {
        let mut parts = self.lock();
        parts.push(Part { name, ready: false });
        Task { readiness: self.clone(), index: parts.len() - 1 }
    }

    /// The names of the parts that are not ready, sorted.
    pub fn pending(&self) -> BTreeSet<&'static str> {
        self.lock().iter().filter(|part| !part.ready).map(|part| part.name).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    /// Says that the part is ready.
    pub fn ready(&self) {
        self.set(true);
    }

    /// Says that the part is not ready, or no more.
    pub fn pending(&self) {
        self.set(false);
    }

    fn set(&self, ready: bool) {
        if let Some(part) = self.readiness.lock().get_mut(self.index) {
            part.ready = ready;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_part_is_and_again_when_it_returns() {
        let readiness = Readiness::new();
        let check = |expected: &[&str]| {
            assert_eq!(readiness.pending().into_iter().collect::<Vec<_>>(), expected);
        };
        check(&[]);
        let state = readiness.task("state manager");
        let pods = readiness.task("workload proxy manager");
        let proxy = readiness.task("proxy");
        check(&["proxy", "state manager", "workload proxy manager"]);
        state.ready();
        proxy.ready();
        check(&["workload proxy manager"]);
        pods.ready();
        check(&[]);
        pods.pending();
        check(&["workload proxy manager"]);
        drop(proxy);
        drop(pods);
        check(&["workload proxy manager"]);
    }
}
