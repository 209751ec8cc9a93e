//! A stand-in for the node agent: hands pods to proxies over its socket (spec node-and-pods 1-3).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc as queue;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::mesh::Pod;
use crate::sys::netns::Netns;
use crate::sys::seqpacket::{Connection, Listener};
use crate::wire::zds::{Ack, Hello, PACKET_BYTES_MAX, Request};

/// For each awaited packet of a proxy (spec node-and-pods 1).
const PATIENCE: Duration = Duration::from_secs(5);

/// An agent of one node. It serves any number of proxies until it is stopped or dropped.
#[derive(Debug)]
pub struct Agent {
    path: PathBuf,
    shared: Arc<Shared>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    orders: queue::UnboundedSender<Order>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pods: BTreeMap<String, Entry>,
    /// Proxies that have acknowledged their snapshot.
    served: usize,
    /// What proxies said about pods of their snapshots.
    complaints: Vec<(String, String)>,
}

/// A pod as proxies are told about it.
#[derive(Clone, Debug)]
struct Entry {
    request: Request,
    netns: Netns,
}

/// Something for the proxies that are connected.
#[derive(Debug)]
struct Order {
    request: Request,
    netns: Option<Netns>,
    /// To all of them instead of the newest one.
    all: bool,
    answers: mpsc::Sender<Result<(), String>>,
}

impl Agent {
    /// Starts an agent that listens at `path`.
    pub fn start(path: &Path) -> io::Result<Self> {
        let mut agent = Self { path: path.to_owned(), shared: Arc::default(), running: None };
        agent.restart()?;
        Ok(agent)
    }

    /// Starts again after [`Agent::stop`], with the same pods.
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop();
        let (orders, inbox) = queue::unbounded_channel();
        let (ready, started) = mpsc::channel();
        let (path, shared) = (self.path.clone(), Arc::clone(&self.shared));
        let run = move || {
            let listening = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .and_then(|runtime| {
                    let listener = runtime.block_on(async { Listener::bind(&path) })?;
                    Ok((runtime, listener))
                });
            match listening {
                Ok((runtime, listener)) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(serve(listener, inbox, shared));
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        };
        let thread = thread::Builder::new().name("agent".into()).spawn(run)?;
        started.recv().map_err(|_| io::Error::other("the agent died"))??;
        self.running = Some(Running { orders, thread });
        Ok(())
    }

    /// Ends all sessions and stops listening. The pods are remembered.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            drop(running.orders);
            let _ = running.thread.join();
        }
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a pod to what proxies get at the start of their sessions, telling nobody now.
    pub fn enroll(&self, pod: &Pod) {
        self.shared.state().pods.insert(pod.uid.clone(), Entry::of(pod));
    }

    /// Adds a pod and tells the newest proxy, waiting for what it says.
    ///
    /// Whatever that is, the pod will be in later snapshots: an agent tries again, too.
    pub fn add(&self, pod: &Pod) -> Result<(), String> {
        self.enroll(pod);
        let Entry { request, netns } = Entry::of(pod);
        self.order(request, Some(netns), false)
    }

    /// Removes a pod and tells every proxy, waiting for what they say.
    pub fn del(&self, uid: &str) -> Result<(), String> {
        self.forget(uid);
        self.order(Request::Del { uid: uid.into() }, None, true)
    }

    /// Removes a pod and tells nobody, as if it went while no proxy was connected.
    pub fn forget(&self, uid: &str) {
        self.shared.state().pods.remove(uid);
    }

    /// Waits until this many proxies have acknowledged their snapshots; whether they did.
    pub fn wait_served(&self, proxies: usize, patience: Duration) -> bool {
        let waiting =
            self.shared
                .changed
                .wait_timeout_while(self.shared.state(), patience, |state| state.served < proxies);
        let (state, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        state.served >= proxies
    }

    /// What proxies complained about in their snapshots: pod uid and text.
    pub fn complaints(&self) -> Vec<(String, String)> {
        self.shared.state().complaints.clone()
    }

    fn order(&self, request: Request, netns: Option<Netns>, all: bool) -> Result<(), String> {
        let (answers, answered) = mpsc::channel();
        let order = Order { request, netns, all, answers };
        let running = self.running.as_ref().ok_or("the agent is stopped")?;
        running.orders.send(order).map_err(|_| "the agent died")?;
        // Every copy of the sender answers once, or is dropped with a session that ended.
        let mut any = all;
        for answer in answered {
            answer?;
            any = true;
        }
        if any { Ok(()) } else { Err("no proxy is connected".into()) }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn of(pod: &Pod) -> Self {
        let request = Request::Add {
            uid: pod.uid.as_str().into(),
            name: pod.plan.name.as_str().into(),
            namespace: pod.plan.namespace.as_str().into(),
            service_account: pod.plan.service_account.as_str().into(),
        };
        Self { request, netns: pod.netns.clone() }
    }
}

async fn serve(
    listener: Listener,
    mut inbox: queue::UnboundedReceiver<Order>,
    shared: Arc<Shared>,
) {
    let mut sessions = JoinSet::new();
    // The newest proxy is the last one.
    let mut proxies: Vec<queue::UnboundedSender<Order>> = Vec::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(connection) => {
                    let (orders, queue) = queue::unbounded_channel();
                    proxies.push(orders);
                    sessions.spawn(session(connection, queue, Arc::clone(&shared)));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            order = inbox.recv() => match order {
                Some(order) => {
                    proxies.retain(|proxy| !proxy.is_closed());
                    deliver(&proxies, order);
                }
                None => return,
            },
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
        }
    }
}

