//! The revised runs of a scan as known earlier, in its order, a batch at a time.
//!
//! **Invariant**: of the runs that are still to come, no more than a batch is in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use super::error::StoreError;
use super::revision_index::Believed;
use super::scan_order::ScanOrder;
use super::view::SeriesView;
use crate::domain::{Run, Timestamp};

/// Most runs of the first batch. Each batch is twice as large as the one before it: whoever asks for one page reads few
/// blocks, and whoever asks for all reads a block seldom more than once a batch.
const FIRST_BATCH_RUNS: usize = 256;
/// Most runs of a batch.
const BATCH_RUNS_MAX: usize = 16_384;

/// Runs that were believed at a time and revised since, of which a scan takes the part `P`.
pub(super) struct RevisedRuns<P> {
    series: Arc<SeriesView>,
    /// The places of those to come; none if `batch` has all.
    believed: Option<Believed>,
    batch: VecDeque<P>,
    batch_runs: usize,
}

impl<P: From<Run>> RevisedRuns<P> {
    /// No runs.
    pub(super) fn none(series: &Arc<SeriesView>) -> Self {
        Self { series: Arc::clone(series), believed: None, batch: VecDeque::new(), batch_runs: FIRST_BATCH_RUNS }
    }

    /// Those that begin in `[start, end)` and were believed at `known`.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`].
    pub(super) fn new(
        series: &Arc<SeriesView>,
        [start, end]: [Timestamp; 2],
        known: Timestamp,
        order: ScanOrder,
    ) -> Result<Self, StoreError> {
        let none = Self::none(series);
        if let Some(believed) = series.believed([start, end], known, order)? {
            return Ok(Self { believed: Some(believed), ..none });
        }
        // More than are indexed: all of them at once.
        let mut runs: Vec<Run> = Vec::new();
        series.for_each_believed(known, start, end, |run| runs.push(run.clone()))?;
        runs.sort_unstable_by_key(|run| run.first_observed_time);
        if order == ScanOrder::Descending {
            runs.reverse();
        }
        Ok(Self { batch: runs.into_iter().map(P::from).collect(), ..none })
    }

    /// The next run, which stays.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`].
    pub(super) fn front(&mut self) -> Result<Option<&P>, StoreError> {
        if self.batch.is_empty() {
            self.load()?;
        }
        Ok(self.batch.front())
    }

    /// Takes the run that [`Self::front`] showed.
    pub(super) fn pop(&mut self) -> Option<P> {
        self.batch.pop_front()
    }

    /// Takes some of the runs that are left; none if there are none.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`].
    pub(super) fn next_piece(&mut self) -> Result<Option<Vec<P>>, StoreError> {
        Ok(if self.front()?.is_some() { Some(self.batch.drain(..).collect()) } else { None })
    }

    /// Loads the next batch, decoding each block that it needs once.
    fn load(&mut self) -> Result<(), StoreError> {
        let Some(believed) = &mut self.believed else { return Ok(()) };
        let places = believed.by_ref().take(self.batch_runs);
        let segments =
            places.enumerate().map(|(number, (place, _))| (self.series.summary().revision_segment(place), number));
        let mut segments: Vec<((usize, usize), usize)> = segments.collect();
        segments.sort_unstable();
        let mut runs: Vec<(usize, P)> = Vec::with_capacity(segments.len());
        for of_one in segments.chunk_by(|((segment, _), _), ((next, _), _)| segment == next) {
            let Some(((segment, _), _)) = of_one.first() else { continue };
            let items = self.series.load_revisions(*segment)?;
            let run = |((_, at), number): &((usize, usize), usize)| Some((*number, items.get(*at)?.run.clone().into()));
            runs.extend(of_one.iter().filter_map(run));
        }
        runs.sort_unstable_by_key(|(number, _)| *number);
        self.batch = runs.into_iter().map(|(_, run)| run).collect();
        self.batch_runs = (self.batch_runs * 2).min(BATCH_RUNS_MAX);
        Ok(())
    }
}
