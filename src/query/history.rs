//! What was published over time: runs, revisions, and the series that there are.

use std::sync::Arc;

use super::as_of::AsOf;
use super::latest::SeriesFilter;
use super::{Answer, QueryError, Reader, check_cancelled};
use tokio_util::sync::CancellationToken;

use crate::domain::{Pair, Revision, Run, SeriesKey, Source, Timestamp};
use crate::latest_quotes::RateState;
use crate::store::{Commit, ScanOrder, SeriesTotals, SeriesView, StoreError};

/// Half-open: `[start, end)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    start: Timestamp,
    end: Timestamp,
}

impl Default for Range {
    /// All times.
    fn default() -> Self {
        // Later than any time that crosses the wire, so that an open range holds the last one too.
        const OPEN_END: Timestamp = Timestamp::from_micros(i64::MAX);
        Self { start: Timestamp::MIN, end: OPEN_END }
    }
}

impl Range {
    /// Open at a side that is not given. Equal ends hold nothing.
    ///
    /// # Errors
    /// `InvalidArgument` if it ends before it starts.
    pub fn new(start: Option<Timestamp>, end: Option<Timestamp>) -> Result<Self, QueryError> {
        let open = Self::default();
        let range = Self { start: start.unwrap_or(open.start), end: end.unwrap_or(open.end) };
        if range.end < range.start {
            let problem = format!("{} is before start_time {}; swap them", range.end, range.start);
            return Err(QueryError::invalid("end_time", problem));
        }
        Ok(range)
    }

    /// Its first instant.
    pub const fn start(self) -> Timestamp {
        self.start
    }

    /// The first instant after it.
    pub const fn end(self) -> Timestamp {
        self.end
    }

    /// What is left after the runs up to the one first observed at `cursor`.
    fn after(self, order: ScanOrder, cursor: Option<Timestamp>) -> Self {
        match (order, cursor) {
            (_, None) => self,
            (ScanOrder::Ascending, Some(cursor)) => {
                Self { start: self.start.max(cursor.saturating_add_us(1)).min(self.end), ..self }
            }
            (ScanOrder::Descending, Some(cursor)) => Self { end: self.end.min(cursor).max(self.start), ..self },
        }
    }
}

/// Asks for the history of a series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunsRequest {
    /// Published, not derived.
    pub pair: Pair,
    /// From whom; none where a single source has the pair, or one is preferred.
    pub source: Option<Source>,
    /// Of first observed times.
    pub range: Range,
    /// Oldest or newest first.
    pub order: ScanOrder,
    /// Also the last run that began before the range.
    pub include_baseline: bool,
    /// As known at.
    pub known_time: Option<Timestamp>,
    /// Only what comes after the run first observed then, in this order.
    pub after: Option<Timestamp>,
    /// At most so many runs, at least one.
    pub limit: usize,
}

/// A part of a list, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T, C> {
    /// Whose it is.
    pub series: SeriesKey,
    /// The rows.
    pub rows: Vec<T>,
    /// After which row the next page goes on; none on the last.
    pub next: Option<C>,
}

/// A part of the history of a series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunsPage {
    /// The runs.
    pub page: Page<Run, Timestamp>,
    /// The last run that began before the range, if asked for and there.
    pub baseline: Option<Run>,
}

/// Asks for what was believed of a series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RevisionsRequest {
    /// Published, not derived.
    pub pair: Pair,
    /// From whom; none where a single source has the pair, or one is preferred.
    pub source: Option<Source>,
    /// Of superseded times.
    pub range: Range,
    /// Only revisions that had happened by then.
    pub known_time: Option<Timestamp>,
    /// Only what comes after this one.
    pub after: Option<RevisionCursor>,
    /// At most so many, at least one.
    pub limit: usize,
}

/// Where a revision stands among those of its series.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RevisionCursor {
    /// When it was replaced.
    pub superseded_time: Timestamp,
    /// Where its run began.
    pub first_observed_time: Timestamp,
}

impl RevisionCursor {
    fn of(revision: &Revision) -> Self {
        Self { superseded_time: revision.superseded_time, first_observed_time: revision.run.first_observed_time }
    }
}

/// Asks which series there are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeriesRequest {
    /// Which.
    pub filter: SeriesFilter,
    /// As known at.
    pub known_time: Option<Timestamp>,
}

/// One series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeriesInfo {
    /// Pair and source.
    pub key: SeriesKey,
    /// Coverage and counts.
    pub totals: SeriesTotals,
    /// What it is doing; none unless read as known at the newest commit.
    pub state: Option<RateState>,
    /// The longest gap that its runs bridge, microseconds, inclusive.
    pub collapse_window_us: i64,
}

