//! Bytes of a stranger against each decoder, with what must hold whatever they are: the bodies,
//! the seeds to begin with, and a seeded loop that bends them.

use std::rc::Rc;

use super::Role;
use super::error::Error;
use super::frame::{self, Frame, HEADER_LEN, Header, PREFACE};
use super::hpack::{Decoder, Limits};
use super::http2::{Connection, Event};
use super::limits::Debts;
use super::testing::world::{LIMITS, Ledger};
use crate::sys::clock::Clock;

/// Rounds of each loop; a second or so unoptimised.
const ROUNDS: usize = 3_000;
/// Longest input.
const INPUT_MAX: usize = 4_096;

/// Blocks, each behind a byte that says how long it is. Delivered lists stay within their limit,
/// and a decoder that is saved and restored goes on as if nothing had happened.
fn hpack(input: &[u8]) {
    let limits = Limits { list_size_max: 1_024, fields_max: 16, work_max: 8_192 };
    let mut decoder = Decoder::new();
    let mut rest = input;
    while let Some((&len, after)) = rest.split_first() {
        let (block, after) = after.split_at(after.len().min(usize::from(len)));
        rest = after;
        let mut saved = Vec::new();
        decoder.save(&mut saved);
        let mut restored = Decoder::restore(&mut saved.as_slice()).expect("it was saved by us");
        let (mut bytes, mut fields) = (0, 0);
        let result = decoder.decode(block, limits, |name, value| {
            bytes += name.len() + value.len() + 32;
            fields += 1;
        });
        assert!(bytes <= limits.list_size_max && fields <= limits.fields_max);
        assert_eq!(restored.decode(block, limits, |_, _| {}), result);
        if result.is_err() {
            return;
        }
        assert_eq!(restored, decoder);
    }
}

/// Frames in a row. What is read is written as it came.
fn frames(input: &[u8]) {
    for role in [Role::Client, Role::Server] {
        let mut rest = input;
        while let Some((head, after)) = rest.split_first_chunk::<HEADER_LEN>() {
            let header = Header::parse(*head);
            if header.check(frame::FRAME_LEN_DEFAULT).is_err() || header.len as usize > after.len()
            {
                break;
            }
            let (payload, after) = after.split_at(header.len as usize);
            rest = after;
            let Ok(read) = frame::parse(header, payload, role) else { break };
            let again = match read {
                Frame::Ping(opaque) => frame::ping(opaque, false).to_vec(),
                Frame::PingAck(opaque) => frame::ping(opaque, true).to_vec(),
                Frame::RstStream(code) => frame::rst_stream(header.stream, code).to_vec(),
                Frame::WindowUpdate(by) => frame::window_update(header.stream, by).to_vec(),
                Frame::GoAway { last_stream, code, debug } => {
                    let mut out = Vec::new();
                    frame::goaway(last_stream, code, debug, &mut out);
                    out
                }
                _ => continue,
            };
            let (head, payload) = again.split_first_chunk::<HEADER_LEN>().expect("a frame");
            let written = Header::parse(*head);
            assert_eq!((written.kind, written.stream), (header.kind, header.stream));
            assert_eq!(frame::parse(written, payload, role), Ok(read));
        }
    }
}

/// What one end makes of a peer's bytes that come in pieces of `split`: events, the bytes of
/// streams joined, and how it ended.
fn told(role: Role, input: &[u8], split: usize) -> (Vec<String>, Option<Error>) {
    let (now, ledger) = (Clock::system().monotonic(), Ledger::new(1 << 24));
    let mut end = Connection::new(role, LIMITS, Rc::clone(&ledger) as Debts, now);
    if role == Role::Client {
        for _ in 0..2 {
            end.open("a:1", [], now).expect("there is room");
        }
    }
    let mut events = Vec::new();
    let mut last_data = None;
    let mut error = None;
    let mut read = |end: &mut Connection, piece: &[u8]| -> Result<(), Error> {
        let mut plain = piece;
        while let Some(event) = end.read(&mut plain, now)? {
            if let Event::Data { stream, bytes } = event {
                if last_data != Some(stream) {
                    events.push(format!("data {stream}"));
                }
                last_data = Some(stream);
                events.extend(bytes.iter().map(|byte| format!("{byte:x}")));
                end.taken(stream, bytes.len(), now);
                continue;
            }
            last_data = None;
            events.push(format!("{event:?}"));
            if let Event::Request { stream, .. } = event {
                end.respond(stream, 200, [], false);
            }
        }
        Ok(())
    };
    for piece in input.chunks(split) {
        if let Err(found) = read(&mut end, piece) {
            error = Some(found);
            break;
        }
    }
    let mut out = vec![0; 1 << 16];
    while end.wants_write() {
        assert!(end.write(&mut out) > 0, "what is to be written fits an empty batch");
    }
    drop(end);
    assert_eq!(ledger.owed.get(), 0, "no debt is left behind");
    (events, error)
}

