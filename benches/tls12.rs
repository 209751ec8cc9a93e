//! A handshake of TLS 1.2 in memory.

use std::error::Error;
use std::sync::Arc;

use adit::hbone::handshake::{Handshake, Keys};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::TLS12;
use rustls::{ClientConfig, ServerConfig};

use crate::pki::{self, Material};

/// Flights of a handshake, and one more.
const FLIGHTS_MAX: usize = 4;

/// What both ends have after it, the client's first.
pub(crate) fn keys() -> Result<(Keys, Keys), Box<dyn Error>> {
    let material = Material::generate()?;
    let suite = aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let provider = aws_lc_rs::default_provider();
    let provider = Arc::new(CryptoProvider { cipher_suites: vec![suite], ..provider });
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS12])?
        .with_root_certificates(material.roots()?)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let (chain, key) = material.chain();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = Handshake::client(Arc::new(client), pki::name())?;
    let mut server = Handshake::server(Arc::new(server))?;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..FLIGHTS_MAX {
        client.feed(&std::mem::take(&mut down), &mut up)?;
        server.feed(&std::mem::take(&mut up), &mut down)?;
    }
    Ok((client.finish()?, server.finish()?))
}
