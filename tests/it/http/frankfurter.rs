//! `/frankfurter/...`: JSON in the format of the Frankfurter API, with the published digits.

use silkrate::proto::v1;

use crate::support::{TestServer, tick};
use crate::web::{get, get_with};

const DAY: i64 = 86_400;

/// Starts a server with rates of 4, 5, 7 and 8 December 2025. A bank is a second source, and only the bank has a rate
/// of TJS.
async fn server(flags: &[&str]) -> TestServer {
    let server = TestServer::start(flags).await;
    let bank = |pair: &str, at, rate: &str| v1::Tick { source: "nbkr".to_owned(), ..tick(pair, at, rate) };
    let ticks = [
        tick("KGS/USD", -4 * DAY, "0.01140"),
        tick("KGS/USD", -3 * DAY, "0.01143"),
        tick("KGS/USD", -3 * DAY + 3_600, "0.01144"),
        tick("KGS/USD", -60, "0.01150"),
        tick("UZS/USD", -DAY, "0.00008"),
        bank("USD/KGS", -60, "87"),
        bank("USD/TJS", -DAY, "9.2500"),
    ];
    server.store(&ticks).await;
    server
}

#[tokio::test]
async fn responses_have_frankfurter_format_and_published_digits() {
    let server = server(&[]).await;
    let check = async |target: &str, expect: &str| {
        let response = get(server.http_addr, target).await;
        assert_eq!((response.status, response.body.as_str()), (200, expect), "{target}");
        assert_eq!(response.header("content-type"), Some("application/json"));
    };
    // Rates are JSON numbers with every published digit.
    let latest =
        r#"{"amount":1.0,"base":"KGS","date":"2025-12-08","rates":{"USD":0.01150},"sources":{"USD":["timesca"]}}"#;
    for target in [
        "/frankfurter/v1/latest?base=KGS&symbols=USD",
        "/frankfurter/v1/latest?from=KGS&to=USD",
        "/frankfurter/latest?from=kgs&to=usd",
        "/frankfurter/v1/2025-12-08?base=KGS&symbols=USD,KGS",
        "/frankfurter/v1/2026-12-08?base=KGS&symbols=USD",
    ] {
        check(target, latest).await;
    }
    // The default base is USD. Derived rates have fifteen digits, and a currency without a series is absent.
    check(
        "/frankfurter/v1/latest",
        r#"{"amount":1.0,"base":"USD","date":"2025-12-08","rates":{"KGS":86.9565217391304,"TJS":9.2500,"UZS":12500},"sources":{"KGS":["timesca"],"TJS":["nbkr"],"UZS":["timesca"]}}"#,
    )
    .await;
    check(
        "/frankfurter/v1/latest?base=KGS&symbols=USD&amount=1000",
        r#"{"amount":1000,"base":"KGS","date":"2025-12-08","rates":{"USD":11.50000},"sources":{"USD":["timesca"]}}"#,
    )
    .await;
    // A day gets the rate at its end. A day without a rate gets the response of the previous day.
    let friday =
        r#"{"amount":1.0,"base":"KGS","date":"2025-12-05","rates":{"USD":0.01144},"sources":{"USD":["timesca"]}}"#;
    check("/frankfurter/v1/2025-12-05?base=KGS&symbols=USD", friday).await;
    check("/frankfurter/v1/2025-12-06?base=KGS&symbols=USD", friday).await;
    // A range omits days without a rate.
    let days = r#"{"amount":1.0,"base":"KGS","start_date":"2025-12-04","end_date":"2025-12-08","rates":{"2025-12-04":{"USD":0.01140},"2025-12-05":{"USD":0.01144},"2025-12-08":{"USD":0.01150}},"sources":{"USD":["timesca"]}}"#;
    check("/frankfurter/v1/2025-12-01..2025-12-31?base=KGS&symbols=USD", days).await;
    check("/frankfurter/v1/2025-12-01..?base=KGS&symbols=USD", days).await;
    let currencies =
        r#"{"KGS":"Kyrgyzstani som","TJS":"Tajikistani somoni","USD":"United States dollar","UZS":"Uzbekistan som"}"#;
    check("/frankfurter/v1/currencies", currencies).await;
}

#[tokio::test]
async fn preferred_source_is_used_if_several_have_the_pair() {
    let server = server(&["--frankfurter-source", "nbkr"]).await;
    let response = get(server.http_addr, "/frankfurter/v1/latest?symbols=KGS,UZS").await;
    // The bank has no UZS rate, so the choice of every other request is used.
    let expect = r#"{"amount":1.0,"base":"USD","date":"2025-12-08","rates":{"KGS":87,"UZS":12500},"sources":{"KGS":["nbkr"],"UZS":["timesca"]}}"#;
    assert_eq!(response.body, expect);
    // A cross rate uses legs of both sources if neither has both legs.
    let cross = get(server.http_addr, "/frankfurter/v1/latest?base=TJS&symbols=UZS").await.json();
    assert_eq!(cross["rates"]["UZS"].to_string(), "1351.35135135135");
}

