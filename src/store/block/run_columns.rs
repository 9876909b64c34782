//! Encoding and decoding of the columns of runs and revisions. A read decodes all columns, or only those it needs. A
//! column that is not decoded is neither read nor checked.
//!
//! **Invariant**: decoding a subset of the columns gives the same values as decoding the whole block.

use pco::{DeltaSpec, ModeSpec};

use super::{Columns, DecodeError, compress, compress_independent, compress_times, pack_change, unpack_change};
use crate::domain::{PublishedValue, Rate, RateSpan, Run, Timestamp};

/// How the column of ends gives the last observed time of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ends {
    /// Each number is the time to the first observed time of the next run, in microseconds. That of the last run is the
    /// time from its first to its last observed time. For runs in order: between two observations lies about the same
    /// time, while runs are long or short.
    Gaps,
    /// Each number is the time from the first to the last observed time, in microseconds. For runs in any order.
    Spans,
}

impl Ends {
    /// Converts the microseconds from the first to the last observed time of each run to numbers of the column, and back.
    fn convert(self, first: &[i64], mut spans: Vec<u64>) -> Vec<u64> {
        if self == Self::Gaps {
            for (span, (first, next)) in spans.iter_mut().zip(first.iter().zip(first.iter().skip(1))) {
                // A wrong result, from damaged times, is a run that overlaps the next one.
                *span = next.wrapping_sub(*first).cast_unsigned().wrapping_sub(*span);
            }
        }
        spans
    }
}

pub(super) fn encode_runs<'a>(
    runs: &(impl ExactSizeIterator<Item = &'a Run> + Clone),
    ends: Ends,
) -> Result<Vec<Vec<u8>>, String> {
    let column = |number: fn(&Run) -> i64| runs.clone().map(number).collect::<Vec<i64>>();
    let unsigned = |number: fn(&Run) -> u64| runs.clone().map(number).collect::<Vec<u64>>();
    let high: Vec<u32> =
        runs.clone().map(|run| u32::try_from(run.value.rate.mantissa() >> 64).unwrap_or(u32::MAX)).collect();
    let places: Vec<u16> = runs.clone().map(|run| u16::from(run.value.rate.places())).collect();
    let first = column(|run| run.first_observed_time.micros());
    let span = unsigned(|run| run.last_observed_time.micros_since(run.first_observed_time).cast_unsigned());
    let count = unsigned(|run| run.observation_count);
    #[allow(clippy::cast_possible_truncation, reason = "the upper bits have their own column")]
    let low = unsigned(|run| run.value.rate.mantissa() as u64);
    let change = unsigned(|run| pack_change(run.value.reported_change));
    let recorded = column(|run| run.recorded_time.micros());
    Ok(vec![
        compress_times(&first)?,
        compress_independent(&ends.convert(&first, span))?,
        compress_independent(&count)?,
        compress(&low, DeltaSpec::Auto, ModeSpec::Classic)?,
        if high.iter().all(|bits| *bits == 0) { Vec::new() } else { compress_independent(&high)? },
        compress_independent(&places)?,
        compress_independent(&change)?,
        compress_times(&recorded)?,
    ])
}

/// Number of the column of first observed times.
const FIRST_COLUMN: usize = 0;
/// Number of the column of recorded times.
const RECORDED_COLUMN: usize = 7;
/// Number of the column of superseded times, which only revisions have.
pub(super) const SUPERSEDED_COLUMN: usize = 8;

/// The columns that hold the rate, the first observed time and the last observed time of each run.
pub(crate) struct RateColumns {
    pub(crate) first: Vec<i64>,
    pub(crate) span: Vec<u64>,
    pub(crate) low: Vec<u64>,
    /// Upper bits of the mantissas; empty if all are zero.
    pub(crate) high: Vec<u32>,
    pub(crate) places: Vec<u16>,
}

impl RateColumns {
    fn decode(columns: &Columns<'_>, ends: Ends) -> Result<Self, DecodeError> {
        let first = columns.numbers(FIRST_COLUMN)?;
        let span = ends.convert(&first, columns.numbers(1)?);
        Ok(Self {
            first,
            span,
            low: columns.numbers(3)?,
            high: columns.optional_numbers(4)?,
            places: columns.numbers(5)?,
        })
    }

    #[inline]
    fn get(&self, at: usize) -> Result<RateSpan, String> {
        let mantissa = u128::from(self.low[at]) | self.high.get(at).map_or(0, |bits| u128::from(*bits) << 64);
        let last = self.first[at].checked_add_unsigned(self.span[at]).ok_or(END_OUT_OF_RANGE)?;
        Ok(RateSpan {
            first_observed_time: Timestamp::from_micros(self.first[at]),
            last_observed_time: Timestamp::from_micros(last),
            rate: Rate::from_parts(mantissa, u32::from(self.places[at])).map_err(|error| error.to_string())?,
        })
    }
}

