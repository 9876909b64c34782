//! The cost of choosing a source: the same read with and without a source in the request.
//!
//! Four sources have KGS/USD or its inverse. `cargo bench --bench choice`; `SILKRATE_BENCH_TICKS` sets the number of ticks
//! of each source.

#![allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "these are measurements, not rates")]

mod support;

use std::sync::Arc;
use std::time::Instant;

use silkrate::domain::{CurrencySet, Pair, SeriesKey, Source, Timestamp};
use silkrate::query::{Moment, RateRequest, Reader};
use silkrate::store::Store;
use support::{BASE_US, ROUNDS, Random, Ticks, median, parameter, report, store_options};
use tokio_util::sync::CancellationToken;

const NOW: Timestamp = Timestamp::from_micros(BASE_US * 2);
/// Ticks per commit.
const COMMIT_TICKS: usize = 50_000;
/// Reads per round, each at a random time.
const READS: u64 = 20_000;

fn series() -> Vec<SeriesKey> {
    let key = |pair: &str, source: &str| SeriesKey {
        pair: Pair::parse(pair, &CurrencySet::central_asia()).expect("a pair"),
        source: Source::parse(source).expect("a slug"),
    };
    vec![key("KGS/USD", "a"), key("KGS/USD", "b"), key("USD/KGS", "c"), key("USD/KGS", "d")]
}

/// Fills each series with `ticks` ticks, one second apart.
fn load(store: &mut Store, ticks: usize) {
    for (seed, key) in (0..).zip(series()) {
        let mut values = Ticks::new(seed, 30);
        let mut left = ticks;
        while left > 0 {
            let mut transaction = store.begin(NOW);
            let series = transaction.series(&key).expect("room for a series");
            for (time, value) in values.by_ref().take(left.min(COMMIT_TICKS)) {
                transaction.upsert(series, time, value, true).expect("a valid tick");
            }
            transaction.commit().expect("a working disk");
            if store.checkpoint_is_due() {
                store.checkpoint().expect("a working disk");
            }
            left = left.saturating_sub(COMMIT_TICKS);
        }
    }
    store.checkpoint().expect("a working disk");
}

/// Reads rates at random times. Returns microseconds per read.
fn read(reader: &Reader, source: Option<&Source>, seconds: u64, seed: u64) -> f64 {
    let mut random = Random(seed);
    let begun = Instant::now();
    for _ in 0..READS {
        let second = i64::try_from(random.below(seconds)).expect("a small number");
        let time = Timestamp::from_micros(BASE_US + (second + 1) * Timestamp::SECOND_US);
        let request = RateRequest {
            pair: series()[0].pair,
            source: source.cloned(),
            leg_sources: Vec::new(),
            time: Some(Moment::At(time)),
            zone: None,
            max_age_us: None,
            known_time: None,
        };
        // A random time can be just before the first tick.
        if let Ok(answer) = reader.rate(&request) {
            assert!(source.is_none_or(|source| answer.body.legs[0].0.source == *source));
        }
    }
    begun.elapsed().as_secs_f64() * 1e6 / READS as f64
}

fn main() {
    let ticks = parameter("SILKRATE_BENCH_TICKS", 500_000);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = store_options(directory.path());
    let rules = Arc::new(options.state_rules.clone());
    let mut store = Store::open(options, NOW).expect("a new store");
    load(&mut store, usize::try_from(ticks).expect("a size that fits"));
    let reader = Reader::new(Arc::new(store.view()), NOW, rules, CancellationToken::new());
    let named = Source::parse("a").expect("a slug");
    let round = |seed| (read(&reader, Some(&named), ticks, seed), read(&reader, None, ticks, seed));
    let (with_source, without): (Vec<f64>, Vec<f64>) = (0..ROUNDS as u64).map(round).unzip();
    let (with_source, without) = (median(with_source), median(without));
    report("GetRate with a source", with_source, "us", "-");
    report("GetRate without a source, four candidates", without, "us", "-");
    report("  ratio", without / with_source, "times", "<= 3");
}
