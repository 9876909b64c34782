//! The comparison of two sources of one pair, day by day: the difference of their rates, whether it is above the
//! resolution of the published digits, and which source lags the other.
//!
//! Two rates are *apart* if the intervals between their bounds share no point, ends included. A *day apart* is a day on
//! which the rates of the two sources are apart. Consecutive days apart are a *stretch*. On a day apart, a source
//! *lags* by `k` days if its interval overlaps the interval that the other source had `k` days earlier, and if `k` is
//! the smallest such number. Such a source still shows an older rate of the other source.
//!
//! **Invariant**: the result of a day depends only on the rates of that day, of the [`LAG_DAYS_MAX`] days before it
//! and, for the end of a stretch, of the day after it. It does not depend on the days of the request.

use std::collections::VecDeque;

use super::bucket::Bucket;
use super::change::{PercentChange, absolute_change};
use super::derived::Derived;
use super::rounded::Rounded;
use crate::domain::Timestamp;

/// The maximum lag, days.
pub const LAG_DAYS_MAX: usize = 14;

/// A value of the first source and a value of the second source.
pub type Sides<T> = [T; 2];

/// The difference between two rates: the second minus the first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The second rate minus the first rate, in units of the quote currency.
    pub absolute: Rounded,
    /// The change from the first rate to the second rate in percent, with its bounds.
    pub percent: PercentChange,
    /// The details of a day apart; `None` if the intervals of the rates share a point.
    pub apart: Option<Apart>,
}

/// The details of a day on which two sources are apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Apart {
    /// Whether the stretch begins on this day: the sources were not apart on the day before.
    pub begins: bool,
    /// Whether the stretch ends on this day: the sources are not apart on the day after. False for the newest day.
    pub ends: bool,
    /// The days by which each source lags the other, from 1 to [`LAG_DAYS_MAX`]; `None` if it does not lag.
    pub lag_days: Sides<Option<u32>>,
}

/// Compares the rates of consecutive days. The days must come in order.
#[derive(Clone, Debug, Default)]
pub struct Comparisons {
    /// The rates of the previous days, the newest first.
    earlier: VecDeque<Sides<Option<Derived>>>,
    was_apart: bool,
}

impl Comparisons {
    /// Compares the rates of the next day. Returns `None` if a source has no rate yet. [`Apart::ends`] of the result is
    /// false: after the comparison of the following day, call [`end_stretch`] to set it.
    pub fn next_day(&mut self, rates: Sides<Option<Derived>>) -> Option<Difference> {
        let difference = if let [Some(first), Some(second)] = &rates {
            let percent = PercentChange::between(first, second);
            let apart = (!first.overlaps(second)).then(|| Apart {
                begins: !self.was_apart,
                ends: false,
                lag_days: [self.lag(first, 1), self.lag(second, 0)],
            });
            Some(Difference { absolute: absolute_change(first, second), percent, apart })
        } else {
            None
        };
        self.was_apart = is_apart(difference.as_ref());
        self.earlier.truncate(LAG_DAYS_MAX - 1);
        self.earlier.push_front(rates);
        difference
    }

    /// Returns the number of days since the rate of the side `other` last overlapped `rate`.
    fn lag(&self, rate: &Derived, other: usize) -> Option<u32> {
        let overlaps = |day: &Sides<Option<Derived>>| day[other].as_ref().is_some_and(|then| rate.overlaps(then));
        let index = self.earlier.iter().position(overlaps)?;
        u32::try_from(index + 1).ok()
    }
}

/// Returns true if the sources are apart on a day.
fn is_apart(difference: Option<&Difference>) -> bool {
    difference.is_some_and(|difference| difference.apart.is_some())
}

/// Sets whether a stretch ends on `day`, from the comparison of the `next` day.
pub fn end_stretch(day: Option<&mut Difference>, next: Option<&Difference>) {
    if let Some(apart) = day.and_then(|difference| difference.apart.as_mut()) {
        apart.ends = !is_apart(next);
    }
}

/// Consecutive days apart, limited to the summarized days.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApartStretch {
    /// The start of the first day of the stretch.
    pub start: Timestamp,
    /// The end of the last day of the stretch, exclusive.
    pub end: Timestamp,
    /// The number of days.
    pub day_count: u32,
    /// Whether the stretch began before the first summarized day.
    pub began_earlier: bool,
    /// Whether the stretch continues after the last summarized day, or its end is not known yet.
    pub goes_on: bool,
}

