//! Our frames. Those of a fixed length are arrays; the others are appended to the caller's buffer.

use super::header::{GOAWAY_LEN_MIN, SETTING_LEN};
use super::{ErrorCode, HEADER_LEN, Header, Kind, STREAM_ID_MAX, Setting, WINDOW_MAX, flag};

const PING_FRAME_LEN: usize = HEADER_LEN + 8;
const RST_STREAM_FRAME_LEN: usize = HEADER_LEN + 4;
const WINDOW_UPDATE_FRAME_LEN: usize = HEADER_LEN + 4;

/// The header of a DATA frame of `len` bytes, to be put in front of them in place.
pub fn data(stream: u32, len: u32, end_stream: bool) -> [u8; HEADER_LEN] {
    let flags = if end_stream { flag::END_STREAM } else { 0 };
    Header { len, kind: Kind::Data, flags, stream }.emit()
}

/// Appends a field block as HEADERS, and CONTINUATION for what is longer than `len_max`, the
/// SETTINGS_MAX_FRAME_SIZE of the peer in bytes. Nothing may be sent between these frames.
pub fn headers(stream: u32, block: &[u8], end_stream: bool, len_max: u32, out: &mut Vec<u8>) {
    let len_max = usize::try_from(len_max).unwrap_or(usize::MAX).max(1);
    let (mut kind, mut rest) = (Kind::Headers, block);
    loop {
        let (piece, after) = rest.split_at(rest.len().min(len_max));
        let first = kind == Kind::Headers;
        let mut flags = if first && end_stream { flag::END_STREAM } else { 0 };
        flags |= if after.is_empty() { flag::END_HEADERS } else { 0 };
        // A piece is no longer than `len_max`, which had 32 bits.
        let len = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&Header { len, kind, flags, stream }.emit());
        out.extend_from_slice(piece);
        (kind, rest) = (Kind::Continuation, after);
        if rest.is_empty() {
            return;
        }
    }
}

/// A RST_STREAM.
pub fn rst_stream(stream: u32, code: ErrorCode) -> [u8; RST_STREAM_FRAME_LEN] {
    fixed(Header { len: 4, kind: Kind::RstStream, flags: 0, stream }, &word(code.into()))
}

/// Appends a SETTINGS frame with these entries.
pub fn settings(entries: &[(Setting, u32)], out: &mut Vec<u8>) {
    let len = u32::try_from(entries.len()).unwrap_or(u32::MAX).saturating_mul(SETTING_LEN);
    out.extend_from_slice(&Header { len, kind: Kind::Settings, flags: 0, stream: 0 }.emit());
    for &(setting, value) in entries {
        out.extend_from_slice(&u16::from(setting).to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// The acknowledgement of a SETTINGS frame.
pub fn settings_ack() -> [u8; HEADER_LEN] {
    Header { len: 0, kind: Kind::Settings, flags: flag::ACK, stream: 0 }.emit()
}

/// A PING, or the answer to one.
pub fn ping(opaque: [u8; 8], ack: bool) -> [u8; PING_FRAME_LEN] {
    let flags = if ack { flag::ACK } else { 0 };
    fixed(Header { len: 8, kind: Kind::Ping, flags, stream: 0 }, &opaque)
}

/// Appends a GOAWAY.
pub fn goaway(last_stream: u32, code: ErrorCode, debug: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(debug.len()).unwrap_or(u32::MAX).saturating_add(GOAWAY_LEN_MIN);
    out.extend_from_slice(&Header { len, kind: Kind::GoAway, flags: 0, stream: 0 }.emit());
    out.extend_from_slice(&word(last_stream & STREAM_ID_MAX));
    out.extend_from_slice(&word(code.into()));
    out.extend_from_slice(debug);
}

/// A WINDOW_UPDATE by 1 to 2^31-1 bytes, for a stream or, with 0, for the connection.
pub fn window_update(stream: u32, increment: u32) -> [u8; WINDOW_UPDATE_FRAME_LEN] {
    let header = Header { len: 4, kind: Kind::WindowUpdate, flags: 0, stream };
    fixed(header, &word(increment & WINDOW_MAX))
}

/// A frame of `HEADER_LEN + payload.len()` bytes.
fn fixed<const LEN: usize>(header: Header, payload: &[u8]) -> [u8; LEN] {
    let mut frame = [0; LEN];
    let bytes = header.emit().into_iter().chain(payload.iter().copied());
    frame.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    frame
}

fn word(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}
