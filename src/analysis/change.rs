//! Changes from one rate to another, with bounds. The bounds follow from the published digits.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Signed as _;

use super::derived::{Derived, Digits};
use super::fraction::{difference, multiple, quotient};
use super::rounded::Rounded;
use super::rounding::{Rounding, SIGNIFICANT_DIGITS, fixed, significant};

/// The default number of places of a percentage.
pub const DECIMAL_PLACES_DEFAULT: u32 = 6;
/// The maximum number of places of a percentage.
pub const DECIMAL_PLACES_MAX: u32 = 12;

/// A percent change and its bounds, exact.
///
/// The change from `a` to `b` is `100 * (b / a - 1)`. Each true rate may be anywhere between its bounds, so the true
/// change lies between `100 * (b_low / a_high - 1)` and `100 * (b_high / a_low - 1)`. The same formulas hold for an
/// inverse, because an inverse has exact bounds: its lower bound is one over the upper bound of its leg, and vice
/// versa.
///
/// **Invariant**: `low <= value <= high`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PercentChange {
    value: BigRational,
    low: BigRational,
    high: BigRational,
}

impl PercentChange {
    /// Computes the change from `start` to `end`.
    pub fn between(start: &Derived, end: &Derived) -> Self {
        Self {
            value: percent(&end.value(), &start.value()),
            low: percent(&end.low(), &start.high()),
            high: percent(&end.high(), &start.low()),
        }
    }

    /// Returns true if the published digits cannot distinguish the change from zero: zero lies between the exact
    /// bounds, ends included.
    pub fn below_resolution(&self) -> bool {
        !self.low.is_positive() && !self.high.is_negative()
    }

    /// Returns the sign of the change of the published numbers, even if the change is below resolution.
    pub fn direction(&self) -> Ordering {
        self.value.numer().cmp(&BigInt::ZERO)
    }

    /// Compares the absolute values of two changes.
    pub fn cmp_size(&self, other: &Self) -> Ordering {
        self.value.abs().cmp(&other.value.abs())
    }

    /// Returns the change with `places` places, rounded half-even.
    pub fn value(&self, places: u32) -> Rounded {
        fixed(&self.value, places, Rounding::HalfEven)
    }

    /// Returns the lower bound with `places` places, rounded down.
    pub fn low(&self, places: u32) -> Rounded {
        fixed(&self.low, places, Rounding::Down)
    }

    /// Returns the upper bound with `places` places, rounded up.
    pub fn high(&self, places: u32) -> Rounded {
        fixed(&self.high, places, Rounding::Up)
    }
}

/// Returns `100 * (end / start - 1)`; `start` must be positive.
fn percent(end: &BigRational, start: &BigRational) -> BigRational {
    multiple(&BigInt::from(100), &quotient(&difference(end, start), start))
}

/// Returns `end - start` in units of the quote currency. Between published rates the result is exact and has the larger
/// number of places of the two rates. Otherwise it has 15 significant digits, rounded once, half-even.
pub fn absolute_change(start: &Derived, end: &Derived) -> Rounded {
    let change = difference(&end.value(), &start.value());
    match (start.digits(), end.digits()) {
        (Digits::Published { places: from }, Digits::Published { places: to }) => {
            fixed(&change, u32::from(from.max(to)), Rounding::HalfEven)
        }
        _ => significant(&change, SIGNIFICANT_DIGITS, Rounding::HalfEven),
    }
}

#[cfg(test)]
mod tests {
    use num_traits::One as _;
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::derived::tests::{direct, exact};
    use crate::domain::Rate;

    #[test]
    fn changes_have_the_bounds_of_the_published_digits() {
        let check = |start: &str, end: &str, expect: [&str; 4], below: bool| {
            let (start, end) = (direct(start), direct(end));
            let change = PercentChange::between(&start, &end);
            let numbers = [change.low(6), change.value(6), change.high(6), absolute_change(&start, &end)];
            assert_eq!(numbers, expect);
            assert_eq!(change.below_resolution(), below);
            assert_eq!(change.direction(), end.value().cmp(&start.value()));
        };
        // One significant digit: "0 %" may be anything from -11.8 % to +13.3 %.
        check("0.00008", "0.00008", ["-11.764706", "0.000000", "13.333334", "0.00000"], true);
        check("0.01144", "0.01145", ["0.000000", "0.087413", "0.174902", "0.00001"], true);
        check("0.01144", "0.01146", ["0.087374", "0.174825", "0.262353", "0.00002"], false);
        check("0.01146", "0.01144", ["-0.261666", "-0.174520", "-0.087298", "-0.00002"], false);
        check("100", "101.0", ["0.447761", "1.000000", "1.557789", "1.0"], false);
        check("1", "2", ["0.000000", "100.000000", "400.000000", "1"], true);
        check("0.28490", "0.2849", ["-0.019305", "0.000000", "0.019306", "0.00000"], true);
    }

