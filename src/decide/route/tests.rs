use std::collections::BTreeMap;

use super::*;
use crate::model::fixtures::{
    balanced, endpoint_of, gateway, id, ip, mesh, mesh_on_demand, net_addr, pod, service,
    service_key, sock,
};
use crate::model::{
    ApplicationTunnel, ClientAddr, IpFamilies, LoadBalancerMode, NetworkMode, OrigDst,
    TunnelProtocol, Visibility, WeightedWaypoint,
};

/// The pod that calls: `front/web`, 10.2.0.5.
fn web() -> Workload {
    pod("front/web", &["10.2.0.5", "2001:db8:2::5"])
}

fn unmeshed(name: &str, ips: &[&str]) -> Workload {
    Workload { protocol: WorkloadProtocol::Tcp, ..pod(name, ips) }
}

/// A service `shop/cart.shop` at 10.96.0.1, port 80 to 8080, and its one endpoint `shop/cart`.
fn cart_service() -> Service {
    service("shop/cart.shop", &["/10.96.0.1", "/2001:db8:96::1"], &[(80, 8080)])
}

fn cart() -> Workload {
    endpoint_of(pod("shop/cart", &["10.1.0.10", "2001:db8:1::10"]), "shop/cart.shop", &[])
}

/// A waypoint service `shop/wp.shop` at 10.96.0.9 and its one endpoint `shop/wp`.
fn waypoint_service() -> Service {
    service("shop/wp.shop", &["/10.96.0.9"], &[(15008, 15008)])
}

fn waypoint() -> Workload {
    endpoint_of(pod("shop/wp", &["10.1.0.20"]), "shop/wp.shop", &[])
}

fn passthrough(key: &str, vips: &[&str]) -> Service {
    let load_balancer = balanced(LoadBalancerMode::Passthrough, &[]);
    Service { load_balancer, ..service(key, vips, &[(80, 80)]) }
}

fn route_from(
    source: &Workload,
    snapshot: &Snapshot,
    target: &str,
    seed: u64,
) -> Result<Route, Refusal> {
    let client = source.ips.first().copied().unwrap_or_else(|| ip("10.2.0.99"));
    let facts = Outbound {
        source: &Arc::new(source.clone()),
        network: &Arc::from(""),
        client: ClientAddr(SocketAddr::new(client, 40_000)),
        destination: OrigDst(sock(target)),
    };
    route(snapshot, &facts, &mut fastrand::Rng::with_seed(seed))
}

fn names(expected: &[Identity]) -> String {
    let names = expected.iter().map(|id| format!("{}/{}", id.namespace(), id.service_account()));
    names.collect::<Vec<_>>().join(" ")
}

/// A route in one line.
fn show(route: &Result<Route, Refusal>) -> String {
    let tunnel = |t: &TunnelRoute| {
        let service = t.service.as_ref().map_or(String::new(), |s| format!(" for {}", s.key));
        let (hop, authority, expected) = (t.hop.0, &t.authority, names(&t.expected));
        format!("{hop} -> {authority} as {expected}{service}")
    };
    match route {
        Err(refusal) => format!("{refusal:?}"),
        Ok(Route::Passthrough { hop, destination, service }) => {
            let to = destination.as_ref().map_or(String::new(), |w| format!(" to {}", w.name));
            let service = service.as_ref().map_or(String::new(), |s| format!(" for {}", s.key));
            format!("plain {}{to}{service}", hop.0)
        }
        Ok(Route::Tunnel(t)) => format!("tunnel {}", tunnel(t)),
        Ok(Route::DoubleTunnel { outer, inner_expected }) => {
            format!("double {}, inner as {}", tunnel(outer), names(inner_expected))
        }
    }
}

type World = (Vec<Workload>, Vec<Service>);

