//! When the runs of blocks begin and were recorded, kept for reads as known earlier: these need a block of runs to see
//! that it has no answer, as often as to find one in it.
//!
//! **Invariant**: what is kept is bounded, and is of blocks that never change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::block::RunTimes;

/// Most bytes that are kept, the least recently used going first.
const RUN_TIMES_BYTES_MAX: usize = 32 << 20;

/// Times by block.
#[derive(Default)]
pub(super) struct RunTimesCache {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_block: HashMap<u64, (Arc<RunTimes>, u64)>,
    bytes: usize,
    /// Counts uses.
    uses: u64,
}

impl RunTimesCache {
    fn locked(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The times of a block, if they are kept.
    pub(super) fn get(&self, block: u64) -> Option<Arc<RunTimes>> {
        let mut kept = self.locked();
        kept.uses += 1;
        let now = kept.uses;
        let (times, used) = kept.by_block.get_mut(&block)?;
        *used = now;
        Some(Arc::clone(times))
    }

    /// Keeps the times of a block, and drops others to make room.
    pub(super) fn put(&self, block: u64, times: &Arc<RunTimes>) {
        let mut kept = self.locked();
        kept.uses += 1;
        let now = kept.uses;
        kept.bytes += times.bytes();
        if let Some((before, _)) = kept.by_block.insert(block, (Arc::clone(times), now)) {
            kept.bytes -= before.bytes();
        }
        while kept.bytes > RUN_TIMES_BYTES_MAX {
            let oldest = kept.by_block.iter().min_by_key(|(_, (_, used))| *used).map(|(block, _)| *block);
            let Some((dropped, _)) = oldest.and_then(|block| kept.by_block.remove(&block)) else { return };
            kept.bytes -= dropped.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes() {
        let kept = RunTimesCache::default();
        let times = Arc::new(RunTimes { first_us: vec![0; 2_048], recorded_us: vec![0; 2_048] });
        let fit = (RUN_TIMES_BYTES_MAX / times.bytes()) as u64;
        for block in 0..fit {
            kept.put(block, &times);
        }
        assert!((0..fit).all(|block| kept.get(block).is_some()));
        kept.get(0);
        kept.put(fit, &times);
        assert!(kept.get(0).is_some() && kept.get(1).is_none() && kept.get(fit).is_some());
        kept.put(fit, &times);
        assert_eq!(kept.locked().bytes, RUN_TIMES_BYTES_MAX / times.bytes() * times.bytes());
    }
}
