//! `/v1/...`: the responses of gRPC as JSON and CSV.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use silkrate::domain::Timestamp;
use silkrate::proto::v1;

use crate::support::{NOW, TestServer, tick, time};
use crate::web::{get, get_with, rows};

/// Starts a server with five days of two pairs, a revision of each pair, and a third pair that two sources publish.
async fn server() -> TestServer {
    let server = TestServer::start(&[]).await;
    let day = 86_400;
    let mut ticks = Vec::new();
    for (at, rate) in [(-5 * day, "0.01144"), (-3 * day, "0.01143"), (-day, "0.01150"), (-60, "0.01151")] {
        ticks.push(tick("KGS/USD", at, rate));
        ticks.push(tick("UZS/USD", at, "0.00008"));
    }
    server.store(&ticks).await;
    let revised = v1::IngestTicksRequest {
        ticks: vec![tick("KGS/USD", -2 * day, "0.01149"), tick("UZS/USD", -3 * day, "0.00009")],
        conflict_policy: v1::ConflictPolicy::Revise.into(),
        ..Default::default()
    };
    server.ingest().ingest_ticks(revised).await.unwrap();
    let bank = |at, rate: &str| v1::Tick { source: "nbkr".to_owned(), ..tick("KZT/USD", at, rate) };
    server.store(&[bank(-day, "0.00196"), tick("KZT/USD", -30, "0.00197")]).await;
    server
}

#[tokio::test]
async fn json_has_the_fields_of_the_message_and_exact_digits() {
    let server = server().await;
    let latest = get(server.http_addr, "/v1/latest").await;
    assert_eq!(latest.status, 200);
    assert_eq!(latest.header("content-type"), Some("application/json"));
    let body = latest.json();
    assert_eq!(body["sequence"], json!(3));
    assert_eq!(body["rates"].as_array().unwrap().len(), 4);
    let kgs = &body["rates"][0];
    assert_eq!(kgs["run"]["pair"], json!("KGS/USD"));
    assert_eq!(kgs["run"]["rate"], json!("0.01151"));
    assert_eq!(kgs["run"]["observation_count"], json!(1));
    assert_eq!(kgs["run"]["first_observed_time"], json!("2025-12-08T11:59:00Z"));
    assert_eq!((&kgs["state"], &kgs["previous_rate"]), (&json!("MOVING"), &json!("0.01150")));
    assert_eq!(body.get("server_time"), None, "server_time would change every response");

    let rate = get(server.http_addr, "/v1/rate?pair=USD/UZS").await.json();
    assert_eq!((&rate["rate"], &rate["derivation"]), (&json!("12500"), &json!("INVERSE")));
    assert_eq!((&rate["rate_low"], &rate["rate_high"]), (&json!("11764.7058823529"), &json!("13333.3333333334")));
    assert_eq!((rate.get("age"), rate.get("time"), &rate["state"]), (None, Some(&Value::Null), &json!("FLAT")));
    let past = get(server.http_addr, "/v1/rate?pair=KGS/USD&time=2025-12-05").await.json();
    // A date is the rate at the end of that day, and the response names the day.
    assert_eq!(
        (&past["rate"], &past["date"], &past["time_zone"]),
        (&json!("0.01143"), &json!("2025-12-05"), &json!("UTC"))
    );
    let instant = get(server.http_addr, "/v1/rate?pair=KGS/USD&time=2025-12-05T00:00:00Z").await.json();
    assert_eq!((&instant["rate"], &instant["time"]), (&json!("0.01144"), &json!("2025-12-05T00:00:00Z")));
    assert_eq!(past["state"], Value::Null);

    let change = get(server.http_addr, "/v1/change?pair=KGS/USD&window=24h&decimal_places=2").await.json();
    assert_eq!(change["percent_change"], json!("0.09"));
    // The newest commit is microseconds later than the start of this minute.
    assert_eq!(
        (&change["end"]["time"], &change["recorded_time"]),
        (&json!("2025-12-08T12:00:00.000002Z"), &change["end"]["time"])
    );
    assert_eq!(change["start"]["time"], json!("2025-12-07T12:00:00.000002Z"));
    assert_eq!(change["below_resolution"], json!(true));

    let candles = get(server.http_addr, "/v1/candles?pair=KGS/USD&interval=1d&start_time=2025-12-07").await.json();
    assert_eq!(candles["candles"][0]["close"], json!("0.01150"));
    assert_eq!((&candles["derivation"], &candles["legs"][0]["source"]), (&json!("DIRECT"), &json!("timesca")));

    let converted = get(server.http_addr, "/v1/convert?pair=KGS/USD&amount=1000").await.json();
    assert_eq!(converted["converted_amount"], json!("11.51000"));
    assert_eq!(converted["rate"].get("time"), Some(&Value::Null));
    let series = get(server.http_addr, "/v1/series?sources=nbkr").await.json();
    assert_eq!(series["series"][0]["collapse_window"], json!("604800s"));
}

