//! Scanner for quotes in a line of text: pair, `=`, decimal, percentage.
//!
//! The scanner finds the form of a quote but does not validate its fields. The caller can therefore refuse a quote with
//! an invalid field, and name the quote in the error.
//!
//! **Invariant**: if a text is extended at its end, the scanner still finds every quote that it found before. A
//! truncated page therefore never gives a quote that the complete page does not have. Time is linear in the length of
//! the line, because scans from two different `=` never read the same characters.

/// A pair, a rate and a percentage that belong together, as written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RawQuote<'a> {
    pub(super) base: &'a str,
    pub(super) quote: &'a str,
    pub(super) rate: &'a str,
    /// The percentage with its sign and without the percent sign.
    pub(super) change: &'a str,
}

/// Maximum number of words between `=` and `%`. A valid quote has two words. A text with a few more words is a quote
/// with spaces in its number, which the caller refuses. A text with more words than this limit is prose.
const QUOTE_WORDS_MAX: usize = 6;

/// Words that a faulty ticker prints instead of a number.
const NOT_NUMBERS: [&str; 4] = ["NaN", "Infinity", "null", "undefined"];

/// Returns the quotes of one line, in order.
pub(super) fn quotes(line: &str) -> Quotes<'_> {
    Quotes { line, at: 0 }
}

/// Iterator over the quotes of a line; see [`quotes`].
pub(super) struct Quotes<'a> {
    line: &'a str,
    /// Where the scan continues: after the last `=`, or after the last quote.
    at: usize,
}

impl<'a> Iterator for Quotes<'a> {
    type Item = RawQuote<'a>;

    fn next(&mut self) -> Option<RawQuote<'a>> {
        loop {
            let equals = self.at + self.line[self.at..].find('=')?;
            let (before, after) = (&self.line[..equals], &self.line[equals + 1..]);
            self.at = equals + 1;
            let Some((_, base, quote)) = pair_at_end(before) else { continue };
            if let Values::Complete { rate, change, length } = scan_values(after) {
                self.at += length;
                return Some(RawQuote { base, quote, rate, change });
            }
        }
    }
}

/// Returns the incomplete quote at the end of `line`, from its pair to the end of the line.
///
/// `in_marquee` is true if the line before `line` has quotes. In a marquee, or after a quote on the same line, a bullet
/// with a few capital letters is a truncated quote. Elsewhere such a bullet is the last item of a list.
pub(super) fn truncated_quote(line: &str, in_marquee: bool) -> Option<&str> {
    let line = line.trim_matches(is_space);
    if let Some((before, after)) = line.rsplit_once('=')
        && let Some((start, ..)) = pair_at_end(before)
        && matches!(scan_values(after), Values::Truncated)
    {
        return Some(&line[start..]);
    }
    // The line may have several quotes: only the text after the last one matters.
    let (after_quote, tail) = match line.rsplit_once('%') {
        Some((_, tail)) => (true, tail.trim_start_matches(is_space)),
        None => (false, line),
    };
    let rest = tail.trim_start_matches(|c| is_space(c) || is_bullet(c));
    let code = |text: &str| text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    let is_truncated = match rest.split_once('/') {
        Some((base, quote)) => base.len() == 3 && code(base) && code(quote),
        None => (in_marquee || after_quote) && rest.len() < tail.len() && !rest.is_empty() && code(rest),
    };
    is_truncated.then_some(rest)
}

/// Returns true for white space of any width, including no-break and zero-width characters.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{200b}' | '\u{feff}')
}

fn is_bullet(c: char) -> bool {
    matches!(c, '\u{2022}' | '\u{2023}' | '\u{25cf}' | '\u{25e6}' | '\u{b7}' | '*' | '-' | '|')
}

fn is_sign(c: char) -> bool {
    // Dashes are included so that a percentage with a dash is found and then refused: a dash can mean a minus or a
    // range. U+2212 is the typographic minus sign.
    matches!(c, '+' | '-' | '\u{2212}' | '\u{2013}' | '\u{2014}')
}

/// Returns the start, the base and the quote of the pair at the end of `text`. Returns `None` if there is no pair, or
/// if the pair is the end of a longer word or path.
fn pair_at_end(text: &str) -> Option<(usize, &str, &str)> {
    let (rest, quote) = code_at_end(text.trim_end_matches(is_space))?;
    let rest = rest.trim_end_matches(is_space).strip_suffix('/')?;
    let (rest, base) = code_at_end(rest.trim_end_matches(is_space))?;
    let is_longer_word = rest.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '/'));
    (!is_longer_word).then_some((rest.len(), base, quote))
}

