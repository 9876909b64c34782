//! Read queries over one view of the store: rates as of a time, changes, candles, history, revisions, gaps and exports.
//!
//! **Invariant**: an answer comes from one commit and names that commit. This module does not read the clock, does not
//! depend on a wire format and does not round numbers. The module `analysis` rounds them.
//!
//! The methods of [`Reader`] may read and decode blocks: call them on blocking threads. The constructors,
//! [`Reader::latest_quotes`] and [`Reader::held_count`] only read memory, and so does [`latest`].

mod as_of;
mod bucket_paging;
mod candles;
mod changes;
mod choice;
mod compare;
mod downsample;
mod error;
mod gaps;
mod history;
mod latest;
mod moment;
mod need;
mod observed_day;
mod quarantine;
mod quote_changes;
mod rate;
mod rate_intervals;
mod resolve;
mod snapshot;
mod source_statistics;
mod window;

use std::sync::Arc;

pub use bucket_paging::{BUCKETS_MAX, BucketCursor, BucketsRequest, EXPORT_BUCKETS_MAX};
pub use candles::{CandleRow, CandlesPage, CandlesRequest};
pub use changes::{ChangesPage, ChangesRequest, Period, PeriodChange};
pub use compare::{COMPARED_DAYS_MAX, ComparePage, CompareRequest, ComparedDay, ComparedDays};
pub use downsample::{DOWNSAMPLE_ITEMS_MAX, DownsampleRequest, DownsampledSeries, Extreme, PairRate, Silence, Step};
pub use error::QueryError;
pub use gaps::{Gap, GapCursor, GapsPage, GapsRequest};
pub use history::{
    Page, Range, RevisionCursor, RevisionsRequest, RunStream, RunsPage, RunsRequest, SeriesInfo, SeriesRequest,
};
#[cfg(test)]
pub(crate) use latest::tests as latest_tests;
pub use latest::{SeriesFilter, latest};
pub use moment::{Moment, MomentRange};
pub use observed_day::ObservedDay;
pub use quarantine::{QuarantinePage, QuarantineRequest};
pub use quote_changes::{QuoteChanges, WindowChange};
pub use rate::{Change, ChangeRequest, RateAnswer, RateRequest};
pub use resolve::{AnsweringLeg, Derivation};
pub use snapshot::{Snapshot, SnapshotBuckets, SnapshotRequest};
pub use source_statistics::SourceStatistics;
pub use window::ChangeStart;

use tokio_util::sync::CancellationToken;

use crate::analysis::Zone;
use crate::domain::{Source, Timestamp};
use crate::latest_quotes::{LatestQuotes, StateRules};
use crate::sources::SourceTable;
use crate::store::{Commit, View};

/// An answer and the commit that it was read from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer<T> {
    /// The commit that was read. A later request with the recorded time of this commit as `known_time` reads the same
    /// commit. Only confirmations that arrive later may change its answer.
    pub commit: Commit,
    /// The content of the answer.
    pub body: T,
}

/// Checks for cancellation between two pieces of a long scan.
///
/// # Errors
/// Returns `Cancelled` after the client disconnected or its deadline passed.
fn check_cancelled(cancel: &CancellationToken) -> Result<(), QueryError> {
    if cancel.is_cancelled() { Err(QueryError::Cancelled) } else { Ok(()) }
}

/// Answers queries from one view of the store.
#[derive(Clone)]
pub struct Reader {
    view: Arc<View>,
    now: Timestamp,
    rules: Arc<StateRules>,
    sources: Arc<SourceTable>,
    is_strict: bool,
    cancel: CancellationToken,
}

impl Reader {
    /// Creates a reader of `view` that takes `now` as the current time. Long scans end when `cancel` is cancelled.
    pub fn new(view: Arc<View>, now: Timestamp, rules: Arc<StateRules>, cancel: CancellationToken) -> Self {
        Self { view, now, rules, sources: Arc::default(), is_strict: false, cancel }
    }

    /// Sets the table of sources. If several sources have a pair and a request names no source, the reader uses the
    /// source that the table prefers.
    #[must_use]
    pub fn with_sources(self, sources: &Arc<SourceTable>) -> Self {
        Self { sources: Arc::clone(sources), is_strict: sources.is_strict(), ..self }
    }

    /// Returns the time zone of the days of an answer: `requested`, or else the zone of the source.
    pub fn zone_of_source(&self, source: &Source, requested: Option<Zone>) -> Zone {
        requested.unwrap_or_else(|| self.sources.of(source).zone.value)
    }

    /// Returns a reader for a request that is strict: if it names no source, several candidates are an error. Without
    /// `is_strict`, the setting of the table of sources decides.
    #[must_use]
    pub fn strict(&self, is_strict: bool) -> Self {
        Self { is_strict: self.is_strict || is_strict, ..self.clone() }
    }

    /// Replaces the cancellation token that ends long scans.
    #[must_use]
    pub fn with_cancellation(self, cancel: CancellationToken) -> Self {
        Self { cancel, ..self }
    }

    /// The latest quotes of the view.
    pub fn latest_quotes(&self) -> &Arc<LatestQuotes> {
        &self.view.latest_quotes
    }
}
