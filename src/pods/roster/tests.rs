use std::collections::BTreeMap;

use super::*;
use crate::sys::clock::Clock;

/// A machine with what its driver would do: every start ends as `works` says.
struct Driven {
    roster: Roster<u8>,
    /// Pods with open listeners: the namespace and the name.
    world: BTreeMap<String, (u8, String)>,
    works: bool,
    now: Instant,
}

impl Driven {
    fn new() -> Self {
        let mut roster = Roster::new();
        roster.connected();
        let now = Clock::system().monotonic();
        Self { roster, world: BTreeMap::new(), works: true, now }
    }

    /// Sends a message; what is answered.
    fn say(&mut self, request: Result<Request, ZdsError>, attached: Attached<u8>) -> &'static str {
        match self.roster.message(request, attached) {
            Reaction::Stop(uids) => {
                for uid in uids {
                    self.world.remove(&*uid);
                }
                "ok"
            }
            Reaction::Start { pod, replace } => {
                assert_eq!(self.world.remove(&*pod.uid).is_some(), replace);
                self.start(pod)
            }
            Reaction::Refuse(error) => {
                assert!(!error.is_empty());
                "refused"
            }
            Reaction::End(error) => {
                assert!(!error.is_empty());
                self.roster.disconnected();
                "end"
            }
        }
    }

    fn start(&mut self, pod: Pod<u8>) -> &'static str {
        self.roster.started(&pod.uid, self.works, self.now);
        if !self.works {
            return "failed";
        }
        let name = pod.name.name.to_string();
        assert_eq!(self.world.insert(pod.uid.to_string(), (pod.netns, name)), None);
        "ok"
    }

    fn add(&mut self, uid: &str, netns: u8) -> &'static str {
        self.say(Ok(add(uid, "a")), Attached::Netns(netns))
    }

    fn keep(&mut self, uid: &str) -> &'static str {
        self.say(Ok(Request::Keep { uid: uid.into() }), Attached::Nothing)
    }

    fn del(&mut self, uid: &str) -> &'static str {
        self.say(Ok(Request::Del { uid: uid.into() }), Attached::Nothing)
    }

    fn snapshot(&mut self) -> &'static str {
        self.say(Ok(Request::SnapshotSent), Attached::Nothing)
    }

    fn reconnect(&mut self) {
        self.roster.disconnected();
        self.roster.connected();
    }

    /// Every retry that is due after this time.
    fn wait(&mut self, time: Duration) {
        self.now += time;
        while let Some(pod) = self.roster.due(self.now) {
            self.start(pod);
        }
    }

    fn check(&self, up: &[&str], pending: usize, ready: bool) {
        assert_eq!(self.world.keys().map(String::as_str).collect::<Vec<_>>(), up);
        let status = self.roster.status();
        assert_eq!((status.active, status.pending), (up.len(), pending));
        assert_eq!(status.ready(), ready, "{status:?}");
        assert_eq!(self.roster.next_retry().is_some(), pending > 0);
        let listed = self.roster.list().filter(|(.., up)| *up).count();
        assert_eq!((listed, self.roster.list().count()), (up.len(), up.len() + pending));
    }
}

fn add(uid: &str, name: &str) -> Request {
    Request::Add {
        uid: uid.into(),
        name: name.into(),
        namespace: "n".into(),
        service_account: "s".into(),
    }
}

#[test]
fn a_pod_is_started_once_and_replaced_when_it_is_another() {
    let mut driven = Driven::new();
    assert_eq!((driven.add("u", 1), driven.snapshot()), ("ok", "ok"));
    driven.check(&["u"], 0, true);
    assert_eq!(driven.add("u", 1), "ok");
    assert_eq!(driven.roster.status().started, 1);
    assert_eq!(driven.add("u", 2), "ok");
    assert_eq!(driven.world["u"], (2, "a".to_owned()));
    assert_eq!(driven.say(Ok(add("u", "b")), Attached::Netns(2)), "ok");
    assert_eq!(driven.world["u"], (2, "b".to_owned()));
    let status = driven.roster.status();
    assert_eq!((status.started, status.stopped, status.refused), (3, 2, 0));
}

