//! What readers have asked for, of a mesh that is told one by one (spec xds 5.5). No I/O, no time:
//! [`Lookups::turn`] says that a while has passed.
//!
//! A question is answered by what a resource says of itself, under whatever name it comes, or by
//! the removal of the name that was asked for. That somebody is not there counts for a short while
//! only, because not every server says when that changes. Who is there is asked for again when the
//! resource that said so is gone.

use std::sync::Arc;

use foldhash::HashMap;

use super::ingest::{Item, Key};
use crate::model::{Delta, Wanted};

/// Questions that are remembered. One more is not asked, and so not answered.
const ASKED_MAX: usize = 65_536;
/// Turns for which nobody being there counts, after the one in which it was said.
const ABSENT_TURNS: u64 = 1;
/// Turns after which a question that was not answered is given up.
const WAITING_TURNS: u64 = 12;
/// Turns after which the server has taken every request.
const CROSSING_TURNS: u64 = 12;
/// Bytes of names in one request, well below what a server takes (spec xds 5.3).
const NAMES_BYTES_MAX: usize = 1 << 20;

/// What was asked for, through all streams.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    asked: HashMap<Wanted, Asked>,
    /// What was answered by the resource with this name.
    found_by: HashMap<Arc<str>, Vec<Wanted>>,
    turn: u64,
    /// Names that the server is still to be told of.
    subscribe: Vec<Arc<str>>,
    unsubscribe: Vec<Arc<str>>,
    /// Names that the server was told lately not to tell any more, and the turn.
    dropped: HashMap<Arc<str>, u64>,
    /// What is to be published: whether it is answered.
    marks: HashMap<Wanted, bool>,
    tally: Tally,
}

#[derive(Debug)]
struct Asked {
    state: State,
    /// The server of this stream was asked for it.
    told: bool,
}

#[derive(Debug)]
enum State {
    Waiting { since: u64 },
    Absent { since: u64 },
    Found(Arc<str>),
}

/// How often a question ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Somebody is there.
    pub(super) found: u64,
    /// Nobody is there.
    pub(super) absent: u64,
    /// There was no answer for a long while.
    pub(super) given_up: u64,
    /// There was no room for it.
    pub(super) too_many: u64,
}

/// Names to subscribe to and names not to.
pub(super) type Names = (Vec<String>, Vec<String>);

impl Lookups {
    /// A reader asks.
    pub(super) fn want(&mut self, wanted: Wanted) {
        if self.asked.contains_key(&wanted) {
            return;
        }
        if self.asked.len() >= ASKED_MAX {
            self.tally.too_many += 1;
            return;
        }
        self.subscribe.push(wanted.to_string().into());
        let state = State::Waiting { since: self.turn };
        self.asked.insert(wanted, Asked { state, told: true });
    }

    /// Names that are in force and were not reported: the server is asked for them too.
    pub(super) fn subscribe(&mut self, names: impl Iterator<Item = Arc<str>>) {
        self.subscribe.extend(names);
    }

    /// Begins a stream, whose server knows of nothing. What waits for an answer, to be reported.
    pub(super) fn open(&mut self) -> impl Iterator<Item = String> {
        self.subscribe.clear();
        self.unsubscribe.clear();
        self.dropped.clear();
        self.asked.iter_mut().filter_map(|(wanted, asked)| {
            asked.told = matches!(asked.state, State::Waiting { .. });
            asked.told.then(|| wanted.to_string())
        })
    }

    /// A resource is in force, or something in its place.
    pub(super) fn applied(&mut self, name: &Arc<str>, item: &Item) {
        if self.dropped.remove(name).is_some() {
            // It crossed our saying that we do not want it: changes are wanted again.
            self.subscribe.push(Arc::clone(name));
        }
        let exactly = exactly(item);
        let says = |wanted: &Wanted| exactly.contains(wanted) || in_range(item, wanted);
        if let Some(before) = self.found_by.get(name) {
            let gone: Vec<Wanted> = before.iter().filter(|w| !says(w)).cloned().collect();
            gone.iter().for_each(|wanted| self.forget(wanted));
        }
        // Ranges are rare: only for them all questions are looked at.
        let ranges = matches!(item, Item::Service(service) if !service.cidr_vips.is_empty());
        let found: Vec<Wanted> = if ranges {
            self.asked.keys().filter(|wanted| says(wanted)).cloned().collect()
        } else {
            exactly
        };
        for wanted in found {
            self.find(wanted, name);
        }
    }

