//! One worker: a thread, a runtime, and the connections that live and die there.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep_until};

use super::accept::{self, Accepted, Entrance};
use super::placement::{Load, Loaded, Placement};
use super::pod::Pod;
use super::room::{Room, Shared};
use super::tunnel::TunnelKey;
use super::{inbound, outbound, passthrough};
use crate::report::{Failure, Reason};
use crate::sys::opener::Listeners;

/// Messages that may wait for one worker; a connection that finds no room stays where it is.
const MESSAGES_MAX: usize = 4_096;
/// How often finished tasks are looked at for panics.
const REAP_INTERVAL: Duration = Duration::from_secs(1);
/// How long tasks may take to say goodbye after everything was cut.
const GOODBYE: Duration = Duration::from_millis(500);

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Serve a pod's listeners.
    Serve { pod: Arc<Pod>, listeners: Listeners },
    /// Keep a connection that another worker accepted. It counts here from when that was decided.
    Keep(Box<Accepted<StdTcpStream>>, Loaded),
    /// End everything of a pod.
    Stop { pod: u64, done: oneshot::Sender<()> },
    /// Take nothing new and hand nothing over; answer when that is so.
    Close { closed: oneshot::Sender<()> },
    /// Answer when nothing is left. What others handed over before they closed came before this.
    Finish { empty: oneshot::Sender<()> },
    /// End everything and the thread.
    End,
}

/// The handle to one worker.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    messages: mpsc::Sender<Message>,
    load: Load,
}

/// All workers, as one of them sees them.
#[derive(Debug)]
pub(super) struct Crew {
    workers: Vec<Worker>,
    me: usize,
    placement: Placement,
}

impl Worker {
    pub(super) async fn tell(&self, message: Message) {
        // A worker that has ended has nothing left to do.
        let _ = self.messages.send(message).await;
    }
}

/// Starts the workers, one thread each.
pub(super) fn start(
    shared: &Arc<Shared>,
    count: usize,
) -> io::Result<(Vec<Worker>, Vec<JoinHandle<()>>)> {
    let channels: Vec<_> = (0..count.max(1)).map(|_| mpsc::channel(MESSAGES_MAX)).collect();
    let workers: Vec<Worker> = channels
        .iter()
        .map(|(messages, _)| Worker { messages: messages.clone(), load: Load::default() })
        .collect();
    let mut threads = Vec::new();
    for (me, (_, inbox)) in channels.into_iter().enumerate() {
        let (shared, workers) = (Arc::clone(shared), workers.clone());
        let thread = thread::Builder::new().name(format!("adit-worker-{me}")).spawn(move || {
            let runtime =
                Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(run(shared, workers, me, inbox)),
                Err(error) => tracing::error!(%error, "a worker cannot start"),
            }
        })?;
        threads.push(thread);
    }
    Ok((workers, threads))
}

async fn run(
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    me: usize,
    mut inbox: mpsc::Receiver<Message>,
) {
    let room = Room::new(shared, fastrand::u64(..));
    let crew = Rc::new(Crew { workers, me, placement: Placement::default() });
    crew.workers[me].load.measure();
    let mut pods: HashMap<u64, Served> = HashMap::new();
    let (close, closing) = watch::channel(false);
    let watch = Rc::clone(&room);
    room.tasks.spawn(async move { redecide(&watch).await });
    let mut reap = interval(REAP_INTERVAL);
    loop {
        let message = tokio::select! {
            biased;
            message = inbox.recv() => message,
            _ = reap.tick() => {
                room.stock.clear_unused();
                let panics = room.tasks.reap();
                room.shared.report.panicked(panics);
                continue;
            }
        };
        match message {
            Some(Message::Serve { pod, listeners }) => {
                let id = pod.id;
                pods.insert(id, serve(pod, listeners, (&room, &crew), &closing));
            }
            Some(Message::Keep(accepted, load)) => crew.receive(*accepted, load, &room),
            Some(Message::Stop { pod, done }) => {
                stop(pod, pods.remove(&pod), (&room, &crew)).await;
                let _ = done.send(());
            }
            Some(Message::Close { closed }) => {
                room.connections.drain();
                close.send_replace(true);
                let mut pods = std::mem::take(&mut pods);
                room.tasks.spawn(async move {
                    for pod in pods.values_mut() {
                        while pod.listeners.join_next().await.is_some() {}
                    }
                    let _ = closed.send(());
                });
            }
            Some(Message::Finish { empty }) => {
                let connections = Rc::clone(&room.connections);
                room.tasks.spawn(async move {
                    connections.empty().await;
                    let _ = empty.send(());
                });
            }
            Some(Message::End) | None => break,
        }
    }
    drop(pods);
    room.connections.cut_all(&Failure::from(Reason::DrainDeadline));
    room.pool.close();
    let goodbye = tokio::time::timeout(GOODBYE, room.connections.empty());
    if goodbye.await.is_err() {
        room.tasks.abort_all();
    }
    // One more turn, so that what was queued in the tunnels reaches the kernel.
    tokio::task::yield_now().await;
}

