//! Labels: rates, changes and times as text and markup, in the same format on every page.
//!
//! **Invariant**: digits come from `analysis` and `domain` as text. No code in this module rounds or computes a rate.

use maud::{Markup, html};

use crate::analysis::{Derived, LegRate, Legs, PercentChange, Rounded, RoundedRate, Rounding, significant};
use crate::domain::{Rate, ReportedChange, Timestamp};
use crate::query::{Derivation, PairRate};

/// Significant digits of an inverse rate. The bounds of most inverse rates differ within these digits.
const INVERSE_DIGITS: u32 = 6;
/// Decimal places of a percentage.
const PERCENT_PLACES: u32 = 2;
/// Decimal places of a percentage that rounds to zero with [`PERCENT_PLACES`].
const PERCENT_PLACES_SMALL: u32 = 6;

/// A rate formatted for display.
pub(super) struct FormattedRate {
    /// The published digits; [`INVERSE_DIGITS`] significant digits of an inverse; 15 significant digits of a cross.
    pub(super) value: String,
    /// The lower bound of the true rate.
    pub(super) low: String,
    /// The upper bound of the true rate.
    pub(super) high: String,
}

impl FormattedRate {
    /// Formats a published rate, or its inverse.
    pub(super) fn new(rate: Rate, inverted: bool) -> Self {
        Self::of(&Legs::One(LegRate { rate, inverted }))
    }

    /// Formats the rate of a pair.
    pub(super) fn of(rate: &PairRate) -> Self {
        let derived = rate.derived();
        if let Legs::One(LegRate { inverted: true, .. }) = rate {
            let digits = |exact, rounding| significant(exact, INVERSE_DIGITS, rounding).to_string();
            return Self {
                value: digits(&derived.value(), Rounding::HalfEven),
                low: digits(&derived.low(), Rounding::Down),
                high: digits(&derived.high(), Rounding::Up),
            };
        }
        Self::of_derived(&derived)
    }

    /// Formats a rate with its published digits, or with 15 significant digits.
    pub(super) fn of_derived(derived: &Derived) -> Self {
        let [value, low, high] = [derived.rounded_value(), derived.rounded_low(), derived.rounded_high()];
        Self { value: value.to_string(), low: low.to_string(), high: high.to_string() }
    }
}

/// Returns the word for the origin of the digits of a rate.
pub(super) const fn digits_word(derivation: Derivation) -> &'static str {
    match derivation {
        Derivation::Direct => "published",
        Derivation::Inverse | Derivation::Cross => "derived",
    }
}

/// Formats the rate of a candle. The digits of an inverse are limited.
pub(super) fn candle_digits(rate: RoundedRate, derivation: Derivation) -> String {
    match derivation {
        Derivation::Inverse => significant(&rate.value(), INVERSE_DIGITS, Rounding::HalfEven).to_string(),
        Derivation::Direct | Derivation::Cross => rate.to_string(),
    }
}

/// Formats a number with a plus or minus sign; zero has no sign. The minus sign is as wide as a digit.
fn signed(number: &Rounded) -> String {
    match number.to_string().strip_prefix('-') {
        Some(digits) => format!("\u{2212}{digits}"),
        None if number.is_zero() => number.to_string(),
        None => format!("+{number}"),
    }
}

/// Formats the change that the source reported. The sign is kept, even of zero.
pub(super) fn reported(change: ReportedChange) -> String {
    format!("{}\u{a0}%", change.to_string().replace('-', "\u{2212}"))
}

/// Formats a change with its bounds. For a change below resolution, the text is `cannot tell`, followed by the change
/// of the published digits if that is not zero. `from` is the previous rate, shown before the bounds.
pub(super) fn percent(change: &PercentChange, from: Option<Rate>) -> Markup {
    let moved = change.direction().is_ne();
    let needs_more = moved && change.value(PERCENT_PLACES).is_zero();
    let places = if needs_more { PERCENT_PLACES_SMALL } else { PERCENT_PLACES };
    let (low, high) = (signed(&change.low(places)), signed(&change.high(places)));
    let class = if change.direction().is_lt() { "fall" } else { "rise" };
    let value = html! { span class=(class) { (signed(&change.value(places))) "\u{a0}%" } };
    html! {
        @if change.below_resolution() {
            span class="no-value" { "cannot tell" }
            @if moved { span class="sub" { "published " (value) } }
        } @else {
            (value)
        }
        span class="sub" { @if let Some(from) = from { "from " (from) ", " } (low) " to " (high) "\u{a0}%" }
    }
}

/// Formats a change in two lines. If the digits do not show whether the rate changed, the second line is the published
/// change, or the bounds if the published rate did not move.
pub(super) fn brief_percent(change: &PercentChange) -> Markup {
    if !change.below_resolution() || change.direction().is_eq() {
        return percent(change, None);
    }
    let class = if change.direction().is_lt() { "fall" } else { "rise" };
    let places = if change.value(PERCENT_PLACES).is_zero() { PERCENT_PLACES_SMALL } else { PERCENT_PLACES };
    html! {
        span class="no-value" { "cannot tell" }
        span class="sub" { "published " span class=(class) { (signed(&change.value(places))) "\u{a0}%" } }
    }
}

/// Formats a time as `2025-12-08 09:30:00` in UTC, without fractions of a second.
pub(super) fn clock_text(time: Timestamp) -> String {
    time.to_chrono().format("%Y-%m-%d %H:%M:%S").to_string()
}

