//! Candles: open, high, low, close and average of a rate in each bucket, folded from rate intervals in one pass.
//!
//! A rate is in force until the next rate, so a bucket may have a rate without an observation in the bucket. A rate is
//! *confirmed* from the first to the last observed time of its run. The covered part of a bucket begins at the start of
//! the bucket, or at the first observation of the series if that is later. The covered part ends at the end of the
//! bucket, or at now if that is earlier.
//!
//! **Invariant**: each rate interval is read once and dropped, so memory does not grow with the number of intervals.
//! Rate intervals that begin after now do not count, and no bucket starts after now.

use std::cmp::Ordering;

use num_rational::BigRational;

use super::bucket::{Bucket, Buckets};
use super::cross::RateInterval;
use super::fraction::{difference, quotient, sum};
use super::rounded::Rounded;
use super::rounded_rate::{RoundedRate, at_places};
use super::rounding::{Rounding, SIGNIFICANT_DIGITS, significant, units};
use super::weighted::WeightedSum;
use crate::domain::Timestamp;

/// A rate and the first instant of the bucket at which the rate was in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CandlePoint {
    /// The time at which the rate came into force, or the start of the bucket if that is later.
    pub time: Timestamp,
    /// The rate, rounded as in an answer.
    pub rate: RoundedRate,
}

/// The candle of one bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candle {
    /// The bucket of the candle.
    pub bucket: Bucket,
    /// The rate in force at the start of the bucket, or the first rate in the bucket if no rate was in force at the
    /// start.
    pub open: CandlePoint,
    /// The highest rate, with the first time at which it was in force.
    pub high: CandlePoint,
    /// The lowest rate, with the first time at which it was in force.
    pub low: CandlePoint,
    /// The rate in force just before the end of the bucket, or at now if now is earlier. The time of this point is the
    /// start of the last rate interval, or the start of the bucket if that is later, even if the previous rate interval
    /// has an equal rate.
    pub close: CandlePoint,
    /// The exact average, weighted by the time that each rate was in force. If the covered part of the bucket is empty,
    /// this is the rate in force.
    pub average: BigRational,
    /// The number of moves. A move is a rate interval that begins in the bucket and has a different rate than the
    /// previous rate interval. If only the number of places differs, the rate interval is no move.
    pub move_count: u64,
    /// Whether no rate was confirmed at any time in the bucket, so that the candle repeats the previous close.
    pub filled: bool,
    /// The number of places of the rates in the bucket; `None` if the rates have different numbers of places.
    pub places: Option<i16>,
}

/// The bounds of a candle: the lowest and the highest number that each value may stand for, ends included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CandleBounds {
    /// The bounds of the open.
    pub open: [RoundedRate; 2],
    /// The bounds of the high. They may come from different rates: the rate with the highest value need not have the
    /// highest bounds.
    pub high: [RoundedRate; 2],
    /// The bounds of the low, which may come from different rates as well.
    pub low: [RoundedRate; 2],
    /// The bounds of the close.
    pub close: [RoundedRate; 2],
    /// The bounds of the average: exact averages of the bounds of the rates. Bounds of derived rates are rounded
    /// outward.
    pub average: [BigRational; 2],
}

impl CandleBounds {
    /// Combines two candles of one bucket. `low` is the candle of the lower bounds of all rates, and `high` is the
    /// candle of the upper bounds.
    pub fn between(low: &Candle, high: &Candle) -> Self {
        Self {
            open: [low.open.rate, high.open.rate],
            high: [low.high.rate, high.high.rate],
            low: [low.low.rate, high.low.rate],
            close: [low.close.rate, high.close.rate],
            average: [low.average.clone(), high.average.clone()],
        }
    }

    /// Returns the bounds of a candle of published rates that all have the same number of places: half a unit in the
    /// last place on either side. The bounds of such rates have the same order as the rates. Returns `None` if the
    /// rates have different numbers of places.
    pub fn published(candle: &Candle) -> Option<Self> {
        let places = candle.places?;
        let around = |point: CandlePoint| [point.rate.half_unit_below(), point.rate.half_unit_above()];
        let half = at_places(5.into(), places + 1);
        Some(Self {
            open: around(candle.open),
            high: around(candle.high),
            low: around(candle.low),
            close: around(candle.close),
            average: [difference(&candle.average, &half), sum(&candle.average, &half)],
        })
    }

    /// Returns the bounds of the average with 15 significant digits, rounded outward.
    pub fn rounded_average(&self) -> [Rounded; 2] {
        let [low, high] = &self.average;
        [significant(low, SIGNIFICANT_DIGITS, Rounding::Down), significant(high, SIGNIFICANT_DIGITS, Rounding::Up)]
    }
}

impl Candle {
    /// Returns the average with 15 significant digits, rounded half-even.
    pub fn rounded_average(&self) -> Rounded {
        significant(&self.average, SIGNIFICANT_DIGITS, Rounding::HalfEven)
    }

    /// Returns the average as a whole number of units of `10^-places`, rounded half-even. Returns `None` if the number
    /// does not fit in 128 bits. Published rates have at most 18 places, for which the number always fits.
    pub fn average_units(&self, places: u8) -> Option<u128> {
        u128::try_from(units(&self.average, places.into(), Rounding::HalfEven)).ok()
    }
}

