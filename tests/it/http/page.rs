//! The built-in page over HTTP, without a browser.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use silkrate::proto::v1;
use silkrate::store::{DiskFault, DiskOperation};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{TestServer, tick};

pub(super) const HOUR_S: i64 = 3_600;
/// Limit for page, style and script together.
const PAGE_BYTES_MAX: usize = 75_000;
const TIMEOUT: Duration = Duration::from_mins(1);

pub(super) struct Page {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

pub(super) async fn get(server: &TestServer, path: &str) -> Page {
    let mut stream = TcpStream::connect(server.http_addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: silkrate\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut response)).await.expect("a response in time").unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Page { status, head: head.to_lowercase(), body: body.to_owned() }
}

async fn with_five_series() -> TestServer {
    with_five_series_and(&[]).await
}

async fn with_five_series_and(flags: &[&str]) -> TestServer {
    let server = TestServer::start(&[&["--stale-limit", "timesca=6h"], flags].concat()).await;
    let mut ticks = Vec::new();
    for hour in -50..=0 {
        let kgs = format!("0.{:05}", 1_144 + hour / 24);
        let rates = [("KGS/USD", kgs.as_str()), ("TJS/USD", "0.10899"), ("TMT/USD", "0.28490"), ("UZS/USD", "0.00008")];
        ticks.extend(rates.map(|(pair, rate)| tick(pair, hour * HOUR_S, rate)));
    }
    ticks[3].reported_change_percent = Some("-0".to_owned());
    ticks.push(tick("KZT/USD", -30 * HOUR_S, "0.00196"));
    server.store(&ticks).await;
    server
}

/// Returns the text between `from` and the following `to`.
pub(super) fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split_once(from).unwrap().1.split_once(to).unwrap().0
}

