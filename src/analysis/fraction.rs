//! Arithmetic with fractions that are not reduced: the results are only compared and rounded, and to reduce them would
//! cost more than all of that.
//!
//! **Invariant**: denominators are positive, and results are exact.

use num_bigint::BigInt;
use num_rational::BigRational;

/// Returns `one + other`.
pub(super) fn sum(one: &BigRational, other: &BigRational) -> BigRational {
    let numer = one.numer() * other.denom() + other.numer() * one.denom();
    BigRational::new_raw(numer, one.denom() * other.denom())
}

/// Returns `one - other`.
pub(super) fn difference(one: &BigRational, other: &BigRational) -> BigRational {
    let numer = one.numer() * other.denom() - other.numer() * one.denom();
    BigRational::new_raw(numer, one.denom() * other.denom())
}

/// Returns `one / other`; `other` must be positive.
pub(super) fn quotient(one: &BigRational, other: &BigRational) -> BigRational {
    BigRational::new_raw(one.numer() * other.denom(), one.denom() * other.numer())
}

/// Returns `factor * fraction`.
pub(super) fn multiple(factor: &BigInt, fraction: &BigRational) -> BigRational {
    BigRational::new_raw(factor * fraction.numer(), fraction.denom().clone())
}

#[cfg(test)]
mod tests {
    use num_traits::Signed as _;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn results_equal_those_of_reduced_fractions(
            a in any::<i64>(), b in 1..i64::MAX, c in 1..i64::MAX, d in 1..i64::MAX, factor in any::<i64>(),
        ) {
            let (one, other) = (BigRational::new(a.into(), b.into()), BigRational::new(c.into(), d.into()));
            let results = [
                (sum(&one, &other), &one + &other),
                (difference(&one, &other), &one - &other),
                (quotient(&one, &other), &one / &other),
                (multiple(&factor.into(), &one), &one * BigInt::from(factor)),
            ];
            for (result, expect) in results {
                prop_assert!(result.denom().is_positive());
                prop_assert_eq!(result, expect);
            }
        }
    }
}
