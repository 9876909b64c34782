//! Two sources of one pair, day by day: by how much they differ, whether their published digits can tell, and which of
//! them lags the other.
//!
//! Two rates are *apart* where the intervals that their digits leave share no point, ends included; days apart in a row
//! are a *stretch*. A side *lags* by the fewest days `k` for which its interval of today meets the other's of `k` days
//! earlier: it shows what the other showed then, and no longer does.
//!
//! **Invariant**: what is said of a day follows from its own rates, those of the [`LAG_DAYS_MAX`] days before it and,
//! for where a stretch ends, those of the day after it; never from which days were asked for.

use std::collections::VecDeque;

use super::bucket::Bucket;
use super::change::{PercentChange, absolute_change};
use super::derived::Derived;
use super::rounded::Rounded;
use crate::domain::Timestamp;

/// Most days that a lag is looked for.
pub const LAG_DAYS_MAX: usize = 14;

/// Of the first source, then of the second.
pub type Sides<T> = [T; 2];

/// By how much the second of two rates differs from the first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// Second minus first, in units of quote.
    pub absolute: Rounded,
    /// From the first to the second, with what their digits leave open.
    pub percent: PercentChange,
    /// What is told where they are apart; none where their intervals share a point.
    pub apart: Option<Apart>,
}

/// A day on which two sources are apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Apart {
    /// The day before was none of these.
    pub begins: bool,
    /// The day after was none of these; not known of the newest day, and then false.
    pub ends: bool,
    /// Days by which each side lags the other, from 1 to [`LAG_DAYS_MAX`].
    pub lag_days: Sides<Option<u32>>,
}

/// Compares the days that it is given, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Comparisons {
    /// The days before, the newest first.
    earlier: VecDeque<Sides<Option<Derived>>>,
    was_apart: bool,
}

impl Comparisons {
    /// What is said of the next day, but for where a stretch ends. None where a side has no rate yet.
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

    /// How many days earlier the other side last said what `rate` says.
    fn lag(&self, rate: &Derived, other: usize) -> Option<u32> {
        let meets = |day: &Sides<Option<Derived>>| day[other].as_ref().is_some_and(|then| rate.overlaps(then));
        let at = self.earlier.iter().position(meets)?;
        u32::try_from(at + 1).ok()
    }
}

/// Whether a day is one of a stretch.
fn is_apart(difference: Option<&Difference>) -> bool {
    difference.is_some_and(|difference| difference.apart.is_some())
}

/// Says of a day whether a stretch ends with it, now that the next one is known.
pub fn end_stretch(day: Option<&mut Difference>, next: Option<&Difference>) {
    if let Some(apart) = day.and_then(|difference| difference.apart.as_mut()) {
        apart.ends = !is_apart(next);
    }
}

/// Days apart in a row, as far as they lie among those summed up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApartStretch {
    /// The start of its first day.
    pub start: Timestamp,
    /// The end of its last day, exclusive.
    pub end: Timestamp,
    /// How many days.
    pub day_count: u32,
    /// It began before the first day summed up.
    pub began_earlier: bool,
    /// It goes on after the last day summed up, or is not known to have ended.
    pub goes_on: bool,
}

/// What days come to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ComparisonSummary {
    /// Days on which both sides have a rate.
    pub compared_day_count: u32,
    /// Those of them on which they are apart.
    pub apart_day_count: u32,
    /// Those of these on which each side lags the other.
    pub lag_day_counts: Sides<u32>,
    /// The longest stretch, the earliest of several.
    pub longest: Option<ApartStretch>,
    /// The last stretch.
    pub last: Option<ApartStretch>,
    /// The difference furthest from zero and its day, the earliest of several.
    pub largest: Option<(Bucket, PercentChange)>,
}

impl ComparisonSummary {
    /// One more day, which follows those before.
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

    /// The start of that day.
    fn day(number: usize) -> Bucket {
        let start = Timestamp::from_micros(i64::try_from(number).unwrap() * Timestamp::DAY_US);
        Bucket { start, end: start.saturating_add_us(Timestamp::DAY_US) }
    }

