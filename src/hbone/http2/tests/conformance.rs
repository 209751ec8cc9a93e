//! Sections of RFC 9113, one row for each rule that a frame can break or keep, towards both roles.
//! Streams of the rows: 1 is open, 3 was never opened.
//!
//! Left out, with the reason:
//!
//! | section | reason |
//! |---|---|
//! | 3.1, 3.3 | no cleartext: a tunnel begins behind TLS with ALPN `h2`: `path/hello` |
//! | 3.4 the beginning | `client.rs`, "the first frame", and `server.rs`, "the beginning" |
//! | 5.1.1 no more ids | 2^30 streams; the last id is a value in `OpenError::Closing` |
//! | 5.1.2 more streams than announced | `server.rs`, with the table of streams itself |
//! | 5.2.2, 5.2.3 window sizes over time | `windows.rs`, and the schedules of `engine/chance.rs` |
//! | 5.3 priorities | deprecated there, ignored here: rows of 6.3 |
//! | 5.5 extensions | none is used: rows of 4.1 for unknown kinds, 6.5 for unknown settings |
//! | 6.6, 8.4 pushes | refused whatever they hold: rows of 6.6 |
//! | 6.9.1 DATA beyond a window | `flood.rs`, with a reader that has stopped |
//! | 8.1.1, 8.6 interim responses | `client.rs`: 1xx are stepped over |
//! | 8.2.3 cookies | not HBONE's, carried as any field |
//! | 8.3.1, 8.3.2 other methods | answered 400 by `path/inbound`, or malformed: rows of 8.3 |
//! | 8.7 repeating a request | `client.rs`, "provably not processed", and `path/tunnel` |
//! | 9 to 11 | for HTTP, not for tunnels |

use super::*;
use ErrorCode::{FrameSizeError as Size, ProtocolError as Protocol, StreamClosed};

/// Where a rule holds.
const BOTH: &[Role] = &[Role::Client, Role::Server];
const CLIENT: &[Role] = &[Role::Client];
const SERVER: &[Role] = &[Role::Server];

type Row = (&'static str, &'static [Role], Vec<Vec<u8>>, Then);

/// One end with stream 1 open in both directions.
fn open(role: Role) -> Fixture {
    let mut fixture = Fixture::greeted(role);
    let block: &[u8] = match role {
        Role::Client => {
            assert_eq!(fixture.connection.open("a:1", [], fixture.now), Ok(1));
            b"\x20\x88"
        }
        Role::Server => b"\x20\x02\x07CONNECT\x01\x03a:1",
    };
    fixture.feed(&frame(HEADERS, WHOLE, 1, block), usize::MAX).unwrap();
    fixture.written();
    fixture
}

fn check_rows(rows: Vec<Row>) {
    for (section, roles, frames, then) in rows {
        for &role in roles {
            check(vec![(section, frames.clone(), then)], || open(role));
        }
    }
}

fn bad(fault: Fault, code: ErrorCode) -> Then {
    malformed(fault, code)
}

fn set(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, NONE, 0, &setting(id, value))
}

#[test]
fn sections_4_to_6_2_frames_that_are_wrong_by_themselves() {
    let long = vec![0; (1 << 20) + 1];
    let length = bad(Fault::Length, Size);
    let on_connection = bad(Fault::OnConnection, Protocol);
    let padding = bad(Fault::Padding, Protocol);
    check_rows(vec![
        ("4.1 reserved bit", BOTH, vec![frame(PING, NONE, 1 << 31, &[0; 8])], Then::Fine),
        ("4.1 unknown kind", BOTH, vec![frame(0x42, 0xff, 1, b"x")], Then::Fine),
        ("4.1 unused flags", BOTH, vec![frame(PING, 0xfe, 0, &[0; 8])], Then::Fine),
        ("4.2 long DATA", BOTH, vec![frame(DATA, NONE, 1, &long)], bad(Fault::TooLong, Size)),
        ("4.2 long HEADERS", BOTH, vec![frame(HEADERS, 4, 1, &long)], bad(Fault::TooLong, Size)),
        ("4.2 long GOAWAY", BOTH, vec![frame(GOAWAY, 0, 0, &long)], bad(Fault::TooLong, Size)),
        ("4.2 long unknown", BOTH, vec![frame(0x42, 0, 0, &long)], bad(Fault::TooLong, Size)),
        ("6.1 DATA", BOTH, vec![frame(DATA, NONE, 1, b"abc")], Then::Fine),
        ("6.1 padded DATA", BOTH, vec![frame(DATA, PADDED, 1, b"\x01a\0")], Then::Fine),
        ("6.1 all padding", BOTH, vec![frame(DATA, PADDED, 1, b"\x01\0")], Then::Fine),
        ("6.1 on 0", BOTH, vec![frame(DATA, NONE, 0, b"a")], on_connection),
        ("6.1 no pad length", BOTH, vec![frame(DATA, PADDED, 1, b"")], length),
        ("6.1 pad too long", BOTH, vec![frame(DATA, PADDED, 1, b"\x02a")], padding),
        ("6.1 pad as long", BOTH, vec![frame(DATA, PADDED, 1, b"\x01")], padding),
        ("6.2 on 0", BOTH, vec![frame(HEADERS, WHOLE, 0, b"\x82")], on_connection),
        ("6.2 no pad length", BOTH, vec![frame(HEADERS, WHOLE | PADDED, 1, b"")], length),
        ("6.2 pad too long", BOTH, vec![frame(HEADERS, WHOLE | PADDED, 1, b"\x01")], padding),
        ("6.2 cut priority", BOTH, vec![frame(HEADERS, WHOLE | 0x20, 1, &[0; 4])], length),
    ]);
}