fn check_from(source: &Workload, (workloads, services): World, cases: &[(&str, &str)]) {
    let mut workloads = workloads;
    workloads.push(source.clone());
    let snapshot = mesh(workloads, services, Vec::new());
    for (target, expected) in cases {
        assert_eq!(show(&route_from(source, &snapshot, target, 1)), *expected, "{target}");
    }
}

fn check(world: World, cases: &[(&str, &str)]) {
    check_from(&web(), world, cases);
}

#[test]
fn calls_to_our_own_ports_are_refused() {
    let world = || (vec![cart()], vec![]);
    let mut cases = Vec::new();
    for port in [15001, 15006, 15008] {
        for host in ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"] {
            cases.push((format!("{host}:{port}"), "SelfCall"));
        }
        cases.push((format!("10.2.0.5:{port}"), "SelfCall"));
        cases.push((format!("[2001:db8:2::5]:{port}"), "SelfCall"));
    }
    cases.push(("127.0.0.1:15000".to_owned(), "plain 127.0.0.1:15000"));
    cases.push(("192.0.2.1:15008".to_owned(), "plain 192.0.2.1:15008"));
    let cases: Vec<_> = cases.iter().map(|(target, expected)| (&**target, *expected)).collect();
    check(world(), &cases);
    // The pod's record may not have the address that the pod called from.
    let bare = Workload { ips: vec![], ..web() };
    check_from(&bare, world(), &[("10.2.0.99:15006", "SelfCall")]);
}

#[test]
fn balancing_does_not_lead_to_our_own_ports_either() {
    let trap = service("shop/trap", &["/10.96.0.3"], &[(80, 15001)]);
    for ips in [["10.2.0.5"], ["127.0.0.1"]] {
        let local = endpoint_of(unmeshed("evil/trap", &ips), "shop/trap", &[]);
        let source = Workload { protocol: WorkloadProtocol::Tcp, ..web() };
        check_from(&source, (vec![local], vec![trap.clone()]), &[("10.96.0.3:80", "SelfCall")]);
    }
}

#[test]
fn unknown_destinations_go_as_they_are() {
    let host =
        Workload { network_mode: NetworkMode::HostNetwork, ..pod("shop/host", &["10.3.0.1"]) };
    let hidden =
        Service { visibility: Visibility::Namespace, ..service("shop/h", &["/10.96.0.4"], &[]) };
    let other = Workload { network: Arc::from("n2"), ..pod("shop/far", &["10.4.0.1"]) };
    check(
        (vec![host, other], vec![hidden]),
        &[
            ("192.0.2.1:443", "plain 192.0.2.1:443"),
            ("[::ffff:192.0.2.1]:443", "plain 192.0.2.1:443"),
            ("[2001:db8::99]:443", "plain [2001:db8::99]:443"),
            // Host network: its address is the node's.
            ("10.3.0.1:80", "plain 10.3.0.1:80"),
            // Not visible to the client.
            ("10.96.0.4:80", "plain 10.96.0.4:80"),
            // The same address in another network is another address.
            ("10.4.0.1:80", "plain 10.4.0.1:80"),
        ],
    );
}

#[test]
fn workloads_are_reached_by_their_protocol() {
    check(
        (vec![cart(), unmeshed("shop/old", &["10.1.0.11"])], vec![]),
        &[
            ("10.1.0.10:9", "tunnel 10.1.0.10:15008 -> 10.1.0.10:9 as shop/cart"),
            (
                "[2001:db8:1::10]:9",
                "tunnel [2001:db8:1::10]:15008 -> [2001:db8:1::10]:9 as shop/cart",
            ),
            ("10.1.0.11:9", "plain 10.1.0.11:9 to old"),
            // A call to the own address goes through the own tunnel port.
            ("10.2.0.5:80", "tunnel 10.2.0.5:15008 -> 10.2.0.5:80 as front/web"),
        ],
    );
}

