//! One pod that we serve, as the workers see it.

use std::sync::Arc;
use std::time::Duration;

use super::budget::Budget;
use super::host::PodSpec;
use super::room::Shared;
use crate::config::OriginalSource;
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
    pub(super) handshakes: Budget,
}

impl Pod {
    pub(super) fn new(id: u64, spec: PodSpec, transparent: bool, shared: &Shared) -> Self {
        Self {
            id,
            spec,
            transparent: transparent && shared.config.original_source != OriginalSource::Never,
            connections: Budget::new(shared.limits.connections_per_pod),
            handshakes: Budget::new(shared.limits.handshakes_per_pod),
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
        let mut held = Held { shared, identity: None };
        let mut view = shared.view.clone();
        loop {
            let now = self.find(shared, &view.load()).map(|workload| self.identity(workload));
            if now.is_some() && now != held.identity {
                held.change(now);
            }
            if !view.changed().await {
                return;
            }
        }
    }
}

struct Held<'a> {
    shared: &'a Shared,
    identity: Option<Identity>,
}

impl Held<'_> {
    fn change(&mut self, identity: Option<Identity>) {
        if let Some(identity) = &identity {
            self.shared.credentials.hold(identity);
        }
        if let Some(old) = std::mem::replace(&mut self.identity, identity) {
            self.shared.credentials.release(&old);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.change(None);
    }
}