    #[test]
    fn changes_of_an_inverse_have_the_bounds_of_its_legs() {
        let check = |start: &str, end: &str, expect: [&str; 4], below: bool| {
            let (start, end) = (direct(start).inverse(), direct(end).inverse());
            let change = PercentChange::between(&start, &end);
            let numbers = [change.low(6), change.value(6), change.high(6), absolute_change(&start, &end)];
            assert_eq!(numbers, expect);
            assert_eq!(change.below_resolution(), below);
        };
        check("0.00008", "0.00008", ["-11.764706", "0.000000", "13.333334", "0"], true);
        // From 1/8 to 1/4: the bounds come from the digits of 8 and 4, not of 0.125 and 0.25.
        check("8", "4", ["66.666666", "100.000000", "142.857143", "0.125"], false);
        check("3", "7", ["-66.666667", "-57.142857", "-46.153846", "-0.190476190476190"], false);
    }

    #[test]
    fn below_resolution_is_decided_before_bounds_are_rounded() {
        // The exact lower bound is just above zero. It is rounded to zero, but the change is not below resolution.
        let change = PercentChange::between(&direct("1000000000.0"), &direct("1000000000.2"));
        assert_eq!(change.low(6), "0.000000");
        assert!(!change.below_resolution());
        // The intervals of both rates share only an end. Ends are included, so the change is below resolution.
        assert!(PercentChange::between(&direct("0.2"), &direct("0.3")).below_resolution());
    }

    fn rates() -> impl Strategy<Value = Rate> {
        (prop_oneof![1..200_u128, 1..10_u128.pow(10), 1..10_u128.pow(20)], 0..=18_u32)
            .prop_map(|(mantissa, places)| Rate::from_parts(mantissa, places).unwrap())
    }

    /// A point of the interval of `rate`, at `tenths` tenths of the way from the lower to the upper bound.
    fn inside(rate: &Derived, tenths: u32) -> BigRational {
        rate.low() + (rate.high() - rate.low()) * BigRational::new(tenths.into(), 10.into())
    }

    proptest! {
        #[test]
        fn bounds_contain_the_change_of_any_true_rates(
            a in rates(), b in rates(), x in 0..=10_u32, y in 0..=10_u32, invert in any::<bool>(), places in 0..=12_u32,
        ) {
            let side = |rate| if invert { Derived::direct(rate).inverse() } else { Derived::direct(rate) };
            let (start, end) = (side(a), side(b));
            let change = PercentChange::between(&start, &end);
            let (from, to) = (inside(&start, x), inside(&end, y));
            let real = (&to - &from) / &from * BigInt::from(100);
            let [low, high] = [change.low(places), change.high(places)].map(|bound| exact(&bound.to_string()));
            prop_assert!(low <= real && real <= high);
            prop_assert!(change.low <= change.value && change.value <= change.high);
            prop_assert!(!change.below_resolution() || low <= BigRational::from_integer(0.into()));
        }

        #[test]
        fn change_of_inverses_equals_reversed_change(a in rates(), b in rates()) {
            let (a, b) = (Derived::direct(a), Derived::direct(b));
            prop_assert_eq!(PercentChange::between(&a.inverse(), &b.inverse()), PercentChange::between(&b, &a));
        }

        #[test]
        fn reversed_change_undoes_the_change(a in rates(), b in rates()) {
            let (a, b) = (Derived::direct(a), Derived::direct(b));
            let (there, back) = (PercentChange::between(&a, &b), PercentChange::between(&b, &a));
            let factor = |percent: &BigRational| percent / BigInt::from(100) + BigRational::one();
            prop_assert_eq!(factor(&there.value) * factor(&back.value), BigRational::one());
            prop_assert_eq!(factor(&there.low) * factor(&back.high), BigRational::one());
            prop_assert_eq!(there.below_resolution(), back.below_resolution());
        }

        #[test]
        fn unchanged_rate_is_below_resolution(a in rates()) {
            let a = Derived::direct(a);
            prop_assert!(PercentChange::between(&a, &a).below_resolution());
        }
    }
}