#[test]
fn services_are_balanced_and_their_names_expected() {
    let named = Service { subject_alt_names: vec![id("spiffe://x/ns/a/sa/b")], ..cart_service() };
    let direct = "10.1.0.10:15008 -> 10.1.0.10:8080 as";
    check(
        (vec![cart()], vec![cart_service()]),
        &[
            ("10.96.0.1:80", &format!("tunnel {direct} shop/cart for shop/cart.shop")),
            (
                "[2001:db8:96::1]:80",
                "tunnel [2001:db8:1::10]:15008 -> [2001:db8:1::10]:8080 as shop/cart for \
                 shop/cart.shop",
            ),
            ("10.96.0.1:81", "NoHealthyUpstream"),
        ],
    );
    let expected = format!("tunnel {direct} a/b shop/cart for shop/cart.shop");
    check((vec![cart()], vec![named]), &[("10.96.0.1:80", &expected)]);
    check((vec![], vec![cart_service()]), &[("10.96.0.1:80", "NoHealthyUpstream")]);
    // Unmeshed endpoints are balanced too; host-network ones are endpoints like any other.
    let old = endpoint_of(unmeshed("shop/old", &["10.1.0.11"]), "shop/cart.shop", &[(80, 81)]);
    let plain = "plain 10.1.0.11:81 to old for shop/cart.shop";
    let host = Workload { network_mode: NetworkMode::HostNetwork, ..old.clone() };
    check((vec![old], vec![cart_service()]), &[("10.96.0.1:80", plain)]);
    check((vec![host], vec![cart_service()]), &[("10.96.0.1:80", plain)]);
}

#[test]
fn workloads_without_an_address_are_refused() {
    let dns = Workload { hostname: Arc::from("db.example"), ips: vec![], ..cart() };
    check((vec![dns], vec![cart_service()]), &[("10.96.0.1:80", "NoAddress")]);
    let v6_only = Service { ip_families: Some(IpFamilies::IPv6), ..cart_service() };
    let v4 = Workload { ips: vec![ip("10.1.0.10")], ..cart() };
    check((vec![v4], vec![v6_only]), &[("10.96.0.1:80", "NoAddress")]);
}

#[test]
fn services_that_are_not_balanced_go_as_they_are() {
    let mut wide = passthrough("shop/wide", &["/10.96.0.5"]);
    wide.cidr_vips = vec![(Arc::from(""), "10.0.0.0/8".parse().expect("a range"))];
    check(
        (vec![cart(), unmeshed("shop/old", &["10.1.0.11"])], vec![wide]),
        &[
            ("10.96.0.5:80", "plain 10.96.0.5:80 for shop/wide"),
            ("10.77.0.1:80", "plain 10.77.0.1:80 for shop/wide"),
            ("10.1.0.11:80", "plain 10.1.0.11:80 to old for shop/wide"),
            // Upstream sends this in plain text. Promise P2 forbids it.
            ("10.1.0.10:80", "tunnel 10.1.0.10:15008 -> 10.1.0.10:80 as shop/cart"),
        ],
    );
}

#[test]
fn plain_text_never_goes_to_an_address_with_a_tunnel() {
    // A tenant's endpoint record, outside the mesh, with the address of a meshed pod.
    let alias = endpoint_of(unmeshed("evil/alias", &["10.1.0.10"]), "evil/alias.example", &[]);
    let alias = Workload { uid: Arc::from("k/entry/alias"), ..alias };
    let service = service("evil/alias.example", &["/10.96.0.6"], &[(80, 8080)]);
    check(
        (vec![cart(), alias], vec![service]),
        &[(
            "10.96.0.6:80",
            "tunnel 10.1.0.10:15008 -> 10.1.0.10:8080 as shop/cart for evil/alias.example",
        )],
    );
}

