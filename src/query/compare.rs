//! Pages of the comparison of two sources of one pair, day by day.
//!
//! **Invariant**: the row of a day does not depend on the page or the range of the request. The neighbouring days that
//! the row depends on are read as well.

use super::as_of::AsOf;
use super::bucket_paging::{BucketCursor, BucketLimit, last_buckets, range_buckets, rest_of_list};
use super::need::Need;
use super::rate::RateAnswer;
use super::rate_intervals::first_rate_time;
use super::resolve::Route;
use super::{Answer, Moment, MomentRange, QueryError, Range, Reader, check_cancelled};
use crate::analysis::{
    Bucket, Buckets, ComparisonSummary, Comparisons, Difference, LAG_DAYS_MAX, Sides, Zone, end_stretch,
};
use crate::domain::{Interval, Pair, ScanOrder, Source, Timestamp};

/// The maximum number of days of one comparison: 27 years.
pub const COMPARED_DAYS_MAX: u32 = 10_000;

/// The limit of [`COMPARED_DAYS_MAX`] with the texts of the error message.
const LIMIT: BucketLimit = BucketLimit { count_max: COMPARED_DAYS_MAX as u64, scope: "", remedy: "shorten the range" };

/// The days of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ComparedDays {
    /// The days that begin in a range.
    Within(MomentRange),
    /// The last days that begin before a time. No day begins after now.
    Last {
        /// The number of days, at least one.
        count: u32,
        /// Every day begins before this time. `None` means that the last day is the current day.
        before: Option<Moment>,
    },
}

/// A request for a page of a comparison of two sources.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompareRequest {
    /// The pair, in the requested direction.
    pub pair: Pair,
    /// The two sources to compare.
    pub sources: Sides<Source>,
    /// The days to compare.
    pub days: ComparedDays,
    /// The time zone of the days. `None` means the zone of the first source; for a cross, the zone of the leg whose day
    /// ends first.
    pub zone: Option<Zone>,
    /// Read the data as known at this time. `None` means the newest commit.
    pub known_time: Option<Timestamp>,
    /// The order of the days: oldest or newest first.
    pub order: ScanOrder,
    /// Return only days after this position, in the requested order.
    pub after: Option<BucketCursor>,
    /// The maximum number of rows, at least one.
    pub limit: usize,
}

/// A day with the rates of both sources just before its end, or now if now is earlier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ComparedDay {
    /// The day, half-open.
    pub day: Bucket,
    /// Whether the day ended at or before the recorded time of the commit.
    pub complete: bool,
    /// The rates in force; `None` before the first quote of a source.
    pub rates: Sides<Option<RateAnswer>>,
    /// The difference between the rates, the second minus the first; `None` if one of the rates is missing.
    pub difference: Option<Difference>,
}

/// A page of a comparison.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ComparePage {
    /// The time zone of the days.
    pub zone: Zone,
    /// The days, in the requested order.
    pub rows: Vec<ComparedDay>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<BucketCursor>,
    /// The summary of all requested days, on the first page only.
    pub summary: Option<ComparisonSummary>,
}

impl ComparePage {
    /// Adds a row to the summary if the page has a summary. Adds the row to the page if the page has room, else sets
    /// the cursor of the next page. The row must already say whether a stretch ends on its day.
    fn add(&mut self, row: ComparedDay, limit: usize, now: Timestamp) {
        if let Some(summary) = &mut self.summary {
            summary.add(row.day, row.difference.as_ref());
        }
        if self.rows.len() < limit {
            self.rows.push(row);
        } else if let (None, Some(last)) = (self.next, self.rows.last()) {
            self.next = Some(BucketCursor { start: last.day.start, now });
        }
    }

    /// Keeps the last `limit` rows, newest first. `first` is the first day of the list.
    fn keep_newest(&mut self, limit: usize, first: Bucket, now: Timestamp) {
        self.rows.reverse();
        self.rows.truncate(limit);
        let last = self.rows.last().filter(|row| row.day.start > first.start);
        self.next = last.map(|row| BucketCursor { start: row.day.start, now });
    }
}

/// Reads the days of one comparison in order of time.
struct DayReader<'a> {
    reader: &'a Reader,
    as_of: &'a AsOf,
    routes: Sides<Route>,
    buckets: Buckets,
    comparisons: Comparisons,
}

