//! Restoring: builds a store from the exported parts of another store. The parts are series, timelines, runs,
//! revisions, commits, polls and held ticks, with the recorded times of the other store.
//!
//! A mark file in the directory shows that the import is unfinished. It is durable before the first byte of data is
//! written. It is removed after the last byte is durable; from then on, the store can be opened. A store cannot always
//! be built in a temporary directory that is then renamed: the target may be a mount point or lie on another file
//! system. A server never opens a directory with the mark, so the next import may delete its contents and start again.
//!
//! **Invariants**:
//!
//! - A part that violates a rule of [`super::verify()`] is refused.
//! - Memory holds at most one block of each kind, and the index entries of the current series.

mod archive;
pub(super) mod directory;
mod error;
mod quarantine;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;

use self::directory::{lock_empty, prepare_directory, remove_mark};
pub use self::error::{RestoreError, RestoreProblem};

use super::archive::Archive;
use super::block::{BlockError, BlockMeta, Item, encode_blocks};
use super::block_builder::{BATCH_BYTES_MAX, put_columns};
use super::checkpoint::put_meta;
use super::digest::Digest;
use super::engine::Engine;
use super::error::StoreError;
use super::high_water_mark::HighWaterMark;
use super::keys;
use super::log::Log;
use super::polls::Polls;
use super::reader::BlockReader;
use super::records::{Meta, SeriesRecord};
use super::rules::RulesRecord;
use super::segments::{Loader, RecentBlocks, Segments};
use super::series::{Access, LastMove, Recent, Series, Totals};
use super::{COMMITS_ID, Commit, latest_quote};
use crate::domain::{PollSpan, Revision, Run, SeriesKey, Source, Timestamp};
use crate::latest_quotes::{LatestQuote, StateRules};

/// Content of the mark file, for a person who opens it.
const UNFINISHED_TEXT: &str = "An import into this directory has not finished. Run 'silkrate import' again.\n";

/// A store that is being built. If it is dropped before [`Restore::finish`], the directory remains marked as an
/// unfinished import: it cannot be opened, and another [`Restore::begin`] starts again.
pub struct Restore {
    engine: Engine,
    reader: BlockReader,
    writer: BlockWriter,
    rules: StateRules,
    commit: Commit,
    last_ingest_time: Option<Timestamp>,
    /// The latest recorded or superseded time of all runs and revisions.
    newest_change: Option<Timestamp>,
    commits: Commits,
    /// Series ids by key.
    keys: BTreeMap<SeriesKey, u32>,
    polls: Polls,
    archive: Archive,
}

impl Restore {
    /// Checks that [`Restore::begin`] would accept a directory. A caller can use this before long preparations.
    ///
    /// # Errors
    /// `NotEmpty` if the directory has other contents; `Store` if it is in use or cannot be read.
    pub fn check_directory(directory: &Path) -> Result<(), RestoreError> {
        if directory.exists() { lock_empty(directory).map(drop) } else { Ok(()) }
    }

    /// Starts to build a store in a directory. The directory may be missing or empty. It may also contain an unfinished
    /// import or a store without commits, which are deleted. The newest commit of the new store is `commit`. The quotes
    /// get the states that result from `rules` at the recorded time of `commit`; a server with other rules updates the
    /// states in later commits. The call blocks on disk I/O.
    ///
    /// # Errors
    /// `NotEmpty` if the directory has other contents; `Store` if it is in use or cannot be written.
    pub fn begin(directory: &Path, rules: StateRules, commit: Commit) -> Result<Self, RestoreError> {
        let lock = prepare_directory(directory, UNFINISHED_TEXT)?;
        let engine = Engine::open_locked(directory, lock, 0, None)?;
        let writer =
            BlockWriter { batch: sled::Batch::default(), batch_bytes: 0, next_block_id: 1, digest: Digest::default() };
        Ok(Self {
            reader: engine.reader(0),
            engine,
            writer,
            rules,
            commit,
            last_ingest_time: None,
            newest_change: None,
            commits: Commits::default(),
            keys: BTreeMap::new(),
            polls: Polls::default(),
            archive: Archive::default(),
        })
    }

