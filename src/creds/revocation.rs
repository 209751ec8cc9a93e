//! Revoked certificates: lists from a file, asked at every handshake, and again for every tunnel
//! that is open when they change (spec identity 9).
//!
//! A list that cannot be applied (of another issuer, out of date, with a signature that is not the
//! issuer's) says nothing. Of a peer about whom nothing is said [`UnknownRevocation`] decides; that
//! ends no tunnel that is open. Our own certificates are not looked at: that is for peers.

mod file;
mod lists;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{CertificateError, CommonState, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::tls::unix_time;
use crate::config::{RevocationConfig, UnknownRevocation};
use crate::report::metrics::RevocationMetrics;
use crate::sys::clock::Clock;

pub use file::{RevocationFile, RevocationStatus};
use lists::Lists;
pub use lists::ListsError;

/// The lists in force. Verifiers ask them; one writer replaces them.
#[derive(Debug)]
pub struct Revocations {
    lists: ArcSwap<Lists>,
    /// Told of every change.
    changes: watch::Sender<u64>,
    unknown: UnknownRevocation,
    algorithms: WebPkiSupportedAlgorithms,
    metrics: RevocationMetrics,
}

/// As what a peer is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerRole {
    /// It called us.
    Client,
    /// We called it.
    Server,
}

/// A chain that was verified, and when.
struct Chain<'a> {
    certificates: &'a [CertificateDer<'a>],
    roots: &'a RootCertStore,
    role: PeerRole,
    at: UnixTime,
}

/// How those are looked at again whom one TLS configuration has let in.
#[derive(Clone, Debug, Default)]
pub struct Peers(Option<Arc<Watched>>);

#[derive(Debug)]
struct Watched {
    revocations: Arc<Revocations>,
    roots: Arc<RootCertStore>,
    role: PeerRole,
    clock: Clock,
}

/// The lists of a file, and who keeps them up to date.
pub fn revocations(
    config: &RevocationConfig,
    metrics: RevocationMetrics,
    clock: &Clock,
) -> (Arc<Revocations>, RevocationFile) {
    let algorithms = default_provider().signature_verification_algorithms;
    let revocations = Arc::new(Revocations::new(config.unknown, algorithms, metrics));
    let path = config.path.clone();
    let file = RevocationFile::new(path, Arc::clone(&revocations), clock.clone());
    (revocations, file)
}

impl Revocations {
    /// No lists yet.
    fn new(
        unknown: UnknownRevocation,
        algorithms: WebPkiSupportedAlgorithms,
        metrics: RevocationMetrics,
    ) -> Self {
        metrics.begin();
        let (lists, changes) = (ArcSwap::default(), watch::Sender::new(0));
        Self { lists, changes, unknown, algorithms, metrics }
    }

    /// Puts other lists in force: for handshakes at once, then for open tunnels.
    fn replace(&self, lists: Lists) {
        self.lists.store(Arc::new(lists));
        self.changes.send_modify(|change| *change += 1);
    }

    /// Judges a peer whose chain was verified up to `roots`.
    pub(super) fn check(
        &self,
        (end_entity, intermediates): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        roots: &RootCertStore,
        role: PeerRole,
        at: UnixTime,
    ) -> Result<(), CertificateError> {
        let certificates: Vec<CertificateDer<'_>> =
            std::iter::once(end_entity).chain(intermediates).cloned().collect();
        let chain = Chain { certificates: &certificates, roots, role, at };
        let lists = self.lists.load();
        let all: Vec<&CertRevocationList<'_>> = lists.0.iter().collect();
        let strictly = (UnknownStatusPolicy::Deny, ExpirationPolicy::Enforce);
        if !all.is_empty() && self.verify(&chain, &all, strictly).is_ok() {
            return Ok(());
        }
        // Whoever is on a list that can be applied is revoked, whatever is wrong with the others.
        if self.is_revoked(&chain, &lists) {
            self.metrics.rejected(role.reporter());
            return Err(CertificateError::Revoked);
        }
        self.metrics.unknown(&issuer_of(end_entity));
        match self.unknown {
            UnknownRevocation::Allow => Ok(()),
            UnknownRevocation::Refuse => Err(CertificateError::UnknownRevocationStatus),
        }
    }

