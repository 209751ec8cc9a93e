//! Is it ours: what a CONNECT authority means to the pod that received it (spec hbone 6,
//! discovery-and-balancing 8).

use std::net::SocketAddr;
use std::sync::Arc;

use crate::model::{PodIp, Service, Snapshot, Workload};
use crate::wire::authority::Authority;

/// Where an admitted stream goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The pod's address and the final port: what policies see.
    pub destination: SocketAddr,
    /// Send a PROXY header first, to loopback or to the pod's address.
    pub proxy_header: Option<SocketAddr>,
    /// The service the authority named, if it was a host name.
    pub service: Option<Arc<Service>>,
}

/// Why a CONNECT target is not ours. Each has the status of spec hbone 3.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The address is neither this pod's nor one that this pod is the waypoint of: 400.
    AddressMismatch,
    /// No service of that name: 503.
    HostnameUnknown,
    /// This pod is not an endpoint of that service: 503.
    NotAnEndpoint,
    /// The service has no such port here: 503.
    PortUnknown,
    /// The port is one of our own: 503.
    OwnPort,
    /// The service has no address to put into a PROXY header: 503.
    NoVirtualAddress,
}

/// Decides where a CONNECT to `authority`, accepted on `local_ip` of `local`, is delivered.
pub fn admit(
    snapshot: &Snapshot,
    local: &Workload,
    local_ip: PodIp,
    network: &Arc<str>,
    authority: &Authority,
) -> Result<Delivery, NotAdmitted> {
    let _ = (snapshot, local, local_ip, network, authority);
    Err(NotAdmitted::AddressMismatch)
}
