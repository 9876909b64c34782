//! A cache of the first observed times and the recorded times of the runs of blocks. Reads with a `known_time` often
//! need these times only to find that a block has no matching run.
//!
//! **Invariant**: the cache has a size limit, and never needs invalidation, because blocks never change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::block::RunTimes;

/// Largest size of the cached times, in bytes. Beyond it, the least recently used times are evicted.
const RUN_TIMES_BYTES_MAX: usize = 32 << 20;

/// The cached times of runs, shared by all readers.
#[derive(Default)]
pub(super) struct RunTimesCache {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    /// By block id: the times, and the value of `uses` at their last use.
    by_block: HashMap<u64, (Arc<RunTimes>, u64)>,
    /// Size of all cached times.
    bytes: usize,
    /// Number of uses of the cache so far.
    uses: u64,
}

impl RunTimesCache {
    fn locked(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the cached times of a block.
    pub(super) fn get(&self, block: u64) -> Option<Arc<RunTimes>> {
        let mut entries = self.locked();
        entries.uses += 1;
        let now = entries.uses;
        let (times, last_use) = entries.by_block.get_mut(&block)?;
        *last_use = now;
        Some(Arc::clone(times))
    }

    /// Caches the times of a block, and evicts the least recently used times beyond the limit.
    pub(super) fn put(&self, block: u64, times: &Arc<RunTimes>) {
        let mut entries = self.locked();
        entries.uses += 1;
        let now = entries.uses;
        entries.bytes += times.bytes();
        if let Some((replaced, _)) = entries.by_block.insert(block, (Arc::clone(times), now)) {
            entries.bytes -= replaced.bytes();
        }
        while entries.bytes > RUN_TIMES_BYTES_MAX {
            let oldest = entries.by_block.iter().min_by_key(|(_, (_, last_use))| *last_use).map(|(block, _)| *block);
            let Some((evicted, _)) = oldest.and_then(|block| entries.by_block.remove(&block)) else { return };
            entries.bytes -= evicted.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_evicts_least_recently_used_beyond_limit() {
        let cache = RunTimesCache::default();
        let times = Arc::new(RunTimes { first_us: vec![0; 2_048], recorded_us: vec![0; 2_048] });
        let fit = (RUN_TIMES_BYTES_MAX / times.bytes()) as u64;
        for block in 0..fit {
            cache.put(block, &times);
        }
        assert!((0..fit).all(|block| cache.get(block).is_some()));
        cache.get(0);
        cache.put(fit, &times);
        assert!(cache.get(0).is_some() && cache.get(1).is_none() && cache.get(fit).is_some());
        cache.put(fit, &times);
        assert_eq!(cache.locked().bytes, RUN_TIMES_BYTES_MAX / times.bytes() * times.bytes());
    }
}
