//! Two sources of one pair, compared day by day.
//!
//! **Invariant**: a day says the same on whatever page and in whatever range it is asked for: the days around it that it
//! depends on are read beside it.

use super::as_of::AsOf;
use super::bucket_paging::{BucketCursor, BucketLimit, range_buckets};
use super::rate::RateAnswer;
use super::rate_intervals::first_rate_time;
use super::resolve::Route;
use super::{Answer, QueryError, Range, Reader, check_cancelled};
use crate::analysis::{
    Bucket, Buckets, ComparisonSummary, Comparisons, Difference, LAG_DAYS_MAX, Sides, Zone, end_stretch,
};
use crate::domain::{Interval, Pair, Source, Timestamp};

/// Most days of one comparison: 27 years.
pub const COMPARED_DAYS_MAX: u32 = 10_000;

/// The same, for a message.
const LIMIT: BucketLimit = BucketLimit { count_max: COMPARED_DAYS_MAX as u64, each: "", remedy: "shorten the range" };

/// Which days are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ComparedDays {
    /// Those that begin in a range.
    Within(Range),
    /// The last so many, at least one, that begin before a time; none that begins after now.
    Last {
        /// How many.
        count: u32,
        /// Exclusive; now if none.
        before: Option<Timestamp>,
    },
}

/// Asks for two sources to be compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompareRequest {
    /// In which direction.
    pub pair: Pair,
    /// Who is compared, and with whom.
    pub sources: Sides<Source>,
    /// Which days.
    pub days: ComparedDays,
    /// By whose clocks they begin.
    pub zone: Zone,
    /// As known at.
    pub known_time: Option<Timestamp>,
    /// Only what comes after this one.
    pub after: Option<BucketCursor>,
    /// At most so many rows, at least one.
    pub limit: usize,
}

/// A day, and what both sources said just before its end, or say now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ComparedDay {
    /// Half-open.
    pub day: Bucket,
    /// Whether it ended at or before the recorded time seen.
    pub complete: bool,
    /// The rates in force; none before the first quote.
    pub rates: Sides<Option<RateAnswer>>,
    /// Of the second from the first, if both are there.
    pub difference: Option<Difference>,
}

/// A part of a comparison.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ComparePage {
    /// In order of time.
    pub rows: Vec<ComparedDay>,
    /// Where the next page goes on; none on the last.
    pub next: Option<BucketCursor>,
    /// Of all days asked for; with the first page alone.
    pub summary: Option<ComparisonSummary>,
}

impl ComparePage {
    /// A day more, of which all is known.
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
}

/// The days of one comparison, in order of time.
struct Days<'a> {
    reader: &'a Reader,
    as_of: &'a AsOf,
    routes: Sides<Route>,
    buckets: Buckets,
    comparisons: Comparisons,
}

impl Days<'_> {
    /// What both sources said at the end of `day`, compared.
    fn read(&mut self, day: Bucket) -> Result<ComparedDay, QueryError> {
        check_cancelled(&self.reader.cancel)?;
        let close = day.end.saturating_add_us(-1).min(self.as_of.now);
        // A state is told as of now alone, and pages after the first are read as known then.
        let stateless = |answer: RateAnswer| RateAnswer { state: None, ..answer };
        let rate = |route| self.reader.rate_if_quoted(self.as_of, route, close).map(|rate| rate.map(stateless));
        let rates = [rate(&self.routes[0])?, rate(&self.routes[1])?];
        let difference =
            self.comparisons.next_day(rates.each_ref().map(|side| side.as_ref().map(|answer| answer.rate.clone())));
        Ok(ComparedDay { day, complete: day.end <= self.as_of.known(), rates, difference })
    }

    /// Reads the days before `first` that it and its neighbours depend on.
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
    /// As a range of times, it being `now`.
    fn range(self, buckets: Buckets, now: Timestamp) -> Result<Range, QueryError> {
        let (count, before) = match self {
            Self::Within(range) => return Ok(range),
            Self::Last { count, before } => (count, before),
        };
        let end = before.map_or(now.saturating_add_us(1), |before| before.min(now.saturating_add_us(1)));
        let mut first = buckets.at(end.saturating_add_us(-1));
        for _ in 1..count.min(COMPARED_DAYS_MAX) {
            first = buckets.at(first.start.saturating_add_us(-1));
        }
        Range::new(Some(first.start), Some(end))
    }
}

impl Reader {
    /// A page of two sources compared, a row for each day from the first on which either has a rate.
    ///
    /// # Errors
    /// No such series, too many days, the caller gone, or the store's.
    pub fn compare(&self, request: &CompareRequest) -> Result<Answer<ComparePage>, QueryError> {
        let as_of = self.as_of_pages(request.known_time, request.after)?;
        let [first, second] = &request.sources;
        let route = |source| self.resolve(&as_of, request.pair, Some(source), &[]);
        let routes = [route(first)?, route(second)?];
        let firsts = [first_rate_time(&as_of, &routes[0])?, first_rate_time(&as_of, &routes[1])?];
        let first_rate = firsts.into_iter().flatten().min();
        let buckets = Buckets { zone: request.zone, interval: Interval::Day };
        let range = request.days.range(buckets, as_of.now)?;
        let summary = request.after.is_none().then(ComparisonSummary::default);
        let mut page = ComparePage { rows: Vec::new(), next: None, summary };
        if let Some((mut day, end)) = range_buckets(range, ("start_time", buckets), first_rate, as_of.now, LIMIT)? {
            if let Some(after) = request.after.filter(|after| after.start >= day.start) {
                day = buckets.at(buckets.at(after.start).end);
            }
            let days = Days { reader: self, as_of: &as_of, routes, buckets, comparisons: Comparisons::default() };
            fill(&mut page, days, day, end, request.limit)?;
        }
        Ok(Answer { commit: as_of.commit, body: page })
    }
}

/// Puts the days from `day` on that begin before `end` into `page`; one day more is read, which tells where a stretch
/// ends.
fn fill(
    page: &mut ComparePage,
    mut days: Days<'_>,
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
