//! Times of requests: an instant, or a date in a time zone.

use chrono::NaiveDate;
use prost_types::Timestamp as ProtoTimestamp;

use super::convert::{as_of, bound};
use crate::analysis::Zone;
use crate::domain::Timestamp;
use crate::query::{Moment, MomentRange, QueryError};

/// The names of a time field and of the date field that can replace it.
type Fields = (&'static str, &'static str);

const START: Fields = ("start_time", "start_date");
const END: Fields = ("end_time", "end_date");

/// Parses a date such as `2026-11-26`. An empty text means no date.
///
/// # Errors
/// Returns `InvalidArgument` for `field` if the text is not a date of the years 0001 to 9999.
fn date(field: &str, text: &str) -> Result<Option<NaiveDate>, QueryError> {
    if text.is_empty() {
        return Ok(None);
    }
    Timestamp::parse_date(text).map(Some).map_err(|problem| QueryError::invalid(field, problem.to_string()))
}

fn moment((time_field, date_field): Fields, time: Option<Timestamp>, text: &str) -> Result<Option<Moment>, QueryError> {
    match (time, date(date_field, text)?) {
        (Some(_), Some(_)) => {
            Err(QueryError::invalid(date_field, format!("is given together with {time_field}; give one of them")))
        }
        (time, date) => Ok(time.map(Moment::At).or(date.map(Moment::Day))),
    }
}

/// Returns the time of a rate.
///
/// # Errors
/// Returns `InvalidArgument` if the time or the date is invalid, or if both are given.
pub(super) fn rate_moment(time: Option<ProtoTimestamp>, date: &str) -> Result<Option<Moment>, QueryError> {
    moment(("time", "date"), as_of("time", time)?, date)
}

/// Returns the start of a change.
///
/// # Errors
/// As [`rate_moment`].
pub(super) fn change_start(time: Option<ProtoTimestamp>, date: &str) -> Result<Option<Moment>, QueryError> {
    moment(START, as_of(START.0, time)?, date)
}

/// Returns the end of a change.
///
/// # Errors
/// As [`rate_moment`].
pub(super) fn change_end(time: Option<ProtoTimestamp>, date: &str) -> Result<Option<Moment>, QueryError> {
    moment(END, as_of(END.0, time)?, date)
}

/// Returns the range of a list.
///
/// # Errors
/// As [`rate_moment`]; also if the range ends before it starts.
pub(super) fn moment_range(
    (start_time, start_date): (Option<ProtoTimestamp>, &str),
    (end_time, end_date): (Option<ProtoTimestamp>, &str),
) -> Result<MomentRange, QueryError> {
    let range = MomentRange {
        start: moment(START, bound(START.0, start_time)?, start_date)?,
        end: moment(END, bound(END.0, end_time)?, end_date)?,
    };
    if let (Some(Moment::At(_)), Some(Moment::At(_))) | (Some(Moment::Day(_)), Some(Moment::Day(_))) =
        (range.start, range.end)
    {
        // In any zone a later day starts later.
        range.in_zone(Zone::UTC)?;
    }
    Ok(range)
}

/// Parses the time zone of a request. An empty name means the zone of the source.
///
/// # Errors
/// Returns `InvalidArgument` for `time_zone` if no zone has that name.
pub(super) fn request_zone(name: &str) -> Result<Option<Zone>, QueryError> {
    if name.is_empty() {
        return Ok(None);
    }
    Zone::parse(name).map(Some).map_err(|problem| {
        // Decoding a URL query turns `+` into a space, as in `Etc/GMT+5`.
        let hint = if name.contains(' ') { "; a + is written %2B in a URL" } else { "" };
        QueryError::invalid("time_zone", format!("{problem}{hint}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_is_a_time_or_a_date() {
        let time = Some(ProtoTimestamp { seconds: 5, nanos: 0 });
        assert_eq!(rate_moment(None, "").unwrap(), None);
        assert_eq!(rate_moment(time, "").unwrap(), Some(Moment::At(Timestamp::from_micros(5_000_000))));
        let day = NaiveDate::from_ymd_opt(2026, 11, 26).unwrap();
        assert_eq!(rate_moment(None, "2026-11-26").unwrap(), Some(Moment::Day(day)));
        let error = |time, date| rate_moment(time, date).unwrap_err().to_string();
        assert_eq!(error(time, "2026-11-26"), "date: is given together with time; give one of them");
        for bad in ["2026-11-31", "2026-11-26T00:00:00Z", "26.11.2026", "0000-01-01"] {
            assert!(error(None, bad).starts_with("date: "), "{bad}");
        }
        let range = moment_range((None, "2026-11-27"), (None, "2026-11-26"));
        assert!(range.unwrap_err().to_string().contains("is before start_time"));
    }
}
