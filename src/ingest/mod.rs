//! Taking ticks in: a bounded queue, and one writer thread that makes a commit of all that waits.
//!
//! **Invariants**: one thread writes; an answer comes after what it says is durable and visible;
//! after a failed write or sync nothing is written until the server is started again.

mod apply;
mod bank_table;
pub mod batch;
mod fan_out;
mod page;
mod quarantine;
mod writer;

pub use fan_out::FanOut;
pub use page::{PageBatch, advise_time};
pub use quarantine::{DecisionReport, DecisionRequest, QuarantineRules};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::domain::{Poll, PublishedValue, Rate, RatioThreshold, SeriesKey, Timestamp};
use crate::latest_quotes::LatestQuotes;
use crate::metrics::IngestMetrics;
use crate::store::{PollRefused, Store, StoreError, StoreOptions, View};

/// What to do with a tick whose instant is known with another value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ConflictPolicy {
    /// Refuse it and name the stored value.
    #[default]
    Refuse,
    /// Replace the stored value.
    Revise,
}

/// Why a tick was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub enum RefusalReason {
    /// Not two different currencies around a slash.
    InvalidPair,
    /// A currency that is not served.
    UnknownCurrency,
    /// Not a slug.
    InvalidSource,
    /// Not a positive decimal within the limits of digits.
    InvalidRate,
    /// Not a decimal with an optional sign.
    InvalidReportedChange,
    /// No time, or one finer than a microsecond.
    InvalidTime,
    /// Before 1990.
    TimeTooOld,
    /// Further ahead than the setting allows.
    TimeTooFarAhead,
    /// The instant is known with another value.
    Conflict,
    /// The batch gives one instant different values.
    Ambiguous,
    /// The stored range that the tick falls into cannot be read.
    DamagedRange,
    /// The commit touches too many old blocks at once.
    TooScattered,
    /// A quote cut off at the end of a page.
    Truncated,
    /// The store has no room for one more series.
    TooManySeries,
    /// It would be held, and there is no room for one more held tick.
    QuarantineFull,
}

impl RefusalReason {
    /// Its name in metrics.
    const fn label(self) -> &'static str {
        match self {
            Self::InvalidPair => "invalid_pair",
            Self::UnknownCurrency => "unknown_currency",
            Self::InvalidSource => "invalid_source",
            Self::InvalidRate => "invalid_rate",
            Self::InvalidReportedChange => "invalid_reported_change",
            Self::InvalidTime => "invalid_time",
            Self::TimeTooOld => "time_too_old",
            Self::TimeTooFarAhead => "time_too_far_ahead",
            Self::Conflict => "conflict",
            Self::Ambiguous => "ambiguous",
            Self::DamagedRange => "damaged_range",
            Self::TooScattered => "too_scattered",
            Self::Truncated => "truncated",
            Self::TooManySeries => "too_many_series",
            Self::QuarantineFull => "quarantine_full",
        }
    }
}

/// A refused tick.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Of the tick in its batch, from 0.
    pub index: u32,
    /// Why.
    pub reason: RefusalReason,
    /// Names the field, the value and the remedy.
    pub message: String,
    /// What is stored at that instant, for a conflict.
    pub stored: Option<PublishedValue>,
}

/// One well-formed tick of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchTick {
    /// Its place in the batch, from 0.
    pub index: u32,
    /// When the source showed it.
    pub observed_time: Timestamp,
    /// What it showed.
    pub value: PublishedValue,
}

/// The ticks of one series, in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeriesTicks {
    /// Whose.
    pub series: SeriesKey,
    /// At least one.
    pub ticks: Vec<BatchTick>,
    /// Rates as many times apart from the rate in force or more are held; none holds nothing.
    pub quarantine_factor: Option<RatioThreshold>,
}

/// A checked request: well-formed ticks by series, each series once, and the rest as refusals.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    /// What may go in.
    pub groups: Vec<SeriesTicks>,
    /// What may not.
    pub refusals: Vec<Refusal>,
    /// For instants known with another value.
    pub conflict_policy: ConflictPolicy,
    /// Answer as if it were stored, and store nothing.
    pub validate_only: bool,
}

impl Batch {
    /// Refused ones too: they wait for the writer like the others, and take more room.
    fn tick_count(&self) -> usize {
        self.groups.iter().map(|group| group.ticks.len()).sum::<usize>() + self.refusals.len()
    }
}

