//! Timestamps: instants in whole microseconds, UTC.

use std::fmt;

use chrono::{DateTime, Datelike as _, NaiveDate, NaiveTime, SecondsFormat, Utc};
use thiserror::Error;

/// An instant: microseconds since 1970-01-01T00:00:00Z, negative before it. It is displayed as RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// Why a text or a pair of numbers is not a [`Timestamp`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TimestampError {
    /// The text is neither RFC 3339 nor a date.
    #[error("time '{0}' is not RFC 3339; write it like 2025-12-08T00:00:00Z, or as a date like 2025-12-08")]
    Malformed(String),
    /// The text has the form of a date, but the day does not exist.
    #[error("date '{0}' is not in the calendar")]
    NoSuchDay(String),
    /// The time is finer than a microsecond.
    #[error("time '{0}' is finer than a microsecond; round it to six decimal places of a second")]
    TooFine(String),
    /// The time is a leap second.
    #[error("time '{0}' is a leap second; write second 59, or second 00 of the next minute")]
    LeapSecond(String),
    /// The time is outside the years 0001 to 9999, or the nanoseconds are not from 0 to 999,999,999.
    #[error(
        "time of {seconds} s and {nanos} ns since 1970 is outside the years 0001 to 9999 or has invalid nanoseconds"
    )]
    OutOfRange {
        /// Seconds since 1970-01-01T00:00:00Z.
        seconds: i64,
        /// Nanoseconds after the second.
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
    /// 0001-01-01T00:00:00Z, the earliest instant that RFC 3339 and protobuf can represent.
    pub const MIN: Self = Self(-62_135_596_800 * Self::SECOND_US);
    /// 9999-12-31T23:59:59.999999Z, the latest instant that RFC 3339 and protobuf can represent.
    pub const MAX: Self = Self(253_402_300_800 * Self::SECOND_US - 1);
    /// 1990-01-01T00:00:00Z, the earliest observed time that is accepted.
    pub const OLDEST_OBSERVED: Self = Self(631_152_000 * Self::SECOND_US);

    /// Makes a timestamp from microseconds since 1970-01-01T00:00:00Z.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns microseconds since 1970-01-01T00:00:00Z.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Makes a timestamp from seconds since 1970 and nanoseconds, which must be whole microseconds.
    ///
    /// # Errors
    /// `TooFine` if the nanoseconds are not whole microseconds; `OutOfRange` if the time is outside the years 0001 to
    /// 9999, or the nanoseconds are not from 0 to 999,999,999.
    pub fn from_parts_exact(seconds: i64, nanos: i32) -> Result<Self, TimestampError> {
        let time = Self::from_parts_floor(seconds, nanos)?;
        if nanos % 1_000 != 0 {
            return Err(TimestampError::TooFine(format!("{seconds} s and {nanos} ns since 1970")));
        }
        Ok(time)
    }

    /// Like [`Self::from_parts_exact`], but rounds down to whole microseconds. As-of reads use this rounding.
    ///
    /// # Errors
    /// `OutOfRange`, as in [`Self::from_parts_exact`].
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

    /// Like [`Self::from_parts_exact`], but rounds up to whole microseconds. The bounds of a range use this rounding.
    ///
    /// # Errors
    /// `OutOfRange`, as in [`Self::from_parts_exact`].
    pub fn from_parts_ceil(seconds: i64, nanos: i32) -> Result<Self, TimestampError> {
        let floor = Self::from_parts_floor(seconds, nanos)?;
        Ok(if nanos % 1_000 == 0 { floor } else { floor.saturating_add_us(1) })
    }

    /// Parses RFC 3339, or a date such as `2025-12-08`, which is the start of that day in UTC.
    ///
    /// # Errors
    /// `NoSuchDay` if the text has the form of a date but the day does not exist; otherwise as in
    /// [`Self::parse_rfc3339`].
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        if !has_date_form(text) {
            return Self::parse_rfc3339(text);
        }
        Ok(Self::parse_date(text)?.and_time(NaiveTime::MIN).and_utc().into())
    }

    /// Parses a date such as `2025-12-08`.
    ///
    /// # Errors
    /// `Malformed` if the text does not have this form; `NoSuchDay` if the day does not exist.
    pub fn parse_date(text: &str) -> Result<NaiveDate, TimestampError> {
        if !has_date_form(text) {
            return Err(TimestampError::Malformed(truncate_for_display(text)));
        }
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|date| date.year() > 0);
        date.ok_or_else(|| TimestampError::NoSuchDay(text.to_owned()))
    }

    /// Parses RFC 3339 with at most six decimal places of a second.
    ///
    /// # Errors
    /// `Malformed` if the text is not RFC 3339; `LeapSecond` if its second is 60; `TooFine` if the time is finer than a
    /// microsecond; `OutOfRange` if it is outside the years 0001 to 9999.
    pub fn parse_rfc3339(text: &str) -> Result<Self, TimestampError> {
        if let Some(time) = parse_whole_second(text) {
            return Ok(time);
        }
        let time =
            DateTime::parse_from_rfc3339(text).map_err(|_| TimestampError::Malformed(truncate_for_display(text)))?;
        // chrono represents a leap second by nanoseconds from one to two billion.
        let nanos = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(i32::MAX);
        if nanos >= 1_000_000_000 {
            return Err(TimestampError::LeapSecond(truncate_for_display(text)));
        }
        if nanos % 1_000 != 0 {
            return Err(TimestampError::TooFine(truncate_for_display(text)));
        }
        Self::from_parts_exact(time.timestamp(), nanos)
    }

    /// Returns the seconds since 1970, rounded down, and the nanoseconds after that second.
    pub fn to_parts(self) -> (i64, i32) {
        let nanos = self.0.rem_euclid(Self::SECOND_US) * 1_000;
        (self.0.div_euclid(Self::SECOND_US), i32::try_from(nanos).unwrap_or(0))
    }

    /// Converts to a time of chrono. A time outside chrono's range becomes the nearest bound of that range.
    pub fn to_chrono(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or(if self.0 < 0 {
            DateTime::<Utc>::MIN_UTC
        } else {
            DateTime::<Utc>::MAX_UTC
        })
    }

    /// Adds microseconds. The result saturates at the bounds of `i64`.
    #[must_use]
    pub const fn saturating_add_us(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Returns the microseconds from `earlier` to `self`; negative if `earlier` is the later time.
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

/// Parses the form that most files of ticks have, `2025-12-08T06:00:00Z`, several times faster than chrono. Returns `None`
/// for any other form and for a time that does not exist.
fn parse_whole_second(text: &str) -> Option<Timestamp> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', rest @ ..] = text.as_bytes() else { return None };
    let [h0, h1, b':', i0, i1, b':', s0, s1, b'Z'] = rest else { return None };
    let number = |tens: &u8, ones: &u8| {
        (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| u32::from(tens - b'0') * 10 + u32::from(ones - b'0'))
    };
    let year = i32::try_from(number(y0, y1)? * 100 + number(y2, y3)?).ok().filter(|year| *year > 0)?;
    let date = NaiveDate::from_ymd_opt(year, number(m0, m1)?, number(d0, d1)?)?;
    let time = NaiveTime::from_hms_opt(number(h0, h1)?, number(i0, i1)?, number(s0, s1)?)?;
    Some(date.and_time(time).and_utc().into())
}

