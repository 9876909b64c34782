//! A server of canned responses on a real socket, for tests of the command.

mod compared;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use silkrate::columns::{ColumnTick, RunPacker, decode_tick_columns};
use silkrate::domain::{PublishedValue, Rate, ReportedChange, Timestamp};
use silkrate::proto::convert::timestamp;
use silkrate::proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use silkrate::proto::v1::rate_service_server::{RateService, RateServiceServer};
use silkrate::proto::v1::{
    ArchiveSourceRequest, ArchiveSourceResponse, Candle, CompareSourcesRequest, CompareSourcesResponse, ConvertRequest,
    ConvertResponse, Derivation, DiscardQuarantineRequest, DiscardQuarantineResponse, Gap, GapReason, GapStretch,
    GetChangeRequest, GetChangeResponse, GetLatestRatesRequest, GetLatestRatesResponse, GetRateRequest,
    GetRateResponse, IngestPageRequest, IngestPageResponse, IngestSummary, IngestTicksRequest, IngestTicksResponse,
    LatestRate, Leg, ListCandlesRequest, ListCandlesResponse, ListChangesRequest, ListChangesResponse, ListGapsRequest,
    ListGapsResponse, ListQuarantineRequest, ListQuarantineResponse, ListRevisionsRequest, ListRevisionsResponse,
    ListRunsRequest, ListRunsResponse, ListSeriesRequest, ListSeriesResponse, ListSourcesRequest, ListSourcesResponse,
    MissingReason, PeriodChange, RateBounds, RateState, Refusal, RefusalReason, ReleaseQuarantineRequest,
    ReleaseQuarantineResponse, Revision, Run, Series, StreamRunsRequest, StreamRunsResponse, StreamTicksRequest,
    StreamTicksResponse, Tick, UnarchiveSourceRequest, UnarchiveSourceResponse, WatchLatestRatesRequest,
    WatchLatestRatesResponse, stream_ticks_request,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Number of runs of `KGS/USD`.
pub(crate) const RUN_COUNT: usize = 120;

/// A running server, which stops when dropped.
pub(crate) struct Mock {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Mock {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel::<()>();
        let canned = Canned { requests: Arc::clone(&requests) };
        let thread = thread::spawn(move || {
            let server = tonic::transport::Server::builder()
                .add_service(RateServiceServer::new(canned.clone()))
                .add_service(IngestServiceServer::new(canned))
                .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
            runtime.block_on(async {
                tokio::select! {
                    served = server => served.expect("the server runs"),
                    _ = stopped => {}
                }
            });
            // Requests that sleep are aborted.
            runtime.shutdown_background();
        });
        Self { address, requests, stop: Some(stop), thread: Some(thread) }
    }

    /// Returns the debug text of each request since the last call.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().expect("no handler panicked"))
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends");
        }
    }
}

#[derive(Clone)]
struct Canned {
    requests: Arc<Mutex<Vec<String>>>,
}

impl Canned {
    fn record(&self, request: &impl std::fmt::Debug) {
        self.requests.lock().expect("no handler panicked").push(format!("{request:?}"));
    }
}

/// Returns midnight of 8 December 2025 plus the given number of days.
#[allow(clippy::unnecessary_wraps, reason = "time fields of messages are optional")]
fn day(days: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: 1_765_152_000 + days * 86_400, nanos: 0 })
}

/// The rate of the run with this number.
fn rate_text(at: usize) -> String {
    format!("0.{:05}", at + 1)
}

/// The run with this number, as `list_runs` lists it.
fn domain_run(at: usize) -> silkrate::domain::Run {
    let run = run("KGS/USD", &rate_text(at), i64::try_from(at).unwrap_or(0));
    let time = |time: &Option<prost_types::Timestamp>| Timestamp::try_from(time.as_ref().unwrap()).unwrap();
    silkrate::domain::Run {
        first_observed_time: time(&run.first_observed_time),
        last_observed_time: time(&run.last_observed_time),
        observation_count: run.observation_count,
        value: PublishedValue {
            rate: Rate::parse(&run.rate).unwrap(),
            reported_change: Some(ReportedChange::parse("-0").unwrap()),
        },
        recorded_time: time(&run.recorded_time),
    }
}

