use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;

use tokio::time::{advance, sleep};

use super::*;
use crate::path::StartError;
use crate::sys::seqpacket::Listener;

/// A folder of the test's own with the agent's socket, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("adit-feed-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("agent.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a start or a stop does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Works,
    Fails,
    Hangs,
    /// Takes longer than the agent waits, while nobody else runs.
    Blocks,
}

#[derive(Clone, Debug)]
struct FakeHost(Rc<Fake>);

#[derive(Debug)]
struct Fake {
    start: Cell<Behaviour>,
    stop: Cell<Behaviour>,
    up: RefCell<BTreeSet<String>>,
    attempts: Cell<usize>,
}

impl FakeHost {
    fn new() -> Self {
        Self(Rc::new(Fake {
            start: Cell::new(Behaviour::Works),
            stop: Cell::new(Behaviour::Works),
            up: RefCell::default(),
            attempts: Cell::new(0),
        }))
    }

    fn up(&self) -> Vec<String> {
        self.0.up.borrow().iter().cloned().collect()
    }
}

impl Host for FakeHost {
    async fn start(&self, spec: PodSpec) -> Result<(), StartError> {
        assert_eq!(spec.netns.unwrap().id(), Netns::current().unwrap().id());
        self.0.attempts.set(self.0.attempts.get() + 1);
        match self.0.start.get() {
            Behaviour::Works => {}
            Behaviour::Fails => return Err(StartError("address in use".to_owned())),
            Behaviour::Hangs => std::future::pending().await,
            Behaviour::Blocks => advance(ANSWER_MAX).await,
        }
        self.0.up.borrow_mut().insert(spec.uid.to_string());
        Ok(())
    }

    async fn stop(&self, uid: &str) {
        while self.0.stop.get() == Behaviour::Hangs {
            sleep(Duration::from_millis(100)).await;
        }
        self.0.up.borrow_mut().remove(uid);
    }
}

/// The agent's side of one session.
struct Agent(Connection);

impl Agent {
    async fn accept(listener: &Listener) -> Self {
        let connection = listener.accept().await.unwrap();
        let agent = Self(connection);
        assert_eq!(Hello::decode(&agent.receive().await), Ok(Hello));
        agent
    }

    async fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let packet = self.0.recv(&mut buffer).await.unwrap();
        assert!(!packet.truncated && packet.fds.is_empty());
        buffer.truncate(packet.len);
        buffer
    }

    /// The answer, or `None` if the session has ended.
    async fn answer(&self) -> Option<Result<(), String>> {
        let bytes = self.receive().await;
        if bytes.is_empty() {
            return None;
        }
        Some(Ack::decode(&bytes).unwrap().error.map_or(Ok(()), Err))
    }

    async fn say(&self, request: Request) -> Option<Result<(), String>> {
        self.0.send(&request.encode(), None).await.unwrap();
        self.answer().await
    }

    async fn add_from(&self, uid: &str, fd: impl AsFd) -> Option<Result<(), String>> {
        let request = Request::Add {
            uid: uid.into(),
            name: format!("pod-{uid}").into(),
            namespace: "n".into(),
            service_account: "s".into(),
        };
        self.0.send(&request.encode(), Some(fd.as_fd())).await.unwrap();
        self.answer().await
    }

    async fn add(&self, uid: &str) -> Option<Result<(), String>> {
        self.add_from(uid, Netns::current().unwrap().fd()).await
    }

    async fn del(&self, uid: &str) -> Option<Result<(), String>> {
        self.say(Request::Del { uid: uid.into() }).await
    }

    async fn snapshot(&self) {
        assert_eq!(self.say(Request::SnapshotSent).await, Some(Ok(())));
    }
}

struct World {
    listener: Listener,
    host: FakeHost,
    status: watch::Receiver<PodsStatus>,
    listing: Listing,
    clock: Clock,
}

impl World {
    async fn status(&mut self, wanted: impl Fn(&PodsStatus) -> bool) -> PodsStatus {
        let waited = timeout(Duration::from_secs(3600), self.status.wait_for(wanted)).await;
        *waited.expect("the status comes").unwrap()
    }

    fn seconds(&self, begin: std::time::Instant) -> f64 {
        self.clock.monotonic().duration_since(begin).as_secs_f64()
    }
}

