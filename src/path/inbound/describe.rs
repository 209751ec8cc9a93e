//! What the report is told of a stream: who, to whom, and as which service.

use std::sync::Arc;

use super::{Admitted, Tunnel};
use crate::model::NetworkAddr;
use crate::path::lookup;
use crate::report::{Connection as Described, Direction, Side, Transport};

pub(super) fn describe(admitted: &Admitted, tunnel: &Tunnel) -> Described {
    let shared = &tunnel.room.shared;
    let snapshot = shared.view.load();
    let addr = NetworkAddr { network: Arc::clone(&shared.network), ip: tunnel.client.0.ip() };
    let source =
        (!admitted.from_gateway).then(|| lookup::described(shared, &snapshot, addr).cloned());
    let by_host = admitted.host.as_deref().and_then(|host| {
        let named = snapshot.service_by_host(host, Some(&*admitted.workload.namespace))?;
        snapshot.endpoint(&named.key, &admitted.workload.uid).map(|_| Arc::clone(named))
    });
    let port = admitted.delivery.destination.port();
    let by_port = || {
        let mut services = admitted.workload.services.iter();
        let (key, _) = services.find(|(_, ports)| ports.values().any(|target| *target == port))?;
        snapshot.service(key).cloned()
    };
    Described {
        direction: Direction::Inbound,
        transport: Transport::Hbone,
        source: Side {
            addr: tunnel.client.0,
            workload: source.flatten(),
            claimed: admitted.claimed.clone(),
            identity: Some(tunnel.peer.identity().clone()),
        },
        destination: Side {
            addr: admitted.delivery.destination,
            workload: Some(Arc::clone(&admitted.workload)),
            claimed: None,
            identity: Some(tunnel.pod.identity(&admitted.workload)),
        },
        authority: Some(admitted.authority.clone()),
        service: admitted.delivery.service.clone().or(by_host).or_else(by_port),
        original_destination: admitted.host.clone(),
        trace_id: Some(admitted.trace.trace_id),
    }
}
