//! `RateService`: what is known of rates, now and then.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::deadline::Deadline;
use super::kept_rates::{KeptRates, WithRates};
use super::latest::{self, LatestAnswer};
use super::run_stream::{self, RunMessages};
use super::watch::{WATCHERS_MAX, Watch, Watches};
use crate::api::{Rates, ServiceError};
use crate::proto::v1;
use crate::proto::v1::rate_service_server::RateService;

/// Most streams of runs at once: each keeps a thread, a version of the store and a few messages.
const STREAMS_MAX: usize = 64;

/// Answers of [`Rates`] over gRPC.
pub struct RateServiceImpl {
    rates: Arc<Rates>,
    kept: Arc<KeptRates>,
    watches: Watches,
    streams: Arc<Semaphore>,
}

impl RateServiceImpl {
    /// Over `rates`.
    pub fn new(rates: Arc<Rates>) -> Self {
        let kept = Arc::new(KeptRates::default());
        let watches = Watches::new(Arc::clone(&rates), Arc::clone(&kept), WATCHERS_MAX);
        Self { rates, kept, watches, streams: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }

    /// With another limit of watchers at one time.
    #[must_use]
    pub fn with_watchers_max(self, watchers_max: usize) -> Self {
        let watches = Watches::new(Arc::clone(&self.rates), Arc::clone(&self.kept), watchers_max);
        Self { watches, ..self }
    }

    /// The latest rates, as bytes kept where everything is asked for.
    pub(super) fn latest_answer(&self, request: &v1::GetLatestRatesRequest) -> Result<LatestAnswer, Status> {
        let filter = self.rates.filter(&request.pairs, &request.sources)?;
        let board = &self.rates.view().board;
        Ok(latest::answer(&self.kept, board, &filter, request.since_sequence, self.rates.now()))
    }

    /// The latest rates and each change to them, as bytes kept where everything is watched.
    pub(super) fn watch(&self, request: &v1::WatchLatestRatesRequest) -> Result<Watch, Status> {
        Ok(self.watches.open(request)?)
    }
}

#[tonic::async_trait]
impl RateService for RateServiceImpl {
    type StreamRunsStream = RunMessages;
    type WatchLatestRatesStream = Pin<Box<dyn Stream<Item = Result<v1::WatchLatestRatesResponse, Status>> + Send>>;

    async fn list_series(
        &self,
        request: Request<v1::ListSeriesRequest>,
    ) -> Result<Response<v1::ListSeriesResponse>, Status> {
        Ok(Response::new(self.rates.list_series(request.get_ref()).await?))
    }

    async fn get_latest_rates(
        &self,
        request: Request<v1::GetLatestRatesRequest>,
    ) -> Result<Response<v1::GetLatestRatesResponse>, Status> {
        // Behind a `LatestFront` no call gets here.
        Ok(Response::new(self.rates.get_latest_rates(request.get_ref())?))
    }

    async fn watch_latest_rates(
        &self,
        request: Request<v1::WatchLatestRatesRequest>,
    ) -> Result<Response<Self::WatchLatestRatesStream>, Status> {
        // Nor does this one.
        let messages = self.watch(request.get_ref())?.map(|message| message.and_then(WithRates::whole));
        Ok(Response::new(Box::pin(messages)))
    }

    async fn get_rate(&self, request: Request<v1::GetRateRequest>) -> Result<Response<v1::GetRateResponse>, Status> {
        Ok(Response::new(self.rates.get_rate(request.get_ref()).await?))
    }

    async fn convert(&self, request: Request<v1::ConvertRequest>) -> Result<Response<v1::ConvertResponse>, Status> {
        Ok(Response::new(self.rates.convert(request.into_inner()).await?))
    }

    async fn list_runs(&self, request: Request<v1::ListRunsRequest>) -> Result<Response<v1::ListRunsResponse>, Status> {
        Ok(Response::new(self.rates.list_runs(request.into_inner()).await?))
    }

    async fn stream_runs(
        &self,
        request: Request<v1::StreamRunsRequest>,
    ) -> Result<Response<Self::StreamRunsStream>, Status> {
        let deadline = Deadline::of(request.extensions());
        let permit = Arc::clone(&self.streams)
            .try_acquire_owned()
            .map_err(|_| ServiceError::TooManyStreams { streams_max: STREAMS_MAX })?;
        let runs = self.rates.stream_runs(request.get_ref()).await?;
        Ok(Response::new(run_stream::send(runs, deadline, permit)))
    }

    async fn get_change(
        &self,
        request: Request<v1::GetChangeRequest>,
    ) -> Result<Response<v1::GetChangeResponse>, Status> {
        Ok(Response::new(self.rates.get_change(request.get_ref()).await?))
    }

    async fn list_changes(
        &self,
        request: Request<v1::ListChangesRequest>,
    ) -> Result<Response<v1::ListChangesResponse>, Status> {
        Ok(Response::new(self.rates.list_changes(request.into_inner()).await?))
    }

    async fn compare_sources(
        &self,
        request: Request<v1::CompareSourcesRequest>,
    ) -> Result<Response<v1::CompareSourcesResponse>, Status> {
        Ok(Response::new(self.rates.compare_sources(request.into_inner()).await?))
    }

    async fn list_candles(
        &self,
        request: Request<v1::ListCandlesRequest>,
    ) -> Result<Response<v1::ListCandlesResponse>, Status> {
        Ok(Response::new(self.rates.list_candles(request.into_inner()).await?))
    }

    async fn list_revisions(
        &self,
        request: Request<v1::ListRevisionsRequest>,
    ) -> Result<Response<v1::ListRevisionsResponse>, Status> {
        Ok(Response::new(self.rates.list_revisions(request.into_inner()).await?))
    }

    async fn list_sources(
        &self,
        request: Request<v1::ListSourcesRequest>,
    ) -> Result<Response<v1::ListSourcesResponse>, Status> {
        Ok(Response::new(self.rates.list_sources(request.get_ref()).await?))
    }

    async fn list_gaps(&self, request: Request<v1::ListGapsRequest>) -> Result<Response<v1::ListGapsResponse>, Status> {
        Ok(Response::new(self.rates.list_gaps(request.into_inner()).await?))
    }
}
