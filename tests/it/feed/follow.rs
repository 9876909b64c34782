//! Following publishers: recorded responses are served locally, and the resulting store is checked.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use silkrate::domain::Timestamp;
use silkrate::follow::{FollowedSource, Health, Outcome};
use silkrate::proto::v1;
use silkrate::store::Quarantine;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::feed::fixture::{Fixture, time};
use crate::publisher;
use crate::publisher::{Publisher, Reply};
use crate::support::TestServer;

const TICKER: &str = "/";
const TICKER_PAGE: &[u8] = include_bytes!("../../../data/times-of-central-asia-2025-12-08.html");

/// Replies with what the banks sent in spring 2026, by path.
fn spring(path: &str) -> Reply {
    match path {
        TICKER => Reply::Body(TICKER_PAGE.to_vec()),
        "/XML/daily.xml" => Reply::recorded("nbkr/daily-2026-05-23.xml"),
        "/XML/weekly.xml" => Reply::recorded("nbkr/weekly-2026-05-23.xml"),
        "/rss/get_rates.cfm?fdate=01.04.2026" => Reply::recorded("nbk/get_rates-2026-04-01.xml"),
        "/rss/get_rates.cfm?fdate=02.04.2026" => Reply::recorded("nbk/get_rates-2026-04-02.xml"),
        "/en/arkhiv-kursov-valyut/json/all/2026-04-01/" => Reply::recorded("cbu/json-all-2026-04-01.json"),
        "/en/arkhiv-kursov-valyut/json/all/2026-04-02/" => Reply::recorded("cbu/json-all-2026-04-02.json"),
        "/kurs/2026/20052026.xml" => Reply::recorded("cbt/20052026.xml"),
        "/kurs/2026/21052026.xml" => Reply::recorded("cbt/21052026.xml"),
        // NBT serves the table of another day if it has none for the requested day.
        path if path.starts_with("/en/kurs/") && path.contains("2026-05-18") => {
            Reply::recorded("nbt/export-2026-05-18.xml")
        }
        path if path.starts_with("/en/kurs/") => Reply::recorded("nbt/export-2026-05-19.xml"),
        _ => Reply::ABSENT,
    }
}

/// A page with a KGS rate that is shifted by two digits in one of three polls.
#[tokio::test]
async fn outlier_on_a_followed_page_is_held_and_feed_health_stays_ok() {
    let polls = AtomicUsize::new(0);
    let publisher = Publisher::start(move |_| {
        let is_shifted = polls.fetch_add(1, Ordering::SeqCst) == 1;
        let page = String::from_utf8(TICKER_PAGE.to_vec()).unwrap();
        Reply::Body(if is_shifted { page.replace("0.01144", "1.144") } else { page }.into_bytes())
    })
    .await;
    let fixture = Fixture::at("2025-12-08T09:30:00Z");
    let mut follower = fixture.follower(FollowedSource::Timesca, &publisher);
    for _ in 0..3 {
        assert_eq!((follower.poll().await, follower.health()), (Outcome::Taken, Some(Health::Ok)));
        fixture.clock.advance_us(60 * Timestamp::SECOND_US);
    }
    let som = fixture.runs().into_iter().find(|run| run.starts_with("KGS/USD")).unwrap();
    assert_eq!(som, "KGS/USD timesca 2025-12-08T09:30:00Z 2025-12-08T09:32:00Z 2 0.01144");
    let view = fixture.running.ingest().view();
    let held: Vec<String> = view.quarantine().after(0).map(|tick| tick.value.rate.to_string()).collect();
    assert_eq!(held, ["1.144"]);
    fixture.close();
}

