use std::collections::BTreeSet;
use std::net::IpAddr;

use super::*;
use crate::model::Health;
use crate::model::fixtures::{
    endpoint_of, mesh, net_addr, pod, policy, policy_key, service, service_key,
};

/// The same mesh as three lists, changed and searched in the plainest way.
#[derive(Clone, Default)]
struct Reference {
    workloads: Vec<Workload>,
    services: Vec<Service>,
    policies: Vec<Policy>,
}

impl Reference {
    fn apply(&mut self, delta: &Delta) {
        for workload in &delta.workloads {
            self.workloads.retain(|other| other.uid != workload.uid);
            self.workloads.push(workload.clone());
        }
        for service in &delta.services {
            self.services.retain(|other| other.key != service.key);
            self.services.push(service.clone());
        }
        for policy in &delta.policies {
            self.policies.retain(|other| other.key != policy.key);
            self.policies.push(policy.clone());
        }
        self.workloads.retain(|workload| !delta.workloads_removed.contains(&workload.uid));
        self.services.retain(|service| !delta.services_removed.contains(&service.key));
        self.policies.retain(|policy| !delta.policies_removed.contains(&policy.key));
    }
}

const IPS: [&str; 3] = ["10.0.0.1", "10.0.0.2", "2001:db8::1"];
const NETWORKS: [&str; 2] = ["", "n2"];
const HOSTS: [&str; 3] = ["a.example", "b.example", ""];
const NAMESPACES: [&str; 2] = ["n", "m"];

fn some<T: Copy>(rng: &mut fastrand::Rng, items: &[T]) -> Vec<T> {
    items.iter().copied().filter(|_| rng.bool()).collect()
}

fn one<'a>(rng: &mut fastrand::Rng, items: &[&'a str]) -> &'a str {
    items[rng.usize(..items.len())]
}

fn any_workload(rng: &mut fastrand::Rng) -> Workload {
    let name = format!("{}/{}", one(rng, &NAMESPACES), one(rng, &["p", "q", "r"]));
    let mut workload = pod(&name, &some(rng, &IPS));
    // The uid does not follow the name: an update may change everything else.
    workload.uid = Arc::from(format!("k//Pod/{}", rng.u8(..5)));
    workload.network = Arc::from(one(rng, &NETWORKS));
    workload.hostname = Arc::from(one(rng, &HOSTS));
    if rng.bool() {
        workload.network_mode = crate::model::NetworkMode::HostNetwork;
    }
    workload.status = if rng.bool() { Health::Healthy } else { Health::Unhealthy };
    for host in some(rng, &HOSTS[..2]) {
        let key = format!("{}/{host}", one(rng, &NAMESPACES));
        workload = endpoint_of(workload, &key, &[(80, rng.u16(..3))]);
    }
    workload
}

fn any_service(rng: &mut fastrand::Rng) -> Service {
    let key = format!("{}/{}", one(rng, &NAMESPACES), one(rng, &HOSTS[..2]));
    let vips: Vec<_> =
        some(rng, &IPS).iter().map(|ip| format!("{}/{ip}", one(rng, &NETWORKS))).collect();
    let vips: Vec<_> = vips.iter().map(|vip| &**vip).collect();
    let mut service = service(&key, &vips, &[]);
    for net in some(rng, &["10.0.0.0/30", "10.0.0.0/8"]) {
        let network = Arc::from(one(rng, &NETWORKS));
        service.cidr_vips.push((network, net.parse().expect("a range")));
    }
    service
}

fn any_policy(rng: &mut fastrand::Rng) -> Policy {
    let scope = one(rng, &["GLOBAL", "NAMESPACE", "SELECTOR"]);
    let name = format!("{}/{}", one(rng, &NAMESPACES), rng.u8(..3));
    policy(&format!("DENY {scope} {name}"), "always")
}

fn any_delta(rng: &mut fastrand::Rng) -> Delta {
    let mut delta = Delta::default();
    for _ in 0..rng.u8(..3) {
        delta.workloads.push(any_workload(rng));
        delta.services.push(any_service(rng));
        delta.policies.push(any_policy(rng));
    }
    if rng.bool() {
        delta.workloads_removed.push(any_workload(rng).uid);
        delta.services_removed.push(any_service(rng).key);
        delta.policies_removed.push(any_policy(rng).key);
    }
    delta
}

