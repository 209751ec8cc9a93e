use std::collections::BTreeMap;
use std::sync::Arc;

use prost_types::Any;

use super::*;
use crate::decide::{Client, Facts, Outbound, Refusal, authorize, route};
use crate::model::fixtures::{gateway, id, ip, mesh, net_addr, pod, policy, policy_key, sock};
use crate::model::{
    ApplicationTunnel, ClientAddr, Health, HealthPolicy, IpFamilies, LoadBalancer,
    LoadBalancerMode, Locality, NetworkMode, OrigDst, RoutingScope, Snapshot, TunnelProtocol,
    VerifiedPeer, Visibility, WeightedWaypoint, WorkloadProtocol,
};
use crate::wire::xds::security::{Authorization, Group, Match, Rules, StringMatch, string_match};
use crate::wire::xds::workload::address::Type;
use crate::wire::xds::workload::gateway_address::Destination;
use crate::wire::xds::workload::{
    Address, GatewayAddress, LoadBalancing, NamespacedHostname, NetworkAddress, Port, PortList,
};

const UID: &str = "c1//Pod/shop/cart-0";
const SERVICE: &str = "shop/cart.shop";
const POLICY: &str = "shop/only-web";

fn resource(name: &str, payload: Vec<u8>) -> Resource {
    let any = Any { type_url: "whatever".to_owned(), value: payload };
    Resource { name: name.to_owned(), resource: Some(any), ..Resource::default() }
}

