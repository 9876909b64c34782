//! What an export consists of: its parts, their columns, and what is said about them.
//!
//! **Invariant**: the columns of a part and their types change only together with [`SCHEMA_VERSION`].

use std::collections::HashMap;

use arrow_schema::{DataType, Field, Schema, TimeUnit};
use prost_types::Timestamp as ProtoTimestamp;

use super::candle_rows::CandleColumn;
use super::held_rows::HeldColumn;
use super::manifest::filter_json;
use super::poll_rows::PollColumn;
use crate::analysis::Interval;
use crate::domain::Timestamp;
use crate::proto::v1;
use crate::query::SnapshotRequest;
use crate::store::Commit;

/// Of the columns below.
pub const SCHEMA_VERSION: u32 = 1;
/// What says so in a file.
pub(super) const SCHEMA_VERSION_KEY: &str = "silkrate.schema_version";
/// What was asked for, in JSON.
pub(super) const FILTER_KEY: &str = "silkrate.filter";
/// Which silkrate wrote it.
pub(super) const VERSION_KEY: &str = "silkrate.version";

/// Digits of a rate in Arrow and Parquet: 20 before the point and 18 after it, so that every rate fits exactly.
pub(super) const RATE_PRECISION: u8 = 38;
pub(super) const RATE_SCALE: i8 = 18;
/// The same of a reported change, which has at most 12 digits on either side.
pub(super) const CHANGE_PRECISION: u8 = 24;
pub(super) const CHANGE_SCALE: i8 = 12;

/// How the bytes of a part are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// With zstd, statistics and metadata.
    Parquet,
    /// Arrow's IPC, the streaming format.
    ArrowStream,
    /// With a header.
    Csv,
}

impl Format {
    /// The usual ending of a file's name.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::ArrowStream => "arrows",
            Self::Csv => "csv",
        }
    }
}

/// What a row stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// A run.
    Runs,
    /// A day of UTC of a series.
    Daily,
    /// A candle of a series: [`SnapshotRequest::candles`] says which.
    Candles,
}

/// What to export, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportRequest {
    /// How.
    pub format: Format,
    /// In what rows.
    pub shape: Shape,
    /// Everything that an identical store can be made of; then the format is Parquet and nothing is filtered.
    pub full: bool,
    /// Of what, and as known when.
    pub snapshot: SnapshotRequest,
    /// The bounds as they were given, for the record.
    pub start_time: Option<Timestamp>,
    /// See there.
    pub end_time: Option<Timestamp>,
}

impl ExportRequest {
    /// In the order of the stream.
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
            ],
            (false, Shape::Runs) => &[Part::Runs],
            (false, Shape::Daily) => &[Part::Daily],
            (false, Shape::Candles) => &[Part::Candles],
        }
    }

    /// The names of the parts, in the order of the stream.
    pub fn part_names(&self) -> Vec<String> {
        self.parts().iter().map(|part| part.file_name(self.format)).collect()
    }

    /// The request as it was understood.
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
        let candles = self.snapshot.candles;
        v1::ExportSnapshotRequest {
            format: format.into(),
            shape: shape.into(),
            pairs: self.snapshot.filter.pairs.iter().map(ToString::to_string).collect(),
            sources: self.snapshot.filter.sources.iter().map(ToString::to_string).collect(),
            start_time: self.start_time.map(to_proto),
            end_time: self.end_time.map(to_proto),
            known_time: self.snapshot.known_time.map(to_proto),
            full: self.full,
            interval: candles.map_or(v1::CandleInterval::Unspecified, |of| interval(of.buckets.interval)).into(),
            time_zone: candles.map_or_else(String::new, |of| of.buckets.zone.to_string()),
            fill_empty: candles.is_some_and(|of| of.fill),
        }
    }

    /// What every file says of itself.
    pub(super) fn metadata(&self, commit: Commit) -> HashMap<String, String> {
        HashMap::from(
            [
                (SCHEMA_VERSION_KEY, SCHEMA_VERSION.to_string()),
                ("silkrate.sequence", commit.sequence.to_string()),
                ("silkrate.recorded_time", commit.recorded_time.to_string()),
                (FILTER_KEY, filter_json(&self.echo()).to_string()),
                (VERSION_KEY, env!("CARGO_PKG_VERSION").to_owned()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        )
    }
}

/// One table of an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Runs,
    Daily,
    Candles,
    Series,
    Timeline,
    Revisions,
    Commits,
    Polls,
    Quarantine,
}

