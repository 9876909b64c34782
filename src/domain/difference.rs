//! How far a rate moved, in units of its quote, as its publisher printed it.

use std::fmt;

use rust_decimal::Decimal;
use thiserror::Error;

use super::digits::{DecimalError, Digits};
use super::rate::{Rate, signed};
use super::time::truncate_for_display;

/// The difference from the table before that a bank printed beside its rate: units of quote, sign and places kept,
/// a plus sign read and not kept. It is no percentage, and none is made of it: a [`super::ReportedChange`] is what
/// was printed as one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RateDifference {
    negative: bool,
    magnitude: Digits,
}

/// Why something is no difference.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RateDifferenceError {
    /// Not a plain decimal with an optional sign, or one with too many digits.
    #[error("difference '{text}' {problem}")]
    Decimal {
        /// As given, clipped.
        text: String,
        /// What is wrong with it.
        problem: DecimalError,
    },
    /// The difference of one unit has more places than a rate.
    #[error("difference '{text}' for a nominal of 10^{zeros} has over {} places for one unit", Rate::PLACES_MAX)]
    Shifted {
        /// Before the shift.
        text: String,
        /// Of the nominal.
        zeros: u8,
    },
}

impl RateDifference {
    /// Reads a plain decimal with an optional sign, within the limits of a rate's digits.
    ///
    /// # Errors
    /// `Decimal`, naming the text.
    pub fn parse(text: &str) -> Result<Self, RateDifferenceError> {
        let (negative, digits) = signed(text);
        let magnitude = Digits::parse(digits, Rate::LIMITS)
            .map_err(|problem| RateDifferenceError::Decimal { text: truncate_for_display(text), problem })?;
        Ok(Self { negative, magnitude })
    }

    /// The difference of one unit, of that of `10^zeros` units: the point moves, and every digit stays.
    ///
    /// # Errors
    /// `Shifted`.
    pub fn per_unit_of(self, zeros: u8) -> Result<Self, RateDifferenceError> {
        let places = self.magnitude.places().saturating_add(zeros);
        if places > Rate::PLACES_MAX {
            return Err(RateDifferenceError::Shifted { text: self.to_string(), zeros });
        }
        Ok(Self { magnitude: Digits::new(self.magnitude.mantissa(), places), ..self })
    }

    /// Whether a minus sign was printed.
    pub const fn is_negative(self) -> bool {
        self.negative
    }

    /// Without its sign.
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
    fn differences_keep_sign_and_digits_through_a_nominal() {
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
        check("0.1", 18, "difference '0.1' for a nominal of 10^18 has over 18 places for one unit");
        let malformed = "is not a plain decimal; write digits with at most one point, like 0.01144";
        for bad in ["", "-", "1,5", "--1", "1e3", "5%"] {
            check(bad, 0, &format!("difference '{bad}' {malformed}"));
        }
    }
}
