//! The command `serve`: exit statuses, messages, signals.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

const SAMPLE_TICKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/times-of-central-asia-2024-2025.csv");
const SAMPLE_PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/times-of-central-asia-2025-12-08.txt");

pub(crate) fn serve(db: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SILKRATE_")) {
        command.env_remove(name);
    }
    command
        .args(["serve", "--listen", "localhost:0", "--http-listen", "localhost:0", "--reserve-mib", "0", "--db"])
        .arg(db);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running server process. Dropping this value kills the process, for example if the test fails.
pub(crate) struct Serving {
    pub(crate) child: Child,
    /// Log lines up to the line with the address.
    pub(crate) log: Vec<String>,
    rest: BufReader<std::process::ChildStderr>,
}

impl Serving {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut rest = BufReader::new(child.stderr.take().unwrap());
        let mut log: Vec<String> = Vec::new();
        while !log.last().is_some_and(|line| line.contains("serving on 127.0.0.1:")) {
            let mut line = String::new();
            assert!(rest.read_line(&mut line).unwrap() > 0, "the server exited after {log:?}");
            log.push(line);
        }
        Self { child, log, rest }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the exit. Returns the exit status, standard output, and the rest of the log.
    fn wait(mut self) -> (Option<i32>, String, String) {
        let (mut printed, mut log) = (String::new(), String::new());
        self.rest.read_to_string(&mut log).unwrap();
        self.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        (self.child.wait().unwrap().code(), printed, log)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // The process has already exited if the test succeeded.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn invalid_settings_exit_with_2_before_the_store_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    let check = |flags: &[&str], variable: Option<(&str, &str)>, expect: &[&str]| {
        let mut command = serve(&db);
        command.args(flags).envs(variable);
        let output = command.output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{flags:?} {variable:?}: {message}");
        for part in expect {
            assert!(message.contains(part), "no '{part}' in: {message}");
        }
        assert!(!db.exists(), "{flags:?} {variable:?} opened a store");
    };
    check(&["--queue-batches", "0"], None, &["--queue-batches", "0", "1..=65536"]);
    check(&["--future-limit", "2 moons"], None, &["--future-limit", "2 moons", "90s"]);
    check(&["--collapse-window", "nbk=1h,nbk=2h"], None, &["--collapse-window is given twice for source nbk"]);
    check(&["--nonsense"], None, &["--nonsense"]);
    check(&["--config", "no/such.toml"], None, &["cannot read no/such.toml", "give --config the path"]);
    check(&[], Some(("SILKRATE_CONFIG", "no/such.toml")), &["cannot read no/such.toml"]);
    check(&[], Some(("SILKRATE_CONFIG", "")), &["--config"]);
    check(&["--load", SAMPLE_PAGE, "no/such.txt"], None, &["--load no/such.txt: cannot be read", "name a file"]);
    let directory = dir.path().display().to_string();
    check(&["--load", SAMPLE_PAGE, &directory], None, &["--load", &directory, "cannot be read: is a directory"]);
    check(&["--listen", "example.org:1"], None, &["--listen"]);
    check(&["--config", SAMPLE_PAGE], None, &["2025-12-08.txt:1: invalid TOML"]);
    check(&[], Some(("SILKRATE_QUEUE_BATCHES", "many")), &["--queue-batches", "many"]);
    check(&[], Some(("SILKRATE_STALE_LIMIT", "")), &["--stale-limit", "not a valid duration"]);
    check(&[], Some(("SILKRATE_RECOLLAPSE", "")), &["--recollapse", "true or false"]);
    check(&[], Some(("SILKRATE_LOG", "loud")), &["--log", "'loud' is not a level"]);
    check(&[], Some(("SILKRATE_LOG_FORMAT", "xml")), &["--log-format", "human, json"]);
}

#[test]
fn port_in_use_is_reported_and_no_store_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    let output = command.args(["serve", "--listen", &address, "--db"]).arg(&db).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    for part in ["cannot listen on", &address, "choose another --listen"] {
        assert!(stderr(&output).contains(part), "no '{part}' in: {}", stderr(&output));
    }
    assert!(!db.exists());
}

#[test]
fn plain_http_port_in_use_is_reported_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    let command = command.args(["serve", "--listen", "127.0.0.1:0", "--http-listen", &address, "--db"]).arg(&db);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    for part in ["cannot listen on", &address, "choose another --http-listen, or --http-listen none"] {
        assert!(stderr(&output).contains(part), "no '{part}' in: {}", stderr(&output));
    }
    assert!(!db.exists());
}

