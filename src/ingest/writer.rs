//! The writer thread: everything that waits becomes one commit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tokio::sync::{oneshot, watch};

use super::apply::{Applied, apply};
use super::fan_out::tell;
use super::quarantine::{explain, held_lines};
use super::{
    ConflictPolicy, DecisionReport, IngestError, IngestReport, Message, Pending, PendingDecision, PendingPoll, Refusal,
    Shared, Summary,
};
use crate::clock::Clock;
use crate::domain::Verdict;
use crate::latest_quotes::LatestQuotes;
use crate::metrics::{IngestMetrics, TickCounts};
use crate::store::{Commit, Decided, PollRefused, Quarantine, Store, StoreError, WriteTransaction};

/// Most ticks that go into one commit, so that nobody waits for long.
const COMMIT_TICKS_MAX: usize = 65_536;
/// Blocks opened by the batches of a commit at which the others wait for the next one, so that one request meets the limit
/// of a commit by itself only.
const COMMIT_OPENED_BLOCKS: usize = WriteTransaction::OPENED_BLOCKS_MAX / 8;
/// How long the writer sleeps at most, once writing has stopped.
const SLEEP_MAX: Duration = Duration::from_mins(1);
/// How often the writer looks whether the store's files are there, and at the clock, which may be put forward.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the writer.
pub(super) fn start(
    store: Store,
    waiting: Receiver<Message>,
    shared: Arc<Shared>,
    watchers: watch::Sender<Arc<LatestQuotes>>,
    clock: Arc<dyn Clock>,
) -> std::io::Result<JoinHandle<Result<(), StoreError>>> {
    let poison = PoisonOnPanic(Arc::clone(&shared));
    let writer = Writer {
        _poison: poison,
        store,
        waiting,
        shared,
        watchers: Some(watchers),
        clock,
        failure: None,
        disk_is_tight: false,
        looked: Instant::now(),
    };
    Builder::new().name("silkrate-writer".to_owned()).spawn(move || writer.run())
}

/// Says that writing has stopped if the writer ends by a panic.
struct PoisonOnPanic(Arc<Shared>);

impl Drop for PoisonOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Poisoned already by a failure that went before, if this does nothing.
            let _ = self.0.poisoned.set("the writer thread panicked".to_owned());
        }
    }
}

struct Writer {
    /// Dropped with the thread, whichever way that ends; before `watchers`, so that who sees the end learns its cause.
    _poison: PoisonOnPanic,
    store: Store,
    waiting: Receiver<Message>,
    shared: Arc<Shared>,
    /// Who is told of commits, as long as there may be one.
    watchers: Option<watch::Sender<Arc<LatestQuotes>>>,
    clock: Arc<dyn Clock>,
    failure: Option<StoreError>,
    /// Whether a checkpoint that was due had no room.
    disk_is_tight: bool,
    /// When the files of the store were looked at last.
    looked: Instant,
}

/// What becomes one commit.
#[derive(Default)]
struct Group {
    batches: VecDeque<Pending>,
    polls: Vec<PendingPoll>,
    /// Of all batches.
    ticks: usize,
}

impl Group {
    fn of(first: Pending) -> Self {
        let mut group = Self::default();
        group.add(first);
        group
    }

    fn of_poll(first: PendingPoll) -> Self {
        Self { polls: vec![first], ..Self::default() }
    }

    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.polls.is_empty()
    }

    fn add(&mut self, pending: Pending) {
        self.ticks += pending.batch.tick_count();
        self.batches.push_back(pending);
    }
}

type Answer = oneshot::Sender<Result<IngestReport, IngestError>>;
type PollAnswer = oneshot::Sender<Result<(), IngestError>>;

