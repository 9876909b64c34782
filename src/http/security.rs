//! Security middleware: request checks, the response timeout, CORS and security headers for every route.
//!
//! **Invariant**: a request that is too long, has a body (except the form of the login) or is meant for a proxy never
//! reaches a route. Every response
//! has the headers `X-Content-Type-Options`, `Referrer-Policy` and `Content-Security-Policy`.

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
use http_body::Body as _;
use tokio::time::timeout;

use super::problem::Problem;

/// Maximum length of a path with its query.
const URI_BYTES_MAX: usize = 4_096;
/// Maximum time from the end of a request's head to the start of its response.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The policy of responses that are not pages: a browser may load, run and frame nothing.
const NOTHING_ALLOWED: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// The `Retry-After` of a request that is refused because all connection slots are in use.
const RETRY_CONNECTION: Duration = Duration::from_secs(1);
/// The paths that are answered on a connection in an overflow slot.
const HEALTH: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The paths to which forms are sent.
const FORMS: [&str; 2] = ["/login", "/logout"];
/// Size of a form.
pub(super) const LOGIN_BYTES_MAX: usize = 4_096;

/// Marks the requests of connections beyond the limit. Only health checks are answered; other requests get a 503 with
/// `Retry-After`.
#[derive(Clone, Copy, Debug)]
pub(super) struct OverflowSlot;

/// The origins whose pages may read responses (CORS).
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Origins in the form that browsers send, such as `https://example.org`; `*` allows all origins.
    allowed: Arc<[String]>,
}

impl Origins {
    /// Allows exactly these origins.
    pub fn new(allowed: impl IntoIterator<Item = String>) -> Self {
        Self { allowed: allowed.into_iter().collect() }
    }

    /// Returns the value of `Access-Control-Allow-Origin` for a page of `origin`; none if the page may not read
    /// responses.
    fn allow(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        if self.allowed.iter().any(|allowed| allowed == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = origin?;
        self.allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }
}

/// Refuses invalid requests, answers preflight requests, limits the response time, and adds headers to every response.
pub(super) async fn secure(State(origins): State<Origins>, request: Request, next: Next) -> Response<Body> {
    let allowed = origins.allow(request.headers().get(ORIGIN));
    let is_http2 = request.version() == Version::HTTP_2;
    let mut response = match refusal(&request) {
        // HTTP/2 has no header to close the connection, and resets only the stream of a body that is not read.
        Some(problem) if is_http2 => problem.into_response(),
        Some(problem) => refused(problem),
        None if allowed.is_some() && is_preflight(&request) => preflight(),
        None => timeout(ANSWER_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| {
            let problem = format!("no response within {} s; request less data at a time", ANSWER_TIMEOUT.as_secs());
            Problem::new(StatusCode::GATEWAY_TIMEOUT, problem).into_response()
        }),
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
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

/// Returns the reason to refuse a request before it reaches a route.
fn refusal(request: &Request) -> Option<Problem> {
    let uri = request.uri();
    // A request of HTTP/2 always has both; a proxy would get CONNECT, which no route answers.
    if request.version() != Version::HTTP_2 && (uri.scheme().is_some() || uri.authority().is_some()) {
        let problem = "this server is not a proxy; request a path such as /v1/latest";
        return Some(Problem::new(StatusCode::BAD_REQUEST, problem));
    }
    if request.extensions().get::<OverflowSlot>().is_some() && !HEALTH.contains(&uri.path()) {
        let problem = "all connection slots are in use; try again in a moment";
        return Some(Problem::new(StatusCode::SERVICE_UNAVAILABLE, problem).with_retry_after(RETRY_CONNECTION));
    }
    // Any host name is accepted: the responses are public and do not depend on the host.
    let hosts = request.headers().get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        let problem = format!("the request has {hosts} Host headers; send exactly one");
        return Some(Problem::new(StatusCode::BAD_REQUEST, problem));
    }
    if uri.path_and_query().is_some_and(|path| path.as_str().len() > URI_BYTES_MAX) {
        let problem = format!("path and query have more than {URI_BYTES_MAX} bytes; shorten them");
        return Some(Problem::new(StatusCode::URI_TOO_LONG, problem));
    }
    if is_form(request) {
        // The handler limits the bytes that it reads.
        return None;
    }
    // HTTP/2 needs no header to announce a body.
    if has_body(request.headers()) || !request.body().is_end_stream() {
        let problem = "the request has a body; remove the body and use query parameters";
        return Some(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, problem));
    }
    None
}

/// Returns true for the forms of the login, the only requests that may have a body.
fn is_form(request: &Request) -> bool {
    *request.method() == Method::POST && FORMS.contains(&request.uri().path())
}

fn has_body(headers: &HeaderMap) -> bool {
    let has_length = headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    has_length || headers.contains_key(TRANSFER_ENCODING)
}

/// Returns the response of a refused request. It closes the connection, because the request's body is not read.
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
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, if-none-match"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_allowed_by_exact_match_or_wildcard() {
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
