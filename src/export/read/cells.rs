//! Row types of the Parquet files in a full export, and how each is read from its columns.
//!
//! **Invariant**: a value is read exactly, or refused with the name of its column.

mod polls;

use polars::prelude::StaticArray as _;
use polars_arrow::array::{BooleanArray, PrimitiveArray, Utf8ViewArray};

pub(super) use self::polls::NamedPollSpan;
use super::error::CellProblem;
use super::frame::Frame;
use crate::domain::{
    Currency, Pair, PairError, PublishedValue, Rate, RateError, ReportedChange, Revision, Run, SeriesKey, Source,
    Timestamp, truncate_for_display,
};
use crate::export::schema::{
    CHANGE, CHANGE_NEGATIVE, CHANGE_PLACES, CHANGE_SCALE, COLLAPSE_WINDOW, Column, FIRST_OBSERVED, LAST_OBSERVED,
    OBSERVATIONS, OBSERVED, PAIR, PLACES, Part, RATE, RATE_SCALE, RECORDED, SEQUENCE, SOURCE, SUPERSEDED,
};

/// A row of a Parquet file.
pub(super) trait Row: Sized {
    /// The content of the file, for error messages.
    const WHAT: &'static str;
    /// The table that the row belongs to.
    const PART: Part;
    /// The typed columns of a row group.
    type Cells;

