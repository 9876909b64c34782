//! Inverse and cross rates: rates of pairs that no source publishes, derived from published rates.
//!
//! The rate of a cross is the product of two factors: the units of a third currency for one unit of base, and the units
//! of quote for one unit of the third currency. Each factor is the rate of a leg: a published rate, or the inverse of a
//! published rate.
//!
//! **Invariant**: the bounds of a derived rate come from the bounds of its legs. All legs are positive, so the smallest
//! product is the product of the smallest factors.

use std::cmp::Ordering;

use num_bigint::BigInt;

use super::derived::Derived;
use super::rounded_rate::RoundedRate;
use super::rounding::Rounding;
use crate::domain::{Rate, Timestamp};

/// The legs of a pair: one series, or two series through a third currency.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Legs<T> {
    /// The pair or its inverse is published.
    One(T),
    /// The first leg goes from base to the third currency, and the second from the third currency to quote.
    Two(T, T),
}

impl<T> Legs<T> {
    /// Returns the legs in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (first, second) = match self {
            Self::One(only) => (only, None),
            Self::Two(first, second) => (first, Some(second)),
        };
        std::iter::once(first).chain(second)
    }

    /// Applies `convert` to each leg.
    ///
    /// # Errors
    /// Returns the first error of `convert`.
    pub fn try_map<'a, U, E>(&'a self, mut convert: impl FnMut(&'a T) -> Result<U, E>) -> Result<Legs<U>, E> {
        Ok(match self {
            Self::One(only) => Legs::One(convert(only)?),
            Self::Two(first, second) => Legs::Two(convert(first)?, convert(second)?),
        })
    }

    /// Applies `convert` to each leg.
    pub fn map<U>(&self, mut convert: impl FnMut(&T) -> U) -> Legs<U> {
        match self {
            Self::One(only) => Legs::One(convert(only)),
            Self::Two(first, second) => Legs::Two(convert(first), convert(second)),
        }
    }
}

/// Selects a rate itself or one of its bounds. The true rate lies between the bounds, ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RateBound {
    /// The lower bound: half a unit in the last place below the published rate.
    Low,
    /// The published rate.
    Value,
    /// The upper bound: half a unit in the last place above the published rate.
    High,
}

impl RateBound {
    const fn inverse(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::Value => Self::Value,
            Self::High => Self::Low,
        }
    }

    /// Returns how this bound is rounded: bounds outward, values half-even.
    const fn rounding(self) -> Rounding {
        match self {
            Self::Low => Rounding::Down,
            Self::Value => Rounding::HalfEven,
            Self::High => Rounding::Up,
        }
    }
}

/// The rate of a leg: a published rate, or the inverse of a published rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LegRate {
    /// The published rate.
    pub rate: Rate,
    /// Whether the rate of the leg is the inverse of the published rate.
    pub inverted: bool,
}

impl LegRate {
    fn derived(self) -> Derived {
        let published = Derived::direct(self.rate);
        if self.inverted { published.inverse() } else { published }
    }

    /// Returns the numerator and the denominator of a bound.
    fn fraction(self, bound: RateBound) -> (u128, u128) {
        let (mantissa, unit) = (self.rate.mantissa(), 10_u128.pow(u32::from(self.rate.places())));
        let (numer, denom) = match if self.inverted { bound.inverse() } else { bound } {
            RateBound::Value => (mantissa, unit),
            // A rate has at most 28 digits and 18 places, so ten times the mantissa and the unit fit in 128 bits.
            RateBound::Low => (mantissa * 10 - 5, unit * 10),
            RateBound::High => (mantissa * 10 + 5, unit * 10),
        };
        if self.inverted { (denom, numer) } else { (numer, denom) }
    }
}

impl Legs<LegRate> {
    /// Returns the exact rate with its exact bounds.
    pub fn derived(&self) -> Derived {
        match self {
            Self::One(only) => only.derived(),
            Self::Two(first, second) => first.derived().times(&second.derived()),
        }
    }

