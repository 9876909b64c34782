//! Rates as exact fractions: a value and the bounds between which the true rate lies.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::One as _;

use super::rounded::Rounded;
use super::rounding::{Rounding, SIGNIFICANT_DIGITS, fixed, power_of_ten, significant};
use crate::domain::Rate;

/// The number of digits of a rate in an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Digits {
    /// The digits that the source published.
    Published {
        /// The number of digits after the decimal point.
        places: u8,
    },
    /// The digits of a derived rate: [`SIGNIFICANT_DIGITS`].
    Significant,
}

/// A published rate, or a rate derived from published rates, with its bounds.
///
/// A published rate `r` with `p` places stands for any true rate that differs from `r` by at most half a unit in the
/// last place of `r`: `[r - h, r + h]` with `h = 0.5 * 10^-p`, ends included. The bounds of a derived rate come from
/// the bounds of its legs. All numbers are exact until an answer is rounded.
///
/// **Invariant**: `0 < low <= value <= high`. A mantissa is at least 1, so `r - h` is at least half a unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Derived {
    value: BigRational,
    low: BigRational,
    high: BigRational,
    digits: Digits,
}

impl Derived {
    /// Creates a published rate with its bounds.
    pub fn direct(rate: Rate) -> Self {
        let unit = power_of_ten(u32::from(rate.places()));
        // In halves of a unit in the last place, r is 2m, and its bounds are 2m - 1 and 2m + 1 (m is the mantissa).
        let halves = BigInt::from(rate.mantissa()) * 2_u32;
        let from_halves = |halves: BigInt| BigRational::new(halves, &unit * 2_u32);
        Self {
            low: from_halves(&halves - BigInt::one()),
            high: from_halves(&halves + BigInt::one()),
            value: from_halves(halves),
            digits: Digits::Published { places: rate.places() },
        }
    }

    /// Returns one divided by the rate: units of base for one unit of quote. The lower bound is one divided by the
    /// upper bound of this rate, and vice versa.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self { value: self.value.recip(), low: self.high.recip(), high: self.low.recip(), digits: Digits::Significant }
    }

    /// Returns the product: units of the quote of `next` for one unit of the base of this rate. All bounds are
    /// positive, so the lower bound is the product of the lower bounds, and the upper bound is the product of the upper
    /// bounds.
    #[must_use]
    pub(super) fn times(&self, next: &Self) -> Self {
        Self {
            value: &self.value * &next.value,
            low: &self.low * &next.low,
            high: &self.high * &next.high,
            digits: Digits::Significant,
        }
    }

    /// The exact value.
    pub fn value(&self) -> &BigRational {
        &self.value
    }

    /// The exact lower bound of the true rate, inclusive.
    pub fn low(&self) -> &BigRational {
        &self.low
    }

    /// The exact upper bound of the true rate, inclusive.
    pub fn high(&self) -> &BigRational {
        &self.high
    }

    /// Returns true if both true rates may be equal: their intervals share a point, ends included.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }

    pub(super) const fn digits(&self) -> Digits {
        self.digits
    }

    /// Returns the value with the published digits, or with 15 significant digits, rounded half-even.
    pub fn rounded_value(&self) -> Rounded {
        match self.digits {
            Digits::Published { places } => fixed(&self.value, u32::from(places), Rounding::HalfEven),
            Digits::Significant => significant(&self.value, SIGNIFICANT_DIGITS, Rounding::HalfEven),
        }
    }

    /// Returns the lower bound, rounded down. The bound of a published rate is exact and has one place more than the
    /// rate.
    pub fn rounded_low(&self) -> Rounded {
        self.round_bound(&self.low, Rounding::Down)
    }

    /// Returns the upper bound, rounded up. The bound of a published rate is exact and has one place more than the
    /// rate.
    pub fn rounded_high(&self) -> Rounded {
        self.round_bound(&self.high, Rounding::Up)
    }

    fn round_bound(&self, bound: &BigRational, rounding: Rounding) -> Rounded {
        match self.digits {
            Digits::Published { places } => fixed(bound, u32::from(places) + 1, rounding),
            Digits::Significant => significant(bound, SIGNIFICANT_DIGITS, rounding),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Parses a decimal or a fraction of integers.
    pub(in crate::analysis) fn exact(text: &str) -> BigRational {
        if text.contains('/') {
            return text.parse().unwrap();
        }
        let places = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let numer: BigInt = text.replace('.', "").parse().unwrap();
        BigRational::new(numer, power_of_ten(u32::try_from(places).unwrap()))
    }

    pub(in crate::analysis) fn direct(text: &str) -> Derived {
        Derived::direct(Rate::parse(text).unwrap())
    }

    fn numbers(derived: &Derived) -> [Rounded; 3] {
        [derived.rounded_low(), derived.rounded_value(), derived.rounded_high()]
    }

    #[test]
    fn bounds_of_a_published_rate_are_half_a_unit_away() {
        let check = |rate: &str, expect: [&str; 3]| assert_eq!(numbers(&direct(rate)), expect);
        check("0.00008", ["0.000075", "0.00008", "0.000085"]);
        check("0.28490", ["0.284895", "0.28490", "0.284905"]);
        check("87", ["86.5", "87", "87.5"]);
        check("1", ["0.5", "1", "1.5"]);
        check("0.000000000000000001", ["0.0000000000000000005", "0.000000000000000001", "0.0000000000000000015"]);
        check(
            "12345678901234567890.12345678",
            ["12345678901234567890.123456775", "12345678901234567890.12345678", "12345678901234567890.123456785"],
        );
    }

    #[test]
    fn bounds_of_an_inverse_come_from_the_bounds_of_its_leg() {
        let check = |rate: &str, expect: [&str; 3]| assert_eq!(numbers(&direct(rate).inverse()), expect);
        // 1/0.000085 and 1/0.000075, rounded outward.
        check("0.00008", ["11764.7058823529", "12500", "13333.3333333334"]);
        check("0.01144", ["87.3743993010048", "87.4125874125874", "87.4508089199826"]);
        check("0.5", ["1.81818181818181", "2", "2.22222222222223"]);
        check("8", ["0.117647058823529", "0.125", "0.133333333333334"]);
        check("0.000000000000000001", ["666666666666666000", "1000000000000000000", "2000000000000000000"]);
    }

    #[test]
    fn inverse_of_an_inverse_is_exact() {
        let rate = direct("0.28490");
        let back = rate.inverse().inverse();
        assert_eq!((back.low(), back.value(), back.high()), (rate.low(), rate.value(), rate.high()));
        assert_eq!(back.rounded_value(), "0.2849", "a derived rate does not keep the published digits");
    }
}
