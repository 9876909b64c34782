//! Tests of candles: tables, and a comparison with a naive model that looks up the rate at every second.

use std::collections::BTreeMap;
use std::convert::Infallible;

use num_bigint::BigInt;
use proptest::prelude::*;

use super::*;
use crate::analysis::derived::tests::exact;
use crate::analysis::{LegInterval, LegRate, Legs, RateBound, Zone};
use crate::domain::{Interval, Rate};

const MINUTE_S: i64 = 60;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * Timestamp::SECOND_US)
}

fn interval(from_s: i64, confirmed_until_s: i64, rate: &str) -> RateInterval {
    let rate = LegRate { rate: Rate::parse(rate).unwrap(), inverted: false };
    RateInterval::of(LegInterval { from: at(from_s), confirmed_until: at(confirmed_until_s), rate }, RateBound::Value)
}

fn minutes(first_s: i64, end_s: i64, now_s: i64, fill: bool) -> CandlePlan {
    let buckets = Buckets { zone: Zone::UTC, interval: Interval::Minute };
    CandlePlan { buckets, first: at(first_s), end: at(end_s), now: at(now_s), fill }
}

fn fold(plan: CandlePlan, intervals: &[RateInterval]) -> Vec<Candle> {
    // Pieces of several lengths, some of them empty. The ends of pieces must not matter.
    let pieces = intervals.chunks(2).flat_map(|pair| [Ok::<_, Infallible>(vec![]), Ok(pair.to_vec())]);
    Candles::new(plan, pieces).map(|Ok(candle)| candle).collect()
}

/// Formats a candle as "minute: open high low close = average, moves". Each rate is followed by `@` and its time in
/// seconds since 1970. A filled candle ends with `*`.
fn format_candle(candle: &Candle) -> String {
    let seconds = |time: Timestamp| time.micros() / Timestamp::SECOND_US;
    let point = |point: CandlePoint| format!("{}@{}", point.rate, seconds(point.time));
    format!(
        "{}: {} {} {} {} = {}, {}{}",
        seconds(candle.bucket.start) / MINUTE_S,
        point(candle.open),
        point(candle.high),
        point(candle.low),
        point(candle.close),
        candle.rounded_average(),
        candle.move_count,
        if candle.filled { "*" } else { "" }
    )
}

#[track_caller]
fn check(plan: CandlePlan, intervals: &[RateInterval], expect: &[&str]) {
    assert_eq!(fold(plan, intervals).iter().map(format_candle).collect::<Vec<_>>(), expect);
}

#[test]
fn rate_is_in_force_until_the_next_rate() {
    let intervals = [interval(30, 40, "2"), interval(90, 90, "5"), interval(105, 105, "3")];
    check(
        minutes(0, 600, 600, false),
        &intervals,
        // The covered time starts at the first observation, and the rate stays in force over the end of the bucket.
        &["0: 2@30 2@30 2@30 2@30 = 2, 0", "1: 2@60 5@90 2@60 3@105 = 3, 2"],
    );
    // A list that starts at the second minute has the same candle.
    check(minutes(60, 600, 600, false), &intervals, &["1: 2@60 5@90 2@60 3@105 = 3, 2"]);
    // A bucket that starts at the end is not in the list.
    check(minutes(0, 60, 600, false), &intervals, &["0: 2@30 2@30 2@30 2@30 = 2, 0"]);
    check(minutes(0, 600, 600, false), &[], &[]);
}

#[test]
fn rate_that_begins_at_the_start_of_a_bucket_is_the_open_and_a_move() {
    check(
        minutes(0, 600, 600, false),
        &[interval(0, 0, "2"), interval(60, 60, "4")],
        &["0: 2@0 2@0 2@0 2@0 = 2, 0", "1: 4@60 4@60 4@60 4@60 = 4, 1"],
    );
    // The same number with a different number of places is no move. The time of the high is the first time at which the
    // high was in force.
    check(
        minutes(0, 60, 600, false),
        &[interval(0, 0, "2"), interval(20, 20, "2.0"), interval(30, 30, "3"), interval(40, 40, "3.00")],
        &["0: 2@0 3@30 2@0 3.00@40 = 2.5, 1"],
    );
}

