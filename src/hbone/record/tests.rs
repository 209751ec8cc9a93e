use std::io::{Read, Write};

use super::*;
use crate::hbone::handshake::Keys;
use crate::hbone::testing::{SUITES, directions, key_pair, with_client, with_server};

const SPLITS: [usize; 7] = [1, 2, 5, 22, 23, 1_000, usize::MAX];

/// One end of a connection, as far as records go.
struct End {
    sealer: Sealer,
    opener: Opener,
    incoming: Vec<u8>,
}

impl End {
    fn new(mut keys: Keys, records_max: u64) -> Self {
        let (role, incoming) = (keys.role, std::mem::take(&mut keys.rest));
        let (sending, receiving) = directions(keys);
        Self {
            sealer: Sealer::new(sending, records_max).unwrap(),
            opener: Opener::new(receiving, role).unwrap(),
            incoming,
        }
    }

    fn send(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; SEALED_BY_ITSELF_MAX + payload.len() + OVERHEAD];
        let due = self.sealer.due(&mut out).unwrap();
        assert!(self.sealer.room() > 0);
        out[due + HEADER..due + HEADER + payload.len()].copy_from_slice(payload);
        let len = self.sealer.seal(&mut out[due..], payload.len()).unwrap();
        out.truncate(due + len);
        out
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
        self.incoming.extend_from_slice(bytes);
        let mut data = Vec::new();
        while let Some(len) = record_len(&self.incoming)?.filter(|&len| len <= self.incoming.len())
        {
            let mut record: Vec<u8> = self.incoming.drain(..len).collect();
            match self.opener.open(&mut record)? {
                Opened::Data(plain) => data.extend_from_slice(plain),
                Opened::UpdateAsked => self.sealer.ask_update(),
                Opened::Nothing | Opened::Closed => {}
            }
        }
        Ok(data)
    }
}

/// A rustls connection, fed and drained.
macro_rules! peer_reads {
    ($peer:expr, $bytes:expr) => {{
        let mut rest: &[u8] = $bytes;
        let mut data = Vec::new();
        while !rest.is_empty() {
            $peer.read_tls(&mut rest).unwrap();
            let state = $peer.process_new_packets().unwrap();
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            $peer.reader().read_exact(&mut plain).unwrap();
            data.extend_from_slice(&plain);
        }
        data
    }};
}

macro_rules! peer_writes {
    ($peer:expr, $plain:expr) => {{
        let mut out = Vec::new();
        $peer.writer().write_all($plain).unwrap();
        while $peer.wants_write() {
            $peer.write_tls(&mut out).unwrap();
        }
        out
    }};
}

/// Data and key updates from either side against rustls, our keys changing every `records_max`.
macro_rules! converse {
    ($ours:expr, $peer:expr, $split:expr) => {{
        for round in 0_usize..40 {
            let sent = vec![u8::try_from(round).unwrap(); round * 7 % 300];
            assert_eq!(peer_reads!($peer, &$ours.send(&sent)), sent);
            if round % 3 == 0 {
                $peer.refresh_traffic_keys().unwrap();
            }
            let answer = vec![b'x'; round * 13 % 500];
            let wire = peer_writes!($peer, &answer);
            let mut got = Vec::new();
            for piece in wire.chunks($split) {
                got.extend($ours.receive(piece).unwrap());
            }
            assert_eq!(got, answer);
        }
        assert!($ours.sealer.state().generation >= 40 / 6, "our keys changed");
        assert!($ours.opener.state().generation >= 40 / 3, "the peer's keys changed");
    }};
}

#[test]
fn talks_with_a_rustls_server_at_every_split() {
    for (suite, split) in SUITES.into_iter().flat_map(|suite| SPLITS.map(|split| (suite, split))) {
        let (keys, mut peer) = with_server(suite, 4, split);
        let mut ours = End::new(keys, 7);
        ours.receive(&[]).unwrap();
        converse!(ours, peer, split);
        assert!(!ours.opener.state().secret.expose().is_empty());
    }
}

#[test]
fn talks_with_a_rustls_client_at_every_split() {
    for (suite, split) in SUITES.into_iter().flat_map(|suite| SPLITS.map(|split| (suite, split))) {
        let (keys, mut peer) = with_client(suite, b"early", split);
        let mut ours = End::new(keys, 7);
        assert_eq!(ours.receive(&[]).unwrap(), b"early");
        converse!(ours, peer, split);
    }
}

