//! Building a store from the parts of another: series, timeline, runs, revisions, commits and polls, recorded
//! times included.
//!
//! A file in the directory marks the import as unfinished from before the first byte of data until
//! after the last one is durable; taking it away is the one step that makes the store live. Building
//! elsewhere and renaming would do as well where it works: not over a directory that is a mount point
//! or lies on another file system than its neighbour. Since no store with the mark is ever opened to
//! serve, what is in it is nobody's, and the next import may begin over.
//!
//! **Invariants**: what is not sound by the rules that [`super::verify()`] checks does not become a
//! store; at most one block of each kind is in memory, besides what the index knows of the series
//! under way.

mod directory;
mod error;
mod quarantine;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;

use self::directory::{lock_empty, take_over, unmark};
pub use self::error::{RestoreError, RestoreProblem};

use super::block::{BlockError, BlockMeta, Item, encode_blocks};
use super::checkpoint::{BATCH_BYTES_MAX, put_columns, put_meta};
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

/// A store in the making. Dropped before [`Restore::finish`] it leaves a directory that is refused as
/// an unfinished import and that another [`Restore::begin`] begins over.
pub struct Restore {
    engine: Engine,
    reader: BlockReader,
    writer: BlockWriter,
    rules: StateRules,
    commit: Commit,
    last_ingest_time: Option<Timestamp>,
    /// The newest time at which anything was recorded or superseded.
    newest_change: Option<Timestamp>,
    commits: Commits,
    /// Ids by series.
    keys: BTreeMap<SeriesKey, u32>,
    polls: Polls,
}

impl Restore {
    /// Whether [`Restore::begin`] would take a directory, for who has much to do before it.
    ///
    /// # Errors
    /// `NotEmpty` or `Store`.
    pub fn check_directory(directory: &Path) -> Result<(), RestoreError> {
        if directory.exists() { lock_empty(directory).map(drop) } else { Ok(()) }
    }

    /// Begins a store in a directory that is not there, is empty, or holds a store without a commit or
    /// an unfinished import, which is removed. Its states are those of `rules` at `commit`; a server with other rules finds its
    /// own as time goes on. Blocks.
    ///
    /// # Errors
    /// `NotEmpty` or `Store`.
    pub fn begin(directory: &Path, rules: StateRules, commit: Commit) -> Result<Self, RestoreError> {
        let lock = take_over(directory)?;
        let engine = Engine::open_locked(directory, lock, 0, None)?;
        let writer =
            BlockWriter { batch: sled::Batch::default(), batch_bytes: 0, next_block_id: 1, digest: Digest::default() };
        Ok(Self {
            reader: engine.reader(),
            engine,
            writer,
            rules,
            commit,
            last_ingest_time: None,
            newest_change: None,
            commits: Commits::default(),
            keys: BTreeMap::new(),
            polls: Polls::default(),
        })
    }

