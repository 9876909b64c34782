//! The questions that readers ask, answered from one view: rates as of a moment, changes, candles, history,
//! revisions.
//!
//! **Invariant**: an answer comes from one commit and names it. Nothing here asks what time it is, knows the wire, or
//! rounds: digits are `analysis`'s matter.
//!
//! All methods of [`Reader`] but its construction may read and decode blocks: call them on blocking threads.
//! [`latest`] alone answers from memory.

mod as_of;
mod bucket_paging;
mod candles;
mod changes;
mod compare;
mod downsample;
mod error;
mod gaps;
mod history;
mod latest;
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
pub use downsample::{DOWNSAMPLE_ITEMS_MAX, DownsampleRequest, DownsampledSeries, Extreme, Silence, Step};
pub use error::QueryError;
pub use gaps::{Gap, GapCursor, GapsPage, GapsRequest};
pub use history::{
    Page, Range, RevisionCursor, RevisionsRequest, RunStream, RunsPage, RunsRequest, SeriesInfo, SeriesRequest,
};
#[cfg(test)]
pub(crate) use latest::tests as latest_tests;
pub use latest::{SeriesFilter, latest};
pub use quarantine::{QuarantinePage, QuarantineRequest};
pub use quote_changes::{QuoteChanges, WindowChange};
pub use rate::{Change, ChangeRequest, RateAnswer, RateRequest};
pub use resolve::Derivation;
pub use snapshot::{CandleBuckets, Snapshot, SnapshotRequest};
pub use source_statistics::SourceStatistics;
pub use window::ChangeStart;

use tokio_util::sync::CancellationToken;

use crate::domain::Timestamp;
use crate::latest_quotes::{LatestQuotes, StateRules};
use crate::sources::SourceTable;
use crate::store::{Commit, View};

/// An answer, and the commit that it was read from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer<T> {
    /// What the answer saw: its recorded time, given as `known_time`, repeats it.
    pub commit: Commit,
    /// The answer.
    pub body: T,
}

/// Asked between pieces of a long scan.
///
/// # Errors
/// `Stopped` once the caller has gone, or its time is up.
fn check_cancelled(cancel: &CancellationToken) -> Result<(), QueryError> {
    if cancel.is_cancelled() { Err(QueryError::Stopped) } else { Ok(()) }
}

/// Answers from one view.
#[derive(Clone)]
pub struct Reader {
    view: Arc<View>,
    now: Timestamp,
    rules: Arc<StateRules>,
    sources: Arc<SourceTable>,
    cancel: CancellationToken,
}

impl Reader {
    /// Over `view`, it being `now`; long scans end once `cancel` is cancelled.
    pub fn new(view: Arc<View>, now: Timestamp, rules: Arc<StateRules>, cancel: CancellationToken) -> Self {
        Self { view, now, rules, sources: Arc::default(), cancel }
    }

    /// The same answers, where several sources have a pair and none is named, of the one that `sources` prefers.
    #[must_use]
    pub fn preferring(self, sources: &Arc<SourceTable>) -> Self {
        Self { sources: Arc::clone(sources), ..self }
    }

    /// The same answers, whose long scans end once `cancel` is cancelled instead.
    #[must_use]
    pub fn until(self, cancel: CancellationToken) -> Self {
        Self { cancel, ..self }
    }

    /// The latest quotes of what it sees.
    pub fn latest_quotes(&self) -> &Arc<LatestQuotes> {
        &self.view.latest_quotes
    }
}