#[test]
fn close_notify_goes_both_ways() {
    let (keys, mut peer) = with_client(SUITES[0], b"", usize::MAX);
    let mut ours = End::new(keys, 7);
    let mut out = [0; 64];
    let len = ours.sealer.seal_alert(&mut out, Alert::CLOSE_NOTIFY).unwrap();
    let mut rest = &out[..len];
    peer.read_tls(&mut rest).unwrap();
    assert!(peer.process_new_packets().unwrap().peer_has_closed());
    peer.send_close_notify();
    ours.receive(&peer_writes!(peer, b"")).unwrap();
    assert!(ours.opener.is_closed());
    let (_, mut forger) = pair();
    let mut record = forger.send(b"more");
    assert_eq!(ours.opener.open(&mut record), Err(RecordError::AfterClose));
}

/// Our client's end, and a server that can say anything.
fn pair() -> (End, End) {
    let (client, server) = key_pair(SUITES[0]);
    (End::new(client, 1 << 24), End::new(server, 1 << 24))
}

fn forge(from: &mut End, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut record = vec![0; payload.len() + OVERHEAD];
    record[HEADER..HEADER + payload.len()].copy_from_slice(payload);
    from.sealer.seal_as(&mut record, payload.len(), kind).unwrap();
    record
}

/// Records of one sender, as (content type, payload), and what the receiver makes of them.
type Case<'a> = (&'a str, Vec<(u8, Vec<u8>)>, Result<(), RecordError>);

fn ticket(len: u8) -> Vec<u8> {
    [vec![4, 0, 0, len], vec![7; usize::from(len)]].concat()
}

fn to_client() -> Vec<Case<'static>> {
    use RecordError::*;
    let update = |asks| (HANDSHAKE, vec![24, 0, 0, 1, asks]);
    let data = || (APPLICATION_DATA, vec![1]);
    vec![
        ("padding", vec![(0, vec![1, APPLICATION_DATA])], Ok(())),
        ("two tickets in one", vec![(HANDSHAKE, [ticket(9), ticket(8)].concat())], Ok(())),
        (
            "a ticket over four",
            ticket(2).chunks(2).map(|p| (HANDSHAKE, p.into())).collect(),
            Ok(()),
        ),
        ("16 tickets", vec![(HANDSHAKE, ticket(1).repeat(16)), data()], Ok(())),
        ("17 tickets", vec![(HANDSHAKE, ticket(1).repeat(17))], Err(TooManyTickets)),
        ("an empty ticket", vec![(HANDSHAKE, ticket(0))], Err(Malformed)),
        ("a huge ticket", vec![(HANDSHAKE, vec![4, 3, 0, 0])], Err(Malformed)),
        ("a ticket cut by data", vec![(HANDSHAKE, vec![4, 0, 0, 9]), data()], Err(Fragmented)),
        ("an empty fragment", vec![(HANDSHAKE, vec![])], Err(Fragmented)),
        ("an update in pieces", vec![(HANDSHAKE, vec![24, 0]), (HANDSHAKE, vec![0, 1, 0])], Ok(())),
        ("behind an update", vec![(HANDSHAKE, vec![24, 0, 0, 1, 0, 4])], Err(Fragmented)),
        ("an update of 2", vec![update(2)], Err(Malformed)),
        ("a long update", vec![(HANDSHAKE, vec![24, 0, 0, 2, 0, 0])], Err(Malformed)),
        ("a client hello", vec![(HANDSHAKE, vec![1, 0, 0, 1, 0])], Err(HandshakeMessage(1))),
        ("a request", vec![(HANDSHAKE, vec![13, 0, 0, 1, 0])], Err(HandshakeMessage(13))),
        ("a change of cipher", vec![(20, vec![1])], Err(ContentType(20))),
        ("nothing but zeros", vec![(0, vec![0; 9])], Err(OnlyPadding)),
        ("32 empty records", vec![(APPLICATION_DATA, vec![]); 32], Ok(())),
        ("33 empty records", vec![(APPLICATION_DATA, vec![]); 33], Err(TooManyWithoutData)),
        ("user_canceled", vec![(ALERT, vec![1, 90]), (ALERT, vec![1, 0])], Ok(())),
        ("an alert", vec![(ALERT, vec![2, 40])], Err(AlertReceived(Alert(40)))),
        ("a short alert", vec![(ALERT, vec![2])], Err(MalformedAlert)),
        ("after the end", vec![(ALERT, vec![1, 0]), data()], Err(AfterClose)),
        ("too much", vec![(APPLICATION_DATA, vec![1; PAYLOAD_MAX + 1])], Err(Overflow)),
        ("the most", vec![(APPLICATION_DATA, vec![1; PAYLOAD_MAX])], Ok(())),
        ("far too much", vec![(APPLICATION_DATA, vec![1; PAYLOAD_MAX + 240])], Err(Overflow)),
    ]
}

