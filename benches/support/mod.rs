//! Shared parts of the benchmarks: alternating rounds, medians, ratios, seeded ticks.
//!
//! Criterion finishes one function before it measures the next. On a machine with varying speed, the ratio of two
//! functions needs alternating measurements of both. So benchmarks of the whole system run their own rounds, and
//! criterion measures small pure functions.

#![allow(dead_code, reason = "each benchmark needs only a part")]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "small seeded numbers")]
#![allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "these are measurements, not rates")]

#[path = "../../tests/it/random/mod.rs"]
mod random;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use silkrate::domain::{CurrencySet, Pair, PublishedValue, Rate, SeriesKey, Source, Timestamp};
use silkrate::latest_quotes::StateRules;
use silkrate::store::{CheckpointLimits, Store, StoreOptions};

pub(crate) use random::Random;

/// Number of rounds. Each round measures everything that a benchmark compares.
pub(crate) const ROUNDS: usize = 5;
/// 2025-12-08T00:00:00Z.
pub(crate) const BASE_US: i64 = 1_765_152_000 * Timestamp::SECOND_US;

/// Returns a number from the environment, or the default.
pub(crate) fn parameter(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.replace('_', "").parse().ok()).unwrap_or(default)
}

/// Returns true if this part of the benchmark is selected: `cargo bench --bench NAME -- PART`.
pub(crate) fn is_selected(part: &str) -> bool {
    let selected: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    selected.is_empty() || selected.iter().any(|arg| part.contains(arg.as_str()))
}

/// Returns the median of several measurements.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns `count` divided by the time in seconds.
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// Prints one result of a benchmark with its target.
pub(crate) fn report(what: &str, value: f64, unit: &str, target: &str) {
    println!("{what:<72} {value:>14.3} {unit:<12} target: {target}");
}

/// Ticks one second apart with 5 ms of jitter. The rate changes at `moves_percent` percent of the ticks.
pub(crate) struct Ticks {
    random: Random,
    moves_percent: u64,
    second: i64,
    mantissa: u64,
}

impl Ticks {
    pub(crate) fn new(seed: u64, moves_percent: u64) -> Self {
        Self { random: Random(seed), moves_percent, second: 0, mantissa: 11_440 + seed }
    }
}

impl Iterator for Ticks {
    type Item = (Timestamp, PublishedValue);

    fn next(&mut self) -> Option<Self::Item> {
        self.second += 1;
        if self.random.below(100) < self.moves_percent {
            // The new value always differs from the previous one, so that every move begins a run.
            let step = 1 + self.random.below(20);
            self.mantissa = if self.random.below(2) == 0 || self.mantissa < 5_000 {
                self.mantissa + step
            } else {
                self.mantissa - step
            };
        }
        let jitter = self.random.below(10_000) as i64 - 5_000;
        let time = Timestamp::from_micros(BASE_US + self.second * Timestamp::SECOND_US + jitter);
        let rate = Rate::from_parts(u128::from(self.mantissa), 6).expect("a small mantissa is a rate");
        Some((time, PublishedValue { rate, reported_change: None }))
    }
}

/// The five series against USD.
pub(crate) fn keys() -> Vec<SeriesKey> {
    let source = Source::parse("bench").expect("a slug");
    ["KGS/USD", "KZT/USD", "TJS/USD", "UZS/USD", "TMT/USD"]
        .map(|pair| SeriesKey {
            pair: Pair::parse(pair, &CurrencySet::central_asia()).expect("a pair"),
            source: source.clone(),
        })
        .to_vec()
}

pub(crate) fn state_rules() -> StateRules {
    StateRules::uniform(Timestamp::HOUR_US, Timestamp::DAY_US)
}

pub(crate) fn store_options(directory: &Path) -> StoreOptions {
    StoreOptions {
        directory: directory.to_owned(),
        collapse_window_default_us: Timestamp::HOUR_US,
        collapse_windows_us: BTreeMap::new(),
        recollapse: false,
        state_rules: state_rules(),
        reserve_bytes: 0,
        cache_bytes: 64 << 20,
        series_count_max: 1_000,
        configured_sources: Arc::default(),
        checkpoint: CheckpointLimits::default(),
        disk_fault: None,
    }
}

/// Creates a store with the given number of runs in five series, 3.3 ticks per run.
pub(crate) fn filled(runs: u64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let now = Timestamp::from_micros(BASE_US);
    let mut store = Store::open(store_options(&directory.path().join("db")), now).expect("a new store");
    for (key, seed) in keys().iter().zip(1..) {
        let mut ticks = Ticks::new(seed, 30).map(|(t, v)| (t.saturating_add_us(-400 * Timestamp::DAY_US), v));
        let mut left = runs * 33 / 10 / 5;
        while left > 0 {
            let mut transaction = store.begin(now);
            let series = transaction.series(key).expect("room");
            for (time, value) in ticks.by_ref().take(left.min(50_000) as usize) {
                transaction.upsert(series, time, value, false).expect("a good tick");
            }
            transaction.commit().expect("a good disk");
            left -= left.min(50_000);
            if store.checkpoint_is_due() {
                store.checkpoint().expect("a good disk");
            }
        }
    }
    store.checkpoint().expect("a good disk");
    directory
}

/// Returns the disk usage of all files under a directory, in bytes.
pub(crate) fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Returns the resident memory of this process in megabytes.
pub(crate) fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or(0.0) / 1024.0
}
