//! Field compression (RFC 7541) for an endpoint that knows only CONNECT.
//!
//! We read all of it and write little: our own table has no room, so that a block of ours is plain
//! data, and the peer's shrinks to nothing once it has acknowledged our SETTINGS.

mod decoder;
mod dynamic_table;
mod encoder;
mod huffman;
mod integer;
mod static_table;
#[cfg(test)]
mod tests;

pub use decoder::{Block, DecodeError, Decoder, Limits};
pub use dynamic_table::{RestoreError, TABLE_SIZE_DEFAULT};
pub use encoder::{Encoder, Literal};

/// What a field counts for beyond its name and value, in bytes (RFC 7541 4.1, RFC 9113 6.5.2).
pub const FIELD_OVERHEAD: usize = 32;
