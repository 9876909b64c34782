//! Comparison of two sources: real histories over gRPC, over plain HTTP, and with the command `compare`.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use silkrate::clock::Clock as _;
use silkrate::domain::Timestamp;
use silkrate::proto::v1;
use tonic::Status;

use crate::support;
use crate::support::{TestServer, assert_invalid};
use crate::web::{get, rows};

const FILES: &str = env!("CARGO_MANIFEST_DIR");
const DAY_US: i64 = Timestamp::DAY_US;

#[allow(clippy::unnecessary_wraps, reason = "times of messages are optional")]
fn time(text: &str) -> Option<prost_types::Timestamp> {
    let (seconds, nanos) = Timestamp::parse(text).unwrap().to_parts();
    Some(prost_types::Timestamp { seconds, nanos })
}

/// Returns the month and day that begin at a time, in a zone that is the given number of hours ahead of UTC.
fn day_of(start: Option<&prost_types::Timestamp>, ahead_h: i64) -> String {
    let start = start.unwrap();
    let start = Timestamp::from_parts_floor(start.seconds + ahead_h * 3_600, start.nanos).unwrap();
    start.to_string().strip_suffix("T00:00:00Z").unwrap()[5..].to_owned()
}

/// Reads ticks from a file with the columns that `ingest` accepts.
fn history(name: &str) -> Vec<v1::Tick> {
    let mut table = csv::Reader::from_path(Path::new(FILES).join(name)).unwrap();
    let tick = |row: csv::StringRecord| {
        let observed_time = time(&row[2]);
        v1::Tick {
            pair: row[0].to_owned(),
            source: row[1].to_owned(),
            observed_time,
            rate: row[3].to_owned(),
            reported_change_percent: None,
        }
    };
    table.records().map(|row| tick(row.unwrap())).collect()
}

/// Starts a server with the ticker's dated pages of 2024 and 2025, and market rates of the same years.
pub(super) async fn ticker_and_market() -> TestServer {
    let mut flags = vec!["--load".to_owned()];
    for file in std::fs::read_dir(Path::new(FILES).join("tests/data/ticker")).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("20") {
            flags.push(path.display().to_string());
        }
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = TestServer::start(&flags).await;
    let market = history("tests/data/history/fawazahmed0-2024-2026.csv").into_iter();
    let past: Vec<v1::Tick> = market.filter(|tick| tick.observed_time.unwrap().seconds < 1_765_152_000).collect();
    server.store(&past).await;
    server
}

fn of(pair: &str, sources: [&str; 2]) -> v1::CompareSourcesRequest {
    v1::CompareSourcesRequest {
        pair: pair.to_owned(),
        sources: sources.map(str::to_owned).to_vec(),
        decimal_places: Some(4),
        ..Default::default()
    }
}

async fn compare(
    server: &TestServer,
    request: v1::CompareSourcesRequest,
) -> Result<v1::CompareSourcesResponse, Status> {
    server.rates().compare_sources(request).await.map(tonic::Response::into_inner)
}

/// Formats a day as "12-05 0.01144 0.0114.. -0.05 (-0.10 -0.01)", followed by `=` if the ranges overlap, or by `[` (a
/// stretch begins), `]` (it ends) and the lags; `...` marks an incomplete day.
fn day_text(day: &v1::ComparedDay) -> String {
    let rate = |side: Option<&v1::GetRateResponse>| side.map_or("?".to_owned(), |side| side.rate.clone());
    let text = |text: &Option<String>| text.clone().unwrap_or("?".to_owned());
    let lag = |days: Option<u32>| days.map_or("-".to_owned(), |days| days.to_string());
    let apart = match day.overlap {
        None => "?".to_owned(),
        Some(true) => "=".to_owned(),
        Some(false) => format!(
            "{}{}{},{}",
            if day.stretch_begins { "[" } else { "" },
            if day.stretch_ends { "]" } else { "" },
            lag(day.first_lag_days),
            lag(day.second_lag_days)
        ),
    };
    format!(
        "{} {} {} {} ({} {}) {apart}{}",
        day_of(day.period_start_time.as_ref(), 0),
        rate(day.first.as_ref()),
        rate(day.second.as_ref()),
        text(&day.percent_difference),
        text(&day.percent_difference_low),
        text(&day.percent_difference_high),
        if day.complete { "" } else { "..." }
    )
}

