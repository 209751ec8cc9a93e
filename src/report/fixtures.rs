//! One client, one server and one service that the tests of this room share.

use std::sync::Arc;

use super::{Connection, Direction, Side, Transport};
use crate::model::{NetworkAddr, Service, ServiceKey, Visibility, Workload, WorkloadProtocol};

/// The pod `shop/web-0`.
pub(super) fn client() -> Workload {
    Workload {
        uid: "c1//Pod/shop/web-0".into(),
        name: "web-0".into(),
        namespace: "shop".into(),
        service_account: "web".into(),
        trust_domain: "cluster.local".into(),
        cluster_id: "c1".into(),
        workload_name: "web".into(),
        workload_type: "deployment".into(),
        canonical_name: "web".into(),
        canonical_revision: "v1".into(),
        ips: vec!["10.0.0.1".parse().unwrap()],
        protocol: WorkloadProtocol::Hbone,
        ..Workload::default()
    }
}

/// The pod `shop/cart-0`.
pub(super) fn server() -> Workload {
    Workload {
        uid: "c1//Pod/shop/cart-0".into(),
        name: "cart-0".into(),
        service_account: "cart".into(),
        workload_name: "cart".into(),
        canonical_name: "cart".into(),
        canonical_revision: "latest".into(),
        ips: vec!["10.0.0.2".parse().unwrap()],
        ..client()
    }
}

/// The service in front of `shop/cart-0`.
pub(super) fn service() -> Service {
    Service {
        name: "cart".into(),
        key: ServiceKey {
            namespace: "shop".into(),
            hostname: "cart.shop.svc.cluster.local".into(),
        },
        vips: vec![NetworkAddr { network: "".into(), ip: "10.8.0.1".parse().unwrap() }],
        cidr_vips: Vec::new(),
        ports: [(80, 8080)].into(),
        subject_alt_names: Vec::new(),
        waypoint: None,
        weighted_waypoints: Vec::new(),
        load_balancer: None,
        ip_families: None,
        canonical: true,
        visibility: Visibility::Public,
    }
}

/// One end: with a record, it has proven its identity.
pub(super) fn side(addr: &str, workload: Option<Workload>) -> Side {
    Side {
        addr: addr.parse().unwrap(),
        identity: workload.as_ref().map(Workload::identity),
        workload: workload.map(Arc::new),
        claimed: None,
    }
}

/// From `web-0` to `cart-0`, by way of the service.
pub(super) fn connection(direction: Direction, transport: Transport) -> Connection {
    let tunnelled = transport != Transport::Plaintext;
    let hop = match (direction, transport) {
        (Direction::Outbound, Transport::Hbone) => "10.0.0.2:15008",
        _ => "10.0.0.2:8080",
    };
    Connection {
        direction,
        transport,
        source: side("10.0.0.1:40000", Some(client())),
        destination: side(hop, Some(server())),
        authority: tunnelled.then(|| "10.0.0.2:8080".parse().unwrap()),
        service: Some(Arc::new(service())),
        original_destination: None,
        trace_id: None,
    }
}
