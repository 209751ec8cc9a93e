//! The traffic metrics: one series per set of labels, fed by the connections that have them.
//!
//! Bytes are counted in cells that belong to one connection each and are summed when scraped, so
//! that workers never write to the same cache line.

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};

use foldhash::HashMap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::NO_EXEMPLAR;
use crate::report::labels::{Claims, Labels};
use crate::report::{Connection, ResponseFlag};

/// Label sets that are told apart. What comes later is counted under `unknown` workloads.
const SERIES_MAX: usize = 10_000;
/// Of those, label sets that repeat what peers say of themselves. What comes later is counted as
/// if they had said nothing.
const CLAIMED_SERIES_MAX: usize = 2_500;

/// The traffic metrics.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    table: RwLock<Table>,
    /// Openings and failures that were counted without their own labels.
    overflowed: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    series: HashMap<Labels, Arc<Series>>,
    /// How many of them repeat a claim.
    claimed: usize,
}

/// What is counted for one set of labels.
#[derive(Debug, Default)]
pub(in crate::report) struct Series {
    opened: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
    bytes: Mutex<Bytes>,
}

#[derive(Debug, Default)]
struct Bytes {
    /// From the initiators, of connections that have ended.
    request: u64,
    /// Back to the initiators, of connections that have ended.
    response: u64,
    /// Of connections that live, by connection id.
    live: HashMap<u64, Arc<Cells>>,
}

/// The bytes of one connection; only its own tasks write here.
#[derive(Debug, Default)]
pub(in crate::report) struct Cells {
    /// From the initiator.
    pub(in crate::report) request: AtomicU64,
    /// Back to the initiator.
    pub(in crate::report) response: AtomicU64,
}

impl Traffic {
    /// The series of connections like this one.
    pub(super) fn series(&self, connection: &Connection, flag: ResponseFlag) -> Arc<Series> {
        let (labels, claimed) = Labels::of(connection, flag, Claims::Used);
        if let Some(series) = self.get_or_insert(labels, claimed) {
            return series;
        }
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        if claimed {
            let (labels, claimed) = Labels::of(connection, flag, Claims::Ignored);
            if let Some(series) = self.get_or_insert(labels, claimed) {
                return series;
            }
        }
        // There are few of these: reporters times flags times security policies.
        self.write().insert(Labels::of_the_rest(connection, flag), false)
    }

    /// The series with these labels; `None` if it would be one too many.
    fn get_or_insert(&self, labels: Labels, claimed: bool) -> Option<Arc<Series>> {
        let (found, room) = self.read(|t| (t.series.get(&labels).cloned(), t.has_room(claimed)));
        match found {
            None if room => {
                let mut table = self.write();
                table.has_room(claimed).then(|| table.insert(labels, claimed))
            }
            found => found,
        }
    }

    fn read<T>(&self, look: impl FnOnce(&Table) -> T) -> T {
        look(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn has_room(&self, claimed: bool) -> bool {
        self.series.len() < SERIES_MAX && (!claimed || self.claimed < CLAIMED_SERIES_MAX)
    }

    fn insert(&mut self, labels: Labels, claimed: bool) -> Arc<Series> {
        match self.series.entry(labels) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(place) => {
                self.claimed += usize::from(claimed);
                Arc::clone(place.insert(Arc::default()))
            }
        }
    }
}

impl Series {
    /// Counts an opening; the bytes of the connection are counted here from now on.
    pub(in crate::report) fn open(&self, id: u64, cells: &Arc<Cells>) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.bytes().live.insert(id, Arc::clone(cells));
    }

    /// Keeps the bytes of a connection that has ended.
    pub(in crate::report) fn settle(&self, id: u64) {
        let mut bytes = self.bytes();
        if let Some(cells) = bytes.live.remove(&id) {
            bytes.request += cells.request.load(Ordering::Relaxed);
            bytes.response += cells.response.load(Ordering::Relaxed);
        }
    }

    /// Counts an end.
    pub(in crate::report) fn close(&self, failed: bool) {
        self.closed.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    fn bytes(&self) -> MutexGuard<'_, Bytes> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn totals(&self) -> Totals {
        let opened = self.opened.load(Ordering::Relaxed);
        let bytes = self.bytes();
        let sum = |ended: u64, cell: fn(&Cells) -> &AtomicU64| {
            let live = bytes.live.values().map(|cells| cell(cells).load(Ordering::Relaxed));
            ended + live.sum::<u64>()
        };
        // Bytes belong to the series a connection was opened in.
        let of_opened = |value: u64| (opened > 0).then_some(value);
        let at_least_one = |value: u64| (value > 0).then_some(value);
        Totals {
            opened: at_least_one(opened),
            closed: at_least_one(self.closed.load(Ordering::Relaxed)),
            received: of_opened(sum(bytes.request, |cells| &cells.request)),
            sent: of_opened(sum(bytes.response, |cells| &cells.response)),
            failed: at_least_one(self.failed.load(Ordering::Relaxed)),
        }
    }
}

/// One series as it is scraped; `None` is not exposed.
struct Totals {
    opened: Option<u64>,
    closed: Option<u64>,
    received: Option<u64>,
    sent: Option<u64>,
    failed: Option<u64>,
}

type Pick = fn(&Totals) -> Option<u64>;

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let families: [(&str, &str, Pick); 5] = [
            ("istio_tcp_connections_opened", "Connections opened", |t| t.opened),
            ("istio_tcp_connections_closed", "Connections closed", |t| t.closed),
            ("istio_tcp_received_bytes", "Bytes from the initiator", |t| t.received),
            ("istio_tcp_sent_bytes", "Bytes back to the initiator", |t| t.sent),
            ("istio_tcp_connections_failed", "Connections that failed", |t| t.failed),
        ];
        let mut rows = self.read(|table| {
            let rows = table.series.iter().map(|(l, s)| (l.clone(), s.totals()));
            rows.collect::<Vec<_>>()
        });
        // A stable order, so that two scrapes can be compared.
        rows.sort_by(|(a, _), (b, _)| a.pairs().cmp(b.pairs()));
        for (name, help, pick) in families {
            let picked = rows.iter().filter_map(|(labels, t)| Some((labels, pick(t)?)));
            let mut picked = picked.peekable();
            if picked.peek().is_none() {
                continue;
            }
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, value) in picked {
                metric.encode_family(labels)?.encode_counter(&value, NO_EXEMPLAR)?;
            }
        }
        let name = "adit_traffic_labels_overflowed";
        let help = "Label sets not told apart, because there are too many";
        encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter(&self.overflowed.load(Ordering::Relaxed), NO_EXEMPLAR)
    }
}
