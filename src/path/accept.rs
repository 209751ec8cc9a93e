//! The first room: accept, count, give the connection to the worker that will keep it.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::budget::Place;
use super::outbound::{self, Routed};
use super::pod::Pod;
use super::room::Room;
use super::worker::Crew;
use crate::model::{ClientAddr, OrigDst, canonical};
use crate::report::{Direction, Early, Failure, Reason, SocketGuard};
use crate::sys::socket;

/// Connections one listener accepts before it lets others have the worker.
const BATCH_MAX: usize = 32;

/// Which of a pod's listeners a connection came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entrance {
    /// 15001: the pod opened it.
    Outbound,
    /// 15006: for the pod, in plain text.
    Plaintext,
    /// 15008: a tunnel.
    Hbone,
}

/// An accepted connection: on the worker that keeps it, or with a bare socket on its way there.
#[derive(Debug)]
pub(super) struct Accepted<S = TcpStream> {
    pub(super) socket: S,
    pub(super) entrance: Entrance,
    pub(super) pod: Arc<Pod>,
    pub(super) client: ClientAddr,
    /// The original destination; for a tunnel the address it was accepted on.
    pub(super) local: SocketAddr,
    /// Its places in the budgets of the node and of the pod, and in the gauge.
    pub(super) guards: (Place, Place, SocketGuard),
    pub(super) at: Instant,
    /// Its way, if it could be told while it was being placed.
    pub(super) routed: Option<Box<Routed>>,
}

impl Entrance {
    pub(super) fn direction(self) -> Direction {
        match self {
            Self::Outbound => Direction::Outbound,
            Self::Plaintext | Self::Hbone => Direction::Inbound,
        }
    }
}

/// Accepts until it is to close, or the task is ended. An accept that fails for lack of resources
/// is followed by a pause, because the queue is still there and asking again at once would only
/// spin.
pub(super) async fn listen(
    listener: StdTcpListener,
    entrance: Entrance,
    pod: Arc<Pod>,
    (room, crew): (Rc<Room>, Rc<Crew>),
    mut closing: watch::Receiver<bool>,
) {
    // Not once more for each connection: they are as their listener is.
    let _ = socket::tune(&listener, &room.shared.liveness());
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(pod = %pod.spec.name, ?entrance, %error, "cannot listen");
            return;
        }
    };
    let pause = Duration::from_millis(room.shared.limits.accept_backoff_ms);
    loop {
        let taken = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => break,
            taken = batch(&listener, entrance, &pod, (&room, &crew)) => taken,
        };
        match taken {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) if is_about_the_client(&error) => {}
            Err(error) => {
                tracing::warn!(pod = %pod.spec.name, ?entrance, %error, "cannot accept");
                tokio::time::sleep(pause).await;
            }
        }
    }
    if let Err(error) = rest(listener, entrance, &pod, (&room, &crew)) {
        tracing::warn!(pod = %pod.spec.name, ?entrance, %error, "connections may be lost");
    }
}

/// Takes what is in the queue, whose clients were told that they are connected: closing the
/// listener would reset them.
fn rest(
    listener: TcpListener,
    entrance: Entrance,
    pod: &Arc<Pod>,
    (room, crew): (&Rc<Room>, &Rc<Crew>),
) -> io::Result<()> {
    let listener = listener.into_std()?;
    loop {
        match listener.accept() {
            Ok((socket, peer)) => {
                socket.set_nonblocking(true)?;
                let socket = TcpStream::from_std(socket)?;
                take(socket, peer, (entrance, pod), (room, crew));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if is_about_the_client(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

async fn batch(
    listener: &TcpListener,
    entrance: Entrance,
    pod: &Arc<Pod>,
    (room, crew): (&Rc<Room>, &Rc<Crew>),
) -> io::Result<()> {
    let (socket, peer) = listener.accept().await?;
    take(socket, peer, (entrance, pod), (room, crew));
    for _ in 1..BATCH_MAX {
        let more = poll_fn(|cx| match listener.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending => Poll::Ready(None),
        });
        let Some(accepted) = more.await else { return Ok(()) };
        let (socket, peer) = accepted?;
        take(socket, peer, (entrance, pod), (room, crew));
    }
    Ok(())
}

fn take(
    socket: TcpStream,
    peer: SocketAddr,
    (entrance, pod): (Entrance, &Arc<Pod>),
    (room, crew): (&Rc<Room>, &Rc<Crew>),
) {
    let client = ClientAddr(canonical(peer));
    let here = socket.local_addr().unwrap_or(client.0);
    let local = canonical(match entrance {
        Entrance::Hbone => here,
        _ => socket::original_destination(&socket, here).unwrap_or(here),
    });
    let shared = &room.shared;
    let (Some(node), Some(own)) = (shared.connections.take(), pod.connections.take()) else {
        return refuse(&socket, (entrance, client, local), Reason::TooManyConnections, room);
    };
    let guards = (node, own, shared.report.socket(entrance.direction()));
    let at = shared.clock.monotonic();
    // One worker has nothing to choose from.
    let routed = (entrance == Entrance::Outbound && crew.len() > 1)
        .then(|| outbound::foresee(room, pod, client, OrigDst(local)))
        .flatten();
    let key = routed.as_ref().and_then(|routed| routed.tunnel_key(pod));
    let pod = Arc::clone(pod);
    let accepted = Accepted { socket, entrance, pod, client, local, guards, at, routed };
    crew.place(accepted, key, room);
}

fn refuse(
    socket: &TcpStream,
    (entrance, client, local): (Entrance, ClientAddr, SocketAddr),
    reason: Reason,
    room: &Room,
) {
    let early = Early { direction: entrance.direction(), source: client.0, destination: local };
    room.shared.report.refused(early, &Failure::from(reason));
    let _ = socket::reset_on_close(socket);
}

impl Accepted {
    /// Out of its box, which is freed: one that was only looked into lives as long as its name.
    #[expect(clippy::boxed_local, reason = "it is there to end the box")]
    pub(super) fn unboxed(self: Box<Self>) -> Self {
        *self
    }

    /// Turns the connection away.
    pub(super) fn refuse(self, reason: Reason, room: &Room) {
        refuse(&self.socket, (self.entrance, self.client, self.local), reason, room);
    }

    /// Takes the socket from this worker's reactor, so that another one can keep it.
    pub(super) fn detach(self) -> io::Result<Accepted<StdTcpStream>> {
        self.with_socket(TcpStream::into_std)
    }
}

impl Accepted<StdTcpStream> {
    /// Gives the socket to this worker's reactor.
    pub(super) fn attach(self) -> io::Result<Accepted> {
        self.with_socket(TcpStream::from_std)
    }
}

impl<S> Accepted<S> {
    fn with_socket<T>(self, change: impl FnOnce(S) -> io::Result<T>) -> io::Result<Accepted<T>> {
        let Self { socket, entrance, pod, client, local, guards, at, routed } = self;
        let socket = change(socket)?;
        Ok(Accepted { socket, entrance, pod, client, local, guards, at, routed })
    }
}

/// Errors of one connection that died in the queue, not of the listener.
fn is_about_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | PermissionDenied)
}
