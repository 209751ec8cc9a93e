//! Services (spec xds 8.3, discovery-and-balancing 9).

use std::sync::Arc;

use super::waypoints::{GATEWAY_NAME, Wanted, waypoint_of};
use super::{Context, DOMAIN, HBONE_PORT, Resources};
use crate::standalone::manifest::{Meta, Note, Service, ServicePort, TargetPort};
use crate::wire::xds::{ip_bytes, workload};

use workload::load_balancing::{HealthPolicy, Mode, Scope};

const DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
const INGRESS_USE_WAYPOINT: &str = "istio.io/ingress-use-waypoint";

/// The name of a service in the mesh.
pub(super) fn hostname(meta: &Meta) -> String {
    format!("{}.{}.{DOMAIN}", meta.name, meta.namespace)
}

/// Every service, and one for each waypoint that has none.
pub(super) fn convert(context: &Context<'_>, resources: &mut Resources) {
    for service in &context.manifests.services {
        if service.external_name {
            let text = "not served: it is a name for the resolver, not for a node proxy";
            resources.note(Note::about("Service", &service.meta, "spec.type", text));
            continue;
        }
        let converted = one(context, service, resources);
        resources.service(converted);
    }
    for waypoint in context.waypoints.all() {
        let meta = waypoint.meta;
        if !has_service(context, meta) {
            resources.service(workload::Service {
                name: meta.name.to_string(),
                namespace: meta.namespace.to_string(),
                hostname: hostname(meta),
                ports: vec![port(HBONE_PORT, HBONE_PORT)],
                canonical: true,
                ..workload::Service::default()
            });
        }
    }
}

/// Whether somebody wrote the service of a waypoint, which istiod would have made.
pub(super) fn has_service(context: &Context<'_>, waypoint: &Meta) -> bool {
    let same = |meta: &Meta| meta.namespace == waypoint.namespace && meta.name == waypoint.name;
    context.manifests.services.iter().any(|service| same(&service.meta))
}

fn one(context: &Context<'_>, service: &Service, resources: &mut Resources) -> workload::Service {
    let meta = &service.meta;
    // A waypoint never gets a waypoint.
    let is_waypoint = context.waypoints.get(&meta.namespace, &meta.name).is_some()
        || meta.label(GATEWAY_NAME).is_some();
    let waypoint = if is_waypoint {
        None
    } else {
        waypoint_of(context, ("Service", meta), Wanted::ForService, resources)
    };
    if service.cluster_ips.is_empty() && !service.headless {
        let text = "there is none: the service is reached by the addresses of its pods only";
        resources.note(Note::about("Service", meta, "spec.clusterIP", text));
    }
    let addresses = service.cluster_ips.iter().map(|ip| workload::NetworkAddress {
        network: String::new(),
        address: ip_bytes(*ip),
        length: None,
    });
    workload::Service {
        name: meta.name.to_string(),
        namespace: meta.namespace.to_string(),
        hostname: hostname(meta),
        addresses: addresses.collect(),
        ports: ports(&service.ports),
        waypoint,
        load_balancing: load_balancing(context, service),
        ip_families: ip_families(&service.ip_families).into(),
        canonical: true,
        ingress_use_waypoint: meta.label(INGRESS_USE_WAYPOINT) == Some("true"),
        ..workload::Service::default()
    }
}

/// The ports of a service as it has them itself: a named target is 0, and each endpoint says it.
pub(super) fn ports(ports: &[ServicePort]) -> Vec<workload::Port> {
    let target = |target: &TargetPort| match target {
        TargetPort::Number(number) => *number,
        TargetPort::Name(_) => 0,
    };
    ports.iter().map(|of| port(of.port, target(&of.target))).collect()
}

pub(super) fn port(service_port: u16, target_port: u16) -> workload::Port {
    workload::Port {
        service_port: service_port.into(),
        target_port: target_port.into(),
        app_protocol: workload::AppProtocol::Unknown.into(),
    }
}

fn ip_families(families: &[Arc<str>]) -> workload::IpFamilies {
    match families.iter().map(|family| &**family).collect::<Vec<_>>().as_slice() {
        ["IPv4"] => workload::IpFamilies::Ipv4Only,
        ["IPv6"] => workload::IpFamilies::Ipv6Only,
        [_, _] => workload::IpFamilies::Dual,
        _ => workload::IpFamilies::Automatic,
    }
}

fn load_balancing(context: &Context<'_>, service: &Service) -> Option<workload::LoadBalancing> {
    let meta = &service.meta;
    let distribution = service
        .distribution
        .as_deref()
        .or_else(|| meta.annotation(DISTRIBUTION))
        .or_else(|| context.namespaces.get(&*meta.namespace)?.meta.annotation(DISTRIBUTION));
    let zone = [Scope::Network, Scope::Region, Scope::Zone];
    let node = [Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node];
    let (mode, preference): (Mode, &[Scope]) = match distribution {
        _ if service.local_only => (Mode::Strict, &[Scope::Node]),
        Some("PreferClose" | "PreferSameZone") => (Mode::Failover, &zone),
        Some("PreferSameNode") => (Mode::Failover, &node),
        _ => (Mode::UnspecifiedMode, &[]),
    };
    let health =
        if service.publish_not_ready { HealthPolicy::AllowAll } else { HealthPolicy::OnlyHealthy };
    let standard = mode == Mode::UnspecifiedMode && health == HealthPolicy::OnlyHealthy;
    (!standard).then(|| workload::LoadBalancing {
        routing_preference: preference.iter().map(|scope| (*scope).into()).collect(),
        mode: mode.into(),
        health_policy: health.into(),
    })
}
