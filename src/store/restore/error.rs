//! Why no store can be made of the parts of another.

use thiserror::Error;

use crate::domain::{SeriesKey, Source, Timestamp};
use crate::store::{PollRefused, StoreError};

/// Why no store can be made of the parts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// Something is there already.
    #[error(
        "{directory} is not empty; name a new or empty directory with --db, or import ticks (CSV, or runs in Parquet) through the server of this store"
    )]
    NotEmpty {
        /// Where the store was to be.
        directory: String,
    },
    /// The series makes no sense.
    #[error("{series}: {problem}")]
    Series {
        /// Which.
        series: Box<SeriesKey>,
        /// What is wrong with it.
        problem: RestoreProblem,
    },
    /// The commits make no sense.
    #[error("commits: {0}")]
    Commits(RestoreProblem),
    /// The polls of a source make no sense.
    #[error("polls of {of}: the span from {first_poll_time} is out of order, or overlaps the one before it")]
    Polls {
        /// Whose.
        of: Source,
        /// Of the span that makes none.
        first_poll_time: Timestamp,
    },
    /// Polls of more sources than a store keeps.
    #[error(transparent)]
    TooManyPolled(#[from] PollRefused),
    /// A held tick makes no sense.
    #[error("held tick {id}: {problem}")]
    Quarantine {
        /// Which.
        id: u64,
        /// What is wrong with it.
        problem: RestoreProblem,
    },
    /// The disk, or what it says.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What does not fit among the parts of a store.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreProblem {
    /// A series twice.
    #[error("the series is there twice")]
    Twice,
    /// A collapse window that is none.
    #[error("its collapse window of {0} us is negative")]
    Window(i64),
    /// Something follows what it should come before.
    #[error("the {what} of {time} does not follow the one before it, of {before}")]
    Order {
        /// Run, instant, revision, commit.
        what: &'static str,
        /// First observed time of a run, superseded time of a revision.
        time: Timestamp,
        /// The same of the one before; of a run, its last observed time.
        before: Timestamp,
    },
    /// Equal neighbours within the collapse window.
    #[error("the run from {0} has the value of the one before it, within the collapse window: they are one run")]
    Divided(Timestamp),
    /// A run that does not begin or end at instants of its own, or counts more than there are.
    #[error(
        "the run from {first} to {last} of {count} observations does not fit the timeline, where those end at {found}"
    )]
    Timeline {
        /// First observed time.
        first: Timestamp,
        /// Last observed time.
        last: Timestamp,
        /// Observations.
        count: u64,
        /// Last instant that the count leads to; the run's own beginning if there is none.
        found: Timestamp,
    },
    /// A run over a gap longer than the collapse window.
    #[error("the run from {first} bridges a gap longer than the collapse window before {time}")]
    Gap {
        /// First observed time.
        first: Timestamp,
        /// Where the gap ends.
        time: Timestamp,
    },
    /// An instant in no run.
    #[error("the instant {0} belongs to no run")]
    Stray(Timestamp),
    /// Before 1990, or after what can be printed.
    #[error("the observed time {0} is outside the years 1990 to 9999")]
    ObservedTime(Timestamp),
    /// Knowledge of no commit.
    #[error("the time {0} is recorded, but no commit has it")]
    NoCommit(Timestamp),
    /// A revision superseded before it was recorded.
    #[error("the revision recorded at {recorded} is superseded at {superseded}, not after it")]
    Superseded {
        /// Its run's recorded time.
        recorded: Timestamp,
        /// Its superseded time.
        superseded: Timestamp,
    },
    /// An id out of its place.
    #[error("{0} comes next")]
    Id(u64),
    /// Of a series that is not there.
    #[error("there is no series of {0}")]
    NoSeries(SeriesKey),
    /// Decided before it was held.
    #[error("it was held at {held} and decided at {decided}, not after it")]
    Decided {
        /// Recorded time of holding.
        held: Timestamp,
        /// Recorded time of the decision.
        decided: Timestamp,
    },
    /// Two that are one.
    #[error("its value at {0} is held or was discarded under another id")]
    HeldTwice(Timestamp),
    /// More or fewer commits than the sequence says, or another newest one.
    #[error("{count} are listed up to {last}, but the newest is {sequence} at {recorded_time}")]
    CommitCount {
        /// Listed.
        count: u64,
        /// Recorded time of the last one listed.
        last: Timestamp,
        /// As the whole says.
        sequence: u64,
        /// As the whole says.
        recorded_time: Timestamp,
    },
}
