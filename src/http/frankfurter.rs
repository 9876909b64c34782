//! The routes `/frankfurter/...`: rates in the response format of the Frankfurter service, for its clients.
//!
//! The format is Frankfurter's, but the values have silkrate's meaning:
//!
//! - A date is a day in the time zone of the source that answers. Its rate is the rate in force at the end of the day, or
//!   now if the day is not over.
//! - The date of a response is the last day at or before the requested day on which a chosen source has an observation. A
//!   request for that date returns the same response.
//! - A range has only days with observations, and for each symbol the source that answers for the last day of the range.
//!   A range without such a day returns the last day before it.
//! - A rate is the number of units of a symbol for one unit of `base`. The default base is USD.
//! - A rate counts on the day of its observation and on the days after it, up to the stale limit of its source. The limit
//!   is rounded up to whole days. A cross counts while both legs do.
//! - The series that answer are chosen as for every other request, unless the request or the server names a source.
//!
//! **Invariant**: rates are JSON numbers with all digits of the rate, never converted through a float.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use axum::response::IntoResponse as _;
use chrono::NaiveDate;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Site;
use super::body::PermitBody;
use super::entity_tag::{Snapshot, matches_tag, not_modified, set_cache_headers};
use super::parameters::{Parameters, invalid};
use super::problem::{Problem, internal_error};
use crate::analysis::{Conversion, Derived, Zone};
use crate::api::{Cost, Rates, Read, ServiceError};
use crate::domain::{Amount, Currency, Interval, Pair, Rate, ScanOrder, SeriesKey, Source, Timestamp};
use crate::query::{
    BucketsRequest, CandleRow, CandlesPage, CandlesRequest, Derivation, Moment, MomentRange, ObservedDay, QueryError,
    Reader,
};

/// The routes. Clients of Frankfurter's earlier host use the path without `v1`.
pub(super) const PATHS: [&str; 2] = ["/frankfurter/v1/{what}", "/frankfurter/{what}"];
const PREFIXES: [&str; 2] = ["/frankfurter/v1/", "/frankfurter/"];

/// Maximum number of days of a range.
const DAYS_MAX: i64 = 10_000;
/// Maximum number of symbols of a request.
const SYMBOLS_MAX: usize = 50;

fn parse_date(text: &str) -> Option<NaiveDate> {
    Timestamp::parse_date(text).ok()
}

/// The resource that a path names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Resource {
    Latest,
    Currencies,
    Day(NaiveDate),
    /// A range with both ends included. Without an end, the range ends today.
    Days(NaiveDate, Option<NaiveDate>),
}

impl Resource {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "latest" => return Some(Self::Latest),
            "currencies" => return Some(Self::Currencies),
            _ => {}
        }
        match text.split_once("..") {
            None => parse_date(text).map(Self::Day),
            Some((start, "")) => Some(Self::Days(parse_date(start)?, None)),
            Some((start, end)) => Some(Self::Days(parse_date(start)?, Some(parse_date(end)?))),
        }
    }
}

/// The parameters of a request.
struct RatesRequest {
    base: Currency,
    /// The wanted currencies; none means all.
    symbols: Option<Vec<Currency>>,
    amount: Amount,
    /// The source that the request names.
    source: Option<Source>,
    /// The amount without trailing zeros of its fraction, so that multiplying by `1.0` keeps the published digits.
    factor: Amount,
}

