//! Ingest of ticks: a bounded queue, and one writer thread with group commit.
//!
//! **Invariants**: only the writer thread writes to the store. A response is sent after its changes are durable and
//! visible. After a failed write or sync nothing is written until the server is restarted.

mod apply;
mod archive;
mod backup;
mod bank_table;
pub mod batch;
mod fan_out;
mod group;
mod new_series;
mod page;
mod quarantine;
mod queue_share;
mod writer;

pub use archive::{ArchiveError, ArchiveReport, ArchiveRequest};
pub use backup::{BackupPointError, KeptFrom};
pub use fan_out::FanOut;
pub use new_series::NewSeriesLimits;
pub use page::{PageBatch, advise_time};
pub use quarantine::{DecisionReport, DecisionRequest, QuarantineRules};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use queue_share::{QueueShare, QueueShares};

use crate::clock::Clock;
use crate::domain::{Poll, PublishedValue, Rate, RatioThreshold, SeriesKey, Timestamp};
use crate::latest_quotes::LatestQuotes;
use crate::metrics::IngestMetrics;
use crate::store::{FrameTail, PollRefused, Store, StoreError, StoreOptions, View};

/// What to do with a tick if another value is stored at its instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ConflictPolicy {
    /// Refuse the tick, and return the stored value.
    #[default]
    Refuse,
    /// Replace the stored value.
    Revise,
}

/// Why a tick was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub enum RefusalReason {
    /// The pair is not two different currencies with a slash between them.
    InvalidPair,
    /// A currency of the pair is not served.
    UnknownCurrency,
    /// The source is not a slug.
    InvalidSource,
    /// The rate is not a positive decimal, or has too many digits.
    InvalidRate,
    /// The reported change is not a decimal with an optional sign, or has too many digits.
    InvalidReportedChange,
    /// The observed time is missing, or is finer than a microsecond.
    InvalidTime,
    /// The observed time is before 1990.
    TimeTooOld,
    /// The observed time is further ahead than the setting allows.
    TimeTooFarAhead,
    /// Another value is stored at the instant of the tick.
    Conflict,
    /// The batch has different values for the instant of the tick.
    Ambiguous,
    /// The stored range at the observed time of the tick cannot be read.
    DamagedRange,
    /// The commit touches too many old blocks at once.
    TooScattered,
    /// The page ends inside the quote.
    Truncated,
    /// The store already has the maximum number of series.
    TooManySeries,
    /// The tick must be held in quarantine, and the quarantine is full.
    QuarantineFull,
    /// The caller has created the maximum number of new series or new sources of a day.
    CallerLimit,
}

impl RefusalReason {
    /// Returns the value of the label `reason` in metrics.
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
            Self::CallerLimit => "caller_limit",
        }
    }
}

/// A refused tick.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Index of the tick in its batch, from 0.
    pub index: u32,
    /// Why the tick was refused.
    pub reason: RefusalReason,
    /// Message that names the field, the value and the remedy; empty beyond [`batch::NAMED_REFUSALS_MAX`].
    pub message: String,
    /// The value stored at the instant, if the reason is a conflict.
    pub stored: Option<PublishedValue>,
}

/// One well-formed tick of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchTick {
    /// Index of the tick in its batch, from 0.
    pub index: u32,
    /// When the source showed the value.
    pub observed_time: Timestamp,
    /// The value that the source showed.
    pub value: PublishedValue,
}

/// The ticks of one series in a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeriesTicks {
    /// The series of the ticks.
    pub series: SeriesKey,
    /// Ticks in the order of the request; at least one.
    pub ticks: Vec<BatchTick>,
    /// Ratio threshold: a tick is held if its rate and the rate in force differ by this ratio or more. Without a
    /// threshold no tick is held.
    pub quarantine_threshold: Option<RatioThreshold>,
}

