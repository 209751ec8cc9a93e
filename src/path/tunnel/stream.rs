//! One stream of a tunnel: the bytes of one connection.
//!
//! How ends and resets are carried is the table of spec hbone 12.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::super::buffers::Buffer;
use super::client::StreamSlot;
use super::link::Link;
use crate::hbone::error::Error;
use crate::hbone::frame::ErrorCode;
use crate::hbone::http2::Room;

/// A stream whose CONNECT was answered with 200. Dropped before both ends are reached it is reset
/// with CONNECT_ERROR, which no peer takes for a clean end.
#[derive(Debug)]
pub(in crate::path) struct Stream {
    pub(in crate::path) sender: Sender,
    pub(in crate::path) receiver: Receiver,
    handle: Handle,
    // Frees the stream's place in its tunnel, after the stream itself.
    _slot: Option<StreamSlot>,
}

/// The half towards the far side.
#[derive(Debug)]
pub(in crate::path) struct Sender {
    pub(super) link: Rc<Link>,
    pub(super) stream: u32,
}

/// The half from the far side.
#[derive(Debug)]
pub(in crate::path) struct Receiver {
    pub(super) link: Rc<Link>,
    pub(super) stream: u32,
}

/// The right to a stream; dropping it releases the stream.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) link: Rc<Link>,
    pub(super) stream: u32,
}

/// An answer that nobody waits for yet.
#[derive(Debug)]
pub(in crate::path) struct KeptAnswer {
    link: Rc<Link>,
    stream: u32,
}

/// Why a stream ended other than cleanly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::path) enum StreamError {
    /// The far side reset it; `clean` is a code that some peers use for "no more, thank you".
    Reset {
        /// NO_ERROR or CANCEL.
        clean: bool,
        /// The code's name.
        code: String,
    },
    /// The tunnel under it is gone.
    Lost(String),
    /// The tunnel under it was ended, because the certificate of the far side is revoked.
    Revoked,
    /// The tunnel under it is gone, because the far side broke the rules of HTTP/2.
    Violation(String),
}

impl Stream {
    pub(super) fn new(handle: Handle, slot: Option<StreamSlot>) -> Self {
        let (link, stream) = (&handle.link, handle.stream);
        Self {
            sender: Sender { link: Rc::clone(link), stream },
            receiver: Receiver { link: Rc::clone(link), stream },
            handle,
            _slot: slot,
        }
    }

    /// Our answer, if it waits for the bytes that follow it.
    pub(in crate::path) fn kept_answer(&self) -> Option<KeptAnswer> {
        let Handle { link, stream } = &self.handle;
        let kept =
            link.core().seats.get_mut(*stream).is_some_and(|seat| seat.kept_answer.is_some());
        kept.then(|| KeptAnswer { link: Rc::clone(link), stream: *stream })
    }

    /// Ends our direction and waits for the end of the other one; what still comes is dropped.
    pub(in crate::path) async fn end(&mut self) -> Result<(), StreamError> {
        self.sender.finish()?;
        while let Some(bytes) = poll_fn(|cx| self.receiver.poll_next(cx)).await? {
            self.receiver.taken(bytes.len());
        }
        Ok(())
    }

    /// Ends both directions as an error. Bytes that have not left are dropped.
    pub(in crate::path) fn reset(&mut self) {
        let link = &self.handle.link;
        let mut core = link.core();
        if let Some(seat) = core.seats.get_mut(self.handle.stream) {
            (seat.outbox, seat.finish_due) = (Vec::new(), false);
        }
        core.engine.http_mut().reset(self.handle.stream, ErrorCode::ConnectError);
        core.settle(link);
    }
}

impl KeptAnswer {
    /// Lets it wait no longer.
    pub(in crate::path) fn give(self) {
        let Self { link, stream } = self;
        let mut core = link.core();
        core.give_answer(stream);
        core.settle(&link);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.link.release(self.stream);
    }
}

