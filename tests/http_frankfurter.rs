//! `/frankfurter/...`: the shapes that clients of Frankfurter read, with our digits in them.

#![allow(clippy::unwrap_used, reason = "a helper of tests that cannot go on fails the test")]

mod support;
mod web;

use silkrate::proto::v1;
use support::{TestServer, tick};
use web::{get, get_with};

const DAY: i64 = 86_400;

/// Days 4, 5 and 8 of December 2025; a bank beside the ticker, and one currency that only the bank has.
async fn server(flags: &[&str]) -> TestServer {
    let server = TestServer::start(flags).await;
    let bank = |pair: &str, at, rate: &str| v1::Tick { source: "nbkr".to_owned(), ..tick(pair, at, rate) };
    let ticks = [
        tick("KGS/USD", -4 * DAY, "0.01140"),
        tick("KGS/USD", -3 * DAY, "0.01143"),
        tick("KGS/USD", -3 * DAY + 3_600, "0.01144"),
        tick("KGS/USD", -60, "0.01150"),
        tick("UZS/USD", -3 * DAY, "0.00008"),
        bank("USD/KGS", -60, "87.4500"),
        bank("USD/TJS", -DAY, "9.2500"),
    ];
    server.store(&ticks).await;
    server
}

#[tokio::test]
async fn answers_have_the_shapes_and_the_digits() {
    let server = server(&[]).await;
    let check = async |target: &str, expect: &str| {
        let answer = get(server.http_addr, target).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, expect), "{target}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    };
    // Numbers, not strings, with every digit that was published.
    let latest = r#"{"amount":1.0,"base":"KGS","date":"2025-12-08","rates":{"USD":0.01150}}"#;
    for target in [
        "/frankfurter/v1/latest?base=KGS&symbols=USD",
        "/frankfurter/v1/latest?from=KGS&to=USD",
        "/frankfurter/latest?from=kgs&to=usd",
        "/frankfurter/v1/2025-12-08?base=KGS&symbols=USD,KGS",
        "/frankfurter/v1/2026-12-08?base=KGS&symbols=USD",
    ] {
        check(target, latest).await;
    }
    // The dollar is the base unless told; derived rates have fifteen digits, and who has no series is left out.
    check(
        "/frankfurter/v1/latest",
        r#"{"amount":1.0,"base":"USD","date":"2025-12-08","rates":{"KGS":86.9565217391304,"TJS":9.2500,"UZS":12500}}"#,
    )
    .await;
    check(
        "/frankfurter/v1/latest?base=KGS&symbols=USD&amount=1000",
        r#"{"amount":1000,"base":"KGS","date":"2025-12-08","rates":{"USD":11.50000}}"#,
    )
    .await;
    // The rate at the end of a day; a day without one answers as the one before.
    let friday = r#"{"amount":1.0,"base":"KGS","date":"2025-12-05","rates":{"USD":0.01144}}"#;
    check("/frankfurter/v1/2025-12-05?base=KGS&symbols=USD", friday).await;
    check("/frankfurter/v1/2025-12-06?base=KGS&symbols=USD", friday).await;
    // A range leaves out days without one.
    let days = r#"{"amount":1.0,"base":"KGS","start_date":"2025-12-04","end_date":"2025-12-08","rates":{"2025-12-04":{"USD":0.01140},"2025-12-05":{"USD":0.01144},"2025-12-08":{"USD":0.01150}}}"#;
    check("/frankfurter/v1/2025-12-01..2025-12-31?base=KGS&symbols=USD", days).await;
    check("/frankfurter/v1/2025-12-01..?base=KGS&symbols=USD", days).await;
    let currencies =
        r#"{"KGS":"Kyrgyzstani som","TJS":"Tajikistani somoni","USD":"United States dollar","UZS":"Uzbekistan som"}"#;
    check("/frankfurter/v1/currencies", currencies).await;
}

#[tokio::test]
async fn the_preferred_source_answers_where_several_could() {
    let server = server(&["--frankfurter-source", "nbkr"]).await;
    let answer = get(server.http_addr, "/frankfurter/v1/latest?symbols=KGS,UZS").await;
    // The bank has no sum; the ticker, next by name, has.
    let expect = r#"{"amount":1.0,"base":"USD","date":"2025-12-08","rates":{"KGS":87.4500,"UZS":12500}}"#;
    assert_eq!(answer.body, expect);
    // Legs from both where neither has the two.
    let cross = get(server.http_addr, "/frankfurter/v1/latest?base=TJS&symbols=UZS").await.json();
    assert_eq!(cross["rates"]["UZS"].to_string(), "1351.35135135135");
}

#[tokio::test]
async fn errors_have_a_message() {
    let server = server(&[]).await;
    let check = async |target: &str, status: u16, part: &str| {
        let answer = get(server.http_addr, target).await;
        assert_eq!(answer.status, status, "{target}: {answer:?}");
        assert!(answer.json()["message"].as_str().unwrap().contains(part), "{target}: {answer:?}");
    };
    check("/frankfurter/v1/yesterday", 404, "there are latest").await;
    check("/frankfurter/v1/latest?base=EUR", 400, "'EUR' is not served").await;
    check("/frankfurter/v1/latest?base=KGS&from=KGS", 400, "both given").await;
    check("/frankfurter/v1/latest?amount=-1", 400, "negative").await;
    check("/frankfurter/v1/latest?limit=1", 400, "there are base, symbols").await;
    check("/frankfurter/v1/currencies?base=KGS", 400, "no parameter here").await;
    check("/frankfurter/v1/latest?base=TMT", 404, "no rates of TMT").await;
    check("/frankfurter/v1/2020-01-01", 404, "no rates of USD").await;
    check("/frankfurter/v1/2025-12-08..2025-12-01", 422, "swap its ends").await;
    check("/frankfurter/v1/1990-01-01..2025-12-01", 422, "more than 10000 days").await;
}

#[tokio::test]
async fn an_unchanged_answer_is_not_sent_again() {
    let server = server(&[]).await;
    for target in ["latest", "2025-12-05", "2025-12-01..2025-12-08", "currencies"] {
        let target = format!("/frankfurter/v1/{target}");
        let tag = get(server.http_addr, &target).await.header("etag").unwrap().to_owned();
        let again = get_with(server.http_addr, &target, &[("if-none-match", &tag)]).await;
        assert_eq!(again.status, 304, "{target}");
    }
}
