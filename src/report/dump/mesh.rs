//! Workloads and services in the config dump.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::model::{
    ApplicationTunnel, Endpoint, GatewayRef, Health, HealthPolicy, IpFamilies, LoadBalancer,
    LoadBalancerMode, Locality, NetworkMode, PortMap, RoutingScope, Service, Snapshot,
    TunnelProtocol, Visibility, Workload, WorkloadProtocol,
};

/// All workloads, sorted by uid.
pub(super) struct Workloads<'a>(pub(super) &'a Snapshot);
/// All services with their endpoints, sorted by namespace and host name.
pub(super) struct Services<'a>(pub(super) &'a Snapshot);
impl Serialize for Workloads<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sorted: Vec<_> = self.0.workloads().collect();
        sorted.sort_by_key(|workload| &workload.uid);
        serializer.collect_seq(sorted.into_iter().map(|w| WorkloadView::of(w)))
    }
}

impl Serialize for Services<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sorted: Vec<_> = self.0.services().collect();
        sorted.sort_by_key(|service| &service.key);
        serializer.collect_seq(sorted.into_iter().map(|s| ServiceView::of(s, self.0)))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadView<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    workload_ips: &'a [IpAddr],
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<GatewayView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_gateway: Option<GatewayView>,
    protocol: &'static str,
    network_mode: &'static str,
    name: &'a str,
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    service_account: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    trust_domain: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    network: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    workload_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    workload_type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    canonical_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    canonical_revision: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    hostname: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    node: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    native_tunnel: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_tunnel: Option<TunnelView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authorization_policies: Vec<String>,
    status: &'static str,
    cluster_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    locality: Option<LocalityView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    services: Vec<String>,
    capacity: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GatewayView {
    destination: String,
    hbone_mtls_port: u16,
}

#[derive(Serialize)]
struct TunnelView {
    protocol: &'static str,
    port: Option<u16>,
}

#[derive(Serialize)]
struct LocalityView<'a> {
    region: &'a str,
    zone: &'a str,
    subzone: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceView<'a> {
    name: &'a str,
    namespace: &'a str,
    hostname: &'a str,
    vips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cidr_vips: Vec<CidrView<'a>>,
    ports: &'a PortMap,
    endpoints: BTreeMap<&'a str, EndpointView<'a>>,
    subject_alt_names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<GatewayView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    weighted_waypoints: Vec<WeightedView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_balancer: Option<BalancerView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_families: Option<&'static str>,
    canonical: bool,
    visibility: &'static str,
}

#[derive(Serialize)]
struct CidrView<'a> {
    network: &'a str,
    cidr: IpNet,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointView<'a> {
    workload_uid: &'a str,
    port: &'a PortMap,
    status: &'static str,
}

#[derive(Serialize)]
struct WeightedView {
    destination: GatewayView,
    weight: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BalancerView {
    routing_preferences: Vec<&'static str>,
    mode: &'static str,
    health_policy: &'static str,
}

impl<'a> WorkloadView<'a> {
    fn of(w: &'a Workload) -> Self {
        let tunnel = |tunnel: &ApplicationTunnel| TunnelView {
            protocol: match tunnel.protocol {
                TunnelProtocol::None => "NONE",
                TunnelProtocol::Proxy => "PROXY",
            },
            port: tunnel.port,
        };
        let Locality { region, zone, subzone } = &w.locality;
        Self {
            uid: &w.uid,
            workload_ips: &w.ips,
            waypoint: w.waypoint.as_ref().map(GatewayView::of),
            network_gateway: w.network_gateway.as_ref().map(GatewayView::of),
            protocol: match w.protocol {
                WorkloadProtocol::Tcp => "TCP",
                WorkloadProtocol::Hbone => "HBONE",
            },
            network_mode: match w.network_mode {
                NetworkMode::Standard => "Standard",
                NetworkMode::HostNetwork => "HostNetwork",
            },
            name: &w.name,
            namespace: &w.namespace,
            service_account: &w.service_account,
            trust_domain: &w.trust_domain,
            network: &w.network,
            workload_name: &w.workload_name,
            workload_type: &w.workload_type,
            canonical_name: &w.canonical_name,
            canonical_revision: &w.canonical_revision,
            hostname: &w.hostname,
            node: &w.node,
            native_tunnel: w.native_tunnel,
            application_tunnel: w.application_tunnel.as_ref().map(tunnel),
            authorization_policies: texts(&w.authorization_policies),
            status: status(w.status),
            cluster_id: &w.cluster_id,
            locality: (w.locality != Locality::default()).then_some(LocalityView {
                region,
                zone,
                subzone,
            }),
            services: texts(w.services.iter().map(|(key, _)| key)),
            capacity: w.capacity,
        }
    }
}

impl GatewayView {
    fn of(gateway: &GatewayRef) -> Self {
        let destination = gateway.destination.to_string();
        Self { destination, hbone_mtls_port: gateway.hbone_mtls_port }
    }
}

impl<'a> ServiceView<'a> {
    fn of(s: &'a Service, snapshot: &'a Snapshot) -> Self {
        let endpoint = |e: &'a Endpoint| {
            let status = status(e.status);
            (
                &*e.workload_uid,
                EndpointView { workload_uid: &e.workload_uid, port: &e.ports, status },
            )
        };
        let cidr = |(network, cidr): &'a (Arc<str>, IpNet)| CidrView { network, cidr: *cidr };
        let weighted = s.weighted_waypoints.iter().map(|weighted| WeightedView {
            destination: GatewayView::of(&weighted.destination),
            weight: weighted.weight,
        });
        Self {
            name: &s.name,
            namespace: &s.key.namespace,
            hostname: &s.key.hostname,
            vips: texts(&s.vips),
            cidr_vips: s.cidr_vips.iter().map(cidr).collect(),
            ports: &s.ports,
            endpoints: snapshot.endpoints(&s.key).map(endpoint).collect(),
            subject_alt_names: texts(&s.subject_alt_names),
            waypoint: s.waypoint.as_ref().map(GatewayView::of),
            weighted_waypoints: weighted.collect(),
            load_balancer: s.load_balancer.as_ref().map(BalancerView::of),
            ip_families: s.ip_families.map(|families| match families {
                IpFamilies::IPv4 => "IPv4",
                IpFamilies::IPv6 => "IPv6",
                IpFamilies::Dual => "Dual",
            }),
            canonical: s.canonical,
            visibility: match s.visibility {
                Visibility::Public => "Public",
                Visibility::Namespace => "Namespace",
            },
        }
    }
}

impl BalancerView {
    fn of(balancer: &LoadBalancer) -> Self {
        let scope = |scope: &RoutingScope| match scope {
            RoutingScope::Region => "Region",
            RoutingScope::Zone => "Zone",
            RoutingScope::Subzone => "Subzone",
            RoutingScope::Node => "Node",
            RoutingScope::Cluster => "Cluster",
            RoutingScope::Network => "Network",
        };
        Self {
            routing_preferences: balancer.routing_preferences.iter().map(scope).collect(),
            mode: match balancer.mode {
                LoadBalancerMode::Standard => "Standard",
                LoadBalancerMode::Strict => "Strict",
                LoadBalancerMode::Failover => "Failover",
                LoadBalancerMode::Passthrough => "Passthrough",
            },
            health_policy: match balancer.health_policy {
                HealthPolicy::OnlyHealthy => "OnlyHealthy",
                HealthPolicy::AllowAll => "AllowAll",
            },
        }
    }
}

fn status(health: Health) -> &'static str {
    match health {
        Health::Healthy => "Healthy",
        Health::Unhealthy => "Unhealthy",
    }
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}
