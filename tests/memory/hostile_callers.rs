//! Callers who do not read, who send no messages, or who are pages that may not call: what they cost, and that others are
//! served meanwhile. HTTP/2 by hand, since no client library of gRPC behaves so.

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
const ME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANOTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Calls open on one connection: more than any server lets be.
const CALLS: usize = 256;
/// After this long unread, a connection ends; and some to spare.
const UNREAD_MAX: Duration = Duration::from_secs(20 + 10);

/// A connection, and when it ended.
struct Caller {
    send: SendRequest<Bytes>,
    ended: JoinHandle<Instant>,
}

impl Caller {
    /// From an address of this machine, taking so many bytes of each response before it is read.
    async fn connect(server: &TestServer, from: IpAddr, window: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = socket.connect(server.addr).await.unwrap();
        let (send, connection) =
            Builder::new().initial_window_size(window).handshake::<_, Bytes>(stream).await.unwrap();
        let ended = tokio::spawn(async move {
            // In whichever way it ends.
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

/// A message as it goes over the wire: a flag, its length, its bytes.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), message].concat()
}

/// The status of a call, whose response is read whole.
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

/// A server with so many runs of one pair.
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

/// Anonymous memory of this process, which the server is in, in MB.
fn anonymous_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_that_nobody_reads_are_limited_and_end_their_connections() {
    let server = with_runs(10_000).await;
    let before_mb = anonymous_mb();
    let begun = Instant::now();
    let mut callers = Vec::new();
    for _ in 0..8 {
        let caller = Caller::connect(&server, ME, 0).await;
        let mut calls = Vec::new();
        for _ in 0..CALLS {
            // A connection that is ended takes no more.
            match timeout(Duration::from_secs(1), caller.call(LIST_RUNS, &list_runs())).await {
                Ok(Ok(call)) => calls.push(call),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        assert!(calls.len() > 32, "{} calls were taken", calls.len());
        callers.push((caller, calls));
    }
    // Two thousand responses of more than half a megabyte.
    let mut most_mb = 0;
    for _ in 0..50 {
        most_mb = most_mb.max(anonymous_mb().saturating_sub(before_mb));
        sleep(Duration::from_millis(50)).await;
    }
    assert!(most_mb < 400, "{most_mb} MB wait to be read");
    // Others are served meanwhile.
    let other = Caller::connect(&server, ANOTHER, 1 << 20).await;
    let answered = timeout(Duration::from_secs(8), async {
        loop {
            let found = code(other.call(LIST_RUNS, &list_runs()).await.unwrap()).await;
            if found == Code::Ok {
                return;
            }
            // What is full by now has room again in a moment, which the answer says.
            assert_eq!(found, Code::ResourceExhausted);
            sleep(Duration::from_millis(200)).await;
        }
    });
    answered.await.expect("an answer to another caller");
    let mut ended_count = 0;
    for (caller, calls) in callers {
        // Kept, since a response that is dropped is given up.
        let mut heads = Vec::new();
        for call in calls {
            if let Ok(Ok(head)) = timeout(Duration::from_secs(5), call).await {
                heads.push(head);
            }
        }
        // A connection on which every call was refused has nothing to read.
        if heads.iter().any(|head| head.headers().get("grpc-status").is_none()) {
            let ended = timeout(UNREAD_MAX, caller.ended).await.expect("an end of the connection").unwrap();
            assert!(ended - begun >= Duration::from_secs(15), "a caller has time to read");
            ended_count += 1;
        }
    }
    assert!(ended_count > 0, "nothing waited to be read");
    let caller = Caller::connect(&server, ME, 1 << 20).await;
    assert_eq!(code(caller.call(LIST_RUNS, &list_runs()).await.unwrap()).await, Code::Ok);
    server.stop().await;
}

/// The status of a call that was answered so soon; none of one that goes on.
async fn soon(response: ResponseFuture) -> Option<Code> {
    match timeout(Duration::from_secs(2), response).await {
        Err(_) => None,
        Ok(response) => {
            let headers = response.unwrap();
            headers.headers().get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
        }
    }
}

/// Streams of `path` that nobody reads take no more than one caller's places, and give them back.
async fn unread_streams(server: &TestServer, path: &str, message: &impl prost::Message, places: usize) {
    let unread = Caller::connect(server, ME, 0).await;
    let mut streams = Vec::new();
    for number in 0..places {
        let mut stream = unread.call(path, message).await.unwrap();
        let head = timeout(Duration::from_secs(5), &mut stream).await;
        let head = head.unwrap_or_else(|_| panic!("stream {number} of {path} is not begun")).unwrap();
        assert_eq!(head.headers().get("grpc-status"), None, "stream {number} of {path}");
        streams.push(head);
    }
    let refused = Caller::connect(server, ME, 0).await;
    assert_eq!(soon(refused.call(path, message).await.unwrap()).await, Some(Code::ResourceExhausted), "{path}");
    let other = Caller::connect(server, ANOTHER, 1 << 20).await;
    assert_eq!(code(other.call(path, message).await.unwrap()).await, Code::Ok, "{path} from another address");
    timeout(UNREAD_MAX, unread.ended).await.expect("an end of the connection").unwrap();
    let again = Caller::connect(server, ME, 1 << 20).await;
    let begun = Instant::now();
    loop {
        let found = code(again.call(path, message).await.unwrap()).await;
        if found == Code::Ok {
            break;
        }
        assert_eq!(found, Code::ResourceExhausted, "{path}");
        assert!(begun.elapsed() < Duration::from_secs(10), "the places of {path} are not given back");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_nobody_reads_give_back_their_places() {
    let server = with_runs(30_000).await;
    let runs = v1::StreamRunsRequest { pair: "KGS/USD".to_owned(), ..Default::default() };
    let export = v1::ExportSnapshotRequest { format: v1::ExportFormat::Csv.into(), ..Default::default() };
    tokio::join!(unread_streams(&server, STREAM_RUNS, &runs, 48), unread_streams(&server, EXPORT, &export, 3));
    server.stop().await;
}

#[tokio::test]
async fn bytes_that_are_no_message_are_the_callers_fault() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    let caller = Caller::connect(&server, ME, 1 << 20).await;
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
        // A field that does not end, and a string that is no text.
        for garbage in [&[0xFF, 0xFF, 0xFF][..], &[0x0A, 0x02, 0xC3, 0x28][..]] {
            let headers = [("content-type", GRPC), ("te", "trailers")];
            let response = caller.post(path, &headers, framed(garbage)).await.unwrap();
            let found = timeout(Duration::from_secs(10), code(response)).await.expect("an answer");
            assert_eq!(found, Code::InvalidArgument, "{path}: {garbage:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_stores_nothing_whatever_its_content_type() {
    let server = TestServer::start(&["--cors-origin", "https://dash.example.org"]).await;
    let caller = Caller::connect(&server, ME, 1 << 20).await;
    let request = v1::IngestTicksRequest { ticks: vec![tick("KGS/USD", -60, "0.01144")], ..Default::default() };
    let body = framed(&request.encode_to_vec());
    let (foreign, allowed) = ("https://evil.example.org", "https://dash.example.org");
    for content_type in [
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data"),
        Some("application/json"),
        Some("application/grpcx"),
        None,
    ] {
        for origin in [Some(foreign), Some(allowed), Some("null"), None] {
            let headers: Vec<(&str, &str)> = [("content-type", content_type), ("origin", origin)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            let response = caller.post(INGEST, &headers, body.clone()).await.unwrap().await.unwrap();
            let expect = if origin.is_none() || origin == Some(allowed) {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            } else {
                StatusCode::FORBIDDEN
            };
            assert_eq!(response.status(), expect, "{headers:?}");
            assert_eq!(response.headers().get("access-control-allow-origin").filter(|_| origin == Some(foreign)), None);
        }
    }
    for content_type in [GRPC, "application/grpc+proto", "application/grpc-web+proto", "application/grpc-web-text"] {
        let headers = [("content-type", content_type), ("origin", foreign)];
        let response = caller.post(INGEST, &headers, body.clone()).await.unwrap().await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{content_type}");
    }
    let latest = server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap().into_inner();
    assert_eq!(latest.rates, [], "a page stored a tick");
    // A client of gRPC, which sends no origin, may.
    assert_eq!(code(caller.call(INGEST, &request).await.unwrap()).await, Code::Ok);
    server.stop().await;
}