    /// A rate, `1/` one over it; none of `-`.
    fn side(text: &str) -> Option<Derived> {
        match text.strip_prefix("1/") {
            Some(published) => Some(direct(published).inverse()),
            None => (text != "-").then(|| direct(text)),
        }
    }

    /// All that is said of days, the last of which has none after it.
    fn compared(days: &[Sides<Option<Derived>>]) -> Vec<Option<Difference>> {
        let mut comparisons = Comparisons::default();
        let mut found: Vec<Option<Difference>> = days.iter().map(|rates| comparisons.next_day(rates.clone())).collect();
        for at in 1..found.len() {
            let (before, after) = found.split_at_mut(at);
            end_stretch(before[at - 1].as_mut(), after[0].as_ref());
        }
        found
    }

    /// `absolute low value high` in four places.
    fn numbers(difference: &Difference) -> String {
        let percent = &difference.percent;
        format!("{} {} {} {}", difference.absolute, percent.low(4), percent.value(4), percent.high(4))
    }

    /// `[` begins, `]` ends, and by how many days each side lags; `=` where they overlap.
    fn apart(difference: Option<&Difference>) -> String {
        let Some(difference) = difference else { return "?".to_owned() };
        let Some(Apart { begins, ends, lag_days }) = difference.apart else { return "=".to_owned() };
        let lag = |days: Option<u32>| days.map_or("-".to_owned(), |days| days.to_string());
        let marks = format!("{}{}", if begins { "[" } else { "" }, if ends { "]" } else { "" });
        format!("{marks}{},{}", lag(lag_days[0]), lag(lag_days[1]))
    }

    #[test]
    fn a_day_says_by_how_much_and_whether_the_digits_can_tell() {
        let check = |first: &str, second: &str, expect: &str, overlap: bool| {
            let found = compared(&[[side(first), side(second)]]).remove(0).unwrap();
            assert_eq!((numbers(&found).as_str(), found.apart.is_none()), (expect, overlap), "{first} {second}");
        };
        // 0.00001 of 0.01144, each half of 0.00001 either way: the ends touch at 0.011445, which both include.
        check("0.01144", "0.01145", "0.00001 0.0000 0.0874 0.1750", true);
        check("0.01144", "0.01146", "0.00002 0.0873 0.1748 0.2624", false);
        // The bank's 87.4500 is from 0.011435099 to 0.011435112 the other way round: a hair above 0.011435.
        check("0.01143", "1/87.4500", "0.00000510577472841624 0.0008 0.0447 0.0886", false);
        check("0.01144", "1/87.4500", "-0.00000489422527158376 -0.0866 -0.0428 0.0010", true);
        // One digit of the sum meets any rate from 11764.7 to 13333.3.
        check("1/0.00008", "12020.25", "-479.75 -9.8482 -3.8380 2.1722", true);
        check("1/0.00008", "11764.70", "-735.3 -11.7648 -5.8824 0.0000", false);
        check("3.5000", "3.5", "0.0000 -1.4300 0.0000 1.4301", true);
    }

