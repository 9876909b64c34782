//! Rate intervals of a pair. A rate interval is a rate with the time from which it is in force. Rate intervals are read
//! from the runs of one series, or of both legs of a cross, and are the input of candles and charts.
//!
//! Scans return their items in *pieces*. A piece is a `Vec` of consecutive items.
//!
//! **Invariant**: each leg is read one piece at a time, and no piece is read after cancellation.

use std::sync::Arc;

use super::as_of::AsOf;
use super::resolve::{Leg, Route};
use super::{QueryError, Reader, check_cancelled};
use tokio_util::sync::CancellationToken;

use crate::analysis::{LegInterval, LegRate, Legs, LegsInterval, Merged, MergedLegs, RateBound, RateInterval};
use crate::domain::{RateSpan, Timestamp};
use crate::store::{SeriesView, StoreError};

/// Rate intervals in order of time, in pieces. The candles of a long range need millions of intervals, and passing them
/// one by one costs more than the computation of the candles.
pub(super) type RateIntervals = Box<dyn Iterator<Item = Result<Vec<RateInterval>, QueryError>> + Send>;

/// The number of rate intervals in each piece of a cross. The last piece may have fewer.
const MERGED_PIECE_INTERVALS: usize = 1_024;

/// Returns the items of `pieces` one by one. Returns the error of a piece as an item. After cancellation, returns
/// `Cancelled` as an item instead of each piece.
pub(super) fn items<T>(
    pieces: impl Iterator<Item = Result<Vec<T>, StoreError>>,
    cancel: CancellationToken,
) -> impl Iterator<Item = Result<T, QueryError>> {
    pieces.flat_map(move |piece| {
        let piece = check_cancelled(&cancel).and_then(|()| piece.map_err(QueryError::from));
        let (items, error) = piece.map_or_else(|error| (Vec::new(), Some(error)), |items| (items, None));
        items.into_iter().map(Ok).chain(error.map(Err))
    })
}