#[test]
fn buckets_without_a_confirmed_interval_are_left_out_or_filled() {
    let intervals = [interval(30, 30, "2"), interval(200, 330, "3")];
    let filled = "2: 2@120 2@120 2@120 2@120 = 2, 0*";
    let last = ["3: 2@180 3@200 2@180 3@200 = 2.66666666666667, 1", "4: 3@240 3@240 3@240 3@240 = 3, 0"];
    let tail = "5: 3@300 3@300 3@300 3@300 = 3, 0";
    check(minutes(0, 400, 400, false), &intervals, &["0: 2@30 2@30 2@30 2@30 = 2, 0", last[0], last[1], tail]);
    check(
        minutes(0, 400, 400, true),
        &intervals,
        &[
            "0: 2@30 2@30 2@30 2@30 = 2, 0",
            "1: 2@60 2@60 2@60 2@60 = 2, 0*",
            filled,
            last[0],
            last[1],
            tail,
            "6: 3@360 3@360 3@360 3@360 = 3, 0*",
        ],
    );
    // Buckets before the first rate are never filled.
    check(minutes(0, 130, 130, true), &[interval(125, 125, "7")], &["2: 7@125 7@125 7@125 7@125 = 7, 0"]);
}

#[test]
fn rates_after_now_do_not_count() {
    let intervals = [interval(30, 90, "2"), interval(70, 90, "5"), interval(100, 100, "9"), interval(130, 130, "8")];
    check(
        minutes(0, 600, 80, false),
        &intervals,
        &["0: 2@30 2@30 2@30 2@30 = 2, 0", "1: 2@60 5@70 2@60 5@70 = 3.5, 1"],
    );
    // A bucket that starts at now has a candle. Its average is the rate itself.
    check(minutes(60, 600, 60, true), &intervals, &["1: 2@60 2@60 2@60 2@60 = 2, 0"]);
    check(minutes(60, 600, 59, true), &intervals, &[]);
    check(minutes(0, 600, 30, false), &intervals, &["0: 2@30 2@30 2@30 2@30 = 2, 0"]);
}

#[test]
fn error_ends_the_candles() {
    let pieces =
        [Ok(vec![interval(10, 10, "2"), interval(70, 70, "3")]), Err("damaged"), Ok(vec![interval(500, 500, "4")])];
    let candles: Vec<_> = Candles::new(minutes(0, 600, 600, false), pieces.into_iter()).collect();
    assert_eq!(candles.len(), 2);
    assert!(candles[0].is_ok() && candles[1].as_ref().is_err_and(|error| *error == "damaged"));
}

/// The naive model: the formatted candle of one minute, from the rate at each of its seconds.
fn model(intervals: &[RateInterval], minute: i64, now_s: i64) -> Option<String> {
    let (start, end) = (minute * MINUTE_S, (minute + 1) * MINUTE_S);
    let in_force = |second: i64| intervals.iter().rev().find(|interval| interval.from <= at(second)).copied();
    let seconds: Vec<(i64, RateInterval)> =
        (start..end.min(now_s + 1)).filter_map(|second| Some((second, in_force(second)?))).collect();
    let (open_s, open) = *seconds.first()?;
    let value = |interval: &RateInterval| interval.rate.value();
    let first_at = |wanted: &BigRational| seconds.iter().find(|(_, interval)| value(interval) == *wanted).copied();
    let (high_s, high) = first_at(&seconds.iter().map(|(_, interval)| value(interval)).max()?)?;
    let (low_s, low) = first_at(&seconds.iter().map(|(_, interval)| value(interval)).min()?)?;
    let (_, close) = *seconds.last()?;
    let close_s = (close.from.micros() / Timestamp::SECOND_US).max(start);
    // The current second has not ended, so it has no weight.
    let covered: Vec<BigRational> =
        seconds.iter().filter(|(second, _)| *second < now_s).map(|(_, interval)| value(interval)).collect();
    let average = match covered.len() {
        0 => value(&close),
        count => covered.into_iter().sum::<BigRational>() / BigInt::from(count),
    };
    let before = in_force(start - 1);
    let all = before.iter().chain(seconds.iter().map(|(_, interval)| interval));
    let values: Vec<BigRational> = all.map(value).collect();
    let moves = values.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let is_confirmed = seconds.iter().any(|(second, interval)| at(*second) <= interval.confirmed_until);
    Some(format!(
        "{minute}: {}@{open_s} {}@{high_s} {}@{low_s} {}@{close_s} = {}, {moves}{}",
        open.rate,
        high.rate,
        low.rate,
        close.rate,
        significant(&average, SIGNIFICANT_DIGITS, Rounding::HalfEven),
        if is_confirmed { "" } else { "*" }
    ))
}

