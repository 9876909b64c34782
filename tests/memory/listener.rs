//! The listener of plain HTTP over real sockets: start and shutdown, refused requests, and limits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use serde_json::json;
use silkrate::proto::v1;
use silkrate::store::DiskOperation;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{TestServer, tick};
use crate::web::{Connection, Response, get, get_with};

/// Sends bytes and returns everything until the server closes the connection.
async fn send(server: &TestServer, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.http_addr).await.unwrap();
    // The server may close the connection before it has read everything.
    let _ = stream.write_all(request).await;
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    String::from_utf8(response).unwrap()
}

#[tokio::test]
async fn plain_http_is_served_until_shutdown() {
    let server = TestServer::start(&[]).await;
    for path in ["/healthz", "/readyz"] {
        let response = get(server.http_addr, path).await;
        assert_eq!((response.status, response.body.as_str()), (200, "ok\n"));
    }
    // An idle connection does not delay the shutdown.
    let idle = TcpStream::connect(server.http_addr).await.unwrap();
    let address = server.http_addr;
    server.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn server_that_cannot_write_is_healthy_but_not_ready() {
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = Arc::clone(&broken);
    let fault = move |operation| {
        let fails = operation == DiskOperation::Sync && is_broken.load(Ordering::Relaxed);
        if fails { Err(io::Error::other("injected disk fault")) } else { Ok(()) }
    };
    let server = TestServer::start_with_fault(Arc::new(fault), &[]).await;
    server.store(&[tick("KGS/USD", -1, "0.01144")]).await;
    broken.store(true, Ordering::Relaxed);
    let failed = server
        .ingest()
        .ingest_ticks(v1::IngestTicksRequest { ticks: vec![tick("KGS/USD", 0, "0.01144")], ..Default::default() })
        .await;
    assert!(failed.is_err());
    assert_eq!(get(server.http_addr, "/healthz").await.status, 200);
    let ready = get(server.http_addr, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.json()["detail"].as_str().unwrap().contains("writing stopped"), "{ready:?}");
    // Reads still work, but responses have no tag: commits by time alone are not possible any more.
    let latest = get(server.http_addr, "/v1/latest").await;
    assert_eq!((latest.status, latest.header("etag")), (200, None));
}

#[tokio::test]
async fn only_get_and_head_of_known_paths_are_served() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", 0, "0.01144")]).await;
    let long = format!("GET /v1/latest?pairs={} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(5_000));
    let large = format!("GET /v1/latest HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(9_000));
    let many = format!("GET /v1/latest HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: a\r\n".repeat(100));
    let checks: [(&[u8], &str); 25] = [
        (b"POST /v1/latest HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "405"),
        (b"DELETE /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "405"),
        (b"OPTIONS /v1/latest HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "405"),
        (b"BREW /v1/latest HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "405"),
        (b"GET /v1/latest HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", "413"),
        (b"POST /v1/latest HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "413"),
        (b"GET /v1/../v1/latest HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "404"),
        (b"GET /v1/%2e%2e/v1/latest HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "404"),
        (b"GET /v1%2flatest HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "404"),
        (b"GET //v1/latest HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "404"),
        (b"GET /v1/latest/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "404"),
        (b"GET /V1/latest HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "404"),
        (b"GET /v1/latest%00 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "404"),
        (b"GET /v1/lat\xc3\xa9st HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "40"),
        (b"GET /v1/\xff HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "40"),
        (b"GET /v1/latest\0 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "400"),
        (b"GET http://elsewhere/v1/latest HTTP/1.1\r\nhost: elsewhere\r\nconnection: close\r\n\r\n", "400"),
        (b"GET /v1/latest HTTP/1.1\r\nconnection: close\r\n\r\n", "400"),
        (b"GET /v1/latest HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n", "400"),
        (b"GET /v1/latest HTTP/1.0\r\n\r\n", "200"),
        (b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere\r\n\r\n", "400"),
        (b"GET /frankfurter/v1/%2e%2e HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "404"),
        (long.as_bytes(), "414"),
        (large.as_bytes(), "431"),
        (many.as_bytes(), "431"),
    ];
    for (request, expect) in checks {
        let shown = String::from_utf8_lossy(&request[..request.len().min(80)]).into_owned();
        let request = if request.starts_with(b"GET /v1/latest?pairs") {
            [&request[..request.len() - 2], b"connection: close\r\n\r\n"].concat()
        } else {
            request.to_vec()
        };
        let response = send(&server, &request).await;
        assert!(response.get(9..).is_some_and(|response| response.starts_with(expect)), "{shown}: {response}");
        if expect == "405" {
            assert!(response.contains("\r\nallow: GET,HEAD\r\n"), "{response}");
        }
    }
    // HTTP/2 is refused.
    let preface = send(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(preface.is_empty() || preface.starts_with("HTTP/1.1 4"), "{preface}");
    assert_eq!(get(server.http_addr, "/v1/latest").await.status, 200);
}

#[tokio::test]
async fn head_equals_get_without_the_body() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", 0, "0.01144")]).await;
    let whole = get(server.http_addr, "/v1/latest").await;
    let mut connection = Connection::open(server.http_addr).await;
    let head = connection.send(b"HEAD /v1/latest HTTP/1.1\r\nhost: a\r\n\r\n", false).await.unwrap();
    let named = |response: &Response| {
        ["content-length", "content-type", "etag"].map(|name| response.header(name).map(str::to_owned))
    };
    assert_eq!((head.status, named(&head)), (200, named(&whole)));
    // The next request on the connection works.
    assert_eq!(connection.get("/healthz", &[]).await.body, "ok\n");
}

#[tokio::test]
async fn every_response_has_the_security_headers() {
    let server = TestServer::start(&[]).await;
    for target in ["/v1/latest", "/healthz", "/v1/nothing", "/v1/rate", "/frankfurter/v1/latest"] {
        let response = get_with(server.http_addr, target, &[("origin", "https://a.example")]).await;
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{target}");
        assert_eq!(response.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(response.header("content-security-policy"), Some("default-src 'none'; frame-ancestors 'none'"));
        assert_eq!(response.header("access-control-allow-origin"), None, "no origin is allowed unless configured");
    }
}

#[tokio::test]
async fn index_and_openapi_document_agree_with_the_server() {
    let server = TestServer::start(&[]).await;
    let index = get(server.http_addr, "/v1").await.json();
    assert_eq!(index["calls"][1]["path"], json!("/v1/rate"));
    let document = get(server.http_addr, "/openapi.json").await.json();
    for call in index["calls"].as_array().unwrap() {
        let path = call["path"].as_str().unwrap();
        let operation = &document["paths"][path]["get"];
        assert_eq!(operation["summary"], call["does"], "{path}");
        let named = operation["parameters"].as_array().unwrap();
        assert!(named.iter().all(|parameter| parameter["name"].is_string() && parameter["schema"].is_object()));
    }
    // The server accepts every documented value, and every documented value is listed.
    let server_accepts = async |target: &str| get(server.http_addr, target).await.json()["field"] != json!("interval");
    let of_candles = document["paths"]["/v1/candles"]["get"]["parameters"].as_array().unwrap();
    let interval = of_candles.iter().find(|parameter| parameter["name"] == "interval").unwrap();
    let listed = interval["schema"]["enum"].as_array().unwrap();
    assert_eq!((&listed[0], &listed[7], &listed[8], listed.len()), (&json!("1m"), &json!("1mo"), &json!("MINUTE"), 16));
    for one in listed {
        assert!(server_accepts(&format!("/v1/candles?pair=KGS/USD&interval={}", one.as_str().unwrap())).await, "{one}");
    }
    assert!(!server_accepts("/v1/candles?pair=KGS/USD&interval=3d").await);
    let latest = &document["components"]["schemas"]["LatestRate"]["properties"];
    assert_eq!(
        latest["stale_time"]["description"],
        json!("When the rate becomes STALE, UTC, unless it is confirmed before.")
    );
    assert_eq!(latest["state"]["anyOf"][0]["enum"], json!(["STALE", "PEGGED", "MOVING", "FLAT"]));
    // Every referenced schema exists.
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document["components"]["schemas"][reference].is_object(), "{reference}");
    }
}

/// Checks that a response has all required properties and only documented ones.
#[tokio::test]
async fn responses_match_the_openapi_document() {
    let server = TestServer::start(&[]).await;
    server
        .store(&[tick("KGS/USD", -90, "0.01144"), tick("KGS/USD", -60, "0.01145"), tick("KZT/USD", 0, "0.00196")])
        .await;
    let document = get(server.http_addr, "/openapi.json").await.json();
    for target in [
        "/v1/latest",
        "/v1/rate?pair=KZT/KGS",
        "/v1/rate?pair=KGS/USD&time=2025-12-08T12:00:00Z",
        "/v1/history?pair=KGS/USD&include_baseline=true",
        "/v1/change?pair=KGS/USD&window=1d",
        "/v1/changes?pair=KGS/USD&period=day_on_day",
        "/v1/candles?pair=KZT/KGS&interval=1m",
        "/v1/convert?pair=USD/KGS&amount=1",
        "/v1/series",
        "/v1/revisions?pair=KGS/USD",
    ] {
        let response = get(server.http_addr, target).await;
        assert_eq!(response.status, 200, "{target}: {response:?}");
        let path = target.split('?').next().unwrap();
        let kind = &document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert_matches_schema(&document, kind, &response.json(), target);
    }
}

/// Checks a value against a schema, as far as the document uses JSON Schema: references, objects, arrays, nulls,
/// enums.
fn assert_matches_schema(document: &serde_json::Value, kind: &serde_json::Value, value: &serde_json::Value, at: &str) {
    if let Some(reference) = kind["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return assert_matches_schema(
            document,
            &document["components"]["schemas"][name],
            value,
            &format!("{at} {name}"),
        );
    }
    if let Some(choices) = kind["anyOf"].as_array() {
        let is_null = choices.iter().any(|choice| choice["type"] == "null");
        return if value.is_null() {
            assert!(is_null, "{at}: null");
        } else {
            assert_matches_schema(document, &choices[0], value, at);
        };
    }
    match kind["type"].as_str() {
        Some("object") => {
            let properties = kind["properties"].as_object().unwrap();
            let object = value.as_object().unwrap_or_else(|| panic!("{at}: {value}"));
            for name in kind["required"].as_array().unwrap() {
                assert!(object.contains_key(name.as_str().unwrap()), "{at}: no {name} in {value}");
            }
            for (name, value) in object {
                let kind = properties.get(name).unwrap_or_else(|| panic!("{at}: {name} is not in the document"));
                assert_matches_schema(document, kind, value, &format!("{at}.{name}"));
            }
        }
        Some("array") => {
            value.as_array().unwrap().iter().for_each(|item| assert_matches_schema(document, &kind["items"], item, at));
        }
        Some("string") => {
            let text = value.as_str().unwrap_or_else(|| panic!("{at}: {value} is not a string"));
            assert!(kind["enum"].as_array().is_none_or(|names| names.contains(&json!(text))), "{at}: {text}");
        }
        Some("integer") => assert!(value.is_u64() || value.is_i64(), "{at}: {value}"),
        Some("boolean") => assert!(value.is_boolean(), "{at}: {value}"),
        other => panic!("{at}: {other:?}"),
    }
}

/// Resident memory of this process in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_idle_connections_do_not_affect_other_clients() {
    const WANTED: u64 = 5_000;
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", 0, "0.01144")]).await;
    // Both ends are in this process, and plain HTTP accepts connections for at most a quarter of the allowed files.
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = WANTED.min(files / 4);
    if count < WANTED {
        eprintln!("only {count} connections: the limit of open files is {files}");
    }
    let before_kib = resident_kib();
    let mut idle = Vec::new();
    for _ in 0..count {
        // Most connections send nothing; every tenth sends the beginning of a request.
        match TcpStream::connect(server.http_addr).await {
            Ok(mut stream) => {
                if idle.len() % 10 == 0 {
                    stream.write_all(b"GET /v1/latest HTTP/1.1\r\nho").await.unwrap();
                }
                idle.push(stream);
            }
            Err(problem) => panic!("connection {}: {problem}", idle.len()),
        }
    }
    let grown_kib = resident_kib().saturating_sub(before_kib);
    assert!(grown_kib / count < 64, "{grown_kib} KiB for {count} connections");
    eprintln!("{count} idle connections, {grown_kib} KiB");
    let begun = Instant::now();
    assert_eq!(server.store(&[tick("KGS/USD", 1, "0.01145")]).await.sequence, 2);
    let latest = server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap().into_inner();
    assert_eq!(latest.sequence, 2);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    if files / 4 > count {
        assert_eq!(get(server.http_addr, "/v1/latest").await.json()["sequence"], json!(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_poll_on_many_connections_gets_a_response() {
    const CONNECTIONS: usize = 50;
    const POLLS: usize = 200;
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", 0, "0.01144")]).await;
    let address = server.http_addr;
    let pollers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                let tag = connection.get("/v1/latest", &[]).await.header("etag").unwrap().to_owned();
                let (mut unchanged, mut sent) = (0, 0);
                for _ in 0..POLLS {
                    match connection.get("/v1/latest", &[("if-none-match", &tag)]).await.status {
                        304 => unchanged += 1,
                        200 => sent += 1,
                        status => panic!("{status}"),
                    }
                }
                (unchanged, sent)
            })
        })
        .collect();
    // The writer commits meanwhile.
    for at in 1..=20 {
        server.store(&[tick("KGS/USD", at, "0.01145")]).await;
    }
    let mut total = 0;
    for poller in pollers {
        let (unchanged, sent): (usize, usize) = poller.await.unwrap();
        total += unchanged + sent;
    }
    assert_eq!(total, CONNECTIONS * POLLS);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_reads_are_served_or_refused_with_retry_after() {
    let server = TestServer::start(&[]).await;
    let ticks: Vec<_> =
        (0..2_000).map(|at| tick("KGS/USD", at - 2_000, if at % 2 == 0 { "0.01144" } else { "0.01145" })).collect();
    server.store(&ticks).await;
    let address = server.http_addr;
    let readers: Vec<_> = (0..100)
        .map(|_| tokio::spawn(async move { get(address, "/v1/history?pair=KGS/USD&page_size=2000").await }))
        .collect();
    for reader in readers {
        let response = reader.await.unwrap();
        match response.status {
            200 => assert_eq!(response.json()["runs"].as_array().unwrap().len(), 2_000),
            503 => assert_eq!(response.header("retry-after"), Some("1")),
            status => panic!("{status}"),
        }
    }
}
