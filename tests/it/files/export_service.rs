//! `ExportSnapshot` over the wire: rows, refusals, and the release of resources.

use silkrate::export::{Checker, Step};
use silkrate::proto::v1;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::files::exported::{all, export, footer, key_value, open, open_when_free, receive};
use crate::files::tables;
use crate::support::{TestServer, assert_invalid, tick, time};

const DAY_S: i64 = 24 * 3_600;
const MANY_RUNS: i64 = 60_000;

fn with_change(pair: &str, seconds: i64, rate: &str, change: &str) -> v1::Tick {
    v1::Tick { reported_change_percent: Some(change.to_owned()), ..tick(pair, seconds, rate) }
}

/// The rates of these tests differ as much as digits allow, so the quarantine is off.
const QUARANTINE_OFF: [&str; 2] = ["--quarantine-factor", "none"];

/// Starts a server with two series. Among their ticks are the rate with the most digits, a fall that rounded to zero,
/// and a confirmation of a rate.
async fn start() -> TestServer {
    let server = TestServer::start(&QUARANTINE_OFF).await;
    server
        .store(&[
            with_change("UZS/USD", -600, "0.00008", "-0"),
            tick("KGS/USD", -DAY_S * 3, "0.28490"),
            tick("KGS/USD", -DAY_S * 3 + 60, "0.28490"),
            with_change("KGS/USD", -DAY_S, "12345678901234567890.12345678", "-1.50"),
        ])
        .await;
    server
}

#[tokio::test]
async fn exported_runs_keep_every_digit() {
    let server = start().await;
    let exported = export(&server, all()).await;
    let values = ["pair", "source", "rate", "rate_double", "published_places"];
    assert_eq!(
        exported.rows("runs.parquet", &values),
        [
            "KGS/USD timesca 0.284900000000000000 0.2849 5",
            "KGS/USD timesca 12345678901234567890.123456780000000000 12345678901234567000 8",
            "UZS/USD timesca 0.000080000000000000 0.00008 5",
        ]
    );
    let changes = ["reported_change_percent", "reported_change_places", "reported_change_negative"];
    assert_eq!(
        exported.rows("runs.parquet", &changes),
        ["null null null", "-1.500000000000 2 true", "0.000000000000 0 true"]
    );
    let times = ["first_observed_time", "last_observed_time", "recorded_time", "observation_count"];
    assert_eq!(
        exported.rows("runs.parquet", &times)[0],
        "2025-12-05T12:00:00Z 2025-12-05T12:01:00Z 2025-12-08T12:00:00Z 2"
    );
    let manifest = &exported.manifest;
    assert_eq!((manifest.schema_version, manifest.sequence, manifest.expected_row_count), (2, 1, Some(3)));
    assert_eq!(manifest.recorded_time, Some(time(0)));
    assert_eq!(manifest.request.as_ref().unwrap().format(), v1::ExportFormat::Parquet);
}

#[tokio::test]
async fn parquet_metadata_identifies_the_export() {
    use parquet::basic::Compression;

    let server = start().await;
    let exported = export(&server, v1::ExportSnapshotRequest { pairs: vec!["KGS/USD".to_owned()], ..all() }).await;
    let metadata = footer(&exported.path("runs.parquet"));
    let entry = |key: &str| key_value(&metadata, key);
    assert_eq!(entry("silkrate.schema_version"), "2");
    assert_eq!(entry("silkrate.sequence"), "1");
    assert_eq!(entry("silkrate.recorded_time"), "2025-12-08T12:00:00Z");
    assert_eq!(entry("silkrate.version"), env!("CARGO_PKG_VERSION"));
    let filter: serde_json::Value = serde_json::from_str(&entry("silkrate.filter")).unwrap();
    assert_eq!(
        (&filter["pairs"][0], &filter["shape"], &filter["start_time"]),
        (&"KGS/USD".into(), &"runs".into(), &serde_json::Value::Null)
    );
    let group = metadata.row_group(0);
    assert_eq!(group.num_rows(), 2);
    for column in group.columns() {
        assert!(column.statistics().is_some(), "{}", column.column_path());
        assert!(matches!(column.compression(), Compression::ZSTD(_)), "{}", column.column_path());
    }
}

