//! `GetLatestRates` and `WatchLatestRates`: what is asked for most, from memory, in bytes that were written once.
//!
//! A poll costs little more than the transport, so cloning and encoding five messages of strings would be a good part
//! of it. [`LatestFront`] stands before the generated service and sends bytes kept from the poll before; so it does to
//! a thousand watchers of one commit.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use prost::bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};

use super::kept_rates::{KeptRates, RatesCodec, WithRates};
use super::rate_service::RateServiceImpl;
use super::watch::{Watch, WatchMessage};
use crate::api::{latest, latest_without_rates};
use crate::board::Board;
use crate::domain::Timestamp;
use crate::proto::v1;
use crate::query::SeriesFilter;

/// Paths of the calls that the front answers.
const LATEST_PATH: &str = "/silkrate.v1.RateService/GetLatestRates";
const WATCH_PATH: &str = "/silkrate.v1.RateService/WatchLatestRates";

/// An answer to a poll.
pub(super) type LatestAnswer = WithRates<v1::GetLatestRatesResponse>;

/// The same as [`latest`], with bytes of `kept` where all series are asked for.
pub(super) fn answer(
    kept: &KeptRates,
    board: &Arc<Board>,
    filter: &SeriesFilter,
    since_sequence: u64,
    now: Timestamp,
) -> LatestAnswer {
    if filter.is_empty() {
        let encoded_rates = kept.changed(board, since_sequence);
        LatestAnswer { encoded_rates, message: latest_without_rates(board, now) }
    } else {
        LatestAnswer { encoded_rates: Bytes::new(), message: latest(board, filter, since_sequence, now) }
    }
}

/// Stands before the service of rates and answers those calls itself.
#[derive(Clone)]
pub struct LatestFront<S> {
    inner: S,
    rates: Arc<RateServiceImpl>,
}

impl<S> LatestFront<S> {
    /// Before `inner`, the generated server of the same `rates`.
    pub fn new(inner: S, rates: Arc<RateServiceImpl>) -> Self {
        Self { inner, rates }
    }
}

impl<S: NamedService> NamedService for LatestFront<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for LatestFront<S>
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
    type Response = LatestAnswer;
    type Future = std::future::Ready<Result<Response<LatestAnswer>, Status>>;

    fn call(&mut self, request: Request<v1::GetLatestRatesRequest>) -> Self::Future {
        std::future::ready(self.0.latest_answer(request.get_ref()).map(Response::new))
    }
}

struct WatchCall(Arc<RateServiceImpl>);

impl ServerStreamingService<v1::WatchLatestRatesRequest> for WatchCall {
    type Response = WatchMessage;
    type ResponseStream = Watch;
    type Future = std::future::Ready<Result<Response<Watch>, Status>>;

    fn call(&mut self, request: Request<v1::WatchLatestRatesRequest>) -> Self::Future {
        std::future::ready(self.0.watch(request.get_ref()).map(Response::new))
    }
}

#[cfg(test)]
mod tests {
    use super::super::kept_rates::tests::board;
    use super::*;
    use crate::query::latest_tests::quote;

    #[test]
    fn the_kept_answer_equals_the_written_one() {
        let kept = KeptRates::default();
        let now = Timestamp::from_micros(6_000_000);
        let one_pair = SeriesFilter { pairs: vec![quote("KGS/USD", "timesca", 3).series.pair], sources: vec![] };
        for board in [board(7), board(7), board(8)] {
            for filter in [&SeriesFilter::default(), &one_pair] {
                for since in [0, 3, 7, 9] {
                    let slow = latest(&board, filter, since, now);
                    for _ in 0..2 {
                        assert_eq!(answer(&kept, &board, filter, since, now).whole().unwrap(), slow);
                    }
                }
            }
        }
    }

    #[test]
    fn a_poll_that_saw_it_all_gets_the_sequence_alone() {
        let now = Timestamp::from_micros(6_000_000);
        let count = |since| latest(&board(7), &SeriesFilter::default(), since, now).rates.len();
        assert_eq!([0, 3, 7, 8].map(count), [2, 1, 0, 2]);
        let empty = latest(&board(7), &SeriesFilter::default(), 7, now);
        assert_eq!(empty.sequence, 7);
        assert_eq!(empty.server_time.unwrap().seconds, 6);
        assert_eq!(empty.last_ingest_time.unwrap().seconds, 4);
    }
}
