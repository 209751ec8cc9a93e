//! Between a stream and the socket of an application, without a buffer in between.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::headers;
use super::link::{Core, Link};
use super::stream::{Receiver, Sender};
use super::{LINGER, StreamError};
use crate::hbone::Plan;
use crate::hbone::http2::Room;
use crate::path::buffers::Appetite;
use crate::report::{Direction, Meter};

/// Records that one read of an application may fill: those of a batch.
const SLOTS_MAX: usize = 18;

/// An application's socket and the account of its bytes.
#[derive(Debug)]
pub(in crate::path) struct Tap {
    socket: TcpStream,
    meter: Meter,
    direction: Direction,
}

/// What came of sending what an application says.
#[derive(Debug)]
pub(in crate::path) enum Drawn {
    /// So many bytes are on their way.
    Bytes(usize),
    /// It has nothing more to say.
    End,
    /// Its socket broke.
    Application(io::Error),
    /// The stream takes nothing more.
    Far(StreamError),
}

/// How the bytes for an application came to an end.
#[derive(Debug)]
pub(in crate::path) enum Delivered {
    /// All were written.
    End,
    /// Its socket broke.
    Application(io::Error),
    /// The stream broke; what arrived before was written.
    Far(StreamError),
}

/// One turn of a stream.
enum Turn {
    Read(io::Result<usize>),
    Wait,
    Closed,
}

impl Tap {
    pub(in crate::path) fn new(socket: TcpStream, meter: Meter, direction: Direction) -> Rc<Self> {
        Rc::new(Self { socket, meter, direction })
    }

    pub(in crate::path) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Writes what the socket takes at once. A socket that took less is full, and is not asked
    /// again before it says otherwise.
    pub(super) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let all: usize = pieces.iter().map(|piece| piece.len()).sum();
        let written = self.socket.try_write_vectored(pieces)?;
        if written < all {
            forget_readiness(&self.socket, Interest::WRITABLE);
        }
        match self.direction {
            Direction::Outbound => self.meter.response_bytes(written as u64),
            Direction::Inbound => self.meter.request_bytes(written as u64),
        }
        Ok(written)
    }

    /// Reads what is there. A socket that gave less has no more, and is not asked again either.
    fn read(&self, slots: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let all: usize = slots.iter().map(|slot| slot.len()).sum();
        let read = self.socket.try_read_vectored(slots)?;
        if read < all {
            forget_readiness(&self.socket, Interest::READABLE);
        }
        match self.direction {
            Direction::Outbound => self.meter.request_bytes(read as u64),
            Direction::Inbound => self.meter.response_bytes(read as u64),
        }
        Ok(read)
    }
}

/// What the kernel reported is used up. That a side was closed is not forgotten by this.
pub(super) fn forget_readiness(socket: &TcpStream, interest: Interest) {
    let nothing = || Err::<(), _>(io::Error::from(ErrorKind::WouldBlock));
    let _ = socket.try_io(interest, nothing);
}

impl Sender {
    /// Waits until the application says something and the far side takes it, and sends it.
    pub(in crate::path) async fn draw(&mut self, tap: &Tap, appetite: &Appetite) -> Drawn {
        let hold_ms = self.link.core().engine.http().hold_ms(self.stream);
        if hold_ms > 0 {
            // Many small frames and nobody who reads them: some peers close for less.
            tokio::select! {
                biased;
                error = self.reset_by_peer() => return Drawn::Far(error),
                // Boxed: most connections never come here.
                () = Box::pin(sleep(Duration::from_millis(hold_ms))) => {}
            }
        }
        std::future::poll_fn(|cx| self.poll_draw(tap, appetite, cx)).await
    }

