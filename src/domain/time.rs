//! Instants in whole microseconds, UTC.

use std::fmt;

use chrono::{DateTime, Datelike as _, NaiveDate, NaiveTime, SecondsFormat, Utc};
use thiserror::Error;

/// An instant: microseconds since 1970-01-01T00:00:00Z, negative before. Prints as RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// Why a text or a pair of numbers is no [`Timestamp`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TimestampError {
    /// Neither RFC 3339 nor a date.
    #[error("time '{0}' is not RFC 3339; write it like 2025-12-08T00:00:00Z, or as a date like 2025-12-08")]
    Malformed(String),
    /// The form of a date, but no day.
    #[error("date '{0}' is not in the calendar")]
    NoSuchDay(String),
    /// Finer than a microsecond.
    #[error("time '{0}' is finer than a microsecond; round it to six decimal places of a second")]
    TooFine(String),
    /// Outside the years 0001 to 9999, or nanoseconds outside a second.
    #[error("time of {seconds} s and {nanos} ns is outside the years 0001 to 9999")]
    OutOfRange {
        /// Seconds since 1970.
        seconds: i64,
        /// Nanoseconds of the second.
        nanos: i32,
    },
}

impl Timestamp {
    /// Microseconds in a second.
    pub const SECOND_US: i64 = 1_000_000;
    /// Microseconds in an hour.
    pub const HOUR_US: i64 = 3_600 * Self::SECOND_US;
    /// Microseconds in a day of 24 hours.
    pub const DAY_US: i64 = 24 * Self::HOUR_US;
    /// 0001-01-01T00:00:00Z, the first instant that prints and crosses the wire.
    pub const MIN: Self = Self(-62_135_596_800 * Self::SECOND_US);
    /// 9999-12-31T23:59:59.999999Z, the last one.
    pub const MAX: Self = Self(253_402_300_800 * Self::SECOND_US - 1);
    /// 1990-01-01T00:00:00Z, the oldest observed time taken in.
    pub const OLDEST_OBSERVED: Self = Self(631_152_000 * Self::SECOND_US);

    /// From microseconds since 1970.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// From whole seconds and nanoseconds that must be whole microseconds.
    ///
    /// # Errors
    /// `TooFine` or `OutOfRange`.
    pub fn from_parts_exact(seconds: i64, nanos: i32) -> Result<Self, TimestampError> {
        let time = Self::from_parts_floor(seconds, nanos)?;
        if nanos % 1_000 != 0 {
            return Err(TimestampError::TooFine(format!("{seconds} s and {nanos} ns since 1970")));
        }
        Ok(time)
    }

    /// The same, a finer time rounded down: what an as-of read does.
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn from_parts_floor(seconds: i64, nanos: i32) -> Result<Self, TimestampError> {
        let out_of_range = TimestampError::OutOfRange { seconds, nanos };
        if !(0..1_000_000_000).contains(&nanos) {
            return Err(out_of_range);
        }
        let micros = seconds.checked_mul(Self::SECOND_US).and_then(|us| us.checked_add(i64::from(nanos) / 1_000));
        match micros.map(Self) {
            Some(time) if (Self::MIN..=Self::MAX).contains(&time) => Ok(time),
            _ => Err(out_of_range),
        }
    }

    /// The same, a finer time rounded up: what the bounds of a range do.
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn from_parts_ceil(seconds: i64, nanos: i32) -> Result<Self, TimestampError> {
        let floor = Self::from_parts_floor(seconds, nanos)?;
        Ok(if nanos % 1_000 == 0 { floor } else { floor.saturating_add_us(1) })
    }

