//! The walk over what the peer sends: frames in whatever pieces they come.

use std::time::Instant;

use super::{Connection, Error, Event, Role, Violation};
use crate::hbone::error::Flood;
use crate::hbone::frame::{self, ErrorCode, HEADER_LEN, Header, Kind, flag};

/// Longest SETTINGS that we read: several times the settings there are.
const SETTINGS_LEN_MAX: u32 = 6 * 64;
/// What of a GOAWAY is read; the rest is for people.
const GOAWAY_LEN_READ: u32 = 8;
/// Padding and priority, which come on top of a field block.
const BLOCK_EXTRA_MAX: u32 = 6 + 255;
/// Pieces of one field block. Peers need one for each 16,384 bytes.
const PIECES_MAX: u8 = 32;

/// How far the walk is.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) at: At,
    /// Bytes of the preface or of a frame's header that are there.
    pub(super) head: [u8; HEADER_LEN],
    pub(super) head_len: u8,
    pub(super) header: Header,
    /// Bytes of payload, or of DATA, that are to come.
    pub(super) left: u32,
    /// Bytes to step over after them.
    pub(super) skip: u32,
    /// The pad length of DATA is still to come.
    pub(super) padded: bool,
    /// DATA goes to its stream; otherwise nobody wants it.
    pub(super) wanted: bool,
    pub(super) collected: Vec<u8>,
    pub(super) block: Option<Block>,
    /// The peer's first SETTINGS have not come.
    pub(super) first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Preface,
    Header,
    Payload,
    Data,
    Skip,
}

/// A field block that is being put together.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) end_stream: bool,
    pub(super) pieces: u8,
    pub(super) bytes: Vec<u8>,
}

/// What one step of the walk gave.
enum Step<'a> {
    Event(Event<'a>),
    Again,
    /// The bytes are used up.
    More,
}

impl Reading {
    pub(super) fn new(role: Role) -> Self {
        Self {
            at: if role == Role::Server { At::Preface } else { At::Header },
            head: [0; HEADER_LEN],
            head_len: 0,
            header: Header { len: 0, kind: Kind::Data, flags: 0, stream: 0 },
            left: 0,
            skip: 0,
            padded: false,
            wanted: false,
            collected: Vec::new(),
            block: None,
            first: true,
        }
    }

    /// Takes as many of the bytes as are left of this payload.
    fn take<'a>(left: &mut u32, plain: &mut &'a [u8]) -> &'a [u8] {
        let count = (*left as usize).min(plain.len());
        let (bytes, rest) = plain.split_at(count);
        *plain = rest;
        // Not more than was left, which is a u32.
        *left -= u32::try_from(count).unwrap_or(*left);
        bytes
    }
}

