//! Encoding and decoding of columnar messages: runs and ticks as little-endian columns.
//!
//! The protos describe the layout. Servers and clients share this module, so that the layout has one implementation.
//!
//! **Invariant**: decoding never panics and never guesses a value. Columns of different lengths make the whole message
//! invalid; an invalid row of ticks does not affect other rows.

use prost::bytes::Bytes;
use thiserror::Error;

use crate::domain::{
    PublishedValue, Rate, RateError, ReportedChange, ReportedChangeError, Run, SeriesKey, Timestamp, TimestampError,
};
use crate::proto::convert::timestamp;
use crate::proto::v1::{StreamRunsResponse, TickColumns};

/// Maximum number of rows in one [`TickColumns`].
pub const TICK_COLUMN_ROWS_MAX: usize = 100_000;

/// The code for "no reported change" in a column of reported changes.
const NO_CHANGE: i64 = -1;
/// The maximum of a column of observation counts. Larger counts are stored as this value.
const COUNT_CEILING: u32 = u32::MAX;

/// Why a columnar message cannot be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ColumnsError {
    /// The length of a column does not match the number of rows.
    #[error("{column} has {found} bytes, but {rows} rows need {expected}")]
    Length {
        /// The field of the column.
        column: &'static str,
        /// The length of the column in bytes.
        found: usize,
        /// The number of rows of the message.
        rows: usize,
        /// The number of bytes for this number of rows.
        expected: usize,
    },
    /// The first column ends inside a row.
    #[error("{column} has {found} bytes, which is not a multiple of the row width of {width} bytes")]
    PartRow {
        /// The field of the column.
        column: &'static str,
        /// The length of the column in bytes.
        found: usize,
        /// The width of a row in bytes.
        width: usize,
    },
    /// The message has too many rows.
    #[error("{found} rows are too many for one batch; send at most {TICK_COLUMN_ROWS_MAX}")]
    TooManyRows {
        /// The number of rows.
        found: usize,
    },
    /// The message has no base time.
    #[error("base_time is missing; set it, because the time of the first row is relative to it")]
    NoBaseTime,
    /// The base time is not a valid time.
    #[error("base_time: {0}")]
    BaseTime(TimestampError),
    /// The number of places is above the maximum for rates or for reported changes.
    #[error("{field} is {found}; use at most {max}")]
    Places {
        /// The field with the number of places.
        field: &'static str,
        /// The value of the field.
        found: u32,
        /// The maximum number of places.
        max: u8,
    },
    /// A row has another number of places than the rows before it. A message has one number of places for all rows.
    #[error("row {row} has {found} {field}, but the rows before it have {expected}; put the row into a separate batch")]
    MixedPlaces {
        /// The field with the number of places.
        field: &'static str,
        /// The row, counted from 0.
        row: usize,
        /// The number of places of the row.
        found: u8,
        /// The number of places of the rows before it.
        expected: u8,
    },
    /// The value of a run is invalid.
    #[error("row {row}: {problem}")]
    Value {
        /// The row, counted from 0.
        row: usize,
        /// What is wrong with the value.
        problem: ColumnValueError,
    },
    /// A run ends before it begins, or has no observation.
    #[error("row {row} is not a valid run: first observed {first}, last observed {last}, {count} observations")]
    Run {
        /// The row, counted from 0.
        row: usize,
        /// The first observed time of the row.
        first: Timestamp,
        /// The last observed time of the row.
        last: Timestamp,
        /// The observation count of the row.
        count: u32,
    },
}

/// Why the value of a row is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ColumnValueError {
    /// Mantissa and places do not form a valid rate.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// Mantissa and places do not form a valid reported change.
    #[error(transparent)]
    ReportedChange(#[from] ReportedChangeError),
    /// A negative code other than the code for "no reported change".
    #[error("invalid reported change code {0}: use -1 for none, or a code of 0 or more")]
    ReportedChangeCode(i64),
}