#[tokio::test]
async fn pages_are_chained_by_link_headers() {
    let server = server().await;
    let mut target = "/v1/history?pair=KGS/USD&page_size=2".to_owned();
    let mut found = Vec::new();
    for _ in 0..3 {
        let page = get(server.http_addr, &target).await;
        for run in page.json()["runs"].as_array().unwrap() {
            found.push(run["rate"].as_str().unwrap().to_owned());
        }
        let Some(link) = page.header("link") else { break };
        let (next, relation) = link.split_once('>').unwrap();
        assert_eq!(relation, "; rel=\"next\"");
        target = next.strip_prefix('<').unwrap().to_owned();
    }
    assert_eq!(found, ["0.01144", "0.01143", "0.01149", "0.01150", "0.01151"]);
}

/// Splits the `legs` cell of the command, a JSON array for scripts, into the leg columns of the HTTP CSV.
fn with_leg_columns(row: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut cells = Vec::new();
    for (name, text) in row {
        let Some(prefix) = name.strip_suffix("legs") else {
            cells.push((name, text));
            continue;
        };
        let legs: Value = serde_json::from_str(&text).unwrap();
        for (at, leg) in ["leg1", "leg2"].into_iter().enumerate() {
            // A leg of a list has no rate.
            let of_list = legs[0].get("stale").is_some();
            let names = if of_list {
                ["pair", "source", "stale", "archived"]
            } else {
                ["pair", "source", "rate", "last_observed_time"]
            };
            for name in names {
                let text = match &legs[at][name] {
                    Value::String(text) => text.clone(),
                    Value::Bool(flag) => flag.to_string(),
                    Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => String::new(),
                };
                cells.push((format!("{prefix}{leg}_{name}"), text));
            }
        }
    }
    cells
}

