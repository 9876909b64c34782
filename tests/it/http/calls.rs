//! `/v1/...`: the answers of gRPC, as JSON and CSV.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use silkrate::domain::Timestamp;
use silkrate::proto::v1;

use crate::support::{NOW, TestServer, tick, time};
use crate::web::{get, get_with, rows};

/// Five days of two pairs, a late one that revises, and a bank.
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
    assert_eq!(body.get("server_time"), None, "it would differ each time");

    let rate = get(server.http_addr, "/v1/rate?pair=USD/UZS").await.json();
    assert_eq!((&rate["rate"], &rate["derivation"]), (&json!("12500"), &json!("INVERSE")));
    assert_eq!((&rate["rate_low"], &rate["rate_high"]), (&json!("11764.7058823529"), &json!("13333.3333333334")));
    assert_eq!((rate.get("age"), rate.get("time"), &rate["state"]), (None, None, &json!("FLAT")));
    let past = get(server.http_addr, "/v1/rate?pair=KGS/USD&time=2025-12-05").await.json();
    assert_eq!((&past["rate"], &past["time"]), (&json!("0.01144"), &json!("2025-12-05T00:00:00Z")));
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
    assert_eq!(converted["rate"].get("time"), None);
    let series = get(server.http_addr, "/v1/series?sources=nbkr").await.json();
    assert_eq!(series["series"][0]["collapse_window"], json!("604800s"));
}

#[tokio::test]
async fn pages_follow_each_other_by_link() {
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

/// The command writes the legs of a rate into one cell, which scripts read as JSON; a sheet has columns for them.
fn flat(row: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut cells = Vec::new();
    for (name, text) in row {
        if name != "legs" {
            cells.push((name, text));
            continue;
        }
        let legs: Value = serde_json::from_str(&text).unwrap();
        for (at, leg) in ["leg1", "leg2"].into_iter().enumerate() {
            for name in ["pair", "source", "rate", "last_observed_time"] {
                cells.push((format!("{leg}_{name}"), legs[at][name].as_str().unwrap_or_default().to_owned()));
            }
        }
    }
    cells
}

/// What the command prints as CSV.
fn command(server: &TestServer, line: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command.args(line.split(' ')).args(["--output", "csv"]).env("SILKRATE_ENDPOINT", server.addr.to_string());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_has_the_columns_and_cells_of_the_command() {
    let server = server().await;
    // The start of a minute is the same now for both.
    server.clock.set(NOW.saturating_add_us(60 * Timestamp::SECOND_US));
    // What tells how much time has passed is the command's alone.
    let check = async |line: &str, target: &str, more_of_command: &[&str]| {
        let ours = get(server.http_addr, &format!("{target}format=csv")).await;
        assert_eq!(ours.header("content-type"), Some("text/csv; charset=utf-8; header=present"), "{ours:?}");
        let theirs = rows(&tokio::task::block_in_place(|| command(&server, line)));
        let sorted = |rows: Vec<Vec<(String, String)>>| -> Vec<BTreeSet<(String, String)>> {
            let kept = |row: Vec<(String, String)>| {
                row.into_iter().filter(|(name, _)| !more_of_command.contains(&name.as_str())).collect()
            };
            rows.into_iter().map(flat).map(kept).collect()
        };
        assert!(!theirs.is_empty(), "{line}");
        assert_eq!(sorted(ours.csv()), sorted(theirs), "{line}");
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
        &[],
    )
    .await;
    check("changes KGS/USD --period day", "/v1/changes?pair=KGS/USD&period=day-on-day&", &["start_age", "end_age"])
        .await;
    check("candles KGS/USD --interval 1d", "/v1/candles?pair=KGS/USD&interval=1d&", &[]).await;
    check(
        &format!("convert 12.50 KGS/USD --at {at}"),
        &format!("/v1/convert?pair=KGS/USD&amount=12.50&time={at}&"),
        &[],
    )
    .await;
}

#[tokio::test]
async fn csv_tells_each_leg_in_columns() {
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
async fn csv_comes_whole_or_not_at_all() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -8 * 86_400, "0.01144"), tick("KGS/USD", -60, "0.01145")]).await;
    let ask = async |more: &str| {
        let target = format!("/v1/candles?pair=KGS/USD&fill_empty=true&format=csv&{more}");
        let answer = get(server.http_addr, &target).await;
        (answer.status, answer.csv().len(), answer.header("link").is_some(), answer)
    };
    let check = async |more: &str, rows: usize, has_next: bool| {
        let (status, found, link, _) = ask(more).await;
        assert_eq!((status, found, link), (200, rows, has_next), "{more}");
    };
    check("interval=5m", 8 * 288 + 1, false).await;
    check("interval=5m&page_size=100", 100, true).await;
    check("interval=1m&page_size=20000", 10_000, true).await;
    let (status, _, _, answer) = ask("interval=1m").await;
    assert_eq!(status, 422);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("more than 10000 rows") && detail.contains("start_time and end_time"), "{detail}");
}

