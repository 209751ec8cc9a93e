//! The record layer as bytes, and from them.

use zeroize::Zeroizing;

use super::open::WITHOUT_DATA_MAX;
use super::post::{MESSAGE_HEADER, Messages};
use super::{DirectionState, Opener, Role, Sealer, Suite, TrafficSecret};
use crate::hbone::frozen::{Frozen, ResumeError, frozen, take};

/// Key updates that a connection can have seen.
const GENERATION_MAX: u64 = 1 << 50;

frozen!(Messages { header, header_len, body_left, tickets });

/// What a frozen direction needs at most: its suite, its secret, its numbers.
pub(in crate::hbone) const DIRECTION_MAX: usize = 1 + 48 + 8 + 8;

impl Frozen for DirectionState {
    fn freeze(&self, out: &mut Vec<u8>) {
        let Self { secret, generation, sequence } = self;
        (secret.suite() == Suite::Aes256GcmSha384).freeze(out);
        out.extend_from_slice(secret.expose());
        generation.freeze(out);
        sequence.freeze(out);
    }

    fn thaw(input: &mut &[u8]) -> Result<Self, ResumeError> {
        let suite =
            if bool::thaw(input)? { Suite::Aes256GcmSha384 } else { Suite::Aes128GcmSha256 };
        let secret = Zeroizing::new(take(input, suite.secret_len())?.to_vec());
        let secret = TrafficSecret::new(suite, &secret).map_err(ResumeError::Record)?;
        let (generation, sequence) = (u64::thaw(input)?, u64::thaw(input)?);
        if generation > GENERATION_MAX {
            return Err(ResumeError::Malformed);
        }
        Ok(Self { secret, generation, sequence })
    }
}

impl Sealer {
    /// Appends what [`Sealer::thaw`] goes on with.
    pub(in crate::hbone) fn freeze(&self, out: &mut Vec<u8>) {
        self.update_asked().freeze(out);
        self.state().freeze(out);
    }

    pub(in crate::hbone) fn thaw(input: &mut &[u8], records_max: u64) -> Result<Self, ResumeError> {
        let update_asked = bool::thaw(input)?;
        let state = DirectionState::thaw(input)?;
        let mut sealer = Self::new(state, records_max).map_err(ResumeError::Record)?;
        if update_asked {
            sealer.ask_update();
        }
        Ok(sealer)
    }
}

impl Opener {
    /// Appends what [`Opener::thaw`] goes on with.
    pub(in crate::hbone) fn freeze(&self, out: &mut Vec<u8>) {
        self.messages.freeze(out);
        self.without_data.freeze(out);
        self.is_closed().freeze(out);
        self.state().freeze(out);
    }

    pub(in crate::hbone) fn thaw(input: &mut &[u8], role: Role) -> Result<Self, ResumeError> {
        let (messages, without_data) = (Messages::thaw(input)?, u8::thaw(input)?);
        let closed = bool::thaw(input)?;
        let state = DirectionState::thaw(input)?;
        let header_len = usize::from(messages.header_len);
        if without_data > WITHOUT_DATA_MAX || header_len > MESSAGE_HEADER {
            return Err(ResumeError::Malformed);
        }
        let mut opener = Self::new(state, role).map_err(ResumeError::Record)?;
        (opener.messages, opener.without_data, opener.closed) = (messages, without_data, closed);
        Ok(opener)
    }
}
