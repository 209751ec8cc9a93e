//! The SPIFFE verifiers, and the only caller of `VerifiedPeer::assertion`.
//!
//! Stricter than the field in one point: a leaf has exactly one URI, and it is a workload's
//! SPIFFE id, as the X.509-SVID standard demands. The upstream proxy skips URIs that it cannot
//! read and takes the first that it can (spec identity 6), which lets the order of names decide
//! who somebody is.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;

use super::revocation::{PeerRole, Revocations};
use crate::model::VerifiedPeer;
use crate::wire::spiffe::Identity;

/// Certificates a peer may show, its own included.
pub const CHAIN_CERTIFICATES_MAX: usize = 8;
/// Size of all certificates that a peer shows, bytes.
pub const CHAIN_BYTES_MAX: usize = 32 * 1024;
/// Subject alternative names a peer's certificate may have.
pub const NAMES_MAX: usize = 64;
/// Length of a SPIFFE id, bytes (the limit of the SPIFFE standard).
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;

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
    /// The leaf has other URIs beside its SPIFFE URI.
    OtherUris,
    /// The leaf has more than [`NAMES_MAX`] names.
    TooManyNames,
}

/// Why our verifiers refused a peer during the handshake, beyond what X.509 demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerRefusal {
    /// More than [`CHAIN_CERTIFICATES_MAX`] certificates or [`CHAIN_BYTES_MAX`] bytes.
    ChainTooLong {
        /// How many it showed.
        certificates: usize,
        /// Their size.
        bytes: usize,
    },
    /// The leaf does not say who the peer is.
    Leaf(PeerError),
    /// A client of another trust domain than ours.
    TrustDomain {
        /// Who it says it is.
        peer: Identity,
        /// Our trust domain.
        ours: Arc<str>,
    },
    /// A server that is none of those we wanted to reach.
    Unexpected {
        /// Who it says it is.
        peer: Identity,
        /// Whom we wanted.
        expected: Arc<[Identity]>,
    },
    /// Nobody was expected, so that nobody is accepted.
    NobodyExpected,
}

/// Verifies clients of a workload: chain, usage, dates, one identity, our trust domain.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    trust_domain: Arc<str>,
    revocations: Option<Arc<Revocations>>,
}

/// Verifies servers that a workload calls: chain, usage, dates, one of the expected identities.
/// DNS names do not matter.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    roots: Arc<RootCertStore>,
    expected: Arc<[Identity]>,
    algorithms: WebPkiSupportedAlgorithms,
    revocations: Option<Arc<Revocations>>,
}

/// The peer of a finished handshake, whose chain rustls verified with our verifier.
///
/// `chain` is `peer_certificates()` of that connection: the verifiers of this module have
/// accepted it, or the handshake would have failed.
pub fn verified_peer(chain: Option<&[CertificateDer<'_>]>) -> Result<VerifiedPeer, PeerError> {
    let leaf = chain.and_then(<[_]>::first).ok_or(PeerError::NoCertificate)?;
    leaf_identity(leaf).map(VerifiedPeer::assertion)
}

impl ClientVerifier {
    /// A verifier for the server certificates of `trust_domain`, trusting `roots`.
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        trust_domain: Arc<str>,
    ) -> Result<Self, rustls::server::VerifierBuilderError> {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider);
        Ok(Self { chain: builder.build()?, roots, trust_domain, revocations: None })
    }

    /// The same, refusing who is revoked.
    pub(super) fn looking_up(self, revocations: Option<Arc<Revocations>>) -> Self {
        Self { revocations, ..self }
    }
}

