//! One consistent generation of the whole mesh, with the look-ups that decisions need.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::shards::{Shards, Table};
use super::{
    Endpoint, NetworkAddr, NetworkMode, PodName, Policy, PolicyKey, Service, ServiceKey, Wanted,
    Workload, WorkloadProtocol,
};

/// Namespace and name.
type NamespacedName = (Arc<str>, Arc<str>);
/// Usually one, and then without an allocation of its own: an index is copied with its leaf.
type Few<T> = SmallVec<[T; 1]>;
pub(super) type Endpoints = BTreeMap<Arc<str>, Endpoint>;

/// The mesh at one generation. Copying one is cheap; nothing in it changes after publication.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) generation: u64,
    pub(super) workloads: Table<Arc<Workload>>,
    pub(super) uids_by_addr: Shards<NetworkAddr, Few<Arc<str>>>,
    pub(super) uids_by_pod: Shards<NamespacedName, Few<Arc<str>>>,
    pub(super) uids_by_host: Shards<ServiceKey, Few<Arc<str>>>,
    pub(super) services: Table<Arc<Service>>,
    /// Endpoints by service, also of services that have not arrived yet.
    pub(super) endpoints: Shards<ServiceKey, Arc<Endpoints>>,
    pub(super) services_by_vip: Shards<NetworkAddr, Few<ServiceKey>>,
    pub(super) services_by_host: Shards<Arc<str>, Few<ServiceKey>>,
    pub(super) cidr_vips: Arc<Vec<(Arc<str>, IpNet, ServiceKey)>>,
    pub(super) policies: Table<Arc<Policy>>,
    pub(super) policies_by_namespace: Shards<Arc<str>, Arc<Vec<Arc<Policy>>>>,
    pub(super) policies_global: Arc<Vec<Arc<Policy>>>,
    /// What was asked for and answered; `None` if nothing has to be asked for.
    pub(super) answered: Option<Shards<Wanted, ()>>,
}

/// What an address belongs to.
#[derive(Clone, Debug)]
pub enum Address {
    /// A workload's own address.
    Workload(Arc<Workload>),
    /// A service's virtual address.
    Service(Arc<Service>),
}

impl Snapshot {
    /// An empty one, of a mesh that is asked for one by one (spec xds 5.5).
    pub(super) fn on_demand() -> Self {
        Self { answered: Some(Shards::default()), ..Self::default() }
    }

    /// Whether the control plane would have to be asked before it can be said that somebody is not
    /// there. What is there is known for as long as it is.
    pub fn must_ask(&self, wanted: &Wanted) -> bool {
        let Some(answered) = &self.answered else { return false };
        let known = match wanted {
            Wanted::Addr(addr) => {
                self.uids_by_addr.get(addr).is_some() || self.services_by_vip.get(addr).is_some()
            }
            Wanted::Host(key) => {
                self.services.get(key).is_some() || self.uids_by_host.get(key).is_some()
            }
        };
        !known && answered.get(wanted).is_none()
    }

    /// Grows by one with every publication.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A workload by its uid.
    pub fn workload(&self, uid: &Arc<str>) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The best workload with this address (spec discovery-and-balancing 2.3).
    pub fn workload_by_addr(&self, addr: &NetworkAddr) -> Option<&Arc<Workload>> {
        let rank = |workload: &Workload| {
            let pod = workload.uid.contains("//Pod/");
            let hbone = workload.protocol == WorkloadProtocol::Hbone;
            match (pod, hbone) {
                (true, true) => 3,
                (true, false) => 2,
                (false, true) => 1,
                (false, false) => 0,
            }
        };
        let uids = self.uids_by_addr.get(addr)?;
        // `max_by_key` keeps the last of equals: the one inserted last.
        uids.iter().filter_map(|uid| self.workloads.get(uid)).max_by_key(|w| rank(w))
    }

    /// The record of a pod of this node; of any node when `node` is `None` (spec identity 1).
    pub fn workload_of_pod(&self, pod: &PodName, node: Option<&str>) -> Option<&Arc<Workload>> {
        let uids = self.uids_by_pod.get(&(Arc::clone(&pod.namespace), Arc::clone(&pod.name)))?;
        uids.iter()
            .filter_map(|uid| self.workloads.get(uid))
            .find(|w| w.is_pod(pod) && node.is_none_or(|node| &*w.node == node))
    }

    /// A workload by namespace and host name (spec discovery-and-balancing 2.4).
    pub fn workload_by_host(&self, key: &ServiceKey) -> Option<&Arc<Workload>> {
        self.uids_by_host.get(key)?.iter().find_map(|uid| self.workloads.get(uid))
    }

    /// What an address belongs to; workloads go before services (spec discovery-and-balancing
    /// 2.1).
    pub fn address(&self, addr: &NetworkAddr, client_namespace: Option<&str>) -> Option<Address> {
        if let Some(workload) = self.workload_by_addr(addr) {
            return Some(Address::Workload(Arc::clone(workload)));
        }
        self.service_by_vip(addr, client_namespace).map(|s| Address::Service(Arc::clone(s)))
    }

