//! Pings that notice a dead tunnel, spared while bytes arrive (spec hbone 4).

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep, timeout};

use crate::config::Limits;

/// Counts the bytes that arrive, so that a busy tunnel needs no ping.
#[derive(Debug)]
pub(super) struct Metered<T> {
    inner: T,
    received: Rc<Cell<u64>>,
}

impl<T> Metered<T> {
    pub(super) fn new(inner: T) -> (Self, Rc<Cell<u64>>) {
        let received = Rc::new(Cell::new(0));
        (Self { inner, received: Rc::clone(&received) }, received)
    }
}

/// Ends when the peer has neither sent a byte nor answered a ping for too long.
pub(super) async fn watch(mut pings: PingPong, received: Rc<Cell<u64>>, limits: Limits) {
    let interval = Duration::from_millis(limits.ping_interval_ms);
    let patience = Duration::from_millis(limits.ping_timeout_ms);
    loop {
        let before = received.get();
        sleep(interval).await;
        if received.get() != before {
            continue;
        }
        if timeout(patience, pings.ping(Ping::opaque())).await.is_ok_and(|pong| pong.is_ok()) {
            continue;
        }
        if received.get() == before {
            return;
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        self.received.set(self.received.get() + count as u64);
        poll
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
