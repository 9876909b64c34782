//! One series: its timeline, its runs and its revisions, and the rule that applies a tick to them.
//!
//! [`Series`] and [`Segments`] have value semantics: the writer changes its own copy, and readers hold clones. A clone
//! never changes.
//!
//! **Invariants**: between commits, the runs partition the timeline, no two neighbouring runs could be collapsed into
//! one run, and no run bridges a gap longer than the collapse window. Every change belongs to a [`SeriesCommit`]. At
//! the end of a commit, [`Series::finish`] compares the runs before the commit with the runs after the commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::block::BlockError;
use super::reader::BlockReader;
use super::segments::{Loader, RecentBlocks, ReplacedBlocks, Segment, Segments};
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
    /// The last run. It is stored with the series, so that opening a store reads no block.
    pub(crate) newest: Option<Run>,
    pub(crate) last_move: LastMove,
    /// The latest quote, as of the last commit that changed the series or its state.
    pub(crate) quote: Option<Arc<LatestQuote>>,
}

/// The last move of a rate: when the present rate began, and the rate before it. Only a different rate is a move; a
/// reported change or a gap is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LastMove {
    /// First observed time of the first run in the unbroken sequence of runs with the present rate. `Timestamp::MAX` if
    /// a late tick invalidated the last move.
    pub(crate) since: Timestamp,
    /// The instant and the rate of the last observation before the move. `None` if the rate never moved.
    pub(crate) before: Option<(Timestamp, Rate)>,
}

/// Counts of a series, and its first observed time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Totals {
    pub(crate) first_observed_us: i64,
    pub(crate) run_count: u64,
    pub(crate) observation_count: u64,
    pub(crate) revision_count: u64,
}

/// The effect of a tick on a series. `late` is true for a tick older than the newest tick of the series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    NewRun { late: bool },
    Collapsed { late: bool },
    Known,
    Revised { late: bool },
    Conflict { stored: PublishedValue },
}

/// The caches of recently decoded blocks, one for each kind of item.
#[derive(Default)]
pub(crate) struct Recent {
    runs: RecentBlocks<Run>,
    instants: RecentBlocks<Timestamp>,
    revisions: RecentBlocks<Revision>,
}

/// Access to the blocks of a series: the reader, and the caches in front of it.
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

