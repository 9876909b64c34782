//! One series: its timeline, its runs, its revisions, and what ticks do to them.
//!
//! Like its segments, a series is a value: the writer changes its own, readers hold clones.
//!
//! **Invariants**, between commits: the runs partition the timeline; no two neighbouring runs could
//! be one; no run bridges a gap longer than the collapse window; every change happened through a
//! `Commit`, whose end compares the runs before it with those after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::block::BlockError;
use super::reader::BlockReader;
use super::segments::{Loader, Opened, RecentBlocks, Segment, Segments};
use crate::domain::{PublishedValue, Rate, Revision, Run, SeriesKey, Timestamp};
use crate::latest_quotes::LatestQuote;

/// One pair from one source.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) id: u32,
    pub(crate) key: Arc<SeriesKey>,
    pub(crate) collapse_window_us: i64,
    pub(crate) runs: Segments<Run>,
    pub(crate) instants: Segments<Timestamp>,
    pub(crate) revisions: Segments<Revision>,
    pub(crate) totals: Totals,
    /// The last run, kept so that starting reads no block.
    pub(crate) newest: Option<Run>,
    pub(crate) last_move: LastMove,
    /// The latest quote, as of the last commit that touched it.
    pub(crate) quote: Option<Arc<LatestQuote>>,
}

/// Since when the newest run's rate has held, whatever its reported change and gaps did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LastMove {
    /// First observed time of the first run of the unbroken sequence with this rate.
    pub(crate) since: Timestamp,
    /// The last instant of another rate before that, and the rate.
    pub(crate) before: Option<(Timestamp, Rate)>,
}

/// Counts of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Totals {
    pub(crate) first_observed_us: i64,
    pub(crate) run_count: u64,
    pub(crate) observation_count: u64,
    pub(crate) revision_count: u64,
}

/// What became of a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    NewRun { late: bool },
    Collapsed { late: bool },
    Known,
    Revised { late: bool },
    Conflict { stored: PublishedValue },
}

/// The blocks that the writer decoded last.
#[derive(Default)]
pub(crate) struct Recent {
    runs: RecentBlocks<Run>,
    instants: RecentBlocks<Timestamp>,
    revisions: RecentBlocks<Revision>,
}

/// How blocks are read while a series is changed.
pub(crate) struct Access<'a> {
    pub(crate) reader: &'a BlockReader,
    pub(crate) recent: &'a Recent,
}

impl Access<'_> {
    pub(crate) fn runs(&self) -> Loader<'_, Run> {
        Loader::new(self.reader, &self.recent.runs)
    }

    pub(crate) fn instants(&self) -> Loader<'_, Timestamp> {
        Loader::new(self.reader, &self.recent.instants)
    }

    fn revisions(&self) -> Loader<'_, Revision> {
        Loader::new(self.reader, &self.recent.revisions)
    }
}

/// What one commit does to one series, until it is finished.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commit {
    /// Runs as they were before the commit, of those that it touched, by first observed time.
    before: BTreeMap<Timestamp, Run>,
    /// Blocks whose items were taken into memory and changed.
    pub(crate) opened: Opened,
}

impl Series {
    pub(crate) fn new(id: u32, key: SeriesKey, collapse_window_us: i64) -> Self {
        Self {
            id,
            key: Arc::new(key),
            collapse_window_us,
            runs: Segments::default(),
            instants: Segments::default(),
            revisions: Segments::default(),
            totals: Totals::default(),
            newest: None,
            last_move: LastMove::default(),
            quote: None,
        }
    }

    /// Puts a value at an instant, or says why not. On an error nothing has changed.
    pub(crate) fn upsert(
        &mut self,
        time: Timestamp,
        value: PublishedValue,
        revise: bool,
        recorded_time: Timestamp,
        commit: &mut Commit,
        access: &Access<'_>,
    ) -> Result<Outcome, BlockError> {
        match &self.newest {
            Some(newest) if time <= newest.last_observed_time => {
                self.upsert_late(time, value, revise, recorded_time, commit, access)
            }
            _ => self.append(time, value, recorded_time, commit, access),
        }
    }