/// Runs the command and returns its CSV output.
fn command(server: &TestServer, line: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command.args(line.split(' ')).args(["--output", "csv"]).env("SILKRATE_ENDPOINT", server.addr.to_string());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_of_the_command_keeps_the_newest_runs_unless_a_start_is_given() {
    let server = server().await;
    let check = |line: &str, expect: &[&str]| {
        let printed = rows(&tokio::task::block_in_place(|| command(&server, line)));
        let rates: Vec<&str> = printed.iter().map(|row| row[2].1.as_str()).collect();
        assert_eq!(rates, expect, "{line}");
    };
    check("history KGS/USD", &["0.01144", "0.01143", "0.01149", "0.01150", "0.01151"]);
    check("history KGS/USD --limit 2", &["0.01150", "0.01151"]);
    check("history KGS/USD --limit 9", &["0.01144", "0.01143", "0.01149", "0.01150", "0.01151"]);
    check("history KGS/USD --limit 2 --desc", &["0.01151", "0.01150"]);
    check("history KGS/USD --limit 2 --asc", &["0.01144", "0.01143"]);
    check("history KGS/USD --limit 2 --from 2025-01-01", &["0.01144", "0.01143"]);
}

/// Returns the columns in backquotes of a cell of the document, with those that "the same for" adds.
fn documented(cell: &str) -> BTreeSet<String> {
    let mut columns: BTreeSet<String> = cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    for (same, from, to) in [("`leg2`", "leg1", "leg2"), ("`end`", "start_leg", "end_leg")] {
        if cell.contains(same) {
            columns.remove(same.trim_matches('`'));
            columns.extend(columns.clone().iter().map(|name| name.replace(from, to)));
        }
    }
    columns
}

#[tokio::test(flavor = "multi_thread")]
async fn document_lists_the_csv_columns_that_differ_from_the_command() {
    const DOCUMENT: &str = include_str!("../../../docs/HTTP.md");
    let server = server().await;
    let header = |text: &str| -> BTreeSet<String> {
        text.lines().next().unwrap_or_default().split(',').map(str::to_owned).collect()
    };
    let table = DOCUMENT.split_once("| path | columns only over HTTP |").unwrap().1.split("\n\n").next().unwrap();
    let listed: Vec<Vec<&str>> = table.lines().skip(2).map(|line| line.split(" | ").collect()).collect();
    let mut undocumented = Vec::new();
    for (line, target) in [
        ("latest", "/v1/latest?"),
        ("series", "/v1/series?"),
        ("revisions UZS/USD", "/v1/revisions?pair=UZS/USD&"),
        ("rate KZT/KGS --source timesca", "/v1/rate?pair=KZT/KGS&source=timesca&"),
        ("convert 1 KGS/USD", "/v1/convert?pair=KGS/USD&amount=1&"),
        ("change KGS/USD --from 2025-12-04", "/v1/change?pair=KGS/USD&start_time=2025-12-04&"),
        ("changes KGS/USD --period day", "/v1/changes?pair=KGS/USD&period=day&"),
        ("candles KGS/USD --interval 1d", "/v1/candles?pair=KGS/USD&interval=1d&"),
        ("compare KZT/USD --sources timesca,nbkr", "/v1/compare?pair=KZT/USD&sources=timesca,nbkr&"),
        ("history KGS/USD", "/v1/history?pair=KGS/USD&"),
        ("gaps", "/v1/gaps?"),
        ("quarantine list", "/v1/quarantine?"),
        ("sources", "/v1/sources?"),
    ] {
        let http = header(&get(server.http_addr, &format!("{target}format=csv")).await.body);
        let printed = header(&tokio::task::block_in_place(|| command(&server, line)));
        let path = format!("`{}`", target.split('?').next().unwrap());
        let row = listed.iter().find(|row| row[0].contains(&path));
        let [only_http, only_command] = [1, 2].map(|at| row.map_or(BTreeSet::new(), |row| documented(row[at])));
        for (what, found, expect) in
            [("only over HTTP", &http - &printed, only_http), ("only printed", &printed - &http, only_command)]
        {
            if found != expect {
                undocumented.push(format!("{path} {what}: {found:?}, but the document has {expect:?}"));
            }
        }
    }
    assert_eq!(undocumented, [""; 0]);
}

#[tokio::test]
async fn answer_has_the_canonical_spelling_of_the_pair() {
    let server = server().await;
    for call in [
        "rate?",
        "convert?amount=1&",
        "change?window=7d&",
        "changes?period=day&",
        "candles?interval=1d&",
        "compare?sources=timesca,nbkr&",
        "history?",
        "gaps?",
    ] {
        for spelling in ["KZT-USD", "kzt/usd", "KZTUSD"] {
            let target = format!("/v1/{call}pair={spelling}&format=csv");
            let response = get(server.http_addr, &target).await;
            assert_eq!(response.status, 200, "{target}: {response:?}");
            let rows = response.csv();
            let pairs: BTreeSet<&str> =
                rows.iter().flatten().filter(|(name, _)| name == "pair").map(|(_, text)| text.as_str()).collect();
            assert!(pairs.iter().all(|pair| *pair == "KZT/USD"), "{target}: {pairs:?}");
            assert!(call == "gaps?" || !pairs.is_empty(), "{target} has no pair");
        }
    }
    let latest = get(server.http_addr, "/v1/latest?pair=kzt-usd&source=nbkr&format=csv").await.csv();
    assert_eq!((latest.len(), latest[0][0].1.as_str(), latest[0][1].1.as_str()), (1, "KZT/USD", "nbkr"));
}

#[tokio::test]
async fn names_of_flags_are_accepted_as_parameters() {
    let server = server().await;
    let same = async |short: &str, long: &str| {
        let (short, long) = (format!("/v1/{short}"), format!("/v1/{long}"));
        let [by_short, by_long] = [get(server.http_addr, &short).await, get(server.http_addr, &long).await];
        assert_eq!((by_short.status, &by_short.body), (200, &by_long.body), "{short} and {long}");
    };
    same(
        "history?pair=KGS/USD&from=2025-12-04&limit=1&baseline=true",
        "history?pair=KGS/USD&start_time=2025-12-04&page_size=1&include_baseline=true",
    )
    .await;
    same("history?pair=KGS/USD&to=-1d&desc=true", "history?pair=KGS/USD&end_time=-1d&descending=true").await;
    same("change?pair=KGS/USD&over=7d", "change?pair=KGS/USD&window=7d").await;
    same("rate?pair=KGS/USD&at=2025-12-05", "rate?pair=KGS/USD&time=2025-12-05").await;
    same("compare?pair=KZT/USD&sources=timesca,nbkr&days=2", "compare?pair=KZT/USD&sources=timesca,nbkr&last_days=2")
        .await;
    same("candles?pair=KGS/USD&interval=1d&fill=true", "candles?pair=KGS/USD&interval=1d&fill_empty=true").await;
    same("gaps?min=2h", "gaps?minimum_length=2h").await;
    same("changes?pair=KGS/USD&period=DAY_ON_DAY", "changes?pair=KGS/USD&period=Day").await;
    // A list with an unknown source is empty. The command reports it.
    let unknown = get(server.http_addr, "/v1/series?source=nosuch").await;
    assert_eq!((unknown.status, &unknown.json()["series"]), (200, &json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_equals_csv_of_the_command() {
    let server = server().await;
    // HTTP rounds the current time down to a minute. The clock is at the start of a minute, so both give the same
    // values.
    server.clock.set(NOW.saturating_add_us(60 * Timestamp::SECOND_US));
    // Only the command has the columns of elapsed time.
    let check = async |line: &str, target: &str, more_of_command: &[&str]| {
        let http = get(server.http_addr, &format!("{target}format=csv")).await;
        assert_eq!(http.header("content-type"), Some("text/csv; charset=utf-8; header=present"), "{http:?}");
        let printed = rows(&tokio::task::block_in_place(|| command(&server, line)));
        let sorted = |rows: Vec<Vec<(String, String)>>| -> Vec<BTreeSet<(String, String)>> {
            let kept = |row: Vec<(String, String)>| {
                row.into_iter().filter(|(name, _)| !more_of_command.contains(&name.as_str())).collect()
            };
            rows.into_iter().map(with_leg_columns).map(kept).collect()
        };
        assert!(!printed.is_empty(), "{line}");
        assert_eq!(sorted(http.csv()), sorted(printed), "{line}");
    };
    let at = "2025-12-08T11:59:45Z";
    check("latest", "/v1/latest?", &[]).await;
    check("series", "/v1/series?", &[]).await;
    check(
        "history KGS/USD --from 2025-12-04 --baseline",
        "/v1/history?pair=KGS/USD&start_time=2025-12-04&include_baseline=true&",
        &[],
    )
    .await;
    check("revisions UZS/USD", "/v1/revisions?pair=UZS/USD&", &[]).await;
    check(
        &format!("rate KZT/KGS --source timesca --at {at}"),
        &format!("/v1/rate?pair=KZT/KGS&source=timesca&time={at}&"),
        &["age"],
    )
    .await;
    check(
        &format!("change KGS/USD --from 2025-12-04 --to {at}"),
        &format!("/v1/change?pair=KGS/USD&start_time=2025-12-04&end_time={at}&"),
        &["start_age", "end_age"],
    )
    .await;
    check(
        "changes KGS/USD --period day",
        "/v1/changes?pair=KGS/USD&period=day-on-day&",
        &["start_age", "end_age", "archived"],
    )
    .await;
    check("candles KGS/USD --interval 1d", "/v1/candles?pair=KGS/USD&interval=1d&", &["stale", "archived"]).await;
    check(
        &format!("convert 12.50 KGS/USD --at {at}"),
        &format!("/v1/convert?pair=KGS/USD&amount=12.50&time={at}&"),
        &["age"],
    )
    .await;
}

#[tokio::test]
async fn csv_has_columns_for_each_leg() {
    let server = server().await;
    let legs = async |pair: &str| -> Vec<String> {
        let rows = get(server.http_addr, &format!("/v1/rate?pair={pair}&source=timesca&format=csv")).await.csv();
        rows[0]
            .iter()
            .filter(|(name, _)| name.starts_with("leg") && name != "leg_age_difference")
            .map(|(name, text)| format!("{name}={text}"))
            .collect()
    };
    let first = [
        "leg1_pair=KGS/USD",
        "leg1_source=timesca",
        "leg1_rate=0.01151",
        "leg1_last_observed_time=2025-12-08T11:59:00Z",
    ];
    let none = ["leg2_pair=", "leg2_source=", "leg2_rate=", "leg2_last_observed_time="];
    let second = [
        "leg2_pair=KZT/USD",
        "leg2_source=timesca",
        "leg2_rate=0.00197",
        "leg2_last_observed_time=2025-12-08T11:59:30Z",
    ];
    assert_eq!(legs("USD/KGS").await, [first, none].concat());
    assert_eq!(legs("KGS/KZT").await, [first, second].concat());
}

#[tokio::test]
async fn csv_is_complete_or_refused() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -8 * 86_400, "0.01144"), tick("KGS/USD", -60, "0.01145")]).await;
    let request = async |more: &str| {
        let target = format!("/v1/candles?pair=KGS/USD&fill_empty=true&format=csv&{more}");
        let response = get(server.http_addr, &target).await;
        (response.status, response.csv().len(), response.header("link").is_some(), response)
    };
    let check = async |more: &str, rows: usize, has_next: bool| {
        let (status, found, link, _) = request(more).await;
        assert_eq!((status, found, link), (200, rows, has_next), "{more}");
    };
    check("interval=5m", 8 * 288 + 1, false).await;
    check("interval=5m&page_size=100", 100, true).await;
    check("interval=1m&page_size=20000", 10_000, true).await;
    let (status, _, _, response) = request("interval=1m").await;
    assert_eq!(status, 422);
    let detail = response.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("more than 10000 rows") && detail.contains("start_time to end_time"), "{detail}");
}

