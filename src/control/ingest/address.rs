//! Workloads and services (spec xds 8.3).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Flaw, Texts, size};
use crate::model::{
    ApplicationTunnel, GatewayAddress, GatewayRef, Health, HealthPolicy, IpFamilies, LoadBalancer,
    LoadBalancerMode, Locality, NetworkAddr, NetworkMode, PolicyKey, PortMap, RoutingScope,
    Service, ServiceKey, TunnelProtocol, Visibility, WeightedWaypoint, Workload, WorkloadProtocol,
};
use crate::wire::xds::{ip, range, workload as wire};

/// The cluster of a record that names none.
const CLUSTER_DEFAULT: &str = "Kubernetes";

/// A virtual address of a service.
pub(super) enum Vip {
    One(NetworkAddr),
    Range(Arc<str>, IpNet),
}

/// A workload.
pub(super) fn workload(
    name: &Arc<str>,
    message: &wire::Workload,
    texts: &mut Texts,
) -> Result<Workload, Flaw> {
    if message.uid != **name {
        return Err(Flaw::name(&message.uid));
    }
    size::workload(message)?;
    identity_parts(message)?;
    let locality = message.locality.as_ref();
    let part = |of: fn(&wire::Locality) -> &String| locality.map_or("", |l| of(l).as_str());
    let cluster_id = Some(message.cluster_id.as_str()).filter(|id| !id.is_empty());
    Ok(Workload {
        uid: Arc::clone(name),
        name: message.name.as_str().into(),
        namespace: texts.share(&message.namespace),
        service_account: texts.share(&message.service_account),
        trust_domain: texts.share(&message.trust_domain),
        network: texts.share(&message.network),
        node: texts.share(&message.node),
        cluster_id: texts.share(cluster_id.unwrap_or(CLUSTER_DEFAULT)),
        workload_name: texts.share(&message.workload_name),
        workload_type: texts.share(workload_type(message.workload_type)),
        canonical_name: texts.share(&message.canonical_name),
        canonical_revision: texts.share(&message.canonical_revision),
        hostname: texts.share(&message.hostname),
        ips: addresses(message).collect::<Result<_, _>>()?,
        protocol: match known("tunnel_protocol", message.tunnel_protocol)? {
            wire::TunnelProtocol::None => WorkloadProtocol::Tcp,
            wire::TunnelProtocol::Hbone => WorkloadProtocol::Hbone,
            wire::TunnelProtocol::LegacyIstioMtls => {
                return Err(Flaw::Unknown("tunnel_protocol", message.tunnel_protocol));
            }
        },
        network_mode: match known("network_mode", message.network_mode)? {
            wire::NetworkMode::Standard => NetworkMode::Standard,
            wire::NetworkMode::HostNetwork => NetworkMode::HostNetwork,
        },
        native_tunnel: message.native_tunnel,
        application_tunnel: message.application_tunnel.map(application_tunnel).transpose()?,
        waypoint: gateway("waypoint", message.waypoint.as_ref(), texts)?,
        network_gateway: gateway("network_gateway", message.network_gateway.as_ref(), texts)?,
        authorization_policies: policies(&message.authorization_policies, texts)?,
        status: match known("status", message.status)? {
            wire::WorkloadStatus::Healthy => Health::Healthy,
            wire::WorkloadStatus::Unhealthy => Health::Unhealthy,
        },
        locality: Locality {
            region: texts.share(part(|l| &l.region)),
            zone: texts.share(part(|l| &l.zone)),
            subzone: texts.share(part(|l| &l.subzone)),
        },
        services: message
            .services
            .iter()
            .map(|(key, list)| {
                let key = split(key, texts).ok_or_else(|| Flaw::form("services", key))?;
                Ok((key, ports("services", &list.ports)?))
            })
            .collect::<Result<_, _>>()?,
        capacity: message.capacity.unwrap_or(1),
    })
}

/// A part of its identity must not look like several.
fn identity_parts(message: &wire::Workload) -> Result<(), Flaw> {
    let parts = [
        ("trust_domain", &message.trust_domain),
        ("namespace", &message.namespace),
        ("service_account", &message.service_account),
    ];
    let wrong = parts.into_iter().find(|(_, text)| text.contains('/'));
    wrong.map_or(Ok(()), |(field, text)| Err(Flaw::form(field, text)))
}

