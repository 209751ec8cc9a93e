//! The handshake by rustls, without I/O, and the hand-over of its secrets.
//!
//! rustls is given one record at a time, so that at the end of the handshake it has seen nothing
//! of what follows: no ticket half read, no application data, and both sequence numbers are what
//! the handshake made them.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::kernel::KernelConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{
    ClientConfig, CommonState, ConnectionTrafficSecrets, ExtractedSecrets, KeyLog, ProtocolVersion,
    ServerConfig,
};
use zeroize::Zeroizing;

use super::Role;
use super::record::{
    Connection, DirectionState, HEADER, RECORD_MAX, RecordError, Secrets, Suite, Tls12,
    TrafficSecret, encode, moved,
};

const CLIENT_SECRET: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER_SECRET: &str = "SERVER_TRAFFIC_SECRET_0";

/// Bytes that may wait here: a record of the longest kind behind a whole flight of certificates.
const INCOMING_MAX: usize = 256 * 1024;

thread_local! {
    /// Where [`KeySlot`] puts the secrets while, and only while, a handshake is being moved on.
    static SLOT: RefCell<Option<Captured>> = const { RefCell::new(None) };
}

/// The key log of every configuration whose connections come here. It writes to no file and reads
/// no environment: the two application secrets go to the handshake that is running on this
/// thread, and without one they go nowhere.
#[derive(Debug)]
pub struct KeySlot;

/// One handshake, of either role. The configuration must have [`KeySlot`] as its key log and
/// `enable_secret_extraction`.
pub struct Handshake {
    connection: Connection,
    captured: Captured,
    incoming: Vec<u8>,
    /// How much of `incoming` rustls has been shown.
    shown: usize,
    done: bool,
    failed: bool,
}

/// What a finished handshake leaves behind: keys, and what came after it.
#[derive(Debug)]
pub struct Keys {
    /// Which end we are.
    pub role: Role,
    /// What both directions are sealed with.
    pub secrets: Secrets,
    /// Bytes that arrived behind the handshake: the first ones for the engine.
    pub rest: Vec<u8>,
}

impl Keys {
    /// Whether rustls seals and opens the records, as it does with TLS 1.2.
    pub fn is_tls12(&self) -> bool {
        matches!(self.secrets, Secrets::Tls12(_))
    }

    /// What both ends of this connection, and nobody else, come to. TLS 1.2 has none.
    pub fn fingerprint(&self) -> Option<[u8; 32]> {
        let Secrets::Tls13 { sending, receiving } = &self.secrets else { return None };
        let client = match self.role {
            Role::Client => sending,
            Role::Server => receiving,
        };
        Some(client.secret.fingerprint())
    }
}

/// Why a handshake did not lead to keys.
#[derive(Clone, Debug, PartialEq)]
pub enum HandshakeError {
    /// rustls ended it.
    Tls(rustls::Error),
    /// More bytes than any handshake needs.
    TooLong,
    /// The peer sent application data, or closed, before the end of the handshake.
    Early,
    /// It was not over yet.
    NotDone,
    /// Neither TLS 1.3 with a suite of ours nor TLS 1.2.
    Unsupported,
    /// The secrets were not seen, or do not give the keys that rustls has.
    KeysDiffer,
    /// The record layer could not start.
    Record(RecordError),
}

#[derive(Default)]
struct Captured {
    client: Option<Zeroizing<Vec<u8>>>,
    server: Option<Zeroizing<Vec<u8>>>,
}

/// Empties the slot of this thread, also when rustls panics.
struct Emptied;

/// What rustls wants next.
enum Step {
    Again,
    MoreInput,
    Done,
}

impl KeyLog for KeySlot {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        SLOT.with_borrow_mut(|slot| {
            let Some(captured) = slot.as_mut() else { return };
            let secret = Some(Zeroizing::new(secret.to_vec()));
            match label {
                CLIENT_SECRET => captured.client = secret,
                SERVER_SECRET => captured.server = secret,
                _ => {}
            }
        });
    }

    fn will_log(&self, label: &str) -> bool {
        (label == CLIENT_SECRET || label == SERVER_SECRET) && SLOT.with_borrow(Option::is_some)
    }
}

impl Handshake {
    /// Opens a handshake. Call [`Handshake::feed`] with nothing to get the first flight.
    pub fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, HandshakeError> {
        let connection =
            UnbufferedClientConnection::new(config, name).map_err(HandshakeError::Tls)?;
        Ok(Self::new(Connection::Client(Box::new(connection))))
    }

