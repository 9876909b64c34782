//! What readers hold: the store as one commit made it.
//!
//! **Invariant**: a view never changes, however long it is held and whatever is written meanwhile.

use std::sync::Arc;

use super::error::StoreError;
use super::polls::PollRecord;
use super::quarantine::Quarantine;
use super::reader::BlockReader;
use super::series::{Access, Recent, Series};
use super::track::{Loader, RecentBlocks, Slot, Track};
use crate::board::Board;
use crate::domain::{Revision, Run, SeriesKey, Source, Timestamp};

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
    pub board: Arc<Board>,
    pub(crate) series: Vec<Arc<SeriesView>>,
    pub(crate) commits: Track<Timestamp>,
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

    /// All commits, oldest first, in pieces that are never empty. Each step blocks, and fails with
    /// [`StoreError::DamagedCommits`].
    pub fn commits(self: &Arc<Self>) -> impl Iterator<Item = Result<Vec<Commit>, StoreError>> + Send + use<> {
        let view = Arc::clone(self);
        let mut sequence = 0;
        (0..self.commits.slot_count()).map(move |at| {
            let recent = RecentBlocks::default();
            let items =
                view.commits.load_slot(at, &Loader::new(&view.reader, &recent)).map_err(StoreError::of_commits)?;
            // A commit's sequence is its place in the list.
            let number = |recorded_time: &Timestamp| {
                sequence += 1;
                Commit { sequence, recorded_time: *recorded_time }
            };
            Ok(items.iter().map(number).collect())
        })
    }
}

/// Coverage and counts of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeriesTotals {
    /// First observation.
    pub first_observed_time: Timestamp,
    /// Last observation, inclusive.
    pub last_observed_time: Timestamp,
    /// Runs.
    pub run_count: u64,
    /// Observations, all runs together.
    pub observation_count: u64,
    /// Revisions that had happened.
    pub revision_count: u64,
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
}

impl SeriesView {
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

    /// The last run that begins at or before `time`.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`].
    pub fn run_at(&self, time: Timestamp, known: Timestamp) -> Result<Option<Run>, StoreError> {
        if self.is_newest(known) {
            // The present is asked for most, and needs no block.
            if let Some(newest) = &self.series.newest
                && newest.first_observed_time <= time
            {
                return Ok(Some(newest.clone()));
            }
            let recent = Recent::default();
            let access = Access { reader: &self.reader, recent: &recent };
            return self
                .series
                .runs
                .at_or_before(time, &access.runs())
                .map_err(|error| StoreError::of_block(&self.series.key, error));
        }
        let standing = self.last_standing(time, known)?;
        let revised = self.last_revised(time, known)?;
        Ok(match (standing, revised) {
            (Some(standing), Some(revised)) if revised.first_observed_time > standing.first_observed_time => {
                Some(revised)
            }
            (Some(standing), _) => Some(standing),
            (None, revised) => revised,
        })
    }

    /// The last run of today's that begins at or before `time` and was recorded by `known`.
    fn last_standing(&self, time: Timestamp, known: Timestamp) -> Result<Option<Run>, StoreError> {
        let runs = &self.series.runs;
        for at in (0..runs.slots_from(time)).rev() {
            if let Some(Slot::Sealed(meta)) = runs.slot(at)
                && meta.recorded_min_us > known.micros()
            {
                continue;
            }
            let items = self.load_runs(at)?;
            let found = items.iter().rev().find(|run| run.first_observed_time <= time && run.recorded_time <= known);
            if let Some(run) = found {
                return Ok(Some(run.clone()));
            }
        }
        Ok(None)
    }

    /// The last run that begins at or before `time` and was believed at `known`, but is no more.
    fn last_revised(&self, time: Timestamp, known: Timestamp) -> Result<Option<Run>, StoreError> {
        let mut best: Option<Run> = None;
        self.for_each_believed(known, Timestamp::MIN, time.saturating_add_us(1), |run| {
            if best.as_ref().is_none_or(|best| best.first_observed_time < run.first_observed_time) {
                best = Some(run.clone());
            }
        })?;
        Ok(best)
    }

