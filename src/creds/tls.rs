//! TLS settings: what is offered, what is accepted, and what a failed handshake means.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, CommonState, NoKeyLog, OtherError, RootCertStore, ServerConfig,
    SupportedCipherSuite, SupportedProtocolVersion, version,
};
use rustls_pki_types::{ServerName, UnixTime};

use super::revocation::{PeerRole, Peers, Revocations};
use super::verify::{ClientVerifier, PeerRefusal, ServerVerifier};
use crate::config::TlsPolicy;
use crate::hbone::handshake::KeySlot;
use crate::sys::clock::Clock;
use crate::wire::spiffe::Identity;

/// The only protocol that we speak inside TLS.
const ALPN_H2: &[u8] = b"h2";

static VERSIONS: [&SupportedProtocolVersion; 1] = [&version::TLS13];

static VERSIONS_TLS12: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

const SUITES: [SupportedCipherSuite; 2] =
    [cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256];

const SUITES_TLS12: [SupportedCipherSuite; 4] = [
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

const GROUPS: [&dyn SupportedKxGroup; 4] =
    [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];

const GROUPS_PQC: [&dyn SupportedKxGroup; 1] = [kx_group::X25519MLKEM768];

/// What was found out about a peer that is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It is revoked.
    Revoked,
    /// Nobody says whether it is.
    Unknown,
}

/// Suites, groups, versions and time of every TLS configuration we make (spec identity 8).
#[derive(Clone, Debug)]
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    versions: &'static [&'static SupportedProtocolVersion],
    time: Arc<WallTime>,
    /// What peers of a workload are looked up in.
    revocations: Option<Arc<Revocations>>,
}

/// Our clock, as rustls reads it.
#[derive(Debug)]
struct WallTime(Clock);

impl Tls {
    /// What `policy` allows.
    pub(super) fn new(policy: TlsPolicy, clock: Clock) -> Self {
        let mut cipher_suites = SUITES.to_vec();
        let mut kx_groups = GROUPS.to_vec();
        let mut versions: &'static [_] = &VERSIONS;
        match policy {
            TlsPolicy::Tls13 => {}
            TlsPolicy::Tls12 => {
                cipher_suites.extend(SUITES_TLS12);
                versions = &VERSIONS_TLS12;
            }
            TlsPolicy::PostQuantum => kx_groups = GROUPS_PQC.to_vec(),
        }
        Self {
            provider: Arc::new(CryptoProvider { cipher_suites, kx_groups, ..default_provider() }),
            versions,
            time: Arc::new(WallTime(clock)),
            revocations: None,
        }
    }

    /// From now on the peers of workloads are looked up there.
    pub(super) fn look_up(&mut self, revocations: Arc<Revocations>) {
        self.revocations = Some(revocations);
    }

    /// Those whom the verifiers of a workload let in.
    pub(super) fn peers(&self, roots: &Arc<RootCertStore>, role: PeerRole) -> Peers {
        Peers::new(self.revocations.as_ref(), roots, role, &self.time.0)
    }

    /// The configuration of a server in `trust_domain`.
    pub(super) fn server(
        &self,
        key: Arc<CertifiedKey>,
        roots: Arc<RootCertStore>,
        trust_domain: Arc<str>,
    ) -> Result<ServerConfig, rustls::Error> {
        let verifier = self.client_verifier(roots, trust_domain)?;
        let verifier = verifier.looking_up(self.revocations.clone());
        let time = Arc::clone(&self.time) as Arc<dyn TimeProvider>;
        let config = ServerConfig::builder_with_details(Arc::clone(&self.provider), time)
            .with_protocol_versions(self.versions)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        let mut config = alone(config);
        config.key_log = Arc::new(KeySlot);
        config.enable_secret_extraction = true;
        Ok(config)
    }

    /// The configuration of a server that asks its clients for no certificate.
    pub(super) fn control_server(
        &self,
        key: Arc<CertifiedKey>,
    ) -> Result<ServerConfig, rustls::Error> {
        let time = Arc::clone(&self.time) as Arc<dyn TimeProvider>;
        let config = ServerConfig::builder_with_details(Arc::clone(&self.provider), time)
            .with_protocol_versions(self.versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        Ok(alone(config))
    }

    /// The configuration of a client that accepts nobody, the base of [`Tls::expecting`].
    pub(super) fn client(
        &self,
        key: Arc<CertifiedKey>,
        roots: Arc<RootCertStore>,
    ) -> Result<ClientConfig, rustls::Error> {
        let verifier = self.server_verifier(roots, Arc::from([]));
        let time = Arc::clone(&self.time) as Arc<dyn TimeProvider>;
        let config = ClientConfig::builder_with_details(Arc::clone(&self.provider), time)
            .with_protocol_versions(self.versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        let mut config = alone_as_client(config);
        config.enable_sni = false;
        config.key_log = Arc::new(KeySlot);
        config.enable_secret_extraction = true;
        Ok(config)
    }

    /// The configuration of a client of the control plane: it shows no certificate, and tells
    /// which server it wants.
    pub(super) fn control_client(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
    ) -> Result<ClientConfig, rustls::Error> {
        let time = Arc::clone(&self.time) as Arc<dyn TimeProvider>;
        let config = ClientConfig::builder_with_details(Arc::clone(&self.provider), time)
            .with_protocol_versions(self.versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(alone_as_client(config))
    }

    /// How a client judges a server that is known by its DNS name or address.
    pub(super) fn name_verifier(
        &self,
        roots: Arc<RootCertStore>,
    ) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))
    }

