//! A full import: rows per second from Parquet files to a usable store, and memory.
//!
//! `cargo bench --bench import`; `SILKRATE_BENCH_RUNS` sets the number of runs.

#![allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "these are measurements, not rates")]

#[path = "../tests/it/full_export/mod.rs"]
mod full_export;
mod support;

use std::time::Instant;

use full_export::Parts;
use silkrate::domain::Timestamp;
use silkrate::export::read::{FullExport, ReadProgress};
use silkrate::store::{Store, verify};
use support::{
    BASE_US, Ticks, disk_bytes, keys, parameter, per_second, report, resident_mb, state_rules, store_options,
};

const NOW: Timestamp = Timestamp::from_micros(BASE_US * 2);

/// Fills five series with 3.3 ticks per run, one second apart with 5 ms of jitter, 10,000 ticks per commit.
fn fill(store: &mut Store, runs: u64) {
    let mut generators: Vec<Ticks> = (0..5).map(|seed| Ticks::new(seed * 997, 30)).collect();
    let mut left = runs * 33 / 10 / 5;
    while left > 0 {
        let count = left.min(10_000);
        for (key, generator) in keys().iter().zip(&mut generators) {
            let mut transaction = store.begin(NOW);
            let series = transaction.series(key).expect("room for a series");
            for (time, value) in generator.take(count as usize) {
                transaction.upsert(series, time, value, false).expect("a good tick");
            }
            transaction.commit().expect("a good disk");
            if store.checkpoint_is_due() {
                store.checkpoint().expect("a good disk");
            }
        }
        left -= count;
    }
}

/// Fills a store and writes its export. A separate process runs this function, so that its memory is not measured with
/// the memory of the import.
fn prepare(directory: &std::path::Path) {
    let mut store = Store::open(store_options(&directory.join("from")), NOW).expect("a new store");
    fill(&mut store, parameter("SILKRATE_BENCH_RUNS", 1_000_000));
    Parts::of(&store.view()).write(&directory.join("export"));
}

fn main() {
    if let Ok(directory) = std::env::var("SILKRATE_BENCH_PREPARE") {
        return prepare(std::path::Path::new(&directory));
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let this = std::env::current_exe().expect("this program");
    let prepared = std::process::Command::new(this).env("SILKRATE_BENCH_PREPARE", directory.path()).status();
    assert!(prepared.expect("this program").success());
    let into = directory.path().join("into");

    let idle_mb = resident_mb();
    let export = FullExport::open(&directory.path().join("export")).expect("a valid export");
    let progress = ReadProgress::default();
    let begun = Instant::now();
    export.verify_checksums(&progress).expect("a valid export");
    let checked = begun.elapsed();
    export.restore(&into, state_rules(), &progress).expect("a valid export");
    let took = begun.elapsed();
    assert_eq!(progress.rows(), export.total_rows());

    report("rows of the export", export.total_rows() as f64, "", "-");
    report("import, including checksums", per_second(export.total_rows(), took), "rows/s", ">= 500,000");
    report("share of the time for checksums", checked.as_secs_f64() / took.as_secs_f64() * 100.0, "%", "-");
    report("resident memory above idle after the import", resident_mb() - idle_mb, "MB", "-");
    let found = verify(&into).expect("an undamaged store");
    assert_eq!(found.problems, Vec::<String>::new());
    report(
        "bytes of the store, ratio to the bytes of the export",
        disk_bytes(&into) as f64 / export.total_bytes() as f64,
        "times",
        "-",
    );
    report("runs", found.run_count as f64, "", "-");
}
