//! Errors to statuses: which code each has, and what details go with it.
//!
//! **Invariant**: one exhaustive match decides; a new kind of error does not compile until it has a row here, and a row
//! of the test below.

use std::collections::HashMap;
use std::time::Duration;

use thiserror::Error;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::columns::ColumnsError;
use crate::export::ExportError;
use crate::ingest::IngestError;
use crate::query::QueryError;
use crate::store::StoreError;

/// `domain` of every `google.rpc.ErrorInfo` given here.
pub const ERROR_DOMAIN: &str = "silkrate";
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

fn violation(field: &str, description: impl Into<String>) -> ErrorDetails {
    ErrorDetails::with_bad_request_violation(field, description)
}

fn reason(reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new())
}

fn retry(after: Duration) -> ErrorDetails {
    ErrorDetails::with_retry_info(Some(after))
}

/// The one place that decides codes.
fn describe(error: &ServiceError) -> (Code, ErrorDetails) {
    use ServiceError::{
        BrokenOff, Columns, DeadlineExceeded, Export, Ingest, InvalidField, Query, Store, StreamTooOld, TooManyExports,
        TooManyStreams,
    };
    match error {
        Query(QueryError::UnknownSeries { .. } | QueryError::UnknownSource { .. } | QueryError::OnlyInverse { .. }) => {
            (Code::NotFound, reason(REASON_UNKNOWN_SERIES))
        }
        Query(QueryError::NoQuoteYet { .. } | QueryError::NothingKnownYet { .. }) => {
            (Code::NotFound, reason(REASON_NO_QUOTE_YET))
        }
        Query(QueryError::Stale { .. }) => (Code::NotFound, reason(REASON_STALE)),
        Query(QueryError::Ambiguous { leg_of, .. }) => {
            let field = if leg_of.is_some() { "leg_sources" } else { "source" };
            (Code::InvalidArgument, violation(field, error.to_string()))
        }
        Query(QueryError::InvalidArgument { field, problem }) => {
            (Code::InvalidArgument, violation(field, problem.clone()))
        }
        InvalidField { field, problem } => (Code::InvalidArgument, violation(field, problem.clone())),
        Columns(problem) => (Code::InvalidArgument, violation("columns", problem.to_string())),
        Query(QueryError::Stopped) | Export(ExportError::Unwanted) => (Code::Cancelled, ErrorDetails::new()),
        Export(ExportError::Query(problem)) => describe(&Query(problem.clone())),
        DeadlineExceeded => (Code::DeadlineExceeded, ErrorDetails::new()),
        Query(QueryError::Store(problem)) | Store(problem) => (store_code(problem), ErrorDetails::new()),
        BrokenOff(_) | Export(ExportError::Encode { .. }) => (Code::Internal, ErrorDetails::new()),
        Ingest(IngestError::QueueFull) => (Code::ResourceExhausted, retry(RETRY_QUEUE)),
        Ingest(IngestError::Poisoned(_)) => (Code::Unavailable, retry(RETRY_POISONED)),
        Ingest(IngestError::Draining) => (Code::Unavailable, retry(RETRY_DRAINING)),
        TooManyStreams { .. } | TooManyExports { .. } => (Code::ResourceExhausted, retry(RETRY_STREAM)),
        // The caller can go on at once where it stopped, which is what ABORTED says.
        StreamTooOld { .. } => (Code::Aborted, ErrorDetails::new()),
    }
}

fn store_code(problem: &StoreError) -> Code {
    match problem {
        StoreError::Damaged { .. }
        | StoreError::Behind { .. }
        | StoreError::DamagedBlock { .. }
        | StoreError::DamagedCommits { .. } => Code::DataLoss,
        // These keep a store from opening, so that a service that runs does not meet them.
        StoreError::InUse { .. }
        | StoreError::NewerFormat { .. }
        | StoreError::UnfinishedImport { .. }
        | StoreError::WindowDiffers { .. } => Code::FailedPrecondition,
        StoreError::Io { .. } => Code::Internal,
    }
}

