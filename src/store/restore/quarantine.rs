//! The held ticks of a store in the making.
//!
//! **Invariant**: what [`super::super::verify()`] would object to is refused here.

use std::collections::HashSet;

use super::super::error::StoreError;
use super::super::keys;
use super::super::quarantine::HeldRecord;
use super::{Restore, RestoreError, RestoreProblem};
use crate::domain::{HeldTick, Timestamp, Verdict};

impl Restore {
    /// Takes all held ticks, in order of id, once all series are there.
    ///
    /// # Errors
    /// `Quarantine`, `Store`, and whatever the iterator ends in.
    pub fn quarantine<E: From<RestoreError>>(
        &mut self,
        ticks: impl Iterator<Item = Result<HeldTick, E>>,
    ) -> Result<(), E> {
        let (mut expected, mut before, mut standing) = (0, Timestamp::MIN, HashSet::new());
        for tick in ticks {
            let tick = tick?;
            expected += 1;
            let refuse = |problem| RestoreError::Quarantine { id: tick.id, problem };
            if tick.id != expected {
                return Err(refuse(RestoreProblem::Id(expected)).into());
            }
            let is_released = tick.decision.as_ref().is_some_and(|decision| decision.verdict == Verdict::Released);
            if !is_released && !standing.insert((tick.series.clone(), tick.observed_time, tick.value)) {
                return Err(refuse(RestoreProblem::HeldTwice(tick.observed_time)).into());
            }
            self.check_held(&tick, before)?;
            before = tick.held_time;
            self.put_held(&tick)?;
        }
        self.writer.write(&self.engine).map_err(RestoreError::from)?;
        Ok(())
    }

    /// Checks the times of a held tick whose predecessor was held at `before`.
    fn check_held(&self, tick: &HeldTick, before: Timestamp) -> Result<(), RestoreError> {
        let refuse = |problem| RestoreError::Quarantine { id: tick.id, problem };
        if !(Timestamp::OLDEST_OBSERVED..=Timestamp::MAX).contains(&tick.observed_time) {
            return Err(refuse(RestoreProblem::ObservedTime(tick.observed_time)));
        }
        if tick.held_time < before {
            return Err(refuse(RestoreProblem::Order { what: "held tick", time: tick.held_time, before }));
        }
        let decided = tick.decision.as_ref().map(|decision| decision.decided_time);
        if let Some(decided) = decided.filter(|decided| *decided <= tick.held_time) {
            return Err(refuse(RestoreProblem::Decided { held: tick.held_time, decided }));
        }
        for time in [tick.held_time].into_iter().chain(decided) {
            match self.commits.contain(time, &self.reader) {
                Ok(true) => {}
                Ok(false) => return Err(refuse(RestoreProblem::NoCommit(time))),
                Err(error) => return Err(StoreError::of_commits(error).into()),
            }
        }
        Ok(())
    }

    fn put_held(&mut self, tick: &HeldTick) -> Result<(), RestoreError> {
        let Some(series) = self.keys.get(&*tick.series) else {
            let problem = RestoreProblem::NoSeries((*tick.series).clone());
            return Err(RestoreError::Quarantine { id: tick.id, problem });
        };
        let key = keys::quarantine(tick.id);
        let (value, crc) = keys::seal_record(&key, &HeldRecord::new(*series, tick))?;
        self.writer.digest.add(crc);
        Ok(self.writer.put(&key, value, &self.engine)?)
    }
}
