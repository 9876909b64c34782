//! The store alone: disk space, memory and start time after a load of many runs; late ticks; many
//! checkpoints that replace old blocks.
//!
//! `cargo bench --bench store [-- load|late|latency|rewrite]`; `late` includes `latency`. `SILKRATE_BENCH_RUNS` sets the
//! number of runs.

#![allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "these are measurements, not rates")]
#![allow(clippy::cast_possible_wrap, reason = "seconds and microseconds of generated ticks are small")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positions of quantiles are small")]

mod support;

use std::sync::Arc;
use std::time::Instant;

use silkrate::domain::{PublishedValue, ScanOrder, SeriesKey, Timestamp};
use silkrate::store::{Store, Upkeep, WriteTransaction, verify};
use support::{
    BASE_US, Random, Ticks, disk_bytes, is_selected, keys, parameter, per_second, report, resident_mb, store_options,
};

const NOW: Timestamp = Timestamp::from_micros(BASE_US * 2);

fn put(transaction: &mut WriteTransaction<'_>, key: &SeriesKey, ticks: &[(Timestamp, PublishedValue)]) {
    let series = transaction.series(key).expect("room for a series");
    for (time, value) in ticks {
        transaction.upsert(series, *time, *value, true).expect("a good tick");
    }
}

fn commit(store: &mut Store, key: &SeriesKey, ticks: &[(Timestamp, PublishedValue)]) {
    let mut transaction = store.begin(NOW);
    put(&mut transaction, key, ticks);
    transaction.commit().expect("a good disk");
    if store.checkpoint_is_due() {
        store.checkpoint().expect("a good disk");
    }
}

/// Fills five series with 3.3 ticks per run, one second apart with 5 ms of jitter.
fn load() {
    let runs = parameter("SILKRATE_BENCH_RUNS", 10_000_000);
    let ticks_each = runs * 33 / 10 / 5;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut store = Store::open(store_options(directory.path()), NOW).expect("a new store");
    let mut generators: Vec<Ticks> = (0..5).map(|seed| Ticks::new(seed * 997, 30)).collect();
    let begun = Instant::now();
    let mut left = ticks_each;
    while left > 0 {
        let count = left.min(10_000);
        for (key, generator) in keys().iter().zip(&mut generators) {
            let ticks: Vec<_> = generator.take(count as usize).collect();
            commit(&mut store, key, &ticks);
        }
        left -= count;
    }
    report("load, 10,000 ticks per commit", per_second(ticks_each * 5, begun.elapsed()), "ticks/s", "-");
    store.checkpoint().expect("a good disk");
    drop(store);

    let begun = Instant::now();
    let store = Store::open(store_options(directory.path()), NOW).expect("the store again");
    report("start after the load", begun.elapsed().as_secs_f64(), "s", "< 2");
    report("resident memory after start", resident_mb(), "MB", "< 250");
    let view = store.view();
    let begun = Instant::now();
    let mut read = 0;
    for series in view.series() {
        let scan = series.runs(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX, ScanOrder::Ascending);
        for piece in scan.expect("undamaged blocks") {
            read += piece.expect("undamaged blocks").len() as u64;
        }
    }
    report("runs read, whole store", per_second(read, begun.elapsed()), "runs/s", "-");
    report("resident memory after reading everything", resident_mb(), "MB", "< 250");
    drop((view, store));

    let found = verify(directory.path()).expect("an undamaged store");
    assert_eq!(found.problems, Vec::<String>::new());
    assert_eq!(found.observation_count, ticks_each * 5);
    assert_eq!(found.run_count, read);
    report("runs", found.run_count as f64, "", "-");
    let instant_bytes = found.instant_block_bytes as f64 / found.observation_count as f64;
    let run_bytes = found.run_block_bytes as f64 / found.run_count as f64;
    report("blocks of runs, bytes per run", run_bytes, "B", "<= 10");
    report("blocks of instants, bytes per instant", instant_bytes, "B", "<= 2");
    let files = disk_bytes(directory.path()) as f64 / found.block_bytes as f64;
    report("ratio of files to live blocks", files, "times", "<= 2.5");
}

/// Returns a tick `second` seconds after the base, with a random value.
fn at_second(second: u64, random: &mut Random) -> (Timestamp, PublishedValue) {
    let (_, value) = Ticks::new(random.below(1_000), 30).next().expect("an endless iterator");
    (Timestamp::from_micros(BASE_US + second as i64 * Timestamp::SECOND_US), value)
}

