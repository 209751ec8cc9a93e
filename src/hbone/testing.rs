//! TLS configurations and handshakes in memory for the tests of this room.

pub(in crate::hbone) mod world;

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion, version,
};

use super::Engine;
use super::handshake::{Handshake, KeySlot, Keys};
use super::record::{DirectionState, Layer, Sealer, Secrets, Suite};

/// What both ends of a handshake offer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Offer {
    Tls13(Suite),
    Tls12,
}

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

    pub(crate) fn client(&self, offer: impl Into<Offer>) -> ClientConfig {
        let (provider, version) = offer.into().provider();
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.key_log = Arc::new(KeySlot);
        config.enable_secret_extraction = true;
        config
    }

    /// A server that sends `tickets` session tickets in one flight.
    pub(crate) fn server(&self, offer: impl Into<Offer>, tickets: usize) -> ServerConfig {
        let (provider, version) = offer.into().provider();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
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

impl From<Suite> for Offer {
    fn from(suite: Suite) -> Self {
        Self::Tls13(suite)
    }
}

impl Offer {
    fn provider(self) -> (Arc<CryptoProvider>, &'static SupportedProtocolVersion) {
        let (suite, version) = match self {
            Self::Tls13(Suite::Aes128GcmSha256) => {
                (cipher_suite::TLS13_AES_128_GCM_SHA256, &version::TLS13)
            }
            Self::Tls13(Suite::Aes256GcmSha384) => {
                (cipher_suite::TLS13_AES_256_GCM_SHA384, &version::TLS13)
            }
            Self::Tls12 => (cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, &version::TLS12),
        };
        (Arc::new(CryptoProvider { cipher_suites: vec![suite], ..default_provider() }), version)
    }
}

pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from("server.test").unwrap()
}

/// Both ends ours, shaken hands.
pub(super) fn key_pair(offer: impl Into<Offer>) -> (Keys, Keys) {
    let (offer, pki) = (offer.into(), Pki::new());
    let mut client = Handshake::client(Arc::new(pki.client(offer)), name()).unwrap();
    let mut server = Handshake::server(Arc::new(pki.server(offer, 0))).unwrap();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        client.feed(&std::mem::take(&mut down), &mut up).unwrap();
        server.feed(&std::mem::take(&mut up), &mut down).unwrap();
    }
    (client.finish().unwrap(), server.finish().unwrap())
}

/// The directions of a TLS 1.3 handshake: what this end sends with, and what the peer does.
pub(super) fn directions(keys: Keys) -> (DirectionState, DirectionState) {
    match keys.secrets {
        Secrets::Tls13 { sending, receiving } => (sending, receiving),
        Secrets::Tls12(tls) => panic!("{tls:?} keeps its keys"),
    }
}

/// Our direction of a TLS 1.3 tunnel.
pub(super) fn sealer(engine: &mut Engine) -> &mut Sealer {
    match &mut engine.layer {
        Layer::Tls13(sealer, _) => sealer,
        Layer::Tls12(tls) => panic!("{tls:?} keeps its keys"),
    }
}

/// We as client of a rustls server, pieces of at most `split` bytes; what the server sends behind
/// its handshake arrives with it.
pub(super) fn with_server(
    offer: impl Into<Offer>,
    tickets: usize,
    split: usize,
) -> (Keys, ServerConnection) {
    with_server_that_says(b"", offer, tickets, split)
}

/// As [`with_server`]; it says `early` as soon as it may.
pub(super) fn with_server_that_says(
    early: &[u8],
    offer: impl Into<Offer>,
    tickets: usize,
    split: usize,
) -> (Keys, ServerConnection) {
    use std::io::Write;
    let (offer, pki) = (offer.into(), Pki::new());
    let mut ours = Handshake::client(Arc::new(pki.client(offer)), name()).unwrap();
    let mut peer = ServerConnection::new(Arc::new(pki.server(offer, tickets))).unwrap();
    peer.writer().write_all(early).unwrap();
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
pub(super) fn with_client(
    offer: impl Into<Offer>,
    early: &[u8],
    split: usize,
) -> (Keys, ClientConnection) {
    use std::io::Write;
    let (offer, pki) = (offer.into(), Pki::new());
    let mut ours = Handshake::server(Arc::new(pki.server(offer, 0))).unwrap();
    let mut peer = ClientConnection::new(Arc::new(pki.client(offer)), name()).unwrap();
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
