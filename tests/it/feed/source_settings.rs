//! Settings of sources from a file: their effect on a server, and how they are listed.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use silkrate::domain::Timestamp;
use silkrate::proto::v1;
use tempfile::TempDir;
use tonic::Code;

use crate::publisher::{Publisher, Reply};
use crate::support::{TestServer, assert_invalid, tick};
use crate::web;
use crate::web::{get, get_with};

const TICKER_PAGE: &[u8] = include_bytes!("../../../data/times-of-central-asia-2025-12-08.html");

/// Configuration files in a temporary directory.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a file and returns its path.
    fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Writes a file that prefers the sources in the given order.
    fn preferring(&self, name: &str, sources: &[&str]) -> String {
        let tables = sources
            .iter()
            .zip(1..)
            .map(|(source, preference)| format!("[sources.{source}]\npreference = {preference}\n"));
        self.write(name, &tables.collect::<String>())
    }
}

/// Ticks of the ticker and two banks: all three have different KGS rates, and two of them have KZT rates.
fn ticks() -> Vec<v1::Tick> {
    let from = |source: &str, pair: &str, rate: &str| {
        let before = format!("{rate}5");
        let ticks = [(-172_800, before.as_str()), (-60, rate)];
        ticks.map(|(at, rate)| v1::Tick { source: source.to_owned(), ..tick(pair, at, rate) })
    };
    let quotes = [
        from("timesca", "KGS/USD", "0.01141"),
        from("nbkr", "KGS/USD", "0.01142"),
        from("cbu", "KGS/USD", "0.01143"),
        from("timesca", "KZT/USD", "0.00191"),
        from("nbkr", "KZT/USD", "0.00192"),
    ];
    quotes.concat()
}

