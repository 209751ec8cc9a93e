use super::*;
use crate::model::Visibility;
use crate::model::fixtures::{endpoint_of, mesh, net_addr, pod, service, service_key};

fn named(uid: &str, ips: &[&str], protocol: WorkloadProtocol) -> Workload {
    Workload { uid: Arc::from(uid), protocol, ..pod("ns/pod", ips) }
}

fn hidden(service: Service) -> Service {
    Service { visibility: Visibility::Namespace, ..service }
}

fn canonical(service: Service) -> Service {
    Service { canonical: true, ..service }
}

#[test]
fn the_best_of_several_workloads_on_one_address() {
    use WorkloadProtocol::{Hbone, Tcp};
    let check = |workloads: &[(&str, WorkloadProtocol)], expected: Option<&str>| {
        let of = |(uid, protocol): &(&str, _)| named(uid, &["10.0.0.1"], *protocol);
        let snapshot = mesh(workloads.iter().map(of).collect(), vec![], vec![]);
        let got = snapshot.workload_by_addr(&net_addr("/10.0.0.1"));
        assert_eq!(got.map(|w| &*w.uid), expected, "{workloads:?}");
    };
    let (entry, pod) = ("k/entry/a", "k//Pod/ns/a");
    check(&[], None);
    check(&[(entry, Tcp), ("k/entry/b", Tcp)], Some("k/entry/b"));
    check(&[(entry, Hbone), ("k/entry/b", Tcp)], Some(entry));
    check(&[(pod, Tcp), (entry, Hbone)], Some(pod));
    check(&[(pod, Hbone), ("k//Pod/ns/b", Tcp), (entry, Hbone)], Some(pod));
    check(&[(pod, Hbone), ("k//Pod/ns/b", Hbone)], Some("k//Pod/ns/b"));
}

#[test]
fn addresses_belong_to_networks_and_not_to_the_host() {
    let mut far = pod("ns/far", &["10.0.0.1"]);
    far.network = Arc::from("n2");
    let host = Workload { network_mode: NetworkMode::HostNetwork, ..pod("ns/host", &["10.0.0.2"]) };
    let host = endpoint_of(host, "ns/svc", &[]);
    let snapshot = mesh(vec![far, host], vec![], vec![]);
    let check = |addr: &str, expected: Option<&str>| {
        let got = snapshot.workload_by_addr(&net_addr(addr));
        assert_eq!(got.map(|w| &*w.name), expected, "{addr}");
    };
    check("/10.0.0.1", None);
    check("n2/10.0.0.1", Some("far"));
    check("/10.0.0.2", None);
    assert_eq!(snapshot.endpoints(&service_key("ns/svc")).count(), 1);
}

#[test]
fn the_best_of_several_services_on_one_address() {
    let vip = |key: &str| service(key, &["/10.96.0.1"], &[]);
    let check = |services: Vec<Service>, client: Option<&str>, expected: Option<&str>| {
        let snapshot = mesh(vec![], services.clone(), vec![]);
        let got = snapshot.service_by_vip(&net_addr("/10.96.0.1"), client);
        let got = got.map(|service| service.key.to_string());
        assert_eq!(got.as_deref(), expected, "{client:?} {services:?}");
    };
    let (a, b, c) = (|| vip("a/x"), || vip("b/x"), || vip("c/x"));
    check(vec![], Some("a"), None);
    check(vec![a(), b()], Some("b"), Some("b/x"));
    check(vec![a(), b()], Some("z"), Some("a/x"));
    check(vec![a(), canonical(b()), canonical(c())], Some("z"), Some("c/x"));
    check(vec![a(), canonical(b())], Some("a"), Some("a/x"));
    check(vec![hidden(a()), b()], Some("z"), Some("b/x"));
    check(vec![hidden(a())], Some("z"), None);
    check(vec![hidden(a())], Some("a"), Some("a/x"));
    check(vec![hidden(a())], None, Some("a/x"));
    check(vec![a(), canonical(b())], None, Some("b/x"));
    // The last written owns an address that two services of one namespace claim.
    check(vec![a(), vip("a/y")], Some("a"), Some("a/y"));
}

