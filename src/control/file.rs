//! The local configuration file (spec operations 4), read again whenever it changes.

mod records;
mod watch;

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use crate::model::{Delta, Policy, PolicyKey, Service, ServiceKey, Workload};

pub use watch::{FileSource, FileStatus};

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
    workloads: HashMap<Arc<str>, Workload>,
    services: HashMap<ServiceKey, Service>,
    policies: HashMap<PolicyKey, Policy>,
}

impl Contents {
    /// Reads a text.
    pub(crate) fn read(text: &str) -> Result<Self, FileError> {
        let records = records::parse(text)?;
        let mut contents = Self::default();
        for workload in records.workloads {
            let uid = Arc::clone(&workload.uid);
            enter(&mut contents.workloads, uid, workload, "workload")?;
        }
        for service in records.services {
            let key = service.key.clone();
            enter(&mut contents.services, key, service, "service")?;
        }
        for policy in records.policies {
            let key = policy.key.clone();
            enter(&mut contents.policies, key, policy, "policy")?;
        }
        Ok(contents)
    }

    /// What changed from `before` to this.
    pub(crate) fn since(&self, before: &Self) -> Delta {
        let (workloads, workloads_removed) = difference(&before.workloads, &self.workloads);
        let (services, services_removed) = difference(&before.services, &self.services);
        let (policies, policies_removed) = difference(&before.policies, &self.policies);
        Delta {
            workloads,
            services,
            policies,
            workloads_removed,
            services_removed,
            policies_removed,
        }
    }
}

fn enter<K: Hash + Eq + fmt::Display, V>(
    map: &mut HashMap<K, V>,
    key: K,
    value: V,
    kind: &str,
) -> Result<(), FileError> {
    if map.contains_key(&key) {
        return Err(FileError { place: None, reason: format!("{kind} {key} is there twice") });
    }
    map.insert(key, value);
    Ok(())
}

fn difference<K: Hash + Eq + Clone, V: PartialEq + Clone>(
    before: &HashMap<K, V>,
    after: &HashMap<K, V>,
) -> (Vec<V>, Vec<K>) {
    let changed = after.iter().filter(|(key, value)| before.get(key) != Some(value));
    let removed = before.keys().filter(|key| !after.contains_key(key));
    (changed.map(|(_, value)| value.clone()).collect(), removed.cloned().collect())
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
