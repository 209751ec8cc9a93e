//! One value per connection: what the access log, the metrics and the dumps say about it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::model::{Service, Workload};
use crate::wire::authority::Authority;
use crate::wire::baggage::Baggage;
use crate::wire::spiffe::Identity;

/// Which way a connection goes, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The pod opened it: `reporter="source"`.
    Outbound,
    /// It is for the pod: `reporter="destination"`.
    Inbound,
}

/// How the bytes travel between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// In a tunnel with mutual TLS.
    Hbone,
    /// In a tunnel inside a tunnel, through a gateway.
    DoubleHbone,
    /// As they are.
    Plaintext,
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub struct Side {
    /// Its address; for a destination the real next hop. Inbound that is the pod's address, even
    /// where the bytes are delivered on loopback, and the port they are delivered to; the access
    /// log names the tunnel's port instead where there is one.
    pub addr: SocketAddr,
    /// Its record, if known.
    pub workload: Option<Arc<Workload>>,
    /// What it says of itself; telemetry only, overridden by the record field by field.
    pub claimed: Option<Arc<Baggage>>,
    /// Its identity, only when proven by mutual TLS.
    pub identity: Option<Identity>,
}

/// A connection with enough context to be recorded.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Which way it goes.
    pub direction: Direction,
    /// How the bytes travel.
    pub transport: Transport,
    /// Who opened it.
    pub source: Side,
    /// Where it goes.
    pub destination: Side,
    /// What the CONNECT asked for, if there was one.
    pub authority: Option<Authority>,
    /// The service that was meant.
    pub service: Option<Arc<Service>>,
    /// The host of the `forwarded` header of an inbound CONNECT, or the original destination.
    pub original_destination: Option<Arc<str>>,
    /// Trace id shared by both proxies of a connection.
    pub trace_id: Option<u128>,
}

/// A connection refused before there was anything to record but its addresses.
#[derive(Clone, Copy, Debug)]
pub struct Early {
    /// Which way it went.
    pub direction: Direction,
    /// Who opened it.
    pub source: SocketAddr,
    /// Where it was going.
    pub destination: SocketAddr,
}
