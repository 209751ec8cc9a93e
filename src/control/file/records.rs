//! The file's records, and how they become the model's values.

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

/// The two parts of a text around its first slash.
fn parts<'a>(text: &'a str, form: &str) -> Result<(&'a str, &'a str), String> {
    text.split_once('/').ok_or_else(|| format!("{text:?} is not {form}"))
}

impl TryFrom<String> for ServiceKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (namespace, hostname) = parts(&text, "<namespace>/<hostname>")?;
        let (namespace, hostname) = (namespace.into(), hostname.into());
        Ok(Self(model::ServiceKey { namespace, hostname }))
    }
}

impl TryFrom<String> for PolicyKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (namespace, name) = parts(&text, "<namespace>/<name>")?;
        Ok(Self(model::PolicyKey::new(namespace, name)))
    }
}

impl TryFrom<String> for NetworkAddr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (network, ip) = parts(&text, "<network>/<ip>")?;
        let ip = ip.parse().map_err(|_| format!("{ip:?} is not an IP address"))?;
        Ok(Self(model::NetworkAddr { network: network.into(), ip }))
    }
}

impl TryFrom<String> for CidrText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (network, cidr) = parts(&text, "<network>/<cidr>")?;
        let cidr = cidr.parse().map_err(|_| format!("{cidr:?} is not a CIDR"))?;
        Ok(Self(network.into(), cidr))
    }
}

impl TryFrom<String> for GatewayAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (first, second) = parts(&text, "<namespace>/<hostname> or <network>/<ip>")?;
        Ok(Self(match second.parse::<IpAddr>() {
            Ok(ip) => {
                model::GatewayAddress::Address(model::NetworkAddr { network: first.into(), ip })
            }
            Err(_) => model::GatewayAddress::Hostname(model::ServiceKey {
                namespace: first.into(),
                hostname: second.into(),
            }),
        }))
    }
}

impl TryFrom<String> for Spiffe {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| format!("{text:?}: {error}"))
    }
}

impl Workload {
    fn into_model(self) -> Result<model::Workload, FileError> {
        let uid = match (self.uid.is_empty(), self.name.is_empty()) {
            (false, _) => self.uid,
            (true, false) => {
                format!("{}//Pod/{}/{}", self.cluster_id, self.namespace, self.name).into()
            }
            (true, true) => {
                let reason = "a workload needs a uid or a name".to_owned();
                return Err(FileError { place: None, reason });
            }
        };
        Ok(model::Workload {
            uid,
            name: self.name,
            namespace: self.namespace,
            service_account: self.service_account,
            trust_domain: self.trust_domain,
            network: self.network,
            node: self.node,
            cluster_id: self.cluster_id,
            workload_name: self.workload_name,
            workload_type: self.workload_type,
            canonical_name: self.canonical_name,
            canonical_revision: self.canonical_revision,
            hostname: self.hostname,
            ips: self.workload_ips,
            protocol: match self.protocol {
                Protocol::Tcp => model::WorkloadProtocol::Tcp,
                Protocol::Hbone => model::WorkloadProtocol::Hbone,
            },
            network_mode: match self.network_mode {
                NetworkMode::Standard => model::NetworkMode::Standard,
                NetworkMode::HostNetwork => model::NetworkMode::HostNetwork,
            },
            native_tunnel: self.native_tunnel,
            application_tunnel: self.application_tunnel.map(ApplicationTunnel::into_model),
            waypoint: self.waypoint.map(Gateway::into_model),
            network_gateway: self.network_gateway.map(Gateway::into_model),
            authorization_policies: self.authorization_policies.into_iter().map(|k| k.0).collect(),
            status: match self.status {
                Health::Healthy => model::Health::Healthy,
                Health::Unhealthy => model::Health::Unhealthy,
            },
            locality: model::Locality {
                region: self.locality.region,
                zone: self.locality.zone,
                subzone: self.locality.subzone,
            },
            services: self.services.into_iter().map(|(key, ports)| (key.0, ports)).collect(),
            capacity: self.capacity,
        })
    }
}

impl Service {
    fn into_model(self) -> model::Service {
        model::Service {
            name: self.name,
            key: model::ServiceKey { namespace: self.namespace, hostname: self.hostname },
            vips: self.vips.into_iter().map(|vip| vip.0).collect(),
            cidr_vips: self.cidr_vips.into_iter().map(NetworkCidr::into_model).collect(),
            ports: self.ports,
            subject_alt_names: self.subject_alt_names.into_iter().map(|name| name.0).collect(),
            waypoint: self.waypoint.map(Gateway::into_model),
            weighted_waypoints: self
                .weighted_waypoints
                .into_iter()
                .map(|weighted| model::WeightedWaypoint {
                    destination: weighted.destination.into_model(),
                    weight: weighted.weight,
                })
                .collect(),
            load_balancer: self.load_balancer.map(LoadBalancer::into_model),
            ip_families: self.ip_families.map(|families| match families {
                IpFamilies::IPv4 => model::IpFamilies::IPv4,
                IpFamilies::IPv6 => model::IpFamilies::IPv6,
                IpFamilies::Dual => model::IpFamilies::Dual,
            }),
            canonical: self.canonical,
            visibility: match self.visibility {
                Visibility::Public => model::Visibility::Public,
                Visibility::Namespace => model::Visibility::Namespace,
            },
        }
    }
}