/// A function from the number of a tick to the second at which the tick is observed.
type SecondOf = Box<dyn Fn(u64) -> u64>;

fn late() {
    let count = parameter("SILKRATE_BENCH_LATE", 400_000);
    let key = &keys()[0];
    for batch in [1_000_usize, 100] {
        let orders: [(&str, SecondOf); 2] = [
            ("newest first", Box::new(move |n| count - n)),
            (
                "two alternating backfills",
                Box::new(move |n| if n % 2 == 0 { count / 2 - n / 2 } else { count - n / 2 }),
            ),
        ];
        for (name, second) in orders {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let mut store = Store::open(store_options(directory.path()), NOW).expect("a new store");
            let mut random = Random(1);
            let ticks: Vec<_> = (0..count).map(|n| at_second(second(n), &mut random)).collect();
            let begun = Instant::now();
            for piece in ticks.chunks(batch) {
                commit(&mut store, key, piece);
            }
            let what = format!("late ticks, {name}, {batch} per commit");
            report(&what, per_second(count, begun.elapsed()), "ticks/s", ">= 50,000");
            assert_eq!(store.verify().problems, Vec::<String>::new());
        }
    }
    scattered();
}

/// Smallest ratio of the 99.9th percentiles without and with slices.
const LATENCY_RATIO_MIN: f64 = 2.0;

/// Commits four late ticks at random times, many times, one commit after the other. The latency of a commit includes what
/// the writer does between the commit before and this one: checkpoints without slices, or slices and checkpoints.
fn latency() {
    let without = commit_latencies("checkpoints alone", |store| {
        if store.checkpoint_is_due() {
            store.checkpoint().expect("a good disk");
        }
    });
    let with = commit_latencies("slices", |store| {
        let mut slices = 0;
        loop {
            match store.upkeep() {
                Upkeep::Checkpoint => return store.checkpoint().expect("a good disk"),
                Upkeep::Slices { before_next_commit } if slices < before_next_commit => {
                    assert!(store.seal_slice().expect("a good disk"), "a slice has something to seal");
                    slices += 1;
                }
                Upkeep::Slices { .. } | Upkeep::None => return,
            }
        }
    });
    assert!(without >= with * LATENCY_RATIO_MIN, "99.9th percentile: {without} s without slices, {with} s with slices");
}

