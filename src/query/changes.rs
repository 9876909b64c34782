//! Changes from period to period.

use super::as_of::AsOf;
use super::bucket_paging::{BucketCursor, BucketsRequest, page_buckets};
use super::rate::{Change, RateAnswer};
use super::rate_intervals::first_rate_time;
use super::resolve::Route;
use super::{Answer, QueryError, Reader, check_cancelled};
use crate::analysis::{Bucket, Buckets, Zone};
use crate::domain::{Interval, Timestamp};

/// What a change is measured over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Period {
    /// From the close of the day before.
    DayOnDay,
    /// From the close of the week before; weeks begin on Monday.
    WeekOnWeek,
    /// From the close of the month before.
    MonthOnMonth,
    /// From the close of the year before.
    YearOnYear,
    /// Of each day, from the close of the year before.
    YearToDate,
}

impl Period {
    /// The buckets at whose ends changes end.
    pub fn buckets(self, zone: Zone) -> Buckets {
        let interval = match self {
            Self::DayOnDay | Self::YearToDate => Interval::Day,
            Self::WeekOnWeek => Interval::Week,
            Self::MonthOnMonth => Interval::Month,
            Self::YearOnYear => Interval::Year,
        };
        Buckets { zone, interval }
    }

    /// Where the period begins that ends with `bucket`: just before is the close that it is measured from.
    fn start(self, zone: Zone, bucket: Bucket) -> Timestamp {
        match self {
            Self::DayOnDay | Self::WeekOnWeek | Self::MonthOnMonth | Self::YearOnYear => bucket.start,
            Self::YearToDate => Buckets { zone, interval: Interval::Year }.at(bucket.start).start,
        }
    }
}

/// Asks for changes from period to period.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangesRequest {
    /// Of what, when, and which page.
    pub list: BucketsRequest,
    /// How long they are.
    pub period: Period,
    /// By whose clocks.
    pub zone: Zone,
}

/// The change of one period.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeriodChange {
    /// Half-open; the change is from the rate in force just before its start to that just before its end, or now.
    pub period: Bucket,
    /// Whether it ended at or before the recorded time seen.
    pub complete: bool,
    /// The change.
    pub change: Change,
}

/// A part of the changes of a pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangesPage {
    /// In order of time.
    pub rows: Vec<PeriodChange>,
    /// Where the next page goes on; none on the last.
    pub next: Option<BucketCursor>,
}

/// A moment, and the rate in force at it, if there was one.
type RateThen = (Timestamp, Option<RateAnswer>);

impl Reader {
    /// A page of changes, a row for each period from the one of the first rate on.
    ///
    /// # Errors
    /// No such series, too many periods, fields that contradict each other, the caller gone, or the store's.
    pub fn changes(&self, request: &ChangesRequest) -> Result<Answer<ChangesPage>, QueryError> {
        let list = &request.list;
        let as_of = self.as_of_buckets(list)?;
        let route = self.resolve(&as_of, list.pair, list.source.as_ref(), &list.leg_sources)?;
        let first_rate = first_rate_time(&as_of, &route)?;
        let buckets = request.period.buckets(request.zone);
        let mut page = ChangesPage { rows: Vec::new(), next: None };
        let Some((mut bucket, end)) = page_buckets(list, ("period", buckets), first_rate, as_of.now)? else {
            return Ok(Answer { commit: as_of.commit, body: page });
        };
        // The close that a row is measured from is that of the row before it, or the same as of that one.
        let mut before: Option<[RateThen; 2]> = None;
        while page.rows.len() < list.limit {
            check_cancelled(&self.cancel)?;
            let start = request.period.start(request.zone, bucket);
            let closes = [start.saturating_add_us(-1), bucket.end.saturating_add_us(-1).min(as_of.now)];
            let [from, to] = closes.map(|time| self.close_at(&as_of, &route, time, before.as_ref()));
            let (from, to) = (from?, to?);
            page.rows.push(PeriodChange {
                period: Bucket { start, end: bucket.end },
                complete: bucket.end <= as_of.known(),
                change: Change::between(from.1.clone(), to.1.clone()),
            });
            before = Some([from, to]);
            let next = buckets.at(bucket.end);
            if next.start >= end {
                page.next = None;
                return Ok(Answer { commit: as_of.commit, body: page });
            }
            page.next = Some(BucketCursor { start: bucket.start, now: as_of.now });
            bucket = next;
        }
        Ok(Answer { commit: as_of.commit, body: page })
    }

    /// The rate in force at `time`, which may be one of `before`.
    fn close_at(
        &self,
        as_of: &AsOf,
        route: &Route,
        time: Timestamp,
        before: Option<&[RateThen; 2]>,
    ) -> Result<RateThen, QueryError> {
        match before.and_then(|rates| rates.iter().find(|(then, _)| *then == time)) {
            Some(known) => Ok(known.clone()),
            None => Ok((time, self.rate_if_quoted(as_of, route, time)?)),
        }
    }
}