impl Policy {
    fn into_model(self) -> model::Policy {
        let rule = |rule: Vec<Match>| rule.into_iter().map(Match::into_model).collect();
        let group = |group: Vec<Vec<Match>>| group.into_iter().map(rule).collect();
        model::Policy {
            key: model::PolicyKey { namespace: self.namespace, name: self.name },
            scope: match self.scope {
                Scope::Global => model::Scope::Global,
                Scope::Namespace => model::Scope::Namespace,
                Scope::WorkloadSelector => model::Scope::WorkloadSelector,
            },
            action: match self.action {
                Action::Allow => model::Action::Allow,
                Action::Deny => model::Action::Deny,
            },
            groups: self.rules.into_iter().map(group).collect(),
            dry_run: self.dry_run,
        }
    }
}

impl Match {
    fn into_model(self) -> model::Match {
        let texts =
            |texts: Vec<StringMatch>| texts.into_iter().map(StringMatch::into_model).collect();
        let accounts = |accounts: Vec<ServiceAccount>| {
            accounts.into_iter().map(ServiceAccount::into_model).collect()
        };
        model::Match {
            namespaces: texts(self.namespaces),
            not_namespaces: texts(self.not_namespaces),
            service_accounts: accounts(self.service_accounts),
            not_service_accounts: accounts(self.not_service_accounts),
            principals: texts(self.principals),
            not_principals: texts(self.not_principals),
            source_ips: self.source_ips,
            not_source_ips: self.not_source_ips,
            destination_ips: self.destination_ips,
            not_destination_ips: self.not_destination_ips,
            destination_ports: self.destination_ports,
            not_destination_ports: self.not_destination_ports,
        }
    }
}

impl StringMatch {
    fn into_model(self) -> model::StringMatch {
        match self {
            Self::Exact(text) => model::StringMatch::Exact(text),
            Self::Prefix(text) => model::StringMatch::Prefix(text),
            Self::Suffix(text) => model::StringMatch::Suffix(text),
            Self::Presence(_) => model::StringMatch::Presence,
        }
    }
}

impl ServiceAccount {
    fn into_model(self) -> model::ServiceAccountRef {
        let Self { namespace, service_account } = self;
        model::ServiceAccountRef { namespace, service_account }
    }
}

impl ApplicationTunnel {
    fn into_model(self) -> model::ApplicationTunnel {
        let protocol = match self.protocol {
            TunnelProtocol::None => model::TunnelProtocol::None,
            TunnelProtocol::Proxy => model::TunnelProtocol::Proxy,
        };
        model::ApplicationTunnel { protocol, port: self.port }
    }
}

impl Gateway {
    fn into_model(self) -> model::GatewayRef {
        let Self { destination, hbone_mtls_port } = self;
        model::GatewayRef { destination: destination.0, hbone_mtls_port }
    }
}

impl NetworkCidr {
    fn into_model(self) -> (Arc<str>, IpNet) {
        match self {
            Self::Text(CidrText(network, cidr)) => (network, cidr),
            Self::Fields(CidrFields { network, cidr }) => (network, cidr),
        }
    }
}

impl LoadBalancer {
    fn into_model(self) -> model::LoadBalancer {
        let scope = |scope| match scope {
            RoutingScope::Region => model::RoutingScope::Region,
            RoutingScope::Zone => model::RoutingScope::Zone,
            RoutingScope::Subzone => model::RoutingScope::Subzone,
            RoutingScope::Node => model::RoutingScope::Node,
            RoutingScope::Cluster => model::RoutingScope::Cluster,
            RoutingScope::Network => model::RoutingScope::Network,
        };
        model::LoadBalancer {
            routing_preferences: self.routing_preferences.into_iter().map(scope).collect(),
            mode: match self.mode {
                LoadBalancerMode::Standard => model::LoadBalancerMode::Standard,
                LoadBalancerMode::Strict => model::LoadBalancerMode::Strict,
                LoadBalancerMode::Failover => model::LoadBalancerMode::Failover,
                LoadBalancerMode::Passthrough => model::LoadBalancerMode::Passthrough,
            },
            health_policy: match self.health_policy {
                HealthPolicy::OnlyHealthy => model::HealthPolicy::OnlyHealthy,
                HealthPolicy::AllowAll => model::HealthPolicy::AllowAll,
            },
        }
    }
}