/// The summary of the days of a comparison.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ComparisonSummary {
    /// The number of days on which both sources have a rate.
    pub compared_day_count: u32,
    /// The number of compared days on which the sources are apart.
    pub apart_day_count: u32,
    /// For each source, the number of days apart on which it lags the other source.
    pub lag_day_counts: Sides<u32>,
    /// The longest stretch; the earliest one if several are equally long.
    pub longest: Option<ApartStretch>,
    /// The last stretch.
    pub last: Option<ApartStretch>,
    /// The difference with the largest absolute value, and its day; the earliest one if several are equal.
    pub largest: Option<(Bucket, PercentChange)>,
}

impl ComparisonSummary {
    /// Adds the next day to the summary.
    pub fn add(&mut self, day: Bucket, difference: Option<&Difference>) {
        let Some(difference) = difference else { return };
        self.compared_day_count += 1;
        let is_larger = |(_, largest): &(Bucket, PercentChange)| difference.percent.cmp_size(largest).is_gt();
        if self.largest.as_ref().is_none_or(is_larger) {
            self.largest = Some((day, difference.percent.clone()));
        }
        let Some(apart) = difference.apart else { return };
        self.apart_day_count += 1;
        for (count, lag) in self.lag_day_counts.iter_mut().zip(apart.lag_days) {
            *count += u32::from(lag.is_some());
        }
        let stretch = match self.last {
            Some(last) if last.goes_on => {
                ApartStretch { end: day.end, day_count: last.day_count + 1, goes_on: !apart.ends, ..last }
            }
            _ => ApartStretch {
                start: day.start,
                end: day.end,
                day_count: 1,
                began_earlier: !apart.begins,
                goes_on: !apart.ends,
            },
        };
        self.last = Some(stretch);
        if self.longest.is_none_or(|longest| longest.start == stretch.start || longest.day_count < stretch.day_count) {
            self.longest = Some(stretch);
        }
    }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigInt;
    use num_rational::BigRational;
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::derived::tests::{direct, exact};
    use crate::domain::Rate;

    /// Returns the day with this number, in UTC. 1970-01-01 is day 0.
    fn day(number: usize) -> Bucket {
        let start = Timestamp::from_micros(i64::try_from(number).unwrap() * Timestamp::DAY_US);
        Bucket { start, end: start.saturating_add_us(Timestamp::DAY_US) }
    }

    /// Parses a rate such as `0.5`, an inverse such as `1/0.5`, or `-` for no rate.
    fn side(text: &str) -> Option<Derived> {
        match text.strip_prefix("1/") {
            Some(published) => Some(direct(published).inverse()),
            None => (text != "-").then(|| direct(text)),
        }
    }

    /// Compares all days. Because no day follows the last one, the last day never ends a stretch.
    fn compared(days: &[Sides<Option<Derived>>]) -> Vec<Option<Difference>> {
        let mut comparisons = Comparisons::default();
        let mut found: Vec<Option<Difference>> = days.iter().map(|rates| comparisons.next_day(rates.clone())).collect();
        for at in 1..found.len() {
            let (before, after) = found.split_at_mut(at);
            end_stretch(before[at - 1].as_mut(), after[0].as_ref());
        }
        found
    }

    /// Formats a difference as "absolute low value high", the percentages with four places.
    fn numbers(difference: &Difference) -> String {
        let percent = &difference.percent;
        format!("{} {} {} {}", difference.absolute, percent.low(4), percent.value(4), percent.high(4))
    }

    /// Formats a day as `=` if the rates overlap and `?` if a rate is missing. A day apart has `[` if a stretch begins,
    /// `]` if it ends, and the lags of both sides.
    fn apart(difference: Option<&Difference>) -> String {
        let Some(difference) = difference else { return "?".to_owned() };
        let Some(Apart { begins, ends, lag_days }) = difference.apart else { return "=".to_owned() };
        let lag = |days: Option<u32>| days.map_or("-".to_owned(), |days| days.to_string());
        let marks = format!("{}{}", if begins { "[" } else { "" }, if ends { "]" } else { "" });
        format!("{marks}{},{}", lag(lag_days[0]), lag(lag_days[1]))
    }

