//! What each source has brought: its series, how new they are, and what its last poll found.
//!
//! **Invariant**: answered from what is in memory of each series; no block is read.

use std::collections::BTreeMap;

use super::{Answer, QueryError, Reader, check_cancelled};
use crate::domain::{PollSpan, Source, Timestamp};

/// What the series of a source come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SourceStatistics {
    /// Series that have an observation.
    pub series_count: u32,
    /// The newest observation of all, which may lie ahead.
    pub last_observed_time: Option<Timestamp>,
    /// When the newest of the series' newest runs was recorded.
    pub last_recorded_time: Option<Timestamp>,
    /// The last polls of the feed, which all found the same.
    pub polls: Option<PollSpan>,
}

impl Reader {
    /// What sources have brought up to the newest commit; those without a series and without a poll are not among them.
    ///
    /// # Errors
    /// The caller gone, or the store's.
    pub fn source_statistics(&self) -> Result<Answer<BTreeMap<Source, SourceStatistics>>, QueryError> {
        let mut sources: BTreeMap<Source, SourceStatistics> = BTreeMap::new();
        for series in self.view.series() {
            check_cancelled(&self.cancel)?;
            let Some(newest) = series.run_at(Timestamp::from_micros(i64::MAX), self.view.commit.recorded_time)? else {
                continue;
            };
            let source_statistics = sources.entry(series.key().source.clone()).or_default();
            source_statistics.series_count = source_statistics.series_count.saturating_add(1);
            source_statistics.last_observed_time =
                source_statistics.last_observed_time.max(Some(newest.last_observed_time));
            source_statistics.last_recorded_time = source_statistics.last_recorded_time.max(Some(newest.recorded_time));
        }
        for record in self.view.all_polls() {
            sources.entry(record.source().clone()).or_default().polls = record.newest().copied();
        }
        Ok(Answer { commit: self.view.commit, body: sources })
    }
}