    fn poll_draw(&mut self, tap: &Tap, appetite: &Appetite, cx: &mut Context<'_>) -> Poll<Drawn> {
        let (link, stream) = (Rc::clone(&self.link), self.stream);
        loop {
            let mut core = link.core();
            if let Some(error) = core.broken(stream) {
                return Poll::Ready(Drawn::Far(error));
            }
            if let Some(seat) = core.seats.get_mut(stream) {
                seat.sender_waits(cx);
                if !seat.outbox.is_empty() {
                    // What was said before the answer goes first.
                    return Poll::Pending;
                }
            }
            if let Err(error) = ready!(tap.socket.poll_read_ready(cx)) {
                return Poll::Ready(Drawn::Application(error));
            }
            let mut offered = 0;
            let most = if appetite.is_large() { SLOTS_MAX } else { 1 };
            let turn = core.turn((stream, most), &link, |slots| {
                offered = slots.iter().map(|slot| slot.len()).sum();
                tap.read(slots)
            });
            core.settle(&link);
            match turn {
                Turn::Read(Ok(0)) => return Poll::Ready(Drawn::End),
                Turn::Read(Ok(count)) => {
                    appetite.learn(count, offered);
                    return Poll::Ready(Drawn::Bytes(count));
                }
                Turn::Read(Err(error)) if error.kind() == ErrorKind::WouldBlock => {}
                Turn::Read(Err(error)) => return Poll::Ready(Drawn::Application(error)),
                Turn::Wait => return Poll::Pending,
                Turn::Closed => return Poll::Ready(Drawn::Far(core.closed(stream))),
            }
        }
    }
}

impl Receiver {
    /// Has everything that arrives written to the application, until the end. After a reset, or the
    /// loss of the tunnel, the application has [`LINGER`] for what came before it.
    pub(in crate::path) async fn deliver(&mut self, tap: &Rc<Tap>) -> Delivered {
        if let Some(seat) = self.link.core().seats.get_mut(self.stream) {
            seat.tap = Some(Rc::clone(tap));
        }
        let mut overdue = None::<Pin<Box<Sleep>>>;
        std::future::poll_fn(|cx| {
            let delivered = self.poll_deliver(tap, cx);
            if delivered.is_pending()
                && let Some(error) = self.cut_short()
            {
                let overdue = overdue.get_or_insert_with(|| Box::pin(sleep(LINGER)));
                ready!(overdue.as_mut().poll(cx));
                return Poll::Ready(Delivered::Far(error));
            }
            delivered
        })
        .await
    }

    /// Why nothing more will arrive, if it is not because the far side has finished.
    fn cut_short(&self) -> Option<StreamError> {
        let mut core = self.link.core();
        let ended = core.engine.http().has_ended(self.stream);
        core.broken(self.stream).filter(|_| !ended)
    }