#[test]
fn what_breaks_the_protocol_ends_the_session_and_no_pod() {
    type Say = fn(&mut Driven) -> &'static str;
    let check = |what: &str, expected: &str, say: Say| {
        for snapshot in [false, true] {
            let mut driven = Driven::new();
            driven.add("u", 1);
            if snapshot {
                driven.snapshot();
            }
            assert_eq!(say(&mut driven), expected, "{what}");
            assert_eq!(driven.world.len(), 1, "{what}");
            assert_eq!(driven.roster.status().connected, expected != "end", "{what}");
            assert_eq!(driven.roster.status().refused, 1, "{what}");
        }
    };
    check("no fd", "end", |d| d.say(Ok(add("v", "a")), Attached::Nothing));
    check("two fds", "end", |d| d.say(Ok(add("v", "a")), Attached::Several(2)));
    check("no info", "end", |d| {
        d.say(Err(ZdsError::NoInfo { uid: "v".into() }), Attached::Netns(2))
    });
    check("undecodable", "end", |d| d.say(Err(ZdsError::NoPayload), Attached::Nothing));
    check("keep with fd", "end", |d| {
        d.say(Ok(Request::Keep { uid: "u".into() }), Attached::Netns(1))
    });
    check("del with fd", "end", |d| {
        d.say(Ok(Request::Del { uid: "u".into() }), Attached::Netns(1))
    });
    check("snapshot with fd", "end", |d| d.say(Ok(Request::SnapshotSent), Attached::Netns(1)));
    check("del with bad fd", "end", |d| {
        d.say(Ok(Request::Del { uid: "u".into() }), Attached::Unusable("no".into()))
    });
    check("a file", "refused", |d| d.say(Ok(add("v", "a")), Attached::Unusable("no".into())));
    check("a file for a running pod", "refused", |d| {
        d.say(Ok(add("u", "a")), Attached::Unusable("no".into()))
    });
    let mut driven = Driven::new();
    driven.snapshot();
    assert_eq!(driven.keep("u"), "end");
    let mut driven = Driven::new();
    driven.snapshot();
    assert_eq!(driven.snapshot(), "end");
    let mut driven = Driven::new();
    driven.roster.disconnected();
    assert_eq!(driven.snapshot(), "end");
}

#[test]
fn a_snapshot_leaves_what_was_named() {
    let mut driven = Driven::new();
    for uid in ["added", "kept", "unnamed", "deleted", "broken"] {
        driven.add(uid, 1);
    }
    driven.snapshot();
    driven.reconnect();
    driven.check(&["added", "broken", "deleted", "kept", "unnamed"], 0, false);
    driven.add("added", 1);
    driven.keep("kept");
    driven.keep("unheard");
    driven.keep("deleted");
    assert_eq!(driven.del("deleted"), "ok");
    assert_eq!(driven.say(Ok(add("broken", "a")), Attached::Unusable("no".into())), "refused");
    driven.check(&["added", "broken", "deleted", "kept", "unnamed"], 0, false);
    assert_eq!(driven.snapshot(), "ok");
    driven.check(&["added", "broken", "kept"], 0, true);
    // Every session begins with nothing named.
    driven.reconnect();
    driven.snapshot();
    driven.check(&[], 0, true);
}

#[test]
fn after_the_snapshot_del_stops() {
    let mut driven = Driven::new();
    driven.add("u", 1);
    driven.snapshot();
    assert_eq!((driven.del("u"), driven.del("u"), driven.del("unknown")), ("ok", "ok", "ok"));
    driven.check(&[], 0, true);
    assert_eq!(driven.roster.status().stopped, 1);
}

