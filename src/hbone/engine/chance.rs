//! Random schedules: every read and write split, pauses, resets, key updates, hand-overs.

use std::time::Duration;

use fastrand::Rng;

use crate::hbone::frame::ErrorCode;
use crate::hbone::limits::Limits;
use crate::hbone::testing::world::{End, LIMITS, World};
use crate::hbone::testing::{Offer, SUITES, sealer};

const SEEDS: u64 = 60;
const STEPS: usize = 1_500;
const APP_BYTES_MAX: usize = 150_000;

struct Play {
    world: World,
    rng: Rng,
    limits: Limits,
    /// Whether applications may be reset, and tunnels frozen, in this play.
    rough: bool,
    /// Whether the record layer is ours: there are no new keys, and no freezing, without.
    own: bool,
}

#[test]
fn nothing_is_lost_or_changed_in_any_schedule() {
    for seed in 0..SEEDS {
        let mut rng = Rng::with_seed(seed);
        let own = rng.usize(..4) > 0;
        let records_max = if own { [7, 50, 1 << 24][rng.usize(..3)] } else { 1 << 24 };
        let limits = Limits { records_max, stream_window_max: 200_000, ..LIMITS };
        let rough = rng.bool();
        let offer = if own { Offer::Tls13(SUITES[1]) } else { Offer::Tls12 };
        let mut play = Play { world: World::over(offer, limits), rng, limits, rough, own };
        println!("seed {seed}");
        for end in &mut play.world.ends {
            end.batch = vec![0; [160, 1_000, 17_000, 40_000, 262_144][play.rng.usize(..5)]];
        }
        for _ in 0..STEPS {
            play.step();
        }
        play.finish();
    }
}

impl Play {
    fn step(&mut self) {
        let at = self.rng.usize(..2);
        match self.rng.u32(..100) {
            0..4 => self.open(),
            4..12 => self.answer(),
            12..40 => self.application_sends(at),
            40..44 => self.application_finishes(at),
            44..45 if self.rough => self.application_resets(at),
            45..60 => self.application_takes(at),
            60..80 => self.arrives(at),
            80..90 => self.leaves(at),
            90..92 => self.world.pass(Duration::from_millis(self.rng.u64(..700))),
            92..93 if self.own => sealer(&mut self.world.ends[at].engine).ask_update(),
            93..95 if self.own && self.rough => {
                self.world.ends[at].move_over(self.limits, self.world.now)
            }
            _ => self.flush(at),
        }
        assert_eq!(self.world.ends.each_ref().map(|end| end.error), [None; 2]);
    }

    fn some(&mut self, at: usize) -> Option<u32> {
        let streams: Vec<u32> = self.world.ends[at].apps.keys().copied().collect();
        self.rng.choice(streams)
    }

    fn open(&mut self) {
        if self.world.ends[0].engine.http().can_open().is_ok() {
            self.world.open();
        }
    }

    fn answer(&mut self) {
        let requests = std::mem::take(&mut self.world.ends[1].requests);
        for stream in requests {
            let refuse = self.rng.u32(..10) == 0;
            let status = if refuse { 503 } else { 200 };
            self.world.ends[1].engine.http_mut().respond(stream, status, [], refuse);
            if refuse {
                self.world.ends[1].app(stream).reset.get_or_insert(ErrorCode::NoError);
            }
        }
    }

    fn application_sends(&mut self, at: usize) {
        let Some(stream) = self.some(at) else { return };
        let app = self.world.ends[at].app(stream);
        if app.finished || app.sent.len() > APP_BYTES_MAX {
            return;
        }
        let from = app.sent.len();
        let most = [20, 2_000, 60_000][self.rng.usize(..3)];
        let len = self.rng.usize(..most);
        let bytes: Vec<u8> = (from..from + len).map(|n| byte(at, stream, n)).collect();
        let (_, wire) = self.world.ends[at].send(stream, &bytes);
        self.transmit(at, &wire);
        while self.rng.bool() && self.world.ends[at].engine.http_mut().next_turn().is_some() {}
    }

    fn application_finishes(&mut self, at: usize) {
        let Some(stream) = self.some(at) else { return };
        let end = &mut self.world.ends[at];
        let answered = at == 0 || !end.requests.contains(&stream);
        if answered && !end.app(stream).finished {
            end.app(stream).finished = true;
            end.engine.http_mut().finish(stream);
        }
    }

    fn application_resets(&mut self, at: usize) {
        let Some(stream) = self.some(at) else { return };
        let end = &mut self.world.ends[at];
        end.engine.http_mut().reset(stream, ErrorCode::ConnectError);
        end.app(stream).reset.get_or_insert(ErrorCode::ConnectError);
    }

