use std::io::{Read, Write};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{AlertDescription, ConnectionTrafficSecrets};

use super::*;
use crate::hbone::handshake::Keys;
use crate::hbone::record::open::WITHOUT_DATA_MAX;
use crate::hbone::record::{Layer, Secrets};
use crate::hbone::testing::{Offer, key_pair, with_client, with_server};

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const HELLO_REQUEST: [u8; 4] = [0; 4];

/// One end, as far as records go.
struct End {
    layer: Layer,
    incoming: Vec<u8>,
}

impl End {
    fn new(keys: Keys, records_max: u64) -> Self {
        let Keys { role, secrets, rest } = keys;
        let layer = Layer::new(secrets, role, records_max).unwrap();
        assert_eq!(layer.layout(), Layout::TLS12);
        Self { layer, incoming: rest }
    }

    fn send(&mut self, payload: &[u8]) -> Result<Vec<u8>, RecordError> {
        let mut out = vec![0; SEALED_BY_ITSELF_MAX + payload.len() + Layout::TLS12.overhead()];
        let due = self.layer.due(&mut out)?;
        let begin = due + Layout::TLS12.header;
        out[begin..begin + payload.len()].copy_from_slice(payload);
        let len = self.layer.seal(&mut out[due..], payload.len())?;
        out.truncate(due + len);
        Ok(out)
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
        self.incoming.extend_from_slice(bytes);
        let mut data = Vec::new();
        while let Some(len) =
            self.layer.record_len(&self.incoming)?.filter(|&len| len <= self.incoming.len())
        {
            let mut record: Vec<u8> = self.incoming.drain(..len).collect();
            if let Opened::Data(plain) = self.layer.open(&mut record)? {
                data.extend_from_slice(plain);
            }
        }
        Ok(data)
    }

    fn last_words(&mut self) -> Vec<u8> {
        let mut out = vec![0; SEALED_BY_ITSELF_MAX];
        let len = self.layer.seal_alert(&mut out, Alert::INTERNAL_ERROR).unwrap();
        out.truncate(len);
        out
    }
}

/// A peer that seals what it likes, with the keys of a connection that goes no further.
struct Forger {
    key: LessSafeKey,
    salt: [u8; 4],
    sequence: u64,
}

impl Forger {
    fn new(keys: Keys) -> Self {
        let Secrets::Tls12(tls) = keys.secrets else { panic!("not TLS 1.2") };
        let secrets = match tls.connection {
            Connection::Client(connection) => {
                connection.dangerous_into_kernel_connection().unwrap().0
            }
            Connection::Server(connection) => {
                connection.dangerous_into_kernel_connection().unwrap().0
            }
        };
        let (sequence, ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets.tx else {
            panic!("another suite");
        };
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap());
        Self { key, salt: iv.as_ref()[..4].try_into().unwrap(), sequence }
    }

    fn seal(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let explicit = self.sequence.to_be_bytes();
        let len = |len: usize| u16::try_from(len).unwrap().to_be_bytes();
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&explicit);
        let mut aad = explicit.to_vec();
        aad.extend([kind, 3, 3]);
        aad.extend(len(payload.len()));
        let mut body = payload.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut body).unwrap();
        self.sequence += 1;
        let mut record = vec![kind, 3, 3];
        record.extend(len(8 + body.len()));
        record.extend(explicit);
        record.extend(body);
        record
    }
}

/// Everything that a rustls peer reads in `bytes`.
macro_rules! read {
    ($peer:expr, $bytes:expr) => {{
        let mut rest: &[u8] = $bytes;
        let mut data = Vec::new();
        let mut seen = Ok(());
        while !rest.is_empty() && seen.is_ok() {
            $peer.read_tls(&mut rest).unwrap();
            seen = $peer.process_new_packets().map(|_| ());
            let _ = $peer.reader().read_to_end(&mut data);
        }
        seen.map(|()| data)
    }};
}

macro_rules! exchange {
    ($ours:expr, $peer:expr, $split:expr) => {
        for round in 0..20_u8 {
            let text = vec![round; [1, 100, 5_000, PAYLOAD_MAX][usize::from(round % 4)]];
            assert_eq!(read!($peer, &$ours.send(&text).unwrap()), Ok(text.clone()));
            $peer.writer().write_all(&text).unwrap();
            let mut wire = Vec::new();
            while $peer.wants_write() {
                $peer.write_tls(&mut wire).unwrap();
            }
            let mut heard = Vec::new();
            for piece in wire.chunks($split) {
                heard.extend($ours.receive(piece).unwrap());
            }
            assert_eq!(heard, text);
        }
    };
}

