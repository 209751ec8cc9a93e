//! A map cut into copy-on-write shards, so that publishing one change copies 1/256 of it.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::HashMap;
use foldhash::fast::RandomState;

const SHARDS: usize = 256;

/// An immutable map that is cheap to copy and cheap to change a little.
#[derive(Clone, Debug)]
pub(super) struct Shards<K, V> {
    shards: Vec<Arc<HashMap<K, V>>>,
    hasher: RandomState,
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.shards[self.index(key)].get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let index = self.index(&key);
        Arc::make_mut(&mut self.shards[index]).insert(key, value)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let index = self.index(key);
        if !self.shards[index].contains_key(key) {
            return None;
        }
        Arc::make_mut(&mut self.shards[index]).remove(key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(|shard| shard.values())
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    fn index(&self, key: &K) -> usize {
        // The remainder is below SHARDS, so the narrowing cannot lose anything.
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0)
    }
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        // One empty map shared by all shards: `make_mut` separates them on the first write.
        let empty = Arc::new(HashMap::default());
        let shards = (0..SHARDS).map(|_| Arc::clone(&empty)).collect();
        Self { shards, hasher: RandomState::default() }
    }
}
