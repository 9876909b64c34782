//! The line of a rate in a chart: the steps as pixels, the parts that observations confirm, and the parts during
//! silences.
//!
//! **Invariant**: a rate is in force until the next rate, so lines are horizontal and vertical, never diagonal.

#![allow(clippy::float_arithmetic, reason = "only pixels are computed here, never the digits of a response")]

use std::fmt::Write as _;

use super::chart_silences::{confirmed, observations, unconfirmed};
use super::scale::{Scale, band, height, px};
use crate::domain::Timestamp;
use crate::query::{DownsampledSeries, Step};

/// Half the width of the bounds of a single observation, in pixels.
const MARK_HALF_WIDTH: f64 = 3.0;

/// A step of the chart, with its rates as heights; see [`height`].
#[derive(Clone, Copy)]
pub(super) struct Level {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    pub(super) lowest: f64,
    pub(super) highest: f64,
    pub(super) last: f64,
    /// The lower bound of the lowest rate and the upper bound of the highest rate.
    pub(super) band: (f64, f64),
    /// The bounds of the last rate.
    last_band: (f64, f64),
}

impl Level {
    fn new(step: &Step, until: Timestamp) -> Self {
        Self {
            from: step.from,
            until,
            lowest: height(&step.lowest),
            highest: height(&step.highest),
            last: height(&step.last),
            band: (band(&step.lowest).0, band(&step.highest).1),
            last_band: band(&step.last),
        }
    }

    /// Returns true if the step has a single rate.
    fn is_single(&self) -> bool {
        self.lowest >= self.highest
    }
}

/// The line of a series.
#[derive(Default)]
pub(super) struct Line {
    /// The steps.
    pub(super) levels: Vec<Level>,
    /// The parts of the steps outside silences.
    confirmed: Vec<Level>,
    /// The parts of the steps within silences.
    unconfirmed: Vec<Level>,
    /// The observations before and after each silence, each with the step that it begins or confirms.
    observations: Vec<(Timestamp, Level)>,
}

impl Line {
    /// Creates the line of a series. `starts_observed` is true if the range of the series starts at an observation.
    pub(super) fn new(series: &DownsampledSeries, starts_observed: bool) -> Self {
        let ends = series.steps.iter().skip(1).map(|step| step.from).chain([series.range.end()]);
        let levels: Vec<Level> = series.steps.iter().zip(ends).map(|(step, until)| Level::new(step, until)).collect();
        let at = |time: Timestamp| levels[..levels.partition_point(|level| level.from <= time)].last().copied();
        let observations = observations(series, starts_observed).into_iter();
        Self {
            confirmed: parts(&levels, |level| confirmed(level.from, level.until, &series.silences)),
            unconfirmed: parts(&levels, |level| unconfirmed(level.from, level.until, &series.silences)),
            observations: observations.filter_map(|time| Some((time, at(time)?))).collect(),
            levels,
        }
    }

    /// Returns the path of the parts outside silences.
    pub(super) fn confirmed_path(&self, scale: &Scale) -> String {
        self.confirmed.chunk_by(are_adjacent).map(|parts| line_path(scale, parts)).collect()
    }

    /// Returns the path of the parts within silences, each up to the rate of the observation after it.
    pub(super) fn unconfirmed_path(&self, scale: &Scale) -> String {
        let mut path = String::new();
        for parts in self.unconfirmed.chunk_by(are_adjacent) {
            path.push_str(&line_path(scale, parts));
            let end = parts.last().map(|part| part.until);
            let next = end.and_then(|end| self.levels.binary_search_by_key(&end, |level| level.from).ok());
            if let Some(level) = next.and_then(|at| self.levels.get(at)) {
                // Writing to a String cannot fail.
                let _ = write!(path, "V{}", px(scale.y(level.last)));
            }
        }
        path
    }

    /// Returns the path of the bounds of the parts outside silences.
    pub(super) fn band_path(&self, scale: &Scale) -> String {
        band_path(scale, &self.confirmed)
    }

    /// Returns the path of a dot at each observation before and after a silence: lines of no length.
    pub(super) fn marks_path(&self, scale: &Scale) -> String {
        let mark =
            |(time, level): &(Timestamp, Level)| format!("M{} {}h0", px(scale.x(*time)), px(scale.y(level.last)));
        self.observations.iter().map(mark).collect()
    }

    /// Returns the path of the bounds of each observation before and after a silence.
    pub(super) fn mark_bands_path(&self, scale: &Scale) -> String {
        let mut path = String::new();
        for (time, level) in &self.observations {
            let x = scale.x(*time);
            block(&mut path, scale, (x - MARK_HALF_WIDTH, x + MARK_HALF_WIDTH), level.last_band);
        }
        path
    }
}

fn are_adjacent(before: &Level, after: &Level) -> bool {
    before.until == after.from
}

/// Returns the parts of steps. Only the part at the beginning of a merged step has its extremes.
fn parts(levels: &[Level], split: impl Fn(&Level) -> Vec<(Timestamp, Timestamp)>) -> Vec<Level> {
    let part = |level: &Level, (from, until): (Timestamp, Timestamp)| {
        if from == level.from {
            return Level { from, until, ..*level };
        }
        Level { from, until, lowest: level.last, highest: level.last, band: level.last_band, ..*level }
    };
    levels.iter().flat_map(|level| split(level).into_iter().map(move |times| part(level, times))).collect()
}