#[test]
fn an_address_of_both_a_workload_and_a_service_is_balanced_but_not_service_addressed() {
    let both = service("shop/both.example", &["/10.1.0.10"], &[(80, 8080)]);
    let both = Service { waypoint: Some(gateway("shop/wp.shop:15008")), ..both };
    let pod = endpoint_of(cart(), "shop/both.example", &[]);
    check(
        (vec![pod, waypoint()], vec![both, waypoint_service()]),
        &[(
            "10.1.0.10:80",
            "tunnel 10.1.0.10:15008 -> 10.1.0.10:8080 as shop/cart for shop/both.example",
        )],
    );
}

#[test]
fn a_service_waypoint_is_always_used() {
    let behind = |reference: &str| Service { waypoint: Some(gateway(reference)), ..cart_service() };
    let through = "tunnel 10.1.0.20:15008 -> 10.96.0.1:80 as shop/wp for shop/cart.shop";
    for reference in ["shop/wp.shop:15008", "@/10.96.0.9:15008", "@/10.1.0.20:15008"] {
        check(
            (vec![cart(), waypoint()], vec![behind(reference), waypoint_service()]),
            &[
                ("10.96.0.1:80", through),
                // Addressed to the pod, the service's waypoint has no part in it.
                ("10.1.0.10:80", "tunnel 10.1.0.10:15008 -> 10.1.0.10:80 as shop/cart"),
            ],
        );
    }
    for unknown in ["shop/none:15008", "@/10.96.0.8:15008", "other/wp.shop:15008", "shop/wp.shop:1"]
    {
        check(
            (vec![cart(), waypoint()], vec![behind(unknown), waypoint_service()]),
            &[("10.96.0.1:80", "WaypointUnknown")],
        );
    }
    // No endpoint, or a service that balances nothing.
    let by_name = || behind("shop/wp.shop:15008");
    let by_address = behind("@/10.96.0.9:15008");
    let refused = &[("10.96.0.1:80", "WaypointUnknown")];
    check((vec![cart()], vec![by_name(), waypoint_service()]), refused);
    let unbalanced = passthrough("shop/wp.shop", &["/10.96.0.9"]);
    check((vec![cart(), waypoint()], vec![by_address, unbalanced]), refused);
    // A waypoint that calls a service with a waypoint goes through that one, itself or not.
    let world = (vec![cart()], vec![by_name(), waypoint_service()]);
    check_from(&waypoint(), world, &[("10.96.0.1:80", through)]);
}

#[test]
fn a_waypoint_has_names_ports_and_records_of_its_own() {
    let mut wp = waypoint_service();
    wp.subject_alt_names = vec![id("spiffe://x/ns/a/sa/wp")];
    wp.ports = [(15008, 15009)].into();
    let passthrough_too = |reference: &str| Service {
        waypoint: Some(gateway(reference)),
        ..passthrough("shop/ext", &["/10.96.0.7"])
    };
    check(
        (vec![waypoint()], vec![passthrough_too("shop/wp.shop:15008"), wp]),
        &[(
            "10.96.0.7:443",
            "tunnel 10.1.0.20:15009 -> 10.96.0.7:443 as a/wp shop/wp for shop/ext",
        )],
    );
    // A pod with an application tunnel takes a port that its service does not have.
    let mut portless = waypoint_service();
    portless.ports.clear();
    let tunnel = ApplicationTunnel { protocol: TunnelProtocol::Proxy, port: Some(15088) };
    let sandwiched = Workload { application_tunnel: Some(tunnel), ..waypoint() };
    let by_port = passthrough_too("shop/wp.shop:15443");
    check(
        (vec![sandwiched], vec![by_port.clone(), portless.clone()]),
        &[("10.96.0.7:443", "tunnel 10.1.0.20:15443 -> 10.96.0.7:443 as shop/wp for shop/ext")],
    );
    let refused = &[("10.96.0.7:443", "WaypointUnknown")];
    check((vec![waypoint()], vec![by_port, portless]), refused);
    // Without a service of that name, a workload of that name.
    let named = Workload { hostname: Arc::from("wp.shop"), ..pod("shop/vm", &["10.1.0.30"]) };
    let nowhere = Workload { ips: vec![], ..named.clone() };
    check(
        (vec![named], vec![passthrough_too("shop/wp.shop:15008")]),
        &[("10.96.0.7:443", "tunnel 10.1.0.30:15008 -> 10.96.0.7:443 as shop/vm for shop/ext")],
    );
    check(
        (vec![nowhere], vec![passthrough_too("shop/wp.shop:15008")]),
        &[("10.96.0.7:443", "NoAddress")],
    );
}