/// What runs for a pod; ends when dropped.
struct Served {
    listeners: JoinSet<()>,
    _certificate: JoinSet<()>,
}

fn serve(
    pod: Arc<Pod>,
    listeners: Listeners,
    (room, crew): (&Rc<Room>, &Rc<Crew>),
    closing: &watch::Receiver<bool>,
) -> Served {
    let mut tasks = JoinSet::new();
    let Listeners { outbound, plaintext, hbone, .. } = listeners;
    let entrances = [
        (outbound, Entrance::Outbound),
        (plaintext, Entrance::Plaintext),
        (hbone, Entrance::Hbone),
    ];
    for (listener, entrance) in entrances {
        let (pod, place) = (Arc::clone(&pod), (Rc::clone(room), Rc::clone(crew)));
        tasks.spawn_local(accept::listen(listener, entrance, pod, place, closing.clone()));
    }
    let shared = Arc::clone(&room.shared);
    let mut certificate = JoinSet::new();
    certificate.spawn_local(async move { pod.hold_certificate(&shared).await });
    Served { listeners: tasks, _certificate: certificate }
}

/// Ends everything of a pod. Whoever is answered then finds its listeners closed.
async fn stop(pod: u64, served: Option<Served>, (room, crew): (&Room, &Crew)) {
    if let Some(mut served) = served {
        served.listeners.shutdown().await;
    }
    crew.placement.forget(pod);
    room.pool.close_pod(pod);
    room.stock.forget(pod);
    room.connections.cut_pod(pod, &Failure::from(Reason::PodRemoved));
}

/// Decides every open session again whenever the configuration changes (promise S1).
pub(super) async fn redecide(room: &Room) {
    let mut view = room.shared.view.clone();
    let patience = Duration::from_millis(room.shared.limits.policy_wait_ms);
    let mut again: Option<Instant> = None;
    loop {
        let due = async {
            match again {
                Some(due) => sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = view.changed() => if !changed { return },
            () = due => {}
        }
        let now = room.shared.clock.monotonic();
        again = room.connections.sweep(&view.load(), now, patience);
    }
}

impl Crew {
    /// How many workers there are.
    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    /// Gives a connection to the worker that has its tunnel, else to the least busy one.
    pub(super) fn place(&self, accepted: Accepted, key: Option<TunnelKey>, room: &Rc<Room>) {
        let here = || self.workers[self.me].load.add();
        if room.connections.is_draining() {
            // The others may be finishing already.
            return self.keep(accepted, here(), room);
        }
        let loads = self.workers.iter().map(|worker| &worker.load);
        let chosen = self.placement.choose(key, loads, self.me, accepted.at);
        if chosen == self.me {
            return self.keep(accepted, here(), room);
        }
        let worker = &self.workers[chosen];
        // A worker whose inbox is full is busier than it looked: then the connection stays here.
        match worker.messages.try_reserve() {
            Ok(place) => match accepted.detach() {
                Ok(accepted) => place.send(Message::Keep(Box::new(accepted), worker.load.add())),
                Err(error) => tracing::warn!(%error, "cannot hand a socket over"),
            },
            Err(_) => self.keep(accepted, here(), room),
        }
    }

    /// Takes a connection that another worker accepted.
    fn receive(&self, accepted: Accepted<StdTcpStream>, load: Loaded, room: &Rc<Room>) {
        match accepted.attach() {
            // We may have been told to stop it while this one was on its way.
            Ok(accepted) if accepted.pod.has_left() => accepted.refuse(Reason::PodRemoved, room),
            Ok(accepted) => self.keep(accepted, load, room),
            Err(error) => tracing::warn!(%error, "cannot take a socket over"),
        }
    }

    /// Serves a connection here. It is entered at once, so that it counts before its task runs.
    fn keep(&self, accepted: Accepted, load: Loaded, room: &Rc<Room>) {
        let connection = room.connections.enter(accepted.pod.id);
        let (accepted, here) = (Box::new(accepted), Rc::clone(room));
        match accepted.entrance {
            Entrance::Outbound => room.tasks.spawn(async move {
                outbound::serve(accepted, connection, here).await;
                drop(load);
            }),
            Entrance::Plaintext => room.tasks.spawn(async move {
                passthrough::serve(accepted, connection, here).await;
                drop(load);
            }),
            Entrance::Hbone => room.tasks.spawn(async move {
                inbound::serve(accepted, connection, here).await;
                drop(load);
            }),
        }
    }
}
