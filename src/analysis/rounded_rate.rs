//! Rounded rates: published rates with their published digits, and derived rates with 15 significant digits. A rounded
//! rate is a 128-bit mantissa and a number of places, so candles compare and sum rates fast.
//!
//! **Invariant**: a rounded rate is positive and has the same text as the rounded value of [`Derived`](super::Derived).

use std::cmp::Ordering;
use std::fmt;

use num_bigint::BigInt;
use num_rational::BigRational;

use super::rounded::Rounded;
use super::rounding::{Rounding, SIGNIFICANT_DIGITS, Significant, power_of_ten};
use crate::domain::Rate;

/// The smallest mantissa with more than [`SIGNIFICANT_DIGITS`] digits.
const MANTISSA_LIMIT: u128 = 10_u128.pow(SIGNIFICANT_DIGITS);

/// The origin of the digits of a rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DigitsOrigin {
    /// The digits are published by a source.
    Published,
    /// The digits are derived and exact.
    Exact,
    /// The digits are derived and rounded.
    Rounded,
}

/// A rate, rounded as in an answer: `mantissa / 10^places`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundedRate {
    mantissa: u128,
    /// From -60 to 80; negative if the number is the mantissa multiplied by a power of ten.
    places: i16,
    origin: DigitsOrigin,
}

impl RoundedRate {
    /// Creates a published rate with its published digits.
    #[inline]
    pub fn published(rate: Rate) -> Self {
        Self { mantissa: rate.mantissa(), places: i16::from(rate.places()), origin: DigitsOrigin::Published }
    }

    /// Returns the lower bound of a published rate: half a unit in the last place below the rate.
    pub(super) const fn half_unit_below(self) -> Self {
        self.half_unit(self.mantissa * 10 - 5)
    }

    /// Returns the upper bound of a published rate: half a unit in the last place above the rate.
    pub(super) const fn half_unit_above(self) -> Self {
        self.half_unit(self.mantissa * 10 + 5)
    }

    /// Returns a bound with one place more. A published rate has at most 28 digits, so ten times its mantissa fits in
    /// 128 bits.
    const fn half_unit(self, mantissa: u128) -> Self {
        Self { mantissa, places: self.places + 1, origin: self.origin }
    }

    /// Returns `numer / denom` with 15 significant digits, or `None` if 128 bits are too few for the computation or a
    /// number is zero.
    pub(super) fn quotient_u128(numer: u128, denom: u128, rounding: Rounding) -> Option<Self> {
        let Significant { mantissa, places, is_exact } =
            Significant::of_u128(numer, denom, SIGNIFICANT_DIGITS, rounding)?;
        let origin = if is_exact { DigitsOrigin::Exact } else { DigitsOrigin::Rounded };
        Some(Self { mantissa, places: i16::try_from(places).ok()?, origin })
    }

    /// Returns `numer / denom` with 15 significant digits, for any positive numbers.
    pub(super) fn quotient(numer: &BigInt, denom: &BigInt, rounding: Rounding) -> Self {
        let Significant { mantissa, places, is_exact } = Significant::new(numer, denom, SIGNIFICANT_DIGITS, rounding);
        Self {
            // These conversions never fail: the mantissa is below the limit, and rates have less than 60 digits on
            // either side of the decimal point.
            mantissa: u128::try_from(mantissa).unwrap_or(MANTISSA_LIMIT),
            places: i16::try_from(places).unwrap_or(0),
            origin: if is_exact { DigitsOrigin::Exact } else { DigitsOrigin::Rounded },
        }
    }

    /// The digits of the rate as a whole number.
    pub const fn mantissa(self) -> u128 {
        self.mantissa
    }

    /// The number of digits after the decimal point: 0 to 18 for a published rate. Negative if a derived rate is the
    /// mantissa multiplied by a power of ten.
    pub const fn places(self) -> i16 {
        self.places
    }

    /// Returns the rate as a decimal number. Trailing zeros of an exact derived rate are left out.
    pub fn rounded(self) -> Rounded {
        let (mut mantissa, is_exact) = (self.mantissa, self.origin == DigitsOrigin::Exact);
        let Ok(mut places) = u32::try_from(self.places) else {
            let (mantissa, places) = (BigInt::from(mantissa), i64::from(self.places));
            return Significant { mantissa, places, is_exact }.rounded();
        };
        while is_exact && places > 0 && mantissa.is_multiple_of(10) {
            (mantissa, places) = (mantissa / 10, places - 1);
        }
        Rounded::from_mantissa(mantissa, places)
    }

