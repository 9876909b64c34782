//! Numbers and times in words: short, exact, the same on every page.
//!
//! **Invariant**: digits come from `analysis` and `domain` as text; nothing here rounds or computes a rate.

use maud::{Markup, html};

use crate::analysis::{Derived, PercentChange, Rounded, RoundedRate, Rounding, significant};
use crate::domain::{Rate, ReportedChange, Timestamp};

/// Significant digits of a rate turned round: its bounds seldom have more to say.
const INVERSE_DIGITS: u32 = 6;
/// Places of a percentage, and of one that is smaller than these show.
const PERCENT_PLACES: u32 = 2;
const PERCENT_PLACES_SMALL: u32 = 6;

/// A rate as shown, in either direction.
pub(super) struct FormattedRate {
    /// Published digits; turned round, [`INVERSE_DIGITS`] of them.
    pub(super) value: String,
    /// The least that the true rate may be.
    pub(super) low: String,
    /// The most.
    pub(super) high: String,
}

impl FormattedRate {
    /// A published rate, or one over it.
    pub(super) fn new(rate: Rate, inverted: bool) -> Self {
        let direct = Derived::direct(rate);
        if !inverted {
            let (low, high) = (direct.rounded_low().to_string(), direct.rounded_high().to_string());
            return Self { value: rate.to_string(), low, high };
        }
        let inverse = direct.inverse();
        let digits = |exact, rounding| significant(exact, INVERSE_DIGITS, rounding).to_string();
        Self {
            value: digits(inverse.value(), Rounding::HalfEven),
            low: digits(inverse.low(), Rounding::Down),
            high: digits(inverse.high(), Rounding::Up),
        }
    }
}

/// The rate of a candle, which is turned round already if `inverted`.
pub(super) fn candle_digits(rate: RoundedRate, inverted: bool) -> String {
    if inverted { significant(&rate.value(), INVERSE_DIGITS, Rounding::HalfEven).to_string() } else { rate.to_string() }
}

/// With a sign that is as wide as a digit, and a plus where there is none.
fn signed(number: &Rounded) -> String {
    match number.to_string().strip_prefix('-') {
        Some(digits) => format!("\u{2212}{digits}"),
        None if number.is_zero() => number.to_string(),
        None => format!("+{number}"),
    }
}

/// What the source printed, sign kept, zero or not.
pub(super) fn reported(change: ReportedChange) -> String {
    format!("{}\u{a0}%", change.to_string().replace('-', "\u{2212}"))
}

/// A change with its bounds; one that the digits cannot tell is never called zero, and says which way the published
/// numbers went. `from` is said before the bounds.
pub(super) fn percent(change: &PercentChange, from: Option<Rate>) -> Markup {
    let moved = change.direction().is_ne();
    let needs_more = moved && change.value(PERCENT_PLACES).is_zero();
    let places = if needs_more { PERCENT_PLACES_SMALL } else { PERCENT_PLACES };
    let (low, high) = (signed(&change.low(places)), signed(&change.high(places)));
    let way = if change.direction().is_lt() { "fall" } else { "rise" };
    let value = html! { span class=(way) { (signed(&change.value(places))) "\u{a0}%" } };
    html! {
        @if change.below_resolution() {
            span class="untold" { "cannot tell" }
            @if moved { span class="sub" { "published " (value) } }
        } @else {
            (value)
        }
        span class="sub" { @if let Some(from) = from { "from " (from) ", " } (low) " to " (high) "\u{a0}%" }
    }
}

/// `2025-12-08 09:30:00`, UTC; seconds have no fraction on a page.
pub(super) fn clock_text(time: Timestamp) -> String {
    time.to_chrono().format("%Y-%m-%d %H:%M:%S").to_string()
}

/// A moment in UTC, for programs to read as well.
pub(super) fn moment(time: Timestamp) -> Markup {
    html! { time datetime=(time) { (clock_text(time)) } }
}

/// Room for the age of a moment, which a browser fills and counts on.
fn age(time: Timestamp) -> Markup {
    html! { span class="age" data-since=(millis(time)) {} }
}

