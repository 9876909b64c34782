//! Conversion between proto messages and types of `domain`: times, durations, windows and intervals.
//!
//! **Invariant**: converting a time or a duration to a message and back does not change it.

use prost_types::{Duration, Timestamp as ProtoTimestamp};

use super::v1;
use crate::domain::{Interval, Span, SpanError, SpanUnit, Timestamp, TimestampError};

/// Converts a time to a message.
pub fn timestamp(time: Timestamp) -> ProtoTimestamp {
    let (seconds, nanos) = time.to_parts();
    ProtoTimestamp { seconds, nanos }
}

/// Converts a time from a message. A time finer than a microsecond is an error.
impl TryFrom<&ProtoTimestamp> for Timestamp {
    type Error = TimestampError;

    fn try_from(time: &ProtoTimestamp) -> Result<Self, TimestampError> {
        Self::from_parts_exact(time.seconds, time.nanos)
    }
}

/// Converts a duration in microseconds to a message.
pub fn duration(micros: i64) -> Duration {
    // Both parts of a proto duration must have the same sign. `%` and `/` guarantee this.
    let nanos = i32::try_from(micros % Timestamp::SECOND_US * 1_000).unwrap_or(0);
    Duration { seconds: micros / Timestamp::SECOND_US, nanos }
}

/// Converts a duration to microseconds, rounded towards zero. A duration that does not fit saturates at the bounds of
/// `i64`.
pub fn micros(duration: &Duration) -> i64 {
    duration.seconds.saturating_mul(Timestamp::SECOND_US).saturating_add(i64::from(duration.nanos) / 1_000)
}

/// Returns the unit of a window for its enum number; `None` if the number is unspecified or unknown.
pub fn window_unit(number: i32) -> Option<SpanUnit> {
    SpanUnit::ALL.into_iter().find(|unit| unit_number(*unit) == Some(number))
}

/// Returns the enum number of the unit of a window; `None` for a unit that windows do not have.
fn unit_number(unit: SpanUnit) -> Option<i32> {
    let unit = match unit {
        SpanUnit::Millisecond | SpanUnit::Second => return None,
        SpanUnit::Minute => v1::WindowUnit::Minute,
        SpanUnit::Hour => v1::WindowUnit::Hour,
        SpanUnit::Day => v1::WindowUnit::Day,
        SpanUnit::Week => v1::WindowUnit::Week,
        SpanUnit::Month => v1::WindowUnit::Month,
        SpanUnit::Year => v1::WindowUnit::Year,
    };
    Some(unit.into())
}

/// Converts a span to a window. A span in seconds or milliseconds is the error `TooFine`.
impl TryFrom<Span> for v1::Window {
    type Error = SpanError;

    fn try_from(span: Span) -> Result<Self, SpanError> {
        let unit = unit_number(span.unit()).ok_or(SpanError::TooFine(span))?;
        Ok(Self { count: span.count(), unit })
    }
}

/// Returns the interval of candles for its enum number; `None` if the number is unspecified or unknown.
pub fn candle_interval(number: i32) -> Option<Interval> {
    Interval::CANDLES.into_iter().find(|interval| i32::from(v1::CandleInterval::from(*interval)) == number)
}

impl From<Interval> for v1::CandleInterval {
    fn from(interval: Interval) -> Self {
        match interval {
            Interval::Minute => Self::Minute,
            Interval::FiveMinutes => Self::FiveMinutes,
            Interval::FifteenMinutes => Self::FifteenMinutes,
            Interval::Hour => Self::Hour,
            Interval::FourHours => Self::FourHours,
            Interval::Day => Self::Day,
            Interval::Week => Self::Week,
            Interval::Month => Self::Month,
            // Only changes have an interval of a year; candles do not.
            Interval::Year => Self::Unspecified,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_and_window_units_convert_both_ways() {
        for interval in Interval::CANDLES {
            assert_eq!(candle_interval(v1::CandleInterval::from(interval).into()), Some(interval));
        }
        for unit in SpanUnit::ALL {
            match v1::Window::try_from(Span::new(7, unit)) {
                Ok(window) => assert_eq!((window.count, window_unit(window.unit)), (7, Some(unit))),
                Err(error) => assert!(error.to_string().contains("is too fine; write it in minutes"), "{error}"),
            }
        }
        for number in [-1, 0, 99] {
            assert_eq!((candle_interval(number), window_unit(number)), (None, None));
        }
    }

    #[test]
    fn times_and_durations_convert_both_ways_exactly() {
        let time = Timestamp::from_micros(-1);
        let message = timestamp(time);
        assert_eq!((message.seconds, message.nanos), (-1, 999_999_000));
        assert_eq!(Timestamp::try_from(&message), Ok(time));
        for duration_us in [0, 1, -1, 1_500_000, -1_500_000, i64::MAX, i64::MIN] {
            assert_eq!(micros(&duration(duration_us)), duration_us);
        }
    }
}
