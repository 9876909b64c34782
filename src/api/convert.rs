//! Conversion between proto messages and domain types: times, durations, pairs, sources, runs and latest rates.
//!
//! **Invariant**: every error names the invalid field.

use prost_types::{Duration, Timestamp as ProtoTimestamp};

use crate::domain::{CurrencySet, Note, Pair, Run, SeriesKey, Source, Timestamp, TimestampError};
use crate::latest_quotes::{LatestQuote, RateState};
use crate::proto::convert::timestamp;
use crate::proto::v1;
use crate::query::QueryError;

/// Converts an optional time. `from_parts` determines how a time finer than a microsecond is rounded.
fn time(
    field: &str,
    time: Option<ProtoTimestamp>,
    from_parts: fn(i64, i32) -> Result<Timestamp, TimestampError>,
) -> Result<Option<Timestamp>, QueryError> {
    let convert = |time: ProtoTimestamp| {
        from_parts(time.seconds, time.nanos).map_err(|problem| QueryError::invalid(field, problem.to_string()))
    };
    time.map(convert).transpose()
}

/// Converts the time of an as-of read. A time finer than a microsecond is rounded down.
///
/// # Errors
/// Returns `InvalidArgument` for `field` if the time is invalid.
pub fn as_of(field: &str, value: Option<ProtoTimestamp>) -> Result<Option<Timestamp>, QueryError> {
    time(field, value, Timestamp::from_parts_floor)
}

/// Converts a bound of a range. A time finer than a microsecond is rounded up.
///
/// # Errors
/// Returns `InvalidArgument` for `field` if the time is invalid.
pub fn bound(field: &str, value: Option<ProtoTimestamp>) -> Result<Option<Timestamp>, QueryError> {
    time(field, value, Timestamp::from_parts_ceil)
}

/// Converts a duration to microseconds, rounded down.
///
/// # Errors
/// Returns `InvalidArgument` for `field` if the duration is negative or out of range.
pub fn length_us(field: &str, value: Option<Duration>) -> Result<Option<i64>, QueryError> {
    let Some(Duration { seconds, nanos }) = value else { return Ok(None) };
    if seconds < 0 || nanos < 0 {
        return Err(QueryError::invalid(field, format!("is negative: {seconds} s and {nanos} ns; give zero or more")));
    }
    let micros = seconds.checked_mul(Timestamp::SECOND_US).and_then(|us| us.checked_add(i64::from(nanos / 1_000)));
    match micros {
        Some(micros) if nanos < 1_000_000_000 => Ok(Some(micros)),
        _ => {
            let problem = format!(
                "is out of range: {seconds} s and {nanos} ns; use a shorter duration, with nanos below 1000000000"
            );
            Err(QueryError::invalid(field, problem))
        }
    }
}

/// Parses a pair of served currencies in any usual spelling.
///
/// # Errors
/// Returns `InvalidArgument` for `field` if the text is not a pair of served currencies.
pub fn pair(field: &str, text: &str, served: &CurrencySet) -> Result<Pair, QueryError> {
    Pair::parse_spelling(text, served).map_err(|problem| QueryError::invalid(field, problem.to_string()))
}

/// Parses a source. Returns `None` for an empty text.
///
/// # Errors
/// Returns `InvalidArgument` for `field` if the text is not a valid source.
pub fn source(field: &str, text: &str) -> Result<Option<Source>, QueryError> {
    if text.is_empty() {
        return Ok(None);
    }
    Source::parse(text).map(Some).map_err(|problem| QueryError::invalid(field, problem.to_string()))
}

/// Parses every element of a repeated field with `read`.
///
/// # Errors
/// Returns `InvalidArgument` for `field` if it has more than `max` elements, or for the element that `read` refuses.
pub fn each<T>(
    field: &str,
    texts: &[String],
    max: usize,
    read: impl Fn(&str, &str) -> Result<T, QueryError>,
) -> Result<Vec<T>, QueryError> {
    if texts.len() > max {
        return Err(QueryError::invalid(field, format!("has {} entries; give at most {max}", texts.len())));
    }
    texts.iter().enumerate().map(|(index, text)| read(&format!("{field}[{index}]"), text)).collect()
}

/// Converts a run of a series.
pub fn run(series: &SeriesKey, run: &Run) -> v1::Run {
    v1::Run {
        pair: series.pair.to_string(),
        source: series.source.as_str().to_owned(),
        rate: run.value.rate.to_string(),
        reported_change_percent: run.value.reported_change.map(|change| change.to_string()),
        first_observed_time: Some(timestamp(run.first_observed_time)),
        last_observed_time: Some(timestamp(run.last_observed_time)),
        observation_count: run.observation_count,
        recorded_time: Some(timestamp(run.recorded_time)),
    }
}

