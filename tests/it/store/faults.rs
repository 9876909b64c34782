//! Failing writes, flushes and syncs, and a full queue. No unacknowledged batch becomes visible, no acknowledged batch
//! is lost, and writing resumes only after a restart.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use silkrate::clock::SystemClock;
use silkrate::domain::PublishedValue;
use silkrate::ingest::{Batch, Ingest, IngestError, QueueLimits, Refusal, RefusalReason, Running};
use silkrate::store::{CheckpointLimits, DiskFault, DiskOperation};

use crate::store::durable::{BASE_US, SECOND, batch_of, instants, key, open, options, run, submit, value};

/// Limits that make a checkpoint due after every third commit.
const LIMITS: CheckpointLimits = CheckpointLimits {
    log_bytes: 150,
    head_items: usize::MAX,
    mutable_segments: usize::MAX,
    sealed_blocks: usize::MAX,
};

/// Limits that make a slice follow every commit with late ticks, and a checkpoint some slices.
const SLICES: CheckpointLimits =
    CheckpointLimits { log_bytes: 4 << 10, head_items: 10_000, mutable_segments: 0, sealed_blocks: 20 };

/// Number of commits in the scenario. Each has one tick, except one commit that is so large that its log entry has
/// several parts.
const COMMITS: i64 = 8;
const LARGE_COMMIT: i64 = 4;
const LARGE_TICKS: i64 = 20_000;

/// What the commits of a scenario contain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scenario {
    /// Each commit appends ticks.
    Append,
    /// The first commit appends many ticks. Each other commit has late ticks between them, in several blocks.
    Late,
}

impl Scenario {
    fn limits(self) -> CheckpointLimits {
        match self {
            Self::Append => LIMITS,
            Self::Late => SLICES,
        }
    }

    fn ticks(self, commit: i64) -> Vec<(i64, PublishedValue)> {
        match (self, commit) {
            (Self::Append, _) => ticks(commit),
            (Self::Late, 0) => ticks(LARGE_COMMIT),
            (Self::Late, _) => ticks(LARGE_COMMIT)
                .into_iter()
                .step_by(3_000)
                .map(|(micros, value)| (micros + commit * SECOND / 20, value))
                .collect(),
        }
    }

    /// Returns the observed times, in microseconds, of the ticks of these commits.
    fn known(self, commits: impl Iterator<Item = i64>) -> Vec<i64> {
        let mut times: Vec<i64> = commits.flat_map(|commit| self.ticks(commit)).map(|(micros, _)| micros).collect();
        times.sort_unstable();
        times
    }
}

fn ticks(commit: i64) -> Vec<(i64, PublishedValue)> {
    let count = if commit == LARGE_COMMIT { LARGE_TICKS } else { 1 };
    let base_us = BASE_US + commit * 86_400 * SECOND;
    (0..count).map(|at| (base_us + at * SECOND, value((at % 5).cast_unsigned()))).collect()
}

/// Sends the scenario until a batch fails. Returns the number of acknowledged batches, and the error.
fn send_all(ingest: &Ingest, scenario: Scenario) -> (i64, Option<IngestError>) {
    for commit in 0..COMMITS {
        if let Err(error) = submit(ingest, batch_of(&key(0, 0), scenario.ticks(commit), false)) {
            return (commit, Some(error));
        }
    }
    (COMMITS, None)
}

/// Makes the `nth` operation of a kind fail, counted from 0.
fn failing(operation: DiskOperation, nth: usize, seen: &Arc<AtomicUsize>) -> DiskFault {
    let seen = Arc::clone(seen);
    Arc::new(move |about_to: DiskOperation| {
        if about_to == operation && seen.fetch_add(1, Ordering::SeqCst) == nth {
            return Err(io::Error::other("injected disk fault"));
        }
        Ok(())
    })
}

/// Checks that after a restart the store has every acknowledged batch, and at most one more batch, completely.
fn check_restart(directory: &Path, scenario: Scenario, answered: i64) {
    let store = open(directory);
    assert_eq!(store.verify().problems, Vec::<String>::new());
    let found = instants(&store.view(), &key(0, 0));
    let there = (answered..=COMMITS).find(|count| found == scenario.known(0..*count));
    assert!(
        there.is_some_and(|count| count <= answered + 1),
        "{answered} batches acknowledged, but {} instants stored",
        found.len()
    );
}

