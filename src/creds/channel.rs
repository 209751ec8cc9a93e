//! A connection to a server of the control plane, as the generated gRPC clients use it.
//!
//! One [`Channel`] is one connection: who needs another asks the [`Connector`] again, which then
//! reads the root certificates again. Tasks of the connection end with the last clone of its
//! channel, and with them every stream.
//!
//! How large a message may be is a matter of the client made over it
//! (`max_decoding_message_size`); what is buffered before that is bounded by HTTP/2's windows.

mod error;
mod trust;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::codegen::Service;

use super::files::small_text;
use super::keeper::Settings;
use super::tls::{Tls, explain, negotiated_h2, tls_error};
use crate::config::{ServerAddress, Token, Upstream};
use crate::sys::clock::Clock;
use crate::sys::socket::{Liveness, tune};

pub use error::{ChannelError, explain_status};

/// For a name to be resolved, and again for each of its addresses to be connected to.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;
/// For the TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Between pings while something is asked (spec xds 1). A server takes more than one every 15 s
/// for an attack.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// For the answer to a ping.
const PING_MAX: Duration = Duration::from_secs(10);
/// TCP keepalive, for connections on which nothing is asked.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(300), Duration::from_secs(75), 9);
/// No token is ever near this size.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;
const CLUSTER_ID: HeaderName = HeaderName::from_static("clusterid");

/// Whoever makes connections to one server.
pub trait Connect: fmt::Debug + Send + Sync {
    /// A new connection. Dropping the future gives it up.
    fn connect(&self) -> BoxFuture<'_, Result<Channel, ChannelError>>;
}

/// Makes connections to one server over the network.
#[derive(Clone, Debug)]
pub struct Connector {
    upstream: Arc<Upstream>,
    tls: Tls,
}

/// A connection, and what each request on it carries.
#[derive(Clone, Debug)]
pub struct Channel {
    sender: http2::SendRequest<Body>,
    upstream: Arc<Upstream>,
    /// The only strong reference: the tasks end with the last clone.
    _tasks: Arc<Mutex<JoinSet<()>>>,
}

/// Where hyper runs the tasks of a connection.
#[derive(Clone)]
struct Tasks(Weak<Mutex<JoinSet<()>>>);

impl Connector {
    /// Connections to `upstream` with the TLS versions and groups of `settings`.
    pub fn new(upstream: Upstream, settings: &Settings, clock: Clock) -> Self {
        let tls = Tls::new(settings.tls, clock);
        Self { upstream: Arc::new(upstream), tls }
    }

    /// Where it connects to.
    pub fn address(&self) -> &ServerAddress {
        &self.upstream.address
    }

    /// With the root certificates as they are now.
    async fn over_the_network(&self) -> Result<Channel, ChannelError> {
        let address = &self.upstream.address;
        if !address.tls {
            let stream = dial(address).await?;
            // A name may lead anywhere.
            let here = stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
            if !here {
                return Err(ChannelError::NotLoopback { address: address.authority() });
            }
            return self.over(stream).await;
        }
        // What is missing here is told before anything is sent.
        let config = trust::client(&self.upstream, &self.tls)?;
        let name = ServerName::try_from(address.host.clone())
            .map_err(|_| ChannelError::Name { host: address.host.clone() })?;
        let stream = dial(address).await?;
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = timeout(HANDSHAKE_MAX, handshake)
            .await
            .map_err(|_| ChannelError::slow(address, "the TLS handshake", HANDSHAKE_MAX))?
            .map_err(|error| ChannelError::Tls {
                address: address.authority(),
                reason: tls_error(&error).map_or_else(|| error.to_string(), explain),
            })?;
        if !negotiated_h2(stream.get_ref().1) {
            return Err(ChannelError::NotHttp2 { address: address.authority() });
        }
        self.over(stream).await
    }

