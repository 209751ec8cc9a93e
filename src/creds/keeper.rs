//! The writer: carries out the rota, validates, publishes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::{debug, info, warn};

use super::issuer::{IssueError, IssueErrorKind, IssueRequest, Issuer};
use super::keys::PrivateKey;
use super::material::Material;
use super::revocation::Revocations;
use super::rota::{Fetch, Now, Priority, Rota, Ticket};
use super::store::{Credentials, Shared, Slot};
use super::tls::Tls;
use crate::config::TlsPolicy;
use crate::report::metrics::CertificateMetrics;
use crate::sys::clock::Clock;
use crate::wire::spiffe::Identity;

/// How long an issuer may take for one certificate.
const FETCH_DEADLINE: Duration = Duration::from_secs(30);
/// The keeper looks at the wall clock at least this often: a clock that was set, or a machine that
/// slept, is noticed within this time (promise R8).
const LOOK_AT_LEAST: Duration = Duration::from_secs(4);

/// How certificates are asked for and used.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What TLS offers and takes.
    pub tls: TlsPolicy,
    /// The lifetime to ask for.
    pub certificate_ttl: Duration,
}

/// The writer: fetches and renews certificates. It lives on the control thread.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
    counted: CertificateMetrics,
    issuer: Arc<dyn Issuer>,
    ttl: Duration,
    tls: Tls,
    rota: Rota,
    /// The stays that the rota knows of.
    known: HashMap<Identity, Arc<Slot>>,
    fetches: JoinSet<Result<Material, IssueError>>,
    tickets: HashMap<Id, (Ticket, AbortHandle)>,
}

impl Keeper {
    /// The writer and the readers' handle. Nothing is fetched before [`Keeper::run`].
    pub fn new(settings: Settings, issuer: Arc<dyn Issuer>, clock: Clock) -> (Self, Credentials) {
        let Settings { tls, certificate_ttl } = settings;
        let shared = Arc::new(Shared::new(clock.clone()));
        let keeper = Self {
            shared: Arc::clone(&shared),
            counted: CertificateMetrics::default(),
            issuer,
            ttl: certificate_ttl,
            tls: Tls::new(tls, clock),
            rota: Rota::new(fastrand::Rng::new()),
            known: HashMap::new(),
            fetches: JoinSet::new(),
            tickets: HashMap::new(),
        };
        (keeper, Credentials { shared })
    }

    /// The same, counting here.
    #[must_use]
    pub fn counting(mut self, counted: CertificateMetrics) -> Self {
        self.counted = counted;
        self
    }

    /// The same, with peers looked up in revocation lists.
    #[must_use]
    pub fn looking_up(mut self, revocations: Arc<Revocations>) -> Self {
        self.tls.look_up(revocations);
        self
    }

    /// Fetches and renews until the future is dropped; then readers that wait are told so, and
    /// valid certificates go on being served until they expire.
    pub async fn run(mut self) {
        loop {
            self.take_changes();
            for fetch in self.rota.due(self.now()) {
                self.start(fetch);
            }
            let idle = self.rota.idle(self.now()).map_or(LOOK_AT_LEAST, |d| d.min(LOOK_AT_LEAST));
            tokio::select! {
                biased;
                Some(ended) = self.fetches.join_next_with_id() => self.finish(ended),
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep(idle) => {}
            }
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.shared.clock.monotonic(), wall: self.shared.clock.wall() }
    }

    /// Brings the rota up to date with who is here and who is waited for.
    fn take_changes(&mut self) {
        let now = self.now();
        for identity in self.shared.take_changed() {
            let slot = self.shared.slot(&identity);
            let known = self.known.get(&identity);
            let same = matches!((&slot, known), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
            if !same && self.known.remove(&identity).is_some() {
                self.forget(&identity);
            }
            let Some(slot) = slot else { continue };
            let waited_for = slot.waited_for();
            let priority = if waited_for { Priority::RealTime } else { Priority::Warmup };
            self.rota.want(&identity, priority, now);
            self.known.insert(identity, slot);
        }
    }

    fn forget(&mut self, identity: &Identity) {
        let Some(ticket) = self.rota.forget(identity) else { return };
        // Ending the fetch drops the key it made.
        for (_, abort) in self.tickets.values().filter(|(other, _)| *other == ticket) {
            abort.abort();
        }
    }

    fn start(&mut self, Fetch { ticket, identity }: Fetch) {
        debug!(%identity, "fetching a certificate");
        let fetch = fetch(
            Arc::clone(&self.issuer),
            identity,
            self.ttl,
            (self.tls.clone(), self.shared.clock.clone()),
        );
        let abort = self.fetches.spawn(fetch);
        self.tickets.insert(abort.id(), (ticket, abort));
    }

    fn finish(&mut self, ended: Result<(Id, Result<Material, IssueError>), JoinError>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Err(internal("the fetch broke off"))),
        };
        let Some((ticket, _)) = self.tickets.remove(&id) else { return };
        let now = self.now();
        match outcome {
            Ok(material) => {
                let validity = material.validity;
                let Some(identity) = self.rota.succeeded(ticket, validity, now) else { return };
                let lives = validity.not_after.duration_since(now.wall).unwrap_or_default();
                info!(%identity, ?lives, "certificate issued");
                self.counted.issued.inc();
                if let Some(slot) = self.known.get(&identity) {
                    slot.publish(material, now.wall);
                    self.shared.has_issued();
                }
            }
            Err(error) => {
                let failed = self.rota.failed(ticket, error.kind.lasts(), now);
                let Some((identity, pause)) = failed else { return };
                let kind = error.kind.as_str();
                self.counted.failed(kind);
                warn!(%identity, %error, kind, retry_in = ?pause, "no certificate");
                if let Some(slot) = self.known.get(&identity) {
                    slot.fail(error.reason.into());
                }
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// One certificate, from a fresh key to validated material.
async fn fetch(
    issuer: Arc<dyn Issuer>,
    identity: Identity,
    ttl: Duration,
    (tls, clock): (Tls, Clock),
) -> Result<Material, IssueError> {
    let key = PrivateKey::generate().map_err(internal)?;
    let csr = key.request(&identity).map_err(internal)?;
    let request = IssueRequest { identity: identity.clone(), csr, ttl };
    let issued = match tokio::time::timeout(FETCH_DEADLINE, issuer.issue(request)).await {
        Ok(issued) => issued?,
        Err(_) => {
            let seconds = FETCH_DEADLINE.as_secs();
            let reason = format!("the issuer did not answer within {seconds} s");
            return Err(IssueError { kind: IssueErrorKind::Unreachable, reason });
        }
    };
    Material::validated(issued, key, &identity, (&tls, clock.wall()))
        .map_err(|unfit| IssueError { kind: IssueErrorKind::Unfit, reason: unfit.to_string() })
}

fn internal(error: impl ToString) -> IssueError {
    IssueError { kind: IssueErrorKind::Internal, reason: error.to_string() }
}
