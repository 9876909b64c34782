//! Some rows of a part by column, on their way into Arrow or CSV.
//!
//! **Invariant**: decimals go through integers and text only. The one float is `rate_double`, the double nearest to
//! the published rate.

use std::io;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray, UInt8Array, UInt64Array,
};
use arrow_schema::{ArrowError, SchemaRef};
use chrono::{Datelike as _, NaiveDate};

use super::candle_rows::CandleRows;
use super::held_rows::HeldRows;
use super::layout::{CHANGE_PRECISION, CHANGE_SCALE, Column, RATE_PRECISION, RATE_SCALE};
use super::poll_rows::PollRows;
use crate::domain::{
    HeldTick, PollSpan, PublishedValue, Rate, ReportedChange, Revision, Run, SeriesKey, Source, Timestamp,
};
use crate::query::CandleRow;
use crate::store::Commit;

/// The names of an export's series, each once, so that rows carry small numbers.
pub(super) struct Names {
    pairs: Vec<String>,
    sources: Vec<String>,
    of_series: Vec<(i32, i32)>,
    pair_dictionary: ArrayRef,
    source_dictionary: ArrayRef,
}

impl Names {
    pub(super) fn new<'a>(series: impl Iterator<Item = &'a SeriesKey>) -> Self {
        let (mut pairs, mut sources) = (Vec::new(), Vec::new());
        let of_series =
            series.map(|key| (number_of(&mut pairs, &key.pair), number_of(&mut sources, &key.source))).collect();
        let pair_dictionary: ArrayRef = Arc::new(StringArray::from(pairs.clone()));
        let source_dictionary: ArrayRef = Arc::new(StringArray::from(sources.clone()));
        Self { pairs, sources, of_series, pair_dictionary, source_dictionary }
    }

    fn pair(&self, series: usize) -> &str {
        &self.pairs[usize::try_from(self.of_series[series].0).unwrap_or_default()]
    }

    fn source(&self, series: usize) -> &str {
        &self.sources[usize::try_from(self.of_series[series].1).unwrap_or_default()]
    }
}

/// Where `name` stands in the list, at its end if it is new.
fn number_of(names: &mut Vec<String>, name: &impl ToString) -> i32 {
    let name = name.to_string();
    // Series come in order, so that a name is nearly always among the last ones.
    let at = names.iter().rposition(|other| *other == name).unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    });
    // A store has at most 100,000 series.
    i32::try_from(at).unwrap_or(i32::MAX)
}

/// Rows of one part; only the columns that the part has are filled.
#[derive(Default)]
pub(super) struct Rows {
    len: usize,
    series: Vec<usize>,
    first_observed: Vec<i64>,
    last_observed: Vec<i64>,
    recorded: Vec<i64>,
    superseded: Vec<i64>,
    observed: Vec<i64>,
    dates: Vec<i32>,
    values: Vec<PublishedValue>,
    observation_counts: Vec<u64>,
    collapse_windows: Vec<i64>,
    sequences: Vec<u64>,
    completes: Vec<bool>,
    candles: CandleRows,
    polls: PollRows,
    held: HeldRows,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// `series` is the number of the row's series among those of [`Names`], here and below.
    pub(super) fn push_run(&mut self, series: usize, run: &Run) {
        self.push_value(series, run);
        self.recorded.push(run.recorded_time.micros());
        self.observation_counts.push(run.observation_count);
    }

    pub(super) fn push_revision(&mut self, series: usize, revision: &Revision) {
        self.push_run(series, &revision.run);
        self.superseded.push(revision.superseded_time.micros());
    }

    /// `day` counts from 1970-01-01.
    pub(super) fn push_day(&mut self, series: usize, day: i32, in_force: &Run, complete: bool) {
        self.push_run(series, in_force);
        self.dates.push(day);
        self.completes.push(complete);
    }

    pub(super) fn push_candle(&mut self, series: usize, candle: CandleRow) {
        self.len += 1;
        self.series.push(series);
        self.candles.push(candle);
    }

    pub(super) fn push_poll_span(&mut self, source: &Source, span: PollSpan) {
        self.len += 1;
        self.polls.push(source, span);
    }

    fn push_value(&mut self, series: usize, run: &Run) {
        self.len += 1;
        self.series.push(series);
        self.first_observed.push(run.first_observed_time.micros());
        self.last_observed.push(run.last_observed_time.micros());
        self.values.push(run.value);
    }

    pub(super) fn push_instant(&mut self, series: usize, observed_time: Timestamp) {
        self.len += 1;
        self.series.push(series);
        self.observed.push(observed_time.micros());
    }

    pub(super) fn push_series(&mut self, series: usize, collapse_window_us: i64) {
        self.len += 1;
        self.series.push(series);
        self.collapse_windows.push(collapse_window_us);
    }

    pub(super) fn push_held(&mut self, series: usize, tick: HeldTick) {
        self.len += 1;
        self.series.push(series);
        self.observed.push(tick.observed_time.micros());
        self.values.push(tick.value);
        self.held.push(tick);
    }