fn read_address(name: &str, kind: Type) -> Result<Item, Rejection> {
    let payload = Address { r#type: Some(kind) }.encode_to_vec();
    read_named(ResourceType::Address, &resource(name, payload))
}

fn read_named(kind: ResourceType, resource: &Resource) -> Result<Item, Rejection> {
    read(kind, &resource.name.as_str().into(), resource, &mut Texts::default())
}

fn read_workload(message: &workload::Workload) -> Result<Item, Rejection> {
    read_address(UID, Type::Workload(message.clone()))
}

fn read_service(message: &workload::Service) -> Result<Item, Rejection> {
    read_address(SERVICE, Type::Service(message.clone()))
}

fn read_policy(message: &Authorization, more: &[u8]) -> Result<Item, Rejection> {
    let payload = [message.encode_to_vec(), more.to_vec()].concat();
    read_named(ResourceType::Authorization, &resource(POLICY, payload))
}

fn waypoint_message(port: u32) -> GatewayAddress {
    let (namespace, hostname) = ("shop".to_owned(), "wp.shop".to_owned());
    let name = NamespacedHostname { namespace, hostname };
    GatewayAddress { destination: Some(Destination::Hostname(name)), hbone_mtls_port: port }
}

fn address_message(bytes: &[u8], length: Option<u32>) -> NetworkAddress {
    NetworkAddress { network: "n1".to_owned(), address: bytes.to_vec(), length }
}

fn port_message(service_port: u32, target_port: u32) -> Port {
    Port { service_port, target_port, app_protocol: 77 }
}

/// A workload of which everything is said.
fn workload_message() -> workload::Workload {
    let text = str::to_owned;
    let by_address = Destination::Address(address_message(&[10, 0, 0, 99], Some(8)));
    workload::Workload {
        uid: text(UID),
        name: text("cart-0"),
        namespace: text("shop"),
        addresses: vec![vec![10, 9, 0, 7], ip_bytes("::ffff:10.9.0.8"), ip_bytes("2001:db8::1")],
        network: text("n1"),
        tunnel_protocol: 1,
        trust_domain: text("td"),
        service_account: text("cart"),
        waypoint: Some(waypoint_message(15008)),
        network_gateway: Some(GatewayAddress {
            destination: Some(by_address),
            hbone_mtls_port: 15009,
        }),
        node: text("node-a"),
        canonical_name: text("cn"),
        canonical_revision: text("cr"),
        workload_type: 3,
        workload_name: text("cart"),
        native_tunnel: true,
        application_tunnel: Some(workload::ApplicationTunnel { protocol: 1, port: 8080 }),
        services: [(
            text(SERVICE),
            PortList { ports: vec![port_message(80, 1), port_message(80, 8080)] },
        )]
        .into(),
        authorization_policies: vec![text(POLICY)],
        status: 1,
        cluster_id: text("c1"),
        locality: Some(workload::Locality {
            region: text("r"),
            zone: text("z"),
            subzone: text("s"),
        }),
        network_mode: 1,
        hostname: text("cart.example"),
        extensions: Vec::new(),
        capacity: Some(0),
    }
}

fn ip_bytes(text: &str) -> Vec<u8> {
    crate::wire::xds::ip_bytes(ip(text))
}

fn service_message() -> workload::Service {
    let text = str::to_owned;
    let weighted =
        workload::WeightedWaypoint { destination: Some(waypoint_message(15008)), weight: 7 };
    workload::Service {
        name: text("cart"),
        namespace: text("shop"),
        hostname: text("cart.shop"),
        addresses: vec![
            address_message(&[10, 8, 0, 1], None),
            address_message(&[10, 8, 0, 2], Some(32)),
            address_message(&[10, 7, 1, 1], Some(16)),
        ],
        ports: vec![port_message(80, 8080), port_message(443, 0)],
        subject_alt_names: vec![text("spiffe://td/ns/shop/sa/cart"), text("cart.example")],
        waypoint: Some(waypoint_message(15008)),
        load_balancing: Some(LoadBalancing {
            routing_preference: vec![1, 2, 3, 4, 5, 6],
            mode: 2,
            health_policy: 1,
        }),
        ip_families: 2,
        extensions: Vec::new(),
        canonical: true,
        ingress_use_waypoint: true,
        weighted_waypoints: vec![weighted],
        visibility: 1,
    }
}

fn exact(text: &str) -> StringMatch {
    StringMatch { match_type: Some(string_match::MatchType::Exact(text.to_owned())) }
}

fn policy_message(action: i32, entry: Match) -> Authorization {
    let rules = Rules { matches: vec![entry] };
    Authorization {
        name: "only-web".to_owned(),
        namespace: "shop".to_owned(),
        scope: 1,
        action,
        groups: vec![Group { rules: vec![rules] }],
        ..Authorization::default()
    }
}

fn web() -> Match {
    Match { principals: vec![exact("td/ns/front/sa/web")], ..Match::default() }
}

#[test]
fn a_workload_of_which_everything_is_said() {
    let expected = Workload {
        uid: UID.into(),
        name: "cart-0".into(),
        namespace: "shop".into(),
        service_account: "cart".into(),
        trust_domain: "td".into(),
        network: "n1".into(),
        node: "node-a".into(),
        cluster_id: "c1".into(),
        workload_name: "cart".into(),
        workload_type: "job".into(),
        canonical_name: "cn".into(),
        canonical_revision: "cr".into(),
        hostname: "cart.example".into(),
        ips: vec![ip("10.9.0.7"), ip("10.9.0.8"), ip("2001:db8::1")],
        protocol: WorkloadProtocol::Hbone,
        network_mode: NetworkMode::HostNetwork,
        native_tunnel: true,
        application_tunnel: Some(ApplicationTunnel {
            protocol: TunnelProtocol::Proxy,
            port: Some(8080),
        }),
        waypoint: Some(gateway("shop/wp.shop:15008")),
        network_gateway: Some(gateway("@n1/10.0.0.99:15009")),
        authorization_policies: vec![policy_key(POLICY)],
        status: Health::Unhealthy,
        locality: Locality { region: "r".into(), zone: "z".into(), subzone: "s".into() },
        services: vec![(
            crate::model::fixtures::service_key(SERVICE),
            BTreeMap::from([(80, 8080)]),
        )],
        capacity: 0,
    };
    assert_eq!(read_workload(&workload_message()), Ok(Item::Workload(Box::new(expected))));
}

#[test]
fn a_workload_of_which_nothing_is_said() {
    let least = workload::Workload { uid: UID.to_owned(), ..Default::default() };
    let expected = Workload {
        uid: UID.into(),
        cluster_id: "Kubernetes".into(),
        workload_type: "deployment".into(),
        ..Workload::default()
    };
    assert_eq!(read_workload(&least), Ok(Item::Workload(Box::new(expected))));
}

#[test]
fn a_service_of_which_everything_is_said() {
    let expected = Service {
        name: "cart".into(),
        key: crate::model::fixtures::service_key(SERVICE),
        vips: vec![net_addr("n1/10.8.0.1"), net_addr("n1/10.8.0.2")],
        cidr_vips: vec![("n1".into(), "10.7.0.0/16".parse().unwrap())],
        ports: BTreeMap::from([(80, 8080), (443, 0)]),
        subject_alt_names: vec![id("spiffe://td/ns/shop/sa/cart")],
        waypoint: Some(gateway("shop/wp.shop:15008")),
        weighted_waypoints: vec![WeightedWaypoint {
            destination: gateway("shop/wp.shop:15008"),
            weight: 7,
        }],
        load_balancer: Some(LoadBalancer {
            routing_preferences: vec![
                RoutingScope::Region,
                RoutingScope::Zone,
                RoutingScope::Subzone,
                RoutingScope::Node,
                RoutingScope::Cluster,
                RoutingScope::Network,
            ],
            mode: LoadBalancerMode::Failover,
            health_policy: HealthPolicy::AllowAll,
        }),
        ip_families: Some(IpFamilies::IPv6),
        canonical: true,
        visibility: Visibility::Namespace,
    };
    assert_eq!(read_service(&service_message()), Ok(Item::Service(Box::new(expected))));
    let unknown = workload::Service { visibility: 9, ..service_message() };
    let Ok(Item::Service(service)) = read_service(&unknown) else { panic!("no service") };
    assert_eq!(service.visibility, Visibility::Public);
}

#[test]
fn a_policy_of_which_everything_is_said() {
    use string_match::MatchType;
    let kind = |kind| vec![StringMatch { match_type: Some(kind) }];
    let net = |bytes: &[u8], length| vec![security::Address { address: bytes.to_vec(), length }];
    let account = |name: &str| {
        let (namespace, service_account) = ("ns".to_owned(), name.to_owned());
        vec![security::ServiceAccountMatch { namespace, service_account }]
    };
    let message = policy_message(
        1,
        Match {
            namespaces: kind(MatchType::Exact("a".to_owned())),
            not_namespaces: kind(MatchType::Prefix("b".to_owned())),
            principals: kind(MatchType::Suffix("c".to_owned())),
            not_principals: kind(MatchType::Presence(())),
            source_ips: net(&[10, 1, 2, 3], 8),
            not_source_ips: net(&[10, 1, 2, 3], 32),
            destination_ips: net(&[0; 16], 0),
            not_destination_ips: net(&[10, 1, 0, 0], 16),
            destination_ports: vec![80, 65_535],
            not_destination_ports: vec![1],
            service_accounts: account("d"),
            not_service_accounts: account("e"),
            extensions: Vec::new(),
        },
    );
    let text = "DENY NAMESPACE shop/only-web: {namespaces: exact a, notNamespaces: prefix b, \
        principals: suffix c, notPrincipals: presence, sourceIps: 10.0.0.0/8, \
        notSourceIps: 10.1.2.3/32, destinationIps: ::/0, notDestinationIps: 10.1.0.0/16, \
        destinationPorts: 80+65535, notDestinationPorts: 1, serviceAccounts: ns/d, \
        notServiceAccounts: ns/e}";
    let (head, groups) = text.split_once(": ").unwrap();
    let expected = policy(head, groups);
    assert_eq!(read_policy(&message, &[]), Ok(Item::Policy(Box::new(expected.clone()))));
    let dry = Authorization { dry_run: true, scope: 2, ..message };
    let scope = crate::model::Scope::WorkloadSelector;
    let expected = Policy { dry_run: true, scope, ..expected };
    assert_eq!(read_policy(&dry, &[]), Ok(Item::Policy(Box::new(expected))));
}

/// What is rejected, and why.
#[test]
fn flaws() {
    let bad_port = vec![port_message(65_536, 1)];
    let no_destination = Some(GatewayAddress { destination: None, hbone_mtls_port: 1 });
    let workload = |change: &dyn Fn(&mut workload::Workload), expected: &str| {
        let mut message = workload_message();
        change(&mut message);
        let got = read_workload(&message).map_err(|rejection| rejection.flaw.to_string());
        assert_eq!(got, Err(expected.to_owned()));
    };
    workload(&|w| w.uid.push('x'), "its content is named \"c1//Pod/shop/cart-0x\"");
    workload(&|w| w.namespace = "a/b".into(), "namespace: \"a/b\" is not of the right form");
    workload(&|w| w.trust_domain = "a/b".into(), "trust_domain: \"a/b\" is not of the right form");
    workload(
        &|w| w.service_account = "a/b".into(),
        "service_account: \"a/b\" is not of the right form",
    );
    workload(&|w| w.addresses.push(vec![1; 5]), "addresses: an address of 5 bytes");
    workload(&|w| w.tunnel_protocol = 2, "tunnel_protocol: 2 is not served");
    workload(&|w| w.tunnel_protocol = 3, "tunnel_protocol: 3 is not served");
    workload(&|w| w.network_mode = 2, "network_mode: 2 is not served");
    workload(&|w| w.status = -1, "status: -1 is not served");
    workload(&|w| w.waypoint.clone_from(&no_destination), "waypoint: it has no destination");
    workload(
        &|w| w.network_gateway.clone_from(&no_destination),
        "network_gateway: it has no destination",
    );
    workload(&|w| w.waypoint = Some(waypoint_message(70_000)), "waypoint: 70000 is not a port");
    workload(
        &|w| w.authorization_policies.push("x".into()),
        "authorization_policies: \"x\" is not of the right form",
    );
    workload(
        &|w| drop(w.services.insert("x".into(), PortList::default())),
        "services: \"x\" is not of the right form",
    );
    workload(
        &|w| drop(w.services.insert("a/b".into(), PortList { ports: bad_port.clone() })),
        "services: 65536 is not a port",
    );
    let tunnel = |protocol, port| Some(workload::ApplicationTunnel { protocol, port });
    workload(
        &|w| w.application_tunnel = tunnel(2, 0),
        "application_tunnel.protocol: 2 is not served",
    );
    workload(
        &|w| w.application_tunnel = tunnel(1, 65_536),
        "application_tunnel.port: 65536 is not a port",
    );

    let service = |change: &dyn Fn(&mut workload::Service), expected: &str| {
        let mut message = service_message();
        change(&mut message);
        let got = read_service(&message).map_err(|rejection| rejection.flaw.to_string());
        assert_eq!(got, Err(expected.to_owned()));
    };
    service(&|s| s.hostname = "x".into(), "its content is named \"shop/x\"");
    service(&|s| s.hostname.clear(), "hostname: it is empty");
    service(&|s| s.namespace.clear(), "namespace: \"\" is not of the right form");
    service(&|s| s.addresses.push(address_message(&[1], None)), "addresses: an address of 1 bytes");
    service(
        &|s| s.addresses.push(address_message(&[10, 0, 0, 0], Some(33))),
        "addresses: a prefix of 33 bits",
    );
    service(&|s| s.ports.clone_from(&bad_port), "ports: 65536 is not a port");
    service(&|s| s.ip_families = 4, "ip_families: 4 is not served");
    service(&|s| s.waypoint.clone_from(&no_destination), "waypoint: it has no destination");
    service(
        &|s| s.weighted_waypoints.push(workload::WeightedWaypoint::default()),
        "weighted_waypoints: it has no destination",
    );
    let balancing = |scope, mode, health_policy| {
        Some(LoadBalancing { routing_preference: vec![scope], mode, health_policy })
    };
    for (load_balancing, expected) in [
        (balancing(0, 0, 0), "load_balancing.routing_preference: 0 is not served"),
        (balancing(7, 0, 0), "load_balancing.routing_preference: 7 is not served"),
        (balancing(1, 4, 0), "load_balancing.mode: 4 is not served"),
        (balancing(1, 0, 2), "load_balancing.health_policy: 2 is not served"),
    ] {
        service(&|s| s.load_balancing.clone_from(&load_balancing), expected);
    }

    let policy = |change: &dyn Fn(&mut Authorization, &mut Match), expected: &str| {
        let mut message = policy_message(0, Match::default());
        let mut entry = web();
        change(&mut message, &mut entry);
        message.groups[0].rules[0].matches[0] = entry;
        let got = read_policy(&message, &[]).map_err(|rejection| rejection.flaw.to_string());
        assert_eq!(got, Err(expected.to_owned()));
    };
    policy(&|p, _| p.name.push('x'), "its content is named \"shop/only-webx\"");
    policy(&|p, _| p.namespace.clear(), "namespace: \"\" is not of the right form");
    policy(&|p, _| p.scope = 3, "scope: 3 is not served");
    policy(&|p, _| p.action = 2, "action: 2 is not served");
    policy(&|_, m| m.principals.push(exact("")), "principals: it is empty");
    policy(&|_, m| m.not_principals.push(StringMatch::default()), "not_principals: it is empty");
    policy(&|_, m| m.namespaces.push(exact("")), "namespaces: it is empty");
    policy(&|_, m| m.not_namespaces.push(exact("")), "not_namespaces: it is empty");
    policy(&|_, m| m.service_accounts.push(Default::default()), "service_accounts: it is empty");
    policy(
        &|_, m| m.not_service_accounts.push(Default::default()),
        "not_service_accounts: it is empty",
    );
    let net = || security::Address { address: vec![1, 2, 3, 4], length: 33 };
    policy(&|_, m| m.source_ips.push(net()), "source_ips: a prefix of 33 bits");
    policy(&|_, m| m.not_source_ips.push(net()), "not_source_ips: a prefix of 33 bits");
    policy(&|_, m| m.destination_ips.push(net()), "destination_ips: a prefix of 33 bits");
    policy(&|_, m| m.not_destination_ips.push(net()), "not_destination_ips: a prefix of 33 bits");
    policy(&|_, m| m.destination_ports.push(65_536), "destination_ports: 65536 is not a port");
    policy(
        &|_, m| m.not_destination_ports.push(1 << 20),
        "not_destination_ports: 1048576 is not a port",
    );
}

#[test]
fn bytes_that_are_no_resource() {
    let read = |kind, resource: &Resource| {
        read_named(kind, resource).map_err(|rejection| rejection.flaw.to_string())
    };
    for kind in ResourceType::ALL {
        let nothing = Resource { name: POLICY.to_owned(), ..Resource::default() };
        assert_eq!(read(kind, &nothing), Err("it has no content".to_owned()));
        for bytes in [&[0xff_u8][..], &[0x0a, 0x05, 1], &[0x0a, 0x02, 0xff, 0xfe]] {
            let why = read(kind, &resource(POLICY, bytes.to_vec())).unwrap_err();
            assert!(why.starts_with("its content cannot be decoded: "), "{why}");
        }
    }
    let neither = read(ResourceType::Address, &resource(UID, Vec::new()));
    assert_eq!(neither, Err("it is neither a workload nor a service".to_owned()));
}

/// A field of a later version: number 100, varint 1.
const LATER: [u8; 3] = [0xa0, 0x06, 0x01];

#[test]
fn conditions_of_a_later_version_never_let_more_in() {
    let flaw = |message: &Authorization, more: &[u8]| {
        read_policy(message, more).err().map(|rejection| rejection.flaw)
    };
    let unknown = Some(Flaw::UnknownFields);
    assert_eq!(flaw(&policy_message(0, web()), &LATER), unknown);
    // Without it a DENY denies more, unless nothing is left of a match.
    assert_eq!(flaw(&policy_message(1, web()), &LATER), None);
    assert_eq!(flaw(&policy_message(1, Match::default()), &LATER), unknown);
    assert_eq!(flaw(&policy_message(1, Match::default()), &[]), None);
    // Within the match: group > rules > matches, each with its length.
    let inside = |action: i32| {
        let head = Authorization { groups: Vec::new(), ..policy_message(action, web()) };
        let entry = [web().encode_to_vec(), LATER.to_vec()].concat();
        let wrap = |tag: u8, bytes: Vec<u8>| {
            [vec![tag, u8::try_from(bytes.len()).unwrap()], bytes].concat()
        };
        let groups = wrap(0x2a, wrap(0x0a, wrap(0x12, entry)));
        flaw(&head, &groups)
    };
    assert_eq!(inside(0), unknown);
    assert_eq!(inside(1), None);
    // Of workloads and services, fields of a later version have a substitute (spec xds 7).
    let mut payload = Address { r#type: Some(Type::Service(service_message())) }.encode_to_vec();
    payload.extend(LATER);
    let read = read_named(ResourceType::Address, &resource(SERVICE, payload));
    assert!(read.is_ok());
}

/// The only item of a mesh beside the pods `shop/cart-0` and `front/web`.
fn mesh_with(item: Item) -> Snapshot {
    let cart = pod("shop/cart-0", &["10.1.0.10"]);
    let mut workloads = vec![pod("front/web", &["10.2.0.5"])];
    let (mut services, mut policies) = (Vec::new(), Vec::new());
    match item {
        Item::Workload(workload) => workloads.push(*workload),
        Item::Service(service) => services.push(*service),
        Item::Policy(policy) => policies.push(*policy),
    }
    workloads.push(cart);
    mesh(workloads, services, policies)
}

fn way(snapshot: &Snapshot, destination: &str) -> Option<Refusal> {
    let source = snapshot.workload(&"k//Pod/front/web".into()).unwrap();
    let facts = Outbound {
        source,
        network: &Arc::from("n1"),
        client: ClientAddr(sock("10.2.0.5:40000")),
        destination: OrigDst(sock(destination)),
    };
    route(snapshot, &facts, &mut fastrand::Rng::with_seed(1)).err()
}

fn allowed(snapshot: &Snapshot, uid: &str) -> bool {
    let facts = Facts {
        workload_uid: uid.into(),
        client: Client::Verified(VerifiedPeer::assertion(id("spiffe://td/ns/front/sa/web"))),
        source_ip: ip("10.2.0.5"),
        destination: sock("10.1.0.10:8080"),
    };
    authorize(snapshot, &facts).outcome.is_ok()
}

#[test]
fn in_place_of_what_is_rejected_something_refuses() {
    let stand_in = |read: Result<Item, Rejection>| read.unwrap_err().stand_in;
    // A workload: nothing goes to its addresses, and nothing is let in.
    let mut broken = workload_message();
    (broken.tunnel_protocol, broken.network_mode) = (2, 0);
    broken.addresses.push(vec![1]);
    let snapshot = mesh_with(stand_in(read_workload(&broken)).unwrap());
    assert!(!allowed(&snapshot, UID));
    let mut source = pod("front/web", &["10.2.0.5"]);
    source.network = "n1".into();
    let mut snapshot = mesh(vec![source], Vec::new(), Vec::new());
    let delta = |item: Option<Item>| {
        let Some(Item::Workload(workload)) = item else { panic!("no workload") };
        crate::model::Delta { workloads: vec![*workload], ..Default::default() }
    };
    snapshot = delta(stand_in(read_workload(&broken))).apply(&snapshot);
    assert_eq!(way(&snapshot, "10.9.0.7:80"), Some(Refusal::WaypointUnknown));
    // A service: nothing goes to those of its addresses that can be read.
    let mut broken = service_message();
    broken.ip_families = 9;
    broken.addresses.insert(0, address_message(&[1], None));
    let snapshot = mesh_with(stand_in(read_service(&broken)).unwrap());
    for to in ["10.8.0.1:80", "10.8.0.2:9999", "10.7.200.1:80"] {
        assert_eq!(way(&snapshot, to), Some(Refusal::WaypointUnknown), "{to}");
    }
    assert_eq!(way(&snapshot, "10.6.0.1:80"), None);
    // A policy: an ALLOW allows nothing, anything else denies its scope, or its namespace.
    let cart = "k//Pod/shop/cart-0";
    let lets_in = |change: &dyn Fn(&mut Authorization)| {
        let mut broken = policy_message(0, web());
        broken.groups[0].rules[0].matches[0].destination_ports = vec![65_536];
        change(&mut broken);
        let snapshot = mesh_with(stand_in(read_policy(&broken, &[])).unwrap());
        (allowed(&snapshot, cart), allowed(&snapshot, "k//Pod/front/web"))
    };
    assert_eq!(lets_in(&|_| ()), (false, true));
    assert_eq!(lets_in(&|p| p.scope = 0), (false, false));
    assert_eq!(lets_in(&|p| p.action = 1), (false, true));
    assert_eq!(lets_in(&|p| p.action = 5), (false, true));
    assert_eq!(lets_in(&|p| (p.action, p.scope) = (1, 0)), (false, false));
    assert_eq!(lets_in(&|p| p.scope = 9), (false, true));
    assert_eq!(lets_in(&|p| p.name = "other".into()), (false, true));
    let unread = read_named(ResourceType::Authorization, &resource(POLICY, vec![0xff]));
    assert!(!allowed(&mesh_with(stand_in(unread).unwrap()), cart));
    // Nothing is needed for what only tries, and for what is refused as long as it is missing.
    let mut broken = policy_message(0, web());
    broken.dry_run = true;
    broken.action = 7;
    assert_eq!(stand_in(read_policy(&broken, &[])), None);
    (broken.dry_run, broken.scope) = (false, 2);
    assert_eq!(stand_in(read_policy(&broken, &[])), None);
}

#[test]
fn what_nobody_needs_is_rejected() {
    let flaw = |read: Result<Item, Rejection>| read.map_err(|rejection| rejection.flaw).err();
    let large = |field, count, limit| Some(Flaw::Large(field, count, limit));
    // A group with a rule with a match with a value counts four.
    let mut policy = policy_message(0, web());
    let one = policy.groups[0].clone();
    policy.groups = vec![one.clone(); 4_096];
    assert_eq!(flaw(read_policy(&policy, &[])), None);
    policy.groups.push(one);
    assert_eq!(flaw(read_policy(&policy, &[])), large("groups", 16_388, 16_384));
    // All in one match is as much.
    policy.groups.truncate(1);
    policy.groups[0].rules[0].matches[0].destination_ports = vec![80; 100_000];
    assert_eq!(flaw(read_policy(&policy, &[])), large("groups", 100_004, 16_384));
    let mut workload = workload_message();
    let service = |n: usize| (format!("ns/app-{n}"), PortList::default());
    workload.services = (0..10_000).map(service).collect();
    assert_eq!(flaw(read_workload(&workload)), large("services", 10_000, 4_096));
    workload.services = (0..4_096).map(service).collect();
    assert_eq!(flaw(read_workload(&workload)), None);
    let mut service = service_message();
    service.addresses = vec![address_message(&[10, 8, 0, 1], None); 4_097];
    assert_eq!(flaw(read_service(&service)), large("addresses", 4_097, 4_096));
}
