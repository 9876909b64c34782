//! Inverse and cross rates: what published rates say of a pair that nobody publishes.
//!
//! A cross goes through one currency: units of it for one unit of base, times units of quote for one unit of it. Each
//! factor is a leg, a published rate or one over it.
//!
//! **Invariant**: a derived rate takes the extremes of its legs. Legs are positive, so that the least product is that
//! of the least factors.

use num_bigint::BigInt;

use super::derived::Derived;
use super::rounded_rate::RoundedRate;
use super::rounding::Rounding;
use crate::domain::{Rate, Timestamp};

/// What a pair comes from: one series, or two through a third currency.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Legs<T> {
    /// Published for the pair or for its inverse.
    One(T),
    /// From base to the currency between, and from there to quote.
    Two(T, T),
}

impl<T> Legs<T> {
    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (first, second) = match self {
            Self::One(only) => (only, None),
            Self::Two(first, second) => (first, Some(second)),
        };
        std::iter::once(first).chain(second)
    }

    /// Each of them turned into something else.
    ///
    /// # Errors
    /// The first of `turn`.
    pub fn try_map<'a, U, E>(&'a self, mut turn: impl FnMut(&'a T) -> Result<U, E>) -> Result<Legs<U>, E> {
        Ok(match self {
            Self::One(only) => Legs::One(turn(only)?),
            Self::Two(first, second) => Legs::Two(turn(first)?, turn(second)?),
        })
    }

    /// Each of them turned into something else.
    pub fn map<U>(&self, mut turn: impl FnMut(&T) -> U) -> Legs<U> {
        match self {
            Self::One(only) => Legs::One(turn(only)),
            Self::Two(first, second) => Legs::Two(turn(first), turn(second)),
        }
    }
}

/// Which of the numbers that a published rate may stand for is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RateBound {
    /// The least: half a unit in the last place below.
    Low,
    /// The one published.
    Value,
    /// The largest: half a unit in the last place above.
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

    /// The way in which digits that do not fit go: outward.
    const fn rounding(self) -> Rounding {
        match self {
            Self::Low => Rounding::Down,
            Self::Value => Rounding::HalfEven,
            Self::High => Rounding::Up,
        }
    }
}

/// A published rate, and which way it is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LegRate {
    /// As published.
    pub rate: Rate,
    /// Whether one over it is meant.
    pub inverted: bool,
}

impl LegRate {
    fn derived(self) -> Derived {
        let published = Derived::direct(self.rate);
        if self.inverted { published.inverse() } else { published }
    }

    /// Above and below the fraction line.
    fn fraction(self, bound: RateBound) -> (u128, u128) {
        let (mantissa, unit) = (self.rate.mantissa(), 10_u128.pow(u32::from(self.rate.places())));
        let (numer, denom) = match if self.inverted { bound.inverse() } else { bound } {
            RateBound::Value => (mantissa, unit),
            // At most 28 digits and 18 places: ten times as many still fit.
            RateBound::Low => (mantissa * 10 - 5, unit * 10),
            RateBound::High => (mantissa * 10 + 5, unit * 10),
        };
        if self.inverted { (denom, numer) } else { (numer, denom) }
    }
}

impl Legs<LegRate> {
    /// The rate with its bounds, exact.
    pub fn derived(&self) -> Derived {
        match self {
            Self::One(only) => only.derived(),
            Self::Two(first, second) => first.derived().times(&second.derived()),
        }
    }

    /// The rate as answered: published digits, or 15 significant ones. A bound is exact where published, and else
    /// rounded outward.
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

/// The product of `above` over that of `below`, to 15 significant digits.
fn quotient(above: [u128; 2], below: [u128; 2], rounding: Rounding) -> RoundedRate {
    let quick = |[a, b]: [u128; 2]| a.checked_mul(b);
    let exact = |[a, b]: [u128; 2]| BigInt::from(a) * BigInt::from(b);
    quick(above)
        .zip(quick(below))
        .and_then(|(numer, denom)| RoundedRate::quotient_u128(numer, denom, rounding))
        .unwrap_or_else(|| RoundedRate::quotient(&exact(above), &exact(below), rounding))
}

/// A run of a leg: when its rate came into force, and until when it was confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LegInterval {
    /// First observation.
    pub from: Timestamp,
    /// Last observation, inclusive.
    pub seen_until: Timestamp,
    /// Its rate.
    pub rate: LegRate,
}

/// One rate in force, until the next rate interval begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateInterval {
    /// When it came into force.
    pub from: Timestamp,
    /// Until when a run behind it was confirmed, inclusive; at or after `from`.
    pub seen_until: Timestamp,
    /// As answered.
    pub rate: RoundedRate,
}

impl RateInterval {
    /// Of a pair that one leg makes.
    #[inline]
    pub fn of(LegInterval { from, seen_until, rate }: LegInterval, bound: RateBound) -> Self {
        Self { from, seen_until, rate: Legs::One(rate).rounded(bound) }
    }
}

/// The rate intervals of a cross, at the points where either leg changes, from where both legs are there.
pub struct Merged<A: Iterator, B: Iterator> {
    first: std::iter::Peekable<A>,
    second: std::iter::Peekable<B>,
    in_force: (Option<LegInterval>, Option<LegInterval>),
    bound: RateBound,
}

