//! A summary of the segments of a series, for reads as known at an earlier recorded time. Each view computes it once.
//!
//! **Invariant**: the summary is computed from the index in memory; no block is read.

use super::block::Item;
use super::min_tree::MinTree;
use super::segments::{Segment, Segments};
use crate::domain::{Revision, Run, Timestamp};

/// The summary of the runs and the revisions of a series in one view.
#[derive(Debug)]
pub(super) struct SegmentsSummary {
    /// The earliest recorded time in each segment of runs, microseconds.
    runs_recorded_us: Vec<i64>,
    /// The minima of `runs_recorded_us`.
    runs_tree: MinTree,
    /// The position, in the list of all revisions, of the first revision of each segment of revisions.
    revision_positions: Vec<usize>,
    revision_count: usize,
    /// The earliest recorded time of all runs and revisions, microseconds.
    recorded_min_us: i64,
}

impl SegmentsSummary {
    pub(super) fn new(runs: &Segments<Run>, revisions: &Segments<Revision>) -> Self {
        let runs_recorded_us: Vec<i64> = runs.segments().map(|segment| recorded_min_us(&segment)).collect();
        let mut revision_positions = Vec::with_capacity(revisions.segment_count());
        let mut revision_count = 0;
        for segment in revisions.segments() {
            revision_positions.push(revision_count);
            revision_count += segment.item_count();
        }
        let revisions_min_us = revisions.segments().map(|segment| recorded_min_us(&segment)).min();
        let runs_min_us = runs_recorded_us.iter().copied().min();
        Self {
            runs_tree: MinTree::new(&runs_recorded_us),
            recorded_min_us: runs_min_us.into_iter().chain(revisions_min_us).min().unwrap_or(i64::MAX),
            runs_recorded_us,
            revision_positions,
            revision_count,
        }
    }

    /// Returns the number of revisions.
    pub(super) fn revision_count(&self) -> usize {
        self.revision_count
    }

    /// Returns true if any run or revision was recorded at or before `known`.
    pub(super) fn is_known(&self, known: Timestamp) -> bool {
        self.recorded_min_us <= known.micros()
    }

    /// Returns the last segment of runs before segment `end` that has a run recorded at or before `known`.
    pub(super) fn last_segment(&self, end: usize, known: Timestamp) -> Option<usize> {
        self.runs_tree.last_at_most(end, known.micros(), |at| self.recorded_us(at))
    }

    /// Returns the first segment of runs that has a run recorded at or before `known`.
    pub(super) fn first_segment(&self, known: Timestamp) -> Option<usize> {
        self.runs_tree.first_at_most(0, known.micros(), |at| self.recorded_us(at))
    }

    fn recorded_us(&self, segment: usize) -> i64 {
        self.runs_recorded_us.get(segment).copied().unwrap_or(i64::MAX)
    }

    /// Returns the segment of the revision at `position` in the list of all revisions, and the position of the revision
    /// in that segment.
    pub(super) fn revision_segment(&self, position: usize) -> (usize, usize) {
        let segment = self.revision_positions.partition_point(|first| *first <= position).saturating_sub(1);
        (segment, position - self.revision_positions.get(segment).copied().unwrap_or(position))
    }
}

/// Returns the earliest recorded time in a segment, microseconds.
fn recorded_min_us<T: Item>(segment: &Segment<T>) -> i64 {
    match segment {
        Segment::Immutable(meta) => meta.recorded_min_us,
        Segment::Mutable(items) => items.iter().map(|item| item.recorded().micros()).min().unwrap_or(i64::MAX),
    }
}
