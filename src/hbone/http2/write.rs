//! What we owe the peer, as flags, and the frames that come of it.

use std::collections::VecDeque;

use super::Connection;
use super::stream::Stream;
use crate::hbone::error::Flood;
use crate::hbone::frame::{self, ErrorCode};

/// SETTINGS and PINGs of the peer that may wait for their acknowledgement.
const ACKS_MAX: usize = 32;
/// RST_STREAMs that may wait for streams which are not in the table.
const STRAY_MAX: usize = 128;
/// What our own PINGs carry: asking for life, and asking before the last GOAWAY.
const ASKING: [u8; 8] = *b"adit-hi?";
const LEAVING: [u8; 8] = *b"adit-bye";

/// What waits to be written, in the order in which it is.
#[derive(Debug, Default)]
pub(super) struct Writing {
    /// Frames with field blocks, and the greeting: bytes as they are.
    pub(super) queue: VecDeque<u8>,
    pub(super) settings_acks: u8,
    pub(super) pongs: VecDeque<[u8; 8]>,
    pub(super) ask_due: bool,
    pub(super) leave_due: bool,
    pub(super) window_due: u32,
    pub(super) stray: VecDeque<(u32, ErrorCode)>,
    /// Streams with frames of their own to send.
    pub(super) listed: VecDeque<u32>,
    pub(super) goaway_due: Option<(u32, ErrorCode)>,
}

/// What an acknowledged PING was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pong {
    Asking,
    Leaving,
    Foreign,
}

/// A buffer that takes whole frames.
struct Out<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl Writing {
    /// Where frames are appended as bytes. The queue grows and shrinks with what is in it.
    pub(super) fn queue(&mut self) -> Appended<'_> {
        Appended { queue: &mut self.queue, bytes: Vec::new() }
    }

    pub(super) fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// A stream has frames of its own to send.
    pub(super) fn list(&mut self, stream: &mut Stream) {
        if !stream.mark.listed {
            stream.mark.listed = true;
            self.listed.push_back(stream.id);
        }
    }

    pub(super) fn goaway(&mut self, last: u32, code: ErrorCode) {
        self.goaway_due = Some((last, code));
    }

    pub(super) fn ask(&mut self) {
        self.ask_due = true;
    }

    pub(super) fn ask_before_leaving(&mut self) {
        self.leave_due = true;
    }

    pub(super) fn return_window(&mut self, increment: u32) {
        self.window_due += increment;
    }

    pub(super) fn acknowledge_settings(&mut self) -> Result<(), Flood> {
        if usize::from(self.settings_acks) == ACKS_MAX {
            return Err(Flood::Settings);
        }
        self.settings_acks += 1;
        Ok(())
    }

    pub(super) fn answer(&mut self, opaque: [u8; 8]) -> Result<(), Flood> {
        if self.pongs.len() == ACKS_MAX {
            return Err(Flood::Noise);
        }
        self.pongs.push_back(opaque);
        Ok(())
    }

    pub(super) fn reset_stray(&mut self, id: u32, code: ErrorCode) -> Result<(), Flood> {
        if self.stray.len() == STRAY_MAX {
            return Err(Flood::Faults);
        }
        self.stray.push_back((id, code));
        Ok(())
    }

    /// Forgets everything, except for what has left in part.
    pub(super) fn drop_all(&mut self) {
        let queue = std::mem::take(&mut self.queue);
        *self = Self { queue, ..Self::default() };
    }

    pub(super) fn pong(opaque: [u8; 8]) -> Pong {
        match opaque {
            ASKING => Pong::Asking,
            LEAVING => Pong::Leaving,
            _ => Pong::Foreign,
        }
    }
}

/// Bytes on their way into a queue.
pub(super) struct Appended<'a> {
    queue: &'a mut VecDeque<u8>,
    bytes: Vec<u8>,
}