    /// Takes the recorded times of all commits, in order. They come first, since every recorded time
    /// after them is looked up among them.
    ///
    /// # Errors
    /// `Commits`, `Store`, and whatever the iterator ends in.
    pub fn commits<E: From<RestoreError>>(
        &mut self,
        times: impl Iterator<Item = Result<Timestamp, E>>,
    ) -> Result<(), E> {
        let mut pending = Pending::new(COMMITS_ID);
        let (mut count, mut last) = (0_u64, Timestamp::MIN);
        for time in times {
            let time = time?;
            if time <= last {
                let problem = RestoreProblem::Order { what: "commit", time, before: last };
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

    /// Takes one series, whole: its instants and its runs in order of time, its revisions in order of
    /// superseded time. The iterators are read side by side.
    ///
    /// # Errors
    /// `Series`, `Store`, and whatever an iterator ends in.
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
            return Err(refuse(RestoreProblem::Window(collapse_window_us)).into());
        }
        if self.keys.insert(key.clone(), id).is_some() {
            return Err(refuse(RestoreProblem::Twice).into());
        }
        let mut part = SeriesPart {
            commits: &self.commits,
            writer: &mut self.writer,
            engine: &self.engine,
            reader: &self.reader,
            refuse: &refuse,
            series: Series::new(id, key.clone(), collapse_window_us),
            newest_change: self.newest_change,
        };
        part.runs_and_instants(instants, runs)?;
        part.revisions(revisions)?;
        let series = part.series;
        self.newest_change = part.newest_change;
        self.put_series(series)?;
        Ok(())
    }

    /// Takes the next poll span of a source, those of one source in order of time.
    ///
    /// # Errors
    /// `Polls` or `TooManyPolled`.
    pub fn poll_span(&mut self, of: &Source, span: PollSpan) -> Result<(), RestoreError> {
        let first_poll_time = span.first_poll_time;
        let follows = self.polls.restore(of, span)?;
        if follows { Ok(()) } else { Err(RestoreError::Polls { of: of.clone(), first_poll_time }) }
    }

    /// Writes the record of a series whose blocks are written.
    fn put_series(&mut self, mut series: Series) -> Result<(), RestoreError> {
        // The quote of a series whose newest run lies ahead is found in its blocks.
        self.writer.write(&self.engine)?;
        let recent = Recent::default();
        let access = Access { reader: &self.reader, recent: &recent };
        let (quote, _) = latest_quote(&series, &self.rules, self.commit.recorded_time, &access)
            .map_err(|error| StoreError::of_block(&series.key, error))?;
        let changed_sequence = self.commit.sequence;
        series.quote = quote.map(|quote| Arc::new(LatestQuote { changed_sequence, ..quote }));
        let key = keys::series(series.id);
        let (value, crc) = keys::seal_record(&key, &SeriesRecord::new(&series))?;
        self.writer.digest.add(crc);
        self.writer.batch.insert(&key, value);
        Ok(())
    }

    /// Says when ticks last came in, where that is known. Without it the newest commit stands in that
    /// left a trace: one that only confirmed runs left none.
    pub fn set_last_ingest_time(&mut self, time: Option<Timestamp>) {
        self.last_ingest_time = time;
    }

    /// Makes all of it durable and the store live.
    ///
    /// # Errors
    /// `Store`; then it is an unfinished import still, unless the disk did not even take the mark back.
    pub fn finish(mut self) -> Result<Commit, RestoreError> {
        let store_id = RandomState::new().build_hasher().finish();
        let path = self.engine.path().to_owned();
        Log::create(&path, store_id)?;
        let mut high_water_mark = HighWaterMark::create(&path, store_id)?;
        for (key, value) in self.polls.changes(&mut self.writer.digest)? {
            self.writer.put(&key, value.unwrap_or_default(), &self.engine)?;
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
        unmark(&path)?;
        Ok(self.commit)
    }
}

/// No id is left for one more.
fn too_many_series() -> StoreError {
    StoreError::Io {
        action: "cannot begin a series".to_owned(),
        problem: format!("a store has {} of them at most", u32::MAX),
        disk_full: false,
    }
}

/// The series under way.
struct SeriesPart<'a> {
    commits: &'a Commits,
    writer: &'a mut BlockWriter,
    engine: &'a Engine,
    reader: &'a BlockReader,
    refuse: &'a dyn Fn(RestoreProblem) -> RestoreError,
    series: Series,
    newest_change: Option<Timestamp>,
}

impl SeriesPart<'_> {
    /// Walks runs and timeline side by side: each run takes as many instants as it counts.
    fn runs_and_instants<E: From<RestoreError>>(
        &mut self,
        mut instants: impl Iterator<Item = Result<Timestamp, E>>,
        runs: impl Iterator<Item = Result<Run, E>>,
    ) -> Result<(), E> {
        let (mut sealed_runs, mut sealed_instants) = (Pending::new(self.series.id), Pending::new(self.series.id));
        let mut recorded = None;
        for run in runs {
            let run = run?;
            self.follow(&run)?;
            // Runs that came in together are often neighbours.
            if recorded.replace(run.recorded_time) != Some(run.recorded_time) {
                self.check_recorded(run.recorded_time)?;
            }
            let mut last: Option<Timestamp> = None;
            for _ in 0..run.observation_count {
                let Some(time) = instants.next().transpose()? else {
                    return Err(self.off_timeline(&run, last).into());
                };
                self.check_instant(&run, last, time)?;
                last = Some(time);
                sealed_instants.push(time, self.writer, self.engine)?;
                self.series.totals.observation_count += 1;
            }
            if last != Some(run.last_observed_time) {
                return Err(self.off_timeline(&run, last).into());
            }
            self.series.newest = Some(run.clone());
            self.series.totals.run_count += 1;
            sealed_runs.push(run, self.writer, self.engine)?;
        }
        if let Some(time) = instants.next().transpose()? {
            return Err((self.refuse)(RestoreProblem::Stray(time)).into());
        }
        self.series.runs = sealed_runs.finish(self.writer, self.engine)?;
        self.series.instants = sealed_instants.finish(self.writer, self.engine)?;
        Ok(())
    }

