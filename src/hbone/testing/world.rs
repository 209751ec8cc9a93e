//! Two engines, the wire between them and an application at each end of each stream.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Offer, SUITES, key_pair};
use crate::hbone::Engine;
use crate::hbone::error::Error;
use crate::hbone::frame::ErrorCode;
use crate::hbone::http2::{Event, Room};
use crate::hbone::limits::{Account, Debts, Limits};
use crate::sys::clock::Clock;

pub(in crate::hbone) const LIMITS: Limits = Limits {
    streams_max: 20,
    stream_window_max: 1 << 20,
    frame_max: 1 << 20,
    header_list_max: 16 * 1024,
    records_max: 1 << 24,
    ping_interval_ms: 10_000,
    ping_timeout_ms: 20_000,
};

/// An account that can be looked at.
#[derive(Debug)]
pub(in crate::hbone) struct Ledger {
    pub(in crate::hbone) owed: Cell<u64>,
    pub(in crate::hbone) limit: Cell<u64>,
    pub(in crate::hbone) peak: Cell<u64>,
}

impl Ledger {
    pub(in crate::hbone) fn new(limit: u64) -> Rc<Self> {
        Rc::new(Self { owed: Cell::new(0), limit: Cell::new(limit), peak: Cell::new(0) })
    }
}

impl Account for Ledger {
    fn charge(&self, bytes: u32) {
        self.owed.set(self.owed.get() + u64::from(bytes));
        self.peak.set(self.peak.get().max(self.owed.get()));
    }

    fn room(&self) -> u64 {
        self.limit.get().saturating_sub(self.owed.get())
    }

    fn release(&self, bytes: u32) {
        let left = self.owed.get().checked_sub(u64::from(bytes));
        self.owed.set(left.expect("no more is released than was charged"));
    }
}

/// What an application knows of its stream.
#[derive(Debug, Default)]
pub(in crate::hbone) struct App {
    pub(in crate::hbone) sent: Vec<u8>,
    pub(in crate::hbone) received: Vec<u8>,
    pub(in crate::hbone) finished: bool,
    pub(in crate::hbone) ended: bool,
    pub(in crate::hbone) reset: Option<ErrorCode>,
    pub(in crate::hbone) status: Option<u16>,
}

/// One engine with its driver.
pub(in crate::hbone) struct End {
    pub(in crate::hbone) engine: Engine,
    pub(in crate::hbone) ledger: Rc<Ledger>,
    pub(in crate::hbone) apps: BTreeMap<u32, App>,
    pub(in crate::hbone) requests: Vec<u32>,
    pub(in crate::hbone) batch: Vec<u8>,
    pub(in crate::hbone) error: Option<Error>,
    pub(in crate::hbone) goaway: Option<ErrorCode>,
}

/// Both ends, what is on its way to each, and the time.
pub(in crate::hbone) struct World {
    pub(in crate::hbone) ends: [End; 2],
    pub(in crate::hbone) wires: [Vec<u8>; 2],
    pub(in crate::hbone) now: Instant,
}

impl End {
    pub(in crate::hbone) fn new(engine: impl FnOnce(Debts) -> Engine, limit: u64) -> Self {
        let ledger = Ledger::new(limit);
        Self {
            engine: engine(Rc::clone(&ledger) as Debts),
            ledger,
            apps: BTreeMap::new(),
            requests: Vec::new(),
            batch: vec![0; 64 * 1024],
            error: None,
            goaway: None,
        }
    }

    /// Goes on in another process: with nothing but the bytes of its state.
    pub(in crate::hbone) fn move_over(&mut self, limits: Limits, now: Instant) {
        let state = self.engine.freeze(now).expect("it is not over");
        let owed = self.ledger.owed.get();
        self.ledger = Ledger::new(self.ledger.limit.get());
        let debts = Rc::clone(&self.ledger) as Debts;
        let resumed = Engine::resume(&state, limits, debts, now).expect("a state of ours");
        assert_eq!(resumed.freeze(now), Some(state), "nothing is lost on the way");
        assert_eq!(self.ledger.owed.get(), owed, "what is owed goes with it");
        self.engine = resumed;
    }

    /// Reads what arrived. Each application takes what `takes` says of the bytes it is given.
    pub(in crate::hbone) fn read(
        &mut self,
        arrived: &[u8],
        now: Instant,
        mut takes: impl FnMut(u32, usize) -> usize,
    ) {
        let mut buffer = vec![0; 512 * 1024];
        let kept = self.engine.begin(&mut buffer);
        buffer[kept..kept + arrived.len()].copy_from_slice(arrived);
        let mut input = self.engine.receive(&mut buffer[..kept + arrived.len()]);
        loop {
            match self.engine.next(&mut input, now) {
                Ok(Some(Event::Data { stream, bytes })) => {
                    let count = takes(stream, bytes.len()).min(bytes.len());
                    let app = self.apps.get_mut(&stream).expect("a stream that was announced");
                    app.received.extend_from_slice(&bytes[..count]);
                    self.engine.http_mut().park(stream, &bytes[count..]);
                    self.engine.http_mut().taken(stream, count, now);
                }
                Ok(Some(event)) => self.note(event),
                Ok(None) => return,
                Err(error) => {
                    self.error.get_or_insert(error);
                    return;
                }
            }
        }
    }