    #[test]
    fn difference_has_bounds_and_shows_whether_the_sources_are_apart() {
        let check = |first: &str, second: &str, expect: &str, overlap: bool| {
            let found = compared(&[[side(first), side(second)]]).remove(0).unwrap();
            assert_eq!((numbers(&found).as_str(), found.apart.is_none()), (expect, overlap), "{first} {second}");
        };
        // Both intervals include 0.011445, so the rates are not apart.
        check("0.01144", "0.01145", "0.00001 0.0000 0.0874 0.1750", true);
        check("0.01144", "0.01146", "0.00002 0.0873 0.1748 0.2624", false);
        // The inverse of 87.4500 lies between 0.011435099 and 0.011435112, just above 0.011435, the upper bound of
        // 0.01143.
        check("0.01143", "1/87.4500", "0.00000510577472841624 0.0008 0.0447 0.0886", false);
        check("0.01144", "1/87.4500", "-0.00000489422527158376 -0.0866 -0.0428 0.0010", true);
        // The inverse of 0.00008, with one significant digit, overlaps every rate from 11764.7 to 13333.3.
        check("1/0.00008", "12020.25", "-479.75 -9.8482 -3.8380 2.1722", true);
        check("1/0.00008", "11764.70", "-735.3 -11.7648 -5.8824 0.0000", false);
        check("3.5000", "3.5", "0.0000 -1.4300 0.0000 1.4301", true);
    }

    #[test]
    fn days_apart_form_stretches_and_have_lags() {
        let check = |first: &[&str], second: &[&str], expect: &[&str]| {
            let days: Vec<_> = first.iter().zip(second).map(|(first, second)| [side(first), side(second)]).collect();
            let found = compared(&days);
            assert_eq!(
                found.iter().map(|difference| apart(difference.as_ref())).collect::<Vec<_>>(),
                expect,
                "{first:?} {second:?}"
            );
        };
        // The first source lags by up to two days.
        check(
            &["1.0", "1.0", "1.0", "1.0", "1.3", "1.5", "1.5"],
            &["1.0", "1.0", "1.3", "1.5", "1.5", "1.5", "1.5"],
            &["=", "=", "[1,-", "2,-", "]2,-", "=", "="],
        );
        // A single day apart is a stretch. The end of a stretch on the newest day is not known.
        check(&["1.0", "1.0", "1.0", "1.0"], &["1.0", "9.0", "1.0", "9.0"], &["=", "[]1,-", "=", "[1,-"]);
        // After the sources swap their rates, each of them lags the other.
        check(&["1.0", "9.0"], &["9.0", "1.0"], &["[-,-", "1,1"]);
        // Days without a rate of a source are not compared, and a stretch begins on the first compared day apart.
        check(&["-", "-", "1.0", "1.0"], &["-", "2.0", "2.0", "1.0"], &["?", "?", "[]-,-", "="]);
        // A rate equal to that of the other source fourteen days earlier is a lag; fifteen days earlier is not.
        let (mut first, mut second) = (vec!["1.0"; 16], vec!["2.0"; 16]);
        (first[15], second[1]) = ("7.0", "7.0");
        let lagging = |day: usize| {
            let days: Vec<_> = first[..].iter().zip(&second).map(|(a, b)| [side(a), side(b)]).collect();
            apart(compared(&days)[day].as_ref())
        };
        assert_eq!(lagging(15), "14,-");
        (first[15], second[1], second[0]) = ("7.0", "2.0", "7.0");
        let days: Vec<_> = first.iter().zip(&second).map(|(a, b)| [side(a), side(b)]).collect();
        assert_eq!(apart(compared(&days)[15].as_ref()), "-,-");
    }

