//! What holds for every request and answer, whatever the route.
//!
//! **Invariant**: a request that is too long, has a body or is meant for a proxy goes no further than this; every answer
//! has the headers that keep a browser from making more of it than it is.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, CONTENT_LENGTH,
    CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, TRANSFER_ENCODING, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use tokio::time::timeout;

use super::problem::Problem;

/// Bytes of a path with its query.
const URI_BYTES_MAX: usize = 4_096;
/// From the end of a request's head to the beginning of its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// For answers that are no page: nothing in them is ever to be run, shown or framed.
const NOTHING_ALLOWED: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// When to come back if all connections are taken.
const RETRY_CONNECTION: Duration = Duration::from_secs(1);
/// What a connection of the reserve may ask.
const HEALTH: [&str; 2] = ["/healthz", "/readyz"];

/// Marks requests of connections beyond the limit: whether the process lives is told to them, and to come back.
#[derive(Clone, Copy, Debug)]
pub(super) struct OverflowSlot;

/// Pages of which origins may read what is answered here.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// As browsers write them, `https://example.org`; `*` is all of them.
    allowed: Arc<[String]>,
}

impl Origins {
    /// Those, and no others.
    pub fn new(allowed: impl IntoIterator<Item = String>) -> Self {
        Self { allowed: allowed.into_iter().collect() }
    }

    /// What to answer a page of `origin`; none if it may not read.
    fn allow(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        if self.allowed.iter().any(|allowed| allowed == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = origin?;
        self.allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }
}

/// Lets through what may pass, and dresses the answer.
pub(super) async fn secure(State(origins): State<Origins>, request: Request, next: Next) -> Response<Body> {
    let allowed = origins.allow(request.headers().get(ORIGIN));
    let mut response = match refusal(&request) {
        Some(problem) => refused(problem),
        None if allowed.is_some() && is_preflight(&request) => preflight(),
        None => timeout(ANSWER_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| {
            let problem = format!("no answer within {} s; ask for less at a time", ANSWER_TIMEOUT.as_secs());
            Problem::new(StatusCode::GATEWAY_TIMEOUT, problem).into_response()
        }),
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(NOTHING_ALLOWED);
    if !origins.allowed.is_empty() {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    if let Some(allowed) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        let exposed = HeaderValue::from_static("etag, link, retry-after, silkrate-sequence");
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response
}

/// Why a request goes no further.
fn refusal(request: &Request) -> Option<Problem> {
    let uri = request.uri();
    if uri.scheme().is_some() || uri.authority().is_some() {
        let problem = "this server is no proxy; ask for a path such as /v1/latest";
        return Some(Problem::new(StatusCode::BAD_REQUEST, problem));
    }
    if request.extensions().get::<OverflowSlot>().is_some() && !HEALTH.contains(&uri.path()) {
        let problem = "all connections are taken; try again in a moment";
        return Some(Problem::new(StatusCode::SERVICE_UNAVAILABLE, problem).retry(RETRY_CONNECTION));
    }
    // Any one will do: what is answered is the same to all, and no secret.
    let hosts = request.headers().get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        let problem = format!("HTTP/1.1 asks with one Host header, not {hosts}");
        return Some(Problem::new(StatusCode::BAD_REQUEST, problem));
    }
    if uri.path_and_query().is_some_and(|path| path.as_str().len() > URI_BYTES_MAX) {
        let problem = format!("path and query have more than {URI_BYTES_MAX} bytes; ask for less at a time");
        return Some(Problem::new(StatusCode::URI_TOO_LONG, problem));
    }
    if has_body(request.headers()) {
        let problem = "no request has a body here; questions are asked in the query";
        return Some(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, problem));
    }
    None
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    length || headers.contains_key(TRANSFER_ENCODING)
}

/// What comes after the head is not read, so that the connection cannot be used again.
fn refused(problem: Problem) -> Response<Body> {
    let mut response = problem.into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn is_preflight(request: &Request) -> bool {
    *request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response<Body> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("if-none-match"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_allowed_as_it_is_written() {
        let check = |allowed: &[&str], origin: Option<&'static str>, expect: Option<&str>| {
            let origins = Origins::new(allowed.iter().map(|origin| (*origin).to_owned()));
            let found = origins.allow(origin.map(HeaderValue::from_static).as_ref());
            assert_eq!(found.as_ref().map(|found| found.to_str().unwrap()), expect, "{allowed:?} {origin:?}");
        };
        check(&[], Some("https://a.example"), None);
        check(&["https://a.example"], Some("https://a.example"), Some("https://a.example"));
        check(&["https://a.example"], Some("https://b.example"), None);
        check(&["https://a.example"], Some("null"), None);
        check(&["https://a.example"], None, None);
        check(&["*"], Some("https://b.example"), Some("*"));
        check(&["*"], None, Some("*"));
    }
}
