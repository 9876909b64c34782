//! Finds quotes in a line of text: pair, `=`, decimal, percentage.
//!
//! Knows the shape of a quote and judges none of its members, so that a bad one can be named.
//!
//! **Invariant**: what is found in a text is found in every longer text that begins with it, up to
//! the last whole quote; a page cut off anywhere therefore never shows a quote that was not there.
//! Time is linear in the line: no two `=` look at the same characters.

/// A pair, a rate and a percentage that stand together, as written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RawQuote<'a> {
    pub(super) base: &'a str,
    pub(super) quote: &'a str,
    pub(super) rate: &'a str,
    /// With its sign, without the percent sign.
    pub(super) change: &'a str,
}

/// Most words between `=` and `%`. Two make a quote; a few more are one with spaces in its number,
/// to be refused by name; beyond that it is prose.
const QUOTE_WORDS_MAX: usize = 6;

/// What broken tickers print for a number that they lack.
const NO_NUMBERS: [&str; 4] = ["NaN", "Infinity", "null", "undefined"];

/// The quotes of one line, in order.
pub(super) fn quotes(line: &str) -> Quotes<'_> {
    Quotes { line, at: 0 }
}

/// See [`quotes`].
pub(super) struct Quotes<'a> {
    line: &'a str,
    /// Where to look on: after the last `=` seen, or after the last quote.
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
            if let Members::Whole { rate, change, length } = members(after) {
                self.at += length;
                return Some(RawQuote { base, quote, rate, change });
            }
        }
    }
}

/// The quote that the end of `line` breaks off, as much of it as is there: from its pair on.
///
/// `in_marquee` says that quotes stand right before the line; only then does a bullet with a few
/// capitals count, which elsewhere is a list's last item.
pub(super) fn cut_off(line: &str, in_marquee: bool) -> Option<&str> {
    let line = line.trim_matches(is_space);
    if let Some((before, after)) = line.rsplit_once('=')
        && let Some((start, ..)) = pair_at_end(before)
        && matches!(members(after), Members::CutOff)
    {
        return Some(&line[start..]);
    }
    // Several quotes may stand on the line: look at what follows the last of them.
    let (behind_quote, tail) = match line.rsplit_once('%') {
        Some((_, tail)) => (true, tail.trim_start_matches(is_space)),
        None => (false, line),
    };
    let rest = tail.trim_start_matches(|c| is_space(c) || is_bullet(c));
    let code = |text: &str| text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    let broken = match rest.split_once('/') {
        Some((base, quote)) => base.len() == 3 && code(base) && code(quote),
        None => (in_marquee || behind_quote) && rest.len() < tail.len() && !rest.is_empty() && code(rest),
    };
    broken.then_some(rest)
}

/// A space for the eye, whatever its width; no-break and zero-width ones too.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{200b}' | '\u{feff}')
}

fn is_bullet(c: char) -> bool {
    matches!(c, '\u{2022}' | '\u{2023}' | '\u{25cf}' | '\u{25e6}' | '\u{b7}' | '*' | '-' | '|')
}

fn is_sign(c: char) -> bool {
    // Dashes are listed so that a change written with one is refused by name: whether it means a
    // minus or a range is the publisher's secret. U+2212 is the minus sign proper.
    matches!(c, '+' | '-' | '\u{2212}' | '\u{2013}' | '\u{2014}')
}

/// Where the pair that ends `text` starts, its base and its quote, if nothing grows into the base
/// from the left.
fn pair_at_end(text: &str) -> Option<(usize, &str, &str)> {
    let (rest, quote) = code_at_end(text.trim_end_matches(is_space))?;
    let rest = rest.trim_end_matches(is_space).strip_suffix('/')?;
    let (rest, base) = code_at_end(rest.trim_end_matches(is_space))?;
    let grows = rest.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '/'));
    (!grows).then_some((rest.len(), base, quote))
}

