use super::*;

/// What the peer sends in one round of a flood.
type Round = Box<dyn Fn(u32) -> Vec<u8>>;

/// One end that leaves requests unanswered.
fn silent() -> Fixture {
    Fixture { answers: false, ..Fixture::greeted(Role::Server) }
}

/// How many times the frames can be fed before the connection ends, without time passing.
fn until_ended(begin: Fixture, frames: impl Fn(u32) -> Vec<u8>) -> (u32, Error) {
    let mut fixture = begin;
    for round in 0..200_000 {
        if let Err(error) = fixture.feed(&frames(round), usize::MAX) {
            assert_eq!(fixture.complaints(), [(0, ErrorCode::EnhanceYourCalm)]);
            return (round, error);
        }
        fixture.written();
        for stream in (1..fixture.connection.last_peer + 1).step_by(2) {
            if fixture.connection.reset_code(stream).is_some() {
                fixture.connection.release(stream, fixture.now);
            }
        }
        assert!(fixture.connection.streams.len() <= 40, "memory is bounded");
    }
    panic!("nobody ends it");
}

#[test]
fn what_moves_nothing_runs_out_of_its_budget() {
    let on_one = |kind, payload: &'static [u8]| move |_| frame(kind, NONE, 1, payload);
    let on_all = |kind, payload: &'static [u8]| move |_| frame(kind, NONE, 0, payload);
    let floods: Vec<(&str, Round)> = vec![
        ("pings", Box::new(on_all(PING, &[0; 8]))),
        ("settings", Box::new(on_all(SETTINGS, b""))),
        ("unknown", Box::new(on_all(0x77, b""))),
        ("windows", Box::new(on_one(WINDOW, &[0, 0, 0, 1]))),
        ("windows of all", Box::new(on_all(WINDOW, &[0, 0, 0, 1]))),
        ("priorities", Box::new(on_one(PRIORITY, &[0; 5]))),
        ("empty data", Box::new(on_one(DATA, b""))),
    ];
    for (name, flood) in floods {
        let mut fixture = Fixture::greeted(Role::Server);
        fixture.feed(&connect(1), usize::MAX).unwrap();
        let (rounds, error) = until_ended(fixture, flood);
        assert_eq!(error, Error::Flood(Flood::Noise), "{name}");
        assert!((4_000..4_100).contains(&rounds), "{name}: {rounds}");
    }
}

#[test]
fn streams_opened_and_reset_run_out_of_their_budget() {
    let reset = |round| [connect(2 * round + 1), frame(RST, NONE, 2 * round + 1, &[0; 4])].concat();
    assert_eq!(until_ended(silent(), reset), (400, Error::Flood(Flood::Resets)));
    // Applications that reset what was answered are no flood, however many.
    let mut fixture = Fixture::greeted(Role::Server);
    for round in 0..2_000 {
        fixture.feed(&reset(round), usize::MAX).unwrap();
        fixture.connection.release(2 * round + 1, fixture.now);
        fixture.written();
    }
}

#[test]
fn streams_that_we_are_made_to_reset_run_out_of_theirs() {
    let faulty: Vec<(&str, Round)> = vec![
        ("window by 0", Box::new(|id| frame(WINDOW, NONE, id, &[0; 4]))),
        ("window beyond", Box::new(|id| frame(WINDOW, NONE, id, &WINDOW_MAX.to_be_bytes()))),
        ("trailers", Box::new(|id| frame(HEADERS, WHOLE, id, b"\x00\x01a\x01b"))),
        ("data after the end", Box::new(|id| frame(DATA, END, id, b"x").repeat(2))),
        ("priority of 4", Box::new(|id| frame(PRIORITY, NONE, id, &[0; 4]))),
    ];
    for (name, fault) in faulty {
        let flood = |round| [connect(2 * round + 1), fault(2 * round + 1)].concat();
        let (rounds, error) = until_ended(Fixture::greeted(Role::Server), flood);
        assert_eq!((rounds, error), (100, Error::Flood(Flood::Faults)), "{name}");
    }
}

