//! Policies. A field of a policy that is not known is an error: it may have been meant to deny.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Meta;
use super::fields::{Fields, Item, Labels, Unread};

const UNKNOWN: &str = "not a field that is known here; in a policy that is an error";

/// An `AuthorizationPolicy`.
#[derive(Clone, Debug)]
pub(crate) struct AuthorizationPolicy {
    pub(crate) meta: Meta,
    pub(crate) selector: Option<Labels>,
    /// It has a `targetRef` or `targetRefs`.
    pub(crate) targeted: bool,
    pub(crate) action: PolicyAction,
    pub(crate) rules: Vec<RuleSpec>,
}

/// What a match of a policy means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PolicyAction {
    Allow,
    Deny,
    Audit,
    Custom,
}

/// One of `rules`. An absent part is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleSpec {
    pub(crate) from: Option<Vec<Source>>,
    pub(crate) to: Option<Vec<Operation>>,
    pub(crate) when: Vec<Condition>,
}

/// One of `from`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) principals: Vec<Arc<str>>,
    pub(crate) not_principals: Vec<Arc<str>>,
    pub(crate) namespaces: Vec<Arc<str>>,
    pub(crate) not_namespaces: Vec<Arc<str>>,
    pub(crate) service_accounts: Vec<Arc<str>>,
    pub(crate) not_service_accounts: Vec<Arc<str>>,
    pub(crate) ip_blocks: Vec<Arc<str>>,
    pub(crate) not_ip_blocks: Vec<Arc<str>>,
    /// Names of the attributes in it that only HTTP has.
    pub(crate) l7: Vec<&'static str>,
}

/// One of `to`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) ports: Vec<Arc<str>>,
    pub(crate) not_ports: Vec<Arc<str>>,
    /// Names of the attributes in it that only HTTP has.
    pub(crate) l7: Vec<&'static str>,
}

/// One of `when`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) key: Arc<str>,
    pub(crate) values: Vec<Arc<str>>,
    pub(crate) not_values: Vec<Arc<str>>,
}

/// A `PeerAuthentication`.
#[derive(Clone, Debug)]
pub(crate) struct PeerAuthentication {
    pub(crate) meta: Meta,
    pub(crate) selector: Option<Labels>,
    pub(crate) mode: Mode,
    /// By port of the pod.
    pub(crate) ports: BTreeMap<u16, Mode>,
}

/// What is asked of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As the parent says.
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}

const SOURCE_L7: &[&str] =
    &["remoteIpBlocks", "notRemoteIpBlocks", "requestPrincipals", "notRequestPrincipals"];
const OPERATION_L7: &[&str] = &["hosts", "notHosts", "methods", "notMethods", "paths", "notPaths"];

impl AuthorizationPolicy {
    pub(super) fn read(fields: &Fields<'_>, meta: Meta) -> Option<Self> {
        fields.skip(&["status"]);
        // No spec at all is an ALLOW without rules, which allows nothing.
        let spec = fields.map("spec");
        let spec = spec.as_ref();
        let action = match spec.and_then(|spec| spec.text("action")).as_deref() {
            None | Some("ALLOW") => PolicyAction::Allow,
            Some("DENY") => PolicyAction::Deny,
            Some("AUDIT") => PolicyAction::Audit,
            Some("CUSTOM") => PolicyAction::Custom,
            Some(other) => {
                let reason = format!("{other:?} is none of ALLOW, DENY, AUDIT and CUSTOM");
                spec?.problem("action", reason);
                return None;
            }
        };
        let targeted = spec.is_some_and(|spec| {
            // Both are asked for, or the other one would be unknown.
            ["targetRef", "targetRefs"].map(|name| spec.has(name)).contains(&true)
        });
        let rules = spec.map(|spec| spec.list("rules")).unwrap_or_default();
        let policy = Self {
            meta,
            selector: spec.and_then(selector),
            targeted,
            action,
            rules: rules.iter().filter_map(|rule| RuleSpec::read(&rule.map()?)).collect(),
        };
        if let Some(spec) = spec {
            if action == PolicyAction::Custom {
                spec.skip(&["provider"]);
            }
            spec.finish(Unread::Refuse(UNKNOWN));
        }
        Some(policy)
    }
}

