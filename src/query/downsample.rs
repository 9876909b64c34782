//! Downsampled series: the steps of the rate of a pair that a chart of limited width needs, and its silences. The pair is
//! published, the inverse of a published pair, or a cross.
//!
//! **Invariants**: no extreme is lost: merged steps keep the lowest and the highest rate. Memory does not grow with the
//! number of runs. A request that needs more runs than it allows is refused. Rates are exact until they are shown.

use std::sync::Arc;

use super::as_of::AsOf;
use super::need::Need;
use super::rate_intervals::{first_rate_time, items};
use super::resolve::{AnsweringLeg, Derivation, Leg, derivation};
use super::window::window_start;
use super::{Answer, QueryError, Range, Reader};
use crate::analysis::{LegRate, Legs};
use crate::domain::{Pair, ScanOrder, Source, Span, Timestamp};
use crate::store::SeriesView;

/// The maximum number of runs, or of observed instants, that one request reads: about one second of reading.
pub const DOWNSAMPLE_ITEMS_MAX: u64 = 20_000_000;
/// The maximum number of exact steps is this number times the number of columns. If a series has more steps, the steps
/// in each column are merged.
const STEPS_PER_COLUMN: usize = 2;

/// The rate of a pair, as the rates of its legs: exact, with bounds.
pub type PairRate = Legs<LegRate>;

/// A request for a downsampled series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DownsampleRequest {
    /// The pair, in the requested direction.
    pub pair: Pair,
    /// The source of every leg. `None` means the source that the choice rule selects now.
    pub source: Option<Source>,
    /// The source of each leg, in order of the legs. Empty means `source` for every leg.
    pub leg_sources: Vec<Source>,
    /// The length of the range. `None` means the whole series.
    pub window: Option<Span>,
    /// The end of the range. `None`, and a time in the future, mean now.
    pub end: Option<Timestamp>,
    /// The number of columns of equal width that the range is divided into, at least one.
    pub columns: u32,
    /// The maximum number of runs, or of observed instants, to read: at most [`DOWNSAMPLE_ITEMS_MAX`].
    pub items_max: u64,
}

/// A part of the range that has one rate, or several rates that begin in the same column and were merged. A step lasts
/// until the next step begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The time at which the first rate of the step came into force, or the start of the range if that is later.
    pub from: Timestamp,
    /// The lowest rate of the step.
    pub lowest: PairRate,
    /// The highest rate of the step.
    pub highest: PairRate,
    /// The last rate of the step, in force until the next step.
    pub last: PairRate,
}

/// The lowest or the highest rate of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extreme {
    /// The first time in the range at which the rate was in force.
    pub time: Timestamp,
    /// The rate.
    pub rate: PairRate,
}

/// A gap without observations that is longer than the stale limit of the series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silence {
    /// The last observation before the gap, or the start of the range if that is later.
    pub from: Timestamp,
    /// The first observation after the gap, or the end of the range.
    pub until: Timestamp,
}

/// The rates of a pair over a range, reduced to steps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DownsampledSeries {
    /// How the rates are derived from published rates.
    pub derivation: Derivation,
    /// The published series that the rates are derived from.
    pub legs: Vec<AnsweringLeg>,
    /// From the start of the window, or the first rate if the request has no window, to the end.
    pub range: Range,
    /// The steps, in order of time. Empty if the pair has no rate yet.
    pub steps: Vec<Step>,
    /// Whether each step has exactly one rate.
    pub is_exact: bool,
    /// The number of moves. A rate with an equal value and a different number of decimal places is no move.
    pub move_count: u64,
    /// The lowest rate in force in the range.
    pub lowest: Option<Extreme>,
    /// The highest rate in force in the range.
    pub highest: Option<Extreme>,
    /// The silences, in order of time. During a silence of a cross, at least one leg is silent. Silences narrower than a
    /// column are left out, except a silence that lasts until the end.
    pub silences: Vec<Silence>,
    /// The stale limit of each leg, microseconds.
    pub stale_limits_us: Vec<i64>,
}

