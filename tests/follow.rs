//! Following publishers: the bodies that they sent, served from here, and the store that comes of them.

#![allow(clippy::unwrap_used, reason = "a helper of tests that cannot go on fails the test")]

mod publisher;
mod support;

use std::sync::Arc;
use std::time::Duration;

use publisher::{Publisher, Reply};
use silkrate::clock::ManualClock;
use silkrate::domain::{SeriesKey, Timestamp};
use silkrate::follow::{FetchLimits, Fetcher, FollowContext, FollowedSource, Follower, Health, Outcome, Reach};
use silkrate::ingest::Running;
use silkrate::metrics::FollowMetrics;
use silkrate::proto::v1;
use silkrate::store::ScanOrder;
use support::TestServer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// A store with its writer, and a clock that stands.
struct Desk {
    running: Running,
    clock: Arc<ManualClock>,
    _dir: TempDir,
}

impl Desk {
    fn at(now: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(time(now)));
        let config = support::config(&dir, &[]);
        let (options, limits) = (config.store_options().clone(), config.queue_limits());
        let (running, _fan_out) = Running::open(options, limits, Arc::clone(&clock) as _).unwrap();
        Self { running, clock, _dir: dir }
    }

    fn follower(&self, source: FollowedSource, publisher: &Publisher) -> Follower {
        let context = FollowContext {
            ingest: self.running.ingest().clone(),
            rules: Arc::default(),
            clock: Arc::clone(&self.clock) as _,
            metrics: FollowMetrics::default(),
            seed: 7,
        };
        let limits = FetchLimits { read: Duration::from_millis(500), ..FetchLimits::default() };
        let fetcher = Fetcher::new(Reach::Any, limits).unwrap();
        Follower::new(source, &publisher.base_url, fetcher, context)
    }

    /// Every run there is: pair, source, first and last observed time, observations and rate.
    fn runs(&self) -> Vec<String> {
        let view = self.running.ingest().view();
        let mut lines = Vec::new();
        for series in view.series() {
            let runs = series.runs(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX, ScanOrder::Ascending).unwrap();
            for run in runs.flat_map(Result::unwrap) {
                let (first, last) = (run.first_observed_time, run.last_observed_time);
                let SeriesKey { pair, source } = series.key();
                lines.push(format!("{pair} {source} {first} {last} {} {}", run.observation_count, run.value.rate));
            }
        }
        lines
    }

    fn close(self) {
        self.running.close().unwrap();
    }
}

const TICKER: &str = "/";
const TICKER_PAGE: &[u8] = include_bytes!("../data/times-of-central-asia-2025-12-08.html");

/// What the banks sent in spring 2026, by path.
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
        // It answers with another day's table for one that it lacks.
        path if path.starts_with("/en/kurs/") && path.contains("2026-05-18") => {
            Reply::recorded("nbt/export-2026-05-18.xml")
        }
        path if path.starts_with("/en/kurs/") => Reply::recorded("nbt/export-2026-05-19.xml"),
        _ => Reply::ABSENT,
    }
}

/// A page whose som slipped by two digits for a while, and a poll after it.
#[tokio::test]
async fn a_slip_on_a_followed_page_is_held_and_the_feed_stays_well() {
    let polls = std::sync::atomic::AtomicUsize::new(0);
    let publisher = Publisher::start(move |_| {
        let slips = polls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1;
        let page = String::from_utf8(TICKER_PAGE.to_vec()).unwrap();
        Reply::Body(if slips { page.replace("0.01144", "1.144") } else { page }.into_bytes())
    })
    .await;
    let desk = Desk::at("2025-12-08T09:30:00Z");
    let mut follower = desk.follower(FollowedSource::Timesca, &publisher);
    for _ in 0..3 {
        assert_eq!((follower.poll().await, follower.health()), (Outcome::Taken, Some(Health::Ok)));
        desk.clock.advance_us(60 * Timestamp::SECOND_US);
    }
    let som = desk.runs().into_iter().find(|run| run.starts_with("KGS/USD")).unwrap();
    assert_eq!(som, "KGS/USD timesca 2025-12-08T09:30:00Z 2025-12-08T09:32:00Z 2 0.01144");
    let view = desk.running.ingest().view();
    let held: Vec<String> = view.quarantine().after(0).map(|tick| tick.value.rate.to_string()).collect();
    assert_eq!(held, ["1.144"]);
    desk.close();
}