impl DayReader<'_> {
    /// Reads and compares the rates of both sources at the end of `day`.
    fn read(&mut self, day: Bucket) -> Result<ComparedDay, QueryError> {
        check_cancelled(&self.reader.cancel)?;
        let close = day.end.saturating_add_us(-1).min(self.as_of.now);
        // A rate has a state only if it is read at the current time from the newest commit. Later pages of a list may
        // read a commit that is no longer the newest one. So no page returns states, and all pages agree.
        let stateless = |answer: RateAnswer| RateAnswer { state: None, ..answer };
        let rate = |route| self.reader.rate_if_quoted(self.as_of, route, close).map(|rate| rate.map(stateless));
        let rates = [rate(&self.routes[0])?, rate(&self.routes[1])?];
        let difference =
            self.comparisons.next_day(rates.each_ref().map(|side| side.as_ref().map(|answer| answer.rate.clone())));
        Ok(ComparedDay { day, complete: day.end <= self.as_of.known(), rates, difference })
    }

    /// Reads the [`LAG_DAYS_MAX`] days before `first`, which the lags and stretches of the page depend on.
    fn read_before(&mut self, first: Bucket) -> Result<(), QueryError> {
        let mut before = Vec::with_capacity(LAG_DAYS_MAX);
        let mut day = first;
        for _ in 0..LAG_DAYS_MAX {
            day = self.day_before(day);
            before.push(day);
        }
        before.into_iter().rev().try_for_each(|day| self.read(day).map(drop))
    }

    fn day_before(&self, day: Bucket) -> Bucket {
        self.buckets.at(day.start.saturating_add_us(-1))
    }

    fn day_after(&self, day: Bucket) -> Bucket {
        self.buckets.at(day.end)
    }
}

impl ComparedDays {
    /// Returns the days as a range of times, with `now` as the current time.
    fn range(self, buckets: Buckets, now: Timestamp) -> Result<Range, QueryError> {
        let (count, before) = match self {
            Self::Within(range) => return range.in_zone(buckets.zone),
            Self::Last { count, before } => (count, before),
        };
        let before = before.map(|before| before.start(buckets.zone));
        let end = before.map_or(now.saturating_add_us(1), |before| before.min(now.saturating_add_us(1)));
        let mut first = buckets.at(end.saturating_add_us(-1));
        for _ in 1..count.min(COMPARED_DAYS_MAX) {
            first = buckets.at(first.start.saturating_add_us(-1));
        }
        Range::new(Some(first.start), Some(end))
    }
}

impl Reader {
    /// Returns a page of a comparison with a row for each day. The list has no day before the first day on which a
    /// source has a rate.
    ///
    /// # Errors
    /// `UnknownSeries` if a source does not have the pair; `InvalidArgument` if there are too many days;
    /// `NothingKnownYet` if `known_time` is before the first commit; `Cancelled` after cancellation; `Store` if reading
    /// the store fails.
    pub fn compare(&self, request: &CompareRequest) -> Result<Answer<ComparePage>, QueryError> {
        let as_of = self.as_of_pages(request.known_time, request.after)?;
        let [first, second] = &request.sources;
        let route = |source| self.resolve(&as_of, request.pair, Some(source), &[], &Need::at(as_of.now));
        let routes = [route(first)?, route(second)?];
        let firsts = [first_rate_time(&as_of, &routes[0])?, first_rate_time(&as_of, &routes[1])?];
        let first_rate = firsts.into_iter().flatten().min();
        let zone = self.zone(&routes[0], request.zone, as_of.now);
        let buckets = Buckets { zone, interval: Interval::Day };
        let range = request.days.range(buckets, as_of.now)?;
        let summary = request.after.is_none().then(ComparisonSummary::default);
        let mut page = ComparePage { zone, rows: Vec::new(), next: None, summary };
        let all = range_buckets(range, ("start_time", buckets), first_rate, as_of.now, LIMIT)?;
        let rest = all.and_then(|all| rest_of_list(buckets, all, (request.order, request.after)));
        if let Some((first, end)) = rest {
            let comparisons = Comparisons::default();
            let days = DayReader { reader: self, as_of: &as_of, routes, buckets, comparisons };
            match request.order {
                ScanOrder::Ascending => add_days(&mut page, days, first, end, request.limit)?,
                ScanOrder::Descending => {
                    // The summary of the first page needs all days.
                    let from =
                        if page.summary.is_some() { first } else { last_buckets(buckets, first, end, request.limit) };
                    add_days(&mut page, days, from, end, usize::MAX)?;
                    page.keep_newest(request.limit, first, as_of.now);
                }
            }
        }
        Ok(Answer { commit: as_of.commit, body: page })
    }
}

/// Adds to `page` the days that begin before `end`, starting with `day`. Also reads the day after the last one, which
/// shows whether a stretch ends on the last day.
fn add_days(
    page: &mut ComparePage,
    mut days: DayReader<'_>,
    mut day: Bucket,
    end: Timestamp,
    limit: usize,
) -> Result<(), QueryError> {
    let now = days.as_of.now;
    days.read_before(day)?;
    let mut last: Option<ComparedDay> = None;
    while day.start <= now && (page.next.is_none() || page.summary.is_some()) {
        let row = days.read(day)?;
        if let Some(mut last) = last.take() {
            end_stretch(last.difference.as_mut(), row.difference.as_ref());
            page.add(last, limit, now);
        }
        if row.day.start >= end {
            return Ok(());
        }
        day = days.day_after(day);
        last = Some(row);
    }
    if let Some(last) = last {
        page.add(last, limit, now);
    }
    Ok(())
}
