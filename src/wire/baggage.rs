//! The `baggage` header: what a workload says of itself, for telemetry only (spec hbone 3.2).

use std::sync::Arc;

/// What a workload says of itself. Nothing of it is ever an input to a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baggage {
    /// `k8s.cluster.name`
    pub cluster: Option<Arc<str>>,
    /// `k8s.namespace.name`
    pub namespace: Option<Arc<str>>,
    /// `k8s.<type>.name`
    pub workload_name: Option<Arc<str>>,
    /// The `<type>` of the above.
    pub workload_type: Option<Arc<str>>,
    /// `service.name`
    pub service_name: Option<Arc<str>>,
    /// `service.version`
    pub service_version: Option<Arc<str>>,
    /// `cloud.region`
    pub region: Option<Arc<str>>,
    /// `cloud.availability_zone`
    pub zone: Option<Arc<str>>,
}