/// Three ASCII letters of either case, and what is before them.
fn code_at_end(text: &str) -> Option<(&str, &str)> {
    let (rest, code) = text.split_at_checked(text.len().checked_sub(3)?)?;
    code.bytes().all(|byte| byte.is_ascii_alphabetic()).then_some((rest, code))
}

/// What follows a pair and its `=`.
enum Members<'a> {
    /// Numbers, the last of them with a percent sign that ends after `length` bytes.
    Whole { rate: &'a str, change: &'a str, length: usize },
    /// Numbers or none, then the end of the text.
    CutOff,
    /// Something that is no quote.
    Other,
}

fn members(text: &str) -> Members<'_> {
    let mut words: Vec<(usize, usize)> = Vec::with_capacity(QUOTE_WORDS_MAX);
    let mut at = 0;
    loop {
        at = text.len() - text[at..].trim_start_matches(is_space).len();
        let rest = &text[at..];
        if rest.is_empty() {
            return Members::CutOff;
        }
        if rest.starts_with('%') {
            return whole(text, &words, at);
        }
        let end = at + number_length(rest);
        let after = text[end..].chars().next();
        if words.len() == QUOTE_WORDS_MAX || end == at || after.is_some_and(|c| c != '%' && !is_space(c)) {
            return Members::Other;
        }
        // At the end of the text a word may be half of one: `0.` of `0.00196`.
        if after.is_none() {
            return Members::CutOff;
        }
        if !is_number_like(&text[at..end]) {
            return Members::Other;
        }
        words.push((at, end));
        at = end;
    }
}

/// Rate and change out of the words before the `%` at `percent`: the last word is the change, with
/// a sign that stands apart from it; all others are the rate.
fn whole<'a>(text: &'a str, words: &[(usize, usize)], percent: usize) -> Members<'a> {
    let is_lone_sign = |&(start, end): &(usize, usize)| text[start..end].chars().all(is_sign);
    let (rate_words, change_words) = match words.len() {
        0 | 1 => return Members::Other,
        count if count > 2 && is_lone_sign(&words[count - 2]) => words.split_at(count - 2),
        count => words.split_at(count - 1),
    };
    let span = |words: &[(usize, usize)]| match (words.first(), words.last()) {
        (Some((start, _)), Some((_, end))) => &text[*start..*end],
        _ => "",
    };
    Members::Whole { rate: span(rate_words), change: span(change_words), length: percent + 1 }
}

/// How much of the head of `text` could belong to a number, well written or not.
fn number_length(text: &str) -> usize {
    if let Some(word) =
        NO_NUMBERS.iter().find(|word| text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word)))
    {
        return word.len();
    }
    let in_number =
        |c: char| c.is_ascii_digit() || is_sign(c) || matches!(c, '.' | ',' | '\'' | '\u{2019}' | 'e' | 'E');
    text.find(|c: char| !in_number(c)).unwrap_or(text.len())
}

/// Whether a reader would take the word for a number, if a badly written one. A comma or point at
/// its end belongs to a sentence.
fn is_number_like(word: &str) -> bool {
    let digits = word.trim_start_matches(is_sign);
    digits.is_empty()
        || NO_NUMBERS.iter().any(|no_number| no_number.eq_ignore_ascii_case(digits))
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
    fn a_quote_is_pair_equals_decimal_percentage() {
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
    fn nothing_else_is_a_quote() {
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
    fn a_bad_member_does_not_hide_a_quote() {
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
    fn the_end_of_a_page_may_break_a_quote_off() {
        let check = |line: &str, in_marquee: bool, expect: Option<&str>| {
            assert_eq!(cut_off(line, in_marquee), expect, "{line}");
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
    fn a_line_of_megabytes_takes_linear_time() {
        for piece in ["KGS/USD=", "KGS/USD = 1 ", "= ", "KGS / ", "1 ", "%", "KGS/USD = 1e"] {
            assert!(found(&piece.repeat(4 * 1024 * 1024 / piece.len())).is_empty(), "{piece}");
        }
    }
}
