//! What reads as known earlier look up in the segments of a view, found once a view.
//!
//! **Invariant**: no block is read for it.

use super::block::Item;
use super::min_tree::MinTree;
use super::segments::{Segment, Segments};
use crate::domain::{Revision, Run, Timestamp};

/// Of the runs and the revisions of a series, as one view has them.
#[derive(Debug)]
pub(super) struct SegmentsSummary {
    /// The earliest recorded time of each segment of runs, microseconds.
    runs_recorded_us: Vec<i64>,
    runs_tree: MinTree,
    /// The place of the first revision of each segment of revisions.
    revision_places: Vec<usize>,
    revision_count: usize,
    /// The earliest recorded time of all, microseconds.
    recorded_min_us: i64,
}

impl SegmentsSummary {
    pub(super) fn new(runs: &Segments<Run>, revisions: &Segments<Revision>) -> Self {
        let runs_recorded_us: Vec<i64> = runs.segments().map(|segment| recorded_min_us(&segment)).collect();
        let mut revision_places = Vec::with_capacity(revisions.segment_count());
        let mut revision_count = 0;
        for segment in revisions.segments() {
            revision_places.push(revision_count);
            revision_count += segment.item_count();
        }
        let of_revisions = revisions.segments().map(|segment| recorded_min_us(&segment)).min();
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

    /// The last segment of runs before segment `end` with a run that was recorded by `known`.
    pub(super) fn last_segment(&self, end: usize, known: Timestamp) -> Option<usize> {
        self.runs_tree.last_at_most(end, known.micros(), |at| self.recorded_us(at))
    }

    /// The first segment of runs with a run that was recorded by `known`.
    pub(super) fn first_segment(&self, known: Timestamp) -> Option<usize> {
        self.runs_tree.first_at_most(0, known.micros(), |at| self.recorded_us(at))
    }

    fn recorded_us(&self, segment: usize) -> i64 {
        self.runs_recorded_us.get(segment).copied().unwrap_or(i64::MAX)
    }

    /// The segment of the revision with this place in the list, and its place in the segment.
    pub(super) fn revision_segment(&self, place: usize) -> (usize, usize) {
        let segment = self.revision_places.partition_point(|first| *first <= place).saturating_sub(1);
        (segment, place - self.revision_places.get(segment).copied().unwrap_or(place))
    }
}

/// The earliest recorded time of a segment, microseconds.
fn recorded_min_us<T: Item>(segment: &Segment<T>) -> i64 {
    match segment {
        Segment::Immutable(meta) => meta.recorded_min_us,
        Segment::Mutable(items) => items.iter().map(|item| item.recorded().micros()).min().unwrap_or(i64::MAX),
    }
}
