//! The latest quotes of a commit, and the rules that determine whether a series is stale, pegged, moving or flat.
//!
//! **Invariant**: latest quotes belong to one commit and never change. If a quote changes with time alone, a new commit
//! contains the new quote.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::{Rate, Run, SeriesKey, Source, Timestamp};

/// The state of a rate. A series has the first state that applies, in the order of the variants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RateState {
    /// The rate was not confirmed within the stale limit of its source.
    Stale,
    /// The rate has not moved for 180 days or more, and one unit in its last place is at most 0.1 % of it.
    Pegged,
    /// The rate moved within the moving window.
    Moving,
    /// No other state applies.
    Flat,
}

impl RateState {
    /// Every state, in the order in which they apply.
    pub const ALL: [Self; 4] = [Self::Stale, Self::Pegged, Self::Moving, Self::Flat];

    /// Returns the name of the state in messages and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stale => "STALE",
            Self::Pegged => "PEGGED",
            Self::Moving => "MOVING",
            Self::Flat => "FLAT",
        }
    }
}

/// The settings that determine states. All durations are in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StateRules {
    /// Default stale limit: a rate without confirmation for this long is stale.
    pub stale_limit_default_us: i64,
    /// Stale limits by source. They take precedence over the default.
    pub stale_limits_us: BTreeMap<Source, i64>,
    /// Stale limits of single series. They take precedence over the limit of the source.
    pub series_stale_limits_us: BTreeMap<SeriesKey, i64>,
    /// Default moving window: a series is moving for this long after a move.
    pub moving_window_default_us: i64,
    /// Moving windows by source. They take precedence over the default.
    pub moving_windows_us: BTreeMap<Source, i64>,
}

impl StateRules {
    /// How long a rate must stay unchanged to be pegged.
    pub const PEGGED_AFTER_US: i64 = 180 * Timestamp::DAY_US;

    /// Returns the rules with the same limits, in microseconds, for every source.
    pub const fn uniform(stale_limit_us: i64, moving_window_us: i64) -> Self {
        Self {
            stale_limit_default_us: stale_limit_us,
            stale_limits_us: BTreeMap::new(),
            series_stale_limits_us: BTreeMap::new(),
            moving_window_default_us: moving_window_us,
            moving_windows_us: BTreeMap::new(),
        }
    }

    /// Returns the stale limit of `series`, in microseconds.
    pub fn stale_limit_us(&self, series: &SeriesKey) -> i64 {
        let of_series = self.series_stale_limits_us.get(series);
        let limit_us = of_series.or_else(|| self.stale_limits_us.get(&series.source));
        limit_us.copied().unwrap_or(self.stale_limit_default_us)
    }

    /// Returns the moving window of `source`, in microseconds.
    pub fn moving_window_us(&self, source: &Source) -> i64 {
        self.moving_windows_us.get(source).copied().unwrap_or(self.moving_window_default_us)
    }

    /// Returns when the rate of `run` becomes stale, if no later observation confirms it.
    pub fn stale_time(&self, series: &SeriesKey, run: &Run) -> Timestamp {
        run.last_observed_time.saturating_add_us(self.stale_limit_us(series))
    }

    /// Returns the state at `now` of a series with `run` in force. `since` is the time at which the rate of `run`
    /// began. `moved` is the time of the last move, or `None` if the rate never moved.
    pub fn state(
        &self,
        series: &SeriesKey,
        run: &Run,
        moved: Option<Timestamp>,
        since: Timestamp,
        now: Timestamp,
    ) -> RateState {
        if now >= self.stale_time(series, run) {
            RateState::Stale
        } else if run.value.rate.has_fine_resolution() && now >= since.saturating_add_us(Self::PEGGED_AFTER_US) {
            RateState::Pegged
        } else if moved.is_some_and(|moved| now < moved.saturating_add_us(self.moving_window_us(&series.source))) {
            RateState::Moving
        } else {
            RateState::Flat
        }
    }

    /// Returns the first time after `now` at which the result of [`Self::state`] may change without a new tick.
    pub fn next_change(
        &self,
        series: &SeriesKey,
        run: &Run,
        moved: Option<Timestamp>,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let times = [
            Some(self.stale_time(series, run)),
            Some(since.saturating_add_us(Self::PEGGED_AFTER_US)),
            moved.map(|moved| moved.saturating_add_us(self.moving_window_us(&series.source))),
        ];
        times.into_iter().flatten().filter(|time| *time > now).min()
    }
}

/// The latest quote of one series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LatestQuote {
    /// The series of the quote.
    pub series: SeriesKey,
    /// The run in force. It never begins after the commit's recorded time.
    pub run: Run,
    /// The state of the rate at the commit.
    pub state: RateState,
    /// Whether the source is archived at the commit.
    pub is_archived: bool,
    /// When the rate becomes stale, if no later observation confirms it.
    pub stale_time: Timestamp,
    /// When the present rate began; `None` if the rate never moved.
    pub moved_time: Option<Timestamp>,
    /// The rate before the present rate; `None` if the rate never moved.
    pub previous_rate: Option<Rate>,
    /// The sequence of the commit that last changed any other field of the quote.
    pub changed_sequence: u64,
}

