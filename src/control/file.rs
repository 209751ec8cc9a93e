//! The local configuration file (spec operations 4), read again whenever it changes.

pub(crate) mod follow;
mod records;
mod watch;

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use crate::model::{Delta, Policy, PolicyKey, Service, ServiceKey, Workload};

pub use watch::{FileSource, FileStatus};

/// The largest text that is read, bytes.
const BYTES_MAX: usize = 256 * 1024 * 1024;

/// Line and column, from 1.
type Place = (u64, u64);

/// Why a configuration text cannot be used. It is used as a whole or not at all: a part that cannot
/// be understood might be the one that denies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// Line and column, from 1, where known.
    pub place: Option<(u64, u64)>,
    /// What is wrong: the field and the reason.
    pub reason: String,
}

/// A whole configuration, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    workloads: Items<Arc<str>, Workload>,
    services: Items<ServiceKey, Service>,
    policies: Items<PolicyKey, Policy>,
}

/// Items by key, in the order of the file: among equals the mesh takes the first or the last, so
/// the order must be the same every time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Items<K: Hash + Eq, V> {
    list: Vec<(K, V)>,
    index: HashMap<K, usize>,
}

impl Contents {
    /// Reads a text.
    pub(crate) fn read(text: &str) -> Result<Self, FileError> {
        let records = records::parse(text, BYTES_MAX)?;
        let mut contents = Self::default();
        for (place, workload) in records.workloads {
            let uid = Arc::clone(&workload.uid);
            contents.workloads.enter(place, "workload", uid, workload)?;
        }
        for (place, service) in records.services {
            contents.services.enter(place, "service", service.key.clone(), service)?;
        }
        for (place, policy) in records.policies {
            contents.policies.enter(place, "policy", policy.key.clone(), policy)?;
        }
        Ok(contents)
    }

    /// How many workloads, services and policies there are.
    fn counts(&self) -> (usize, usize, usize) {
        (self.workloads.list.len(), self.services.list.len(), self.policies.list.len())
    }

    /// What changed from `before` to this.
    pub(crate) fn since(&self, before: &Self) -> Delta {
        Delta {
            workloads: self.workloads.changed_since(&before.workloads),
            services: self.services.changed_since(&before.services),
            policies: self.policies.changed_since(&before.policies),
            workloads_removed: before.workloads.missing_in(&self.workloads),
            services_removed: before.services.missing_in(&self.services),
            policies_removed: before.policies.missing_in(&self.policies),
            ..Delta::default()
        }
    }
}

impl<K: Hash + Eq + Clone + fmt::Display, V: PartialEq + Clone> Items<K, V> {
    fn enter(&mut self, place: Place, kind: &str, key: K, value: V) -> Result<(), FileError> {
        if self.index.insert(key.clone(), self.list.len()).is_some() {
            let reason = format!("{kind} {key} is there twice");
            return Err(FileError { place: Some(place), reason });
        }
        self.list.push((key, value));
        Ok(())
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.index.get(key).map(|&at| &self.list[at].1)
    }

    fn changed_since(&self, before: &Self) -> Vec<V> {
        let changed = self.list.iter().filter(|(key, value)| before.get(key) != Some(value));
        changed.map(|(_, value)| value.clone()).collect()
    }

    fn missing_in(&self, after: &Self) -> Vec<K> {
        let gone = self.list.iter().filter(|(key, _)| after.get(key).is_none());
        gone.map(|(key, _)| key.clone()).collect()
    }
}

impl<K: Hash + Eq, V> Default for Items<K, V> {
    fn default() -> Self {
        Self { list: Vec::new(), index: HashMap::new() }
    }
}

impl FileError {
    fn new(reason: impl Into<String>) -> Self {
        Self { place: None, reason: reason.into() }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for FileError {}

#[cfg(test)]
mod tests;
