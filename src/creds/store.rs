//! Certificates by identity: fetched, renewed, published as finished TLS configurations.
//!
//! One writer, [`Keeper`], on the control thread; many readers, [`Credentials`]. A reader takes
//! two read locks per tunnel, held for a lookup; writers hold theirs for a pointer's exchange.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio::sync::{Notify, watch};

use super::material::Material;
use super::revocation::Peers;
use crate::sys::clock::Clock;
use crate::wire::spiffe::Identity;

/// The readers' handle: finished TLS configurations by identity.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub(super) shared: Arc<Shared>,
}

/// The TLS configuration for tunnels that arrive, and how those are looked at again who came in.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// For the handshake.
    pub config: Arc<ServerConfig>,
    /// For afterwards.
    pub peers: Peers,
}

/// The TLS configuration for tunnels that we open, and how those are looked at again who answered.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// For the handshake.
    pub config: Arc<ClientConfig>,
    /// For afterwards.
    pub peers: Peers,
}

/// Why there is no TLS configuration for an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialsError {
    /// The certificate could not be obtained; the text says why.
    Unavailable(Arc<str>),
    /// The last certificate has expired and could not be renewed.
    Expired,
    /// Nobody fetches certificates any more.
    Stopped,
}

/// Where a certificate stands, for the config dump and the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateState {
    /// Being fetched for the first time.
    Initializing,
    /// Served.
    Available,
    /// Not there, and why.
    Unavailable(Arc<str>),
}

/// One identity's certificate, without its key.
#[derive(Clone, Debug)]
pub struct CertificateInfo {
    /// Whose it is.
    pub identity: Identity,
    /// Where it stands.
    pub state: CertificateState,
    /// Leaf and intermediates, DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// Trust anchors, DER.
    pub roots: Vec<CertificateDer<'static>>,
    /// Wall time from which the chain is valid.
    pub not_before: Option<SystemTime>,
    /// Wall time at which the chain expires.
    pub not_after: Option<SystemTime>,
    /// Wall time of the last certificate that was published.
    pub last_success: Option<SystemTime>,
    /// Failed fetches since then.
    pub failures: u32,
    /// Why the last of them failed.
    pub last_error: Option<Arc<str>>,
    /// How often the identity is held.
    pub holds: usize,
}

/// What the two handles share.
#[derive(Debug)]
pub(super) struct Shared {
    slots: RwLock<HashMap<Identity, Held>>,
    /// Identities that came, went or are waited for since the keeper last looked.
    changed: Mutex<HashSet<Identity>>,
    /// Wakes the keeper after a change.
    pub(super) wake: Notify,
    stopped: AtomicBool,
    /// A certificate was published once.
    issued: watch::Sender<bool>,
    pub(super) clock: Clock,
}

#[derive(Debug)]
struct Held {
    holds: usize,
    slot: Arc<Slot>,
}

/// One stay of one identity on this node, from the first hold to the last release.
#[derive(Debug)]
pub(super) struct Slot {
    state: watch::Sender<State>,
    /// A connection waits; cleared by the outcome of the next fetch.
    waited_for: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    material: Option<Arc<Material>>,
    last_error: Option<Arc<str>>,
    last_success: Option<SystemTime>,
    failures: u32,
    released: bool,
}

impl Credentials {
    /// The TLS configuration for tunnels that arrive at a workload with this identity.
    ///
    /// Waits while the first certificate is being fetched. Fails at once for an identity that
    /// nobody holds, for one whose fetch failed (and has it tried again soon), and after expiry.
    pub async fn server(&self, identity: &Identity) -> Result<ServerTls, CredentialsError> {
        Ok(self.material(identity).await?.server.clone())
    }

    /// The TLS configuration for tunnels that a workload with this identity opens to a peer with
    /// one of the `expected` identities. An empty list accepts nobody. Waits and fails as
    /// [`Credentials::server`].
    pub async fn client(
        &self,
        identity: &Identity,
        expected: &[Identity],
    ) -> Result<ClientTls, CredentialsError> {
        Ok(self.material(identity).await?.client(expected))
    }

    /// Says that a pod with this identity is here: its certificate is fetched now and kept fresh.
    pub fn hold(&self, identity: &Identity) {
        let mut slots = self.shared.slots_mut();
        if let Some(held) = slots.get_mut(identity) {
            held.holds += 1;
            return;
        }
        let state = watch::Sender::new(State::default());
        let slot = Arc::new(Slot { state, waited_for: AtomicBool::new(false) });
        slots.insert(identity.clone(), Held { holds: 1, slot });
        drop(slots);
        self.shared.tell(identity);
    }

    /// Says that a pod with this identity has left; with the last one its keys are forgotten.
    /// What nobody holds cannot be released: such a call changes nothing.
    pub fn release(&self, identity: &Identity) {
        let mut slots = self.shared.slots_mut();
        let Some(held) = slots.get_mut(identity) else { return };
        held.holds -= 1;
        if held.holds > 0 {
            return;
        }
        let last = slots.remove(identity);
        drop(slots);
        if let Some(Held { slot, .. }) = last {
            // The keeper and waiting readers may still have the slot, but not the key.
            slot.state.send_replace(State { released: true, ..State::default() });
        }
        self.shared.tell(identity);
    }

    /// Whether a certificate was ever published.
    pub fn issued(&self) -> watch::Receiver<bool> {
        self.shared.issued.subscribe()
    }

    /// Every certificate, sorted by identity.
    pub fn inventory(&self) -> Vec<CertificateInfo> {
        let wall = self.shared.clock.wall();
        let slots = self.shared.slots();
        let mut inventory: Vec<_> =
            slots.iter().map(|(identity, held)| held.describe(identity, wall)).collect();
        drop(slots);
        inventory.sort_unstable_by(|a, b| a.identity.cmp(&b.identity));
        inventory
    }

