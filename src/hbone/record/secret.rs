//! Traffic secrets and what follows from them (RFC 8446 7.2 and 7.3).

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Algorithm, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use rustls::CipherSuite;
use zeroize::Zeroizing;

use super::RecordError;

/// Longest traffic secret: the output of SHA-384.
const SECRET_MAX: usize = 48;
/// Longest key: AES-256.
const KEY_MAX: usize = 32;
const IV: usize = 12;
/// Length field, label with its length and prefix, empty context.
const INFO_MAX: usize = 32;

/// The cipher suites that are offered (spec hbone 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// `TLS_AES_128_GCM_SHA256`.
    Aes128GcmSha256,
    /// `TLS_AES_256_GCM_SHA384`.
    Aes256GcmSha384,
}

/// One direction's application traffic secret of one generation.
pub struct TrafficSecret {
    suite: Suite,
    bytes: Zeroizing<[u8; SECRET_MAX]>,
}

/// What one direction is: enough to go on with it in another process.
#[derive(Debug)]
pub struct DirectionState {
    /// The secret that all keys of this generation come from.
    pub secret: TrafficSecret,
    /// How many key updates there have been.
    pub generation: u64,
    /// Number of the next record under these keys.
    pub sequence: u64,
}

/// The keys of one generation, ready for use.
pub(super) struct Keys {
    pub(super) aead: LessSafeKey,
    iv: [u8; IV],
}

/// A length that HKDF is asked for.
struct Length(usize);

impl Suite {
    /// The suite of a finished handshake, if it is one of ours.
    pub fn from_tls(suite: CipherSuite) -> Option<Self> {
        match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => Some(Self::Aes128GcmSha256),
            CipherSuite::TLS13_AES_256_GCM_SHA384 => Some(Self::Aes256GcmSha384),
            _ => None,
        }
    }

    /// Bytes of a traffic secret.
    pub fn secret_len(self) -> usize {
        match self {
            Self::Aes128GcmSha256 => 32,
            Self::Aes256GcmSha384 => 48,
        }
    }

    fn aead(self) -> &'static Algorithm {
        match self {
            Self::Aes128GcmSha256 => &AES_128_GCM,
            Self::Aes256GcmSha384 => &AES_256_GCM,
        }
    }

    fn hkdf(self) -> hkdf::Algorithm {
        match self {
            Self::Aes128GcmSha256 => HKDF_SHA256,
            Self::Aes256GcmSha384 => HKDF_SHA384,
        }
    }
}

impl TrafficSecret {
    /// A secret as the handshake gave it. Errors if its length is not the suite's.
    pub fn new(suite: Suite, secret: &[u8]) -> Result<Self, RecordError> {
        if secret.len() != suite.secret_len() {
            return Err(RecordError::Internal);
        }
        let mut bytes = Zeroizing::new([0; SECRET_MAX]);
        bytes[..secret.len()].copy_from_slice(secret);
        Ok(Self { suite, bytes })
    }

    /// The suite it belongs to.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The bytes themselves, for the state that goes to another process.
    pub fn expose(&self) -> &[u8] {
        &self.bytes[..self.suite.secret_len()]
    }

    /// The first generation, of which `sequence` records have been sent or received.
    pub fn begin(self, sequence: u64) -> DirectionState {
        DirectionState { secret: self, generation: 0, sequence }
    }

    /// A digest that only who has the secret can tell, and that does not tell it.
    pub(in crate::hbone) fn fingerprint(&self) -> [u8; SHA256_OUTPUT_LEN] {
        let mut context = Context::new(&SHA256);
        context.update(b"adit tunnel fingerprint");
        context.update(self.expose());
        let mut out = [0; SHA256_OUTPUT_LEN];
        out.copy_from_slice(context.finish().as_ref());
        out
    }

    /// The secret after a key update.
    fn next(&self) -> Result<Self, RecordError> {
        let mut bytes = Zeroizing::new([0; SECRET_MAX]);
        self.expand(b"traffic upd", &mut bytes[..self.suite.secret_len()])?;
        Ok(Self { suite: self.suite, bytes })
    }

    pub(super) fn keys(&self) -> Result<Keys, RecordError> {
        let (key, iv) = self.key_and_iv()?;
        let key = UnboundKey::new(self.suite.aead(), &key[..self.suite.aead().key_len()])
            .map_err(|_| RecordError::Internal)?;
        Ok(Keys { aead: LessSafeKey::new(key), iv })
    }

    /// Whether these are the key and the IV that follow from this secret.
    pub(in crate::hbone) fn gives(&self, key: &[u8], iv: &[u8]) -> bool {
        let Ok((own_key, own_iv)) = self.key_and_iv() else { return false };
        let own_key = &own_key[..self.suite.aead().key_len()];
        let same =
            |a: &[u8], b: &[u8]| aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok();
        same(own_key, key) && same(&own_iv, iv)
    }

    fn key_and_iv(&self) -> Result<(Zeroizing<[u8; KEY_MAX]>, [u8; IV]), RecordError> {
        let mut key = Zeroizing::new([0; KEY_MAX]);
        let mut iv = [0; IV];
        self.expand(b"key", &mut key[..self.suite.aead().key_len()])?;
        self.expand(b"iv", &mut iv)?;
        Ok((key, iv))
    }

    /// HKDF-Expand-Label with an empty context.
    fn expand(&self, label: &[u8], out: &mut [u8]) -> Result<(), RecordError> {
        const PREFIX: &[u8] = b"tls13 ";
        let byte = |n: usize| u8::try_from(n).map_err(|_| RecordError::Internal);
        let label_len = PREFIX.len() + label.len();
        let mut info = [0; INFO_MAX];
        info[1] = byte(out.len())?;
        info[2] = byte(label_len)?;
        info[3..3 + PREFIX.len()].copy_from_slice(PREFIX);
        info[3 + PREFIX.len()..3 + label_len].copy_from_slice(label);
        let prk = Prk::new_less_safe(self.suite.hkdf(), self.expose());
        prk.expand(&[&info[..3 + label_len + 1]], Length(out.len()))
            .and_then(|okm| okm.fill(out))
            .map_err(|_| RecordError::Internal)
    }
}

impl DirectionState {
    /// The generation after a key update, and its keys.
    pub(super) fn next(&self) -> Result<(Self, Keys), RecordError> {
        let secret = self.secret.next()?;
        let keys = secret.keys()?;
        Ok((Self { secret, generation: self.generation + 1, sequence: 0 }, keys))
    }
}

impl Keys {
    /// The nonce of the record with this number (RFC 8446 5.3).
    pub(super) fn nonce(&self, sequence: u64) -> Nonce {
        let mut nonce = self.iv;
        for (byte, of_sequence) in nonce[IV - 8..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl fmt::Debug for TrafficSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrafficSecret").field("suite", &self.suite).finish_non_exhaustive()
    }
}
