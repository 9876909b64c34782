//! The errors of API calls, independent of the protocol: the code of each error, and its details for programs.
//!
//! **Invariant**: exhaustive matches assign the codes, so a new error does not compile until it has a code. The
//! protocols only convert codes and details into their own form.

use std::time::Duration;

use thiserror::Error;

use crate::access::Refusal;
use crate::columns::ColumnsError;
use crate::export::ExportError;
use crate::ingest::{ArchiveError, BackupPointError, IngestError};
use crate::query::QueryError;
use crate::store::{ArchiveRefusal, StoreError};

/// Reason of `NOT_FOUND`: the requested time is before the first quote, or before the first commit.
pub const REASON_NO_QUOTE_YET: &str = "NO_QUOTE_YET";
/// Reason of `NOT_FOUND`: the rate in force is older than `max_age`.
pub const REASON_STALE: &str = "STALE";
/// Reason of `NOT_FOUND`: the requested series is not published.
pub const REASON_UNKNOWN_SERIES: &str = "UNKNOWN_SERIES";

/// Retry delay for a full ingest queue. One or two commits empty the queue.
const RETRY_QUEUE: Duration = Duration::from_millis(200);
/// Retry delay for a read without a permit. A read takes a fraction of a second.
const RETRY_READ: Duration = Duration::from_secs(1);
/// Retry delay for a stream without a slot. A stream of history takes seconds.
const RETRY_STREAM: Duration = Duration::from_secs(2);
/// Retry delay during shutdown. Another server may be starting.
const RETRY_DRAINING: Duration = Duration::from_secs(2);
/// Retry delay after a failed write, and for a disk error. An operator must restart the server.
const RETRY_POISONED: Duration = Duration::from_secs(30);

/// Why an API call failed.
#[derive(Debug, Clone, Error)]
pub enum ServiceError {
    /// The client may not make the call.
    #[error(transparent)]
    Access(#[from] Refusal),
    /// A query failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Storing ticks or decisions failed.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// A source cannot be archived or unarchived.
    #[error(transparent)]
    Archive(#[from] ArchiveRefusal),
    /// Reading the store failed outside of a query.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A request field has an invalid value.
    #[error("{field}: {problem}")]
    InvalidField {
        /// Path of the field in the request.
        field: String,
        /// What is wrong with the value, and which values are valid.
        problem: String,
    },
    /// The columns of a batch are invalid.
    #[error("columns: {0}")]
    Columns(#[from] ColumnsError),
    /// The maximum number of watches is open, in total or for this client.
    #[error(
        "the server has reached its limit of {watches_max} watches, or this client its part of them; try again in a \
         moment, or poll with GetLatestRates"
    )]
    TooManyWatches {
        /// The maximum number of watches.
        watches_max: usize,
    },
    /// The stream reached its maximum age. The age is limited, because a stream keeps an old view of the store in
    /// memory.
    #[error("the stream reached its maximum age of {age_max_s} s; {remedy}")]
    StreamTooOld {
        /// The maximum age, seconds.
        age_max_s: u64,
        /// How the client gets the rest of the data.
        remedy: &'static str,
    },
    /// All slots for exports or streams are in use, in total or for this client.
    #[error(
        "{what}: all slots of the server or of this client are in use; end an earlier call, or try again in a moment"
    )]
    NoSlot {
        /// What the slots are for, such as exports.
        what: &'static str,
    },
    /// The maximum number of reads is running, and no read permit became free in time.
    #[error("{reads_max} reads are running, which is the limit; try again in a moment")]
    TooManyReads {
        /// The maximum number of concurrent reads.
        reads_max: usize,
    },
    /// The maximum number of expensive reads is running, in total or for this client, and no permit for them became free
    /// in time.
    #[error(
        "the server or this client has reached its limit of expensive reads (comparisons, gaps, candles and ranges of \
         days); ask for a shorter time, or try again in a moment"
    )]
    TooManyExpensiveReads,
    /// The read exceeded its time limit.
    #[error("the read took longer than {seconds} s; ask for less data at a time")]
    ReadTooLong {
        /// The time limit, seconds.
        seconds: u64,
    },
    /// The client has not read earlier responses, and their bytes reached the limit.
    #[error("too many bytes of earlier responses are unread; read them, or try again in a moment")]
    TooManyUnread,
    /// The client did not read the stream for too long.
    #[error("the client did not read the stream for {unread_max_s} s; continue where the stream stopped")]
    Unread {
        /// The time limit, seconds.
        unread_max_s: u64,
    },
    /// An export failed.
    #[error("export: {0}")]
    Export(ExportError),
    /// A backup begins with a checkpoint, and the disk has no room for it.
    #[error(transparent)]
    Backup(BackupPointError),
    /// The deadline that the client set has passed.
    #[error("the deadline of this call has passed")]
    DeadlineExceeded,
    /// The task of the call panicked, or failed for an internal reason.
    #[error("internal error: {0}")]
    TaskFailed(String),
}