    /// Compares two rates of the same pair as numbers, with the digits of an answer.
    pub fn cmp_number(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::One(one), Self::One(other)) if one.inverted == other.inverted => {
                let order = RoundedRate::published(one.rate).cmp_number(RoundedRate::published(other.rate));
                if one.inverted { order.reverse() } else { order }
            }
            _ => self.rounded(RateBound::Value).cmp_number(other.rounded(RateBound::Value)),
        }
    }

    /// Returns the rate or a bound with the digits of an answer: the published digits, or 15 significant digits. A
    /// bound of a published rate is exact. A bound of a derived rate is rounded outward.
    #[inline]
    pub fn rounded(&self, bound: RateBound) -> RoundedRate {
        match *self {
            Self::One(LegRate { rate, inverted: false }) => match bound {
                RateBound::Value => RoundedRate::published(rate),
                RateBound::Low => RoundedRate::published(rate).half_unit_below(),
                RateBound::High => RoundedRate::published(rate).half_unit_above(),
            },
            Self::One(only) => {
                let (numer, denom) = only.fraction(bound);
                quotient([numer, 1], [denom, 1], bound.rounding())
            }
            Self::Two(first, second) => {
                let ((a, b), (c, d)) = (first.fraction(bound), second.fraction(bound));
                quotient([a, c], [b, d], bound.rounding())
            }
        }
    }
}

/// Divides the product of `numers` by the product of `denoms`, with 15 significant digits. Uses 128-bit arithmetic if
/// the products fit, else big integers.
fn quotient(numers: [u128; 2], denoms: [u128; 2], rounding: Rounding) -> RoundedRate {
    let fast = |[a, b]: [u128; 2]| a.checked_mul(b);
    let exact = |[a, b]: [u128; 2]| BigInt::from(a) * BigInt::from(b);
    fast(numers)
        .zip(fast(denoms))
        .and_then(|(numer, denom)| RoundedRate::quotient_u128(numer, denom, rounding))
        .unwrap_or_else(|| RoundedRate::quotient(&exact(numers), &exact(denoms), rounding))
}

/// The rate of one run of a leg.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LegInterval {
    /// The first observed time of the run.
    pub from: Timestamp,
    /// The last observed time of the run, inclusive.
    pub confirmed_until: Timestamp,
    /// The rate of the run.
    pub rate: LegRate,
}

/// A rate of a pair that is in force until the next rate interval begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateInterval {
    /// The time at which the rate came into force.
    pub from: Timestamp,
    /// The last observed time of the run that the rate is derived from, inclusive. For a cross, the later one of the
    /// last observed times of both runs.
    pub confirmed_until: Timestamp,
    /// The rate, rounded as in an answer.
    pub rate: RoundedRate,
}

impl RateInterval {
    /// Creates the rate interval of a pair with one leg.
    #[inline]
    pub fn of(LegInterval { from, confirmed_until, rate }: LegInterval, bound: RateBound) -> Self {
        Self { from, confirmed_until, rate: Legs::One(rate).rounded(bound) }
    }
}

/// The rates of the legs of a pair that are in force until the next interval begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LegsInterval {
    /// The time at which the rates came into force.
    pub from: Timestamp,
    /// The last observed time of the run that the rate is derived from, inclusive. For a cross, the later one of the
    /// last observed times of both runs.
    pub confirmed_until: Timestamp,
    /// The rates of the legs.
    pub rates: Legs<LegRate>,
}

impl LegsInterval {
    /// Creates the interval of a pair with one leg.
    #[inline]
    pub fn of(LegInterval { from, confirmed_until, rate }: LegInterval) -> Self {
        Self { from, confirmed_until, rates: Legs::One(rate) }
    }
}

/// The intervals of both legs of a cross. The first interval begins when both legs have a rate. After that, an interval
/// begins whenever a run of a leg begins.
pub struct MergedLegs<A: Iterator, B: Iterator> {
    first: std::iter::Peekable<A>,
    second: std::iter::Peekable<B>,
    in_force: (Option<LegInterval>, Option<LegInterval>),
}

impl<A: Iterator, B: Iterator> MergedLegs<A, B> {
    /// Merges two legs, each in order of time.
    pub fn new(first: A, second: B) -> Self {
        Self { first: first.peekable(), second: second.peekable(), in_force: (None, None) }
    }
}

/// The rate intervals of a cross, one for each interval of [`MergedLegs`].
pub struct Merged<A: Iterator, B: Iterator> {
    legs: MergedLegs<A, B>,
    bound: RateBound,
}

impl<A: Iterator, B: Iterator> Merged<A, B> {
    /// Merges two legs, each in order of time.
    pub fn new(first: A, second: B, bound: RateBound) -> Self {
        Self { legs: MergedLegs::new(first, second), bound }
    }
}

