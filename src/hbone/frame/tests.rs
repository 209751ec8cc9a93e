//! Tests of frames.

use super::*;
use crate::hbone::Role;

const LEN_MAX: u32 = FRAME_LEN_DEFAULT;
const CONNECTION: Scope = Scope::Connection;

/// Kind, flags, stream and payload of a frame, and what is wrong with it.
type Wrong<'a> = (Kind, u8, u32, &'a [u8], Fault, ErrorCode, Scope);

/// What a reader makes of a frame's bytes.
fn read(bytes: &[u8], role: Role) -> Result<Frame<'_>, Malformed> {
    let (head, payload) = bytes.split_first_chunk::<HEADER_LEN>().unwrap();
    let header = Header::parse(*head);
    header.check(LEN_MAX)?;
    parse(header, payload, role)
}

fn raw(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    [&Header { len, kind, flags, stream }.emit()[..], payload].concat()
}

fn check(bytes: &[u8], expected: Frame<'_>) {
    for role in [Role::Client, Role::Server] {
        assert_eq!(read(bytes, role), Ok(expected), "{bytes:x?}");
    }
}

#[test]
fn every_kind_is_read() {
    let priority = Priority { depends_on: 3, exclusive: true, weight: 15 };
    let padded = flag::PADDED | flag::END_STREAM;
    let headers = flag::PADDED | flag::PRIORITY | flag::END_HEADERS;
    check(
        &raw(Kind::Data, 0, 1, b"abc"),
        Frame::Data { data: b"abc", overhead: 0, end_stream: false },
    );
    check(&raw(Kind::Data, 0, 1, b""), Frame::Data { data: b"", overhead: 0, end_stream: false });
    check(
        &raw(Kind::Data, padded, 1, b"\x02abc\0\0"),
        Frame::Data { data: b"abc", overhead: 3, end_stream: true },
    );
    check(
        &raw(Kind::Data, padded, 1, b"\0abc"),
        Frame::Data { data: b"abc", overhead: 1, end_stream: true },
    );
    check(
        &raw(Kind::Data, padded, 1, b"\x02\0\0"),
        Frame::Data { data: b"", overhead: 3, end_stream: true },
    );
    check(
        &raw(Kind::Headers, flag::END_STREAM, 5, b"x"),
        Frame::Headers { fragment: b"x", end_headers: false, end_stream: true, priority: None },
    );
    check(
        &raw(Kind::Headers, headers, 5, b"\x01\x80\0\0\x03\x0fx\0"),
        Frame::Headers {
            fragment: b"x",
            end_headers: true,
            end_stream: false,
            priority: Some(priority),
        },
    );
    check(&raw(Kind::Priority, 0, 1, b"\x80\0\0\x03\x0f"), Frame::Priority(priority));
    check(&raw(Kind::RstStream, 0, 1, b"\0\0\0\x0a"), Frame::RstStream(ErrorCode::ConnectError));
    check(&raw(Kind::RstStream, 0, 1, b"\0\0\x01\0"), Frame::RstStream(ErrorCode::Other(256)));
    check(&raw(Kind::Settings, flag::ACK, 0, b""), Frame::SettingsAck);
    check(&raw(Kind::Ping, 0, 0, b"12345678"), Frame::Ping(*b"12345678"));
    check(&raw(Kind::Ping, flag::ACK, 0, b"12345678"), Frame::PingAck(*b"12345678"));
    check(
        &raw(Kind::GoAway, 0, 0, b"\xff\xff\xff\xff\0\0\0\x0bcalm"),
        Frame::GoAway {
            last_stream: STREAM_ID_MAX,
            code: ErrorCode::EnhanceYourCalm,
            debug: b"calm",
        },
    );
    // The top bit of an increment is reserved, and ignored.
    for stream in [0, 1] {
        let bytes = raw(Kind::WindowUpdate, 0, stream, b"\xff\xff\xff\xff");
        check(&bytes, Frame::WindowUpdate(WINDOW_MAX));
    }
    check(
        &raw(Kind::Continuation, flag::END_HEADERS, 1, b"yz"),
        Frame::Continuation { fragment: b"yz", end_headers: true },
    );
    check(&raw(Kind::Unknown(0x0a), 0xff, 0, b"?"), Frame::Unknown);
    check(&raw(Kind::Unknown(0xff), 0xff, 1, b"?"), Frame::Unknown);
}

