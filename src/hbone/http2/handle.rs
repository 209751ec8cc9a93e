//! Whole frames other than DATA, and what they do.

use super::read::{At, Block};
use super::stream::{Reset, Stream};
use super::write::{Pong, Writing};
use super::{By, Connection, Error, Event, Fields, Role, Violation};
use crate::hbone::error::Flood;
use crate::hbone::frame::{self, ErrorCode, Frame, Header, WINDOW_MAX};
use crate::hbone::hpack;
use crate::hbone::limits::FIELDS;

/// Fields of one list; those of HBONE have seven.
const FIELDS_MAX: usize = 256;
/// Work of decoding a block, in multiples of the longest list.
const WORK_FACTOR: usize = 4;

type Handled = Result<Option<Event<'static>>, Error>;

impl Connection {
    /// One whole frame.
    pub(super) fn handle(&mut self, header: Header, payload: &[u8], now_ms: u64) -> Handled {
        let frame = match frame::parse(header, payload, self.role) {
            Ok(frame) => frame,
            Err(malformed) => return self.ends(malformed, now_ms),
        };
        match frame {
            Frame::Headers { fragment, end_headers, end_stream, .. } => {
                let bytes = fragment.to_vec();
                self.reading.block =
                    Some(Block { stream: header.stream, end_stream, pieces: 1, bytes });
                self.block_goes_on(end_headers, now_ms)
            }
            Frame::Continuation { fragment, end_headers } => {
                if let Some(block) = self.reading.block.as_mut() {
                    block.bytes.extend_from_slice(fragment);
                }
                self.block_goes_on(end_headers, now_ms)
            }
            Frame::RstStream(code) => self.reset_by_peer(header.stream, code, now_ms),
            Frame::Settings(entries) => {
                self.noise(now_ms)?;
                self.follow(entries)?;
                self.writing.acknowledge_settings()?;
                Ok(None)
            }
            Frame::SettingsAck => {
                if self.settings_acked {
                    return Err(Violation::SettingsAck.into());
                }
                self.settings_acked = true;
                self.decoder.limit_table(0);
                Ok(None)
            }
            Frame::Ping(opaque) => {
                self.noise(now_ms)?;
                self.writing.answer(opaque)?;
                Ok(None)
            }
            Frame::PingAck(opaque) => self.pong(opaque, now_ms),
            Frame::GoAway { last_stream, code, .. } => self.peer_leaves(last_stream, code),
            Frame::WindowUpdate(increment) => self.window_update(header.stream, increment, now_ms),
            Frame::Priority(_) | Frame::Unknown => self.noise(now_ms).map(|()| None),
            // DATA is read as it comes and never gets here.
            Frame::Data { .. } => Ok(None),
        }
    }

    fn pong(&mut self, opaque: [u8; 8], now_ms: u64) -> Handled {
        match Writing::pong(opaque) {
            // Any byte of the peer is a sign of life, so this one needs no more.
            Pong::Asking => {}
            Pong::Leaving if self.going.has_begun() && !self.going.is_final() => {
                self.going.finish(self.last_peer);
                self.writing.goaway(self.last_peer, ErrorCode::NoError);
            }
            Pong::Leaving | Pong::Foreign => self.noise(now_ms)?,
        }
        Ok(None)
    }

    /// The peer takes no more streams, and has not processed those above `last` (RFC 9113 6.8).
    fn peer_leaves(&mut self, last: u32, code: ErrorCode) -> Handled {
        let last = self.going.peer_last.map_or(last, |before| before.min(last));
        self.going.peer_last = Some(last);
        if self.role == Role::Client {
            let unprocessed = self.streams.iter().filter(|stream| stream.id > last);
            let ids: Vec<u32> = unprocessed.map(|stream| stream.id).collect();
            for id in ids {
                let Some(stream) = self.streams.get_mut(id) else { continue };
                if stream.is_closed() {
                    continue;
                }
                stream.reset = Some(Reset { code: ErrorCode::RefusedStream, due: false });
                stream.mark.lost_due = !stream.mark.released;
                self.lost_due += u32::from(stream.mark.lost_due);
                self.settle(id);
            }
        }
        Ok(Some(Event::GoAway { code }))
    }

    fn window_update(&mut self, id: u32, increment: u32, now_ms: u64) -> Handled {
        match self.explained.checked_sub(1) {
            Some(left) => self.explained = left,
            None => self.noise(now_ms)?,
        }
        if id == 0 {
            let window = self.send_window.checked_add(increment);
            let window = window.filter(|&window| window <= WINDOW_MAX);
            self.send_window = window.ok_or(Violation::WindowOverflow)?;
            self.widened_ms = now_ms;
            return Ok(None);
        }
        if self.is_idle(id) {
            return Err(Violation::Idle.into());
        }
        let Some(stream) = self.streams.get_mut(id).filter(|stream| stream.reset.is_none()) else {
            return Ok(None);
        };
        let window = i64::from(stream.send_window) + i64::from(increment);
        let Ok(window) = i32::try_from(window) else {
            return self.fault(id, ErrorCode::FlowControlError, now_ms);
        };
        stream.send_window = window;
        stream.small_run = 0;
        if window > 0 {
            self.unblock(id);
        }
        Ok(None)
    }

