//! Runs, and the rule by which ticks collapse into them.

use super::rate::Rate;
use super::tick::PublishedValue;
use super::time::Timestamp;

/// Consecutive ticks of a series with one published value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// First observation.
    pub first_observed_time: Timestamp,
    /// Last observation, inclusive.
    pub last_observed_time: Timestamp,
    /// How many observations, at least one.
    pub observation_count: u64,
    /// What all of them showed.
    pub value: PublishedValue,
    /// When this run came to be known.
    pub recorded_time: Timestamp,
}

impl Run {
    /// A run of one observation.
    pub fn single(observed_time: Timestamp, value: PublishedValue, recorded_time: Timestamp) -> Self {
        Self {
            first_observed_time: observed_time,
            last_observed_time: observed_time,
            observation_count: 1,
            value,
            recorded_time,
        }
    }

    /// Whether `time` lies between the first and the last observation, both inclusive.
    pub fn spans(&self, time: Timestamp) -> bool {
        self.first_observed_time <= time && time <= self.last_observed_time
    }

    /// Whether a run may take in a neighbouring observation of `value` that is `gap_us` away: equal
    /// values within the collapse window, inclusive.
    pub fn takes_in(&self, value: PublishedValue, gap_us: i64, collapse_window_us: i64) -> bool {
        self.value == value && gap_us <= collapse_window_us
    }
}

/// What a run says of the rate alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateSpan {
    /// First observation.
    pub first_observed_time: Timestamp,
    /// Last observation, inclusive.
    pub last_observed_time: Timestamp,
    /// The rate that all of them showed.
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

/// A run that later knowledge replaced: it was believed from its recorded time until this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revision {
    /// As it was believed.
    pub run: Run,
    /// The recorded time of the commit that replaced it.
    pub superseded_time: Timestamp,
}