    /// Takes the columns out of a row group; `None` if a column has another type.
    fn cells(frame: &Frame<'_>) -> Option<Self::Cells>;
    /// The pair and source columns; `None` if the rows do not belong to series.
    fn series(cells: &Self::Cells) -> Option<(&Utf8ViewArray, &Utf8ViewArray)>;
    /// Reads the row at index `at`, which must be less than the number of rows.
    fn read(cells: &Self::Cells, at: usize) -> Result<Self, BadCell>;
}

/// The column of an invalid value, and what is wrong with the value.
pub(super) struct BadCell(pub(super) &'static str, pub(super) CellProblem);

impl BadCell {
    pub(super) fn new(column: Column, problem: impl Into<CellProblem>) -> Self {
        Self(column.name, problem.into())
    }
}

/// The number in a row, which must not be null.
pub(super) fn number<T: polars_arrow::types::NativeType>(
    array: &PrimitiveArray<T>,
    at: usize,
    column: Column,
) -> Result<T, BadCell> {
    array.get(at).ok_or_else(|| BadCell::new(column, CellProblem::Null))
}

pub(super) fn timestamp(array: &PrimitiveArray<i64>, at: usize, column: Column) -> Result<Timestamp, BadCell> {
    Ok(Timestamp::from_micros(number(array, at, column)?))
}

pub(super) fn text(array: &Utf8ViewArray, at: usize, column: Column) -> Result<&str, BadCell> {
    array.get(at).ok_or_else(|| BadCell::new(column, CellProblem::Null))
}

pub(super) fn flag(array: &BooleanArray, at: usize, column: Column) -> Result<bool, BadCell> {
    array.get(at).ok_or_else(|| BadCell::new(column, CellProblem::Null))
}

/// Converts a mantissa with `scale` places to a mantissa with `places` places; `None` if the conversion is not exact.
fn rescale(magnitude: u128, scale: u8, places: u8) -> Option<u128> {
    let divisor = 10_u128.pow(u32::from(scale.checked_sub(places)?));
    magnitude.is_multiple_of(divisor).then(|| magnitude / divisor)
}

/// The columns of a published value.
pub(super) struct ValueCells {
    rate: PrimitiveArray<i128>,
    places: PrimitiveArray<u8>,
    change: PrimitiveArray<i128>,
    change_places: PrimitiveArray<u8>,
    change_negative: BooleanArray,
}

impl ValueCells {
    pub(super) fn new(frame: &Frame<'_>) -> Option<Self> {
        Some(Self {
            rate: frame.numbers(RATE)?,
            places: frame.numbers(PLACES)?,
            change: frame.numbers(CHANGE)?,
            change_places: frame.numbers(CHANGE_PLACES)?,
            change_negative: frame.flags(CHANGE_NEGATIVE)?,
        })
    }

    pub(super) fn value(&self, at: usize) -> Result<PublishedValue, BadCell> {
        number(&self.rate, at, RATE)?;
        let rate = exact_rate(&self.rate, at, number(&self.places, at, PLACES)?, RATE)?;
        Ok(PublishedValue { rate, reported_change: self.change(at)? })
    }

    fn change(&self, at: usize) -> Result<Option<ReportedChange>, BadCell> {
        let bad = |problem: CellProblem| BadCell::new(CHANGE, problem);
        let (value, places, negative) =
            match (self.change.get(at), self.change_places.get(at), self.change_negative.get(at)) {
                (None, None, None) => return Ok(None),
                (Some(value), Some(places), Some(negative)) => (value, places, negative),
                _ => return Err(bad(CellProblem::PartialChange)),
            };
        if value != 0 && (value < 0) != negative {
            return Err(bad(CellProblem::PartialChange));
        }
        let mantissa = rescale(value.unsigned_abs(), CHANGE_SCALE, places);
        let mantissa = mantissa.ok_or_else(|| bad(CellProblem::Inexact(places)))?;
        // A mantissa above `u64::MAX` has too many digits. `u64::MAX` replaces it, because `from_parts` refuses
        // `u64::MAX` for the same reason.
        let mantissa = u64::try_from(mantissa).unwrap_or(u64::MAX);
        ReportedChange::from_parts(negative, mantissa, u32::from(places))
            .map(Some)
            .map_err(|problem| bad(problem.into()))
    }
}

/// Reads a rate with its published places from a decimal column.
pub(super) fn exact_rate(rates: &PrimitiveArray<i128>, at: usize, places: u8, column: Column) -> Result<Rate, BadCell> {
    let value = number(rates, at, column)?;
    let bad = |problem: CellProblem| BadCell::new(column, problem);
    if value < 0 {
        let (unit, value) = (10_u128.pow(u32::from(RATE_SCALE)), value.unsigned_abs());
        let text = format!("-{}.{:018}", value / unit, value % unit);
        return Err(bad(RateError::Negative(text).into()));
    }
    let mantissa = rescale(value.unsigned_abs(), RATE_SCALE, places);
    let mantissa = mantissa.ok_or_else(|| bad(CellProblem::Inexact(places)))?;
    Rate::from_parts(mantissa, u32::from(places)).map_err(|problem| bad(problem.into()))
}

/// The columns of a run.
pub(super) struct RunCells {
    pair: Utf8ViewArray,
    source: Utf8ViewArray,
    first: PrimitiveArray<i64>,
    last: PrimitiveArray<i64>,
    recorded: PrimitiveArray<i64>,
    value: ValueCells,
    observations: PrimitiveArray<u64>,
}

impl RunCells {
    fn new(frame: &Frame<'_>) -> Option<Self> {
        Some(Self {
            pair: frame.texts(PAIR)?,
            source: frame.texts(SOURCE)?,
            first: frame.numbers(FIRST_OBSERVED)?,
            last: frame.numbers(LAST_OBSERVED)?,
            recorded: frame.numbers(RECORDED)?,
            value: ValueCells::new(frame)?,
            observations: frame.numbers(OBSERVATIONS)?,
        })
    }

    fn run(&self, at: usize) -> Result<Run, BadCell> {
        Ok(Run {
            first_observed_time: timestamp(&self.first, at, FIRST_OBSERVED)?,
            last_observed_time: timestamp(&self.last, at, LAST_OBSERVED)?,
            observation_count: number(&self.observations, at, OBSERVATIONS)?,
            value: self.value.value(at)?,
            recorded_time: timestamp(&self.recorded, at, RECORDED)?,
        })
    }
}

impl Row for Run {
    const WHAT: &'static str = "runs";
    const PART: Part = Part::Runs;
    type Cells = RunCells;

    fn cells(frame: &Frame<'_>) -> Option<RunCells> {
        RunCells::new(frame)
    }

    fn series(cells: &RunCells) -> Option<(&Utf8ViewArray, &Utf8ViewArray)> {
        Some((&cells.pair, &cells.source))
    }

    fn read(cells: &RunCells, at: usize) -> Result<Self, BadCell> {
        cells.run(at)
    }
}

/// A run with the unparsed names of its series.
pub(super) struct NamedRun {
    pub(super) pair: String,
    pub(super) source: String,
    pub(super) run: Run,
}

impl Row for NamedRun {
    const WHAT: &'static str = "runs";
    const PART: Part = Part::Runs;
    type Cells = RunCells;

    fn cells(frame: &Frame<'_>) -> Option<RunCells> {
        RunCells::new(frame)
    }

    fn series(cells: &RunCells) -> Option<(&Utf8ViewArray, &Utf8ViewArray)> {
        Some((&cells.pair, &cells.source))
    }

    fn read(cells: &RunCells, at: usize) -> Result<Self, BadCell> {
        let run = cells.run(at)?;
        let (first, last) = (run.first_observed_time, run.last_observed_time);
        if last < first {
            return Err(BadCell::new(LAST_OBSERVED, CellProblem::Reversed { first, last }));
        }
        if run.observation_count == 0 {
            return Err(BadCell::new(OBSERVATIONS, CellProblem::NoObservation));
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
    const PART: Part = Part::Revisions;
    type Cells = (RunCells, PrimitiveArray<i64>);

    fn cells(frame: &Frame<'_>) -> Option<Self::Cells> {
        Some((RunCells::new(frame)?, frame.numbers(SUPERSEDED)?))
    }

    fn series((runs, _): &Self::Cells) -> Option<(&Utf8ViewArray, &Utf8ViewArray)> {
        Some((&runs.pair, &runs.source))
    }

    fn read((runs, superseded): &Self::Cells, at: usize) -> Result<Self, BadCell> {
        Ok(Self { run: runs.run(at)?, superseded_time: timestamp(superseded, at, SUPERSEDED)? })
    }
}

/// A row of the timeline: an observed instant.
pub(super) struct Instant(pub(super) Timestamp);

impl Row for Instant {
    const WHAT: &'static str = "the timeline";
    const PART: Part = Part::Timeline;
    type Cells = (Utf8ViewArray, Utf8ViewArray, PrimitiveArray<i64>);

    fn cells(frame: &Frame<'_>) -> Option<Self::Cells> {
        let observed = frame.numbers(OBSERVED)?;
        Some((frame.texts(PAIR)?, frame.texts(SOURCE)?, observed))
    }

    fn series((pair, source, _): &Self::Cells) -> Option<(&Utf8ViewArray, &Utf8ViewArray)> {
        Some((pair, source))
    }

    fn read((_, _, observed): &Self::Cells, at: usize) -> Result<Self, BadCell> {
        timestamp(observed, at, OBSERVED).map(Self)
    }
}

/// A series, with its names both as written in the file and parsed.
pub(super) struct NamedSeries {
    pub(super) pair: String,
    pub(super) source: String,
    pub(super) key: SeriesKey,
    pub(super) collapse_window_us: i64,
}

impl Row for NamedSeries {
    const WHAT: &'static str = "series";
    const PART: Part = Part::Series;
    type Cells = (Utf8ViewArray, Utf8ViewArray, PrimitiveArray<i64>);

    fn cells(frame: &Frame<'_>) -> Option<Self::Cells> {
        let windows = frame.numbers(COLLAPSE_WINDOW)?;
        Some((frame.texts(PAIR)?, frame.texts(SOURCE)?, windows))
    }

    fn series(_: &Self::Cells) -> Option<(&Utf8ViewArray, &Utf8ViewArray)> {
        None
    }

    fn read((pairs, sources, windows): &Self::Cells, at: usize) -> Result<Self, BadCell> {
        let (pair, source) = (text(pairs, at, PAIR)?, text(sources, at, SOURCE)?);
        let collapse_window_us = number(windows, at, COLLAPSE_WINDOW)?;
        let key = series_key(pair, source)?;
        Ok(Self { pair: pair.to_owned(), source: source.to_owned(), key, collapse_window_us })
    }
}

/// Parses the pair and source of a row.
pub(super) fn series_key(pair: &str, source: &str) -> Result<SeriesKey, BadCell> {
    Ok(SeriesKey {
        pair: parse_pair(pair).map_err(|problem| BadCell::new(PAIR, problem))?,
        source: Source::parse(source).map_err(|problem| BadCell::new(SOURCE, problem))?,
    })
}

/// Parses a pair of any two ISO currencies, because the served currencies are a setting of the server.
fn parse_pair(text: &str) -> Result<Pair, PairError> {
    let (base, quote) = text.split_once('/').ok_or_else(|| PairError::Malformed(truncate_for_display(text)))?;
    let currency = |code| {
        Currency::parse(code).map_err(|problem| PairError::Currency { text: truncate_for_display(text), problem })
    };
    Pair::new(currency(base)?, currency(quote)?)
}

/// A commit: its sequence and its recorded time.
pub(super) struct CommitRow(pub(super) u64, pub(super) Timestamp);

impl Row for CommitRow {
    const WHAT: &'static str = "commits";
    const PART: Part = Part::Commits;
    type Cells = (PrimitiveArray<u64>, PrimitiveArray<i64>);

    fn cells(frame: &Frame<'_>) -> Option<Self::Cells> {
        Some((frame.numbers(SEQUENCE)?, frame.numbers(RECORDED)?))
    }

    fn series(_: &Self::Cells) -> Option<(&Utf8ViewArray, &Utf8ViewArray)> {
        None
    }

    fn read((sequences, recorded): &Self::Cells, at: usize) -> Result<Self, BadCell> {
        Ok(Self(number(sequences, at, SEQUENCE)?, timestamp(recorded, at, RECORDED)?))
    }
}
