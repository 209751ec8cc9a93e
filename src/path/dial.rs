//! Opening legs: towards applications, which takes a session, and towards other nodes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::pod::Pod;
use super::room::Room;
use super::session::Session;
use crate::config::OriginalSource;
use crate::model::Hop;
use crate::report::{Failure, Reason};
use crate::sys::socket::{self, Liveness, SocketPlan};

/// How many source ports are tried for one leg that keeps its source address.
const SOURCE_PORTS_TRIED_MAX: usize = 32;
/// The ports that Linux gives to clients by default (`ip_local_port_range`).
const CLIENT_PORTS: RangeInclusive<u16> = 32_768..=60_999;
/// Below it, ports are left to servers.
const SOURCE_PORT_MIN: u16 = 10_240;
const WITHIN_A_POD: Liveness = Liveness { keepalive: None, user_timeout: None };

/// Opens the TCP connection of a tunnel, from the pod's own address.
pub(super) async fn for_tunnel(room: &Room, pod: &Pod, hop: Hop) -> Result<TcpStream, Failure> {
    let timed_out = Reason::TunnelDialTimeout;
    let opened = open(room, pod, (hop.0, None), room.shared.liveness()).await;
    opened.map_err(|error| failed(&error, hop.0, timed_out))
}

/// Opens a plain connection to where the pod wanted to go, from the pod's own address.
pub(super) async fn as_it_is(room: &Room, pod: &Pod, hop: Hop) -> Result<TcpStream, Failure> {
    let timed_out = Reason::DialTimeout;
    let opened = open(room, pod, (hop.0, None), room.shared.liveness()).await;
    opened.map_err(|error| failed(&error, hop.0, timed_out))
}

/// Opens the leg to the application. It sees `source` as its peer wherever that is possible, and
/// where it should be but is not, the connection is refused (promise P3).
///
/// Both ends of it are in the pod, and their kernel is one: there is nothing for keepalive to find
/// out.
pub(super) async fn to_application(
    _session: &Session,
    room: &Room,
    pod: &Pod,
    source: IpAddr,
    target: SocketAddr,
) -> Result<TcpStream, Failure> {
    let shared = &room.shared;
    let own = source == target.ip() || target.ip().is_loopback();
    if own || !pod.transparent {
        if !own && shared.config.original_source == OriginalSource::Always {
            let why = "the pod's sockets are not transparent";
            return Err(Failure::new(Reason::OriginalSource, why));
        }
        let opened = open(room, pod, (target, None), WITHIN_A_POD).await;
        return opened.map_err(|error| failed(&error, target, Reason::DialTimeout));
    }
    let mut last = DialError::Timeout;
    for _ in 0..SOURCE_PORTS_TRIED_MAX {
        let port = source_port(&mut room.rng.borrow_mut());
        let source = SocketAddr::new(source, port);
        match open(room, pod, (target, Some(source)), WITHIN_A_POD).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.is_about_the_port() => last = error,
            Err(error) => {
                last = error;
                break;
            }
        }
    }
    Err(match last {
        DialError::Source(error) => Failure::new(Reason::OriginalSource, error),
        other => failed(&other, target, Reason::DialTimeout),
    })
}

/// A source port for a leg that keeps its source address.
///
/// Not one that the client itself may be using: its plaintext connection to the same target is
/// known to connection tracking under exactly the pair of addresses that our leg would have, and
/// one of the two would be taken for the other.
fn source_port(rng: &mut fastrand::Rng) -> u16 {
    let width = CLIENT_PORTS.end() - CLIENT_PORTS.start() + 1;
    let port = rng.u16(SOURCE_PORT_MIN..=u16::MAX - width);
    if port < *CLIENT_PORTS.start() { port } else { port + width }
}

enum DialError {
    Socket(io::Error),
    Source(io::Error),
    Connect(io::Error),
    Timeout,
}

impl DialError {
    /// Whether another source port may do better: this one is listened on, in use for the same
    /// target, or taken by connection tracking for another connection.
    fn is_about_the_port(&self) -> bool {
        use io::ErrorKind::{AddrInUse, AddrNotAvailable, ConnectionReset};
        match self {
            Self::Source(error) => error.kind() == AddrInUse,
            Self::Connect(error) => matches!(error.kind(), AddrNotAvailable | ConnectionReset),
            Self::Socket(_) | Self::Timeout => false,
        }
    }
}

async fn open(
    room: &Room,
    pod: &Pod,
    (target, source): (SocketAddr, Option<SocketAddr>),
    liveness: Liveness,
) -> Result<TcpStream, DialError> {
    let shared = &room.shared;
    let plan = SocketPlan { ipv6: target.is_ipv6(), transparent: source.is_some() };
    let dial = async {
        let socket = room.stock.take(&shared.opener, pod, plan).await;
        let socket = socket.map_err(DialError::Socket)?;
        socket::tune(&socket, &liveness).map_err(DialError::Socket)?;
        if let Some(source) = source {
            socket::bind_original_source_port(&socket, source).map_err(DialError::Source)?;
        }
        let socket = TcpSocket::from_std_stream(socket.into());
        socket.connect(target).await.map_err(DialError::Connect)
    };
    timeout(shared.dial_limit(), dial).await.unwrap_or(Err(DialError::Timeout))
}

fn failed(error: &DialError, target: SocketAddr, timed_out: Reason) -> Failure {
    match error {
        DialError::Socket(error) => Failure::new(Reason::Dial, format!("no socket: {error}")),
        DialError::Source(error) | DialError::Connect(error) => {
            Failure::new(Reason::Dial, format!("{target}: {error}"))
        }
        DialError::Timeout => Failure::new(timed_out, target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_port_is_one_that_the_client_may_be_using() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut below, mut above) = (0, 0);
        for _ in 0..100_000 {
            let port = source_port(&mut rng);
            assert!(port >= SOURCE_PORT_MIN && !CLIENT_PORTS.contains(&port), "{port}");
            if port < *CLIENT_PORTS.start() { below += 1 } else { above += 1 }
        }
        assert!(below > 0 && above > 0);
    }
}
