//! Who asks, from where, for what: built once per connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::{ClientAddr, OrigDst, VerifiedPeer, Workload};

/// Ports the proxy itself listens on in every pod; never a destination (spec hbone 8).
const OWN_PORTS: [u16; 3] = [15001, 15006, 15008];

/// Whether this is one of the proxy's own ports in a pod.
pub fn is_own_port(port: u16) -> bool {
    OWN_PORTS.contains(&port)
}

/// What the inbound side knows about one connection when it asks for a permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Uid of the workload the connection is for: the pod whose listener accepted it.
    pub workload_uid: Arc<str>,
    /// Who asks.
    pub client: Client,
    /// Address of the TCP peer.
    pub source_ip: IpAddr,
    /// Address the connection was accepted on and the port it will be delivered to.
    pub destination: SocketAddr,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// A peer whose certificate was verified.
    Verified(VerifiedPeer),
    /// Somebody in plain text: no identity.
    Plaintext,
}

/// What the outbound side knows about one captured connection.
#[derive(Clone, Debug)]
pub struct Outbound<'a> {
    /// The pod that opened the connection.
    pub source: &'a Arc<Workload>,
    /// The proxy's own network.
    pub network: &'a Arc<str>,
    /// Address of the pod's socket.
    pub client: ClientAddr,
    /// Where it was going.
    pub destination: OrigDst,
}
