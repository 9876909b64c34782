//! The store: a commit log, heads in memory, and blocks in sled that checkpoints make of them.
//!
//! A commit appends its log entry and nothing else; it is visible and answered for once that is
//! durable. A checkpoint turns what changed in memory into blocks. Recovery reads the index and
//! replays the log after the last checkpoint. The byte layout stands in `docs/ARCHITECTURE.md`.
//!
//! **Invariants**: nothing visible is not durable; a reader's [`View`] never changes; a block that
//! does not decode is an error for its range and nothing else; only this module knows sled.

mod admission;
mod as_of;
mod block;
mod checkpoint;
mod closing;
mod digest;
mod engine;
mod error;
mod high_water_mark;
mod keys;
mod last_move;
mod log;
mod min_tree;
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
mod run_times_cache;
mod scan;
mod scan_order;
mod segments;
mod segments_summary;
mod series;
mod usage;
mod values;
mod verify;
mod view;
mod write_transaction;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

pub use admission::{Admitted, Decided, DecisionRefusal};
pub use as_of::SeriesTotals;
pub use engine::{DiskFault, DiskOperation};
pub use error::StoreError;
pub use polls::{PollRecord, PollRefused};
pub use quarantine::{Quarantine, QuarantineLimit};
pub use restore::{Restore, RestoreError, RestoreProblem};
pub use scan_order::ScanOrder;
pub use usage::disk_usage;
pub use verify::{VerifyReport, verify};
pub use view::{Commit, SeriesView, View};
pub use write_transaction::{UpsertError, Upserted, WriteTransaction};

use block::BlockMeta;
use digest::Digest;
use engine::Engine;
use high_water_mark::HighWaterMark;
use log::Log;
use polls::Polls;
use quarantine::Keeper;
use reader::BlockReader;
use revision_cache::RevisionIndexes;
use segments::{Opened, Segments};
use series::{Access, Recent, Series};

use crate::domain::{SeriesKey, Source, Timestamp};
use crate::latest_quotes::{LatestQuote, LatestQuotes, StateRules};

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Its directory; made if it is not there.
    pub directory: PathBuf,
    /// Collapse window of new series in microseconds, for sources without one of their own.
    pub collapse_window_default_us: i64,
    /// The same for single sources.
    pub collapse_windows_us: BTreeMap<Source, i64>,
    /// Collapse series anew whose stored window differs from the configured one, instead of
    /// refusing to start.
    pub recollapse: bool,
    /// How states are found.
    pub state_rules: StateRules,
    /// Size of the file that is freed when a full disk keeps the store from opening; 0 for none.
    pub reserve_bytes: u64,
    /// Most series that the store takes.
    pub series_count_max: usize,
    /// When to checkpoint.
    pub checkpoint: CheckpointLimits,
    /// Lets writes and syncs fail, for tests.
    pub disk_fault: Option<DiskFault>,
}

/// A checkpoint is due when any of these is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointLimits {
    /// Bytes of log since the last one.
    pub log_bytes: u64,
    /// Runs, instants and revisions in heads.
    pub head_items: usize,
    /// Blocks that late ticks opened.
    pub opened_blocks: usize,
}

impl Default for CheckpointLimits {
    fn default() -> Self {
        Self { log_bytes: 4 << 20, head_items: 400_000, opened_blocks: 256 }
    }
}

impl StoreOptions {
    /// Of a small store of a test.
    #[cfg(test)]
    pub(crate) fn of_test(directory: &std::path::Path) -> Self {
        Self {
            directory: directory.to_owned(),
            collapse_window_default_us: Timestamp::HOUR_US,
            collapse_windows_us: BTreeMap::new(),
            recollapse: false,
            state_rules: StateRules {
                stale_limit_default_us: Timestamp::HOUR_US,
                stale_limits_us: BTreeMap::new(),
                moving_window_us: Timestamp::DAY_US,
            },
            reserve_bytes: 0,
            series_count_max: 100,
            checkpoint: CheckpointLimits::default(),
            disk_fault: None,
        }
    }

    fn collapse_window_us(&self, source: &Source) -> i64 {
        self.collapse_windows_us.get(source).copied().unwrap_or(self.collapse_window_default_us)
    }
}

