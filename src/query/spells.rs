//! The rate of a pair over time, as candles take it: from the runs of one series, or of both legs of a cross.
//!
//! **Invariant**: pieces of the store are read one at a time, and none after the caller has gone.

use std::sync::Arc;

use super::pin::Pin;
use super::resolve::{Leg, Route};
use super::{QueryError, Reader, Stop};
use crate::analysis::{LegRate, LegSpell, Legs, Merged, Spell};
use crate::domain::Timestamp;
use crate::store::{ScanOrder, SeriesView, StoreError};

/// Spells in order of time.
pub(super) type Spells = Box<dyn Iterator<Item = Result<Spell, QueryError>> + Send>;

/// The items of pieces, one by one, until an error or the caller ends them.
pub(super) fn items<T>(
    pieces: impl Iterator<Item = Result<Vec<T>, StoreError>>,
    stop: Stop,
) -> impl Iterator<Item = Result<T, QueryError>> {
    pieces.flat_map(move |piece| {
        let piece = stop.check().and_then(|()| piece.map_err(QueryError::from));
        let (items, error) = piece.map_or_else(|error| (Vec::new(), Some(error)), |items| (items, None));
        items.into_iter().map(Ok).chain(error.map(Err))
    })
}

impl Reader {
    /// The runs of a leg that begin in `[start, end)`, and before them the one in force just before `start`.
    pub(super) fn leg_spells(
        &self,
        pin: &Pin,
        leg: &Leg<Arc<SeriesView>>,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<impl Iterator<Item = Result<LegSpell, QueryError>> + Send + use<>, QueryError> {
        let inverted = leg.inverted;
        let before = leg.series.run_at(start.saturating_add_us(-1), pin.known())?;
        let pieces = leg.series.runs(start, end.max(start), pin.known(), ScanOrder::Ascending)?;
        let runs = before.map(Ok).into_iter().chain(items(pieces, self.stop.clone()));
        Ok(runs.map(move |run| {
            run.map(|run| LegSpell {
                from: run.first_observed_time,
                seen_until: run.last_observed_time,
                rate: LegRate { rate: run.value.rate, inverted },
            })
        }))
    }

    /// The rates of a pair in force in `[start, end)`, the first perhaps from before.
    pub(super) fn spells(
        &self,
        pin: &Pin,
        route: &Route,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<Spells, QueryError> {
        Ok(match route.try_map(|leg| self.leg_spells(pin, leg, start, end))? {
            Legs::One(only) => Box::new(only.map(|spell| spell.map(Spell::from))),
            Legs::Two(first, second) => Box::new(Merged::new(first, second)),
        })
    }
}

/// The first instant at which a pair has a rate; none if it never had.
pub(super) fn first_rate_time(pin: &Pin, route: &Route) -> Result<Option<Timestamp>, QueryError> {
    let mut first = None;
    for leg in route.iter() {
        let Some(totals) = leg.series.totals(pin.known())? else { return Ok(None) };
        first = first.max(Some(totals.first_observed_time));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_end_with_damage_or_with_the_caller() {
        let damaged = || Err(StoreError::Damaged { path: "db".to_owned(), problem: "a block".to_owned() });
        let found: Vec<_> = items([Ok(vec![1, 2]), damaged()].into_iter(), Stop::default()).collect();
        assert!(matches!(found.as_slice(), [Ok(1), Ok(2), Err(QueryError::Store(_))]), "{found:?}");

        let stop = Stop::default();
        let guard = stop.on_drop();
        let mut endless = items(std::iter::repeat_with(|| Ok(vec![0])), stop);
        assert!(endless.next().is_some_and(|item| item.is_ok()));
        drop(guard);
        assert!(matches!(endless.next(), Some(Err(QueryError::Stopped))));
    }
}
