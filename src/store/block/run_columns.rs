//! The columns of runs and of revisions: all of them, or those that a read needs.
//!
//! **Invariant**: a part that is decoded says what the whole block says.

use pco::{DeltaSpec, ModeSpec};

use super::{Columns, compress, compress_following, compress_plain, decompress, pack_change, unpack_change};
use crate::domain::{PublishedValue, Rate, RateSpan, Run, Timestamp};

pub(super) fn encode_runs<'a>(runs: &(impl ExactSizeIterator<Item = &'a Run> + Clone)) -> Result<Vec<Vec<u8>>, String> {
    let column = |number: fn(&Run) -> i64| runs.clone().map(number).collect::<Vec<i64>>();
    let unsigned = |number: fn(&Run) -> u64| runs.clone().map(number).collect::<Vec<u64>>();
    let high: Vec<u32> =
        runs.clone().map(|run| u32::try_from(run.value.rate.mantissa() >> 64).unwrap_or(u32::MAX)).collect();
    let places: Vec<u16> = runs.clone().map(|run| u16::from(run.value.rate.places())).collect();
    let first = column(|run| run.first_observed_time.micros());
    let span = unsigned(|run| run.last_observed_time.micros_since(run.first_observed_time).cast_unsigned());
    let count = unsigned(|run| run.observation_count);
    #[allow(clippy::cast_possible_truncation, reason = "the bits above have a column of their own")]
    let low = unsigned(|run| run.value.rate.mantissa() as u64);
    let change = unsigned(|run| pack_change(run.value.reported_change));
    let recorded = column(|run| run.recorded_time.micros());
    Ok(vec![
        compress_following(&first)?,
        compress_plain(&span)?,
        compress_plain(&count)?,
        compress(&low, DeltaSpec::Auto, ModeSpec::Classic)?,
        if high.iter().all(|bits| *bits == 0) { Vec::new() } else { compress_plain(&high)? },
        compress_plain(&places)?,
        compress_plain(&change)?,
        compress_following(&recorded)?,
    ])
}

/// Number of the column of first observed times.
const FIRST_COLUMN: usize = 0;
/// Number of the column of recorded times.
const RECORDED_COLUMN: usize = 7;
/// Number of the column that only revisions have.
pub(super) const SUPERSEDED_COLUMN: usize = 8;

/// The columns that say what a run says of the rate.
struct RateColumns {
    first: Vec<i64>,
    span: Vec<u64>,
    low: Vec<u64>,
    /// Empty where all are zero.
    high: Vec<u32>,
    places: Vec<u16>,
}

impl RateColumns {
    fn decode(columns: &Columns<'_>, count: usize) -> Result<Self, String> {
        Ok(Self {
            first: columns.numbers(FIRST_COLUMN, count)?,
            span: columns.numbers(1, count)?,
            low: columns.numbers(3, count)?,
            high: match columns.get(4)? {
                [] => Vec::new(),
                column => decompress(column, count)?,
            },
            places: columns.numbers(5, count)?,
        })
    }

    #[inline]
    fn get(&self, at: usize) -> Result<RateSpan, String> {
        let mantissa = u128::from(self.low[at]) | self.high.get(at).map_or(0, |bits| u128::from(*bits) << 64);
        let last = self.first[at].checked_add_unsigned(self.span[at]).ok_or(ENDS_AFTER_ALL_TIME)?;
        Ok(RateSpan {
            first_observed_time: Timestamp::from_micros(self.first[at]),
            last_observed_time: Timestamp::from_micros(last),
            rate: Rate::from_parts(mantissa, u32::from(self.places[at])).map_err(|error| error.to_string())?,
        })
    }
}

/// What the runs of a block say of the rate.
pub(crate) fn decode_rates(columns: &[&[u8]], count: usize) -> Result<Vec<RateSpan>, String> {
    let columns = RateColumns::decode(&Columns(columns), count)?;
    let mut spans = Vec::with_capacity(count);
    for at in 0..count {
        spans.push(columns.get(at)?);
    }
    if !spans.is_sorted_by(|a, b| a.last_observed_time < b.first_observed_time) {
        return Err(RUNS_OUT_OF_ORDER.to_owned());
    }
    Ok(spans)
}

