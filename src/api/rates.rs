//! Reads of rates, each from one commit.

use std::sync::Arc;

use tokio::sync::watch;

use super::error::ServiceError;
use super::rate_request::{self, Paged};
use super::rate_response;
use super::read_executor::{Read, ReadExecutor};
use super::watch::{WatchQuestion, heartbeat_interval};
use crate::clock::Clock;
use crate::domain::{CurrencySet, Timestamp};
use crate::ingest::Ingest;
use crate::latest_quotes::{LatestQuotes, StateRules};
use crate::proto::v1;
use crate::query::{QueryError, Reader, RunStream, SeriesFilter};
use crate::sources::SourceTable;
use crate::store::View;

/// What a request asks of one commit, checked: it makes the whole answer, and [`Rates::read`] runs it.
pub trait Work<T>: FnOnce(&Reader) -> Result<T, QueryError> + Send + 'static {}

impl<T, W: FnOnce(&Reader) -> Result<T, QueryError> + Send + 'static> Work<T> for W {}

/// Answers from the newest view. A method checks a request, fails with what is wrong with it, and gives the [`Work`] that
/// is left, for [`Rates::read`]; past the caller's patience that is dropped, and its reader stops.
#[derive(Clone)]
pub struct Rates {
    ingest: Ingest,
    clock: Arc<dyn Clock>,
    /// What every read sees and when, instead of the newest commit now.
    fixed: Option<(Arc<View>, Timestamp)>,
    currencies: Arc<CurrencySet>,
    rules: Arc<StateRules>,
    sources: Arc<SourceTable>,
    executor: ReadExecutor,
}

impl Rates {
    /// Over what `ingest` makes visible. `currencies` are those that may be asked for; states follow `rules`.
    pub fn new(ingest: Ingest, clock: Arc<dyn Clock>, currencies: CurrencySet, rules: StateRules) -> Self {
        Self {
            ingest,
            clock,
            fixed: None,
            currencies: Arc::new(currencies),
            rules: Arc::new(rules),
            sources: Arc::default(),
            executor: ReadExecutor::default(),
        }
    }

    /// The same answers, with sources that are treated, and chosen among, as `sources` has it.
    #[must_use]
    pub fn with_sources(self, sources: SourceTable) -> Self {
        Self { sources: Arc::new(sources), ..self }
    }

    /// The same answers, all of them from `view`, it being `now`: who keeps an answer knows by these two whether it
    /// still holds.
    #[must_use]
    pub fn at(&self, view: Arc<View>, now: Timestamp) -> Self {
        Self { fixed: Some((view, now)), ..self.clone() }
    }

    /// The newest visible commit, or the one fixed.
    pub fn view(&self) -> Arc<View> {
        self.fixed.as_ref().map_or_else(|| self.ingest.view(), |(view, _)| Arc::clone(view))
    }

    /// The machine's time, or a test's, or the one fixed.
    pub fn now(&self) -> Timestamp {
        self.fixed.as_ref().map_or_else(|| self.clock.now(), |(_, now)| *now)
    }

    /// The currencies that may be asked for.
    pub fn currencies(&self) -> &CurrencySet {
        &self.currencies
    }

    /// What the states of answers follow.
    pub fn rules(&self) -> &StateRules {
        &self.rules
    }

    /// How each source is treated.
    pub fn sources(&self) -> &SourceTable {
        &self.sources
    }

    /// The same, for a thread of its own.
    pub(super) fn source_table(&self) -> Arc<SourceTable> {
        Arc::clone(&self.sources)
    }

    /// Pairs and sources asked for, checked.
    ///
    /// # Errors
    /// One that is none, or too many of them.
    pub fn filter(&self, pairs: &[String], sources: &[String]) -> Result<SeriesFilter, ServiceError> {
        Ok(rate_request::filter(pairs, sources, &self.currencies)?)
    }

    /// Reads on a blocking thread, as the [`ReadExecutor`] lets it. `work` makes the whole answer, so that nothing of it
    /// is left to a thread that others wait for.
    ///
    /// # Errors
    /// Those of `work`, and those of [`ReadExecutor::run`].
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<Read<T>, ServiceError> {
        let (view, now) = (self.view(), self.now());
        let (rules, sources) = (Arc::clone(&self.rules), Arc::clone(&self.sources));
        self.executor.run(move |cancel| work(&Reader::new(view, now, rules, cancel).preferring(&sources))).await
    }

    /// The series there are.
    ///
    /// # Errors
    /// See [`Rates`].
    pub fn list_series(
        &self,
        request: &v1::ListSeriesRequest,
    ) -> Result<impl Work<v1::ListSeriesResponse> + use<>, ServiceError> {
        let question = rate_request::series(request, &self.currencies)?;
        Ok(move |reader: &Reader| {
            let answer = reader.series(&question)?;
            Ok(rate_response::series(&answer))
        })
    }

    /// The latest rates, from memory.
    ///
    /// # Errors
    /// See [`Rates`].
    pub fn get_latest_rates(
        &self,
        request: &v1::GetLatestRatesRequest,
    ) -> Result<v1::GetLatestRatesResponse, ServiceError> {
        let filter = self.filter(&request.pairs, &request.sources)?;
        Ok(rate_response::latest(&self.view().latest_quotes, &filter, request.since_sequence, self.now()))
    }

