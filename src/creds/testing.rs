//! A small PKI and in-memory handshakes for the tests of this room.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyUsagePurpose, PublicKeyData,
    RevokedCertParams, SanType,
};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;

use super::keys::{HandshakeKey, PrivateKey};
use super::tls::{Tls, explain, unsent_server_name};
use crate::config::TlsPolicy;
use crate::sys::clock::Clock;
use crate::wire::spiffe::Identity;

pub(super) const HOUR: i64 = 3600;

/// A CA that can issue leaves and further CAs.
#[derive(Debug)]
pub(super) struct Ca {
    pub(super) der: CertificateDer<'static>,
    issuer: rcgen::Issuer<'static, PrivateKey>,
}

/// A certificate to be, with the usual settings of a workload's leaf.
pub(super) struct Leaf {
    pub(super) params: CertificateParams,
}

/// What a peer shows, and the key it signs with.
pub(super) struct Peer {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKey,
}

pub(super) fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

/// Wall time, `seconds` from now.
pub(super) fn at(seconds: i64) -> SystemTime {
    let now = Clock::system().wall();
    let shift = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { now - shift } else { now + shift }
}

pub(super) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(super) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

impl Ca {
    pub(super) fn root(name: &str) -> Self {
        let (params, key) = (ca_params(name), PrivateKey::generate().unwrap());
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { der, issuer: rcgen::Issuer::new(params, key) }
    }

    pub(super) fn sub(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = PrivateKey::generate().unwrap();
        let mut params = ca_params(name);
        change(&mut params);
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { der, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A list of these serial numbers, good until `next_update`, seconds from now; DER.
    pub(super) fn revokes(&self, serials: &[u64], next_update: i64) -> Vec<u8> {
        let revoked = |&serial: &u64| RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: at(-HOUR).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: at(-HOUR).into(),
            next_update: at(next_update).into(),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    pub(super) fn anchors(&self) -> Arc<RootCertStore> {
        let mut anchors = RootCertStore::empty();
        anchors.add(self.der.clone()).unwrap();
        Arc::new(anchors)
    }
}

impl Leaf {
    pub(super) fn new(names: impl Into<Vec<SanType>>) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names.into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Self { params }.dates(-HOUR, HOUR)
    }

    pub(super) fn of(id: &str) -> Self {
        Self::new([uri(id)])
    }

    /// Valid between these times, seconds from now.
    pub(super) fn dates(mut self, not_before: i64, not_after: i64) -> Self {
        self.params.not_before = at(not_before).into();
        self.params.not_after = at(not_after).into();
        self
    }

    pub(super) fn usage(mut self, usages: &[ExtendedKeyUsagePurpose]) -> Self {
        self.params.extended_key_usages = usages.to_vec();
        self
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        change(&mut self.params);
        self
    }

    pub(super) fn serial(self, number: u64) -> Self {
        self.with(|params| params.serial_number = Some(number.into()))
    }

    pub(super) fn by(self, ca: &Ca) -> Peer {
        let key = PrivateKey::generate().unwrap();
        let der = self.params.signed_by(&key, &ca.issuer).unwrap().der().clone();
        Peer { chain: vec![der], key }
    }

    pub(super) fn for_key(self, key: &impl PublicKeyData, ca: &Ca) -> CertificateDer<'static> {
        self.params.signed_by(key, &ca.issuer).unwrap().der().clone()
    }

    pub(super) fn by_itself(self) -> Peer {
        let key = PrivateKey::generate().unwrap();
        let der = self.params.self_signed(&key).unwrap().der().clone();
        Peer { chain: vec![der], key }
    }
}

impl Peer {
    /// The same, showing further certificates.
    pub(super) fn and<'a>(mut self, more: impl IntoIterator<Item = &'a Ca>) -> Self {
        self.chain.extend(more.into_iter().map(|ca| ca.der.clone()));
        self
    }

    pub(super) fn certified(self) -> Arc<CertifiedKey> {
        let key = Arc::new(HandshakeKey::new(Arc::new(self.key)));
        Arc::new(CertifiedKey::new(self.chain, key))
    }

    pub(super) fn server(self, tls: &Tls, root: &Ca) -> Arc<ServerConfig> {
        Arc::new(tls.server(self.certified(), root.anchors(), "td".into()).unwrap())
    }

    pub(super) fn client(self, tls: &Tls, root: &Ca, expected: &[Identity]) -> Arc<ClientConfig> {
        let base = tls.client(self.certified(), root.anchors()).unwrap();
        Arc::new(tls.expecting(&base, root.anchors(), expected.into()))
    }
}

/// Who found fault with whom.
#[derive(Debug)]
pub(super) enum Fault {
    Client(rustls::Error),
    Server(rustls::Error),
}

impl Fault {
    pub(super) fn error(&self) -> &rustls::Error {
        let (Self::Client(error) | Self::Server(error)) = self;
        error
    }

    pub(super) fn explain(&self) -> String {
        explain(self.error())
    }
}

pub(super) fn default_tls() -> Tls {
    Tls::new(TlsPolicy::Tls13, Clock::system())
}

/// A whole handshake in memory, and whatever the server sends after it.
pub(super) fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), Fault> {
    let mut client = ClientConnection::new(client, unsent_server_name()).map_err(Fault::Client)?;
    let mut server = ServerConnection::new(server).map_err(Fault::Server)?;
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(Fault::Server)?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(Fault::Client)?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking(), "the handshake hangs");
    Ok((client, server))
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = at(-HOUR).into();
    params.not_after = at(24 * HOUR).into();
    params
}
