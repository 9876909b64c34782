//! Rates and reported changes, with exactly the digits that were published.

use std::fmt;

use rust_decimal::Decimal;
use thiserror::Error;

use super::digits::{DecimalError, DigitLimits, Digits};
use super::time::truncate_for_display;

/// A positive decimal with its published decimal places: units of quote for one unit of base.
///
/// **Invariant**: the mantissa is from 1 to 10^28 - 1, so it fits in 96 bits. A rate has at most 18 decimal places and
/// 20 digits before the decimal point.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate(Digits);

/// Why a text, a decimal or a pair of numbers is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RateError {
    /// The text is not a plain decimal, or has too many digits.
    #[error("rate '{text}' {problem}")]
    Decimal {
        /// The text, truncated for display.
        text: String,
        /// What is wrong with the text.
        problem: DecimalError,
    },
    /// The rate is zero.
    #[error("rate '{0}' is zero; a rate is positive")]
    Zero(String),
    /// The rate has a minus sign.
    #[error("rate '{0}' is negative; a rate is positive")]
    Negative(String),
    /// The rate with this mantissa and this number of decimal places has too many digits.
    #[error(
        "rate with mantissa {mantissa} and {places} decimal places has too many digits; at most 18 decimal places, 20 digits before the point and 28 digits in total are allowed"
    )]
    Parts {
        /// The digits of the rate as an integer, without the decimal point.
        mantissa: u128,
        /// The number of digits after the decimal point.
        places: u32,
    },
}

impl Rate {
    /// Largest number of digits after the decimal point.
    pub const PLACES_MAX: u8 = 18;
    /// Largest number of digits before the decimal point.
    pub const INTEGER_DIGITS_MAX: u8 = 20;
    /// Largest number of digits in total.
    pub const DIGITS_MAX: u8 = 28;

    pub(super) const LIMITS: DigitLimits =
        DigitLimits { places: Self::PLACES_MAX, integer: Self::INTEGER_DIGITS_MAX, total: Self::DIGITS_MAX };

    /// Parses a plain decimal: no sign, no exponent, no spaces.
    ///
    /// # Errors
    /// `Negative` or `Zero` if the rate is not positive; `Decimal` if the text is not a plain decimal or has too many
    /// digits. Each error contains the text.
    pub fn parse(text: &str) -> Result<Self, RateError> {
        let digits = Digits::parse(text, Self::LIMITS).map_err(|problem| match text.strip_prefix('-') {
            Some(rest) if rest.starts_with(|first: char| first.is_ascii_digit()) => {
                RateError::Negative(truncate_for_display(text))
            }
            _ => RateError::Decimal { text: truncate_for_display(text), problem },
        })?;
        if digits.mantissa() == 0 {
            return Err(RateError::Zero(truncate_for_display(text)));
        }
        Ok(Self(digits))
    }

    /// Makes the rate `mantissa / 10^places`.
    ///
    /// # Errors
    /// `Zero` if the mantissa is zero; `Parts` if the rate has too many digits.
    #[inline]
    pub fn from_parts(mantissa: u128, places: u32) -> Result<Self, RateError> {
        const DIGITS_LIMIT: u128 = 10_u128.pow(Rate::DIGITS_MAX as u32);
        const INTEGER_LIMIT: u128 = 10_u128.pow(Rate::INTEGER_DIGITS_MAX as u32);
        let error = RateError::Parts { mantissa, places };
        let Ok(small_places) = u8::try_from(places) else { return Err(error) };
        if mantissa == 0 {
            return Err(RateError::Zero("0".to_owned()));
        }
        // Only a long mantissa can have too many integer digits, so the 128-bit division is rare.
        let too_many_integer_digits = || mantissa >= INTEGER_LIMIT && mantissa / 10_u128.pow(places) >= INTEGER_LIMIT;
        if small_places > Self::PLACES_MAX || mantissa >= DIGITS_LIMIT || too_many_integer_digits() {
            return Err(error);
        }
        Ok(Self(Digits::new(mantissa, small_places)))
    }

