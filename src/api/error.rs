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
    /// More streams of history at once than there may be.
    #[error("{streams_max} streams of runs are open, which is the most; try again in a moment, or use ListRuns")]
    TooManyStreams {
        /// The most.
        streams_max: usize,
    },
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
    /// More exports at once than there may be.
    #[error("{exports_max} exports are under way, which is the most; try again in a moment")]
    TooManyExports {
        /// The most.
        exports_max: usize,
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
    /// Code and detail. An error of ours goes to the log.
    pub fn describe(&self) -> (ErrorCode, ErrorDetail) {
        let (code, detail) = describe(self);
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
        BrokenOff, Columns, DeadlineExceeded, Export, Ingest, InvalidField, Query, Store, StreamTooOld, TooManyExports,
        TooManyStreams, TooManyWatchers,
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
        Query(QueryError::Stopped) | Export(ExportError::Unwanted) => (ErrorCode::Cancelled, ErrorDetail::None),
        Export(ExportError::Query(problem)) => describe(&Query(problem.clone())),
        DeadlineExceeded => (ErrorCode::DeadlineExceeded, ErrorDetail::None),
        Query(QueryError::Store(problem)) | Store(problem) => (store_code(problem), ErrorDetail::None),
        BrokenOff(_) | Export(ExportError::Encode { .. }) => (ErrorCode::Internal, ErrorDetail::None),
        Ingest(IngestError::QueueFull) => (ErrorCode::ResourceExhausted, ErrorDetail::RetryAfter(RETRY_QUEUE)),
        Ingest(IngestError::Poisoned(_)) => (ErrorCode::Unavailable, ErrorDetail::RetryAfter(RETRY_POISONED)),
        Ingest(IngestError::Draining) => (ErrorCode::Unavailable, ErrorDetail::RetryAfter(RETRY_DRAINING)),
        TooManyStreams { .. } | TooManyWatchers { .. } | TooManyExports { .. } => {
            (ErrorCode::ResourceExhausted, ErrorDetail::RetryAfter(RETRY_STREAM))
        }
        // The caller can go on at once where it stopped, which is what ABORTED says.
        StreamTooOld { .. } => (ErrorCode::Aborted, ErrorDetail::None),
    }
}

fn store_code(problem: &StoreError) -> ErrorCode {
    match problem {
        StoreError::Damaged { .. }
        | StoreError::Behind { .. }
        | StoreError::DamagedBlock { .. }
        | StoreError::DamagedCommits { .. } => ErrorCode::DataLoss,
        // These keep a store from opening, so that a service that runs does not meet them.
        StoreError::InUse { .. }
        | StoreError::NewerFormat { .. }
        | StoreError::UnfinishedImport { .. }
        | StoreError::WindowDiffers { .. } => ErrorCode::FailedPrecondition,
        StoreError::Io { .. } => ErrorCode::Internal,
    }
}