/// Runs a scenario with one failing operation. Returns `None` if the scenario ended before that operation, or else the
/// number of slices before the failure.
fn check_failure(scenario: Scenario, operation: DiskOperation, nth: usize) -> Option<u64> {
    let directory = tempfile::tempdir().unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let fault = failing(operation, nth, &seen);
    let opened = Running::open(
        options(directory.path(), scenario.limits(), Some(fault)),
        QueueLimits::default(),
        Arc::new(SystemClock),
    );
    let Ok((running, _)) = opened else {
        check_restart(directory.path(), scenario, 0);
        return Some(0);
    };
    let ingest = running.ingest().clone();
    let (answered, error) = send_all(&ingest, scenario);
    let failed_while_sending = error.is_some();
    if let Some(error) = error {
        assert!(matches!(&error, IngestError::Poisoned(cause) if cause.contains("injected disk fault")), "{error}");
        check_poisoned(&ingest, scenario, answered);
    }
    let closed = running.close();
    // A checkpoint may fail after the last acknowledgement, or while closing.
    let failed = seen.load(Ordering::SeqCst) > nth;
    assert_eq!(closed.is_err(), failed, "{operation:?} {nth}: {closed:?}");
    assert!(failed || !failed_while_sending);
    let slices = ingest.metrics().slice_count();
    drop(ingest);
    check_restart(directory.path(), scenario, answered);
    failed.then_some(slices)
}

/// Checks that reads still return the acknowledged state, and that every write is refused with the cause.
fn check_poisoned(ingest: &Ingest, scenario: Scenario, answered: i64) {
    assert!(ingest.poisoned().is_some_and(|cause| cause.contains("injected disk fault")), "{:?}", ingest.poisoned());
    for _ in 0..2 {
        let again = submit(ingest, batch_of(&key(0, 1), ticks(0), false));
        assert!(
            matches!(&again, Err(IngestError::Poisoned(cause)) if cause.contains("injected disk fault")),
            "{again:?}"
        );
    }
    let view = ingest.view();
    assert_eq!(view.commit.sequence, answered.cast_unsigned());
    assert_eq!(instants(&view, &key(0, 0)), scenario.known(0..answered));
    assert!(view.find(&key(0, 1)).is_none());
}

#[test]
fn any_disk_failure_stops_writing_and_loses_no_acknowledged_batch() {
    let began = Instant::now();
    let mut failures = Vec::new();
    for operation in [DiskOperation::Write, DiskOperation::Flush, DiskOperation::Sync] {
        let count = (0..1_000).find(|nth| check_failure(Scenario::Append, operation, *nth).is_none()).unwrap();
        // Each commit writes and syncs its log entry. sled is flushed when the store is created and at checkpoints.
        let least = if operation == DiskOperation::Flush { 3 } else { COMMITS as usize + 3 };
        assert!(count >= least, "only {count} operations of kind {operation:?}");
        failures.push((operation, count));
    }
    println!("{failures:?} failures, {:.1?}", began.elapsed());
}

#[test]
fn failure_during_slices_loses_no_acknowledged_batch() {
    let mut slices = Vec::new();
    for operation in [DiskOperation::Write, DiskOperation::Flush, DiskOperation::Sync] {
        slices.extend((0..1_000).map_while(|nth| check_failure(Scenario::Late, operation, nth)));
    }
    println!("{} failures, after {slices:?} slices", slices.len());
    // Operations fail before, within and after slices.
    assert!(slices.contains(&0) && slices.iter().filter(|count| **count >= 2).count() > 10, "{slices:?}");
}

/// A disk fault that blocks the writer at the first sync after the fault is armed, until the gate is opened.
struct Gate {
    fault: DiskFault,
    arrived: Receiver<()>,
    open: Sender<()>,
}

impl Gate {
    fn new() -> (Self, Arc<AtomicBool>) {
        let armed = Arc::new(AtomicBool::new(false));
        let (arrive, arrived) = crossbeam_channel::unbounded();
        let (open, opened) = crossbeam_channel::bounded(1);
        let fault: DiskFault = {
            let armed = Arc::clone(&armed);
            Arc::new(move |operation| {
                if operation == DiskOperation::Sync && armed.swap(false, Ordering::SeqCst) {
                    arrive.send(()).unwrap();
                    // The test may have failed and dropped the gate.
                    let _ = opened.recv_timeout(Duration::from_secs(30));
                }
                Ok(())
            })
        };
        (Self { fault, arrived, open }, armed)
    }
}

type Answer = Result<u64, IngestError>;

/// A sent batch: answered immediately, or waiting in the queue.
enum Sent {
    Answered(Answer),
    Waits(Pin<Box<dyn Future<Output = Answer>>>),
}

