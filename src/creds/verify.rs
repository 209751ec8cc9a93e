//! The SPIFFE verifier, and the only caller of `VerifiedPeer::assertion`.

use rustls_pki_types::CertificateDer;

use crate::model::VerifiedPeer;

/// Why a peer's certificate does not make it a verified peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// It showed none.
    NoCertificate,
    /// The leaf cannot be read.
    Unreadable,
    /// The leaf has no SPIFFE URI, or one that is not a workload's.
    NoIdentity,
    /// The leaf has more than one SPIFFE URI.
    SeveralIdentities,
}

/// The peer of a finished handshake, whose chain rustls verified with our verifier.
pub fn verified_peer(
    chain: Option<&[CertificateDer<'_>]>,
) -> Result<VerifiedPeer, PeerError> {
    let _ = chain;
    Err(PeerError::NoCertificate)
}
