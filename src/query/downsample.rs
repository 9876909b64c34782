//! The downsampled series of a rate: what a chart of limited width needs of a range, however many runs that has.
//!
//! **Invariants**: no extreme is lost: where steps are put together, the lowest and the highest rate stay. Memory does
//! not grow with the number of runs, and more than [`DOWNSAMPLE_ITEMS_MAX`] of them are refused rather than read.

use std::cmp::Ordering;

use super::as_of::AsOf;
use super::rate_intervals::{first_rate_time, items, rate_spans};
use super::resolve::Leg;
use super::window::window_start;
use super::{Answer, QueryError, Range, Reader};
use crate::analysis::{Legs, RoundedRate};
use crate::domain::{Pair, Rate, RateSpan, SeriesKey, Source, Span, Timestamp};
use crate::store::SeriesView;

/// Runs, or observed instants, that one downsampled series may be made of: a second's work.
pub const DOWNSAMPLE_ITEMS_MAX: u64 = 20_000_000;
/// Steps that are told one by one, for each column asked for; more are put together by column.
const STEPS_PER_COLUMN: usize = 2;

/// Asks for the downsampled series of a published series up to now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DownsampleRequest {
    /// The published pair, or its inverse.
    pub pair: Pair,
    /// From whom; none where a single source has the pair, or one is preferred.
    pub source: Option<Source>,
    /// So long before now; none for all there is.
    pub window: Option<Span>,
    /// Into how many columns of equal width time is cut, at least one.
    pub columns: u32,
}

/// Published rates from a moment until the next step; several of them, in a column that was put together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// When the first of them came into force, or the start of the downsampled series.
    pub from: Timestamp,
    /// The lowest number.
    pub lowest: Rate,
    /// The highest.
    pub highest: Rate,
    /// In force until the next step.
    pub last: Rate,
}

/// A rate, and when it came into force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extreme {
    /// Within the range.
    pub time: Timestamp,
    /// As published.
    pub rate: Rate,
}

/// A stretch without an observation, longer than the source's stale limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silence {
    /// The last observation before it, or the start of the downsampled series.
    pub from: Timestamp,
    /// The first observation after it, or now.
    pub until: Timestamp,
}

/// What a rate did, as published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DownsampledSeries {
    /// Whose it is.
    pub series: SeriesKey,
    /// Whether the pair asked for is the inverse of the published one: rates are as published all the same.
    pub inverted: bool,
    /// From the start asked for, or the first observation if none was, to now.
    pub range: Range,
    /// In order; none if there was no rate yet.
    pub steps: Vec<Step>,
    /// Whether each step is one rate.
    pub is_exact: bool,
    /// How often the number changed.
    pub move_count: u64,
    /// The lowest number in force, the first time.
    pub lowest: Option<Extreme>,
    /// The highest.
    pub highest: Option<Extreme>,
    /// In order; those narrower than a column are left out, but for one that lasts until now.
    pub silences: Vec<Silence>,
    /// What counts as silence, microseconds.
    pub stale_limit_us: i64,
}

fn compare(one: Rate, other: Rate) -> Ordering {
    RoundedRate::published(one).cmp_number(RoundedRate::published(other))
}

/// Takes spans in order of time.
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

    fn take(&mut self, span: &RateSpan) {
        let (time, rate) = (span.first_observed_time.max(self.start), span.rate);
        let before = self.steps.last().map(|step| step.last);
        if before == Some(rate) {
            return;
        }
        self.move_count += u64::from(before.is_some_and(|before| !before.same_number(rate)));
        let here = Extreme { time, rate };
        if self.lowest.is_none_or(|lowest| compare(rate, lowest.rate).is_lt()) {
            self.lowest = Some(here);
        }
        if self.highest.is_none_or(|highest| compare(rate, highest.rate).is_gt()) {
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
                let lowest = if compare(step.lowest, last.lowest).is_lt() { step.lowest } else { last.lowest };
                let highest = if compare(step.highest, last.highest).is_gt() { step.highest } else { last.highest };
                if let Some(kept) = self.steps.last_mut() {
                    *kept = Step { from: last.from, lowest, highest, last: step.last };
                }
            }
            _ => self.steps.push(step),
        }
    }
}