    fn note(&mut self, event: Event<'_>) {
        match event {
            Event::Request { stream, fields, ended, .. } => {
                assert_eq!(fields.get(b":method"), Some(&b"CONNECT"[..]));
                self.requests.push(stream);
                self.apps.insert(stream, App { ended, ..App::default() });
            }
            Event::Response { stream, status, ended, .. } => {
                let app = self.app(stream);
                (app.status, app.ended) = (Some(status), ended);
            }
            Event::End { stream } => self.app(stream).ended = true,
            Event::Reset { stream, code, .. } => self.app(stream).reset = Some(code),
            Event::GoAway { code } => self.goaway = Some(code),
            Event::Data { .. } => unreachable!("handled where it arrives"),
        }
    }

    pub(in crate::hbone) fn app(&mut self, stream: u32) -> &mut App {
        self.apps.get_mut(&stream).expect("a stream that was announced")
    }

    /// The application takes up to `most` of what is parked.
    pub(in crate::hbone) fn take(&mut self, stream: u32, most: usize, now: Instant) {
        let http = self.engine.http_mut();
        let count = http.parked(stream).len().min(most);
        let bytes = http.parked(stream)[..count].to_vec();
        http.taken_parked(stream, count, now);
        self.app(stream).received.extend_from_slice(&bytes);
    }

    /// One turn of a stream: reads up to `bytes` of the application and seals them.
    pub(in crate::hbone) fn send(&mut self, stream: u32, bytes: &[u8]) -> (usize, Vec<u8>) {
        let mut batch = std::mem::take(&mut self.batch);
        let plan = self.engine.plan(stream, &mut batch).expect("it can be sealed");
        let mut rest = bytes;
        for slot in plan.slots(&mut batch) {
            let count = slot.len().min(rest.len());
            slot[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
        }
        let count = if let Room::Bytes(_) = plan.room() { bytes.len() - rest.len() } else { 0 };
        let len = self.engine.seal(plan, &mut batch, count).expect("it can be sealed");
        let wire = batch[..len].to_vec();
        self.batch = batch;
        self.app(stream).sent.extend_from_slice(&bytes[..count]);
        (count, wire)
    }

    pub(in crate::hbone) fn flush(&mut self) -> Vec<u8> {
        let mut batch = std::mem::take(&mut self.batch);
        let len = self.engine.flush(&mut batch).expect("it can be sealed");
        let wire = batch[..len].to_vec();
        self.batch = batch;
        wire
    }
}

impl World {
    /// Client first.
    pub(in crate::hbone) fn new(limits: Limits) -> Self {
        Self::over(SUITES[1], limits)
    }

    pub(in crate::hbone) fn over(offer: impl Into<Offer>, limits: Limits) -> Self {
        let (client, server) = key_pair(offer);
        let now = Clock::system().monotonic();
        let end = |keys| {
            let engine = |debts| Engine::new(keys, limits, debts, now).expect("the keys are good");
            End::new(engine, u64::MAX)
        };
        Self { ends: [end(client), end(server)], wires: [Vec::new(), Vec::new()], now }
    }

    pub(in crate::hbone) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Opens a stream at the client.
    pub(in crate::hbone) fn open(&mut self) -> u32 {
        let fields = [("baggage", "k8s.namespace.name=ns")];
        let opened = self.ends[0].engine.http_mut().open("10.0.0.1:80", fields, self.now);
        let stream = opened.expect("there is room");
        self.ends[0].apps.insert(stream, App::default());
        stream
    }

    /// Everything that is due goes over the wire, whole, until nothing is.
    pub(in crate::hbone) fn settle(&mut self) {
        for _ in 0..1_000 {
            let mut moved = false;
            for at in 0..2 {
                let wire = self.ends[at].flush();
                moved |= !wire.is_empty();
                self.wires[1 - at].extend(wire);
                let arrived = std::mem::take(&mut self.wires[at]);
                moved |= !arrived.is_empty();
                if !arrived.is_empty() && self.ends[at].error.is_none() {
                    self.ends[at].read(&arrived, self.now, |_, _| usize::MAX);
                }
            }
            if !moved {
                return;
            }
        }
        panic!("the two ends never come to rest");
    }

    /// Opens a stream that both ends agree on.
    pub(in crate::hbone) fn connect(&mut self) -> u32 {
        let stream = self.open();
        self.settle();
        assert!(self.ends[1].engine.http_mut().respond(stream, 200, [], false));
        self.settle();
        assert_eq!(self.ends[0].app(stream).status, Some(200));
        stream
    }

    /// Sends bytes from one end, whole, as far as the windows let it.
    pub(in crate::hbone) fn send(&mut self, from: usize, stream: u32, mut bytes: &[u8]) -> usize {
        let all = bytes.len();
        loop {
            let (count, wire) = self.ends[from].send(stream, bytes);
            self.wires[1 - from].extend(wire);
            bytes = &bytes[count..];
            if bytes.is_empty() {
                return all;
            }
            self.settle();
            if count == 0 && self.ends[from].engine.http_mut().next_turn().is_none() {
                return all - bytes.len();
            }
        }
    }
}
