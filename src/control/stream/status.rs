//! Where the stream stands, told to people: as status, metrics and log lines.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::mesh::Applied;
use super::{End, url_of};
use crate::control::ads::Standing;
use crate::control::lookups::Tally;
use crate::control::stored::StoredError;
use crate::report::metrics::XdsMetrics;
use crate::report::time;
use crate::sys::clock::Clock;
use crate::wire::xds::ResourceType;

/// Rejections of one batch that are logged one by one.
const LOGGED_MAX: usize = 16;
/// Rejections of one type that are shown.
const SHOWN_MAX: usize = 100;

/// Where the stream stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdsStatus {
    /// Every type has been answered once: the mesh is published.
    pub loaded: bool,
    /// Every type has been answered on the stream that is open now.
    pub connected: bool,
    /// When a response was last applied, by the wall clock.
    pub last_response: Option<SystemTime>,
    /// Why there is no stream, if there is none.
    pub error: Option<String>,
    /// Streams, and attempts at them, that ended since one was answered.
    pub failures: u64,
    /// When what is in force was saved, if that was by an earlier process.
    pub restored: Option<SystemTime>,
    /// When the mesh was last saved for the next process.
    pub saved: Option<SystemTime>,
    /// Why the file for the next process was not written, or not read.
    pub snapshot_error: Option<String>,
    types: BTreeMap<ResourceType, Standing>,
    /// How many questions of readers are remembered, and how they ended so far.
    lookups: Option<(usize, Tally)>,
}

/// Whoever tells.
#[derive(Debug)]
pub(super) struct Teller {
    status: watch::Sender<XdsStatus>,
    metrics: XdsMetrics,
    clock: Clock,
}

impl XdsStatus {
    fn stand(&mut self, applied: &Applied) {
        self.types.clone_from(&applied.standing);
        self.loaded |= applied.published.is_some();
    }

    /// For the config dump.
    pub fn dump(&self) -> Value {
        let types = self.types.iter().map(|(kind, standing)| {
            let shown = standing.rejected.iter().take(SHOWN_MAX);
            let rejected: BTreeMap<&str, String> =
                shown.map(|(name, flaw)| (&**name, flaw.to_string())).collect();
            let value = json!({
                "answered": standing.answered,
                "resources": standing.resources,
                "nacks": standing.nacks,
                "rejected": rejected,
                "rejectedOmitted": standing.rejected.len() - rejected.len(),
            });
            (kind.to_string(), value)
        });
        let lookups = self.lookups.map(|(remembered, tally)| {
            json!({
                "remembered": remembered,
                "found": tally.found,
                "absent": tally.absent,
                "givenUp": tally.given_up,
                "tooMany": tally.too_many,
            })
        });
        json!({
            "connected": self.connected,
            "lastResponse": self.last_response.map(time::micros),
            "error": self.error,
            "failures": self.failures,
            "restored": self.restored.map(time::micros),
            "saved": self.saved.map(time::micros),
            "snapshotError": self.snapshot_error,
            "lookups": lookups,
            "types": types.collect::<BTreeMap<_, _>>(),
        })
    }
}

impl Teller {
    pub(super) fn new(metrics: XdsMetrics, clock: Clock) -> (Self, watch::Receiver<XdsStatus>) {
        let (status, follow) = watch::channel(XdsStatus::default());
        metrics.begin(&ResourceType::ALL.map(ResourceType::url), &End::REASONS);
        (Self { status, metrics, clock }, follow)
    }

    pub(super) fn received(&self, type_url: &str, bytes: usize) {
        self.metrics.received(url_of(type_url), bytes);
    }

