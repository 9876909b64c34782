//! A cache of encoded responses, bounded by their size.
//!
//! **Invariant**: the cache has a size limit, keys included. It never needs invalidation, because a key identifies the
//! bytes.

use std::hash::Hash;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

/// Expected number of entries. The cache derives the sizes of its tables from it.
const ENTRIES_TYPICAL: usize = 256;
/// Estimated memory of an entry in addition to its key's and its value's bytes.
const ENTRY_BYTES: usize = 256;

/// The cache. `K` identifies the bytes `V`.
pub struct BytesCache<K, V>(Cache<K, V, Size<K>>);

/// Weighs an entry by its size in memory. The function returns the bytes of a key outside the entry.
struct Size<K>(fn(&K) -> usize);

impl<K> Clone for Size<K> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<K, V: AsRef<[u8]>> Weighter<K, V> for Size<K> {
    fn weight(&self, key: &K, bytes: &V) -> u64 {
        (bytes.as_ref().len() + (self.0)(key) + ENTRY_BYTES) as u64
    }
}

impl<K: Eq + Hash + Clone, V: AsRef<[u8]> + Clone> BytesCache<K, V> {
    /// Creates an empty cache of at most `bytes_max` bytes. `key_bytes` returns the bytes that a key keeps outside the
    /// entry.
    pub fn new(bytes_max: u64, key_bytes: fn(&K) -> usize) -> Self {
        // Each shard has its part of the size, and the response of many series must fit into a shard.
        let options = OptionsBuilder::new()
            .estimated_items_capacity(ENTRIES_TYPICAL)
            .weight_capacity(bytes_max)
            .shards(1)
            .build();
        // Building fails only if a size is missing.
        let options = options.unwrap_or_else(|error| unreachable!("{error}"));
        let size = Size(key_bytes);
        Self(Cache::with_options(options, size, DefaultHashBuilder::default(), DefaultLifecycle::default()))
    }

    /// Returns the bytes of `key`, if the cache has them.
    pub fn get(&self, key: &K) -> Option<V> {
        self.0.get(key)
    }

    /// Keeps the bytes of `key`.
    pub fn insert(&self, key: K, bytes: V) {
        self.0.insert(key, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_stays_within_its_size() {
        const BYTES_MAX: u64 = 8 << 20;
        for (key_bytes, value_bytes) in [(0, 1 << 20), (1 << 20, 0)] {
            let key_size: fn(&(u32, usize)) -> usize = |(_, bytes)| *bytes;
            let cache = BytesCache::new(BYTES_MAX, key_size);
            for number in 0..100_u32 {
                cache.insert((number, key_bytes), vec![0; value_bytes]);
            }
            assert!(cache.0.weight() <= BYTES_MAX);
            assert!(cache.0.len() > 1);
        }
    }
}
