//! The way of a tick into a commit under way: into its series, or among the held ticks where its rate lies too far from the
//! rate in force; and of held ticks that are decided.
//!
//! **Invariant**: a tick is judged once, when it comes in, by the runs as they stand then; releasing it judges nothing
//! again.

use std::sync::Arc;

use super::Store;
use super::quarantine::{Quarantine, QuarantineChange, TickLayout};
use super::series::Access;
use super::write_transaction::{SeriesId, UpsertError, Upserted, WriteTransaction};
use crate::domain::{Decision, HeldTick, Note, PublishedValue, Rate, RatioThreshold, Timestamp, Verdict};

/// What became of a tick that was judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admitted {
    /// It lies near enough to the rate in force, or there is none.
    Stored(Upserted),
    /// It is held under this id, or was discarded under it before.
    Held {
        /// Of the held tick.
        id: u64,
        /// Whether this commit began to hold it.
        is_new: bool,
        /// Whether it was discarded before.
        is_discarded: bool,
        /// At the tick's place, when it came in first.
        rate_in_force: Rate,
    },
}

/// What became of a held tick that was to be decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decided {
    /// It went in, as a tick that comes in now would.
    Released(Upserted),
    /// It stays out.
    Discarded,
    /// It was decided this way before.
    Already,
    /// Nothing changed.
    Refused(DecisionRefusal),
}

/// Why a held tick was not decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DecisionRefusal {
    /// No tick has this id.
    UnknownId,
    /// It was decided the other way before.
    DecidedOtherwise(Verdict),
    /// The runs do not take it.
    Upsert(UpsertError),
}

impl WriteTransaction<'_> {
    /// Puts a value at an instant of a series, or holds it where its rate and the rate in force at its place are
    /// `factor` times apart or more. None passes everything.
    ///
    /// A tick that is held or was discarded stays so, and one that was released passes, whatever its rate and the rate
    /// in force by now: it was judged when it came first.
    ///
    /// # Errors
    /// [`UpsertError`]; then nothing has changed. A conflict that is not to revise is one, however far the rate.
    pub fn admit(
        &mut self,
        series: SeriesId,
        time: Timestamp,
        value: PublishedValue,
        revise: bool,
        factor: Option<RatioThreshold>,
    ) -> Result<Admitted, UpsertError> {
        if let Some(factor) = factor
            && let Some(held) = self.judge(series.0, time, value, revise, factor)?
        {
            return Ok(held);
        }
        self.upsert(series, time, value, revise).map(Admitted::Stored)
    }

    /// Keeps a tick out; none where it is to go in, or is known or conflicts.
    fn judge(
        &mut self,
        series: u32,
        time: Timestamp,
        value: PublishedValue,
        revise: bool,
        factor: RatioThreshold,
    ) -> Result<Option<Admitted>, UpsertError> {
        let in_force = self.store.in_force(series, time)?;
        let met = self.store.quarantine.find(series, time, value);
        let parts = |in_force: &PublishedValue| in_force.rate != value.rate && factor.parts(in_force.rate, value.rate);
        // Nearly every tick.
        if met.is_none() && !in_force.as_ref().is_some_and(parts) {
            return Ok(None);
        }
        let verdict = met.and_then(|tick| tick.decision.as_ref()).map(|decision| decision.verdict);
        let met = met.map(|tick| (tick.id, tick.rate_in_force));
        // What is in force at an instant that is known is its value.
        let goes_on = verdict == Some(Verdict::Released)
            || (!revise || in_force == Some(value)) && self.store.knows(series, time)?;
        if goes_on {
            return Ok(None);
        }
        match (met, in_force) {
            (Some((id, rate_in_force)), _) => {
                let is_discarded = verdict == Some(Verdict::Discarded);
                Ok(Some(Admitted::Held { id, is_new: false, is_discarded, rate_in_force }))
            }
            (None, Some(in_force)) => self.hold(series, time, value, in_force.rate),
            (None, None) => Ok(None),
        }
    }

    /// Holds a tick that was not held before.
    fn hold(
        &mut self,
        series: u32,
        observed_time: Timestamp,
        value: PublishedValue,
        rate_in_force: Rate,
    ) -> Result<Option<Admitted>, UpsertError> {
        let Some(of) = self.store.series.get(series as usize - 1) else { return Ok(None) };
        let keeper = &mut self.store.quarantine;
        keeper.room_for(&of.key).map_err(UpsertError::QuarantineFull)?;
        let tick = HeldTick {
            id: keeper.next_id(),
            series: Arc::clone(&of.key),
            observed_time,
            value,
            rate_in_force,
            held_time: self.recorded_time,
            decision: None,
        };
        let id = tick.id;
        self.quarantine.push(QuarantineChange::Held { id, tick: TickLayout::new(series, &tick) });
        keeper.push(series, tick, None);
        Ok(Some(Admitted::Held { id, is_new: true, is_discarded: false, rate_in_force }))
    }

    /// The held ticks as this commit is to leave them.
    pub fn quarantine(&self) -> &Quarantine {
        self.store.quarantine.list()
    }

    /// Decides held ticks, each by itself, in order of observed time and id; says what became of each in the order given.
    /// Released ones go in as ticks do that come in now, `revise` saying what of a value that is stored already; where
    /// that is refused, the tick stays held.
    pub fn decide(&mut self, ids: &[u64], verdict: Verdict, note: Option<&Note>, revise: bool) -> Vec<Decided> {
        let place = |id: u64| self.store.quarantine.list().get(id).map(|tick| (tick.observed_time, id));
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|at| place(ids[*at]));
        let mut answers = vec![Decided::Already; ids.len()];
        let mut decided = Vec::new();
        let decision = Decision { verdict, decided_time: self.recorded_time, note: note.cloned() };
        for at in order {
            answers[at] = self.decide_one(ids[at], verdict, revise);
            if matches!(answers[at], Decided::Released(_) | Decided::Discarded) {
                self.store.quarantine.decide(ids[at], decision.clone());
                decided.push(ids[at]);
            }
        }
        if !decided.is_empty() {
            let released = verdict == Verdict::Released;
            let note = note.map(Note::to_string);
            self.quarantine.push(QuarantineChange::Decided { ids: decided, released, note });
        }
        answers
    }

    /// What is to become of one, which is not marked as decided yet.
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
    /// The value in force at a time: that of the last run which begins at or before it.
    fn in_force(&self, id: u32, time: Timestamp) -> Result<Option<PublishedValue>, UpsertError> {
        let Some(series) = self.series_at(id) else { return Ok(None) };
        match &series.newest {
            None => Ok(None),
            // Nearly every tick.
            Some(newest) if newest.first_observed_time <= time => Ok(Some(newest.value)),
            Some(_) => {
                let access = Access { reader: &self.reader, recent: &self.recent };
                let run = series.runs.at_or_before(time, &access.runs());
                let run = run.map_err(|error| UpsertError::of_block(&series.key, error))?;
                Ok(run.map(|run| run.value))
            }
        }
    }

    /// Whether an instant of a series is known, with whatever value.
    fn knows(&self, id: u32, time: Timestamp) -> Result<bool, UpsertError> {
        let Some(series) = self.series_at(id) else { return Ok(false) };
        let access = Access { reader: &self.reader, recent: &self.recent };
        let known = series.instants.contains(time, &access.instants());
        known.map_err(|error| UpsertError::of_block(&series.key, error))
    }
}
