//! HBONE tunnels: HTTP/2 CONNECT over mutual TLS.
//!
//! The seam is narrow on purpose: a [`Stream`] with its two ends, [`Pool::open`] on the side that
//! asks and [`server::Server`] on the side that answers. Nothing outside this folder knows how the
//! frames are made.

mod chunk;
mod client;
#[cfg(test)]
pub(super) mod in_memory;
mod keepalive;
mod pool;
pub(super) mod server;
mod stream;
mod transport;

pub(super) use pool::{Pool, TunnelKey};
pub(super) use stream::{Receiver, Sender, Stream, StreamError};
pub(super) use transport::Transport;

use crate::config::{DataPathConfig, Limits};

/// What both roles of a tunnel are told about HTTP/2 (spec hbone 4).
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    stream_window: u32,
    connection_window: u32,
    frame_size: u32,
    limits: Limits,
}

/// Bytes of one stream that may wait in the engine for the wire.
const SEND_BUFFER_MAX: usize = 512 * 1024;

impl Settings {
    pub(super) fn new(config: &DataPathConfig, limits: &Limits) -> Self {
        Self {
            stream_window: config.stream_window,
            connection_window: config.connection_window,
            frame_size: config.frame_size,
            limits: *limits,
        }
    }
}