impl From<ArchiveError> for ServiceError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Refused(refusal) => refusal.into(),
            ArchiveError::Ingest(error) => error.into(),
        }
    }
}

impl From<BackupPointError> for ServiceError {
    fn from(error: BackupPointError) -> Self {
        match error {
            BackupPointError::NoRoom => Self::Backup(error),
            BackupPointError::Store(error) => error.into(),
            BackupPointError::Ingest(error) => error.into(),
        }
    }
}

/// The code of an error. The names are the names of the gRPC status codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorCode {
    /// The request is invalid, independent of the data in the store.
    InvalidArgument,
    /// The call has no valid credentials.
    Unauthenticated,
    /// The credentials of the call are valid, and do not allow it.
    PermissionDenied,
    /// This client made too many calls of this kind. Its code in gRPC is `RESOURCE_EXHAUSTED`.
    TooManyRequests,
    /// The requested data does not exist.
    NotFound,
    /// The state of the server or of the store does not allow the call.
    FailedPrecondition,
    /// A limit on concurrent calls or queued data is reached.
    ResourceExhausted,
    /// The server cannot answer at the moment.
    Unavailable,
    /// The server ended the stream. The client can continue where the stream stopped.
    Aborted,
    /// The client disconnected.
    Cancelled,
    /// The deadline of the client or the time limit of a read has passed.
    DeadlineExceeded,
    /// Stored bytes cannot be decoded.
    DataLoss,
    /// An internal error, which the operator must investigate.
    Internal,
}

impl ErrorCode {
    /// Returns true if the operator must investigate the error. Such errors are logged as errors.
    pub fn is_server_fault(self) -> bool {
        matches!(self, Self::DataLoss | Self::Internal)
    }
}

/// The details of an error for programs, in addition to the code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ErrorDetail {
    /// No details.
    None,
    /// The invalid field of the request.
    Field {
        /// Path of the field, as in the proto.
        field: String,
        /// What is wrong with the value, and which values are valid.
        problem: String,
    },
    /// The reason of `NOT_FOUND`, one of the `REASON_` constants.
    Reason(&'static str),
    /// How long to wait before a retry.
    RetryAfter(Duration),
}

impl ErrorDetail {
    fn field(field: &str, problem: impl Into<String>) -> Self {
        Self::Field { field: field.to_owned(), problem: problem.into() }
    }
}

impl ServiceError {
    /// Returns the code and the details.
    pub fn describe(&self) -> (ErrorCode, ErrorDetail) {
        describe(self)
    }

    /// Returns the code and the details, and logs the error. Call it once, when the error is sent to the client.
    pub fn log_and_describe(&self) -> (ErrorCode, ErrorDetail) {
        let (code, detail) = self.describe();
        if code.is_server_fault() {
            tracing::error!(?code, error = %self, "call failed");
        } else {
            tracing::debug!(?code, error = %self, "call refused");
        }
        (code, detail)
    }
}

