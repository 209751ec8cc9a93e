//! What one resource may have at most: whatever it says, a decision stays cheap (promise C5).

use super::Flaw;
use crate::wire::xds::{security, workload};

/// Values, matches and rules of one policy: each may be looked at for every connection. An object
/// of Kubernetes, which has at most 1.5 MiB, seldom has more.
const CONDITIONS_MAX: usize = 16_384;
/// Services that one workload is an endpoint of, and policies that it names.
const NAMED_MAX: usize = 4_096;
/// Addresses of one workload or service.
const ADDRESSES_MAX: usize = 4_096;
/// Ports of one service, or of one workload in it.
const PORTS_MAX: usize = 65_536;

pub(super) fn workload(message: &workload::Workload) -> Result<(), Flaw> {
    within("addresses", message.addresses.len(), ADDRESSES_MAX)?;
    within("services", message.services.len(), NAMED_MAX)?;
    within("authorization_policies", message.authorization_policies.len(), NAMED_MAX)?;
    let ports = message.services.values().map(|list| list.ports.len()).sum();
    within("services", ports, PORTS_MAX)
}

pub(super) fn service(message: &workload::Service) -> Result<(), Flaw> {
    within("addresses", message.addresses.len(), ADDRESSES_MAX)?;
    within("weighted_waypoints", message.weighted_waypoints.len(), NAMED_MAX)?;
    within("ports", message.ports.len(), PORTS_MAX)
}

pub(super) fn policy(message: &security::Authorization) -> Result<(), Flaw> {
    let of_match = |m: &security::Match| {
        1 + m.namespaces.len()
            + m.not_namespaces.len()
            + m.service_accounts.len()
            + m.not_service_accounts.len()
            + m.principals.len()
            + m.not_principals.len()
            + m.source_ips.len()
            + m.not_source_ips.len()
            + m.destination_ips.len()
            + m.not_destination_ips.len()
            + m.destination_ports.len()
            + m.not_destination_ports.len()
    };
    let rules = message.groups.iter().flat_map(|group| &group.rules);
    let of_rule = |rule: &security::Rules| 1 + rule.matches.iter().map(of_match).sum::<usize>();
    within("groups", message.groups.len() + rules.map(of_rule).sum::<usize>(), CONDITIONS_MAX)
}

fn within(field: &'static str, count: usize, limit: usize) -> Result<(), Flaw> {
    if count > limit { Err(Flaw::Large(field, count, limit)) } else { Ok(()) }
}
