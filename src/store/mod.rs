//! The store: all series of a server, durable in one directory, with one writer and any number of readers.
//!
//! - The **commit log** makes a write durable. A commit appends one entry to the log, syncs the file, and writes
//!   nothing else. The commit becomes visible, and the writer answers its callers, only after the sync.
//! - A **block** holds a few thousand runs, observed instants or revisions of one series, encoded by column. Blocks are
//!   immutable and are stored in sled.
//! - The **index** has an entry for each block. The index is stored in sled, and all of its entries are also in memory.
//! - A **head** holds the newest items of a series in memory: those added since the last checkpoint.
//! - A **mutable segment** holds the decoded items of one block in memory. The writer decodes a block when a late tick
//!   changes it, and keeps the mutable segment until a slice or a checkpoint seals it.
//! - A **slice** encodes a few mutable segments as new blocks and writes their columns to sled, between commits.
//! - A **checkpoint** encodes heads and mutable segments as new blocks, writes them to sled together with the index,
//!   and then empties the log.
//! - A **view** ([`View`]) is an immutable snapshot of one commit. Readers use views; they never wait for the writer.
//! - **Recovery**, when a store is opened, reads the index from sled and replays the log entries after the last
//!   checkpoint.
//!
//! Where to start: [`Store`] is the writer's side, [`WriteTransaction`] makes a commit, `series` applies ticks to runs,
//! `segments` holds the items of a series, `checkpoint` and `recovery` move data between memory and disk.
//! `docs/STORAGE.md` specifies the byte layout.
//!
//! **Invariants**: visible data is durable; a [`View`] never changes; if a block cannot be decoded, only reads of its
//! time range fail; only this module uses sled.

mod admission;
mod archive;
mod archiving;
mod as_of;
mod backup;
mod block;
mod block_builder;
mod checkpoint;
mod closing;
mod digest;
mod engine;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod high_water_mark;
mod keys;
mod last_move;
mod log;
mod log_entry;
mod memory_only;
mod min_tree;
mod packed_runs;
mod polls;
mod quarantine;
mod reader;
mod recollapse;
mod records;
mod recovery;
mod restore;
mod revised_runs;
mod revision_cache;
mod revision_index;
mod rules;
mod run_cache;
mod scan;
mod segments;
mod segments_summary;
mod series;
mod series_count;
mod slices;
mod usage;
mod values;
mod verify;
mod view;
mod write_transaction;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use admission::{Admitted, Decided, DecisionRefusal};
pub use archive::{ArchiveRefusal, ArchivedSources};
pub use as_of::SeriesTotals;
pub use backup::{
    BackupPoint, BackupSource, FrameTail, IndexedBlock, LogFrame, LogFrames, Rebuild, RebuildError, RecordSet,
    RecordsError, TailFrames,
};
pub use checkpoint::Upkeep;
pub use engine::{DiskFault, DiskOperation};
pub(crate) use engine::{create_directory, sync_directory};
pub use error::StoreError;
pub use memory_only::memory_only;
pub use polls::{PollRecord, PollRefused};
pub use quarantine::{Quarantine, QuarantineLimit};
pub use restore::{Restore, RestoreError, RestoreProblem};
pub use usage::disk_usage;
pub use verify::{VerifyReport, verify};
pub use view::{Commit, SeriesView, View};
pub use write_transaction::{UpsertError, Upserted, WriteTransaction};

use archive::Archive;
use block::BlockMeta;
use digest::Digest;
use engine::Engine;
use high_water_mark::HighWaterMark;
use log::Log;
use polls::Polls;
use quarantine::QuarantineIndex;
use reader::BlockReader;
use revision_cache::RevisionIndexes;
use segments::{ReplacedBlocks, Segments};
use series::{Access, Recent, Series};
use series_count::CountedSeries;
use slices::UnindexedBlocks;

use crate::domain::{SeriesKey, Source, Timestamp};
use crate::latest_quotes::{LatestQuote, LatestQuotes, StateRules};

