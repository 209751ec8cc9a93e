//! Opening legs: towards applications, which takes a session, and towards other nodes.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::pod::Pod;
use super::room::Shared;
use super::session::Session;
use crate::config::OriginalSource;
use crate::model::Hop;
use crate::report::{Failure, Reason};
use crate::sys::socket::{self, SocketPlan};

/// Opens the TCP connection of a tunnel, from the pod's own address.
pub(super) async fn for_tunnel(shared: &Shared, pod: &Pod, hop: Hop) -> Result<TcpStream, Failure> {
    let timed_out = Reason::TunnelDialTimeout;
    open(shared, pod, hop.0, None).await.map_err(|error| failed(&error, hop.0, timed_out))
}

/// Opens a plain connection to where the pod wanted to go, from the pod's own address.
pub(super) async fn as_it_is(shared: &Shared, pod: &Pod, hop: Hop) -> Result<TcpStream, Failure> {
    let timed_out = Reason::DialTimeout;
    open(shared, pod, hop.0, None).await.map_err(|error| failed(&error, hop.0, timed_out))
}

/// Opens the leg to the application. It sees `source` as its peer wherever that is possible, and
/// where it should be but is not, the connection is refused (promise P3).
pub(super) async fn to_application(
    _session: &Session,
    shared: &Shared,
    pod: &Pod,
    source: IpAddr,
    target: SocketAddr,
) -> Result<TcpStream, Failure> {
    let own = source == target.ip() || target.ip().is_loopback();
    let keep = pod.transparent && !own;
    if !keep && !own && shared.config.original_source == OriginalSource::Always {
        return Err(Failure::new(Reason::OriginalSource, "the pod's sockets are not transparent"));
    }
    let spoofed = keep.then_some(source);
    open(shared, pod, target, spoofed).await.map_err(|error| match error {
        DialError::Source(error) => Failure::new(Reason::OriginalSource, error),
        other => failed(&other, target, Reason::DialTimeout),
    })
}

enum DialError {
    Socket(io::Error),
    Source(io::Error),
    Connect(io::Error),
    Timeout,
}

async fn open(
    shared: &Shared,
    pod: &Pod,
    target: SocketAddr,
    source: Option<IpAddr>,
) -> Result<TcpStream, DialError> {
    let plan = SocketPlan { ipv6: target.is_ipv6(), transparent: source.is_some() };
    let dial = async {
        let sockets = shared.opener.sockets(pod.spec.netns.clone(), plan, 1).await;
        let socket = sockets.map_err(DialError::Socket)?.pop();
        let socket = socket.ok_or_else(|| DialError::Socket(io::ErrorKind::NotFound.into()))?;
        socket::tune(&socket, &shared.liveness()).map_err(DialError::Socket)?;
        if let Some(source) = source {
            socket::bind_original_source(&socket, source).map_err(DialError::Source)?;
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
