//! How fast and how small the client of delta xDS is: the first sync of a large mesh, updates that
//! come one by one, and many at once.
//!
//! `cargo bench --bench sync`. The server is this program again, in another process.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit::config::{TrustRoot, Upstream, XdsNode, XdsSnapshot};
use adit::control::stream::{XdsParts, XdsSource};
use adit::creds::{Connector, Settings};
use adit::model::{Delta, Publisher, ServiceKey, View, Workload as MeshWorkload};
use adit::report::metrics::XdsMetrics;
use adit::sys::clock::Clock;
use adit::wire::xds::discovery::aggregated_discovery_service_server as server;
use adit::wire::xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use adit::wire::xds::workload::address::Type;
use adit::wire::xds::workload::{Address, NetworkAddress, Port, PortList, Service, Workload};
use adit::wire::xds::{ResourceType, security};
use futures_util::stream::{BoxStream, unfold};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::resource::{UsageWho, getrusage};
use prost::Message;
use prost_types::Any;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::interval;
use tonic::codegen::Service as _;
use tonic::{Request, Response, Status, Streaming};

const WORKLOADS: usize = 100_000;
const SERVICES: usize = 10_000;
const POLICIES: usize = 10_000;
/// Updates that come one by one, a millisecond apart.
const UPDATES: usize = 5_000;
/// Updates that come at once.
const AT_ONCE: usize = 1_000;
/// The workload whose updates say when they were sent.
const PROBE: &str = "c1//Pod/ns-0/probe";
/// For everything together.
const PATIENCE: Duration = Duration::from_secs(120);

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let client = arguments.iter().skip_while(|argument| *argument != "--client").nth(1);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async {
        let work = async {
            match client {
                _ if has("--serve") => serve_all().await,
                Some(address) => measure_client(address, has("--keeps")).await,
                None => measure().await,
            }
        };
        tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|late| Err(late.into()))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sync: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The server's process; killed with this one's measurement.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn measure() -> Result<(), Failure> {
    let mut child =
        Command::new(std::env::current_exe()?).arg("--serve").stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let server = Server(child);
    let mut address = String::new();
    BufReader::new(output).read_line(&mut address)?;
    for keeps in [&[][..], &["--keeps"]] {
        // A process each, so that none inherits the memory of another.
        let client = [&["--client", address.trim()], keeps].concat();
        let status = Command::new(std::env::current_exe()?).args(client).status()?;
        if !status.success() {
            return Err("a client failed".into());
        }
    }
    drop(server);
    measure_publishing();
    Ok(())
}

/// Publishing alone: one change to a large mesh, and many in one batch.
fn measure_publishing() {
    let clock = Clock::system();
    let pod = |number: usize, revision: usize| {
        let service = ServiceKey {
            namespace: "ns".into(),
            hostname: format!("app-{}.ns", number % SERVICES).into(),
        };
        let [_, high, middle, low] = u32::try_from(number).unwrap_or_default().to_be_bytes();
        MeshWorkload {
            uid: format!("c1//Pod/ns/app-{number}").into(),
            name: format!("app-{number}").into(),
            namespace: "ns".into(),
            canonical_revision: revision.to_string().into(),
            ips: vec![[10, high, middle, low].into()],
            services: vec![(service, [(80, 8080)].into())],
            ..MeshWorkload::default()
        }
    };
    let (mut publisher, _view) = Publisher::new();
    let all = (0..WORKLOADS).map(|number| pod(number, 0)).collect();
    publisher.publish(Delta { workloads: all, ..Delta::default() });
    let batch = |from: usize, count: usize| Delta {
        workloads: (from..from + count).map(|number| pod(number * 97 % WORKLOADS, from)).collect(),
        ..Delta::default()
    };
    let singles: Vec<Delta> = (0..AT_ONCE).map(|number| batch(number, 1)).collect();
    let begin = clock.monotonic();
    for delta in singles {
        publisher.publish(delta);
    }
    let each = clock.monotonic().duration_since(begin) / u32::try_from(AT_ONCE).unwrap_or(1);
    let together = batch(0, AT_ONCE);
    let begin = clock.monotonic();
    publisher.publish(together);
    let took = clock.monotonic().duration_since(begin);
    println!("publishing into {WORKLOADS} workloads");
    println!("  one change: {each:.1?}; goal 20 us");
    println!("  {AT_ONCE} changes together: {took:.2?}; goal 2 ms");
}

