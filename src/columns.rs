//! Runs and ticks as little-endian columns: the messages made for speed, packed and read.
//!
//! Servers and clients share this module, so that there is one reading of the layout that the protos describe.
//!
//! **Invariant**: reading never panics and never guesses. Columns that disagree in length refuse the whole message;
//! one bad row of ticks refuses itself alone.

use prost::bytes::Bytes;
use thiserror::Error;

use crate::domain::{
    PublishedValue, Rate, RateError, ReportedChange, ReportedChangeError, Run, SeriesKey, Timestamp, TimestampError,
};
use crate::proto::convert::timestamp;
use crate::proto::v1::{StreamRunsResponse, TickColumns};

/// Most rows of one [`TickColumns`].
pub const TICK_COLUMN_ROWS_MAX: usize = 100_000;

/// In a column of reported changes: this row has none.
const NO_CHANGE: i64 = -1;
/// In a column of observation counts: more than the column can say.
const COUNT_CEILING: u32 = u32::MAX;

/// Why columns as a whole cannot be packed or read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ColumnsError {
    /// Columns that disagree about the number of rows, or end inside one.
    #[error("{column} holds {found} bytes; {rows} rows take {expected}")]
    Length {
        /// The field.
        column: &'static str,
        /// Its bytes.
        found: usize,
        /// Rows that the message has.
        rows: usize,
        /// Bytes that so many rows take.
        expected: usize,
    },
    /// A first column that ends inside a row.
    #[error("{column} holds {found} bytes, which is no whole number of rows of {width}")]
    PartRow {
        /// The field.
        column: &'static str,
        /// Its bytes.
        found: usize,
        /// Bytes of a row.
        width: usize,
    },
    /// More rows than are taken at once.
    #[error("{found} rows are too many for one batch; send at most {TICK_COLUMN_ROWS_MAX}")]
    TooManyRows {
        /// Rows given.
        found: usize,
    },
    /// No time to count from.
    #[error("base_time is missing; the first row's time is counted from it")]
    NoBaseTime,
    /// A time to count from that is none.
    #[error("base_time: {0}")]
    BaseTime(TimestampError),
    /// More places than any rate or reported change has.
    #[error("{field} is {found}; at most {max} are kept")]
    Places {
        /// The field.
        field: &'static str,
        /// As given.
        found: u32,
        /// Most.
        max: u8,
    },
    /// Rows of one message that differ in places where the message has one number for all.
    #[error("row {row} has {found} {field} and the rows before it {expected}; put it into a batch of its own")]
    MixedPlaces {
        /// The field.
        field: &'static str,
        /// Which row, from 0.
        row: usize,
        /// Its places.
        found: u8,
        /// Those of the rows before it.
        expected: u8,
    },
    /// A run whose value is none.
    #[error("row {row}: {problem}")]
    Value {
        /// Which row, from 0.
        row: usize,
        /// What is wrong with it.
        problem: ColumnValueError,
    },
    /// A run that ends before it begins, or of no observation.
    #[error("row {row} is no run: first observed {first}, last observed {last}, {count} observations")]
    Run {
        /// Which row, from 0.
        row: usize,
        /// As given.
        first: Timestamp,
        /// As given.
        last: Timestamp,
        /// As given.
        count: u32,
    },
}

/// Why one row has no value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ColumnValueError {
    /// Mantissa and places make no rate.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// Mantissa and places make no reported change.
    #[error(transparent)]
    ReportedChange(#[from] ReportedChangeError),
    /// A negative number that is not the mark for none.
    #[error("reported change is coded {0}; a negative code other than -1 (none) says nothing")]
    ReportedChangeCode(i64),
}

/// Why one row has no time: the differences up to it lead out of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("observed time of {micros} us since 1970 is outside the years 0001 to 9999")]
pub struct ColumnTimeError {
    /// Base time and differences, added up.
    pub micros: i128,
}

/// One row of [`TickColumns`]; what is wrong with it is its own matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnTick {
    /// Base time and the differences up to this row.
    pub observed_time: Result<Timestamp, ColumnTimeError>,
    /// Rate and reported change.
    pub value: Result<PublishedValue, ColumnValueError>,
}

