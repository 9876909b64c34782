//! Published decimals. This is the only module that parses text to a [`Decimal`] and compares decimals by their digits.
//!
//! [`Decimal`] stores a mantissa of 96 bits and the number of decimal places in 16 bytes. This crate uses it for
//! storage and not for arithmetic: its operators round silently, its parser accepts `1_0.5`, `+1` and `.5`, and its
//! equality treats `0.2849` and `0.28490` as equal. [`Digits`] parses text strictly and compares digit for digit.
//! `clippy.toml` forbids the operators and the parsers of [`Decimal`] in this crate.
//!
//! **Invariant**: a [`Digits`] is not negative, and has at most 28 digits and 28 decimal places.

use std::fmt;
use std::hash::{Hash, Hasher};

use rust_decimal::Decimal;
use thiserror::Error;

/// An unsigned decimal with its published decimal places. `0.28490` is 28490 with 5 places, and differs from `0.2849`.
#[derive(Clone, Copy)]
pub(super) struct Digits(Decimal);

/// Why a text is not a valid decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecimalError {
    /// The text is not digits with at most one decimal point between them.
    #[error("is not a plain decimal; write digits with at most one point, like 0.01144")]
    Malformed,
    /// The text has more decimal places than allowed.
    #[error("has {found} decimal places; at most {max} are allowed")]
    TooManyPlaces {
        /// Decimal places of the text.
        found: usize,
        /// Largest allowed number.
        max: u8,
    },
    /// The text has more digits before the decimal point than allowed.
    #[error("has {found} digits before the point; at most {max} are allowed")]
    TooManyIntegerDigits {
        /// Digits before the point, without leading zeros.
        found: usize,
        /// Largest allowed number.
        max: u8,
    },
    /// The text has more digits in total than allowed.
    #[error("has {found} digits in total; at most {max} are allowed")]
    TooManyDigits {
        /// Digits of the text, without leading zeros.
        found: usize,
        /// Largest allowed number.
        max: u8,
    },
}

/// Digit limits of a kind of decimal. No limit is above 28, so every mantissa fits in 96 bits.
#[derive(Clone, Copy)]
pub(super) struct DigitLimits {
    pub(super) places: u8,
    pub(super) integer: u8,
    pub(super) total: u8,
}

impl Digits {
    /// Returns `mantissa / 10^places`. The caller guarantees that the mantissa is below 2^96 and `places` at most 28.
    #[inline]
    pub(super) const fn new(mantissa: u128, places: u8) -> Self {
        debug_assert!(mantissa >> 96 == 0, "the mantissa must fit in 96 bits");
        #[allow(clippy::cast_possible_truncation, reason = "each cast keeps 32 of the 96 bits")]
        let (low, middle, high) = (mantissa as u32, (mantissa >> 32) as u32, (mantissa >> 64) as u32);
        Self(Decimal::from_parts(low, middle, high, false, places as u32))
    }

    /// Parses `digits` or `digits.digits`. Leading zeros do not count towards the limits of integer and total digits.
    ///
    /// # Errors
    /// Returns a [`DecimalError`] if the text is not of one of these forms or exceeds `limits`.
    pub(super) fn parse(text: &str, limits: DigitLimits) -> Result<Self, DecimalError> {
        match Self::parse_short(text, limits) {
            Some(digits) => Ok(digits),
            None => Self::parse_any(text, limits),
        }
    }

    /// Parses a valid decimal whose digits fit in 64 bits, which nearly all do, in one pass. Returns `None` for any other
    /// text.
    fn parse_short(text: &str, limits: DigitLimits) -> Option<Self> {
        /// Ten to this power fits in 64 bits.
        const SHORT_DIGITS: usize = 19;
        let (mut mantissa, mut digits, mut point) = (0_u64, 0_usize, None);
        for byte in text.bytes() {
            match byte {
                b'0'..=b'9' if digits < SHORT_DIGITS => {
                    mantissa = mantissa * 10 + u64::from(byte - b'0');
                    digits += 1;
                }
                b'.' if point.is_none() => point = Some(digits),
                _ => return None,
            }
        }
        let integer = point.unwrap_or(digits);
        let places = u8::try_from(digits - integer).ok()?;
        let is_well_formed = integer > 0 && (point.is_none() || places > 0);
        let is_within = |found: usize, max: u8| found <= usize::from(max);
        let is_short = is_within(integer, limits.integer) && is_within(digits, limits.total) && places <= limits.places;
        (is_well_formed && is_short).then(|| Self::new(mantissa.into(), places))
    }

