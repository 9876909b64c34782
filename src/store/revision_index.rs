//! An index in memory of the revisions of a series. It finds the revisions that were current at a recorded time
//! `known`, sorted by observed time.
//!
//! The list of revisions is sorted by superseded time and only grows. So the revisions superseded after `known` are at
//! the end of the list. A revision in this part of the list was current at `known` if it was recorded at or before
//! `known`.
//!
//! The index divides the list into pieces: leaves of 1,024 revisions, and merged pieces of 8, 64, 512 and more leaves.
//! Each piece sorts its revisions by first observed time and has the minima of their recorded times. A few pieces of
//! each size cover the end of the list. In each of these pieces, one search in the order of first observed times finds
//! the next revision that was recorded at or before `known`.
//!
//! **Invariants**: a full piece never changes; an extended index shares the full pieces of the shorter index.

use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use super::block::RevisionTimes;
use super::min_tree::MinTree;
use crate::domain::ScanOrder;

/// Number of revisions in a full leaf.
const LEAF_REVISIONS: usize = 1_024;
/// Number of pieces of one size that are merged into one piece of the next size.
const FAN_OUT: usize = 8;
/// In a piece, the observed time of every 16th revision is a sample. A search looks at the samples first, and then at
/// the revisions between two samples.
const SAMPLE_EVERY: usize = 16;

/// The times of the revisions of a series, from the first revision on, arranged for searches.
#[derive(Default)]
pub(super) struct RevisionIndex {
    leaves: Vec<Arc<Leaf>>,
    /// Merged pieces by size: of 8 leaves, of 64, and so on. A piece is made when all its leaves are full.
    merged: Vec<Vec<Arc<Sorted>>>,
}

/// Consecutive revisions of the list, with their times.
struct Leaf {
    times: Vec<RevisionTimes>,
    sorted: Sorted,
}

/// Consecutive revisions of the list, sorted by first observed time.
struct Sorted {
    /// The positions of the revisions in the list.
    positions: Vec<u32>,
    /// First observed time of every 16th revision, microseconds.
    samples_us: Vec<i64>,
    /// The minima of recorded times, microseconds.
    recorded: MinTree,
}

impl Sorted {
    /// Sorts entries of a first observed time (microseconds) and a position.
    fn new(mut entries: Vec<(i64, u32)>, recorded_us: impl Fn(u32) -> i64) -> Self {
        // The entries of a merged piece are a few sorted sequences, which the stable sort merges in linear time.
        entries.sort_by_key(|(observed_us, _)| *observed_us);
        let recorded: Vec<i64> = entries.iter().map(|(_, position)| recorded_us(*position)).collect();
        Self {
            samples_us: entries.iter().step_by(SAMPLE_EVERY).map(|(observed_us, _)| *observed_us).collect(),
            positions: entries.into_iter().map(|(_, position)| position).collect(),
            recorded: MinTree::new(&recorded),
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(self.positions.as_slice()) + size_of_val(self.samples_us.as_slice()) + self.recorded.bytes()
    }
}

impl Leaf {
    fn new(first_position: usize, times: Vec<RevisionTimes>) -> Self {
        let positions = first_position..;
        let entries = times
            .iter()
            .zip(positions)
            .map(|(times, position)| (times.observed_us, stored_position(position)))
            .collect();
        let sorted = Sorted::new(entries, |position| times[position as usize - first_position].recorded_us);
        Self { times, sorted }
    }
}

/// Returns the stored form of a position. The maximum number of revisions of an index is far below `u32::MAX`.
fn stored_position(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// Identifies a sorted piece.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Piece {
    /// 0 for a leaf, 1 for a piece of 8 leaves, and so on.
    height: usize,
    /// The number of the piece among pieces of this height.
    at: usize,
}

impl RevisionIndex {
    /// Returns the number of revisions in the index.
    pub(super) fn len(&self) -> usize {
        self.leaves.last().map_or(0, |last| (self.leaves.len() - 1) * LEAF_REVISIONS + last.times.len())
    }

    /// Returns the size of the index in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let leaves = self.leaves.iter().map(|leaf| size_of_val(leaf.times.as_slice()) + leaf.sorted.bytes());
        leaves.sum::<usize>() + self.merged.iter().flatten().map(|sorted| sorted.bytes()).sum::<usize>()
    }