impl<A, B, E> Iterator for Merged<A, B>
where
    A: Iterator<Item = Result<LegInterval, E>>,
    B: Iterator<Item = Result<LegInterval, E>>,
{
    type Item = Result<RateInterval, E>;

    fn next(&mut self) -> Option<Self::Item> {
        let interval = self.legs.next()?;
        Some(interval.map(|LegsInterval { from, confirmed_until, rates }| RateInterval {
            from,
            confirmed_until,
            rate: rates.rounded(self.bound),
        }))
    }
}

/// Returns the time at which the next run of a leg begins. For an error, returns the earliest time, so that the error
/// is taken before all runs.
fn next_time<E>(leg: &mut std::iter::Peekable<impl Iterator<Item = Result<LegInterval, E>>>) -> Option<Timestamp> {
    leg.peek().map(|next| next.as_ref().map_or(Timestamp::from_micros(i64::MIN), |interval| interval.from))
}

impl<A, B, E> Iterator for MergedLegs<A, B>
where
    A: Iterator<Item = Result<LegInterval, E>>,
    B: Iterator<Item = Result<LegInterval, E>>,
{
    type Item = Result<LegsInterval, E>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (first, second) = (next_time(&mut self.first), next_time(&mut self.second));
            let from = [first, second].into_iter().flatten().min()?;
            if first == Some(from) {
                match self.first.next()? {
                    Ok(interval) => self.in_force.0 = Some(interval),
                    Err(error) => return Some(Err(error)),
                }
            }
            if second == Some(from) {
                match self.second.next()? {
                    Ok(interval) => self.in_force.1 = Some(interval),
                    Err(error) => return Some(Err(error)),
                }
            }
            if let (Some(first), Some(second)) = self.in_force {
                // Both runs began at or before `from`, so the rate is confirmed as long as one of the two runs lasts.
                return Some(Ok(LegsInterval {
                    from,
                    confirmed_until: first.confirmed_until.max(second.confirmed_until),
                    rates: Legs::Two(first.rate, second.rate),
                }));
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::convert::Infallible;

    use num_rational::BigRational;
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::Rounded;

    pub(in crate::analysis) fn leg(text: &str, inverted: bool) -> LegRate {
        LegRate { rate: Rate::parse(text).unwrap(), inverted }
    }

    #[test]
    fn cross_has_the_bounds_of_its_legs() {
        let check = |legs: Legs<LegRate>, expect: [&str; 3]| {
            let derived = legs.derived();
            assert_eq!([derived.rounded_low(), derived.rounded_value(), derived.rounded_high()], expect);
            assert_eq!(
                [RateBound::Low, RateBound::Value, RateBound::High].map(|bound| legs.rounded(bound).to_string()),
                expect
            );
        };
        // KGS/KZT from KGS/USD and KZT/USD: 0.01144 / 0.00196, and 0.011435 / 0.001965 to 0.011445 / 0.001955.
        check(
            Legs::Two(leg("0.01144", false), leg("0.00196", true)),
            ["5.81933842239185", "5.83673469387755", "5.85421994884911"],
        );
        // With USD/KGS instead of KGS/USD: 1 / (87.4 * 0.00196).
        check(
            Legs::Two(leg("87.4", true), leg("0.00196", true)),
            ["5.81939225177018", "5.83757530472143", "5.85585519641271"],
        );
        // With USD/KGS and USD/KZT: 510.20 / 87.4.
        check(
            Legs::Two(leg("87.4", true), leg("510.20", false)),
            ["5.83413379073756", "5.83752860411899", "5.84092730394963"],
        );
        // One leg: a published rate keeps its digits, and an inverse has 15 significant digits.
        check(Legs::One(leg("0.28490", false)), ["0.284895", "0.28490", "0.284905"]);
        check(Legs::One(leg("0.00008", true)), ["11764.7058823529", "12500", "13333.3333333334"]);
        check(Legs::Two(leg("2", false), leg("8", true)), ["0.176470588235294", "0.25", "0.333333333333334"]);
    }

    #[test]
    fn rates_of_a_pair_are_compared_as_numbers() {
        let check = |one: Legs<LegRate>, other: Legs<LegRate>, expect: Ordering| {
            assert_eq!((one.cmp_number(&other), other.cmp_number(&one)), (expect, expect.reverse()));
        };
        let one = |text: &str, inverted: bool| Legs::One(leg(text, inverted));
        check(one("0.5", false), one("0.50", false), Ordering::Equal);
        check(one("87.4", false), one("87.5", false), Ordering::Less);
        check(one("87.4", true), one("87.5", true), Ordering::Greater);
        check(one("4", true), one("0.25", false), Ordering::Equal);
        let cross = |first: &str, second: &str| Legs::Two(leg(first, false), leg(second, true));
        check(cross("0.01144", "0.00196"), cross("0.01145", "0.00196"), Ordering::Less);
        check(cross("0.01144", "0.00196"), cross("0.01144", "0.00195"), Ordering::Less);
        check(cross("2", "4"), cross("3", "6"), Ordering::Equal);
    }

    fn rates() -> impl Strategy<Value = Rate> {
        (prop_oneof![1..200_u128, 1..10_u128.pow(10), 1..10_u128.pow(20)], 0..=18_u32)
            .prop_map(|(mantissa, places)| Rate::from_parts(mantissa, places).unwrap())
    }

    fn legs() -> impl Strategy<Value = Legs<LegRate>> {
        let leg = || (rates(), any::<bool>()).prop_map(|(rate, inverted)| LegRate { rate, inverted });
        prop_oneof![leg().prop_map(Legs::One), (leg(), leg()).prop_map(|(first, second)| Legs::Two(first, second))]
    }

    proptest! {
        #[test]
        fn bounds_contain_the_cross_of_any_true_rates(legs in legs(), x in 0..=10_u32, y in 0..=10_u32) {
            let derived = legs.derived();
            let within = |leg: &LegRate, tenths: u32| {
                let published = Derived::direct(leg.rate);
                let part = BigRational::new(tenths.into(), 10.into());
                let real = published.low() + (published.high() - published.low()) * part;
                if leg.inverted { real.recip() } else { real }
            };
            let real = legs.iter().zip([x, y]).map(|(leg, tenths)| within(leg, tenths)).reduce(|a, b| a * b).unwrap();
            prop_assert!(derived.low() <= real && real <= derived.high());
            let text = |number: Rounded| super::super::derived::tests::exact(&number.to_string());
            prop_assert!(text(derived.rounded_low()) <= real && real <= text(derived.rounded_high()));
            let numbers = [derived.rounded_low(), derived.rounded_value(), derived.rounded_high()];
            let bounds = [RateBound::Low, RateBound::Value, RateBound::High];
            prop_assert_eq!(bounds.map(|bound| legs.rounded(bound).rounded()), numbers);
        }

        #[test]
        fn merged_intervals_equal_the_legs_at_every_instant(
            first in prop::collection::btree_map(0..40_i64, (1..5_u128, 0..10_i64), 0..8),
            second in prop::collection::btree_map(0..40_i64, (1..5_u128, 0..10_i64), 0..8),
        ) {
            let intervals = |leg: &std::collections::BTreeMap<i64, (u128, i64)>, inverted: bool| {
                let ends: Vec<i64> = leg.keys().skip(1).copied().chain([i64::MAX]).collect();
                leg.iter().zip(ends).map(|((from, (mantissa, span)), end)| LegInterval {
                    from: Timestamp::from_micros(*from),
                    confirmed_until: Timestamp::from_micros((from + span).min(end - 1)),
                    rate: LegRate { rate: Rate::from_parts(*mantissa, 1).unwrap(), inverted },
                }).collect::<Vec<_>>()
            };
            let (a, b) = (intervals(&first, false), intervals(&second, true));
            let ok = |interval: &LegInterval| Ok::<_, Infallible>(*interval);
            let merged = Merged::new(a.iter().map(ok), b.iter().map(ok), RateBound::Value);
            let merged: Vec<RateInterval> = merged.map(|Ok(interval)| interval).collect();
            prop_assert!(merged.windows(2).all(|pair| pair[0].from < pair[1].from));
            for time in (0..50).map(Timestamp::from_micros) {
                let at = |leg: &[LegInterval]| leg.iter().rev().find(|interval| interval.from <= time).copied();
                let expect = at(&a).zip(at(&b)).map(|(a, b)| {
                    let is_confirmed = time <= a.confirmed_until || time <= b.confirmed_until;
                    (Legs::Two(a.rate, b.rate).rounded(RateBound::Value), is_confirmed)
                });
                let found = merged.iter().rev().find(|interval| interval.from <= time);
                let found = found.map(|interval| (interval.rate, time <= interval.confirmed_until));
                prop_assert_eq!(found, expect);
            }
        }
    }
}
