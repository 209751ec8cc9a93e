use super::*;
use ErrorCode::*;

/// A client that has opened stream 1.
fn asking() -> Fixture {
    let mut fixture = Fixture::greeted(Role::Client);
    assert_eq!(fixture.connection.open("a:1", [("baggage", "x")], fixture.now), Ok(1));
    fixture.written();
    fixture
}

fn ok() -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, OK)
}

fn status(text: &[u8; 3]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &[b"\x20\x08\x03", &text[..]].concat())
}

#[test]
fn answers() {
    let faulty = Then::Stream(1, ProtocolError);
    let rst = || frame(RST, NONE, 1, &[0; 4]);
    check(
        vec![
            ("200", vec![ok()], Then::Fine),
            ("503", vec![status(b"503")], Then::Fine),
            ("100 and 200", vec![status(b"100"), ok()], Then::Fine),
            ("103 twice and 200", vec![status(b"103"), status(b"103"), ok()], Then::Fine),
            ("101", vec![status(b"101")], faulty),
            ("100 that ends", vec![frame(HEADERS, WHOLE | END, 1, b"\x20\x08\x03100")], faulty),
            ("status 99", vec![status(b"099")], faulty),
            ("status 2x0", vec![status(b"2x0")], faulty),
            ("no status", vec![frame(HEADERS, WHOLE, 1, b"\x20\x00\x01a\x01b")], faulty),
            ("a request", vec![frame(HEADERS, WHOLE, 1, CONNECT)], faulty),
            ("two statuses", vec![frame(HEADERS, WHOLE, 1, b"\x20\x88\x88")], faulty),
            (
                "200 and trailers",
                vec![ok(), frame(HEADERS, WHOLE | END, 1, b"\x00\x01a\x01b")],
                faulty,
            ),
            ("data", vec![ok(), frame(DATA, NONE, 1, b"x")], Then::Fine),
            ("data before the answer", vec![frame(DATA, NONE, 1, b"x")], faulty),
            ("the end", vec![ok(), frame(DATA, END, 1, b"x")], Then::Fine),
            (
                "data after the end",
                vec![ok(), frame(DATA, END, 1, b""), frame(DATA, NONE, 1, b"x")],
                Then::Stream(1, StreamClosed),
            ),
            ("reset", vec![rst()], Then::Fine),
            ("an answer after reset", vec![rst(), ok()], Then::Fine),
            ("an answer on idle", vec![frame(HEADERS, WHOLE, 3, OK)], violation(Violation::Idle)),
            ("an answer on even", vec![frame(HEADERS, WHOLE, 2, OK)], violation(Violation::Idle)),
            ("data on idle", vec![frame(DATA, NONE, 3, b"x")], violation(Violation::Idle)),
            ("reset on idle", vec![frame(RST, NONE, 3, &[0; 4])], violation(Violation::Idle)),
            (
                "window on idle",
                vec![frame(WINDOW, NONE, 3, &[0, 0, 0, 1])],
                violation(Violation::Idle),
            ),
            (
                "a push",
                vec![frame(PUSH, WHOLE, 1, &[0, 0, 0, 2, 0x88])],
                malformed(Fault::Push, ProtocolError),
            ),
            (
                "pushes announced",
                vec![frame(SETTINGS, NONE, 0, &setting(2, 1))],
                malformed(Fault::EnablePush, ProtocolError),
            ),
            ("goaway", vec![frame(GOAWAY, NONE, 0, &[0, 0, 0, 1, 0, 0, 0, 0])], Then::Fine),
        ],
        asking,
    );
}

#[test]
fn the_first_frame_of_a_server_is_settings() {
    check(
        vec![
            ("settings", vec![frame(SETTINGS, NONE, 0, b"")], Then::Fine),
            ("goaway", vec![frame(GOAWAY, NONE, 0, &[0; 8])], violation(Violation::NoSettings)),
            ("HTTP/1", vec![b"HTTP/1.1 400 Bad".to_vec()], violation(Violation::NoSettings)),
        ],
        || Fixture::new(Role::Client),
    );
}

