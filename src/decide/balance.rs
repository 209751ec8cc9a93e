//! Which endpoint of a service (spec discovery-and-balancing 4).

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{
    Endpoint, Health, LoadBalancer, LoadBalancerMode, RoutingScope, Service, Snapshot, Workload,
};

/// What an endpoint is picked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A connection to the service itself.
    Service,
    /// To be the waypoint of another destination: a pod with an application tunnel takes any port.
    Waypoint,
    /// To be the gateway of another network, in which it may itself be.
    Gateway,
}

/// The endpoint picked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picked<'a> {
    pub(super) workload: &'a Arc<Workload>,
    pub(super) port: u16,
}

/// Picks endpoints for the connections of one source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Balancer<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) source: &'a Workload,
}

impl<'a> Balancer<'a> {
    /// One endpoint for `port` of the service: of the best rank that its mode allows, at random by
    /// capacity. Every connection is independent.
    ///
    /// An endpoint of capacity 0 is never picked, so it does not keep a lower rank from being used.
    pub(super) fn pick(
        &self,
        service: &Service,
        port: u16,
        purpose: Purpose,
        rng: &mut fastrand::Rng,
    ) -> Option<Picked<'a>> {
        if purpose != Purpose::Waypoint && !service.ports.contains_key(&port) {
            return None;
        }
        let mut chosen = None;
        let (mut rank_best, mut capacity) = (0, 0_u64);
        // One pass: the last of those seen so far replaces the chosen one with the probability that
        // its share of their capacity has.
        for endpoint in self.snapshot.endpoints(&service.key) {
            let Some(picked) = self.candidate(service, endpoint, port, purpose) else { continue };
            let Some(rank) = rank(service.load_balancer.as_ref(), self.source, picked.workload)
            else {
                continue;
            };
            let own = u64::from(picked.workload.capacity);
            if own == 0 || rank < rank_best {
                continue;
            }
            if rank > rank_best {
                (rank_best, capacity) = (rank, 0);
            }
            capacity += own;
            if rng.u64(..capacity) < own {
                chosen = Some(picked);
            }
        }
        chosen
    }

    /// The endpoint if it may be picked at all (spec discovery-and-balancing 4.1, 4.2).
    fn candidate(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        port: u16,
        purpose: Purpose,
    ) -> Option<Picked<'a>> {
        if endpoint.status == Health::Unhealthy && !service.allows_unhealthy() {
            return None;
        }
        let workload = self.snapshot.workload(&endpoint.workload_uid)?;
        let remote = workload.network != self.source.network;
        let behind_gateway = remote && workload.network_gateway.is_some();
        let unreachable = remote && !behind_gateway && purpose != Purpose::Gateway;
        let nameless = workload.ips.is_empty() && workload.hostname.is_empty();
        if unreachable || (nameless && !behind_gateway) {
            return None;
        }
        let port = target_port(service, endpoint, workload, port)?;
        Some(Picked { workload, port })
    }
}

/// The port on the endpoint (spec discovery-and-balancing 4.5). A target of 0 is a named port that
/// the endpoint does not have.
fn target_port(
    service: &Service,
    endpoint: &Endpoint,
    workload: &Workload,
    port: u16,
) -> Option<u16> {
    let declared = |ports: &crate::model::PortMap| ports.get(&port).copied().filter(|p| *p != 0);
    let tunnelled = || workload.application_tunnel.and_then(|tunnel| tunnel.port).map(|_| port);
    declared(&endpoint.ports).or_else(|| declared(&service.ports)).or_else(tunnelled)
}

/// How well an endpoint matches the preferences; `None` if it may not be used (spec
/// discovery-and-balancing 4.3).
///
/// A service that is not balanced is found by name only as a waypoint or gateway, and is then
/// balanced like one that fails over.
fn rank(policy: Option<&LoadBalancer>, source: &Workload, endpoint: &Workload) -> Option<usize> {
    let Some(policy) = policy else { return Some(0) };
    let scopes = &policy.routing_preferences;
    if policy.mode == LoadBalancerMode::Standard {
        return Some(0);
    }
    let network_first = scopes.first() == Some(&RoutingScope::Network);
    let mut matched = 0;
    for (index, scope) in scopes.iter().enumerate() {
        if same(*scope, source, endpoint) {
            matched += 1;
        } else if index > 0 || !network_first {
            break;
        }
    }
    if policy.mode == LoadBalancerMode::Strict && matched < scopes.len() {
        return None;
    }
    // Whatever else matches, our own network goes before any other.
    let own_network = network_first && same(RoutingScope::Network, source, endpoint);
    Some(if own_network { matched + scopes.len() - 1 } else { matched })
}

fn same(scope: RoutingScope, a: &Workload, b: &Workload) -> bool {
    match scope {
        RoutingScope::Region => a.locality.region == b.locality.region,
        RoutingScope::Zone => a.locality.zone == b.locality.zone,
        RoutingScope::Subzone => a.locality.subzone == b.locality.subzone,
        RoutingScope::Node => a.node == b.node,
        RoutingScope::Cluster => a.cluster_id == b.cluster_id,
        RoutingScope::Network => a.network == b.network,
    }
}

/// The address of a workload to connect to, for a connection that asked for `target` (spec
/// discovery-and-balancing 4.6).
pub(super) fn pick_ip(
    workload: &Workload,
    service: Option<&Service>,
    target: IpAddr,
) -> Option<IpAddr> {
    if workload.ips.contains(&target) {
        return Some(target);
    }
    let families = service.and_then(|service| service.ip_families);
    let usable = || {
        let ips = workload.ips.iter().copied();
        ips.filter(move |ip| families.is_none_or(|families| families.accepts(*ip)))
    };
    usable().find(|ip| ip.is_ipv4() == target.is_ipv4()).or_else(|| usable().next())
}

#[cfg(test)]
mod tests;