    /// A tick newer than every other.
    fn append(
        &mut self,
        time: Timestamp,
        value: PublishedValue,
        recorded_time: Timestamp,
        commit: &mut Commit,
        access: &Access<'_>,
    ) -> Result<Outcome, BlockError> {
        let window_us = self.collapse_window_us;
        let collapses = self
            .newest
            .as_ref()
            .is_some_and(|run| run.takes_in(value, time.micros_since(run.last_observed_time), window_us));
        if collapses {
            self.runs.open_tail(&access.runs(), &mut commit.opened)?;
        } else if self.runs.last_block_has_room() {
            // If that block is damaged it stays as it is, and a new one is begun.
            let _ = self.runs.open_tail(&access.runs(), &mut commit.opened);
        }
        if self.instants.last_block_has_room() {
            let _ = self.instants.open_tail(&access.instants(), &mut commit.opened);
        }
        // Nothing below fails.
        self.instants.push(time);
        self.totals.observation_count += 1;
        if collapses {
            if let Some(run) = self.runs.head_last_mut() {
                touch(run, recorded_time, &mut commit.before);
                run.last_observed_time = time;
                run.observation_count += 1;
                self.newest = Some(run.clone());
            }
            return Ok(Outcome::Collapsed { late: false });
        }
        let run = Run::single(time, value, recorded_time);
        match &self.newest {
            None => {
                self.totals.first_observed_us = time.micros();
                self.last_move = LastMove { since: time, before: None };
            }
            Some(newest) if newest.value.rate.same_number(value.rate) => {}
            Some(newest) => {
                self.last_move = LastMove { since: time, before: Some((newest.last_observed_time, newest.value.rate)) };
            }
        }
        self.newest = Some(run.clone());
        self.runs.push(run);
        self.totals.run_count += 1;
        Ok(Outcome::NewRun { late: false })
    }

    /// A tick at or before the newest one.
    fn upsert_late(
        &mut self,
        time: Timestamp,
        value: PublishedValue,
        revise: bool,
        recorded_time: Timestamp,
        commit: &mut Commit,
        access: &Access<'_>,
    ) -> Result<Outcome, BlockError> {
        let runs = access.runs();
        let around = self.runs.at_or_before(time, &runs)?;
        match around {
            Some(run) if run.spans(time) => {
                let known = time == run.first_observed_time
                    || time == run.last_observed_time
                    || (run.observation_count > 2 && self.instants.contains(time, &access.instants())?);
                match (known, run.value == value) {
                    (true, true) => Ok(Outcome::Known),
                    (true, false) if revise => self.revise(&run, time, value, recorded_time, commit, access),
                    (true, false) => Ok(Outcome::Conflict { stored: run.value }),
                    (false, true) => self.join_inside(&run, time, recorded_time, commit, access),
                    (false, false) => self.split(&run, time, value, recorded_time, commit, access),
                }
            }
            before => self.fill_gap(before, time, value, recorded_time, commit, access),
        }
    }

    /// A repeat strictly inside its run.
    fn join_inside(
        &mut self,
        run: &Run,
        time: Timestamp,
        recorded_time: Timestamp,
        commit: &mut Commit,
        access: &Access<'_>,
    ) -> Result<Outcome, BlockError> {
        self.runs.mutable_segment_of(run.first_observed_time, &access.runs(), &mut commit.opened)?;
        let place = self.instants.open_place(time, &access.instants(), &mut commit.opened)?;
        self.instants.insert(place, time);
        if let Some(run) = self.runs.get_mut(run.first_observed_time) {
            touch(run, recorded_time, &mut commit.before);
            run.observation_count += 1;
        }
        self.changed_late(time, 1, 0);
        Ok(Outcome::Collapsed { late: true })
    }

    /// Another value strictly inside a run: what was observed before it and after it stays apart.
    fn split(
        &mut self,
        run: &Run,
        time: Timestamp,
        value: PublishedValue,
        recorded_time: Timestamp,
        commit: &mut Commit,
        access: &Access<'_>,
    ) -> Result<Outcome, BlockError> {
        let (left, right) = self.parts_around(run, time, access)?;
        self.runs.mutable_segment_of(run.first_observed_time, &access.runs(), &mut commit.opened)?;
        let place = self.instants.open_place(time, &access.instants(), &mut commit.opened)?;
        self.instants.insert(place, time);
        remember(run, recorded_time, &mut commit.before);
        let middle = Run::single(time, value, recorded_time);
        let parts = [left, Some(middle), right].into_iter().flatten();
        self.runs.replace(run.first_observed_time, parts.map(|part| Run { recorded_time, ..part }));
        self.changed_late(time, 1, 2);
        Ok(Outcome::NewRun { late: true })
    }

