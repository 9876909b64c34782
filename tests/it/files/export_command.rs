//! The command `export`, with a real server and with one that sends faulty streams.

#![allow(clippy::unnecessary_wraps, reason = "messages of a stream are results")]

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use silkrate::proto::v1;
use silkrate::proto::v1::export_snapshot_response::Message;
use silkrate::proto::v1::snapshot_service_server::{SnapshotService, SnapshotServiceServer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::cli::command::Ran;
use crate::files::tables;
use crate::support::{TestServer, tick};

const HOUR_S: i64 = 3_600;
const MONTH_S: i64 = 30 * 24 * HOUR_S;

fn command(address: SocketAddr, directory: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command.arg("export").args(line.split_whitespace()).current_dir(directory).stdin(Stdio::null());
    command.env("SILKRATE_ENDPOINT", address.to_string());
    command
}

/// Runs the command while the server of this test keeps running.
async fn run(mut command: Command) -> Ran {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap().into()
}

async fn export(server: &TestServer, directory: &TempDir, line: &str) -> Ran {
    run(command(server.addr, directory.path(), line)).await
}

/// Returns the names in a directory, including hidden ones.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn start() -> TestServer {
    let server = TestServer::start(&[]).await;
    server
        .store(&[
            tick("KGS/USD", -MONTH_S, "0.01143"),
            tick("KGS/USD", -2 * HOUR_S, "0.01144"),
            tick("KGS/USD", -HOUR_S, "0.01145"),
            tick("UZS/USD", -HOUR_S, "0.00008"),
            v1::Tick { source: "cbu".to_owned(), ..tick("KGS/USD", -HOUR_S, "0.0114") },
        ])
        .await;
    server
}

#[tokio::test]
async fn export_writes_a_file_in_each_format() {
    let (server, directory) = (start().await, tempfile::tempdir().unwrap());
    let at = |name: &str| directory.path().join(name);
    let check = async |line: &str, name: &str, rows: u64| {
        let ran = export(&server, &directory, line).await;
        assert_eq!(ran.code, Some(0), "{line}: {}", ran.stderr);
        // Without a terminal there is no progress bar.
        assert_eq!(ran.stderr, "", "{line}");
        let summary: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((&summary[0]["row_count"], &summary[0]["sequence"]), (&rows.into(), &1.into()), "{line}: {summary}");
        assert_eq!(summary[0]["byte_count"], std::fs::metadata(directory.path().join(name)).unwrap().len());
    };
    check("runs.parquet --output json", "runs.parquet", 5).await;
    check("some --output json --pair KGS/USD --source timesca --from 2025-12-08", "some", 2).await;
    check("runs.arrows --output json", "runs.arrows", 5).await;
    check("runs.csv --output json --pair KGS/USD,UZS/USD", "runs.csv", 5).await;
    check("both.csv KGS/USD --output json --pair uzs-usd", "both.csv", 5).await;
    check("UPPER.CSV --output json", "UPPER.CSV", 5).await;
    assert_eq!(std::fs::read(at("UPPER.CSV")).unwrap(), std::fs::read(at("runs.csv")).unwrap());
    check("runs.json --output json --format csv", "runs.json", 5).await;
    check("text --format csv --output json --shape daily --pair UZS/USD", "text", 1).await;
    let candles = "--shape candles --time-zone Asia/Bishkek --output json";
    check(&format!("days.parquet {candles} --interval 1d"), "days.parquet", 4).await;
    check(&format!("months.csv {candles} --interval 1mo --fill --pair KGS/USD"), "months.csv", 3).await;
    check(&format!("hours.arrows {candles} --interval 1h --from 2025-12-08"), "hours.arrows", 4).await;
    let parquet = tables::rows(&tables::parquet(&directory.path().join("runs.parquet")), &[]);
    assert_eq!(tables::rows(&tables::arrow_stream(&directory.path().join("runs.arrows")), &[]), parquet);
    let piped = export(&server, &directory, "- --format csv").await;
    assert_eq!((piped.code, piped.stderr.as_str()), (Some(0), ""));
    assert_eq!(piped.stdout, std::fs::read_to_string(directory.path().join("runs.csv")).unwrap());
}

