//! Writes, flushes and syncs that fail, and a queue that is full: nothing unanswered becomes visible,
//! nothing answered is lost, and writing goes on only after a restart.

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

/// A checkpoint after every third commit.
const LIMITS: CheckpointLimits = CheckpointLimits { log_bytes: 150, head_items: usize::MAX, opened_blocks: usize::MAX };

/// Commits of the scenario: one tick each, but for one of so many that its log entry has parts.
const COMMITS: i64 = 8;
const LARGE_COMMIT: i64 = 4;
const LARGE_TICKS: i64 = 20_000;

fn ticks(commit: i64) -> Vec<(i64, PublishedValue)> {
    let count = if commit == LARGE_COMMIT { LARGE_TICKS } else { 1 };
    let base_us = BASE_US + commit * 86_400 * SECOND;
    (0..count).map(|at| (base_us + at * SECOND, value((at % 5).cast_unsigned()))).collect()
}

/// The ticks that the store knows of the scenario.
fn known(commits: impl Iterator<Item = i64>) -> Vec<i64> {
    commits.flat_map(ticks).map(|(micros, _)| micros).collect()
}

/// Sends the scenario until a batch is not answered. Gives how many were, and why that one was not.
fn send_all(ingest: &Ingest) -> (i64, Option<IngestError>) {
    for commit in 0..COMMITS {
        if let Err(error) = submit(ingest, batch_of(&key(0, 0), ticks(commit), false)) {
            return (commit, Some(error));
        }
    }
    (COMMITS, None)
}

/// Lets the `nth` operation of a kind fail, from 0.
fn failing(operation: DiskOperation, nth: usize, seen: &Arc<AtomicUsize>) -> DiskFault {
    let seen = Arc::clone(seen);
    Arc::new(move |about_to: DiskOperation| {
        if about_to == operation && seen.fetch_add(1, Ordering::SeqCst) == nth {
            return Err(io::Error::other("the disk is on fire"));
        }
        Ok(())
    })
}

/// After a restart the store has what was answered, and of the rest each batch whole or not at all.
fn check_restart(directory: &Path, answered: i64) {
    let store = open(directory);
    assert_eq!(store.verify().problems, Vec::<String>::new());
    let found = instants(&store.view(), &key(0, 0));
    let there = (answered..=COMMITS).find(|count| found == known(0..*count));
    assert!(there.is_some_and(|count| count <= answered + 1), "{answered} answered, but {} instants", found.len());
}

/// Runs the scenario with one operation failing. Says whether it came to that.
fn check_failure(operation: DiskOperation, nth: usize) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let fault = failing(operation, nth, &seen);
    let opened =
        Running::open(options(directory.path(), LIMITS, Some(fault)), QueueLimits::default(), Arc::new(SystemClock));
    let Ok((running, _)) = opened else {
        check_restart(directory.path(), 0);
        return true;
    };
    let ingest = running.ingest().clone();
    let (answered, error) = send_all(&ingest);
    let failed_while_sending = error.is_some();
    if let Some(error) = error {
        assert!(matches!(&error, IngestError::Poisoned(cause) if cause.contains("the disk is on fire")), "{error}");
        check_poisoned(&ingest, answered);
    }
    let closed = running.close();
    // A failed checkpoint may follow the last answer, or come while closing.
    let failed = seen.load(Ordering::SeqCst) > nth;
    assert_eq!(closed.is_err(), failed, "{operation:?} {nth}: {closed:?}");
    assert!(failed || !failed_while_sending);
    drop(ingest);
    check_restart(directory.path(), answered);
    failed
}

/// Reads go on with what was answered last, writes say why not, again and again.
fn check_poisoned(ingest: &Ingest, answered: i64) {
    assert!(ingest.poisoned().is_some_and(|cause| cause.contains("the disk is on fire")), "{:?}", ingest.poisoned());
    for _ in 0..2 {
        let again = submit(ingest, batch_of(&key(0, 1), ticks(0), false));
        assert!(
            matches!(&again, Err(IngestError::Poisoned(cause)) if cause.contains("the disk is on fire")),
            "{again:?}"
        );
    }
    let view = ingest.view();
    assert_eq!(view.commit.sequence, answered.cast_unsigned());
    assert_eq!(instants(&view, &key(0, 0)), known(0..answered));
    assert!(view.find(&key(0, 1)).is_none());
}

#[test]
fn any_one_failure_stops_writing_and_loses_no_answer() {
    let began = Instant::now();
    let mut failures = Vec::new();
    for operation in [DiskOperation::Write, DiskOperation::Flush, DiskOperation::Sync] {
        let count = (0..1_000).find(|nth| !check_failure(operation, *nth)).unwrap();
        // Each commit writes and syncs its log entry; sled is flushed to make the store, and at
        // checkpoints.
        let least = if operation == DiskOperation::Flush { 3 } else { COMMITS as usize + 3 };
        assert!(count >= least, "only {count} of {operation:?} were met");
        failures.push((operation, count));
    }
    println!("{failures:?} failures, {:.1?}", began.elapsed());
}

/// A fault that holds the writer at its first sync until it is let go.
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
                    // Nobody opens a gate whose test has failed.
                    let _ = opened.recv_timeout(Duration::from_secs(30));
                }
                Ok(())
            })
        };
        (Self { fault, arrived, open }, armed)
    }
}

type Answer = Result<u64, IngestError>;

/// A batch that was sent: answered at once, or waiting in the queue by now.
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

/// Sends so many ticks, an hour after those of the hour before.
fn send(ingest: &Ingest, hour: i64, count: i64) -> Sent {
    let ticks = (0..count).map(|at| (BASE_US + hour * 3_600 * SECOND + at, value(0)));
    Sent::new(ingest, batch_of(&key(0, 0), ticks, false))
}

