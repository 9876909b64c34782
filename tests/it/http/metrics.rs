//! `/metrics`: the counters and gauges that Prometheus reads.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use silkrate::proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::publisher::{Publisher, Reply};
use crate::skipped;
use crate::support::{NOW, TestServer, tick};

/// Sends a plain GET and returns the lower-case head and the body.
async fn get(server: &TestServer, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server.http_addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

/// Returns the value of a sample, given its name and labels as in the text.
fn value<'a>(text: &'a str, sample: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))
}

#[track_caller]
fn check(text: &str, expect: &[(&str, &str)]) {
    for (sample, expect) in expect {
        assert_eq!(value(text, sample), Some(*expect), "{sample} in:\n{text}");
    }
}

/// Starts a server and sends six ticks, two of them refused, and a few calls.
async fn busy() -> TestServer {
    busy_with(&[]).await
}

/// Does the same as [`busy`], on a server with these flags of `serve`.
async fn busy_with(flags: &[&str]) -> TestServer {
    let server = TestServer::start(flags).await;
    server
        .store(&[tick("KGS/USD", -60, "0.01144"), tick("KGS/USD", -30, "0.01144"), tick("KGS/USD", -1, "0.01145")])
        .await;
    server.store(&[tick("UZS/USD", 0, "0.00008")]).await;
    let refused = [tick("KGS/USD", -1, "0.01146"), tick("KGS/USD", 0, "-1")].to_vec();
    let request = v1::IngestTicksRequest { ticks: refused, ..Default::default() };
    assert_eq!(server.ingest().ingest_ticks(request).await.unwrap().into_inner().refusals.len(), 2);
    for _ in 0..3 {
        server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap();
    }
    let unknown = v1::GetRateRequest { pair: "TMT/USD".to_owned(), ..Default::default() };
    assert!(server.rates().get_rate(unknown).await.is_err());
    server
}

#[tokio::test]
async fn metrics_count_ticks_calls_and_requests() {
    let server = busy().await;
    let (head, _) = get(&server, "/metrics").await;
    assert!(head.contains("200 ok") && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    get(&server, "/no/such/path").await;
    let (_, text) = get(&server, "/metrics").await;
    let service = "silkrate.v1.RateService";
    check(
        &text,
        &[
            ("silkrate_ingest_ticks_total{outcome=\"new_run\"}", "3"),
            ("silkrate_ingest_ticks_total{outcome=\"collapsed\"}", "1"),
            ("silkrate_ingest_ticks_total{outcome=\"known\"}", "0"),
            ("silkrate_ingest_refused_ticks_total{reason=\"conflict\"}", "1"),
            ("silkrate_ingest_refused_ticks_total{reason=\"invalid_rate\"}", "1"),
            ("silkrate_ingest_queued_ticks", "0"),
            // The request with only refused ticks made no commit.
            ("silkrate_commit_seconds_count", "2"),
            (&format!("silkrate_grpc_call_seconds_count{{code=\"OK\",method=\"{service}/GetLatestRates\"}}"), "3"),
            (&format!("silkrate_grpc_call_seconds_count{{code=\"NOT_FOUND\",method=\"{service}/GetRate\"}}"), "1"),
            ("silkrate_http_request_seconds_count{route=\"/metrics\",status=\"200\"}", "1"),
            ("silkrate_http_request_seconds_count{route=\"unknown\",status=\"404\"}", "1"),
            ("silkrate_rate{pair=\"KGS/USD\",source=\"timesca\"}", "0.01145"),
            ("silkrate_rate{pair=\"UZS/USD\",source=\"timesca\"}", "0.00008"),
            ("silkrate_rate_state{pair=\"KGS/USD\",source=\"timesca\",state=\"MOVING\"}", "1"),
            ("silkrate_rate_state{pair=\"KGS/USD\",source=\"timesca\",state=\"STALE\"}", "0"),
            ("silkrate_series_runs{pair=\"KGS/USD\",source=\"timesca\"}", "2"),
            ("silkrate_series_observations{pair=\"KGS/USD\",source=\"timesca\"}", "3"),
            ("silkrate_writer_up", "1"),
            (
                "silkrate_sequence",
                &server
                    .rates()
                    .get_latest_rates(v1::GetLatestRatesRequest::default())
                    .await
                    .unwrap()
                    .into_inner()
                    .sequence
                    .to_string(),
            ),
        ],
    );
    let seconds = |sample: &str| value(&text, sample).unwrap().parse::<f64>().unwrap();
    let confirmed = seconds("silkrate_rate_last_observed_timestamp_seconds{pair=\"UZS/USD\",source=\"timesca\"}");
    assert_eq!(confirmed.to_string(), (NOW.micros() / 1_000_000).to_string());
    assert!(seconds("silkrate_store_bytes{part=\"log\"}") > 0.0);
    assert!(seconds("process_resident_memory_bytes") > 0.0);
}

/// Returns the names of all samples, which dashboards and alerts may use.
fn names(text: &str) -> BTreeSet<&str> {
    let ends = |c: char| c == '{' || c == ' ';
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(ends).next()).collect()
}

/// Returns the metrics of this server that a document names.
fn named(text: &str) -> BTreeSet<&str> {
    let in_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let starts = text.match_indices("silkrate_").map(|(at, _)| &text[at..]);
    starts.map(|rest| &rest[..rest.find(|c| !in_name(c)).unwrap_or(rest.len())]).collect()
}

#[tokio::test]
async fn dashboard_and_alerts_use_existing_metrics() {
    // Feed metrics exist only if a feed is followed.
    let publisher = Publisher::start(|_| Reply::Body(b"TJS/USD = 0.10870 0%\n".to_vec())).await;
    let url = format!("timesca={}", publisher.base_url);
    let server = busy_with(&["--follow", "timesca", "--feed-url", &url]).await;
    // A request before the scrape, so that every metric has a sample.
    server.store(&[tick("KGS/USD", 0, "0.01150")]).await;
    server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap();
    assert!(
        server
            .ingest()
            .ingest_ticks(v1::IngestTicksRequest { ticks: vec![tick("KGS/USD", 0, "0")], ..Default::default() })
            .await
            .is_ok()
    );
    get(&server, "/metrics").await;
    let mut text = String::new();
    for _ in 0..200 {
        text = get(&server, "/metrics").await.1;
        if text.contains("silkrate_feed_last_success_timestamp_seconds{") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let existing = names(&text);
    for file in ["grafana-dashboard.json", "prometheus-rules.yml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring").join(file);
        let document = std::fs::read_to_string(path).unwrap();
        let named = named(&document);
        assert!(named.len() > 2, "{file} names {named:?}");
        let missing: Vec<_> = named.difference(&existing).collect();
        assert!(missing.is_empty(), "{file} names {missing:?}, but the metrics are {existing:?}");
    }
    let dashboard =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring/grafana-dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_slice(&dashboard).unwrap();
    let queries = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    assert!(queries.filter(|query| query["expr"].is_string()).count() > 15);
}

#[tokio::test]
async fn promtool_accepts_metrics_and_rules() {
    let server = busy().await;
    let (_, text) = get(&server, "/metrics").await;
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        skipped::skipped("promtool is not installed (Debian package: prometheus)");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let ended = promtool.wait_with_output().unwrap();
    let output = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && output.is_empty(), "{output}\n{text}");
    for (what, file) in
        [("check", "docs/monitoring/prometheus-rules.yml"), ("test", "tests/data/prometheus-rules-test.yml")]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let ended = Command::new("promtool").args([what, "rules"]).arg(path).output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}
