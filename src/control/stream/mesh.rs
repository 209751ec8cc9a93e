//! What the control plane says, and where it is published. Used from one thread at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::control::ads::{Ads, Kept, Standing};
use crate::control::ingest::Flaw;
use crate::control::lookups::Tally;
use crate::model::{Publisher, Wanted};
use crate::wire::xds::ResourceType;
use crate::wire::xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

/// The client's knowledge and the mesh that is made of it.
#[derive(Debug)]
pub(super) struct Mesh {
    ads: Ads,
    publisher: Publisher,
    /// A server has answered every type, so that there is something to keep.
    heard: bool,
}

/// What some responses have led to.
#[derive(Debug)]
pub(super) struct Applied {
    /// Their answers, in order.
    pub(super) answers: Vec<DeltaDiscoveryRequest>,
    /// What was rejected for the first time, or for another reason than before.
    pub(super) rejected: Vec<(ResourceType, Arc<str>, Flaw)>,
    /// The generation that was published, if one was.
    pub(super) published: Option<u64>,
    /// Where each type stands.
    pub(super) standing: BTreeMap<ResourceType, Standing>,
    /// Every type has been answered on this stream.
    pub(super) heard: bool,
    /// How many questions are remembered, and how they ended so far; if any are asked.
    pub(super) lookups: Option<(usize, Tally)>,
}

/// Also after a panic: then everything is asked for again.
pub(super) fn lock(mesh: &Mutex<Mesh>) -> MutexGuard<'_, Mesh> {
    mesh.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mesh {
    /// An empty mesh.
    pub(super) fn new(ads: Ads, publisher: Publisher) -> Self {
        Self { ads, publisher, heard: false }
    }

    /// The generation in force, once a server has said it.
    pub(super) fn generation_to_save(&self) -> Option<u64> {
        self.heard.then(|| self.publisher.current().generation())
    }

    /// What is in force, as it came.
    pub(super) fn kept(&self) -> Vec<Kept> {
        self.ads.kept()
    }

    /// Begins with what an earlier process has kept; nothing if a server was faster.
    pub(super) fn restore(&mut self, kept: Vec<DeltaDiscoveryResponse>) -> Option<Applied> {
        let taken = self.ads.restore(kept, &self.publisher.current());
        taken.then(|| self.publish(Vec::new(), Vec::new()))
    }

    /// The requests that begin a stream.
    pub(super) fn open(&mut self, report: bool) -> Vec<DeltaDiscoveryRequest> {
        self.ads.open(report)
    }

    /// Readers ask for something.
    pub(super) fn want(&mut self, wanted: Vec<Wanted>) {
        wanted.into_iter().for_each(|wanted| self.ads.want(wanted));
    }

    /// A while has passed: what has grown old is to be asked for again. How questions ended so far.
    pub(super) fn turn(&mut self) -> Option<(usize, Tally)> {
        if self.ads.is_heard() {
            self.ads.turn();
            let _ = self.publish(Vec::new(), Vec::new());
        }
        self.ads.lookups()
    }

    /// What the server is to be asked for next, besides answers.
    pub(super) fn next_lookup(&mut self) -> Option<DeltaDiscoveryRequest> {
        self.ads.next_lookup()
    }

    /// Applies responses and publishes what has changed.
    pub(super) fn apply(&mut self, batch: Vec<DeltaDiscoveryResponse>) -> Applied {
        let (mut answers, mut rejected) = (Vec::new(), Vec::new());
        let current = self.publisher.current();
        for response in batch {
            let kind = ResourceType::from_url(&response.type_url);
            let answer = self.ads.receive(response, &current);
            answers.push(answer.request);
            let named = answer.rejected.into_iter();
            rejected.extend(named.filter_map(|(name, flaw)| Some((kind?, name, flaw))));
        }
        self.heard |= self.ads.is_heard();
        self.publish(answers, rejected)
    }

    fn publish(
        &mut self,
        answers: Vec<DeltaDiscoveryRequest>,
        rejected: Vec<(ResourceType, Arc<str>, Flaw)>,
    ) -> Applied {
        let published = self.ads.take_changes().map(|delta| self.publisher.publish(delta));
        let (standing, heard) = (self.ads.standing(), self.ads.is_heard());
        let lookups = self.ads.lookups();
        Applied { answers, rejected, published, standing, heard, lookups }
    }
}
