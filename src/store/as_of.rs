//! Reads of a series as known at a recorded time.
//!
//! The runs believed at an earlier time are those of now that were recorded by then, the *standing* ones, and the revised
//! ones that were recorded by then and superseded later. Slots of runs are found by the minima of their recorded times,
//! revisions by their index, so that a read decodes the block that its answer is in, and at most two more.
//!
//! **Invariant**: what a read at a commit gave is what a read as known at its recorded time gives ever after, but for
//! later confirmations of a run.

use std::sync::Arc;

use super::block::RevisionTimes;
use super::error::StoreError;
use super::revision_cache::Indexed;
use super::revision_index::{Believed, RevisionIndex, Wanted};
use super::scan_order::ScanOrder;
use super::segments::{Loader, RecentBlocks, Segment};
use super::series::{Access, Recent};
use super::view::SeriesView;
use crate::domain::{Revision, Run, Timestamp};

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

/// The last run of a segment that begins at or before a time and was recorded by another.
enum Standing {
    /// This one.
    Run(Run),
    /// It begins before the time from which it is wanted.
    Before,
    /// The segment has none.
    None,
}

impl SeriesView {
    /// Whether anything of it was recorded by `known`. From memory.
    pub fn is_known(&self, known: Timestamp) -> bool {
        self.summary().is_known(known)
    }

    /// The last run that begins at or before `time`.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`].
    pub fn run_at(&self, time: Timestamp, known: Timestamp) -> Result<Option<Run>, StoreError> {
        if self.is_newest(known) {
            return self.newest_run_at(time);
        }
        let observed = [Timestamp::MIN, time.saturating_add_us(1)];
        let Some((index, wanted)) = self.index_for(observed, known, ScanOrder::Descending)? else {
            return self.run_at_without_index(time, known);
        };
        let revised = index.next_believed(&wanted);
        let begin = revised.map_or(Timestamp::MIN, |(_, times)| Timestamp::from_micros(times.observed_us));
        match (self.last_standing([begin, time], known)?, revised) {
            (Some(standing), _) => Ok(Some(standing)),
            (None, Some((place, times))) => self.revised_run(place, times),
            (None, None) => Ok(None),
        }
    }

    fn newest_run_at(&self, time: Timestamp) -> Result<Option<Run>, StoreError> {
        // The present is asked for most, and needs no block.
        if let Some(newest) = &self.series.newest
            && newest.first_observed_time <= time
        {
            return Ok(Some(newest.clone()));
        }
        let recent = Recent::default();
        let access = Access { reader: &self.reader, recent: &recent };
        let found = self.series.runs.at_or_before(time, &access.runs());
        found.map_err(|error| StoreError::of_block(&self.series.key, error))
    }

    /// The same as known earlier, of a series with more revisions than are indexed: reads each block of revisions that
    /// may have one of the time asked for.
    fn run_at_without_index(&self, time: Timestamp, known: Timestamp) -> Result<Option<Run>, StoreError> {
        let standing = self.last_standing([Timestamp::MIN, time], known)?;
        let begin = standing.as_ref().map_or(Timestamp::MIN, |run| run.first_observed_time);
        let mut best = standing;
        self.for_each_believed(known, begin, time.saturating_add_us(1), |run| {
            if best.as_ref().is_none_or(|best| best.first_observed_time < run.first_observed_time) {
                best = Some(run.clone());
            }
        })?;
        Ok(best)
    }

    /// The first observed time of all runs; `None` if nothing was known then.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`].
    pub fn first_observed_time(&self, known: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        if self.is_newest(known) {
            let first_us = self.series.totals.first_observed_us;
            return Ok(self.series.newest.as_ref().map(|_| Timestamp::from_micros(first_us)));
        }
        let all = [Timestamp::MIN, Timestamp::MAX];
        let Some((index, wanted)) = self.index_for(all, known, ScanOrder::Ascending)? else {
            return Ok(self.totals(known)?.map(|totals| totals.first_observed_time));
        };
        let revised = index.next_believed(&wanted).map(|(_, times)| Timestamp::from_micros(times.observed_us));
        let standing = self.first_standing(revised, known)?;
        Ok(revised.into_iter().chain(standing).min())
    }

    /// The last run of today's that begins in `[start, time]`, both inclusive, and was recorded by `known`.
    fn last_standing(&self, [start, time]: [Timestamp; 2], known: Timestamp) -> Result<Option<Run>, StoreError> {
        let mut end = self.series.runs.segments_from(time);
        while let Some(at) = self.summary().last_segment(end, known) {
            match self.last_standing_of_segment(at, [start, time], known)? {
                Standing::Run(run) => return Ok(Some(run)),
                Standing::Before => return Ok(None),
                // Those recorded by then begin after `time`, which is so of the last segment alone.
                Standing::None => end = at,
            }
        }
        Ok(None)
    }