/// Decodes the rate, the first observed time and the last observed time of each run of a block.
pub(crate) fn decode_rates(columns: &Columns<'_>) -> Result<Vec<RateSpan>, DecodeError> {
    let count = columns.count();
    let columns = RateColumns::decode(columns, Ends::Gaps)?;
    let mut spans = Vec::with_capacity(count);
    for at in 0..count {
        spans.push(columns.get(at)?);
    }
    if !spans.is_sorted_by(|a, b| a.last_observed_time < b.first_observed_time) {
        return Err(RUNS_OUT_OF_ORDER.into());
    }
    Ok(spans)
}

/// All columns of runs.
pub(crate) struct RunColumns {
    pub(crate) rates: RateColumns,
    pub(crate) observations: Vec<u64>,
    pub(crate) change: Vec<u64>,
    pub(crate) recorded: Vec<i64>,
}

impl RunColumns {
    /// Decodes the columns of a block of runs.
    pub(crate) fn of_runs(columns: &Columns<'_>) -> Result<Self, DecodeError> {
        Self::decode(columns, Ends::Gaps)
    }

    fn decode(columns: &Columns<'_>, ends: Ends) -> Result<Self, DecodeError> {
        Ok(Self {
            rates: RateColumns::decode(columns, ends)?,
            observations: columns.numbers(2)?,
            change: columns.numbers(6)?,
            recorded: columns.numbers(RECORDED_COLUMN)?,
        })
    }
}

pub(super) fn decode_runs(columns: &Columns<'_>, ends: Ends) -> Result<Vec<Run>, DecodeError> {
    let count = columns.count();
    let RunColumns { rates, observations, change, recorded } = RunColumns::decode(columns, ends)?;
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

/// The numbers of one run, as they are stored.
pub(crate) struct RunNumbers {
    pub(crate) first_us: i64,
    pub(crate) span: u64,
    pub(crate) observations: u64,
    pub(crate) mantissa: u128,
    pub(crate) places: u32,
    pub(crate) change: u64,
    pub(crate) recorded_us: i64,
}

impl RunNumbers {
    pub(crate) fn to_run(&self) -> Result<Run, String> {
        let last_us = self.first_us.checked_add_unsigned(self.span).ok_or(END_OUT_OF_RANGE)?;
        Ok(Run {
            first_observed_time: Timestamp::from_micros(self.first_us),
            last_observed_time: Timestamp::from_micros(last_us),
            observation_count: self.observations,
            value: PublishedValue {
                rate: Rate::from_parts(self.mantissa, self.places).map_err(|error| error.to_string())?,
                reported_change: unpack_change(self.change)?,
            },
            recorded_time: Timestamp::from_micros(self.recorded_us),
        })
    }
}

/// Decodes the run with index `at` in a block of revisions. The caller passes the run's first observed
/// time and recorded time, which are already decoded.
pub(crate) fn decode_run(
    columns: &Columns<'_>,
    at: usize,
    [first_us, recorded_us]: [i64; 2],
) -> Result<Run, DecodeError> {
    let unsigned = |number: usize| -> Result<u64, DecodeError> {
        let numbers = columns.numbers::<u64>(number)?;
        let missing = || format!("the block has {} runs, so there is no run {at}", columns.count());
        Ok(numbers.get(at).copied().ok_or_else(missing)?)
    };
    let span = unsigned(1)?;
    let high = columns.optional_numbers::<u32>(4)?.get(at).copied().unwrap_or_default();
    let numbers = RunNumbers {
        first_us,
        span,
        observations: unsigned(2)?,
        mantissa: u128::from(unsigned(3)?) | u128::from(high) << 64,
        places: columns.numbers::<u16>(5)?.get(at).copied().unwrap_or_default().into(),
        change: unsigned(6)?,
        recorded_us,
    };
    Ok(numbers.to_run()?)
}

/// The times of a revision, in microseconds since 1970, UTC. The revision was current from its recorded time until its
/// superseded time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::struct_field_names, reason = "each name ends with its unit")]
pub(crate) struct RevisionTimes {
    /// First observed time of the revision's run.
    pub(crate) observed_us: i64,
    /// Recorded time of the revision's run.
    pub(crate) recorded_us: i64,
    /// Recorded time of the commit that replaced the run.
    pub(crate) superseded_us: i64,
}

/// Decodes the times of all revisions of a block.
pub(crate) fn decode_revision_times(columns: &Columns<'_>) -> Result<Vec<RevisionTimes>, DecodeError> {
    let observed = columns.numbers::<i64>(FIRST_COLUMN)?;
    let recorded = columns.numbers::<i64>(RECORDED_COLUMN)?;
    let superseded = columns.numbers::<i64>(SUPERSEDED_COLUMN)?;
    if !superseded.is_sorted() {
        return Err(REVISIONS_OUT_OF_ORDER.into());
    }
    let times = observed.into_iter().zip(recorded).zip(superseded);
    Ok(times
        .map(|((observed_us, recorded_us), superseded_us)| RevisionTimes { observed_us, recorded_us, superseded_us })
        .collect())
}

pub(super) const RUNS_OUT_OF_ORDER: &str = "the runs are out of order";
pub(super) const REVISIONS_OUT_OF_ORDER: &str = "the revisions are out of order";
const END_OUT_OF_RANGE: &str = "the end of a run is out of range";