/// A KGS rate that stays shifted until the limit of held ticks is reached.
#[tokio::test]
async fn feed_is_refused_if_the_quarantine_is_full() {
    let page = String::from_utf8(TICKER_PAGE.to_vec()).unwrap();
    let shifted_page = page.replace("0.01144", "1.144").into_bytes();
    let good = AtomicBool::new(true);
    let publisher = Publisher::start(move |_| {
        let is_good = good.swap(false, Ordering::SeqCst);
        Reply::Body(if is_good { TICKER_PAGE.to_vec() } else { shifted_page.clone() })
    })
    .await;
    let fixture = Fixture::at("2025-12-08T09:30:00Z");
    let mut follower = fixture.follower(FollowedSource::Timesca, &publisher);
    follower.poll().await;
    let held = || fixture.running.ingest().view().quarantine().held_count();
    for count in 1..=Quarantine::SERIES_HELD_MAX {
        fixture.clock.advance_us(Timestamp::SECOND_US);
        assert_ne!(follower.poll().await, Outcome::Refused);
        assert_eq!(held(), count);
    }
    fixture.clock.advance_us(Timestamp::SECOND_US);
    assert_eq!((follower.poll().await, follower.health()), (Outcome::Refused, Some(Health::Refused)));
    assert_eq!(held(), Quarantine::SERIES_HELD_MAX);
    // The other rates of the page are still stored.
    let tenge = fixture.runs().into_iter().find(|run| run.starts_with("KZT/USD")).unwrap();
    assert!(tenge.ends_with(" 1002 0.00196"), "{tenge}");
    fixture.close();
}

#[tokio::test]
async fn every_source_is_stored_and_polled_conditionally() {
    for (source, now, expect) in [
        (
            FollowedSource::Timesca,
            "2025-12-08T09:30:00Z",
            ["KGS/USD timesca 2025-12-08T09:30:00Z 2025-12-08T09:31:00Z 2 0.01144"].as_slice(),
        ),
        (
            FollowedSource::Nbkr,
            "2026-05-22T12:00:00Z",
            &["USD/KGS nbkr 2026-05-22T18:00:00Z 2026-05-22T18:00:00Z 1 87.4500"],
        ),
        (
            FollowedSource::Nbk,
            "2026-04-01T12:00:00Z",
            &["UZS/KZT nbk 2026-03-31T19:00:00Z 2026-03-31T19:00:00Z 1 0.0393"],
        ),
        (
            FollowedSource::Nbt,
            "2026-05-18T08:00:00Z",
            &["UZS/TJS nbt 2026-05-17T19:00:00Z 2026-05-17T19:00:00Z 1 0.000780"],
        ),
        (
            FollowedSource::Cbu,
            "2026-04-01T12:00:00Z",
            &["USD/UZS cbu 2026-03-31T19:00:00Z 2026-03-31T19:00:00Z 1 12194.21"],
        ),
        (
            FollowedSource::Cbt,
            "2026-05-20T12:00:00Z",
            &["USD/TMT cbt 2026-05-19T19:00:00Z 2026-05-20T19:00:00Z 2 3.5000"],
        ),
    ] {
        let publisher = Publisher::start(spring).await;
        let fixture = Fixture::at(now);
        let mut follower = fixture.follower(source, &publisher);
        assert_eq!(follower.health(), None);
        assert_eq!((follower.poll().await, follower.health()), (Outcome::Taken, Some(Health::Ok)), "{source}");
        let first_requests = publisher.requests();
        fixture.clock.advance_us(60 * Timestamp::SECOND_US);
        assert_eq!((follower.poll().await, follower.health()), (Outcome::Unchanged, Some(Health::Ok)), "{source}");
        let again = publisher.requests().split_off(first_requests.len());
        assert_eq!(again, first_requests.iter().map(|path| format!("304 {path}")).collect::<Vec<_>>(), "{source}");
        let runs = fixture.runs();
        for line in expect {
            assert!(runs.iter().any(|run| run == line), "{source}: no '{line}' in {runs:#?}");
        }
        fixture.close();
    }
}