    fn application_takes(&mut self, at: usize) {
        let Some(stream) = self.some(at) else { return };
        let most = self.rng.usize(..50_000);
        self.world.ends[at].take(stream, most, self.world.now);
    }

    fn arrives(&mut self, at: usize) {
        let len = self.world.wires[at].len();
        let count =
            if self.rng.bool() { self.rng.usize(..=len.min(40)) } else { self.rng.usize(..=len) };
        let bytes: Vec<u8> = self.world.wires[at].drain(..count).collect();
        let mut appetite = self.rng.fork();
        self.world.ends[at].read(&bytes, self.world.now, |_, len| match appetite.u32(..3) {
            0 => len,
            1 => appetite.usize(..=len),
            _ => 0,
        });
        while self.world.ends[at].engine.http_mut().next_turn().is_some() {}
    }

    /// The socket takes some of what waits for it.
    fn leaves(&mut self, at: usize) {
        let end = &mut self.world.ends[at];
        let unsent = end.engine.unsent();
        let count = self.rng.usize(..=unsent.len());
        self.world.wires[1 - at].extend_from_slice(&unsent[..count]);
        end.engine.sent(count);
        if end.engine.unsent().is_empty() {
            while end.engine.http_mut().next_turn().is_some() {}
        }
    }

    fn flush(&mut self, at: usize) {
        let wire = self.world.ends[at].flush();
        self.transmit(at, &wire);
    }

    fn transmit(&mut self, at: usize, wire: &[u8]) {
        let count = if self.rng.bool() { wire.len() } else { self.rng.usize(..=wire.len()) };
        self.world.wires[1 - at].extend_from_slice(&wire[..count]);
        self.world.ends[at].engine.keep_unsent(&wire[count..]);
    }

    /// Everybody finishes, takes everything, and compares.
    fn finish(mut self) {
        self.answer();
        for round in 0..200 {
            for at in 0..2 {
                let unsent = self.world.ends[at].engine.unsent().to_vec();
                self.world.wires[1 - at].extend(&unsent);
                self.world.ends[at].engine.sent(unsent.len());
                let wire = self.world.ends[at].flush();
                self.world.wires[1 - at].extend(wire);
                let arrived = std::mem::take(&mut self.world.wires[at]);
                self.world.ends[at].read(&arrived, self.world.now, |_, len| len);
                self.answer();
                let streams: Vec<u32> = self.world.ends[at].apps.keys().copied().collect();
                for stream in streams {
                    self.world.ends[at].take(stream, usize::MAX, self.world.now);
                    let app = self.world.ends[at].app(stream);
                    if !app.finished && round > 2 {
                        app.finished = true;
                        self.world.ends[at].engine.http_mut().finish(stream);
                    }
                }
            }
        }
        let [client, server] = &mut self.world.ends;
        assert_eq!((client.error, server.error), (None, None));
        for (stream, theirs) in &server.apps {
            let ours = &client.apps[stream];
            compare(*stream, &ours.sent, &theirs.received, ours.reset.or(theirs.reset).is_none());
            compare(*stream, &theirs.sent, &ours.received, ours.reset.or(theirs.reset).is_none());
            let over =
                (ours.ended || ours.reset.is_some()) && (theirs.ended || theirs.reset.is_some());
            assert!(over, "stream {stream} ends on both sides: {ours:?} {theirs:?}");
        }
        for (stream, app) in &client.apps {
            assert!(server.apps.contains_key(stream), "stream {stream}: {app:?}");
        }
        for end in &mut self.world.ends {
            release_all(end, self.world.now);
        }
    }
}

/// Which byte an application sends at a place of its stream.
fn byte(at: usize, stream: u32, n: usize) -> u8 {
    u8::try_from((n + n / 251 + at * 7 + stream as usize * 13) % 251).unwrap_or(0)
}

fn compare(stream: u32, sent: &[u8], received: &[u8], whole: bool) {
    assert!(sent.starts_with(received), "stream {stream}: what arrives is what was sent");
    assert!(!whole || sent.len() == received.len(), "stream {stream}: all of it arrives");
}

fn release_all(end: &mut End, now: std::time::Instant) {
    let streams: Vec<u32> = end.apps.keys().copied().collect();
    for stream in streams {
        end.engine.http_mut().release(stream, now);
    }
    end.flush();
    assert_eq!((end.engine.http().open_streams(), end.ledger.owed.get()), (0, 0));
}