/// A service.
pub(super) fn service(
    name: &str,
    message: &wire::Service,
    texts: &mut Texts,
) -> Result<Service, Flaw> {
    let key = service_key(message, texts)?;
    let own = key.to_string();
    if own != name {
        return Err(Flaw::name(&own));
    }
    size::service(message)?;
    let (mut vips, mut cidr_vips) = (Vec::new(), Vec::new());
    for address in &message.addresses {
        match vip(address, texts)? {
            Vip::One(addr) => vips.push(addr),
            Vip::Range(network, net) => cidr_vips.push((network, net)),
        }
    }
    let weighted = message.weighted_waypoints.iter().map(|weighted| {
        let field = "weighted_waypoints";
        let destination = gateway(field, weighted.destination.as_ref(), texts)?;
        let destination = destination.ok_or(Flaw::Gateway(field))?;
        Ok(WeightedWaypoint { destination, weight: weighted.weight })
    });
    Ok(Service {
        name: message.name.as_str().into(),
        key,
        vips,
        cidr_vips,
        ports: ports("ports", &message.ports)?,
        weighted_waypoints: weighted.collect::<Result<_, _>>()?,
        // One that is no identity of a workload can be nobody's (spec xds 8.3).
        subject_alt_names: message.subject_alt_names.iter().flat_map(|san| san.parse()).collect(),
        waypoint: gateway("waypoint", message.waypoint.as_ref(), texts)?,
        load_balancer: message.load_balancing.as_ref().map(load_balancer).transpose()?,
        ip_families: match known("ip_families", message.ip_families)? {
            wire::IpFamilies::Automatic => None,
            wire::IpFamilies::Ipv4Only => Some(IpFamilies::IPv4),
            wire::IpFamilies::Ipv6Only => Some(IpFamilies::IPv6),
            wire::IpFamilies::Dual => Some(IpFamilies::Dual),
        },
        canonical: message.canonical,
        // What is not known is public (spec xds 7): hidden, its clients would go past it.
        visibility: match wire::service::Visibility::try_from(message.visibility) {
            Ok(wire::service::Visibility::Namespace) => Visibility::Namespace,
            Ok(wire::service::Visibility::Public) | Err(_) => Visibility::Public,
        },
    })
}

/// The name of a service.
pub(super) fn service_key(message: &wire::Service, texts: &mut Texts) -> Result<ServiceKey, Flaw> {
    // A slash in the namespace would make two names of one.
    if message.namespace.is_empty() || message.namespace.contains('/') {
        return Err(Flaw::form("namespace", &message.namespace));
    }
    if message.hostname.is_empty() {
        return Err(Flaw::Empty("hostname"));
    }
    let namespace = texts.share(&message.namespace);
    Ok(ServiceKey { namespace, hostname: texts.share(&message.hostname) })
}

/// The addresses of a workload.
pub(super) fn addresses(message: &wire::Workload) -> impl Iterator<Item = Result<IpAddr, Flaw>> {
    let read = |bytes: &Vec<u8>| match ip(bytes) {
        Ok(ip) => Ok(ip.to_canonical()),
        Err(error) => Err(Flaw::Address("addresses", error)),
    };
    message.addresses.iter().map(read)
}

/// A virtual address: a whole one, or a range.
pub(super) fn vip(address: &wire::NetworkAddress, texts: &mut Texts) -> Result<Vip, Flaw> {
    let flaw = |error| Flaw::Address("addresses", error);
    let one = ip(&address.address).map_err(flaw)?;
    let network = texts.share(&address.network);
    let Some(length) = address.length else {
        return Ok(Vip::One(NetworkAddr { network, ip: one.to_canonical() }));
    };
    let net = range(&address.address, length).map_err(flaw)?;
    if net.prefix_len() == net.max_prefix_len() {
        return Ok(Vip::One(NetworkAddr { network, ip: one.to_canonical() }));
    }
    Ok(Vip::Range(network, net))
}

fn gateway(
    field: &'static str,
    message: Option<&wire::GatewayAddress>,
    texts: &mut Texts,
) -> Result<Option<GatewayRef>, Flaw> {
    use wire::gateway_address::Destination;
    let Some(message) = message else { return Ok(None) };
    let destination = match message.destination.as_ref().ok_or(Flaw::Gateway(field))? {
        Destination::Hostname(name) => GatewayAddress::Hostname(ServiceKey {
            namespace: texts.share(&name.namespace),
            hostname: texts.share(&name.hostname),
        }),
        Destination::Address(address) => {
            let ip = ip(&address.address).map_err(|error| Flaw::Address(field, error))?;
            let network = texts.share(&address.network);
            GatewayAddress::Address(NetworkAddr { network, ip: ip.to_canonical() })
        }
    };
    Ok(Some(GatewayRef { destination, hbone_mtls_port: port(field, message.hbone_mtls_port)? }))
}

