//! The history of a series as runs and revisions, and the list of series.
//!
//! **Invariant**: the pages of a list together hold every row once, in order.

use std::sync::Arc;

use super::as_of::AsOf;
use super::latest::SeriesFilter;
use super::need::Need;
use super::resolve::AnsweringLeg;
use super::{Answer, MomentRange, QueryError, Reader, check_cancelled};
use tokio_util::sync::CancellationToken;

use crate::analysis::Zone;
use crate::domain::{Pair, Revision, Run, ScanOrder, SeriesKey, Source, Timestamp};
use crate::latest_quotes::RateState;
use crate::store::{Commit, SeriesTotals, SeriesView, StoreError};

/// A half-open range of time: `[start, end)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    start: Timestamp,
    end: Timestamp,
}

impl Default for Range {
    /// The range of all times.
    fn default() -> Self {
        // Later than any time that a request can contain, so that an open range contains the last instant too.
        const OPEN_END: Timestamp = Timestamp::from_micros(i64::MAX);
        Self { start: Timestamp::MIN, end: OPEN_END }
    }
}

impl Range {
    /// Creates a range. A missing `start` or `end` leaves that side open. A range with equal ends is empty.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if `end` is before `start`.
    pub fn new(start: Option<Timestamp>, end: Option<Timestamp>) -> Result<Self, QueryError> {
        let open = Self::default();
        let range = Self { start: start.unwrap_or(open.start), end: end.unwrap_or(open.end) };
        if range.end < range.start {
            let problem = format!("{} is before start_time {}; swap them", range.end, range.start);
            return Err(QueryError::invalid("end_time", problem));
        }
        Ok(range)
    }

    /// The first instant of the range.
    pub const fn start(self) -> Timestamp {
        self.start
    }

    /// The first instant after the range.
    pub const fn end(self) -> Timestamp {
        self.end
    }

    /// Returns the part of the range after the run that was first observed at `cursor`. In descending order, this is
    /// the part before that run in time.
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

/// A request for a page of the runs of a series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunsRequest {
    /// The published pair; derived pairs have no history.
    pub pair: Pair,
    /// The source. `None` means the source that the choice rule selects.
    pub source: Option<Source>,
    /// The range of first observed times.
    pub range: MomentRange,
    /// The time zone of days. `None` means the zone of the source.
    pub zone: Option<Zone>,
    /// The order of the runs: oldest or newest first.
    pub order: ScanOrder,
    /// Whether to return the last run that began before the range, too.
    pub include_baseline: bool,
    /// Read the data as known at this time. `None` means the newest commit.
    pub known_time: Option<Timestamp>,
    /// Return only runs after the run that was first observed at this time, in the requested order.
    pub after: Option<Timestamp>,
    /// The maximum number of runs, at least one.
    pub limit: usize,
}

/// A page of the rows of one series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T, C> {
    /// The series of the rows.
    pub leg: AnsweringLeg,
    /// The rows, in the requested order.
    pub rows: Vec<T>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<C>,
}

/// A page of the runs of a series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunsPage {
    /// The runs. The cursor is the first observed time of the last run.
    pub page: Page<Run, Timestamp>,
    /// The last run that began before the range, if it exists and the request includes it.
    pub baseline: Option<Run>,
}

/// A request for a page of the revisions of a series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RevisionsRequest {
    /// The published pair; derived pairs have no revisions.
    pub pair: Pair,
    /// The source. `None` means the source that the choice rule selects.
    pub source: Option<Source>,
    /// The range of superseded times.
    pub range: Range,
    /// Return only revisions that were superseded at or before this time. `None` means the newest commit.
    pub known_time: Option<Timestamp>,
    /// The order of the revisions: the first or the last superseded first.
    pub order: ScanOrder,
    /// Return only revisions after this position, in the requested order.
    pub after: Option<RevisionCursor>,
    /// The maximum number of revisions, at least one.
    pub limit: usize,
}

/// The position of a revision in the list of its series.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RevisionCursor {
    /// The recorded time of the commit that superseded the run.
    pub superseded_time: Timestamp,
    /// The first observed time of the run.
    pub first_observed_time: Timestamp,
}

impl RevisionCursor {
    fn of(revision: &Revision) -> Self {
        Self { superseded_time: revision.superseded_time, first_observed_time: revision.run.first_observed_time }
    }
}

