//! Rounding of an exact fraction to a [`Rounded`] number. An answer is rounded once, here.
//!
//! **Invariant**: bounds are rounded outward, so a rounded interval always contains the exact interval.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{Signed as _, ToPrimitive as _, Zero as _};

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
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "the rest is below the denominator; a quotient with a rest is at most half of the largest number"
    )]
    fn integer<N: Integer + Clone>(self, numer: &N, denom: &N) -> N {
        let (floor, rest) = numer.div_mod_floor(denom);
        let up = match self {
            Self::Down => false,
            Self::Up => !rest.is_zero(),
            Self::HalfEven => match rest.cmp(&(denom.clone() - rest.clone())) {
                Ordering::Less => false,
                Ordering::Equal => floor.is_odd(),
                Ordering::Greater => true,
            },
        };
        if up { floor + N::one() } else { floor }
    }

    /// Returns the rounding of a number that gives the same result for the number with the other sign.
    const fn mirrored(self) -> Self {
        match self {
            Self::HalfEven => Self::HalfEven,
            Self::Down => Self::Up,
            Self::Up => Self::Down,
        }
    }
}

pub(super) fn power_of_ten(exponent: u32) -> BigInt {
    BigInt::from(10_u32).pow(exponent)
}

/// Rounds to a whole number of units of `10^-places`.
pub(super) fn units(exact: &BigRational, places: u32, rounding: Rounding) -> BigInt {
    match units_i128(exact, places, rounding) {
        Some(units) => units.into(),
        None => rounding.integer(&(exact.numer() * power_of_ten(places)), exact.denom()),
    }
}

/// Returns the same as [`units`] without big integers, or `None` if 128 bits are too few.
fn units_i128(exact: &BigRational, places: u32, rounding: Rounding) -> Option<i128> {
    let (numer, denom) = (exact.numer().to_i128()?, exact.denom().to_i128()?);
    Some(rounding.integer(&numer.checked_mul(10_i128.checked_pow(places)?)?, &denom))
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
pub(super) struct Significant<M = BigInt> {
    pub(super) mantissa: M,
    /// Negative if the number is the mantissa multiplied by a power of ten.
    pub(super) places: i64,
    /// Whether the rounded number equals the exact number.
    pub(super) is_exact: bool,
}

impl Significant<u128> {
    /// Rounds `numer / denom` to `digits` significant digits. Returns `None` if 128 bits are too few for the computation
    /// or a number is zero.
    pub(super) fn of_u128(numer: u128, denom: u128, digits: u32, rounding: Rounding) -> Option<Self> {
        let scale = |number: u128, exponent: i64| {
            number.checked_mul(10_u128.checked_pow(u32::try_from(exponent).unwrap_or(0))?)
        };
        let guess = i64::from(numer.checked_ilog10()?) - i64::from(denom.checked_ilog10()?);
        let exponent = if scale(numer, -guess)? < scale(denom, guess)? { guess - 1 } else { guess };
        let places = i64::from(digits) - 1 - exponent;
        let (above, below) = (scale(numer, places)?, scale(denom, -places)?);
        let (mantissa, is_exact) = (rounding.integer(&above, &below), above.is_multiple_of(below));
        // See `Significant::of_big`.
        let has_a_digit_more = mantissa == 10_u128.checked_pow(digits)?;
        let (mantissa, places) = if has_a_digit_more { (mantissa / 10, places - 1) } else { (mantissa, places) };
        Some(Self { mantissa, places, is_exact })
    }
}

impl Significant {
    /// Rounds `numer / denom` to `digits` significant digits; `denom` must be positive.
    pub(super) fn new(numer: &BigInt, denom: &BigInt, digits: u32, rounding: Rounding) -> Self {
        let rounding_of_magnitude = if numer.is_negative() { rounding.mirrored() } else { rounding };
        let small = numer.magnitude().to_u128().zip(denom.to_u128());
        match small.and_then(|(numer, denom)| Significant::of_u128(numer, denom, digits, rounding_of_magnitude)) {
            Some(Significant { mantissa, places, is_exact }) => {
                Self { mantissa: BigInt::from_biguint(numer.sign(), mantissa.into()), places, is_exact }
            }
            None => Self::of_big(numer, denom, digits, rounding),
        }
    }

    fn of_big(numer: &BigInt, denom: &BigInt, digits: u32, rounding: Rounding) -> Self {
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

    /// Numbers whose computations fit in 128 bits, nearly fit, and do not fit.
    fn integers() -> impl Strategy<Value = i128> {
        prop_oneof![-1_000..1_000_i128, -10_i128.pow(12)..10_i128.pow(12), any::<i128>()]
    }

    proptest! {
        #[test]
        fn rounding_in_128_bits_equals_rounding_of_big_integers(
            numer in integers(), denom in integers(), places in 0..30_u32, digits in 1..20_u32,
        ) {
            let (numer, denom) = (BigInt::from(numer), BigInt::from(denom.checked_abs().unwrap_or(1).max(1)));
            let exact = BigRational::new_raw(numer.clone(), denom.clone());
            for rounding in ALL {
                let slow = rounding.integer(&(&numer * power_of_ten(places)), &denom);
                prop_assert_eq!(units(&exact, places, rounding), slow);
                let slow = Significant::of_big(&numer, &denom, digits, rounding);
                prop_assert_eq!(Significant::new(&numer, &denom, digits, rounding), slow);
            }
        }

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
