//! Scans over the runs of a series, one segment at a time. A scan decodes either whole runs or only their rates.
//!
//! **Invariant**: a scan returns the runs of one commit, each run once, sorted by first observed time; a block that
//! cannot be decoded ends the scan with an error.

use std::ops::Range;
use std::sync::Arc;

use super::block::{BlockError, BlockMeta};
use super::error::StoreError;
use super::reader::BlockReader;
use super::revised_runs::RevisedRuns;
use super::segments::Segment;
use super::series::{Access, Recent};
use super::view::SeriesView;
use crate::domain::{Rate, RateSpan, Run, ScanOrder, Timestamp};

impl SeriesView {
    /// Scans the runs that begin in `[start, end)`, as known at `known`. Each item is a batch of at least one run.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] if a block cannot be decoded: from this call, or as the last item of the scan.
    pub fn runs(
        self: &Arc<Self>,
        start: Timestamp,
        end: Timestamp,
        known: Timestamp,
        order: ScanOrder,
    ) -> Result<impl Iterator<Item = Result<Vec<Run>, StoreError>> + Send + use<>, StoreError> {
        RunScan::<Run>::new(self, [start, end], known, order)
    }

    /// Scans the rates of the same runs as [`Self::runs`], oldest first. Decodes only times and rates.
    ///
    /// # Errors
    /// The same as [`Self::runs`].
    pub fn rate_spans(
        self: &Arc<Self>,
        start: Timestamp,
        end: Timestamp,
        known: Timestamp,
    ) -> Result<impl Iterator<Item = Result<Vec<RateSpan>, StoreError>> + Send + use<>, StoreError> {
        RunScan::<RateSpan>::new(self, [start, end], known, ScanOrder::Ascending)
    }

    /// Returns when the rate in force at `time` began, and the previous rate. The beginning is the first observed time
    /// of the first run in the unbroken sequence of runs with this rate; reported changes and gaps are ignored. The
    /// previous rate is `None` if the rate never moved. The result is `None` if no rate is in force at `time`.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] if a block that the read needs cannot be decoded.
    pub fn rate_since(
        self: &Arc<Self>,
        time: Timestamp,
        known: Timestamp,
    ) -> Result<Option<(Timestamp, Option<Rate>)>, StoreError> {
        let Some(run) = self.run_at(time, known)? else { return Ok(None) };
        if self.is_newest(known) {
            let recent = Recent::default();
            let access = Access { reader: &self.reader, recent: &recent };
            let last_move = match &self.series.newest {
                Some(newest) if *newest == run => self.series.last_move,
                _ => self
                    .series
                    .last_move_of(&run, &access)
                    .map_err(|error| StoreError::of_block(&self.series.key, error))?,
            };
            return Ok(Some((last_move.since, last_move.before.map(|(_, rate)| rate))));
        }
        let mut since = run.first_observed_time;
        for piece in self.runs(Timestamp::MIN, since, known, ScanOrder::Descending)? {
            for other in piece? {
                if !other.value.rate.same_number(run.value.rate) {
                    return Ok(Some((since, Some(other.value.rate))));
                }
                since = other.first_observed_time;
            }
        }
        Ok(Some((since, None)))
    }
}

/// The part of a run that a scan returns: the whole run, or its rate.
pub(super) trait RunPart: From<Run> {
    fn first_observed_time(&self) -> Timestamp;
    /// Reads this part of all runs of a block.
    fn read(reader: &BlockReader, meta: &BlockMeta) -> Result<Vec<Self>, BlockError>;
}

impl RunPart for Run {
    fn first_observed_time(&self) -> Timestamp {
        self.first_observed_time
    }

    fn read(reader: &BlockReader, meta: &BlockMeta) -> Result<Vec<Self>, BlockError> {
        reader.read::<Run>(meta)
    }
}

impl RunPart for RateSpan {
    fn first_observed_time(&self) -> Timestamp {
        self.first_observed_time
    }

    fn read(reader: &BlockReader, meta: &BlockMeta) -> Result<Vec<Self>, BlockError> {
        reader.read_rates(meta)
    }
}