    /// Writes the recorded times of all commits, which must be in increasing order. Call this method first: the methods
    /// for series and held ticks look up recorded times in this list.
    ///
    /// # Errors
    /// `Commits` if the times are out of order or do not end with the newest commit; `Store` if writing fails; any
    /// error of the iterator.
    pub fn commits<E: From<RestoreError>>(
        &mut self,
        times: impl Iterator<Item = Result<Timestamp, E>>,
    ) -> Result<(), E> {
        let mut pending = Pending::new(COMMITS_ID);
        let (mut count, mut last) = (0_u64, Timestamp::MIN);
        for time in times {
            let time = time?;
            if time <= last {
                let problem = RestoreProblem::OutOfOrder { what: "commit", time, before: last };
                return Err(RestoreError::Commits(problem).into());
            }
            (count, last) = (count + 1, time);
            pending.push(time, &mut self.writer, &self.engine)?;
        }
        let Commit { sequence, recorded_time } = self.commit;
        if count != sequence || (count > 0 && last != recorded_time) {
            let problem = RestoreProblem::CommitCount { count, last, sequence, recorded_time };
            return Err(RestoreError::Commits(problem).into());
        }
        self.commits.segments = pending.finish(&mut self.writer, &self.engine)?;
        self.writer.write(&self.engine).map_err(RestoreError::from)?;
        Ok(())
    }

    /// Writes one series completely. Instants and runs must be sorted by observed time, revisions by superseded time.
    /// For each run, this method reads as many instants as the run has observations.
    ///
    /// # Errors
    /// `Series` if a part of the series is invalid; `Store` if writing fails; any error of an iterator.
    pub fn series<E: From<RestoreError>>(
        &mut self,
        key: &SeriesKey,
        collapse_window_us: i64,
        instants: impl Iterator<Item = Result<Timestamp, E>>,
        runs: impl Iterator<Item = Result<Run, E>>,
        revisions: impl Iterator<Item = Result<Revision, E>>,
    ) -> Result<(), E> {
        let id = u32::try_from(self.keys.len() + 1).map_err(|_| RestoreError::from(too_many_series()))?;
        let refuse = |problem| RestoreError::Series { series: Box::new(key.clone()), problem };
        if collapse_window_us < 0 {
            return Err(refuse(RestoreProblem::NegativeWindow(collapse_window_us)).into());
        }
        if self.keys.insert(key.clone(), id).is_some() {
            return Err(refuse(RestoreProblem::DuplicateSeries).into());
        }
        let mut series_writer = SeriesWriter {
            commits: &self.commits,
            writer: &mut self.writer,
            engine: &self.engine,
            reader: &self.reader,
            refuse: &refuse,
            series: Series::new(id, key.clone(), collapse_window_us),
            newest_change: self.newest_change,
        };
        series_writer.write_runs_and_instants(instants, runs)?;
        series_writer.write_revisions(revisions)?;
        let series = series_writer.series;
        self.newest_change = series_writer.newest_change;
        self.put_series(series)?;
        Ok(())
    }

    /// Adds the next poll span of a source. The spans of a source must be in order of time.
    ///
    /// # Errors
    /// `Polls` if the span is out of order or overlaps the previous span; `TooManyPolled` if the store has polls of the
    /// maximum number of sources.
    pub fn poll_span(&mut self, source: &Source, span: PollSpan) -> Result<(), RestoreError> {
        let first_poll_time = span.first_poll_time;
        let follows = self.polls.restore(source, span)?;
        if follows { Ok(()) } else { Err(RestoreError::Polls { of: source.clone(), first_poll_time }) }
    }