    /// A channel over a connection that is there.
    pub(crate) async fn over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Channel, ChannelError> {
        let tasks = Arc::new(Mutex::new(JoinSet::new()));
        let executor = Tasks(Arc::downgrade(&tasks));
        let mut builder = http2::Builder::new(executor.clone());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_MAX);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| ChannelError::broken(&error))?;
        // Its error reaches whoever waits for an answer.
        executor.execute(async { drop(connection.await) });
        Ok(Channel { sender, upstream: Arc::clone(&self.upstream), _tasks: tasks })
    }
}

impl Connect for Connector {
    fn connect(&self) -> BoxFuture<'_, Result<Channel, ChannelError>> {
        Box::pin(self.over_the_network())
    }
}

impl Channel {
    /// Whether nothing can be asked any more.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = ChannelError;
    type Future = BoxFuture<'static, Result<Response<Incoming>, ChannelError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        self.sender.poll_ready(context).map_err(|error| ChannelError::broken(&error))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let answer =
            complete(&mut request, &self.upstream).map(|()| self.sender.send_request(request));
        Box::pin(async { answer?.await.map_err(|error| ChannelError::broken(&error)) })
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        // Without a channel nobody waits for the task.
        let Some(tasks) = self.0.upgrade() else { return };
        let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Each request may bring tasks: those that ended are not collected.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

async fn dial(address: &ServerAddress) -> Result<TcpStream, ChannelError> {
    let found = timeout(CONNECT_MAX, lookup_host((address.host.as_str(), address.port)))
        .await
        .map_err(|_| ChannelError::slow(address, "the resolution of its name", CONNECT_MAX))?;
    let found = found.map_err(|error| ChannelError::Unresolved {
        host: address.host.clone(),
        reason: error.to_string(),
    })?;
    let mut last = ChannelError::Unresolved {
        host: address.host.clone(),
        reason: "it has no address".to_owned(),
    };
    for ip in found.take(ADDRESSES_MAX) {
        match timeout(CONNECT_MAX, TcpStream::connect(ip)).await {
            Ok(Ok(stream)) => {
                let liveness = Liveness { keepalive: Some(KEEPALIVE), user_timeout: None };
                return match tune(&stream, &liveness) {
                    Ok(()) => Ok(stream),
                    Err(error) => Err(ChannelError::unreachable(ip, &error)),
                };
            }
            Ok(Err(error)) => last = ChannelError::unreachable(ip, &error),
            Err(_) => last = ChannelError::slow(address, "the connection", CONNECT_MAX),
        }
    }
    Err(last)
}

/// Gives a request the server's address and the headers that it wants to see (spec xds 1.2).
fn complete(request: &mut Request<Body>, upstream: &Upstream) -> Result<(), ChannelError> {
    let address = &upstream.address;
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(if address.tls { Scheme::HTTPS } else { Scheme::HTTP });
    let authority = Authority::try_from(address.authority());
    uri.authority = Some(authority.map_err(|_| ChannelError::Name { host: address.host.clone() })?);
    uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(uri).map_err(|error| ChannelError::broken(&error))?;
    let headers = request.headers_mut();
    for (name, value) in &upstream.headers {
        headers.append(name.clone(), value.clone());
    }
    let Some(token) = &upstream.token else { return Ok(()) };
    headers.insert(AUTHORIZATION, bearer(token)?);
    if let Ok(cluster) = HeaderValue::from_str(&upstream.cluster_id) {
        headers.insert(CLUSTER_ID, cluster);
    }
    Ok(())
}

/// The token as it is now: Kubernetes replaces it long before it expires.
fn bearer(token: &Token) -> Result<HeaderValue, ChannelError> {
    let (text, from) = match token {
        Token::Text(text) => (text.clone(), "AUTH_TOKEN".to_owned()),
        Token::File(path) => {
            let from = path.display().to_string();
            let text = small_text(path, TOKEN_BYTES_MAX).map_err(|error| {
                ChannelError::TokenUnreadable { from: from.clone(), reason: error.to_string() }
            })?;
            (text, from)
        }
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(ChannelError::TokenUnreadable { from, reason: "it is empty".to_owned() });
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| {
        let reason = "it has characters that no header can carry".to_owned();
        ChannelError::TokenUnreadable { from, reason }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