impl std::ops::Deref for Appended<'_> {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl std::ops::DerefMut for Appended<'_> {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Appended<'_> {
    fn drop(&mut self) {
        self.queue.extend(&self.bytes);
    }
}

impl Connection {
    /// Whether [`Connection::write`] has something to write.
    pub fn wants_write(&self) -> bool {
        let writing = &self.writing;
        !writing.queue.is_empty()
            || writing.settings_acks > 0
            || !writing.pongs.is_empty()
            || writing.ask_due
            || writing.leave_due
            || writing.window_due > 0
            || !writing.stray.is_empty()
            || !writing.listed.is_empty()
            || writing.goaway_due.is_some()
    }

    /// Writes frames other than DATA into `out`; how many bytes. What does not fit waits. DATA may
    /// follow only when nothing waits any more: a field block may have been written in part.
    pub fn write(&mut self, out: &mut [u8]) -> usize {
        let mut out = Out { buf: out, len: 0 };
        self.write_all(&mut out);
        out.len
    }

    /// Stops at the first frame that does not fit.
    fn write_all(&mut self, out: &mut Out<'_>) -> Option<()> {
        self.write_queue(out)?;
        while self.writing.settings_acks > 0 {
            out.put(&frame::settings_ack())?;
            self.writing.settings_acks -= 1;
        }
        while let Some(&opaque) = self.writing.pongs.front() {
            out.put(&frame::ping(opaque, true))?;
            self.writing.pongs.pop_front();
        }
        if self.writing.ask_due {
            out.put(&frame::ping(ASKING, false))?;
            self.writing.ask_due = false;
        }
        if self.writing.window_due > 0 {
            out.put(&frame::window_update(0, self.writing.window_due))?;
            self.writing.window_due = 0;
        }
        while let Some(&(id, code)) = self.writing.stray.front() {
            out.put(&frame::rst_stream(id, code))?;
            self.writing.stray.pop_front();
        }
        while let Some(&id) = self.writing.listed.front() {
            self.write_stream(id, out)?;
            self.writing.listed.pop_front();
            self.settle(id);
        }
        if let Some((last, code)) = self.writing.goaway_due {
            let mut bytes = Vec::new();
            frame::goaway(last, code, &[], &mut bytes);
            out.put(&bytes)?;
            self.writing.goaway_due = None;
        }
        // After the GOAWAY: its answer proves that the peer has read that.
        if self.writing.leave_due {
            out.put(&frame::ping(LEAVING, false))?;
            self.writing.leave_due = false;
        }
        Some(())
    }

    /// As much of the queue as there is room for.
    fn write_queue(&mut self, out: &mut Out<'_>) -> Option<()> {
        let queue = &mut self.writing.queue;
        while !queue.is_empty() {
            let (front, _) = queue.as_slices();
            let space = &mut out.buf[out.len..];
            let count = front.len().min(space.len());
            if count == 0 {
                return None;
            }
            space[..count].copy_from_slice(&front[..count]);
            out.len += count;
            queue.drain(..count);
        }
        *queue = VecDeque::new();
        Some(())
    }

    fn write_stream(&mut self, id: u32, out: &mut Out<'_>) -> Option<()> {
        let Some(stream) = self.streams.get_mut(id) else { return Some(()) };
        if stream.update > 0 {
            out.put(&frame::window_update(id, stream.update))?;
            stream.update = 0;
        }
        if stream.mark.end_due && stream.reset.is_none() {
            out.put(&frame::data(id, 0, true))?;
            stream.mark.end_due = false;
        }
        if let Some(reset) = stream.reset.as_mut()
            && reset.due
        {
            out.put(&frame::rst_stream(id, reset.code))?;
            reset.due = false;
        }
        stream.mark.listed = false;
        Some(())
    }
}

impl Out<'_> {
    fn put(&mut self, frame: &[u8]) -> Option<()> {
        let place = self.buf.get_mut(self.len..self.len + frame.len())?;
        place.copy_from_slice(frame);
        self.len += frame.len();
        Some(())
    }
}
