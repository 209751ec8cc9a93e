//! Is it allowed (spec policy 2 to 4)? The only maker of [`Permit`].

use std::sync::Arc;

use super::{Client, Facts};
use crate::model::{
    Action, Match, Policy, PolicyKey, Rule, Scope, ServiceAccountRef, Snapshot, StringMatch,
    Workload,
};
use crate::wire::spiffe::Identity;

/// The right to open a leg towards an application, and the generation it was decided on.
///
/// Its field is private to this file: no other code can make one.
#[derive(Debug)]
pub struct Permit {
    generation: u64,
}

impl Permit {
    /// The generation of the snapshot it was decided on.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// The answer, and what policies in dry-run would have done.
#[derive(Debug)]
pub struct Verdict {
    /// The decision.
    pub outcome: Result<Permit, Denial>,
    /// What policies in dry-run would have changed; for the log only.
    pub dry_run: Vec<DryRunFinding>,
}

/// Why it is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The workload the connection is for is not known any more.
    WorkloadUnknown,
    /// A DENY policy matched.
    Denied(PolicyKey),
    /// There are ALLOW policies and none matched.
    NoneAllowed,
    /// The workload names a policy that has not arrived (promise S2).
    PolicyUnknown(PolicyKey),
}

/// What one policy in dry-run would have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DryRunFinding {
    /// This DENY policy matched.
    WouldDeny(Arc<PolicyKey>),
    /// This ALLOW policy matched.
    WouldAllow(Arc<PolicyKey>),
    /// There are ALLOW policies in dry-run, none matched, and no enforced one exists.
    WouldDenyByDefault,
}

/// Decides one connection against one snapshot, in the order of spec policy 3.
///
/// Only the policies that apply are looked at, so the cost does not grow with those that do not. A
/// known DENY that matches is reported before a name that is not known: nothing that may still
/// arrive can change that answer.
pub fn authorize(snapshot: &Snapshot, facts: &Facts) -> Verdict {
    let mut dry_run = Vec::new();
    let outcome = decide(snapshot, facts, &mut dry_run);
    let generation = snapshot.generation();
    Verdict { outcome: outcome.map(|()| Permit { generation }), dry_run }
}

fn decide(
    snapshot: &Snapshot,
    facts: &Facts,
    dry_run: &mut Vec<DryRunFinding>,
) -> Result<(), Denial> {
    let workload = snapshot.workload(&facts.workload_uid).ok_or(Denial::WorkloadUnknown)?;
    let peer = Peer::new(facts);
    let (mut denied, mut allowed) = (None, false);
    let (mut allow_exists, mut dry_allow_exists) = (false, false);
    let mut dry_allow = Vec::new();
    for policy in applicable(snapshot, workload) {
        match (policy.action, policy.dry_run) {
            (Action::Deny, false) => {
                if denied.is_none() && peer.matches(policy) {
                    denied = Some(policy.key.clone());
                }
            }
            (Action::Deny, true) => {
                if peer.matches(policy) {
                    dry_run.push(DryRunFinding::WouldDeny(Arc::new(policy.key.clone())));
                }
            }
            (Action::Allow, false) => {
                allow_exists = true;
                allowed = allowed || peer.matches(policy);
            }
            (Action::Allow, true) => {
                dry_allow_exists = true;
                if peer.matches(policy) {
                    dry_allow.push(DryRunFinding::WouldAllow(Arc::new(policy.key.clone())));
                }
            }
        }
    }
    if let Some(key) = denied {
        return Err(Denial::Denied(key));
    }
    refuse_unknown(snapshot, workload, &peer)?;
    let dry_allowed = !dry_allow.is_empty();
    dry_run.append(&mut dry_allow);
    if allowed {
        return Ok(());
    }
    if allow_exists {
        return Err(Denial::NoneAllowed);
    }
    if dry_allow_exists && !dry_allowed {
        dry_run.push(DryRunFinding::WouldDenyByDefault);
    }
    Ok(())
}

/// The enforced ALLOW policies that apply to a workload: what [`Denial::NoneAllowed`] is about.
pub fn allow_policies<'a>(
    snapshot: &'a Snapshot,
    workload_uid: &Arc<str>,
) -> impl Iterator<Item = &'a PolicyKey> {
    let workload = snapshot.workload(workload_uid);
    let policies = workload.into_iter().flat_map(|workload| applicable(snapshot, workload));
    let enforced = policies.filter(|policy| policy.action == Action::Allow && !policy.dry_run);
    enforced.map(|policy| &policy.key)
}