#[tokio::test]
async fn arrow_and_csv_have_the_same_rows_as_parquet() {
    let server = start().await;
    let parquet = export(&server, all()).await.rows("runs.parquet", &[]);
    let request = |format: v1::ExportFormat| v1::ExportSnapshotRequest { format: format.into(), ..all() };
    let arrow = export(&server, request(v1::ExportFormat::ArrowStream)).await;
    assert_eq!(tables::rows(&tables::arrow_stream(&arrow.path("runs.arrows")), &[]), parquet);
    let csv = export(&server, request(v1::ExportFormat::Csv)).await;
    let text = std::fs::read_to_string(csv.path("runs.csv")).unwrap();
    let expect = "\
pair,source,first_observed_time,last_observed_time,recorded_time,rate,rate_double,published_places,reported_change_percent,reported_change_places,reported_change_negative,observation_count
KGS/USD,timesca,2025-12-05T12:00:00Z,2025-12-05T12:01:00Z,2025-12-08T12:00:00Z,0.28490,0.2849,5,,,,2
KGS/USD,timesca,2025-12-07T12:00:00Z,2025-12-07T12:00:00Z,2025-12-08T12:00:00Z,12345678901234567890.12345678,12345678901234567000,8,-1.50,2,true,1
UZS/USD,timesca,2025-12-08T11:50:00Z,2025-12-08T11:50:00Z,2025-12-08T12:00:00Z,0.00008,0.00008,5,-0,0,true,1
";
    assert_eq!(text, expect);
}

#[tokio::test]
async fn daily_rate_is_the_rate_in_force_at_the_end_of_the_day() {
    let server = start().await;
    let daily = |start: Option<i64>, end: Option<i64>| v1::ExportSnapshotRequest {
        shape: v1::ExportShape::Daily.into(),
        pairs: vec!["KGS/USD".to_owned()],
        start_time: start.map(time),
        end_time: end.map(time),
        ..all()
    };
    // Tomorrow's rate is stored, but not in force at the end of any day so far.
    server.store(&[tick("KGS/USD", DAY_S, "0.9")]).await;
    let (old, new) = ("0.284900000000000000", "12345678901234567890.123456780000000000");
    let day = |day: &str, rate: &str, first: &str| format!("2025-12-{day} {rate} 2025-12-{first}T12:00:00Z");
    let expect = [day("05", old, "05"), day("06", old, "05"), day("07", new, "07"), day("08", new, "07")];
    let columns = ["date", "rate", "first_observed_time"];
    let exported = export(&server, daily(None, None)).await;
    assert_eq!(exported.rows("daily.parquet", &columns), expect);
    // The row has all fields of the run in force, and the current day is marked as incomplete.
    let fields = exported.rows("daily.parquet", &["recorded_time", "observation_count", "complete"]);
    let at = "2025-12-08T12:00:00Z";
    assert_eq!(
        fields,
        [(2, true), (2, true), (1, true), (1, false)].map(|(count, complete)| format!("{at} {count} {complete}"))
    );
    let csv =
        export(&server, v1::ExportSnapshotRequest { format: v1::ExportFormat::Csv.into(), ..daily(None, None) }).await;
    let text = std::fs::read_to_string(csv.path("daily.csv")).unwrap();
    assert_eq!(text.lines().last().unwrap().rsplit(',').take(2).collect::<Vec<_>>(), ["UTC", "false"]);
    // Days that begin in the range are included. The run in force may begin before the range. The clock is at noon.
    let within = export(&server, daily(Some(-DAY_S * 3), Some(-DAY_S))).await;
    assert_eq!(within.rows("daily.parquet", &columns), expect[1..3]);
}

#[tokio::test]
async fn export_as_known_gives_the_same_rows_after_later_commits() {
    let server = start().await;
    let first = export(&server, all()).await;
    server.clock.advance_us(1_000_000);
    // A late tick splits a run, one tick revises a value, and other ticks are new.
    server
        .store(&[tick("KGS/USD", -DAY_S * 3 + 30, "0.5"), tick("KGS/USD", -60, "0.6"), tick("TJS/USD", -60, "0.1")])
        .await;
    let revise = v1::IngestTicksRequest {
        ticks: vec![tick("UZS/USD", -600, "0.00009")],
        conflict_policy: v1::ConflictPolicy::Revise.into(),
        ..Default::default()
    };
    server.ingest().ingest_ticks(revise).await.unwrap();
    let columns = ["pair", "source", "first_observed_time", "recorded_time", "rate", "reported_change_negative"];
    let now = export(&server, all()).await.rows("runs.parquet", &columns);
    let known_time = first.manifest.recorded_time;
    let again = export(&server, v1::ExportSnapshotRequest { known_time, ..all() }).await;
    assert_eq!(again.rows("runs.parquet", &columns), first.rows("runs.parquet", &columns));
    assert_ne!(now, first.rows("runs.parquet", &columns));
    assert_eq!((again.manifest.sequence, again.manifest.expected_row_count), (1, Some(3)));
}

