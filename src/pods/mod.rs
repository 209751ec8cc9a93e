//! Which pods live here: what the node agent says, reconciled with what is served.

mod dedicated;
mod feed;
mod roster;

use crate::path::{PodHost, PodSpec, StartError};

pub use dedicated::serve_one;
pub use feed::{Feed, Listing};
pub use roster::PodsStatus;

/// Where pods are started and stopped.
pub trait Host {
    /// Starts a pod; done when its listeners are open.
    fn start(&self, spec: PodSpec) -> impl Future<Output = Result<(), StartError>>;
    /// Stops a pod at once. Unknown uids are fine.
    fn stop(&self, uid: &str) -> impl Future<Output = ()>;
}

impl Host for PodHost {
    async fn start(&self, spec: PodSpec) -> Result<(), StartError> {
        Self::start(self, spec).await
    }

    async fn stop(&self, uid: &str) {
        Self::stop(self, uid).await;
    }
}