    /// Writes the record of a series after its blocks.
    fn put_series(&mut self, mut series: Series) -> Result<(), RestoreError> {
        // If the newest run is in the future, the latest quote is read from the blocks, so they must be written first.
        self.writer.write(&self.engine)?;
        let recent = Recent::default();
        let access = Access { reader: &self.reader, recent: &recent };
        let (quote, _) =
            latest_quote(&series, (&self.rules, self.archive.sources()), self.commit.recorded_time, &access)
                .map_err(|error| StoreError::of_block(&series.key, error))?;
        let changed_sequence = self.commit.sequence;
        series.quote = quote.map(|quote| Arc::new(LatestQuote { changed_sequence, ..quote }));
        let key = keys::series(series.id);
        let (value, crc) = keys::encode_checksummed(&key, &SeriesRecord::new(&series))?;
        self.writer.digest.add(crc);
        self.writer.batch.insert(&key, value);
        Ok(())
    }

    /// Sets the time of the last ingest. If the time is unknown, [`Restore::finish`] uses the latest recorded or
    /// superseded time of all runs and revisions. That time may be too early, because a commit that only adds
    /// observations to existing runs leaves no such time.
    pub fn set_last_ingest_time(&mut self, time: Option<Timestamp>) {
        self.last_ingest_time = time;
    }

    /// Makes all parts durable and removes the mark, so that the store can be opened. Returns the newest commit.
    ///
    /// # Errors
    /// Returns `Store` if writing fails. The directory then remains an unfinished import, unless the mark was already
    /// removed and the disk refuses to write it again.
    pub fn finish(mut self) -> Result<Commit, RestoreError> {
        let store_id = RandomState::new().build_hasher().finish();
        let path = self.engine.path().to_owned();
        Log::create(&path, store_id)?;
        let mut high_water_mark = HighWaterMark::create(&path, store_id)?;
        for (key, value) in self.polls.changes(&mut self.writer.digest)? {
            self.writer.put(&key, value.unwrap_or_default(), &self.engine)?;
        }
        for (key, value) in self.archive.changes(&mut self.writer.digest)? {
            self.writer.put(&key, value, &self.engine)?;
        }
        let meta = Meta {
            store_id,
            sequence: self.commit.sequence,
            recorded_us: self.commit.recorded_time.micros(),
            last_ingest_us: self.last_ingest_time.or(self.newest_change).map(Timestamp::micros),
            chain: 0,
            next_block_id: self.writer.next_block_id,
            digest: self.writer.digest,
            rules: Some(RulesRecord::new(&self.rules)),
        };
        put_meta(&mut self.writer.batch, &meta)?;
        self.writer.write(&self.engine)?;
        self.engine.sync()?;
        high_water_mark.write(self.commit.sequence)?;
        remove_mark(&path, UNFINISHED_TEXT)?;
        Ok(self.commit)
    }
}

/// Returns the error for a store in which all series ids are used.
fn too_many_series() -> StoreError {
    StoreError::Io {
        action: "cannot create a series".to_owned(),
        problem: format!("a store has at most {} series", u32::MAX),
        disk_full: false,
    }
}

/// Checks and writes the items of one series.
struct SeriesWriter<'a> {
    commits: &'a Commits,
    writer: &'a mut BlockWriter,
    engine: &'a Engine,
    reader: &'a BlockReader,
    refuse: &'a dyn Fn(RestoreProblem) -> RestoreError,
    series: Series,
    newest_change: Option<Timestamp>,
}

