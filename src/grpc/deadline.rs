//! The caller's deadline, from the `grpc-timeout` that it sent.
//!
//! **Invariant**: a call whose time is up ends with `DEADLINE_EXCEEDED`, whether it was still being answered or was
//! streaming; the work behind it is dropped. tonic alone would say CANCELLED for the first and let the second run on.
//! What was queued for the writer by then is stored all the same: resending it is harmless.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Extensions, HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use prost::bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::api::ServiceError;

const TIMEOUT_HEADER: &str = "grpc-timeout";
/// Longest count in a `grpc-timeout`, by the protocol.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// When a call must be answered; among the extensions of a request whose caller said so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// Of the call with these extensions, if it has one.
    pub(super) fn of(extensions: &Extensions) -> Option<Instant> {
        extensions.get::<Self>().map(|deadline| deadline.0)
    }
}

/// Puts every call of the services below it under its caller's deadline.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService { inner }
    }
}

/// See [`DeadlineLayer`].
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
        // tonic's own timer of the same length wraps this one and looks at it first.
        let deadline = deadline_of(request.headers()).map(|deadline| {
            // For work that nobody polls while its caller does not read.
            request.extensions_mut().insert(Deadline(deadline));
            Box::pin(sleep_until(deadline))
        });
        DeadlineFuture { inner: self.inner.call(request), deadline }
    }
}

pin_project! {
    /// An answer being made, until its deadline.
    pub struct DeadlineFuture<F> {
        #[pin]
        inner: F,
        // Boxed, so that it can go on into the body; calls without a deadline allocate nothing.
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
        if let Poll::Ready(answer) = this.inner.poll(context) {
            let deadline = this.deadline.take();
            return Poll::Ready(answer.map(|response| match deadline {
                Some(deadline) => response.map(|inner| Body::new(DeadlineBody { inner, deadline, over: false })),
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

/// A stream of answers, until its deadline.
struct DeadlineBody {
    inner: Body,
    deadline: Pin<Box<Sleep>>,
    over: bool,
}

impl http_body::Body for DeadlineBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        // The deadline first: a stream that always has more would never come to it.
        if self.deadline.as_mut().poll(context).is_ready() {
            self.over = true;
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(exceeded().add_header(&mut trailers).map(|()| Frame::trailers(trailers))));
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn exceeded() -> Status {
    ServiceError::DeadlineExceeded.into()
}

/// The deadline of a call that arrives now; a header that does not follow the protocol sets none, as elsewhere in gRPC.
fn deadline_of(headers: &HeaderMap) -> Option<Instant> {
    Instant::now().checked_add(parse_timeout(headers.get(TIMEOUT_HEADER)?.to_str().ok()?)?)
}

/// Reads a count of at most eight digits and a unit, such as `100m` for 100 ms.
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

    use super::*;

    #[test]
    fn timeouts_are_a_count_and_a_unit() {
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
    async fn an_answer_that_does_not_come_in_time_is_deadline_exceeded() {
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
    async fn a_stream_that_runs_on_ends_with_deadline_exceeded() {
        let stuck = DeadlineLayer.layer(tower::service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(Body::new(Stuck(false))))
        }));
        let body = stuck.oneshot(call("50m")).await.unwrap().into_body().collect().await.unwrap();
        let status = Status::from_header_map(body.trailers().unwrap()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(body.to_bytes(), Bytes::from_static(b"first"));
    }

    #[tokio::test]
    async fn without_a_deadline_nothing_is_wrapped() {
        let quick = DeadlineLayer
            .layer(tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Body::empty())) }));
        let response = quick.oneshot(Request::new(())).await.unwrap();
        assert!(response.into_body().is_end_stream());
    }
}
