//! Poll records: after commits, checkpoints and restarts they equal the recorded polls, in order.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use silkrate::domain::{Health, Poll, PollSpan, Source, Timestamp};
use silkrate::ingest::IngestError;
use silkrate::store::{DiskFault, DiskOperation, PollRefused, Store, verify};

use crate::store::durable::{BASE_US, SECOND, TINY_CHECKPOINTS, key, now, open, run, value};

fn source(number: usize) -> Source {
    Source::parse(&format!("bank-{number}")).unwrap()
}

fn poll(source_number: usize, second: i64, covered_s: i64, health: Health) -> Poll {
    let at = |second: i64| Timestamp::from_micros(BASE_US + second * SECOND);
    Poll { source: source(source_number), time: at(second), covered_until: at(second + covered_s), health }
}

fn record(store: &mut Store, polls: &[Poll]) {
    let mut transaction = store.begin(now());
    for poll in polls {
        transaction.record_poll(poll).unwrap();
    }
    transaction.commit().unwrap();
}

/// Returns the poll spans of a source as readers see them.
fn spans(store: &Store, source: &Source) -> Vec<PollSpan> {
    store.view().polls(source).map(|polls| polls.spans().copied().collect()).unwrap_or_default()
}

/// Collapses polls into spans, one after the other.
fn collapsed<'a>(polls: impl Iterator<Item = &'a Poll>) -> Vec<PollSpan> {
    let mut spans: Vec<PollSpan> = Vec::new();
    for poll in polls {
        let next = spans.last_mut().map_or_else(|| Some(PollSpan::single(poll)), |last| last.admit(poll));
        spans.extend(next);
    }
    spans
}

#[derive(Clone, Debug)]
enum Step {
    /// Polls of one commit: source, seconds since the previous poll, number of seconds that the poll covers, health.
    Polls(Vec<(usize, i64, i64, usize)>),
    Checkpoint,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let polls = proptest::collection::vec((0_usize..3, 0_i64..4, 0_i64..4, 0_usize..4), 1..120);
    prop_oneof![6 => polls.prop_map(Step::Polls), 1 => Just(Step::Checkpoint), 2 => Just(Step::Reopen)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn poll_record_equals_collapsed_polls(steps in proptest::collection::vec(step(), 1..14)) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        let (mut recorded, mut second, mut commits) = (Vec::new(), 0, 0);
        for step in steps {
            match step {
                Step::Polls(polls) => {
                    let polls = polls.into_iter().map(|(source, after_s, covered_s, health)| {
                        second += after_s;
                        poll(source, second, covered_s, Health::ALL[health])
                    });
                    let polls: Vec<Poll> = polls.collect();
                    record(&mut store, &polls);
                    recorded.extend(polls);
                    commits += 1;
                }
                Step::Checkpoint => store.checkpoint().unwrap(),
                Step::Reopen => {
                    // Dropped without a checkpoint, as after a kill: newer commits are only in the log.
                    drop(store);
                    store = open(directory.path());
                }
            }
            for number in 0..3 {
                let source = source(number);
                let expect = collapsed(recorded.iter().filter(|poll| poll.source == source));
                prop_assert_eq!(spans(&store, &source), expect, "{}", source);
            }
            prop_assert_eq!(store.newest_commit().sequence, commits);
            prop_assert_eq!(store.view().latest_quotes.last_ingest_time, None, "polls must not count as ingest");
        }
        let count: usize = (0..3).map(|number| spans(&store, &source(number)).len()).sum();
        prop_assert_eq!(store.verify().poll_span_count, count as u64);
        drop(store);
        prop_assert_eq!(verify(directory.path()).unwrap().problems, Vec::<String>::new());
    }
}

#[test]
fn view_does_not_see_later_polls() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    record(&mut store, &[poll(0, 0, 60, Health::Ok)]);
    let earlier = store.view();
    let seen: Vec<PollSpan> = earlier.polls(&source(0)).unwrap().spans().copied().collect();
    record(&mut store, &[poll(0, 30, 60, Health::Ok), poll(0, 50, 60, Health::Silent), poll(1, 50, 60, Health::Ok)]);
    store.checkpoint().unwrap();
    assert_eq!(earlier.polls(&source(0)).unwrap().spans().copied().collect::<Vec<_>>(), seen);
    assert!(earlier.polls(&source(1)).is_none());
    assert_eq!(spans(&store, &source(0)).len(), 2);
}

#[test]
fn polls_share_a_commit_with_ticks() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let mut transaction = store.begin(now());
    let series = transaction.series(&key(0, 0)).unwrap();
    transaction.upsert(series, Timestamp::from_micros(BASE_US), value(1), false).unwrap();
    transaction.record_poll(&poll(0, 0, 60, Health::Ok)).unwrap();
    let commit = transaction.commit().unwrap().unwrap();
    assert_eq!(commit.sequence, 1);
    let ingested = store.view().latest_quotes.last_ingest_time;
    assert_eq!(ingested, Some(commit.recorded_time));
    record(&mut store, &[poll(0, 10, 60, Health::Ok)]);
    assert_eq!((store.newest_commit().sequence, store.view().latest_quotes.last_ingest_time), (2, ingested));
}

