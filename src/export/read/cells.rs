//! The columns of the Parquet files that silkrate writes, and what a row of them stands for.
//!
//! **Invariant**: a value is read exactly or refused with its column.

mod polls;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Decimal128Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt64Type};
use arrow_array::{
    Array, ArrowPrimitiveType, BooleanArray, Decimal128Array, Int64Array, PrimitiveArray, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt8Array, UInt64Array,
};
use arrow_schema::{DataType, TimeUnit};

pub(super) use self::polls::NamedPollSpan;
use super::error::CellProblem;
use crate::domain::{
    Currency, Pair, PairError, PublishedValue, Rate, RateError, ReportedChange, Revision, Run, SeriesKey, Source,
    Timestamp, clip,
};

/// Places of the column of rates.
const RATE_SCALE: u8 = 18;
/// Places of the column of reported changes.
const CHANGE_SCALE: u8 = 12;

/// A column that a file must have.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) data_type: fn() -> DataType,
}

pub(super) const fn column(name: &'static str, data_type: fn() -> DataType) -> Column {
    Column { name, data_type }
}

pub(super) const PAIR: &str = "pair";
pub(super) const SOURCE: &str = "source";
const COLLAPSE_WINDOW: &str = "collapse_window_us";
const FIRST_OBSERVED: &str = "first_observed_time";
const LAST_OBSERVED: &str = "last_observed_time";
const OBSERVED: &str = "observed_time";
const RECORDED: &str = "recorded_time";
const SUPERSEDED: &str = "superseded_time";
const RATE: &str = "rate";
const PLACES: &str = "published_places";
const CHANGE: &str = "reported_change_percent";
const CHANGE_PLACES: &str = "reported_change_places";
const CHANGE_NEGATIVE: &str = "reported_change_negative";
const OBSERVATIONS: &str = "observation_count";
pub(super) const SEQUENCE: &str = "sequence";

pub(super) fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

pub(super) const fn rate() -> DataType {
    DataType::Decimal128(38, 18)
}

const fn change() -> DataType {
    DataType::Decimal128(24, 12)
}

/// Of a published value.
pub(super) const VALUE_COLUMNS: [Column; 5] = [
    column(RATE, rate),
    column(PLACES, || DataType::UInt8),
    column(CHANGE, change),
    column(CHANGE_PLACES, || DataType::UInt8),
    column(CHANGE_NEGATIVE, || DataType::Boolean),
];

const RUN_COLUMNS: [Column; 11] = [
    column(PAIR, || DataType::Utf8),
    column(SOURCE, || DataType::Utf8),
    column(FIRST_OBSERVED, time),
    column(LAST_OBSERVED, time),
    column(RECORDED, time),
    column(RATE, rate),
    column(PLACES, || DataType::UInt8),
    column(CHANGE, change),
    column(CHANGE_PLACES, || DataType::UInt8),
    column(CHANGE_NEGATIVE, || DataType::Boolean),
    column(OBSERVATIONS, || DataType::UInt64),
];

/// What a row of a file stands for.
pub(super) trait Row: Sized {
    /// What the file holds, in words.
    const WHAT: &'static str;
    const COLUMNS: &'static [Column];
    /// The columns of a batch.
    type Cells;

    fn cells(batch: &RecordBatch) -> Option<Self::Cells>;
    /// The columns that say which series a row is of, if it is of one.
    fn series(cells: &Self::Cells) -> Option<(&StringArray, &StringArray)>;
    /// Reads the row at an index below the length of the columns.
    fn read(cells: &Self::Cells, at: usize) -> Result<Self, BadCell>;
}