#[test]
fn both_roles_speak_with_rustls() {
    for split in [1, 7, 1_000, usize::MAX] {
        let (keys, mut peer) = with_server(Offer::Tls12, 0, split);
        let mut ours = End::new(keys, 1 << 24);
        exchange!(ours, peer, split);
        let (keys, mut peer) = with_client(Offer::Tls12, b"", split);
        let mut ours = End::new(keys, 1 << 24);
        exchange!(ours, peer, split);
    }
}

#[test]
fn ends_are_clean_in_both_directions() {
    let (keys, mut peer) = with_server(Offer::Tls12, 0, usize::MAX);
    let mut ours = End::new(keys, 100);
    peer.send_close_notify();
    let mut wire = Vec::new();
    peer.write_tls(&mut wire).unwrap();
    assert_eq!(ours.receive(&wire), Ok(Vec::new()));
    assert!(ours.layer.is_closed());
    // We may go on.
    assert_eq!(read!(peer, &ours.send(b"more").unwrap()), Ok(b"more".to_vec()));
    let end = ours.last_words();
    assert_eq!(end.len(), 2 + Layout::TLS12.overhead());
    let mut end = end.as_slice();
    peer.read_tls(&mut end).unwrap();
    assert!(peer.process_new_packets().unwrap().peer_has_closed());
    assert_eq!(ours.receive(&wire), Err(RecordError::AfterClose));
    assert_eq!(ours.send(b"after the end"), Err(RecordError::Internal));
    assert_eq!(ours.last_words(), b"", "they are said once");
}

#[test]
fn what_was_changed_on_its_way_is_refused_and_the_peer_told() {
    for at in [HEADER, HEADER + 8, HEADER + 8 + 5, Layout::TLS12.overhead() + 4] {
        let (keys, mut peer) = with_client(Offer::Tls12, b"", usize::MAX);
        let mut ours = End::new(keys, 100);
        peer.writer().write_all(b"hello").unwrap();
        let mut wire = Vec::new();
        peer.write_tls(&mut wire).unwrap();
        wire[at] ^= 1;
        assert_eq!(ours.receive(&wire), Err(RecordError::Undecryptable), "byte {at}");
        let told = read!(peer, &ours.last_words());
        let bad = rustls::Error::AlertReceived(AlertDescription::BadRecordMac);
        assert_eq!(told, Err(bad), "byte {at}");
        assert_eq!(ours.send(b"more"), Err(RecordError::Internal));
    }
}

#[test]
fn lengths_and_types_are_judged_before_the_rest_is_there() {
    let long = u16::try_from(RECORD_MAX - HEADER).unwrap().to_be_bytes();
    let longer = u16::try_from(RECORD_MAX - HEADER + 1).unwrap().to_be_bytes();
    for (bytes, expected) in [
        (&[][..], Ok(None)),
        (&[23, 3, 3, 0], Ok(None)),
        (&[23, 3, 3, 0, 9, 1], Ok(Some(14))),
        (&[21, 3, 3, 0, 0], Ok(Some(5))),
        (&[23, 3, 3, long[0], long[1]], Ok(Some(RECORD_MAX))),
        (&[23, 3, 3, longer[0], longer[1]], Err(RecordError::Overflow)),
        (&[19], Err(RecordError::ContentType(19))),
        (b"GET / HTTP/1.1", Err(RecordError::ContentType(b'G'))),
    ] {
        assert_eq!(Tls12::record_len(bytes), expected, "{bytes:?}");
    }
}

/// Ours as client, and a forger in the place of its server.
fn forged() -> (End, Forger) {
    let (client, server) = key_pair(Offer::Tls12);
    (End::new(client, 100), Forger::new(server))
}

#[test]
fn a_renegotiation_is_declined_once() {
    let (mut ours, mut forger) = forged();
    assert_eq!(ours.receive(&forger.seal(HANDSHAKE, &HELLO_REQUEST)), Ok(Vec::new()));
    assert!(ours.layer.has_words());
    assert_eq!(ours.layer.room(), 0, "nothing is sealed before they are said");
    let said = ours.send(b"x").unwrap();
    assert_eq!(said[0], ALERT);
    assert_eq!(said.len(), 2 * Layout::TLS12.overhead() + 2 + 1);
    assert!(!ours.layer.has_words());
    // It goes on, and does not let itself be asked for ever.
    assert_eq!(ours.receive(&forger.seal(APPLICATION_DATA, b"on")), Ok(b"on".to_vec()));
    let again = forger.seal(HANDSHAKE, &HELLO_REQUEST);
    assert_eq!(ours.receive(&again), Err(RecordError::TooManyWithoutData));
}

