//! What reads a tunnel: bytes go to the applications at once, everything else to who waits for it.

use std::io::{ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use super::link::{Core, Link, Request};
use crate::hbone::error::Error;
use crate::hbone::http2::Event;
use crate::path::buffers::Buffers;

/// Bytes a tunnel reads before it lets others have the worker.
const TURN: usize = 1024 * 1024;
/// Pieces of one stream that are written to its application together: a batch of records.
const PIECES_MAX: usize = 17;
/// How long the last words of a tunnel may take to leave.
const GOODBYE: Duration = Duration::from_secs(5);

/// The reading side of a tunnel. It must be polled for as long as the tunnel is to live, and ends
/// the tunnel when it is dropped.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) link: Rc<Link>,
    timer: Pin<Box<Sleep>>,
    /// When the last words have to be gone, once they are being said.
    goodbye: Option<Instant>,
    /// Bytes may have come with the handshake.
    fresh: bool,
}

/// Bytes of one stream that lie apart.
struct Gathered<'a> {
    stream: u32,
    pieces: [IoSlice<'a>; PIECES_MAX],
    count: usize,
}

impl Driver {
    pub(super) fn new(link: Rc<Link>) -> Self {
        let due = link.core().engine.next_deadline();
        let timer = Box::pin(sleep_until(due.into()));
        Self { link, timer, goodbye: None, fresh: true }
    }

    /// Does what there is to do. Ready when the tunnel is over: `None` if it ended as it should.
    /// `also` is a time of the caller's to be polled at.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        also: Option<Instant>,
    ) -> Poll<Option<Error>> {
        let link = Rc::clone(&self.link);
        let now = link.now();
        let mut core = link.core();
        core.driver.clone_from(cx.waker());
        if let Some(revoked) = &mut core.revoked
            && revoked.as_mut().poll(cx).is_ready()
        {
            core.revoked = None;
            core.engine.fail(Error::Revoked);
        }
        core.write_unsent();
        let mut read = 0;
        while read < TURN && !core.engine.http().is_done() {
            let before = std::mem::take(&mut self.fresh);
            match core.read(cx, before, (&link.buffers, now)) {
                Poll::Ready(count) => read += count,
                Poll::Pending => break,
            }
        }
        if now >= core.engine.next_deadline() {
            // The error is kept by the engine.
            let _ = core.engine.tick(now);
        }
        core.settle(&link);
        if core.unflushed {
            core.flush();
        }
        if core.engine.is_finished() && !core.unflushed && core.poll_shutdown(cx).is_ready() {
            return Poll::Ready(core.over());
        }
        if read >= TURN {
            cx.waker().wake_by_ref();
        }
        let mut due = core.engine.next_deadline();
        if core.engine.http().is_done() {
            let goodbye = *self.goodbye.get_or_insert(now + GOODBYE);
            if now >= goodbye {
                return Poll::Ready(core.over());
            }
            due = goodbye;
        }
        drop(core);
        self.wait_until(also.map_or(due, |also| also.min(due)), cx);
        Poll::Pending
    }

    /// Has the task polled again at that time, at the latest.
    fn wait_until(&mut self, due: Instant, cx: &mut Context<'_>) {
        let mut timer = self.timer.as_mut();
        let armed = timer.deadline().into_std();
        if armed > due || timer.is_elapsed() {
            timer.as_mut().reset(due.into());
        }
        if timer.as_mut().poll(cx).is_ready() {
            // It was set for a time that was put off meanwhile.
            cx.waker().wake_by_ref();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.link.end();
    }
}

