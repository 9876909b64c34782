//! As-of reads: reads of a series as known at an earlier recorded time `known`.
//!
//! Two kinds of runs were current at `known`: *unrevised* runs, which are current today and were recorded at or before
//! `known`; and *revised* runs, which were recorded at or before `known` and superseded after it. The earliest recorded
//! time of each segment shows which segments have unrevised runs. The revision index locates revised runs. So a read of
//! one run decodes the block that holds the run, and at most two other blocks.
//!
//! **Invariant**: if `known` is the recorded time of a commit, a read returns the same answer as a read made while that
//! commit was the newest. Only one difference is possible: a run may include later confirmations.

use std::sync::Arc;

use super::block::RevisionTimes;
use super::error::StoreError;
use super::memory_only::is_memory_only;
use super::revision_cache::Indexed;
use super::revision_index::{RevisionIndex, RevisionMatches, RevisionQuery};
use super::segments::{Loader, RecentBlocks, Segment};
use super::view::SeriesView;
use crate::domain::{Revision, Run, ScanOrder, Timestamp};

/// The time range and the counts of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeriesTotals {
    /// Observed time of the first observation.
    pub first_observed_time: Timestamp,
    /// Observed time of the last observation.
    pub last_observed_time: Timestamp,
    /// Number of runs.
    pub run_count: u64,
    /// Number of observations in all runs.
    pub observation_count: u64,
    /// Number of revisions.
    pub revision_count: u64,
}

/// The result of a search in one segment for the last unrevised run in a range of first observed times.
enum LastUnrevised {
    /// The segment has the run.
    Run(Run),
    /// The segment has an unrevised run before the range, and none in the range. So no earlier segment has the run.
    BeforeRange,
    /// The segment has no unrevised run before the end of the range.
    NoRun,
}

impl SeriesView {
    /// Returns true if any part of the series was recorded at or before `known`. Reads no block.
    pub fn is_known(&self, known: Timestamp) -> bool {
        self.summary().is_known(known)
    }

    /// Returns the last run that begins at or before `time`, as known at `known`.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] if a block that the read needs cannot be decoded.
    pub fn run_at(&self, time: Timestamp, known: Timestamp) -> Result<Option<Run>, StoreError> {
        if self.is_newest(known) {
            return self.newest_run_at(time);
        }
        let observed = [Timestamp::MIN, time.saturating_add_us(1)];
        let Some((index, query)) = self.index_for(observed, known, ScanOrder::Descending)? else {
            return self.run_at_without_index(time, known);
        };
        let revised = index.first_match(&query);
        let begin = revised.map_or(Timestamp::MIN, |(_, times)| Timestamp::from_micros(times.observed_us));
        match (self.last_unrevised_run([begin, time], known)?, revised) {
            (Some(unrevised), _) => Ok(Some(unrevised)),
            (None, Some((position, times))) => self.revised_run(position, times),
            (None, None) => Ok(None),
        }
    }

    fn newest_run_at(&self, time: Timestamp) -> Result<Option<Run>, StoreError> {
        // Most reads are of the present. They need no block.
        if let Some(newest) = &self.series.newest
            && newest.first_observed_time <= time
        {
            return Ok(Some(newest.clone()));
        }
        let runs = &self.series.runs;
        let Some(at) = runs.count_segments_up_to(time).checked_sub(1) else { return Ok(None) };
        let found = match runs.segment(at) {
            None => Ok(None),
            Some(Segment::Mutable(items)) => {
                let count = items.partition_point(|run| run.first_observed_time <= time);
                Ok(count.checked_sub(1).and_then(|last| items.get(last).cloned()))
            }
            Some(Segment::Immutable(meta)) => self.reader.read_run(&meta, |runs| runs.count_up_to(time).checked_sub(1)),
        };
        found.map_err(|error| StoreError::of_block(&self.series.key, error))
    }

    /// Finds the same run as [`Self::run_at`] for an earlier `known`, in a series with too many revisions for an index.
    /// Reads each block of revisions that may have the run.
    fn run_at_without_index(&self, time: Timestamp, known: Timestamp) -> Result<Option<Run>, StoreError> {
        let unrevised = self.last_unrevised_run([Timestamp::MIN, time], known)?;
        let begin = unrevised.as_ref().map_or(Timestamp::MIN, |run| run.first_observed_time);
        let mut best = unrevised;
        self.for_each_revised_run(known, begin, time.saturating_add_us(1), |run| {
            if best.as_ref().is_none_or(|best| best.first_observed_time < run.first_observed_time) {
                best = Some(run.clone());
            }
        })?;
        Ok(best)
    }

    /// Returns the first observed time of the series as known at `known`; `None` if nothing was known then.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] if a block that the read needs cannot be decoded.
    pub fn first_observed_time(&self, known: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        if self.is_newest(known) {
            let first_us = self.series.totals.first_observed_us;
            return Ok(self.series.newest.as_ref().map(|_| Timestamp::from_micros(first_us)));
        }
        let all = [Timestamp::MIN, Timestamp::MAX];
        let Some((index, query)) = self.index_for(all, known, ScanOrder::Ascending)? else {
            return Ok(self.totals(known)?.map(|totals| totals.first_observed_time));
        };
        let revised = index.first_match(&query).map(|(_, times)| Timestamp::from_micros(times.observed_us));
        let unrevised = self.first_unrevised_time(revised, known)?;
        Ok(revised.into_iter().chain(unrevised).min())
    }

