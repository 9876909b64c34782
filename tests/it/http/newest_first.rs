//! Lists with the newest rows first: the pages together are the list in reverse.

use silkrate::proto::v1;

use crate::http::compare::ticker_and_market;
use crate::support::{TestServer, tick};
use crate::web::get;

fn bank_tick(source: &str, seconds: i64, rate: &str) -> v1::Tick {
    v1::Tick { source: source.to_owned(), ..tick("USD/UZS", seconds, rate) }
}

/// Starts a server with history of two sources, revisions of KGS/USD, and held ticks of two sources.
async fn server() -> TestServer {
    let server = ticker_and_market().await;
    for (at, rate) in (0_i64..).zip(["0.01151", "0.01152", "0.01153"]) {
        let ticks: Vec<v1::Tick> =
            (0..5).map(|number| tick("KGS/USD", number * 60 - 86_400 * (number % 3), rate)).collect();
        server.clock.advance_us(1_000_000 * (at + 1));
        let policy = v1::ConflictPolicy::Revise.into();
        let request = v1::IngestTicksRequest { ticks, conflict_policy: policy, ..Default::default() };
        assert_eq!(server.ingest().ingest_ticks(request).await.unwrap().into_inner().refusals, []);
    }
    for source in ["cbu", "nbt"] {
        let held = (0..4).map(|number| bank_tick(source, number - 90, "1000"));
        let ticks = std::iter::once(bank_tick(source, -100, "10")).chain(held).collect();
        let request = v1::IngestTicksRequest { ticks, ..Default::default() };
        server.ingest().ingest_ticks(request).await.unwrap();
    }
    server
}

/// Returns the rows of all pages of a list. Between the pages, later ticks arrive and time passes.
async fn rows(server: &TestServer, target: &str, name: &str) -> Vec<serde_json::Value> {
    let (mut found, mut token) = (Vec::new(), String::new());
    for page in 0..1_000 {
        let response = get(server.http_addr, &format!("{target}&page_token={token}")).await.json();
        let rows = response[name].as_array().unwrap_or_else(|| panic!("{target}: {response}"));
        found.extend(rows.iter().cloned());
        token = response["next_page_token"].as_str().unwrap().to_owned();
        if token.is_empty() {
            return found;
        }
        if page < 2 {
            server.clock.advance_us(1_000);
            server.store(&[tick("KZT/USD", 1, "0.0019")]).await;
        }
    }
    panic!("{target} does not end");
}

#[tokio::test]
async fn every_list_has_its_newest_rows_first_on_request() {
    let server = server().await;
    let lists = [
        ("/v1/history?pair=KGS/USD&source=timesca", "runs", 12),
        ("/v1/history?pair=KGS/USD&source=timesca&start_time=2024-10-01&end_time=2025-11-01", "runs", 3),
        ("/v1/revisions?pair=KGS/USD&source=timesca", "revisions", 4),
        ("/v1/candles?pair=KGS/USD&source=timesca&interval=1d", "candles", 12),
        ("/v1/candles?pair=KGS/USD&interval=1d&fill_empty=true&count_observations=true", "candles", 400),
        ("/v1/candles?pair=USD/KGS&source=timesca&interval=1w", "candles", 10),
        ("/v1/candles?pair=KGS/KZT&source=timesca&interval=1mo&count_observations=true", "candles", 4),
        ("/v1/candles?pair=KGS/KZT&source=timesca&interval=1d&start_time=2025-01-01&end_time=2025-12-01", "candles", 2),
        ("/v1/changes?pair=KGS/USD&period=day", "changes", 400),
        ("/v1/changes?pair=KGS/KZT&source=timesca&period=month&time_zone=Asia/Bishkek", "changes", 14),
        ("/v1/changes?pair=KGS/USD&period=ytd&start_time=2025-11-20", "changes", 15),
        ("/v1/compare?pair=KGS/USD&sources=timesca,fawazahmed0", "days", 100),
        ("/v1/compare?pair=KGS/USD&sources=timesca,fawazahmed0&last_days=20", "days", 20),
        ("/v1/quarantine?time_zone=", "ticks", 8),
    ];
    for (list, name, at_least) in lists {
        let list = list.replace("?time_zone=", "?");
        let mut expect = rows(&server, &format!("{list}&page_size=2000"), name).await;
        assert!(expect.len() >= at_least, "{list}: {}", expect.len());
        expect.reverse();
        for page_size in [1, 3, 7, 2_000] {
            if page_size < 7 && expect.len() > 100 {
                continue;
            }
            let found = rows(&server, &format!("{list}&descending=true&page_size={page_size}"), name).await;
            assert!(found == expect, "{list} with pages of {page_size}: {found:?}");
        }
    }
}

#[tokio::test]
async fn newest_gaps_come_first_across_all_series() {
    let server = server().await;
    let newest = get(server.http_addr, "/v1/gaps?descending=true&page_size=5").await.json();
    let starts: Vec<&str> =
        newest["gaps"].as_array().unwrap().iter().map(|gap| gap["start_time"].as_str().unwrap()).collect();
    let all = rows(&server, "/v1/gaps?page_size=10000", "gaps").await;
    let mut expect: Vec<&str> = all.iter().map(|gap| gap["start_time"].as_str().unwrap()).collect();
    expect.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(starts, expect[..5]);
    let pages = rows(&server, "/v1/gaps?descending=true&page_size=7", "gaps").await;
    assert_eq!(pages.len(), all.len());
}

#[tokio::test]
async fn summary_of_a_comparison_does_not_depend_on_the_order() {
    let server = server().await;
    let list = "/v1/compare?pair=KGS/USD&sources=timesca,fawazahmed0&page_size=5";
    let first = get(server.http_addr, list).await.json();
    let newest = get(server.http_addr, &format!("{list}&descending=true")).await.json();
    assert_ne!(first["days"], newest["days"]);
    assert!(first["summary"].is_object());
    assert_eq!(first["summary"], newest["summary"]);
}
