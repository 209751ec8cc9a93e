//! The stream from the control plane: connects, asks, applies, answers, and comes back.
//!
//! Whatever happens to the stream, what was published stays (spec xds 5.3): a proxy whose control
//! plane is gone serves what it knows.

mod keep;
mod mesh;
mod readers;
mod status;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::stream::unfold;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, Streaming};

use super::ads::Ads;
use super::backoff::Backoff;
use super::node;
use super::stored::Origin;
use crate::config::{XdsNode, XdsSnapshot};
use crate::creds::{Connect, explain_status};
use crate::model::{Lookups, Publisher};
use crate::report::metrics::XdsMetrics;
use crate::sys::clock::Clock;
use crate::wire::xds::ResourceType;
use crate::wire::xds::discovery::aggregated_discovery_service_client as client;
use crate::wire::xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use keep::Keep;
use mesh::{Applied, Mesh, lock};
use readers::{Event, Readers};
use status::Teller;
pub use status::XdsStatus;

/// The largest response (spec xds 1).
const RESPONSE_BYTES_MAX: usize = 200 << 20;
/// Responses that are applied and published together, when they have come together.
const BATCH_MAX: usize = 64;
/// Bytes of responses after which no more are waited for.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Requests that wait to be sent.
const REQUESTS_MAX: usize = 2 * BATCH_MAX;
/// A stream that was answered and lived for so long ends a series of failures; one that keeps
/// breaking at once does not.
const STABLE: Duration = Duration::from_secs(10);
/// How long a server may take no requests.
const SEND_MAX: Duration = Duration::from_secs(30);
/// More resources than this are applied on a thread of their own: certificates and pods do not
/// have the time.
const INLINE_MAX: usize = 256;

/// The one writer of the mesh when a control plane says what it is.
#[derive(Debug)]
pub struct XdsSource {
    connector: Arc<dyn Connect>,
    mesh: Arc<Mutex<Mesh>>,
    backoff: Backoff,
    /// The next stream tells the server what we have.
    report: bool,
    /// When the stream that is open was answered.
    answered: Option<Instant>,
    teller: Arc<Teller>,
    readers: Option<Lookups>,
    keep: Option<Keep>,
    clock: Clock,
}

/// A response and how many bytes it has.
type Measured = (DeltaDiscoveryResponse, usize);

/// How a stream ended.
#[derive(Debug)]
enum End {
    /// It did not begin.
    NoConnection(String),
    /// The server ended it with an error.
    Failed(Status),
    /// The server ended it, or the connection was lost.
    Lost(String),
    /// The server has nothing more to say.
    Complete,
    /// The fault is ours.
    Internal(String),
}

/// What is needed besides the connection.
#[derive(Debug)]
pub struct XdsParts {
    /// Who we are.
    pub node: XdsNode,
    /// Where the mesh is published.
    pub publisher: Publisher,
    /// What its readers ask for, if the mesh is asked for one by one.
    pub lookups: Option<Lookups>,
    /// Where it is counted.
    pub metrics: XdsMetrics,
    /// The time.
    pub clock: Clock,
    /// The chance behind pauses.
    pub rng: fastrand::Rng,
    /// Where the mesh is kept for the next process, and the server's name there; if it is.
    pub keep: Option<(XdsSnapshot, String)>,
}

impl XdsSource {
    /// A source that asks whoever `connector` connects to. The second value follows where it
    /// stands.
    pub fn new(connector: Arc<dyn Connect>, parts: XdsParts) -> (Self, watch::Receiver<XdsStatus>) {
        let XdsParts { node, publisher, lookups, metrics, clock, rng, keep } = parts;
        let (teller, status) = Teller::new(metrics, clock.clone());
        let name = node.metadata.get("NODE_NAME").and_then(|name| name.as_str());
        let name = name.unwrap_or_default().to_owned();
        let keep = keep.map(|(XdsSnapshot { path, age_max }, server)| {
            let origin = Origin { server, node: name };
            Keep { path, age_max, origin, clock: clock.clone() }
        });
        let told = if lookups.is_some() { Ads::on_demand } else { Ads::new };
        let mesh = Mesh::new(told(node::message(&node), keep.is_some()), publisher);
        let source = Self {
            connector,
            mesh: Arc::new(Mutex::new(mesh)),
            backoff: Backoff::new(rng),
            report: true,
            answered: None,
            teller: Arc::new(teller),
            readers: lookups,
            keep,
            clock,
        };
        (source, status)
    }

    /// Asks and applies until the future is dropped.
    pub async fn run(mut self) {
        let Some(keep) = self.keep.take() else { return self.follow().await };
        let keeping = keep.run(Arc::clone(&self.mesh), Arc::clone(&self.teller));
        tokio::join!(self.follow(), keeping);
    }

    async fn follow(mut self) {
        let mut readers = Readers::new(self.readers.take());
        loop {
            let end = self.stream(&mut readers).await;
            self.report = end.leaves_reportable();
            let lived = self.answered.take().map(|at| self.clock.monotonic().duration_since(at));
            if lived.is_some_and(|lived| lived >= STABLE) {
                self.backoff.reset();
            }
            let pause = self.backoff.pause();
            self.teller.ended(&end, pause);
            readers.meanwhile(&self.mesh, sleep(pause)).await;
        }
    }

