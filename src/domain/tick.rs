//! Ticks, which are single observations of a series, and their published values. Consecutive ticks can form one run
//! only if their published values are equal.

use super::rate::{Rate, ReportedChange};
use super::series::SeriesKey;
use super::time::Timestamp;

/// The value that a source published at an instant. Two values are equal if rate, decimal places and reported change
/// are all equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PublishedValue {
    /// The rate with its published decimal places.
    pub rate: Rate,
    /// The percentage that the source printed next to the rate, if any.
    pub reported_change: Option<ReportedChange>,
}

/// One observation of a series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tick {
    /// The pair and its source.
    pub series: SeriesKey,
    /// The time at which the source showed the value.
    pub observed_time: Timestamp,
    /// The value that the source showed.
    pub value: PublishedValue,
}