/// A validated request: well-formed ticks, grouped by series, and refusals of the other ticks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    /// Well-formed ticks, one group for each series.
    pub groups: Vec<SeriesTicks>,
    /// Ticks that validation refused.
    pub refusals: Vec<Refusal>,
    /// Policy for instants with another stored value.
    pub conflict_policy: ConflictPolicy,
    /// If true, the response is the same as for a stored batch, but nothing is stored.
    pub validate_only: bool,
    /// Who sent the batch, such as `the token 'feeder'`, for the limits on new series; none for ticks that the server
    /// itself reads.
    pub caller: Option<Arc<str>>,
}

impl Batch {
    /// Returns the number of ticks for the limit of the queue. Refused ticks count too, because they also wait for the
    /// writer and need more memory.
    fn tick_count(&self) -> usize {
        self.groups.iter().map(|group| group.ticks.len()).sum::<usize>() + self.refusals.len()
    }
}

/// Counts of the results of a batch. All counts except `late_count` add up to the size of the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Ticks that began a run.
    pub new_run_count: u32,
    /// Ticks that joined a run.
    pub collapsed_count: u32,
    /// Ticks that were already stored.
    pub known_count: u32,
    /// Ticks that replaced another value.
    pub revised_count: u32,
    /// Refused ticks.
    pub refused_count: u32,
    /// Ticks that this batch or an earlier batch put into quarantine, or that were discarded before.
    pub quarantined_count: u32,
    /// Late ticks: stored ticks that were older than the newest tick of their series. Known ticks do not count.
    pub late_count: u32,
}

/// A tick that this batch or an earlier batch put into quarantine, or that was discarded before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldBatchTick {
    /// Index of the tick in its batch, from 0.
    pub index: u32,
    /// Id of the held tick; none if the batch is only validated.
    pub id: Option<u64>,
    /// Whether the tick was discarded before.
    pub is_discarded: bool,
    /// The rate in force at the observed time of the tick. It was determined when the tick first arrived.
    pub rate_in_force: Rate,
}

/// The response to a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IngestReport {
    /// Sequence of the batch's commit, or of the newest commit if nothing changed.
    pub sequence: u64,
    /// Recorded time of that commit.
    pub recorded_time: Timestamp,
    /// Counts of the results.
    pub summary: Summary,
    /// Refused ticks, sorted by index.
    pub refusals: Vec<Refusal>,
    /// Held ticks, sorted by index.
    pub held: Vec<HeldBatchTick>,
}

/// Why a whole request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IngestError {
    /// The queue has reached a limit.
    #[error("the ingest queue is full; try again in a moment")]
    QueueFull,
    /// A write or sync failed.
    #[error("writing stopped after a failure: {0}; remove the cause, then restart the server")]
    Poisoned(String),
    /// The server is shutting down.
    #[error("the server is shutting down; try again after it has restarted")]
    Draining,
    /// The store refused the result of a poll.
    #[error(transparent)]
    Poll(#[from] PollRefused),
}

/// Limits of the queue of the writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueLimits {
    /// Maximum number of requests in the queue.
    pub batches_max: usize,
    /// Maximum number of ticks in all queued batches together, including refused ticks.
    pub ticks_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { batches_max: 256, ticks_max: 2_000_000 }
    }
}

enum Message {
    Batch(Box<PendingBatch>),
    Poll(PendingPoll),
    Decide(Box<PendingDecision>),
    Archive(Box<PendingArchive>),
    /// Asks for the records of the newest commit.
    Backup(backup::PointReply),
    /// Asks to keep the frames of commits.
    KeepFrames(Arc<FrameTail>, backup::KeptReply),
    /// Wakes the writer so that it reads the clock.
    Wake,
    Close,
}

struct PendingBatch {
    batch: Batch,
    reply: oneshot::Sender<Result<IngestReport, IngestError>>,
    /// The caller's share of the queue, until the writer takes the batch.
    share: Option<QueueShare>,
}

struct PendingPoll {
    poll: Poll,
    reply: oneshot::Sender<Result<(), IngestError>>,
}

struct PendingDecision {
    request: DecisionRequest,
    reply: oneshot::Sender<Result<DecisionReport, IngestError>>,
}

