//! A cache of revision indexes in memory, one for each series. The first as-of read of a series builds its index; later
//! reads extend it with new revisions.
//!
//! **Invariants**: the total size of the indexes is bounded; one thread builds the index of a series while other
//! readers of that series wait, and readers of other series do not wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::block::{BlockError, RevisionTimes};
use super::reader::BlockReader;
use super::revision_index::RevisionIndex;
use super::segments::{Segment, Segments};
use crate::domain::Revision;

/// Maximum size of all indexes together, in bytes. A revision takes about 44 bytes.
const INDEX_BYTES_MAX: usize = 128 << 20;
/// Maximum number of revisions of a series with an index.
const INDEXED_REVISIONS_MAX: usize = 3_000_000;

/// Revision indexes by series. The cache evicts the least recently used indexes.
#[derive(Default)]
pub(crate) struct RevisionIndexes {
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    by_series: HashMap<u32, Entry>,
    /// Number of uses so far. It orders the entries by their last use.
    uses: u64,
}

#[derive(Default)]
struct Entry {
    index: Arc<Mutex<Indexed>>,
    bytes: usize,
    /// The value of [`Cache::uses`] at the last use.
    last_use: u64,
}

/// An index, and the blocks that it lacks because they could not be read.
#[derive(Clone, Default)]
pub(super) struct Indexed {
    pub(super) index: Arc<RevisionIndex>,
    /// For each block that could not be read: the position of its first revision, and the error. The index does not
    /// find the revisions of these blocks.
    pub(super) unread: Arc<Vec<(usize, BlockError)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RevisionIndexes {
    /// Returns the index of the revisions of a series. `revisions` are the revisions of a view, and `count` is their
    /// number. The index may have more revisions, from a newer view. Returns `None` if there are too many revisions.
    /// Reads only blocks that are not in the index yet, each block once.
    pub(super) fn get_or_build(
        &self,
        series: u32,
        revisions: &Segments<Revision>,
        count: usize,
        reader: &BlockReader,
    ) -> Option<Indexed> {
        if count > INDEXED_REVISIONS_MAX {
            return None;
        }
        let entry = self.entry(series);
        let mut indexed = locked(&entry);
        if indexed.index.len() < count {
            *indexed = extended(&indexed, revisions, reader);
            self.set_size(series, indexed.index.bytes());
        }
        Some(indexed.clone())
    }

    /// Removes the index of a series, so that the next use builds it again.
    pub(super) fn forget(&self, series: u32) {
        locked(&self.cache).by_series.remove(&series);
    }

    fn entry(&self, series: u32) -> Arc<Mutex<Indexed>> {
        let mut cache = locked(&self.cache);
        cache.uses += 1;
        let last_use = cache.uses;
        let entry = cache.by_series.entry(series).or_default();
        entry.last_use = last_use;
        Arc::clone(&entry.index)
    }

    /// Records the size of an index, and evicts other indexes until all fit into the limit.
    fn set_size(&self, series: u32, bytes: usize) {
        let mut cache = locked(&self.cache);
        if let Some(entry) = cache.by_series.get_mut(&series) {
            entry.bytes = bytes;
        }
        while cache.by_series.values().map(|entry| entry.bytes).sum::<usize>() > INDEX_BYTES_MAX {
            let others = cache.by_series.iter().filter(|(id, entry)| **id != series && entry.bytes > 0);
            let Some(oldest) = others.min_by_key(|(_, entry)| entry.last_use).map(|(id, _)| *id) else { return };
            cache.by_series.remove(&oldest);
        }
    }
}

/// Returns the index extended by the revisions in the segments that follow its last revision.
fn extended(indexed: &Indexed, revisions: &Segments<Revision>, reader: &BlockReader) -> Indexed {
    let mut unread = Vec::clone(&indexed.unread);
    let mut more = Vec::new();
    let mut end = 0;
    for segment in revisions.segments() {
        let start = end;
        end += segment.item_count();
        let first_new = indexed.index.len().saturating_sub(start);
        if end <= indexed.index.len() {
            continue;
        }
        match segment {
            Segment::Mutable(items) => more.extend(items.iter().skip(first_new).map(times)),
            Segment::Immutable(meta) => match reader.read_revision_times(&meta) {
                Ok(items) => more.extend_from_slice(items.get(first_new..).unwrap_or_default()),
                Err(error) => {
                    // This entry stands for an unread revision. No query finds it, because its recorded time is the
                    // latest possible time.
                    let absent =
                        RevisionTimes { observed_us: i64::MAX, recorded_us: i64::MAX, superseded_us: meta.last_key_us };
                    more.resize(more.len() + end - start - first_new, absent);
                    unread.push((start + first_new, error));
                }
            },
        }
    }
    Indexed { index: Arc::new(indexed.index.extended(&more)), unread: Arc::new(unread) }
}

fn times(revision: &Revision) -> RevisionTimes {
    RevisionTimes {
        observed_us: revision.run.first_observed_time.micros(),
        recorded_us: revision.run.recorded_time.micros(),
        superseded_us: revision.superseded_time.micros(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_evicts_least_recently_used_index_beyond_limit() {
        let indexes = RevisionIndexes::default();
        let cached = || {
            let mut series: Vec<u32> = locked(&indexes.cache).by_series.keys().copied().collect();
            series.sort_unstable();
            series
        };
        for series in 1..=3 {
            indexes.entry(series);
            indexes.set_size(series, INDEX_BYTES_MAX / 3);
        }
        assert_eq!(cached(), [1, 2, 3]);
        indexes.entry(1);
        indexes.entry(4);
        indexes.set_size(4, INDEX_BYTES_MAX / 3);
        assert_eq!(cached(), [1, 3, 4], "2 was used least recently");
        // An index above the limit stays while it is in use, and all others are evicted.
        indexes.set_size(3, INDEX_BYTES_MAX + 1);
        assert_eq!(cached(), [3]);
    }
}
