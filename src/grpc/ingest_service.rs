//! `IngestService`: ticks, streams of batches, and ticker pages in; held ticks.
//!
//! **Invariant**: a handler checks, converts and hands on to the writer; what it answers is durable.

use std::sync::Arc;

use prost::bytes::Bytes;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;
use tokio::task;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::clock::Clock;
use crate::domain::{Source, Timestamp};
use crate::feed::{PageError, TickerPage};
use crate::ingest::batch::TickRules;
use crate::ingest::{Ingest, IngestError, PageBatch, advise_time};
use crate::proto::convert::timestamp;
use crate::proto::v1;
use crate::proto::v1::ingest_service_server::IngestService;

use super::ingest_convert::{
    BadField, Mode, batch_of_stream, batch_of_ticks, held_messages, refusal_messages, row_count, summary_message,
    tick_message, ticks_response,
};
use super::quarantine::QuarantineCalls;
use super::tick_stream::{self, UNANSWERED_BATCHES_MAX};
use crate::api::{Rates, ServiceError};

/// Whose page it is when nothing is said.
const PAGE_SOURCE_DEFAULT: &str = "timesca";
/// Batches up to this are converted where they arrive: moving the other calls of a worker away costs
/// more than the millisecond or two that they take.
const INLINE_ROWS_MAX: usize = 20_000;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct IngestApi {
    ingest: Ingest,
    rules: Arc<TickRules>,
    clock: Arc<dyn Clock>,
    draining: CancellationToken,
    quarantine: QuarantineCalls,
}

impl IngestApi {
    /// Over the writer `ingest`, held ticks being read by `rates`; streams take no more batches once `draining` is true.
    pub fn new(
        ingest: Ingest,
        rates: Arc<Rates>,
        rules: Arc<TickRules>,
        clock: Arc<dyn Clock>,
        draining: CancellationToken,
    ) -> Self {
        let quarantine = QuarantineCalls { ingest: ingest.clone(), rates };
        Self { ingest, rules, clock, draining, quarantine }
    }

    async fn store_ticks(&self, request: v1::IngestTicksRequest) -> Result<v1::IngestTicksResponse, Status> {
        let batch = Mode::read(request.conflict_policy, request.validate_only)
            .and_then(|mode| batch_of_ticks(&request.ticks, mode, self.clock.now(), &self.rules))
            .map_err(BadField::into_status)?;
        // The texts are not needed while the writer works.
        drop(request);
        self.ingest.submit(batch).await.map(ticks_response).map_err(Status::from)
    }

    /// Checks a batch of a stream; the future it gives stores it and makes the answer.
    fn begin_batch(
        &self,
        batch_index: u64,
        request: &v1::StreamTicksRequest,
    ) -> Result<impl Future<Output = Result<v1::StreamTicksResponse, Status>> + Send + use<>, Status> {
        let convert = || batch_of_stream(request, self.clock.now(), &self.rules);
        let batch = unhurried(row_count(request), convert).map_err(|bad| bad.into_batch_status(batch_index))?;
        let ingest = self.ingest.clone();
        Ok(async move {
            let report = ingest.submit(batch).await.map_err(Status::from)?;
            Ok(v1::StreamTicksResponse { batch_index, result: Some(ticks_response(report)) })
        })
    }

    async fn store_page(&self, request: v1::IngestPageRequest) -> Result<v1::IngestPageResponse, Status> {
        let mode = Mode::read(request.conflict_policy, request.validate_only).map_err(BadField::into_status)?;
        let source = page_source(&request.source).map_err(BadField::into_status)?;
        let observed_time = page_time(request.observed_time.as_ref()).map_err(BadField::into_status)?;
        let PageBatch { batch, page } = self
            .read_page(request.content, source, observed_time, mode)
            .await?
            .map_err(|error| page_problem(&error).into_status())?;
        let mut report = self.ingest.submit(batch).await.map_err(Status::from)?;
        if observed_time.is_none() {
            advise_time(&mut report.refusals, "give observed_time");
        }
        Ok(v1::IngestPageResponse {
            sequence: report.sequence,
            recorded_time: Some(timestamp(report.recorded_time)),
            summary: Some(summary_message(report.summary)),
            refusals: refusal_messages(report.refusals),
            held_ticks: held_messages(&report.held),
            quote_count: page.quote_count,
            cycle_count: page.cycle_count,
            ticks: page.ticks.iter().map(tick_message).collect(),
        })
    }

