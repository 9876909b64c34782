//! Limits and refusals of a transaction, and replay of logged ticks.

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

fn at(day: i64) -> Timestamp {
    Timestamp::from_micros(day * Timestamp::DAY_US)
}

fn store(directory: &tempfile::TempDir) -> Store {
    let options = StoreOptions { series_count_max: 10_000, ..StoreOptions::of_test(directory.path()) };
    Store::open(options, at(0)).unwrap()
}

#[test]
fn mutable_segments_of_a_commit_are_limited_over_all_series() {
    const SERIES: usize = 1_500;
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(&directory);
    let mut transaction = store.begin(at(0));
    for number in 0..SERIES {
        let series = transaction.series(&key(number)).unwrap();
        for day in [1, 3] {
            transaction.upsert(series, at(day), value("0.01144"), false).unwrap();
        }
    }
    transaction.commit().unwrap();
    store.checkpoint().unwrap();
    // Each late tick makes a segment of runs and a segment of instants mutable.
    let mut transaction = store.begin(at(0));
    let mut send = |number: usize, day: i64, rate: &str| {
        let series = transaction.series(&key(number)).unwrap();
        let upserted = transaction.upsert(series, at(day), value(rate), false);
        assert!(
            transaction.mutable_segment_count() <= WriteTransaction::MUTABLE_SEGMENTS_MAX,
            "{}",
            transaction.mutable_segment_count()
        );
        upserted
    };
    let fits = WriteTransaction::MUTABLE_SEGMENTS_MAX / 2;
    let late = Ok(Upserted::NewRun { late: true });
    assert!((0..fits).all(|number| send(number, 2, "0.01145") == late));
    let last = SERIES - 1;
    assert_eq!(send(last, 2, "0.01145"), Err(UpsertError::TooScattered));
    // Ticks that need no further mutable segment are still accepted: a known tick, a conflict, a tick in a mutable
    // segment, and the newest tick of a series.
    assert_eq!(send(last, 1, "0.01144"), Ok(Upserted::Known));
    assert_eq!(send(last, 1, "0.01145"), Err(UpsertError::Conflict(value("0.01144"))));
    assert_eq!(send(0, 2, "0.01145"), Ok(Upserted::Known));
    assert_eq!(send(last, 4, "0.01145"), Ok(Upserted::NewRun { late: false }));
    transaction.commit().unwrap();
    // The limit applies to each commit: the next commit accepts the tick.
    let mut transaction = store.begin(at(0));
    let series = transaction.series(&key(last)).unwrap();
    assert_eq!(transaction.upsert(series, at(2), value("0.01145"), false), late);
    transaction.commit().unwrap();
    assert_eq!(store.verify().problems, Vec::<String>::new());
}

#[test]
fn tick_of_unknown_series_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(&directory);
    let mut transaction = store.begin(at(0));
    let savepoint = transaction.savepoint([].into_iter());
    let rolled_back = transaction.series(&key(1)).unwrap();
    transaction.roll_back(savepoint);
    let refused = transaction.upsert(rolled_back, at(1), value("0.01144"), false);
    let Err(UpsertError::Damaged(error)) = &refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("a tick names series 1, which does not exist"), "{error}");
    assert_eq!(transaction.commit(), Ok(None));
}

#[test]
fn logged_tick_replaces_stored_value_and_unknown_series_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(&directory);
    let mut transaction = store.begin(at(0));
    let series = transaction.series(&key(1)).unwrap();
    transaction.upsert(series, at(1), value("0.01144"), false).unwrap();
    transaction.commit().unwrap();
    let mut replay =
        |series: u32, rate: &str| store.upsert_logged(series, at(1), value(rate), at(0), &mut SeriesCommit::default());
    // The log contains only accepted ticks. So a logged value that differs from the stored value is a revision and
    // not a conflict.
    assert_eq!(replay(1, "0.01145"), Ok(()));
    let unknown = replay(2, "0.01145");
    assert!(matches!(&unknown, Err(StoreError::Damaged { .. })), "{unknown:?}");
}
