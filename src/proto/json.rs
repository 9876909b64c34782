//! How fields of answers are written as JSON where serde's own way is another. `build.rs` names these functions in the
//! attributes of fields.
//!
//! **Invariant**: what is absent is `null`. Times are RFC 3339 text, lengths of time exact seconds, enums short names.

use serde::{Serialize, Serializer};

use super::convert::micros;
use crate::domain::{Timestamp, exact_length};

/// RFC 3339, or null.
///
/// # Errors
/// Those of the serializer.
pub fn timestamp<S: Serializer>(time: &Option<prost_types::Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time.map(|time| Timestamp::from_parts_floor(time.seconds, time.nanos)) {
        None => serializer.serialize_none(),
        Some(Ok(time)) => serializer.collect_str(&time),
        // No answer has such a time.
        Some(Err(problem)) => serializer.collect_str(&problem),
    }
}

/// Seconds like `5.5s`, or null.
///
/// # Errors
/// Those of the serializer.
pub fn duration<S: Serializer>(length: &Option<prost_types::Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(length) = length else { return serializer.serialize_none() };
    serializer.serialize_str(&exact_length(micros(length)))
}

/// The short name of an enum's value; null where it is unspecified.
///
/// # Errors
/// Those of the serializer.
pub fn name<E: TryFrom<i32> + Serialize, S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    match E::try_from(*number) {
        Ok(value) if *number != 0 => value.serialize(serializer),
        Ok(_) | Err(_) => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use crate::proto::v1;

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
        let server_time = Some(prost_types::Timestamp { seconds: 2, nanos: 0 });
        let answer = v1::GetLatestRatesResponse { rates: vec![rate], sequence: 7, server_time, ..Default::default() };
        let expect = r#"{"rates":[{"run":{"pair":"UZS/USD","source":"timesca","rate":"0.00008","reported_change_percent":"-0","first_observed_time":"1970-01-01T00:00:00.000001Z","last_observed_time":null,"observation_count":18446744073709551615,"recorded_time":"1970-01-01T00:00:01Z"},"state":"STALE","stale_time":null,"moved_time":null,"previous_rate":null}],"sequence":7,"recorded_time":null,"last_ingest_time":null}"#;
        assert_eq!(serde_json::to_string(&answer).unwrap(), expect);
    }

    #[test]
    fn ages_are_never_told_and_other_lengths_are_exact() {
        let age = Some(prost_types::Duration { seconds: 5, nanos: 500_000_000 });
        let rate = v1::GetRateResponse { rate: "12".to_owned(), age, leg_age_difference: age, ..Default::default() };
        let change = v1::GetChangeResponse { start: Some(rate), below_resolution: Some(false), ..Default::default() };
        let expect = r#"{"start":{"rate":"12","rate_low":"","rate_high":"","derivation":null,"legs":[],"state":null,"sequence":0,"recorded_time":null,"leg_age_difference":"5.5s"},"end":null,"start_missing_reason":null,"end_missing_reason":null,"absolute_change":null,"percent_change":null,"percent_change_low":null,"percent_change_high":null,"below_resolution":false,"sequence":0,"recorded_time":null}"#;
        assert_eq!(serde_json::to_string(&change).unwrap(), expect);
    }

    #[test]
    fn a_value_that_an_enum_does_not_have_is_null() {
        let stretch = v1::GapStretch { reason: 99, ..Default::default() };
        assert_eq!(serde_json::to_string(&stretch).unwrap(), r#"{"start_time":null,"end_time":null,"reason":null}"#);
    }
}
