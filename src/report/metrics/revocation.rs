//! Revocation lists, and who was refused because of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Issuers that have a line of their own. Peers were verified, so that these are our authorities.
const ISSUERS_MAX: usize = 64;
/// The line of all others.
const OTHERS: &str = "other";

/// Revocation lists, if there are any. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct RevocationMetrics {
    /// Lists in force.
    pub lists: Gauge,
    /// When they were last read, seconds since the epoch.
    pub loaded_seconds: Gauge,
    /// Times that the file could not be used; the last good lists stayed.
    pub errors: Counter,
    rejections: Family<[(&'static str, &'static str); 1], Counter>,
    unknown: Family<[(&'static str, String); 1], Counter>,
    issuers: Arc<Mutex<BTreeSet<String>>>,
}

impl RevocationMetrics {
    /// Exposes what everybody has at zero, so that an alert sees the first one rise.
    pub fn begin(&self) {
        for reporter in ["source", "destination"] {
            drop(self.rejections.get_or_create(&[("reporter", reporter)]));
        }
    }

    /// Counts a peer that is revoked; `reporter` is `source` if we called it.
    pub fn rejected(&self, reporter: &'static str) {
        self.rejections.get_or_create(&[("reporter", reporter)]).inc();
    }

    /// Counts a peer of whom no list says whether it is revoked.
    pub fn unknown(&self, issuer: &str) {
        let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        let own = issuers.contains(issuer)
            || (issuers.len() < ISSUERS_MAX && issuers.insert(issuer.to_owned()));
        drop(issuers);
        let issuer = if own { issuer } else { OTHERS };
        self.unknown.get_or_create(&[("issuer", issuer.to_owned())]).inc();
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "istio_crl_policy_rejections",
            "Peers refused or cut off because their certificate is revoked",
            self.rejections.clone(),
        );
        registry.register(
            "adit_crl_unknown",
            "Peers of whom no revocation list in force says whether they are revoked",
            self.unknown.clone(),
        );
        registry.register("adit_crl_lists", "Revocation lists in force", self.lists.clone());
        registry.register(
            "adit_crl_last_load_timestamp_seconds",
            "When the revocation lists were last read",
            self.loaded_seconds.clone(),
        );
        registry.register(
            "adit_crl_load_errors",
            "Times that the revocation lists could not be used",
            self.errors.clone(),
        );
    }
}
