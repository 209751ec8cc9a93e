//! One stream of delta xDS as the server sees it (spec xds 4 and 5): requests and states of the
//! mesh in, responses out. No I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::catalogue::{Catalogue, Entry};
use crate::wire::xds::ResourceType;
use crate::wire::xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource};

/// Names that one stream may subscribe to, or report.
const NAMES_MAX: usize = 1_000_000;
/// Responses whose answer is remembered to be due.
const UNANSWERED_MAX: usize = 1_024;
/// Of a NACK's text, bytes that are kept.
const NACK_BYTES_MAX: usize = 4_096;

/// Asks for everything, or with the same in `unsubscribe` for nothing (spec xds 4).
const ALL: &str = "*";

/// What the server knows of one stream.
#[derive(Debug, Default)]
pub(super) struct Session {
    node: Option<NodeInfo>,
    streams: BTreeMap<ResourceType, Subscription>,
    responses: u64,
    /// The generation that all kinds were last compared with.
    compared: u64,
}

/// Who is at the other end, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct NodeInfo {
    pub(super) id: String,
    /// Metadata `NODE_NAME`; may be empty.
    pub(super) node: String,
}

/// One kind of resource on one stream.
#[derive(Debug, Default)]
struct Subscription {
    wildcard: bool,
    /// What was asked for by name or address.
    keys: BTreeSet<String>,
    /// What the client has, with its version.
    sent: BTreeMap<Arc<str>, Arc<str>>,
    /// Responses without an answer, oldest first: nonce and generation.
    unanswered: VecDeque<(String, u64)>,
    acknowledged: u64,
    nacks: u64,
    last_nack: Option<String>,
}

/// What a client is told of one kind of resource.
#[derive(Debug)]
struct Change {
    resources: Vec<Resource>,
    removed: Vec<String>,
}

/// Where one kind of resource stands, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Standing {
    pub(super) kind: String,
    pub(super) wildcard: bool,
    /// How many resources the client has been sent and still has.
    pub(super) resources: usize,
    /// The newest generation that it acknowledged, with those after it that have nothing new for
    /// it; 0 for none.
    pub(super) acknowledged: u64,
    /// The newest that it was sent and did not answer.
    pub(super) unanswered: Option<u64>,
    /// How many responses it refused in part or whole.
    pub(super) nacks: u64,
    /// Why it refused the last of them, until it acknowledges another.
    pub(super) last_nack: Option<String>,
}

/// Why a stream is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The first request does not say who asks.
    NoNode,
    /// More names than the limit.
    TooMany,
}

impl Session {
    /// Who is at the other end; nobody before the first request.
    pub(super) fn node(&self) -> Option<&NodeInfo> {
        self.node.as_ref()
    }

    /// Takes a request, and answers it if an answer is due.
    pub(super) fn receive(
        &mut self,
        request: DeltaDiscoveryRequest,
        catalogue: &Catalogue,
    ) -> Result<Option<DeltaDiscoveryResponse>, Refusal> {
        if self.node.is_none() {
            let node = request.node.as_ref().filter(|node| !node.id.is_empty());
            self.node = Some(NodeInfo::of(node.ok_or(Refusal::NoNode)?));
        }
        // A kind that is not served is never answered: the client may hope for it, and waits.
        let Some(kind) = ResourceType::from_url(&request.type_url) else { return Ok(None) };
        let reported = request.initial_resource_versions.len();
        if reported + request.resource_names_subscribe.len() > NAMES_MAX {
            return Err(Refusal::TooMany);
        }
        let Some(subscription) = self.streams.get_mut(&kind) else {
            let (subscription, asked) = Subscription::first(request);
            self.streams.insert(kind, subscription);
            let change = self.change(kind, catalogue, asked);
            return Ok(Some(self.respond(kind, catalogue, change)));
        };
        subscription.hear(&request);
        for name in &request.resource_names_unsubscribe {
            subscription.keys.remove(name);
        }
        let asked: BTreeSet<String> = request.resource_names_subscribe.into_iter().collect();
        if asked.is_empty() {
            return Ok(None);
        }
        subscription.keys.extend(asked.iter().cloned());
        if subscription.keys.len() > NAMES_MAX {
            return Err(Refusal::TooMany);
        }
        let change = self.change(kind, catalogue, asked);
        Ok(Some(self.respond(kind, catalogue, change)))
    }

    /// What changed for this client since it was last told.
    pub(super) fn update(&mut self, catalogue: &Catalogue) -> Vec<DeltaDiscoveryResponse> {
        if self.compared == catalogue.generation {
            return Vec::new();
        }
        self.compared = catalogue.generation;
        let kinds: Vec<ResourceType> = self.streams.keys().copied().collect();
        let mut responses = Vec::new();
        for kind in kinds {
            let change = self.change(kind, catalogue, BTreeSet::new());
            if change.is_nothing() {
                self.covers(kind, catalogue.generation);
            } else {
                responses.push(self.respond(kind, catalogue, change));
            }
        }
        responses
    }

    /// Where each kind stands.
    pub(super) fn standing(&self) -> Vec<Standing> {
        let standing = |(kind, of): (&ResourceType, &Subscription)| Standing {
            kind: kind.to_string(),
            wildcard: of.wildcard,
            resources: of.sent.len(),
            acknowledged: of.acknowledged,
            unanswered: of.unanswered.back().map(|(_, generation)| *generation),
            nacks: of.nacks,
            last_nack: of.last_nack.clone(),
        };
        self.streams.iter().map(standing).collect()
    }

