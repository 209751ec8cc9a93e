//! Connections as they live: counted when they open, logged once when they end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use foldhash::HashMap;

use super::metrics::{Cells, Metrics, Series};
use super::{Connection, Direction, Early, Failure, Reason, ResponseFlag, accesslog};
use crate::model::VerifiedPeer;
use crate::sys::clock::Clock;

/// Parts of the list of live connections; neighbours in time lock different ones.
const SHARDS: usize = 16;
/// Connections of one pod and direction that a dump lists; the others are only counted.
const LISTED_MAX: usize = 1_000;

/// The handle through which rooms report. Cloning one is cheap; it is shared by all threads.
#[derive(Clone)]
pub struct Report {
    inner: Arc<Inner>,
}

struct Inner {
    metrics: Arc<Metrics>,
    clock: Clock,
    next_id: AtomicU64,
    shards: [Mutex<HashMap<u64, Arc<Entry>>>; SHARDS],
}

/// What is kept of an open connection.
#[derive(Debug)]
struct Entry {
    id: u64,
    pod_uid: Box<str>,
    connection: Connection,
    opened_at: Instant,
    cells: Arc<Cells>,
    /// Its bytes go from socket to socket.
    same_node: AtomicBool,
}

/// One open connection. Finished exactly once; dropped unfinished it is logged as cut by the
/// drain, or as a panic if that is what drops it.
#[derive(Debug)]
pub struct Live {
    report: Report,
    entry: Arc<Entry>,
    series: Arc<Series>,
    finished: bool,
}

/// Where the bytes of one connection are counted, by whoever moves them.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Entry>);

/// One accepted socket on a proxy port, for the `istio_tcp_sockets_open` gauge.
#[derive(Debug)]
pub struct SocketGuard {
    metrics: Arc<Metrics>,
    direction: Direction,
}

/// The open connections of one pod.
#[derive(Debug, Default)]
pub struct PodConnections {
    /// For the pod, sorted by address.
    pub inbound: Vec<Connection>,
    /// From the pod, sorted by address.
    pub outbound: Vec<Connection>,
    /// Further ones that are not listed.
    pub omitted: usize,
}

impl Report {
    /// A handle that counts in `metrics` and takes the time from `clock`.
    pub fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        let (next_id, shards) = (AtomicU64::new(0), Default::default());
        Self { inner: Arc::new(Inner { metrics, clock, next_id, shards }) }
    }

    /// The metrics that this handle counts in.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// Records the opening of a connection.
    pub fn opened(&self, pod_uid: &str, connection: Connection) -> Live {
        let inner = &*self.inner;
        accesslog::opened(&connection);
        let series = inner.metrics.series(&connection, ResponseFlag::None);
        let entry = Arc::new(Entry {
            id: inner.next_id.fetch_add(1, Ordering::Relaxed),
            pod_uid: pod_uid.into(),
            connection,
            opened_at: inner.clock.monotonic(),
            cells: Arc::default(),
            same_node: AtomicBool::new(false),
        });
        series.open(entry.id, &entry.cells);
        inner.shard(entry.id).insert(entry.id, Arc::clone(&entry));
        Live { report: self.clone(), entry, series, finished: false }
    }

    /// Records a connection that was refused before it could be described.
    pub fn refused(&self, early: Early, failure: &Failure) {
        self.inner.metrics.failed(failure.reason, early.direction);
        accesslog::refused(&early, failure);
    }

    /// Counts tasks that panicked.
    pub fn panicked(&self, count: u64) {
        if count > 0 {
            self.inner.metrics.panics.inc_by(count);
        }
    }

    /// Counts an accepted socket for as long as the guard lives.
    pub fn socket(&self, direction: Direction) -> SocketGuard {
        let metrics = Arc::clone(&self.inner.metrics);
        metrics.sockets(direction, 1);
        SocketGuard { metrics, direction }
    }

    /// Tells of a tunnel that speaks TLS 1.2, so that whoever allows it learns who still needs it.
    pub fn tls12_tunnel(&self, direction: Direction, peer: Option<&VerifiedPeer>) {
        self.inner.metrics.tls12(direction);
        let peer = peer.map(|peer| peer.identity().to_string()).unwrap_or_default();
        tracing::info!(direction = direction.as_str(), peer, "a tunnel of TLS 1.2");
    }

    /// The open connections of every pod that has one, by pod uid; bounded per pod.
    pub fn connections(&self) -> BTreeMap<Box<str>, PodConnections> {
        let mut pods = BTreeMap::<Box<str>, PodConnections>::new();
        for shard in &self.inner.shards {
            for entry in locked(shard).values() {
                pods.entry(entry.pod_uid.clone()).or_default().list(&entry.connection);
            }
        }
        for pod in pods.values_mut() {
            for list in [&mut pod.inbound, &mut pod.outbound] {
                list.sort_by_key(|c| (c.source.addr, c.destination.addr));
            }
        }
        pods
    }
}

