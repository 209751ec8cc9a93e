use super::*;
use ErrorCode::*;

fn open_stream(more: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    std::iter::once(connect(1)).chain(more).collect()
}

fn block(bytes: &[u8]) -> Vec<Vec<u8>> {
    vec![frame(HEADERS, WHOLE, 1, bytes)]
}

/// CONNECT and one more field, uncompressed.
fn with_field(name: &str, value: &str) -> Vec<Vec<u8>> {
    let len = |text: &str| u8::try_from(text.len()).unwrap();
    let field = [&[0, len(name)], name.as_bytes(), &[len(value)], value.as_bytes()].concat();
    block(&[CONNECT, &field].concat())
}

#[test]
fn frames_on_the_connection() {
    let greedy = |id, value| vec![frame(SETTINGS, NONE, 0, &setting(id, value))];
    check(
        vec![
            ("nothing", vec![], Then::Fine),
            ("settings again", greedy(4, 1 << 20), Then::Fine),
            ("unknown setting", greedy(0x99, 7), Then::Fine),
            ("push on", greedy(2, 1), Then::Fine),
            ("push 2", greedy(2, 2), malformed(Fault::EnablePush, ProtocolError)),
            (
                "window 2^31",
                greedy(4, 1 << 31),
                malformed(Fault::InitialWindowSize, FlowControlError),
            ),
            ("window 2^31-1", greedy(4, WINDOW_MAX), Then::Fine),
            ("frames of 16383", greedy(5, 16_383), malformed(Fault::MaxFrameSize, ProtocolError)),
            ("frames of 2^24", greedy(5, 1 << 24), malformed(Fault::MaxFrameSize, ProtocolError)),
            ("frames of 2^24-1", greedy(5, (1 << 24) - 1), Then::Fine),
            ("connect 2", greedy(8, 2), malformed(Fault::EnableConnectProtocol, ProtocolError)),
            (
                "settings of 5",
                vec![frame(SETTINGS, NONE, 0, &[0; 5])],
                malformed(Fault::Length, FrameSizeError),
            ),
            (
                "settings on a stream",
                vec![frame(SETTINGS, NONE, 1, b"")],
                malformed(Fault::OnStream, ProtocolError),
            ),
            (
                "ack with payload",
                vec![frame(SETTINGS, ACK, 0, &[0; 6])],
                malformed(Fault::Length, FrameSizeError),
            ),
            (
                "ack of nothing",
                vec![frame(SETTINGS, ACK, 0, b"")],
                violation(Violation::SettingsAck),
            ),
            (
                "65 settings",
                vec![frame(SETTINGS, NONE, 0, &setting(9, 9).repeat(65))],
                Then::Ends(Error::Flood(Flood::Settings)),
            ),
            ("ping", vec![frame(PING, NONE, 0, &[1; 8])], Then::Fine),
            ("foreign pong", vec![frame(PING, ACK, 0, &[1; 8])], Then::Fine),
            (
                "ping of 7",
                vec![frame(PING, NONE, 0, &[1; 7])],
                malformed(Fault::Length, FrameSizeError),
            ),
            (
                "ping on a stream",
                vec![frame(PING, NONE, 1, &[1; 8])],
                malformed(Fault::OnStream, ProtocolError),
            ),
            ("goaway", vec![frame(GOAWAY, NONE, 0, &[0; 8])], Then::Fine),
            ("goaway with words", vec![frame(GOAWAY, NONE, 0, &[0; 9_000])], Then::Fine),
            (
                "goaway of 7",
                vec![frame(GOAWAY, NONE, 0, &[0; 7])],
                malformed(Fault::Length, FrameSizeError),
            ),
            (
                "goaway on a stream",
                vec![frame(GOAWAY, NONE, 1, &[0; 8])],
                malformed(Fault::OnStream, ProtocolError),
            ),
            (
                "push",
                vec![frame(PUSH, WHOLE, 1, &[0, 0, 0, 2, 0x88])],
                malformed(Fault::Push, ProtocolError),
            ),
            ("unknown", vec![frame(0x77, 0xff, 3, &[9; 100])], Then::Fine),
            ("unknown on 0", vec![frame(0xff, 0, 0, b"")], Then::Fine),
            (
                "too long",
                vec![frame(0x77, 0, 0, &vec![0; (1 << 20) + 1])],
                malformed(Fault::TooLong, FrameSizeError),
            ),
            ("the longest", vec![frame(0x77, 0, 0, &vec![0; 1 << 20])], Then::Fine),
            ("reserved bit", vec![frame(PING, NONE, 1 << 31, &[1; 8])], Then::Fine),
            ("window", vec![frame(WINDOW, NONE, 0, &[0, 0, 0, 1])], Then::Fine),
            (
                "window by 0",
                vec![frame(WINDOW, NONE, 0, &[0; 4])],
                malformed(Fault::NoIncrement, ProtocolError),
            ),
            (
                "window of 3",
                vec![frame(WINDOW, NONE, 0, &[0; 3])],
                malformed(Fault::Length, FrameSizeError),
            ),
            (
                "window beyond",
                vec![frame(WINDOW, NONE, 0, &WINDOW_MAX.to_be_bytes())],
                violation(Violation::WindowOverflow),
            ),
            ("priority on idle", vec![frame(PRIORITY, NONE, 9, &[0; 5])], Then::Fine),
            (
                "priority on 0",
                vec![frame(PRIORITY, NONE, 0, &[0; 5])],
                malformed(Fault::OnConnection, ProtocolError),
            ),
        ],
        || Fixture::greeted(Role::Server),
    );
}