    fn reset_by_peer(&mut self, id: u32, code: ErrorCode, now_ms: u64) -> Handled {
        if self.is_idle(id) {
            return Err(Violation::Idle.into());
        }
        let server = self.role == Role::Server;
        self.both_ended(id, true);
        // One whose END_STREAM has not left is over only on our side.
        let alive = |stream: &&mut Stream| !stream.is_closed() || stream.tells_its_end();
        let Some(stream) = self.streams.get_mut(id).filter(alive) else {
            return self.noise(now_ms).map(|()| None);
        };
        stream.reset = Some(Reset { code, due: false });
        let unanswered = !stream.mark.answered;
        let released = stream.mark.released;
        // What was answered costs its peer as much as us.
        if server && unanswered {
            self.peer_reset(now_ms)?;
        }
        self.settle(id);
        let refused = !server && unanswered && code == ErrorCode::RefusedStream;
        let by = if refused { By::PeerUnprocessed } else { By::Peer };
        Ok((!released).then_some(Event::Reset { stream: id, code, by }))
    }

    /// Waits for more of the block, or decodes it.
    fn block_goes_on(&mut self, whole: bool, now_ms: u64) -> Handled {
        if !whole {
            return Ok(None);
        }
        let Some(block) = self.reading.block.take() else { return Ok(None) };
        self.reading.at = At::Skip;
        let most = self.limits.header_list_max as usize;
        let limits = hpack::Limits {
            list_size_max: most,
            fields_max: FIELDS_MAX,
            work_max: most.saturating_mul(WORK_FACTOR),
        };
        let mut fields = Fields::default();
        let visit = |name: &[u8], value: &[u8]| fields.push(name, value);
        let decoded = self.decoder.decode(&block.bytes, limits, visit);
        let decoded = decoded.map_err(|error| match error {
            hpack::DecodeError::Work => Error::Flood(Flood::Fields),
            _ => Error::Violation(Violation::Compression),
        })?;
        let work = u32::try_from(decoded.work).unwrap_or(u32::MAX);
        if !self.budgets.fields.take(FIELDS, work, now_ms) {
            return Err(Flood::Fields.into());
        }
        match self.role {
            Role::Server => self.request(&block, fields, decoded.over_limit, now_ms),
            Role::Client => self.response(&block, fields, decoded.over_limit, now_ms),
        }
    }

    fn request(&mut self, block: &Block, fields: Fields, too_large: bool, now_ms: u64) -> Handled {
        let id = block.stream;
        if let Some(stream) = self.streams.get(id) {
            // RFC 9113 8.5: nothing but DATA follows a CONNECT.
            let closed = stream.mark.remote_end;
            let code = if closed { ErrorCode::StreamClosed } else { ErrorCode::ProtocolError };
            return self.fault(id, code, now_ms);
        }
        if id.is_multiple_of(2) || (id <= self.last_peer && !self.is_late(id)) {
            return Err(Violation::StreamId.into());
        }
        if id <= self.last_peer {
            return self.noise(now_ms).map(|()| None);
        }
        self.last_peer = id;
        if self.going.ignores(id) {
            return self.noise(now_ms).map(|()| None);
        }
        let most = self.limits.streams_max;
        if self.open >= most || self.streams.len() >= 2 * most as usize {
            return self.fault(id, ErrorCode::RefusedStream, now_ms);
        }
        if !too_large && !fields.is_request() {
            return self.fault(id, ErrorCode::ProtocolError, now_ms);
        }
        self.add_stream(id, now_ms);
        if block.end_stream {
            self.end_of(id);
        }
        Ok(Some(Event::Request { stream: id, fields, too_large, ended: block.end_stream }))
    }

    fn response(&mut self, block: &Block, fields: Fields, too_large: bool, now_ms: u64) -> Handled {
        let id = block.stream;
        if self.is_idle(id) {
            return Err(Violation::Idle.into());
        }
        let Some(stream) = self.streams.get_mut(id) else {
            if self.is_late(id) {
                return self.noise(now_ms).map(|()| None);
            }
            return self.fault(id, ErrorCode::StreamClosed, now_ms);
        };
        if stream.reset.is_some() {
            return self.noise(now_ms).map(|()| None);
        }
        let status = fields.response_status().filter(|_| !too_large && !stream.mark.answered);
        match status {
            // Interim responses say nothing that a tunnel needs, but none may end it.
            Some(100..=199) if !block.end_stream && status != Some(101) => {
                self.noise(now_ms).map(|()| None)
            }
            Some(status @ 200..) => {
                stream.mark.answered = true;
                if block.end_stream {
                    self.end_of(id);
                }
                Ok(Some(Event::Response { stream: id, status, fields, ended: block.end_stream }))
            }
            _ => self.fault(id, ErrorCode::ProtocolError, now_ms),
        }
    }
}
