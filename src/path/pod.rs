//! One pod that we serve, as the workers see it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::budget::{Budget, Turns};
use super::host::PodSpec;
use super::refusal;
use super::room::Shared;
use crate::config::OriginalSource;
use crate::creds::{ClientTls, Credentials, ServerTls};
use crate::model::{Snapshot, Workload};
use crate::report::{Failure, Reason};
use crate::wire::spiffe::Identity;

/// One pod, from its start to its stop. A pod that is started again is another one.
#[derive(Debug)]
pub(super) struct Pod {
    /// Never used twice in this process.
    pub(super) id: u64,
    pub(super) spec: PodSpec,
    /// Whether sockets in this pod may be bound to other people's addresses.
    pub(super) transparent: bool,
    pub(super) connections: Budget,
    pub(super) handshakes: Turns,
    held: Held,
}

impl Pod {
    pub(super) fn new(id: u64, spec: PodSpec, transparent: bool, shared: &Shared) -> Self {
        Self {
            id,
            spec,
            transparent: transparent && shared.config.original_source != OriginalSource::Never,
            connections: Budget::new(shared.limits.connections_per_pod),
            handshakes: Turns::new(shared.limits.handshakes_per_pod),
            held: Held { credentials: shared.credentials.clone(), state: Mutex::default() },
        }
    }

    /// The pod's own record, if it has arrived.
    pub(super) fn find<'a>(
        &self,
        shared: &Shared,
        snapshot: &'a Snapshot,
    ) -> Option<&'a Arc<Workload>> {
        snapshot.workload_of_pod(&self.spec.name, shared.node.as_deref())
    }

    /// The pod's own record, waiting a while for it to arrive (spec node-and-pods 4).
    pub(super) async fn workload(&self, shared: &Shared) -> Result<Arc<Workload>, Failure> {
        let limit = Duration::from_millis(shared.limits.workload_wait_ms);
        let found = shared.view.wait_for(limit, |snapshot| self.find(shared, snapshot).cloned());
        found.await.ok_or_else(|| {
            Failure::new(Reason::WorkloadUnknown, format!("no record of pod {}", self.spec.name))
        })
    }

    /// The identity of the pod: its trust domain from the record, the rest from the node agent
    /// (spec identity 1).
    pub(super) fn identity(&self, workload: &Workload) -> Identity {
        let own = workload.identity();
        let name = &self.spec.name;
        Identity::new(
            own.trust_domain(),
            Arc::clone(&name.namespace),
            Arc::clone(&name.service_account),
        )
    }

    /// Holds the pod's certificate for as long as the pod is here, whatever its record becomes.
    pub(super) async fn hold_certificate(&self, shared: &Shared) {
        let mut view = shared.view.clone();
        loop {
            if let Some(workload) = self.find(shared, &view.load()) {
                self.held.hold(&self.identity(workload));
            }
            if !view.changed().await {
                return;
            }
        }
    }

    /// The TLS configuration for tunnels that arrive for the pod.
    pub(super) async fn server_tls(
        &self,
        shared: &Shared,
        identity: &Identity,
    ) -> Result<ServerTls, Failure> {
        self.held.hold(identity);
        let config = shared.credentials.server(identity).await;
        config.map_err(|error| refusal::from_credentials(&error))
    }

    /// The TLS configuration for tunnels that the pod opens to one of the `expected`.
    pub(super) async fn client_tls(
        &self,
        shared: &Shared,
        identity: &Identity,
        expected: &[Identity],
    ) -> Result<ClientTls, Failure> {
        self.held.hold(identity);
        let config = shared.credentials.client(identity, expected).await;
        config.map_err(|error| refusal::from_credentials(&error))
    }

    /// The pod has left: from now on it holds no certificate, whoever still serves it.
    pub(super) fn leave(&self) {
        self.held.leave();
    }

    /// Whether it has left.
    pub(super) fn has_left(&self) -> bool {
        self.held.has_left()
    }
}

/// The one identity whose certificate a pod holds.
#[derive(Debug)]
struct Held {
    credentials: Credentials,
    state: Mutex<HeldState>,
}

#[derive(Debug, Default)]
struct HeldState {
    identity: Option<Identity>,
    left: bool,
}

impl Held {
    fn hold(&self, identity: &Identity) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.left || state.identity.as_ref() == Some(identity) {
            return;
        }
        self.credentials.hold(identity);
        if let Some(old) = state.identity.replace(identity.clone()) {
            self.credentials.release(&old);
        }
    }

    fn leave(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.left = true;
        if let Some(old) = state.identity.take() {
            self.credentials.release(&old);
        }
    }

    fn has_left(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).left
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leave();
    }
}
