//! Admission of ticks into a transaction. A tick goes into its series, or is held in quarantine if its rate differs too
//! much from the rate in force. The module also applies decisions about held ticks.
//!
//! **Invariant**: a tick is checked against the rate in force once, when it arrives. The release of a held tick does
//! not check the tick again.

use std::sync::Arc;

use super::Store;
use super::quarantine::{Quarantine, QuarantineChange, TickLayout};
use super::series::Access;
use super::write_transaction::{SeriesId, UpsertError, Upserted, WriteTransaction};
use crate::domain::{Decision, HeldTick, Note, PublishedValue, Rate, RatioThreshold, Timestamp, Verdict};

/// The result of the admission of a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admitted {
    /// The tick is in its series.
    Stored(Upserted),
    /// The tick is held in quarantine, or was held and discarded.
    Held {
        /// The id of the held tick.
        id: u64,
        /// Whether this transaction put the tick into quarantine.
        is_new: bool,
        /// Whether the tick was discarded before.
        is_discarded: bool,
        /// The rate in force at the tick's observed time when the tick first arrived.
        rate_in_force: Rate,
    },
}

/// The result of a decision about a held tick.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decided {
    /// The tick was released and is now in its series.
    Released(Upserted),
    /// The tick was discarded.
    Discarded,
    /// The same decision was made before. Nothing changed.
    Already,
    /// The decision was refused. Nothing changed.
    Refused(DecisionRefusal),
}

/// Why a decision about a held tick was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DecisionRefusal {
    /// No tick has this id.
    UnknownId,
    /// The opposite decision was made before; its verdict is given here.
    DecidedOtherwise(Verdict),
    /// The released tick was refused by its series.
    Upsert(UpsertError),
}