#[test]
fn sections_6_3_to_6_10_frames_that_are_wrong_by_themselves() {
    let length = bad(Fault::Length, Size);
    let on_stream = bad(Fault::OnStream, Protocol);
    let on_connection = bad(Fault::OnConnection, Protocol);
    let continuation = violation(Violation::Continuation);
    check_rows(vec![
        ("6.3 PRIORITY", BOTH, vec![frame(PRIORITY, NONE, 1, &[0; 5])], Then::Fine),
        ("6.3 idle", BOTH, vec![frame(PRIORITY, NONE, 3, &[0; 5])], Then::Fine),
        ("6.3 on 0", BOTH, vec![frame(PRIORITY, NONE, 0, &[0; 5])], on_connection),
        ("6.3 length 4", BOTH, vec![frame(PRIORITY, NONE, 1, &[0; 4])], Then::Stream(1, Size)),
        ("6.3 length 6", BOTH, vec![frame(PRIORITY, NONE, 1, &[0; 6])], Then::Stream(1, Size)),
        ("6.4 RST_STREAM", BOTH, vec![frame(RST, NONE, 1, &[0, 0, 0, 8])], Then::Fine),
        ("6.4 unknown code", BOTH, vec![frame(RST, NONE, 1, &[0xff; 4])], Then::Fine),
        ("6.4 on 0", BOTH, vec![frame(RST, NONE, 0, &[0; 4])], on_connection),
        ("6.4 length 3", BOTH, vec![frame(RST, NONE, 1, &[0; 3])], length),
        ("6.4 length 5", BOTH, vec![frame(RST, NONE, 1, &[0; 5])], length),
        ("6.4 idle", BOTH, vec![frame(RST, NONE, 3, &[0; 4])], violation(Violation::Idle)),
        ("6.5 empty", BOTH, vec![frame(SETTINGS, NONE, 0, b"")], Then::Fine),
        ("6.5 on a stream", BOTH, vec![frame(SETTINGS, NONE, 1, b"")], on_stream),
        ("6.5 length 5", BOTH, vec![frame(SETTINGS, NONE, 0, &[0; 5])], length),
        ("6.5 ACK with payload", BOTH, vec![frame(SETTINGS, ACK, 0, &[0; 6])], length),
        ("6.5.2 unknown", BOTH, vec![set(0x99, 1)], Then::Fine),
        ("6.5.2 table", BOTH, vec![set(1, u32::MAX)], Then::Fine),
        ("6.5.2 push 0", BOTH, vec![set(2, 0)], Then::Fine),
        ("6.5.2 push 1", SERVER, vec![set(2, 1)], Then::Fine),
        ("6.5.2 push of a server", CLIENT, vec![set(2, 1)], bad(Fault::EnablePush, Protocol)),
        ("6.5.2 push 2", BOTH, vec![set(2, 2)], bad(Fault::EnablePush, Protocol)),
        ("6.5.2 no streams", BOTH, vec![set(3, 0)], Then::Fine),
        ("6.5.2 window 0", BOTH, vec![set(4, 0)], Then::Fine),
        ("6.5.2 window max", BOTH, vec![set(4, WINDOW_MAX)], Then::Fine),
        (
            "6.5.2 window above",
            BOTH,
            vec![set(4, WINDOW_MAX + 1)],
            bad(Fault::InitialWindowSize, ErrorCode::FlowControlError),
        ),
        ("6.5.2 frame min", BOTH, vec![set(5, 16_384)], Then::Fine),
        ("6.5.2 frame below", BOTH, vec![set(5, 16_383)], bad(Fault::MaxFrameSize, Protocol)),
        ("6.5.2 frame max", BOTH, vec![set(5, 16_777_215)], Then::Fine),
        ("6.5.2 frame above", BOTH, vec![set(5, 16_777_216)], bad(Fault::MaxFrameSize, Protocol)),
        ("6.5.2 list 0", BOTH, vec![set(6, 0)], Then::Fine),
        ("6.6 PUSH_PROMISE", BOTH, vec![frame(PUSH, 4, 1, &[2; 4])], bad(Fault::Push, Protocol)),
        ("6.7 PING", BOTH, vec![frame(PING, NONE, 0, &[7; 8])], Then::Fine),
        ("6.7 ACK of nothing", BOTH, vec![frame(PING, ACK, 0, &[7; 8])], Then::Fine),
        ("6.7 on a stream", BOTH, vec![frame(PING, NONE, 1, &[7; 8])], on_stream),
        ("6.7 length 7", BOTH, vec![frame(PING, NONE, 0, &[7; 7])], length),
        ("6.7 length 9", BOTH, vec![frame(PING, ACK, 0, &[7; 9])], length),
        ("6.8 on a stream", BOTH, vec![frame(GOAWAY, NONE, 1, &[0; 8])], on_stream),
        ("6.8 length 7", BOTH, vec![frame(GOAWAY, NONE, 0, &[0; 7])], length),
        ("6.9 connection", BOTH, vec![frame(WINDOW, NONE, 0, &[0, 0, 0, 1])], Then::Fine),
        ("6.9 stream", BOTH, vec![frame(WINDOW, NONE, 1, &[0, 0, 0, 1])], Then::Fine),
        ("6.9 length 5", BOTH, vec![frame(WINDOW, NONE, 1, &[0; 5])], length),
        ("6.9 by 0", BOTH, vec![frame(WINDOW, 0, 0, &[0; 4])], bad(Fault::NoIncrement, Protocol)),
        ("6.9 by 0", BOTH, vec![frame(WINDOW, 0, 1, &[0; 4])], Then::Stream(1, Protocol)),
        ("6.9 idle", BOTH, vec![frame(WINDOW, 0, 3, &[1; 4])], violation(Violation::Idle)),
        (
            "6.9.1 connection overflows",
            BOTH,
            vec![frame(WINDOW, NONE, 0, &WINDOW_MAX.to_be_bytes())],
            violation(Violation::WindowOverflow),
        ),
        (
            "6.9.1 stream overflows",
            BOTH,
            vec![frame(WINDOW, NONE, 1, &WINDOW_MAX.to_be_bytes())],
            Then::Stream(1, ErrorCode::FlowControlError),
        ),
        ("6.10 on 0", BOTH, vec![frame(CONTINUATION, WHOLE, 0, b"")], continuation),
        ("6.10 no beginning", BOTH, vec![frame(CONTINUATION, WHOLE, 1, b"")], continuation),
        ("6.10 idle", BOTH, vec![frame(CONTINUATION, WHOLE, 3, b"")], continuation),
    ]);
}

