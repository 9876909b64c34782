//! Verification: reads a whole store and checks its invariants.
//!
//! **Invariant**: verification reports problems and does not repair them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::block::{BlockKind, BlockMeta, Item};
use super::error::StoreError;
use super::segments::{Segment, Segments};
use super::view::SeriesView;
use super::{Store, StoreOptions};
use crate::domain::{Run, ScanOrder, Timestamp, Verdict};

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Sequence of the newest commit.
    pub sequence: u64,
    /// Number of series.
    pub series_count: u64,
    /// Number of runs of all series.
    pub run_count: u64,
    /// Number of observations of all series.
    pub observation_count: u64,
    /// Number of revisions of all series.
    pub revision_count: u64,
    /// Number of poll spans of all sources.
    pub poll_span_count: u64,
    /// Number of ticks that were ever held, including released and discarded ticks.
    pub quarantined_count: u64,
    /// Number of blocks in the index.
    pub block_count: u64,
    /// Size of these blocks, in bytes.
    pub block_bytes: u64,
    /// Size of the blocks of runs, in bytes.
    pub run_block_bytes: u64,
    /// Size of the blocks of instants, in bytes.
    pub instant_block_bytes: u64,
    /// Problems found; empty for a valid store. Each problem names the series, source, commits or held tick it affects.
    pub problems: Vec<String>,
}

/// Reads every block of the store in `directory` and checks that runs partition the timeline, that runs are collapsed
/// exactly as their collapse window requires, that counts are consistent, and that items are in order. The call holds
/// the store's lock and blocks on disk I/O.
///
/// # Errors
/// Returns any [`StoreError`] if the store cannot be opened.
pub fn verify(directory: &Path) -> Result<VerifyReport, StoreError> {
    if !directory.join("sled").is_dir() {
        return Err(StoreError::Io {
            action: format!("cannot verify {}", directory.display()),
            problem: "the directory has no store".to_owned(),
            disk_full: false,
        });
    }
    let store = Store::load(StoreOptions::unchanging(directory))?;
    Ok(store.verify())
}

impl Store {
    /// Verifies this open store, including changes that are only in memory.
    pub fn verify(&self) -> VerifyReport {
        let mut report = VerifyReport {
            sequence: self.commit.sequence,
            series_count: self.series.len() as u64,
            ..Default::default()
        };
        for view in &self.views {
            let mut check = SeriesCheck { view, report: &mut report };
            check.add_counts();
            check.check_runs();
            check.check_revisions();
        }
        self.check_commits(&mut report);
        self.check_polls(&mut report);
        self.check_archive(&mut report);
        self.check_quarantine(&mut report);
        report
    }

    fn check_commits(&self, report: &mut VerifyReport) {
        let recent = super::segments::RecentBlocks::default();
        let loader = super::segments::Loader::new(&self.reader, &recent);
        add_blocks(&self.commits, report);
        let mut count = 0_u64;
        let mut last = Timestamp::MIN;
        for at in 0..self.commits.segment_count() {
            match self.commits.load_segment(at, &loader) {
                Err(error) => {
                    report.problems.push(format!("commits from {} to {}: {}", error.from, error.to, error.problem));
                }
                Ok(times) => {
                    for time in times.iter() {
                        if *time <= last {
                            report.problems.push(format!("commits: recorded time {time} is not after {last}"));
                        }
                        last = *time;
                    }
                    count += times.len() as u64;
                }
            }
        }
        if count != self.commit.sequence || (count > 0 && last != self.commit.recorded_time) {
            report.problems.push(format!(
                "commits: the list has {count} commits up to {last}, but the newest commit is {} at {}",
                self.commit.sequence, self.commit.recorded_time
            ));
        }
    }

