//! Fetches from a test server that answers each connection with a given action.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Action of the server after it has read a request.
#[derive(Clone, Debug)]
enum Action {
    /// Sends the text and closes the connection.
    Send(String),
    /// Sends the bytes and closes the connection.
    Bytes(Vec<u8>),
    /// Sends the text, and then nothing more.
    Hang(String),
    /// Sends the text, and then zeros without end.
    Flood(String),
    /// Sends the text, and then one byte at a time, so slowly that a fetch times out.
    Drip(String),
}

/// Starts a server that performs one action for each connection. Returns its URL, and a task that returns the heads of
/// the requests.
async fn server(actions: Vec<Action>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let mut heads = Vec::new();
        for action in actions {
            let (mut stream, _) = listener.accept().await.unwrap();
            heads.push(head(&mut stream).await);
            tokio::spawn(perform(stream, action));
        }
        heads
    });
    (base, served)
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// Ignores write errors, because the client may disconnect at any time.
async fn perform(mut stream: TcpStream, action: Action) {
    match action {
        Action::Send(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
        }
        Action::Hang(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
        Action::Flood(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            while stream.write_all(&[b'0'; 16_384]).await.is_ok() {}
        }
        Action::Bytes(bytes) => {
            let _ = stream.write_all(&bytes).await;
        }
        Action::Drip(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            while stream.write_all(b"0").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn reply(status: &str, headers: &str, body: &str) -> Action {
    let length = body.len();
    Action::Send(format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"))
}

const LIMITS: FetchLimits =
    FetchLimits { connect: Duration::from_secs(10), read: Duration::from_secs(10), total: Duration::from_secs(20) };

async fn get(actions: Vec<Action>, limits: FetchLimits, validators: &Validators) -> Result<Fetched, FetchError> {
    let (base, _served) = server(actions).await;
    Fetcher::new(AddressPolicy::Any, limits, &UserAgent::default())
        .unwrap()
        .get(&format!("{base}/table"), validators, 1_000_000)
        .await
}

fn known() -> Validators {
    Validators { etag: Some(HeaderValue::from_static("\"a\"")), last_modified: None }
}

/// Asserts the kind, the retryability and a part of the message of an error, and returns the error.
async fn check(actions: Vec<Action>, kind: FetchErrorKind, is_retryable: bool, message: &str) -> FetchError {
    let error = get(actions.clone(), LIMITS, &Validators::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (kind, is_retryable), "{actions:?}: {error}");
    assert!(error.to_string().contains(message), "{actions:?}: {error}");
    error
}

#[tokio::test]
async fn validators_of_a_body_make_the_next_request_conditional() {
    let headers = "ETag: \"one\"\r\nLast-Modified: Mon, 18 May 2026 09:30:00 GMT\r\n";
    let not_modified = "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned();
    let (base, served) = server(vec![reply("200 OK", headers, "rates"), Action::Send(not_modified)]).await;
    let fetcher = Fetcher::new(AddressPolicy::Any, LIMITS, &UserAgent::default()).unwrap();
    let Fetched::Body { bytes, validators } = fetcher.get(&base, &Validators::default(), 5).await.unwrap() else {
        panic!("no body")
    };
    assert_eq!(bytes, b"rates");
    assert_eq!(fetcher.get(&base, &validators, 5).await, Ok(Fetched::NotModified));
    let heads = served.await.unwrap();
    assert!(heads[0].contains(concat!("user-agent: silkrate/", env!("CARGO_PKG_VERSION"))), "{heads:?}");
    assert!(!heads[0].contains("if-none-match"), "{heads:?}");
    assert!(heads.iter().all(|head| head.contains("accept-encoding: identity")), "{heads:?}");
    assert!(heads[1].contains("if-none-match: \"one\""), "{heads:?}");
    assert!(heads[1].contains("if-modified-since: mon, 18 may 2026 09:30:00 gmt"), "{heads:?}");
}

#[tokio::test]
async fn web_page_with_status_200_is_returned_as_body() {
    let body = "<html>maintenance</html>";
    let fetched = get(vec![reply("200 OK", "Content-Type: text/html\r\n", body)], LIMITS, &known()).await.unwrap();
    assert_eq!(fetched, Fetched::Body { bytes: body.into(), validators: Validators::default() });
}

#[tokio::test]
async fn status_decides_kind_and_retryability() {
    check(vec![reply("404 Not Found", "", "no")], FetchErrorKind::NotFound, false, "answered 404 Not Found").await;
    check(vec![reply("403 Forbidden", "", "")], FetchErrorKind::Refused, false, "answered 403 Forbidden").await;
    check(vec![reply("500 Internal Server Error", "", "")], FetchErrorKind::Unreachable, true, "answered 500").await;
    // The request was not conditional.
    check(vec![reply("304 Not Modified", "", "")], FetchErrorKind::Refused, false, "answered 304").await;
    check(vec![reply("206 Partial Content", "", "half")], FetchErrorKind::Refused, false, "answered 206").await;
    let error =
        check(vec![reply("429 Too Many Requests", "Retry-After: 120\r\n", "")], FetchErrorKind::Refused, true, "429")
            .await;
    assert_eq!(error.retry_after(), Some(RetryAfter::Wait(Duration::from_mins(2))));
    let error =
        check(vec![reply("503 Busy", "Retry-After: soon\r\n", "")], FetchErrorKind::Unreachable, true, "503").await;
    assert_eq!(error.retry_after(), None);
}

#[test]
fn retry_after_is_a_number_of_seconds_or_a_date() {
    let now = Timestamp::parse("2026-05-18T09:30:00Z").unwrap();
    let check = |text: &str, expect_s: Option<u64>| {
        let wait = RetryAfter::parse(text).map(|after| after.wait_from(now).as_secs());
        assert_eq!(wait, expect_s, "{text}");
    };
    check("0", Some(0));
    check(" 120 ", Some(120));
    check("99999999999999999999999", Some(u64::MAX));
    check("Mon, 18 May 2026 09:31:00 GMT", Some(60));
    check("Mon, 18 May 2026 09:00:00 GMT", Some(0));
    check("Monday, 18-May-26 09:31:00 GMT", Some(60));
    check("Mon May 18 09:31:00 2026", Some(60));
    for bad in ["", "soon", "-1", "1.5", "2026-05-18"] {
        check(bad, None);
    }
}

#[tokio::test]
async fn slow_server_times_out() {
    let slow = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_owned();
    let short_read = FetchLimits { read: Duration::from_millis(300), ..LIMITS };
    let short_total = FetchLimits { total: Duration::from_secs(1), ..LIMITS };
    for (action, limits) in [
        (Action::Hang(String::new()), short_read),
        (Action::Hang("HTTP/1.1 200 OK\r\n".to_owned()), short_read),
        (Action::Hang(slow.clone()), short_read),
        // No read times out, but the body is never complete.
        (Action::Drip(slow), short_total),
    ] {
        let started = Instant::now();
        let error = get(vec![action.clone()], limits, &Validators::default()).await.unwrap_err();
        assert_eq!(error, FetchError::TimedOut { host: "127.0.0.1".to_owned() }, "{action:?}");
        assert!(error.is_retryable() && started.elapsed() < Duration::from_secs(15), "{action:?}");
    }
}

#[tokio::test]
async fn body_beyond_limit_is_refused() {
    let declared = "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n".to_owned();
    let undeclared = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned();
    for head in [declared, undeclared] {
        check(vec![Action::Flood(head)], FetchErrorKind::Refused, false, "sends more than 1000000 bytes").await;
    }
}

/// A response with a body in a content coding.
fn coded(coding: &str, body: &[u8]) -> Action {
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nETag: \"a\"\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Action::Bytes([head.as_bytes(), body].concat())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn coded_body_is_decoded_within_the_size_limit() {
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    io::Write::write_all(&mut deflate, b"rates").unwrap();
    let zlib = deflate.finish().unwrap();
    let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    io::Write::write_all(&mut raw, b"rates").unwrap();
    let codings = [
        ("gzip", gzip(b"rates")),
        ("x-gzip", gzip(b"rates")),
        ("GZIP", gzip(b"rates")),
        ("deflate", zlib.clone()),
        ("deflate", raw.finish().unwrap()),
        // A Brotli stream with one uncompressed block.
        ("br", b"\x0b\x02\x80rates\x03".to_vec()),
        ("identity", b"rates".to_vec()),
    ];
    for (coding, body) in codings {
        let fetched = get(vec![coded(coding, &body)], LIMITS, &Validators::default()).await.unwrap();
        let Fetched::Body { bytes, validators } = fetched else { panic!("no body") };
        assert_eq!((bytes.as_slice(), validators.etag), (&b"rates"[..], known().etag), "{coding}");
    }
    // A small body that decodes to more than the limit of 1,000,000 bytes.
    let bomb = gzip(&vec![b'0'; 50_000_000]);
    assert!(bomb.len() < 100_000);
    check(vec![coded("gzip", &bomb)], FetchErrorKind::Refused, false, "sends more than 1000000 bytes").await;
    check(vec![coded("x-gzip", &bomb)], FetchErrorKind::Refused, false, "sends more than 1000000 bytes").await;
    let mut bomb = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    io::Write::write_all(&mut bomb, &vec![b'0'; 50_000_000]).unwrap();
    check(vec![coded("deflate", &bomb.finish().unwrap())], FetchErrorKind::Refused, false, "sends more than").await;
    for (coding, body) in [("gzip", &gzip(b"rates")[..12]), ("x-gzip", &gzip(b"rates")[..12]), ("deflate", &zlib[..4])]
    {
        check(vec![coded(coding, body)], FetchErrorKind::Unreachable, true, "is incomplete").await;
    }
    check(vec![coded("zstd", b"rates")], FetchErrorKind::Refused, false, "in the content coding 'zstd'").await;
}

#[tokio::test]
async fn incomplete_body_is_refused() {
    let incomplete = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\n<ValCurs><Valute>".to_owned();
    check(vec![Action::Send(incomplete)], FetchErrorKind::Unreachable, true, "is incomplete").await;
    let incomplete = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n<ValCurs".to_owned();
    check(vec![Action::Send(incomplete)], FetchErrorKind::Unreachable, true, "is incomplete").await;
    check(vec![Action::Send("no http".to_owned())], FetchErrorKind::Unreachable, true, "cannot reach").await;
}

#[tokio::test]
async fn redirect_must_stay_on_the_host() {
    let to = |location: &str| reply("302 Found", &format!("Location: {location}\r\n"), "");
    let fetched = get(vec![to("/elsewhere"), reply("200 OK", "", "rates")], LIMITS, &known()).await;
    assert!(matches!(fetched, Ok(Fetched::Body { .. })), "{fetched:?}");
    for (location, message) in [
        ("http://example.org/table", "the target has another host"),
        ("//169.254.169.254/latest", "the target has another host"),
        ("http://127.0.0.1:1/table", "the target has another port"),
        ("https://127.0.0.1:1/table", "the target has another port"),
        ("file:///etc/passwd", "the target has another host"),
        ("http://[", "the target is not a URL"),
    ] {
        check(vec![to(location)], FetchErrorKind::Refused, false, message).await;
    }
    check(vec![to("/again"); REDIRECTS_MAX + 1], FetchErrorKind::Refused, false, "there are too many").await;
}

#[tokio::test]
async fn public_policy_refuses_private_addresses() {
    let (base, _served) = server(vec![reply("200 OK", "", "secret")]).await;
    let fetcher = Fetcher::new(AddressPolicy::Public, LIMITS, &UserAgent::default()).unwrap();
    let by_address = fetcher.get(&base, &Validators::default(), 100).await.unwrap_err();
    assert!(matches!(by_address, FetchError::Url(_)), "{by_address}");
    let by_name = fetcher.get(&base.replace("127.0.0.1", "localhost"), &Validators::default(), 100).await.unwrap_err();
    assert_eq!(by_name, FetchError::Private("localhost".to_owned()));
    assert_eq!(by_name.kind(), FetchErrorKind::Refused);
}

#[tokio::test]
async fn closed_port_is_unreachable_and_invalid_url_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let fetcher = Fetcher::new(AddressPolicy::Any, LIMITS, &UserAgent::default()).unwrap();
    let error = fetcher.get(&format!("http://{address}"), &Validators::default(), 100).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (FetchErrorKind::Unreachable, true), "{error}");
    // The server does not support TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let error = fetcher.get(&url, &Validators::default(), 100).await;
    assert!(matches!(&error, Err(error @ FetchError::Tls { .. }) if !error.is_retryable()), "{error:?}");
    for bad in ["", "table", "ftp://example.org/", "file:///etc/passwd", "http://"] {
        let error = fetcher.get(bad, &Validators::default(), 100).await.unwrap_err();
        assert!(matches!(error, FetchError::Url(_)), "{bad}: {error}");
    }
}
