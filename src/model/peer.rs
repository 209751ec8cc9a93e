//! The proof that a peer showed a certificate we trust.

use crate::wire::spiffe::Identity;

/// The identity of a peer whose certificate chain, usage, dates and trust domain were verified.
///
/// Holding one is what entitles a caller to ask for a permit as that identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPeer {
    identity: Identity,
}

impl VerifiedPeer {
    /// Asserts that the handshake with this identity succeeded.
    ///
    /// Only `creds/verify.rs` may call this; `integration/tidy.rs` counts the callers.
    pub fn assertion(identity: Identity) -> Self {
        Self { identity }
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}
