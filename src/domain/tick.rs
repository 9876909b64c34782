//! One observation, and what of it is compared.

use super::rate::{Rate, ReportedChange};
use super::series::SeriesKey;
use super::time::Timestamp;

/// What a source published at an instant: two are equal only if rate, places and reported change are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PublishedValue {
    /// With its published places.
    pub rate: Rate,
    /// The percentage printed beside it, if any.
    pub reported_change: Option<ReportedChange>,
}

/// One observation of a series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tick {
    /// The pair and who published it.
    pub series: SeriesKey,
    /// When the source showed it.
    pub observed_time: Timestamp,
    /// What it showed.
    pub value: PublishedValue,
}
