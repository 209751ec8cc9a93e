//! One stream of a tunnel: the bytes of one connection.
//!
//! How ends and resets are carried is the table of spec hbone 12.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use super::super::buffers::Buffer;
use super::chunk::{Chunk, Outstanding};
use super::client::StreamSlot;

/// A stream whose CONNECT was answered with 200. Dropped before both ends are reached it is reset
/// with CONNECT_ERROR, which no peer takes for a clean end.
#[derive(Debug)]
pub(in crate::path) struct Stream {
    pub(in crate::path) sender: Sender,
    pub(in crate::path) receiver: Receiver,
    // Frees the stream's place in its tunnel.
    _slot: Option<StreamSlot>,
}

/// The half towards the far side.
#[derive(Debug)]
pub(in crate::path) struct Sender {
    inner: SendStream<Chunk>,
    outstanding: Rc<Outstanding>,
    finished: bool,
}

/// The half from the far side.
#[derive(Debug)]
pub(in crate::path) struct Receiver {
    inner: RecvStream,
    ended: bool,
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
    /// The tunnel under it is gone, because the far side broke the rules of HTTP/2.
    Violation(String),
}

impl Stream {
    pub(super) fn new(
        inner: SendStream<Chunk>,
        receiver: RecvStream,
        slot: Option<StreamSlot>,
    ) -> Self {
        let outstanding = Rc::default();
        Self {
            sender: Sender { inner, outstanding, finished: false },
            receiver: Receiver { inner: receiver, ended: false },
            _slot: slot,
        }
    }

    /// Ends both directions as an error. Bytes that have not left are dropped.
    pub(in crate::path) fn reset(&mut self) {
        self.sender.inner.send_reset(Reason::CONNECT_ERROR);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !(self.sender.finished && self.receiver.ended) {
            self.reset();
        }
    }
}

impl Sender {
    /// Waits until the far side takes more bytes; how many, at most `want`.
    pub(in crate::path) async fn capacity(&mut self, want: usize) -> Result<usize, StreamError> {
        poll_fn(|cx| self.poll_capacity(cx, want)).await
    }

    /// As [`Sender::capacity`].
    pub(super) fn poll_capacity(
        &mut self,
        cx: &mut Context<'_>,
        want: usize,
    ) -> Poll<Result<usize, StreamError>> {
        self.inner.reserve_capacity(want);
        let ready = self.inner.capacity();
        if ready > 0 {
            return Poll::Ready(Ok(ready.min(want)));
        }
        Poll::Ready(match ready!(self.inner.poll_capacity(cx)) {
            Some(Ok(capacity)) => Ok(capacity.min(want)),
            Some(Err(error)) => Err(StreamError::from(error)),
            // Not sending any more: the reason is the reset that closed it.
            None => Err(ready!(self.poll_reset_by_peer(cx))),
        })
    }

    /// Sends the first `len` bytes of a buffer, which must not be more than the capacity.
    pub(in crate::path) fn send(&mut self, buffer: Buffer, len: usize) -> Result<(), StreamError> {
        let chunk = Chunk::new(buffer, len, &self.outstanding);
        self.inner.send_data(chunk, false).map_err(StreamError::from)
    }

    /// Ends this direction cleanly.
    pub(in crate::path) fn finish(&mut self) -> Result<(), StreamError> {
        self.inner.send_data(Chunk::empty(), true).map_err(StreamError::from)?;
        self.finished = true;
        Ok(())
    }

    /// Waits until everything sent has left for the wire.
    pub(in crate::path) async fn flushed(&self) {
        self.outstanding.drained().await;
    }

    /// Waits until the far side resets the stream or the tunnel is lost.
    pub(in crate::path) async fn reset_by_peer(&mut self) -> StreamError {
        poll_fn(|cx| self.poll_reset_by_peer(cx)).await
    }

    fn poll_reset_by_peer(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let reset = ready!(self.inner.poll_reset(cx));
        Poll::Ready(reset.map_or_else(StreamError::from, StreamError::from_reason))
    }
}

impl Receiver {
    /// The next bytes, or `None` at the clean end.
    pub(in crate::path) async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Receiver::next`].
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        loop {
            match ready!(self.inner.poll_data(cx)) {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => return Poll::Ready(Ok(Some(bytes))),
                Some(Err(error)) => return Poll::Ready(Err(StreamError::from(error))),
                None => {
                    self.ended = true;
                    return Poll::Ready(Ok(None));
                }
            }
        }
    }

    /// Gives credit back for bytes that the application has taken.
    pub(in crate::path) fn taken(&mut self, count: usize) {
        // Refused only for more than was received, or on a stream that is over: nothing to do.
        let _ = self.inner.flow_control().release_capacity(count);
    }
}

impl StreamError {
    fn from_reason(reason: Reason) -> Self {
        let clean = matches!(reason, Reason::NO_ERROR | Reason::CANCEL);
        Self::Reset { clean, code: format!("{reason:?}") }
    }
}

impl From<h2::Error> for StreamError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::from_reason(reason),
            // Ours, not one that arrived: we ended the tunnel.
            Some(_) if error.is_go_away() && error.is_library() => {
                Self::Violation(error.to_string())
            }
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset { code, .. } => write!(f, "reset by the far side with {code}"),
            Self::Lost(detail) | Self::Violation(detail) => f.write_str(detail),
        }
    }
}
