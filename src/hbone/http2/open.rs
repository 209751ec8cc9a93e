//! Streams as the driver opens, answers and ends them.

use std::fmt;
use std::time::Instant;

use super::stream::Stream;
use super::{Connection, Event};
use crate::hbone::Role;
use crate::hbone::frame::{self, ErrorCode, STREAM_ID_MAX};
use crate::hbone::hpack::{FIELD_OVERHEAD, Literal};
use crate::hbone::limits::{ABANDONED, FIRST_WINDOW};

/// Bytes of requests that may wait for the wire.
const QUEUE_MAX: usize = 256 * 1024;

/// Why no stream can be opened here and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Never again: the tunnel is going away.
    Closing,
    /// As many are open as the peer takes.
    Full,
    /// Too many were opened and given up lately.
    Paced,
    /// The peer does not take so many fields.
    TooLarge,
    /// Too many requests wait for the wire.
    Backlog,
}

/// How long the connection's window may be closed before nobody believes that it will open soon.
const CHOKED_MS: u64 = 1_000;

impl Connection {
    /// Whether the peer has not let us send anything for a while: streams whose readers have
    /// stopped hold the window of the connection, of which some peers give them all.
    pub fn is_choked(&self, now: Instant) -> bool {
        self.send_window == 0 && self.ms(now).saturating_sub(self.widened_ms) >= CHOKED_MS
    }

    /// As client: whether a stream could be opened.
    pub fn can_open(&self) -> Result<(), OpenError> {
        let over = self.ended.is_some() || self.role == Role::Server;
        if over || self.going.is_final() || self.going.peer_is_leaving() {
            return Err(OpenError::Closing);
        }
        if self.next_own > STREAM_ID_MAX {
            return Err(OpenError::Closing);
        }
        // What the protocol is done with and the driver is not counts as well: it takes memory.
        let most = self.peer.streams_max.min(self.limits.streams_max);
        if self.open >= most || self.streams.len() >= 2 * self.limits.streams_max as usize {
            return Err(OpenError::Full);
        }
        if self.writing.queue_len() > QUEUE_MAX {
            return Err(OpenError::Backlog);
        }
        Ok(())
    }

    /// As client: sends a CONNECT, whose answer will be an [`Event::Response`]. Names are in lower
    /// case. DATA may follow at once.
    pub fn open<'a>(
        &mut self,
        authority: &'a str,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
        now: Instant,
    ) -> Result<u32, OpenError> {
        self.can_open()?;
        let now_ms = self.ms(now);
        // Only a look: what costs is to give one up.
        if !self.budgets.abandoned.take(ABANDONED, 1, now_ms) {
            return Err(OpenError::Paced);
        }
        self.budgets.abandoned.add(ABANDONED, 1);
        let pseudo = [(":method", "CONNECT"), (":authority", authority)];
        let mut size = 0;
        let all: Vec<_> = pseudo.into_iter().chain(fields).collect();
        for (name, value) in &all {
            size += name.len() + value.len() + FIELD_OVERHEAD;
        }
        if size > self.peer.header_list_max as usize {
            return Err(OpenError::TooLarge);
        }
        let id = self.next_own;
        self.next_own += 2;
        self.headers(id, false, all);
        self.add_stream(id, now_ms);
        Ok(id)
    }

    /// As server: answers a request. With `end` that is all the peer gets, and it is told to send
    /// no more either. False if the stream is gone, or has been answered.
    pub fn respond<'a>(
        &mut self,
        id: u32,
        status: u16,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
        end: bool,
    ) -> bool {
        let Some(stream) = self.streams.get_mut(id) else { return false };
        if self.role == Role::Client || stream.mark.answered || !stream.sends() {
            return false;
        }
        stream.mark.answered = true;
        stream.mark.local_end = end;
        let whole = stream.mark.remote_end;
        let status = status.to_string();
        let fields = fields.into_iter().map(|field: (&str, &str)| field);
        self.headers(id, end, std::iter::once((":status", status.as_str())).chain(fields));
        if end && whole {
            self.settle(id);
        } else if end {
            // RFC 9113 8.1: the response is complete, and the rest of the request is not wanted.
            self.reset_stream(id, ErrorCode::NoError);
        }
        true
    }

    /// Ends both directions of a stream as an error; bytes that were not sealed are not sent.
    pub fn reset(&mut self, id: u32, code: ErrorCode) {
        self.reset_stream(id, code);
    }

    /// The driver is done with a stream and will not name it again. If the protocol is not, it is
    /// reset with CONNECT_ERROR, which nobody takes for a clean end (spec hbone 12).
    pub fn release(&mut self, id: u32, now: Instant) {
        let now_ms = self.ms(now);
        let Some(stream) = self.streams.get_mut(id) else { return };
        if self.role == Role::Client && !stream.mark.answered && !stream.is_closed() {
            self.budgets.abandoned.take(ABANDONED, 1, now_ms);
        }
        stream.mark.released = true;
        stream.parked = None;
        stream.owe(&self.debts, |stream| stream.held = 0);
        if !stream.is_closed() {
            self.reset_stream(id, ErrorCode::ConnectError);
        }
        self.settle(id);
    }

    /// Whether the peer has finished its direction, parked bytes aside.
    pub fn has_ended(&self, id: u32) -> bool {
        self.streams.get(id).is_some_and(|stream| stream.mark.remote_end)
    }

    /// How the stream was reset, by whoever it was.
    pub fn reset_code(&self, id: u32) -> Option<ErrorCode> {
        self.streams.get(id)?.reset.map(|reset| reset.code)
    }

    /// An event that no byte of the peer brings: a stream that it will not process.
    pub(super) fn lost_event(&mut self) -> Option<Event<'static>> {
        if self.lost_due == 0 {
            return None;
        }
        let stream = self.streams.iter_mut().find(|stream| stream.mark.lost_due)?;
        stream.mark.lost_due = false;
        self.lost_due -= 1;
        let (stream, code) = (stream.id, ErrorCode::RefusedStream);
        Some(Event::Reset { stream, code, by: super::By::PeerUnprocessed })
    }

    pub(super) fn add_stream(&mut self, id: u32, now_ms: u64) {
        self.open += 1;
        self.streams.push(Stream {
            id,
            // The peer's initial window is at most 2^31-1.
            send_window: i32::try_from(self.peer.initial_window).unwrap_or(i32::MAX),
            granted: FIRST_WINDOW,
            target: FIRST_WINDOW,
            granted_ms: now_ms,
            ..Stream::default()
        });
    }

    fn headers<'a>(
        &mut self,
        id: u32,
        end: bool,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        let bytes = |(name, value): (&'a str, &'a str)| {
            (name.as_bytes(), value.as_bytes(), Literal::WithoutIndexing)
        };
        let mut block = Vec::new();
        self.encoder.block(fields.into_iter().map(bytes), &mut block);
        frame::headers(id, &block, end, self.peer.frame_max, &mut self.writing.queue());
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closing => "the tunnel takes no more streams",
            Self::Full => "the tunnel has as many streams as the peer takes",
            Self::Paced => "too many streams were given up lately",
            Self::TooLarge => "the peer does not take so many header fields",
            Self::Backlog => "too many requests wait for the wire",
        })
    }
}

impl std::error::Error for OpenError {}
