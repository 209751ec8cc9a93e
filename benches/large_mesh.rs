//! A large mesh, and a control plane that tells it: the other process of `sync.rs`.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit::cli::lab::PodPlan;
use adit::wire::xds::discovery::aggregated_discovery_service_server as server;
use adit::wire::xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use adit::wire::xds::workload::address::Type;
use adit::wire::xds::workload::{Address, NetworkAddress, Port, PortList, Service, Workload};
use adit::wire::xds::{ResourceType, security};
use futures_util::stream::{BoxStream, unfold};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use prost_types::Any;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tonic::codegen::Service as _;
use tonic::{Request, Response, Status, Streaming};

use crate::Failure;

pub(crate) const WORKLOADS: usize = 100_000;
pub(crate) const SERVICES: usize = 10_000;
const POLICIES: usize = 10_000;
/// Updates that come one by one, a millisecond apart.
pub(crate) const UPDATES: usize = 5_000;
/// Updates that come at once.
pub(crate) const AT_ONCE: usize = 1_000;
/// The workload whose updates say when they were sent.
pub(crate) const PROBE: &str = "c1//Pod/ns-0/probe";

/// While somebody is connected to this port, updates come.
pub(crate) const SWITCH_PORT: u16 = 15_011;

/// Its control plane.
#[derive(Clone, Default)]
pub(crate) struct Mesh {
    /// Pods that answer for real, as [`Mesh::describe`] writes them.
    real: Vec<String>,
    /// How many are connected to the switch; without one, a script is played.
    switch: Option<watch::Receiver<usize>>,
}

impl Mesh {
    /// A pod that there is, on one line.
    pub(crate) fn describe(plan: &PodPlan, ip: Ipv4Addr) -> String {
        format!("{} {} {} {ip}", plan.namespace, plan.name, plan.node)
    }

    /// The resource of such a pod.
    fn real(line: &str) -> Option<Resource> {
        let mut parts = line.split(' ');
        let (namespace, name, node) = (parts.next()?, parts.next()?, parts.next()?);
        let ip: Ipv4Addr = parts.next()?.parse().ok()?;
        let uid = format!("c1//Pod/{namespace}/{name}");
        let workload = Workload {
            uid: uid.clone(),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            addresses: vec![ip.octets().to_vec()],
            tunnel_protocol: 1,
            service_account: name.to_owned(),
            node: node.to_owned(),
            cluster_id: "c1".to_owned(),
            ..Workload::default()
        };
        let address = Address { r#type: Some(Type::Workload(workload)) };
        Some(resource(&uid, 0, address.encode_to_vec()))
    }
}

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
        let mesh = self.clone();
        script.spawn(async move {
            // Both first requests and their answers' answers are read, and that is all.
            let mut requests = request.into_inner();
            let _ = mesh.play(&mut requests, &responses).await;
        });
        let queue = unfold((queue, script), |(mut queue, script)| async {
            Some((Ok(queue.recv().await?), (queue, script)))
        });
        Ok(Response::new(Box::pin(queue)))
    }
}

impl Mesh {
    /// The first responses, then updates: as the switch says, or by the script.
    async fn play(
        self,
        requests: &mut Streaming<DeltaDiscoveryRequest>,
        responses: &mpsc::Sender<DeltaDiscoveryResponse>,
    ) -> Result<(), Failure> {
        let real = self.real.iter().filter_map(|line| Self::real(line));
        let first = real.chain(addresses()).collect();
        responses.send(response(ResourceType::Address, first)).await?;
        responses.send(response(ResourceType::Authorization, policies())).await?;
        for _ in 0..4 {
            requests.message().await?;
        }
        match self.switch {
            Some(switch) => switched(switch, requests, responses).await,
            None => scripted(requests, responses).await,
        }
    }
}

/// Another workload of the mesh changes each millisecond while the switch is on.
async fn switched(
    mut switch: watch::Receiver<usize>,
    requests: &mut Streaming<DeltaDiscoveryRequest>,
    responses: &mpsc::Sender<DeltaDiscoveryResponse>,
) -> Result<(), Failure> {
    let mut ticks = interval(Duration::from_millis(1));
    // What was missed while it was off is not made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for number in 1.. {
        switch.wait_for(|connected| *connected > 0).await?;
        ticks.tick().await;
        let pod = number * 97 % WORKLOADS;
        let (uid, name) = names(pod);
        let mut changed = workload(&uid, &name, pod);
        if let Some(Type::Workload(workload)) = &mut changed.r#type {
            workload.canonical_revision = number.to_string();
        }
        let changed = resource(&uid, number, changed.encode_to_vec());
        responses.send(response(ResourceType::Address, vec![changed])).await?;
        requests.message().await?;
    }
    Ok(())
}

/// Updates one by one, then many at once.
async fn scripted(
    requests: &mut Streaming<DeltaDiscoveryRequest>,
    responses: &mpsc::Sender<DeltaDiscoveryResponse>,
) -> Result<(), Failure> {
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
    let app = number % SERVICES;
    let service = format!("ns-{namespace}/app-{app}.ns-{namespace}.svc.cluster.local");
    let port = Port { service_port: 80, target_port: 8080, app_protocol: 0 };
    let [_, high, middle, low] = u32::try_from(number).unwrap_or_default().to_be_bytes();
    Address {
        r#type: Some(Type::Workload(Workload {
            uid: uid.to_owned(),
            name: name.to_owned(),
            namespace: format!("ns-{namespace}"),
            addresses: vec![vec![10, high, middle, low]],
            tunnel_protocol: 1,
            service_account: format!("app-{app}"),
            node: format!("node-{}", number % 1_000),
            canonical_name: format!("app-{app}"),
            canonical_revision: "v1".to_owned(),
            workload_name: format!("app-{app}"),
            services: [(service, PortList { ports: vec![port] })].into(),
            cluster_id: "c1".to_owned(),
            ..Workload::default()
        })),
    }
}

/// The uid and the name of a pod.
fn names(number: usize) -> (String, String) {
    let name = format!("app-{}-7d4f9c6b8-{number:05}", number % SERVICES);
    (format!("c1//Pod/ns-{}/{name}", number % 100), name)
}

fn addresses() -> Vec<Resource> {
    let pods = (0..WORKLOADS).map(|number| {
        let (uid, name) = names(number);
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

/// Serves it on loopback; at an address and with pods that there are, with a switch.
pub(crate) async fn serve_all(of: &[String]) -> Result<(), Failure> {
    let (address, real) =
        of.split_first().map_or(("127.0.0.1:0", &[][..]), |(at, pods)| (at, pods));
    let listener = TcpListener::bind(address).await?;
    let mut connections = JoinSet::new();
    let (connected, follow) = watch::channel(0);
    let switch = match real {
        [] => None,
        _ => {
            let switch = TcpListener::bind(("127.0.0.1", SWITCH_PORT)).await?;
            connections.spawn(count_connected(switch, connected));
            Some(follow)
        }
    };
    println!("http://{}", listener.local_addr()?);
    let mesh = Mesh { real: real.to_vec(), switch };
    let server =
        server::AggregatedDiscoveryServiceServer::new(mesh).max_encoding_message_size(usize::MAX);
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

/// Notes how many are connected.
async fn count_connected(switch: TcpListener, connected: watch::Sender<usize>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = switch.accept() => {
                let Ok((mut stream, _)) = accepted else { return };
                open.spawn(async move { drop(stream.read(&mut [0]).await) });
            }
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
        connected.send_replace(open.len());
    }
}
