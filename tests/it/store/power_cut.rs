//! Power cuts: writes that are not durable are lost, partially lost or torn, and every acknowledged batch must still
//! be in the store.
//!
//! A child ingests under strace. From the log of the system calls, the test rebuilds the directory in the states in
//! which different power cuts could have left it. By default the recording is short, and there are [`CUTS`] cuts.
//! `SILKRATE_POWER_CUTS=1000 cargo test --test it store::power_cut -- --nocapture` makes a longer recording and 1,000
//! cuts.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use silkrate::store::{CheckpointLimits, Store};

use crate::skipped::skipped;
use crate::store::durable;
use crate::store::durable::syscalls::{Loss, Recording, TRACED};
use crate::store::durable::{Ack, AckHistory, ChildPlan, Random, SLICES, TINY_CHECKPOINTS, now, options};
use crate::strace;

/// Number of cuts unless `SILKRATE_POWER_CUTS` is set.
const CUTS: u64 = 36;

/// Entry point of the recorded child process. It does nothing unless another test started it as a child.
#[test]
fn child() {
    durable::child();
}

/// Runs a child until it exits, and returns its strace log.
fn record(plan: &ChildPlan, log: &Path) -> String {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-xx", "-s", "33554432", "-e", &format!("trace={TRACED}"), "-o"]).arg(log);
    strace.arg(std::env::current_exe().unwrap());
    let output = plan.apply_to(strace, "store::power_cut::child").output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(log).unwrap()
}

/// Records several processes on one store. Each process except the last exits while it ingests. Also returns the number
/// of slices.
fn record_history(rounds: u64, acks_per_round: u64) -> (Recording, AckHistory, u64) {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut recording = Recording::new(&root);
    let (mut history, mut slices) = (AckHistory::default(), 0);
    for round in 0..rounds {
        let plan = ChildPlan {
            directory: root.join("store"),
            next: history.next,
            checkpoint: [TINY_CHECKPOINTS, SLICES, CheckpointLimits::default()][round as usize % 3],
            exit_after: if round + 1 == rounds { u64::MAX } else { acks_per_round },
            close_after: Duration::from_millis(if round + 1 == rounds { 300 } else { 600_000 }),
        };
        let acks_before_round = recording.acks_before(usize::MAX).len();
        recording.add(&record(&plan, &scratch.path().join("log")));
        let acks: Vec<Ack> = recording.acks_before(usize::MAX).split_off(acks_before_round);
        history.extend(&acks);
        slices += acks.iter().map(|ack| ack.slices).max().unwrap_or(0);
    }
    (recording, history, slices)
}

/// Checks the store after a power cut. If a check fails, returns the problem and keeps the image directory.
fn check_cut(
    recording: &Recording,
    history: &AckHistory,
    cut: usize,
    loss: Loss,
    random: &mut Random,
) -> Option<String> {
    let image = tempfile::tempdir().unwrap();
    recording.restore(cut, loss, random, image.path());
    let directory = image.path().join("store");
    let history = AckHistory { acks: recording.acks_before(cut), next: history.next };
    let result = catch_unwind(AssertUnwindSafe(|| {
        let store = Store::open(options(&directory, CheckpointLimits::default(), None), now()).unwrap();
        history.check(&store, random);
    }));
    let error = result.err()?;
    let message = error.downcast::<String>().map_or_else(|_| "a check failed".to_owned(), |message| *message);
    Some(format!("power cut at line {cut}, losing {loss:?}: {message}; see {}", image.keep().display()))
}

#[test]
fn power_cut_loses_no_acknowledged_batch() {
    if !strace::can_trace() {
        skipped("the power-cut test needs strace and permission to trace");
        return;
    }
    let began = Instant::now();
    let cuts = std::env::var("SILKRATE_POWER_CUTS").map_or(CUTS, |cuts| cuts.parse().unwrap());
    let seed = std::env::var("SILKRATE_POWER_SEED").map_or(1, |seed| seed.parse().unwrap());
    let (rounds, acks_per_round) = if cuts > CUTS { (10, 400) } else { (4, 90) };
    let (recording, history, slices) = record_history(rounds, acks_per_round);
    let recorded = began.elapsed();
    let mut random = Random(seed);
    let mut problems = Vec::new();
    for number in 0..cuts {
        let loss = Loss::ALL[number as usize % Loss::ALL.len()];
        let cut = recording.cut(&mut random);
        problems.extend(check_cut(&recording, &history, cut, loss, &mut random));
    }
    assert!(slices > 5, "only {slices} slices");
    println!(
        "{slices} slices, {} system calls, {} bytes and {} acks recorded in {recorded:.1?}; {cuts} power cuts, {:.1?} in all",
        recording.event_count(),
        recording.byte_count(),
        history.acks.len(),
        began.elapsed()
    );
    assert!(problems.is_empty(), "{} of {cuts} power cuts failed a check: {problems:#?}", problems.len());
}
