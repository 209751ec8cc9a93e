//! Journey 1: a connection that a pod opened, on its way to the wire (spec hbone 8).

use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::accept::Accepted;
use super::connections::Connection;
use super::pipe::{self, Around, Carried};
use super::pod::Pod;
use super::room::Room;
use super::same_node::{Ends, Taken};
use super::tunnel::{First, Stream, TunnelKey};
use super::{dial, double, headers, hello, lookup, refusal};
use crate::decide::{self, Outbound, Refusal, Route, TunnelRoute};
use crate::model::{ClientAddr, Hop, OrigDst, Service, Snapshot, Workload};
use crate::report::{Connection as Described, Direction, Early, Failure, Live, Side, Transport};
use crate::sys::socket;
use crate::wire::traceparent::TraceParent;

/// A captured connection whose way is known.
#[derive(Debug)]
pub(super) struct Routed {
    source: Arc<Workload>,
    client: ClientAddr,
    destination: OrigDst,
    route: Route,
}

/// The leg away from the pod.
enum Leg {
    Plain(TcpStream),
    Tunnel(Stream),
    /// The far end is in this process.
    SameNode(Stream, Box<Taken>),
}

impl Leg {
    fn through(stream: Stream, first: &mut First<'_>) -> Self {
        match first.met() {
            Some(taken) => Self::SameNode(stream, Box::new(taken)),
            None => Self::Tunnel(stream),
        }
    }

    /// Boxed: a connection is to be as large as what it does, not as the largest thing it could.
    fn carry<'a>(self, socket: TcpStream, around: &'a Around<'_>) -> Carried<'a> {
        match self {
            Self::Plain(far) => Box::pin(pipe::plain(socket, far, around)),
            Self::Tunnel(stream) => Box::pin(pipe::tunnel(socket, stream, around)),
            Self::SameNode(stream, taken) => {
                Box::pin(pipe::same_node(socket, stream, *taken, around))
            }
        }
    }
}

/// What it takes to reach a tunnel's far end for one connection.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) room: &'a Rc<Room>,
    pub(super) pod: &'a Arc<Pod>,
    pub(super) source: &'a Workload,
}

/// Serves one captured connection from its first byte to its last.
pub(super) async fn serve(accepted: Box<Accepted>, connection: Connection, room: Rc<Room>) {
    let Accepted { socket, pod, client, local, guards, routed: foreseen, .. } = accepted.unboxed();
    let _guards = guards;
    // What is over before the first byte is boxed, so that a connection which lives long is small.
    let asked = (client, OrigDst(local));
    let first = First::new(&socket);
    let opening = Box::pin(open(asked, foreseen, (&room, &pod), (&connection, first)));
    let Some((live, leg)) = opening.await else {
        let _ = socket::reset_on_close(&socket);
        return;
    };
    let around = Around {
        connection: &connection,
        buffers: &room.buffers,
        live: &live,
        direction: Direction::Outbound,
    };
    let result = leg.carry(socket, &around).await;
    live.finish(result);
}

