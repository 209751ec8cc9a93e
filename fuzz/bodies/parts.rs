//! What several bodies need: an account, keys without a handshake, an input read as a script.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use adit::hbone::handshake::Keys;
use adit::hbone::limits::{Account, Debts, Limits};
use adit::hbone::record::{DirectionState, Secrets, Suite, TrafficSecret};
use adit::hbone::{Engine, Role};
use adit::sys::clock::Clock;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};

pub(super) const LIMITS: Limits = Limits {
    streams_max: 20,
    stream_window_max: 1 << 20,
    frame_max: 1 << 20,
    header_list_max: 16 * 1024,
    records_max: 50,
    ping_interval_ms: 10_000,
    ping_timeout_ms: 20_000,
};
pub(super) const SECRET: usize = 32;
const RECORD_HEADER: usize = 5;

pub(super) fn now() -> Instant {
    Clock::system().monotonic()
}

/// An account that can be looked at.
#[derive(Debug, Default)]
pub(super) struct Ledger(pub(super) Cell<u64>);

impl Account for Ledger {
    fn charge(&self, bytes: u32) {
        self.0.set(self.0.get() + u64::from(bytes));
    }

    fn room(&self) -> u64 {
        u64::saturating_sub(1 << 22, self.0.get())
    }

    fn release(&self, bytes: u32) {
        let left = self.0.get().checked_sub(u64::from(bytes));
        self.0.set(left.expect("no more is released than was charged"));
    }
}

/// The secret of what this end sends.
pub(super) fn secret(role: Role) -> [u8; SECRET] {
    [if role == Role::Client { 1 } else { 2 }; SECRET]
}

pub(super) fn direction(role: Role) -> DirectionState {
    let secret = TrafficSecret::new(Suite::Aes128GcmSha256, &secret(role));
    secret.expect("the length is the suite's").begin(0)
}

pub(super) fn other(role: Role) -> Role {
    if role == Role::Client { Role::Server } else { Role::Client }
}

/// A tunnel whose handshake is over.
pub(super) fn engine(role: Role, ledger: &Rc<Ledger>) -> Engine {
    let secrets = Secrets::Tls13 { sending: direction(role), receiving: direction(other(role)) };
    let keys = Keys { role, secrets, rest: Vec::new() };
    let debts: Debts = Rc::<Ledger>::clone(ledger);
    Engine::new(keys, LIMITS, debts, now()).expect("the keys are good")
}

/// Seals as RFC 8446 says, written apart from the record layer that is looked at.
pub(super) struct Peer {
    secret: Vec<u8>,
    generation: u64,
    sequence: u64,
}

/// A length that HKDF is asked for.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Peer {
    pub(super) fn new(role: Role) -> Self {
        Self { secret: secret(role).to_vec(), generation: 0, sequence: 0 }
    }

    /// How many key updates there were.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes the keys after a key update.
    pub(super) fn update(&mut self) {
        self.secret = expand(&self.secret, "traffic upd", SECRET);
        (self.generation, self.sequence) = (self.generation + 1, 0);
    }

    /// One record around `content`, of a content type and with zeros behind it.
    pub(super) fn seal(&mut self, content: &[u8], kind: u8, padding: usize, out: &mut Vec<u8>) {
        let mut body = content.to_vec();
        body.push(kind);
        body.resize(body.len() + padding, 0);
        let len = u16::try_from(body.len() + 16).expect("a record's length");
        let header = [23, 3, 3, len.to_be_bytes()[0], len.to_be_bytes()[1]];
        let key = UnboundKey::new(&AES_128_GCM, &expand(&self.secret, "key", 16));
        let key = LessSafeKey::new(key.expect("a key of this length"));
        let mut nonce: [u8; 12] = expand(&self.secret, "iv", 12).try_into().expect("12 bytes");
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        self.sequence += 1;
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, Aad::from(header), &mut body).expect("it is sealed");
        debug_assert_eq!(header.len(), RECORD_HEADER);
        out.extend_from_slice(&header);
        out.extend_from_slice(&body);
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 7.1).
fn expand(secret: &[u8], label: &str, len: usize) -> Vec<u8> {
    let byte = |n: usize| u8::try_from(n).expect("short");
    let mut info = vec![0, byte(len), byte(6 + label.len())];
    info.extend_from_slice(b"tls13 ");
    info.extend_from_slice(label.as_bytes());
    info.push(0);
    let mut out = vec![0; len];
    let prk = Prk::new_less_safe(HKDF_SHA256, secret);
    let okm = prk.expand(&[&info], Length(len)).and_then(|okm| okm.fill(&mut out));
    okm.expect("a length that HKDF gives");
    out
}

/// An input as a script: numbers and pieces from its front; zeros behind its end.
pub(super) struct Script<'a>(pub(super) &'a [u8]);

impl<'a> Script<'a> {
    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    pub(super) fn size(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    /// Up to `len` bytes.
    pub(super) fn piece(&mut self, len: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        piece
    }
}
