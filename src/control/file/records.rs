//! The file's records as they are written (spec operations 4 and 6).
//!
//! What is not known is an error, and so is an item of which nothing is said: either may have been
//! meant to deny.

mod convert;
mod texts;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_saphyr::{Spanned, budget, options};

use self::texts::{Cidr, GatewayAddress, Ip, NetworkAddr, PolicyKey, ServiceKey, Spiffe};
use super::{FileError, Place};
use crate::model;

/// YAML nodes in one file: enough for 100,000 workloads with everything that can be said of them.
const NODES_MAX: usize = 20_000_000;

/// What a file says, as the model's values, each with its place, in the order of the file.
pub(super) struct Records {
    pub(super) workloads: Vec<(Place, model::Workload)>,
    pub(super) services: Vec<(Place, model::Service)>,
    pub(super) policies: Vec<(Place, model::Policy)>,
}

/// Reads a text of at most `bytes_max` bytes.
pub(super) fn parse(text: &str, bytes_max: usize) -> Result<Records, FileError> {
    let options = options! {
        budget: budget! {
            max_nodes: NODES_MAX,
            max_events: 2 * NODES_MAX,
            max_total_scalar_bytes: bytes_max,
        },
        emit_comments: false,
        strict_booleans: true,
        with_snippet: false,
    };
    let file: Option<File> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let place = error.location().map(|place| (place.line(), place.column()));
            FileError { place, reason: without_place(error.to_string(), place) }
        })?;
    // A file that was cut off at its beginning must not pass for an empty mesh.
    let Some(file) = file else {
        return Err(FileError::new("it is empty; an empty mesh is written as {}"));
    };
    let workloads = file.workloads.into_iter().map(|item| {
        let place = place(&item);
        let workload =
            item.value.into_model().map_err(|reason| FileError { place: Some(place), reason });
        workload.map(|workload| (place, workload))
    });
    Ok(Records {
        workloads: workloads.collect::<Result<_, _>>()?,
        services: file.services.into_iter().map(|s| (place(&s), s.value.into_model())).collect(),
        policies: file.policies.into_iter().map(|p| (place(&p), p.value.into_model())).collect(),
    })
}

fn place<T>(item: &Spanned<T>) -> Place {
    (item.referenced.line(), item.referenced.column())
}

/// The reason alone: the place is told beside it.
fn without_place(reason: String, place: Option<Place>) -> String {
    let Some((line, column)) = place else { return reason };
    let suffix = format!(" at line {line}, column {column}");
    reason.strip_suffix(&suffix).map(str::to_owned).unwrap_or(reason)
}

/// Something that must be said: nothing at all (`null`, or a dash without an item) is an error.
#[derive(Default)]
struct Given<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Option::<T>::deserialize(deserializer)?;
        given.map(Self).ok_or_else(|| D::Error::custom("nothing is given here"))
    }
}

/// A list in a policy.
type List<T> = Given<Vec<T>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    workloads: Vec<Spanned<Workload>>,
    #[serde(default)]
    services: Vec<Spanned<Service>>,
    #[serde(default)]
    policies: Vec<Spanned<Policy>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Workload {
    #[serde(default)]
    uid: Arc<str>,
    workload_ips: Vec<Ip>,
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
    authorization_policies: List<PolicyKey>,
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
    cidr_vips: Vec<CidrVip>,
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
    rules: List<List<List<Given<Match>>>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Match {
    namespaces: List<StringMatch>,
    not_namespaces: List<StringMatch>,
    service_accounts: List<ServiceAccount>,
    not_service_accounts: List<ServiceAccount>,
    principals: List<StringMatch>,
    not_principals: List<StringMatch>,
    source_ips: List<Cidr>,
    not_source_ips: List<Cidr>,
    destination_ips: List<Cidr>,
    not_destination_ips: List<Cidr>,
    destination_ports: List<u16>,
    not_destination_ports: List<u16>,
}

#[derive(Deserialize)]
enum StringMatch {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Suffix(Arc<str>),
    Presence(#[serde(deserialize_with = "nothing")] ()),
}

/// `[]`, `{}` or nothing.
#[derive(Deserialize)]
#[serde(untagged)]
enum Nothing {
    Null(()),
    List([(); 0]),
    Map(EmptyMap),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyMap {}

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CidrVip {
    network: Arc<str>,
    cidr: Cidr,
}

fn nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    Nothing::deserialize(deserializer).map(|_| ())
}

fn one() -> u32 {
    1
}
