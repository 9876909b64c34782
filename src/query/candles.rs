//! Pages of candles of a published or derived pair.
//!
//! **Invariant**: candles are computed one at a time while the rate intervals are read. Reading ends at cancellation.

use std::sync::Arc;

use super::as_of::AsOf;
use super::bucket_paging::{BucketCursor, BucketsRequest, last_buckets, page_buckets};
use super::need::Need;
use super::rate_intervals::{first_rate_time, items};
use super::resolve::{AnsweringLeg, Derivation, Leg, Route, derivation};
use super::{Answer, QueryError, Reader, check_cancelled};
use crate::analysis::{Bucket, Buckets, Candle, CandleBounds, CandlePlan, Candles, Legs, RateBound, Zone};
use crate::domain::{Interval, ScanOrder, Timestamp};
use crate::store::SeriesView;

/// The maximum number of buckets that are searched at once for the newest candles.
const BUCKETS_PER_WINDOW_MAX: usize = 20_000;

/// A request for a page of candles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CandlesRequest {
    /// The pair, the range and the page.
    pub list: BucketsRequest,
    /// The length of the candles.
    pub interval: Interval,
    /// Whether an empty bucket has a candle that repeats the previous close. A bucket is empty if it overlaps no run. A
    /// run lasts from its first to its last observed time.
    pub fill: bool,
    /// Whether to count the observations of each candle.
    pub count_observations: bool,
    /// Whether to compute the bounds of each candle. For a derived pair, this reads the legs and computes the candles
    /// two more times.
    pub find_bounds: bool,
}

/// A candle and its additional values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CandleRow {
    /// The candle.
    pub candle: Candle,
    /// The number of observed instants in the bucket, of all legs together, if requested. If `known_time` is before the
    /// newest commit, only instants within the runs known at that time are counted. Confirmations that were recorded
    /// later may be among these instants.
    pub observation_count: Option<u64>,
    /// Whether the bucket ended at or before the recorded time of the commit.
    pub complete: bool,
    /// The bounds of the candle, if requested.
    pub bounds: Option<Box<CandleBounds>>,
    /// The difference in age between the legs of a cross at the end of the bucket, or at now if now is earlier, in
    /// microseconds. Zero for one leg.
    pub leg_age_difference_us: i64,
}

/// A page of the candles of a pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CandlesPage {
    /// How the rates are derived from published rates.
    pub derivation: Derivation,
    /// The published series that the rates are derived from.
    pub legs: Vec<AnsweringLeg>,
    /// The time zone of the buckets.
    pub zone: Zone,
    /// The same zone if the buckets are days of a calendar, or longer.
    pub day_zone: Option<Zone>,
    /// The candles, in the requested order.
    pub rows: Vec<CandleRow>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<BucketCursor>,
}

impl Reader {
    /// Returns a page of candles.
    ///
    /// # Errors
    /// `UnknownSeries` or `Ambiguous` if no series can be chosen; `InvalidArgument` if there are too many buckets or
    /// fields contradict each other; `NothingKnownYet` if `known_time` is before the first commit; `Cancelled` after
    /// cancellation; `Store` if reading the store fails.
    pub fn candles(&self, request: &CandlesRequest) -> Result<Answer<CandlesPage>, QueryError> {
        let CandlesRequest { list, interval, .. } = request;
        let as_of = self.as_of_buckets(list)?;
        let need = Need::range(list.range, list.zone, as_of.now);
        let route = self.resolve(&as_of, list.pair, list.source.as_ref(), &list.leg_sources, &need)?;
        let first_rate = first_rate_time(&as_of, &route)?;
        let zone = self.zone(&route, list.zone, as_of.now);
        let range = list.range.in_zone(zone)?;
        // Days of a source are days in its zone; shorter candles are in UTC unless the request has a time zone.
        let is_calendar = interval.has_calendar_days();
        let buckets =
            Buckets { zone: if is_calendar { zone } else { list.zone.unwrap_or(Zone::UTC) }, interval: *interval };
        let mut page = CandlesPage {
            zone: buckets.zone,
            day_zone: is_calendar.then_some(zone),
            derivation: derivation(&route),
            legs: self.answering_legs(&as_of, &route, &need)?,
            rows: Vec::new(),
            next: None,
        };
        if let Some((first, end)) = page_buckets((list, range), ("interval", buckets), first_rate, as_of.now)? {
            let plan = CandlePlan { buckets, first: first.start, end, now: as_of.now, fill: request.fill };
            page.rows = match list.order {
                ScanOrder::Ascending => self.candle_rows(&as_of, &route, plan, request)?,
                ScanOrder::Descending => self.newest_candle_rows(&as_of, &route, (plan, first), request)?,
            };
            if page.rows.len() > list.limit {
                page.rows.truncate(list.limit);
                let last = page.rows.last();
                page.next = last.map(|row| BucketCursor { start: row.candle.bucket.start, now: as_of.now });
            }
        }
        Ok(Answer { commit: as_of.commit, body: page })
    }

