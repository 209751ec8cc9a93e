//! Journey 2: a tunnel from another node, and the streams in it (spec hbone 6).

mod describe;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::accept::Accepted;
use super::budget::Place;
use super::connections::Connection;
use super::outbound::until_cut;
use super::pipe::{self, Around, Carried};
use super::pod::Pod;
use super::room::Room;
use super::same_node::{Ends, Offered};
use super::tunnel::server::{Incoming, Server};
use super::tunnel::{Stream, StreamError};
use super::{dial, headers, hello, lookup, refusal, session};
use crate::creds::ServerTls;
use crate::decide::{self, Client, Delivery, Facts};
use crate::model::{ClientAddr, PodIp, VerifiedPeer, Workload};
use crate::report::{Direction, Early, Failure, Live, Reason, SocketGuard};
use crate::wire::authority::Authority;
use crate::wire::baggage::Baggage;
use crate::wire::traceparent::TraceParent;
use crate::wire::{forwarded, proxy_header};
use describe::describe;

/// What all streams of one tunnel have in common.
struct Tunnel {
    room: Rc<Room>,
    pod: Arc<Pod>,
    peer: VerifiedPeer,
    client: ClientAddr,
    local: SocketAddr,
    // Held until the last stream is done.
    _guards: (Place, Place, SocketGuard),
}

/// Serves one connection to 15008 from its first byte to its last.
pub(super) async fn serve(accepted: Box<Accepted>, connection: Connection, room: Rc<Room>) {
    let (client, local) = (accepted.client, accepted.local);
    let report = room.shared.report.clone();
    let result = tunnel(accepted, room, &connection).await;
    if let Err(failure) = result {
        let early = Early { direction: Direction::Inbound, source: client.0, destination: local };
        report.refused(early, &failure);
    }
}

async fn tunnel(
    accepted: Box<Accepted>,
    room: Rc<Room>,
    connection: &Connection,
) -> Result<(), Failure> {
    let Accepted { socket, pod, client, local, guards, at, .. } = accepted.unboxed();
    let budget = Duration::from_millis(room.shared.limits.first_connect_ms);
    // Waiting for our own record and certificate is not the peer's fault.
    let waited_from = room.shared.clock.monotonic();
    let ready = async {
        let workload = pod.workload(&room.shared).await?;
        pod.server_tls(&room.shared, &pod.identity(&workload)).await
    };
    // What is over before the first CONNECT is boxed, so that a tunnel which lives long is small.
    let tls = until_cut(connection, Box::pin(ready)).await?;
    let waited = room.shared.clock.monotonic().duration_since(waited_from);
    let deadline = Instant::from_std(at) + budget + waited;
    let late = || Failure::new(Reason::FirstConnectTimeout, "no whole CONNECT in time");
    let greeted = timeout_at(deadline, greet(socket, tls, (&room, &pod)));
    let greeted = async { greeted.await.unwrap_or_else(|_| Err(late())) };
    let (server, peer) = until_cut(connection, Box::pin(greeted)).await?;
    let tunnel = Rc::new(Tunnel { room, pod, peer, client, local, _guards: guards });
    streams(server, &tunnel, connection, deadline).await
}

/// TLS, in a turn among the handshakes. Who says nothing waits at the door and takes no turn.
async fn greet(
    socket: TcpStream,
    tls: ServerTls,
    (room, pod): (&Room, &Pod),
) -> Result<(Server, VerifiedPeer), Failure> {
    let spoken = socket.peek(&mut [0]).await;
    spoken.map_err(|error| Failure::new(Reason::TlsHandshake, error))?;
    let clock = &room.shared.clock;
    let too_many = || Failure::from(Reason::TooManyHandshakes);
    let own = pod.handshakes.wait(clock).await.ok_or_else(too_many)?;
    let node = room.shared.handshakes.wait(clock).await.ok_or_else(too_many)?;
    let hello = async {
        let ends = room.shared.meetings.as_ref().and_then(|_| Ends::accepted(&socket));
        let (mut secured, peer) = hello::accept(socket, tls, &room.shared.report).await?;
        secured.id = ends.and_then(|ends| ends.under(&secured.keys));
        let server = Server::start(secured, &room.tunnels);
        Ok((server.map_err(|error| Failure::new(Reason::TlsHandshake, error))?, peer))
    };
    let given_way = || Failure::new(Reason::TooManyHandshakes, "gave way to a newer one");
    tokio::select! {
        biased;
        done = hello => done,
        () = own.lost() => Err(given_way()),
        () = node.lost() => Err(given_way()),
    }
}

