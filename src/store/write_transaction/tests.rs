//! What one commit takes in, and what it refuses.

use super::super::StoreOptions;
use super::*;
use crate::domain::{Currency, Pair, Rate, Source};

fn key(number: usize) -> SeriesKey {
    let currency = |code| Currency::parse(code).unwrap();
    let pair = Pair::new(currency("KGS"), currency("USD")).unwrap();
    SeriesKey { pair, source: Source::parse(&format!("s{number}")).unwrap() }
}

fn value(rate: &str) -> PublishedValue {
    PublishedValue { rate: Rate::parse(rate).unwrap(), reported_change: None }
}

fn at(hour: i64) -> Timestamp {
    Timestamp::from_micros(hour * Timestamp::DAY_US)
}

fn store(directory: &tempfile::TempDir) -> Store {
    let options = StoreOptions { series_count_max: 10_000, ..StoreOptions::of_test(directory.path()) };
    Store::open(options, at(0)).unwrap()
}

#[test]
fn the_blocks_that_a_commit_opens_are_limited_over_all_series() {
    const SERIES: usize = 1_500;
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(&directory);
    let mut transaction = store.begin(at(0));
    for number in 0..SERIES {
        let series = transaction.series(&key(number)).unwrap();
        for hour in [1, 3] {
            transaction.upsert(series, at(hour), value("0.01144"), false).unwrap();
        }
    }
    transaction.commit().unwrap();
    store.checkpoint().unwrap();
    // Each late tick opens a block of runs and one of instants.
    let mut transaction = store.begin(at(0));
    let mut send = |number: usize, hour: i64, rate: &str| {
        let series = transaction.series(&key(number)).unwrap();
        let upserted = transaction.upsert(series, at(hour), value(rate), false);
        assert!(
            transaction.opened_block_count() <= WriteTransaction::OPENED_BLOCKS_MAX,
            "{}",
            transaction.opened_block_count()
        );
        upserted
    };
    let fits = WriteTransaction::OPENED_BLOCKS_MAX / 2;
    let late = Ok(Upserted::NewRun { late: true });
    assert!((0..fits).all(|number| send(number, 2, "0.01145") == late));
    let last = SERIES - 1;
    assert_eq!(send(last, 2, "0.01145"), Err(UpsertError::TooScattered));
    // What opens nothing is answered as ever: what is known, what conflicts, what lies in blocks that are open, and
    // what is newest.
    assert_eq!(send(last, 1, "0.01144"), Ok(Upserted::Known));
    assert_eq!(send(last, 1, "0.01145"), Err(UpsertError::Conflict(value("0.01144"))));
    assert_eq!(send(0, 2, "0.01145"), Ok(Upserted::Known));
    assert_eq!(send(last, 4, "0.01145"), Ok(Upserted::NewRun { late: false }));
    transaction.commit().unwrap();
    // The next commit has room again.
    let mut transaction = store.begin(at(0));
    let series = transaction.series(&key(last)).unwrap();
    assert_eq!(transaction.upsert(series, at(2), value("0.01145"), false), late);
    transaction.commit().unwrap();
    assert_eq!(store.verify().problems, Vec::<String>::new());
}

#[test]
fn a_tick_of_a_series_that_is_not_there_is_not_taken_for_one_series_too_many() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(&directory);
    let mut transaction = store.begin(at(0));
    let savepoint = transaction.savepoint([].into_iter());
    let gone = transaction.series(&key(1)).unwrap();
    transaction.roll_back(savepoint);
    let refused = transaction.upsert(gone, at(1), value("0.01144"), false);
    let Err(UpsertError::Damaged(error)) = &refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("a tick is of series 1, which is not there"), "{error}");
    assert_eq!(transaction.commit(), Ok(None));
}

#[test]
fn a_logged_tick_replaces_what_is_there_and_one_of_an_unknown_series_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(&directory);
    let mut transaction = store.begin(at(0));
    let series = transaction.series(&key(1)).unwrap();
    transaction.upsert(series, at(1), value("0.01144"), false).unwrap();
    transaction.commit().unwrap();
    let mut replay = |series: u32, rate: &str| {
        store.upsert_logged(series, at(1), value(rate), at(0), &mut series::Commit::default())
    };
    // The log holds effects: a value that differs from the stored one was a revision, never a conflict.
    assert_eq!(replay(1, "0.01145"), Ok(()));
    let unknown = replay(2, "0.01145");
    assert!(matches!(&unknown, Err(StoreError::Damaged { .. })), "{unknown:?}");
}