#[tokio::test]
async fn errors_name_the_field_and_the_remedy() {
    let server = server().await;
    let check = async |target: &str, status: u16, expect: Value| {
        let response = get(server.http_addr, target).await;
        assert_eq!(response.status, status, "{response:?}");
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
        assert_eq!(response.header("etag"), None);
        let found = response.json();
        assert_eq!(found["status"], json!(status));
        for (name, value) in expect.as_object().unwrap() {
            match value.as_str() {
                Some(part) => assert!(found[name].as_str().unwrap().contains(part), "{target}: {found}"),
                None => assert_eq!(found[name], *value),
            }
        }
    };
    check("/v1/rate", 400, json!({"field": "pair", "code": "INVALID_ARGUMENT", "detail": "pair ''"})).await;
    check("/v1/rate?pair=EUR/USD", 400, json!({"field": "pair", "detail": "not served here"})).await;
    check("/v1/rate?pair=TMT/USD", 404, json!({"reason": "UNKNOWN_SERIES"})).await;
    check("/v1/rate?pair=KGS/USD&time=2020-01-01", 404, json!({"reason": "NO_QUOTE_YET"})).await;
    check("/v1/rate?pair=KGS/USD&max_age=30m&time=2025-12-08T00:00:00Z", 404, json!({"reason": "STALE"})).await;
    check(
        "/v1/rate?pair=KGS/USD&tiem=2020-01-01",
        400,
        json!({"field": "tiem", "detail": "this call takes pair, source"}),
    )
    .await;
    check(
        "/v1/history?pair=KGS/USD&start_time=2025-12-08&end_time=2025-12-01",
        400,
        json!({"field": "end_time", "detail": "swap them"}),
    )
    .await;
    check("/v1/candles?pair=KGS/USD", 400, json!({"field": "interval"})).await;
    check(
        "/v1/candles?pair=KGS/USD&interval=1d&zone=UTC&time_zone=UTC",
        400,
        json!({"field": "zone", "detail": "zone: is another name of time_zone, which is also given; give one of them"}),
    )
    .await;
    check("/v1/rate?pair=KGS/USD&from=-1d", 400, json!({"field": "from", "detail": "unknown parameter"})).await;
    check("/v1/history?pair=KGS/USD&page_token=x", 400, json!({"field": "page_token"})).await;
    check("/v1/latest?format=xml", 400, json!({"field": "format", "detail": "neither json nor csv"})).await;
    check("/v1/nothing", 404, json!({"detail": "/v1/nothing", "title": "Not Found"})).await;
}

