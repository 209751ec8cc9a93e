//! The nine bytes before every frame (RFC 9113 4.1), and all that they give away.

use super::{ErrorCode, FRAME_LEN_MAX, Fault, HEADER_LEN, Malformed, STREAM_ID_MAX, flag};

const PAD_LENGTH_LEN: u32 = 1;
const PRIORITY_LEN: u32 = 5;
const RST_STREAM_LEN: u32 = 4;
pub(super) const SETTING_LEN: u32 = 6;
const PING_LEN: u32 = 8;
pub(super) const GOAWAY_LEN_MIN: u32 = 8;
const WINDOW_UPDATE_LEN: u32 = 4;

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the payload in bytes, 24 bits.
    pub len: u32,
    /// What kind of frame.
    pub kind: Kind,
    /// See [`flag`]; bits without a meaning for the kind are ignored.
    pub flags: u8,
    /// The stream, or 0 for the connection; 31 bits.
    pub stream: u32,
}

/// The kinds of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of a stream.
    Data,
    /// The beginning of a field block.
    Headers,
    /// Deprecated advice; ignored.
    Priority,
    /// The abrupt end of a stream.
    RstStream,
    /// Parameters of the connection.
    Settings,
    /// Never legal towards us.
    PushPromise,
    /// A probe of the peer.
    Ping,
    /// No more streams.
    GoAway,
    /// More room to send.
    WindowUpdate,
    /// More of a field block.
    Continuation,
    /// A kind that we do not know; ignored.
    Unknown(u8),
}

/// Where the content of a DATA or HEADERS frame lies in its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// Bytes before the content: pad length and priority.
    pub prefix: u32,
    /// Bytes of content.
    pub len: u32,
    /// Bytes of padding after the content.
    pub padding: u32,
}

impl Header {
    /// Reads a header. Every nine bytes are one; whether it is legal says [`Self::check`].
    pub fn parse(bytes: [u8; HEADER_LEN]) -> Self {
        let [len0, len1, len2, kind, flags, stream @ ..] = bytes;
        Self {
            len: u32::from_be_bytes([0, len0, len1, len2]),
            kind: Kind::from(kind),
            flags,
            // The 32nd bit is reserved and ignored.
            stream: u32::from_be_bytes(stream) & STREAM_ID_MAX,
        }
    }

    /// Writes the header.
    pub fn emit(self) -> [u8; HEADER_LEN] {
        let [_, len0, len1, len2] = (self.len & FRAME_LEN_MAX).to_be_bytes();
        let [stream0, stream1, stream2, stream3] = (self.stream & STREAM_ID_MAX).to_be_bytes();
        let kind = self.kind.into();
        [len0, len1, len2, kind, self.flags, stream0, stream1, stream2, stream3]
    }

    /// Whether a bit of [`flag`] is set.
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Refuses what no payload could make legal. `len_max` is the SETTINGS_MAX_FRAME_SIZE that the
    /// peer may use, in bytes.
    ///
    /// A frame that is too long ends the connection whatever its kind: nobody reads through it to
    /// find the next one.
    pub fn check(self, len_max: u32) -> Result<(), Malformed> {
        if self.len > len_max {
            return Err(Malformed::connection(Fault::TooLong, ErrorCode::FrameSizeError));
        }
        match self.kind {
            Kind::Data | Kind::Headers => {
                self.on_stream()?;
                self.length(self.len >= self.prefix_len())
            }
            Kind::Priority => {
                self.on_stream()?;
                // 6.3: the only wrong length that ends a stream and not the connection.
                let wrong =
                    Malformed::stream(self.stream, Fault::Length, ErrorCode::FrameSizeError);
                if self.len == PRIORITY_LEN { Ok(()) } else { Err(wrong) }
            }
            Kind::RstStream => {
                self.on_stream()?;
                self.length(self.len == RST_STREAM_LEN)
            }
            Kind::Settings => {
                self.on_connection()?;
                let acked = self.has(flag::ACK);
                self.length(if acked {
                    self.len == 0
                } else {
                    self.len.is_multiple_of(SETTING_LEN)
                })
            }
            Kind::PushPromise => Err(Malformed::connection(Fault::Push, ErrorCode::ProtocolError)),
            Kind::Ping => {
                self.on_connection()?;
                self.length(self.len == PING_LEN)
            }
            Kind::GoAway => {
                self.on_connection()?;
                self.length(self.len >= GOAWAY_LEN_MIN)
            }
            Kind::WindowUpdate => self.length(self.len == WINDOW_UPDATE_LEN),
            Kind::Continuation => self.on_stream(),
            Kind::Unknown(_) => Ok(()),
        }
    }

    /// How many bytes of the payload [`Self::body`] needs to see.
    pub fn prefix_len(self) -> u32 {
        let padded = self.is_padded();
        let priority = self.kind == Kind::Headers && self.has(flag::PRIORITY);
        u32::from(padded) * PAD_LENGTH_LEN + u32::from(priority) * PRIORITY_LEN
    }

    /// Where the content lies, given at least the first [`Self::prefix_len`] bytes of the payload.
    pub fn body(self, payload: &[u8]) -> Result<Body, Malformed> {
        let prefix = self.prefix_len();
        let padding = match payload.first() {
            _ if !self.is_padded() => 0,
            Some(&padding) => u32::from(padding),
            None => return Err(Malformed::connection(Fault::Length, ErrorCode::FrameSizeError)),
        };
        let Some(rest) = self.len.checked_sub(prefix) else {
            return Err(Malformed::connection(Fault::Length, ErrorCode::FrameSizeError));
        };
        match rest.checked_sub(padding) {
            Some(len) => Ok(Body { prefix, len, padding }),
            None => Err(Malformed::connection(Fault::Padding, ErrorCode::ProtocolError)),
        }
    }

    fn is_padded(self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.has(flag::PADDED)
    }

    fn on_stream(self) -> Result<(), Malformed> {
        let wrong = Malformed::connection(Fault::OnConnection, ErrorCode::ProtocolError);
        if self.stream != 0 { Ok(()) } else { Err(wrong) }
    }

    fn on_connection(self) -> Result<(), Malformed> {
        let wrong = Malformed::connection(Fault::OnStream, ErrorCode::ProtocolError);
        if self.stream == 0 { Ok(()) } else { Err(wrong) }
    }

    /// Wrong lengths end the connection: the frames that come here can alter the state of it, or
    /// carry bytes that its window counts.
    fn length(self, right: bool) -> Result<(), Malformed> {
        let wrong = Malformed::connection(Fault::Length, ErrorCode::FrameSizeError);
        if right { Ok(()) } else { Err(wrong) }
    }
}

impl From<u8> for Kind {
    fn from(kind: u8) -> Self {
        match kind {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::RstStream,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            kind => Self::Unknown(kind),
        }
    }
}

impl From<Kind> for u8 {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Data => 0,
            Kind::Headers => 1,
            Kind::Priority => 2,
            Kind::RstStream => 3,
            Kind::Settings => 4,
            Kind::PushPromise => 5,
            Kind::Ping => 6,
            Kind::GoAway => 7,
            Kind::WindowUpdate => 8,
            Kind::Continuation => 9,
            Kind::Unknown(kind) => kind,
        }
    }
}