impl Sent {
    fn new(ingest: &Ingest, batch: Batch) -> Self {
        let ingest = ingest.clone();
        let mut answer: Pin<Box<dyn Future<Output = Answer>>> =
            Box::pin(async move { ingest.submit(batch).await.map(|report| report.sequence) });
        match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Self::Answered(answer),
            Poll::Pending => Self::Waits(answer),
        }
    }

    fn is_waiting(&self) -> bool {
        matches!(self, Self::Waits(_))
    }

    fn answer(self) -> Answer {
        match self {
            Self::Answered(answer) => answer,
            Self::Waits(answer) => tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(answer),
        }
    }
}

/// Sends the given number of ticks into the given hour.
fn send(ingest: &Ingest, hour: i64, count: i64) -> Sent {
    let ticks = (0..count).map(|at| (BASE_US + hour * 3_600 * SECOND + at, value(0)));
    Sent::new(ingest, batch_of(&key(0, 0), ticks, false))
}

/// Starts a writer that is blocked during its first commit, of one tick.
fn blocked_writer(limits: QueueLimits, directory: &Path) -> (Running, Gate, Sent) {
    let (gate, armed) = Gate::new();
    let store = options(directory, CheckpointLimits::default(), Some(Arc::clone(&gate.fault)));
    let (running, _) = Running::open(store, limits, Arc::new(SystemClock)).unwrap();
    armed.store(true, Ordering::SeqCst);
    let first = send(running.ingest(), 0, 1);
    gate.arrived.recv_timeout(Duration::from_secs(30)).unwrap();
    (running, gate, first)
}

#[test]
fn full_queue_refuses_new_batches_and_commits_waiting_ones() {
    let directory = tempfile::tempdir().unwrap();
    let (running, gate, first) = blocked_writer(QueueLimits { batches_max: 5, ticks_max: 1_000 }, directory.path());
    let waiting: Vec<Sent> = (1..=5).map(|hour| send(running.ingest(), hour, 1)).collect();
    assert!(waiting.iter().all(Sent::is_waiting));
    for hour in 6..20 {
        assert_eq!(send(running.ingest(), hour, 1).answer(), Err(IngestError::QueueFull));
    }
    gate.open.send(()).unwrap();
    assert_eq!(first.answer(), Ok(1));
    // The batches waited together, so they share one commit.
    for sent in waiting {
        assert_eq!(sent.answer(), Ok(2));
    }
    assert_eq!(send(running.ingest(), 30, 1).answer(), Ok(3));
    running.close().unwrap();
    assert_eq!(instants(&open(directory.path()).view(), &key(0, 0)).len(), 7);
}

#[test]
fn waiting_ticks_are_limited_but_one_large_batch_is_admitted() {
    let directory = tempfile::tempdir().unwrap();
    let (running, gate, first) = blocked_writer(QueueLimits { batches_max: 100, ticks_max: 50 }, directory.path());
    let large = send(running.ingest(), 1, 200);
    assert!(large.is_waiting());
    assert_eq!(send(running.ingest(), 2, 1).answer(), Err(IngestError::QueueFull));
    gate.open.send(()).unwrap();
    assert_eq!((first.answer(), large.answer()), (Ok(1), Ok(2)));
    // A refused batch does not count towards the limit.
    assert_eq!(send(running.ingest(), 3, 50).answer(), Ok(3));
    running.close().unwrap();
}

/// Sends a batch of rows that validation has refused.
fn send_refused(ingest: &Ingest, count: u32) -> Sent {
    let refusal = |index| Refusal {
        index,
        reason: RefusalReason::InvalidRate,
        message: "rate: 'x' is no decimal; write it like 0.01144".to_owned(),
        stored: None,
    };
    Sent::new(ingest, Batch { refusals: (0..count).map(refusal).collect(), ..Batch::default() })
}

#[test]
fn refused_rows_count_towards_the_queue_limit() {
    let directory = tempfile::tempdir().unwrap();
    let (running, gate, first) = blocked_writer(QueueLimits { batches_max: 100, ticks_max: 50 }, directory.path());
    let waiting = send_refused(running.ingest(), 40);
    assert!(waiting.is_waiting());
    assert_eq!(send_refused(running.ingest(), 11).answer(), Err(IngestError::QueueFull));
    assert_eq!(send(running.ingest(), 1, 11).answer(), Err(IngestError::QueueFull));
    gate.open.send(()).unwrap();
    // The batch changes nothing, so the response has the newest commit.
    assert_eq!((first.answer(), waiting.answer()), (Ok(1), Ok(1)));
    assert_eq!(send_refused(running.ingest(), 50).answer(), Ok(1));
    running.close().unwrap();
}