#[test]
fn ranges_are_the_last_resort() {
    let range = |key: &str, nets: &[&str]| {
        let mut service = service(key, &[], &[]);
        service.cidr_vips =
            nets.iter().map(|net| (Arc::from(""), net.parse().expect("a range"))).collect();
        service
    };
    let check = |services: Vec<Service>, addr: &str, client: Option<&str>, expected| {
        let snapshot = mesh(vec![], services.clone(), vec![]);
        let got = snapshot.service_by_vip(&net_addr(addr), client);
        let got = got.map(|service| service.key.to_string());
        assert_eq!(got.as_deref(), expected, "{addr} {client:?} {services:?}");
    };
    let wide = || range("a/wide", &["10.0.0.0/8"]);
    let narrow = || range("b/narrow", &["10.1.0.0/16", "2001:db8::/32"]);
    let exact = || service("c/exact", &["/10.1.0.1"], &[]);
    let all = || vec![wide(), narrow(), exact()];
    check(all(), "/10.1.0.1", Some("z"), Some("c/exact"));
    check(all(), "/10.1.0.2", Some("z"), Some("b/narrow"));
    check(all(), "/10.2.0.2", Some("z"), Some("a/wide"));
    check(all(), "/2001:db8::1", Some("z"), Some("b/narrow"));
    check(all(), "/11.0.0.1", Some("z"), None);
    check(all(), "n2/10.1.0.2", Some("z"), None);
    // The client's own namespace goes before a longer prefix.
    check(all(), "/10.1.0.2", Some("a"), Some("a/wide"));
    check(vec![wide(), hidden(narrow())], "/10.1.0.2", Some("z"), Some("a/wide"));
    check(vec![wide(), hidden(exact())], "/10.1.0.1", Some("z"), Some("a/wide"));
    let same = || range("b/same", &["10.0.0.0/8"]);
    check(vec![wide(), same()], "/10.1.0.2", Some("z"), Some("a/wide"));
    check(vec![wide(), canonical(same())], "/10.1.0.2", Some("z"), Some("b/same"));
    let snapshot = mesh(vec![], all(), vec![]);
    let at = |addr: &str| {
        let mut keys: Vec<_> =
            snapshot.services_at(&net_addr(addr)).map(|s| s.key.to_string()).collect();
        keys.sort();
        keys
    };
    assert_eq!(at("/10.1.0.1"), ["a/wide", "b/narrow", "c/exact"]);
    assert_eq!(at("/10.2.0.1"), ["a/wide"]);
    assert_eq!(at("n2/10.1.0.1"), Vec::<String>::new());
}

#[test]
fn names_are_exact_and_belong_to_a_namespace() {
    let services = vec![service("a/x.example", &[], &[]), hidden(service("b/y.example", &[], &[]))];
    let vm = Workload { hostname: Arc::from("vm.example"), ..pod("a/vm", &[]) };
    let snapshot = mesh(vec![vm, pod("a/nameless", &[])], services, vec![]);
    let by_host = |host, client| snapshot.service_by_host(host, client).map(|s| s.key.to_string());
    assert_eq!(by_host("x.example", Some("z")).as_deref(), Some("a/x.example"));
    assert_eq!(by_host("X.example", Some("z")), None);
    assert_eq!(by_host("y.example", Some("z")), None);
    assert_eq!(by_host("y.example", Some("b")).as_deref(), Some("b/y.example"));
    assert!(snapshot.service(&service_key("a/x.example")).is_some());
    assert!(snapshot.service(&service_key("b/x.example")).is_none());
    let named = |key| snapshot.workload_by_host(&service_key(key)).map(|w| &*w.name);
    assert_eq!(named("a/vm.example"), Some("vm"));
    assert_eq!(named("b/vm.example"), None);
    assert_eq!(named("a/"), None, "a workload without a name is not found by the empty one");
}

#[test]
fn an_address_is_a_workloads_before_it_is_a_services() {
    let both = || service("a/both", &["/10.0.0.1"], &[]);
    let check = |workloads, expected: &str| {
        let snapshot = mesh(workloads, vec![both()], vec![]);
        let got = match snapshot.address(&net_addr("/10.0.0.1"), Some("z")) {
            Some(Address::Workload(workload)) => workload.name.to_string(),
            Some(Address::Service(service)) => service.key.to_string(),
            None => "nothing".to_owned(),
        };
        assert_eq!(got, expected);
    };
    check(vec![pod("a/pod", &["10.0.0.1"])], "pod");
    check(vec![], "a/both");
}

#[test]
fn a_pod_is_found_by_what_the_agent_calls_it() {
    let mut here = pod("ns/web", &[]);
    here.node = Arc::from("n1");
    let mut elsewhere = Workload { uid: Arc::from("k2//Pod/ns/web"), ..here.clone() };
    elsewhere.node = Arc::from("n2");
    let mut unnamed = pod("ns/unnamed", &[]);
    unnamed.service_account = Arc::from("");
    let snapshot = mesh(vec![elsewhere, here, unnamed], vec![], vec![]);
    let check = |name: &str, account: &str, node, expected: Option<&str>| {
        let name = PodName {
            name: Arc::from(name),
            namespace: Arc::from("ns"),
            service_account: Arc::from(account),
        };
        let got = snapshot.workload_of_pod(&name, node).map(|w| &*w.uid);
        assert_eq!(got, expected, "{name} {node:?}");
    };
    check("web", "web", Some("n1"), Some("k//Pod/ns/web"));
    check("web", "web", Some("n2"), Some("k2//Pod/ns/web"));
    check("web", "web", Some("n3"), None);
    check("web", "other", Some("n1"), None);
    check("unnamed", "default", None, Some("k//Pod/ns/unnamed"));
    check("nobody", "web", None, None);
}
