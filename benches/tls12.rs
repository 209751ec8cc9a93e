//! A handshake of TLS 1.2 in memory, under a throw-away authority.

use std::error::Error;
use std::sync::Arc;

use adit::hbone::handshake::{Handshake, Keys};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::TLS12;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{PrivatePkcs8KeyDer, ServerName};

/// The name in the certificate.
const NAME: &str = "server.test";
/// Flights of a handshake, and one more.
const FLIGHTS_MAX: usize = 4;

/// What both ends have after it, the client's first.
pub(crate) fn keys() -> Result<(Keys, Keys), Box<dyn Error>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate()?;
    let root = params.self_signed(&root_key)?.der().clone();
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new([NAME.to_owned()])?;
    let leaf = leaf.signed_by(&key, &Issuer::new(params, root_key))?.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let suite = aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let provider = aws_lc_rs::default_provider();
    let provider = Arc::new(CryptoProvider { cipher_suites: vec![suite], ..provider });
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS12])?
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = Handshake::client(Arc::new(client), ServerName::try_from(NAME)?)?;
    let mut server = Handshake::server(Arc::new(server))?;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..FLIGHTS_MAX {
        client.feed(&std::mem::take(&mut down), &mut up)?;
        server.feed(&std::mem::take(&mut up), &mut down)?;
    }
    Ok((client.finish()?, server.finish()?))
}
