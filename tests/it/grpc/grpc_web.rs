//! gRPC-Web as a page in a browser sends it, without a client library: HTTP/1.1, a preflight, frames in binary and in
//! base64.

use std::time::Duration;

use data_encoding::BASE64;
use prost::Message as _;
use silkrate::proto::v1;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;

use crate::support::{TestServer, tick};

const PAGE: &str = "https://dash.example.org";
const LATEST: &str = "/silkrate.v1.RateService/GetLatestRates";
const WATCH: &str = "/silkrate.v1.RateService/WatchLatestRates";
const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";
/// The flag of a frame that carries trailers.
const TRAILERS: u8 = 0x80;
/// Far longer than any step of these tests takes.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A connection that stays open, as in a browser.
struct Browser(BufReader<TcpStream>);

/// The head of a response: the status, and headers by lower-case name.
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl Browser {
    async fn connect(server: &TestServer) -> Self {
        Self(BufReader::new(TcpStream::connect(server.addr).await.unwrap()))
    }

    async fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Head {
        let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let headers = headers.concat();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: silkrate\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        self.0.write_all(head.as_bytes()).await.unwrap();
        self.0.write_all(body).await.unwrap();
        let mut lines = Vec::new();
        loop {
            let line = self.line().await;
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines[1..].iter().map(|line| line.split_once(": ").unwrap());
        Head { status, headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect() }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(TIMEOUT, self.0.read_line(&mut line)).await.expect("a line in time").unwrap();
        line.trim_end().to_owned()
    }

    /// Returns one chunk of a chunked body; empty at the end of the body.
    async fn chunk(&mut self) -> Vec<u8> {
        let length = usize::from_str_radix(&self.line().await, 16).unwrap();
        let mut chunk = vec![0; length + 2];
        timeout(TIMEOUT, self.0.read_exact(&mut chunk)).await.expect("a chunk in time").unwrap();
        chunk.truncate(length);
        chunk
    }

    async fn body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk().await;
            if chunk.is_empty() {
                return body;
            }
            body.extend(chunk);
        }
    }

    async fn preflight(&mut self, origin: &str) -> Head {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,x-grpc-web,grpc-timeout"),
        ];
        self.request("OPTIONS", LATEST, &headers, b"").await
    }

    async fn call(&mut self, path: &str, content_type: &str, origin: &str, body: &[u8]) -> Head {
        let headers =
            [("content-type", content_type), ("accept", content_type), ("x-grpc-web", "1"), ("origin", origin)];
        self.request("POST", path, &headers, body).await
    }
}

/// Encodes a message as a gRPC frame: flag, length, bytes.
fn framed(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame
}

/// Returns the flag and the bytes of each frame.
fn frames(mut body: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = body {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap();
        let (bytes, left) = rest.split_at(length);
        frames.push((*flag, bytes));
        body = left;
    }
    assert!(body.is_empty(), "bytes after the last frame");
    frames
}

/// Decodes base64 of several parts, each with its own padding.
fn decoded_base64(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|quantum| BASE64.decode(quantum).unwrap()).collect()
}

async fn serve(flags: &[&str]) -> TestServer {
    let server = TestServer::start(flags).await;
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    server
}

fn latest() -> Vec<u8> {
    framed(&v1::GetLatestRatesRequest::default())
}

fn assert_latest(body: &[u8]) {
    let frames = frames(body);
    assert_eq!(frames.iter().map(|(flag, _)| *flag).collect::<Vec<_>>(), [0, TRAILERS]);
    let response = v1::GetLatestRatesResponse::decode(frames[0].1).unwrap();
    assert_eq!(response.rates[0].run.as_ref().unwrap().rate, "0.01144");
    let trailers = String::from_utf8(frames[1].1.to_vec()).unwrap();
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
}

#[tokio::test]
async fn allowed_origin_passes_preflight_and_call() {
    let server = serve(&["--cors-origin", PAGE]).await;
    let mut browser = Browser::connect(&server).await;
    let head = browser.preflight(PAGE).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.get("access-control-allow-origin"), Some(PAGE));
    assert_eq!(head.get("access-control-allow-methods"), Some("POST"));
    for name in ["content-type", "x-grpc-web", "grpc-timeout"] {
        assert!(head.get("access-control-allow-headers").unwrap().contains(name), "{name}");
    }
    let head = browser.call(LATEST, BINARY, PAGE, &latest()).await;
    assert_eq!((head.status, head.get("access-control-allow-origin")), (200, Some(PAGE)));
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        assert!(head.get("access-control-expose-headers").unwrap().contains(name), "{name}");
    }
    assert_latest(&browser.body().await);
}