#[tokio::test]
async fn existing_target_is_replaced_only_with_force() {
    let (server, directory) = (start().await, tempfile::tempdir().unwrap());
    let check = async |line: &str, code: i32, part: &str| {
        let ran = export(&server, &directory, line).await;
        assert_eq!(ran.code, Some(code), "{line}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{line}: {}", ran.stderr);
    };
    for (target, wrong) in
        [("runs.csv", "full"), ("full --full", "runs.csv --full"), ("tree --partition pair", "full --partition pair")]
    {
        check(target, 0, "").await;
        check(target, 1, "exists; choose another name, or replace it with --force").await;
        check(&format!("{target} --force"), 0, "").await;
        if names(directory.path()).contains(&wrong.split(' ').next().unwrap().to_owned()) {
            check(&format!("{wrong} --force"), 1, "choose another name").await;
        }
    }
    assert_eq!(names(directory.path()), ["full", "runs.csv", "tree"]);
}

#[tokio::test]
async fn invalid_export_reports_the_reason_and_leaves_no_file() {
    let (server, directory) = (start().await, tempfile::tempdir().unwrap());
    let check = async |line: &str, code: i32, part: &str| {
        let ran = export(&server, &directory, line).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{line}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{line}: {}", ran.stderr);
        assert_eq!(names(directory.path()), [""; 0], "{line}");
    };
    check("a --from 2025-12-08 --to 2025-12-07", 2, "--to: 2025-12-07T00:00:00Z is before --from").await;
    check("a --pair TJS/USD", 1, "there is no series of TJS/USD; available:").await;
    check("a --pair KGS", 2, "--pair <PAIR>").await;
    check(
        "a --pair USD/KGS",
        1,
        "USD/KGS is not published but derived, and derived pairs are not exported; export KGS/USD and",
    )
    .await;
    check("a --pair UZS/KGS", 1, "export UZS/USD and KGS/USD and compute the rates of UZS/KGS").await;
    check("a.csv.gz", 2, "use a name that ends in .parquet, .arrows or .csv, or give --format").await;
    check("a.json", 2, "cannot tell the format from the file name").await;
    for name in ["a.csv", "a.arrows"] {
        check(&format!("{name} --partition pair"), 2, "--partition writes a directory of Parquet files").await;
    }
    check("a.csv b.csv", 2, "pair 'b.csv'").await;
    check("a --pair EUR/USD", 2, "--pair: pair 'EUR/USD'").await;
    check("a EUR/USD", 2, "PAIR: pair 'EUR/USD'").await;
    check("a TJS/USD", 1, "there is no series of TJS/USD; available:").await;
    check("a --source nbkr", 1, "there is no series from nbkr").await;
    check("a --known-time 2025-01-01", 1, "nothing was known at 2025-01-01").await;
    check("nowhere/a", 1, "cannot write nowhere/a").await;
    check("- --full", 2, "name a directory instead of -").await;
    check("a --shape candles", 2, "--interval <LENGTH>").await;
    check(
        "a --shape candles --interval 1d --time-zone Asia/Nowhere",
        2,
        "--time-zone: 'Asia/Nowhere' is not a time zone",
    )
    .await;
    check("a --interval 1d", 2, "--interval applies only to --shape candles; leave it out, or add").await;
    check("a --shape daily --fill", 2, "--fill applies only to --shape candles").await;
    check("a --full --shape candles --interval 1d", 2, "cannot be used with").await;
    check("a --shape weekly", 2, "possible values: runs, daily, candles").await;
}