fn timelines() -> impl Strategy<Value = Vec<RateInterval>> {
    let tick = (prop_oneof![1..30_u128, 10_u128.pow(27)..10_u128.pow(28)], 9..12_u32, 0..200_i64, any::<bool>());
    prop::collection::btree_map(0..900_i64, tick, 0..12).prop_map(|ticks: BTreeMap<_, _>| {
        let ends: Vec<i64> = ticks.keys().skip(1).copied().chain([i64::MAX]).collect();
        ticks
            .into_iter()
            .zip(ends)
            .map(|((from, (mantissa, places, span, inverted)), end)| {
                let rate = LegRate { rate: Rate::from_parts(mantissa, places).unwrap(), inverted };
                RateInterval::of(
                    LegInterval { from: at(from), confirmed_until: at((from + span).min(end - 1)), rate },
                    RateBound::Value,
                )
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn candles_equal_the_naive_model(
        intervals in timelines(), first in 0..15_i64, count in 0..18_i64, now_s in 0..1_000_i64, fill in any::<bool>(),
    ) {
        let plan = minutes(first * MINUTE_S, (first + count) * MINUTE_S, now_s, fill);
        let all = (first..first + count).filter_map(|minute| model(&intervals, minute, now_s));
        let expect: Vec<String> = all.filter(|candle| fill || !candle.ends_with('*')).collect();
        let found: Vec<String> = fold(plan, &intervals).iter().map(format_candle).collect();
        prop_assert_eq!(&found, &expect);
        // For each candle, a list that starts at the end of its bucket has the candles that follow in the full list.
        for (at, candle) in fold(plan, &intervals).iter().enumerate() {
            let rest = CandlePlan { first: candle.bucket.end, ..plan };
            let rest: Vec<String> = fold(rest, &intervals).iter().map(format_candle).collect();
            prop_assert_eq!(&rest, &expect[at + 1..]);
        }
    }

    #[test]
    fn average_is_the_exact_fraction(
        gaps in prop::collection::vec((1..5_000_000_i64, 1..10_u128.pow(28), 8..=18_u32), 1..20),
    ) {
        let buckets = Buckets { zone: Zone::UTC, interval: Interval::Hour };
        let (mut intervals, mut sum, mut micros) = (Vec::new(), BigRational::from_integer(0.into()), 0);
        for (gap, mantissa, places) in gaps {
            let rate = Rate::from_parts(mantissa, places).unwrap();
            let from = Timestamp::from_micros(micros);
            let leg = LegInterval { from, confirmed_until: from, rate: LegRate { rate, inverted: false } };
            intervals.push(RateInterval::of(leg, RateBound::Value));
            sum += exact(&rate.to_string()) * BigInt::from(gap);
            micros += gap;
        }
        let now = Timestamp::from_micros(micros);
        let plan = CandlePlan { buckets, first: Timestamp::default(), end: now, now, fill: false };
        let candles = fold(plan, &intervals);
        prop_assert_eq!(candles.len(), 1);
        prop_assert_eq!(&candles[0].average, &(sum / BigInt::from(micros)));
    }

    #[test]
    fn bounds_contain_the_candle_of_any_true_rates(
        ticks in prop::collection::btree_map(0..300_i64, (10..60_u128, 0..2_u32, 0..=10_u128), 1..12),
    ) {
        let plan = minutes(0, 600, 300, true);
        let intervals = |rate: &dyn Fn(u128, u32, u128) -> RoundedRate| -> Vec<Candle> {
            let interval = |(from, (mantissa, places, tenths)): (&i64, &(u128, u32, u128))| {
                RateInterval { from: at(*from), confirmed_until: at(*from), rate: rate(*mantissa, *places, *tenths) }
            };
            fold(plan, &ticks.iter().map(interval).collect::<Vec<_>>())
        };
        let leg = |mantissa, places| {
            Legs::One(LegRate { rate: Rate::from_parts(mantissa, places).unwrap(), inverted: false })
        };
        let [low, value, high] = [RateBound::Low, RateBound::Value, RateBound::High]
            .map(|bound| intervals(&|mantissa, places, _| leg(mantissa, places).rounded(bound)));
        // True rates within half a unit of the published rates.
        let real = intervals(&|mantissa, places, tenths| {
            RoundedRate::published(Rate::from_parts(mantissa * 10 - 5 + tenths, places + 1).unwrap())
        });
        for (((low, value), high), real) in low.iter().zip(&value).zip(&high).zip(&real) {
            let bounds = CandleBounds::between(low, high);
            let within = |[low, high]: [RoundedRate; 2], real: CandlePoint| {
                low.value() <= real.rate.value() && real.rate.value() <= high.value()
            };
            prop_assert!(within(bounds.open, real.open) && within(bounds.close, real.close));
            prop_assert!(within(bounds.high, real.high) && within(bounds.low, real.low));
            prop_assert!(bounds.average[0] <= real.average && real.average <= bounds.average[1]);
            // The fast path for equal places gives the same bounds.
            if let Some(fast) = CandleBounds::published(value) {
                let numbers = |bounds: &CandleBounds| {
                    [bounds.open, bounds.high, bounds.low, bounds.close].map(|both| both.map(RoundedRate::value))
                };
                prop_assert_eq!(numbers(&fast), numbers(&bounds));
                prop_assert_eq!(&fast.average, &bounds.average);
            } else {
                prop_assert!(value.move_count > 0, "only rates with different numbers of places have no fast path");
            }
        }
    }
}
