//! Why a tunnel ends.

use std::fmt;

use super::frame::{ErrorCode, Malformed};
use super::record::RecordError;

/// Why a tunnel cannot go on. Every stream on it ends as if it were reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The records of TLS.
    Record(RecordError),
    /// A frame that is wrong by itself.
    Malformed(Malformed),
    /// A frame that may not come here and now.
    Violation(Violation),
    /// More than anybody needs of something that costs us more than the peer.
    Flood(Flood),
    /// The peer neither sent a byte nor answered a ping.
    Silent,
    /// The connection ended without the words that make it a clean end.
    Truncated,
    /// The peer's certificate was revoked; whoever drives the tunnel has found out.
    Revoked,
    /// The tunnel was ended before, or by us.
    Over,
}

/// Rules about the order of frames, of RFC 9113 if not said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Not the preface of HTTP/2 (3.4).
    Preface,
    /// The first frame is not SETTINGS (3.4).
    NoSettings,
    /// A field block was interrupted, or continued that had not begun (6.10).
    Continuation,
    /// A frame on a stream that nobody opened (5.1).
    Idle,
    /// A request on a stream of the wrong kind, or older than the last one (5.1.1).
    StreamId,
    /// More bytes than the window of the connection (6.9.1).
    ConnectionWindow,
    /// A window beyond 2^31-1 (6.9.1).
    WindowOverflow,
    /// The field block cannot be decoded (4.3).
    Compression,
    /// SETTINGS were acknowledged that we had not sent (6.5.3).
    SettingsAck,
}

/// What there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Frames that move nothing.
    Noise,
    /// Streams opened and reset.
    Resets,
    /// Streams that had to be reset for faults of the peer.
    Faults,
    /// Bytes or pieces of one field block, or of all together.
    Fields,
    /// Entries of SETTINGS, or SETTINGS that wait for their acknowledgement.
    Settings,
}

impl Error {
    /// The code of the GOAWAY that tells the peer; `None` if TLS tells it, or there is nobody to
    /// tell.
    pub fn code(self) -> Option<ErrorCode> {
        match self {
            Self::Malformed(malformed) => Some(malformed.code),
            Self::Violation(violation) => Some(violation.code()),
            Self::Flood(_) => Some(ErrorCode::EnhanceYourCalm),
            Self::Silent | Self::Revoked => Some(ErrorCode::NoError),
            Self::Record(_) | Self::Truncated | Self::Over => None,
        }
    }

    /// Whether the peer broke a rule, rather than went away.
    pub fn is_violation(self) -> bool {
        match self {
            Self::Record(RecordError::AlertReceived(_)) => false,
            Self::Record(_) | Self::Malformed(_) | Self::Violation(_) | Self::Flood(_) => true,
            Self::Silent | Self::Truncated | Self::Revoked | Self::Over => false,
        }
    }
}

impl Violation {
    fn code(self) -> ErrorCode {
        match self {
            Self::ConnectionWindow | Self::WindowOverflow => ErrorCode::FlowControlError,
            Self::Compression => ErrorCode::CompressionError,
            _ => ErrorCode::ProtocolError,
        }
    }
}

impl From<RecordError> for Error {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<Flood> for Error {
    fn from(flood: Flood) -> Self {
        Self::Flood(flood)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(error) => error.fmt(f),
            Self::Malformed(error) => error.fmt(f),
            Self::Violation(violation) => f.write_str(match violation {
                Violation::Preface => "the peer does not begin as HTTP/2 does",
                Violation::NoSettings => "the first frame is not SETTINGS",
                Violation::Continuation => "a field block is interrupted or has no beginning",
                Violation::Idle => "a frame on a stream that nobody opened",
                Violation::StreamId => "a request on a stream that may not be opened",
                Violation::ConnectionWindow => "more bytes than the connection's window",
                Violation::WindowOverflow => "a window beyond its largest size",
                Violation::Compression => "a field block cannot be decoded",
                Violation::SettingsAck => "SETTINGS were acknowledged that were not sent",
            }),
            Self::Flood(flood) => f.write_str(match flood {
                Flood::Noise => "too many frames that move nothing",
                Flood::Resets => "too many streams opened and reset",
                Flood::Faults => "too many faulty streams",
                Flood::Fields => "too many header fields",
                Flood::Settings => "too many settings",
            }),
            Self::Silent => f.write_str("no byte and no answer to a ping"),
            Self::Truncated => f.write_str("the connection was cut off"),
            Self::Revoked => f.write_str("the peer's certificate is revoked"),
            Self::Over => f.write_str("the tunnel is over"),
        }
    }
}

impl std::error::Error for Error {}
