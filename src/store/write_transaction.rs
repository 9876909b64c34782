//! Write transactions. A transaction changes the store in memory and collects its effects. The commit of a transaction
//! writes the effects durably as one log entry.
//!
//! **Invariant**: the state in memory after a commit is a pure function of the log entry and the state before the
//! commit. The order of the ticks, and the ticks that were refused, have no influence.

use std::collections::BTreeMap;

use super::archive::ArchiveChange;
use super::backup::LogFrame;
use super::block::{BlockError, BlockFault};
use super::error::StoreError;
use super::log;
use super::log_entry::{LogEntry, NewSeries, SeriesChanges};
use super::polls::{LogPoll, PollRefused};
use super::quarantine::{QuarantineChange, QuarantineLimit};
use super::rules::RulesRecord;
use super::series::{Access, Outcome, Series, SeriesCommit};
use super::series_count::{CountedSeries, STORED_SERIES_MAX};
use super::{Commit, Store};
use crate::domain::{Poll, PublishedValue, SeriesKey, Source, Timestamp};

/// The effect of an accepted tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upserted {
    /// The tick began a run.
    NewRun {
        /// Whether the tick was older than the newest tick of its series.
        late: bool,
    },
    /// The tick joined a run.
    Collapsed {
        /// Whether the tick was older than the newest tick of its series.
        late: bool,
    },
    /// The instant already had this value. Nothing changed.
    Known,
    /// The tick replaced another value at its instant.
    Revised {
        /// Whether the tick was older than the newest tick of its series.
        late: bool,
    },
}

/// Why a tick was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UpsertError {
    /// The instant has another value, which is given here.
    Conflict(PublishedValue),
    /// A block that the tick needs cannot be read.
    Damaged(Box<StoreError>),
    /// The transaction has already made [`WriteTransaction::MUTABLE_SEGMENTS_MAX`] segments mutable.
    TooScattered,
    /// The store already has the maximum number of series.
    TooManySeries,
    /// The tick must be quarantined, and the quarantine is full.
    QuarantineFull(QuarantineLimit),
}

impl UpsertError {
    /// Converts the error of reading a block of `series` for a tick.
    pub(super) fn of_block(series: &SeriesKey, error: BlockError) -> Self {
        match error.fault {
            BlockFault::LimitReached => Self::TooScattered,
            BlockFault::Damage | BlockFault::Disk { .. } | BlockFault::NotInMemory => {
                Self::Damaged(Box::new(StoreError::of_block(series, error)))
            }
        }
    }
}

/// A commit in progress.
pub struct WriteTransaction<'a> {
    pub(super) store: &'a mut Store,
    pub(super) recorded_time: Timestamp,
    new_series: Vec<u32>,
    /// The changed series, by id.
    touched: BTreeMap<u32, TouchedSeries>,
    /// Changes to the quarantine.
    pub(super) quarantine: Vec<QuarantineChange>,
    polls: Vec<LogPoll>,
    /// Decisions to archive and unarchive sources.
    pub(super) archive: Vec<ArchiveChange>,
    /// Segments that ticks made mutable, in all series.
    mutable_segment_count: usize,
}

#[derive(Clone, Default)]
struct TouchedSeries {
    commit: SeriesCommit,
    /// The accepted ticks, in the order of their upserts.
    ticks: Vec<(Timestamp, PublishedValue)>,
}

/// The state of a transaction that [`WriteTransaction::roll_back`] restores.
pub struct Savepoint {
    series: Vec<(u32, Series)>,
    touched: BTreeMap<u32, TouchedSeries>,
    series_count: usize,
    new_series_count: usize,
    last_held_id: u64,
    quarantine_count: usize,
    mutable_segment_count: usize,
}

