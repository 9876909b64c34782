//! Views: immutable snapshots of the store at one commit, for readers.
//!
//! **Invariant**: a view never changes, even while the writer makes further commits and checkpoints.

use std::sync::{Arc, OnceLock};

use super::archive::ArchivedSources;
use super::block::Item;
use super::error::StoreError;
use super::polls::PollRecord;
use super::quarantine::Quarantine;
use super::reader::BlockReader;
use super::revision_cache::RevisionIndexes;
use super::segments::{Loader, RecentBlocks, Segments};
use super::segments_summary::SegmentsSummary;
use super::series::Series;
use crate::domain::{Pair, Revision, Run, ScanOrder, SeriesKey, Source, Timestamp};
use crate::latest_quotes::LatestQuotes;

/// A durable write, identified by its sequence and by its recorded time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Commit {
    /// The number of the commit. The first commit has sequence 1; sequence 0 is the store before its first commit.
    pub sequence: u64,
    /// When the commit was recorded, UTC. Recorded times strictly increase from commit to commit.
    pub recorded_time: Timestamp,
}

/// The store at one commit. A view shares its data with the store and with other views.
pub struct View {
    /// The commit that this view shows.
    pub commit: Commit,
    /// The latest quotes at the commit.
    pub latest_quotes: Arc<LatestQuotes>,
    pub(crate) series: Vec<Arc<SeriesView>>,
    pub(crate) commits: Segments<Timestamp>,
    pub(crate) polls: Vec<Arc<PollRecord>>,
    pub(crate) archived: ArchivedSources,
    pub(crate) quarantine: Quarantine,
    pub(crate) reader: BlockReader,
}

impl View {
    /// Iterates over all series, sorted by key.
    pub fn series(&self) -> impl Iterator<Item = &Arc<SeriesView>> {
        self.series.iter()
    }

    /// Returns the series of a pair, sorted by source.
    pub fn series_of(&self, pair: Pair) -> &[Arc<SeriesView>] {
        let begin = self.series.partition_point(|series| series.key().pair < pair);
        let end = self.series.partition_point(|series| series.key().pair <= pair);
        self.series.get(begin..end).unwrap_or_default()
    }

    /// Finds the series with this key.
    pub fn find(&self, key: &SeriesKey) -> Option<&Arc<SeriesView>> {
        self.series.binary_search_by(|series| series.key().cmp(key)).ok().and_then(|at| self.series.get(at))
    }

    /// Returns the results of polls of a source; `None` if the source was never polled.
    pub fn polls(&self, source: &Source) -> Option<&Arc<PollRecord>> {
        self.polls.iter().find(|record| record.source() == source)
    }

    /// Iterates over the results of polls of all sources, in the order of their first polls.
    pub fn all_polls(&self) -> impl Iterator<Item = &Arc<PollRecord>> {
        self.polls.iter()
    }

    /// Returns the decisions to archive and unarchive sources.
    pub fn archived(&self) -> &ArchivedSources {
        &self.archived
    }

    /// Returns the held ticks and the decisions about them.
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Returns the newest commit at or before `known_time`; `None` if all commits are later. May block on disk reads.
    ///
    /// # Errors
    /// [`StoreError::DamagedCommits`] if a block of the list of commits cannot be decoded.
    pub fn commit_at(&self, known_time: Timestamp) -> Result<Option<Commit>, StoreError> {
        if known_time >= self.commit.recorded_time {
            return Ok((self.commit.sequence > 0).then_some(self.commit));
        }
        let recent = RecentBlocks::default();
        let loader = Loader::new(&self.reader, &recent);
        let Some(recorded_time) = self.commits.at_or_before(known_time, &loader).map_err(StoreError::of_commits)?
        else {
            return Ok(None);
        };
        let sequence = self.commits.rank(known_time.saturating_add_us(1), &loader).map_err(StoreError::of_commits)?;
        Ok(Some(Commit { sequence, recorded_time }))
    }

    /// Returns the number of blocks that all readers and the writer have read since the store was opened. This number
    /// measures the cost of reads.
    pub fn blocks_read(&self) -> u64 {
        self.reader.blocks_read()
    }

    /// Iterates over all commits, oldest first. Each item is a batch of at least one commit, or
    /// [`StoreError::DamagedCommits`] if a block cannot be decoded. Each step may block on a disk read.
    pub fn commits(self: &Arc<Self>) -> impl Iterator<Item = Result<Vec<Commit>, StoreError>> + Send + use<> {
        let view = Arc::clone(self);
        let mut sequence = 0;
        (0..self.commits.segment_count()).map(move |at| {
            let recent = RecentBlocks::default();
            let items =
                view.commits.load_segment(at, &Loader::new(&view.reader, &recent)).map_err(StoreError::of_commits)?;
            // The commit with sequence n is item n of the list, counted from 1.
            let number = |recorded_time: &Timestamp| {
                sequence += 1;
                Commit { sequence, recorded_time: *recorded_time }
            };
            Ok(items.iter().map(number).collect())
        })
    }
}

