//! Spans: durations that are written as a count and a unit, such as `7d`.
//!
//! Every flag, setting and query parameter that takes a duration, a limit or a window is parsed here.
//!
//! **Invariant**: a parsed span has a count of at least 1.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::Months;
use thiserror::Error;

use super::time::{Timestamp, truncate_for_display};

/// A duration as a count and a unit. The unit is kept, because months and years have no fixed length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    count: u32,
    unit: SpanUnit,
}

/// The unit of a [`Span`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SpanUnit {
    /// `ms`, milliseconds.
    Millisecond,
    /// `s`, seconds.
    Second,
    /// `m`, minutes of 60 seconds.
    Minute,
    /// `h`, hours of 60 minutes.
    Hour,
    /// `d`, days of 24 hours, as in UTC.
    Day,
    /// `w`, weeks of seven days.
    Week,
    /// `mo`, calendar months.
    Month,
    /// `y`, years of twelve calendar months.
    Year,
}

/// Why a text is not a duration of fixed length within limits.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DurationError {
    /// The text is not a span, or the span has no fixed length.
    #[error(transparent)]
    Span(#[from] SpanError),
    /// The duration is outside the limits.
    #[error("it is outside {} to {}; choose a duration between them", format_duration(duration_us(*min)), format_duration(duration_us(*max)))]
    Range {
        /// The shortest allowed duration.
        min: Duration,
        /// The longest allowed duration.
        max: Duration,
    },
}

/// Parses a duration of fixed length from `min` to `max`, both inclusive. `0s` is accepted as zero, although it is not
/// a valid [`Span`].
///
/// # Errors
/// `Span` if the text is not a span or has no fixed length; `Range` if the duration is outside the limits.
pub fn parse_duration(text: &str, min: Duration, max: Duration) -> Result<Duration, DurationError> {
    let micros = if text == "0s" { 0 } else { text.parse::<Span>()?.micros()? };
    let duration = Duration::from_micros(micros.unsigned_abs());
    if (min..=max).contains(&duration) { Ok(duration) } else { Err(DurationError::Range { min, max }) }
}

/// The length of a span.
enum Length {
    /// A fixed length, in microseconds.
    Fixed(i64),
    /// A number of calendar months.
    Months(Months),
}

impl SpanUnit {
    /// Every unit, from the shortest to the longest.
    pub const ALL: [Self; 8] =
        [Self::Millisecond, Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// The letters that follow the count in text.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Millisecond => "ms",
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
            Self::Day => "d",
            Self::Week => "w",
            Self::Month => "mo",
            Self::Year => "y",
        }
    }

    /// The length of the unit in microseconds; `None` for months and years.
    const fn fixed_us(self) -> Option<i64> {
        match self {
            Self::Millisecond => Some(1_000),
            Self::Second => Some(Timestamp::SECOND_US),
            Self::Minute => Some(60 * Timestamp::SECOND_US),
            Self::Hour => Some(Timestamp::HOUR_US),
            Self::Day => Some(Timestamp::DAY_US),
            Self::Week => Some(7 * Timestamp::DAY_US),
            Self::Month | Self::Year => None,
        }
    }
}

/// Why a text is not a span.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpanError {
    /// The text is not digits followed by a unit.
    #[error(
        "'{0}' is not a valid duration; write a count and a unit, like 90s or 7d (s seconds, m minutes, h hours, \
         d days, w weeks, mo months, y years)"
    )]
    Malformed(String),
    /// The count is zero, or does not fit in 32 bits.
    #[error("duration '{0}' has an invalid count; write a count from 1 to 4294967295")]
    Count(String),
    /// The span is in months or years, but a fixed length is required.
    #[error("duration '{0}' has no fixed length; write days, like 30d")]
    NoFixedLength(Span),
    /// The span is in seconds or milliseconds, but a window is required.
    #[error(
        "window '{0}' is too fine; write it in minutes (m), hours (h), days (d), weeks (w), months (mo) or years (y)"
    )]
    TooFine(Span),
}

