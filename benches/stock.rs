//! The stock relay: what a node proxy is when it stands on `h2` and rustls as they come.
//!
//! The settings are those of spec hbone 4. The streams of a pair of pods share a TLS connection,
//! each stream has a task, reads grow to 256 KiB. There is no policy, and of identities only that
//! both ends show a certificate of the same throw-away authority.

mod copy;
mod tls;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use adit::cli::lab::HBONE_PORT;
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Response};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::pki;
use crate::relay::{Captured, Plan, RelayPod, accept, ready, reset};

/// The settings of spec hbone 4.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const FRAME: u32 = 1024 * 1024;
const CLIENT_HEADER_LIST: u32 = 16 * 1024;
const SERVER_HEADER_LIST: u32 = 64 * 1024;
const SERVER_STREAMS: u32 = 200;
const SERVER_SEND_BUFFER: usize = 400 * 1024;
/// Streams on a tunnel before another is opened (spec hbone 5).
const POOL_STREAMS: usize = 100;

struct Stock {
    mesh: HashSet<IpAddr>,
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    /// By source and destination.
    pool: Mutex<HashMap<(IpAddr, IpAddr), Tunnels>>,
    drivers: Mutex<JoinSet<()>>,
}

/// The tunnels of a pair of pods. Whoever opens one keeps the others waiting.
type Tunnels = Arc<tokio::sync::Mutex<Vec<Tunnel>>>;

#[derive(Clone)]
struct Tunnel {
    requests: SendRequest<Bytes>,
    /// Each stream holds a copy.
    streams: Arc<()>,
}

/// Serves until something breaks.
pub(crate) async fn serve(pods: Vec<Arc<RelayPod>>, plan: &Plan) -> io::Result<()> {
    let (connector, acceptor) = tls::both(&plan.tls).map_err(io::Error::other)?;
    let stock = Arc::new(Stock {
        mesh: plan.mesh.iter().copied().collect(),
        connector,
        acceptor,
        pool: Mutex::default(),
        drivers: Mutex::default(),
    });
    let mut tasks = JoinSet::new();
    for pod in pods {
        let sockets = pod.listen()?;
        let room = || (Arc::clone(&stock), Arc::clone(&pod));
        let (stock, pod) = room();
        tasks.spawn(accept(sockets.outbound, move |captured| {
            outbound(Arc::clone(&stock), Arc::clone(&pod), captured)
        }));
        let (_, pod) = room();
        tasks.spawn(accept(sockets.plaintext, move |captured| {
            let source = captured.peer.ip();
            plaintext(Arc::clone(&pod), captured, Some(source))
        }));
        let (stock, pod) = room();
        tasks.spawn(accept(sockets.hbone, move |captured| {
            inbound(Arc::clone(&stock), Arc::clone(&pod), captured)
        }));
    }
    ready()?;
    tasks.join_next().await.map_or(Ok(()), |ended| ended.map_err(io::Error::other)?)
}

/// From a pod to the wire.
async fn outbound(stock: Arc<Stock>, pod: Arc<RelayPod>, captured: Captured) -> io::Result<()> {
    if !stock.mesh.contains(&captured.to.ip()) {
        return plaintext(pod, captured, None).await;
    }
    let opened = stock.open(&pod, captured.to).await;
    let (_stream, send, receive) = opened.inspect_err(|_| reset(&captured.stream))?;
    copy::both(captured.stream, send, receive).await
}

/// As it came.
async fn plaintext(
    pod: Arc<RelayPod>,
    mut captured: Captured,
    source: Option<IpAddr>,
) -> io::Result<()> {
    let mut there = pod.dial(captured.to, source).await?;
    tokio::io::copy_bidirectional(&mut captured.stream, &mut there).await.map(drop)
}

/// From the wire to a pod.
async fn inbound(stock: Arc<Stock>, pod: Arc<RelayPod>, captured: Captured) -> io::Result<()> {
    let source = captured.peer.ip();
    let tls = stock.acceptor.accept(captured.stream).await?;
    let mut connection = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(SERVER_HEADER_LIST)
        .max_concurrent_streams(SERVER_STREAMS)
        .max_send_buffer_size(SERVER_SEND_BUFFER)
        .handshake::<_, Bytes>(tls)
        .await
        .map_err(io::Error::other)?;
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = streams.join_next(), if !streams.is_empty() => {}
            request = connection.accept() => {
                let Some(request) = request else { return Ok(()) };
                let (request, mut respond) = request.map_err(io::Error::other)?;
                let pod = Arc::clone(&pod);
                streams.spawn(async move {
                    let to = request.uri().authority().map(|name| name.as_str().parse());
                    let Some(Ok(to)) = to else { return Err(io::ErrorKind::InvalidInput.into()) };
                    let there = pod.dial(to, Some(source)).await?;
                    let send = respond.send_response(Response::new(()), false);
                    copy::both(there, send.map_err(io::Error::other)?, request.into_body()).await
                });
            }
        }
    }
}

impl Stock {
    /// Opens a stream to a pod, on a tunnel that has room or on a new one.
    async fn open(
        &self,
        pod: &RelayPod,
        to: SocketAddr,
    ) -> io::Result<(Arc<()>, h2::SendStream<Bytes>, h2::RecvStream)> {
        let tunnel = self.tunnel(pod, to.ip()).await?;
        let mut requests = tunnel.requests.ready().await.map_err(io::Error::other)?;
        let request = Request::builder().method(Method::CONNECT).uri(to.to_string());
        let request = request.body(()).map_err(io::Error::other)?;
        let (response, send) = requests.send_request(request, false).map_err(io::Error::other)?;
        let response = response.await.map_err(io::Error::other)?;
        if !response.status().is_success() {
            return Err(io::Error::other(response.status().to_string()));
        }
        Ok((tunnel.streams, send, response.into_body()))
    }

    async fn tunnel(&self, pod: &RelayPod, to: IpAddr) -> io::Result<Tunnel> {
        let tunnels = {
            let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(pool.entry((pod.address, to)).or_default())
        };
        let mut tunnels = tunnels.lock().await;
        // The pool holds a copy too.
        let has_room = |tunnel: &&Tunnel| Arc::strong_count(&tunnel.streams) <= POOL_STREAMS;
        if let Some(tunnel) = tunnels.iter().find(has_room) {
            return Ok(tunnel.clone());
        }
        let stream = pod.dial(SocketAddr::new(to, HBONE_PORT), None).await?;
        let tls = self.connector.connect(pki::name(), stream).await?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(CLIENT_HEADER_LIST)
            .max_send_buffer_size(STREAM_WINDOW as usize)
            .initial_max_send_streams(POOL_STREAMS)
            .enable_push(false)
            .handshake(tls)
            .await
            .map_err(io::Error::other)?;
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner).spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("stock relay: {error}");
            }
        });
        let tunnel = Tunnel { requests, streams: Arc::default() };
        tunnels.push(tunnel.clone());
        Ok(tunnel)
    }
}
