//! `RateService`: reads of rates over gRPC.
//!
//! **Invariant**: a handler converts the request into a read of `api` and waits for it. It does not read the store
//! itself.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::deadline::Deadline;
use super::encoded_rates::{EncodedRatesCache, LatestResponse, WithRates};
use super::run_stream::{self, RunMessages};
use super::watch::{Watch, Watches};
use crate::api::{Caller, CallerSlots, Cost, PointReadTask, Rates, ReadTask, ServiceError};
use crate::proto::v1;
use crate::proto::v1::rate_service_server::RateService;
use crate::query::Reader;

/// The calls of [`Rates`] over gRPC.
pub struct RateServiceImpl {
    rates: Arc<Rates>,
    cache: Arc<EncodedRatesCache>,
    watches: Watches,
    streams: CallerSlots,
}

impl RateServiceImpl {
    /// Creates the service over `rates`.
    pub fn new(rates: Arc<Rates>) -> Self {
        let cache = Arc::new(EncodedRatesCache::default());
        let watches = Watches::new(Arc::clone(&rates), Arc::clone(&cache));
        let streams = CallerSlots::new(rates.limits().streams_max);
        Self { rates, cache, watches, streams }
    }

    /// Returns the latest rates. The encoded rates come from the cache.
    pub(super) fn latest_response(&self, request: &v1::GetLatestRatesRequest) -> Result<LatestResponse, Status> {
        let filter = self.rates.filter(&request.pairs, &request.sources)?;
        let latest_quotes = &self.rates.view().latest_quotes;
        Ok(self.cache.response(latest_quotes, &filter, request.since_sequence, self.rates.now()))
    }

    /// Returns the number of series with a latest rate.
    pub(super) fn quote_count(&self) -> usize {
        self.rates.view().latest_quotes.quotes.len()
    }

    /// Returns the same response as [`Self::latest_response`], but builds it on a blocking thread with a read permit.
    /// With many series, building it would delay other calls.
    pub(super) async fn latest_response_blocking(
        self: Arc<Self>,
        request: v1::GetLatestRatesRequest,
    ) -> Result<Response<LatestResponse>, Status> {
        let service = Arc::clone(&self);
        let read = self.rates.read(move |_: &Reader| Ok(service.latest_response(&request))).await?;
        let mut response = Response::new(read.answer?);
        response.extensions_mut().insert(read.permit);
        Ok(response)
    }

    /// Starts a watch of the latest rates. The encoded rates come from the cache.
    pub(super) fn watch(&self, request: &v1::WatchLatestRatesRequest) -> Result<Watch, Status> {
        Ok(self.watches.open(request)?)
    }
}

/// Runs the read of a validated request. The response carries the read permit until its bytes are encoded and, if the
/// response is large, sent.
pub(super) async fn run_read<T: Send + 'static>(
    rates: &Rates,
    task: Result<impl ReadTask<T>, ServiceError>,
) -> Result<Response<T>, Status> {
    run_read_at_cost(rates, Cost::Cheap, task).await
}

/// Does the same as [`run_read`], for a read of this cost.
async fn run_read_at_cost<T: Send + 'static>(
    rates: &Rates,
    cost: Cost,
    task: Result<impl ReadTask<T>, ServiceError>,
) -> Result<Response<T>, Status> {
    let read = rates.read_at_cost(cost, task?).await?;
    let mut response = Response::new(read.answer);
    response.extensions_mut().insert(read.permit);
    Ok(response)
}

/// Runs the read of single rates: on this thread if all it needs is in memory, else as [`run_read`] does.
async fn run_point_read<T: Send + 'static>(
    rates: &Rates,
    task: Result<impl PointReadTask<T>, ServiceError>,
) -> Result<Response<T>, Status> {
    let (answer, permit) = rates.read_point(task?).await?;
    let mut response = Response::new(answer);
    if let Some(permit) = permit {
        response.extensions_mut().insert(permit);
    }
    Ok(response)
}

#[tonic::async_trait]
impl RateService for RateServiceImpl {
    type StreamRunsStream = RunMessages;
    type WatchLatestRatesStream = Pin<Box<dyn Stream<Item = Result<v1::WatchLatestRatesResponse, Status>> + Send>>;

