use std::collections::BTreeMap;

use super::*;
use crate::model::LoadBalancerMode::{Failover, Passthrough, Standard, Strict};
use crate::model::RoutingScope::{Cluster, Network, Node, Region, Subzone, Zone};
use crate::model::fixtures::{balanced, endpoint_of, gateway, ip, mesh, pod, service};
use crate::model::{ApplicationTunnel, HealthPolicy, IpFamilies, Locality, TunnelProtocol};

const SERVICE: &str = "shop/cart.shop";

/// An endpoint of the service at `network/region/zone/subzone/node/cluster`.
fn at(name: &str, place: &str) -> Workload {
    let mut parts = place.split('/').map(Arc::from);
    let mut next = || parts.next().unwrap_or_else(|| Arc::from(""));
    let mut workload = endpoint_of(pod(name, &["10.1.0.1"]), SERVICE, &[(80, 8080)]);
    workload.network = next();
    workload.locality = Locality { region: next(), zone: next(), subzone: next() };
    workload.node = next();
    workload.cluster_id = next();
    workload.network_gateway = Some(gateway("@n/192.0.2.1:15008"));
    workload
}

fn cart(load_balancer: Option<LoadBalancer>) -> Service {
    Service { load_balancer, ..service(SERVICE, &["/10.96.0.1"], &[(80, 8080)]) }
}