/// Why the observed time of a row is invalid: base time and differences add up to a time outside the supported years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("observed time of {micros} us since 1970 is outside the years 0001 to 9999")]
pub struct ColumnTimeError {
    /// The sum of base time and differences, in microseconds since 1970.
    pub micros: i128,
}

/// One row of [`TickColumns`]. An invalid row does not affect other rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnTick {
    /// The sum of base time and the differences up to this row, or why it is invalid.
    pub observed_time: Result<Timestamp, ColumnTimeError>,
    /// The rate and the reported change, or why they are invalid.
    pub value: Result<PublishedValue, ColumnValueError>,
}

/// Splits a required column into rows of `WIDTH` bytes.
fn required_column<'a, const WIDTH: usize>(
    column: &'static str,
    bytes: &'a Bytes,
    rows: usize,
) -> Result<&'a [[u8; WIDTH]], ColumnsError> {
    let (chunks, rest) = bytes.as_chunks::<WIDTH>();
    if chunks.len() != rows || !rest.is_empty() {
        return Err(ColumnsError::Length { column, found: bytes.len(), rows, expected: rows.saturating_mul(WIDTH) });
    }
    Ok(chunks)
}

/// Splits an optional column into rows of `WIDTH` bytes. An absent column is empty and gives no rows.
fn optional_column<'a, const WIDTH: usize>(
    column: &'static str,
    bytes: &'a Bytes,
    rows: usize,
) -> Result<&'a [[u8; WIDTH]], ColumnsError> {
    if bytes.is_empty() { Ok(&[]) } else { required_column(column, bytes, rows) }
}

fn mantissa(low: [u8; 8], high: Option<&[u8; 4]>) -> u128 {
    let high = high.map_or(0, |bytes| u32::from_le_bytes(*bytes));
    u128::from(u64::from_le_bytes(low)) | (u128::from(high) << u64::BITS)
}

/// Splits the mantissa of a rate into its low 64 bits and the 32 bits above. The mantissa of a rate has at most 96
/// bits.
fn mantissa_parts(rate: Rate) -> ([u8; 8], [u8; 4]) {
    let low = u64::try_from(rate.mantissa() & u128::from(u64::MAX)).unwrap_or(u64::MAX);
    let high = u32::try_from(rate.mantissa() >> u64::BITS).unwrap_or(u32::MAX);
    (low.to_le_bytes(), high.to_le_bytes())
}

/// Decodes a reported change; `None` for the code "no reported change".
fn decode_change(code: i64, places: u32) -> Result<Option<ReportedChange>, ColumnValueError> {
    match u64::try_from(code) {
        Ok(code) => Ok(Some(ReportedChange::from_parts(code & 1 == 1, code >> 1, places)?)),
        Err(_) if code == NO_CHANGE => Ok(None),
        Err(_) => Err(ColumnValueError::ReportedChangeCode(code)),
    }
}

/// Encodes a reported change: twice its magnitude, plus 1 for a minus sign. A magnitude is below 10^12, so the code
/// fits.
fn encode_change(change: ReportedChange) -> i64 {
    (change.mantissa() * 2 + u64::from(change.is_negative())).cast_signed()
}

/// A column that stays empty until a row differs from the default element.
struct LazyColumn<const WIDTH: usize> {
    bytes: Vec<u8>,
    default: [u8; WIDTH],
}

impl<const WIDTH: usize> LazyColumn<WIDTH> {
    fn new(default: [u8; WIDTH]) -> Self {
        Self { bytes: Vec::new(), default }
    }

    /// Adds the element of row `row`, which must be the next row. `capacity` is the expected number of rows.
    fn push(&mut self, row: usize, element: [u8; WIDTH], capacity: usize) {
        if self.bytes.is_empty() {
            if element == self.default {
                return;
            }
            self.bytes.reserve_exact(capacity.max(row + 1) * WIDTH);
            for _ in 0..row {
                self.bytes.extend_from_slice(&self.default);
            }
        }
        self.bytes.extend_from_slice(&element);
    }
}

