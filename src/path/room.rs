//! What one worker has to hand when it serves a connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::budget::{Budget, Turns};
use super::buffers::Buffers;
use super::connections::Connections;
use super::same_node::Meetings;
use super::stock::Stock;
use super::tunnel::{Ledger, Pool, Settings};
use crate::config::{DataPathConfig, Limits};
use crate::creds::Credentials;
use crate::model::View;
use crate::report::Report;
use crate::sys::clock::Clock;
use crate::sys::opener::Opener;
use crate::sys::socket::Liveness;

/// What all workers share: handles, and settings that never change.
#[derive(Debug)]
pub(super) struct Shared {
    /// The mesh.
    pub(super) view: View,
    /// Certificates.
    pub(super) credentials: Credentials,
    /// Where outcomes go.
    pub(super) report: Report,
    /// The thread that makes sockets in pods.
    pub(super) opener: Opener,
    /// Time.
    pub(super) clock: Clock,
    /// Sockets, tunnels and pools.
    pub(super) config: DataPathConfig,
    /// Every bound.
    pub(super) limits: Limits,
    /// Own network.
    pub(super) network: Arc<str>,
    /// Own node, if it matters which workloads are local.
    pub(super) node: Option<Arc<str>>,
    /// Policy decisions at INFO instead of DEBUG.
    pub(super) policy_decisions_at_info: bool,
    pub(super) connections: Budget,
    pub(super) handshakes: Turns,
    /// What peers may still send.
    pub(super) ledger: Arc<Ledger>,
    /// Where the two ends of a stream find each other, if its bytes may leave it out.
    pub(super) meetings: Option<Arc<Meetings>>,
}

/// One worker's own things. Everything here lives on one thread.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) shared: Arc<Shared>,
    pub(super) buffers: Rc<Buffers>,
    pub(super) pool: Rc<Pool>,
    pub(super) tunnels: Settings,
    pub(super) stock: Stock,
    pub(super) connections: Rc<Connections>,
    pub(super) rng: RefCell<fastrand::Rng>,
    pub(super) tasks: Tasks,
}

/// The tasks a worker runs: joined, so that nothing is spawned and forgotten.
#[derive(Clone, Debug, Default)]
pub(super) struct Tasks(Rc<RefCell<JoinSet<()>>>);

impl Shared {
    pub(super) fn liveness(&self) -> Liveness {
        Liveness {
            keepalive: self.config.keepalive.map(|k| (k.idle, k.interval, k.retries)),
            user_timeout: self.config.user_timeout,
        }
    }

    pub(super) fn dial_limit(&self) -> Duration {
        Duration::from_millis(self.limits.dial_ms)
    }
}

impl Room {
    pub(super) fn new(shared: Arc<Shared>, seed: u64) -> Rc<Self> {
        let tasks = Tasks::default();
        let buffers = Rc::default();
        let (config, lent) = (&shared.config, (&buffers, &shared.ledger));
        let tunnels = Settings::new(config, &shared.limits, lent, &shared.clock);
        let pool = Pool::new(config, tunnels.clone(), tasks.clone());
        Rc::new(Self {
            buffers,
            pool: Rc::new(pool),
            tunnels,
            stock: Stock::default(),
            connections: Rc::default(),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            tasks,
            shared,
        })
    }
}

impl Tasks {
    /// Runs a task on this worker.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().spawn_local(task);
    }

    /// Forgets finished tasks; how many of them had panicked. A panic ends its own task only.
    pub(super) fn reap(&self) -> u64 {
        let mut tasks = self.0.borrow_mut();
        let mut panics = 0;
        while let Some(ended) = tasks.try_join_next() {
            panics += u64::from(ended.is_err_and(|error| error.is_panic()));
        }
        panics
    }

    /// Ends every task.
    pub(super) fn abort_all(&self) {
        self.0.borrow_mut().abort_all();
    }
}