#[tokio::test]
async fn errors_say_what_where_and_what_to_do() {
    let server = server().await;
    let check = async |target: &str, status: u16, expect: Value| {
        let answer = get(server.http_addr, target).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("etag"), None);
        let found = answer.json();
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
    check("/v1/rate?pair=KZT/USD", 400, json!({"field": "source", "detail": "nbkr"})).await;
    check("/v1/rate?pair=KGS/USD&time=2020-01-01", 404, json!({"reason": "NO_QUOTE_YET"})).await;
    check("/v1/rate?pair=KGS/USD&max_age=30m&time=2025-12-08", 404, json!({"reason": "STALE"})).await;
    check("/v1/rate?pair=KGS/USD&tiem=2020-01-01", 400, json!({"field": "tiem", "detail": "there are pair, source"}))
        .await;
    check(
        "/v1/history?pair=KGS/USD&start_time=2025-12-08&end_time=2025-12-01",
        400,
        json!({"field": "end_time", "detail": "swap them"}),
    )
    .await;
    check("/v1/candles?pair=KGS/USD", 400, json!({"field": "interval"})).await;
    check("/v1/history?pair=KGS/USD&page_token=x", 400, json!({"field": "page_token"})).await;
    check("/v1/latest?format=xml", 400, json!({"field": "format", "detail": "neither json nor csv"})).await;
    check("/v1/nothing", 404, json!({"detail": "/v1/nothing", "title": "Not Found"})).await;
}

#[tokio::test]
async fn an_unchanged_answer_is_not_sent_again() {
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
    assert_eq!(different.len(), tags.len(), "a tag belongs to its question: {tags:?}");

    // A confirmation moves the sequence, and with it every tag.
    server.store(&[tick("KGS/USD", -1, "0.01151")]).await;
    for (target, tag) in targets.iter().zip(&tags) {
        let now = get_with(server.http_addr, target, &[("if-none-match", tag)]).await;
        assert_eq!(now.status, 200, "{target}");
        assert_ne!(now.header("etag"), Some(tag.as_str()));
    }
}

#[tokio::test]
async fn what_time_alone_changes_moves_the_tag() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", 0, "0.01144"), tick("KGS/USD", 1_800, "0.01150")]).await;
    let ask = async |target: &str, tag: &str| get_with(server.http_addr, target, &[("if-none-match", tag)]).await;
    let (latest, rate) = ("/v1/latest", "/v1/rate?pair=KGS/USD");
    let first = [ask(latest, "").await, ask(rate, "").await];
    let mut tags = first.iter().map(|answer| answer.header("etag").unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(first[1].json()["rate"], json!("0.01144"), "the other is dated ahead");

    // Nothing is due: a minute more changes nothing.
    server.clock.set(NOW.saturating_add_us(60 * Timestamp::SECOND_US));
    assert_eq!((ask(latest, &tags[0]).await.status, ask(rate, &tags[1]).await.status), (304, 304));

    // It comes due, then goes stale: commits without ticks.
    for (seconds, expect) in [(1_800, "MOVING"), (1_800 + 3_600, "STALE")] {
        server.clock.set(NOW.saturating_add_us(seconds * Timestamp::SECOND_US));
        let sequence = server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap();
        let before = sequence.into_inner().sequence;
        // The writer looks at the clock when something comes its way, if not by itself.
        let nothing = v1::IngestTicksRequest { ticks: vec![tick("KGS/USD", 0, "0.01144")], ..Default::default() };
        server.ingest().ingest_ticks(nothing).await.unwrap();
        for _ in 0..200 {
            let after = server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap();
            if after.into_inner().sequence > before {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let answers = [ask(latest, &tags[0]).await, ask(rate, &tags[1]).await];
        assert_eq!(answers.each_ref().map(|answer| answer.status), [200, 200]);
        let (latest, rate) = (answers[0].json(), answers[1].json());
        assert_eq!((&latest["rates"][0]["run"]["rate"], &rate["rate"]), (&json!("0.01150"), &json!("0.01150")));
        assert_eq!((&latest["rates"][0]["state"], &rate["state"]), (&json!(expect), &json!(expect)));
        tags = answers.iter().map(|answer| answer.header("etag").unwrap().to_owned()).collect();
    }
}

#[tokio::test]
async fn an_answer_that_counts_from_now_is_exact_to_the_minute() {
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
    let answer = get(server.http_addr, change).await.json();
    assert_eq!(answer["end"]["time"], json!("2025-12-08T12:01:00Z"));
    assert_eq!(answer["start"]["time"], json!("2025-12-07T12:01:00Z"));

    // An age counts from now itself, so that nothing can be kept.
    let aged = get(server.http_addr, "/v1/rate?pair=KGS/USD&max_age=3m").await;
    assert_eq!((aged.status, aged.header("etag")), (200, None));
    server.clock.set(NOW.saturating_add_us(121 * Timestamp::SECOND_US));
    assert_eq!(get(server.http_addr, "/v1/rate?pair=KGS/USD&max_age=3m").await.status, 404);
}

#[tokio::test]
async fn an_answer_equals_that_of_grpc() {
    let server = server().await;
    let request = v1::GetRateRequest {
        pair: "KZT/KGS".to_owned(),
        source: "timesca".to_owned(),
        time: Some(time(-30)),
        ..Default::default()
    };
    let theirs = server.rates().get_rate(request).await.unwrap().into_inner();
    let ours = get(server.http_addr, "/v1/rate?pair=KZT/KGS&source=timesca&time=2025-12-08T11:59:30Z").await.json();
    assert_eq!(ours["rate"], json!(theirs.rate));
    assert_eq!(ours["rate_low"], json!(theirs.rate_low));
    assert_eq!(ours["legs"].as_array().unwrap().len(), 2);
    assert_eq!(ours["sequence"], json!(theirs.sequence));
    assert_eq!(ours["leg_age_difference"], json!("30s"));
}
