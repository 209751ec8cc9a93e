//! The access log: one line per finished connection, fields and order of spec operations 8.
//!
//! `trace_id` and `path` are additions, after the fields that have a place. Both proxies of a
//! connection log the same `trace_id`; `path` says that its bytes did not take the tunnel.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tracing::Level;

use super::labels::{Claims, Names};
use super::{Connection, Direction, Early, Failure, Transport};
use crate::wire::authority::Authority;
use crate::wire::spiffe::Identity;

/// What tells log filters these lines from all others (spec operations 8).
const TARGET: &str = "access";
/// The `path` of bytes that went from socket to socket, because both ends are on this node.
pub(super) const SAME_NODE: &str = "same_node";
/// The port of tunnels, which inbound lines name (spec operations 8).
const HBONE_PORT: u16 = 15008;

/// What a line says of a connection before it has ended.
struct Line<'a> {
    source: End<'a>,
    destination: End<'a>,
    hbone_addr: Option<&'a Authority>,
    service: Option<&'a str>,
    direction: &'static str,
    trace_id: Option<TraceId>,
    path: Option<&'static str>,
}

/// A trace id as it stands in a `traceparent`.
struct TraceId(u128);

/// One end in a line.
struct End<'a> {
    addr: SocketAddr,
    workload: Option<&'a str>,
    namespace: Option<&'a str>,
    identity: Option<String>,
    cluster: Option<&'a str>,
}

/// The fields of a line, in order. tracing leaves out what is `None`.
macro_rules! line {
    ($level:ident, $message:literal, $line:expr, { $($end:tt)* }) => {{
        let line: &Line<'_> = $line;
        tracing::event!(
            target: TARGET,
            Level::$level,
            src.addr = %line.source.addr,
            src.workload = line.source.workload,
            src.namespace = line.source.namespace,
            src.identity = line.source.identity.as_deref(),
            src.cluster = line.source.cluster,
            dst.addr = %line.destination.addr,
            dst.hbone_addr = line.hbone_addr.map(tracing::field::display),
            dst.service = line.service,
            dst.workload = line.destination.workload,
            dst.namespace = line.destination.namespace,
            dst.identity = line.destination.identity.as_deref(),
            dst.cluster = line.destination.cluster,
            direction = line.direction,
            $($end)*
            trace_id = line.trace_id.as_ref().map(tracing::field::display),
            path = line.path,
            $message
        );
    }};
}

/// A connection was opened.
pub(super) fn opened(connection: &Connection) {
    if tracing::enabled!(target: TARGET, Level::DEBUG) {
        line!(DEBUG, "connection opened", &Line::of(connection), {});
    }
}

/// A connection has ended, after so many bytes from its initiator and back, on whatever path.
pub(super) fn finished(
    connection: &Connection,
    (request_bytes, response_bytes): (u64, u64),
    duration: Duration,
    path: Option<&'static str>,
    failure: Option<&Failure>,
) {
    let line = || Line { path, ..Line::of(connection) };
    // As the local pod sees it: what left it was sent.
    let (sent, received) = match connection.direction {
        Direction::Outbound => (request_bytes, response_bytes),
        Direction::Inbound => (response_bytes, request_bytes),
    };
    let duration = || format!("{}ms", duration.as_millis());
    match failure {
        None => {
            if tracing::enabled!(target: TARGET, Level::INFO) {
                line!(INFO, "connection complete", &line(), {
                    bytes_sent = sent,
                    bytes_recv = received,
                    duration = duration().as_str(),
                });
            }
        }
        Some(failure) => {
            if tracing::enabled!(target: TARGET, Level::ERROR) {
                line!(ERROR, "connection complete", &line(), {
                    bytes_sent = sent,
                    bytes_recv = received,
                    duration = duration().as_str(),
                    error = failure.to_string().as_str(),
                });
            }
        }
    }
}

/// A connection was refused before it could be described.
pub(super) fn refused(early: &Early, failure: &Failure) {
    tracing::event!(
        target: TARGET,
        Level::WARN,
        src.addr = %early.source,
        dst.addr = %early.destination,
        direction = early.direction.as_str(),
        error = failure.to_string().as_str(),
        "connection failed"
    );
}

impl<'a> Line<'a> {
    fn of(connection: &'a Connection) -> Self {
        let Connection { direction, transport, source, destination, .. } = connection;
        let tunnelled = *transport != Transport::Plaintext;
        let inbound_tunnel = tunnelled && *direction == Direction::Inbound;
        let destination_addr = match inbound_tunnel {
            true => SocketAddr::new(destination.addr.ip(), HBONE_PORT),
            false => destination.addr,
        };
        let end = |addr, names: Names<'a>, identity: Option<&Identity>| End {
            addr,
            workload: names.pod.or(names.canonical_service).map(|text| &**text),
            namespace: names.namespace.map(|text| &**text),
            identity: identity.filter(|_| tunnelled).map(Identity::uri),
            cluster: names.cluster.map(|text| &**text),
        };
        let names = |side| Names::of(side, Claims::Used);
        let authority = connection.authority.as_ref().filter(|_| tunnelled);
        Line {
            source: end(source.addr, names(source), source.identity.as_ref()),
            destination: end(destination_addr, names(destination), destination.identity.as_ref()),
            hbone_addr: authority,
            service: connection.service.as_ref().map(|service| &*service.key.hostname),
            direction: direction.as_str(),
            trace_id: connection.trace_id.map(TraceId),
            path: None,
        }
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests;