#[test]
fn what_does_not_belong_behind_a_handshake_ends_it() {
    for (kind, payload, expected) in [
        (HANDSHAKE, &[20, 0, 0, 0][..], RecordError::ContentType(HANDSHAKE)),
        // The first half of a message, in a record of its own.
        (HANDSHAKE, &HELLO_REQUEST[..2], RecordError::Fragmented),
        (HANDSHAKE, &[], RecordError::Fragmented),
        (20, &[1], RecordError::Malformed),
        (ALERT, &[2, 40], RecordError::AlertReceived(Alert(40))),
        (ALERT, &[1], RecordError::Malformed),
        (24, &[1], RecordError::ContentType(24)),
    ] {
        let (mut ours, mut forger) = forged();
        let record = forger.seal(kind, payload);
        assert_eq!(ours.receive(&record), Err(expected), "{kind} {payload:?}");
        // Nobody is asked again, whatever came of it.
        ours.last_words();
        assert_eq!(ours.send(b"x"), Err(RecordError::Internal), "{kind} {payload:?}");
    }
}

/// Nobody seals it, so that anybody on the way can say it.
#[test]
fn a_change_of_ciphers_ends_it() {
    let (mut ours, _) = forged();
    assert_eq!(ours.receive(&[20, 3, 3, 0, 1, 1]), Err(RecordError::ContentType(20)));
    assert_eq!(ours.last_words()[0], ALERT);
}

#[test]
fn records_without_data_are_counted() {
    let (mut ours, mut forger) = forged();
    for _ in 0..3 {
        for _ in 0..WITHOUT_DATA_MAX {
            assert_eq!(ours.receive(&forger.seal(APPLICATION_DATA, b"")), Ok(Vec::new()));
        }
        assert_eq!(ours.receive(&forger.seal(APPLICATION_DATA, b"x")), Ok(b"x".to_vec()));
    }
    for _ in 0..WITHOUT_DATA_MAX {
        ours.receive(&forger.seal(APPLICATION_DATA, b"")).unwrap();
    }
    let one_more = forger.seal(APPLICATION_DATA, b"");
    assert_eq!(ours.receive(&one_more), Err(RecordError::TooManyWithoutData));
}

#[test]
fn keys_wear_out() {
    let (keys, _peer) = with_server(Offer::Tls12, 0, usize::MAX);
    let mut ours = End::new(keys, 8);
    for count in 0..8 {
        assert_eq!((ours.layer.is_worn(), ours.layer.room()), (count >= 4, 8 - count));
        ours.send(b"x").unwrap();
    }
    assert_eq!(ours.send(b"x"), Err(RecordError::Exhausted));
}

#[test]
fn a_batch_is_laid_out_for_its_records() {
    let (keys, _peer) = with_server(Offer::Tls12, 0, usize::MAX);
    let mut ours = End::new(keys, 100);
    let mut short = vec![0; 10 + Layout::TLS12.overhead() - 1];
    assert_eq!(ours.layer.seal(&mut short, 10), Err(RecordError::Internal));
}

/// Sealed or not, of every type and with anything in it: a named end, and no panic.
#[test]
fn whatever_comes_has_a_name() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut ours, mut forger) = forged();
        for _ in 0..12 {
            let kind = rng.u8(19..=24);
            let mut payload: Vec<u8> = (0..rng.usize(..40)).map(|_| rng.u8(..)).collect();
            if rng.bool() {
                // The beginnings of handshake messages and alerts.
                let begin: &[u8] =
                    [&HELLO_REQUEST[..], &[1, 0, 0, 4], &[2, 0], &[1, 0]][rng.usize(..4)];
                payload.splice(..0, begin.iter().copied());
            }
            let mut record = if rng.u8(..4) == 0 {
                let len = u8::try_from(payload.len()).unwrap();
                [&[kind, 3, 3, 0, len][..], &payload].concat()
            } else {
                forger.seal(kind, &payload)
            };
            if rng.u8(..6) == 0 {
                let at = rng.usize(..record.len());
                record[at] ^= 1 << rng.u8(..8);
            }
            if let Err(error) = ours.receive(&record) {
                assert_ne!(error, RecordError::Internal, "seed {seed}");
                ours.last_words();
                assert!(ours.send(b"x").is_err(), "seed {seed}: {error}");
                break;
            }
            if rng.bool() {
                ours.send(b"x").unwrap();
            }
        }
    }
}