#[test]
fn waypoints_share_connections_by_weight() {
    let second = endpoint_of(pod("shop/canary", &["10.1.0.21"]), "shop/canary.shop", &[]);
    let canary = service("shop/canary.shop", &[], &[(15008, 15008)]);
    let weights = |weights: &[(&str, u32)]| {
        let waypoint = |(host, weight): &(&str, u32)| WeightedWaypoint {
            destination: gateway(&format!("{host}:15008")),
            weight: *weight,
        };
        Service {
            waypoint: Some(gateway("shop/wp.shop:15008")),
            weighted_waypoints: weights.iter().map(waypoint).collect(),
            ..cart_service()
        }
    };
    let count = |service: Service| {
        let workloads = vec![web(), cart(), waypoint(), second.clone()];
        let services = vec![service, waypoint_service(), canary.clone()];
        let snapshot = mesh(workloads, services, Vec::new());
        let mut counts = BTreeMap::new();
        for seed in 0..2_000 {
            let name = match route_from(&web(), &snapshot, "10.96.0.1:80", seed) {
                Ok(Route::Tunnel(tunnel)) => tunnel.destination.name.to_string(),
                other => show(&other),
            };
            *counts.entry(name).or_insert(0_usize) += 1;
        }
        counts
    };
    let only = |name: &str| BTreeMap::from([(name.to_owned(), 2_000)]);
    let got = count(weights(&[("shop/wp.shop", 75), ("shop/canary.shop", 25)]));
    // Expected 1,500 and 500; four standard deviations are 78.
    assert!(got["wp"].abs_diff(1_500) < 78 && got["wp"] + got["canary"] == 2_000, "{got:?}");
    assert_eq!(count(weights(&[("shop/wp.shop", 0), ("shop/canary.shop", 9)])), only("canary"));
    assert_eq!(count(weights(&[("shop/canary.shop", 9), ("shop/wp.shop", 0)])), only("canary"));
    assert_eq!(count(weights(&[("shop/canary.shop", 0)])), only("wp"));
    assert_eq!(count(weights(&[])), only("wp"));
    // No way back from a canary that is not there.
    assert_eq!(count(weights(&[("shop/none.shop", 9)])), only("WaypointUnknown"));
}

#[test]
fn a_workload_waypoint_is_used_by_everybody_but_itself() {
    let through = "tunnel 10.1.0.20:15008 -> 10.1.0.10:80 as shop/wp";
    let direct = "tunnel 10.1.0.10:15008 -> 10.1.0.10:80 as shop/cart";
    for reference in ["shop/wp.shop:15008", "@/10.96.0.9:15008", "@/10.1.0.20:15008"] {
        let world = || {
            let behind = Workload { waypoint: Some(gateway(reference)), ..cart() };
            (vec![behind, waypoint()], vec![waypoint_service(), cart_service()])
        };
        check(
            world(),
            &[
                ("10.1.0.10:80", through),
                // Addressed to the service, the workload's waypoint has no part in it.
                (
                    "10.96.0.1:80",
                    "tunnel 10.1.0.10:15008 -> 10.1.0.10:8080 as shop/cart for shop/cart.shop",
                ),
            ],
        );
        check_from(&waypoint(), world(), &[("10.1.0.10:80", direct)]);
        // The same account at another address, and another account at the same address.
        let same_account =
            Workload { service_account: Arc::from("wp"), ..pod("shop/twin", &["10.2.0.6"]) };
        check_from(&same_account, world(), &[("10.1.0.10:80", through)]);
        let twin = Workload { uid: Arc::from("k/entry/twin"), ..pod("shop/twin", &["10.1.0.20"]) };
        let expected = "tunnel 10.1.0.20:15008 -> 10.1.0.10:80 as shop/wp";
        check_from(&twin, world(), &[("10.1.0.10:80", expected)]);
    }
    let behind = |reference: &str| Workload { waypoint: Some(gateway(reference)), ..cart() };
    let refused = &[("10.1.0.10:80", "WaypointUnknown")];
    check((vec![behind("shop/none:15008")], vec![]), refused);
    let named = Workload { hostname: Arc::from("vm.example"), ..pod("shop/vm", &["10.1.0.30"]) };
    check_from(
        &named,
        (vec![behind("shop/vm.example:15008")], vec![]),
        &[("10.1.0.10:80", direct)],
    );
}