/// Waits, without sending anything, until the ingest is poisoned. Returns the cause.
fn poisoned_soon(ingest: &Ingest) -> String {
    let began = Instant::now();
    loop {
        if let Some(cause) = ingest.poisoned() {
            return cause;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "the ingest was not poisoned within 10 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn removed_or_replaced_store_stops_writing() {
    type Take = fn(&Path) -> io::Result<()>;
    let ways: [(&str, Take); 4] = [
        ("all of it removed", |store| std::fs::remove_dir_all(store)),
        ("its log removed", |store| std::fs::remove_file(store.join("log"))),
        ("its log moved away", |store| std::fs::rename(store.join("log"), store.join("log.old"))),
        ("its blocks moved away", |store| std::fs::rename(store.join("sled"), store.join("sled.old"))),
    ];
    for (way, take) in ways {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let running = run(&store, CheckpointLimits::default(), None);
        let ingest = running.ingest().clone();
        let send =
            |hour: i64| submit(&ingest, batch_of(&key(0, 0), [(BASE_US + hour * 3_600 * SECOND, value(0))], false));
        assert_eq!(send(0).unwrap().sequence, 1);
        take(&store).unwrap();
        let cause = poisoned_soon(&ingest);
        assert!(cause.contains("was removed or replaced"), "{way}: {cause}");
        assert!(matches!(send(1), Err(IngestError::Poisoned(_))), "{way}");
        // Readers still see the acknowledged ticks.
        assert_eq!(instants(&ingest.view(), &key(0, 0)).len(), 1, "{way}");
        running.close().unwrap_err();
    }
}

#[test]
fn tick_written_to_a_removed_log_is_not_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let running = run(directory.path(), CheckpointLimits::default(), None);
    let ingest = running.ingest().clone();
    std::fs::remove_file(directory.path().join("log")).unwrap();
    // The commit itself detects the removal, before the periodic check of the files.
    let answer = submit(&ingest, batch_of(&key(0, 0), [(BASE_US, value(0))], false));
    assert!(matches!(&answer, Err(IngestError::Poisoned(cause)) if cause.contains("log was removed")), "{answer:?}");
    running.close().unwrap_err();
}

#[test]
fn dropped_submit_future_does_not_cancel_the_batch() {
    let directory = tempfile::tempdir().unwrap();
    let (running, gate, first) = blocked_writer(QueueLimits::default(), directory.path());
    drop(send(running.ingest(), 1, 3));
    gate.open.send(()).unwrap();
    assert_eq!(first.answer(), Ok(1));
    running.close().unwrap();
    assert_eq!(instants(&open(directory.path()).view(), &key(0, 0)).len(), 4);
}

#[test]
fn close_commits_waiting_batches_and_refuses_new_ones() {
    let directory = tempfile::tempdir().unwrap();
    let (running, gate, first) = blocked_writer(QueueLimits::default(), directory.path());
    let ingest = running.ingest().clone();
    let mut waiting: Vec<Sent> = (1..=5).map(|hour| send(&ingest, hour, 1)).collect();
    let closer = std::thread::spawn(move || running.close());
    // Batches are admitted until closing begins.
    let refused = loop {
        match send(&ingest, 6 + waiting.len() as i64, 1) {
            Sent::Answered(Err(IngestError::QueueFull)) => {}
            Sent::Answered(answer) => break answer,
            sent @ Sent::Waits(_) => waiting.push(sent),
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(refused, Err(IngestError::Draining));
    gate.open.send(()).unwrap();
    assert_eq!(first.answer(), Ok(1));
    let count = waiting.len();
    for sent in waiting {
        assert_eq!(sent.answer(), Ok(2));
    }
    closer.join().unwrap().unwrap();
    assert_eq!(send(&ingest, 0, 1).answer(), Err(IngestError::Draining));
    drop(ingest);
    let store = open(directory.path());
    assert_eq!(store.verify().problems, Vec::<String>::new());
    assert!(!store.has_changes(), "close must make a checkpoint");
    assert_eq!(instants(&store.view(), &key(0, 0)).len(), count + 1);
}

#[test]
fn scenario_without_faults_acknowledges_every_commit() {
    let directory = tempfile::tempdir().unwrap();
    let running = run(directory.path(), LIMITS, None);
    assert_eq!(send_all(running.ingest(), Scenario::Append), (COMMITS, None));
    running.close().unwrap();
    check_restart(directory.path(), Scenario::Append, COMMITS);
}
