//! The scales of a chart: the mapping from times and rates to pixels, and the tick marks of both axes.
//!
//! **Invariant**: floats are used only for positions and are never shown. The digits of a tick mark come from an
//! integer, and its position follows from the integer.

#![allow(clippy::float_arithmetic, reason = "only pixels are computed here, never the digits of a response")]

use chrono::{DateTime, Datelike as _, Days, Duration, NaiveDate, NaiveDateTime, Utc};

use crate::analysis::{RateBound, RoundedRate};
use crate::domain::Timestamp;
use crate::query::PairRate;

/// Returns the height of a rate in a chart: the rate as a float.
pub(super) fn height(rate: &PairRate) -> f64 {
    number(rate.rounded(RateBound::Value))
}

/// Returns the bounds of a rate as floats.
pub(super) fn band(rate: &PairRate) -> (f64, f64) {
    (number(rate.rounded(RateBound::Low)), number(rate.rounded(RateBound::High)))
}

/// Returns a rate as a float.
#[allow(clippy::cast_precision_loss, reason = "a position needs less precision than a double has")]
pub(super) fn number(rate: RoundedRate) -> f64 {
    rate.mantissa() as f64 / 10_f64.powi(i32::from(rate.places()))
}

/// The size of a chart and the margins of its plot, in pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    /// Approximate number of tick marks with enough room on the time axis.
    pub(super) time_marks: i64,
    /// Approximate number of tick marks with enough room on the rate axis.
    pub(super) rate_marks: i32,
}

impl Frame {
    /// The frame for wide screens.
    pub(super) const WIDE: Self = Self {
        width: 960.0,
        height: 380.0,
        left: 12.0,
        right: 92.0,
        top: 14.0,
        bottom: 34.0,
        time_marks: 8,
        rate_marks: 6,
    };
    /// The frame for phones, with the same font size.
    pub(super) const NARROW: Self = Self {
        width: 340.0,
        height: 280.0,
        left: 4.0,
        right: 76.0,
        top: 12.0,
        bottom: 34.0,
        time_marks: 4,
        rate_marks: 5,
    };

    pub(super) fn plot_right(&self) -> f64 {
        self.width - self.right
    }

    pub(super) fn plot_bottom(&self) -> f64 {
        self.height - self.bottom
    }
}

/// The scales of a chart: time on the x axis, rate on the y axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) frame: Frame,
    start: Timestamp,
    span_us: f64,
    low: f64,
    high: f64,
}

/// Fraction of the rate range that stays free above and below the line.
const PADDING: f64 = 0.08;

impl Scale {
    /// Creates the scales for a time range and for the range from the lowest to the highest of `heights`.
    #[allow(clippy::cast_precision_loss, reason = "a position needs less precision than a double has")]
    pub(super) fn new(frame: Frame, (start, end): (Timestamp, Timestamp), heights: impl Iterator<Item = f64>) -> Self {
        let (low, high) =
            heights.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), height| (low.min(height), high.max(height)));
        // Callers give a single height a range. This prevents a division by zero if they do not.
        let (low, high) = if low < high { (low, high) } else { (0.0, 1.0) };
        let free = (high - low) * PADDING;
        let span_us = end.micros_since(start).max(1) as f64;
        Self { frame, start, span_us, low: low - free, high: high + free }
    }

    #[allow(clippy::cast_precision_loss, reason = "a position needs less precision than a double has")]
    pub(super) fn x(&self, time: Timestamp) -> f64 {
        let part = time.micros_since(self.start) as f64 / self.span_us;
        self.frame.left + part.clamp(0.0, 1.0) * (self.frame.plot_right() - self.frame.left)
    }

    /// Returns the heights at the bottom and at the top of the plot.
    pub(super) const fn heights(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    pub(super) fn y(&self, height: f64) -> f64 {
        let part = (height - self.low) / (self.high - self.low);
        self.frame.plot_bottom() - part.clamp(0.0, 1.0) * (self.frame.plot_bottom() - self.frame.top)
    }

    /// Returns the tick marks of the rate axis: round numbers with their heights.
    pub(super) fn rate_marks(&self) -> Vec<(String, f64)> {
        let wanted = (self.high - self.low) / f64::from(self.frame.rate_marks);
        #[allow(clippy::cast_possible_truncation, reason = "rates have at most 28 digits")]
        let mut exponent = wanted.log10().floor() as i32;
        let factor = wanted / 10_f64.powi(exponent);
        // The round number that is nearest in proportion.
        let digit = match factor {
            small if small < 1.5 => 1,
            medium if medium < 3.5 => 2,
            large if large < 7.5 => 5,
            _ => {
                exponent += 1;
                1
            }
        };
        let step = f64::from(digit) * 10_f64.powi(exponent);
        #[allow(clippy::cast_possible_truncation, reason = "a rate divided by `step` fits in 64 bits")]
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        #[allow(clippy::cast_precision_loss, reason = "a position needs less precision than a double has")]
        let mark = |number: i64| (decimal(number * i64::from(digit), exponent), number as f64 * step);
        (first..=last).map(mark).collect()
    }

    /// Returns the tick marks of the time axis: labels with round times in UTC.
    pub(super) fn time_marks(&self) -> Vec<(String, Timestamp)> {
        #[allow(clippy::cast_possible_truncation, reason = "the float was converted from an i64")]
        let end = self.start.saturating_add_us(self.span_us as i64);
        time_marks(self.start, end, self.frame.time_marks)
    }
}

