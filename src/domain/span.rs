//! Distances in time as people write them: a count and a unit, like `7d`.

use std::fmt;
use std::str::FromStr;

use chrono::Months;
use thiserror::Error;

use super::time::{Timestamp, clip};

/// A distance in time: a count and a unit, since months and years have no fixed length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    count: u32,
    unit: SpanUnit,
}

/// The units of a [`Span`], by the letters that stand for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpanUnit {
    /// `m`
    Minute,
    /// `h`
    Hour,
    /// `d`, of 24 hours
    Day,
    /// `w`
    Week,
    /// `mo`, of the calendar
    Month,
    /// `y`, of the calendar
    Year,
}

impl SpanUnit {
    /// In capitals, as protos name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "MINUTE",
            Self::Hour => "HOUR",
            Self::Day => "DAY",
            Self::Week => "WEEK",
            Self::Month => "MONTH",
            Self::Year => "YEAR",
        }
    }
}

/// Why a text is no span.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpanError {
    /// No digits followed by a unit.
    #[error(
        "'{0}' is no span; write a count and a unit, like 7d (m minutes, h hours, d days, w weeks, mo months, y years)"
    )]
    Malformed(String),
    /// Nothing, or over four billion.
    #[error("span '{0}' must count from 1 to 4294967295")]
    Count(String),
    /// Months and years where a length is asked for.
    #[error("span '{0}' has no fixed length; write days, like 30d")]
    NoFixedLength(Span),
}

/// How long a span is.
enum Length {
    Fixed(i64),
    Months(Months),
}

impl Span {
    /// At least one.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// Of what.
    pub const fn unit(self) -> SpanUnit {
        self.unit
    }

    fn length(self) -> Length {
        const MINUTE_US: i64 = 60 * Timestamp::SECOND_US;
        let fixed = |unit_us: i64| Length::Fixed(i64::from(self.count).saturating_mul(unit_us));
        match self.unit {
            SpanUnit::Minute => fixed(MINUTE_US),
            SpanUnit::Hour => fixed(Timestamp::HOUR_US),
            SpanUnit::Day => fixed(Timestamp::DAY_US),
            SpanUnit::Week => fixed(7 * Timestamp::DAY_US),
            SpanUnit::Month => Length::Months(Months::new(self.count)),
            SpanUnit::Year => Length::Months(Months::new(self.count.saturating_mul(12))),
        }
    }

    /// In whole seconds.
    ///
    /// # Errors
    /// `NoFixedLength` for months and years.
    pub fn seconds(self) -> Result<i64, SpanError> {
        match self.length() {
            // Every fixed unit is whole seconds.
            Length::Fixed(micros) => Ok(micros / Timestamp::SECOND_US),
            Length::Months(_) => Err(SpanError::NoFixedLength(self)),
        }
    }

    /// The instant so long before `now`; none before the year 0001. Months and years are those of the calendar and
    /// clamp: 31 March less one month is the end of February.
    pub fn before(self, now: Timestamp) -> Option<Timestamp> {
        let earlier = match self.length() {
            Length::Fixed(micros) => now.micros().checked_sub(micros).map(Timestamp::from_micros),
            Length::Months(months) => now.to_chrono().checked_sub_months(months).map(Timestamp::from),
        };
        earlier.filter(|time| *time >= Timestamp::MIN)
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let malformed = || SpanError::Malformed(clip(text));
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(malformed)?;
        let (count, unit) = text.split_at(unit_at);
        let unit = match unit {
            "m" => SpanUnit::Minute,
            "h" => SpanUnit::Hour,
            "d" => SpanUnit::Day,
            "w" => SpanUnit::Week,
            "mo" => SpanUnit::Month,
            "y" => SpanUnit::Year,
            _ => return Err(malformed()),
        };
        if count.is_empty() {
            return Err(malformed());
        }
        match count.parse() {
            Ok(count) if count > 0 => Ok(Self { count, unit }),
            Ok(_) | Err(_) => Err(SpanError::Count(clip(text))),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            SpanUnit::Minute => "m",
            SpanUnit::Hour => "h",
            SpanUnit::Day => "d",
            SpanUnit::Week => "w",
            SpanUnit::Month => "mo",
            SpanUnit::Year => "y",
        };
        write!(f, "{}{unit}", self.count)
    }
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

/// In the largest unit that it is a whole number of, as settings are written: `90m`, `366d`.
pub fn whole_length(micros: i64) -> String {
    const MINUTE_US: i64 = 60 * Timestamp::SECOND_US;
    let units = [
        (Timestamp::DAY_US, "d"),
        (Timestamp::HOUR_US, "h"),
        (MINUTE_US, "m"),
        (Timestamp::SECOND_US, "s"),
        (1_000, "ms"),
    ];
    let unit = units.into_iter().find(|(unit_us, _)| micros != 0 && micros % unit_us == 0);
    match unit {
        Some((unit_us, name)) => format!("{}{name}", micros / unit_us),
        None if micros == 0 => "0s".to_owned(),
        None => format!("{micros}us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_written_as_settings_take_it() {
        for text in ["366d", "7d", "1d", "36h", "1h", "90m", "1m", "90s", "10s", "0s", "1500ms", "7us"] {
            let length = humantime::parse_duration(text).unwrap();
            assert_eq!(whole_length(i64::try_from(length.as_micros()).unwrap()), text);
        }
    }

    #[test]
    fn a_length_has_no_months() {
        let check = |text: &str, expect: Result<i64, &str>| match (text.parse::<Span>().and_then(Span::seconds), expect)
        {
            (Ok(seconds), Ok(expect)) => assert_eq!(seconds, expect, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (answer, expect) => panic!("{text}: {answer:?}, expected {expect:?}"),
        };
        check("90m", Ok(5_400));
        check("2d", Ok(172_800));
        check("1w", Ok(604_800));
        check("1mo", Err("1mo' has no fixed length; write days"));
        check("1y", Err("no fixed length"));
        check("-2d", Err("write a count and a unit"));
    }

    #[test]
    fn a_length_is_written_exactly() {
        let check = |micros: i64, expect: &str| assert_eq!(exact_length(micros), expect);
        check(0, "0s");
        check(3_600_000_000, "3600s");
        check(5_400_500_000, "5400.5s");
        check(-1, "-0.000001s");
    }
}
