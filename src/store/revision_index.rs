//! An index in memory of the revisions of a series: which of them were believed at a recorded time, by observed time.
//!
//! Revisions are listed in the order in which they were superseded, and the list only grows. So those superseded after a
//! time `known` are the end of the list, and of those the believed ones were recorded at or before `known`. The index
//! keeps pieces of the list sorted by first observed time, each with the minima of recorded times: leaves of 1,024
//! revisions, and pieces of 8, 64, 512 and more leaves. The end of a list consists of a few pieces of each size, and in
//! each of them the neighbour of an observed time that was recorded early enough is one search.
//!
//! **Invariants**: a piece never changes once it is full; a longer index shares the pieces of the shorter one.

use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use super::block::RevisionTimes;
use super::min_tree::MinTree;
use super::scan_order::ScanOrder;

/// Revisions of a leaf.
const LEAF_REVISIONS: usize = 1_024;
/// How many pieces of one size make one of the next.
const FAN_OUT: usize = 8;
/// Every so many revisions of a piece, an observed time stands in an array of its own, to be searched first.
const SAMPLE_EVERY: usize = 16;

/// The times of the first revisions of a series, arranged for searches.
#[derive(Default)]
pub(super) struct RevisionIndex {
    leaves: Vec<Arc<Leaf>>,
    /// By size: pieces of 8 leaves, of 64, and so on, each made once all its leaves are full.
    merged: Vec<Vec<Arc<Sorted>>>,
}

/// Consecutive revisions of the list.
struct Leaf {
    times: Vec<RevisionTimes>,
    sorted: Sorted,
}

/// Consecutive revisions by first observed time.
struct Sorted {
    /// Their places in the list.
    places: Vec<u32>,
    /// First observed time of every 16th of them, microseconds.
    samples_us: Vec<i64>,
    /// Of their recorded times, microseconds.
    recorded: MinTree,
}

impl Sorted {
    /// Of first observed times and places.
    fn new(mut entries: Vec<(i64, u32)>, recorded_us: impl Fn(u32) -> i64) -> Self {
        // Pieces that are sorted already are merged, which the stable sort does in linear time.
        entries.sort_by_key(|(observed_us, _)| *observed_us);
        let recorded: Vec<i64> = entries.iter().map(|(_, place)| recorded_us(*place)).collect();
        Self {
            samples_us: entries.iter().step_by(SAMPLE_EVERY).map(|(observed_us, _)| *observed_us).collect(),
            places: entries.into_iter().map(|(_, place)| place).collect(),
            recorded: MinTree::new(&recorded),
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(self.places.as_slice()) + size_of_val(self.samples_us.as_slice()) + self.recorded.bytes()
    }
}

impl Leaf {
    fn new(first_place: usize, times: Vec<RevisionTimes>) -> Self {
        let places = first_place..;
        let entries = times.iter().zip(places).map(|(times, place)| (times.observed_us, stored(place))).collect();
        let sorted = Sorted::new(entries, |place| times[place as usize - first_place].recorded_us);
        Self { times, sorted }
    }
}

/// A place as it is stored: the limit of an index keeps it far below.
fn stored(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// One of the sorted pieces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Piece {
    /// 0 for leaves.
    height: usize,
    at: usize,
}

impl RevisionIndex {
    /// Of how many revisions it is.
    pub(super) fn len(&self) -> usize {
        self.leaves.last().map_or(0, |last| (self.leaves.len() - 1) * LEAF_REVISIONS + last.times.len())
    }

    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        let leaves = self.leaves.iter().map(|leaf| size_of_val(leaf.times.as_slice()) + leaf.sorted.bytes());
        leaves.sum::<usize>() + self.merged.iter().flatten().map(|sorted| sorted.bytes()).sum::<usize>()
    }