/// Formats `number * 10^exponent` without an exponent.
fn decimal(number: i64, exponent: i32) -> String {
    let places = usize::try_from(-exponent).unwrap_or(0);
    let zeros = usize::try_from(exponent).unwrap_or(0);
    let digits = format!("{:0>width$}{:0<zeros$}", number.unsigned_abs(), "", width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let sign = if number < 0 { "\u{2212}" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// The step between two tick marks of the time axis.
#[derive(Clone, Copy)]
enum TickStep {
    Minutes(i64),
    Days(u64),
    Months(u32),
}

/// Tick steps with their approximate length in minutes, in ascending order.
const TICK_STEPS: [(i64, TickStep); 19] = {
    const DAY: i64 = 24 * 60;
    [
        (1, TickStep::Minutes(1)),
        (5, TickStep::Minutes(5)),
        (15, TickStep::Minutes(15)),
        (30, TickStep::Minutes(30)),
        (60, TickStep::Minutes(60)),
        (180, TickStep::Minutes(180)),
        (360, TickStep::Minutes(360)),
        (720, TickStep::Minutes(720)),
        (DAY, TickStep::Days(1)),
        (2 * DAY, TickStep::Days(2)),
        (5 * DAY, TickStep::Days(5)),
        (10 * DAY, TickStep::Days(10)),
        (30 * DAY, TickStep::Months(1)),
        (61 * DAY, TickStep::Months(2)),
        (91 * DAY, TickStep::Months(3)),
        (182 * DAY, TickStep::Months(6)),
        (365 * DAY, TickStep::Months(12)),
        (5 * 365 * DAY, TickStep::Months(60)),
        (20 * 365 * DAY, TickStep::Months(240)),
    ]
};

fn time_marks(start: Timestamp, end: Timestamp, marks_max: i64) -> Vec<(String, Timestamp)> {
    let span_minutes = end.micros_since(start) / (60 * Timestamp::SECOND_US);
    let fitting = TICK_STEPS.into_iter().find(|(minutes, _)| span_minutes / minutes <= marks_max);
    let step = fitting.map_or(TickStep::Months(1_200), |(_, step)| step);
    let mut marks = Vec::new();
    let mut time = first_mark(start.to_chrono().naive_utc(), step);
    while let Some(mark) = time.filter(|mark| Timestamp::from(mark.and_utc()) <= end) {
        // The first marks may be before the start. They are needed only to count steps, and are not shown.
        if Timestamp::from(mark.and_utc()) >= start {
            marks.push((mark_text(mark, step), mark.and_utc().into()));
        }
        time = next_mark(mark, step);
    }
    marks
}

fn first_mark(start: NaiveDateTime, step: TickStep) -> Option<NaiveDateTime> {
    match step {
        TickStep::Minutes(_) | TickStep::Days(1) => Some(start.date().into()),
        // Steps of several days start again at each month.
        TickStep::Days(_) => NaiveDate::from_ymd_opt(start.year(), start.month(), 1).map(Into::into),
        TickStep::Months(months) => {
            let months_before = (start.year() * 12).rem_euclid(i32::try_from(months).unwrap_or(1));
            NaiveDate::from_ymd_opt(start.year() - months_before / 12, 1, 1).map(Into::into)
        }
    }
}

fn next_mark(mark: NaiveDateTime, step: TickStep) -> Option<NaiveDateTime> {
    match step {
        TickStep::Minutes(minutes) => mark.checked_add_signed(Duration::minutes(minutes)),
        TickStep::Days(days) => {
            let next = mark.checked_add_days(Days::new(days))?;
            // The first of the next month always has a mark. A mark shortly before it is skipped.
            let first =
                NaiveDate::from_ymd_opt(mark.year(), mark.month(), 1)?.checked_add_months(chrono::Months::new(1))?;
            let room = u64::try_from((NaiveDateTime::from(first) - next).num_days()).unwrap_or(0);
            Some(if days > 1 && room < days.div_ceil(2) { first.into() } else { next })
        }
        TickStep::Months(months) => mark.checked_add_months(chrono::Months::new(months)),
    }
}

/// Returns a short label. For a step of minutes, the label is the time of day, or the date at midnight. For a step of
/// days, it is the date. For a step of months, it is the month, or the year in January or if the step is whole years.
fn mark_text(mark: NaiveDateTime, step: TickStep) -> String {
    let utc: DateTime<Utc> = mark.and_utc();
    let form = match step {
        TickStep::Minutes(_) if mark.time() != chrono::NaiveTime::MIN => "%H:%M",
        TickStep::Minutes(_) | TickStep::Days(_) => "%-d %b",
        TickStep::Months(months) if months.is_multiple_of(12) || mark.month() == 1 => "%Y",
        TickStep::Months(_) => "%b",
    };
    utc.format(form).to_string()
}

/// Formats a coordinate with one decimal place.
pub(super) fn px(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{LegRate, Legs};
    use crate::domain::Rate;

    #[test]
    fn rate_mark_has_no_exponent() {
        let check = |number: i64, exponent: i32, expect: &str| assert_eq!(decimal(number, exponent), expect);
        check(1_144, -5, "0.01144");
        check(8, -5, "0.00008");
        check(0, -2, "0.00");
        check(425, 1, "4250");
        check(5, 0, "5");
        check(-15, -1, "\u{2212}1.5");
    }

    #[test]
    fn rate_marks_are_round_and_inside_range() {
        let check = |heights: [f64; 2], expect: &[&str]| {
            let times = (Timestamp::from_micros(0), Timestamp::from_micros(1));
            let scale = Scale::new(Frame::WIDE, times, heights.into_iter());
            let marks: Vec<String> = scale.rate_marks().into_iter().map(|(text, _)| text).collect();
            assert_eq!(marks, expect);
        };
        check([0.011_435, 0.011_445], &["0.011436", "0.011438", "0.011440", "0.011442", "0.011444"]);
        check([4_210.35, 8_100.0], &["4000", "5000", "6000", "7000", "8000"]);
        check([0.000_075, 0.000_085], &["0.000076", "0.000078", "0.000080", "0.000082", "0.000084"]);
    }

    #[test]
    fn time_marks_are_round() {
        let check = |start: &str, end: &str, marks_max: i64, expect: &[&str]| {
            let time = |text| Timestamp::parse(text).unwrap();
            let marks: Vec<String> =
                time_marks(time(start), time(end), marks_max).into_iter().map(|(text, _)| text).collect();
            assert_eq!(marks, expect, "{start} to {end}");
        };
        check(
            "2025-12-07T13:20:00Z",
            "2025-12-08T13:20:00Z",
            8,
            &["15:00", "18:00", "21:00", "8 Dec", "03:00", "06:00", "09:00", "12:00"],
        );
        check(
            "2025-12-01T13:20:00Z",
            "2025-12-08T13:20:00Z",
            8,
            &["2 Dec", "3 Dec", "4 Dec", "5 Dec", "6 Dec", "7 Dec", "8 Dec"],
        );
        check("2025-11-08", "2025-12-08", 8, &["11 Nov", "16 Nov", "21 Nov", "26 Nov", "1 Dec", "6 Dec"]);
        check("2024-12-08", "2025-12-08", 8, &["2025", "Mar", "May", "Jul", "Sep", "Nov"]);
        check("2015-02-01", "2026-01-15", 8, &["2020", "2025"]);
        check("2025-12-08", "2025-12-08", 8, &["8 Dec"]);
    }

    #[test]
    fn inverse_swaps_bounds() {
        let rate = |inverted| Legs::One(LegRate { rate: Rate::parse("0.00008").unwrap(), inverted });
        let (low, high) = band(&rate(false));
        assert!((low - 0.000_075).abs() < 1e-12 && (high - 0.000_085).abs() < 1e-12);
        let (low, high) = band(&rate(true));
        assert!((low - 11_764.7).abs() < 0.1 && (high - 13_333.3).abs() < 0.1);
        assert!((height(&rate(true)) - 12_500.0).abs() < 0.001);
    }
}
