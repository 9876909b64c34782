//! The listener of plain HTTP, over real sockets: its start and its end, what no request may do, and how much all of
//! them may.

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
use crate::web::{Answer, Connection, get, get_with};

/// What comes back until the server closes the connection; all of it if it was closed early.
async fn say(server: &TestServer, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.http_addr).await.unwrap();
    // A server that has heard enough closes before the end.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_server_speaks_plain_http_until_it_is_stopped() {
    let server = TestServer::start(&[]).await;
    for path in ["/healthz", "/readyz"] {
        let answer = get(server.http_addr, path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    }
    // One that waits for nothing does not hold the end up.
    let idle = TcpStream::connect(server.http_addr).await.unwrap();
    let address = server.http_addr;
    server.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn a_server_that_cannot_write_is_alive_and_not_ready() {
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = Arc::clone(&broken);
    let fault = move |operation| {
        let fails = operation == DiskOperation::Sync && is_broken.load(Ordering::Relaxed);
        if fails { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
    };
    let server = TestServer::start_on(Arc::new(fault), &[]).await;
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
    // Reads go on, and nothing may be kept: time alone makes no commits any more.
    let latest = get(server.http_addr, "/v1/latest").await;
    assert_eq!((latest.status, latest.header("etag")), (200, None));
}

#[tokio::test]
async fn only_reads_of_known_paths_are_answered() {
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
        let answer = say(&server, &request).await;
        assert!(answer.get(9..).is_some_and(|answer| answer.starts_with(expect)), "{shown}: {answer}");
        if expect == "405" {
            assert!(answer.contains("\r\nallow: GET,HEAD\r\n"), "{answer}");
        }
    }
    // HTTP/2 is not spoken here.
    let preface = say(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(preface.is_empty() || preface.starts_with("HTTP/1.1 4"), "{preface}");
    assert_eq!(get(server.http_addr, "/v1/latest").await.status, 200);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", 0, "0.01144")]).await;
    let whole = get(server.http_addr, "/v1/latest").await;
    let mut connection = Connection::open(server.http_addr).await;
    let head = connection.say(b"HEAD /v1/latest HTTP/1.1\r\nhost: a\r\n\r\n", false).await.unwrap();
    let named =
        |answer: &Answer| ["content-length", "content-type", "etag"].map(|name| answer.header(name).map(str::to_owned));
    assert_eq!((head.status, named(&head)), (200, named(&whole)));
    // The connection goes on where the head ended.
    assert_eq!(connection.get("/healthz", &[]).await.body, "ok\n");
}

#[tokio::test]
async fn every_answer_has_the_headers_that_keep_it_harmless() {
    let server = TestServer::start(&[]).await;
    for target in ["/v1/latest", "/healthz", "/v1/nothing", "/v1/rate", "/frankfurter/v1/latest"] {
        let answer = get_with(server.http_addr, target, &[("origin", "https://a.example")]).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{target}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(answer.header("content-security-policy"), Some("default-src 'none'; frame-ancestors 'none'"));
        assert_eq!(answer.header("access-control-allow-origin"), None, "no page may read unless configured");
    }
}

#[tokio::test]
async fn what_there_is_is_said() {
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
    // What is listed is taken, and what is documented is listed.
    let server_takes = async |target: &str| get(server.http_addr, target).await.json()["field"] != json!("interval");
    let of_candles = document["paths"]["/v1/candles"]["get"]["parameters"].as_array().unwrap();
    let interval = of_candles.iter().find(|parameter| parameter["name"] == "interval").unwrap();
    let listed = interval["schema"]["enum"].as_array().unwrap();
    assert_eq!((&listed[0], &listed[7], &listed[8], listed.len()), (&json!("1m"), &json!("1mo"), &json!("MINUTE"), 16));
    for one in listed {
        assert!(server_takes(&format!("/v1/candles?pair=KGS/USD&interval={}", one.as_str().unwrap())).await, "{one}");
    }
    assert!(!server_takes("/v1/candles?pair=KGS/USD&interval=3d").await);
    let latest = &document["components"]["schemas"]["LatestRate"]["properties"];
    assert_eq!(latest["stale_time"]["description"], json!("When it becomes STALE unless confirmed before."));
    assert_eq!(latest["state"]["anyOf"][0]["enum"], json!(["STALE", "PEGGED", "MOVING", "FLAT"]));
    // Each kind that is referred to is there.
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document["components"]["schemas"][reference].is_object(), "{reference}");
    }
}