/// The settings of a store.
#[derive(Clone)]
pub struct StoreOptions {
    /// The directory of the store. It is created if it does not exist.
    pub directory: PathBuf,
    /// Default collapse window of new series, in microseconds.
    pub collapse_window_default_us: i64,
    /// Collapse windows of new series by source, in microseconds. They take precedence over the default.
    pub collapse_windows_us: BTreeMap<Source, i64>,
    /// What to do if the stored collapse window of a series differs from the configured one. If true, the series is
    /// collapsed again with the configured window. If false, the store is not opened.
    pub recollapse: bool,
    /// The rules that determine the state of a quote.
    pub state_rules: StateRules,
    /// Size of the reserve file, in bytes; 0 for no file. If a full disk prevents the store from opening, the file is
    /// deleted to free space.
    pub reserve_bytes: u64,
    /// Maximum size of the cache of packed blocks of runs, in bytes. Reads of single runs fill it.
    pub cache_bytes: u64,
    /// Maximum number of series.
    pub series_count_max: usize,
    /// The sources that the configuration names, and those that the server can follow. All other sources together hold
    /// only a part of the held ticks; if there are none, all sources are equal.
    pub configured_sources: Arc<BTreeSet<Source>>,
    /// The limits at which a checkpoint is due.
    pub checkpoint: CheckpointLimits,
    /// Makes writes and syncs fail, for tests.
    pub disk_fault: Option<DiskFault>,
}

/// The limits at which a checkpoint is due. Reaching one of them is enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointLimits {
    /// Bytes of log since the last checkpoint.
    pub log_bytes: u64,
    /// Runs, instants and revisions in the heads of all series.
    pub head_items: usize,
    /// Mutable segments of all series, heads excluded: blocks that were decoded because late ticks changed them. Beyond
    /// a quarter of this number, [`Store::upkeep`] asks for slices.
    pub mutable_segments: usize,
    /// Blocks that slices wrote since the last checkpoint. Their ticks are in the log, and a start decodes their items.
    pub sealed_blocks: usize,
}

impl Default for CheckpointLimits {
    fn default() -> Self {
        Self { log_bytes: 4 << 20, head_items: 400_000, mutable_segments: 256, sealed_blocks: 512 }
    }
}

impl StoreOptions {
    /// Options that open an existing store to read it, without changing it.
    pub(crate) fn unchanging(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            collapse_window_default_us: 0,
            collapse_windows_us: BTreeMap::new(),
            recollapse: false,
            state_rules: StateRules::uniform(i64::MAX, 0),
            reserve_bytes: 0,
            cache_bytes: 64 << 20,
            series_count_max: usize::MAX,
            configured_sources: Arc::default(),
            checkpoint: CheckpointLimits::default(),
            disk_fault: None,
        }
    }

    /// Options of a small store for a test.
    #[cfg(test)]
    pub(crate) fn of_test(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            collapse_window_default_us: Timestamp::HOUR_US,
            collapse_windows_us: BTreeMap::new(),
            recollapse: false,
            state_rules: StateRules::uniform(Timestamp::HOUR_US, Timestamp::DAY_US),
            reserve_bytes: 0,
            cache_bytes: 64 << 20,
            series_count_max: 100,
            configured_sources: Arc::default(),
            checkpoint: CheckpointLimits::default(),
            disk_fault: None,
        }
    }

    fn collapse_window_us(&self, source: &Source) -> i64 {
        self.collapse_windows_us.get(source).copied().unwrap_or(self.collapse_window_default_us)
    }
}

