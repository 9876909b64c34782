//! What rates say when put together: derived rates, percent changes, and how exact either is.
//!
//! **Invariant**: pure arithmetic over exact fractions. Nothing here reads a clock, does I/O or holds a float, and the
//! one rounding of an answer is the one that makes its text.

mod change;
mod derived;
mod rounding;

pub use change::{DECIMAL_PLACES_DEFAULT, DECIMAL_PLACES_MAX, PercentChange, absolute_change};
pub use derived::Derived;
pub use rounding::{Rounding, SIGNIFICANT_DIGITS, fixed, significant};
