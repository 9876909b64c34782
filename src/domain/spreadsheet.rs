//! Text cells of CSV that spreadsheets read.

use std::borrow::Cow;

/// Returns the text of a CSV cell so that no spreadsheet runs it as a formula: a text that begins with `=`, `+`, `-`, `@`, a
/// tab or a carriage return gets an apostrophe before it. A number stays as it is. The rule is that of OWASP ("CSV
/// injection").
pub fn without_formula(text: &str) -> Cow<'_, str> {
    if !text.starts_with(['=', '+', '-', '@', '\t', '\r']) || is_number(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{text}"))
}

/// Returns true for decimal digits with an optional sign and an optional fraction, which may end in a unit of time (`-5s`).
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = digits.strip_suffix('s').unwrap_or(digits);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    [whole, fraction].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_neutralised_and_numbers_are_not() {
        for text in ["", "timesca", "-0", "-0.57", "+0.10", "0.01144", "-5.5s", "a=b", "сом", "[{\"rate\":\"1\"}]"] {
            assert_eq!(without_formula(text), text);
        }
        for text in ["=1+1", "+1+1", "-1+cmd", "@SUM(A1)", "\t=1", "\r=1", "-", "-1.", "-.5", "-1.2.3", "+s"] {
            assert_eq!(without_formula(text), format!("'{text}"));
        }
    }
}