/// The policies of spec policy 2, each once.
fn applicable<'a>(
    snapshot: &'a Snapshot,
    workload: &'a Workload,
) -> impl Iterator<Item = &'a Arc<Policy>> {
    let by_scope = |policy: &Policy| match policy.scope {
        Scope::Global => true,
        Scope::Namespace => policy.key.namespace == workload.namespace,
        Scope::WorkloadSelector => false,
    };
    let named = workload.authorization_policies.iter().filter_map(|key| snapshot.policy(key));
    let of_namespace = snapshot.policies_of_namespace(&workload.namespace).iter();
    let global = snapshot.policies_global().iter();
    global.chain(of_namespace).chain(named.filter(move |policy| !by_scope(policy)))
}

/// Refuses if the workload names a policy that has not arrived (promise S2).
///
/// A missing policy made from a PeerAuthentication acts as the strict one: some are named and never
/// sent, and all that can be sent deny nothing but plain text (spec policy 6).
fn refuse_unknown(snapshot: &Snapshot, workload: &Workload, peer: &Peer<'_>) -> Result<(), Denial> {
    let missing = || {
        let names = workload.authorization_policies.iter();
        names.filter(|key| snapshot.policy(key).is_none())
    };
    // Plain text that a converted policy refuses is refused whatever else is missing, so the answer
    // does not depend on the order of the names.
    let mut unknown = None;
    for key in missing() {
        if !is_converted_peer_authentication(workload, key) {
            unknown = unknown.or(Some(key));
        } else if peer.identity.is_none() {
            return Err(Denial::Denied(key.clone()));
        }
    }
    unknown.map_or(Ok(()), |key| Err(Denial::PolicyUnknown(key.clone())))
}

/// Whether the control plane makes policies of this name from PeerAuthentications. A user cannot:
/// no Kubernetes object has an underscore in its name.
fn is_converted_peer_authentication(workload: &Workload, key: &PolicyKey) -> bool {
    let own = key.namespace == workload.namespace;
    own && key.name.starts_with("converted_peer_authentication_")
        || &*key.name == "istio_converted_static_strict"
}

/// What policies are compared with.
struct Peer<'a> {
    facts: &'a Facts,
    identity: Option<&'a Identity>,
    /// The identity as policies write it, made once.
    principal: Option<String>,
}

impl<'a> Peer<'a> {
    fn new(facts: &'a Facts) -> Self {
        let identity = match &facts.client {
            Client::Verified(peer) => Some(peer.identity()),
            Client::Plaintext => None,
        };
        Self { facts, identity, principal: identity.map(Identity::principal) }
    }

    fn matches(&self, policy: &Policy) -> bool {
        policy.groups.iter().any(|group| group.iter().all(|rule| self.satisfies(rule)))
    }

    fn satisfies(&self, rule: &Rule) -> bool {
        rule.is_empty() || rule.iter().any(|entry| !entry.is_empty() && self.fits(entry))
    }

    /// Whether every field holds: one of each positive list, none of each negative one.
    fn fits(&self, m: &Match) -> bool {
        let source = self.facts.source_ip.to_canonical();
        let destination = self.facts.destination.ip().to_canonical();
        let port = self.facts.destination.port();
        field(&m.destination_ports, &m.not_destination_ports, |p| *p == port)
            && field(&m.source_ips, &m.not_source_ips, |net| net.contains(&source))
            && field(&m.destination_ips, &m.not_destination_ips, |net| net.contains(&destination))
            && field(&m.namespaces, &m.not_namespaces, |s| self.in_namespace(s))
            && field(&m.service_accounts, &m.not_service_accounts, |s| self.is_account(s))
            && field(&m.principals, &m.not_principals, |s| self.is_principal(s))
    }

    /// Without an identity the namespace is the empty text (spec policy 4).
    fn in_namespace(&self, namespace: &StringMatch) -> bool {
        namespace.matches(self.identity.map_or("", Identity::namespace))
    }

    fn is_account(&self, account: &ServiceAccountRef) -> bool {
        self.identity.is_some_and(|identity| {
            identity.namespace() == &*account.namespace
                && identity.service_account() == &*account.service_account
        })
    }

    fn is_principal(&self, principal: &StringMatch) -> bool {
        self.principal.as_deref().is_some_and(|text| principal.matches(text))
    }
}

/// Whether a pair of lists of one kind holds. An empty list is no condition.
fn field<T>(positive: &[T], negative: &[T], holds: impl Fn(&T) -> bool) -> bool {
    (positive.is_empty() || positive.iter().any(&holds)) && !negative.iter().any(&holds)
}

#[cfg(test)]
mod tests;
