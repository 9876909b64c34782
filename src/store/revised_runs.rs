//! The revised runs of an as-of scan, in the order of the scan, loaded in batches.
//!
//! **Invariant**: at most one batch of runs is in memory, unless the series has too many revisions for an index.

use std::collections::VecDeque;
use std::sync::Arc;

use super::error::StoreError;
use super::revision_index::RevisionMatches;
use super::view::SeriesView;
use crate::domain::{Run, ScanOrder, Timestamp};

/// Number of runs in the first batch. Each batch is twice as large as the batch before it. So a read of one page
/// decodes few blocks, and a read of all runs usually decodes each block only a few times.
const FIRST_BATCH_RUNS: usize = 256;
/// Maximum number of runs in a batch.
const BATCH_RUNS_MAX: usize = 16_384;

/// Runs that were current at an earlier time and were revised since. `P` is what a scan returns of each run: the whole
/// run, or its rate with its times.
pub(super) struct RevisedRuns<P> {
    series: Arc<SeriesView>,
    /// The revisions not loaded yet; `None` if `batch` has all remaining runs.
    matches: Option<RevisionMatches>,
    batch: VecDeque<P>,
    batch_runs: usize,
}

impl<P: From<Run>> RevisedRuns<P> {
    /// Makes an empty sequence of runs.
    pub(super) fn none(series: &Arc<SeriesView>) -> Self {
        Self { series: Arc::clone(series), matches: None, batch: VecDeque::new(), batch_runs: FIRST_BATCH_RUNS }
    }

    /// Finds the revised runs that begin in `[start, end)` and were current at `known`.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] if a block that the search needs cannot be decoded.
    pub(super) fn new(
        series: &Arc<SeriesView>,
        [start, end]: [Timestamp; 2],
        known: Timestamp,
        order: ScanOrder,
    ) -> Result<Self, StoreError> {
        let none = Self::none(series);
        if let Some(matches) = series.revision_matches([start, end], known, order)? {
            return Ok(Self { matches: Some(matches), ..none });
        }
        // Too many revisions for an index: load all runs at once.
        let mut runs: Vec<Run> = Vec::new();
        series.for_each_revised_run(known, start, end, |run| runs.push(run.clone()))?;
        runs.sort_unstable_by_key(|run| run.first_observed_time);
        if order == ScanOrder::Descending {
            runs.reverse();
        }
        Ok(Self { batch: runs.into_iter().map(P::from).collect(), ..none })
    }

    /// Returns the next run without taking it.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] if a block of the next batch cannot be decoded.
    pub(super) fn front(&mut self) -> Result<Option<&P>, StoreError> {
        if self.batch.is_empty() {
            self.load()?;
        }
        Ok(self.batch.front())
    }

    /// Takes the run that [`Self::front`] returned.
    pub(super) fn pop(&mut self) -> Option<P> {
        self.batch.pop_front()
    }

    /// Takes the rest of the batch, or the next batch if the batch is empty; `None` after the last run.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] if a block of the next batch cannot be decoded.
    pub(super) fn next_piece(&mut self) -> Result<Option<Vec<P>>, StoreError> {
        Ok(if self.front()?.is_some() { Some(self.batch.drain(..).collect()) } else { None })
    }

    /// Loads the next batch. Decodes each block of the batch once.
    fn load(&mut self) -> Result<(), StoreError> {
        let Some(matches) = &mut self.matches else { return Ok(()) };
        let positions = matches.by_ref().take(self.batch_runs);
        let summary = self.series.summary();
        let revisions =
            positions.enumerate().map(|(number, (position, _))| (summary.revision_segment(position), number));
        // The revisions are sorted by segment, so that each segment is loaded once. `number` is the position of a run in
        // the scan. At the end, the runs are sorted by this number.
        let mut revisions: Vec<((usize, usize), usize)> = revisions.collect();
        revisions.sort_unstable();
        let mut runs: Vec<(usize, P)> = Vec::with_capacity(revisions.len());
        for in_segment in revisions.chunk_by(|((segment, _), _), ((next, _), _)| segment == next) {
            let Some(((segment, _), _)) = in_segment.first() else { continue };
            let items = self.series.load_revisions(*segment)?;
            let run = |((_, at), number): &((usize, usize), usize)| Some((*number, items.get(*at)?.run.clone().into()));
            runs.extend(in_segment.iter().filter_map(run));
        }
        runs.sort_unstable_by_key(|(number, _)| *number);
        self.batch = runs.into_iter().map(|(_, run)| run).collect();
        self.batch_runs = (self.batch_runs * 2).min(BATCH_RUNS_MAX);
        Ok(())
    }
}
