//! Two proxies in one thread: everything of the data path is real but the capture. Addresses are
//! loopback ones of the test's own, so nothing needs a namespace or a privilege.

use std::fs::{self, DirBuilder};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet};

use super::super::accept::{Accepted, Entrance};
use super::super::budget::{Budget, Turns};
use super::super::host::PodSpec;
use super::super::placement::Load;
use super::super::pod::Pod;
use super::super::room::{Room, Shared};
use super::super::tunnel::{Ledger, in_memory};
use super::super::worker::{self, Message, Worker};
use super::super::{inbound, outbound, passthrough};
use crate::config::{Limits, TlsPolicy};
use crate::creds::devca::DevCa;
use crate::creds::{
    Credentials, IssueError, IssueErrorKind, IssueRequest, Issued, Issuer, Keeper, Settings,
};
use crate::model::fixtures::pod;
use crate::model::{
    ClientAddr, Delta, Lookups, PodName, Policy, PolicyKey, Publisher, View, Wanted, Workload,
};
use crate::report::Report;
use crate::report::metrics::Metrics;
use crate::sys::clock::Clock;
use crate::sys::opener::{Opener, OpenerConfig};

/// Nothing here takes nearly as long; a test that would hang fails instead.
const HANG: Duration = Duration::from_secs(30);
/// Where the application listens.
pub(super) const PORT: u16 = 8080;
/// Where tunnels arrive.
pub(super) const HBONE: u16 = 15008;

/// `front/web` behind the near proxy, `shop/cart` behind the far one.
pub(super) struct World {
    number: u8,
    publisher: Publisher,
    /// What the proxies ask for, if the mesh is one that is asked for one by one.
    pub(super) lookups: Option<Lookups>,
    pub(super) near: Proxy,
    pub(super) far: Proxy,
    pub(super) tasks: JoinSet<()>,
    _dir: Dir,
}

/// One proxy with one pod.
pub(super) struct Proxy {
    pub(super) room: Rc<Room>,
    pub(super) pod: Arc<Pod>,
}

/// A folder that goes with the test.
struct Dir(PathBuf);

/// Issues nothing.
#[derive(Debug)]
struct Nobody;

/// Runs a test to its end, with a world whose addresses have this number.
pub(super) fn run<F: Future<Output = ()>>(
    number: u8,
    limits: Limits,
    test: impl FnOnce(World) -> F,
) {
    let (publisher, view) = Publisher::new();
    run_in((publisher, view, None), number, limits, test);
}

/// The same with a mesh that is asked for one by one.
pub(super) fn run_on_demand<F: Future<Output = ()>>(
    number: u8,
    limits: Limits,
    test: impl FnOnce(World) -> F,
) {
    let (publisher, view, lookups) = Publisher::on_demand();
    run_in((publisher, view, Some(lookups)), number, limits, test);
}

fn run_in<F: Future<Output = ()>>(
    mesh: (Publisher, View, Option<Lookups>),
    number: u8,
    limits: Limits,
    test: impl FnOnce(World) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let test = async { test(World::new(mesh, number, limits)).await };
        tokio::time::timeout(HANG, test).await.expect("the test hangs");
    };
    runtime.block_on(LocalSet::new().run_until(test));
}

impl World {
    fn new(
        (publisher, view, lookups): (Publisher, View, Option<Lookups>),
        number: u8,
        limits: Limits,
    ) -> Self {
        let dir = Dir::new();
        let mut tasks = JoinSet::new();
        let opener = Opener::start_at_home(OpenerConfig {
            mark: None,
            port_reuse: false,
            ipv6: false,
            backlog: 16,
            transparent: Some(false),
        });
        let opener = opener.unwrap();
        let ca = Arc::new(DevCa::open(&dir.0.join("ca"), Clock::system()).unwrap());
        let proxy = |tasks: &mut JoinSet<()>, name: &str| {
            let credentials = keep(Arc::<DevCa>::clone(&ca), tasks);
            let shared = shared(&view, &opener, credentials, limits);
            Proxy::new(shared, name, tasks)
        };
        let near = proxy(&mut tasks, "front/web");
        let far = proxy(&mut tasks, "shop/cart");
        Self { number, publisher, lookups, near, far, tasks, _dir: dir }
    }

