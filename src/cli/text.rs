//! Text formatting for people: escaping, plurals and line folding. Durations and ages are in `domain/age.rs`.
//!
//! **Invariant**: text from [`clean`] cannot move the cursor, change colours or change the reading direction.

use std::borrow::Cow;

use crate::domain::is_unprintable;

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
