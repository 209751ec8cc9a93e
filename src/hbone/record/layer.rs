//! Which record layer a tunnel has: ours for TLS 1.3, that of rustls for TLS 1.2.

use super::tls12::Tls12;
use super::{
    Alert, DirectionState, HEADER, Opened, Opener, RecordError, Role, Sealer, TAG, TRAILER,
    record_len,
};

/// What a handshake leaves to seal and to open records with.
#[derive(Debug)]
pub enum Secrets {
    /// TLS 1.3: both directions, as data.
    Tls13 {
        /// What we send with.
        sending: DirectionState,
        /// What the peer sends with.
        receiving: DirectionState,
    },
    /// TLS 1.2: the connection, which keeps its keys to itself.
    Tls12(Box<Tls12>),
}

/// What stands around the payload of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hbone) struct Layout {
    pub(in crate::hbone) header: usize,
    pub(in crate::hbone) trailer: usize,
}

/// Both directions of a tunnel.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all tunnels are of the large kind")]
pub(in crate::hbone) enum Layer {
    Tls13(Sealer, Opener),
    Tls12(Box<Tls12>),
}

impl Layout {
    /// RFC 8446 5.2.
    pub(in crate::hbone) const TLS13: Self = Self { header: HEADER, trailer: TRAILER };
    /// RFC 5288 3: the explicit part of the nonce is in front, and there is no inner type.
    pub(in crate::hbone) const TLS12: Self = Self { header: HEADER + 8, trailer: TAG };

    /// What a record adds to its payload.
    pub(in crate::hbone) fn overhead(self) -> usize {
        self.header + self.trailer
    }
}

impl Layer {
    /// Goes on from `secrets`, with at most `records_max` records under the same keys.
    pub(in crate::hbone) fn new(
        secrets: Secrets,
        role: Role,
        records_max: u64,
    ) -> Result<Self, RecordError> {
        Ok(match secrets {
            Secrets::Tls13 { sending, receiving } => {
                Self::Tls13(Sealer::new(sending, records_max)?, Opener::new(receiving, role)?)
            }
            Secrets::Tls12(mut tls) => {
                tls.limit(records_max);
                Self::Tls12(tls)
            }
        })
    }

    pub(in crate::hbone) fn layout(&self) -> Layout {
        match self {
            Self::Tls13(..) => Layout::TLS13,
            Self::Tls12(_) => Layout::TLS12,
        }
    }

    /// As [`record_len`].
    pub(in crate::hbone) fn record_len(&self, bytes: &[u8]) -> Result<Option<usize>, RecordError> {
        match self {
            Self::Tls13(..) => record_len(bytes),
            Self::Tls12(_) => Tls12::record_len(bytes),
        }
    }

    /// As [`Opener::open`].
    pub(in crate::hbone) fn open<'a>(
        &mut self,
        record: &'a mut [u8],
    ) -> Result<Opened<'a>, RecordError> {
        match self {
            Self::Tls13(sealer, opener) => {
                let opened = opener.open(record)?;
                if opened == Opened::UpdateAsked {
                    sealer.ask_update();
                }
                Ok(opened)
            }
            Self::Tls12(tls) => tls.open(record),
        }
    }

    /// Whether the peer has said `close_notify`.
    pub(in crate::hbone) fn is_closed(&self) -> bool {
        match self {
            Self::Tls13(_, opener) => opener.is_closed(),
            Self::Tls12(tls) => tls.is_closed(),
        }
    }

    /// Whether something of its own waits to be sent.
    pub(in crate::hbone) fn has_words(&self) -> bool {
        match self {
            Self::Tls13(sealer, _) => sealer.update_asked(),
            Self::Tls12(tls) => tls.has_words(),
        }
    }

    /// Whether the tunnel is to take no more streams, because its keys cannot be changed and a
    /// good part of what they may seal is sealed.
    pub(in crate::hbone) fn is_worn(&self) -> bool {
        match self {
            Self::Tls13(..) => false,
            Self::Tls12(tls) => tls.is_worn(),
        }
    }

    /// How many records may be sealed before [`Layer::due`] must be called again.
    pub(in crate::hbone) fn room(&self) -> u64 {
        match self {
            Self::Tls13(sealer, _) => sealer.room(),
            Self::Tls12(tls) => tls.room(),
        }
    }

    /// Seals what it has to say itself into the front of `out`; how many bytes that took, at most
    /// [`SEALED_BY_ITSELF_MAX`].
    pub(in crate::hbone) fn due(&mut self, out: &mut [u8]) -> Result<usize, RecordError> {
        match self {
            Self::Tls13(sealer, _) => sealer.due(out),
            Self::Tls12(tls) => tls.due(out),
        }
    }

    /// Seals application data that lies behind the header of `record`; the record's length.
    pub(in crate::hbone) fn seal(
        &mut self,
        record: &mut [u8],
        len: usize,
    ) -> Result<usize, RecordError> {
        match self {
            Self::Tls13(sealer, _) => sealer.seal(record, len),
            Self::Tls12(tls) => tls.seal(record, len),
        }
    }

    /// Seals the last words into the front of `out`; how many bytes that took.
    pub(in crate::hbone) fn seal_alert(
        &mut self,
        out: &mut [u8],
        alert: Alert,
    ) -> Result<usize, RecordError> {
        match self {
            Self::Tls13(sealer, _) => sealer.seal_alert(out, alert),
            Self::Tls12(tls) => tls.seal_last(out),
        }
    }
}
