//! The tables of an export and their columns: names, types, nulls and encodings.
//!
//! This module is the only definition of the columns. The writers of Parquet, Arrow and CSV and the reader use it.
//!
//! **Invariant**: the columns of a part and their types change only together with [`SCHEMA_VERSION`].

use polars::prelude::{ArrowField, DataType, TimeUnit, TimeZone};
use polars_arrow::datatypes::{ArrowDataType, ArrowSchema, IntegerType, Metadata, TimeUnit as ArrowTimeUnit};
use polars_parquet::write::Encoding;

use super::format::Format;

/// The version of the columns that this module defines.
pub const SCHEMA_VERSION: u32 = 2;
/// The oldest version that this version reads. Version 1 has no decisions to archive sources in a full export, and no
/// time zones of days and candles.
pub const SCHEMA_VERSION_OLDEST: u32 = 1;

/// Digits of a rate column: 20 before the decimal point and 18 after it, so that every rate fits exactly.
const RATE_PRECISION: usize = 38;
/// Decimal places of a rate column.
pub(super) const RATE_SCALE: u8 = 18;
/// Digits of a reported-change column: at most 12 on each side of the decimal point.
const CHANGE_PRECISION: usize = 24;
/// Decimal places of a reported-change column.
pub(super) const CHANGE_SCALE: u8 = 12;

/// The type of a column's values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Text with few distinct values: dictionary-encoded in Arrow and Parquet.
    Name,
    /// Any text.
    Text,
    /// A time: microseconds since 1970-01-01, UTC.
    Time,
    /// A date: days since 1970-01-01.
    Date,
    /// A fixed-point decimal.
    Decimal {
        /// Total number of digits.
        precision: usize,
        /// Digits after the decimal point.
        scale: u8,
    },
    /// The double nearest to the decimal in the column before it.
    Double,
    /// A number of decimal places.
    Places,
    /// An unsigned 64-bit count.
    Count,
    /// A duration in microseconds.
    Micros,
    /// A boolean.
    Flag,
}

impl Kind {
    /// The type of a column in a data frame. A name is text here; the frame builder replaces it by a categorical type.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Name | Self::Text => DataType::String,
            Self::Time => DataType::Datetime(TimeUnit::Microseconds, Some(TimeZone::UTC)),
            Self::Date => DataType::Date,
            Self::Decimal { precision, scale } => DataType::Decimal(precision, usize::from(scale)),
            Self::Double => DataType::Float64,
            Self::Places => DataType::UInt8,
            Self::Count => DataType::UInt64,
            Self::Micros => DataType::Int64,
            Self::Flag => DataType::Boolean,
        }
    }

    /// The type of the column in Arrow and Parquet.
    pub(super) fn arrow_type(self) -> ArrowDataType {
        match self {
            Self::Name => ArrowDataType::Dictionary(IntegerType::UInt32, Box::new(ArrowDataType::LargeUtf8), false),
            Self::Text => ArrowDataType::LargeUtf8,
            Self::Time => ArrowDataType::Timestamp(ArrowTimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => ArrowDataType::Date32,
            Self::Decimal { precision, scale } => ArrowDataType::Decimal(precision, usize::from(scale)),
            Self::Double => ArrowDataType::Float64,
            Self::Places => ArrowDataType::UInt8,
            Self::Count => ArrowDataType::UInt64,
            Self::Micros => ArrowDataType::Int64,
            Self::Flag => ArrowDataType::Boolean,
        }
    }

    /// The Parquet encoding of the values. Successive times and counts differ little, so they are delta-encoded; names
    /// and places repeat, so they are dictionary-encoded.
    pub(super) const fn encoding(self) -> Encoding {
        match self {
            Self::Name | Self::Places => Encoding::RleDictionary,
            Self::Time | Self::Date | Self::Count | Self::Micros => Encoding::DeltaBinaryPacked,
            Self::Text | Self::Decimal { .. } | Self::Double | Self::Flag => Encoding::Plain,
        }
    }
}

/// A column of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// True if a row may have no value.
    pub(super) nullable: bool,
}

