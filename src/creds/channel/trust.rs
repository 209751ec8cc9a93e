//! How a server of the control plane is judged.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::super::tls::Tls;
use super::error::ChannelError;
use crate::config::{TrustRoot, Upstream};
use crate::creds::files::small_text;

/// The largest bundle of root certificates: those of operating systems have a few hundred KiB.
const ROOT_BYTES_MAX: u64 = 4 << 20;
/// Where distributions keep the trust anchors of the system.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The settings for one connection: root certificates are read again for each.
pub(super) fn client(upstream: &Upstream, tls: &Tls) -> Result<ClientConfig, ChannelError> {
    let unusable = |reason: String| ChannelError::Root { from: upstream.root.to_string(), reason };
    let pem = match &upstream.root {
        TrustRoot::Pem(pem) => Ok(pem.clone()),
        TrustRoot::File(path) => small_text(path, ROOT_BYTES_MAX),
        TrustRoot::System => {
            let found = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists());
            found
                .ok_or_else(|| io::Error::other(format!("none of {SYSTEM_BUNDLES:?} is there")))
                .and_then(|path| small_text(path, ROOT_BYTES_MAX))
        }
    };
    let pem = pem.map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    // One bad certificate of a bundle says nothing against the others.
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(unusable("there is no usable certificate in it".to_owned()));
    }
    let alternative = match &upstream.alternative_name {
        None => None,
        Some(name) => Some(
            ServerName::try_from(name.clone())
                .map_err(|_| ChannelError::Name { host: name.clone() })?,
        ),
    };
    let verifier = tls.name_verifier(Arc::new(roots));
    let verifier = verifier.map_err(|error| unusable(error.to_string()))?;
    tls.control_client(Arc::new(EitherName { verifier, alternative }))
        .map_err(|error| unusable(error.to_string()))
}

/// Accepts the name that was asked for, or the alternative (spec xds 1).
#[derive(Debug)]
struct EitherName {
    verifier: Arc<WebPkiServerVerifier>,
    alternative: Option<ServerName<'static>>,
}

impl ServerCertVerifier for EitherName {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |name: &ServerName<'_>| {
            self.verifier.verify_server_cert(leaf, intermediates, name, ocsp, now)
        };
        match (verify(name), &self.alternative) {
            (
                Err(rustls::Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                )),
                Some(alternative),
            ) => verify(alternative),
            (verdict, _) => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