fn run(pair: &str, rate: &str, days: i64) -> Run {
    Run {
        pair: pair.to_owned(),
        source: "timesca".to_owned(),
        rate: rate.to_owned(),
        reported_change_percent: Some("-0".to_owned()),
        first_observed_time: day(days),
        last_observed_time: day(days),
        observation_count: 3,
        recorded_time: day(days + 1),
    }
}

/// Returns the ticks of a batch, in order.
fn ticks_of(batch: stream_ticks_request::Batch) -> Vec<Tick> {
    let columns = match batch {
        stream_ticks_request::Batch::Ticks(batch) => return batch.ticks,
        stream_ticks_request::Batch::Columns(columns) => columns,
    };
    let tick = |row: ColumnTick| Tick {
        pair: columns.pair.clone(),
        source: columns.source.clone(),
        observed_time: Some(timestamp(row.observed_time.unwrap())),
        rate: row.value.as_ref().unwrap().rate.to_string(),
        reported_change_percent: row.value.unwrap().reported_change.map(|change| change.to_string()),
    };
    decode_tick_columns(&columns).unwrap().into_iter().map(tick).collect()
}

fn rate(pair: &str, rate: &str) -> GetRateResponse {
    GetRateResponse {
        rate: rate.to_owned(),
        rate_low: format!("{rate}05"),
        rate_high: format!("{rate}15"),
        derivation: Derivation::Direct.into(),
        legs: vec![run(pair, rate, 0)],
        age: Some(prost_types::Duration { seconds: 7_200, nanos: 0 }),
        state: RateState::Moving.into(),
        time: day(0),
        sequence: 7,
        recorded_time: day(1),
        ..GetRateResponse::default()
    }
}

/// A cross rate with legs that were last observed two days apart.
fn cross(pair: &str) -> GetRateResponse {
    GetRateResponse {
        derivation: Derivation::Cross.into(),
        legs: vec![run("KGS/USD", "0.01144", 0), run("KZT/USD", "0.00196", -2)],
        leg_age_difference: Some(prost_types::Duration { seconds: 172_800, nanos: 0 }),
        ..rate(pair, "5.83673469387755")
    }
}

