//! Encoding and decoding of columns, with criterion: runs and ticks. Each result is checked once before the
//! measurement.
//!
//! `cargo bench --bench columns`

mod support;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use silkrate::columns::{RunPacker, decode_runs, decode_tick_columns, encode_tick_columns};
use silkrate::domain::{Run, Timestamp};
use support::{Ticks, keys};

const ROWS: usize = 4_096;

fn runs(criterion: &mut Criterion) {
    let runs: Vec<Run> =
        Ticks::new(1, 100).take(ROWS).map(|(time, value)| Run::single(time, value, Timestamp::default())).collect();
    let pack = || {
        let mut packer = RunPacker::new(ROWS);
        packer.extend(&runs);
        packer.finish()
    };
    let message = pack();
    assert_eq!(decode_runs(&message).expect("valid columns"), runs);
    let mut group = criterion.benchmark_group("runs");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("pack", |bencher| bencher.iter_with_large_drop(|| black_box(pack())));
    group.bench_function("read", |bencher| bencher.iter_with_large_drop(|| decode_runs(black_box(&message))));
    group.finish();
}

fn ticks(criterion: &mut Criterion) {
    let key = &keys()[0];
    let ticks: Vec<_> = Ticks::new(1, 30).take(ROWS).collect();
    let message = encode_tick_columns(key, &ticks).expect("equal places");
    assert_eq!(decode_tick_columns(&message).expect("valid columns").len(), ROWS);
    let mut group = criterion.benchmark_group("ticks");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("pack", |bencher| {
        bencher.iter_batched(|| (), |()| encode_tick_columns(key, black_box(&ticks)), BatchSize::LargeInput);
    });
    group.bench_function("read", |bencher| bencher.iter_with_large_drop(|| decode_tick_columns(black_box(&message))));
    group.finish();
}

criterion_group!(columns, runs, ticks);
criterion_main!(columns);
