//! One stream's place in its tunnel: who waits for what, and where its bytes go.

use std::rc::Rc;
use std::task::{Context, Waker};

use http::HeaderMap;

use super::direct::Tap;
use crate::hbone::frame::ErrorCode;
use crate::hbone::http2::{By, Fields};

/// What the tunnel knows of a stream beside what its engine knows.
#[derive(Debug, Default)]
pub(super) struct Seat {
    pub(super) id: u32,
    /// The task that sends.
    pub(super) sender: Option<Waker>,
    /// The task that receives.
    pub(super) receiver: Option<Waker>,
    /// The application that bytes are written to as they arrive.
    pub(super) tap: Option<Rc<Tap>>,
    /// Writing to it failed.
    pub(super) broken: Option<std::io::Error>,
    /// The headers of our answer, which waits for the bytes that follow it.
    pub(super) kept_answer: Option<Box<HeaderMap>>,
    /// The answer to our CONNECT.
    pub(super) answer: Option<Box<(u16, Fields)>>,
    pub(super) reset: Option<(ErrorCode, By)>,
    /// Bytes that were given to the stream and have no room yet, of at most one buffer.
    pub(super) outbox: Vec<u8>,
    /// END_STREAM is to follow them.
    pub(super) finish_due: bool,
    /// Nobody but the outbox holds the stream any more.
    pub(super) orphan: bool,
}

/// All of them, by id. New ones are the greatest, so that a sorted list needs no other order.
#[derive(Debug, Default)]
pub(super) struct Seats(Vec<Seat>);

impl Seat {
    /// Notes who sends.
    pub(super) fn sender_waits(&mut self, cx: &Context<'_>) {
        note(&mut self.sender, cx);
    }

    /// Notes who receives.
    pub(super) fn receiver_waits(&mut self, cx: &Context<'_>) {
        note(&mut self.receiver, cx);
    }

    pub(super) fn wake_sender(&mut self) {
        if let Some(waker) = self.sender.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_receiver(&mut self) {
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }

    pub(super) fn wake(&mut self) {
        self.wake_sender();
        self.wake_receiver();
    }
}

impl Seats {
    pub(super) fn add(&mut self, id: u32) {
        debug_assert!(self.0.last().is_none_or(|last| last.id < id));
        self.0.push(Seat { id, ..Seat::default() });
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Seat> {
        let at = self.0.binary_search_by_key(&id, |seat| seat.id).ok()?;
        self.0.get_mut(at)
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Seat> {
        let at = self.0.binary_search_by_key(&id, |seat| seat.id).ok()?;
        let seat = self.0.remove(at);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        Some(seat)
    }

    pub(super) fn wake_all(&mut self) {
        self.0.iter_mut().for_each(Seat::wake);
    }

    /// Wakes those who wait until what they sent has left.
    pub(super) fn wake_senders(&mut self) {
        self.0.iter_mut().for_each(Seat::wake_sender);
    }
}

fn note(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}
