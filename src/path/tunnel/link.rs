//! A tunnel as its streams and its driver share it: the engine, the transport, and who waits.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::io::AsyncWrite;

use super::account::TunnelAccount;
use super::seat::Seats;
use super::{Carrier, Secured, Settings, StreamError};
use crate::hbone::Engine;
use crate::hbone::error::Error;
use crate::hbone::http2::Fields;
use crate::path::buffers::Buffers;
use crate::path::same_node::TunnelId;
use crate::sys::clock::Clock;

/// One tunnel.
pub(super) struct Link {
    core: RefCell<Core>,
    pub(super) buffers: Rc<Buffers>,
    pub(super) id: Option<TunnelId>,
    clock: Clock,
}

/// What is behind the link's one borrow. No method of it waits, and none is called by what it
/// calls: wakers only schedule.
pub(super) struct Core {
    pub(super) engine: Engine,
    /// The end of the handshake, until the engine says something.
    unsaid: Vec<u8>,
    /// Gone when the tunnel is over.
    pub(super) io: Option<Box<dyn Carrier>>,
    /// The driver, which is told when the transport can be read or written again, whoever asked.
    pub(super) driver: Waker,
    pub(super) seats: Seats,
    /// Requests that arrived and were not taken; no more than there may be streams.
    pub(super) requests: VecDeque<Request>,
    /// Somebody waits until everything sealed has left.
    pub(super) flush_awaited: bool,
    /// What was written is still inside of the transport.
    pub(super) unflushed: bool,
    /// All streams were told of the end.
    ended: bool,
    /// Ends when the peer is revoked.
    pub(super) revoked: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// A request as it arrived.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) stream: u32,
    pub(super) fields: Fields,
    pub(super) too_large: bool,
}

impl Link {
    /// Goes on after a handshake.
    pub(super) fn new(secured: Secured, settings: &Settings) -> Result<Rc<Self>, Error> {
        let Secured { io, keys, unsaid, id, revoked } = secured;
        let limits = settings.engine(keys.role);
        let account = TunnelAccount::new(settings.connection_window, Arc::clone(&settings.ledger));
        let now = settings.clock.monotonic();
        let engine = Engine::new(keys, limits, Rc::new(account), now)?;
        let core = Core {
            engine,
            unsaid,
            io: Some(io),
            driver: Waker::noop().clone(),
            seats: Seats::default(),
            requests: VecDeque::new(),
            flush_awaited: false,
            unflushed: false,
            ended: false,
            revoked,
        };
        let (buffers, clock) = (Rc::clone(&settings.buffers), settings.clock.clone());
        Ok(Rc::new(Self { core: RefCell::new(core), buffers, id, clock }))
    }

    pub(super) fn core(&self) -> RefMut<'_, Core> {
        self.core.borrow_mut()
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.monotonic()
    }

    /// Begins to close; streams that are open go on.
    pub(super) fn close(&self) {
        let mut core = self.core();
        core.engine.http_mut().close();
        core.settle(self);
        core.driver.wake_by_ref();
    }

    /// Ends it here and now: whoever has a stream finds it lost.
    pub(super) fn end(&self) {
        let mut core = self.core();
        core.engine.fail(Error::Over);
        core.settle(self);
        core.io = None;
        core.driver = Waker::noop().clone();
    }

    /// The stream's handles are gone. What was given to it with its end still leaves.
    pub(super) fn release(&self, stream: u32) {
        let now = self.now();
        let mut core = self.core();
        let Some(seat) = core.seats.get_mut(stream) else { return };
        seat.tap = None;
        if seat.finish_due && seat.reset.is_none() {
            seat.orphan = true;
            return;
        }
        core.forget(stream, now);
        core.settle(self);
    }
}

