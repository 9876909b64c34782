//! The indexes of revisions that are in memory: made when a read as known earlier first needs one, and made longer as
//! revisions come.
//!
//! **Invariants**: what all of them hold together is bounded; an index is made by one thread, while other readers of its
//! series wait and readers of other series do not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::block::{BlockError, RevisionTimes};
use super::reader::BlockReader;
use super::revision_index::RevisionIndex;
use super::segments::{Segment, Segments};
use crate::domain::Revision;

/// Most bytes of all indexes together. A revision takes some 44.
const INDEX_BYTES_MAX: usize = 128 << 20;
/// Most revisions of a series that are indexed.
const INDEXED_REVISIONS_MAX: usize = 3_000_000;

/// Indexes by series, the least recently used of which are dropped for others.
#[derive(Default)]
pub(crate) struct RevisionIndexes {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_series: HashMap<u32, Entry>,
    /// Counts uses.
    uses: u64,
}

#[derive(Default)]
struct Entry {
    index: Arc<Mutex<Indexed>>,
    bytes: usize,
    used: u64,
}

/// An index, and the blocks that it lacks.
#[derive(Clone, Default)]
pub(super) struct Indexed {
    pub(super) index: Arc<RevisionIndex>,
    /// The place of the first revision of each block that could not be read, and why: the index finds none of these.
    pub(super) unread: Arc<Vec<(usize, BlockError)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RevisionIndexes {
    /// The index of the revisions of a series, `count` of which are in `revisions`; it may be of more. None of a series
    /// that has too many. Reads the blocks that are not in it yet, each once.
    pub(super) fn of(
        &self,
        series: u32,
        revisions: &Segments<Revision>,
        count: usize,
        reader: &BlockReader,
    ) -> Option<Indexed> {
        if count > INDEXED_REVISIONS_MAX {
            return None;
        }
        let index = self.entry(series);
        let mut index = locked(&index);
        if index.index.len() < count {
            *index = extended(&index, revisions, reader);
            self.account(series, index.index.bytes());
        }
        Some(index.clone())
    }

    /// Drops the index of a series, to be made anew.
    pub(super) fn forget(&self, series: u32) {
        locked(&self.kept).by_series.remove(&series);
    }

    fn entry(&self, series: u32) -> Arc<Mutex<Indexed>> {
        let mut kept = locked(&self.kept);
        kept.uses += 1;
        let used = kept.uses;
        let entry = kept.by_series.entry(series).or_default();
        entry.used = used;
        Arc::clone(&entry.index)
    }

    /// Notes the size of an index, and drops others until all fit.
    fn account(&self, series: u32, bytes: usize) {
        let mut kept = locked(&self.kept);
        if let Some(entry) = kept.by_series.get_mut(&series) {
            entry.bytes = bytes;
        }
        while kept.by_series.values().map(|entry| entry.bytes).sum::<usize>() > INDEX_BYTES_MAX {
            let others = kept.by_series.iter().filter(|(id, entry)| **id != series && entry.bytes > 0);
            let Some(oldest) = others.min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id) else { return };
            kept.by_series.remove(&oldest);
        }
    }
}

/// The same index with the revisions that follow in the segments.
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
                    // Never found: nothing was recorded as late as that.
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
    fn the_least_recently_used_index_goes_where_all_take_too_much() {
        let indexes = RevisionIndexes::default();
        let kept = || {
            let mut series: Vec<u32> = locked(&indexes.kept).by_series.keys().copied().collect();
            series.sort_unstable();
            series
        };
        for series in 1..=3 {
            indexes.entry(series);
            indexes.account(series, INDEX_BYTES_MAX / 3);
        }
        assert_eq!(kept(), [1, 2, 3]);
        indexes.entry(1);
        indexes.entry(4);
        indexes.account(4, INDEX_BYTES_MAX / 3);
        assert_eq!(kept(), [1, 3, 4], "2 was used least recently");
        // One that is larger than all may take stays alone: it is in use.
        indexes.account(3, INDEX_BYTES_MAX + 1);
        assert_eq!(kept(), [3]);
    }
}
