//! Rounding of an exact fraction to a [`Rounded`] number. An answer is rounded once, here.
//!
//! **Invariant**: bounds are rounded outward, so a rounded interval always contains the exact interval.

use num_bigint::BigInt;
use num_integer::Integer as _;
use num_rational::BigRational;
use num_traits::{Signed as _, Zero as _};

use super::rounded::Rounded;

/// The number of significant digits of derived numbers.
pub const SIGNIFICANT_DIGITS: u32 = 15;

/// The direction of rounding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rounding {
    /// To the nearest number. A number exactly in the middle is rounded to the neighbour with an even last digit. Used
    /// for values.
    HalfEven,
    /// Towards minus infinity. Used for lower bounds.
    Down,
    /// Towards plus infinity. Used for upper bounds.
    Up,
}

impl Rounding {
    /// Rounds `numer / denom` to an integer; `denom` must be positive.
    fn integer(self, numer: &BigInt, denom: &BigInt) -> BigInt {
        let (floor, rest) = numer.div_mod_floor(denom);
        let up = match self {
            Self::Down => false,
            Self::Up => !rest.is_zero(),
            Self::HalfEven => match (rest * 2_u32).cmp(denom) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Equal => floor.is_odd(),
                std::cmp::Ordering::Greater => true,
            },
        };
        if up { floor + 1_u32 } else { floor }
    }
}

pub(super) fn power_of_ten(exponent: u32) -> BigInt {
    BigInt::from(10_u32).pow(exponent)
}

/// Rounds to a whole number of units of `10^-places`.
pub(super) fn units(exact: &BigRational, places: u32, rounding: Rounding) -> BigInt {
    rounding.integer(&(exact.numer() * power_of_ten(places)), exact.denom())
}

/// Rounds to exactly `places` digits after the decimal point.
pub fn fixed(exact: &BigRational, places: u32, rounding: Rounding) -> Rounded {
    Rounded::new(&units(exact, places, rounding), places)
}

/// Returns the exponent `e` of the first significant digit: `10^e <= |numer / denom| < 10^(e + 1)`. Neither number may
/// be zero.
fn leading_exponent(numer: &BigInt, denom: &BigInt) -> i64 {
    let digits = |number: &BigInt| i64::try_from(number.magnitude().to_string().len()).unwrap_or(i64::MAX);
    // If both numbers have the same number of digits, the quotient is between 0.1 and 10.
    let guess = digits(numer) - digits(denom);
    let shift = power_of_ten(u32::try_from(guess.unsigned_abs()).unwrap_or(u32::MAX));
    let (above, below) = if guess < 0 { (numer.abs() * shift, denom.clone()) } else { (numer.abs(), denom * shift) };
    if above < below { guess - 1 } else { guess }
}

/// A number rounded to significant digits: `mantissa / 10^places`.
///
/// **Invariant**: the mantissa has at most the requested number of digits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Significant {
    pub(super) mantissa: BigInt,
    /// Negative if the number is the mantissa multiplied by a power of ten.
    pub(super) places: i64,
    /// Whether the rounded number equals the exact number.
    pub(super) is_exact: bool,
}

impl Significant {
    /// Rounds `numer / denom` to `digits` significant digits; `denom` must be positive.
    pub(super) fn new(numer: &BigInt, denom: &BigInt, digits: u32, rounding: Rounding) -> Self {
        if numer.is_zero() {
            return Self { mantissa: BigInt::ZERO, places: 0, is_exact: true };
        }
        let places = i64::from(digits) - 1 - leading_exponent(numer, denom);
        let unit = power_of_ten(u32::try_from(places.unsigned_abs()).unwrap_or(u32::MAX));
        let (numer, denom) = if places < 0 { (numer.clone(), denom * unit) } else { (numer * unit, denom.clone()) };
        let mantissa = rounding.integer(&numer, &denom);
        let is_exact = &mantissa * denom == numer;
        if mantissa.magnitude() == power_of_ten(digits).magnitude() {
            // Rounding 9.99... up gives 10.00..., which has one digit too many. Its last digit is a zero and is
            // removed.
            return Self { mantissa: mantissa / 10_u32, places: places - 1, is_exact };
        }
        Self { mantissa, places, is_exact }
    }

    /// Returns the number in plain notation, as described at [`significant`].
    pub(super) fn rounded(&self) -> Rounded {
        let Ok(mut places) = u32::try_from(self.places) else {
            let unit = power_of_ten(u32::try_from(self.places.unsigned_abs()).unwrap_or(u32::MAX));
            return Rounded::new(&(&self.mantissa * unit), 0);
        };
        let mut mantissa = self.mantissa.clone();
        while self.is_exact && places > 0 && mantissa.is_multiple_of(&BigInt::from(10_u32)) {
            mantissa /= 10_u32;
            places -= 1;
        }
        Rounded::new(&mantissa, places)
    }
}

