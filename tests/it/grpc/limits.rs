//! Limits on what one client can take, attacked over real sockets.

use std::net::IpAddr;
use std::time::Duration;

use silkrate::domain::Timestamp;
use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;
use silkrate::proto::v1::rate_service_client::RateServiceClient;
use silkrate::proto::v1::snapshot_service_client::SnapshotServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::support::{NOW, TestServer, tick, tick_from};
use crate::web::get;

/// The preface of HTTP/2 and empty settings: what a client sends before its first call.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Far longer than any step of these tests takes.
const TIMEOUT: Duration = Duration::from_mins(1);

async fn send(server: &TestServer, ticks: Vec<v1::Tick>) -> v1::IngestTicksResponse {
    let request = v1::IngestTicksRequest { ticks, ..Default::default() };
    server.ingest().ingest_ticks(request).await.unwrap().into_inner()
}

/// Ticks of sources that nobody configured.
fn invented(first: u32) -> Vec<v1::Tick> {
    (first..first + 5_000).map(|number| tick_from(&format!("invented-{number}"), "KGS/USD", -60, "0.01144")).collect()
}

/// Checks that only the first `stored` of 5,000 ticks are stored, and the others are refused for `reason`.
#[track_caller]
fn check_refused(response: &v1::IngestTicksResponse, stored: u32, reason: v1::RefusalReason, parts: &[&str]) {
    let summary = response.summary.unwrap();
    assert_eq!((summary.new_run_count, summary.refused_count), (stored, 5_000 - stored));
    assert!(response.refusals.iter().all(|refusal| refusal.reason() == reason));
    for part in parts {
        assert!(response.refusals[0].message.contains(part), "no '{part}' in: {}", response.refusals[0].message);
    }
}

#[tokio::test]
async fn caller_with_invented_sources_does_not_take_the_series_of_others() {
    let server = TestServer::start(&["--series-max", "100"]).await;
    let parts = ["127.0.0.1 has created 20 sources today", "--caller-sources", "after 2025-12-09T00:00:00Z"];
    check_refused(&send(&server, invented(0)).await, 20, v1::RefusalReason::CallerLimit, &parts);
    check_refused(&send(&server, invented(5_000)).await, 0, v1::RefusalReason::CallerLimit, &parts);
    // Existing sources and configured sources are not affected.
    let others = [tick_from("invented-7", "KZT/USD", -60, "0.0019"), tick("KGS/USD", 0, "0.01144")];
    server.store(&others).await;
    server.store(&[tick_from("nbkr", "USD/KGS", 0, "87.45"), tick_from("cbu", "USD/UZS", 0, "11984.5")]).await;
    // A batch that is only validated is refused in the same way, and counts for nothing.
    server.clock.advance_us(Timestamp::DAY_US);
    let validated = v1::IngestTicksRequest { ticks: invented(5_000), validate_only: true, ..Default::default() };
    let validated = server.ingest().ingest_ticks(validated).await.unwrap().into_inner();
    check_refused(&validated, 20, v1::RefusalReason::CallerLimit, &["after 2025-12-10T00:00:00Z"]);
    check_refused(&send(&server, invented(5_000)).await, 20, v1::RefusalReason::CallerLimit, &[]);
}

