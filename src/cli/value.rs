//! One value of an answer, and how messages of the wire become it.
//!
//! **Invariant**: a cell keeps the exact value. Decimals stay the strings that the server sent, times whole
//! microseconds; only a table adds words for people.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::text::{clean, length, relative_age};
use crate::domain::{Timestamp, exact_length};
use crate::proto::convert::micros;
use crate::proto::v1::{Derivation, RateState};

/// A value in a column.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Nothing: `null`, or empty.
    Absent,
    /// Words.
    Text(String),
    /// An exact decimal, as sent.
    Decimal(String),
    /// A count.
    Count(u64),
    /// Yes or no.
    Flag(bool),
    /// An instant, UTC.
    Time(Timestamp),
    /// A length in microseconds.
    Length(i64),
    /// Named values, in order.
    Record(Vec<(&'static str, Value)>),
    /// Several values.
    List(Vec<Value>),
}

/// A cell as a table shows it: on one line, or on more and shorter ones where the terminal is narrow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FormattedValue {
    pub(super) line: String,
    /// A time above its age.
    pub(super) stacked: String,
    /// A date, a clock and an age one above the other.
    pub(super) folded: String,
    /// A number, set to the right.
    pub(super) right: bool,
}

impl Value {
    /// Text, unless it is empty.
    pub(super) fn text(text: &str) -> Self {
        if text.is_empty() { Self::Absent } else { Self::Text(text.to_owned()) }
    }

    /// A decimal as sent, unless it is empty.
    pub(super) fn decimal(text: &str) -> Self {
        if text.is_empty() { Self::Absent } else { Self::Decimal(text.to_owned()) }
    }

    /// A decimal that may be absent.
    pub(super) fn decimal_or_absent(text: Option<&String>) -> Self {
        text.map_or(Self::Absent, |text| Self::decimal(text))
    }

    /// An instant that may be absent; one that no calendar holds is shown as the numbers it came as.
    pub(super) fn time(time: Option<&prost_types::Timestamp>) -> Self {
        let Some(time) = time else { return Self::Absent };
        match Timestamp::from_parts_floor(time.seconds, time.nanos) {
            Ok(time) => Self::Time(time),
            Err(problem) => Self::Text(problem.to_string()),
        }
    }

    /// The day of an instant that may be absent, where its clock is of no interest.
    pub(super) fn date(time: Option<&prost_types::Timestamp>) -> Self {
        let time = Self::time(time);
        let Self::Time(instant) = time else { return time };
        Self::text(instant.to_string().split('T').next().unwrap_or_default())
    }

    /// A length that may be absent.
    pub(super) fn length(length: Option<&prost_types::Duration>) -> Self {
        length.map_or(Self::Absent, |length| Self::Length(micros(length)))
    }

    /// The name of an enum's value in messages, without what the names of all its values begin with; absent where the
    /// server left it open.
    pub(super) fn name(full: &str, prefix: &str) -> Self {
        match full.strip_prefix(prefix).unwrap_or(full) {
            "UNSPECIFIED" => Self::Absent,
            name => Self::text(name),
        }
    }

    /// What a series is doing.
    pub(super) fn state(state: RateState) -> Self {
        Self::name(state.as_str_name(), "RATE_STATE_")
    }

    /// How a rate came about.
    pub(super) fn derivation(derivation: Derivation) -> Self {
        Self::name(derivation.as_str_name(), "DERIVATION_")
    }

    /// As CSV has it: exact, empty where absent, JSON where there are parts.
    pub(super) fn to_csv(&self) -> Result<String, serde_json::Error> {
        Ok(match self {
            Self::Absent => String::new(),
            Self::Text(text) | Self::Decimal(text) => text.clone(),
            Self::Count(count) => count.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Time(time) => time.to_string(),
            Self::Length(micros) => exact_length(*micros),
            Self::Record(_) | Self::List(_) => serde_json::to_string(self)?,
        })
    }

