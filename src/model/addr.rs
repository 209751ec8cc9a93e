//! Addresses named by their role, so that no room ever receives a bare socket address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;

/// Where a captured connection was going before it was redirected to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OrigDst(pub SocketAddr);

/// The TCP peer of an accepted connection, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddr(pub SocketAddr);

/// Where we open the next TCP connection to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop(pub SocketAddr);

/// The local address a connection was accepted on: one of the pod's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PodIp(pub IpAddr);

/// An IP address in a named network; overlapping ranges live in different networks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct NetworkAddr {
    /// The network id; empty is the default network.
    pub network: Arc<str>,
    /// The address within it.
    pub ip: IpAddr,
}

impl fmt::Display for NetworkAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.ip)
    }
}

impl From<NetworkAddr> for String {
    fn from(addr: NetworkAddr) -> Self {
        addr.to_string()
    }
}

/// The address with an IPv4-mapped IPv6 address turned into IPv4 (spec hbone 1).
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