    /// Visits the revised runs that begin in `[start, end)` and were believed at `known`.
    pub(super) fn for_each_believed(
        &self,
        known: Timestamp,
        start: Timestamp,
        end: Timestamp,
        mut visit: impl FnMut(&Run),
    ) -> Result<(), StoreError> {
        let revisions = &self.series.revisions;
        for slot in revisions.slots().rev() {
            let items = match slot {
                Slot::Open(items) => items,
                Slot::Sealed(meta) if meta.last_key() <= known => break,
                Slot::Sealed(meta) if meta.recorded_min_us > known.micros() || meta.observed_min_us >= end.micros() => {
                    continue;
                }
                Slot::Sealed(meta) => Arc::new(
                    self.reader
                        .read::<Revision>(&meta)
                        .map_err(|error| StoreError::of_block(&self.series.key, error))?,
                ),
            };
            for Revision { run, superseded_time } in items.iter() {
                let believed = run.recorded_time <= known && known < *superseded_time;
                if believed && start <= run.first_observed_time && run.first_observed_time < end {
                    visit(run);
                }
            }
        }
        Ok(())
    }

    pub(super) fn load_runs(&self, at: usize) -> Result<Arc<Vec<Run>>, StoreError> {
        let recent = RecentBlocks::default();
        self.series
            .runs
            .load_slot(at, &Loader::new(&self.reader, &recent))
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
        self.series.revisions.slots_between(start, end).filter_map(move |at| {
            let recent = RecentBlocks::default();
            let items = series.series.revisions.load_slot(at, &Loader::new(&series.reader, &recent));
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

    /// Coverage and counts; `None` if nothing was known then. With an earlier `known`, the last
    /// observed time and the observation count may include later confirmations.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`].
    pub fn totals(&self, known: Timestamp) -> Result<Option<SeriesTotals>, StoreError> {
        if self.is_newest(known) {
            return Ok(self.series.newest.as_ref().map(|newest| SeriesTotals {
                first_observed_time: Timestamp::from_micros(self.series.totals.first_observed_us),
                last_observed_time: newest.last_observed_time,
                run_count: self.series.totals.run_count,
                observation_count: self.series.totals.observation_count,
                revision_count: self.series.totals.revision_count,
            }));
        }
        let mut totals = SeriesTotals {
            first_observed_time: Timestamp::MAX,
            last_observed_time: Timestamp::MIN,
            run_count: 0,
            observation_count: 0,
            revision_count: self.revisions_made_by(known)?,
        };
        let mut add = |first: Timestamp, last: Timestamp, runs: u64, observations: u64| {
            totals.first_observed_time = totals.first_observed_time.min(first);
            totals.last_observed_time = totals.last_observed_time.max(last);
            totals.run_count += runs;
            totals.observation_count += observations;
        };
        for at in 0..self.series.runs.slot_count() {
            match self.series.runs.slot(at) {
                Some(Slot::Sealed(meta)) if meta.recorded_max_us <= known.micros() => {
                    let end = Timestamp::from_micros(meta.end_us);
                    add(meta.first_key(), end, u64::from(meta.item_count), meta.observation_count);
                    continue;
                }
                Some(Slot::Sealed(meta)) if meta.recorded_min_us > known.micros() => continue,
                Some(Slot::Sealed(_) | Slot::Open(_)) | None => {}
            }
            for run in self.load_runs(at)?.iter().filter(|run| run.recorded_time <= known) {
                add(run.first_observed_time, run.last_observed_time, 1, run.observation_count);
            }
        }
        self.for_each_believed(known, Timestamp::MIN, Timestamp::MAX, |run| {
            add(run.first_observed_time, run.last_observed_time, 1, run.observation_count);
        })?;
        Ok((totals.run_count > 0).then_some(totals))
    }

    fn revisions_made_by(&self, known: Timestamp) -> Result<u64, StoreError> {
        let recent = RecentBlocks::default();
        let loader = Loader::new(&self.reader, &recent);
        self.series
            .revisions
            .rank(known.saturating_add_us(1), &loader)
            .map_err(|error| StoreError::of_block(&self.series.key, error))
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
        self.series.instants.slots_between(start, end).filter_map(move |at| {
            let recent = RecentBlocks::default();
            match series.series.instants.load_slot(at, &Loader::new(&series.reader, &recent)) {
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