/// Takes streams until the peer has gone. The first whole CONNECT must arrive by `deadline`; after
/// it the tunnel is never ended for being idle.
async fn streams(
    mut server: Server,
    tunnel: &Rc<Tunnel>,
    connection: &Connection,
    deadline: Instant,
) -> Result<(), Failure> {
    let (mut carried, mut closing) = (false, false);
    loop {
        tokio::select! {
            biased;
            failure = connection.cut() => {
                // Streams of this tunnel are being cut as well: let their resets leave.
                tokio::task::yield_now().await;
                return if carried { Ok(()) } else { Err(failure) };
            }
            () = connection.draining(), if !closing => {
                closing = true;
                server.close();
            }
            () = tokio::time::sleep_until(deadline), if !carried => {
                return Err(Failure::new(Reason::FirstConnectTimeout, "no whole CONNECT in time"));
            }
            incoming = server.next() => match incoming {
                None => return Ok(()),
                Some(Err(error @ StreamError::Violation(_))) => {
                    return Err(Failure::new(Reason::Http2, error));
                }
                Some(Err(error)) if carried => {
                    tracing::debug!(peer = %tunnel.client.0, %error, "tunnel ended");
                    return Ok(());
                }
                Some(Err(error @ StreamError::Revoked)) => {
                    return Err(Failure::new(Reason::PeerRevoked, error));
                }
                Some(Err(error)) => return Err(Failure::new(Reason::Http2, error)),
                Some(Ok(incoming)) => {
                    carried = true;
                    tunnel.room.tasks.spawn(stream(Box::new(incoming), Rc::clone(tunnel)));
                }
            },
        }
    }
}

async fn stream(incoming: Box<Incoming>, tunnel: Rc<Tunnel>) {
    let connection = tunnel.room.connections.enter(tunnel.pod.id);
    // What is over before the first byte is boxed, so that a connection which lives long is small.
    let opening = Box::pin(open(incoming, &tunnel, &connection));
    let Some((live, leg, stream)) = opening.await else { return };
    let around = Around {
        connection: &connection,
        buffers: &tunnel.room.buffers,
        live: &live,
        direction: Direction::Inbound,
    };
    let result = leg.carry(stream, &around).await;
    live.finish(result);
}

/// The leg to the application.
enum Leg {
    Application(TcpStream),
    /// It was given to the side that asks.
    SameNode(Offered),
}

impl Leg {
    /// Boxed, as on the side that asks.
    fn carry<'a>(self, stream: Stream, around: &'a Around<'_>) -> Carried<'a> {
        match self {
            Self::Application(application) => Box::pin(pipe::tunnel(application, stream, around)),
            Self::SameNode(offered) => Box::pin(pipe::offered(stream, offered, around)),
        }
    }
}

/// Everything up to the first byte. What fails has been answered and reported.
async fn open(
    mut incoming: Box<Incoming>,
    tunnel: &Tunnel,
    connection: &Connection,
) -> Option<(Live, Leg, Stream)> {
    let report = &tunnel.room.shared.report;
    let admitted = match admit(&incoming, tunnel).await {
        Ok(admitted) => admitted,
        Err((status, failure)) => {
            let early = Early {
                direction: Direction::Inbound,
                source: tunnel.client.0,
                destination: tunnel.local,
            };
            report.refused(early, &failure);
            incoming.refuse(status);
            return None;
        }
    };
    let live = report.opened(&tunnel.pod.spec.uid, describe(&admitted, tunnel));
    let permitted = permitted(&admitted, tunnel, connection);
    let permitted = tokio::select! {
        biased;
        failure = connection.cut() => Err((StatusCode::UNAUTHORIZED, failure)),
        () = incoming.abandoned() => {
            live.finish(Err(Failure::new(Reason::PeerReset, "before the answer")));
            return None;
        }
        permitted = permitted => permitted,
    };
    let application = match permitted {
        Ok(application) => application,
        Err((status, failure)) => {
            incoming.refuse(status);
            live.finish(Err(failure));
            return None;
        }
    };
    match answer(incoming, application, (&admitted, tunnel), &live) {
        Ok((leg, stream)) => Some((live, leg, stream)),
        Err(failure) => {
            live.finish(Err(failure));
            None
        }
    }
}

/// A CONNECT that is for us.
struct Admitted {
    workload: Arc<Workload>,
    authority: Authority,
    delivery: Delivery,
    host: Option<Arc<str>>,
    claimed: Option<Arc<Baggage>>,
    from_gateway: bool,
    trace: TraceParent,
}

