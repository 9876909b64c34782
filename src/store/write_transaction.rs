//! One commit in the making: ticks go into memory, then the log entry of what they changed is made
//! durable.
//!
//! **Invariant**: what a commit did in memory is a pure function of its log entry and the store
//! before it, whatever the order and the outcome of the ticks that led to it.

use std::collections::BTreeMap;

use super::block::{BlockError, BlockFault};
use super::error::StoreError;
use super::log::{self, LogEntry, NewSeries, SeriesChanges};
use super::polls::{LogPoll, PollRefused};
use super::quarantine::{QuarantineChange, QuarantineLimit};
use super::rules::RulesRecord;
use super::series::{self, Access, Outcome, Series};
use super::{Commit, Store};
use crate::domain::{Poll, PublishedValue, SeriesKey, Timestamp};

/// What became of a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upserted {
    /// It began a run.
    NewRun {
        /// Older than the newest of its series when applied.
        late: bool,
    },
    /// A run took it in.
    Collapsed {
        /// Older than the newest of its series when applied.
        late: bool,
    },
    /// The instant was known with this value.
    Known,
    /// It replaced another value.
    Revised {
        /// Older than the newest of its series when applied.
        late: bool,
    },
}

/// Why a tick was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UpsertError {
    /// The instant is known with this other value.
    Conflict(PublishedValue),
    /// A block that it needs does not decode.
    Damaged(Box<StoreError>),
    /// The commit has opened too many blocks already.
    TooScattered,
    /// There is no room for one more series.
    TooManySeries,
    /// It is to be held, and there is no room for one more held tick.
    QuarantineFull(QuarantineLimit),
}

impl UpsertError {
    /// A block of a series that a tick needs and that cannot be had.
    pub(super) fn of_block(series: &SeriesKey, error: BlockError) -> Self {
        match error.fault {
            BlockFault::NoRoom => Self::TooScattered,
            BlockFault::Damage | BlockFault::Disk { .. } => {
                Self::Damaged(Box::new(StoreError::of_block(series, error)))
            }
        }
    }
}

/// One commit in the making.
pub struct WriteTransaction<'a> {
    pub(super) store: &'a mut Store,
    pub(super) recorded_time: Timestamp,
    new_series: Vec<u32>,
    touched: BTreeMap<u32, Touched>,
    /// What this commit does to held ticks.
    pub(super) quarantine: Vec<QuarantineChange>,
    polls: Vec<LogPoll>,
    /// Blocks that ticks opened, of all series.
    opened_block_count: usize,
}

#[derive(Clone, Default)]
struct Touched {
    commit: series::Commit,
    ticks: Vec<(Timestamp, PublishedValue)>,
}

/// How things stood before something that is to leave no trace.
pub struct Savepoint {
    series: Vec<(u32, Series)>,
    touched: BTreeMap<u32, Touched>,
    series_count: usize,
    new_series_count: usize,
    held_count: usize,
    quarantine_count: usize,
    opened_block_count: usize,
}

