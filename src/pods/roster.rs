//! The agent's session as a machine without I/O (spec node-and-pods 3).
//!
//! Where upstream exits the process because the agent broke the protocol, this ends the session:
//! the pods that are served stay served, and the next session's snapshot reconciles.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::PodName;
use crate::wire::zds::{Request, ZdsError};

/// How long a pod that could not be started waits for its next attempt.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Pods on one node; Kubernetes recommends 110 and some run 1,000.
const PODS_MAX: usize = 10_000;

/// What is served, and what the agent of this session has said. `N` is a network namespace, equal
/// to another if it is the same one.
#[derive(Debug)]
pub(super) struct Roster<N> {
    pods: HashMap<Arc<str>, Entry<N>>,
    session: Option<Session>,
    started: u64,
    stopped: u64,
    refused: u64,
}

/// A pod as the agent announced it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod<N> {
    /// Kubernetes pod uid.
    pub(super) uid: Arc<str>,
    /// What the agent calls it.
    pub(super) name: PodName,
    /// Where it lives.
    pub(super) netns: N,
}

/// The descriptors that came with a message.
#[derive(Debug)]
pub(super) enum Attached<N> {
    /// None.
    Nothing,
    /// One, which is a network namespace.
    Netns(N),
    /// One, which is not, and why.
    Unusable(String),
    /// So many.
    Several(usize),
}

#[derive(Debug)]
struct Entry<N> {
    pod: Pod<N>,
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
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reaction<N> {
    /// Stop these pods, then answer that all is well.
    Stop(Vec<Arc<str>>),
    /// Start this pod (after stopping the one of that uid, if asked to), tell
    /// [`Roster::started`], and answer with what came of it.
    Start {
        /// What to start.
        pod: Pod<N>,
        /// A pod of this uid is up in another namespace or by another name: it is stopped first.
        replace: bool,
    },
    /// Answer with this error; the session goes on.
    Refuse(String),
    /// Answer with this error, then end the session.
    End(String),
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
    /// Pods whose listeners were opened, ever.
    pub started: u64,
    /// Pods whose listeners were closed, ever.
    pub stopped: u64,
    /// Messages of the agent that were refused, ever; pods that could not be started not counted.
    pub refused: u64,
}

impl PodsStatus {
    /// Whether everything that should be served is.
    pub fn ready(&self) -> bool {
        self.connected && self.snapshot && self.pending == 0
    }
}

impl<N: Clone + PartialEq> Roster<N> {
    /// Nothing is served, and there is no session.
    pub(super) fn new() -> Self {
        Self { pods: HashMap::new(), session: None, started: 0, stopped: 0, refused: 0 }
    }

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

    /// A message did not even arrive whole.
    pub(super) fn unreadable(&mut self) {
        self.refused += 1;
    }

    /// One message, with the descriptors that came with it.
    pub(super) fn message(
        &mut self,
        request: Result<Request, ZdsError>,
        attached: Attached<N>,
    ) -> Reaction<N> {
        let reaction = self.react(request, attached);
        match &reaction {
            Reaction::Refuse(_) | Reaction::End(_) => self.refused += 1,
            Reaction::Stop(_) | Reaction::Start { .. } => {}
        }
        reaction
    }

    fn react(&mut self, request: Result<Request, ZdsError>, attached: Attached<N>) -> Reaction<N> {
        let Some(session) = &mut self.session else {
            return Reaction::End("there is no session".to_owned());
        };
        if let Attached::Several(count) = attached {
            return Reaction::End(format!("a message came with {count} descriptors"));
        }
        let request = match request {
            Ok(request) => request,
            Err(error) => return Reaction::End(error.to_string()),
        };
        if !matches!(request, Request::Add { .. }) && !matches!(attached, Attached::Nothing) {
            return Reaction::End("a descriptor came with a message that takes none".to_owned());
        }
        match request {
            Request::Add { uid, name, namespace, service_account } => {
                let name = PodName { name, namespace, service_account };
                self.announced(uid, name, attached)
            }
            Request::Keep { .. } if session.snapshot_seen => {
                Reaction::End("a pod can be kept only before the snapshot is complete".to_owned())
            }
            Request::Keep { uid } => {
                session.protected.insert(uid);
                Reaction::Stop(Vec::new())
            }
            Request::Del { uid } => self.del(uid),
            Request::SnapshotSent if session.snapshot_seen => {
                Reaction::End("the snapshot was complete already".to_owned())
            }
            Request::SnapshotSent => {
                session.snapshot_seen = true;
                let protected = std::mem::take(&mut session.protected);
                let gone = self.pods.extract_if(|uid, _| !protected.contains(uid));
                let gone: Vec<(Arc<str>, Entry<N>)> = gone.collect();
                self.gone(gone)
            }
        }
    }

