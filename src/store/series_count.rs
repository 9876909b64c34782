//! How many series of a store count towards the maximum: those of sources that are not archived.

use super::Store;
use super::series::Series;
use crate::domain::{SeriesKey, Timestamp};

/// Maximum number of series of a store, those of archived sources included.
pub(super) const STORED_SERIES_MAX: usize = 100_000;

/// The number of series that count, among the first `seen` series of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct CountedSeries {
    seen: usize,
    count: usize,
    /// Number of archive decisions at the count. A further decision changes which series count.
    decisions: u64,
}

impl Store {
    /// Returns the number of series that count. Only series that are new since the last call are looked at, so that many
    /// new series take linear time.
    pub(super) fn count_series(&mut self) -> usize {
        let Self { series, archive, counted, .. } = self;
        if counted.decisions != archive.count() {
            *counted = CountedSeries { decisions: archive.count(), ..CountedSeries::default() };
        }
        let new = series.get(counted.seen..).unwrap_or_default().iter();
        let is_counted = |series: &&Series| !archive.sources().is_archived(&series.key.source, Timestamp::MAX);
        counted.count += new.filter(is_counted).count();
        counted.seen = series.len();
        counted.count
    }

    /// Iterates over the keys of the series that count.
    pub(super) fn counted_keys(&self) -> impl Iterator<Item = &SeriesKey> {
        let archived = self.archive.sources();
        let keys = self.series.iter().map(|series| &*series.key);
        keys.filter(|key| !archived.is_archived(&key.source, Timestamp::MAX))
    }
}