/// Returns the canned error of a pair, if there is one. For `KZT/USD`, waits a minute instead.
async fn refuse(pair: &str) -> Result<(), Status> {
    let mut details = ErrorDetails::new();
    match pair {
        "kgs" => {
            details.add_bad_request_violation("pair", "pair 'kgs' is not two currencies separated by a slash");
            Err(Status::with_error_details(Code::InvalidArgument, "pair is not valid", details))
        }
        "TMT/USD" => {
            details.set_error_info("NO_QUOTE_YET", "silkrate", []);
            Err(Status::with_error_details(Code::NotFound, "no quote of TMT/USD yet \u{1b}[2J", details))
        }
        "TJS/USD" => {
            details.set_retry_info(Some(Duration::from_secs(3)));
            Err(Status::with_error_details(Code::Unavailable, "the server is starting", details))
        }
        "KZT/USD" => {
            tokio::time::sleep(Duration::from_mins(1)).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

#[tonic::async_trait]
impl RateService for Canned {
    async fn list_series(&self, request: Request<ListSeriesRequest>) -> Result<Response<ListSeriesResponse>, Status> {
        self.record(request.get_ref());
        let series = Series {
            pair: "KGS/USD".to_owned(),
            source: "timesca".to_owned(),
            first_observed_time: day(0),
            last_observed_time: day(3),
            run_count: 2,
            observation_count: 40,
            revision_count: 1,
            state: RateState::Flat.into(),
            collapse_window: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
            archived: false,
        };
        Ok(Response::new(ListSeriesResponse { series: vec![series], sequence: 7, recorded_time: day(1) }))
    }

    async fn get_latest_rates(
        &self,
        request: Request<GetLatestRatesRequest>,
    ) -> Result<Response<GetLatestRatesResponse>, Status> {
        self.record(request.get_ref());
        let moving = LatestRate {
            run: Some(run("KGS/USD", "0.01144", 0)),
            state: RateState::Moving.into(),
            stale_time: day(2),
            moved_time: day(0),
            previous_rate: Some("0.01143".to_owned()),
            archived: false,
        };
        let hostile = Run { source: "evil\u{1b}[2J".to_owned(), ..run("UZS/USD", "0.00008", 0) };
        let flat = LatestRate { run: Some(hostile), state: RateState::Flat.into(), ..LatestRate::default() };
        let rates = vec![moving, flat];
        Ok(Response::new(GetLatestRatesResponse {
            rates,
            sequence: 7,
            recorded_time: day(1),
            server_time: day(1),
            last_ingest_time: day(1),
        }))
    }

    async fn get_rate(&self, request: Request<GetRateRequest>) -> Result<Response<GetRateResponse>, Status> {
        self.record(request.get_ref());
        refuse(&request.get_ref().pair).await?;
        Ok(Response::new(rate(&request.get_ref().pair, "0.01144")))
    }

    /// The page token is the number of the next run. The second page of `UZS/USD` fails.
    async fn list_runs(&self, request: Request<ListRunsRequest>) -> Result<Response<ListRunsResponse>, Status> {
        self.record(request.get_ref());
        let request = request.into_inner();
        refuse(&request.pair).await?;
        let begin: usize = request.page_token.parse().unwrap_or_default();
        if request.pair == "UZS/USD" && begin > 0 {
            return Err(Status::data_loss("a block cannot be read"));
        }
        // A server may return fewer rows than requested.
        let end = RUN_COUNT.min(begin + usize::try_from(request.page_size).unwrap_or_default().min(40));
        let runs = (begin..end).map(|at| run(&request.pair, &rate_text(at), i64::try_from(at).unwrap_or(0)));
        Ok(Response::new(ListRunsResponse {
            runs: runs.collect(),
            baseline: request.include_baseline.then(|| run(&request.pair, "9.99999", -1)),
            leg: Some(Leg { pair: request.pair.clone(), source: "timesca".to_owned(), ..Leg::default() }),
            next_page_token: if end < RUN_COUNT { end.to_string() } else { String::new() },
            sequence: 7,
            recorded_time: day(1),
        }))
    }

    type WatchLatestRatesStream = Pin<Box<dyn Stream<Item = Result<WatchLatestRatesResponse, Status>> + Send>>;

    async fn watch_latest_rates(
        &self,
        _: Request<WatchLatestRatesRequest>,
    ) -> Result<Response<Self::WatchLatestRatesStream>, Status> {
        Err(Status::unimplemented("the tests of watch use a real server"))
    }

    type StreamRunsStream = Pin<Box<dyn Stream<Item = Result<StreamRunsResponse, Status>> + Send>>;

    /// Streams the runs that `list_runs` lists, in two messages.
    async fn stream_runs(
        &self,
        request: Request<StreamRunsRequest>,
    ) -> Result<Response<Self::StreamRunsStream>, Status> {
        self.record(request.get_ref());
        let pair = request.into_inner().pair;
        refuse(&pair).await?;
        let message = |range: std::ops::Range<usize>| {
            let mut packer = RunPacker::new(range.len());
            packer.extend(&range.map(domain_run).collect::<Vec<_>>());
            let leg = Some(Leg { pair: pair.clone(), source: "timesca".to_owned(), ..Leg::default() });
            StreamRunsResponse { leg, pair: pair.clone(), source: "timesca".to_owned(), ..packer.finish() }
        };
        let rest = if pair == "UZS/USD" {
            Err(Status::data_loss("a block cannot be read"))
        } else {
            Ok(message(40..RUN_COUNT))
        };
        let messages = [Ok(message(0..40)), rest];
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn get_change(&self, request: Request<GetChangeRequest>) -> Result<Response<GetChangeResponse>, Status> {
        self.record(request.get_ref());
        let pair = &request.get_ref().pair;
        refuse(pair).await?;
        if pair == "KGS/USD" {
            return Ok(Response::new(GetChangeResponse {
                start_missing_reason: MissingReason::NoQuoteYet.into(),
                end: Some(rate(pair, "0.01144")),
                sequence: 7,
                recorded_time: day(1),
                ..GetChangeResponse::default()
            }));
        }
        Ok(Response::new(GetChangeResponse {
            start: Some(rate(pair, "0.00008")),
            end: Some(rate(pair, "0.00008")),
            absolute_change: Some("0.00000".to_owned()),
            percent_change: Some("0.000000".to_owned()),
            percent_change_low: Some("-11.764706".to_owned()),
            percent_change_high: Some("13.333334".to_owned()),
            below_resolution: Some(true),
            sequence: 7,
            recorded_time: day(1),
            ..GetChangeResponse::default()
        }))
    }

    async fn convert(&self, request: Request<ConvertRequest>) -> Result<Response<ConvertResponse>, Status> {
        self.record(request.get_ref());
        refuse(&request.get_ref().pair).await?;
        Ok(Response::new(ConvertResponse {
            converted_amount: "1.14400".to_owned(),
            converted_amount_low: "1.143500".to_owned(),
            converted_amount_high: "1.144500".to_owned(),
            rate: Some(cross(&request.get_ref().pair)),
            sequence: 7,
            recorded_time: day(1),
        }))
    }

    /// Two pages of one row each.
    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        self.record(request.get_ref());
        let pair = &request.get_ref().pair;
        refuse(pair).await?;
        let first = request.get_ref().page_token.is_empty();
        let change = PeriodChange {
            period_start_time: day(i64::from(!first)),
            period_end_time: day(1 + i64::from(!first)),
            complete: first,
            start: (!first).then(|| rate(pair, "0.01144")),
            end: Some(rate(pair, "0.01146")),
            start_missing_reason: if first { MissingReason::NoQuoteYet } else { MissingReason::Unspecified }.into(),
            end_missing_reason: MissingReason::Unspecified.into(),
            absolute_change: (!first).then(|| "0.00002".to_owned()),
            percent_change: (!first).then(|| "0.174825".to_owned()),
            percent_change_low: (!first).then(|| "0.087374".to_owned()),
            percent_change_high: (!first).then(|| "0.262353".to_owned()),
            below_resolution: (!first).then_some(false),
            observed: (!first).then_some(true),
            period_start_date: if first { "2025-12-08" } else { "2025-12-09" }.to_owned(),
        };
        Ok(Response::new(ListChangesResponse {
            changes: vec![change],
            next_page_token: if first { "2".to_owned() } else { String::new() },
            sequence: 7,
            recorded_time: day(1),
            derivation: Derivation::Direct.into(),
            legs: vec![Leg { pair: "KGS/USD".to_owned(), source: "timesca".to_owned(), ..Leg::default() }],
            time_zone: "Asia/Bishkek".to_owned(),
        }))
    }

    async fn compare_sources(
        &self,
        request: Request<CompareSourcesRequest>,
    ) -> Result<Response<CompareSourcesResponse>, Status> {
        self.record(request.get_ref());
        refuse(&request.get_ref().pair).await?;
        Ok(Response::new(compared::response(request.get_ref())))
    }

    /// Two pages of one row each; the second page of `UZS/USD` fails.
    async fn list_candles(
        &self,
        request: Request<ListCandlesRequest>,
    ) -> Result<Response<ListCandlesResponse>, Status> {
        self.record(request.get_ref());
        let request = request.into_inner();
        refuse(&request.pair).await?;
        let first = request.page_token.is_empty();
        if request.pair == "UZS/USD" && !first {
            return Err(Status::data_loss("a block cannot be read"));
        }
        let start = i64::from(!first);
        let candle = Candle {
            start_time: day(start),
            end_time: day(start + 1),
            complete: first,
            filled: false,
            open: "0.01144".to_owned(),
            open_time: day(start),
            high: "0.01146".to_owned(),
            high_time: day(start),
            low: "0.01143".to_owned(),
            low_time: day(start),
            close: "0.01145".to_owned(),
            close_time: day(start),
            average: "0.0114466666666667".to_owned(),
            move_count: 3,
            observation_count: request.count_observations.then_some(8),
            open_bounds: Some(RateBounds { low: "0.011435".to_owned(), high: "0.011445".to_owned() }),
            ..Candle::default()
        };
        Ok(Response::new(ListCandlesResponse {
            candles: vec![candle],
            next_page_token: if first { "2".to_owned() } else { String::new() },
            derivation: Derivation::Direct.into(),
            legs: vec![Leg { pair: request.pair, source: "timesca".to_owned(), ..Leg::default() }],
            sequence: 7,
            recorded_time: day(1),
            time_zone: "UTC".to_owned(),
        }))
    }

    async fn list_gaps(&self, request: Request<ListGapsRequest>) -> Result<Response<ListGapsResponse>, Status> {
        self.record(request.get_ref());
        let first = request.get_ref().page_token.is_empty();
        let length = |hours: i64| Some(prost_types::Duration { seconds: hours * 3_600, nanos: 0 });
        let gap = Gap {
            pair: "TMT/USD".to_owned(),
            source: "timesca".to_owned(),
            start_time: day(if first { 0 } else { 2 }),
            end_time: day(if first { 1 } else { 4 }),
            open: !first,
            length: length(if first { 24 } else { 48 }),
            reason: if first { GapReason::Unreachable } else { GapReason::AskedSilent }.into(),
            asked_silent_length: length(if first { 3 } else { 48 }),
            refused_length: length(0),
            unreachable_length: length(if first { 21 } else { 0 }),
            not_asked_length: length(0),
            stretches: vec![GapStretch { start_time: day(2), end_time: day(4), reason: GapReason::AskedSilent.into() }],
        };
        Ok(Response::new(ListGapsResponse {
            gaps: vec![gap],
            next_page_token: if first { "2".to_owned() } else { String::new() },
            sequence: 7,
            recorded_time: day(1),
        }))
    }

    async fn list_revisions(
        &self,
        request: Request<ListRevisionsRequest>,
    ) -> Result<Response<ListRevisionsResponse>, Status> {
        self.record(request.get_ref());
        let (rate, next) = if request.get_ref().page_token.is_empty() { ("0.01143", "2") } else { ("0.01142", "") };
        let revision = Revision { run: Some(run(&request.get_ref().pair, rate, 0)), superseded_time: day(2) };
        Ok(Response::new(ListRevisionsResponse {
            revisions: vec![revision],
            leg: None,
            next_page_token: next.to_owned(),
            sequence: 7,
            recorded_time: day(1),
        }))
    }

    async fn list_sources(
        &self,
        request: Request<ListSourcesRequest>,
    ) -> Result<Response<ListSourcesResponse>, Status> {
        self.record(request.get_ref());
        Ok(Response::new(ListSourcesResponse::default()))
    }
}

fn refusal(index: usize, reason: RefusalReason, message: &str) -> Refusal {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    Refusal { index, reason: reason.into(), message: message.to_owned(), ..Refusal::default() }
}

/// Returns a response that refuses rates of zero and reports all others as new runs.
fn ingest_response(ticks: &[Tick]) -> IngestTicksResponse {
    let zeros = ticks.iter().enumerate().filter(|(_, tick)| tick.rate == "0");
    let refusals: Vec<_> =
        zeros.map(|(at, _)| refusal(at, RefusalReason::InvalidRate, "rate '0' is zero\u{1b}[2J")).collect();
    let refused_count = u32::try_from(refusals.len()).unwrap_or(u32::MAX);
    let new_run_count = u32::try_from(ticks.len()).unwrap_or(u32::MAX) - refused_count;
    let summary = IngestSummary { new_run_count, refused_count, late_count: 1, ..IngestSummary::default() };
    IngestTicksResponse { sequence: 9, recorded_time: day(1), summary: Some(summary), refusals, held_ticks: Vec::new() }
}

#[tonic::async_trait]
impl IngestService for Canned {
    async fn ingest_ticks(&self, _: Request<IngestTicksRequest>) -> Result<Response<IngestTicksResponse>, Status> {
        Err(Status::unimplemented("the command streams ticks"))
    }

    type StreamTicksStream = ReceiverStream<Result<StreamTicksResponse, Status>>;

    /// Waits for a batch before it sends response headers, as servers may do. A tick of `END/USD` ends the stream.
    async fn stream_ticks(
        &self,
        request: Request<Streaming<StreamTicksRequest>>,
    ) -> Result<Response<Self::StreamTicksStream>, Status> {
        let mut batches = request.into_inner();
        let mut next = batches.message().await?;
        let (responses, stream) = mpsc::channel(16);
        let canned = self.clone();
        tokio::spawn(async move {
            for batch_index in 0.. {
                let Some(StreamTicksRequest { batch: Some(batch), conflict_policy, validate_only }) = next else {
                    break;
                };
                let ticks = ticks_of(batch);
                canned.record(&(ticks.len(), conflict_policy, validate_only));
                let response = if ticks.iter().any(|tick| tick.pair == "END/USD") {
                    Err(Status::unavailable("the server is shutting down"))
                } else {
                    Ok(StreamTicksResponse { batch_index, result: Some(ingest_response(&ticks)) })
                };
                let ended = response.is_err();
                if responses.send(response).await.is_err() || ended {
                    break;
                }
                next = batches.message().await.unwrap_or_default();
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn ingest_page(&self, request: Request<IngestPageRequest>) -> Result<Response<IngestPageResponse>, Status> {
        let page = request.into_inner();
        self.record(&(&page.source, page.content.len(), page.observed_time, page.conflict_policy, page.validate_only));
        let contains = |text: &str| page.content.windows(text.len()).any(|window| window == text.as_bytes());
        if contains("no date") {
            let mut details = ErrorDetails::new();
            details.add_bad_request_violation("observed_time", "the page shows no date; give the time");
            return Err(Status::with_error_details(Code::InvalidArgument, "cannot date this page", details));
        }
        let refusals = if contains("ambiguous") {
            vec![refusal(1, RefusalReason::Ambiguous, "UZS/USD: the cycles disagree")]
        } else {
            Vec::new()
        };
        let refused_count = u32::try_from(refusals.len()).unwrap_or(u32::MAX);
        let summary = IngestSummary { new_run_count: 1, refused_count, ..IngestSummary::default() };
        let tick = Tick {
            pair: "KGS/USD".to_owned(),
            source: page.source.clone(),
            observed_time: page.observed_time.or(day(0)),
            rate: "0.01144".to_owned(),
            reported_change_percent: Some("-0".to_owned()),
        };
        Ok(Response::new(IngestPageResponse {
            sequence: 9,
            recorded_time: day(1),
            summary: Some(summary),
            refusals,
            quote_count: 40,
            cycle_count: 8,
            ticks: vec![tick],
            held_ticks: Vec::new(),
        }))
    }

    async fn list_quarantine(
        &self,
        _: Request<ListQuarantineRequest>,
    ) -> Result<Response<ListQuarantineResponse>, Status> {
        Err(Status::unimplemented("the tests of quarantine use a real server"))
    }

    async fn release_quarantine(
        &self,
        _: Request<ReleaseQuarantineRequest>,
    ) -> Result<Response<ReleaseQuarantineResponse>, Status> {
        Err(Status::unimplemented("the tests of quarantine use a real server"))
    }

    async fn discard_quarantine(
        &self,
        _: Request<DiscardQuarantineRequest>,
    ) -> Result<Response<DiscardQuarantineResponse>, Status> {
        Err(Status::unimplemented("the tests of quarantine use a real server"))
    }

    async fn archive_source(
        &self,
        request: Request<ArchiveSourceRequest>,
    ) -> Result<Response<ArchiveSourceResponse>, Status> {
        self.record(request.get_ref());
        Ok(Response::new(ArchiveSourceResponse { sequence: 9, recorded_time: day(1), changed: true }))
    }

    async fn unarchive_source(
        &self,
        request: Request<UnarchiveSourceRequest>,
    ) -> Result<Response<UnarchiveSourceResponse>, Status> {
        self.record(request.get_ref());
        Ok(Response::new(UnarchiveSourceResponse { sequence: 9, recorded_time: day(1), changed: false }))
    }
}
