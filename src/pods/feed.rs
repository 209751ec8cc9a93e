//! The connection to the node agent (spec node-and-pods 1 and 3).

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::Host;
use super::roster::{Attached, Pod, PodsStatus, Reaction, Roster};
use crate::model::PodName;
use crate::path::PodSpec;
use crate::sys::clock::Clock;
use crate::sys::netns::Netns;
use crate::sys::seqpacket::{Connection, Packet};
use crate::wire::zds::{Ack, Hello, PACKET_BYTES_MAX, Request};

/// First pause between two attempts to reach the agent, and the longest one.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// Between the beginnings of two sessions: the agent accepts five a second from all proxies.
const SESSION_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// After so long the agent takes an answer for that of its next message (spec node-and-pods 3).
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// For the listeners of an added pod to open.
const START_MAX: Duration = Duration::from_secs(2);
/// For those of a pod that failed before: a message may be waiting meanwhile.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// For pods to be cut before the answer says that they are not.
const STOP_MAX: Duration = Duration::from_millis(500);
/// For the agent to take a packet.
const SEND_MAX: Duration = Duration::from_millis(400);

// The worst case: a retry that fails is cleaned up, then a pod is replaced, which fails as well.
const _: () = assert!(
    RETRY_MAX.as_millis()
        + STOP_MAX.as_millis()
        + STOP_MAX.as_millis()
        + START_MAX.as_millis()
        + STOP_MAX.as_millis()
        + SEND_MAX.as_millis()
        < ANSWER_MAX.as_millis()
);

/// The pods of the node as they stand: uid, name, whether it is up.
pub type Listing = Arc<Mutex<Vec<(Arc<str>, PodName, bool)>>>;

/// Keeps a session with the agent, for ever.
///
/// Pods that are served stay served whatever happens to the session.
#[derive(Debug)]
pub struct Feed<H> {
    path: PathBuf,
    host: Rc<H>,
    clock: Clock,
    rng: fastrand::Rng,
    roster: Roster<Home>,
    /// Pods on their way out. They are never given up half-way.
    stopping: FuturesUnordered<LocalBoxFuture<'static, ()>>,
    status: watch::Sender<PodsStatus>,
    listing: Listing,
}

/// A pod's network namespace; equal if it is the same one.
#[derive(Clone, Debug)]
struct Home(Netns);

/// How a session ended.
#[derive(Debug)]
enum Ended {
    Closed,
    Broken(io::Error),
    Late,
    Protocol(String),
}