/// Returns true if the text has the form `YYYY-MM-DD`. chrono also accepts `2025-1-2` and `+2025-01-02`.
fn has_date_form(text: &str) -> bool {
    let is_part = |(at, byte): (usize, u8)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    text.len() == 10 && text.bytes().enumerate().all(is_part)
}

/// Escapes a text for an error message, and truncates it so that the message does not repeat a long input.
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
    fn time_finer_than_a_microsecond_is_refused_or_rounded() {
        assert!(matches!(Timestamp::from_parts_exact(5, 1_500), Err(TimestampError::TooFine(_))));
        assert_eq!(Timestamp::from_parts_floor(5, 1_999).unwrap().micros(), 5_000_001);
        assert_eq!(Timestamp::from_parts_ceil(5, 1_001).unwrap().micros(), 5_000_002);
        assert_eq!(Timestamp::from_parts_ceil(5, 1_000).unwrap().micros(), 5_000_001);
    }

    #[test]
    fn timestamp_to_parts_and_back_is_exact_before_1970_too() {
        for micros in [0, 1, -1, -1_000_000, -1_000_001, 1_765_152_000_000_000] {
            let time = Timestamp::from_micros(micros);
            let (seconds, nanos) = time.to_parts();
            assert_eq!(Timestamp::from_parts_exact(seconds, nanos), Ok(time));
        }
    }

    #[test]
    fn whole_seconds_are_parsed_as_chrono_parses_them() {
        let mut texts = vec!["0001-01-01T00:00:00Z".to_owned(), "9999-12-31T23:59:59Z".to_owned()];
        for day in ["2024-02-29", "2025-02-29", "2025-12-31", "2025-13-01", "2025-00-10", "0000-01-01", "20a5-01-01"] {
            for time in ["00:00:00", "23:59:59", "24:00:00", "12:60:00", "12:00:60", "12:00:0x", "12-00-00"] {
                texts.push(format!("{day}T{time}Z"));
            }
        }
        for text in texts {
            let slow = DateTime::parse_from_rfc3339(&text).ok().filter(|time| time.timestamp_subsec_nanos() == 0);
            let slow =
                slow.map(|time| Timestamp::from_micros(time.timestamp_micros())).filter(|time| *time >= Timestamp::MIN);
            assert_eq!(parse_whole_second(&text), slow, "{text}");
        }
    }

    #[test]
    fn parse_rfc3339_refuses_dates_and_leap_seconds() {
        let check = |text: &str, expect: Option<i64>| {
            assert_eq!(Timestamp::parse_rfc3339(text).ok().map(Timestamp::micros), expect, "{text}");
        };
        check("1970-01-01T00:00:01Z", Some(1_000_000));
        check("1970-01-01T06:00:00.000001+06:00", Some(1));
        check("1970-01-01T00:00:00.0000001Z", None);
        check("1970-01-01", None);
        check("2016-12-31T23:59:60Z", None);
        check("", None);
        let problem = Timestamp::parse_rfc3339("2016-12-31T23:59:60.5Z").unwrap_err().to_string();
        assert_eq!(
            problem,
            "time '2016-12-31T23:59:60.5Z' is a leap second; write second 59, or second 00 of the next minute"
        );
    }

    #[test]
    fn date_parses_as_its_start_in_utc() {
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
    fn parts_out_of_range_are_refused() {
        assert!(Timestamp::from_parts_exact(i64::MAX, 0).is_err());
        assert!(Timestamp::from_parts_exact(0, -1).is_err());
        assert!(Timestamp::from_parts_exact(253_402_300_800, 0).is_err());
    }
}
