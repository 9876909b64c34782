//! Intervals: the lengths of candles and of the buckets that changes are counted in.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::time::{Timestamp, truncate_for_display};

const MINUTE_US: i64 = 60 * Timestamp::SECOND_US;

/// The length of a bucket of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interval {
    /// Of 60 seconds.
    Minute,
    /// From minutes that five divides.
    FiveMinutes,
    /// From the quarters of an hour.
    FifteenMinutes,
    /// Of 60 minutes.
    Hour,
    /// From 00:00, 04:00, 08:00 and so on.
    FourHours,
    /// Of the calendar.
    Day,
    /// From Monday.
    Week,
    /// Of the calendar.
    Month,
    /// Of the calendar; for changes only, no candle is that long.
    Year,
}

/// A text is not the length of a candle.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not the length of a candle; write one of {list}", list = Interval::CANDLES.map(Interval::name).join(", "))]
pub struct IntervalError(String);

impl Interval {
    /// The lengths that candles have, the shortest first.
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

    /// All intervals, the shortest first.
    pub const ALL: [Self; 9] = {
        let [a, b, c, d, e, f, g, h] = Self::CANDLES;
        [a, b, c, d, e, f, g, h, Self::Year]
    };

    /// As flags, parameters and manifests have it: `15m`, `1mo`.
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

    /// Microseconds of a bucket on days when clocks are left alone; of the shortest month and year.
    pub const fn usual_us(self) -> i64 {
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

/// Of a candle, by its [`name`](Interval::name).
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
    fn a_candle_is_named_by_its_length() {
        for interval in Interval::CANDLES {
            assert_eq!(interval.name().parse(), Ok(interval));
        }
        for bad in ["", "2h", "1y", "1M", "1H", "day"] {
            let error = bad.parse::<Interval>().unwrap_err().to_string();
            assert!(error.ends_with("write one of 1m, 5m, 15m, 1h, 4h, 1d, 1w, 1mo"), "{error}");
        }
    }
}