/// A service `shop/far` of two networks; its endpoint in `n2` is behind the gateway `reference`.
fn far(reference: Option<&str>) -> (Workload, Service) {
    let mut remote = endpoint_of(pod("shop/far", &[]), "shop/far.shop", &[]);
    remote.network = Arc::from("n2");
    remote.network_gateway = reference.map(gateway);
    let mut service = service("shop/far.shop", &["/10.96.0.8"], &[(80, 8080)]);
    service.subject_alt_names = vec![id("spiffe://x/ns/a/sa/far")];
    (remote, service)
}

#[test]
fn other_networks_are_reached_through_their_gateway() {
    let gate = || Workload { network: Arc::from("n2"), ..unmeshed("istio/gate", &["192.0.2.9"]) };
    let by_service = endpoint_of(gate(), "istio/gate.n2", &[]);
    let mut gate_service = service("istio/gate.n2", &[], &[(15008, 15443)]);
    gate_service.subject_alt_names = vec![id("spiffe://x/ns/a/sa/gate")];
    let named = Workload { hostname: Arc::from("gate.n2"), ..gate() };
    let check = |reference: Option<&str>, gate: Option<Workload>, services, expected: &str| {
        let (remote, service) = far(reference);
        let mut workloads = vec![remote];
        workloads.extend(gate);
        let mut services: Vec<_> = services;
        services.push(service);
        check_from(&web(), (workloads, services), &[("10.96.0.8:80", expected)]);
    };
    let tail = "far.shop:80 as istio/gate for shop/far.shop, inner as a/far";
    let by_address = format!("double 192.0.2.9:15008 -> {tail}");
    let with_names = "double 192.0.2.9:15443 -> far.shop:80 as a/gate istio/gate for \
                      shop/far.shop, inner as a/far";
    check(Some("@n2/192.0.2.9:15008"), Some(gate()), vec![], &by_address);
    check(Some("istio/gate.n2:15008"), Some(named.clone()), vec![], &by_address);
    check(Some("istio/gate.n2:15008"), Some(by_service), vec![gate_service.clone()], with_names);
    check(Some("@n2/192.0.2.9:15008"), None, vec![], "GatewayUnknown");
    check(Some("@n3/192.0.2.9:15008"), Some(gate()), vec![], "GatewayUnknown");
    check(Some("istio/gate.n2:15008"), None, vec![], "GatewayUnknown");
    check(Some("istio/gate.n2:15008"), None, vec![gate_service], "GatewayUnknown");
    let unresolved = Workload { ips: vec![], ..named };
    check(Some("istio/gate.n2:15008"), Some(unresolved), vec![], "NoAddress");
    check(None, Some(gate()), vec![], "NoHealthyUpstream");
}