/// Returns the first day of a stretch, its number of days, and whether it begins before or continues after the
/// requested range.
fn stretch(stretch: Option<&v1::ApartStretch>) -> Option<(String, u32, bool, bool)> {
    let stretch = stretch?;
    Some((day_of(stretch.start_time.as_ref(), 0), stretch.day_count, stretch.began_earlier, stretch.goes_on))
}

#[tokio::test]
async fn compare_ticker_with_market_rates() {
    let server = ticker_and_market().await;
    let request =
        v1::CompareSourcesRequest { start_time: time("2025-12-03"), ..of("KGS/USD", ["timesca", "fawazahmed0"]) };
    let page = compare(&server, request.clone()).await.unwrap();
    // 1/87.46319239 is 0.01143338..: it lies within 0.01143 plus or minus half of its last place, but below the range
    // of 0.01144, which begins at 0.011435. 1/87.4886377 is 0.01143005...
    let expect = [
        "12-03 0.01143 0.0114333809763195 0.0296 (-0.0142 0.0734) =",
        "12-04 0.01143 0.0114333809763195 0.0296 (-0.0142 0.0734) =",
        "12-05 0.01144 0.0114333809763195 -0.0579 (-0.1016 -0.0141) [-,1",
        "12-06 0.01144 0.0114300556768185 -0.0869 (-0.1306 -0.0432) ]-,2",
        "12-07 0.01143 0.0114300556768185 0.0005 (-0.0433 0.0443) =",
        "12-08 0.01144 0.0114300556768185 -0.0869 (-0.1306 -0.0432) [-,1...",
    ];
    assert_eq!(page.days.iter().map(day_text).collect::<Vec<_>>(), expect);
    let second = page.days[3].second.as_ref().unwrap();
    assert_eq!((second.derivation(), second.legs[0].rate.as_str()), (v1::Derivation::Inverse, "87.4886377"));
    assert_eq!(second.age.unwrap().seconds, 86_399);
    let summary = page.summary.as_ref().unwrap();
    assert_eq!([summary.compared_day_count, summary.apart_day_count], [6, 3]);
    assert_eq!([summary.first_lag_day_count, summary.second_lag_day_count], [0, 3]);
    assert_eq!(stretch(summary.longest_stretch.as_ref()), Some(("12-05".to_owned(), 2, false, false)));
    assert_eq!(stretch(summary.last_stretch.as_ref()), Some(("12-08".to_owned(), 1, false, true)));
    assert_eq!(summary.largest_percent_difference.as_deref(), Some("-0.0869"));
    assert_eq!(day_of(summary.largest_difference_time.as_ref(), 0), "12-06");

    // A day has the same values in every requested range; the summary covers only the range.
    let part = v1::CompareSourcesRequest {
        start_time: time("2025-12-06"),
        end_time: time("2025-12-07"),
        ..of("KGS/USD", ["timesca", "fawazahmed0"])
    };
    let one = compare(&server, part).await.unwrap();
    assert_eq!(one.days, page.days[3..4]);
    let summary = one.summary.unwrap();
    assert_eq!(stretch(summary.longest_stretch.as_ref()), Some(("12-06".to_owned(), 1, true, false)));

    // A rate with one digit is compatible with every market rate of two years.
    let one_digit = compare(&server, of("UZS/USD", ["timesca", "fawazahmed0"])).await.unwrap();
    let first = &one_digit.days[0];
    // The first day of either source is 2 March 2024, before the first tick of the ticker.
    assert_eq!(day_text(first), "03-02 ? 0.0000798513031181530 ? (? ?) ?");
    assert_eq!(first.first_missing_reason(), v1::MissingReason::NoQuoteYet);
    let summary = one_digit.summary.unwrap();
    assert_eq!((summary.compared_day_count, summary.apart_day_count), (457, 0));
    assert_eq!((summary.longest_stretch, summary.last_stretch), (None, None));

    // With the sources and the pair swapped, the sides and their lags are swapped.
    let swapped = v1::CompareSourcesRequest { last_days: Some(1), ..of("USD/KGS", ["fawazahmed0", "timesca"]) };
    let swapped = compare(&server, swapped).await.unwrap();
    assert_eq!(
        swapped.days.iter().map(day_text).collect::<Vec<_>>(),
        ["12-08 87.4886377 87.4125874125874 -0.0869 (-0.1306 -0.0432) [1,-..."]
    );
    server.stop().await;
}

