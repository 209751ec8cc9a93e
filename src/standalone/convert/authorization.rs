//! `AuthorizationPolicy` to its L4 form (spec policy 5).

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{DEFAULT_TRUST_DOMAIN, ROOT_NAMESPACE};
use crate::standalone::manifest::{
    AuthorizationPolicy, Condition, Note, Notes, Operation, PolicyAction, RuleSpec, Source,
};
use crate::wire::xds::ip_bytes;
use crate::wire::xds::security::{
    Action, Address, Authorization, Group, Match, Rules, Scope, ServiceAccountMatch, StringMatch,
    string_match::MatchType,
};

const KIND: &str = "AuthorizationPolicy";
const DRY_RUN: &str = "istio.io/dry-run";

/// The L4 form, if a node proxy enforces the policy at all. `notes` gets a line for each part that
/// cannot apply.
pub(super) fn convert(
    policy: &AuthorizationPolicy,
    trust_domain: &str,
    notes: &mut Notes,
) -> Option<Authorization> {
    let mut conversion = Conversion { policy, trust_domain, notes };
    let action = conversion.action()?;
    let dry_run = policy.meta.annotation(DRY_RUN) == Some("true");
    if dry_run {
        let text = "served as a dry run; istiod serves it only with \
                    AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY=true";
        conversion.note(format!("metadata.annotations.{DRY_RUN}"), text);
    }
    let scope = match &policy.selector {
        Some(labels) => {
            if labels.is_empty() {
                let text = "it selects nothing, as with istiod: the policy applies to no workload";
                conversion.note("spec.selector", text);
            }
            Scope::WorkloadSelector
        }
        None if &*policy.meta.namespace == ROOT_NAMESPACE => Scope::Global,
        None => Scope::Namespace,
    };
    let rules = policy.rules.iter().enumerate();
    let groups: Vec<Group> = rules.filter_map(|(at, rule)| conversion.group(at, rule)).collect();
    Some(Authorization {
        name: policy.meta.name.to_string(),
        namespace: policy.meta.namespace.to_string(),
        scope: scope.into(),
        action: action.into(),
        groups,
        dry_run,
        extensions: Vec::new(),
    })
}

struct Conversion<'a> {
    policy: &'a AuthorizationPolicy,
    trust_domain: &'a str,
    notes: &'a mut Notes,
}

/// A list of which some values could not be understood.
struct Values<T> {
    list: Vec<T>,
    lost: bool,
}

