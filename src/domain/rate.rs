//! Rates and reported changes with the digits that were published.

use std::fmt;

use rust_decimal::Decimal;
use thiserror::Error;

use super::digits::{DecimalError, DigitLimits, Digits};
use super::time::truncate_for_display;

/// A positive decimal with its published places: units of quote for one unit of base.
///
/// **Invariant**: the mantissa is 1 to 10^28 - 1, so it fits in 96 bits; at most 18 places and 20
/// digits before the point.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate(Digits);

/// Why something is no rate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RateError {
    /// Not a plain decimal, or one with too many digits.
    #[error("rate '{text}' {problem}")]
    Decimal {
        /// As given, clipped.
        text: String,
        /// What is wrong with it.
        problem: DecimalError,
    },
    /// Zero.
    #[error("rate '{0}' is zero; a rate is positive")]
    Zero(String),
    /// A minus sign.
    #[error("rate '{0}' is negative; a rate is positive")]
    Negative(String),
    /// Mantissa and places that make no rate.
    #[error(
        "rate of mantissa {mantissa} with {places} places has too many digits; at most 18 places, 20 digits before the point and 28 in all are kept"
    )]
    Parts {
        /// The number without its point.
        mantissa: u128,
        /// Digits after the point.
        places: u32,
    },
}

impl Rate {
    /// Most digits after the point.
    pub const PLACES_MAX: u8 = 18;
    /// Most digits before the point.
    pub const INTEGER_DIGITS_MAX: u8 = 20;
    /// Most digits in all.
    pub const DIGITS_MAX: u8 = 28;

    pub(super) const LIMITS: DigitLimits =
        DigitLimits { places: Self::PLACES_MAX, integer: Self::INTEGER_DIGITS_MAX, total: Self::DIGITS_MAX };

    /// Reads a plain decimal: no sign, no exponent, no spaces.
    ///
    /// # Errors
    /// Any [`RateError`], naming the text.
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

    /// From a mantissa and its places.
    ///
    /// # Errors
    /// `Zero` or `Parts`.
    #[inline]
    pub fn from_parts(mantissa: u128, places: u32) -> Result<Self, RateError> {
        const DIGITS_LIMIT: u128 = 10_u128.pow(Rate::DIGITS_MAX as u32);
        const INTEGER_LIMIT: u128 = 10_u128.pow(Rate::INTEGER_DIGITS_MAX as u32);
        let error = RateError::Parts { mantissa, places };
        let Ok(small_places) = u8::try_from(places) else { return Err(error) };
        if mantissa == 0 {
            return Err(RateError::Zero("0".to_owned()));
        }
        // The wide division is for the rare long mantissa: a short one has few digits anywhere.
        let too_many_integer_digits = || mantissa >= INTEGER_LIMIT && mantissa / 10_u128.pow(places) >= INTEGER_LIMIT;
        if small_places > Self::PLACES_MAX || mantissa >= DIGITS_LIMIT || too_many_integer_digits() {
            return Err(error);
        }
        Ok(Self(Digits::new(mantissa, small_places)))
    }

    /// With zeros added until it has `minimum_places`; unchanged if it has as many. For sources that drop
    /// trailing zeros, whose rates would otherwise claim less than was measured.
    ///
    /// # Errors
    /// `Parts`, where that makes too many digits.
    pub fn padded(self, minimum_places: u8) -> Result<Self, RateError> {
        let missing = minimum_places.saturating_sub(self.places());
        let mantissa = 10_u128.checked_pow(u32::from(missing)).and_then(|factor| self.mantissa().checked_mul(factor));
        let places = u32::from(self.places()) + u32::from(missing);
        let overflow = RateError::Parts { mantissa: self.mantissa(), places };
        mantissa.map_or(Err(overflow), |mantissa| Self::from_parts(mantissa, places))
    }

    /// The rate of one unit, of a rate for `10^zeros` units: the point moves, and every digit stays.
    ///
    /// # Errors
    /// `Parts`, where that makes too many places.
    pub fn per_unit_of(self, zeros: u8) -> Result<Self, RateError> {
        Self::from_parts(self.mantissa(), u32::from(self.places()) + u32::from(zeros))
    }

    /// The number without its point.
    pub const fn mantissa(self) -> u128 {
        self.0.mantissa()
    }

    /// Published digits after the point.
    pub const fn places(self) -> u8 {
        self.0.places()
    }

    /// Whether both stand for one number, whatever their places: no move lies between them.
    pub fn same_number(self, other: Self) -> bool {
        self == other || self.0.same_number(other.0)
    }

    /// Whether one unit in the last place is at most 0.1 % of the rate, so that standing still
    /// means something.
    pub const fn is_fine(self) -> bool {
        self.0.mantissa() >= 1_000
    }
}

impl From<Rate> for Decimal {
    /// The rate with its published places, digit for digit.
    fn from(rate: Rate) -> Self {
        rate.0.decimal()
    }
}

impl TryFrom<Decimal> for Rate {
    type Error = RateError;