/// Returns the text without markup, with single spaces.
pub(super) fn visible_text(html: &str) -> String {
    let mut text = String::new();
    for piece in html.split('<') {
        text.push(' ');
        text.push_str(piece.split_once('>').map_or(piece, |(_, rest)| rest));
    }
    text.replace('\u{a0}', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn table_shows_changes_only_as_far_as_digits_allow() {
    let server = with_five_series().await;
    let page = get(&server, "/").await;
    let row = |pair: &str| {
        visible_text(between(&page.body, &format!("id=\"r-{}-timesca\"", pair.replace('/', "-")), "</tr>"))
    };
    // A move that rounding may have caused is not shown as a change. The change of the published digits is shown.
    let kgs = row("KGS/USD");
    let expect = "KGS/USD timesca 0.01144 published derived: 1 USD is 87.3743 to 87.4509 KGS Moving";
    assert!(kgs.contains(expect), "{kgs}");
    assert!(kgs.contains("cannot tell published +0.09 % from 0.01143, 0.00 to +0.18 %"), "{kgs}");
    // With one significant digit, an unchanged rate may have fallen by an eighth. So "0 %" is never printed.
    let uzs = row("UZS/USD");
    assert!(uzs.contains("0.00008") && uzs.contains("cannot tell −11.77 to +13.34 %"), "{uzs}");
    assert!(uzs.contains("no quote then") && uzs.contains("never moved"), "{uzs}");
    assert!(!uzs.contains(" 0.00 %") && !uzs.contains(" 0 %"), "{uzs}");
    // A silent feed is shown as not observed, not as unchanged.
    let kzt = row("KZT/USD");
    assert!(kzt.contains("Stale feed silent for over 6 h"), "{kzt}");
    assert!(kzt.contains("not observed"), "{kzt}");
    server.stop().await;
}

#[tokio::test]
async fn held_tick_is_announced_until_it_is_decided() {
    let server = with_five_series().await;
    assert!(!get(&server, "/").await.body.contains("id=\"held\""));
    let outliers = vec![tick("KZT/USD", -1, "0.196")];
    let request = v1::IngestTicksRequest { ticks: outliers, ..v1::IngestTicksRequest::default() };
    let response = server.ingest().ingest_ticks(request).await.unwrap().into_inner();
    assert_eq!(response.summary.unwrap().quarantined_count, 1);
    let page = get(&server, "/").await.body;
    let notice = visible_text(between(&page, "id=\"held\">", "</p>"));
    assert!(notice.starts_with("1 tick is held. A rate too far from the rate in force is not shown"), "{notice}");
    assert!(page.contains("0.00196") && !page.contains("0.196<"), "{page}");
    // The link leads to the list of held ticks.
    let listed = get(&server, between(&page, "released. <a href=\"", "\"")).await.body;
    assert!(listed.contains("\"rate\":\"0.196\""), "{listed}");
    let request = v1::DiscardQuarantineRequest { ids: vec![response.held_ticks[0].id()], ..Default::default() };
    server.ingest().discard_quarantine(request).await.unwrap();
    assert!(!get(&server, "/").await.body.contains("id=\"held\""));
    server.stop().await;
}

#[tokio::test]
async fn page_is_small_and_its_policy_allows_only_its_own_assets() {
    let server = with_five_series().await;
    let page = get(&server, "/").await;
    assert_eq!(page.status, 200);
    let policy = between(&page.head, "content-security-policy: ", "\r\n");
    for rule in
        ["default-src 'none'", "script-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    {
        assert!(policy.split("; ").any(|found| found == rule), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !page.body.contains("<style") && !page.body.contains("style="));
    assert!(page.head.contains("cache-control: no-cache"));
    let mut bytes = page.body.len();
    for (attribute, kind) in [("src=\"", "text/javascript"), ("rel=\"stylesheet\" href=\"", "text/css")] {
        let path = between(&page.body, attribute, "\"");
        let asset = get(&server, path).await;
        assert_eq!(asset.status, 200, "{path}");
        assert!(asset.head.contains(kind) && asset.head.contains("immutable"), "{}", asset.head);
        bytes += asset.body.len();
    }
    println!("the page takes {bytes} bytes, {} of them HTML", page.body.len());
    assert!(bytes < PAGE_BYTES_MAX, "{bytes}");
    assert_eq!(get(&server, "/assets/page-0000000000000000.css").await.status, 404);
    server.stop().await;
}

#[tokio::test]
async fn errors_are_shown_on_a_page() {
    let server = with_five_series().await;
    let check = async |path: &str, status: u16, part: &str| {
        let page = get(&server, path).await;
        assert_eq!(page.status, status, "{path}");
        assert!(visible_text(&page.body).contains(part), "{path}: {}", visible_text(&page.body));
        assert!(page.body.contains("<main"), "{path}");
    };
    check("/pair/KGS/USD", 200, "1 KGS = 0.01144 USD The true rate is between 0.011435 and 0.011445.").await;
    check("/pair/USD/KGS", 200, "1 USD = 87.4126 KGS").await;
    check("/pair/KGS/USD?invert=1&range=all&candles=1w", 200, "1 USD = 87.4126 KGS").await;
    check("/pair/KZT/USD?range=1d", 200, "The feed was silent for all of this time: the dotted line is not confirmed.")
        .await;
    check("/pair/KZT/USD?range=7d", 200, "The feed was silent once.").await;
    check("/pair/KGS/XXX", 404, "'XXX' is not in ISO 4217").await;
    check("/pair/KGS/KGS", 404, "has the same currency twice").await;
    check("/pair/EUR/USD", 404, "EUR").await;
    check("/pair/KGS/USD?source=nbkr", 404, "no series of KGS/USD from nbkr").await;
    check("/pair/KGS/USD?source=%3Cscript%3E", 400, "is not a slug").await;
    check("/pair/KGS/USD?range=2d", 400, "range: '2d' is not one of 1d, 7d, 30d, 1y, all").await;
    check("/pair/KGS/USD?range=1y&candles=15m", 400, "choose longer candles").await;
    check("/pair/KGS/USD?range=1d&range=7d", 400, "duplicate").await;
    check("/pair/%3Cb%3E/USD", 404, "&lt;b&gt;").await;
    server.stop().await;
}

#[tokio::test]
async fn silence_within_a_run_is_reported() {
    let server = TestServer::start(&[]).await;
    // The bank's collapse window of seven days bridges a gap of six days; its stale limit is five days.
    let ticks = [-20, -14, -10, -6, -2]
        .map(|day| v1::Tick { source: "nbkr".to_owned(), ..tick("USD/KGS", day * 24 * HOUR_S, "87.4500") });
    server.store(&ticks).await;
    let page = get(&server, "/pair/USD/KGS?range=30d").await;
    let text = visible_text(&page.body);
    assert!(text.contains("The rate did not move: 87.4500. The feed was silent once."), "{text}");
    assert!(text.contains("2025-11-18 12:00:00 2025-11-24 12:00:00"), "{text}");
    assert!(text.contains("KGS per USD") && text.contains("USD per KGS"), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn silence_is_distinguished_from_no_change() {
    let server = TestServer::start(&["--stale-limit", "timesca=6h"]).await;
    let nbkr = |hour: i64| v1::Tick { source: "nbkr".to_owned(), ..tick("USD/KGS", hour * HOUR_S, "87.4500") };
    server
        .store(&[
            tick("TJS/USD", -40 * 24 * HOUR_S, "0.10000"),
            tick("TJS/USD", 0, "0.10899"),
            // 24 hours ago, the last observation was exactly as old as the limit allows: 6 hours.
            tick("KGS/USD", -30 * HOUR_S, "0.01100"),
            tick("KGS/USD", -18 * HOUR_S, "0.01144"),
            // One run. Seven days ago its last observation was five and a half days old, and the limit of a bank is
            // five days.
            nbkr(-300),
            nbkr(-144),
            nbkr(-72),
            nbkr(0),
        ])
        .await;
    let page = get(&server, "/").await;
    let row = |id: &str| visible_text(between(&page.body, &format!("id=\"r-{id}\""), "</tr>"));
    let tjs = row("TJS-USD-timesca");
    let silent = "not observed then silent since 2025-10-29 12:00:00";
    assert!(tjs.contains(&[silent; 3].join(" ")), "{tjs}");
    // The rates on both sides of the silence are known; the time and the number of moves between them are not.
    assert!(tjs.contains("+8.99 % from 0.10000, +8.97 to +9.01 % during a silence, perhaps in several moves"), "{tjs}");
    assert!(tjs.contains("or earlier: silent since 2025-10-29 12:00:00"), "{tjs}");
    let kgs = row("KGS-USD-timesca");
    // The rate is stale, so nobody observed whether it moved since.
    assert!(kgs.contains("+3.90 to +4.10 % during a silence, perhaps in several moves not observed"), "{kgs}");
    let nbkr = row("USD-KGS-nbkr");
    let unmoved =
        "never moved cannot tell −0.01 to +0.01 % not observed then silent since 2025-11-26 00:00:00 no quote";
    assert!(nbkr.contains(unmoved), "{nbkr}");
    // The page of the pair reports the same for its range, in both directions. From the first quote on, a change is
    // known.
    let check = async |path: &str, expect: &str| {
        let text = visible_text(&get(&server, path).await.body);
        assert!(text.contains(expect), "{path}: {text}");
    };
    check("/pair/TJS/USD?range=7d", &format!("Change over the range {silent}")).await;
    check("/pair/TJS/USD?range=7d&invert=1", &format!("Change over the range {silent}")).await;
    check("/pair/TJS/USD?range=7d", "or earlier: silent since 2025-10-29 12:00:00").await;
    check("/pair/TJS/USD?range=all", "Change over the range +8.99 % +8.97 to +9.01 %").await;
    check("/pair/TJS/USD?range=all&invert=1", "Change over the range −8.25 % −8.26 to −8.23 %").await;
    check("/pair/KGS/USD?range=7d", "Change over the range not observed").await;
    server.stop().await;
}

#[tokio::test]
async fn candles_are_labelled_with_their_length() {
    let server = TestServer::start(&[]).await;
    let ticks = [(-26, "0.01143"), (-3, "0.01144"), (-2, "0.01148"), (-1, "0.01140"), (0, "0.01145")]
        .map(|(hour, rate)| tick("KGS/USD", hour * HOUR_S, rate));
    server.store(&ticks).await;
    let page = get(&server, "/pair/KGS/USD?range=1d&candles=4h").await;
    let text = visible_text(&page.body);
    // The length is both in the visible text below the chart and in the description for screen readers.
    assert!(text.contains("USD per KGS. Candles of 4 hours each, UTC. The rate moved"), "{text}");
    let drawn = between(&page.body, "<desc id=\"text-wide\">", "</desc>");
    assert!(drawn.contains("Candles of 4 hours each, UTC."), "{drawn}");
    // Links lead to the other lengths that suit the range, and the current length is marked.
    let lengths = between(&page.body, "aria-label=\"Candle length\">", "</div>");
    assert_eq!(visible_text(lengths), "15 minutes 1 hour 4 hours");
    assert!(between(lengths, "candles=4h", "</a>").contains("aria-current"), "{lengths}");
    let links: Vec<&str> = lengths.split("href=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect();
    for link in links {
        assert_eq!(get(&server, &link.replace("&amp;", "&")).await.status, 200, "{link}");
    }
    // The table form lists candles, not steps.
    let table = |body: &str| visible_text(between(body, "<details", "</details>"));
    let data_table = table(&page.body);
    assert!(
        data_table.contains("From (UTC) Open High Low Close 2025-12-08 12:00:00 so far 0.01145 0.01145"),
        "{data_table}"
    );
    assert!(data_table.contains("2025-12-08 08:00:00 0.01143 0.01148 0.01140 0.01140"), "{data_table}");
    assert!(!data_table.contains("Lower bound"), "{data_table}");
    // In the inverse direction, high and low are swapped.
    let inverse = table(&get(&server, "/pair/KGS/USD?range=1d&candles=4h&invert=1").await.body);
    assert!(inverse.contains("2025-12-08 08:00:00 87.4891 87.7193 87.1080 87.7193"), "{inverse}");
    let steps = get(&server, "/pair/KGS/USD?range=1d").await.body;
    assert!(!steps.contains("Candle length") && table(&steps).contains("Lower bound"), "{steps}");
    server.stop().await;
}

#[tokio::test]
async fn page_announces_that_nothing_is_stored_after_a_disk_failure() {
    let broken = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&broken);
    let fault: DiskFault = Arc::new(move |operation| match operation {
        DiskOperation::Sync if switch.load(Ordering::SeqCst) => Err(io::Error::other("injected disk fault")),
        DiskOperation::Write | DiskOperation::Flush | DiskOperation::Sync => Ok(()),
    });
    let server = TestServer::start_with_fault(fault, &[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    let mut events = Events::open(&server).await;
    let before = events.until("event: beat").await.unwrap();
    assert!(!before.contains("New ticks are not stored"), "{before}");

    broken.store(true, Ordering::SeqCst);
    let request = v1::IngestTicksRequest { ticks: vec![tick("KGS/USD", 0, "0.01199")], ..Default::default() };
    server.ingest().ingest_ticks(request).await.unwrap_err();
    // Open pages receive the notice without a request, and stay connected.
    events.until("New ticks are not stored").await.unwrap();
    events.until("event: beat").await.unwrap();
    let page = visible_text(&get(&server, "/").await.body);
    assert!(page.contains("New ticks are not stored.") && page.contains("injected disk fault"), "{page}");
    assert!(page.contains("0.01144") && !page.contains("0.01199"), "{page}");
}

#[tokio::test]
async fn live_pages_beyond_their_limit_are_refused_with_retry_after() {
    // Three quarters of the limit are for one address.
    const STREAMS: usize = 6;
    let server = with_five_series_and(&["--max-live-pages", "8"]).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut events = Events::open(&server).await;
        events.until("event: hello").await.unwrap();
        streams.push(events);
    }
    let refused = get(&server, "/live").await;
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    assert_eq!(get(&server, "/").await.status, 200);

    // All streams receive a change, and a closed stream frees its slot.
    server.clock.advance_us(1_000_000);
    server.store(&[tick("KGS/USD", 1, "0.01150")]).await;
    for events in &mut streams {
        events.until("0.01150").await.unwrap();
    }
    streams.pop();
    let mut tries = 0;
    while Events::open(&server).await.until("event: hello").await.is_none() {
        tries += 1;
        assert!(tries < 1_000, "the slot is not free");
    }
    drop(streams);
    server.stop().await;
}

/// Reads an event stream.
pub(super) struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    pub(super) async fn open(server: &TestServer) -> Self {
        let mut stream = TcpStream::connect(server.http_addr).await.unwrap();
        // The connection closes after the response, so a response that is not a stream ends.
        stream.write_all(b"GET /live HTTP/1.1\r\nHost: silkrate\r\nConnection: close\r\n\r\n").await.unwrap();
        Self { stream, text: String::new() }
    }

    /// Reads until `part` and returns the text before it, or `None` if the stream ended.
    pub(super) async fn until(&mut self, part: &str) -> Option<String> {
        let mut bytes = vec![0; 16_384];
        loop {
            if let Some((_, rest)) = self.text.split_once(part) {
                let rest = rest.to_owned();
                return Some(std::mem::replace(&mut self.text, rest));
            }
            let count = timeout(TIMEOUT, self.stream.read(&mut bytes)).await.expect("an event in time").ok()?;
            if count == 0 {
                return None;
            }
            self.text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }
}

#[tokio::test]
async fn live_stream_passes_buffers_of_proxies() {
    let server = with_five_series().await;
    let head = Events::open(&server).await.until("event: hello").await.unwrap();
    let (head, comment) = head.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    for header in [
        "x-accel-buffering: no\r\n",
        "cache-control: no-cache, no-transform\r\n",
        "content-type: text/event-stream\r\n",
    ] {
        assert!(head.contains(header), "{header:?} is missing: {head}");
    }
    // The body begins with a comment of 2 KiB or more. The chunk size of the response precedes it.
    let comment = comment.split_once("\r\n").unwrap().1;
    let line = comment.split_once("\n\n").unwrap().0;
    assert!(line.starts_with(':') && line.len() >= 2_048 && !line.contains('\n'), "{} bytes: {line}", line.len());
    server.stop().await;
}

#[tokio::test]
async fn live_stream_sends_changed_rows_and_beats() {
    let server = with_five_series().await;
    let mut events = Events::open(&server).await;
    let first = events.until("event: beat").await.unwrap();
    assert!(first.contains("event: hello") && first.contains("text/event-stream"), "{first}");
    for pair in ["KGS", "KZT", "TJS", "TMT", "UZS"] {
        assert!(first.contains(&format!("r-{pair}-USD-timesca")), "{first}");
    }
    server.clock.advance_us(1_000_000);
    server.store(&[tick("KGS/USD", 1, "0.01150")]).await;
    let next = events.until("0.01150").await.unwrap();
    let rest = events.until("event: beat").await.unwrap();
    assert!(next.contains("r-KGS-USD-timesca") && next.contains("\"all\":false"), "{next}");
    assert!(!next.contains("r-TJS-USD-timesca") && !rest.contains("r-TJS-USD-timesca"), "{next}{rest}");
    // The server closes live streams when it stops.
    server.stop().await;
    assert_eq!(events.until("no such event").await, None);
}
