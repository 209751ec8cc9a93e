//! TLS 1.2 by rustls, one whole record at a time (RFC 5246 6, RFC 5288).
//!
//! rustls keeps the keys of such a connection, so that it can neither be frozen nor get new ones:
//! long before they are used up its tunnel takes no more streams. Payload is copied on its way
//! through, in both directions.

use std::fmt;

use rustls::CommonState;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};

use super::layer::Layout;
use super::{Alert, HEADER, Opened, PAYLOAD_MAX, RecordError, SEALED_BY_ITSELF_MAX};

/// Longest record on the wire (RFC 5246 6.2.3: 2,048 bytes of expansion).
const RECORD_MAX: usize = HEADER + PAYLOAD_MAX + 2_048;
/// Records of change_cipher_spec, alert, handshake and application_data.
const TYPES: std::ops::RangeInclusive<u8> = 20..=23;

/// A connection of rustls, of either role.
pub(in crate::hbone) enum Connection {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What to do with the status of a connection of either role.
macro_rules! moved {
    ($connection:expr, $bytes:expr, $status:ident => $then:expr) => {
        match $connection {
            Connection::Client(connection) => {
                let $status = connection.process_tls_records($bytes);
                $then
            }
            Connection::Server(connection) => {
                let $status = connection.process_tls_records($bytes);
                $then
            }
        }
    };
}
pub(in crate::hbone) use moved;

/// A TLS 1.2 connection after its handshake.
pub struct Tls12 {
    connection: Connection,
    /// Records of rustls' own that wait to be sent: alerts.
    words: Vec<u8>,
    /// Records that were sealed, those of the handshake aside.
    sealed: u64,
    records_max: u64,
    closed: bool,
    /// Its records have come to an end, and it must not be asked again.
    broken: bool,
}

/// What is to be done next with what is at hand.
enum Step {
    Again,
    Idle,
    Closed,
}

impl Connection {
    pub(in crate::hbone) fn session(&self) -> &CommonState {
        match self {
            Self::Client(connection) => connection,
            Self::Server(connection) => connection,
        }
    }
}

impl Tls12 {
    /// Goes on after a handshake.
    pub(in crate::hbone) fn new(connection: Connection) -> Self {
        Self {
            connection,
            words: Vec::new(),
            sealed: 0,
            records_max: 0,
            closed: false,
            broken: false,
        }
    }