    /// The server says that there is nothing of this name; `known` is what was.
    pub(super) fn removed(&mut self, name: &str, known: Option<&Key>) {
        if let Some(Key::Service(key)) = known {
            // The server has subscribed us to what it sent, whatever it was asked for as, and would
            // not answer when it is asked for by its own name.
            match self.asked.get_mut(&Wanted::Host(key.clone())) {
                Some(asked) => asked.told = true,
                None => self.unsubscribe(name),
            }
        }
        for wanted in self.found_by.remove(name).unwrap_or_default() {
            // Found by its own name it is absent now; by another, it may have become somebody else.
            if wanted.to_string() == name {
                self.miss(wanted);
            } else {
                self.forget(&wanted);
            }
        }
        for wanted in Wanted::of_name(name) {
            let asked = self.asked.get(&wanted);
            if asked.is_some_and(|asked| matches!(asked.state, State::Waiting { .. })) {
                self.miss(wanted);
            }
        }
    }

    /// A while has passed on a stream that is answered.
    pub(super) fn turn(&mut self) {
        self.turn += 1;
        let turn = self.turn;
        self.dropped.retain(|_, since| turn - *since <= CROSSING_TURNS);
        let over = self.asked.iter().filter(|(_, asked)| match asked.state {
            State::Waiting { since } => turn - since > WAITING_TURNS,
            State::Absent { since } => turn - since > ABSENT_TURNS,
            State::Found(_) => false,
        });
        for wanted in over.map(|(wanted, _)| wanted.clone()).collect::<Vec<_>>() {
            let asked = &self.asked[&wanted];
            self.tally.given_up += u64::from(matches!(asked.state, State::Waiting { .. }));
            self.forget(&wanted);
        }
    }

    /// What the server is to be told next; a name is never in both lists.
    pub(super) fn names(&mut self) -> Option<Names> {
        // What is not wanted any more first: it may be wanted again, and is answered only then.
        if !self.unsubscribe.is_empty() {
            return Some((Vec::new(), piece(&mut self.unsubscribe)));
        }
        (!self.subscribe.is_empty()).then(|| (piece(&mut self.subscribe), Vec::new()))
    }

    /// Adds to a publication what was answered and what is to be asked for again.
    pub(super) fn complete(&mut self, delta: &mut Delta) {
        for (wanted, answered) in self.marks.drain() {
            if answered {
                delta.answered.push(wanted);
            } else {
                delta.unanswered.push(wanted);
            }
        }
    }

    /// How many questions are remembered, and how they ended so far.
    pub(super) fn tally(&self) -> (usize, Tally) {
        (self.asked.len(), self.tally)
    }

    fn find(&mut self, wanted: Wanted, name: &Arc<str>) {
        let Some(asked) = self.asked.get_mut(&wanted) else { return };
        if let State::Found(_) = asked.state {
            return;
        }
        asked.state = State::Found(Arc::clone(name));
        self.tally.found += 1;
        self.found_by.entry(Arc::clone(name)).or_default().push(wanted.clone());
        self.marks.insert(wanted, true);
    }

    fn miss(&mut self, wanted: Wanted) {
        let Some(asked) = self.asked.get_mut(&wanted) else { return };
        asked.state = State::Absent { since: self.turn };
        self.tally.absent += 1;
        self.marks.insert(wanted, true);
    }

    fn unsubscribe(&mut self, name: &str) {
        match self.subscribe.iter().position(|other| **other == *name) {
            Some(at) => drop(self.subscribe.swap_remove(at)),
            None => {
                let name: Arc<str> = name.into();
                self.dropped.insert(Arc::clone(&name), self.turn);
                self.unsubscribe.push(name);
            }
        }
    }

    fn forget(&mut self, wanted: &Wanted) {
        let Some(asked) = self.asked.remove(wanted) else { return };
        if let State::Found(name) = &asked.state
            && let Some(wanteds) = self.found_by.get_mut(name)
        {
            wanteds.retain(|other| other != wanted);
            if wanteds.is_empty() {
                self.found_by.remove(name);
            }
        }
        if asked.told {
            self.unsubscribe(&wanted.to_string());
        }
        self.marks.insert(wanted.clone(), false);
    }
}

/// The first of these names, as many as one request may have; at least one.
fn piece(names: &mut Vec<Arc<str>>) -> Vec<String> {
    let mut bytes = 0;
    let fits = |name: &&Arc<str>| {
        bytes += name.len() + 4;
        bytes <= NAMES_BYTES_MAX
    };
    let count = names.iter().take_while(fits).count().max(1);
    names.drain(..count).map(|name| name.to_string()).collect()
}

/// Everything that an item can be found by, but for what is in a range.
fn exactly(item: &Item) -> Vec<Wanted> {
    match item {
        Item::Workload(workload) => workload.wanted_as().collect(),
        Item::Service(service) => service.wanted_as().collect(),
        Item::Policy(_) => Vec::new(),
    }
}

/// Whether an address is in a range of an item.
fn in_range(item: &Item, wanted: &Wanted) -> bool {
    match (item, wanted) {
        (Item::Service(service), Wanted::Addr(addr)) => {
            let mut ranges = service.cidr_vips.iter();
            ranges.any(|(network, net)| *network == addr.network && net.contains(&addr.ip))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
