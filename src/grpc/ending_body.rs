//! A response body that ends early: at the deadline of its call, or with the token of its client.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::HeaderMap;
use http_body::{Frame, SizeHint};
use prost::bytes::Bytes;
use tonic::Status;
use tonic::body::Body;

/// A body that ends with the result of `status` once `end` is ready.
pub struct EndingBody<E, S> {
    inner: Body,
    end: Pin<Box<E>>,
    status: S,
    is_over: bool,
}

impl<E, S> EndingBody<E, S>
where
    E: Future<Output = ()> + Send + 'static,
    S: Fn() -> Status + Send + Unpin + 'static,
{
    /// Returns `inner` as a body that ends with the result of `status` once `end` is ready.
    pub fn body(inner: Body, end: Pin<Box<E>>, status: S) -> Body {
        Body::new(Self { inner, end, status, is_over: false })
    }
}

impl<E, S> http_body::Body for EndingBody<E, S>
where
    E: Future<Output = ()>,
    S: Fn() -> Status + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        // Checks the end first, because a stream that always has data would never get to the check.
        if self.end.as_mut().poll(context).is_ready() {
            self.is_over = true;
            let mut trailers = HeaderMap::new();
            let status = (self.status)();
            return Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))));
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
