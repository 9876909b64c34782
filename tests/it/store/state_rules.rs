//! State rules: a start with other rules commits the changed states, whether the previous server was killed or stopped
//! cleanly.

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

/// Returns the sequence of the latest quotes, the state of their only quote, and the sequence of that quote's last
/// change.
fn sequence_and_state(latest_quotes: &LatestQuotes) -> (u64, RateState, u64) {
    (latest_quotes.sequence, latest_quotes.quotes[0].state, latest_quotes.quotes[0].changed_sequence)
}

/// Opens the store, makes the commit that time or the rules require, and ends without a checkpoint, as a killed
/// process does.
fn opened_and_killed(directory: &Path, stale_limit_us: i64, now: Timestamp) -> (u64, RateState, u64) {
    let mut store = Store::open(with_stale_limit(directory, stale_limit_us), now).unwrap();
    store.begin(now).commit().unwrap();
    sequence_and_state(&store.view().latest_quotes)
}

/// Creates a store with one tick that is three hours old.
fn store_with_one_tick(directory: &Path, now: Timestamp) {
    let mut store = Store::open(with_stale_limit(directory, 24 * HOUR), now).unwrap();
    let mut transaction = store.begin(now);
    let series = transaction.series(&key(0, 0)).unwrap();
    transaction.upsert(series, now.saturating_add_us(-3 * HOUR), value(0), false).unwrap();
    transaction.commit().unwrap();
    assert_eq!(sequence_and_state(&store.view().latest_quotes), (1, RateState::Flat, 1));
}

#[test]
fn start_with_other_rules_after_a_kill_commits_changed_states() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemClock.now();
    store_with_one_tick(directory.path(), now);
    // By the rules of commit 1 the rate is fresh. The start replays commit 1 with these rules, and then makes commit 2,
    // which marks the rate as stale.
    assert_eq!(opened_and_killed(directory.path(), HOUR, now), (2, RateState::Stale, 2));
    // With the same rules nothing changes.
    assert_eq!(opened_and_killed(directory.path(), HOUR, now), (2, RateState::Stale, 2));
    assert_eq!(opened_and_killed(directory.path(), 24 * HOUR, now), (3, RateState::Flat, 3));
    // The state is the same, but the rate becomes stale at another time.
    assert_eq!(opened_and_killed(directory.path(), 25 * HOUR, now), (4, RateState::Flat, 4));
    assert_eq!(opened_and_killed(directory.path(), 25 * HOUR, now), (4, RateState::Flat, 4));
}

#[test]
fn start_with_other_rules_after_a_clean_stop_commits_changed_states() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemClock.now();
    store_with_one_tick(directory.path(), now);
    for (stale_limit_us, expect) in
        [(HOUR, (2, RateState::Stale, 2)), (HOUR, (2, RateState::Stale, 2)), (24 * HOUR, (3, RateState::Flat, 3))]
    {
        let mut store = Store::open(with_stale_limit(directory.path(), stale_limit_us), now).unwrap();
        store.begin(now).commit().unwrap();
        store.checkpoint().unwrap();
        assert_eq!(sequence_and_state(&store.view().latest_quotes), expect);
        assert_eq!(store.verify().problems, Vec::<String>::new());
    }
}

#[test]
fn start_with_other_rules_advances_the_sequence() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let start = |stale_limit_us| {
        let options = with_stale_limit(directory.path(), stale_limit_us);
        Running::open(options, QueueLimits::default(), Arc::clone(&clock) as _).unwrap().0
    };
    let running = start(24 * HOUR);
    let observed_us = clock.now().micros() - 3 * HOUR;
    submit(running.ingest(), batch_of(&key(0, 0), [(observed_us, value(0))], false)).unwrap();
    let before = sequence_and_state(&running.ingest().view().latest_quotes);
    running.close().unwrap();
    let running = start(HOUR);
    let (sequence, state, changed_sequence) = sequence_and_state(&running.ingest().view().latest_quotes);
    assert_eq!((sequence, state, changed_sequence), (before.0 + 1, RateState::Stale, before.0 + 1));
    running.close().unwrap();
}
