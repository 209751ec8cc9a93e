//! Who issues certificates, as the keeper sees it.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};

use crate::wire::spiffe::Identity;

/// What is asked of an issuer. The private key stays with us: the issuer gets a request that is
/// signed with it.
#[derive(Debug)]
pub struct IssueRequest {
    /// Whose certificate it is to be.
    pub identity: Identity,
    /// PKCS#10, in the form of spec identity 2.2.
    pub csr: CertificateSigningRequestDer<'static>,
    /// The lifetime wished for; the issuer may give less.
    pub ttl: Duration,
}

/// An issuer's answer. Nothing in it is believed before it was validated.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Leaf first, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// Trust anchors.
    pub roots: Vec<CertificateDer<'static>>,
}

/// Why an issuer gave no certificate, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueError {
    /// What went wrong.
    pub reason: String,
}

/// An issuer of workload certificates. The keeper bounds each call in time and their number.
pub trait Issuer: fmt::Debug + Send + Sync {
    /// Asks for one certificate. Dropping the future gives the request up.
    fn issue(&self, request: IssueRequest) -> BoxFuture<'_, Result<Issued, IssueError>>;
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for IssueError {}