impl Inner {
    fn shard(&self, id: u64) -> MutexGuard<'_, HashMap<u64, Arc<Entry>>> {
        // The remainder is below SHARDS, so the narrowing cannot lose anything.
        let index = usize::try_from(id % SHARDS as u64).unwrap_or(0);
        locked(&self.shards[index])
    }
}

impl Meter {
    /// Notes that the bytes go from socket to socket, because both ends are in this process.
    pub fn same_node(&self) {
        self.0.same_node.store(true, Ordering::Relaxed);
    }

    /// Bytes that went from the initiator towards the target.
    pub fn request_bytes(&self, count: u64) {
        self.0.cells.request.fetch_add(count, Ordering::Relaxed);
    }

    /// Bytes that went back.
    pub fn response_bytes(&self, count: u64) {
        self.0.cells.response.fetch_add(count, Ordering::Relaxed);
    }
}

impl Live {
    /// Counts for this connection.
    pub fn meter(&self) -> Meter {
        Meter(Arc::clone(&self.entry))
    }

    /// Bytes that went from the initiator towards the target.
    pub fn request_bytes(&self, count: u64) {
        self.entry.cells.request.fetch_add(count, Ordering::Relaxed);
    }

    /// Bytes that went back.
    pub fn response_bytes(&self, count: u64) {
        self.entry.cells.response.fetch_add(count, Ordering::Relaxed);
    }

    /// Records the end.
    pub fn finish(mut self, result: Result<(), Failure>) {
        self.end(result.err().as_ref());
    }

    fn end(&mut self, failure: Option<&Failure>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let Entry { id, connection, opened_at, cells, same_node, .. } = &*self.entry;
        let inner = &*self.report.inner;
        inner.shard(*id).remove(id);
        self.series.settle(*id);
        match failure {
            None => self.series.close(false),
            Some(failure) => {
                inner.metrics.failed(failure.reason, connection.direction);
                let flag = match failure.reason.flag() {
                    // Once opened, what has no class of its own counts as the far side's fault
                    // (spec operations 7, `response_flags`).
                    ResponseFlag::None => ResponseFlag::Connect,
                    flag => flag,
                };
                inner.metrics.series(connection, flag).close(true);
            }
        }
        let path = same_node.load(Ordering::Relaxed).then_some(accesslog::SAME_NODE);
        if path.is_some() {
            inner.metrics.same_node(connection.direction);
        }
        let bytes = (cells.request.load(Ordering::Relaxed), cells.response.load(Ordering::Relaxed));
        let duration = inner.clock.monotonic().saturating_duration_since(*opened_at);
        accesslog::finished(connection, bytes, duration, path, failure);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let reason = if std::thread::panicking() { Reason::Panic } else { Reason::DrainDeadline };
        self.end(Some(&reason.into()));
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.metrics.sockets(self.direction, -1);
    }
}

impl PodConnections {
    /// How many there are, listed or not.
    pub fn count(&self) -> usize {
        self.inbound.len() + self.outbound.len() + self.omitted
    }

    fn list(&mut self, connection: &Connection) {
        let list = match connection.direction {
            Direction::Inbound => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        };
        if list.len() < LISTED_MAX {
            list.push(connection.clone());
        } else {
            self.omitted += 1;
        }
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
