//! The access layer of gRPC: it authorises each call, and ends the calls of a token that ends.
//!
//! **Invariants**: a call reaches a service only with the [`Principal`] in its extensions that authorised it. No service
//! sees the header `authorization`. A call of a token that is revoked, is changed or expires ends with
//! `UNAUTHENTICATED`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::send_buffer::ConnectionBuffer;
use crate::access::needs;
use crate::access::{Access, Presented, Principal, Refusal};
use crate::grpc::EndingBody;

/// Authorises the calls of the inner services.
#[derive(Clone)]
pub(super) struct AccessLayer {
    access: Access,
}

impl AccessLayer {
    pub(super) fn new(access: Access) -> Self {
        Self { access }
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = AccessService<S>;

    fn layer(&self, inner: S) -> AccessService<S> {
        AccessService { inner, access: self.access.clone() }
    }
}

/// See [`AccessLayer`].
#[derive(Clone)]
pub(super) struct AccessService<S> {
    inner: S,
    access: Access,
}

impl<S> AccessService<S> {
    fn authorize<B>(&self, request: &mut Request<B>) -> Result<Principal, Refusal> {
        let peer = request.extensions().get::<ConnectionBuffer>().map(ConnectionBuffer::peer).unwrap_or_default();
        let need = needs::method(request.uri().path());
        let header = request.headers_mut().remove(AUTHORIZATION);
        self.access.authorize(Some(need), &peer, Presented::from_header(header.as_ref().map(HeaderValue::as_bytes)))
    }
}

impl<S, B> Service<Request<B>> for AccessService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = AccessFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.authorize(&mut request) {
            Ok(principal) => {
                let ended = principal.identity.ended().map(|ended| Ended {
                    token: Box::pin(ended.clone().cancelled_owned()),
                    access: self.access.clone(),
                });
                request.extensions_mut().insert(principal);
                AccessFuture::Authorized { call: self.inner.call(request), ended }
            }
            Err(refusal) => AccessFuture::Refused { refusal: Some(refusal) },
        }
    }
}

/// What ends a call.
pub(super) struct Ended {
    token: Pin<Box<WaitForCancellationFutureOwned>>,
    access: Access,
}

pin_project! {
    /// The future of a response.
    #[project = AccessFutureProject]
    pub(super) enum AccessFuture<F> {
        Authorized { #[pin] call: F, ended: Option<Ended> },
        Refused { refusal: Option<Refusal> },
    }
}

impl<F, E> Future for AccessFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AccessFutureProject::Authorized { call, ended } => {
                // The call may wait for a body that its client holds back.
                if let Some(ended) = ended
                    && ended.token.as_mut().poll(context).is_ready()
                {
                    return Poll::Ready(Ok(end_status(&ended.access).into_http()));
                }
                let result = ready!(call.poll(context));
                let Some(Ended { token, access }) = ended.take() else { return Poll::Ready(result) };
                let status = move || end_status(&access);
                Poll::Ready(result.map(|response| response.map(|inner| EndingBody::body(inner, token, status))))
            }
            AccessFutureProject::Refused { refusal } => {
                // The future is polled once: it is ready at once.
                let refusal = refusal.take().unwrap_or(Refusal::Ended);
                Poll::Ready(Ok(Status::from(refusal).into_http()))
            }
        }
    }
}

/// Returns the status of a call whose token ended, and counts the refusal.
fn end_status(access: &Access) -> Status {
    access.count(Refusal::Ended).into()
}
