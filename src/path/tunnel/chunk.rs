//! What is handed to the engine to send: a borrowed buffer that knows when it has left.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Buf;

use super::super::buffers::Buffer;

/// Bytes of one stream that were given to the engine and have not left it.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    bytes: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

/// One piece of data on its way to the wire.
#[derive(Debug)]
pub(in crate::path) struct Chunk {
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
    size: usize,
    outstanding: Option<Rc<Outstanding>>,
}

impl Outstanding {
    /// Waits until everything that was given to the engine has left it.
    pub(super) async fn drained(&self) {
        poll_fn(|cx| {
            if self.bytes.get() == 0 {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Chunk {
    pub(super) fn new(buffer: Buffer, len: usize, outstanding: &Rc<Outstanding>) -> Self {
        outstanding.bytes.set(outstanding.bytes.get() + len);
        Self {
            buffer: Some(buffer),
            start: 0,
            end: len,
            size: len,
            outstanding: Some(Rc::clone(outstanding)),
        }
    }

    pub(super) fn empty() -> Self {
        Self { buffer: None, start: 0, end: 0, size: 0, outstanding: None }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.end - self.start
    }

    fn chunk(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer.as_slice()[self.start..self.end])
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining(), "the engine advances within what is there");
        self.start += count;
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let Some(outstanding) = self.outstanding.take() else { return };
        outstanding.bytes.set(outstanding.bytes.get() - self.size);
        if outstanding.bytes.get() == 0
            && let Some(waker) = outstanding.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }
}