impl Part {
    pub(super) fn file_name(self, format: Format) -> String {
        let stem = match self {
            Self::Runs => "runs",
            Self::Daily => "daily",
            Self::Candles => "candles",
            Self::Series => "series",
            Self::Timeline => "timeline",
            Self::Revisions => "revisions",
            Self::Commits => "commits",
            Self::Polls => "polls",
            Self::Quarantine => "quarantine",
        };
        format!("{stem}.{}", format.extension())
    }

    /// In the order of the file.
    pub(super) fn columns(self) -> &'static [Column] {
        use Column::{
            CollapseWindow, Complete, Date, FirstObserved, LastObserved, Observations, Observed, Pair, Places, Rate,
            RateDouble, Recorded, Reported, ReportedNegative, ReportedPlaces, Sequence, Source, Superseded,
        };
        match self {
            Self::Runs => &[
                Pair,
                Source,
                FirstObserved,
                LastObserved,
                Recorded,
                Rate,
                RateDouble,
                Places,
                Reported,
                ReportedPlaces,
                ReportedNegative,
                Observations,
            ],
            Self::Daily => &[
                Pair,
                Source,
                Date,
                FirstObserved,
                LastObserved,
                Recorded,
                Rate,
                RateDouble,
                Places,
                Reported,
                ReportedPlaces,
                ReportedNegative,
                Observations,
                Complete,
            ],
            Self::Candles => &CANDLE_COLUMNS,
            Self::Series => &[Pair, Source, CollapseWindow],
            Self::Timeline => &[Pair, Source, Observed],
            Self::Revisions => &[
                Pair,
                Source,
                FirstObserved,
                LastObserved,
                Recorded,
                Rate,
                RateDouble,
                Places,
                Reported,
                ReportedPlaces,
                ReportedNegative,
                Observations,
                Superseded,
            ],
            Self::Commits => &[Sequence, Recorded],
            Self::Polls => &POLL_COLUMNS,
            Self::Quarantine => &QUARANTINE_COLUMNS,
        }
    }

    /// Which columns the rows are sorted by.
    pub(super) fn sorted_by(self) -> &'static [Column] {
        use Column::{Candle, Date, FirstObserved, Observed, Pair, Poll, Sequence, Source, Superseded};
        match self {
            Self::Runs => &[Pair, Source, FirstObserved],
            Self::Daily => &[Pair, Source, Date],
            Self::Candles => &[Pair, Source, Candle(CandleColumn::Start)],
            Self::Series => &[Pair, Source],
            Self::Timeline => &[Pair, Source, Observed],
            Self::Revisions => &[Pair, Source, Superseded],
            Self::Commits => &[Sequence],
            Self::Polls => &[Poll(PollColumn::Source), Poll(PollColumn::FirstPoll)],
            Self::Quarantine => &[Column::Held(HeldColumn::Id)],
        }
    }

    pub(super) fn schema(self, metadata: HashMap<String, String>) -> Schema {
        Schema::new_with_metadata(self.columns().iter().map(|column| column.field()).collect::<Vec<_>>(), metadata)
    }
}

/// Of a held tick.
const QUARANTINE_COLUMNS: [Column; 16] = [
    Column::Held(HeldColumn::Id),
    Column::Pair,
    Column::Source,
    Column::Observed,
    Column::Rate,
    Column::RateDouble,
    Column::Places,
    Column::Reported,
    Column::ReportedPlaces,
    Column::ReportedNegative,
    Column::Held(HeldColumn::RateInForce),
    Column::Held(HeldColumn::InForcePlaces),
    Column::Held(HeldColumn::HeldTime),
    Column::Held(HeldColumn::State),
    Column::Held(HeldColumn::DecidedTime),
    Column::Held(HeldColumn::Note),
];

/// Whose candle, and the candle.
const CANDLE_COLUMNS: [Column; 2 + CandleColumn::ALL.len()] = {
    let mut columns = [Column::Pair; 2 + CandleColumn::ALL.len()];
    columns[1] = Column::Source;
    let mut at = 0;
    while at < CandleColumn::ALL.len() {
        columns[2 + at] = Column::Candle(CandleColumn::ALL[at]);
        at += 1;
    }
    columns
};

