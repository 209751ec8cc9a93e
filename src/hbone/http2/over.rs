//! How streams end by what the peer says, and the budgets of what it may do wrong.

use super::{By, Connection, Error, Event};
use crate::hbone::error::Flood;
use crate::hbone::frame::{ErrorCode, Malformed, Scope};
use crate::hbone::limits::{FAULTS, NOISE, RESETS};

impl Connection {
    /// The peer has finished its direction.
    pub(super) fn end_of(&mut self, id: u32) -> Option<Event<'static>> {
        let stream = self.streams.get_mut(id)?;
        if stream.mark.remote_end || stream.reset.is_some() {
            return None;
        }
        stream.mark.remote_end = true;
        let released = stream.mark.released;
        self.settle(id);
        (!released).then_some(Event::End { stream: id })
    }

    /// The peer ended a stream that we have reset. If it takes the stream for closed by that, it is
    /// not to be told any more: it may open another one in its place.
    pub(super) fn both_ended(&mut self, id: u32, by_reset: bool) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let closed = by_reset || (stream.mark.local_end && !stream.mark.end_due);
        if let Some(reset) = stream.reset.as_mut().filter(|_| closed) {
            reset.due = false;
            self.settle(id);
        }
    }

    /// What a malformed frame ends: the connection, or its stream.
    pub(super) fn ends<'a>(
        &mut self,
        malformed: Malformed,
        now_ms: u64,
    ) -> Result<Option<Event<'a>>, Error> {
        match malformed.scope {
            Scope::Stream(id) if !self.is_idle(id) => self.fault(id, malformed.code, now_ms),
            _ => Err(Error::Malformed(malformed)),
        }
    }

    /// Resets a stream for a fault of the peer, which may commit only so many of them.
    pub(super) fn fault<'a>(
        &mut self,
        id: u32,
        code: ErrorCode,
        now_ms: u64,
    ) -> Result<Option<Event<'a>>, Error> {
        if !self.budgets.faults.take(FAULTS, 1, now_ms) {
            return Err(Flood::Faults.into());
        }
        let Some(stream) = self.streams.get(id) else {
            self.writing.reset_stray(id, code)?;
            return Ok(None);
        };
        if stream.is_closed() {
            return Ok(None);
        }
        let known = !stream.mark.released;
        self.reset_stream(id, code);
        Ok(known.then_some(Event::Reset { stream: id, code, by: By::Us }))
    }

    /// Counts a frame that moves nothing.
    pub(super) fn noise(&mut self, now_ms: u64) -> Result<(), Error> {
        let fine = self.budgets.noise.take(NOISE, 1, now_ms);
        if fine { Ok(()) } else { Err(Flood::Noise.into()) }
    }

    pub(super) fn noise_if(&mut self, noise: bool, now_ms: u64) -> Result<(), Error> {
        if noise { self.noise(now_ms) } else { Ok(()) }
    }

    /// Counts a stream that the peer opened and reset.
    pub(super) fn peer_reset(&mut self, now_ms: u64) -> Result<(), Error> {
        let fine = self.budgets.resets.take(RESETS, 1, now_ms);
        if fine { Ok(()) } else { Err(Flood::Resets.into()) }
    }
}
