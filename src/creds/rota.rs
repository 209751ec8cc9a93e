//! When to fetch which certificate: a machine without clock, I/O or keys.
//!
//! Renewals follow the wall clock, because certificates do; pauses after failures and the floor
//! between renewals follow the monotonic clock, so that a wall clock that jumps can neither spin
//! the machine nor put it to sleep.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use super::material::Validity;
use crate::wire::spiffe::Identity;

/// Fetches in flight (spec identity 4).
pub(super) const FETCHES_MAX: usize = 8;
/// The part of a certificate's life after which it is renewed is drawn between these two, so that
/// certificates made together are not renewed together.
const RENEWAL_PART: (f64, f64) = (0.45, 0.65);
/// Between a certificate and the next renewal of the same identity, however short it lives.
const RENEWAL_FLOOR: Duration = Duration::from_secs(1);
/// Pause after the first failure; doubles with each further one.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest pause after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(150);
/// Each pause is multiplied by a factor drawn between these two.
const JITTER: (f64, f64) = (0.8, 1.2);
/// A connection that waits for an identity shortens its pause to this, counted from the failure.
const HURRIED_PAUSE: Duration = Duration::from_secs(5);
/// When an issuer comes back, everything that failed is tried again within this time.
const RECOVERY_SPREAD: Duration = Duration::from_secs(20);

/// How urgent a fetch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// A certificate is served already.
    Background,
    /// A pod has arrived.
    Warmup,
    /// A connection waits.
    RealTime,
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// For pauses.
    pub(super) monotonic: Instant,
    /// For certificates.
    pub(super) wall: SystemTime,
}

/// One fetch in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ticket(u64);

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fetch {
    /// To be handed back with the outcome.
    pub(super) ticket: Ticket,
    /// Whose certificate to fetch.
    pub(super) identity: Identity,
}

/// The schedule of all identities.
#[derive(Debug)]
pub(super) struct Rota {
    entries: HashMap<Identity, Entry>,
    in_flight: HashMap<Ticket, Identity>,
    tickets: u64,
    /// Failures of any identity since the last success of any: how we know an issuer was away.
    failures_in_a_row: usize,
    rng: fastrand::Rng,
}

#[derive(Debug)]
struct Entry {
    priority: Priority,
    fetching: Option<Ticket>,
    /// Nothing is fetched before this.
    not_before: Instant,
    /// Failures since the last success, and when the last one was.
    failures: u32,
    failed_at: Option<Instant>,
    served: Option<Served>,
}

#[derive(Clone, Copy, Debug)]
struct Served {
    validity: Validity,
    renew_at: SystemTime,
}

impl Rota {
    /// An empty schedule.
    pub(super) fn new(rng: fastrand::Rng) -> Self {
        Self {
            entries: HashMap::new(),
            in_flight: HashMap::new(),
            tickets: 0,
            failures_in_a_row: 0,
            rng,
        }
    }

    /// Says that a certificate of `identity` is wanted, and how urgently. An identity that pauses
    /// after a failure is tried earlier if a connection waits for it.
    pub(super) fn want(&mut self, identity: &Identity, priority: Priority, now: Now) {
        let entry = self.entries.entry(identity.clone()).or_insert_with(|| Entry {
            priority,
            fetching: None,
            not_before: now.monotonic,
            failures: 0,
            failed_at: None,
            served: None,
        });
        entry.priority = entry.priority.max(priority);
        if priority == Priority::RealTime
            && let Some(failed_at) = entry.failed_at
        {
            entry.not_before = entry.not_before.min(failed_at + HURRIED_PAUSE);
        }
    }

    /// Says that nobody needs `identity` any more. The outcome of its fetch, if one is in flight,
    /// will be of no use: its ticket is returned.
    pub(super) fn forget(&mut self, identity: &Identity) -> Option<Ticket> {
        self.entries.remove(identity)?.fetching
    }