/// Assigns the code and the details of an error. Only this function and `describe_store` assign codes.
fn describe(error: &ServiceError) -> (ErrorCode, ErrorDetail) {
    use ServiceError::{
        Access, Archive, Backup, Columns, DeadlineExceeded, Export, Ingest, InvalidField, NoSlot, Query, ReadTooLong,
        Store, StreamTooOld, TaskFailed, TooManyExpensiveReads, TooManyReads, TooManyUnread, TooManyWatches, Unread,
    };
    match error {
        Access(Refusal::TooManyFailures { retry_after } | Refusal::TooManyCalls { retry_after, .. }) => {
            (ErrorCode::TooManyRequests, ErrorDetail::RetryAfter(*retry_after))
        }
        Access(refusal) if refusal.is_unauthenticated() => (ErrorCode::Unauthenticated, ErrorDetail::None),
        Access(_) => (ErrorCode::PermissionDenied, ErrorDetail::None),
        Query(
            QueryError::UnknownSeries { .. }
            | QueryError::UnknownSource { .. }
            | QueryError::OnlyInverse { .. }
            | QueryError::NotExported { .. },
        )
        | Archive(ArchiveRefusal::UnknownSource { .. }) => {
            (ErrorCode::NotFound, ErrorDetail::Reason(REASON_UNKNOWN_SERIES))
        }
        Query(QueryError::NoQuoteYet { .. } | QueryError::NothingKnownYet { .. }) => {
            (ErrorCode::NotFound, ErrorDetail::Reason(REASON_NO_QUOTE_YET))
        }
        Query(QueryError::Stale { .. }) => (ErrorCode::NotFound, ErrorDetail::Reason(REASON_STALE)),
        Query(QueryError::Ambiguous { .. }) => {
            (ErrorCode::InvalidArgument, ErrorDetail::field("source", error.to_string()))
        }
        Query(QueryError::InvalidArgument { field, problem }) => {
            (ErrorCode::InvalidArgument, ErrorDetail::field(field, problem.clone()))
        }
        InvalidField { field, problem } => (ErrorCode::InvalidArgument, ErrorDetail::field(field, problem.clone())),
        Columns(problem) => (ErrorCode::InvalidArgument, ErrorDetail::field("columns", problem.to_string())),
        Query(QueryError::Cancelled) | Export(ExportError::ReceiverGone) => (ErrorCode::Cancelled, ErrorDetail::None),
        Export(ExportError::Query(problem)) => describe(&Query(problem.clone())),
        DeadlineExceeded | ReadTooLong { .. } => (ErrorCode::DeadlineExceeded, ErrorDetail::None),
        Query(QueryError::Store(problem)) | Store(problem) => describe_store(problem),
        TaskFailed(_) | Export(ExportError::Encode { .. }) => (ErrorCode::Internal, ErrorDetail::None),
        Ingest(IngestError::QueueFull) => (ErrorCode::ResourceExhausted, ErrorDetail::RetryAfter(RETRY_QUEUE)),
        Ingest(IngestError::Poisoned(_)) => (ErrorCode::Unavailable, ErrorDetail::RetryAfter(RETRY_POISONED)),
        Ingest(IngestError::Draining) => (ErrorCode::Unavailable, ErrorDetail::RetryAfter(RETRY_DRAINING)),
        Ingest(IngestError::Poll(_)) | Archive(ArchiveRefusal::TooManyDecisions) | Backup(_) => {
            (ErrorCode::FailedPrecondition, ErrorDetail::None)
        }
        TooManyReads { .. } | TooManyExpensiveReads => {
            (ErrorCode::ResourceExhausted, ErrorDetail::RetryAfter(RETRY_READ))
        }
        NoSlot { .. } | TooManyWatches { .. } | TooManyUnread => {
            (ErrorCode::ResourceExhausted, ErrorDetail::RetryAfter(RETRY_STREAM))
        }
        // ABORTED means that the client can continue at once where the stream stopped.
        StreamTooOld { .. } | Unread { .. } => (ErrorCode::Aborted, ErrorDetail::None),
    }
}

/// Assigns the code and the details of a store error.
fn describe_store(problem: &StoreError) -> (ErrorCode, ErrorDetail) {
    let code = match problem {
        StoreError::Damaged { .. }
        | StoreError::Behind { .. }
        | StoreError::DamagedBlock { .. }
        | StoreError::DamagedCommits { .. } => ErrorCode::DataLoss,
        // These errors occur only when a store is opened, so a running server does not return them.
        StoreError::InUse { .. }
        | StoreError::NewerFormat { .. }
        | StoreError::UnfinishedImport { .. }
        | StoreError::WindowDiffers { .. } => ErrorCode::FailedPrecondition,
        // The stored data is not damaged, so the same read may succeed once the disk works again.
        // A read that gets `NotInMemory` is repeated with the disk, so no client receives it.
        StoreError::Io { .. } | StoreError::NotInMemory => {
            return (ErrorCode::Unavailable, ErrorDetail::RetryAfter(RETRY_POISONED));
        }
    };
    (code, ErrorDetail::None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing::{Event, Level, Metadata, Subscriber, span};

    use super::*;

    /// A subscriber that counts the log lines of level error.
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
    fn log_and_describe_logs_a_server_fault_and_describe_does_not() {
        let logged = Arc::new(AtomicUsize::new(0));
        let damaged = ServiceError::from(StoreError::Damaged { path: "db".to_owned(), problem: "no index".to_owned() });
        tracing::subscriber::with_default(Counting(Arc::clone(&logged)), || {
            for _ in 0..3 {
                assert_eq!(damaged.describe().0, ErrorCode::DataLoss);
            }
            assert_eq!(logged.load(Ordering::Relaxed), 0);
            damaged.log_and_describe();
            ServiceError::DeadlineExceeded.log_and_describe();
        });
        assert_eq!(logged.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn disk_error_is_unavailable_and_not_data_loss() {
        let full = StoreError::Io {
            action: "cannot read the stored runs".to_owned(),
            problem: "no space left on device".to_owned(),
            disk_full: true,
        };
        let (code, detail) = ServiceError::from(QueryError::from(full)).describe();
        assert_eq!((code, detail), (ErrorCode::Unavailable, ErrorDetail::RetryAfter(RETRY_POISONED)));
    }
}
