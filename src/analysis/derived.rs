//! Rates as exact fractions: a value and the bounds between which the true rate lies.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::One as _;

use super::rounded::Rounded;
use super::rounding::{Rounding, SIGNIFICANT_DIGITS, power_of_ten, significant};
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
pub struct Derived(Repr);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Repr {
    /// A published rate. Its fractions are computed when they are needed: most answers need only its digits.
    Published(Rate),
    /// A derived rate.
    Fractions(Box<Fractions>),
}

/// The exact numbers of a derived rate.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Fractions {
    value: BigRational,
    low: BigRational,
    high: BigRational,
}

/// Returns `halves` halves of a unit in the last place of `rate`. In these halves, the rate is `2m`, and its bounds are
/// `2m - 1` and `2m + 1` (`m` is the mantissa). The fraction is not reduced, because reducing it costs more than the
/// arithmetic with it.
fn from_halves(rate: Rate, halves: BigInt) -> BigRational {
    BigRational::new_raw(halves, power_of_ten(u32::from(rate.places())) * 2_u32)
}

fn halves(rate: Rate) -> BigInt {
    BigInt::from(rate.mantissa()) * 2_u32
}

impl Derived {
    /// Creates a published rate with its bounds.
    pub const fn direct(rate: Rate) -> Self {
        Self(Repr::Published(rate))
    }

    fn of(value: BigRational, [low, high]: [BigRational; 2]) -> Self {
        Self(Repr::Fractions(Box::new(Fractions { value, low, high })))
    }

    /// Returns one divided by the rate: units of base for one unit of quote. The lower bound is one divided by the
    /// upper bound of this rate, and vice versa.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self::of(self.value().recip(), [self.high().recip(), self.low().recip()])
    }

    /// Returns the product: units of the quote of `next` for one unit of the base of this rate. All bounds are
    /// positive, so the lower bound is the product of the lower bounds, and the upper bound is the product of the upper
    /// bounds.
    #[must_use]
    pub(super) fn times(&self, next: &Self) -> Self {
        Self::of(self.value() * next.value(), [self.low() * next.low(), self.high() * next.high()])
    }

    /// The exact value.
    pub fn value(&self) -> BigRational {
        match &self.0 {
            Repr::Published(rate) => from_halves(*rate, halves(*rate)),
            Repr::Fractions(fractions) => fractions.value.clone(),
        }
    }

    /// The exact lower bound of the true rate, inclusive.
    pub fn low(&self) -> BigRational {
        match &self.0 {
            Repr::Published(rate) => from_halves(*rate, halves(*rate) - BigInt::one()),
            Repr::Fractions(fractions) => fractions.low.clone(),
        }
    }

    /// The exact upper bound of the true rate, inclusive.
    pub fn high(&self) -> BigRational {
        match &self.0 {
            Repr::Published(rate) => from_halves(*rate, halves(*rate) + BigInt::one()),
            Repr::Fractions(fractions) => fractions.high.clone(),
        }
    }

    /// Returns true if both true rates may be equal: their intervals share a point, ends included.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.low() <= other.high() && other.low() <= self.high()
    }

    pub(super) const fn digits(&self) -> Digits {
        match &self.0 {
            Repr::Published(rate) => Digits::Published { places: rate.places() },
            Repr::Fractions(_) => Digits::Significant,
        }
    }

    /// Returns the value with the published digits, or with 15 significant digits, rounded half-even.
    pub fn rounded_value(&self) -> Rounded {
        match &self.0 {
            Repr::Published(rate) => Rounded::from_mantissa(rate.mantissa(), rate.places().into()),
            Repr::Fractions(fractions) => significant(&fractions.value, SIGNIFICANT_DIGITS, Rounding::HalfEven),
        }
    }

    /// Returns the lower bound, rounded down. The bound of a published rate is exact and has one place more than the
    /// rate.
    pub fn rounded_low(&self) -> Rounded {
        match &self.0 {
            // A mantissa is at least 1 and has at most 28 digits.
            Repr::Published(rate) => Rounded::from_mantissa(rate.mantissa() * 10 - 5, u32::from(rate.places()) + 1),
            Repr::Fractions(fractions) => significant(&fractions.low, SIGNIFICANT_DIGITS, Rounding::Down),
        }
    }

    /// Returns the upper bound, rounded up. The bound of a published rate is exact and has one place more than the
    /// rate.
    pub fn rounded_high(&self) -> Rounded {
        match &self.0 {
            Repr::Published(rate) => Rounded::from_mantissa(rate.mantissa() * 10 + 5, u32::from(rate.places()) + 1),
            Repr::Fractions(fractions) => significant(&fractions.high, SIGNIFICANT_DIGITS, Rounding::Up),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::rounding::fixed;

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

    proptest! {
        #[test]
        fn digits_of_a_published_rate_are_its_rounded_fractions(mantissa in 1_u128..10_u128.pow(28), places in 0_u32..=18) {
            // With fewer places, the integer part would be too long.
            if let Ok(rate) = Rate::from_parts(mantissa, places) {
                let rate = Derived::direct(rate);
                let slow = [
                    fixed(&rate.low(), places + 1, Rounding::Down),
                    fixed(&rate.value(), places, Rounding::HalfEven),
                    fixed(&rate.high(), places + 1, Rounding::Up),
                ];
                prop_assert_eq!(numbers(&rate), slow);
            }
        }
    }

    #[test]
    fn inverse_of_an_inverse_is_exact() {
        let rate = direct("0.28490");
        let back = rate.inverse().inverse();
        assert_eq!((back.low(), back.value(), back.high()), (rate.low(), rate.value(), rate.high()));
        assert_eq!(back.rounded_value(), "0.2849", "a derived rate does not keep the published digits");
    }
}