/// The parameters of a list of candles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CandlePlan {
    /// The buckets of the candles.
    pub buckets: Buckets,
    /// An instant in the first bucket.
    pub first: Timestamp,
    /// The end of the list, exclusive: every bucket starts before this time.
    pub end: Timestamp,
    /// The current time. Rate intervals that begin later do not count.
    pub now: Timestamp,
    /// Whether a bucket in which no rate was confirmed has a candle. Buckets before the first rate never have a candle.
    pub fill: bool,
}

/// An iterator that computes candles from rate intervals. The input has the intervals in pieces: a piece is a `Vec` of
/// consecutive intervals. The intervals must be in order of time and must begin with the interval in force before the
/// first bucket.
pub struct Candles<S> {
    pieces: S,
    /// The intervals of the last piece that are not in force yet.
    ahead: std::vec::IntoIter<RateInterval>,
    plan: CandlePlan,
    /// The next bucket to fold; `None` at the end.
    bucket: Option<Bucket>,
    in_force: Option<RateInterval>,
}

/// The builder of one candle.
struct CandleBuilder {
    open: CandlePoint,
    high: CandlePoint,
    low: CandlePoint,
    /// The rate in force. `sum` contains the weights until `close.time`.
    close: CandlePoint,
    sum: WeightedSum,
    move_count: u64,
    is_confirmed: bool,
}

impl CandleBuilder {
    fn new(time: Timestamp, rate: RoundedRate, is_confirmed: bool) -> Self {
        let open = CandlePoint { time, rate };
        Self { open, high: open, low: open, close: open, sum: WeightedSum::default(), move_count: 0, is_confirmed }
    }

    fn add_weight_until(&mut self, time: Timestamp) {
        let weight = u64::try_from(time.micros_since(self.close.time)).unwrap_or(0);
        self.sum.add(self.close.rate, weight);
    }

    fn change(&mut self, interval: &RateInterval) {
        let next = CandlePoint { time: interval.from, rate: interval.rate };
        self.add_weight_until(next.time);
        self.is_confirmed = true;
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
        self.add_weight_until(covered_to);
        let places = self.sum.places();
        let covered_us = covered_to.micros_since(self.open.time);
        let average = match covered_us {
            1.. => quotient(&self.sum.total(), &BigRational::from_integer(covered_us.into())),
            _ => self.close.rate.value(),
        };
        Candle {
            bucket,
            open: self.open,
            high: self.high,
            low: self.low,
            close: self.close,
            average,
            move_count: self.move_count,
            filled: !self.is_confirmed,
            places,
        }
    }
}

impl<S, E> Candles<S>
where
    S: Iterator<Item = Result<Vec<RateInterval>, E>>,
{
    /// Creates the candles of `plan` from the rate intervals of `pieces`.
    pub fn new(plan: CandlePlan, pieces: S) -> Self {
        Self { pieces, ahead: Vec::new().into_iter(), plan, bucket: Some(plan.buckets.at(plan.first)), in_force: None }
    }

    /// Reads the next piece if no interval of the last piece is left. Returns false at the end.
    fn load_ahead(&mut self) -> Result<bool, E> {
        while self.ahead.as_slice().is_empty() {
            match self.pieces.next().transpose()? {
                Some(piece) => self.ahead = piece.into_iter(),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Calls `take(previous, interval)` for each rate interval that begins at or before `time`. `previous` is the rate
    /// interval before `interval`.
    fn take_until(
        &mut self,
        time: Timestamp,
        mut take: impl FnMut(Option<RateInterval>, RateInterval),
    ) -> Result<(), E> {
        while self.load_ahead()? {
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

    /// Folds the candle of `bucket`. Returns `None` if the series has no rate in the bucket or before it.
    fn fold(&mut self, bucket: Bucket) -> Result<Option<Candle>, E> {
        let mut moved_at_start = false;
        self.take_until(bucket.start, |before, interval| {
            let moved = before.is_some_and(|before| before.rate.cmp_number(interval.rate) != Ordering::Equal);
            moved_at_start = moved && interval.from == bucket.start;
        })?;
        let mut builder = self
            .in_force
            .map(|interval| CandleBuilder::new(bucket.start, interval.rate, interval.confirmed_until >= bucket.start));
        let last = bucket.end.saturating_add_us(-1).min(self.plan.now);
        self.take_until(last, |_, interval| match &mut builder {
            None => builder = Some(CandleBuilder::new(interval.from, interval.rate, true)),
            Some(builder) => builder.change(&interval),
        })?;
        Ok(builder.map(|mut builder| {
            builder.move_count += u64::from(moved_at_start);
            builder.finish(bucket, self.plan.now)
        }))
    }

    /// Returns the bucket to fold after `bucket`. Skips buckets that cannot have a candle.
    fn after(&self, bucket: Bucket) -> Bucket {
        let next = self.plan.buckets.at(bucket.end);
        let next_has_candle =
            self.in_force.is_some_and(|interval| self.plan.fill || interval.confirmed_until >= next.start);
        match self.ahead.as_slice().first() {
            _ if next_has_candle => next,
            Some(ahead) if ahead.from >= next.end => self.plan.buckets.at(ahead.from),
            Some(_) => next,
            // No interval follows, and the interval in force was not confirmed after `bucket`.
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