/// One series at one commit. Its reads may block on disk reads, so call them only on threads that may block.
///
/// The parameter `known` is a recorded time: a read returns what was known at that time. If `known` is at or after the
/// recorded time of the view's commit, a read returns the state of that commit. All reads fail with
/// [`StoreError::DamagedBlock`] if a block that they need cannot be decoded.
pub struct SeriesView {
    pub(crate) series: Series,
    pub(crate) reader: BlockReader,
    pub(crate) recorded_time: Timestamp,
    pub(super) indexes: Arc<RevisionIndexes>,
    summary: OnceLock<SegmentsSummary>,
}

impl SeriesView {
    /// Makes the view of a series at the commit with this recorded time.
    pub(super) fn new(
        series: Series,
        reader: BlockReader,
        recorded_time: Timestamp,
        indexes: Arc<RevisionIndexes>,
    ) -> Self {
        Self { series, reader, recorded_time, indexes, summary: OnceLock::new() }
    }

    /// Returns the pair and the source of the series.
    pub fn key(&self) -> &SeriesKey {
        &self.series.key
    }

    /// Returns the id of the series in its store. Ids are never reused.
    pub fn id(&self) -> u32 {
        self.series.id
    }

    /// Returns the collapse window: the longest gap that a run may bridge, inclusive, in microseconds.
    pub fn collapse_window_us(&self) -> i64 {
        self.series.collapse_window_us
    }

    pub(super) fn is_newest(&self, known: Timestamp) -> bool {
        known >= self.recorded_time
    }

    pub(super) fn summary(&self) -> &SegmentsSummary {
        self.summary.get_or_init(|| SegmentsSummary::new(&self.series.runs, &self.series.revisions))
    }

    pub(super) fn load_runs(&self, at: usize) -> Result<Arc<Vec<Run>>, StoreError> {
        let recent = RecentBlocks::default();
        self.series
            .runs
            .load_segment(at, &Loader::new(&self.reader, &recent))
            .map_err(|error| StoreError::of_block(&self.series.key, error))
    }

    /// Estimates how many runs begin in `[start, end)`, as known at the view's commit, without reading a block. The
    /// error at each end of the range is less than the number of runs in one block.
    pub fn estimated_run_count(&self, start: Timestamp, end: Timestamp) -> u64 {
        self.series.runs.estimated_count(start, end)
    }

    /// Iterates over the revisions with a superseded time in `[start, end)` and at or before `known`, sorted by
    /// superseded time. Each item is a batch of at least one revision.
    pub fn revisions(
        self: &Arc<Self>,
        start: Timestamp,
        end: Timestamp,
        known: Timestamp,
        order: ScanOrder,
    ) -> impl Iterator<Item = Result<Vec<Revision>, StoreError>> + Send + use<> {
        let end = end.min(known.saturating_add_us(1));
        self.pieces(|series| &series.revisions, start, end, order)
    }

    /// Returns the last observed instant at or before `time`, as known at the view's commit.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] if a block that the read needs cannot be decoded.
    pub fn instant_at(&self, time: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let recent = RecentBlocks::default();
        let loader = Loader::new(&self.reader, &recent);
        self.series.instants.at_or_before(time, &loader).map_err(|error| StoreError::of_block(&self.series.key, error))
    }

    /// Iterates over the observed instants in `[start, end)`, as known at the view's commit, sorted by time. Each item
    /// is a batch of at least one instant.
    pub fn instants(
        self: &Arc<Self>,
        start: Timestamp,
        end: Timestamp,
        order: ScanOrder,
    ) -> impl Iterator<Item = Result<Vec<Timestamp>, StoreError>> + Send + use<> {
        self.pieces(|series| &series.instants, start, end, order)
    }

    /// Iterates over the items of a list with keys in `[start, end)`. Each piece is of one segment, and none is empty.
    fn pieces<T: Item>(
        self: &Arc<Self>,
        list: fn(&Series) -> &Segments<T>,
        start: Timestamp,
        end: Timestamp,
        order: ScanOrder,
    ) -> impl Iterator<Item = Result<Vec<T>, StoreError>> + Send + use<T> {
        let series = Arc::clone(self);
        let mut segments = list(&self.series).segments_between(start, end);
        let next_segment = move || match order {
            ScanOrder::Ascending => segments.next(),
            ScanOrder::Descending => segments.next_back(),
        };
        std::iter::from_fn(next_segment).filter_map(move |at| {
            let recent = RecentBlocks::default();
            match list(&series.series).load_segment(at, &Loader::new(&series.reader, &recent)) {
                Err(error) => Some(Err(StoreError::of_block(&series.series.key, error))),
                Ok(items) => {
                    let wanted = |item: &&T| start <= item.key() && item.key() < end;
                    let mut piece: Vec<T> = items.iter().filter(wanted).cloned().collect();
                    if order == ScanOrder::Descending {
                        piece.reverse();
                    }
                    (!piece.is_empty()).then_some(Ok(piece))
                }
            }
        })
    }
}
