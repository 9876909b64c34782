//! Recollapsing: recomputes the runs of a series from its timeline after the configured collapse window changed.
//!
//! **Invariant**: the timeline does not change. Runs that change become revisions, as in any other commit.

use super::Store;
use super::error::StoreError;
use super::log_entry::LogEntry;
use super::segments::{Segment, Segments};
use super::series::{self, Access};
use crate::domain::{Revision, Run, Timestamp};

impl Store {
    /// Compares the stored collapse windows with the configured ones. If a window differs and the option `recollapse`
    /// is set, recollapses the series and makes a checkpoint.
    ///
    /// # Errors
    /// `WindowDiffers` if a window differs and the option is not set; `DamagedBlock` or `Io` if recollapsing fails.
    pub(super) fn check_windows(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let configured = |series: &series::Series| self.options.collapse_window_us(&series.key.source);
        let differing: Vec<(u32, i64)> = self
            .series
            .iter()
            .filter(|series| series.collapse_window_us != configured(series))
            .map(|series| (series.id, configured(series)))
            .collect();
        let Some((first, configured_us)) = differing.first().copied() else { return Ok(()) };
        if !self.options.recollapse {
            let series = &self.series[first as usize - 1];
            return Err(StoreError::WindowDiffers {
                series: Box::new((*series.key).clone()),
                source_name: series.key.source.to_string(),
                stored_s: series.collapse_window_us / Timestamp::SECOND_US,
                configured_s: configured_us / Timestamp::SECOND_US,
            });
        }
        let entry = LogEntry {
            recollapsed: differing,
            rules: self.rules_to_log(&[]),
            ..LogEntry::new(self.commit.sequence + 1, self.next_recorded_time(now).micros())
        };
        let mut commits = Vec::new();
        for (id, window_us) in &entry.recollapsed {
            tracing::info!("recollapsing {}", self.series[*id as usize - 1].key);
            commits.push((*id, self.recollapse(*id, *window_us, Timestamp::from_micros(entry.recorded_us))?));
        }
        self.write_log(&entry)?;
        self.finish(&entry, commits);
        self.checkpoint()
    }

    /// Recollapses one series in memory. The call needs about 200 bytes of memory per run and 8 bytes per instant.
    ///
    /// # Errors
    /// `DamagedBlock` if a block is damaged; `Io` if a block cannot be read.
    pub(super) fn recollapse(
        &mut self,
        id: u32,
        window_us: i64,
        recorded_time: Timestamp,
    ) -> Result<series::SeriesCommit, StoreError> {
        let access = Access { reader: &self.reader, recent: &self.recent };
        let series = &mut self.series[id as usize - 1];
        let mut old: Vec<Run> = Vec::new();
        let mut commit = series::SeriesCommit::default();
        for (at, segment) in series.runs.segments().enumerate() {
            let items = series
                .runs
                .load_segment(at, &access.runs())
                .map_err(|error| StoreError::of_block(&series.key, error))?;
            old.extend_from_slice(&items);
            if let Segment::Immutable(meta) = segment {
                commit.replaced.blocks.push(meta);
            }
        }
        let mut new: Vec<Run> = Vec::new();
        let mut values = old.iter().flat_map(|run| {
            std::iter::repeat_n(run.value, usize::try_from(run.observation_count).unwrap_or(usize::MAX))
        });
        for at in 0..series.instants.segment_count() {
            let items = series
                .instants
                .load_segment(at, &access.instants())
                .map_err(|error| StoreError::of_block(&series.key, error))?;
            for (time, value) in items.iter().zip(&mut values) {
                match new.last_mut() {
                    Some(run) if run.absorbs(value, time.micros_since(run.last_observed_time), window_us) => {
                        run.last_observed_time = *time;
                        run.observation_count += 1;
                    }
                    _ => new.push(Run::single(*time, value, recorded_time)),
                }
            }
        }
        let superseded = superseded(&old, &mut new, recorded_time);
        series.collapse_window_us = window_us;
        series.totals.run_count = new.len() as u64;
        series.totals.revision_count += superseded.len() as u64;
        series.newest = new.last().cloned();
        series.runs = Segments::of_items(&new);
        for revision in superseded {
            series.revisions.push(revision);
        }
        Ok(commit)
    }
}

/// Compares the old runs with the new ones. Returns a revision for each old run that no new run continues. A new run
/// that continues an old run gets the recorded time of the old run.
fn superseded(old: &[Run], new: &mut [Run], recorded_time: Timestamp) -> Vec<Revision> {
    let mut superseded = Vec::new();
    let mut at = 0;
    for (index, run) in old.iter().enumerate() {
        while new.get(at).is_some_and(|new_run| new_run.first_observed_time < run.first_observed_time) {
            at += 1;
        }
        let covers_no_other =
            |new_run: &Run| old.get(index + 1).is_none_or(|next| next.first_observed_time > new_run.last_observed_time);
        match new.get_mut(at) {
            Some(new_run)
                if new_run.first_observed_time == run.first_observed_time
                    && new_run.value == run.value
                    && new_run.last_observed_time >= run.last_observed_time
                    && covers_no_other(new_run) =>
            {
                new_run.recorded_time = run.recorded_time;
            }
            _ => superseded.push(Revision { run: run.clone(), superseded_time: recorded_time }),
        }
    }
    superseded
}
