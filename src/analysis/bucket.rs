//! Buckets: periods of local time in a time zone, used by candles and by changes from period to period.
//!
//! Clocks are put forward and back, so a local time may be missing or may occur twice:
//! - Intervals of up to one hour: a bucket is a local slot (10:15 to 10:30) with one offset from UTC. A change of the
//!   clocks ends a bucket. An hour that occurs twice is two buckets with different starts in UTC.
//! - Longer intervals: a bucket starts at the first instant with a local time at or after its nominal start. If
//!   midnight is missing, the bucket starts at the end of the missing time. If midnight occurs twice, the bucket starts
//!   at the earlier one. Such a day has 23 or 25 hours. A day that the calendar of a zone skipped has no bucket.
//!
//! **Invariant**: the buckets of a zone and an interval follow each other without gaps or overlaps, and no bucket is
//! empty. This module reads no clock: the offsets of a zone come from the built-in time zone database.

use std::fmt;

use chrono::offset::{LocalResult, Offset as _, TimeZone as _};
use chrono::{DateTime, Datelike as _, Months, NaiveDate, NaiveDateTime, NaiveTime};
use chrono_tz::Tz;
use thiserror::Error;

use crate::domain::{Interval, Timestamp};

/// An upper bound of the distance of any local clock from UTC, microseconds.
const OFFSET_MAX_US: i64 = 26 * Timestamp::HOUR_US;
/// The maximum number of characters of a zone name in an error message. The longest IANA name has 32 characters.
const ZONE_CHARS_MAX: usize = 64;

/// A time zone of the IANA database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Zone(Tz);

/// A text that is not the name of a time zone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not a time zone of the IANA database; use a name like Asia/Bishkek, or UTC")]
pub struct ZoneError(String);

impl Zone {
    /// Coordinated Universal Time. Every day has 24 hours.
    pub const UTC: Self = Self(Tz::UTC);
    /// The zone of Kazakhstan. The whole country has had one local time since March 2024.
    pub const ALMATY: Self = Self(Tz::Asia__Almaty);
    /// The zone of Turkmenistan.
    pub const ASHGABAT: Self = Self(Tz::Asia__Ashgabat);
    /// The zone of Kyrgyzstan.
    pub const BISHKEK: Self = Self(Tz::Asia__Bishkek);
    /// The zone of Tajikistan.
    pub const DUSHANBE: Self = Self(Tz::Asia__Dushanbe);
    /// The zone of Uzbekistan.
    pub const TASHKENT: Self = Self(Tz::Asia__Tashkent);

    /// Parses an IANA name such as `Asia/Bishkek`. The case of letters matters.
    ///
    /// # Errors
    /// Returns a [`ZoneError`] with the text if no zone has that name.
    pub fn parse(name: &str) -> Result<Self, ZoneError> {
        let unknown = || ZoneError(name.chars().take(ZONE_CHARS_MAX).flat_map(char::escape_debug).collect());
        name.parse().map(Self).map_err(|_| unknown())
    }

    /// Returns the first instant of a local day: 00:00, unless the clocks were put forward over midnight.
    pub fn day_start(self, date: NaiveDate) -> Timestamp {
        self.first_instant(midnight_us(date))
    }

    /// Returns the first instant after a local day.
    pub fn day_end(self, date: NaiveDate) -> Timestamp {
        self.day_start(date.succ_opt().unwrap_or(NaiveDate::MAX))
    }

    /// Returns the local date and time at an instant.
    pub fn local(self, time: Timestamp) -> NaiveDateTime {
        naive(time.micros() + self.offset_us(time))
    }

    /// Returns the local year and month, from 1 to 12, at an instant.
    pub fn month_of(self, time: Timestamp) -> (i32, u32) {
        let local = self.local(time);
        (local.year(), local.month())
    }

    /// Returns the microseconds by which local time is ahead of UTC.
    fn offset_us(self, time: Timestamp) -> i64 {
        if self == Self::UTC {
            return 0;
        }
        let offset = self.0.offset_from_utc_datetime(&naive(time.micros())).fix();
        i64::from(offset.local_minus_utc()) * Timestamp::SECOND_US
    }