/// An open store: the writer's side. Readers use a [`View`].
#[expect(clippy::struct_field_names, reason = "the log, the high-water mark and the meta record use the name store_id")]
pub struct Store {
    options: StoreOptions,
    engine: Engine,
    reader: BlockReader,
    recent: Recent,
    high_water_mark: HighWaterMark,
    store_id: u64,
    /// All series. The series with id `n` is at index `n - 1`; ids count from 1.
    series: Vec<Series>,
    ids: HashMap<SeriesKey, u32>,
    /// Recorded times of all commits, ascending. The commit with sequence `n` is item `n`, counted from 1.
    commits: Segments<Timestamp>,
    commit: Commit,
    last_ingest_time: Option<Timestamp>,
    /// Checksum of the last log entry. The next entry repeats it, which chains the entries.
    chain: u32,
    next_block_id: u64,
    digest: Digest,
    /// Held ticks and the decisions about them.
    quarantine: QuarantineIndex,
    /// Checksum of the stored record of each series, at index `id - 1`; `None` if no record is stored yet.
    record_crcs: Vec<Option<u32>>,
    /// Whether a series changed since the last checkpoint, at index `id - 1`.
    changed: Vec<bool>,
    /// Blocks that mutable segments replaced in memory since the last checkpoint.
    replaced: ReplacedBlocks,
    /// Blocks that slices wrote since the last checkpoint.
    unindexed: UnindexedBlocks,
    /// Key and checksum of each index entry, by block id.
    entries: HashMap<u64, ([u8; 14], u32)>,
    /// Blocks without an index entry, kept because older views may still read them.
    retired: Vec<Arc<BlockMeta>>,
    log: Log,
    /// Keeps the frames of new commits for backups.
    frame_tail: Option<Arc<FrameTail>>,
    /// Results of polls, by source.
    polls: Polls,
    /// Decisions to archive and unarchive sources.
    archive: Archive,
    /// The series that count towards the maximum.
    counted: CountedSeries,
    /// The rules that determine the state of a quote.
    rules: StateRules,
    /// The rules last written to the log or to the meta record; `None` if none were written yet.
    logged_rules: Option<StateRules>,
    /// The next time at which the quote of a series may change without a new tick, at index `id - 1`.
    due: Vec<Option<Timestamp>>,
    /// The current view of each series, sorted by key.
    views: Vec<Arc<SeriesView>>,
    /// Cache of revision indexes, shared with readers.
    indexes: Arc<RevisionIndexes>,
}

/// The series id under which the store keeps its list of commits. The recorded times of the commits are the instants of
/// this series.
const COMMITS_ID: u32 = 0;

impl Store {
    /// Returns the newest commit.
    pub fn newest_commit(&self) -> Commit {
        self.commit
    }

    /// Returns the recorded time of a commit made at `now`. It is later than the recorded time of the newest commit,
    /// even if the clock went back.
    pub fn next_recorded_time(&self, now: Timestamp) -> Timestamp {
        now.max(self.commit.recorded_time.saturating_add_us(1))
    }

    /// Returns the held ticks and the decisions about them.
    pub fn quarantine(&self) -> &Quarantine {
        self.quarantine.list()
    }