impl RatesRequest {
    /// Parses the parameters, with both names that Frankfurter has for each. A currency that is not served is a 404, as
    /// clients expect.
    fn parse(site: &Site, mut parameters: Parameters) -> Result<Self, Problem> {
        let mut take = |name: &'static str, other: &'static str| match (parameters.take(name), parameters.take(other)) {
            (Some(_), Some(_)) => {
                Err(invalid(other, format!("{other} and {name} are both given; give only one of them")))
            }
            (Some(text), None) => Ok(Some((name, text))),
            (None, text) => Ok(text.map(|text| (other, text))),
        };
        let (base, symbols) = (take("base", "from")?, take("symbols", "to")?);
        let amount = parameters.take("amount").unwrap_or_else(|| "1.0".to_owned());
        let source = parameters.take("source");
        parameters.finish(["base", "symbols", "amount", "source"])?;
        let source = source.map(|text| Source::parse(&text)).transpose();
        let source = source.map_err(|problem| invalid("source", problem.to_string()))?;
        let served = site.rates.currencies();
        let currency = |name: &str, code: &str| {
            let found = served.parse(&code.to_ascii_uppercase());
            found.map_err(|problem| Problem::new(StatusCode::NOT_FOUND, format!("{name}: {problem}")))
        };
        let base = base.map_or(Ok(Currency::USD), |(name, code)| currency(name, &code))?;
        let symbols = match symbols {
            None => None,
            Some((name, codes)) if codes.split(',').count() > SYMBOLS_MAX => {
                return Err(invalid(name, format!("more than {SYMBOLS_MAX} currencies; request fewer")).into());
            }
            Some((name, codes)) => {
                Some(codes.split(',').map(|code| currency(name, code)).collect::<Result<Vec<_>, _>>()?)
            }
        };
        if symbols.as_ref().is_some_and(|symbols| symbols.iter().all(|symbol| *symbol == base)) {
            let problem = format!("symbols: {base} is the base itself; request another currency");
            return Err(Problem::new(StatusCode::NOT_FOUND, problem));
        }
        let parse = |text: &str| Amount::parse(text).map_err(|problem| invalid("amount", problem.to_string()));
        let short = if amount.contains('.') { amount.trim_end_matches('0').trim_end_matches('.') } else { &amount };
        Ok(Self { base, symbols, source, factor: parse(short)?, amount: parse(&amount)? })
    }

    /// Returns the wanted currencies without the base.
    fn symbols(&self, rates: &Rates) -> Vec<Currency> {
        let symbols = self.symbols.clone().unwrap_or_else(|| rates.currencies().iter().collect());
        symbols.into_iter().filter(|symbol| *symbol != self.base).collect()
    }

    /// Returns the amount as a JSON number.
    fn amount(&self) -> Result<Box<RawValue>, ServiceError> {
        RawValue::from_string(self.amount.to_string()).map_err(|problem| internal_error(&problem))
    }

    /// Returns the amount times the rate as a JSON number, rounded once.
    fn number(&self, rate: &Derived) -> Result<Box<RawValue>, ServiceError> {
        let text = Conversion::new(self.factor, rate).value.to_string();
        RawValue::from_string(text).map_err(|problem| internal_error(&problem))
    }
}

type Numbers = BTreeMap<String, Box<RawValue>>;
/// The source of each symbol, or the two sources of a cross.
type Sources = BTreeMap<String, Vec<String>>;

#[derive(Serialize)]
struct OneDay {
    amount: Box<RawValue>,
    base: String,
    date: String,
    rates: Numbers,
    sources: Sources,
    /// The symbols whose rates come from an archived source. Absent if there are none.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    archived: BTreeSet<String>,
}

#[derive(Serialize)]
struct ManyDays {
    amount: Box<RawValue>,
    base: String,
    start_date: String,
    end_date: String,
    rates: BTreeMap<String, Numbers>,
    sources: Sources,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    archived: BTreeSet<String>,
}

/// Answers a request for one of [`PATHS`].
pub(super) async fn answer(State(site): State<Site>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    match answer_or_problem(&site, &uri, &headers).await {
        Ok(response) => response,
        Err(problem) => problem.with_message().into_response(),
    }
}

