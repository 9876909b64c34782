//! The ratio threshold of the quarantine. A tick is held if the ratio between its rate and the rate in force is at
//! least this threshold.
//!
//! **Invariant**: a comparison is exact. It multiplies mantissas and powers of ten, and never divides or rounds.

use std::fmt;

use rust_decimal::Decimal;
use thiserror::Error;

use super::digits::{DecimalError, DigitLimits, Digits};
use super::rate::Rate;
use super::time::truncate_for_display;

/// A ratio above 1 and at most 1,000,000, with up to three decimal places. It is the value of the setting
/// `quarantine_factor`, so the messages call it a factor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RatioThreshold(Decimal);

/// Why a text is not a valid factor.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RatioThresholdError {
    /// The text is not a plain decimal, or has too many digits.
    #[error("factor '{text}' {problem}")]
    Decimal {
        /// The text, truncated for display.
        text: String,
        /// What is wrong with the text.
        problem: DecimalError,
    },
    /// The factor is not above 1, or is above 1,000,000.
    #[error("factor '{0}' must be above 1 and at most 1000000; write one like 5 or 2.5")]
    Range(String),
}

impl RatioThreshold {
    /// The default threshold: 5. The largest devaluation of a Central Asian currency in one day has a smaller ratio.
    /// A rate for a wrong number of units, for example for ten units instead of one, has a ratio of at least 10.
    pub const DEFAULT: Self = Self(Decimal::from_parts(5_000, 0, 0, false, Self::PLACES as u32));

    const PLACES: u8 = 3;
    const THOUSANDTHS_OF_ONE: u64 = 1_000;
    const THOUSANDTHS_MAX: u64 = 1_000_000 * Self::THOUSANDTHS_OF_ONE;

    /// Parses a plain decimal: no sign, no exponent, no spaces.
    ///
    /// # Errors
    /// `Decimal` if the text is not a plain decimal or has too many digits; `Range` if the factor is not above 1, or is
    /// above 1,000,000. Both errors contain the text.
    pub fn parse(text: &str) -> Result<Self, RatioThresholdError> {
        let limits = DigitLimits { places: Self::PLACES, integer: 7, total: 10 };
        let digits = Digits::parse(text, limits)
            .map_err(|problem| RatioThresholdError::Decimal { text: truncate_for_display(text), problem })?;
        let missing = u32::from(Self::PLACES.saturating_sub(digits.places()));
        // The number has at most ten digits, so neither the conversion nor the product overflows.
        let thousandths = u64::try_from(digits.mantissa()).unwrap_or(u64::MAX).saturating_mul(10_u64.pow(missing));
        if thousandths <= Self::THOUSANDTHS_OF_ONE || thousandths > Self::THOUSANDTHS_MAX {
            return Err(RatioThresholdError::Range(truncate_for_display(text)));
        }
        Ok(Self::of_thousandths(thousandths))
    }

    /// Makes a threshold with all three decimal places, so that equal thresholds have equal digits.
    const fn of_thousandths(thousandths: u64) -> Self {
        Self(Digits::new(thousandths as u128, Self::PLACES).decimal())
    }

    /// The threshold in thousandths, at most 10^9.
    const fn thousandths(self) -> u128 {
        self.0.mantissa().unsigned_abs()
    }

    /// Returns true if the larger of two rates is at least this many times the smaller.
    pub fn is_reached_by(self, one: Rate, other: Rate) -> bool {
        self.is_reached(one, other) || self.is_reached(other, one)
    }

    /// Returns true if `high >= self * low`.
    fn is_reached(self, high: Rate, low: Rate) -> bool {
        // A mantissa below 10^28 times a factor of at most 10^9 fits in 128 bits. Only the rate with fewer decimal
        // places is scaled further, so at most one side overflows, and that side is the larger one.
        let (high_places, low_places) = (u32::from(high.places()), u32::from(low.places()));
        let scaled = |mantissa: u128, by: u128, more_places: u32| {
            mantissa.checked_mul(by)?.checked_mul(10_u128.pow(more_places))
        };
        let high =
            scaled(high.mantissa(), u128::from(Self::THOUSANDTHS_OF_ONE), low_places.saturating_sub(high_places));
        let low = scaled(low.mantissa(), self.thousandths(), high_places.saturating_sub(low_places));
        match (high, low) {
            (Some(high), Some(low)) => high >= low,
            (None, _) => true,
            (Some(_), None) => false,
        }
    }
}

