//! HTTP/2 for CONNECT and nothing else, both roles, plaintext in and out (RFC 9113, spec hbone 4).
//!
//! [`Connection::read`] walks over what the peer sent and hands out [`Event`]s whose bytes stay
//! where they are. What we owe the peer is kept as flags, and [`Connection::write`] turns them into
//! frames when there is room; so reading never waits for writing, and what waits is bounded. DATA
//! is not written here: [`Connection::room`] says how much a stream may send, and
//! [`Connection::sent`] that it did.

mod credit;
mod fields;
mod frozen;
mod handle;
mod open;
mod over;
mod parked;
mod peer;
mod read;
mod stream;
mod turns;
mod write;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use fields::Fields;
pub use open::OpenError;
pub use turns::Room;

use super::Role;
use super::error::{Error, Violation};
use super::frame::{self, ErrorCode, STREAM_ID_MAX, Setting, WINDOW_DEFAULT, WINDOW_MAX};
use super::hpack::{Decoder, Encoder};
use super::limits::{
    ABANDONED, Bucket, Debts, FAULTS, FIELDS, FIRST_WINDOW, Limits, NOISE, RESETS,
};
use peer::{Going, Peer};
use read::Reading;
use stream::{Reset, Streams};
use write::Writing;

/// Streams that we reset and whose late frames are still recognised.
const RECENT_MAX: usize = 128;

/// One HTTP/2 connection.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    limits: Limits,
    debts: Debts,
    streams: Streams,
    /// Streams that the protocol is not done with.
    open: u32,
    /// The greatest stream of the peer.
    last_peer: u32,
    /// The next stream of ours.
    next_own: u32,
    peer: Peer,
    going: Going,
    /// What the peer lets us send on all streams together.
    send_window: u32,
    /// What it may send us on all streams together.
    receive_window: u32,
    reading: Reading,
    writing: Writing,
    decoder: Decoder,
    encoder: Encoder,
    /// Streams that wait for a turn to send.
    turns: VecDeque<u32>,
    /// Streams that we reset, the latest last.
    recent: VecDeque<u32>,
    /// Streams that the driver is still to be told of as not processed.
    lost_due: u32,
    budgets: Budgets,
    /// WINDOW_UPDATEs that the DATA we sent explains, and the bytes towards the next one.
    explained: u32,
    explaining: u32,
    settings_acked: bool,
    heard_ms: u64,
    /// When the peer last let us send more on the connection.
    widened_ms: u64,
    asked_ms: Option<u64>,
    ended: Option<Error>,
    born: Instant,
    /// Milliseconds that had passed at `born`, in other processes.
    earlier_ms: u64,
}

/// What a peer may do now and then, but not all the time.
#[derive(Debug)]
struct Budgets {
    noise: Bucket,
    resets: Bucket,
    faults: Bucket,
    abandoned: Bucket,
    fields: Bucket,
}

/// What has happened on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// As server: a request. To be answered with [`Connection::respond`].
    Request {
        /// The new stream.
        stream: u32,
        /// Pseudo-fields and fields.
        fields: Fields,
        /// The list was longer than we take, and is cut off.
        too_large: bool,
        /// It came with END_STREAM.
        ended: bool,
    },
    /// As client: the final response.
    Response {
        /// The stream of the request.
        stream: u32,
        /// The status.
        status: u16,
        /// Fields, `:status` included.
        fields: Fields,
        /// It came with END_STREAM.
        ended: bool,
    },
    /// Bytes for the application, where they arrived. All of them are to be said to be
    /// [`Connection::taken`] or [`Connection::park`]ed.
    Data {
        /// The stream.
        stream: u32,
        /// Never empty.
        bytes: &'a [u8],
    },
    /// The peer has finished its direction; what is parked comes first.
    End {
        /// The stream.
        stream: u32,
    },
    /// The stream is over in both directions; what is parked comes first.
    Reset {
        /// The stream.
        stream: u32,
        /// The code.
        code: ErrorCode,
        /// Who reset it.
        by: By,
    },
    /// The peer takes no more streams.
    GoAway {
        /// Why.
        code: ErrorCode,
    },
}

/// Who ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The peer.
    Peer,
    /// The peer, before it did anything with it: it may be tried elsewhere (RFC 9113 8.7).
    PeerUnprocessed,
    /// We, because the peer broke the rules on this stream.
    Us,
}

impl Connection {
    /// A new connection: the first thing it writes are the preface and SETTINGS.
    pub fn new(role: Role, limits: Limits, debts: Debts, now: Instant) -> Self {
        let mut connection = Self {
            role,
            limits,
            debts,
            streams: Streams::default(),
            open: 0,
            last_peer: 0,
            next_own: 1,
            peer: Peer::new(&limits),
            going: Going::default(),
            send_window: WINDOW_DEFAULT,
            receive_window: WINDOW_MAX,
            reading: Reading::new(role),
            writing: Writing::default(),
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            turns: VecDeque::new(),
            recent: VecDeque::new(),
            lost_due: 0,
            budgets: Budgets::full(),
            explained: 0,
            explaining: 0,
            settings_acked: false,
            heard_ms: 0,
            widened_ms: 0,
            asked_ms: None,
            ended: None,
            born: now,
            earlier_ms: 0,
        };
        connection.greet();
        connection
    }