    async fn list_series(
        &self,
        request: Request<v1::ListSeriesRequest>,
    ) -> Result<Response<v1::ListSeriesResponse>, Status> {
        run_read(&self.rates, self.rates.list_series(request.get_ref())).await
    }

    async fn get_latest_rates(
        &self,
        request: Request<v1::GetLatestRatesRequest>,
    ) -> Result<Response<v1::GetLatestRatesResponse>, Status> {
        // `LatestFastPath` answers this call, so it does not arrive here.
        Ok(Response::new(self.rates.get_latest_rates(request.get_ref())?))
    }

    async fn watch_latest_rates(
        &self,
        request: Request<v1::WatchLatestRatesRequest>,
    ) -> Result<Response<Self::WatchLatestRatesStream>, Status> {
        // `LatestFastPath` answers this call, too.
        let messages = self.watch(request.get_ref())?.map(|message| message.and_then(WithRates::decode));
        Ok(Response::new(Box::pin(messages)))
    }

    async fn get_rate(&self, request: Request<v1::GetRateRequest>) -> Result<Response<v1::GetRateResponse>, Status> {
        run_point_read(&self.rates, self.rates.get_rate(request.get_ref())).await
    }

    async fn convert(&self, request: Request<v1::ConvertRequest>) -> Result<Response<v1::ConvertResponse>, Status> {
        run_point_read(&self.rates, self.rates.convert(request.into_inner())).await
    }

    async fn list_runs(&self, request: Request<v1::ListRunsRequest>) -> Result<Response<v1::ListRunsResponse>, Status> {
        run_read(&self.rates, self.rates.list_runs(request.into_inner())).await
    }

    async fn stream_runs(
        &self,
        request: Request<v1::StreamRunsRequest>,
    ) -> Result<Response<Self::StreamRunsStream>, Status> {
        let deadline = Deadline::of(request.extensions());
        let slot = self.streams.take(Caller::current());
        let slot = slot.ok_or(ServiceError::NoSlot { what: "streams of runs" })?;
        let runs = self.rates.stream_runs(request.get_ref()).await?.answer;
        Ok(Response::new(run_stream::send(runs, deadline, self.rates.limits().stream_age_max_s, slot)))
    }

    async fn get_change(
        &self,
        request: Request<v1::GetChangeRequest>,
    ) -> Result<Response<v1::GetChangeResponse>, Status> {
        run_point_read(&self.rates, self.rates.get_change(request.get_ref())).await
    }

    async fn list_changes(
        &self,
        request: Request<v1::ListChangesRequest>,
    ) -> Result<Response<v1::ListChangesResponse>, Status> {
        run_read(&self.rates, self.rates.list_changes(request.into_inner())).await
    }

    async fn compare_sources(
        &self,
        request: Request<v1::CompareSourcesRequest>,
    ) -> Result<Response<v1::CompareSourcesResponse>, Status> {
        run_read_at_cost(&self.rates, Cost::Expensive, self.rates.compare_sources(request.into_inner())).await
    }

    async fn list_candles(
        &self,
        request: Request<v1::ListCandlesRequest>,
    ) -> Result<Response<v1::ListCandlesResponse>, Status> {
        run_read_at_cost(&self.rates, Cost::Expensive, self.rates.list_candles(request.into_inner())).await
    }

    async fn list_revisions(
        &self,
        request: Request<v1::ListRevisionsRequest>,
    ) -> Result<Response<v1::ListRevisionsResponse>, Status> {
        run_read(&self.rates, self.rates.list_revisions(request.into_inner())).await
    }

    async fn list_sources(
        &self,
        request: Request<v1::ListSourcesRequest>,
    ) -> Result<Response<v1::ListSourcesResponse>, Status> {
        run_read(&self.rates, self.rates.list_sources(request.get_ref())).await
    }

    async fn list_gaps(&self, request: Request<v1::ListGapsRequest>) -> Result<Response<v1::ListGapsResponse>, Status> {
        run_read_at_cost(&self.rates, Cost::Expensive, self.rates.list_gaps(request.into_inner())).await
    }
}
