//! HTTP/2 frames (RFC 9113 sections 4 and 6): headers, typed payloads, what is wrong with them, and
//! how ours are written.
//!
//! A reader takes nine bytes to [`Header::parse`], asks [`Header::check`] at once (so that a bad
//! length never makes anybody wait for it), and then either collects the payload for [`parse`], or
//! asks [`Header::body`] where the content lies and passes it on as it arrives.

mod emit;
mod error_code;
mod header;
mod malformed;
mod payload;
mod settings;
#[cfg(test)]
mod tests;

pub use emit::{data, goaway, headers, ping, rst_stream, settings, settings_ack, window_update};
pub use error_code::ErrorCode;
pub use header::{Body, Header, Kind};
pub use malformed::{Fault, Malformed, Scope};
pub use payload::{Frame, Priority, parse};
pub use settings::{Entries, Setting};

/// Length of a frame header in bytes.
pub const HEADER_LEN: usize = 9;
/// What a client sends before its first frame (RFC 9113 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The least and the initial SETTINGS_MAX_FRAME_SIZE, in bytes (RFC 9113 6.5.2).
pub const FRAME_LEN_DEFAULT: u32 = 16_384;
/// The greatest SETTINGS_MAX_FRAME_SIZE, in bytes.
pub const FRAME_LEN_MAX: u32 = 16_777_215;
/// The initial flow-control window of connections and streams, in bytes (RFC 9113 6.9.2).
pub const WINDOW_DEFAULT: u32 = 65_535;
/// The greatest flow-control window, in bytes (RFC 9113 6.9.1).
pub const WINDOW_MAX: u32 = 0x7fff_ffff;
/// The greatest stream identifier.
pub const STREAM_ID_MAX: u32 = 0x7fff_ffff;

/// Flags of a frame (RFC 9113 section 6). ACK shares its bit with END_STREAM.
pub mod flag {
    /// SETTINGS and PING: an acknowledgement.
    pub const ACK: u8 = 0x01;
    /// DATA and HEADERS: the sender's last on this stream.
    pub const END_STREAM: u8 = 0x01;
    /// HEADERS and CONTINUATION: the field block ends here.
    pub const END_HEADERS: u8 = 0x04;
    /// DATA and HEADERS: a length of padding comes first.
    pub const PADDED: u8 = 0x08;
    /// HEADERS: five bytes of priority come before the field block.
    pub const PRIORITY: u8 = 0x20;
}
