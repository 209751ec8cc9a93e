//! HBONE tunnels: HTTP/2 CONNECT over mutual TLS, on the engine of `hbone`.
//!
//! The seam is narrow on purpose: a [`Stream`] with its two ends, [`Pool::open`] on the side that
//! asks and [`server::Server`] on the side that answers. Nothing outside this folder knows how the
//! frames are made.
//!
//! A tunnel is a [`link::Link`] that its streams and its driver share. Whoever has something to do
//! does it to the end: a stream reads its application, seals and writes to the tunnel in its own
//! task; the driver, which reads the tunnel, writes to the applications. A task is woken only when
//! somebody had to wait.

mod account;
mod client;
mod direct;
mod driver;
mod first;
mod headers;
#[cfg(test)]
pub(super) mod in_memory;
mod link;
mod pool;
mod seat;
pub(super) mod server;
mod stream;
mod transport;

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

pub(super) use account::Ledger;
pub(super) use direct::{Delivered, Drawn, Tap};
pub(super) use first::First;
pub(super) use pool::{Pool, TunnelKey};
pub(super) use stream::{Receiver, Sender, Stream, StreamError};
pub(super) use transport::Transport;

use super::buffers::Buffers;
use super::same_node::TunnelId;
use crate::config::{DataPathConfig, Limits};
use crate::hbone::Role;
use crate::hbone::handshake::Keys;
use crate::hbone::limits::Limits as EngineLimits;
use crate::sys::clock::Clock;

/// Records sealed with one generation of keys: below what AES-GCM allows (RFC 8446 5.5).
const RECORDS_MAX: u64 = 1 << 24;

/// The engine ends a tunnel whose peer sends longer header lists than it takes; what is between
/// our limit and so many times that is refused by us, so that only its stream ends.
const HEADER_LIST_SLACK: u32 = 2;

/// How long bytes that came before a reset may take to leave before the reset overtakes them.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// What carries a tunnel: TCP, or a stream of another tunnel.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Carrier for T {}

/// A transport whose TLS handshake is done, and the keys that came of it.
pub(super) struct Secured {
    /// Below TLS.
    pub(super) io: Box<dyn Carrier>,
    /// What goes on from here.
    pub(super) keys: Keys,
    /// The end of the handshake, which leaves together with what follows it.
    pub(super) unsaid: Vec<u8>,
    /// What it is known by if its other end is in this process, too.
    pub(super) id: Option<TunnelId>,
    /// Ends when the peer is revoked, if it can be.
    pub(super) revoked: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// What all tunnels of a worker have in common.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Streams that we open on one tunnel, whatever its peer allows.
    client_streams: u32,
    /// Largest window of one stream.
    stream_window: u32,
    /// What the streams of one tunnel may be granted together beyond their first windows.
    connection_window: u32,
    frame_size: u32,
    limits: Limits,
    buffers: Rc<Buffers>,
    ledger: Arc<Ledger>,
    clock: Clock,
}

impl Settings {
    pub(super) fn new(
        config: &DataPathConfig,
        limits: &Limits,
        (buffers, ledger): (&Rc<Buffers>, &Arc<Ledger>),
        clock: &Clock,
    ) -> Self {
        Self {
            client_streams: u32::from(config.pool_streams_max.max(1)),
            stream_window: config.stream_window,
            connection_window: config.connection_window,
            frame_size: config.frame_size,
            limits: *limits,
            buffers: Rc::clone(buffers),
            ledger: Arc::clone(ledger),
            clock: clock.clone(),
        }
    }

    /// What the engine is told (spec hbone 4).
    fn engine(&self, role: Role) -> EngineLimits {
        let (streams_max, header_list_max) = match role {
            Role::Client => (self.client_streams, self.limits.client_header_list),
            Role::Server => {
                let list = self.limits.server_header_list.saturating_mul(HEADER_LIST_SLACK);
                (self.limits.streams_per_tunnel, list)
            }
        };
        EngineLimits {
            streams_max,
            stream_window_max: self.stream_window,
            frame_max: self.frame_size,
            header_list_max,
            records_max: RECORDS_MAX,
            ping_interval_ms: self.limits.ping_interval_ms,
            ping_timeout_ms: self.limits.ping_timeout_ms,
        }
    }
}
