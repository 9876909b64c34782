//! Queue, writer thread, group commit. (skeleton)
use crate::domain::{PublishedValue, SeriesKey, Timestamp};
use crate::store::{StoreError, View};
use std::sync::Arc;

/// What to do with a tick whose instant is known with another value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ConflictPolicy { /// .
 #[default] Refuse, /// .
 Revise }

/// Why a tick was refused; mirrors the proto enum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "skeleton")]
pub enum RefusalReason { InvalidPair, UnknownCurrency, InvalidSource, InvalidRate, InvalidReportedChange, InvalidTime, TimeTooOld, TimeTooFarAhead, Conflict, Ambiguous, DamagedRange, TooScattered, Truncated, TooManySeries }

/// A refused tick.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "skeleton")]
pub struct Refusal { pub index: u32, pub reason: RefusalReason, pub message: String, pub stored: Option<PublishedValue> }

/// One tick of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "skeleton")]
pub struct BatchTick { pub index: u32, pub observed_time: Timestamp, pub value: PublishedValue }

/// The ticks of one series, in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "skeleton")]
pub struct SeriesTicks { pub series: SeriesKey, pub ticks: Vec<BatchTick> }

/// A checked request: what is well formed in groups, what is not as refusals.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "skeleton")]
pub struct Batch { pub groups: Vec<SeriesTicks>, pub refusals: Vec<Refusal>, pub conflict_policy: ConflictPolicy, pub validate_only: bool }

/// Counts of an answer; the first five add up to the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "skeleton")]
pub struct Summary { pub new_run_count: u32, pub collapsed_count: u32, pub known_count: u32, pub revised_count: u32, pub refused_count: u32, pub late_count: u32 }

/// The answer: durable when it comes. Refusals sorted by index.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "skeleton")]
pub struct IngestReport { pub sequence: u64, pub recorded_time: Timestamp, pub summary: Summary, pub refusals: Vec<Refusal> }

/// Why a whole batch was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    /// .
    #[error("the ingest queue is full; try again in a moment")]
    QueueFull,
    /// .
    #[error("writing stopped after a failure: {0}; restart the server once the cause is gone")]
    Poisoned(String),
    /// .
    #[error("the server is shutting down")]
    Draining,
}

/// Handle of the writer thread. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {}

impl Ingest {
    /// Queues a batch and waits until it is durable.
    pub async fn submit(&self, _batch: Batch) -> Result<IngestReport, IngestError> { unimplemented!() }
    /// The newest visible commit.
    pub fn view(&self) -> Arc<View> { unimplemented!() }
    /// Why writing stopped, if it did.
    pub fn poisoned(&self) -> Option<String> { None }
}

/// A running store: opened, recovered, with its writer thread.
#[allow(missing_docs, reason = "skeleton")]
pub struct Running { pub ingest: Ingest }

/// How to open.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "skeleton")]
pub struct OpenOptions {
    pub db: std::path::PathBuf,
    /// collapse windows by source, and for all others
    pub collapse_window_default_us: i64,
    pub collapse_windows_us: std::collections::BTreeMap<String, i64>,
    pub state_rules: crate::board::StateRules,
    /// recollapse series whose stored window differs
    pub recollapse: bool,
    /// size of the reserved file, 0 for none
    pub reserve_bytes: u64,
    /// batches waiting in front of the writer
    pub queue_batches_max: usize,
    pub series_count_max: usize,
}

impl Running {
    /// Blocking.
    pub fn open(_options: OpenOptions, _clock: Arc<dyn crate::clock::Clock>) -> Result<Self, StoreError> { unimplemented!() }
    /// Takes no more batches, finishes those queued, checkpoints, closes. Blocking.
    pub fn close(self) -> Result<(), StoreError> { Ok(()) }
}
/// What a verify found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "skeleton")]
pub struct VerifyReport { pub sequence: u64, pub series_count: u64, pub run_count: u64, pub observation_count: u64, pub revision_count: u64, pub block_count: u64, pub problems: Vec<String> }
/// Opens the store in `db` (takes its lock), reads every block and checks every invariant; changes nothing that lasts. Blocking.
pub fn verify(_db: &std::path::Path) -> Result<VerifyReport, StoreError> { unimplemented!() }