#[tokio::test]
async fn archiving_a_mistaken_source_frees_its_series() {
    let server = TestServer::start(&["--series-max", "4", "--reserved-series", "0", "--caller-series", "100"]).await;
    server.store(&[tick("KGS/USD", 0, "0.01144")]).await;
    server.store(&["KGS/USD", "KZT/USD", "TJS/USD"].map(|pair| tick_from("mistake", pair, -60, "0.01144"))).await;
    let refused = send(&server, vec![tick("KZT/USD", 0, "0.0019")]).await;
    assert_eq!(refused.refusals[0].reason(), v1::RefusalReason::TooManySeries);
    assert!(refused.refusals[0].message.contains("archive sources that are mistaken"), "{refused:?}");
    let archive = v1::ArchiveSourceRequest { source: "mistake".to_owned(), ..Default::default() };
    server.ingest().archive_source(archive).await.unwrap();
    server.store(&["KZT/USD", "TJS/USD", "TMT/USD"].map(|pair| tick(pair, 0, "0.0019"))).await;
    let full = send(&server, vec![tick("UZS/USD", 0, "0.00008")]).await;
    assert_eq!(full.refusals[0].reason(), v1::RefusalReason::TooManySeries);
    // What was stored stays readable by the name of the source.
    let of_source =
        v1::GetRateRequest { pair: "KZT/USD".to_owned(), source: "mistake".to_owned(), ..Default::default() };
    assert_eq!(server.rates().get_rate(of_source).await.unwrap().into_inner().rate, "0.01144");
}

#[tokio::test]
async fn configured_sources_keep_reserved_series_however_many_callers_there_are() {
    let flags =
        ["--series-max", "40", "--reserved-series", "10", "--caller-series", "5000", "--caller-sources", "5000"];
    let server = TestServer::start(&[&flags[..], &["--stale-limit", "named=1d"]].concat()).await;
    let parts = ["10 of 40 series are reserved for configured sources", "configuration file"];
    check_refused(&send(&server, invented(0)).await, 30, v1::RefusalReason::TooManySeries, &parts);
    let configured = ["KGS/USD", "KZT/USD", "TJS/USD", "TMT/USD", "UZS/USD"];
    for source in ["timesca", "named"] {
        server.store(&configured.map(|pair| tick_from(source, pair, 0, "0.01144"))).await;
    }
    let full = send(&server, vec![tick_from("nbkr", "USD/KGS", 0, "87.45")]).await;
    assert_eq!(full.refusals[0].reason(), v1::RefusalReason::TooManySeries);
}

/// Opens an idle connection of HTTP/2, which has received the settings of the server.
async fn idle(server: &TestServer) -> TcpStream {
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(OPENING).await.unwrap();
    timeout(TIMEOUT, stream.read_u8()).await.expect("settings in time").unwrap();
    stream
}

async fn is_closed(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    // Far less than the time after which the server closes a client that answers no pings.
    timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn idle_connections_give_way_to_new_clients_and_watches_go_on() {
    let server = TestServer::start(&["--max-connections", "8", "--max-connections-per-address", "8"]).await;
    let watch = server.rates().watch_latest_rates(v1::WatchLatestRatesRequest::default()).await;
    let mut watch = watch.unwrap().into_inner();
    watch.message().await.unwrap();
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(idle(&server).await);
    }
    let other = Endpoint::from_shared(format!("http://{}", server.addr)).unwrap();
    let other = timeout(TIMEOUT, other.connect()).await.expect("a connection in time").unwrap();
    let request = v1::IngestTicksRequest { ticks: vec![tick("KGS/USD", 0, "0.01144")], ..Default::default() };
    let mut ingest = IngestServiceClient::new(other);
    ingest.ingest_ticks(request).await.unwrap();
    let update = timeout(TIMEOUT, watch.message()).await.expect("an update in time").unwrap().unwrap();
    assert_eq!(update.rates.len(), 1);
    assert!(is_closed(open.remove(0)).await);
}

#[tokio::test]
async fn connection_with_only_a_health_watch_gives_way() {
    let server = TestServer::start(&["--max-connections", "3", "--max-connections-per-address", "3"]).await;
    let mut watches = Vec::new();
    for _ in 0..2 {
        let mut health = HealthClient::new(connect_from(&server, 1).await);
        let watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        watches.push((health, watch));
    }
    // The connection of the test itself, and one more than fits.
    server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap();
    let mut other = RateServiceClient::new(connect_from(&server, 1).await);
    other.get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap();
    let (_, watch) = &mut watches[0];
    assert!(watch.message().await.unwrap().is_some());
    assert!(timeout(Duration::from_secs(10), watch.message()).await.expect("the watch ends").is_err());
}