#[tokio::test]
async fn unreadable_table_sets_the_health_and_stores_nothing() {
    let cbu = |day: &'static str| move |path: &str| path.contains(day);
    let page = || Reply::Body(b"<!DOCTYPE html><html><title>Down for maintenance</title></html>".to_vec());
    let today = cbu("2026-04-02");
    for (fault, outcome, health, wait_s) in [
        (Reply::ABSENT, Outcome::Silent, Health::Silent, None),
        // A table of another day.
        (Reply::recorded("cbu/json-all-2026-04-01.json"), Outcome::Silent, Health::Silent, None),
        (Reply::Body(Vec::new()), Outcome::Silent, Health::Silent, None),
        (page(), Outcome::Refused, Health::Refused, Some(60)),
        (Reply::Body(b"{\"code\":500}".to_vec()), Outcome::Refused, Health::Refused, Some(60)),
        (Reply::Status("403 Forbidden", ""), Outcome::Refused, Health::Refused, Some(60)),
        (Reply::Status("429 Too Many Requests", "Retry-After: 900\r\n"), Outcome::Refused, Health::Refused, Some(900)),
        (Reply::Status("302 Found", "Location: http://example.org/\r\n"), Outcome::Refused, Health::Refused, Some(60)),
        (Reply::Status("500 Internal Server Error", ""), Outcome::Unreachable, Health::Unreachable, Some(60)),
        (
            Reply::Cut(publisher::recorded("cbu/json-all-2026-04-02.json")),
            Outcome::Unreachable,
            Health::Unreachable,
            Some(60),
        ),
        (Reply::Hang, Outcome::Unreachable, Health::Unreachable, Some(60)),
    ] {
        let case = format!("{fault:.60?}");
        let publisher = Publisher::start(move |path| if today(path) { fault.clone() } else { spring(path) }).await;
        let fixture = Fixture::at("2026-04-01T08:00:00Z");
        let mut follower = fixture.follower(FollowedSource::Cbu, &publisher);
        // On 1 April the publisher sends the fault for the table of 2 April. The reply for the table of tomorrow does
        // not affect the health of the feed.
        assert_eq!((follower.poll().await, follower.health()), (Outcome::Taken, Some(Health::Ok)), "{case}");
        let runs = fixture.runs();
        assert_eq!(runs.len(), 5, "{case}: {runs:?}");
        fixture.clock.set(time("2026-04-02T08:00:00Z"));
        // A new follower has no earlier failure, so its wait is the shortest.
        let mut follower = fixture.follower(FollowedSource::Cbu, &publisher);
        assert_eq!((follower.poll().await, follower.health()), (outcome, Some(health)), "{case}");
        assert_eq!(fixture.runs(), runs, "{case}");
        let wait_us = follower.next_poll().micros_since(time("2026-04-02T08:00:00Z"));
        let least_us = wait_s.unwrap_or(3_600) * Timestamp::SECOND_US;
        assert!((least_us..=least_us + least_us / 8).contains(&wait_us), "{case}: {wait_us}");
        fixture.close();
    }
}

/// NBT serves today's table for tomorrow, and still serves it on the next day.
#[tokio::test]
async fn feed_that_still_serves_the_table_of_yesterday_is_silent() {
    let publisher = Publisher::start(|_| Reply::recorded("nbt/export-2026-05-18.xml")).await;
    let fixture = Fixture::at("2026-05-18T08:00:00Z");
    let mut follower = fixture.follower(FollowedSource::Nbt, &publisher);
    assert_eq!((follower.poll().await, follower.health()), (Outcome::Taken, Some(Health::Ok)));
    fixture.clock.set(time("2026-05-19T08:00:00Z"));
    assert_eq!((follower.poll().await, follower.health()), (Outcome::Silent, Some(Health::Silent)));
    fixture.close();
}

