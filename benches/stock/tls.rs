//! Mutual TLS under a throw-away authority.

use std::error::Error;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde::{Deserialize, Serialize};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The name in everybody's certificate.
const NAME: &str = "relay";

/// One root and one certificate, for everybody.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Material {
    root: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Material {
    /// Makes new ones.
    pub(crate) fn generate() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate()?;
        let root = params.self_signed(&root_key)?;
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new([NAME.to_owned()])?;
        let leaf = leaf.signed_by(&key, &Issuer::new(params, root_key))?;
        Ok(Self {
            root: root.der().to_vec(),
            certificate: leaf.der().to_vec(),
            key: key.serialize_der(),
        })
    }

    fn chain(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivatePkcs8KeyDer::from(self.key.clone());
        (vec![self.certificate.clone().into()], key.into())
    }
}

/// The client's and the server's side.
pub(super) fn both(
    material: &Material,
) -> Result<(TlsConnector, TlsAcceptor), Box<dyn Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    roots.add(material.root.clone().into())?;
    let roots = Arc::new(roots);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
    let (chain, key) = material.chain();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    server.send_tls13_tickets = 0;
    let (chain, key) = material.chain();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok((Arc::new(client).into(), Arc::new(server).into()))
}

/// Whom a client expects.
pub(super) fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("it is a DNS name")
}