/// An open store: the writer's side. Readers take a [`View`].
#[expect(clippy::struct_field_names, reason = "the log, the witness and the meta record know the id by this name")]
pub struct Store {
    options: StoreOptions,
    engine: Engine,
    reader: BlockReader,
    recent: Recent,
    high_water_mark: HighWaterMark,
    store_id: u64,
    /// By id less one: ids count from 1.
    series: Vec<Series>,
    ids: HashMap<SeriesKey, u32>,
    /// Recorded times of all commits, in order: a commit's sequence is its place here.
    commits: Segments<Timestamp>,
    commit: Commit,
    last_ingest_time: Option<Timestamp>,
    /// Checksum of the last log entry.
    chain: u32,
    next_block_id: u64,
    digest: Digest,
    /// Ticks that were held, and what was decided of them.
    quarantine: Keeper,
    /// Checksum of each series' record as stored, by id less one.
    record_crcs: Vec<Option<u32>>,
    /// Series changed since the last checkpoint.
    changed: Vec<bool>,
    /// Blocks whose items were taken into memory since the last checkpoint.
    replaced: Opened,
    /// Key and checksum of the index entry of each live block, by block id.
    entries: HashMap<u64, ([u8; 14], u32)>,
    /// Blocks that no index entry names any more, kept for readers that still hold them.
    retired: Vec<Arc<BlockMeta>>,
    log: Log,
    /// What polls of sources found.
    polls: Polls,
    /// The rules that states are found by.
    rules: StateRules,
    /// The same as the log and the store's own record say; none if they do not yet.
    logged_rules: Option<StateRules>,
    /// By series: when time alone may next change its quote.
    due: Vec<Option<Timestamp>>,
    /// What readers of series see, by place in the order of keys.
    views: Vec<Arc<SeriesView>>,
    /// The indexes of revisions that readers have made.
    indexes: Arc<RevisionIndexes>,
}

/// The id under which the store keeps its own list of commits, as the instants of no series.
const COMMITS_ID: u32 = 0;

impl Store {
    /// The newest commit.
    pub fn newest_commit(&self) -> Commit {
        self.commit
    }

    /// The recorded time of a commit made at `now`: after every other, whatever the clock does.
    pub fn next_recorded_time(&self, now: Timestamp) -> Timestamp {
        now.max(self.commit.recorded_time.saturating_add_us(1))
    }

    /// The ticks that were held, and what was decided of them.
    pub fn quarantine(&self) -> &Quarantine {
        self.quarantine.list()
    }

    /// When time alone may next change a quote.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.iter().flatten().min().copied()
    }

    /// What readers are to see from now on.
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
            quarantine: self.quarantine.list().clone(),
            reader: self.reader.clone(),
        }
    }

    fn series_at(&self, id: u32) -> Option<&Series> {
        self.series.get((id as usize).checked_sub(1)?)
    }

    /// Finds when time alone may next change the quote of a series just read from disk.
    fn refresh_due(&mut self, id: u32) {
        let access = Access { reader: &self.reader, recent: &self.recent };
        let Some(series) = self.series_at(id) else { return };
        let last_commit = self.commit.recorded_time;
        let found = latest_quote(series, &self.rules, last_commit, &access).ok();
        // With other settings than those it was stored under, a quote may say something else now; the first commit looks
        // at it then, as at one that no time changes.
        let holds = |quote: &Option<LatestQuote>| says_same(quote.as_ref(), series.quote.as_deref());
        let due = found.filter(|(quote, _)| holds(quote)).and_then(|(_, due)| due);
        self.due[id as usize - 1] = due.or(Some(last_commit));
    }

    /// Makes what is in memory of a series what readers see next.
    fn refresh_view(&mut self, id: u32) {
        let Some(series) = self.series_at(id).cloned() else { return };
        let (reader, indexes) = (self.reader.clone(), Arc::clone(&self.indexes));
        let view = Arc::new(SeriesView::new(series, reader, self.commit.recorded_time, indexes));
        match self.views.binary_search_by(|other| other.key().cmp(view.key())) {
            Ok(at) => self.views[at] = view,
            Err(at) => self.views.insert(at, view),
        }
    }

    /// Finds the quote of a series at `now`, and when time alone may change it next. Says whether it
    /// changed. A damaged block leaves the quote as it was.
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
        let Ok((quote, due)) = latest_quote(series, &self.rules, now, &access) else {
            self.due[at] = None;
            return false;
        };
        self.due[at] = due;
        let changed = !says_same(quote.as_ref(), series.quote.as_deref());
        if changed {
            series.quote = quote.map(|quote| Arc::new(LatestQuote { changed_sequence: sequence, ..quote }));
        }
        changed
    }
}

/// Whether both quotes say the same, or neither is there.
fn says_same(one: Option<&LatestQuote>, other: Option<&LatestQuote>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.says_same(other),
        _ => false,
    }
}

/// The quote of a series at `now`, its changed sequence left at 0, and the first moment after `now`
/// at which it may be another.
fn latest_quote(
    series: &Series,
    rules: &StateRules,
    now: Timestamp,
    access: &Access<'_>,
) -> Result<(Option<LatestQuote>, Option<Timestamp>), block::BlockError> {
    let Some(newest) = &series.newest else { return Ok((None, None)) };
    let (run, last_move, next_run) = if newest.first_observed_time <= now {
        (Some(newest.clone()), series.last_move, None)
    } else {
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
        moved_time,
        previous_rate: last_move.before.map(|(_, rate)| rate),
        run,
        changed_sequence: 0,
    };
    Ok((Some(quote), due))
}
