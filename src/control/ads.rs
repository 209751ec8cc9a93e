//! The client's side of delta xDS (spec xds 4 and 5): responses in, changes and requests out. No
//! I/O, no time.
//!
//! Nothing is handed out for publication until every type has been answered once, so that no pod
//! is served before the policies are there. What the server says from then on is applied as it
//! comes. A lost stream takes nothing away. On demand, addresses come one by one as they are asked
//! for ([`Lookups`]), and only policies count as answered.

mod known;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::changes::Changes;
use super::ingest::{Flaw, Texts};
use super::lookups::{Lookups, Tally};
use crate::model::{Delta, Snapshot, Wanted};
use crate::wire::xds::ResourceType;
use crate::wire::xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status};

pub(super) use known::Kept;
use known::{Apply, Known};

/// Bytes of the text of a NACK.
const NACK_BYTES_MAX: usize = 4_096;
/// Subscribes to everything; together with its opposite, to nothing (spec xds 4).
const ALL: &str = "*";

/// What the client knows, through all streams.
#[derive(Debug)]
pub(super) struct Ads {
    node: Node,
    types: BTreeMap<ResourceType, Known>,
    changes: Changes,
    published: bool,
    /// Resources are kept as they came, so that they can be stored.
    keeps: bool,
    /// What is asked for, if addresses are not all subscribed to.
    lookups: Option<Lookups>,
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
        let (changes, published, lookups) = (Changes::default(), false, None);
        Self { node, types: types.into(), changes, published, keeps, lookups }
    }

    /// The same, with addresses as they are asked for.
    pub(super) fn on_demand(node: Node, keeps: bool) -> Self {
        Self { lookups: Some(Lookups::default()), ..Self::new(node, keeps) }
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
        if self.wildcards().any(|known| known.answered) {
            return false;
        }
        for response in kept {
            self.receive(response, current);
        }
        for known in self.types.values_mut() {
            known.unheard = true;
            known.held.values_mut().for_each(|held| held.reported = false);
        }
        if let Some(lookups) = &mut self.lookups {
            // The stream that may be open does not know that we have them.
            lookups.subscribe(self.types[&ResourceType::Address].held.keys().cloned());
        }
        true
    }

    /// The requests that begin a stream. Without `report` the server is told nothing of what we
    /// have, and sends everything.
    pub(super) fn open(&mut self, report: bool) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = Vec::new();
        for (&kind, known) in &mut self.types {
            let mut request = DeltaDiscoveryRequest {
                node: Some(self.node.clone()),
                type_url: kind.url().to_owned(),
                ..DeltaDiscoveryRequest::default()
            };
            if let Some(lookups) = lookups_of(&mut self.lookups, kind) {
                request.resource_names_subscribe = vec![ALL.to_owned()];
                request.resource_names_unsubscribe = vec![ALL.to_owned()];
                let (versions, rest) = known.open_named(report, lookups.open());
                request.initial_resource_versions = versions;
                lookups.subscribe(rest.into_iter());
            } else {
                request.initial_resource_versions = known.open(report);
            }
            requests.push(request);
        }
        requests
    }

    /// A reader asks for something.
    pub(super) fn want(&mut self, wanted: Wanted) {
        if let Some(lookups) = &mut self.lookups {
            lookups.want(wanted);
        }
    }

    /// A while has passed on a stream that is answered.
    pub(super) fn turn(&mut self) {
        if let Some(lookups) = &mut self.lookups {
            lookups.turn();
        }
    }

    /// What the server is to be asked for next, besides answers.
    pub(super) fn next_lookup(&mut self) -> Option<DeltaDiscoveryRequest> {
        let (subscribe, unsubscribe) = self.lookups.as_mut()?.names()?;
        Some(DeltaDiscoveryRequest {
            type_url: ResourceType::Address.url().to_owned(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            ..DeltaDiscoveryRequest::default()
        })
    }

    /// How many questions are remembered, and how they ended so far; if any are asked.
    pub(super) fn lookups(&self) -> Option<(usize, Tally)> {
        self.lookups.as_ref().map(Lookups::tally)
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
        let lookups = lookups_of(&mut self.lookups, kind);
        if std::mem::take(&mut known.unheard) && lookups.is_none() {
            known.drop_absent(&resources, changes);
        }
        let texts = Texts::default();
        let mut apply = Apply { kind, current, changes, texts, keeps: self.keeps, lookups };
        let (mut flaws, mut rejected) = (Vec::new(), Vec::new());
        for resource in resources {
            let Err((name, flaw)) = known.take(resource, &mut apply) else { continue };
            if known.reject(&name, &flaw) {
                rejected.push((Arc::clone(&name), flaw.clone()));
            }
            flaws.push((name, flaw));
        }
        for name in removed_resources {
            let was = known.remove(&name, apply.changes);
            if let Some(lookups) = &mut apply.lookups {
                lookups.removed(&name, was.as_ref());
            }
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
        let mut delta = self.changes.take();
        if let Some(lookups) = &mut self.lookups {
            lookups.complete(&mut delta);
        }
        (first || !delta.is_empty()).then_some(delta)
    }

    /// Whether every type that is always answered has been once.
    fn answered(&self) -> bool {
        self.wildcards().all(|known| known.answered)
    }

    /// Whether every type has been answered on this stream.
    pub(super) fn is_heard(&self) -> bool {
        self.wildcards().all(|known| known.answered && !known.unheard)
    }

    /// The types of which everything is subscribed to; a server that is asked for nothing may have
    /// nothing to say (spec xds 6).
    fn wildcards(&self) -> impl Iterator<Item = &Known> {
        let named = self.lookups.is_some();
        let types = self.types.iter();
        types.filter(move |(kind, _)| !(named && **kind == ResourceType::Address)).map(|(_, k)| k)
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

/// Those of a type, if it is asked for one by one.
fn lookups_of(lookups: &mut Option<Lookups>, kind: ResourceType) -> Option<&mut Lookups> {
    lookups.as_mut().filter(|_| kind == ResourceType::Address)
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
