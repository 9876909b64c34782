//! The calls that read rates.
//!
//! **Invariant**: a call reads one commit.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::ServiceError;
use super::limits::ServiceLimits;
use super::rate_request::{self, Paged};
use super::rate_response;
use super::read_executor::{Cost, Read, ReadExecutor, ReadPermit};
use super::watch::{WatchRequest, heartbeat_interval};
use crate::clock::Clock;
use crate::domain::{CurrencySet, Timestamp};
use crate::ingest::Ingest;
use crate::latest_quotes::{LatestQuotes, StateRules};
use crate::proto::v1;
use crate::query::{QueryError, Reader, RunStream, SeriesFilter};
use crate::sources::SourceTable;
use crate::store::{StoreError, View, memory_only};

/// The read of a validated request: builds the whole response from one commit. [`Rates::read`] runs it.
pub trait ReadTask<T>: FnOnce(&Reader) -> Result<T, QueryError> + Send + 'static {}

impl<T, F: FnOnce(&Reader) -> Result<T, QueryError> + Send + 'static> ReadTask<T> for F {}

/// The read of a few single rates. It can be run more than once, with the same result.
pub trait PointReadTask<T>: Fn(&Reader) -> Result<T, QueryError> + Send + 'static {}

impl<T, F: Fn(&Reader) -> Result<T, QueryError> + Send + 'static> PointReadTask<T> for F {}

/// The calls that read rates, from the newest commit. Each method validates a request and returns a [`ReadTask`] for
/// [`Rates::read`]. After the client's deadline the future of the read is dropped, which cancels the read.
#[derive(Clone)]
pub struct Rates {
    ingest: Ingest,
    clock: Arc<dyn Clock>,
    /// If set, all reads use this view instead of the newest commit, and this time instead of the clock.
    fixed: Option<(Arc<View>, Timestamp)>,
    currencies: Arc<CurrencySet>,
    rules: Arc<StateRules>,
    sources: Arc<SourceTable>,
    limits: ServiceLimits,
    executor: ReadExecutor,
}

impl Rates {
    /// Creates the calls, which read the commits of `ingest`. Requests may name only currencies in `currencies`.
    /// `rules` determine the states of rates.
    pub fn new(ingest: Ingest, clock: Arc<dyn Clock>, currencies: CurrencySet, rules: StateRules) -> Self {
        Self {
            ingest,
            clock,
            fixed: None,
            currencies: Arc::new(currencies),
            rules: Arc::new(rules),
            sources: Arc::default(),
            limits: ServiceLimits::DEFAULT,
            executor: ReadExecutor::new(&ServiceLimits::DEFAULT),
        }
    }

    /// Sets the limits of the service.
    #[must_use]
    pub fn with_limits(self, limits: ServiceLimits) -> Self {
        Self { executor: ReadExecutor::new(&limits), limits, ..self }
    }

    /// Returns the limits of the service.
    pub const fn limits(&self) -> &ServiceLimits {
        &self.limits
    }

    /// Sets the settings and preferences of the sources.
    #[must_use]
    pub fn with_sources(self, sources: SourceTable) -> Self {
        Self { sources: Arc::new(sources), ..self }
    }

    /// Returns the same calls, but every read uses `view` and takes `now` as the current time. The same view and time
    /// always give the same response, so a caller may cache it.
    #[must_use]
    pub fn at(&self, view: Arc<View>, now: Timestamp) -> Self {
        Self { fixed: Some((view, now)), ..self.clone() }
    }

    /// The view of the newest visible commit, or the view that [`Rates::at`] set.
    pub fn view(&self) -> Arc<View> {
        self.fixed.as_ref().map_or_else(|| self.ingest.view(), |(view, _)| Arc::clone(view))
    }

    /// The time of the clock, or the time that [`Rates::at`] set.
    pub fn now(&self) -> Timestamp {
        self.fixed.as_ref().map_or_else(|| self.clock.now(), |(_, now)| *now)
    }

    /// The served currencies.
    pub fn currencies(&self) -> &CurrencySet {
        &self.currencies
    }

    /// The rules of the states of rates.
    pub fn rules(&self) -> &StateRules {
        &self.rules
    }

    /// The settings and preferences of the sources.
    pub fn sources(&self) -> &SourceTable {
        &self.sources
    }

    /// A shared pointer to the settings of the sources, for a read on another thread.
    pub(super) fn source_table(&self) -> Arc<SourceTable> {
        Arc::clone(&self.sources)
    }