/// Rounds to `digits` significant digits, in plain notation.
///
/// An exact result has no trailing zeros after the decimal point: `1/0.5` is `2`. A rounded result has all `digits`
/// digits, including trailing zeros, because they are known digits: `1/5.000000000000001` is `0.200000000000000`.
pub fn significant(exact: &BigRational, digits: u32, rounding: Rounding) -> Rounded {
    Significant::new(exact.numer(), exact.denom(), digits, rounding).rounded()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::derived::tests::exact;

    const ALL: [Rounding; 3] = [Rounding::HalfEven, Rounding::Down, Rounding::Up];

    #[test]
    fn fixed_rounds_to_places() {
        let check = |text: &str, places: u32, expect: [&str; 3]| {
            assert_eq!(ALL.map(|rounding| fixed(&exact(text), places, rounding)), expect, "{text}");
        };
        check("0", 2, ["0.00", "0.00", "0.00"]);
        check("1/3", 2, ["0.33", "0.33", "0.34"]);
        check("-1/3", 2, ["-0.33", "-0.34", "-0.33"]);
        check("0.125", 2, ["0.12", "0.12", "0.13"]);
        check("0.135", 2, ["0.14", "0.13", "0.14"]);
        check("-0.125", 2, ["-0.12", "-0.13", "-0.12"]);
        check("12.5", 0, ["12", "12", "13"]);
        check("7", 3, ["7.000", "7.000", "7.000"]);
        // A small negative number is rounded to 0, not to -0. Its lower bound stays negative.
        check("-0.0000001", 6, ["0.000000", "-0.000001", "0.000000"]);
        check("0.0000001", 6, ["0.000000", "0.000000", "0.000001"]);
    }

    #[test]
    fn significant_rounds_to_significant_digits() {
        let check = |text: &str, expect: [&str; 3]| {
            assert_eq!(ALL.map(|rounding| significant(&exact(text), 4, rounding)), expect, "{text}");
        };
        check("0", ["0", "0", "0"]);
        check("2", ["2", "2", "2"]);
        check("2.50", ["2.5", "2.5", "2.5"]);
        check("1/3", ["0.3333", "0.3333", "0.3334"]);
        check("-2/3", ["-0.6667", "-0.6667", "-0.6666"]);
        check("1/30000", ["0.00003333", "0.00003333", "0.00003334"]);
        check("123456", ["123500", "123400", "123500"]);
        check("120000", ["120000", "120000", "120000"]);
        check("1000.4", ["1000", "1000", "1001"]);
        // Trailing zeros of a rounded number are known digits and stay.
        check("0.12000001", ["0.1200", "0.1200", "0.1201"]);
        check("9.99996", ["10.00", "9.999", "10.00"]);
        check("999.96", ["1000", "999.9", "1000"]);
        check("9999.6", ["10000", "9999", "10000"]);
        check("0.099999", ["0.1000", "0.09999", "0.1000"]);
    }

    proptest! {
        #[test]
        fn rounded_bounds_contain_the_exact_value_and_are_close_to_it(
            numer in any::<i64>(), denom in 1..i64::MAX, places in 0..13_u32,
        ) {
            let value = BigRational::new(numer.into(), denom.into());
            let unit = BigRational::new(1.into(), power_of_ten(places));
            let [nearest, down, up] = ALL.map(|rounding| exact(&fixed(&value, places, rounding).to_string()));
            prop_assert!(down <= value && value <= up && &up - &down <= unit);
            prop_assert!((&nearest - &value).abs() * BigInt::from(2) <= unit);

            let [nearest, down, up] = ALL.map(|rounding| exact(&significant(&value, 15, rounding).to_string()));
            prop_assert!(down <= value && value <= up && down <= nearest && nearest <= up);
            // With 15 digits, a unit in the last place is at most 10^-14 of the value.
            prop_assert!((&up - &down) * power_of_ten(14) <= value.abs());
        }

        #[test]
        fn significant_text_has_at_most_15_digits(numer in 1..i64::MAX, denom in 1..i64::MAX) {
            let value = BigRational::new(numer.into(), denom.into());
            for rounding in ALL {
                let text = significant(&value, 15, rounding).to_string();
                let digits = text.replace('.', "");
                prop_assert!(digits.trim_start_matches('0').trim_end_matches('0').len() <= 15, "{}", text);
                prop_assert!(!text.contains('.') || digits.trim_start_matches('0').len() <= 15, "{}", text);
            }
        }
    }
}