/// Each poll sends up to two requests, for today's and tomorrow's table.
#[tokio::test]
async fn retry_after_is_respected_for_either_request_of_a_poll() {
    let too_many = || Reply::Status("429 Too Many Requests", "Retry-After: 7200\r\n");
    let late = |status| Reply::Status(status, "Retry-After: 7200\r\n");
    let forbidden = || Reply::Status("403 Forbidden", "");
    let table = || Reply::recorded("cbu/json-all-2026-04-02.json");
    let (refused, silent) = ((Outcome::Refused, Health::Refused), (Outcome::Silent, Health::Silent));
    for (today, tomorrow, request_count, (outcome, health), wait_s) in [
        (too_many(), Reply::Body(b"[]".to_vec()), 1, refused, 7_200),
        (forbidden(), too_many(), 2, refused, 7_200),
        (forbidden(), forbidden(), 2, refused, 60),
        (late("404 Not Found"), Reply::ABSENT, 1, silent, 7_200),
        (late("410 Gone"), Reply::ABSENT, 1, silent, 7_200),
        // A feed with today's table is healthy, whatever the reply for tomorrow's table.
        (table(), too_many(), 2, (Outcome::Taken, Health::Ok), 7_200),
        (table(), late("404 Not Found"), 2, (Outcome::Taken, Health::Ok), 7_200),
    ] {
        let case = format!("{today:?}, {tomorrow:?}");
        let publisher =
            Publisher::start(move |path| if path.contains("2026-04-02") { today.clone() } else { tomorrow.clone() })
                .await;
        let fixture = Fixture::at("2026-04-02T08:00:00Z");
        let mut follower = fixture.follower(FollowedSource::Cbu, &publisher);
        assert_eq!((follower.poll().await, follower.health()), (outcome, Some(health)), "{case}");
        assert_eq!(publisher.requests().len(), request_count, "{case}");
        let wait_us = follower.next_poll().micros_since(time("2026-04-02T08:00:00Z"));
        let least_us = wait_s * Timestamp::SECOND_US;
        assert!((least_us..=least_us + least_us / 8).contains(&wait_us), "{case}: {wait_us}");
        fixture.close();
    }
}

