//! What peers may send us, stream by stream, and what the application owes for it.

use super::Connection;
use super::stream::Stream;
use crate::hbone::frame::WINDOW_MAX;
use crate::hbone::limits::{Debts, FIRST_WINDOW};

/// A stream whose credit is asked for again within this time drains, and is granted more; one that
/// took longer falls back.
const BRISK_MS: u64 = 1_000;
/// Windows that an application takes before its stream's grows, where room is scarce. Who stops
/// reading at once has less in the kernel's buffer.
const PROVEN_WINDOWS: u32 = 4;
/// A window is given back in so many steps, of at least [`STEP_MIN`]: a far peer waits for what
/// is left of one, and peers count WINDOW_UPDATEs (spec hbone 12).
const STEPS: u32 = 8;
const STEP_MIN: u32 = FIRST_WINDOW / 2;
/// How much of the connection's window is used before it is given back.
const CONNECTION_STEP: u32 = 1 << 30;

impl Connection {
    /// Counts bytes of DATA, padding included, against the window of the connection; false if that
    /// is too small.
    pub(super) fn receive_on_connection(&mut self, len: u32) -> bool {
        let Some(left) = self.receive_window.checked_sub(len) else { return false };
        self.receive_window = left;
        if WINDOW_MAX - left >= CONNECTION_STEP {
            self.writing.return_window(WINDOW_MAX - left);
            self.receive_window = WINDOW_MAX;
        }
        true
    }

    /// The application has taken `count` bytes that [`super::Event::Data`] brought.
    pub fn taken(&mut self, id: u32, count: usize, now: std::time::Instant) {
        let now_ms = self.ms(now);
        let Some(stream) = self.streams.get_mut(id) else { return };
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(stream.held);
        stream.owe(&self.debts, |stream| stream.held -= count);
        stream.proven = stream.proven.saturating_add(count);
        self.grant(id, now_ms);
    }

    /// Keeps bytes of [`super::Event::Data`] that the application does not take now.
    pub fn park(&mut self, id: u32, bytes: &[u8]) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        // Bytes that arrived before our own reset of the stream are nobody's any more.
        if stream.held > 0 && !bytes.is_empty() {
            stream.parked.get_or_insert_default().push(bytes);
        }
    }

    /// What the application is to take first.
    pub fn parked(&self, id: u32) -> &[u8] {
        let parked = self.streams.get(id).and_then(|stream| stream.parked.as_ref());
        parked.map_or(&[], |parked| parked.as_slice())
    }

    /// The application has taken the first `count` of the [`Connection::parked`] bytes.
    pub fn taken_parked(&mut self, id: u32, count: usize, now: std::time::Instant) {
        self.unpark(id, count);
        self.taken(id, count, now);
    }

    /// Forgets the first `count` of the [`Connection::parked`] bytes, because somebody else keeps
    /// them. [`Connection::taken`] is still to be told when the application has them.
    pub fn unpark(&mut self, id: u32, count: usize) {
        if let Some(stream) = self.streams.get_mut(id)
            && let Some(parked) = stream.parked.as_mut()
        {
            parked.advance(count);
            if parked.as_slice().is_empty() {
                stream.parked = None;
            }
        }
    }

    /// Grants a stream more if it is time to.
    pub(super) fn grant(&mut self, id: u32, now_ms: u64) {
        let max = self.limits.stream_window_max.max(FIRST_WINDOW);
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.grant(max, &self.debts, now_ms) {
            self.writing.list(stream);
        }
    }
}

impl Stream {
    /// Grants itself more if the application has taken a step of its window. True if it did.
    ///
    /// It aims at no more than half of what the account has room for, so that those whose
    /// application stops leave something to all others, and at no less than the first window: what
    /// others keep stops nobody. Where room is scarce it has to prove first that it drains.
    ///
    /// It grows if the application has had everything at some time since the last grant, and half a
    /// window since it last grew. Whether something waits just now says nothing: a far peer sends
    /// its whole window in one burst, and that is more than the application's socket takes at once.
    fn grant(&mut self, max: u32, debts: &Debts, now_ms: u64) -> bool {
        self.mark.kept_up |= !self.has_parked();
        let owed = self.granted + self.held;
        if !self.receives() || self.target.saturating_sub(owed) < step(self.target) {
            return false;
        }
        let brisk = now_ms.saturating_sub(self.granted_ms) <= BRISK_MS;
        let room = debts.room();
        let trusted = match room >= u64::from(max) * 2 {
            true => self.proven >= self.target / 2,
            false => self.proven / PROVEN_WINDOWS >= self.target,
        };
        let wanted = match brisk {
            true if trusted && self.mark.kept_up => self.target.saturating_mul(2).min(max),
            true => self.target,
            false => (self.target / 2).max(FIRST_WINDOW),
        };
        if wanted != self.target {
            self.proven = 0;
        }
        let share = u32::try_from(room / 2).unwrap_or(u32::MAX);
        self.target = wanted.min(share.max(FIRST_WINDOW));
        let more = self.target.saturating_sub(owed);
        if more < step(self.target) {
            // It fell back, and has enough for that.
            return false;
        }
        self.owe(debts, |stream| stream.granted += more);
        self.mark.kept_up = false;
        self.granted_ms = now_ms;
        self.update += more;
        true
    }
}

/// What is given back of a window at a time.
fn step(window: u32) -> u32 {
    (window / STEPS).max(STEP_MIN)
}