    /// The observations of a run before and after an instant, each as a run of its own.
    fn parts_around(
        &self,
        run: &Run,
        time: Timestamp,
        access: &Access<'_>,
    ) -> Result<(Option<Run>, Option<Run>), BlockError> {
        let instants = access.instants();
        let is_instant = time == run.first_observed_time
            || time == run.last_observed_time
            || self.instants.contains(time, &instants)?;
        let left_count = self.instants.count_between(run.first_observed_time, time, &instants)?;
        let right_count = run.observation_count.saturating_sub(left_count + u64::from(is_instant));
        let left = match self.instants.before(time, &instants)? {
            Some(last) if left_count > 0 => {
                Some(Run { last_observed_time: last, observation_count: left_count, ..run.clone() })
            }
            _ => None,
        };
        let right = match self.instants.after(time, &instants)? {
            Some(first) if right_count > 0 => {
                Some(Run { first_observed_time: first, observation_count: right_count, ..run.clone() })
            }
            _ => None,
        };
        Ok((left, right))
    }

    /// A tick between two runs, or before the first: joins one, merges both, or stands alone.
    fn fill_gap(
        &mut self,
        before: Option<Run>,
        time: Timestamp,
        value: PublishedValue,
        recorded_time: Timestamp,
        commit: &mut Commit,
        access: &Access<'_>,
    ) -> Result<Outcome, BlockError> {
        let window_us = self.collapse_window_us;
        let runs = access.runs();
        let before = before.filter(|run| run.takes_in(value, time.micros_since(run.last_observed_time), window_us));
        let after = self
            .runs
            .after(time, &runs)?
            .filter(|run| run.takes_in(value, run.first_observed_time.micros_since(time), window_us));
        for run in before.iter().chain(&after) {
            self.runs.mutable_segment_of(run.first_observed_time, &runs, &mut commit.opened)?;
        }
        let alone = match (&before, &after) {
            (None, None) => Some(self.runs.open_place(time, &runs, &mut commit.opened)?),
            _ => None,
        };
        let place = self.instants.open_place(time, &access.instants(), &mut commit.opened)?;
        self.instants.insert(place, time);
        let single = Run::single(time, value, recorded_time);
        let joined = self.join(before.as_ref(), &single, after.as_ref(), recorded_time, commit);
        match (joined, alone) {
            (Some(merged), _) => self.changed_late(time, 1, -i64::from(merged)),
            (None, place) => {
                if let Some(place) = place {
                    self.runs.insert(place, single);
                }
                self.changed_late(time, 1, 1);
            }
        }
        Ok(if joined.is_some() { Outcome::Collapsed { late: true } } else { Outcome::NewRun { late: true } })
    }

    /// Joins a run of its own to the neighbours that take it in; `None` if neither does, else
    /// whether it merged both. The segments of the neighbours are open.
    fn join(
        &mut self,
        before: Option<&Run>,
        middle: &Run,
        after: Option<&Run>,
        recorded_time: Timestamp,
        commit: &mut Commit,
    ) -> Option<bool> {
        if let Some(after) = after {
            remember(after, recorded_time, &mut commit.before);
        }
        let last_observed_time = after.map_or(middle.last_observed_time, |run| run.last_observed_time);
        let more = middle.observation_count + after.map_or(0, |run| run.observation_count);
        match (before, after) {
            (None, None) => return None,
            (Some(before), after) => {
                if let Some(run) = self.runs.get_mut(before.first_observed_time) {
                    touch(run, recorded_time, &mut commit.before);
                    run.last_observed_time = last_observed_time;
                    run.observation_count += more;
                }
                if let Some(after) = after {
                    self.runs.remove(after.first_observed_time);
                }
            }
            (None, Some(after)) => {
                let run = Run {
                    first_observed_time: middle.first_observed_time,
                    observation_count: more,
                    recorded_time,
                    ..after.clone()
                };
                self.runs.replace(after.first_observed_time, [run]);
            }
        }
        Some(before.is_some() && after.is_some())
    }

