//! A rate as exact fractions: what it says, and what the true rate lies between.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::One as _;

use super::rounded::Rounded;
use super::rounding::{Rounding, SIGNIFICANT_DIGITS, fixed, power_of_ten, significant};
use crate::domain::Rate;

/// How many digits an answered rate is written with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Digits {
    /// Those that the source published.
    Published {
        /// Digits after the point.
        places: u8,
    },
    /// As many as a derived number has: [`SIGNIFICANT_DIGITS`].
    Significant,
}

/// A rate as answered: published, or derived from published ones.
///
/// A published rate with `p` places stands for half a unit in its last place either side, the ends included:
/// `[r - h, r + h]` with `h = 0.5 * 10^-p`. What is derived from it takes the extremes of its legs, and everything is
/// kept exact until a text is made.
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
    /// A published rate, with its published digits.
    pub fn direct(rate: Rate) -> Self {
        let unit = power_of_ten(u32::from(rate.places()));
        // In halves of the last place: r is 2m of them, its ends 2m - 1 and 2m + 1.
        let halves = BigInt::from(rate.mantissa()) * 2_u32;
        let of_halves = |halves: BigInt| BigRational::new(halves, &unit * 2_u32);
        Self {
            low: of_halves(&halves - BigInt::one()),
            high: of_halves(&halves + BigInt::one()),
            value: of_halves(halves),
            digits: Digits::Published { places: rate.places() },
        }
    }

    /// One over it: units of base for one unit of quote. The bounds change sides.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self { value: self.value.recip(), low: self.high.recip(), high: self.low.recip(), digits: Digits::Significant }
    }

    /// The product: units of quote of `next` for one unit of this base. All ends are positive, so that each bound is
    /// the product of the same bounds.
    #[must_use]
    pub(super) fn times(&self, next: &Self) -> Self {
        Self {
            value: &self.value * &next.value,
            low: &self.low * &next.low,
            high: &self.high * &next.high,
            digits: Digits::Significant,
        }
    }

    /// What it says.
    pub fn value(&self) -> &BigRational {
        &self.value
    }

    /// The least that the true rate may be.
    pub fn low(&self) -> &BigRational {
        &self.low
    }

    /// The most that it may be.
    pub fn high(&self) -> &BigRational {
        &self.high
    }

    /// Whether the true rates may be one: their intervals share a point, ends included.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }

    pub(super) const fn digits(&self) -> Digits {
        self.digits
    }

    /// The value: published digits, or 15 significant ones, half-even.
    pub fn rounded_value(&self) -> Rounded {
        match self.digits {
            Digits::Published { places } => fixed(&self.value, u32::from(places), Rounding::HalfEven),
            Digits::Significant => significant(&self.value, SIGNIFICANT_DIGITS, Rounding::HalfEven),
        }
    }

    /// The lower bound, rounded down. Exact where published: one place more than the rate has.
    pub fn rounded_low(&self) -> Rounded {
        self.bound(&self.low, Rounding::Down)
    }

    /// The upper bound, rounded up.
    pub fn rounded_high(&self) -> Rounded {
        self.bound(&self.high, Rounding::Up)
    }

    fn bound(&self, bound: &BigRational, rounding: Rounding) -> Rounded {
        match self.digits {
            Digits::Published { places } => fixed(bound, u32::from(places) + 1, rounding),
            Digits::Significant => significant(bound, SIGNIFICANT_DIGITS, rounding),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Reads a decimal or a fraction of integers.
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
    fn a_published_rate_stands_for_half_a_unit_either_side() {
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
    fn an_inverse_takes_the_extremes_of_its_leg() {
        let check = |rate: &str, expect: [&str; 3]| assert_eq!(numbers(&direct(rate).inverse()), expect);
        // 1/0.000085 and 1/0.000075, rounded outward.
        check("0.00008", ["11764.7058823529", "12500", "13333.3333333334"]);
        check("0.01144", ["87.3743993010048", "87.4125874125874", "87.4508089199826"]);
        check("0.5", ["1.81818181818181", "2", "2.22222222222223"]);
        check("8", ["0.117647058823529", "0.125", "0.133333333333334"]);
        check("0.000000000000000001", ["666666666666666000", "1000000000000000000", "2000000000000000000"]);
    }

    #[test]
    fn an_inverse_of_an_inverse_is_exact() {
        let rate = direct("0.28490");
        let back = rate.inverse().inverse();
        assert_eq!((back.low(), back.value(), back.high()), (rate.low(), rate.value(), rate.high()));
        assert_eq!(back.rounded_value(), "0.2849", "derived digits, no longer published ones");
    }
}