#[tokio::test]
async fn cross_rates_are_compared_with_bounds_of_their_legs() {
    let server = ticker_and_market().await;
    let request = v1::CompareSourcesRequest { last_days: Some(1), ..of("KGS/KZT", ["timesca", "fawazahmed0"]) };
    let page = compare(&server, request).await.unwrap();
    // 0.01144 / 0.00196 compared with 505.91988614 / 87.4886377: the bounds follow from four rounding intervals.
    let expect = "12-08 5.83673469387755 5.78269246658986 -0.9259 (-1.2219 -0.6297) [-,1...";
    let day = &page.days[0];
    assert_eq!(day_text(day), expect);
    for side in [&day.first, &day.second] {
        let side = side.as_ref().unwrap();
        assert_eq!((side.derivation(), side.legs.len()), (v1::Derivation::Cross, 2));
    }
    server.stop().await;
}

#[tokio::test]
async fn pages_equal_one_response_and_days_begin_in_the_time_zone() {
    let server = ticker_and_market().await;
    let ranges: [fn(&mut v1::CompareSourcesRequest); 4] = [
        |_| (),
        |request| request.last_days = Some(40),
        |request| request.end_time = time("2025-02-01"),
        |request| request.time_zone = "Asia/Bishkek".to_owned(),
    ];
    for narrow in ranges {
        let mut request = of("KGS/USD", ["timesca", "fawazahmed0"]);
        narrow(&mut request);
        let whole = compare(&server, request.clone()).await.unwrap();
        assert_eq!(whole.next_page_token, "");
        let (mut days, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let request = v1::CompareSourcesRequest { page_size: 39, page_token: token.clone(), ..request.clone() };
            let page = compare(&server, request).await.unwrap();
            assert_eq!(page.summary.is_some(), token.is_empty());
            assert!(page.summary.is_none() || page.summary == whole.summary);
            days.extend(page.days);
            token = page.next_page_token;
            pages += 1;
            if token.is_empty() {
                break;
            }
            // Later times and later commits do not change the remaining pages.
            server.clock.advance_us(DAY_US);
            server.store(&[support::tick("KGS/USD", -i64::try_from(pages).unwrap(), "0.05")]).await;
        }
        // Hundreds of days are too many for an assertion message.
        assert!(days == whole.days, "{:?}", days.iter().zip(&whole.days).find(|(page, whole)| page != whole));
        assert_eq!(pages, whole.days.len().div_ceil(39));
        // An as-of read at that commit gives the same comparison, except for values relative to now.
        let known = v1::CompareSourcesRequest { known_time: whole.recorded_time, ..request };
        let known = compare(&server, known).await.unwrap();
        let (last, before) = (known.days.last().unwrap(), known.days.len() - 1);
        let differing = known.days.iter().zip(&whole.days).take(before).find(|(known, whole)| known != whole);
        assert!(differing.is_none(), "{differing:?}");
        assert_eq!(last.percent_difference, whole.days[before].percent_difference);
    }
    let zoned = v1::CompareSourcesRequest {
        time_zone: "Asia/Bishkek".to_owned(),
        last_days: Some(2),
        ..of("KGS/USD", ["timesca", "fawazahmed0"])
    };
    let zoned = compare(&server, zoned).await.unwrap();
    let starts: Vec<String> = zoned.days.iter().map(|day| day_of(day.period_start_time.as_ref(), 6)).collect();
    let today = Timestamp::parse(&server.clock.now().to_string()[..10]).unwrap();
    let days = [today.saturating_add_us(-DAY_US), today].map(|day| day.to_string()[5..10].to_owned());
    assert_eq!(starts, days);
    server.stop().await;
}

