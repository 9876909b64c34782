//! Candles in tables, and against a model that asks for the rate at every instant.

use std::collections::BTreeMap;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::analysis::derived::tests::exact;
use crate::analysis::{LegInterval, LegRate, Legs, RateBound, Zone};
use crate::domain::{Interval, Rate};

const MINUTE_S: i64 = 60;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * Timestamp::SECOND_US)
}

fn interval(from_s: i64, seen_until_s: i64, rate: &str) -> RateInterval {
    let rate = LegRate { rate: Rate::parse(rate).unwrap(), inverted: false };
    RateInterval::of(LegInterval { from: at(from_s), seen_until: at(seen_until_s), rate }, RateBound::Value)
}

fn minutes(first_s: i64, end_s: i64, now_s: i64, fill: bool) -> CandlePlan {
    let buckets = Buckets { zone: Zone::UTC, interval: Interval::Minute };
    CandlePlan { buckets, first: at(first_s), end: at(end_s), now: at(now_s), fill }
}

fn fold(plan: CandlePlan, intervals: &[RateInterval]) -> Vec<Candle> {
    // Pieces of several lengths, an empty one among them: where one ends must not matter.
    let pieces = intervals.chunks(2).flat_map(|pair| [Ok::<_, Infallible>(vec![]), Ok(pair.to_vec())]);
    Candles::new(plan, pieces).map(|Ok(candle)| candle).collect()
}

/// "minute: open high low close = average, moves", rates with their seconds since 1970, `*` where filled.
fn words(candle: &Candle) -> String {
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
    assert_eq!(fold(plan, intervals).iter().map(words).collect::<Vec<_>>(), expect);
}

#[test]
fn a_rate_holds_until_the_next() {
    let intervals = [interval(30, 40, "2"), interval(90, 90, "5"), interval(105, 105, "3")];
    check(
        minutes(0, 600, 600, false),
        &intervals,
        // Before the first observation nothing is covered; after it the rate holds over the bucket's end.
        &["0: 2@30 2@30 2@30 2@30 = 2, 0", "1: 2@60 5@90 2@60 3@105 = 3, 2"],
    );
    // From the second minute on, with the rate interval in force before it: the same candle.
    check(minutes(60, 600, 600, false), &intervals, &["1: 2@60 5@90 2@60 3@105 = 3, 2"]);
    // Buckets that begin at the end are out.
    check(minutes(0, 60, 600, false), &intervals, &["0: 2@30 2@30 2@30 2@30 = 2, 0"]);
    check(minutes(0, 600, 600, false), &[], &[]);
}

#[test]
fn a_rate_at_the_very_start_is_the_open_and_a_move() {
    check(
        minutes(0, 600, 600, false),
        &[interval(0, 0, "2"), interval(60, 60, "4")],
        &["0: 2@0 2@0 2@0 2@0 = 2, 0", "1: 4@60 4@60 4@60 4@60 = 4, 1"],
    );
    // Other places or another run of the same number are no move, and the first to reach a height keeps it.
    check(
        minutes(0, 60, 600, false),
        &[interval(0, 0, "2"), interval(20, 20, "2.0"), interval(30, 30, "3"), interval(40, 40, "3.00")],
        &["0: 2@0 3@30 2@0 3.00@40 = 2.5, 1"],
    );
}

#[test]
fn buckets_that_no_span_meets_are_left_out_or_filled() {
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
    // Nothing fills what comes before the first rate.
    check(minutes(0, 130, 130, true), &[interval(125, 125, "7")], &["2: 7@125 7@125 7@125 7@125 = 7, 0"]);
}

#[test]
fn nothing_after_now_counts() {
    let intervals = [interval(30, 90, "2"), interval(70, 90, "5"), interval(100, 100, "9"), interval(130, 130, "8")];
    check(
        minutes(0, 600, 80, false),
        &intervals,
        &["0: 2@30 2@30 2@30 2@30 = 2, 0", "1: 2@60 5@70 2@60 5@70 = 3.5, 1"],
    );
    // A bucket that begins now has its rate, and no time to average over.
    check(minutes(60, 600, 60, true), &intervals, &["1: 2@60 2@60 2@60 2@60 = 2, 0"]);
    check(minutes(60, 600, 59, true), &intervals, &[]);
    check(minutes(0, 600, 30, false), &intervals, &["0: 2@30 2@30 2@30 2@30 = 2, 0"]);
}

