//! Workloads: pods and everything else that has an address and an identity.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::{GatewayRef, PolicyKey, PortMap, ServiceKey};
use crate::wire::spiffe::Identity;

/// The trust domain of a record that names none (spec identity 1).
const TRUST_DOMAIN_DEFAULT: &str = "cluster.local";
/// The service account of a record that names none (spec identity 1).
const SERVICE_ACCOUNT_DEFAULT: &str = "default";

/// One workload record, as the control plane describes it (spec operations 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Unique and opaque, except that a pod's contains `//Pod/`.
    pub uid: Arc<str>,
    /// The pod's name.
    pub name: Arc<str>,
    /// Kubernetes namespace.
    pub namespace: Arc<str>,
    /// Kubernetes service account; may be empty.
    pub service_account: Arc<str>,
    /// Trust domain; may be empty.
    pub trust_domain: Arc<str>,
    /// Network the addresses belong to.
    pub network: Arc<str>,
    /// Node it runs on.
    pub node: Arc<str>,
    /// Cluster it runs in.
    pub cluster_id: Arc<str>,
    /// Name of the owning Deployment, Job and so on.
    pub workload_name: Arc<str>,
    /// `deployment`, `cronjob`, `pod` or `job`.
    pub workload_type: Arc<str>,
    /// Canonical service name, for telemetry.
    pub canonical_name: Arc<str>,
    /// Canonical service revision, for telemetry.
    pub canonical_revision: Arc<str>,
    /// Name to resolve when there is no address.
    pub hostname: Arc<str>,
    /// Its addresses, the preferred one first.
    pub ips: Vec<IpAddr>,
    /// How it is reached.
    pub protocol: WorkloadProtocol,
    /// Whether its addresses are its own.
    pub network_mode: NetworkMode,
    /// It terminates HBONE itself.
    pub native_tunnel: bool,
    /// Where a captured stream is delivered instead of the target port.
    pub application_tunnel: Option<ApplicationTunnel>,
    /// Waypoint for traffic addressed to the workload.
    pub waypoint: Option<GatewayRef>,
    /// Gateway of the network it lives in.
    pub network_gateway: Option<GatewayRef>,
    /// Policies attached to it by name.
    pub authorization_policies: Vec<PolicyKey>,
    /// Whether it may be picked as an endpoint.
    pub status: Health,
    /// Where it runs.
    pub locality: Locality,
    /// Services it is an endpoint of, with the port map of each.
    pub services: Vec<(ServiceKey, PortMap)>,
    /// Weight when an endpoint is picked.
    pub capacity: u32,
}

impl Workload {
    /// The identity its certificate carries.
    pub fn identity(&self) -> Identity {
        let or = |text: &Arc<str>, default: &str| {
            if text.is_empty() { Arc::from(default) } else { Arc::clone(text) }
        };
        Identity::new(
            or(&self.trust_domain, TRUST_DOMAIN_DEFAULT),
            Arc::clone(&self.namespace),
            or(&self.service_account, SERVICE_ACCOUNT_DEFAULT),
        )
    }

    /// Whether this record describes the pod that the node agent named (spec identity 1).
    pub fn is_pod(&self, pod: &PodName) -> bool {
        self.name == pod.name
            && self.namespace == pod.namespace
            && self.identity().service_account() == &*pod.service_account
    }
}

impl Default for Workload {
    fn default() -> Self {
        let empty: Arc<str> = Arc::from("");
        Self {
            uid: Arc::clone(&empty),
            name: Arc::clone(&empty),
            namespace: Arc::clone(&empty),
            service_account: Arc::clone(&empty),
            trust_domain: Arc::clone(&empty),
            network: Arc::clone(&empty),
            node: Arc::clone(&empty),
            cluster_id: Arc::clone(&empty),
            workload_name: Arc::clone(&empty),
            workload_type: Arc::clone(&empty),
            canonical_name: Arc::clone(&empty),
            canonical_revision: Arc::clone(&empty),
            hostname: empty,
            ips: Vec::new(),
            protocol: WorkloadProtocol::Tcp,
            network_mode: NetworkMode::Standard,
            native_tunnel: false,
            application_tunnel: None,
            waypoint: None,
            network_gateway: None,
            authorization_policies: Vec::new(),
            status: Health::Healthy,
            locality: Locality::default(),
            services: Vec::new(),
            capacity: 1,
        }
    }
}

/// What the node agent calls a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodName {
    /// Pod name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How a workload is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadProtocol {
    /// As it is: not part of the mesh.
    Tcp,
    /// Through a tunnel to its port 15008, never in plain text.
    Hbone,
}

/// Whether a workload's addresses are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// It has addresses of its own.
    Standard,
    /// It shares the node's, so it cannot be found by address.
    HostNetwork,
}

/// Whether a workload may be picked as an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Ready.
    Healthy,
    /// Picked only by services that allow it.
    Unhealthy,
}

/// Where captured streams of a workload are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplicationTunnel {
    /// What precedes the bytes.
    pub protocol: TunnelProtocol,
    /// Port that replaces the target's.
    pub port: Option<u16>,
}

/// What precedes the bytes on an application tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelProtocol {
    /// Nothing.
    None,
    /// A PROXY protocol version 2 header.
    Proxy,
}

/// Region, zone and subzone; empty where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Subzone.
    pub subzone: Arc<str>,
}
