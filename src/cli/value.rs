//! Values of an answer: conversion from protobuf messages, and formatting for tables, JSON and CSV.
//!
//! **Invariant**: a value is exact. Decimals stay the strings that the server sent, and times stay whole microseconds.
//! Only tables round durations and add relative ages.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::text::clean;
use crate::domain::{Timestamp, format_rounded_duration, format_seconds, relative_age, without_formula};
use crate::proto::convert::micros;
use crate::proto::v1::{Derivation, RateState};

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// No value: `null` in JSON, empty in CSV, `-` in tables.
    Absent,
    /// A text.
    Text(String),
    /// A decimal with the digits that the server sent.
    Decimal(String),
    /// A non-negative integer.
    Count(u64),
    /// A truth value: `yes` or `no` in tables.
    Flag(bool),
    /// A time in UTC.
    Time(Timestamp),
    /// A duration in microseconds.
    Duration(i64),
    /// Named values, in output order.
    Record(Vec<(&'static str, Value)>),
    /// A list of values.
    List(Vec<Value>),
}

/// A value formatted for a table, in three widths: narrower terminals use forms with more and shorter lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FormattedValue {
    /// The value on one line.
    pub(super) line: String,
    /// The value with a time and its age on two lines, and each part of a record or list on its own line.
    pub(super) stacked: String,
    /// Like `stacked`, but with a date, a time of day and an age on three lines.
    pub(super) folded: String,
    /// True for numbers, which are aligned right.
    pub(super) align_right: bool,
}

impl Value {
    /// Creates a text, or `Absent` if `text` is empty.
    pub(super) fn text(text: &str) -> Self {
        if text.is_empty() { Self::Absent } else { Self::Text(text.to_owned()) }
    }

    /// Creates a decimal, or `Absent` if `text` is empty.
    pub(super) fn decimal(text: &str) -> Self {
        if text.is_empty() { Self::Absent } else { Self::Decimal(text.to_owned()) }
    }

    /// Creates a decimal, or `Absent` if `text` is `None` or empty.
    pub(super) fn decimal_or_absent(text: Option<&String>) -> Self {
        text.map_or(Self::Absent, |text| Self::decimal(text))
    }

    /// Creates a time, or `Absent` if `time` is `None`. A time that is out of range becomes a text with the seconds and
    /// nanoseconds of the time.
    pub(super) fn time(time: Option<&prost_types::Timestamp>) -> Self {
        let Some(time) = time else { return Self::Absent };
        match Timestamp::from_parts_floor(time.seconds, time.nanos) {
            Ok(time) => Self::Time(time),
            Err(problem) => Self::Text(problem.to_string()),
        }
    }

    /// Creates a duration, or `Absent` if `duration` is `None`.
    pub(super) fn duration(duration: Option<&prost_types::Duration>) -> Self {
        duration.map_or(Self::Absent, |duration| Self::Duration(micros(duration)))
    }

    /// Creates a text from the protobuf name of an enum value, without the prefix that all names of the enum share.
    /// Returns `Absent` for `UNSPECIFIED`.
    pub(super) fn name(full: &str, prefix: &str) -> Self {
        match full.strip_prefix(prefix).unwrap_or(full) {
            "UNSPECIFIED" => Self::Absent,
            name => Self::text(name),
        }
    }

    /// Creates a text with the state of a series, like `MOVING`.
    pub(super) fn state(state: RateState) -> Self {
        Self::name(state.as_str_name(), "RATE_STATE_")
    }

    /// Creates a text with the derivation of a rate, like `INVERSE`.
    pub(super) fn derivation(derivation: Derivation) -> Self {
        Self::name(derivation.as_str_name(), "DERIVATION_")
    }

    /// Formats the value for CSV: exact, empty if absent, and as JSON if it has parts.
    ///
    /// # Errors
    /// Returns the error of the JSON serializer.
    pub(super) fn to_csv(&self) -> Result<String, serde_json::Error> {
        Ok(match self {
            Self::Absent => String::new(),
            Self::Text(text) => without_formula(text).into_owned(),
            Self::Decimal(text) => text.clone(),
            Self::Count(count) => count.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Time(time) => time.to_string(),
            Self::Duration(micros) => format_seconds(*micros),
            Self::Record(_) | Self::List(_) => serde_json::to_string(self)?,
        })
    }

