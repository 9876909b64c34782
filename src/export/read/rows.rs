//! Rows of the Parquet files that silkrate writes, by column, back as what they stand for.
//!
//! The types are those of Parquet itself: what arrow notes beside them, such as that a text was a
//! dictionary, is left unread, so that a file that DuckDB or pandas wrote on reads the same.
//!
//! **Invariant**: a value is read exactly or refused with its file, row and column; reading damaged
//! files ends in an error, never in a panic or in silence.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Decimal128Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt64Type};
use arrow_array::{
    Array, ArrowPrimitiveType, BooleanArray, Decimal128Array, Int64Array, PrimitiveArray, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt8Array, UInt64Array,
};
use arrow_schema::{ArrowError, DataType, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::error::{CellProblem, ReadError};
use crate::domain::{
    Currency, Pair, PairError, PublishedValue, Rate, RateError, ReportedChange, Revision, Run, SeriesKey, Source,
    Timestamp, clip,
};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8_192;
/// Places of the column of rates.
const RATE_SCALE: u8 = 18;
/// Places of the column of reported changes.
const CHANGE_SCALE: u8 = 12;

/// A column that a file must have.
pub(super) struct Column {
    name: &'static str,
    data_type: fn() -> DataType,
}

const fn column(name: &'static str, data_type: fn() -> DataType) -> Column {
    Column { name, data_type }
}

const PAIR: &str = "pair";
const SOURCE: &str = "source";
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
const SEQUENCE: &str = "sequence";

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

const fn rate() -> DataType {
    DataType::Decimal128(38, 18)
}

const fn change() -> DataType {
    DataType::Decimal128(24, 12)
}

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
pub(super) struct BadCell(&'static str, CellProblem);

/// The rows of a file, in its order.
pub(super) struct Rows<'a, T: Row> {
    file: String,
    total: u64,
    batches: ParquetRecordBatchReader,
    /// The batch under way.
    cells: Option<T::Cells>,
    batch_rows: usize,
    /// In the batch.
    at: usize,
    /// Rows before the batch.
    before: u64,
    is_over: bool,
    /// Counts the rows of all files that share it, a batch at a time.
    read: &'a AtomicU64,
}

impl<'a, T: Row> Rows<'a, T> {
    /// Opens a file and checks its schema.
    pub(super) fn open(path: &Path, read: &'a AtomicU64) -> Result<Self, ReadError> {
        let name = || path.display().to_string();
        let file = File::open(path).map_err(|problem| ReadError::Io { file: name(), problem })?;
        let opened = guarded(|| {
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        });
        let unreadable = |problem| ReadError::Parquet { file: name(), problem };
        let builder = opened.map_err(unreadable)?;
        for Column { name: column, data_type } in T::COLUMNS {
            let expected = data_type();
            match builder.schema().field_with_name(column) {
                Ok(field) if *field.data_type() == expected => {}
                Ok(field) => {
                    let (expected, found) = (expected.to_string(), field.data_type().to_string());
                    return Err(ReadError::ColumnType { file: name(), column, expected, found });
                }
                Err(_) => {
                    let expected = expected.to_string();
                    return Err(ReadError::MissingColumn { file: name(), column, what: T::WHAT, expected });
                }
            }
        }
        let total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let mask = ProjectionMask::columns(builder.parquet_schema(), T::COLUMNS.iter().map(|column| column.name));
        let batches = guarded(|| builder.with_projection(mask).with_batch_size(BATCH_ROWS).build());
        let batches = batches.map_err(unreadable)?;
        let file = name();
        Ok(Self { file, total, batches, cells: None, batch_rows: 0, at: 0, before: 0, is_over: false, read })
    }

    /// For messages.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Rows of the file, as it says itself.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The number of the next row, from 1.
    pub(super) fn next_number(&self) -> u64 {
        self.before + self.at as u64 + 1
    }

    /// The next row.
    pub(super) fn next_row(&mut self) -> Result<Option<T>, ReadError> {
        if !self.ensure()? {
            return Ok(None);
        }
        let Some(cells) = &self.cells else { return Ok(None) };
        match T::read(cells, self.at) {
            Ok(row) => {
                self.at += 1;
                Ok(Some(row))
            }
            Err(BadCell(column, problem)) => {
                Err(ReadError::Cell { file: self.file.clone(), row: self.next_number(), column, problem })
            }
        }
    }

    /// Decodes the next batch where the last one is used up; says whether there is a next row.
    fn ensure(&mut self) -> Result<bool, ReadError> {
        while self.at == self.batch_rows && !self.is_over {
            self.before += self.batch_rows as u64;
            self.read.fetch_add(self.batch_rows as u64, Ordering::Relaxed);
            (self.at, self.batch_rows, self.cells) = (0, 0, None);
            let batches = &mut self.batches;
            let next = guarded(|| match batches.next().transpose()? {
                None => Ok(None),
                Some(batch) => {
                    let cells = T::cells(&batch);
                    cells
                        .map(|cells| Some((batch.num_rows(), cells)))
                        .ok_or(ArrowError::SchemaError("a batch has other columns than the file".to_owned()))
                }
            });
            match next.map_err(|problem| ReadError::Parquet { file: self.file.clone(), problem })? {
                None => self.is_over = true,
                Some((rows, cells)) => (self.batch_rows, self.cells) = (rows, Some(cells)),
            }
        }
        Ok(!self.is_over)
    }

    /// The rows that are next as long as they are of a series.
    pub(super) fn of_series<'r>(&'r mut self, pair: &'r str, source: &'r str) -> OfSeries<'r, 'a, T> {
        OfSeries { rows: self, pair, source }
    }

    /// The series that the next row is of, as written; none at the end.
    fn next_series(&mut self) -> Result<Option<(&str, &str)>, ReadError> {
        if !self.ensure()? {
            return Ok(None);
        }
        let columns = self.cells.as_ref().and_then(T::series);
        Ok(columns.map(|(pairs, sources)| (pairs.value(self.at), sources.value(self.at))))
    }

    /// Makes sure that no row is left.
    pub(super) fn expect_end(&mut self) -> Result<(), ReadError> {
        let Some((pair, source)) = self.next_series()? else { return Ok(()) };
        let (pair, source_name) = (clip(pair), clip(source));
        Err(ReadError::Order { file: self.file.clone(), row: self.next_number(), pair, source_name })
    }
}