    /// Checks a run against the one before it, and keeps what is known of the whole series.
    fn follow(&mut self, run: &Run) -> Result<(), RestoreError> {
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
            return Err((self.refuse)(RestoreProblem::Order { what: "run", time: first, before }));
        }
        if newest.takes_in(run.value, first.micros_since(before), *collapse_window_us) {
            return Err((self.refuse)(RestoreProblem::Divided(first)));
        }
        if !newest.value.rate.same_number(run.value.rate) {
            *last_move = LastMove { since: first, before: Some((before, newest.value.rate)) };
        }
        Ok(())
    }

    fn check_instant(&self, run: &Run, last: Option<Timestamp>, time: Timestamp) -> Result<(), RestoreError> {
        let first = run.first_observed_time;
        match last {
            None if time == first => Ok(()),
            None => Err(self.off_timeline(run, Some(time))),
            Some(before) if time <= before => {
                Err((self.refuse)(RestoreProblem::Order { what: "instant", time, before }))
            }
            Some(before) if time.micros_since(before) > self.series.collapse_window_us => {
                Err((self.refuse)(RestoreProblem::Gap { first, time }))
            }
            Some(_) => Ok(()),
        }
    }

    fn off_timeline(&self, run: &Run, found: Option<Timestamp>) -> RestoreError {
        (self.refuse)(RestoreProblem::Timeline {
            first: run.first_observed_time,
            last: run.last_observed_time,
            count: run.observation_count,
            found: found.unwrap_or(run.first_observed_time),
        })
    }

    fn check_recorded(&mut self, time: Timestamp) -> Result<(), RestoreError> {
        self.newest_change = self.newest_change.max(Some(time));
        match self.commits.contain(time, self.reader) {
            Ok(true) => Ok(()),
            Ok(false) => Err((self.refuse)(RestoreProblem::NoCommit(time))),
            Err(error) => Err(StoreError::of_commits(error).into()),
        }
    }

    fn revisions<E: From<RestoreError>>(
        &mut self,
        revisions: impl Iterator<Item = Result<Revision, E>>,
    ) -> Result<(), E> {
        let mut sealed = Pending::new(self.series.id);
        let mut before = Timestamp::MIN;
        for revision in revisions {
            let revision = revision?;
            let (recorded, superseded) = (revision.run.recorded_time, revision.superseded_time);
            if superseded < before {
                return Err((self.refuse)(RestoreProblem::Order { what: "revision", time: superseded, before }).into());
            }
            if recorded >= superseded {
                return Err((self.refuse)(RestoreProblem::Superseded { recorded, superseded }).into());
            }
            if superseded != before {
                self.check_recorded(superseded)?;
            }
            self.check_recorded(recorded)?;
            before = superseded;
            self.series.totals.revision_count += 1;
            sealed.push(revision, self.writer, self.engine)?;
        }
        self.series.revisions = sealed.finish(self.writer, self.engine)?;
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

/// Blocks and their index entries on their way into the store, which nothing takes for live before the
/// store's own record is there.
struct BlockWriter {
    batch: sled::Batch,
    batch_bytes: usize,
    next_block_id: u64,
    digest: Digest,
}

impl BlockWriter {
    fn seal<T: Item>(
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
            let (value, crc) = keys::seal_record(&key, &block.meta)?;
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

    /// A small value whose checksum is in the digest already.
    fn put(&mut self, key: &[u8], value: Vec<u8>, engine: &Engine) -> Result<(), StoreError> {
        if self.batch_bytes + value.len() > BATCH_BYTES_MAX {
            self.write(engine)?;
        }
        self.batch_bytes += value.len();
        self.batch.insert(key, value);
        Ok(())
    }

    fn write(&mut self, engine: &Engine) -> Result<(), StoreError> {
        self.batch_bytes = 0;
        engine.apply(std::mem::take(&mut self.batch))
    }
}

/// Items of one kind of one series that make no whole block yet, and the blocks of those before them.
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
            writer.seal(self.series, &self.items, engine, &mut self.metas)?;
            self.items.clear();
        }
        Ok(())
    }

    fn finish(mut self, writer: &mut BlockWriter, engine: &Engine) -> Result<Segments<T>, RestoreError> {
        if !self.items.is_empty() {
            writer.seal(self.series, &self.items, engine, &mut self.metas)?;
        }
        Ok(Segments::of_blocks(self.metas))
    }
}
