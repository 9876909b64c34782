//! gRPC-Web on the gRPC port, for pages in browsers, which cannot speak gRPC.
//!
//! **Invariants**: for a native gRPC call, this layer only reads the HTTP version and headers. A page of an origin that
//! is not allowed can neither make a call nor read a response. The body of a gRPC-Web request must arrive within a time
//! limit.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName, ORIGIN};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;
use prost::bytes::Bytes;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service, ServiceExt as _};
use tower_http::cors::{AllowOrigin, Cors, CorsLayer};

use crate::config::CorsOrigin;
use crate::http::STREAM_HEADERS;

/// The prefix of every content type of gRPC-Web. In text mode, `-text` follows.
const WEB_TYPE: &[u8] = b"application/grpc-web";
/// The content type of gRPC. An encoding (`+proto`) or parameters (`;...`) may follow.
const NATIVE_TYPE: &[u8] = b"application/grpc";
/// Maximum time until the body of a gRPC-Web request has arrived. HTTP/1 has no ping that would detect a lost client.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// Maximum time that a browser may cache a preflight response. Browsers do not accept a longer time.
const PREFLIGHT_AGE: Duration = Duration::from_hours(2);
/// The request headers that pages may send.
const REQUEST_HEADERS: [&str; 5] = ["authorization", "content-type", "x-grpc-web", "x-user-agent", "grpc-timeout"];
/// The response headers that pages may read: the status of a call.
const RESPONSE_HEADERS: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];

/// A layer that lets pages of the allowed origins call the services inside it.
#[derive(Clone)]
pub(super) struct WebLayer {
    origins: Arc<[CorsOrigin]>,
    cors: CorsLayer,
}

impl WebLayer {
    pub(super) fn new(origins: Vec<CorsOrigin>) -> Self {
        let origins: Arc<[CorsOrigin]> = origins.into();
        let allowed = Arc::clone(&origins);
        let names = |names: &'static [&'static str]| names.iter().map(|name| HeaderName::from_static(name));
        let cors = CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, _| is_allowed(&allowed, origin)))
            .allow_methods([Method::POST])
            .allow_headers(names(&REQUEST_HEADERS).collect::<Vec<_>>())
            .expose_headers(names(&RESPONSE_HEADERS).collect::<Vec<_>>())
            .max_age(PREFLIGHT_AGE);
        Self { origins, cors }
    }
}

fn is_allowed(origins: &[CorsOrigin], origin: &HeaderValue) -> bool {
    origins.iter().any(|allowed| allowed.allows(origin.as_bytes()))
}

impl<S: Clone> Layer<S> for WebLayer {
    type Service = WebService<S>;

    fn layer(&self, inner: S) -> WebService<S> {
        let web = self.cors.layer(GrpcWebLayer::new().layer(inner.clone()));
        WebService { native: inner, web, origins: Arc::clone(&self.origins) }
    }
}

/// See [`WebLayer`].
#[derive(Clone)]
pub(super) struct WebService<S> {
    native: S,
    web: Cors<GrpcWebService<S>>,
    origins: Arc<[CorsOrigin]>,
}

/// The kind of a request, which decides how it is handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A gRPC call over HTTP/2.
    Native,
    /// A gRPC-Web call, or the preflight request of a browser.
    Web,
    /// A request from a page of an origin that is not allowed. The content type does not matter, because browsers send
    /// a preflight request only for some content types.
    ForeignPage,
    /// A request that is neither gRPC nor gRPC-Web.
    Other,
}

fn kind<B>(request: &Request<B>, origins: &[CorsOrigin]) -> Kind {
    let headers = request.headers();
    // A request without an origin comes from a program, not from a page. Programs may use gRPC-Web too.
    if headers.get(ORIGIN).is_some_and(|origin| !is_allowed(origins, origin)) {
        return Kind::ForeignPage;
    }
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if content_type.starts_with(WEB_TYPE) || request.method() == Method::OPTIONS {
        return Kind::Web;
    }
    let parameters = content_type.strip_prefix(NATIVE_TYPE);
    let is_grpc = parameters.is_some_and(|rest| rest.first().is_none_or(|first| matches!(first, b'+' | b';')));
    if is_grpc && request.version() == Version::HTTP_2 { Kind::Native } else { Kind::Other }
}

impl<S> Service<Request<Body>> for WebService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = WebFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.native.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match kind(&request, &self.origins) {
            Kind::Native => WebFuture::Native { call: self.native.call(request) },
            Kind::Web => {
                let request = request.map(|body| Body::new(TimedBody::new(body, REQUEST_TIME_MAX)));
                WebFuture::Web { call: Box::pin(self.web.clone().oneshot(request)) }
            }
            Kind::ForeignPage => WebFuture::refused(
                StatusCode::FORBIDDEN,
                "pages of this origin are not allowed to make calls; allow the origin with --cors-origin\n",
            ),
            Kind::Other => WebFuture::refused(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "this port serves only gRPC over HTTP/2 (content-type application/grpc) and gRPC-Web (application/grpc-web+proto)\n",
            ),
        }
    }
}