#[tokio::test]
async fn unchanged_response_is_304() {
    let server = server().await;
    let targets = [
        "/v1/latest",
        "/v1/latest?since_sequence=2",
        "/v1/latest?format=csv",
        "/v1/rate?pair=USD/UZS",
        "/v1/history?pair=KGS/USD",
        "/v1/change?pair=KGS/USD&window=7d",
        "/v1/candles?pair=KGS/USD&interval=1h",
        "/v1/series",
    ];
    let mut tags = Vec::new();
    for target in targets {
        let first = get(server.http_addr, target).await;
        let tag = first.header("etag").unwrap_or_else(|| panic!("{target}: {first:?}")).to_owned();
        assert_eq!(first.header("cache-control"), Some("no-cache"));
        let again = get_with(server.http_addr, target, &[("if-none-match", &tag)]).await;
        assert_eq!(
            (again.status, again.body.as_str(), again.header("etag")),
            (304, "", Some(tag.as_str())),
            "{target}"
        );
        tags.push(tag);
    }
    let different: BTreeSet<&String> = tags.iter().collect();
    assert_eq!(different.len(), tags.len(), "each request must have its own tag: {tags:?}");

    // A confirmation advances the sequence, which changes every tag.
    server.store(&[tick("KGS/USD", -1, "0.01151")]).await;
    for (target, tag) in targets.iter().zip(&tags) {
        let now = get_with(server.http_addr, target, &[("if-none-match", tag)]).await;
        assert_eq!(now.status, 200, "{target}");
        assert_ne!(now.header("etag"), Some(tag.as_str()));
    }
}