    fn last_standing_of_segment(
        &self,
        at: usize,
        [start, time]: [Timestamp; 2],
        known: Timestamp,
    ) -> Result<Standing, StoreError> {
        let mut is_before = false;
        let run = match self.series.runs.segment(at) {
            Some(Segment::Immutable(meta)) if meta.last_key() < start => return Ok(Standing::Before),
            Some(Segment::Immutable(meta)) => self.reader.read_run(&meta, |times| {
                let begun = times.first_us.partition_point(|first_us| *first_us <= time.micros());
                let last = (0..begun).rev().find(|run| times.recorded_us[*run] <= known.micros())?;
                is_before = times.first_us[last] < start.micros();
                (!is_before).then_some(last)
            }),
            Some(Segment::Mutable(items)) => {
                let begun = items.partition_point(|run| run.first_observed_time <= time);
                let last = items.iter().take(begun).rev().find(|run| run.recorded_time <= known);
                is_before = last.is_some_and(|run| run.first_observed_time < start);
                Ok(last.filter(|_| !is_before).cloned())
            }
            None => Ok(None),
        };
        Ok(match run.map_err(|error| StoreError::of_block(&self.series.key, error))? {
            Some(run) => Standing::Run(run),
            None if is_before => Standing::Before,
            None => Standing::None,
        })
    }

    /// When the first run of today's begins that was recorded by `known`, if that is before `end`.
    fn first_standing(&self, end: Option<Timestamp>, known: Timestamp) -> Result<Option<Timestamp>, StoreError> {
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

    /// The index of revisions, and how to ask it for the revised runs that begin in `[start, end)` and were believed at
    /// `known`; `None` of a series with more revisions than are indexed.
    fn index_for(
        &self,
        [start, end]: [Timestamp; 2],
        known: Timestamp,
        order: ScanOrder,
    ) -> Result<Option<(Arc<RevisionIndex>, Wanted)>, StoreError> {
        let wanted = Wanted {
            count: self.summary().revision_count(),
            known_us: known.micros(),
            observed_us: start.micros()..end.micros(),
            order,
        };
        let index = || self.indexes.of(self.series.id, &self.series.revisions, wanted.count, &self.reader);
        let Some(mut indexed) = index() else { return Ok(None) };
        if self.unread_revisions(&indexed, end, known)?.is_some() {
            // Its blocks can be read by now.
            self.indexes.forget(self.series.id);
            let Some(anew) = index() else { return Ok(None) };
            if let Some(error) = self.unread_revisions(&anew, end, known)? {
                return Err(error);
            }
            indexed = anew;
        }
        Ok(Some((indexed.index, wanted)))
    }

    /// The places of those runs, by first observed time.
    pub(super) fn believed(
        &self,
        observed: [Timestamp; 2],
        known: Timestamp,
        order: ScanOrder,
    ) -> Result<Option<Believed>, StoreError> {
        let found = self.index_for(observed, known, order)?;
        Ok(found.map(|(index, wanted)| Believed::new(index, wanted)))
    }

    /// Why the index lacks a block that may have runs that begin before `end` and were believed at `known`, if it lacks
    /// one; an error if the block cannot be read now either.
    fn unread_revisions(
        &self,
        indexed: &Indexed,
        end: Timestamp,
        known: Timestamp,
    ) -> Result<Option<StoreError>, StoreError> {
        let count = self.summary().revision_count();
        for (place, error) in indexed.unread.iter().filter(|(place, _)| *place < count) {
            let (segment, _) = self.summary().revision_segment(*place);
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

    /// The run of the revision with this place in their list, if there are so many.
    fn revised_run(&self, place: usize, times: RevisionTimes) -> Result<Option<Run>, StoreError> {
        let (segment, at) = self.summary().revision_segment(place);
        let run = match self.series.revisions.segment(segment) {
            Some(Segment::Immutable(meta)) => self.reader.read_revised_run(&meta, at, times).map(Some),
            Some(Segment::Mutable(items)) => Ok(items.get(at).map(|revision| revision.run.clone())),
            None => Ok(None),
        };
        run.map_err(|error| StoreError::of_block(&self.series.key, error))
    }

    /// The revisions of a segment.
    pub(super) fn load_revisions(&self, at: usize) -> Result<Arc<Vec<Revision>>, StoreError> {
        let recent = RecentBlocks::default();
        let items = self.series.revisions.load_segment(at, &Loader::new(&self.reader, &recent));
        items.map_err(|error| StoreError::of_block(&self.series.key, error))
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
                let believed = run.recorded_time <= known && known < *superseded_time;
                if believed && start <= run.first_observed_time && run.first_observed_time < end {
                    visit(run);
                }
            }
        }
        Ok(())
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
}
