//! Is it ours: what a CONNECT authority means to the pod that received it (spec hbone 6,
//! discovery-and-balancing 8).
//!
//! Whatever a peer asks for, the answer leads to the address the tunnel was accepted on, never to
//! another pod and never to one of our own ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::is_own_port;
use crate::model::{
    GatewayAddress, GatewayRef, NetworkAddr, PodIp, Service, ServiceKey, Snapshot, TunnelProtocol,
    Wanted, Workload,
};
use crate::wire::authority::Authority;

/// Where an admitted stream goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The pod's address and the final port: what policies see.
    pub destination: SocketAddr,
    /// Send a PROXY header first, to loopback or to the pod's address; this is the destination the
    /// header names.
    pub proxy_header: Option<SocketAddr>,
    /// The service the authority named, if it was a host name.
    pub service: Option<Arc<Service>>,
}

impl Delivery {
    /// The address to connect to: [`Delivery::destination`], or the same port on loopback where the
    /// application reads a PROXY header and `localhost_app_tunnel` (the variable
    /// `LOCALHOST_APP_TUNNEL`) asks for it.
    pub fn dial(&self, localhost_app_tunnel: bool) -> SocketAddr {
        if !localhost_app_tunnel || self.proxy_header.is_none() {
            return self.destination;
        }
        let loopback = match self.destination.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        SocketAddr::new(loopback, self.destination.port())
    }
}

/// Why a CONNECT target is not ours. Each has the status of spec hbone 3.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The address is neither this pod's nor one that this pod is the waypoint of: 400.
    AddressMismatch,
    /// No service of that name: 503.
    HostnameUnknown,
    /// This pod is not an endpoint of that service: 503.
    NotAnEndpoint,
    /// The service has no such port here: 503.
    PortUnknown,
    /// The port is one of our own: 503.
    OwnPort,
    /// The service has no address to put into a PROXY header: 503.
    NoVirtualAddress,
    /// The control plane has not been asked for this, or has not answered: 503.
    Unanswered(Wanted),
}

/// Decides where a CONNECT to `authority`, accepted on `local_ip` of `local`, is delivered.
///
/// A host name is ours only if this pod is an endpoint of that service or its waypoint: the TLS
/// identity says who we are, not which of our services was meant, so it does not protect from being
/// asked for somebody else's.
pub fn admit(
    snapshot: &Snapshot,
    local: &Workload,
    local_ip: PodIp,
    network: &Arc<str>,
    authority: &Authority,
) -> Result<Delivery, NotAdmitted> {
    let pod = Pod { snapshot, local, ip: local_ip.0.to_canonical(), network };
    // A tunnel that came in over loopback would be delivered there; no peer on the wire can do
    // that.
    if is_nowhere(pod.ip) && !local.ips.contains(&pod.ip) {
        return Err(NotAdmitted::AddressMismatch);
    }
    let (port, service) = match authority {
        Authority::Addr(addr) => {
            if !pod.accepts_address(addr.ip().to_canonical())? {
                return Err(NotAdmitted::AddressMismatch);
            }
            (addr.port(), None)
        }
        Authority::Host(hostname, port) => {
            let (service, port) = pod.resolve_host(hostname, *port)?;
            (port, Some(service))
        }
    };
    let tunnel = local.application_tunnel;
    let final_port = tunnel.and_then(|tunnel| tunnel.port).unwrap_or(port);
    if is_own_port(port) || is_own_port(final_port) {
        return Err(NotAdmitted::OwnPort);
    }
    let mut proxy_header = None;
    if tunnel.is_some_and(|tunnel| tunnel.protocol == TunnelProtocol::Proxy) {
        proxy_header = Some(match (authority, &service) {
            (Authority::Addr(addr), _) => SocketAddr::new(addr.ip().to_canonical(), addr.port()),
            (Authority::Host(_, port), service) => {
                let vip = service.as_ref().and_then(|service| pod.virtual_address(service));
                SocketAddr::new(vip.ok_or(NotAdmitted::NoVirtualAddress)?, *port)
            }
        });
    }
    Ok(Delivery { destination: SocketAddr::new(pod.ip, final_port), proxy_header, service })
}

/// An address that is never a destination in the mesh.
fn is_nowhere(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || ip.is_multicast()
}

/// The pod that received the CONNECT.
struct Pod<'a> {
    snapshot: &'a Snapshot,
    local: &'a Workload,
    ip: IpAddr,
    network: &'a Arc<str>,
}