#[test]
fn a_waypoint_in_another_network_is_reached_through_its_gateway() {
    let gate = Workload { network: Arc::from("n2"), ..unmeshed("istio/gate", &["192.0.2.9"]) };
    let remote = Workload {
        network: Arc::from("n2"),
        network_gateway: Some(gateway("@n2/192.0.2.9:15008")),
        ..waypoint()
    };
    let mut wp = waypoint_service();
    wp.subject_alt_names = vec![id("spiffe://x/ns/a/sa/wp")];
    let reference = Some(gateway("shop/wp.shop:15008"));
    let behind = Service { waypoint: reference.clone(), ..cart_service() };
    let pod_behind = Workload { waypoint: reference, ..cart() };
    check(
        (vec![gate, remote, pod_behind], vec![wp, behind]),
        &[
            (
                "10.96.0.1:80",
                "double 192.0.2.9:15008 -> cart.shop:80 as istio/gate for shop/cart.shop, inner as \
                 a/wp",
            ),
            // There is no service to name.
            ("10.1.0.10:80", "OtherNetworkWithoutService"),
        ],
    );
}

#[test]
fn the_networks_of_proxy_and_source_are_kept_apart() {
    // The proxy is in network "", the source in n2: a workload of n2 is found for balancing only.
    let source = Workload { network: Arc::from("n2"), ..web() };
    let there = Workload { network: Arc::from("n2"), ..cart() };
    let here = service("shop/here.shop", &["/10.96.0.1"], &[(80, 8080)]);
    let both = service("shop/cart.shop", &["n2/10.96.0.1"], &[(80, 8080)]);
    let direct = "tunnel 10.1.0.10:15008 -> 10.1.0.10:80 as shop/cart";
    check_from(&source, (vec![there.clone()], vec![]), &[("10.1.0.10:80", direct)]);
    let balanced = "tunnel 10.1.0.10:15008 -> 10.1.0.10:8080 as shop/cart for shop/cart.shop";
    check_from(&source, (vec![there.clone()], vec![both]), &[("10.96.0.1:80", balanced)]);
    // A service that only the proxy's network has is no way around "no healthy upstream".
    check_from(&source, (vec![there], vec![here]), &[("10.96.0.1:80", "NoHealthyUpstream")]);
}

#[test]
fn a_tunnel_always_has_somebody_to_expect() {
    let (remote, far) = far(Some("@n2/192.0.2.9:15008"));
    let gate = Workload { network: Arc::from("n2"), ..unmeshed("istio/gate", &["192.0.2.9"]) };
    let behind = Service {
        waypoint: Some(gateway("shop/wp.shop:15008")),
        ..service("shop/b", &["/10.96.0.2"], &[(80, 80)])
    };
    let workloads = vec![web(), cart(), waypoint(), remote, gate];
    let services = vec![cart_service(), waypoint_service(), behind, far];
    let snapshot = mesh(workloads, services, Vec::new());
    for target in ["10.1.0.10:80", "10.96.0.1:80", "10.96.0.2:80", "10.96.0.8:80"] {
        let expected = match route_from(&web(), &snapshot, target, 1) {
            Ok(Route::Tunnel(tunnel) | Route::DoubleTunnel { outer: tunnel, .. }) => {
                tunnel.expected
            }
            other => panic!("{target}: {}", show(&other)),
        };
        assert!(!expected.is_empty(), "{target}");
    }
}