/// A column, and what is wrong in it.
pub(super) struct BadCell(pub(super) &'static str, pub(super) CellProblem);

pub(super) fn present<T: Array>(array: &T, at: usize, name: &'static str) -> Result<(), BadCell> {
    if array.is_null(at) { Err(BadCell(name, CellProblem::Null)) } else { Ok(()) }
}

pub(super) fn timestamp(
    array: &TimestampMicrosecondArray,
    at: usize,
    name: &'static str,
) -> Result<Timestamp, BadCell> {
    present(array, at, name)?;
    Ok(Timestamp::from_micros(array.value(at)))
}

pub(super) fn text<'a>(array: &'a StringArray, at: usize, name: &'static str) -> Result<&'a str, BadCell> {
    present(array, at, name)?;
    Ok(array.value(at))
}

pub(super) fn primitive<T: ArrowPrimitiveType>(batch: &RecordBatch, name: &str) -> Option<PrimitiveArray<T>> {
    batch.column_by_name(name)?.as_primitive_opt::<T>().cloned()
}

pub(super) fn strings(batch: &RecordBatch, name: &str) -> Option<StringArray> {
    batch.column_by_name(name)?.as_string_opt::<i32>().cloned()
}

/// A magnitude with `scale` places as the mantissa of one with `places`, where that is exact.
fn rescale(magnitude: u128, scale: u8, places: u8) -> Option<u128> {
    let divisor = 10_u128.pow(u32::from(scale.checked_sub(places)?));
    magnitude.is_multiple_of(divisor).then(|| magnitude / divisor)
}

/// The columns of published values.
pub(super) struct ValueCells {
    rate: Decimal128Array,
    places: UInt8Array,
    change: Decimal128Array,
    change_places: UInt8Array,
    change_negative: BooleanArray,
}

impl ValueCells {
    pub(super) fn new(batch: &RecordBatch) -> Option<Self> {
        Some(Self {
            rate: primitive::<Decimal128Type>(batch, RATE)?,
            places: primitive::<UInt8Type>(batch, PLACES)?,
            change: primitive::<Decimal128Type>(batch, CHANGE)?,
            change_places: primitive::<UInt8Type>(batch, CHANGE_PLACES)?,
            change_negative: batch.column_by_name(CHANGE_NEGATIVE)?.as_boolean_opt()?.clone(),
        })
    }

    pub(super) fn value(&self, at: usize) -> Result<PublishedValue, BadCell> {
        present(&self.rate, at, RATE)?;
        present(&self.places, at, PLACES)?;
        let rate = exact_rate(&self.rate, at, self.places.value(at), RATE)?;
        Ok(PublishedValue { rate, reported_change: self.change(at)? })
    }

    fn change(&self, at: usize) -> Result<Option<ReportedChange>, BadCell> {
        let bad = |problem| BadCell(CHANGE, problem);
        let nulls = [self.change.is_null(at), self.change_places.is_null(at), self.change_negative.is_null(at)];
        if nulls == [true; 3] {
            return Ok(None);
        }
        let (value, places, negative) =
            (self.change.value(at), self.change_places.value(at), self.change_negative.value(at));
        if nulls != [false; 3] || (value != 0 && (value < 0) != negative) {
            return Err(bad(CellProblem::PartialChange));
        }
        let mantissa = rescale(value.unsigned_abs(), CHANGE_SCALE, places);
        let mantissa = mantissa.ok_or_else(|| bad(CellProblem::Inexact(places)))?;
        // What does not fit has too many digits either way.
        let mantissa = u64::try_from(mantissa).unwrap_or(u64::MAX);
        ReportedChange::from_parts(negative, mantissa, u32::from(places))
            .map(Some)
            .map_err(|problem| bad(problem.into()))
    }
}

/// A rate of a column, with the places that were published.
pub(super) fn exact_rate(rates: &Decimal128Array, at: usize, places: u8, name: &'static str) -> Result<Rate, BadCell> {
    present(rates, at, name)?;
    let value = rates.value(at);
    let bad = |problem| BadCell(name, problem);
    if value < 0 {
        return Err(bad(RateError::Negative(rates.value_as_string(at)).into()));
    }
    let mantissa = rescale(value.unsigned_abs(), RATE_SCALE, places);
    let mantissa = mantissa.ok_or_else(|| bad(CellProblem::Inexact(places)))?;
    Rate::from_parts(mantissa, u32::from(places)).map_err(|problem| bad(problem.into()))
}

/// The columns of runs.
pub(super) struct RunCells {
    pair: StringArray,
    source: StringArray,
    first: TimestampMicrosecondArray,
    last: TimestampMicrosecondArray,
    recorded: TimestampMicrosecondArray,
    value: ValueCells,
    observations: UInt64Array,
}

impl RunCells {
    fn new(batch: &RecordBatch) -> Option<Self> {
        Some(Self {
            pair: strings(batch, PAIR)?,
            source: strings(batch, SOURCE)?,
            first: primitive::<TimestampMicrosecondType>(batch, FIRST_OBSERVED)?,
            last: primitive::<TimestampMicrosecondType>(batch, LAST_OBSERVED)?,
            recorded: primitive::<TimestampMicrosecondType>(batch, RECORDED)?,
            value: ValueCells::new(batch)?,
            observations: primitive::<UInt64Type>(batch, OBSERVATIONS)?,
        })
    }

    fn run(&self, at: usize) -> Result<Run, BadCell> {
        present(&self.observations, at, OBSERVATIONS)?;
        Ok(Run {
            first_observed_time: timestamp(&self.first, at, FIRST_OBSERVED)?,
            last_observed_time: timestamp(&self.last, at, LAST_OBSERVED)?,
            observation_count: self.observations.value(at),
            value: self.value.value(at)?,
            recorded_time: timestamp(&self.recorded, at, RECORDED)?,
        })
    }
}

impl Row for Run {
    const WHAT: &'static str = "runs";
    const COLUMNS: &'static [Column] = &RUN_COLUMNS;
    type Cells = RunCells;

    fn cells(batch: &RecordBatch) -> Option<RunCells> {
        RunCells::new(batch)
    }

    fn series(cells: &RunCells) -> Option<(&StringArray, &StringArray)> {
        Some((&cells.pair, &cells.source))
    }

    fn read(cells: &RunCells, at: usize) -> Result<Self, BadCell> {
        cells.run(at)
    }
}

/// A run and the series that it is of, both as written.
pub(super) struct NamedRun {
    pub(super) pair: String,
    pub(super) source: String,
    pub(super) run: Run,
}

impl Row for NamedRun {
    const WHAT: &'static str = "runs";
    const COLUMNS: &'static [Column] = &RUN_COLUMNS;
    type Cells = RunCells;

    fn cells(batch: &RecordBatch) -> Option<RunCells> {
        RunCells::new(batch)
    }

    fn series(cells: &RunCells) -> Option<(&StringArray, &StringArray)> {
        Some((&cells.pair, &cells.source))
    }

    fn read(cells: &RunCells, at: usize) -> Result<Self, BadCell> {
        let run = cells.run(at)?;
        let (first, last) = (run.first_observed_time, run.last_observed_time);
        if last < first {
            return Err(BadCell(LAST_OBSERVED, CellProblem::Reversed { first, last }));
        }
        if run.observation_count == 0 {
            return Err(BadCell(OBSERVATIONS, CellProblem::NoObservation));
        }
        Ok(Self {
            pair: text(&cells.pair, at, PAIR)?.to_owned(),
            source: text(&cells.source, at, SOURCE)?.to_owned(),
            run,
        })
    }
}

impl Row for Revision {
    const WHAT: &'static str = "revisions";
    const COLUMNS: &'static [Column] = &{
        let [a, b, c, d, e, f, g, h, i, j, k] = RUN_COLUMNS;
        [a, b, c, d, e, f, g, h, i, j, k, column(SUPERSEDED, time)]
    };
    type Cells = (RunCells, TimestampMicrosecondArray);

    fn cells(batch: &RecordBatch) -> Option<Self::Cells> {
        Some((RunCells::new(batch)?, primitive::<TimestampMicrosecondType>(batch, SUPERSEDED)?))
    }

    fn series((runs, _): &Self::Cells) -> Option<(&StringArray, &StringArray)> {
        Some((&runs.pair, &runs.source))
    }

    fn read((runs, superseded): &Self::Cells, at: usize) -> Result<Self, BadCell> {
        Ok(Self { run: runs.run(at)?, superseded_time: timestamp(superseded, at, SUPERSEDED)? })
    }
}