/// The runs of a range, piece by piece, oldest first.
pub struct RunStream {
    /// What it sees, however long it is read.
    pub commit: Commit,
    /// Whose runs they are.
    pub series: SeriesKey,
    /// Pieces, none empty. Reading one blocks.
    pub pieces: Box<dyn Iterator<Item = Result<Vec<Run>, StoreError>> + Send>,
}

/// The first `limit` rows that `wanted` lets through, and whether there are more.
fn first_rows<T>(
    pieces: impl Iterator<Item = Result<Vec<T>, StoreError>>,
    limit: usize,
    wanted: impl Fn(&T) -> bool,
    cancel: &CancellationToken,
) -> Result<(Vec<T>, bool), QueryError> {
    let mut rows = Vec::new();
    for piece in pieces {
        check_cancelled(cancel)?;
        for row in piece?.into_iter().filter(&wanted) {
            if rows.len() == limit {
                return Ok((rows, true));
            }
            rows.push(row);
        }
    }
    Ok((rows, false))
}

impl Reader {
    /// A page of the history of a series, and its baseline.
    ///
    /// # Errors
    /// No such published series, the caller gone, or the store's.
    pub fn runs(&self, request: &RunsRequest) -> Result<Answer<RunsPage>, QueryError> {
        let as_of = self.as_of(request.known_time)?;
        let series = self.resolve_published(&as_of, request.pair, request.source.as_ref())?;
        let left = request.range.after(request.order, request.after);
        let pieces = series.runs(left.start, left.end, as_of.known(), request.order)?;
        let (rows, more) = first_rows(pieces, request.limit, |_| true, &self.cancel)?;
        let next = rows.last().filter(|_| more).map(|run| run.first_observed_time);
        let baseline = if request.include_baseline {
            series.run_at(request.range.start.saturating_add_us(-1), as_of.known())?
        } else {
            None
        };
        let page = Page { series: series.key().clone(), rows, next };
        Ok(Answer { commit: as_of.commit, body: RunsPage { page, baseline } })
    }

    /// The history of a series as a stream; `order`, `limit`, `after` and the baseline play no part.
    ///
    /// # Errors
    /// No such published series, or the store's.
    pub fn run_stream(
        &self,
        pair: Pair,
        source: Option<&Source>,
        range: Range,
        known_time: Option<Timestamp>,
    ) -> Result<RunStream, QueryError> {
        let as_of = self.as_of(known_time)?;
        let series = self.resolve_published(&as_of, pair, source)?;
        let pieces = series.runs(range.start, range.end, as_of.known(), ScanOrder::Ascending)?;
        Ok(RunStream { commit: as_of.commit, series: series.key().clone(), pieces: Box::new(pieces) })
    }

    /// A page of what was believed of a series.
    ///
    /// # Errors
    /// No such published series, the caller gone, or the store's.
    pub fn revisions(&self, request: &RevisionsRequest) -> Result<Answer<Page<Revision, RevisionCursor>>, QueryError> {
        let as_of = self.as_of(request.known_time)?;
        let series = self.resolve_published(&as_of, request.pair, request.source.as_ref())?;
        let after = request.after;
        // Those of the cursor's own commit that come after it are still to be given.
        let start = after.map_or(request.range.start, |cursor| cursor.superseded_time.max(request.range.start));
        let pieces = series.revisions(start.min(request.range.end), request.range.end, as_of.known());
        let wanted = |revision: &Revision| after.is_none_or(|cursor| RevisionCursor::of(revision) > cursor);
        let (rows, more) = first_rows(pieces, request.limit, wanted, &self.cancel)?;
        let next = rows.last().filter(|_| more).map(RevisionCursor::of);
        Ok(Answer { commit: as_of.commit, body: Page { series: series.key().clone(), rows, next } })
    }

    /// The series that there are, in order of pair and source.
    ///
    /// # Errors
    /// The caller gone, or the store's.
    pub fn series(&self, request: &SeriesRequest) -> Result<Answer<Vec<SeriesInfo>>, QueryError> {
        let as_of = self.as_of(request.known_time)?;
        let mut found = Vec::new();
        for series in self.view.series().filter(|series| request.filter.lets(series.key())) {
            check_cancelled(&self.cancel)?;
            found.extend(self.series_info(series, &as_of)?);
        }
        Ok(Answer { commit: as_of.commit, body: found })
    }