/// Returns a `time` element in UTC.
pub(super) fn time_element(time: Timestamp) -> Markup {
    html! { time datetime=(time) { (clock_text(time)) } }
}

/// Returns an empty element that the script fills with the age of `time` and keeps up to date.
fn age(time: Timestamp) -> Markup {
    html! { span class="age" data-since=(millis(time)) {} }
}

/// Returns a time followed by its age, for running text.
pub(super) fn time_then_age(time: Timestamp) -> Markup {
    html! { (time_element(time)) " " (age(time)) }
}

/// Returns an age with its time below, for a cell.
pub(super) fn age_then_time(time: Timestamp) -> Markup {
    html! { (age(time)) span class="sub" { (time_element(time)) } }
}

/// Formats a day as `8 December 2025` in UTC.
pub(super) fn day_text(time: Timestamp) -> String {
    time.to_chrono().format("%-d %B %Y").to_string()
}

/// Returns milliseconds since 1970, JavaScript's form of times.
pub(super) fn millis(time: Timestamp) -> i64 {
    time.micros().div_euclid(1_000)
}

/// Formats a duration in its largest whole unit: `90 s`, `15 min`, `1 h`, `5 d`.
pub(super) fn duration(micros: i64) -> String {
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
    fn change_below_resolution_is_never_zero() {
        let check = |from: &str, to: &str, expect: &str| {
            let html = percent(&PercentChange::between(&derived(from), &derived(to)), None).into_string();
            assert_eq!(html.replace('\u{a0}', " "), expect);
        };
        check(
            "0.00008",
            "0.00008",
            r#"<span class="no-value">cannot tell</span><span class="sub">−11.77 to +13.34 %</span>"#,
        );
        // One unit in the last place: the direction is known, the size is not.
        check(
            "0.01146",
            "0.01145",
            concat!(
                r#"<span class="no-value">cannot tell</span>"#,
                r#"<span class="sub">published <span class="fall">−0.09 %</span></span>"#,
                r#"<span class="sub">−0.18 to 0.00 %</span>"#,
            ),
        );
        check("0.01144", "0.01146", r#"<span class="rise">+0.17 %</span><span class="sub">+0.08 to +0.27 %</span>"#);
        check("0.01146", "0.01144", r#"<span class="fall">−0.17 %</span><span class="sub">−0.27 to −0.08 %</span>"#);
        // Above resolution, but zero with two places.
        check(
            "1000.0000",
            "1000.0020",
            r#"<span class="rise">+0.000200 %</span><span class="sub">+0.000189 to +0.000211 %</span>"#,
        );
    }

    #[test]
    fn brief_change_has_the_published_change_or_the_bounds() {
        let check = |from: &str, to: &str, expect: &str| {
            let html = brief_percent(&PercentChange::between(&derived(from), &derived(to))).into_string();
            assert_eq!(html.replace('\u{a0}', " "), expect);
        };
        let cannot_tell = r#"<span class="no-value">cannot tell</span><span class="sub">"#;
        check("0.00008", "0.00008", &format!("{cannot_tell}−11.77 to +13.34 %</span>"));
        check("0.01146", "0.01145", &format!(r#"{cannot_tell}published <span class="fall">−0.09 %</span></span>"#));
        check("0.01144", "0.01146", r#"<span class="rise">+0.17 %</span><span class="sub">+0.08 to +0.27 %</span>"#);
    }

    #[test]
    fn reported_change_keeps_its_sign() {
        let check = |text: &str, expect: &str| {
            assert_eq!(reported(ReportedChange::parse(text).unwrap()), format!("{expect}\u{a0}%"));
        };
        check("-0", "\u{2212}0");
        check("0", "0");
        check("-1.50", "\u{2212}1.50");
        check("0.09", "0.09");
    }

    #[test]
    fn rate_is_formatted_in_both_directions() {
        let check = |rate: &str, inverted: bool, expect: [&str; 3]| {
            let rate = FormattedRate::new(Rate::parse(rate).unwrap(), inverted);
            assert_eq!([rate.low.as_str(), rate.value.as_str(), rate.high.as_str()], expect);
        };
        check("0.28490", false, ["0.284895", "0.28490", "0.284905"]);
        check("0.01144", true, ["87.3743", "87.4126", "87.4509"]);
        check("0.00008", true, ["11764.7", "12500", "13333.4"]);
        let leg = |text: &str, inverted| LegRate { rate: Rate::parse(text).unwrap(), inverted };
        let cross = FormattedRate::of(&Legs::Two(leg("0.01144", false), leg("0.00196", true)));
        assert_eq!([cross.low, cross.value, cross.high], ["5.81933842239185", "5.83673469387755", "5.85421994884911"]);
        // The rate of a candle keeps its published digits.
        let published = RoundedRate::published(Rate::parse("0.28490").unwrap());
        assert_eq!(candle_digits(published, Derivation::Direct), "0.28490");
    }

    #[test]
    fn duration_has_largest_whole_unit() {
        let check = |seconds: i64, expect: &str| {
            assert_eq!(duration(seconds * Timestamp::SECOND_US).replace('\u{a0}', " "), expect);
        };
        check(1, "1 s");
        check(90, "90 s");
        check(900, "15 min");
        check(3_600, "1 h");
        check(5 * 86_400, "5 d");
        check(36 * 3_600, "36 h");
    }
}
