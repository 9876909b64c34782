//! Between messages and the types of `domain`: times, lengths of time, windows and intervals.

use prost_types::{Duration, Timestamp as ProtoTimestamp};

use super::v1;
use crate::domain::{Interval, Span, SpanError, SpanUnit, Timestamp, TimestampError};

/// A time as messages have it, in whole microseconds.
pub fn timestamp(time: Timestamp) -> ProtoTimestamp {
    let (seconds, nanos) = time.to_parts();
    ProtoTimestamp { seconds, nanos }
}

/// Refuses a time that is finer than a microsecond.
impl TryFrom<&ProtoTimestamp> for Timestamp {
    type Error = TimestampError;

    fn try_from(time: &ProtoTimestamp) -> Result<Self, TimestampError> {
        Self::from_parts_exact(time.seconds, time.nanos)
    }
}

/// A length of time as messages have it.
pub fn duration(micros: i64) -> Duration {
    // A duration's parts have one sign; those of `%` and `/` do.
    let nanos = i32::try_from(micros % Timestamp::SECOND_US * 1_000).unwrap_or(0);
    Duration { seconds: micros / Timestamp::SECOND_US, nanos }
}

/// A length of time in microseconds, rounded towards zero; one beyond what they hold is the longest there is.
pub fn micros(length: &Duration) -> i64 {
    length.seconds.saturating_mul(Timestamp::SECOND_US).saturating_add(i64::from(length.nanos) / 1_000)
}

/// The unit of a window by its number in messages; none for one that is not specified or not known.
pub fn window_unit(number: i32) -> Option<SpanUnit> {
    SpanUnit::ALL.into_iter().find(|unit| unit_number(*unit) == Some(number))
}

/// The number in messages of the unit of a window; none of units that windows do not count.
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

/// Windows count minutes or longer units: `TooFine` for others.
impl TryFrom<Span> for v1::Window {
    type Error = SpanError;

    fn try_from(span: Span) -> Result<Self, SpanError> {
        let unit = unit_number(span.unit()).ok_or(SpanError::TooFine(span))?;
        Ok(Self { count: span.count(), unit })
    }
}

/// The length of a candle by its number in messages; none for one that is not specified or not known.
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
            // Of changes only: no request names it for candles.
            Interval::Year => Self::Unspecified,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_the_domain_name_the_same() {
        for interval in Interval::CANDLES {
            assert_eq!(candle_interval(v1::CandleInterval::from(interval).into()), Some(interval));
        }
        for unit in SpanUnit::ALL {
            match v1::Window::try_from(Span::new(7, unit)) {
                Ok(window) => assert_eq!((window.count, window_unit(window.unit)), (7, Some(unit))),
                Err(error) => assert!(error.to_string().contains("is too fine; windows count minutes"), "{error}"),
            }
        }
        for number in [-1, 0, 99] {
            assert_eq!((candle_interval(number), window_unit(number)), (None, None));
        }
    }

    #[test]
    fn times_and_lengths_keep_their_microseconds() {
        let time = Timestamp::from_micros(-1);
        let message = timestamp(time);
        assert_eq!((message.seconds, message.nanos), (-1, 999_999_000));
        assert_eq!(Timestamp::try_from(&message), Ok(time));
        for length in [0, 1, -1, 1_500_000, -1_500_000, i64::MAX, i64::MIN] {
            assert_eq!(micros(&duration(length)), length);
        }
    }
}