    /// Everything the client should have and does not, and everything it has that is gone. What
    /// it just `asked` for by name is answered in any case.
    fn change(
        &mut self,
        kind: ResourceType,
        catalogue: &Catalogue,
        asked: BTreeSet<String>,
    ) -> Change {
        let node = self.node.as_ref().map_or("", |node| &node.node);
        let subscription = self.streams.entry(kind).or_default();
        let entries = catalogue.entries(kind);
        let mut forced: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut removed: Vec<String> = Vec::new();
        for key in asked {
            let found = catalogue.lookup(&key);
            if found.is_empty() {
                removed.push(key);
            }
            forced.extend(found);
        }
        let wanted: Box<dyn Iterator<Item = (&Arc<str>, &Entry)>> = if subscription.wildcard {
            Box::new(entries.iter())
        } else {
            let found = subscription.keys.iter().flat_map(|key| catalogue.lookup(key));
            let names: BTreeSet<Arc<str>> =
                found.chain(catalogue.on_node(node).iter().cloned()).collect();
            let known = names.into_iter().filter_map(|name| entries.get_key_value(&*name));
            Box::new(known.collect::<Vec<_>>().into_iter())
        };
        let mut resources = Vec::new();
        for (name, entry) in wanted {
            let has = subscription.sent.get(name) == Some(&entry.version);
            if !has || forced.contains(name) {
                resources.push(resource(name, entry, subscription.wildcard));
                subscription.sent.insert(Arc::clone(name), Arc::clone(&entry.version));
            }
        }
        let gone = subscription.sent.keys().filter(|name| !entries.contains_key(*name)).cloned();
        for name in gone.collect::<Vec<_>>() {
            subscription.sent.remove(&name);
            removed.push(name.to_string());
        }
        Change { resources, removed }
    }

    /// Notes a generation that has nothing new of a kind: who has acknowledged, or will, what was
    /// sent last is as far.
    fn covers(&mut self, kind: ResourceType, generation: u64) {
        let Some(subscription) = self.streams.get_mut(&kind) else { return };
        match subscription.unanswered.back_mut() {
            Some((_, covered)) => *covered = generation,
            None if subscription.last_nack.is_none() => subscription.acknowledged = generation,
            None => {}
        }
    }

    /// A response, whose answer is due from now on.
    fn respond(
        &mut self,
        kind: ResourceType,
        catalogue: &Catalogue,
        change: Change,
    ) -> DeltaDiscoveryResponse {
        self.responses += 1;
        let nonce = format!("{}-{}", catalogue.generation, self.responses);
        let subscription = self.streams.entry(kind).or_default();
        subscription.unanswered.push_back((nonce.clone(), catalogue.generation));
        if subscription.unanswered.len() > UNANSWERED_MAX {
            subscription.unanswered.pop_front();
        }
        DeltaDiscoveryResponse {
            system_version_info: catalogue.generation.to_string(),
            resources: change.resources,
            type_url: kind.url().to_owned(),
            nonce,
            removed_resources: change.removed,
        }
    }
}

impl Change {
    fn is_nothing(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }
}

impl Subscription {
    /// From the first request of a kind: what is subscribed to, what the client has already, and
    /// what is answered in any case.
    fn first(request: DeltaDiscoveryRequest) -> (Self, BTreeSet<String>) {
        let all = |names: &[String]| names.iter().any(|name| name == ALL);
        let (asked, dropped) =
            (&request.resource_names_subscribe, &request.resource_names_unsubscribe);
        let wildcard = asked.is_empty() || (all(asked) && !all(dropped));
        let mut keys: BTreeSet<String> =
            asked.iter().filter(|name| *name != ALL).cloned().collect();
        let mut answered = keys.clone();
        let mut sent = BTreeMap::new();
        for (name, version) in request.initial_resource_versions {
            if !wildcard {
                keys.insert(name.clone());
            }
            // An empty version: it was asked for, by whatever name, and never came.
            if version.is_empty() && !wildcard {
                answered.insert(name);
            } else {
                sent.insert(name.into(), version.into());
            }
        }
        (Self { wildcard, keys, sent, ..Self::default() }, answered)
    }

    /// Takes what a request says of an earlier response.
    fn hear(&mut self, request: &DeltaDiscoveryRequest) {
        let nonce = &request.response_nonce;
        let at = self.unanswered.iter().position(|(due, _)| due == nonce);
        let Some((_, generation)) = at.and_then(|at| self.unanswered.remove(at)) else { return };
        match &request.error_detail {
            None => {
                self.acknowledged = self.acknowledged.max(generation);
                self.last_nack = None;
            }
            Some(error) => {
                self.nacks += 1;
                let mut text = error.message.clone();
                text.truncate(text.floor_char_boundary(NACK_BYTES_MAX));
                self.last_nack = Some(text);
            }
        }
    }
}

impl NodeInfo {
    fn of(node: &Node) -> Self {
        use prost_types::value::Kind;
        let fields = node.metadata.as_ref().map(|metadata| &metadata.fields);
        let name = fields.and_then(|fields| fields.get("NODE_NAME")?.kind.as_ref());
        let name = match name {
            Some(Kind::StringValue(name)) => name.clone(),
            _ => String::new(),
        };
        Self { id: node.id.clone(), node: name }
    }
}

/// Aliases are for who asks for addresses (spec xds 3).
fn resource(name: &str, entry: &Entry, wildcard: bool) -> Resource {
    Resource {
        version: entry.version.to_string(),
        resource: Some(entry.body.clone()),
        name: name.to_owned(),
        aliases: if wildcard { Vec::new() } else { entry.aliases.clone() },
        ttl: None,
        cache_control: None,
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNode => f.write_str("the first request has no node.id"),
            Self::TooMany => write!(f, "more than {NAMES_MAX} names"),
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests;