#[test]
fn the_beginning() {
    let settings = || frame(SETTINGS, NONE, 0, b"");
    check(
        vec![
            ("preface and settings", vec![PREFACE.to_vec(), settings()], Then::Fine),
            ("half a preface", vec![PREFACE[..12].to_vec()], Then::Fine),
            ("HTTP/1", vec![b"GET / HTTP/1.1\r\n\r\n".to_vec()], violation(Violation::Preface)),
            (
                "a wrong last byte",
                vec![PREFACE[..23].to_vec(), b"x".to_vec()],
                violation(Violation::Preface),
            ),
            ("no preface", vec![settings()], violation(Violation::Preface)),
            (
                "ping first",
                vec![PREFACE.to_vec(), frame(PING, NONE, 0, &[0; 8])],
                violation(Violation::NoSettings),
            ),
            ("request first", vec![PREFACE.to_vec(), connect(1)], violation(Violation::NoSettings)),
            (
                "ack first",
                vec![PREFACE.to_vec(), frame(SETTINGS, ACK, 0, b"")],
                violation(Violation::NoSettings),
            ),
        ],
        || Fixture::new(Role::Server),
    );
}

#[test]
fn requests_and_their_blocks() {
    let pieces = |at: usize| {
        vec![
            frame(HEADERS, NONE, 1, &CONNECT[..at]),
            frame(CONTINUATION, NONE, 1, &CONNECT[at..at + 2]),
            frame(CONTINUATION, WHOLE, 1, &CONNECT[at + 2..]),
        ]
    };
    let begun = |next: Vec<u8>| vec![frame(HEADERS, NONE, 1, CONNECT), next];
    let refused = Then::Stream(1, ProtocolError);
    check(
        vec![
            ("connect", vec![connect(1)], Then::Fine),
            ("connect that ends", vec![frame(HEADERS, WHOLE | END, 1, CONNECT)], Then::Fine),
            ("in pieces", pieces(3), Then::Fine),
            ("an empty piece first", pieces(0), Then::Fine),
            (
                "padded",
                vec![frame(HEADERS, WHOLE | PADDED, 1, &[&[3], CONNECT, &[0; 3]].concat())],
                Then::Fine,
            ),
            (
                "all padding",
                vec![frame(HEADERS, WHOLE | PADDED, 1, &[2, 0])],
                malformed(Fault::Padding, ProtocolError),
            ),
            (
                "with priority",
                vec![frame(HEADERS, WHOLE | 0x20, 1, &[&[0, 0, 0, 1, 9], CONNECT].concat())],
                Then::Fine,
            ),
            (
                "cut priority",
                vec![frame(HEADERS, WHOLE | 0x20, 1, &[0; 4])],
                malformed(Fault::Length, FrameSizeError),
            ),
            ("on stream 0", vec![connect(0)], malformed(Fault::OnConnection, ProtocolError)),
            ("on an even stream", vec![connect(2)], violation(Violation::StreamId)),
            ("not in order", vec![connect(5), connect(3)], violation(Violation::StreamId)),
            ("with a gap", vec![connect(1), connect(99)], Then::Fine),
            ("twice", vec![connect(1), connect(1)], Then::Stream(1, ProtocolError)),
            (
                "interrupted by data",
                begun(frame(DATA, NONE, 1, b"x")),
                violation(Violation::Continuation),
            ),
            (
                "interrupted by ping",
                begun(frame(PING, NONE, 0, &[0; 8])),
                violation(Violation::Continuation),
            ),
            (
                "interrupted by unknown",
                begun(frame(0x77, NONE, 0, b"")),
                violation(Violation::Continuation),
            ),
            (
                "of another stream",
                begun(frame(CONTINUATION, WHOLE, 3, b"")),
                violation(Violation::Continuation),
            ),
            ("another request", begun(connect(3)), violation(Violation::Continuation)),
            (
                "no beginning",
                vec![frame(CONTINUATION, WHOLE, 1, CONNECT)],
                violation(Violation::Continuation),
            ),
            (
                "after its end",
                vec![connect(1), frame(CONTINUATION, WHOLE, 1, b"")],
                violation(Violation::Continuation),
            ),
            ("index 0", block(b"\x20\x80"), violation(Violation::Compression)),
            ("index of no table", block(b"\x20\xff\x20"), violation(Violation::Compression)),
            ("cut field", block(&CONNECT[..5]), violation(Violation::Compression)),
            (
                "a table again",
                block(b"\x3f\xe1\x1f\x02\x07CONNECT"),
                violation(Violation::Compression),
            ),
            ("an empty block", block(b"\x20"), refused),
            ("no authority", block(b"\x20\x02\x07CONNECT"), refused),
            ("no method", block(b"\x20\x01\x03a:1"), refused),
            ("with a path", block(&[CONNECT, b"\x84"].concat()), refused),
            ("with a scheme", block(&[CONNECT, b"\x87"].concat()), refused),
            ("a response", block(&[CONNECT, b"\x88"].concat()), refused),
            ("an unknown pseudo-field", with_field(":protocol", "websocket"), refused),
            ("a second authority", with_field(":authority", "b:2"), refused),
            (
                "a pseudo-field last",
                block(&[CONNECT, b"\x00\x01a\x01b", b"\x01\x03a:1"].concat()),
                refused,
            ),
            ("upper case", with_field("Baggage", "x"), refused),
            ("a line end", with_field("baggage", "x\r\ny: z"), refused),
            ("connection", with_field("connection", "close"), refused),
            ("transfer-encoding", with_field("transfer-encoding", "chunked"), refused),
            ("te", with_field("te", "gzip"), refused),
            ("te: trailers", with_field("te", "trailers"), Then::Fine),
            ("baggage", with_field("baggage", "a=b"), Then::Fine),
            ("get", block(b"\x20\x82\x84\x87\x01\x01a"), Then::Fine),
        ],
        || Fixture::greeted(Role::Server),
    );
}