impl fmt::Display for RatioThreshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[allow(
            clippy::disallowed_methods,
            reason = "the factor is displayed without the trailing zeros that `of_thousandths` added"
        )]
        fmt::Display::fmt(&self.0.normalize(), f)
    }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn threshold_is_a_decimal_above_1() {
        let check = |text: &str, expect: Result<&str, &str>| match (RatioThreshold::parse(text), expect) {
            (Ok(factor), Ok(shown)) => assert_eq!(factor.to_string(), shown, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (found, _) => panic!("{text}: {found:?}"),
        };
        check("5", Ok("5"));
        check("2.50", Ok("2.5"));
        check("1.001", Ok("1.001"));
        check("1000000", Ok("1000000"));
        check("1", Err("must be above 1"));
        check("1.000", Err("must be above 1"));
        check("0", Err("must be above 1"));
        check("1000000.001", Err("must be above 1 and at most 1000000"));
        check("1.0001", Err("has 4 decimal places; at most 3"));
        check("10000000", Err("has 8 digits before the point"));
        check("-5", Err("is not a plain decimal"));
        check("", Err("is not a plain decimal"));
        assert_eq!(RatioThreshold::parse("5"), Ok(RatioThreshold::DEFAULT));
    }

    #[test]
    fn threshold_is_inclusive_and_independent_of_the_order_of_the_rates() {
        let check = |factor: &str, one: &str, other: &str, expect: bool| {
            let (one, other) = (Rate::parse(one).unwrap(), Rate::parse(other).unwrap());
            let threshold = RatioThreshold::parse(factor).unwrap();
            let found = (threshold.is_reached_by(one, other), threshold.is_reached_by(other, one));
            assert_eq!(found, (expect, expect), "{one} {other}");
        };
        // The devaluation of the Uzbek sum on 2017-09-05.
        check("5", "4210.35", "8100", false);
        check("1.923", "4210.35", "8100", true);
        check("1.924", "4210.35", "8100", false);
        check("5", "0.01144", "0.05719", false);
        check("5", "0.01144", "0.0572", true);
        check("5", "0.01144", "0.0572000000", true);
        check("5", "0.01144", "0.1144", true);
        check("5", "0.01144", "1144", true);
        check("5", "0.01144", "0.01144", false);
        check("5", "12345678901234567890.12345678", "0.000000000000000001", true);
        check("1000000", "99999999999999999999.99999999", "99999999999999.999999999999", true);
        check("1000000", "99999999999999999999.99999999", "99999999999999.99999999999999", true);
        check("1000000", "99999999999999999999.99999999", "100000000000000", false);
    }

    proptest! {
        #[test]
        fn comparison_has_the_same_result_with_big_integers(
            one in (1..10_u128.pow(28), 0..=18_u32),
            other in (1..10_u128.pow(28), 0..=18_u32),
            thousandths in 1_001..=RatioThreshold::THOUSANDTHS_MAX,
        ) {
            let (Ok(first), Ok(second)) = (Rate::from_parts(one.0, one.1), Rate::from_parts(other.0, other.1)) else {
                return Ok(());
            };
            let scaled = |(mantissa, places): (u128, u32), by: u64| {
                BigUint::from(mantissa) * BigUint::from(10_u8).pow(18 - places) * by
            };
            let above = |high, low| scaled(high, RatioThreshold::THOUSANDTHS_OF_ONE) >= scaled(low, thousandths);
            let expect = above(one, other) || above(other, one);
            prop_assert_eq!(RatioThreshold::of_thousandths(thousandths).is_reached_by(first, second), expect);
        }
    }
}
