//! Clients that do not read responses, send invalid messages, or are pages of forbidden origins: their cost is
//! limited, and other clients are served meanwhile. The tests use HTTP/2 directly, since no gRPC client library
//! behaves like this.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::{HeaderMap, Request, StatusCode};
use prost::Message as _;
use silkrate::proto::v1;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::support::{TestServer, tick};

const LIST_RUNS: &str = "/silkrate.v1.RateService/ListRuns";
const STREAM_RUNS: &str = "/silkrate.v1.RateService/StreamRuns";
const LATEST: &str = "/silkrate.v1.RateService/GetLatestRates";
const INGEST: &str = "/silkrate.v1.IngestService/IngestTicks";
const EXPORT: &str = "/silkrate.v1.SnapshotService/ExportSnapshot";
const GRPC: &str = "application/grpc";
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const OTHER_LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Calls opened on one connection: more than the server allows.
const CALLS: usize = 256;
/// A connection with unread responses ends within this time, including a margin.
const UNREAD_MAX: Duration = Duration::from_secs(20 + 10);

/// A connection, and the time of its end.
struct Client {
    send: SendRequest<Bytes>,
    ended: JoinHandle<Instant>,
}

impl Client {
    /// Connects from an address of this machine. `window` is how many bytes of each response the server may send
    /// before the client reads.
    async fn connect(server: &TestServer, from: IpAddr, window: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = socket.connect(server.addr).await.unwrap();
        let (send, connection) =
            Builder::new().initial_window_size(window).handshake::<_, Bytes>(stream).await.unwrap();
        let ended = tokio::spawn(async move {
            // The connection may end with or without an error.
            let _ = connection.await;
            Instant::now()
        });
        Self { send, ended }
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<ResponseFuture, h2::Error> {
        let mut request = Request::post(format!("http://silkrate{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut send = self.send.clone().ready().await?;
        let (response, mut sending) = send.send_request(request.body(()).unwrap(), false)?;
        sending.send_data(body.into(), true)?;
        Ok(response)
    }

    async fn call(&self, path: &str, message: &impl prost::Message) -> Result<ResponseFuture, h2::Error> {
        self.post(path, &[("content-type", GRPC), ("te", "trailers")], framed(&message.encode_to_vec())).await
    }
}

/// Encodes a message as a gRPC frame: flag, length, bytes.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), message].concat()
}

/// Reads the complete response of a call and returns its status.
async fn code(response: ResponseFuture) -> Code {
    let response = response.await.unwrap();
    let code = |headers: &HeaderMap| headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
    if let Some(code) = code(response.headers()) {
        return code;
    }
    let mut body = response.into_body();
    while let Some(piece) = body.data().await {
        let length = piece.unwrap().len();
        body.flow_control().release_capacity(length).unwrap();
    }
    code(&body.trailers().await.unwrap().unwrap()).unwrap()
}

/// Starts a server with the given number of runs of one pair.
async fn with_runs(runs: i64) -> TestServer {
    let server = TestServer::start(&[]).await;
    let rate = |number: i64| format!("0.{:05}", 1_000 + number % 3_000);
    for piece in (0..runs).collect::<Vec<_>>().chunks(10_000) {
        let ticks: Vec<v1::Tick> = piece.iter().map(|number| tick("KGS/USD", number - runs, &rate(*number))).collect();
        server.store(&ticks).await;
    }
    server
}

fn list_runs() -> v1::ListRunsRequest {
    v1::ListRunsRequest { pair: "KGS/USD".to_owned(), page_size: 10_000, ..Default::default() }
}

/// Anonymous memory of this process, which includes the server, in MB.
fn anonymous_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_responses_are_limited_and_their_connections_are_closed() {
    let server = with_runs(10_000).await;
    let before_mb = anonymous_mb();
    let begun = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..8 {
        let client = Client::connect(&server, LOCAL, 0).await;
        let mut calls = Vec::new();
        for _ in 0..CALLS {
            // A closed connection accepts no more calls.
            match timeout(Duration::from_secs(1), client.call(LIST_RUNS, &list_runs())).await {
                Ok(Ok(call)) => calls.push(call),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        assert!(calls.len() > 32, "{} calls were accepted", calls.len());
        clients.push((client, calls));
    }
    // All these responses together would need more than a gigabyte: two thousand, each of more than half a megabyte.
    let mut most_mb = 0;
    for _ in 0..50 {
        most_mb = most_mb.max(anonymous_mb().saturating_sub(before_mb));
        sleep(Duration::from_millis(50)).await;
    }
    assert!(most_mb < 400, "{most_mb} MB of unread responses");
    // Other clients are served meanwhile.
    let other = Client::connect(&server, OTHER_LOCAL, 1 << 20).await;
    let other_served = timeout(Duration::from_secs(8), async {
        loop {
            let found = code(other.call(LIST_RUNS, &list_runs()).await.unwrap()).await;
            if found == Code::Ok {
                return;
            }
            // A full server refuses the call, and its response says that the client can try again soon.
            assert_eq!(found, Code::ResourceExhausted);
            sleep(Duration::from_millis(200)).await;
        }
    });
    other_served.await.expect("a response to another client");
    let mut ended_count = 0;
    for (client, calls) in clients {
        // The responses are kept, because dropping a response cancels it.
        let mut heads = Vec::new();
        for call in calls {
            if let Ok(Ok(head)) = timeout(Duration::from_secs(5), call).await {
                heads.push(head);
            }
        }
        // If every call of a connection was refused, it has no unread response.
        if heads.iter().any(|head| head.headers().get("grpc-status").is_none()) {
            let ended = timeout(UNREAD_MAX, client.ended).await.expect("the end of the connection").unwrap();
            assert!(ended - begun >= Duration::from_secs(15), "the connection must stay open for at least 15 s");
            ended_count += 1;
        }
    }
    assert!(ended_count > 0, "no connection had unread responses");
    let client = Client::connect(&server, LOCAL, 1 << 20).await;
    assert_eq!(code(client.call(LIST_RUNS, &list_runs()).await.unwrap()).await, Code::Ok);
    server.stop().await;
}

/// Returns the status of a call that ends soon, or `None` if it continues.
async fn status_if_ended(response: ResponseFuture) -> Option<Code> {
    match timeout(Duration::from_secs(2), response).await {
        Err(_) => None,
        Ok(response) => {
            let headers = response.unwrap();
            headers.headers().get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
        }
    }
}

/// Checks that unread streams of `path` use only the slots of one client, and free them.
async fn check_unread_streams_free_slots(server: &TestServer, path: &str, message: &impl prost::Message, slots: usize) {
    let unread = Client::connect(server, LOCAL, 0).await;
    let mut streams = Vec::new();
    for number in 0..slots {
        let mut stream = unread.call(path, message).await.unwrap();
        let head = timeout(Duration::from_secs(5), &mut stream).await;
        let head = head.unwrap_or_else(|_| panic!("stream {number} of {path} has not begun")).unwrap();
        assert_eq!(head.headers().get("grpc-status"), None, "stream {number} of {path}");
        streams.push(head);
    }
    let refused = Client::connect(server, LOCAL, 0).await;
    assert_eq!(
        status_if_ended(refused.call(path, message).await.unwrap()).await,
        Some(Code::ResourceExhausted),
        "{path}"
    );
    let other = Client::connect(server, OTHER_LOCAL, 1 << 20).await;
    assert_eq!(code(other.call(path, message).await.unwrap()).await, Code::Ok, "{path} from another address");
    timeout(UNREAD_MAX, unread.ended).await.expect("the end of the connection").unwrap();
    let again = Client::connect(server, LOCAL, 1 << 20).await;
    let begun = Instant::now();
    loop {
        let found = code(again.call(path, message).await.unwrap()).await;
        if found == Code::Ok {
            break;
        }
        assert_eq!(found, Code::ResourceExhausted, "{path}");
        assert!(begun.elapsed() < Duration::from_secs(10), "the slots of {path} are not freed");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_streams_free_their_slots() {
    let server = with_runs(30_000).await;
    let runs = v1::StreamRunsRequest { pair: "KGS/USD".to_owned(), ..Default::default() };
    let export = v1::ExportSnapshotRequest { format: v1::ExportFormat::Csv.into(), ..Default::default() };
    tokio::join!(
        check_unread_streams_free_slots(&server, STREAM_RUNS, &runs, 48),
        check_unread_streams_free_slots(&server, EXPORT, &export, 3)
    );
    server.stop().await;
}

#[tokio::test]
async fn undecodable_message_is_invalid_argument() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    let client = Client::connect(&server, LOCAL, 1 << 20).await;
    for path in [
        LATEST,
        LIST_RUNS,
        STREAM_RUNS,
        INGEST,
        EXPORT,
        "/silkrate.v1.RateService/GetRate",
        "/silkrate.v1.RateService/ListCandles",
        "/silkrate.v1.RateService/WatchLatestRates",
        "/silkrate.v1.IngestService/StreamTicks",
    ] {
        // A field without an end, and a string that is not UTF-8.
        for garbage in [&[0xFF, 0xFF, 0xFF][..], &[0x0A, 0x02, 0xC3, 0x28][..]] {
            let headers = [("content-type", GRPC), ("te", "trailers")];
            let response = client.post(path, &headers, framed(garbage)).await.unwrap();
            let found = timeout(Duration::from_secs(10), code(response)).await.expect("a response");
            assert_eq!(found, Code::InvalidArgument, "{path}: {garbage:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn compressed_message_is_refused_without_expanding_it() {
    let server = TestServer::start(&[]).await;
    let client = Client::connect(&server, LOCAL, 1 << 20).await;
    // What the bytes would expand to does not matter: the server accepts no compression.
    let mut compressed = framed(&[0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3]);
    compressed[0] = 1;
    let headers = [("content-type", GRPC), ("te", "trailers"), ("grpc-encoding", "gzip")];
    let response = client.post(INGEST, &headers, compressed).await.unwrap();
    let found = timeout(Duration::from_secs(10), code(response)).await.expect("a response");
    assert_eq!(found, Code::Unimplemented);
    server.stop().await;
}

#[tokio::test]
async fn page_of_a_forbidden_origin_stores_nothing_with_any_content_type() {
    let server = TestServer::start(&["--cors-origin", "https://dash.example.org"]).await;
    let client = Client::connect(&server, LOCAL, 1 << 20).await;
    let request = v1::IngestTicksRequest { ticks: vec![tick("KGS/USD", -60, "0.01144")], ..Default::default() };
    let body = framed(&request.encode_to_vec());
    let (forbidden, allowed) = ("https://evil.example.org", "https://dash.example.org");
    for content_type in [
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data"),
        Some("application/json"),
        Some("application/grpcx"),
        None,
    ] {
        for origin in [Some(forbidden), Some(allowed), Some("null"), None] {
            let headers: Vec<(&str, &str)> = [("content-type", content_type), ("origin", origin)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            let response = client.post(INGEST, &headers, body.clone()).await.unwrap().await.unwrap();
            let expect = if origin.is_none() || origin == Some(allowed) {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            } else {
                StatusCode::FORBIDDEN
            };
            assert_eq!(response.status(), expect, "{headers:?}");
            assert_eq!(
                response.headers().get("access-control-allow-origin").filter(|_| origin == Some(forbidden)),
                None
            );
        }
    }
    for content_type in [GRPC, "application/grpc+proto", "application/grpc-web+proto", "application/grpc-web-text"] {
        let headers = [("content-type", content_type), ("origin", forbidden)];
        let response = client.post(INGEST, &headers, body.clone()).await.unwrap().await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{content_type}");
    }
    let latest = server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap().into_inner();
    assert_eq!(latest.rates, [], "a page stored a tick");
    // A gRPC client, which sends no origin, is allowed.
    assert_eq!(code(client.call(INGEST, &request).await.unwrap()).await, Code::Ok);
    server.stop().await;
}