    fn series_info(&self, series: &Arc<SeriesView>, as_of: &AsOf) -> Result<Option<SeriesInfo>, QueryError> {
        let Some(totals) = series.totals(as_of.known())? else { return Ok(None) };
        let in_force = if as_of.newest { series.run_at(as_of.now, as_of.known())? } else { None };
        let state = match in_force {
            Some(run) => self.state(series, &run, as_of)?,
            None => None,
        };
        let collapse_window_us = series.collapse_window_us();
        Ok(Some(SeriesInfo { key: series.key().clone(), totals, state, collapse_window_us }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn ranges_are_half_open_and_may_be_empty() {
        let check = |start: Option<i64>, end: Option<i64>, expect: Option<(i64, i64)>| {
            let range = Range::new(start.map(at), end.map(at)).ok();
            assert_eq!(range.map(|range| (range.start.micros(), range.end.micros())), expect);
        };
        check(Some(1), Some(2), Some((1, 2)));
        check(Some(2), Some(2), Some((2, 2)));
        check(Some(3), Some(2), None);
        check(None, Some(2), Some((Timestamp::MIN.micros(), 2)));
        let (_, end) = (0, Range::new(None, None).unwrap().end);
        assert!(end > Timestamp::MAX, "an open range holds the last instant");
    }

    #[test]
    fn a_page_goes_on_where_the_one_before_ended() {
        let range = Range::new(Some(at(10)), Some(at(20))).unwrap();
        let check = |order: ScanOrder, cursor: Option<i64>, expect: (i64, i64)| {
            let left = range.after(order, cursor.map(at));
            assert_eq!((left.start.micros(), left.end.micros()), expect);
        };
        check(ScanOrder::Ascending, None, (10, 20));
        check(ScanOrder::Ascending, Some(12), (13, 20));
        check(ScanOrder::Descending, Some(12), (10, 12));
        // A cursor from outside leaves nothing or everything, and never a range turned round.
        check(ScanOrder::Ascending, Some(i64::MAX), (20, 20));
        check(ScanOrder::Ascending, Some(i64::MIN), (10, 20));
        check(ScanOrder::Descending, Some(i64::MIN), (10, 10));
        check(ScanOrder::Descending, Some(i64::MAX), (10, 20));
    }

    #[test]
    fn a_page_is_full_only_if_there_is_more() {
        let pieces = || [vec![1, 2], vec![3], vec![4, 5, 6]].into_iter().map(Ok);
        let check = |limit: usize, least: i32, expect: (&[i32], bool)| {
            let (rows, more) = first_rows(pieces(), limit, |row| *row >= least, &CancellationToken::new()).unwrap();
            assert_eq!((rows.as_slice(), more), expect);
        };
        check(1, 0, (&[1], true));
        check(3, 0, (&[1, 2, 3], true));
        check(6, 0, (&[1, 2, 3, 4, 5, 6], false));
        check(7, 0, (&[1, 2, 3, 4, 5, 6], false));
        check(2, 5, (&[5, 6], false));
        check(2, 7, (&[], false));
    }

    #[test]
    fn a_page_reads_no_further_than_it_must() {
        let damaged = || Err(StoreError::Damaged { path: "db".to_owned(), problem: "beyond the page".to_owned() });
        let pieces = || [Ok(vec![1, 2, 3]), damaged()].into_iter();
        assert_eq!(first_rows(pieces(), 2, |_| true, &CancellationToken::new()).unwrap(), (vec![1, 2], true));
        // Whether there is more cannot be known without reading on: damage is never taken for the end.
        assert!(matches!(first_rows(pieces(), 3, |_| true, &CancellationToken::new()), Err(QueryError::Store(_))));
    }

    #[test]
    fn a_caller_who_left_stops_the_scan() {
        let cancel = CancellationToken::new();
        let guard = cancel.clone().drop_guard();
        let endless = || std::iter::repeat_with(|| Ok(vec![0]));
        assert!(first_rows(endless(), 3, |_| true, &cancel).is_ok());
        drop(guard);
        assert!(matches!(first_rows(endless(), 3, |_| true, &cancel), Err(QueryError::Stopped)));
    }

    #[test]
    fn revisions_are_ordered_by_commit_and_then_by_run() {
        let cursor =
            |superseded, first| RevisionCursor { superseded_time: at(superseded), first_observed_time: at(first) };
        assert!(cursor(1, 9) < cursor(2, 0) && cursor(2, 0) < cursor(2, 1));
    }
}
