//! Changes from one rate to another, with what the published digits allow.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One as _, Signed as _};

use super::derived::{Derived, Digits};
use super::rounded::Rounded;
use super::rounding::{Rounding, SIGNIFICANT_DIGITS, fixed, significant};

/// Places of a percentage unless asked otherwise.
pub const DECIMAL_PLACES_DEFAULT: u32 = 6;
/// Most places of a percentage.
pub const DECIMAL_PLACES_MAX: u32 = 12;

/// A percent change and its bounds, exact.
///
/// From `a` to `b` it is `100 * (b / a - 1)`. Either end may be anywhere in its own interval, so the change lies from
/// `100 * (b_low / a_high - 1)` to `100 * (b_high / a_low - 1)`. For an inverse these are the formulas of its legs with
/// the ends swapped, since an inverse keeps its bounds exact.
///
/// **Invariant**: `low <= value <= high`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PercentChange {
    value: BigRational,
    low: BigRational,
    high: BigRational,
}

impl PercentChange {
    /// From `start` to `end`.
    pub fn between(start: &Derived, end: &Derived) -> Self {
        let percent = |end: &BigRational, start: &BigRational| (end / start - BigRational::one()) * BigInt::from(100);
        Self {
            value: percent(end.value(), start.value()),
            low: percent(end.low(), start.high()),
            high: percent(end.high(), start.low()),
        }
    }

    /// Whether the published digits cannot tell it from none: zero lies between the bounds, before any rounding.
    pub fn below_resolution(&self) -> bool {
        !self.low.is_positive() && !self.high.is_negative()
    }

    /// Which way the published numbers went, whether or not their digits can tell by how much.
    pub fn direction(&self) -> Ordering {
        self.value.numer().cmp(&BigInt::ZERO)
    }

    /// Which of two changes is further from none, whichever way they go.
    pub fn cmp_size(&self, other: &Self) -> Ordering {
        self.value.abs().cmp(&other.value.abs())
    }

    /// The change, half-even to `places`.
    pub fn value(&self, places: u32) -> Rounded {
        fixed(&self.value, places, Rounding::HalfEven)
    }

    /// The least that it may be, rounded down to `places`.
    pub fn low(&self, places: u32) -> Rounded {
        fixed(&self.low, places, Rounding::Down)
    }

    /// The most that it may be, rounded up to `places`.
    pub fn high(&self, places: u32) -> Rounded {
        fixed(&self.high, places, Rounding::Up)
    }
}