    /// The same index with `more` revisions, which follow its own in the list. Pieces that are full are shared.
    pub(super) fn extended(&self, more: &[RevisionTimes]) -> Self {
        let mut longer = Self { leaves: self.leaves.clone(), merged: self.merged.clone() };
        let mut more = more;
        if let Some(last) = longer.leaves.pop_if(|last| last.times.len() < LEAF_REVISIONS) {
            let (fit, rest) = more.split_at(more.len().min(LEAF_REVISIONS - last.times.len()));
            let first_place = longer.leaves.len() * LEAF_REVISIONS;
            longer.leaves.push(Arc::new(Leaf::new(first_place, [last.times.as_slice(), fit].concat())));
            more = rest;
        }
        for times in more.chunks(LEAF_REVISIONS) {
            let first_place = longer.leaves.len() * LEAF_REVISIONS;
            longer.leaves.push(Arc::new(Leaf::new(first_place, times.to_vec())));
        }
        longer.merge();
        longer
    }

    /// Makes the pieces whose leaves have become full.
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
                let places = parts.flat_map(|part| part.places.iter().copied());
                let entries = places.map(|place| (self.times(place).observed_us, place)).collect();
                let merged = Sorted::new(entries, |place| self.times(place).recorded_us);
                self.merged[height - 1].push(Arc::new(merged));
            }
            leaves_each *= FAN_OUT;
        }
    }

    fn sorted(&self, piece: Piece) -> &Sorted {
        match piece.height.checked_sub(1) {
            None => &self.leaves[piece.at].sorted,
            Some(above) => &self.merged[above][piece.at],
        }
    }

    fn times(&self, place: u32) -> RevisionTimes {
        let place = place as usize;
        self.leaves[place / LEAF_REVISIONS].times[place % LEAF_REVISIONS]
    }

    /// The place of the first revision that was superseded after `known_us`.
    fn superseded_after(&self, known_us: i64) -> usize {
        let by_then = |times: &RevisionTimes| times.superseded_us <= known_us;
        let leaf = self.leaves.partition_point(|leaf| leaf.times.last().is_some_and(by_then));
        let within = self.leaves.get(leaf).map_or(0, |leaf| leaf.times.partition_point(by_then));
        leaf * LEAF_REVISIONS + within
    }

    /// The fewest pieces with all revisions of these places. Leaves at both ends may hold others too.
    fn pieces(&self, places: &Range<usize>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut at = places.start;
        while at < places.end {
            let mut found = (Piece { height: 0, at: at / LEAF_REVISIONS }, LEAF_REVISIONS);
            let mut width = LEAF_REVISIONS;
            for (below, merged) in self.merged.iter().enumerate() {
                width *= FAN_OUT;
                if !at.is_multiple_of(width) || at + width > places.end || at / width >= merged.len() {
                    break;
                }
                found = (Piece { height: below + 1, at: at / width }, width);
            }
            pieces.push(found.0);
            at = at / found.1 * found.1 + found.1;
        }
        pieces
    }

    /// How many revisions of a piece begin before `time_us`.
    fn begun(&self, sorted: &Sorted, time_us: i64) -> usize {
        let samples = sorted.samples_us.partition_point(|observed_us| *observed_us < time_us);
        let Some(last) = samples.checked_sub(1) else { return 0 };
        let start = last * SAMPLE_EVERY;
        let group = &sorted.places[start..(start + SAMPLE_EVERY).min(sorted.places.len())];
        start + group.partition_point(|place| self.times(*place).observed_us < time_us)
    }
}

/// Which revisions are asked for. Times in microseconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    /// Only the first so many of the list: a view that is older than the index has no more.
    pub(super) count: usize,
    /// Those that were believed then.
    pub(super) known_us: i64,
    /// Those whose runs begin in this range, half-open.
    pub(super) observed_us: Range<i64>,
    /// By first observed time.
    pub(super) order: ScanOrder,
}

/// The wanted revisions of an index, one after the other: their places in the list.
pub(super) struct Believed {
    index: Arc<RevisionIndex>,
    wanted: Wanted,
    places: Range<usize>,
    /// The next revision of each piece that has one.
    heads: BinaryHeap<Head>,
}

/// The next revision of a piece. The greatest comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    rank: i64,
    place: u32,
    piece: Piece,
    /// Its place in the piece.
    at: usize,
}

