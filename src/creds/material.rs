//! One generation of one identity's credentials: validated, then immutable.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use x509_parser::time::ASN1Time;

use super::issuer::Issued;
use super::keys::{HandshakeKey, PrivateKey};
use super::revocation::{PeerRole, Peers};
use super::store::{ClientTls, ServerTls};
use super::tls::{Tls, explain, unix_time, unsent_server_name};
use crate::wire::spiffe::Identity;

/// Client configurations kept per generation, one for each list of expected identities.
const CLIENT_CONFIGS_MAX: usize = 256;

/// When a chain is valid: the overlap of the certificates in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// From this wall time on.
    pub(super) not_before: SystemTime,
    /// Until this wall time.
    pub(super) not_after: SystemTime,
}

/// A certificate with its key, as finished TLS configurations. The key is shared by all of them
/// and goes with the last one.
#[derive(Debug)]
pub(super) struct Material {
    /// Leaf and intermediates.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Trust anchors, as they came.
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// When the chain is valid.
    pub(super) validity: Validity,
    /// For tunnels that arrive.
    pub(super) server: ServerTls,
    tls: Tls,
    anchors: Arc<RootCertStore>,
    client: ClientConfig,
    clients: ArcSwap<ClientConfigs>,
    /// Whom the client configurations let in.
    servers: Peers,
}

type ClientConfigs = HashMap<Arc<[Identity]>, Arc<ClientConfig>>;

/// Why what the issuer sent is not published (promise K3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// No certificate in the answer.
    Empty,
    /// No trust anchor in the answer that can be used.
    NoAnchors,
    /// The chain does not begin with a workload's certificate.
    Order,
    /// The certificate is not for the key it was asked for.
    OtherKey,
    /// A certificate cannot be read.
    Unreadable,
    /// A peer with our own rules would refuse it, for this reason.
    Refused(String),
}

impl Material {
    /// Credentials from an issuer's answer, if a peer with our own rules would accept them now,
    /// as a server and as a client.
    pub(super) fn validated(
        issued: Issued,
        key: PrivateKey,
        identity: &Identity,
        (tls, now): (&Tls, SystemTime),
    ) -> Result<Self, Unfit> {
        let Issued { chain, roots } = issued;
        let (leaf, intermediates) = chain.split_first().ok_or(Unfit::Empty)?;
        let mut anchors = RootCertStore::empty();
        anchors.add_parsable_certificates(roots.iter().cloned());
        if anchors.is_empty() {
            return Err(Unfit::NoAnchors);
        }
        if is_ca(leaf) {
            return Err(Unfit::Order);
        }
        let anchors = Arc::new(anchors);
        let trust_domain: Arc<str> = identity.trust_domain().into();
        let unix_now = unix_time(now);
        tls.server_verifier(Arc::clone(&anchors), Arc::from([identity.clone()]))
            .verify_server_cert(leaf, intermediates, &unsent_server_name(), &[], unix_now)
            .map_err(refused)?;
        tls.client_verifier(Arc::clone(&anchors), Arc::clone(&trust_domain))
            .and_then(|verifier| verifier.verify_client_cert(leaf, intermediates, unix_now))
            .map_err(refused)?;
        let validity = Validity::of(&chain).ok_or(Unfit::Unreadable)?;
        if now >= validity.not_after || now < validity.not_before {
            return Err(Unfit::Refused("an intermediate certificate is not valid now".into()));
        }
        let key = Arc::new(HandshakeKey::new(Arc::new(key)));
        let certified = Arc::new(CertifiedKey::new(chain.clone(), key));
        certified.keys_match().map_err(|_| Unfit::OtherKey)?;
        let server = tls
            .server(Arc::clone(&certified), Arc::clone(&anchors), trust_domain)
            .map_err(refused)?;
        let client = tls.client(certified, Arc::clone(&anchors)).map_err(refused)?;
        let peers = |role| tls.peers(&anchors, role);
        let server = ServerTls { config: Arc::new(server), peers: peers(PeerRole::Client) };
        let servers = peers(PeerRole::Server);
        Ok(Self {
            chain,
            roots,
            validity,
            server,
            tls: tls.clone(),
            anchors,
            client,
            clients: ArcSwap::default(),
            servers,
        })
    }

