//! L4 authorization policies in the form the control plane sends (spec policy 4).
//!
//! A policy is `groups` (any) of `rules` (all) of `matches` (any) of fields (all).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// `<namespace>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    /// Namespace of the policy.
    pub namespace: Arc<str>,
    /// Name of the policy.
    pub name: Arc<str>,
}

impl PolicyKey {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What it is called.
    pub key: PolicyKey,
    /// What it applies to.
    pub scope: Scope,
    /// What a match means.
    pub action: Action,
    /// Any of these makes the policy match; none at all never does.
    pub groups: Vec<Group>,
    /// Only say what it would do.
    pub dry_run: bool,
}

/// What a policy applies to (spec policy 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every workload.
    Global,
    /// Every workload of its namespace.
    Namespace,
    /// The workloads that name it.
    WorkloadSelector,
}

/// What a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Allow; everything else is denied.
    Allow,
    /// Deny, whatever else allows it.
    Deny,
}

/// All of these must hold; an empty group holds.
pub type Group = Vec<Rule>;

/// Any of these must hold; an empty rule holds.
pub type Rule = Vec<Match>;

/// All non-empty fields must hold; a match with no field never does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Namespaces of the peer's identity.
    pub namespaces: Vec<StringMatch>,
    /// None of these.
    pub not_namespaces: Vec<StringMatch>,
    /// Service accounts of the peer's identity.
    pub service_accounts: Vec<ServiceAccountRef>,
    /// None of these.
    pub not_service_accounts: Vec<ServiceAccountRef>,
    /// The peer's identity without its scheme.
    pub principals: Vec<StringMatch>,
    /// None of these.
    pub not_principals: Vec<StringMatch>,
    /// Address of the TCP peer.
    pub source_ips: Vec<IpNet>,
    /// None of these.
    pub not_source_ips: Vec<IpNet>,
    /// Address the connection was accepted on.
    pub destination_ips: Vec<IpNet>,
    /// None of these.
    pub not_destination_ips: Vec<IpNet>,
    /// Port on the pod.
    pub destination_ports: Vec<u16>,
    /// None of these.
    pub not_destination_ports: Vec<u16>,
}

impl Match {
    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an address is in one of the ranges; families never mix.
    pub fn any_net(nets: &[IpNet], ip: IpAddr) -> bool {
        nets.iter().any(|net| net.contains(&ip))
    }
}

/// A namespace and a service account in it; the trust domain does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountRef {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
}

/// How a text is compared; always case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Begins with.
    Prefix(Arc<str>),
    /// Ends with.
    Suffix(Arc<str>),
    /// Not empty.
    Presence,
}

impl StringMatch {
    /// Whether `text` satisfies it.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == &**exact,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Suffix(suffix) => text.ends_with(&**suffix),
            Self::Presence => !text.is_empty(),
        }
    }
}