/// A column of `width` bytes a row that every row has.
fn full<'a, const WIDTH: usize>(
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

/// A column that is left out where no row needs it.
fn optional<'a, const WIDTH: usize>(
    column: &'static str,
    bytes: &'a Bytes,
    rows: usize,
) -> Result<&'a [[u8; WIDTH]], ColumnsError> {
    if bytes.is_empty() { Ok(&[]) } else { full(column, bytes, rows) }
}

fn mantissa(low: [u8; 8], high: Option<&[u8; 4]>) -> u128 {
    let high = high.map_or(0, |bytes| u32::from_le_bytes(*bytes));
    u128::from(u64::from_le_bytes(low)) | (u128::from(high) << u64::BITS)
}

/// The mantissa's low 64 bits and the 32 above; a rate has no more.
fn mantissa_parts(rate: Rate) -> ([u8; 8], [u8; 4]) {
    let low = u64::try_from(rate.mantissa() & u128::from(u64::MAX)).unwrap_or(u64::MAX);
    let high = u32::try_from(rate.mantissa() >> u64::BITS).unwrap_or(u32::MAX);
    (low.to_le_bytes(), high.to_le_bytes())
}

fn change_of_code(code: i64, places: u32) -> Result<Option<ReportedChange>, ColumnValueError> {
    match u64::try_from(code) {
        Ok(code) => Ok(Some(ReportedChange::from_parts(code & 1 == 1, code >> 1, places)?)),
        Err(_) if code == NO_CHANGE => Ok(None),
        Err(_) => Err(ColumnValueError::ReportedChangeCode(code)),
    }
}

/// A magnitude is below 10^12, so that the sign fits beside it.
fn code_of_change(change: ReportedChange) -> i64 {
    (change.mantissa() * 2 + u64::from(change.is_negative())).cast_signed()
}

/// A column of which nothing is kept until a row differs from the filling.
struct LazyColumn<const WIDTH: usize> {
    bytes: Vec<u8>,
    filling: [u8; WIDTH],
}

impl<const WIDTH: usize> LazyColumn<WIDTH> {
    fn new(filling: [u8; WIDTH]) -> Self {
        Self { bytes: Vec::new(), filling }
    }

    /// Puts `element` at `row`, the rows before it being there; `capacity` is in rows.
    fn push(&mut self, row: usize, element: [u8; WIDTH], capacity: usize) {
        if self.bytes.is_empty() {
            if element == self.filling {
                return;
            }
            self.bytes.reserve_exact(capacity.max(row + 1) * WIDTH);
            for _ in 0..row {
                self.bytes.extend_from_slice(&self.filling);
            }
        }
        self.bytes.extend_from_slice(&element);
    }
}

/// Packs runs into one [`StreamRunsResponse`], in one pass and without growing.
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
    /// For `capacity` runs; more are taken, but at the price of growing.
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

    /// Runs taken so far.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether none was taken.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// How many more runs it was made for.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.rows)
    }

    /// Takes runs, in order.
    pub fn extend(&mut self, runs: &[Run]) {
        for run in runs {
            self.push(run);
        }
    }

    fn push(&mut self, run: &Run) {
        let count = u32::try_from(run.observation_count).unwrap_or(COUNT_CEILING);
        let (low, high) = mantissa_parts(run.value.rate);
        let (code, code_places) =
            run.value.reported_change.map_or((NO_CHANGE, 0), |change| (code_of_change(change), change.places()));
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

    /// The message, without what it says of commit and series.
    pub fn finish(self) -> StreamRunsResponse {
        let any_change = !self.reported_changes.bytes.is_empty();
        StreamRunsResponse {
            run_count: u32::try_from(self.rows).unwrap_or(u32::MAX),
            first_observed_times: self.first_observed_times.into(),
            last_observed_times: self.last_observed_times.into(),
            observation_counts: self.observation_counts.into(),
            rate_mantissas: self.rate_mantissas.into(),
            rate_mantissas_high: self.rate_mantissas_high.bytes.into(),
            rate_places: self.rate_places.into(),
            reported_changes: self.reported_changes.bytes.into(),
            reported_change_places: if any_change { self.reported_change_places.into() } else { Bytes::new() },
            recorded_times: self.recorded_times.into(),
            ..StreamRunsResponse::default()
        }
    }
}