    /// Returns the rate as an exact fraction.
    pub fn value(self) -> BigRational {
        at_places(BigInt::from(self.mantissa), self.places)
    }

    /// Compares two rates by value: `0.5` equals `0.50`.
    #[inline]
    pub fn cmp_number(self, other: Self) -> Ordering {
        if self.places == other.places {
            return self.mantissa.cmp(&other.mantissa);
        }
        // A scaled mantissa that does not fit in 128 bits is larger than any mantissa that fits.
        let scaled =
            |number: Self, by: i16| number.mantissa.checked_mul(10_u128.checked_pow(u32::from(by.unsigned_abs()))?);
        if self.places < other.places {
            scaled(self, other.places - self.places).map_or(Ordering::Greater, |scaled| scaled.cmp(&other.mantissa))
        } else {
            scaled(other, self.places - other.places).map_or(Ordering::Less, |scaled| self.mantissa.cmp(&scaled))
        }
    }
}

/// Returns `integer / 10^places`, not reduced.
pub(super) fn at_places(integer: BigInt, places: i16) -> BigRational {
    let unit = power_of_ten(u32::from(places.unsigned_abs()));
    if places < 0 { BigRational::from_integer(integer * unit) } else { BigRational::new_raw(integer, unit) }
}

impl fmt::Display for RoundedRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.rounded(), f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotients_are_exact_or_have_15_significant_digits() {
        let check = |numer: u128, denom: u128, expect: &str| {
            let fast = RoundedRate::quotient_u128(numer, denom, Rounding::HalfEven).unwrap();
            assert_eq!(
                (fast.to_string().as_str(), fast),
                (expect, RoundedRate::quotient(&numer.into(), &denom.into(), Rounding::HalfEven))
            );
        };
        check(100_000, 8, "12500");
        check(100_000, 1_144, "87.4125874125874");
        check(1, 3, "0.333333333333333");
        check(2, 3, "0.666666666666667");
        check(1, 5_000_000_000_000_001, "0.000000000000000200000000000000");
        check(1_000_000_000_000_000_000, 3, "333333333333333000");
        check(9_999_999_999_999_999, 1, "10000000000000000");
        check(9_999_999_999_999_999, 10, "1000000000000000");
        check(9_999_999_999_999_999, 100_000_000_000_000_000, "0.100000000000000");
        assert_eq!(RoundedRate::published(Rate::parse("0.28490").unwrap()).to_string(), "0.28490");
    }

    #[test]
    fn numbers_with_different_places_compare_by_value() {
        let check = |one: &str, other: &str, expect: Ordering| {
            let rate = |text: &str| RoundedRate::published(Rate::parse(text).unwrap());
            assert_eq!(rate(one).cmp_number(rate(other)), expect, "{one} {other}");
            assert_eq!(rate(other).cmp_number(rate(one)), expect.reverse(), "{other} {one}");
        };
        check("0.28490", "0.2849", Ordering::Equal);
        check("0.28491", "0.2849", Ordering::Greater);
        check("1", "0.999999999999999999", Ordering::Greater);
        check("99999999999999999999", "0.000000000000000001", Ordering::Greater);
    }

    proptest! {
        #[test]
        fn fast_quotients_equal_exact_quotients(
            numer in prop_oneof![1..1_000_u128, 1..10_u128.pow(12), 1..u128::MAX],
            denom in prop_oneof![1..1_000_u128, 1..10_u128.pow(12), 1..u128::MAX],
        ) {
            let exact = BigRational::new(numer.into(), denom.into());
            for rounding in [Rounding::HalfEven, Rounding::Down, Rounding::Up] {
                let slow = RoundedRate::quotient(&numer.into(), &denom.into(), rounding);
                if let Some(fast) = RoundedRate::quotient_u128(numer, denom, rounding) {
                    prop_assert_eq!(fast, slow);
                } else {
                    prop_assert!(numer.max(denom) > 10_u128.pow(9), "small numbers take the fast path");
                }
                let other = RoundedRate::quotient(&denom.into(), &numer.into(), rounding);
                prop_assert_eq!(slow.cmp_number(other), slow.value().cmp(&other.value()));
                prop_assert_eq!(slow.rounded(), super::super::significant(&exact, SIGNIFICANT_DIGITS, rounding));
            }
        }
    }
}
