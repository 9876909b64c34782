//! Rounded numbers: the number in an answer, rounded once from an exact fraction.
//!
//! A [`Decimal`] with up to 28 digits holds the answers for usual rates. Extreme rates need more: the inverse of a rate
//! with 20 integer digits has 34 places, the change from the smallest to the largest rate has 41 digits before the
//! decimal point, and a bound of a rate with 28 digits has 29. Such numbers are kept as text.
//!
//! **Invariant**: the text of a number has no exponent and is never `-0`. A number that fits in a [`Decimal`] is always
//! stored as a [`Decimal`]. So two numbers are equal if and only if their digits are equal.

use std::fmt;

use num_bigint::{BigInt, Sign};
use num_traits::ToPrimitive as _;

use crate::domain::Decimal;

/// A rounded number, as it appears in an answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Rounded(Repr);

#[derive(Clone)]
enum Repr {
    Decimal(Decimal),
    /// The text of a number that does not fit in a `Decimal`.
    Long(Box<str>),
}

impl PartialEq for Repr {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Decimal(one), Self::Decimal(other)) => {
                // Compare the digits, because `Decimal` takes 0.50 and 0.5 as equal.
                (one.mantissa(), one.scale()) == (other.mantissa(), other.scale())
            }
            (Self::Long(one), Self::Long(other)) => one == other,
            (Self::Decimal(_), Self::Long(_)) | (Self::Long(_), Self::Decimal(_)) => false,
        }
    }
}

impl Eq for Repr {}

impl Rounded {
    /// Creates `integer / 10^places` with `places` digits after the decimal point, trailing zeros included.
    pub(super) fn new(integer: &BigInt, places: u32) -> Self {
        let decimal = integer.to_i128().and_then(|integer| Decimal::try_from_i128_with_scale(integer, places).ok());
        Self(decimal.map_or_else(|| Repr::Long(plain(integer, places as usize).into()), Repr::Decimal))
    }

    /// Creates the same number as [`Self::new`], without a big integer if the number fits in a `Decimal`.
    pub(super) fn from_mantissa(mantissa: u128, places: u32) -> Self {
        let decimal = i128::try_from(mantissa).ok();
        match decimal.and_then(|mantissa| Decimal::try_from_i128_with_scale(mantissa, places).ok()) {
            Some(decimal) => Self(Repr::Decimal(decimal)),
            None => Self::new(&BigInt::from(mantissa), places),
        }
    }

    /// Returns the number as a [`Decimal`], or `None` if it has more than 28 places or a mantissa of more than 96 bits.
    pub const fn to_decimal(&self) -> Option<Decimal> {
        match &self.0 {
            Repr::Decimal(decimal) => Some(*decimal),
            Repr::Long(_) => None,
        }
    }

    /// Returns true if the rounded number is zero.
    pub fn is_zero(&self) -> bool {
        match &self.0 {
            Repr::Decimal(decimal) => decimal.is_zero(),
            // A zero with up to 28 places is a `Decimal`; a zero with more places is text.
            Repr::Long(text) => text.bytes().all(|byte| matches!(byte, b'0' | b'.')),
        }
    }

    /// Returns true if the rounded number is less than zero.
    pub fn is_negative(&self) -> bool {
        match &self.0 {
            Repr::Decimal(decimal) => decimal.is_sign_negative() && !decimal.is_zero(),
            Repr::Long(text) => text.starts_with('-'),
        }
    }
}

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Decimal(decimal) => fmt::Display::fmt(decimal, f),
            Repr::Long(text) => f.pad(text),
        }
    }
}

impl fmt::Debug for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Formats `integer / 10^places` with `places` digits after the decimal point. Zero has no sign.
fn plain(integer: &BigInt, places: usize) -> String {
    let sign = if integer.sign() == Sign::Minus { "-" } else { "" };
    let digits = format!("{:0>width$}", integer.magnitude().to_string(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
impl PartialEq<&str> for Rounded {
    fn eq(&self, other: &&str) -> bool {
        self.to_string() == **other
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_too_long_for_a_decimal_keep_every_digit() {
        let check = |integer: &str, places: u32, expect: &str, is_decimal: bool| {
            let rounded = Rounded::new(&integer.parse().unwrap(), places);
            assert_eq!((rounded.to_string().as_str(), rounded.to_decimal().is_some()), (expect, is_decimal));
            assert_eq!(rounded.is_negative(), expect.starts_with('-'), "{expect}");
        };
        check("114400", 5, "1.14400", true);
        check("-5", 3, "-0.005", true);
        check("0", 2, "0.00", true);
        check("79228162514264337593543950335", 28, "7.9228162514264337593543950335", true);
        check("79228162514264337593543950336", 28, "7.9228162514264337593543950336", false);
        check("100000000000000", 34, "0.0000000000000000000100000000000000", false);
        check("-100000000000000000000000000000000000000000", 0, "-100000000000000000000000000000000000000000", false);
        check("0", 29, "0.00000000000000000000000000000", false);
        assert!(Rounded::new(&BigInt::ZERO, 29).is_zero());
    }

    proptest! {
        /// A number that is stored as a `Decimal` has the same text as the same number formatted as a big integer.
        #[test]
        fn decimals_have_the_text_of_the_same_big_integers(
            integer in any::<i128>(), places in 0..=28_u32, digits in 0..=38_u32,
        ) {
            let integer = integer / 10_i128.pow(digits);
            let rounded = Rounded::new(&integer.into(), places);
            prop_assert_eq!(rounded.to_string(), plain(&integer.into(), places as usize));
            prop_assert_eq!(rounded.is_zero(), integer == 0);
            if let Ok(mantissa) = u128::try_from(integer) {
                prop_assert_eq!(Rounded::from_mantissa(mantissa, places), rounded);
            }
        }
    }
}
