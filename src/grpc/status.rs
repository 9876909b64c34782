//! Converts errors into gRPC statuses.
//!
//! **Invariant**: codes and details come from [`ServiceError::describe`]. The tests of this file have a row for each
//! error.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::access::Refusal;
use crate::api::{ErrorCode, ErrorDetail, ServiceError};
use crate::columns::ColumnsError;
use crate::ingest::IngestError;
use crate::query::QueryError;
use crate::store::StoreError;

/// The `domain` of every `google.rpc.ErrorInfo` in a status.
pub const ERROR_DOMAIN: &str = "silkrate";

fn code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidArgument => Code::InvalidArgument,
        ErrorCode::Unauthenticated => Code::Unauthenticated,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::FailedPrecondition => Code::FailedPrecondition,
        ErrorCode::ResourceExhausted | ErrorCode::TooManyRequests => Code::ResourceExhausted,
        ErrorCode::Unavailable => Code::Unavailable,
        ErrorCode::Aborted => Code::Aborted,
        ErrorCode::Cancelled => Code::Cancelled,
        ErrorCode::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorCode::DataLoss => Code::DataLoss,
        ErrorCode::Internal => Code::Internal,
    }
}

fn details(detail: ErrorDetail) -> ErrorDetails {
    match detail {
        ErrorDetail::None => ErrorDetails::new(),
        ErrorDetail::Field { field, problem } => ErrorDetails::with_bad_request_violation(field, problem),
        ErrorDetail::Reason(reason) => ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new()),
        ErrorDetail::RetryAfter(after) => ErrorDetails::with_retry_info(Some(after)),
    }
}

impl From<ServiceError> for Status {
    fn from(error: ServiceError) -> Self {
        let (kind, detail) = error.log_and_describe();
        Self::with_error_details(code(kind), error.to_string(), details(detail))
    }
}

impl From<QueryError> for Status {
    fn from(error: QueryError) -> Self {
        ServiceError::from(error).into()
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        ServiceError::from(refusal).into()
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
    use crate::export::ExportError;

    /// Returns the details of a status as text: a reason with its domain, a field, or a retry delay.
    fn details_text(status: &Status) -> String {
        let details = status.get_error_details();
        let info = details.error_info().map(|info| format!("{} of {}", info.reason, info.domain));
        let field = details.bad_request().map(|bad| {
            let fields: Vec<_> = bad
                .field_violations
                .iter()
                .map(|violation| format!("{}: {}", violation.field, violation.description))
                .collect();
            fields.join("; ")
        });
        let retry = details.retry_info().and_then(|info| info.retry_delay).map(|delay| format!("retry in {delay:?}"));
        [info, field, retry].into_iter().flatten().collect::<Vec<_>>().join(" | ")
    }

    fn check(error: impl Into<Status>, code: Code, message: &str, expect: &str) {
        let status = error.into();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(message), "{}", status.message());
        let found = details_text(&status);
        assert!(if expect.is_empty() { found.is_empty() } else { found.contains(expect) }, "{found}");
    }

    fn series() -> SeriesKey {
        SeriesKey {
            pair: Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap(),
            source: Source::parse("timesca").unwrap(),
        }
    }

    #[test]
    fn query_errors_have_their_status() {
        let (pair, time) = (series().pair, Timestamp::default());
        let not_found = |error: QueryError, message, reason| check(error, Code::NotFound, message, reason);
        not_found(
            QueryError::UnknownSeries {
                pair,
                wanted_source: Some(series().source),
                missing_legs: Vec::new(),
                available: "available: KZT/USD from nbk".to_owned(),
            },
            "no series of KGS/USD from timesca; available: KZT/USD from nbk",
            "UNKNOWN_SERIES of silkrate",
        );
        not_found(
            QueryError::UnknownSource { wanted: series().source, available: "no series exists yet".to_owned() },
            "no series from timesca; no series exists yet",
            "UNKNOWN_SERIES of silkrate",
        );
        not_found(
            QueryError::OnlyInverse { pair: pair.inverse(), published: series() },
            "USD/KGS is not published but derived, and has no history of its own; ask for KGS/USD from timesca",
            "UNKNOWN_SERIES of silkrate",
        );
        not_found(
            QueryError::NoQuoteYet { series: series(), time, first: Some(Timestamp::from_micros(1)) },
            "no quote of KGS/USD from timesca at or before 1970-01-01T00:00:00Z; its first quote is at \
             1970-01-01T00:00:00.000001Z",
            "NO_QUOTE_YET of silkrate",
        );
        not_found(
            QueryError::NothingKnownYet { known_time: time },
            "nothing was known at 1970",
            "NO_QUOTE_YET of silkrate",
        );
        not_found(
            QueryError::Stale { series: series(), time, age_us: 90_000_000, max_age_us: 60_000_000 },
            "last confirmed 90s before 1970-01-01T00:00:00Z, which is longer than the max_age of 1m",
            "STALE of silkrate",
        );
        let ambiguous = QueryError::Ambiguous { pair, candidates: "KGS/USD from nbkr".to_owned() };
        check(ambiguous, Code::InvalidArgument, "KGS/USD from nbkr; name a source", "source: several series");
        let invalid = QueryError::invalid("pairs[3]", "is no pair");
        check(invalid, Code::InvalidArgument, "pairs[3]: is no pair", "pairs[3]: is no pair");
        check(QueryError::Cancelled, Code::Cancelled, "the read was cancelled", "");
    }