#[tokio::test]
async fn full_export_is_a_directory_with_a_manifest() {
    let (server, directory) = (start().await, tempfile::tempdir().unwrap());
    let ran = export(&server, &directory, "backup --full").await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let backup = directory.path().join("backup");
    let parts = [
        "archive.parquet",
        "commits.parquet",
        "manifest.json",
        "polls.parquet",
        "quarantine.parquet",
        "revisions.parquet",
        "runs.parquet",
        "series.parquet",
        "timeline.parquet",
    ];
    assert_eq!(names(&backup), parts);
    let manifest: Value = serde_json::from_slice(&std::fs::read(backup.join("manifest.json")).unwrap()).unwrap();
    let found =
        ["schema_version", "sequence", "recorded_time", "product_version", "row_count"].map(|key| &manifest[key]);
    let expect: [Value; 5] =
        [2.into(), 1.into(), "2025-12-08T12:00:00Z".into(), env!("CARGO_PKG_VERSION").into(), 14.into()];
    assert_eq!(found, expect.each_ref());
    assert_eq!(manifest["filter"]["full"], true);
    for part in manifest["parts"].as_array().unwrap() {
        let bytes = std::fs::read(backup.join(part["name"].as_str().unwrap())).unwrap();
        let sha256 = format!("{:x}", Sha256::digest(&bytes));
        assert_eq!((&part["byte_count"], &part["sha256"]), (&bytes.len().into(), &sha256.into()), "{part}");
    }
}

#[tokio::test]
async fn partitions_hold_every_row_once_under_its_pair_and_month() {
    let (server, directory) = (start().await, tempfile::tempdir().unwrap());
    let ran = export(&server, &directory, "tree --partition pair,month").await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let tree = directory.path().join("tree");
    let check = |path: &str, expect: &[&str]| {
        let batches = tables::parquet(&tree.join(path));
        assert_eq!(tables::rows(&batches, &["source", "rate"]), expect, "{path}");
        assert!(batches[0].column_by_name("pair").is_none(), "the pair is in the path and not in a column");
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(tree.join(path)).unwrap()).unwrap();
        assert!(reader.schema().metadata()["silkrate.filter"].contains("\"format\":\"parquet\""));
    };
    assert_eq!(names(&tree), ["pair=KGS%2FUSD", "pair=UZS%2FUSD"]);
    assert_eq!(names(&tree.join("pair=KGS%2FUSD")), ["month=2025-11", "month=2025-12"]);
    // Each source of a month has a file of its own.
    check("pair=KGS%2FUSD/month=2025-12/part-0.parquet", &["cbu 0.011400000000000000"]);
    check(
        "pair=KGS%2FUSD/month=2025-12/part-1.parquet",
        &["timesca 0.011440000000000000", "timesca 0.011450000000000000"],
    );
    check("pair=KGS%2FUSD/month=2025-11/part-0.parquet", &["timesca 0.011430000000000000"]);
    check("pair=UZS%2FUSD/month=2025-12/part-0.parquet", &["timesca 0.000080000000000000"]);
    // Candles are partitioned by the month in which they start.
    let ran = export(&server, &directory, "candles --shape candles --interval 1mo --partition source,month").await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let candles = directory.path().join("candles");
    assert_eq!(names(&candles), ["source=cbu", "source=timesca"]);
    assert_eq!(names(&candles.join("source=timesca")), ["month=2025-11", "month=2025-12"]);
    let of_november = tables::parquet(&candles.join("source=timesca/month=2025-11/part-0.parquet"));
    assert_eq!(tables::rows(&of_november, &["pair", "open", "complete"]), ["KGS/USD 0.011430000000000000 true"]);
}