pub(super) fn decode_runs(columns: &[&[u8]], count: usize) -> Result<Vec<Run>, String> {
    let columns = Columns(columns);
    let rates = RateColumns::decode(&columns, count)?;
    let observations = columns.numbers::<u64>(2, count)?;
    let change = columns.numbers::<u64>(6, count)?;
    let recorded = columns.numbers::<i64>(RECORDED_COLUMN, count)?;
    let mut runs = Vec::with_capacity(count);
    for at in 0..count {
        let RateSpan { first_observed_time, last_observed_time, rate } = rates.get(at)?;
        runs.push(Run {
            first_observed_time,
            last_observed_time,
            observation_count: observations[at],
            value: PublishedValue { rate, reported_change: unpack_change(change[at])? },
            recorded_time: Timestamp::from_micros(recorded[at]),
        });
    }
    Ok(runs)
}

/// When the runs of a block begin and were recorded, in their order, in microseconds since 1970.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct RunTimes {
    /// First observed times.
    pub(crate) first_us: Vec<i64>,
    /// Recorded times.
    pub(crate) recorded_us: Vec<i64>,
}

impl RunTimes {
    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.first_us.as_slice()) + size_of_val(self.recorded_us.as_slice())
    }
}

/// The times of all runs of a block of runs.
pub(crate) fn decode_run_times(columns: &[&[u8]], count: usize) -> Result<RunTimes, String> {
    let columns = Columns(columns);
    let first_us = columns.numbers::<i64>(FIRST_COLUMN, count)?;
    if !first_us.is_sorted_by(|a, b| a < b) {
        return Err(RUNS_OUT_OF_ORDER.to_owned());
    }
    Ok(RunTimes { first_us, recorded_us: columns.numbers(RECORDED_COLUMN, count)? })
}

/// One run of a block of runs or revisions, whose first observed and recorded times are decoded already.
pub(crate) fn decode_run(
    columns: &[&[u8]],
    count: usize,
    at: usize,
    [first_us, recorded_us]: [i64; 2],
) -> Result<Run, String> {
    let columns = Columns(columns);
    let unsigned = |number: usize| -> Result<u64, String> {
        let numbers = columns.numbers::<u64>(number, count)?;
        numbers.get(at).copied().ok_or_else(|| format!("it has {count} runs, and that at {at} is asked for"))
    };
    let span = unsigned(1)?;
    let high = match columns.get(4)? {
        [] => 0,
        column => decompress::<u32>(column, count)?.get(at).copied().unwrap_or_default(),
    };
    let mantissa = u128::from(unsigned(3)?) | u128::from(high) << 64;
    let places = columns.numbers::<u16>(5, count)?.get(at).copied().unwrap_or_default();
    let last_us = first_us.checked_add_unsigned(span).ok_or(ENDS_AFTER_ALL_TIME)?;
    Ok(Run {
        first_observed_time: Timestamp::from_micros(first_us),
        last_observed_time: Timestamp::from_micros(last_us),
        observation_count: unsigned(2)?,
        value: PublishedValue {
            rate: Rate::from_parts(mantissa, u32::from(places)).map_err(|error| error.to_string())?,
            reported_change: unpack_change(unsigned(6)?)?,
        },
        recorded_time: Timestamp::from_micros(recorded_us),
    })
}

/// The times of a revision that say when it was believed, in microseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::struct_field_names, reason = "a name of a number ends with its unit")]
pub(crate) struct RevisionTimes {
    /// First observed time of its run.
    pub(crate) observed_us: i64,
    /// Recorded time of its run.
    pub(crate) recorded_us: i64,
    /// Recorded time of the commit that replaced it.
    pub(crate) superseded_us: i64,
}

/// The times of all revisions of a block.
pub(crate) fn decode_revision_times(columns: &[&[u8]], count: usize) -> Result<Vec<RevisionTimes>, String> {
    let columns = Columns(columns);
    let observed = columns.numbers::<i64>(FIRST_COLUMN, count)?;
    let recorded = columns.numbers::<i64>(RECORDED_COLUMN, count)?;
    let superseded = columns.numbers::<i64>(SUPERSEDED_COLUMN, count)?;
    if !superseded.is_sorted() {
        return Err(REVISIONS_OUT_OF_ORDER.to_owned());
    }
    let times = observed.into_iter().zip(recorded).zip(superseded);
    Ok(times
        .map(|((observed_us, recorded_us), superseded_us)| RevisionTimes { observed_us, recorded_us, superseded_us })
        .collect())
}

pub(super) const RUNS_OUT_OF_ORDER: &str = "its runs are out of order";
pub(super) const REVISIONS_OUT_OF_ORDER: &str = "its revisions are out of order";
const ENDS_AFTER_ALL_TIME: &str = "a run ends after all time";
