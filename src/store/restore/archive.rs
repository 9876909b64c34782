//! Restoring of the decisions to archive and unarchive sources.
//!
//! **Invariant**: decisions that [`super::super::verify()`] would report are refused.

use super::super::error::StoreError;
use super::{Restore, RestoreError, RestoreProblem};
use crate::domain::ArchiveDecision;

impl Restore {
    /// Adds the next decision to archive or unarchive a source. The decisions about a source must be in order of time.
    /// All commits must have been written before, and no series may have been written, because the latest quote of a
    /// series tells whether its source is archived.
    ///
    /// # Errors
    /// `Archive` if the decision is invalid; `Store` if reading fails.
    pub fn archive_decision(&mut self, decision: ArchiveDecision) -> Result<(), RestoreError> {
        let (of, time) = (decision.source.clone(), decision.recorded_time);
        if !self.commits.contain(time, &self.reader).map_err(StoreError::of_commits)? {
            return Err(RestoreError::Archive { of, problem: RestoreProblem::UnknownCommit(time) });
        }
        let follows = self.archive.add(decision);
        if follows { Ok(()) } else { Err(RestoreError::Archive { of, problem: RestoreProblem::NoReversal(time) }) }
    }
}
