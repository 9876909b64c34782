//! Reads as known earlier, after a million revisions and without one, in the same run.
//!
//! `cargo bench --bench as_known [-- scattered|day|backfill]`; `SILKRATE_BENCH_REVISIONS` sets how many. It fails where a
//! read costs more than twice what it costs without revisions.

#![allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "these are measurements, not rates")]
#![allow(clippy::cast_possible_wrap, reason = "seconds and microseconds of made-up ticks are small")]

mod support;

use std::sync::Arc;
use std::time::Instant;

use silkrate::analysis::Zone;
use silkrate::domain::{PublishedValue, Rate, SeriesKey, Timestamp};
use silkrate::query::{BucketsRequest, ChangesRequest, Period, Range, RateRequest, Reader};
use silkrate::store::{Store, View};
use support::{BASE_US, ROUNDS, Random, keys, median, parameter, report, resident_mb, store_options, wanted};
use tokio_util::sync::CancellationToken;

const NOW: Timestamp = Timestamp::from_micros(BASE_US);
/// Days with rates, and rates of a day: the store has a run for each.
const DAYS: u64 = 2_000;
const DAY_RATES: u64 = 100;
const RATES: u64 = DAYS * DAY_RATES;
/// Rates of one commit.
const COMMIT_RATES: usize = 10_000;
/// Days of a page of changes.
const PAGE_DAYS: usize = 1_000;
/// Calls of `GetRate` in a round.
const CALLS: usize = 2_000;
/// How much more a read may cost than without revisions.
const RATIO_MAX: f64 = 2.0;

/// A store of one series, and the recorded times at which reads of it are known.
struct Filled {
    store: Store,
    key: SeriesKey,
    _directory: tempfile::TempDir,
}

/// When the rate with this number is observed.
fn observed(number: u64) -> Timestamp {
    let start_us = BASE_US - DAYS as i64 * Timestamp::DAY_US;
    Timestamp::from_micros(start_us + number as i64 * (Timestamp::DAY_US / DAY_RATES as i64))
}

/// What it says in a version: never what its neighbours or its other versions say.
fn value(number: u64, version: u64) -> PublishedValue {
    let mantissa = 100_000 + (number * 7 + version * 3) % 50_000;
    PublishedValue { rate: Rate::from_parts(u128::from(mantissa), 6).expect("a rate"), reported_change: None }
}

impl Filled {
    /// With the first version of every rate.
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(store_options(directory.path()), NOW).expect("a new store");
        let mut filled = Self { store, key: keys().swap_remove(0), _directory: directory };
        let numbers: Vec<u64> = (0..RATES).collect();
        filled.put(&numbers, 0);
        filled
    }

    /// Puts a version of these rates, in commits of a limited size.
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

    /// Ends with a commit, so that what was known before it is known earlier, and with nothing in memory.
    fn view(&mut self) -> Arc<View> {
        self.put(&[RATES], 0);
        self.store.checkpoint().expect("a good disk");
        Arc::new(self.store.view())
    }
}

/// Reads of one store as known at one time.
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

    /// Microseconds of a `GetRate` of the rate with this number, a moment after it was observed.
    fn rate_us(&self, number: u64, version: u64) -> f64 {
        let request = RateRequest {
            pair: self.key.pair,
            source: None,
            leg_sources: Vec::new(),
            time: Some(observed(number).saturating_add_us(Timestamp::SECOND_US)),
            max_age_us: None,
            known_time: Some(self.known),
        };
        let begun = Instant::now();
        let answer = self.reader.rate(&request).expect("sound blocks").body;
        let us = begun.elapsed().as_secs_f64() * 1e6;
        assert_eq!(answer.legs[0].1.value, value(number, version));
        us
    }

    /// Microseconds of a page of changes from day to day.
    fn page_us(&self, days: u64) -> f64 {
        let start = observed((days - PAGE_DAYS as u64) * DAY_RATES);
        let list = BucketsRequest {
            pair: self.key.pair,
            source: None,
            leg_sources: Vec::new(),
            range: Range::new(Some(start), None).expect("a range"),
            known_time: Some(self.known),
            after: None,
            limit: PAGE_DAYS,
        };
        let request = ChangesRequest { list, period: Period::DayOnDay, zone: Zone::parse("UTC").expect("a zone") };
        let begun = Instant::now();
        let page = self.reader.changes(&request).expect("sound blocks").body;
        let us = begun.elapsed().as_secs_f64() * 1e6;
        assert_eq!(page.rows.len(), PAGE_DAYS);
        us
    }
}

/// Measures both sides in turn, and fails where the revised one costs too much. `numbers` are the rates that are asked
/// for, `version` is what they said.
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
        assert!(revised / plain <= RATIO_MAX, "{what}: {call} costs {:.2} times as much", revised / plain);
    }
}

/// The first read of a view, which makes the index.
fn first_read(side: &Side, number: u64, version: u64) {
    report("the first read, which makes the index", side.rate_us(number, version) / 1e3, "ms", "-");
    report("  resident memory after it", resident_mb(), "MB", "-");
}

/// A reader of a store without revisions.
fn plain() -> (Filled, Side) {
    let mut filled = Filled::new();
    let known = filled.known();
    let view = filled.view();
    let side = Side::new(&view, &filled.key, known);
    (filled, side)
}

/// Every other rate is revised at a time, so that a block has rates that stand and rates that do not, in an order that
/// scatters each block of revisions over all days.
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
    compare("scattered, rates that stand", [&plain, &side(0)], &even, 0);
}

/// The rates of one day are revised again and again.
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

/// As many rates are put between the others, all recorded later; none of them is a revision.
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
            // In the last minute before midnight of many days, so that a day's close lies behind many later rates.
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
    compare("backfilled since", [&plain, &side], &all, 0);
}

fn main() {
    let parts: [(&str, fn()); 3] = [("scattered", scattered), ("day", day), ("backfill", backfill)];
    for (name, part) in parts {
        if wanted(name) {
            println!("# {name}");
            part();
        }
    }
}
