//! The file's records (spec operations 4).

mod convert;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::FileError;
use crate::model;
use crate::wire::spiffe::Identity;

/// YAML nodes in one file: enough for 100,000 workloads with everything that can be said of them.
const NODES_MAX: usize = 20_000_000;

/// What a file says, as the model's values.
pub(super) struct Records {
    pub(super) workloads: Vec<model::Workload>,
    pub(super) services: Vec<model::Service>,
    pub(super) policies: Vec<model::Policy>,
}

/// Reads a text; everything that is not known is an error, because it may have been meant to deny.
pub(super) fn parse(text: &str) -> Result<Records, FileError> {
    let mut options = serde_saphyr::Options::default();
    if let Some(budget) = &mut options.budget {
        budget.max_nodes = NODES_MAX;
        budget.max_events = 2 * NODES_MAX;
    }
    let file: File = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map(|place| (place.line(), place.column()));
        let reason = error.without_snippet().to_string();
        FileError { place, reason }
    })?;
    let workloads: Result<_, _> = file.workloads.into_iter().map(Workload::into_model).collect();
    Ok(Records {
        workloads: workloads?,
        services: file.services.into_iter().map(Service::into_model).collect(),
        policies: file.policies.into_iter().map(Policy::into_model).collect(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    workloads: Vec<Workload>,
    #[serde(default)]
    services: Vec<Service>,
    #[serde(default)]
    policies: Vec<Policy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Workload {
    #[serde(default)]
    uid: Arc<str>,
    workload_ips: Vec<IpAddr>,
    namespace: Arc<str>,
    services: BTreeMap<ServiceKey, model::PortMap>,
    #[serde(default)]
    name: Arc<str>,
    #[serde(default)]
    service_account: Arc<str>,
    #[serde(default)]
    trust_domain: Arc<str>,
    #[serde(default)]
    network: Arc<str>,
    #[serde(default)]
    node: Arc<str>,
    #[serde(default)]
    cluster_id: Arc<str>,
    #[serde(default)]
    workload_name: Arc<str>,
    #[serde(default)]
    workload_type: Arc<str>,
    #[serde(default)]
    canonical_name: Arc<str>,
    #[serde(default)]
    canonical_revision: Arc<str>,
    #[serde(default)]
    hostname: Arc<str>,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    network_mode: NetworkMode,
    #[serde(default)]
    native_tunnel: bool,
    application_tunnel: Option<ApplicationTunnel>,
    waypoint: Option<Gateway>,
    network_gateway: Option<Gateway>,
    #[serde(default)]
    authorization_policies: Vec<PolicyKey>,
    #[serde(default)]
    status: Health,
    #[serde(default)]
    locality: Locality,
    #[serde(default = "one")]
    capacity: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Service {
    name: Arc<str>,
    namespace: Arc<str>,
    hostname: Arc<str>,
    vips: Vec<NetworkAddr>,
    #[serde(default)]
    cidr_vips: Vec<NetworkCidr>,
    ports: model::PortMap,
    #[serde(default)]
    subject_alt_names: Vec<Spiffe>,
    waypoint: Option<Gateway>,
    #[serde(default)]
    weighted_waypoints: Vec<WeightedWaypoint>,
    load_balancer: Option<LoadBalancer>,
    ip_families: Option<IpFamilies>,
    #[serde(default)]
    canonical: bool,
    #[serde(default)]
    visibility: Visibility,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Policy {
    name: Arc<str>,
    namespace: Arc<str>,
    scope: Scope,
    action: Action,
    dry_run: bool,
    rules: Vec<Vec<Vec<Match>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct Match {
    namespaces: Vec<StringMatch>,
    not_namespaces: Vec<StringMatch>,
    service_accounts: Vec<ServiceAccount>,
    not_service_accounts: Vec<ServiceAccount>,
    principals: Vec<StringMatch>,
    not_principals: Vec<StringMatch>,
    source_ips: Vec<IpNet>,
    not_source_ips: Vec<IpNet>,
    destination_ips: Vec<IpNet>,
    not_destination_ips: Vec<IpNet>,
    destination_ports: Vec<u16>,
    not_destination_ports: Vec<u16>,
}

#[derive(Deserialize)]
enum StringMatch {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Suffix(Arc<str>),
    Presence(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceAccount {
    namespace: Arc<str>,
    service_account: Arc<str>,
}

#[derive(Deserialize, Default)]
enum Protocol {
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "HBONE")]
    Hbone,
}

#[derive(Deserialize, Default)]
enum NetworkMode {
    #[default]
    Standard,
    HostNetwork,
}

#[derive(Deserialize, Default)]
enum Health {
    #[default]
    Healthy,
    Unhealthy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplicationTunnel {
    protocol: TunnelProtocol,
    port: Option<u16>,
}

#[derive(Deserialize)]
enum TunnelProtocol {
    #[serde(rename = "NONE")]
    None,
    #[serde(rename = "PROXY")]
    Proxy,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Gateway {
    destination: GatewayAddress,
    hbone_mtls_port: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightedWaypoint {
    destination: Gateway,
    weight: u32,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Locality {
    region: Arc<str>,
    zone: Arc<str>,
    subzone: Arc<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LoadBalancer {
    #[serde(default)]
    routing_preferences: Vec<RoutingScope>,
    #[serde(default)]
    mode: LoadBalancerMode,
    #[serde(default)]
    health_policy: HealthPolicy,
}

#[derive(Deserialize)]
enum RoutingScope {
    Region,
    Zone,
    Subzone,
    Node,
    Cluster,
    Network,
}

#[derive(Deserialize, Default)]
enum LoadBalancerMode {
    #[default]
    Standard,
    Strict,
    Failover,
    Passthrough,
}

#[derive(Deserialize, Default)]
enum HealthPolicy {
    #[default]
    OnlyHealthy,
    AllowAll,
}

#[derive(Deserialize)]
enum IpFamilies {
    IPv4,
    IPv6,
    Dual,
}

#[derive(Deserialize, Default)]
enum Visibility {
    #[default]
    Public,
    Namespace,
}

#[derive(Deserialize)]
enum Scope {
    Global,
    Namespace,
    WorkloadSelector,
}

#[derive(Deserialize)]
enum Action {
    Allow,
    Deny,
}

/// `<namespace>/<hostname>`
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(try_from = "String")]
struct ServiceKey(model::ServiceKey);

/// `<namespace>/<name>`
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct PolicyKey(model::PolicyKey);

/// `<network>/<ip>`
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct NetworkAddr(model::NetworkAddr);

/// `{network, cidr}` or `<network>/<cidr>`
#[derive(Deserialize)]
#[serde(untagged)]
enum NetworkCidr {
    Text(CidrText),
    Fields(CidrFields),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CidrFields {
    network: Arc<str>,
    cidr: IpNet,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct CidrText(Arc<str>, IpNet);

/// `<namespace>/<hostname>` or `<network>/<ip>`
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct GatewayAddress(model::GatewayAddress);

/// A SPIFFE id
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Spiffe(Identity);

fn one() -> u32 {
    1
}
