//! Validates the requests of `SnapshotService` and converts them into export requests.
//!
//! **Invariant**: an export request that this module returns is valid. This module does not read the store, so the
//! requested pairs and sources may still be unknown.

use super::convert::{as_of, bound};
use super::moments::{moment_range, request_zone};
use super::rate_request::{filter, interval};
use crate::analysis::Zone;
use crate::domain::{CurrencySet, Interval};
use crate::export::{ExportRequest, Format, Shape};
use crate::proto::v1;
use crate::query::{Moment, MomentRange, QueryError, SnapshotBuckets, SnapshotRequest};

pub(crate) fn export(request: &v1::ExportSnapshotRequest, served: &CurrencySet) -> Result<ExportRequest, QueryError> {
    let format = match v1::ExportFormat::try_from(request.format) {
        Ok(v1::ExportFormat::Unspecified | v1::ExportFormat::Parquet) => Format::Parquet,
        Ok(v1::ExportFormat::ArrowStream) => Format::ArrowStream,
        Ok(v1::ExportFormat::Csv) => Format::Csv,
        Err(_) => return Err(unknown("format", request.format, "EXPORT_FORMAT_PARQUET to EXPORT_FORMAT_CSV")),
    };
    let shape = match v1::ExportShape::try_from(request.shape) {
        Ok(v1::ExportShape::Unspecified | v1::ExportShape::Runs) => Shape::Runs,
        Ok(v1::ExportShape::Daily) => Shape::Daily,
        Ok(v1::ExportShape::Candles) => Shape::Candles,
        Err(_) => return Err(unknown("shape", request.shape, "EXPORT_SHAPE_RUNS to EXPORT_SHAPE_CANDLES")),
    };
    if request.full {
        refuse_with_full(request, format, shape)?;
    }
    let range = moment_range((request.start_time, &request.start_date), (request.end_time, &request.end_date))?;
    Ok(ExportRequest {
        format,
        shape,
        full: request.full,
        snapshot: SnapshotRequest {
            filter: filter(&request.pairs, &request.sources, served)?,
            range,
            zone: time_zone(request, shape, range)?,
            known_time: as_of("known_time", request.known_time)?,
            buckets: row_buckets(request, shape)?,
        },
        start_time: bound("start_time", request.start_time)?,
        end_time: bound("end_time", request.end_time)?,
        start_date: request.start_date.clone(),
        end_date: request.end_date.clone(),
    })
}

fn unknown(field: &str, number: i32, known: &str) -> QueryError {
    QueryError::invalid(field, format!("{number} is not a known value; name one from {known}"))
}

/// Parses the time zone of days. Runs have a time zone only for the dates of their range.
fn time_zone(
    request: &v1::ExportSnapshotRequest,
    shape: Shape,
    range: MomentRange,
) -> Result<Option<Zone>, QueryError> {
    let has_day = [range.start, range.end].iter().any(|moment| matches!(moment, Some(Moment::Day(_))));
    if !request.time_zone.is_empty() && shape == Shape::Runs && !has_day {
        return Err(QueryError::invalid(
            "time_zone",
            "applies to days, candles and dates; leave it out, or give start_date or end_date",
        ));
    }
    request_zone(&request.time_zone)
}

/// Returns the days or candles of the rows, or `None` for runs.
fn row_buckets(request: &v1::ExportSnapshotRequest, shape: Shape) -> Result<Option<SnapshotBuckets>, QueryError> {
    if shape == Shape::Candles {
        return Ok(Some(SnapshotBuckets { interval: interval(request.interval)?, fill: request.fill_empty }));
    }
    let given = [("interval", request.interval != 0), ("fill_empty", request.fill_empty)];
    match given.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(QueryError::invalid(
            *field,
            "applies to candles only; leave it out, or set shape to EXPORT_SHAPE_CANDLES",
        )),
        None => Ok((shape == Shape::Daily).then_some(SnapshotBuckets { interval: Interval::Day, fill: true })),
    }
}