pin_project! {
    /// The future of a response.
    #[project = WebFutureProject]
    pub(super) enum WebFuture<F> {
        Native { #[pin] call: F },
        Web { call: Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>> },
        Refused { status: StatusCode, reason: &'static str },
    }
}

impl<F> WebFuture<F> {
    fn refused(status: StatusCode, reason: &'static str) -> Self {
        Self::Refused { status, reason }
    }
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for WebFuture<F> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            WebFutureProject::Native { call } => call.poll(context),
            WebFutureProject::Web { call } => call.as_mut().poll(context).map_ok(with_stream_headers),
            WebFutureProject::Refused { status, reason } => {
                let mut response = Response::new(Body::new(Full::from(*reason)));
                *response.status_mut() = *status;
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
                Poll::Ready(Ok(response))
            }
        }
    }
}

fn with_stream_headers(mut response: Response<Body>) -> Response<Body> {
    for (name, value) in STREAM_HEADERS {
        response.headers_mut().insert(name, value);
    }
    response
}

/// A request body that fails if it takes longer than `time_max` to arrive.
struct TimedBody {
    inner: Body,
    time_max: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl TimedBody {
    fn new(inner: Body, time_max: Duration) -> Self {
        Self { inner, time_max, deadline: Box::pin(sleep(time_max)) }
    }
}

impl http_body::Body for TimedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Check the deadline first, because a slow client may always have another byte ready.
        if self.deadline.as_mut().poll(context).is_ready() {
            let problem = format!("the request did not arrive completely within {:?}; send it faster", self.time_max);
            return Poll::Ready(Some(Err(Status::deadline_exceeded(problem))));
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn request_kind_follows_from_origin_version_and_content_type() {
        let origins = [CorsOrigin::Page("http://localhost:8080".to_owned())];
        let check = |method: Method, version, content_type: &str, origin: &str, expect| {
            let mut request = Request::builder().method(method).version(version);
            for (name, value) in [(CONTENT_TYPE, content_type), (ORIGIN, origin)] {
                request = if value.is_empty() { request } else { request.header(name, value) };
            }
            assert_eq!(kind(&request.body(()).unwrap(), &origins), expect, "{content_type} {origin}");
        };
        let (http1, http2) = (Version::HTTP_11, Version::HTTP_2);
        let (own, other) = ("http://localhost:8080", "http://evil.example");
        check(Method::POST, http2, "application/grpc", "", Kind::Native);
        check(Method::POST, http2, "application/grpc+proto", "", Kind::Native);
        check(Method::POST, http2, "application/grpc;charset=utf-8", "", Kind::Native);
        check(Method::POST, http2, "application/grpc", own, Kind::Native);
        // Content types that a page may send without a preflight request, or that are not gRPC.
        for content_type in ["", "text/plain", "application/x-www-form-urlencoded", "application/json"] {
            check(Method::POST, http2, content_type, other, Kind::ForeignPage);
            check(Method::POST, http2, content_type, "", Kind::Other);
            check(Method::POST, http2, content_type, own, Kind::Other);
        }
        check(Method::POST, http2, "application/grpc", other, Kind::ForeignPage);
        check(Method::POST, http2, "application/grpcs", "", Kind::Other);
        check(Method::GET, http2, "", "", Kind::Other);
        check(Method::POST, http1, "application/grpc", "", Kind::Other);
        check(Method::GET, http1, "", "", Kind::Other);
        for version in [http1, http2] {
            for content_type in ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"] {
                check(Method::POST, version, content_type, own, Kind::Web);
                check(Method::POST, version, content_type, other, Kind::ForeignPage);
                check(Method::POST, version, content_type, "", Kind::Web);
            }
            check(Method::OPTIONS, version, "", own, Kind::Web);
            check(Method::OPTIONS, version, "", other, Kind::ForeignPage);
            check(Method::OPTIONS, version, "", "null", Kind::ForeignPage);
        }
    }

    #[tokio::test]
    async fn slow_request_body_exceeds_deadline() {
        let (sender, frames) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Status>>(1);
        let body = http_body_util::StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(frames));
        let reading = tokio::spawn(TimedBody::new(Body::new(body), Duration::from_millis(100)).collect());
        while sender.send(Ok(Frame::data(Bytes::from_static(b"x")))).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    }
}