#[tokio::test]
async fn errors_have_a_message() {
    let server = server(&[]).await;
    let check = async |target: &str, status: u16, part: &str| {
        let response = get(server.http_addr, target).await;
        assert_eq!(response.status, status, "{target}: {response:?}");
        assert!(response.json()["message"].as_str().unwrap().contains(part), "{target}: {response:?}");
    };
    check("/frankfurter/v1/yesterday", 404, "use latest").await;
    check("/frankfurter/v1/latest?base=EUR", 404, "'EUR' is not served").await;
    check("/frankfurter/v1/latest?base=KGS&from=KGS", 400, "both given").await;
    check("/frankfurter/v1/latest?amount=-1", 400, "negative").await;
    check("/frankfurter/v1/latest?limit=1", 400, "takes base, symbols").await;
    check("/frankfurter/v1/currencies?base=KGS", 400, "takes no parameters").await;
    check("/frankfurter/v1/latest?base=TMT", 404, "no rates of TMT").await;
    check("/frankfurter/v1/2020-01-01", 404, "no rates of USD").await;
    check("/frankfurter/v1/2025-12-08..2025-12-01", 422, "swap the dates").await;
    check("/frankfurter/v1/latest?symbols=KGS,EUR", 404, "symbols: ").await;
    check("/frankfurter/v1/latest?base=USD&symbols=USD", 404, "USD is the base itself").await;
    check("/frankfurter/v1/1990-01-01..2020-01-01", 404, "no rates of USD").await;
    check("/frankfurter/v1/2030-01-01..2030-01-02", 422, "after today").await;
}

#[tokio::test]
async fn unchanged_response_is_304() {
    let server = server(&[]).await;
    for target in ["latest", "2025-12-05", "2025-12-01..2025-12-08", "currencies"] {
        let target = format!("/frankfurter/v1/{target}");
        let tag = get(server.http_addr, &target).await.header("etag").unwrap().to_owned();
        let again = get_with(server.http_addr, &target, &[("if-none-match", &tag)]).await;
        assert_eq!(again.status, 304, "{target}");
    }
}

#[tokio::test]
async fn changed_preferred_source_changes_the_tag() {
    let server = server(&[]).await;
    let target = "/frankfurter/v1/latest?symbols=KGS";
    let tag = get(server.http_addr, target).await.header("etag").unwrap().to_owned();
    let (dir, _) = server.stop().await;
    let server = TestServer::start_with_store(dir, &["--frankfurter-source", "nbkr"]).await;
    let again = get_with(server.http_addr, target, &[("if-none-match", &tag)]).await;
    assert!(again.status == 200 && again.body.contains(r#""KGS":87"#), "{again:?}");
}

#[tokio::test]
async fn rates_much_older_than_the_newest_are_omitted() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01150"), tick("UZS/USD", -365 * DAY, "0.00008")]).await;
    let check = async |target: &str, date: &str, symbols: &[&str]| {
        let response = get(server.http_addr, target).await.json();
        let found: Vec<&str> = response["rates"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!((response["date"].as_str(), found.as_slice()), (Some(date), symbols), "{target}");
    };
    check("/frankfurter/v1/latest", "2025-12-08", &["KGS"]).await;
    // If all rates are old, the date is that of the newest of them.
    check("/frankfurter/v1/latest?symbols=UZS", "2024-12-08", &["UZS"]).await;
    check("/frankfurter/v1/2025-12-07", "2024-12-08", &["UZS"]).await;
}

#[tokio::test]
async fn each_day_has_the_fresh_rate_and_a_range_has_one_source() {
    let server = TestServer::start(&[]).await;
    let bank = |at, rate: &str| v1::Tick { source: "cbu".to_owned(), ..tick("USD/UZS", at, rate) };
    let ticks = [
        bank(-40 * DAY, "11950"),
        bank(-33 * DAY, "11960"),
        tick("UZS/USD", -33 * DAY, "0.00008"),
        tick("UZS/USD", -20 * DAY, "0.00008"),
        bank(-DAY, "12000"),
    ];
    server.store(&ticks).await;
    let check = async |target: &str, expect: &str| {
        let response = get(server.http_addr, &format!("/frankfurter/v1/{target}")).await;
        assert_eq!(response.json()["rates"].to_string(), expect, "{target}: {response:?}");
    };
    // The response has the whole history, however early the range begins.
    for start in ["1999-01-01", "0001-01-01", "2025-10-29"] {
        let days = r#"{"2025-10-29":{"UZS":11950},"2025-11-05":{"UZS":11960},"2025-12-07":{"UZS":12000}}"#;
        check(&format!("{start}..2026-11-23?symbols=UZS"), days).await;
    }
    // A day has the fresh rate. If both are stale, the rate observed last is used.
    check("2025-10-30?symbols=UZS", r#"{"UZS":11950}"#).await;
    check("2025-11-06?symbols=UZS", r#"{"UZS":11960}"#).await;
    check("2025-11-08?symbols=UZS", r#"{"UZS":11960}"#).await;
    check("2025-11-30?symbols=UZS", r#"{"UZS":12500}"#).await;
    check("latest?symbols=UZS", r#"{"UZS":12000}"#).await;
}

#[tokio::test]
async fn range_is_limited() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01150"), tick("KGS/USD", -10_000 * DAY, "0.05")]).await;
    let check = async |target: &str, expect: u16| {
        let response = get(server.http_addr, &format!("/frankfurter/v1/{target}?symbols=KGS")).await;
        assert_eq!(response.status, expect, "{target}: {response:?}");
    };
    check("1990-01-01..2025-12-08", 422).await;
    check("1990-01-01..2025-12-07", 200).await;
}