impl WriteTransaction<'_> {
    /// Most blocks that the ticks of one commit may open, of all series together, each some 150 KB decoded. A tick that
    /// needs one more is refused, unless it is the newest of its series and begins a run.
    pub const OPENED_BLOCKS_MAX: usize = 2_048;

    /// Blocks that ticks of this commit have opened so far.
    pub fn opened_block_count(&self) -> usize {
        self.opened_block_count
    }

    /// The recorded time that this commit will have.
    pub fn recorded_time(&self) -> Timestamp {
        self.recorded_time
    }

    /// Puts a value at an instant of a series.
    ///
    /// # Errors
    /// [`UpsertError`]; then nothing has changed.
    pub fn upsert(
        &mut self,
        series: SeriesId,
        time: Timestamp,
        value: PublishedValue,
        revise: bool,
    ) -> Result<Upserted, UpsertError> {
        let touched = self.touched.entry(series.0).or_default();
        let opened_before = touched.commit.opened.blocks.len();
        touched.commit.opened.room = Self::OPENED_BLOCKS_MAX.saturating_sub(self.opened_block_count);
        let outcome = self.store.upsert(series.0, time, value, revise, self.recorded_time, &mut touched.commit);
        self.opened_block_count += touched.commit.opened.blocks.len() - opened_before;
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

    /// Notes what a poll of a source found.
    ///
    /// # Errors
    /// [`PollRefused`]; then nothing has changed.
    pub fn record_poll(&mut self, poll: &Poll) -> Result<(), PollRefused> {
        self.store.polls.record(poll)?;
        self.polls.push(LogPoll::new(poll));
        Ok(())
    }

    /// The series of a key, begun if it is not there.
    ///
    /// # Errors
    /// [`UpsertError::TooManySeries`].
    pub fn series(&mut self, key: &SeriesKey) -> Result<SeriesId, UpsertError> {
        if let Some(id) = self.store.ids.get(key) {
            return Ok(SeriesId(*id));
        }
        if self.store.series.len() >= self.store.options.series_count_max {
            return Err(UpsertError::TooManySeries);
        }
        let window_us = self.store.options.collapse_window_us(&key.source);
        let id = self.store.add_series(key.clone(), window_us).ok_or(UpsertError::TooManySeries)?;
        self.new_series.push(id);
        Ok(SeriesId(id))
    }

    /// Remembers how the series of some keys stand.
    pub fn savepoint<'k>(&self, keys: impl Iterator<Item = &'k SeriesKey>) -> Savepoint {
        let known = keys.filter_map(|key| self.store.ids.get(key));
        Savepoint {
            series: known.filter_map(|id| Some((*id, self.store.series_at(*id)?.clone()))).collect(),
            touched: self.touched.clone(),
            series_count: self.store.series.len(),
            new_series_count: self.new_series.len(),
            held_count: self.store.quarantine.list().count(),
            quarantine_count: self.quarantine.len(),
            opened_block_count: self.opened_block_count,
        }
    }

    /// Takes back all that was done since, but for decisions about held ticks.
    pub fn roll_back(&mut self, to: Savepoint) {
        let ids = &self.store.ids;
        self.store.quarantine.truncate(to.held_count, |key| ids.get(key).copied());
        self.quarantine.truncate(to.quarantine_count);
        self.store.truncate_series(to.series_count);
        self.new_series.truncate(to.new_series_count);
        for (id, series) in to.series {
            self.store.series[id as usize - 1] = series;
        }
        self.touched = to.touched;
        self.opened_block_count = to.opened_block_count;
    }

    /// Forgets series whose ticks changed nothing. A tick refused half-way may have opened a block of
    /// one: its items stay in memory, and the block goes at the next checkpoint.
    fn drop_unchanged(&mut self) {
        let store = &mut *self.store;
        self.touched.retain(|id, touched| {
            let keep = !touched.ticks.is_empty();
            if !keep && !touched.commit.opened.blocks.is_empty() {
                store.replaced.blocks.append(&mut touched.commit.opened.blocks);
                store.changed[*id as usize - 1] = true;
            }
            keep
        });
    }

    /// Makes the commit durable, if anything changed, and the newest of the store; the caller
    /// publishes [`Store::view`] then.
    ///
    /// # Errors
    /// What the disk says. Then the store must not be written any more: what is in memory is ahead
    /// of what is durable.
    pub fn commit(mut self) -> Result<Option<Commit>, StoreError> {
        self.drop_unchanged();
        // A series that was begun for ticks which were all refused stays away.
        while let Some(id) = self.new_series.last()
            && !self.touched.contains_key(id)
        {
            self.store.truncate_series(*id as usize - 1);
            self.new_series.pop();
        }
        let now = self.recorded_time;
        let due = self.store.due_series(now);
        let is_idle = self.touched.is_empty() && self.quarantine.is_empty() && self.polls.is_empty();
        if is_idle && !self.store.is_overdue(&due, now) {
            return Ok(None);
        }
        let mut entry = LogEntry {
            new_series: self.new_series.iter().filter_map(|id| self.store.new_series_entry(*id)).collect(),
            changes: Vec::with_capacity(self.touched.len()),
            quarantine: self.quarantine,
            polls: self.polls,
            rules: self.store.rules_to_log(),
            ..LogEntry::new(self.store.commit.sequence + 1, now.micros())
        };
        let mut commits = Vec::with_capacity(self.touched.len());
        for (id, touched) in self.touched {
            entry.changes.push(SeriesChanges::new(id, &last_in_order(touched.ticks)));
            commits.push((id, touched.commit));
        }
        self.store.write_log(&entry)?;
        self.store.finish(&entry, commits);
        Ok(Some(self.store.commit))
    }
}

/// A series of the store that this work belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeriesId(pub(super) u32);

/// Values in order of time, the last one put at each instant.
fn last_in_order(mut ticks: Vec<(Timestamp, PublishedValue)>) -> Vec<(Timestamp, PublishedValue)> {
    if ticks.is_sorted_by(|a, b| a.0 < b.0) {
        return ticks;
    }
    // Stable, so that of one instant the last one put stays last.
    ticks.sort_by_key(|(time, _)| *time);
    ticks.reverse();
    ticks.dedup_by_key(|(time, _)| *time);
    ticks.reverse();
    ticks
}