#[test]
fn flags_without_a_meaning_and_the_reserved_bit_are_ignored() {
    let ping = raw(Kind::Ping, !flag::ACK, 0x8000_0000, b"12345678");
    check(&ping, Frame::Ping(*b"12345678"));
    let mut bytes = raw(Kind::RstStream, 0xff, 1, b"\0\0\0\0");
    bytes[5] |= 0x80;
    check(&bytes, Frame::RstStream(ErrorCode::NoError));
    // PADDED means nothing on CONTINUATION, nor END_STREAM.
    let continuation = raw(Kind::Continuation, !flag::END_HEADERS, 1, b"\x09ab");
    check(&continuation, Frame::Continuation { fragment: b"\x09ab", end_headers: false });
    let update = raw(Kind::WindowUpdate, 0xff, 1, b"\0\0\0\x01");
    check(&update, Frame::WindowUpdate(1));
}

#[test]
fn every_malformed_frame_is_refused_by_name() {
    use ErrorCode::{FrameSizeError as Size, ProtocolError as Protocol};
    let long = vec![0; 16_385];
    let five = b"\0\0\0\0\0".as_slice();
    let rows: &[Wrong<'_>] = &[
        // 4.2
        (Kind::Data, 0, 1, &long, Fault::TooLong, Size, CONNECTION),
        (Kind::Headers, 0, 1, &long, Fault::TooLong, Size, CONNECTION),
        (Kind::Continuation, 0, 1, &long, Fault::TooLong, Size, CONNECTION),
        (Kind::GoAway, 0, 0, &long, Fault::TooLong, Size, CONNECTION),
        (Kind::Unknown(0x20), 0, 0, &long, Fault::TooLong, Size, CONNECTION),
        // 6.1
        (Kind::Data, 0, 0, b"a", Fault::OnConnection, Protocol, CONNECTION),
        (Kind::Data, flag::PADDED, 1, b"", Fault::Length, Size, CONNECTION),
        (Kind::Data, flag::PADDED, 1, b"\x01", Fault::Padding, Protocol, CONNECTION),
        (Kind::Data, flag::PADDED, 1, b"\x04abc", Fault::Padding, Protocol, CONNECTION),
        // 6.2
        (Kind::Headers, 0, 0, b"a", Fault::OnConnection, Protocol, CONNECTION),
        (Kind::Headers, flag::PADDED, 1, b"", Fault::Length, Size, CONNECTION),
        (Kind::Headers, flag::PADDED, 1, b"\x02a", Fault::Padding, Protocol, CONNECTION),
        (Kind::Headers, flag::PRIORITY, 1, b"\0\0\0\0", Fault::Length, Size, CONNECTION),
        (Kind::Headers, 0x28, 1, five, Fault::Length, Size, CONNECTION),
        (Kind::Headers, 0x28, 1, b"\x01\0\0\0\0\0", Fault::Padding, Protocol, CONNECTION),
        // 6.3
        (Kind::Priority, 0, 0, five, Fault::OnConnection, Protocol, CONNECTION),
        (Kind::Priority, 0, 7, b"\0\0\0\0", Fault::Length, Size, Scope::Stream(7)),
        (Kind::Priority, 0, 7, b"\0\0\0\0\0\0", Fault::Length, Size, Scope::Stream(7)),
        // 6.4
        (Kind::RstStream, 0, 0, b"\0\0\0\0", Fault::OnConnection, Protocol, CONNECTION),
        (Kind::RstStream, 0, 1, b"\0\0\0", Fault::Length, Size, CONNECTION),
        (Kind::RstStream, 0, 1, five, Fault::Length, Size, CONNECTION),
        // 6.5
        (Kind::Settings, 0, 1, b"", Fault::OnStream, Protocol, CONNECTION),
        (Kind::Settings, 0, 0, five, Fault::Length, Size, CONNECTION),
        (Kind::Settings, flag::ACK, 0, b"\0\0\0\0\0\0", Fault::Length, Size, CONNECTION),
        (Kind::Settings, flag::ACK, 1, b"", Fault::OnStream, Protocol, CONNECTION),
        // 6.6, 8.4
        (Kind::PushPromise, 0, 1, b"\0\0\0\x02", Fault::Push, Protocol, CONNECTION),
        // 6.7
        (Kind::Ping, 0, 1, b"12345678", Fault::OnStream, Protocol, CONNECTION),
        (Kind::Ping, 0, 0, b"1234567", Fault::Length, Size, CONNECTION),
        (Kind::Ping, flag::ACK, 0, b"123456789", Fault::Length, Size, CONNECTION),
        // 6.8
        (Kind::GoAway, 0, 1, b"\0\0\0\0\0\0\0\0", Fault::OnStream, Protocol, CONNECTION),
        (Kind::GoAway, 0, 0, b"\0\0\0\0\0\0\0", Fault::Length, Size, CONNECTION),
        // 6.9
        (Kind::WindowUpdate, 0, 0, five, Fault::Length, Size, CONNECTION),
        (Kind::WindowUpdate, 0, 1, b"\0\0\0", Fault::Length, Size, CONNECTION),
        (Kind::WindowUpdate, 0, 0, &[0; 4], Fault::NoIncrement, Protocol, CONNECTION),
        (Kind::WindowUpdate, 0, 9, &[0; 4], Fault::NoIncrement, Protocol, Scope::Stream(9)),
        (Kind::WindowUpdate, 0, 9, b"\x80\0\0\0", Fault::NoIncrement, Protocol, Scope::Stream(9)),
        // 6.10
        (Kind::Continuation, 0, 0, b"a", Fault::OnConnection, Protocol, CONNECTION),
    ];
    for &(kind, flags, stream, payload, fault, code, scope) in rows {
        let bytes = raw(kind, flags, stream, payload);
        for role in [Role::Client, Role::Server] {
            let expected = Err(Malformed { fault, code, scope });
            assert_eq!(read(&bytes, role), expected, "{kind:?} {flags:x} on {stream}");
        }
    }
}