#[test]
fn what_was_provably_not_processed_is_told_apart() {
    for (frames, expected) in [
        (vec![frame(RST, NONE, 1, &[0, 0, 0, 7])], "PeerUnprocessed"),
        (vec![frame(RST, NONE, 1, &[0, 0, 0, 8])], "by: Peer }"),
        (vec![ok(), frame(RST, NONE, 1, &[0, 0, 0, 7])], "by: Peer }"),
        (vec![frame(GOAWAY, NONE, 0, &[0; 8])], "PeerUnprocessed"),
        (vec![ok(), frame(GOAWAY, NONE, 0, &[0; 8])], "PeerUnprocessed"),
        (
            vec![
                frame(GOAWAY, NONE, 0, &[0, 0, 0, 1, 0, 0, 0, 0]),
                frame(GOAWAY, NONE, 0, &[0; 8]),
            ],
            "PeerUnprocessed",
        ),
    ] {
        let mut fixture = asking();
        fixture.feed(&frames.concat(), usize::MAX).unwrap();
        let last = fixture.events.last().unwrap();
        assert!(last.contains(expected), "{frames:?}: {last}");
        assert_eq!(fixture.connection.open_streams(), 0);
    }
}

#[test]
fn opens_as_many_as_the_server_takes_and_says_why_not() {
    let mut fixture = Fixture::greeted(Role::Client);
    let now = fixture.now;
    fixture.feed(&frame(SETTINGS, NONE, 0, &setting(3, 2)), usize::MAX).unwrap();
    assert_eq!(fixture.connection.open("a:1", [], now), Ok(1));
    assert_eq!(fixture.connection.open("a:1", [], now), Ok(3));
    assert_eq!(fixture.connection.open("a:1", [], now), Err(OpenError::Full));
    fixture.feed(&frame(SETTINGS, NONE, 0, &setting(3, 100)), usize::MAX).unwrap();
    fixture.feed(&frame(SETTINGS, NONE, 0, &setting(6, 100)), usize::MAX).unwrap();
    let long = "x".repeat(60);
    assert_eq!(
        fixture.connection.open("a:1", [("b", long.as_str())], now),
        Err(OpenError::TooLarge)
    );
    fixture.feed(&frame(GOAWAY, NONE, 0, &[0, 0, 0, 9, 0, 0, 0, 0]), usize::MAX).unwrap();
    assert_eq!(fixture.connection.open("a:1", [], now), Err(OpenError::Closing));
    assert!(!fixture.connection.is_done());
}

#[test]
fn streams_given_up_before_their_answer_are_paced() {
    let mut fixture = Fixture::greeted(Role::Client);
    let mut opened = 0;
    let refusal = loop {
        match fixture.connection.open("a:1", [], fixture.now) {
            Ok(stream) => fixture.connection.release(stream, fixture.now),
            Err(error) => break error,
        }
        fixture.written();
        opened += 1;
    };
    assert_eq!((refusal, opened), (OpenError::Paced, 50));
    fixture.now += Duration::from_millis(100);
    assert!(fixture.connection.open("a:1", [], fixture.now).is_ok());
}

#[test]
fn requests_longer_than_a_frame_are_continued() {
    let mut fixture = Fixture::greeted(Role::Client);
    let long = "~".repeat(40_000);
    fixture.connection.open("a:1", [("baggage", long.as_str())], fixture.now).unwrap();
    let frames = fixture.written();
    let kinds: Vec<_> = frames.iter().map(|(header, _)| (header.kind, header.has(WHOLE))).collect();
    use Kind::{Continuation, Headers};
    assert_eq!(kinds, [(Headers, false), (Continuation, false), (Continuation, true)]);
    assert!(frames.iter().all(|(header, _)| header.len <= 16_384));
}