    /// Validates a filter of pairs and sources.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if an entry is invalid, or if there are too many entries.
    pub fn filter(&self, pairs: &[String], sources: &[String]) -> Result<SeriesFilter, ServiceError> {
        Ok(rate_request::filter(pairs, sources, &self.currencies)?)
    }

    /// Runs `task` on a blocking thread, within the limits of the [`ReadExecutor`]. `task` builds the whole response,
    /// so that the async threads do no work for it.
    ///
    /// # Errors
    /// The errors of `task`, and those of [`ReadExecutor::run`].
    pub async fn read<T: Send + 'static>(
        &self,
        task: impl FnOnce(&Reader) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<Read<T>, ServiceError> {
        self.read_at_cost(Cost::Cheap, task).await
    }

    /// Runs `task` as [`Rates::read`] does. Only a part of the permits is for expensive reads.
    ///
    /// # Errors
    /// As of [`Rates::read`].
    pub async fn read_at_cost<T: Send + 'static>(
        &self,
        cost: Cost,
        task: impl FnOnce(&Reader) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<Read<T>, ServiceError> {
        let (view, now) = (self.view(), self.now());
        let (rules, sources) = (Arc::clone(&self.rules), Arc::clone(&self.sources));
        let run = move |cancel| task(&Reader::new(view, now, rules, cancel).with_sources(&sources));
        self.executor.run(cost, run).await
    }

