//! Candles: what a rate did in each bucket, folded from rate intervals in one pass.
//!
//! A rate holds until the next one comes, so that a bucket has a rate wherever one was in force, observed there or not.
//! It is covered from its start, or from the first observation of all if that is later, up to its end, or to now if
//! that is earlier.
//!
//! **Invariant**: a rate interval is looked at once and dropped: memory does not grow with their number. Rate intervals after now do
//! not count, and no bucket begins after it.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_rational::BigRational;

use super::bucket::{Bucket, Buckets};
use super::cross::RateInterval;
use super::rounded::Rounded;
use super::rounded_rate::{RoundedRate, at_places};
use super::rounding::{Rounding, SIGNIFICANT_DIGITS, significant, units};
use super::weighted::WeightedSum;
use crate::domain::Timestamp;

/// A rate, and the first instant of the bucket at which it was in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CandlePoint {
    /// The start of the bucket if it was in force then.
    pub time: Timestamp,
    /// As answered.
    pub rate: RoundedRate,
}

/// What a rate did in one bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candle {
    /// When.
    pub bucket: Bucket,
    /// In force at its start, or the first one observed in it if none was.
    pub open: CandlePoint,
    /// The highest, the first time it was reached.
    pub high: CandlePoint,
    /// The lowest, the first time it was reached.
    pub low: CandlePoint,
    /// In force just before its end, or now; its time is that of its own run.
    pub close: CandlePoint,
    /// Weighted by the time that each rate was in force, exact; the rate itself if no time has passed.
    pub average: BigRational,
    /// How often the number changed, ends of rate intervals without a change left out.
    pub move_count: u64,
    /// Whether no rate interval was confirmed in it: all of it is the close before.
    pub filled: bool,
    /// The places of all rates in it, if they are the same.
    pub places: Option<i16>,
}

/// What the numbers of a candle may stand for, ends included: each is its least and its largest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CandleBounds {
    /// Of the open.
    pub open: [RoundedRate; 2],
    /// Of the highest: one rate may have been above all others by its value and not by its bounds.
    pub high: [RoundedRate; 2],
    /// Of the lowest.
    pub low: [RoundedRate; 2],
    /// Of the close.
    pub close: [RoundedRate; 2],
    /// Of the average, exact but for what the rates themselves were rounded.
    pub average: [BigRational; 2],
}

impl CandleBounds {
    /// Of the candle that is `low` where every rate is the least that it may stand for, and `high` where every one is
    /// the largest.
    pub fn between(low: &Candle, high: &Candle) -> Self {
        Self {
            open: [low.open.rate, high.open.rate],
            high: [low.high.rate, high.high.rate],
            low: [low.low.rate, high.low.rate],
            close: [low.close.rate, high.close.rate],
            average: [low.average.clone(), high.average.clone()],
        }
    }

    /// Of a candle of published rates that all have the same places: half a unit in the last of them either side, so
    /// that their order is that of their bounds. None if they have not.
    pub fn published(candle: &Candle) -> Option<Self> {
        let places = candle.places?;
        let around = |point: CandlePoint| [point.rate.half_unit_below(), point.rate.half_unit_above()];
        let half = at_places(5.into(), places + 1);
        Some(Self {
            open: around(candle.open),
            high: around(candle.high),
            low: around(candle.low),
            close: around(candle.close),
            average: [&candle.average - &half, &candle.average + &half],
        })
    }

    /// The bounds of the average, 15 significant digits, rounded outward.
    pub fn rounded_average(&self) -> [Rounded; 2] {
        let [low, high] = &self.average;
        [significant(low, SIGNIFICANT_DIGITS, Rounding::Down), significant(high, SIGNIFICANT_DIGITS, Rounding::Up)]
    }
}

impl Candle {
    /// The average, 15 significant digits, half-even.
    pub fn rounded_average(&self) -> Rounded {
        significant(&self.average, SIGNIFICANT_DIGITS, Rounding::HalfEven)
    }

    /// The average as a whole number of units of `10^-places`, half-even. None where 128 bits do not hold it, which 18
    /// places of a published rate never need.
    pub fn average_units(&self, places: u8) -> Option<u128> {
        u128::try_from(units(&self.average, places.into(), Rounding::HalfEven)).ok()
    }
}

/// Which candles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CandlePlan {
    /// Of these buckets.
    pub buckets: Buckets,
    /// From the bucket that holds this instant.
    pub first: Timestamp,
    /// Buckets that begin before this.
    pub end: Timestamp,
    /// Nothing after it counts.
    pub now: Timestamp,
    /// Also buckets that no rate interval's span meets, from the first rate on.
    pub fill: bool,
}

/// Folds pieces of rate intervals, in order of time and from the one in force before the first bucket on, into candles.
pub struct Candles<S> {
    pieces: S,
    /// Of the last piece taken from `pieces`, not yet in force.
    ahead: std::vec::IntoIter<RateInterval>,
    plan: CandlePlan,
    /// The next to fold; none when they are over.
    bucket: Option<Bucket>,
    in_force: Option<RateInterval>,
}

/// A candle under way.
struct Building {
    open: CandlePoint,
    high: CandlePoint,
    low: CandlePoint,
    /// The rate in force, weighed up to its time.
    close: CandlePoint,
    sum: WeightedSum,
    move_count: u64,
    met: bool,
}