/// Converts a state. `None`, a state that was not computed, becomes unspecified.
pub fn state(state: Option<RateState>) -> v1::RateState {
    match state {
        None => v1::RateState::Unspecified,
        Some(RateState::Stale) => v1::RateState::Stale,
        Some(RateState::Pegged) => v1::RateState::Pegged,
        Some(RateState::Moving) => v1::RateState::Moving,
        Some(RateState::Flat) => v1::RateState::Flat,
    }
}

/// Converts the latest quote of a series.
pub fn latest_rate(quote: &LatestQuote) -> v1::LatestRate {
    v1::LatestRate {
        run: Some(run(&quote.series, &quote.run)),
        state: state(Some(quote.state)).into(),
        stale_time: Some(timestamp(quote.stale_time)),
        moved_time: quote.moved_time.map(timestamp),
        previous_rate: quote.previous_rate.map(|rate| rate.to_string()),
        archived: quote.is_archived,
    }
}

/// Parses the note of a decision. An empty text is no note.
///
/// # Errors
/// Returns `InvalidArgument` for the field `note` if the text is not a note.
pub(super) fn optional_note(text: &str) -> Result<Option<Note>, QueryError> {
    let note = if text.is_empty() { None } else { Some(Note::parse(text)) };
    note.transpose().map_err(|error| QueryError::invalid("note", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{PublishedValue, Rate, ReportedChange};

    #[test]
    fn time_rounds_down_in_an_as_of_read_and_up_as_a_bound() {
        let check = |seconds: i64, nanos: i32, expect: Option<(i64, i64)>| {
            let value = Some(ProtoTimestamp { seconds, nanos });
            let found = as_of("time", value).ok().flatten().zip(bound("time", value).ok().flatten());
            assert_eq!(found.map(|(down, up)| (down.micros(), up.micros())), expect);
        };
        check(1, 0, Some((1_000_000, 1_000_000)));
        check(1, 1_001, Some((1_000_001, 1_000_002)));
        check(-1, 1, Some((-1_000_000, -999_999)));
        check(0, -1, None);
        check(i64::MAX, 0, None);
        let error = as_of("known_time", Some(ProtoTimestamp { seconds: 0, nanos: -1 })).unwrap_err();
        assert!(error.to_string().starts_with("known_time: "), "{error}");
        assert_eq!(as_of("time", None).unwrap(), None);
    }

    #[test]
    fn duration_is_not_negative_and_rounds_down_to_a_microsecond() {
        let check = |seconds: i64, nanos: i32, expect: Option<i64>| {
            assert_eq!(length_us("max_age", Some(Duration { seconds, nanos })).ok().flatten(), expect);
        };
        check(0, 0, Some(0));
        check(1, 1_999, Some(1_000_001));
        check(-1, 0, None);
        check(0, -1, None);
        check(0, 1_000_000_000, None);
        check(i64::MAX, 0, None);
    }

    #[test]
    fn invalid_element_is_named_by_its_index() {
        let served = CurrencySet::central_asia();
        let check = |texts: &[&str], expect: Result<usize, &str>| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            match (each("pairs", &texts, 3, |field, text| pair(field, text, &served)), expect) {
                (Ok(found), Ok(count)) => assert_eq!(found.len(), count),
                (Err(error), Err(expect)) => assert!(error.to_string().contains(expect), "{error}"),
                (found, _) => panic!("{found:?}"),
            }
        };
        check(&[], Ok(0));
        check(&["KGS/USD", "KGS/KZT"], Ok(2));
        check(&["KGS/USD", "kgs-usd", "KGSUSD"], Ok(3));
        check(&["KGS/USD", "kgs usd"], Err("pairs[1]: pair 'kgs usd'"));
        check(&["KGS/USD", "KGS/KGS"], Err("pairs[1]: pair 'KGS/KGS'"));
        check(&["a", "b", "c", "d"], Err("pairs: has 4 entries; give at most 3"));
    }

    #[test]
    fn run_keeps_its_published_digits() {
        let series = SeriesKey {
            pair: Pair::parse("UZS/USD", &CurrencySet::central_asia()).unwrap(),
            source: Source::parse("timesca").unwrap(),
        };
        let value = PublishedValue {
            rate: Rate::parse("0.00008").unwrap(),
            reported_change: Some(ReportedChange::parse("-0").unwrap()),
        };
        let message = run(&series, &Run::single(Timestamp::from_micros(1), value, Timestamp::from_micros(2)));
        assert_eq!(
            (message.pair.as_str(), message.rate.as_str(), message.reported_change_percent.as_deref()),
            ("UZS/USD", "0.00008", Some("-0"))
        );
        assert_eq!(message.recorded_time, Some(ProtoTimestamp { seconds: 0, nanos: 2_000 }));
    }
}
