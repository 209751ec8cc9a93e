//! The pods that this process serves: how they come and go.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::budget::{Budget, Turns};
use super::pod::Pod;
use super::room::Shared;
use super::tunnel::Ledger;
use super::worker::{self, Message, Worker};
use crate::config::{Config, SameNode};
use crate::creds::Credentials;
use crate::model::{PodName, View};
use crate::report::Report;
use crate::sys::clock::Clock;
use crate::sys::netns::Netns;
use crate::sys::opener::Opener;

/// How long the workers may take to end after the drain.
const END_MAX: Duration = Duration::from_secs(2);

/// A pod to serve.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// Kubernetes pod uid.
    pub uid: Arc<str>,
    /// What the agent calls it.
    pub name: PodName,
    /// Its network namespace; `None` is the proxy's own (dedicated mode).
    pub netns: Option<Netns>,
}

/// Why a pod cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError(pub String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the data path is given: handles to the other rooms.
#[derive(Clone, Debug)]
pub struct Handles {
    /// The mesh.
    pub view: View,
    /// Certificates.
    pub credentials: Credentials,
    /// Where outcomes go.
    pub report: Report,
    /// The thread that makes sockets in pods.
    pub opener: Opener,
    /// Time.
    pub clock: Clock,
}

/// The handle through which pods are started and stopped. Cloning one is cheap.
#[derive(Clone, Debug)]
pub struct PodHost {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    pods: Mutex<HashMap<Arc<str>, Arc<Pod>>>,
    next: AtomicU64,
}

impl PodHost {
    /// Starts the workers; no pod is served yet.
    pub fn new(config: &Config, handles: Handles) -> io::Result<Self> {
        let Handles { view, credentials, report, opener, clock } = handles;
        let shared = Arc::new(Shared {
            view,
            credentials,
            report,
            opener,
            clock,
            config: config.data_path.clone(),
            limits: config.limits,
            network: Arc::clone(&config.node.network),
            node: config.node.node_name.clone(),
            policy_decisions_at_info: config.log.policy_decisions_at_info,
            connections: Budget::new(config.limits.connections),
            handshakes: Turns::new(config.limits.handshakes),
            ledger: Ledger::new(config.limits.granted_bytes),
            meetings: (config.data_path.same_node == SameNode::Direct).then(Arc::default),
        });
        let (workers, threads) = worker::start(&shared, config.workers)?;
        let inner = Inner {
            shared,
            workers,
            threads: Mutex::new(threads),
            pods: Mutex::default(),
            next: AtomicU64::new(1),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Opens the pod's listeners and starts to serve it. Done when the sockets are bound.
    pub async fn start(&self, spec: PodSpec) -> Result<(), StartError> {
        let inner = &self.inner;
        let listeners = inner.shared.opener.listen(spec.netns.clone()).await;
        let listeners = listeners.map_err(|error| StartError(error.to_string()))?;
        // A pod that is started again replaces the one before it.
        self.stop(&spec.uid).await;
        let id = inner.next.fetch_add(1, Ordering::Relaxed);
        let uid = Arc::clone(&spec.uid);
        let pod = Arc::new(Pod::new(id, spec, listeners.transparent, &inner.shared));
        inner.pods.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, Arc::clone(&pod));
        let turn = usize::try_from(id).unwrap_or(0) % inner.workers.len();
        inner.workers[turn].tell(Message::Serve { pod, listeners }).await;
        Ok(())
    }

    /// Cuts the pod's listeners and connections at once. Unknown uids are fine.
    pub async fn stop(&self, uid: &str) {
        let inner = &self.inner;
        let pod = inner.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        let Some(pod) = pod else { return };
        pod.leave();
        for worker in &inner.workers {
            let (done, told) = oneshot::channel();
            worker.tell(Message::Stop { pod: pod.id, done }).await;
            let _ = told.await;
        }
    }

    /// Takes nothing new, lets connections finish for at most `deadline`, then cuts what is left
    /// and ends the workers.
    pub async fn drain(&self, deadline: Duration) {
        let all = async {
            self.ask_all(|closed| Message::Close { closed }).await;
            self.ask_all(|empty| Message::Finish { empty }).await;
        };
        if timeout(deadline, all).await.is_err() {
            tracing::warn!("connections are left at the end of the drain; they are cut");
        }
        for worker in &self.inner.workers {
            worker.tell(Message::End).await;
        }
        let threads =
            std::mem::take(&mut *self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        let _ = timeout(END_MAX, joined).await;
    }

    /// Asks every worker for something, and waits until all have answered.
    async fn ask_all(&self, message: impl Fn(oneshot::Sender<()>) -> Message) {
        let mut answers = Vec::new();
        for worker in &self.inner.workers {
            let (answer, told) = oneshot::channel();
            worker.tell(message(answer)).await;
            answers.push(told);
        }
        for told in answers {
            // A worker that has ended has nothing left.
            let _ = told.await;
        }
    }

    /// Uids of the pods that are served.
    pub fn pods(&self) -> Vec<Arc<str>> {
        let pods = self.inner.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.keys().cloned().collect()
    }
}