#[tokio::test]
async fn source_that_copies_a_rate_three_days_late_lags_by_up_to_three_days() {
    let server = TestServer::start(&[]).await;
    let official = history("data/history-sample.csv");
    let late = official.iter().map(|tick| {
        let mut late = v1::Tick { source: "late".to_owned(), ..tick.clone() };
        late.observed_time.as_mut().unwrap().seconds += 3 * 86_400;
        late
    });
    let late: Vec<v1::Tick> = late.collect();
    server.store(&official).await;
    server.store(&late).await;
    let request = v1::CompareSourcesRequest {
        start_time: time("2017-02-01"),
        end_time: time("2017-12-01"),
        ..of("USD/UZS", ["late", "cbu"])
    };
    let page = compare(&server, request).await.unwrap();
    let apart: Vec<&v1::ComparedDay> = page.days.iter().filter(|day| day.overlap == Some(false)).collect();
    assert!(apart.len() > 100, "{}", apart.len());
    for day in apart {
        // A day of a new rate has a lag of three days, or less if the next rate followed sooner.
        assert!(day.first_lag_days.is_some_and(|days| (1..=3).contains(&days)), "{}", day_text(day));
    }
    let summary = page.summary.unwrap();
    assert_eq!(summary.first_lag_day_count, summary.apart_day_count);
    // The rate rose from 4210.35 to 8100 on 5 September.
    assert_eq!(summary.largest_percent_difference.as_deref(), Some("92.3831"));
    assert_eq!(day_of(summary.largest_difference_time.as_ref(), 0), "09-05");
    let stretch = summary.longest_stretch.unwrap();
    assert!(stretch.day_count >= 3, "{stretch:?}");
    server.stop().await;
}

#[tokio::test]
async fn lag_of_a_single_requested_day_is_at_most_fourteen_days() {
    let server = TestServer::start(&[]).await;
    let tick = |source: &str, day: &str, rate: &str| v1::Tick {
        pair: "USD/UZS".to_owned(),
        source: source.to_owned(),
        observed_time: time(day),
        rate: rate.to_owned(),
        reported_change_percent: None,
    };
    let official = [tick("cbu", "2025-11-01", "100.00"), tick("cbu", "2025-11-02", "50.00")];
    let late = [tick("late", "2025-11-01", "25.00"), tick("late", "2025-11-15", "100.00")];
    server.store(&[official, late].concat()).await;
    for (day, expect) in [
        ("2025-11-14", "11-14 25.00 50.00 100.0000 (99.9400 100.0601) -,-"),
        ("2025-11-15", "11-15 100.00 50.00 -50.0000 (-50.0075 -49.9924) 14,-"),
        ("2025-11-16", "11-16 100.00 50.00 -50.0000 (-50.0075 -49.9924) -,-"),
    ] {
        let request = v1::CompareSourcesRequest {
            start_time: time(day),
            end_time: time(&format!("{day}T00:00:01Z")),
            ..of("USD/UZS", ["late", "cbu"])
        };
        let page = compare(&server, request).await.unwrap();
        assert_eq!(page.days.iter().map(day_text).collect::<Vec<_>>(), [expect]);
    }
    server.stop().await;
}