impl SeriesWriter<'_> {
    /// Checks and writes runs and instants. For each run, reads as many instants as the run has observations.
    fn write_runs_and_instants<E: From<RestoreError>>(
        &mut self,
        mut instants: impl Iterator<Item = Result<Timestamp, E>>,
        runs: impl Iterator<Item = Result<Run, E>>,
    ) -> Result<(), E> {
        let (mut pending_runs, mut pending_instants) = (Pending::new(self.series.id), Pending::new(self.series.id));
        let mut recorded = None;
        for run in runs {
            let run = run?;
            self.check_run(&run)?;
            // Neighbouring runs often have the same recorded time. It is looked up once.
            if recorded.replace(run.recorded_time) != Some(run.recorded_time) {
                self.check_recorded(run.recorded_time)?;
            }
            let mut last: Option<Timestamp> = None;
            for _ in 0..run.observation_count {
                let Some(time) = instants.next().transpose()? else {
                    return Err(self.timeline_mismatch(&run, last).into());
                };
                self.check_instant(&run, last, time)?;
                last = Some(time);
                pending_instants.push(time, self.writer, self.engine)?;
                self.series.totals.observation_count += 1;
            }
            if last != Some(run.last_observed_time) {
                return Err(self.timeline_mismatch(&run, last).into());
            }
            self.series.newest = Some(run.clone());
            self.series.totals.run_count += 1;
            pending_runs.push(run, self.writer, self.engine)?;
        }
        if let Some(time) = instants.next().transpose()? {
            return Err((self.refuse)(RestoreProblem::StrayInstant(time)).into());
        }
        self.series.runs = pending_runs.finish(self.writer, self.engine)?;
        self.series.instants = pending_instants.finish(self.writer, self.engine)?;
        Ok(())
    }

    /// Checks a run against the previous run, and updates the last move of the series.
    fn check_run(&mut self, run: &Run) -> Result<(), RestoreError> {
        let Series { newest, last_move, totals, collapse_window_us, .. } = &mut self.series;
        let first = run.first_observed_time;
        for time in [first, run.last_observed_time] {
            if !(Timestamp::OLDEST_OBSERVED..=Timestamp::MAX).contains(&time) {
                return Err((self.refuse)(RestoreProblem::ObservedTime(time)));
            }
        }
        let Some(newest) = newest else {
            *last_move = LastMove { since: first, before: None };
            *totals = Totals { first_observed_us: first.micros(), ..Totals::default() };
            return Ok(());
        };
        let before = newest.last_observed_time;
        if first <= before {
            return Err((self.refuse)(RestoreProblem::OutOfOrder { what: "run", time: first, before }));
        }
        if newest.absorbs(run.value, first.micros_since(before), *collapse_window_us) {
            return Err((self.refuse)(RestoreProblem::SplitRun(first)));
        }
        if !newest.value.rate.same_number(run.value.rate) {
            *last_move = LastMove { since: first, before: Some((before, newest.value.rate)) };
        }
        Ok(())
    }

    /// Checks the next instant of a run. `last` is the previous instant of the same run, if there is one.
    fn check_instant(&self, run: &Run, last: Option<Timestamp>, time: Timestamp) -> Result<(), RestoreError> {
        let first = run.first_observed_time;
        match last {
            None if time == first => Ok(()),
            None => Err(self.timeline_mismatch(run, Some(time))),
            Some(before) if time <= before => {
                Err((self.refuse)(RestoreProblem::OutOfOrder { what: "instant", time, before }))
            }
            Some(before) if time.micros_since(before) > self.series.collapse_window_us => {
                Err((self.refuse)(RestoreProblem::LongGap { first, time }))
            }
            Some(_) => Ok(()),
        }
    }

    fn timeline_mismatch(&self, run: &Run, found: Option<Timestamp>) -> RestoreError {
        (self.refuse)(RestoreProblem::TimelineMismatch {
            first: run.first_observed_time,
            last: run.last_observed_time,
            count: run.observation_count,
            found: found.unwrap_or(run.first_observed_time),
        })
    }

    /// Checks that a commit has this recorded time.
    fn check_recorded(&mut self, time: Timestamp) -> Result<(), RestoreError> {
        self.newest_change = self.newest_change.max(Some(time));
        match self.commits.contain(time, self.reader) {
            Ok(true) => Ok(()),
            Ok(false) => Err((self.refuse)(RestoreProblem::UnknownCommit(time))),
            Err(error) => Err(StoreError::of_commits(error).into()),
        }
    }

    /// Checks and writes the revisions.
    fn write_revisions<E: From<RestoreError>>(
        &mut self,
        revisions: impl Iterator<Item = Result<Revision, E>>,
    ) -> Result<(), E> {
        let mut pending = Pending::new(self.series.id);
        let mut before = Timestamp::MIN;
        for revision in revisions {
            let revision = revision?;
            let (recorded, superseded) = (revision.run.recorded_time, revision.superseded_time);
            if superseded < before {
                return Err(
                    (self.refuse)(RestoreProblem::OutOfOrder { what: "revision", time: superseded, before }).into()
                );
            }
            if recorded >= superseded {
                return Err((self.refuse)(RestoreProblem::SupersededTooEarly { recorded, superseded }).into());
            }
            if superseded != before {
                self.check_recorded(superseded)?;
            }
            self.check_recorded(recorded)?;
            before = superseded;
            self.series.totals.revision_count += 1;
            pending.push(revision, self.writer, self.engine)?;
        }
        self.series.revisions = pending.finish(self.writer, self.engine)?;
        Ok(())
    }
}