/// Records enough changes of health that the oldest spans are removed.
#[test]
fn oldest_poll_spans_are_removed_beyond_the_limit() {
    const SPANS_KEPT_MAX: usize = 128 * 512;
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let polls: Vec<Poll> =
        (0..66_500).map(|at| poll(0, at, 1, Health::ALL[usize::try_from(at % 2).unwrap()])).collect();
    let all = collapsed(polls.iter());
    for (number, part) in polls.chunks(20_000).enumerate() {
        record(&mut store, part);
        // When the store is reopened, the last part is only in the log.
        if number < 3 {
            store.checkpoint().unwrap();
        }
    }
    let check = |store: &Store| {
        let kept = spans(store, &source(0));
        assert!((SPANS_KEPT_MAX - 128..=SPANS_KEPT_MAX).contains(&kept.len()), "{}", kept.len());
        assert!(all.ends_with(&kept), "the newest spans must be unchanged");
        let middle = kept[kept.len() / 2];
        let record = store.view();
        let after: Vec<_> = record.polls(&source(0)).unwrap().spans_after(middle.covered_until).copied().collect();
        assert_eq!(after, kept[kept.len() / 2 + 1..]);
    };
    check(&store);
    drop(store);
    let mut store = open(directory.path());
    check(&store);
    store.checkpoint().unwrap();
    drop(store);
    check(&open(directory.path()));
    assert_eq!(verify(directory.path()).unwrap().problems, Vec::<String>::new());
}

#[test]
fn poll_of_a_source_beyond_the_limit_of_sources_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let first: Vec<Poll> = (0..64).map(|number| poll(number, 0, 60, Health::Ok)).collect();
    record(&mut store, &first);
    let mut transaction = store.begin(now());
    let refused = transaction.record_poll(&poll(64, 30, 60, Health::Ok)).unwrap_err();
    assert_eq!(refused, PollRefused::TooManySources(source(64)));
    transaction.record_poll(&poll(63, 30, 60, Health::Ok)).unwrap();
    transaction.commit().unwrap();
    drop(store);
    let store = open(directory.path());
    assert!(store.view().polls(&source(64)).is_none());
    assert_eq!(spans(&store, &source(63))[0].poll_count, 2);
}

/// The eighth sync after the creation of the store fails, during commits and checkpoints.
#[test]
fn poll_is_not_acknowledged_if_its_sync_fails() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let syncs = Arc::new(AtomicUsize::new(0));
    let fault: DiskFault = Arc::new(move |operation| {
        if operation == DiskOperation::Sync && syncs.fetch_add(1, Ordering::SeqCst) == 7 {
            return Err(io::Error::other("injected disk fault"));
        }
        Ok(())
    });
    let running = run(directory.path(), TINY_CHECKPOINTS, Some(fault));
    let ingest = running.ingest().clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut answered = Vec::new();
    let error = (0..100).find_map(|at| {
        let poll = poll(0, at, 1, if at % 2 == 0 { Health::Ok } else { Health::Silent });
        let error = runtime.block_on(ingest.record_poll(poll.clone())).err();
        answered.extend(error.is_none().then_some(poll));
        error
    });
    assert!(matches!(&error, Some(IngestError::Poisoned(cause)) if cause.contains("injected disk fault")), "{error:?}");
    assert!(answered.len() >= 5, "{}", answered.len());
    let seen: Vec<PollSpan> = ingest.view().polls(&source(0)).unwrap().spans().copied().collect();
    assert_eq!(seen, collapsed(answered.iter()));
    let again = runtime.block_on(ingest.record_poll(poll(0, 100, 1, Health::Ok)));
    assert!(matches!(&again, Err(IngestError::Poisoned(_))), "{again:?}");
    assert!(running.close().is_err());
    drop(ingest);
    // The failed poll may be stored too, completely.
    let count: u64 = spans(&open(directory.path()), &source(0)).iter().map(|span| span.poll_count).sum();
    assert!((answered.len()..=answered.len() + 1).contains(&(count as usize)), "{count}");
}

#[test]
fn refused_poll_is_not_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let running = run(directory.path(), TINY_CHECKPOINTS, None);
    let ingest = running.ingest().clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in 0..64 {
        runtime.block_on(ingest.record_poll(poll(number, 0, 60, Health::Ok))).unwrap();
    }
    let refused = runtime.block_on(ingest.record_poll(poll(64, 0, 60, Health::Ok)));
    assert!(matches!(&refused, Err(IngestError::Poll(_))), "{refused:?}");
    assert!(refused.unwrap_err().to_string().contains("are not recorded"));
    assert!(ingest.view().polls(&source(64)).is_none());
    // Later polls of a recorded source are still recorded.
    runtime.block_on(ingest.record_poll(poll(63, 60, 60, Health::Ok))).unwrap();
    running.close().unwrap();
}