    /// `base`, accepting exactly the `expected` identities.
    pub(super) fn expecting(
        &self,
        base: &ClientConfig,
        roots: Arc<RootCertStore>,
        expected: Arc<[Identity]>,
    ) -> ClientConfig {
        let mut config = base.clone();
        let verifier = self.server_verifier(roots, expected);
        let verifier = verifier.looking_up(self.revocations.clone());
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        config
    }

    /// How a server in `trust_domain` judges its clients.
    pub(super) fn client_verifier(
        &self,
        roots: Arc<RootCertStore>,
        trust_domain: Arc<str>,
    ) -> Result<ClientVerifier, rustls::Error> {
        ClientVerifier::new(roots, Arc::clone(&self.provider), trust_domain)
            .map_err(|error| rustls::Error::General(error.to_string()))
    }

    /// How a client that expects one of `expected` judges a server.
    pub(super) fn server_verifier(
        &self,
        roots: Arc<RootCertStore>,
        expected: Arc<[Identity]>,
    ) -> ServerVerifier {
        ServerVerifier::new(roots, &self.provider, expected)
    }
}

/// What every server of ours has in common: h2, and no connection that knows of another one.
fn alone(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // A resumed session would carry an identity past its certificate's end and past a rotation of
    // the anchors: none is ever stored, offered or taken.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    config.key_log = Arc::new(NoKeyLog {});
    config
}

/// What every client of ours has in common, for the same reasons.
fn alone_as_client(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.check_selected_alpn = true;
    config.resumption = Resumption::disabled();
    config.send_ticket_request = None;
    config.enable_early_data = false;
    config.key_log = Arc::new(NoKeyLog {});
    config
}

/// Whether the peer agreed to speak HTTP/2. A peer that offers no ALPN at all passes the TLS
/// library, so that this has to be asked after every handshake.
pub fn negotiated_h2(connection: &CommonState) -> bool {
    connection.alpn_protocol() == Some(ALPN_H2)
}

/// The name that a client connection must be given; it is neither sent nor checked.
pub fn unsent_server_name() -> ServerName<'static> {
    ServerName::try_from("workload.invalid").expect("it is a DNS name")
}

/// What a failed handshake means, for people.
pub fn explain(error: &rustls::Error) -> String {
    if let Some(refusal) = peer_refusal(error) {
        return refusal.to_string();
    }
    match error {
        rustls::Error::NoCertificatesPresented => "the peer showed no certificate".into(),
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the peer's certificate does not lead to a trust anchor of ours".into()
        }
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            format!("invalid peer certificate: {inner}")
        }
        rustls::Error::InvalidCertificate(CertificateError::Revoked) => {
            "the peer's certificate is revoked".into()
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownRevocationStatus) => {
            "no revocation list in force says whether the peer's certificate is revoked".into()
        }
        rustls::Error::AlertReceived(alert) => format!("the peer refused the handshake: {alert:?}"),
        other => other.to_string(),
    }
}

/// Whether a handshake failed because of who the peer is, rather than because of how it speaks:
/// no certificate, or one that is not valid or is not of somebody we accept.
pub fn is_about_identity(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_))
}

/// Whether a handshake failed because the peer is revoked, or because nobody could say whether it
/// is.
pub fn is_about_revocation(error: &rustls::Error) -> Option<Revocation> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Revoked) => Some(Revocation::Revoked),
        rustls::Error::InvalidCertificate(CertificateError::UnknownRevocationStatus) => {
            Some(Revocation::Unknown)
        }
        _ => None,
    }
}

/// The TLS error inside an I/O error, if there is one.
pub fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| (inner as &(dyn Error + 'static)).downcast_ref())
}

/// The refusal by our own verifiers inside a TLS error, if there is one.
pub fn peer_refusal(error: &rustls::Error) -> Option<&PeerRefusal> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            inner.downcast_ref()
        }
        _ => None,
    }
}

/// Seconds since 1970, as certificates count them; 0 for times before.
pub(super) fn unix_time(time: SystemTime) -> UnixTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    UnixTime::since_unix_epoch(since)
}

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.wall()))
    }
}

#[cfg(test)]
mod tests;