/// `selector.matchLabels`; a selector without them is an empty one.
fn selector(spec: &Fields<'_>) -> Option<Labels> {
    let selector = spec.map("selector")?;
    let labels = selector.labels("matchLabels");
    selector.finish(Unread::Refuse(UNKNOWN));
    Some(labels)
}

impl RuleSpec {
    fn read(rule: &Fields<'_>) -> Option<Self> {
        // An empty list is as good as an absent one.
        let items = |name| Some(rule.list(name)).filter(|list: &Vec<Item<'_>>| !list.is_empty());
        let read = Self {
            from: items("from").map(|list| list.iter().filter_map(Source::read).collect()),
            to: items("to").map(|list| list.iter().filter_map(Operation::read).collect()),
            when: rule.list("when").iter().filter_map(Condition::read).collect(),
        };
        rule.finish(Unread::Refuse(UNKNOWN));
        Some(read)
    }
}

impl Source {
    fn read(item: &Item<'_>) -> Option<Self> {
        let outer = item.map()?;
        let source = outer.map("source");
        outer.finish(Unread::Refuse(UNKNOWN));
        let Some(source) = source else { return Some(Self::default()) };
        let read = Self {
            principals: source.texts("principals"),
            not_principals: source.texts("notPrincipals"),
            namespaces: source.texts("namespaces"),
            not_namespaces: source.texts("notNamespaces"),
            service_accounts: source.texts("serviceAccounts"),
            not_service_accounts: source.texts("notServiceAccounts"),
            ip_blocks: source.texts("ipBlocks"),
            not_ip_blocks: source.texts("notIpBlocks"),
            l7: given(&source, SOURCE_L7),
        };
        source.finish(Unread::Refuse(UNKNOWN));
        Some(read)
    }
}

impl Operation {
    fn read(item: &Item<'_>) -> Option<Self> {
        let outer = item.map()?;
        let operation = outer.map("operation");
        outer.finish(Unread::Refuse(UNKNOWN));
        let Some(operation) = operation else { return Some(Self::default()) };
        let read = Self {
            ports: operation.texts("ports"),
            not_ports: operation.texts("notPorts"),
            l7: given(&operation, OPERATION_L7),
        };
        operation.finish(Unread::Refuse(UNKNOWN));
        Some(read)
    }
}

/// Which of the lists with these `names` have something in them.
fn given(fields: &Fields<'_>, names: &[&'static str]) -> Vec<&'static str> {
    names.iter().filter(|name| !fields.texts(name).is_empty()).copied().collect()
}

impl Condition {
    fn read(item: &Item<'_>) -> Option<Self> {
        let condition = item.map()?;
        let Some(key) = condition.text("key") else {
            condition.problem("key", "a condition has a key");
            return None;
        };
        let read = Self {
            key,
            values: condition.texts("values"),
            not_values: condition.texts("notValues"),
        };
        condition.finish(Unread::Refuse(UNKNOWN));
        Some(read)
    }
}

impl PeerAuthentication {
    pub(super) fn read(fields: &Fields<'_>, meta: Meta) -> Option<Self> {
        fields.skip(&["status"]);
        let Some(spec) = fields.map("spec") else {
            return Some(Self { meta, selector: None, mode: Mode::Unset, ports: BTreeMap::new() });
        };
        let mut ports = BTreeMap::new();
        for (key, port) in spec.map("portLevelMtls").iter().flat_map(|map| map.maps()) {
            match key.parse() {
                Ok(number) => drop(ports.insert(number, Mode::read(&port))),
                Err(_) => port.report.problem(port.line, &port.path, "a port is expected"),
            }
        }
        let mode = spec.map("mtls").map(|mtls| Mode::read(&mtls)).unwrap_or_default();
        let read = Self { meta, selector: selector(&spec), mode, ports };
        spec.finish(Unread::Refuse(UNKNOWN));
        Some(read)
    }
}

impl Mode {
    fn read(fields: &Fields<'_>) -> Self {
        let mode = match fields.text("mode").as_deref() {
            None | Some("UNSET") => Self::Unset,
            Some("DISABLE") => Self::Disable,
            Some("PERMISSIVE") => Self::Permissive,
            Some("STRICT") => Self::Strict,
            Some(other) => {
                let reason = format!("{other:?} is none of UNSET, DISABLE, PERMISSIVE and STRICT");
                fields.problem("mode", reason);
                Self::Unset
            }
        };
        fields.finish(Unread::Refuse(UNKNOWN));
        mode
    }
}