struct PendingArchive {
    request: ArchiveRequest,
    reply: oneshot::Sender<Result<ArchiveReport, ArchiveError>>,
}

struct Shared {
    view: ArcSwap<View>,
    /// Cloned for each watcher.
    latest_quotes_updates: watch::Receiver<Arc<LatestQuotes>>,
    draining: AtomicBool,
    poisoned: std::sync::OnceLock<String>,
    queued_ticks: AtomicUsize,
    shares: QueueShares,
    limits: QueueLimits,
    metrics: IngestMetrics,
}

/// Handle to the writer, for clients that send ticks and for readers. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    queue: crossbeam_channel::Sender<Message>,
    shared: Arc<Shared>,
}

impl Ingest {
    /// Queues a batch and waits until its changes are durable and visible.
    ///
    /// Dropping the future does not cancel the batch.
    ///
    /// # Errors
    /// `QueueFull` if the queue has reached a limit; `Draining` if the server is shutting down; `Poisoned` if writing
    /// has stopped. After `Poisoned` the batch may or may not be stored.
    pub async fn submit(&self, batch: Batch) -> Result<IngestReport, IngestError> {
        self.check_open()?;
        let ticks = batch.tick_count();
        let queued = self.shared.queued_ticks.fetch_add(ticks, Ordering::AcqRel);
        // An empty queue accepts one batch beyond the limit, so that such a batch is not refused forever.
        if queued > 0 && queued + ticks > self.shared.limits.ticks_max {
            self.shared.queued_ticks.fetch_sub(ticks, Ordering::AcqRel);
            return Err(IngestError::QueueFull);
        }
        let share = batch.caller.as_ref().map(|caller| self.shared.shares.take(caller, ticks, self.shared.limits));
        if matches!(share, Some(None)) {
            self.shared.queued_ticks.fetch_sub(ticks, Ordering::AcqRel);
            return Err(IngestError::QueueFull);
        }
        let share = share.flatten();
        let (reply, response) = oneshot::channel();
        if let Err(error) = self.queue(Message::Batch(Box::new(PendingBatch { batch, reply, share }))) {
            self.shared.queued_ticks.fetch_sub(ticks, Ordering::AcqRel);
            return Err(error);
        }
        response.await.unwrap_or_else(|_| Err(self.close_error()))
    }

    /// Queues the result of a poll and waits until it is durable and visible. The result becomes part of a group
    /// commit. A commit that has only results of polls advances the sequence but changes no ticks.
    ///
    /// # Errors
    /// Like [`Ingest::submit`], and `Poll` if the store refuses the result.
    pub async fn record_poll(&self, poll: Poll) -> Result<(), IngestError> {
        self.check_open()?;
        let (reply, response) = oneshot::channel();
        self.queue(Message::Poll(PendingPoll { poll, reply }))?;
        response.await.unwrap_or_else(|_| Err(self.close_error()))
    }

    /// Queues decisions about held ticks and waits until they are durable and visible. All decisions of a request are
    /// one commit.
    ///
    /// # Errors
    /// Like [`Ingest::submit`].
    pub async fn decide(&self, request: DecisionRequest) -> Result<DecisionReport, IngestError> {
        self.check_open()?;
        let (reply, response) = oneshot::channel();
        self.queue(Message::Decide(Box::new(PendingDecision { request, reply })))?;
        response.await.unwrap_or_else(|_| Err(self.close_error()))
    }

    /// Queues a decision to archive or unarchive a source and waits until it is durable and visible.
    ///
    /// # Errors
    /// `Refused` if the store refuses the decision; else like [`Ingest::submit`].
    pub async fn archive(&self, request: ArchiveRequest) -> Result<ArchiveReport, ArchiveError> {
        self.check_open()?;
        let (reply, response) = oneshot::channel();
        self.queue(Message::Archive(Box::new(PendingArchive { request, reply })))?;
        response.await.unwrap_or_else(|_| Err(self.close_error().into()))
    }