#[test]
fn values_of_settings_are_checked() {
    let ok = |id: u16, value: u32| (id, value, None);
    let bad = |id: u16, value: u32, fault, code| (id, value, Some((fault, code)));
    let protocol = ErrorCode::ProtocolError;
    let rows = [
        ok(1, 0),
        ok(1, u32::MAX),
        ok(2, 0),
        bad(2, 2, Fault::EnablePush, protocol),
        ok(3, 0),
        ok(3, u32::MAX),
        ok(4, 0),
        ok(4, WINDOW_MAX),
        bad(4, WINDOW_MAX + 1, Fault::InitialWindowSize, ErrorCode::FlowControlError),
        bad(5, 0, Fault::MaxFrameSize, protocol),
        bad(5, 16_383, Fault::MaxFrameSize, protocol),
        ok(5, 16_384),
        ok(5, 16_777_215),
        bad(5, 16_777_216, Fault::MaxFrameSize, protocol),
        ok(6, 0),
        ok(7, 7),
        ok(8, 1),
        bad(8, 2, Fault::EnableConnectProtocol, protocol),
        ok(0, u32::MAX),
        ok(u16::MAX, u32::MAX),
    ];
    for (id, value, wrong) in rows {
        let setting = Setting::from(id);
        assert_eq!(u16::from(setting), id);
        let mut bytes = Vec::new();
        settings(&[(Setting::MaxConcurrentStreams, 1), (setting, value)], &mut bytes);
        for role in [Role::Client, Role::Server] {
            let found = read(&bytes, role);
            if let Some((fault, code)) = wrong {
                assert_eq!(found, Err(Malformed { fault, code, scope: CONNECTION }), "{id}");
                continue;
            }
            let Ok(Frame::Settings(entries)) = found else { panic!("{id} {value}: {found:?}") };
            assert_eq!((entries.len(), entries.is_empty()), (2, false));
            let entries: Vec<_> = entries.collect();
            assert_eq!(entries, [(Setting::MaxConcurrentStreams, 1), (setting, value)]);
        }
    }
    // Only a client may ask for pushes (6.5.2).
    let mut bytes = Vec::new();
    settings(&[(Setting::EnablePush, 1)], &mut bytes);
    assert!(read(&bytes, Role::Server).is_ok());
    let expected = Malformed { fault: Fault::EnablePush, code: protocol, scope: CONNECTION };
    assert_eq!(read(&bytes, Role::Client), Err(expected));
}

#[test]
fn a_payload_that_is_not_as_long_as_announced_is_refused() {
    let length = Malformed::connection(Fault::Length, ErrorCode::FrameSizeError);
    for kind in (0..=10).map(Kind::from) {
        for flags in [0, flag::ACK, flag::PADDED, flag::PRIORITY, 0x28, 0xff] {
            for len in (0..20).filter(|&len| len != 12) {
                let header = Header { len: 12, kind, flags, stream: 1 };
                let payload = vec![0; len];
                let found = parse(header, &payload, Role::Server);
                assert_eq!(found, Err(length), "{header:?} {len}");
            }
        }
    }
}