impl Conversion<'_> {
    fn action(&mut self) -> Option<Action> {
        let (field, text) = match self.policy.action {
            _ if self.policy.targeted => (
                "spec.targetRefs",
                "not served: it is enforced by the waypoint or gateway it names",
            ),
            PolicyAction::Allow => return Some(Action::Allow),
            PolicyAction::Deny => return Some(Action::Deny),
            PolicyAction::Audit => ("spec.action", "not served: AUDIT does not exist at L4"),
            PolicyAction::Custom => {
                let text = "not served: CUSTOM needs a waypoint; nothing asks the provider";
                ("spec.action", text)
            }
        };
        self.note(field, text);
        None
    }

    fn group(&mut self, at: usize, rule: &RuleSpec) -> Option<Group> {
        let l7 = l7_attributes(rule);
        if !l7.is_empty() && self.policy.action == PolicyAction::Allow {
            let text = format!(
                "{} cannot be decided at L4: as with istiod the whole rule is dropped, so it \
                 allows nothing; bind the policy to a waypoint with targetRefs to use it",
                l7.join(", ")
            );
            self.note(format!("spec.rules[{at}]"), text);
            return None;
        }
        let mut rules = Vec::new();
        let path = format!("spec.rules[{at}]");
        if let Some(to) = &rule.to {
            let matches = to.iter().enumerate();
            let matches = matches.map(|(n, to)| self.operation(&format!("{path}.to[{n}]"), to));
            rules.push(Rules { matches: matches.collect() });
        }
        if let Some(from) = &rule.from {
            let matches = from.iter().enumerate();
            let matches = matches.map(|(n, from)| self.source(&format!("{path}.from[{n}]"), from));
            rules.push(Rules { matches: matches.collect() });
        }
        for (n, when) in rule.when.iter().enumerate() {
            let entry = self.condition(&format!("{path}.when[{n}]"), when);
            rules.push(Rules { matches: vec![entry] });
        }
        if !l7.is_empty() {
            let never = |rules: &Rules| rules.matches.iter().all(|m| *m == Match::default());
            let consequence = if rules.iter().any(never) {
                "as with istiod the rule never matches: it denies nothing here"
            } else {
                "as with istiod the rest of the rule denies alone, whatever they are"
            };
            let text = format!("{} cannot be decided at L4: {consequence}", l7.join(", "));
            self.note(path, text);
        }
        Some(Group { rules })
    }

    fn operation(&mut self, path: &str, to: &Operation) -> Match {
        let path = format!("{path}.operation");
        let ports = self.ports(&format!("{path}.ports"), &to.ports);
        let not_ports = self.ports(&format!("{path}.notPorts"), &to.not_ports);
        let (never, lost) = (ports.never(&to.ports), not_ports.lost);
        let entry = Match {
            destination_ports: ports.list,
            not_destination_ports: not_ports.list,
            ..Match::default()
        };
        self.safe(entry, never, lost)
    }

    fn source(&mut self, path: &str, from: &Source) -> Match {
        let path = format!("{path}.source");
        let ips = self.ranges(&format!("{path}.ipBlocks"), &from.ip_blocks);
        let not_ips = self.ranges(&format!("{path}.notIpBlocks"), &from.not_ip_blocks);
        let (never, lost) = (ips.never(&from.ip_blocks), not_ips.lost);
        let entry = Match {
            namespaces: strings(&from.namespaces),
            not_namespaces: strings(&from.not_namespaces),
            service_accounts: self.accounts(&from.service_accounts),
            not_service_accounts: self.accounts(&from.not_service_accounts),
            principals: self.principals(&format!("{path}.principals"), &from.principals),
            not_principals: self.principals(&format!("{path}.notPrincipals"), &from.not_principals),
            source_ips: ips.list,
            not_source_ips: not_ips.list,
            ..Match::default()
        };
        self.safe(entry, never, lost)
    }

    fn condition(&mut self, path: &str, when: &Condition) -> Match {
        let (values, not_values) = (&when.values, &when.not_values);
        let (path, not_path) = (format!("{path}.values"), format!("{path}.notValues"));
        match &*when.key {
            "source.ip" | "destination.ip" => {
                let (ips, not) = (self.ranges(&path, values), self.ranges(&not_path, not_values));
                let (never, lost) = (ips.never(values), not.lost);
                let entry = if &*when.key == "source.ip" {
                    Match { source_ips: ips.list, not_source_ips: not.list, ..Match::default() }
                } else {
                    let (destination_ips, not_destination_ips) = (ips.list, not.list);
                    Match { destination_ips, not_destination_ips, ..Match::default() }
                };
                self.safe(entry, never, lost)
            }
            "destination.port" => {
                let operation = Operation {
                    ports: values.clone(),
                    not_ports: not_values.clone(),
                    l7: Vec::new(),
                };
                self.operation(&path, &operation)
            }
            "source.namespace" => Match {
                namespaces: strings(values),
                not_namespaces: strings(not_values),
                ..Match::default()
            },
            "source.principal" => Match {
                principals: self.principals(&path, values),
                not_principals: self.principals(&not_path, not_values),
                ..Match::default()
            },
            _ => Match::default(),
        }
    }

    /// `never`: a list has no value left that could be understood. `lost`: a negative list lost
    /// one. Where that would allow more than was written, the match never holds instead.
    fn safe(&self, entry: Match, never: bool, lost: bool) -> Match {
        let allow = self.policy.action == PolicyAction::Allow;
        if allow && (never || lost) { Match::default() } else { entry }
    }

    fn ports(&mut self, path: &str, texts: &[Arc<str>]) -> Values<u32> {
        let port = |text: &str| text.parse::<u16>().ok().map(u32::from);
        self.values(path, texts, ("a port", port))
    }

    fn ranges(&mut self, path: &str, texts: &[Arc<str>]) -> Values<Address> {
        let range = |text: &str| {
            let alone = || text.parse().ok().map(|ip: IpAddr| IpNet::from(ip));
            let range: IpNet = text.parse().ok().or_else(alone)?;
            let (address, length) = (ip_bytes(range.addr()), range.prefix_len().into());
            Some(Address { address, length })
        };
        self.values(path, texts, ("an address or a range", range))
    }

    fn values<T>(
        &mut self,
        path: &str,
        texts: &[Arc<str>],
        (what, parse): (&str, impl Fn(&str) -> Option<T>),
    ) -> Values<T> {
        let mut values = Values { list: Vec::new(), lost: false };
        for text in texts {
            if let Some(value) = parse(text) {
                values.list.push(value);
                continue;
            }
            values.lost = true;
            let text = format!("{text:?} is not {what}: it matches nothing, and never allows");
            self.note(path, text);
        }
        values
    }

    fn principals(&mut self, path: &str, texts: &[Arc<str>]) -> Vec<StringMatch> {
        let default = format!("{DEFAULT_TRUST_DOMAIN}/");
        for text in texts {
            if text.starts_with("spiffe://") {
                let text = format!("{text:?} never matches: a principal has no scheme");
                self.note(path, text);
            } else if text.starts_with(&default) && self.trust_domain != DEFAULT_TRUST_DOMAIN {
                let trust_domain = self.trust_domain;
                let text = format!("{text:?} never matches: the trust domain is {trust_domain}");
                self.note(path, text);
            }
        }
        strings(texts)
    }

    /// `namespace/account`; an account alone is one of the policy's namespace.
    fn accounts(&self, texts: &[Arc<str>]) -> Vec<ServiceAccountMatch> {
        let account = |text: &Arc<str>| {
            let home = &*self.policy.meta.namespace;
            let (namespace, account) = text.split_once('/').unwrap_or((home, text));
            ServiceAccountMatch {
                namespace: namespace.to_owned(),
                service_account: account.to_owned(),
            }
        };
        texts.iter().map(account).collect()
    }

    fn note(&mut self, field: impl Display, text: impl Into<String>) {
        self.notes.push(Note::about(KIND, &self.policy.meta, field.to_string(), text));
    }
}