impl Pod<'_> {
    /// Spec hbone 6 step 4.
    fn accepts_address(&self, ip: IpAddr) -> Result<bool, NotAdmitted> {
        if ip == self.ip {
            return Ok(true);
        }
        if is_nowhere(ip) {
            return Ok(false);
        }
        if self.local.application_tunnel.is_some() {
            return Ok(true);
        }
        let addr = NetworkAddr { network: Arc::clone(self.network), ip };
        self.is_answered(Wanted::Addr(addr.clone()))?;
        let workload = self.snapshot.workload_by_addr(&addr);
        // All services with that address count: which one the peer meant depends on its namespace.
        let mine = workload.and_then(|w| w.waypoint.as_ref()).is_some_and(|way| self.is(way));
        let mut services = self.snapshot.services_at(&addr);
        Ok(mine || services.any(|service| self.is_waypoint_of(service)))
    }

    /// Who may be there and has not been asked for is not nobody.
    fn is_answered(&self, wanted: Wanted) -> Result<(), NotAdmitted> {
        if self.snapshot.must_ask(&wanted) {
            return Err(NotAdmitted::Unanswered(wanted));
        }
        Ok(())
    }

    /// The services that a host name can mean, as far as they can be asked for: those that this pod
    /// is an endpoint of, and the one whose namespace is in the name, as it is in a cluster.
    fn is_host_answered(&self, hostname: &str) -> Result<(), NotAdmitted> {
        let own = self.local.services.iter().map(|(key, _)| key);
        for key in own.filter(|key| &*key.hostname == hostname) {
            self.is_answered(Wanted::Host(key.clone()))?;
        }
        let mut labels = hostname.split('.').skip(1);
        if let (Some(namespace), Some("svc")) = (labels.next(), labels.next()) {
            let (namespace, hostname) = (Arc::from(namespace), Arc::from(hostname));
            self.is_answered(Wanted::Host(ServiceKey { namespace, hostname }))?;
        }
        Ok(())
    }

    /// The service a host name means to this pod, and the port the stream goes to.
    fn resolve_host(&self, hostname: &str, port: u16) -> Result<(Arc<Service>, u16), NotAdmitted> {
        let client = Some(&*self.local.namespace);
        self.is_host_answered(hostname)?;
        if self.snapshot.service_by_host(hostname, client).is_none() {
            return Err(NotAdmitted::HostnameUnknown);
        }
        let endpoint = |service: &Service| self.snapshot.endpoint(&service.key, &self.local.uid);
        let mine = |service: &Service| endpoint(service).is_some();
        if let Some(service) = self.snapshot.service_by_host_if(hostname, client, mine) {
            let own = endpoint(service).and_then(|endpoint| endpoint.ports.get(&port));
            let own = own.copied().filter(|port| *port != 0);
            let declared = service.ports.get(&port).copied().filter(|port| *port != 0);
            let target = own.or(declared).ok_or(NotAdmitted::PortUnknown)?;
            return Ok((Arc::clone(service), target));
        }
        let through_me = |service: &Service| self.is_waypoint_of(service);
        let service = self
            .snapshot
            .service_by_host_if(hostname, client, through_me)
            .ok_or(NotAdmitted::NotAnEndpoint)?;
        // Target ports are those of the service's own pods, so a waypoint gets the service port, as
        // it would with the virtual address.
        let target = service.ports.contains_key(&port).then_some(port);
        Ok((Arc::clone(service), target.ok_or(NotAdmitted::PortUnknown)?))
    }

    /// Whether this pod serves one of the waypoints of a service, canaries included.
    fn is_waypoint_of(&self, service: &Service) -> bool {
        let weighted = service.weighted_waypoints.iter().map(|weighted| &weighted.destination);
        service.waypoint.iter().chain(weighted).any(|waypoint| self.is(waypoint))
    }

    /// Whether this pod serves this waypoint.
    fn is(&self, waypoint: &GatewayRef) -> bool {
        let endpoint_of = |key| self.snapshot.endpoint(key, &self.local.uid).is_some();
        match &waypoint.destination {
            GatewayAddress::Hostname(key) => {
                let named = !self.local.hostname.is_empty()
                    && self.local.hostname == key.hostname
                    && self.local.namespace == key.namespace;
                named || endpoint_of(key)
            }
            GatewayAddress::Address(addr) => {
                let own = addr.ip == self.ip || self.local.ips.contains(&addr.ip);
                own && addr.network == self.local.network
                    || self.snapshot.services_at(addr).any(|service| endpoint_of(&service.key))
            }
        }
    }

    /// The address of a service that a PROXY header names: of our own network and IPv4 if there is
    /// one, then of our own network, then any (spec hbone 6, "PROXY protocol").
    fn virtual_address(&self, service: &Service) -> Option<IpAddr> {
        let own_first = |addr: &&NetworkAddr| match addr.network == *self.network {
            true if addr.ip.is_ipv4() => 0,
            true => 1,
            false => 2,
        };
        service.vips.iter().min_by_key(own_first).map(|addr| addr.ip)
    }
}

#[cfg(test)]
mod tests;
