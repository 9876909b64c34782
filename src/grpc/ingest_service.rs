//! `IngestService`: stores ticks, streams of batches and ticker pages, decides about held ticks, and archives sources.
//!
//! **Invariant**: a handler validates, converts and passes the batch to the writer. Everything in a response is
//! durable.

use std::sync::Arc;

use prost::bytes::Bytes;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;
use tokio::task;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::access::Principal;
use crate::clock::Clock;
use crate::domain::{Source, Timestamp};
use crate::feed::{PageError, TickerPage};
use crate::ingest::batch::TickRules;
use crate::ingest::{ArchiveReport, IngestError, PageBatch, advise_time};
use crate::proto::convert::timestamp;
use crate::proto::v1;
use crate::proto::v1::ingest_service_server::IngestService;

use super::changes::Changes;
use super::ingest_convert::{
    BadField, IngestOptions, batch_of_stream, batch_of_ticks, held_messages, refusal_messages, row_count,
    summary_message, tick_message, ticks_response,
};
use super::quarantine::QuarantineCalls;
use super::tick_stream::{self, UNANSWERED_BATCHES_MAX};
use crate::api::{Rates, ServiceError, archive_request};

/// The source of a page if the request does not name one.
const PAGE_SOURCE_DEFAULT: &str = "timesca";
/// Maximum number of rows of a batch that is converted on the thread of the call. Converting it takes one or two
/// milliseconds; moving the other calls of the thread to another thread would cost more.
const INLINE_ROWS_MAX: usize = 20_000;

/// The implementation of `IngestService`. Cheap to clone.
#[derive(Clone)]
pub struct IngestApi {
    changes: Changes,
    rules: Arc<TickRules>,
    clock: Arc<dyn Clock>,
    draining: CancellationToken,
    quarantine: QuarantineCalls,
}

impl IngestApi {
    /// Creates the service. Ticks go to the writer through `changes`, and held ticks are read through `rates`. Streams
    /// accept no more batches after `draining` is cancelled.
    pub fn new(
        changes: Changes,
        rates: Arc<Rates>,
        rules: Arc<TickRules>,
        clock: Arc<dyn Clock>,
        draining: CancellationToken,
    ) -> Self {
        let quarantine = QuarantineCalls { changes: changes.clone(), rates };
        Self { changes, rules, clock, draining, quarantine }
    }

    async fn store_ticks(
        &self,
        principal: &Principal,
        request: v1::IngestTicksRequest,
    ) -> Result<v1::IngestTicksResponse, Status> {
        let batch = IngestOptions::parse(request.conflict_policy, request.validate_only)
            .and_then(|options| batch_of_ticks(&request.ticks, options, self.clock.now(), &self.rules))
            .map_err(BadField::into_status)?;
        // Frees the texts of the request before waiting for the writer.
        drop(request);
        self.changes.check(principal, &batch)?;
        self.changes.submit(principal, "IngestTicks", batch).await.map(ticks_response)
    }

    /// Validates a batch of a stream. The returned future stores the batch and returns the response.
    fn begin_batch(
        &self,
        principal: &Principal,
        batch_index: u64,
        request: &v1::StreamTicksRequest,
    ) -> Result<impl Future<Output = Result<v1::StreamTicksResponse, Status>> + Send + use<>, Status> {
        let convert = || batch_of_stream(request, self.clock.now(), &self.rules);
        let batch = convert_batch(row_count(request), convert).map_err(|bad| bad.into_batch_status(batch_index))?;
        self.changes.check(principal, &batch)?;
        let (changes, principal) = (self.changes.clone(), principal.clone());
        Ok(async move {
            let report = changes.submit(&principal, "StreamTicks", batch).await?;
            Ok(v1::StreamTicksResponse { batch_index, result: Some(ticks_response(report)) })
        })
    }

    async fn archive(
        &self,
        principal: &Principal,
        source: &str,
        note: &str,
        is_archived: bool,
    ) -> Result<ArchiveReport, Status> {
        let request = archive_request(source, note, is_archived)?;
        let call = if is_archived { "ArchiveSource" } else { "UnarchiveSource" };
        self.changes.archive(principal, call, request).await
    }

