//! Where does it go (spec hbone 8, discovery-and-balancing 3 to 7)?

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::balance::{Balancer, Purpose, pick_ip};
use super::{Outbound, is_own_port};
use crate::model::{
    Address, GatewayAddress, GatewayRef, Hop, NetworkAddr, Service, ServiceKey, Snapshot, Wanted,
    Workload, WorkloadProtocol, canonical,
};
use crate::wire::authority::Authority;
use crate::wire::spiffe::Identity;

/// Where a workload speaks HBONE.
const HBONE_PORT: u16 = 15008;

/// Where a captured connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// As it is, in plain text: unknown destinations and workloads outside the mesh.
    Passthrough {
        /// Where to connect to.
        hop: Hop,
        /// The workload there, if known.
        destination: Option<Arc<Workload>>,
        /// The service that was addressed.
        service: Option<Arc<Service>>,
    },
    /// Through one tunnel, to the workload itself or to a waypoint.
    Tunnel(TunnelRoute),
    /// Through a gateway of another network, with a second tunnel inside the first.
    DoubleTunnel {
        /// The tunnel to the gateway. The inner CONNECT asks for the same authority.
        outer: TunnelRoute,
        /// Identities the far end of the inner tunnel may present. Empty if the service names none:
        /// then nobody is accepted.
        inner_expected: Vec<Identity>,
    },
}

/// One CONNECT through one tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelRoute {
    /// Where the tunnel's TCP connection goes.
    pub hop: Hop,
    /// What the CONNECT asks for.
    pub authority: Authority,
    /// Identities the far end may present; never empty.
    pub expected: Vec<Identity>,
    /// The workload at the far end of the tunnel.
    pub destination: Arc<Workload>,
    /// The service that was addressed.
    pub service: Option<Arc<Service>>,
}

/// Why a captured connection goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It leads to one of the proxy's own ports in this pod.
    SelfCall,
    /// The service has no endpoint that may be picked.
    NoHealthyUpstream,
    /// The waypoint that must be used cannot be resolved.
    WaypointUnknown,
    /// The gateway of the other network cannot be resolved.
    GatewayUnknown,
    /// A workload of another network was addressed without a service.
    OtherNetworkWithoutService,
    /// The workload has no address that may be used: it is known by host name only, or the service
    /// excludes the family of its addresses.
    NoAddress,
    /// The control plane has not been asked for this, or has not answered.
    Unanswered(Wanted),
}

/// Decides where one captured connection goes, in the order of spec discovery-and-balancing 3.
///
/// Two rules are stricter than that section. A call to one of our own ports is refused on every
/// address of the pod, not on loopback alone, and wherever balancing leads: it would come back to
/// us for ever. And plain text is never sent to an address that the mesh knows a tunnel to,
/// whichever record led there (promise P2).
pub fn route(
    snapshot: &Snapshot,
    facts: &Outbound<'_>,
    rng: &mut fastrand::Rng,
) -> Result<Route, Refusal> {
    let target = canonical(facts.destination.0);
    let balancer = Balancer { snapshot, source: facts.source };
    let mut router = Router { snapshot, facts, target, balancer, rng };
    if router.is_self_call(target) {
        return Err(Refusal::SelfCall);
    }
    let asked = NetworkAddr { network: Arc::clone(facts.network), ip: target.ip() };
    router.is_answered(Wanted::Addr(asked.clone()))?;
    let addressed = match snapshot.address(&asked, Some(&facts.source.namespace)) {
        Some(Address::Service(service)) => Some(service),
        Some(Address::Workload(_)) | None => None,
    };
    if let Some(waypoint) = addressed.as_deref().and_then(|s| router.service_waypoint(s)) {
        let upstream = router.waypoint(waypoint)?;
        return router.through_waypoint(upstream, addressed.as_ref());
    }
    let asked = NetworkAddr { network: Arc::clone(&facts.source.network), ip: target.ip() };
    router.is_answered(Wanted::Addr(asked.clone()))?;
    let upstream = match router.lookup(&asked, target.port(), Purpose::Service) {
        Lookup::Upstream(upstream) => upstream,
        Lookup::NoEndpoint => return Err(Refusal::NoHealthyUpstream),
        Lookup::Unbalanced(service) => {
            let service = service.or_else(|| addressed.clone());
            if service.as_ref().is_some_and(|service| !service.is_passthrough()) {
                return Err(Refusal::NoHealthyUpstream);
            }
            let destination = snapshot.workload_by_addr(&asked).cloned();
            match destination.filter(|w| w.protocol == WorkloadProtocol::Hbone) {
                Some(workload) => Upstream::at(workload, target),
                None => return router.plain(target, None, service),
            }
        }
    };
    if upstream.workload.network != facts.source.network {
        return router.through_gateway(&upstream, upstream.service.as_ref());
    }
    if addressed.is_none()
        && let Some(waypoint) = &upstream.workload.waypoint
        && !router.is_from(waypoint)
    {
        let upstream = router.waypoint(waypoint)?;
        return router.through_waypoint(upstream, None);
    }
    router.direct(upstream)
}

