//! Restoring of held ticks.
//!
//! **Invariant**: held ticks that [`super::super::verify()`] would report are refused.

use std::collections::HashSet;

use super::super::error::StoreError;
use super::super::keys;
use super::super::quarantine::HeldRecord;
use super::{Restore, RestoreError, RestoreProblem};
use crate::domain::{HeldTick, Timestamp, Verdict};

impl Restore {
    /// Writes all held ticks, which must be sorted by id. An id may be missing: its tick was decided and has left the
    /// list. All series must have been written before.
    ///
    /// # Errors
    /// `Quarantine` if a held tick is invalid; `Store` if writing fails; any error of the iterator.
    pub fn quarantine<E: From<RestoreError>>(
        &mut self,
        ticks: impl Iterator<Item = Result<HeldTick, E>>,
    ) -> Result<(), E> {
        let (mut last_id, mut before, mut not_released) = (0, Timestamp::MIN, HashSet::new());
        for tick in ticks {
            let tick = tick?;
            let refuse = |problem| RestoreError::Quarantine { id: tick.id, problem };
            if tick.id <= last_id {
                return Err(refuse(RestoreProblem::UnexpectedId(last_id)).into());
            }
            last_id = tick.id;
            let is_released = tick.decision.as_ref().is_some_and(|decision| decision.verdict == Verdict::Released);
            if !is_released && !not_released.insert((tick.series.clone(), tick.observed_time, tick.value)) {
                return Err(refuse(RestoreProblem::DuplicateTick(tick.observed_time)).into());
            }
            self.check_held(&tick, before)?;
            before = tick.held_time;
            self.put_held(&tick)?;
        }
        self.writer.write(&self.engine).map_err(RestoreError::from)?;
        Ok(())
    }

    /// Checks the times of a held tick. `before` is the held time of the previous tick.
    fn check_held(&self, tick: &HeldTick, before: Timestamp) -> Result<(), RestoreError> {
        let refuse = |problem| RestoreError::Quarantine { id: tick.id, problem };
        if !(Timestamp::OLDEST_OBSERVED..=Timestamp::MAX).contains(&tick.observed_time) {
            return Err(refuse(RestoreProblem::ObservedTime(tick.observed_time)));
        }
        if tick.held_time < before {
            return Err(refuse(RestoreProblem::OutOfOrder { what: "held tick", time: tick.held_time, before }));
        }
        let decided = tick.decision.as_ref().map(|decision| decision.decided_time);
        if let Some(decided) = decided.filter(|decided| *decided <= tick.held_time) {
            return Err(refuse(RestoreProblem::DecidedTooEarly { held: tick.held_time, decided }));
        }
        for time in [tick.held_time].into_iter().chain(decided) {
            match self.commits.contain(time, &self.reader) {
                Ok(true) => {}
                Ok(false) => return Err(refuse(RestoreProblem::UnknownCommit(time))),
                Err(error) => return Err(StoreError::of_commits(error).into()),
            }
        }
        Ok(())
    }

    /// Writes the record of a held tick.
    fn put_held(&mut self, tick: &HeldTick) -> Result<(), RestoreError> {
        let Some(series) = self.keys.get(&*tick.series) else {
            let problem = RestoreProblem::UnknownSeries((*tick.series).clone());
            return Err(RestoreError::Quarantine { id: tick.id, problem });
        };
        let key = keys::quarantine(tick.id);
        let (value, crc) = keys::encode_checksummed(&key, &HeldRecord::new(*series, tick))?;
        self.writer.digest.add(crc);
        Ok(self.writer.put(&key, value, &self.engine)?)
    }
}