impl<A: Iterator, B: Iterator> Merged<A, B> {
    /// Of two legs, each in order of time.
    pub fn new(first: A, second: B, bound: RateBound) -> Self {
        Self { first: first.peekable(), second: second.peekable(), in_force: (None, None), bound }
    }
}

/// When the next run of a leg begins; a broken leg is met at once.
fn next_time<E>(leg: &mut std::iter::Peekable<impl Iterator<Item = Result<LegInterval, E>>>) -> Option<Timestamp> {
    leg.peek().map(|next| next.as_ref().map_or(Timestamp::from_micros(i64::MIN), |interval| interval.from))
}

impl<A, B, E> Iterator for Merged<A, B>
where
    A: Iterator<Item = Result<LegInterval, E>>,
    B: Iterator<Item = Result<LegInterval, E>>,
{
    type Item = Result<RateInterval, E>;

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
                let rate = Legs::Two(first.rate, second.rate).rounded(self.bound);
                // Both runs began by now, so their spans together reach from here to the later end.
                return Some(Ok(RateInterval { from, seen_until: first.seen_until.max(second.seen_until), rate }));
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
    fn a_cross_has_the_bounds_of_its_legs() {
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
        // The same where a bank quotes USD/KGS: 1 / (87.4 * 0.00196).
        check(
            Legs::Two(leg("87.4", true), leg("0.00196", true)),
            ["5.81939225177018", "5.83757530472143", "5.85585519641271"],
        );
        // Where both are quoted the other way: 510.20 / 87.4.
        check(
            Legs::Two(leg("87.4", true), leg("510.20", false)),
            ["5.83413379073756", "5.83752860411899", "5.84092730394963"],
        );
        // One leg: a published rate keeps its digits, an inverse has fifteen.
        check(Legs::One(leg("0.28490", false)), ["0.284895", "0.28490", "0.284905"]);
        check(Legs::One(leg("0.00008", true)), ["11764.7058823529", "12500", "13333.3333333334"]);
        check(Legs::Two(leg("2", false), leg("8", true)), ["0.176470588235294", "0.25", "0.333333333333334"]);
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
        fn bounds_hold_every_true_value_of_the_legs(legs in legs(), x in 0..=10_u32, y in 0..=10_u32) {
            let derived = legs.derived();
            let within = |leg: &LegRate, tenths: u32| {
                let published = Derived::direct(leg.rate);
                let part = BigRational::new(tenths.into(), 10.into());
                let real = published.low() + (published.high() - published.low()) * part;
                if leg.inverted { real.recip() } else { real }
            };
            let real = legs.iter().zip([x, y]).map(|(leg, tenths)| within(leg, tenths)).reduce(|a, b| a * b).unwrap();
            prop_assert!(derived.low() <= &real && &real <= derived.high());
            let text = |number: Rounded| super::super::derived::tests::exact(&number.to_string());
            prop_assert!(text(derived.rounded_low()) <= real && real <= text(derived.rounded_high()));
            let numbers = [derived.rounded_low(), derived.rounded_value(), derived.rounded_high()];
            prop_assert_eq!([RateBound::Low, RateBound::Value, RateBound::High].map(|bound| legs.rounded(bound).rounded()), numbers);
        }

        #[test]
        fn a_merged_timeline_says_what_both_legs_say(
            first in prop::collection::btree_map(0..40_i64, (1..5_u128, 0..10_i64), 0..8),
            second in prop::collection::btree_map(0..40_i64, (1..5_u128, 0..10_i64), 0..8),
        ) {
            let intervals = |leg: &std::collections::BTreeMap<i64, (u128, i64)>, inverted: bool| {
                let ends: Vec<i64> = leg.keys().skip(1).copied().chain([i64::MAX]).collect();
                leg.iter().zip(ends).map(|((from, (mantissa, span)), end)| LegInterval {
                    from: Timestamp::from_micros(*from),
                    seen_until: Timestamp::from_micros((from + span).min(end - 1)),
                    rate: LegRate { rate: Rate::from_parts(*mantissa, 1).unwrap(), inverted },
                }).collect::<Vec<_>>()
            };
            let (a, b) = (intervals(&first, false), intervals(&second, true));
            let ok = |interval: &LegInterval| Ok::<_, Infallible>(*interval);
            let merged: Vec<RateInterval> = Merged::new(a.iter().map(ok), b.iter().map(ok), RateBound::Value).map(|Ok(interval)| interval).collect();
            prop_assert!(merged.windows(2).all(|pair| pair[0].from < pair[1].from));
            for time in (0..50).map(Timestamp::from_micros) {
                let at = |leg: &[LegInterval]| leg.iter().rev().find(|interval| interval.from <= time).copied();
                let expect = at(&a).zip(at(&b)).map(|(a, b)| {
                    (Legs::Two(a.rate, b.rate).rounded(RateBound::Value), time <= a.seen_until || time <= b.seen_until)
                });
                let found = merged.iter().rev().find(|interval| interval.from <= time);
                prop_assert_eq!(found.map(|interval| (interval.rate, time <= interval.seen_until)), expect);
            }
        }
    }
}
