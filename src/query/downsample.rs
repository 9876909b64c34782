//! Downsampled series: the steps of a published series that a chart of limited width needs, and the silences of the
//! series.
//!
//! **Invariants**: no extreme is lost: merged steps keep the lowest and the highest rate. Memory does not grow with the
//! number of runs. A request that needs more than [`DOWNSAMPLE_ITEMS_MAX`] runs is refused.

use std::cmp::Ordering;

use super::as_of::AsOf;
use super::need::Need;
use super::rate_intervals::{first_rate_time, items, rate_spans};
use super::resolve::Leg;
use super::window::window_start;
use super::{Answer, QueryError, Range, Reader};
use crate::analysis::{Legs, RoundedRate};
use crate::domain::{Pair, Rate, RateSpan, SeriesKey, Source, Span, Timestamp};
use crate::store::SeriesView;

/// The maximum number of runs, or of observed instants, that one request reads: about one second of reading.
pub const DOWNSAMPLE_ITEMS_MAX: u64 = 20_000_000;
/// The maximum number of exact steps is this number times the number of columns. If a series has more steps, the steps
/// in each column are merged.
const STEPS_PER_COLUMN: usize = 2;

/// A request for a downsampled series that ends now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DownsampleRequest {
    /// The published pair, or its inverse.
    pub pair: Pair,
    /// The source. `None` means the source that the choice rule selects.
    pub source: Option<Source>,
    /// The length of the range. `None` means the whole series.
    pub window: Option<Span>,
    /// The number of columns of equal width that the range is divided into, at least one.
    pub columns: u32,
}

/// A part of the range that has one published rate, or several published rates that begin in the same column and were
/// merged. A step lasts until the next step begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The time at which the first rate of the step came into force, or the start of the range if that is later.
    pub from: Timestamp,
    /// The lowest rate of the step.
    pub lowest: Rate,
    /// The highest rate of the step.
    pub highest: Rate,
    /// The last rate of the step, in force until the next step.
    pub last: Rate,
}

/// The lowest or the highest rate of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extreme {
    /// The first time in the range at which the rate was in force.
    pub time: Timestamp,
    /// The published rate.
    pub rate: Rate,
}

/// A gap without observations that is longer than the stale limit of the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silence {
    /// The last observation before the gap, or the start of the range if that is later.
    pub from: Timestamp,
    /// The first observation after the gap, or now.
    pub until: Timestamp,
}

/// The published rates of a series over a range, reduced to steps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DownsampledSeries {
    /// The published series.
    pub series: SeriesKey,
    /// Whether the requested pair is the inverse of the published pair. The rates are always the published rates.
    pub inverted: bool,
    /// From the start of the window, or the first observation if the request has no window, to now.
    pub range: Range,
    /// The steps, in order of time. Empty if the series has no rate yet.
    pub steps: Vec<Step>,
    /// Whether each step has exactly one rate.
    pub is_exact: bool,
    /// The number of moves. A rate with an equal value and a different number of decimal places is no move.
    pub move_count: u64,
    /// The lowest rate in force in the range.
    pub lowest: Option<Extreme>,
    /// The highest rate in force in the range.
    pub highest: Option<Extreme>,
    /// The silences, in order of time. Silences narrower than a column are left out, except a silence that lasts until
    /// now.
    pub silences: Vec<Silence>,
    /// The stale limit of the source, microseconds.
    pub stale_limit_us: i64,
}

fn compare(one: Rate, other: Rate) -> Ordering {
    RoundedRate::published(one).cmp_number(RoundedRate::published(other))
}

/// Reduces rate spans to steps and extremes. The spans must come in order of time.
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

    /// Returns the silences between `start` and `now`.
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

/// Counts the items that are read, and refuses more than [`DOWNSAMPLE_ITEMS_MAX`].
struct Budget(u64);

impl Budget {
    fn spend(&mut self) -> Result<(), QueryError> {
        self.0 += 1;
        if self.0 > DOWNSAMPLE_ITEMS_MAX {
            let problem = format!(
                "needs more than {DOWNSAMPLE_ITEMS_MAX} runs or observations; use a shorter range, or request candles"
            );
            return Err(QueryError::invalid("range", problem));
        }
        Ok(())
    }
}

