//! What is wrong with a frame, and what the RFC wants done about it.

use std::fmt;

use super::ErrorCode;

/// A frame that breaks RFC 9113 by itself, whatever the state of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong.
    pub fault: Fault,
    /// The code to answer with.
    pub code: ErrorCode,
    /// What ends.
    pub scope: Scope,
}

/// What an error ends (RFC 9113 5.4). A receiver may always end more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The connection, with GOAWAY.
    Connection,
    /// This stream, with RST_STREAM.
    Stream(u32),
}

/// The ways in which a frame can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Longer than the SETTINGS_MAX_FRAME_SIZE of its receiver.
    TooLong,
    /// A length that its kind cannot have.
    Length,
    /// On stream 0, but its kind belongs to streams.
    OnConnection,
    /// On a stream, but its kind belongs to the connection.
    OnStream,
    /// More padding than payload.
    Padding,
    /// A WINDOW_UPDATE by nothing.
    NoIncrement,
    /// A PUSH_PROMISE: servers take none, and our client has refused them.
    Push,
    /// SETTINGS_ENABLE_PUSH is neither 0 nor 1, or a server's is 1.
    EnablePush,
    /// SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1.
    InitialWindowSize,
    /// SETTINGS_MAX_FRAME_SIZE below 16,384 or above 16,777,215.
    MaxFrameSize,
    /// SETTINGS_ENABLE_CONNECT_PROTOCOL is neither 0 nor 1.
    EnableConnectProtocol,
}

impl Malformed {
    pub(super) fn connection(fault: Fault, code: ErrorCode) -> Self {
        Self { fault, code, scope: Scope::Connection }
    }

    pub(super) fn stream(stream: u32, fault: Fault, code: ErrorCode) -> Self {
        Self { fault, code, scope: Scope::Stream(stream) }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)
    }
}

impl std::error::Error for Malformed {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "a frame is longer than we allow",
            Self::Length => "a frame has a length that its kind cannot have",
            Self::OnConnection => "a frame of a stream came on the connection",
            Self::OnStream => "a frame of the connection came on a stream",
            Self::Padding => "a frame has more padding than payload",
            Self::NoIncrement => "a window update gives nothing",
            Self::Push => "the peer pushes",
            Self::EnablePush => "ENABLE_PUSH has an illegal value",
            Self::InitialWindowSize => "INITIAL_WINDOW_SIZE is too large",
            Self::MaxFrameSize => "MAX_FRAME_SIZE is out of range",
            Self::EnableConnectProtocol => "ENABLE_CONNECT_PROTOCOL has an illegal value",
        })
    }
}
