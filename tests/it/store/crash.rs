//! Crash test: kills a process that ingests, at random moments, also during start and checkpoints. Every acknowledged
//! batch must be in the store, and every other batch is stored completely or not at all.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use silkrate::store::CheckpointLimits;

use crate::store::durable;
use crate::store::durable::{Ack, AckHistory, ChildPlan, Random, SLICES, TINY_CHECKPOINTS, open};

/// Number of kills unless `SILKRATE_CRASH_KILLS` is set.
const KILLS: usize = 60;
/// Kills per store. A small number makes some kills hit the creation of the store.
const KILLS_PER_STORE: usize = 10;

/// Entry point of the child process. It does nothing unless another test started it as a child.
#[test]
fn child() {
    durable::child();
}

/// When the child is killed.
enum KillTime {
    /// After a delay from process start. The child may still be opening or creating the store.
    AfterSpawn(Duration),
    /// After a delay from the first acknowledgement, so that slow machines ingest too.
    AfterFirstAck(Duration),
}

fn random_kill_time(random: &mut Random) -> KillTime {
    let mut below = |limit_us: u64| Duration::from_micros(random.below(limit_us));
    match below(3).as_micros() {
        0 => KillTime::AfterSpawn(below(20_000)),
        1 => KillTime::AfterSpawn(below(250_000)),
        _ => KillTime::AfterFirstAck(below(800_000)),
    }
}

fn limits(random: &mut Random) -> CheckpointLimits {
    let rare = CheckpointLimits { log_bytes: 24 << 10, ..TINY_CHECKPOINTS };
    [TINY_CHECKPOINTS, rare, SLICES, CheckpointLimits::default()][random.below(4) as usize]
}

/// Starts a child, kills it and returns the acknowledgements it printed.
fn ingest_and_kill(directory: &Path, history: &AckHistory, random: &mut Random) -> Vec<Ack> {
    let close_after =
        if random.below(4) == 0 { Duration::from_millis(random.below(200)) } else { Duration::from_secs(30) };
    let plan = ChildPlan {
        directory: directory.to_owned(),
        next: history.next,
        checkpoint: limits(random),
        exit_after: u64::MAX,
        close_after,
    };
    let mut child =
        plan.apply_to(Command::new(std::env::current_exe().unwrap()), "store::crash::child").spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (ack_sender, first_ack) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut acks = Vec::new();
        let mut line = String::new();
        // A last line without a line end is incomplete and does not count.
        while output.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
            if let Some(ack) = Ack::parse(&line) {
                // The receiver takes only the first acknowledgement and may be gone.
                let _ = ack_sender.send(());
                acks.push(ack);
            }
            line.clear();
        }
        acks
    });
    match random_kill_time(random) {
        KillTime::AfterSpawn(delay) => std::thread::sleep(delay),
        KillTime::AfterFirstAck(delay) => {
            // A child that closes before its first acknowledgement closes the channel.
            let _ = first_ack.recv_timeout(Duration::from_secs(30));
            std::thread::sleep(delay);
        }
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    // The child was killed, or it closed cleanly before the kill. Any other exit code is a failure.
    assert!(status.code().is_none_or(|code| code == 0), "{status}");
    reader.join().unwrap()
}

#[test]
fn killed_process_loses_no_acknowledged_batch() {
    let began = Instant::now();
    let seed = std::env::var("SILKRATE_CRASH_SEED").map_or(1, |seed| seed.parse().unwrap());
    let kills = std::env::var("SILKRATE_CRASH_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut random = Random(seed);
    let (mut acks, mut kills_before_ack, mut sequence_total, mut slices) = (0, 0, 0, 0);
    for store in 0..kills.div_ceil(KILLS_PER_STORE) {
        let directory = tempfile::tempdir().unwrap();
        let mut history = AckHistory::default();
        let mut sequence = 0;
        for kill in 0..KILLS_PER_STORE {
            let new_acks = ingest_and_kill(directory.path(), &history, &mut random);
            acks += new_acks.len();
            slices += new_acks.iter().map(|ack| ack.slices).max().unwrap_or(0);
            kills_before_ack += usize::from(new_acks.is_empty());
            history.extend(&new_acks);
            // Sometimes the next process starts and is killed before this test opens the store, so recovery itself is
            // interrupted.
            if random.below(3) == 0 && kill + 1 < KILLS_PER_STORE {
                continue;
            }
            let opened = open(directory.path());
            history.check(&opened, &mut random);
            assert!(opened.newest_commit().sequence >= sequence, "store {store}: the sequence decreased");
            sequence = opened.newest_commit().sequence;
        }
        sequence_total += sequence;
    }
    println!(
        "{kills} kills, {kills_before_ack} of them before the first acknowledgement; \
         {acks} acknowledgements, {sequence_total} commits, {slices} slices, {:.1?}",
        began.elapsed()
    );
    assert!(
        acks > kills,
        "only {acks} acknowledgements in {kills} kills: the kills came too early for a meaningful test"
    );
    assert!(slices * 6 > kills as u64, "only {slices} slices in {kills} kills");
}
