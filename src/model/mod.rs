//! The mesh as immutable values.
//!
//! Control code builds a [`Delta`], the [`Publisher`] turns it into the next [`Snapshot`], and
//! every reader holds a [`View`]. No lock is shared between the one writer and the readers.

mod addr;
mod delta;
#[cfg(test)]
pub(crate) mod fixtures;
mod lookup;
mod peer;
mod policy;
mod service;
mod shards;
mod snapshot;
mod view;
mod workload;

pub use addr::{ClientAddr, Hop, NetworkAddr, OrigDst, PodIp, canonical};
pub use delta::Delta;
pub use lookup::Wanted;
pub use peer::VerifiedPeer;
pub use policy::{
    Action, Group, Match, Policy, PolicyKey, Rule, Scope, ServiceAccountRef, StringMatch,
};
pub use service::{
    Endpoint, GatewayAddress, GatewayRef, HealthPolicy, IpFamilies, LoadBalancer, LoadBalancerMode,
    PortMap, RoutingScope, Service, ServiceKey, Visibility, WeightedWaypoint,
};
pub use snapshot::{Address, Snapshot};
pub use view::{Lookups, Publisher, View};
pub use workload::{
    ApplicationTunnel, Health, Locality, NetworkMode, PodName, TunnelProtocol, Workload,
    WorkloadProtocol,
};