#[tokio::test]
async fn text_mode_is_binary_mode_in_base64() {
    let server = serve(&["--cors-origin", "*"]).await;
    let mut browser = Browser::connect(&server).await;
    let head = browser.call(LATEST, TEXT, PAGE, BASE64.encode(&latest()).as_bytes()).await;
    assert_eq!((head.status, head.get("content-type")), (200, Some(TEXT)));
    assert_latest(&decoded_base64(&browser.body().await));
}

#[tokio::test]
async fn forbidden_origin_is_refused() {
    for flags in [&[][..], &["--cors-origin", PAGE]] {
        let server = serve(flags).await;
        let mut browser = Browser::connect(&server).await;
        for origin in ["https://evil.example", "null", "https://dash.example.org:8443", "http://dash.example.org"] {
            let head = browser.preflight(origin).await;
            assert_eq!((head.status, head.get("access-control-allow-origin")), (403, None), "{origin}");
            let length: usize = head.get("content-length").unwrap().parse().unwrap();
            browser.0.read_exact(&mut vec![0; length]).await.unwrap();
        }
        // A call without a preflight is refused too. DNS rebinding could send such a call.
        let head = browser.call(LATEST, BINARY, "https://evil.example", &latest()).await;
        assert_eq!((head.status, head.get("grpc-status")), (403, None));
    }
}

#[tokio::test]
async fn watch_streams_over_grpc_web() {
    let server = serve(&["--cors-origin", PAGE]).await;
    let mut browser = Browser::connect(&server).await;
    let head = browser.call(WATCH, BINARY, PAGE, &framed(&v1::WatchLatestRatesRequest::default())).await;
    assert_eq!(head.status, 200);
    let read = |chunk: Vec<u8>| v1::WatchLatestRatesResponse::decode(frames(&chunk)[0].1).unwrap();
    assert_eq!(read(browser.chunk().await).kind(), v1::WatchKind::Snapshot);
    let stored = server.store(&[tick("KGS/USD", -30, "0.01145")]).await;
    let message = read(browser.chunk().await);
    assert_eq!((message.kind(), message.sequence), (v1::WatchKind::Changes, stored.sequence));
    let (_dir, shutdown) = server.begin_stop();
    let end = browser.body().await;
    let trailers = String::from_utf8(frames(&end)[0].1.to_vec()).unwrap();
    assert!(trailers.contains(&format!("grpc-status:{}", Code::Unavailable as i32)), "{trailers}");
    drop(browser);
    shutdown.await.unwrap().0.unwrap();
}

#[tokio::test]
async fn errors_and_size_limits_equal_those_of_grpc() {
    let server = serve(&["--cors-origin", PAGE]).await;
    let mut browser = Browser::connect(&server).await;
    let status = async |browser: &mut Browser, body: &[u8]| {
        let head = browser.call(LATEST, BINARY, PAGE, body).await;
        assert_eq!(head.status, 200);
        let length: usize = head.get("content-length").map_or(0, |length| length.parse().unwrap());
        browser.0.read_exact(&mut vec![0; length]).await.unwrap();
        assert!(head.get("grpc-message").is_some());
        head.get("grpc-status").unwrap().parse::<i32>().unwrap()
    };
    let unknown = v1::GetLatestRatesRequest { pairs: vec!["KGS".to_owned()], ..Default::default() };
    assert_eq!(status(&mut browser, &framed(&unknown)).await, Code::InvalidArgument as i32);
    // A declared length of 4 GiB is refused before the body is read.
    assert_eq!(status(&mut browser, &[0, 255, 255, 255, 255]).await, Code::OutOfRange as i32);
}

#[tokio::test]
async fn plain_http1_request_gets_415_and_a_hint() {
    let server = serve(&[]).await;
    for (method, headers) in [("GET", &[][..]), ("POST", &[("content-type", "application/grpc")])] {
        let mut browser = Browser::connect(&server).await;
        let head = browser.request(method, "/", headers, b"").await;
        assert_eq!(head.status, 415);
        let mut text = vec![0; head.get("content-length").unwrap().parse().unwrap()];
        browser.0.read_exact(&mut text).await.unwrap();
        assert!(String::from_utf8(text).unwrap().contains("gRPC-Web"));
    }
}

#[tokio::test]
async fn endless_headers_are_refused() {
    let server = serve(&[]).await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    socket.write_all(b"POST / HTTP/1.1\r\nhost: silkrate\r\n").await.unwrap();
    let mut sent = 0_usize;
    let line = [b"x-filler: ".as_slice(), &[b'x'; 4_000], b"\r\n"].concat();
    while sent < 16 << 20 && socket.write_all(&line).await.is_ok() {
        sent += line.len();
    }
    let mut response = Vec::new();
    // The response may be lost if the server closes the connection while the client still sends. Only the close
    // counts.
    let _ = timeout(TIMEOUT, socket.read_to_end(&mut response)).await.expect("an end in time");
    assert!(response.is_empty() || response.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&response));
    assert!(sent < 16 << 20, "the server accepted {sent} bytes of headers");
}
