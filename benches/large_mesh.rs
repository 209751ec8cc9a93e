//! A large mesh, and a control plane that tells it: the other process of `sync.rs`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::interval;
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

/// Its control plane.
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

pub(crate) async fn serve_all() -> Result<(), Failure> {
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