    #[test]
    fn summary_covers_only_the_added_days() {
        let first = ["1.0", "1.0", "1.0", "1.0", "1.0", "1.0", "1.0", "1.0"];
        let second = ["3.0", "3.0", "1.0", "2.0", "2.0", "4.0", "1.0", "2.0"];
        let days: Vec<_> = first.iter().zip(second).map(|(first, second)| [side(first), side(second)]).collect();
        let found = compared(&days);
        let check = |from: usize,
                     to: usize,
                     counts: [u32; 4],
                     stretches: [Option<(usize, u32, bool, bool)>; 2],
                     largest: usize| {
            let mut summary = ComparisonSummary::default();
            for (at, difference) in found.iter().enumerate().take(to).skip(from) {
                summary.add(day(at), difference.as_ref());
            }
            let ComparisonSummary { compared_day_count, apart_day_count, lag_day_counts: [a, b], .. } = summary;
            assert_eq!([compared_day_count, apart_day_count, a, b], counts, "{from} {to}");
            let found_stretches = [summary.longest, summary.last].map(|stretch| {
                let ApartStretch { start, end, day_count, began_earlier, goes_on } = stretch?;
                assert_eq!(end.micros_since(start), i64::from(day_count) * Timestamp::DAY_US);
                let start = usize::try_from(start.micros() / Timestamp::DAY_US).unwrap();
                Some((start, day_count, began_earlier, goes_on))
            });
            assert_eq!(found_stretches, stretches, "{from} {to}");
            assert_eq!(summary.largest.unwrap().0, day(largest), "{from} {to}");
        };
        check(0, 8, [8, 6, 4, 0], [Some((3, 3, false, false)), Some((7, 1, false, true))], 5);
        // A stretch that ends after the last summarized day, or begins before the first one, is marked, and its other
        // days are not counted.
        check(1, 5, [4, 3, 2, 0], [Some((3, 2, false, true)); 2], 1);
        check(4, 6, [2, 2, 2, 0], [Some((4, 2, true, false)); 2], 5);
        check(2, 3, [1, 0, 0, 0], [None; 2], 2);
    }

    fn rates() -> impl Strategy<Value = Option<(Rate, bool)>> {
        let rate = (1..60_u128, 0..=1_u32).prop_map(|(mantissa, places)| Rate::from_parts(mantissa, places).unwrap());
        prop::option::weighted(0.95, (rate, any::<bool>()))
    }

    /// The bounds of a rate, computed from its digits.
    fn bounds((rate, inverted): (Rate, bool)) -> [BigRational; 2] {
        let half = BigRational::new(1.into(), BigInt::from(2) * BigInt::from(10).pow(rate.places().into()));
        let value = exact(&rate.to_string());
        let (low, high) = (&value - &half, &value + &half);
        if inverted { [high.recip(), low.recip()] } else { [low, high] }
    }

    proptest! {
        #[test]
        fn comparison_equals_the_naive_model(days in prop::collection::vec((rates(), rates()), 1..40)) {
            let derived = |(rate, inverted): (Rate, bool)| {
                let published = Derived::direct(rate);
                if inverted { published.inverse() } else { published }
            };
            let given: Vec<_> = days.iter().map(|(a, b)| [a.map(derived), b.map(derived)]).collect();
            let found = compared(&given);
            let overlaps = |a: Option<(Rate, bool)>, b: Option<(Rate, bool)>| {
                let ([a_low, a_high], [b_low, b_high]) = (bounds(a?), bounds(b?));
                Some(a_low.max(b_low) <= a_high.min(b_high))
            };
            let is_apart = |at: usize| days.get(at).is_some_and(|(a, b)| overlaps(*a, *b) == Some(false));
            for (at, (a, b)) in days.iter().enumerate() {
                let overlap = found[at].as_ref().map(|difference| difference.apart.is_none());
                prop_assert_eq!(overlap, overlaps(*a, *b));
                let Some(difference) = &found[at] else { continue };
                // Rates overlap exactly if their change is below resolution.
                prop_assert_eq!(difference.percent.below_resolution(), difference.apart.is_none());
                let Some(apart) = difference.apart else { continue };
                prop_assert_eq!(apart.begins, at == 0 || !is_apart(at - 1));
                prop_assert_eq!(apart.ends, at + 1 < days.len() && !is_apart(at + 1));
                let earlier = |k: &usize| *k <= at;
                let naive = [
                    (1..=LAG_DAYS_MAX).filter(earlier).find(|k| overlaps(*a, days[at - k].1) == Some(true)),
                    (1..=LAG_DAYS_MAX).filter(earlier).find(|k| overlaps(*b, days[at - k].0) == Some(true)),
                ];
                prop_assert_eq!(apart.lag_days.map(|days| days.map(|days| days as usize)), naive);
            }
        }
    }
}
