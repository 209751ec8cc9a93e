//! One tunnel: HTTP/2 over TLS records, in place in both directions.

use std::time::Instant;

use super::Role;
use super::error::Error;
use super::handshake::Keys;
use super::http2::{Connection, Event, Room};
use super::limits::{Debts, Limits};
use super::plan::{Framing, Plan};
use super::record::{Alert, Layer, Opened, PAYLOAD_MAX, RecordError, SEALED_BY_ITSELF_MAX};

mod frozen;

/// Space that is worth a record of frames other than DATA.
const CONTROL_SPACE_MIN: usize = 64;

/// A tunnel without its socket. The module's documentation says in which order a driver calls it.
#[derive(Debug)]
pub struct Engine {
    pub(super) http: Connection,
    pub(super) layer: Layer,
    /// The beginning of a record whose rest has not arrived.
    pub(super) partial: Vec<u8>,
    /// Sealed bytes that the socket has not taken.
    pub(super) unsent: Vec<u8>,
    pub(super) unsent_at: usize,
    /// The alert to end with, if it is not `close_notify`.
    pub(super) alert: Option<Alert>,
    /// The last record is sealed.
    pub(super) finished: bool,
}

/// What was read from the socket, on its way through the engine.
#[derive(Debug)]
pub struct Input<'a> {
    rest: &'a mut [u8],
    plain: &'a [u8],
}

impl Engine {
    /// Goes on after a handshake. Bytes that arrived with it are taken by the first
    /// [`Engine::begin`], for which a driver does not wait for the socket.
    pub fn new(keys: Keys, limits: Limits, debts: Debts, now: Instant) -> Result<Self, Error> {
        Ok(Self {
            http: Connection::new(keys.role, limits, debts, now),
            layer: Layer::new(keys.secrets, keys.role, limits.records_max)?,
            partial: keys.rest,
            unsent: Vec::new(),
            unsent_at: 0,
            alert: None,
            finished: false,
        })
    }

    /// The streams, their windows and everything else that is not bytes.
    pub fn http(&self) -> &Connection {
        &self.http
    }

    /// As [`Engine::http`].
    pub fn http_mut(&mut self) -> &mut Connection {
        &mut self.http
    }

    /// Which end we are.
    pub fn role(&self) -> Role {
        self.http.role()
    }

    /// Puts the beginning of a record that arrived earlier to the front of the buffer that the
    /// socket is about to be read into; how many bytes. `buffer` holds more than a record.
    pub fn begin(&self, buffer: &mut [u8]) -> usize {
        let len = self.partial.len().min(buffer.len());
        buffer[..len].copy_from_slice(&self.partial[..len]);
        len
    }