/// Encodes runs as one [`StreamRunsResponse`], in one pass. The buffers are allocated once, at full capacity.
pub struct RunPacker {
    capacity: usize,
    rows: usize,
    first_observed_times: Vec<u8>,
    last_observed_times: Vec<u8>,
    observation_counts: Vec<u8>,
    rate_mantissas: Vec<u8>,
    rate_mantissas_high: LazyColumn<4>,
    rate_places: Vec<u8>,
    reported_changes: LazyColumn<8>,
    reported_change_places: Vec<u8>,
    recorded_times: Vec<u8>,
}

impl RunPacker {
    /// Makes a packer with buffers for `capacity` runs. It accepts more runs, but its buffers must then grow.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            rows: 0,
            first_observed_times: Vec::with_capacity(capacity * 8),
            last_observed_times: Vec::with_capacity(capacity * 8),
            observation_counts: Vec::with_capacity(capacity * 4),
            rate_mantissas: Vec::with_capacity(capacity * 8),
            rate_mantissas_high: LazyColumn::new([0; 4]),
            rate_places: Vec::with_capacity(capacity),
            reported_changes: LazyColumn::new(NO_CHANGE.to_le_bytes()),
            reported_change_places: Vec::with_capacity(capacity),
            recorded_times: Vec::with_capacity(capacity * 8),
        }
    }

    /// Returns the number of runs added so far.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Returns true if no run was added.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Returns how many more runs fit into the capacity.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.rows)
    }

    /// Adds runs, in the given order.
    pub fn extend(&mut self, runs: &[Run]) {
        for run in runs {
            self.push(run);
        }
    }

    fn push(&mut self, run: &Run) {
        let count = u32::try_from(run.observation_count).unwrap_or(COUNT_CEILING);
        let (low, high) = mantissa_parts(run.value.rate);
        let (code, code_places) =
            run.value.reported_change.map_or((NO_CHANGE, 0), |change| (encode_change(change), change.places()));
        self.first_observed_times.extend_from_slice(&run.first_observed_time.micros().to_le_bytes());
        self.last_observed_times.extend_from_slice(&run.last_observed_time.micros().to_le_bytes());
        self.observation_counts.extend_from_slice(&count.to_le_bytes());
        self.rate_mantissas.extend_from_slice(&low);
        self.rate_mantissas_high.push(self.rows, high, self.capacity);
        self.rate_places.push(run.value.rate.places());
        self.reported_changes.push(self.rows, code.to_le_bytes(), self.capacity);
        self.reported_change_places.push(code_places);
        self.recorded_times.extend_from_slice(&run.recorded_time.micros().to_le_bytes());
        self.rows += 1;
    }

    /// Returns the message with all columns. The caller sets the fields for the commit and the series.
    pub fn finish(self) -> StreamRunsResponse {
        let has_changes = !self.reported_changes.bytes.is_empty();
        StreamRunsResponse {
            run_count: u32::try_from(self.rows).unwrap_or(u32::MAX),
            first_observed_times: self.first_observed_times.into(),
            last_observed_times: self.last_observed_times.into(),
            observation_counts: self.observation_counts.into(),
            rate_mantissas: self.rate_mantissas.into(),
            rate_mantissas_high: self.rate_mantissas_high.bytes.into(),
            rate_places: self.rate_places.into(),
            reported_changes: self.reported_changes.bytes.into(),
            reported_change_places: if has_changes { self.reported_change_places.into() } else { Bytes::new() },
            recorded_times: self.recorded_times.into(),
            ..StreamRunsResponse::default()
        }
    }
}