impl Sender {
    /// Waits until the far side takes more bytes; how many, at most `want`.
    pub(super) fn poll_capacity(
        &mut self,
        cx: &mut Context<'_>,
        want: usize,
    ) -> Poll<Result<usize, StreamError>> {
        let mut core = self.link.core();
        core.give_answer(self.stream);
        let blocked = !core.engine.unsent().is_empty();
        let room = core.engine.http_mut().room(self.stream, blocked);
        let Some(seat) = core.seats.get_mut(self.stream) else { return Poll::Pending };
        match room {
            Room::Bytes(bytes) if seat.outbox.is_empty() => Poll::Ready(Ok(bytes.min(want))),
            Room::Closed => Poll::Ready(Err(core.closed(self.stream))),
            Room::Bytes(_) | Room::Wait => {
                seat.sender_waits(cx);
                Poll::Pending
            }
        }
    }

    /// Sends the first `len` bytes of a buffer, which must not be more than the capacity.
    pub(in crate::path) fn send(&mut self, buffer: Buffer, len: usize) -> Result<(), StreamError> {
        let mut core = self.link.core();
        if let Some(error) = core.broken(self.stream) {
            return Err(error);
        }
        core.say(self.stream, &buffer.as_slice()[..len], &self.link);
        drop(buffer);
        core.settle(&self.link);
        Ok(())
    }

    /// Ends this direction cleanly.
    pub(in crate::path) fn finish(&mut self) -> Result<(), StreamError> {
        let mut core = self.link.core();
        if let Some(error) = core.broken(self.stream) {
            return Err(error);
        }
        core.give_answer(self.stream);
        let behind = core.seats.get_mut(self.stream).filter(|seat| !seat.outbox.is_empty());
        match behind {
            Some(seat) => seat.finish_due = true,
            None => core.engine.http_mut().finish(self.stream),
        }
        core.settle(&self.link);
        Ok(())
    }

    /// Waits until everything sent has left for the wire.
    pub(in crate::path) async fn flushed(&self) {
        poll_fn(|cx| {
            let mut core = self.link.core();
            let unsent = !core.engine.unsent().is_empty();
            let Some(seat) = core.seats.get_mut(self.stream) else { return Poll::Ready(()) };
            if !unsent && seat.outbox.is_empty() {
                return Poll::Ready(());
            }
            seat.sender_waits(cx);
            core.flush_awaited = true;
            if core.engine.http().error().is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Waits until the far side resets the stream or the tunnel is lost.
    pub(in crate::path) async fn reset_by_peer(&mut self) -> StreamError {
        poll_fn(|cx| {
            let mut core = self.link.core();
            if let Some(error) = core.broken(self.stream) {
                return Poll::Ready(error);
            }
            if let Some(seat) = core.seats.get_mut(self.stream) {
                seat.sender_waits(cx);
            }
            Poll::Pending
        })
        .await
    }
}

impl Receiver {
    /// The next bytes, or `None` at the clean end.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let mut core = self.link.core();
        let parked = core.engine.http().parked(self.stream);
        if !parked.is_empty() {
            let bytes = Bytes::copy_from_slice(parked);
            core.engine.http_mut().unpark(self.stream, bytes.len());
            return Poll::Ready(Ok(Some(bytes)));
        }
        if core.engine.http().has_ended(self.stream) {
            return Poll::Ready(Ok(None));
        }
        if let Some(error) = core.broken(self.stream) {
            return Poll::Ready(Err(error));
        }
        if let Some(seat) = core.seats.get_mut(self.stream) {
            seat.receiver_waits(cx);
        }
        Poll::Pending
    }

    /// Gives credit back for bytes that the application has taken.
    pub(in crate::path) fn taken(&mut self, count: usize) {
        let mut core = self.link.core();
        core.engine.http_mut().taken(self.stream, count, self.link.now());
        core.settle(&self.link);
    }
}

impl StreamError {
    pub(super) fn from_code(code: ErrorCode) -> Self {
        let clean = matches!(code, ErrorCode::NoError | ErrorCode::Cancel);
        Self::Reset { clean, code: code.to_string() }
    }
}

impl From<Error> for StreamError {
    fn from(error: Error) -> Self {
        if error == Error::Revoked {
            Self::Revoked
        } else if error.is_violation() {
            Self::Violation(error.to_string())
        } else {
            Self::Lost(error.to_string())
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset { code, .. } => write!(f, "reset by the far side with {code}"),
            Self::Lost(detail) | Self::Violation(detail) => f.write_str(detail),
            Self::Revoked => Error::Revoked.fmt(f),
        }
    }
}
