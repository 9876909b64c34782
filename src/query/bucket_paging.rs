//! Which buckets a list is of, and where its next page goes on.
//!
//! **Invariant**: pages of one list hold every row once and count from one "now", whatever the clock does between them.

use super::as_of::AsOf;
use super::{QueryError, Range, Reader};
use crate::analysis::{Bucket, Buckets};
use crate::domain::{Pair, Source, Timestamp};

/// Most buckets that one list may be of, those left out included.
pub const BUCKETS_MAX: u64 = 100_000;

/// Most buckets of a series in an export, those left out included: nineteen years of minutes.
pub const EXPORT_BUCKETS_MAX: u64 = 10_000_000;

/// How many buckets one answer may be of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BucketLimit {
    pub(super) count_max: u64,
    /// Of what, for a message.
    pub(super) each: &'static str,
    /// What to do where there are more.
    pub(super) remedy: &'static str,
}

/// Where buckets may be longer.
const SHORTEN_OR_LENGTHEN: &str = "shorten the range or take a longer one";

impl BucketLimit {
    /// Of a list.
    const LIST: Self = Self { count_max: BUCKETS_MAX, each: "", remedy: SHORTEN_OR_LENGTHEN };
    /// Of an export, which holds none of them in memory: what is limited is the time that it takes.
    pub(super) const EXPORT: Self =
        Self { count_max: EXPORT_BUCKETS_MAX, each: " a series", remedy: SHORTEN_OR_LENGTHEN };
}

/// Asks for buckets of a pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BucketsRequest {
    /// In which direction.
    pub pair: Pair,
    /// From whom; none where a single source has the pair, or one is preferred.
    pub source: Option<Source>,
    /// From whom each leg is, in order, where they are to differ.
    pub leg_sources: Vec<Source>,
    /// Buckets that begin in it; from the first rate on, and none that begins after now.
    pub range: Range,
    /// As known at.
    pub known_time: Option<Timestamp>,
    /// Only what comes after this one.
    pub after: Option<BucketCursor>,
    /// At most so many rows, at least one.
    pub limit: usize,
}

/// Where a list of buckets goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BucketCursor {
    /// The start of the last bucket given.
    pub start: Timestamp,
    /// What the first page took for now.
    pub now: Timestamp,
}

impl Reader {
    /// What such a list sees: its later pages what the first one saw.
    pub(super) fn as_of_buckets(&self, request: &BucketsRequest) -> Result<AsOf, QueryError> {
        self.as_of_pages(request.known_time, request.after)
    }

    /// The same of any list that such a cursor goes on with.
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

/// The first bucket of a page, and before when its buckets begin; none if there are none. `first_rate` is when the pair
/// first has a rate, `field` is where the request says how long buckets are.
pub(super) fn page_buckets(
    request: &BucketsRequest,
    (field, buckets): (&str, Buckets),
    first_rate: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<(Bucket, Timestamp)>, QueryError> {
    let found = range_buckets(request.range, (field, buckets), first_rate, now, BucketLimit::LIST)?;
    let Some((mut first, end)) = found else { return Ok(None) };
    if let Some(BucketCursor { start, .. }) = request.after.filter(|after| after.start >= first.start) {
        first = buckets.at(buckets.at(start).end);
    }
    Ok((first.start < end).then_some((first, end)))
}

/// The same of all buckets that begin in a range.
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
    let BucketLimit { count_max, each, remedy } = limit;
    if count > count_max {
        let (from, zone) = (first.start, buckets.zone);
        let problem = format!(
            "makes some {count} buckets from {from} to {end} in {zone}, and {count_max}{each} are the most; {remedy}"
        );
        return Err(QueryError::invalid(field, problem));
    }
    Ok((first.start < end).then_some((first, end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Zone;
    use crate::domain::Interval;
    use crate::query::latest_tests::key;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn request(start: Option<&str>, end: Option<&str>, after: Option<&str>) -> BucketsRequest {
        let now = at("2025-12-08T12:00:00Z");
        BucketsRequest {
            pair: key("KGS/USD", "timesca").pair,
            source: None,
            leg_sources: Vec::new(),
            range: Range::new(start.map(at), end.map(at)).unwrap(),
            known_time: None,
            after: after.map(|start| BucketCursor { start: at(start), now }),
            limit: 1,
        }
    }

    #[test]
    fn buckets_begin_in_the_range_and_after_the_first_rate() {
        let now = at("2025-12-08T12:00:00Z");
        let check = |start: Option<&str>, end: Option<&str>, after: Option<&str>, expect: Option<(&str, &str)>| {
            let days = Buckets { zone: Zone::UTC, interval: Interval::Day };
            let found =
                page_buckets(&request(start, end, after), ("interval", days), Some(at("2025-12-01T15:00:00Z")), now);
            let found = found.unwrap().map(|(first, end)| (first.start, end));
            assert_eq!(found, expect.map(|(first, end)| (at(first), at(end))));
        };
        let now_included = "2025-12-08T12:00:00.000001Z";
        // The bucket of the first rate is the first of all.
        check(None, None, None, Some(("2025-12-01T00:00:00Z", now_included)));
        check(Some("2025-11-01T00:00:00Z"), None, None, Some(("2025-12-01T00:00:00Z", now_included)));
        check(Some("2025-12-01T00:00:00Z"), None, None, Some(("2025-12-01T00:00:00Z", now_included)));
        // One that began before the range is not in it.
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
        // A cursor from outside goes on from somewhere, and no earlier than the list.
        check(None, None, Some("1990-01-01T00:00:00Z"), Some(("2025-12-01T00:00:00Z", now_included)));
        check(None, None, Some("2025-12-03T05:00:00Z"), Some(("2025-12-04T00:00:00Z", now_included)));
        check(None, None, Some("9999-12-31T23:59:59Z"), None);
    }

    #[test]
    fn a_list_has_a_limit() {
        let minutes = Buckets { zone: Zone::UTC, interval: Interval::Minute };
        let first = at("2025-01-01T00:00:00Z");
        let check = |after_minutes: i64, expect: Option<&str>| {
            let end = first.saturating_add_us(after_minutes * 60 * Timestamp::SECOND_US);
            let request =
                BucketsRequest { range: Range::new(Some(first), Some(end)).unwrap(), ..request(None, None, None) };
            let error = page_buckets(&request, ("interval", minutes), Some(first), Timestamp::MAX)
                .err()
                .map(|error| error.to_string());
            assert_eq!(error.as_deref(), expect);
        };
        check(100_000, None);
        check(
            100_001,
            Some(
                "interval: makes some 100001 buckets from 2025-01-01T00:00:00Z to 2025-03-11T10:41:00Z in UTC, and \
                 100000 are the most; shorten the range or take a longer one",
            ),
        );
    }
}
