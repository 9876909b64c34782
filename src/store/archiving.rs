//! Archiving: decisions to archive and unarchive sources, in a transaction.
//!
//! **Invariant**: a decision that changes nothing makes no commit.

use std::collections::BTreeSet;

use super::archive::{ArchiveChange, ArchiveRefusal};
use super::write_transaction::WriteTransaction;
use crate::domain::{ArchiveDecision, Note, Source, Timestamp};

impl WriteTransaction<'_> {
    /// Archives or unarchives a source. Returns false if the source already is in the requested state; then nothing has
    /// changed.
    ///
    /// # Errors
    /// [`ArchiveRefusal`] if the source has no series, or if the store has too many decisions.
    pub fn set_archived(
        &mut self,
        source: &Source,
        is_archived: bool,
        note: Option<Note>,
    ) -> Result<bool, ArchiveRefusal> {
        if !self.store.series.iter().any(|series| series.key.source == *source) {
            let available: BTreeSet<Source> =
                self.store.series.iter().map(|series| series.key.source.clone()).collect();
            let available = available.into_iter().collect();
            return Err(ArchiveRefusal::UnknownSource { wanted: source.clone(), available });
        }
        let decision = ArchiveDecision { source: source.clone(), is_archived, recorded_time: self.recorded_time, note };
        if self.store.archive.sources().is_archived(source, Timestamp::MAX) == is_archived {
            return Ok(false);
        }
        if self.store.archive.is_full() {
            return Err(ArchiveRefusal::TooManyDecisions);
        }
        let change = ArchiveChange::new(&decision);
        let is_added = self.store.archive.add(decision);
        if is_added {
            self.archive.push(change);
        }
        Ok(is_added)
    }
}