    pub(super) fn applied(&self, applied: &Applied) {
        for answer in applied.answers.iter().filter(|answer| answer.error_detail.is_some()) {
            self.metrics.refused(url_of(&answer.type_url));
        }
        for (kind, standing) in &applied.standing {
            self.metrics.rejected(kind.url(), standing.rejected.len());
        }
        for (kind, name, flaw) in applied.rejected.iter().take(LOGGED_MAX) {
            tracing::warn!(%kind, %name, %flaw, "a resource is rejected");
        }
        let more = applied.rejected.len().saturating_sub(LOGGED_MAX);
        if more > 0 {
            tracing::warn!(more, "more resources are rejected");
        }
        if let Some(generation) = applied.published {
            tracing::debug!(generation, "mesh published");
        }
        self.looked_up(applied.lookups);
        let now = self.clock.wall();
        self.metrics.last_response_seconds.set(time::epoch_seconds(now));
        let was = self.status.borrow().connected;
        if applied.heard && !was {
            let failures = self.status.borrow().failures;
            let of = |kind| applied.standing.get(&kind).map_or(0, |standing| standing.resources);
            let addresses = of(ResourceType::Address);
            let policies = of(ResourceType::Authorization);
            tracing::info!(addresses, policies, failures, "the control plane has answered");
            self.metrics.connected.set(1);
        }
        self.status.send_modify(|status| {
            status.stand(applied);
            status.last_response = Some(now);
            if applied.heard {
                status.connected = true;
                status.error = None;
                status.failures = 0;
                status.restored = None;
            }
        });
    }

    /// How questions of readers ended so far.
    pub(super) fn looked_up(&self, lookups: Option<(usize, Tally)>) {
        let Some((remembered, tally)) = lookups else { return };
        let Tally { found, absent, given_up, too_many } = tally;
        let before = self.status.borrow().lookups.map_or_else(Tally::default, |(_, tally)| tally);
        self.metrics.lookups.set(i64::try_from(remembered).unwrap_or(i64::MAX));
        self.metrics.looked_up("found", found - before.found);
        self.metrics.looked_up("absent", absent - before.absent);
        self.metrics.looked_up("given_up", given_up - before.given_up);
        self.metrics.looked_up("too_many", too_many - before.too_many);
        self.status.send_modify(|status| status.lookups = lookups);
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.status.borrow().loaded
    }

    /// The mesh is that of an earlier process.
    pub(super) fn restored(&self, at: SystemTime, applied: &Applied) {
        let saved_at = time::micros(at);
        tracing::warn!(
            saved_at,
            generation = applied.published,
            "no control plane: serving what was saved"
        );
        self.status.send_modify(|status| {
            status.stand(applied);
            status.restored = Some(at);
        });
    }

    pub(super) fn not_restored(&self, path: &Path, error: &StoredError) {
        let path = path.display();
        tracing::warn!(%path, %error, "no control plane, and what was saved is not used");
        self.metrics.snapshot_errors.inc();
        self.status.send_modify(|status| status.snapshot_error = Some(error.to_string()));
    }

    /// The same error is told once, until it is over.
    pub(super) fn saved(&self, path: &Path, outcome: Result<SystemTime, StoredError>) {
        let error = outcome.as_ref().err().map(ToString::to_string);
        if let Ok(at) = outcome {
            self.metrics.snapshot_saved_seconds.set(time::epoch_seconds(at));
        } else {
            self.metrics.snapshot_errors.inc();
        }
        if let Some(error) = &error
            && self.status.borrow().snapshot_error.as_ref() != Some(error)
        {
            let path = path.display();
            tracing::warn!(%path, error, "the mesh is not saved for the next process");
        }
        self.status.send_modify(|status| {
            status.saved = outcome.ok().or(status.saved);
            status.snapshot_error = error;
        });
    }

    /// The same cause is told once, until there is a stream again.
    pub(super) fn ended(&self, end: &End, retry_in: Duration) {
        self.metrics.ended(end.reason());
        self.metrics.connected.set(0);
        let reason = end.to_string();
        let known = self.status.borrow().error.as_ref() == Some(&reason);
        if known {
            tracing::debug!(reason, ?retry_in, "no control plane, still");
        } else {
            let loaded = self.status.borrow().loaded;
            let kept = if loaded { "what it said last" } else { "nothing" };
            tracing::warn!(reason, ?retry_in, kept, "no control plane");
        }
        self.status.send_modify(|status| {
            status.connected = false;
            status.error = Some(reason);
            status.failures += 1;
        });
    }
}
