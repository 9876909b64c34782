//! Reading a whole store and checking all that is promised of it.
//!
//! **Invariant**: finds problems, mends none.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::block::{BlockKind, BlockMeta, Item};
use super::error::StoreError;
use super::scan_order::ScanOrder;
use super::segments::{Segment, Segments};
use super::view::SeriesView;
use super::{CheckpointLimits, Store, StoreOptions};
use crate::domain::{Run, Timestamp, Verdict};
use crate::latest_quotes::StateRules;

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Of the newest commit.
    pub sequence: u64,
    /// Series.
    pub series_count: u64,
    /// Runs of all series.
    pub run_count: u64,
    /// Observations of all series.
    pub observation_count: u64,
    /// Revisions of all series.
    pub revision_count: u64,
    /// Spans of polls of all sources.
    pub poll_span_count: u64,
    /// Ticks that were held, decided ones included.
    pub quarantined_count: u64,
    /// Blocks that the index names.
    pub block_count: u64,
    /// Bytes in those blocks.
    pub block_bytes: u64,
    /// Of them, in blocks of runs.
    pub run_block_bytes: u64,
    /// Of them, in blocks of instants.
    pub instant_block_bytes: u64,
    /// What is wrong, each by name; empty for a sound store.
    pub problems: Vec<String>,
}

/// Reads every block of the store in `directory` and checks that runs partition the timeline and
/// collapse no less and no more than their window says, that counts add up, and that order holds.
/// Takes the store's lock meanwhile. Blocks.
///
/// # Errors
/// A store that does not open at all.
pub fn verify(directory: &Path) -> Result<VerifyReport, StoreError> {
    if !directory.join("sled").is_dir() {
        return Err(StoreError::Io {
            action: format!("cannot verify {}", directory.display()),
            problem: "there is no store".to_owned(),
            disk_full: false,
        });
    }
    let store = Store::load(StoreOptions {
        directory: directory.to_owned(),
        collapse_window_default_us: 0,
        collapse_windows_us: BTreeMap::new(),
        recollapse: false,
        state_rules: StateRules {
            stale_limit_default_us: i64::MAX,
            stale_limits_us: BTreeMap::new(),
            moving_window_us: 0,
        },
        reserve_bytes: 0,
        series_count_max: usize::MAX,
        checkpoint: CheckpointLimits::default(),
        disk_fault: None,
    })?;
    Ok(store.verify())
}

impl Store {
    /// Checks this store as it is in memory and on disk.
    pub fn verify(&self) -> VerifyReport {
        let mut report = VerifyReport {
            sequence: self.commit.sequence,
            series_count: self.series.len() as u64,
            ..Default::default()
        };
        for view in &self.views {
            let mut check = SeriesCheck { view, report: &mut report };
            check.counts();
            check.runs();
            check.revisions();
        }
        self.check_commits(&mut report);
        self.check_polls(&mut report);
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
                            report.problems.push(format!("commits: {time} does not follow {last}"));
                        }
                        last = *time;
                    }
                    count += times.len() as u64;
                }
            }
        }
        if count != self.commit.sequence || (count > 0 && last != self.commit.recorded_time) {
            report.problems.push(format!(
                "commits: {count} are listed up to {last}, but the newest is {} at {}",
                self.commit.sequence, self.commit.recorded_time
            ));
        }
    }

    fn check_quarantine(&self, report: &mut VerifyReport) {
        let recent = super::segments::RecentBlocks::default();
        let loader = super::segments::Loader::new(&self.reader, &recent);
        let mut standing = HashSet::new();
        let mut last = Timestamp::MIN;
        for tick in self.quarantine().after(0) {
            report.quarantined_count += 1;
            let mut problem = |problem: String| report.problems.push(format!("held tick {}: {problem}", tick.id));
            let decision = tick.decision.as_ref();
            for time in [tick.held_time].into_iter().chain(decision.map(|decision| decision.decided_time)) {
                // A block that cannot be read is told with the commits.
                if matches!(self.commits.contains(time, &loader), Ok(false)) {
                    problem(format!("{time} is of no commit"));
                }
            }
            if tick.held_time < last || decision.is_some_and(|decision| decision.decided_time <= tick.held_time) {
                problem(format!("{} is out of order", tick.held_time));
            }
            last = tick.held_time;
            let is_released = decision.is_some_and(|decision| decision.verdict == Verdict::Released);
            if !is_released && !standing.insert((&tick.series, tick.observed_time, tick.value)) {
                problem(format!("{} at {} is held twice", tick.series, tick.observed_time));
            }
        }
    }

    fn check_polls(&self, report: &mut VerifyReport) {
        for record in self.polls.records() {
            let mut before = None;
            for span in record.spans() {
                report.poll_span_count += 1;
                if !span.is_sound_after(before) {
                    let source = record.source();
                    report
                        .problems
                        .push(format!("polls of {source}: the span from {} is out of order", span.first_poll_time));
                }
                before = Some(span);
            }
        }
    }
}

