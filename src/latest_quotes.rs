//! The immutable latest quotes, and the rule by which a series is stale, pegged, moving or flat.
//!
//! **Invariant**: a latest quotes is what one commit made true; time alone changes it only by a commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::{Rate, Run, SeriesKey, Source, Timestamp};

/// What a series is doing; the first that applies, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RateState {
    /// Not confirmed within its source's stale limit.
    Stale,
    /// One rate for 180 days or more, published finely enough for that to mean something.
    Pegged,
    /// Moved within the moving window.
    Moving,
    /// None of these.
    Flat,
}

impl RateState {
    /// All states, in the order in which they apply.
    pub const ALL: [Self; 4] = [Self::Stale, Self::Pegged, Self::Moving, Self::Flat];

    /// Its name in messages and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stale => "STALE",
            Self::Pegged => "PEGGED",
            Self::Moving => "MOVING",
            Self::Flat => "FLAT",
        }
    }
}

/// The settings that states depend on. All durations in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StateRules {
    /// After how long without confirmation a rate is stale, for sources without a limit of their own.
    pub stale_limit_default_us: i64,
    /// The same for single sources.
    pub stale_limits_us: BTreeMap<Source, i64>,
    /// For how long after a move a series is moving.
    pub moving_window_us: i64,
}

impl StateRules {
    /// How long one rate must have held to be called pegged.
    pub const PEGGED_AFTER_US: i64 = 180 * Timestamp::DAY_US;

    /// After how long without confirmation a rate of `source` is stale.
    pub fn stale_limit_us(&self, source: &Source) -> i64 {
        self.stale_limits_us.get(source).copied().unwrap_or(self.stale_limit_default_us)
    }

    /// When a rate last confirmed by `run` becomes stale.
    pub fn stale_time(&self, series: &SeriesKey, run: &Run) -> Timestamp {
        run.last_observed_time.saturating_add_us(self.stale_limit_us(&series.source))
    }

    /// The state at `now` of a series with `run` in force, its rate unbroken since `since` and moved
    /// at `moved` (`None`: never).
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
        } else if run.value.rate.is_fine() && now >= since.saturating_add_us(Self::PEGGED_AFTER_US) {
            RateState::Pegged
        } else if moved.is_some_and(|moved| now < moved.saturating_add_us(self.moving_window_us)) {
            RateState::Moving
        } else {
            RateState::Flat
        }
    }

    /// The first moment after `now` at which time alone may change that state.
    pub fn next_change(
        &self,
        series: &SeriesKey,
        run: &Run,
        moved: Option<Timestamp>,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let moments = [
            Some(self.stale_time(series, run)),
            Some(since.saturating_add_us(Self::PEGGED_AFTER_US)),
            moved.map(|moved| moved.saturating_add_us(self.moving_window_us)),
        ];
        moments.into_iter().flatten().filter(|moment| *moment > now).min()
    }
}

/// The latest quote of one series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LatestQuote {
    /// Whose.
    pub series: SeriesKey,
    /// The run in force, never one that begins in the future.
    pub run: Run,
    /// At the commit.
    pub state: RateState,
    /// When it becomes stale unless confirmed.
    pub stale_time: Timestamp,
    /// When the present rate began; absent if the rate never moved.
    pub moved_time: Option<Timestamp>,
    /// The rate before.
    pub previous_rate: Option<Rate>,
    /// The sequence at which any of this last changed.
    pub changed_sequence: u64,
}

impl LatestQuote {
    /// Whether both say the same, whenever they came to say it.
    pub fn says_same(&self, other: &Self) -> bool {
        *self == Self { changed_sequence: self.changed_sequence, ..other.clone() }
    }
}

/// The latest quotes at one commit.
#[derive(Clone, Debug, Default)]
pub struct LatestQuotes {
    /// Of the commit.
    pub sequence: u64,
    /// Of the commit.
    pub recorded_time: Timestamp,
    /// Recorded time of the newest commit that held ticks.
    pub last_ingest_time: Option<Timestamp>,
    /// Sorted by series.
    pub quotes: Vec<Arc<LatestQuote>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CurrencySet, Pair, PublishedValue};

    const HOUR: i64 = Timestamp::HOUR_US;
    const DAY: i64 = Timestamp::DAY_US;

    #[test]
    fn the_first_state_that_applies() {
        let rules = StateRules {
            stale_limit_default_us: 2 * HOUR,
            stale_limits_us: BTreeMap::from([(Source::parse("nbkr").unwrap(), 5 * DAY)]),
            moving_window_us: DAY,
        };
        let check =
            |source: &str, rate: &str, since: i64, moved: Option<i64>, last: i64, now: i64, expect: RateState| {
                let series = SeriesKey {
                    pair: Pair::parse("TMT/USD", &CurrencySet::central_asia()).unwrap(),
                    source: Source::parse(source).unwrap(),
                };
                let value = PublishedValue { rate: Rate::parse(rate).unwrap(), reported_change: None };
                let mut run = Run::single(Timestamp::from_micros(since), value, Timestamp::default());
                run.last_observed_time = Timestamp::from_micros(last);
                let moved = moved.map(Timestamp::from_micros);
                let since = Timestamp::from_micros(since);
                let now = Timestamp::from_micros(now);
                assert_eq!(rules.state(&series, &run, moved, since, now), expect, "{source} {rate} at {now}");
                // No state may change between now and the moment said.
                if let Some(next) = rules.next_change(&series, &run, moved, since, now) {
                    assert_eq!(rules.state(&series, &run, moved, since, next.saturating_add_us(-1)), expect);
                }
            };
        check("timesca", "0.28490", 0, Some(0), 0, HOUR, RateState::Moving);
        check("timesca", "0.28490", 0, Some(0), 0, 2 * HOUR - 1, RateState::Moving);
        check("timesca", "0.28490", 0, Some(0), 0, 2 * HOUR, RateState::Stale);
        check("nbkr", "0.28490", 0, Some(0), 0, DAY - 1, RateState::Moving);
        check("nbkr", "0.28490", 0, Some(0), 0, DAY, RateState::Flat);
        check("nbkr", "0.28490", 0, None, 0, 0, RateState::Flat);
        check("timesca", "0.28490", 0, None, 180 * DAY, 180 * DAY, RateState::Pegged);
        check("timesca", "0.28490", 0, None, 180 * DAY, 180 * DAY - 1, RateState::Flat);
        // One unit in the last place is over 0.1 % of it: standing still says nothing.
        check("timesca", "0.00008", 0, None, 400 * DAY, 400 * DAY, RateState::Flat);
        check("timesca", "0.01000", 0, None, 400 * DAY, 400 * DAY, RateState::Pegged);
        check("timesca", "0.00999", 0, None, 400 * DAY, 400 * DAY, RateState::Flat);
    }
}
