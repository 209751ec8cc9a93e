//! What the engine does per byte and per message, to be counted in instructions: those are the same
//! each time, whatever else the machine does.
//!
//! `cargo bench --bench instructions -- NAME` runs one loop; `.ci/instructions` runs each under
//! callgrind and compares with `benches/instructions.txt`.

mod pki;
mod tls12;

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use adit::hbone::handshake::Keys;
use adit::hbone::http2::Event;
use adit::hbone::limits::{Account, Debts, Limits};
use adit::hbone::record::{Secrets, Suite, TrafficSecret};
use adit::hbone::{Engine, Role};
use adit::sys::clock::Clock;

/// Bytes that a worker's batch has.
const BATCH: usize = 256 * 1024;
/// Batches of the bulk loops: 4 MiB and a little less, as much as a window lets through.
const BATCHES: usize = 16;
const MESSAGES: usize = 1_000;
const MESSAGE: &[u8; 14] = b"fourteen bytes";

const LIMITS: Limits = Limits {
    streams_max: 200,
    stream_window_max: 4 << 20,
    frame_max: 1 << 20,
    header_list_max: 16 * 1024,
    records_max: 1 << 24,
    ping_interval_ms: 10_000,
    ping_timeout_ms: 20_000,
};

/// An account that always has room.
#[derive(Debug)]
struct Endless;

impl Account for Endless {
    fn charge(&self, _: u32) {}

    fn room(&self) -> u64 {
        u64::MAX
    }

    fn release(&self, _: u32) {}
}

/// Both ends of a tunnel with one stream, and the worker's batches.
struct World {
    client: Engine,
    server: Engine,
    stream: u32,
    batch: Vec<u8>,
    wire: Vec<u8>,
    now: Instant,
}

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).filter(|name| name != "--bench").collect();
    for name in &names {
        let keys = if name.ends_with("_tls12") { tls12::keys() } else { Ok(tls13_keys()) };
        let mut world = World::new(keys.expect("the handshake is ours on both ends"));
        match name.trim_end_matches("_tls12") {
            "send_bulk" => world.bulk(Some(counted_send), None),
            "receive_bulk" => world.bulk(None, Some(counted_receive)),
            "send_messages" => world.messages(Some(counted_send), None),
            "receive_messages" => world.messages(None, Some(counted_receive)),
            "open_and_close" => counted_streams(&mut world),
            other => {
                eprintln!("instructions: there is no loop {other}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

type Send = fn(&mut Engine, u32, &mut [u8], usize) -> usize;
type Receive = fn(&mut Engine, &mut [u8], usize, Instant) -> usize;

/// One turn of a stream: up to `most` bytes are sealed; how many bytes go over the wire.
#[inline(never)]
fn counted_send(engine: &mut Engine, stream: u32, batch: &mut [u8], most: usize) -> usize {
    send(engine, stream, batch, most)
}

/// One read of the tunnel, whose applications take everything; how many bytes they were given.
#[inline(never)]
fn counted_receive(engine: &mut Engine, wire: &mut [u8], len: usize, now: Instant) -> usize {
    receive(engine, wire, len, now)
}

/// Short connections, one after another.
#[inline(never)]
fn counted_streams(world: &mut World) {
    for _ in 0..MESSAGES {
        let stream = world.open();
        world.carry(stream, MESSAGE.len());
        world.client.http_mut().finish(stream);
        world.server.http_mut().finish(stream);
        world.settle();
        world.client.http_mut().release(stream, world.now);
        world.server.http_mut().release(stream, world.now);
    }
}

fn send(engine: &mut Engine, stream: u32, batch: &mut [u8], most: usize) -> usize {
    let plan = engine.plan(stream, batch).expect("it can be sealed");
    let mut count = 0;
    for slot in plan.slots(batch) {
        count += slot.len().min(most - count);
        if count == most {
            break;
        }
    }
    engine.seal(plan, batch, count).expect("it can be sealed")
}

fn receive(engine: &mut Engine, wire: &mut [u8], len: usize, now: Instant) -> usize {
    let mut input = engine.receive(&mut wire[..len]);
    let mut count = 0;
    while let Some(event) = engine.next(&mut input, now).expect("it keeps to the rules") {
        match event {
            Event::Data { stream, bytes } => {
                count += bytes.len();
                let taken = bytes.len();
                engine.http_mut().taken(stream, taken, now);
            }
            Event::Request { stream, .. } => {
                engine.http_mut().respond(stream, 200, [], false);
            }
            _ => {}
        }
    }
    count
}

/// What both ends have after a handshake, the client's first.
fn tls13_keys() -> (Keys, Keys) {
    let secret = |byte| TrafficSecret::new(Suite::Aes128GcmSha256, &[byte; 32]);
    let direction = |byte| secret(byte).expect("the length is the suite's").begin(0);
    let keys = |role, sending, receiving| {
        let (sending, receiving) = (direction(sending), direction(receiving));
        Keys { role, secrets: Secrets::Tls13 { sending, receiving }, rest: Vec::new() }
    };
    (keys(Role::Client, 1, 2), keys(Role::Server, 2, 1))
}

impl World {
    fn new((client, server): (Keys, Keys)) -> Self {
        let now = Clock::system().monotonic();
        let engine = |keys| {
            let debts: Debts = Rc::new(Endless);
            Engine::new(keys, LIMITS, debts, now).expect("the keys are good")
        };
        let (client, server) = (engine(client), engine(server));
        let (batch, wire) = (vec![0; BATCH], vec![0; BATCH]);
        let mut world = Self { client, server, stream: 0, batch, wire, now };
        world.stream = world.open();
        // The window opens as the stream drains.
        for _ in 0..4 * BATCHES {
            world.carry(world.stream, BATCH);
        }
        world
    }

    fn open(&mut self) -> u32 {
        let opened = self.client.http_mut().open("10.0.0.1:80", [], self.now);
        let stream = opened.expect("there is room");
        self.settle();
        stream
    }

    /// Frames other than DATA, until there are none.
    fn settle(&mut self) {
        while self.client.wants_flush() || self.server.wants_flush() {
            let len = self.client.flush(&mut self.batch).expect("it can be sealed");
            receive(&mut self.server, &mut self.batch, len, self.now);
            let len = self.server.flush(&mut self.batch).expect("it can be sealed");
            receive(&mut self.client, &mut self.batch, len, self.now);
        }
    }

    /// Bytes of a client's application.
    fn carry(&mut self, stream: u32, most: usize) {
        let len = send(&mut self.client, stream, &mut self.batch, most);
        receive(&mut self.server, &mut self.batch, len, self.now);
        self.settle();
    }

    fn bulk(&mut self, counted: Option<Send>, received: Option<Receive>) {
        self.turns(BATCHES, BATCH, counted, received);
    }

    fn messages(&mut self, counted: Option<Send>, received: Option<Receive>) {
        self.turns(MESSAGES, MESSAGE.len(), counted, received);
    }

    /// Turns of a stream, one side of which is counted.
    fn turns(
        &mut self,
        count: usize,
        most: usize,
        counted: Option<Send>,
        received: Option<Receive>,
    ) {
        let (send, receive) = (counted.unwrap_or(send), received.unwrap_or(receive));
        for _ in 0..count {
            let len = send(&mut self.client, self.stream, &mut self.batch, most);
            self.wire[..len].copy_from_slice(&self.batch[..len]);
            let got = receive(&mut self.server, &mut self.wire, len, self.now);
            assert!(got == most || got > BATCH / 2, "{got} bytes of a turn came");
            self.settle();
        }
    }
}
