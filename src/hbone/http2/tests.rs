//! Frames by hand against one end, at every split: sections 3 to 6 and 8 of RFC 9113 as far as a
//! CONNECT-only endpoint meets them, and what else peers may do to us.

mod client;
mod conformance;
mod flood;
mod server;
mod windows;

use std::rc::Rc;
use std::time::Instant;

use super::*;
use crate::hbone::error::Flood;
use crate::hbone::frame::{Fault, HEADER_LEN, Header, Kind, PREFACE, Scope};
use crate::hbone::testing::world::{LIMITS, Ledger};
use crate::sys::clock::Clock;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW: u8 = 8;
const CONTINUATION: u8 = 9;

const NONE: u8 = 0;
const END: u8 = 1;
const ACK: u8 = 1;
const WHOLE: u8 = 4;
const PADDED: u8 = 8;

/// The table size update that our zero size asks for (RFC 9113 4.3.1), then `:method: CONNECT` and
/// `:authority: a:1`, uncompressed.
const CONNECT: &[u8] = b"\x20\x02\x07CONNECT\x01\x03a:1";
/// The same update and `:status: 200`.
const OK: &[u8] = b"\x20\x88";

/// What a peer's frames lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Nothing bad.
    Fine,
    /// A stream ends with this code.
    Stream(u32, ErrorCode),
    /// The connection ends.
    Ends(Error),
}

type Case = (&'static str, Vec<Vec<u8>>, Then);

/// One end, fed by hand.
struct Fixture {
    connection: Connection,
    ledger: Rc<Ledger>,
    now: Instant,
    events: Vec<String>,
    data: Vec<u8>,
    /// Requests are answered at once.
    answers: bool,
}

impl Fixture {
    fn new(role: Role) -> Self {
        let (now, ledger) = (Clock::system().monotonic(), Ledger::new(u64::MAX));
        let connection = Connection::new(role, LIMITS, Rc::clone(&ledger) as Debts, now);
        Self { connection, ledger, now, events: Vec::new(), data: Vec::new(), answers: true }
    }

    /// Behind the greetings of both.
    fn greeted(role: Role) -> Self {
        let mut fixture = Self::new(role);
        if role == Role::Server {
            fixture.feed(PREFACE, usize::MAX).unwrap();
        }
        fixture.feed(&frame(SETTINGS, NONE, 0, b""), usize::MAX).unwrap();
        fixture.feed(&frame(SETTINGS, ACK, 0, b""), usize::MAX).unwrap();
        fixture.written();
        fixture
    }

    /// Feeds bytes in pieces; applications take what arrives.
    fn feed(&mut self, bytes: &[u8], split: usize) -> Result<(), Error> {
        for piece in bytes.chunks(split) {
            let mut plain = piece;
            while let Some(event) = self.connection.read(&mut plain, self.now)? {
                if let Event::Data { stream, bytes } = event {
                    self.data.extend_from_slice(bytes);
                    self.connection.taken(stream, bytes.len(), self.now);
                    continue;
                }
                self.events.push(format!("{event:?}"));
                if let Event::Request { stream, .. } = event
                    && self.answers
                {
                    assert!(self.connection.respond(stream, 200, [], false));
                }
            }
        }
        Ok(())
    }

    /// The frames that are written now, as headers and payloads.
    fn written(&mut self) -> Vec<(Header, Vec<u8>)> {
        let mut out = vec![0; 1 << 20];
        let len = self.connection.write(&mut out);
        assert!(!self.connection.wants_write());
        let mut rest = out[..len].strip_prefix(&PREFACE[..]).unwrap_or(&out[..len]);
        let mut frames = Vec::new();
        while let Some((head, after)) = rest.split_first_chunk::<HEADER_LEN>() {
            let header = Header::parse(*head);
            let (payload, after) = after.split_at(header.len as usize);
            frames.push((header, payload.to_vec()));
            rest = after;
        }
        assert!(rest.is_empty());
        frames
    }

    /// The codes of RST_STREAMs and GOAWAYs that are written now.
    fn complaints(&mut self) -> Vec<(u32, ErrorCode)> {
        let code = |bytes: &[u8]| {
            ErrorCode::from(u32::from_be_bytes(bytes.try_into().expect("four bytes")))
        };
        let complaint = |(header, payload): (Header, Vec<u8>)| match header.kind {
            Kind::RstStream => Some((header.stream, code(&payload))),
            Kind::GoAway => Some((0, code(&payload[4..8]))),
            _ => None,
        };
        self.written().into_iter().filter_map(complaint).collect()
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    let header = Header { len, kind: Kind::from(kind), flags, stream };
    [&header.emit()[..], payload].concat()
}

fn connect(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, CONNECT)
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

fn malformed(fault: Fault, code: ErrorCode) -> Then {
    Then::Ends(Error::Malformed(frame::Malformed { fault, code, scope: Scope::Connection }))
}

fn violation(violation: Violation) -> Then {
    Then::Ends(Error::Violation(violation))
}

/// Feeds each case at two splits to a new connection.
fn check(cases: Vec<Case>, begin: impl Fn() -> Fixture) {
    assert!(!cases.is_empty());
    for (name, frames, then) in cases {
        for split in [1, 7, usize::MAX] {
            let mut fixture = begin();
            let result = fixture.feed(&frames.concat(), split);
            let complaints = fixture.complaints();
            let seen = match (result, complaints.as_slice()) {
                (Err(error), _) => {
                    let goaway: Vec<_> = error.code().map(|code| (0, code)).into_iter().collect();
                    assert_eq!(complaints, goaway, "{name}: the peer is told");
                    Then::Ends(error)
                }
                (Ok(()), []) => Then::Fine,
                (Ok(()), &[(stream, code)]) => Then::Stream(stream, code),
                (Ok(()), several) => panic!("{name}: {several:?}"),
            };
            assert_eq!(seen, then, "{name}, split {split}");
            let sink = Rc::clone(&fixture.ledger);
            drop(fixture);
            assert_eq!(sink.owed.get(), 0, "{name}: no debt is left behind");
        }
    }
}