fn add_blocks<T: Item>(segments: &Segments<T>, report: &mut VerifyReport) {
    let sealed = |segment: Segment<T>| -> Option<Arc<BlockMeta>> {
        match segment {
            Segment::Immutable(meta) => Some(meta),
            Segment::Mutable(_) => None,
        }
    };
    for meta in segments.segments().filter_map(sealed) {
        report.block_count += 1;
        report.block_bytes += meta.bytes();
        match T::KIND {
            BlockKind::Runs => report.run_block_bytes += meta.bytes(),
            BlockKind::Instants => report.instant_block_bytes += meta.bytes(),
            BlockKind::Revisions => {}
        }
    }
}

struct SeriesCheck<'a> {
    view: &'a Arc<SeriesView>,
    report: &'a mut VerifyReport,
}

impl SeriesCheck<'_> {
    fn problem(&mut self, problem: impl std::fmt::Display) {
        self.report.problems.push(format!("{}: {problem}", self.view.key()));
    }

    fn counts(&mut self) {
        let totals = self.view.series.totals;
        self.report.run_count += totals.run_count;
        self.report.observation_count += totals.observation_count;
        self.report.revision_count += totals.revision_count;
        add_blocks(&self.view.series.runs, self.report);
        add_blocks(&self.view.series.instants, self.report);
        add_blocks(&self.view.series.revisions, self.report);
    }

    /// Walks runs and timeline side by side.
    fn runs(&mut self) {
        let scan = match self.view.runs(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX, ScanOrder::Ascending) {
            Ok(scan) => scan,
            Err(error) => return self.problem(error),
        };
        let mut instants = self.view.instants(Timestamp::MIN, Timestamp::MAX);
        let mut piece: std::vec::IntoIter<Timestamp> = Vec::new().into_iter();
        let mut next_instant = || loop {
            if let Some(time) = piece.next() {
                return Ok(Some(time));
            }
            match instants.next() {
                None => return Ok(None),
                Some(Err(error)) => return Err(error),
                Some(Ok(times)) => piece = times.into_iter(),
            }
        };
        let mut before: Option<Run> = None;
        let (mut runs, mut observations) = (0_u64, 0_u64);
        for piece in scan {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return self.problem(error),
            };
            for run in piece {
                runs += 1;
                observations += run.observation_count;
                if let Some(before) = &before {
                    self.neighbours(before, &run);
                }
                match self.observations(&run, &mut next_instant) {
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
            self.problem(format!("{runs} runs of {observations} observations are not what its counts say: {totals:?}"));
        }
        if before != self.view.series.newest {
            self.problem("its newest run is not its last one");
        }
    }

    fn neighbours(&mut self, before: &Run, run: &Run) {
        if before.last_observed_time >= run.first_observed_time {
            self.problem(format!(
                "the runs from {} and from {} overlap",
                before.first_observed_time, run.first_observed_time
            ));
        }
        let gap_us = run.first_observed_time.micros_since(before.last_observed_time);
        if before.takes_in(run.value, gap_us, self.view.collapse_window_us()) {
            self.problem(format!(
                "the run from {} should go on in that from {}",
                before.first_observed_time, run.first_observed_time
            ));
        }
    }

    fn observations(
        &mut self,
        run: &Run,
        next_instant: &mut impl FnMut() -> Result<Option<Timestamp>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut last: Option<Timestamp> = None;
        for number in 0..run.observation_count {
            let Some(time) = next_instant()? else {
                self.problem(format!("the run from {} has too many observations", run.first_observed_time));
                return Ok(());
            };
            let gap_us = last.map_or(0, |last| time.micros_since(last));
            if gap_us > self.view.collapse_window_us() {
                self.problem(format!("the run from {} bridges a gap before {time}", run.first_observed_time));
            }
            if number == 0 && time != run.first_observed_time {
                self.problem(format!("the run from {} begins at no instant of its own", run.first_observed_time));
            }
            last = Some(time);
        }
        if last != Some(run.last_observed_time) {
            self.problem(format!("the run from {} ends at no instant of its own", run.first_observed_time));
        }
        Ok(())
    }

    fn revisions(&mut self) {
        let mut count = 0_u64;
        let mut last = Timestamp::MIN;
        for piece in self.view.revisions(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX) {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return self.problem(error),
            };
            count += piece.len() as u64;
            for revision in piece {
                if revision.superseded_time < last || revision.run.recorded_time >= revision.superseded_time {
                    self.problem(format!("the revision superseded at {} is out of order", revision.superseded_time));
                }
                last = revision.superseded_time;
            }
        }
        if count != self.view.series.totals.revision_count {
            self.problem(format!("{count} revisions are not what its counts say"));
        }
    }
}