/// Reduces rates to steps and extremes. The rates must come in order of time.
struct Downsampler {
    start: Timestamp,
    column_us: i64,
    steps_max: usize,
    steps: Vec<Step>,
    is_exact: bool,
    move_count: u64,
    lowest: Option<Extreme>,
    highest: Option<Extreme>,
}

impl Downsampler {
    fn new(start: Timestamp, column_us: i64, columns: u32) -> Self {
        let steps_max = usize::try_from(columns).unwrap_or(usize::MAX).saturating_mul(STEPS_PER_COLUMN);
        let (steps, move_count, lowest, highest) = (Vec::new(), 0, None, None);
        Self { start, column_us, steps_max, steps, is_exact: true, move_count, lowest, highest }
    }

    /// Takes a rate and the time at which it came into force.
    fn take(&mut self, from: Timestamp, rate: PairRate) {
        let time = from.max(self.start);
        let before = self.steps.last().map(|step| step.last);
        if before == Some(rate) {
            return;
        }
        self.move_count += u64::from(before.is_some_and(|before| before.cmp_number(&rate).is_ne()));
        let here = Extreme { time, rate };
        if self.lowest.is_none_or(|lowest| rate.cmp_number(&lowest.rate).is_lt()) {
            self.lowest = Some(here);
        }
        if self.highest.is_none_or(|highest| rate.cmp_number(&highest.rate).is_gt()) {
            self.highest = Some(here);
        }
        if self.is_exact && self.steps.len() == self.steps_max {
            self.is_exact = false;
            for step in std::mem::take(&mut self.steps) {
                self.push_by_column(step);
            }
        }
        let step = Step { from: time, lowest: rate, highest: rate, last: rate };
        if self.is_exact {
            self.steps.push(step);
        } else {
            self.push_by_column(step);
        }
    }

    fn column(&self, time: Timestamp) -> i64 {
        time.micros_since(self.start) / self.column_us
    }

    fn push_by_column(&mut self, step: Step) {
        let column = self.column(step.from);
        match self.steps.last().copied() {
            Some(last) if self.column(last.from) == column => {
                let lowest = if step.lowest.cmp_number(&last.lowest).is_lt() { step.lowest } else { last.lowest };
                let highest = if step.highest.cmp_number(&last.highest).is_gt() { step.highest } else { last.highest };
                if let Some(merged) = self.steps.last_mut() {
                    *merged = Step { from: last.from, lowest, highest, last: step.last };
                }
            }
            _ => self.steps.push(step),
        }
    }
}

/// Finds the silences between observations. The observations must come in order of time.
struct SilenceFinder {
    limit_us: i64,
    column_us: i64,
    observed_until: Option<Timestamp>,
    silences: Vec<Silence>,
}

impl SilenceFinder {
    /// Records observations from `from` to `until` without a silence between them.
    fn observe(&mut self, from: Timestamp, until: Timestamp) {
        if let Some(observed_until) = self.observed_until
            && from.micros_since(observed_until) > self.limit_us.max(self.column_us)
        {
            self.silences.push(Silence { from: observed_until, until: from });
        }
        self.observed_until = self.observed_until.max(Some(until));
    }

    /// Returns the silences between `start` and `end`.
    fn finish(mut self, start: Timestamp, end: Timestamp) -> Vec<Silence> {
        if let Some(observed_until) = self.observed_until
            && end.micros_since(observed_until) > self.limit_us
        {
            self.silences.push(Silence { from: observed_until, until: end });
        }
        self.silences.retain(|silence| silence.until > start);
        for silence in &mut self.silences {
            silence.from = silence.from.max(start);
        }
        self.silences
    }
}