/// Decodes the runs of one message, in the order of the message. A run of more than 4,294,967,295 observations gets
/// that count.
///
/// # Errors
/// [`ColumnsError`] if columns have different lengths or a row is not a valid run. In this case no run is returned.
pub fn decode_runs(message: &StreamRunsResponse) -> Result<Vec<Run>, ColumnsError> {
    let rows = usize::try_from(message.run_count).unwrap_or(usize::MAX);
    let firsts = required_column::<8>("first_observed_times", &message.first_observed_times, rows)?;
    let lasts = required_column::<8>("last_observed_times", &message.last_observed_times, rows)?;
    let counts = required_column::<4>("observation_counts", &message.observation_counts, rows)?;
    let lows = required_column::<8>("rate_mantissas", &message.rate_mantissas, rows)?;
    let highs = optional_column::<4>("rate_mantissas_high", &message.rate_mantissas_high, rows)?;
    let places = required_column::<1>("rate_places", &message.rate_places, rows)?;
    let codes = optional_column::<8>("reported_changes", &message.reported_changes, rows)?;
    // Reported changes and their places are both present or both absent.
    let code_places = required_column::<1>("reported_change_places", &message.reported_change_places, codes.len())?;
    let recorded = required_column::<8>("recorded_times", &message.recorded_times, rows)?;

    let value = |row: usize, low: [u8; 8], [places]: [u8; 1]| -> Result<PublishedValue, ColumnValueError> {
        let rate = Rate::from_parts(mantissa(low, highs.get(row)), u32::from(places))?;
        let reported_change = match (codes.get(row), code_places.get(row)) {
            (Some(code), Some([places])) => decode_change(i64::from_le_bytes(*code), u32::from(*places))?,
            _ => None,
        };
        Ok(PublishedValue { rate, reported_change })
    };
    let time = |bytes: [u8; 8]| Timestamp::from_micros(i64::from_le_bytes(bytes));
    let mut runs = Vec::with_capacity(rows);
    let columns = firsts.iter().zip(lasts).zip(counts).zip(lows).zip(places).zip(recorded).enumerate();
    for (row, (((((first, last), count), low), places), recorded)) in columns {
        let (first, last, count) = (time(*first), time(*last), u32::from_le_bytes(*count));
        if last < first || count == 0 {
            return Err(ColumnsError::Run { row, first, last, count });
        }
        runs.push(Run {
            first_observed_time: first,
            last_observed_time: last,
            observation_count: u64::from(count),
            value: value(row, *low, *places).map_err(|problem| ColumnsError::Value { row, problem })?,
            recorded_time: time(*recorded),
        });
    }
    Ok(runs)
}

/// Checks that a row has the number of places that all rows must share.
fn shared_places(seen: &mut Option<u8>, field: &'static str, row: usize, found: u8) -> Result<(), ColumnsError> {
    match *seen.get_or_insert(found) {
        expected if expected == found => Ok(()),
        expected => Err(ColumnsError::MixedPlaces { field, row, found, expected }),
    }
}

/// Encodes ticks of one series as columns, in the given order.
///
/// # Errors
/// `TooManyRows` if there are more than [`TICK_COLUMN_ROWS_MAX`] ticks; `MixedPlaces` if rates (or reported changes)
/// differ in their number of places. Digits stay as published, so ticks with other places need a separate batch.
pub fn encode_tick_columns(
    series: &SeriesKey,
    ticks: &[(Timestamp, PublishedValue)],
) -> Result<TickColumns, ColumnsError> {
    encode_tick_columns_of(&series.pair.to_string(), &series.source.to_string(), ticks)
}

