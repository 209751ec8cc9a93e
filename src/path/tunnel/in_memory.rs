//! Tunnels over any transport, for tests of what stands on them.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use http::{Method, Request};
use tokio::io::DuplexStream;

use super::client::{self, Tunnel};
use super::server::Server;
use super::{Settings, Stream, TunnelKey};
use crate::config::{DataPathConfig, Limits, OriginalSource};
use crate::model::Hop;
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
        response_baggage: true,
        ipv6: true,
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        stream_window: 4 * 1024 * 1024,
        connection_window: 16 * 1024 * 1024,
        frame_size: 1024 * 1024,
        limits: Limits::default(),
    }
}

pub(in crate::path) async fn client(
    io: DuplexStream,
) -> (Near, impl Future<Output = ()> + 'static) {
    let policy = (100, Duration::from_secs(300));
    let started = client::start(io, &settings(), policy, Clock::system()).await;
    let (tunnel, driver) = started.expect("a duplex takes the preface");
    (Near(tunnel), driver)
}

pub(in crate::path) async fn server(io: DuplexStream) -> Server<DuplexStream> {
    Server::start(io, &settings()).await.expect("a client's preface arrives")
}

impl Near {
    pub(in crate::path) async fn connect(&self) -> Stream {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = "10.0.0.1:80".parse().expect("a legal authority");
        let answer = self.0.connect(self.0.reserve(), request, Duration::from_secs(5)).await;
        answer.expect("the CONNECT is answered with 200").stream
    }
}