    /// A service by exactly this namespace and host name.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// The best service with this virtual address (spec discovery-and-balancing 2.2).
    pub fn service_by_vip(
        &self,
        addr: &NetworkAddr,
        client: Option<&str>,
    ) -> Option<&Arc<Service>> {
        let keys = self.services_by_vip.get(addr).map_or(&[][..], Few::as_slice);
        let exact = best(keys.iter().filter_map(|key| self.services.get(key)), client);
        exact.or_else(|| self.service_by_cidr(addr, client))
    }

    fn service_by_cidr(&self, addr: &NetworkAddr, client: Option<&str>) -> Option<&Arc<Service>> {
        let mut best = None;
        let mut rank_best = None;
        for (network, net, key) in self.cidr_vips.iter() {
            if *network != addr.network || !net.contains(&addr.ip) {
                continue;
            }
            let Some(service) = self.services.get(key) else { continue };
            if client.is_some_and(|client| !service.visible_to(client)) {
                continue;
            }
            let own = client.is_some_and(|client| client == &*service.key.namespace);
            let rank = Some((own, net.prefix_len(), service.canonical));
            // Of equals, the first stays.
            if rank > rank_best {
                (best, rank_best) = (Some(service), rank);
            }
        }
        best
    }

    /// Every service with this address among its virtual addresses or ranges, in no particular
    /// order, whoever may use it.
    pub fn services_at(&self, addr: &NetworkAddr) -> impl Iterator<Item = &Arc<Service>> {
        let exact = self.services_by_vip.get(addr).into_iter().flatten();
        let ranges = self.cidr_vips.iter().filter_map(|(network, net, key)| {
            (*network == addr.network && net.contains(&addr.ip)).then_some(key)
        });
        exact.chain(ranges).filter_map(|key| self.services.get(key))
    }

    /// The best service with this bare host name (spec discovery-and-balancing 2.4).
    pub fn service_by_host(&self, hostname: &str, client: Option<&str>) -> Option<&Arc<Service>> {
        self.service_by_host_if(hostname, client, |_| true)
    }

    /// The best of those services with this bare host name that `accept` accepts.
    pub fn service_by_host_if(
        &self,
        hostname: &str,
        client: Option<&str>,
        accept: impl Fn(&Service) -> bool,
    ) -> Option<&Arc<Service>> {
        let keys = self.services_by_host.get(&Arc::from(hostname))?;
        let services = keys.iter().filter_map(|key| self.services.get(key));
        best(services.filter(|service| accept(service)), client)
    }

    /// The endpoints of a service, by workload uid.
    pub fn endpoints(&self, service: &ServiceKey) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.get(service).into_iter().flat_map(|endpoints| endpoints.values())
    }

    /// The endpoint a workload is of a service.
    pub fn endpoint(&self, service: &ServiceKey, uid: &Arc<str>) -> Option<&Endpoint> {
        self.endpoints.get(service)?.get(uid)
    }

    /// A policy by name.
    pub fn policy(&self, key: &PolicyKey) -> Option<&Arc<Policy>> {
        self.policies.get(key)
    }

    /// The policies that apply to every workload of a namespace.
    pub fn policies_of_namespace(&self, namespace: &Arc<str>) -> &[Arc<Policy>] {
        self.policies_by_namespace.get(namespace).map_or(&[], |policies| policies.as_slice())
    }

    /// The policies that apply to every workload.
    pub fn policies_global(&self) -> &[Arc<Policy>] {
        &self.policies_global
    }

    /// Every workload, in no particular order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// Every service, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// Every policy, in no particular order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    /// How many workloads, services and policies there are.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.workloads.len(), self.services.len(), self.policies.len())
    }

    /// Whether a workload can be found by this address.
    pub(super) fn indexed_by_addr(workload: &Workload) -> impl Iterator<Item = IpAddr> {
        let own = workload.network_mode == NetworkMode::Standard;
        workload.ips.iter().copied().filter(move |_| own)
    }

    /// The name a workload can be found by, if it has one.
    pub(super) fn indexed_by_host(workload: &Workload) -> Option<ServiceKey> {
        let (namespace, hostname) = (&workload.namespace, &workload.hostname);
        (!hostname.is_empty()).then(|| ServiceKey {
            namespace: Arc::clone(namespace),
            hostname: Arc::clone(hostname),
        })
    }
}

/// The best of several services: the last of the client's namespace, else the last canonical one,
/// else the first (spec discovery-and-balancing 1, 2.2).
fn best<'a>(
    services: impl Iterator<Item = &'a Arc<Service>>,
    client: Option<&str>,
) -> Option<&'a Arc<Service>> {
    let (mut own, mut canonical, mut first) = (None, None, None);
    for service in services {
        if client.is_some_and(|client| !service.visible_to(client)) {
            continue;
        }
        if client == Some(&*service.key.namespace) {
            own = Some(service);
        }
        if service.canonical {
            canonical = Some(service);
        }
        first = first.or(Some(service));
    }
    own.or(canonical).or(first)
}

#[cfg(test)]
mod tests;