    /// Answers a handshake.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, HandshakeError> {
        let connection = UnbufferedServerConnection::new(config).map_err(HandshakeError::Tls)?;
        Ok(Self::new(Connection::Server(Box::new(connection))))
    }

    fn new(connection: Connection) -> Self {
        let captured = Captured::default();
        Self { connection, captured, incoming: Vec::new(), shown: 0, done: false, failed: false }
    }

    /// What is known about the peer and the session so far.
    pub fn session(&self) -> &CommonState {
        self.connection.session()
    }

    /// Takes bytes of the peer and appends to `out` what is to be sent, an alert also if it fails.
    /// True when the handshake is over; then `out` is to be sent, and [`Handshake::finish`] called.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<bool, HandshakeError> {
        if self.failed {
            return Err(HandshakeError::NotDone);
        }
        if self.incoming.len() + bytes.len() > INCOMING_MAX {
            return Err(HandshakeError::TooLong);
        }
        self.incoming.extend_from_slice(bytes);
        while !self.done {
            let step = self.step(out);
            match step? {
                Step::Again => {}
                Step::Done => self.done = true,
                Step::MoreInput => {
                    let Some(len) = next_record(&self.incoming[self.shown..]) else { break };
                    self.shown += len;
                }
            }
        }
        Ok(self.done)
    }

    /// Turns the finished handshake into keys.
    pub fn finish(mut self) -> Result<Keys, HandshakeError> {
        if !self.done {
            return Err(HandshakeError::NotDone);
        }
        let rest = self.incoming.split_off(self.shown);
        match self.session().protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => self.directions(rest),
            Some(ProtocolVersion::TLSv1_2) => {
                let role = match &self.connection {
                    Connection::Client(_) => Role::Client,
                    Connection::Server(_) => Role::Server,
                };
                let secrets = Secrets::Tls12(Box::new(Tls12::new(self.connection)));
                Ok(Keys { role, secrets, rest })
            }
            _ => Err(HandshakeError::Unsupported),
        }
    }

    /// The keys of TLS 1.3, which rustls gives away.
    fn directions(self, rest: Vec<u8>) -> Result<Keys, HandshakeError> {
        let suite = self.session().negotiated_cipher_suite().map(|suite| suite.suite());
        let suite = suite.and_then(Suite::from_tls).ok_or(HandshakeError::Unsupported)?;
        let (Some(client), Some(server)) = (self.captured.client, self.captured.server) else {
            return Err(HandshakeError::KeysDiffer);
        };
        let client = TrafficSecret::new(suite, &client).map_err(HandshakeError::Record)?;
        let server = TrafficSecret::new(suite, &server).map_err(HandshakeError::Record)?;
        let (role, extracted, sending, receiving) = match self.connection {
            Connection::Client(connection) => {
                let extracted = secrets(connection.dangerous_into_kernel_connection())?;
                (Role::Client, extracted, client, server)
            }
            Connection::Server(connection) => {
                let extracted = secrets(connection.dangerous_into_kernel_connection())?;
                (Role::Server, extracted, server, client)
            }
        };
        let ExtractedSecrets { tx, rx } = extracted;
        let sending = checked(sending, tx)?;
        let receiving = checked(receiving, rx)?;
        Ok(Keys { role, secrets: Secrets::Tls13 { sending, receiving }, rest })
    }

    /// One move of rustls, with the slot set around it.
    fn step(&mut self, out: &mut Vec<u8>) -> Result<Step, HandshakeError> {
        let shown = &mut self.incoming[..self.shown];
        let captured = std::mem::take(&mut self.captured);
        SLOT.with_borrow_mut(|slot| *slot = Some(captured));
        let emptied = Emptied;
        let moved = moved!(&mut self.connection, shown, status => advance(status, out));
        self.captured = SLOT.with_borrow_mut(Option::take).unwrap_or_default();
        drop(emptied);
        let (discard, step) = moved;
        self.incoming.drain(..discard);
        self.shown -= discard;
        match step {
            Err(error) => {
                self.last_words(out);
                Err(error)
            }
            step => step,
        }
    }

    /// Appends the alert that rustls wants to send after an error. Asked more than once it panics.
    fn last_words(&mut self, out: &mut Vec<u8>) {
        let shown = &mut self.incoming[..self.shown];
        let _ = moved!(&mut self.connection, shown, status => advance(status, out));
        self.failed = true;
    }
}

impl Drop for Emptied {
    fn drop(&mut self) {
        SLOT.with_borrow_mut(|slot| *slot = None);
    }
}

/// Does what rustls asks for; how many bytes it is done with, and what is next.
fn advance<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    out: &mut Vec<u8>,
) -> (usize, Result<Step, HandshakeError>) {
    let step = match status.state {
        Err(error) => Err(HandshakeError::Tls(error)),
        Ok(ConnectionState::EncodeTlsData(data)) => {
            encode(data, out).map(|()| Step::Again).map_err(HandshakeError::Tls)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::MoreInput),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
        Ok(_) => Err(HandshakeError::Early),
    };
    (status.discard, step)
}

/// The length of the whole record at the front, of whatever type; everything that is there if it
/// is no record at all, for rustls to say so.
fn next_record(bytes: &[u8]) -> Option<usize> {
    const TYPES: std::ops::RangeInclusive<u8> = 20..=23;
    let &[kind, _, _, high, low] = bytes.first_chunk::<HEADER>()?;
    let len = HEADER + usize::from(u16::from_be_bytes([high, low]));
    if !TYPES.contains(&kind) || len > RECORD_MAX {
        return Some(bytes.len());
    }
    (bytes.len() >= len).then_some(len)
}

fn secrets<Data>(
    converted: Result<(ExtractedSecrets, KernelConnection<Data>), rustls::Error>,
) -> Result<ExtractedSecrets, HandshakeError> {
    converted.map(|(secrets, _)| secrets).map_err(HandshakeError::Tls)
}

/// The direction of `secret`, if rustls has the same keys for it.
fn checked(
    secret: TrafficSecret,
    (sequence, keys): (u64, ConnectionTrafficSecrets),
) -> Result<DirectionState, HandshakeError> {
    let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
    | ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = keys
    else {
        return Err(HandshakeError::Unsupported);
    };
    if !secret.gives(key.as_ref(), iv.as_ref()) {
        return Err(HandshakeError::KeysDiffer);
    }
    Ok(secret.begin(sequence))
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("done", &self.done).finish_non_exhaustive()
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => error.fmt(f),
            Self::TooLong => f.write_str("a handshake of too many bytes"),
            Self::Early => f.write_str("the peer sent data or closed during the handshake"),
            Self::NotDone => f.write_str("the handshake is not over"),
            Self::Unsupported => f.write_str("neither version nor suite are those we offer"),
            Self::KeysDiffer => f.write_str("the keys differ from those of the handshake"),
            Self::Record(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HandshakeError {}

#[cfg(test)]
mod tests;