/// Refuses every field that restricts a full export, because an identical store needs all data.
fn refuse_with_full(request: &v1::ExportSnapshotRequest, format: Format, shape: Shape) -> Result<(), QueryError> {
    let given = [
        ("pairs", !request.pairs.is_empty()),
        ("sources", !request.sources.is_empty()),
        ("start_time", request.start_time.is_some()),
        ("end_time", request.end_time.is_some()),
        ("start_date", !request.start_date.is_empty()),
        ("end_date", !request.end_date.is_empty()),
        ("time_zone", !request.time_zone.is_empty()),
        ("known_time", request.known_time.is_some()),
    ];
    if let Some((field, _)) = given.iter().find(|(_, given)| *given) {
        return Err(QueryError::invalid(*field, "is given with full, which exports everything; leave one of them out"));
    }
    if format != Format::Parquet {
        return Err(QueryError::invalid(
            "format",
            "must be EXPORT_FORMAT_PARQUET in a full export; omit the field format or the field full",
        ));
    }
    if shape != Shape::Runs {
        return Err(QueryError::invalid(
            "shape",
            "must be EXPORT_SHAPE_RUNS in a full export; omit the field shape or the field full",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp as ProtoTimestamp;

    use super::*;

    fn at(seconds: i64) -> ProtoTimestamp {
        ProtoTimestamp { seconds, nanos: 0 }
    }

    #[test]
    fn export_request_names_the_invalid_field() {
        let check = |request: v1::ExportSnapshotRequest, expect: Result<(Format, Shape), &str>| match (
            export(&request, &CurrencySet::central_asia()),
            expect,
        ) {
            (Ok(found), Ok(expect)) => assert_eq!((found.format, found.shape), expect),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, _) => panic!("{found:?}"),
        };
        let none = v1::ExportSnapshotRequest::default;
        let full = || v1::ExportSnapshotRequest { full: true, ..none() };
        check(none(), Ok((Format::Parquet, Shape::Runs)));
        check(full(), Ok((Format::Parquet, Shape::Runs)));
        check(v1::ExportSnapshotRequest { format: 3, shape: 2, ..none() }, Ok((Format::Csv, Shape::Daily)));
        check(v1::ExportSnapshotRequest { format: 9, ..none() }, Err("format: 9 is not a known value"));
        check(v1::ExportSnapshotRequest { shape: -1, ..none() }, Err("shape: -1 is not a known value"));
        let candles = || v1::ExportSnapshotRequest { shape: 3, interval: 6, ..none() };
        check(candles(), Ok((Format::Parquet, Shape::Candles)));
        check(
            v1::ExportSnapshotRequest { time_zone: "Asia/Bishkek".to_owned(), fill_empty: true, ..candles() },
            Ok((Format::Parquet, Shape::Candles)),
        );
        check(v1::ExportSnapshotRequest { interval: 0, ..candles() }, Err("interval: 0 is not an interval"));
        check(v1::ExportSnapshotRequest { interval: 99, ..candles() }, Err("interval: 99 is not an interval"));
        check(
            v1::ExportSnapshotRequest { time_zone: "Asia/Frunze2".to_owned(), ..candles() },
            Err("time_zone: 'Asia/Frunze2' is not a time zone"),
        );
        check(v1::ExportSnapshotRequest { interval: 6, ..none() }, Err("interval: applies to candles only"));
        check(
            v1::ExportSnapshotRequest { shape: 2, fill_empty: true, ..none() },
            Err("fill_empty: applies to candles only"),
        );
        check(
            v1::ExportSnapshotRequest { time_zone: "UTC".to_owned(), ..full() },
            Err("time_zone: is given with full"),
        );
        let zone = || "Asia/Bishkek".to_owned();
        check(
            v1::ExportSnapshotRequest { time_zone: zone(), ..none() },
            Err("time_zone: applies to days, candles and dates"),
        );
        let date = || "2026-11-26".to_owned();
        check(
            v1::ExportSnapshotRequest { time_zone: zone(), start_date: date(), ..none() },
            Ok((Format::Parquet, Shape::Runs)),
        );
        check(v1::ExportSnapshotRequest { shape: 2, time_zone: zone(), ..none() }, Ok((Format::Parquet, Shape::Daily)));
        check(v1::ExportSnapshotRequest { start_date: date(), start_time: Some(at(1)), ..none() }, Err("start_date: "));
        check(v1::ExportSnapshotRequest { end_date: date(), ..full() }, Err("end_date: is given with full"));
        check(
            v1::ExportSnapshotRequest { pairs: vec!["KGS".to_owned()], ..none() },
            Err("pairs[0]: pair 'KGS' is not two currencies"),
        );
        check(
            v1::ExportSnapshotRequest { start_time: Some(at(2)), end_time: Some(at(1)), ..none() },
            Err("end_time: 1970-01-01T00:00:01Z is before start_time"),
        );
        check(v1::ExportSnapshotRequest { known_time: Some(at(i64::MAX)), ..none() }, Err("known_time: "));
        check(
            v1::ExportSnapshotRequest { format: 3, ..full() },
            Err("format: must be EXPORT_FORMAT_PARQUET in a full export"),
        );
        check(v1::ExportSnapshotRequest { shape: 2, ..full() }, Err("shape: must be EXPORT_SHAPE_RUNS"));
        check(v1::ExportSnapshotRequest { shape: 3, interval: 6, ..full() }, Err("shape: must be EXPORT_SHAPE_RUNS"));
        check(v1::ExportSnapshotRequest { known_time: Some(at(1)), ..full() }, Err("known_time: is given with full"));
        check(
            v1::ExportSnapshotRequest { sources: vec!["a".to_owned()], ..full() },
            Err("sources: is given with full"),
        );
    }
}
