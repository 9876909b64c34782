//! What may go wrong with a request, whatever wire it came by: which code each error has, and what a program is told.
//!
//! **Invariant**: one exhaustive match decides; a new kind of error does not compile until it has a row here. Each wire
//! turns codes and details into its own words and decides nothing.

use std::time::Duration;

use thiserror::Error;

use crate::columns::ColumnsError;
use crate::export::ExportError;
use crate::ingest::IngestError;
use crate::query::QueryError;
use crate::store::StoreError;

/// `NOT_FOUND`: the moment asked for comes before the first quote, or before the first commit.
pub const REASON_NO_QUOTE_YET: &str = "NO_QUOTE_YET";
/// `NOT_FOUND`: the rate in force is older than `max_age`.
pub const REASON_STALE: &str = "STALE";
/// `NOT_FOUND`: no such series is published.
pub const REASON_UNKNOWN_SERIES: &str = "UNKNOWN_SERIES";

/// A full queue is drained by a commit or two.
const RETRY_QUEUE: Duration = Duration::from_millis(200);
/// A read takes a fraction of a second.
const RETRY_READ: Duration = Duration::from_secs(1);
/// A stream of history takes seconds.
const RETRY_STREAM: Duration = Duration::from_secs(2);
/// Another server is coming up.
const RETRY_DRAINING: Duration = Duration::from_secs(2);
/// Somebody must look at it and restart.
const RETRY_POISONED: Duration = Duration::from_secs(30);

/// Whatever a service may answer instead of its message.
#[derive(Debug, Clone, Error)]
pub enum ServiceError {
    /// A read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A write.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The store, asked directly.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A field of a request, checked here.
    #[error("{field}: {problem}")]
    InvalidField {
        /// Which.
        field: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// A batch of columns.
    #[error("columns: {0}")]
    Columns(#[from] ColumnsError),
    /// More watchers at once than there may be.
    #[error("{watchers_max} watches are open, which is the most; try again in a moment, or poll with GetLatestRates")]
    TooManyWatchers {
        /// The most.
        watchers_max: usize,
    },
    /// A stream that held its version of the store for too long.
    #[error("the stream has lasted {age_max_s} s, which is the longest; {remedy}")]
    StreamTooOld {
        /// The longest, seconds.
        age_max_s: u64,
        /// What the caller may do instead.
        remedy: &'static str,
    },
    /// More exports or streams of one caller at once than there may be.
    #[error(
        "{what}: all places are taken, or as many as one caller may have; read or end one, or try again in a moment"
    )]
    NoSlot {
        /// Streams of what.
        what: &'static str,
    },
    /// More reads at once than there may be, and no place for this one in time.
    #[error("{reads_max} reads are under way, which is the most; try again in a moment")]
    TooManyReads {
        /// The most.
        reads_max: usize,
    },
    /// A read that took longer than any may.
    #[error("the read took longer than {seconds} s; ask for less at a time")]
    ReadTooLong {
        /// The longest, seconds.
        seconds: u64,
    },
    /// Responses that the caller does not read.
    #[error("responses of earlier calls wait to be read, as many bytes as may; read them, or try again in a moment")]
    TooManyUnread,
    /// A stream whose caller did not read it.
    #[error("the stream was not read for {unread_max_s} s; go on where it stopped")]
    Unread {
        /// The longest, seconds.
        unread_max_s: u64,
    },
    /// An export that broke off.
    #[error("export: {0}")]
    Export(ExportError),
    /// The caller's own deadline.
    #[error("the deadline of this call has passed")]
    DeadlineExceeded,
    /// A task that did not come to its end.
    #[error("the work on this call broke off: {0}")]
    BrokenOff(String),
}

/// Kinds of errors, as callers tell them apart; the names are those of gRPC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorCode {
    /// The request is at fault, whatever the store holds.
    InvalidArgument,
    /// There is nothing of the kind asked for.
    NotFound,
    /// The server is as it must not be for this.
    FailedPrecondition,
    /// Too much at once.
    ResourceExhausted,
    /// Not now.
    Unavailable,
    /// Broken off; the caller can go on where it was.
    Aborted,
    /// The caller has gone.
    Cancelled,
    /// The caller's own deadline.
    DeadlineExceeded,
    /// Stored bytes do not decode.
    DataLoss,
    /// Something failed that the operator must look at.
    Internal,
}

impl ErrorCode {
    /// Whether the operator must look at it: what the caller can mend is not for the log.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::DataLoss | Self::Internal)
    }
}

