//! The three HTTP servers for people and machines: admin, stats and readiness (spec operations 5).
//!
//! They run beside the control plane on one thread, so nothing a client does may hold them up:
//! connections are bounded in number, age and header, and where there are too many the oldest
//! gives way, so that a probe always gets its answer.

mod pages;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::health::Readiness;
use super::log::Log;
use super::metrics::Metrics;
use crate::config::ServersConfig;

/// For the head of a request to arrive, also of a further one on the same connection.
const HEADER_READ_LIMIT: Duration = Duration::from_secs(2);
/// Largest head of a request, bytes.
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// How long one connection may last.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
/// For open requests to finish once the servers stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// Pause after an accept that failed, for instance for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections waiting to be accepted, per listener.
const BACKLOG: i32 = 128;

/// The listening sockets.
#[derive(Debug)]
pub struct Sockets {
    admin: Vec<TcpListener>,
    stats: TcpListener,
    readiness: TcpListener,
}

/// What the servers answer from.
pub struct Pages {
    /// Which parts are ready.
    pub readiness: Readiness,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The log, whose filter can be changed.
    pub log: Log,
    /// The body of `/config_dump`, JSON (`dump::render`). Runs on a thread where it may take long.
    pub dump: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
    /// Notified when somebody asks the proxy to stop.
    pub quit: Arc<Notify>,
}

/// Which of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Site {
    Admin,
    Stats,
    Readiness,
}

/// The connections of one listener, in the order they came.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    oldest_first: VecDeque<AbortHandle>,
}

impl Sockets {
    /// Opens the listening sockets. The admin server may lack IPv6; the others may fall back to
    /// IPv4.
    pub fn bind(config: &ServersConfig) -> io::Result<Self> {
        let v4 = listen((Ipv4Addr::LOCALHOST, config.admin_port).into())?;
        let port = v4.local_addr()?.port();
        let mut admin = vec![v4];
        match listen((Ipv6Addr::LOCALHOST, port).into()) {
            Ok(v6) => admin.push(v6),
            Err(error) => tracing::debug!(%error, "no admin server on the IPv6 loopback"),
        }
        Ok(Self { admin, stats: wildcard(config.stats)?, readiness: wildcard(config.readiness)? })
    }

    /// Where the admin server listens; IPv4 first.
    pub fn admin_addrs(&self) -> Vec<SocketAddr> {
        self.admin.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Where the stats server listens.
    pub fn stats_addr(&self) -> io::Result<SocketAddr> {
        self.stats.local_addr()
    }

    /// Where the readiness server listens.
    pub fn readiness_addr(&self) -> io::Result<SocketAddr> {
        self.readiness.local_addr()
    }
}

/// Serves until `stop` is done; then closes the listeners and lets open requests finish.
pub async fn serve(sockets: Sockets, pages: Pages, stop: impl Future<Output = ()>) {
    let pages = Arc::new(pages);
    let (stopping, stopped) = watch::channel(false);
    let mut listeners = JoinSet::new();
    for listener in sockets.admin {
        listeners.spawn(accept(listener, Site::Admin, Arc::clone(&pages), stopped.clone()));
    }
    listeners.spawn(accept(sockets.stats, Site::Stats, Arc::clone(&pages), stopped.clone()));
    listeners.spawn(accept(sockets.readiness, Site::Readiness, pages, stopped));
    stop.await;
    stopping.send_replace(true);
    while listeners.join_next().await.is_some() {}
}

async fn accept(
    listener: TcpListener,
    site: Site,
    pages: Arc<Pages>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = Connections::default();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = connections.tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let one = converse(stream, site, Arc::clone(&pages), stop.clone());
                    connections.admit(site, one);
                }
                Err(error) => {
                    tracing::warn!(%error, server = site.name(), "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = async { while connections.tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN_LIMIT, drained).await;
}

/// Serves one connection. What goes wrong on it is the client's own affair.
async fn converse(
    stream: TcpStream,
    site: Site,
    pages: Arc<Pages>,
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(|request| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(pages::respond(site, &pages, &request).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .half_close(true)
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_LIMIT)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    let whole = async {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            result = connection.as_mut() => result,
        }
    };
    let _ = tokio::time::timeout(CONNECTION_AGE_MAX, whole).await;
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Connections {
    fn admit(&mut self, site: Site, one: impl Future<Output = ()> + Send + 'static) {
        self.oldest_first.retain(|task| !task.is_finished());
        while self.oldest_first.len() >= site.connections_max() {
            let Some(oldest) = self.oldest_first.pop_front() else { break };
            oldest.abort();
        }
        self.oldest_first.push_back(self.tasks.spawn(one));
    }
}

impl Site {
    fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Stats => "stats",
            Self::Readiness => "readiness",
        }
    }

    /// Connections at a time. Each may hold a body, and those of the first two are large.
    fn connections_max(self) -> usize {
        match self {
            Self::Admin | Self::Stats => 8,
            Self::Readiness => 64,
        }
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

/// Listens on all addresses of both families where the machine has both.
fn wildcard(addr: SocketAddr) -> io::Result<TcpListener> {
    listen(addr).or_else(|error| match addr {
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            tracing::debug!(%error, "no IPv6, listening on IPv4 only");
            listen((Ipv4Addr::UNSPECIFIED, addr.port()).into())
        }
        _ => Err(error),
    })
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests;
