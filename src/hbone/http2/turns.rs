//! What we may send, and who comes next: deficit round robin by bytes.

use super::{Connection, Role};
use crate::hbone::limits::{QUANTUM, SENT_PER_UPDATE, UPDATES_PER_TURN};

/// Frames below this size count as small with peers that keep account of them.
const SMALL: usize = 256;
/// How long a stream gathers bytes before it sends another small frame: the run of small ones
/// without a sign that somebody reads them, and the wait in milliseconds (promise A7).
const HOLDS: [(u16, u64); 4] = [(1_024, 100), (256, 20), (32, 5), (0, 0)];
/// What DATA sent long ago explains of WINDOW_UPDATEs, at most.
const EXPLAINED_MAX: u32 = 1 << 16;

/// Whether a stream may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// So many bytes of DATA, at least one.
    Bytes(usize),
    /// Not now. [`Connection::next_turn`] will name the stream; as server, not before it was
    /// answered.
    Wait,
    /// Never again: it ended or was reset.
    Closed,
}

impl Connection {
    /// How much a stream may send now. `blocked` says that nothing can leave at all.
    pub fn room(&mut self, id: u32, blocked: bool) -> Room {
        if self.ended.is_some() {
            return Room::Closed;
        }
        let others_wait = !self.turns.is_empty();
        let connection = self.send_window;
        let server = self.role == Role::Server;
        let Some(stream) = self.streams.get_mut(id) else { return Room::Closed };
        if !stream.sends() {
            return Room::Closed;
        }
        if server && !stream.mark.answered {
            return Room::Wait;
        }
        let Ok(window @ 1..) = u32::try_from(stream.send_window) else {
            stream.mark.window_blocked = true;
            return Room::Wait;
        };
        if blocked || connection == 0 || (others_wait && !stream.mark.turn) {
            self.wait(id);
            return Room::Wait;
        }
        let turn = if stream.mark.turn { stream.deficit.max(1) } else { u32::MAX };
        Room::Bytes(window.min(connection).min(turn) as usize)
    }

    /// `count` bytes of DATA of a stream are on their way.
    pub fn sent(&mut self, id: u32, count: usize) {
        let bytes = u32::try_from(count).unwrap_or(u32::MAX);
        self.explaining = self.explaining.saturating_add(bytes);
        let turn = if count > 0 { UPDATES_PER_TURN } else { 0 };
        let explained = self.explained.saturating_add(turn + self.explaining / SENT_PER_UPDATE);
        self.explained = explained.min(EXPLAINED_MAX);
        self.explaining %= SENT_PER_UPDATE;
        self.send_window = self.send_window.saturating_sub(bytes);
        let Some(stream) = self.streams.get_mut(id) else { return };
        let signed = i32::try_from(bytes).unwrap_or(i32::MAX);
        stream.send_window = stream.send_window.saturating_sub(signed);
        stream.deficit = stream.deficit.saturating_sub(bytes);
        if count == 0 || stream.deficit == 0 {
            stream.mark.turn = false;
        }
        stream.small_run = match count {
            0 => stream.small_run,
            1..SMALL => stream.small_run.saturating_add(1),
            _ => 0,
        };
    }

    /// A stream has nothing more to send: END_STREAM goes out behind its bytes.
    pub fn finish(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(id).filter(|stream| stream.sends()) else { return };
        if self.role == Role::Server && !stream.mark.answered {
            return;
        }
        stream.mark.local_end = true;
        stream.mark.end_due = true;
        self.writing.list(stream);
        self.settle(id);
    }

    /// The longest frame that the peer takes, in bytes.
    pub fn peer_frame_max(&self) -> u32 {
        self.peer.frame_max
    }

    /// How many milliseconds a stream should let small writes gather before it sends again, unless
    /// it has [`Connection::small_frame`] bytes. Nothing for those whose peer answers.
    pub fn hold_ms(&self, id: u32) -> u64 {
        let run = self.streams.get(id).map_or(0, |stream| stream.small_run);
        HOLDS.into_iter().find(|&(from, _)| run >= from).map_or(0, |(_, wait)| wait)
    }

    /// From how many bytes on a frame is not small.
    pub fn small_frame() -> usize {
        SMALL
    }

    /// The stream whose turn it is, for a driver that can send again; `None` if nobody waits, or
    /// the window of the connection is closed. It is to ask for [`Connection::room`] next.
    pub fn next_turn(&mut self) -> Option<u32> {
        if self.send_window == 0 {
            return None;
        }
        while let Some(id) = self.turns.pop_front() {
            let Some(stream) = self.streams.get_mut(id) else { continue };
            stream.mark.queued = false;
            if !stream.sends() {
                continue;
            }
            if stream.send_window <= 0 {
                stream.mark.window_blocked = true;
                continue;
            }
            stream.mark.turn = true;
            stream.deficit = stream.deficit.saturating_add(QUANTUM).min(2 * QUANTUM);
            return Some(id);
        }
        None
    }

    /// The window of a stream has opened.
    pub(super) fn unblock(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(id)
            && stream.mark.window_blocked
        {
            stream.mark.window_blocked = false;
            self.wait(id);
        }
    }

    fn wait(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.mark.turn = false;
        if !stream.mark.queued {
            stream.mark.queued = true;
            self.turns.push_back(id);
        }
    }
}