/// What became of a batch; all but the last add up to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Began a run.
    pub new_run_count: u32,
    /// Joined a run.
    pub collapsed_count: u32,
    /// Were known.
    pub known_count: u32,
    /// Replaced another value.
    pub revised_count: u32,
    /// Were refused.
    pub refused_count: u32,
    /// Are held, now or since before, or were discarded before.
    pub quarantined_count: u32,
    /// Of those that changed something: older than the newest of their series when applied.
    pub late_count: u32,
}

/// A tick that is held, now or since before, or was discarded before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Of the tick in its batch, from 0.
    pub index: u32,
    /// In the quarantine; none where nothing is stored.
    pub id: Option<u64>,
    /// Whether it was discarded before.
    pub is_discarded: bool,
    /// The rate at its place when it came in first, which it lies too far from.
    pub rate_in_force: Rate,
}

/// The answer to a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IngestReport {
    /// Of the commit, or of the newest one where nothing changed.
    pub sequence: u64,
    /// Of that commit.
    pub recorded_time: Timestamp,
    /// Counts.
    pub summary: Summary,
    /// By index.
    pub refusals: Vec<Refusal>,
    /// By index.
    pub held: Vec<Held>,
}

/// Why a whole batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IngestError {
    /// Too much is waiting already.
    #[error("the ingest queue is full; try again in a moment")]
    QueueFull,
    /// A write or sync failed.
    #[error("writing stopped after a failure: {0}; restart the server once its cause is gone")]
    Poisoned(String),
    /// The server is shutting down.
    #[error("the server is shutting down; try again once it is back")]
    Draining,
    /// What a poll found is not kept.
    #[error(transparent)]
    Poll(#[from] PollRefused),
}

/// How much may wait in front of the writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueLimits {
    /// Batches.
    pub batches_max: usize,
    /// Ticks of all batches together, refused ones included.
    pub ticks_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { batches_max: 256, ticks_max: 2_000_000 }
    }
}

enum Message {
    Batch(Box<Pending>),
    Poll(PendingPoll),
    Decide(Box<PendingDecision>),
    /// Look at the clock.
    Poke,
    Close,
}

struct Pending {
    batch: Batch,
    answer: oneshot::Sender<Result<IngestReport, IngestError>>,
}

struct PendingPoll {
    poll: Poll,
    answer: oneshot::Sender<Result<(), IngestError>>,
}

struct PendingDecision {
    request: DecisionRequest,
    answer: oneshot::Sender<Result<DecisionReport, IngestError>>,
}

struct Shared {
    view: ArcSwap<View>,
    /// Copied for each watcher.
    latest_quotes_updates: watch::Receiver<Arc<LatestQuotes>>,
    draining: AtomicBool,
    poisoned: std::sync::OnceLock<String>,
    queued_ticks: AtomicUsize,
    limits: QueueLimits,
    metrics: IngestMetrics,
}

/// A handle of the writer, for those who bring ticks and those who read. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    queue: crossbeam_channel::Sender<Message>,
    shared: Arc<Shared>,
}

impl Ingest {
    /// Queues a batch and waits until what it changed is durable and visible.
    ///
    /// Dropping the future does not take the batch back.
    ///
    /// # Errors
    /// [`IngestError`]; with `Poisoned` the batch may or may not be there after a restart.
    pub async fn submit(&self, batch: Batch) -> Result<IngestReport, IngestError> {
        self.check_open()?;
        let ticks = batch.tick_count();
        let queued = self.shared.queued_ticks.fetch_add(ticks, Ordering::AcqRel);
        // A batch over the limit by itself may still go in when nothing else waits.
        if queued > 0 && queued + ticks > self.shared.limits.ticks_max {
            self.shared.queued_ticks.fetch_sub(ticks, Ordering::AcqRel);
            return Err(IngestError::QueueFull);
        }
        let (answer, answered) = oneshot::channel();
        if let Err(error) = self.queue(Message::Batch(Box::new(Pending { batch, answer }))) {
            self.shared.queued_ticks.fetch_sub(ticks, Ordering::AcqRel);
            return Err(error);
        }
        answered.await.unwrap_or_else(|_| Err(self.closed()))
    }

    /// Records what a poll of a source found, and waits until that is durable and visible. It joins a commit of what else
    /// waits; a commit of polls alone moves the sequence, and says nothing of ticks.
    ///
    /// # Errors
    /// [`IngestError`].
    pub async fn record_poll(&self, poll: Poll) -> Result<(), IngestError> {
        self.check_open()?;
        let (answer, answered) = oneshot::channel();
        self.queue(Message::Poll(PendingPoll { poll, answer }))?;
        answered.await.unwrap_or_else(|_| Err(self.closed()))
    }