/// Returns the times at which at least one of two legs is silent. Silences that only touch stay separate: at the instant
/// between them, no leg is silent.
fn union(one: Vec<Silence>, other: Vec<Silence>) -> Vec<Silence> {
    let mut all = one;
    all.extend(other);
    all.sort_by_key(|silence| silence.from);
    let mut merged: Vec<Silence> = Vec::with_capacity(all.len());
    for silence in all {
        match merged.last_mut() {
            Some(last) if silence.from < last.until => last.until = last.until.max(silence.until),
            _ => merged.push(silence),
        }
    }
    merged
}

/// Counts the items that are read, and refuses too many.
struct Budget {
    left: u64,
    items_max: u64,
}

impl Budget {
    const fn new(items_max: u64) -> Self {
        Self { left: items_max, items_max }
    }

    fn spend(&mut self) -> Result<(), QueryError> {
        let Some(left) = self.left.checked_sub(1) else {
            let problem = format!(
                "needs more than {} runs or observations; use a shorter range, or request candles",
                self.items_max
            );
            return Err(QueryError::invalid("range", problem));
        };
        self.left = left;
        Ok(())
    }
}

/// The range of a request and the width of its columns.
#[derive(Clone, Copy)]
struct Plot {
    start: Timestamp,
    end: Timestamp,
    column_us: i64,
    items_max: u64,
}

impl Reader {
    /// Returns the downsampled series of a pair.
    ///
    /// # Errors
    /// `UnknownSeries` or `Ambiguous` if no series can be chosen; `InvalidArgument` if the sources do not fit the legs,
    /// or if the range has too many runs; `Cancelled` after cancellation; `Store` if reading the store fails.
    pub fn downsample(&self, request: &DownsampleRequest) -> Result<Answer<DownsampledSeries>, QueryError> {
        let as_of = self.as_of(None)?;
        let need = Need::at(as_of.now);
        let route = self.resolve(&as_of, request.pair, request.source.as_ref(), &request.leg_sources, &need)?;
        let end = request.end.map_or(as_of.now, |end| end.min(as_of.now));
        let start = match request.window {
            Some(window) => window_start(window, end)?,
            None => first_rate_time(&as_of, &route)?.unwrap_or(end).min(end),
        };
        let span_us = end.micros_since(start).max(1);
        let items_max = request.items_max.min(DOWNSAMPLE_ITEMS_MAX);
        let plot = Plot { start, end, column_us: span_us / i64::from(request.columns.max(1)) + 1, items_max };
        let mut downsampler = Downsampler::new(start, plot.column_us, request.columns);
        let mut budget = Budget::new(items_max);
        // The silences of a single series often follow from its runs, which are read anyway.
        let mut finder = match &route {
            Legs::One(leg) if !self.has_silences_in_runs(leg) => Some(self.silence_finder(leg, plot)),
            Legs::One(_) | Legs::Two(..) => None,
        };
        for interval in self.legs_intervals(&as_of, &route, [start, end.saturating_add_us(1)])? {
            let interval = interval?;
            budget.spend()?;
            downsampler.take(interval.from, interval.rates);
            if let Some(finder) = &mut finder {
                finder.observe(interval.from, interval.confirmed_until.min(end));
            }
        }
        let silences = match (finder, &route) {
            (Some(finder), _) => finder.finish(start, end),
            (None, Legs::One(leg)) => self.silences(&as_of, leg, plot)?,
            (None, Legs::Two(one, other)) => {
                union(self.silences(&as_of, one, plot)?, self.silences(&as_of, other, plot)?)
            }
        };
        let Downsampler { steps, is_exact, move_count, lowest, highest, .. } = downsampler;
        let downsampled = DownsampledSeries {
            derivation: derivation(&route),
            legs: self.answering_legs(&as_of, &route, &need)?,
            range: Range::new(Some(start), Some(end))?,
            steps,
            is_exact,
            move_count,
            lowest,
            highest,
            silences,
            stale_limits_us: route.iter().map(|leg| self.rules.stale_limit_us(leg.series.key())).collect(),
        };
        Ok(Answer { commit: as_of.commit, body: downsampled })
    }

