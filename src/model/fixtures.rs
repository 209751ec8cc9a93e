//! Small meshes for tests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{
    Action, Delta, GatewayAddress, GatewayRef, Group, HealthPolicy, LoadBalancer, LoadBalancerMode,
    Match, NetworkAddr, Policy, PolicyKey, RoutingScope, Rule, Scope, Service, ServiceAccountRef,
    ServiceKey, Snapshot, StringMatch, Visibility, Wanted, Workload, WorkloadProtocol,
};
use crate::wire::spiffe::Identity;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn sock(text: &str) -> SocketAddr {
    text.parse().expect("an address and port")
}

pub(crate) fn id(text: &str) -> Identity {
    text.parse().expect("a SPIFFE id")
}

/// `<namespace>/<host name>`.
pub(crate) fn service_key(text: &str) -> ServiceKey {
    let (namespace, hostname) = text.split_once('/').expect("<namespace>/<host name>");
    ServiceKey { namespace: Arc::from(namespace), hostname: Arc::from(hostname) }
}

/// `<namespace>/<name>`.
pub(crate) fn policy_key(text: &str) -> PolicyKey {
    let (namespace, name) = text.split_once('/').expect("<namespace>/<name>");
    PolicyKey::new(namespace, name)
}

/// `<network>/<address>`; the network may be empty.
pub(crate) fn net_addr(text: &str) -> NetworkAddr {
    let (network, addr) = text.split_once('/').expect("<network>/<address>");
    NetworkAddr { network: Arc::from(network), ip: ip(addr) }
}

/// A waypoint or gateway by `<namespace>/<host name>:<port>` or `@<network>/<address>:<port>`.
pub(crate) fn gateway(text: &str) -> GatewayRef {
    let (destination, port) = text.rsplit_once(':').expect("a port");
    let destination = match destination.strip_prefix('@') {
        Some(addr) => GatewayAddress::Address(net_addr(addr)),
        None => GatewayAddress::Hostname(service_key(destination)),
    };
    GatewayRef { destination, hbone_mtls_port: port.parse().expect("a port") }
}

/// A meshed pod `<namespace>/<name>` whose service account is its name.
pub(crate) fn pod(text: &str, ips: &[&str]) -> Workload {
    let (namespace, name) = text.split_once('/').expect("<namespace>/<name>");
    Workload {
        uid: Arc::from(format!("k//Pod/{text}")),
        name: Arc::from(name),
        namespace: Arc::from(namespace),
        service_account: Arc::from(name),
        trust_domain: Arc::from("corp.example"),
        ips: ips.iter().map(|text| ip(text)).collect(),
        protocol: WorkloadProtocol::Hbone,
        ..Workload::default()
    }
}

/// The workload as an endpoint of a service, `<namespace>/<host name>`, with a port map.
pub(crate) fn endpoint_of(mut workload: Workload, service: &str, ports: &[(u16, u16)]) -> Workload {
    workload.services.push((service_key(service), ports.iter().copied().collect()));
    workload
}

/// A public service with virtual addresses `<network>/<address>` and ports.
pub(crate) fn service(key: &str, vips: &[&str], ports: &[(u16, u16)]) -> Service {
    let key = service_key(key);
    Service {
        name: Arc::clone(&key.hostname),
        key,
        vips: vips.iter().map(|vip| net_addr(vip)).collect(),
        cidr_vips: Vec::new(),
        ports: ports.iter().copied().collect(),
        subject_alt_names: Vec::new(),
        waypoint: None,
        weighted_waypoints: Vec::new(),
        load_balancer: None,
        ip_families: None,
        canonical: false,
        visibility: Visibility::Public,
    }
}

pub(crate) fn balanced(mode: LoadBalancerMode, scopes: &[RoutingScope]) -> Option<LoadBalancer> {
    Some(LoadBalancer {
        routing_preferences: scopes.to_vec(),
        mode,
        health_policy: HealthPolicy::OnlyHealthy,
    })
}

