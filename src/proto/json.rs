//! Serializers for response fields that the HTTP API returns in another form than serde's derived code would.
//! `build.rs` names these functions in the serde attributes of the fields.
//!
//! **Invariant**: an absent field is `null`. A time is RFC 3339 text, a duration is exact seconds, and an enum value is
//! its short name.

use serde::{Serialize, Serializer};

use super::convert::micros;
use crate::domain::{Timestamp, format_seconds};

/// Serializes a time as RFC 3339 text, or null if it is absent.
///
/// # Errors
/// Returns the error of the serializer.
pub fn timestamp<S: Serializer>(time: &Option<prost_types::Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time.map(|time| Timestamp::from_parts_floor(time.seconds, time.nanos)) {
        None => serializer.serialize_none(),
        Some(Ok(time)) => serializer.collect_str(&time),
        // Unreachable: responses have only times of the years 0001 to 9999.
        Some(Err(problem)) => serializer.collect_str(&problem),
    }
}

/// Serializes a duration as seconds such as `5.5s`, or null if it is absent.
///
/// # Errors
/// Returns the error of the serializer.
pub fn duration<S: Serializer>(duration: &Option<prost_types::Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(duration) = duration else { return serializer.serialize_none() };
    serializer.serialize_str(&format_seconds(micros(duration)))
}

/// Serializes an enum value as its short name, or null if the value is unspecified or unknown.
///
/// # Errors
/// Returns the error of the serializer.
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
    fn json_has_every_field_and_null_for_absent_ones() {
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
        let response = v1::GetLatestRatesResponse { rates: vec![rate], sequence: 7, server_time, ..Default::default() };
        let expect = r#"{"rates":[{"run":{"pair":"UZS/USD","source":"timesca","rate":"0.00008","reported_change_percent":"-0","first_observed_time":"1970-01-01T00:00:00.000001Z","last_observed_time":null,"observation_count":18446744073709551615,"recorded_time":"1970-01-01T00:00:01Z"},"state":"STALE","stale_time":null,"moved_time":null,"previous_rate":null,"archived":false}],"sequence":7,"recorded_time":null,"last_ingest_time":null}"#;
        assert_eq!(serde_json::to_string(&response).unwrap(), expect);
    }

    #[test]
    fn json_omits_ages_and_has_exact_durations() {
        let age = Some(prost_types::Duration { seconds: 5, nanos: 500_000_000 });
        let rate = v1::GetRateResponse { rate: "12".to_owned(), age, leg_age_difference: age, ..Default::default() };
        let change = v1::GetChangeResponse { start: Some(rate), below_resolution: Some(false), ..Default::default() };
        let expect = r#"{"start":{"rate":"12","rate_low":"","rate_high":"","derivation":null,"legs":[],"state":null,"time":null,"sequence":0,"recorded_time":null,"leg_age_difference":"5.5s","stale":false,"date":"","time_zone":"","archived":false},"end":null,"start_missing_reason":null,"end_missing_reason":null,"absolute_change":null,"percent_change":null,"percent_change_low":null,"percent_change_high":null,"below_resolution":false,"sequence":0,"recorded_time":null,"observed":null}"#;
        assert_eq!(serde_json::to_string(&change).unwrap(), expect);
    }

    #[test]
    fn unknown_enum_value_is_null() {
        let stretch = v1::GapStretch { reason: 99, ..Default::default() };
        assert_eq!(serde_json::to_string(&stretch).unwrap(), r#"{"start_time":null,"end_time":null,"reason":null}"#);
    }
}