    /// Reads RFC 3339, or a date like `2025-12-08` for its start in UTC.
    ///
    /// # Errors
    /// Any [`TimestampError`].
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        if !has_date_form(text) {
            return Self::parse_rfc3339(text);
        }
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|date| date.year() > 0);
        let date = date.ok_or_else(|| TimestampError::NoSuchDay(text.to_owned()))?;
        Ok(date.and_time(NaiveTime::MIN).and_utc().into())
    }

    /// Reads RFC 3339 with at most six decimal places of a second.
    ///
    /// # Errors
    /// `Malformed`, `TooFine` or `OutOfRange`.
    pub fn parse_rfc3339(text: &str) -> Result<Self, TimestampError> {
        let time =
            DateTime::parse_from_rfc3339(text).map_err(|_| TimestampError::Malformed(truncate_for_display(text)))?;
        // A leap second's nanoseconds reach two billion; it is no instant of the UTC day count.
        let nanos = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(i32::MAX);
        if nanos % 1_000 != 0 {
            return Err(TimestampError::TooFine(truncate_for_display(text)));
        }
        Self::from_parts_exact(time.timestamp(), nanos)
    }

    /// Seconds since 1970, rounded down, and the nanoseconds above them.
    pub fn to_parts(self) -> (i64, i32) {
        let nanos = self.0.rem_euclid(Self::SECOND_US) * 1_000;
        (self.0.div_euclid(Self::SECOND_US), i32::try_from(nanos).unwrap_or(0))
    }

    /// As chrono has it; outside chrono's years, the nearest end.
    pub fn to_chrono(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or(if self.0 < 0 {
            DateTime::<Utc>::MIN_UTC
        } else {
            DateTime::<Utc>::MAX_UTC
        })
    }

    /// Later by so many microseconds, stopping at the ends of an `i64`.
    #[must_use]
    pub const fn saturating_add_us(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to `self`, negative if it is later.
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_chrono().to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Four, two and two digits: chrono would also take `2025-1-2` and `+2025-01-02`.
fn has_date_form(text: &str) -> bool {
    let is_part = |(at, byte): (usize, u8)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    text.len() == 10 && text.bytes().enumerate().all(is_part)
}

/// The head of a text for an error message, so that no caller's megabyte is sent back to it.
pub(crate) fn truncate_for_display(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 48;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => text.escape_debug().to_string(),
        Some((end, _)) => format!("{}...", text[..end].escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finer_than_a_microsecond_is_refused_or_rounded_as_asked() {
        assert!(matches!(Timestamp::from_parts_exact(5, 1_500), Err(TimestampError::TooFine(_))));
        assert_eq!(Timestamp::from_parts_floor(5, 1_999).unwrap().micros(), 5_000_001);
        assert_eq!(Timestamp::from_parts_ceil(5, 1_001).unwrap().micros(), 5_000_002);
        assert_eq!(Timestamp::from_parts_ceil(5, 1_000).unwrap().micros(), 5_000_001);
    }

    #[test]
    fn parts_go_there_and_back_before_1970_too() {
        for micros in [0, 1, -1, -1_000_000, -1_000_001, 1_765_152_000_000_000] {
            let time = Timestamp::from_micros(micros);
            let (seconds, nanos) = time.to_parts();
            assert_eq!(Timestamp::from_parts_exact(seconds, nanos), Ok(time));
        }
    }

    #[test]
    fn parses_rfc3339_only() {
        let check = |text: &str, expect: Option<i64>| {
            assert_eq!(Timestamp::parse_rfc3339(text).ok().map(Timestamp::micros), expect, "{text}");
        };
        check("1970-01-01T00:00:01Z", Some(1_000_000));
        check("1970-01-01T06:00:00.000001+06:00", Some(1));
        check("1970-01-01T00:00:00.0000001Z", None);
        check("1970-01-01", None);
        check("2016-12-31T23:59:60Z", None);
        check("", None);
    }

    #[test]
    fn a_date_is_its_start() {
        let check = |text: &str, expect: Result<&str, &str>| match (Timestamp::parse(text), expect) {
            (Ok(time), Ok(expect)) => assert_eq!(time.to_string(), expect),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (parsed, _) => panic!("{text}: {parsed:?}"),
        };
        check("2025-12-08", Ok("2025-12-08T00:00:00Z"));
        check("2025-12-08T06:00:00+06:00", Ok("2025-12-08T00:00:00Z"));
        check("0001-01-01", Ok("0001-01-01T00:00:00Z"));
        check("2025-02-30", Err("date '2025-02-30' is not in the calendar"));
        check("0000-01-01", Err("date '0000-01-01' is not in the calendar"));
        for bad in ["", "2025-1-2", "+2025-01-02", "2025-12-08 ", "08.12.2025", "2025-12-08T00:00:00"] {
            check(bad, Err("or as a date like 2025-12-08"));
        }
    }

    #[test]
    fn out_of_range_is_an_error_not_a_wrap() {
        assert!(Timestamp::from_parts_exact(i64::MAX, 0).is_err());
        assert!(Timestamp::from_parts_exact(0, -1).is_err());
        assert!(Timestamp::from_parts_exact(253_402_300_800, 0).is_err());
    }
}