    /// No more than `records_max` records are to be sealed.
    pub(super) fn limit(&mut self, records_max: u64) {
        self.records_max = records_max;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn has_words(&self) -> bool {
        !self.words.is_empty()
    }

    /// Half of the records are for the streams that are open by then.
    pub(super) fn is_worn(&self) -> bool {
        self.sealed >= self.records_max / 2
    }

    pub(super) fn room(&self) -> u64 {
        if self.has_words() { 0 } else { self.records_max.saturating_sub(self.sealed) }
    }

    /// As [`super::record_len`].
    pub(super) fn record_len(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
        let Some(&kind) = bytes.first() else { return Ok(None) };
        if !TYPES.contains(&kind) {
            return Err(RecordError::ContentType(kind));
        }
        let Some(&[.., high, low]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let total = HEADER + usize::from(u16::from_be_bytes([high, low]));
        if total > RECORD_MAX {
            return Err(RecordError::Overflow);
        }
        Ok(Some(total))
    }

    /// Opens one whole record.
    pub(super) fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<Opened<'a>, RecordError> {
        if self.closed {
            return Err(RecordError::AfterClose);
        }
        let mut plain = Vec::new();
        match self.take(record, &mut plain) {
            Err(error) => {
                self.broken = true;
                return Err(error);
            }
            Ok(Step::Closed) => {
                self.closed = true;
                return Ok(Opened::Closed);
            }
            Ok(Step::Again | Step::Idle) => {}
        }
        if plain.is_empty() {
            // rustls counts those of each kind, and ends it when there are too many.
            return Ok(Opened::Nothing);
        }
        let place = record.get_mut(..plain.len()).ok_or(RecordError::Internal)?;
        place.copy_from_slice(&plain);
        Ok(Opened::Data(place))
    }

    /// Gives a record to rustls and does what it asks for.
    fn take(&mut self, record: &mut [u8], plain: &mut Vec<u8>) -> Result<Step, RecordError> {
        let mut at = 0;
        let step = loop {
            let rest = record.get_mut(at..).ok_or(RecordError::Internal)?;
            let words = &mut self.words;
            let (used, step) =
                moved!(&mut self.connection, rest, status => advance(status, plain, words));
            at += used;
            match step {
                Ok(Step::Again) => {}
                Ok(step) => break step,
                Err(error) => {
                    // It may want to tell the peer why; asked for more it would go on reading.
                    let rest = record.get_mut(at..).unwrap_or_default();
                    let _ = moved!(&mut self.connection, rest, status => {
                        advance(status, plain, &mut self.words)
                    });
                    return Err(judged(&error));
                }
            }
        };
        if self.words.len() > SEALED_BY_ITSELF_MAX {
            return Err(RecordError::TooManyWithoutData);
        }
        // The beginning of a handshake message, of which none that matters is longer than a record.
        if at == record.len() { Ok(step) } else { Err(RecordError::Fragmented) }
    }

    /// Puts what rustls has to say into the front of `out`.
    pub(super) fn due(&mut self, out: &mut [u8]) -> Result<usize, RecordError> {
        let place = out.get_mut(..self.words.len()).ok_or(RecordError::Internal)?;
        place.copy_from_slice(&self.words);
        self.words = Vec::new();
        Ok(place.len())
    }

    /// Seals application data that lies behind the header of `record`; the record's length.
    pub(super) fn seal(&mut self, record: &mut [u8], len: usize) -> Result<usize, RecordError> {
        if self.broken {
            return Err(RecordError::Internal);
        }
        if self.room() == 0 {
            return Err(RecordError::Exhausted);
        }
        let begin = Layout::TLS12.header;
        let payload = record.get(begin..begin + len).ok_or(RecordError::Internal)?.to_vec();
        let sealed =
            moved!(&mut self.connection, &mut [], status => encrypt(status, &payload, record))?;
        self.sealed += 1;
        // The batch is laid out for exactly this.
        if sealed == len + Layout::TLS12.overhead() {
            Ok(sealed)
        } else {
            Err(RecordError::Internal)
        }
    }

    /// Seals the last words into the front of `out`: what rustls has to say about an error,
    /// otherwise `close_notify`.
    pub(super) fn seal_last(&mut self, out: &mut [u8]) -> Result<usize, RecordError> {
        let said = self.due(out)?;
        if self.broken {
            return Ok(said);
        }
        let out = out.get_mut(said..).unwrap_or_default();
        let closed = moved!(&mut self.connection, &mut [], status => match status.state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(out),
            _ => Ok(0),
        });
        self.broken = true;
        closed.map(|len| said + len).map_err(|error| refused(&error))
    }
}

/// Does what rustls asks for; how many bytes it is done with, and what is next.
fn advance<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: &mut Vec<u8>,
    words: &mut Vec<u8>,
) -> (usize, Result<Step, rustls::Error>) {
    let mut used = status.discard;
    let step = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    plain.extend_from_slice(record.payload);
                    used += record.discard;
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, words).map(|()| Step::Again),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::Closed),
        Ok(ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => Ok(Step::Idle),
        Ok(_) => Err(rustls::Error::HandshakeNotComplete),
    };
    (used, step)
}

/// Appends what rustls has to say to `out`.
pub(in crate::hbone) fn encode<Data>(
    mut data: EncodeTlsData<'_, Data>,
    out: &mut Vec<u8>,
) -> Result<(), rustls::Error> {
    let begin = out.len();
    let mut encoded = data.encode(&mut []);
    if let Err(EncodeError::InsufficientSize(more)) = encoded {
        out.resize(begin + more.required_size, 0);
        encoded = data.encode(&mut out[begin..]);
    }
    let len = encoded.map_err(|error| rustls::Error::General(error.to_string()))?;
    out.truncate(begin + len);
    Ok(())
}

fn encrypt<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    payload: &[u8],
    out: &mut [u8],
) -> Result<usize, RecordError> {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            traffic.encrypt(payload, out).map_err(|error| refused(&error))
        }
        _ => Err(RecordError::Internal),
    }
}

fn refused(error: &EncryptError) -> RecordError {
    match error {
        EncryptError::EncryptExhausted => RecordError::Exhausted,
        EncryptError::InsufficientSize(_) => RecordError::Internal,
    }
}

/// The names that our own record layer has for what rustls found.
fn judged(error: &rustls::Error) -> RecordError {
    use rustls::{Error, PeerMisbehaved};
    match error {
        Error::AlertReceived(alert) => RecordError::AlertReceived(Alert(u8::from(*alert))),
        Error::DecryptError => RecordError::Undecryptable,
        Error::PeerSentOversizedRecord => RecordError::Overflow,
        Error::InappropriateMessage { got_type, .. } => {
            RecordError::ContentType(u8::from(*got_type))
        }
        Error::InappropriateHandshakeMessage { got_type, .. } => {
            RecordError::HandshakeMessage(u8::from(*got_type))
        }
        Error::PeerMisbehaved(
            PeerMisbehaved::TooManyEmptyFragments
            | PeerMisbehaved::TooManyWarningAlertsReceived
            | PeerMisbehaved::TooManyRenegotiationRequests,
        ) => RecordError::TooManyWithoutData,
        Error::InvalidMessage(_) | Error::PeerMisbehaved(_) => RecordError::Malformed,
        _ => RecordError::Internal,
    }
}

impl fmt::Debug for Tls12 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls12").field("sealed", &self.sealed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
