//! Metrics that are computed when they are asked for.

use std::fmt;
use std::fs;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue};
use prometheus_client::metrics::MetricType;

use super::{CertificateExpiry, NO_EXEMPLAR};
use crate::model::View;
use crate::report::log::Log;

/// Where computed metrics come from; what is not there yet is not exposed.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) mesh: OnceLock<View>,
    pub(super) log: OnceLock<Log>,
    pub(super) certificates: OnceLock<Box<ReadExpiries>>,
}

type ReadExpiries = dyn Fn() -> Vec<CertificateExpiry> + Send + Sync;

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        process(&mut encoder)?;
        if let Some(view) = self.mesh.get() {
            mesh(&mut encoder, view)?;
        }
        if let Some(log) = self.log.get() {
            let name = "adit_log_lines_dropped";
            let help = "Log lines that were not written";
            encoder
                .encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter(&log.lines_dropped(), NO_EXEMPLAR)?;
        }
        if let Some(read) = self.certificates.get() {
            let name = "adit_certificate_expiry_timestamp_seconds";
            let help = "When a certificate expires";
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for CertificateExpiry { identity, not_after_seconds } in read() {
                let labels = [("identity", identity.to_string())];
                metric.encode_family(&labels)?.encode_gauge(&not_after_seconds)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

fn process(encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    // Reading the folder takes one descriptor itself.
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        let open = entries.count().saturating_sub(1);
        gauge(encoder, "process_open_fds", "Open file descriptors", open)?;
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // No limit at all is more than a gauge can hold.
        let most = i64::try_from(soft).unwrap_or(i64::MAX);
        gauge(encoder, "process_max_fds", "File descriptors that may be open", most)?;
    }
    Ok(())
}

fn mesh(encoder: &mut DescriptorEncoder<'_>, view: &View) -> Result<(), fmt::Error> {
    let snapshot = view.load();
    let (workloads, services, policies) = snapshot.counts();
    gauge(encoder, "adit_snapshot_generation", "Generation served", snapshot.generation())?;
    gauge(encoder, "adit_workloads", "Workloads known", workloads)?;
    gauge(encoder, "adit_services", "Services known", services)?;
    gauge(encoder, "adit_policies", "Policies known", policies)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue,
) -> Result<(), fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}