impl Believed {
    /// The revisions of `index` that are wanted.
    pub(super) fn new(index: Arc<RevisionIndex>, wanted: Wanted) -> Self {
        let places = index.wanted_places(&wanted);
        let heads = index.pieces(&places).into_iter().filter_map(|piece| index.first_head(&wanted, &places, piece));
        let heads = heads.collect();
        Self { index, wanted, places, heads }
    }
}

impl RevisionIndex {
    /// The first of the wanted revisions in their order: its place in the list, and its times.
    pub(super) fn next_believed(&self, wanted: &Wanted) -> Option<(usize, RevisionTimes)> {
        let mut wanted = wanted.clone();
        let places = self.wanted_places(&wanted);
        let mut pieces = self.pieces(&places);
        // What is found in a large piece leaves little to look for in small ones.
        pieces.sort_unstable_by_key(|piece| std::cmp::Reverse(piece.height));
        let mut found = None;
        for piece in pieces {
            if let Some(head) = self.first_head(&wanted, &places, piece) {
                let times = self.times(head.place);
                match wanted.order {
                    ScanOrder::Ascending => wanted.observed_us.end = times.observed_us,
                    ScanOrder::Descending => wanted.observed_us.start = times.observed_us.saturating_add(1),
                }
                found = Some((head.place as usize, times));
            }
        }
        found
    }

    /// The places of those that were superseded after the time, as far as the list of the view goes.
    fn wanted_places(&self, wanted: &Wanted) -> Range<usize> {
        self.superseded_after(wanted.known_us)..wanted.count.min(self.len())
    }

    fn first_head(&self, wanted: &Wanted, places: &Range<usize>, piece: Piece) -> Option<Head> {
        let sorted = self.sorted(piece);
        if !sorted.recorded.may_have_at_most(wanted.known_us) {
            return None;
        }
        let edge_us = match wanted.order {
            ScanOrder::Ascending => wanted.observed_us.start,
            ScanOrder::Descending => wanted.observed_us.end,
        };
        self.head(wanted, places, piece, self.begun(sorted, edge_us))
    }

    /// The next revision of a piece that is wanted: from the one at `from` on, or before it where the order descends.
    fn head(&self, wanted: &Wanted, places: &Range<usize>, piece: Piece, from: usize) -> Option<Head> {
        let Wanted { known_us, observed_us, order, .. } = wanted;
        let sorted = self.sorted(piece);
        let recorded_us = |at: usize| self.times(sorted.places[at]).recorded_us;
        let mut from = from;
        loop {
            let nearest = match order {
                ScanOrder::Ascending => sorted.places.get(from)?,
                ScanOrder::Descending => &sorted.places[from.checked_sub(1)?],
            };
            if !observed_us.contains(&self.times(*nearest).observed_us) {
                return None;
            }
            let at = match order {
                ScanOrder::Ascending => sorted.recorded.first_at_most(from, *known_us, recorded_us)?,
                ScanOrder::Descending => sorted.recorded.last_at_most(from, *known_us, recorded_us)?,
            };
            let place = sorted.places[at];
            let time_us = self.times(place).observed_us;
            if !observed_us.contains(&time_us) {
                return None;
            }
            if places.contains(&(place as usize)) {
                // The complement turns the order around, the least number included.
                let rank = if *order == ScanOrder::Ascending { !time_us } else { time_us };
                return Some(Head { rank, place, piece, at });
            }
            from = if *order == ScanOrder::Ascending { at + 1 } else { at };
        }
    }
}

impl Iterator for Believed {
    /// A place in the list, and the first observed time of the run in microseconds.
    type Item = (usize, i64);

    fn next(&mut self) -> Option<Self::Item> {
        let Head { place, piece, at, .. } = self.heads.pop()?;
        let from = if self.wanted.order == ScanOrder::Ascending { at + 1 } else { at };
        let head = self.index.head(&self.wanted, &self.places, piece, from);
        self.heads.extend(head);
        Some((place as usize, self.index.times(place).observed_us))
    }
}

#[cfg(test)]
mod tests;