    /// Replaces the value at a known instant.
    fn revise(
        &mut self,
        run: &Run,
        time: Timestamp,
        value: PublishedValue,
        recorded_time: Timestamp,
        commit: &mut Commit,
        access: &Access<'_>,
    ) -> Result<Outcome, BlockError> {
        let window_us = self.collapse_window_us;
        let runs = access.runs();
        let (left, right) = self.parts_around(run, time, access)?;
        let before = match left {
            None => self.runs.before(run.first_observed_time, &runs)?,
            Some(_) => None,
        }
        .filter(|other| other.takes_in(value, time.micros_since(other.last_observed_time), window_us));
        let after = match right {
            None => self.runs.after(run.first_observed_time, &runs)?,
            Some(_) => None,
        }
        .filter(|other| other.takes_in(value, other.first_observed_time.micros_since(time), window_us));
        for touched in before.iter().chain([run]).chain(&after) {
            self.runs.mutable_segment_of(touched.first_observed_time, &runs, &mut commit.opened)?;
        }
        remember(run, recorded_time, &mut commit.before);
        let middle = Run::single(time, value, recorded_time);
        let joins = before.is_some() || after.is_some();
        let parts: Vec<Run> = [left, (!joins).then(|| middle.clone()), right]
            .into_iter()
            .flatten()
            .map(|part| Run { recorded_time, ..part })
            .collect();
        let mut more = parts.len().cast_signed() as i64 - 1;
        if parts.is_empty() {
            self.runs.remove(run.first_observed_time);
        } else {
            self.runs.replace(run.first_observed_time, parts);
        }
        if self.join(before.as_ref(), &middle, after.as_ref(), recorded_time, commit) == Some(true) {
            more -= 1;
        }
        let late = self.newest.as_ref().is_some_and(|newest| time < newest.last_observed_time);
        self.changed_late(time, 0, more);
        Ok(Outcome::Revised { late })
    }

    /// Keeps what is known of the whole series true after a late change.
    fn changed_late(&mut self, time: Timestamp, more_observations: u64, more_runs: i64) {
        self.totals.observation_count += more_observations;
        self.totals.run_count = self.totals.run_count.saturating_add_signed(more_runs);
        self.totals.first_observed_us = self.totals.first_observed_us.min(time.micros());
        if self.last_move.before.is_none_or(|(last, _)| time >= last) {
            self.last_move.since = Timestamp::MAX;
        }
        self.refresh_newest();
    }

    /// Reads the newest run again: where a change may have replaced it, its segment is open.
    fn refresh_newest(&mut self) {
        match self.runs.segments().next_back() {
            Some(Segment::Mutable(items)) => self.newest = items.last().cloned(),
            Some(Segment::Immutable(_)) | None => {}
        }
    }

    /// Ends a commit: compares the runs before it with those after it, so that what was believed
    /// and is no longer goes to the revisions.
    pub(crate) fn finish(&mut self, recorded_time: Timestamp, commit: &mut Commit, access: &Access<'_>) {
        let before = std::mem::take(&mut commit.before);
        let mut superseded = Vec::new();
        let mut following = before.keys().skip(1).copied().collect::<Vec<_>>().into_iter();
        for (first, run) in before {
            let next_before = following.next();
            let continued = self.runs.get_mut(first).filter(|after| {
                after.value == run.value
                    && after.last_observed_time >= run.last_observed_time
                    && next_before.is_none_or(|next| next > after.last_observed_time)
            });
            match continued {
                Some(after) => after.recorded_time = run.recorded_time,
                None => superseded.push(Revision { run, superseded_time: recorded_time }),
            }
        }
        if !superseded.is_empty() && self.revisions.last_block_has_room() {
            let _ = self.revisions.open_tail(&access.revisions(), &mut commit.opened);
        }
        self.totals.revision_count += superseded.len() as u64;
        for revision in superseded {
            self.revisions.push(revision);
        }
        self.refresh_newest();
    }
}

/// Marks a run as touched by a commit; the first time, remembers what it was.
fn touch(run: &mut Run, recorded_time: Timestamp, before: &mut BTreeMap<Timestamp, Run>) {
    if run.recorded_time != recorded_time {
        remember(run, recorded_time, before);
        run.recorded_time = recorded_time;
    }
}

/// Remembers a run as it was before the commit, unless the commit itself made it.
fn remember(run: &Run, recorded_time: Timestamp, before: &mut BTreeMap<Timestamp, Run>) {
    if run.recorded_time != recorded_time {
        before.entry(run.first_observed_time).or_insert_with(|| run.clone());
    }
}
