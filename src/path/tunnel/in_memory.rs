//! Tunnels in memory, for tests of what stands on them.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::client::{self, Tunnel};
use super::server::Server;
use super::{First, Ledger, Secured, Settings, Stream, TunnelKey};
use crate::config::{DataPathConfig, Limits, OriginalSource, SameNode};
use crate::hbone::handshake::Handshake;
use crate::hbone::testing::{Pki, SUITES, name};
use crate::model::Hop;
use crate::path::hello;
use crate::report::metrics::Metrics;
use crate::report::{Connection, Direction, Live, Report, Side, Transport};
use crate::sys::clock::Clock;
use crate::wire::spiffe::Identity;

/// The asking end of a tunnel.
pub(in crate::path) struct Near(Rc<Tunnel>);

/// What tells the tunnels of a test from others.
pub(in crate::path) fn key() -> TunnelKey {
    TunnelKey {
        pod: 1,
        source: Identity::new("td", "ns", "sa"),
        hop: Hop(SocketAddr::from((Ipv4Addr::LOCALHOST, 15008))),
        expected: vec![Identity::new("td", "ns", "other")],
    }
}

/// The account of a connection of nobody.
pub(in crate::path) fn live(direction: Direction) -> Live {
    let addr = (Ipv4Addr::LOCALHOST, 80).into();
    let side = Side { addr, workload: None, claimed: None, identity: None };
    let described = Connection {
        direction,
        transport: Transport::Hbone,
        source: side.clone(),
        destination: side,
        authority: None,
        service: None,
        original_destination: None,
        trace_id: None,
    };
    Report::new(Arc::new(Metrics::new("test")), Clock::system()).opened("uid", described)
}

/// How a data path of a test is set.
pub(in crate::path) fn config() -> DataPathConfig {
    DataPathConfig {
        stream_window: 65_536,
        connection_window: 1_048_576,
        frame_size: 16_384,
        pool_streams_max: 100,
        pool_unused_release: Duration::from_secs(300),
        keepalive: None,
        user_timeout: None,
        packet_mark: None,
        original_source: OriginalSource::Auto,
        port_reuse: true,
        localhost_app_tunnel: true,
        same_node: SameNode::Tunnel,
        response_baggage: true,
        ipv6: true,
    }
}

pub(in crate::path) fn settings() -> Settings {
    Settings {
        client_streams: 300,
        stream_window: 4 * 1024 * 1024,
        connection_window: 16 * 1024 * 1024,
        frame_size: 1024 * 1024,
        limits: Limits::default(),
        buffers: Rc::default(),
        ledger: Ledger::new(1 << 30),
        clock: Clock::system(),
    }
}

/// Our end of a handshake whose other end is whoever trusts `pki`.
pub(in crate::path) async fn secured_client<T>(io: T, pki: &Pki) -> Secured
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut secured = unsaid_client(io, pki).await;
    let unsaid = std::mem::take(&mut secured.unsaid);
    secured.io.write_all(&unsaid).await.expect("the peer is there");
    secured
}

/// As [`secured_client`], with the end of the handshake left to be said.
pub(in crate::path) async fn unsaid_client<T>(io: T, pki: &Pki) -> Secured
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let config = Arc::new(pki.client(SUITES[1]));
    let handshake = Handshake::client(config, name()).expect("the name is one");
    hello::run(handshake, io, |_| ()).await.expect("the peer is ours").0
}

/// As [`secured_client`], answering.
pub(in crate::path) async fn secured_server<T>(io: T, pki: &Pki) -> Secured
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let config = Arc::new(pki.server(SUITES[1], 0));
    let handshake = Handshake::server(config).expect("the configuration is good");
    hello::run(handshake, io, |_| ()).await.expect("the peer is ours").0
}

/// A client that is not ours, below HTTP/2.
pub(in crate::path) async fn foreign_client<T>(
    io: T,
    pki: &Pki,
) -> tokio_rustls::client::TlsStream<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let connector = TlsConnector::from(Arc::new(pki.client(SUITES[1])));
    connector.connect(name(), io).await.expect("the peer is trusted")
}

/// A server that is not ours, below HTTP/2; it sends session tickets as many do.
pub(in crate::path) async fn foreign_server<T>(
    io: T,
    pki: &Pki,
) -> tokio_rustls::server::TlsStream<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let acceptor = TlsAcceptor::from(Arc::new(pki.server(SUITES[1], 2)));
    acceptor.accept(io).await.expect("the peer knows TLS")
}

pub(in crate::path) fn client(secured: Secured) -> (Near, impl Future<Output = ()> + 'static) {
    let release = Duration::from_secs(300);
    let started = client::start(secured, &settings(), release);
    let (tunnel, driver) = started.expect("the keys are good");
    (Near(tunnel), driver)
}

pub(in crate::path) fn server(secured: Secured) -> Server {
    Server::start(secured, &settings()).expect("the keys are good")
}

impl Near {
    pub(in crate::path) async fn connect(&self) -> Stream {
        self.connect_for(&mut First::none()).await
    }

    /// As [`Self::connect`], for an application that may speak first.
    pub(in crate::path) async fn connect_for(&self, first: &mut First<'_>) -> Stream {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = "10.0.0.1:80".parse().expect("a legal authority");
        let (slot, limit) = (self.0.reserve(), Duration::from_secs(5));
        let answer = self.0.connect(slot, request, limit, first).await;
        answer.expect("the CONNECT is answered with 200").stream
    }
}