    #[test]
    fn store_error_has_the_same_status_alone_and_inside_a_query_error() {
        let both = |error: &StoreError, code: Code, message: &str| {
            check(error.clone(), code, message, "");
            check(QueryError::from(error.clone()), code, message, "");
        };
        let text = str::to_owned;
        let (from, to) = (Timestamp::from_micros(0), Timestamp::from_micros(1));
        let path = || text("db");
        both(&StoreError::Damaged { path: path(), problem: text("no index") }, Code::DataLoss, "no index");
        both(
            &StoreError::Behind { path: path(), sequence: 6, high_water_mark: 7 },
            Code::DataLoss,
            "ends at sequence 6",
        );
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
        check(io.clone(), Code::Unavailable, "read: gone", "retry in 30s");
        check(QueryError::from(io), Code::Unavailable, "read: gone", "retry in 30s");
    }

    #[test]
    fn ingest_errors_have_their_status() {
        check(IngestError::QueueFull, Code::ResourceExhausted, "queue is full", "retry in 200ms");
        check(IngestError::Poisoned("fsync".to_owned()), Code::Unavailable, "fsync", "retry in 30s");
        let field = ServiceError::InvalidField { field: "ticks".to_owned(), problem: "too many".to_owned() };
        check(field, Code::InvalidArgument, "ticks: too many", "ticks: too many");
        check(IngestError::Draining, Code::Unavailable, "shutting down", "retry in 2s");
        check(ColumnsError::NoBaseTime, Code::InvalidArgument, "columns: base_time", "columns: base_time is missing");
    }

    #[test]
    fn call_errors_have_their_status() {
        let no_slot = ServiceError::NoSlot { what: "streams of runs" };
        check(no_slot, Code::ResourceExhausted, "streams of runs: all slots of the server", "retry in 2s");
        let too_many = ServiceError::TooManyReads { reads_max: 32 };
        check(too_many, Code::ResourceExhausted, "32 reads", "retry in 1s");
        let too_long = ServiceError::ReadTooLong { seconds: 30 };
        check(too_long, Code::DeadlineExceeded, "longer than 30 s", "");
        check(ServiceError::TooManyUnread, Code::ResourceExhausted, "earlier responses are unread", "retry in 2s");
        check(ServiceError::Unread { unread_max_s: 20 }, Code::Aborted, "did not read the stream for 20 s", "");
        let too_many = ServiceError::TooManyWatches { watches_max: 5_000 };
        check(too_many, Code::ResourceExhausted, "5000 watches", "retry in 2s");
        let too_old = ServiceError::StreamTooOld { age_max_s: 600, remedy: "ask again" };
        check(too_old, Code::Aborted, "reached its maximum age of 600 s; ask again", "");
        let export = |error| ServiceError::Export(error);
        check(export(ExportError::ReceiverGone), Code::Cancelled, "no longer reads", "");
        let damaged = StoreError::Damaged { path: "db".to_owned(), problem: "no index".to_owned() };
        check(export(damaged.into()), Code::DataLoss, "no index", "");
        let encode = ExportError::Encode { part: "runs.csv".to_owned(), problem: "odd".to_owned() };
        check(export(encode), Code::Internal, "export: cannot write runs.csv: odd", "");
        check(ServiceError::DeadlineExceeded, Code::DeadlineExceeded, "deadline", "");
        check(ServiceError::TaskFailed("panic".to_owned()), Code::Internal, "panic", "");
    }
}
