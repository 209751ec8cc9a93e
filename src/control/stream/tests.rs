use std::net::SocketAddr;
use std::path::Path;

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost_types::Any;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinSet;
use tonic::codegen::Service;
use tonic::{Request, Response};

use super::*;
use crate::config::{TlsPolicy, TrustRoot, Upstream};
use crate::creds::{Channel, ChannelError, Connector, Settings};
use crate::model::{NetworkAddr, View, Wanted};
use crate::wire::xds::discovery::Resource;
use crate::wire::xds::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use crate::wire::xds::workload::address::Type;
use crate::wire::xds::workload::{self, Address};

/// For what must happen; time is paused, so that nothing waits.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Where the mesh is published and read, and what its readers ask for.
type Told = (Publisher, View, Option<Lookups>);
type Sent = Result<DeltaDiscoveryResponse, Status>;

/// One stream, in the hands of the test.
struct Stream {
    requests: mpsc::UnboundedReceiver<DeltaDiscoveryRequest>,
    responses: mpsc::UnboundedSender<Sent>,
}

/// A server that hands its streams to the test.
#[derive(Debug)]
struct Served(mpsc::UnboundedSender<Stream>, Mutex<JoinSet<()>>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Served {
    type DeltaAggregatedResourcesStream = BoxStream<'static, Sent>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let mut incoming = request.into_inner();
        let (asked, requests) = mpsc::unbounded_channel();
        let (responses, queue) = mpsc::unbounded_channel();
        self.1.lock().unwrap().spawn(async move {
            while let Ok(Some(request)) = incoming.message().await {
                let _ = asked.send(request);
            }
        });
        let _ = self.0.send(Stream { requests, responses });
        let queue = unfold(queue, |mut queue| async { Some((queue.recv().await?, queue)) });
        Ok(Response::new(Box::pin(queue)))
    }
}

/// The way to the server: by default as it should be.
#[derive(Debug)]
struct Net {
    connector: Connector,
    served: Arc<Served>,
    garbage: Mutex<bool>,
    down: Mutex<bool>,
    attempts: AtomicUsize,
    tasks: Mutex<JoinSet<()>>,
}

impl Connect for Net {
    fn connect(&self) -> BoxFuture<'_, Result<Channel, ChannelError>> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        if *self.down.lock().unwrap() {
            let address = SocketAddr::from(([127, 0, 0, 1], 15_012));
            let reason = "Connection refused".to_owned();
            return Box::pin(async move { Err(ChannelError::Unreachable { address, reason }) });
        }
        let (ours, theirs) = duplex(64 * 1024);
        if *self.garbage.lock().unwrap() {
            self.tasks.lock().unwrap().spawn(say_garbage(theirs));
        } else {
            let server = AggregatedDiscoveryServiceServer::from_arc(Arc::clone(&self.served));
            let service = service_fn(move |request| server.clone().call(request));
            let connection = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(theirs), service);
            self.tasks.lock().unwrap().spawn(async { drop(connection.await) });
        }
        Box::pin(self.connector.over(ours))
    }
}

async fn say_garbage(mut stream: DuplexStream) {
    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
}

/// A source that asks the server, and what its readers see.
struct Stage {
    net: Arc<Net>,
    streams: mpsc::UnboundedReceiver<Stream>,
    view: View,
    status: watch::Receiver<XdsStatus>,
    metrics: XdsMetrics,
    _run: JoinSet<()>,
}

impl Stage {
    fn new() -> Self {
        Self::keeping(None)
    }

    fn keeping(path: Option<&Path>) -> Self {
        let (publisher, view) = Publisher::new();
        Self::of((publisher, view, None), path)
    }

    fn on_demand() -> Self {
        let (publisher, view, lookups) = Publisher::on_demand();
        Self::of((publisher, view, Some(lookups)), None)
    }

    fn of((publisher, view, lookups): Told, path: Option<&Path>) -> Self {
        let upstream = Upstream {
            address: "https://istiod:15012".parse().unwrap(),
            root: TrustRoot::System,
            alternative_name: None,
            token: None,
            cluster_id: "c1".into(),
            headers: Vec::new(),
        };
        let settings =
            Settings { tls: TlsPolicy::Tls13, certificate_ttl: Duration::from_secs(3_600) };
        let (served, streams) = mpsc::unbounded_channel();
        let net = Arc::new(Net {
            connector: Connector::new(upstream, &settings, Clock::system()),
            served: Arc::new(Served(served, Mutex::default())),
            garbage: Mutex::default(),
            down: Mutex::default(),
            attempts: AtomicUsize::new(0),
            tasks: Mutex::default(),
        });
        let metrics = XdsMetrics::default();
        let parts = XdsParts {
            node: XdsNode { id: "ztunnel~".to_owned(), metadata: Default::default() },
            publisher,
            lookups,
            metrics: metrics.clone(),
            clock: Clock::system(),
            rng: fastrand::Rng::with_seed(1),
            keep: path.map(|path| {
                let (path, age_max) = (path.to_owned(), Duration::from_secs(3_600));
                (XdsSnapshot { path, age_max }, "https://istiod:15012".to_owned())
            }),
        };
        let (source, status) = XdsSource::new(Arc::clone(&net) as Arc<dyn Connect>, parts);
        let mut run = JoinSet::new();
        run.spawn(source.run());
        Self { net, streams, view, status, metrics, _run: run }
    }