    /// Returns the first candles of `plan` with their additional values, oldest first: at most one more than the limit
    /// of the request.
    fn candle_rows(
        &self,
        as_of: &AsOf,
        route: &Route,
        plan: CandlePlan,
        request: &CandlesRequest,
    ) -> Result<Vec<CandleRow>, QueryError> {
        let rows = self.fold_candles(as_of, route, plan, RateBound::Value)?;
        let mut rows = rows.take(request.list.limit + 1).collect::<Result<Vec<_>, _>>()?;
        if request.find_bounds {
            self.find_bounds(as_of, route, plan, &mut rows)?;
        }
        self.find_leg_ages(as_of, route, &mut rows)?;
        if request.count_observations {
            self.count_observations(as_of, route, &mut rows)?;
        }
        Ok(rows)
    }

    /// Returns the last candles of `plan`, newest first: at most one more than the limit of the request. `first` is the
    /// first bucket of the plan.
    fn newest_candle_rows(
        &self,
        as_of: &AsOf,
        route: &Route,
        (plan, first): (CandlePlan, Bucket),
        request: &CandlesRequest,
    ) -> Result<Vec<CandleRow>, QueryError> {
        let wanted = request.list.limit + 1;
        let (mut rows, mut end, mut window) = (Vec::new(), plan.end, wanted);
        while rows.len() < wanted && first.start < end {
            let from = last_buckets(plan.buckets, first, end, window);
            // A candle does not depend on the buckets before it, so the windows together have the candles of the plan.
            let within = CandlePlan { first: from.start, end, ..plan };
            let list = BucketsRequest { limit: window, ..request.list.clone() };
            let found = self.candle_rows(as_of, route, within, &CandlesRequest { list, ..*request })?;
            rows.extend(found.into_iter().rev());
            end = from.start;
            // Buckets without a candle make a window short: the next one is longer.
            window = window.saturating_mul(2).min(BUCKETS_PER_WINDOW_MAX);
        }
        rows.truncate(wanted);
        Ok(rows)
    }

    /// Returns an iterator over the candles of `plan`. The iterator computes a candle when the candle is requested.
    /// After cancellation, it returns `Cancelled`.
    pub(super) fn fold_candles(
        &self,
        as_of: &AsOf,
        route: &Route,
        plan: CandlePlan,
        bound: RateBound,
    ) -> Result<impl Iterator<Item = Result<CandleRow, QueryError>> + use<>, QueryError> {
        let intervals = self.intervals(as_of, route, [plan.first, as_of.now.saturating_add_us(1)], bound)?;
        let (cancel, known) = (self.cancel.clone(), as_of.known());
        Ok(Candles::new(plan, intervals).map(move |candle| {
            // Filling empty buckets takes time without reading a piece, so check here as well.
            check_cancelled(&cancel)?;
            let candle = candle?;
            let complete = candle.bucket.end <= known;
            Ok(CandleRow { candle, observation_count: None, complete, bounds: None, leg_age_difference_us: 0 })
        }))
    }

