//! TLS 1.3 records in place, after somebody else has done the handshake (RFC 8446 5 and 7); where
//! TLS 1.2 is allowed, rustls seals and opens its records ([`Tls12`]).
//!
//! A record on the wire is `header (5) | payload (up to 16,384) | type (1) | tag (16)`. Payload is
//! written by the caller where it will be sealed, and read where it was opened: neither direction
//! moves a byte of it. What a direction is made of is plain data: its traffic secret, generation
//! and sequence number, from which keys can be made again at any time.

use super::Role;

mod error;
mod frozen;
mod layer;
mod open;
mod post;
mod seal;
mod secret;
mod tls12;

pub(super) use frozen::DIRECTION_MAX;

pub(super) use layer::{Layer, Layout};
pub(super) use tls12::{Connection, encode, moved};

pub use error::{Alert, RecordError};
pub use layer::Secrets;
pub use open::{Opened, Opener, record_len};
pub use seal::{SEALED_BY_ITSELF_MAX, Sealer};
pub use secret::{DirectionState, Suite, TrafficSecret};
pub use tls12::Tls12;

/// Type, version and length, in front of every record.
pub const HEADER: usize = 5;
/// Most payload that one record carries.
pub const PAYLOAD_MAX: usize = 16 * 1024;
/// The inner content type and the tag, behind the payload.
pub const TRAILER: usize = 1 + TAG;
/// What a record adds to its payload.
pub const OVERHEAD: usize = HEADER + TRAILER;
/// Longest record on the wire (RFC 8446 5.2: 256 bytes of expansion).
pub const RECORD_MAX: usize = HEADER + PAYLOAD_MAX + 256;

const TAG: usize = 16;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

#[cfg(test)]
mod tests;