    fn announced(&mut self, uid: Arc<str>, name: PodName, attached: Attached<N>) -> Reaction<N> {
        let netns = match attached {
            Attached::Netns(netns) => Ok(netns),
            // The agent did its part: only this pod is in trouble.
            Attached::Unusable(error) => {
                Err(Reaction::Refuse(format!("the namespace of pod {name} is unusable: {error}")))
            }
            Attached::Nothing | Attached::Several(_) => {
                Err(Reaction::End("an added pod came without its namespace".to_owned()))
            }
        };
        // Whatever comes of it, the pod exists.
        if let Some(session) = self.session.as_mut().filter(|session| !session.snapshot_seen) {
            session.protected.insert(Arc::clone(&uid));
        }
        match netns {
            Ok(netns) => self.add(Pod { uid, name, netns }),
            Err(reaction) => reaction,
        }
    }

    fn add(&mut self, pod: Pod<N>) -> Reaction<N> {
        let known = self.pods.get(&pod.uid);
        let up = known.filter(|entry| entry.state == State::Up);
        if up.is_some_and(|entry| entry.pod == pod) {
            return Reaction::Stop(Vec::new());
        }
        if known.is_none() && self.pods.len() >= PODS_MAX {
            return Reaction::Refuse(format!("more than {PODS_MAX} pods on one node"));
        }
        let replace = up.is_some();
        self.stopped += u64::from(replace);
        let entry = Entry { pod: pod.clone(), state: State::Starting };
        self.pods.insert(Arc::clone(&pod.uid), entry);
        Reaction::Start { pod, replace }
    }

    fn del(&mut self, uid: Arc<str>) -> Reaction<N> {
        let up = self.pods.get(&uid).is_some_and(|entry| entry.state == State::Up);
        if let Some(session) = self.session.as_mut().filter(|session| !session.snapshot_seen) {
            session.protected.remove(&uid);
            if up {
                // The snapshot removes it, unless it is added again before.
                return Reaction::Stop(Vec::new());
            }
        }
        let gone = self.pods.remove_entry(&uid).into_iter().collect();
        self.gone(gone)
    }

    /// Pods that are no more: even one that never started may have left something behind.
    fn gone(&mut self, pods: Vec<(Arc<str>, Entry<N>)>) -> Reaction<N> {
        let up = pods.iter().filter(|(_, entry)| entry.state == State::Up).count();
        self.stopped += up as u64;
        Reaction::Stop(pods.into_iter().map(|(uid, _)| uid).collect())
    }

    /// What came of a start.
    pub(super) fn started(&mut self, uid: &str, up: bool, now: Instant) {
        if let Some(entry) = self.pods.get_mut(uid) {
            let retry_at = now + RETRY_INTERVAL;
            entry.state = if up { State::Up } else { State::Pending { retry_at } };
            self.started += u64::from(up);
        }
    }

    /// A pod whose next attempt is due, if there is one; [`Roster::started`] is to be told.
    pub(super) fn due(&mut self, now: Instant) -> Option<Pod<N>> {
        let waiting = self.pods.values_mut().filter_map(|entry| match entry.state {
            State::Pending { retry_at } if retry_at <= now => Some((retry_at, entry)),
            _ => None,
        });
        let (_, entry) = waiting.min_by_key(|(retry_at, _)| *retry_at)?;
        entry.state = State::Starting;
        Some(entry.pod.clone())
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
        let active = self.pods.values().filter(|entry| entry.state == State::Up).count();
        PodsStatus {
            connected: self.session.is_some(),
            snapshot: self.session.as_ref().is_some_and(|session| session.snapshot_seen),
            active,
            pending: self.pods.len() - active,
            started: self.started,
            stopped: self.stopped,
            refused: self.refused,
        }
    }

    /// The pods that are served or waited for: uid, name, and whether it is up.
    pub(super) fn list(&self) -> impl Iterator<Item = (&Arc<str>, &PodName, bool)> {
        self.pods.iter().map(|(uid, entry)| (uid, &entry.pod.name, entry.state == State::Up))
    }
}

#[cfg(test)]
mod tests;