#[tokio::test]
async fn every_source_is_taken_in_and_not_asked_for_the_same_body_twice() {
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
        let desk = Desk::at(now);
        let mut follower = desk.follower(source, &publisher);
        assert_eq!(follower.health(), None);
        assert_eq!((follower.poll().await, follower.health()), (Outcome::Taken, Some(Health::Ok)), "{source}");
        let asked = publisher.asked();
        desk.clock.advance_us(60 * Timestamp::SECOND_US);
        assert_eq!((follower.poll().await, follower.health()), (Outcome::Unchanged, Some(Health::Ok)), "{source}");
        let again = publisher.asked().split_off(asked.len());
        assert_eq!(again, asked.iter().map(|path| format!("304 {path}")).collect::<Vec<_>>(), "{source}");
        let runs = desk.runs();
        for line in expect {
            assert!(runs.iter().any(|run| run == line), "{source}: no '{line}' in {runs:#?}");
        }
        desk.close();
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_told_apart_and_disturbs_nothing() {
    let cbu = |day: &'static str| move |path: &str| path.contains(day);
    let page = || Reply::Body(b"<!DOCTYPE html><html><title>Down for maintenance</title></html>".to_vec());
    let today = cbu("2026-04-02");
    for (fault, outcome, health, wait_s) in [
        (Reply::ABSENT, Outcome::Silent, Health::Silent, None),
        // The table of another day.
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
        let said = format!("{fault:.60?}");
        let publisher = Publisher::start(move |path| if today(path) { fault.clone() } else { spring(path) }).await;
        let desk = Desk::at("2026-04-01T08:00:00Z");
        let mut follower = desk.follower(FollowedSource::Cbu, &publisher);
        // The day before, it is what is said of tomorrow's table, which counts only if it asks for patience.
        let expect = if wait_s == Some(900) { outcome } else { Outcome::Taken };
        assert_eq!(follower.poll().await, expect, "{said}");
        let runs = desk.runs();
        assert_eq!(runs.len(), 5, "{said}: {runs:?}");
        desk.clock.set(time("2026-04-02T08:00:00Z"));
        // As if it were the first failure.
        let mut follower = desk.follower(FollowedSource::Cbu, &publisher);
        assert_eq!((follower.poll().await, follower.health()), (outcome, Some(health)), "{said}");
        assert_eq!(desk.runs(), runs, "{said}");
        let wait_us = follower.next_poll().micros_since(time("2026-04-02T08:00:00Z"));
        let least_us = wait_s.unwrap_or(3_600) * Timestamp::SECOND_US;
        assert!((least_us..=least_us + least_us / 8).contains(&wait_us), "{said}: {wait_us}");
        desk.close();
    }
}

/// Polls whenever it is time until `end`, and gives how often and how each ended.
async fn follow_until(desk: &Desk, followers: &mut [Follower], end: Timestamp) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    loop {
        let next = followers.iter_mut().min_by_key(|follower| follower.next_poll()).unwrap();
        if next.next_poll() >= end {
            return outcomes;
        }
        desk.clock.set(next.next_poll());
        outcomes.push(next.poll().await);
    }
}

