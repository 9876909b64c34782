//! `RateService`: what is known of rates, now and then.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::deadline::Deadline;
use super::latest::{LatestAnswer, LatestAnswers};
use super::run_stream::{self, RunMessages};
use crate::api::{Rates, ServiceError};
use crate::proto::v1;
use crate::proto::v1::rate_service_server::RateService;

/// Most streams of runs at once: each keeps a thread, a version of the store and a few messages.
const STREAMS_MAX: usize = 64;

/// Answers of [`Rates`] over gRPC.
pub struct RateServiceImpl {
    rates: Arc<Rates>,
    latest: LatestAnswers,
    streams: Arc<Semaphore>,
}

impl RateServiceImpl {
    /// Over `rates`.
    pub fn new(rates: Arc<Rates>) -> Self {
        Self { rates, latest: LatestAnswers::default(), streams: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }

    /// The latest rates, as bytes kept where everything is asked for.
    pub(super) fn latest_answer(&self, request: &v1::GetLatestRatesRequest) -> Result<LatestAnswer, Status> {
        let filter = self.rates.filter(&request.pairs, &request.sources)?;
        Ok(self.latest.answer(&self.rates.view().board, &filter, request.since_sequence, self.rates.now()))
    }
}

#[tonic::async_trait]
impl RateService for RateServiceImpl {
    type StreamRunsStream = RunMessages;

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
}
