//! What readers hold: the store as one commit made it.
//!
//! **Invariant**: a view never changes, however long it is held and whatever is written meanwhile.

use std::sync::{Arc, OnceLock};

use super::error::StoreError;
use super::polls::PollRecord;
use super::quarantine::Quarantine;
use super::reader::BlockReader;
use super::revision_cache::RevisionIndexes;
use super::segments::{Loader, RecentBlocks, Segments};
use super::segments_summary::SegmentsSummary;
use super::series::Series;
use crate::domain::{Revision, Run, SeriesKey, Source, Timestamp};
use crate::latest_quotes::LatestQuotes;

/// A durable write: its place in the order of all, and when it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Commit {
    /// Counts up from 1; 0 is the store before its first commit.
    pub sequence: u64,
    /// UTC; strictly increasing.
    pub recorded_time: Timestamp,
}

/// The store at one commit. Cheap to hold.
pub struct View {
    /// The newest visible commit.
    pub commit: Commit,
    /// The latest quotes.
    pub latest_quotes: Arc<LatestQuotes>,
    pub(crate) series: Vec<Arc<SeriesView>>,
    pub(crate) commits: Segments<Timestamp>,
    pub(crate) polls: Vec<Arc<PollRecord>>,
    pub(crate) quarantine: Quarantine,
    pub(crate) reader: BlockReader,
}

impl View {
    /// All series, sorted by key.
    pub fn series(&self) -> impl Iterator<Item = &Arc<SeriesView>> {
        self.series.iter()
    }

    /// One of them.
    pub fn find(&self, key: &SeriesKey) -> Option<&Arc<SeriesView>> {
        self.series.binary_search_by(|series| series.key().cmp(key)).ok().and_then(|at| self.series.get(at))
    }

    /// What polls of a source found; none of a source that was never polled.
    pub fn polls(&self, source: &Source) -> Option<&Arc<PollRecord>> {
        self.polls.iter().find(|record| record.source() == source)
    }

    /// What polls of all sources found, in the order of their first polls.
    pub fn all_polls(&self) -> impl Iterator<Item = &Arc<PollRecord>> {
        self.polls.iter()
    }

    /// The ticks that were held, and what was decided of them.
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// The newest commit at or before `known_time`; `None` if all are later. Blocks.
    ///
    /// # Errors
    /// [`StoreError::DamagedCommits`].
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

    /// How many blocks were read since the store was opened, by all readers and the writer: what reads cost.
    pub fn blocks_read(&self) -> u64 {
        self.reader.blocks_read()
    }

    /// All commits, oldest first, in pieces that are never empty. Each step blocks, and fails with
    /// [`StoreError::DamagedCommits`].
    pub fn commits(self: &Arc<Self>) -> impl Iterator<Item = Result<Vec<Commit>, StoreError>> + Send + use<> {
        let view = Arc::clone(self);
        let mut sequence = 0;
        (0..self.commits.segment_count()).map(move |at| {
            let recent = RecentBlocks::default();
            let items =
                view.commits.load_segment(at, &Loader::new(&view.reader, &recent)).map_err(StoreError::of_commits)?;
            // A commit's sequence is its place in the list.
            let number = |recorded_time: &Timestamp| {
                sequence += 1;
                Commit { sequence, recorded_time: *recorded_time }
            };
            Ok(items.iter().map(number).collect())
        })
    }
}

/// One series at one commit. Its reads decode blocks: call them where blocking is fine.
///
/// `known` is a recorded time: what was believed then. The commit of the view, or any time after it,
/// gives the newest knowledge. All reads fail with [`StoreError::DamagedBlock`] where a block that
/// they need does not decode.
pub struct SeriesView {
    pub(crate) series: Series,
    pub(crate) reader: BlockReader,
    pub(crate) recorded_time: Timestamp,
    pub(super) indexes: Arc<RevisionIndexes>,
    summary: OnceLock<SegmentsSummary>,
}

impl SeriesView {
    /// Of a series as the commit made at `recorded_time` left it.
    pub(super) fn new(
        series: Series,
        reader: BlockReader,
        recorded_time: Timestamp,
        indexes: Arc<RevisionIndexes>,
    ) -> Self {
        Self { series, reader, recorded_time, indexes, summary: OnceLock::new() }
    }

    /// The pair and who published it.
    pub fn key(&self) -> &SeriesKey {
        &self.series.key
    }

    /// The number under which the store keeps it, which is never another's.
    pub fn id(&self) -> u32 {
        self.series.id
    }

    /// The longest gap that a run bridges, in microseconds.
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

    /// About how many runs begin in `[start, end)` as they are known now, without reading a block: at either end it may
    /// be off by some of a block.
    pub fn run_count_about(&self, start: Timestamp, end: Timestamp) -> u64 {
        self.series.runs.count_about(start, end)
    }

    /// The revisions made in `[start, end)` and by `known`, by superseded time, in pieces that are
    /// never empty.
    pub fn revisions(
        self: &Arc<Self>,
        start: Timestamp,
        end: Timestamp,
        known: Timestamp,
    ) -> impl Iterator<Item = Result<Vec<Revision>, StoreError>> + Send + use<> {
        let series = Arc::clone(self);
        let end = end.min(known.saturating_add_us(1));
        self.series.revisions.segments_between(start, end).filter_map(move |at| {
            let recent = RecentBlocks::default();
            let items = series.series.revisions.load_segment(at, &Loader::new(&series.reader, &recent));
            let wanted = |revision: &&Revision| start <= revision.superseded_time && revision.superseded_time < end;
            match items {
                Err(error) => Some(Err(StoreError::of_block(&series.series.key, error))),
                Ok(items) => {
                    let piece: Vec<Revision> = items.iter().filter(wanted).cloned().collect();
                    (!piece.is_empty()).then_some(Ok(piece))
                }
            }
        })
    }

    /// The last observed instant at or before `time`, of all that are known now.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`].
    pub fn instant_at(&self, time: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let recent = RecentBlocks::default();
        let loader = Loader::new(&self.reader, &recent);
        self.series.instants.at_or_before(time, &loader).map_err(|error| StoreError::of_block(&self.series.key, error))
    }

    /// The observed instants in `[start, end)`, all of them known now, in pieces that are never
    /// empty.
    pub fn instants(
        self: &Arc<Self>,
        start: Timestamp,
        end: Timestamp,
    ) -> impl Iterator<Item = Result<Vec<Timestamp>, StoreError>> + Send + use<> {
        let series = Arc::clone(self);
        self.series.instants.segments_between(start, end).filter_map(move |at| {
            let recent = RecentBlocks::default();
            match series.series.instants.load_segment(at, &Loader::new(&series.reader, &recent)) {
                Err(error) => Some(Err(StoreError::of_block(&series.series.key, error))),
                Ok(items) => {
                    let piece: Vec<Timestamp> =
                        items.iter().copied().filter(|time| start <= *time && *time < end).collect();
                    (!piece.is_empty()).then_some(Ok(piece))
                }
            }
        })
    }
}
