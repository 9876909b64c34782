//! Rates as they are written: the decimals that candles compare, sum and show.
//!
//! **Invariant**: a written rate prints as [`Derived`](super::Derived) prints the same rate, and is positive.

use std::cmp::Ordering;
use std::fmt;

use num_bigint::BigInt;
use num_rational::BigRational;

use super::rounded::Rounded;
use super::rounding::{Rounding, SIGNIFICANT_DIGITS, Significant, power_of_ten};
use crate::domain::Rate;

/// The least mantissa with one digit too many.
const MANTISSA_LIMIT: u128 = 10_u128.pow(SIGNIFICANT_DIGITS);

/// Where the digits come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Digits {
    /// As a source published them.
    Published,
    /// Derived, and they say it all.
    Exact,
    /// Derived and rounded.
    Rounded,
}

/// A rate cut to the digits that it is answered with: `mantissa / 10^places`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundedRate {
    mantissa: u128,
    /// From -60 to 80; negative where the digits end before the point.
    places: i16,
    digits: Digits,
}

impl RoundedRate {
    /// With its published digits.
    #[inline]
    pub fn published(rate: Rate) -> Self {
        Self { mantissa: rate.mantissa(), places: i16::from(rate.places()), digits: Digits::Published }
    }

    /// Half a unit in the last place of a published rate below it.
    pub(super) const fn half_unit_below(self) -> Self {
        self.half_unit(self.mantissa * 10 - 5)
    }

    /// Half a unit in the last place of a published rate above it.
    pub(super) const fn half_unit_above(self) -> Self {
        self.half_unit(self.mantissa * 10 + 5)
    }

    /// A published rate has at most 28 digits, so that ten times as much fits.
    const fn half_unit(self, mantissa: u128) -> Self {
        Self { mantissa, places: self.places + 1, digits: self.digits }
    }

    /// `numer / denom` to 15 significant digits where 128 bits are enough to find them.
    pub(super) fn quotient_u128(numer: u128, denom: u128, rounding: Rounding) -> Option<Self> {
        let scale = |number: u128, exponent: i64| {
            number.checked_mul(10_u128.checked_pow(u32::try_from(exponent).unwrap_or(0))?)
        };
        let guess = i64::from(numer.checked_ilog10()?) - i64::from(denom.checked_ilog10()?);
        let above = scale(numer, -guess)?;
        let below = scale(denom, guess)?;
        let exponent = if above < below { guess - 1 } else { guess };
        let places = i64::from(SIGNIFICANT_DIGITS) - 1 - exponent;
        let (above, below) = (scale(numer, places)?, scale(denom, -places)?);
        let (floor, rest) = (above / below, above % below);
        let up = match rounding {
            Rounding::Down => false,
            Rounding::Up => rest > 0,
            Rounding::HalfEven => match rest.checked_mul(2)?.cmp(&below) {
                Ordering::Less => false,
                Ordering::Equal => floor % 2 == 1,
                Ordering::Greater => true,
            },
        };
        let mantissa = floor + u128::from(up);
        let digits = if rest == 0 { Digits::Exact } else { Digits::Rounded };
        // 9.99... became 10.00...: one digit too many, and it is a zero.
        let (mantissa, places) =
            if mantissa == MANTISSA_LIMIT { (mantissa / 10, places - 1) } else { (mantissa, places) };
        Some(Self { mantissa, places: i16::try_from(places).ok()?, digits })
    }

    /// The same for any positive numbers.
    pub(super) fn quotient(numer: &BigInt, denom: &BigInt, rounding: Rounding) -> Self {
        let Significant { mantissa, places, is_exact } = Significant::new(numer, denom, SIGNIFICANT_DIGITS, rounding);
        Self {
            // Below the limit, and rates have under 60 digits on either side of the point.
            mantissa: u128::try_from(mantissa).unwrap_or(MANTISSA_LIMIT),
            places: i16::try_from(places).unwrap_or(0),
            digits: if is_exact { Digits::Exact } else { Digits::Rounded },
        }
    }

    /// Its digits as a whole number.
    pub const fn mantissa(self) -> u128 {
        self.mantissa
    }