/// A workload that was chosen, and how to reach it.
#[derive(Debug)]
struct Upstream {
    workload: Arc<Workload>,
    /// The service it was chosen as an endpoint of.
    service: Option<Arc<Service>>,
    ip: Option<IpAddr>,
    port: u16,
}

impl Upstream {
    fn at(workload: Arc<Workload>, addr: SocketAddr) -> Self {
        Self { workload, service: None, ip: Some(addr.ip()), port: addr.port() }
    }

    fn addr(&self) -> Result<SocketAddr, Refusal> {
        self.ip.map(|ip| SocketAddr::new(ip, self.port)).ok_or(Refusal::NoAddress)
    }

    /// Whom the far end may be: what the service says and what the workload is (spec identity 7).
    fn expected(&self) -> Vec<Identity> {
        let mut expected = alternative_names(self.service.as_deref());
        let own = self.workload.identity();
        if !expected.contains(&own) {
            expected.push(own);
        }
        expected
    }
}

/// What an address leads to.
enum Lookup {
    Upstream(Upstream),
    /// A service without an endpoint that may be picked.
    NoEndpoint,
    /// Nothing to choose from: a service that is not balanced, or nobody we know.
    Unbalanced(Option<Arc<Service>>),
}

/// One decision.
struct Router<'a> {
    snapshot: &'a Snapshot,
    facts: &'a Outbound<'a>,
    /// The address the connection asked for.
    target: SocketAddr,
    balancer: Balancer<'a>,
    rng: &'a mut fastrand::Rng,
}

impl<'a> Router<'a> {
    fn is_self_call(&self, addr: SocketAddr) -> bool {
        let ip = addr.ip();
        let own =
            || ip == self.facts.client.0.ip().to_canonical() || self.facts.source.ips.contains(&ip);
        is_own_port(addr.port()) && (ip.is_loopback() || ip.is_unspecified() || own())
    }

    /// Who may be there and has not been asked for is not nobody.
    fn is_answered(&self, wanted: Wanted) -> Result<(), Refusal> {
        if self.snapshot.must_ask(&wanted) {
            return Err(Refusal::Unanswered(wanted));
        }
        Ok(())
    }

    /// Services go before workloads (spec discovery-and-balancing 3 step 5).
    fn lookup(&mut self, addr: &NetworkAddr, port: u16, purpose: Purpose) -> Lookup {
        let client = Some(&*self.facts.source.namespace);
        if let Some(service) = self.snapshot.service_by_vip(addr, client) {
            if service.is_passthrough() {
                return Lookup::Unbalanced(Some(Arc::clone(service)));
            }
            return match self.pick(service, port, purpose, addr.ip) {
                Some(upstream) => Lookup::Upstream(upstream),
                None => Lookup::NoEndpoint,
            };
        }
        match self.snapshot.workload_by_addr(addr) {
            Some(workload) => {
                let addr = SocketAddr::new(addr.ip, port);
                Lookup::Upstream(Upstream::at(Arc::clone(workload), addr))
            }
            None => Lookup::Unbalanced(None),
        }
    }

