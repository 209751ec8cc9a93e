//! Maps cut into copy-on-write leaves, so that publishing a change copies little of them.
//!
//! In two steps, 128 blocks of 64 leaves: a new snapshot shares everything; a change copies 128
//! pointers, 64 more, and one leaf, which at 100,000 entries has 12. What is copied is counted
//! references of things all over the memory, so that every one of them costs.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::{Policy, PolicyKey, Service, ServiceKey, Workload};

const BLOCKS: u64 = 128;
const LEAVES: u64 = 64;

/// Entries with their hashes: looking through the hashes of one leaf touches no entry.
type Leaf<E> = Vec<(u64, E)>;
type Block<E> = Vec<Arc<Leaf<E>>>;

/// What a table holds: it knows its own key.
pub(super) trait Entry: Clone {
    type Key: Hash + Eq;

    fn key(&self) -> &Self::Key;
}

/// An immutable table that is cheap to copy and cheap to change a little.
#[derive(Clone, Debug)]
pub(super) struct Table<E> {
    blocks: Arc<Vec<Arc<Block<E>>>>,
    hasher: RandomState,
}

/// The same as a map.
#[derive(Clone, Debug)]
pub(super) struct Shards<K, V>(Table<(K, V)>);

impl<E: Entry> Table<E> {
    pub(super) fn get(&self, key: &E::Key) -> Option<&E> {
        let (hash, block, leaf) = self.place(key);
        let leaf = &self.blocks[block][leaf];
        leaf.iter().find(|(other, entry)| *other == hash && entry.key() == key).map(|(_, e)| e)
    }

    /// Puts an entry in, in the place of the one with its key.
    pub(super) fn insert(&mut self, entry: E) -> Option<E> {
        let (hash, block, leaf) = self.place(entry.key());
        let leaf = self.leaf(block, leaf);
        let same = |(other, old): &&mut (u64, E)| *other == hash && old.key() == entry.key();
        if let Some((_, old)) = leaf.iter_mut().find(same) {
            return Some(std::mem::replace(old, entry));
        }
        leaf.push((hash, entry));
        None
    }

    pub(super) fn remove(&mut self, key: &E::Key) -> Option<E> {
        let (hash, block, leaf) = self.place(key);
        let same = |(other, entry): &(u64, E)| *other == hash && entry.key() == key;
        let at = self.blocks[block][leaf].iter().position(same)?;
        let leaf = self.leaf(block, leaf);
        let (_, entry) = leaf.swap_remove(at);
        Some(entry)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &E> {
        self.leaves().flat_map(|leaf| leaf.iter().map(|(_, entry)| entry))
    }

    pub(super) fn len(&self) -> usize {
        self.leaves().map(|leaf| leaf.len()).sum()
    }

    fn leaves(&self) -> impl Iterator<Item = &Arc<Leaf<E>>> {
        self.blocks.iter().flat_map(|block| block.iter())
    }

    /// A leaf of our own.
    fn leaf(&mut self, block: usize, leaf: usize) -> &mut Leaf<E> {
        let block = Arc::make_mut(&mut Arc::make_mut(&mut self.blocks)[block]);
        Arc::make_mut(&mut block[leaf])
    }

    /// Hash, block and leaf.
    fn place(&self, key: &E::Key) -> (u64, usize, usize) {
        let hash = self.hasher.hash_one(key);
        // Remainders are small, so the narrowing cannot lose anything.
        let small = |number: u64| usize::try_from(number).unwrap_or(0);
        (hash, small(hash / LEAVES % BLOCKS), small(hash % LEAVES))
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key).map(|(_, value)| value)
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert((key, value)).map(|(_, value)| value)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.0.remove(key).map(|(_, value)| value)
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Entry for (K, V) {
    type Key = K;

    fn key(&self) -> &K {
        &self.0
    }
}

impl Entry for Arc<Workload> {
    type Key = Arc<str>;

    fn key(&self) -> &Arc<str> {
        &self.uid
    }
}

impl Entry for Arc<Service> {
    type Key = ServiceKey;

    fn key(&self) -> &ServiceKey {
        &self.key
    }
}

impl Entry for Arc<Policy> {
    type Key = PolicyKey;

    fn key(&self) -> &PolicyKey {
        &self.key
    }
}

impl<E> Default for Table<E> {
    fn default() -> Self {
        // One empty leaf and block shared by all: `make_mut` separates them on the first write.
        let leaf: Arc<Leaf<E>> = Arc::default();
        let block: Block<E> = (0..LEAVES).map(|_| Arc::clone(&leaf)).collect();
        let block = Arc::new(block);
        let blocks = (0..BLOCKS).map(|_| Arc::clone(&block)).collect();
        Self { blocks: Arc::new(blocks), hasher: RandomState::default() }
    }
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self(Table::default())
    }
}