/// See [`Rows::of_series`].
pub(super) struct OfSeries<'r, 'a, T: Row> {
    rows: &'r mut Rows<'a, T>,
    pair: &'r str,
    source: &'r str,
}

impl<T: Row> Iterator for OfSeries<'_, '_, T> {
    type Item = Result<T, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.rows.next_series() {
            Ok(Some(next)) if next == (self.pair, self.source) => self.rows.next_row().transpose(),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// Damaged pages can make the reader panic; for its file that is damage like any other.
fn guarded<T, E: ToString>(read: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("its pages do not decode".to_owned()),
    }
}

fn present<T: Array>(array: &T, at: usize, name: &'static str) -> Result<(), BadCell> {
    if array.is_null(at) { Err(BadCell(name, CellProblem::Null)) } else { Ok(()) }
}

fn timestamp(array: &TimestampMicrosecondArray, at: usize, name: &'static str) -> Result<Timestamp, BadCell> {
    present(array, at, name)?;
    Ok(Timestamp::from_micros(array.value(at)))
}

fn text<'a>(array: &'a StringArray, at: usize, name: &'static str) -> Result<&'a str, BadCell> {
    present(array, at, name)?;
    Ok(array.value(at))
}

fn primitive<T: ArrowPrimitiveType>(batch: &RecordBatch, name: &str) -> Option<PrimitiveArray<T>> {
    batch.column_by_name(name)?.as_primitive_opt::<T>().cloned()
}

fn strings(batch: &RecordBatch, name: &str) -> Option<StringArray> {
    batch.column_by_name(name)?.as_string_opt::<i32>().cloned()
}

/// A magnitude with `scale` places as the mantissa of one with `places`, where that is exact.
fn rescale(magnitude: u128, scale: u8, places: u8) -> Option<u128> {
    let divisor = 10_u128.pow(u32::from(scale.checked_sub(places)?));
    magnitude.is_multiple_of(divisor).then(|| magnitude / divisor)
}

/// The columns of runs.
pub(super) struct RunCells {
    pair: StringArray,
    source: StringArray,
    first: TimestampMicrosecondArray,
    last: TimestampMicrosecondArray,
    recorded: TimestampMicrosecondArray,
    rate: Decimal128Array,
    places: UInt8Array,
    change: Decimal128Array,
    change_places: UInt8Array,
    change_negative: BooleanArray,
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
            rate: primitive::<Decimal128Type>(batch, RATE)?,
            places: primitive::<UInt8Type>(batch, PLACES)?,
            change: primitive::<Decimal128Type>(batch, CHANGE)?,
            change_places: primitive::<UInt8Type>(batch, CHANGE_PLACES)?,
            change_negative: batch.column_by_name(CHANGE_NEGATIVE)?.as_boolean_opt()?.clone(),
            observations: primitive::<UInt64Type>(batch, OBSERVATIONS)?,
        })
    }

    fn rate(&self, at: usize) -> Result<Rate, BadCell> {
        present(&self.rate, at, RATE)?;
        present(&self.places, at, PLACES)?;
        let (value, places) = (self.rate.value(at), self.places.value(at));
        let bad = |problem| BadCell(RATE, problem);
        if value < 0 {
            return Err(bad(RateError::Negative(value.to_string()).into()));
        }
        let mantissa = rescale(value.unsigned_abs(), RATE_SCALE, places);
        let mantissa = mantissa.ok_or_else(|| bad(CellProblem::Inexact(places)))?;
        Rate::from_parts(mantissa, u32::from(places)).map_err(|problem| bad(problem.into()))
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

    fn run(&self, at: usize) -> Result<Run, BadCell> {
        present(&self.observations, at, OBSERVATIONS)?;
        Ok(Run {
            first_observed_time: timestamp(&self.first, at, FIRST_OBSERVED)?,
            last_observed_time: timestamp(&self.last, at, LAST_OBSERVED)?,
            observation_count: self.observations.value(at),
            value: PublishedValue { rate: self.rate(at)?, reported_change: self.change(at)? },
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
        Ok(Self {
            pair: text(&cells.pair, at, PAIR)?.to_owned(),
            source: text(&cells.source, at, SOURCE)?.to_owned(),
            run: cells.run(at)?,
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
        let key = SeriesKey {
            pair: parse_pair(pair).map_err(|problem| BadCell(PAIR, problem.into()))?,
            source: Source::parse(source).map_err(|problem| BadCell(SOURCE, problem.into()))?,
        };
        Ok(Self { pair: pair.to_owned(), source: source.to_owned(), key, collapse_window_us: windows.value(at) })
    }
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

/// The recorded time of the next commit, whose sequence must be this one.
pub(super) fn next_commit(rows: &mut Rows<'_, CommitRow>, expected: u64) -> Result<Option<Timestamp>, ReadError> {
    let row = rows.next_number();
    let Some(CommitRow(found, recorded_time)) = rows.next_row()? else { return Ok(None) };
    if found != expected {
        let problem = CellProblem::Sequence { expected, found };
        return Err(ReadError::Cell { file: rows.file.clone(), row, column: SEQUENCE, problem });
    }
    Ok(Some(recorded_time))
}