impl<H: Host + 'static> Feed<H> {
    /// A feed from the agent's socket to `host`. The second value follows where the pods stand.
    pub fn new(
        path: PathBuf,
        host: H,
        clock: Clock,
        rng: fastrand::Rng,
    ) -> (Self, watch::Receiver<PodsStatus>) {
        let (status, follow) = watch::channel(PodsStatus::default());
        let feed = Self {
            path,
            host: Rc::new(host),
            clock,
            rng,
            roster: Roster::new(),
            stopping: FuturesUnordered::new(),
            status,
            listing: Listing::default(),
        };
        (feed, follow)
    }

    /// The pods as they stand, kept up to date.
    pub fn listing(&self) -> Listing {
        Arc::clone(&self.listing)
    }

    /// Connects, follows the session, and connects again, until the future is dropped.
    pub async fn run(mut self) {
        let mut backoff = BACKOFF_FIRST;
        let mut told = None;
        loop {
            let mut next = self.now();
            match self.connect().await {
                Ok(connection) => {
                    told = None;
                    next += SESSION_INTERVAL_MIN;
                    if self.follow(&connection).await {
                        backoff = BACKOFF_FIRST;
                        self.rest_until(next).await;
                        continue;
                    }
                }
                Err(error) => {
                    // Once per kind of error: the agent may be away for hours.
                    if told.replace(error.kind()) != Some(error.kind()) {
                        let path = self.path.display();
                        tracing::warn!(%path, %error, "cannot reach the node agent; trying again");
                    }
                }
            }
            // Up to a fifth more or less, so that proxies do not come all at once.
            let pause = backoff.mul_f64(0.8 + 0.4 * self.rng.f64());
            backoff = (backoff * 2).min(BACKOFF_MAX);
            self.rest_until(next.max(self.now() + pause)).await;
        }
    }

    async fn connect(&self) -> io::Result<Connection> {
        let connection = Connection::connect(&self.path)?;
        send(&connection, &Hello.encode()).await?;
        tracing::info!(path = %self.path.display(), "connected to the node agent");
        Ok(connection)
    }

    /// A session from its beginning to its end. Whether it brought a whole snapshot.
    async fn follow(&mut self, connection: &Connection) -> bool {
        self.roster.connected();
        self.publish();
        let ended = self.session(connection).await;
        let whole = self.roster.status().snapshot;
        match ended {
            Ended::Closed => tracing::info!("the node agent closed the session"),
            Ended::Broken(error) => tracing::warn!(%error, "the agent's session broke"),
            Ended::Late => tracing::error!("an answer is too late for the agent; session ended"),
            Ended::Protocol(error) => {
                tracing::error!(error, "the agent broke the protocol; session ended");
            }
        }
        self.roster.disconnected();
        self.publish();
        whole
    }

    async fn session(&mut self, connection: &Connection) -> Ended {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        loop {
            let retry = self.roster.next_retry().map(Instant::from_std);
            let packet = tokio::select! {
                biased;
                packet = connection.recv(&mut buffer) => packet,
                Some(()) = self.stopping.next() => continue,
                () = until(retry) => {
                    self.retry().await;
                    continue;
                }
            };
            let packet = match packet {
                Ok(packet) if packet.is_end() => return Ended::Closed,
                Ok(packet) => packet,
                Err(error) => return Ended::Broken(error),
            };
            let received = self.now();
            let len = packet.len;
            let (ack, end) = self.message(packet, &buffer[..len]).await;
            self.publish();
            if self.now() >= received + ANSWER_MAX {
                return Ended::Late;
            }
            if let Err(error) = send(connection, &ack.encode()).await {
                return Ended::Broken(error);
            }
            if let Some(error) = end {
                return Ended::Protocol(error);
            }
        }
    }

    /// One message: its answer, and why the session must end if it must.
    async fn message(&mut self, packet: Packet, bytes: &[u8]) -> (Ack, Option<String>) {
        if packet.truncated {
            self.roster.unreadable();
            let error = format!("a message is longer than {PACKET_BYTES_MAX} bytes");
            return (Ack::error(error.clone()), Some(error));
        }
        match self.roster.message(Request::decode(bytes), attached(packet.fds)) {
            Reaction::Stop(uids) => {
                let stopped = self.stop(uids).await;
                (if stopped { Ack::ok() } else { Ack::error("pods are still stopping") }, None)
            }
            Reaction::Start { pod, replace } => {
                if replace {
                    self.stop(vec![Arc::clone(&pod.uid)]).await;
                }
                let started = self.start(pod, START_MAX).await;
                (started.map_or_else(Ack::error, |()| Ack::ok()), None)
            }
            Reaction::Refuse(error) => {
                tracing::error!(error, "a message of the node agent is refused");
                (Ack::error(error), None)
            }
            Reaction::End(error) => (Ack::error(error.clone()), Some(error)),
        }
    }

    async fn start(&mut self, pod: Pod<Home>, limit: Duration) -> Result<(), String> {
        let Pod { uid, name, netns: Home(netns) } = pod;
        let spec = PodSpec { uid: Arc::clone(&uid), name: name.clone(), netns: Some(netns) };
        let started = match timeout(limit, self.host.start(spec)).await {
            Ok(started) => started.map_err(|error| error.to_string()),
            Err(_) => {
                // Whatever was open by then.
                self.stop(vec![Arc::clone(&uid)]).await;
                Err(format!("its listeners are not open after {limit:?}"))
            }
        };
        self.roster.started(&uid, started.is_ok(), self.clock.monotonic());
        match started {
            Ok(()) => {
                tracing::info!(uid = &*uid, pod = %name, "pod started");
                Ok(())
            }
            Err(error) => {
                tracing::error!(uid = &*uid, pod = %name, error, "cannot start pod");
                Err(format!("cannot start pod {name}: {error}"))
            }
        }
    }

    /// Starts the one pod whose turn it is. Then messages go first again.
    async fn retry(&mut self) {
        if let Some(pod) = self.roster.due(self.clock.monotonic()) {
            // The error is logged; the pod stays pending.
            let _ = self.start(pod, RETRY_MAX).await;
            self.publish();
        }
    }

    /// Stops pods, all at once. Whether all were stopped in time; those that were not go on.
    async fn stop(&mut self, uids: Vec<Arc<str>>) -> bool {
        for uid in uids {
            let host = Rc::clone(&self.host);
            self.stopping.push(Box::pin(async move {
                host.stop(&uid).await;
                tracing::info!(uid = &*uid, "pod stopped");
            }));
        }
        let all = async { while self.stopping.next().await.is_some() {} };
        timeout(STOP_MAX, all).await.is_ok()
    }

    /// Waits, while pods go on to stop.
    async fn rest_until(&mut self, time: Instant) {
        let all = async { while self.stopping.next().await.is_some() {} };
        // Done or not: the rest of the time is waited for below.
        let _ = timeout_at(time, all).await;
        sleep_until(time).await;
    }

    fn now(&self) -> Instant {
        Instant::from_std(self.clock.monotonic())
    }

    fn publish(&self) {
        let list = self.roster.list();
        *self.listing.lock().unwrap_or_else(PoisonError::into_inner) =
            list.map(|(uid, name, up)| (Arc::clone(uid), name.clone(), up)).collect();
        self.status.send_replace(self.roster.status());
    }
}

impl PartialEq for Home {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

/// What came with a packet. Descriptors we do not want are closed by being dropped.
fn attached(mut fds: Vec<OwnedFd>) -> Attached<Home> {
    let count = fds.len();
    match fds.pop() {
        None => Attached::Nothing,
        Some(_) if count > 1 => Attached::Several(count),
        Some(fd) => match Netns::from_fd(fd) {
            Ok(netns) => Attached::Netns(Home(netns)),
            Err(error) => Attached::Unusable(error.to_string()),
        },
    }
}

async fn send(connection: &Connection, bytes: &[u8]) -> io::Result<()> {
    timeout(SEND_MAX, connection.send(bytes, None)).await?
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