impl From<ServiceError> for Status {
    fn from(error: ServiceError) -> Self {
        let (code, details) = describe(&error);
        // What the operator must look at is an error; what the caller can mend is not.
        if matches!(code, Code::DataLoss | Code::Internal) {
            tracing::error!(?code, %error, "call failed");
        } else {
            tracing::debug!(?code, %error, "call refused");
        }
        Self::with_error_details(code, error.to_string(), details)
    }
}

impl From<QueryError> for Status {
    fn from(error: QueryError) -> Self {
        ServiceError::from(error).into()
    }
}

impl From<IngestError> for Status {
    fn from(error: IngestError) -> Self {
        ServiceError::from(error).into()
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        ServiceError::from(error).into()
    }
}

impl From<ColumnsError> for Status {
    fn from(error: ColumnsError) -> Self {
        ServiceError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CurrencySet, Pair, SeriesKey, Source, Timestamp};

    /// What a client finds in the details: a reason with its domain, a field, or when to come back.
    fn details(status: &Status) -> String {
        let details = status.get_error_details();
        let info = details.error_info().map(|info| format!("{} of {}", info.reason, info.domain));
        let field = details.bad_request().map(|bad| {
            let fields: Vec<_> =
                bad.field_violations.iter().map(|one| format!("{}: {}", one.field, one.description)).collect();
            fields.join("; ")
        });
        let retry = details.retry_info().and_then(|info| info.retry_delay).map(|delay| format!("retry in {delay:?}"));
        [info, field, retry].into_iter().flatten().collect::<Vec<_>>().join(" | ")
    }

