//! Durations and ages as people read them: in one unit, rounded down, such as `47 h` or `11 mo`.
//!
//! **Invariant**: the command and the page use the same units and the same steps between them: those of [`AGE_STEPS`].

use super::time::Timestamp;

/// A unit in which durations are shown, and the duration from which on a longer unit is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgeStep {
    /// Durations of this number of seconds or more are shown in the next unit.
    pub end_s: u64,
    /// The length of the unit, in seconds.
    pub unit_s: u64,
    /// The name of the unit.
    pub name: &'static str,
}

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;
/// The mean length of a year of the Gregorian calendar.
const YEAR_S: u64 = 31_556_952;
const MONTH_S: u64 = YEAR_S / 12;

/// The units, from the shortest to the longest. The last has no end.
pub const AGE_STEPS: [AgeStep; 6] = [
    AgeStep { end_s: MINUTE_S, unit_s: 1, name: "s" },
    AgeStep { end_s: HOUR_S, unit_s: MINUTE_S, name: "min" },
    AgeStep { end_s: 2 * DAY_S, unit_s: HOUR_S, name: "h" },
    AgeStep { end_s: 2 * MONTH_S, unit_s: DAY_S, name: "d" },
    AgeStep { end_s: 2 * YEAR_S, unit_s: MONTH_S, name: "mo" },
    AgeStep { end_s: u64::MAX, unit_s: YEAR_S, name: "y" },
];

/// Formats a duration in microseconds in one unit, rounded down: `45 s`, `12 min`, `5 h`, `3 d`, `4 mo`, `9 y`. Months
/// and years have the mean length of the Gregorian calendar. Ignores the sign.
pub fn format_rounded_duration(micros: i64) -> String {
    let seconds = micros.unsigned_abs() / Timestamp::SECOND_US.unsigned_abs();
    if seconds == 0 && micros != 0 {
        return "under 1 s".to_owned();
    }
    let step = AGE_STEPS.iter().find(|step| seconds < step.end_s);
    step.map_or(String::new(), |step| format!("{} {}", seconds / step.unit_s, step.name))
}

/// Formats `time` relative to `now`: `3 d ago`, `in 2 h`, or `now` if they differ by less than a second.
pub fn relative_age(time: Timestamp, now: Timestamp) -> String {
    const NOW_US: i64 = Timestamp::SECOND_US;
    match now.micros_since(time) {
        // A time from a server can be slightly later than `now`, which is the time of the reader.
        past if past.unsigned_abs() < NOW_US.unsigned_abs() => "now".to_owned(),
        past @ NOW_US.. => format!("{} ago", format_rounded_duration(past)),
        ahead => format!("in {}", format_rounded_duration(ahead)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_rounded_down_to_one_unit() {
        const S: i64 = Timestamp::SECOND_US;
        let check = |micros, expect: &str| assert_eq!(format_rounded_duration(micros), expect, "{micros}");
        check(0, "0 s");
        check(1, "under 1 s");
        check(59 * S, "59 s");
        check(60 * S, "1 min");
        check(3_600 * S - 1, "59 min");
        check(3_600 * S, "1 h");
        check(47 * 3_600 * S, "47 h");
        check(48 * 3_600 * S, "2 d");
        check(-7 * Timestamp::DAY_US, "7 d");
        check(60 * Timestamp::DAY_US, "60 d");
        check(61 * Timestamp::DAY_US, "2 mo");
        check(730 * Timestamp::DAY_US, "23 mo");
        check(731 * Timestamp::DAY_US, "2 y");
        check(3_468 * Timestamp::DAY_US, "9 y");
        check(i64::MIN, "292277 y");
    }

    #[test]
    fn relative_age_is_past_future_or_now() {
        let now = Timestamp::from_micros(10 * Timestamp::DAY_US);
        let check = |micros, expect: &str| assert_eq!(relative_age(now.saturating_add_us(micros), now), expect);
        check(0, "now");
        check(999_999, "now");
        check(-999_999, "now");
        check(-1_000_000, "1 s ago");
        check(1_000_000, "in 1 s");
        check(-3 * Timestamp::DAY_US, "3 d ago");
        check(2 * Timestamp::HOUR_US, "in 2 h");
    }
}