impl Writer {
    fn run(mut self) -> Result<(), StoreError> {
        // What ended a group.
        let mut next = None;
        loop {
            self.look_at_files();
            match next.take().map_or_else(|| self.waiting.recv_timeout(self.until_due()), Ok) {
                Ok(Message::Batch(first)) => next = self.commit_group(Group::of(*first)),
                Ok(Message::Poll(first)) => next = self.commit_group(Group::of_poll(first)),
                Ok(Message::Decide(pending)) => self.decide(*pending),
                Ok(Message::Poke) | Err(RecvTimeoutError::Timeout) => self.commit_time(),
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.failure.is_none() && self.store.checkpoint_is_due() {
                self.checkpoint();
            }
        }
        if self.failure.is_none() {
            self.checkpoint();
        }
        self.failure.map_or(Ok(()), Err)
    }

    /// How long until time alone may change a quote, or the store's files are to be looked at.
    fn until_due(&self) -> Duration {
        if self.failure.is_some() {
            return SLEEP_MAX;
        }
        let Some(due) = self.store.next_due() else { return LOOK_INTERVAL };
        let micros = due.micros_since(self.clock.now()).max(0);
        Duration::from_micros(micros.unsigned_abs()).min(LOOK_INTERVAL)
    }

    /// Stops writing once the files of the store were removed or replaced.
    fn look_at_files(&mut self) {
        if self.failure.is_some() || self.looked.elapsed() < LOOK_INTERVAL {
            return;
        }
        self.looked = Instant::now();
        if let Err(error) = self.store.check_files() {
            self.poison(error);
        }
    }

    /// Commits what came first and what waits behind it. Gives the message that is none of that, if one came.
    fn commit_group(&mut self, mut group: Group) -> Option<Message> {
        let mut next = None;
        while group.ticks < COMMIT_TICKS_MAX {
            match self.waiting.try_recv() {
                Ok(Message::Batch(more)) => group.add(*more),
                Ok(Message::Poll(poll)) => group.polls.push(poll),
                Ok(Message::Poke) => {}
                Ok(other @ (Message::Decide(_) | Message::Close)) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        self.shared.queued_ticks.fetch_sub(group.ticks, Ordering::AcqRel);
        while !group.is_empty() {
            self.commit(&mut group);
        }
        next
    }

    /// Commits what waits, but for batches that would open too many blocks together: those are left for the next commit.
    fn commit(&mut self, group: &mut Group) {
        if let Some(failure) = &self.failure {
            let error = IngestError::Poisoned(failure.to_string());
            // Who asked may be gone by now.
            for pending in group.batches.drain(..) {
                let _ = pending.answer.send(Err(error.clone()));
            }
            for pending in group.polls.drain(..) {
                let _ = pending.answer.send(Err(error.clone()));
            }
            return;
        }
        let begun = Instant::now();
        let held_before = self.store.quarantine().count() as u64;
        let mut transaction = self.store.begin(self.clock.now());
        let mut answers: Vec<(Answer, Applied)> = Vec::with_capacity(group.batches.len());
        while transaction.opened_block_count() < COMMIT_OPENED_BLOCKS
            && let Some(pending) = group.batches.pop_front()
        {
            answers.push((pending.answer, apply(&mut transaction, pending.batch)));
        }
        let record = |pending: PendingPoll| (pending.answer, transaction.record_poll(&pending.poll));
        let polls: Vec<(PollAnswer, Result<(), PollRefused>)> = group.polls.drain(..).map(record).collect();
        let result = transaction.commit();
        if let Ok(Some(_)) = result {
            self.publish();
            log_held(self.store.quarantine(), held_before);
        }
        match &result {
            Ok(Some(_)) => self.shared.metrics.committed(begun.elapsed()),
            Ok(None) => {}
            Err(error) => self.poison(error.clone()),
        }
        let commit = self.store.newest_commit();
        for (answer, Applied { summary, refusals, held }) in answers {
            if result.is_ok() {
                count(&self.shared.metrics, summary, &refusals);
            }
            let report = match &result {
                Err(error) => Err(IngestError::Poisoned(error.to_string())),
                Ok(_) => Ok(IngestReport {
                    sequence: commit.sequence,
                    recorded_time: commit.recorded_time,
                    summary,
                    refusals,
                    held,
                }),
            };
            let _ = answer.send(report);
        }
        for (answer, recorded) in polls {
            let told = match &result {
                Err(error) => Err(IngestError::Poisoned(error.to_string())),
                Ok(_) => recorded.map_err(IngestError::from),
            };
            let _ = answer.send(told);
        }
        if self.failure.is_none() && !group.is_empty() && self.store.checkpoint_is_due() {
            self.checkpoint();
        }
    }

    /// Commits decisions about held ticks.
    fn decide(&mut self, PendingDecision { request, answer }: PendingDecision) {
        if let Some(failure) = &self.failure {
            // Who asked may be gone by now.
            let _ = answer.send(Err(IngestError::Poisoned(failure.to_string())));
            return;
        }
        let begun = Instant::now();
        let mut transaction = self.store.begin(self.clock.now());
        let revise = request.conflict_policy == ConflictPolicy::Revise;
        let decided = transaction.decide(&request.ids, request.verdict, request.note.as_ref(), revise);
        let explained = request.ids.iter().zip(decided).map(|(id, decided)| {
            let message = explain(*id, &decided, transaction.quarantine());
            (decided, message)
        });
        let decided: Vec<(Decided, String)> = explained.collect();
        let result = transaction.commit();
        let report = match result {
            Err(error) => {
                let told = IngestError::Poisoned(error.to_string());
                self.poison(error);
                Err(told)
            }
            Ok(commit) => {
                if commit.is_some() {
                    self.publish();
                    self.shared.metrics.committed(begun.elapsed());
                }
                count_decided(&self.shared.metrics, request.verdict, &decided);
                let Commit { sequence, recorded_time } = self.store.newest_commit();
                Ok(DecisionReport { sequence, recorded_time, decided })
            }
        };
        let _ = answer.send(report);
    }

    /// Commits what time alone has changed.
    fn commit_time(&mut self) {
        if self.failure.is_some() {
            return;
        }
        match self.store.begin(self.clock.now()).commit() {
            Ok(None) => {}
            Ok(Some(_)) => self.publish(),
            Err(error) => self.poison(error),
        }
    }

    fn checkpoint(&mut self) {
        if !self.store.has_room_for_checkpoint() {
            if !self.disk_is_tight {
                tracing::warn!(
                    "the disk is nearly full: no checkpoint is made; commits go to the log until it is full"
                );
            }
            self.disk_is_tight = true;
            // Late ticks cost the log little and memory much.
            if self.store.checkpoint_is_overdue() {
                self.poison(StoreError::Io {
                    action: "cannot make a checkpoint, and memory holds all that may wait for one".to_owned(),
                    problem: "the disk is nearly full".to_owned(),
                    disk_full: true,
                });
            }
            return;
        }
        self.disk_is_tight = false;
        let begun = Instant::now();
        match self.store.checkpoint() {
            Ok(()) => {
                self.shared.metrics.checkpointed(begun.elapsed());
                self.publish();
            }
            Err(error) => self.poison(error),
        }
    }

    fn publish(&self) {
        let view = Arc::new(self.store.view());
        let latest_quotes = Arc::clone(&view.latest_quotes);
        self.shared.view.store(view);
        if let Some(watchers) = &self.watchers {
            tell(watchers, &latest_quotes);
        }
    }

    /// What is in memory may be ahead of what is durable: readers keep what they have, and nothing
    /// is written any more.
    fn poison(&mut self, error: StoreError) {
        tracing::error!("writing stops: {error}");
        let _ = self.shared.poisoned.set(error.to_string());
        self.watchers = None;
        self.failure = Some(error);
    }
}

fn count(metrics: &IngestMetrics, summary: Summary, refusals: &[Refusal]) {
    metrics.taken_in(TickCounts {
        new_run: summary.new_run_count.into(),
        collapsed: summary.collapsed_count.into(),
        known: summary.known_count.into(),
        revised: summary.revised_count.into(),
        quarantined: summary.quarantined_count.into(),
    });
    for refusal in refusals {
        metrics.refused(refusal.reason.label());
    }
}

fn count_decided(metrics: &IngestMetrics, verdict: Verdict, decided: &[(Decided, String)]) {
    let label = match verdict {
        Verdict::Released => "released",
        Verdict::Discarded => "discarded",
    };
    for (decided, _) in decided {
        match decided {
            Decided::Released(_) | Decided::Discarded => metrics.decided(label),
            Decided::Refused(_) => metrics.decided("refused"),
            Decided::Already => {}
        }
    }
}

/// Tells the log of ticks that a commit began to hold.
fn log_held(quarantine: &Quarantine, before: u64) {
    if quarantine.count() as u64 == before {
        return;
    }
    for line in held_lines(quarantine, before) {
        tracing::warn!("{line}");
    }
}
