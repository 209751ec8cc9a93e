//! Delta xDS: messages, client and server of the service, and what can be said of its bytes
//! without knowing the mesh (spec xds 3, 8).

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// A kind of resource that a node proxy subscribes to (spec xds 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// Workloads and services.
    Address,
    /// Policies.
    Authorization,
}

impl ResourceType {
    /// Every kind, in the order in which they are asked for (spec xds 4).
    pub const ALL: [Self; 2] = [Self::Address, Self::Authorization];

    /// The name on the wire.
    pub fn url(self) -> &'static str {
        match self {
            Self::Address => "type.googleapis.com/istio.workload.Address",
            Self::Authorization => "type.googleapis.com/istio.security.Authorization",
        }
    }

    /// The kind with this name on the wire.
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }
}

/// Why bytes are not an address or a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// Neither 4 nor 16 bytes.
    Length(usize),
    /// A prefix longer than the address, bits.
    Prefix(u32),
}

/// An address in network byte order.
pub fn ip(bytes: &[u8]) -> Result<IpAddr, AddressError> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(four.into());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).map_err(|_| AddressError::Length(bytes.len()))?;
    Ok(sixteen.into())
}

/// The range of an address and a prefix length; bits beyond the prefix are ignored.
pub fn range(bytes: &[u8], length: u32) -> Result<IpNet, AddressError> {
    let prefix = u8::try_from(length).map_err(|_| AddressError::Prefix(length))?;
    let net = IpNet::new(ip(bytes)?, prefix).map_err(|_| AddressError::Prefix(length))?;
    Ok(net.trunc())
}

/// The bytes of an address, as [`ip`] reads them.
pub fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "Address",
            Self::Authorization => "Authorization",
        })
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(bytes) => write!(f, "an address of {bytes} bytes"),
            Self::Prefix(bits) => write!(f, "a prefix of {bits} bits"),
        }
    }
}

impl std::error::Error for AddressError {}

/// What the protobuf compiler makes of `proto/discovery.proto`.
pub mod discovery {
    #![allow(missing_docs, missing_debug_implementations, unreachable_pub, unused_qualifications)]
    #![allow(clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/envoy.service.discovery.v3.rs"));
}

/// What the protobuf compiler makes of `proto/workload.proto`.
pub mod workload {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/istio.workload.rs"));
}

/// What the protobuf compiler makes of `proto/authorization.proto`.
pub mod security {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/istio.security.rs"));
}

#[cfg(test)]
mod tests;
