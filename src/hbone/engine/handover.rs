//! Tunnels that are frozen and resumed between any two bytes.

use std::rc::Rc;
use std::time::Duration;

use crate::hbone::error::Error;
use crate::hbone::frame::{self, Setting};
use crate::hbone::http2::{Event, OpenError};
use crate::hbone::limits::{Debts, Limits};
use crate::hbone::record::{HEADER, OVERHEAD, Sealer};
use crate::hbone::testing::world::{LIMITS, Ledger, World};
use crate::hbone::testing::{Offer, SUITES, directions, key_pair, sealer};
use crate::hbone::{Engine, ResumeError, Role};
use crate::sys::clock::Clock;

/// New keys all the time.
const TIGHT: Limits = Limits { records_max: 7, ..LIMITS };

/// One byte goes from one end to the other, if there is one, and both ends move.
fn one_byte(world: &mut World, takes: usize) -> bool {
    let mut moved = false;
    for at in 0..2 {
        let wire = world.ends[at].flush();
        world.ends[at].engine.keep_unsent(&wire);
        // The socket takes one byte: the rest of the batch is part of the state.
        if let Some(&byte) = world.ends[at].engine.unsent().first() {
            world.wires[1 - at].push(byte);
            world.ends[at].engine.sent(1);
            moved = true;
        }
        world.ends[at].move_over(TIGHT, world.now);
        let arrived = std::mem::take(&mut world.wires[at]);
        if !arrived.is_empty() {
            world.ends[at].read(&arrived, world.now, |_, len| len.min(takes));
            world.ends[at].move_over(TIGHT, world.now);
        }
        assert_eq!(world.ends[at].error, None);
    }
    moved
}

fn settle(world: &mut World, takes: usize) {
    while one_byte(world, takes) {}
}

/// Both roles, from the first SETTINGS on: none is acknowledged yet when the tunnel first moves.
#[test]
fn a_tunnel_moves_between_any_two_bytes() {
    let mut world = World::new(TIGHT);
    let first = world.open();
    settle(&mut world, usize::MAX);
    assert_eq!(world.ends[1].requests, [first]);
    assert!(world.ends[1].engine.http_mut().respond(first, 200, [], false));
    settle(&mut world, usize::MAX);
    let second = world.open();
    settle(&mut world, usize::MAX);
    assert!(world.ends[1].engine.http_mut().respond(second, 200, [], false));
    for round in 0..6_u8 {
        for from in 0..2 {
            for stream in [first, second] {
                let bytes: Vec<u8> = (0..400_u16).map(|n| n.to_be_bytes()[1] ^ round).collect();
                let (count, wire) = world.ends[from].send(stream, &bytes);
                // Half of the batch leaves, and only then the rest.
                world.ends[from].engine.keep_unsent(&wire);
                world.ends[from].move_over(TIGHT, world.now);
                // Nobody takes more than a little: the rest is parked, and moves, too.
                settle(&mut world, 100);
                while world.ends[from].engine.http_mut().next_turn().is_some() {}
                assert_eq!(count, bytes.len());
            }
        }
    }
    for from in 0..2 {
        for stream in [first, second] {
            world.ends[from].engine.http_mut().finish(stream);
        }
    }
    settle(&mut world, 0);
    for at in 0..2 {
        for stream in [first, second] {
            world.ends[at].take(stream, usize::MAX, world.now);
            let sent = world.ends[1 - at].app(stream).sent.clone();
            let app = world.ends[at].app(stream);
            assert_eq!((app.received.len(), app.ended), (6 * 400, true));
            assert_eq!(app.received, sent);
        }
        assert!(sealer(&mut world.ends[at].engine).state().generation >= 2, "new keys were taken");
    }
}

#[test]
fn what_waits_moves_too() {
    let mut world = World::new(LIMITS);
    let streams = [world.connect(), world.connect()];
    // Two wait for a turn, because the socket takes nothing.
    world.ends[0].engine.keep_unsent(b"x");
    for stream in streams {
        assert_eq!(world.ends[0].send(stream, b"waits").0, 0);
    }
    // New keys are asked for.
    sealer(&mut world.ends[0].engine).ask_update();
    // The peer has been silent for a while.
    world.pass(Duration::from_secs(7));
    let deadline = world.ends[0].engine.next_deadline();
    world.ends[0].move_over(LIMITS, world.now);
    assert_eq!(world.ends[0].engine.next_deadline(), deadline);
    assert_eq!(world.ends[0].engine.unsent(), b"x");
    world.ends[0].engine.sent(1);
    assert!(world.ends[0].engine.wants_flush(), "a key update is due");
    assert_eq!(world.ends[0].engine.http_mut().next_turn(), Some(streams[0]));
    world.ends[0].move_over(LIMITS, world.now);
    assert_eq!(world.ends[0].engine.http_mut().next_turn(), Some(streams[1]));
    // It is asked whether it lives, and in the next process believed dead.
    world.pass(Duration::from_secs(3));
    world.ends[0].engine.tick(world.now).unwrap();
    world.pass(Duration::from_secs(20));
    world.ends[0].move_over(LIMITS, world.now);
    assert_eq!(world.ends[0].engine.tick(world.now), Err(Error::Silent));
}

