//! A process that ingests is killed at random moments, starts and checkpoints included: what it
//! answered for is there, and nothing else is there by half.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use silkrate::store::CheckpointLimits;

use crate::store::durable;
use crate::store::durable::{Ack, ChildPlan, Life, Random, TINY_CHECKPOINTS, open};

/// Processes killed in the ordinary run.
const KILLS: usize = 60;
/// Kills that one store lives through, so that stores are also killed while they are made.
const KILLS_PER_STORE: usize = 10;

/// Not a test of its own: what the others run and kill.
#[test]
fn child() {
    durable::child();
}

/// When to strike.
enum Strike {
    /// So long after the process was started: it may be opening the store, or making it.
    AfterSpawn(Duration),
    /// So long after its first answer, however slow the machine.
    AfterAnswer(Duration),
}

fn strike(random: &mut Random) -> Strike {
    let mut below = |limit_us: u64| Duration::from_micros(random.below(limit_us));
    match below(3).as_micros() {
        0 => Strike::AfterSpawn(below(20_000)),
        1 => Strike::AfterSpawn(below(250_000)),
        _ => Strike::AfterAnswer(below(800_000)),
    }
}

fn limits(random: &mut Random) -> CheckpointLimits {
    [TINY_CHECKPOINTS, CheckpointLimits { log_bytes: 24 << 10, ..TINY_CHECKPOINTS }, CheckpointLimits::default()]
        [random.below(3) as usize]
}

/// Starts a child, kills it and gives what it answered for.
fn ingest_and_kill(directory: &Path, life: &Life, random: &mut Random) -> Vec<Ack> {
    let close_after =
        if random.below(4) == 0 { Duration::from_millis(random.below(200)) } else { Duration::from_secs(30) };
    let plan = ChildPlan {
        directory: directory.to_owned(),
        next: life.next,
        checkpoint: limits(random),
        exit_after: u64::MAX,
        close_after,
    };
    let mut child =
        plan.apply_to(Command::new(std::env::current_exe().unwrap()), "store::crash::child").spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (answered, first_answer) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut acks = Vec::new();
        let mut line = String::new();
        // A last line without its end was not said.
        while output.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
            if let Some(ack) = Ack::parse(&line) {
                // Nobody listens after the first.
                let _ = answered.send(());
                acks.push(ack);
            }
            line.clear();
        }
        acks
    });
    match strike(random) {
        Strike::AfterSpawn(delay) => std::thread::sleep(delay),
        Strike::AfterAnswer(delay) => {
            // A child that closes before it answers anything hangs up.
            let _ = first_answer.recv_timeout(Duration::from_secs(30));
            std::thread::sleep(delay);
        }
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    // Killed, or closed in good order before that; anything else went wrong by itself.
    assert!(status.code().is_none_or(|code| code == 0), "{status}");
    reader.join().unwrap()
}

#[test]
fn a_killed_process_loses_nothing_that_it_answered_for() {
    let began = Instant::now();
    let seed = std::env::var("SILKRATE_CRASH_SEED").map_or(1, |seed| seed.parse().unwrap());
    let kills = std::env::var("SILKRATE_CRASH_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut random = Random(seed);
    let (mut acks, mut silent, mut sequence_total) = (0, 0, 0);
    for store in 0..kills.div_ceil(KILLS_PER_STORE) {
        let directory = tempfile::tempdir().unwrap();
        let mut life = Life::default();
        let mut sequence = 0;
        for kill in 0..KILLS_PER_STORE {
            let told = ingest_and_kill(directory.path(), &life, &mut random);
            acks += told.len();
            silent += usize::from(told.is_empty());
            life.extend(&told);
            // At times the next process is killed before anybody has repaired what this one left.
            if random.below(3) == 0 && kill + 1 < KILLS_PER_STORE {
                continue;
            }
            let opened = open(directory.path());
            life.check(&opened, &mut random);
            assert!(opened.newest_commit().sequence >= sequence, "store {store}: the sequence went back");
            sequence = opened.newest_commit().sequence;
        }
        sequence_total += sequence;
    }
    println!(
        "{kills} kills, {silent} of them before the first answer; {acks} answers, {sequence_total} commits, {:.1?}",
        began.elapsed()
    );
    assert!(acks > kills, "{acks} answers: the kills came too early to show anything");
}