fn line_path(scale: &Scale, levels: &[Level]) -> String {
    let mut path = String::new();
    for (at, level) in levels.iter().enumerate() {
        let start = if at == 0 { format!("M{} ", px(scale.x(level.from))) } else { "V".to_owned() };
        // Writing to a String cannot fail.
        let _ = if level.is_single() {
            write!(path, "{start}{}", px(scale.y(level.last)))
        } else {
            let y = |height| px(scale.y(height));
            write!(path, "{start}{}V{}V{}", y(level.lowest), y(level.highest), y(level.last))
        };
        let _ = write!(path, "H{}", px(scale.x(level.until)));
    }
    path
}

/// Adds a rectangle to a path.
fn block(path: &mut String, scale: &Scale, (from, until): (f64, f64), (low, high): (f64, f64)) {
    let (x0, x1, y0, y1) = (px(from), px(until), px(scale.y(high)), px(scale.y(low)));
    // Writing to a String cannot fail.
    let _ = write!(path, "M{x0} {y0}H{x1}V{y1}H{x0}Z");
}

fn band_path(scale: &Scale, levels: &[Level]) -> String {
    let mut path = String::new();
    for level in levels {
        let (from, until) = (scale.x(level.from), scale.x(level.until));
        if level.is_single() {
            block(&mut path, scale, (from, until), level.last_band);
        } else {
            // The range of an aggregated step is drawn one pixel wide.
            block(&mut path, scale, (from, (from + 1.0).min(until)), level.band);
            block(&mut path, scale, ((from + 1.0).min(until), until), level.last_band);
        }
    }
    path
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::chart_silences::tests::series;
    use super::super::scale::Frame;
    use super::*;
    use crate::analysis::{LegRate, Legs};
    use crate::domain::Rate;

    fn step(from: i64, rates: [&str; 3]) -> Step {
        let rate = |text| Legs::One(LegRate { rate: Rate::parse(text).unwrap(), inverted: false });
        let [lowest, highest, last] = rates.map(rate);
        Step { from: Timestamp::from_micros(from), lowest, highest, last }
    }

    /// Returns the line of steps from 0 to 100.
    pub(in crate::http::page) fn line(steps: &[(i64, [&str; 3])], silences: &[(i64, i64)]) -> Line {
        let steps = steps.iter().map(|(from, rates)| step(*from, *rates)).collect();
        Line::new(&DownsampledSeries { steps, ..series(silences) }, false)
    }

    fn scale() -> Scale {
        let frame = Frame { width: 100.0, height: 100.0, left: 0.0, right: 0.0, top: 0.0, bottom: 0.0, ..Frame::WIDE };
        let times = (Timestamp::from_micros(0), Timestamp::from_micros(100));
        Scale::new(frame, times, [1.0, 3.0].into_iter())
    }

    #[test]
    fn lines_are_horizontal_and_vertical() {
        let steps = [(0, ["1.0"; 3]), (50, ["2.0"; 3]), (80, ["1.0", "3.0", "2.0"])];
        // Only horizontal and vertical commands. An aggregated column shows its lowest and its highest rate.
        assert_eq!(line(&steps, &[]).confirmed_path(&scale()), "M0 93.1H50V50H80V93.1V6.9V50H100");
        assert_eq!(line(&steps[..1], &[]).band_path(&scale()), "M0 90.9H100V95.3H0Z");
    }

    #[test]
    fn line_and_bounds_are_confirmed_only_outside_silences() {
        let steps = [(0, ["1.0"; 3]), (50, ["1.0", "3.0", "2.0"])];
        let check = |silences: &[(i64, i64)], confirmed: &str, unconfirmed: &str| {
            let line = line(&steps, silences);
            assert_eq!(line.confirmed_path(&scale()), confirmed);
            assert_eq!(line.unconfirmed_path(&scale()), unconfirmed);
        };
        check(&[], "M0 93.1H50V93.1V6.9V50H100", "");
        check(&[(20, 40)], "M0 93.1H20M40 93.1H50V93.1V6.9V50H100", "M20 93.1H40");
        check(&[(20, 60), (90, 100)], "M0 93.1H20M60 50H90", "M20 93.1H50V93.1V6.9V50H60M90 50H100");
        // A silence ends with an observation of another rate.
        check(&[(20, 50)], "M0 93.1H20M50 93.1V6.9V50H100", "M20 93.1H50V50");
        let line = line(&[(0, ["1.0"; 3])], &[(20, 100)]);
        assert_eq!(line.band_path(&scale()), "M0 90.9H20V95.3H0Z");
    }

    #[test]
    fn each_observation_beside_a_silence_has_a_mark_with_its_bounds() {
        let line = line(&[(0, ["1.0"; 3]), (50, ["2.0"; 3])], &[(0, 50), (50, 100)]);
        assert_eq!(line.marks_path(&scale()), "M50 50h0");
        assert_eq!(line.mark_bands_path(&scale()), "M47 47.8H53V52.2H47Z");
        assert_eq!(line.confirmed_path(&scale()), "");
    }
}