const POLL_COLUMNS: [Column; 6] = [
    Column::Poll(PollColumn::Source),
    Column::Poll(PollColumn::FirstPoll),
    Column::Poll(PollColumn::LastPoll),
    Column::Poll(PollColumn::CoveredUntil),
    Column::Poll(PollColumn::PollCount),
    Column::Poll(PollColumn::Health),
];

/// One column, the same in every part that has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Column {
    Pair,
    Source,
    FirstObserved,
    LastObserved,
    Recorded,
    Superseded,
    Observed,
    Date,
    Rate,
    RateDouble,
    Places,
    Reported,
    ReportedPlaces,
    ReportedNegative,
    Observations,
    CollapseWindow,
    Sequence,
    /// Of a day: whether it had ended.
    Complete,
    Candle(CandleColumn),
    Poll(PollColumn),
    Held(HeldColumn),
}

impl Column {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Source => "source",
            Self::FirstObserved => "first_observed_time",
            Self::LastObserved => "last_observed_time",
            Self::Recorded => "recorded_time",
            Self::Superseded => "superseded_time",
            Self::Observed => "observed_time",
            Self::Date => "date",
            Self::Rate => "rate",
            Self::RateDouble => "rate_double",
            Self::Places => "published_places",
            Self::Reported => "reported_change_percent",
            Self::ReportedPlaces => "reported_change_places",
            Self::ReportedNegative => "reported_change_negative",
            Self::Observations => "observation_count",
            Self::CollapseWindow => "collapse_window_us",
            Self::Sequence => "sequence",
            Self::Complete => CandleColumn::Complete.name(),
            Self::Candle(column) => column.name(),
            Self::Poll(column) => column.name(),
            Self::Held(column) => column.name(),
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Pair | Self::Source => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            Self::FirstObserved | Self::LastObserved | Self::Recorded | Self::Superseded | Self::Observed => {
                time_type()
            }
            Self::Date => DataType::Date32,
            Self::Rate => rate_type(),
            Self::RateDouble => DataType::Float64,
            Self::Places | Self::ReportedPlaces => DataType::UInt8,
            Self::Reported => DataType::Decimal128(CHANGE_PRECISION, CHANGE_SCALE),
            Self::ReportedNegative | Self::Complete => DataType::Boolean,
            Self::Observations | Self::Sequence => DataType::UInt64,
            Self::CollapseWindow => DataType::Int64,
            Self::Candle(column) => column.data_type(),
            Self::Poll(column) => column.data_type(),
            Self::Held(column) => column.data_type(),
        }
    }

    fn field(self) -> Field {
        let is_of_decisions = matches!(self, Self::Held(HeldColumn::DecidedTime | HeldColumn::Note));
        let nullable =
            is_of_decisions || matches!(self, Self::Reported | Self::ReportedPlaces | Self::ReportedNegative);
        Field::new(self.name(), self.data_type(), nullable)
    }

    /// Whether its values grow in small steps, so that their differences are what to store.
    pub(super) fn is_time_like(self) -> bool {
        matches!(self.data_type(), DataType::Timestamp(..) | DataType::Date32) || self == Self::Sequence
    }
}

/// Of every instant.
pub(super) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Of every rate.
pub(super) fn rate_type() -> DataType {
    DataType::Decimal128(RATE_PRECISION, RATE_SCALE)
}

fn interval(interval: Interval) -> v1::CandleInterval {
    match interval {
        Interval::Minute => v1::CandleInterval::Minute,
        Interval::FiveMinutes => v1::CandleInterval::FiveMinutes,
        Interval::FifteenMinutes => v1::CandleInterval::FifteenMinutes,
        Interval::Hour => v1::CandleInterval::Hour,
        Interval::FourHours => v1::CandleInterval::FourHours,
        Interval::Day => v1::CandleInterval::Day,
        Interval::Week => v1::CandleInterval::Week,
        Interval::Month => v1::CandleInterval::Month,
        // Of changes only: no request names it for candles.
        Interval::Year => v1::CandleInterval::Unspecified,
    }
}

pub(super) fn to_proto(time: Timestamp) -> ProtoTimestamp {
    let (seconds, nanos) = time.to_parts();
    ProtoTimestamp { seconds, nanos }
}