/// Runs a command while the servers of the test keep running.
async fn output_of(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Runs the command with a server and returns its standard output and standard error.
async fn silkrate(server: &TestServer, line: &str) -> (String, String) {
    let (status, stdout, stderr) = run(server, line).await;
    assert_eq!(status, Some(0), "{line}: {stderr}");
    (stdout, stderr)
}

/// Runs the command with a server and returns its exit status, standard output and standard error.
async fn run(server: &TestServer, line: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command.args(line.split(' ')).args(["--endpoint", &server.addr.to_string()]);
    let Output { status, stdout, stderr } = output_of(command).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

const READS: [&str; 7] = [
    "/v1/rate?pair=KGS/USD",
    "/v1/convert?pair=KGS/USD&amount=100000",
    "/v1/change?pair=KGS/USD&start_time=2025-12-07&end_time=2025-12-08",
    "/v1/changes?pair=KGS/USD&period=day_on_day",
    "/v1/candles?pair=KGS/USD&interval=1d",
    "/v1/history?pair=KGS/USD",
    "/v1/rate?pair=USD/KGS&time=2025-12-07",
];

#[tokio::test]
async fn preferred_source_is_used_for_requests_without_a_source() {
    let files = Files::new();
    let server = TestServer::start(&["--config", &files.preferring("a.toml", &["nbkr", "timesca"])]).await;
    server.store(&ticks()).await;
    for path in READS {
        let response = get(server.http_addr, path).await;
        assert_eq!(response.status, 200, "{path}: {}", response.body);
        assert!(response.body.contains("\"nbkr\""), "{path} does not name the source: {}", response.body);
        assert!(!response.body.contains("timesca") && !response.body.contains("cbu"), "{path}: {}", response.body);
        // A request with a source gets that source.
        let named = get(server.http_addr, &format!("{path}&source=cbu")).await;
        assert!(named.body.contains("\"cbu\"") && !named.body.contains("nbkr"), "{path}: {}", named.body);
    }
    let cross = get(server.http_addr, "/v1/rate?pair=KGS/KZT").await.json();
    let legs: Vec<&Value> = cross["legs"].as_array().unwrap().iter().map(|leg| &leg["source"]).collect();
    assert_eq!(legs, [&json!("nbkr"), &json!("nbkr")]);
    let request = v1::StreamRunsRequest { pair: "KGS/USD".to_owned(), ..Default::default() };
    let first = server.rates().stream_runs(request).await.unwrap().into_inner().message().await.unwrap().unwrap();
    assert_eq!(first.source, "nbkr");
    let page = get(server.http_addr, "/pair/KGS/USD").await;
    assert!(page.body.contains("from nbkr"), "{}", page.body);
    let frankfurter = get(server.http_addr, "/frankfurter/v1/latest?base=KGS&symbols=USD").await;
    assert!(frankfurter.body.contains("{\"USD\":0.01142}"), "{}", frankfurter.body);
    server.stop().await;
}

#[tokio::test]
async fn frankfurter_falls_back_in_order_of_preference() {
    let files = Files::new();
    let file = files.preferring("a.toml", &["nbkr", "timesca"]);
    let from = |source: &str, at: i64, rate: &str| v1::Tick { source: source.to_owned(), ..tick("KGS/USD", at, rate) };
    // The rate of the first preference is too old today. The second preference, `timesca`, is not the first source in
    // alphabetical order.
    let ticks = [from("nbkr", -30 * 86_400, "0.01142"), from("timesca", -60, "0.01141"), from("cbu", -60, "0.01143")];
    let check = async |flags: &[&str], day: &str, expect: &str| {
        let server = TestServer::start(flags).await;
        server.store(&ticks).await;
        let response = get(server.http_addr, &format!("/frankfurter/v1/{day}?base=KGS&symbols=USD")).await;
        assert!(response.body.contains(expect), "{flags:?} {day}: {}", response.body);
        server.stop().await;
    };
    check(&["--config", &file], "latest", "0.01141").await;
    check(&["--config", &file], "2025-11-09", "0.01142").await;
    check(&["--config", &file, "--frankfurter-source", "cbu"], "latest", "0.01143").await;
    check(&[], "latest", "0.01141").await;
}

#[tokio::test]
async fn request_without_source_and_preference_has_one_source() {
    let files = Files::new();
    let server = TestServer::start(&["--config", &files.preferring("a.toml", &["nbt"])]).await;
    server.store(&ticks()).await;
    for path in READS {
        let response = get(server.http_addr, path).await;
        assert_eq!(response.status, 200, "{path}: {}", response.body);
        let named = ["\"cbu\"", "\"nbkr\"", "\"timesca\""].iter().filter(|name| response.body.contains(**name)).count();
        assert_eq!(named, 1, "one request has one source: {path}: {}", response.body);
    }
    server.stop().await;
}

#[tokio::test]
async fn changed_preferences_change_tags_and_invalidate_page_tokens() {
    let files = Files::new();
    let first = TestServer::start(&["--config", &files.preferring("a.toml", &["nbkr"])]).await;
    first.store(&ticks()).await;
    let mut tags = Vec::new();
    for path in READS {
        let tag = get(first.http_addr, path).await.header("etag").unwrap().to_owned();
        assert_eq!(get_with(first.http_addr, path, &[("if-none-match", &tag)]).await.status, 304, "{path}");
        tags.push((path, tag));
    }
    let page = |source: &str, token: &str| v1::ListRunsRequest {
        pair: "KGS/USD".to_owned(),
        source: source.to_owned(),
        page_size: 1,
        page_token: token.to_owned(),
        ..Default::default()
    };
    let unnamed = first.rates().list_runs(page("", "")).await.unwrap().into_inner().next_page_token;
    let named = first.rates().list_runs(page("nbkr", "")).await.unwrap().into_inner().next_page_token;
    let next = first.rates().list_runs(page("", &unnamed)).await.unwrap().into_inner();
    assert_eq!(next.runs[0].source, "nbkr");
    let (dir, _) = first.stop().await;

    let second = TestServer::start_with_store(dir, &["--config", &files.preferring("b.toml", &["cbu", "nbkr"])]).await;
    for (path, tag) in tags {
        let response = get_with(second.http_addr, path, &[("if-none-match", &tag)]).await;
        assert_eq!(response.status, 200, "{path} must not be reported as unchanged with another source");
        assert!(response.body.contains("\"cbu\""), "{path}: {}", response.body);
    }
    let refused = second.rates().list_runs(page("", &unnamed)).await.unwrap_err();
    assert_invalid(&refused, "page_token", "the settings of the sources have changed");
    let next = second.rates().list_runs(page("nbkr", &named)).await.unwrap().into_inner();
    assert_eq!(next.runs[0].source, "nbkr", "a page token with a named source stays valid");
    second.stop().await;
}

#[tokio::test]
async fn changed_collapse_window_is_refused_with_its_origin() {
    let files = Files::new();
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    let (dir, _) = server.stop().await;
    let file = files.write("window.toml", "[sources.timesca]\n# Quieter\ncollapse_window = \"30m\"\n");
    let serve = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--http-listen", "none", "--reserve-mib", "0"]);
        command.args(flags).arg("--db").arg(dir.path().join("db"));
        command
    };
    let check = async |flags: &[&str], expect: &str| {
        let output = output_of(serve(flags)).await;
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains("stored with a collapse window of 3600 s, but 1800 s is configured"), "{log}");
        assert!(log.contains(expect), "no '{expect}' in: {log}");
    };
    check(&["--config", &file], &format!("it is configured in {file}, line 3")).await;
    check(&["--collapse-window", "timesca=30m"], "it is configured by --collapse-window").await;
    let server = TestServer::start_with_store(dir, &["--config", &file, "--recollapse"]).await;
    let series = server.rates().list_series(v1::ListSeriesRequest::default()).await.unwrap().into_inner().series;
    assert_eq!(series[0].collapse_window.unwrap().seconds, 1_800);
    server.stop().await;
}

