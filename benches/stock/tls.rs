//! Mutual TLS under a throw-away authority.

use std::error::Error;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig, crypto::aws_lc_rs, version::TLS13};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::pki::Material;

/// The client's and the server's side.
pub(super) fn both(
    material: &Material,
) -> Result<(TlsConnector, TlsAcceptor), Box<dyn Error + Send + Sync>> {
    let roots = Arc::new(material.roots()?);
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