/// A request for the list of series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeriesRequest {
    /// The series to list.
    pub filter: SeriesFilter,
    /// Read the data as known at this time. `None` means the newest commit.
    pub known_time: Option<Timestamp>,
}

/// A series and its totals.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeriesInfo {
    /// The pair and the source of the series.
    pub key: SeriesKey,
    /// The time range and the counts of the series.
    pub totals: SeriesTotals,
    /// The state of the latest rate. `None` unless the newest commit is read.
    pub state: Option<RateState>,
    /// Whether the source is archived.
    pub is_archived: bool,
    /// The longest gap that a run of the series may span, microseconds, inclusive.
    pub collapse_window_us: i64,
}

/// The runs of a range as a stream of pieces, oldest first.
pub struct RunStream {
    /// The commit that every piece is read from.
    pub commit: Commit,
    /// The series of the runs.
    pub leg: AnsweringLeg,
    /// Pieces of the stream; no piece is empty. Reading a piece blocks.
    pub pieces: Box<dyn Iterator<Item = Result<Vec<Run>, StoreError>> + Send>,
}

/// Returns the first `limit` rows for which `wanted` returns true, and whether more such rows exist.
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
    /// Returns a page of the runs of a series, and the baseline if requested.
    ///
    /// # Errors
    /// `UnknownSeries`, `OnlyInverse` or `Ambiguous` if no published series can be chosen; `NothingKnownYet` if
    /// `known_time` is before the first commit; `Cancelled` after cancellation; `Store` if reading the store fails.
    pub fn runs(&self, request: &RunsRequest) -> Result<Answer<RunsPage>, QueryError> {
        let as_of = self.as_of(request.known_time)?;
        // The recorded time, not the clock: every page makes the same choice.
        let need = Need::range(request.range, request.zone, as_of.known());
        let series = self.resolve_published(&as_of, request.pair, request.source.as_ref(), &need)?;
        let range = request.range.in_zone(self.zone_of_source(&series.key().source, request.zone))?;
        let rest = range.after(request.order, request.after);
        let pieces = series.runs(rest.start, rest.end, as_of.known(), request.order)?;
        let (rows, more) = first_rows(pieces, request.limit, |_| true, &self.cancel)?;
        let next = rows.last().filter(|_| more).map(|run| run.first_observed_time);
        let baseline = if request.include_baseline {
            series.run_at(range.start.saturating_add_us(-1), as_of.known())?
        } else {
            None
        };
        let end = need.times(self.zone_of_source(&series.key().source, None)).end;
        let page = Page { leg: self.answering_leg(&as_of, &series, end)?, rows, next };
        Ok(Answer { commit: as_of.commit, body: RunsPage { page, baseline } })
    }

    /// Returns the runs of a series that begin in `range`, oldest first, as a stream.
    ///
    /// # Errors
    /// `UnknownSeries`, `OnlyInverse` or `Ambiguous` if no published series can be chosen; `NothingKnownYet` if
    /// `known_time` is before the first commit; `Store` if reading the store fails.
    pub fn run_stream(
        &self,
        pair: Pair,
        source: Option<&Source>,
        (range, zone): (MomentRange, Option<Zone>),
        known_time: Option<Timestamp>,
    ) -> Result<RunStream, QueryError> {
        let as_of = self.as_of(known_time)?;
        let need = Need::range(range, zone, as_of.known());
        let series = self.resolve_published(&as_of, pair, source, &need)?;
        let end = need.times(self.zone_of_source(&series.key().source, None)).end;
        let range = range.in_zone(self.zone_of_source(&series.key().source, zone))?;
        let pieces = series.runs(range.start, range.end, as_of.known(), ScanOrder::Ascending)?;
        let leg = self.answering_leg(&as_of, &series, end)?;
        Ok(RunStream { commit: as_of.commit, leg, pieces: Box::new(pieces) })
    }

    /// Returns a page of the revisions of a series.
    ///
    /// # Errors
    /// The errors of [`Reader::runs`].
    pub fn revisions(&self, request: &RevisionsRequest) -> Result<Answer<Page<Revision, RevisionCursor>>, QueryError> {
        let as_of = self.as_of(request.known_time)?;
        let series = self.resolve_published(&as_of, request.pair, request.source.as_ref(), &Need::at(as_of.known()))?;
        let after = request.after;
        // A commit can supersede several runs, so the list may continue with the same superseded time.
        let Range { mut start, mut end } = request.range;
        match (request.order, after) {
            (_, None) => {}
            (ScanOrder::Ascending, Some(cursor)) => start = start.max(cursor.superseded_time),
            (ScanOrder::Descending, Some(cursor)) => end = end.min(cursor.superseded_time.saturating_add_us(1)),
        }
        let pieces = series.revisions(start, end, as_of.known(), request.order);
        let wanted = |revision: &Revision| {
            after.is_none_or(|cursor| match request.order {
                ScanOrder::Ascending => RevisionCursor::of(revision) > cursor,
                ScanOrder::Descending => RevisionCursor::of(revision) < cursor,
            })
        };
        let (rows, more) = first_rows(pieces, request.limit, wanted, &self.cancel)?;
        let next = rows.last().filter(|_| more).map(RevisionCursor::of);
        let leg = self.answering_leg(&as_of, &series, as_of.known())?;
        Ok(Answer { commit: as_of.commit, body: Page { leg, rows, next } })
    }

    /// Lists the series, sorted by pair and source.
    ///
    /// # Errors
    /// `NothingKnownYet` if `known_time` is before the first commit; `Cancelled` after cancellation; `Store` if reading
    /// the store fails.
    pub fn series(&self, request: &SeriesRequest) -> Result<Answer<Vec<SeriesInfo>>, QueryError> {
        let as_of = self.as_of(request.known_time)?;
        let mut found = Vec::new();
        for series in self.view.series().filter(|series| request.filter.matches(series.key())) {
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
        let is_archived = self.is_archived(as_of, &series.key().source);
        Ok(Some(SeriesInfo { key: series.key().clone(), totals, state, is_archived, collapse_window_us }))
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
        assert!(end > Timestamp::MAX, "an open range contains the last instant");
    }

    #[test]
    fn page_starts_after_the_cursor() {
        let range = Range::new(Some(at(10)), Some(at(20))).unwrap();
        let check = |order: ScanOrder, cursor: Option<i64>, expect: (i64, i64)| {
            let rest = range.after(order, cursor.map(at));
            assert_eq!((rest.start.micros(), rest.end.micros()), expect);
        };
        check(ScanOrder::Ascending, None, (10, 20));
        check(ScanOrder::Ascending, Some(12), (13, 20));
        check(ScanOrder::Descending, Some(12), (10, 12));
        // A cursor outside the range leaves nothing or the whole range, and never a range that ends before its start.
        check(ScanOrder::Ascending, Some(i64::MAX), (20, 20));
        check(ScanOrder::Ascending, Some(i64::MIN), (10, 20));
        check(ScanOrder::Descending, Some(i64::MIN), (10, 10));
        check(ScanOrder::Descending, Some(i64::MAX), (10, 20));
    }

    #[test]
    fn page_reports_more_rows_only_if_they_exist() {
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
    fn page_reads_no_further_than_the_first_row_after_it() {
        let damaged = || Err(StoreError::Damaged { path: "db".to_owned(), problem: "beyond the page".to_owned() });
        let pieces = || [Ok(vec![1, 2, 3]), damaged()].into_iter();
        assert_eq!(first_rows(pieces(), 2, |_| true, &CancellationToken::new()).unwrap(), (vec![1, 2], true));
        // Only the next piece shows whether there are more rows, so a damaged piece is an error and not the end.
        assert!(matches!(first_rows(pieces(), 3, |_| true, &CancellationToken::new()), Err(QueryError::Store(_))));
    }

    #[test]
    fn cancellation_stops_the_scan() {
        let cancel = CancellationToken::new();
        let guard = cancel.clone().drop_guard();
        let endless = || std::iter::repeat_with(|| Ok(vec![0]));
        assert!(first_rows(endless(), 3, |_| true, &cancel).is_ok());
        drop(guard);
        assert!(matches!(first_rows(endless(), 3, |_| true, &cancel), Err(QueryError::Cancelled)));
    }

    #[test]
    fn revisions_are_sorted_by_superseded_time_and_then_by_run() {
        let cursor =
            |superseded, first| RevisionCursor { superseded_time: at(superseded), first_observed_time: at(first) };
        assert!(cursor(1, 9) < cursor(2, 0) && cursor(2, 0) < cursor(2, 1));
    }
}
