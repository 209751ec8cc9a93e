//! Our direction: records sealed where their payload lies.

use std::fmt;

use aws_lc_rs::aead::Aad;

use super::secret::{DirectionState, Keys};
use super::{ALERT, APPLICATION_DATA, Alert, HANDSHAKE, HEADER, OVERHEAD, RecordError, TRAILER};

/// Most bytes that a record layer puts between records of data: a key update of TLS 1.3 takes 27,
/// and rustls answers a renegotiation, or what it cannot read, by an alert of TLS 1.2 of 31.
pub const SEALED_BY_ITSELF_MAX: usize = 64;
const _: () = assert!(SEALED_BY_ITSELF_MAX >= OVERHEAD + KEY_UPDATE.len());

/// A key update that asks for none in return (RFC 8446 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const FATAL: u8 = 2;
const WARNING: u8 = 1;

/// Seals what we send.
pub struct Sealer {
    state: DirectionState,
    keys: Keys,
    /// Records sealed with one generation of keys, the key update itself included.
    records_max: u64,
    /// The peer asked for new keys.
    update_asked: bool,
}

impl Sealer {
    /// Goes on from `state`; new keys are taken after `records_max` records, at least two.
    pub fn new(state: DirectionState, records_max: u64) -> Result<Self, RecordError> {
        let keys = state.secret.keys()?;
        Ok(Self { state, keys, records_max: records_max.max(2), update_asked: false })
    }

    /// What it is made of.
    pub fn state(&self) -> &DirectionState {
        &self.state
    }

    /// Whether a key update waits to be sent.
    pub fn update_asked(&self) -> bool {
        self.update_asked
    }

    /// New keys are to be taken before the next record, because the peer asked for it.
    pub fn ask_update(&mut self) {
        self.update_asked = true;
    }

    /// How many records may be sealed before [`Sealer::due`] must be called again.
    pub fn room(&self) -> u64 {
        if self.update_asked {
            return 0;
        }
        (self.records_max - 1).saturating_sub(self.state.sequence)
    }

    /// Seals a key update into the front of `out` if one is due; how many bytes that took, at most
    /// [`SEALED_BY_ITSELF_MAX`].
    pub fn due(&mut self, out: &mut [u8]) -> Result<usize, RecordError> {
        if self.room() > 0 {
            return Ok(0);
        }
        let len = self.seal_message(out, HANDSHAKE, &KEY_UPDATE)?;
        self.next_generation()?;
        Ok(len)
    }

    pub(super) fn next_generation(&mut self) -> Result<(), RecordError> {
        (self.state, self.keys) = self.state.next()?;
        self.update_asked = false;
        Ok(())
    }

    /// Seals application data that lies at `HEADER..HEADER + len` of `record`; the record's length.
    pub fn seal(&mut self, record: &mut [u8], len: usize) -> Result<usize, RecordError> {
        self.seal_as(record, len, APPLICATION_DATA)
    }

    /// Seals an alert into the front of `out`; how many bytes that took.
    pub fn seal_alert(&mut self, out: &mut [u8], alert: Alert) -> Result<usize, RecordError> {
        let level = if alert == Alert::CLOSE_NOTIFY { WARNING } else { FATAL };
        self.seal_message(out, ALERT, &[level, alert.0])
    }

    fn seal_message(
        &mut self,
        out: &mut [u8],
        kind: u8,
        message: &[u8],
    ) -> Result<usize, RecordError> {
        let place = out.get_mut(HEADER..HEADER + message.len()).ok_or(RecordError::Internal)?;
        place.copy_from_slice(message);
        self.seal_as(out, message.len(), kind)
    }

    pub(super) fn seal_as(
        &mut self,
        record: &mut [u8],
        len: usize,
        kind: u8,
    ) -> Result<usize, RecordError> {
        let total = HEADER + len + TRAILER;
        let record = record.get_mut(..total).ok_or(RecordError::Internal)?;
        let body = u16::try_from(len + TRAILER).map_err(|_| RecordError::Internal)?.to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, body[0], body[1]];
        record[..HEADER].copy_from_slice(&header);
        record[HEADER + len] = kind;
        let sequence = self.state.sequence;
        self.state.sequence = sequence.checked_add(1).ok_or(RecordError::Exhausted)?;
        let (plain, tag) = record[HEADER..].split_at_mut(len + 1);
        let nonce = self.keys.nonce(sequence);
        let sealed = self.keys.aead.seal_in_place_separate_tag(nonce, Aad::from(header), plain);
        tag.copy_from_slice(sealed.map_err(|_| RecordError::Internal)?.as_ref());
        Ok(total)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("state", &self.state).finish_non_exhaustive()
    }
}
