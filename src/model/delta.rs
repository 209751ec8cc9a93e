//! What changed, and the pure step from one snapshot to the next.

use std::sync::Arc;

use super::snapshot::Snapshot;
use super::{
    Endpoint, NetworkAddr, Policy, PolicyKey, Scope, Service, ServiceKey, Wanted, Workload,
};

/// A batch of changes; updates are applied before removals (spec xds 5.2).
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// Workloads that are new or changed.
    pub workloads: Vec<Workload>,
    /// Services that are new or changed.
    pub services: Vec<Service>,
    /// Policies that are new or changed.
    pub policies: Vec<Policy>,
    /// Uids of workloads that are gone.
    pub workloads_removed: Vec<Arc<str>>,
    /// Services that are gone.
    pub services_removed: Vec<ServiceKey>,
    /// Policies that are gone.
    pub policies_removed: Vec<PolicyKey>,
    /// What the control plane was asked for and has answered, be it with nothing.
    pub answered: Vec<Wanted>,
    /// What would have to be asked for again.
    pub unanswered: Vec<Wanted>,
}

impl Delta {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.workloads.is_empty()
            && self.services.is_empty()
            && self.policies.is_empty()
            && self.workloads_removed.is_empty()
            && self.services_removed.is_empty()
            && self.policies_removed.is_empty()
            && self.answered.is_empty()
            && self.unanswered.is_empty()
    }

    /// The snapshot after this batch, one generation later.
    pub fn apply(self, base: &Snapshot) -> Snapshot {
        let mut next = base.clone();
        next.generation += 1;
        for service in self.services {
            next.remove_service(&service.key);
            next.insert_service(service);
        }
        for workload in self.workloads {
            next.replace_workload(workload);
        }
        for policy in self.policies {
            next.remove_policy(&policy.key);
            next.insert_policy(policy);
        }
        for uid in &self.workloads_removed {
            next.remove_workload(uid);
        }
        for key in &self.services_removed {
            next.remove_service(key);
        }
        for key in &self.policies_removed {
            next.remove_policy(key);
        }
        if let Some(answered) = &mut next.answered {
            for wanted in &self.unanswered {
                answered.remove(wanted);
            }
            for wanted in self.answered {
                answered.insert(wanted, ());
            }
        }
        next
    }
}

impl Snapshot {
    /// Most changes leave a workload where it is found: then the indexes are left alone.
    fn replace_workload(&mut self, workload: Workload) {
        let Some(before) = self.workloads.get(&workload.uid).cloned() else {
            return self.insert_workload(workload);
        };
        if !self.is_found_alike(&before, &workload) {
            self.remove_workload(&workload.uid);
            return self.insert_workload(workload);
        }
        let workload = Arc::new(workload);
        if before.services != workload.services || before.status != workload.status {
            self.remove_endpoints(&before);
            self.insert_endpoints(&workload);
        }
        self.workloads.insert(workload);
    }

    /// Whether both are found under the same keys, and alone: among equals the order counts.
    fn is_found_alike(&self, before: &Workload, after: &Workload) -> bool {
        let pod = |of: &Workload| (Arc::clone(&of.namespace), Arc::clone(&of.name));
        let same = before.network == after.network
            && Self::indexed_by_addr(before).eq(Self::indexed_by_addr(after))
            && pod(before) == pod(after)
            && Self::indexed_by_host(before) == Self::indexed_by_host(after);
        same && self.uids_by_pod.get(&pod(after)).is_some_and(|uids| uids.len() == 1)
            && Self::indexed_by_addr(after).all(|ip| {
                let addr = NetworkAddr { network: Arc::clone(&after.network), ip };
                self.uids_by_addr.get(&addr).is_some_and(|uids| uids.len() == 1)
            })
            && Self::indexed_by_host(after)
                .is_none_or(|host| self.uids_by_host.get(&host).is_some_and(|uids| uids.len() == 1))
    }

    fn insert_workload(&mut self, workload: Workload) {
        let workload = Arc::new(workload);
        for ip in Self::indexed_by_addr(&workload) {
            let addr = NetworkAddr { network: Arc::clone(&workload.network), ip };
            let mut uids = self.uids_by_addr.remove(&addr).unwrap_or_default();
            uids.push(Arc::clone(&workload.uid));
            self.uids_by_addr.insert(addr, uids);
        }
        let pod = (Arc::clone(&workload.namespace), Arc::clone(&workload.name));
        let mut uids = self.uids_by_pod.remove(&pod).unwrap_or_default();
        uids.push(Arc::clone(&workload.uid));
        self.uids_by_pod.insert(pod, uids);
        if let Some(host) = Self::indexed_by_host(&workload) {
            let mut uids = self.uids_by_host.remove(&host).unwrap_or_default();
            uids.push(Arc::clone(&workload.uid));
            self.uids_by_host.insert(host, uids);
        }
        self.insert_endpoints(&workload);
        self.workloads.insert(workload);
    }

