//! The short forms of parameters that the command also takes: `zone` for `time_zone`, `period=day`, `start_time=-7d`, and
//! a time as seconds since 1970.
//!
//! **Invariant**: a short form has exactly one long form. Any other value is left to the request, which checks it.

use super::parameters::Parameters;
use crate::domain::{Span, Timestamp};

/// Other names of parameters.
const NAMES: [(&str, &str); 3] = [("zone", "time_zone"), ("places", "decimal_places"), ("known", "known_time")];

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

/// Replaces short forms by long forms. Relative times count from `now`.
pub(super) fn expand(parameters: &mut Parameters, now: Timestamp) {
    for (short, long) in NAMES {
        // With both names given, the short one stays and is refused as unknown.
        if parameters.get(long).is_none()
            && let Some(value) = parameters.take(short)
        {
            parameters.set(long, value);
        }
    }
    for name in TIMES {
        if let Some(time) = parameters.get(name).and_then(|text| time(text, now)) {
            parameters.set(name, time.to_string());
        }
    }
    let period = parameters.get("period").and_then(|text| PERIODS.iter().find(|(short, _)| *short == text));
    if let Some((_, long)) = period {
        parameters.set("period", (*long).to_owned());
    }
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

    #[test]
    fn short_forms_become_long_forms_and_other_values_stay() {
        let now = Timestamp::parse_rfc3339("2025-12-08T12:00:00Z").unwrap();
        let check = |query: &str, name: &str, expect: Option<&str>| {
            let mut parameters = Parameters::parse(Some(query)).unwrap();
            expand(&mut parameters, now);
            assert_eq!(parameters.get(name), expect, "{query}");
        };
        check("zone=Asia/Bishkek", "time_zone", Some("Asia/Bishkek"));
        check("zone=UTC&time_zone=Asia/Bishkek", "time_zone", Some("Asia/Bishkek"));
        check("zone=UTC&time_zone=Asia/Bishkek", "zone", Some("UTC"));
        check("places=2", "decimal_places", Some("2"));
        check("known=-1d", "known_time", Some("2025-12-07T12:00:00Z"));
        check("time=now", "time", Some("2025-12-08T12:00:00Z"));
        check("start_time=-7d", "start_time", Some("2025-12-01T12:00:00Z"));
        check("start_time=-1mo", "start_time", Some("2025-11-08T12:00:00Z"));
        check("end_time=1765152000", "end_time", Some("2025-12-08T00:00:00Z"));
        check("end_time=0", "end_time", Some("1970-01-01T00:00:00Z"));
        check("period=ytd", "period", Some("year-to-date"));
        for text in ["2025-12-08", "2025-12-08T00:00:00Z", "-7x", "-", "99999999999999999999", "yesterday"] {
            check(&format!("time={text}"), "time", Some(text));
        }
        check("period=decade", "period", Some("decade"));
    }
}
