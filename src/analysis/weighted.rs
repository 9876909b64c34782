//! Exact sums of rates weighted by time.
//!
//! The product of a mantissa of 28 digits and the microseconds of a month needs 135 bits. The usual products need far
//! fewer bits, so a sum has 128 bits. A term that does not fit is added to a big integer.
//!
//! **Invariant**: nothing is rounded and nothing overflows. There is one `Scale` for all terms with the same number of
//! decimal places. Memory grows with the number of scales, not with the number of terms.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Zero as _;

use super::fraction::sum;
use super::rounded_rate::{RoundedRate, at_places};

/// The weighted sum of the mantissas that have the same number of places.
#[derive(Clone, Debug)]
struct Scale {
    places: i16,
    sum: u128,
    /// The sum of the terms that did not fit in `sum`.
    overflow: BigInt,
}

impl Scale {
    fn add(&mut self, mantissa: u128, weight: u64) {
        let term = match u64::try_from(mantissa) {
            // The usual case: a product of two 64-bit numbers always fits.
            Ok(mantissa) => Some(u128::from(mantissa) * u128::from(weight)),
            Err(_) => mantissa.checked_mul(u128::from(weight)),
        };
        let sum = term.and_then(|term| self.sum.checked_add(term));
        if let Some(sum) = sum {
            self.sum = sum;
        } else {
            self.overflow += BigInt::from(mantissa) * weight;
        }
    }
}

/// A sum of rates, each multiplied by its weight.
#[derive(Clone, Debug, Default)]
pub(super) struct WeightedSum {
    /// One scale for each number of places. A source usually needs only one or two scales.
    scales: Vec<Scale>,
    /// The index of the scale of the last term.
    last: usize,
}

impl WeightedSum {
    /// Adds `rate` times `weight`.
    #[inline]
    pub(super) fn add(&mut self, rate: RoundedRate, weight: u64) {
        let places = rate.places();
        if self.scales.get(self.last).is_none_or(|scale| scale.places != places) {
            self.last = self.scales.iter().position(|scale| scale.places == places).unwrap_or_else(|| {
                self.scales.push(Scale { places, sum: 0, overflow: BigInt::zero() });
                self.scales.len() - 1
            });
        }
        if let Some(scale) = self.scales.get_mut(self.last) {
            scale.add(rate.mantissa(), weight);
        }
    }

    /// Returns the number of places of the terms, or `None` if the terms have different numbers of places.
    pub(super) fn places(&self) -> Option<i16> {
        match self.scales.as_slice() {
            [only] => Some(only.places),
            _ => None,
        }
    }

    /// Returns the exact sum.
    pub(super) fn total(self) -> BigRational {
        let scales = self.scales.into_iter().map(|scale| at_places(scale.overflow + scale.sum, scale.places));
        scales.reduce(|one, other| sum(&one, &other)).unwrap_or_else(BigRational::zero)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Rate;

    fn mantissas() -> impl Strategy<Value = u128> {
        prop_oneof![1..1_000_u128, 10_u128.pow(18)..10_u128.pow(20), 10_u128.pow(27)..10_u128.pow(28)]
    }

    proptest! {
        #[test]
        fn sum_equals_the_sum_of_exact_fractions(
            terms in prop::collection::vec((mantissas(), 8..=18_u32, 0..=u64::MAX), 0..12),
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