#[test]
fn loaded_page_is_logged_and_its_rates_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = serve(&dir.path().join("db"));
    command.args(["--load", SAMPLE_TICKS, SAMPLE_PAGE]);
    let serving = Serving::start(command);
    let log = serving.log.concat();
    assert!(log.contains("2024-2025.csv: read 85 rows: 85 new runs"), "{log}");
    assert!(log.contains("read 40 quotes, 8 cycles, 5 ticks: 5 new runs"), "{log}");
    assert!(log.contains("no publisher is polled; '--follow timesca,"), "{log}");
    assert!(!log.contains('\u{1b}'), "colours without a terminal: {log}");
    serving.signal(Signal::TERM);
    let (code, printed, log) = serving.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("SIGTERM: shutting down") && log.contains("store closed"), "{log}");
    for part in ["KGS/USD", "KZT/USD", "TJS/USD", "TMT/USD", "UZS/USD", "0.00008", "reported change"] {
        assert!(printed.contains(part), "no '{part}' in\n{printed}");
    }
}

#[test]
fn second_server_on_a_store_reports_that_it_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    let first = Serving::start(serve(&db));
    let output = serve(&db).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(message.contains("is in use by") && message.contains(&db.display().to_string()), "{message}");
    first.signal(Signal::INT);
    assert_eq!(first.wait().0, Some(0));
}

#[test]
fn failure_is_printed_even_if_logging_is_off() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let output = serve(&file.join("db")).env("SILKRATE_LOG", "off").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
}

#[test]
fn json_log_has_one_object_per_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = serve(&dir.path().join("db"));
    command.env("SILKRATE_LOG_FORMAT", "json");
    let serving = Serving::start(command);
    for line in &serving.log {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(object["message"].is_string() && object["level"].is_string(), "{line}");
    }
    serving.signal(Signal::TERM);
    assert_eq!(serving.wait().0, Some(0));
}

#[test]
fn idle_server_stops_before_the_end_of_the_grace_period() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = serve(&dir.path().join("db"));
    command.args(["--shutdown-grace", "10m"]);
    let serving = Serving::start(command);
    let signalled = Instant::now();
    serving.signal(Signal::TERM);
    assert_eq!(serving.wait().0, Some(0));
    assert!(signalled.elapsed() < Duration::from_mins(1), "{:?}", signalled.elapsed());
}

/// Opens a call that the server cannot end by itself.
async fn open_endless_call(
    address: &str,
) -> (tonic::Streaming<ServerReflectionResponse>, mpsc::Sender<ServerReflectionRequest>) {
    let (requests, never) = mpsc::channel(1);
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let mut client = ServerReflectionClient::new(channel);
    (client.server_reflection_info(ReceiverStream::new(never)).await.unwrap().into_inner(), requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn second_signal_stops_without_the_grace_period() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = serve(&dir.path().join("db"));
    command.args(["--shutdown-grace", "10m"]);
    let mut serving = Serving::start(command);
    let address = serving.log.concat().split("serving on ").nth(1).unwrap().trim().to_owned();
    let _open = open_endless_call(&address).await;
    serving.signal(Signal::TERM);
    let mut line = String::new();
    serving.rest.read_line(&mut line).unwrap();
    assert!(line.contains("SIGTERM: shutting down"), "{line}");
    assert_eq!(serving.child.try_wait().unwrap(), None, "the server must wait for the open call");
    serving.signal(Signal::INT);
    let (code, _, log) = serving.wait();
    assert_eq!(code, Some(1));
    assert!(log.contains("a second signal arrived"), "{log}");
}

#[test]
fn health_answers_while_idle_connections_use_all_files_of_clients() {
    const FILES: usize = 256;
    let dir = tempfile::tempdir().unwrap();
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {FILES}; exec \"$0\" \"$@\"")]);
    let inner = serve(&dir.path().join("db"));
    limited.arg(inner.get_program()).args(inner.get_args());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SILKRATE_")) {
        limited.env_remove(name);
    }
    limited.args(["--max-connections-per-address", "65536"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let serving = Serving::start(limited);
    let address = |what: &str| {
        let line = serving.log.iter().find_map(|line| line.split_once(what)).unwrap().1;
        line.trim().to_owned()
    };
    let (grpc, http) = (address("serving on "), address("plain HTTP on http://"));
    // Each connection is kept open, and sends what makes it an idle connection of HTTP/2.
    let mut idle = Vec::new();
    for _ in 0..FILES * 2 {
        let mut stream = TcpStream::connect(&grpc).unwrap();
        let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        idle.push(stream);
    }
    for _ in 0..FILES {
        idle.push(TcpStream::connect(&http).unwrap());
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let mut stream = TcpStream::connect(&http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    serving.signal(Signal::TERM);
    let (status, _, log) = serving.wait();
    let refusals = log.lines().filter(|line| line.contains("connections")).count();
    assert!(status == Some(0) && refusals <= 4, "{refusals} lines about connections:\n{log}");
}
