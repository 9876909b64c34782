//! Messages as JSON: the proto's names of fields, decimals as strings, counts as numbers, times in RFC 3339, enums by
//! their short names.
//!
//! **Invariant**: what is absent is `null` and never left out, so that every object of one kind has the same keys; only
//! the fields named in `without` are not there at all.

use std::borrow::Cow;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage as _, Value};
use serde::ser::{Error as _, Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

use super::schema::{DURATION, TIMESTAMP, short_names};
use crate::domain::{Timestamp, exact_length};

/// A message to be written.
#[derive(Clone, Copy)]
pub(super) struct Json<'a> {
    pub(super) message: &'a DynamicMessage,
    /// Names of fields that are left out, at any depth.
    pub(super) without: &'a [&'static str],
}

/// The value of one field, or one of a list.
struct Field<'a> {
    value: &'a Value,
    kind: Kind,
    without: &'a [&'static str],
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for field in self.message.descriptor().fields().filter(|field| !self.without.contains(&field.name())) {
            match present(self.message, &field) {
                None => map.serialize_entry(field.name(), &())?,
                Some(value) => {
                    let value = Field { value: &value, kind: field.kind(), without: self.without };
                    map.serialize_entry(field.name(), &value)?;
                }
            }
        }
        map.end()
    }
}

/// The value of a field; none where it is not set or left open.
pub(super) fn present<'a>(message: &'a DynamicMessage, field: &FieldDescriptor) -> Option<Cow<'a, Value>> {
    if field.supports_presence() && !message.has_field(field) {
        return None;
    }
    Some(message.get_field(field)).filter(|value| **value != Value::EnumNumber(0))
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for value in items {
                    list.serialize_element(&Field { value, kind: self.kind.clone(), without: self.without })?;
                }
                list.end()
            }
            Value::Message(message) => match text_of(message) {
                Some(text) => serializer.serialize_str(&text),
                None => Json { message, without: self.without }.serialize(serializer),
            },
            Value::EnumNumber(number) => match enum_name(&self.kind, *number) {
                Some(name) => serializer.serialize_str(&name),
                None => serializer.serialize_none(),
            },
            Value::Bool(flag) => serializer.serialize_bool(*flag),
            Value::I32(number) => serializer.serialize_i32(*number),
            Value::I64(number) => serializer.serialize_i64(*number),
            Value::U32(number) => serializer.serialize_u32(*number),
            Value::U64(number) => serializer.serialize_u64(*number),
            Value::String(text) => serializer.serialize_str(text),
            // No message of these calls has any.
            Value::F32(_) | Value::F64(_) | Value::Bytes(_) | Value::Map(_) => {
                Err(S::Error::custom("a value that has no form in JSON here"))
            }
        }
    }
}

/// The short name of an enum's value.
pub(super) fn enum_name(kind: &Kind, number: i32) -> Option<String> {
    short_names(kind.as_enum()?).into_iter().find(|(other, _)| *other == number).map(|(_, name)| name)
}

/// A message that is written as one value: a time, or a length of time.
pub(super) fn text_of(message: &DynamicMessage) -> Option<String> {
    let number = |field: u32| {
        let value = message.get_field_by_number(field);
        value.and_then(|value| value.as_i64().or_else(|| value.as_i32().map(i64::from))).unwrap_or_default()
    };
    match message.descriptor().full_name() {
        TIMESTAMP => {
            let time = Timestamp::from_parts_floor(number(1), i32::try_from(number(2)).unwrap_or(-1));
            Some(time.map_or_else(|problem| problem.to_string(), |time| time.to_string()))
        }
        DURATION => {
            Some(exact_length(number(1).saturating_mul(Timestamp::SECOND_US).saturating_add(number(2) / 1_000)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::http::schema::{Call, Schema};
    use crate::proto::v1;

    fn write(call: Call, response: &impl prost::Message, without: &[&'static str]) -> String {
        let schema = Schema::new().unwrap();
        let descriptor = schema.call(call).unwrap().response.clone();
        let message = DynamicMessage::decode(descriptor, response.encode_to_vec().as_slice()).unwrap();
        serde_json::to_string(&Json { message: &message, without }).unwrap()
    }

    #[test]
    fn every_field_is_there_and_what_is_absent_is_null() {
        let run = v1::Run {
            pair: "UZS/USD".to_owned(),
            source: "timesca".to_owned(),
            rate: "0.00008".to_owned(),
            reported_change_percent: Some("-0".to_owned()),
            first_observed_time: Some(prost_types::Timestamp { seconds: 0, nanos: 1_000 }),
            last_observed_time: None,
            observation_count: u64::MAX,
            recorded_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        };
        let rate = v1::LatestRate { run: Some(run), state: v1::RateState::Stale.into(), ..v1::LatestRate::default() };
        let answer = v1::GetLatestRatesResponse { rates: vec![rate], sequence: 7, ..Default::default() };
        let expect = r#"{"rates":[{"run":{"pair":"UZS/USD","source":"timesca","rate":"0.00008","reported_change_percent":"-0","first_observed_time":"1970-01-01T00:00:00.000001Z","last_observed_time":null,"observation_count":18446744073709551615,"recorded_time":"1970-01-01T00:00:01Z"},"state":"STALE","stale_time":null,"moved_time":null,"previous_rate":null}],"sequence":7,"recorded_time":null,"last_ingest_time":null}"#;
        assert_eq!(write(Call::Latest, &answer, &["server_time"]), expect);
    }

    #[test]
    fn left_out_at_any_depth() {
        let age = Some(prost_types::Duration { seconds: 5, nanos: 500_000_000 });
        let rate = v1::GetRateResponse { rate: "12".to_owned(), age, leg_age_difference: age, ..Default::default() };
        let change = v1::GetChangeResponse { start: Some(rate), below_resolution: Some(false), ..Default::default() };
        let json = write(Call::Change, &change, &["age", "sequence", "recorded_time", "legs"]);
        let expect = r#"{"start":{"rate":"12","rate_low":"","rate_high":"","derivation":null,"state":null,"time":null,"leg_age_difference":"5.5s"},"end":null,"start_missing_reason":null,"end_missing_reason":null,"absolute_change":null,"percent_change":null,"percent_change_low":null,"percent_change_high":null,"below_resolution":false}"#;
        assert_eq!(json, expect);
        let _ = change.encoded_len();
    }
}
