//! Refusals, open sockets, tunnels of TLS 1.2, same-node paths and unreadable headers: few labels,
//! all of them words of ours.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::NO_EXEMPLAR;
use crate::report::{Direction, Reason};

/// The label that names whose side of a connection is told of.
const REPORTER: &str = "reporter";
/// Both directions, in the order of the arrays that are indexed by them.
const DIRECTIONS: [Direction; 2] = [Direction::Outbound, Direction::Inbound];
/// Headers that are exposed before the first one was unreadable.
const HEADERS: [&str; 3] = ["baggage", "forwarded", "traceparent"];

/// Counted by reason, direction and header; exposed from the start, so that an alert sees the
/// first one rise.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// By reason, in the order of `Reason::ALL`, and direction.
    refusals: Vec<[AtomicU64; 2]>,
    sockets: [AtomicI64; 2],
    same_node: [AtomicU64; 2],
    tls12: [AtomicU64; 2],
    malformed: Mutex<BTreeMap<&'static str, u64>>,
}

impl Outcomes {
    pub(super) fn refused(&self, reason: Reason, direction: Direction) {
        // `Reason::ALL` is in the order of declaration, which `as` counts.
        if let Some(counters) = self.refusals.get(reason as usize) {
            counters[index(direction)].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn sockets(&self, direction: Direction, change: i64) {
        self.sockets[index(direction)].fetch_add(change, Ordering::Relaxed);
    }

    pub(super) fn same_node(&self, direction: Direction) {
        self.same_node[index(direction)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn tls12(&self, direction: Direction) {
        self.tls12[index(direction)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn malformed(&self, header: &'static str) {
        *self.headers().entry(header).or_default() += 1;
    }

    fn headers(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.malformed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Outcomes {
    fn default() -> Self {
        Self {
            refusals: Reason::ALL.iter().map(|_| Default::default()).collect(),
            sockets: Default::default(),
            same_node: Default::default(),
            tls12: Default::default(),
            malformed: Mutex::new(HEADERS.map(|header| (header, 0)).into()),
        }
    }
}

impl Collector for Outcomes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Connections refused or ended badly, by reason";
        let mut metric =
            encoder.encode_descriptor("adit_refusals", help, None, MetricType::Counter)?;
        for (reason, counters) in Reason::ALL.iter().zip(&self.refusals) {
            for (direction, counter) in DIRECTIONS.iter().zip(counters) {
                let labels = [("reason", reason.as_str()), (REPORTER, direction.reporter())];
                let value = counter.load(Ordering::Relaxed);
                metric.encode_family(&labels)?.encode_counter(&value, NO_EXEMPLAR)?;
            }
        }
        let help = "Accepted sockets on the proxy's ports";
        let mut metric =
            encoder.encode_descriptor("istio_tcp_sockets_open", help, None, MetricType::Gauge)?;
        for (direction, gauge) in DIRECTIONS.iter().zip(&self.sockets) {
            let labels = [(REPORTER, direction.reporter())];
            metric.encode_family(&labels)?.encode_gauge(&gauge.load(Ordering::Relaxed))?;
        }
        let both = [
            (
                "adit_same_node_connections",
                "Ended connections whose bytes went from socket to socket on this node",
                &self.same_node,
            ),
            ("adit_tls12_tunnels", "Tunnels that were begun with TLS 1.2", &self.tls12),
        ];
        for (name, help, counters) in both {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (direction, counter) in DIRECTIONS.iter().zip(counters) {
                let labels = [(REPORTER, direction.reporter())];
                let value = counter.load(Ordering::Relaxed);
                metric.encode_family(&labels)?.encode_counter(&value, NO_EXEMPLAR)?;
            }
        }
        let help = "Headers of peers that were ignored because they could not be read";
        let name = "adit_malformed_headers";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (header, count) in self.headers().iter() {
            let labels = [("header", *header)];
            metric.encode_family(&labels)?.encode_counter(count, NO_EXEMPLAR)?;
        }
        Ok(())
    }
}

fn index(direction: Direction) -> usize {
    match direction {
        Direction::Outbound => 0,
        Direction::Inbound => 1,
    }
}
