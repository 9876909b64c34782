//! Candles over many runs: the cost of the computation compared with decoding the blocks.
//!
//! `cargo bench --bench candles`; `SILKRATE_BENCH_RUNS` sets the number of runs.

#![allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "these are measurements, not rates")]

mod support;

use std::sync::Arc;
use std::time::Instant;

use silkrate::analysis::Zone;
use silkrate::domain::{Interval, ScanOrder, SeriesKey, Timestamp};
use silkrate::query::{BucketsRequest, CandlesRequest, MomentRange, Reader};
use silkrate::store::{Store, View};
use support::{BASE_US, Ticks, keys, median, parameter, per_second, report, resident_mb, store_options};
use tokio_util::sync::CancellationToken;

const NOW: Timestamp = Timestamp::from_micros(BASE_US * 2);
/// Number of rounds. Each round measures decoding alone, and then candles.
const ROUNDS: usize = 5;
/// Ticks per commit.
const COMMIT_TICKS: usize = 50_000;

/// Fills one series with 3.3 ticks per run, one second apart with 5 ms of jitter.
fn load(store: &mut Store, key: &SeriesKey, runs: u64) {
    let mut ticks = Ticks::new(0, 30);
    let mut left = usize::try_from(runs * 33 / 10).expect("a size that fits");
    while left > 0 {
        let mut transaction = store.begin(NOW);
        let series = transaction.series(key).expect("room for a series");
        for (time, value) in ticks.by_ref().take(left.min(COMMIT_TICKS)) {
            transaction.upsert(series, time, value, true).expect("a good tick");
        }
        transaction.commit().expect("a good disk");
        if store.checkpoint_is_due() {
            store.checkpoint().expect("a good disk");
        }
        left = left.saturating_sub(COMMIT_TICKS);
    }
    store.checkpoint().expect("a good disk");
}

/// Decodes the times and rates of every run. Returns runs per second.
fn decode(view: &View, key: &SeriesKey, expect: u64) -> f64 {
    let series = view.find(key).expect("the series");
    let begun = Instant::now();
    let scan = series.rate_spans(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX).expect("undamaged blocks");
    let read: u64 = scan.map(|piece| piece.expect("undamaged blocks").len() as u64).sum();
    assert_eq!(read, expect);
    per_second(read, begun.elapsed())
}

/// Decodes every run and computes candles. Returns runs per second.
fn fold(reader: &Reader, key: &SeriesKey, interval: Interval, runs: u64) -> f64 {
    let list = BucketsRequest {
        pair: key.pair,
        source: None,
        leg_sources: Vec::new(),
        range: MomentRange::default(),
        zone: Some(Zone::BISHKEK),
        known_time: None,
        order: ScanOrder::Ascending,
        after: None,
        limit: 100_000,
    };
    let request = CandlesRequest { list, interval, fill: false, count_observations: false, find_bounds: true };
    let begun = Instant::now();
    let page = reader.candles(&request).expect("undamaged blocks").body;
    let rate = per_second(runs, begun.elapsed());
    // In this load the rate changes at the beginning of every run except the first.
    assert_eq!(page.rows.iter().map(|row| row.candle.move_count).sum::<u64>(), runs - 1);
    rate
}

fn main() {
    let runs = parameter("SILKRATE_BENCH_RUNS", 10_000_000);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = store_options(directory.path());
    let rules = Arc::new(options.state_rules.clone());
    let mut store = Store::open(options, NOW).expect("a new store");
    let key = keys().swap_remove(0);
    load(&mut store, &key, runs);
    let view = Arc::new(store.view());
    let totals = view.find(&key).expect("the series").totals(Timestamp::MAX).expect("undamaged blocks");
    let totals = totals.expect("runs");
    let runs = totals.run_count;
    let reader = Reader::new(Arc::clone(&view), totals.last_observed_time, rules, CancellationToken::new());
    for (name, interval) in [("daily", Interval::Day), ("hourly", Interval::Hour)] {
        let rounds = || (decode(&view, &key, runs), fold(&reader, &key, interval, runs));
        let (decoded, folded): (Vec<f64>, Vec<f64>) = std::iter::repeat_with(rounds).take(ROUNDS).unzip();
        let (decoded, folded) = (median(decoded), median(folded));
        report(&format!("{name} candles, decoded and computed"), folded, "runs/s", ">= 20,000,000");
        report("  decoding times and rates alone", decoded, "runs/s", "-");
        report("  ratio", folded / decoded, "", "-");
    }
    report("resident memory after reading", resident_mb(), "MB", "< 250");
}