/// A row of the timeline.
pub(super) struct Instant(pub(super) Timestamp);

impl Row for Instant {
    const WHAT: &'static str = "the timeline";
    const COLUMNS: &'static [Column] =
        &[column(PAIR, || DataType::Utf8), column(SOURCE, || DataType::Utf8), column(OBSERVED, time)];
    type Cells = (StringArray, StringArray, TimestampMicrosecondArray);

    fn cells(batch: &RecordBatch) -> Option<Self::Cells> {
        let observed = primitive::<TimestampMicrosecondType>(batch, OBSERVED)?;
        Some((strings(batch, PAIR)?, strings(batch, SOURCE)?, observed))
    }

    fn series((pair, source, _): &Self::Cells) -> Option<(&StringArray, &StringArray)> {
        Some((pair, source))
    }

    fn read((_, _, observed): &Self::Cells, at: usize) -> Result<Self, BadCell> {
        timestamp(observed, at, OBSERVED).map(Self)
    }
}

/// A series, its names as written and as they are read.
pub(super) struct NamedSeries {
    pub(super) pair: String,
    pub(super) source: String,
    pub(super) key: SeriesKey,
    pub(super) collapse_window_us: i64,
}

impl Row for NamedSeries {
    const WHAT: &'static str = "series";
    const COLUMNS: &'static [Column] = &[
        column(PAIR, || DataType::Utf8),
        column(SOURCE, || DataType::Utf8),
        column(COLLAPSE_WINDOW, || DataType::Int64),
    ];
    type Cells = (StringArray, StringArray, Int64Array);

    fn cells(batch: &RecordBatch) -> Option<Self::Cells> {
        let windows = primitive::<Int64Type>(batch, COLLAPSE_WINDOW)?;
        Some((strings(batch, PAIR)?, strings(batch, SOURCE)?, windows))
    }

    fn series(_: &Self::Cells) -> Option<(&StringArray, &StringArray)> {
        None
    }

    fn read((pairs, sources, windows): &Self::Cells, at: usize) -> Result<Self, BadCell> {
        let (pair, source) = (text(pairs, at, PAIR)?, text(sources, at, SOURCE)?);
        present(windows, at, COLLAPSE_WINDOW)?;
        let key = series_key(pair, source)?;
        Ok(Self { pair: pair.to_owned(), source: source.to_owned(), key, collapse_window_us: windows.value(at) })
    }
}

