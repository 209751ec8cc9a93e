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
    /// What is to be expected of another try.
    pub kind: IssueErrorKind,
    /// What went wrong.
    pub reason: String,
}

/// What is to be expected of another try, after a fetch that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IssueErrorKind {
    /// The issuer was not reached, or cannot answer now.
    Unreachable,
    /// The issuer does not believe us, or does not know the pod: it may come to.
    Denied,
    /// The issuer takes no such request: the next one will be no better, until somebody changes
    /// something.
    Refused,
    /// What the issuer sent is not published.
    Unfit,
    /// The fault is ours.
    Internal,
}

impl IssueErrorKind {
    /// One word, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::Unfit => "unfit",
            Self::Internal => "internal",
        }
    }

    /// Whether the failure lasts: trying again soon would only be noise.
    pub(super) fn lasts(self) -> bool {
        self == Self::Refused
    }
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