    /// Returns the next time at which a quote may change without a new tick.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.iter().flatten().min().copied()
    }

    /// Makes a view of the newest commit.
    pub fn view(&self) -> View {
        let quotes: Vec<Arc<LatestQuote>> = self.views.iter().filter_map(|view| view.series.quote.clone()).collect();
        View {
            commit: self.commit,
            latest_quotes: Arc::new(LatestQuotes {
                sequence: self.commit.sequence,
                recorded_time: self.commit.recorded_time,
                last_ingest_time: self.last_ingest_time,
                quotes,
            }),
            series: self.views.clone(),
            commits: self.commits.clone(),
            polls: self.polls.records(),
            archived: self.archive.sources().clone(),
            quarantine: self.quarantine.list().clone(),
            reader: self.reader.clone(),
        }
    }

    fn series_at(&self, id: u32) -> Option<&Series> {
        self.series.get((id as usize).checked_sub(1)?)
    }

    /// Computes the next time at which the quote of a series may change without a new tick. Recovery calls this
    /// function for each series, and again if the state rules change.
    fn refresh_due(&mut self, id: u32) {
        let access = Access { reader: &self.reader, recent: &self.recent };
        let Some(series) = self.series_at(id) else { return };
        let last_commit = self.commit.recorded_time;
        let found = latest_quote(series, (&self.rules, self.archive.sources()), last_commit, &access).ok();
        // If the state rules differ from the rules of the stored quote, the quote may be different now. The series is
        // then due at once, so that the first commit computes its quote. A series is also due at once if its quote
        // cannot be computed, or has no next change.
        let is_current = |quote: &Option<LatestQuote>| is_same_quote(quote.as_ref(), series.quote.as_deref());
        let due = found.filter(|(quote, _)| is_current(quote)).and_then(|(_, due)| due);
        self.due[id as usize - 1] = due.or(Some(last_commit));
    }

    /// Updates the view of a series to its state in memory. Readers see it in the next [`View`].
    fn refresh_view(&mut self, id: u32) {
        let Some(series) = self.series_at(id).cloned() else { return };
        let (reader, indexes) = (self.reader.clone(), Arc::clone(&self.indexes));
        let view = Arc::new(SeriesView::new(series, reader, self.commit.recorded_time, indexes));
        match self.views.binary_search_by(|other| other.key().cmp(view.key())) {
            Ok(at) => self.views[at] = view,
            Err(at) => self.views.insert(at, view),
        }
    }

    /// Computes the quote of a series at `now`, and the next time at which it may change without a new tick. Returns
    /// true if the quote changed. If a block is damaged, the quote does not change.
    fn refresh_quote(&mut self, id: u32, now: Timestamp, sequence: u64) -> bool {
        let access = Access { reader: &self.reader, recent: &self.recent };
        let Some(at) = (id as usize).checked_sub(1) else { return false };
        let Some(series) = self.series.get_mut(at) else { return false };
        if series.last_move_is_unknown()
            && let Some(newest) = series.newest.clone()
            && let Ok(last_move) = series.last_move_of(&newest, &access)
        {
            series.last_move = last_move;
        }
        let Ok((quote, due)) = latest_quote(series, (&self.rules, self.archive.sources()), now, &access) else {
            self.due[at] = None;
            return false;
        };
        self.due[at] = due;
        let changed = !is_same_quote(quote.as_ref(), series.quote.as_deref());
        if changed {
            series.quote = quote.map(|quote| Arc::new(LatestQuote { changed_sequence: sequence, ..quote }));
        }
        changed
    }
}

/// Returns true if both quotes are equal except for the sequence at which they changed, or if both are absent.
fn is_same_quote(one: Option<&LatestQuote>, other: Option<&LatestQuote>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.equals_ignoring_sequence(other),
        _ => false,
    }
}

/// Computes the quote of a series at `now`, and the first time after `now` at which the quote may be different. The
/// quote's `changed_sequence` is 0; the caller sets it.
fn latest_quote(
    series: &Series,
    (rules, archived): (&StateRules, &ArchivedSources),
    now: Timestamp,
    access: &Access<'_>,
) -> Result<(Option<LatestQuote>, Option<Timestamp>), block::BlockError> {
    let Some(newest) = &series.newest else { return Ok((None, None)) };
    let (run, last_move, next_run) = if newest.first_observed_time <= now {
        (Some(newest.clone()), series.last_move, None)
    } else {
        // The newest run begins after `now`: an earlier run is in force.
        let run = series.runs.at_or_before(now, &access.runs())?;
        let last_move = match &run {
            Some(run) => series.last_move_of(run, access)?,
            None => series.last_move,
        };
        let next = series.runs.after(now, &access.runs())?;
        (run, last_move, next.map(|run| run.first_observed_time))
    };
    let Some(run) = run else { return Ok((None, next_run)) };
    let key = &*series.key;
    let moved_time = last_move.before.map(|_| last_move.since);
    let state = rules.state(key, &run, moved_time, last_move.since, now);
    let due = [rules.next_change(key, &run, moved_time, last_move.since, now), next_run].into_iter().flatten().min();
    let quote = LatestQuote {
        series: key.clone(),
        stale_time: rules.stale_time(key, &run),
        state,
        is_archived: archived.is_archived(&key.source, now),
        moved_time,
        previous_rate: last_move.before.map(|(_, rate)| rate),
        run,
        changed_sequence: 0,
    };
    Ok((Some(quote), due))
}