    fn parse_any(text: &str, limits: DigitLimits) -> Result<Self, DecimalError> {
        let (integer, fraction) = match text.split_once('.') {
            Some((_, "")) => return Err(DecimalError::Malformed),
            Some(parts) => parts,
            None => (text, ""),
        };
        let digits = || integer.bytes().chain(fraction.bytes());
        if integer.is_empty() || !digits().all(|byte| byte.is_ascii_digit()) {
            return Err(DecimalError::Malformed);
        }
        let exceeds = |found: usize, max: u8| found > usize::from(max);
        if exceeds(fraction.len(), limits.places) {
            return Err(DecimalError::TooManyPlaces { found: fraction.len(), max: limits.places });
        }
        let integer_digits = integer.trim_start_matches('0').len();
        if exceeds(integer_digits, limits.integer) {
            return Err(DecimalError::TooManyIntegerDigits { found: integer_digits, max: limits.integer });
        }
        let total = digits().skip_while(|byte| *byte == b'0').count();
        if exceeds(total, limits.total) {
            return Err(DecimalError::TooManyDigits { found: total, max: limits.total });
        }
        let mantissa = digits().fold(0_u128, |sum, byte| sum * 10 + u128::from(byte - b'0'));
        Ok(Self::new(mantissa, u8::try_from(fraction.len()).unwrap_or(limits.places)))
    }

    /// The digits of the number as an integer, without the decimal point.
    #[inline]
    pub(super) const fn mantissa(self) -> u128 {
        // The number is never negative, so this loses no sign.
        self.0.mantissa().unsigned_abs()
    }

    /// The number of digits after the decimal point, as published.
    #[inline]
    pub(super) const fn places(self) -> u8 {
        #[allow(clippy::cast_possible_truncation, reason = "a scale is at most 28")]
        let places = self.0.scale() as u8;
        places
    }

    /// Returns true if both are the same number, whatever their decimal places.
    pub(super) fn same_number(self, other: Self) -> bool {
        self.0 == other.0
    }

    pub(super) const fn decimal(self) -> Decimal {
        self.0
    }
}

impl PartialEq for Digits {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.0.scale() == other.0.scale() && self.0.mantissa() == other.0.mantissa()
    }
}

impl Eq for Digits {}

impl Hash for Digits {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The hash must agree with `eq`, which compares digits. The hash of `Decimal` ignores trailing zeros.
        (self.mantissa(), self.places()).hash(state);
    }
}

impl fmt::Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, RandomState};

    use proptest::prelude::*;

    use super::*;

    const LIMITS: DigitLimits = DigitLimits { places: 18, integer: 20, total: 28 };

    #[test]
    fn digits_have_a_size_of_16_bytes() {
        assert_eq!(size_of::<Digits>(), 16);
    }

    #[test]
    fn equal_numbers_with_different_trailing_zeros_are_different_digits() {
        let parse = |text: &str| Digits::parse(text, LIMITS).unwrap();
        let (short, long) = (parse("0.2849"), parse("0.28490"));
        assert_ne!(short, long);
        assert!(short.same_number(long));
        let hasher = RandomState::new();
        assert_ne!(hasher.hash_one(short), hasher.hash_one(long));
        assert_eq!(hasher.hash_one(long), hasher.hash_one(parse("00.28490")));
    }

    /// The parser of `Decimal` accepts some of these texts.
    #[test]
    fn parser_accepts_only_plain_decimals() {
        for text in ["1_0.5", "+1", ".5", "5.", "1e3", " 1", "1 ", "-0.00", "", "\u{661}", "1.2.3", "0x1", "inf"] {
            assert_eq!(Digits::parse(text, LIMITS), Err(DecimalError::Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn short_decimals_parse_like_any_decimal(text in "[0-9]{0,22}(\\.[0-9]{0,12})?|[0-9.+e-]{0,6}", total in 1..=20_u8) {
            let limits = DigitLimits { integer: total, places: total / 2, total };
            if let Some(short) = Digits::parse_short(&text, limits) {
                prop_assert_eq!(Digits::parse_any(&text, limits), Ok(short));
            }
            if text.len() < 19 && Digits::parse_any(&text, LIMITS).is_ok() {
                prop_assert!(Digits::parse_short(&text, LIMITS).is_some(), "the usual decimal takes the short path");
            }
        }

        /// The expected text is made of the decimal digits of the mantissa.
        #[test]
        fn mantissa_of_up_to_28_digits_prints_and_parses_exactly(mantissa in 0..10_u128.pow(28), places in 8..=18_u8) {
            let digits = Digits::new(mantissa, places);
            prop_assert_eq!((digits.mantissa(), digits.places()), (mantissa, places));
            let padded = format!("{mantissa:0>width$}", width = usize::from(places) + 1);
            let (integer, fraction) = padded.split_at(padded.len() - usize::from(places));
            let text = format!("{integer}.{fraction}");
            prop_assert_eq!(digits.to_string(), text.as_str());
            prop_assert_eq!(Digits::parse(&text, LIMITS), Ok(digits));
            prop_assert!(digits.same_number(digits));
        }
    }
}
