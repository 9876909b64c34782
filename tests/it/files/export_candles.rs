//! Exports of candles: they equal `ListCandles`, and invalid requests are refused.

use silkrate::domain::Timestamp;
use silkrate::export::{Checker, Step};
use silkrate::proto::v1;

use crate::files::exported::{all, export, footer, key_value, open, open_when_free};
use crate::support::{TestServer, assert_invalid, tick, time};

const DAY_S: i64 = 24 * 3_600;

fn candles(interval: v1::CandleInterval) -> v1::ExportSnapshotRequest {
    v1::ExportSnapshotRequest { shape: v1::ExportShape::Candles.into(), interval: interval.into(), ..all() }
}

/// Returns a decimal in units of 10^-18, and its number of places.
fn units(decimal: &str) -> (i128, u32) {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let places = u32::try_from(fraction.len()).unwrap();
    (format!("{whole}{fraction}").parse::<i128>().unwrap() * 10_i128.pow(18 - places), places)
}

/// Compares the candles of an export with `ListCandles` as known at the recorded time of the export. Returns the number
/// of candles.
async fn check_candles(server: &TestServer, request: v1::ExportSnapshotRequest) -> usize {
    let exported = export(server, request.clone()).await;
    let points = ["open", "open_time", "high", "high_time", "low", "low_time", "close", "close_time"];
    let columns = [&["pair", "source", "start_time", "end_time"][..], &points, &["move_count", "complete", "filled"]];
    let rows = exported.rows("candles.parquet", &columns.concat());
    let averages = exported.rows("candles.parquet", &["average"]);
    let series = exported.rows("candles.parquet", &["pair", "source"]);
    let mut series: Vec<(&str, &str)> = series.iter().map(|row| row.split_once(' ').unwrap()).collect();
    series.dedup();
    let mut at = 0;
    for (pair, source) in series {
        let list = v1::ListCandlesRequest {
            pair: pair.to_owned(),
            source: source.to_owned(),
            interval: request.interval,
            time_zone: request.time_zone.clone(),
            start_time: request.start_time,
            end_time: request.end_time,
            fill_empty: request.fill_empty,
            known_time: exported.manifest.recorded_time,
            page_size: 10_000,
            ..v1::ListCandlesRequest::default()
        };
        let listed = server.rates().list_candles(list).await.unwrap().into_inner();
        assert_eq!(listed.sequence, exported.manifest.sequence);
        for candle in listed.candles {
            let rate = |text: &str| {
                let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
                format!("{whole}.{fraction:0<18}")
            };
            let time = |time: Option<prost_types::Timestamp>| {
                let time = time.unwrap();
                Timestamp::from_parts_floor(time.seconds, time.nanos).unwrap()
            };
            let expect = format!(
                "{pair} {source} {} {} {} {} {} {} {} {} {} {} {} {} {}",
                time(candle.start_time),
                time(candle.end_time),
                rate(&candle.open),
                time(candle.open_time),
                rate(&candle.high),
                time(candle.high_time),
                rate(&candle.low),
                time(candle.low_time),
                rate(&candle.close),
                time(candle.close_time),
                candle.move_count,
                candle.complete,
                candle.filled
            );
            assert_eq!(rows[at], expect);
            // The list rounds to 15 significant digits; the export has 18 places.
            let ((exact, _), (rounded, places)) = (units(&averages[at]), units(&candle.average));
            assert!(2 * (exact - rounded).abs() <= 10_i128.pow(18 - places), "{} {}", averages[at], candle.average);
            at += 1;
        }
    }
    assert_eq!(at, rows.len());
    rows.len()
}