    /// Parses on a thread of its own: a page of 4 MiB of HTML takes a while.
    async fn read_page(
        &self,
        content: Bytes,
        source: Source,
        observed_time: Option<Timestamp>,
        mode: Mode,
    ) -> Result<Result<PageBatch, PageError>, Status> {
        let (rules, now) = (Arc::clone(&self.rules), self.clock.now());
        task::spawn_blocking(move || {
            let page = TickerPage::read(&content, &source, observed_time, &rules.currencies)?;
            Ok(PageBatch::new(page, mode.conflict_policy, mode.validate_only, now, &rules))
        })
        .await
        .map_err(|error| ServiceError::BrokenOff(error.to_string()).into())
    }
}

#[tonic::async_trait]
impl IngestService for IngestApi {
    async fn ingest_ticks(
        &self,
        request: Request<v1::IngestTicksRequest>,
    ) -> Result<Response<v1::IngestTicksResponse>, Status> {
        self.store_ticks(request.into_inner()).await.map(Response::new)
    }

    type StreamTicksStream = ReceiverStream<Result<v1::StreamTicksResponse, Status>>;

    async fn stream_ticks(
        &self,
        request: Request<Streaming<v1::StreamTicksRequest>>,
    ) -> Result<Response<Self::StreamTicksStream>, Status> {
        let (to_caller, answers) = mpsc::channel(UNANSWERED_BATCHES_MAX);
        let (api, draining) = (self.clone(), self.draining.clone());
        let begin = move |index, request: v1::StreamTicksRequest| api.begin_batch(index, &request);
        let drained = |index| {
            let status = Status::from(IngestError::Draining);
            let message = format!("{}; batches from {index} on were not taken", status.message());
            Status::with_details(status.code(), message, Bytes::copy_from_slice(status.details()))
        };
        task::spawn(tick_stream::run(request.into_inner(), begin, to_caller, draining, drained));
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn ingest_page(
        &self,
        request: Request<v1::IngestPageRequest>,
    ) -> Result<Response<v1::IngestPageResponse>, Status> {
        self.store_page(request.into_inner()).await.map(Response::new)
    }

    async fn list_quarantine(
        &self,
        request: Request<v1::ListQuarantineRequest>,
    ) -> Result<Response<v1::ListQuarantineResponse>, Status> {
        self.quarantine.list(request.into_inner()).await
    }

    async fn release_quarantine(
        &self,
        request: Request<v1::ReleaseQuarantineRequest>,
    ) -> Result<Response<v1::ReleaseQuarantineResponse>, Status> {
        self.quarantine.release(request.into_inner()).await.map(Response::new)
    }

    async fn discard_quarantine(
        &self,
        request: Request<v1::DiscardQuarantineRequest>,
    ) -> Result<Response<v1::DiscardQuarantineResponse>, Status> {
        self.quarantine.discard(request.into_inner()).await.map(Response::new)
    }
}

fn page_source(text: &str) -> Result<Source, BadField> {
    let slug = if text.is_empty() { PAGE_SOURCE_DEFAULT } else { text };
    Source::parse(slug).map_err(|error| BadField::new("source", error.to_string()))
}

fn page_time(message: Option<&prost_types::Timestamp>) -> Result<Option<Timestamp>, BadField> {
    message.map(Timestamp::try_from).transpose().map_err(|error| BadField::new("observed_time", error.to_string()))
}

fn page_problem(error: &PageError) -> BadField {
    let field = match error {
        PageError::TooLarge { .. } | PageError::Binary { .. } | PageError::NotUtf8 { .. } | PageError::NoQuotes => {
            "content"
        }
        PageError::NoDate | PageError::DatesDiffer { .. } | PageError::BadDate(_) => "observed_time",
    };
    BadField::new(field, error.to_string())
}

/// Does work that may take long without holding up the other calls of this worker thread.
fn unhurried<T>(rows: usize, work: impl FnOnce() -> T) -> T {
    let can_move = Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread;
    if rows > INLINE_ROWS_MAX && can_move { task::block_in_place(work) } else { work() }
}