    async fn store_page(
        &self,
        principal: &Principal,
        request: v1::IngestPageRequest,
    ) -> Result<v1::IngestPageResponse, Status> {
        let options =
            IngestOptions::parse(request.conflict_policy, request.validate_only).map_err(BadField::into_status)?;
        let source = page_source(&request.source).map_err(BadField::into_status)?;
        let observed_time = page_time(request.observed_time.as_ref()).map_err(BadField::into_status)?;
        // Before the page is parsed, which takes time.
        self.changes.check_source(principal, &source, options.conflict_policy)?;
        let PageBatch { batch, page } = self
            .read_page(request.content, source, observed_time, options)
            .await?
            .map_err(|error| page_problem(&error).into_status())?;
        let mut report = self.changes.submit(principal, "IngestPage", batch).await?;
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

    /// Parses a page on a blocking thread, because 4 MiB of HTML take a while.
    async fn read_page(
        &self,
        content: Bytes,
        source: Source,
        observed_time: Option<Timestamp>,
        options: IngestOptions,
    ) -> Result<Result<PageBatch, PageError>, Status> {
        let (rules, now) = (Arc::clone(&self.rules), self.clock.now());
        task::spawn_blocking(move || {
            let page = TickerPage::read(&content, &source, observed_time, &rules.currencies)?;
            Ok(PageBatch::new(page, options.conflict_policy, options.validate_only, now, &rules))
        })
        .await
        .map_err(|error| ServiceError::TaskFailed(error.to_string()).into())
    }
}

#[tonic::async_trait]
impl IngestService for IngestApi {
    async fn ingest_ticks(
        &self,
        request: Request<v1::IngestTicksRequest>,
    ) -> Result<Response<v1::IngestTicksResponse>, Status> {
        let principal = Principal::of(request.extensions())?;
        self.store_ticks(&principal, request.into_inner()).await.map(Response::new)
    }

    type StreamTicksStream = ReceiverStream<Result<v1::StreamTicksResponse, Status>>;

    async fn stream_ticks(
        &self,
        request: Request<Streaming<v1::StreamTicksRequest>>,
    ) -> Result<Response<Self::StreamTicksStream>, Status> {
        let principal = Principal::of(request.extensions())?;
        let (to_client, responses) = mpsc::channel(UNANSWERED_BATCHES_MAX);
        let (api, draining) = (self.clone(), self.draining.clone());
        let begin = move |index, request: v1::StreamTicksRequest| api.begin_batch(&principal, index, &request);
        let drained = |index| {
            let status = Status::from(IngestError::Draining);
            let message = format!("{}; batches from {index} on were not stored", status.message());
            Status::with_details(status.code(), message, Bytes::copy_from_slice(status.details()))
        };
        task::spawn(tick_stream::run(request.into_inner(), begin, to_client, draining, drained));
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn ingest_page(
        &self,
        request: Request<v1::IngestPageRequest>,
    ) -> Result<Response<v1::IngestPageResponse>, Status> {
        let principal = Principal::of(request.extensions())?;
        self.store_page(&principal, request.into_inner()).await.map(Response::new)
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
        self.quarantine.release(&Principal::of(request.extensions())?, request.into_inner()).await.map(Response::new)
    }

    async fn discard_quarantine(
        &self,
        request: Request<v1::DiscardQuarantineRequest>,
    ) -> Result<Response<v1::DiscardQuarantineResponse>, Status> {
        self.quarantine.discard(&Principal::of(request.extensions())?, request.into_inner()).await.map(Response::new)
    }

    async fn archive_source(
        &self,
        request: Request<v1::ArchiveSourceRequest>,
    ) -> Result<Response<v1::ArchiveSourceResponse>, Status> {
        let principal = Principal::of(request.extensions())?;
        let v1::ArchiveSourceRequest { source, note } = request.into_inner();
        let report = self.archive(&principal, &source, &note, true).await?;
        let recorded_time = Some(timestamp(report.recorded_time));
        let (sequence, changed) = (report.sequence, report.is_changed);
        Ok(Response::new(v1::ArchiveSourceResponse { sequence, recorded_time, changed }))
    }

    async fn unarchive_source(
        &self,
        request: Request<v1::UnarchiveSourceRequest>,
    ) -> Result<Response<v1::UnarchiveSourceResponse>, Status> {
        let principal = Principal::of(request.extensions())?;
        let v1::UnarchiveSourceRequest { source, note } = request.into_inner();
        let report = self.archive(&principal, &source, &note, false).await?;
        let recorded_time = Some(timestamp(report.recorded_time));
        let (sequence, changed) = (report.sequence, report.is_changed);
        Ok(Response::new(v1::UnarchiveSourceResponse { sequence, recorded_time, changed }))
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

/// Converts a batch. A large batch is converted without blocking the other calls of this worker thread.
fn convert_batch<T>(rows: usize, convert: impl FnOnce() -> T) -> T {
    let has_other_threads = Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread;
    if rows > INLINE_ROWS_MAX && has_other_threads { task::block_in_place(convert) } else { convert() }
}