    /// Appends zeros until the rate has `minimum_places` decimal places. A rate with at least `minimum_places` decimal
    /// places is unchanged.
    ///
    /// This is for sources that drop trailing zeros. Without the zeros, the rate would look less precise than it is.
    ///
    /// # Errors
    /// Returns `RateError::Parts` if the padded rate has too many digits.
    pub fn padded(self, minimum_places: u8) -> Result<Self, RateError> {
        let missing = minimum_places.saturating_sub(self.places());
        let mantissa = 10_u128.checked_pow(u32::from(missing)).and_then(|factor| self.mantissa().checked_mul(factor));
        let places = u32::from(self.places()) + u32::from(missing);
        let overflow = RateError::Parts { mantissa: self.mantissa(), places };
        mantissa.map_or(Err(overflow), |mantissa| Self::from_parts(mantissa, places))
    }

    /// Converts the rate for `10^zeros` units to the rate for one unit. The decimal point moves, and every digit is
    /// kept.
    ///
    /// # Errors
    /// Returns `RateError::Parts` if the result has too many decimal places.
    pub fn per_unit_of(self, zeros: u8) -> Result<Self, RateError> {
        Self::from_parts(self.mantissa(), u32::from(self.places()) + u32::from(zeros))
    }

    /// The digits of the rate as an integer, without the decimal point.
    pub const fn mantissa(self) -> u128 {
        self.0.mantissa()
    }

    /// The number of significant digits: 1 for `0.00008`, 5 for `0.28490`.
    pub fn significant_digits(self) -> u32 {
        self.mantissa().checked_ilog10().map_or(0, |digits| digits + 1)
    }

    /// The number of published digits after the decimal point.
    pub const fn places(self) -> u8 {
        self.0.places()
    }

    /// Returns true if both rates are the same number, whatever their decimal places. A change of only the decimal
    /// places is not a move.
    pub fn same_number(self, other: Self) -> bool {
        self == other || self.0.same_number(other.0)
    }

    /// Returns true if one unit in the last place is at most 0.1 % of the rate. A coarser rate can stay the same
    /// although the currency moves.
    pub const fn has_fine_resolution(self) -> bool {
        self.0.mantissa() >= 1_000
    }
}

impl From<Rate> for Decimal {
    /// Converts the rate with all its published decimal places.
    fn from(rate: Rate) -> Self {
        rate.0.decimal()
    }
}

impl TryFrom<Decimal> for Rate {
    type Error = RateError;

    /// Converts the decimal with all its decimal places.
    ///
    /// # Errors
    /// `Zero` or `Negative` if the decimal is not positive; `Parts` if it has too many digits.
    fn try_from(decimal: Decimal) -> Result<Self, RateError> {
        if decimal.is_zero() {
            return Err(RateError::Zero(decimal.to_string()));
        }
        let mantissa = u128::try_from(decimal.mantissa()).map_err(|_| RateError::Negative(decimal.to_string()))?;
        Self::from_parts(mantissa, decimal.scale())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The percentage that a source printed next to its rate. A minus sign is kept even for zero, because `-0` is a fall
/// that rounds to zero. A plus sign is accepted and dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReportedChange {
    negative: bool,
    magnitude: Digits,
}

/// Why a text or a pair of numbers is not a reported change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReportedChangeError {
    /// The text is not a plain decimal with an optional sign, or has too many digits.
    #[error("reported change '{text}' {problem}")]
    Decimal {
        /// The text, truncated for display.
        text: String,
        /// What is wrong with the text.
        problem: DecimalError,
    },
    /// The reported change with this mantissa and this number of decimal places has too many digits.
    #[error(
        "reported change with mantissa {mantissa} and {places} decimal places has too many digits; at most 12 are allowed"
    )]
    Parts {
        /// The digits of the reported change as an integer, without the decimal point.
        mantissa: u64,
        /// The number of digits after the decimal point.
        places: u32,
    },
}