    fn check_quarantine(&self, report: &mut VerifyReport) {
        let recent = super::segments::RecentBlocks::default();
        let loader = super::segments::Loader::new(&self.reader, &recent);
        let mut not_released = HashSet::new();
        let mut last = Timestamp::MIN;
        for tick in self.quarantine().after(0) {
            report.quarantined_count += 1;
            let mut problem = |problem: String| report.problems.push(format!("held tick {}: {problem}", tick.id));
            let decision = tick.decision.as_ref();
            for time in [tick.held_time].into_iter().chain(decision.map(|decision| decision.decided_time)) {
                // A block that cannot be read is reported by `check_commits`.
                if matches!(self.commits.contains(time, &loader), Ok(false)) {
                    problem(format!("no commit has the recorded time {time}"));
                }
            }
            if tick.held_time < last || decision.is_some_and(|decision| decision.decided_time <= tick.held_time) {
                problem(format!("its held time {} is out of order", tick.held_time));
            }
            last = tick.held_time;
            let is_released = decision.is_some_and(|decision| decision.verdict == Verdict::Released);
            if !is_released && !not_released.insert((&tick.series, tick.observed_time, tick.value)) {
                problem(format!(
                    "the same tick of {} at {} is already held or discarded",
                    tick.series, tick.observed_time
                ));
            }
        }
    }

    fn check_archive(&self, report: &mut VerifyReport) {
        let recent = super::segments::RecentBlocks::default();
        let loader = super::segments::Loader::new(&self.reader, &recent);
        for decision in self.archive.sources().decisions() {
            let time = decision.recorded_time;
            // A block that cannot be read is reported by `check_commits`.
            if matches!(self.commits.contains(time, &loader), Ok(false)) {
                let source = &decision.source;
                report.problems.push(format!("decisions to archive {source}: no commit has the recorded time {time}"));
            }
        }
    }

    fn check_polls(&self, report: &mut VerifyReport) {
        for record in self.polls.records() {
            let mut previous = None;
            for span in record.spans() {
                report.poll_span_count += 1;
                if !span.is_valid_after(previous) {
                    let source = record.source();
                    report
                        .problems
                        .push(format!("polls of {source}: the span from {} is out of order", span.first_poll_time));
                }
                previous = Some(span);
            }
        }
    }
}

/// Adds the blocks of these segments to the block counts of the report.
fn add_blocks<T: Item>(segments: &Segments<T>, report: &mut VerifyReport) {
    let block = |segment: Segment<T>| -> Option<Arc<BlockMeta>> {
        match segment {
            Segment::Immutable(meta) => Some(meta),
            Segment::Mutable(_) => None,
        }
    };
    for meta in segments.segments().filter_map(block) {
        report.block_count += 1;
        report.block_bytes += meta.bytes();
        match T::KIND {
            BlockKind::Runs => report.run_block_bytes += meta.bytes(),
            BlockKind::Instants => report.instant_block_bytes += meta.bytes(),
            BlockKind::Revisions => {}
        }
    }
}

/// Verification of one series.
struct SeriesCheck<'a> {
    view: &'a Arc<SeriesView>,
    report: &'a mut VerifyReport,
}