    /// One stream, from the connection to its end.
    async fn stream(&mut self, readers: &mut Readers) -> End {
        let connected = readers.meanwhile(&self.mesh, self.connector.connect()).await;
        let channel = match connected {
            Ok(channel) => channel,
            Err(error) => return End::NoConnection(error.to_string()),
        };
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let first = lock(&self.mesh).open(self.report);
        for request in first {
            // There is room for one of each type.
            let _ = requests.try_send(request);
        }
        let queue = unfold(queue, |mut queue| async { Some((queue.recv().await?, queue)) });
        let mut client = client::AggregatedDiscoveryServiceClient::new(channel)
            .max_decoding_message_size(RESPONSE_BYTES_MAX);
        let opened = client.delta_aggregated_resources(Box::pin(queue));
        let mut responses = match readers.meanwhile(&self.mesh, opened).await {
            Ok(responses) => responses.into_inner(),
            Err(status) => return End::of(status),
        };
        loop {
            if let Err(end) = self.look_up(&requests).await {
                return end;
            }
            let (batch, end) = tokio::select! {
                biased;
                event = readers.next() => {
                    match event {
                        Event::Wanted(wanted) => lock(&self.mesh).want(wanted),
                        Event::Turn => {
                            let lookups = lock(&self.mesh).turn();
                            self.teller.looked_up(lookups);
                        }
                    }
                    continue;
                }
                next = next_batch(&mut responses) => next,
            };
            if let Err(end) = self.take(batch, &requests).await {
                return end;
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Asks for what readers ask for.
    async fn look_up(&self, requests: &mpsc::Sender<DeltaDiscoveryRequest>) -> Result<(), End> {
        loop {
            let Some(request) = lock(&self.mesh).next_lookup() else { return Ok(()) };
            send(requests, request).await?;
        }
    }

    /// Applies responses, publishes, and only then answers them.
    async fn take(
        &mut self,
        batch: Vec<Measured>,
        requests: &mpsc::Sender<DeltaDiscoveryRequest>,
    ) -> Result<(), End> {
        if batch.is_empty() {
            return Ok(());
        }
        for (response, bytes) in &batch {
            self.teller.received(&response.type_url, *bytes);
        }
        let batch = batch.into_iter().map(|(response, _)| response).collect();
        let applied = self.apply(batch).await?;
        if applied.heard && self.answered.is_none() {
            self.answered = Some(self.clock.monotonic());
        }
        self.teller.applied(&applied);
        for request in applied.answers {
            send(requests, request).await?;
        }
        Ok(())
    }

    async fn apply(&self, batch: Vec<DeltaDiscoveryResponse>) -> Result<Applied, End> {
        let size = |r: &DeltaDiscoveryResponse| r.resources.len() + r.removed_resources.len();
        let inline = batch.iter().map(size).sum::<usize>() <= INLINE_MAX;
        let mesh = Arc::clone(&self.mesh);
        let apply = move || lock(&mesh).apply(batch);
        if inline {
            // A fault of ours ends the stream, not the client: everything is asked for again.
            let applied = catch_unwind(AssertUnwindSafe(apply));
            return applied.map_err(|_| End::Internal("it panicked".to_owned()));
        }
        spawn_blocking(apply).await.map_err(|error| End::Internal(error.to_string()))
    }
}

async fn send(
    requests: &mpsc::Sender<DeltaDiscoveryRequest>,
    request: DeltaDiscoveryRequest,
) -> Result<(), End> {
    match timeout(SEND_MAX, requests.send(request)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(End::Lost("the server takes no requests".to_owned())),
    }
}

/// The next response, and those that have come with it; and the end, if that has come too.
async fn next_batch(
    responses: &mut Streaming<DeltaDiscoveryResponse>,
) -> (Vec<Measured>, Option<End>) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut next = Some(responses.message().await);
    while let Some(message) = next {
        match message {
            Ok(Some(response)) => {
                let size = response.encoded_len();
                bytes += size;
                batch.push((response, size));
            }
            Ok(None) => return (batch, Some(End::Complete)),
            Err(status) => return (batch, Some(End::of(status))),
        }
        let more = batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX;
        next = if more { responses.message().now_or_never() } else { None };
    }
    (batch, None)
}

impl End {
    fn of(status: Status) -> Self {
        // With a cause it is the connection's fault, and not what the server says.
        match std::error::Error::source(&status) {
            Some(_) => Self::Lost(explain_status(&status)),
            None => Self::Failed(status),
        }
    }

    /// Whether the next stream may tell the server what we have.
    fn leaves_reportable(&self) -> bool {
        match self {
            // Too many names, perhaps: without them it is smaller (spec xds 5.3).
            Self::Failed(status) => status.code() != Code::ResourceExhausted,
            // What was applied is not known for sure: everything is asked for.
            Self::Internal(_) => false,
            Self::NoConnection(_) | Self::Lost(_) | Self::Complete => true,
        }
    }

    /// The words of `istio_xds_connection_terminations` (spec operations 7).
    const REASONS: [&str; 4] = ["ConnectionError", "Error", "Reconnect", "Complete"];

    /// One of them.
    fn reason(&self) -> &'static str {
        match self {
            Self::NoConnection(_) => "ConnectionError",
            Self::Failed(_) | Self::Internal(_) => "Error",
            Self::Lost(_) => "Reconnect",
            Self::Complete => "Complete",
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoConnection(why) | Self::Lost(why) => f.write_str(why),
            Self::Failed(status) => {
                write!(f, "the control plane refused: {}", explain_status(status))
            }
            Self::Complete => f.write_str("the control plane ended the stream"),
            Self::Internal(why) => write!(f, "applying failed: {why}"),
        }
    }
}

/// The type with this name, for labels.
fn url_of(type_url: &str) -> &'static str {
    ResourceType::from_url(type_url).map_or("other", ResourceType::url)
}
