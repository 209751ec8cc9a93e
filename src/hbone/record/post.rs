//! Handshake messages after the handshake, in whatever pieces they come (RFC 8446 4.6).

use super::{RecordError, Role};

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

pub(super) const MESSAGE_HEADER: usize = 4;
/// Tickets that a peer may send over the life of a connection; servers send one or two.
const TICKETS_MAX: u8 = 16;
/// Longest ticket message: lifetime, age, nonce, ticket and extensions at their longest.
const TICKET_BYTES_MAX: u32 = 4 + 4 + 256 + 2 + 65_535 + 2 + 65_535;

/// What a peer says after the handshake, as far as it has been read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Messages {
    /// The header of the message that is being read.
    pub(super) header: [u8; MESSAGE_HEADER],
    pub(super) header_len: u8,
    /// Bytes of its body that are still to come, if its header is there.
    pub(super) body_left: u32,
    /// Tickets so far.
    pub(super) tickets: u8,
}

/// What a record of handshake messages meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing that matters to us.
    Nothing,
    /// The peer takes new keys from the next record on, and may ask for ours.
    Update { asks: bool },
}

impl Messages {
    /// Whether a message has begun and not ended.
    pub(super) fn is_partial(&self) -> bool {
        self.header_len > 0
    }

    /// Reads the whole of one record's payload.
    pub(super) fn read(&mut self, mut rest: &[u8], role: Role) -> Result<Said, RecordError> {
        if rest.is_empty() {
            return Err(RecordError::Fragmented);
        }
        while let Some((&first, after)) = rest.split_first() {
            if usize::from(self.header_len) < MESSAGE_HEADER {
                self.header[usize::from(self.header_len)] = first;
                self.header_len += 1;
                rest = after;
                if usize::from(self.header_len) == MESSAGE_HEADER {
                    self.begin(role)?;
                }
                continue;
            }
            if self.header[0] == KEY_UPDATE {
                self.header_len = 0;
                // Keys change here: what follows is under other keys, so nothing may follow.
                return match (first, after) {
                    (0 | 1, []) => Ok(Said::Update { asks: first == 1 }),
                    (0 | 1, _) => Err(RecordError::Fragmented),
                    _ => Err(RecordError::Malformed),
                };
            }
            let taken = rest.len().min(self.body_left as usize);
            rest = &rest[taken..];
            // Not more than was left, which is a u32.
            self.body_left -= u32::try_from(taken).map_err(|_| RecordError::Internal)?;
            if self.body_left == 0 {
                self.header_len = 0;
            }
        }
        Ok(Said::Nothing)
    }

    /// Judges a message by its header.
    fn begin(&mut self, role: Role) -> Result<(), RecordError> {
        let [kind, high, middle, low] = self.header;
        let len = u32::from_be_bytes([0, high, middle, low]);
        match (kind, role) {
            (NEW_SESSION_TICKET, Role::Client) => {
                self.tickets = self.tickets.saturating_add(1);
                if self.tickets > TICKETS_MAX {
                    return Err(RecordError::TooManyTickets);
                }
                if len == 0 || len > TICKET_BYTES_MAX {
                    return Err(RecordError::Malformed);
                }
            }
            (KEY_UPDATE, _) if len == 1 => {}
            (KEY_UPDATE, _) => return Err(RecordError::Malformed),
            _ => return Err(RecordError::HandshakeMessage(kind)),
        }
        self.body_left = len;
        Ok(())
    }
}
