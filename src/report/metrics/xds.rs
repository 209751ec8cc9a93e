//! The stream from the control plane.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// One label, whose value is a word of ours.
type Labelled<M> = Family<[(&'static str, &'static str); 1], M>;

/// The stream from the control plane, if one configures us. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct XdsMetrics {
    /// 1 while a stream is open and every type has been answered on it.
    pub connected: Gauge,
    /// When a response was last applied, seconds since the epoch.
    pub last_response_seconds: Gauge,
    /// When the mesh was last saved for the next process, seconds since the epoch.
    pub snapshot_saved_seconds: Gauge,
    /// Times that failed, or that what was saved could not be used.
    pub snapshot_errors: Counter,
    /// Questions to the control plane that are remembered, where it is asked one by one.
    pub lookups: Gauge,
    looked_up: Labelled<Counter>,
    messages: Labelled<Counter>,
    bytes: Labelled<Counter>,
    nacks: Labelled<Counter>,
    rejected: Labelled<Gauge>,
    terminations: Labelled<Counter>,
}

impl XdsMetrics {
    /// Exposes everything at zero, so that an alert sees the first one rise.
    pub fn begin(&self, urls: &[&'static str], reasons: &[&'static str]) {
        for url in urls {
            let label = [("url", *url)];
            drop(self.messages.get_or_create(&label));
            drop(self.bytes.get_or_create(&label));
            drop(self.nacks.get_or_create(&label));
            drop(self.rejected.get_or_create(&label));
        }
        for reason in reasons {
            drop(self.terminations.get_or_create(&[("reason", reason)]));
        }
    }

    /// Counts a response for the type named `url`, of so many bytes.
    pub fn received(&self, url: &'static str, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.messages.get_or_create(&[("url", url)]).inc();
        self.bytes.get_or_create(&[("url", url)]).inc_by(bytes);
    }

    /// Counts a response that was not applied as a whole.
    pub fn refused(&self, url: &'static str) {
        self.nacks.get_or_create(&[("url", url)]).inc();
    }

    /// Counts questions to the control plane that ended. The outcome is a word of ours.
    pub fn looked_up(&self, outcome: &'static str, count: u64) {
        self.looked_up.get_or_create(&[("outcome", outcome)]).inc_by(count);
    }

    /// How many resources of a type are rejected now.
    pub fn rejected(&self, url: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.rejected.get_or_create(&[("url", url)]).set(count);
    }

    /// Counts a stream, or an attempt at one, that ended. The reason is a word of ours.
    pub fn ended(&self, reason: &'static str) {
        self.terminations.get_or_create(&[("reason", reason)]).inc();
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("istio_xds_message", "Responses of xDS", self.messages.clone());
        registry.register(
            "istio_xds_message_bytes",
            "Bytes of the responses of xDS",
            self.bytes.clone(),
        );
        registry.register(
            "istio_xds_connection_terminations",
            "Streams of xDS, and attempts at them, that ended",
            self.terminations.clone(),
        );
        registry.register(
            "adit_xds_nacks",
            "Responses of xDS that were rejected in part or whole",
            self.nacks.clone(),
        );
        registry.register(
            "adit_xds_rejected_resources",
            "Resources whose newest version is rejected",
            self.rejected.clone(),
        );
        registry.register(
            "adit_xds_lookups",
            "Questions to the control plane that are remembered",
            self.lookups.clone(),
        );
        registry.register(
            "adit_xds_lookups_ended",
            "Questions to the control plane that ended",
            self.looked_up.clone(),
        );
        registry.register(
            "adit_xds_connected",
            "Whether a stream of xDS is open and was answered",
            self.connected.clone(),
        );
        registry.register(
            "adit_xds_last_response_timestamp_seconds",
            "When a response of xDS was last applied",
            self.last_response_seconds.clone(),
        );
        registry.register(
            "adit_xds_snapshot_saved_timestamp_seconds",
            "When the mesh was last saved for the next process",
            self.snapshot_saved_seconds.clone(),
        );
        registry.register(
            "adit_xds_snapshot_errors",
            "Times the mesh could not be saved, or what was saved not used",
            self.snapshot_errors.clone(),
        );
    }
}
