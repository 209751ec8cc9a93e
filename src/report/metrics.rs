//! Metrics, in the OpenMetrics text format (spec operations 7).
//!
//! Labels are bounded: those of the traffic metrics by `metrics/traffic.rs`, all others are words
//! of ours or identities of certificates we hold.

mod outcomes;
mod revocation;
mod scrape;
mod traffic;
mod xds;

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::log::Log;
use super::{Connection, Direction, Reason, ResponseFlag};
use crate::model::View;
use crate::wire::spiffe::Identity;
use outcomes::Outcomes;
use scrape::Sources;
use traffic::Traffic;

pub use revocation::RevocationMetrics;
pub(super) use traffic::{Cells, Series};
pub use xds::XdsMetrics;

/// What the encoder is told where there is no exemplar.
const NO_EXEMPLAR: Option<&Exemplar<[(String, String); 0], u64>> = None;

/// Every metric. Counting takes no lock, except at the opening and end of a connection.
#[derive(Debug)]
pub struct Metrics {
    /// Pods served.
    pub pods: PodMetrics,
    /// The file that configures us, if one does.
    pub config_file: ConfigFileMetrics,
    /// The control plane that configures us, if one does.
    pub xds: XdsMetrics,
    /// Certificates that were fetched, and those that were not.
    pub certificates: CertificateMetrics,
    /// Revocation lists, and who was refused because of them.
    pub revocation: RevocationMetrics,
    /// Decisions that were refused because a policy that applies has not arrived.
    pub policy_unknown: Counter,
    /// Connections for which a policy in dry-run would have decided otherwise.
    pub dry_run_findings: Counter,
    /// Tasks that panicked; each ended what it served and nothing else.
    pub panics: Counter,
    /// 1 while certificates come from the development CA, which proves nothing to anybody else.
    pub development_ca: Gauge,
    registry: Registry,
    traffic: Arc<Traffic>,
    sources: Arc<Sources>,
    outcomes: Arc<Outcomes>,
}

/// Pods served (`workload_manager_*`).
#[derive(Debug, Default)]
pub struct PodMetrics {
    /// Pods whose listeners are open.
    pub active: Gauge,
    /// Pods that were announced and cannot be served yet.
    pub pending: Gauge,
    /// Pods whose listeners were opened.
    pub started: Counter,
    /// Pods whose listeners were closed.
    pub stopped: Counter,
    /// Messages of the node agent that were refused; pods that could not be started not counted.
    pub agent_errors: Counter,
}

/// The file that configures us.
#[derive(Debug, Default)]
pub struct ConfigFileMetrics {
    /// Times it could not be used; the last good configuration stayed.
    pub errors: Counter,
    /// When it was last used, seconds since the epoch.
    pub last_success_seconds: Gauge,
}

/// Certificates that were fetched, and those that were not. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct CertificateMetrics {
    /// Certificates that were published.
    pub issued: Counter,
    /// Fetches that failed, by what is to be expected of the next one.
    pub failures: Family<[(&'static str, &'static str); 1], Counter>,
}

impl CertificateMetrics {
    /// Counts a fetch that failed. The kind is a word of ours.
    pub fn failed(&self, kind: &'static str) {
        self.failures.get_or_create(&[("kind", kind)]).inc();
    }
}

/// When a certificate expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateExpiry {
    /// Whose it is.
    pub identity: Identity,
    /// Seconds since the epoch.
    pub not_after_seconds: i64,
}