    fn pick(
        &mut self,
        service: &Arc<Service>,
        port: u16,
        purpose: Purpose,
        target: IpAddr,
    ) -> Option<Upstream> {
        let picked = self.balancer.pick(service, port, purpose, self.rng)?;
        Some(Upstream {
            workload: Arc::clone(picked.workload),
            service: Some(Arc::clone(service)),
            ip: pick_ip(picked.workload, Some(service), target),
            port: picked.port,
        })
    }

    /// The waypoint of a service for this connection (spec discovery-and-balancing 6.1).
    fn service_waypoint<'s>(&mut self, service: &'s Service) -> Option<&'s GatewayRef> {
        let weights = || service.weighted_waypoints.iter().map(|w| u64::from(w.weight));
        let total: u64 = weights().sum();
        if total == 0 {
            return service.waypoint.as_ref();
        }
        let mut left = self.rng.u64(..total);
        let chosen = service.weighted_waypoints.iter().find(|waypoint| {
            let weight = u64::from(waypoint.weight);
            let found = left < weight;
            left = left.saturating_sub(weight);
            found
        });
        chosen.map(|waypoint| &waypoint.destination)
    }

    /// A workload of the waypoint (spec discovery-and-balancing 6.2). One that cannot be resolved
    /// is never passed by.
    fn waypoint(&mut self, waypoint: &GatewayRef) -> Result<Upstream, Refusal> {
        let port = waypoint.hbone_mtls_port;
        self.is_answered(waypoint.destination.wanted())?;
        match &waypoint.destination {
            GatewayAddress::Hostname(key) => {
                self.named(key, port, Purpose::Waypoint).ok_or(Refusal::WaypointUnknown)
            }
            GatewayAddress::Address(addr) => match self.lookup(addr, port, Purpose::Waypoint) {
                Lookup::Upstream(upstream) => Ok(upstream),
                Lookup::NoEndpoint | Lookup::Unbalanced(_) => Err(Refusal::WaypointUnknown),
            },
        }
    }

    /// A workload of the gateway in front of another network (spec discovery-and-balancing 7).
    fn gateway(&mut self, gateway: &GatewayRef) -> Result<Upstream, Refusal> {
        let port = gateway.hbone_mtls_port;
        self.is_answered(gateway.destination.wanted())?;
        let found = match &gateway.destination {
            GatewayAddress::Hostname(key) => self.named(key, port, Purpose::Gateway),
            GatewayAddress::Address(addr) => {
                let workload = self.snapshot.workload_by_addr(addr).cloned();
                workload.map(|w| Upstream::at(w, SocketAddr::new(addr.ip, port)))
            }
        };
        found.ok_or(Refusal::GatewayUnknown)
    }

    /// An endpoint of exactly this service, else the workload of that name.
    fn named(&mut self, key: &ServiceKey, port: u16, purpose: Purpose) -> Option<Upstream> {
        let target = self.target.ip();
        if let Some(service) = self.snapshot.service(key) {
            return self.pick(service, port, purpose, target);
        }
        let workload = Arc::clone(self.snapshot.workload_by_host(key)?);
        let ip = pick_ip(&workload, None, target);
        Some(Upstream { workload, service: None, ip, port })
    }

    /// Whether the connection comes from this very waypoint (spec discovery-and-balancing 6.3).
    fn is_from(&self, waypoint: &GatewayRef) -> bool {
        let (snapshot, source) = (self.snapshot, self.facts.source);
        let client = self.facts.client.0.ip().to_canonical();
        let is_source = |workload: &Arc<Workload>| {
            workload.ips.contains(&client) && workload.identity() == source.identity()
        };
        let has_source = |key: &ServiceKey| {
            let uids = snapshot.endpoints(key).map(|endpoint| &endpoint.workload_uid);
            uids.filter_map(|uid| snapshot.workload(uid)).any(is_source)
        };
        match &waypoint.destination {
            GatewayAddress::Hostname(key) => {
                has_source(key) || snapshot.workload_by_host(key).is_some_and(is_source)
            }
            GatewayAddress::Address(addr) => {
                let service = snapshot.service_by_vip(addr, Some(&source.namespace));
                service.is_some_and(|service| has_source(&service.key))
                    || snapshot.workload_by_addr(addr).is_some_and(is_source)
            }
        }
    }

    /// Spec discovery-and-balancing 6.4: the waypoint is told the original destination.
    fn through_waypoint(
        &mut self,
        upstream: Upstream,
        service: Option<&Arc<Service>>,
    ) -> Result<Route, Refusal> {
        if upstream.workload.network != self.facts.source.network {
            return self.through_gateway(&upstream, service);
        }
        Ok(Route::Tunnel(TunnelRoute {
            hop: Hop(upstream.addr()?),
            authority: Authority::Addr(self.target),
            expected: upstream.expected(),
            destination: upstream.workload,
            service: service.cloned(),
        }))
    }

    /// Spec discovery-and-balancing 7: `service` is the one that was addressed, `upstream` what was
    /// picked of it or of its waypoint.
    fn through_gateway(
        &mut self,
        upstream: &Upstream,
        service: Option<&Arc<Service>>,
    ) -> Result<Route, Refusal> {
        let service = service.ok_or(Refusal::OtherNetworkWithoutService)?;
        let reference = upstream.workload.network_gateway.as_ref();
        let gateway = self.gateway(reference.ok_or(Refusal::GatewayUnknown)?)?;
        let outer = TunnelRoute {
            hop: Hop(gateway.addr()?),
            authority: Authority::Host(Arc::clone(&service.key.hostname), self.target.port()),
            expected: gateway.expected(),
            destination: gateway.workload,
            service: Some(Arc::clone(service)),
        };
        // What identity a workload of another network has is not known here: only its service's.
        let inner_expected = alternative_names(upstream.service.as_deref());
        Ok(Route::DoubleTunnel { outer, inner_expected })
    }

    /// Spec discovery-and-balancing 3 step 9.
    fn direct(&self, upstream: Upstream) -> Result<Route, Refusal> {
        let addr = upstream.addr()?;
        match upstream.workload.protocol {
            WorkloadProtocol::Tcp => self.plain(addr, Some(upstream.workload), upstream.service),
            WorkloadProtocol::Hbone => Ok(Route::Tunnel(TunnelRoute {
                hop: Hop(SocketAddr::new(addr.ip(), HBONE_PORT)),
                authority: Authority::Addr(addr),
                expected: upstream.expected(),
                destination: upstream.workload,
                service: upstream.service,
            })),
        }
    }

    /// The only way out in plain text.
    fn plain(
        &self,
        addr: SocketAddr,
        destination: Option<Arc<Workload>>,
        service: Option<Arc<Service>>,
    ) -> Result<Route, Refusal> {
        if self.is_self_call(addr) {
            return Err(Refusal::SelfCall);
        }
        let network = Arc::clone(&self.facts.source.network);
        let there = self.snapshot.workload_by_addr(&NetworkAddr { network, ip: addr.ip() });
        if let Some(meshed) = there.filter(|w| w.protocol == WorkloadProtocol::Hbone) {
            return self.direct(Upstream { service, ..Upstream::at(Arc::clone(meshed), addr) });
        }
        let destination = destination.or_else(|| there.cloned());
        Ok(Route::Passthrough { hop: Hop(addr), destination, service })
    }
}

fn alternative_names(service: Option<&Service>) -> Vec<Identity> {
    service.map_or_else(Vec::new, |service| service.subject_alt_names.clone())
}

#[cfg(test)]
mod tests;