fn application_tunnel(message: wire::ApplicationTunnel) -> Result<ApplicationTunnel, Flaw> {
    use wire::application_tunnel::Protocol;
    let protocol = match known("application_tunnel.protocol", message.protocol)? {
        Protocol::None => TunnelProtocol::None,
        Protocol::Proxy => TunnelProtocol::Proxy,
    };
    let port = port("application_tunnel.port", message.port)?;
    Ok(ApplicationTunnel { protocol, port: (port != 0).then_some(port) })
}

fn load_balancer(message: &wire::LoadBalancing) -> Result<LoadBalancer, Flaw> {
    use wire::load_balancing::{HealthPolicy as WireHealth, Mode, Scope};
    const SCOPE: &str = "load_balancing.routing_preference";
    let scopes = message.routing_preference.iter().map(|&scope| {
        Ok(match known(SCOPE, scope)? {
            Scope::UnspecifiedScope => return Err(Flaw::Unknown(SCOPE, scope)),
            Scope::Region => RoutingScope::Region,
            Scope::Zone => RoutingScope::Zone,
            Scope::Subzone => RoutingScope::Subzone,
            Scope::Node => RoutingScope::Node,
            Scope::Cluster => RoutingScope::Cluster,
            Scope::Network => RoutingScope::Network,
        })
    });
    Ok(LoadBalancer {
        routing_preferences: scopes.collect::<Result<_, _>>()?,
        mode: match known("load_balancing.mode", message.mode)? {
            Mode::UnspecifiedMode => LoadBalancerMode::Standard,
            Mode::Strict => LoadBalancerMode::Strict,
            Mode::Failover => LoadBalancerMode::Failover,
            Mode::Passthrough => LoadBalancerMode::Passthrough,
        },
        health_policy: match known("load_balancing.health_policy", message.health_policy)? {
            WireHealth::OnlyHealthy => HealthPolicy::OnlyHealthy,
            WireHealth::AllowAll => HealthPolicy::AllowAll,
        },
    })
}

/// The later of two entries for one port goes before the earlier (spec xds 8.3).
fn ports(field: &'static str, list: &[wire::Port]) -> Result<PortMap, Flaw> {
    let of = |entry: &wire::Port| {
        Ok((port(field, entry.service_port)?, port(field, entry.target_port)?))
    };
    list.iter().map(of).collect()
}

fn policies(names: &[String], texts: &mut Texts) -> Result<Vec<PolicyKey>, Flaw> {
    let key = |name: &String| {
        let key = split(name, texts).ok_or_else(|| Flaw::form("authorization_policies", name))?;
        Ok(PolicyKey { namespace: key.namespace, name: key.hostname })
    };
    names.iter().map(key).collect()
}

/// `<namespace>/<name>`, neither of them empty.
fn split(text: &str, texts: &mut Texts) -> Option<ServiceKey> {
    let (namespace, name) = text.split_once('/')?;
    let whole = !namespace.is_empty() && !name.is_empty();
    whole.then(|| ServiceKey { namespace: texts.share(namespace), hostname: texts.share(name) })
}

pub(super) fn port(field: &'static str, number: u32) -> Result<u16, Flaw> {
    u16::try_from(number).map_err(|_| Flaw::Port(field, number))
}

/// One of the numbers that we know.
pub(super) fn known<T: TryFrom<i32>>(field: &'static str, value: i32) -> Result<T, Flaw> {
    T::try_from(value).map_err(|_| Flaw::Unknown(field, value))
}

/// For telemetry only, so that one that is not known is like the most common (spec xds 8.3).
fn workload_type(value: i32) -> &'static str {
    match wire::WorkloadType::try_from(value) {
        Ok(wire::WorkloadType::Cronjob) => "cronjob",
        Ok(wire::WorkloadType::Pod) => "pod",
        Ok(wire::WorkloadType::Job) => "job",
        Ok(wire::WorkloadType::Deployment) | Err(_) => "deployment",
    }
}