#[tokio::test]
async fn change_by_time_alone_changes_the_tag() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", 0, "0.01144"), tick("KGS/USD", 1_800, "0.01150")]).await;
    let request = async |target: &str, tag: &str| get_with(server.http_addr, target, &[("if-none-match", tag)]).await;
    let (latest, rate) = ("/v1/latest", "/v1/rate?pair=KGS/USD");
    let first = [request(latest, "").await, request(rate, "").await];
    let mut tags = first.iter().map(|response| response.header("etag").unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(first[1].json()["rate"], json!("0.01144"), "the observed time of the other rate is in the future");

    // After one more minute nothing is due and nothing changes.
    server.clock.set(NOW.saturating_add_us(60 * Timestamp::SECOND_US));
    assert_eq!((request(latest, &tags[0]).await.status, request(rate, &tags[1]).await.status), (304, 304));

    // The rate comes into force and later becomes stale. Both changes are commits without ticks.
    for (seconds, expect) in [(1_800, "MOVING"), (1_800 + 3_600, "STALE")] {
        server.clock.set(NOW.saturating_add_us(seconds * Timestamp::SECOND_US));
        let sequence = server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap();
        let before = sequence.into_inner().sequence;
        // The writer checks the clock when a request arrives, or by itself later.
        let nothing = v1::IngestTicksRequest { ticks: vec![tick("KGS/USD", 0, "0.01144")], ..Default::default() };
        server.ingest().ingest_ticks(nothing).await.unwrap();
        for _ in 0..200 {
            let after = server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap();
            if after.into_inner().sequence > before {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let responses = [request(latest, &tags[0]).await, request(rate, &tags[1]).await];
        assert_eq!(responses.each_ref().map(|response| response.status), [200, 200]);
        let (latest, rate) = (responses[0].json(), responses[1].json());
        assert_eq!((&latest["rates"][0]["run"]["rate"], &rate["rate"]), (&json!("0.01150"), &json!("0.01150")));
        assert_eq!((&latest["rates"][0]["state"], &rate["state"]), (&json!(expect), &json!(expect)));
        tags = responses.iter().map(|response| response.header("etag").unwrap().to_owned()).collect();
    }
}

#[tokio::test]
async fn response_relative_to_now_changes_once_per_minute() {
    let server = server().await;
    let of = |source: &str| v1::Tick { source: source.to_owned(), ..tick("USD/UZS", -7_200, "12000") };
    server.store(&[of("cbu"), of("nbk")]).await;
    let change = "/v1/change?pair=KGS/USD&window=24h";
    let (fixed, candles) =
        ("/v1/change?pair=KGS/USD&start_time=2025-12-01&end_time=2025-12-07", "/v1/candles?pair=KGS/USD&interval=1h");
    let targets = [change, fixed, candles, "/v1/gaps", "/v1/compare?pair=USD/UZS&sources=cbu,nbk"];
    let mut tags = Vec::new();
    for target in targets {
        tags.push(get(server.http_addr, target).await.header("etag").unwrap().to_owned());
    }
    let statuses = async || {
        let mut statuses = Vec::new();
        for (target, tag) in targets.iter().zip(&tags) {
            statuses.push(get_with(server.http_addr, target, &[("if-none-match", tag)]).await.status);
        }
        statuses
    };
    server.clock.set(NOW.saturating_add_us(59 * Timestamp::SECOND_US));
    assert_eq!(statuses().await, [304; 5]);
    server.clock.set(NOW.saturating_add_us(61 * Timestamp::SECOND_US));
    assert_eq!(statuses().await, [200, 304, 200, 200, 200]);
    let response = get(server.http_addr, change).await.json();
    assert_eq!(response["end"]["time"], json!("2025-12-08T12:01:00Z"));
    assert_eq!(response["start"]["time"], json!("2025-12-07T12:01:00Z"));

    // An age is relative to the exact current time, so the response cannot be cached.
    let aged = get(server.http_addr, "/v1/rate?pair=KGS/USD&max_age=3m").await;
    assert_eq!((aged.status, aged.header("etag")), (200, None));
    server.clock.set(NOW.saturating_add_us(121 * Timestamp::SECOND_US));
    assert_eq!(get(server.http_addr, "/v1/rate?pair=KGS/USD&max_age=3m").await.status, 404);
}

#[tokio::test]
async fn response_equals_grpc_response() {
    let server = server().await;
    let request = v1::GetRateRequest {
        pair: "KZT/KGS".to_owned(),
        source: "timesca".to_owned(),
        time: Some(time(-30)),
        ..Default::default()
    };
    let grpc = server.rates().get_rate(request).await.unwrap().into_inner();
    let http = get(server.http_addr, "/v1/rate?pair=KZT/KGS&source=timesca&time=2025-12-08T11:59:30Z").await.json();
    assert_eq!(http["rate"], json!(grpc.rate));
    assert_eq!(http["rate_low"], json!(grpc.rate_low));
    assert_eq!(http["legs"].as_array().unwrap().len(), 2);
    assert_eq!(http["sequence"], json!(grpc.sequence));
    assert_eq!(http["leg_age_difference"], json!("30s"));
}
