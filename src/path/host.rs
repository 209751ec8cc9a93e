//! The pods that this process serves: how they come and go.

use std::fmt;
use std::sync::Arc;

use crate::model::PodName;
use crate::sys::netns::Netns;

/// A pod to serve.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// Kubernetes pod uid.
    pub uid: Arc<str>,
    /// What the agent calls it.
    pub name: PodName,
    /// Its network namespace; `None` is the proxy's own (dedicated mode).
    pub netns: Option<Netns>,
}

/// Why a pod cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError(pub String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The handle through which pods are started and stopped.
#[derive(Clone, Debug)]
pub struct PodHost {}

impl PodHost {
    /// Opens the pod's listeners and starts to serve it. Done when the sockets are bound.
    pub async fn start(&self, spec: PodSpec) -> Result<(), StartError> {
        let _ = spec;
        Err(StartError("not wired".to_owned()))
    }

    /// Cuts the pod's listeners and connections at once. Unknown uids are fine.
    pub async fn stop(&self, uid: &str) {
        let _ = uid;
    }
}
