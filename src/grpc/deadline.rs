//! The deadline layer: ends a call at the deadline of its client, which the header `grpc-timeout` sets.
//!
//! **Invariant**: a call past its deadline ends with `DEADLINE_EXCEEDED`, and its work is dropped. Tonic alone would
//! return `CANCELLED` before the response, and would not end a stream. Exception: a batch in the queue of the writer is
//! still stored. Sending the batch again is harmless.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Extensions, HeaderMap, Request, Response};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::ending_body::EndingBody;
use crate::api::ServiceError;

const TIMEOUT_HEADER: &str = "grpc-timeout";
/// Digits of the number in a `grpc-timeout`; the gRPC protocol sets this limit.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// The deadline of a call. It is stored in the extensions of the request if the client set one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// Returns the deadline from the extensions of a request; `None` if the client set none.
    pub(super) fn of(extensions: &Extensions) -> Option<Instant> {
        extensions.get::<Self>().map(|deadline| deadline.0)
    }
}

/// Ends every call of the inner services at the deadline of its client.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService { inner }
    }
}

/// The service that [`DeadlineLayer`] creates.
#[derive(Clone, Debug)]
pub struct DeadlineService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for DeadlineService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // tonic polls this future before its own timer, which has the same duration. So this timer takes effect.
        let deadline = deadline_of(request.headers()).map(|deadline| {
            // For streams: their thread must end at the deadline even if the client does not read.
            request.extensions_mut().insert(Deadline(deadline));
            Box::pin(sleep_until(deadline))
        });
        DeadlineFuture { inner: self.inner.call(request), deadline }
    }
}

pin_project! {
    /// The future of a response, limited by the deadline.
    pub struct DeadlineFuture<F> {
        #[pin]
        inner: F,
        // Boxed, so that the timer can move into the body. A call without a deadline allocates nothing.
        deadline: Option<Pin<Box<Sleep>>>,
    }
}

impl<F, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(result) = this.inner.poll(context) {
            let deadline = this.deadline.take();
            return Poll::Ready(result.map(|response| match deadline {
                Some(deadline) => response.map(|inner| EndingBody::body(inner, deadline, exceeded)),
                None => response,
            }));
        }
        match this.deadline {
            Some(deadline) => {
                ready!(deadline.as_mut().poll(context));
                Poll::Ready(Ok(exceeded().into_http()))
            }
            None => Poll::Pending,
        }
    }
}

fn exceeded() -> Status {
    ServiceError::DeadlineExceeded.into()
}

/// Returns the deadline of a call that arrives now. An invalid header sets no deadline, as in other gRPC servers.
fn deadline_of(headers: &HeaderMap) -> Option<Instant> {
    Instant::now().checked_add(parse_timeout(headers.get(TIMEOUT_HEADER)?.to_str().ok()?)?)
}

/// Parses a timeout: a number of at most eight digits and a unit, such as `100m` for 100 ms. Returns `None` if the text
/// is invalid.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=TIMEOUT_DIGITS_MAX).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_hours(count)),
        "M" => Some(Duration::from_mins(count)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::pending;

    use http_body::Body as _;
    use http_body_util::BodyExt as _;
    use tonic::Code;
    use tower::ServiceExt as _;

    use http_body::Frame;
    use prost::bytes::Bytes;

    use super::*;

    #[test]
    fn timeout_is_a_number_and_a_unit() {
        let check = |text: &str, expect: Option<Duration>| assert_eq!(parse_timeout(text), expect, "{text}");
        check("1H", Some(Duration::from_hours(1)));
        check("2M", Some(Duration::from_mins(2)));
        check("3S", Some(Duration::from_secs(3)));
        check("4m", Some(Duration::from_millis(4)));
        check("5u", Some(Duration::from_micros(5)));
        check("6n", Some(Duration::from_nanos(6)));
        check("99999999H", Some(Duration::from_hours(99_999_999)));
        for bad in ["", "S", "5", "5s", "-5S", "+5S", "123456789S", "5é"] {
            check(bad, None);
        }
    }

    fn call(timeout: &str) -> Request<()> {
        Request::builder().header(TIMEOUT_HEADER, timeout).body(()).unwrap()
    }

    #[tokio::test]
    async fn call_without_a_response_in_time_ends_with_deadline_exceeded() {
        let never =
            DeadlineLayer.layer(tower::service_fn(|_: Request<()>| pending::<Result<Response<Body>, Infallible>>()));
        let response = never.oneshot(call("1m")).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }

    /// A body that sends one frame and then nothing more.
    struct Stuck(bool);

    impl http_body::Body for Stuck {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"first")))))
        }
    }

    #[tokio::test]
    async fn stream_past_its_deadline_ends_with_deadline_exceeded() {
        let stuck = DeadlineLayer.layer(tower::service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(Body::new(Stuck(false))))
        }));
        let body = stuck.oneshot(call("50m")).await.unwrap().into_body().collect().await.unwrap();
        let status = Status::from_header_map(body.trailers().unwrap()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(body.to_bytes(), Bytes::from_static(b"first"));
    }

    #[tokio::test]
    async fn body_without_a_deadline_is_not_wrapped() {
        let quick = DeadlineLayer
            .layer(tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Body::empty())) }));
        let response = quick.oneshot(Request::new(())).await.unwrap();
        assert!(response.into_body().is_end_stream());
    }
}
