//! Problem details (RFC 9457): an HTTP status, and a JSON object with the field, the value and the remedy.
//!
//! **Invariant**: one exhaustive match maps every error code to its HTTP status. No other code in `http` chooses the
//! status of a [`ServiceError`].

use std::fmt::Display;
use std::time::Duration;

use crate::api::{ErrorCode, ErrorDetail, ServiceError};
use axum::Json;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;

/// The challenge of a response that asks for credentials (RFC 6750).
pub(super) const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"silkrate\"");

/// The JSON object of an error response.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Problem {
    title: &'static str,
    status: u16,
    /// The error for people: field, value and remedy.
    detail: String,
    /// The name of the gRPC status code for the same error.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// The parameter that is invalid.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<Box<str>>,
    /// The reason why there is no rate: `NO_QUOTE_YET`, `STALE`, `UNKNOWN_SERIES`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// A copy of `detail` for clients of Frankfurter, which read the error from this member.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Box<str>>,
    /// The seconds to wait before a retry, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u32>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code: None,
            field: None,
            reason: None,
            message: None,
            retry_after: None,
        }
    }

    /// Copies the detail to `message`.
    pub(super) fn with_message(self) -> Self {
        Self { message: Some(self.detail.as_str().into()), ..self }
    }

    /// Sets the time to wait before a retry, rounded up to whole seconds.
    pub(super) fn with_retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        Self { retry_after: Some(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX)), ..self }
    }
}

/// Returns the error for a failure inside the server that no request should cause.
pub(super) fn internal_error(problem: &impl Display) -> ServiceError {
    ServiceError::TaskFailed(problem.to_string())
}

/// Returns the HTTP status of an error code, and the code's name.
pub(super) const fn status_of(code: ErrorCode) -> (StatusCode, &'static str) {
    match code {
        ErrorCode::InvalidArgument => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
        ErrorCode::Unauthenticated => (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
        ErrorCode::PermissionDenied => (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
        ErrorCode::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED"),
        ErrorCode::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
        ErrorCode::FailedPrecondition => (StatusCode::CONFLICT, "FAILED_PRECONDITION"),
        // Not 429: these limits apply to all clients together, not to this client.
        ErrorCode::ResourceExhausted => (StatusCode::SERVICE_UNAVAILABLE, "RESOURCE_EXHAUSTED"),
        ErrorCode::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        ErrorCode::Aborted => (StatusCode::CONFLICT, "ABORTED"),
        ErrorCode::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "CANCELLED"),
        ErrorCode::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"),
        ErrorCode::DataLoss => (StatusCode::INTERNAL_SERVER_ERROR, "DATA_LOSS"),
        ErrorCode::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        let (code, detail) = error.log_and_describe();
        let (status, name) = status_of(code);
        let mut problem = Self { code: Some(name), ..Self::new(status, error.to_string()) };
        match detail {
            ErrorDetail::None => {}
            ErrorDetail::Field { field, .. } => problem.field = Some(field.into()),
            ErrorDetail::Reason(reason) => problem.reason = Some(reason),
            ErrorDetail::RetryAfter(after) => problem = problem.with_retry_after(after),
        }
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::IngestError;
    use crate::query::QueryError;
    use crate::store::StoreError;

    #[test]
    fn code_maps_to_http_status() {
        let check = |code: ErrorCode, expect: u16| assert_eq!(status_of(code).0.as_u16(), expect, "{code:?}");
        check(ErrorCode::InvalidArgument, 400);
        check(ErrorCode::Unauthenticated, 401);
        check(ErrorCode::PermissionDenied, 403);
        check(ErrorCode::TooManyRequests, 429);
        check(ErrorCode::NotFound, 404);
        check(ErrorCode::FailedPrecondition, 409);
        check(ErrorCode::ResourceExhausted, 503);
        check(ErrorCode::Unavailable, 503);
        check(ErrorCode::Aborted, 409);
        check(ErrorCode::Cancelled, 503);
        check(ErrorCode::DeadlineExceeded, 504);
        check(ErrorCode::DataLoss, 500);
        check(ErrorCode::Internal, 500);
    }

    #[test]
    fn problem_has_the_field_the_reason_or_the_retry_time_of_its_error() {
        let check = |error: ServiceError, expect: &str| {
            assert_eq!(serde_json::to_string(&Problem::from(error)).unwrap(), expect);
        };
        check(
            QueryError::invalid("pair", "is missing").into(),
            r#"{"title":"Bad Request","status":400,"detail":"pair: is missing","code":"INVALID_ARGUMENT","field":"pair"}"#,
        );
        check(
            IngestError::QueueFull.into(),
            r#"{"title":"Service Unavailable","status":503,"detail":"the ingest queue is full; try again in a moment","code":"RESOURCE_EXHAUSTED","retry_after":1}"#,
        );
        let known_time = crate::domain::Timestamp::from_micros(0);
        let no_quote = Problem::from(ServiceError::from(QueryError::NothingKnownYet { known_time }));
        assert_eq!((no_quote.status, no_quote.reason), (404, Some("NO_QUOTE_YET")));
        let lost = StoreError::Io { action: "read".to_owned(), problem: "gone".to_owned(), disk_full: false };
        assert_eq!(Problem::from(ServiceError::from(lost)).status, 503);
        let damaged = StoreError::Damaged { path: "db".to_owned(), problem: "no index".to_owned() };
        assert_eq!(Problem::from(ServiceError::from(damaged)).status, 500);
    }
}
