//! Conversion of amounts from one currency to another.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::derived::{Derived, Digits};
use super::rounded::Rounded;
use super::rounding::{Rounding, SIGNIFICANT_DIGITS, fixed, power_of_ten, significant};
use crate::domain::Amount;

/// An amount of the base currency in units of the quote currency, with the bounds of the rate. The amount itself is
/// exact.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conversion {
    /// The product of amount and rate. For a published rate it is exact and all places are written. Otherwise it has 15
    /// significant digits, rounded once, half-even.
    pub value: Rounded,
    /// The lower bound, rounded down.
    pub low: Rounded,
    /// The upper bound, rounded up.
    pub high: Rounded,
}

impl Conversion {
    /// Multiplies `amount` by `rate`.
    pub fn new(amount: Amount, rate: &Derived) -> Self {
        let exact = BigRational::new(BigInt::from(amount.mantissa()), power_of_ten(u32::from(amount.places())));
        // A bound of a published rate lies half a unit from the rate and has one place more.
        let rounded = |factor: &BigRational, more_places: u32, rounding: Rounding| match rate.digits() {
            Digits::Published { places } => {
                fixed(&(factor * &exact), u32::from(places) + u32::from(amount.places()) + more_places, rounding)
            }
            Digits::Significant => significant(&(factor * &exact), SIGNIFICANT_DIGITS, rounding),
        };
        Self {
            value: rounded(&rate.value(), 0, Rounding::HalfEven),
            low: rounded(&rate.low(), 1, Rounding::Down),
            high: rounded(&rate.high(), 1, Rounding::Up),
        }
    }
}

/// Multiplies `amount` by the text of a rate in an answer. The product is exact. Returns `None` if the text is not a
/// plain decimal.
pub fn product(amount: Amount, rate: &str) -> Option<Rounded> {
    let (integer, fraction) = rate.split_once('.').unwrap_or((rate, ""));
    let mantissa = BigInt::parse_bytes(format!("{integer}{fraction}").as_bytes(), 10)?;
    let places = u32::from(amount.places()) + u32::try_from(fraction.len()).ok()?;
    let exact = BigRational::new(mantissa * BigInt::from(amount.mantissa()), power_of_ten(places));
    Some(fixed(&exact, places, Rounding::HalfEven))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::cross::tests::leg;
    use crate::analysis::{LegRate, Legs};

    #[test]
    fn product_is_exact() {
        let check = |amount: &str, rate: &str, expect: Option<&str>| {
            let product = product(Amount::parse(amount).unwrap(), rate).map(|product| product.to_string());
            assert_eq!(product.as_deref(), expect);
        };
        check("1", "0.01140", Some("0.01140"));
        check("1", "12500", Some("12500"));
        check("12.50", "0.00008", Some("0.0010000"));
        check("0", "0.5", Some("0.0"));
        check("3", "87.4125874125874", Some("262.2377622377622"));
        check("1", "", None);
        check("1", "1e5", None);
    }

    #[test]
    fn conversion_has_the_bounds_of_the_rate() {
        let check = |amount: &str, legs: Legs<LegRate>, expect: [&str; 3]| {
            let Conversion { low, value, high } = Conversion::new(Amount::parse(amount).unwrap(), &legs.derived());
            assert_eq!([low, value, high], expect);
        };
        let (kgs_usd, usd_kgs) = (Legs::One(leg("0.01144", false)), Legs::One(leg("0.01144", true)));
        check("100", kgs_usd, ["1.143500", "1.14400", "1.144500"]);
        check("0.50", kgs_usd, ["0.00571750", "0.0057200", "0.00572250"]);
        check("0", kgs_usd, ["0.000000", "0.00000", "0.000000"]);
        check("100", usd_kgs, ["8737.43993010048", "8741.25874125874", "8745.08089199826"]);
        check("0.00", usd_kgs, ["0", "0", "0"]);
        // 1000 UZS at a rate with one significant digit is between 7.5 and 8.5 cents.
        check("1000", Legs::One(leg("0.00008", false)), ["0.075000", "0.08000", "0.085000"]);
        let cross = Legs::Two(leg("0.01144", false), leg("0.00196", true));
        check("1000", cross, ["5819.33842239185", "5836.73469387755", "5854.21994884911"]);
        let most = "9".repeat(20) + "." + &"9".repeat(8);
        assert_eq!(
            Conversion::new(Amount::parse(&most).unwrap(), &kgs_usd.derived()).value,
            "1143999999999999999.9999999998856"
        );
    }
}
