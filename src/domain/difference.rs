//! Rate differences: the movement of a rate in units of its quote currency, as the publisher printed it.

use std::fmt;

use rust_decimal::Decimal;
use thiserror::Error;

use super::digits::{DecimalError, Digits};
use super::rate::{Rate, signed};
use super::time::truncate_for_display;

/// The difference between the rate and the rate of the previous table, as the bank printed it next to the rate, in
/// units of the quote currency. The minus sign and the decimal places are kept; a plus sign is accepted and dropped.
///
/// A difference is not a percentage and is never converted to one. A [`super::ReportedChange`] is a printed percentage.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RateDifference {
    negative: bool,
    magnitude: Digits,
}

/// Why a text is not a valid difference, or why a difference cannot be converted to one unit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RateDifferenceError {
    /// The text is not a plain decimal with an optional sign, or has too many digits.
    #[error("difference '{text}' {problem}")]
    Decimal {
        /// The text, truncated for display.
        text: String,
        /// What is wrong with the text.
        problem: DecimalError,
    },
    /// The difference for one unit has more decimal places than a rate may have.
    #[error(
        "difference '{text}' is for a nominal of 10^{zeros}; for one unit, it has more than {} decimal places",
        Rate::PLACES_MAX
    )]
    PerUnit {
        /// The difference for the whole nominal.
        text: String,
        /// The number of zeros of the nominal.
        zeros: u8,
    },
}

impl RateDifference {
    /// Parses a plain decimal with an optional sign and at most as many digits as a [`Rate`].
    ///
    /// # Errors
    /// Returns `RateDifferenceError::Decimal`, which contains the text, if the text is not such a decimal or has too
    /// many digits.
    pub fn parse(text: &str) -> Result<Self, RateDifferenceError> {
        let (negative, digits) = signed(text);
        let magnitude = Digits::parse(digits, Rate::LIMITS)
            .map_err(|problem| RateDifferenceError::Decimal { text: truncate_for_display(text), problem })?;
        Ok(Self { negative, magnitude })
    }

    /// Converts the difference for `10^zeros` units to the difference for one unit. The decimal point moves, and every
    /// digit is kept.
    ///
    /// # Errors
    /// Returns `RateDifferenceError::PerUnit` if the result has more than [`Rate::PLACES_MAX`] decimal places.
    pub fn per_unit_of(self, zeros: u8) -> Result<Self, RateDifferenceError> {
        let places = self.magnitude.places().saturating_add(zeros);
        if places > Rate::PLACES_MAX {
            return Err(RateDifferenceError::PerUnit { text: self.to_string(), zeros });
        }
        Ok(Self { magnitude: Digits::new(self.magnitude.mantissa(), places), ..self })
    }

    /// Returns true if the difference was printed with a minus sign.
    pub const fn is_negative(self) -> bool {
        self.negative
    }

    /// Returns the difference without its sign.
    pub const fn magnitude(self) -> Decimal {
        self.magnitude.decimal()
    }
}

impl fmt::Display for RateDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        fmt::Display::fmt(&self.magnitude, f)
    }
}

impl fmt::Debug for RateDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_keeps_its_sign_and_digits_when_divided_by_a_nominal() {
        let check = |text: &str, zeros, expect: &str| {
            let difference = RateDifference::parse(text).and_then(|difference| difference.per_unit_of(zeros));
            let answer = difference.map_or_else(|error| error.to_string(), |difference| difference.to_string());
            assert_eq!(answer, expect, "{text}");
        };
        check("-16.5", 0, "-16.5");
        check("108.25", 0, "108.25");
        check("+1.07", 0, "1.07");
        check("-0.02", 2, "-0.0002");
        check("0", 1, "0.0");
        check("-0.00", 0, "-0.00");
        check(
            "0.1",
            18,
            "difference '0.1' is for a nominal of 10^18; for one unit, it has more than 18 decimal places",
        );
        let malformed = "is not a plain decimal; write digits with at most one point, like 0.01144";
        for bad in ["", "-", "1,5", "--1", "1e3", "5%"] {
            check(bad, 0, &format!("difference '{bad}' {malformed}"));
        }
    }
}
