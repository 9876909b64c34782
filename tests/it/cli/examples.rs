//! The programs of `examples/` with a live server.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use silkrate::clock::{Clock as _, SystemClock};
use silkrate::domain::Timestamp;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::skipped::skipped;
use crate::support::TestServer;

/// Maximum wait for a change to reach the watching example.
const WATCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns the built program of an example. `cargo test` builds examples, but `cargo test --test it` alone does not.
fn example(name: &str) -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_BIN_EXE_silkrate")).parent()?.join("examples").join(name);
    if program.exists() {
        return Some(program);
    }
    skipped(&format!("example {name} is not built; run `cargo test` without a target"));
    None
}

async fn output(program: PathBuf, arguments: Vec<String>) -> String {
    let run = move || Command::new(program).args(arguments).output().unwrap();
    let output = spawn_blocking(run).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A program that is killed when dropped, also if the test fails.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_ingest_watch_and_list_ticks() {
    let (Some(ingest), Some(history), Some(watch)) = (example("ingest"), example("history"), example("watch_latest"))
    else {
        return;
    };
    let server = TestServer::start(&[]).await;
    // The examples use the current time as observed time. The clock of the server is ahead of the current time, so that
    // no observed time is in the future of the server.
    let minutes_ahead = |minutes: i64| SystemClock.now().saturating_add_us(minutes * 60 * Timestamp::SECOND_US);
    server.clock.set(minutes_ahead(1));
    let endpoint = format!("http://{}", server.addr);
    let send = |rate: &str| output(ingest.clone(), ["KGS/USD", "desk", rate, &endpoint].map(str::to_owned).to_vec());

    assert_eq!(send("0.01144").await, "sequence 1: 1 new runs, 0 collapsed, 0 known\n");

    let watcher = Command::new(watch).args([&endpoint, "KGS/USD"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut watcher = KillOnDrop(watcher);
    let mut lines = BufReader::new(watcher.0.stdout.take().unwrap()).lines();
    let (first, lines) = spawn_blocking(move || (lines.next().unwrap().unwrap(), lines)).await.unwrap();
    assert!(first.contains("KGS/USD desk 0.01144"), "{first}");

    server.clock.set(minutes_ahead(2));
    assert!(send("0.01145").await.contains("1 new runs"));
    let mut lines = lines;
    let second = spawn_blocking(move || lines.find(|line| line.as_ref().unwrap().contains("0.01145")));
    assert!(timeout(WATCH_TIMEOUT, second).await.unwrap().unwrap().is_some());

    // A rate ten times the rate in force is held, and is not in the history.
    server.clock.set(minutes_ahead(3));
    assert!(send("0.1145").await.starts_with("held as 1: the rate in force is 0.01145\n"));
    assert!(send("none").await.starts_with("refused: "));

    let listed = output(history, ["KGS/USD", "desk", &endpoint].map(str::to_owned).to_vec()).await;
    let rates: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(rates, ["0.01144", "0.01145"], "{listed}");
}
