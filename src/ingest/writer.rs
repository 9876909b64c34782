//! The writer thread: everything that waits becomes one commit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tokio::sync::{oneshot, watch};

use super::apply::{Applied, apply};
use super::fan_out::tell;
use super::{IngestError, IngestReport, Message, Pending, PendingPoll, Refusal, Shared, Summary};
use crate::board::Board;
use crate::clock::Clock;
use crate::metrics::{IngestMetrics, TickCounts};
use crate::store::{Store, StoreError};

/// Most ticks that go into one commit, so that nobody waits for long.
const COMMIT_TICKS_MAX: usize = 65_536;
/// How long the writer sleeps at most: clocks are put forward, too.
const SLEEP_MAX: Duration = Duration::from_mins(1);

/// Starts the writer.
pub(super) fn start(
    store: Store,
    waiting: Receiver<Message>,
    shared: Arc<Shared>,
    watchers: watch::Sender<Arc<Board>>,
    clock: Arc<dyn Clock>,
) -> std::io::Result<JoinHandle<Result<(), StoreError>>> {
    let poison = PoisonOnPanic(Arc::clone(&shared));
    let writer = Writer { _poison: poison, store, waiting, shared, watchers: Some(watchers), clock, failure: None };
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
    watchers: Option<watch::Sender<Arc<Board>>>,
    clock: Arc<dyn Clock>,
    failure: Option<StoreError>,
}

/// What becomes one commit.
#[derive(Default)]
struct Group {
    batches: Vec<Pending>,
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

    fn add(&mut self, pending: Pending) {
        self.ticks += pending.batch.tick_count();
        self.batches.push(pending);
    }
}

type Answer = oneshot::Sender<Result<IngestReport, IngestError>>;

impl Writer {
    fn run(mut self) -> Result<(), StoreError> {
        loop {
            match self.waiting.recv_timeout(self.until_due()) {
                Ok(Message::Batch(first)) => {
                    if !self.commit_group(Group::of(*first)) {
                        break;
                    }
                }
                Ok(Message::Poll(first)) => {
                    if !self.commit_group(Group::of_poll(first)) {
                        break;
                    }
                }
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

    /// How long until time alone may change a quote.
    fn until_due(&self) -> Duration {
        let (None, Some(due)) = (&self.failure, self.store.next_due()) else { return SLEEP_MAX };
        let micros = due.micros_since(self.clock.now()).max(0);
        Duration::from_micros(micros.unsigned_abs()).min(SLEEP_MAX)
    }

    /// Commits what came first and what else waits. Says whether to go on.
    fn commit_group(&mut self, mut group: Group) -> bool {
        let mut go_on = true;
        while group.ticks < COMMIT_TICKS_MAX {
            match self.waiting.try_recv() {
                Ok(Message::Batch(next)) => group.add(*next),
                Ok(Message::Poll(next)) => group.polls.push(next),
                Ok(Message::Poke) => {}
                Ok(Message::Close) => {
                    go_on = false;
                    break;
                }
                Err(_) => break,
            }
        }
        self.shared.queued_ticks.fetch_sub(group.ticks, Ordering::AcqRel);
        self.commit(group);
        go_on
    }

    fn commit(&mut self, group: Group) {
        if let Some(failure) = &self.failure {
            let error = IngestError::Poisoned(failure.to_string());
            // Who asked may be gone by now.
            for pending in group.batches {
                let _ = pending.answer.send(Err(error.clone()));
            }
            for pending in group.polls {
                let _ = pending.answer.send(Err(error.clone()));
            }
            return;
        }
        let begun = Instant::now();
        let mut work = self.store.begin(self.clock.now());
        let answers: Vec<(Answer, Applied)> =
            group.batches.into_iter().map(|pending| (pending.answer, apply(&mut work, pending.batch))).collect();
        for pending in &group.polls {
            if let Err(refused) = work.record_poll(&pending.poll) {
                tracing::warn!("{refused}");
            }
        }
        let result = work.commit();
        if let Ok(Some(_)) = result {
            self.publish();
        }
        match &result {
            Ok(_) => self.shared.metrics.committed(begun.elapsed()),
            Err(error) => self.poison(error.clone()),
        }
        let commit = self.store.newest_commit();
        for (answer, Applied { summary, refusals }) in answers {
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
                }),
            };
            let _ = answer.send(report);
        }
        for pending in group.polls {
            let told = result.as_ref().map(|_| ()).map_err(|error| IngestError::Poisoned(error.to_string()));
            let _ = pending.answer.send(told);
        }
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
        let board = Arc::clone(&view.board);
        self.shared.view.store(view);
        if let Some(watchers) = &self.watchers {
            tell(watchers, &board);
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
    });
    for refusal in refusals {
        metrics.refused(refusal.reason.label());
    }
}