#[tokio::test]
async fn exported_candles_equal_list_candles() {
    use v1::CandleInterval::{Day, Hour, Month, Week};

    let server = TestServer::start(&[]).await;
    let at = |pair: &str, source: &str, seconds: i64, rate: &str| v1::Tick {
        source: source.to_owned(),
        ..tick(pair, seconds, rate)
    };
    server
        .store(&[
            at("KGS/USD", "timesca", -DAY_S * 40, "0.01"),
            at("KGS/USD", "timesca", -DAY_S * 3 - 7_000, "0.03"),
            at("KGS/USD", "timesca", -DAY_S * 3, "0.02"),
            at("KGS/USD", "timesca", -DAY_S, "0.0250"),
            at("KGS/USD", "timesca", -600, "0.01"),
            // Tomorrow's rate is stored, but belongs to no candle yet.
            at("KGS/USD", "timesca", DAY_S, "0.9"),
            at("KGS/USD", "nbkr", -DAY_S * 2, "0.0114"),
            at("UZS/USD", "timesca", -DAY_S * 2, "0.00008"),
        ])
        .await;
    let known_time = Some(time(0));
    server.clock.advance_us(DAY_S * Timestamp::SECOND_US / 2);
    // A late tick, which changes what is known.
    server.store(&[at("KGS/USD", "timesca", -DAY_S * 3 + 10, "0.05")]).await;
    // Time passes, but an export still ends at its commit.
    server.clock.advance_us(DAY_S * Timestamp::SECOND_US / 4);
    let filled = |interval| v1::ExportSnapshotRequest { fill_empty: true, ..candles(interval) };
    let in_zone = |name: &str, request| v1::ExportSnapshotRequest { time_zone: name.to_owned(), ..request };
    let check = async |request, rows: usize| assert_eq!(check_candles(&server, request).await, rows);
    check(candles(Day), 4 + 1 + 1).await;
    check(filled(Day), 42 + 4 + 4).await;
    check(in_zone("Asia/Bishkek", filled(Day)), 42 + 4 + 4).await;
    check(candles(Week), 3 + 1 + 1).await;
    check(in_zone("Asia/Tashkent", filled(Month)), 3 + 1 + 1).await;
    check(v1::ExportSnapshotRequest { known_time, ..filled(Hour) }, 961 + 49 + 49).await;
    let range = v1::ExportSnapshotRequest {
        start_time: Some(time(-DAY_S * 4)),
        end_time: Some(time(-DAY_S)),
        pairs: vec!["KGS/USD".to_owned()],
        sources: vec!["timesca".to_owned()],
        ..filled(Hour)
    };
    check(range, 72).await;
    let nothing = v1::ExportSnapshotRequest { start_time: Some(time(DAY_S * 9)), ..candles(Day) };
    check(nothing, 0).await;
}

/// A confirmation that arrives later affects the candles of an earlier known time in only two ways: it adds buckets,
/// and it clears the field `filled` of existing buckets.
#[tokio::test]
async fn later_confirmations_only_add_buckets_and_clear_filled() {
    let server = TestServer::start(&[]).await;
    server
        .store(&[
            tick("KGS/USD", -9 * 3_600, "0.011"),
            tick("KGS/USD", -9 * 3_600 + 600, "0.011"),
            tick("KGS/USD", -8 * 3_600, "0.012"),
            tick("KGS/USD", -3_600, "0.013"),
        ])
        .await;
    let quarters = candles(v1::CandleInterval::FifteenMinutes);
    let export_as = async |known_time: Option<prost_types::Timestamp>, fill_empty: bool| {
        let exported = export(&server, v1::ExportSnapshotRequest { known_time, fill_empty, ..quarters.clone() }).await;
        let columns = [
            "start_time",
            "open",
            "open_time",
            "high",
            "high_time",
            "low",
            "low_time",
            "close",
            "close_time",
            "average",
            "move_count",
            "complete",
        ];
        let (rows, marks) = (exported.rows("candles.parquet", &columns), exported.rows("candles.parquet", &["filled"]));
        (exported.manifest.recorded_time, rows, marks)
    };
    let (known, rows, _) = export_as(None, false).await;
    let (_, filled_rows, filled_marks) = export_as(None, true).await;
    assert_eq!(rows.len(), 3);

    // Two more observations of the second run arrive late.
    server.clock.advance_us(Timestamp::HOUR_US);
    server.store(&[tick("KGS/USD", -8 * 3_600 + 1_800, "0.012"), tick("KGS/USD", -7 * 3_600, "0.012")]).await;
    let (_, again, _) = export_as(known, false).await;
    let kept: Vec<_> = again.iter().filter(|row| rows.contains(row)).cloned().collect();
    assert_eq!(
        (kept, again.len()),
        (rows.clone(), rows.len() + 4),
        "later confirmations must add buckets and change none"
    );
    let (_, again, again_marks) = export_as(known, true).await;
    assert_eq!(again, filled_rows);
    let unmarked = filled_marks.iter().zip(&again_marks).filter(|(before, after)| before != after);
    assert_eq!(unmarked.map(|(before, _)| before.as_str()).collect::<Vec<_>>(), ["true"; 4]);

    // Buckets that had ended, and got no late confirmations, are identical.
    let ended =
        |rows: &[String]| rows.iter().filter(|row| row.as_str() < "2025-12-08T04:00").cloned().collect::<Vec<_>>();
    assert_eq!(ended(&again), ended(&filled_rows));
    let known_again = export_as(known, false).await.1;
    assert_eq!((ended(&known_again), ended(&rows).len()), (ended(&rows), 1));
}

/// Starts a server with two series, one of them with the rate with the most digits.
async fn start() -> TestServer {
    let server = TestServer::start(&["--quarantine-factor", "none"]).await;
    server
        .store(&[
            tick("UZS/USD", -600, "0.00008"),
            tick("KGS/USD", -DAY_S * 3, "0.28490"),
            tick("KGS/USD", -DAY_S, "12345678901234567890.12345678"),
        ])
        .await;
    server
}

