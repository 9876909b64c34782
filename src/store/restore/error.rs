//! Errors of restoring a store from its exported parts.

use thiserror::Error;

use crate::domain::{SeriesKey, Source, Timestamp};
use crate::store::{PollRefused, StoreError};

/// Why a store cannot be built from its parts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// The directory is not empty.
    #[error(
        "{directory} is not empty; choose a new or empty directory with --db; \
         to add ticks to an existing store, import a CSV file or a Parquet file of runs while its server runs"
    )]
    NotEmpty {
        /// The directory for the new store.
        directory: String,
    },
    /// A part of a series is invalid.
    #[error("{series}: {problem}")]
    Series {
        /// The invalid series.
        series: Box<SeriesKey>,
        /// Why the series is invalid.
        problem: RestoreProblem,
    },
    /// The list of commits is invalid.
    #[error("commits: {0}")]
    Commits(RestoreProblem),
    /// The polls of a source are invalid.
    #[error("polls of {of}: the span from {first_poll_time} is out of order, or overlaps the previous span")]
    Polls {
        /// The polled source.
        of: Source,
        /// Time of the first poll of the invalid span.
        first_poll_time: Timestamp,
    },
    /// There are polls of more sources than a store keeps.
    #[error(transparent)]
    TooManyPolled(#[from] PollRefused),
    /// A decision to archive or unarchive a source is invalid.
    #[error("decisions to archive {of}: {problem}")]
    Archive {
        /// The source.
        of: Source,
        /// Why the decision is invalid.
        problem: RestoreProblem,
    },
    /// A held tick is invalid.
    #[error("held tick {id}: {problem}")]
    Quarantine {
        /// Id of the held tick.
        id: u64,
        /// Why the tick is invalid.
        problem: RestoreProblem,
    },
    /// The store cannot be locked, read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a part of a store is invalid or inconsistent with the other parts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreProblem {
    /// The series is given twice.
    #[error("the series is given twice")]
    DuplicateSeries,
    /// The collapse window is negative. The field is in microseconds.
    #[error("its collapse window of {0} us is negative")]
    NegativeWindow(i64),
    /// An item is not after its predecessor.
    #[error("the {what} at {time} is not after the previous {what} at {before}")]
    OutOfOrder {
        /// Kind of item: run, instant, revision, commit or held tick.
        what: &'static str,
        /// Time of the item: first observed time of a run, superseded time of a revision, held time of a held tick.
        time: Timestamp,
        /// Time of its predecessor; for a run, the last observed time.
        before: Timestamp,
    },
    /// Two neighbouring runs have the same value and lie within the collapse window. The field is the first observed
    /// time of the second run.
    #[error("the run from {0} repeats the value of the previous run within the collapse window: they must be one run")]
    SplitRun(Timestamp),
    /// The first or last observed time of a run does not match the timeline, or the run counts more observations than
    /// the timeline has.
    #[error(
        "the run from {first} to {last} with {count} observations does not match the timeline: the last instant counted for the run is {found}"
    )]
    TimelineMismatch {
        /// First observed time of the run.
        first: Timestamp,
        /// Last observed time of the run.
        last: Timestamp,
        /// Observation count of the run.
        count: u64,
        /// Last instant of the timeline that was counted for the run; the first observed time if there is none.
        found: Timestamp,
    },
    /// A run bridges a gap longer than the collapse window.
    #[error("the run from {first} bridges a gap before {time} that is longer than the collapse window")]
    LongGap {
        /// First observed time of the run.
        first: Timestamp,
        /// The instant at the end of the gap.
        time: Timestamp,
    },
    /// An instant belongs to no run.
    #[error("the instant {0} belongs to no run")]
    StrayInstant(Timestamp),
    /// An observed time is outside the supported years.
    #[error("the observed time {0} is outside the years 1990 to 9999")]
    ObservedTime(Timestamp),
    /// A recorded time, superseded time, held time or decision time is not the recorded time of a commit.
    #[error("no commit has the recorded time {0}")]
    UnknownCommit(Timestamp),
    /// A revision was not superseded after it was recorded.
    #[error("the revision recorded at {recorded} is superseded at {superseded}, which is not later")]
    SupersededTooEarly {
        /// Recorded time of the revision's run.
        recorded: Timestamp,
        /// Superseded time of the revision.
        superseded: Timestamp,
    },
    /// A decision to archive or unarchive a source does not reverse the decision before it, or is not later. The field
    /// is the recorded time of the decision.
    #[error("the decision at {0} does not reverse an earlier decision about the source")]
    NoReversal(Timestamp),
    /// The id is not greater than the id before it, which is the field.
    #[error("its id is out of order: the id before it is {0}")]
    UnexpectedId(u64),
    /// The series of the held tick does not exist.
    #[error("there is no series of {0}")]
    UnknownSeries(SeriesKey),
    /// The decision was not made after the tick was held.
    #[error("it was held at {held} and decided at {decided}, which is not later")]
    DecidedTooEarly {
        /// Recorded time of the commit that held the tick.
        held: Timestamp,
        /// Recorded time of the decision.
        decided: Timestamp,
    },
    /// Another held or discarded tick has the same series, observed time and value. The field is the observed time.
    #[error("its value at {0} is held or was discarded under another id")]
    DuplicateTick(Timestamp),
    /// The list of commits does not end with the newest commit.
    #[error("the list has {count} commits up to {last}, but the newest commit is {sequence} at {recorded_time}")]
    CommitCount {
        /// Number of listed commits.
        count: u64,
        /// Recorded time of the last listed commit.
        last: Timestamp,
        /// Sequence of the newest commit of the export.
        sequence: u64,
        /// Recorded time of the newest commit of the export.
        recorded_time: Timestamp,
    },
}