    /// How many of them stand after the point: 0 to 18 of a published rate, negative where a derived one ends before
    /// the point.
    pub const fn places(self) -> i16 {
        self.places
    }

    /// The number with the digits that it is answered with.
    pub fn rounded(self) -> Rounded {
        let (mut mantissa, is_exact) = (self.mantissa, self.digits == Digits::Exact);
        let Ok(mut places) = u32::try_from(self.places) else {
            let (mantissa, places) = (BigInt::from(mantissa), i64::from(self.places));
            return Significant { mantissa, places, is_exact }.rounded();
        };
        while is_exact && places > 0 && mantissa.is_multiple_of(10) {
            (mantissa, places) = (mantissa / 10, places - 1);
        }
        Rounded::from_mantissa(mantissa, places)
    }

    /// The number, exact.
    pub fn value(self) -> BigRational {
        at_places(BigInt::from(self.mantissa), self.places)
    }

    /// Which number is larger, whatever their places.
    #[inline]
    pub fn cmp_number(self, other: Self) -> Ordering {
        if self.places == other.places {
            return self.mantissa.cmp(&other.mantissa);
        }
        // What does not fit in 128 bits is larger than what does.
        let scaled =
            |number: Self, by: i16| number.mantissa.checked_mul(10_u128.checked_pow(u32::from(by.unsigned_abs()))?);
        if self.places < other.places {
            scaled(self, other.places - self.places).map_or(Ordering::Greater, |scaled| scaled.cmp(&other.mantissa))
        } else {
            scaled(other, self.places - other.places).map_or(Ordering::Less, |scaled| self.mantissa.cmp(&scaled))
        }
    }
}

/// `integer / 10^places`.
pub(super) fn at_places(integer: BigInt, places: i16) -> BigRational {
    let unit = power_of_ten(u32::from(places.unsigned_abs()));
    if places < 0 { BigRational::from_integer(integer * unit) } else { BigRational::new(integer, unit) }
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
    fn rates_print_as_they_are_answered() {
        let check = |numer: u128, denom: u128, expect: &str| {
            let quick = RoundedRate::quotient_u128(numer, denom, Rounding::HalfEven).unwrap();
            assert_eq!(
                (quick.to_string().as_str(), quick),
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
    fn numbers_compare_whatever_their_places() {
        let check = |one: &str, other: &str, expect: Ordering| {
            let written = |text: &str| RoundedRate::published(Rate::parse(text).unwrap());
            assert_eq!(written(one).cmp_number(written(other)), expect, "{one} {other}");
            assert_eq!(written(other).cmp_number(written(one)), expect.reverse(), "{other} {one}");
        };
        check("0.28490", "0.2849", Ordering::Equal);
        check("0.28491", "0.2849", Ordering::Greater);
        check("1", "0.999999999999999999", Ordering::Greater);
        check("99999999999999999999", "0.000000000000000001", Ordering::Greater);
    }

    proptest! {
        #[test]
        fn quick_quotients_equal_exact_ones(
            numer in prop_oneof![1..1_000_u128, 1..10_u128.pow(12), 1..u128::MAX],
            denom in prop_oneof![1..1_000_u128, 1..10_u128.pow(12), 1..u128::MAX],
        ) {
            let exact = BigRational::new(numer.into(), denom.into());
            for rounding in [Rounding::HalfEven, Rounding::Down, Rounding::Up] {
                let slow = RoundedRate::quotient(&numer.into(), &denom.into(), rounding);
                if let Some(quick) = RoundedRate::quotient_u128(numer, denom, rounding) {
                    prop_assert_eq!(quick, slow);
                } else {
                    prop_assert!(numer.max(denom) > 10_u128.pow(9), "small numbers take the quick way");
                }
                let other = RoundedRate::quotient(&denom.into(), &numer.into(), rounding);
                prop_assert_eq!(slow.cmp_number(other), slow.value().cmp(&other.value()));
                prop_assert_eq!(slow.rounded(), super::super::significant(&exact, SIGNIFICANT_DIGITS, rounding));
            }
        }
    }
}