/// Compares every look-up that has an index with a search of the lists.
fn compare(snapshot: &Snapshot, reference: &Reference) {
    let Reference { workloads, services, policies } = reference;
    assert_eq!(snapshot.counts(), (workloads.len(), services.len(), policies.len()));
    for workload in workloads {
        assert_eq!(snapshot.workload(&workload.uid).map(|w| &**w), Some(workload));
    }
    for network in NETWORKS {
        for text in IPS {
            let addr = net_addr(&format!("{network}/{text}"));
            let indexed: BTreeSet<_> =
                snapshot.uids_by_addr.get(&addr).into_iter().flatten().cloned().collect();
            let has = |w: &&Workload| {
                let own = w.network_mode == crate::model::NetworkMode::Standard;
                own && w.network == addr.network && w.ips.contains(&addr.ip)
            };
            assert_eq!(indexed, workloads.iter().filter(has).map(|w| Arc::clone(&w.uid)).collect());
            // Equal ranks: the last one written.
            let last = workloads.iter().rfind(has).map(|w| &w.uid);
            assert_eq!(snapshot.workload_by_addr(&addr).map(|w| &w.uid), last, "{addr}");
            let at: BTreeSet<_> = snapshot.services_at(&addr).map(|s| s.key.clone()).collect();
            let claims = |s: &&Service| {
                let range = |(network, net): &(Arc<str>, ipnet::IpNet)| {
                    *network == addr.network && net.contains::<&IpAddr>(&addr.ip)
                };
                s.vips.contains(&addr) || s.cidr_vips.iter().any(range)
            };
            assert_eq!(at, services.iter().filter(claims).map(|s| s.key.clone()).collect());
        }
    }
    for namespace in NAMESPACES {
        for host in HOSTS {
            let key = service_key(&format!("{namespace}/{host}"));
            let found = services.iter().find(|service| service.key == key);
            assert_eq!(snapshot.service(&key).map(|s| &**s), found);
            let mut endpoints: Vec<_> = snapshot.endpoints(&key).cloned().collect();
            endpoints.sort_by_key(|endpoint| Arc::clone(&endpoint.workload_uid));
            let mut expected: Vec<_> = workloads
                .iter()
                .filter_map(|w| {
                    let (_, ports) = w.services.iter().find(|(own, _)| *own == key)?.clone();
                    let workload_uid = Arc::clone(&w.uid);
                    Some(Endpoint { workload_uid, ports, status: w.status })
                })
                .collect();
            expected.sort_by_key(|endpoint| Arc::clone(&endpoint.workload_uid));
            assert_eq!(endpoints, expected, "{key}");
            let named = workloads.iter().any(|w| {
                !host.is_empty() && w.namespace == key.namespace && w.hostname == key.hostname
            });
            assert_eq!(snapshot.workload_by_host(&key).is_some(), named, "{key}");
        }
        let scoped = |scope, namespace: Option<&str>| -> BTreeSet<PolicyKey> {
            let of = |p: &&Policy| {
                p.scope == scope && namespace.is_none_or(|namespace| namespace == &*p.key.namespace)
            };
            policies.iter().filter(of).map(|p| p.key.clone()).collect()
        };
        let keys = |list: &[Arc<Policy>]| list.iter().map(|p| p.key.clone()).collect();
        let own: BTreeSet<_> = keys(snapshot.policies_of_namespace(&Arc::from(namespace)));
        assert_eq!(own, scoped(Scope::Namespace, Some(namespace)));
        let global: BTreeSet<_> = keys(snapshot.policies_global());
        assert_eq!(global, scoped(Scope::Global, None));
        assert_eq!(snapshot.policies_global().len(), global.len());
    }
    for policy in policies {
        assert_eq!(snapshot.policy(&policy.key).map(|p| &**p), Some(policy));
    }
}