impl Metrics {
    /// All metrics at zero. `istio_version` is the `tag` of `istio_build`.
    pub fn new(istio_version: &str) -> Self {
        let mut registry = Registry::default();
        let traffic = Arc::new(Traffic::default());
        let sources = Arc::new(Sources::default());
        let outcomes = Arc::new(Outcomes::default());
        registry.register_collector(Box::new(Arc::clone(&traffic)));
        registry.register_collector(Box::new(Arc::clone(&outcomes)));
        registry.register_collector(Box::new(Arc::clone(&sources)));
        let build = Family::<[(&'static str, String); 2], Gauge>::default();
        build
            .get_or_create(&[
                ("component", "ztunnel".to_owned()),
                ("tag", istio_version.to_owned()),
            ])
            .set(1);
        registry.register("istio_build", "Version of the mesh this proxy belongs to", build);
        let metrics = Self {
            pods: PodMetrics::default(),
            config_file: ConfigFileMetrics::default(),
            xds: XdsMetrics::default(),
            certificates: CertificateMetrics::default(),
            revocation: RevocationMetrics::default(),
            policy_unknown: Counter::default(),
            dry_run_findings: Counter::default(),
            panics: Counter::default(),
            development_ca: Gauge::default(),
            registry,
            traffic,
            sources,
            outcomes,
        };
        metrics.register_own()
    }

    /// Counts a header of a peer that could not be read and was ignored. The name is one of ours.
    pub fn malformed_header(&self, header: &'static str) {
        self.outcomes.malformed(header);
    }

    /// From now on scrapes say how large the mesh is. The first call counts.
    pub fn watch_mesh(&self, view: View) {
        let _ = self.sources.mesh.set(view);
    }

    /// From now on scrapes say how many log lines were lost. The first call counts.
    pub fn watch_log(&self, log: Log) {
        let _ = self.sources.log.set(log);
    }

    /// From now on scrapes say when certificates expire, as `read` tells them. The first call
    /// counts.
    pub fn watch_certificates(
        &self,
        read: impl Fn() -> Vec<CertificateExpiry> + Send + Sync + 'static,
    ) {
        let _ = self.sources.certificates.set(Box::new(read));
    }

    /// The exposition: OpenMetrics text that ends in `# EOF`.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }

    /// Counts a refusal or a bad end.
    pub(super) fn failed(&self, reason: Reason, direction: Direction) {
        self.outcomes.refused(reason, direction);
    }

    /// Counts a connection whose bytes went from socket to socket.
    pub(super) fn same_node(&self, direction: Direction) {
        self.outcomes.same_node(direction);
    }

    /// Counts a tunnel of TLS 1.2.
    pub(super) fn tls12(&self, direction: Direction) {
        self.outcomes.tls12(direction);
    }

    /// Counts sockets that were accepted, or closed if negative.
    pub(super) fn sockets(&self, direction: Direction, change: i64) {
        self.outcomes.sockets(direction, change);
    }

    /// The counters of connections like this one, that end like this.
    pub(super) fn series(&self, connection: &Connection, flag: ResponseFlag) -> Arc<Series> {
        self.traffic.series(connection, flag)
    }

    fn register_own(mut self) -> Self {
        let counters = [
            ("workload_manager_proxies_started", "Pods started", &self.pods.started),
            ("workload_manager_proxies_stopped", "Pods stopped", &self.pods.stopped),
            (
                "adit_agent_errors",
                "Messages of the node agent that were refused",
                &self.pods.agent_errors,
            ),
            (
                "adit_config_file_errors",
                "Times the configuration file could not be used",
                &self.config_file.errors,
            ),
            (
                "adit_certificates_issued",
                "Certificates fetched and published",
                &self.certificates.issued,
            ),
            (
                "adit_policy_unknown",
                "Decisions refused because a policy has not arrived",
                &self.policy_unknown,
            ),
            (
                "adit_dry_run_findings",
                "Decisions that policies in dry-run would have changed",
                &self.dry_run_findings,
            ),
            ("adit_panics", "Tasks that panicked", &self.panics),
        ];
        for (name, help, counter) in counters {
            self.registry.register(name, help, counter.clone());
        }
        self.registry.register(
            "adit_certificate_failures",
            "Fetches of certificates that failed",
            self.certificates.failures.clone(),
        );
        self.revocation.register(&mut self.registry);
        self.xds.register(&mut self.registry);
        let gauges = [
            ("workload_manager_active_proxy_count", "Pods served", &self.pods.active),
            ("workload_manager_pending_proxy_count", "Pods not served yet", &self.pods.pending),
            (
                "adit_config_file_last_success_timestamp_seconds",
                "When the configuration file was last used",
                &self.config_file.last_success_seconds,
            ),
            (
                "adit_development_ca",
                "Whether certificates come from the development CA",
                &self.development_ca,
            ),
        ];
        for (name, help, gauge) in gauges {
            self.registry.register(name, help, gauge.clone());
        }
        self
    }
}

#[cfg(test)]
pub(super) mod tests;