    /// Takes the filled part of that buffer. [`Engine::next`] is then to be called until it has
    /// nothing more, or bytes are lost.
    pub fn receive<'a>(&mut self, filled: &'a mut [u8]) -> Input<'a> {
        // More than a buffer only behind a handshake: the rest is still to come.
        let used = self.partial.len().min(filled.len());
        self.partial.drain(..used);
        Input { rest: filled, plain: &[] }
    }

    /// The next event; `None` when all whole records are read and the rest is kept. After an error
    /// every stream is over, and [`Engine::flush`] has the last words. [`Error::Over`] is the clean
    /// end of a tunnel without streams.
    pub fn next<'a>(
        &mut self,
        input: &mut Input<'a>,
        now: Instant,
    ) -> Result<Option<Event<'a>>, Error> {
        loop {
            if let Some(event) = self.http.read(&mut input.plain, now)? {
                return Ok(Some(event));
            }
            match self.open_next(input) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => return Err(self.fail(error.into())),
            }
            if self.layer.is_closed() {
                return Err(self.end_of_input());
            }
        }
    }

    /// Opens the next record, if it is there.
    fn open_next(&mut self, input: &mut Input<'_>) -> Result<bool, RecordError> {
        let len = self.layer.record_len(input.rest)?.filter(|&len| len <= input.rest.len());
        let Some(len) = len else {
            if !input.rest.is_empty() {
                let later = std::mem::take(&mut self.partial);
                self.partial.extend_from_slice(input.rest);
                self.partial.extend_from_slice(&later);
            }
            return Ok(false);
        };
        let (record, rest) = std::mem::take(&mut input.rest).split_at_mut(len);
        input.rest = rest;
        if let Opened::Data(plain) = self.layer.open(record)? {
            input.plain = plain;
        }
        Ok(true)
    }

    /// The socket has come to its end. Returns what that means: [`Error::Over`] if the peer had
    /// said so and no stream was open, otherwise every stream ends as if it were reset.
    pub fn end_of_input(&mut self) -> Error {
        let clean = self.layer.is_closed() && self.http.open_streams() == 0;
        self.fail(if clean { Error::Over } else { Error::Truncated })
    }

    /// Ends the tunnel; the first reason stays.
    pub fn fail(&mut self, error: Error) -> Error {
        if self.http.error().is_none()
            && let Error::Record(error) = error
        {
            self.alert = error.alert();
        }
        self.http.fail(error);
        error
    }

    /// Looks at the time; see [`Connection::tick`].
    pub fn tick(&mut self, now: Instant) -> Result<(), Error> {
        if self.partial.is_empty() {
            self.partial = Vec::new();
        }
        self.http.tick(now)
    }

    /// When [`Engine::tick`] is to be called next.
    pub fn next_deadline(&self) -> Instant {
        self.http.next_deadline()
    }

    /// Whether [`Engine::flush`] has something to seal.
    pub fn wants_flush(&self) -> bool {
        let last = self.http.is_done() && !self.finished;
        self.unsent().is_empty() && (self.http.wants_write() || self.layer.has_words() || last)
    }

    /// Whether everything is said: when it is sent, too, the socket is to be closed.
    pub fn is_finished(&self) -> bool {
        self.finished && self.unsent().is_empty()
    }

    /// Seals frames other than DATA into the front of `batch`; how many bytes are to be sent.
    /// Nothing while sealed bytes are unsent.
    pub fn flush(&mut self, batch: &mut [u8]) -> Result<usize, Error> {
        if self.layer.is_worn() {
            self.http.close();
        }
        if !self.unsent().is_empty() || self.finished {
            return Ok(0);
        }
        self.seal_control(batch).map_err(|error| self.fail(error.into()))
    }

    fn seal_control(&mut self, batch: &mut [u8]) -> Result<usize, RecordError> {
        let layout = self.layer.layout();
        let least = SEALED_BY_ITSELF_MAX + layout.overhead() + CONTROL_SPACE_MIN;
        let mut at = 0;
        while batch.len() - at >= least && !self.finished {
            at += self.layer.due(&mut batch[at..])?;
            let begin = at + layout.header;
            let space = (batch.len() - at - layout.overhead()).min(PAYLOAD_MAX);
            let len = self.http.write(&mut batch[begin..begin + space]);
            if len > 0 {
                at += self.layer.seal(&mut batch[at..], len)?;
            } else if self.http.is_done() {
                let alert = self.alert.unwrap_or(Alert::CLOSE_NOTIFY);
                at += self.layer.seal_alert(&mut batch[at..], alert)?;
                self.finished = true;
            } else {
                break;
            }
        }
        Ok(at)
    }

    /// Prepares `batch` for bytes of a stream: seals into its front what goes before them, and says
    /// how much may be read to where.
    pub fn plan(&mut self, stream: u32, batch: &mut [u8]) -> Result<Plan, Error> {
        let mut front = self.flush(batch)?;
        let space = batch.len() - front;
        if self.unsent().is_empty() && space >= SEALED_BY_ITSELF_MAX && !self.finished {
            let due = self.layer.due(&mut batch[front..]);
            front += due.map_err(|error| self.fail(error.into()))?;
        }
        let space = batch.len() - front;
        let whole = self.http.peer_frame_max() as usize;
        let framing = if whole < space { Framing::Each } else { Framing::One };
        let layout = self.layer.layout();
        let capacity = framing.capacity(space, self.layer.room(), layout);
        let blocked = !self.unsent().is_empty() || self.http.wants_write() || capacity == 0;
        let room = match self.http.room(stream, blocked) {
            Room::Bytes(bytes) => Room::Bytes(bytes.min(capacity)),
            room => room,
        };
        Ok(Plan { stream, front, room, framing, layout })
    }

    /// Seals the first `count` bytes that were read into the slots of a plan; how many bytes of
    /// `batch` are to be sent. With nothing read that is what the plan had in front.
    pub fn seal(&mut self, plan: Plan, batch: &mut [u8], count: usize) -> Result<usize, Error> {
        let Room::Bytes(most) = plan.room else { return Ok(plan.front) };
        let count = count.min(most);
        let sealed = plan.seal(batch, count, &mut self.layer);
        let sealed = sealed.map_err(|error| self.fail(error.into()))?;
        self.http.sent(plan.stream, count);
        Ok(sealed)
    }

    /// Keeps sealed bytes that the socket did not take.
    pub fn keep_unsent(&mut self, rest: &[u8]) {
        if self.unsent_at == self.unsent.len() {
            self.unsent.clear();
            self.unsent_at = 0;
        }
        self.unsent.extend_from_slice(rest);
    }

    /// What is to be sent before anything else is sealed.
    pub fn unsent(&self) -> &[u8] {
        &self.unsent[self.unsent_at..]
    }

    /// The socket has taken the first `count` of the unsent bytes.
    pub fn sent(&mut self, count: usize) {
        self.unsent_at = (self.unsent_at + count).min(self.unsent.len());
        if self.unsent_at == self.unsent.len() {
            (self.unsent, self.unsent_at) = (Vec::new(), 0);
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod chance;

#[cfg(test)]
mod handover;
