//! Decimals as published: a mantissa and a count of places, nothing rounded.

use std::fmt;

use thiserror::Error;

/// An unsigned decimal with its written places: `mantissa / 10^places`.
///
/// `0.28490` is 28490 with 5 places and differs from `0.2849`; [`Decimal::same_number`] compares
/// what they stand for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Decimal {
    mantissa: u128,
    places: u8,
}

/// Why a text is no plain decimal.
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

/// How many digits a kind of decimal may have.
#[derive(Clone, Copy)]
pub(super) struct DigitLimits {
    pub(super) places: u8,
    pub(super) integer: u8,
    pub(super) total: u8,
}

impl Decimal {
    pub(super) const fn new(mantissa: u128, places: u8) -> Self {
        Self { mantissa, places }
    }

    /// Reads `digits` or `digits.digits`; leading zeros do not count as digits.
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
        // At most 38 digits, or the fold could overflow; every caller's limit is below.
        let mantissa = digits().fold(0_u128, |sum, byte| sum * 10 + u128::from(byte - b'0'));
        Ok(Self { mantissa, places: u8::try_from(fraction.len()).unwrap_or(limits.places) })
    }

    /// The number without its point.
    pub const fn mantissa(self) -> u128 {
        self.mantissa
    }

    /// Digits after the point, as written.
    pub const fn places(self) -> u8 {
        self.places
    }

    /// Whether both stand for one number, whatever their places.
    pub fn same_number(self, other: Self) -> bool {
        self.without_trailing_zeros() == other.without_trailing_zeros()
    }

    fn without_trailing_zeros(self) -> Self {
        let mut short = self;
        while short.places > 0 && short.mantissa.is_multiple_of(10) {
            short = Self { mantissa: short.mantissa / 10, places: short.places - 1 };
        }
        short
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = usize::from(self.places);
        // At least one digit before the point: 8 with 5 places prints as 0.00008.
        let digits = format!("{:0>width$}", self.mantissa, width = places + 1);
        let (integer, fraction) = digits.split_at(digits.len() - places);
        f.write_str(integer)?;
        if places > 0 {
            write!(f, ".{fraction}")?;
        }
        Ok(())
    }
}