/// Encodes ticks as [`encode_tick_columns`] does, for a pair and a source that only the server checks.
///
/// # Errors
/// The errors of [`encode_tick_columns`].
pub fn encode_tick_columns_of(
    pair: &str,
    source: &str,
    ticks: &[(Timestamp, PublishedValue)],
) -> Result<TickColumns, ColumnsError> {
    let rows = ticks.len();
    if rows > TICK_COLUMN_ROWS_MAX {
        return Err(ColumnsError::TooManyRows { found: rows });
    }
    let base = ticks.first().map_or(Timestamp::default(), |(time, _)| *time);
    let (mut places, mut change_places) = (None, None);
    let mut deltas = Vec::with_capacity(rows * 8);
    let mut lows = Vec::with_capacity(rows * 8);
    let mut highs = LazyColumn::new([0; 4]);
    let mut codes = LazyColumn::new(NO_CHANGE.to_le_bytes());
    let mut before = base;
    for (row, (time, value)) in ticks.iter().enumerate() {
        shared_places(&mut places, "places", row, value.rate.places())?;
        let code = match value.reported_change {
            None => NO_CHANGE,
            Some(change) => {
                shared_places(&mut change_places, "reported_change_places", row, change.places())?;
                encode_change(change)
            }
        };
        let (low, high) = mantissa_parts(value.rate);
        deltas.extend_from_slice(&time.micros_since(before).to_le_bytes());
        lows.extend_from_slice(&low);
        highs.push(row, high, rows);
        codes.push(row, code.to_le_bytes(), rows);
        before = *time;
    }
    Ok(TickColumns {
        pair: pair.to_owned(),
        source: source.to_owned(),
        places: u32::from(places.unwrap_or(0)),
        base_time: Some(timestamp(base)),
        observed_time_deltas: deltas.into(),
        rate_mantissas: lows.into(),
        rate_mantissas_high: highs.bytes.into(),
        reported_change_places: u32::from(change_places.unwrap_or(0)),
        reported_changes: codes.bytes.into(),
    })
}

fn check_places(field: &'static str, found: u32, max: u8) -> Result<(), ColumnsError> {
    if found > u32::from(max) { Err(ColumnsError::Places { field, found, max }) } else { Ok(()) }
}

/// Decodes the rows of a batch, in the order of the batch. The caller checks `pair` and `source`.
///
/// A row with an invalid time or value carries its own error and does not affect other rows. Differences are added
/// without overflow: after a row outside the supported years, a later row may be inside them again.
///
/// # Errors
/// [`ColumnsError`] for problems of the whole batch: columns of different lengths, too many rows, or an invalid number
/// of places or base time.
pub fn decode_tick_columns(columns: &TickColumns) -> Result<Vec<ColumnTick>, ColumnsError> {
    let (deltas, rest) = columns.observed_time_deltas.as_chunks::<8>();
    if !rest.is_empty() {
        let found = columns.observed_time_deltas.len();
        return Err(ColumnsError::PartRow { column: "observed_time_deltas", found, width: 8 });
    }
    let rows = deltas.len();
    if rows > TICK_COLUMN_ROWS_MAX {
        return Err(ColumnsError::TooManyRows { found: rows });
    }
    let lows = required_column::<8>("rate_mantissas", &columns.rate_mantissas, rows)?;
    let highs = optional_column::<4>("rate_mantissas_high", &columns.rate_mantissas_high, rows)?;
    let codes = optional_column::<8>("reported_changes", &columns.reported_changes, rows)?;
    check_places("places", columns.places, Rate::PLACES_MAX)?;
    check_places("reported_change_places", columns.reported_change_places, ReportedChange::DIGITS_MAX)?;
    let base = columns.base_time.ok_or(ColumnsError::NoBaseTime)?;
    let base = Timestamp::try_from(&base).map_err(ColumnsError::BaseTime)?;

    let value = |row: usize, low: [u8; 8]| -> Result<PublishedValue, ColumnValueError> {
        let rate = Rate::from_parts(mantissa(low, highs.get(row)), columns.places)?;
        let reported_change = match codes.get(row) {
            Some(code) => decode_change(i64::from_le_bytes(*code), columns.reported_change_places)?,
            None => None,
        };
        Ok(PublishedValue { rate, reported_change })
    };
    // The sum of 100,000 differences of 63 bits needs far fewer than 127 bits.
    let mut micros = i128::from(base.micros());
    let ticks = deltas.iter().zip(lows).enumerate().map(|(row, (delta, low))| {
        micros += i128::from(i64::from_le_bytes(*delta));
        let time = i64::try_from(micros).map(Timestamp::from_micros).ok();
        ColumnTick {
            observed_time: time
                .filter(|time| (Timestamp::MIN..=Timestamp::MAX).contains(time))
                .ok_or(ColumnTimeError { micros }),
            value: value(row, *low),
        }
    });
    Ok(ticks.collect())
}

#[cfg(test)]
mod tests;
