//! Sockets: TLS for proxies, plain text for proxies without secrets and for people.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::codegen::Service;

use super::access::Connection;
use super::authority::Authority;
use super::discovery::Discovery;
use super::status::Status;
use crate::creds::devca::ControlServer;
use crate::wire::ca::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use crate::wire::xds::discovery;
use discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;

/// Connections of one listener at a time.
const CONNECTIONS_MAX: usize = 256;
/// How long a TLS handshake, or the head of a request, may take.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// As istiod does it (spec xds 1).
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(10);
/// gRPC calls of one connection at a time.
const STREAMS_MAX: u32 = 64;
/// The largest request, bytes: istiod's limit.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Everything that can be asked for.
#[derive(Clone)]
pub(super) struct Services {
    discovery: AggregatedDiscoveryServiceServer<Discovery>,
    authority: IstioCertificateServiceServer<Authority>,
    status: Status,
}

/// Runs the tasks of one connection, and ends them with it.
#[derive(Clone, Default)]
struct Tasks {
    set: Arc<Mutex<JoinSet<()>>>,
}

impl Services {
    pub(super) fn new(discovery: Discovery, authority: Authority, status: Status) -> Self {
        let discovery = AggregatedDiscoveryServiceServer::new(discovery)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(usize::MAX);
        let authority = IstioCertificateServiceServer::new(authority)
            .max_decoding_message_size(REQUEST_BYTES_MAX);
        Self { discovery, authority, status }
    }

    async fn answer(
        mut self,
        mut request: Request<Incoming>,
        connection: Connection,
    ) -> Result<Response<Body>, Infallible> {
        request.extensions_mut().insert(connection);
        let path = request.uri().path();
        if path.starts_with("/envoy.service.discovery.v3.") {
            self.discovery.call(request).await
        } else if path.starts_with("/istio.v1.auth.") {
            self.authority.call(request).await
        } else {
            Ok(self.status.answer(request.method(), path).map(Body::new))
        }
    }
}

/// Accepts until dropped. Without `tls` in plain text.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<Arc<ControlServer>>,
    services: Services,
) {
    let mut connections = JoinSet::new();
    loop {
        // Take room first, then accept.
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    connections.spawn(serve(stream, address, tls.clone(), services.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// One connection. What goes wrong on it is told, and ends it alone.
async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<ControlServer>>,
    services: Services,
) {
    let _ = stream.set_nodelay(true);
    let result = match tls {
        None => converse(stream, Connection { address, tls: false }, services).await,
        Some(server) => match hello(stream, &server).await {
            Ok(stream) => converse(stream, Connection { address, tls: true }, services).await,
            Err(error) => Err(error.to_string()),
        },
    };
    if let Err(reason) = result {
        tracing::debug!(%address, reason, "a connection ended");
    }
}

async fn hello(
    stream: TcpStream,
    server: &ControlServer,
) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    let config = server.config().map_err(io::Error::other)?;
    let handshake = TlsAcceptor::from(config).accept(stream);
    timeout(HELLO_LIMIT, handshake).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Connection,
    services: Services,
) -> Result<(), String> {
    let mut builder = auto::Builder::new(Tasks::default());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HELLO_LIMIT)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_LIMIT)
        .max_concurrent_streams(STREAMS_MAX);
    let service = service_fn(move |request| services.clone().answer(request, connection));
    let served = builder.serve_connection(TokioIo::new(stream), service).await;
    served.map_err(|error| error.to_string())
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        while set.try_join_next().is_some() {}
        set.spawn(task);
    }
}