/// What nobody has asked for is not what is not there: neither passed through in plain text nor
/// passed by.
#[test]
fn on_demand_what_is_not_answered_is_asked_for() {
    let addr = |text: &str| Wanted::Addr(net_addr(text));
    let host = |text: &str| Wanted::Host(service_key(text));
    let meshed = |reference: &str| Workload { waypoint: Some(gateway(reference)), ..cart() };
    let check = |workloads, services, answered, expected: Result<&str, Wanted>| {
        let snapshot = mesh_on_demand(workloads, services, answered);
        match (route_from(&web(), &snapshot, "10.1.0.10:8080", 1), expected) {
            (Ok(Route::Passthrough { .. }), Ok("plain")) => {}
            (Ok(Route::Tunnel(route)), Ok(hop)) => assert_eq!(route.hop.0, sock(hop)),
            (got, Err(wanted)) => assert_eq!(got, Err(Refusal::Unanswered(wanted))),
            (got, Ok(way)) => panic!("{got:?}, not {way}"),
        }
    };
    let target = || addr("/10.1.0.10");
    check(vec![], vec![], vec![], Err(target()));
    check(vec![], vec![], vec![addr("/10.1.0.11"), addr("other/10.1.0.10")], Err(target()));
    check(vec![], vec![], vec![target()], Ok("plain"));
    check(vec![cart()], vec![], vec![], Ok("10.1.0.10:15008"));
    // A range that somebody else was answered with says nothing of this address.
    let mut range = passthrough("shop/range.shop", &[]);
    range.cidr_vips = vec![(Arc::from(""), "10.1.0.0/16".parse().unwrap())];
    check(vec![], vec![range.clone()], vec![], Err(target()));
    check(vec![], vec![range], vec![target()], Ok("plain"));
    // A service is known to whoever may not use it too.
    let hidden = Service {
        visibility: Visibility::Namespace,
        ..service("other/web.other", &["/10.1.0.10"], &[(8080, 80)])
    };
    check(vec![], vec![hidden], vec![], Ok("plain"));
    // A waypoint or a gateway that nobody has asked for.
    for (reference, wanted) in
        [("shop/wp.shop:15008", host("shop/wp.shop")), ("@/10.96.0.9:15008", addr("/10.96.0.9"))]
    {
        check(vec![meshed(reference)], vec![], vec![], Err(wanted.clone()));
        let known = vec![meshed(reference), waypoint()];
        check(known, vec![waypoint_service()], vec![], Ok("10.1.0.20:15008"));
        let snapshot = mesh_on_demand(vec![meshed(reference)], vec![], vec![wanted]);
        let got = route_from(&web(), &snapshot, "10.1.0.10:8080", 1);
        assert_eq!(got, Err(Refusal::WaypointUnknown));
    }
    let far = Workload {
        network: Arc::from("far"),
        network_gateway: Some(gateway("istio-system/gw.istio:15008")),
        ..cart()
    };
    let snapshot = mesh_on_demand(vec![far], vec![cart_service()], vec![]);
    let got = route_from(&web(), &snapshot, "10.96.0.1:80", 1);
    assert_eq!(got, Err(Refusal::Unanswered(host("istio-system/gw.istio"))));
}

#[test]
fn waypoints_that_lead_to_each_other_are_passed_once() {
    // The service's waypoint has a waypoint itself, whose waypoint is the first.
    let mut service = cart_service();
    service.waypoint = Some(gateway("shop/wp.shop:15008"));
    let wp = Workload { waypoint: Some(gateway("shop/other.shop:15008")), ..waypoint() };
    let other = endpoint_of(pod("shop/other", &["10.1.0.21"]), "shop/other.shop", &[]);
    let other = Workload { waypoint: Some(gateway("shop/wp.shop:15008")), ..other };
    let ports = [(15008, 15008)];
    let other_service = crate::model::fixtures::service("shop/other.shop", &["/10.96.0.8"], &ports);
    let meshed = Workload { waypoint: Some(gateway("shop/other.shop:15008")), ..cart() };
    let snapshot =
        mesh(vec![meshed, wp, other], vec![service, waypoint_service(), other_service], vec![]);
    for (to, hop) in [("10.96.0.1:80", "10.1.0.20:15008"), ("10.1.0.10:8080", "10.1.0.21:15008")] {
        match route_from(&web(), &snapshot, to, 1) {
            Ok(Route::Tunnel(route)) => assert_eq!(route.hop.0, sock(hop), "{to}"),
            other => panic!("{to}: {other:?}"),
        }
    }
}
