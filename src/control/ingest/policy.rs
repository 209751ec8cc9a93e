//! Policies (spec xds 8.4).
//!
//! A condition that cannot be understood is never left out: without it an ALLOW would allow more,
//! and a DENY that has nothing else would deny nothing.

use ipnet::IpNet;

use super::address::{known, port};
use super::{Flaw, Texts, size};
use crate::model::{Action, Match, Policy, PolicyKey, Scope, ServiceAccountRef, StringMatch};
use crate::wire::xds::{range, security as wire};

/// A policy. `whole` says that the message has no fields which we do not know.
pub(super) fn policy(
    name: &str,
    message: &wire::Authorization,
    whole: bool,
    texts: &mut Texts,
) -> Result<Policy, Flaw> {
    // A slash in the namespace would make two names of one.
    if message.namespace.is_empty() || message.namespace.contains('/') {
        return Err(Flaw::form("namespace", &message.namespace));
    }
    let key = PolicyKey {
        namespace: texts.share(&message.namespace),
        name: message.name.as_str().into(),
    };
    let own = key.to_string();
    if own != name {
        return Err(Flaw::name(&own));
    }
    size::policy(message)?;
    let group = |group: &wire::Group| {
        let rules = group.rules.iter();
        rules.map(|rules| rules.matches.iter().map(read_match).collect()).collect()
    };
    let policy = Policy {
        key,
        scope: scope(message)?,
        action: action(message)?,
        groups: message.groups.iter().map(group).collect::<Result<Vec<_>, Flaw>>()?,
        dry_run: message.dry_run,
    };
    if !whole && !bears_unknown_conditions(&policy) {
        return Err(Flaw::UnknownFields);
    }
    Ok(policy)
}

/// What it applies to.
pub(super) fn scope(message: &wire::Authorization) -> Result<Scope, Flaw> {
    Ok(match known("scope", message.scope)? {
        wire::Scope::Global => Scope::Global,
        wire::Scope::Namespace => Scope::Namespace,
        wire::Scope::WorkloadSelector => Scope::WorkloadSelector,
    })
}

/// What a match means.
pub(super) fn action(message: &wire::Authorization) -> Result<Action, Flaw> {
    Ok(match known("action", message.action)? {
        wire::Action::Allow => Action::Allow,
        wire::Action::Deny => Action::Deny,
    })
}

/// Whether conditions that are not known can be left out without anything being let in: a DENY
/// denies more without them, as long as something is left of each match.
fn bears_unknown_conditions(policy: &Policy) -> bool {
    let mut matches = policy.groups.iter().flatten().flatten();
    policy.action == Action::Deny && !matches.any(Match::is_empty)
}

fn read_match(message: &wire::Match) -> Result<Match, Flaw> {
    Ok(Match {
        namespaces: texts("namespaces", &message.namespaces)?,
        not_namespaces: texts("not_namespaces", &message.not_namespaces)?,
        service_accounts: accounts("service_accounts", &message.service_accounts)?,
        not_service_accounts: accounts("not_service_accounts", &message.not_service_accounts)?,
        principals: texts("principals", &message.principals)?,
        not_principals: texts("not_principals", &message.not_principals)?,
        source_ips: nets("source_ips", &message.source_ips)?,
        not_source_ips: nets("not_source_ips", &message.not_source_ips)?,
        destination_ips: nets("destination_ips", &message.destination_ips)?,
        not_destination_ips: nets("not_destination_ips", &message.not_destination_ips)?,
        destination_ports: ports("destination_ports", &message.destination_ports)?,
        not_destination_ports: ports("not_destination_ports", &message.not_destination_ports)?,
    })
}

fn texts(field: &'static str, list: &[wire::StringMatch]) -> Result<Vec<StringMatch>, Flaw> {
    use wire::string_match::MatchType;
    let read = |text: &wire::StringMatch| {
        let (text, kind): (_, fn(_) -> _) = match text.match_type.as_ref() {
            None => return Err(Flaw::Empty(field)),
            Some(MatchType::Presence(())) => return Ok(StringMatch::Presence),
            Some(MatchType::Exact(text)) => (text, StringMatch::Exact),
            Some(MatchType::Prefix(text)) => (text, StringMatch::Prefix),
            Some(MatchType::Suffix(text)) => (text, StringMatch::Suffix),
        };
        // Everything begins and ends with nothing.
        if text.is_empty() {
            return Err(Flaw::Empty(field));
        }
        Ok(kind(text.as_str().into()))
    };
    list.iter().map(read).collect()
}

fn accounts(
    field: &'static str,
    list: &[wire::ServiceAccountMatch],
) -> Result<Vec<ServiceAccountRef>, Flaw> {
    let read = |account: &wire::ServiceAccountMatch| {
        if account.namespace.is_empty() || account.service_account.is_empty() {
            return Err(Flaw::Empty(field));
        }
        let (namespace, service_account) =
            (account.namespace.as_str().into(), account.service_account.as_str().into());
        Ok(ServiceAccountRef { namespace, service_account })
    };
    list.iter().map(read).collect()
}

fn nets(field: &'static str, list: &[wire::Address]) -> Result<Vec<IpNet>, Flaw> {
    let read = |net: &wire::Address| range(&net.address, net.length);
    list.iter().map(|net| read(net).map_err(|error| Flaw::Address(field, error))).collect()
}

fn ports(field: &'static str, list: &[u32]) -> Result<Vec<u16>, Flaw> {
    list.iter().map(|&number| port(field, number)).collect()
}