const SETTINGS: &str = "\
[defaults]
stale_limit = \"2h\"
[sources.nbkr]
preference = 1
collapse_window = \"5d\"
publication = \"16:30\"
pace = \"30m\"
[sources.mine]
minimum_places = 5
";

#[tokio::test]
async fn sources_are_listed_with_the_origin_of_each_setting() {
    let files = Files::new();
    let file = files.write("a.toml", SETTINGS);
    let flags = ["--config", &file, "--stale-limit", "nbk=3d", "--feed-url", "cbu=http://127.0.0.1:1/mirror"];
    let server = TestServer::start(&flags).await;
    server.store(&ticks()).await;
    let (table, note) = silkrate(&server, "sources").await;
    let expect = "\
source   feed  window  stale  pace          prefer  factor  places  series
cbt      off   7d      5d     1h; 09:00     -       5       4       0
cbu      off   7d      5d     1h; 15:00     -       5       0       1; 2025-12-08
mine     -     1h      2h*    -             -       5       5*      0
nbk      off   7d      3d!    1h; 15:30     -       5       2       0
nbkr     off   5d*     5d     30m*; 16:30*  1*      5       0       2; 2025-12-08
nbt      off   7d      5d     1h; 12:00     -       5       0       0
timesca  off   1h      2h*    1m            -       5       0       2; 2025-12-08
";
    assert_eq!(table, expect);
    assert!(table.lines().all(|line| line.chars().count() <= 100), "the table must fit into 100 columns");
    assert_eq!(
        note,
        "nbkr: stale limit 9d for TJS/KGS, TMT/KGS, UZS/KGS\n\
         * set in the configuration file, ! set by a flag or an environment variable\n"
    );
    let (status, table, note) = run(&server, "sources other nbt").await;
    assert!(table.contains("nbt "), "{table}");
    assert_eq!(
        (status, note.as_str()),
        (Some(1), "error: there is no source 'other'; 'silkrate sources' lists all sources\n")
    );

    let (text, note) = silkrate(&server, "sources nbkr cbu --output json").await;
    let listed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (listed[0]["source"].as_str(), listed[1]["source"].as_str(), note.as_str()),
        (Some("cbu"), Some("nbkr"), "")
    );
    assert_eq!((&listed[0]["url"], &listed[0]["url_origin"]), (&json!("http://127.0.0.1:1/mirror"), &json!("FLAG")));
    assert_eq!((&listed[0]["preference"], &listed[0]["preference_origin"]), (&json!(null), &json!(null)));
    let nbkr = &listed[1];
    assert_eq!((&nbkr["collapse_window"], &nbkr["collapse_window_origin"]), (&json!("432000s"), &json!("FILE")));
    assert_eq!((&nbkr["stale_limit"], &nbkr["stale_limit_origin"]), (&json!("432000s"), &json!("DEFAULT")));
    assert_eq!((&nbkr["pace"], &nbkr["publication"]), (&json!("1800s"), &json!("16:30")));
    assert_eq!((&nbkr["preference"], &nbkr["minimum_places"]), (&json!(1), &json!(0)));
    assert_eq!((&nbkr["series_count"], &nbkr["last_observed_time"]), (&json!(2), &json!("2025-12-08T11:59:00Z")));
    assert_eq!(nbkr["last_recorded_time"], json!("2025-12-08T12:00:00Z"));
    // Plain HTTP gives the same data.
    let over_http = get(server.http_addr, "/v1/sources?sources=nbkr,cbu").await.json();
    assert_eq!(over_http["sources"], listed);
    let (csv, _) = silkrate(&server, "sources nbkr --output csv").await;
    assert_eq!(web::rows(&csv), get(server.http_addr, "/v1/sources?sources=nbkr&format=csv").await.csv());

    let request = v1::ListSourcesRequest { sources: vec!["nbkr".to_owned(), "NBK".to_owned()] };
    assert_invalid(&server.rates().list_sources(request).await.unwrap_err(), "sources[1]", "not a slug");
    let request = v1::ListSourcesRequest { sources: vec!["a".to_owned(); 101] };
    assert_eq!(server.rates().list_sources(request).await.unwrap_err().code(), Code::InvalidArgument);
    server.stop().await;
}

