//! The store. (skeleton)
use crate::board::Board;
use crate::domain::{Revision, Run, SeriesKey, Timestamp};
use std::sync::Arc;

/// What can go wrong below the services.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A second server.
    #[error("store {path} is in use by {holder}; stop it or choose another --db")]
    InUse { /// .
 path: String, /// .
 holder: String },
    /// A newer format.
    #[error("store {path} has format {found}, newer than the {supported} that this version reads; run a newer silkrate")]
    NewerFormat { /// .
 path: String, /// .
 found: u32, /// .
 supported: u32 },
    /// Bytes that do not decode, or a store behind its witness.
    #[error("store is damaged: {0}")]
    Damaged(String),
    /// A block that cannot be read; the range is that of observed times (both inclusive).
    #[error("{series}: the stored {what} of {from} to {to} cannot be read: {problem}")]
    DamagedBlock { /// .
 series: SeriesKey, /// runs, instants, revisions
 what: &'static str, /// .
 from: Timestamp, /// .
 to: Timestamp, /// .
 problem: String },
    /// Settings that do not fit the store.
    #[error("{0}")]
    Settings(String),
    /// I/O.
    #[error("{action}: {problem}")]
    Io { /// .
 action: String, /// .
 problem: String },
}

/// A commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commit {
    /// .
    pub sequence: u64,
    /// .
    pub recorded_time: Timestamp,
}

/// One commit as readers see it: immutable, cheap to hold (`Arc<View>`).
pub struct View {
    /// the newest visible commit
    pub commit: Commit,
    /// latest quotes
    pub board: Arc<Board>,
}

impl View {
    /// All series, sorted by key.
    pub fn series(&self) -> impl Iterator<Item = &Arc<SeriesView>> { std::iter::empty() }
    /// One of them.
    pub fn find(&self, _key: &SeriesKey) -> Option<&Arc<SeriesView>> { None }
    /// The newest commit at or before `known_time`, clamped to the newest visible one; None if all are later.
    /// Blocking (may read a block).
    pub fn commit_at(&self, _known_time: Timestamp) -> Result<Option<Commit>, StoreError> { Ok(None) }
}

/// Order of a scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanOrder { /// oldest first
 Ascending, /// newest first
 Descending }

/// One series at one commit. All reads here block (they read and decode blocks): call them on blocking threads.
pub struct SeriesView {}

/// Coverage and counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeriesTotals {
    /// .
    pub first_observed_time: Timestamp,
    /// .
    pub last_observed_time: Timestamp,
    /// .
    pub run_count: u64,
    /// .
    pub observation_count: u64,
    /// .
    pub revision_count: u64,
}

impl SeriesView {
    /// pair and source
    pub fn key(&self) -> &SeriesKey { unimplemented!() }
    /// stored with the series
    pub fn collapse_window_us(&self) -> i64 { unimplemented!() }
    /// The last run whose first observed time is at or before `time`, as known at `known` (recorded time of a commit;
    /// pass the view's own commit's recorded time, or later, for the newest knowledge).
    pub fn run_at(&self, _time: Timestamp, _known: Timestamp) -> Result<Option<Run>, StoreError> { unimplemented!() }
    /// Runs with `start <= first_observed_time < end`, as known at `known`, in `order`, in pieces of up to a few
    /// thousand runs (never empty).
    pub fn runs(self: &Arc<Self>, _start: Timestamp, _end: Timestamp, _known: Timestamp, _order: ScanOrder) -> Box<dyn Iterator<Item = Result<Vec<Run>, StoreError>> + Send> { unimplemented!() }
    /// Revisions with `start <= superseded_time < end` and superseded_time <= known, ordered by
    /// (superseded_time, first_observed_time), in pieces.
    pub fn revisions(self: &Arc<Self>, _start: Timestamp, _end: Timestamp, _known: Timestamp) -> Box<dyn Iterator<Item = Result<Vec<Revision>, StoreError>> + Send> { unimplemented!() }
    /// Coverage and counts as known at `known`; None if nothing was known then.
    pub fn totals(&self, _known: Timestamp) -> Result<Option<SeriesTotals>, StoreError> { unimplemented!() }
    /// Since when the rate of the run in force at `time` (as known at `known`) has held without a break of another
    /// rate, reported change and gaps ignored: (first observed time of the first such run, rate before it if any).
    pub fn rate_since(&self, _time: Timestamp, _known: Timestamp) -> Result<Option<(Timestamp, Option<crate::domain::Rate>)>, StoreError> { unimplemented!() }
}