#[test]
fn a_pod_that_cannot_be_started_is_tried_again() {
    let mut driven = Driven::new();
    driven.works = false;
    assert_eq!(driven.add("u", 1), "failed");
    driven.snapshot();
    driven.check(&[], 1, false);
    driven.works = true;
    driven.wait(RETRY_INTERVAL - Duration::from_millis(1));
    driven.check(&[], 1, false);
    driven.works = false;
    driven.wait(Duration::from_millis(1));
    driven.check(&[], 1, false);
    driven.works = true;
    driven.wait(RETRY_INTERVAL);
    driven.check(&["u"], 0, true);
    // A later add goes before the retry; a del clears it; a new session has forgotten it.
    driven.works = false;
    driven.add("v", 1);
    driven.add("w", 1);
    driven.add("x", 1);
    driven.check(&["u"], 3, false);
    driven.del("w");
    driven.works = true;
    assert_eq!(driven.add("v", 2), "ok");
    driven.check(&["u", "v"], 1, false);
    driven.reconnect();
    driven.check(&["u", "v"], 0, false);
    // One that moved and then failed is down, not where it was.
    driven.works = false;
    assert_eq!(driven.add("u", 2), "failed");
    driven.keep("v");
    driven.snapshot();
    driven.check(&["v"], 1, false);
}

#[test]
fn the_number_of_pods_is_limited() {
    let mut driven = Driven::new();
    for at in 0..PODS_MAX {
        assert_eq!(driven.add(&at.to_string(), 1), "ok");
    }
    assert_eq!(driven.add("one more", 1), "refused");
    assert_eq!(driven.add("0", 2), "ok");
    driven.snapshot();
    driven.del("1");
    assert_eq!(driven.add("one more", 1), "ok");
}

/// What must hold, told without the machine.
#[derive(Default)]
struct Model {
    up: BTreeMap<String, u8>,
    pending: BTreeMap<String, u8>,
    named: HashSet<String>,
    snapshot: bool,
}

impl Model {
    fn new_session(&mut self) {
        self.pending.clear();
        self.named.clear();
        self.snapshot = false;
    }

    fn add(&mut self, uid: &str, netns: u8, works: bool) {
        self.named.insert(uid.to_owned());
        if self.up.get(uid) == Some(&netns) {
            return;
        }
        self.up.remove(uid);
        self.pending.remove(uid);
        let pods = if works { &mut self.up } else { &mut self.pending };
        pods.insert(uid.to_owned(), netns);
    }

    fn del(&mut self, uid: &str) {
        self.named.remove(uid);
        self.pending.remove(uid);
        if self.snapshot {
            self.up.remove(uid);
        }
    }

    fn snapshot(&mut self) {
        self.snapshot = true;
        self.up.retain(|uid, _| self.named.contains(uid));
    }
}

#[test]
fn random_sessions_agree_with_the_model() {
    for seed in 0..2000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut driven, mut model) = (Driven::new(), Model::default());
        for step in 0..60 {
            let uid = ["a", "b", "c", "d"][rng.usize(..4)];
            let netns = rng.u8(1..3);
            driven.works = rng.u8(..4) > 0;
            match rng.u8(..12) {
                0..5 => {
                    driven.add(uid, netns);
                    model.add(uid, netns, driven.works);
                }
                5 | 6 => {
                    assert_eq!(driven.del(uid), "ok");
                    model.del(uid);
                }
                7 if model.snapshot => assert_eq!(driven.keep(uid), "end"),
                7 => {
                    driven.keep(uid);
                    model.named.insert(uid.to_owned());
                }
                8 if model.snapshot => assert_eq!(driven.snapshot(), "end"),
                8 => {
                    driven.snapshot();
                    model.snapshot();
                }
                9 => driven.roster.disconnected(),
                _ => {
                    driven.wait(RETRY_INTERVAL);
                    if driven.works {
                        model.up.append(&mut model.pending);
                    }
                }
            }
            if !driven.roster.status().connected {
                driven.roster.connected();
                model.new_session();
            }
            let world: BTreeMap<String, u8> =
                driven.world.iter().map(|(uid, (netns, _))| (uid.clone(), *netns)).collect();
            assert_eq!(world, model.up, "seed {seed}, step {step}");
            let status = driven.roster.status();
            let expected = (model.up.len(), model.pending.len(), model.snapshot);
            let got = (status.active, status.pending, status.snapshot);
            assert_eq!(got, expected, "seed {seed}, step {step}");
            let balance = status.started - status.stopped;
            assert_eq!(balance, model.up.len() as u64, "seed {seed}, step {step}");
        }
    }
}
