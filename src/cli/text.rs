//! Text formatting for people: escaping, durations, relative ages, plurals and line folding.
//!
//! **Invariant**: text from [`clean`] cannot move the cursor, change colours or change the reading direction.

use std::borrow::Cow;

use crate::domain::{Timestamp, is_unprintable};

/// Escapes the control characters of a text from a server or a file, so that the text cannot act on the terminal.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unprintable(c) { safe.extend(c.escape_unicode()) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// Formats a duration in one unit, rounded down: `45 s`, `12 min`, `5 h`, `3 d`, `4 mo`, `9 y`. Months and years have the
/// mean length of the Gregorian calendar. Ignores the sign.
pub(super) fn format_rounded_duration(micros: i64) -> String {
    const MINUTE_S: u64 = 60;
    const HOUR_S: u64 = 60 * MINUTE_S;
    const DAY_S: u64 = 24 * HOUR_S;
    const YEAR_S: u64 = 31_556_952;
    const MONTH_S: u64 = YEAR_S / 12;
    let seconds = micros.unsigned_abs() / Timestamp::SECOND_US.unsigned_abs();
    match seconds {
        0 if micros != 0 => "under 1 s".to_owned(),
        0..MINUTE_S => format!("{seconds} s"),
        MINUTE_S..HOUR_S => format!("{} min", seconds / MINUTE_S),
        HOUR_S.. if seconds < 2 * DAY_S => format!("{} h", seconds / HOUR_S),
        HOUR_S.. if seconds < 2 * MONTH_S => format!("{} d", seconds / DAY_S),
        HOUR_S.. if seconds < 2 * YEAR_S => format!("{} mo", seconds / MONTH_S),
        HOUR_S.. => format!("{} y", seconds / YEAR_S),
    }
}

/// Formats `time` relative to `now`: `3 d ago`, `in 2 h`, or `now` if they differ by less than a second.
pub(super) fn relative_age(time: Timestamp, now: Timestamp) -> String {
    const NOW_US: i64 = Timestamp::SECOND_US;
    match now.micros_since(time) {
        // A time from the server can be slightly later than `now`, which is the start of the command.
        past if past.unsigned_abs() < NOW_US.unsigned_abs() => "now".to_owned(),
        past @ NOW_US.. => format!("{} ago", format_rounded_duration(past)),
        ahead => format!("in {}", format_rounded_duration(ahead)),
    }
}

/// Removes trailing zeros of the fraction: `0.120000` becomes `0.12`, `-0.000000` becomes `0`.
pub(super) fn trim_zeros(decimal: &str) -> &str {
    let short = if decimal.contains('.') { decimal.trim_end_matches('0').trim_end_matches('.') } else { decimal };
    if short == "-0" { "0" } else { short }
}

/// Formats a count with its noun: `1 tick`, `5 ticks`.
pub(super) fn plural(count: u64, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// Formats the number of held ticks, and the number of ticks that an operator had discarded before they were sent
/// again. `discarded_count` is the number of discarded ticks, and `count` is the number of held and discarded ticks
/// together. Returns `None` if both numbers are zero.
pub(super) fn describe_held(count: u64, discarded_count: u64) -> Option<String> {
    let held = match count.saturating_sub(discarded_count) {
        0 => None,
        held => {
            let held = plural(held, "tick");
            Some(format!("{held} held (too far from the rate in force); see 'silkrate quarantine list'"))
        }
    };
    let discarded = (discarded_count > 0).then(|| format!("{} already discarded", plural(discarded_count, "tick")));
    let parts: Vec<String> = discarded.into_iter().chain(held).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Folds a line at spaces so that no line is wider than `width`, except for a word that does not fit. Lines after the
/// first begin with `indent` spaces.
pub(super) fn fold(line: &str, width: Option<u16>, indent: usize) -> String {
    let width = width.map_or(usize::MAX, usize::from);
    let (mut folded, mut used, mut holds_word) = (String::new(), 0, false);
    for word in line.split_inclusive(' ') {
        let is_space = word == " ";
        if holds_word && used + word.trim_end().chars().count() > width {
            folded.truncate(folded.trim_end().len());
            folded.push('\n');
            folded.extend(std::iter::repeat_n(' ', indent));
            (used, holds_word) = (indent, false);
        }
        // Drops spaces at the start of every line except the first.
        if holds_word || !is_space || !folded.contains('\n') {
            folded.push_str(word);
            used += word.chars().count();
        }
        holds_word |= !is_space;
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_escapes_control_characters() {
        let check = |text: &str, expect: &str| assert_eq!(clean(text), expect);
        check("KGS/USD", "KGS/USD");
        check("сом 'a' \"b\" \\", "сом 'a' \"b\" \\");
        check("\u{1b}[31mred", "\\u{1b}[31mred");
        check("a\nb\r\t\u{7f}", "a\\u{a}b\\u{d}\\u{9}\\u{7f}");
        check("\u{9b}2J", "\\u{9b}2J");
        check("\u{202e}DSU", "\\u{202e}DSU");
    }

    #[test]
    fn held_ticks_and_discarded_ticks_are_counted_separately() {
        let check = |count, discarded, expect: Option<&str>| {
            assert_eq!(describe_held(count, discarded).as_deref(), expect, "{count} {discarded}");
        };
        check(0, 0, None);
        check(2, 2, Some("2 ticks already discarded"));
        check(1, 0, Some("1 tick held (too far from the rate in force); see 'silkrate quarantine list'"));
        check(
            3,
            1,
            Some(
                "1 tick already discarded, 2 ticks held (too far from the rate in force); \
                 see 'silkrate quarantine list'",
            ),
        );
    }

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

    #[test]
    fn fold_breaks_lines_only_at_spaces() {
        let check =
            |line: &str, width: Option<u16>, expect: &str| assert_eq!(fold(line, width, 2), expect, "{width:?}");
        let line = "  from  2025-12-08T00:00:00Z  0.00008";
        check(line, None, line);
        check(line, Some(37), line);
        check(line, Some(36), "  from  2025-12-08T00:00:00Z\n  0.00008");
        // Words are not broken, even on a narrow terminal.
        check(line, Some(5), "  from\n  2025-12-08T00:00:00Z\n  0.00008");
    }

    #[test]
    fn trim_zeros_removes_trailing_zeros_of_fraction() {
        let check = |decimal: &str, expect: &str| assert_eq!(trim_zeros(decimal), expect);
        check("0.000000", "0");
        check("-0.000000", "0");
        check("-11.764706", "-11.764706");
        check("0.120000", "0.12");
        check("100", "100");
        check("100.0", "100");
    }
}
