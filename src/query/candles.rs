//! Candles of a pair, published or derived.

use super::periods::{BucketCursor, BucketsRequest, page_buckets};
use super::pin::Pin;
use super::resolve::{Derivation, Route, derivation};
use super::spells::{first_rate_time, items};
use super::{Answer, QueryError, Reader};
use crate::analysis::{Buckets, Candle, CandlePlan, Candles};
use crate::domain::{SeriesKey, Timestamp};

/// Asks for candles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CandlesRequest {
    /// Of what, when, and which page.
    pub list: BucketsRequest,
    /// Of these buckets.
    pub buckets: Buckets,
    /// Also buckets that no run's span meets, with the close before.
    pub fill: bool,
    /// Also how many observations there were.
    pub count_observations: bool,
}

/// A candle and what goes with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CandleRow {
    /// The candle.
    pub candle: Candle,
    /// Observed instants in its bucket, of all legs together, if asked for. Read as known earlier, those within the
    /// spans of the runs known then, so that it may include later confirmations.
    pub observation_count: Option<u64>,
    /// Whether its bucket ended at or before the recorded time seen.
    pub complete: bool,
}

/// A part of the candles of a pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CandlesPage {
    /// How its rates come about.
    pub derivation: Derivation,
    /// From these series.
    pub legs: Vec<SeriesKey>,
    /// In order of time.
    pub rows: Vec<CandleRow>,
    /// Where the next page goes on; none on the last.
    pub next: Option<BucketCursor>,
}

impl Reader {
    /// A page of candles.
    ///
    /// # Errors
    /// No such series, too many buckets, fields that contradict each other, the caller gone, or the store's.
    pub fn candles(&self, request: &CandlesRequest) -> Result<Answer<CandlesPage>, QueryError> {
        let CandlesRequest { list, buckets, .. } = request;
        let pin = self.pin_buckets(list)?;
        let route = self.resolve(&pin, list.pair, list.source.as_ref(), &list.leg_sources)?;
        let first_rate = first_rate_time(&pin, &route)?;
        let mut page = CandlesPage {
            derivation: derivation(&route),
            legs: route.iter().map(|leg| leg.series.key().clone()).collect(),
            rows: Vec::new(),
            next: None,
        };
        if let Some((first, end)) = page_buckets(list, ("interval", *buckets), first_rate, pin.now)? {
            let plan = CandlePlan { buckets: *buckets, first: first.start, end, now: pin.now, fill: request.fill };
            page.rows = self.fold(&pin, &route, plan)?.take(list.limit + 1).collect::<Result<_, _>>()?;
            if page.rows.len() > list.limit {
                page.rows.truncate(list.limit);
                let last = page.rows.last();
                page.next = last.map(|row| BucketCursor { start: row.candle.bucket.start, now: pin.now });
            }
            if request.count_observations {
                self.count_observations(&pin, &route, &mut page.rows)?;
            }
        }
        Ok(Answer { commit: pin.commit, body: page })
    }

    /// Candles one after the other, folded as they are taken, until the caller goes.
    pub(super) fn fold(
        &self,
        pin: &Pin,
        route: &Route,
        plan: CandlePlan,
    ) -> Result<impl Iterator<Item = Result<CandleRow, QueryError>> + use<>, QueryError> {
        let spells = self.spells(pin, route, plan.first, pin.now.saturating_add_us(1))?;
        let (stop, known) = (self.stop.clone(), pin.known());
        Ok(Candles::new(plan, spells).map(move |candle| {
            // Filling takes time without reading anything.
            stop.check()?;
            let candle = candle?;
            Ok(CandleRow { complete: candle.bucket.end <= known, candle, observation_count: None })
        }))
    }

    /// Counts the instants of every leg in the buckets of `rows`, which are in order.
    fn count_observations(&self, pin: &Pin, route: &Route, rows: &mut [CandleRow]) -> Result<(), QueryError> {
        for row in &mut *rows {
            row.observation_count = Some(0);
        }
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
        let (start, end) = (first.candle.bucket.start, last.candle.bucket.end.min(pin.now.saturating_add_us(1)));
        for leg in route.iter() {
            let mut spans = self.leg_spells(pin, leg, start, end)?.peekable();
            let mut seen_until = Timestamp::MIN;
            let mut rows = rows.iter_mut().peekable();
            for instant in items(leg.series.instants(start, end), self.stop.clone()) {
                let instant = instant?;
                while let Some(span) = spans.next_if(|span| span.as_ref().map_or(true, |span| span.from <= instant)) {
                    seen_until = span?.seen_until;
                }
                while rows.next_if(|row| row.candle.bucket.end <= instant).is_some() {}
                if let Some(row) = rows.peek_mut()
                    && row.candle.bucket.start <= instant
                    && instant <= seen_until
                {
                    row.observation_count = row.observation_count.map(|count| count + 1);
                }
            }
        }
        Ok(())
    }
}