    /// Computes the bounds of `rows`, which are the first candles of `plan`.
    fn find_bounds(
        &self,
        as_of: &AsOf,
        route: &Route,
        plan: CandlePlan,
        rows: &mut [CandleRow],
    ) -> Result<(), QueryError> {
        if matches!(route, Legs::One(leg) if !leg.inverted) {
            for row in &mut *rows {
                row.bounds = CandleBounds::published(&row.candle).map(Box::new);
            }
        }
        if rows.iter().all(|row| row.bounds.is_some()) {
            return Ok(());
        }
        // Derived rates, and published rates with different numbers of places, need a pass over the legs for each
        // bound. The rate intervals of the bounds begin at the same times, so both passes have the buckets of `rows`.
        let low = self.fold_candles(as_of, route, plan, RateBound::Low)?;
        let high = self.fold_candles(as_of, route, plan, RateBound::High)?;
        for (row, (low, high)) in rows.iter_mut().zip(low.zip(high)) {
            row.bounds = Some(Box::new(CandleBounds::between(&low?.candle, &high?.candle)));
        }
        Ok(())
    }

    /// Computes the difference in age between the legs of a cross at the end of each row. The rows are in order of
    /// time.
    fn find_leg_ages(&self, as_of: &AsOf, route: &Route, rows: &mut [CandleRow]) -> Result<(), QueryError> {
        let (Legs::Two(first, second), Some(from), Some(to)) = (route, rows.first(), rows.last()) else {
            return Ok(());
        };
        let range = [from.candle.bucket.start, to.candle.bucket.end.min(as_of.now.saturating_add_us(1))];
        let [first, second] = [first, second].map(|leg| self.last_confirmed(as_of, leg, range, rows));
        for (row, (first, second)) in rows.iter_mut().zip(first?.into_iter().zip(second?)) {
            row.leg_age_difference_us = first.micros_since(second).saturating_abs();
        }
        Ok(())
    }

    /// For each row, returns the time of the last confirmation of a leg up to the end of the bucket, or up to now if
    /// now is earlier.
    fn last_confirmed(
        &self,
        as_of: &AsOf,
        leg: &Leg<Arc<SeriesView>>,
        [start, end]: [Timestamp; 2],
        rows: &[CandleRow],
    ) -> Result<Vec<Timestamp>, QueryError> {
        let mut intervals = self.leg_intervals(as_of, leg, start, end)?.peekable();
        let mut confirmed_until = Timestamp::MIN;
        let mut last_confirmed = Vec::with_capacity(rows.len());
        for row in rows {
            let end = row.candle.bucket.end.min(as_of.now.saturating_add_us(1));
            while let Some(interval) =
                intervals.next_if(|interval| interval.as_ref().map_or(true, |interval| interval.from < end))
            {
                confirmed_until = interval?.confirmed_until;
            }
            last_confirmed.push(confirmed_until.min(end));
        }
        Ok(last_confirmed)
    }

    /// Counts the instants of every leg in the buckets of `rows`, which are in order of time.
    fn count_observations(&self, as_of: &AsOf, route: &Route, rows: &mut [CandleRow]) -> Result<(), QueryError> {
        for row in &mut *rows {
            row.observation_count = Some(0);
        }
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
        let (start, end) = (first.candle.bucket.start, last.candle.bucket.end.min(as_of.now.saturating_add_us(1)));
        for leg in route.iter() {
            let mut spans = self.leg_intervals(as_of, leg, start, end)?.peekable();
            let mut confirmed_until = Timestamp::MIN;
            let mut rows = rows.iter_mut().peekable();
            for instant in items(leg.series.instants(start, end, ScanOrder::Ascending), self.cancel.clone()) {
                let instant = instant?;
                while let Some(span) = spans.next_if(|span| span.as_ref().map_or(true, |span| span.from <= instant)) {
                    confirmed_until = span?.confirmed_until;
                }
                while rows.next_if(|row| row.candle.bucket.end <= instant).is_some() {}
                if let Some(row) = rows.peek_mut()
                    && row.candle.bucket.start <= instant
                    && instant <= confirmed_until
                {
                    row.observation_count = row.observation_count.map(|count| count + 1);
                }
            }
        }
        Ok(())
    }
}