impl Core {
    /// Writes sealed bytes; what the transport does not take is kept for the driver.
    pub(super) fn write(&mut self, sealed: &[u8]) {
        if sealed.is_empty() {
            return;
        }
        let mut joined = std::mem::take(&mut self.unsaid);
        let sealed = if joined.is_empty() {
            sealed
        } else {
            joined.extend_from_slice(sealed);
            &joined
        };
        match push(&mut self.io, &self.driver, sealed) {
            Ok(count) => self.engine.keep_unsent(&sealed[count..]),
            Err(_) => self.cut_off(),
        }
        self.flush();
    }

    /// Writes what the transport did not take before.
    pub(super) fn write_unsent(&mut self) {
        let unsent = self.engine.unsent();
        if unsent.is_empty() {
            return;
        }
        match push(&mut self.io, &self.driver, unsent) {
            Ok(count) => self.engine.sent(count),
            Err(_) => self.cut_off(),
        }
        self.flush();
        if self.engine.unsent().is_empty() && std::mem::take(&mut self.flush_awaited) {
            self.seats.wake_senders();
        }
    }

    /// Lets what was written leave a transport that keeps it.
    pub(super) fn flush(&mut self) {
        let Some(io) = self.io.as_mut() else { return };
        let flushed = Pin::new(io).poll_flush(&mut Context::from_waker(&self.driver));
        self.unflushed = flushed.is_pending();
        if let Poll::Ready(Err(_)) = flushed {
            self.cut_off();
        }
    }

    /// The transport is broken or at its end. Nothing more can be said.
    pub(super) fn cut_off(&mut self) {
        self.engine.end_of_input();
        self.io = None;
        let unsent = self.engine.unsent().len();
        self.engine.sent(unsent);
    }

    /// Sends what is due, and lets those go on who waited for it.
    pub(super) fn settle(&mut self, link: &Link) {
        loop {
            self.send_control(link);
            if !self.engine.unsent().is_empty() {
                break;
            }
            let Some(stream) = self.engine.http_mut().next_turn() else { break };
            let Some(seat) = self.seats.get_mut(stream) else { continue };
            if seat.outbox.is_empty() {
                seat.wake_sender();
            } else {
                self.send_outbox(stream, link);
            }
        }
        // Once, because the driver itself comes here, too.
        if self.engine.http().is_done() && !std::mem::replace(&mut self.ended, true) {
            self.seats.wake_all();
            self.driver.wake_by_ref();
        }
    }

    /// Everything but DATA.
    fn send_control(&mut self, link: &Link) {
        while self.engine.wants_flush() {
            let mut batch = link.buffers.batch();
            match self.engine.flush(batch.as_mut()) {
                // What was due is not any more: its stream has ended.
                Ok(0) => return,
                Ok(len) => self.write(&batch.as_slice()[..len]),
                // What cannot be sealed cannot be said.
                Err(_) => return self.cut_off(),
            }
        }
    }

    /// Forgets a stream that has no handles any more.
    pub(super) fn forget(&mut self, stream: u32, now: Instant) {
        self.seats.remove(stream);
        self.requests.retain(|request| request.stream != stream);
        self.engine.http_mut().release(stream, now);
    }

    /// Why a stream cannot go on, if it cannot: its reset, or the end of the tunnel.
    pub(super) fn broken(&mut self, stream: u32) -> Option<StreamError> {
        let reset = self.seats.get_mut(stream).and_then(|seat| seat.reset);
        if let Some((code, _)) = reset {
            return Some(StreamError::from_code(code));
        }
        self.engine.http().error().map(StreamError::from)
    }
}

/// Writes until everything is taken or the transport can take no more; how much was taken. Whoever
/// asks, it is the driver that is told when it can take more. Without a transport all is gone.
fn push(io: &mut Option<Box<dyn Carrier>>, driver: &Waker, bytes: &[u8]) -> std::io::Result<usize> {
    let Some(io) = io else { return Ok(bytes.len()) };
    let mut cx = Context::from_waker(driver);
    let mut at = 0;
    while at < bytes.len() {
        match Pin::new(&mut *io).poll_write(&mut cx, &bytes[at..]) {
            Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(count)) => at += count,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    Ok(at)
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}