#[test]
fn section_5_1_streams_that_are_over() {
    let end = || frame(DATA, END, 1, b"");
    let reset = || frame(RST, NONE, 1, &[0; 4]);
    let data = || frame(DATA, NONE, 1, b"x");
    let window = || frame(WINDOW, NONE, 1, &[0, 0, 0, 1]);
    check_rows(vec![
        ("5.1 DATA on idle", BOTH, vec![frame(DATA, NONE, 3, b"x")], violation(Violation::Idle)),
        ("5.1 DATA after END_STREAM", BOTH, vec![end(), data()], Then::Stream(1, StreamClosed)),
        ("5.1 END_STREAM twice", BOTH, vec![end(), end()], Then::Stream(1, StreamClosed)),
        ("5.1 WINDOW_UPDATE after END_STREAM", BOTH, vec![end(), window()], Then::Fine),
        ("5.1 RST_STREAM after END_STREAM", BOTH, vec![end(), reset()], Then::Fine),
        ("5.1 PRIORITY after END_STREAM", BOTH, vec![end(), frame(2, 0, 1, &[0; 5])], Then::Fine),
    ]);
}

/// A request on stream 3 of which more is to come.
fn begun(next: Vec<u8>) -> Vec<Vec<u8>> {
    vec![frame(HEADERS, NONE, 3, b"\x20\x02\x07CONNECT\x01\x03a:1"), next]
}