/// Runs a test beside a feed.
async fn feed<F: Future<Output = ()>>(name: &str, test: impl FnOnce(World) -> F) {
    let folder = Folder::new(name);
    let listener = Listener::bind(&folder.socket()).unwrap();
    let (host, clock) = (FakeHost::new(), Clock::system());
    let rng = fastrand::Rng::with_seed(1);
    let (feed, status) = Feed::new(folder.socket(), host.clone(), clock.clone(), rng);
    let listing = feed.listing();
    tokio::select! {
        () = feed.run() => panic!("a feed never ends"),
        () = test(World { listener, host, status, listing, clock }) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_from_hello_to_del() {
    feed("session", async |mut world| {
        let agent = Agent::accept(&world.listener).await;
        assert_eq!(agent.add("a").await, Some(Ok(())));
        assert_eq!(agent.say(Request::Keep { uid: "b".into() }).await, Some(Ok(())));
        assert!(!world.status(|s| s.active == 1).await.ready());
        agent.snapshot().await;
        assert!(world.status(|s| s.snapshot).await.ready());
        assert_eq!(agent.add("c").await, Some(Ok(())));
        assert_eq!(world.host.up(), ["a", "c"]);
        let mut listed = world.listing.lock().unwrap().clone();
        listed.sort_by_key(|(uid, ..)| Arc::clone(uid));
        let listed: Vec<_> =
            listed.iter().map(|(uid, name, up)| (&**uid, name.to_string(), *up)).collect();
        assert_eq!(listed, [("a", "n/pod-a".to_owned(), true), ("c", "n/pod-c".to_owned(), true)]);
        assert_eq!(agent.del("a").await, Some(Ok(())));
        assert_eq!(agent.del("unknown").await, Some(Ok(())));
        assert_eq!(world.host.up(), ["c"]);
        let status = world.status(|s| s.active == 1).await;
        assert_eq!((status.started, status.stopped, status.refused), (2, 1, 0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pods_outlive_sessions_and_snapshots_reconcile() {
    feed("reconnect", async |mut world| {
        let agent = Agent::accept(&world.listener).await;
        for uid in ["a", "b", "c"] {
            agent.add(uid).await;
        }
        agent.snapshot().await;
        drop(agent);
        assert!(!world.status(|s| !s.connected).await.ready());
        assert_eq!(world.host.up(), ["a", "b", "c"]);
        let agent = Agent::accept(&world.listener).await;
        agent.add("a").await;
        agent.say(Request::Keep { uid: "b".into() }).await;
        assert_eq!(world.host.up(), ["a", "b", "c"]);
        agent.snapshot().await;
        assert_eq!(world.host.up(), ["a", "b"]);
        assert_eq!(world.host.0.attempts.get(), 3);
        assert!(world.status(|s| s.snapshot).await.ready());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_message_is_answered_and_ends_the_session() {
    feed("broken", async |world| {
        let long = vec![b'x'; PACKET_BYTES_MAX + 1];
        let agent = Agent::accept(&world.listener).await;
        agent.add("a").await;
        agent.snapshot().await;
        drop(agent);
        let check = async |bytes: &[u8], reason: &str| {
            let agent = Agent::accept(&world.listener).await;
            agent.0.send(bytes, None).await.unwrap();
            let error = agent.answer().await.unwrap().unwrap_err();
            assert!(error.contains(reason), "{error}");
            assert_eq!(agent.answer().await, None, "{reason}");
            assert_eq!(world.host.up(), ["a"]);
        };
        check(b"\xff", "not a message").await;
        check(&long, "longer than").await;
        check(b"\x0a\x04\x0a\x02u1", "without workload info").await;
        check(b"\x0a\x0c\x0a\x02u1\x12\x06\x0a\x01a\x12\x01b", "without its namespace").await;
        // One bad descriptor is the trouble of one pod.
        let agent = Agent::accept(&world.listener).await;
        let file = File::open("/dev/null").unwrap();
        let error = agent.add_from("b", &file).await.unwrap().unwrap_err();
        assert!(error.contains("namespace of pod n/pod-b is unusable"), "{error}");
        assert_eq!(agent.add("c").await, Some(Ok(())));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn every_answer_comes_in_time_and_failures_are_tried_again() {
    feed("slow", async |mut world| {
        let agent = Agent::accept(&world.listener).await;
        agent.snapshot().await;
        world.host.0.start.set(Behaviour::Fails);
        let error = agent.add("a").await.unwrap().unwrap_err();
        assert_eq!(error, "cannot start pod n/pod-a: address in use");
        world.host.0.start.set(Behaviour::Hangs);
        for uid in ["b", "c", "d", "e", "f", "g", "h"] {
            // Just when another pod is tried again, and hangs.
            let before = world.host.0.attempts.get();
            while world.host.0.attempts.get() == before {
                sleep(Duration::from_millis(1)).await;
            }
            let begin = world.clock.monotonic();
            let error = agent.add(uid).await.unwrap().unwrap_err();
            assert!(error.contains("not open after 2s"), "{error}");
            let seconds = world.seconds(begin);
            assert!((2.0..4.7).contains(&seconds), "{uid}: {seconds}");
        }
        assert_eq!(world.status(|s| s.pending == 8).await.active, 0);
        world.host.0.start.set(Behaviour::Works);
        let status = world.status(|s| s.pending == 0).await;
        assert_eq!((status.active, status.ready()), (8, true));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_stops_slowly_is_not_given_up() {
    feed("stopping", async |world| {
        let agent = Agent::accept(&world.listener).await;
        agent.add("a").await;
        agent.snapshot().await;
        world.host.0.stop.set(Behaviour::Hangs);
        let error = agent.del("a").await.unwrap().unwrap_err();
        assert!(error.contains("still stopping"), "{error}");
        assert_eq!(world.host.up(), ["a"]);
        drop(agent);
        // Even between sessions.
        world.host.0.stop.set(Behaviour::Works);
        sleep(Duration::from_millis(200)).await;
        assert!(world.host.up().is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_never_sent() {
    feed("late", async |world| {
        let agent = Agent::accept(&world.listener).await;
        world.host.0.start.set(Behaviour::Blocks);
        assert_eq!(agent.add("a").await, None);
        assert_eq!(world.host.up(), ["a"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn sessions_are_paced_and_attempts_back_off() {
    feed("pace", async |world| {
        // After a whole snapshot: at once, but not more than four a second.
        let begin = world.clock.monotonic();
        for _ in 0..9 {
            let agent = Agent::accept(&world.listener).await;
            agent.snapshot().await;
        }
        let seconds = world.seconds(begin);
        assert!((2.0..2.1).contains(&seconds), "{seconds}");
        // Without one: later and later, up to 15 s and a fifth.
        let begin = world.clock.monotonic();
        for _ in 0..16 {
            drop(Agent::accept(&world.listener).await);
        }
        let seconds = world.seconds(begin);
        assert!((50.0..110.0).contains(&seconds), "{seconds}");
        let begin = world.clock.monotonic();
        drop(Agent::accept(&world.listener).await);
        let seconds = world.seconds(begin);
        assert!((12.0..=18.1).contains(&seconds), "{seconds}");
        // A good session takes the back-off away.
        let agent = Agent::accept(&world.listener).await;
        agent.snapshot().await;
        drop(agent);
        let begin = world.clock.monotonic();
        drop(Agent::accept(&world.listener).await);
        assert!(world.seconds(begin) <= 0.26);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_late_is_found() {
    let folder = Folder::new("absent");
    let (host, clock) = (FakeHost::new(), Clock::system());
    let rng = fastrand::Rng::with_seed(2);
    let (feed, _status) = Feed::new(folder.socket(), host.clone(), clock, rng);
    let agent = async {
        sleep(Duration::from_secs(600)).await;
        let listener = Listener::bind(&folder.socket()).unwrap();
        let agent = Agent::accept(&listener).await;
        assert_eq!(agent.add("a").await, Some(Ok(())));
    };
    tokio::select! {
        () = feed.run() => panic!("a feed never ends"),
        () = agent => {}
    }
    assert_eq!(host.up(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn two_proxies_overlap_at_one_agent() {
    let folder = Folder::new("overlap");
    let listener = Listener::bind(&folder.socket()).unwrap();
    let hosts = [FakeHost::new(), FakeHost::new()];
    let [(old, mut old_status), (new, mut new_status)] = [0, 1].map(|at| {
        let rng = fastrand::Rng::with_seed(3);
        Feed::new(folder.socket(), hosts[at].clone(), Clock::system(), rng)
    });
    let agent = async {
        let first = Agent::accept(&listener).await;
        let second = Agent::accept(&listener).await;
        for agent in [&first, &second] {
            assert_eq!(agent.add("a").await, Some(Ok(())));
            agent.snapshot().await;
        }
        assert!(old_status.wait_for(|s| s.ready()).await.is_ok());
        assert!(new_status.wait_for(|s| s.ready()).await.is_ok());
        // Adds go to the newest, dels to both (spec node-and-pods 3).
        assert_eq!(second.add("b").await, Some(Ok(())));
        for agent in [&first, &second] {
            assert_eq!(agent.del("b").await, Some(Ok(())));
            assert_eq!(agent.del("a").await, Some(Ok(())));
        }
    };
    tokio::select! {
        () = old.run() => panic!("a feed never ends"),
        () = new.run() => panic!("a feed never ends"),
        () = agent => {}
    }
    assert!(hosts.iter().all(|host| host.up().is_empty()));
}
