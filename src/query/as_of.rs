//! The commit that a read sees and the current time of the read.
//!
//! **Invariant**: a read sees one commit from start to end.

use super::{QueryError, Reader};
use crate::domain::Timestamp;
use crate::store::{Commit, StoreError};

/// The commit and the current time of one read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AsOf {
    /// The commit that the read sees: nothing recorded after its recorded time is visible.
    pub(super) commit: Commit,
    /// The current time of the read: the time of the clock, or, for a request with a known time, the recorded time of
    /// the commit. Relative times are relative to this time.
    pub(super) now: Timestamp,
    /// Whether the commit is the newest one. Only a read of the newest commit returns states and accepts `max_age`.
    pub(super) newest: bool,
}

impl AsOf {
    /// Selects the commit of a read. `earlier` finds the last commit that was recorded at or before a time; it is only
    /// called for a time before the newest commit.
    fn new(
        newest: Commit,
        now: Timestamp,
        known_time: Option<Timestamp>,
        earlier: impl FnOnce(Timestamp) -> Result<Option<Commit>, StoreError>,
    ) -> Result<Self, QueryError> {
        let Some(known_time) = known_time else {
            return Ok(Self { commit: newest, now, newest: true });
        };
        if known_time >= newest.recorded_time {
            return Ok(Self { commit: newest, now: newest.recorded_time, newest: true });
        }
        let commit = earlier(known_time)?.ok_or(QueryError::NothingKnownYet { known_time })?;
        Ok(Self { commit, now: commit.recorded_time, newest: false })
    }

    /// The recorded time up to which the store is read, inclusive.
    pub(super) const fn known(&self) -> Timestamp {
        self.commit.recorded_time
    }
}

impl Reader {
    /// Returns the commit and the current time of a read. `known_time` selects the commit; `None` means the newest one.
    ///
    /// # Errors
    /// `NothingKnownYet` if `known_time` is before the first commit; `Store` if reading the commits fails.
    pub(super) fn as_of(&self, known_time: Option<Timestamp>) -> Result<AsOf, QueryError> {
        AsOf::new(self.view.commit, self.now, known_time, |known| self.view.commit_at(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn known_time_selects_the_commit_and_the_current_time() {
        let commit = |sequence, time| Commit { sequence, recorded_time: at(time) };
        let commits = [commit(1, 100), commit(2, 200), commit(3, 300)];
        let check = |known: Option<i64>, expect: Option<(u64, i64, bool)>| {
            let earlier = |time| Ok(commits.iter().rev().find(|commit| commit.recorded_time <= time).copied());
            let as_of = AsOf::new(commits[2], at(999), known.map(at), earlier).ok();
            assert_eq!(as_of.map(|as_of| (as_of.commit.sequence, as_of.now.micros(), as_of.newest)), expect);
        };
        check(None, Some((3, 999, true)));
        // If the known time is at or after the recorded time of the newest commit, the current time is that recorded
        // time, not the time of the clock.
        check(Some(300), Some((3, 300, true)));
        check(Some(5_000), Some((3, 300, true)));
        check(Some(299), Some((2, 200, false)));
        check(Some(100), Some((1, 100, false)));
        check(Some(99), None);
    }
}