/// A whole connection: it says the same however the bytes are split.
fn engine(role: Role, input: &[u8]) {
    let whole = told(role, input, INPUT_MAX);
    for split in [1, 10] {
        assert_eq!(told(role, input, split), whole, "{role:?} in pieces of {split}: {input:x?}");
    }
}

fn greeting() -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::settings(&[(frame::Setting::MaxConcurrentStreams, 100)], &mut bytes);
    bytes.extend_from_slice(&frame::settings_ack());
    bytes
}

/// Connections of every frame that has a meaning, as a peer in `role` would be sent them.
fn engine_seeds(role: Role) -> Vec<Vec<u8>> {
    let (preface, block): (&[u8], &[u8]) = match role {
        Role::Client => (&[], b"\x20\x88"),
        Role::Server => (PREFACE, b"\x20\x02\x07CONNECT\x01\x03a:1"),
    };
    let begun = |frames: &[&[u8]]| [&[preface, &greeting()], frames].concat().concat();
    let mut request = Vec::new();
    frame::headers(1, block, false, 5, &mut request);
    let data = [&frame::data(1, 3, false)[..], b"abc"].concat();
    let end = frame::data(1, 0, true);
    let mut goaway = Vec::new();
    frame::goaway(1, frame::ErrorCode::NoError, b"bye", &mut goaway);
    vec![
        begun(&[&request, &data, &end]),
        begun(&[&request, &frame::window_update(1, 9), &frame::window_update(0, 9), &data]),
        begun(&[&request, &data, &frame::rst_stream(1, frame::ErrorCode::Cancel)]),
        begun(&[&frame::ping(*b"12345678", false), &goaway, &request]),
    ]
}

fn hpack_seeds() -> Vec<Vec<u8>> {
    vec![
        b"\x14\x82\x86\x84\x41\x0fwww.example.com\x07\x82\x86\x84\xbe\x58\x01a".to_vec(),
        b"\x11\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff".to_vec(),
        b"\x07\x20\x3f\xe1\x1f\x40\x01a\x01b\x01\xbe".to_vec(),
    ]
}

/// An input that is a seed, bent in a few places.
fn bend(seed: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = seed.to_vec();
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(..=input.len());
        match rng.u8(..5) {
            0 => input.truncate(at),
            1 => input.insert(at, rng.u8(..)),
            2 => {
                let piece = input[at..].to_vec();
                let to = rng.usize(..=input.len());
                input.splice(to..to, piece);
            }
            3 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
            _ if at < input.len() => input[at] = rng.u8(..),
            _ => {}
        }
    }
    input.truncate(INPUT_MAX);
    input
}

fn replay(seeds: &[Vec<u8>], body: impl Fn(&[u8])) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    seeds.iter().for_each(|seed| body(seed));
    for _ in 0..ROUNDS {
        body(&bend(&seeds[rng.usize(..seeds.len())], &mut rng));
    }
}

#[test]
fn hpack_survives_strangers() {
    replay(&hpack_seeds(), hpack);
}

#[test]
fn frames_survive_strangers() {
    let seeds: Vec<_> = engine_seeds(Role::Client).iter().map(|seed| seed.to_vec()).collect();
    replay(&seeds, frames);
}

#[test]
fn the_client_survives_strangers() {
    let seeds = engine_seeds(Role::Client);
    seeds.iter().for_each(|seed| assert_eq!(told(Role::Client, seed, 7).1, None, "{seed:x?}"));
    replay(&seeds, |input| engine(Role::Client, input));
}

#[test]
fn the_server_survives_strangers() {
    let seeds = engine_seeds(Role::Server);
    seeds.iter().for_each(|seed| assert_eq!(told(Role::Server, seed, 7).1, None, "{seed:x?}"));
    replay(&seeds, |input| engine(Role::Server, input));
}