async fn admit(incoming: &Incoming, tunnel: &Tunnel) -> Result<Admitted, (StatusCode, Failure)> {
    let head = &incoming.head;
    let shared = &tunnel.room.shared;
    let (size, limit) = (incoming.header_list(), shared.limits.server_header_list);
    if size > limit as usize {
        let failure = Failure::new(Reason::HeadersTooLarge, format!("{size} bytes"));
        return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, failure));
    }
    if head.method() != Method::CONNECT {
        let failure = Failure::new(Reason::NotConnect, head.method());
        return Err((StatusCode::BAD_REQUEST, failure));
    }
    let authority = head.uri().authority().map_or("", |authority| authority.as_str());
    let authority = authority.parse::<Authority>().map_err(|error| {
        let detail = format!("{authority:?}: {error}");
        (StatusCode::BAD_REQUEST, Failure::new(Reason::BadAuthority, detail))
    })?;
    let workload = tunnel.pod.workload(shared).await;
    let workload = workload.map_err(|failure| (StatusCode::SERVICE_UNAVAILABLE, failure))?;
    let local = PodIp(tunnel.local.ip());
    let delivery = lookup::decided(shared, |snapshot| {
        decide::admit(snapshot, &workload, local, &shared.network, &authority)
    });
    let delivery = delivery.await.map_err(|refusal| refusal::from_admission(&refusal))?;
    let malformed = |name| shared.report.metrics().malformed_header(name);
    let host = forwarded::read(headers::values(head.headers(), &headers::FORWARDED));
    let host = host.unwrap_or_else(|_| {
        malformed("forwarded");
        None
    });
    let claimed = shared
        .config
        .response_baggage
        .then(|| Baggage::parse(headers::values(head.headers(), &headers::BAGGAGE)));
    let network = head.headers().get(&headers::FORWARDED_NETWORK);
    let from_gateway = network
        .is_some_and(|network| !network.as_bytes().eq_ignore_ascii_case(shared.network.as_bytes()));
    let trace = head.headers().get(&headers::TRACEPARENT);
    let parsed = trace.map(|value| TraceParent::parse(value.as_bytes()));
    if parsed == Some(None) {
        malformed("traceparent");
    }
    let trace = parsed.flatten().unwrap_or_else(|| {
        let mut rng = tunnel.room.rng.borrow_mut();
        TraceParent::new(rng.u128(1..), rng.u64(1..))
    });
    if claimed == Some(None) && head.headers().contains_key(&headers::BAGGAGE) {
        malformed("baggage");
    }
    let claimed = claimed.flatten().map(Arc::new);
    Ok(Admitted { workload, authority, delivery, host, claimed, from_gateway, trace })
}

/// Asks for the permit and opens the leg to the application, which is told of its client.
async fn permitted(
    admitted: &Admitted,
    tunnel: &Tunnel,
    connection: &Connection,
) -> Result<TcpStream, (StatusCode, Failure)> {
    let room = &tunnel.room;
    let facts = Facts {
        workload_uid: Arc::clone(&admitted.workload.uid),
        client: Client::Verified(tunnel.peer.clone()),
        source_ip: tunnel.client.0.ip(),
        destination: admitted.delivery.destination,
    };
    let session = session::open(room, connection, &facts)
        .await
        .map_err(|failure| (StatusCode::UNAUTHORIZED, failure))?;
    let target = admitted.delivery.dial(room.shared.config.localhost_app_tunnel);
    let unavailable = |failure| (StatusCode::SERVICE_UNAVAILABLE, failure);
    let dialled =
        dial::to_application(&session, room, &tunnel.pod, tunnel.client.0.ip(), target).await;
    let mut application = dialled.map_err(unavailable)?;
    if let Some(named) = admitted.delivery.proxy_header {
        introduce(&mut application, named, tunnel).await.map_err(unavailable)?;
    }
    Ok(application)
}

/// Answers 200.
fn answer(
    incoming: Box<Incoming>,
    application: TcpStream,
    (admitted, tunnel): (&Admitted, &Tunnel),
    live: &Live,
) -> Result<(Leg, Stream), Failure> {
    let mut headers = HeaderMap::new();
    if tunnel.room.shared.config.response_baggage {
        let own = headers::baggage_of(&admitted.workload).emit();
        headers::put(&mut headers, headers::BAGGAGE, &own);
    }
    let meetings = tunnel.room.shared.meetings.as_ref();
    let met = meetings.and_then(|meetings| Some((meetings, incoming.announced(meetings)?)));
    let leg = match met {
        None => Leg::Application(application),
        Some((meetings, place)) => {
            let given =
                application.into_std().map_err(|error| Failure::new(Reason::Dial, error))?;
            let gone = || Failure::new(Reason::PeerReset, "before the answer");
            Leg::SameNode(meetings.offer(place, given, live.meter()).ok_or_else(gone)?)
        }
    };
    let stream =
        incoming.accept(&headers).map_err(|error| Failure::new(Reason::PeerReset, error))?;
    Ok((leg, stream))
}

/// Tells the application who its client is, before the first byte.
async fn introduce(
    application: &mut TcpStream,
    named: SocketAddr,
    tunnel: &Tunnel,
) -> Result<(), Failure> {
    let header = proxy_header::encode(tunnel.client.0, named, Some(tunnel.peer.identity()));
    let header = header.map_err(|error| Failure::new(Reason::Dial, error))?;
    let written = application.write_all(&header).await;
    written.map_err(|error| Failure::new(Reason::ApplicationReset, error))
}