impl ReportedChange {
    /// Largest number of digits, both after the decimal point and in total.
    pub const DIGITS_MAX: u8 = 12;

    const LIMITS: DigitLimits =
        DigitLimits { places: Self::DIGITS_MAX, integer: Self::DIGITS_MAX, total: Self::DIGITS_MAX };

    /// Parses a plain decimal with an optional sign, without a percent sign.
    ///
    /// # Errors
    /// Returns `ReportedChangeError::Decimal`, which contains the text, if the text is not such a decimal or has too
    /// many digits.
    pub fn parse(text: &str) -> Result<Self, ReportedChangeError> {
        let (negative, digits) = signed(text);
        let magnitude = Digits::parse(digits, Self::LIMITS)
            .map_err(|problem| ReportedChangeError::Decimal { text: truncate_for_display(text), problem })?;
        Ok(Self { negative, magnitude })
    }

    /// Makes the reported change `mantissa / 10^places`, with a minus sign if `negative`.
    ///
    /// # Errors
    /// Returns `ReportedChangeError::Parts` if it has too many digits.
    pub fn from_parts(negative: bool, mantissa: u64, places: u32) -> Result<Self, ReportedChangeError> {
        const DIGITS_LIMIT: u64 = 10_u64.pow(ReportedChange::DIGITS_MAX as u32);
        match u8::try_from(places) {
            Ok(small_places) if small_places <= Self::DIGITS_MAX && mantissa < DIGITS_LIMIT => {
                Ok(Self { negative, magnitude: Digits::new(u128::from(mantissa), small_places) })
            }
            _ => Err(ReportedChangeError::Parts { mantissa, places }),
        }
    }

    /// Returns true if the change was printed with a minus sign.
    pub const fn is_negative(self) -> bool {
        self.negative
    }

    /// The digits of the change as an integer, without sign and decimal point; below 10^12.
    pub fn mantissa(self) -> u64 {
        u64::try_from(self.magnitude.mantissa()).unwrap_or(u64::MAX)
    }

    /// The number of printed digits after the decimal point.
    pub const fn places(self) -> u8 {
        self.magnitude.places()
    }
}

impl From<ReportedChange> for Decimal {
    /// Converts the percentage with its sign and decimal places. The sign of `-0` is lost; use
    /// [`ReportedChange::is_negative`] to get it.
    fn from(change: ReportedChange) -> Self {
        let mut percent = change.magnitude.decimal();
        percent.set_sign_negative(change.negative && !percent.is_zero());
        percent
    }
}

impl fmt::Display for ReportedChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        fmt::Display::fmt(&self.magnitude, f)
    }
}