    fn check(error: impl Into<Status>, code: Code, message: &str, expect: &str) {
        let status = error.into();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(message), "{}", status.message());
        let found = details(&status);
        assert!(if expect.is_empty() { found.is_empty() } else { found.contains(expect) }, "{found}");
    }

    fn series() -> SeriesKey {
        SeriesKey {
            pair: Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap(),
            source: Source::parse("timesca").unwrap(),
        }
    }

    #[test]
    fn reads() {
        let (pair, time) = (series().pair, Timestamp::default());
        let not_found = |error: QueryError, message, reason| check(error, Code::NotFound, message, reason);
        not_found(
            QueryError::UnknownSeries {
                pair,
                wanted_source: Some(series().source),
                missing_legs: Vec::new(),
                there_are: "there are KZT/USD from nbk".to_owned(),
            },
            "no series of KGS/USD from timesca; there are KZT/USD from nbk",
            "UNKNOWN_SERIES of silkrate",
        );
        not_found(
            QueryError::UnknownSource { wanted: series().source, there_are: "there is none yet".to_owned() },
            "no series from timesca; there is none yet",
            "UNKNOWN_SERIES of silkrate",
        );
        not_found(
            QueryError::OnlyInverse { pair: pair.inverse(), published: series() },
            "USD/KGS is not published but derived, and has no history of its own; ask for KGS/USD from timesca",
            "UNKNOWN_SERIES of silkrate",
        );
        not_found(
            QueryError::NoQuoteYet { series: series(), time, first: Some(Timestamp::from_micros(1)) },
            "no quote of KGS/USD from timesca at or before 1970-01-01T00:00:00Z; its first is of 1970-01-01T00:00:00.000001Z",
            "NO_QUOTE_YET of silkrate",
        );
        not_found(
            QueryError::NothingKnownYet { known_time: time },
            "nothing was known at 1970",
            "NO_QUOTE_YET of silkrate",
        );
        not_found(
            QueryError::Stale { series: series(), time, age_us: 90_000_000, max_age_us: 60_000_000 },
            "last confirmed 90 s before 1970-01-01T00:00:00Z, longer than max_age of 60 s",
            "STALE of silkrate",
        );
        let leg = QueryError::Ambiguous { pair, leg_of: Some(pair), sources: "nbkr, timesca".to_owned() };
        check(leg, Code::InvalidArgument, "name one of nbkr, timesca for it", "leg_sources: several sources");
        let ambiguous = QueryError::Ambiguous { pair, leg_of: None, sources: "nbkr, timesca".to_owned() };
        check(ambiguous, Code::InvalidArgument, "name one of nbkr, timesca", "source: several sources");
        let invalid = QueryError::invalid("pairs[3]", "is no pair");
        check(invalid, Code::InvalidArgument, "pairs[3]: is no pair", "pairs[3]: is no pair");
        check(QueryError::Stopped, Code::Cancelled, "stopped waiting", "");
    }

    #[test]
    fn the_store_alone_and_behind_a_read() {
        let both = |error: &StoreError, code: Code, message: &str| {
            check(error.clone(), code, message, "");
            check(QueryError::from(error.clone()), code, message, "");
        };
        let text = str::to_owned;
        let (from, to) = (Timestamp::from_micros(0), Timestamp::from_micros(1));
        let path = || text("db");
        both(&StoreError::Damaged { path: path(), problem: text("no index") }, Code::DataLoss, "no index");
        both(&StoreError::Behind { path: path(), sequence: 6, witness: 7 }, Code::DataLoss, "ends at sequence 6");
        let (series, problem) = (Box::new(series()), text("checksum"));
        let block = StoreError::DamagedBlock { series: series.clone(), what: "runs", from, to, problem };
        both(&block, Code::DataLoss, "KGS/USD from timesca: the stored runs from 1970");
        let commits = StoreError::DamagedCommits { from, to, problem: text("checksum") };
        both(&commits, Code::DataLoss, "the stored commits from 1970");
        let in_use = StoreError::InUse { path: path(), holder: text("process 7") };
        both(&in_use, Code::FailedPrecondition, "in use by process 7");
        let newer = StoreError::NewerFormat { path: path(), found: 2, supported: 1 };
        both(&newer, Code::FailedPrecondition, "format 2");
        let unfinished = StoreError::UnfinishedImport { path: path() };
        both(&unfinished, Code::FailedPrecondition, "did not finish");
        let window =
            StoreError::WindowDiffers { series, source_name: text("timesca"), stored_s: 3_600, configured_s: 60 };
        both(&window, Code::FailedPrecondition, "collapse window of 3600 s");
        let io = StoreError::Io { action: text("read"), problem: text("gone"), disk_full: false };
        both(&io, Code::Internal, "read: gone");
    }

    #[test]
    fn writes() {
        check(IngestError::QueueFull, Code::ResourceExhausted, "queue is full", "retry in 200ms");
        check(IngestError::Poisoned("fsync".to_owned()), Code::Unavailable, "fsync", "retry in 30s");
        let field = ServiceError::InvalidField { field: "ticks".to_owned(), problem: "too many".to_owned() };
        check(field, Code::InvalidArgument, "ticks: too many", "ticks: too many");
        check(IngestError::Draining, Code::Unavailable, "shutting down", "retry in 2s");
        check(ColumnsError::NoBaseTime, Code::InvalidArgument, "columns: base_time", "columns: base_time is missing");
    }

    #[test]
    fn calls() {
        let too_many = ServiceError::TooManyStreams { streams_max: 64 };
        check(too_many, Code::ResourceExhausted, "64 streams", "retry in 2s");
        let too_old = ServiceError::StreamTooOld { age_max_s: 600, remedy: "ask again" };
        check(too_old, Code::Aborted, "lasted 600 s, which is the longest; ask again", "");
        let too_many = ServiceError::TooManyExports { exports_max: 4 };
        check(too_many, Code::ResourceExhausted, "4 exports", "retry in 2s");
        let export = |error| ServiceError::Export(error);
        check(export(ExportError::Unwanted), Code::Cancelled, "nobody takes", "");
        let damaged = StoreError::Damaged { path: "db".to_owned(), problem: "no index".to_owned() };
        check(export(damaged.into()), Code::DataLoss, "no index", "");
        let encode = ExportError::Encode { part: "runs.csv".to_owned(), problem: "odd".to_owned() };
        check(export(encode), Code::Internal, "export: cannot write runs.csv: odd", "");
        check(ServiceError::DeadlineExceeded, Code::DeadlineExceeded, "deadline", "");
        check(ServiceError::BrokenOff("panic".to_owned()), Code::Internal, "panic", "");
    }
}