impl SeriesCheck<'_> {
    fn problem(&mut self, problem: impl std::fmt::Display) {
        self.report.problems.push(format!("{}: {problem}", self.view.key()));
    }

    fn add_counts(&mut self) {
        let totals = self.view.series.totals;
        self.report.run_count += totals.run_count;
        self.report.observation_count += totals.observation_count;
        self.report.revision_count += totals.revision_count;
        add_blocks(&self.view.series.runs, self.report);
        add_blocks(&self.view.series.instants, self.report);
        add_blocks(&self.view.series.revisions, self.report);
    }

    /// Checks the runs against the timeline. For each run, reads as many instants as the run has observations.
    fn check_runs(&mut self) {
        let scan = match self.view.runs(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX, ScanOrder::Ascending) {
            Ok(scan) => scan,
            Err(error) => return self.problem(error),
        };
        let mut instants = self.view.instants(Timestamp::MIN, Timestamp::MAX, ScanOrder::Ascending);
        let mut batch: std::vec::IntoIter<Timestamp> = Vec::new().into_iter();
        let mut next_instant = || loop {
            if let Some(time) = batch.next() {
                return Ok(Some(time));
            }
            match instants.next() {
                None => return Ok(None),
                Some(Err(error)) => return Err(error),
                Some(Ok(times)) => batch = times.into_iter(),
            }
        };
        let mut before: Option<Run> = None;
        let (mut runs, mut observations) = (0_u64, 0_u64);
        for batch in scan {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return self.problem(error),
            };
            for run in batch {
                runs += 1;
                observations += run.observation_count;
                if let Some(before) = &before {
                    self.check_neighbours(before, &run);
                }
                match self.check_observations(&run, &mut next_instant) {
                    Ok(()) => {}
                    Err(error) => return self.problem(error),
                }
                before = Some(run);
            }
        }
        match next_instant() {
            Ok(None) => {}
            Ok(Some(time)) => self.problem(format!("the instant {time} belongs to no run")),
            Err(error) => self.problem(error),
        }
        let totals = self.view.series.totals;
        if (runs, observations) != (totals.run_count, totals.observation_count) {
            self.problem(format!(
                "the series has {runs} runs and {observations} observations, \
                 but its record counts {} runs and {} observations",
                totals.run_count, totals.observation_count
            ));
        }
        if before != self.view.series.newest {
            self.problem("the newest run in its record is not its last run");
        }
    }

    fn check_neighbours(&mut self, before: &Run, run: &Run) {
        if before.last_observed_time >= run.first_observed_time {
            self.problem(format!(
                "the runs from {} and from {} overlap",
                before.first_observed_time, run.first_observed_time
            ));
        }
        let gap_us = run.first_observed_time.micros_since(before.last_observed_time);
        if before.absorbs(run.value, gap_us, self.view.collapse_window_us()) {
            self.problem(format!(
                "the run from {} and the run from {} should be one run",
                before.first_observed_time, run.first_observed_time
            ));
        }
    }

    /// Checks that the next instants of the timeline are the observations of this run.
    fn check_observations(
        &mut self,
        run: &Run,
        next_instant: &mut impl FnMut() -> Result<Option<Timestamp>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut last: Option<Timestamp> = None;
        for number in 0..run.observation_count {
            let Some(time) = next_instant()? else {
                self.problem(format!(
                    "the run from {} counts more observations than the timeline has",
                    run.first_observed_time
                ));
                return Ok(());
            };
            let gap_us = last.map_or(0, |last| time.micros_since(last));
            if gap_us > self.view.collapse_window_us() {
                self.problem(format!(
                    "the run from {} bridges a gap before {time} that is longer than the collapse window",
                    run.first_observed_time
                ));
            }
            if number == 0 && time != run.first_observed_time {
                self.problem(format!(
                    "the first observed time of the run from {} is not its first instant in the timeline",
                    run.first_observed_time
                ));
            }
            last = Some(time);
        }
        if last != Some(run.last_observed_time) {
            self.problem(format!(
                "the last observed time of the run from {} is not its last instant in the timeline",
                run.first_observed_time
            ));
        }
        Ok(())
    }

    fn check_revisions(&mut self) {
        let mut count = 0_u64;
        let mut last = Timestamp::MIN;
        for batch in self.view.revisions(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX, ScanOrder::Ascending) {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return self.problem(error),
            };
            count += batch.len() as u64;
            for revision in batch {
                if revision.superseded_time < last || revision.run.recorded_time >= revision.superseded_time {
                    self.problem(format!("the revision superseded at {} is out of order", revision.superseded_time));
                }
                last = revision.superseded_time;
            }
        }
        let expected = self.view.series.totals.revision_count;
        if count != expected {
            self.problem(format!("the series has {count} revisions, but its record counts {expected}"));
        }
    }
}