/// The expected row count for the progress bar is approximately right for every kind of export; it comes from the
/// index.
#[tokio::test]
async fn manifest_estimates_the_row_count() {
    const RUNS: i64 = 9_000;
    // The largest error of the estimate: a part of a block at each end of the range.
    const ESTIMATE_ERROR_MAX: u64 = 2_048;
    let server = TestServer::start(&QUARANTINE_OFF).await;
    let ticks: Vec<_> = (0..RUNS).map(|n| tick("KGS/USD", (n - RUNS) * 600, &format!("0.{}", n + 1))).collect();
    for ticks in ticks.chunks(3_000) {
        server.store(ticks).await;
    }
    let check = async |server: &TestServer, request: v1::ExportSnapshotRequest, part: &str, error_max: u64| {
        let exported = export(server, request.clone()).await;
        let (rows, estimate) =
            (exported.rows(part, &["pair"]).len() as u64, exported.manifest.expected_row_count.unwrap());
        assert!(
            rows > 0 && rows.abs_diff(estimate) <= error_max,
            "estimated {estimate} rows, exported {rows}: {request:?}"
        );
    };
    let shape = |shape: v1::ExportShape| v1::ExportSnapshotRequest { shape: shape.into(), ..all() };
    let candles = |interval: v1::CandleInterval, fill_empty| v1::ExportSnapshotRequest {
        interval: interval.into(),
        fill_empty,
        ..shape(v1::ExportShape::Candles)
    };
    let server = server.restart().await;
    let known_time = Some(time(0));
    let known = |request| v1::ExportSnapshotRequest { known_time, ..request };
    let within = |request: v1::ExportSnapshotRequest| v1::ExportSnapshotRequest {
        start_time: Some(time(-6_000 * 600)),
        end_time: Some(time(-1_000 * 600)),
        ..request
    };
    check(&server, all(), "runs.parquet", 0).await;
    check(&server, within(all()), "runs.parquet", ESTIMATE_ERROR_MAX).await;
    check(&server, known(all()), "runs.parquet", 0).await;
    check(&server, known(shape(v1::ExportShape::Daily)), "daily.parquet", 0).await;
    check(&server, shape(v1::ExportShape::Daily), "daily.parquet", 0).await;
    check(&server, within(shape(v1::ExportShape::Daily)), "daily.parquet", 0).await;
    check(&server, candles(v1::CandleInterval::Day, false), "candles.parquet", 0).await;
    check(&server, within(candles(v1::CandleInterval::Minute, true)), "candles.parquet", 0).await;
    check(&server, within(candles(v1::CandleInterval::Minute, false)), "candles.parquet", ESTIMATE_ERROR_MAX).await;
}

#[tokio::test]
async fn range_includes_runs_that_begin_in_it() {
    let server = start().await;
    let check = async |start: Option<i64>, end: Option<i64>, expect: usize| {
        let request = v1::ExportSnapshotRequest { start_time: start.map(time), end_time: end.map(time), ..all() };
        assert_eq!(export(&server, request).await.rows("runs.parquet", &[]).len(), expect, "{start:?} {end:?}");
    };
    check(None, None, 3).await;
    check(Some(-DAY_S), None, 2).await;
    check(None, Some(-DAY_S), 1).await;
    check(Some(-DAY_S), Some(-DAY_S), 0).await;
}

#[tokio::test]
async fn full_export_has_every_part_of_the_store() {
    let server = start().await;
    server.clock.advance_us(1_000_000);
    server.store(&[tick("KGS/USD", -DAY_S * 3 + 30, "0.5")]).await;
    let exported = export(&server, v1::ExportSnapshotRequest { full: true, ..all() }).await;
    let names = [
        "series.parquet",
        "runs.parquet",
        "timeline.parquet",
        "revisions.parquet",
        "commits.parquet",
        "polls.parquet",
        "quarantine.parquet",
        "archive.parquet",
    ];
    assert_eq!(exported.manifest.parts, names);
    assert_eq!(exported.rows("series.parquet", &[]), ["KGS/USD timesca 3600000000", "UZS/USD timesca 3600000000"]);
    assert_eq!(exported.rows("commits.parquet", &[]), ["1 2025-12-08T12:00:00Z", "2 2025-12-08T12:00:01Z"]);
    assert_eq!(
        exported.rows("timeline.parquet", &[]),
        [
            "KGS/USD timesca 2025-12-05T12:00:00Z",
            "KGS/USD timesca 2025-12-05T12:00:30Z",
            "KGS/USD timesca 2025-12-05T12:01:00Z",
            "KGS/USD timesca 2025-12-07T12:00:00Z",
            "UZS/USD timesca 2025-12-08T11:50:00Z",
        ]
    );
    assert_eq!(
        exported.rows("revisions.parquet", &["first_observed_time", "observation_count", "superseded_time"]),
        ["2025-12-05T12:00:00Z 2 2025-12-08T12:00:01Z"]
    );
    let rows: usize = names.iter().map(|name| exported.rows(name, &[]).len()).sum();
    assert_eq!(exported.manifest.expected_row_count, Some(rows as u64));
}