    /// Queues what a connection begins with. The connection's window is opened at once, as wide
    /// as it can be: only those of streams bound what a peer may have us keep.
    fn greet(&mut self) {
        let mut queue = self.writing.queue();
        let (only_client, only_server) = match self.role {
            Role::Client => {
                queue.extend_from_slice(frame::PREFACE);
                (Some((Setting::EnablePush, 0)), None)
            }
            Role::Server => (None, Some((Setting::MaxConcurrentStreams, self.limits.streams_max))),
        };
        let common = [
            (Setting::HeaderTableSize, 0),
            (Setting::InitialWindowSize, FIRST_WINDOW),
            (Setting::MaxFrameSize, self.limits.frame_max),
            (Setting::MaxHeaderListSize, self.limits.header_list_max),
        ];
        let entries = common.into_iter().chain(only_client).chain(only_server);
        frame::settings(&entries.collect::<Vec<_>>(), &mut queue);
        queue.extend_from_slice(&frame::window_update(0, WINDOW_MAX - WINDOW_DEFAULT));
    }

    /// Which end we are.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Streams that the protocol is not done with.
    pub fn open_streams(&self) -> u32 {
        self.open
    }

    /// Why it ended, if it did.
    pub fn error(&self) -> Option<Error> {
        self.ended
    }

    /// Ends it. What the peer is told follows from the error; every stream is over.
    pub fn fail(&mut self, error: Error) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(error);
        self.writing.drop_all();
        if let Some(code) = error.code() {
            self.writing.goaway(self.last_peer, code);
        }
    }

    /// Whether no stream is left and none will come: the transport is to be closed.
    pub fn is_done(&self) -> bool {
        let last = self.going.is_final() || self.going.peer_is_leaving();
        self.ended.is_some() || (last && self.open == 0 && self.streams.len() == 0)
    }

    /// When [`Connection::tick`] is to be called next.
    pub fn next_deadline(&self) -> Instant {
        let quiet = match self.asked_ms {
            Some(asked_ms) => asked_ms + self.limits.ping_timeout_ms,
            None => self.heard_ms + self.limits.ping_interval_ms,
        };
        self.born + Duration::from_millis(quiet.saturating_sub(self.earlier_ms))
    }

    /// Looks at the time: asks a silent peer whether it lives, and ends with [`Error::Silent`]
    /// if it has not answered (spec hbone 4).
    pub fn tick(&mut self, now: Instant) -> Result<(), Error> {
        if self.ended.is_some() {
            return Err(Error::Over);
        }
        let now_ms = self.ms(now);
        match self.asked_ms {
            Some(asked_ms) if now_ms >= asked_ms + self.limits.ping_timeout_ms => {
                self.fail(Error::Silent);
                return Err(Error::Silent);
            }
            None if now_ms >= self.heard_ms + self.limits.ping_interval_ms => {
                self.asked_ms = Some(now_ms);
                self.writing.ask();
            }
            _ => {}
        }
        Ok(())
    }

    /// Begins to close. As server in two steps, so that no stream which the peer opens meanwhile
    /// is lost; as client at once, because servers open none. Open streams go on.
    pub fn close(&mut self) {
        if self.going.has_begun() {
            return;
        }
        match self.role {
            Role::Server => {
                self.going.announce();
                self.writing.goaway(STREAM_ID_MAX, ErrorCode::NoError);
                self.writing.ask_before_leaving();
            }
            Role::Client => {
                self.going.finish(0);
                self.writing.goaway(0, ErrorCode::NoError);
            }
        }
    }

    /// Milliseconds of this connection, other processes included.
    fn ms(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.born).as_millis();
        self.earlier_ms + u64::try_from(since).unwrap_or(u64::MAX / 2)
    }

    /// Ends a stream from our side; the peer is told.
    fn reset_stream(&mut self, id: u32, code: ErrorCode) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.is_closed() {
            return;
        }
        stream.reset = Some(Reset { code, due: true });
        stream.update = 0;
        stream.parked = None;
        stream.owe(&self.debts, |stream| stream.held = 0);
        self.writing.list(stream);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(id);
        self.settle(id);
    }

    /// Follows up after a change of a stream: debts of what will not come, the count of open
    /// streams, and the end of what nobody needs.
    fn settle(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if !stream.receives() {
            stream.owe(&self.debts, |stream| stream.granted = 0);
            stream.update = 0;
        }
        // Not before the peer is told: it counts, too, and must not see one stream too many.
        if stream.is_closed() && !stream.tells_its_end() && !stream.mark.counted_out {
            stream.mark.counted_out = true;
            self.open -= 1;
        }
        if stream.mark.released && stream.is_closed() && !stream.mark.listed {
            if stream.mark.lost_due {
                self.lost_due -= 1;
            }
            stream.owe(&self.debts, |stream| stream.held = 0);
            self.streams.remove(id);
        }
    }

    /// Whether frames of a stream that is not in the table come from before our reset of it, or
    /// belong to those that we do not serve any more.
    fn is_late(&self, id: u32) -> bool {
        self.recent.contains(&id) || self.going.ignores(id)
    }

    /// Whether nobody has opened this stream yet.
    fn is_idle(&self, id: u32) -> bool {
        let own = self.role == Role::Client;
        let odd = id % 2 == 1;
        if odd && own { id >= self.next_own } else { !odd || id > self.last_peer }
    }
}

impl Budgets {
    fn full() -> Self {
        Self {
            noise: Bucket::full(NOISE),
            resets: Bucket::full(RESETS),
            faults: Bucket::full(FAULTS),
            abandoned: Bucket::full(ABANDONED),
            fields: Bucket::full(FIELDS),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for stream in self.streams.iter() {
            self.debts.release(stream.debt());
        }
    }
}

#[cfg(test)]
mod tests;