/// A month of candles begins at midnight of their time zone. The month of a partition begins at the same instant.
#[tokio::test]
async fn candles_are_partitioned_by_months_of_their_time_zone() {
    let (server, directory) = (TestServer::start(&[]).await, tempfile::tempdir().unwrap());
    // 15 November 2025.
    server.store(&[tick("KGS/USD", -23 * 24 * HOUR_S, "0.01143")]).await;
    let check = async |name: &str, line: &str, expect: &[(&str, &str)]| {
        let line = format!("{name} --shape candles --partition month --fill {line}");
        let ran = export(&server, &directory, &line).await;
        assert_eq!(ran.code, Some(0), "{line}: {}", ran.stderr);
        let tree = directory.path().join(name);
        let months: Vec<_> = expect.iter().map(|(month, _)| format!("month={month}")).collect();
        assert_eq!(names(&tree), months, "{line}");
        for (month, first) in expect {
            let rows = tables::parquet(&tree.join(format!("month={month}/part-0.parquet")));
            assert_eq!(tables::rows(&rows, &["start_time"])[0], *first, "{line}");
        }
    };
    let (november, december) = ("2025-10-31T19:00:00Z", "2025-11-30T19:00:00Z");
    check("a", "--interval 1mo --time-zone Asia/Tashkent", &[("2025-11", november), ("2025-12", december)]).await;
    let days = [("2025-11", "2025-11-14T19:00:00Z"), ("2025-12", december)];
    check("b", "--interval 1d --time-zone Asia/Tashkent", &days).await;
    // A zone west of Greenwich.
    let west = [("2025-11", "2025-11-15T05:00:00Z"), ("2025-12", "2025-12-01T05:00:00Z")];
    check("c", "--interval 1d --time-zone America/New_York", &west).await;
    let utc = [("2025-11", "2025-11-15T00:00:00Z"), ("2025-12", "2025-12-01T00:00:00Z")];
    check("d", "--interval 1d", &utc).await;
}

/// Runs exported as CSV can be imported like runs in Parquet, with both commands.
#[tokio::test]
async fn runs_in_csv_can_be_imported_again() {
    let (server, directory) = (start().await, tempfile::tempdir().unwrap());
    server.store(&[tick("KGS/USD", -HOUR_S + 60, "0.01145")]).await;
    let ran = export(&server, &directory, "runs.csv").await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for name in ["import", "ingest"] {
        let mut again = Command::new(env!("CARGO_BIN_EXE_silkrate"));
        again.args([name, "runs.csv", "--output", "json"]).current_dir(directory.path());
        again.env("SILKRATE_ENDPOINT", server.addr.to_string());
        let ran = run(again).await;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((&report[0]["format"], &report[0]["known_count"]), (&"csv".into(), &6.into()), "{report}");
    }
}

/// Returns the total size of the files below a directory.
fn bytes_below(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let bytes = |entry: std::fs::DirEntry| match entry.metadata().unwrap() {
        found if found.is_dir() => bytes_below(&entry.path()),
        found => found.len(),
    };
    entries.map(bytes).sum()
}

#[tokio::test]
async fn partitioned_export_reports_its_size_and_has_columns_even_without_rows() {
    let (server, directory) = (start().await, tempfile::tempdir().unwrap());
    let check = async |line: &str, rows: u64| {
        let ran = export(&server, &directory, &format!("{line} --output json")).await;
        assert_eq!(ran.code, Some(0), "{line}: {}", ran.stderr);
        let summary: Value = serde_json::from_str(&ran.stdout).unwrap();
        let bytes = bytes_below(&directory.path().join(line.split(' ').next().unwrap()));
        assert_eq!((&summary[0]["row_count"], &summary[0]["byte_count"]), (&rows.into(), &bytes.into()), "{line}");
    };
    check("tree --partition pair,month", 5).await;
    check("none --partition pair,month --from 2026-01-01", 0).await;
    let part = directory.path().join("none/pair=none/month=none/part-0.parquet");
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(part).unwrap()).unwrap();
    assert!(reader.schema().field_with_name("rate").is_ok() && reader.schema().field_with_name("pair").is_err());
    check("none --partition source --force", 5).await;
}

#[tokio::test]
async fn export_into_a_closed_pipe_ends_quietly() {
    let (server, directory) = (start().await, tempfile::tempdir().unwrap());
    let ticks: Vec<_> = (0..5_000).map(|n| tick("KGS/USD", -2 * MONTH_S - n, &format!("0.{}", n + 1))).collect();
    server.store(&ticks).await;
    for format in ["csv", "parquet", "arrow"] {
        let mut child = command(server.addr, directory.path(), &format!("- --format {format}"));
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), stderr.as_str()), (Some(0), ""), "{format}");
    }
}

