//! Bucket paging: the buckets of a list and the cursor of its next page.
//!
//! **Invariant**: the pages of one list together hold every row once, and all pages use the current time of the first
//! page.

use super::as_of::AsOf;
use super::{MomentRange, QueryError, Range, Reader};
use crate::analysis::{Bucket, Buckets, Zone};
use crate::domain::{Pair, ScanOrder, Source, Timestamp};

/// The maximum number of buckets of a list, including empty buckets that have no row.
pub const BUCKETS_MAX: u64 = 100_000;

/// The maximum number of buckets of a series in an export, including empty buckets that have no row: nineteen years of
/// minutes.
pub const EXPORT_BUCKETS_MAX: u64 = 10_000_000;

/// The maximum number of buckets of an answer, and the texts of the error message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BucketLimit {
    pub(super) count_max: u64,
    /// The text after the limit in the error message. It says what the limit applies to. Empty if the limit applies to
    /// the whole answer.
    pub(super) scope: &'static str,
    /// What the client can do to stay below the limit.
    pub(super) remedy: &'static str,
}

/// The remedy in the error message if the length of the buckets is a parameter of the request.
const RANGE_OR_INTERVAL_REMEDY: &str = "shorten the range or use a longer interval";

impl BucketLimit {
    /// The limit of a list.
    const LIST: Self = Self { count_max: BUCKETS_MAX, scope: "", remedy: RANGE_OR_INTERVAL_REMEDY };
    /// The limit of an export. An export does not hold its buckets in memory, so the limit bounds only the duration.
    pub(super) const EXPORT: Self =
        Self { count_max: EXPORT_BUCKETS_MAX, scope: " for each series", remedy: RANGE_OR_INTERVAL_REMEDY };
}

/// A request for a page of the buckets of a pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BucketsRequest {
    /// The pair, in the requested direction.
    pub pair: Pair,
    /// The source of every leg. `None` means the source that the choice rule selects.
    pub source: Option<Source>,
    /// The source of each leg, in order of the legs. Empty means `source` for every leg.
    pub leg_sources: Vec<Source>,
    /// The list has the buckets that start in this range. It has no bucket before the bucket of the first rate and no
    /// bucket that starts after now.
    pub range: MomentRange,
    /// The time zone of days and of buckets of a day or more. `None` means the zone of the source, and UTC for shorter
    /// buckets.
    pub zone: Option<Zone>,
    /// Read the data as known at this time. `None` means the newest commit.
    pub known_time: Option<Timestamp>,
    /// The order of the rows: oldest or newest first.
    pub order: ScanOrder,
    /// Return only buckets after this position, in the requested order.
    pub after: Option<BucketCursor>,
    /// The maximum number of rows, at least one.
    pub limit: usize,
}

/// The position after which the next page of a list of buckets starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BucketCursor {
    /// The start of the last bucket of the previous page.
    pub start: Timestamp,
    /// The current time of the first page.
    pub now: Timestamp,
}

impl Reader {
    /// Returns the commit and the current time of a page of buckets. Later pages use the current time of the first
    /// page.
    pub(super) fn as_of_buckets(&self, request: &BucketsRequest) -> Result<AsOf, QueryError> {
        self.as_of_pages(request.known_time, request.after)
    }

    /// Returns the commit and the current time of a page, for any list with a [`BucketCursor`].
    pub(super) fn as_of_pages(
        &self,
        known_time: Option<Timestamp>,
        after: Option<BucketCursor>,
    ) -> Result<AsOf, QueryError> {
        let as_of = self.as_of(known_time)?;
        Ok(match after {
            Some(after) => AsOf { now: after.now, ..as_of },
            None => as_of,
        })
    }
}