/// What a program learns beside the code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ErrorDetail {
    /// Nothing.
    None,
    /// Which field of the request is wrong, and how.
    Field {
        /// As the proto names it.
        field: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// One of the reasons above.
    Reason(&'static str),
    /// When to try again.
    RetryAfter(Duration),
}

impl ErrorDetail {
    fn field(field: &str, problem: impl Into<String>) -> Self {
        Self::Field { field: field.to_owned(), problem: problem.into() }
    }
}

impl ServiceError {
    /// Code and detail.
    pub fn describe(&self) -> (ErrorCode, ErrorDetail) {
        describe(self)
    }

    /// The same, of an error that goes to the caller: one of ours goes to the log too, once.
    pub fn answered(&self) -> (ErrorCode, ErrorDetail) {
        let (code, detail) = self.describe();
        if code.is_ours() {
            tracing::error!(?code, error = %self, "call failed");
        } else {
            tracing::debug!(?code, error = %self, "call refused");
        }
        (code, detail)
    }
}

/// The one place that decides codes.
fn describe(error: &ServiceError) -> (ErrorCode, ErrorDetail) {
    use ServiceError::{
        BrokenOff, Columns, DeadlineExceeded, Export, Ingest, InvalidField, NoSlot, Query, ReadTooLong, Store,
        StreamTooOld, TooManyReads, TooManyUnread, TooManyWatchers, Unread,
    };
    match error {
        Query(
            QueryError::UnknownSeries { .. }
            | QueryError::UnknownSource { .. }
            | QueryError::OnlyInverse { .. }
            | QueryError::NotExported { .. },
        ) => (ErrorCode::NotFound, ErrorDetail::Reason(REASON_UNKNOWN_SERIES)),
        Query(QueryError::NoQuoteYet { .. } | QueryError::NothingKnownYet { .. }) => {
            (ErrorCode::NotFound, ErrorDetail::Reason(REASON_NO_QUOTE_YET))
        }
        Query(QueryError::Stale { .. }) => (ErrorCode::NotFound, ErrorDetail::Reason(REASON_STALE)),
        Query(QueryError::Ambiguous { leg_of, .. }) => {
            let field = if leg_of.is_some() { "leg_sources" } else { "source" };
            (ErrorCode::InvalidArgument, ErrorDetail::field(field, error.to_string()))
        }
        Query(QueryError::InvalidArgument { field, problem }) => {
            (ErrorCode::InvalidArgument, ErrorDetail::field(field, problem.clone()))
        }
        InvalidField { field, problem } => (ErrorCode::InvalidArgument, ErrorDetail::field(field, problem.clone())),
        Columns(problem) => (ErrorCode::InvalidArgument, ErrorDetail::field("columns", problem.to_string())),
        Query(QueryError::Stopped) | Export(ExportError::ReceiverGone) => (ErrorCode::Cancelled, ErrorDetail::None),
        Export(ExportError::Query(problem)) => describe(&Query(problem.clone())),
        DeadlineExceeded | ReadTooLong { .. } => (ErrorCode::DeadlineExceeded, ErrorDetail::None),
        Query(QueryError::Store(problem)) | Store(problem) => of_store(problem),
        BrokenOff(_) | Export(ExportError::Encode { .. }) => (ErrorCode::Internal, ErrorDetail::None),
        Ingest(IngestError::QueueFull) => (ErrorCode::ResourceExhausted, ErrorDetail::RetryAfter(RETRY_QUEUE)),
        Ingest(IngestError::Poisoned(_)) => (ErrorCode::Unavailable, ErrorDetail::RetryAfter(RETRY_POISONED)),
        Ingest(IngestError::Draining) => (ErrorCode::Unavailable, ErrorDetail::RetryAfter(RETRY_DRAINING)),
        Ingest(IngestError::Poll(_)) => (ErrorCode::FailedPrecondition, ErrorDetail::None),
        TooManyReads { .. } => (ErrorCode::ResourceExhausted, ErrorDetail::RetryAfter(RETRY_READ)),
        NoSlot { .. } | TooManyWatchers { .. } | TooManyUnread => {
            (ErrorCode::ResourceExhausted, ErrorDetail::RetryAfter(RETRY_STREAM))
        }
        // The caller can go on at once where it stopped, which is what ABORTED says.
        StreamTooOld { .. } | Unread { .. } => (ErrorCode::Aborted, ErrorDetail::None),
    }
}

fn of_store(problem: &StoreError) -> (ErrorCode, ErrorDetail) {
    let code = match problem {
        StoreError::Damaged { .. }
        | StoreError::Behind { .. }
        | StoreError::DamagedBlock { .. }
        | StoreError::DamagedCommits { .. } => ErrorCode::DataLoss,
        // These keep a store from opening, so that a service that runs does not meet them.
        StoreError::InUse { .. }
        | StoreError::NewerFormat { .. }
        | StoreError::UnfinishedImport { .. }
        | StoreError::WindowDiffers { .. } => ErrorCode::FailedPrecondition,
        // Nothing stored is at fault, so that the same read may be answered once the disk is mended.
        StoreError::Io { .. } => return (ErrorCode::Unavailable, ErrorDetail::RetryAfter(RETRY_POISONED)),
    };
    (code, ErrorDetail::None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing::{Event, Level, Metadata, Subscriber, span};

    use super::*;

    /// Counts errors.
    struct Counting(Arc<AtomicUsize>);

    impl Subscriber for Counting {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::ERROR
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn an_error_of_ours_is_logged_when_it_is_answered_and_not_when_it_is_looked_at() {
        let logged = Arc::new(AtomicUsize::new(0));
        let damaged = ServiceError::from(StoreError::Damaged { path: "db".to_owned(), problem: "no index".to_owned() });
        tracing::subscriber::with_default(Counting(Arc::clone(&logged)), || {
            for _ in 0..3 {
                assert_eq!(damaged.describe().0, ErrorCode::DataLoss);
            }
            assert_eq!(logged.load(Ordering::Relaxed), 0);
            damaged.answered();
            ServiceError::DeadlineExceeded.answered();
        });
        assert_eq!(logged.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_disk_that_refuses_is_no_damage() {
        let full = StoreError::Io {
            action: "cannot read the stored runs".to_owned(),
            problem: "no space left on device".to_owned(),
            disk_full: true,
        };
        let (code, detail) = ServiceError::from(QueryError::from(full)).describe();
        assert_eq!((code, detail), (ErrorCode::Unavailable, ErrorDetail::RetryAfter(RETRY_POISONED)));
    }
}