    /// The next stream, with its two first requests.
    async fn stream(&mut self) -> (Stream, [DeltaDiscoveryRequest; 2]) {
        let mut stream = timeout(PATIENCE, self.streams.recv()).await.unwrap().unwrap();
        let first = [stream.request().await, stream.request().await];
        (stream, first)
    }

    async fn until(&mut self, wanted: impl Fn(&XdsStatus) -> bool) -> XdsStatus {
        let status = timeout(PATIENCE, self.status.wait_for(wanted)).await.unwrap();
        status.unwrap().clone()
    }
}

impl Stream {
    async fn request(&mut self) -> DeltaDiscoveryRequest {
        timeout(PATIENCE, self.requests.recv()).await.unwrap().unwrap()
    }

    /// Sends a response; its answer.
    async fn ask(&mut self, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
        self.responses.send(Ok(response)).unwrap();
        self.request().await
    }

    async fn begin(&mut self, pods: Vec<Resource>) {
        self.ask(addresses("1", pods)).await;
        self.ask(policies("2")).await;
    }
}

fn addresses(nonce: &str, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    let type_url = ResourceType::Address.url().to_owned();
    DeltaDiscoveryResponse { type_url, resources, nonce: nonce.to_owned(), ..Default::default() }
}

fn policies(nonce: &str) -> DeltaDiscoveryResponse {
    let type_url = ResourceType::Authorization.url().to_owned();
    DeltaDiscoveryResponse { type_url, nonce: nonce.to_owned(), ..Default::default() }
}