pub(crate) fn mesh(
    workloads: Vec<Workload>,
    services: Vec<Service>,
    policies: Vec<Policy>,
) -> Snapshot {
    Delta { workloads, services, policies, ..Delta::default() }.apply(&Snapshot::default())
}

/// A mesh that is asked for one by one, and what was answered besides what is there.
pub(crate) fn mesh_on_demand(
    workloads: Vec<Workload>,
    services: Vec<Service>,
    answered: Vec<Wanted>,
) -> Snapshot {
    let delta = Delta { workloads, services, answered, ..Delta::default() };
    delta.apply(&Snapshot::on_demand())
}

/// A policy from a head such as `dry DENY GLOBAL istio-system/p` and its groups.
///
/// Groups are written `{field: value + value, field: value} | {..} & {..} ; ..`: `;` between
/// groups, `&` between the rules of a group, `|` between the matches of a rule. `none` is no group
/// at all and `always` a group without rules.
pub(crate) fn policy(head: &str, groups: &str) -> Policy {
    let mut words: Vec<&str> = head.split_whitespace().collect();
    let dry_run = words.first() == Some(&"dry");
    if dry_run {
        words.remove(0);
    }
    let action = match words[0] {
        "ALLOW" => Action::Allow,
        "DENY" => Action::Deny,
        other => panic!("no action {other}"),
    };
    let scope = match words[1] {
        "GLOBAL" => Scope::Global,
        "NAMESPACE" => Scope::Namespace,
        "SELECTOR" => Scope::WorkloadSelector,
        other => panic!("no scope {other}"),
    };
    let groups = if groups == "none" { Vec::new() } else { groups.split(';').map(group).collect() };
    Policy { key: policy_key(words[2]), scope, action, groups, dry_run }
}

fn group(text: &str) -> Group {
    if text.trim() == "always" { Vec::new() } else { text.split('&').map(rule).collect() }
}

fn rule(text: &str) -> Rule {
    text.split('|').map(entry).collect()
}

fn entry(text: &str) -> Match {
    let inner = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).expect("{..}");
    let mut entry = Match::default();
    for field in inner.split(',').filter(|field| !field.trim().is_empty()) {
        let (name, values) = field.split_once(": ").expect("field: values");
        let values = values.split('+').map(str::trim);
        match name.trim() {
            "namespaces" => entry.namespaces = values.map(text_match).collect(),
            "notNamespaces" => entry.not_namespaces = values.map(text_match).collect(),
            "principals" => entry.principals = values.map(text_match).collect(),
            "notPrincipals" => entry.not_principals = values.map(text_match).collect(),
            "serviceAccounts" => entry.service_accounts = values.map(account).collect(),
            "notServiceAccounts" => entry.not_service_accounts = values.map(account).collect(),
            "sourceIps" => entry.source_ips = values.map(net).collect(),
            "notSourceIps" => entry.not_source_ips = values.map(net).collect(),
            "destinationIps" => entry.destination_ips = values.map(net).collect(),
            "notDestinationIps" => entry.not_destination_ips = values.map(net).collect(),
            "destinationPorts" => entry.destination_ports = values.map(number).collect(),
            "notDestinationPorts" => entry.not_destination_ports = values.map(number).collect(),
            other => panic!("no field {other}"),
        }
    }
    entry
}

fn text_match(text: &str) -> StringMatch {
    match text.split_once(' ').unwrap_or((text, "")) {
        ("presence", "") => StringMatch::Presence,
        ("exact", value) => StringMatch::Exact(Arc::from(value)),
        ("prefix", value) => StringMatch::Prefix(Arc::from(value)),
        ("suffix", value) => StringMatch::Suffix(Arc::from(value)),
        _ => StringMatch::Exact(Arc::from(text)),
    }
}

fn account(text: &str) -> ServiceAccountRef {
    let (namespace, name) = text.split_once('/').expect("<namespace>/<name>");
    ServiceAccountRef { namespace: Arc::from(namespace), service_account: Arc::from(name) }
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().expect("an address range")
}

fn number(text: &str) -> u16 {
    text.parse().expect("a port")
}
