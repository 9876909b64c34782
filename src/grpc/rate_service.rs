//! `RateService`: what is known of rates, now and then.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::deadline::Deadline;
use super::latest::{self, LatestAnswer, LatestAnswers};
use super::run_stream::{self, RunMessages};
use super::status::ServiceError;
use super::{rate_request, rate_response};
use crate::board::StateRules;
use crate::clock::Clock;
use crate::domain::CurrencySet;
use crate::ingest::Ingest;
use crate::proto::v1;
use crate::proto::v1::rate_service_server::RateService;
use crate::query::{QueryError, Reader, Stop};

/// Most streams of runs at once: each keeps a thread, a version of the store and a few messages.
const STREAMS_MAX: usize = 64;

/// Answers reads from the newest view, each from one commit.
pub struct RateServiceImpl {
    ingest: Ingest,
    clock: Arc<dyn Clock>,
    currencies: CurrencySet,
    rules: Arc<StateRules>,
    latest: LatestAnswers,
    streams: Arc<Semaphore>,
}

impl RateServiceImpl {
    /// Over what `ingest` makes visible. `currencies` are those that may be asked for; states follow `rules`.
    pub fn new(ingest: Ingest, clock: Arc<dyn Clock>, currencies: CurrencySet, rules: StateRules) -> Self {
        Self {
            ingest,
            clock,
            currencies,
            rules: Arc::new(rules),
            latest: LatestAnswers::default(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }

    /// The latest rates, as bytes kept where everything is asked for.
    pub(super) fn latest_answer(&self, request: &v1::GetLatestRatesRequest) -> Result<LatestAnswer, Status> {
        let filter = rate_request::filter(&request.pairs, &request.sources, &self.currencies)?;
        let view = self.ingest.view();
        Ok(self.latest.answer(&view.board, &filter, request.since_sequence, self.clock.now()))
    }

    /// Reads on a blocking thread, for as long as the caller waits: past its deadline, this is dropped.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, Status> {
        let stop = Stop::default();
        let _stops_when_dropped = stop.on_drop();
        let reader = Reader::new(self.ingest.view(), self.clock.now(), Arc::clone(&self.rules), stop);
        let task = tokio::task::spawn_blocking(move || work(&reader));
        match task.await {
            Ok(answer) => answer.map_err(Status::from),
            Err(problem) => Err(ServiceError::BrokenOff(problem.to_string()).into()),
        }
    }
}

#[tonic::async_trait]
impl RateService for RateServiceImpl {
    type StreamRunsStream = RunMessages;

    async fn list_series(
        &self,
        request: Request<v1::ListSeriesRequest>,
    ) -> Result<Response<v1::ListSeriesResponse>, Status> {
        let question = rate_request::series(request.get_ref(), &self.currencies)?;
        let answer = self.read(move |reader| reader.series(&question)).await?;
        Ok(Response::new(rate_response::series(&answer)))
    }

    async fn get_latest_rates(
        &self,
        request: Request<v1::GetLatestRatesRequest>,
    ) -> Result<Response<v1::GetLatestRatesResponse>, Status> {
        // Behind a `LatestFront` no call gets here.
        let v1::GetLatestRatesRequest { pairs, sources, since_sequence } = request.get_ref();
        let filter = rate_request::filter(pairs, sources, &self.currencies)?;
        let view = self.ingest.view();
        Ok(Response::new(latest::message(&view.board, &filter, *since_sequence, self.clock.now())))
    }

    async fn get_rate(&self, request: Request<v1::GetRateRequest>) -> Result<Response<v1::GetRateResponse>, Status> {
        let question = rate_request::rate(request.get_ref(), &self.currencies)?;
        let answer = self.read(move |reader| reader.rate(&question)).await?;
        Ok(Response::new(rate_response::rate(answer.commit, &answer.body)))
    }

    async fn list_runs(&self, request: Request<v1::ListRunsRequest>) -> Result<Response<v1::ListRunsResponse>, Status> {
        let rate_request::Paged { question, fingerprint } = rate_request::runs(request.into_inner(), &self.currencies)?;
        let answer = self.read(move |reader| reader.runs(&question)).await?;
        Ok(Response::new(rate_response::runs(&answer, fingerprint)))
    }

    async fn stream_runs(
        &self,
        request: Request<v1::StreamRunsRequest>,
    ) -> Result<Response<Self::StreamRunsStream>, Status> {
        let deadline = Deadline::of(request.extensions());
        let question = rate_request::stream(request.get_ref(), &self.currencies)?;
        let permit = Arc::clone(&self.streams)
            .try_acquire_owned()
            .map_err(|_| ServiceError::TooManyStreams { streams_max: STREAMS_MAX })?;
        let runs = self
            .read(move |reader| {
                reader.run_stream(question.pair, question.source.as_ref(), question.range, question.known_time)
            })
            .await?;
        Ok(Response::new(run_stream::send(runs, deadline, permit)))
    }

    async fn get_change(
        &self,
        request: Request<v1::GetChangeRequest>,
    ) -> Result<Response<v1::GetChangeResponse>, Status> {
        let decimal_places = rate_request::decimal_places(request.get_ref().decimal_places)?;
        let question = rate_request::change(request.get_ref(), &self.currencies)?;
        let answer = self.read(move |reader| reader.change(&question)).await?;
        Ok(Response::new(rate_response::change(&answer, decimal_places)))
    }

    async fn list_revisions(
        &self,
        request: Request<v1::ListRevisionsRequest>,
    ) -> Result<Response<v1::ListRevisionsResponse>, Status> {
        let rate_request::Paged { question, fingerprint } =
            rate_request::revisions(request.into_inner(), &self.currencies)?;
        let answer = self.read(move |reader| reader.revisions(&question)).await?;
        Ok(Response::new(rate_response::revisions(&answer, fingerprint)))
    }
}