/// Splits three ASCII letters of either case from the end of `text`. Returns the text before them, and the letters.
fn code_at_end(text: &str) -> Option<(&str, &str)> {
    let (rest, code) = text.split_at_checked(text.len().checked_sub(3)?)?;
    code.bytes().all(|byte| byte.is_ascii_alphabetic()).then_some((rest, code))
}

/// The text after a pair and its `=`.
enum Values<'a> {
    /// A rate and a percentage. The percent sign ends at byte `length`.
    Complete { rate: &'a str, change: &'a str, length: usize },
    /// Zero or more numbers, and then the end of the text.
    Truncated,
    /// Text that is not a quote.
    Other,
}

fn scan_values(text: &str) -> Values<'_> {
    let mut words: Vec<(usize, usize)> = Vec::with_capacity(QUOTE_WORDS_MAX);
    let mut at = 0;
    loop {
        at = text.len() - text[at..].trim_start_matches(is_space).len();
        let rest = &text[at..];
        if rest.is_empty() {
            return Values::Truncated;
        }
        if rest.starts_with('%') {
            return rate_and_change(text, &words, at);
        }
        let end = at + number_length(rest);
        let after = text[end..].chars().next();
        if words.len() == QUOTE_WORDS_MAX || end == at || after.is_some_and(|c| c != '%' && !is_space(c)) {
            return Values::Other;
        }
        // The end of the text may truncate a word: `0.` of `0.00196`.
        if after.is_none() {
            return Values::Truncated;
        }
        if !is_number_like(&text[at..end]) {
            return Values::Other;
        }
        words.push((at, end));
        at = end;
    }
}

/// Splits the words before the `%` at byte `percent` into rate and change. The last word is the change. If the word
/// before it is only a sign, the sign belongs to the change. All words before the change are the rate.
fn rate_and_change<'a>(text: &'a str, words: &[(usize, usize)], percent: usize) -> Values<'a> {
    let is_lone_sign = |&(start, end): &(usize, usize)| text[start..end].chars().all(is_sign);
    let (rate_words, change_words) = match words.len() {
        0 | 1 => return Values::Other,
        count if count > 2 && is_lone_sign(&words[count - 2]) => words.split_at(count - 2),
        count => words.split_at(count - 1),
    };
    let span = |words: &[(usize, usize)]| match (words.first(), words.last()) {
        (Some((start, _)), Some((_, end))) => &text[*start..*end],
        _ => "",
    };
    Values::Complete { rate: span(rate_words), change: span(change_words), length: percent + 1 }
}

/// Returns how many bytes at the start of `text` can belong to a number, valid or not.
fn number_length(text: &str) -> usize {
    if let Some(word) =
        NOT_NUMBERS.iter().find(|word| text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word)))
    {
        return word.len();
    }
    let in_number =
        |c: char| c.is_ascii_digit() || is_sign(c) || matches!(c, '.' | ',' | '\'' | '\u{2019}' | 'e' | 'E');
    text.find(|c: char| !in_number(c)).unwrap_or(text.len())
}

