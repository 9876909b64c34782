//! The whole server: files loaded at start, health, reflection, restarts and limits.

use std::fs;

use silkrate::proto::v1;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1 as reflection_v1;
use tonic_reflection::pb::v1alpha as reflection_v1alpha;

use crate::support::{TestServer, tick, time};

const SAMPLE_PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/times-of-central-asia-2025-12-08.txt");
const SERVICES: [&str; 2] = ["silkrate.v1.IngestService", "silkrate.v1.RateService"];

async fn latest_pairs(server: &TestServer) -> Vec<String> {
    let request = v1::GetLatestRatesRequest::default();
    let rates = server.rates().get_latest_rates(request).await.unwrap().into_inner().rates;
    rates.into_iter().filter_map(|rate| Some(rate.run?.pair)).collect()
}

#[tokio::test]
async fn page_loaded_at_start_is_served_and_printed() {
    let server = TestServer::start(&["--load", SAMPLE_PAGE]).await;
    assert_eq!(latest_pairs(&server).await, ["KGS/USD", "KZT/USD", "TJS/USD", "TMT/USD", "UZS/USD"]);
    let (_dir, printed) = server.stop().await;
    for part in ["KGS/USD", "UZS/USD", "timesca", "2025-12-08T00:00:00Z", "reported change"] {
        assert!(printed.contains(part), "no '{part}' in\n{printed}");
    }
}

#[tokio::test]
async fn unreadable_load_files_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("undated"), "KGS/USD = 0.01144 0%\n").unwrap();
    fs::write(path("binary"), b"\x7fELF\0\x01").unwrap();
    fs::write(path("large"), vec![b' '; 10_000_000]).unwrap();
    let files = [path("absent"), path("undated"), path("binary"), path("large"), path(".")];
    let mut flags = vec!["--load"];
    flags.extend(files.iter().map(String::as_str));
    flags.push(SAMPLE_PAGE);
    let server = TestServer::start(&flags).await;
    assert_eq!(latest_pairs(&server).await.len(), 5);
}

#[tokio::test]
async fn undated_page_is_stored_at_the_time_of_the_flag_load_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("page").display().to_string();
    fs::write(&file, "KGS/USD = 0.01144 0%\n").unwrap();
    let flags = ["--load", &file, "--load-time", "2025-12-07", "--load-source", "nbkr"];
    let server = TestServer::start(&flags).await;
    let rates = server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap().into_inner().rates;
    let run = rates[0].run.clone().unwrap();
    assert_eq!((run.source.as_str(), run.first_observed_time.unwrap().seconds), ("nbkr", 1_765_065_600));
}

#[tokio::test]
async fn acknowledged_ticks_survive_a_restart() {
    let server = TestServer::start(&[]).await;
    let stored = server.store(&[tick("KGS/USD", -60, "0.01144"), tick("KZT/USD", -60, "0.00196")]).await;
    let server = server.restart().await;
    assert_eq!(latest_pairs(&server).await, ["KGS/USD", "KZT/USD"]);
    let again = server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    assert!(again.sequence >= stored.sequence);
    assert_eq!(again.summary.unwrap().known_count, 1);
}

#[tokio::test]
async fn empty_store_prints_no_quotes_yet() {
    let server = TestServer::start(&[]).await;
    assert_eq!(latest_pairs(&server).await, [""; 0]);
    assert_eq!(server.stop().await.1, "no quotes yet\n");
}