    /// Formats the value for a table, with relative ages counted from `now`.
    pub(super) fn to_formatted(&self, now: Timestamp) -> FormattedValue {
        let left = |text: &str| FormattedValue::text(clean(text).into_owned());
        let right = |text: &str| FormattedValue { align_right: true, ..left(text) };
        match self {
            Self::Absent => left("-"),
            Self::Text(text) => left(text),
            Self::Decimal(text) => right(text),
            Self::Count(count) => right(&count.to_string()),
            Self::Flag(flag) => left(if *flag { "yes" } else { "no" }),
            Self::Time(time) => {
                let (exact, relative_age) = (time.to_string(), relative_age(*time, now));
                let (date, time_of_day) = exact.split_once('T').unwrap_or((&exact, ""));
                FormattedValue {
                    line: format!("{exact} ({relative_age})"),
                    stacked: format!("{exact}\n{relative_age}"),
                    folded: format!("{date}\n{time_of_day}\n{relative_age}"),
                    align_right: false,
                }
            }
            Self::Duration(micros) => left(&format_rounded_duration(*micros)),
            Self::Record(parts) => {
                let parts = parts.iter().map(|(name, value)| format!("{name} {}", value.to_formatted(now).line));
                FormattedValue::parts(&parts.collect::<Vec<_>>())
            }
            Self::List(items) => {
                FormattedValue::parts(&items.iter().map(|value| value.to_formatted(now).line).collect::<Vec<_>>())
            }
        }
    }
}

impl FormattedValue {
    fn text(line: String) -> Self {
        Self { stacked: line.clone(), folded: line.clone(), line, align_right: false }
    }

    fn parts(parts: &[String]) -> Self {
        let folded = parts.join("\n");
        Self { line: parts.join("; "), stacked: folded.clone(), folded, align_right: false }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent => serializer.serialize_none(),
            Self::Text(text) | Self::Decimal(text) => serializer.serialize_str(text),
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Time(time) => serializer.collect_str(time),
            Self::Duration(micros) => serializer.serialize_str(&format_seconds(*micros)),
            Self::Record(parts) => {
                let mut map = serializer.serialize_map(Some(parts.len()))?;
                for (name, value) in parts {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
            Self::List(items) => serializer.collect_seq(items),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_csv_are_exact_and_tables_are_rounded() {
        let now = Timestamp::from_micros(3 * Timestamp::DAY_US);
        let check = |value: Value, json: &str, csv: &str, table: &str| {
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
            assert_eq!(value.to_csv().unwrap(), csv);
            assert_eq!(value.to_formatted(now).line, table);
        };
        check(Value::Absent, "null", "", "-");
        check(Value::text(""), "null", "", "-");
        check(Value::decimal("0.28490"), "\"0.28490\"", "0.28490", "0.28490");
        check(Value::Count(u64::MAX), "18446744073709551615", "18446744073709551615", "18446744073709551615");
        check(Value::Flag(true), "true", "true", "yes");
        let second = Value::Time(Timestamp::from_micros(Timestamp::SECOND_US));
        check(second, "\"1970-01-01T00:00:01Z\"", "1970-01-01T00:00:01Z", "1970-01-01T00:00:01Z (2 d ago)");
        check(Value::Duration(5_400_500_000), "\"5400.5s\"", "5400.5s", "1 h");
        check(Value::text("\u{1b}[2J"), r#""\u001b[2J""#, "\u{1b}[2J", r"\u{1b}[2J");
        let record = Value::Record(vec![("z", Value::Count(1)), ("a", Value::Absent)]);
        check(record.clone(), r#"{"z":1,"a":null}"#, r#"{"z":1,"a":null}"#, "z 1; a -");
        check(
            Value::List(vec![record, Value::text("x")]),
            r#"[{"z":1,"a":null},"x"]"#,
            r#"[{"z":1,"a":null},"x"]"#,
            "z 1; a -; x",
        );
    }

    #[test]
    fn protobuf_times_and_durations_are_converted() {
        let proto = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
        let check = |time, expect: &str| assert_eq!(Value::time(Some(&time)).to_csv().unwrap(), expect);
        check(proto(0, 1_000), "1970-01-01T00:00:00.000001Z");
        check(proto(-1, 0), "1969-12-31T23:59:59Z");
        check(
            proto(i64::MAX, 0),
            "time of 9223372036854775807 s and 0 ns since 1970 is outside the years 0001 to 9999 or has invalid nanoseconds",
        );
        assert_eq!(Value::time(None), Value::Absent);
        let duration = prost_types::Duration { seconds: i64::MAX, nanos: 0 };
        assert_eq!(Value::duration(Some(&duration)), Value::Duration(i64::MAX));
    }
}