impl WriteTransaction<'_> {
    /// Puts a value at an instant of a series, or holds the tick if its rate and the rate in force at its observed time
    /// differ by the ratio `threshold` or more. Without a threshold, no tick is held.
    ///
    /// A tick that is already held or discarded stays held or discarded. A tick that was released before is stored. In
    /// these cases the present rate in force has no influence.
    ///
    /// # Errors
    /// [`UpsertError`] if the tick is refused. In this case nothing has changed. Without `revise`, a tick at an instant
    /// with another value is refused as a conflict. It is not held, even if the rates differ much.
    pub fn admit(
        &mut self,
        series: SeriesId,
        time: Timestamp,
        value: PublishedValue,
        revise: bool,
        threshold: Option<RatioThreshold>,
    ) -> Result<Admitted, UpsertError> {
        if let Some(threshold) = threshold
            && let Some(held) = self.hold_if_outlier(series.0, time, value, revise, threshold)?
        {
            return Ok(held);
        }
        self.upsert(series, time, value, revise).map(Admitted::Stored)
    }

    /// Holds a tick if its rate is too far from the rate in force. Returns `None` if the tick must go on to its series,
    /// which stores it or refuses it.
    fn hold_if_outlier(
        &mut self,
        series: u32,
        time: Timestamp,
        value: PublishedValue,
        revise: bool,
        threshold: RatioThreshold,
    ) -> Result<Option<Admitted>, UpsertError> {
        let in_force = self.store.in_force(series, time)?;
        let earlier = self.store.quarantine.find(series, time, value);
        let is_outlier = |in_force: &PublishedValue| {
            in_force.rate != value.rate && threshold.is_reached_by(in_force.rate, value.rate)
        };
        // Nearly every tick takes this path.
        if earlier.is_none() && !in_force.as_ref().is_some_and(is_outlier) {
            return Ok(None);
        }
        let verdict = earlier.and_then(|tick| tick.decision.as_ref()).map(|decision| decision.verdict);
        let earlier = earlier.map(|tick| (tick.id, tick.rate_in_force));
        // If the series has this instant, the value in force is the value at this instant.
        let goes_to_series = verdict == Some(Verdict::Released)
            || (!revise || in_force == Some(value)) && self.store.has_instant(series, time)?;
        if goes_to_series {
            return Ok(None);
        }
        match (earlier, in_force) {
            (Some((id, rate_in_force)), _) => {
                let is_discarded = verdict == Some(Verdict::Discarded);
                Ok(Some(Admitted::Held { id, is_new: false, is_discarded, rate_in_force }))
            }
            (None, Some(in_force)) => self.hold(series, time, value, in_force.rate),
            (None, None) => Ok(None),
        }
    }

    /// Puts a tick that was not held before into quarantine.
    fn hold(
        &mut self,
        series: u32,
        observed_time: Timestamp,
        value: PublishedValue,
        rate_in_force: Rate,
    ) -> Result<Option<Admitted>, UpsertError> {
        let Some(series_of_id) = self.store.series.get(series as usize - 1) else { return Ok(None) };
        let key = &series_of_id.key;
        let configured = Arc::clone(&self.store.options.configured_sources);
        let quarantine = &mut self.store.quarantine;
        quarantine.check_room(key, &configured).map_err(UpsertError::QuarantineFull)?;
        let tick = HeldTick {
            id: quarantine.next_id(),
            series: Arc::clone(key),
            observed_time,
            value,
            rate_in_force,
            held_time: self.recorded_time,
            decision: None,
        };
        let id = tick.id;
        self.quarantine.push(QuarantineChange::Held { id, tick: TickLayout::new(series, &tick) });
        quarantine.push(series, tick, None);
        Ok(Some(Admitted::Held { id, is_new: true, is_discarded: false, rate_in_force }))
    }

    /// Returns the held ticks, including the changes of this transaction.
    pub fn quarantine(&self) -> &Quarantine {
        self.store.quarantine.list()
    }

    /// Decides held ticks, one by one, sorted by observed time and id. Returns a result for each id, in the order of
    /// `ids`. A released tick is put into its series like a new tick, with `revise` for an instant that has another
    /// value. If the series refuses the tick, the tick stays held.
    pub fn decide(&mut self, ids: &[u64], verdict: Verdict, note: Option<&Note>, revise: bool) -> Vec<Decided> {
        let sort_key = |id: u64| self.store.quarantine.list().get(id).map(|tick| (tick.observed_time, id));
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|at| sort_key(ids[*at]));
        let mut results = vec![Decided::Already; ids.len()];
        let mut decided = Vec::new();
        let decision = Decision { verdict, decided_time: self.recorded_time, note: note.cloned() };
        for at in order {
            results[at] = self.decide_one(ids[at], verdict, revise);
            if matches!(results[at], Decided::Released(_) | Decided::Discarded) {
                self.store.quarantine.decide(ids[at], decision.clone());
                decided.push(ids[at]);
            }
        }
        if !decided.is_empty() {
            let released = verdict == Verdict::Released;
            let note = note.map(Note::to_string);
            self.quarantine.push(QuarantineChange::Decided { ids: decided, released, note });
        }
        results
    }

    /// Decides one held tick. A released tick is put into its series; the caller marks the held tick as decided.
    fn decide_one(&mut self, id: u64, verdict: Verdict, revise: bool) -> Decided {
        let Some(tick) = self.store.quarantine.list().get(id).cloned() else {
            return Decided::Refused(DecisionRefusal::UnknownId);
        };
        match (tick.decision.map(|decision| decision.verdict), verdict) {
            (Some(before), now) if before == now => Decided::Already,
            (Some(before), _) => Decided::Refused(DecisionRefusal::DecidedOtherwise(before)),
            (None, Verdict::Discarded) => Decided::Discarded,
            (None, Verdict::Released) => {
                let upserted = self
                    .series(&tick.series)
                    .and_then(|series| self.upsert(series, tick.observed_time, tick.value, revise));
                upserted.map_or_else(|error| Decided::Refused(DecisionRefusal::Upsert(error)), Decided::Released)
            }
        }
    }
}

impl Store {
    /// Returns the value in force at a time: the value of the last run that begins at or before the time.
    fn in_force(&self, id: u32, time: Timestamp) -> Result<Option<PublishedValue>, UpsertError> {
        let Some(series) = self.series_at(id) else { return Ok(None) };
        match &series.newest {
            None => Ok(None),
            // Nearly every tick takes this path.
            Some(newest) if newest.first_observed_time <= time => Ok(Some(newest.value)),
            Some(_) => {
                let access = Access { reader: &self.reader, recent: &self.recent };
                let run = series.runs.at_or_before(time, &access.runs());
                let run = run.map_err(|error| UpsertError::of_block(&series.key, error))?;
                Ok(run.map(|run| run.value))
            }
        }
    }

    /// Returns true if the series has an observation at this instant, with any value.
    fn has_instant(&self, id: u32, time: Timestamp) -> Result<bool, UpsertError> {
        let Some(series) = self.series_at(id) else { return Ok(false) };
        let access = Access { reader: &self.reader, recent: &self.recent };
        let has_instant = series.instants.contains(time, &access.instants());
        has_instant.map_err(|error| UpsertError::of_block(&series.key, error))
    }
}