    pub(super) fn push_commit(&mut self, commit: Commit) {
        self.len += 1;
        self.sequences.push(commit.sequence);
        self.recorded.push(commit.recorded_time.micros());
    }

    /// The rows in Arrow, which leaves none here.
    pub(super) fn take_batch(
        &mut self,
        columns: &[Column],
        schema: &SchemaRef,
        names: &Names,
    ) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(self);
        let arrays = columns.iter().map(|column| rows.array(*column, names)).collect::<Result<_, _>>()?;
        RecordBatch::try_new(Arc::clone(schema), arrays)
    }

    fn array(&self, column: Column, names: &Names) -> Result<ArrayRef, ArrowError> {
        let times = |times: &[i64]| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC"))
        };
        let changes = || self.values.iter().map(|value| value.reported_change);
        Ok(match column {
            Column::Pair => self.dictionary(&names.pair_dictionary, |series| names.of_series[series].0)?,
            Column::Source => self.dictionary(&names.source_dictionary, |series| names.of_series[series].1)?,
            Column::FirstObserved => times(&self.first_observed),
            Column::LastObserved => times(&self.last_observed),
            Column::Recorded => times(&self.recorded),
            Column::Superseded => times(&self.superseded),
            Column::Observed => times(&self.observed),
            Column::Date => Arc::new(Date32Array::from(self.dates.clone())),
            Column::Rate => {
                let rates: Vec<i128> = self.values.iter().map(|value| rate_units(value.rate)).collect();
                Arc::new(Decimal128Array::from(rates).with_precision_and_scale(RATE_PRECISION, RATE_SCALE)?)
            }
            Column::RateDouble => {
                let doubles: Vec<f64> = self.values.iter().map(|value| rate_double(value.rate)).collect();
                Arc::new(Float64Array::from(doubles))
            }
            Column::Places => {
                let places: Vec<u8> = self.values.iter().map(|value| value.rate.places()).collect();
                Arc::new(UInt8Array::from(places))
            }
            Column::Reported => {
                let units: Decimal128Array = changes().map(|change| change.map(change_units)).collect();
                Arc::new(units.with_precision_and_scale(CHANGE_PRECISION, CHANGE_SCALE)?)
            }
            Column::ReportedPlaces => {
                Arc::new(changes().map(|change| change.map(ReportedChange::places)).collect::<UInt8Array>())
            }
            Column::ReportedNegative => {
                Arc::new(changes().map(|change| change.map(ReportedChange::is_negative)).collect::<BooleanArray>())
            }
            Column::Observations => Arc::new(UInt64Array::from(self.observation_counts.clone())),
            Column::CollapseWindow => Arc::new(Int64Array::from(self.collapse_windows.clone())),
            Column::Sequence => Arc::new(UInt64Array::from(self.sequences.clone())),
            Column::Complete => Arc::new(BooleanArray::from(self.completes.clone())),
            Column::Candle(column) => self.candles.array(column)?,
            Column::Poll(column) => self.polls.array(column),
            Column::Held(column) => self.held.array(column)?,
        })
    }

    fn dictionary(&self, names: &ArrayRef, number: impl Fn(usize) -> i32) -> Result<ArrayRef, ArrowError> {
        let keys: Vec<i32> = self.series.iter().map(|series| number(*series)).collect();
        let array = DictionaryArray::<Int32Type>::try_new(Int32Array::from(keys), Arc::clone(names))?;
        debug_assert_eq!(array.keys().values().len(), self.len, "every row has its series");
        Ok(Arc::new(array))
    }

    /// The rows as lines of CSV, which leaves none here.
    pub(super) fn take_csv<W: io::Write>(
        &mut self,
        columns: &[Column],
        writer: &mut csv::Writer<W>,
        names: &Names,
    ) -> Result<(), csv::Error> {
        let rows = std::mem::take(self);
        for row in 0..rows.len {
            for column in columns {
                writer.write_field(rows.cell(*column, row, names))?;
            }
            writer.write_record(None::<&[u8]>)?;
        }
        Ok(())
    }

    fn cell(&self, column: Column, row: usize, names: &Names) -> String {
        let time = |micros: i64| Timestamp::from_micros(micros).to_string();
        let change = || self.values[row].reported_change;
        match column {
            Column::Pair => names.pair(self.series[row]).to_owned(),
            Column::Source => names.source(self.series[row]).to_owned(),
            Column::FirstObserved => time(self.first_observed[row]),
            Column::LastObserved => time(self.last_observed[row]),
            Column::Recorded => time(self.recorded[row]),
            Column::Superseded => time(self.superseded[row]),
            Column::Observed => time(self.observed[row]),
            Column::Date => date(self.dates[row]),
            Column::Rate => self.values[row].rate.to_string(),
            Column::RateDouble => rate_double(self.values[row].rate).to_string(),
            Column::Places => self.values[row].rate.places().to_string(),
            Column::Reported => change().map_or_else(String::new, |change| change.to_string()),
            Column::ReportedPlaces => change().map_or_else(String::new, |change| change.places().to_string()),
            Column::ReportedNegative => change().map_or_else(String::new, |change| change.is_negative().to_string()),
            Column::Observations => self.observation_counts[row].to_string(),
            Column::CollapseWindow => self.collapse_windows[row].to_string(),
            Column::Sequence => self.sequences[row].to_string(),
            Column::Complete => self.completes[row].to_string(),
            Column::Candle(column) => self.candles.cell(column, row),
            Column::Poll(column) => self.polls.cell(column, row),
            Column::Held(column) => self.held.cell(column, row),
        }
    }
}

