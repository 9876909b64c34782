//! The short forms of parameters that the command also takes: `from` for `start_time`, `pair=kgs-usd`, `period=day`,
//! `start_time=-7d`, and a time as seconds since 1970.
//!
//! **Invariant**: a short form has exactly one long form. Any other value is left to the request, which checks it.

use std::borrow::Cow;

use super::parameters::{Parameters, invalid};
use crate::api::ServiceError;
use crate::domain::{Pair, Span, Timestamp};

/// Other names of parameters: those of the flags of the command, and earlier ones. A name applies to a call only if the
/// request has the field with the long name, and no field with the short name.
const NAMES: [(&str, &str); 16] = [
    ("zone", "time_zone"),
    ("places", "decimal_places"),
    ("known", "known_time"),
    ("at", "time"),
    ("from", "start_time"),
    ("to", "end_time"),
    ("over", "window"),
    ("days", "last_days"),
    ("min", "minimum_length"),
    ("limit", "page_size"),
    ("desc", "descending"),
    ("baseline", "include_baseline"),
    ("fill", "fill_empty"),
    ("leg_source", "leg_sources"),
    ("pair", "pairs"),
    ("source", "sources"),
];

/// The parameters that take one or more pairs.
const PAIRS: [&str; 2] = ["pair", "pairs"];

/// The parameters that take a time.
const TIMES: [&str; 4] = ["time", "start_time", "end_time", "known_time"];

/// Short names of periods.
const PERIODS: [(&str, &str); 5] = [
    ("day", "day-on-day"),
    ("week", "week-on-week"),
    ("month", "month-on-month"),
    ("year", "year-on-year"),
    ("ytd", "year-to-date"),
];

/// Replaces short forms by long forms. Relative times count from `now`. `has_field` says whether the request has a field
/// of a name.
///
/// # Errors
/// Returns `InvalidField` if a parameter is given by both of its names.
pub(super) fn expand(
    parameters: &mut Parameters,
    now: Timestamp,
    has_field: impl Fn(&str) -> bool,
) -> Result<(), ServiceError> {
    for (short, long) in NAMES.iter().filter(|(short, long)| has_field(long) && !has_field(short)) {
        let Some(value) = parameters.take(short) else { continue };
        if parameters.get(long).is_some() {
            return Err(invalid(short, format!("is another name of {long}, which is also given; give one of them")));
        }
        parameters.set(long, value);
    }
    for name in PAIRS {
        if let Some(text) = parameters.get(name) {
            let pairs: Vec<Cow<'_, str>> = text.split(',').map(Pair::respell).collect();
            parameters.set(name, pairs.join(","));
        }
    }
    for name in TIMES {
        if let Some(time) = parameters.get(name).and_then(|text| time(text, now)) {
            parameters.set(name, time.to_string());
        }
    }
    let is_named = |text: &str, short: &str| short.eq_ignore_ascii_case(text);
    let period = parameters.get("period").and_then(|text| PERIODS.iter().find(|(short, _)| is_named(text, short)));
    if let Some((_, long)) = period {
        parameters.set("period", (*long).to_owned());
    }
    Ok(())
}

/// Returns the time of a short form: `now`, `-7d`, or seconds since 1970.
fn time(text: &str, now: Timestamp) -> Option<Timestamp> {
    if text == "now" {
        return Some(now);
    }
    if let Some(span) = text.strip_prefix('-') {
        return span.parse::<Span>().ok()?.before(now);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Timestamp::from_parts_exact(text.parse().ok()?, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&str; 12] = [
        "pair",
        "pairs",
        "sources",
        "time",
        "start_time",
        "end_time",
        "known_time",
        "time_zone",
        "decimal_places",
        "page_size",
        "descending",
        "period",
    ];

    #[test]
    fn short_forms_become_long_forms_and_other_values_stay() {
        let now = Timestamp::parse_rfc3339("2025-12-08T12:00:00Z").unwrap();
        let check = |query: &str, name: &str, expect: Option<&str>| {
            let mut parameters = Parameters::parse(Some(query)).unwrap();
            expand(&mut parameters, now, |field| FIELDS.contains(&field)).unwrap();
            assert_eq!(parameters.get(name), expect, "{query}");
        };
        check("zone=Asia/Bishkek", "time_zone", Some("Asia/Bishkek"));
        check("from=-7d", "start_time", Some("2025-12-01T12:00:00Z"));
        check("to=2025-12-08", "end_time", Some("2025-12-08"));
        check("at=now", "time", Some("2025-12-08T12:00:00Z"));
        check("limit=10&desc=true", "page_size", Some("10"));
        check("source=cbu", "sources", Some("cbu"));
        // The request has no field `window`, and a field `pair` of its own.
        check("over=7d", "over", Some("7d"));
        check("pair=kgs-usd", "pair", Some("KGS/USD"));
        check("pair=KGSUSD", "pair", Some("KGS/USD"));
        check("pair=KGS", "pair", Some("KGS"));
        check("pairs=kgs/usd,KZT-USD", "pairs", Some("KGS/USD,KZT/USD"));
        check("places=2", "decimal_places", Some("2"));
        check("known=-1d", "known_time", Some("2025-12-07T12:00:00Z"));
        check("time=now", "time", Some("2025-12-08T12:00:00Z"));
        check("start_time=-7d", "start_time", Some("2025-12-01T12:00:00Z"));
        check("start_time=-1mo", "start_time", Some("2025-11-08T12:00:00Z"));
        check("end_time=1765152000", "end_time", Some("2025-12-08T00:00:00Z"));
        check("end_time=0", "end_time", Some("1970-01-01T00:00:00Z"));
        check("period=ytd", "period", Some("year-to-date"));
        check("period=DAY", "period", Some("day-on-day"));
        for text in ["2025-12-08", "2025-12-08T00:00:00Z", "-7x", "-", "99999999999999999999", "yesterday"] {
            check(&format!("time={text}"), "time", Some(text));
        }
        check("period=decade", "period", Some("decade"));
    }

    #[test]
    fn parameter_given_by_both_names_is_refused() {
        let mut parameters = Parameters::parse(Some("zone=UTC&time_zone=Asia/Bishkek")).unwrap();
        let refused = expand(&mut parameters, Timestamp::from_micros(0), |field| FIELDS.contains(&field)).unwrap_err();
        let expect = "zone: is another name of time_zone, which is also given; give one of them";
        assert_eq!(refused.to_string(), expect);
    }
}