/// Everything up to the first byte. What fails has been reported.
async fn open(
    (client, destination): (ClientAddr, OrigDst),
    foreseen: Option<Box<Routed>>,
    (room, pod): (&Rc<Room>, &Arc<Pod>),
    (connection, mut first): (&Connection, First<'_>),
) -> Option<(Live, Leg)> {
    let report = &room.shared.report;
    let prepared = async {
        if let Some(foreseen) = foreseen {
            return Ok(foreseen);
        }
        let source = pod.workload(&room.shared).await?;
        let routed = lookup::decided(&room.shared, |snapshot| {
            routed(room, snapshot, &source, (client, destination))
        });
        let routed = routed.await.map_err(|refusal| refusal::from_route(&refusal))?;
        Ok(Box::new(routed))
    };
    let routed = match until_cut(connection, prepared).await {
        Ok(routed) => routed,
        Err(failure) => {
            let (source, destination) = (client.0, destination.0);
            report.refused(Early { direction: Direction::Outbound, source, destination }, &failure);
            return None;
        }
    };
    let traceparent = {
        let mut rng = room.rng.borrow_mut();
        TraceParent::new(rng.u128(1..), rng.u64(1..))
    };
    let mut described = describe(&routed, pod, traceparent);
    let way = Way { room, pod, source: &routed.source };
    let spoken = |route| headers::spoken(&routed.source, routed.client, route, traceparent);
    let (live, leg) = match &routed.route {
        Route::Passthrough { hop, .. } => {
            let live = report.opened(&pod.spec.uid, described);
            let leg = until_cut(connection, dial::as_it_is(room, pod, *hop)).await;
            (live, leg.map(Leg::Plain))
        }
        Route::Tunnel(route) => {
            let live = report.opened(&pod.spec.uid, described);
            if let Some(meetings) = room.shared.meetings.as_ref().filter(|_| is_near(&routed)) {
                first = First::near(meetings);
            }
            let leg = until_cut(connection, through(route, way, &spoken(route), &mut first)).await;
            (live, leg.map(|stream| Leg::through(stream, &mut first)))
        }
        Route::DoubleTunnel { outer, inner_expected } => {
            let opened = double::open((outer, inner_expected), way, &mut first, spoken(outer));
            let opened = until_cut(connection, opened).await;
            // Only the inner answer tells who is at the far end (spec operations 7).
            let leg = opened.map(|(far, stream)| {
                far.put_into(&mut described.destination);
                Leg::Tunnel(stream)
            });
            (report.opened(&pod.spec.uid, described), leg)
        }
    };
    match leg {
        Ok(leg) => {
            live.request_bytes(first.said().len() as u64);
            Some((live, leg))
        }
        Err(failure) => {
            live.finish(Err(failure));
            None
        }
    }
}

/// Opens a stream through the tunnel of a route, which others may share.
pub(super) async fn through(
    route: &TunnelRoute,
    Way { room, pod, source }: Way<'_>,
    spoken: &headers::Spoken,
    first: &mut First<'_>,
) -> Result<Stream, Failure> {
    let key = key(route, source, pod);
    let request = || headers::connect(&route.authority, spoken);
    let dial = || {
        let (room, pod, key) = (Rc::clone(room), Arc::clone(pod), key.clone());
        async move {
            let shared = &room.shared;
            // The certificate first: without one there is no reason to knock.
            let tls = pod.client_tls(shared, &key.source, &key.expected).await?;
            let socket = dial::for_tunnel(&room, &pod, key.hop).await?;
            let ends = shared.meetings.as_ref().and_then(|_| Ends::dialled(&socket));
            let (limit, report) = (shared.dial_limit(), &shared.report);
            let (mut secured, _) = hello::connect(socket, tls, limit, report).await?;
            secured.id = ends.and_then(|ends| ends.under(&secured.keys));
            Ok(secured)
        }
    };
    let (_answer, stream) = room.pool.open(&key, request, first, dial).await?;
    Ok(stream)
}

/// Whether the far end is a pod of this node, and may so be in this process.
fn is_near(routed: &Routed) -> bool {
    let Route::Tunnel(route) = &routed.route else { return false };
    !routed.source.node.is_empty() && routed.source.node == route.destination.node
}

/// What two connections must have in common to share a tunnel.
fn key(tunnel: &TunnelRoute, source: &Workload, pod: &Pod) -> TunnelKey {
    TunnelKey {
        pod: pod.id,
        source: pod.identity(source),
        hop: tunnel.hop,
        expected: tunnel.expected.clone(),
    }
}

/// The way of a captured connection, if it can be told without waiting.
pub(super) fn foresee(
    room: &Room,
    pod: &Pod,
    client: ClientAddr,
    destination: OrigDst,
) -> Option<Box<Routed>> {
    let snapshot = room.shared.view.load();
    let source = Arc::clone(pod.find(&room.shared, &snapshot)?);
    // A refusal is found again, and reported, by the worker that serves the connection.
    routed(room, &snapshot, &source, (client, destination)).ok().map(Box::new)
}

fn routed(
    room: &Room,
    snapshot: &Snapshot,
    source: &Arc<Workload>,
    (client, destination): (ClientAddr, OrigDst),
) -> Result<Routed, Refusal> {
    let facts = Outbound { source, network: &room.shared.network, client, destination };
    let route = decide::route(snapshot, &facts, &mut room.rng.borrow_mut())?;
    Ok(Routed { source: Arc::clone(source), client, destination, route })
}

impl Routed {
    /// The tunnel that it will use, if it will use one.
    pub(super) fn tunnel_key(&self, pod: &Pod) -> Option<TunnelKey> {
        match &self.route {
            Route::Tunnel(route) | Route::DoubleTunnel { outer: route, .. } => {
                Some(key(route, &self.source, pod))
            }
            Route::Passthrough { .. } => None,
        }
    }
}

/// Waits for something as long as the connection may live.
pub(super) async fn until_cut<T>(
    connection: &Connection,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        failure = connection.cut() => Err(failure),
        result = work => result,
    }
}

fn describe(routed: &Routed, pod: &Pod, trace: TraceParent) -> Described {
    let plain = |hop: &Hop, workload: &Option<Arc<Workload>>| {
        (Transport::Plaintext, hop.0, workload.clone(), None, None)
    };
    let tunnel = |transport, tunnel: &TunnelRoute| {
        let identity = Some(tunnel.destination.identity());
        let workload = Some(Arc::clone(&tunnel.destination));
        (transport, tunnel.hop.0, workload, identity, Some(tunnel.authority.clone()))
    };
    let service: Option<Arc<Service>>;
    let (transport, addr, workload, identity, authority) = match &routed.route {
        Route::Passthrough { hop, destination, service: meant } => {
            service = meant.clone();
            plain(hop, destination)
        }
        Route::Tunnel(route) => {
            service = route.service.clone();
            tunnel(Transport::Hbone, route)
        }
        Route::DoubleTunnel { outer, .. } => {
            service = outer.service.clone();
            tunnel(Transport::DoubleHbone, outer)
        }
    };
    let mutual = transport != Transport::Plaintext;
    Described {
        direction: Direction::Outbound,
        transport,
        source: Side {
            addr: routed.client.0,
            workload: Some(Arc::clone(&routed.source)),
            claimed: None,
            identity: mutual.then(|| pod.identity(&routed.source)),
        },
        destination: Side { addr, workload, claimed: None, identity },
        authority,
        service,
        original_destination: Some(Arc::from(routed.destination.0.to_string())),
        trace_id: Some(trace.trace_id),
    }
}