impl Reader {
    /// Returns the downsampled series of a pair that is published or has a published inverse.
    ///
    /// # Errors
    /// `UnknownSeries` or `Ambiguous` if no series can be chosen; `InvalidArgument` if the pair is a cross, which has
    /// no published digits, or if the range has too many runs; `Cancelled` after cancellation; `Store` if reading the
    /// store fails.
    pub fn downsample(&self, request: &DownsampleRequest) -> Result<Answer<DownsampledSeries>, QueryError> {
        let as_of = self.as_of(None)?;
        let route = self.resolve(&as_of, request.pair, request.source.as_ref(), &[], &Need::at(as_of.now))?;
        let Legs::One(leg) = &route else {
            let problem = format!("{} is a cross rate and is not published; request its legs", request.pair);
            return Err(QueryError::invalid("pair", problem));
        };
        let start = match request.window {
            Some(window) => window_start(window, as_of.now)?,
            None => first_rate_time(&as_of, &route)?.unwrap_or(as_of.now).min(as_of.now),
        };
        let span_us = as_of.now.micros_since(start).max(1);
        let column_us = span_us / i64::from(request.columns.max(1)) + 1;
        let stale_limit_us = self.rules.stale_limit_us(leg.series.key());
        let mut silence_finder =
            SilenceFinder { limit_us: stale_limit_us, column_us, observed_until: None, silences: Vec::new() };
        let mut downsampler = Downsampler::new(start, column_us, request.columns);
        // A run may contain gaps up to the length of the collapse window. If the collapse window is longer than the
        // stale limit, such a gap may be a silence, so every instant is read.
        let by_instant = leg.series.collapse_window_us() > stale_limit_us;
        let mut budget = Budget(0);
        for span in items(rate_spans(&as_of, leg, start, as_of.now.saturating_add_us(1))?, self.cancel.clone()) {
            let span = span?;
            budget.spend()?;
            downsampler.take(&span);
            if !by_instant {
                silence_finder.observe(span.first_observed_time, span.last_observed_time);
            }
        }
        if by_instant {
            self.observe_instants(&as_of, leg, start, &mut silence_finder)?;
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
            silences: silence_finder.finish(start, as_of.now),
            stale_limit_us,
        };
        Ok(Answer { commit: as_of.commit, body: downsampled })
    }

    fn observe_instants(
        &self,
        as_of: &AsOf,
        leg: &Leg<std::sync::Arc<SeriesView>>,
        start: Timestamp,
        silence_finder: &mut SilenceFinder,
    ) -> Result<(), QueryError> {
        // The last instant before `start` belongs to the run in force just before `start`. If this run ends before
        // `start`, the end of the run is that instant. Else that instant is at most a collapse window before `start`,
        // because no gap inside a run is longer.
        let run = leg.series.run_at(start.saturating_add_us(-1), as_of.known())?;
        let from = run
            .map_or(start, |run| run.last_observed_time.min(start).saturating_add_us(-leg.series.collapse_window_us()));
        let mut budget = Budget(0);
        for instant in items(leg.series.instants(from, as_of.now.saturating_add_us(1)), self.cancel.clone()) {
            let instant = instant?;
            budget.spend()?;
            silence_finder.observe(instant, instant);
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
    fn few_steps_stay_exact() {
        let downsampler =
            downsampled(&[span(50, "5.0"), span(110, "5.0"), span(120, "5.1"), span(130, "5.10")], 10, 10);
        let steps: Vec<String> =
            downsampler.steps.iter().map(|step| format!("{} {}", step.from.micros(), step.last)).collect();
        // The step of a rate that is in force before the range begins at the start of the range. If only the number of
        // places changes, a new step begins, but this is not a move.
        assert_eq!(steps, ["100 5.0", "120 5.1", "130 5.10"]);
        assert!(downsampler.is_exact);
        assert_eq!(downsampler.move_count, 1);
    }

    #[test]
    fn merged_steps_keep_extremes() {
        // Two spikes of one microsecond, 99 and 0.01, among ten thousand steps.
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
        let position = |text: &str, rate_of: fn(&Step) -> Rate| {
            let rate = Rate::parse(text).unwrap();
            downsampler.steps.iter().position(|step| rate_of(step) == rate)
        };
        assert_eq!(position("99", |step| step.highest), Some(15));
        assert_eq!(position("0.01", |step| step.lowest), Some(6));
        assert_eq!(downsampler.highest.map(|extreme| extreme.time), Some(at(7_877)));
        assert_eq!(downsampler.lowest.map(|extreme| extreme.time), Some(at(3_433)));
        assert_eq!(downsampler.steps.last().map(|step| step.last.to_string()).as_deref(), Some("5.1"));
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
}