    fn insert_endpoints(&mut self, workload: &Workload) {
        for (key, ports) in &workload.services {
            // Taken out, so that a batch copies a service's endpoints once and not for each of
            // them.
            let mut endpoints = self.endpoints.remove(key).unwrap_or_default();
            let endpoint = Endpoint {
                workload_uid: Arc::clone(&workload.uid),
                ports: ports.clone(),
                status: workload.status,
            };
            Arc::make_mut(&mut endpoints).insert(Arc::clone(&workload.uid), endpoint);
            self.endpoints.insert(key.clone(), endpoints);
        }
    }

    fn remove_workload(&mut self, uid: &Arc<str>) {
        let Some(workload) = self.workloads.remove(uid) else { return };
        for ip in Self::indexed_by_addr(&workload) {
            let addr = NetworkAddr { network: Arc::clone(&workload.network), ip };
            let mut uids = self.uids_by_addr.remove(&addr).unwrap_or_default();
            uids.retain(|other| other != uid);
            if !uids.is_empty() {
                self.uids_by_addr.insert(addr, uids);
            }
        }
        let pod = (Arc::clone(&workload.namespace), Arc::clone(&workload.name));
        let mut uids = self.uids_by_pod.remove(&pod).unwrap_or_default();
        uids.retain(|other| other != uid);
        if !uids.is_empty() {
            self.uids_by_pod.insert(pod, uids);
        }
        if let Some(host) = Self::indexed_by_host(&workload) {
            let mut uids = self.uids_by_host.remove(&host).unwrap_or_default();
            uids.retain(|other| other != uid);
            if !uids.is_empty() {
                self.uids_by_host.insert(host, uids);
            }
        }
        self.remove_endpoints(&workload);
    }

    fn remove_endpoints(&mut self, workload: &Workload) {
        for (key, _) in &workload.services {
            let mut endpoints = self.endpoints.remove(key).unwrap_or_default();
            Arc::make_mut(&mut endpoints).remove(&workload.uid);
            if !endpoints.is_empty() {
                self.endpoints.insert(key.clone(), endpoints);
            }
        }
    }

    fn insert_service(&mut self, service: Service) {
        let service = Arc::new(service);
        for vip in &service.vips {
            let mut keys = self.services_by_vip.remove(vip).unwrap_or_default();
            keys.push(service.key.clone());
            self.services_by_vip.insert(vip.clone(), keys);
        }
        let host = Arc::clone(&service.key.hostname);
        let mut keys = self.services_by_host.remove(&host).unwrap_or_default();
        keys.push(service.key.clone());
        self.services_by_host.insert(host, keys);
        if !service.cidr_vips.is_empty() {
            let cidrs = Arc::make_mut(&mut self.cidr_vips);
            for (network, net) in &service.cidr_vips {
                cidrs.push((Arc::clone(network), *net, service.key.clone()));
            }
        }
        self.services.insert(service);
    }

    fn remove_service(&mut self, key: &ServiceKey) {
        let Some(service) = self.services.remove(key) else { return };
        for vip in &service.vips {
            let mut keys = self.services_by_vip.remove(vip).unwrap_or_default();
            keys.retain(|other| other != key);
            if !keys.is_empty() {
                self.services_by_vip.insert(vip.clone(), keys);
            }
        }
        let mut keys = self.services_by_host.remove(&key.hostname).unwrap_or_default();
        keys.retain(|other| other != key);
        if !keys.is_empty() {
            self.services_by_host.insert(Arc::clone(&key.hostname), keys);
        }
        if !service.cidr_vips.is_empty() {
            Arc::make_mut(&mut self.cidr_vips).retain(|(_, _, other)| other != key);
        }
    }

    fn insert_policy(&mut self, policy: Policy) {
        let policy = Arc::new(policy);
        match policy.scope {
            Scope::Global => Arc::make_mut(&mut self.policies_global).push(Arc::clone(&policy)),
            Scope::Namespace => {
                let namespace = Arc::clone(&policy.key.namespace);
                let mut list = self.policies_by_namespace.remove(&namespace).unwrap_or_default();
                Arc::make_mut(&mut list).push(Arc::clone(&policy));
                self.policies_by_namespace.insert(namespace, list);
            }
            Scope::WorkloadSelector => {}
        }
        self.policies.insert(policy);
    }

    fn remove_policy(&mut self, key: &PolicyKey) {
        let Some(policy) = self.policies.remove(key) else { return };
        match policy.scope {
            Scope::Global => {
                Arc::make_mut(&mut self.policies_global).retain(|other| other.key != *key);
            }
            Scope::Namespace => {
                let mut list =
                    self.policies_by_namespace.remove(&key.namespace).unwrap_or_default();
                Arc::make_mut(&mut list).retain(|other| other.key != *key);
                if !list.is_empty() {
                    self.policies_by_namespace.insert(Arc::clone(&key.namespace), list);
                }
            }
            Scope::WorkloadSelector => {}
        }
    }
}

#[cfg(test)]
mod tests;
