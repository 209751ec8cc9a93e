use std::time::Duration;

use super::*;
use crate::hbone::frame::ErrorCode;
use crate::hbone::http2::OpenError;
use crate::hbone::testing::world::{LIMITS, World};

#[test]
fn a_stream_lives_from_connect_to_end() {
    let mut world = World::new(LIMITS);
    let stream = world.connect();
    let question = vec![b'q'; 100_000];
    assert_eq!(world.send(0, stream, &question), question.len());
    assert_eq!(world.send(1, stream, b"answer"), 6);
    world.settle();
    world.ends[0].engine.http_mut().finish(stream);
    world.settle();
    assert!(world.ends[1].app(stream).ended);
    assert_eq!(world.send(1, stream, b", and more"), 10);
    world.ends[1].engine.http_mut().finish(stream);
    world.settle();
    assert!(world.ends[0].app(stream).ended);
    assert_eq!(world.ends[0].app(stream).received, b"answer, and more");
    assert_eq!(world.ends[1].app(stream).received, question);
    let now = world.now;
    for end in &mut world.ends {
        assert_eq!(end.engine.http().open_streams(), 0);
        end.engine.http_mut().release(stream, now);
        assert_eq!(end.ledger.owed.get(), 0);
        assert!(!end.engine.wants_flush());
    }
}

#[test]
fn a_refusal_is_whole_and_frees_the_stream() {
    let mut world = World::new(LIMITS);
    let stream = world.open();
    world.send(0, stream, b"early bytes");
    world.settle();
    assert!(world.ends[1].engine.http_mut().respond(stream, 503, [], true));
    assert!(!world.ends[1].engine.http_mut().respond(stream, 200, [], false), "only once");
    world.ends[1].engine.http_mut().release(stream, world.now);
    world.settle();
    let app = world.ends[0].app(stream);
    assert_eq!((app.status, app.ended, app.reset), (Some(503), true, Some(ErrorCode::NoError)));
    world.ends[0].engine.http_mut().release(stream, world.now);
    world.settle();
    assert!(world.ends.iter().all(|end| end.error.is_none() && end.ledger.owed.get() == 0));
}

#[test]
fn what_nobody_reads_stays_within_the_first_window() {
    let mut world = World::new(LIMITS);
    let stream = world.connect();
    let stalled = vec![1; 1 << 20];
    let (mut sent, mut rounds) = (0, 0);
    while rounds < 100 {
        let (count, wire) = world.ends[0].send(stream, &stalled[sent..]);
        sent += count;
        world.ends[1].read(&wire, world.now, |_, _| 0);
        let wire = world.ends[1].flush();
        world.ends[0].read(&wire, world.now, |_, _| 0);
        world.ends[0].engine.http_mut().next_turn();
        rounds += 1;
    }
    assert_eq!(sent, 64 * 1024);
    assert_eq!(world.ends[1].engine.http().parked(stream).len(), sent);
    assert_eq!(world.ends[1].ledger.peak.get(), 0, "first windows are nobody's debt");
    // Credit comes back when the application takes, in steps of half a window.
    for (take, credit) in [(32 * 1024 - 1, 0), (1, 32 * 1024), (32 * 1024, 96 * 1024)] {
        world.ends[1].take(stream, take, world.now);
        world.settle();
        let (count, wire) = world.ends[0].send(stream, &vec![2; 200_000][..]);
        assert_eq!(count.min(credit), credit.min(count), "after {take}");
        world.ends[1].read(&wire, world.now, |_, _| usize::MAX);
        world.ends[0].engine.http_mut().next_turn();
    }
}

#[test]
fn a_stream_that_drains_is_granted_more_and_falls_back_when_idle() {
    let mut world = World::new(LIMITS);
    let stream = world.connect();
    world.send(0, stream, &vec![1; 4 << 20]);
    world.settle();
    assert_eq!(world.ends[1].app(stream).received.len(), 4 << 20);
    let brisk = world.ends[1].ledger.owed.get();
    assert!(brisk > 512 * 1024, "{brisk}");
    for _ in 0..12 {
        world.pass(Duration::from_secs(5));
        world.send(0, stream, &vec![1; 512 * 1024]);
        world.settle();
        world.pass(Duration::from_secs(5));
        world.send(0, stream, &[1; 40 * 1024]);
        world.settle();
    }
    assert!(world.ends[1].ledger.owed.get() < brisk);
}