#[tokio::test]
async fn address_at_its_limit_does_not_close_connections_with_a_call() {
    let server = TestServer::start(&["--max-connections-per-address", "2"]).await;
    let endpoint = || Endpoint::from_shared(format!("http://{}", server.addr)).unwrap();
    let mut watches = Vec::new();
    for _ in 0..2 {
        let channel = endpoint().connect().await.unwrap();
        let mut rates = RateServiceClient::new(channel);
        let watch = rates.watch_latest_rates(v1::WatchLatestRatesRequest::default()).await.unwrap();
        watches.push((rates, watch.into_inner()));
    }
    for _ in 0..10 {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        // The server may close the connection before or after this is written.
        let _ = stream.write_all(OPENING).await;
        assert!(is_closed(stream).await);
    }
    for (_, watch) in &mut watches {
        assert!(watch.message().await.unwrap().is_some());
    }
    watches.pop();
    // The slot becomes free once the server has seen the end of the connection.
    let mut attempts = 0;
    while timeout(Duration::from_millis(500), idle_once(&server)).await != Ok(true) {
        attempts += 1;
        assert!(attempts < 100, "the slot never became free");
    }
}

/// Returns whether the server accepts a connection.
async fn idle_once(server: &TestServer) -> bool {
    let Ok(mut stream) = TcpStream::connect(server.addr).await else { return false };
    stream.write_all(OPENING).await.is_ok() && stream.read_u8().await.is_ok()
}

#[tokio::test]
async fn clock_that_was_ahead_shows_in_metrics_until_it_has_passed() {
    let server = TestServer::start(&[]).await;
    server.clock.advance_us(30 * Timestamp::DAY_US);
    server.store(&[tick("KGS/USD", 0, "0.01144")]).await;
    server.clock.set(NOW);
    let ahead = async |server: &TestServer| {
        let mut stream = TcpStream::connect(server.http_addr).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("silkrate_recorded_time_ahead_seconds "));
        line.unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(ahead(&server).await, 30 * 86_400);
    // Ticks are still stored and served.
    server.store(&[tick("KZT/USD", 0, "0.0019")]).await;
    let latest = server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap().into_inner();
    assert_eq!(latest.rates.len(), 2);
    server.clock.set(NOW.saturating_add_us(31 * Timestamp::DAY_US));
    assert_eq!(ahead(&server).await, 0);
}

#[tokio::test]
async fn comparisons_beyond_their_limit_are_refused_with_a_retry_delay() {
    const DAY_S: i64 = 86_400;
    let server = TestServer::start(&[]).await;
    for source in ["nbkr", "cbu"] {
        let ticks: Vec<_> = (0..9_000)
            .map(|day| tick_from(source, "USD/KGS", -day * DAY_S, &format!("87.{:04}", day % 7_919)))
            .collect();
        server.store(&ticks).await;
    }
    let compare = |server: &TestServer| {
        let mut rates = server.rates();
        let request = v1::CompareSourcesRequest {
            pair: "USD/KGS".to_owned(),
            sources: vec!["nbkr".to_owned(), "cbu".to_owned()],
            last_days: Some(10_000),
            ..Default::default()
        };
        async move { rates.compare_sources(request).await }
    };
    let calls: Vec<_> = (0..100).map(|_| tokio::spawn(compare(&server))).collect();
    let mut refused = 0;
    for call in calls {
        if let Err(status) = call.await.unwrap() {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
            assert!(status.message().contains("limit of expensive reads"), "{status:?}");
            assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
            refused += 1;
        }
    }
    // Three of one address run and 24 wait, so most of 100 calls at once are refused.
    assert!(refused > 0, "no call was refused");
    let path = "/v1/compare?pair=USD/KGS&sources=nbkr,cbu&last_days=10000";
    let over_http: Vec<_> = (0..100).map(|_| tokio::spawn(get(server.http_addr, path))).collect();
    let mut refused = 0;
    for response in over_http {
        let response = response.await.unwrap();
        if response.status != 200 {
            assert_eq!((response.status, response.header("retry-after")), (503, Some("1")), "{response:?}");
            refused += 1;
        }
    }
    assert!(refused > 0, "no request was refused");
}