/// A peer that uses its table before it has acknowledged that ours has no room.
#[test]
fn the_table_of_a_peer_moves_too() {
    let (client, server) = key_pair(SUITES[0]);
    let now = Clock::system().monotonic();
    let mut ledger = Ledger::new(u64::MAX);
    let mut engine =
        Engine::new(server, LIMITS, Rc::clone(&ledger) as Debts, now).expect("good keys");
    let (sending, _) = directions(client);
    let mut peer = Sealer::new(sending, 1 << 20).expect("good keys");
    let mut plain = frame::PREFACE.to_vec();
    frame::settings(&[(Setting::MaxConcurrentStreams, 100)], &mut plain);
    // Both fields go into its table, and are named by their places there the second time.
    let blocks: [&[u8]; 2] = [b"\x42\x07CONNECT\x41\x06a.b:80", b"\xbf\xbe"];
    for (stream, block) in [1, 3].into_iter().zip(blocks) {
        frame::headers(stream, block, false, 16_384, &mut plain);
    }
    let mut wire = Vec::new();
    for piece in plain.chunks(9) {
        let mut record = vec![0; piece.len() + OVERHEAD];
        record[HEADER..HEADER + piece.len()].copy_from_slice(piece);
        peer.seal(&mut record, piece.len()).expect("it is sealed");
        wire.extend(record);
    }
    let mut requests = Vec::new();
    for byte in wire {
        let mut buffer = vec![0; 64 * 1024];
        let kept = engine.begin(&mut buffer);
        buffer[kept] = byte;
        let mut input = engine.receive(&mut buffer[..=kept]);
        while let Some(event) = engine.next(&mut input, now).expect("it keeps to the rules") {
            let Event::Request { stream, fields, .. } = event else { panic!("{event:?}") };
            requests.push((stream, fields.get(b":authority").map(<[u8]>::to_vec)));
        }
        let state = engine.freeze(now).expect("it is not over");
        ledger = Ledger::new(u64::MAX);
        engine = Engine::resume(&state, LIMITS, Rc::clone(&ledger) as Debts, now).expect("ours");
    }
    let authority = Some(b"a.b:80".to_vec());
    assert_eq!(requests, [(1, authority.clone()), (3, authority)]);
    assert_eq!((engine.role(), engine.http().open_streams()), (Role::Server, 2));
}

#[test]
fn what_is_not_a_state_is_not_resumed() {
    let mut world = World::new(TIGHT);
    let stream = world.connect();
    world.send(0, stream, &[7; 300]);
    let arrived = std::mem::take(&mut world.wires[1]);
    world.ends[1].read(&arrived, world.now, |_, _| 0);
    let state = world.ends[1].engine.freeze(world.now).expect("it is not over");
    let resume = |bytes: &[u8]| {
        let ledger = Ledger::new(u64::MAX);
        let debts = Rc::clone(&ledger) as Debts;
        let resumed = Engine::resume(bytes, TIGHT, debts, world.now);
        let result = resumed.as_ref().map(|_| ()).map_err(|error| *error);
        drop(resumed);
        assert_eq!(ledger.owed.get(), 0, "no debt is left behind");
        result
    };
    assert_eq!(resume(&state), Ok(()));
    for len in 0..state.len() {
        assert!(resume(&state[..len]).is_err(), "{len} of {} bytes", state.len());
    }
    assert_eq!(resume(&[&state[..], b"x"].concat()), Err(ResumeError::Malformed));
    assert_eq!(resume(b"adit tunnel 1"), Err(ResumeError::Format));
    // Another state or none, but no panic.
    for at in 0..state.len() {
        for bit in 0..8 {
            let mut bent = state.to_vec();
            bent[at] ^= 1 << bit;
            let _ = resume(&bent);
        }
    }
    // What is over is not taken anywhere.
    world.ends[1].engine.fail(Error::Over);
    assert_eq!(world.ends[1].engine.freeze(world.now), None);
}

/// TLS 1.2 keeps its keys: such a tunnel is drained, and so it is before they are used up.
#[test]
fn an_older_tunnel_is_drained_instead() {
    let limits = Limits { records_max: 60, ..LIMITS };
    for worn in [0, 1] {
        let mut world = World::over(Offer::Tls12, limits);
        let stream = world.connect();
        for end in &world.ends {
            assert_eq!(end.engine.freeze(world.now), None);
        }
        let mut said = 0;
        while world.ends[0].engine.http().can_open().is_ok() {
            world.send(worn, stream, b"said");
            world.settle();
            said += 1;
            assert!(said < 30, "half of the keys are used");
        }
        assert!(said > 15, "not long before");
        assert_eq!(world.ends[0].engine.http().can_open(), Err(OpenError::Closing));
        // What is open goes on to its end.
        for end in 0..2 {
            world.ends[end].engine.http_mut().finish(stream);
        }
        world.settle();
        for end in 0..2 {
            let sent = world.ends[1 - end].app(stream).sent.clone();
            let app = world.ends[end].app(stream);
            assert_eq!((&app.received, app.ended, app.reset), (&sent, true, None));
            world.ends[end].engine.http_mut().release(stream, world.now);
        }
        world.settle();
        for end in &world.ends {
            assert!(end.engine.is_finished(), "{worn}: {:?}", end.error);
        }
    }
}