/// A scan over the runs of a series. Each item is a batch of at least one run, usually the runs of one segment.
pub(super) struct RunScan<P> {
    series: Arc<SeriesView>,
    segments: Range<usize>,
    start: Timestamp,
    end: Timestamp,
    known: Timestamp,
    order: ScanOrder,
    /// Runs that were current at `known` and were revised since, in the order of the scan.
    revised: RevisedRuns<P>,
}

impl<P: RunPart> RunScan<P> {
    /// Begins a scan of the runs that begin in `[start, end)`.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] if a block of revisions cannot be decoded.
    pub(super) fn new(
        series: &Arc<SeriesView>,
        [start, end]: [Timestamp; 2],
        known: Timestamp,
        order: ScanOrder,
    ) -> Result<Self, StoreError> {
        let revised = if series.is_newest(known) {
            RevisedRuns::none(series)
        } else {
            RevisedRuns::new(series, [start, end], known, order)?
        };
        let segments = series.series.runs.segments_between(start, end);
        Ok(Self { series: Arc::clone(series), segments, start, end, known, order, revised })
    }

    fn next_segment(&mut self) -> Option<usize> {
        match self.order {
            ScanOrder::Ascending => self.segments.next(),
            ScanOrder::Descending => self.segments.next_back(),
        }
    }

    fn load(&self, at: usize) -> Result<Vec<P>, StoreError> {
        let mut piece = match self.series.series.runs.segment(at) {
            Some(Segment::Immutable(meta)) if meta.recorded_min_us > self.known.micros() => Vec::new(),
            Some(Segment::Immutable(meta)) if self.includes_all(&meta) => P::read(&self.series.reader, &meta)
                .map_err(|error| StoreError::of_block(&self.series.series.key, error))?,
            Some(Segment::Immutable(_) | Segment::Mutable(_)) | None => {
                let runs = self.series.load_runs(at)?;
                runs.iter().filter(|run| self.includes(run)).cloned().map(P::from).collect()
            }
        };
        if self.order == ScanOrder::Descending {
            piece.reverse();
        }
        Ok(piece)
    }

    /// Returns true if the scan includes this run. The run must be unrevised.
    fn includes(&self, run: &Run) -> bool {
        self.start <= run.first_observed_time
            && run.first_observed_time < self.end
            && (self.series.is_newest(self.known) || run.recorded_time <= self.known)
    }

    /// Returns true if the index entry of a block shows that the scan includes every run of the block.
    fn includes_all(&self, meta: &BlockMeta) -> bool {
        self.start <= meta.first_key()
            && meta.last_key() < self.end
            && (self.series.is_newest(self.known) || meta.recorded_max_us <= self.known.micros())
    }

    /// Merges `piece` with the revised runs that come before its last run.
    fn merge(&mut self, piece: Vec<P>) -> Result<Vec<P>, StoreError> {
        if self.revised.front()?.is_none() {
            return Ok(piece);
        }
        let mut merged = Vec::with_capacity(piece.len());
        for run in piece {
            while let Some(revised) = self.revised.front()?
                && precedes(self.order, revised, &run)
            {
                merged.extend(self.revised.pop());
            }
            merged.push(run);
        }
        Ok(merged)
    }

    fn next_piece(&mut self) -> Result<Option<Vec<P>>, StoreError> {
        while let Some(at) = self.next_segment() {
            let piece = self.load(at)?;
            if !piece.is_empty() {
                return self.merge(piece).map(Some);
            }
        }
        self.revised.next_piece()
    }
}

/// Returns true if `a` comes before `b` in a scan of this order.
fn precedes<P: RunPart>(order: ScanOrder, a: &P, b: &P) -> bool {
    match order {
        ScanOrder::Ascending => a.first_observed_time() < b.first_observed_time(),
        ScanOrder::Descending => a.first_observed_time() > b.first_observed_time(),
    }
}

impl<P: RunPart> Iterator for RunScan<P> {
    type Item = Result<Vec<P>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.next_piece();
        if piece.is_err() {
            self.segments = 0..0;
            self.revised = RevisedRuns::none(&self.series);
        }
        piece.transpose()
    }
}