/// `end - start` in units of quote: exact between published rates, with the places of the finer; else 15 significant
/// digits, half-even, rounded once.
pub fn absolute_change(start: &Derived, end: &Derived) -> Rounded {
    let change = end.value() - start.value();
    match (start.digits(), end.digits()) {
        (Digits::Published { places: from }, Digits::Published { places: to }) => {
            fixed(&change, u32::from(from.max(to)), Rounding::HalfEven)
        }
        _ => significant(&change, SIGNIFICANT_DIGITS, Rounding::HalfEven),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::derived::tests::{direct, exact};
    use crate::domain::Rate;

    #[test]
    fn changes_say_what_the_digits_allow() {
        let check = |start: &str, end: &str, expect: [&str; 4], below: bool| {
            let (start, end) = (direct(start), direct(end));
            let change = PercentChange::between(&start, &end);
            let numbers = [change.low(6), change.value(6), change.high(6), absolute_change(&start, &end)];
            assert_eq!(numbers, expect);
            assert_eq!(change.below_resolution(), below);
            assert_eq!(change.direction(), end.value().cmp(start.value()));
        };
        // One significant digit: "0 %" may be anything from a fall of an eighth to a rise of one.
        check("0.00008", "0.00008", ["-11.764706", "0.000000", "13.333334", "0.00000"], true);
        check("0.01144", "0.01145", ["0.000000", "0.087413", "0.174902", "0.00001"], true);
        check("0.01144", "0.01146", ["0.087374", "0.174825", "0.262353", "0.00002"], false);
        check("0.01146", "0.01144", ["-0.261666", "-0.174520", "-0.087298", "-0.00002"], false);
        check("100", "101.0", ["0.447761", "1.000000", "1.557789", "1.0"], false);
        check("1", "2", ["0.000000", "100.000000", "400.000000", "1"], true);
        check("0.28490", "0.2849", ["-0.019305", "0.000000", "0.019306", "0.00000"], true);
    }

    #[test]
    fn changes_of_an_inverse_come_from_the_legs() {
        let check = |start: &str, end: &str, expect: [&str; 4], below: bool| {
            let (start, end) = (direct(start).inverse(), direct(end).inverse());
            let change = PercentChange::between(&start, &end);
            let numbers = [change.low(6), change.value(6), change.high(6), absolute_change(&start, &end)];
            assert_eq!(numbers, expect);
            assert_eq!(change.below_resolution(), below);
        };
        check("0.00008", "0.00008", ["-11.764706", "0.000000", "13.333334", "0"], true);
        // 1/8 to 1/4: the ends themselves have few digits, the bounds are those of 8 and 4.
        check("8", "4", ["66.666666", "100.000000", "142.857143", "0.125"], false);
        check("3", "7", ["-66.666667", "-57.142857", "-46.153846", "-0.190476190476190"], false);
    }

    #[test]
    fn bounds_round_outward_and_the_decision_comes_before() {
        // The true lower bound is a hair above zero: it prints as zero, yet the change is resolved.
        let change = PercentChange::between(&direct("1000000000.0"), &direct("1000000000.2"));
        assert_eq!(change.low(6), "0.000000");
        assert!(!change.below_resolution());
        // Touching ends are still ends: the bounds are included.
        assert!(PercentChange::between(&direct("0.2"), &direct("0.3")).below_resolution());
    }

    fn rates() -> impl Strategy<Value = Rate> {
        (prop_oneof![1..200_u128, 1..10_u128.pow(10), 1..10_u128.pow(20)], 0..=18_u32)
            .prop_map(|(mantissa, places)| Rate::from_parts(mantissa, places).unwrap())
    }

    /// A point of the interval of `rate`: `tenths` of the way from its low to its high end.
    fn inside(rate: &Derived, tenths: u32) -> BigRational {
        rate.low() + (rate.high() - rate.low()) * BigRational::new(tenths.into(), 10.into())
    }

    proptest! {
        #[test]
        fn every_true_rate_has_its_change_inside(
            a in rates(), b in rates(), x in 0..=10_u32, y in 0..=10_u32, invert in any::<bool>(), places in 0..=12_u32,
        ) {
            let side = |rate| if invert { Derived::direct(rate).inverse() } else { Derived::direct(rate) };
            let (start, end) = (side(a), side(b));
            let change = PercentChange::between(&start, &end);
            let (from, to) = (inside(&start, x), inside(&end, y));
            let real = (&to - &from) / &from * BigInt::from(100);
            prop_assert!(exact(&change.low(places).to_string()) <= real && real <= exact(&change.high(places).to_string()));
            prop_assert!(change.low <= change.value && change.value <= change.high);
            prop_assert!(!change.below_resolution() || exact(&change.low(places).to_string()) <= BigRational::from_integer(0.into()));
        }

        #[test]
        fn inverting_a_pair_is_swapping_the_ends(a in rates(), b in rates()) {
            let (a, b) = (Derived::direct(a), Derived::direct(b));
            prop_assert_eq!(PercentChange::between(&a.inverse(), &b.inverse()), PercentChange::between(&b, &a));
        }

        #[test]
        fn a_swap_undoes_a_change(a in rates(), b in rates()) {
            let (a, b) = (Derived::direct(a), Derived::direct(b));
            let (there, back) = (PercentChange::between(&a, &b), PercentChange::between(&b, &a));
            let factor = |percent: &BigRational| percent / BigInt::from(100) + BigRational::one();
            prop_assert_eq!(factor(&there.value) * factor(&back.value), BigRational::one());
            prop_assert_eq!(factor(&there.low) * factor(&back.high), BigRational::one());
            prop_assert_eq!(there.below_resolution(), back.below_resolution());
        }

        #[test]
        fn an_unmoved_rate_is_never_resolved(a in rates()) {
            let a = Derived::direct(a);
            prop_assert!(PercentChange::between(&a, &a).below_resolution());
        }
    }
}
