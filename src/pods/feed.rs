//! The connection to the node agent (spec node-and-pods 1 and 3).

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::roster::{PodsStatus, Reaction, Roster};
use crate::model::PodName;
use crate::path::{PodHost, PodSpec, StartError};
use crate::sys::clock::Clock;
use crate::sys::netns::Netns;
use crate::sys::seqpacket::{Connection, Packet};
use crate::wire::zds::{Ack, Hello, PACKET_BYTES_MAX, Request};

/// First pause between two attempts to reach the agent, and the longest one.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// A pod whose listeners are not open by then is answered with an error: the agent gives up after
/// 5 s, and a late answer would be taken for the next one's.
const START_MAX: Duration = Duration::from_secs(4);
/// How long the agent may take to take an answer.
const SEND_MAX: Duration = Duration::from_secs(5);

/// Where pods are started and stopped.
pub trait Host {
    /// Starts a pod; done when its listeners are open.
    fn start(&self, spec: PodSpec) -> impl Future<Output = Result<(), StartError>>;
    /// Stops a pod at once.
    fn stop(&self, uid: &str) -> impl Future<Output = ()>;
}

impl Host for PodHost {
    async fn start(&self, spec: PodSpec) -> Result<(), StartError> {
        Self::start(self, spec).await
    }

    async fn stop(&self, uid: &str) {
        Self::stop(self, uid).await;
    }
}

/// The pods of the node as they stand: uid, name, whether it is up.
pub type Listing = Arc<Mutex<Vec<(Arc<str>, PodName, bool)>>>;

/// Keeps a session with the agent, for ever.
#[derive(Debug)]
pub struct Feed<H> {
    path: PathBuf,
    host: H,
    clock: Clock,
    rng: fastrand::Rng,
    roster: Roster,
    status: watch::Sender<PodsStatus>,
    listing: Listing,
}

/// How a session ended.
#[derive(Debug)]
enum Ended {
    Closed,
    Broken(io::Error),
    Protocol(String),
}

impl<H: Host> Feed<H> {
    /// A feed from the agent's socket to `host`. The second value follows where the pods stand.
    pub fn new(
        path: PathBuf,
        host: H,
        clock: Clock,
        rng: fastrand::Rng,
    ) -> (Self, watch::Receiver<PodsStatus>) {
        let (status, follow) = watch::channel(PodsStatus::default());
        let listing = Listing::default();
        (Self { path, host, clock, rng, roster: Roster::default(), status, listing }, follow)
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
            match self.connect().await {
                Ok(connection) => {
                    told = None;
                    self.roster.connected();
                    self.publish();
                    let ended = self.session(&connection).await;
                    if self.roster.status().snapshot {
                        backoff = BACKOFF_FIRST;
                    }
                    match ended {
                        Ended::Closed => tracing::info!("the node agent closed the session"),
                        Ended::Broken(error) => tracing::warn!(%error, "the agent's session broke"),
                        Ended::Protocol(error) => {
                            tracing::error!(error, "the agent broke the protocol; session ended");
                        }
                    }
                    self.roster.disconnected();
                    self.publish();
                }
                Err(error) => {
                    // Once per distinct error: the agent may be away for hours.
                    if told.replace(error.kind()) != Some(error.kind()) {
                        let path = self.path.display();
                        tracing::warn!(%path, %error, "cannot reach the node agent; trying again");
                    }
                }
            }
            sleep(backoff.mul_f64(0.8 + 0.4 * self.rng.f64())).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn connect(&self) -> io::Result<Connection> {
        let connection = Connection::connect(&self.path)?;
        send(&connection, &Hello.encode()).await?;
        tracing::info!(path = %self.path.display(), "connected to the node agent");
        Ok(connection)
    }

    async fn session(&mut self, connection: &Connection) -> Ended {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        loop {
            let retry = self.roster.next_retry().map(Instant::from_std);
            let packet = tokio::select! {
                biased;
                packet = connection.recv(&mut buffer) => packet,
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
            let len = packet.len;
            let (ack, end) = self.message(packet, &buffer[..len]).await;
            if ack.error.is_some() {
                self.roster.complained();
            }
            self.publish();
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
        let end = |error: String| (Ack::error(error.clone()), Some(error));
        if packet.truncated {
            return end(format!("a message is longer than {PACKET_BYTES_MAX} bytes"));
        }
        let request = Request::decode(bytes);
        let (mut fds, added) = (packet.fds, matches!(request, Ok(Request::Add { .. })));
        let fd = fds.pop();
        if !fds.is_empty() {
            return end(format!("a message came with {} descriptors", fds.len() + 1));
        }
        let netns = match fd.map(Netns::from_fd).transpose() {
            Ok(netns) => netns,
            // One pod that cannot be served is no reason to keep the others waiting.
            Err(error) if added => {
                let error = format!("unusable namespace: {error}");
                tracing::error!(error, "cannot start pod");
                return (Ack::error(error), None);
            }
            Err(error) => return end(format!("a descriptor that is no namespace: {error}")),
        };
        match self.roster.message(request, netns) {
            Reaction::Stop(uids) => {
                for uid in uids {
                    self.host.stop(&uid).await;
                    tracing::info!(uid = &*uid, "pod stopped");
                }
                (Ack::ok(), None)
            }
            Reaction::Start { spec, replace } => {
                if replace {
                    self.host.stop(&spec.uid).await;
                }
                let ack = self.start(spec).await.map_or_else(Ack::error, |()| Ack::ok());
                (ack, None)
            }
            Reaction::Refuse(error) => (Ack::error(error), None),
            Reaction::End(error) => end(error),
        }
    }

    async fn start(&mut self, spec: PodSpec) -> Result<(), String> {
        let (uid, name) = (Arc::clone(&spec.uid), spec.name.clone());
        let started = timeout(START_MAX, self.host.start(spec)).await;
        let started = started.unwrap_or_else(|_| Err(StartError("it took too long".to_owned())));
        self.roster.started(&uid, started.is_ok(), self.clock.monotonic());
        match started {
            Ok(()) => {
                tracing::info!(uid = &*uid, pod = %name, "pod started");
                Ok(())
            }
            Err(error) => {
                tracing::error!(uid = &*uid, pod = %name, %error, "cannot start pod");
                Err(format!("cannot start pod {name}: {error}"))
            }
        }
    }

    async fn retry(&mut self) {
        for spec in self.roster.due(self.clock.monotonic()) {
            // The error is logged; the pod stays pending.
            let _ = self.start(spec).await;
        }
        self.publish();
    }

    fn publish(&self) {
        let list = self.roster.list();
        *self.listing.lock().unwrap_or_else(PoisonError::into_inner) =
            list.map(|(uid, name, up)| (Arc::clone(uid), name.clone(), up)).collect();
        self.status.send_replace(self.roster.status());
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
