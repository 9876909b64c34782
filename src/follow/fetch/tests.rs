//! Against a server that answers each connection with what it is told.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What the server does with a connection after the request is read.
#[derive(Clone, Debug)]
enum Act {
    /// Says this and closes.
    Say(String),
    /// Says this, and then nothing.
    Hang(String),
    /// Sends zeros for ever.
    Flood(String),
    /// Sends a byte at a time, slower than a fetch may last.
    Drip(String),
}

/// Answers each connection with the next act, and gives back the heads of the requests.
async fn server(acts: Vec<Act>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let mut heads = Vec::new();
        for act in acts {
            let (mut stream, _) = listener.accept().await.unwrap();
            heads.push(head(&mut stream).await);
            tokio::spawn(perform(stream, act));
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

/// The client may go away at any moment, which is what some of the tests are about.
async fn perform(mut stream: TcpStream, act: Act) {
    match act {
        Act::Say(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
        }
        Act::Hang(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
        Act::Flood(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            while stream.write_all(&[b'0'; 16_384]).await.is_ok() {}
        }
        Act::Drip(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            while stream.write_all(b"0").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn say(status: &str, headers: &str, body: &str) -> Act {
    let length = body.len();
    Act::Say(format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"))
}

const LIMITS: FetchLimits =
    FetchLimits { connect: Duration::from_secs(10), read: Duration::from_secs(10), total: Duration::from_secs(20) };

async fn get(acts: Vec<Act>, limits: FetchLimits, validators: &Validators) -> Result<Fetched, FetchError> {
    let (base, _served) = server(acts).await;
    Fetcher::new(AddressPolicy::Any, limits).unwrap().get(&format!("{base}/table"), validators, 1_000_000).await
}

fn known() -> Validators {
    Validators { etag: Some(HeaderValue::from_static("\"a\"")), last_modified: None }
}

/// What an error says, the host and its port left out.
async fn check(acts: Vec<Act>, trouble: Trouble, may_pass: bool, words: &str) -> FetchError {
    let error = get(acts.clone(), LIMITS, &Validators::default()).await.unwrap_err();
    assert_eq!((error.trouble(), error.may_pass()), (trouble, may_pass), "{acts:?}: {error}");
    assert!(error.to_string().contains(words), "{acts:?}: {error}");
    error
}

#[tokio::test]
async fn a_body_comes_with_what_to_ask_with_the_next_time() {
    let headers = "ETag: \"one\"\r\nLast-Modified: Mon, 18 May 2026 09:30:00 GMT\r\n";
    let again = "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned();
    let (base, served) = server(vec![say("200 OK", headers, "rates"), Act::Say(again)]).await;
    let fetcher = Fetcher::new(AddressPolicy::Any, LIMITS).unwrap();
    let Fetched::Body { bytes, validators } = fetcher.get(&base, &Validators::default(), 5).await.unwrap() else {
        panic!("no body")
    };
    assert_eq!(bytes, b"rates");
    assert_eq!(fetcher.get(&base, &validators, 5).await, Ok(Fetched::NotModified));
    let heads = served.await.unwrap();
    assert!(heads[0].contains(concat!("user-agent: silkrate/", env!("CARGO_PKG_VERSION"))), "{heads:?}");
    assert!(!heads[0].contains("if-none-match") && !heads[0].contains("accept-encoding"), "{heads:?}");
    assert!(heads[1].contains("if-none-match: \"one\""), "{heads:?}");
    assert!(heads[1].contains("if-modified-since: mon, 18 may 2026 09:30:00 gmt"), "{heads:?}");
}

#[tokio::test]
async fn a_page_for_people_with_status_200_is_for_its_reader_to_judge() {
    let body = "<html>maintenance</html>";
    let fetched = get(vec![say("200 OK", "Content-Type: text/html\r\n", body)], LIMITS, &known()).await.unwrap();
    assert_eq!(fetched, Fetched::Body { bytes: body.into(), validators: Validators::default() });
}

#[tokio::test]
async fn statuses_say_whether_to_ask_again() {
    check(vec![say("404 Not Found", "", "no")], Trouble::Absent, false, "answered 404 Not Found").await;
    check(vec![say("403 Forbidden", "", "")], Trouble::Refused, false, "answered 403 Forbidden").await;
    check(vec![say("500 Internal Server Error", "", "")], Trouble::Unreachable, true, "answered 500").await;
    // Nobody asked whether it was modified.
    check(vec![say("304 Not Modified", "", "")], Trouble::Refused, false, "answered 304").await;
    check(vec![say("206 Partial Content", "", "half")], Trouble::Refused, false, "answered 206").await;
    let error =
        check(vec![say("429 Too Many Requests", "Retry-After: 120\r\n", "")], Trouble::Refused, true, "429").await;
    assert_eq!(error.retry_after(), Some(RetryAfter::Wait(Duration::from_mins(2))));
    let error = check(vec![say("503 Busy", "Retry-After: soon\r\n", "")], Trouble::Unreachable, true, "503").await;
    assert_eq!(error.retry_after(), None);
}

#[test]
fn when_to_ask_again_is_a_number_of_seconds_or_a_date() {
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
async fn nobody_waits_for_ever() {
    let slow = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_owned();
    let no_patience = FetchLimits { read: Duration::from_millis(300), ..LIMITS };
    let short = FetchLimits { total: Duration::from_secs(1), ..LIMITS };
    for (act, limits) in [
        (Act::Hang(String::new()), no_patience),
        (Act::Hang("HTTP/1.1 200 OK\r\n".to_owned()), no_patience),
        (Act::Hang(slow.clone()), no_patience),
        // Always something, and never enough.
        (Act::Drip(slow), short),
    ] {
        let begun = Instant::now();
        let error = get(vec![act.clone()], limits, &Validators::default()).await.unwrap_err();
        assert_eq!(error, FetchError::TimedOut { host: "127.0.0.1".to_owned() }, "{act:?}");
        assert!(error.may_pass() && begun.elapsed() < Duration::from_secs(15), "{act:?}");
    }
}

#[tokio::test]
async fn no_more_is_read_than_may_be() {
    let declared = "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n".to_owned();
    let undeclared = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned();
    for head in [declared, undeclared] {
        check(vec![Act::Flood(head)], Trouble::Refused, false, "sends more than 1000000 bytes").await;
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_none() {
    let cut = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\n<ValCurs><Valute>".to_owned();
    check(vec![Act::Say(cut)], Trouble::Unreachable, true, "broke off").await;
    let cut = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n<ValCurs".to_owned();
    check(vec![Act::Say(cut)], Trouble::Unreachable, true, "broke off").await;
    check(vec![Act::Say("no http".to_owned())], Trouble::Unreachable, true, "cannot reach").await;
}

#[tokio::test]
async fn redirects_stay_with_the_host() {
    let to = |place: &str| say("302 Found", &format!("Location: {place}\r\n"), "");
    let fetched = get(vec![to("/elsewhere"), say("200 OK", "", "rates")], LIMITS, &known()).await;
    assert!(matches!(fetched, Ok(Fetched::Body { .. })), "{fetched:?}");
    for (place, words) in [
        ("http://example.org/table", "it is another host"),
        ("//169.254.169.254/latest", "it is another host"),
        ("http://127.0.0.1:1/table", "it is another port"),
        ("https://127.0.0.1:1/table", "it is another port"),
        ("file:///etc/passwd", "it is another host"),
        ("http://[", "it is no URL"),
    ] {
        check(vec![to(place)], Trouble::Refused, false, words).await;
    }
    check(vec![to("/again"); REDIRECTS_MAX + 1], Trouble::Refused, false, "there are too many").await;
}

#[tokio::test]
async fn a_publishers_address_does_not_lead_inside() {
    let (base, _served) = server(vec![say("200 OK", "", "secret")]).await;
    let fetcher = Fetcher::new(AddressPolicy::Public, LIMITS).unwrap();
    let by_number = fetcher.get(&base, &Validators::default(), 100).await.unwrap_err();
    assert!(matches!(by_number, FetchError::Url(_)), "{by_number}");
    let by_name = fetcher.get(&base.replace("127.0.0.1", "localhost"), &Validators::default(), 100).await.unwrap_err();
    assert_eq!(by_name, FetchError::Private("localhost".to_owned()));
    assert_eq!(by_name.trouble(), Trouble::Refused);
}

#[tokio::test]
async fn who_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let fetcher = Fetcher::new(AddressPolicy::Any, LIMITS).unwrap();
    let error = fetcher.get(&format!("http://{address}"), &Validators::default(), 100).await.unwrap_err();
    assert_eq!((error.trouble(), error.may_pass()), (Trouble::Unreachable, true), "{error}");
    // No TLS there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let error = fetcher.get(&url, &Validators::default(), 100).await;
    assert!(matches!(&error, Err(error @ FetchError::Tls { .. }) if !error.may_pass()), "{error:?}");
    for bad in ["", "table", "ftp://example.org/", "file:///etc/passwd", "http://"] {
        let error = fetcher.get(bad, &Validators::default(), 100).await.unwrap_err();
        assert!(matches!(error, FetchError::Url(_)), "{bad}: {error}");
    }
}
