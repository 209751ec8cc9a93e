use super::*;

const CLIENT: [u8; 4] = [10, 1, 1, 10];
const SERVER: [u8; 4] = [10, 1, 2, 10];

/// An Ethernet frame from the client, port 5000, to the server's 15008.
fn frame(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend_from_slice(&[0x08, 0x00, 0x45, 0]);
    let total = u16::try_from(40 + payload.len()).expect("small");
    frame.extend_from_slice(&total.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend_from_slice(&CLIENT);
    frame.extend_from_slice(&SERVER);
    frame.extend_from_slice(&5000_u16.to_be_bytes());
    frame.extend_from_slice(&15008_u16.to_be_bytes());
    frame.extend_from_slice(&sequence.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(payload);
    // Padding of short frames is not payload.
    frame.resize(frame.len().max(60), 0xee);
    frame
}

fn captured(frames: &[Vec<u8>]) -> Captured {
    let mut captured = Captured::default();
    for frame in frames {
        captured.take(frame);
    }
    captured
}

#[test]
fn streams_are_put_in_order() {
    const SYN: u8 = 2;
    let syn = frame(u32::MAX, SYN, b"");
    let check = |frames: &[Vec<u8>], bytes: &[u8], whole: bool| {
        let streams = captured(frames).streams();
        assert_eq!(streams.len(), 1);
        assert_eq!((&streams[0].bytes[..], streams[0].whole), (bytes, whole));
        assert_eq!(streams[0].to, SocketAddr::from((SERVER, 15008)));
    };
    let (ab, cd, bc) = (frame(0, 0, b"ab"), frame(2, 0, b"cd"), frame(1, 0, b"bc"));
    check(&[syn.clone(), ab.clone(), cd.clone()], b"abcd", true);
    check(&[syn.clone(), cd.clone(), ab.clone()], b"abcd", true);
    check(&[syn.clone(), ab.clone(), bc, ab.clone(), cd.clone()], b"abcd", true);
    check(&[syn.clone(), cd.clone()], b"", false);
    check(&[ab, cd], b"abcd", false);
    check(&[syn], b"", true);
}

#[test]
fn payload_is_found_across_segments() {
    let capture = captured(&[frame(9, 2, b""), frame(10, 0, b"sec"), frame(13, 0, b"ret")]);
    for (needle, expected) in
        [(&b"secret"[..], true), (b"ret", true), (b"secrets", false), (b"", false)]
    {
        assert_eq!(capture.contains(needle), expected, "{needle:?}");
    }
    assert!(!captured(&[b"\x00".to_vec(), vec![0xff; 70]]).contains(b"\xff"));
}

#[test]
fn tls_is_told_from_other_things() {
    let check = |bytes: &[u8], expected: Option<Records>| {
        let to = SocketAddr::from((SERVER, 15008));
        let stream = Stream { from: to, to, bytes: bytes.to_vec(), whole: true };
        assert_eq!(stream.records(), expected, "{bytes:?}");
    };
    check(b"", Some(Records::default()));
    check(b"\x16\x03\x01\x00\x01x", Some(Records { handshake: 1, encrypted: 0, rest: 0 }));
    check(
        b"\x16\x03\x01\x00\x01x\x14\x03\x03\x00\x01\x01\x17\x03\x03\x00\x02yz\x17\x03",
        Some(Records { handshake: 2, encrypted: 1, rest: 2 }),
    );
    check(b"PRI * HTTP/2.0", None);
    check(b"\x17\x03\x03\x00\x00", None);
    check(b"\x17\x03\x03\x00\x01xGET / HTTP/1.1", None);
    check(b"\x17\x03\x03\xff\xffx", None);
}