/// A writer that is held amid its first commit, which is of one tick.
fn held(limits: QueueLimits, directory: &Path) -> (Running, Gate, Sent) {
    let (gate, armed) = Gate::new();
    let store = options(directory, CheckpointLimits::default(), Some(Arc::clone(&gate.fault)));
    let (running, _) = Running::open(store, limits, Arc::new(SystemClock)).unwrap();
    armed.store(true, Ordering::SeqCst);
    let first = send(running.ingest(), 0, 1);
    gate.arrived.recv_timeout(Duration::from_secs(30)).unwrap();
    (running, gate, first)
}

#[test]
fn a_full_queue_refuses_and_what_waits_goes_in() {
    let directory = tempfile::tempdir().unwrap();
    let (running, gate, first) = held(QueueLimits { batches_max: 5, ticks_max: 1_000 }, directory.path());
    let waiting: Vec<Sent> = (1..=5).map(|hour| send(running.ingest(), hour, 1)).collect();
    assert!(waiting.iter().all(Sent::is_waiting));
    for hour in 6..20 {
        assert_eq!(send(running.ingest(), hour, 1).answer(), Err(IngestError::QueueFull));
    }
    gate.open.send(()).unwrap();
    assert_eq!(first.answer(), Ok(1));
    // They waited together, so they are one commit.
    for sent in waiting {
        assert_eq!(sent.answer(), Ok(2));
    }
    assert_eq!(send(running.ingest(), 30, 1).answer(), Ok(3));
    running.close().unwrap();
    assert_eq!(instants(&open(directory.path()).view(), &key(0, 0)).len(), 7);
}

#[test]
fn waiting_ticks_are_limited_but_one_large_batch_goes_in() {
    let directory = tempfile::tempdir().unwrap();
    let (running, gate, first) = held(QueueLimits { batches_max: 100, ticks_max: 50 }, directory.path());
    let large = send(running.ingest(), 1, 200);
    assert!(large.is_waiting());
    assert_eq!(send(running.ingest(), 2, 1).answer(), Err(IngestError::QueueFull));
    gate.open.send(()).unwrap();
    assert_eq!((first.answer(), large.answer()), (Ok(1), Ok(2)));
    // What was refused holds no place.
    assert_eq!(send(running.ingest(), 3, 50).answer(), Ok(3));
    running.close().unwrap();
}

/// So many rows that were refused before they came to the writer.
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
fn refused_rows_that_wait_count_like_others() {
    let directory = tempfile::tempdir().unwrap();
    let (running, gate, first) = held(QueueLimits { batches_max: 100, ticks_max: 50 }, directory.path());
    let waiting = send_refused(running.ingest(), 40);
    assert!(waiting.is_waiting());
    assert_eq!(send_refused(running.ingest(), 11).answer(), Err(IngestError::QueueFull));
    assert_eq!(send(running.ingest(), 1, 11).answer(), Err(IngestError::QueueFull));
    gate.open.send(()).unwrap();
    // They change nothing, so the answer names the newest commit.
    assert_eq!((first.answer(), waiting.answer()), (Ok(1), Ok(1)));
    assert_eq!(send_refused(running.ingest(), 50).answer(), Ok(1));
    running.close().unwrap();
}

/// Within seconds, who brings nothing finds out too.
fn poisoned_soon(ingest: &Ingest) -> String {
    let began = Instant::now();
    loop {
        if let Some(cause) = ingest.poisoned() {
            return cause;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "nobody noticed");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_store_that_is_taken_away_stops_writing() {
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
        // Who reads goes on with what was answered for.
        assert_eq!(instants(&ingest.view(), &key(0, 0)).len(), 1, "{way}");
        running.close().unwrap_err();
    }
}

#[test]
fn no_tick_is_answered_for_that_went_to_a_removed_log() {
    let directory = tempfile::tempdir().unwrap();
    let running = run(directory.path(), CheckpointLimits::default(), None);
    let ingest = running.ingest().clone();
    std::fs::remove_file(directory.path().join("log")).unwrap();
    // At once, and not when the writer looks at its files.
    let answer = submit(&ingest, batch_of(&key(0, 0), [(BASE_US, value(0))], false));
    assert!(matches!(&answer, Err(IngestError::Poisoned(cause)) if cause.contains("log was removed")), "{answer:?}");
    running.close().unwrap_err();
}

#[test]
fn nobody_who_stops_waiting_takes_a_batch_back() {
    let directory = tempfile::tempdir().unwrap();
    let (running, gate, first) = held(QueueLimits::default(), directory.path());
    drop(send(running.ingest(), 1, 3));
    gate.open.send(()).unwrap();
    assert_eq!(first.answer(), Ok(1));
    running.close().unwrap();
    assert_eq!(instants(&open(directory.path()).view(), &key(0, 0)).len(), 4);
}

#[test]
fn closing_finishes_what_waits_and_takes_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let (running, gate, first) = held(QueueLimits::default(), directory.path());
    let ingest = running.ingest().clone();
    let mut waiting: Vec<Sent> = (1..=5).map(|hour| send(&ingest, hour, 1)).collect();
    let closer = std::thread::spawn(move || running.close());
    // Batches are taken until closing begins.
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
    assert!(!store.has_changes(), "closing made no checkpoint");
    assert_eq!(instants(&store.view(), &key(0, 0)).len(), count + 1);
}

#[test]
fn a_store_in_order_answers_the_whole_scenario() {
    let directory = tempfile::tempdir().unwrap();
    let running = run(directory.path(), LIMITS, None);
    assert_eq!(send_all(running.ingest()), (COMMITS, None));
    running.close().unwrap();
    check_restart(directory.path(), COMMITS);
}
