//! Changes that wait to be published: of each item the last one counts.

use std::hash::Hash;
use std::sync::Arc;

use foldhash::HashMap;

use super::ingest::{Item, Key};
use crate::model::{Delta, Policy, PolicyKey, Service, ServiceKey, Snapshot, Workload};

/// What has changed since the last publication.
#[derive(Debug, Default)]
pub(super) struct Changes {
    workloads: Last<Arc<str>, Workload>,
    services: Last<ServiceKey, Service>,
    policies: Last<PolicyKey, Policy>,
}

/// The last change of each item, in the order in which the items changed first: among equals the
/// mesh takes the first or the last.
#[derive(Debug)]
struct Last<K, V> {
    list: Vec<(K, Option<V>)>,
    index: HashMap<K, usize>,
}

impl Changes {
    /// An item is there, under the name of its resource.
    pub(super) fn set(&mut self, name: &Arc<str>, item: Item) {
        match item {
            Item::Workload(workload) => self.workloads.set(Arc::clone(name), Some(*workload)),
            Item::Service(service) => self.services.set(service.key.clone(), Some(*service)),
            Item::Policy(policy) => self.policies.set(policy.key.clone(), Some(*policy)),
        }
    }

    /// An item is gone.
    pub(super) fn remove(&mut self, name: &Arc<str>, key: Key) {
        match key {
            Key::Workload => self.workloads.set(Arc::clone(name), None),
            Key::Service(key) => self.services.set(key, None),
            Key::Policy(key) => self.policies.set(key, None),
        }
    }

    /// Whether an item is what it was, so that nobody has to be told.
    pub(super) fn is_known(&self, name: &Arc<str>, item: &Item, current: &Snapshot) -> bool {
        match item {
            Item::Workload(new) => {
                let before = current.workload(name).map(|arc| &**arc);
                self.workloads.get(name).unwrap_or(before) == Some(&**new)
            }
            Item::Service(new) => {
                let before = current.service(&new.key).map(|arc| &**arc);
                self.services.get(&new.key).unwrap_or(before) == Some(&**new)
            }
            Item::Policy(new) => {
                let before = current.policy(&new.key).map(|arc| &**arc);
                self.policies.get(&new.key).unwrap_or(before) == Some(&**new)
            }
        }
    }

    /// All of them, for publication.
    pub(super) fn take(&mut self) -> Delta {
        let (workloads, workloads_removed) = std::mem::take(&mut self.workloads).split();
        let (services, services_removed) = std::mem::take(&mut self.services).split();
        let (policies, policies_removed) = std::mem::take(&mut self.policies).split();
        Delta {
            workloads,
            services,
            policies,
            workloads_removed,
            services_removed,
            policies_removed,
            ..Delta::default()
        }
    }
}

impl<K: Hash + Eq + Clone, V> Last<K, V> {
    fn set(&mut self, key: K, value: Option<V>) {
        match self.index.get(&key) {
            Some(&at) => self.list[at].1 = value,
            None => {
                self.index.insert(key.clone(), self.list.len());
                self.list.push((key, value));
            }
        }
    }

    /// What the item is to become; `None` if it has not changed.
    fn get(&self, key: &K) -> Option<Option<&V>> {
        self.index.get(key).map(|&at| self.list[at].1.as_ref())
    }

    fn split(self) -> (Vec<V>, Vec<K>) {
        let (mut there, mut gone) = (Vec::new(), Vec::new());
        for (key, value) in self.list {
            match value {
                Some(value) => there.push(value),
                None => gone.push(key),
            }
        }
        (there, gone)
    }
}

impl<K, V> Default for Last<K, V> {
    fn default() -> Self {
        Self { list: Vec::new(), index: HashMap::default() }
    }
}