impl Column {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, nullable: false }
    }

    const fn or_null(self) -> Self {
        Self { nullable: true, ..self }
    }

    pub(super) fn arrow_field(&self) -> ArrowField {
        ArrowField::new(self.name.into(), self.kind.arrow_type(), self.nullable)
    }
}

const RATE_KIND: Kind = Kind::Decimal { precision: RATE_PRECISION, scale: RATE_SCALE };
const CHANGE_KIND: Kind = Kind::Decimal { precision: CHANGE_PRECISION, scale: CHANGE_SCALE };

pub(super) const PAIR: Column = Column::new("pair", Kind::Name);
pub(super) const SOURCE: Column = Column::new("source", Kind::Name);
pub(super) const DATE: Column = Column::new("date", Kind::Date);
pub(super) const FIRST_OBSERVED: Column = Column::new("first_observed_time", Kind::Time);
pub(super) const LAST_OBSERVED: Column = Column::new("last_observed_time", Kind::Time);
pub(super) const OBSERVED: Column = Column::new("observed_time", Kind::Time);
pub(super) const RECORDED: Column = Column::new("recorded_time", Kind::Time);
pub(super) const SUPERSEDED: Column = Column::new("superseded_time", Kind::Time);
pub(super) const RATE: Column = Column::new("rate", RATE_KIND);
const RATE_DOUBLE: Column = Column::new("rate_double", Kind::Double);
pub(super) const PLACES: Column = Column::new("published_places", Kind::Places);
pub(super) const CHANGE: Column = Column::new("reported_change_percent", CHANGE_KIND).or_null();
pub(super) const CHANGE_PLACES: Column = Column::new("reported_change_places", Kind::Places).or_null();
pub(super) const CHANGE_NEGATIVE: Column = Column::new("reported_change_negative", Kind::Flag).or_null();
pub(super) const OBSERVATIONS: Column = Column::new("observation_count", Kind::Count);
/// The time zone of the days or candles.
pub(super) const ZONE: Column = Column::new("time_zone", Kind::Name);
/// True if the day or bucket had ended at the recorded time of the commit.
const COMPLETE: Column = Column::new("complete", Kind::Flag);
pub(super) const COLLAPSE_WINDOW: Column = Column::new("collapse_window_us", Kind::Micros);
pub(super) const SEQUENCE: Column = Column::new("sequence", Kind::Count);
pub(super) const FIRST_POLL: Column = Column::new("first_poll_time", Kind::Time);
pub(super) const LAST_POLL: Column = Column::new("last_poll_time", Kind::Time);
pub(super) const COVERED_UNTIL: Column = Column::new("covered_until_time", Kind::Time);
pub(super) const POLL_COUNT: Column = Column::new("poll_count", Kind::Count);
pub(super) const HEALTH: Column = Column::new("health", Kind::Name);
pub(super) const ID: Column = Column::new("id", Kind::Count);
pub(super) const IN_FORCE: Column = Column::new("rate_in_force", RATE_KIND);
pub(super) const IN_FORCE_PLACES: Column = Column::new("rate_in_force_places", Kind::Places);
pub(super) const HELD_TIME: Column = Column::new("held_time", Kind::Time);
pub(super) const STATE: Column = Column::new("state", Kind::Text);
pub(super) const DECIDED: Column = Column::new("decided_time", Kind::Time).or_null();
pub(super) const NOTE: Column = Column::new("note", Kind::Text).or_null();
pub(super) const ARCHIVED: Column = Column::new("archived", Kind::Flag);
pub(super) const START: Column = Column::new("start_time", Kind::Time);

/// Concatenates lists of columns.
const fn joined<const COUNT: usize>(lists: &[&[Column]]) -> [Column; COUNT] {
    let mut all = [PAIR; COUNT];
    let (mut filled, mut list) = (0, 0);
    while list < lists.len() {
        let mut at = 0;
        while at < lists[list].len() {
            all[filled] = lists[list][at];
            filled += 1;
            at += 1;
        }
        list += 1;
    }
    assert!(filled == COUNT, "COUNT must be the total number of columns in the lists");
    all
}