    /// Returns the first instant with a local time at or after `local_us`, in microseconds since 1970-01-01 00:00 local
    /// time.
    fn first_instant(self, local_us: i64) -> Timestamp {
        if self == Self::UTC {
            return Timestamp::from_micros(local_us);
        }
        let offset_us = |offset: chrono_tz::TzOffset| i64::from(offset.fix().local_minus_utc()) * Timestamp::SECOND_US;
        let micros = match self.0.offset_from_local_datetime(&naive(local_us)) {
            LocalResult::Single(offset) => local_us - offset_us(offset),
            LocalResult::Ambiguous(one, other) => local_us - offset_us(one).max(offset_us(other)),
            // A missing local time: the clocks skip it at one instant, which the search finds.
            LocalResult::None => first_satisfying(local_us - OFFSET_MAX_US, local_us + OFFSET_MAX_US, |micros| {
                micros + self.offset_us(Timestamp::from_micros(micros)) >= local_us
            }),
        };
        Timestamp::from_micros(micros)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// Returns the first number in `(low, high]` for which `holds` is true, by binary search. If `holds` is true for a
/// number, it must be true for every greater number, and it must be true for `high`.
fn first_satisfying(mut low: i64, mut high: i64, holds: impl Fn(i64) -> bool) -> i64 {
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

fn naive(micros: i64) -> NaiveDateTime {
    DateTime::from_timestamp_micros(micros).unwrap_or_default().naive_utc()
}

/// Returns the start of a local date in microseconds since 1970-01-01 00:00 local time.
fn midnight_us(date: NaiveDate) -> i64 {
    date.and_time(NaiveTime::MIN).and_utc().timestamp_micros()
}

impl Interval {
    /// Returns the nominal start of the local slot that contains `local_us`, and the start of the next slot.
    fn slot(self, local_us: i64) -> (i64, i64) {
        /// 1969-12-29, the Monday before 1970-01-01.
        const MONDAY_US: i64 = -3 * Timestamp::DAY_US;
        let fixed = |from_us: i64| {
            let start = local_us - (local_us - from_us).rem_euclid(self.nominal_us());
            (start, start + self.nominal_us())
        };
        let months = |count: u32, first: Option<NaiveDate>| {
            let first = first.unwrap_or_default();
            (midnight_us(first), midnight_us(first.checked_add_months(Months::new(count)).unwrap_or(NaiveDate::MAX)))
        };
        match self {
            Self::Minute | Self::FiveMinutes | Self::FifteenMinutes | Self::Hour | Self::FourHours | Self::Day => {
                fixed(0)
            }
            Self::Week => fixed(MONDAY_US),
            Self::Month => months(1, naive(local_us).date().with_day(1)),
            Self::Year => months(12, NaiveDate::from_ymd_opt(naive(local_us).year(), 1, 1)),
        }
    }
}

/// A half-open period of time: `[start, end)`.
///
/// **Invariant**: `start < end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// The first instant of the bucket, which identifies the bucket.
    pub start: Timestamp,
    /// The first instant of the next bucket.
    pub end: Timestamp,
}

/// The buckets of an interval in the local time of a zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buckets {
    /// The time zone of the buckets.
    pub zone: Zone,
    /// The nominal length of the buckets.
    pub interval: Interval,
}

impl Buckets {
    /// Returns the bucket that contains `time`.
    pub fn at(self, time: Timestamp) -> Bucket {
        if self.interval.nominal_us() <= Timestamp::HOUR_US {
            self.local_slot_bucket(time)
        } else {
            self.calendar_bucket(time)
        }
    }

    fn calendar_bucket(self, time: Timestamp) -> Bucket {
        let (mut slot, mut next) = self.interval.slot(time.micros() + self.zone.offset_us(time));
        loop {
            let end = self.zone.first_instant(next);
            if time < end {
                return Bucket { start: self.zone.first_instant(slot), end };
            }
            // The clocks were put back over midnight, so the local time is in the previous slot again.
            (slot, next) = self.interval.slot(next);
        }
    }

