//! Which commit a read sees, and what "now" is for it.

use super::{QueryError, Reader};
use crate::domain::Timestamp;
use crate::store::{Commit, StoreError};

/// What one read sees, from its beginning to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AsOf {
    /// The commit; its recorded time bounds what is known.
    pub(super) commit: Commit,
    /// What relative times count from: the clock's now, or the recorded time seen if the caller named a known time.
    pub(super) now: Timestamp,
    /// Whether this is the newest commit: only of that one are states told, and are ages limited.
    pub(super) newest: bool,
}

impl AsOf {
    /// `earlier` finds the newest commit at or before a time that lies before the newest.
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

    /// As what is known is asked of the store.
    pub(super) const fn known(&self) -> Timestamp {
        self.commit.recorded_time
    }
}

impl Reader {
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
    fn which_commit_and_which_now() {
        let commit = |sequence, time| Commit { sequence, recorded_time: at(time) };
        let commits = [commit(1, 100), commit(2, 200), commit(3, 300)];
        let check = |known: Option<i64>, expect: Option<(u64, i64, bool)>| {
            let earlier = |time| Ok(commits.iter().rev().find(|commit| commit.recorded_time <= time).copied());
            let as_of = AsOf::new(commits[2], at(999), known.map(at), earlier).ok();
            assert_eq!(as_of.map(|as_of| (as_of.commit.sequence, as_of.now.micros(), as_of.newest)), expect);
        };
        check(None, Some((3, 999, true)));
        // Repeating an answer by its recorded time counts from that time, not from the clock.
        check(Some(300), Some((3, 300, true)));
        check(Some(5_000), Some((3, 300, true)));
        check(Some(299), Some((2, 200, false)));
        check(Some(100), Some((1, 100, false)));
        check(Some(99), None);
    }
}