#[tokio::test]
async fn full_disk_leaves_no_file() {
    let (server, directory) = (start().await, tempfile::tempdir().unwrap());
    for line in ["a", "a --full", "a --partition pair"] {
        let exe = command(server.addr, directory.path(), line);
        // A limit on the file size makes writes fail like a full disk.
        let mut limited = Command::new("sh");
        limited
            .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"])
            .arg(exe.get_program())
            .args(exe.get_args());
        limited.current_dir(directory.path()).env("SILKRATE_ENDPOINT", server.addr.to_string());
        let ran = run(limited).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{line}: {}", ran.stderr);
        assert!(ran.stderr.contains("error: "), "{line}: {}", ran.stderr);
        assert_eq!(names(directory.path()), [""; 0], "{line}");
    }
    let mut redirected = command(server.addr, directory.path(), "- --format csv");
    redirected.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let ran = run(redirected).await;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("No space left on device"), "{}", ran.stderr);
}

type Messages = Vec<Result<Message, Status>>;

/// A service that sends the given messages, and then sends nothing more and stays open if `hangs` is set.
struct FaultyService {
    messages: Messages,
    hangs: bool,
}

#[tonic::async_trait]
impl SnapshotService for FaultyService {
    type ExportSnapshotStream = Pin<Box<dyn Stream<Item = Result<v1::ExportSnapshotResponse, Status>> + Send>>;

    async fn export_snapshot(
        &self,
        _: Request<v1::ExportSnapshotRequest>,
    ) -> Result<Response<Self::ExportSnapshotStream>, Status> {
        let wrap = |message| v1::ExportSnapshotResponse { message: Some(message) };
        let messages: Vec<_> = self.messages.iter().cloned().map(|message| message.map(wrap)).collect();
        let sent = tokio_stream::iter(messages);
        Ok(Response::new(if self.hangs { Box::pin(sent.chain(tokio_stream::pending())) } else { Box::pin(sent) }))
    }
}