/// Measures the latencies of commits of four late ticks. Returns the 99.9th percentile, in seconds.
fn commit_latencies(way: &str, write_changes: impl Fn(&mut Store)) -> f64 {
    let base = parameter("SILKRATE_BENCH_TICKS", 3_000_000);
    let commits = parameter("SILKRATE_BENCH_COMMITS", 4_000);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut store = Store::open(store_options(directory.path()), NOW).expect("a new store");
    let key = &keys()[0];
    let mut generator = Ticks::new(5, 30);
    for _ in 0..base / 10_000 {
        let ticks: Vec<_> = generator.by_ref().take(10_000).collect();
        commit(&mut store, key, &ticks);
    }
    store.checkpoint().expect("a good disk");
    let mut random = Random(3);
    let mut took = Vec::new();
    // The work after a commit delays the next commit. The published view holds the items that it shows.
    let mut published = store.view();
    let mut delay = 0.0;
    let begun = Instant::now();
    for _ in 0..commits {
        let late: Vec<_> = (0..4)
            .map(|_| {
                let (time, value) = at_second(random.below(base), &mut random);
                (time.saturating_add_us(random.below(900_000) as i64), value)
            })
            .collect();
        let begun = Instant::now();
        let mut transaction = store.begin(NOW);
        put(&mut transaction, key, &late);
        transaction.commit().expect("a good disk");
        drop(std::mem::replace(&mut published, store.view()));
        took.push(delay + begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        write_changes(&mut store);
        drop(std::mem::replace(&mut published, store.view()));
        delay = begun.elapsed().as_secs_f64();
    }
    let name = |part: &str| format!("commits of 4 late ticks, {way}, {part}");
    report(&name("commits per second"), per_second(commits, begun.elapsed()), "commits/s", "-");
    drop(published);
    took.sort_by(f64::total_cmp);
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    for (part, quantile) in [("median", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("longest", 1.0)] {
        let target = if way == "slices" && part == "p99.9" { "< 0.1" } else { "-" };
        report(&name(part), at(quantile), "s", target);
    }
    let files = disk_bytes(directory.path()) as f64 / store.verify().block_bytes as f64;
    report(&name("ratio of files to live blocks"), files, "times", "<= 8");
    assert_eq!(store.verify().problems, Vec::<String>::new());
    at(0.999)
}

/// Commits a thousand late ticks that fall into a thousand blocks, in one commit.
fn scattered() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut store = Store::open(store_options(directory.path()), NOW).expect("a new store");
    let key = &keys()[0];
    let mut generator = Ticks::new(5, 100);
    let blocks = 1_000_u64;
    let count = blocks * 2_048;
    for _ in 0..count / 8_192 {
        let ticks: Vec<_> = generator.by_ref().take(8_192).collect();
        commit(&mut store, key, &ticks);
    }
    store.checkpoint().expect("a good disk");
    let mut random = Random(2);
    let late: Vec<_> = (0..blocks)
        .map(|block| {
            let (time, value) = at_second(block * 2_048 + 1_000, &mut random);
            (time.saturating_add_us(500_000), value)
        })
        .collect();
    let begun = Instant::now();
    let mut transaction = store.begin(NOW);
    put(&mut transaction, key, &late);
    transaction.commit().expect("a good disk");
    report("1,000 late ticks in 1,000 blocks, committed", begun.elapsed().as_secs_f64(), "s", "< 1");
    let begun = Instant::now();
    store.checkpoint().expect("a good disk");
    report("the checkpoint after these late ticks", begun.elapsed().as_secs_f64(), "s", "-");
    let again: Vec<_> = late.iter().map(|(time, value)| (time.saturating_add_us(50_000), *value)).collect();
    let mut transaction = store.begin(NOW);
    put(&mut transaction, key, &again);
    transaction.commit().expect("a good disk");
    // One slice before each commit of another client.
    let mut longest = 0.0_f64;
    while let Upkeep::Slices { .. } = store.upkeep() {
        let begun = Instant::now();
        store.seal_slice().expect("a good disk");
        let mut transaction = store.begin(NOW);
        put(&mut transaction, &keys()[1], &generator.by_ref().take(1).collect::<Vec<_>>());
        transaction.commit().expect("a good disk");
        longest = longest.max(begun.elapsed().as_secs_f64());
    }
    report("with slices, longest of the commits after these late ticks", longest, "s", "< 0.1");
    assert_eq!(store.verify().problems, Vec::<String>::new());
}

/// Commits four late ticks at random times and makes a checkpoint, many times.
fn rewrite() {
    let checkpoints = parameter("SILKRATE_BENCH_CHECKPOINTS", 20_000);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut store = Store::open(store_options(directory.path()), NOW).expect("a new store");
    let key = &keys()[0];
    let base = parameter("SILKRATE_BENCH_TICKS", 3_000_000);
    let mut generator = Ticks::new(5, 30);
    for _ in 0..base / 10_000 {
        let ticks: Vec<_> = generator.by_ref().take(10_000).collect();
        commit(&mut store, key, &ticks);
    }
    store.checkpoint().expect("a good disk");
    let mut random = Random(3);
    let mut most = 0.0_f64;
    let mut sizes = Vec::new();
    for number in 1..=checkpoints {
        let late: Vec<_> = (0..4)
            .map(|_| {
                let (time, value) = at_second(random.below(base), &mut random);
                (time.saturating_add_us(random.below(900_000) as i64), value)
            })
            .collect();
        commit(&mut store, key, &late);
        store.checkpoint().expect("a good disk");
        drop(Arc::new(store.view()));
        if number % (checkpoints / 10).max(1) == 0 {
            let live = store.verify().block_bytes;
            let files = disk_bytes(directory.path());
            sizes.push(files as f64 / 1e6);
            most = most.max(files as f64 / live as f64);
        }
    }
    println!("files in MB after each tenth of the checkpoints: {sizes:.1?}");
    report("late ticks at random times, largest ratio of files to live blocks", most, "times", "<= 8");
    assert_eq!(store.verify().problems, Vec::<String>::new());
}

fn main() {
    let parts: [(&str, fn()); 4] = [("load", load), ("late", late), ("late latency", latency), ("rewrite", rewrite)];
    for (name, part) in parts {
        if is_selected(name) {
            println!("# {name}");
            part();
        }
    }
}
