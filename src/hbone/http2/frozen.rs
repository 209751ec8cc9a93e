//! A connection as bytes, and a connection from them.

use std::time::Instant;

use super::parked::Parked;
use super::peer::{Going, Peer};
use super::read::{At, Block, Reading};
use super::stream::{Marks, Reset, Stream, Streams};
use super::write::Writing;
use super::{Budgets, Connection, Role};
use crate::hbone::frame::{
    ErrorCode, FRAME_LEN_DEFAULT, FRAME_LEN_MAX, HEADER_LEN, Header, PREFACE, STREAM_ID_MAX,
    WINDOW_MAX,
};
use crate::hbone::frozen::{Frozen, ResumeError, frozen};
use crate::hbone::hpack::{Decoder, Encoder};
use crate::hbone::limits::{Bucket, Debts, Limits};

/// Longer than any process lives, milliseconds.
const AGE_MS_MAX: u64 = 1 << 50;

frozen!(Bucket { left, filled_ms });
frozen!(Budgets { noise, resets, faults, abandoned, fields });
frozen!(Peer { initial_window, frame_max, streams_max, header_list_max });
frozen!(Going { announced, last, peer_last });
frozen!(Reset { code, due });
frozen!(Block { stream, end_stream, pieces, bytes });
frozen!(Streams { list });
#[rustfmt::skip]
frozen!(Stream {
    id, send_window, granted, held, target, proven, update, granted_ms, deficit, small_run, parked,
    reset, mark,
});
#[rustfmt::skip]
frozen!(Marks {
    answered, local_end, end_due, remote_end, released, counted_out, listed, queued,
    window_blocked, turn, lost_due, kept_up,
});
#[rustfmt::skip]
frozen!(Reading {
    at, head, head_len, header, left, skip, padded, wanted, collected, block, first,
});
#[rustfmt::skip]
frozen!(Writing {
    queue, settings_acks, pongs, ask_due, leave_due, window_due, stray, listed, goaway_due,
});

impl Connection {
    /// Appends all but the limits and the account, which another process has its own of. `None` if
    /// it has ended: there is nothing to go on with.
    pub(in crate::hbone) fn freeze(&self, now: Instant, out: &mut Vec<u8>) -> Option<()> {
        // Named one by one, so that none is forgotten.
        let Self {
            role,
            limits: _,
            debts: _,
            streams,
            open,
            last_peer,
            next_own,
            peer,
            going,
            send_window,
            receive_window,
            reading,
            writing,
            decoder,
            encoder,
            turns,
            recent,
            lost_due,
            budgets,
            explained,
            explaining,
            settings_acked,
            heard_ms,
            widened_ms,
            asked_ms,
            ended,
            born: _,
            earlier_ms: _,
        } = self;
        if ended.is_some() {
            return None;
        }
        (*role == Role::Server).freeze(out);
        streams.freeze(out);
        for number in [open, last_peer, next_own, send_window, receive_window] {
            number.freeze(out);
        }
        peer.freeze(out);
        going.freeze(out);
        reading.freeze(out);
        writing.freeze(out);
        decoder.save(out);
        encoder.save(out);
        turns.freeze(out);
        recent.freeze(out);
        budgets.freeze(out);
        for number in [lost_due, explained, explaining] {
            number.freeze(out);
        }
        settings_acked.freeze(out);
        for time_ms in [*heard_ms, *widened_ms, self.ms(now)] {
            time_ms.freeze(out);
        }
        asked_ms.freeze(out);
        Some(())
    }