/// Connects to the server from a loopback address.
async fn connect_from(server: &TestServer, last: u8) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.addr)).unwrap();
    endpoint.local_address(Some(IpAddr::from([127, 0, 0, last]))).connect().await.unwrap()
}

/// Stores enough runs that a stream of them does not fit into the buffers of a client that does not read.
async fn store_runs(server: &TestServer) {
    for batch in 0..8 {
        let ticks: Vec<_> = (0..10_000)
            .map(|at| tick("KGS/USD", batch * 10_000 + at - 80_000, if at % 2 == 0 { "0.01144" } else { "0.01145" }))
            .collect();
        server.store(&ticks).await;
    }
}

fn runs() -> v1::StreamRunsRequest {
    v1::StreamRunsRequest { pair: "KGS/USD".to_owned(), ..Default::default() }
}

fn csv() -> v1::ExportSnapshotRequest {
    v1::ExportSnapshotRequest { format: v1::ExportFormat::Csv.into(), ..Default::default() }
}

#[tokio::test]
async fn one_address_leaves_streams_exports_and_watches_to_others() {
    let server = TestServer::start(&["--max-streams", "4", "--max-exports", "4", "--max-watches", "4"]).await;
    store_runs(&server).await;
    let [one, other] = [connect_from(&server, 1).await, connect_from(&server, 2).await];
    let check = async |status: Status| {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
    };
    let watch = v1::WatchLatestRatesRequest::default;
    let (mut streams, mut exports, mut watches) = (Vec::new(), Vec::new(), Vec::new());
    for (channel, count) in [(one, 3), (other, 1)] {
        let mut rates = RateServiceClient::new(channel.clone());
        let mut snapshots = SnapshotServiceClient::new(channel);
        for _ in 0..count {
            streams.push(rates.stream_runs(runs()).await.unwrap());
            exports.push(snapshots.export_snapshot(csv()).await.unwrap());
            watches.push(rates.watch_latest_rates(watch()).await.unwrap());
        }
        check(rates.stream_runs(runs()).await.unwrap_err()).await;
        check(snapshots.export_snapshot(csv()).await.unwrap_err()).await;
        check(rates.watch_latest_rates(watch()).await.unwrap_err()).await;
    }
}

/// Reads a stream to its end.
async fn status_at_end<T>(mut stream: Streaming<T>) -> Option<Status> {
    loop {
        match timeout(TIMEOUT, stream.message()).await.expect("a message in time") {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(status) => return Some(status),
        }
    }
}

#[tokio::test]
async fn stream_and_export_end_at_their_age() {
    let server = TestServer::start(&["--stream-age", "1s", "--export-age", "1s"]).await;
    store_runs(&server).await;
    let mut snapshots = SnapshotServiceClient::new(server.channel.clone());
    let (stream, export) = (server.rates().stream_runs(runs()).await, snapshots.export_snapshot(csv()).await);
    let (stream, export) = (stream.unwrap().into_inner(), export.unwrap().into_inner());
    assert!(status_at_end(server.rates().stream_runs(runs()).await.unwrap().into_inner()).await.is_none());
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    for status in [status_at_end(stream).await, status_at_end(export).await] {
        let status = status.expect("the stream is cut");
        assert_eq!(status.code(), Code::Aborted, "{status:?}");
        assert!(status.message().contains("maximum age of 1 s"), "{status:?}");
    }
}