impl fmt::Debug for ReportedChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns whether the text begins with a minus sign, and the text without its sign.
pub(super) fn signed(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_keeps_its_published_digits() {
        for text in ["0.00008", "0.28490", "8100", "0.000000000000000001", "12345678901234567890.12345678"] {
            assert_eq!(Rate::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn rate_to_decimal_and_back_keeps_every_digit() {
        for text in ["0.00008", "0.28490", "8100", "0.000000000000000001", "12345678901234567890.12345678"] {
            let rate = Rate::parse(text).unwrap();
            let decimal = Decimal::from(rate);
            assert_eq!((decimal.to_string().as_str(), Rate::try_from(decimal)), (text, Ok(rate)));
        }
        let check = |mantissa: i128, places: u32, expect: &str| {
            let decimal = Decimal::try_from_i128_with_scale(mantissa, places).unwrap();
            let error = Rate::try_from(decimal).unwrap_err().to_string();
            assert!(error.contains(expect), "{decimal}: {error}");
        };
        check(0, 3, "is zero");
        check(-1_144, 5, "is negative");
        // 19 decimal places; 21 digits before the point; 29 digits in total.
        for (mantissa, places) in
            [(1, 19), (100_000_000_000_000_000_000, 0), (79_228_162_514_264_337_593_543_950_335, 18)]
        {
            let decimal = Decimal::try_from_i128_with_scale(mantissa, places).unwrap();
            assert!(matches!(Rate::try_from(decimal), Err(RateError::Parts { .. })), "{decimal}");
        }
    }

    #[test]
    fn text_that_is_not_a_rate_is_refused() {
        let check = |text: &str, expect: &str| {
            let error = Rate::parse(text).unwrap_err().to_string();
            assert!(error.contains(expect), "{text}: {error}");
        };
        check("0", "is zero");
        check("0.000", "is zero");
        check("-1", "is negative");
        check("1e3", "not a plain decimal");
        check("NaN", "not a plain decimal");
        check("", "not a plain decimal");
        check(".5", "not a plain decimal");
        check("5.", "not a plain decimal");
        check("+1", "not a plain decimal");
        check("1,5", "not a plain decimal");
        check("1.2.3", "not a plain decimal");
        check("\u{661}", "not a plain decimal");
        check("1.2345678901234567890", "19 decimal places");
        check("123456789012345678901", "21 digits before the point");
        check("12345678901234567890.123456789", "29 digits in total");
    }

    #[test]
    fn parts_have_the_same_limits_as_text() {
        assert_eq!(Rate::from_parts(28490, 5).unwrap().to_string(), "0.28490");
        assert!(Rate::from_parts(0, 5).is_err());
        assert!(Rate::from_parts(1, 19).is_err());
        assert!(Rate::from_parts(1, u32::MAX).is_err());
        assert!(Rate::from_parts(10_u128.pow(28), 18).is_err());
        assert!(Rate::from_parts(10_u128.pow(20), 0).is_err());
        assert!(Rate::from_parts(10_u128.pow(28) - 1, 8).is_ok());
    }

    #[test]
    fn padding_and_division_by_a_nominal_keep_every_digit() {
        let check = |text: &str, minimum_places, zeros, expect: &str| {
            let rate = Rate::parse(text).unwrap().padded(minimum_places).and_then(|rate| rate.per_unit_of(zeros));
            let answer = rate.map_or_else(|error| error.to_string(), |rate| rate.to_string());
            assert!(answer.starts_with(expect), "{text}: {answer}");
        };
        check("179.5", 2, 0, "179.50");
        check("3", 2, 0, "3.00");
        check("478.77", 2, 0, "478.77");
        check("0.29", 4, 3, "0.0002900");
        check("0.0724", 0, 2, "0.000724");
        check("3.93", 2, 18, "rate with mantissa 393 and 20 decimal places has too many digits");
        check("12345678901234567890", 18, 0, "rate with mantissa");
        check("12345678901234567890", u8::MAX, 0, "rate with mantissa");
        check("1", 0, u8::MAX, "rate with mantissa");
    }

    #[test]
    fn rates_that_differ_in_trailing_zeros_are_the_same_number() {
        let (short, long) = (Rate::parse("0.2849").unwrap(), Rate::parse("0.28490").unwrap());
        assert_ne!(short, long);
        assert!(short.same_number(long));
        assert!(!short.same_number(Rate::parse("0.28491").unwrap()));
    }

    #[test]
    fn reported_change_keeps_its_sign_and_places() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(ReportedChange::parse(text).ok().map(|c| c.to_string()).as_deref(), expect, "{text}");
        };
        check("-0", Some("-0"));
        check("0", Some("0"));
        check("+0.12", Some("0.12"));
        check("-1.50", Some("-1.50"));
        check("0%", None);
        check("--1", None);
        check("1234567890123", None);
        assert_ne!(ReportedChange::parse("-0"), ReportedChange::parse("0"));
        assert!(ReportedChange::from_parts(true, 10_u64.pow(12), 0).is_err());
        assert!(ReportedChange::from_parts(true, 1, 13).is_err());
    }
}