async fn measure_client(address: &str, keeps: bool) -> Result<(), Failure> {
    let clock = Clock::system();
    let folder = std::env::temp_dir().join(format!("adit-sync-{}", std::process::id()));
    let keep = keeps.then(|| {
        let (path, age_max) = (folder.clone(), Duration::from_secs(60));
        (XdsSnapshot { path, age_max }, address.to_owned())
    });
    let (publisher, mut view) = Publisher::new();
    let parts = XdsParts {
        node: XdsNode { id: "ztunnel~1.1.1.1~a.b~b.svc".to_owned(), metadata: BTreeMap::new() },
        publisher,
        metrics: XdsMetrics::default(),
        clock: clock.clone(),
        rng: fastrand::Rng::new(),
        keep,
    };
    let upstream = Upstream {
        address: address.parse()?,
        root: TrustRoot::System,
        alternative_name: None,
        token: None,
        cluster_id: "c1".into(),
        headers: Vec::new(),
    };
    let settings = Settings { pqc_only: false, certificate_ttl: PATIENCE };
    let connector = Connector::new(upstream, &settings, clock.clone());
    let (source, mut status) = XdsSource::new(Arc::new(connector), parts);
    let (begin, cpu, before) = (clock.monotonic(), cpu_time()?, memory("VmRSS")?);
    let mut tasks = JoinSet::new();
    tasks.spawn(source.run());
    status.wait_for(|status| status.loaded).await?;
    let (took, used) = (clock.monotonic().duration_since(begin), cpu_time()? - cpu);
    let (now, peak) = (memory("VmRSS")?, memory("VmHWM")?);
    println!("{} resources kept for the next process", if keeps { "with" } else { "without" });
    println!("  {:?} workloads, services, policies", view.load().counts());
    println!("  first sync: {took:.2?}, {used:.2?} of CPU; goal 5 s");
    println!(
        "  memory: {} MiB more, peak {} MiB in all; goal 256 MiB",
        now.saturating_sub(before) >> 10,
        peak >> 10
    );
    let cpu = cpu_time()?;
    let mut delays = follow(&mut view, &clock, UPDATES).await;
    let each = (cpu_time()? - cpu) / u32::try_from(UPDATES)?;
    delays.sort_unstable();
    let at = |part: usize| delays[(delays.len() - 1) * part / 100];
    println!(
        "  1,000 updates/s: visible after {:.2?} (half), {:.2?} (99 %), {:.2?} (all), {each:.1?} of \
         CPU each, in {} generations; goal 20 ms",
        at(50),
        at(99),
        at(100),
        delays.len()
    );
    let cpu = cpu_time()?;
    let delays = follow(&mut view, &clock, AT_ONCE).await;
    let used = cpu_time()? - cpu;
    let last = delays.last().copied().unwrap_or_default();
    println!("  {AT_ONCE} at once: visible after {last:.2?}, {used:.2?} of CPU in all");
    tasks.shutdown().await;
    let _ = fs::remove_file(folder);
    Ok(())
}

/// Follows the probe until its update number `count`: how late each generation was.
async fn follow(view: &mut View, clock: &Clock, count: usize) -> Vec<Duration> {
    let mut delays = Vec::new();
    loop {
        let snapshot = view.load();
        let said = snapshot.workload(&PROBE.into()).map(|probe| probe.name.to_string());
        drop(snapshot);
        let said = said.as_deref().and_then(|name| name.split_once(' '));
        if let Some((number, sent)) = said {
            let sent = Duration::from_nanos(sent.parse().unwrap_or_default());
            let now = clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
            if number != "0" {
                delays.push(now.saturating_sub(sent));
            }
            if number.parse() == Ok(count) {
                return delays;
            }
        }
        if !view.changed().await {
            return delays;
        }
    }
}

fn cpu_time() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let of = |time: nix::sys::time::TimeVal| -> Result<Duration, Failure> {
        let (seconds, micros) = (time.tv_sec().try_into()?, u32::try_from(time.tv_usec())?);
        Ok(Duration::new(seconds, micros * 1_000))
    };
    Ok(of(usage.user_time())? + of(usage.system_time())?)
}

/// KiB, as the kernel counts them.
fn memory(field: &str) -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field)).ok_or("no such field")?;
    let number = line.split_whitespace().nth(1).ok_or("no number")?;
    Ok(number.parse()?)
}

/// A control plane of a large mesh.
struct Mesh;

#[tonic::async_trait]
impl server::AggregatedDiscoveryService for Mesh {
    type DeltaAggregatedResourcesStream =
        BoxStream<'static, Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (responses, queue) = mpsc::channel(AT_ONCE);
        let mut script = JoinSet::new();
        script.spawn(async move {
            // Both first requests and their answers' answers are read, and that is all.
            let mut requests = request.into_inner();
            let _ = play(&mut requests, &responses).await;
        });
        let queue = unfold((queue, script), |(mut queue, script)| async {
            Some((Ok(queue.recv().await?), (queue, script)))
        });
        Ok(Response::new(Box::pin(queue)))
    }
}