#[test]
fn an_error_ends_the_candles() {
    let pieces =
        [Ok(vec![interval(10, 10, "2"), interval(70, 70, "3")]), Err("damaged"), Ok(vec![interval(500, 500, "4")])];
    let candles: Vec<_> = Candles::new(minutes(0, 600, 600, false), pieces.into_iter()).collect();
    assert_eq!(candles.len(), 2);
    assert!(candles[0].is_ok() && candles[1].as_ref().is_err_and(|error| *error == "damaged"));
}

/// What the model says of one minute, from the rate at each of its seconds.
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
    // The last second counts only if it is over.
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
    let met = seconds.iter().any(|(second, interval)| at(*second) <= interval.seen_until);
    Some(format!(
        "{minute}: {}@{open_s} {}@{high_s} {}@{low_s} {}@{close_s} = {}, {moves}{}",
        open.rate,
        high.rate,
        low.rate,
        close.rate,
        significant(&average, SIGNIFICANT_DIGITS, Rounding::HalfEven),
        if met { "" } else { "*" }
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
                    LegInterval { from: at(from), seen_until: at((from + span).min(end - 1)), rate },
                    RateBound::Value,
                )
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn candles_equal_the_model_asked_at_every_instant(
        intervals in timelines(), first in 0..15_i64, count in 0..18_i64, now_s in 0..1_000_i64, fill in any::<bool>(),
    ) {
        let plan = minutes(first * MINUTE_S, (first + count) * MINUTE_S, now_s, fill);
        let all = (first..first + count).filter_map(|minute| model(&intervals, minute, now_s));
        let expect: Vec<String> = all.filter(|words| fill || !words.ends_with('*')).collect();
        let found: Vec<String> = fold(plan, &intervals).iter().map(words).collect();
        prop_assert_eq!(&found, &expect);
        // A list taken up anywhere goes on as it would have.
        for (at, candle) in fold(plan, &intervals).iter().enumerate() {
            let rest = CandlePlan { first: candle.bucket.end, ..plan };
            let rest: Vec<String> = fold(rest, &intervals).iter().map(words).collect();
            prop_assert_eq!(&rest, &expect[at + 1..]);
        }
    }

    #[test]
    fn an_average_is_the_exact_fraction_rounded_once(
        gaps in prop::collection::vec((1..5_000_000_i64, 1..10_u128.pow(28), 8..=18_u32), 1..20),
    ) {
        let buckets = Buckets { zone: Zone::UTC, interval: Interval::Hour };
        let (mut intervals, mut sum, mut micros) = (Vec::new(), BigRational::from_integer(0.into()), 0);
        for (gap, mantissa, places) in gaps {
            let rate = Rate::from_parts(mantissa, places).unwrap();
            let from = Timestamp::from_micros(micros);
            intervals.push(RateInterval::of(LegInterval { from, seen_until: from, rate: LegRate { rate, inverted: false } }, RateBound::Value));
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
    fn bounds_are_those_of_all_that_the_rates_may_stand_for(
        ticks in prop::collection::btree_map(0..300_i64, (10..60_u128, 0..2_u32, 0..=10_u128), 1..12),
    ) {
        let plan = minutes(0, 600, 300, true);
        let intervals = |rate: &dyn Fn(u128, u32, u128) -> RoundedRate| -> Vec<Candle> {
            let interval = |(from, (mantissa, places, tenths)): (&i64, &(u128, u32, u128))| {
                RateInterval { from: at(*from), seen_until: at(*from), rate: rate(*mantissa, *places, *tenths) }
            };
            fold(plan, &ticks.iter().map(interval).collect::<Vec<_>>())
        };
        let leg = |mantissa, places| {
            Legs::One(LegRate { rate: Rate::from_parts(mantissa, places).unwrap(), inverted: false })
        };
        let [low, value, high] = [RateBound::Low, RateBound::Value, RateBound::High]
            .map(|bound| intervals(&|mantissa, places, _| leg(mantissa, places).rounded(bound)));
        // Somewhere within half a unit of what was published.
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
            // The short way is the long one.
            if let Some(short) = CandleBounds::published(value) {
                let numbers = |bounds: &CandleBounds| {
                    [bounds.open, bounds.high, bounds.low, bounds.close].map(|both| both.map(RoundedRate::value))
                };
                prop_assert_eq!(numbers(&short), numbers(&bounds));
                prop_assert_eq!(&short.average, &bounds.average);
            } else {
                prop_assert!(value.move_count > 0, "rates of different places");
            }
        }
    }
}
