//! The audit log: a line for each change, its author, and rotation.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use silkrate::access::{Grants, Role};
use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;
use silkrate::store::{DiskFault, DiskOperation};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use super::{Bearer, Tokens, eventually};
use crate::support::{TestServer, tick, tick_from};

struct Audited {
    server: TestServer,
    tokens: Tokens,
    secret: String,
}

impl Audited {
    async fn start() -> Self {
        let mut tokens = Tokens::new();
        let secret = tokens.add("root", Grants { role: Role::Admin, sources: None, revise: false }, None);
        let flag = |name: &str| tokens.dir.path().join(name).display().to_string();
        let server = TestServer::start(&["--tokens", &flag("tokens.json"), "--audit-log", &flag("audit.jsonl")]).await;
        Self { server, tokens, secret }
    }

    fn path(&self) -> PathBuf {
        self.tokens.dir.path().join("audit.jsonl")
    }

    fn client(&self) -> IngestServiceClient<InterceptedService<Channel, Bearer>> {
        IngestServiceClient::with_interceptor(self.server.channel.clone(), Bearer::new(&self.secret))
    }

    async fn ingest(
        &self,
        ticks: Vec<v1::Tick>,
        policy: v1::ConflictPolicy,
        validate_only: bool,
    ) -> v1::IngestTicksResponse {
        let request = v1::IngestTicksRequest { ticks, conflict_policy: policy.into(), validate_only };
        self.client().ingest_ticks(request).await.unwrap().into_inner()
    }
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Checks the fields that every line has, and returns the other fields.
fn rest(line: &Value, call: &str, sequence: u64) -> Value {
    let mut line = line.as_object().unwrap().clone();
    for (name, expect) in [
        ("who", json!("root")),
        ("kind", json!("token")),
        ("address", json!("127.0.0.1")),
        ("call", json!(call)),
        ("sequence", json!(sequence)),
    ] {
        assert_eq!(line.remove(name), Some(expect), "{name} of {call}");
    }
    for name in ["time", "recorded_time"] {
        let time = line.remove(name).unwrap();
        assert!(time.as_str().unwrap().starts_with("2025-12-08T12:00:00"), "{name} of {call}: {time}");
    }
    Value::Object(line)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_has_a_line_with_author_content_address_and_commit() {
    use v1::ConflictPolicy::{Refuse, Revise};
    let audited = Audited::start().await;
    let mut sequences = Vec::new();
    let nbkr = || tick_from("nbkr", "USD/KGS", -60, "87.4500");
    sequences.push(audited.ingest(vec![nbkr(), tick("KGS/USD", -60, "0.01144")], Refuse, false).await.sequence);
    // Nothing changes: a repeated tick, and a validated batch.
    audited.ingest(vec![nbkr()], Refuse, false).await;
    audited.ingest(vec![tick("KGS/USD", -30, "0.01145")], Refuse, true).await;
    sequences.push(audited.ingest(vec![tick_from("nbkr", "USD/KGS", -60, "87.4600")], Revise, false).await.sequence);
    // A held tick by a stream, and the decisions.
    let held = |seconds, rate| tick_from("nbkr", "USD/KGS", seconds, rate);
    let ticks = vec![held(-20, "8745"), held(-10, "8746")];
    let request = v1::StreamTicksRequest {
        batch: Some(v1::stream_ticks_request::Batch::Ticks(v1::TickBatch { ticks })),
        ..Default::default()
    };
    let mut answers = audited.client().stream_ticks(tokio_stream::once(request)).await.unwrap().into_inner();
    let stored = answers.next().await.unwrap().unwrap().result.unwrap();
    let ids: Vec<u64> = stored.held_ticks.iter().map(|held| held.id.unwrap()).collect();
    sequences.push(stored.sequence);
    let discard =
        v1::DiscardQuarantineRequest { ids: vec![ids[0]], note: "a slip\u{2028}\"x\"".replace('\u{2028}', " ") };
    sequences.push(audited.client().discard_quarantine(discard.clone()).await.unwrap().into_inner().sequence);
    audited.client().discard_quarantine(discard).await.unwrap();
    let release = v1::ReleaseQuarantineRequest { ids: vec![ids[1]], ..Default::default() };
    sequences.push(audited.client().release_quarantine(release).await.unwrap().into_inner().sequence);
    let (source, note) = ("nbkr".to_owned(), "moved".to_owned());
    let archive = v1::ArchiveSourceRequest { source: source.clone(), note };
    sequences.push(audited.client().archive_source(archive).await.unwrap().into_inner().sequence);
    let unarchive = v1::UnarchiveSourceRequest { source, note: String::new() };
    sequences.push(audited.client().unarchive_source(unarchive).await.unwrap().into_inner().sequence);
    let page = v1::IngestPageRequest {
        content: std::fs::read("data/times-of-central-asia-2025-12-08.txt").unwrap().into(),
        ..Default::default()
    };
    sequences.push(audited.client().ingest_page(page).await.unwrap().into_inner().sequence);
    let lines = lines(&audited.path());
    let calls = [
        "IngestTicks",
        "IngestTicks",
        "StreamTicks",
        "DiscardQuarantine",
        "ReleaseQuarantine",
        "ArchiveSource",
        "UnarchiveSource",
        "IngestPage",
    ];
    assert_eq!(lines.len(), calls.len(), "{lines:#?}");
    let rest: Vec<Value> = (0..calls.len()).map(|at| rest(&lines[at], calls[at], sequences[at])).collect();
    assert_eq!(rest[0]["sources"], json!(["nbkr", "timesca"]));
    assert_eq!((&rest[0]["counts"]["new_runs"], &rest[0]["conflict_policy"]), (&json!(2), &json!("refuse")));
    assert_eq!((&rest[1]["counts"]["revised"], &rest[1]["conflict_policy"]), (&json!(1), &json!("revise")));
    assert_eq!(rest[2]["counts"]["held"], json!(2));
    let decision =
        |id, verdict, note: Value| json!({"ids": [id], "verdict": verdict, "conflict_policy": "refuse", "note": note});
    assert_eq!(rest[3], decision(ids[0], "discarded", json!("a slip \"x\"")));
    assert_eq!(rest[4], decision(ids[1], "released", Value::Null));
    assert_eq!(rest[5], json!({"source": "nbkr", "archived": true, "note": "moved"}));
    assert_eq!(rest[6], json!({"source": "nbkr", "archived": false, "note": null}));
    assert_eq!(rest[7]["sources"], json!(["timesca"]));
    let text = std::fs::read_to_string(audited.path()).unwrap();
    assert!(!text.contains(&audited.secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn renamed_log_is_replaced_and_restarted_server_appends() {
    let audited = Audited::start().await;
    let change = async |audited: &Audited, seconds| {
        audited.ingest(vec![tick("KGS/USD", seconds, "0.01144")], v1::ConflictPolicy::Refuse, false).await;
    };
    change(&audited, -60).await;
    let rotated = audited.path().with_extension("1");
    std::fs::rename(audited.path(), &rotated).unwrap();
    change(&audited, -50).await;
    assert_eq!((lines(&rotated).len(), lines(&audited.path()).len()), (1, 1));
    let Audited { server, tokens, secret } = audited;
    let audited = Audited { server: server.restart().await, tokens, secret };
    change(&audited, -40).await;
    assert_eq!(lines(&audited.path()).len(), 2);
    // A directory in place of the log: the call succeeds, and the failure is counted.
    std::fs::remove_file(audited.path()).unwrap();
    std::fs::create_dir(audited.path()).unwrap();
    change(&audited, -30).await;
    let header = ("authorization", format!("Bearer {}", audited.secret));
    let metrics = crate::web::get_with(audited.server.http_addr, "/metrics", &[(header.0, &header.1)]).await.body;
    assert!(metrics.contains("silkrate_audit_failures_total 1"), "{metrics}");
}

/// A client that disconnects before the response must not lose the line of its change.
#[tokio::test(flavor = "multi_thread")]
async fn change_of_a_disconnected_client_has_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    // Each commit takes long enough for the client to leave.
    let slow: DiskFault = Arc::new(|operation| {
        if operation == DiskOperation::Sync {
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    });
    let server = TestServer::start_with_fault(slow, &["--audit-log", &path.display().to_string()]).await;
    // The server answers once it is ready.
    server.rates().list_series(v1::ListSeriesRequest::default()).await.unwrap();
    let mut client = server.ingest();
    let ticks = vec![tick("KGS/USD", -60, "0.01144")];
    let request = v1::IngestTicksRequest { ticks, ..Default::default() };
    let left = timeout(Duration::from_millis(100), client.ingest_ticks(request)).await;
    assert!(left.is_err(), "the client leaves before the response");
    eventually("the line", async || lines(&path).len() == 1).await;
    assert_eq!(lines(&path)[0]["call"], json!("IngestTicks"));
}

#[tokio::test(flavor = "multi_thread")]
async fn client_of_an_open_server_is_anonymous() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let server = TestServer::start(&["--audit-log", &path.display().to_string()]).await;
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    let line = &lines(&path)[0];
    assert_eq!(
        (&line["who"], &line["kind"], &line["address"]),
        (&json!("anonymous"), &json!("anonymous"), &json!("127.0.0.1"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_server_itself_have_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let page = "data/times-of-central-asia-2025-12-08.txt";
    let server = TestServer::start(&["--audit-log", &path.display().to_string(), "--load", page]).await;
    // The server answers once the files are loaded.
    assert_eq!(crate::web::get(server.http_addr, "/readyz").await.status, 200);
    let line = &lines(&path)[0];
    assert_eq!((&line["who"], &line["kind"], &line["call"]), (&json!("server"), &json!("server"), &json!("load")));
    assert_eq!((&line["sources"], &line["address"]), (&json!(["timesca"]), &Value::Null));
}
