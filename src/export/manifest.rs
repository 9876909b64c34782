//! The manifest of an export in JSON: the request, the commit, and the row count and checksum of each file.
//!
//! **Invariant**: the JSON has every field that applies to the shape of the export; absent values are `null`.

use prost_types::Timestamp as ProtoTimestamp;
use serde_json::{Value, json};

use crate::domain::{Interval, Timestamp};
use crate::proto::convert::candle_interval;
use crate::proto::v1;

/// The file that describes the parts of a full export. It is written last.
pub const MANIFEST_NAME: &str = "manifest.json";

/// One received file of an export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartFile {
    /// File name, without a directory.
    pub name: String,
    /// Rows in the file.
    pub row_count: u64,
    /// Bytes of the file.
    pub byte_count: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// Changes the format in the filter JSON to Parquet, for files that the client rewrites from an Arrow stream.
pub(super) fn filter_of_parquet(filter: &str) -> String {
    let Ok(mut filter) = serde_json::from_str::<Value>(filter) else { return filter.to_owned() };
    filter["format"] = "parquet".into();
    filter.to_string()
}

fn time_json(time: Option<ProtoTimestamp>) -> Value {
    let time = time.and_then(|time| Timestamp::from_parts_floor(time.seconds, time.nanos).ok());
    time.map_or(Value::Null, |time| Value::from(time.to_string()))
}

fn text_json(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

/// The request as JSON, for the metadata of a file and for the manifest.
pub(super) fn filter_json(request: &v1::ExportSnapshotRequest) -> Value {
    let format = match request.format() {
        v1::ExportFormat::Unspecified | v1::ExportFormat::Parquet => "parquet",
        v1::ExportFormat::ArrowStream => "arrow_stream",
        v1::ExportFormat::Csv => "csv",
    };
    let shape = match request.shape() {
        v1::ExportShape::Unspecified | v1::ExportShape::Runs => "runs",
        v1::ExportShape::Daily => "daily",
        v1::ExportShape::Candles => "candles",
    };
    let mut filter = json!({
        "format": format,
        "shape": shape,
        "full": request.full,
        "pairs": request.pairs,
        "sources": request.sources,
        "start_time": time_json(request.start_time),
        "end_time": time_json(request.end_time),
        "start_date": text_json(&request.start_date),
        "end_date": text_json(&request.end_date),
        "known_time": time_json(request.known_time),
        "time_zone": text_json(&request.time_zone),
    });
    if request.shape() == v1::ExportShape::Candles {
        filter["interval"] = candle_interval(request.interval).map_or("", Interval::name).into();
        filter["fill_empty"] = request.fill_empty.into();
    }
    filter
}

/// The content of the manifest file.
pub fn manifest_json(manifest: &v1::ExportManifest, parts: &[PartFile]) -> Value {
    let rows: u64 = parts.iter().map(|part| part.row_count).sum();
    let parts = parts.iter().map(|part| {
        json!({
            "name": part.name,
            "row_count": part.row_count,
            "byte_count": part.byte_count,
            "sha256": part.sha256,
        })
    });
    json!({
        "schema_version": manifest.schema_version,
        "sequence": manifest.sequence,
        "recorded_time": time_json(manifest.recorded_time),
        "last_ingest_time": time_json(manifest.last_ingest_time),
        "product_version": manifest.product_version,
        "filter": manifest.request.as_ref().map(filter_json),
        "row_count": rows,
        "parts": parts.collect::<Vec<_>>(),
    })
}