    /// The fetches to start now, most urgent first; among equals, what expires first.
    pub(super) fn due(&mut self, now: Now) -> Vec<Fetch> {
        let room = FETCHES_MAX.saturating_sub(self.in_flight.len());
        if room == 0 {
            return Vec::new();
        }
        let mut due: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.wait(now) == Some(Duration::ZERO))
            .map(|(identity, entry)| {
                let expires = entry.served.map(|served| served.validity.not_after);
                (Reverse(entry.priority), expires, entry.not_before, identity.clone())
            })
            .collect();
        due.sort_unstable();
        due.truncate(room);
        due.into_iter().map(|(_, _, _, identity)| self.start(identity)).collect()
    }

    /// How long nothing is due, unless something happens; `None` is for ever.
    pub(super) fn idle(&self, now: Now) -> Option<Duration> {
        if self.in_flight.len() >= FETCHES_MAX {
            return None;
        }
        self.entries.values().filter_map(|entry| entry.wait(now)).min()
    }

    /// A fetch brought a certificate. Whose it is, unless it was forgotten meanwhile.
    pub(super) fn succeeded(
        &mut self,
        ticket: Ticket,
        validity: Validity,
        now: Now,
    ) -> Option<Identity> {
        let identity = self.finish(ticket);
        if std::mem::take(&mut self.failures_in_a_row) >= FETCHES_MAX {
            self.recover(now);
        }
        let identity = identity?;
        let renew_at = self.renewal(validity, now.wall);
        let entry = self.entries.get_mut(&identity)?;
        entry.priority = Priority::Background;
        entry.failures = 0;
        entry.failed_at = None;
        entry.not_before = now.monotonic + RENEWAL_FLOOR;
        entry.served = Some(Served { validity, renew_at });
        Some(identity)
    }

    /// A fetch failed, and if the failure `lasts`, the next one soon would fail too. Whose it was
    /// and the pause before the next try, unless it was forgotten meanwhile.
    pub(super) fn failed(
        &mut self,
        ticket: Ticket,
        lasts: bool,
        now: Now,
    ) -> Option<(Identity, Duration)> {
        let identity = self.finish(ticket)?;
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let factor = between(&mut self.rng, JITTER);
        let entry = self.entries.get_mut(&identity)?;
        entry.priority = Priority::Background;
        entry.failures = entry.failures.saturating_add(1);
        // Need does not shorten a pause after which nothing would be better.
        entry.failed_at = (!lasts).then_some(now.monotonic);
        let pause = if lasts { BACKOFF_MAX } else { backoff(entry.failures) };
        let mut pause = pause.mul_f64(factor);
        let left = entry.served.and_then(|s| s.validity.not_after.duration_since(now.wall).ok());
        if let Some(left) = left {
            // The last moment to try is before anybody is turned away.
            pause = pause.min(left.max(BACKOFF_MIN));
        }
        entry.not_before = now.monotonic + pause;
        Some((identity, pause))
    }

    fn start(&mut self, identity: Identity) -> Fetch {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        if let Some(entry) = self.entries.get_mut(&identity) {
            entry.fetching = Some(ticket);
        }
        self.in_flight.insert(ticket, identity.clone());
        Fetch { ticket, identity }
    }

    /// The identity of a fetch that ended, if that fetch is still the one it waits for.
    fn finish(&mut self, ticket: Ticket) -> Option<Identity> {
        let identity = self.in_flight.remove(&ticket)?;
        let entry = self.entries.get_mut(&identity)?;
        if entry.fetching != Some(ticket) {
            return None;
        }
        entry.fetching = None;
        Some(identity)
    }

    fn renewal(&mut self, validity: Validity, wall: SystemTime) -> SystemTime {
        let part = between(&mut self.rng, RENEWAL_PART);
        let life = validity.not_after.duration_since(validity.not_before).unwrap_or_default();
        let planned = validity.not_before + life.mul_f64(part);
        if planned > wall {
            return planned;
        }
        // Issuers date certificates back by minutes: of one that lives shorter than that, only
        // what is left counts.
        wall + validity.not_after.duration_since(wall).unwrap_or_default().mul_f64(part)
    }

    fn recover(&mut self, now: Now) {
        for entry in self.entries.values_mut().filter(|entry| entry.failures > 0) {
            let pause = RECOVERY_SPREAD.mul_f64(self.rng.f64());
            entry.not_before = entry.not_before.min(now.monotonic + pause);
        }
    }
}

impl Entry {
    /// How long until this identity is to be fetched; `None` while it is being fetched.
    fn wait(&self, now: Now) -> Option<Duration> {
        if self.fetching.is_some() {
            return None;
        }
        let pause = self.not_before.saturating_duration_since(now.monotonic);
        let Some(served) = self.served.filter(|_| self.failures == 0) else {
            return Some(pause);
        };
        if now.wall < served.validity.not_before {
            // The wall clock went back: by it, no peer will take this certificate.
            return Some(pause);
        }
        let renewal = served.renew_at.duration_since(now.wall).unwrap_or_default();
        Some(pause.max(renewal))
    }
}

fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX)
}

fn between(rng: &mut fastrand::Rng, (low, high): (f64, f64)) -> f64 {
    low + (high - low) * rng.f64()
}

#[cfg(test)]
mod tests;