fn deliver(proxies: &[queue::UnboundedSender<Order>], order: Order) {
    let first = if order.all { 0 } else { proxies.len().saturating_sub(1) };
    for proxy in &proxies[first..] {
        let copy = Order {
            request: order.request.clone(),
            netns: order.netns.clone(),
            all: order.all,
            answers: order.answers.clone(),
        };
        // One that has just gone answers nothing, as if it had never been there.
        let _ = proxy.send(copy);
    }
}

/// Counts a proxy that has its snapshot for as long as its session lives.
struct Served(Arc<Shared>);

impl Served {
    fn new(shared: Arc<Shared>) -> Self {
        shared.state().served += 1;
        shared.changed.notify_all();
        Self(shared)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.state().served -= 1;
        self.0.changed.notify_all();
    }
}

/// One proxy, from its hello to its end. Errors end the session, and the proxy comes back.
async fn session(
    connection: Connection,
    mut orders: queue::UnboundedReceiver<Order>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let mut buffer = [0; PACKET_BYTES_MAX];
    let len = timeout(PATIENCE, connection.recv(&mut buffer)).await??.len;
    Hello::decode(&buffer[..len]).map_err(io::Error::other)?;
    let pods: Vec<Entry> = shared.state().pods.values().cloned().collect();
    for Entry { request, netns } in pods {
        let ack = converse(&connection, &request, Some(&netns)).await?;
        if let (Some(error), Request::Add { uid, .. }) = (ack.error, &request) {
            shared.state().complaints.push((uid.to_string(), error));
        }
    }
    converse(&connection, &Request::SnapshotSent, None).await?;
    let _served = Served::new(Arc::clone(&shared));
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some(order) = order else { return Ok(()) };
                let answer = converse(&connection, &order.request, order.netns.as_ref()).await;
                let text = match &answer {
                    Ok(ack) => ack.error.clone(),
                    Err(error) => Some(error.to_string()),
                };
                // Nobody may be waiting any more.
                let _ = order.answers.send(text.map_or(Ok(()), Err));
                answer?;
            }
            // A proxy says nothing unasked: this is its end, or the end of our patience.
            _ = connection.recv(&mut buffer) => return Ok(()),
        }
    }
}

async fn converse(
    connection: &Connection,
    request: &Request,
    netns: Option<&Netns>,
) -> io::Result<Ack> {
    let fd = netns.map(|netns| netns.fd().as_fd());
    timeout(PATIENCE, connection.send(&request.encode(), fd)).await??;
    let mut buffer = [0; PACKET_BYTES_MAX];
    let packet = timeout(PATIENCE, connection.recv(&mut buffer)).await??;
    if packet.is_end() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ack::decode(&buffer[..packet.len]).map_err(io::Error::other)
}