#[test]
fn frames_on_streams() {
    let data = |flags, payload: &[u8]| open_stream(vec![frame(DATA, flags, 1, payload)]);
    let rst = || frame(RST, NONE, 1, &[0, 0, 0, 8]);
    let ended = || frame(DATA, END, 1, b"x");
    let window = |by: u32| frame(WINDOW, NONE, 1, &by.to_be_bytes());
    check(
        vec![
            ("data", data(NONE, b"abc"), Then::Fine),
            ("the end", data(END, b"abc"), Then::Fine),
            ("an empty end", data(END, b""), Then::Fine),
            ("padded", data(PADDED, b"\x02abc\0\0"), Then::Fine),
            ("nothing but padding", data(PADDED, b"\x02\0\0"), Then::Fine),
            (
                "too much padding",
                data(PADDED, b"\x03\0\0"),
                malformed(Fault::Padding, ProtocolError),
            ),
            ("no pad length", data(PADDED, b""), malformed(Fault::Length, FrameSizeError)),
            (
                "data on 0",
                vec![frame(DATA, NONE, 0, b"x")],
                malformed(Fault::OnConnection, ProtocolError),
            ),
            ("data on idle", vec![frame(DATA, NONE, 1, b"x")], violation(Violation::Idle)),
            (
                "data on idle and even",
                open_stream(vec![frame(DATA, NONE, 2, b"x")]),
                violation(Violation::Idle),
            ),
            (
                "data after the end",
                open_stream(vec![ended(), ended()]),
                Then::Stream(1, StreamClosed),
            ),
            ("data after reset", open_stream(vec![rst(), ended()]), Then::Fine),
            (
                "headers after the end",
                open_stream(vec![ended(), connect(1)]),
                Then::Stream(1, StreamClosed),
            ),
            (
                "trailers",
                open_stream(vec![frame(HEADERS, WHOLE | END, 1, b"\x00\x01a\x01b")]),
                Then::Stream(1, ProtocolError),
            ),
            ("reset", open_stream(vec![rst()]), Then::Fine),
            ("reset twice", open_stream(vec![rst(), rst()]), Then::Fine),
            (
                "reset of 3",
                open_stream(vec![frame(RST, NONE, 1, &[0; 3])]),
                malformed(Fault::Length, FrameSizeError),
            ),
            (
                "reset on 0",
                vec![frame(RST, NONE, 0, &[0; 4])],
                malformed(Fault::OnConnection, ProtocolError),
            ),
            ("reset on idle", vec![rst()], violation(Violation::Idle)),
            ("window", open_stream(vec![window(1)]), Then::Fine),
            ("window by 0", open_stream(vec![window(0)]), Then::Stream(1, ProtocolError)),
            ("window by 0 on idle", vec![window(0)], malformed_on_stream()),
            (
                "window beyond",
                open_stream(vec![window(WINDOW_MAX)]),
                Then::Stream(1, FlowControlError),
            ),
            ("window on idle", vec![window(1)], violation(Violation::Idle)),
            ("window after the end", open_stream(vec![ended(), window(1)]), Then::Fine),
            ("window after reset", open_stream(vec![rst(), window(1)]), Then::Fine),
            ("priority", open_stream(vec![frame(PRIORITY, NONE, 1, &[0; 5])]), Then::Fine),
            (
                "priority of 4",
                open_stream(vec![frame(PRIORITY, NONE, 1, &[0; 4])]),
                Then::Stream(1, FrameSizeError),
            ),
            (
                "priority after reset",
                open_stream(vec![rst(), frame(PRIORITY, NONE, 1, &[0; 5])]),
                Then::Fine,
            ),
            (
                "the window",
                open_stream(vec![frame(DATA, NONE, 1, &vec![0; 64 * 1024])]),
                Then::Fine,
            ),
            (
                "more than the window",
                open_stream(vec![frame(DATA, NONE, 1, &vec![0; 64 * 1024 + 1])]),
                Then::Stream(1, FlowControlError),
            ),
            (
                "windows resized beyond",
                open_stream(vec![
                    window(1 << 30),
                    frame(SETTINGS, NONE, 0, &setting(4, WINDOW_MAX)),
                ]),
                violation(Violation::WindowOverflow),
            ),
        ],
        || Fixture::greeted(Role::Server),
    );
}