#[tokio::test]
async fn configuration_file_sets_followed_sources_and_their_urls() {
    let publisher = Publisher::start(|path| match path {
        "/" => Reply::Body(TICKER_PAGE.to_vec()),
        _ => Reply::ABSENT,
    })
    .await;
    let files = Files::new();
    let text = format!("[sources.timesca]\nfollow = true\npace = \"10s\"\nurl = \"{}\"\n", publisher.base_url);
    let server = TestServer::start(&["--config", &files.write("a.toml", &text)]).await;
    let sources = async || {
        let request = v1::ListSourcesRequest { sources: vec!["timesca".to_owned()] };
        server.rates().list_sources(request).await.unwrap().into_inner().sources.remove(0)
    };
    let is_polled = async |polls: usize, tries: usize| {
        for _ in 0..tries {
            if publisher.requests().len() >= polls && sources().await.last_poll_time.is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    };
    assert!(is_polled(1, 600).await, "{:?}", publisher.requests());
    let timesca = sources().await;
    assert_eq!(timesca.last_poll_health(), v1::FeedHealth::Ok);
    assert_eq!(timesca.health_since_time, timesca.last_poll_time);
    assert_eq!((timesca.series_count, timesca.followed, timesca.followed_origin()), (5, true, v1::SettingOrigin::File));
    assert_eq!((timesca.url(), timesca.pace.unwrap().seconds), (publisher.base_url.as_str(), 10));
    // Advances the clock by the configured poll interval plus the maximal jitter, which is less than the default
    // interval of a minute. If the first poll ended only after this advance, a second advance is needed.
    server.clock.advance_us(12 * Timestamp::SECOND_US);
    if !is_polled(2, 100).await {
        server.clock.advance_us(12 * Timestamp::SECOND_US);
    }
    assert!(is_polled(2, 600).await, "{:?}", publisher.requests());
    server.stop().await;
}