impl Building {
    fn new(time: Timestamp, rate: RoundedRate, met: bool) -> Self {
        let open = CandlePoint { time, rate };
        Self { open, high: open, low: open, close: open, sum: WeightedSum::default(), move_count: 0, met }
    }

    fn weigh_until(&mut self, time: Timestamp) {
        let weight = u64::try_from(time.micros_since(self.close.time)).unwrap_or(0);
        self.sum.add(self.close.rate, weight);
    }

    fn change(&mut self, interval: &RateInterval) {
        let next = CandlePoint { time: interval.from, rate: interval.rate };
        self.weigh_until(next.time);
        self.met = true;
        match next.rate.cmp_number(self.close.rate) {
            Ordering::Equal => {}
            Ordering::Greater => {
                self.move_count += 1;
                if next.rate.cmp_number(self.high.rate) == Ordering::Greater {
                    self.high = next;
                }
            }
            Ordering::Less => {
                self.move_count += 1;
                if next.rate.cmp_number(self.low.rate) == Ordering::Less {
                    self.low = next;
                }
            }
        }
        self.close = next;
    }

    fn finish(mut self, bucket: Bucket, now: Timestamp) -> Candle {
        let covered_to = bucket.end.min(now);
        self.weigh_until(covered_to);
        let places = self.sum.places();
        let covered_us = covered_to.micros_since(self.open.time);
        let average =
            if covered_us > 0 { self.sum.total() / BigInt::from(covered_us) } else { self.close.rate.value() };
        Candle {
            bucket,
            open: self.open,
            high: self.high,
            low: self.low,
            close: self.close,
            average,
            move_count: self.move_count,
            filled: !self.met,
            places,
        }
    }
}

impl<S, E> Candles<S>
where
    S: Iterator<Item = Result<Vec<RateInterval>, E>>,
{
    /// Over the rate intervals of `pieces`.
    pub fn new(plan: CandlePlan, pieces: S) -> Self {
        Self { pieces, ahead: Vec::new().into_iter(), plan, bucket: Some(plan.buckets.at(plan.first)), in_force: None }
    }

    /// Takes the next piece if nothing is left of the last; false at the end.
    fn has_ahead(&mut self) -> Result<bool, E> {
        while self.ahead.as_slice().is_empty() {
            match self.pieces.next().transpose()? {
                Some(piece) => self.ahead = piece.into_iter(),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Takes the rate intervals that begin at or before `time`, one after the other.
    fn each_until(
        &mut self,
        time: Timestamp,
        mut take: impl FnMut(Option<RateInterval>, RateInterval),
    ) -> Result<(), E> {
        while self.has_ahead()? {
            let mut in_force = self.in_force;
            let due = self.ahead.as_slice().partition_point(|interval| interval.from <= time);
            for interval in self.ahead.by_ref().take(due) {
                take(in_force, interval);
                in_force = Some(interval);
            }
            self.in_force = in_force;
            if !self.ahead.as_slice().is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// The candle of `bucket`; none if no rate was in force yet.
    fn fold(&mut self, bucket: Bucket) -> Result<Option<Candle>, E> {
        let mut moved_at_start = false;
        self.each_until(bucket.start, |before, interval| {
            let moved = before.is_some_and(|before| before.rate.cmp_number(interval.rate) != Ordering::Equal);
            moved_at_start = moved && interval.from == bucket.start;
        })?;
        let mut building = self
            .in_force
            .map(|interval| Building::new(bucket.start, interval.rate, interval.seen_until >= bucket.start));
        let last = bucket.end.saturating_add_us(-1).min(self.plan.now);
        self.each_until(last, |_, interval| match &mut building {
            None => building = Some(Building::new(interval.from, interval.rate, true)),
            Some(building) => building.change(&interval),
        })?;
        Ok(building.map(|mut building| {
            building.move_count += u64::from(moved_at_start);
            building.finish(bucket, self.plan.now)
        }))
    }

    /// The bucket to fold after `bucket`: the next, or the next that anything happens in.
    fn after(&self, bucket: Bucket) -> Bucket {
        let next = self.plan.buckets.at(bucket.end);
        let holds_on = self.in_force.is_some_and(|interval| self.plan.fill || interval.seen_until >= next.start);
        match self.ahead.as_slice().first() {
            _ if holds_on => next,
            Some(ahead) if ahead.from >= next.end => self.plan.buckets.at(ahead.from),
            Some(_) => next,
            // Nothing comes any more, and what is in force was not confirmed since.
            None => Bucket { start: Timestamp::MAX, end: Timestamp::MAX },
        }
    }
}

impl<S, E> Iterator for Candles<S>
where
    S: Iterator<Item = Result<Vec<RateInterval>, E>>,
{
    type Item = Result<Candle, E>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let bucket = self.bucket.filter(|bucket| bucket.start < self.plan.end && bucket.start <= self.plan.now)?;
            match self.fold(bucket) {
                Err(error) => {
                    self.bucket = None;
                    return Some(Err(error));
                }
                Ok(candle) => {
                    self.bucket = Some(self.after(bucket));
                    if let Some(candle) = candle.filter(|candle| self.plan.fill || !candle.filled) {
                        return Some(Ok(candle));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