/// The columns that identify the series of a row.
const SERIES: &[Column] = &[PAIR, SOURCE];
/// The columns of a published value.
const VALUE: &[Column] = &[RATE, RATE_DOUBLE, PLACES, CHANGE, CHANGE_PLACES, CHANGE_NEGATIVE];
/// The columns of a run, without its series.
const RUN: [Column; 10] = joined(&[&[FIRST_OBSERVED, LAST_OBSERVED, RECORDED], VALUE, &[OBSERVATIONS]]);

const RUNS: [Column; 12] = joined(&[SERIES, &RUN]);
const REVISIONS: [Column; 13] = joined(&[SERIES, &RUN, &[SUPERSEDED]]);
const DAYS: [Column; 15] = joined(&[SERIES, &[DATE], &RUN, &[COMPLETE, ZONE]]);

const CANDLES: &[Column] = &[
    PAIR,
    SOURCE,
    START,
    Column::new("end_time", Kind::Time),
    Column::new("open", RATE_KIND),
    Column::new("open_double", Kind::Double),
    Column::new("open_time", Kind::Time),
    Column::new("high", RATE_KIND),
    Column::new("high_double", Kind::Double),
    Column::new("high_time", Kind::Time),
    Column::new("low", RATE_KIND),
    Column::new("low_double", Kind::Double),
    Column::new("low_time", Kind::Time),
    Column::new("close", RATE_KIND),
    Column::new("close_double", Kind::Double),
    Column::new("close_time", Kind::Time),
    Column::new("average", RATE_KIND),
    Column::new("average_double", Kind::Double),
    Column::new("move_count", Kind::Count),
    COMPLETE,
    Column::new("filled", Kind::Flag),
    // The local date on which the bucket begins.
    DATE,
    ZONE,
];

const POLLS: &[Column] = &[SOURCE, FIRST_POLL, LAST_POLL, COVERED_UNTIL, POLL_COUNT, HEALTH];

const QUARANTINE: [Column; 16] =
    joined(&[&[ID], SERIES, &[OBSERVED], VALUE, &[IN_FORCE, IN_FORCE_PLACES, HELD_TIME, STATE, DECIDED, NOTE]]);

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
    Archive,
}

impl Part {
    #[cfg(test)]
    pub(super) const ALL: [Self; 10] = [
        Self::Runs,
        Self::Daily,
        Self::Candles,
        Self::Series,
        Self::Timeline,
        Self::Revisions,
        Self::Commits,
        Self::Polls,
        Self::Quarantine,
        Self::Archive,
    ];

    /// The parts that can be written as a partitioned dataset.
    pub(super) fn partitionable() -> impl Iterator<Item = Self> {
        [Self::Runs, Self::Daily, Self::Candles].into_iter()
    }

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
            Self::Archive => "archive",
        };
        format!("{stem}.{}", format.extension())
    }

    /// The columns, in file order.
    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Runs => &RUNS,
            Self::Daily => &DAYS,
            Self::Candles => CANDLES,
            Self::Series => &[PAIR, SOURCE, COLLAPSE_WINDOW],
            Self::Timeline => &[PAIR, SOURCE, OBSERVED],
            Self::Revisions => &REVISIONS,
            Self::Commits => &[SEQUENCE, RECORDED],
            Self::Polls => POLLS,
            Self::Quarantine => &QUARANTINE,
            Self::Archive => &[SOURCE, RECORDED, ARCHIVED, NOTE],
        }
    }

    /// The columns that the reader uses: all except the doubles, which duplicate the exact decimals.
    pub(super) fn exact_columns(self) -> Vec<Column> {
        self.columns().iter().copied().filter(|column| column.kind != Kind::Double).collect()
    }
}

/// Converts key-value pairs to the metadata of an Arrow schema.
pub(super) fn arrow_metadata(pairs: &[(String, String)]) -> Metadata {
    pairs.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()
}

/// The Arrow schema of columns.
pub(super) fn arrow_schema<'a>(columns: impl IntoIterator<Item = &'a Column>) -> ArrowSchema {
    columns.into_iter().map(|column| (column.name.into(), column.arrow_field())).collect()
}
