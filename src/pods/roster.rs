//! The agent's session as a machine without I/O (spec node-and-pods 3).
//!
//! Where upstream exits the process because the agent broke the protocol, this ends the session:
//! the pods that are served stay served, and the next session's snapshot reconciles.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::PodName;
use crate::path::PodSpec;
use crate::sys::netns::{Netns, NetnsId};
use crate::wire::zds::{Request, ZdsError};

/// How long a pod that could not be started waits for its next attempt.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Pods on one node; Kubernetes recommends 110 and some run 1,000.
const PODS_MAX: usize = 10_000;

/// What is served, and what the agent of this session has said.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pods: HashMap<Arc<str>, Entry>,
    session: Option<Session>,
    tally: Tally,
}

#[derive(Debug)]
struct Entry {
    spec: PodSpec,
    netns: Option<NetnsId>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Up,
    Pending { retry_at: Instant },
}

#[derive(Debug, Default)]
struct Session {
    snapshot_seen: bool,
    /// Pods that were added or kept in this session: the snapshot leaves them alone.
    protected: HashSet<Arc<str>>,
}

/// What to do about one message. Every message is answered exactly once.
#[derive(Debug)]
pub(super) enum Reaction {
    /// Stop these pods, then answer that all is well.
    Stop(Vec<Arc<str>>),
    /// Start this pod (after stopping the one of that uid, if asked to), tell
    /// [`Roster::started`], and answer with what came of it.
    Start {
        /// What to start.
        spec: PodSpec,
        /// The pod of this uid lives in another namespace and must be stopped first.
        replace: bool,
    },
    /// Answer with this error, then end the session.
    End(String),
    /// Answer with this error and go on.
    Refuse(String),
}

/// What has happened since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pods whose listeners were opened.
    pub started: u64,
    /// Pods whose listeners were closed.
    pub stopped: u64,
    /// Messages of the agent that were answered with an error.
    pub errors: u64,
}

/// Where the pods of this node stand, for readiness and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodsStatus {
    /// There is a session with the agent.
    pub connected: bool,
    /// The snapshot of this session has arrived.
    pub snapshot: bool,
    /// Pods whose listeners are open.
    pub active: usize,
    /// Pods that could not be started and are tried again.
    pub pending: usize,
    /// What has happened so far.
    pub tally: Tally,
}

impl PodsStatus {
    /// Whether everything that should be served is.
    pub fn ready(&self) -> bool {
        self.connected && self.snapshot && self.pending == 0
    }
}

impl Roster {
    /// A session begins.
    pub(super) fn connected(&mut self) {
        self.session = Some(Session::default());
    }

    /// The session is over. What runs goes on; what could not be started is forgotten, because the
    /// next snapshot tells it again.
    pub(super) fn disconnected(&mut self) {
        self.session = None;
        self.pods.retain(|_, entry| entry.state == State::Up);
    }

    /// A message was answered with an error.
    pub(super) fn complained(&mut self) {
        self.tally.errors += 1;
    }

    /// One message, with the namespace that came with it.
    pub(super) fn message(
        &mut self,
        request: Result<Request, ZdsError>,
        netns: Option<Netns>,
    ) -> Reaction {
        let before = self.active();
        let reaction = self.react(request, netns);
        // What is replaced is stopped, too.
        self.tally.stopped += before.saturating_sub(self.active()) as u64;
        reaction
    }