    /// Returns the last unrevised run that begins in `[start, time]`, both inclusive.
    fn last_unrevised_run(&self, [start, time]: [Timestamp; 2], known: Timestamp) -> Result<Option<Run>, StoreError> {
        let mut end = self.series.runs.count_segments_up_to(time);
        while let Some(at) = self.summary().last_segment(end, known) {
            match self.last_unrevised_in_segment(at, [start, time], known)? {
                LastUnrevised::Run(run) => return Ok(Some(run)),
                LastUnrevised::BeforeRange => return Ok(None),
                // The unrevised runs of this segment begin after `time`. Only the segment that `time` belongs to can
                // have such runs.
                LastUnrevised::NoRun => end = at,
            }
        }
        Ok(None)
    }

    fn last_unrevised_in_segment(
        &self,
        at: usize,
        [start, time]: [Timestamp; 2],
        known: Timestamp,
    ) -> Result<LastUnrevised, StoreError> {
        let mut is_before = false;
        let run = match self.series.runs.segment(at) {
            Some(Segment::Immutable(meta)) if meta.last_key() < start => return Ok(LastUnrevised::BeforeRange),
            Some(Segment::Immutable(meta)) => self.reader.read_run(&meta, |runs| {
                let earlier = (0..runs.count_up_to(time)).rev();
                let last = earlier.into_iter().find(|run| runs.recorded_us(*run) <= known.micros())?;
                is_before = runs.first_us(last) < start.micros();
                (!is_before).then_some(last)
            }),
            Some(Segment::Mutable(items)) => {
                let count = items.partition_point(|run| run.first_observed_time <= time);
                let last = items.iter().take(count).rev().find(|run| run.recorded_time <= known);
                is_before = last.is_some_and(|run| run.first_observed_time < start);
                Ok(last.filter(|_| !is_before).cloned())
            }
            None => Ok(None),
        };
        Ok(match run.map_err(|error| StoreError::of_block(&self.series.key, error))? {
            Some(run) => LastUnrevised::Run(run),
            None if is_before => LastUnrevised::BeforeRange,
            None => LastUnrevised::NoRun,
        })
    }

    /// Returns the first observed time of the first unrevised run. May return `None` if that time is not before `end`.
    fn first_unrevised_time(&self, end: Option<Timestamp>, known: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let Some(at) = self.summary().first_segment(known) else { return Ok(None) };
        if let Some(Segment::Immutable(meta)) = self.series.runs.segment(at) {
            if end.is_some_and(|end| end <= meta.first_key()) {
                return Ok(None);
            }
            if meta.recorded_max_us <= known.micros() {
                return Ok(Some(meta.first_key()));
            }
        }
        let items = self.load_runs(at)?;
        Ok(items.iter().find(|run| run.recorded_time <= known).map(|run| run.first_observed_time))
    }

    /// Returns the revision index, and a query for the revised runs that begin in `[start, end)` and were current at
    /// `known`. Returns `None` if the series has too many revisions for an index.
    fn index_for(
        &self,
        [start, end]: [Timestamp; 2],
        known: Timestamp,
        order: ScanOrder,
    ) -> Result<Option<(Arc<RevisionIndex>, RevisionQuery)>, StoreError> {
        // Building the index reads blocks.
        if is_memory_only() {
            return Err(StoreError::NotInMemory);
        }
        let query = RevisionQuery {
            count: self.summary().revision_count(),
            known_us: known.micros(),
            observed_us: start.micros()..end.micros(),
            order,
        };
        let index = || self.indexes.get_or_build(self.series.id, &self.series.revisions, query.count, &self.reader);
        let Some(mut indexed) = index() else { return Ok(None) };
        if self.unread_revisions(&indexed, end, known)?.is_some() {
            // The index lacks blocks that can be read now: build it again.
            self.indexes.forget(self.series.id);
            let Some(rebuilt) = index() else { return Ok(None) };
            if let Some(error) = self.unread_revisions(&rebuilt, end, known)? {
                return Err(error);
            }
            indexed = rebuilt;
        }
        Ok(Some((indexed.index, query)))
    }

    /// Iterates over the revised runs that begin in the half-open range `observed` and were current at `known`, sorted
    /// by first observed time. Returns `None` if the series has too many revisions for an index.
    pub(super) fn revision_matches(
        &self,
        observed: [Timestamp; 2],
        known: Timestamp,
        order: ScanOrder,
    ) -> Result<Option<RevisionMatches>, StoreError> {
        let found = self.index_for(observed, known, order)?;
        Ok(found.map(|(index, query)| RevisionMatches::new(index, query)))
    }

