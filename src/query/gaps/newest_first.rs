//! Gaps of several series together, newest first.
//!
//! **Invariant**: a gap is returned only after every gap that comes before it in the list has been found.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use super::{GapCursor, GapSearch};
use crate::domain::{ScanOrder, Timestamp};
use crate::query::{QueryError, check_cancelled};
use crate::store::{SeriesView, StoreError};

type Pieces = Box<dyn Iterator<Item = Result<Vec<Timestamp>, StoreError>>>;

/// A series whose instants are read from the newest to the oldest.
struct BackwardScan {
    pieces: Pieces,
    /// The instant at or after `bound`, if there is one.
    next: Option<Timestamp>,
    /// Gaps that start before this instant have not been found yet.
    bound: Timestamp,
}

/// A gap that was found but not returned yet. The greatest one is the first in the list.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct FoundGap {
    start: Timestamp,
    /// The index of the series. Gaps that start together are in the order of their series.
    series: Reverse<usize>,
    next: Option<Timestamp>,
}

impl GapSearch<'_> {
    /// Finds the gaps of a page, newest first. Returns the cursor of the next page.
    pub(super) fn find_newest_first(&mut self, all: &[Arc<SeriesView>]) -> Result<Option<GapCursor>, QueryError> {
        if self.request.range.start() >= self.request.range.end() {
            return Ok(None);
        }
        let mut scans = Vec::with_capacity(all.len());
        let bounds = self.bounds(all);
        for (series, bound) in all.iter().zip(bounds) {
            let mut later = series.instants(bound, Timestamp::from_micros(i64::MAX), ScanOrder::Ascending);
            let next = later.next().transpose()?.and_then(|piece| piece.first().copied());
            let pieces: Pieces = Box::new(series.instants(Timestamp::MIN, bound, ScanOrder::Descending));
            scans.push(Some(BackwardScan { pieces, next, bound }));
        }
        let newest_bound = scans.iter().flatten().map(|scan| scan.bound).max();
        let mut found = BinaryHeap::<FoundGap>::new();
        loop {
            let newest = scans.iter().enumerate().filter_map(|(at, scan)| Some((scan.as_ref()?.bound, at))).max();
            let bound = newest.map(|(bound, _)| bound);
            while let Some(gap) = found.peek_mut() {
                if bound.is_some_and(|bound| gap.start < bound) {
                    break;
                }
                if self.is_full() {
                    return Ok(self.cursor_after_last(all));
                }
                let FoundGap { start, series: Reverse(at), next } = PeekMut::pop(gap);
                if let Some(series) = all.get(at) {
                    self.add(series, start, next);
                }
            }
            let Some((bound, at)) = newest else { return Ok(None) };
            // The next page starts at this bound, so a page must lower it, or the list would never end.
            if self.instant_count >= self.budget.instants_max && Some(bound) < newest_bound {
                let last = all.last().map_or(0, |series| series.id());
                return Ok(Some(GapCursor { series: last, from: bound, now: self.now }));
            }
            self.read_piece(all, at, &mut scans, &mut found)?;
        }
    }

    /// Returns, for each series, the end of the instants at which a gap of this page may start, exclusive.
    fn bounds(&self, all: &[Arc<SeriesView>]) -> Vec<Timestamp> {
        let end = self.request.range.end().min(self.now);
        let Some(after) = self.request.after else { return vec![end; all.len()] };
        // The series up to that of the cursor have returned their gaps that start at `from`.
        let last = all.iter().position(|series| series.id() == after.series);
        let bound = |at| if last.is_none_or(|last| at <= last) { after.from } else { after.from.saturating_add_us(1) };
        (0..all.len()).map(|at| bound(at).min(end)).collect()
    }

    /// Reads the next older piece of a series and adds its gaps to `found`. Removes the scan of the series after its
    /// last gap.
    fn read_piece(
        &mut self,
        all: &[Arc<SeriesView>],
        at: usize,
        scans: &mut [Option<BackwardScan>],
        found: &mut BinaryHeap<FoundGap>,
    ) -> Result<(), QueryError> {
        check_cancelled(&self.reader.cancel)?;
        let (Some(slot), Some(series)) = (scans.get_mut(at), all.get(at)) else { return Ok(()) };
        let Some(scan) = slot else { return Ok(()) };
        let Some(piece) = scan.pieces.next().transpose()? else {
            *slot = None;
            return Ok(());
        };
        self.instant_count += piece.len();
        for start in piece {
            let next = scan.next.replace(start);
            if self.is_requested(series, start, next) {
                found.push(FoundGap { start, series: Reverse(at), next });
            }
            scan.bound = start;
            if start <= self.request.range.start() {
                *slot = None;
                break;
            }
        }
        Ok(())
    }

    fn cursor_after_last(&self, all: &[Arc<SeriesView>]) -> Option<GapCursor> {
        let last = self.gaps.last()?;
        let series = all.iter().find(|series| *series.key() == last.series)?;
        Some(GapCursor { series: series.id(), from: last.start, now: self.now })
    }
}
