//! Source statistics: for each source, the number of series, the newest times of the series, and the result of the last
//! polls of the source.
//!
//! **Invariant**: the statistics come from the part of each series that is in memory. No block is read.

use std::collections::BTreeMap;

use super::{Answer, QueryError, Reader, check_cancelled};
use crate::domain::{ArchiveDecision, PollSpan, Source, Timestamp};

/// The statistics of one source.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceStatistics {
    /// The number of series that have an observation.
    pub series_count: u32,
    /// The newest observed time of all series, which may be in the future.
    pub last_observed_time: Option<Timestamp>,
    /// The latest recorded time among the last runs of the series.
    pub last_recorded_time: Option<Timestamp>,
    /// The last poll span of the feed: consecutive polls with the same result.
    pub polls: Option<PollSpan>,
    /// The last decision to archive or unarchive the source.
    pub archive: Option<ArchiveDecision>,
}

impl Reader {
    /// Returns the statistics of all sources at the newest commit. A source without a series and without a poll is not
    /// included.
    ///
    /// # Errors
    /// `Cancelled` after cancellation; `Store` if reading the store fails.
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
        for (source, source_statistics) in &mut sources {
            source_statistics.archive = self.view.archived().decision_at(source, Timestamp::MAX).cloned();
        }
        Ok(Answer { commit: self.view.commit, body: sources })
    }
}