    /// Checks whether the index lacks a block that the read needs: a block with revised runs that may begin before
    /// `end` and may have been current at `known`. Returns `None` if the index lacks no such block. If the index lacks
    /// such a block and the block can be read now, returns the earlier error that kept the block out of the index.
    ///
    /// # Errors
    /// Returns the new read error if such a block still cannot be read.
    fn unread_revisions(
        &self,
        indexed: &Indexed,
        end: Timestamp,
        known: Timestamp,
    ) -> Result<Option<StoreError>, StoreError> {
        let count = self.summary().revision_count();
        for (position, error) in indexed.unread.iter().filter(|(position, _)| *position < count) {
            let (segment, _) = self.summary().revision_segment(*position);
            let Some(Segment::Immutable(meta)) = self.series.revisions.segment(segment) else { continue };
            let may_have = known < meta.last_key()
                && meta.recorded_min_us <= known.micros()
                && meta.observed_min_us < end.micros();
            if may_have {
                self.load_revisions(segment)?;
                return Ok(Some(StoreError::of_block(&self.series.key, error.clone())));
            }
        }
        Ok(None)
    }

    /// Reads the run of the revision at this position in the list of revisions; `None` if the list is shorter.
    fn revised_run(&self, position: usize, times: RevisionTimes) -> Result<Option<Run>, StoreError> {
        let (segment, at) = self.summary().revision_segment(position);
        let run = match self.series.revisions.segment(segment) {
            Some(Segment::Immutable(meta)) => self.reader.read_revised_run(&meta, at, times).map(Some),
            Some(Segment::Mutable(items)) => Ok(items.get(at).map(|revision| revision.run.clone())),
            None => Ok(None),
        };
        run.map_err(|error| StoreError::of_block(&self.series.key, error))
    }

    /// Loads the revisions of a segment.
    pub(super) fn load_revisions(&self, at: usize) -> Result<Arc<Vec<Revision>>, StoreError> {
        let recent = RecentBlocks::default();
        let items = self.series.revisions.load_segment(at, &Loader::new(&self.reader, &recent));
        items.map_err(|error| StoreError::of_block(&self.series.key, error))
    }

    /// Visits the revised runs that begin in `[start, end)` and were current at `known`, without the index.
    pub(super) fn for_each_revised_run(
        &self,
        known: Timestamp,
        start: Timestamp,
        end: Timestamp,
        mut visit: impl FnMut(&Run),
    ) -> Result<(), StoreError> {
        let revisions = &self.series.revisions;
        for segment in revisions.segments().rev() {
            let items = match segment {
                Segment::Mutable(items) => items,
                Segment::Immutable(meta) if meta.last_key() <= known => break,
                Segment::Immutable(meta)
                    if meta.recorded_min_us > known.micros() || meta.observed_min_us >= end.micros() =>
                {
                    continue;
                }
                Segment::Immutable(meta) => Arc::new(
                    self.reader
                        .read::<Revision>(&meta)
                        .map_err(|error| StoreError::of_block(&self.series.key, error))?,
                ),
            };
            for Revision { run, superseded_time } in items.iter() {
                let was_current = run.recorded_time <= known && known < *superseded_time;
                if was_current && start <= run.first_observed_time && run.first_observed_time < end {
                    visit(run);
                }
            }
        }
        Ok(())
    }

    /// Returns the time range and the counts of the series as known at `known`; `None` if nothing was known then. With
    /// an earlier `known`, the last observed time and the observation count may include later confirmations.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] if a block that the read needs cannot be decoded.
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
            revision_count: self.revision_count_at(known)?,
        };
        let mut add = |first: Timestamp, last: Timestamp, runs: u64, observations: u64| {
            totals.first_observed_time = totals.first_observed_time.min(first);
            totals.last_observed_time = totals.last_observed_time.max(last);
            totals.run_count += runs;
            totals.observation_count += observations;
        };
        for at in 0..self.series.runs.segment_count() {
            match self.series.runs.segment(at) {
                Some(Segment::Immutable(meta)) if meta.recorded_max_us <= known.micros() => {
                    let end = Timestamp::from_micros(meta.end_us);
                    add(meta.first_key(), end, u64::from(meta.item_count), meta.observation_count);
                    continue;
                }
                Some(Segment::Immutable(meta)) if meta.recorded_min_us > known.micros() => continue,
                Some(Segment::Immutable(_) | Segment::Mutable(_)) | None => {}
            }
            for run in self.load_runs(at)?.iter().filter(|run| run.recorded_time <= known) {
                add(run.first_observed_time, run.last_observed_time, 1, run.observation_count);
            }
        }
        self.for_each_revised_run(known, Timestamp::MIN, Timestamp::MAX, |run| {
            add(run.first_observed_time, run.last_observed_time, 1, run.observation_count);
        })?;
        Ok((totals.run_count > 0).then_some(totals))
    }

    fn revision_count_at(&self, known: Timestamp) -> Result<u64, StoreError> {
        let recent = RecentBlocks::default();
        let loader = Loader::new(&self.reader, &recent);
        self.series
            .revisions
            .rank(known.saturating_add_us(1), &loader)
            .map_err(|error| StoreError::of_block(&self.series.key, error))
    }
}
