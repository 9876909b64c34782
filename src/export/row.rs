//! The rows of an export, written cell by cell in column order.
//!
//! Each row type is defined once for all formats: an implementation of [`Cells`] puts the cells into a data frame or a
//! line of CSV.
//!
//! **Invariant**: a row writes one cell for each column of its part. Decimals are written as integers and text. The
//! only floats are the columns named `*_double`; each holds the double nearest to the decimal before it.

use std::fmt;

use super::names::{Names, SeriesNames};
use super::schema::RATE_SCALE;
use crate::analysis::{Candle, CandlePoint};
use crate::domain::{
    ArchiveDecision, Decision, HeldTick, Note, PollSpan, PublishedValue, ReportedChange, Revision, Run, Timestamp,
    Verdict,
};
use crate::query::CandleRow;
use crate::store::Commit;

/// State of a held tick without a decision.
pub(super) const HELD: &str = "HELD";
/// State of a tick that was released into its series.
pub(super) const RELEASED: &str = "RELEASED";
/// State of a tick that was discarded.
pub(super) const DISCARDED: &str = "DISCARDED";

/// Receives the cells of a row in column order.
pub(super) trait Cells {
    /// A name, given by its index in the names of the column.
    fn name(&mut self, number: u32);
    fn text(&mut self, text: Option<&str>);
    fn time(&mut self, time: Option<Timestamp>);
    /// A date, in days since 1970-01-01.
    fn date(&mut self, day: i32);
    /// The decimal `mantissa / 10^places`, with at most as many places as the column. `text` is its published form.
    fn decimal(&mut self, mantissa: u128, places: u8, text: &impl fmt::Display);
    fn change(&mut self, change: Option<ReportedChange>);
    fn double(&mut self, double: f64);
    fn places(&mut self, places: Option<u8>);
    fn count(&mut self, count: u64);
    fn micros(&mut self, micros: i64);
    fn flag(&mut self, flag: Option<bool>);
}

/// A row of a part of an export.
pub(super) trait Row {
    fn write(&self, cells: &mut impl Cells);
}

/// A row of `runs`.
pub(super) struct RunRow<'a> {
    pub(super) series: SeriesNames,
    pub(super) run: &'a Run,
}

impl Row for RunRow<'_> {
    fn write(&self, cells: &mut impl Cells) {
        names(cells, self.series);
        run(cells, self.run);
    }
}

/// A row of `revisions`.
pub(super) struct RevisionRow<'a> {
    pub(super) series: SeriesNames,
    pub(super) revision: &'a Revision,
}

impl Row for RevisionRow<'_> {
    fn write(&self, cells: &mut impl Cells) {
        names(cells, self.series);
        run(cells, &self.revision.run);
        cells.time(Some(self.revision.superseded_time));
    }
}

/// A row of `daily`: a day and the run in force at its end.
pub(super) struct DayRow<'a> {
    pub(super) series: SeriesNames,
    /// The local date of the day, in days since 1970-01-01.
    pub(super) day: i32,
    pub(super) in_force: &'a Run,
    pub(super) complete: bool,
}

impl Row for DayRow<'_> {
    fn write(&self, cells: &mut impl Cells) {
        names(cells, self.series);
        cells.date(self.day);
        run(cells, self.in_force);
        cells.flag(Some(self.complete));
        cells.name(self.series.zone);
    }
}

/// A row of `candles`.
pub(super) struct CandleCells<'a> {
    pub(super) series: SeriesNames,
    pub(super) row: &'a CandleRow,
    /// The local date on which the bucket begins, in days since 1970-01-01.
    pub(super) day: i32,
}

impl Row for CandleCells<'_> {
    fn write(&self, cells: &mut impl Cells) {
        let CandleRow { candle, complete, .. } = self.row;
        let Candle { bucket, open, high, low, close, move_count, filled, .. } = candle;
        names(cells, self.series);
        cells.time(Some(bucket.start));
        cells.time(Some(bucket.end));
        for point in [open, high, low, close] {
            candle_point(cells, point);
        }
        // An average is at most the highest rate, which is below 10^38 units of 10^-18.
        let average = candle.average_units(RATE_SCALE).unwrap_or(u128::MAX);
        let unit = 10_u128.pow(u32::from(RATE_SCALE));
        cells.decimal(average, RATE_SCALE, &format_args!("{}.{:018}", average / unit, average % unit));
        cells.double(nearest_double(average, RATE_SCALE));
        cells.count(*move_count);
        cells.flag(Some(*complete));
        cells.flag(Some(*filled));
        cells.date(self.day);
        cells.name(self.series.zone);
    }
}

/// A row of `series`.
pub(super) struct SeriesRow {
    pub(super) series: SeriesNames,
    pub(super) collapse_window_us: i64,
}

impl Row for SeriesRow {
    fn write(&self, cells: &mut impl Cells) {
        names(cells, self.series);
        cells.micros(self.collapse_window_us);
    }
}

/// A row of `timeline`: one observed instant.
pub(super) struct InstantRow {
    pub(super) series: SeriesNames,
    pub(super) observed_time: Timestamp,
}

impl Row for InstantRow {
    fn write(&self, cells: &mut impl Cells) {
        names(cells, self.series);
        cells.time(Some(self.observed_time));
    }
}

impl Row for Commit {
    fn write(&self, cells: &mut impl Cells) {
        cells.count(self.sequence);
        cells.time(Some(self.recorded_time));
    }
}