thread_local! {
    /// The log output of this thread.
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A writer to [`LOGGED`]. Each test runs on its own thread. The subscriber is global, because a subscriber for one
/// thread can miss the events of code that another thread has run before.
struct ThreadLog;

impl io::Write for ThreadLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the log lines since the last call, without their times.
fn logged() -> Vec<String> {
    let bytes = LOGGED.take();
    String::from_utf8(bytes).unwrap().lines().map(|line| line.trim().to_owned()).collect()
}

#[tokio::test]
async fn only_changes_of_health_are_logged() {
    let reply = Arc::new(Mutex::new(Reply::ABSENT));
    let current = Arc::clone(&reply);
    let publisher =
        Publisher::start(
            move |path| {
                if path.contains("2026-04-01") { current.lock().unwrap().clone() } else { Reply::ABSENT }
            },
        )
        .await;
    let fixture = Fixture::at("2026-04-01T08:00:00Z");
    let mut follower = fixture.follower(FollowedSource::Cbu, &publisher);
    let lines = tracing_subscriber::fmt().with_writer(|| ThreadLog).without_time().with_ansi(false).with_target(false);
    tracing::subscriber::set_global_default(lines.finish()).unwrap();
    let table = || Reply::recorded("cbu/json-all-2026-04-01.json");
    let status = |status| Reply::Status(status, "");
    for (now, expect) in [
        (table(), "INFO feed cbu is ok: 5 new runs, 0 confirmed"),
        (table(), ""),
        (status("503 Service Unavailable"), "WARN feed cbu is unreachable: 127.0.0.1 answered 503 Service Unavailable"),
        (status("500 Internal Server Error"), ""),
        (status("403 Forbidden"), "WARN feed cbu is refused: 127.0.0.1 answered 403 Forbidden"),
        (Reply::Body(b"<html>".to_vec()), ""),
        (Reply::ABSENT, "INFO feed cbu is silent: 127.0.0.1 answered 404 Not Found"),
        (Reply::Body(Vec::new()), ""),
        (table(), "INFO feed cbu is ok: nothing new"),
    ] {
        *reply.lock().unwrap() = now;
        follower.poll().await;
        let expect: Vec<&str> = (!expect.is_empty()).then_some(expect).into_iter().collect();
        assert_eq!(logged(), expect);
    }
    fixture.close();
}

/// Returns the ticker page with this text in place of its date.
fn page_with(text: &str) -> Vec<u8> {
    let page = std::str::from_utf8(TICKER_PAGE).unwrap();
    assert!(page.contains("08 December 2025"));
    page.replace("08 December 2025", text).into_bytes()
}

#[tokio::test]
async fn invalid_ticker_page_sets_the_health_and_stores_nothing() {
    const BOMB: &str = "<!DOCTYPE html [<!ENTITY a \"KGS/USD = 9.99999 +1%\"><!ENTITY b \"&a;&a;&a;&a;\">]><p>&b;</p>";
    let utf16 = || String::from_utf8(TICKER_PAGE.to_vec()).unwrap().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let web_page = || b"<!DOCTYPE html><html><title>502 Bad Gateway, 3.5%</title></html>".to_vec();
    let moved = |to: &str| Reply::Redirect(to.to_owned());
    let (silent, refused) = ((Outcome::Silent, Health::Silent), (Outcome::Refused, Health::Refused));
    let unreachable = (Outcome::Unreachable, Health::Unreachable);
    for (fault, (outcome, health), wait_s) in [
        (Reply::Body(web_page()), silent, 60),
        (Reply::Body(Vec::new()), silent, 60),
        // A table, and XML entities that would expand to quotes.
        (Reply::recorded("nbkr/daily-2026-05-23.xml"), silent, 60),
        (Reply::Body(BOMB.as_bytes().to_vec()), silent, 60),
        (Reply::Body(utf16()), refused, 60),
        (Reply::Body(page_with("\u{0}")), refused, 60),
        (Reply::Body([TICKER_PAGE, b"\xf1"].concat()), refused, 60),
        (Reply::Body(vec![b' '; 4 * 1024 * 1024 + 1]), refused, 60),
        (Reply::Long(TICKER_PAGE.to_vec()), refused, 60),
        // Unlike a table, the page always exists.
        (Reply::ABSENT, refused, 60),
        (Reply::Status("403 Forbidden", ""), refused, 60),
        (Reply::Status("429 Too Many Requests", "Retry-After: 900\r\n"), refused, 900),
        (moved("http://example.org/"), refused, 60),
        (moved("http://10.0.0.1/"), refused, 60),
        (Reply::Status("503 Service Unavailable", "Retry-After: 900\r\n"), unreachable, 900),
        (Reply::Cut(TICKER_PAGE.to_vec()), unreachable, 60),
        (Reply::Hang, unreachable, 60),
    ] {
        let case = format!("{fault:.60?}");
        let is_faulty = Arc::new(AtomicBool::new(false));
        let switch = Arc::clone(&is_faulty);
        let reply = move |path: &str| if switch.load(Ordering::SeqCst) { fault.clone() } else { spring(path) };
        let publisher = Publisher::start(reply).await;
        let fixture = Fixture::at("2025-12-08T09:30:00Z");
        let mut follower = fixture.follower(FollowedSource::Timesca, &publisher);
        assert_eq!(follower.poll().await, Outcome::Taken, "{case}");
        let runs = fixture.runs();
        is_faulty.store(true, Ordering::SeqCst);
        fixture.clock.set(time("2025-12-08T09:31:00Z"));
        assert_eq!((follower.poll().await, follower.health()), (outcome, Some(health)), "{case}");
        assert_eq!(fixture.runs(), runs, "{case}");
        let wait_us = follower.next_poll().micros_since(time("2025-12-08T09:31:00Z"));
        let least_us = wait_s * Timestamp::SECOND_US;
        assert!((least_us..=least_us + least_us / 8).contains(&wait_us), "{case}: {wait_us}");
        // The next correct page is stored as usual.
        is_faulty.store(false, Ordering::SeqCst);
        fixture.clock.set(time("2025-12-08T09:50:00Z"));
        let next = follower.poll().await;
        assert!(matches!(next, Outcome::Taken | Outcome::Unchanged), "{case}: {next:?}");
        assert!(
            fixture.runs().iter().all(|run| run.contains(" 2025-12-08T09:50:00Z 2 ")),
            "{case}: {:?}",
            fixture.runs()
        );
        fixture.close();
    }
}

/// The body may have a byte order mark or print an old date: the observed time is the time of the request.
#[tokio::test]
async fn observed_time_of_the_ticker_page_is_the_request_time() {
    for body in [[b"\xef\xbb\xbf", TICKER_PAGE].concat(), page_with("01 January 2020")] {
        let publisher = Publisher::start(move |_| Reply::Body(body.clone())).await;
        let fixture = Fixture::at("2025-12-09T09:30:00Z");
        let mut follower = fixture.follower(FollowedSource::Timesca, &publisher);
        assert_eq!((follower.poll().await, follower.health()), (Outcome::Taken, Some(Health::Ok)));
        let runs = fixture.runs();
        assert_eq!(runs.len(), 5);
        assert!(runs.iter().all(|run| run.contains(" 2025-12-09T09:30:00Z 1 ")), "{runs:?}");
        fixture.close();
    }
}

/// Returns the metrics as soon as they have a line with this prefix.
async fn metrics(server: &TestServer, line: &str) -> String {
    let mut text = String::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(server.http_addr).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        text.clear();
        stream.read_to_string(&mut text).await.unwrap();
        if text.lines().any(|found| found.starts_with(line)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    text
}

#[tokio::test]
async fn unreachable_publisher_does_not_affect_other_feeds() {
    let unreachable = Publisher::start(|_| Reply::Hang).await;
    let reachable = Publisher::start(spring).await;
    let urls = format!("cbu={},timesca={}", unreachable.base_url, reachable.base_url);
    let server = TestServer::start(&["--follow", "timesca,cbu", "--feed-url", &urls]).await;
    let request = || v1::GetLatestRatesRequest { sources: vec!["timesca".to_owned()], ..Default::default() };
    let mut quotes = Vec::new();
    for _ in 0..200 {
        quotes = server.rates().get_latest_rates(request()).await.unwrap().into_inner().rates;
        if !quotes.is_empty() && !unreachable.requests().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(quotes.len(), 5, "{quotes:?}");
    assert_eq!(unreachable.requests().len(), 1);
    // The clock stands still, so no poll is due until the test advances the clock.
    let before = reachable.requests().len();
    server.clock.advance_us(68 * Timestamp::SECOND_US);
    for _ in 0..200 {
        if reachable.requests().len() > before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(reachable.requests()[before..], ["304 /"]);
    let text = metrics(&server, "silkrate_feed_last_success_timestamp_seconds{source=\"timesca\"} 1765195268").await;
    for sample in [
        "silkrate_feed_polls_total{outcome=\"taken\",source=\"timesca\"} 1",
        "silkrate_feed_polls_total{outcome=\"unchanged\",source=\"timesca\"} 1",
        "silkrate_feed_last_success_timestamp_seconds{source=\"timesca\"} 1765195268",
    ] {
        assert!(text.lines().any(|line| line == sample), "no '{sample}' in:\n{text}");
    }
    assert!(!text.lines().any(|line| line.starts_with("silkrate_feed_") && line.contains("source=\"cbu\"")), "{text}");
    // The shutdown does not wait for a publisher that hangs.
    server.stop().await;
}