impl Core {
    /// Reads once and does what came of it; how many bytes. With `before` what came earlier is
    /// looked at instead.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        before: bool,
        (buffers, now): (&Rc<Buffers>, Instant),
    ) -> Poll<usize> {
        let Some(io) = self.io.as_mut() else { return Poll::Pending };
        let mut batch = buffers.batch();
        let kept = self.engine.begin(batch.as_mut());
        let mut count = 0;
        if !before {
            let mut space = ReadBuf::new(&mut batch.as_mut()[kept..]);
            let read = ready!(Pin::new(io).poll_read(cx, &mut space));
            count = space.filled().len();
            if read.is_err() || count == 0 {
                self.cut_off();
                return Poll::Ready(0);
            }
        }
        self.take(&mut batch.as_mut()[..kept + count], now);
        Poll::Ready(count)
    }

    /// Everything that follows from bytes that were read. An error is kept by the engine.
    fn take(&mut self, filled: &mut [u8], now: Instant) {
        let mut input = self.engine.receive(filled);
        let mut gathered = Gathered::default();
        loop {
            let event = self.engine.next(&mut input, now);
            if let Ok(Some(Event::Data { stream, bytes })) = event
                && gathered.add(stream, bytes)
            {
                continue;
            }
            self.deliver(&gathered, now);
            gathered = Gathered::default();
            match event {
                Ok(Some(Event::Data { stream, bytes })) => {
                    gathered.add(stream, bytes);
                    if !self.engine.http().parked(stream).is_empty() {
                        // It is out already, and what follows it is parked by the engine.
                        self.deliver(&gathered, now);
                        gathered = Gathered::default();
                    }
                }
                Ok(Some(event)) => self.note(event, now),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Writes to the application what it takes, and keeps the rest for it.
    fn deliver(&mut self, gathered: &Gathered<'_>, now: Instant) {
        let stream = gathered.stream;
        if gathered.count == 0 {
            return;
        }
        let mut taken = 0;
        if self.engine.http().parked(stream).is_empty()
            && let Some(seat) = self.seats.get_mut(stream).filter(|seat| seat.broken.is_none())
            && let Some(tap) = seat.tap.as_ref()
        {
            match tap.write(&gathered.pieces[..gathered.count]) {
                Ok(count) => taken = count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => seat.broken = Some(error),
            }
        }
        let http = self.engine.http_mut();
        let mut skip = taken;
        for piece in &gathered.pieces[..gathered.count] {
            let from = skip.min(piece.len());
            skip -= from;
            http.park(stream, &piece[from..]);
        }
        http.taken(stream, taken, now);
        let left = !http.parked(stream).is_empty();
        if let Some(seat) = self.seats.get_mut(stream)
            && left
        {
            seat.wake_receiver();
        }
    }

    /// Everything but bytes.
    fn note(&mut self, event: Event<'_>, now: Instant) {
        match event {
            Event::Request { stream, fields, too_large, .. } => {
                self.seats.add(stream);
                self.requests.push_back(Request { stream, fields, too_large });
            }
            Event::Response { stream, status, fields, .. } => {
                if let Some(seat) = self.seats.get_mut(stream) {
                    seat.answer = Some(Box::new((status, fields)));
                    seat.wake_receiver();
                }
            }
            Event::End { stream } => {
                if let Some(seat) = self.seats.get_mut(stream) {
                    seat.wake_receiver();
                }
            }
            Event::Reset { stream, code, by } => {
                if let Some(seat) = self.seats.get_mut(stream) {
                    seat.reset = Some((code, by));
                    seat.outbox = Vec::new();
                    seat.wake();
                    if seat.orphan {
                        self.forget(stream, now);
                    }
                }
            }
            Event::GoAway { code } => tracing::debug!(%code, "the peer takes no more streams"),
            Event::Data { .. } => {}
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(io) = self.io.as_mut() else { return Poll::Ready(()) };
        // It may be broken by now; it is closed all the same.
        Pin::new(io).poll_shutdown(cx).map(|_| ())
    }

    /// Closes the transport; how the tunnel ended.
    fn over(&mut self) -> Option<Error> {
        self.io = None;
        self.engine.http().error().filter(|error| *error != Error::Over)
    }
}

impl<'a> Gathered<'a> {
    /// Adds a piece, if it belongs to the others and there is room.
    fn add(&mut self, stream: u32, bytes: &'a [u8]) -> bool {
        let fits = self.count == 0 || (self.stream == stream && self.count < PIECES_MAX);
        if fits {
            self.stream = stream;
            self.pieces[self.count] = IoSlice::new(bytes);
            self.count += 1;
        }
        fits
    }
}

impl Default for Gathered<'_> {
    fn default() -> Self {
        Self { stream: 0, pieces: [IoSlice::new(&[]); PIECES_MAX], count: 0 }
    }
}
