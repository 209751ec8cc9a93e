//! Policies in the config dump.

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::model::{Action, Group, Match, Policy, Scope, ServiceAccountRef, Snapshot, StringMatch};

/// All policies, sorted by namespace and name.
pub(super) struct Policies<'a>(pub(super) &'a Snapshot);

impl Serialize for Policies<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sorted: Vec<_> = self.0.policies().collect();
        sorted.sort_by_key(|policy| &policy.key);
        serializer.collect_seq(sorted.into_iter().map(|p| PolicyView::of(p)))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyView<'a> {
    name: &'a str,
    namespace: &'a str,
    scope: &'static str,
    action: &'static str,
    rules: Vec<Vec<Vec<MatchView<'a>>>>,
    dry_run: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MatchView<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    namespaces: Vec<TextView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_namespaces: Vec<TextView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service_accounts: Vec<AccountView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_service_accounts: Vec<AccountView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    principals: Vec<TextView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_principals: Vec<TextView<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    source_ips: &'a [IpNet],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    not_source_ips: &'a [IpNet],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    destination_ips: &'a [IpNet],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    not_destination_ips: &'a [IpNet],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    destination_ports: &'a [u16],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    not_destination_ports: &'a [u16],
}

#[derive(Serialize)]
enum TextView<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Suffix(&'a str),
    Presence([(); 0]),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AccountView<'a> {
    namespace: &'a str,
    service_account: &'a str,
}

impl<'a> PolicyView<'a> {
    fn of(p: &'a Policy) -> Self {
        let group = |group: &'a Group| {
            let rules = group.iter().map(|rule| rule.iter().map(MatchView::of).collect());
            rules.collect()
        };
        Self {
            name: &p.key.name,
            namespace: &p.key.namespace,
            scope: match p.scope {
                Scope::Global => "Global",
                Scope::Namespace => "Namespace",
                Scope::WorkloadSelector => "WorkloadSelector",
            },
            action: match p.action {
                Action::Allow => "Allow",
                Action::Deny => "Deny",
            },
            rules: p.groups.iter().map(group).collect(),
            dry_run: p.dry_run,
        }
    }
}

impl<'a> MatchView<'a> {
    fn of(m: &'a Match) -> Self {
        let texts = |texts: &'a [StringMatch]| texts.iter().map(TextView::of).collect();
        let accounts = |accounts: &'a [ServiceAccountRef]| {
            let views = accounts.iter().map(|account| AccountView {
                namespace: &account.namespace,
                service_account: &account.service_account,
            });
            views.collect()
        };
        Self {
            namespaces: texts(&m.namespaces),
            not_namespaces: texts(&m.not_namespaces),
            service_accounts: accounts(&m.service_accounts),
            not_service_accounts: accounts(&m.not_service_accounts),
            principals: texts(&m.principals),
            not_principals: texts(&m.not_principals),
            source_ips: &m.source_ips,
            not_source_ips: &m.not_source_ips,
            destination_ips: &m.destination_ips,
            not_destination_ips: &m.not_destination_ips,
            destination_ports: &m.destination_ports,
            not_destination_ports: &m.not_destination_ports,
        }
    }
}

impl<'a> TextView<'a> {
    fn of(text: &'a StringMatch) -> Self {
        match text {
            StringMatch::Exact(text) => Self::Exact(text),
            StringMatch::Prefix(text) => Self::Prefix(text),
            StringMatch::Suffix(text) => Self::Suffix(text),
            StringMatch::Presence => Self::Presence([]),
        }
    }
}
