//! One type of resource: what the server believes we have, and what of it is in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use prost_types::Any;

use crate::control::changes::Changes;
use crate::control::ingest::{self, Flaw, Item, Key, Texts};
use crate::control::lookups::Lookups;
use crate::model::Snapshot;
use crate::wire::xds::ResourceType;
use crate::wire::xds::discovery::{DeltaDiscoveryResponse, Resource};

/// Resources of one type.
const RESOURCES_MAX: usize = 2_000_000;
/// Bytes of names and versions in one request: a server takes 4 MiB (spec xds 5.3).
const REPORT_BYTES_MAX: usize = 3 << 20;
/// The same where the rest can be asked for in further requests.
const NAMED_BYTES_MAX: usize = 1 << 20;
/// What an entry of the report costs besides its two texts: tags and lengths.
const ENTRY_BYTES: usize = 16;

/// One type of resource.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Answered once, on any stream.
    pub(super) answered: bool,
    /// Nothing has come on this stream yet.
    pub(super) unheard: bool,
    pub(super) held: HashMap<Arc<str>, Held>,
    /// Shared with whoever tells it.
    pub(super) rejected: Arc<BTreeMap<Arc<str>, Flaw>>,
    pub(super) nacks: u64,
}

/// One resource that the server believes we have.
#[derive(Debug)]
pub(super) struct Held {
    /// Of the content that is in force; empty if there is none that could be reported.
    pub(super) version: Arc<str>,
    /// What it is in the mesh, if it could be read or something stands in for it.
    pub(super) key: Option<Key>,
    /// It was never read: what is in the mesh, if anything, refuses in its place.
    pub(super) stands_in: bool,
    /// The server was told of it at the beginning of this stream.
    pub(super) reported: bool,
    /// The content that is in force, as it came; empty if it is not kept.
    pub(super) payload: Arc<[u8]>,
}

/// Name, version and content.
type Shared = (Arc<str>, Arc<str>, Arc<[u8]>);

/// The resources of one type that are in force, as they came, shared with the client, so that
/// taking them costs no copy of the mesh.
#[derive(Debug)]
pub(in crate::control) struct Kept {
    kind: ResourceType,
    resources: Vec<Shared>,
}

impl Kept {
    /// As a server would say it.
    pub(in crate::control) fn response(&self) -> DeltaDiscoveryResponse {
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
pub(super) struct Apply<'a> {
    pub(super) kind: ResourceType,
    pub(super) current: &'a Snapshot,
    pub(super) changes: &'a mut Changes,
    pub(super) texts: Texts,
    pub(super) keeps: bool,
    pub(super) lookups: Option<&'a mut Lookups>,
}

impl Known {
    /// Begins a stream: what the server is told that we have. What has no version cannot be told,
    /// and what does not fit is left out: whether it still exists shows in the first response.
    pub(super) fn open(&mut self, report: bool) -> BTreeMap<String, String> {
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

    /// Begins a stream on which everything is asked for by name: what the server is told that we
    /// have, with what `waits` for an answer, and the names that there is no room for.
    pub(super) fn open_named(
        &mut self,
        report: bool,
        waits: impl Iterator<Item = String>,
    ) -> (BTreeMap<String, String>, Vec<Arc<str>>) {
        self.unheard = true;
        let mut room = if report { NAMED_BYTES_MAX } else { 0 };
        let (mut versions, mut rest) = (BTreeMap::new(), Vec::new());
        // What has no version is always sent (spec xds 5.3).
        let waits = waits.map(|name| (Arc::from(name), Arc::from("")));
        let held =
            self.held.iter().map(|(name, held)| (Arc::clone(name), Arc::clone(&held.version)));
        for (name, version) in waits.chain(held) {
            let bytes = name.len() + version.len() + ENTRY_BYTES;
            if bytes <= room {
                room -= bytes;
                versions.insert(name.to_string(), version.to_string());
            } else {
                rest.push(name);
            }
        }
        (versions, rest)
    }

    /// The first response of a stream has everything that exists and was not reported: what is not
    /// there does not exist any more.
    pub(super) fn drop_absent(&mut self, resources: &[Resource], changes: &mut Changes) {
        let there: HashSet<&str> = resources.iter().map(|r| r.name.as_str()).collect();
        let gone =
            self.held.iter().filter(|(name, held)| !held.reported && !there.contains(&***name));
        let gone: Vec<Arc<str>> = gone.map(|(name, _)| Arc::clone(name)).collect();
        for name in gone {
            self.remove(&name, changes);
        }
    }

    pub(super) fn kept(&self, kind: ResourceType) -> Kept {
        let good = self.held.iter().filter(|(_, held)| !held.stands_in);
        let shared = |(name, held): (&Arc<str>, &Held)| {
            (Arc::clone(name), Arc::clone(&held.version), Arc::clone(&held.payload))
        };
        Kept { kind, resources: good.map(shared).collect() }
    }

    /// Applies one resource, or says what is wrong with it.
    pub(super) fn take(
        &mut self,
        resource: Resource,
        apply: &mut Apply<'_>,
    ) -> Result<(), (Arc<str>, Flaw)> {
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
    pub(super) fn reject(&mut self, name: &Arc<str>, flaw: &Flaw) -> bool {
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
        if let (Some(lookups), Some(item)) = (&mut apply.lookups, &item) {
            lookups.applied(&name, item);
        }
        if let Some(item) = item
            && !apply.changes.is_known(&name, &item, apply.current)
        {
            apply.changes.set(&name, item);
        }
        self.held.insert(name, held);
    }

    /// Takes a resource out; what it was in the mesh.
    pub(super) fn remove(&mut self, name: &str, changes: &mut Changes) -> Option<Key> {
        self.accept(name);
        let (name, held) = self.held.remove_entry(name)?;
        let key = held.key?;
        changes.remove(&name, key.clone());
        Some(key)
    }
}
