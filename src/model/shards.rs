//! A map cut into copy-on-write leaves, so that publishing one change copies little of it.
//!
//! In two steps, 64 blocks of 64 leaves: a new snapshot copies 64 pointers, and a change 64 more
//! and one leaf, which at 100,000 entries has 25.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::HashMap;
use foldhash::fast::RandomState;

const BLOCKS: u64 = 64;
const LEAVES: u64 = 64;

type Leaf<K, V> = HashMap<K, V>;
type Block<K, V> = Vec<Arc<Leaf<K, V>>>;

/// An immutable map that is cheap to copy and cheap to change a little.
#[derive(Clone, Debug)]
pub(super) struct Shards<K, V> {
    blocks: Vec<Arc<Block<K, V>>>,
    hasher: RandomState,
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let (block, leaf) = self.place(key);
        self.blocks[block][leaf].get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (block, leaf) = self.place(&key);
        let block = Arc::make_mut(&mut self.blocks[block]);
        Arc::make_mut(&mut block[leaf]).insert(key, value)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (block, leaf) = self.place(key);
        if !self.blocks[block][leaf].contains_key(key) {
            return None;
        }
        let block = Arc::make_mut(&mut self.blocks[block]);
        Arc::make_mut(&mut block[leaf]).remove(key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.leaves().flat_map(|leaf| leaf.values())
    }

    pub(super) fn len(&self) -> usize {
        self.leaves().map(|leaf| leaf.len()).sum()
    }

    fn leaves(&self) -> impl Iterator<Item = &Arc<Leaf<K, V>>> {
        self.blocks.iter().flat_map(|block| block.iter())
    }

    /// Block and leaf.
    fn place(&self, key: &K) -> (usize, usize) {
        let hash = self.hasher.hash_one(key);
        // Remainders are small, so the narrowing cannot lose anything.
        let small = |number: u64| usize::try_from(number).unwrap_or(0);
        (small(hash / LEAVES % BLOCKS), small(hash % LEAVES))
    }
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        // One empty leaf and block shared by all: `make_mut` separates them on the first write.
        let leaf = Arc::new(HashMap::default());
        let block: Block<K, V> = (0..LEAVES).map(|_| Arc::clone(&leaf)).collect();
        let block = Arc::new(block);
        let blocks = (0..BLOCKS).map(|_| Arc::clone(&block)).collect();
        Self { blocks, hasher: RandomState::default() }
    }
}