/// A far peer sends all it may in one burst, of which the application takes the most at once. Its
/// window grows if the rest is gone before the next burst, and else stays as it is.
#[test]
fn a_window_grows_by_bursts_of_which_nothing_is_left_in_the_end() {
    for (kept, grows) in [(0, true), (1, false)] {
        let mut world = World::new(LIMITS);
        let stream = world.connect();
        let much = vec![1; LIMITS.stream_window_max as usize];
        let mut windows = Vec::new();
        for _ in 0..10 {
            let mut window = 0;
            loop {
                world.ends[0].engine.http_mut().next_turn();
                let (count, wire) = world.ends[0].send(stream, &much);
                world.ends[1].read(&wire, world.now, |_, _| 0);
                window += count;
                if count == 0 {
                    break;
                }
            }
            windows.push(window);
            for fifths in [3, 5] {
                let waits = world.ends[1].engine.http().parked(stream).len() - kept;
                world.ends[1].take(stream, waits / 5 * fifths + waits % 5, world.now);
            }
            world.settle();
        }
        let max = LIMITS.stream_window_max as usize;
        let last = windows.last().copied();
        assert_eq!(last.is_some_and(|last| last > max - max / 8), grows, "{windows:?}");
        assert_eq!(last.is_some_and(|last| last <= 64 * 1024), !grows, "{windows:?}");
    }
}

#[test]
fn an_account_without_room_keeps_streams_small_and_none_stuck() {
    let mut world = World::new(LIMITS);
    let stream = world.connect();
    world.ends[1].ledger.limit.set(64 * 1024);
    let mut sent = 0;
    for _ in 0..200 {
        sent += world.send(0, stream, &[1; 10_000]);
        world.settle();
    }
    assert_eq!(sent, 2_000_000);
    assert_eq!(world.ends[1].ledger.peak.get(), 0);
    // Somebody else takes it all: as little as a first window is there in any case.
    world.ends[1].ledger.limit.set(0);
    for _ in 0..20 {
        sent += world.send(0, stream, &[1; 10_000]);
        world.settle();
    }
    assert_eq!(sent, 2_200_000);
    assert_eq!(world.ends[1].ledger.peak.get(), 0);
}

/// Many whose readers stop one after another, and one that goes on.
#[test]
fn those_who_stop_leave_something_to_all_others() {
    const ROOM: u64 = 2 << 20;
    let mut world = World::new(Limits { streams_max: 100, ..LIMITS });
    world.ends[1].ledger.limit.set(ROOM);
    let mut before = 0;
    for _ in 0..30 {
        let stream = world.connect();
        world.send(0, stream, &vec![1; 1 << 20]);
        world.settle();
        // It was granted what it has because it was read; now nobody reads it any more.
        let owed = world.ends[1].ledger.owed.get();
        let (own, left) = (owed - before, ROOM.saturating_sub(owed));
        assert_eq!(world.ends[1].app(stream).received.len(), 1 << 20);
        assert!(own <= left, "{own} of {left}");
        before = owed;
    }
    assert!(before > ROOM / 2, "nearly all is granted");
}

#[test]
fn where_room_is_scarce_a_stream_proves_that_it_drains_before_it_grows() {
    let mut world = World::new(LIMITS);
    let stream = world.connect();
    let window = |world: &World| world.ends[1].ledger.owed.get() + 64 * 1024;
    let much = u64::from(LIMITS.stream_window_max) * 2 - 1;
    for (limit, bytes, expected) in [
        (much, 200 * 1024, 64 * 1024),
        (much, 200 * 1024, 128 * 1024),
        (u64::MAX, 300 * 1024, 512 * 1024),
    ] {
        world.ends[1].ledger.limit.set(limit);
        world.send(0, stream, &vec![1; bytes]);
        world.settle();
        assert!(window(&world) <= expected, "{} after {bytes}", window(&world));
        assert!(window(&world) > expected / 2, "{} after {bytes}", window(&world));
    }
}