    /// What is to be watched, checked.
    ///
    /// # Errors
    /// See [`Rates`].
    pub fn watch_question(&self, request: &v1::WatchLatestRatesRequest) -> Result<WatchQuestion, ServiceError> {
        Ok(WatchQuestion {
            filter: self.filter(&request.pairs, &request.sources)?,
            since_sequence: request.since_sequence,
            heartbeat_interval: heartbeat_interval(request.heartbeat_interval)?,
        })
    }

    /// The latest quotes of each commit as it is made; see [`Ingest::watch_latest_quotes`]. Refused where it has ended already.
    ///
    /// # Errors
    /// See [`Rates`].
    pub fn watch_latest_quotes(&self) -> Result<watch::Receiver<Arc<LatestQuotes>>, ServiceError> {
        let latest_quotes_updates = self.ingest.watch_latest_quotes();
        if latest_quotes_updates.has_changed().is_err() { Err(self.why_closed()) } else { Ok(latest_quotes_updates) }
    }

    /// Why a watch of latest quotes ended.
    pub fn why_closed(&self) -> ServiceError {
        self.ingest.closed().into()
    }

    /// The rate in force at a moment.
    ///
    /// # Errors
    /// See [`Rates`].
    pub fn get_rate(
        &self,
        request: &v1::GetRateRequest,
    ) -> Result<impl Work<v1::GetRateResponse> + use<>, ServiceError> {
        let question = rate_request::rate(request, &self.currencies)?;
        Ok(move |reader: &Reader| {
            let answer = reader.rate(&question)?;
            Ok(rate_response::rate(answer.commit, &answer.body))
        })
    }

    /// An amount at the rate in force at a moment.
    ///
    /// # Errors
    /// See [`Rates`].
    pub fn convert(&self, request: v1::ConvertRequest) -> Result<impl Work<v1::ConvertResponse> + use<>, ServiceError> {
        let (question, amount) = rate_request::convert(request, &self.currencies)?;
        Ok(move |reader: &Reader| {
            let answer = reader.rate(&question)?;
            Ok(rate_response::convert(&answer, amount))
        })
    }

    /// A page of history.
    ///
    /// # Errors
    /// See [`Rates`].
    pub fn list_runs(
        &self,
        request: v1::ListRunsRequest,
    ) -> Result<impl Work<v1::ListRunsResponse> + use<>, ServiceError> {
        let Paged { question, fingerprint } =
            rate_request::runs(request, &self.currencies, self.sources.preferences())?;
        Ok(move |reader: &Reader| {
            let answer = reader.runs(&question)?;
            Ok(rate_response::runs(&answer, fingerprint))
        })
    }

    /// History in pieces, for the wire to pack.
    ///
    /// # Errors
    /// See [`Rates`].
    pub async fn stream_runs(&self, request: &v1::StreamRunsRequest) -> Result<Read<RunStream>, ServiceError> {
        let question = rate_request::stream(request, &self.currencies)?;
        self.read(move |reader| {
            reader.run_stream(question.pair, question.source.as_ref(), question.range, question.known_time)
        })
        .await
    }

    /// The percent change between two moments.
    ///
    /// # Errors
    /// See [`Rates`].
    pub fn get_change(
        &self,
        request: &v1::GetChangeRequest,
    ) -> Result<impl Work<v1::GetChangeResponse> + use<>, ServiceError> {
        let decimal_places = rate_request::decimal_places(request.decimal_places)?;
        let question = rate_request::change(request, &self.currencies)?;
        Ok(move |reader: &Reader| {
            let answer = reader.change(&question)?;
            Ok(rate_response::change(answer.commit, &answer.body, decimal_places))
        })
    }

    /// A page of changes, period over period.
    ///
    /// # Errors
    /// See [`Rates`].
    pub fn list_changes(
        &self,
        request: v1::ListChangesRequest,
    ) -> Result<impl Work<v1::ListChangesResponse> + use<>, ServiceError> {
        let decimal_places = rate_request::decimal_places(request.decimal_places)?;
        let Paged { question, fingerprint } =
            rate_request::changes(request, &self.currencies, self.sources.preferences())?;
        Ok(move |reader: &Reader| {
            let answer = reader.changes(&question)?;
            Ok(rate_response::changes(&answer, decimal_places, fingerprint))
        })
    }

    /// A page of candles.
    ///
    /// # Errors
    /// See [`Rates`].
    pub fn list_candles(
        &self,
        request: v1::ListCandlesRequest,
    ) -> Result<impl Work<v1::ListCandlesResponse> + use<>, ServiceError> {
        let Paged { question, fingerprint } =
            rate_request::candles(request, &self.currencies, self.sources.preferences())?;
        Ok(move |reader: &Reader| {
            let answer = reader.candles(&question)?;
            Ok(rate_response::candles(&answer, fingerprint))
        })
    }

    /// A page of revisions.
    ///
    /// # Errors
    /// See [`Rates`].
    pub fn list_revisions(
        &self,
        request: v1::ListRevisionsRequest,
    ) -> Result<impl Work<v1::ListRevisionsResponse> + use<>, ServiceError> {
        let Paged { question, fingerprint } =
            rate_request::revisions(request, &self.currencies, self.sources.preferences())?;
        Ok(move |reader: &Reader| {
            let answer = reader.revisions(&question)?;
            Ok(rate_response::revisions(&answer, fingerprint))
        })
    }
}