/// Returns true if a person would read the word as a number, valid or not. A comma or point at the end of the word
/// belongs to the sentence, so such a word is not a number.
fn is_number_like(word: &str) -> bool {
    let digits = word.trim_start_matches(is_sign);
    digits.is_empty()
        || NOT_NUMBERS.iter().any(|word| word.eq_ignore_ascii_case(digits))
        || (digits.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | ','))
            && digits.ends_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Vec<String> {
        quotes(line).map(|q| format!("{}/{} {} {}", q.base, q.quote, q.rate, q.change)).collect()
    }

    #[test]
    fn quote_has_pair_equals_sign_decimal_and_percentage() {
        let check = |line: &str, expect: &[&str]| assert_eq!(found(line), expect, "{line}");
        check("\u{2022} KZT/USD = 0.00196 -0%", &["KZT/USD 0.00196 -0"]);
        check("KZT/USD=0.00196 +0.54%", &["KZT/USD 0.00196 +0.54"]);
        check("KZT / USD = 0.00196 0 %", &["KZT/USD 0.00196 0"]);
        check("KZT/USD\u{a0}=\u{2009}0.00196\u{202f}\u{2212}0%", &["KZT/USD 0.00196 \u{2212}0"]);
        check("(KZT/USD = 0.00196 0%)", &["KZT/USD 0.00196 0"]);
        check("KGS/USD = 1 0%KZT/USD = 2 0%", &["KGS/USD 1 0", "KZT/USD 2 0"]);
        check("KGS/USD = KZT/USD = 2 0%", &["KZT/USD 2 0"]);
    }

    #[test]
    fn other_text_is_not_a_quote() {
        for line in [
            "",
            "=",
            "= 0.00196 0%",
            "XKGS/USD = 0.01144 0%",
            "\u{e9}KGS/USD = 0.01144 0%",
            "KGS/USDX = 0.01144 0%",
            "EUR/KGS/USD = 0.01144 0%",
            "A/B = 3 of 4",
            "A/B = 3 4%",
            "KGS/USD 0.01144 0%",
            "KGS/USD: 0.01144 0%",
            "KGS/USD == 0.01144 0%",
            "KGS/USD >= 0.01144 0%",
            "KGS/USD = 0.01144",
            "KGS/USD = 0.01144 0",
            "KGS/USD = 0.01144%",
            "KGS/USD = 5 %",
            "KGS/USD = about 5 6%",
            "when KGS/USD = 0.01144, 5% more than in May",
            "when KGS/USD = 0.01144. 5% more than in May",
            "KGS/USD = 0.01144 up 5%",
            "KGS/USD = 0.01144 (0%)",
            "KGS/USD = 1 2 3 4 5 6 7%",
            "1 USD = 12,700 UZS, 3% less",
            "USD = 12700 3%",
            "the KGS/USD rate fell 3% to 0.01144",
        ] {
            assert_eq!(found(line), [""; 0], "{line}");
        }
    }

    #[test]
    fn quote_with_invalid_field_is_found() {
        let check = |line: &str, expect: &str| assert_eq!(found(line), [expect], "{line}");
        check("XXX/USD = 1.2 0%", "XXX/USD 1.2 0");
        check("kgs/usd = 1.2 0%", "kgs/usd 1.2 0");
        check("KGS/USD = 0 0%", "KGS/USD 0 0");
        check("KGS/USD = -1 0%", "KGS/USD -1 0");
        check("KGS/USD = 1e3 0%", "KGS/USD 1e3 0");
        check("KGS/USD = NaN NaN%", "KGS/USD NaN NaN");
        check("KGS/USD = - 0%", "KGS/USD - 0");
        check("KGS/USD = 0,01144 0%", "KGS/USD 0,01144 0");
        check("USD/UZS = 12,700.50 0%", "USD/UZS 12,700.50 0");
        check("USD/UZS = 12\u{a0}700.50 0%", "USD/UZS 12\u{a0}700.50 0");
        check("USD/UZS = 12'700 0%", "USD/UZS 12'700 0");
        check("KGS/USD = 0.01144 - 0%", "KGS/USD 0.01144 - 0");
        check("KGS/USD = 0.01144 \u{2013}0%", "KGS/USD 0.01144 \u{2013}0");
        check("KGS/USD = 0.01144 0,5%", "KGS/USD 0.01144 0,5");
    }

    #[test]
    fn quote_truncated_by_the_end_of_a_page_is_found() {
        let check = |line: &str, in_marquee: bool, expect: Option<&str>| {
            assert_eq!(truncated_quote(line, in_marquee), expect, "{line}");
        };
        for whole in ["\u{2022} TJS/USD = 0.10899 -0%", "KGS/USD = 0.01 0% \u{2022} TJS/USD = 0.10899 -0%"] {
            check(whole, true, None);
        }
        for cut in ["TJS/USD = 0.10899 -0", "TJS/USD = 0.10899 -", "TJS/USD = 0.10899", "TJS/USD = 0.", "TJS/USD ="] {
            check(&format!("  \u{2022} {cut}"), true, Some(cut));
            check(cut, false, Some(cut));
        }
        for cut in ["TJS/USD", "TJS/U", "TJS/"] {
            check(&format!("  \u{2022} {cut}"), false, Some(cut));
            check(&format!("KGS/USD = 0.01 0% {cut}"), false, Some(cut));
        }
        for cut in ["TJS", "TJ", "T"] {
            check(&format!("  \u{2022} {cut}"), true, Some(cut));
            check(&format!("  \u{2022} {cut}"), false, None);
            check(&format!("KGS/USD = 0.01 0% \u{2022} {cut}"), false, Some(cut));
            check(cut, true, None);
        }
        for prose in ["", "\u{2022}", "and/or", "The end.", "KGS/USD rose", "x = 3", "KGS/USD = about 3", "up 3%"] {
            check(prose, true, None);
        }
    }

    #[test]
    fn long_line_takes_linear_time() {
        for piece in ["KGS/USD=", "KGS/USD = 1 ", "= ", "KGS / ", "1 ", "%", "KGS/USD = 1e"] {
            assert!(found(&piece.repeat(4 * 1024 * 1024 / piece.len())).is_empty(), "{piece}");
        }
    }
}