fn malformed_on_stream() -> Then {
    let (fault, code) = (Fault::NoIncrement, ProtocolError);
    Then::Ends(Error::Malformed(frame::Malformed { fault, code, scope: Scope::Stream(1) }))
}

#[test]
fn more_streams_than_announced_are_refused_and_not_one_less() {
    let mut fixture = Fixture::greeted(Role::Server);
    for at in 0..20 {
        fixture.feed(&connect(2 * at + 1), usize::MAX).unwrap();
    }
    assert_eq!(fixture.complaints(), []);
    fixture.feed(&connect(41), usize::MAX).unwrap();
    assert_eq!(fixture.complaints(), [(41, RefusedStream)]);
    // One ends on both sides: there is room again.
    fixture.connection.finish(1);
    fixture.feed(&frame(DATA, END, 1, b""), usize::MAX).unwrap();
    fixture.written();
    fixture.feed(&connect(43), usize::MAX).unwrap();
    assert_eq!(fixture.complaints(), []);
}

#[test]
fn a_list_that_is_too_long_is_for_the_driver_to_refuse() {
    let mut fixture = Fixture::greeted(Role::Server);
    // Few bytes each, but a list counts 32 more for every field (RFC 9113 6.5.2).
    let block = [CONNECT, &b"\x00\x01a\x01b".repeat(600)].concat();
    let len = block.len();
    assert!(len <= LIMITS.header_list_max as usize, "{len}");
    fixture.feed(&frame(HEADERS, WHOLE, 1, &block), usize::MAX).unwrap();
    let event = fixture.events.pop().unwrap();
    assert!(event.contains("too_large: true"), "{}", &event[..100]);
}

#[test]
fn streams_above_the_last_one_we_serve_are_ignored() {
    let mut fixture = Fixture::greeted(Role::Server);
    fixture.feed(&connect(1), usize::MAX).unwrap();
    fixture.connection.close();
    let frames = fixture.written();
    let ping = frames.iter().find(|(header, _)| header.kind == Kind::Ping).unwrap().1.clone();
    fixture.feed(&connect(3), usize::MAX).unwrap();
    fixture.feed(&frame(PING, ACK, 0, &ping), usize::MAX).unwrap();
    let frames = fixture.written();
    let goaway = frames.iter().find(|(header, _)| header.kind == Kind::GoAway).unwrap();
    assert_eq!(goaway.1[..4], [0, 0, 0, 3]);
    let late = [connect(5), frame(DATA, NONE, 5, b"x"), frame(RST, NONE, 5, &[0; 4])];
    fixture.feed(&late.concat(), usize::MAX).unwrap();
    assert_eq!((fixture.complaints(), fixture.connection.open_streams()), (vec![], 2));
}