    fn address(&self, host: u8, port: u16) -> SocketAddr {
        (Ipv4Addr::new(127, 77, self.number, host), port).into()
    }

    /// The server's address.
    pub(super) fn cart(&self, port: u16) -> SocketAddr {
        self.address(2, port)
    }

    /// An address that nobody has told the proxies of.
    pub(super) fn elsewhere(&self) -> SocketAddr {
        self.address(9, PORT)
    }

    /// The two pods as the mesh knows them.
    pub(super) fn workloads(&self) -> [Workload; 2] {
        let at = |host| self.address(host, 0).ip().to_string();
        [pod("front/web", &[&at(1)]), pod("shop/cart", &[&at(2)])]
    }

    /// Publishes the two pods; the server names these policies.
    pub(super) fn enrol(&mut self, named: &[PolicyKey]) {
        let [web, mut cart] = self.workloads();
        cart.authorization_policies = named.to_vec();
        self.publish(Delta { workloads: vec![web, cart], ..Delta::default() });
    }

    /// What a proxy asks for next.
    pub(super) async fn wanted(&mut self) -> Wanted {
        self.lookups.as_mut().unwrap().recv().await.unwrap()
    }

    pub(super) fn publish(&mut self, delta: Delta) {
        self.publisher.publish(delta);
    }

    pub(super) fn policies(&mut self, policies: Vec<Policy>) {
        self.publish(Delta { policies, ..Delta::default() });
    }

    /// The far proxy's port for tunnels: whoever comes there is served.
    pub(super) async fn serve_tunnels(&mut self) {
        let listener = TcpListener::bind(self.cart(HBONE)).await.unwrap();
        let (room, pod) = (Rc::clone(&self.far.room), Arc::clone(&self.far.pod));
        self.tasks.spawn_local(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let local = socket.local_addr().unwrap();
                let accepted = accepted(socket, (Entrance::Hbone, local), (&room, &pod));
                let connection = room.connections.enter(pod.id);
                room.tasks.spawn(inbound::serve(accepted, connection, Rc::clone(&room)));
            }
        });
    }

    /// The application's port.
    pub(super) async fn listen(&self) -> TcpListener {
        TcpListener::bind(self.cart(PORT)).await.unwrap()
    }

    /// A connection that the pod `web` opens to `to` and the near proxy captures.
    pub(super) async fn captured(&self, to: SocketAddr) -> TcpStream {
        let (application, proxied) = self.connection().await;
        let room = &self.near.room;
        let accepted = accepted(proxied, (Entrance::Outbound, to), (room, &self.near.pod));
        let connection = room.connections.enter(accepted.pod.id);
        room.tasks.spawn(outbound::serve(accepted, connection, Rc::clone(room)));
        application
    }

    /// A connection in plain text for the server, as it arrives at the far proxy.
    pub(super) async fn plaintext(&self) -> TcpStream {
        let (application, proxied) = self.connection().await;
        let (room, to) = (&self.far.room, self.cart(PORT));
        let accepted = accepted(proxied, (Entrance::Plaintext, to), (room, &self.far.pod));
        let connection = room.connections.enter(accepted.pod.id);
        room.tasks.spawn(passthrough::serve(accepted, connection, Rc::clone(room)));
        application
    }

    /// A connection in plain text for the server, on its way from one of the far proxy's workers to
    /// another.
    pub(super) async fn handed_over(&self) -> (TcpStream, Message) {
        let (application, proxied) = self.connection().await;
        let entry = (Entrance::Plaintext, self.cart(PORT));
        let accepted = accepted(proxied, entry, (&self.far.room, &self.far.pod));
        (application, Message::Keep(Box::new(accepted.detach().unwrap()), Load::default().add()))
    }

    /// A worker of the far proxy on a thread of its own.
    pub(super) fn worker(&self) -> (Worker, JoinHandle<()>) {
        let (mut workers, mut threads) = worker::start(&self.far.room.shared, 1).unwrap();
        (workers.pop().unwrap(), threads.pop().unwrap())
    }

    /// An application's socket and the proxy's end of its connection.
    async fn connection(&self) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(self.address(1, 0)).await.unwrap();
        let connect = TcpStream::connect(listener.local_addr().unwrap());
        let (application, accepted) = tokio::join!(connect, listener.accept());
        (application.unwrap(), accepted.unwrap().0)
    }

    /// Takes the near proxy's certificates away; its pod has none yet.
    pub(super) fn without_certificates(&mut self) {
        let shared = &self.near.room.shared;
        let credentials = keep(Arc::new(Nobody), &mut self.tasks);
        let shared = self::shared(&shared.view, &shared.opener, credentials, shared.limits);
        self.near = Proxy::new(shared, "front/web", &mut self.tasks);
    }
}