    /// The decimal with its places, digit for digit.
    ///
    /// # Errors
    /// `Zero`, `Negative` or `Parts`.
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

/// The percentage that a source printed beside its rate. The sign is kept even on zero: `-0` is a
/// fall that rounded to nothing. A plus sign is read and not kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReportedChange {
    negative: bool,
    magnitude: Digits,
}

/// Why something is no reported change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReportedChangeError {
    /// Not a plain decimal with an optional sign, or one with too many digits.
    #[error("reported change '{text}' {problem}")]
    Decimal {
        /// As given, clipped.
        text: String,
        /// What is wrong with it.
        problem: DecimalError,
    },
    /// Mantissa and places that make no reported change.
    #[error("reported change of mantissa {mantissa} with {places} places has too many digits; at most 12 are kept")]
    Parts {
        /// The number without its point.
        mantissa: u64,
        /// Digits after the point.
        places: u32,
    },
}

impl ReportedChange {
    /// Most digits, after the point and in all.
    pub const DIGITS_MAX: u8 = 12;

    const LIMITS: DigitLimits =
        DigitLimits { places: Self::DIGITS_MAX, integer: Self::DIGITS_MAX, total: Self::DIGITS_MAX };

    /// Reads a plain decimal with an optional sign and without the percent sign.
    ///
    /// # Errors
    /// `Decimal`, naming the text.
    pub fn parse(text: &str) -> Result<Self, ReportedChangeError> {
        let (negative, digits) = signed(text);
        let magnitude = Digits::parse(digits, Self::LIMITS)
            .map_err(|problem| ReportedChangeError::Decimal { text: truncate_for_display(text), problem })?;
        Ok(Self { negative, magnitude })
    }

    /// From a sign, a mantissa and its places.
    ///
    /// # Errors
    /// `Parts`.
    pub fn from_parts(negative: bool, mantissa: u64, places: u32) -> Result<Self, ReportedChangeError> {
        const DIGITS_LIMIT: u64 = 10_u64.pow(ReportedChange::DIGITS_MAX as u32);
        match u8::try_from(places) {
            Ok(small_places) if small_places <= Self::DIGITS_MAX && mantissa < DIGITS_LIMIT => {
                Ok(Self { negative, magnitude: Digits::new(u128::from(mantissa), small_places) })
            }
            _ => Err(ReportedChangeError::Parts { mantissa, places }),
        }
    }

    /// Whether a minus sign was printed.
    pub const fn is_negative(self) -> bool {
        self.negative
    }

    /// The magnitude without its point, below 10^12.
    pub fn mantissa(self) -> u64 {
        u64::try_from(self.magnitude.mantissa()).unwrap_or(u64::MAX)
    }

    /// Printed digits after the point.
    pub const fn places(self) -> u8 {
        self.magnitude.places()
    }
}

impl From<ReportedChange> for Decimal {
    /// The percentage with its sign and places. The sign of `-0` is lost: ask [`ReportedChange::is_negative`].
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

/// Whether a minus sign stands first, and what follows the sign, if there is one.
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
    fn rates_keep_their_digits() {
        for text in ["0.00008", "0.28490", "8100", "0.000000000000000001", "12345678901234567890.12345678"] {
            assert_eq!(Rate::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_rate_becomes_a_decimal_and_back_digit_for_digit() {
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
        // 19 places; 21 digits before the point; 29 digits in all.
        for (mantissa, places) in
            [(1, 19), (100_000_000_000_000_000_000, 0), (79_228_162_514_264_337_593_543_950_335, 18)]
        {
            let decimal = Decimal::try_from_i128_with_scale(mantissa, places).unwrap();
            assert!(matches!(Rate::try_from(decimal), Err(RateError::Parts { .. })), "{decimal}");
        }
    }

    #[test]
    fn what_is_no_rate() {
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
        check("12345678901234567890.123456789", "29 digits in all");
    }

    #[test]
    fn parts_are_checked_like_text() {
        assert_eq!(Rate::from_parts(28490, 5).unwrap().to_string(), "0.28490");
        assert!(Rate::from_parts(0, 5).is_err());
        assert!(Rate::from_parts(1, 19).is_err());
        assert!(Rate::from_parts(1, u32::MAX).is_err());
        assert!(Rate::from_parts(10_u128.pow(28), 18).is_err());
        assert!(Rate::from_parts(10_u128.pow(20), 0).is_err());
        assert!(Rate::from_parts(10_u128.pow(28) - 1, 8).is_ok());
    }

    #[test]
    fn padding_and_shifting_keep_every_digit() {
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
        check("3.93", 2, 18, "rate of mantissa 393 with 20 places has too many digits");
        check("12345678901234567890", 18, 0, "rate of mantissa");
        check("12345678901234567890", u8::MAX, 0, "rate of mantissa");
        check("1", 0, u8::MAX, "rate of mantissa");
    }

    #[test]
    fn trailing_zeros_are_published_but_no_move() {
        let (short, long) = (Rate::parse("0.2849").unwrap(), Rate::parse("0.28490").unwrap());
        assert_ne!(short, long);
        assert!(short.same_number(long));
        assert!(!short.same_number(Rate::parse("0.28491").unwrap()));
    }

    #[test]
    fn reported_changes_keep_sign_and_places() {
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