    fn queue(&self, message: Message) -> Result<(), IngestError> {
        let full_or_closed = |full: bool| if full { IngestError::QueueFull } else { self.close_error() };
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

    /// Returns why the writer accepts no more requests: `Poisoned` if writing stopped after a failure, else `Draining`.
    pub fn close_error(&self) -> IngestError {
        self.poisoned().map_or(IngestError::Draining, IngestError::Poisoned)
    }

    /// Returns the view of the newest visible commit.
    pub fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// Returns a channel with the latest quotes of each new commit, including commits without ticks.
    ///
    /// The [`FanOut`] of [`Running::open`] updates the channel, so a watcher may see a commit a moment after
    /// [`Ingest::view`] has it. The channel ends when the server stops or writing stops; [`Ingest::close_error`]
    /// returns the cause.
    pub fn watch_latest_quotes(&self) -> watch::Receiver<Arc<LatestQuotes>> {
        self.shared.latest_quotes_updates.clone()
    }

    /// Returns the metrics of ingest, with an updated number of queued ticks.
    pub fn metrics(&self) -> IngestMetrics {
        self.shared.metrics.set_queued_ticks(self.shared.queued_ticks.load(Ordering::Relaxed));
        self.shared.metrics.clone()
    }

    /// Returns the failure after which writing stopped; `None` if writing has not stopped.
    pub fn poisoned(&self) -> Option<String> {
        self.shared.poisoned.get().cloned()
    }

    /// Wakes the writer so that it reads the clock now, and not only when the next quote is due to change.
    pub fn wake_writer(&self) {
        // If the queue is full, the writer is awake anyway.
        let _ = self.queue.try_send(Message::Wake);
    }
}

/// An open store with its writer thread.
pub struct Running {
    ingest: Ingest,
    writer: JoinHandle<Result<(), StoreError>>,
}

impl Running {
    /// Opens the store with [`Running::open_limited`], without limits on new series of one caller.
    ///
    /// # Errors
    /// As of [`Running::open_limited`].
    pub fn open(
        options: StoreOptions,
        limits: QueueLimits,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, FanOut), StoreError> {
        Self::open_limited(options, limits, NewSeriesLimits::default(), clock)
    }

    /// Opens the store, commits changes of quotes that became due while the store was closed, and starts the writer
    /// thread. Watchers are notified only while the returned [`FanOut`] runs. Blocks.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store cannot be opened, the commit fails or the thread cannot be started.
    pub fn open_limited(
        options: StoreOptions,
        limits: QueueLimits,
        new_series: NewSeriesLimits,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, FanOut), StoreError> {
        let mut store = Store::open(options, clock.now())?;
        store.begin(clock.now()).commit()?;
        let (queue, queued) = crossbeam_channel::bounded(limits.batches_max);
        let view = store.view();
        let (watchers, fan_out, latest_quotes_updates) = FanOut::new(&view.latest_quotes);
        let shared = Arc::new(Shared {
            view: ArcSwap::from_pointee(view),
            latest_quotes_updates,
            draining: AtomicBool::new(false),
            poisoned: std::sync::OnceLock::new(),
            queued_ticks: AtomicUsize::new(0),
            shares: QueueShares::default(),
            limits,
            metrics: IngestMetrics::default(),
        });
        let writer = writer::start(store, queued, Arc::clone(&shared), (watchers, clock, new_series))
            .map_err(|error| StoreError::io("cannot start the writer thread", &error))?;
        Ok((Self { ingest: Ingest { queue, shared }, writer }, fan_out))
    }

    /// The handle to the writer.
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// Stops accepting requests, commits the queued ones, makes a checkpoint and closes the store. Blocks.
    ///
    /// # Errors
    /// Returns the error that stopped the writer earlier, or the error of the checkpoint.
    pub fn close(self) -> Result<(), StoreError> {
        self.ingest.shared.draining.store(true, Ordering::Release);
        // Sending fails only if the writer has panicked, which `join` reports.
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
