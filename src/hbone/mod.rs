//! HBONE's tunnel engine: TLS records in place and HTTP/2 CONNECT, without sockets and clocks.

mod engine;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod hpack;
pub mod http2;
pub mod limits;
mod plan;
pub mod record;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod testing;

pub use engine::{Engine, Input};
pub use plan::{Plan, Slots};

/// Which end of a tunnel we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We opened the connection and send CONNECTs.
    Client,
    /// We accepted the connection and answer CONNECTs.
    Server,
}