    fn poll_deliver(&mut self, tap: &Tap, cx: &mut Context<'_>) -> Poll<Delivered> {
        let link: &Link = &self.link;
        let stream = self.stream;
        let mut core = link.core();
        let Some(seat) = core.seats.get_mut(stream) else { return Poll::Pending };
        seat.receiver_waits(cx);
        if let Some(error) = seat.broken.take() {
            seat.tap = None;
            return Poll::Ready(Delivered::Application(error));
        }
        let mut taken = 0;
        let written = loop {
            let parked = core.engine.http().parked(stream);
            if parked.is_empty() {
                break Poll::Ready(Ok(()));
            }
            match tap.socket.poll_write_ready(cx) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            match tap.write(&[IoSlice::new(parked)]) {
                Ok(count) => {
                    taken += count;
                    core.engine.http_mut().taken_parked(stream, count, link.now());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => break Poll::Ready(Err(error)),
            }
        };
        if taken > 0 {
            core.settle(link);
        }
        if let Err(error) = ready!(written) {
            if let Some(seat) = core.seats.get_mut(stream) {
                seat.tap = None;
            }
            return Poll::Ready(Delivered::Application(error));
        }
        if core.engine.http().has_ended(stream) {
            return Poll::Ready(Delivered::End);
        }
        core.broken(stream).map_or(Poll::Pending, |error| Poll::Ready(Delivered::Far(error)))
    }
}

impl Core {
    /// One turn of a stream: `read` fills the slots it may send, at most so many.
    fn turn(
        &mut self,
        (stream, slots_max): (u32, usize),
        link: &Link,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Turn {
        self.give_answer(stream);
        let mut batch = link.buffers.batch();
        let Ok(plan) = self.engine.plan(stream, batch.as_mut()) else {
            self.cut_off();
            return Turn::Closed;
        };
        let (turn, count) = match plan.room() {
            Room::Wait => (Turn::Wait, 0),
            Room::Closed => (Turn::Closed, 0),
            Room::Bytes(_) => {
                let read = fill((&plan, slots_max), batch.as_mut(), read);
                let count = *read.as_ref().unwrap_or(&0);
                (Turn::Read(read), count)
            }
        };
        match self.engine.seal(plan, batch.as_mut(), count) {
            Ok(len) => self.write(&batch.as_slice()[..len]),
            Err(_) => self.cut_off(),
        }
        turn
    }

    /// Why a stream takes nothing more.
    pub(super) fn closed(&mut self, stream: u32) -> StreamError {
        let lost = || StreamError::Lost("the stream is closed".to_owned());
        self.broken(stream).unwrap_or_else(lost)
    }

    /// Answers 200 on a stream whose answer was kept: what follows it is about to leave.
    pub(super) fn give_answer(&mut self, stream: u32) {
        let kept = self.seats.get_mut(stream).and_then(|seat| seat.kept_answer.take());
        if let Some(map) = kept {
            // A stream that has ended meanwhile needs none.
            self.engine.http_mut().respond(stream, 200, headers::fields(&map), false);
        }
    }

    /// Gives bytes to a stream whose outbox is empty.
    pub(super) fn say(&mut self, stream: u32, bytes: &[u8], link: &Link) {
        if bytes.is_empty() {
            return;
        }
        if let Some(seat) = self.seats.get_mut(stream) {
            seat.outbox.extend_from_slice(bytes);
        }
        self.send_outbox(stream, link);
    }

    /// Whether nothing that was given to a stream waits for room.
    pub(super) fn has_said_all(&mut self, stream: u32) -> bool {
        self.seats.get_mut(stream).is_some_and(|seat| seat.outbox.is_empty())
    }

    /// Sends as much of a stream's outbox as there is room for, and its end behind it.
    pub(super) fn send_outbox(&mut self, stream: u32, link: &Link) {
        let Some(seat) = self.seats.get_mut(stream) else { return };
        let outbox = std::mem::take(&mut seat.outbox);
        let mut at = 0;
        while at < outbox.len() {
            let turn = self.turn((stream, SLOTS_MAX), link, |slots| {
                let begin = at;
                for slot in slots {
                    let count = slot.len().min(outbox.len() - at);
                    slot[..count].copy_from_slice(&outbox[at..at + count]);
                    at += count;
                }
                Ok(at - begin)
            });
            match turn {
                Turn::Read(_) => {}
                Turn::Wait => break,
                Turn::Closed => return,
            }
        }
        let Some(seat) = self.seats.get_mut(stream) else { return };
        if at < outbox.len() {
            seat.outbox = outbox[at..].to_vec();
            return;
        }
        seat.wake_sender();
        let (finish, orphan) = (seat.finish_due, seat.orphan);
        if finish {
            self.engine.http_mut().finish(stream);
        }
        if orphan {
            self.forget(stream, link.now());
        }
    }
}

fn fill(
    (plan, slots_max): (&Plan, usize),
    batch: &mut [u8],
    read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut slots: [IoSliceMut<'_>; SLOTS_MAX] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
    let mut count = 0;
    for (place, slot) in slots.iter_mut().zip(plan.slots(batch).take(slots_max)) {
        *place = IoSliceMut::new(slot);
        count += 1;
    }
    read(&mut slots[..count])
}
