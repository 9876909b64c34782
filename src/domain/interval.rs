//! Intervals: the durations of the time buckets of candles and of rate changes.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::time::{Timestamp, truncate_for_display};

const MINUTE_US: i64 = 60 * Timestamp::SECOND_US;

/// The duration of a time bucket, such as that of a candle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interval {
    /// 60 seconds.
    Minute,
    /// Five minutes, which begin at minute 0, 5, 10 and so on of the hour.
    FiveMinutes,
    /// A quarter of an hour.
    FifteenMinutes,
    /// 60 minutes.
    Hour,
    /// Four hours, from 00:00, 04:00, 08:00 and so on.
    FourHours,
    /// A calendar day.
    Day,
    /// A week, which begins on Monday.
    Week,
    /// A calendar month.
    Month,
    /// A calendar year. Rate changes can have buckets of a year; candles cannot.
    Year,
}

/// The error for a text that is not the name of a candle interval.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not a candle interval; write one of {list}", list = Interval::CANDLES.map(Interval::name).join(", "))]
pub struct IntervalError(String);

impl Interval {
    /// Intervals that candles can have, from the shortest to the longest.
    pub const CANDLES: [Self; 8] = [
        Self::Minute,
        Self::FiveMinutes,
        Self::FifteenMinutes,
        Self::Hour,
        Self::FourHours,
        Self::Day,
        Self::Week,
        Self::Month,
    ];

    /// Every interval, from the shortest to the longest.
    pub const ALL: [Self; 9] = {
        let [a, b, c, d, e, f, g, h] = Self::CANDLES;
        [a, b, c, d, e, f, g, h, Self::Year]
    };

    /// The name of the interval in flags, parameters and manifests, such as `15m` or `1mo`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::FiveMinutes => "5m",
            Self::FifteenMinutes => "15m",
            Self::Hour => "1h",
            Self::FourHours => "4h",
            Self::Day => "1d",
            Self::Week => "1w",
            Self::Month => "1mo",
            Self::Year => "1y",
        }
    }

    /// Returns true for intervals of a day or more. Their buckets are days of a calendar.
    pub const fn has_calendar_days(self) -> bool {
        matches!(self, Self::Day | Self::Week | Self::Month | Self::Year)
    }

    /// The nominal duration of a bucket in microseconds. A month has 28 days and a year has 365 days here. A bucket
    /// with a clock change can be shorter or longer.
    pub const fn nominal_us(self) -> i64 {
        match self {
            Self::Minute => MINUTE_US,
            Self::FiveMinutes => 5 * MINUTE_US,
            Self::FifteenMinutes => 15 * MINUTE_US,
            Self::Hour => Timestamp::HOUR_US,
            Self::FourHours => 4 * Timestamp::HOUR_US,
            Self::Day => Timestamp::DAY_US,
            Self::Week => 7 * Timestamp::DAY_US,
            Self::Month => 28 * Timestamp::DAY_US,
            Self::Year => 365 * Timestamp::DAY_US,
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Parses the [`name`](Interval::name) of a candle interval. The interval of a year is an error.
impl FromStr for Interval {
    type Err = IntervalError;

    fn from_str(text: &str) -> Result<Self, IntervalError> {
        let found = Self::CANDLES.into_iter().find(|interval| interval.name() == text);
        found.ok_or_else(|| IntervalError(truncate_for_display(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candle_interval_is_parsed_from_its_name() {
        for interval in Interval::CANDLES {
            assert_eq!(interval.name().parse(), Ok(interval));
        }
        for bad in ["", "2h", "1y", "1M", "1H", "day"] {
            let error = bad.parse::<Interval>().unwrap_err().to_string();
            assert!(error.ends_with("write one of 1m, 5m, 15m, 1h, 4h, 1d, 1w, 1mo"), "{error}");
        }
    }
}