impl ServerVerifier {
    /// A verifier that accepts exactly the `expected` identities, trusting `roots`.
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        provider: &CryptoProvider,
        expected: Arc<[Identity]>,
    ) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Self { roots, expected, algorithms, revocations: None }
    }

    /// The same, refusing who is revoked.
    pub(super) fn looking_up(self, revocations: Option<Arc<Revocations>>) -> Self {
        Self { revocations, ..self }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        check_size(end_entity, intermediates)?;
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        // Only after the chain: an identity that nobody vouches for is not worth a word.
        let peer = leaf_identity(end_entity).map_err(PeerRefusal::Leaf)?;
        if peer.trust_domain() != &*self.trust_domain {
            return Err(PeerRefusal::TrustDomain { peer, ours: self.trust_domain.clone() }.into());
        }
        if let Some(revocations) = &self.revocations {
            let (chain, role) = ((end_entity, intermediates), PeerRole::Client);
            revocations.check(chain, &self.roots, role, now)?;
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.expected.is_empty() {
            return Err(PeerRefusal::NobodyExpected.into());
        }
        check_size(end_entity, intermediates)?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        let peer = leaf_identity(end_entity).map_err(PeerRefusal::Leaf)?;
        if !self.expected.contains(&peer) {
            return Err(PeerRefusal::Unexpected { peer, expected: self.expected.clone() }.into());
        }
        if let Some(revocations) = &self.revocations {
            let (chain, role) = ((end_entity, intermediates), PeerRole::Server);
            revocations.check(chain, &self.roots, role, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl From<PeerRefusal> for rustls::Error {
    fn from(refusal: PeerRefusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("the peer showed no certificate"),
            Self::Unreadable => f.write_str("the peer's certificate cannot be read"),
            Self::NoIdentity => f.write_str("the peer's certificate has no workload identity"),
            Self::SeveralIdentities => {
                f.write_str("the peer's certificate has more than one SPIFFE id")
            }
            Self::OtherUris => {
                f.write_str("the peer's certificate has other URIs beside its SPIFFE id")
            }
            Self::TooManyNames => {
                write!(f, "the peer's certificate has more than {NAMES_MAX} names")
            }
        }
    }
}

impl std::error::Error for PeerError {}

impl fmt::Display for PeerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChainTooLong { certificates, bytes } => write!(
                f,
                "the peer's chain of {certificates} certificates and {bytes} bytes is longer \
                 than {CHAIN_CERTIFICATES_MAX} certificates or {CHAIN_BYTES_MAX} bytes"
            ),
            Self::Leaf(error) => fmt::Display::fmt(error, f),
            Self::TrustDomain { peer, ours } => {
                write!(f, "trust domain {} is not {ours} (peer {peer})", peer.trust_domain())
            }
            Self::Unexpected { peer, expected } => match &**expected {
                [only] => write!(f, "the peer is {peer}, not {only}"),
                [first, ..] => write!(
                    f,
                    "the peer is {peer}, none of the {} expected identities ({first}, ...)",
                    expected.len()
                ),
                [] => fmt::Display::fmt(&Self::NobodyExpected, f),
            },
            Self::NobodyExpected => f.write_str("no identity is expected of this peer"),
        }
    }
}

impl std::error::Error for PeerRefusal {}

/// The one workload identity of a certificate.
pub(super) fn leaf_identity(leaf: &CertificateDer<'_>) -> Result<Identity, PeerError> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(leaf).map_err(|_| PeerError::Unreadable)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| PeerError::Unreadable)?
        .map_or(&[][..], |extension| &extension.value.general_names);
    if names.len() > NAMES_MAX {
        return Err(PeerError::TooManyNames);
    }
    let mut uris = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::Invalid(..) => return Err(PeerError::Unreadable),
            _ => {}
        }
    }
    match uris.as_slice() {
        [] => Err(PeerError::NoIdentity),
        [uri] => workload_id(uri).ok_or(PeerError::NoIdentity),
        several => Err(match several.iter().filter(|uri| is_spiffe(uri)).count() {
            0 => PeerError::NoIdentity,
            1 => PeerError::OtherUris,
            _ => PeerError::SeveralIdentities,
        }),
    }
}

/// Bounds the work that a peer can cause, before any of it is done (promise A2).
fn check_size(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), PeerRefusal> {
    let certificates = intermediates.len() + 1;
    let bytes = intermediates.iter().map(|der| der.len()).sum::<usize>() + end_entity.len();
    if certificates > CHAIN_CERTIFICATES_MAX || bytes > CHAIN_BYTES_MAX {
        return Err(PeerRefusal::ChainTooLong { certificates, bytes });
    }
    Ok(())
}

/// URIs are ASCII without spaces or control characters (RFC 3986); ours go into logs and policies.
fn workload_id(uri: &str) -> Option<Identity> {
    let plain = uri.len() <= SPIFFE_ID_BYTES_MAX && uri.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { uri.parse().ok() } else { None }
}

fn is_spiffe(uri: &str) -> bool {
    uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"))
}

#[cfg(test)]
mod tests;
