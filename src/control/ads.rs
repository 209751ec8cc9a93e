//! The client's side of delta xDS (spec xds 4 and 5): responses in, changes and requests out. No
//! I/O, no time.
//!
//! Nothing is handed out for publication until every type has been answered once, so that no pod
//! is served before the policies are there. What the server says from then on is applied as it
//! comes. A lost stream takes nothing away.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use prost_types::Any;

use super::changes::Changes;
use super::ingest::{self, Flaw, Item, Key, Texts};
use crate::model::{Delta, Snapshot};
use crate::wire::xds::ResourceType;
use crate::wire::xds::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource, Status,
};

/// Resources of one type.
const RESOURCES_MAX: usize = 2_000_000;
/// Bytes of names and versions in one request: a server takes 4 MiB (spec xds 5.3).
const REPORT_BYTES_MAX: usize = 3 << 20;
/// What an entry of the report costs besides its two texts: tags and lengths.
const ENTRY_BYTES: usize = 16;
/// Bytes of the text of a NACK.
const NACK_BYTES_MAX: usize = 4_096;

/// What the client knows, through all streams.
#[derive(Debug)]
pub(super) struct Ads {
    node: Node,
    types: BTreeMap<ResourceType, Known>,
    changes: Changes,
    published: bool,
    /// Resources are kept as they came, so that they can be stored.
    keeps: bool,
}

/// One type of resource.
#[derive(Debug, Default)]
struct Known {
    /// Answered once, on any stream.
    answered: bool,
    /// Nothing has come on this stream yet.
    unheard: bool,
    held: HashMap<Arc<str>, Held>,
    /// Shared with whoever tells it.
    rejected: Arc<BTreeMap<Arc<str>, Flaw>>,
    nacks: u64,
}

/// One resource that the server believes we have.
#[derive(Debug)]
struct Held {
    /// Of the content that is in force; empty if there is none that could be reported.
    version: Arc<str>,
    /// What it is in the mesh, if it could be read or something stands in for it.
    key: Option<Key>,
    /// It was never read: what is in the mesh, if anything, refuses in its place.
    stands_in: bool,
    /// The server was told of it at the beginning of this stream.
    reported: bool,
    /// The content that is in force, as it came; empty if it is not kept.
    payload: Arc<[u8]>,
}

/// Name, version and content.
type Shared = (Arc<str>, Arc<str>, Arc<[u8]>);

/// The resources of one type that are in force, as they came, shared with the client, so that
/// taking them costs no copy of the mesh.
#[derive(Debug)]
pub(super) struct Kept {
    kind: ResourceType,
    resources: Vec<Shared>,
}

/// What a response leads to, besides changes.
#[derive(Debug)]
pub(super) struct Answer {
    /// To be sent when the changes are in force.
    pub(super) request: DeltaDiscoveryRequest,
    /// What was rejected, and was not already for the same reason.
    pub(super) rejected: Vec<(Arc<str>, Flaw)>,
}

/// Where one type stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// A response was applied.
    pub(super) answered: bool,
    /// Resources that the server believes we have.
    pub(super) resources: usize,
    /// Responses that were answered with a NACK.
    pub(super) nacks: u64,
    /// What is rejected now, by name.
    pub(super) rejected: Arc<BTreeMap<Arc<str>, Flaw>>,
}

impl Ads {
    /// A client that knows nothing yet; whether it `keeps` what comes as it came.
    pub(super) fn new(node: Node, keeps: bool) -> Self {
        let types = ResourceType::ALL.map(|kind| (kind, Known::default()));
        Self { node, types: types.into(), changes: Changes::default(), published: false, keeps }
    }

    /// What is in force, as it came.
    pub(super) fn kept(&self) -> Vec<Kept> {
        self.types.iter().map(|(&kind, known)| known.kept(kind)).collect()
    }

    /// Begins with what was kept by an earlier process, unless a server has said something since.
    /// Whether all of that still exists shows in the first response of a stream, the one that is
    /// open included. Whether it was taken.
    pub(super) fn restore(
        &mut self,
        kept: Vec<DeltaDiscoveryResponse>,
        current: &Snapshot,
    ) -> bool {
        if self.types.values().any(|known| known.answered) {
            return false;
        }
        for response in kept {
            self.receive(response, current);
        }
        for known in self.types.values_mut() {
            known.unheard = true;
            known.held.values_mut().for_each(|held| held.reported = false);
        }
        true
    }