/// A row of `polls`: a poll span of a source.
pub(super) struct PollRow<'a> {
    /// Index of the source among the names.
    pub(super) name: u32,
    pub(super) span: &'a PollSpan,
}

impl Row for PollRow<'_> {
    fn write(&self, cells: &mut impl Cells) {
        cells.name(self.name);
        cells.time(Some(self.span.first_poll_time));
        cells.time(Some(self.span.last_poll_time));
        cells.time(Some(self.span.covered_until));
        cells.count(self.span.poll_count);
        cells.name(Names::health(self.span.health));
    }
}

/// A row of `quarantine`: a held or decided tick.
pub(super) struct HeldRow<'a> {
    pub(super) series: SeriesNames,
    pub(super) tick: &'a HeldTick,
}

impl Row for HeldRow<'_> {
    fn write(&self, cells: &mut impl Cells) {
        let HeldTick { id, observed_time, rate_in_force, held_time, decision, .. } = self.tick;
        cells.count(*id);
        names(cells, self.series);
        cells.time(Some(*observed_time));
        value(cells, self.tick.value);
        cells.decimal(rate_in_force.mantissa(), rate_in_force.places(), rate_in_force);
        cells.places(Some(rate_in_force.places()));
        cells.time(Some(*held_time));
        cells.text(Some(match decision.as_ref().map(|decision| decision.verdict) {
            None => HELD,
            Some(Verdict::Released) => RELEASED,
            Some(Verdict::Discarded) => DISCARDED,
        }));
        cells.time(decision.as_ref().map(|decision| decision.decided_time));
        cells.text(decision.as_ref().and_then(|Decision { note, .. }| note.as_ref()).map(Note::as_str));
    }
}

/// A row of `archive`: a decision to archive or unarchive a source.
pub(super) struct ArchiveRow<'a> {
    /// Index of the source among the names.
    pub(super) name: u32,
    pub(super) decision: &'a ArchiveDecision,
}

impl Row for ArchiveRow<'_> {
    fn write(&self, cells: &mut impl Cells) {
        let ArchiveDecision { recorded_time, is_archived, note, .. } = self.decision;
        cells.name(self.name);
        cells.time(Some(*recorded_time));
        cells.flag(Some(*is_archived));
        cells.text(note.as_ref().map(Note::as_str));
    }
}

fn candle_point(cells: &mut impl Cells, point: &CandlePoint) {
    let rate = point.rate;
    // An exported candle belongs to one series, so its rates are published rates with 0 to 18 places.
    let places = u8::try_from(rate.places()).unwrap_or(0);
    cells.decimal(rate.mantissa(), places, &rate);
    cells.double(nearest_double(rate.mantissa(), places));
    cells.time(Some(point.time));
}

fn names(cells: &mut impl Cells, series: SeriesNames) {
    cells.name(series.pair);
    cells.name(series.source);
}

fn run(cells: &mut impl Cells, run: &Run) {
    cells.time(Some(run.first_observed_time));
    cells.time(Some(run.last_observed_time));
    cells.time(Some(run.recorded_time));
    value(cells, run.value);
    cells.count(run.observation_count);
}

fn value(cells: &mut impl Cells, PublishedValue { rate, reported_change }: PublishedValue) {
    cells.decimal(rate.mantissa(), rate.places(), &rate);
    cells.double(nearest_double(rate.mantissa(), rate.places()));
    cells.places(Some(rate.places()));
    cells.change(reported_change);
    cells.places(reported_change.map(ReportedChange::places));
    cells.flag(reported_change.map(ReportedChange::is_negative));
}

/// The double nearest to `mantissa / 10^places`.
fn nearest_double(mantissa: u128, places: u8) -> f64 {
    /// Every integer up to this one is exactly representable as a double.
    const EXACT_MAX: u64 = 1 << 53;
    /// Powers of ten up to the maximum places of a rate, all exactly representable as doubles.
    const POWERS: [f64; 19] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];
    match (u64::try_from(mantissa), POWERS.get(usize::from(places))) {
        #[allow(
            clippy::cast_precision_loss,
            clippy::float_arithmetic,
            reason = "both operands are exact, so only the division rounds"
        )]
        (Ok(mantissa @ 0..=EXACT_MAX), Some(power)) => mantissa as f64 / power,
        // Digits with an exponent always parse.
        _ => format!("{mantissa}e-{places}").parse().unwrap_or(f64::NAN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Rate;

    fn rate_double(rate: Rate) -> f64 {
        nearest_double(rate.mantissa(), rate.places())
    }

    #[test]
    fn doubles_are_nearest_at_both_ends_of_the_range() {
        let check = |text: &str, double: f64| {
            assert_eq!(rate_double(Rate::parse(text).unwrap()).to_bits(), double.to_bits(), "{text}");
        };
        check("0.01144", 0.01144);
        check("0.28490", 0.2849);
        check("0.000000000000000001", 1e-18);
        check("12345678901234567890.12345678", 1.234_567_890_123_456_8e19);
        check("99999999999999999999.99999999", 1e20);
        check("9007199254740993", 9_007_199_254_740_992.0);
    }

    #[test]
    fn division_and_parsing_give_the_same_double() {
        for mantissa in [1, 3, 7, 8, 11_440, 999_999_999, 9_007_199_254_740_991, 9_007_199_254_740_992] {
            for places in 0..=18 {
                let rate = Rate::from_parts(mantissa, places).unwrap();
                let parsed: f64 = rate.to_string().parse().unwrap();
                assert_eq!(rate_double(rate).to_bits(), parsed.to_bits(), "{rate}");
            }
        }
    }
}
