//! Spans: distances in time as people write them, a count and a unit, like `7d`.
//!
//! This is the one grammar of every flag, setting and query parameter that takes a duration, a limit or a window.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::Months;
use thiserror::Error;

use super::time::{Timestamp, truncate_for_display};

/// A distance in time: a count and a unit, since months and years have no fixed length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    count: u32,
    unit: SpanUnit,
}

/// The unit of a [`Span`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SpanUnit {
    /// `ms`
    Millisecond,
    /// `s`
    Second,
    /// `m`, of 60 seconds
    Minute,
    /// `h`, of 60 minutes
    Hour,
    /// `d`, of 24 hours: days of UTC have no others
    Day,
    /// `w`, of seven days
    Week,
    /// `mo`, of the calendar
    Month,
    /// `y`, of twelve months
    Year,
}

/// Why a text is not a length of time within limits.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LengthError {
    /// Not a span, or one without a fixed length.
    #[error(transparent)]
    Span(#[from] SpanError),
    /// Outside the limits.
    #[error("it is outside {} to {}; choose a duration between them", whole_length(duration_us(*min)), whole_length(duration_us(*max)))]
    Range {
        /// The least.
        min: Duration,
        /// The most.
        max: Duration,
    },
}

/// Reads a span of fixed length between `min` and `max`, both included. `0s` stands for no time at all.
///
/// # Errors
/// Any [`LengthError`].
pub fn parse_length(text: &str, min: Duration, max: Duration) -> Result<Duration, LengthError> {
    let micros = if text == "0s" { 0 } else { text.parse::<Span>()?.micros()? };
    let length = Duration::from_micros(micros.unsigned_abs());
    if (min..=max).contains(&length) { Ok(length) } else { Err(LengthError::Range { min, max }) }
}

/// How long a span is.
enum Length {
    /// Microseconds.
    Fixed(i64),
    Months(Months),
}

impl SpanUnit {
    /// All units, the shortest first.
    pub const ALL: [Self; 8] =
        [Self::Millisecond, Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// The letters after the count.
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

    /// In microseconds; none for units of the calendar.
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
    /// Not digits followed by a unit.
    #[error(
        "'{0}' is not a valid duration; write a count and a unit, like 90s or 7d (s seconds, m minutes, h hours, \
         d days, w weeks, mo months, y years)"
    )]
    Malformed(String),
    /// Zero, or over four billion.
    #[error("duration '{0}' must count from 1 to 4294967295")]
    Count(String),
    /// Months and years where a fixed length is asked for.
    #[error("duration '{0}' has no fixed length; write days, like 30d")]
    NoFixedLength(Span),
    /// Seconds where a window is asked for.
    #[error("window '{0}' is too fine; windows count minutes (m), hours, days, weeks, months or years")]
    TooFine(Span),
}

impl Span {
    /// `count` of `unit`. A count of zero is an empty span, which no text stands for.
    pub const fn new(count: u32, unit: SpanUnit) -> Self {
        Self { count, unit }
    }

    /// How many units.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// Of what.
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

    /// In microseconds.
    ///
    /// # Errors
    /// `NoFixedLength` for months and years.
    pub fn micros(self) -> Result<i64, SpanError> {
        match self.length() {
            Length::Fixed(micros) => Ok(micros),
            Length::Months(_) => Err(SpanError::NoFixedLength(self)),
        }
    }

    /// The instant so long before `end`; none before the year 0001. Months and years are those of the calendar and
    /// clamp: 31 March less one month is the end of February.
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

/// In microseconds; one beyond what they hold is the longest there is.
pub fn duration_us(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}

/// Seconds with a fraction where there is one, as the JSON form of google.protobuf.Duration: `3600s`, `0.5s`.
pub fn exact_length(micros: i64) -> String {
    const SECOND_US: u64 = Timestamp::SECOND_US.unsigned_abs();
    let sign = if micros < 0 { "-" } else { "" };
    let (seconds, fraction) = (micros.unsigned_abs() / SECOND_US, micros.unsigned_abs() % SECOND_US);
    if fraction == 0 {
        return format!("{sign}{seconds}s");
    }
    let digits = format!("{fraction:06}");
    format!("{sign}{seconds}.{}s", digits.trim_end_matches('0'))
}

/// In the largest unit up to days that it is a whole number of, as a [`Span`] is written: `90m`, `366d`.
pub fn whole_length(micros: i64) -> String {
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
    fn a_length_is_written_as_settings_take_it() {
        for text in ["366d", "7d", "1d", "36h", "1h", "90m", "1m", "90s", "10s", "1500ms"] {
            assert_eq!(whole_length(span(text).micros().unwrap()), text);
            assert_eq!(span(text).to_string(), text);
        }
        assert_eq!((whole_length(0), whole_length(7)), ("0s".to_owned(), "7us".to_owned()));
    }

    #[test]
    fn months_and_years_have_no_fixed_length() {
        let check = |text: &str, expect: Result<i64, &str>| match (text.parse::<Span>().and_then(Span::micros), expect)
        {
            (Ok(micros), Ok(expect)) => assert_eq!(micros, expect * Timestamp::SECOND_US, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (answer, expect) => panic!("{text}: {answer:?}, expected {expect:?}"),
        };
        check("90s", Ok(90));
        check("90m", Ok(5_400));
        check("12h", Ok(43_200));
        check("2d", Ok(172_800));
        check("1w", Ok(604_800));
        check("1mo", Err("1mo' has no fixed length; write days"));
        check("1y", Err("no fixed length"));
        check("0d", Err("must count from 1"));
        check("4294967296s", Err("must count from 1"));
        for bad in ["", "s", "-2d", "1M", "2 d", "1.5h", "1h30m", "d7", "7"] {
            check(bad, Err("write a count and a unit"));
        }
    }

    #[test]
    fn a_length_lies_within_its_limits() {
        let check = |text: &str, expect: Result<u64, &str>| match (
            parse_length(text, Duration::ZERO, Duration::from_hours(1)),
            expect,
        ) {
            (Ok(length), Ok(expect)) => assert_eq!(length.as_secs(), expect, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (answer, expect) => panic!("{text}: {answer:?}, expected {expect:?}"),
        };
        check("0s", Ok(0));
        check("90s", Ok(90));
        check("1h", Ok(3_600));
        check("61m", Err("it is outside 0s to 1h; choose a duration between them"));
        check("1mo", Err("no fixed length"));
        check("0m", Err("must count from 1"));
    }

    #[test]
    fn a_length_is_written_exactly() {
        let check = |micros: i64, expect: &str| assert_eq!(exact_length(micros), expect);
        check(0, "0s");
        check(3_600_000_000, "3600s");
        check(5_400_500_000, "5400.5s");
        check(-1, "-0.000001s");
    }

    #[test]
    fn spans_count_back_by_the_calendar() {
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
        // The end of February, in a common year and in a leap year.
        check("2025-03-31T00:00:00Z", "1mo", Some("2025-02-28T00:00:00Z"));
        check("2024-03-31T00:00:00Z", "1mo", Some("2024-02-29T00:00:00Z"));
        check("2024-02-29T00:00:00Z", "1y", Some("2023-02-28T00:00:00Z"));
        check(noon, "3000y", None);
        // Eight thousand years of minutes are before the year 1, and none of these overflows.
        for unit in SpanUnit::ALL.into_iter().filter(|unit| *unit > SpanUnit::Second) {
            check(noon, &Span::new(u32::MAX, unit).to_string(), None);
        }
    }
}