#[test]
fn field_blocks_are_bounded() {
    // Many pieces of one block, empty or not, and one that never ends.
    for (piece, most) in [(vec![], 31), (vec![0; 16], 31), (vec![0; 8_000], 2)] {
        let mut fixture = Fixture::greeted(Role::Server);
        fixture.feed(&frame(HEADERS, NONE, 1, b""), usize::MAX).unwrap();
        let mut rounds = 0;
        let error = loop {
            match fixture.feed(&frame(CONTINUATION, NONE, 1, &piece), usize::MAX) {
                Ok(()) => rounds += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((rounds, error), (most, Error::Flood(Flood::Fields)), "{}", piece.len());
    }
    // Bombs: a byte names a long field again and again.
    let bomb = [b"\x40\x01a\x7f\xa1\x1e".to_vec(), vec![b'v'; 4_000], vec![0xbe; 8_000]].concat();
    let mut fixture = Fixture::new(Role::Server);
    fixture.feed(&[&PREFACE[..], &frame(SETTINGS, NONE, 0, b"")].concat(), usize::MAX).unwrap();
    let error = fixture.feed(&frame(HEADERS, WHOLE, 1, &bomb), usize::MAX).unwrap_err();
    assert_eq!(error, Error::Flood(Flood::Fields));
    // Many lists that are each as long as allowed.
    let field = [&b"\x00\x01a\x7f\x81\x3e"[..], &[b'v'; 127 + 1 + 62 * 128][..]].concat();
    let block = [CONNECT, &field[..]].concat();
    let ended = |round| {
        let stream = 2 * round + 1;
        [frame(HEADERS, WHOLE | END, stream, &block), frame(RST, NONE, stream, &[0; 4])].concat()
    };
    let (_, error) = until_ended(silent(), ended);
    assert!(matches!(error, Error::Flood(Flood::Fields | Flood::Resets)));
}

#[test]
fn acknowledgements_that_cannot_leave_are_bounded() {
    let mut fixture = Fixture::greeted(Role::Server);
    let mut feed = |kind, payload: &[u8]| {
        (0..100).find_map(|_| fixture.feed(&frame(kind, NONE, 0, payload), usize::MAX).err())
    };
    assert_eq!(feed(PING, &[0; 8]), Some(Error::Flood(Flood::Noise)));
    let mut fixture = Fixture::greeted(Role::Server);
    let mut feed = |kind, payload: &[u8]| {
        (0..100).find_map(|_| fixture.feed(&frame(kind, NONE, 0, payload), usize::MAX).err())
    };
    assert_eq!(feed(SETTINGS, b""), Some(Error::Flood(Flood::Settings)));
}

/// The mirror: chatty peers and readers that pause are not floods.
#[test]
fn chatty_streams_with_pausing_readers_are_never_punished() {
    let mut fixture = Fixture::greeted(Role::Server);
    let streams: Vec<u32> = (0..20).map(|at| 2 * at + 1).collect();
    for &stream in &streams {
        fixture.feed(&connect(stream), usize::MAX).unwrap();
    }
    for round in 0..4_000 {
        let paused = round % 1_000 < 500;
        for &stream in &streams {
            let bytes = frame(DATA, NONE, stream, b"chatty message");
            let mut plain = bytes.as_slice();
            while let Some(event) = fixture.connection.read(&mut plain, fixture.now).unwrap() {
                let Event::Data { bytes, .. } = event else { panic!("{event:?}") };
                fixture.connection.park(stream, bytes);
            }
            if !paused {
                let count = fixture.connection.parked(stream).len();
                fixture.connection.taken_parked(stream, count, fixture.now);
            }
        }
        assert_eq!(fixture.complaints(), []);
    }
    assert!(fixture.ledger.peak.get() <= 20 * u64::from(LIMITS.stream_window_max));
}

/// Peers that give credit for every small message are not floods either.
#[test]
fn windows_that_our_data_explains_are_no_noise() {
    let mut fixture = Fixture::greeted(Role::Server);
    fixture.feed(&connect(1), usize::MAX).unwrap();
    let credit = |stream| frame(WINDOW, NONE, stream, &14_u32.to_be_bytes());
    for _ in 0..20_000 {
        fixture.connection.sent(1, 14);
        fixture.feed(&[credit(1), credit(0)].concat(), usize::MAX).unwrap();
    }
}

/// And what a window of single bytes costs us is what it holds.
#[test]
fn single_bytes_that_nobody_reads_cost_what_they_are() {
    let mut fixture = Fixture::greeted(Role::Server);
    fixture.feed(&connect(1), usize::MAX).unwrap();
    for _ in 0..64 * 1024 {
        let bytes = frame(DATA, NONE, 1, b"x");
        let mut plain = bytes.as_slice();
        while let Some(Event::Data { bytes, .. }) =
            fixture.connection.read(&mut plain, fixture.now).unwrap()
        {
            fixture.connection.park(1, bytes);
        }
    }
    assert_eq!(fixture.connection.parked(1).len(), 64 * 1024);
    assert_eq!(fixture.ledger.peak.get(), 0, "nothing was granted for them");
    fixture.feed(&frame(DATA, NONE, 1, b"x"), usize::MAX).unwrap();
    assert_eq!(fixture.complaints(), [(1, ErrorCode::FlowControlError)]);
}