/// Units of 10^-18. A rate has at most 20 digits before the point, so these are below 10^38.
pub(super) fn rate_units(rate: Rate) -> i128 {
    scaled(rate.mantissa(), RATE_SCALE.unsigned_abs(), rate.places())
}

/// Units of 10^-12; zero whether or not a minus sign stood before it, which is why that has a column of its own.
fn change_units(change: ReportedChange) -> i128 {
    let units = scaled(u128::from(change.mantissa()), CHANGE_SCALE.unsigned_abs(), change.places());
    if change.is_negative() { -units } else { units }
}

/// In units of `10^-scale`.
pub(super) fn scaled(mantissa: u128, scale: u8, places: u8) -> i128 {
    /// Of ten, for every scale there is.
    const POWERS: [u128; 19] = {
        let mut powers = [1; 19];
        let mut at = 1;
        while at < powers.len() {
            powers[at] = powers[at - 1] * 10;
            at += 1;
        }
        powers
    };
    let power = POWERS.get(usize::from(scale.saturating_sub(places))).copied().unwrap_or(1);
    // Below 10^38, as the types of rate and change see to.
    i128::try_from(mantissa * power).unwrap_or(i128::MAX)
}

fn rate_double(rate: Rate) -> f64 {
    nearest_double(rate.mantissa(), rate.places())
}

/// The double nearest to `mantissa / 10^places`.
pub(super) fn nearest_double(mantissa: u128, places: u8) -> f64 {
    /// Integers up to here are doubles.
    const EXACT_MAX: u64 = 1 << 53;
    /// And so are powers of ten up to that of [`Rate::PLACES_MAX`].
    const POWERS: [f64; 19] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];
    match (u64::try_from(mantissa), POWERS.get(usize::from(places))) {
        #[allow(clippy::cast_precision_loss, clippy::float_arithmetic, reason = "both are exact: it rounds once")]
        (Ok(mantissa @ 0..=EXACT_MAX), Some(power)) => mantissa as f64 / power,
        // Digits always parse.
        _ => format!("{mantissa}e-{places}").parse().unwrap_or(f64::NAN),
    }
}

fn date(day: i32) -> String {
    let days_of_common_era = day.saturating_add(NaiveDate::default().num_days_from_ce());
    NaiveDate::from_num_days_from_ce_opt(days_of_common_era).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_exact_at_the_ends_of_their_range() {
        let check = |text: &str, units: i128, double: f64| {
            let rate = Rate::parse(text).unwrap();
            assert_eq!(rate_units(rate), units, "{text}");
            assert_eq!(rate_double(rate).to_bits(), double.to_bits(), "{text}");
        };
        check("0.01144", 11_440_000_000_000_000, 0.01144);
        check("0.28490", 284_900_000_000_000_000, 0.2849);
        check("0.000000000000000001", 1, 1e-18);
        check(
            "12345678901234567890.12345678",
            12_345_678_901_234_567_890_123_456_780_000_000_000,
            1.234_567_890_123_456_8e19,
        );
        check("99999999999999999999.99999999", 99_999_999_999_999_999_999_999_999_990_000_000_000, 1e20);
        check("9007199254740993", 9_007_199_254_740_993_000_000_000_000_000_000, 9_007_199_254_740_992.0);
    }

    #[test]
    fn the_short_way_to_a_double_gives_what_parsing_gives() {
        for mantissa in [1, 3, 7, 8, 11_440, 999_999_999, 9_007_199_254_740_991, 9_007_199_254_740_992] {
            for places in 0..=18 {
                let rate = Rate::from_parts(mantissa, places).unwrap();
                let parsed: f64 = rate.to_string().parse().unwrap();
                assert_eq!(rate_double(rate).to_bits(), parsed.to_bits(), "{rate}");
            }
        }
    }

    #[test]
    fn a_fall_that_rounded_to_zero_keeps_its_sign_beside_its_number() {
        let check = |text: &str, units: i128, places: u8, negative: bool| {
            let change = ReportedChange::parse(text).unwrap();
            assert_eq!((change_units(change), change.places(), change.is_negative()), (units, places, negative));
        };
        check("-0", 0, 0, true);
        check("-0.00", 0, 2, true);
        check("0", 0, 0, false);
        check("-1.50", -1_500_000_000_000, 2, true);
        check("999999999999", 999_999_999_999_000_000_000_000, 0, false);
        check("0.000000000001", 1, 12, false);
    }

    #[test]
    fn days_before_1970_too() {
        let check = |day: i32, expect: &str| assert_eq!(date(day), expect);
        check(0, "1970-01-01");
        check(-1, "1969-12-31");
        check(20_430, "2025-12-08");
    }
}