/// A table of NBT for a day, whose rates move from day to day; none on the seventh.
fn made_table(path: &str) -> Reply {
    let day = path.split("date=").nth(1).and_then(|rest| rest.get(..10)).unwrap();
    let number: u32 = day[8..].parse().unwrap();
    if number.is_multiple_of(7) {
        return Reply::ABSENT;
    }
    let entry = |code: &str, rate: u32| {
        format!("<Valute><CharCode>{code}</CharCode><Nominal>1</Nominal><Value>9.{rate:04}</Value></Valute>")
    };
    let entries = entry("USD", 3_000 + number) + &entry("KZT", 100 + number / 3);
    Reply::Body(format!("<ValCurs Date='{day}'>{entries}</ValCurs>").into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_with_faults_ends_in_the_store_of_a_month_without() {
    let (begin, end) = ("2026-05-01T00:00:00Z", time("2026-05-31T00:00:00Z"));
    let clean = Publisher::start(made_table).await;
    let calm = Desk::at(begin);
    let outcomes = follow_until(&calm, &mut [calm.follower(FollowedSource::Nbt, &clean)], end).await;
    assert!(outcomes.len() > 30 * 20, "{} polls", outcomes.len());
    assert!(outcomes.contains(&Outcome::Silent) && outcomes.iter().all(|outcome| *outcome <= Outcome::Silent));
    let not_modified = clean.asked().iter().filter(|path| path.starts_with("304")).count();
    assert!(not_modified > clean.asked().len() / 2, "{not_modified}");

    // Two requests of three fail, each in a way of its own.
    let count = std::sync::atomic::AtomicUsize::new(0);
    let troubled = Publisher::start(move |path| {
        let count = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let good = made_table(path);
        match (count % 9, good) {
            (0, _) => Reply::Status("503 Service Unavailable", "Retry-After: 1800\r\n"),
            (1, Reply::Body(body)) => Reply::Cut(body),
            (2, Reply::Body(body)) => Reply::Body(body[..body.len() - 9].to_vec()),
            (3, _) => Reply::Body(b"<html>Error 500</html>".to_vec()),
            (4, _) => Reply::Status("403 Forbidden", ""),
            (5, _) => made_table("date=2026-05-01&"),
            (_, good) => good,
        }
    })
    .await;
    let stormy = Desk::at(begin);
    let outcomes = follow_until(&stormy, &mut [stormy.follower(FollowedSource::Nbt, &troubled)], end).await;
    for seen in [Outcome::Unreachable, Outcome::Refused, Outcome::Taken] {
        assert!(outcomes.contains(&seen), "{seen:?}");
    }
    let runs = calm.runs();
    assert!(runs.len() > 30, "{runs:?}");
    assert_eq!(stormy.runs(), runs);
    calm.close();
    stormy.close();
}

/// What is counted, once the second poll of the ticker is.
async fn metrics(server: &TestServer) -> String {
    let mut text = String::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(server.http_addr).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        text.clear();
        stream.read_to_string(&mut text).await.unwrap();
        if text.contains("outcome=\"unchanged\"") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    text
}

#[tokio::test]
async fn a_server_follows_and_one_dead_publisher_harms_no_other() {
    let dead = Publisher::start(|_| Reply::Hang).await;
    let alive = Publisher::start(spring).await;
    let urls = format!("cbu={},timesca={}", dead.base_url, alive.base_url);
    let server = TestServer::start(&["--follow", "timesca,cbu", "--feed-url", &urls]).await;
    let request = || v1::GetLatestRatesRequest { sources: vec!["timesca".to_owned()], ..Default::default() };
    let mut quotes = Vec::new();
    for _ in 0..200 {
        quotes = server.rates().get_latest_rates(request()).await.unwrap().into_inner().rates;
        if !quotes.is_empty() && !dead.asked().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(quotes.len(), 5, "{quotes:?}");
    assert_eq!(dead.asked().len(), 1);
    // The clock stands, and so does the plan.
    let asked = alive.asked().len();
    server.clock.advance_us(68 * Timestamp::SECOND_US);
    for _ in 0..200 {
        if alive.asked().len() > asked {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(alive.asked()[asked..], ["304 /"]);
    let text = metrics(&server).await;
    for sample in [
        "silkrate_feed_polls_total{outcome=\"taken\",source=\"timesca\"} 1",
        "silkrate_feed_polls_total{outcome=\"unchanged\",source=\"timesca\"} 1",
        "silkrate_feed_last_success_timestamp_seconds{source=\"timesca\"} 1765195268",
    ] {
        assert!(text.lines().any(|line| line == sample), "no '{sample}' in:\n{text}");
    }
    assert!(!text.contains("source=\"cbu\""), "{text}");
    // Stopping does not wait for who hangs.
    server.stop().await;
}