    /// Returns this index extended by the revisions `more`, which follow in the list. Full pieces are shared.
    pub(super) fn extended(&self, more: &[RevisionTimes]) -> Self {
        let mut longer = Self { leaves: self.leaves.clone(), merged: self.merged.clone() };
        let mut more = more;
        if let Some(last) = longer.leaves.pop_if(|last| last.times.len() < LEAF_REVISIONS) {
            let (fit, rest) = more.split_at(more.len().min(LEAF_REVISIONS - last.times.len()));
            let first_position = longer.leaves.len() * LEAF_REVISIONS;
            longer.leaves.push(Arc::new(Leaf::new(first_position, [last.times.as_slice(), fit].concat())));
            more = rest;
        }
        for times in more.chunks(LEAF_REVISIONS) {
            let first_position = longer.leaves.len() * LEAF_REVISIONS;
            longer.leaves.push(Arc::new(Leaf::new(first_position, times.to_vec())));
        }
        longer.merge();
        longer
    }

    /// Makes the merged pieces whose leaves are now all full.
    fn merge(&mut self) {
        let full_leaves = self.len() / LEAF_REVISIONS;
        let mut leaves_each = FAN_OUT;
        for height in 1.. {
            let count = full_leaves / leaves_each;
            if count == 0 {
                return;
            }
            if self.merged.len() < height {
                self.merged.push(Vec::new());
            }
            for at in self.merged[height - 1].len()..count {
                let parts = (at * FAN_OUT..(at + 1) * FAN_OUT).map(|at| self.sorted(Piece { height: height - 1, at }));
                let positions = parts.flat_map(|part| part.positions.iter().copied());
                let entries = positions.map(|position| (self.times(position).observed_us, position)).collect();
                let merged = Sorted::new(entries, |position| self.times(position).recorded_us);
                self.merged[height - 1].push(Arc::new(merged));
            }
            leaves_each *= FAN_OUT;
        }
    }

    fn sorted(&self, piece: Piece) -> &Sorted {
        match piece.height.checked_sub(1) {
            None => &self.leaves[piece.at].sorted,
            Some(size) => &self.merged[size][piece.at],
        }
    }

    fn times(&self, position: u32) -> RevisionTimes {
        let position = position as usize;
        self.leaves[position / LEAF_REVISIONS].times[position % LEAF_REVISIONS]
    }

    /// Returns the position of the first revision that was superseded after `known_us`.
    fn superseded_after(&self, known_us: i64) -> usize {
        let is_earlier = |times: &RevisionTimes| times.superseded_us <= known_us;
        let leaf = self.leaves.partition_point(|leaf| leaf.times.last().is_some_and(is_earlier));
        let within = self.leaves.get(leaf).map_or(0, |leaf| leaf.times.partition_point(is_earlier));
        leaf * LEAF_REVISIONS + within
    }

    /// Returns the fewest pieces that have all revisions at these positions. The leaves at both ends may also have
    /// revisions at other positions.
    fn pieces(&self, positions: &Range<usize>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut at = positions.start;
        while at < positions.end {
            let mut found = (Piece { height: 0, at: at / LEAF_REVISIONS }, LEAF_REVISIONS);
            let mut width = LEAF_REVISIONS;
            for (below, merged) in self.merged.iter().enumerate() {
                width *= FAN_OUT;
                if !at.is_multiple_of(width) || at + width > positions.end || at / width >= merged.len() {
                    break;
                }
                found = (Piece { height: below + 1, at: at / width }, width);
            }
            pieces.push(found.0);
            at = at / found.1 * found.1 + found.1;
        }
        pieces
    }

    /// Counts the revisions of a piece that begin before `time_us`.
    fn count_before(&self, sorted: &Sorted, time_us: i64) -> usize {
        let samples = sorted.samples_us.partition_point(|observed_us| *observed_us < time_us);
        let Some(last) = samples.checked_sub(1) else { return 0 };
        let start = last * SAMPLE_EVERY;
        let group = &sorted.positions[start..(start + SAMPLE_EVERY).min(sorted.positions.len())];
        start + group.partition_point(|position| self.times(*position).observed_us < time_us)
    }
}

/// A query for revisions. Times are in microseconds since 1970, UTC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RevisionQuery {
    /// Number of revisions of the list to search, from the first on. A view may be older than the index and have fewer.
    pub(super) count: usize,
    /// Match revisions that were current at this recorded time.
    pub(super) known_us: i64,
    /// Match revisions with a first observed time in this half-open range.
    pub(super) observed_us: Range<i64>,
    /// The order of the matches, by first observed time.
    pub(super) order: ScanOrder,
}

/// Iterates over the revisions of an index that match a query. The iterator merges the matches of all pieces.
pub(super) struct RevisionMatches {
    index: Arc<RevisionIndex>,
    query: RevisionQuery,
    positions: Range<usize>,
    /// A cursor for each piece that has another match.
    cursors: BinaryHeap<Cursor>,
}

