//! Certificates by identity: fetched, renewed, published as finished TLS configurations.

use std::sync::Arc;

use crate::wire::spiffe::Identity;

/// The readers' handle: finished TLS configurations by identity.
#[derive(Clone, Debug)]
pub struct Credentials {}

/// The writer: fetches and renews certificates. It lives on the control thread.
#[derive(Debug)]
pub struct Keeper {}

/// Why there is no TLS configuration for an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialsError {
    /// The certificate could not be obtained; the text says why.
    Unavailable(Arc<str>),
    /// The last certificate has expired and could not be renewed.
    Expired,
    /// Nobody fetches certificates any more.
    Stopped,
}

/// Where a certificate stands, for the config dump and the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateState {
    /// Being fetched for the first time.
    Initializing,
    /// Served.
    Available,
    /// Not there, and why.
    Unavailable(Arc<str>),
}

/// One identity's certificate, without its key.
#[derive(Clone, Debug)]
pub struct CertificateInfo {
    /// Whose it is.
    pub identity: Identity,
    /// Where it stands.
    pub state: CertificateState,
    /// Leaf and intermediates, DER.
    pub chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    /// Trust anchors, DER.
    pub roots: Vec<rustls_pki_types::CertificateDer<'static>>,
}

impl Credentials {
    /// The TLS configuration for tunnels that arrive at a workload with this identity.
    ///
    /// Waits while the first certificate is being fetched.
    pub async fn server(
        &self,
        identity: &Identity,
    ) -> Result<Arc<rustls::ServerConfig>, CredentialsError> {
        let _ = identity;
        Err(CredentialsError::Stopped)
    }

    /// The TLS configuration for tunnels that a workload with this identity opens to a peer with
    /// one of the `expected` identities. An empty list accepts nobody.
    pub async fn client(
        &self,
        identity: &Identity,
        expected: &[Identity],
    ) -> Result<Arc<rustls::ClientConfig>, CredentialsError> {
        let _ = (identity, expected);
        Err(CredentialsError::Stopped)
    }

    /// Says that a pod with this identity is here: its certificate is fetched now and kept fresh.
    pub fn hold(&self, identity: &Identity) {
        let _ = identity;
    }

    /// Says that a pod with this identity has left; with the last one its keys are forgotten.
    pub fn release(&self, identity: &Identity) {
        let _ = identity;
    }

    /// Every certificate, sorted by identity.
    pub fn inventory(&self) -> Vec<CertificateInfo> {
        Vec::new()
    }
}