impl Proxy {
    fn new(shared: Arc<Shared>, pod: &str, tasks: &mut JoinSet<()>) -> Self {
        let (namespace, name) = pod.split_once('/').expect("<namespace>/<name>");
        let name = PodName {
            name: name.into(),
            namespace: namespace.into(),
            service_account: name.into(),
        };
        let spec = PodSpec { uid: pod.into(), name, netns: None };
        let pod = Arc::new(Pod::new(1, spec, false, &shared));
        let room = Room::new(shared, 7);
        let watched = Rc::clone(&room);
        tasks.spawn_local(async move { worker::redecide(&watched).await });
        Self { room, pod }
    }

    /// The sum of the metrics whose lines have all these parts.
    pub(super) fn metric(&self, parts: &[&str]) -> u64 {
        let text = self.room.shared.report.metrics().render().unwrap();
        let lines = text.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
        let values = lines.filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<u64>().unwrap()).sum()
    }

    /// How many connections were refused for this reason.
    pub(super) fn refused(&self, reason: &str) -> u64 {
        self.metric(&["adit_refusals_total{", &format!("reason=\"{reason}\"")])
    }

    /// Waits until no connection is left.
    pub(super) async fn idle(&self) {
        self.room.connections.empty().await;
    }
}

fn keep(issuer: Arc<dyn Issuer>, tasks: &mut JoinSet<()>) -> Credentials {
    let certificate_ttl = Duration::from_secs(3600);
    let settings = Settings { tls: TlsPolicy::Tls13, certificate_ttl };
    let (keeper, credentials) = Keeper::new(settings, issuer, Clock::system());
    tasks.spawn_local(keeper.run());
    credentials
}

fn shared(view: &View, opener: &Opener, credentials: Credentials, limits: Limits) -> Arc<Shared> {
    Arc::new(Shared {
        view: view.clone(),
        credentials,
        report: Report::new(Arc::new(Metrics::new("test")), Clock::system()),
        opener: opener.clone(),
        clock: Clock::system(),
        config: in_memory::config(),
        limits,
        network: "".into(),
        node: None,
        policy_decisions_at_info: false,
        connections: Budget::new(limits.connections),
        handshakes: Turns::new(limits.handshakes),
        ledger: Ledger::new(limits.granted_bytes),
        meetings: None,
    })
}

fn accepted(
    socket: TcpStream,
    (entrance, local): (Entrance, SocketAddr),
    (room, pod): (&Room, &Arc<Pod>),
) -> Box<Accepted> {
    let shared = &room.shared;
    let client = ClientAddr(socket.peer_addr().unwrap());
    let guards = (
        shared.connections.take().expect("the node has room"),
        pod.connections.take().expect("the pod has room"),
        shared.report.socket(entrance.direction()),
    );
    let (pod, at) = (Arc::clone(pod), shared.clock.monotonic());
    Box::new(Accepted { socket, entrance, pod, client, local, guards, at, routed: None })
}

impl Dir {
    fn new() -> Self {
        let temp = fs::canonicalize(std::env::temp_dir()).unwrap();
        let path = temp.join(format!("adit-journeys-{:016x}", fastrand::u64(..)));
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Issuer for Nobody {
    fn issue(
        &self,
        _: IssueRequest,
    ) -> futures_util::future::BoxFuture<'_, Result<Issued, IssueError>> {
        let reason = "nobody issues here".to_owned();
        Box::pin(std::future::ready(Err(IssueError { kind: IssueErrorKind::Unreachable, reason })))
    }
}
