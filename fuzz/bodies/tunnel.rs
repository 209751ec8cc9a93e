//! A whole tunnel, whose peer, socket, applications and clock do what the input says.

use std::rc::Rc;
use std::time::{Duration, Instant};

use adit::hbone::frame::{ErrorCode, FRAME_LEN_MAX, Frame, HEADER_LEN, Header, PREFACE, parse};
use adit::hbone::http2::{Event, Room};
use adit::hbone::limits::Debts;
use adit::hbone::record::{Opened, Opener, RecordError, record_len};
use adit::hbone::{Engine, Role};

use super::parts::{LIMITS, Ledger, Peer, Script, direction, engine, now, other};

const APPLICATION_DATA: u8 = 23;
const HANDSHAKE: u8 = 22;
const UPDATES_MAX: u64 = 16;

/// One end, and everything around it.
struct World {
    engine: Engine,
    ledger: Rc<Ledger>,
    peer: Peer,
    now: Instant,
    /// From the peer, not yet read.
    arriving: Vec<u8>,
    /// What it has said, as the peer reads it.
    heard: Heard,
    streams: Vec<u32>,
    batch: Vec<u8>,
    over: bool,
}

/// The other end's view of what it is sent.
struct Heard {
    opener: Opener,
    role: Role,
    wire: Vec<u8>,
    plain: Vec<u8>,
    greeted: bool,
}

/// Nothing panics, no debt stays, what is kept is bounded, and what the tunnel says is well sealed
/// and well formed, to its last words.
pub(super) fn run(input: &[u8]) {
    let mut script = Script(input);
    let role = if script.byte().is_multiple_of(2) { Role::Client } else { Role::Server };
    let mut world = World::new(role, usize::from(script.byte() % 4));
    while !script.is_over() && !world.over {
        world.step(&mut script);
        for &stream in &world.streams {
            let kept = world.engine.http().parked(stream).len();
            assert!(kept <= LIMITS.stream_window_max as usize, "{kept} bytes are kept");
        }
        assert!(world.ledger.0.get() <= 8 << 20, "{} bytes are owed", world.ledger.0.get());
    }
    world.leaves(usize::MAX);
    world.engine.fail(adit::hbone::error::Error::Over);
    for _ in 0..1_000 {
        if world.engine.is_finished() || !world.engine.wants_flush() {
            break;
        }
        world.flush();
        world.leaves(usize::MAX);
    }
    assert!(world.engine.is_finished(), "it ends");
    drop(world.engine);
    assert_eq!(world.ledger.0.get(), 0, "no debt is left behind");
}

impl World {
    fn new(role: Role, size: usize) -> Self {
        let ledger = Rc::new(Ledger::default());
        let opener = Opener::new(direction(role), other(role)).expect("the keys are good");
        let (wire, plain) = (Vec::new(), Vec::new());
        Self {
            engine: engine(role, &ledger),
            ledger,
            peer: Peer::new(other(role)),
            now: now(),
            arriving: Vec::new(),
            heard: Heard { opener, role: other(role), wire, plain, greeted: role == Role::Server },
            streams: Vec::new(),
            batch: vec![0; [200, 1_000, 17_000, 40_000][size]],
            over: false,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let (what, which) = (script.byte(), usize::from(script.byte()));
        let stream = self.streams.get(which % self.streams.len().max(1)).copied().unwrap_or(1);
        let now = self.now;
        let http = self.engine.http_mut();
        match what % 17 {
            0 => {
                let greeting: &[u8] = if http.role() == Role::Server { PREFACE } else { b"" };
                let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
                let content = [greeting, &settings].concat();
                self.peer.seal(&content, APPLICATION_DATA, 0, &mut self.arriving);
            }
            1 | 2 => {
                let content = script.piece(if what % 17 == 1 { which } else { which << 5 });
                self.peer.seal(content, APPLICATION_DATA, 0, &mut self.arriving);
            }
            // Who asks for more is answered more often than it may be by others.
            3 if self.peer.generation() < UPDATES_MAX => {
                let update = [24, 0, 0, 1, u8::from(which.is_multiple_of(2))];
                self.peer.seal(&update, HANDSHAKE, 0, &mut self.arriving);
                self.peer.update();
            }
            3 | 4 => {
                let content = script.piece(which);
                self.peer.seal(content, HANDSHAKE, 0, &mut self.arriving);
            }
            5 => self.arriving.extend_from_slice(script.piece(which)),
            6 | 7 => self.arrives(if what % 17 == 6 { which } else { usize::MAX }, script),
            8 => {
                if let Ok(opened) = http.open("10.0.0.1:80", [("a", "b")], now) {
                    self.streams.push(opened);
                }
            }
            9 => drop(http.respond(stream, [200, 401, 503][which % 3], [], which % 3 > 0)),
            10 => self.sends(stream, script.size(), script.byte()),
            11 => {
                let count = http.parked(stream).len().min(which << 8);
                http.taken_parked(stream, count, now);
            }
            12 => http.finish(stream),
            13 => match which % 3 {
                0 => http.reset(stream, ErrorCode::ConnectError),
                1 => {
                    http.release(stream, now);
                    self.streams.retain(|other| *other != stream);
                }
                _ => http.close(),
            },
            14 => {
                self.now += Duration::from_millis(which as u64 * 50);
                self.over |= self.engine.tick(self.now).is_err();
            }
            16 => self.moves_over(script.piece(which)),
            _ => {
                self.flush();
                self.leaves(if which == 0 { usize::MAX } else { which << 4 });
            }
        }
    }

    /// Goes on in another process, or does not with a state that was bent.
    fn moves_over(&mut self, bends: &[u8]) {
        let Some(state) = self.engine.freeze(self.now) else { return };
        let resume = |state: &[u8], ledger: &Rc<Ledger>| {
            let debts: Debts = Rc::<Ledger>::clone(ledger);
            Engine::resume(state, LIMITS, debts, self.now)
        };
        let ledger = Rc::new(Ledger::default());
        if let [at, by, ..] = *bends {
            let mut bent = state.to_vec();
            let at = usize::from(at) * bent.len() / 256;
            bent[at] ^= by;
            drop(resume(&bent, &ledger));
            assert_eq!(ledger.0.get(), 0, "no debt is left behind");
        }
        let resumed = resume(&state, &ledger).expect("a state of ours");
        assert_eq!(ledger.0.get(), self.ledger.0.get(), "what is owed goes with it");
        (self.engine, self.ledger) = (resumed, ledger);
    }

    fn arrives(&mut self, count: usize, script: &mut Script<'_>) {
        let mut buffer = vec![0; 256 * 1024];
        let kept = self.engine.begin(&mut buffer);
        let count = count.min(self.arriving.len()).min(buffer.len() - kept);
        buffer[kept..kept + count].copy_from_slice(&self.arriving[..count]);
        self.arriving.drain(..count);
        let mut input = self.engine.receive(&mut buffer[..kept + count]);
        loop {
            match self.engine.next(&mut input, self.now) {
                Ok(Some(Event::Data { stream, bytes })) => {
                    assert!(!bytes.is_empty());
                    let count = bytes.len() * usize::from(script.byte() % 3) / 2;
                    self.engine.http_mut().park(stream, &bytes[count..]);
                    self.engine.http_mut().taken(stream, count, self.now);
                }
                Ok(Some(Event::Request { stream, .. })) => self.streams.push(stream),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    self.over = true;
                    break;
                }
            }
        }
        while self.engine.http_mut().next_turn().is_some() {}
    }

