//! Everything that can be subscribed to, as it goes over the wire.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use prost::Message;
use prost_types::Any;

use super::super::convert::Resources;
use crate::wire::spiffe::Identity;
use crate::wire::xds::{ResourceType, ip, workload};

/// Bytes of a resource's hash that make its version.
const VERSION_BYTES: usize = 8;

/// One state of the mesh. It never changes: a reload makes the next one.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    /// Counts reloads, from 1.
    pub(super) generation: u64,
    addresses: Entries,
    policies: Entries,
    /// Names of what has an address, by `<network>/<address>`.
    by_alias: HashMap<String, Vec<Arc<str>>>,
    /// Names of workloads, by the service that they are endpoints of.
    endpoints: HashMap<String, Vec<Arc<str>>>,
    on_node: HashMap<String, Vec<Arc<str>>>,
    hosted: BTreeMap<Arc<str>, BTreeSet<Identity>>,
}

/// Resources by name.
pub(super) type Entries = BTreeMap<Arc<str>, Entry>;

/// One resource.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// A hash of its content: the same after a restart.
    pub(super) version: Arc<str>,
    pub(super) body: Any,
    pub(super) aliases: Vec<String>,
}

impl Catalogue {
    /// The state number `generation`.
    pub(crate) fn of(resources: &Resources, generation: u64) -> Self {
        let mut this = Self { generation, hosted: resources.hosted.clone(), ..Self::default() };
        for (name, address) in &resources.addresses {
            let name: Arc<str> = name.as_str().into();
            let aliases = this.index(&name, address.r#type.as_ref());
            let entry = Entry::of(ResourceType::Address, address, aliases);
            this.addresses.insert(name, entry);
        }
        for (name, policy) in &resources.policies {
            let entry = Entry::of(ResourceType::Authorization, policy, Vec::new());
            this.policies.insert(name.as_str().into(), entry);
        }
        this
    }

    /// Remembers under what else a resource can be asked for, and says it.
    fn index(&mut self, name: &Arc<str>, kind: Option<&workload::address::Type>) -> Vec<String> {
        let mut aliases = Vec::new();
        match kind {
            Some(workload::address::Type::Workload(workload)) => {
                let ips = workload.addresses.iter().filter_map(|bytes| ip(bytes).ok());
                // What shares its node's addresses is not found by them.
                if workload.network_mode() == workload::NetworkMode::Standard {
                    aliases.extend(ips.map(|ip| format!("{}/{ip}", workload.network)));
                }
                for service in workload.services.keys() {
                    self.endpoints.entry(service.clone()).or_default().push(Arc::clone(name));
                }
                self.on_node.entry(workload.node.clone()).or_default().push(Arc::clone(name));
            }
            Some(workload::address::Type::Service(service)) => {
                for address in &service.addresses {
                    let Ok(ip) = ip(&address.address) else { continue };
                    let range = address.length.map_or_else(String::new, |bits| format!("/{bits}"));
                    aliases.push(format!("{}/{ip}{range}", address.network));
                }
            }
            None => {}
        }
        for alias in &aliases {
            self.by_alias.entry(alias.clone()).or_default().push(Arc::clone(name));
        }
        aliases
    }

    /// All resources of a kind.
    pub(super) fn entries(&self, kind: ResourceType) -> &Entries {
        match kind {
            ResourceType::Address => &self.addresses,
            ResourceType::Authorization => &self.policies,
        }
    }

    /// What answers a request for `key`: a name, or an address; with a service come its endpoints
    /// (spec xds 5.5). Nothing if it is not known.
    pub(super) fn lookup(&self, key: &str) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = match self.addresses.get_key_value(key) {
            Some((name, _)) => vec![Arc::clone(name)],
            None => self.by_alias.get(key).cloned().unwrap_or_default(),
        };
        let endpoints = names.iter().filter_map(|name| self.endpoints.get(&**name)).flatten();
        let endpoints: Vec<_> = endpoints.cloned().collect();
        names.extend(endpoints);
        names
    }

    /// The workloads of a node, which its proxy is sent unasked.
    pub(super) fn on_node(&self, node: &str) -> &[Arc<str>] {
        self.on_node.get(node).map_or(&[], |names| names)
    }

    /// Whether a client of either sees no difference.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.addresses == other.addresses
            && self.policies == other.policies
            && self.hosted == other.hosted
    }

    /// The nodes that have pods.
    pub(super) fn nodes(&self) -> Vec<String> {
        self.hosted.keys().map(ToString::to_string).collect()
    }

    /// Whether some pod of the node has this identity.
    pub(super) fn hosts(&self, node: &str, identity: &Identity) -> bool {
        self.hosted.get(node).is_some_and(|identities| identities.contains(identity))
    }
}

impl Entry {
    fn of(kind: ResourceType, message: &impl Message, aliases: Vec<String>) -> Self {
        let value = message.encode_to_vec();
        let hash = digest(&SHA256, &value);
        let version: String =
            hash.as_ref().iter().take(VERSION_BYTES).map(|byte| format!("{byte:02x}")).collect();
        let body = Any { type_url: kind.url().to_owned(), value };
        Self { version: version.into(), body, aliases }
    }
}
