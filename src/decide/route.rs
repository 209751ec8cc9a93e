//! Where does it go (spec hbone 8, discovery-and-balancing 3 to 7)?

use std::sync::Arc;

use super::Outbound;
use crate::model::{Hop, Service, Snapshot, Workload};
use crate::wire::authority::Authority;
use crate::wire::spiffe::Identity;

/// Where a captured connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// As it is, in plain text: unknown destinations and workloads outside the mesh.
    Passthrough {
        /// Where to connect to.
        hop: Hop,
        /// The workload there, if known.
        destination: Option<Arc<Workload>>,
        /// The service that was addressed.
        service: Option<Arc<Service>>,
    },
    /// Through one tunnel, to the workload itself or to a waypoint.
    Tunnel(TunnelRoute),
    /// Through a gateway of another network, with a second tunnel inside the first.
    DoubleTunnel {
        /// The tunnel to the gateway.
        outer: TunnelRoute,
        /// Identities the far end of the inner tunnel may present.
        inner_expected: Vec<Identity>,
    },
}

/// One CONNECT through one tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelRoute {
    /// Where the tunnel's TCP connection goes.
    pub hop: Hop,
    /// What the CONNECT asks for.
    pub authority: Authority,
    /// Identities the far end may present; never empty.
    pub expected: Vec<Identity>,
    /// The workload at the far end of the tunnel.
    pub destination: Arc<Workload>,
    /// The service that was addressed.
    pub service: Option<Arc<Service>>,
}

/// Why a captured connection goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It was addressed to one of the proxy's own ports on loopback.
    SelfCall,
    /// The service has no endpoint that may be picked.
    NoHealthyUpstream,
    /// The waypoint that must be used cannot be resolved.
    WaypointUnknown,
    /// The gateway of the other network cannot be resolved.
    GatewayUnknown,
    /// A workload of another network was addressed without a service.
    OtherNetworkWithoutService,
    /// The workload is known by host name only.
    NoAddress,
}

/// Decides where one captured connection goes.
pub fn route(
    snapshot: &Snapshot,
    facts: &Outbound<'_>,
    rng: &mut fastrand::Rng,
) -> Result<Route, Refusal> {
    let _ = (snapshot, rng);
    let hop = Hop(facts.destination.0);
    Ok(Route::Passthrough { hop, destination: None, service: None })
}