    fn sends(&mut self, stream: u32, most: usize, takes: u8) {
        let mut batch = std::mem::take(&mut self.batch);
        let plan = self.engine.plan(stream, &mut batch).expect("it can be sealed");
        let mut count = 0;
        for slot in plan.slots(&mut batch) {
            let piece = slot.len().min(most - count);
            slot[..piece].fill(b'x');
            count += piece;
        }
        if !matches!(plan.room(), Room::Bytes(_)) {
            count = 0;
        }
        let len = self.engine.seal(plan, &mut batch, count).expect("it can be sealed");
        let taken = len * usize::from(takes) / 255;
        self.heard.hear(&batch[..taken]);
        self.engine.keep_unsent(&batch[taken..len]);
        self.batch = batch;
    }

    fn flush(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        let len = self.engine.flush(&mut batch).expect("it can be sealed");
        self.engine.keep_unsent(&batch[..len]);
        self.batch = batch;
    }

    fn leaves(&mut self, most: usize) {
        let unsent = self.engine.unsent();
        let count = unsent.len().min(most);
        self.heard.hear(&unsent[..count]);
        self.engine.sent(count);
    }
}

impl Heard {
    fn hear(&mut self, wire: &[u8]) {
        self.wire.extend_from_slice(wire);
        while let Some(len) = record_len(&self.wire).expect("a record") {
            if len > self.wire.len() {
                break;
            }
            let mut record: Vec<u8> = self.wire.drain(..len).collect();
            match self.opener.open(&mut record) {
                Ok(Opened::Data(bytes)) => self.plain.extend_from_slice(bytes),
                Ok(Opened::Nothing | Opened::UpdateAsked | Opened::Closed) => {}
                // Its last words to a peer that broke the rules.
                Err(RecordError::AlertReceived(_)) => {}
                Err(error) => panic!("it was not sealed well: {error}"),
            }
        }
        if !self.greeted {
            if self.plain.len() < PREFACE.len() {
                return;
            }
            assert_eq!(self.plain.drain(..PREFACE.len()).collect::<Vec<u8>>(), PREFACE);
            self.greeted = true;
        }
        while let Some(head) = self.plain.first_chunk::<HEADER_LEN>() {
            let header = Header::parse(*head);
            let len = HEADER_LEN + header.len as usize;
            if self.plain.len() < len {
                break;
            }
            header.check(FRAME_LEN_MAX).expect("its frames are well formed");
            let frame = parse(header, &self.plain[HEADER_LEN..len], self.role);
            let frame = frame.expect("its frames are well formed");
            let empty = matches!(frame, Frame::Data { .. }) && header.len == 0;
            assert!(!empty || header.flags & 1 == 1, "no empty DATA that ends nothing");
            self.plain.drain(..len);
        }
    }
}