/// An answer has the properties that the document says, all that it requires and no other.
#[tokio::test]
async fn answers_are_as_the_document_says() {
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
        let answer = get(server.http_addr, target).await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        let path = target.split('?').next().unwrap();
        let kind = &document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        fits(&document, kind, &answer.json(), target);
    }
}

/// As far as the document's own words go: references, objects, arrays, nulls, enums.
fn fits(document: &serde_json::Value, kind: &serde_json::Value, value: &serde_json::Value, at: &str) {
    if let Some(reference) = kind["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return fits(document, &document["components"]["schemas"][name], value, &format!("{at} {name}"));
    }
    if let Some(choices) = kind["anyOf"].as_array() {
        let is_null = choices.iter().any(|choice| choice["type"] == "null");
        return if value.is_null() { assert!(is_null, "{at}: null") } else { fits(document, &choices[0], value, at) };
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
                fits(document, kind, value, &format!("{at}.{name}"));
            }
        }
        Some("array") => value.as_array().unwrap().iter().for_each(|item| fits(document, &kind["items"], item, at)),
        Some("string") => {
            let text = value.as_str().unwrap_or_else(|| panic!("{at}: {value} is no string"));
            assert!(kind["enum"].as_array().is_none_or(|names| names.contains(&json!(text))), "{at}: {text}");
        }
        Some("integer") => assert!(value.is_u64() || value.is_i64(), "{at}: {value}"),
        Some("boolean") => assert!(value.is_boolean(), "{at}: {value}"),
        other => panic!("{at}: {other:?}"),
    }
}

/// Kilobytes of memory that this process holds.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_idle_connections_disturb_nobody() {
    const WANTED: u64 = 5_000;
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", 0, "0.01144")]).await;
    // Both ends are in this process, and plain HTTP takes no more than a quarter of the files that it may have.
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = WANTED.min(files / 4);
    if count < WANTED {
        eprintln!("only {count} connections: this process may have {files} files open");
    }
    let before_kib = resident_kib();
    let mut idle = Vec::new();
    for _ in 0..count {
        // Some that send nothing stand for all; every tenth has begun a request and goes no further.
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
async fn many_polls_on_many_connections_are_all_answered() {
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
                let (mut kept, mut sent) = (0, 0);
                for _ in 0..POLLS {
                    match connection.get("/v1/latest", &[("if-none-match", &tag)]).await.status {
                        304 => kept += 1,
                        200 => sent += 1,
                        status => panic!("{status}"),
                    }
                }
                (kept, sent)
            })
        })
        .collect();
    // The writer goes on meanwhile.
    for at in 1..=20 {
        server.store(&[tick("KGS/USD", at, "0.01145")]).await;
    }
    let mut answered = 0;
    for poller in pollers {
        let (kept, sent): (usize, usize) = poller.await.unwrap();
        answered += kept + sent;
    }
    assert_eq!(answered, CONNECTIONS * POLLS);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_reads_are_answered_or_sent_away() {
    let server = TestServer::start(&[]).await;
    let ticks: Vec<_> =
        (0..2_000).map(|at| tick("KGS/USD", at - 2_000, if at % 2 == 0 { "0.01144" } else { "0.01145" })).collect();
    server.store(&ticks).await;
    let address = server.http_addr;
    let readers: Vec<_> = (0..100)
        .map(|_| tokio::spawn(async move { get(address, "/v1/history?pair=KGS/USD&page_size=2000").await }))
        .collect();
    for reader in readers {
        let answer = reader.await.unwrap();
        match answer.status {
            200 => assert_eq!(answer.json()["runs"].as_array().unwrap().len(), 2_000),
            503 => assert_eq!(answer.header("retry-after"), Some("1")),
            status => panic!("{status}"),
        }
    }
}