/// The next match of a piece. The cursor with the greatest rank comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Cursor {
    rank: i64,
    position: u32,
    piece: Piece,
    /// The position of the revision in the piece.
    at: usize,
}

impl RevisionMatches {
    /// Finds the revisions of `index` that match `query`.
    pub(super) fn new(index: Arc<RevisionIndex>, query: RevisionQuery) -> Self {
        let positions = index.positions_to_search(&query);
        let pieces = index.pieces(&positions);
        let cursors = pieces.into_iter().filter_map(|piece| index.first_cursor(&query, &positions, piece)).collect();
        Self { index, query, positions, cursors }
    }
}

impl RevisionIndex {
    /// Returns the first match of a query, in the order of the query: its position in the list, and its times.
    pub(super) fn first_match(&self, query: &RevisionQuery) -> Option<(usize, RevisionTimes)> {
        let mut query = query.clone();
        let positions = self.positions_to_search(&query);
        let mut pieces = self.pieces(&positions);
        // Large pieces come first: a match in a large piece narrows the range to search in the small ones.
        pieces.sort_unstable_by_key(|piece| std::cmp::Reverse(piece.height));
        let mut found = None;
        for piece in pieces {
            if let Some(cursor) = self.first_cursor(&query, &positions, piece) {
                let times = self.times(cursor.position);
                match query.order {
                    ScanOrder::Ascending => query.observed_us.end = times.observed_us,
                    ScanOrder::Descending => query.observed_us.start = times.observed_us.saturating_add(1),
                }
                found = Some((cursor.position as usize, times));
            }
        }
        found
    }

    /// Returns the positions of the revisions that were superseded after the time of the query.
    fn positions_to_search(&self, query: &RevisionQuery) -> Range<usize> {
        self.superseded_after(query.known_us)..query.count.min(self.len())
    }

    fn first_cursor(&self, query: &RevisionQuery, positions: &Range<usize>, piece: Piece) -> Option<Cursor> {
        let sorted = self.sorted(piece);
        if !sorted.recorded.may_have_at_most(query.known_us) {
            return None;
        }
        let bound_us = match query.order {
            ScanOrder::Ascending => query.observed_us.start,
            ScanOrder::Descending => query.observed_us.end,
        };
        self.cursor(query, positions, piece, self.count_before(sorted, bound_us))
    }

    /// Finds the next match in a piece: at or after `from` in ascending order, before `from` in descending order.
    fn cursor(&self, query: &RevisionQuery, positions: &Range<usize>, piece: Piece, from: usize) -> Option<Cursor> {
        let RevisionQuery { known_us, observed_us, order, .. } = query;
        let sorted = self.sorted(piece);
        let recorded_us = |at: usize| self.times(sorted.positions[at]).recorded_us;
        let mut from = from;
        loop {
            let nearest = match order {
                ScanOrder::Ascending => sorted.positions.get(from)?,
                ScanOrder::Descending => &sorted.positions[from.checked_sub(1)?],
            };
            if !observed_us.contains(&self.times(*nearest).observed_us) {
                return None;
            }
            let at = match order {
                ScanOrder::Ascending => sorted.recorded.first_at_most(from, *known_us, recorded_us)?,
                ScanOrder::Descending => sorted.recorded.last_at_most(from, *known_us, recorded_us)?,
            };
            let position = sorted.positions[at];
            let time_us = self.times(position).observed_us;
            if !observed_us.contains(&time_us) {
                return None;
            }
            if positions.contains(&(position as usize)) {
                // The bitwise complement reverses the order of numbers. A negation would overflow for `i64::MIN`.
                let rank = if *order == ScanOrder::Ascending { !time_us } else { time_us };
                return Some(Cursor { rank, position, piece, at });
            }
            from = if *order == ScanOrder::Ascending { at + 1 } else { at };
        }
    }
}

impl Iterator for RevisionMatches {
    /// The position of a revision in the list, and the first observed time of its run in microseconds.
    type Item = (usize, i64);

    fn next(&mut self) -> Option<Self::Item> {
        let Cursor { position, piece, at, .. } = self.cursors.pop()?;
        let from = if self.query.order == ScanOrder::Ascending { at + 1 } else { at };
        let next = self.index.cursor(&self.query, &self.positions, piece, from);
        self.cursors.extend(next);
        Some((position as usize, self.index.times(position).observed_us))
    }
}

#[cfg(test)]
mod tests;
