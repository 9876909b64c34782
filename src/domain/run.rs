//! Runs, and the rule by which a run absorbs a neighbouring tick.

use super::rate::Rate;
use super::tick::PublishedValue;
use super::time::Timestamp;

/// Consecutive ticks of a series with the same published value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// The time of the first observation.
    pub first_observed_time: Timestamp,
    /// The time of the last observation, inclusive.
    pub last_observed_time: Timestamp,
    /// The number of observations, at least one.
    pub observation_count: u64,
    /// The published value of all observations.
    pub value: PublishedValue,
    /// The recorded time of the commit that made this run.
    pub recorded_time: Timestamp,
}

impl Run {
    /// Makes a run of one observation.
    pub fn single(observed_time: Timestamp, value: PublishedValue, recorded_time: Timestamp) -> Self {
        Self {
            first_observed_time: observed_time,
            last_observed_time: observed_time,
            observation_count: 1,
            value,
            recorded_time,
        }
    }

    /// Returns true if `time` is between the first and the last observed time, both inclusive.
    pub fn spans(&self, time: Timestamp) -> bool {
        self.first_observed_time <= time && time <= self.last_observed_time
    }

    /// Returns true if this run absorbs a neighbouring observation of `value` that is `gap_us` away: the values are
    /// equal, and the gap is not longer than the collapse window.
    pub fn absorbs(&self, value: PublishedValue, gap_us: i64, collapse_window_us: i64) -> bool {
        self.value == value && gap_us <= collapse_window_us
    }
}

/// The rate of a run and its observed times, without the reported change and the count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateSpan {
    /// The time of the first observation.
    pub first_observed_time: Timestamp,
    /// The time of the last observation, inclusive.
    pub last_observed_time: Timestamp,
    /// The rate of all observations.
    pub rate: Rate,
}

impl From<Run> for RateSpan {
    fn from(run: Run) -> Self {
        Self {
            first_observed_time: run.first_observed_time,
            last_observed_time: run.last_observed_time,
            rate: run.value.rate,
        }
    }
}

/// A run that a later commit replaced. It was current from its recorded time until its superseded time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revision {
    /// The run before the replacement.
    pub run: Run,
    /// The recorded time of the commit that replaced the run.
    pub superseded_time: Timestamp,
}