/// How often each endpoint is picked, in percent, of 2,000 connections from `source`.
fn shares(
    service: &Service,
    source: &Workload,
    endpoints: &[Workload],
    purpose: Purpose,
) -> BTreeMap<String, usize> {
    let snapshot = mesh(endpoints.to_vec(), vec![service.clone()], Vec::new());
    let balancer = Balancer { snapshot: &snapshot, source };
    let mut rng = fastrand::Rng::with_seed(7);
    let mut counts = BTreeMap::new();
    for _ in 0..2_000 {
        let picked = balancer.pick(service, 80, purpose, &mut rng);
        let name =
            picked.map_or_else(|| "none".to_owned(), |picked| picked.workload.name.to_string());
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}

/// Compares the names of all endpoints that are ever picked.
fn check(lb: Option<LoadBalancer>, source: &str, endpoints: &[(&str, &str)], expected: &[&str]) {
    let source = at("front/web", source);
    let endpoints: Vec<_> = endpoints.iter().map(|(name, place)| at(name, place)).collect();
    let got = shares(&cart(lb.clone()), &source, &endpoints, Purpose::Service);
    assert_eq!(got.into_keys().collect::<Vec<_>>(), expected, "{lb:?} {endpoints:?}");
}

#[test]
fn without_a_mode_all_are_equal() {
    let all = [("shop/near", "n/r/z"), ("shop/far", "n/x/y")];
    check(None, "n/r/z", &all, &["far", "near"]);
    check(balanced(Standard, &[Region]), "n/r/z", &all, &["far", "near"]);
}

#[test]
fn failover_keeps_the_best_rank() {
    let region_zone = || balanced(Failover, &[Region, Zone]);
    let same_zone = ("shop/zone", "n/r/z");
    let same_region = ("shop/region", "n/r/y");
    // A zone of the same name in another region does not count: the first mismatch ends the walk.
    let namesake = ("shop/namesake", "n/x/z");
    check(region_zone(), "n/r/z", &[same_region, namesake, same_zone], &["zone"]);
    check(region_zone(), "n/r/z", &[same_region, namesake], &["region"]);
    check(region_zone(), "n/r/z", &[namesake], &["namesake"]);
    check(region_zone(), "n/r/z", &[namesake, ("shop/far", "n/x/y")], &["far", "namesake"]);
    check(region_zone(), "n", &[("shop/empty", "n"), same_zone], &["empty"]);
    check(balanced(Failover, &[]), "n/r/z", &[same_zone, namesake], &["namesake", "zone"]);
    // A service of this mode that is reached by name balances like one that fails over.
    check(balanced(Passthrough, &[Region]), "n/r/z", &[same_region, namesake], &["region"]);
}

#[test]
fn every_scope_compares_its_own_field() {
    for (scope, field) in [Network, Region, Zone, Subzone, Node, Cluster].into_iter().zip(0..) {
        let same: Vec<_> = (0..6).map(|i| if i == field { "s" } else { "o" }).collect();
        let other: Vec<_> = (0..6).map(|i| if i == field { "o" } else { "s" }).collect();
        let endpoints = [("shop/same", &*same.join("/")), ("shop/other", &*other.join("/"))];
        check(balanced(Failover, &[scope]), "s/s/s/s/s/s", &endpoints, &["same"]);
        check(balanced(Strict, &[scope]), "s/s/s/s/s/s", &endpoints[1..], &["none"]);
    }
}

#[test]
fn strict_drops_what_does_not_match_everything() {
    let strict = || balanced(Strict, &[Region, Zone]);
    let zone = ("shop/zone", "n/r/z");
    let region = ("shop/region", "n/r/y");
    check(strict(), "n/r/z", &[zone, region], &["zone"]);
    check(strict(), "n/r/z", &[region], &["none"]);
    check(balanced(Strict, &[]), "n/r/z", &[region], &["region"]);
    // The network that outranks everything is no substitute for the rest.
    let network = balanced(Strict, &[Network, Region, Zone]);
    check(network.clone(), "n/r/z", &[region, ("shop/remote", "m/r/z")], &["none"]);
    check(network, "n/r/z", &[zone, region, ("shop/remote", "m/r/z")], &["zone"]);
}

#[test]
fn ranks_with_the_network_first() {
    let policy = balanced(Failover, &[Network, Region, Zone]);
    let source = at("front/web", "n/r/z");
    let check = |place: &str, expected| {
        let got = rank(policy.as_ref(), &source, &at("shop/e", place));
        assert_eq!(got, Some(expected), "{place}");
    };
    check("n/r/z", 5);
    check("n/r/y", 4);
    check("n/x/z", 3);
    check("m/r/z", 2);
    check("m/r/y", 1);
    check("m/x/z", 0);
    // Anywhere else the network is a scope like any other.
    let second = balanced(Failover, &[Region, Network, Zone]);
    let ranked = |place| rank(second.as_ref(), &source, &at("shop/e", place));
    assert_eq!([ranked("n/r/z"), ranked("m/r/z"), ranked("n/x/z")], [Some(3), Some(1), Some(0)]);
}

#[test]
fn shares_follow_the_capacity() {
    let weighted = |name: &str, capacity| Workload { capacity, ..at(name, "n") };
    let endpoints = [
        weighted("shop/a", 1),
        weighted("shop/b", 2),
        weighted("shop/c", 5),
        weighted("shop/d", 0),
    ];
    let source = at("front/web", "n");
    let of = |endpoints: &[Workload]| shares(&cart(None), &source, endpoints, Purpose::Service);
    let got = of(&endpoints);
    assert_eq!(got.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    // Expected 250, 500 and 1,250; four standard deviations are at most 88.
    for (name, expected) in [("a", 250), ("b", 500), ("c", 1_250_usize)] {
        assert!(got[name].abs_diff(expected) < 88, "{got:?}");
    }
    let none = [weighted("shop/a", 0), weighted("shop/b", 0)];
    assert_eq!(of(&none).into_keys().collect::<Vec<_>>(), ["none"]);
    let largest = [weighted("shop/a", u32::MAX), weighted("shop/b", u32::MAX)];
    assert_eq!(of(&largest).len(), 2);
}

#[test]
fn a_drained_endpoint_does_not_shadow_the_next_rank() {
    let near = Workload { capacity: 0, ..at("shop/near", "n/r") };
    let endpoints = [near, at("shop/far", "n/x")];
    let service = cart(balanced(Failover, &[Region]));
    let got = shares(&service, &at("front/web", "n/r"), &endpoints, Purpose::Service);
    assert_eq!(got.into_keys().collect::<Vec<_>>(), ["far"]);
}

#[test]
fn equal_endpoints_get_equal_shares_after_better_ones_displaced_worse() {
    let endpoints: Vec<_> =
        (0..8).map(|i| at(&format!("shop/e{i}"), if i % 2 == 0 { "n/r" } else { "n/x" })).collect();
    let service = cart(balanced(Failover, &[Region]));
    let got = shares(&service, &at("front/web", "n/r"), &endpoints, Purpose::Service);
    assert_eq!(got.keys().collect::<Vec<_>>(), ["e0", "e2", "e4", "e6"]);
    // Expected 500 each; four standard deviations are 78.
    assert!(got.values().all(|count| count.abs_diff(500) < 78), "{got:?}");
}

/// Whether an endpoint is picked, and with which port.
fn check_one(service: &Service, workload: Workload, purpose: Purpose, expected: Option<u16>) {
    let snapshot = mesh(vec![workload.clone()], vec![service.clone()], Vec::new());
    let source = at("front/web", "n");
    let balancer = Balancer { snapshot: &snapshot, source: &source };
    let picked = balancer.pick(service, 80, purpose, &mut fastrand::Rng::with_seed(1));
    assert_eq!(picked.map(|picked| picked.port), expected, "{purpose:?} {workload:?} {service:?}");
}

#[test]
fn what_may_be_picked() {
    let ok = at("shop/e", "n");
    let check = |workload: &Workload, expected| {
        check_one(&cart(None), workload.clone(), Purpose::Service, expected);
    };
    check(&ok, Some(8080));
    let nameless = Workload { ips: vec![], network_gateway: None, ..ok.clone() };
    check(&nameless, None);
    check(&Workload { hostname: Arc::from("e.example"), ..nameless.clone() }, Some(8080));
    check(&Workload { network_gateway: ok.network_gateway.clone(), ..nameless }, None);
    let remote = at("shop/e", "m");
    check(&remote, Some(8080));
    check(&Workload { ips: vec![], ..remote.clone() }, Some(8080));
    // Upstream picks it and then fails the connection.
    check(&Workload { network_gateway: None, ..remote.clone() }, None);
    let gateway = Workload { network_gateway: None, ..remote };
    check_one(&cart(None), gateway, Purpose::Gateway, Some(8080));
    let unready = Workload { status: Health::Unhealthy, ..ok };
    check(&unready, None);
    let mut tolerant = cart(balanced(Standard, &[]));
    check_one(&tolerant, unready.clone(), Purpose::Service, None);
    if let Some(lb) = &mut tolerant.load_balancer {
        lb.health_policy = HealthPolicy::AllowAll;
    }
    check_one(&tolerant, unready, Purpose::Service, Some(8080));
}

#[test]
fn which_port_it_is() {
    let with = |ports: &[(u16, u16)]| {
        let ports = ports.iter().copied().collect();
        Service { ports, ..cart(None) }
    };
    let endpoint = |ports: &[(u16, u16)]| {
        let mut workload = at("shop/e", "n");
        workload.services.clear();
        endpoint_of(workload, SERVICE, ports)
    };
    let check = |service: &[(u16, u16)], own: &[(u16, u16)], purpose, expected| {
        check_one(&with(service), endpoint(own), purpose, expected);
    };
    check(&[(80, 8000)], &[(80, 8080)], Purpose::Service, Some(8080));
    check(&[(80, 8000)], &[(81, 8081)], Purpose::Service, Some(8000));
    check(&[(80, 0)], &[(80, 8080)], Purpose::Service, Some(8080));
    check(&[(80, 0)], &[], Purpose::Service, None);
    check(&[(80, 0)], &[(80, 0)], Purpose::Service, None);
    check(&[(81, 8081)], &[(80, 8080)], Purpose::Service, None);
    check(&[(81, 8081)], &[(80, 8080)], Purpose::Gateway, None);
    check(&[(81, 8081)], &[(80, 8080)], Purpose::Waypoint, Some(8080));
    check(&[(81, 8081)], &[], Purpose::Waypoint, None);
    let tunnelled = |port| {
        let protocol = TunnelProtocol::Proxy;
        Workload { application_tunnel: Some(ApplicationTunnel { protocol, port }), ..endpoint(&[]) }
    };
    check_one(&with(&[]), tunnelled(Some(15088)), Purpose::Waypoint, Some(80));
    check_one(&with(&[]), tunnelled(Some(15088)), Purpose::Service, None);
    check_one(&with(&[(80, 0)]), tunnelled(Some(15088)), Purpose::Service, Some(80));
    check_one(&with(&[]), tunnelled(None), Purpose::Waypoint, None);
}

#[test]
fn which_address_it_is() {
    let check = |ips: &[&str], families, target: &str, expected: Option<&str>| {
        let service = Service { ip_families: families, ..cart(None) };
        let got = pick_ip(&pod("shop/e", ips), Some(&service), ip(target));
        assert_eq!(got, expected.map(ip), "{ips:?} {families:?} {target}");
    };
    let both = &["10.1.0.1", "2001:db8::1", "10.1.0.2"];
    check(both, None, "10.1.0.2", Some("10.1.0.2"));
    check(both, Some(IpFamilies::IPv6), "10.1.0.2", Some("10.1.0.2"));
    check(both, None, "10.96.0.1", Some("10.1.0.1"));
    check(both, None, "2001:db8:96::1", Some("2001:db8::1"));
    check(both, Some(IpFamilies::Dual), "2001:db8:96::1", Some("2001:db8::1"));
    check(both, Some(IpFamilies::IPv6), "10.96.0.1", Some("2001:db8::1"));
    check(both, Some(IpFamilies::IPv4), "2001:db8:96::1", Some("10.1.0.1"));
    check(&["10.1.0.1"], None, "2001:db8:96::1", Some("10.1.0.1"));
    check(&["10.1.0.1"], Some(IpFamilies::IPv6), "10.96.0.1", None);
    check(&[], None, "10.96.0.1", None);
}