    /// The requests that begin a stream. Without `report` the server is told nothing of what we
    /// have, and sends everything.
    pub(super) fn open(&mut self, report: bool) -> Vec<DeltaDiscoveryRequest> {
        let first = |(kind, known): (&ResourceType, &mut Known)| DeltaDiscoveryRequest {
            node: Some(self.node.clone()),
            type_url: kind.url().to_owned(),
            initial_resource_versions: known.open(report),
            ..DeltaDiscoveryRequest::default()
        };
        self.types.iter_mut().map(first).collect()
    }

    /// Takes a response. `current` is what was published last.
    pub(super) fn receive(
        &mut self,
        response: DeltaDiscoveryResponse,
        current: &Snapshot,
    ) -> Answer {
        let DeltaDiscoveryResponse { resources, type_url, nonce, removed_resources, .. } = response;
        let mut request =
            DeltaDiscoveryRequest { type_url, response_nonce: nonce, ..Default::default() };
        let kind = ResourceType::from_url(&request.type_url);
        let Some((kind, known)) = kind.and_then(|kind| Some((kind, self.types.get_mut(&kind)?)))
        else {
            // What we never asked for is no reason to say no (spec xds 5.1).
            return Answer { request, rejected: Vec::new() };
        };
        let changes = &mut self.changes;
        if std::mem::take(&mut known.unheard) {
            known.drop_absent(&resources, changes);
        }
        let mut apply =
            Apply { kind, current, changes, texts: Texts::default(), keeps: self.keeps };
        let (mut flaws, mut rejected) = (Vec::new(), Vec::new());
        for resource in resources {
            let Err((name, flaw)) = known.take(resource, &mut apply) else { continue };
            if known.reject(&name, &flaw) {
                rejected.push((Arc::clone(&name), flaw.clone()));
            }
            flaws.push((name, flaw));
        }
        for name in removed_resources {
            known.remove(&name, changes);
        }
        known.answered = true;
        if !flaws.is_empty() {
            known.nacks += 1;
            request.error_detail = Some(nack(&flaws));
        }
        Answer { request, rejected }
    }

    /// What is to be published now, if anything: the first time even if it is nothing, for readers
    /// wait for a first generation.
    pub(super) fn take_changes(&mut self) -> Option<Delta> {
        if !self.answered() {
            return None;
        }
        let first = !std::mem::replace(&mut self.published, true);
        let delta = self.changes.take();
        (first || !delta.is_empty()).then_some(delta)
    }

    /// Whether every type has been answered once.
    fn answered(&self) -> bool {
        self.types.values().all(|known| known.answered)
    }

    /// Whether every type has been answered on this stream.
    pub(super) fn is_heard(&self) -> bool {
        self.types.values().all(|known| known.answered && !known.unheard)
    }

    /// Where each type stands.
    pub(super) fn standing(&self) -> BTreeMap<ResourceType, Standing> {
        let standing = |(&kind, known): (&ResourceType, &Known)| {
            let Known { answered, nacks, .. } = *known;
            let (resources, rejected) = (known.held.len(), Arc::clone(&known.rejected));
            (kind, Standing { answered, resources, nacks, rejected })
        };
        self.types.iter().map(standing).collect()
    }
}

impl Kept {
    /// As a server would say it.
    pub(super) fn response(&self) -> DeltaDiscoveryResponse {
        let said = |(name, version, payload): &Shared| Resource {
            name: name.to_string(),
            version: version.to_string(),
            resource: Some(Any { type_url: String::new(), value: payload.to_vec() }),
            ..Resource::default()
        };
        DeltaDiscoveryResponse {
            type_url: self.kind.url().to_owned(),
            resources: self.resources.iter().map(said).collect(),
            ..DeltaDiscoveryResponse::default()
        }
    }
}

/// What a resource is applied with.
struct Apply<'a> {
    kind: ResourceType,
    current: &'a Snapshot,
    changes: &'a mut Changes,
    texts: Texts,
    keeps: bool,
}

impl Known {
    /// Begins a stream: what the server is told that we have. What has no version cannot be told,
    /// and what does not fit is left out: whether it still exists shows in the first response.
    fn open(&mut self, report: bool) -> BTreeMap<String, String> {
        self.unheard = true;
        let mut room = if report { REPORT_BYTES_MAX } else { 0 };
        let mut versions = BTreeMap::new();
        for (name, held) in &mut self.held {
            let bytes = name.len() + held.version.len() + ENTRY_BYTES;
            held.reported = !held.version.is_empty() && bytes <= room;
            if held.reported {
                room -= bytes;
                versions.insert(name.to_string(), held.version.to_string());
            }
        }
        versions
    }