    /// Queues decisions about held ticks and waits until they are durable and visible, as one commit.
    ///
    /// # Errors
    /// As [`Ingest::submit`].
    pub async fn decide(&self, request: DecisionRequest) -> Result<DecisionReport, IngestError> {
        self.check_open()?;
        let (answer, answered) = oneshot::channel();
        self.queue(Message::Decide(Box::new(PendingDecision { request, answer })))?;
        answered.await.unwrap_or_else(|_| Err(self.closed()))
    }

    fn queue(&self, message: Message) -> Result<(), IngestError> {
        let full_or_closed = |full: bool| if full { IngestError::QueueFull } else { self.closed() };
        self.queue.try_send(message).map_err(|error| full_or_closed(error.is_full()))
    }

    fn check_open(&self) -> Result<(), IngestError> {
        if let Some(cause) = self.poisoned() {
            return Err(IngestError::Poisoned(cause));
        }
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(IngestError::Draining);
        }
        Ok(())
    }

    /// Why the writer takes nothing any more, once it does not.
    pub fn closed(&self) -> IngestError {
        self.poisoned().map_or(IngestError::Draining, IngestError::Poisoned)
    }

    /// The newest visible commit.
    pub fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// The latest quotes of the newest commit, each time there is one, commits by time alone included; who waits on it is
    /// woken by the [`FanOut`] that [`Running::open`] gave, and may see a commit a moment after [`Ingest::view`] has it.
    /// It ends when the server stops, or when writing has: [`Ingest::closed`] says which.
    pub fn watch_latest_quotes(&self) -> watch::Receiver<Arc<LatestQuotes>> {
        self.shared.latest_quotes_updates.clone()
    }

    /// What is counted of taking ticks in.
    pub fn metrics(&self) -> IngestMetrics {
        self.shared.metrics.queued(self.shared.queued_ticks.load(Ordering::Relaxed));
        self.shared.metrics.clone()
    }

    /// Why writing stopped, if it did.
    pub fn poisoned(&self) -> Option<String> {
        self.shared.poisoned.get().cloned()
    }

    /// Lets the writer look at its clock now instead of when time is next due to change a quote.
    pub fn poke(&self) {
        // A full queue makes it look anyway.
        let _ = self.queue.try_send(Message::Poke);
    }
}

/// An open store with its writer thread.
pub struct Running {
    ingest: Ingest,
    writer: JoinHandle<Result<(), StoreError>>,
}

impl Running {
    /// Opens the store and starts the writer; quotes that time alone has changed while the store was
    /// closed are brought up to date first. Until the [`FanOut`] runs, nobody who watches is woken. Blocks.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub fn open(
        options: StoreOptions,
        limits: QueueLimits,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, FanOut), StoreError> {
        let mut store = Store::open(options, clock.now())?;
        store.begin(clock.now()).commit()?;
        let (queue, waiting) = crossbeam_channel::bounded(limits.batches_max);
        let view = store.view();
        let (watchers, fan_out, latest_quotes_updates) = FanOut::new(&view.latest_quotes);
        let shared = Arc::new(Shared {
            view: ArcSwap::from_pointee(view),
            latest_quotes_updates,
            draining: AtomicBool::new(false),
            poisoned: std::sync::OnceLock::new(),
            queued_ticks: AtomicUsize::new(0),
            limits,
            metrics: IngestMetrics::default(),
        });
        let writer = writer::start(store, waiting, Arc::clone(&shared), watchers, clock)
            .map_err(|error| StoreError::io("cannot start the writer thread", &error))?;
        Ok((Self { ingest: Ingest { queue, shared }, writer }, fan_out))
    }

    /// The handle to bring ticks and to read.
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// Takes no more batches, finishes those that wait, checkpoints and closes. Blocks.
    ///
    /// # Errors
    /// What stopped the writer earlier, or the checkpoint now.
    pub fn close(self) -> Result<(), StoreError> {
        self.ingest.shared.draining.store(true, Ordering::Release);
        // The writer is gone already if it panicked; then joining says so.
        let _ = self.ingest.queue.send(Message::Close);
        self.writer.join().unwrap_or_else(|_| {
            Err(StoreError::Io {
                action: "cannot close the store".to_owned(),
                problem: "the writer thread panicked".to_owned(),
                disk_full: false,
            })
        })
    }
}