#[tokio::test]
async fn invalid_comparison_names_the_field() {
    let server = ticker_and_market().await;
    let check = async |invalidate: fn(&mut v1::CompareSourcesRequest), field: &str, part: &str| {
        let mut request = of("KGS/USD", ["timesca", "fawazahmed0"]);
        invalidate(&mut request);
        assert_invalid(&compare(&server, request).await.unwrap_err(), field, part);
    };
    check(|r| r.sources.truncate(1), "sources", "has 1 of the two sources to compare").await;
    check(|r| r.sources.push("nbkr".to_owned()), "sources", "has 3 entries").await;
    check(|r| r.sources[1] = "timesca".to_owned(), "sources", "has 'timesca' twice").await;
    check(|r| r.sources[1] = "Market".to_owned(), "sources[1]", "is not a slug").await;
    check(|r| r.pair = "KGS".to_owned(), "pair", "pair 'KGS'").await;
    check(|r| r.last_days = Some(0), "last_days", "is 0; give 1 to 10000").await;
    check(|r| r.last_days = Some(10_001), "last_days", "give 1 to 10000").await;
    check(|r| (r.last_days, r.start_time) = (Some(1), time("2025-01-01")), "last_days", "give one of them").await;
    check(|r| r.time_zone = "Bishkek".to_owned(), "time_zone", "is not a time zone").await;
    check(|r| r.decimal_places = Some(13), "decimal_places", "at most 12").await;
    check(|r| r.page_token = "x".to_owned(), "page_token", "not a token of this server").await;
    let absent = compare(&server, of("KGS/USD", ["timesca", "nbkr"])).await.unwrap_err();
    assert_eq!(absent.code(), tonic::Code::NotFound);
    assert!(absent.message().starts_with("there is no series of KGS/USD from nbkr; available:"), "{absent:?}");
    // A range before the first rate is not an error.
    let early = v1::CompareSourcesRequest { end_time: time("2020-01-01"), ..of("KGS/USD", ["timesca", "fawazahmed0"]) };
    let early = compare(&server, early).await.unwrap();
    assert_eq!((early.days.len(), early.summary), (0, Some(v1::ComparisonSummary::default())));
    // Thirty years exceed the limit of days.
    let old =
        v1::Tick { source: "nbkr".to_owned(), observed_time: time("1994-01-01"), ..support::tick("KGS/USD", 0, "0.1") };
    server.store(&[old]).await;
    let long = compare(&server, of("KGS/USD", ["timesca", "nbkr"])).await.unwrap_err();
    assert_invalid(&long, "start_time", "the limit is 10000; shorten the range");
    server.stop().await;
}

#[tokio::test]
async fn plain_http_gives_the_same_comparison() {
    let server = ticker_and_market().await;
    let query = "/v1/compare?pair=KGS/USD&sources=timesca,fawazahmed0&start_time=2025-12-05&end_time=2025-12-07";
    let response = get(server.http_addr, query).await;
    let body = response.json();
    assert_eq!(body["days"][0]["percent_difference"], json!("-0.057859"));
    assert_eq!((&body["days"][0]["overlap"], &body["days"][1]["second_lag_days"]), (&json!(false), &json!(2)));
    assert_eq!(
        (&body["summary"]["apart_day_count"], &body["summary"]["longest_stretch"]["goes_on"]),
        (&json!(2), &json!(false))
    );
    assert!(response.header("etag").is_some());
    let csv = get(server.http_addr, &format!("{query}&format=csv")).await;
    let rows = rows(&csv.body);
    let cell = |name: &str| &rows[0].iter().find(|(other, _)| other == name).unwrap().1;
    assert_eq!(
        ["pair", "first_source", "second_source", "first_rate", "second_rate", "overlap", "second_lag_days"].map(cell),
        ["KGS/USD", "timesca", "fawazahmed0", "0.01144", "0.0114333809763195", "false", "1"]
    );
    let problem = get(server.http_addr, "/v1/compare?pair=KGS/USD&sources=timesca").await;
    assert_eq!((problem.status, &problem.json()["field"]), (400, &json!("sources")));
    server.stop().await;
}