/// The runs of one message, in its order. A run of more than 4,294,967,295 observations comes back with that count.
///
/// # Errors
/// Columns that disagree, or a row that is no run; then nothing of the message is given.
pub fn decode_runs(message: &StreamRunsResponse) -> Result<Vec<Run>, ColumnsError> {
    let rows = usize::try_from(message.run_count).unwrap_or(usize::MAX);
    let firsts = full::<8>("first_observed_times", &message.first_observed_times, rows)?;
    let lasts = full::<8>("last_observed_times", &message.last_observed_times, rows)?;
    let counts = full::<4>("observation_counts", &message.observation_counts, rows)?;
    let lows = full::<8>("rate_mantissas", &message.rate_mantissas, rows)?;
    let highs = optional::<4>("rate_mantissas_high", &message.rate_mantissas_high, rows)?;
    let places = full::<1>("rate_places", &message.rate_places, rows)?;
    let codes = optional::<8>("reported_changes", &message.reported_changes, rows)?;
    // Changes and their places come together or not at all.
    let code_places = full::<1>("reported_change_places", &message.reported_change_places, codes.len())?;
    let recorded = full::<8>("recorded_times", &message.recorded_times, rows)?;

    let value = |row: usize, low: [u8; 8], [places]: [u8; 1]| -> Result<PublishedValue, ColumnValueError> {
        let rate = Rate::from_parts(mantissa(low, highs.get(row)), u32::from(places))?;
        let reported_change = match (codes.get(row), code_places.get(row)) {
            (Some(code), Some([places])) => change_of_code(i64::from_le_bytes(*code), u32::from(*places))?,
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

/// The one number of places that all rows must share.
fn shared_places(seen: &mut Option<u8>, field: &'static str, row: usize, found: u8) -> Result<(), ColumnsError> {
    match *seen.get_or_insert(found) {
        expected if expected == found => Ok(()),
        expected => Err(ColumnsError::MixedPlaces { field, row, found, expected }),
    }
}

/// Ticks of one series as columns, in the order given.
///
/// # Errors
/// `TooManyRows`, or `MixedPlaces` where rates (or reported changes) differ in places: the digits are kept as published,
/// so such ticks go into batches of their own.
pub fn encode_tick_columns(
    series: &SeriesKey,
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
                code_of_change(change)
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
        pair: series.pair.to_string(),
        source: series.source.to_string(),
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

/// The rows of a batch, in its order; `pair` and `source` are the caller's to check.
///
/// A row whose time or value is none says so and leaves its neighbours alone: differences are added without overflow, so
/// that a row after one outside the calendar may be inside it again.
///
/// # Errors
/// What concerns every row: columns that disagree, too many rows, places or a base time that are none.
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
    let lows = full::<8>("rate_mantissas", &columns.rate_mantissas, rows)?;
    let highs = optional::<4>("rate_mantissas_high", &columns.rate_mantissas_high, rows)?;
    let codes = optional::<8>("reported_changes", &columns.reported_changes, rows)?;
    check_places("places", columns.places, Rate::PLACES_MAX)?;
    check_places("reported_change_places", columns.reported_change_places, ReportedChange::DIGITS_MAX)?;
    let base = columns.base_time.ok_or(ColumnsError::NoBaseTime)?;
    let base = Timestamp::try_from(&base).map_err(ColumnsError::BaseTime)?;

    let value = |row: usize, low: [u8; 8]| -> Result<PublishedValue, ColumnValueError> {
        let rate = Rate::from_parts(mantissa(low, highs.get(row)), columns.places)?;
        let reported_change = match codes.get(row) {
            Some(code) => change_of_code(i64::from_le_bytes(*code), columns.reported_change_places)?,
            None => None,
        };
        Ok(PublishedValue { rate, reported_change })
    };
    // 100,000 differences of 63 bits stay far below 127.
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