impl WriteTransaction<'_> {
    /// Maximum number of segments that one commit may make mutable, in all series together. A mutable segment holds the
    /// decoded items of one block, about 150 KB. A tick that needs one more segment is refused, unless the tick is the
    /// newest of its series and begins a run.
    pub const MUTABLE_SEGMENTS_MAX: usize = 2_048;

    /// Returns the number of segments that this transaction has made mutable.
    pub fn mutable_segment_count(&self) -> usize {
        self.mutable_segment_count
    }

    /// Returns the recorded time that this commit will have.
    pub fn recorded_time(&self) -> Timestamp {
        self.recorded_time
    }

    /// Puts a value at an instant of a series. `revise` applies if the instant has another value: true replaces that
    /// value, and false refuses the tick.
    ///
    /// # Errors
    /// [`UpsertError`] if the tick is refused. In this case nothing has changed.
    pub fn upsert(
        &mut self,
        series: SeriesId,
        time: Timestamp,
        value: PublishedValue,
        revise: bool,
    ) -> Result<Upserted, UpsertError> {
        let touched = self.touched.entry(series.0).or_default();
        let replaced_before = touched.commit.replaced.blocks.len();
        touched.commit.replaced.remaining = Self::MUTABLE_SEGMENTS_MAX.saturating_sub(self.mutable_segment_count);
        let outcome = self.store.upsert(series.0, time, value, revise, self.recorded_time, &mut touched.commit);
        self.mutable_segment_count += touched.commit.replaced.blocks.len() - replaced_before;
        let upserted = match outcome? {
            Outcome::Known => return Ok(Upserted::Known),
            Outcome::Conflict { stored } => return Err(UpsertError::Conflict(stored)),
            Outcome::NewRun { late } => Upserted::NewRun { late },
            Outcome::Collapsed { late } => Upserted::Collapsed { late },
            Outcome::Revised { late } => Upserted::Revised { late },
        };
        touched.ticks.push((time, value));
        Ok(upserted)
    }

    /// Records the result of a poll of a source.
    ///
    /// # Errors
    /// [`PollRefused`] if the store has polls of too many other sources. In this case nothing has changed.
    pub fn record_poll(&mut self, poll: &Poll) -> Result<(), PollRefused> {
        self.store.polls.record(poll)?;
        self.polls.push(LogPoll::new(poll));
        Ok(())
    }

    /// Returns the series of a key. Creates the series if it does not exist.
    ///
    /// # Errors
    /// [`UpsertError::TooManySeries`] if the store already has the maximum number of series ([`Self::series_count`]).
    pub fn series(&mut self, key: &SeriesKey) -> Result<SeriesId, UpsertError> {
        if let Some(id) = self.store.ids.get(key) {
            return Ok(SeriesId(*id));
        }
        let (count, count_max) = self.series_count();
        if count >= count_max || self.store.series.len() >= STORED_SERIES_MAX {
            return Err(UpsertError::TooManySeries);
        }
        let window_us = self.store.options.collapse_window_us(&key.source);
        let id = self.store.add_series(key.clone(), window_us).ok_or(UpsertError::TooManySeries)?;
        self.new_series.push(id);
        Ok(SeriesId(id))
    }

    /// Returns true if the series exists.
    pub fn has_series(&self, key: &SeriesKey) -> bool {
        self.store.ids.contains_key(key)
    }

    /// Returns true if the source is one of [`super::StoreOptions::configured_sources`].
    pub fn is_configured(&self, source: &Source) -> bool {
        self.store.options.configured_sources.contains(source)
    }

    /// Iterates over the keys of all series, new series and those of archived sources included.
    pub fn all_keys(&self) -> impl Iterator<Item = &SeriesKey> {
        self.store.series.iter().map(|series| &*series.key)
    }

    /// Iterates over the keys of the series that count towards the maximum: those of sources that are not archived.
    pub fn counted_keys(&self) -> impl Iterator<Item = &SeriesKey> {
        self.store.counted_keys()
    }

    /// Returns the number of series that count, and their maximum.
    pub fn series_count(&mut self) -> (usize, usize) {
        (self.store.count_series(), self.store.options.series_count_max)
    }

    /// Saves the state of the transaction, and of the series with these keys, for [`Self::roll_back`].
    pub fn savepoint<'k>(&self, keys: impl Iterator<Item = &'k SeriesKey>) -> Savepoint {
        let ids = keys.filter_map(|key| self.store.ids.get(key));
        Savepoint {
            series: ids.filter_map(|id| Some((*id, self.store.series_at(*id)?.clone()))).collect(),
            touched: self.touched.clone(),
            series_count: self.store.series.len(),
            new_series_count: self.new_series.len(),
            last_held_id: self.store.quarantine.list().last_id(),
            quarantine_count: self.quarantine.len(),
            mutable_segment_count: self.mutable_segment_count,
        }
    }

    /// Undoes the changes to series, the new series and the new held ticks since the savepoint. Decisions about held
    /// ticks and results of polls are not undone.
    pub fn roll_back(&mut self, to: Savepoint) {
        let ids = &self.store.ids;
        self.store.quarantine.truncate(to.last_held_id, |key| ids.get(key).copied());
        self.quarantine.truncate(to.quarantine_count);
        self.store.truncate_series(to.series_count);
        self.new_series.truncate(to.new_series_count);
        for (id, series) in to.series {
            self.store.series[id as usize - 1] = series;
        }
        self.touched = to.touched;
        self.mutable_segment_count = to.mutable_segment_count;
    }

    /// Removes series without accepted ticks from the transaction. A refused tick may have made a segment of such a
    /// series mutable: the segment stays mutable, and the next checkpoint replaces its block.
    fn drop_unchanged(&mut self) {
        let store = &mut *self.store;
        self.touched.retain(|id, touched| {
            let keep = !touched.ticks.is_empty();
            if !keep && !touched.commit.replaced.blocks.is_empty() {
                store.replaced.blocks.append(&mut touched.commit.replaced.blocks);
                store.changed[*id as usize - 1] = true;
            }
            keep
        });
    }

    /// Commits the transaction durably. The commit becomes the newest commit of the store. Returns `None` if nothing
    /// changed. After a commit, the caller publishes [`Store::view`].
    ///
    /// # Errors
    /// Returns the I/O error of the log. After an error, the store must not be written to, because the state in memory
    /// is ahead of the durable state.
    pub fn commit(mut self) -> Result<Option<Commit>, StoreError> {
        self.drop_unchanged();
        // A new series without accepted ticks is dropped, unless a later new series is kept: ids have no gaps.
        while let Some(id) = self.new_series.last()
            && !self.touched.contains_key(id)
        {
            self.store.truncate_series(*id as usize - 1);
            self.new_series.pop();
        }
        let now = self.recorded_time;
        let due = self.store.due_series(now);
        let is_idle =
            self.touched.is_empty() && self.quarantine.is_empty() && self.polls.is_empty() && self.archive.is_empty();
        if is_idle && !self.store.any_quote_changed(&due, now) {
            return Ok(None);
        }
        let mut entry = LogEntry {
            new_series: self.new_series.iter().filter_map(|id| self.store.new_series_entry(*id)).collect(),
            changes: Vec::with_capacity(self.touched.len()),
            quarantine: self.quarantine,
            polls: self.polls,
            rules: self.store.rules_to_log(&self.archive),
            archive: self.archive,
            ..LogEntry::new(self.store.commit.sequence + 1, now.micros())
        };
        let mut commits = Vec::with_capacity(self.touched.len());
        for (id, touched) in self.touched {
            entry.changes.push(SeriesChanges::new(id, &sort_and_keep_last(touched.ticks)));
            commits.push((id, touched.commit));
        }
        self.store.write_log(&entry)?;
        self.store.finish(&entry, commits);
        Ok(Some(self.store.commit))
    }
}