    /// As a table has it, with ages counted from `now`.
    pub(super) fn to_shown(&self, now: Timestamp) -> FormattedValue {
        let words = |text: &str| FormattedValue::words(clean(text).into_owned());
        let number = |text: &str| FormattedValue { right: true, ..words(text) };
        match self {
            Self::Absent => words("-"),
            Self::Text(text) => words(text),
            Self::Decimal(text) => number(text),
            Self::Count(count) => number(&count.to_string()),
            Self::Flag(flag) => words(if *flag { "yes" } else { "no" }),
            Self::Time(time) => {
                let (exact, relative_age) = (time.to_string(), relative_age(*time, now));
                let (date, clock) = exact.split_once('T').unwrap_or((&exact, ""));
                FormattedValue {
                    line: format!("{exact} ({relative_age})"),
                    stacked: format!("{exact}\n{relative_age}"),
                    folded: format!("{date}\n{clock}\n{relative_age}"),
                    right: false,
                }
            }
            Self::Length(micros) => words(&length(*micros)),
            Self::Record(parts) => {
                let parts = parts.iter().map(|(name, cell)| format!("{name} {}", cell.to_shown(now).line));
                FormattedValue::parts(&parts.collect::<Vec<_>>())
            }
            Self::List(items) => {
                FormattedValue::parts(&items.iter().map(|cell| cell.to_shown(now).line).collect::<Vec<_>>())
            }
        }
    }
}

impl FormattedValue {
    fn words(line: String) -> Self {
        Self { stacked: line.clone(), folded: line.clone(), line, right: false }
    }

    fn parts(parts: &[String]) -> Self {
        let folded = parts.join("\n");
        Self { line: parts.join("; "), stacked: folded.clone(), folded, right: false }
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
            Self::Length(micros) => serializer.serialize_str(&exact_length(*micros)),
            Self::Record(parts) => {
                let mut map = serializer.serialize_map(Some(parts.len()))?;
                for (name, cell) in parts {
                    map.serialize_entry(name, cell)?;
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
    fn machines_get_the_exact_value_and_people_words_beside_it() {
        let now = Timestamp::from_micros(3 * Timestamp::DAY_US);
        let check = |cell: Value, json: &str, csv: &str, table: &str| {
            assert_eq!(serde_json::to_string(&cell).unwrap(), json);
            assert_eq!(cell.to_csv().unwrap(), csv);
            assert_eq!(cell.to_shown(now).line, table);
        };
        check(Value::Absent, "null", "", "-");
        check(Value::text(""), "null", "", "-");
        check(Value::decimal("0.28490"), "\"0.28490\"", "0.28490", "0.28490");
        check(Value::Count(u64::MAX), "18446744073709551615", "18446744073709551615", "18446744073709551615");
        check(Value::Flag(true), "true", "true", "yes");
        let second = Value::Time(Timestamp::from_micros(Timestamp::SECOND_US));
        check(second, "\"1970-01-01T00:00:01Z\"", "1970-01-01T00:00:01Z", "1970-01-01T00:00:01Z (2 d ago)");
        check(Value::Length(5_400_500_000), "\"5400.5s\"", "5400.5s", "1 h");
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
    fn times_of_the_wire() {
        let wire = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
        let check = |time, expect: &str| assert_eq!(Value::time(Some(&time)).to_csv().unwrap(), expect);
        check(wire(0, 1_000), "1970-01-01T00:00:00.000001Z");
        check(wire(-1, 0), "1969-12-31T23:59:59Z");
        check(wire(i64::MAX, 0), "time of 9223372036854775807 s and 0 ns is outside the years 0001 to 9999");
        assert_eq!(Value::time(None), Value::Absent);
        let length = prost_types::Duration { seconds: i64::MAX, nanos: 0 };
        assert_eq!(Value::length(Some(&length)), Value::Length(i64::MAX));
    }
}
