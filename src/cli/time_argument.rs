//! Parsing of time arguments: `2025-12-08T09:30:00Z`, `2025-12-08`, `now`, `-7d`.
//!
//! **Invariant**: nothing here reads the clock. The caller passes `now`, so that all relative times of a command count
//! from the same instant.

use std::str::FromStr;

use chrono::{NaiveDate, NaiveTime};
use thiserror::Error;

use super::text::clean;
use crate::domain::{Span, SpanError, Timestamp, TimestampError};

/// A parsed time argument: RFC 3339, a date, `now`, or a time before now such as `-7d`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TimeArgument {
    /// A fixed instant.
    At(Timestamp),
    /// A day. A server takes it in the time zone of a request or of a source; other arguments take its start in UTC.
    Day(NaiveDate),
    /// The start of the command.
    Now,
    /// The start of the command minus a span.
    Ago(Span),
}

/// The reason why a time argument is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum TimeArgumentError {
    /// The text has none of the accepted forms.
    #[error(
        "invalid time '{0}': use RFC 3339 like 2025-12-08T00:00:00Z, a date like 2025-12-08, now, or a time before \
         now like -7d (s seconds, m minutes, h hours, d days, w weeks, mo months, y years)"
    )]
    Malformed(String),
    /// The text has the form of a date or of RFC 3339, but the day does not exist, or the time is too fine or out of
    /// range.
    #[error(transparent)]
    Time(#[from] TimestampError),
    /// The text after the minus sign is not a span.
    #[error("invalid time '-{text}': {problem}")]
    InvalidSpan {
        /// The text without the sign.
        text: String,
        /// What is wrong with the span.
        problem: SpanError,
    },
    /// The time lies before the year 0001.
    #[error("invalid time '-{0}': it is before the year 0001; use a later time")]
    TooFarBack(Span),
}

impl TimeArgument {
    /// Converts the argument to an instant. Months and years are calendar units and clamp to the last day of a shorter
    /// month: 31 March minus one month is the end of February.
    ///
    /// # Errors
    /// `TooFarBack` if the instant is before the year 0001.
    pub(super) fn resolve(self, now: Timestamp) -> Result<Timestamp, TimeArgumentError> {
        match self {
            Self::At(time) => Ok(time),
            Self::Day(date) => Ok(date.and_time(NaiveTime::MIN).and_utc().into()),
            Self::Now => Ok(now),
            Self::Ago(span) => span.before(now).ok_or(TimeArgumentError::TooFarBack(span)),
        }
    }
}

impl FromStr for TimeArgument {
    type Err = TimeArgumentError;

    fn from_str(text: &str) -> Result<Self, TimeArgumentError> {
        if text == "now" {
            return Ok(Self::Now);
        }
        if let Some(span) = text.strip_prefix('-') {
            return match span.parse() {
                Ok(span) => Ok(Self::Ago(span)),
                Err(problem) => Err(TimeArgumentError::InvalidSpan { text: clean(span).into_owned(), problem }),
            };
        }
        let parsed = match Timestamp::parse_date(text) {
            Err(TimestampError::Malformed(_)) => Timestamp::parse_rfc3339(text).map(Self::At),
            date => date.map(Self::Day),
        };
        parsed.map_err(|problem| match problem {
            TimestampError::Malformed(shown) => TimeArgumentError::Malformed(shown),
            TimestampError::NoSuchDay(_)
            | TimestampError::TooFine(_)
            | TimestampError::LeapSecond(_)
            | TimestampError::OutOfRange { .. } => TimeArgumentError::Time(problem),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    /// Parses `text` and resolves it against `now`. An expected `Err` is a part of the message.
    fn check(now: &str, text: &str, expect: Result<&str, &str>) {
        let result = text.parse::<TimeArgument>().and_then(|time| time.resolve(at(now)));
        match (result, expect) {
            (Ok(time), Ok(expect)) => assert_eq!(time.to_string(), expect, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (result, expect) => panic!("{text}: {result:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn fixed_times_are_parsed_or_refused_with_reason() {
        let check = |text, expect| check("2025-12-08T12:30:00Z", text, expect);
        check("2025-12-08", Ok("2025-12-08T00:00:00Z"));
        check("2025-12-08T06:00:00+06:00", Ok("2025-12-08T00:00:00Z"));
        check("2025-12-08T00:00:00.000001Z", Ok("2025-12-08T00:00:00.000001Z"));
        check("2025-12-08 00:00:00Z", Ok("2025-12-08T00:00:00Z"));
        check("now", Ok("2025-12-08T12:30:00Z"));
        check("2025-02-30", Err("'2025-02-30'"));
        check("0000-01-01T00:00:00Z", Err("outside the years"));
        check("2025-12-08T00:00:00.0000001Z", Err("finer than a microsecond"));
        // A time without a zone is ambiguous.
        check("2025-12-08T00:00:00", Err("invalid time '2025-12-08T00:00:00': use"));
        for bad in ["", "yesterday", "Now", "8 December 2025", "2025-12-8", "12/08/2025", "\u{1b}[31m", "2025-12-08 "] {
            check(bad, Err("': use RFC 3339"));
        }
    }

    #[test]
    fn time_ago_counts_from_now() {
        let check = |text, expect| check("2025-12-08T12:30:00.000001Z", text, expect);
        check("-90s", Ok("2025-12-08T12:28:30.000001Z"));
        check("-90m", Ok("2025-12-08T11:00:00.000001Z"));
        check("-12h", Ok("2025-12-08T00:30:00.000001Z"));
        check("-7d", Ok("2025-12-01T12:30:00.000001Z"));
        check("-2w", Ok("2025-11-24T12:30:00.000001Z"));
        check("-1mo", Ok("2025-11-08T12:30:00.000001Z"));
        check("-1y", Ok("2024-12-08T12:30:00.000001Z"));
        for bad in ["-", "-7", "-d", "-7D", "--7d", "-7d ", "-1.5d", "-7dd", "-٣d"] {
            check(bad, Err("a count and a unit"));
        }
        check("-0d", Err("1 to 4294967295"));
        check("-4294967296d", Err("1 to 4294967295"));
        check("-4294967295d", Err("before the year 0001"));
        check("-2025y", Err("before the year 0001"));
        check("-4294967295y", Err("before the year 0001"));
        check("--to", Err("invalid time '--to'"));
    }

    #[test]
    fn months_and_years_clamp_to_end_of_shorter_month() {
        check("2025-03-31T10:00:00Z", "-1mo", Ok("2025-02-28T10:00:00Z"));
        check("2024-03-31T10:00:00Z", "-1mo", Ok("2024-02-29T10:00:00Z"));
        check("2024-02-29T10:00:00Z", "-1y", Ok("2023-02-28T10:00:00Z"));
        check("2025-01-31T10:00:00Z", "-2mo", Ok("2024-11-30T10:00:00Z"));
    }
}