/// Takes confirmations in order of time and finds what lies between them.
struct GapDetector {
    limit_us: i64,
    column_us: i64,
    observed_until: Option<Timestamp>,
    silences: Vec<Silence>,
}

impl GapDetector {
    /// Something was observed at `from`, and on until `until` without a silence between.
    fn observe(&mut self, from: Timestamp, until: Timestamp) {
        if let Some(observed_until) = self.observed_until
            && from.micros_since(observed_until) > self.limit_us.max(self.column_us)
        {
            self.silences.push(Silence { from: observed_until, until: from });
        }
        self.observed_until = self.observed_until.max(Some(until));
    }

    /// The silences from `start` to `now`.
    fn finish(mut self, start: Timestamp, now: Timestamp) -> Vec<Silence> {
        if let Some(observed_until) = self.observed_until
            && now.micros_since(observed_until) > self.limit_us
        {
            self.silences.push(Silence { from: observed_until, until: now });
        }
        self.silences.retain(|silence| silence.until > start);
        for silence in &mut self.silences {
            silence.from = silence.from.max(start);
        }
        self.silences
    }
}

/// Counts what is read.
struct Budget(u64);

impl Budget {
    fn spend(&mut self) -> Result<(), QueryError> {
        self.0 += 1;
        if self.0 > DOWNSAMPLE_ITEMS_MAX {
            let problem = format!("holds more than {DOWNSAMPLE_ITEMS_MAX} runs; take a shorter one, or candles");
            return Err(QueryError::invalid("range", problem));
        }
        Ok(())
    }
}

impl Reader {
    /// The downsampled series of a published series, or of its inverse.
    ///
    /// # Errors
    /// No such series, a cross (it has no digits of its own), a range of too many runs, the caller gone, or the store's.
    pub fn downsample(&self, request: &DownsampleRequest) -> Result<Answer<DownsampledSeries>, QueryError> {
        let as_of = self.as_of(None)?;
        let route = self.resolve(&as_of, request.pair, request.source.as_ref(), &[])?;
        let Legs::One(leg) = &route else {
            let problem = format!("{} is published by nobody; its legs have charts", request.pair);
            return Err(QueryError::invalid("pair", problem));
        };
        let start = match request.window {
            Some(window) => window_start(window, as_of.now)?,
            None => first_rate_time(&as_of, &route)?.unwrap_or(as_of.now).min(as_of.now),
        };
        let span_us = as_of.now.micros_since(start).max(1);
        let column_us = span_us / i64::from(request.columns.max(1)) + 1;
        let stale_limit_us = self.rules.stale_limit_us(&leg.series.key().source);
        let mut gap_detector =
            GapDetector { limit_us: stale_limit_us, column_us, observed_until: None, silences: Vec::new() };
        let mut downsampler = Downsampler::new(start, column_us, request.columns);
        // A run bridges what its window allows: where that is more than the stale limit, silences lie inside runs.
        let by_instant = leg.series.collapse_window_us() > stale_limit_us;
        let mut budget = Budget(0);
        for span in items(rate_spans(&as_of, leg, start, as_of.now.saturating_add_us(1))?, self.cancel.clone()) {
            let span = span?;
            budget.spend()?;
            downsampler.take(&span);
            if !by_instant {
                gap_detector.observe(span.first_observed_time, span.last_observed_time);
            }
        }
        if by_instant {
            self.observe_instants(&as_of, leg, start, &mut gap_detector)?;
        }
        let Downsampler { steps, is_exact, move_count, lowest, highest, .. } = downsampler;
        let range = Range::new(Some(start), Some(as_of.now))?;
        let downsampled = DownsampledSeries {
            series: leg.series.key().clone(),
            inverted: leg.inverted,
            range,
            steps,
            is_exact,
            move_count,
            lowest,
            highest,
            silences: gap_detector.finish(start, as_of.now),
            stale_limit_us,
        };
        Ok(Answer { commit: as_of.commit, body: downsampled })
    }

