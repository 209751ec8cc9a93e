//! A stream of a tunnel as the transport of another one (spec discovery-and-balancing 7).

use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::super::buffers::{Appetite, Buffers};
use super::stream::{Stream, StreamError};

/// How long the far side may take to end its direction after we have ended ours.
const LINGER: Duration = Duration::from_secs(5);

/// The bytes of a stream as of a connection.
pub(in crate::path) struct Transport {
    stream: Stream,
    buffers: Rc<Buffers>,
    appetite: Appetite,
    /// What has arrived and was not read.
    arrived: Bytes,
    /// Running since our direction was ended.
    linger: Option<Pin<Box<Sleep>>>,
}

impl Transport {
    pub(in crate::path) fn new(stream: Stream, buffers: Rc<Buffers>) -> Self {
        let (appetite, arrived) = (Appetite::default(), Bytes::new());
        Self { stream, buffers, appetite, arrived, linger: None }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.arrived.is_empty() {
            match ready!(this.stream.receiver.poll_next(cx)).map_err(lost)? {
                Some(bytes) => this.arrived = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = this.arrived.len().min(buf.remaining());
        buf.put_slice(&this.arrived[..count]);
        this.arrived.advance(count);
        this.stream.receiver.taken(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let offered = this.appetite.size();
        this.appetite.learn(buf.len(), offered);
        let want = buf.len().min(this.appetite.size());
        let count = ready!(this.stream.sender.poll_capacity(cx, want)).map_err(lost)?;
        let mut buffer = this.buffers.borrow(&this.appetite);
        buffer.as_mut()[..count].copy_from_slice(&buf[..count]);
        this.stream.sender.send(buffer, count).map_err(lost)?;
        Poll::Ready(Ok(count))
    }

    /// What was written leaves without being asked to.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends our direction and waits, within bounds, for the end of the other one: a stream that is
    /// dropped before is reset, and the reset would overtake what we said last.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            this.stream.sender.finish().map_err(lost)?;
            this.linger = Some(Box::pin(sleep(LINGER)));
        }
        // Nobody reads any more: what still comes is dropped.
        while let Poll::Ready(next) = this.stream.receiver.poll_next(cx) {
            match next {
                Ok(Some(bytes)) => this.stream.receiver.taken(bytes.len()),
                Ok(None) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(lost(error))),
            }
        }
        match &mut this.linger {
            Some(linger) => linger.as_mut().poll(cx).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

fn lost(error: StreamError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error.to_string())
}
