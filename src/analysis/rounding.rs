//! The one rounding: from an exact fraction to a [`Rounded`] number.
//!
//! **Invariant**: a bound never leaves its interval inward.

use num_bigint::BigInt;
use num_integer::Integer as _;
use num_rational::BigRational;
use num_traits::{Signed as _, Zero as _};

use super::rounded::Rounded;

/// Significant digits of what is derived rather than published.
pub const SIGNIFICANT_DIGITS: u32 = 15;

/// Which way the digits that do not fit go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rounding {
    /// To the nearest, and from the middle to the even digit: values.
    HalfEven,
    /// Towards minus infinity: lower bounds.
    Down,
    /// Towards plus infinity: upper bounds.
    Up,
}

impl Rounding {
    /// `numer / denom` as an integer; `denom` is positive.
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

/// As a whole number of units of `10^-places`.
pub(super) fn units(exact: &BigRational, places: u32, rounding: Rounding) -> BigInt {
    rounding.integer(&(exact.numer() * power_of_ten(places)), exact.denom())
}

/// With exactly `places` digits after the point.
pub fn fixed(exact: &BigRational, places: u32, rounding: Rounding) -> Rounded {
    Rounded::new(&units(exact, places, rounding), places)
}

/// The exponent of the first significant digit: `10^e <= |numer / denom| < 10^(e + 1)`; neither is zero.
fn leading_exponent(numer: &BigInt, denom: &BigInt) -> i64 {
    let digits = |number: &BigInt| i64::try_from(number.magnitude().to_string().len()).unwrap_or(i64::MAX);
    // With as many digits above as below, the quotient is between 0.1 and 10.
    let guess = digits(numer) - digits(denom);
    let shift = power_of_ten(u32::try_from(guess.unsigned_abs()).unwrap_or(u32::MAX));
    let (above, below) = if guess < 0 { (numer.abs() * shift, denom.clone()) } else { (numer.abs(), denom * shift) };
    if above < below { guess - 1 } else { guess }
}

/// A number cut to significant digits: `mantissa / 10^places`.
///
/// **Invariant**: the mantissa has no more than the digits asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Significant {
    pub(super) mantissa: BigInt,
    /// Negative where the digits end before the point.
    pub(super) places: i64,
    /// Whether nothing was cut.
    pub(super) is_exact: bool,
}

impl Significant {
    /// `numer / denom`, `denom` positive.
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
            // 9.99... became 10.00...: one digit too many, and it is a zero.
            return Self { mantissa: mantissa / 10_u32, places: places - 1, is_exact };
        }
        Self { mantissa, places, is_exact }
    }

    /// With the digits that [`significant`] writes.
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

/// With `digits` significant digits, in plain notation.
///
/// Where the digits say it all, zeros after the last that counts are left out: `1/0.5` is `2`. Where digits were
/// rounded away, all of them are written, zeros too, for they are known: `1/5.000000000000001` is
/// `0.200000000000000`.
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
    fn fixed_places() {
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
        // A fall too small to see is no minus zero; its lower bound still says that it may be a fall.
        check("-0.0000001", 6, ["0.000000", "-0.000001", "0.000000"]);
        check("0.0000001", 6, ["0.000000", "0.000000", "0.000001"]);
    }

    #[test]
    fn significant_digits() {
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
        // Rounded zeros are known digits and stay.
        check("0.12000001", ["0.1200", "0.1200", "0.1201"]);
        check("9.99996", ["10.00", "9.999", "10.00"]);
        check("999.96", ["1000", "999.9", "1000"]);
        check("9999.6", ["10000", "9999", "10000"]);
        check("0.099999", ["0.1000", "0.09999", "0.1000"]);
    }

    proptest! {
        #[test]
        fn bounds_enclose_and_are_close(numer in any::<i64>(), denom in 1..i64::MAX, places in 0..13_u32) {
            let value = BigRational::new(numer.into(), denom.into());
            let unit = BigRational::new(1.into(), power_of_ten(places));
            let [nearest, down, up] = ALL.map(|rounding| exact(&fixed(&value, places, rounding).to_string()));
            prop_assert!(down <= value && value <= up && &up - &down <= unit);
            prop_assert!((&nearest - &value).abs() * BigInt::from(2) <= unit);

            let [nearest, down, up] = ALL.map(|rounding| exact(&significant(&value, 15, rounding).to_string()));
            prop_assert!(down <= value && value <= up && down <= nearest && nearest <= up);
            // 15 digits: one unit of the last is at most 10^-14 of the value.
            prop_assert!((&up - &down) * power_of_ten(14) <= value.abs());
        }

        #[test]
        fn no_text_has_more_than_its_digits(numer in 1..i64::MAX, denom in 1..i64::MAX) {
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
