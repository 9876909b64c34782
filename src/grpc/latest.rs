//! The fast path of `GetLatestRates` and `WatchLatestRates`, the most frequent calls: answered from memory, with bytes
//! that are encoded once per commit.
//!
//! Such a call costs little more than its transport. Encoding the rates again for each call would add much to this
//! cost, because each rate is a message with several strings. [`LatestFastPath`] wraps the generated service and sends
//! the bytes that an earlier call encoded. All watchers of a commit get the same bytes.
//!
//! **Invariant**: the fast path and the generated service send the same messages.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};

use super::encoded_rates::{LatestResponse, RatesCodec};
use super::rate_service::RateServiceImpl;
use super::watch::{Watch, WatchMessage};
use crate::proto::v1;

/// Maximum number of quotes in a response that is built on the thread of the call. More quotes would delay other calls.
const INLINE_QUOTES_MAX: usize = 1_000;
/// The paths of the calls that the fast path answers.
const LATEST_PATH: &str = "/silkrate.v1.RateService/GetLatestRates";
const WATCH_PATH: &str = "/silkrate.v1.RateService/WatchLatestRates";

/// Wraps the rate service and answers the two calls itself.
#[derive(Clone)]
pub struct LatestFastPath<S> {
    inner: S,
    rates: Arc<RateServiceImpl>,
}

impl<S> LatestFastPath<S> {
    /// Wraps `inner`, the generated server of `rates`.
    pub fn new(inner: S, rates: Arc<RateServiceImpl>) -> Self {
        Self { inner, rates }
    }
}

impl<S: NamedService> NamedService for LatestFastPath<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for LatestFastPath<S>
where
    S: Service<
            http::Request<Body>,
            Response = http::Response<Body>,
            Error = Infallible,
            Future = BoxFuture<http::Response<Body>, Infallible>,
        >,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match request.uri().path() {
            LATEST_PATH => {
                let call = LatestCall(Arc::clone(&self.rates));
                Box::pin(async move { Ok(Grpc::new(RatesCodec::default()).unary(call, request).await) })
            }
            WATCH_PATH => {
                let call = WatchCall(Arc::clone(&self.rates));
                Box::pin(async move { Ok(Grpc::new(RatesCodec::default()).server_streaming(call, request).await) })
            }
            _ => self.inner.call(request),
        }
    }
}

struct LatestCall(Arc<RateServiceImpl>);

impl UnaryService<v1::GetLatestRatesRequest> for LatestCall {
    type Response = LatestResponse;
    type Future = BoxFuture<Response<LatestResponse>, Status>;

    fn call(&mut self, request: Request<v1::GetLatestRatesRequest>) -> Self::Future {
        let (service, request) = (Arc::clone(&self.0), request.into_inner());
        if service.quote_count() <= INLINE_QUOTES_MAX {
            return Box::pin(ready(service.latest_response(&request).map(Response::new)));
        }
        Box::pin(async move { service.latest_response_blocking(request).await })
    }
}

struct WatchCall(Arc<RateServiceImpl>);

impl ServerStreamingService<v1::WatchLatestRatesRequest> for WatchCall {
    type Response = WatchMessage;
    type ResponseStream = Watch;
    type Future = Ready<Result<Response<Watch>, Status>>;

    fn call(&mut self, request: Request<v1::WatchLatestRatesRequest>) -> Self::Future {
        ready(self.0.watch(request.get_ref()).map(Response::new))
    }
}
