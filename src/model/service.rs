//! Services, their endpoints, and references to waypoints and gateways.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Health, NetworkAddr, Wanted};
use crate::wire::spiffe::Identity;

/// Service port to target port; a target of 0 is a named port that each endpoint resolves.
pub type PortMap = BTreeMap<u16, u16>;

/// `<namespace>/<hostname>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Namespace of the service.
    pub namespace: Arc<str>,
    /// Fully qualified host name.
    pub hostname: Arc<str>,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

/// One service record (spec operations 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Short name.
    pub name: Arc<str>,
    /// Namespace and host name.
    pub key: ServiceKey,
    /// Virtual addresses.
    pub vips: Vec<NetworkAddr>,
    /// Virtual address ranges.
    pub cidr_vips: Vec<(Arc<str>, IpNet)>,
    /// Service port to target port.
    pub ports: PortMap,
    /// Identities its endpoints may present besides their own.
    pub subject_alt_names: Vec<Identity>,
    /// Waypoint that all traffic to the service goes through.
    pub waypoint: Option<GatewayRef>,
    /// Waypoints to choose from by weight, for canaries.
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    /// How an endpoint is picked.
    pub load_balancer: Option<LoadBalancer>,
    /// Address families it may be reached by.
    pub ip_families: Option<IpFamilies>,
    /// Preferred among services that share a name or address.
    pub canonical: bool,
    /// Who may use it.
    pub visibility: Visibility,
}

impl Service {
    /// Whether endpoints that are not ready may be picked.
    pub fn allows_unhealthy(&self) -> bool {
        self.load_balancer.as_ref().is_some_and(|lb| lb.health_policy == HealthPolicy::AllowAll)
    }

    /// Whether traffic goes to the address it asked for instead of a picked endpoint.
    pub fn is_passthrough(&self) -> bool {
        self.load_balancer.as_ref().is_some_and(|lb| lb.mode == LoadBalancerMode::Passthrough)
    }

    /// Whether a client of this namespace may use it.
    pub fn visible_to(&self, namespace: &str) -> bool {
        self.visibility == Visibility::Public || &*self.key.namespace == namespace
    }
}

/// One endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The workload behind it.
    pub workload_uid: Arc<str>,
    /// Service port to port on this workload.
    pub ports: PortMap,
    /// Readiness of the workload.
    pub status: Health,
}

/// A waypoint or network gateway: what it is called and on which port it speaks HBONE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRef {
    /// Service or address.
    pub destination: GatewayAddress,
    /// HBONE port of that service or address.
    pub hbone_mtls_port: u16,
}

/// The two forms of a gateway reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayAddress {
    /// By service name.
    Hostname(ServiceKey),
    /// By address.
    Address(NetworkAddr),
}

impl GatewayAddress {
    /// It, as the control plane can be asked for it.
    pub fn wanted(&self) -> Wanted {
        match self {
            Self::Hostname(key) => Wanted::Host(key.clone()),
            Self::Address(addr) => Wanted::Addr(addr.clone()),
        }
    }
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hostname(key) => key.fmt(f),
            Self::Address(addr) => addr.fmt(f),
        }
    }
}

/// A waypoint and its share of the connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedWaypoint {
    /// The waypoint.
    pub destination: GatewayRef,
    /// Its weight.
    pub weight: u32,
}

/// How an endpoint is picked (spec discovery-and-balancing 4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Scopes to compare, most important first.
    pub routing_preferences: Vec<RoutingScope>,
    /// What the preferences mean.
    pub mode: LoadBalancerMode,
    /// Whether endpoints that are not ready may be picked.
    pub health_policy: HealthPolicy,
}

/// One scope that source and endpoint may share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutingScope {
    /// Locality region.
    Region,
    /// Locality zone.
    Zone,
    /// Locality subzone.
    Subzone,
    /// Node.
    Node,
    /// Cluster.
    Cluster,
    /// Network.
    Network,
}

/// What routing preferences mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadBalancerMode {
    /// Nothing: all endpoints are equal.
    Standard,
    /// Endpoints that do not match all of them are not used.
    Strict,
    /// Endpoints that match more of them are used first.
    Failover,
    /// No endpoint is picked.
    Passthrough,
}

/// Whether endpoints that are not ready may be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthPolicy {
    /// Never.
    OnlyHealthy,
    /// Always.
    AllowAll,
}

/// Address families a service may be reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpFamilies {
    /// IPv4 only.
    IPv4,
    /// IPv6 only.
    IPv6,
    /// Both.
    Dual,
}

impl IpFamilies {
    /// Whether an address of this family may be used.
    pub fn accepts(self, ip: IpAddr) -> bool {
        match self {
            Self::IPv4 => ip.is_ipv4(),
            Self::IPv6 => ip.is_ipv6(),
            Self::Dual => true,
        }
    }
}

/// Who may use a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody.
    Public,
    /// Clients of its own namespace.
    Namespace,
}
