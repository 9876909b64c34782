//! Small texts for people: safe for a terminal, ages, trimmed digits.
//!
//! **Invariant**: what leaves [`clean`] moves no cursor, changes no colour and turns no reading direction.

use std::borrow::Cow;

use crate::domain::Timestamp;

/// The text with its control characters escaped, so that what a server or a file says cannot act on the terminal.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts_on_a_terminal) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if acts_on_a_terminal(c) { safe.extend(c.escape_unicode()) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// Control characters, and the marks that turn text round or hide in it.
fn acts_on_a_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A length in one unit, rounded down: `45 s`, `12 min`, `5 h`, `3 d`. Negative ones are taken as positive.
pub(super) fn length(micros: i64) -> String {
    const MINUTE_S: u64 = 60;
    const HOUR_S: u64 = 60 * MINUTE_S;
    const DAY_S: u64 = 24 * HOUR_S;
    let seconds = micros.unsigned_abs() / Timestamp::SECOND_US.unsigned_abs();
    match seconds {
        0 if micros != 0 => "under 1 s".to_owned(),
        0..MINUTE_S => format!("{seconds} s"),
        MINUTE_S..HOUR_S => format!("{} min", seconds / MINUTE_S),
        HOUR_S.. if seconds < 2 * DAY_S => format!("{} h", seconds / HOUR_S),
        HOUR_S.. => format!("{} d", seconds / DAY_S),
    }
}

/// How `time` lies to `now`: `3 d ago`, `in 2 h`, and `now` within a second.
pub(super) fn relative_age(time: Timestamp, now: Timestamp) -> String {
    const NOW_US: i64 = Timestamp::SECOND_US;
    match now.micros_since(time) {
        // The server's now is a few milliseconds after that of the command's start.
        past if past.unsigned_abs() < NOW_US.unsigned_abs() => "now".to_owned(),
        past @ NOW_US.. => format!("{} ago", length(past)),
        ahead => format!("in {}", length(ahead)),
    }
}

/// Without the zeros that end its fraction: `0.120000` is `0.12`, `-0.000000` is `0`.
pub(super) fn trim_zeros(decimal: &str) -> &str {
    let short = if decimal.contains('.') { decimal.trim_end_matches('0').trim_end_matches('.') } else { decimal };
    if short == "-0" { "0" } else { short }
}

/// `1 tick`, `5 ticks`.
pub(super) fn plural(count: u64, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// What became of ticks that the server keeps out, and what to do; none where it keeps none out. Of `count`,
/// `discarded_count` were discarded when they came before.
pub(super) fn held_in_words(count: u64, discarded_count: u64) -> Option<String> {
    let held = match count.saturating_sub(discarded_count) {
        0 => None,
        held => {
            let held = plural(held, "tick");
            Some(format!("{held} held for being too far from the rate in force: silkrate quarantine list"))
        }
    };
    let discarded = (discarded_count > 0).then(|| format!("{} discarded before", plural(discarded_count, "tick")));
    let said: Vec<String> = discarded.into_iter().chain(held).collect();
    (!said.is_empty()).then(|| said.join(", "))
}

/// A line over several, broken at spaces where it is wider than `width`; all but the first begin with `indent` spaces.
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
        // A second space between two words does not begin a line; those that begin the first line stay.
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
    fn nothing_acts_on_the_terminal() {
        let check = |text: &str, expect: &str| assert_eq!(clean(text), expect);
        check("KGS/USD", "KGS/USD");
        check("сом 'a' \"b\" \\", "сом 'a' \"b\" \\");
        check("\u{1b}[31mred", "\\u{1b}[31mred");
        check("a\nb\r\t\u{7f}", "a\\u{a}b\\u{d}\\u{9}\\u{7f}");
        check("\u{9b}2J", "\\u{9b}2J");
        check("\u{202e}DSU", "\\u{202e}DSU");
    }

    #[test]
    fn what_waits_for_a_decision_is_told_from_what_has_one() {
        let check = |count, discarded, expect: Option<&str>| {
            assert_eq!(held_in_words(count, discarded).as_deref(), expect, "{count} {discarded}");
        };
        check(0, 0, None);
        check(2, 2, Some("2 ticks discarded before"));
        check(1, 0, Some("1 tick held for being too far from the rate in force: silkrate quarantine list"));
        check(
            3,
            1,
            Some(
                "1 tick discarded before, 2 ticks held for being too far from the rate in force: silkrate quarantine list",
            ),
        );
    }

    #[test]
    fn lengths() {
        const S: i64 = Timestamp::SECOND_US;
        let check = |micros, expect: &str| assert_eq!(length(micros), expect, "{micros}");
        check(0, "0 s");
        check(1, "under 1 s");
        check(59 * S, "59 s");
        check(60 * S, "1 min");
        check(3_600 * S - 1, "59 min");
        check(3_600 * S, "1 h");
        check(47 * 3_600 * S, "47 h");
        check(48 * 3_600 * S, "2 d");
        check(-7 * Timestamp::DAY_US, "7 d");
        check(i64::MIN, "106751991 d");
    }

    #[test]
    fn asides_say_before_or_after() {
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
    fn a_line_folds_at_spaces() {
        let check =
            |line: &str, width: Option<u16>, expect: &str| assert_eq!(fold(line, width, 2), expect, "{width:?}");
        let line = "  from  2025-12-08T00:00:00Z  0.00008";
        check(line, None, line);
        check(line, Some(37), line);
        check(line, Some(36), "  from  2025-12-08T00:00:00Z\n  0.00008");
        // A word is not broken, however narrow the terminal.
        check(line, Some(5), "  from\n  2025-12-08T00:00:00Z\n  0.00008");
    }

    #[test]
    fn zeros_that_say_nothing_are_trimmed() {
        let check = |decimal: &str, expect: &str| assert_eq!(trim_zeros(decimal), expect);
        check("0.000000", "0");
        check("-0.000000", "0");
        check("-11.764706", "-11.764706");
        check("0.120000", "0.12");
        check("100", "100");
        check("100.0", "100");
    }
}