#[tokio::test]
async fn empty_store_exports_files_without_rows() {
    let server = TestServer::start(&QUARANTINE_OFF).await;
    for full in [false, true] {
        let exported = export(&server, v1::ExportSnapshotRequest { full, ..all() }).await;
        for part in &exported.manifest.parts {
            assert_eq!(exported.rows(part, &[]), [""; 0], "{part}");
        }
    }
}

#[tokio::test]
async fn invalid_export_is_refused_before_the_first_message() {
    let server = start().await;
    let refused = async |request| open(&server, request).await.unwrap_err();
    let backwards = v1::ExportSnapshotRequest { start_time: Some(time(1)), end_time: Some(time(0)), ..all() };
    assert_invalid(&refused(backwards).await, "end_time", "swap them");
    let pairs = |pair: &str| v1::ExportSnapshotRequest { pairs: vec![pair.to_owned()], ..all() };
    assert_invalid(&refused(pairs("EUR/USD")).await, "pairs[0]", "not served here");
    let sources = vec!["nbkr".to_owned()];
    for request in [pairs("TJS/USD"), v1::ExportSnapshotRequest { sources, ..all() }] {
        let status = refused(request).await;
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().contains("available: KGS/USD from timesca, UZS/USD from timesca"), "{status:?}");
    }
    let full_csv = v1::ExportSnapshotRequest { full: true, format: v1::ExportFormat::Csv.into(), ..all() };
    assert_invalid(&refused(full_csv).await, "format", "in a full export");
    let before = v1::ExportSnapshotRequest { known_time: Some(time(-1)), ..all() };
    assert_eq!(refused(before).await.code(), Code::NotFound);
}

/// Starts a server with more runs than the stream windows and the channel hold together.
async fn start_with_many() -> TestServer {
    let server = TestServer::start(&QUARANTINE_OFF).await;
    let rates = ["0.5", "0.6"];
    let ticks: Vec<_> =
        (0..MANY_RUNS).zip(rates.iter().cycle()).map(|(at, rate)| tick("KGS/USD", at - MANY_RUNS, rate)).collect();
    for batch in ticks.chunks(10_000) {
        server.store(batch).await;
    }
    server
}

#[tokio::test]
async fn export_sees_one_commit_during_ingest() {
    let server = start_with_many().await;
    let before = export(&server, csv()).await;
    let mut stream = open(&server, csv()).await.unwrap();
    let mut checker = Checker::default();
    checker.accept(stream.message().await.unwrap().unwrap()).unwrap();
    // A late tick splits a run that is not read yet, and new ticks arrive.
    let late = v1::Tick { observed_time: Some(half_a_second_before(time(-5))), ..tick("KGS/USD", 0, "0.9") };
    server.store(&[late, tick("KGS/USD", 60, "0.7"), tick("TJS/USD", 0, "0.1")]).await;
    let mut read = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        if let Step::Data(data, _) = checker.accept(message).unwrap() {
            read.extend_from_slice(&data);
        }
    }
    checker.finish().unwrap();
    assert!(read == std::fs::read(before.path("runs.csv")).unwrap());
    let lines = std::fs::read_to_string(export(&server, csv()).await.path("runs.csv")).unwrap().lines().count();
    assert_eq!(lines, 60_004);
}

fn half_a_second_before(time: prost_types::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.seconds - 1, nanos: 500_000_000 }
}

fn csv() -> v1::ExportSnapshotRequest {
    v1::ExportSnapshotRequest { format: v1::ExportFormat::Csv.into(), ..all() }
}

#[tokio::test]
async fn dropped_streams_free_their_export_slots() {
    /// The limit of the service for one client.
    const EXPORTS_MAX: usize = 3;
    let server = start_with_many().await;
    let mut streams = Vec::new();
    for _ in 0..EXPORTS_MAX {
        let mut stream = open(&server, csv()).await.unwrap();
        assert!(stream.message().await.unwrap().is_some());
        streams.push(stream);
    }
    let refused = open(&server, csv()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_error_details().retry_info().is_some(), "{refused:?}");
    drop(streams);
    // All slots are free again, and the next exports are complete.
    let mut streams = Vec::new();
    for _ in 0..EXPORTS_MAX {
        streams.push(open_when_free(&server, csv()).await);
    }
    drop(streams);
    let exported = receive(open_when_free(&server, csv()).await).await;
    let lines = std::fs::read_to_string(exported.path("runs.csv")).unwrap().lines().count();
    assert_eq!(lines, 60_001);
}