impl Reader {
    /// Returns the intervals of a leg, one for each run: first the run in force just before `start`, then the runs that
    /// begin in `[start, end)`.
    pub(super) fn leg_intervals(
        &self,
        as_of: &AsOf,
        leg: &Leg<Arc<SeriesView>>,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<impl Iterator<Item = Result<LegInterval, QueryError>> + Send + use<>, QueryError> {
        let inverted = leg.inverted;
        let spans = items(rate_spans(as_of, leg, start, end)?, self.cancel.clone());
        Ok(spans.map(move |span| span.map(|span| leg_interval(span, inverted))))
    }

    /// Returns the exact rates of the legs of a pair that are in force in `[start, end)`, one interval for each run of a
    /// leg. The first interval may begin before `start`.
    pub(super) fn legs_intervals(
        &self,
        as_of: &AsOf,
        route: &Route,
        [start, end]: [Timestamp; 2],
    ) -> Result<Box<dyn Iterator<Item = Result<LegsInterval, QueryError>> + Send>, QueryError> {
        let leg = |leg| self.leg_intervals(as_of, leg, start, end);
        Ok(match route {
            Legs::One(only) => Box::new(leg(only)?.map(|interval| interval.map(LegsInterval::of))),
            Legs::Two(first, second) => Box::new(MergedLegs::new(leg(first)?, leg(second)?)),
        })
    }

    /// Returns the rate intervals of a pair that are in force in `[start, end)`. The first interval may begin before
    /// `start`. `bound` selects the rates themselves or one of their bounds.
    pub(super) fn intervals(
        &self,
        as_of: &AsOf,
        route: &Route,
        [start, end]: [Timestamp; 2],
        bound: RateBound,
    ) -> Result<RateIntervals, QueryError> {
        match route {
            Legs::One(leg) => {
                let (inverted, cancel) = (leg.inverted, self.cancel.clone());
                Ok(Box::new(rate_spans(as_of, leg, start, end)?.map(move |piece| {
                    check_cancelled(&cancel)?;
                    Ok(piece?.into_iter().map(|span| RateInterval::of(leg_interval(span, inverted), bound)).collect())
                })))
            }
            Legs::Two(first, second) => {
                let leg = |leg| self.leg_intervals(as_of, leg, start, end);
                Ok(Box::new(in_pieces(Merged::new(leg(first)?, leg(second)?, bound), MERGED_PIECE_INTERVALS)))
            }
        }
    }
}

/// Returns the rate spans of a leg, one for each run: first the run in force just before `start`, then the runs that
/// begin in `[start, end)`.
pub(super) fn rate_spans(
    as_of: &AsOf,
    leg: &Leg<Arc<SeriesView>>,
    start: Timestamp,
    end: Timestamp,
) -> Result<impl Iterator<Item = Result<Vec<RateSpan>, StoreError>> + Send + use<>, StoreError> {
    let before = leg.series.run_at(start.saturating_add_us(-1), as_of.known())?;
    let pieces = leg.series.rate_spans(start, end.max(start), as_of.known())?;
    Ok(before.map(|run| Ok(vec![run.into()])).into_iter().chain(pieces))
}

fn leg_interval(span: RateSpan, inverted: bool) -> LegInterval {
    LegInterval {
        from: span.first_observed_time,
        confirmed_until: span.last_observed_time,
        rate: LegRate { rate: span.rate, inverted },
    }
}

/// Groups items into pieces of `piece_items`. The first error ends the pieces and is the last item.
fn in_pieces<T, E>(
    items: impl Iterator<Item = Result<T, E>>,
    piece_items: usize,
) -> impl Iterator<Item = Result<Vec<T>, E>> {
    let mut items = items.fuse();
    let mut failed = None;
    std::iter::from_fn(move || {
        if let Some(error) = failed.take() {
            return Some(Err(error));
        }
        let mut piece = Vec::with_capacity(piece_items);
        for item in items.by_ref().take(piece_items) {
            match item {
                Ok(item) => piece.push(item),
                Err(error) if piece.is_empty() => return Some(Err(error)),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        (!piece.is_empty()).then_some(Ok(piece))
    })
}

/// Returns the first instant at which every leg of a pair has a rate; `None` if a leg has no quote.
pub(super) fn first_rate_time(as_of: &AsOf, route: &Route) -> Result<Option<Timestamp>, QueryError> {
    let mut first = None;
    for leg in route.iter() {
        let Some(first_of_leg) = leg.series.first_observed_time(as_of.known())? else { return Ok(None) };
        first = first.max(Some(first_of_leg));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_and_cancellation_are_returned_as_items() {
        let damaged = || Err(StoreError::Damaged { path: "db".to_owned(), problem: "a block".to_owned() });
        let found: Vec<_> = items([Ok(vec![1, 2]), damaged()].into_iter(), CancellationToken::new()).collect();
        assert!(matches!(found.as_slice(), [Ok(1), Ok(2), Err(QueryError::Store(_))]), "{found:?}");

        let cancel = CancellationToken::new();
        let guard = cancel.clone().drop_guard();
        let mut endless = items(std::iter::repeat_with(|| Ok(vec![0])), cancel);
        assert!(endless.next().is_some_and(|item| item.is_ok()));
        drop(guard);
        assert!(matches!(endless.next(), Some(Err(QueryError::Cancelled))));
    }

    #[test]
    fn all_pieces_except_the_last_are_full_and_an_error_ends_them() {
        let check = |items: &[Result<u8, &'static str>], expect: &[Result<Vec<u8>, &'static str>]| {
            let found: Vec<_> = in_pieces(items.iter().copied(), 2).collect();
            assert_eq!(found, expect);
        };
        check(&[], &[]);
        check(&[Ok(1), Ok(2), Ok(3)], &[Ok(vec![1, 2]), Ok(vec![3])]);
        check(&[Ok(1), Err("damage")], &[Ok(vec![1]), Err("damage")]);
        check(&[Ok(1), Ok(2), Err("damage")], &[Ok(vec![1, 2]), Err("damage")]);
    }
}
