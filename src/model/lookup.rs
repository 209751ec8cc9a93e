//! What is asked of the control plane one by one, where it does not say everything unasked (spec
//! xds 5.5).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::{NetworkAddr, Service, ServiceKey, Snapshot, Workload};

/// Something that the control plane can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// Whoever has an address: a workload, or a service with its endpoints.
    Addr(NetworkAddr),
    /// A service with its endpoints, or a workload, by namespace and host name.
    Host(ServiceKey),
}

impl Wanted {
    /// Everything that a name of the wire can mean.
    pub fn of_name(name: &str) -> impl Iterator<Item = Self> {
        let parts = name.split_once('/');
        let host = parts.map(|(namespace, hostname)| {
            Self::Host(ServiceKey { namespace: namespace.into(), hostname: hostname.into() })
        });
        let addr = parts.and_then(|(network, ip)| {
            let ip: IpAddr = ip.parse().ok()?;
            Some(Self::Addr(NetworkAddr { network: Arc::from(network), ip }))
        });
        host.into_iter().chain(addr)
    }
}

impl Workload {
    /// Everything that it can be asked for as, besides its uid.
    pub fn wanted_as(&self) -> impl Iterator<Item = Wanted> {
        let addr = |ip| Wanted::Addr(NetworkAddr { network: Arc::clone(&self.network), ip });
        let host = Snapshot::indexed_by_host(self).map(Wanted::Host);
        Snapshot::indexed_by_addr(self).map(addr).chain(host)
    }
}

impl Service {
    /// Everything that it can be asked for as, besides what is in its ranges.
    pub fn wanted_as(&self) -> impl Iterator<Item = Wanted> {
        let vips = self.vips.iter().cloned().map(Wanted::Addr);
        vips.chain([Wanted::Host(self.key.clone())])
    }
}

/// As it goes over the wire: `<network>/<ip>` or `<namespace>/<hostname>`.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Host(key) => key.fmt(f),
        }
    }
}