#[tokio::test]
async fn manifest_of_candles_has_interval_zone_and_fill() {
    let server = start().await;
    let request = v1::ExportSnapshotRequest {
        format: v1::ExportFormat::Csv.into(),
        time_zone: "Asia/Bishkek".to_owned(),
        pairs: vec!["KGS/USD".to_owned()],
        start_time: Some(time(-DAY_S * 2)),
        ..candles(v1::CandleInterval::Day)
    };
    let exported = export(&server, request.clone()).await;
    assert_eq!(exported.manifest.request, Some(request));
    assert_eq!(exported.manifest.parts, ["candles.csv"]);
    let expect = "\
pair,source,start_time,end_time,open,open_double,open_time,high,high_double,high_time,low,low_double,low_time,close,close_double,close_time,average,average_double,move_count,complete,filled,date,time_zone
KGS/USD,timesca,2025-12-06T18:00:00Z,2025-12-07T18:00:00Z,0.28490,0.2849,2025-12-06T18:00:00Z,12345678901234567890.12345678,12345678901234567000,2025-12-07T12:00:00Z,0.28490,0.2849,2025-12-06T18:00:00Z,12345678901234567890.12345678,12345678901234567000,2025-12-07T12:00:00Z,3086419725308641972.744539195000000000,3086419725308642000,1,true,false,2025-12-07,Asia/Bishkek
";
    assert_eq!(std::fs::read_to_string(exported.path("candles.csv")).unwrap(), expect);
    let parquet = export(&server, candles(v1::CandleInterval::Week)).await;
    let filter = key_value(&footer(&parquet.path("candles.parquet")), "silkrate.filter");
    let filter: serde_json::Value = serde_json::from_str(&filter).unwrap();
    assert_eq!(
        (&filter["shape"], &filter["interval"], &filter["time_zone"], &filter["fill_empty"]),
        (&"candles".into(), &"1w".into(), &serde_json::Value::Null, &false.into())
    );
}

#[tokio::test]
async fn invalid_candle_export_is_refused_before_the_first_message() {
    let server = start().await;
    let refused = async |request| open(&server, request).await.unwrap_err();
    let nowhere =
        v1::ExportSnapshotRequest { time_zone: "Asia/Nowhere".to_owned(), ..candles(v1::CandleInterval::Day) };
    assert_invalid(&refused(nowhere).await, "time_zone", "use a name like Asia/Bishkek");
    let unspecified = candles(v1::CandleInterval::Unspecified);
    assert_invalid(&refused(unspecified).await, "interval", "name one from CANDLE_INTERVAL_MINUTE");
    let runs = v1::ExportSnapshotRequest { interval: v1::CandleInterval::Day.into(), ..all() };
    assert_invalid(&refused(runs).await, "interval", "applies to candles only");
    // The export may have more buckets than one list, up to a limit.
    assert_eq!(export(&server, candles(v1::CandleInterval::Minute)).await.manifest.sequence, 1);
    server.store(&[tick("KGS/USD", -DAY_S * 365 * 30, "0.01")]).await;
    let status = refused(candles(v1::CandleInterval::Minute)).await;
    assert_invalid(
        &status,
        "interval",
        "the limit is 10000000 for each series; shorten the range or use a longer interval",
    );
}

/// Millions of filled minutes, of which the client reads only the beginning.
#[tokio::test]
async fn dropped_stream_stops_the_computation_of_candles() {
    /// The limit of the service for one client.
    const EXPORTS_MAX: usize = 3;
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -DAY_S * 365 * 18, "0.5")]).await;
    let request = || v1::ExportSnapshotRequest { fill_empty: true, ..candles(v1::CandleInterval::Minute) };
    for _ in 0..2 {
        let mut streams = Vec::new();
        while streams.len() < EXPORTS_MAX {
            // The slots of dropped streams are free again long before 9 million rows are computed.
            let mut stream = open_when_free(&server, request()).await;
            assert!(stream.message().await.unwrap().is_some());
            streams.push(stream);
        }
    }
}

#[tokio::test]
async fn export_of_candles_sees_one_commit_during_ingest() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -DAY_S * 400, "0.5"), tick("KGS/USD", -60, "0.6")]).await;
    // More rows than the stream windows and the channel hold together.
    let request = v1::ExportSnapshotRequest {
        format: v1::ExportFormat::Csv.into(),
        fill_empty: true,
        ..candles(v1::CandleInterval::FifteenMinutes)
    };
    let before = export(&server, request.clone()).await;
    let mut stream = open(&server, request).await.unwrap();
    let mut checker = Checker::default();
    checker.accept(stream.message().await.unwrap().unwrap()).unwrap();
    server.store(&[tick("KGS/USD", -DAY_S, "0.7"), tick("KGS/USD", 0, "0.8")]).await;
    let mut read = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        if let Step::Data(data, _) = checker.accept(message).unwrap() {
            read.extend_from_slice(&data);
        }
    }
    let parts = checker.finish().unwrap();
    assert_eq!(parts[0].row_count, 400 * 96 + 1);
    assert!(read == std::fs::read(before.path("candles.csv")).unwrap());
}
