//! The programs of `examples/` with a live server.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use silkrate::clock::{Clock as _, SystemClock};
use silkrate::domain::Timestamp;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::skipped::skipped;
use crate::support::TestServer;

/// Maximum wait for a change to reach the watching example.
const WATCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval of the checks whether a program has ended.
const EXIT_POLL: Duration = Duration::from_millis(20);

/// Returns the built program of an example. `cargo test` builds examples, but `cargo test --test it` alone does not.
fn example(name: &str) -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_BIN_EXE_silkrate")).parent()?.join("examples").join(name);
    if program.exists() {
        return Some(program);
    }
    skipped(&format!("example {name} is not built; run `cargo test` without a target"));
    None
}

/// The built programs of all examples.
struct Examples {
    ingest: PathBuf,
    history: PathBuf,
    watch: PathBuf,
}

impl Examples {
    fn built() -> Option<Self> {
        Some(Self { ingest: example("ingest")?, history: example("history")?, watch: example("watch_latest")? })
    }
}

/// Runs a program to its end.
async fn run(mut command: Command) -> Output {
    spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Returns what a program that succeeds prints.
async fn printed(command: Command) -> String {
    let output = run(command).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the command of an example with its arguments. The option `--endpoint` comes last.
fn with_endpoint(program: &Path, arguments: &[&str], endpoint: &str) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).args(["--endpoint", endpoint]);
    command
}

/// Returns a time after the current time. The examples use the current time as observed time. A server whose clock is
/// ahead does not take it for a time in the future.
fn minutes_ahead(minutes: i64) -> Timestamp {
    SystemClock.now().saturating_add_us(minutes * 60 * Timestamp::SECOND_US)
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
    let Some(Examples { ingest, history, watch }) = Examples::built() else { return };
    let server = TestServer::start(&[]).await;
    server.clock.set(minutes_ahead(1));
    let endpoint = format!("http://{}", server.addr);
    let send = |rate: &str| printed(with_endpoint(&ingest, &["KGS/USD", "desk", rate], &endpoint));

    assert_eq!(send("0.01144").await, "sequence 1: 1 new runs, 0 collapsed, 0 known\n");

    let watcher = with_endpoint(&watch, &["KGS/USD"], &endpoint).stdout(Stdio::piped()).spawn().unwrap();
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

    // The variable has the same effect as the option, also without a scheme.
    let mut list = Command::new(history);
    list.args(["KGS/USD", "desk"]).env("SILKRATE_ENDPOINT", server.addr.to_string());
    let listed = printed(list).await;
    let rates: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(rates, ["0.01144", "0.01145"], "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn example_prints_message_of_an_error() {
    let Some(Examples { ingest, history, watch }) = Examples::built() else { return };
    let server = TestServer::start(&[]).await;
    let endpoint = format!("http://{}", server.addr);
    let check = async |program: &Path, arguments: &[&str], endpoint: &str, expect: &str| {
        let output = run(with_endpoint(program, arguments, endpoint)).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.starts_with(expect) && stderr.lines().count() == 1, "{stderr}");
    };
    check(&history, &["KGS"], &endpoint, "error: pair: pair 'KGS' is not two currencies").await;
    check(&watch, &["KGS"], &endpoint, "error: pairs[0]: pair 'KGS' is not two currencies").await;
    check(&ingest, &["KGS/USD", "desk", "1"], "127.0.0.1:1", "error: cannot connect: ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn example_succeeds_if_its_output_is_closed() {
    let Some(Examples { ingest, history, watch }) = Examples::built() else { return };
    let server = TestServer::start(&[]).await;
    server.clock.set(minutes_ahead(1));
    let endpoint = format!("http://{}", server.addr);
    // `ingest` is first, so that the others have a rate to print.
    let examples: [(PathBuf, &[&str]); 3] =
        [(ingest, &["KGS/USD", "desk", "1"]), (history, &["KGS/USD"]), (watch, &["KGS/USD"])];
    for (program, arguments) in examples {
        let mut command = with_endpoint(&program, arguments, &endpoint);
        let mut child = KillOnDrop(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        drop(child.0.stdout.take());
        let ended = async {
            loop {
                if let Some(status) = child.0.try_wait().unwrap() {
                    return status;
                }
                sleep(EXIT_POLL).await;
            }
        };
        let status = timeout(WATCH_TIMEOUT, ended).await.unwrap();
        let mut stderr = String::new();
        child.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert!(status.success() && stderr.is_empty(), "{program:?}: {status}: {stderr}");
    }
}