    fn local_slot_bucket(self, time: Timestamp) -> Bucket {
        let offset_us = self.zone.offset_us(time);
        let same_offset = |micros: i64| self.zone.offset_us(Timestamp::from_micros(micros)) == offset_us;
        let (slot, next) = self.interval.slot(time.micros() + offset_us);
        let (mut start, mut end) = (slot - offset_us, next - offset_us);
        // The clocks change at most once in an hour.
        if !same_offset(start) {
            start = first_satisfying(start, time.micros(), same_offset);
        }
        if !same_offset(end - 1) {
            end = first_satisfying(time.micros(), end - 1, |micros| !same_offset(micros));
        }
        Bucket { start: Timestamp::from_micros(start), end: Timestamp::from_micros(end) }
    }

    /// Returns an estimate of the number of buckets in `[start, end)`, rounded up. Assumes that `start` is the start of
    /// a bucket, that the clocks do not change, and that every month and year has the shortest possible length. So the
    /// number of months and years may be too high.
    pub fn count_between(self, start: Timestamp, end: Timestamp) -> u64 {
        let span_us = end.micros_since(start).max(0);
        u64::try_from(span_us).unwrap_or(0).div_ceil(self.interval.nominal_us().unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE_US: i64 = 60 * Timestamp::SECOND_US;

    fn time(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn buckets(zone: &str, interval: Interval) -> Buckets {
        Buckets { zone: Zone::parse(zone).unwrap(), interval }
    }

    #[track_caller]
    fn check(zone: &str, interval: Interval, at: &str, start: &str, end: &str) {
        let bucket = buckets(zone, interval).at(time(at));
        assert_eq!((bucket.start, bucket.end), (time(start), time(end)), "{interval:?} of {zone} at {at}");
    }

    #[test]
    fn buckets_follow_the_local_clock_and_calendar() {
        use Interval::{Day, FifteenMinutes, FiveMinutes, FourHours, Hour, Minute, Month, Week, Year};
        let at = "2025-12-10T13:44:59.999999Z";
        check("UTC", Minute, at, "2025-12-10T13:44:00Z", "2025-12-10T13:45:00Z");
        check("UTC", FiveMinutes, at, "2025-12-10T13:40:00Z", "2025-12-10T13:45:00Z");
        check("UTC", FifteenMinutes, at, "2025-12-10T13:30:00Z", "2025-12-10T13:45:00Z");
        check("UTC", Hour, at, "2025-12-10T13:00:00Z", "2025-12-10T14:00:00Z");
        check("UTC", FourHours, at, "2025-12-10T12:00:00Z", "2025-12-10T16:00:00Z");
        check("UTC", Day, at, "2025-12-10T00:00:00Z", "2025-12-11T00:00:00Z");
        // Weeks start on Monday. 8 December 2025 is a Monday.
        check("UTC", Week, at, "2025-12-08T00:00:00Z", "2025-12-15T00:00:00Z");
        check("UTC", Month, at, "2025-12-01T00:00:00Z", "2026-01-01T00:00:00Z");
        check("UTC", Year, at, "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
        // The start of a bucket belongs to the bucket, and times before 1970 follow the same rules.
        check("UTC", Day, "2025-12-10T00:00:00Z", "2025-12-10T00:00:00Z", "2025-12-11T00:00:00Z");
        check("UTC", Week, "1969-12-28T23:59:59Z", "1969-12-22T00:00:00Z", "1969-12-29T00:00:00Z");
        check("UTC", Month, "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z");
        // Five hours ahead of UTC, and five and a half.
        check("Asia/Tashkent", Day, "2025-12-10T18:59:59Z", "2025-12-09T19:00:00Z", "2025-12-10T19:00:00Z");
        check("Asia/Tashkent", Month, "2025-12-31T19:00:00Z", "2025-12-31T19:00:00Z", "2026-01-31T19:00:00Z");
        check("Asia/Kolkata", Hour, "2025-12-10T13:29:00Z", "2025-12-10T12:30:00Z", "2025-12-10T13:30:00Z");
    }

    #[test]
    fn day_starts_at_its_first_local_instant() {
        use Interval::{Day, FourHours, Month, Week};
        // Midnight is missing: clocks go from 00:00 to 01:00.
        check("America/Sao_Paulo", Day, "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z");
        check("America/Sao_Paulo", Day, "2018-11-04T02:59:59Z", "2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z");
        check("Africa/Cairo", Day, "2024-04-26T12:00:00Z", "2024-04-25T22:00:00Z", "2024-04-26T21:00:00Z");
        check("Asia/Beirut", Week, "2024-04-01T12:00:00Z", "2024-03-31T21:00:00Z", "2024-04-07T21:00:00Z");
        check("America/Sao_Paulo", FourHours, "2018-11-04T03:00:00Z", "2018-11-04T03:00:00Z", "2018-11-04T06:00:00Z");
        // Clocks go back from 00:00 to 23:00: the day before has 25 hours.
        check("America/Sao_Paulo", Day, "2018-02-18T02:30:00Z", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z");
        // Clocks go back from 00:01 to 23:01: midnight occurs twice, and the day starts at the first one.
        check("America/St_Johns", Day, "2010-11-07T02:45:00Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z");
        check("America/St_Johns", Day, "2010-11-07T02:29:59Z", "2010-11-06T02:30:00Z", "2010-11-07T02:30:00Z");
        // Samoa crossed the date line and had no 30 December.
        check("Pacific/Apia", Day, "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z");
        check("Pacific/Apia", Day, "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z");
        check("Pacific/Apia", Month, "2011-12-30T10:00:00Z", "2011-12-01T10:00:00Z", "2011-12-31T10:00:00Z");
    }

    #[test]
    fn repeated_hour_is_two_buckets() {
        use Interval::{Day, FifteenMinutes, FourHours, Hour};
        // The clocks go back from 03:00 to 02:00.
        check("Europe/Berlin", Hour, "2025-10-26T00:59:59Z", "2025-10-26T00:00:00Z", "2025-10-26T01:00:00Z");
        check("Europe/Berlin", Hour, "2025-10-26T01:00:00Z", "2025-10-26T01:00:00Z", "2025-10-26T02:00:00Z");
        check("Europe/Berlin", FourHours, "2025-10-26T01:00:00Z", "2025-10-25T22:00:00Z", "2025-10-26T03:00:00Z");
        check("Europe/Berlin", Day, "2025-10-26T01:00:00Z", "2025-10-25T22:00:00Z", "2025-10-26T23:00:00Z");
        // The clocks go back by half an hour, from 02:00 to 01:30.
        check("Australia/Lord_Howe", Hour, "2025-04-05T14:59:59Z", "2025-04-05T14:00:00Z", "2025-04-05T15:00:00Z");
        check("Australia/Lord_Howe", Hour, "2025-04-05T15:00:00Z", "2025-04-05T15:00:00Z", "2025-04-05T15:30:00Z");
        check("Australia/Lord_Howe", Hour, "2025-04-05T15:30:00Z", "2025-04-05T15:30:00Z", "2025-04-05T16:30:00Z");
        // The clocks go back inside a slot, from 00:01 to 23:01.
        check(
            "America/St_Johns",
            FifteenMinutes,
            "2010-11-07T02:30:30Z",
            "2010-11-07T02:30:00Z",
            "2010-11-07T02:31:00Z",
        );
        check(
            "America/St_Johns",
            FifteenMinutes,
            "2010-11-07T02:31:00Z",
            "2010-11-07T02:31:00Z",
            "2010-11-07T02:45:00Z",
        );
    }

    #[test]
    fn zone_names_are_iana_names_in_exact_case() {
        assert_eq!(Zone::parse("UTC").unwrap(), Zone::UTC);
        assert_eq!(Zone::parse("Asia/Bishkek").unwrap().to_string(), "Asia/Bishkek");
        for bad in ["", "asia/bishkek", "KGT", "+06:00", "Asia", "Mars/Olympus", "Asia/Bishkek ", "\u{1b}[2J"] {
            let error = Zone::parse(bad).unwrap_err().to_string();
            assert!(error.contains("is not a time zone of the IANA database") && !error.contains('\u{1b}'), "{error}");
        }
    }

    #[test]
    fn bucket_counts_round_up() {
        let minutes = buckets("UTC", Interval::Minute);
        let check = |end_us: i64, expect: u64| {
            assert_eq!(minutes.count_between(Timestamp::default(), Timestamp::from_micros(end_us)), expect);
        };
        check(-5, 0);
        check(0, 0);
        check(1, 1);
        check(MINUTE_US, 1);
        check(MINUTE_US + 1, 2);
    }

    /// Zones with clock changes at unusual times, by unusual lengths, or by a day.
    const ZONES: [&str; 16] = [
        "UTC",
        "Asia/Bishkek",
        "Asia/Almaty",
        "Asia/Tashkent",
        "Asia/Kathmandu",
        "America/Sao_Paulo",
        "America/St_Johns",
        "America/Havana",
        "America/Juneau",
        "Africa/Cairo",
        "Africa/Casablanca",
        "Asia/Beirut",
        "Australia/Lord_Howe",
        "Antarctica/Troll",
        "Pacific/Apia",
        "Pacific/Kwajalein",
    ];

    fn zoned() -> impl Strategy<Value = Buckets> {
        (prop::sample::select(ZONES.to_vec()), prop::sample::select(Interval::ALL.to_vec()))
            .prop_map(|(zone, interval)| buckets(zone, interval))
    }

    /// Any instant of 1960 to 2040, or an instant near a whole hour, where most clock changes are.
    fn instants() -> impl Strategy<Value = Timestamp> {
        let any = -315_619_200_000_000..2_208_988_800_000_000_i64;
        let near = (any.clone(), -2..3_i64).prop_map(|(us, off)| us - us.rem_euclid(Timestamp::HOUR_US) + off);
        prop_oneof![any, near].prop_map(Timestamp::from_micros)
    }

    proptest! {
        #[test]
        fn buckets_follow_each_other_without_gaps(buckets in zoned(), anchor in instants(), inside in 0..1_000_i64) {
            let mut bucket = buckets.at(anchor);
            prop_assert!(bucket.start <= anchor && anchor < bucket.end);
            for _ in 0..30 {
                prop_assert!(bucket.start < bucket.end);
                // Every instant of a bucket maps to the same bucket.
                let length_us = bucket.end.micros_since(bucket.start);
                let within = bucket.start.saturating_add_us(length_us / 1_000 * inside);
                for time in [bucket.start, within, bucket.end.saturating_add_us(-1)] {
                    prop_assert_eq!(buckets.at(time), bucket);
                }
                let next = buckets.at(bucket.end);
                prop_assert_eq!(next.start, bucket.end);
                prop_assert!(length_us <= buckets.interval.nominal_us() * 11 / 10 + 25 * Timestamp::HOUR_US);
                bucket = next;
            }
        }

        #[test]
        fn bucket_starts_at_the_first_local_time_of_its_slot(buckets in zoned(), anchor in instants()) {
            let bucket = buckets.at(anchor);
            let local_us = |time: Timestamp| time.micros() + buckets.zone.offset_us(time);
            let slot = |time: Timestamp| buckets.interval.slot(local_us(time)).0;
            let before = bucket.start.saturating_add_us(-1);
            // A bucket that starts inside a slot starts at a clock change.
            let changes = buckets.zone.offset_us(before) != buckets.zone.offset_us(bucket.start);
            prop_assert!(changes || local_us(bucket.start) == slot(bucket.start));
            prop_assert!(changes || slot(before) < slot(bucket.start));
            if buckets.interval.nominal_us() <= Timestamp::HOUR_US {
                let last = bucket.end.saturating_add_us(-1);
                prop_assert_eq!(buckets.zone.offset_us(bucket.start), buckets.zone.offset_us(last));
                prop_assert_eq!(slot(bucket.start), slot(last));
            }
        }
    }
}