    /// A connection that goes on where [`Connection::freeze`] left off; what its streams owe is
    /// charged to `debts`.
    pub(in crate::hbone) fn thaw(
        input: &mut &[u8],
        limits: Limits,
        debts: Debts,
        now: Instant,
    ) -> Result<Self, ResumeError> {
        let role = if bool::thaw(input)? { Role::Server } else { Role::Client };
        // Made first, so that it gives back what is charged if the rest is refused.
        let mut connection = Self::new(role, limits, debts, now);
        let streams = Streams::thaw(input)?;
        if !streams.iter().all(is_sound) || !streams.is_sorted() {
            return Err(ResumeError::Malformed);
        }
        for stream in streams.iter() {
            connection.debts.charge(stream.debt());
        }
        connection.streams = streams;
        connection.open = u32::thaw(input)?;
        connection.last_peer = u32::thaw(input)?;
        connection.next_own = u32::thaw(input)?;
        connection.send_window = u32::thaw(input)?;
        connection.receive_window = u32::thaw(input)?;
        connection.peer = Peer::thaw(input)?;
        connection.going = Going::thaw(input)?;
        connection.reading = Reading::thaw(input)?;
        connection.writing = Writing::thaw(input)?;
        connection.decoder = Decoder::restore(input).map_err(|_| ResumeError::Malformed)?;
        connection.encoder = Encoder::restore(input).map_err(|_| ResumeError::Malformed)?;
        connection.turns = Frozen::thaw(input)?;
        connection.recent = Frozen::thaw(input)?;
        connection.budgets = Budgets::thaw(input)?;
        connection.lost_due = u32::thaw(input)?;
        connection.explained = u32::thaw(input)?;
        connection.explaining = u32::thaw(input)?;
        connection.settings_acked = bool::thaw(input)?;
        connection.heard_ms = u64::thaw(input)?;
        connection.widened_ms = u64::thaw(input)?;
        connection.earlier_ms = u64::thaw(input)?;
        connection.asked_ms = Frozen::thaw(input)?;
        if connection.is_sound() { Ok(connection) } else { Err(ResumeError::Malformed) }
    }

    /// Whether what is counted is there, and no sum of it is too large.
    fn is_sound(&self) -> bool {
        let count = |of: fn(&Stream) -> bool| self.streams.iter().filter(|s| of(s)).count();
        let windows = [self.send_window, self.receive_window, self.writing.window_due];
        let times = [self.heard_ms, self.widened_ms, self.earlier_ms, self.asked_ms.unwrap_or(0)];
        let reading = &self.reading;
        let head_max = if reading.at == At::Preface { PREFACE.len() } else { HEADER_LEN };
        self.open as usize == count(|stream| !stream.mark.counted_out)
            && self.lost_due as usize == count(|stream| stream.mark.lost_due)
            && self.last_peer <= STREAM_ID_MAX
            && self.next_own % 2 == 1
            && self.next_own <= STREAM_ID_MAX + 2
            && windows.iter().all(|window| *window <= WINDOW_MAX)
            && times.iter().all(|time_ms| *time_ms <= AGE_MS_MAX)
            && (FRAME_LEN_DEFAULT..=FRAME_LEN_MAX).contains(&self.peer.frame_max)
            && usize::from(reading.head_len) < head_max
            && reading.left <= FRAME_LEN_MAX
            && reading.skip <= FRAME_LEN_MAX
            && reading.collected.len() <= FRAME_LEN_MAX as usize
    }
}

fn is_sound(stream: &Stream) -> bool {
    let parked = stream.parked.as_ref().map_or(0, |parked| parked.as_slice().len());
    stream.granted <= WINDOW_MAX
        && stream.held <= WINDOW_MAX
        && stream.update <= WINDOW_MAX
        && stream.target <= WINDOW_MAX
        && parked <= stream.held as usize
        && stream.granted_ms <= AGE_MS_MAX
}

impl Frozen for ErrorCode {
    fn freeze(&self, out: &mut Vec<u8>) {
        u32::from(*self).freeze(out);
    }

    fn thaw(input: &mut &[u8]) -> Result<Self, ResumeError> {
        Ok(Self::from(u32::thaw(input)?))
    }
}

impl Frozen for Header {
    fn freeze(&self, out: &mut Vec<u8>) {
        self.emit().freeze(out);
    }

    fn thaw(input: &mut &[u8]) -> Result<Self, ResumeError> {
        Ok(Self::parse(<[u8; HEADER_LEN]>::thaw(input)?))
    }
}

impl Frozen for At {
    fn freeze(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }

    fn thaw(input: &mut &[u8]) -> Result<Self, ResumeError> {
        let all = [Self::Preface, Self::Header, Self::Payload, Self::Data, Self::Skip];
        all.get(usize::from(u8::thaw(input)?)).copied().ok_or(ResumeError::Malformed)
    }
}

impl Frozen for Box<Parked> {
    fn freeze(&self, out: &mut Vec<u8>) {
        self.as_slice().to_vec().freeze(out);
    }

    fn thaw(input: &mut &[u8]) -> Result<Self, ResumeError> {
        let mut parked = Self::default();
        parked.push(&Vec::<u8>::thaw(input)?);
        Ok(parked)
    }
}