fn ask(stream: u32, rest: &[u8]) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &[b"\x20", rest].concat())
}

#[test]
fn sections_4_3_to_8_5_requests() {
    let connect = b"\x02\x07CONNECT\x01\x03a:1".as_slice();
    let with = |field: &[u8]| vec![ask(3, &[connect, field].concat())];
    let compression = violation(Violation::Compression);
    let continuation = violation(Violation::Continuation);
    let id = violation(Violation::StreamId);
    let refused = Then::Stream(3, Protocol);
    check_rows(vec![
        ("4.3 index 0", SERVER, vec![ask(3, b"\x80")], compression),
        ("4.3 no such index", SERVER, vec![ask(3, b"\xbe")], compression),
        ("4.3 cut", SERVER, vec![ask(3, &connect[..4])], compression),
        ("4.3 large integer", SERVER, vec![ask(3, b"\xff\xff\xff\xff\xff\x7f")], compression),
        ("4.3 EOS", SERVER, vec![ask(3, b"\x00\x84\xff\xff\xff\xff\x00")], compression),
        ("4.3.1 table above 0", SERVER, vec![ask(3, b"\x21\x82")], compression),
        ("4.3.1 late update", SERVER, vec![ask(3, b"\x82\x20")], compression),
        ("5.1.1 even", SERVER, vec![ask(4, connect)], id),
        ("5.1.1 not in order", SERVER, vec![ask(7, connect), ask(5, connect)], id),
        ("5.1.1 gap", SERVER, vec![ask(9, connect)], Then::Fine),
        ("6.10 whole", SERVER, begun(frame(CONTINUATION, WHOLE, 3, b"")), Then::Fine),
        ("6.10 DATA", SERVER, begun(frame(DATA, NONE, 1, b"x")), continuation),
        ("6.10 PING", SERVER, begun(frame(PING, NONE, 0, &[0; 8])), continuation),
        ("6.10 SETTINGS", SERVER, begun(frame(SETTINGS, NONE, 0, b"")), continuation),
        ("6.10 unknown", SERVER, begun(frame(0x42, NONE, 3, b"")), continuation),
        ("6.10 HEADERS", SERVER, begun(ask(5, connect)), continuation),
        ("6.10 other stream", SERVER, begun(frame(CONTINUATION, WHOLE, 1, b"")), continuation),
        ("8.2.1 upper case", SERVER, with(b"\x00\x01A\x01b"), refused),
        ("8.2.1 line feed", SERVER, with(b"\x00\x01a\x01\n"), refused),
        ("8.2.1 NUL", SERVER, with(b"\x00\x01a\x01\0"), refused),
        ("8.2.2 connection", SERVER, with(b"\x00\x0aconnection\x01x"), refused),
        ("8.2.2 upgrade", SERVER, with(b"\x00\x07upgrade\x01x"), refused),
        ("8.2.2 te", SERVER, with(b"\x00\x02te\x04gzip"), refused),
        ("8.2.2 te: trailers", SERVER, with(b"\x00\x02te\x08trailers"), Then::Fine),
        ("8.3 unknown", SERVER, with(b"\x00\x02:x\x01y"), refused),
        ("8.3 :status", SERVER, with(b"\x88"), refused),
        ("8.3 twice", SERVER, with(b"\x01\x03b:2"), refused),
        ("8.3 last", SERVER, with(b"\x00\x01a\x01b\x01\x03a:1"), refused),
        ("8.5 CONNECT", SERVER, vec![ask(3, connect)], Then::Fine),
        ("8.5 :scheme", SERVER, with(b"\x87"), refused),
        ("8.5 :path", SERVER, with(b"\x84"), refused),
        ("8.5 no :authority", SERVER, vec![ask(3, b"\x02\x07CONNECT")], refused),
        ("8.3.1 no :method", SERVER, vec![ask(3, b"\x01\x03a:1")], refused),
        ("8.1 empty list", SERVER, vec![ask(3, b"")], refused),
    ]);
}
