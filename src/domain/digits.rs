//! Published decimals: the only place where text becomes a [`Decimal`], and where two of them compare by digits.
//!
//! [`Decimal`] stores a mantissa of 96 bits and its decimal places in 16 bytes. It is storage here, not arithmetic: its
//! operators round silently, its parser takes `1_0.5`, `+1` and `.5`, and its equality takes `0.2849` for `0.28490`.
//! So text is parsed here, [`Digits`] compares digit for digit, and `clippy.toml` bars the rest from this crate.
//!
//! **Invariant**: a [`Digits`] is not negative, and has at most 28 digits and 28 places.

use std::fmt;
use std::hash::{Hash, Hasher};

use rust_decimal::Decimal;
use thiserror::Error;

/// An unsigned decimal with its published places: `0.28490` is 28490 with 5 places, and differs from `0.2849`.
#[derive(Clone, Copy)]
pub(super) struct Digits(Decimal);

/// Why a text is not a plain decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecimalError {
    /// Something else than digits around at most one point.
    #[error("is not a plain decimal; write digits with at most one point, like 0.01144")]
    Malformed,
    /// More places than allowed.
    #[error("has {found} decimal places; at most {max} are kept")]
    TooManyPlaces {
        /// As written.
        found: usize,
        /// Allowed.
        max: u8,
    },
    /// More digits before the point than allowed.
    #[error("has {found} digits before the point; at most {max} are kept")]
    TooManyIntegerDigits {
        /// As written, leading zeros left out.
        found: usize,
        /// Allowed.
        max: u8,
    },
    /// More digits in all than allowed.
    #[error("has {found} digits in all; at most {max} are kept")]
    TooManyDigits {
        /// As written, leading zeros left out.
        found: usize,
        /// Allowed.
        max: u8,
    },
}

/// How many digits a kind of decimal may have. No limit is above 28, so that a mantissa fits 96 bits.
#[derive(Clone, Copy)]
pub(super) struct DigitLimits {
    pub(super) places: u8,
    pub(super) integer: u8,
    pub(super) total: u8,
}

impl Digits {
    /// `mantissa / 10^places`, of a mantissa below 2^96 and at most 28 places: what callers have checked.
    #[inline]
    pub(super) const fn new(mantissa: u128, places: u8) -> Self {
        debug_assert!(mantissa >> 96 == 0, "a mantissa of 28 digits fits 96 bits");
        #[allow(clippy::cast_possible_truncation, reason = "each takes its own 32 of the 96 bits")]
        let (low, middle, high) = (mantissa as u32, (mantissa >> 32) as u32, (mantissa >> 64) as u32);
        Self(Decimal::from_parts(low, middle, high, false, places as u32))
    }

    /// Reads `digits` or `digits.digits`; leading zeros do not count as digits.
    ///
    /// # Errors
    /// Any [`DecimalError`].
    pub(super) fn parse(text: &str, limits: DigitLimits) -> Result<Self, DecimalError> {
        let (integer, fraction) = match text.split_once('.') {
            Some((_, "")) => return Err(DecimalError::Malformed),
            Some(parts) => parts,
            None => (text, ""),
        };
        let digits = || integer.bytes().chain(fraction.bytes());
        if integer.is_empty() || !digits().all(|byte| byte.is_ascii_digit()) {
            return Err(DecimalError::Malformed);
        }
        let over = |found: usize, max: u8| found > usize::from(max);
        if over(fraction.len(), limits.places) {
            return Err(DecimalError::TooManyPlaces { found: fraction.len(), max: limits.places });
        }
        let integer_digits = integer.trim_start_matches('0').len();
        if over(integer_digits, limits.integer) {
            return Err(DecimalError::TooManyIntegerDigits { found: integer_digits, max: limits.integer });
        }
        let total = digits().skip_while(|byte| *byte == b'0').count();
        if over(total, limits.total) {
            return Err(DecimalError::TooManyDigits { found: total, max: limits.total });
        }
        let mantissa = digits().fold(0_u128, |sum, byte| sum * 10 + u128::from(byte - b'0'));
        Ok(Self::new(mantissa, u8::try_from(fraction.len()).unwrap_or(limits.places)))
    }

    /// The number without its point.
    #[inline]
    pub(super) const fn mantissa(self) -> u128 {
        // It has no sign to lose.
        self.0.mantissa().unsigned_abs()
    }

    /// Digits after the point, as published.
    #[inline]
    pub(super) const fn places(self) -> u8 {
        #[allow(clippy::cast_possible_truncation, reason = "a scale is at most 28")]
        let places = self.0.scale() as u8;
        places
    }

    /// Whether both stand for one number, whatever their places.
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
        // By digits, as equality goes: the hash of `Decimal` leaves trailing zeros out.
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
    fn digits_take_sixteen_bytes() {
        assert_eq!(size_of::<Digits>(), 16);
    }

    #[test]
    fn digits_compare_and_hash_by_what_is_written() {
        let parse = |text: &str| Digits::parse(text, LIMITS).unwrap();
        let (short, long) = (parse("0.2849"), parse("0.28490"));
        assert_ne!(short, long);
        assert!(short.same_number(long));
        let hasher = RandomState::new();
        assert_ne!(hasher.hash_one(short), hasher.hash_one(long));
        assert_eq!(hasher.hash_one(long), hasher.hash_one(parse("00.28490")));
    }

    /// What `Decimal` itself would take, and these published digits do not.
    #[test]
    fn digits_are_parsed_strictly() {
        for text in ["1_0.5", "+1", ".5", "5.", "1e3", " 1", "1 ", "-0.00", "", "\u{661}", "1.2.3", "0x1", "inf"] {
            assert_eq!(Digits::parse(text, LIMITS), Err(DecimalError::Malformed), "{text}");
        }
    }

    proptest! {
        /// A mantissa of up to 28 digits, printed with big integers beside it.
        #[test]
        fn digits_print_and_parse_what_big_integers_say(mantissa in 0..10_u128.pow(28), places in 8..=18_u8) {
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