    async fn material(&self, identity: &Identity) -> Result<Arc<Material>, CredentialsError> {
        let Some(slot) = self.shared.slot(identity) else {
            return Err(CredentialsError::Unavailable(
                format!("no pod of this proxy has the identity {identity}").into(),
            ));
        };
        let found = slot.state.borrow().answer(self.shared.clock.wall());
        if let Some(found) = found {
            if found.is_err() {
                self.shared.hurry(identity, &slot);
            }
            return found;
        }
        let mut state = slot.state.subscribe();
        loop {
            if let Some(found) = state.borrow_and_update().answer(self.shared.clock.wall()) {
                return found;
            }
            if self.shared.stopped.load(Ordering::Acquire) {
                return Err(CredentialsError::Stopped);
            }
            self.shared.hurry(identity, &slot);
            // The sender cannot be gone: we hold the slot it is in.
            state.changed().await.map_err(|_| CredentialsError::Stopped)?;
        }
    }
}

impl Shared {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            slots: RwLock::default(),
            changed: Mutex::default(),
            wake: Notify::new(),
            stopped: AtomicBool::new(false),
            issued: watch::Sender::new(false),
            clock,
        }
    }

    /// The current stay of an identity.
    pub(super) fn slot(&self, identity: &Identity) -> Option<Arc<Slot>> {
        self.slots().get(identity).map(|held| Arc::clone(&held.slot))
    }

    /// What changed since the last call.
    pub(super) fn take_changed(&self) -> HashSet<Identity> {
        std::mem::take(&mut *self.changed())
    }

    /// A certificate was published.
    pub(super) fn has_issued(&self) {
        self.issued.send_if_modified(|issued| !std::mem::replace(issued, true));
    }

    /// Says that nobody fetches any more, and wakes who waits. What is valid goes on being
    /// served until it expires.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        for held in self.slots().values() {
            held.slot.state.send_modify(|_| ());
        }
    }

    fn hurry(&self, identity: &Identity, slot: &Slot) {
        if !slot.waited_for.swap(true, Ordering::AcqRel) {
            self.tell(identity);
        }
    }

    fn tell(&self, identity: &Identity) {
        self.changed().insert(identity.clone());
        self.wake.notify_one();
    }

    // No code that can panic runs under these locks, and their contents are whole at every step:
    // a poisoned one is as good as any.
    fn slots(&self) -> RwLockReadGuard<'_, HashMap<Identity, Held>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots_mut(&self) -> RwLockWriteGuard<'_, HashMap<Identity, Held>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) -> MutexGuard<'_, HashSet<Identity>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Whether a connection waits for this identity.
    pub(super) fn waited_for(&self) -> bool {
        self.waited_for.load(Ordering::Acquire)
    }

    /// Serves new material from now on, unless the identity was released.
    pub(super) fn publish(&self, material: Material, wall: SystemTime) {
        self.waited_for.store(false, Ordering::Release);
        let material = Arc::new(material);
        self.state.send_if_modified(|state| {
            if state.released {
                return false;
            }
            let last_success = Some(wall);
            *state = State { material: Some(material), last_success, ..State::default() };
            true
        });
    }

    /// Records a failure. What is served goes on being served.
    pub(super) fn fail(&self, error: Arc<str>) {
        self.waited_for.store(false, Ordering::Release);
        self.state.send_if_modified(|state| {
            if state.released {
                return false;
            }
            state.failures = state.failures.saturating_add(1);
            state.last_error = Some(error);
            true
        });
    }
}

impl State {
    /// What a reader gets; `None` while the first fetch is under way.
    fn answer(&self, wall: SystemTime) -> Option<Result<Arc<Material>, CredentialsError>> {
        if self.released {
            let reason = "the last pod with this identity has left";
            return Some(Err(CredentialsError::Unavailable(reason.into())));
        }
        match (&self.material, &self.last_error) {
            (Some(material), _) if wall < material.validity.not_after => {
                Some(Ok(Arc::clone(material)))
            }
            (Some(_), _) => Some(Err(CredentialsError::Expired)),
            (None, Some(error)) => Some(Err(CredentialsError::Unavailable(Arc::clone(error)))),
            (None, None) => None,
        }
    }
}

impl Held {
    fn describe(&self, identity: &Identity, wall: SystemTime) -> CertificateInfo {
        let state = self.slot.state.borrow();
        let material = state.material.as_deref();
        CertificateInfo {
            identity: identity.clone(),
            state: match state.answer(wall) {
                None => CertificateState::Initializing,
                Some(Ok(_)) => CertificateState::Available,
                Some(Err(error)) => CertificateState::Unavailable(match &state.last_error {
                    Some(cause) if error == CredentialsError::Expired => {
                        format!("{error}: {cause}").into()
                    }
                    _ => error.to_string().into(),
                }),
            },
            chain: material.map(|m| m.chain.clone()).unwrap_or_default(),
            roots: material.map(|m| m.roots.clone()).unwrap_or_default(),
            not_before: material.map(|m| m.validity.not_before),
            not_after: material.map(|m| m.validity.not_after),
            last_success: state.last_success,
            failures: state.failures,
            last_error: state.last_error.clone(),
            holds: self.holds,
        }
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(reason) => f.write_str(reason),
            Self::Expired => f.write_str("the certificate has expired and could not be renewed"),
            Self::Stopped => f.write_str("certificates are no longer fetched"),
        }
    }
}

impl std::error::Error for CredentialsError {}

#[cfg(test)]
mod tests;