impl Span {
    /// Makes a span of `count` units. A count of zero is an empty span, which cannot be parsed from text.
    pub const fn new(count: u32, unit: SpanUnit) -> Self {
        Self { count, unit }
    }

    /// The number of units.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// The unit.
    pub const fn unit(self) -> SpanUnit {
        self.unit
    }

    fn length(self) -> Length {
        match (self.unit.fixed_us(), self.unit) {
            (Some(unit_us), _) => Length::Fixed(i64::from(self.count).saturating_mul(unit_us)),
            (None, SpanUnit::Year) => Length::Months(Months::new(self.count.saturating_mul(12))),
            (None, _) => Length::Months(Months::new(self.count)),
        }
    }

    /// Returns the length in microseconds.
    ///
    /// # Errors
    /// Returns `SpanError::NoFixedLength` for months and years.
    pub fn micros(self) -> Result<i64, SpanError> {
        match self.length() {
            Length::Fixed(micros) => Ok(micros),
            Length::Months(_) => Err(SpanError::NoFixedLength(self)),
        }
    }

    /// Subtracts this span from `end`. Returns `None` if the result is before the year 0001.
    ///
    /// Months and years follow the calendar. A day that does not exist becomes the last day of the month: one month
    /// before 31 March is the last day of February.
    pub fn before(self, end: Timestamp) -> Option<Timestamp> {
        let earlier = match self.length() {
            Length::Fixed(micros) => end.micros().checked_sub(micros).map(Timestamp::from_micros),
            Length::Months(months) => end.to_chrono().checked_sub_months(months).map(Timestamp::from),
        };
        earlier.filter(|time| *time >= Timestamp::MIN)
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let malformed = || SpanError::Malformed(truncate_for_display(text));
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(malformed)?;
        let (count, suffix) = text.split_at(unit_at);
        let unit = SpanUnit::ALL.into_iter().find(|unit| unit.suffix() == suffix).ok_or_else(malformed)?;
        if count.is_empty() {
            return Err(malformed());
        }
        match count.parse() {
            Ok(count) if count > 0 => Ok(Self { count, unit }),
            Ok(_) | Err(_) => Err(SpanError::Count(truncate_for_display(text))),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.count, self.unit.suffix())
    }
}

/// Converts a duration to microseconds. A duration that does not fit becomes `i64::MAX`.
pub fn duration_us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Formats microseconds as seconds, as in the JSON form of google.protobuf.Duration: `3600s`, `0.5s`.
pub fn format_seconds(micros: i64) -> String {
    const SECOND_US: u64 = Timestamp::SECOND_US.unsigned_abs();
    let sign = if micros < 0 { "-" } else { "" };
    let (seconds, fraction) = (micros.unsigned_abs() / SECOND_US, micros.unsigned_abs() % SECOND_US);
    if fraction == 0 {
        return format!("{sign}{seconds}s");
    }
    let digits = format!("{fraction:06}");
    format!("{sign}{seconds}.{}s", digits.trim_end_matches('0'))
}

