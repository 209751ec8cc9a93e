//! The error codes of RST_STREAM and GOAWAY (RFC 9113 section 7).

use std::fmt;

/// Why a stream or a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// Nothing is wrong: a graceful end.
    NoError,
    /// The protocol was broken, and nothing more exact fits.
    ProtocolError,
    /// The endpoint itself failed.
    InternalError,
    /// More was sent than the window allowed, or a window overflowed.
    FlowControlError,
    /// SETTINGS were not acknowledged in time.
    SettingsTimeout,
    /// A frame came for a stream that was closed for it.
    StreamClosed,
    /// A frame had an impossible length.
    FrameSizeError,
    /// The stream was refused before any work was done.
    RefusedStream,
    /// The stream is not needed any more.
    Cancel,
    /// The state of field compression is lost.
    CompressionError,
    /// The connection behind a CONNECT failed.
    ConnectError,
    /// The peer causes too much load.
    EnhanceYourCalm,
    /// The transport is not secure enough.
    InadequateSecurity,
    /// The peer should use HTTP/1.1.
    Http11Required,
    /// A code without a meaning that we know; it has no special effect.
    Other(u32),
}

/// The known codes; the index is the code.
const KNOWN: [ErrorCode; 14] = [
    ErrorCode::NoError,
    ErrorCode::ProtocolError,
    ErrorCode::InternalError,
    ErrorCode::FlowControlError,
    ErrorCode::SettingsTimeout,
    ErrorCode::StreamClosed,
    ErrorCode::FrameSizeError,
    ErrorCode::RefusedStream,
    ErrorCode::Cancel,
    ErrorCode::CompressionError,
    ErrorCode::ConnectError,
    ErrorCode::EnhanceYourCalm,
    ErrorCode::InadequateSecurity,
    ErrorCode::Http11Required,
];

impl From<u32> for ErrorCode {
    fn from(code: u32) -> Self {
        let known = usize::try_from(code).ok().and_then(|code| KNOWN.get(code));
        known.copied().unwrap_or(Self::Other(code))
    }
}

impl From<ErrorCode> for u32 {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NoError => 0,
            ErrorCode::ProtocolError => 1,
            ErrorCode::InternalError => 2,
            ErrorCode::FlowControlError => 3,
            ErrorCode::SettingsTimeout => 4,
            ErrorCode::StreamClosed => 5,
            ErrorCode::FrameSizeError => 6,
            ErrorCode::RefusedStream => 7,
            ErrorCode::Cancel => 8,
            ErrorCode::CompressionError => 9,
            ErrorCode::ConnectError => 10,
            ErrorCode::EnhanceYourCalm => 11,
            ErrorCode::InadequateSecurity => 12,
            ErrorCode::Http11Required => 13,
            ErrorCode::Other(code) => code,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoError => "NO_ERROR",
            Self::ProtocolError => "PROTOCOL_ERROR",
            Self::InternalError => "INTERNAL_ERROR",
            Self::FlowControlError => "FLOW_CONTROL_ERROR",
            Self::SettingsTimeout => "SETTINGS_TIMEOUT",
            Self::StreamClosed => "STREAM_CLOSED",
            Self::FrameSizeError => "FRAME_SIZE_ERROR",
            Self::RefusedStream => "REFUSED_STREAM",
            Self::Cancel => "CANCEL",
            Self::CompressionError => "COMPRESSION_ERROR",
            Self::ConnectError => "CONNECT_ERROR",
            Self::EnhanceYourCalm => "ENHANCE_YOUR_CALM",
            Self::InadequateSecurity => "INADEQUATE_SECURITY",
            Self::Http11Required => "HTTP_1_1_REQUIRED",
            Self::Other(code) => return write!(f, "code {code}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_wire() {
        for code in (0..20).chain([u32::MAX]) {
            assert_eq!(u32::from(ErrorCode::from(code)), code);
        }
        assert_eq!(ErrorCode::from(0xa), ErrorCode::ConnectError);
        assert_eq!(ErrorCode::from(0xd), ErrorCode::Http11Required);
        assert_eq!(ErrorCode::from(0xe), ErrorCode::Other(0xe));
    }
}