impl Store {
    /// Begins a commit at `now`.
    pub fn begin(&mut self, now: Timestamp) -> WriteTransaction<'_> {
        let recorded_time = self.next_recorded_time(now);
        WriteTransaction {
            store: self,
            recorded_time,
            new_series: Vec::new(),
            touched: BTreeMap::new(),
            quarantine: Vec::new(),
            polls: Vec::new(),
            opened_block_count: 0,
        }
    }

    /// Begins a series; none if there is no id left for it.
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
        commit: &mut series::Commit,
    ) -> Result<Outcome, UpsertError> {
        let access = Access { reader: &self.reader, recent: &self.recent };
        let series = (id as usize).checked_sub(1).and_then(|at| self.series.get_mut(at));
        let Some(series) = series else {
            let problem = format!("a tick is of series {id}, which is not there");
            return Err(UpsertError::Damaged(Box::new(StoreError::Damaged { path: self.engine.name(), problem })));
        };
        let upserted = series.upsert(time, value, revise, recorded_time, commit, &access);
        upserted.map_err(|error| UpsertError::of_block(&series.key, error))
    }

    /// Puts a value again that the log holds.
    pub(super) fn upsert_logged(
        &mut self,
        id: u32,
        time: Timestamp,
        value: PublishedValue,
        recorded_time: Timestamp,
        commit: &mut series::Commit,
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
                problem: format!("a tick of series {id} at {time} is in its log and does not go in: {refused:?}"),
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

    /// Series whose quotes time alone may have changed by `now`.
    fn due_series(&self, now: Timestamp) -> Vec<u32> {
        (1_u32..).zip(&self.due).filter(|(_, due)| due.is_some_and(|due| due <= now)).map(|(id, _)| id).collect()
    }

    /// Whether the quote of any of these is another at `now`.
    fn is_overdue(&mut self, due: &[u32], now: Timestamp) -> bool {
        let access = Access { reader: &self.reader, recent: &self.recent };
        let rules = &self.rules;
        due.iter().any(|id| {
            let Some(series) = self.series.get(*id as usize - 1) else { return false };
            let Ok((quote, next)) = super::latest_quote(series, rules, now, &access) else {
                self.due[*id as usize - 1] = None;
                return false;
            };
            let same = super::says_same(quote.as_ref(), series.quote.as_deref());
            if same {
                self.due[*id as usize - 1] = next;
            }
            !same
        })
    }

    /// Makes a log entry durable.
    pub(super) fn write_log(&mut self, entry: &LogEntry) -> Result<(), StoreError> {
        let (frame, chain) = log::encode(entry, self.chain)?;
        self.engine.write_log(&mut self.log, &frame)?;
        self.chain = chain;
        if entry.rules.is_some() {
            self.logged_rules = Some(self.rules.clone());
        }
        Ok(())
    }

    /// The rules of states, where the next commit is the first that is made by them.
    pub(super) fn rules_to_log(&self) -> Option<RulesRecord> {
        (self.logged_rules.as_ref() != Some(&self.rules)).then(|| RulesRecord::new(&self.rules))
    }

    /// Whether the store's files are where they were when it was opened.
    ///
    /// # Errors
    /// They are not, and nothing more is written.
    pub fn check_files(&self) -> Result<(), StoreError> {
        self.engine.check_files(&self.log)
    }

    /// Ends a commit whose entry is durable: revisions, quotes, what readers see.
    pub(super) fn finish(&mut self, entry: &LogEntry, commits: Vec<(u32, series::Commit)>) {
        let now = Timestamp::from_micros(entry.recorded_us);
        self.commit = Commit { sequence: entry.sequence, recorded_time: now };
        if !commits.is_empty() {
            self.last_ingest_time = Some(now);
        }
        if self.commits.last_block_has_room() {
            // If that block is damaged it stays as it is, and a new one is begun.
            let recent = super::segments::RecentBlocks::default();
            let loader = super::segments::Loader::new(&self.reader, &recent);
            let _ = self.commits.open_tail(&loader, &mut self.replaced);
        }
        self.commits.push(now);
        let mut refresh: Vec<u32> = self.due_series(now);
        for (id, mut commit) in commits {
            let access = Access { reader: &self.reader, recent: &self.recent };
            if let Some(series) = self.series.get_mut(id as usize - 1) {
                series.finish(now, &mut commit, &access);
            }
            self.replaced.blocks.append(&mut commit.opened.blocks);
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
