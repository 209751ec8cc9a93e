//! TLS configurations and handshakes in memory for the tests of this room.

pub(in crate::hbone) mod world;

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, version,
};

use super::handshake::{Handshake, KeySlot, Keys};
use super::record::Suite;

pub(crate) const SUITES: [Suite; 2] = [Suite::Aes128GcmSha256, Suite::Aes256GcmSha384];

/// One certificate authority and one server, for any number of configurations.
pub(crate) struct Pki {
    root: CertificateDer<'static>,
    leaf: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let ca_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&ca_key).unwrap().der().clone();
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["server.test".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap().der().clone();
        Self { root, leaf, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) }
    }

    pub(crate) fn client(&self, suite: Suite) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider(suite))
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.key_log = Arc::new(KeySlot);
        config.enable_secret_extraction = true;
        config
    }

    /// A server that sends `tickets` session tickets in one flight.
    pub(crate) fn server(&self, suite: Suite, tickets: usize) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(provider(suite))
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.leaf.clone()], self.key.clone_key())
            .unwrap();
        config.key_log = Arc::new(KeySlot);
        config.enable_secret_extraction = true;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.send_tls13_tickets = tickets;
        config
    }
}

fn provider(suite: Suite) -> Arc<CryptoProvider> {
    let suite = match suite {
        Suite::Aes128GcmSha256 => cipher_suite::TLS13_AES_128_GCM_SHA256,
        Suite::Aes256GcmSha384 => cipher_suite::TLS13_AES_256_GCM_SHA384,
    };
    Arc::new(CryptoProvider { cipher_suites: vec![suite], ..default_provider() })
}

pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from("server.test").unwrap()
}

/// Both ends ours, shaken hands.
pub(super) fn key_pair(suite: Suite) -> (Keys, Keys) {
    let pki = Pki::new();
    let mut client = Handshake::client(Arc::new(pki.client(suite)), name()).unwrap();
    let mut server = Handshake::server(Arc::new(pki.server(suite, 0))).unwrap();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        client.feed(&std::mem::take(&mut down), &mut up).unwrap();
        server.feed(&std::mem::take(&mut up), &mut down).unwrap();
    }
    (client.finish().unwrap(), server.finish().unwrap())
}

/// We as client of a rustls server, pieces of at most `split` bytes; what the server sends behind
/// its handshake arrives with it.
pub(super) fn with_server(suite: Suite, tickets: usize, split: usize) -> (Keys, ServerConnection) {
    let pki = Pki::new();
    let mut ours = Handshake::client(Arc::new(pki.client(suite)), name()).unwrap();
    let mut peer = ServerConnection::new(Arc::new(pki.server(suite, tickets))).unwrap();
    let (mut up, mut down, mut done) = (Vec::new(), Vec::new(), false);
    ours.feed(&[], &mut up).unwrap();
    while !done || peer.is_handshaking() {
        let mut rest = up.as_slice();
        while !rest.is_empty() {
            peer.read_tls(&mut rest).unwrap();
            peer.process_new_packets().unwrap();
        }
        up.clear();
        down.clear();
        while peer.wants_write() {
            peer.write_tls(&mut down).unwrap();
        }
        for piece in down.chunks(split) {
            done = ours.feed(piece, &mut up).unwrap();
        }
    }
    (ours.finish().unwrap(), peer)
}

/// We as server of a rustls client that says `early` as soon as it may.
pub(super) fn with_client(suite: Suite, early: &[u8], split: usize) -> (Keys, ClientConnection) {
    use std::io::Write;
    let pki = Pki::new();
    let mut ours = Handshake::server(Arc::new(pki.server(suite, 0))).unwrap();
    let mut peer = ClientConnection::new(Arc::new(pki.client(suite)), name()).unwrap();
    peer.writer().write_all(early).unwrap();
    let (mut up, mut down, mut done) = (Vec::new(), Vec::new(), false);
    while !done {
        up.clear();
        while peer.wants_write() {
            peer.write_tls(&mut up).unwrap();
        }
        for piece in up.chunks(split) {
            done = ours.feed(piece, &mut down).unwrap();
        }
        let mut rest = down.as_slice();
        while !rest.is_empty() {
            peer.read_tls(&mut rest).unwrap();
            peer.process_new_packets().unwrap();
        }
        down.clear();
    }
    (ours.finish().unwrap(), peer)
}