    fn observe_instants(
        &self,
        as_of: &AsOf,
        leg: &Leg<std::sync::Arc<SeriesView>>,
        start: Timestamp,
        gap_detector: &mut GapDetector,
    ) -> Result<(), QueryError> {
        // The last instant before the start: that of the run in force then, or one of it within its window.
        let run = leg.series.run_at(start.saturating_add_us(-1), as_of.known())?;
        let from = run
            .map_or(start, |run| run.last_observed_time.min(start).saturating_add_us(-leg.series.collapse_window_us()));
        let mut budget = Budget(0);
        for instant in items(leg.series.instants(from, as_of.now.saturating_add_us(1)), self.cancel.clone()) {
            let instant = instant?;
            budget.spend()?;
            gap_detector.observe(instant, instant);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn span(time: i64, rate: &str) -> RateSpan {
        RateSpan { first_observed_time: at(time), last_observed_time: at(time), rate: Rate::parse(rate).unwrap() }
    }

    fn downsampled(spans: &[RateSpan], columns: u32, column_us: i64) -> Downsampler {
        let mut downsampler = Downsampler::new(at(100), column_us, columns);
        for span in spans {
            downsampler.take(span);
        }
        downsampler
    }

    #[test]
    fn few_steps_are_told_one_by_one() {
        let downsampler =
            downsampled(&[span(50, "5.0"), span(110, "5.0"), span(120, "5.1"), span(130, "5.10")], 10, 10);
        let steps: Vec<String> =
            downsampler.steps.iter().map(|step| format!("{} {}", step.from.micros(), step.last)).collect();
        // One in force from before begins with the range; digits that change are a step, and no move.
        assert_eq!(steps, ["100 5.0", "120 5.1", "130 5.10"]);
        assert!(downsampler.is_exact);
        assert_eq!(downsampler.move_count, 1);
    }

    #[test]
    fn many_steps_keep_their_extremes() {
        // A spike of one microsecond among ten thousand moves.
        let spans: Vec<RateSpan> = (0..10_000_i64)
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
        let with = |text: &str, of: fn(&Step) -> Rate| {
            let rate = Rate::parse(text).unwrap();
            downsampler.steps.iter().position(|step| of(step) == rate)
        };
        assert_eq!(with("99", |step| step.highest), Some(15));
        assert_eq!(with("0.01", |step| step.lowest), Some(6));
        assert_eq!(downsampler.highest.map(|extreme| extreme.time), Some(at(7_877)));
        assert_eq!(downsampler.lowest.map(|extreme| extreme.time), Some(at(3_433)));
        assert_eq!(downsampler.steps.last().map(|step| step.last.to_string()).as_deref(), Some("5.1"));
    }

    #[test]
    fn silences_are_longer_than_the_limit() {
        let check = |observed_until: &[(i64, i64)], now: i64, expect: &[(i64, i64)]| {
            let mut gap_detector =
                GapDetector { limit_us: 10, column_us: 5, observed_until: None, silences: Vec::new() };
            for (from, until) in observed_until {
                gap_detector.observe(at(*from), at(*until));
            }
            let found: Vec<(i64, i64)> = gap_detector
                .finish(at(100), at(now))
                .iter()
                .map(|silence| (silence.from.micros(), silence.until.micros()))
                .collect();
            assert_eq!(found, expect, "{observed_until:?}");
        };
        check(&[(100, 110), (120, 130)], 135, &[]);
        check(&[(100, 110), (121, 130)], 140, &[(110, 121)]);
        // Until now; and from before the range, of which the part inside counts.
        check(&[(100, 110)], 121, &[(110, 121)]);
        check(&[(20, 30), (115, 120)], 125, &[(100, 115)]);
        check(&[(20, 30), (60, 120)], 125, &[]);
        check(&[], 500, &[]);
    }
}