/// The first responses, then updates one by one, then many at once.
async fn play(
    requests: &mut Streaming<DeltaDiscoveryRequest>,
    responses: &mpsc::Sender<DeltaDiscoveryResponse>,
) -> Result<(), Failure> {
    responses.send(response(ResourceType::Address, addresses())).await?;
    responses.send(response(ResourceType::Authorization, policies())).await?;
    for _ in 0..4 {
        requests.message().await?;
    }
    let mut ticks = interval(Duration::from_millis(1));
    for number in 1..=UPDATES {
        ticks.tick().await;
        responses.send(response(ResourceType::Address, vec![probe(number)])).await?;
        requests.message().await?;
    }
    for number in 1..=AT_ONCE {
        responses.send(response(ResourceType::Address, vec![probe(number)])).await?;
    }
    while requests.message().await?.is_some() {}
    Ok(())
}

fn response(kind: ResourceType, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    let type_url = kind.url().to_owned();
    DeltaDiscoveryResponse { type_url, resources, nonce: "n".to_owned(), ..Default::default() }
}

fn resource(name: &str, version: usize, value: Vec<u8>) -> Resource {
    Resource {
        name: name.to_owned(),
        version: format!("{version:016x}"),
        resource: Some(Any { type_url: String::new(), value }),
        ..Resource::default()
    }
}

/// Its name has a number and the time.
#[expect(clippy::disallowed_methods, reason = "two processes compare wall times")]
fn probe(number: usize) -> Resource {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = format!("{number} {}", now.as_nanos());
    resource(PROBE, number, workload(PROBE, &name, 0).encode_to_vec())
}

fn workload(uid: &str, name: &str, number: usize) -> Address {
    let namespace = number % 100;
    let service =
        format!("ns-{namespace}/app-{}.ns-{namespace}.svc.cluster.local", number % SERVICES);
    let port = Port { service_port: 80, target_port: 8080, app_protocol: 0 };
    let [_, high, middle, low] = u32::try_from(number).unwrap_or_default().to_be_bytes();
    Address {
        r#type: Some(Type::Workload(Workload {
            uid: uid.to_owned(),
            name: name.to_owned(),
            namespace: format!("ns-{namespace}"),
            addresses: vec![vec![10, high, middle, low]],
            tunnel_protocol: 1,
            service_account: format!("app-{}", number % SERVICES),
            node: format!("node-{}", number % 1_000),
            canonical_name: format!("app-{}", number % SERVICES),
            canonical_revision: "v1".to_owned(),
            workload_name: format!("app-{}", number % SERVICES),
            services: [(service, PortList { ports: vec![port] })].into(),
            cluster_id: "c1".to_owned(),
            ..Workload::default()
        })),
    }
}

fn addresses() -> Vec<Resource> {
    let pods = (0..WORKLOADS).map(|number| {
        let name = format!("app-{}-7d4f9c6b8-{number:05}", number % SERVICES);
        let uid = format!("c1//Pod/ns-{}/{name}", number % 100);
        resource(&uid, number, workload(&uid, &name, number).encode_to_vec())
    });
    let services = (0..SERVICES).map(|number| {
        let namespace = format!("ns-{}", number % 100);
        let hostname = format!("app-{number}.{namespace}.svc.cluster.local");
        let [.., middle, low] = u32::try_from(number).unwrap_or_default().to_be_bytes();
        let vip = vec![172, 20, middle, low];
        let address = NetworkAddress { network: String::new(), address: vip, length: None };
        let service = Service {
            name: format!("app-{number}"),
            namespace: namespace.clone(),
            hostname: hostname.clone(),
            addresses: vec![address],
            ports: vec![Port { service_port: 80, target_port: 8080, app_protocol: 0 }],
            ..Service::default()
        };
        let address = Address { r#type: Some(Type::Service(service)) };
        resource(&format!("{namespace}/{hostname}"), number, address.encode_to_vec())
    });
    let probe = resource(PROBE, 0, workload(PROBE, "0 0", 0).encode_to_vec());
    services.chain(pods).chain([probe]).collect()
}

fn policies() -> Vec<Resource> {
    use security::string_match::MatchType;
    let policy = |number: usize| {
        let (namespace, name) = (format!("ns-{}", number % 100), format!("policy-{number}"));
        let text = format!("cluster.local/ns/ns-1/sa/app-{number}");
        let principal = security::StringMatch { match_type: Some(MatchType::Exact(text)) };
        let entry = security::Match { principals: vec![principal], ..Default::default() };
        let rules = security::Rules { matches: vec![entry] };
        let group = security::Group { rules: vec![rules] };
        let policy = security::Authorization {
            name: name.clone(),
            namespace: namespace.clone(),
            scope: 2,
            groups: vec![group],
            ..Default::default()
        };
        resource(&format!("{namespace}/{name}"), number, policy.encode_to_vec())
    };
    (0..POLICIES).map(policy).collect()
}

async fn serve_all() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let server =
        server::AggregatedDiscoveryServiceServer::new(Mesh).max_encoding_message_size(usize::MAX);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let server = server.clone();
        let service = service_fn(move |request| server.clone().call(request));
        let connection = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        connections.spawn(async { drop(connection.await) });
    }
}
