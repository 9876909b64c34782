//! What reads as known earlier look up in the tracks of a view, found once a view.
//!
//! **Invariant**: no block is read for it.

use super::block::Item;
use super::min_tree::MinTree;
use super::track::{Slot, Track};
use crate::domain::{Revision, Run, Timestamp};

/// Of the runs and the revisions of a series, as one view has them.
#[derive(Debug)]
pub(super) struct TrackSummary {
    /// The earliest recorded time of each slot of runs, microseconds.
    runs_recorded_us: Vec<i64>,
    runs_tree: MinTree,
    /// The place of the first revision of each slot of revisions.
    revision_places: Vec<usize>,
    revision_count: usize,
    /// The earliest recorded time of all, microseconds.
    recorded_min_us: i64,
}

impl TrackSummary {
    pub(super) fn new(runs: &Track<Run>, revisions: &Track<Revision>) -> Self {
        let runs_recorded_us: Vec<i64> = runs.slots().map(|slot| recorded_min_us(&slot)).collect();
        let mut revision_places = Vec::with_capacity(revisions.slot_count());
        let mut revision_count = 0;
        for slot in revisions.slots() {
            revision_places.push(revision_count);
            revision_count += slot.item_count();
        }
        let of_revisions = revisions.slots().map(|slot| recorded_min_us(&slot)).min();
        let of_runs = runs_recorded_us.iter().copied().min();
        Self {
            runs_tree: MinTree::new(&runs_recorded_us),
            recorded_min_us: of_runs.into_iter().chain(of_revisions).min().unwrap_or(i64::MAX),
            runs_recorded_us,
            revision_places,
            revision_count,
        }
    }

    /// How many revisions there are.
    pub(super) fn revision_count(&self) -> usize {
        self.revision_count
    }

    /// Whether anything was recorded by `known`.
    pub(super) fn is_known(&self, known: Timestamp) -> bool {
        self.recorded_min_us <= known.micros()
    }

    /// The last slot of runs before slot `end` with a run that was recorded by `known`.
    pub(super) fn last_slot(&self, end: usize, known: Timestamp) -> Option<usize> {
        self.runs_tree.last_at_most(end, known.micros(), |at| self.recorded_us(at))
    }

    /// The first slot of runs with a run that was recorded by `known`.
    pub(super) fn first_slot(&self, known: Timestamp) -> Option<usize> {
        self.runs_tree.first_at_most(0, known.micros(), |at| self.recorded_us(at))
    }

    fn recorded_us(&self, slot: usize) -> i64 {
        self.runs_recorded_us.get(slot).copied().unwrap_or(i64::MAX)
    }

    /// The slot of the revision with this place in the list, and its place in the slot.
    pub(super) fn revision_slot(&self, place: usize) -> (usize, usize) {
        let slot = self.revision_places.partition_point(|first| *first <= place).saturating_sub(1);
        (slot, place - self.revision_places.get(slot).copied().unwrap_or(place))
    }
}

/// The earliest recorded time of a slot, microseconds.
fn recorded_min_us<T: Item>(slot: &Slot<T>) -> i64 {
    match slot {
        Slot::Sealed(meta) => meta.recorded_min_us,
        Slot::Open(items) => items.iter().map(|item| item.recorded().micros()).min().unwrap_or(i64::MAX),
    }
}