    /// Returns true if a run may contain a silence: runs contain gaps up to the length of the collapse window. If the
    /// collapse window is longer than the stale limit, such a gap may be a silence, so every instant must be read.
    fn has_silences_in_runs(&self, leg: &Leg<Arc<SeriesView>>) -> bool {
        leg.series.collapse_window_us() > self.rules.stale_limit_us(leg.series.key())
    }

    fn silence_finder(&self, leg: &Leg<Arc<SeriesView>>, plot: Plot) -> SilenceFinder {
        let limit_us = self.rules.stale_limit_us(leg.series.key());
        SilenceFinder { limit_us, column_us: plot.column_us, observed_until: None, silences: Vec::new() }
    }

    /// Returns the silences of a leg in the range of a chart.
    fn silences(&self, as_of: &AsOf, leg: &Leg<Arc<SeriesView>>, plot: Plot) -> Result<Vec<Silence>, QueryError> {
        let Plot { start, end, items_max, .. } = plot;
        let mut finder = self.silence_finder(leg, plot);
        let mut budget = Budget::new(items_max);
        if !self.has_silences_in_runs(leg) {
            for interval in self.leg_intervals(as_of, leg, start, end.saturating_add_us(1))? {
                let interval = interval?;
                budget.spend()?;
                finder.observe(interval.from, interval.confirmed_until.min(end));
            }
            return Ok(finder.finish(start, end));
        }
        // The last instant before `start` belongs to the run in force just before `start`. If this run ends before
        // `start`, the end of the run is that instant. Else that instant is at most a collapse window before `start`,
        // because no gap inside a run is longer.
        let run = leg.series.run_at(start.saturating_add_us(-1), as_of.known())?;
        let from = run
            .map_or(start, |run| run.last_observed_time.min(start).saturating_add_us(-leg.series.collapse_window_us()));
        for instant in
            items(leg.series.instants(from, end.saturating_add_us(1), ScanOrder::Ascending), self.cancel.clone())
        {
            let instant = instant?;
            budget.spend()?;
            finder.observe(instant, instant);
        }
        Ok(finder.finish(start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::RateBound;
    use crate::domain::Rate;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn published(rate: &str) -> PairRate {
        Legs::One(LegRate { rate: Rate::parse(rate).unwrap(), inverted: false })
    }

    fn text(rate: PairRate) -> String {
        rate.rounded(RateBound::Value).to_string()
    }

    fn span(time: i64, rate: &str) -> (Timestamp, PairRate) {
        (at(time), published(rate))
    }

    fn downsampled(spans: &[(Timestamp, PairRate)], columns: u32, column_us: i64) -> Downsampler {
        let mut downsampler = Downsampler::new(at(100), column_us, columns);
        for (from, rate) in spans {
            downsampler.take(*from, *rate);
        }
        downsampler
    }

    #[test]
    fn few_steps_stay_exact() {
        let downsampler =
            downsampled(&[span(50, "5.0"), span(110, "5.0"), span(120, "5.1"), span(130, "5.10")], 10, 10);
        let steps: Vec<String> =
            downsampler.steps.iter().map(|step| format!("{} {}", step.from.micros(), text(step.last))).collect();
        // The step of a rate that is in force before the range begins at the start of the range. If only the number of
        // places changes, a new step begins, but this is not a move.
        assert_eq!(steps, ["100 5.0", "120 5.1", "130 5.10"]);
        assert!(downsampler.is_exact);
        assert_eq!(downsampler.move_count, 1);
    }

    #[test]
    fn merged_steps_keep_extremes() {
        // Two spikes of one microsecond, 99 and 0.01, among ten thousand steps.
        let spans: Vec<(Timestamp, PairRate)> = (0..10_000_i64)
            .map(|number| match number {
                7_777 => span(100 + number, "99"),
                3_333 => span(100 + number, "0.01"),
                even if even % 2 == 0 => span(100 + even, "5.0"),
                odd => span(100 + odd, "5.1"),
            })
            .collect();
        let downsampler = downsampled(&spans, 20, 500);
        assert!(!downsampler.is_exact);
        assert_eq!(downsampler.steps.len(), 20);
        let position = |text: &str, rate_of: fn(&Step) -> PairRate| {
            let rate = published(text);
            downsampler.steps.iter().position(|step| rate_of(step) == rate)
        };
        assert_eq!(position("99", |step| step.highest), Some(15));
        assert_eq!(position("0.01", |step| step.lowest), Some(6));
        assert_eq!(downsampler.highest.map(|extreme| extreme.time), Some(at(7_877)));
        assert_eq!(downsampler.lowest.map(|extreme| extreme.time), Some(at(3_433)));
        assert_eq!(downsampler.steps.last().map(|step| text(step.last)).as_deref(), Some("5.1"));
    }

    #[test]
    fn silences_are_longer_than_the_stale_limit() {
        let check = |observed: &[(i64, i64)], now: i64, expect: &[(i64, i64)]| {
            let mut silence_finder =
                SilenceFinder { limit_us: 10, column_us: 5, observed_until: None, silences: Vec::new() };
            for (from, until) in observed {
                silence_finder.observe(at(*from), at(*until));
            }
            let found: Vec<(i64, i64)> = silence_finder
                .finish(at(100), at(now))
                .iter()
                .map(|silence| (silence.from.micros(), silence.until.micros()))
                .collect();
            assert_eq!(found, expect, "{observed:?}");
        };
        check(&[(100, 110), (120, 130)], 135, &[]);
        check(&[(100, 110), (121, 130)], 140, &[(110, 121)]);
        // A silence that lasts until now, and a silence that begins before the range and is cut at its start.
        check(&[(100, 110)], 121, &[(110, 121)]);
        check(&[(20, 30), (115, 120)], 125, &[(100, 115)]);
        check(&[(20, 30), (60, 120)], 125, &[]);
        check(&[], 500, &[]);
    }

    #[test]
    fn cross_is_silent_while_a_leg_is_silent() {
        let check = |one: &[(i64, i64)], other: &[(i64, i64)], expect: &[(i64, i64)]| {
            let silences = |times: &[(i64, i64)]| {
                times.iter().map(|(from, until)| Silence { from: at(*from), until: at(*until) }).collect::<Vec<_>>()
            };
            assert_eq!(union(silences(one), silences(other)), silences(expect), "{one:?} {other:?}");
            assert_eq!(union(silences(other), silences(one)), silences(expect), "{other:?} {one:?}");
        };
        check(&[], &[], &[]);
        check(&[(10, 20)], &[], &[(10, 20)]);
        check(&[(10, 20), (50, 60)], &[(30, 40)], &[(10, 20), (30, 40), (50, 60)]);
        check(&[(10, 20), (50, 60)], &[(15, 55)], &[(10, 60)]);
        check(&[(10, 40)], &[(15, 20), (25, 30)], &[(10, 40)]);
        // At 20, one leg is observed again and the other for the last time.
        check(&[(10, 20)], &[(20, 30)], &[(10, 20), (20, 30)]);
        check(&[(10, 20), (20, 30)], &[(10, 20), (20, 30)], &[(10, 20), (20, 30)]);
        check(&[(10, 20), (20, 30)], &[(15, 25)], &[(10, 30)]);
    }

    #[test]
    fn too_many_items_are_refused() {
        let mut budget = Budget::new(2);
        assert!(budget.spend().is_ok() && budget.spend().is_ok());
        assert!(budget.spend().unwrap_err().to_string().contains("more than 2 runs"), "the third item is too many");
    }
}
