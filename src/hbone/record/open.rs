//! The peer's direction: records opened where they arrived.

use std::fmt;

use aws_lc_rs::aead::Aad;

use super::post::{Messages, Said};
use super::secret::{DirectionState, Keys};
use super::{
    ALERT, APPLICATION_DATA, Alert, HANDSHAKE, HEADER, PAYLOAD_MAX, RECORD_MAX, RecordError, Role,
    TRAILER,
};

/// Records in a row, key updates among them, that a peer may send without application data.
pub(super) const WITHOUT_DATA_MAX: u8 = 32;

/// Opens what the peer sends.
pub struct Opener {
    role: Role,
    state: DirectionState,
    keys: Keys,
    pub(super) messages: Messages,
    pub(super) without_data: u8,
    pub(super) closed: bool,
}

/// What was in a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// Application data, where it was opened.
    Data(&'a [u8]),
    /// Something that was for the record layer alone.
    Nothing,
    /// The peer took new keys and asks us to do the same.
    UpdateAsked,
    /// The clean end of the peer's direction.
    Closed,
}

/// How long the record at the front of `bytes` is, header included; `None` if its header has not
/// all arrived.
pub fn record_len(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&[kind, _, _, high, low]) = bytes.first_chunk::<HEADER>() else {
        return match bytes.first() {
            Some(&kind) if kind != APPLICATION_DATA => Err(RecordError::ContentType(kind)),
            _ => Ok(None),
        };
    };
    if kind != APPLICATION_DATA {
        return Err(RecordError::ContentType(kind));
    }
    let total = HEADER + usize::from(u16::from_be_bytes([high, low]));
    if total > RECORD_MAX {
        return Err(RecordError::Overflow);
    }
    if total < HEADER + TRAILER {
        return Err(RecordError::TooShort);
    }
    Ok(Some(total))
}

impl Opener {
    /// Goes on from `state`.
    pub fn new(state: DirectionState, role: Role) -> Result<Self, RecordError> {
        let keys = state.secret.keys()?;
        let messages = Messages::default();
        Ok(Self { role, state, keys, messages, without_data: 0, closed: false })
    }

    /// What its keys are made of.
    pub fn state(&self) -> &DirectionState {
        &self.state
    }

    /// Whether the peer has said `close_notify`.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Opens one whole record in place.
    pub fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<Opened<'a>, RecordError> {
        if self.closed {
            return Err(RecordError::AfterClose);
        }
        let (header, body) = record.split_first_chunk_mut().ok_or(RecordError::TooShort)?;
        let header: [u8; HEADER] = *header;
        let sequence = self.state.sequence;
        let nonce = self.keys.nonce(sequence);
        let plain = self
            .keys
            .aead
            .open_in_place(nonce, Aad::from(header), body)
            .map_err(|_| RecordError::Undecryptable)?;
        self.state.sequence = sequence.checked_add(1).ok_or(RecordError::Exhausted)?;
        if plain.len() > PAYLOAD_MAX + 1 {
            return Err(RecordError::Overflow);
        }
        let end = plain.iter().rposition(|&byte| byte != 0).ok_or(RecordError::OnlyPadding)?;
        let kind = plain[end];
        let plain: &'a [u8] = &plain[..end];
        self.judge(kind, plain)
    }

    fn judge<'a>(&mut self, kind: u8, plain: &'a [u8]) -> Result<Opened<'a>, RecordError> {
        if kind == APPLICATION_DATA && !plain.is_empty() {
            self.without_data = 0;
        } else {
            self.without_data += 1;
            if self.without_data > WITHOUT_DATA_MAX {
                return Err(RecordError::TooManyWithoutData);
            }
        }
        if kind != HANDSHAKE && self.messages.is_partial() {
            return Err(RecordError::Fragmented);
        }
        match kind {
            APPLICATION_DATA => Ok(Opened::Data(plain)),
            HANDSHAKE => match self.messages.read(plain, self.role)? {
                Said::Nothing => Ok(Opened::Nothing),
                Said::Update { asks } => {
                    (self.state, self.keys) = self.state.next()?;
                    Ok(if asks { Opened::UpdateAsked } else { Opened::Nothing })
                }
            },
            ALERT => self.alert(plain),
            kind => Err(RecordError::ContentType(kind)),
        }
    }

    fn alert<'a>(&mut self, plain: &[u8]) -> Result<Opened<'a>, RecordError> {
        let &[_, description] = plain else { return Err(RecordError::MalformedAlert) };
        match Alert(description) {
            Alert::CLOSE_NOTIFY => {
                self.closed = true;
                Ok(Opened::Closed)
            }
            Alert::USER_CANCELED => Ok(Opened::Nothing),
            alert => Err(RecordError::AlertReceived(alert)),
        }
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("state", &self.state).finish_non_exhaustive()
    }
}
