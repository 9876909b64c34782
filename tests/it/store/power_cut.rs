//! The power is cut: writes that nothing had made durable are lost, in part or torn, and what was
//! answered for is there all the same.
//!
//! A child ingests under strace. From the log of its system calls the directory is built again as
//! many a cut could have left it. The ordinary run makes a short recording and some dozens of cuts;
//! `SILKRATE_POWER_CUTS=1000 cargo test --test it store::power_cut -- --nocapture` makes more of both.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use silkrate::store::{CheckpointLimits, Store};

use crate::skipped::skipped;
use crate::store::durable;
use crate::store::durable::syscalls::{Loss, Recording, TRACED};
use crate::store::durable::{Ack, ChildPlan, Life, Random, TINY_CHECKPOINTS, now, options};
use crate::strace;

/// Cuts in the ordinary run.
const CUTS: u64 = 36;

/// Not a test of its own: what is recorded.
#[test]
fn child() {
    durable::child();
}

/// Runs a child until it ends by itself, and gives the log of what it did.
fn record(plan: &ChildPlan, log: &Path) -> String {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-xx", "-s", "33554432", "-e", &format!("trace={TRACED}"), "-o"]).arg(log);
    strace.arg(std::env::current_exe().unwrap());
    let output = plan.apply_to(strace, "store::power_cut::child").output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(log).unwrap()
}

/// Several processes on one store, all but the last ended amid their work.
fn record_life(rounds: u64, answers: u64) -> (Recording, Life) {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut recording = Recording::new(&root);
    let mut life = Life::default();
    for round in 0..rounds {
        let plan = ChildPlan {
            directory: root.join("store"),
            next: life.next,
            checkpoint: [TINY_CHECKPOINTS, CheckpointLimits::default()][round as usize % 2],
            exit_after: if round + 1 == rounds { u64::MAX } else { answers },
            close_after: Duration::from_millis(if round + 1 == rounds { 300 } else { 600_000 }),
        };
        let told_until_now = recording.told_before(usize::MAX).len();
        recording.add(&record(&plan, &scratch.path().join("log")));
        let told: Vec<Ack> = recording.told_before(usize::MAX).split_off(told_until_now);
        life.extend(&told);
    }
    (recording, life)
}

/// What is wrong after a cut, if anything; then the image is kept.
fn check_cut(recording: &Recording, life: &Life, cut: usize, loss: Loss, random: &mut Random) -> Option<String> {
    let image = tempfile::tempdir().unwrap();
    recording.restore(cut, loss, random, image.path());
    let directory = image.path().join("store");
    let life = Life { acks: recording.told_before(cut), next: life.next };
    let result = catch_unwind(AssertUnwindSafe(|| {
        let store = Store::open(options(&directory, CheckpointLimits::default(), None), now()).unwrap();
        life.check(&store, random);
    }));
    let error = result.err()?;
    let said = error.downcast::<String>().map_or_else(|_| "a check failed".to_owned(), |said| *said);
    Some(format!("power cut at line {cut}, losing {loss:?}: {said}; see {}", image.keep().display()))
}

#[test]
fn a_power_cut_loses_nothing_that_was_answered_for() {
    if !strace::can_trace() {
        skipped("no power is cut, since strace is not there or may not trace");
        return;
    }
    let began = Instant::now();
    let cuts = std::env::var("SILKRATE_POWER_CUTS").map_or(CUTS, |cuts| cuts.parse().unwrap());
    let seed = std::env::var("SILKRATE_POWER_SEED").map_or(1, |seed| seed.parse().unwrap());
    let (rounds, answers) = if cuts > CUTS { (10, 400) } else { (4, 60) };
    let (recording, life) = record_life(rounds, answers);
    let recorded = began.elapsed();
    let mut random = Random(seed);
    let mut problems = Vec::new();
    for number in 0..cuts {
        let loss = Loss::ALL[number as usize % Loss::ALL.len()];
        let cut = recording.cut(&mut random);
        problems.extend(check_cut(&recording, &life, cut, loss, &mut random));
    }
    println!(
        "{} system calls, {} bytes and {} answers recorded in {recorded:.1?}; {cuts} power cuts, {:.1?} in all",
        recording.event_count(),
        recording.byte_count(),
        life.acks.len(),
        began.elapsed()
    );
    assert!(problems.is_empty(), "{} of {cuts} cuts: {problems:#?}", problems.len());
}
