//! What is known about one stream, and the table of all of them.

use std::cmp::Ordering;

use super::parked::Parked;
use crate::hbone::frame::ErrorCode;
use crate::hbone::limits::{Debts, FIRST_WINDOW};

/// One stream: one connection of an application.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) id: u32,
    /// What the peer lets us send; below zero after its SETTINGS took some back.
    pub(super) send_window: i32,
    /// What the peer may still send.
    pub(super) granted: u32,
    /// What arrived and the application has not taken.
    pub(super) held: u32,
    /// The window that is aimed at.
    pub(super) target: u32,
    /// What the application took since the window last grew.
    pub(super) proven: u32,
    /// Granted, and still to be told to the peer.
    pub(super) update: u32,
    /// When credit was last given, in the connection's milliseconds.
    pub(super) granted_ms: u64,
    /// Bytes left of its turn.
    pub(super) deficit: u32,
    /// Small DATA frames sent in a row without a sign that somebody reads them.
    pub(super) small_run: u16,
    pub(super) parked: Option<Box<Parked>>,
    /// How a reset ended it, and whether the peer has to be told.
    pub(super) reset: Option<Reset>,
    pub(super) mark: Marks,
}

/// A reset from either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reset {
    pub(super) code: ErrorCode,
    /// RST_STREAM is still to be sent.
    pub(super) due: bool,
}

/// Facts about a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// The final response has been sent, or has arrived.
    pub(super) answered: bool,
    /// We have sent END_STREAM.
    pub(super) local_end: bool,
    /// END_STREAM is still to be sent.
    pub(super) end_due: bool,
    /// The peer has sent END_STREAM.
    pub(super) remote_end: bool,
    /// The driver is done with it.
    pub(super) released: bool,
    /// It was counted among the open ones, and is not any more.
    pub(super) counted_out: bool,
    /// It is in the list of those with control frames to send.
    pub(super) listed: bool,
    /// It waits in the queue of senders.
    pub(super) queued: bool,
    /// It wants to send and its window is closed.
    pub(super) window_blocked: bool,
    /// It has a turn to send.
    pub(super) turn: bool,
    /// The peer provably did not process it, and the driver is still to be told.
    pub(super) lost_due: bool,
    /// Nothing waited for the application at some time since credit was last given.
    pub(super) kept_up: bool,
}

impl Stream {
    /// Whether the protocol is done with it.
    pub(super) fn is_closed(&self) -> bool {
        self.reset.is_some() || (self.mark.local_end && self.mark.remote_end)
    }

    /// Whether the peer may still send on it.
    pub(super) fn receives(&self) -> bool {
        self.reset.is_none() && !self.mark.remote_end
    }

    /// Whether we may still send on it.
    pub(super) fn sends(&self) -> bool {
        self.reset.is_none() && !self.mark.local_end
    }

    /// Whether the peer is still to be told of its end.
    pub(super) fn tells_its_end(&self) -> bool {
        self.reset.map_or(self.mark.end_due, |reset| reset.due)
    }

    /// What it owes beyond its first window: granted, and not taken by its application.
    pub(super) fn debt(&self) -> u32 {
        self.granted.saturating_add(self.held).saturating_sub(FIRST_WINDOW)
    }

    /// Changes what was granted or is held, and the account with it.
    pub(super) fn owe(&mut self, debts: &Debts, change: impl FnOnce(&mut Self)) {
        let before = self.debt();
        change(self);
        let after = self.debt();
        // Most streams owe nothing, and the account of the process is everybody's.
        match after.cmp(&before) {
            Ordering::Greater => debts.charge(after - before),
            Ordering::Less => debts.release(before - after),
            Ordering::Equal => {}
        }
    }

    pub(super) fn has_parked(&self) -> bool {
        self.parked.as_ref().is_some_and(|parked| !parked.as_slice().is_empty())
    }
}

/// All streams by id. New ones have the greatest id, so a sorted list needs no other order.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) list: Vec<Stream>,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Adds a stream with a greater id than all before.
    pub(super) fn push(&mut self, stream: Stream) {
        debug_assert!(self.list.last().is_none_or(|last| last.id < stream.id));
        self.list.push(stream);
    }

    pub(super) fn get(&self, id: u32) -> Option<&Stream> {
        let at = self.list.binary_search_by_key(&id, |stream| stream.id).ok()?;
        self.list.get(at)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        let at = self.list.binary_search_by_key(&id, |stream| stream.id).ok()?;
        self.list.get_mut(at)
    }

    pub(super) fn remove(&mut self, id: u32) {
        if let Ok(at) = self.list.binary_search_by_key(&id, |stream| stream.id) {
            self.list.remove(at);
        }
        if self.list.is_empty() && self.list.capacity() > 8 {
            self.list = Vec::new();
        }
    }

    /// Whether the ids are in their order.
    pub(super) fn is_sorted(&self) -> bool {
        self.list.is_sorted_by(|a, b| a.id < b.id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.list.iter_mut()
    }
}