#[test]
fn any_history_gives_what_its_lists_say_and_leaves_older_generations_alone() {
    for seed in 0..20 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut history = vec![(Snapshot::default(), Reference::default())];
        for generation in 1..=30 {
            let (base, mut reference) = history.last().cloned().expect("never empty");
            let delta = any_delta(&mut rng);
            reference.apply(&delta);
            let next = delta.apply(&base);
            assert_eq!(next.generation(), generation);
            compare(&next, &reference);
            history.push((next, reference));
        }
        for (snapshot, reference) in &history {
            compare(snapshot, reference);
        }
    }
}

#[test]
fn removals_come_after_updates() {
    let delta = Delta {
        workloads: vec![pod("n/p", &["10.0.0.1"])],
        services: vec![service("n/a.example", &["/10.0.0.2"], &[])],
        policies: vec![policy("DENY GLOBAL n/x", "always")],
        workloads_removed: vec![Arc::from("k//Pod/n/p")],
        services_removed: vec![service_key("n/a.example")],
        policies_removed: vec![policy_key("n/x")],
        ..Delta::default()
    };
    assert!(!delta.is_empty());
    assert!(Delta::default().is_empty());
    let snapshot = delta.apply(&Snapshot::default());
    compare(&snapshot, &Reference::default());
}

#[test]
fn endpoints_wait_for_their_service() {
    let early =
        mesh(vec![endpoint_of(pod("n/p", &[]), "n/a.example", &[(80, 81)])], vec![], vec![]);
    let key = service_key("n/a.example");
    let services = vec![service("n/a.example", &[], &[])];
    let late = Delta { services, ..Delta::default() }.apply(&early);
    assert!(late.service(&key).is_some());
    assert_eq!(late.endpoints(&key).count(), 1);
    assert!(late.endpoint(&key, &Arc::from("k//Pod/n/p")).is_some());
    assert!(late.endpoint(&key, &Arc::from("k//Pod/n/q")).is_none());
}

/// A batch copies what it changes once, not once for each endpoint of a service.
#[test]
fn the_endpoints_of_a_service_are_not_copied_for_each_of_them() {
    let key = service_key("n/a.example");
    let of = |name: &str| endpoint_of(pod(name, &[]), "n/a.example", &[(80, 81)]);
    let mut snapshot = mesh(vec![of("n/p0")], vec![], vec![]);
    let at = |snapshot: &Snapshot| snapshot.endpoints.get(&key).map(Arc::as_ptr);
    let before = at(&snapshot);
    snapshot.insert_workload(of("n/p1"));
    snapshot.remove_workload(&Arc::from("k//Pod/n/p0"));
    assert_eq!(at(&snapshot), before);
    assert_eq!(snapshot.endpoints(&key).count(), 1);
}

#[test]
fn the_policies_of_a_namespace_are_not_copied_for_each_of_them() {
    let namespace = Arc::from("n");
    let mut snapshot = mesh(vec![], vec![], vec![policy("DENY NAMESPACE n/a", "none")]);
    let at = |snapshot: &Snapshot| snapshot.policies_by_namespace.get(&namespace).map(Arc::as_ptr);
    let before = at(&snapshot);
    snapshot.insert_policy(policy("DENY NAMESPACE n/b", "none"));
    snapshot.remove_policy(&policy_key("n/a"));
    assert_eq!(at(&snapshot), before);
    assert_eq!(snapshot.policies_of_namespace(&namespace).len(), 1);
}

/// Among equals the one written last is found, also if nothing but its status has changed.
#[test]
fn a_workload_that_is_written_again_is_the_last_of_its_equals() {
    let twins = vec![pod("n/a", &["10.0.0.1"]), pod("n/b", &["10.0.0.1"])];
    let first = twins[0].clone();
    let both = Delta { workloads: twins, ..Delta::default() }.apply(&Snapshot::default());
    let found = |snapshot: &Snapshot| {
        snapshot.workload_by_addr(&net_addr("/10.0.0.1")).map(|w| w.name.to_string())
    };
    assert_eq!(found(&both).as_deref(), Some("b"));
    let again = Workload { status: Health::Unhealthy, ..first };
    let next = Delta { workloads: vec![again], ..Delta::default() }.apply(&both);
    assert_eq!(found(&next).as_deref(), Some("a"));
}