async fn start_faulty_service(messages: Messages, hangs: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(SnapshotServiceServer::new(FaultyService { messages, hangs }));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

fn manifest(part: &str) -> Result<Message, Status> {
    Ok(Message::Manifest(v1::ExportManifest {
        schema_version: silkrate::export::SCHEMA_VERSION,
        parts: vec![part.to_owned()],
        ..v1::ExportManifest::default()
    }))
}

const CONTENT: &[u8] = b"pair\nKGS/USD\n";

fn chunk(data: &'static [u8]) -> Result<Message, Status> {
    Ok(Message::Chunk(v1::ExportChunk { part: "runs.csv".to_owned(), data: data.into(), row_count: 1 }))
}

fn part_end(row_count: u64) -> Result<Message, Status> {
    let sha256 = Sha256::digest(CONTENT).to_vec();
    Ok(Message::PartEnd(v1::ExportPartEnd { part: "runs.csv".to_owned(), row_count, sha256 }))
}

fn end(row_count: u64) -> Result<Message, Status> {
    Ok(Message::End(v1::ExportEnd { row_count, part_count: 1 }))
}

#[tokio::test]
async fn incomplete_or_damaged_stream_leaves_no_file() {
    let check = async |messages: Messages, part: &str| {
        let directory = tempfile::tempdir().unwrap();
        let address = start_faulty_service(messages, false).await;
        let ran = run(command(address, directory.path(), "runs.csv")).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
        assert!(ran.stderr.contains(part), "no '{part}' in: {}", ran.stderr);
        assert_eq!(names(directory.path()), [""; 0], "{part}");
    };
    let first = || manifest("runs.csv");
    check(vec![first(), chunk(b"pair\nKGS/USE\n"), part_end(1), end(1)], "runs.csv arrived damaged: its SHA-256 is")
        .await;
    check(vec![first(), chunk(CONTENT), part_end(2), end(2)], "runs.csv has 1 rows, but the server sent 2").await;
    check(vec![first(), chunk(CONTENT), part_end(1), end(7)], "the export has 1 rows, but the server sent 7").await;
    check(vec![first(), chunk(CONTENT), part_end(1)], "ended before its end message").await;
    check(vec![first(), chunk(CONTENT)], "ended before its end message").await;
    check(vec![first(), chunk(CONTENT), Err(Status::data_loss("a block is bad"))], "a block is bad").await;
    check(vec![manifest("../runs.csv")], "not a plain file name").await;
    check(vec![], "ended before its end message").await;
    // Bytes written to a pipe cannot be withdrawn; the exit status reports the failure.
    let check_piped = async |line: &str, messages: Messages, part: &str| {
        let directory = tempfile::tempdir().unwrap();
        let ran = run(command(start_faulty_service(messages, false).await, directory.path(), line)).await;
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains(part), "no '{part}' in: {}", ran.stderr);
    };
    let (csv, arrow) = ("- --format csv", "- --format arrow");
    check_piped(csv, vec![first(), chunk(b"pair\nKGS/USE\n"), part_end(1), end(1)], "runs.csv arrived damaged").await;
    check_piped(csv, vec![first(), chunk(CONTENT), part_end(2), end(2)], "runs.csv has 1 rows, but the server sent 2")
        .await;
    check_piped(csv, vec![first(), chunk(CONTENT), part_end(1)], "ended before its end message").await;
    check_piped(arrow, vec![first(), chunk(CONTENT), part_end(1), end(1)], "cannot be read back as an Arrow stream")
        .await;
    // The same stream without a fault is accepted.
    let directory = tempfile::tempdir().unwrap();
    let address = start_faulty_service(vec![first(), chunk(CONTENT), part_end(1), end(1)], false).await;
    let ran = run(command(address, directory.path(), "runs.csv")).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(std::fs::read(directory.path().join("runs.csv")).unwrap(), CONTENT);
}

#[tokio::test]
async fn signal_leaves_no_file() {
    let check = async |line: &str, messages: Messages, signal: Signal, code: i32| {
        let directory = tempfile::tempdir().unwrap();
        let address = start_faulty_service(messages, true).await;
        let mut child = command(address, directory.path(), line).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        while names(directory.path()).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the command wrote nothing within 20 s");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(names(directory.path())[0].starts_with(".target."), "{:?}", names(directory.path()));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert_eq!(status.code(), Some(code), "{line} {signal:?}");
        assert_eq!(names(directory.path()), [""; 0], "{line} {signal:?}");
    };
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let begun = || vec![manifest("runs.csv"), chunk(CONTENT)];
        check("target --format csv", begun(), signal, code).await;
        check("target --full", begun(), signal, code).await;
        check("target --partition pair", vec![manifest("runs.arrows")], signal, code).await;
    }
}

/// The signal arrives while the command is writing partitions.
#[tokio::test]
async fn signal_while_writing_partitions_leaves_no_file() {
    let server = start().await;
    let months: Vec<_> = (0..300).map(|month| tick("KGS/USD", -(month + 1) * MONTH_S, "0.01143")).collect();
    server.store(&months).await;
    // If the export finished before the signal, all partitions are there.
    let mut interrupted = 0;
    for _ in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let mut child = command(server.addr, directory.path(), "target --partition pair,month --shape daily");
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while names(directory.path()).is_empty() && child.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        // The call fails if the process has already exited.
        let _ = kill_process(pid, Signal::TERM);
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        if status.code() == Some(143) {
            assert_eq!(names(directory.path()), [""; 0]);
            interrupted += 1;
        } else {
            assert_eq!((status.code(), names(directory.path())), (Some(0), vec!["target".to_owned()]));
        }
    }
    assert!(interrupted > 0);
}