#[tokio::test]
async fn health_of_each_service_is_serving_until_shutdown() {
    let server = TestServer::start(&[]).await;
    let mut health = HealthClient::new(server.channel.clone());
    let request = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", SERVICES[0], SERVICES[1]] {
        let status = health.check(request(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "'{service}'");
    }
    assert_eq!(health.check(request("silkrate.v1.Other")).await.unwrap_err().code(), Code::NotFound);

    let mut watch = health.watch(request(SERVICES[0])).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let (_dir, shutdown) = server.begin_stop();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(
        watch.message().await.is_ok_and(|message| message.is_none()),
        "an open health watch must not delay the shutdown"
    );
    shutdown.await.unwrap().0.unwrap();
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    let server = TestServer::start(&[]).await;
    let v1_names = {
        use reflection_v1::server_reflection_request::MessageRequest;
        use reflection_v1::server_reflection_response::MessageResponse;
        let request = reflection_v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = reflection_v1::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
        let mut responses = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
        match responses.message().await.unwrap().unwrap().message_response {
            Some(MessageResponse::ListServicesResponse(list)) => {
                list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    let v1alpha_names = {
        use reflection_v1alpha::server_reflection_request::MessageRequest;
        use reflection_v1alpha::server_reflection_response::MessageResponse;
        let request = reflection_v1alpha::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client =
            reflection_v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
        let mut responses = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
        match responses.message().await.unwrap().unwrap().message_response {
            Some(MessageResponse::ListServicesResponse(list)) => {
                list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    // Health is listed too, for clients that discover services through reflection.
    for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
        assert!(v1_names.iter().any(|name| name == service), "{v1_names:?}");
        assert!(v1alpha_names.iter().any(|name| name == service), "{v1alpha_names:?}");
    }
}

#[tokio::test]
async fn connection_beyond_the_limit_is_closed() {
    let server = TestServer::start(&["--max-connections", "1"]).await;
    let _watch = server.rates().watch_latest_rates(v1::WatchLatestRatesRequest::default()).await.unwrap();
    let mut other = TcpStream::connect(server.addr).await.unwrap();
    // The server closes the connection without reading or writing. The result depends on the operating system.
    let read = other.read(&mut [0; 64]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
}

#[tokio::test]
async fn endless_call_is_ended_after_the_shutdown_grace() {
    use reflection_v1::server_reflection_client::ServerReflectionClient;
    let server = TestServer::start(&["--shutdown-grace", "100ms"]).await;
    let (_requests, never) = mpsc::channel(1);
    let mut client = ServerReflectionClient::new(server.channel.clone());
    let _open = client.server_reflection_info(ReceiverStream::new(never)).await.unwrap();
    let (_dir, shutdown) = server.begin_stop();
    shutdown.await.unwrap().0.unwrap();
}

/// Sends the head of a call but not its end, and returns the final status. The generated client is not usable here,
/// because it ends the call at the deadline by itself.
async fn status_of_endless_call(server: &TestServer, path: &str, timeout: &str) -> Option<String> {
    let socket = TcpStream::connect(server.addr).await.unwrap();
    let (mut calls, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{}{path}", server.addr))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(())
        .unwrap();
    let (response, _open) = calls.send_request(request, false).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    let trailers = match head.headers.get("grpc-status") {
        Some(_) => Some(head.headers),
        None => body.trailers().await.unwrap(),
    };
    connection.abort();
    trailers.and_then(|trailers| Some(trailers.get("grpc-status")?.to_str().ok()?.to_owned()))
}

#[tokio::test]
async fn deadline_ends_calls_and_streams_with_deadline_exceeded() {
    let server = TestServer::start(&[]).await;
    let deadline_exceeded = Some((Code::DeadlineExceeded as i32).to_string());
    for path in [
        "/silkrate.v1.IngestService/IngestTicks",
        "/silkrate.v1.IngestService/IngestPage",
        "/silkrate.v1.IngestService/StreamTicks",
        "/silkrate.v1.RateService/GetLatestRates",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        assert_eq!(status_of_endless_call(&server, path, "50m").await, deadline_exceeded, "{path}");
    }
}

#[tokio::test]
async fn states_follow_the_current_settings_after_a_restart() {
    let server = TestServer::start(&["--stale-limit", "1h"]).await;
    server.store(&[tick("KGS/USD", -7_200, "0.01144")]).await;
    let latest = async |server: &TestServer| {
        let response =
            server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap().into_inner();
        (response.rates[0].state(), response.rates[0].stale_time, response.sequence)
    };
    let (state, stale_time, first) = latest(&server).await;
    assert_eq!((state, stale_time), (v1::RateState::Stale, Some(time(-3_600))));
    // With a longer limit the rate is not stale any more. Neither a tick nor time causes this change, and a poll must
    // return it.
    let (dir, _) = server.stop().await;
    let server = TestServer::start_with_store(dir, &["--stale-limit", "3h"]).await;
    let (state, stale_time, second) = latest(&server).await;
    assert_eq!((state, stale_time), (v1::RateState::Flat, Some(time(3_600))));
    assert!(second > first);
    // With the same settings nothing changes.
    let (dir, _) = server.stop().await;
    let server = TestServer::start_with_store(dir, &["--stale-limit", "3h"]).await;
    assert_eq!(latest(&server).await, (v1::RateState::Flat, Some(time(3_600)), second));
}

#[tokio::test]
async fn latest_rates_include_more_series_than_one_encoded_chunk() {
    let server =
        TestServer::start(&["--series-max", "2000", "--caller-series", "2000", "--caller-sources", "2000"]).await;
    let of = |number: u32| v1::Tick { source: format!("s{number}"), ..tick("KGS/USD", -60, "0.01144") };
    let ticks: Vec<v1::Tick> = (0..1_100).map(of).collect();
    server.store(&ticks).await;
    let all = server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap().into_inner();
    assert_eq!(all.rates.len(), ticks.len());
    let one = v1::GetLatestRatesRequest { sources: vec!["s7".to_owned()], ..Default::default() };
    let one = server.rates().get_latest_rates(one).await.unwrap().into_inner();
    assert_eq!(
        one.rates.iter().filter_map(|rate| Some(rate.run.as_ref()?.source.as_str())).collect::<Vec<_>>(),
        ["s7"]
    );
    let bad = v1::GetLatestRatesRequest { pairs: vec!["KGS".to_owned()], ..Default::default() };
    let refused = server.rates().get_latest_rates(bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    server.stop().await;
}