    /// Runs `task` on this thread if it needs no block from the disk, else as [`Rates::read`] does. A read on another
    /// thread also returns its permit.
    ///
    /// If all blocks are in memory, reading single rates takes less time than handing the read to another thread.
    ///
    /// # Errors
    /// The errors of [`Rates::read`].
    pub async fn read_point<T: Send + 'static>(
        &self,
        task: impl PointReadTask<T>,
    ) -> Result<(T, Option<ReadPermit>), ServiceError> {
        let in_memory = {
            let (view, now) = (self.view(), self.now());
            let reader = Reader::new(view, now, Arc::clone(&self.rules), CancellationToken::new());
            memory_only(|| task(&reader.with_sources(&self.sources)))
        };
        match in_memory {
            Err(QueryError::Store(StoreError::NotInMemory)) => {
                let Read { answer, permit } = self.read(task).await?;
                Ok((answer, Some(permit)))
            }
            answer => Ok((answer?, None)),
        }
    }

    /// Lists the series: pair, source, times of the observations, counts and state.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid.
    pub fn list_series(
        &self,
        request: &v1::ListSeriesRequest,
    ) -> Result<impl ReadTask<v1::ListSeriesResponse> + use<>, ServiceError> {
        let request = rate_request::series(request, &self.currencies)?;
        Ok(move |reader: &Reader| {
            let answer = reader.series(&request)?;
            Ok(rate_response::series(&answer))
        })
    }

    /// Returns the latest rates, from memory.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid.
    pub fn get_latest_rates(
        &self,
        request: &v1::GetLatestRatesRequest,
    ) -> Result<v1::GetLatestRatesResponse, ServiceError> {
        let filter = self.filter(&request.pairs, &request.sources)?;
        Ok(rate_response::latest(&self.view().latest_quotes, &filter, request.since_sequence, self.now()))
    }

    /// Validates a request to watch the latest rates.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid.
    pub fn watch_request(&self, request: &v1::WatchLatestRatesRequest) -> Result<WatchRequest, ServiceError> {
        Ok(WatchRequest {
            filter: self.filter(&request.pairs, &request.sources)?,
            since_sequence: request.since_sequence,
            heartbeat_interval: heartbeat_interval(request.heartbeat_interval)?,
        })
    }

    /// Returns a receiver of the latest quotes of each new commit; see [`Ingest::watch_latest_quotes`].
    ///
    /// # Errors
    /// Returns the error of [`Rates::close_error`] if no more commits will come.
    pub fn watch_latest_quotes(&self) -> Result<watch::Receiver<Arc<LatestQuotes>>, ServiceError> {
        let latest_quotes_updates = self.ingest.watch_latest_quotes();
        if latest_quotes_updates.has_changed().is_err() { Err(self.close_error()) } else { Ok(latest_quotes_updates) }
    }

    /// Returns the reason why a watch of the latest quotes ended: the server stops, or writing failed.
    pub fn close_error(&self) -> ServiceError {
        self.ingest.close_error().into()
    }

    /// Returns the rate in force at a time.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid.
    pub fn get_rate(
        &self,
        request: &v1::GetRateRequest,
    ) -> Result<impl PointReadTask<v1::GetRateResponse> + use<>, ServiceError> {
        let strict = request.strict;
        let request = rate_request::rate(request, &self.currencies)?;
        Ok(move |reader: &Reader| {
            let answer = reader.strict(strict).rate(&request)?;
            Ok(rate_response::rate(answer.commit, &answer.body))
        })
    }

    /// Converts an amount at the rate in force at a time.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid.
    pub fn convert(
        &self,
        request: v1::ConvertRequest,
    ) -> Result<impl PointReadTask<v1::ConvertResponse> + use<>, ServiceError> {
        let strict = request.strict;
        let (request, amount) = rate_request::convert(request, &self.currencies)?;
        Ok(move |reader: &Reader| {
            let answer = reader.strict(strict).rate(&request)?;
            Ok(rate_response::convert(&answer, amount))
        })
    }

    /// Returns a page of runs.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid.
    pub fn list_runs(
        &self,
        request: v1::ListRunsRequest,
    ) -> Result<impl ReadTask<v1::ListRunsResponse> + use<>, ServiceError> {
        let strict = request.strict;
        let Paged { request, fingerprint } = rate_request::runs(request, &self.currencies, &self.sources)?;
        Ok(move |reader: &Reader| {
            let answer = reader.strict(strict).runs(&request)?;
            Ok(rate_response::runs(&answer, fingerprint))
        })
    }

    /// Returns the runs of a series in pieces, for the protocol to pack into messages. The pieces are read after this
    /// method returns, without a read permit.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid, and the errors of [`Rates::read`].
    pub async fn stream_runs(&self, request: &v1::StreamRunsRequest) -> Result<Read<RunStream>, ServiceError> {
        let strict = request.strict;
        let request = rate_request::stream(request, &self.currencies)?;
        self.read(move |reader| {
            let range = (request.range, request.zone);
            reader.strict(strict).run_stream(request.pair, request.source.as_ref(), range, request.known_time)
        })
        .await
    }

    /// Returns the percent change between two times.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid.
    pub fn get_change(
        &self,
        request: &v1::GetChangeRequest,
    ) -> Result<impl PointReadTask<v1::GetChangeResponse> + use<>, ServiceError> {
        let strict = request.strict;
        let decimal_places = rate_request::decimal_places(request.decimal_places)?;
        let request = rate_request::change(request, &self.currencies)?;
        Ok(move |reader: &Reader| {
            let answer = reader.strict(strict).change(&request)?;
            Ok(rate_response::change(answer.commit, &answer.body, decimal_places))
        })
    }

    /// Returns a page of changes from one calendar period to the next.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid.
    pub fn list_changes(
        &self,
        request: v1::ListChangesRequest,
    ) -> Result<impl ReadTask<v1::ListChangesResponse> + use<>, ServiceError> {
        let strict = request.strict;
        let decimal_places = rate_request::decimal_places(request.decimal_places)?;
        let Paged { request, fingerprint } = rate_request::changes(request, &self.currencies, &self.sources)?;
        Ok(move |reader: &Reader| {
            let answer = reader.strict(strict).changes(&request)?;
            Ok(rate_response::changes(&answer, decimal_places, fingerprint))
        })
    }

    /// Returns a page of candles.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid.
    pub fn list_candles(
        &self,
        request: v1::ListCandlesRequest,
    ) -> Result<impl ReadTask<v1::ListCandlesResponse> + use<>, ServiceError> {
        let strict = request.strict;
        let Paged { request, fingerprint } = rate_request::candles(request, &self.currencies, &self.sources)?;
        Ok(move |reader: &Reader| {
            let answer = reader.strict(strict).candles(&request)?;
            Ok(rate_response::candles(&answer, fingerprint))
        })
    }

    /// Returns a page of revisions.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid.
    pub fn list_revisions(
        &self,
        request: v1::ListRevisionsRequest,
    ) -> Result<impl ReadTask<v1::ListRevisionsResponse> + use<>, ServiceError> {
        let strict = request.strict;
        let Paged { request, fingerprint } = rate_request::revisions(request, &self.currencies, &self.sources)?;
        Ok(move |reader: &Reader| {
            let answer = reader.strict(strict).revisions(&request)?;
            Ok(rate_response::revisions(&answer, fingerprint))
        })
    }
}
