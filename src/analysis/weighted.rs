//! Sums of rates weighted by time, exact.
//!
//! A mantissa of 28 digits over a month of microseconds needs 135 bits, and a usual one far fewer: sums are of 128 bits
//! and spill over into an integer of any size.
//!
//! **Invariant**: nothing is rounded and nothing overflows; memory grows with the kinds of places met, never with the
//! number of terms.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Zero as _;

use super::rounded_rate::{RoundedRate, at_places};

/// The sum of the mantissas of one count of places.
#[derive(Clone, Debug)]
struct Scale {
    places: i16,
    sum: u128,
    /// What did not fit.
    spilled: BigInt,
}

impl Scale {
    fn add(&mut self, mantissa: u128, weight: u64) {
        let term = match u64::try_from(mantissa) {
            // The usual one: such a product always fits.
            Ok(mantissa) => Some(u128::from(mantissa) * u128::from(weight)),
            Err(_) => mantissa.checked_mul(u128::from(weight)),
        };
        let sum = term.and_then(|term| self.sum.checked_add(term));
        if let Some(sum) = sum {
            self.sum = sum;
        } else {
            self.spilled += BigInt::from(mantissa) * weight;
        }
    }
}

/// A sum of rates, each times its weight.
#[derive(Clone, Debug, Default)]
pub(super) struct WeightedSum {
    /// One for each count of places met; a source keeps to one or two.
    scales: Vec<Scale>,
    /// Which was met last.
    last: usize,
}

impl WeightedSum {
    /// One more term.
    #[inline]
    pub(super) fn add(&mut self, rate: RoundedRate, weight: u64) {
        let places = rate.places();
        if self.scales.get(self.last).is_none_or(|scale| scale.places != places) {
            self.last = self.scales.iter().position(|scale| scale.places == places).unwrap_or_else(|| {
                self.scales.push(Scale { places, sum: 0, spilled: BigInt::zero() });
                self.scales.len() - 1
            });
        }
        if let Some(scale) = self.scales.get_mut(self.last) {
            scale.add(rate.mantissa(), weight);
        }
    }

    /// The places of all its terms, if they are the same.
    pub(super) fn places(&self) -> Option<i16> {
        match self.scales.as_slice() {
            [only] => Some(only.places),
            _ => None,
        }
    }

    /// The sum, exact.
    pub(super) fn total(self) -> BigRational {
        let scales = self.scales.into_iter().map(|scale| at_places(scale.spilled + scale.sum, scale.places));
        scales.reduce(|one, other| one + other).unwrap_or_else(BigRational::zero)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Rate;

    proptest! {
        #[test]
        fn sums_equal_those_of_exact_fractions(
            terms in prop::collection::vec(
                (prop_oneof![1..1_000_u128, 10_u128.pow(18)..10_u128.pow(20), 10_u128.pow(27)..10_u128.pow(28)], 8..=18_u32, 0..=u64::MAX),
                0..12,
            ),
        ) {
            let mut sum = WeightedSum::default();
            let mut expect = BigRational::zero();
            for (mantissa, places, weight) in terms {
                let rate = RoundedRate::published(Rate::from_parts(mantissa, places).unwrap());
                sum.add(rate, weight);
                expect += rate.value() * BigInt::from(weight);
            }
            prop_assert_eq!(sum.total(), expect);
        }
    }
}