async fn answer_or_problem(site: &Site, uri: &Uri, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
    let rest = PREFIXES.iter().find_map(|prefix| uri.path().strip_prefix(prefix));
    let Some(resource) = rest.and_then(Resource::parse) else {
        let problem = "unknown path; use latest, currencies, a date such as 2025-12-08, or a range such as 2025-12-01..2025-12-08";
        return Err(Problem::new(StatusCode::NOT_FOUND, problem));
    };
    let parameters = Parameters::parse(uri.query())?;
    let snapshot = Snapshot::new(site, matches!(resource, Resource::Days(..)), false);
    let tag = snapshot.tag(&[uri.path().as_bytes(), uri.query().unwrap_or_default().as_bytes()]);
    let rates = site.rates.at(Arc::clone(&snapshot.view), snapshot.now);
    let chosen = site.settings.frankfurter_source.clone();
    let request = match resource {
        Resource::Currencies => {
            parameters.finish([])?;
            None
        }
        Resource::Latest | Resource::Day(_) | Resource::Days(..) => Some(RatesRequest::parse(site, parameters)?),
    };
    if let Some(tag) = tag.as_ref().filter(|tag| matches_tag(headers, tag)) {
        return Ok(not_modified(tag.clone()));
    }
    let read_rates = rates.clone();
    // The whole response comes from one read, and is encoded on the thread of the read.
    let cost = if matches!(resource, Resource::Days(..)) { Cost::Expensive } else { Cost::Cheap };
    let read = rates.read_at_cost(cost, move |reader| {
        let finder = RateFinder { rates: &read_rates, reader, chosen: chosen.as_ref() };
        Ok(match (resource, &request) {
            (Resource::Days(start, end), Some(request)) => {
                finder.many_days(request, start, end).and_then(|days| encode(&days))
            }
            (Resource::Day(day), Some(request)) => finder.one_day(request, Some(day)).and_then(|day| encode(&day)),
            (Resource::Latest, Some(request)) => finder.one_day(request, None).and_then(|day| encode(&day)),
            (_, _) => encode(&currencies(&read_rates)),
        })
    });
    let Read { answer, permit } = read.await?;
    let mut response = Response::new(PermitBody::body(answer?.into(), Some(permit)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    set_cache_headers(&mut response, tag);
    Ok(response)
}

fn encode(body: &impl Serialize) -> Result<Vec<u8>, Problem> {
    Ok(serde_json::to_vec(body).map_err(|problem| internal_error(&problem))?)
}

/// Returns the names of the currencies that some series has, by code.
fn currencies(rates: &Rates) -> BTreeMap<String, String> {
    let view = rates.view();
    let pairs = view.series().map(|series| series.key().pair);
    pairs.flat_map(|pair| [pair.base(), pair.quote()]).map(|one| (one.to_string(), one.name())).collect()
}

fn no_rates(request: &RatesRequest) -> Problem {
    let problem = format!("there are no rates of {} at that time; see /frankfurter/v1/currencies", request.base);
    Problem::new(StatusCode::NOT_FOUND, problem)
}

fn failed(error: QueryError) -> Problem {
    ServiceError::from(error).into()
}

/// Finds the rates of a request. All reads are of one commit.
struct RateFinder<'a> {
    rates: &'a Rates,
    reader: &'a Reader,
    /// The source that the server uses for these routes, if it has the pair.
    chosen: Option<&'a Source>,
}

impl RateFinder<'_> {
    /// Returns the rate of the last day at or before `date` with an observation, or now without a date. None if no
    /// series has a rate then.
    fn observed_day(
        &self,
        request: &RatesRequest,
        pair: Pair,
        date: Option<NaiveDate>,
    ) -> Result<Option<ObservedDay>, QueryError> {
        let find = |source: Option<&Source>| match self.reader.observed_day(pair, source, date) {
            Err(QueryError::UnknownSeries { .. }) => Ok(None),
            found => found,
        };
        if request.source.is_some() {
            return self.reader.observed_day(pair, request.source.as_ref(), date);
        }
        match self.chosen.map_or(Ok(None), |source| find(Some(source)))? {
            // A stale rate of the configured source does not hide a fresh one.
            Some(found) if !found.rate.is_stale => Ok(Some(found)),
            _ => find(None),
        }
    }

    /// Returns the rates of the last day at or before `date` with an observation, or of the newest day without a date.
    fn one_day(&self, request: &RatesRequest, date: Option<NaiveDate>) -> Result<OneDay, Problem> {
        let symbols = request.symbols(self.rates);
        let mut unknown = None;
        let mut find = |date| -> Result<Vec<(Currency, ObservedDay)>, Problem> {
            let mut found = Vec::new();
            for symbol in symbols.iter().copied() {
                let Ok(pair) = Pair::new(request.base, symbol) else { continue };
                match self.observed_day(request, pair, date) {
                    Ok(rate) => found.extend(rate.map(|rate| (symbol, rate))),
                    Err(error @ QueryError::UnknownSeries { .. }) => unknown = Some(error),
                    Err(error) => return Err(failed(error)),
                }
            }
            Ok(found)
        };
        let newest = find(date)?.iter().map(|(_, found)| found.date).max();
        let Some(newest) = newest else {
            // The error names the sources that exist.
            let unknown = unknown.filter(|_| request.source.is_some());
            return Err(unknown.map_or_else(|| no_rates(request), failed));
        };
        // Every symbol is chosen at the end of the day of the response, so that a request for this day repeats it.
        let (mut numbers, mut sources, mut archived) = (Numbers::new(), Sources::new(), BTreeSet::new());
        for (symbol, found) in find(Some(newest))?.iter().filter(|(_, found)| found.fresh_until >= newest) {
            numbers.insert(symbol.to_string(), request.number(&found.rate.rate)?);
            sources.insert(symbol.to_string(), leg_sources(found.rate.legs.iter().map(|(series, _)| series)));
            archived.extend(found.rate.is_archived.then(|| symbol.to_string()));
        }
        let (amount, base) = (request.amount()?, request.base.to_string());
        Ok(OneDay { amount, base, date: newest.to_string(), rates: numbers, sources, archived })
    }

    /// Returns a day at or before the first observation of `symbols`; none without observations.
    fn first_day(&self, symbols: &[Currency]) -> Result<Option<NaiveDate>, QueryError> {
        let mut first: Option<Timestamp> = None;
        for series in self.rates.view().series() {
            let pair = series.key().pair;
            if symbols.contains(&pair.base()) || symbols.contains(&pair.quote()) {
                let totals = series.totals(self.rates.view().commit.recorded_time)?;
                first = first.into_iter().chain(totals.map(|totals| totals.first_observed_time)).min();
            }
        }
        // The local day may begin a day earlier than the day in UTC.
        Ok(first.and_then(|first| Zone::UTC.local(first).date().pred_opt()))
    }

    /// Returns today in the zone of the source that is the furthest ahead.
    fn today(&self) -> NaiveDate {
        let now = self.rates.now();
        let view = self.rates.view();
        let zones = view.series().map(|series| self.reader.zone_of_source(&series.key().source, None));
        let days = zones.map(|zone| zone.local(now).date());
        days.fold(Zone::UTC.local(now).date(), NaiveDate::max)
    }

    /// Limits a range to the days from the first observation of `symbols` to today.
    ///
    /// # Errors
    /// Returns a 422 if the range starts after its end or after today, or has more than [`DAYS_MAX`] days.
    fn limit_range(
        &self,
        symbols: &[Currency],
        start: NaiveDate,
        end: Option<NaiveDate>,
    ) -> Result<(NaiveDate, NaiveDate), Problem> {
        let unprocessable = |problem| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem);
        let today = self.today();
        if let Some(end) = end.filter(|end| *end < start) {
            return Err(unprocessable(format!("the range ends on {end}, before its start {start}; swap the dates")));
        }
        if start > today {
            return Err(unprocessable(format!("the range starts on {start}, after today; choose an earlier start")));
        }
        let end = end.unwrap_or(today).min(today);
        let start = self.first_day(symbols).map_err(failed)?.map_or(start, |first| start.max(first).min(end));
        if (end - start).num_days() > DAYS_MAX {
            return Err(unprocessable(format!("the range has more than {DAYS_MAX} days; request a shorter range")));
        }
        Ok((start, end))
    }

    /// Returns the rates of each day with an observation. Each symbol has one source for the whole range.
    fn many_days(&self, request: &RatesRequest, start: NaiveDate, end: Option<NaiveDate>) -> Result<ManyDays, Problem> {
        let symbols = request.symbols(self.rates);
        let (start, end) = self.limit_range(&symbols, start, end)?;
        let range = MomentRange { start: Some(Moment::Day(start)), end: end.succ_opt().map(Moment::Day) };
        let mut days: BTreeMap<String, Numbers> = BTreeMap::new();
        let (mut sources, mut archived) = (Sources::new(), BTreeSet::new());
        for symbol in symbols {
            let Ok(pair) = Pair::new(request.base, symbol) else { continue };
            let last = match self.observed_day(request, pair, Some(end)) {
                Ok(Some(last)) => last.rate,
                // `one_day` reports the error if there is no other symbol.
                Ok(None) | Err(QueryError::UnknownSeries { .. }) => continue,
                Err(error) => return Err(failed(error)),
            };
            let legs: Vec<Source> = last.legs.iter().map(|(series, _)| series.source.clone()).collect();
            let page = self.reader.candles(&days_request(pair, legs.clone(), range)).map_err(failed)?.body;
            let rows = page.rows.iter().filter(|row| row.observation_count.is_some_and(|count| count > 0));
            for row in rows {
                let date = page.zone.local(row.candle.bucket.start).date();
                let Some(rate) = self.rate_of_row(&page, pair, &legs, date, row).map_err(failed)? else { continue };
                days.entry(date.to_string()).or_default().insert(symbol.to_string(), request.number(&rate)?);
                let names = || leg_sources(last.legs.iter().map(|(series, _)| series));
                sources.entry(symbol.to_string()).or_insert_with(names);
                archived.extend(last.is_archived.then(|| symbol.to_string()));
            }
        }
        let (amount, base) = (request.amount()?, request.base.to_string());
        let ends = days.first_key_value().zip(days.last_key_value());
        let Some((start_date, end_date)) = ends.map(|((first, _), (last, _))| (first.clone(), last.clone())) else {
            // No day of the range has an observation: the last day before it has.
            let OneDay { date, rates, sources, archived, .. } = self.one_day(request, Some(end))?;
            let (start_date, end_date) = (date.clone(), date.clone());
            return Ok(ManyDays {
                amount,
                base,
                start_date,
                end_date,
                rates: BTreeMap::from([(date, rates)]),
                sources,
                archived,
            });
        };
        Ok(ManyDays { amount, base, start_date, end_date, rates: days, sources, archived })
    }

    /// Returns the rate at the end of the day of a row; none if a leg is stale then. A published rate is the close of its
    /// candle; a derived rate is read from its legs, because the close has been rounded.
    fn rate_of_row(
        &self,
        page: &CandlesPage,
        pair: Pair,
        legs: &[Source],
        date: NaiveDate,
        row: &CandleRow,
    ) -> Result<Option<Derived>, QueryError> {
        if page.derivation == Derivation::Direct
            && let Ok(rate) = Rate::parse(&row.candle.close.rate.to_string())
        {
            return Ok(Some(Derived::direct(rate)));
        }
        Ok(self.reader.rate_of_day(pair, legs.to_vec(), page.zone, date)?.map(|answer| answer.rate))
    }
}

fn leg_sources<'a>(legs: impl Iterator<Item = &'a SeriesKey>) -> Vec<String> {
    let mut sources: Vec<String> = legs.map(|series| series.source.to_string()).collect();
    sources.dedup();
    sources
}

/// Returns the request for the daily candles of a range from the given sources, one for each leg.
fn days_request(pair: Pair, leg_sources: Vec<Source>, range: MomentRange) -> CandlesRequest {
    CandlesRequest {
        list: BucketsRequest {
            pair,
            source: None,
            leg_sources,
            range,
            zone: None,
            known_time: None,
            order: ScanOrder::Ascending,
            after: None,
            limit: usize::try_from(DAYS_MAX).unwrap_or(usize::MAX),
        },
        interval: Interval::Day,
        fill: false,
        count_observations: true,
        find_bounds: false,
    }
}

#[cfg(test)]
mod tests;