impl Connection {
    /// Reads on in `plain`, up to the next event; `None` when all of it is read. After an error the
    /// connection is over, and [`Connection::write`] has the last words.
    pub fn read<'a>(
        &mut self,
        plain: &mut &'a [u8],
        now: Instant,
    ) -> Result<Option<Event<'a>>, Error> {
        if self.ended.is_some() {
            return Err(Error::Over);
        }
        let now_ms = self.ms(now);
        if !plain.is_empty() {
            self.heard_ms = now_ms;
            self.asked_ms = None;
        }
        loop {
            if let Some(event) = self.lost_event() {
                return Ok(Some(event));
            }
            let step = match self.reading.at {
                At::Preface => self.read_preface(plain),
                At::Header => self.read_header(plain, now_ms),
                At::Payload => self.read_payload(plain, now_ms),
                At::Data => self.read_data(plain, now_ms),
                At::Skip => {
                    Reading::take(&mut self.reading.skip, plain);
                    let done = self.reading.skip == 0;
                    if done {
                        self.reading.at = At::Header;
                    }
                    Ok(if done { Step::Again } else { Step::More })
                }
            };
            match step {
                Ok(Step::Event(event)) => return Ok(Some(event)),
                Ok(Step::Again) => {}
                Ok(Step::More) => return Ok(None),
                Err(error) => {
                    self.fail(error);
                    return Err(error);
                }
            }
        }
    }

    fn read_preface<'a>(&mut self, plain: &mut &'a [u8]) -> Result<Step<'a>, Error> {
        let at = usize::from(self.reading.head_len);
        let expected = &frame::PREFACE[at..];
        let count = expected.len().min(plain.len());
        let (bytes, rest) = plain.split_at(count);
        if bytes != &expected[..count] {
            return Err(Violation::Preface.into());
        }
        *plain = rest;
        if count < expected.len() {
            // The preface has 24 bytes.
            self.reading.head_len += u8::try_from(count).unwrap_or(0);
            return Ok(Step::More);
        }
        self.reading.head_len = 0;
        self.reading.at = At::Header;
        Ok(Step::Again)
    }

    fn read_header<'a>(&mut self, plain: &mut &'a [u8], now_ms: u64) -> Result<Step<'a>, Error> {
        let reading = &mut self.reading;
        let at = usize::from(reading.head_len);
        let count = (HEADER_LEN - at).min(plain.len());
        let (bytes, rest) = plain.split_at(count);
        *plain = rest;
        reading.head[at..at + count].copy_from_slice(bytes);
        if at + count < HEADER_LEN {
            reading.head_len += u8::try_from(count).unwrap_or(0);
            return Ok(Step::More);
        }
        reading.head_len = 0;
        reading.header = Header::parse(reading.head);
        self.begin_frame(now_ms)
    }

    /// Judges a frame by its header, and decides how its payload is read.
    fn begin_frame<'a>(&mut self, now_ms: u64) -> Result<Step<'a>, Error> {
        let header = self.reading.header;
        let legal = header.check(self.limits.frame_max);
        self.check_order(header)?;
        let reading = &mut self.reading;
        (reading.left, reading.skip, reading.at) = (header.len, 0, At::Payload);
        if let Err(malformed) = legal {
            // Only a stream ends of it: its payload is stepped over.
            (reading.left, reading.skip, reading.at) = (0, header.len, At::Skip);
            return Ok(self.ends(malformed, now_ms)?.map_or(Step::Again, Step::Event));
        }
        match header.kind {
            Kind::Data => {
                reading.padded = header.has(flag::PADDED);
                reading.at = At::Data;
                return self.begin_data(header, now_ms);
            }
            Kind::Headers | Kind::Continuation => {
                let block = reading.block.as_ref().map_or(0, |block| block.bytes.len());
                let most = self.limits.header_list_max.saturating_add(BLOCK_EXTRA_MAX);
                if block + header.len as usize > most as usize {
                    return Err(Flood::Fields.into());
                }
            }
            Kind::Settings if header.len > SETTINGS_LEN_MAX => return Err(Flood::Settings.into()),
            Kind::GoAway => {
                reading.skip = header.len - GOAWAY_LEN_READ;
                (reading.header.len, reading.left) = (GOAWAY_LEN_READ, GOAWAY_LEN_READ);
            }
            Kind::Unknown(_) => {
                (reading.left, reading.skip, reading.at) = (0, header.len, At::Skip);
                self.noise(now_ms)?;
            }
            _ => {}
        }
        Ok(Step::Again)
    }

    /// What may come after what.
    fn check_order(&mut self, header: Header) -> Result<(), Error> {
        let reading = &mut self.reading;
        if reading.first {
            if header.kind != Kind::Settings || header.has(flag::ACK) {
                return Err(Violation::NoSettings.into());
            }
            reading.first = false;
        }
        let goes_on = header.kind == Kind::Continuation;
        match &mut reading.block {
            Some(block) if goes_on && block.stream == header.stream => {
                block.pieces += 1;
                if block.pieces > PIECES_MAX {
                    return Err(Flood::Fields.into());
                }
            }
            None if !goes_on => {}
            _ => return Err(Violation::Continuation.into()),
        }
        Ok(())
    }

    fn read_payload<'a>(&mut self, plain: &mut &'a [u8], now_ms: u64) -> Result<Step<'a>, Error> {
        let reading = &mut self.reading;
        let bytes = Reading::take(&mut reading.left, plain);
        if reading.left > 0 {
            reading.collected.extend_from_slice(bytes);
            return Ok(Step::More);
        }
        reading.at = At::Skip;
        let header = reading.header;
        let event = if reading.collected.is_empty() {
            self.handle(header, bytes, now_ms)
        } else {
            let mut collected = std::mem::take(&mut reading.collected);
            collected.extend_from_slice(bytes);
            self.handle(header, &collected, now_ms)
        };
        Ok(event?.map_or(Step::Again, Step::Event))
    }

    /// A DATA frame begins: both windows are charged for the whole of it at once.
    fn begin_data<'a>(&mut self, header: Header, now_ms: u64) -> Result<Step<'a>, Error> {
        let (id, len) = (header.stream, header.len);
        self.reading.wanted = false;
        if self.is_idle(id) {
            return Err(Violation::Idle.into());
        }
        if !self.receive_on_connection(len) {
            return Err(Violation::ConnectionWindow.into());
        }
        if len == 0 && !header.has(flag::END_STREAM) {
            self.noise(now_ms)?;
        }
        let client = self.role == Role::Client;
        let Some(stream) = self.streams.get_mut(id) else {
            if self.is_late(id) {
                self.noise_if(len < 64, now_ms)?;
            } else {
                self.fault(id, ErrorCode::StreamClosed, now_ms)?;
            }
            return Ok(Step::Again);
        };
        if stream.reset.is_some() {
            if header.has(flag::END_STREAM) {
                self.both_ended(id, false);
            }
            return self.noise_if(len < 64, now_ms).map(|()| Step::Again);
        }
        let fault = if stream.mark.remote_end {
            Some(ErrorCode::StreamClosed)
        } else if client && !stream.mark.answered {
            Some(ErrorCode::ProtocolError)
        } else if len > stream.granted {
            Some(ErrorCode::FlowControlError)
        } else {
            None
        };
        if let Some(code) = fault {
            return Ok(self.fault(id, code, now_ms)?.map_or(Step::Again, Step::Event));
        }
        stream.granted -= len;
        stream.held += len;
        if len > 0 {
            stream.small_run = 0;
        }
        self.reading.wanted = true;
        Ok(Step::Again)
    }

    fn read_data<'a>(&mut self, plain: &mut &'a [u8], now_ms: u64) -> Result<Step<'a>, Error> {
        if self.reading.padded {
            let Some(&pad) = plain.first() else { return Ok(Step::More) };
            let body = self.reading.header.body(&[pad]).map_err(Error::Malformed)?;
            *plain = &plain[1..];
            self.reading.padded = false;
            (self.reading.left, self.reading.skip) = (body.len, body.padding);
            self.credit_padding(body.prefix + body.padding, now_ms);
        }
        let id = self.reading.header.stream;
        let bytes = Reading::take(&mut self.reading.left, plain);
        if !bytes.is_empty() && self.reading.wanted {
            let Some(stream) = self.streams.get_mut(id).filter(|stream| stream.reset.is_none())
            else {
                self.reading.wanted = false;
                return Ok(Step::Again);
            };
            if !stream.has_parked() {
                return Ok(Step::Event(Event::Data { stream: id, bytes }));
            }
            self.park(id, bytes);
        }
        if self.reading.left > 0 {
            return Ok(if plain.is_empty() { Step::More } else { Step::Again });
        }
        self.reading.at = At::Skip;
        if self.reading.wanted && self.reading.header.has(flag::END_STREAM) {
            return Ok(self.end_of(id).map_or(Step::Again, Step::Event));
        }
        Ok(Step::Again)
    }

    /// Padding counts against the window and nobody takes it: it is given back at once.
    fn credit_padding(&mut self, len: u32, now_ms: u64) {
        let id = self.reading.header.stream;
        if !self.reading.wanted {
            return;
        }
        if let Some(stream) = self.streams.get_mut(id) {
            let len = len.min(stream.held);
            stream.owe(&self.debts, |stream| stream.held -= len);
            self.grant(id, now_ms);
        }
    }
}
