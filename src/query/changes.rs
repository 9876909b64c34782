//! Pages of changes from one calendar period to the next.

use super::as_of::AsOf;
use super::bucket_paging::{BucketCursor, BucketsRequest, last_buckets, page_buckets};
use super::need::Need;
use super::rate::{Change, RateAnswer};
use super::rate_intervals::first_rate_time;
use super::resolve::{AnsweringLeg, Derivation, Route, derivation};
use super::{Answer, QueryError, Reader, check_cancelled};
use crate::analysis::{Bucket, Buckets, Zone};
use crate::domain::{Interval, ScanOrder, Timestamp};

/// The period that a change is measured over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Period {
    /// Each day, from the close of the previous day.
    DayOnDay,
    /// Each week, from the close of the previous week. Weeks begin on Monday.
    WeekOnWeek,
    /// Each month, from the close of the previous month.
    MonthOnMonth,
    /// Each year, from the close of the previous year.
    YearOnYear,
    /// Each day, from the close of the previous year.
    YearToDate,
}

impl Period {
    /// Returns the buckets of the rows: the change of a row ends at the end of its bucket.
    pub fn buckets(self, zone: Zone) -> Buckets {
        let interval = match self {
            Self::DayOnDay | Self::YearToDate => Interval::Day,
            Self::WeekOnWeek => Interval::Week,
            Self::MonthOnMonth => Interval::Month,
            Self::YearOnYear => Interval::Year,
        };
        Buckets { zone, interval }
    }

    /// Returns the start of the period that ends with `bucket`. The change is measured from the close just before that
    /// start.
    fn start(self, zone: Zone, bucket: Bucket) -> Timestamp {
        match self {
            Self::DayOnDay | Self::WeekOnWeek | Self::MonthOnMonth | Self::YearOnYear => bucket.start,
            Self::YearToDate => Buckets { zone, interval: Interval::Year }.at(bucket.start).start,
        }
    }
}

/// A request for a page of changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangesRequest {
    /// The pair, the range and the page.
    pub list: BucketsRequest,
    /// The period of each change.
    pub period: Period,
}

/// The change of one period.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeriodChange {
    /// The period, half-open. The change starts at the rate in force just before the start of the period. The change
    /// ends at the rate in force just before the end of the period, or at the rate in force now if now is earlier.
    pub period: Bucket,
    /// The start of the bucket of the row. For a year to date, the period starts earlier.
    pub bucket_start: Timestamp,
    /// Whether the period ended at or before the recorded time of the commit.
    pub complete: bool,
    /// The change and the rates at its start and end.
    pub change: Change,
}

/// A page of the changes of a pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangesPage {
    /// How the rates are derived from published rates.
    pub derivation: Derivation,
    /// The published series that the rates are derived from.
    pub legs: Vec<AnsweringLeg>,
    /// The time zone of the periods.
    pub zone: Zone,
    /// The changes, in the requested order.
    pub rows: Vec<PeriodChange>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<BucketCursor>,
}

/// A time and the rate in force at that time. The rate is `None` before the first quote.
type RateAtTime = (Timestamp, Option<RateAnswer>);

impl Reader {
    /// Returns a page of changes with a row for each period. The list has no period before the period of the first
    /// rate.
    ///
    /// # Errors
    /// `UnknownSeries` or `Ambiguous` if no series can be chosen; `InvalidArgument` if there are too many periods or
    /// fields contradict each other; `NothingKnownYet` if `known_time` is before the first commit; `Cancelled` after
    /// cancellation; `Store` if reading the store fails.
    pub fn changes(&self, request: &ChangesRequest) -> Result<Answer<ChangesPage>, QueryError> {
        let list = &request.list;
        let as_of = self.as_of_buckets(list)?;
        let need = Need::range(list.range, list.zone, as_of.now);
        let route = self.resolve(&as_of, list.pair, list.source.as_ref(), &list.leg_sources, &need)?;
        let first_rate = first_rate_time(&as_of, &route)?;
        let zone = self.zone(&route, list.zone, as_of.now);
        let buckets = request.period.buckets(zone);
        let mut page = ChangesPage {
            derivation: derivation(&route),
            legs: self.answering_legs(&as_of, &route, &need)?,
            zone,
            rows: Vec::new(),
            next: None,
        };
        let range = list.range.in_zone(zone)?;
        let Some((first, end)) = page_buckets((list, range), ("period", buckets), first_rate, as_of.now)? else {
            return Ok(Answer { commit: as_of.commit, body: page });
        };
        let mut bucket = match list.order {
            ScanOrder::Ascending => first,
            ScanOrder::Descending => last_buckets(buckets, first, end, list.limit),
        };
        let has_older_rows = bucket.start > first.start;
        let mut has_newer_rows = true;
        // The rates at the start and the end of the previous row. A row starts at one of these two times: at the end of
        // the previous row, or, for a year to date, at the start of the previous row. So only the first row reads the
        // rate at its start.
        let mut previous_closes: Option<[RateAtTime; 2]> = None;
        while page.rows.len() < list.limit {
            check_cancelled(&self.cancel)?;
            let start = request.period.start(zone, bucket);
            let closes = [start.saturating_add_us(-1), bucket.end.saturating_add_us(-1).min(as_of.now)];
            let [from, to] = closes.map(|time| self.close_at(&as_of, &route, time, previous_closes.as_ref()));
            let (from, to) = (from?, to?);
            page.rows.push(PeriodChange {
                period: Bucket { start, end: bucket.end },
                bucket_start: bucket.start,
                complete: bucket.end <= as_of.known(),
                change: Change::between(from.1.clone(), to.1.clone()),
            });
            previous_closes = Some([from, to]);
            bucket = buckets.at(bucket.end);
            if bucket.start >= end {
                has_newer_rows = false;
                break;
            }
        }
        let more = match list.order {
            ScanOrder::Ascending => has_newer_rows,
            ScanOrder::Descending => {
                page.rows.reverse();
                has_older_rows
            }
        };
        let last = page.rows.last().filter(|_| more);
        page.next = last.map(|row| BucketCursor { start: row.bucket_start, now: as_of.now });
        Ok(Answer { commit: as_of.commit, body: page })
    }

    /// Returns the rate in force at `time`. If one of `previous_closes` is at `time`, returns its rate and does not
    /// read the store.
    fn close_at(
        &self,
        as_of: &AsOf,
        route: &Route,
        time: Timestamp,
        previous_closes: Option<&[RateAtTime; 2]>,
    ) -> Result<RateAtTime, QueryError> {
        match previous_closes.and_then(|rates| rates.iter().find(|(then, _)| *then == time)) {
            Some(close) => Ok(close.clone()),
            None => Ok((time, self.rate_if_quoted(as_of, route, time)?)),
        }
    }
}