impl LatestQuote {
    /// Returns true if both quotes are equal in all fields except `changed_sequence`.
    pub fn equals_ignoring_sequence(&self, other: &Self) -> bool {
        *self == Self { changed_sequence: self.changed_sequence, ..other.clone() }
    }
}

/// The latest quotes at one commit.
#[derive(Clone, Debug, Default)]
pub struct LatestQuotes {
    /// The sequence of the commit.
    pub sequence: u64,
    /// The recorded time of the commit.
    pub recorded_time: Timestamp,
    /// Recorded time of the newest commit with ticks; `None` if there is none.
    pub last_ingest_time: Option<Timestamp>,
    /// Quotes, sorted by series.
    pub quotes: Vec<Arc<LatestQuote>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CurrencySet, Pair, PublishedValue};

    const HOUR: i64 = Timestamp::HOUR_US;
    const DAY: i64 = Timestamp::DAY_US;

    fn series(pair: &str, source: &str) -> SeriesKey {
        let pair = Pair::parse(pair, &CurrencySet::central_asia()).unwrap();
        SeriesKey { pair, source: Source::parse(source).unwrap() }
    }

    #[test]
    fn stale_limit_of_a_series_precedes_that_of_its_source() {
        let rules = StateRules {
            stale_limits_us: BTreeMap::from([(Source::parse("nbkr").unwrap(), 5 * DAY)]),
            series_stale_limits_us: BTreeMap::from([(series("TMT/KGS", "nbkr"), 9 * DAY)]),
            ..StateRules::uniform(HOUR, DAY)
        };
        let limits = [("TMT/KGS", "nbkr"), ("USD/KGS", "nbkr"), ("TMT/KGS", "timesca")];
        let limits = limits.map(|(pair, source)| rules.stale_limit_us(&series(pair, source)));
        assert_eq!(limits, [9 * DAY, 5 * DAY, HOUR]);
    }

    #[test]
    fn state_is_first_that_applies() {
        let rules = StateRules {
            stale_limit_default_us: 2 * HOUR,
            stale_limits_us: BTreeMap::from([(Source::parse("nbkr").unwrap(), 5 * DAY)]),
            series_stale_limits_us: BTreeMap::new(),
            moving_window_default_us: DAY,
            moving_windows_us: BTreeMap::from([(Source::parse("nbkr").unwrap(), 4 * DAY)]),
        };
        let check =
            |source: &str, rate: &str, since: i64, moved: Option<i64>, last: i64, now: i64, expect: RateState| {
                let series = series("TMT/USD", source);
                let value = PublishedValue { rate: Rate::parse(rate).unwrap(), reported_change: None };
                let mut run = Run::single(Timestamp::from_micros(since), value, Timestamp::default());
                run.last_observed_time = Timestamp::from_micros(last);
                let moved = moved.map(Timestamp::from_micros);
                let since = Timestamp::from_micros(since);
                let now = Timestamp::from_micros(now);
                assert_eq!(rules.state(&series, &run, moved, since, now), expect, "{source} {rate} at {now}");
                // The state does not change between `now` and the next change.
                if let Some(next) = rules.next_change(&series, &run, moved, since, now) {
                    assert_eq!(rules.state(&series, &run, moved, since, next.saturating_add_us(-1)), expect);
                }
            };
        check("timesca", "0.28490", 0, Some(0), 0, HOUR, RateState::Moving);
        check("timesca", "0.28490", 0, Some(0), 0, 2 * HOUR - 1, RateState::Moving);
        check("timesca", "0.28490", 0, Some(0), 0, 2 * HOUR, RateState::Stale);
        // The moving window of the source takes precedence over the default. A move on Friday is recent on Sunday.
        check("nbkr", "0.28490", 0, Some(0), 0, 4 * DAY - 1, RateState::Moving);
        check("nbkr", "0.28490", 0, Some(0), 0, 4 * DAY, RateState::Flat);
        check("timesca", "0.28490", 0, Some(0), DAY, DAY - 1, RateState::Moving);
        check("timesca", "0.28490", 0, Some(0), DAY, DAY, RateState::Flat);
        check("nbkr", "0.28490", 0, None, 0, 0, RateState::Flat);
        check("timesca", "0.28490", 0, None, 180 * DAY, 180 * DAY, RateState::Pegged);
        check("timesca", "0.28490", 0, None, 180 * DAY, 180 * DAY - 1, RateState::Flat);
        // One unit in the last place is more than 0.1 % of the rate, so an unchanged rate is not pegged.
        check("timesca", "0.00008", 0, None, 400 * DAY, 400 * DAY, RateState::Flat);
        check("timesca", "0.01000", 0, None, 400 * DAY, 400 * DAY, RateState::Pegged);
        check("timesca", "0.00999", 0, None, 400 * DAY, 400 * DAY, RateState::Flat);
    }
}
