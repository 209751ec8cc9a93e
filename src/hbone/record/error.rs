//! Why a connection's records cannot go on, and what the peer is told about it.

use std::fmt;

/// An alert description (RFC 8446 6), as its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert(pub u8);

impl Alert {
    /// The clean end of one direction.
    pub const CLOSE_NOTIFY: Self = Self(0);
    /// Something that may not come here.
    pub const UNEXPECTED_MESSAGE: Self = Self(10);
    /// A record that does not open.
    pub const BAD_RECORD_MAC: Self = Self(20);
    /// A record that is too long.
    pub const RECORD_OVERFLOW: Self = Self(22);
    /// A value that may not stand where it does.
    pub const ILLEGAL_PARAMETER: Self = Self(47);
    /// A message that cannot be read.
    pub const DECODE_ERROR: Self = Self(50);
    /// Something went wrong on this side.
    pub const INTERNAL_ERROR: Self = Self(80);
    /// Said before `close_notify` by somebody who gives up; not an error.
    pub const USER_CANCELED: Self = Self(90);
}

/// Why the records of a peer, or our own, cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// A record of a content type that may not come after the handshake.
    ContentType(u8),
    /// A record longer than RFC 8446 allows.
    Overflow,
    /// A record too short to hold its type and tag.
    TooShort,
    /// A record that was changed on its way, or sealed with other keys.
    Undecryptable,
    /// A record of nothing but padding.
    OnlyPadding,
    /// An alert that is not two bytes.
    MalformedAlert,
    /// The peer ended the connection by an alert.
    AlertReceived(Alert),
    /// A handshake message that may not come after the handshake, or not to us.
    HandshakeMessage(u8),
    /// A handshake message cut by a record of another kind, empty, or followed by more where keys
    /// change.
    Fragmented,
    /// A key update or a ticket that is not what it should be.
    Malformed,
    /// More session tickets than anybody needs.
    TooManyTickets,
    /// Too many records in a row that carried no application data.
    TooManyWithoutData,
    /// A record after `close_notify`.
    AfterClose,
    /// The sequence number of a direction is used up.
    Exhausted,
    /// The cryptographic library refused what it should not.
    Internal,
}

impl RecordError {
    /// What the peer is told, if anything.
    pub fn alert(self) -> Option<Alert> {
        match self {
            Self::ContentType(_)
            | Self::OnlyPadding
            | Self::HandshakeMessage(_)
            | Self::Fragmented
            | Self::TooManyTickets
            | Self::TooManyWithoutData => Some(Alert::UNEXPECTED_MESSAGE),
            Self::Overflow => Some(Alert::RECORD_OVERFLOW),
            Self::TooShort | Self::MalformedAlert => Some(Alert::DECODE_ERROR),
            Self::Undecryptable => Some(Alert::BAD_RECORD_MAC),
            Self::Malformed => Some(Alert::ILLEGAL_PARAMETER),
            Self::Internal | Self::Exhausted => Some(Alert::INTERNAL_ERROR),
            Self::AlertReceived(_) | Self::AfterClose => None,
        }
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContentType(kind) => write!(f, "a TLS record of type {kind} after the handshake"),
            Self::Overflow => f.write_str("a TLS record that is too long"),
            Self::TooShort => f.write_str("a TLS record that is too short"),
            Self::Undecryptable => f.write_str("a TLS record that does not open"),
            Self::OnlyPadding => f.write_str("a TLS record of nothing but padding"),
            Self::MalformedAlert => f.write_str("a malformed TLS alert"),
            Self::AlertReceived(alert) => write!(f, "TLS alert {} received", alert.0),
            Self::HandshakeMessage(kind) => {
                write!(f, "TLS handshake message {kind} after the handshake")
            }
            Self::Fragmented => f.write_str("a TLS handshake message cut where it may not be"),
            Self::Malformed => f.write_str("a malformed TLS handshake message"),
            Self::TooManyTickets => f.write_str("too many TLS session tickets"),
            Self::TooManyWithoutData => f.write_str("too many TLS records without data"),
            Self::AfterClose => f.write_str("a TLS record after close_notify"),
            Self::Exhausted => f.write_str("the TLS sequence numbers are used up"),
            Self::Internal => f.write_str("the cryptographic library failed"),
        }
    }
}

impl std::error::Error for RecordError {}