/// The changes of one commit to one series, while the commit is in progress.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeriesCommit {
    /// The runs that the commit changed, in their state before the commit. The key is the first observed time.
    before: BTreeMap<Timestamp, Run>,
    /// The blocks that mutable segments replaced during the commit.
    pub(crate) replaced: ReplacedBlocks,
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

    /// Puts a value at an instant and applies the rule of runs. Returns the effect, or the conflicting value. After an
    /// error nothing has changed.
    pub(crate) fn upsert(
        &mut self,
        time: Timestamp,
        value: PublishedValue,
        revise: bool,
        recorded_time: Timestamp,
        commit: &mut SeriesCommit,
        access: &Access<'_>,
    ) -> Result<Outcome, BlockError> {
        match &self.newest {
            Some(newest) if time <= newest.last_observed_time => {
                self.upsert_late(time, value, revise, recorded_time, commit, access)
            }
            _ => self.append(time, value, recorded_time, commit, access),
        }
    }

    /// Applies a tick that is newer than every other tick of the series.
    fn append(
        &mut self,
        time: Timestamp,
        value: PublishedValue,
        recorded_time: Timestamp,
        commit: &mut SeriesCommit,
        access: &Access<'_>,
    ) -> Result<Outcome, BlockError> {
        let window_us = self.collapse_window_us;
        let collapses = self
            .newest
            .as_ref()
            .is_some_and(|run| run.absorbs(value, time.micros_since(run.last_observed_time), window_us));
        if collapses {
            self.runs.move_last_block_to_head(&access.runs(), &mut commit.replaced)?;
        } else if self.runs.last_block_has_room() {
            // A damaged last block is not moved. The next checkpoint then writes the new items as another block.
            let _ = self.runs.move_last_block_to_head(&access.runs(), &mut commit.replaced);
        }
        if self.instants.last_block_has_room() {
            let _ = self.instants.move_last_block_to_head(&access.instants(), &mut commit.replaced);
        }
        // Nothing after this line can fail.
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

    /// Applies a tick that is not newer than the newest tick of the series.
    fn upsert_late(
        &mut self,
        time: Timestamp,
        value: PublishedValue,
        revise: bool,
        recorded_time: Timestamp,
        commit: &mut SeriesCommit,
        access: &Access<'_>,
    ) -> Result<Outcome, BlockError> {
        let runs = access.runs();
        let before_or_around = self.runs.at_or_before(time, &runs)?;
        match before_or_around {
            Some(run) if run.spans(time) => {
                let has_instant = time == run.first_observed_time
                    || time == run.last_observed_time
                    || (run.observation_count > 2 && self.instants.contains(time, &access.instants())?);
                match (has_instant, run.value == value) {
                    (true, true) => Ok(Outcome::Known),
                    (true, false) if revise => self.revise(&run, time, value, recorded_time, commit, access),
                    (true, false) => Ok(Outcome::Conflict { stored: run.value }),
                    (false, true) => self.join_inside(&run, time, recorded_time, commit, access),
                    (false, false) => self.split(&run, time, value, recorded_time, commit, access),
                }
            }
            before => self.upsert_between_runs(before, time, value, recorded_time, commit, access),
        }
    }

    /// Adds an instant with the run's own value, strictly inside the run.
    fn join_inside(
        &mut self,
        run: &Run,
        time: Timestamp,
        recorded_time: Timestamp,
        commit: &mut SeriesCommit,
        access: &Access<'_>,
    ) -> Result<Outcome, BlockError> {
        self.runs.make_mutable_at(run.first_observed_time, &access.runs(), &mut commit.replaced)?;
        let position = self.instants.prepare_insert(time, &access.instants(), &mut commit.replaced)?;
        self.instants.insert(position, time);
        if let Some(run) = self.runs.get_mut(run.first_observed_time) {
            touch(run, recorded_time, &mut commit.before);
            run.observation_count += 1;
        }
        self.update_after_late_change(time, 1, 0);
        Ok(Outcome::Collapsed { late: true })
    }

    /// Adds an instant with another value, strictly inside a run. The run splits into the observations before the
    /// instant and those after it.
    fn split(
        &mut self,
        run: &Run,
        time: Timestamp,
        value: PublishedValue,
        recorded_time: Timestamp,
        commit: &mut SeriesCommit,
        access: &Access<'_>,
    ) -> Result<Outcome, BlockError> {
        let (left, right) = self.parts_around(run, time, access)?;
        self.runs.make_mutable_at(run.first_observed_time, &access.runs(), &mut commit.replaced)?;
        let position = self.instants.prepare_insert(time, &access.instants(), &mut commit.replaced)?;
        self.instants.insert(position, time);
        save_before(run, recorded_time, &mut commit.before);
        let middle = Run::single(time, value, recorded_time);
        let parts = [left, Some(middle), right].into_iter().flatten();
        self.runs.replace(run.first_observed_time, parts.map(|part| Run { recorded_time, ..part }));
        self.update_after_late_change(time, 1, 2);
        Ok(Outcome::NewRun { late: true })
    }

    /// Returns two parts of a run: the observations before an instant, and the observations after the instant. A part
    /// without observations is `None`.
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

    /// Adds an instant between two runs, or before the first run. The instant joins a neighbouring run, merges both
    /// neighbouring runs, or becomes a new run.
    fn upsert_between_runs(
        &mut self,
        before: Option<Run>,
        time: Timestamp,
        value: PublishedValue,
        recorded_time: Timestamp,
        commit: &mut SeriesCommit,
        access: &Access<'_>,
    ) -> Result<Outcome, BlockError> {
        let window_us = self.collapse_window_us;
        let runs = access.runs();
        let before = before.filter(|run| run.absorbs(value, time.micros_since(run.last_observed_time), window_us));
        let after = self
            .runs
            .after(time, &runs)?
            .filter(|run| run.absorbs(value, run.first_observed_time.micros_since(time), window_us));
        for run in before.iter().chain(&after) {
            self.runs.make_mutable_at(run.first_observed_time, &runs, &mut commit.replaced)?;
        }
        let new_run_position = match (&before, &after) {
            (None, None) => Some(self.runs.prepare_insert(time, &runs, &mut commit.replaced)?),
            _ => None,
        };
        let position = self.instants.prepare_insert(time, &access.instants(), &mut commit.replaced)?;
        self.instants.insert(position, time);
        let single = Run::single(time, value, recorded_time);
        let joined = self.join(before.as_ref(), &single, after.as_ref(), recorded_time, commit);
        match (joined, new_run_position) {
            (Some(merged), _) => self.update_after_late_change(time, 1, -i64::from(merged)),
            (None, new_run_position) => {
                if let Some(position) = new_run_position {
                    self.runs.insert(position, single);
                }
                self.update_after_late_change(time, 1, 1);
            }
        }
        Ok(if joined.is_some() { Outcome::Collapsed { late: true } } else { Outcome::NewRun { late: true } })
    }

    /// Joins the run `middle`, which has one observation, to the neighbours `before` and `after`. The caller passes only
    /// neighbours that may absorb `middle`, and has made their segments mutable. Returns `None` without a neighbour,
    /// `Some(true)` if two neighbours merged, and `Some(false)` if `middle` joined one neighbour.
    fn join(
        &mut self,
        before: Option<&Run>,
        middle: &Run,
        after: Option<&Run>,
        recorded_time: Timestamp,
        commit: &mut SeriesCommit,
    ) -> Option<bool> {
        if let Some(after) = after {
            save_before(after, recorded_time, &mut commit.before);
        }
        let last_observed_time = after.map_or(middle.last_observed_time, |run| run.last_observed_time);
        let observations = middle.observation_count + after.map_or(0, |run| run.observation_count);
        match (before, after) {
            (None, None) => return None,
            (Some(before), after) => {
                if let Some(run) = self.runs.get_mut(before.first_observed_time) {
                    touch(run, recorded_time, &mut commit.before);
                    run.last_observed_time = last_observed_time;
                    run.observation_count += observations;
                }
                if let Some(after) = after {
                    self.runs.remove(after.first_observed_time);
                }
            }
            (None, Some(after)) => {
                let run = Run {
                    first_observed_time: middle.first_observed_time,
                    observation_count: observations,
                    recorded_time,
                    ..after.clone()
                };
                self.runs.replace(after.first_observed_time, [run]);
            }
        }
        Some(before.is_some() && after.is_some())
    }

    /// Replaces the value at an existing instant. The instant leaves its run, and that run may split. The instant then
    /// joins a neighbouring run or becomes a new run.
    fn revise(
        &mut self,
        run: &Run,
        time: Timestamp,
        value: PublishedValue,
        recorded_time: Timestamp,
        commit: &mut SeriesCommit,
        access: &Access<'_>,
    ) -> Result<Outcome, BlockError> {
        let window_us = self.collapse_window_us;
        let runs = access.runs();
        let (left, right) = self.parts_around(run, time, access)?;
        let before = match left {
            None => self.runs.before(run.first_observed_time, &runs)?,
            Some(_) => None,
        }
        .filter(|other| other.absorbs(value, time.micros_since(other.last_observed_time), window_us));
        let after = match right {
            None => self.runs.after(run.first_observed_time, &runs)?,
            Some(_) => None,
        }
        .filter(|other| other.absorbs(value, other.first_observed_time.micros_since(time), window_us));
        for touched in before.iter().chain([run]).chain(&after) {
            self.runs.make_mutable_at(touched.first_observed_time, &runs, &mut commit.replaced)?;
        }
        save_before(run, recorded_time, &mut commit.before);
        let middle = Run::single(time, value, recorded_time);
        let joins = before.is_some() || after.is_some();
        let parts: Vec<Run> = [left, (!joins).then(|| middle.clone()), right]
            .into_iter()
            .flatten()
            .map(|part| Run { recorded_time, ..part })
            .collect();
        let mut run_count_change = parts.len().cast_signed() as i64 - 1;
        if parts.is_empty() {
            self.runs.remove(run.first_observed_time);
        } else {
            self.runs.replace(run.first_observed_time, parts);
        }
        if self.join(before.as_ref(), &middle, after.as_ref(), recorded_time, commit) == Some(true) {
            run_count_change -= 1;
        }
        let late = self.newest.as_ref().is_some_and(|newest| time < newest.last_observed_time);
        self.update_after_late_change(time, 0, run_count_change);
        Ok(Outcome::Revised { late })
    }

    /// Updates totals, last move and newest run after a late change.
    fn update_after_late_change(&mut self, time: Timestamp, new_observations: u64, run_count_change: i64) {
        self.totals.observation_count += new_observations;
        self.totals.run_count = self.totals.run_count.saturating_add_signed(run_count_change);
        self.totals.first_observed_us = self.totals.first_observed_us.min(time.micros());
        if self.last_move.before.is_none_or(|(last, _)| time >= last) {
            self.last_move.since = Timestamp::MAX;
        }
        self.refresh_newest();
    }

    /// Updates the newest run from the last segment. No block is read: an immutable last segment has not changed.
    fn refresh_newest(&mut self) {
        match self.runs.segments().next_back() {
            Some(Segment::Mutable(items)) => self.newest = items.last().cloned(),
            Some(Segment::Immutable(_)) | None => {}
        }
    }

    /// Ends a commit: compares the old runs (before the commit) with the new runs (after the commit). A new run that
    /// continues an old run keeps the recorded time of the old run. Every other old run becomes a revision.
    pub(crate) fn finish(&mut self, recorded_time: Timestamp, commit: &mut SeriesCommit, access: &Access<'_>) {
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
            let _ = self.revisions.move_last_block_to_head(&access.revisions(), &mut commit.replaced);
        }
        self.totals.revision_count += superseded.len() as u64;
        for revision in superseded {
            self.revisions.push(revision);
        }
        self.refresh_newest();
    }
}

/// Marks a run as changed by the commit. On the first change, saves the run as it was before the commit.
fn touch(run: &mut Run, recorded_time: Timestamp, before: &mut BTreeMap<Timestamp, Run>) {
    if run.recorded_time != recorded_time {
        save_before(run, recorded_time, before);
        run.recorded_time = recorded_time;
    }
}

/// Saves a run as it was before the commit, unless the commit itself created the run.
fn save_before(run: &Run, recorded_time: Timestamp, before: &mut BTreeMap<Timestamp, Run>) {
    if run.recorded_time != recorded_time {
        before.entry(run.first_observed_time).or_insert_with(|| run.clone());
    }
}