/// Formats microseconds in the largest unit, up to days, that gives a whole number: `90m`, `366d`. Zero is `0s`. The
/// text parses as a [`Span`], with two exceptions: zero, and a duration that is not a whole number of milliseconds.
/// Such a duration is written in microseconds (`us`).
pub fn format_duration(micros: i64) -> String {
    if micros == 0 {
        return "0s".to_owned();
    }
    let units = SpanUnit::ALL.into_iter().filter(|unit| *unit != SpanUnit::Week).rev();
    let mut fixed = units.filter_map(|unit| Some((unit.fixed_us()?, unit.suffix())));
    match fixed.find(|(unit_us, _)| micros % unit_us == 0) {
        Some((unit_us, suffix)) => format!("{}{suffix}", micros / unit_us),
        None => format!("{micros}us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Span {
        text.parse().unwrap()
    }

    #[test]
    fn format_duration_gives_text_that_parses() {
        for text in ["366d", "7d", "1d", "36h", "1h", "90m", "1m", "90s", "10s", "1500ms"] {
            assert_eq!(format_duration(span(text).micros().unwrap()), text);
            assert_eq!(span(text).to_string(), text);
        }
        assert_eq!((format_duration(0), format_duration(7)), ("0s".to_owned(), "7us".to_owned()));
    }

    #[test]
    fn span_of_months_or_years_has_no_fixed_length() {
        let check = |text: &str, expect: Result<i64, &str>| match (text.parse::<Span>().and_then(Span::micros), expect)
        {
            (Ok(micros), Ok(expect)) => assert_eq!(micros, expect * Timestamp::SECOND_US, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (found, expect) => panic!("{text}: {found:?}, expected {expect:?}"),
        };
        check("90s", Ok(90));
        check("90m", Ok(5_400));
        check("12h", Ok(43_200));
        check("2d", Ok(172_800));
        check("1w", Ok(604_800));
        check("1mo", Err("1mo' has no fixed length; write days"));
        check("1y", Err("no fixed length"));
        check("0d", Err("has an invalid count; write a count from 1"));
        check("4294967296s", Err("has an invalid count; write a count from 1"));
        for bad in ["", "s", "-2d", "1M", "2 d", "1.5h", "1h30m", "d7", "7"] {
            check(bad, Err("write a count and a unit"));
        }
    }

    #[test]
    fn parse_duration_refuses_a_duration_outside_its_limits() {
        let check = |text: &str, expect: Result<u64, &str>| match (
            parse_duration(text, Duration::ZERO, Duration::from_hours(1)),
            expect,
        ) {
            (Ok(duration), Ok(expect)) => assert_eq!(duration.as_secs(), expect, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (found, expect) => panic!("{text}: {found:?}, expected {expect:?}"),
        };
        check("0s", Ok(0));
        check("90s", Ok(90));
        check("1h", Ok(3_600));
        check("61m", Err("it is outside 0s to 1h; choose a duration between them"));
        check("1mo", Err("no fixed length"));
        check("0m", Err("has an invalid count; write a count from 1"));
    }

    #[test]
    fn format_seconds_keeps_every_microsecond() {
        let check = |micros: i64, expect: &str| assert_eq!(format_seconds(micros), expect);
        check(0, "0s");
        check(3_600_000_000, "3600s");
        check(5_400_500_000, "5400.5s");
        check(-1, "-0.000001s");
    }

    #[test]
    fn span_before_a_time_follows_the_calendar() {
        let check = |end: &str, text: &str, expect: Option<&str>| {
            let start = span(text).before(Timestamp::parse_rfc3339(end).unwrap()).map(|start| start.to_string());
            assert_eq!(start.as_deref(), expect, "{text} before {end}");
        };
        let noon = "2025-12-08T12:00:00.000001Z";
        check(noon, "90s", Some("2025-12-08T11:58:30.000001Z"));
        check(noon, "5m", Some("2025-12-08T11:55:00.000001Z"));
        check(noon, "13h", Some("2025-12-07T23:00:00.000001Z"));
        check(noon, "1d", Some("2025-12-07T12:00:00.000001Z"));
        check(noon, "2w", Some("2025-11-24T12:00:00.000001Z"));
        check(noon, "1mo", Some("2025-11-08T12:00:00.000001Z"));
        check(noon, "12mo", Some("2024-12-08T12:00:00.000001Z"));
        check(noon, "1y", Some("2024-12-08T12:00:00.000001Z"));
        // The last day of February, in a common year and in a leap year.
        check("2025-03-31T00:00:00Z", "1mo", Some("2025-02-28T00:00:00Z"));
        check("2024-03-31T00:00:00Z", "1mo", Some("2024-02-29T00:00:00Z"));
        check("2024-02-29T00:00:00Z", "1y", Some("2023-02-28T00:00:00Z"));
        check(noon, "3000y", None);
        // 2^32 - 1 minutes are about 8,000 years, so each of these times is before the year 1. None of them overflows.
        for unit in SpanUnit::ALL.into_iter().filter(|unit| *unit > SpanUnit::Second) {
            check(noon, &Span::new(u32::MAX, unit).to_string(), None);
        }
    }
}