impl<T> Values<T> {
    /// Whether something was asked for and nothing is left of it.
    fn never(&self, written: &[Arc<str>]) -> bool {
        self.list.is_empty() && !written.is_empty()
    }
}

/// What a rule asks that only HTTP or TLS could answer.
fn l7_attributes(rule: &RuleSpec) -> Vec<&str> {
    const L4_KEYS: &[&str] = &[
        "source.ip",
        "source.namespace",
        "source.principal",
        "destination.ip",
        "destination.port",
    ];
    let mut found: Vec<&str> = Vec::new();
    found.extend(rule.to.iter().flatten().flat_map(|to| to.l7.iter().copied()));
    found.extend(rule.from.iter().flatten().flat_map(|from| from.l7.iter().copied()));
    let keys = rule.when.iter().map(|when| &*when.key);
    found.extend(keys.filter(|key| !L4_KEYS.contains(key)));
    found
}

/// `*` is presence, `*text` a suffix, `text*` a prefix; anything else is exact.
fn strings(texts: &[Arc<str>]) -> Vec<StringMatch> {
    let one = |text: &Arc<str>| {
        let kind = if &**text == "*" {
            MatchType::Presence(())
        } else if let Some(suffix) = text.strip_prefix('*') {
            MatchType::Suffix(suffix.to_owned())
        } else if let Some(prefix) = text.strip_suffix('*') {
            MatchType::Prefix(prefix.to_owned())
        } else {
            MatchType::Exact(text.to_string())
        };
        StringMatch { match_type: Some(kind) }
    };
    texts.iter().map(one).collect()
}