    fn react(&mut self, request: Result<Request, ZdsError>, netns: Option<Netns>) -> Reaction {
        let Some(session) = &mut self.session else {
            return Reaction::End("there is no session".to_owned());
        };
        let request = match request {
            Ok(request) => request,
            Err(error) => return Reaction::End(error.to_string()),
        };
        if netns.is_some() && !matches!(request, Request::Add { .. }) {
            return Reaction::End("a descriptor came with a message that takes none".to_owned());
        }
        match request {
            Request::Add { uid, name, namespace, service_account } => {
                let Some(netns) = netns else {
                    return Reaction::End("an added pod came without its namespace".to_owned());
                };
                let name = PodName {
                    name: name.into(),
                    namespace: namespace.into(),
                    service_account: service_account.into(),
                };
                self.add(PodSpec { uid: uid.into(), name, netns: Some(netns) })
            }
            Request::Keep { .. } if session.snapshot_seen => {
                Reaction::End("a pod can be kept only before the snapshot is complete".to_owned())
            }
            Request::Keep { uid } => {
                session.protected.insert(uid.into());
                Reaction::Stop(Vec::new())
            }
            Request::Del { uid } => {
                let uid: Arc<str> = uid.into();
                session.protected.remove(&uid);
                let running = self.pods.get(&uid).is_some_and(|e| e.state == State::Up);
                if running && !session.snapshot_seen {
                    // The snapshot removes it, unless it is added again before.
                    return Reaction::Stop(Vec::new());
                }
                Reaction::Stop(self.pods.remove(&uid).map(|_| uid).into_iter().collect())
            }
            Request::SnapshotSent if session.snapshot_seen => {
                Reaction::End("the snapshot was complete already".to_owned())
            }
            Request::SnapshotSent => {
                session.snapshot_seen = true;
                let protected = &session.protected;
                let gone = self.pods.extract_if(|uid, _| !protected.contains(uid));
                Reaction::Stop(gone.map(|(uid, _)| uid).collect())
            }
        }
    }

    fn add(&mut self, spec: PodSpec) -> Reaction {
        if let Some(session) = &mut self.session {
            session.protected.insert(Arc::clone(&spec.uid));
        }
        let netns = spec.netns.as_ref().map(Netns::id);
        let known = self.pods.get(&spec.uid);
        let same = known.is_some_and(|entry| entry.netns == netns && entry.state == State::Up);
        if same {
            return Reaction::Stop(Vec::new());
        }
        let replace = known.is_some_and(|entry| entry.state == State::Up);
        if known.is_none() && self.pods.len() >= PODS_MAX {
            return Reaction::Refuse(format!("more than {PODS_MAX} pods on one node"));
        }
        let entry = Entry { spec: spec.clone(), netns, state: State::Starting };
        self.pods.insert(Arc::clone(&spec.uid), entry);
        Reaction::Start { spec, replace }
    }

    /// What came of a start.
    pub(super) fn started(&mut self, uid: &str, up: bool, now: Instant) {
        if let Some(entry) = self.pods.get_mut(uid) {
            let retry_at = now + RETRY_INTERVAL;
            entry.state = if up { State::Up } else { State::Pending { retry_at } };
            self.tally.started += u64::from(up);
        }
    }

    /// The pods whose next attempt is due; [`Roster::started`] is to be told about each.
    pub(super) fn due(&mut self, now: Instant) -> Vec<PodSpec> {
        let mut due = Vec::new();
        for entry in self.pods.values_mut() {
            if matches!(entry.state, State::Pending { retry_at } if retry_at <= now) {
                entry.state = State::Starting;
                due.push(entry.spec.clone());
            }
        }
        due
    }

    /// When the next attempt is due.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let retries = self.pods.values().filter_map(|entry| match entry.state {
            State::Pending { retry_at } => Some(retry_at),
            _ => None,
        });
        retries.min()
    }

    pub(super) fn status(&self) -> PodsStatus {
        let active = self.active();
        PodsStatus {
            connected: self.session.is_some(),
            snapshot: self.session.as_ref().is_some_and(|session| session.snapshot_seen),
            active,
            pending: self.pods.len() - active,
            tally: self.tally,
        }
    }

    fn active(&self) -> usize {
        self.pods.values().filter(|entry| entry.state == State::Up).count()
    }

    /// The pods that are served or waited for: uid, name, and whether it is up.
    pub(super) fn list(&self) -> impl Iterator<Item = (&Arc<str>, &PodName, bool)> {
        self.pods.iter().map(|(uid, entry)| (uid, &entry.spec.name, entry.state == State::Up))
    }
}

#[cfg(test)]
mod tests;