/// Of the names in a row.
pub(super) fn series_key(pair: &str, source: &str) -> Result<SeriesKey, BadCell> {
    Ok(SeriesKey {
        pair: parse_pair(pair).map_err(|problem| BadCell(PAIR, problem.into()))?,
        source: Source::parse(source).map_err(|problem| BadCell(SOURCE, problem.into()))?,
    })
}

/// Any ISO currency passes: what is served is a matter of settings.
fn parse_pair(text: &str) -> Result<Pair, PairError> {
    let (base, quote) = text.split_once('/').ok_or_else(|| PairError::Malformed(clip(text)))?;
    let currency = |code| Currency::parse(code).map_err(|problem| PairError::Currency { text: clip(text), problem });
    Pair::new(currency(base)?, currency(quote)?)
}

/// A commit: its sequence and its recorded time.
pub(super) struct CommitRow(pub(super) u64, pub(super) Timestamp);

impl Row for CommitRow {
    const WHAT: &'static str = "commits";
    const COLUMNS: &'static [Column] = &[column(SEQUENCE, || DataType::UInt64), column(RECORDED, time)];
    type Cells = (UInt64Array, TimestampMicrosecondArray);

    fn cells(batch: &RecordBatch) -> Option<Self::Cells> {
        Some((primitive::<UInt64Type>(batch, SEQUENCE)?, primitive::<TimestampMicrosecondType>(batch, RECORDED)?))
    }

    fn series(_: &Self::Cells) -> Option<(&StringArray, &StringArray)> {
        None
    }

    fn read((sequences, recorded): &Self::Cells, at: usize) -> Result<Self, BadCell> {
        present(sequences, at, SEQUENCE)?;
        Ok(Self(sequences.value(at), timestamp(recorded, at, RECORDED)?))
    }
}
