//! The rules of states: a start with others changes states by a commit, however the server before it ended.

use std::path::Path;
use std::sync::Arc;

use silkrate::clock::{Clock as _, ManualClock, SystemClock};
use silkrate::domain::Timestamp;
use silkrate::ingest::{QueueLimits, Running};
use silkrate::latest_quotes::{LatestQuotes, RateState, StateRules};
use silkrate::store::{CheckpointLimits, Store, StoreOptions};

use crate::store::durable::{SECOND, batch_of, key, options, submit, value};

const HOUR: i64 = 3_600 * SECOND;

fn with_stale_limit(directory: &Path, stale_limit_us: i64) -> StoreOptions {
    let options = options(directory, CheckpointLimits::default(), None);
    StoreOptions {
        state_rules: StateRules { stale_limit_default_us: stale_limit_us, ..options.state_rules },
        ..options
    }
}

/// What a store opened with a stale limit says: its sequence, the state of its only quote, and the sequence at which that
/// last changed.
fn said(latest_quotes: &LatestQuotes) -> (u64, RateState, u64) {
    (latest_quotes.sequence, latest_quotes.quotes[0].state, latest_quotes.quotes[0].changed_sequence)
}

/// Opens the store, which makes the commit that time or the rules call for, and ends as a killed process does: without a
/// checkpoint.
fn opened_and_killed(directory: &Path, stale_limit_us: i64, now: Timestamp) -> (u64, RateState, u64) {
    let mut store = Store::open(with_stale_limit(directory, stale_limit_us), now).unwrap();
    store.begin(now).commit().unwrap();
    said(&store.view().latest_quotes)
}

/// A store with one tick, three hours old.
fn store_with_one_tick(directory: &Path, now: Timestamp) {
    let mut store = Store::open(with_stale_limit(directory, 24 * HOUR), now).unwrap();
    let mut transaction = store.begin(now);
    let series = transaction.series(&key(0, 0)).unwrap();
    transaction.upsert(series, now.saturating_add_us(-3 * HOUR), value(0), false).unwrap();
    transaction.commit().unwrap();
    assert_eq!(said(&store.view().latest_quotes), (1, RateState::Flat, 1));
}

#[test]
fn a_start_after_a_kill_with_other_rules_makes_a_commit() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemClock.now();
    store_with_one_tick(directory.path(), now);
    // Replayed by the rules it was made by, commit 1 said that the rate was fresh; commit 2 says otherwise.
    assert_eq!(opened_and_killed(directory.path(), HOUR, now), (2, RateState::Stale, 2));
    // The same rules again: nothing is new.
    assert_eq!(opened_and_killed(directory.path(), HOUR, now), (2, RateState::Stale, 2));
    assert_eq!(opened_and_killed(directory.path(), 24 * HOUR, now), (3, RateState::Flat, 3));
    // The state is the same, and the time at which it goes stale is another.
    assert_eq!(opened_and_killed(directory.path(), 25 * HOUR, now), (4, RateState::Flat, 4));
    assert_eq!(opened_and_killed(directory.path(), 25 * HOUR, now), (4, RateState::Flat, 4));
}

#[test]
fn a_start_after_an_orderly_stop_does_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemClock.now();
    store_with_one_tick(directory.path(), now);
    for (stale_limit_us, expect) in
        [(HOUR, (2, RateState::Stale, 2)), (HOUR, (2, RateState::Stale, 2)), (24 * HOUR, (3, RateState::Flat, 3))]
    {
        let mut store = Store::open(with_stale_limit(directory.path(), stale_limit_us), now).unwrap();
        store.begin(now).commit().unwrap();
        store.checkpoint().unwrap();
        assert_eq!(said(&store.view().latest_quotes), expect);
        assert_eq!(store.verify().problems, Vec::<String>::new());
    }
}

#[test]
fn who_watches_sees_the_commit_of_a_start_with_other_rules() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let start = |stale_limit_us| {
        let options = with_stale_limit(directory.path(), stale_limit_us);
        Running::open(options, QueueLimits::default(), Arc::clone(&clock) as _).unwrap().0
    };
    let running = start(24 * HOUR);
    let observed_us = clock.now().micros() - 3 * HOUR;
    submit(running.ingest(), batch_of(&key(0, 0), [(observed_us, value(0))], false)).unwrap();
    let before = said(&running.ingest().view().latest_quotes);
    running.close().unwrap();
    let running = start(HOUR);
    let (sequence, state, changed_sequence) = said(&running.ingest().view().latest_quotes);
    assert_eq!((sequence, state, changed_sequence), (before.0 + 1, RateState::Stale, before.0 + 1));
    running.close().unwrap();
}
