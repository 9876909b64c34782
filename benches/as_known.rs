//! As-of reads of a store with a million revisions, compared with the same reads of a store without revisions. Both
//! stores are measured in one process.
//!
//! `cargo bench --bench as_known [-- scattered|day|backfill]`; `SILKRATE_BENCH_REVISIONS` sets the number of
//! revisions. The benchmark fails if a read takes more than twice as long as the same read without revisions.

#![allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "these are measurements, not rates")]
#![allow(clippy::cast_possible_wrap, reason = "seconds and microseconds of generated ticks are small")]

mod support;

use std::sync::Arc;
use std::time::Instant;

use silkrate::domain::{PublishedValue, Rate, ScanOrder, SeriesKey, Timestamp};
use silkrate::query::{BucketsRequest, ChangesRequest, Moment, Period, Range, RateRequest, Reader};
use silkrate::store::{Store, View};
use support::{BASE_US, ROUNDS, Random, is_selected, keys, median, parameter, report, resident_mb, store_options};
use tokio_util::sync::CancellationToken;

const NOW: Timestamp = Timestamp::from_micros(BASE_US);
/// Number of days.
const DAYS: u64 = 2_000;
/// Number of rates per day. Each rate is a separate run.
const DAY_RATES: u64 = 100;
const RATES: u64 = DAYS * DAY_RATES;
/// Rates per commit.
const COMMIT_RATES: usize = 10_000;
/// Days on a page of changes.
const PAGE_DAYS: usize = 1_000;
/// Calls of `GetRate` per round.
const CALLS: usize = 2_000;
/// The largest allowed ratio of the duration of a read to the duration of the same read without revisions.
const RATIO_MAX: f64 = 2.0;

/// A store of one series.
struct Filled {
    store: Store,
    key: SeriesKey,
    _directory: tempfile::TempDir,
}

/// Returns the observed time of a rate by its number.
fn observed(number: u64) -> Timestamp {
    let start_us = BASE_US - DAYS as i64 * Timestamp::DAY_US;
    Timestamp::from_micros(start_us + number as i64 * (Timestamp::DAY_US / DAY_RATES as i64))
}

/// Returns version `version` of the rate with the number `number`. The value differs from the neighbouring rates and
/// from the other versions of the same rate.
fn value(number: u64, version: u64) -> PublishedValue {
    let mantissa = 100_000 + (number * 7 + version * 3) % 50_000;
    PublishedValue { rate: Rate::from_parts(u128::from(mantissa), 6).expect("a rate"), reported_change: None }
}

impl Filled {
    /// Creates a store with the first version of every rate.
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(store_options(directory.path()), NOW).expect("a new store");
        let mut filled = Self { store, key: keys().swap_remove(0), _directory: directory };
        let numbers: Vec<u64> = (0..RATES).collect();
        filled.put(&numbers, 0);
        filled
    }

    /// Stores a version of these rates, in commits of a limited size.
    fn put(&mut self, numbers: &[u64], version: u64) {
        for piece in numbers.chunks(COMMIT_RATES) {
            let mut transaction = self.store.begin(NOW);
            let series = transaction.series(&self.key).expect("room for a series");
            for number in piece {
                transaction.upsert(series, observed(*number), value(*number, version), true).expect("a good tick");
            }
            transaction.commit().expect("a good disk");
            if self.store.checkpoint_is_due() {
                self.store.checkpoint().expect("a good disk");
            }
        }
    }

    fn known(&self) -> Timestamp {
        self.store.newest_commit().recorded_time
    }

    /// Adds a commit with one more rate, so that every known time of this benchmark is before the newest commit. Then
    /// makes a checkpoint and returns the view.
    fn view(&mut self) -> Arc<View> {
        self.put(&[RATES], 0);
        self.store.checkpoint().expect("a good disk");
        Arc::new(self.store.view())
    }
}

/// One side of a comparison: a reader of one store, and the known time of the reads.
struct Side {
    reader: Reader,
    key: SeriesKey,
    known: Timestamp,
}

impl Side {
    fn new(view: &Arc<View>, key: &SeriesKey, known: Timestamp) -> Self {
        let rules = Arc::new(support::state_rules());
        let reader = Reader::new(Arc::clone(view), NOW, rules, CancellationToken::new());
        Self { reader, key: key.clone(), known }
    }

    /// Measures `GetRate` for the time one second after a rate. Returns microseconds.
    fn rate_us(&self, number: u64, version: u64) -> f64 {
        let request = RateRequest {
            pair: self.key.pair,
            source: None,
            leg_sources: Vec::new(),
            time: Some(Moment::At(observed(number).saturating_add_us(Timestamp::SECOND_US))),
            zone: None,
            max_age_us: None,
            known_time: Some(self.known),
        };
        let begun = Instant::now();
        let response = self.reader.rate(&request).expect("undamaged blocks").body;
        let us = begun.elapsed().as_secs_f64() * 1e6;
        assert_eq!(response.legs[0].1.value, value(number, version));
        us
    }

    /// Measures a page of day-on-day changes. Returns microseconds.
    fn page_us(&self, days: u64) -> f64 {
        let start = observed((days - PAGE_DAYS as u64) * DAY_RATES);
        let list = BucketsRequest {
            pair: self.key.pair,
            source: None,
            leg_sources: Vec::new(),
            range: Range::new(Some(start), None).expect("a range").into(),
            zone: None,
            known_time: Some(self.known),
            order: ScanOrder::Ascending,
            after: None,
            limit: PAGE_DAYS,
        };
        let request = ChangesRequest { list, period: Period::DayOnDay };
        let begun = Instant::now();
        let page = self.reader.changes(&request).expect("undamaged blocks").body;
        let us = begun.elapsed().as_secs_f64() * 1e6;
        assert_eq!(page.rows.len(), PAGE_DAYS);
        us
    }
}

