//! Whole frames, typed (RFC 9113 section 6).

use super::{Entries, ErrorCode, Fault, Header, Kind, Malformed, flag};
use crate::hbone::Role;

/// The top bit of a word: reserved, or the exclusive bit of a priority.
const TOP_BIT: u32 = 0x8000_0000;

/// A frame without fault. The stream is in its [`Header`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Bytes of a stream.
    Data {
        /// The bytes.
        data: &'a [u8],
        /// What the window is charged for beyond them: padding and its length byte.
        overhead: u32,
        /// The peer's last on this stream.
        end_stream: bool,
    },
    /// The beginning of a field block.
    Headers {
        /// The first piece of the block.
        fragment: &'a [u8],
        /// The block is whole; otherwise CONTINUATION must follow.
        end_headers: bool,
        /// The peer's last on this stream.
        end_stream: bool,
        /// Deprecated advice.
        priority: Option<Priority>,
    },
    /// Deprecated advice.
    Priority(Priority),
    /// The abrupt end of the stream.
    RstStream(ErrorCode),
    /// Parameters of the peer, in their order.
    Settings(Entries<'a>),
    /// The peer follows our oldest SETTINGS that it had not acknowledged.
    SettingsAck,
    /// To be sent back.
    Ping([u8; 8]),
    /// Our PING came back.
    PingAck([u8; 8]),
    /// The peer takes no more streams.
    GoAway {
        /// The last stream that it may have processed.
        last_stream: u32,
        /// Why.
        code: ErrorCode,
        /// Words of the peer, for nobody but a log.
        debug: &'a [u8],
    },
    /// More room to send, 1 to 2^31-1 bytes.
    WindowUpdate(u32),
    /// More of a field block.
    Continuation {
        /// The piece.
        fragment: &'a [u8],
        /// The block is whole.
        end_headers: bool,
    },
    /// Of a kind that we do not know.
    Unknown,
}

/// The deprecated priority of a stream (RFC 9113 5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    /// The stream that this one depends on.
    pub depends_on: u32,
    /// Whether it wants to be the only one that does.
    pub exclusive: bool,
    /// 0 to 255 for weights 1 to 256.
    pub weight: u8,
}

/// Reads the whole payload of a frame that came to `role` and that [`Header::check`] let pass.
pub fn parse<'a>(header: Header, payload: &'a [u8], role: Role) -> Result<Frame<'a>, Malformed> {
    let length = Malformed::connection(Fault::Length, ErrorCode::FrameSizeError);
    if u32::try_from(payload.len()) != Ok(header.len) {
        return Err(length);
    }
    let end_stream = header.has(flag::END_STREAM);
    let end_headers = header.has(flag::END_HEADERS);
    Ok(match header.kind {
        Kind::Data => {
            let (data, overhead) = content(header, payload)?;
            Frame::Data { data, overhead, end_stream }
        }
        Kind::Headers => {
            let (fragment, _) = content(header, payload)?;
            let priority = match header.has(flag::PRIORITY) {
                true => Some(priority(&payload[usize::from(header.has(flag::PADDED))..])),
                false => None,
            };
            let priority = priority.map(|priority| priority.ok_or(length)).transpose()?;
            Frame::Headers { fragment, end_headers, end_stream, priority }
        }
        Kind::Priority => Frame::Priority(priority(payload).ok_or(length)?),
        Kind::RstStream => Frame::RstStream(ErrorCode::from(word(payload).ok_or(length)?)),
        Kind::Settings if header.has(flag::ACK) => Frame::SettingsAck,
        Kind::Settings => Frame::Settings(Entries::parse(payload, role)?),
        Kind::PushPromise => {
            return Err(Malformed::connection(Fault::Push, ErrorCode::ProtocolError));
        }
        Kind::Ping => {
            let opaque = <[u8; 8]>::try_from(payload).map_err(|_| length)?;
            if header.has(flag::ACK) { Frame::PingAck(opaque) } else { Frame::Ping(opaque) }
        }
        Kind::GoAway => {
            let (&head, debug) = payload.split_first_chunk::<8>().ok_or(length)?;
            let [l0, l1, l2, l3, code @ ..] = head;
            let last_stream = u32::from_be_bytes([l0, l1, l2, l3]) & !TOP_BIT;
            Frame::GoAway { last_stream, code: ErrorCode::from(u32::from_be_bytes(code)), debug }
        }
        Kind::WindowUpdate => match word(payload).ok_or(length)? & !TOP_BIT {
            0 => return Err(no_increment(header.stream)),
            increment => Frame::WindowUpdate(increment),
        },
        Kind::Continuation => Frame::Continuation { fragment: payload, end_headers },
        Kind::Unknown(_) => Frame::Unknown,
    })
}

/// The content of a frame with padding, and how many bytes are not content.
fn content(header: Header, payload: &[u8]) -> Result<(&[u8], u32), Malformed> {
    let body = header.body(payload)?;
    let length = Malformed::connection(Fault::Length, ErrorCode::FrameSizeError);
    let start = usize::try_from(body.prefix).map_err(|_| length)?;
    let len = usize::try_from(body.len).map_err(|_| length)?;
    let content = payload.get(start..).and_then(|rest| rest.get(..len)).ok_or(length)?;
    Ok((content, body.prefix + body.padding))
}

fn priority(bytes: &[u8]) -> Option<Priority> {
    let (&[d0, d1, d2, d3, weight], _) = bytes.split_first_chunk::<5>()?;
    let depends_on = u32::from_be_bytes([d0, d1, d2, d3]);
    let exclusive = depends_on & TOP_BIT != 0;
    Some(Priority { depends_on: depends_on & !TOP_BIT, exclusive, weight })
}

fn word(bytes: &[u8]) -> Option<u32> {
    <[u8; 4]>::try_from(bytes).ok().map(u32::from_be_bytes)
}

/// 6.9: on a stream it ends the stream, on the connection the connection.
fn no_increment(stream: u32) -> Malformed {
    match stream {
        0 => Malformed::connection(Fault::NoIncrement, ErrorCode::ProtocolError),
        _ => Malformed::stream(stream, Fault::NoIncrement, ErrorCode::ProtocolError),
    }
}
