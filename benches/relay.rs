//! What the two relays of the bench have in common: pods, sockets, the process around them.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use adit::cli::lab::{HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT, PROXY_MARK};
use adit::sys::netns::Netns;
use adit::sys::socket::{SocketPlan, bind_original_source, original_destination, reset_on_close};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::pki::Material;
use crate::{null, stock};

/// As adit's default.
const BACKLOG: i32 = 1_024;
/// What a relay says when it listens.
pub(crate) const READY: &str = "ready";

/// Which relay a process is.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// [`stock`]
    Stock,
    /// [`null`]
    Null,
}

/// What a relay is told, as JSON on its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The pods it serves.
    pub(crate) pods: Vec<PlannedPod>,
    /// Addresses of all pods that take tunnels.
    pub(crate) mesh: Vec<IpAddr>,
    pub(crate) tls: Material,
    /// Threads that carry bytes; the null relay has one.
    pub(crate) workers: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PlannedPod {
    pub(crate) address: IpAddr,
    /// Where its network namespace can be opened.
    pub(crate) netns: PathBuf,
}

/// A pod that a relay serves.
#[derive(Debug)]
pub(crate) struct RelayPod {
    pub(crate) address: IpAddr,
    netns: Netns,
    home: Netns,
}

/// A connection that was redirected to the relay.
pub(crate) struct Captured {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    /// Where it was going.
    pub(crate) to: SocketAddr,
}

/// The listening sockets of one pod.
pub(crate) struct Sockets {
    pub(crate) outbound: TcpListener,
    pub(crate) plaintext: TcpListener,
    pub(crate) hbone: TcpListener,
}

/// A process that is a relay: serves until it is killed.
pub(crate) fn main(kind: Kind) -> Result<(), Box<dyn std::error::Error>> {
    let plan: Plan = serde_json::from_reader(io::stdin().lock())?;
    adit::sys::process::raise_open_files()?;
    let home = Netns::current()?;
    let mut pods = Vec::new();
    for pod in &plan.pods {
        let netns = Netns::from_fd(std::fs::File::open(&pod.netns)?.into())?;
        pods.push(Arc::new(RelayPod { address: pod.address, netns, home: home.clone() }));
    }
    let mut builder = match kind {
        Kind::Stock => tokio::runtime::Builder::new_multi_thread(),
        Kind::Null => tokio::runtime::Builder::new_current_thread(),
    };
    builder.worker_threads(plan.workers).enable_all().build()?.block_on(async {
        match kind {
            Kind::Stock => stock::serve(pods, &plan).await,
            Kind::Null => null::serve(pods).await,
        }
    })?;
    Ok(())
}

/// Says that everything listens.
pub(crate) fn ready() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}")?;
    out.flush()
}

impl RelayPod {
    /// Opens the three listening sockets in the pod.
    pub(crate) fn listen(&self) -> io::Result<Sockets> {
        let listen = |port: u16| {
            let socket =
                Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_ip_transparent_v4(true)?;
            socket.set_mark(PROXY_MARK)?;
            socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into())?;
            socket.listen(BACKLOG)?;
            TcpListener::from_std(socket.into())
        };
        let open = || Ok((listen(OUTBOUND_PORT)?, listen(PLAINTEXT_PORT)?, listen(HBONE_PORT)?));
        let (outbound, plaintext, hbone) = self.inside(open)?;
        Ok(Sockets { outbound, plaintext, hbone })
    }

    /// Connects from the pod, with the source address of somebody else if there is one.
    pub(crate) async fn dial(
        &self,
        to: SocketAddr,
        source: Option<IpAddr>,
    ) -> io::Result<TcpStream> {
        let plan = SocketPlan { ipv6: false, transparent: source.is_some() };
        let socket = self.inside(|| plan.create(Some(PROXY_MARK)))?;
        if let Some(source) = source {
            bind_original_source(&socket, source)?;
        }
        let stream = TcpSocket::from_std_stream(socket.into()).connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Runs something short on this thread while it is in the pod's namespace.
    fn inside<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.netns.enter()?;
        let done = work();
        if self.home.enter().is_err() {
            // Everything this thread opened from here on would be in the wrong pod.
            std::process::abort();
        }
        done
    }
}

/// Accepts for ever, and gives each connection to a task of its own.
pub(crate) async fn accept<F: Future<Output = io::Result<()>> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(Captured) -> F,
) -> io::Result<()> {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = tasks.join_next(), if !tasks.is_empty() => {}
            accepted = listener.accept() => {
                let (stream, peer) = accepted?;
                stream.set_nodelay(true)?;
                let local = stream.local_addr()?;
                let to = original_destination(&stream, local).unwrap_or(local);
                tasks.spawn(serve(Captured { stream, peer, to }));
            }
        }
    }
}

/// Closes a connection so that the other end learns that something was wrong.
pub(crate) fn reset(stream: &TcpStream) {
    // Without it the other end sees an end instead: no worse than the relay going away.
    let _ = reset_on_close(stream);
}