#[test]
fn what_we_write_is_read() {
    check(&rst_stream(3, ErrorCode::Cancel), Frame::RstStream(ErrorCode::Cancel));
    check(&settings_ack(), Frame::SettingsAck);
    check(&ping(*b"abcdefgh", false), Frame::Ping(*b"abcdefgh"));
    check(&ping(*b"abcdefgh", true), Frame::PingAck(*b"abcdefgh"));
    check(&window_update(0, WINDOW_MAX), Frame::WindowUpdate(WINDOW_MAX));
    check(&window_update(STREAM_ID_MAX, 1), Frame::WindowUpdate(1));
    let mut bytes = Vec::new();
    goaway(u32::MAX, ErrorCode::Http11Required, b"words", &mut bytes);
    let code = ErrorCode::Http11Required;
    check(&bytes, Frame::GoAway { last_stream: STREAM_ID_MAX, code, debug: b"words" });
    for end_stream in [false, true] {
        let bytes = [&data(1, 3, end_stream)[..], b"abc"].concat();
        check(&bytes, Frame::Data { data: b"abc", overhead: 0, end_stream });
    }
}

#[test]
fn long_blocks_are_continued() {
    let block: Vec<u8> = (0..=255).cycle().take(1_000).collect();
    for (len_max, frames) in [(1_000, 1), (1_001, 1), (999, 2), (500, 2), (333, 4), (1, 1_000)] {
        let mut bytes = Vec::new();
        headers(7, &block, true, len_max, &mut bytes);
        let (mut rest, mut joined, mut count) = (bytes.as_slice(), Vec::new(), 0);
        while let Some((head, after)) = rest.split_first_chunk::<HEADER_LEN>() {
            let header = Header::parse(*head);
            assert_eq!(header.stream, 7);
            assert!(header.len <= len_max);
            let (payload, after) = after.split_at(header.len as usize);
            rest = after;
            count += 1;
            let (fragment, last) = match parse(header, payload, Role::Server).unwrap() {
                Frame::Headers { fragment, end_headers, end_stream, priority: None } => {
                    assert!(count == 1 && end_stream);
                    (fragment, end_headers)
                }
                Frame::Continuation { fragment, end_headers } => {
                    assert!(count > 1);
                    (fragment, end_headers)
                }
                frame => panic!("{frame:?}"),
            };
            assert_eq!(last, rest.is_empty());
            joined.extend_from_slice(fragment);
        }
        assert_eq!((joined, count), (block.clone(), frames), "{len_max}");
    }
    let mut bytes = Vec::new();
    headers(1, &[], false, 16_384, &mut bytes);
    assert_eq!(bytes, raw(Kind::Headers, flag::END_HEADERS, 1, b""));
}

#[test]
fn a_body_is_known_from_its_prefix_alone() {
    // However the payload is split, the prefix says the same.
    let payload = b"\x03\0\0\0\x05\x10content\0\0\0";
    let flags = flag::PADDED | flag::PRIORITY;
    let header = Header { len: 16, kind: Kind::Headers, flags, stream: 1 };
    let expected = Body { prefix: 6, len: 7, padding: 3 };
    assert_eq!(header.prefix_len(), 6);
    for split in 6..=payload.len() {
        assert_eq!(header.body(&payload[..split]), Ok(expected), "{split}");
    }
    let bare = Header { flags: 0, kind: Kind::Data, ..header };
    assert_eq!(
        (bare.prefix_len(), bare.body(b"")),
        (0, Ok(Body { prefix: 0, len: 16, padding: 0 }))
    );
    let padded = Header { flags: flag::PADDED, ..bare };
    assert!(padded.body(b"").is_err());
    assert_eq!(padded.body(b"\x0f"), Ok(Body { prefix: 1, len: 0, padding: 15 }));
    assert_eq!(padded.body(b"\x10").map_err(|error| error.fault), Err(Fault::Padding));
}

#[test]
fn headers_survive_and_random_frames_are_read_or_refused() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..20_000 {
        let mut head = [0; HEADER_LEN];
        rng.fill(&mut head);
        head[5] &= 0x7f;
        assert_eq!(Header::parse(head).emit(), head);
        let kind = Kind::from(rng.u8(..12));
        let payload: Vec<u8> = (0..rng.usize(..24)).map(|_| rng.u8(..)).collect();
        let bytes = raw(kind, rng.u8(..), rng.u32(..2), &payload);
        for role in [Role::Client, Role::Server] {
            match read(&bytes, role) {
                Ok(Frame::Data { data, overhead, .. }) => {
                    assert_eq!(data.len() + overhead as usize, payload.len());
                }
                Ok(_) => {}
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}
