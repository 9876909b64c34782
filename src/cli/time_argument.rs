//! Times and distances as people type them: `2025-12-08`, `-7d`, `now`, `2d`.
//!
//! **Invariant**: pure. A relative time is resolved against a `now` that the caller gives, so that every time of one
//! command counts from one moment.

use std::str::FromStr;

use thiserror::Error;

use super::text::clean;
use crate::domain::{Span, SpanError, Timestamp, TimestampError};

/// A moment as typed: RFC 3339, a date (its start, UTC), `now`, or a distance back such as `-7d`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TimeArgument {
    /// A fixed instant.
    At(Timestamp),
    /// The moment the command started.
    Now,
    /// That moment less a span.
    Ago(Span),
}

/// Why a text is no time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum TimeArgumentError {
    /// None of the forms.
    #[error(
        "'{0}' is no time; write 2025-12-08T00:00:00Z, a date like 2025-12-08, now, or a distance back like -7d \
         (m minutes, h hours, d days, w weeks, mo months, y years)"
    )]
    Malformed(String),
    /// The form of a date or of RFC 3339, but no day, too fine or out of range.
    #[error(transparent)]
    Time(#[from] TimestampError),
    /// After the minus sign, no span.
    #[error("'-{text}' is no time: {problem}")]
    Distance {
        /// Without the sign.
        text: String,
        /// What is wrong with it.
        problem: SpanError,
    },
    /// A distance that leaves the years 0001 to 9999.
    #[error("-{0} lies before the year 0001")]
    TooFarBack(Span),
}

impl TimeArgument {
    /// The instant meant, if the present is `now`. Months and years are those of the calendar and clamp: 31 March
    /// less one month is the end of February.
    ///
    /// # Errors
    /// `TooFarBack`.
    pub(super) fn resolve(self, now: Timestamp) -> Result<Timestamp, TimeArgumentError> {
        match self {
            Self::At(time) => Ok(time),
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
                Err(problem) => Err(TimeArgumentError::Distance { text: clean(span).into_owned(), problem }),
            };
        }
        Timestamp::parse(text).map(Self::At).map_err(|problem| match problem {
            TimestampError::Malformed(shown) => TimeArgumentError::Malformed(shown),
            TimestampError::NoSuchDay(_) | TimestampError::TooFine(_) | TimestampError::OutOfRange { .. } => {
                TimeArgumentError::Time(problem)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    /// `Err` names a part of the message.
    fn check(now: &str, text: &str, expect: Result<&str, &str>) {
        let answer = text.parse::<TimeArgument>().and_then(|when| when.resolve(at(now)));
        match (answer, expect) {
            (Ok(time), Ok(expect)) => assert_eq!(time.to_string(), expect, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (answer, expect) => panic!("{text}: {answer:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn fixed_times() {
        let check = |text, expect| check("2025-12-08T12:30:00Z", text, expect);
        check("2025-12-08", Ok("2025-12-08T00:00:00Z"));
        check("2025-12-08T06:00:00+06:00", Ok("2025-12-08T00:00:00Z"));
        check("2025-12-08T00:00:00.000001Z", Ok("2025-12-08T00:00:00.000001Z"));
        check("2025-12-08 00:00:00Z", Ok("2025-12-08T00:00:00Z"));
        check("now", Ok("2025-12-08T12:30:00Z"));
        check("2025-02-30", Err("'2025-02-30' is not in the calendar"));
        check("0000-01-01T00:00:00Z", Err("outside the years"));
        check("2025-12-08T00:00:00.0000001Z", Err("finer than a microsecond"));
        // Without a zone it could mean several instants.
        check("2025-12-08T00:00:00", Err("is no time; write"));
        for bad in ["", "yesterday", "Now", "8 December 2025", "2025-12-8", "12/08/2025", "\u{1b}[31m", "2025-12-08 "] {
            check(bad, Err("is no time; write"));
        }
    }

    #[test]
    fn distances_back_count_from_now() {
        let check = |text, expect| check("2025-12-08T12:30:00.000001Z", text, expect);
        check("-90s", Ok("2025-12-08T12:28:30.000001Z"));
        check("-90m", Ok("2025-12-08T11:00:00.000001Z"));
        check("-12h", Ok("2025-12-08T00:30:00.000001Z"));
        check("-7d", Ok("2025-12-01T12:30:00.000001Z"));
        check("-2w", Ok("2025-11-24T12:30:00.000001Z"));
        check("-1mo", Ok("2025-11-08T12:30:00.000001Z"));
        check("-1y", Ok("2024-12-08T12:30:00.000001Z"));
        for bad in ["-", "-7", "-d", "-7D", "--7d", "-7d ", "-1.5d", "-7dd", "-٣d"] {
            check(bad, Err("write a count and a unit"));
        }
        check("-0d", Err("must count from 1"));
        check("-4294967296d", Err("must count from 1"));
        check("-4294967295d", Err("before the year 0001"));
        check("-2025y", Err("before the year 0001"));
        check("-4294967295y", Err("before the year 0001"));
        check("--to", Err("is no time"));
    }

    #[test]
    fn months_and_years_clamp_to_the_end_of_a_shorter_month() {
        check("2025-03-31T10:00:00Z", "-1mo", Ok("2025-02-28T10:00:00Z"));
        check("2024-03-31T10:00:00Z", "-1mo", Ok("2024-02-29T10:00:00Z"));
        check("2024-02-29T10:00:00Z", "-1y", Ok("2023-02-28T10:00:00Z"));
        check("2025-01-31T10:00:00Z", "-2mo", Ok("2024-11-30T10:00:00Z"));
    }
}
