//! `RateService`: what is known of rates, now and then.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::caller_slots::{Caller, CallerSlots};
use super::deadline::Deadline;
use super::encoded_rates::{EncodedRatesCache, LatestAnswer, WithRates};
use super::run_stream::{self, RunMessages};
use super::watch::{WATCHERS_MAX, Watch, Watches};
use crate::api::{Rates, ServiceError, Work};
use crate::proto::v1;
use crate::proto::v1::rate_service_server::RateService;
use crate::query::Reader;

/// Most streams of runs at once: each keeps a thread, a version of the store and a few messages.
const STREAMS_MAX: usize = 64;
/// Most streams of runs of one caller at once.
const CALLER_STREAMS_MAX: usize = 48;

/// Answers of [`Rates`] over gRPC.
pub struct RateServiceImpl {
    rates: Arc<Rates>,
    kept: Arc<EncodedRatesCache>,
    watches: Watches,
    streams: CallerSlots,
}

impl RateServiceImpl {
    /// Over `rates`.
    pub fn new(rates: Arc<Rates>) -> Self {
        let kept = Arc::new(EncodedRatesCache::default());
        let watches = Watches::new(Arc::clone(&rates), Arc::clone(&kept), WATCHERS_MAX);
        Self { rates, kept, watches, streams: CallerSlots::new(STREAMS_MAX, CALLER_STREAMS_MAX) }
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
        let latest_quotes = &self.rates.view().latest_quotes;
        Ok(self.kept.answer(latest_quotes, &filter, request.since_sequence, self.rates.now()))
    }

    /// How many series have a latest rate.
    pub(super) fn quote_count(&self) -> usize {
        self.rates.view().latest_quotes.quotes.len()
    }

    /// The same answer, made in the place of a read: of many series it would hold up the calls beside it.
    pub(super) async fn latest_answer_of_many(
        self: Arc<Self>,
        request: v1::GetLatestRatesRequest,
    ) -> Result<Response<LatestAnswer>, Status> {
        let service = Arc::clone(&self);
        let read = self.rates.read(move |_: &Reader| Ok(service.latest_answer(&request))).await?;
        let mut response = Response::new(read.answer?);
        response.extensions_mut().insert(read.place);
        Ok(response)
    }

    /// The latest rates and each change to them, as bytes kept where everything is watched.
    pub(super) fn watch(&self, request: &v1::WatchLatestRatesRequest) -> Result<Watch, Status> {
        Ok(self.watches.open(request)?)
    }
}

/// Reads what was asked. The read's place goes with the response, until its bytes are made and, of a large one, sent.
pub(super) async fn answered<T: Send + 'static>(
    rates: &Rates,
    asked: Result<impl Work<T>, ServiceError>,
) -> Result<Response<T>, Status> {
    let read = rates.read(asked?).await?;
    let mut response = Response::new(read.answer);
    response.extensions_mut().insert(read.place);
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
        answered(&self.rates, self.rates.list_series(request.get_ref())).await
    }

    async fn get_latest_rates(
        &self,
        request: Request<v1::GetLatestRatesRequest>,
    ) -> Result<Response<v1::GetLatestRatesResponse>, Status> {
        // Behind a `LatestFastPath` no call gets here.
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
        answered(&self.rates, self.rates.get_rate(request.get_ref())).await
    }

    async fn convert(&self, request: Request<v1::ConvertRequest>) -> Result<Response<v1::ConvertResponse>, Status> {
        answered(&self.rates, self.rates.convert(request.into_inner())).await
    }

    async fn list_runs(&self, request: Request<v1::ListRunsRequest>) -> Result<Response<v1::ListRunsResponse>, Status> {
        answered(&self.rates, self.rates.list_runs(request.into_inner())).await
    }

    async fn stream_runs(
        &self,
        request: Request<v1::StreamRunsRequest>,
    ) -> Result<Response<Self::StreamRunsStream>, Status> {
        let deadline = Deadline::of(request.extensions());
        let place = self.streams.take(Caller::of(request.extensions()));
        let place = place.ok_or(ServiceError::NoSlot { what: "streams of runs" })?;
        let runs = self.rates.stream_runs(request.get_ref()).await?.answer;
        Ok(Response::new(run_stream::send(runs, deadline, place)))
    }

    async fn get_change(
        &self,
        request: Request<v1::GetChangeRequest>,
    ) -> Result<Response<v1::GetChangeResponse>, Status> {
        answered(&self.rates, self.rates.get_change(request.get_ref())).await
    }

    async fn list_changes(
        &self,
        request: Request<v1::ListChangesRequest>,
    ) -> Result<Response<v1::ListChangesResponse>, Status> {
        answered(&self.rates, self.rates.list_changes(request.into_inner())).await
    }

    async fn compare_sources(
        &self,
        request: Request<v1::CompareSourcesRequest>,
    ) -> Result<Response<v1::CompareSourcesResponse>, Status> {
        answered(&self.rates, self.rates.compare_sources(request.into_inner())).await
    }

    async fn list_candles(
        &self,
        request: Request<v1::ListCandlesRequest>,
    ) -> Result<Response<v1::ListCandlesResponse>, Status> {
        answered(&self.rates, self.rates.list_candles(request.into_inner())).await
    }

    async fn list_revisions(
        &self,
        request: Request<v1::ListRevisionsRequest>,
    ) -> Result<Response<v1::ListRevisionsResponse>, Status> {
        answered(&self.rates, self.rates.list_revisions(request.into_inner())).await
    }

    async fn list_sources(
        &self,
        request: Request<v1::ListSourcesRequest>,
    ) -> Result<Response<v1::ListSourcesResponse>, Status> {
        answered(&self.rates, self.rates.list_sources(request.get_ref())).await
    }

    async fn list_gaps(&self, request: Request<v1::ListGapsRequest>) -> Result<Response<v1::ListGapsResponse>, Status> {
        answered(&self.rates, self.rates.list_gaps(request.into_inner())).await
    }
}
