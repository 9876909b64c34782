//! What an export reads: many series at one commit.

use std::sync::Arc;

use super::history::Range;
use super::latest::SeriesFilter;
use super::resolve::listing;
use super::{QueryError, Reader, Stop};
use crate::domain::{Run, Timestamp};
use crate::store::{Commit, ScanOrder, SeriesView, StoreError, View};

/// Asks for a part of the store as of one commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotRequest {
    /// Of these series. Every pair and source named must have been published.
    pub filter: SeriesFilter,
    /// Of first observed times.
    pub range: Range,
    /// As known at.
    pub known_time: Option<Timestamp>,
}

/// Some series at one commit. Every read of it sees that commit, however late it is made.
pub struct Snapshot {
    /// What it sees.
    pub commit: Commit,
    /// The store, to read what has no known time: commits.
    pub view: Arc<View>,
    /// Those asked for, in order of pair and source.
    pub series: Vec<Arc<SeriesView>>,
    range: Range,
    /// Whether all of the history as it is known now was asked for.
    is_whole: bool,
    stop: Stop,
}

impl Snapshot {
    /// Of first observed times, as asked for.
    pub fn range(&self) -> Range {
        self.range
    }

    /// How many runs all series have in the range, where that is known without reading them.
    ///
    /// # Errors
    /// The store's.
    pub fn run_count(&self) -> Result<Option<u64>, StoreError> {
        if !self.is_whole {
            return Ok(None);
        }
        let mut count = 0;
        for series in &self.series {
            count += series.totals(self.commit.recorded_time)?.map_or(0, |totals| totals.run_count);
        }
        Ok(Some(count))
    }

    /// The runs of one of the series that begin in `[start, end)`, oldest first, in pieces that are never empty. Each step blocks.
    ///
    /// # Errors
    /// The store's, here or as an item; `Stopped` as an item once the caller has gone.
    pub fn runs(
        &self,
        series: &Arc<SeriesView>,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<impl Iterator<Item = Result<Vec<Run>, QueryError>> + use<'_>, QueryError> {
        let pieces = series.runs(start, end, self.commit.recorded_time, ScanOrder::Ascending)?;
        Ok(self.until_stopped(pieces))
    }

    /// The last run of one of the series that began before `time`.
    ///
    /// # Errors
    /// The store's.
    pub fn run_before(&self, series: &SeriesView, time: Timestamp) -> Result<Option<Run>, QueryError> {
        Ok(series.run_at(time.saturating_add_us(-1), self.commit.recorded_time)?)
    }

    /// The same pieces for as long as somebody waits for them.
    pub fn until_stopped<T>(
        &self,
        pieces: impl Iterator<Item = Result<T, StoreError>>,
    ) -> impl Iterator<Item = Result<T, QueryError>> {
        pieces.map(|piece| {
            self.stop.check()?;
            Ok(piece?)
        })
    }
}

impl Reader {
    /// Pins a commit, and finds the series asked for.
    ///
    /// # Errors
    /// A pair or a source that was not published by then, or the store's.
    pub fn snapshot(&self, request: &SnapshotRequest) -> Result<Snapshot, QueryError> {
        let pin = self.pin(request.known_time)?;
        let known = self.known_keys(&pin, |_| true)?;
        for pair in &request.filter.pairs {
            if !known.iter().any(|key| key.pair == *pair) {
                let there_are = listing(&known);
                return Err(QueryError::UnknownSeries {
                    pair: *pair,
                    wanted_source: None,
                    missing_legs: Vec::new(),
                    there_are,
                });
            }
        }
        for source in &request.filter.sources {
            if !known.iter().any(|key| key.source == *source) {
                return Err(QueryError::UnknownSource { wanted: source.clone(), there_are: listing(&known) });
            }
        }
        let wanted = known.iter().filter(|key| request.filter.lets(key));
        Ok(Snapshot {
            commit: pin.commit,
            view: Arc::clone(&self.view),
            series: wanted.filter_map(|key| self.view.find(key)).map(Arc::clone).collect(),
            range: request.range,
            is_whole: pin.newest && request.range == Range::default(),
            stop: self.stop.clone(),
        })
    }
}
