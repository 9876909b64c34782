//! The command `watch` as a process, with a real server process: pipes, a terminal, and a server that is killed and
//! restarted.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Far longer than any step of these tests takes.
const TIMEOUT: Duration = Duration::from_mins(1);

fn silkrate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    for name in ["SILKRATE_ENDPOINT", "SILKRATE_DB", "SILKRATE_LISTEN", "NO_COLOR"] {
        command.env_remove(name);
    }
    command
}

/// A process that is killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The kill fails if the process has already exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn lines(&mut self) -> Lines {
        Lines::read(self.0.stdout.take().unwrap())
    }
}

/// The lines of a pipe, read by another thread so that waiting can time out.
struct Lines(Receiver<String>);

impl Lines {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(lines)
    }

    fn next(&self) -> String {
        self.0.recv_timeout(TIMEOUT).expect("a line in time")
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Starts a server on `address` and waits until it listens.
fn serve(address: SocketAddr, db: &Path) -> Running {
    let mut command = silkrate();
    command
        .args(["serve", "--http-listen", "none", "--reserve-mib", "0", "--listen", &address.to_string(), "--db"])
        .arg(db);
    let server = Running(command.spawn().unwrap());
    let begun = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < TIMEOUT, "the server does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

/// Stores a rate of `pair`, observed `seconds_ago` seconds ago.
fn ingest(address: SocketAddr, pair: &str, rate: &str, seconds_ago: i64) {
    let time = chrono::DateTime::from_timestamp(now_s() - seconds_ago, 0).unwrap();
    let time = time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let mut command = silkrate();
    command.args(["ingest", "-", "--format", "csv", "--endpoint", &address.to_string()]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let csv = format!("pair,source,observed_time,rate\n{pair},timesca,{time},{rate}\n");
    child.stdin.take().unwrap().write_all(csv.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn now_s() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

fn watch(address: SocketAddr, flags: &[&str]) -> Command {
    let mut command = silkrate();
    command.args(["watch", "--heartbeat", "1s", "--endpoint", &address.to_string()]).args(flags);
    command
}

/// Returns kind, pair and rate of a line of JSON, and its sequence.
fn shown(line: &str) -> ((String, String, String), u64) {
    let row: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let text = |name: &str| row[name].as_str().unwrap().to_owned();
    ((text("kind"), text("pair"), text("rate")), row["sequence"].as_u64().unwrap())
}

fn row(kind: &str, pair: &str, rate: &str) -> (String, String, String) {
    (kind.to_owned(), pair.to_owned(), rate.to_owned())
}

#[test]
fn watch_reconnects_after_a_server_kill_and_misses_no_change() {
    let directory = tempfile::tempdir().unwrap();
    let (address, db) = (free_address(), directory.path().join("db"));
    let mut server = serve(address, &db);
    ingest(address, "KGS/USD", "0.01144", 60);
    ingest(address, "KZT/USD", "0.00196", 60);
    let mut watching = watch(address, &["--output", "json"]);
    let mut watching = Running(watching.stderr(Stdio::piped()).spawn().unwrap());
    let lines = watching.lines();
    assert_eq!(shown(&lines.next()).0, row("SNAPSHOT", "KGS/USD", "0.01144"));
    assert_eq!(shown(&lines.next()).0, row("SNAPSHOT", "KZT/USD", "0.00196"));
    ingest(address, "KGS/USD", "0.01145", 40);
    let (found, sequence) = shown(&lines.next());
    assert_eq!(found, row("CHANGES", "KGS/USD", "0.01145"));

    server.0.kill().unwrap();
    server.0.wait().unwrap();
    let notes = Lines::read(watching.0.stderr.take().unwrap());
    let note = notes.next();
    assert!(note.contains("connection lost: ") && note.contains("retrying in"), "{note}");
    let _server = serve(address, &db);
    ingest(address, "KZT/USD", "0.00197", 20);
    // Printed rates are not printed again; changes while disconnected are printed.
    let (found, later) = shown(&lines.next());
    assert_eq!(found, row("CHANGES", "KZT/USD", "0.00197"));
    assert!(later > sequence);
    while !notes.next().contains("reconnected at sequence") {}
}

#[test]
fn lines_and_csv_are_printed_as_rates_change() {
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let _server = serve(address, &directory.path().join("db"));
    ingest(address, "KGS/USD", "0.01144", 60);
    let mut csv = Running(watch(address, &["--output", "csv"]).spawn().unwrap());
    let mut plain = Running(watch(address, &["KGS/USD"]).spawn().unwrap());
    let (csv, plain) = (csv.lines(), plain.lines());
    assert!(csv.next().starts_with("server_time,sequence,kind,pair,source,rate,previous_rate,"));
    assert!(csv.next().contains(",SNAPSHOT,KGS/USD,timesca,0.01144,,"));
    assert!(plain.next().contains("  KGS/USD  timesca  0.01144  -  "));
    ingest(address, "KGS/USD", "0.01145", 30);
    assert!(csv.next().contains(",CHANGES,KGS/USD,timesca,0.01145,0.01144,"));
    assert!(plain.next().contains("  KGS/USD  timesca  0.01145  0.01144  "));
}

#[test]
fn closed_reader_ends_watch_although_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let _server = serve(address, &dir.path().join("db"));
    ingest(address, "KGS/USD", "0.01144", 60);
    for format in ["json", "csv", "table"] {
        let mut watching = Running(watch(address, &["--output", format]).spawn().unwrap());
        let mut pipe = BufReader::new(watching.0.stdout.take().unwrap());
        pipe.read_line(&mut String::new()).unwrap();
        drop(pipe);
        let deadline = Instant::now() + TIMEOUT;
        let status = loop {
            if let Some(status) = watching.0.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "watch --output {format} still runs");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{format}: {status}");
    }
}

#[test]
fn name_without_a_rate_is_noted_and_its_first_rate_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let _server = serve(address, &directory.path().join("db"));
    ingest(address, "KGS/USD", "0.01144", 60);
    let mut watching = watch(address, &["KGS/USD", "TMT/USD", "--source", "timesca,nosuch", "--output", "json"]);
    let mut watching = Running(watching.stderr(Stdio::piped()).spawn().unwrap());
    let (lines, notes) = (watching.lines(), Lines::read(watching.0.stderr.take().unwrap()));
    assert_eq!(notes.next(), "no series of TMT/USD yet; waiting for its first rate");
    assert_eq!(notes.next(), "no series from nosuch yet; waiting for its first rate");
    assert_eq!(shown(&lines.next()).0, row("SNAPSHOT", "KGS/USD", "0.01144"));
    ingest(address, "TMT/USD", "0.28490", 30);
    assert_eq!(shown(&lines.next()).0, row("CHANGES", "TMT/USD", "0.28490"));
}

#[test]
fn permanent_errors_end_watch_immediately() {
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let failed = |command: &mut Command, status: i32, part: &str| {
        let output = command.stderr(Stdio::piped()).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{message}");
        assert!(message.contains(part), "{message}");
    };
    failed(&mut watch(address, &[]), 1, "cannot reach a silkrate server");
    let _server = serve(address, &directory.path().join("db"));
    failed(&mut watch(address, &["KGS/EUR"]), 2, "PAIR: pair 'KGS/EUR'");
}

/// Runs watch on a pseudo-terminal, presses q after the text `until` has appeared, and returns all output. Returns
/// `None` without the program `script`.
fn on_a_terminal(address: SocketAddr, columns: u16, environment: &[(&str, &str)], until: &str) -> Option<String> {
    let watch = format!("{} watch --endpoint {address}", env!("CARGO_BIN_EXE_silkrate"));
    let mut command = Command::new("script");
    command.args(["-qefc", &format!("stty cols {columns} rows 12; {watch}"), "/dev/null"]);
    command.env_remove("NO_COLOR").env("TERM", "xterm").envs(environment.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    // `script` is part of util-linux.
    let mut child = Running(command.spawn().ok()?);
    let mut keys = child.0.stdin.take().unwrap();
    let (sender, pieces) = channel();
    let mut out = child.0.stdout.take().unwrap();
    std::thread::spawn(move || {
        let mut piece = [0; 4_096];
        while let Ok(read @ 1..) = out.read(&mut piece) {
            if sender.send(piece[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut output = Vec::new();
    while !String::from_utf8_lossy(&output).contains(until) {
        output.extend(pieces.recv_timeout(TIMEOUT).expect("output in time"));
    }
    keys.write_all(b"q").unwrap();
    output.extend(pieces.iter().flatten());
    assert!(child.0.wait().unwrap().success());
    Some(String::from_utf8_lossy(&output).into_owned())
}

#[test]
fn watch_draws_on_a_terminal_and_restores_it() {
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let _server = serve(address, &directory.path().join("db"));
    ingest(address, "KGS/USD", "0.01144", 60);
    ingest(address, "KGS/USD", "0.01145", 30);
    let Some(output) = on_a_terminal(address, 100, &[], "▁█") else { return };
    for (what, part) in [
        ("the alternate screen", "\u{1b}[?1049h"),
        ("the code that hides the cursor", "\u{1b}[?25l"),
        ("the rate", "0.01145"),
        ("the state of the rate", "MOVING"),
        ("the move", "▲ from 0.01144"),
        ("a colour", "\u{1b}[38;5;"),
    ] {
        assert!(output.contains(part), "{what} is missing: {output:?}");
    }
    let end = output.rfind("\u{1b}[?1049l").expect("the switch back from the alternate screen");
    assert!(output[end..].contains("\u{1b}[?25h"), "the cursor must be shown again");
    let narrow = on_a_terminal(address, 40, &[("NO_COLOR", "1")], "MOVING").unwrap();
    assert!(!narrow.contains("\u{1b}[38;"), "colours despite NO_COLOR: {narrow:?}");
    assert!(!narrow.contains("last move"), "columns that do not fit must be omitted");
}