/// A moment and its age, within a text.
pub(super) fn moment_and_age(time: Timestamp) -> Markup {
    html! { (moment(time)) " " (age(time)) }
}

/// Its age and the moment, in a cell.
pub(super) fn age_and_moment(time: Timestamp) -> Markup {
    html! { (age(time)) span class="sub" { (moment(time)) } }
}

/// Milliseconds since 1970, as scripts count.
pub(super) fn millis(time: Timestamp) -> i64 {
    time.micros().div_euclid(1_000)
}

/// A length of time in its largest whole unit: `90 s`, `15 min`, `1 h`, `5 d`.
pub(super) fn length(micros: i64) -> String {
    let seconds = micros / Timestamp::SECOND_US;
    let in_units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let unit = in_units.into_iter().find(|(unit, _)| seconds >= *unit && seconds % unit == 0);
    let (unit, name) = unit.unwrap_or((1, "s"));
    format!("{}\u{a0}{name}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derived(text: &str) -> Derived {
        Derived::direct(Rate::parse(text).unwrap())
    }

    #[test]
    fn a_change_that_digits_cannot_tell_is_never_zero() {
        let check = |from: &str, to: &str, expect: &str| {
            let html = percent(&PercentChange::between(&derived(from), &derived(to)), None).into_string();
            assert_eq!(html.replace('\u{a0}', " "), expect);
        };
        check(
            "0.00008",
            "0.00008",
            r#"<span class="untold">cannot tell</span><span class="sub">−11.77 to +13.34 %</span>"#,
        );
        // One unit in the last place: by how much is not known, which way is.
        check(
            "0.01146",
            "0.01145",
            concat!(
                r#"<span class="untold">cannot tell</span>"#,
                r#"<span class="sub">published <span class="fall">−0.09 %</span></span>"#,
                r#"<span class="sub">−0.18 to 0.00 %</span>"#,
            ),
        );
        check("0.01144", "0.01146", r#"<span class="rise">+0.17 %</span><span class="sub">+0.08 to +0.27 %</span>"#);
        check("0.01146", "0.01144", r#"<span class="fall">−0.17 %</span><span class="sub">−0.27 to −0.08 %</span>"#);
        // Resolved, and smaller than two places show.
        check(
            "1000.0000",
            "1000.0020",
            r#"<span class="rise">+0.000200 %</span><span class="sub">+0.000189 to +0.000211 %</span>"#,
        );
    }

    #[test]
    fn a_reported_change_keeps_its_sign() {
        let check = |text: &str, expect: &str| {
            assert_eq!(reported(ReportedChange::parse(text).unwrap()), format!("{expect}\u{a0}%"));
        };
        check("-0", "\u{2212}0");
        check("0", "0");
        check("-1.50", "\u{2212}1.50");
        check("0.09", "0.09");
    }

    #[test]
    fn rates_are_shown_in_both_directions() {
        let check = |rate: &str, inverted: bool, expect: [&str; 3]| {
            let shown = FormattedRate::new(Rate::parse(rate).unwrap(), inverted);
            assert_eq!([shown.low.as_str(), shown.value.as_str(), shown.high.as_str()], expect);
        };
        check("0.28490", false, ["0.284895", "0.28490", "0.284905"]);
        check("0.01144", true, ["87.3743", "87.4126", "87.4509"]);
        check("0.00008", true, ["11764.7", "12500", "13333.4"]);
        // A candle's is exact when it is turned round, and is cut as others are.
        let written = RoundedRate::published(Rate::parse("0.28490").unwrap());
        assert_eq!(candle_digits(written, false), "0.28490");
    }

    #[test]
    fn lengths_take_their_largest_unit() {
        let check = |seconds: i64, expect: &str| {
            assert_eq!(length(seconds * Timestamp::SECOND_US).replace('\u{a0}', " "), expect);
        };
        check(1, "1 s");
        check(90, "90 s");
        check(900, "15 min");
        check(3_600, "1 h");
        check(5 * 86_400, "5 d");
        check(36 * 3_600, "36 h");
    }
}