fn pod(uid: &str, protocol: i32) -> Resource {
    let pod = workload::Workload {
        uid: uid.to_owned(),
        tunnel_protocol: protocol,
        ..workload::Workload::default()
    };
    let value = Address { r#type: Some(Type::Workload(pod)) }.encode_to_vec();
    Resource {
        name: uid.to_owned(),
        version: "v1".to_owned(),
        resource: Some(Any { type_url: String::new(), value }),
        ..Resource::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_answered_is_in_force() {
    let mut stage = Stage::new();
    let (mut stream, first) = stage.stream().await;
    assert_eq!(first.map(|request| request.node.unwrap().id), ["ztunnel~"; 2]);
    let ack = stream.ask(addresses("n1", vec![pod("a", 0)])).await;
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("n1", None));
    assert!(!stage.status.borrow().loaded);
    assert_eq!(stage.view.load().generation(), 0);
    stream.ask(policies("n2")).await;
    // The answer to the last of them has come, so that the mesh is there.
    assert_eq!(stage.view.load().counts(), (1, 0, 0));
    let status = stage.until(|status| status.connected).await;
    assert!(status.loaded && status.error.is_none() && status.last_response.is_some());
    let nack = stream.ask(addresses("n3", vec![pod("b", 9), pod("c", 1)])).await;
    assert_eq!(nack.error_detail.unwrap().message, "b: tunnel_protocol: 9 is not served");
    // What is rejected is stood in for.
    assert_eq!(stage.view.load().counts(), (3, 0, 0));
    let dump = stage.status.borrow().dump();
    assert_eq!(dump["types"]["Address"]["nacks"], 1);
    let flaw = "tunnel_protocol: 9 is not served";
    assert_eq!(dump["types"]["Address"]["rejected"], serde_json::json!({ "b": flaw }));
    assert_eq!(stage.metrics.connected.get(), 1);
    assert_ne!(stage.metrics.last_response_seconds.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_asked_for_again_and_what_was_known_stays() {
    let mut stage = Stage::new();
    let (mut stream, _) = stage.stream().await;
    stream.begin(vec![pod("a", 0), pod("b", 0)]).await;
    *stage.net.down.lock().unwrap() = true;
    drop(stream);
    let began = Clock::system().monotonic();
    // A day and more, at 7.5 s on average.
    let status = stage.until(|status| status.failures > 12_000).await;
    let passed = Clock::system().monotonic().duration_since(began);
    assert!(passed > Duration::from_secs(24 * 3_600), "{passed:?}");
    assert!(status.loaded && !status.connected, "{status:?}");
    assert!(status.error.as_ref().unwrap().contains("Connection refused"), "{status:?}");
    assert_eq!(stage.metrics.connected.get(), 0);
    assert_eq!(stage.view.load().counts(), (2, 0, 0));
    *stage.net.down.lock().unwrap() = false;
    let (mut stream, first) = stage.stream().await;
    let versions = first[0].initial_resource_versions.clone().into_iter();
    let expected = [("a", "v1"), ("b", "v1")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(versions.collect::<Vec<_>>(), expected);
    stream.begin(Vec::new()).await;
    let status = stage.until(|status| status.connected).await;
    assert_eq!((status.failures, status.error), (0, None));
    assert_eq!(stage.view.load().counts(), (2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_told_too_much_is_told_nothing() {
    let mut stage = Stage::new();
    let (mut stream, _) = stage.stream().await;
    stream.begin(vec![pod("a", 0)]).await;
    stream.responses.send(Err(Status::resource_exhausted("larger than max"))).unwrap();
    let (stream, first) = stage.stream().await;
    assert!(first[0].initial_resource_versions.is_empty());
    // Any other end is no reason for that.
    stream.responses.send(Err(Status::unavailable("restarts"))).unwrap();
    let (_stream, first) = stage.stream().await;
    assert_eq!(first[0].initial_resource_versions.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn however_streams_end_they_are_counted_and_begun_again() {
    let mut stage = Stage::new();
    for _ in 0..3 {
        let (stream, _) = stage.stream().await;
        drop(stream);
    }
    let (stream, _) = stage.stream().await;
    stream.responses.send(Err(Status::permission_denied("who are you"))).unwrap();
    let status =
        stage.until(|status| status.error.as_ref().is_some_and(|e| e.contains("who"))).await;
    let expected = "the control plane refused: PermissionDenied: who are you";
    assert_eq!(status.error.as_deref(), Some(expected));
    *stage.net.garbage.lock().unwrap() = true;
    drop(stream);
    let before = stage.net.attempts.load(Ordering::SeqCst);
    let began = Clock::system().monotonic();
    let status = stage.until(|status| status.failures > 60).await;
    assert!(!status.loaded);
    // Never a storm: the pauses grow.
    let attempts = stage.net.attempts.load(Ordering::SeqCst) - before;
    let least = Duration::from_secs(2) * u32::try_from(attempts).unwrap() / 2;
    let passed = Clock::system().monotonic().duration_since(began);
    assert!(passed > least, "{attempts} attempts in {passed:?}");
    *stage.net.garbage.lock().unwrap() = false;
    let (mut stream, _) = stage.stream().await;
    stream.begin(vec![pod("a", 0)]).await;
    stage.until(|status| status.connected).await;
}

#[tokio::test(start_paused = true)]
async fn many_resources_are_applied_apart_and_in_order() {
    let mut stage = Stage::new();
    let (mut stream, _) = stage.stream().await;
    let pods = |range: std::ops::Range<usize>| range.map(|n| pod(&format!("uid-{n}"), 0)).collect();
    stream.begin(pods(0..INLINE_MAX + 1)).await;
    assert_eq!(stage.view.load().counts().0, INLINE_MAX + 1);
    // Several that come together are one generation at least, and all are answered.
    for n in 0..10 {
        let response = addresses(&n.to_string(), pods(1_000 + n..1_001 + n));
        stream.responses.send(Ok(response)).unwrap();
    }
    for n in 0..10 {
        assert_eq!(stream.request().await.response_nonce, n.to_string());
    }
    assert_eq!(stage.view.load().counts().0, INLINE_MAX + 11);
    stage.until(|status| status.connected).await;
}

/// A file in the temporary folder that goes with the test.
struct Kept(std::path::PathBuf);

impl Kept {
    fn new(name: &str) -> Self {
        let name = format!("adit-kept-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_without_control_plane_begins_with_what_the_last_one_knew() {
    let kept = Kept::new("next");
    let mut first = Stage::keeping(Some(&kept.0));
    let (mut stream, _) = first.stream().await;
    stream.begin(vec![pod("a", 0), pod("b", 0)]).await;
    first.until(|status| status.saved.is_some()).await;
    assert_ne!(first.metrics.snapshot_saved_seconds.get(), 0);
    drop((first, stream));
    // Nobody is there for the next one.
    let mut next = Stage::keeping(Some(&kept.0));
    *next.net.down.lock().unwrap() = true;
    let status = next.until(|status| status.loaded).await;
    assert!(status.restored.is_some() && !status.connected, "{status:?}");
    assert_eq!(next.view.load().counts(), (2, 0, 0));
    // When somebody is, the difference is asked for.
    *next.net.down.lock().unwrap() = false;
    let (mut stream, first) = next.stream().await;
    assert_eq!(first[0].initial_resource_versions.len(), 2);
    stream.begin(vec![pod("c", 0)]).await;
    assert_eq!(next.view.load().counts(), (3, 0, 0));
    let status = next.until(|status| status.connected).await;
    assert_eq!(status.restored, None);
}

#[tokio::test(start_paused = true)]
async fn what_was_saved_and_cannot_be_used_is_told() {
    let kept = Kept::new("damaged");
    std::fs::write(&kept.0, "adit-xds and then nothing").unwrap();
    let mut stage = Stage::keeping(Some(&kept.0));
    *stage.net.down.lock().unwrap() = true;
    let status = stage.until(|status| status.snapshot_error.is_some()).await;
    assert_eq!(status.snapshot_error.as_deref(), Some("it is not as it was written"));
    assert!(!status.loaded);
    assert_eq!(stage.metrics.snapshot_errors.get(), 1);
    // A server is heard all the same.
    *stage.net.down.lock().unwrap() = false;
    let (mut stream, _) = stage.stream().await;
    stream.begin(vec![pod("a", 0)]).await;
    stage.until(|status| status.connected).await;
    assert_eq!(stage.view.load().counts(), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn streams_that_break_at_once_are_begun_ever_more_slowly() {
    let mut stage = Stage::new();
    let clock = Clock::system();
    let begin = clock.monotonic();
    for _ in 0..20 {
        let (mut stream, _) = stage.stream().await;
        stream.begin(vec![pod("a", 0)]).await;
    }
    let passed = clock.monotonic().duration_since(begin);
    assert!(passed > Duration::from_secs(60), "{passed:?}");
    // One that has lived for a while ends the series.
    let (mut stream, _) = stage.stream().await;
    stream.begin(vec![pod("a", 0)]).await;
    tokio::time::advance(STABLE).await;
    let lost = clock.monotonic();
    drop(stream);
    let _again = stage.stream().await;
    let passed = clock.monotonic().duration_since(lost);
    assert!(passed <= Duration::from_millis(500), "{passed:?}");
}

fn at(ip: [u8; 4]) -> Wanted {
    Wanted::Addr(NetworkAddr { network: "".into(), ip: ip.into() })
}

#[tokio::test(start_paused = true)]
async fn what_readers_ask_for_is_asked_and_answered() {
    let mut stage = Stage::on_demand();
    // Before there is a stream.
    assert!(stage.view.ask(at([10, 0, 0, 1])));
    let (mut stream, first) = stage.stream().await;
    assert_eq!(first[0].resource_names_unsubscribe, ["*"]);
    let mut asked: Vec<String> = first[0].initial_resource_versions.keys().cloned().collect();
    // The question and the stream begin together: whichever is first.
    if asked.is_empty() {
        asked = stream.request().await.resource_names_subscribe;
    }
    assert_eq!(asked, ["/10.0.0.1"]);
    stream.ask(policies("1")).await;
    let ack = stream.ask(DeltaDiscoveryResponse {
        removed_resources: vec!["/10.0.0.1".to_owned()],
        ..addresses("2", Vec::new())
    });
    assert_eq!(ack.await.response_nonce, "2");
    assert!(!stage.view.load().must_ask(&at([10, 0, 0, 1])));
    // On an open stream, together; and what has grown old is not wanted any more.
    assert!(stage.view.ask(at([10, 0, 0, 2])));
    assert!(stage.view.ask(at([10, 0, 0, 3])));
    assert_eq!(stream.request().await.resource_names_subscribe, ["/10.0.0.2", "/10.0.0.3"]);
    assert_eq!(stream.request().await.resource_names_unsubscribe, ["/10.0.0.1"]);
    let old = stage
        .view
        .wait_for(PATIENCE, |snapshot| snapshot.must_ask(&at([10, 0, 0, 1])).then_some(()));
    assert!(old.await.is_some());
    assert_eq!(stage.metrics.lookups.get(), 2);
    // A lost stream loses no question.
    drop(stream);
    let (_stream, first) = stage.stream().await;
    let again: Vec<&String> = first[0].initial_resource_versions.keys().collect();
    assert_eq!(again, ["/10.0.0.2", "/10.0.0.3"]);
}