    /// The first response of a stream has everything that exists and was not reported: what is not
    /// there does not exist any more.
    fn drop_absent(&mut self, resources: &[Resource], changes: &mut Changes) {
        let there: HashSet<&str> = resources.iter().map(|r| r.name.as_str()).collect();
        let gone =
            self.held.iter().filter(|(name, held)| !held.reported && !there.contains(&***name));
        let gone: Vec<Arc<str>> = gone.map(|(name, _)| Arc::clone(name)).collect();
        for name in gone {
            self.remove(&name, changes);
        }
    }

    fn kept(&self, kind: ResourceType) -> Kept {
        let good = self.held.iter().filter(|(_, held)| !held.stands_in);
        let shared = |(name, held): (&Arc<str>, &Held)| {
            (Arc::clone(name), Arc::clone(&held.version), Arc::clone(&held.payload))
        };
        Kept { kind, resources: good.map(shared).collect() }
    }

    /// Applies one resource, or says what is wrong with it.
    fn take(&mut self, resource: Resource, apply: &mut Apply<'_>) -> Result<(), (Arc<str>, Flaw)> {
        let known = self.held.get_key_value(resource.name.as_str());
        let name =
            known.map_or_else(|| resource.name.as_str().into(), |(name, _)| Arc::clone(name));
        if known.is_none() && self.held.len() >= RESOURCES_MAX {
            return Err((name, Flaw::TooMany(RESOURCES_MAX)));
        }
        match ingest::read(apply.kind, &name, &resource, &mut apply.texts) {
            Ok(item) => {
                self.accept(&name);
                let payload = resource.resource.filter(|_| apply.keeps);
                let payload = payload.map_or_else(Arc::default, |any| any.value.into());
                let held = Held {
                    version: resource.version.into(),
                    key: Some(item.key()),
                    stands_in: false,
                    reported: true,
                    payload,
                };
                self.hold(name, held, Some(item), apply);
                Ok(())
            }
            Err(rejection) => {
                if known.is_none_or(|(_, held)| held.stands_in) {
                    let held = Held {
                        version: "".into(),
                        key: rejection.stand_in.as_ref().map(Item::key),
                        stands_in: true,
                        reported: true,
                        payload: Arc::default(),
                    };
                    self.hold(Arc::clone(&name), held, rejection.stand_in, apply);
                }
                Err((name, rejection.flaw))
            }
        }
    }

    /// Notes a rejection; whether it is news.
    fn reject(&mut self, name: &Arc<str>, flaw: &Flaw) -> bool {
        // What there is no room for is not remembered either.
        if !self.held.contains_key(name) {
            return true;
        }
        if self.rejected.get(name) == Some(flaw) {
            return false;
        }
        Arc::make_mut(&mut self.rejected).insert(Arc::clone(name), flaw.clone());
        true
    }

    /// Forgets a rejection, if there is one.
    fn accept(&mut self, name: &str) {
        if self.rejected.contains_key(name) {
            Arc::make_mut(&mut self.rejected).remove(name);
        }
    }

    /// Puts an item in force under a name, in place of what was there.
    fn hold(&mut self, name: Arc<str>, held: Held, item: Option<Item>, apply: &mut Apply<'_>) {
        let before = self.held.get(&name).and_then(|held| held.key.clone());
        if let Some(before) = before.filter(|before| Some(before) != held.key.as_ref()) {
            apply.changes.remove(&name, before);
        }
        if let Some(item) = item
            && !apply.changes.is_known(&name, &item, apply.current)
        {
            apply.changes.set(&name, item);
        }
        self.held.insert(name, held);
    }

    fn remove(&mut self, name: &str, changes: &mut Changes) {
        self.accept(name);
        let Some((name, held)) = self.held.remove_entry(name) else { return };
        if let Some(key) = held.key {
            changes.remove(&name, key);
        }
    }
}

fn nack(flaws: &[(Arc<str>, Flaw)]) -> Status {
    let mut message = String::new();
    for (at, (name, flaw)) in flaws.iter().enumerate() {
        let item = format!("{}{name}: {flaw}", if at == 0 { "" } else { "; " });
        if message.len() + item.len() > NACK_BYTES_MAX {
            message.push_str(&format!("; and {} more", flaws.len() - at));
            break;
        }
        message.push_str(&item);
    }
    Status { message, ..Status::default() }
}

#[cfg(test)]
mod tests;