/// The id of a series, valid in the store of its transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeriesId(pub(super) u32);

/// Sorts ticks by time. Of the ticks at one instant, only the last one remains.
fn sort_and_keep_last(mut ticks: Vec<(Timestamp, PublishedValue)>) -> Vec<(Timestamp, PublishedValue)> {
    if ticks.is_sorted_by(|a, b| a.0 < b.0) {
        return ticks;
    }
    // The sort is stable, so that the last tick at an instant stays last.
    ticks.sort_by_key(|(time, _)| *time);
    ticks.reverse();
    ticks.dedup_by_key(|(time, _)| *time);
    ticks.reverse();
    ticks
}

impl Store {
    /// Begins a transaction at `now`.
    pub fn begin(&mut self, now: Timestamp) -> WriteTransaction<'_> {
        let recorded_time = self.next_recorded_time(now);
        WriteTransaction {
            store: self,
            recorded_time,
            new_series: Vec::new(),
            touched: BTreeMap::new(),
            quarantine: Vec::new(),
            polls: Vec::new(),
            archive: Vec::new(),
            mutable_segment_count: 0,
        }
    }

    /// Adds a series and returns its id; `None` if all ids are in use.
    pub(super) fn add_series(&mut self, key: SeriesKey, collapse_window_us: i64) -> Option<u32> {
        let id = u32::try_from(self.series.len() + 1).ok()?;
        self.ids.insert(key.clone(), id);
        self.series.push(Series::new(id, key, collapse_window_us));
        self.record_crcs.push(None);
        self.changed.push(false);
        self.due.push(None);
        Some(id)
    }

    fn truncate_series(&mut self, count: usize) {
        self.counted = CountedSeries::default();
        for series in self.series.drain(count..) {
            self.ids.remove(&*series.key);
        }
        self.record_crcs.truncate(count);
        self.changed.truncate(count);
        self.due.truncate(count);
    }

    fn upsert(
        &mut self,
        id: u32,
        time: Timestamp,
        value: PublishedValue,
        revise: bool,
        recorded_time: Timestamp,
        commit: &mut SeriesCommit,
    ) -> Result<Outcome, UpsertError> {
        let access = Access { reader: &self.reader, recent: &self.recent };
        let series = (id as usize).checked_sub(1).and_then(|at| self.series.get_mut(at));
        let Some(series) = series else {
            let problem = format!("a tick names series {id}, which does not exist");
            return Err(UpsertError::Damaged(Box::new(StoreError::Damaged { path: self.engine.name(), problem })));
        };
        let upserted = series.upsert(time, value, revise, recorded_time, commit, &access);
        upserted.map_err(|error| UpsertError::of_block(&series.key, error))
    }

    /// Puts a value from the log at an instant, during replay.
    pub(super) fn upsert_logged(
        &mut self,
        id: u32,
        time: Timestamp,
        value: PublishedValue,
        recorded_time: Timestamp,
        commit: &mut SeriesCommit,
    ) -> Result<(), StoreError> {
        match self.upsert(id, time, value, true, recorded_time, commit) {
            Ok(_) => Ok(()),
            Err(UpsertError::Damaged(error)) => Err(*error),
            Err(
                refused @ (UpsertError::Conflict(_)
                | UpsertError::TooScattered
                | UpsertError::TooManySeries
                | UpsertError::QuarantineFull(_)),
            ) => Err(StoreError::Damaged {
                path: self.engine.name(),
                problem: format!("a tick of series {id} at {time} is in the log but cannot be applied: {refused:?}"),
            }),
        }
    }

    fn new_series_entry(&self, id: u32) -> Option<NewSeries> {
        let series = self.series_at(id)?;
        Some(NewSeries {
            id,
            pair: series.key.pair.to_string(),
            source: series.key.source.to_string(),
            collapse_window_us: series.collapse_window_us,
        })
    }

    /// Returns the series with a quote that may have changed by `now` without a new tick.
    fn due_series(&self, now: Timestamp) -> Vec<u32> {
        (1_u32..).zip(&self.due).filter(|(_, due)| due.is_some_and(|due| due <= now)).map(|(id, _)| id).collect()
    }

    /// Returns true if the quote of any of these series is different at `now`.
    fn any_quote_changed(&mut self, due: &[u32], now: Timestamp) -> bool {
        let access = Access { reader: &self.reader, recent: &self.recent };
        let rules = (&self.rules, self.archive.sources());
        due.iter().any(|id| {
            let Some(series) = self.series.get(*id as usize - 1) else { return false };
            let Ok((quote, next)) = super::latest_quote(series, rules, now, &access) else {
                self.due[*id as usize - 1] = None;
                return false;
            };
            let is_same = super::is_same_quote(quote.as_ref(), series.quote.as_deref());
            if is_same {
                self.due[*id as usize - 1] = next;
            }
            !is_same
        })
    }

    /// Appends an entry to the log and makes it durable.
    pub(super) fn write_log(&mut self, entry: &LogEntry) -> Result<(), StoreError> {
        let (frame, chain) = log::encode(entry, self.chain)?;
        self.engine.write_log(&mut self.log, &frame)?;
        self.chain = chain;
        if let Some(tail) = &self.frame_tail {
            let recorded_time = Timestamp::from_micros(entry.recorded_us);
            tail.push(LogFrame { commit: Commit { sequence: entry.sequence, recorded_time }, bytes: frame });
        }
        if entry.rules.is_some() {
            self.logged_rules = Some(self.rules.clone());
        }
        Ok(())
    }

    /// Returns the state rules if the next log entry must contain them: if they differ from the rules last logged, or if
    /// the entry has `archive` decisions, which are encoded after the rules.
    pub(super) fn rules_to_log(&self, archive: &[ArchiveChange]) -> Option<RulesRecord> {
        let is_needed = !archive.is_empty() || self.logged_rules.as_ref() != Some(&self.rules);
        is_needed.then(|| RulesRecord::new(&self.rules))
    }

    /// Checks that the store's files are still at the paths where they were opened.
    ///
    /// # Errors
    /// `Io` if a file was moved, removed or replaced. The store then refuses all further writes.
    pub fn check_files(&self) -> Result<(), StoreError> {
        self.engine.check_files(&self.log)
    }

    /// Ends a commit after its entry is durable: computes revisions and quotes, and updates the views of the changed
    /// series.
    pub(super) fn finish(&mut self, entry: &LogEntry, commits: Vec<(u32, SeriesCommit)>) {
        let now = Timestamp::from_micros(entry.recorded_us);
        self.commit = Commit { sequence: entry.sequence, recorded_time: now };
        if !commits.is_empty() {
            self.last_ingest_time = Some(now);
        }
        if self.commits.last_block_has_room() {
            // A damaged last block is not moved. The next checkpoint then writes the new items as another block.
            let recent = super::segments::RecentBlocks::default();
            let loader = super::segments::Loader::new(&self.reader, &recent);
            let _ = self.commits.move_last_block_to_head(&loader, &mut self.replaced);
        }
        self.commits.push(now);
        let ids = &self.ids;
        self.quarantine.trim(|key| ids.get(key).copied());
        let mut refresh: Vec<u32> = self.due_series(now);
        refresh.extend(self.series_of(&entry.archive));
        for (id, mut commit) in commits {
            let access = Access { reader: &self.reader, recent: &self.recent };
            if let Some(series) = self.series.get_mut(id as usize - 1) {
                series.finish(now, &mut commit, &access);
            }
            self.replaced.blocks.append(&mut commit.replaced.blocks);
            refresh.push(id);
        }
        refresh.sort_unstable();
        refresh.dedup();
        for id in refresh {
            self.refresh_quote(id, now, entry.sequence);
            self.changed[id as usize - 1] = true;
            self.refresh_view(id);
        }
    }
}

#[cfg(test)]
mod tests;