/// Runs the command and returns its standard output and standard error.
fn command(address: std::net::SocketAddr, line: &str) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_silkrate"))
        .args(line.split(' '))
        .env("SILKRATE_ENDPOINT", address.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn command_prints_where_sources_are_apart() {
    let server = ticker_and_market().await;
    let address = server.addr;
    let run = async |line: &'static str| tokio::task::spawn_blocking(move || command(address, line)).await.unwrap();
    let (table, stderr) = run("compare --pair KGS/USD --sources timesca,fawazahmed0 --days 6").await;
    let expect = "\
KGS/USD: first timesca as published, second fawazahmed0 as the inverse of USD/KGS
day           first              second        %    low %   high %  apart   lags             age
2025-12-03  0.01143  0.0114333809763195   0.0296  -0.0142   0.0734  no      -                32 d
2025-12-04  0.01143  0.0114333809763195   0.0296  -0.0142   0.0734  no      -                33 d
2025-12-05  0.01144  0.0114333809763195  -0.0579  -0.1016  -0.0141  begins  fawazahmed0 1 d  34 d
2025-12-06  0.01144  0.0114300556768185  -0.0869  -0.1306  -0.0432  ends    fawazahmed0 2 d  47 h
2025-12-07  0.01143  0.0114300556768185   0.0005  -0.0433   0.0443  no      -                47 h
2025-12-08  0.01144  0.0114300556768185  -0.0869  -0.1306  -0.0432  begins  fawazahmed0 1 d  2 d
Apart on 3 of 6 days. On 3 of these days fawazahmed0 lags timesca. Longest stretch: 2 days, 2025-12-05 to \
2025-12-06. Largest difference: -0.0869 % on 2025-12-06. Apart since 2025-12-08; fawazahmed0 lags timesca by 1 day.
";
    let warnings = "warning: timesca was stale on the last day; its rate may differ only because it is old\nwarning: fawazahmed0 was stale on the last day; its rate may differ only because it is old\n";
    assert_eq!((table.as_str(), stderr.as_str()), (expect, warnings));
    // The table fits into a hundred columns; a terminal wraps the last line.
    assert!(table.lines().take(8).all(|line| line.chars().count() <= 100), "{table}");

    // All requested days are printed; other lists would be cut at 50.
    let (table, stderr) = run("compare --pair KGS/USD --sources timesca,fawazahmed0 --days 60").await;
    assert_eq!(
        (table.lines().nth(61).map(|line| &line[..10]), stderr.as_str()),
        (Some("2025-12-08"), warnings),
        "{table}"
    );
    let (table, _) = run("compare --pair UZS/USD --sources timesca,fawazahmed0 --time-zone Asia/Tashkent").await;
    assert!(table.contains("second fawazahmed0 as the inverse of USD/UZS"), "{table}");
    assert!(table.contains("\nNever apart on 30 days: on each day, one rate fits the published digits"), "{table}");
    assert_eq!(table.lines().nth(31).map(|line| &line[..10]), Some("2025-12-08"), "{table}");
    let (table, stderr) = run("compare --pair KGS/USD --sources timesca,fawazahmed0 --from 2025-12-05 --limit 1").await;
    assert!(table.contains("Apart since 2025-12-08.\n"), "{table}");
    assert_eq!(stderr, "");
    let (table, stderr) = run("compare --pair KGS/USD --sources timesca,fawazahmed0 --to 2024-01-01").await;
    assert_eq!((table.as_str(), stderr.as_str()), ("", "no day in that range has a rate\n"));

    let (text, _) = run("compare --pair KGS/USD --sources timesca,fawazahmed0 --days 2 --output json").await;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let day = &json[1];
    assert_eq!((&day["second"]["legs"][0]["rate"], &day["second_lag_days"]), (&json!("87.4886377"), &json!(1)));
    assert_eq!((&day["percent_difference"], &day["stretch_begins"]), (&json!("-0.086926"), &json!(true)));
    let (text, _) = run("compare --pair KGS/USD --sources timesca,fawazahmed0 --days 2 --output csv").await;
    let rows = rows(&text);
    let cell = |name: &str| &rows[1].iter().find(|(other, _)| other == name).unwrap().1;
    assert_eq!(
        ["second_source", "second_rate", "second_published", "second_age", "overlap"].map(cell),
        ["fawazahmed0", "0.0114300556768185", "87.4886377", "216000s", "false"]
    );
    server.stop().await;
}
