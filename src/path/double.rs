//! A tunnel inside a tunnel: through the gateway in front of another network to the workload behind
//! it, with neither trusting the other (spec discovery-and-balancing 7).

use std::rc::Rc;
use std::sync::Arc;

use super::outbound::{Way, through};
use super::tunnel::{First, Stream, Transport};
use super::{headers, hello};
use crate::decide::TunnelRoute;
use crate::report::{Failure, Reason, Side};
use crate::wire::baggage::Baggage;
use crate::wire::spiffe::Identity;

/// Who answered at the far end of the inner tunnel.
#[derive(Debug)]
pub(super) struct Far {
    claimed: Option<Arc<Baggage>>,
    identity: Option<Identity>,
}

/// Opens the outer stream, which other connections may share a tunnel with, and in it a tunnel that
/// is this connection's own.
pub(super) async fn open(
    (outer, expected): (&TunnelRoute, &[Identity]),
    way: Way<'_>,
    first: &mut First<'_>,
    mut spoken: headers::Spoken,
) -> Result<(Far, Stream), Failure> {
    if expected.is_empty() {
        let why = "the service names no identity of the workloads in the other network";
        return Err(Failure::new(Reason::TunnelTls, why));
    }
    let (room, pod) = (way.room, way.pod);
    let shared = &room.shared;
    let carrier = through(outer, way, &spoken, &mut First::none()).await?;
    let inner = async {
        let tls = pod.client_tls(shared, &pod.identity(way.source), expected).await?;
        let transport = Transport::new(carrier, Rc::clone(&room.buffers));
        let (limit, report) = (shared.dial_limit(), &shared.report);
        let (secured, peer) = hello::connect(transport, tls, limit, report).await?;
        let identity = peer.map(|peer| peer.identity().clone());
        spoken.network = Some(Arc::clone(&shared.network));
        let request = headers::connect(&outer.authority, &spoken);
        let (answer, stream) = room.pool.open_alone(secured, request, first).await?;
        let claimed = Baggage::parse(headers::values(&answer, &headers::BAGGAGE)).map(Arc::new);
        Ok((Far { claimed, identity }, stream))
    };
    inner.await.map_err(|Failure { reason, detail }| {
        let detail = format!("behind the gateway: {detail}");
        Failure { reason, detail }
    })
}

impl Far {
    /// Replaces the gateway by who is behind it, if that has said who it is (spec hbone 3.4).
    pub(super) fn put_into(self, destination: &mut Side) {
        if self.claimed.is_some() {
            destination.workload = None;
            destination.claimed = self.claimed;
            destination.identity = self.identity;
        }
    }
}
