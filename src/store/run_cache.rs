//! A cache of blocks of runs, packed for reads of single runs.
//!
//! **Invariant**: the cache has a size limit, and never needs invalidation, because blocks never change.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::packed_runs::PackedRuns;

/// Size of a typical packed block, in bytes. The cache derives its number of entries from it.
const TYPICAL_BLOCK_BYTES: u64 = 20_000;

/// The packed blocks, by block id.
pub(super) struct RunCache(Cache<u64, Arc<PackedRuns>, Bytes>);

/// Weighs a block by its size in memory.
#[derive(Clone)]
struct Bytes;

impl Weighter<u64, Arc<PackedRuns>> for Bytes {
    fn weight(&self, _: &u64, runs: &Arc<PackedRuns>) -> u64 {
        runs.bytes() as u64
    }
}

impl RunCache {
    /// Creates an empty cache of at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        let blocks = usize::try_from(bytes_max / TYPICAL_BLOCK_BYTES).unwrap_or(usize::MAX);
        Self(Cache::with_weighter(blocks, bytes_max, Bytes))
    }

    /// Returns a block if it is in the cache.
    pub(super) fn get(&self, block: u64) -> Option<Arc<PackedRuns>> {
        self.0.get(&block)
    }

    /// Returns a block, from the cache or from `read`. Concurrent reads of one block call `read` once.
    pub(super) fn get_or_read<E>(
        &self,
        block: u64,
        read: impl FnOnce() -> Result<PackedRuns, E>,
    ) -> Result<Arc<PackedRuns>, E> {
        self.0.get_or_insert_with(&block, || read().map(Arc::new))
    }
}