    /// The configuration for tunnels to one of `expected`: made at the first call, then shared.
    pub(super) fn client(&self, expected: &[Identity]) -> ClientTls {
        ClientTls { config: self.client_config(expected), peers: self.servers.clone() }
    }

    fn client_config(&self, expected: &[Identity]) -> Arc<ClientConfig> {
        if let Some(config) = self.clients.load().get(expected) {
            return Arc::clone(config);
        }
        let expected: Arc<[Identity]> = expected.into();
        let anchors = Arc::clone(&self.anchors);
        let made = Arc::new(self.tls.expecting(&self.client, anchors, Arc::clone(&expected)));
        self.clients.rcu(|clients| {
            // Full means that the mesh's lists change: old ones are as good as any to forget.
            let full = clients.len() >= CLIENT_CONFIGS_MAX;
            let mut clients =
                if full { ClientConfigs::new() } else { ClientConfigs::clone(clients) };
            clients.insert(Arc::clone(&expected), Arc::clone(&made));
            clients
        });
        made
    }
}

impl Validity {
    /// The overlap of the validity of all certificates of a chain; `None` if one is unreadable.
    pub(super) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let mut overlap: Option<Self> = None;
        for der in chain {
            let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
            let not_before = wall_time(certificate.validity().not_before)?;
            let not_after = wall_time(certificate.validity().not_after)?;
            overlap = Some(match overlap {
                None => Self { not_before, not_after },
                Some(so_far) => Self {
                    not_before: so_far.not_before.max(not_before),
                    not_after: so_far.not_after.min(not_after),
                },
            });
        }
        overlap
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the issuer sent no certificate"),
            Self::NoAnchors => f.write_str("the issuer sent no usable trust anchor"),
            Self::Order => f.write_str(
                "the issued chain begins with the certificate of an authority, not of the workload",
            ),
            Self::OtherKey => f.write_str("the issued certificate is for another key"),
            Self::Unreadable => f.write_str("the issued certificate cannot be read"),
            Self::Refused(reason) => {
                write!(f, "peers would refuse the issued certificate: {reason}")
            }
        }
    }
}

/// What cannot be read is for the verifiers to name.
fn is_ca(der: &CertificateDer<'_>) -> bool {
    x509_parser::parse_x509_certificate(der).is_ok_and(|(_, certificate)| certificate.is_ca())
}

fn refused(error: rustls::Error) -> Unfit {
    Unfit::Refused(explain(&error))
}

fn wall_time(time: ASN1Time) -> Option<SystemTime> {
    let seconds = Duration::from_secs(time.timestamp().unsigned_abs());
    if time.timestamp() < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn client_configurations_are_bounded() {
        let (ca, id) = (Ca::root("root"), identity("spiffe://td/ns/a/sa/a"));
        let Peer { chain, key } = Leaf::of("spiffe://td/ns/a/sa/a").by(&ca);
        let issued = Issued { chain, roots: vec![ca.der.clone()] };
        let material = Material::validated(issued, key, &id, (&default_tls(), at(0))).unwrap();
        let list = |n: usize| [Identity::new("td", "ns", format!("sa{n}"))];
        let first = material.client_config(&list(0));
        for n in 0..CLIENT_CONFIGS_MAX {
            material.client_config(&list(n));
        }
        assert_eq!(material.clients.load().len(), CLIENT_CONFIGS_MAX);
        assert!(Arc::ptr_eq(&first, &material.client_config(&list(0))));
        material.client_config(&list(CLIENT_CONFIGS_MAX));
        assert_eq!(material.clients.load().len(), 1);
        material.client_config(&list(0));
        assert_eq!(material.clients.load().len(), 2);
    }

    #[test]
    fn a_chain_is_as_valid_as_all_of_its_certificates() {
        let root = Ca::root("root");
        let middle = root.sub("middle", |params| params.not_after = at(60).into());
        let chain = Leaf::of("spiffe://td/ns/a/sa/a").by(&middle).and([&middle]).chain;
        let whole = Validity::of(&chain).unwrap();
        assert!(whole.not_after <= at(60) && whole.not_after > at(30));
        assert!(Validity::of(&chain[..1]).unwrap().not_after > at(HOUR / 2));
        assert_eq!(Validity::of(&[vec![1].into()]), None);
    }
}
