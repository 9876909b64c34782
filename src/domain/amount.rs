//! Amounts of money, as exact decimals.
//!
//! **Invariant**: an [`Amount`] is not negative, and has the same digit limits as a [`Rate`](super::Rate).

use std::fmt;

use rust_decimal::Decimal;
use thiserror::Error;

use super::digits::{DecimalError, DigitLimits, Digits};
use super::time::truncate_for_display;

/// An exact, non-negative number of units of a currency, with the decimal places that the user wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Amount(Digits);

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AmountError {
    /// The text is not a plain decimal, or has too many digits.
    #[error("amount '{text}' {problem}")]
    Decimal {
        /// The text, truncated for display.
        text: String,
        /// What is wrong with the text.
        problem: DecimalError,
    },
    /// The amount has a minus sign.
    #[error("amount '{0}' is negative; give it without the sign")]
    Negative(String),
}

impl Amount {
    /// Largest number of digits after the decimal point.
    pub const PLACES_MAX: u8 = 18;
    /// Largest number of digits before the decimal point.
    pub const INTEGER_DIGITS_MAX: u8 = 20;
    /// Largest number of digits in total.
    pub const DIGITS_MAX: u8 = 28;

    const LIMITS: DigitLimits =
        DigitLimits { places: Self::PLACES_MAX, integer: Self::INTEGER_DIGITS_MAX, total: Self::DIGITS_MAX };

    /// Parses a plain decimal: no sign, no exponent, no spaces, no thousands separators.
    ///
    /// # Errors
    /// Returns an [`AmountError`], which contains the text, if the text is not a valid amount.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        Digits::parse(text, Self::LIMITS).map(Self).map_err(|problem| match text.strip_prefix('-') {
            Some(rest) if rest.starts_with(|first: char| first.is_ascii_digit()) => {
                AmountError::Negative(truncate_for_display(text))
            }
            _ => AmountError::Decimal { text: truncate_for_display(text), problem },
        })
    }

    /// The digits of the number as an integer, without the decimal point.
    pub const fn mantissa(self) -> u128 {
        self.0.mantissa()
    }

    /// The number of digits after the decimal point, as written.
    pub const fn places(self) -> u8 {
        self.0.places()
    }
}

impl From<Amount> for Decimal {
    /// Converts the amount with all its decimal places.
    fn from(amount: Amount) -> Self {
        amount.0.decimal()
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amount_is_a_plain_decimal_of_at_most_28_digits() {
        let check = |text: &str, expect: &str| {
            let answer = Amount::parse(text).map_or_else(|error| error.to_string(), |amount| amount.to_string());
            assert!(answer.contains(expect), "{text}: {answer}");
        };
        check("100", "100");
        check("0.50", "0.50");
        check("0", "0");
        check("12345678901234567890.12345678", "12345678901234567890.12345678");
        check("-5", "amount '-5' is negative");
        check("1e3", "not a plain decimal");
        check("1,000", "not a plain decimal");
        check("", "not a plain decimal");
        check("1.2345678901234567890", "19 decimal places");
        check("123456789012345678901", "21 digits before the point");
        check("12345678901234567890.123456789", "29 digits in total");
    }
}