#[test]
fn a_server_leaves_in_two_steps_and_loses_no_stream() {
    let mut world = World::new(LIMITS);
    let first = world.connect();
    // Opened before the GOAWAY arrives: it is served.
    let second = world.open();
    world.ends[1].engine.http_mut().close();
    world.settle();
    assert_eq!(world.ends[0].goaway, Some(ErrorCode::NoError));
    assert_eq!(world.ends[1].requests, [first, second]);
    assert_eq!(world.ends[0].engine.http().can_open(), Err(OpenError::Closing));
    assert!(world.ends[1].engine.http_mut().respond(second, 200, [], false));
    world.settle();
    assert_eq!(world.ends[0].app(second).status, Some(200));
    assert!(world.ends.iter().all(|end| !end.engine.is_finished()));
    for stream in [first, second] {
        for end in 0..2 {
            world.ends[end].engine.http_mut().finish(stream);
        }
    }
    world.settle();
    let now = world.now;
    for stream in [first, second] {
        world.ends.iter_mut().for_each(|end| end.engine.http_mut().release(stream, now));
    }
    world.settle();
    // Both say close_notify; whoever hears it has nothing left to lose.
    assert!(world.ends.iter().all(|end| end.engine.is_finished()));
    assert!(world.ends.iter().all(|end| matches!(end.error, None | Some(Error::Over))));
}

#[test]
fn the_end_of_the_transport_is_clean_only_without_streams() {
    let mut world = World::new(LIMITS);
    assert_eq!(world.ends[0].engine.end_of_input(), Error::Truncated);
    let mut world = World::new(LIMITS);
    world.connect();
    world.ends[1].engine.fail(Error::Over);
    world.settle();
    assert_eq!(world.ends[0].error, Some(Error::Truncated), "close_notify under a stream");
}

#[test]
fn silence_is_asked_about_and_then_believed() {
    let mut world = World::new(LIMITS);
    world.connect();
    for (pass_ms, expected) in [(9_999, false), (1, true)] {
        world.pass(Duration::from_millis(pass_ms));
        world.ends[0].engine.tick(world.now).unwrap();
        assert_eq!(world.ends[0].engine.wants_flush(), expected, "after {pass_ms}");
    }
    // Answered: all is well.
    world.settle();
    assert_eq!(world.ends[0].engine.http().next_deadline(), world.now + Duration::from_secs(10));
    // Not answered.
    world.pass(Duration::from_secs(10));
    world.ends[0].engine.tick(world.now).unwrap();
    world.pass(Duration::from_millis(19_999));
    world.ends[0].engine.tick(world.now).unwrap();
    world.pass(Duration::from_millis(1));
    assert_eq!(world.ends[0].engine.tick(world.now), Err(Error::Silent));
}

#[test]
fn streams_that_wait_for_the_socket_take_turns_by_bytes() {
    let mut world = World::new(LIMITS);
    let streams = [world.connect(), world.connect(), world.connect()];
    // Everybody is greedy; windows are open wide, so only turns decide.
    for stream in streams {
        world.send(0, stream, &vec![0; 3 << 20]);
        world.settle();
    }
    world.ends[0].engine.keep_unsent(b"x");
    for stream in streams {
        let (count, wire) = world.ends[0].send(stream, &[0; 10]);
        assert_eq!((count, wire.len()), (0, 0));
    }
    world.ends[0].engine.sent(1);
    let mut shares = [0_usize; 3];
    for _ in 0..60 {
        let stream = world.ends[0].engine.http_mut().next_turn().unwrap();
        let at = streams.iter().position(|&other| other == stream).unwrap();
        // The second one never has more than a few bytes at a time.
        let most = if at == 1 { 1_000 } else { 1 << 20 };
        let mut left = most;
        loop {
            let (count, wire) = world.ends[0].send(stream, &vec![0; left]);
            world.wires[1].extend(wire);
            shares[at] += count;
            left -= count;
            if count == 0 || left == 0 {
                break;
            }
        }
        world.settle();
        world.ends[0].engine.keep_unsent(b"x");
        world.ends[0].send(stream, &[0; 10]);
        world.ends[0].engine.sent(1);
    }
    assert_eq!(shares[1], 20_000);
    let (less, more) = (shares[0].min(shares[2]), shares[0].max(shares[2]));
    assert!(less > 0 && more - less <= 2 * 256 * 1024, "{shares:?}");
}