/// Returns the first of the buckets that a page may have, and their end, exclusive: every bucket starts before that time.
/// In ascending order, the buckets before them are on earlier pages; in descending order, the buckets after them.
/// Returns `None` if the page has no buckets. `range` is the range of `request` in its time zone. `first_rate` is the
/// time of the first rate of the pair. `field` is the request field with the length of the buckets, for the error
/// message.
///
/// # Errors
/// Returns `InvalidArgument` if the list has too many buckets.
pub(super) fn page_buckets(
    (request, range): (&BucketsRequest, Range),
    (field, buckets): (&str, Buckets),
    first_rate: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<(Bucket, Timestamp)>, QueryError> {
    let found = range_buckets(range, (field, buckets), first_rate, now, BucketLimit::LIST)?;
    Ok(found.and_then(|found| rest_of_list(buckets, found, (request.order, request.after))))
}

/// Returns the part of a list that comes after a cursor, as [`page_buckets`] does.
pub(super) fn rest_of_list(
    buckets: Buckets,
    (mut first, mut end): (Bucket, Timestamp),
    (order, after): (ScanOrder, Option<BucketCursor>),
) -> Option<(Bucket, Timestamp)> {
    match (order, after) {
        (ScanOrder::Ascending, Some(after)) if after.start >= first.start => {
            first = buckets.at(buckets.at(after.start).end);
        }
        (ScanOrder::Descending, Some(after)) => end = end.min(after.start),
        (_, _) => {}
    }
    (first.start < end).then_some((first, end))
}

/// Returns the first of the last `count` buckets that start before `end`, but none before `first`. `count` is at least
/// one.
pub(super) fn last_buckets(buckets: Buckets, first: Bucket, end: Timestamp, count: usize) -> Bucket {
    let mut bucket = buckets.at(end.saturating_add_us(-1));
    for _ in 1..count {
        if bucket.start <= first.start {
            break;
        }
        bucket = buckets.at(bucket.start.saturating_add_us(-1));
    }
    if bucket.start <= first.start { first } else { bucket }
}

/// Returns the first bucket of a list, and the end of the list, exclusive. The list has the buckets that start in
/// `range`, from the bucket of the first rate on. Returns `None` if the list is empty. `field` is the request field
/// that an error message names.
///
/// # Errors
/// Returns `InvalidArgument` if the list has more buckets than `limit`.
pub(super) fn range_buckets(
    range: Range,
    (field, buckets): (&str, Buckets),
    first_rate: Option<Timestamp>,
    now: Timestamp,
    limit: BucketLimit,
) -> Result<Option<(Bucket, Timestamp)>, QueryError> {
    let end = range.end().min(now.saturating_add_us(1));
    let Some(first_rate) = first_rate.filter(|first| *first < end) else { return Ok(None) };
    let mut first = buckets.at(first_rate);
    let start = range.start();
    if start > first.start {
        first = buckets.at(start);
        if first.start < start {
            first = buckets.at(first.end);
        }
    }
    let count = buckets.count_between(first.start, end);
    let BucketLimit { count_max, scope, remedy } = limit;
    if count > count_max {
        let (from, zone) = (first.start, buckets.zone);
        let problem = format!(
            "gives about {count} buckets from {from} to {end} in {zone}; the limit is {count_max}{scope}; {remedy}"
        );
        return Err(QueryError::invalid(field, problem));
    }
    Ok((first.start < end).then_some((first, end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Interval;
    use crate::query::latest_tests::key;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn of(request: &BucketsRequest) -> (&BucketsRequest, Range) {
        (request, request.range.in_zone(Zone::UTC).unwrap())
    }

    fn request(start: Option<&str>, end: Option<&str>, after: Option<&str>) -> BucketsRequest {
        let now = at("2025-12-08T12:00:00Z");
        BucketsRequest {
            pair: key("KGS/USD", "timesca").pair,
            source: None,
            leg_sources: Vec::new(),
            range: Range::new(start.map(at), end.map(at)).unwrap().into(),
            zone: None,
            known_time: None,
            order: ScanOrder::Ascending,
            after: after.map(|start| BucketCursor { start: at(start), now }),
            limit: 1,
        }
    }

    #[test]
    fn list_begins_with_the_bucket_of_the_first_rate_or_the_first_bucket_in_the_range() {
        let now = at("2025-12-08T12:00:00Z");
        let check = |start: Option<&str>, end: Option<&str>, after: Option<&str>, expect: Option<(&str, &str)>| {
            let days = Buckets { zone: Zone::UTC, interval: Interval::Day };
            let found = page_buckets(
                of(&request(start, end, after)),
                ("interval", days),
                Some(at("2025-12-01T15:00:00Z")),
                now,
            );
            let found = found.unwrap().map(|(first, end)| (first.start, end));
            assert_eq!(found, expect.map(|(first, end)| (at(first), at(end))));
        };
        let now_included = "2025-12-08T12:00:00.000001Z";
        // The bucket of the first rate is the first bucket of the list.
        check(None, None, None, Some(("2025-12-01T00:00:00Z", now_included)));
        check(Some("2025-11-01T00:00:00Z"), None, None, Some(("2025-12-01T00:00:00Z", now_included)));
        check(Some("2025-12-01T00:00:00Z"), None, None, Some(("2025-12-01T00:00:00Z", now_included)));
        // A bucket that starts before the range is not in the list.
        check(Some("2025-12-01T00:00:01Z"), None, None, Some(("2025-12-02T00:00:00Z", now_included)));
        check(None, Some("2025-12-05T00:00:00Z"), None, Some(("2025-12-01T00:00:00Z", "2025-12-05T00:00:00Z")));
        check(None, Some("2025-12-01T15:00:00Z"), None, None);
        check(Some("2025-12-08T01:00:00Z"), None, None, None);
        check(Some("2025-12-20T00:00:00Z"), None, None, None);
        check(
            None,
            Some("2026-12-20T00:00:00Z"),
            Some("2025-12-03T00:00:00Z"),
            Some(("2025-12-04T00:00:00Z", now_included)),
        );
        check(None, None, Some("2025-12-08T00:00:00Z"), None);
        // A cursor outside the list or inside a bucket is valid, and the page never starts before the list.
        check(None, None, Some("1990-01-01T00:00:00Z"), Some(("2025-12-01T00:00:00Z", now_included)));
        check(None, None, Some("2025-12-03T05:00:00Z"), Some(("2025-12-04T00:00:00Z", now_included)));
        check(None, None, Some("9999-12-31T23:59:59Z"), None);
    }

    #[test]
    fn list_beyond_the_bucket_limit_is_refused() {
        let minutes = Buckets { zone: Zone::UTC, interval: Interval::Minute };
        let first = at("2025-01-01T00:00:00Z");
        let check = |after_minutes: i64, expect: Option<&str>| {
            let end = first.saturating_add_us(after_minutes * 60 * Timestamp::SECOND_US);
            let request = BucketsRequest {
                range: Range::new(Some(first), Some(end)).unwrap().into(),
                ..request(None, None, None)
            };
            let error = page_buckets(of(&request), ("interval", minutes), Some(first), Timestamp::MAX)
                .err()
                .map(|error| error.to_string());
            assert_eq!(error.as_deref(), expect);
        };
        check(100_000, None);
        check(
            100_001,
            Some(
                "interval: gives about 100001 buckets from 2025-01-01T00:00:00Z to 2025-03-11T10:41:00Z in UTC; \
                 the limit is 100000; shorten the range or use a longer interval",
            ),
        );
    }
}