#[test]
fn every_record_is_taken_or_has_a_name() {
    for (name, records, expected) in to_client() {
        let (mut ours, mut peer) = pair();
        let mut result = Ok(());
        for (kind, payload) in records {
            let record = forge(&mut peer, kind, &payload);
            result = ours.receive(&record).map(drop);
            if result.is_err() {
                break;
            }
        }
        assert_eq!(result, expected, "{name}");
    }
    // A server takes no tickets.
    let (mut client, mut server) = pair();
    let record = forge(&mut client, HANDSHAKE, &ticket(3));
    assert_eq!(server.receive(&record), Err(RecordError::HandshakeMessage(4)));
}

#[test]
fn key_updates_without_data_are_bounded() {
    for (between, expected) in [(false, Err(RecordError::TooManyWithoutData)), (true, Ok(()))] {
        let (mut ours, mut peer) = pair();
        let mut result = Ok(());
        for _ in 0..100 {
            let mut out = [0; SEALED_BY_ITSELF_MAX];
            peer.sealer.ask_update();
            let len = peer.sealer.due(&mut out).unwrap();
            result = result.and_then(|()| ours.receive(&out[..len]).map(drop));
            if between {
                result = result.and_then(|()| ours.receive(&peer.send(b"x")).map(drop));
            }
        }
        assert_eq!(result, expected);
    }
}

#[test]
fn an_asked_update_is_answered_once() {
    let (mut ours, mut peer) = pair();
    for _ in 0..3 {
        let record = forge(&mut peer, HANDSHAKE, &[24, 0, 0, 1, 1]);
        peer.sealer.next_generation().unwrap();
        ours.receive(&record).unwrap();
    }
    assert_eq!(peer.receive(&ours.send(b"data")).unwrap(), b"data");
    assert_eq!((peer.opener.state().generation, ours.sealer.state().generation), (1, 1));
}

#[test]
fn changed_records_do_not_open() {
    let (_, mut peer) = pair();
    let record = peer.send(b"some bytes");
    for at in 0..record.len() {
        let (mut ours, mut peer) = pair();
        let mut record = peer.send(b"some bytes");
        record[at] ^= 0x40;
        let result = ours.receive(&record);
        let fine = match at {
            0 => matches!(result, Err(RecordError::ContentType(87))),
            3 => matches!(result, Err(RecordError::Overflow) | Ok(_)),
            4 => result.is_err() || !ours.incoming.is_empty(),
            _ => result == Err(RecordError::Undecryptable),
        };
        assert!(fine, "byte {at}: {result:?}");
    }
}

#[test]
fn headers_are_judged_before_their_bodies() {
    for (bytes, expected) in [
        (&[][..], Ok(None)),
        (&[23, 3], Ok(None)),
        (&[22], Err(RecordError::ContentType(22))),
        (&[21, 3, 3, 0, 2], Err(RecordError::ContentType(21))),
        (&[23, 3, 3, 0, 16], Err(RecordError::TooShort)),
        (&[23, 3, 3, 0, 17], Ok(Some(22))),
        (&[23, 3, 3, 65, 0], Ok(Some(RECORD_MAX))),
        (&[23, 3, 3, 65, 1], Err(RecordError::Overflow)),
    ] {
        assert_eq!(record_len(bytes), expected, "{bytes:?}");
    }
}

/// RFC 8448 3: the server's first application keys.
#[test]
fn derives_the_keys_of_the_published_trace() {
    let hex = |text: &str| -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits.chunks(2);
        pairs.map(|d| u8::from_str_radix(str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    };
    let secret = hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
    let secret = TrafficSecret::new(Suite::Aes128GcmSha256, &secret).unwrap();
    let key = hex("9f02283b6c9c07efc26bb9f2ac92e356");
    assert!(secret.gives(&key, &hex("cf782b88dd83549aadf1e984")));
    assert!(!secret.gives(&key, &hex("cf782b88dd83549aadf1e985")));
    assert!(TrafficSecret::new(Suite::Aes256GcmSha384, secret.expose()).is_err());
}