    #[test]
    fn stretches_and_lags() {
        let check = |first: &[&str], second: &[&str], expect: &[&str]| {
            let days: Vec<_> = first.iter().zip(second).map(|(first, second)| [side(first), side(second)]).collect();
            let found = compared(&days);
            assert_eq!(
                found.iter().map(|difference| apart(difference.as_ref())).collect::<Vec<_>>(),
                expect,
                "{first:?} {second:?}"
            );
        };
        // The first follows two days later.
        check(
            &["1.0", "1.0", "1.0", "1.0", "1.3", "1.5", "1.5"],
            &["1.0", "1.0", "1.3", "1.5", "1.5", "1.5", "1.5"],
            &["=", "=", "[1,-", "2,-", "]2,-", "=", "="],
        );
        // A day apart between two that are not is a stretch of its own; of the newest day nobody knows.
        check(&["1.0", "1.0", "1.0", "1.0"], &["1.0", "9.0", "1.0", "9.0"], &["=", "[]1,-", "=", "[1,-"]);
        // Two that swap each say what the other said.
        check(&["1.0", "9.0"], &["9.0", "1.0"], &["[-,-", "1,1"]);
        // Before a side has a rate nothing is said, and where they begin apart the stretch begins.
        check(&["-", "-", "1.0", "1.0"], &["-", "2.0", "2.0", "1.0"], &["?", "?", "[]-,-", "="]);
        // A side that jumps back to what the other said fourteen days ago, not fifteen.
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
    fn a_summary_is_of_what_it_was_given() {
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
            let told = [summary.longest, summary.last].map(|stretch| {
                let ApartStretch { start, end, day_count, began_earlier, goes_on } = stretch?;
                assert_eq!(end.micros_since(start), i64::from(day_count) * Timestamp::DAY_US);
                let start = usize::try_from(start.micros() / Timestamp::DAY_US).unwrap();
                Some((start, day_count, began_earlier, goes_on))
            });
            assert_eq!(told, stretches, "{from} {to}");
            assert_eq!(summary.largest.unwrap().0, day(largest), "{from} {to}");
        };
        check(0, 8, [8, 6, 4, 0], [Some((3, 3, false, false)), Some((7, 1, false, true))], 5);
        // Cut at both ends: what lies beyond is told, not counted.
        check(1, 5, [4, 3, 2, 0], [Some((3, 2, false, true)); 2], 1);
        check(4, 6, [2, 2, 2, 0], [Some((4, 2, true, false)); 2], 5);
        check(2, 3, [1, 0, 0, 0], [None; 2], 2);
    }

    fn rates() -> impl Strategy<Value = Option<(Rate, bool)>> {
        let rate = (1..60_u128, 0..=1_u32).prop_map(|(mantissa, places)| Rate::from_parts(mantissa, places).unwrap());
        prop::option::weighted(0.95, (rate, any::<bool>()))
    }

    /// The ends of an interval, from the digits alone.
    fn ends((rate, inverted): (Rate, bool)) -> [BigRational; 2] {
        let half = BigRational::new(1.into(), BigInt::from(2) * BigInt::from(10).pow(rate.places().into()));
        let value = exact(&rate.to_string());
        let (low, high) = (&value - &half, &value + &half);
        if inverted { [high.recip(), low.recip()] } else { [low, high] }
    }

    proptest! {
        #[test]
        fn days_say_what_naive_fractions_say(days in prop::collection::vec((rates(), rates()), 1..40)) {
            let derived = |(rate, inverted): (Rate, bool)| {
                let published = Derived::direct(rate);
                if inverted { published.inverse() } else { published }
            };
            let given: Vec<_> = days.iter().map(|(a, b)| [a.map(derived), b.map(derived)]).collect();
            let found = compared(&given);
            let meet = |a: Option<(Rate, bool)>, b: Option<(Rate, bool)>| {
                let ([a_low, a_high], [b_low, b_high]) = (ends(a?), ends(b?));
                Some(a_low.max(b_low) <= a_high.min(b_high))
            };
            let is_apart = |at: usize| days.get(at).is_some_and(|(a, b)| meet(*a, *b) == Some(false));
            for (at, (a, b)) in days.iter().enumerate() {
                let overlap = found[at].as_ref().map(|difference| difference.apart.is_none());
                prop_assert_eq!(overlap, meet(*a, *b));
                let Some(difference) = &found[at] else { continue };
                // The same is said by a change whose bounds hold zero.
                prop_assert_eq!(difference.percent.below_resolution(), difference.apart.is_none());
                let Some(apart) = difference.apart else { continue };
                prop_assert_eq!(apart.begins, at == 0 || !is_apart(at - 1));
                prop_assert_eq!(apart.ends, at + 1 < days.len() && !is_apart(at + 1));
                let earlier = |k: &usize| *k <= at;
                let naive = [
                    (1..=LAG_DAYS_MAX).filter(earlier).find(|k| meet(*a, days[at - k].1) == Some(true)),
                    (1..=LAG_DAYS_MAX).filter(earlier).find(|k| meet(*b, days[at - k].0) == Some(true)),
                ];
                prop_assert_eq!(apart.lag_days.map(|days| days.map(|days| days as usize)), naive);
            }
        }
    }
}