    /// Whether a list that can be applied has a certificate of the chain.
    fn is_revoked(&self, chain: &Chain<'_>, lists: &Lists) -> bool {
        let leniently = (UnknownStatusPolicy::Allow, ExpirationPolicy::Ignore);
        let listed = lists.0.iter().filter(|list| chain.is_on(list));
        let mut verified = listed.map(|list| self.verify(chain, &[list], leniently));
        verified.any(|verified| verified == Err(Error::CertRevoked))
    }

    fn verify(
        &self,
        chain: &Chain<'_>,
        lists: &[&CertRevocationList<'_>],
        (unknown, expiration): (UnknownStatusPolicy, ExpirationPolicy),
    ) -> Result<(), Error> {
        let (end_entity, intermediates) =
            chain.certificates.split_first().ok_or(Error::UnknownIssuer)?;
        // Without a list nothing can be asked.
        let options = RevocationOptionsBuilder::new(lists)
            .map_err(|_| Error::UnknownRevocationStatus)?
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(unknown)
            .with_expiration_policy(expiration)
            .build();
        let usage = match chain.role {
            PeerRole::Client => KeyUsage::client_auth(),
            PeerRole::Server => KeyUsage::server_auth(),
        };
        let leaf = EndEntityCert::try_from(end_entity)?;
        let (algorithms, roots) = (self.algorithms.all, &chain.roots.roots);
        let verified = leaf.verify_for_usage(
            algorithms,
            roots,
            intermediates,
            chain.at,
            usage,
            Some(options),
            None,
        );
        verified.map(|_| ())
    }
}

impl PeerRole {
    /// The label of metrics: which side of the connection we are.
    fn reporter(self) -> &'static str {
        match self {
            Self::Client => "destination",
            Self::Server => "source",
        }
    }
}

impl Chain<'_> {
    /// Whether a list has one of its certificates, by issuer and serial number, unverified.
    fn is_on(&self, list: &CertRevocationList<'_>) -> bool {
        self.certificates.iter().any(|der| {
            let Ok(certificate) = EndEntityCert::try_from(der) else { return false };
            certificate.issuer() == list.issuer()
                && list.find_serial(certificate.serial()).is_ok_and(|found| found.is_some())
        })
    }
}

impl Peers {
    /// Those whom verifiers with `revocations`, if there are any, have let in.
    pub(super) fn new(
        revocations: Option<&Arc<Revocations>>,
        roots: &Arc<RootCertStore>,
        role: PeerRole,
        clock: &Clock,
    ) -> Self {
        Self(revocations.map(|revocations| {
            let (revocations, roots) = (Arc::clone(revocations), Arc::clone(roots));
            Arc::new(Watched { revocations, roots, role, clock: clock.clone() })
        }))
    }

    /// Ends when the peer of a finished handshake is revoked; nothing if nobody can be.
    pub fn watch(&self, session: &CommonState) -> Option<impl Future<Output = ()> + use<>> {
        let watched = Arc::clone(self.0.as_ref()?);
        let chain = session.peer_certificates()?;
        let chain: Vec<_> = chain.iter().map(|der| der.clone().into_owned()).collect();
        // The lists may have changed while the handshake was finished.
        let mut changes = watched.revocations.changes.subscribe();
        changes.mark_changed();
        let since = watched.clock.wall();
        Some(async move {
            while changes.changed().await.is_ok() {
                if watched.has_revoked(&chain, since) {
                    return;
                }
            }
            std::future::pending().await
        })
    }
}

impl Watched {
    /// As of the handshake: that a certificate expires ends no tunnel.
    fn has_revoked(&self, certificates: &[CertificateDer<'_>], since: SystemTime) -> bool {
        let (role, at) = (self.role, unix_time(since));
        let chain = Chain { certificates, roots: &self.roots, role, at };
        let lists = self.revocations.lists.load();
        let revoked = self.revocations.is_revoked(&chain, &lists);
        if revoked {
            self.revocations.metrics.rejected(role.reporter());
        }
        revoked
    }
}

/// The issuer's name, for a label; the certificate was verified.
fn issuer_of(certificate: &CertificateDer<'_>) -> String {
    x509_parser::parse_x509_certificate(certificate)
        .map_or_else(|_| String::new(), |(_, certificate)| certificate.issuer().to_string())
}