/// The recorded times of all commits.
#[derive(Default)]
struct Commits {
    segments: Segments<Timestamp>,
    recent: RecentBlocks<Timestamp>,
}

impl Commits {
    fn contain(&self, time: Timestamp, reader: &BlockReader) -> Result<bool, BlockError> {
        self.segments.contains(time, &Loader::new(reader, &self.recent))
    }
}

/// Collects blocks, index entries and other records in batches. The written data has no effect before the meta record
/// is written.
struct BlockWriter {
    batch: sled::Batch,
    batch_bytes: usize,
    next_block_id: u64,
    digest: Digest,
}

impl BlockWriter {
    /// Encodes items as blocks, adds the blocks and their index entries to the batch, and appends the index entries to
    /// `metas`.
    fn write_blocks<T: Item>(
        &mut self,
        series: u32,
        items: &[T],
        engine: &Engine,
        metas: &mut Vec<Arc<BlockMeta>>,
    ) -> Result<(), StoreError> {
        let blocks = encode_blocks(items, &mut self.next_block_id).map_err(|problem| StoreError::Io {
            action: "cannot encode a block".to_owned(),
            problem,
            disk_full: false,
        })?;
        for block in blocks {
            let key = keys::index(series, T::KIND as u8, block.meta.id);
            let (value, crc) = keys::encode_checksummed(&key, &block.meta)?;
            let bytes = block.columns.iter().map(Vec::len).sum::<usize>() + value.len();
            if self.batch_bytes + bytes > BATCH_BYTES_MAX {
                self.write(engine)?;
            }
            self.batch_bytes += bytes;
            put_columns(&mut self.batch, block.meta.id, &block.columns);
            self.batch.insert(&key, value);
            self.digest.add(crc);
            metas.push(Arc::new(block.meta));
        }
        Ok(())
    }

    /// Adds a checksummed value to the batch. The caller has already added its checksum to the digest.
    fn put(&mut self, key: &[u8], value: Vec<u8>, engine: &Engine) -> Result<(), StoreError> {
        if self.batch_bytes + value.len() > BATCH_BYTES_MAX {
            self.write(engine)?;
        }
        self.batch_bytes += value.len();
        self.batch.insert(key, value);
        Ok(())
    }

    /// Writes the batch.
    fn write(&mut self, engine: &Engine) -> Result<(), StoreError> {
        self.batch_bytes = 0;
        engine.apply(std::mem::take(&mut self.batch))
    }
}

/// Items of one kind of one series that do not fill a block yet, and the index entries of the blocks before them.
struct Pending<T> {
    series: u32,
    items: Vec<T>,
    metas: Vec<Arc<BlockMeta>>,
}

impl<T: Item> Pending<T> {
    fn new(series: u32) -> Self {
        Self { series, items: Vec::with_capacity(T::BLOCK_ITEMS_MAX), metas: Vec::new() }
    }

    fn push(&mut self, item: T, writer: &mut BlockWriter, engine: &Engine) -> Result<(), RestoreError> {
        self.items.push(item);
        if self.items.len() == T::BLOCK_ITEMS_MAX {
            writer.write_blocks(self.series, &self.items, engine, &mut self.metas)?;
            self.items.clear();
        }
        Ok(())
    }

    fn finish(mut self, writer: &mut BlockWriter, engine: &Engine) -> Result<Segments<T>, RestoreError> {
        if !self.items.is_empty() {
            writer.write_blocks(self.series, &self.items, engine, &mut self.metas)?;
        }
        Ok(Segments::of_blocks(self.metas))
    }
}