/// Measures both sides alternately, and panics if the reads of the store with revisions take too long. `numbers` are
/// the rates to read, and `version` is the version that the store with revisions must return.
fn compare(what: &str, [plain, revised]: [&Side; 2], numbers: &[u64], version: u64) {
    let mut rates: [Vec<f64>; 2] = Default::default();
    let mut pages: [Vec<f64>; 2] = Default::default();
    for round in 0..ROUNDS {
        let mut random = Random(round as u64);
        let mut calls: [Vec<f64>; 2] = Default::default();
        for _ in 0..CALLS {
            let number = numbers[usize::try_from(random.below(numbers.len() as u64)).expect("a small number")];
            calls[0].push(plain.rate_us(number, 0));
            calls[1].push(revised.rate_us(number, version));
        }
        for (side, calls) in calls.into_iter().enumerate() {
            rates[side].push(median(calls));
        }
        for (side, of) in [plain, revised].into_iter().enumerate() {
            pages[side].push(of.page_us(DAYS));
        }
    }
    for (call, times) in [("GetRate", rates), ("a page of ListChanges", pages)] {
        let [plain, revised] = times.map(median);
        report(&format!("{what}: {call}"), revised, "us", "-");
        report("  without revisions", plain, "us", "-");
        report("  ratio", revised / plain, "times", "<= 2");
        assert!(
            revised / plain <= RATIO_MAX,
            "{what}: {call} takes {:.2} times as long as without revisions",
            revised / plain
        );
    }
}

/// Measures the first read of a view, which builds the index.
fn first_read(side: &Side, number: u64, version: u64) {
    report("the first read, which builds the index", side.rate_us(number, version) / 1e3, "ms", "-");
    report("  resident memory after the first read", resident_mb(), "MB", "-");
}

/// Returns a store without revisions, and a reader of the store.
fn plain() -> (Filled, Side) {
    let mut filled = Filled::new();
    let known = filled.known();
    let view = filled.view();
    let side = Side::new(&view, &filled.key, known);
    (filled, side)
}

/// Revises every other rate, so that each block has revised and unrevised rates. The rates are revised in a scattered
/// order, so that each block of revisions has revisions of all days.
fn scattered() {
    let revisions = parameter("SILKRATE_BENCH_REVISIONS", 1_000_000);
    let (_filled, plain) = plain();
    let mut filled = Filled::new();
    let mut known = vec![filled.known()];
    let odd: Vec<u64> = (0..RATES / 2).map(|nth| nth * 7_919 % (RATES / 2) * 2 + 1).collect();
    let rounds = revisions.div_ceil(RATES / 2);
    for round in 1..=rounds {
        filled.put(&odd, round);
        known.push(filled.known());
    }
    let view = filled.view();
    let side = |version: u64| Side::new(&view, &filled.key, known[usize::try_from(version).expect("few rounds")]);
    first_read(&side(0), 1, 0);
    for version in [0, rounds / 2] {
        compare(
            &format!("scattered, after {version} of {rounds} rounds, revised rates"),
            [&plain, &side(version)],
            &odd,
            version,
        );
    }
    let even: Vec<u64> = (0..RATES).step_by(2).collect();
    compare("scattered, unrevised rates", [&plain, &side(0)], &even, 0);
}

/// Revises the rates of one day repeatedly.
fn day() {
    let revisions = parameter("SILKRATE_BENCH_REVISIONS", 1_000_000);
    let (_filled, plain) = plain();
    let mut filled = Filled::new();
    let mut known = vec![filled.known()];
    let of_day: Vec<u64> = (DAYS / 2 * DAY_RATES..(DAYS / 2 + 1) * DAY_RATES).collect();
    let rounds = revisions.div_ceil(DAY_RATES);
    for round in 1..=rounds {
        filled.put(&of_day, round);
        known.push(filled.known());
    }
    let view = filled.view();
    let side = |version: u64| Side::new(&view, &filled.key, known[usize::try_from(version).expect("few rounds")]);
    first_read(&side(0), 1, 0);
    for version in [0, rounds / 2] {
        compare(&format!("one day, after {version} of {rounds} rounds"), [&plain, &side(version)], &of_day, version);
    }
}

/// Adds rates between the existing rates, in later commits. The store then has no revisions.
fn backfill() {
    let rates = parameter("SILKRATE_BENCH_REVISIONS", 1_000_000);
    let (_filled, plain) = plain();
    let mut filled = Filled::new();
    let known = filled.known();
    let seconds: Vec<u64> = (0..rates).collect();
    for piece in seconds.chunks(COMMIT_RATES) {
        let mut transaction = filled.store.begin(NOW);
        let series = transaction.series(&filled.key).expect("room for a series");
        for second in piece {
            // The added rates are in the last second before the midnight of many days. So a read of the close of a day
            // must skip many rates that were recorded later.
            let time = observed((second / 500 % DAYS + 1) * DAY_RATES)
                .saturating_add_us(-1_000 * (*second as i64 % 500 + 1) - 1);
            transaction.upsert(series, time, value(*second, 1), true).expect("a good tick");
        }
        transaction.commit().expect("a good disk");
        if filled.store.checkpoint_is_due() {
            filled.store.checkpoint().expect("a good disk");
        }
    }
    let view = filled.view();
    let side = Side::new(&view, &filled.key, known);
    let all: Vec<u64> = (0..RATES).collect();
    compare("after a backfill", [&plain, &side], &all, 0);
}

fn main() {
    let parts: [(&str, fn()); 3] = [("scattered", scattered), ("day", day), ("backfill", backfill)];
    for (name, part) in parts {
        if is_selected(name) {
            println!("# {name}");
            part();
        }
    }
}
