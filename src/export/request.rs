//! The validated request of an export, and the metadata that its files carry.
//!
//! **Invariant**: the metadata of a file depends only on the request and the commit.

use super::format::Format;
use super::manifest::filter_json;
use super::schema::{Part, SCHEMA_VERSION};
use crate::domain::Timestamp;
use crate::proto::convert::timestamp;
use crate::proto::v1;
use crate::query::SnapshotRequest;
use crate::store::Commit;

/// Metadata key of the schema version.
pub(super) const SCHEMA_VERSION_KEY: &str = "silkrate.schema_version";
/// Metadata key of the request, in JSON.
pub(super) const FILTER_KEY: &str = "silkrate.filter";
/// Metadata key of the silkrate version that wrote the file.
pub(super) const VERSION_KEY: &str = "silkrate.version";

/// What a row of an export represents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// One row per run.
    Runs,
    /// One row per series and day.
    Daily,
    /// One row per candle of a series; [`SnapshotRequest::buckets`] has the interval and filling.
    Candles,
}

/// A validated export request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportRequest {
    /// File format of the parts.
    pub format: Format,
    /// What a row represents.
    pub shape: Shape,
    /// True to export everything that an identical store needs. A full export has the format Parquet and no filters.
    pub full: bool,
    /// Filters, range, known time and candle parameters.
    pub snapshot: SnapshotRequest,
    /// Start of the range (inclusive) as the caller gave it, for the metadata.
    pub start_time: Option<Timestamp>,
    /// End of the range (exclusive) as the caller gave it, for the metadata.
    pub end_time: Option<Timestamp>,
    /// First day of the range as the caller gave it; empty without one.
    pub start_date: String,
    /// Day after the range as the caller gave it; empty without one.
    pub end_date: String,
}

impl ExportRequest {
    /// The parts of the export, in stream order.
    pub(super) fn parts(&self) -> &'static [Part] {
        match (self.full, self.shape) {
            (true, _) => &[
                Part::Series,
                Part::Runs,
                Part::Timeline,
                Part::Revisions,
                Part::Commits,
                Part::Polls,
                Part::Quarantine,
                Part::Archive,
            ],
            (false, Shape::Runs) => &[Part::Runs],
            (false, Shape::Daily) => &[Part::Daily],
            (false, Shape::Candles) => &[Part::Candles],
        }
    }

    /// The names of the parts, in stream order.
    pub fn part_names(&self) -> Vec<String> {
        self.parts().iter().map(|part| part.file_name(self.format)).collect()
    }

    /// The request as the server understood it, for the manifest.
    pub(super) fn echo(&self) -> v1::ExportSnapshotRequest {
        let format = match self.format {
            Format::Parquet => v1::ExportFormat::Parquet,
            Format::ArrowStream => v1::ExportFormat::ArrowStream,
            Format::Csv => v1::ExportFormat::Csv,
        };
        let shape = match self.shape {
            Shape::Runs => v1::ExportShape::Runs,
            Shape::Daily => v1::ExportShape::Daily,
            Shape::Candles => v1::ExportShape::Candles,
        };
        let candles = self.snapshot.buckets.filter(|_| self.shape == Shape::Candles);
        v1::ExportSnapshotRequest {
            format: format.into(),
            shape: shape.into(),
            pairs: self.snapshot.filter.pairs.iter().map(ToString::to_string).collect(),
            sources: self.snapshot.filter.sources.iter().map(ToString::to_string).collect(),
            start_time: self.start_time.map(timestamp),
            end_time: self.end_time.map(timestamp),
            known_time: self.snapshot.known_time.map(timestamp),
            full: self.full,
            interval: candles.map_or(v1::CandleInterval::Unspecified, |candles| candles.interval.into()).into(),
            time_zone: self.snapshot.zone.map_or_else(String::new, |zone| zone.to_string()),
            fill_empty: candles.is_some_and(|candles| candles.fill),
            start_date: self.start_date.clone(),
            end_date: self.end_date.clone(),
        }
    }

    /// The metadata of every file of the export, sorted by key.
    pub(super) fn metadata(&self, commit: Commit) -> Vec<(String, String)> {
        let mut metadata = [
            (SCHEMA_VERSION_KEY, SCHEMA_VERSION.to_string()),
            ("silkrate.sequence", commit.sequence.to_string()),
            ("silkrate.recorded_time", commit.recorded_time.to_string()),
            (FILTER_KEY, filter_json(&self.echo()).to_string()),
            (VERSION_KEY, env!("CARGO_PKG_VERSION").to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value));
        metadata.sort();
        metadata.into()
    }
}
