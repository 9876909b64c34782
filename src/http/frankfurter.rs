//! The routes `/frankfurter/...`: rates in the response format of the Frankfurter service, for its clients.
//!
//! The format is Frankfurter's, but the values have silkrate's meaning:
//!
//! - A date is a day in UTC. Its rate is the rate in force at the end of the day, or now if the day is not over.
//! - A range has only days with observations.
//! - A rate is the number of units of a symbol for one unit of `base`. The default base is USD.
//! - A rate is valid on the day of its observation and on the days after it, up to the stale limit of its source. The
//!   limit is rounded up to whole days.
//! - If several sources have a pair, the order is: the source configured for these routes, sources with a preference,
//!   other sources by name. For each day, the rate comes from the first source with a valid rate on that day. If no
//!   source has the pair, the rate is computed from legs of different sources.
//!
//! **Invariant**: rates are JSON numbers with all digits of the rate, never converted through a float.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use axum::response::IntoResponse as _;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Site;
use super::body::PermitBody;
use super::entity_tag::{Snapshot, matches_tag, not_modified, set_cache_headers};
use super::parameters::{Parameters, invalid};
use super::problem::{Problem, internal_error};
use crate::analysis::{Buckets, Rounded, Zone, product};
use crate::api::{Rates, Read, ServiceError};
use crate::domain::{Amount, Currency, Interval, Pair, Source, Timestamp};
use crate::latest_quotes::StateRules;
use crate::query::{BucketsRequest, CandleRow, CandlesRequest, QueryError, Range, RateAnswer, RateRequest, Reader};

/// The routes. Clients of Frankfurter's earlier host use the path without `v1`.
pub(super) const PATHS: [&str; 2] = ["/frankfurter/v1/{what}", "/frankfurter/{what}"];
const PREFIXES: [&str; 2] = ["/frankfurter/v1/", "/frankfurter/"];

/// Maximum number of days of a range.
const DAYS_MAX: i64 = 10_000;
/// Maximum number of symbols of a request.
const SYMBOLS_MAX: usize = 50;
const DATE_CHARS: usize = "2025-12-08".len();

/// A day in UTC, represented by its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Day(Timestamp);

impl Day {
    fn parse(text: &str) -> Option<Self> {
        Timestamp::parse(text).ok().filter(|_| text.len() == DATE_CHARS).map(Self)
    }

    fn of(time: Timestamp) -> Self {
        Self(time.saturating_add_us(-time.micros().rem_euclid(Timestamp::DAY_US)))
    }

    fn next(self) -> Self {
        Self(self.0.saturating_add_us(Timestamp::DAY_US))
    }

    /// Returns the last day on which an observation of this day is valid. The limit is rounded up to whole days.
    fn valid_until(self, stale_limit_us: i64) -> Self {
        let part = i64::from(stale_limit_us % Timestamp::DAY_US > 0);
        let days = (stale_limit_us / Timestamp::DAY_US).saturating_add(part);
        Self(self.0.saturating_add_us(days.saturating_mul(Timestamp::DAY_US)))
    }

    fn text(self) -> String {
        self.0.to_string().chars().take(DATE_CHARS).collect()
    }
}

/// The resource that a path names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Resource {
    Latest,
    Currencies,
    Day(Day),
    /// A range with both ends included. Without an end, the range ends today.
    Days(Day, Option<Day>),
}

impl Resource {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "latest" => return Some(Self::Latest),
            "currencies" => return Some(Self::Currencies),
            _ => {}
        }
        match text.split_once("..") {
            None => Day::parse(text).map(Self::Day),
            Some((start, "")) => Some(Self::Days(Day::parse(start)?, None)),
            Some((start, end)) => Some(Self::Days(Day::parse(start)?, Some(Day::parse(end)?))),
        }
    }
}

/// The parameters of a request.
struct RatesRequest {
    base: Currency,
    /// The wanted currencies; none means all.
    symbols: Option<Vec<Currency>>,
    amount: Amount,
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
        parameters.finish(["base", "symbols", "amount"])?;
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
        Ok(Self { base, symbols, factor: parse(short)?, amount: parse(&amount)? })
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

    /// Returns the amount times `rate` as a JSON number with all digits.
    fn number(&self, rate: &str) -> Result<Box<RawValue>, ServiceError> {
        let text = product(self.factor, rate).map(|product| product.to_string());
        let number = text.map(RawValue::from_string);
        number.and_then(Result::ok).ok_or_else(|| internal_error(&format!("'{rate}' is not a number")))
    }
}

type Numbers = BTreeMap<String, Box<RawValue>>;

#[derive(Serialize)]
struct OneDay {
    amount: Box<RawValue>,
    base: String,
    date: String,
    rates: Numbers,
}

#[derive(Serialize)]
struct ManyDays {
    amount: Box<RawValue>,
    base: String,
    start_date: String,
    end_date: String,
    rates: BTreeMap<String, Numbers>,
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
    let read = rates.read(move |reader| {
        let finder = RateFinder { rates: &read_rates, reader, sources: sources(&read_rates, chosen.as_ref()) };
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

/// Returns each source once, in the order in which sources are tried: the chosen source, sources with a preference,
/// other sources by name. The last element is `None`, which stands for legs of different sources.
fn sources(rates: &Rates, chosen: Option<&Source>) -> Vec<Option<Source>> {
    let view = rates.view();
    let preferences = rates.sources().preferences();
    let mut sources: Vec<&Source> = view.series().map(|series| &series.key().source).chain(chosen).collect();
    sources.sort_unstable_by_key(|source| {
        (Some(*source) != chosen, preferences.rank(source).unwrap_or(u32::MAX), *source)
    });
    sources.dedup();
    sources.into_iter().cloned().map(Some).chain([None]).collect()
}

/// The rate of a pair at a time.
struct DayRate {
    rate: Rounded,
    /// The day of the last observation up to that time. For a cross rate, the day of the older leg.
    observed: Day,
    /// The last day on which the rate is valid.
    until: Day,
}

impl DayRate {
    /// Reads the rate of `answer` at `time`. None if `answer` has no legs, which does not occur.
    fn new(rules: &StateRules, answer: &RateAnswer, time: Timestamp) -> Option<Self> {
        let legs = answer.legs.iter().map(|(series, run)| {
            // If the run was observed again after `time`, it was in force at `time`.
            let observed = Day::of(run.last_observed_time.min(time));
            (observed, observed.valid_until(rules.stale_limit_us(&series.source)))
        });
        let (observed, until) = legs.reduce(|one, other| (one.0.min(other.0), one.1.min(other.1)))?;
        Some(Self { rate: answer.rate.rounded_value(), observed, until })
    }
}

/// The reason why a source has no rate, so that the next source is tried.
enum Absence {
    /// The source has the pair, but no quote at that time.
    NoQuoteYet,
    /// The source does not have the pair.
    NoPair,
}

impl Absence {
    /// Converts an error of a read. None if the error ends the request.
    fn of(error: &QueryError, source: Option<&Source>) -> Option<Self> {
        match error {
            QueryError::NoQuoteYet { .. } | QueryError::NothingKnownYet { .. } => Some(Self::NoQuoteYet),
            QueryError::UnknownSeries { .. }
            | QueryError::UnknownSource { .. }
            | QueryError::OnlyInverse { .. }
            | QueryError::NotExported { .. } => Some(Self::NoPair),
            // Several combinations of legs are possible, and none is preferred.
            QueryError::Ambiguous { .. } if source.is_none() => Some(Self::NoPair),
            QueryError::Ambiguous { .. }
            | QueryError::InvalidArgument { .. }
            | QueryError::Stale { .. }
            | QueryError::Cancelled
            | QueryError::Store(_) => None,
        }
    }
}

fn no_rates(request: &RatesRequest) -> Problem {
    let problem = format!("there are no rates of {} at that time; see /frankfurter/v1/currencies", request.base);
    Problem::new(StatusCode::NOT_FOUND, problem)
}

fn failed(error: QueryError) -> Problem {
    ServiceError::from(error).into()
}

/// Finds the rates of a response, all from one commit.
struct RateFinder<'a> {
    rates: &'a Rates,
    reader: &'a Reader,
    /// The sources, in the order in which they are tried; see [`sources`].
    sources: Vec<Option<Source>>,
}

impl RateFinder<'_> {
    /// Returns the rate of a pair at `time`, or now without a time. The result is the rate of the first source with a
    /// valid rate on that day. If there is no valid rate, the result is the rate that was observed last. None if no
    /// source has a rate at that time.
    fn rate(&self, pair: Pair, time: Option<Timestamp>) -> Result<Option<DayRate>, QueryError> {
        let at = time.unwrap_or_else(|| self.rates.now());
        let (mut best, mut is_known): (Option<DayRate>, bool) = (None, false);
        for source in &self.sources {
            // Legs of different sources are used only if no source has the pair.
            if source.is_none() && is_known {
                break;
            }
            let request = RateRequest {
                pair,
                source: source.clone(),
                leg_sources: Vec::new(),
                time,
                max_age_us: None,
                known_time: None,
            };
            match self.reader.rate(&request) {
                Ok(answer) => {
                    is_known = true;
                    let Some(found) = DayRate::new(self.rates.rules(), &answer.body, at) else { continue };
                    if found.until >= Day::of(at) {
                        return Ok(Some(found));
                    }
                    if best.as_ref().is_none_or(|best| best.observed < found.observed) {
                        best = Some(found);
                    }
                }
                Err(error) => match Absence::of(&error, source.as_ref()) {
                    Some(Absence::NoQuoteYet) => is_known = true,
                    Some(Absence::NoPair) => {}
                    None => return Err(error),
                },
            }
        }
        Ok(best)
    }

    /// Returns the rates at the end of a day, or now without a day. Rates that are not valid on the day of the newest
    /// observation are omitted.
    fn one_day(&self, request: &RatesRequest, day: Option<Day>) -> Result<OneDay, Problem> {
        let now = self.rates.now();
        let time = day.map(|day| day.next().0.saturating_add_us(-1)).filter(|time| *time < now);
        let mut found = Vec::new();
        for symbol in request.symbols(self.rates) {
            let Ok(pair) = Pair::new(request.base, symbol) else { continue };
            let of_symbol = self.rate(pair, time).map_err(failed)?;
            found.extend(of_symbol.map(|found| (symbol, found)));
        }
        let Some(newest) = found.iter().map(|(_, found)| found.observed).max() else {
            return Err(no_rates(request));
        };
        let mut numbers = Numbers::new();
        for (symbol, found) in found.iter().filter(|(_, found)| found.until >= newest) {
            numbers.insert(symbol.to_string(), request.number(&found.rate.to_string())?);
        }
        Ok(OneDay { amount: request.amount()?, base: request.base.to_string(), date: newest.text(), rates: numbers })
    }

    /// Returns the day of the first quote of any of `symbols`.
    fn first_day(&self, symbols: &[Currency]) -> Result<Option<Day>, QueryError> {
        let mut first: Option<Timestamp> = None;
        for series in self.rates.view().series() {
            let pair = series.key().pair;
            if symbols.contains(&pair.base()) || symbols.contains(&pair.quote()) {
                let totals = series.totals(self.rates.view().commit.recorded_time)?;
                first = first.into_iter().chain(totals.map(|totals| totals.first_observed_time)).min();
            }
        }
        Ok(first.map(Day::of))
    }

    /// Limits a range to the days from the first quote to today. Returns the first day and the day after the last.
    ///
    /// # Errors
    /// Returns a 422 if the range ends before its start or has more than [`DAYS_MAX`] days.
    fn limit_range(&self, symbols: &[Currency], start: Day, end: Option<Day>) -> Result<(Day, Day), Problem> {
        let today = Day::of(self.rates.now());
        if end.unwrap_or(today) < start {
            let start = start.text();
            let problem = format!("the range ends before its start, {start}; choose an earlier start or a later end");
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem));
        }
        let first = self.first_day(symbols).map_err(failed)?.unwrap_or(start);
        let (start, after) = (start.max(first), end.unwrap_or(today).min(today).next());
        if after.0.micros_since(start.0) / Timestamp::DAY_US > DAYS_MAX {
            let problem = format!("the range has more than {DAYS_MAX} days; request a shorter range");
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem));
        }
        Ok((start, after))
    }

    /// Returns the rates of each day with an observation, from the first source with an observation on that day.
    fn many_days(&self, request: &RatesRequest, start: Day, end: Option<Day>) -> Result<ManyDays, Problem> {
        let symbols = request.symbols(self.rates);
        let (start, after) = self.limit_range(&symbols, start, end)?;
        let mut days: BTreeMap<String, Numbers> = BTreeMap::new();
        // A range that ends before the first quote has no days.
        for symbol in symbols.into_iter().filter(|_| start < after) {
            let Ok(pair) = Pair::new(request.base, symbol) else { continue };
            let mut is_known = false;
            for source in &self.sources {
                if source.is_none() && is_known {
                    break;
                }
                let candles =
                    match self.reader.candles(&days_request(pair, source.clone(), start, after).map_err(failed)?) {
                        Ok(answer) => answer.body.rows,
                        Err(error) if matches!(Absence::of(&error, source.as_ref()), Some(Absence::NoPair)) => continue,
                        Err(error) => return Err(failed(error)),
                    };
                is_known = true;
                for CandleRow { candle, .. } in candles {
                    let of_day = days.entry(Day(candle.bucket.start).text()).or_default();
                    if let Entry::Vacant(free) = of_day.entry(symbol.to_string()) {
                        free.insert(request.number(&candle.close.rate.to_string())?);
                    }
                }
            }
        }
        let ends = days.first_key_value().zip(days.last_key_value());
        let ends = ends.map(|((first, _), (last, _))| (first.clone(), last.clone()));
        let Some((start_date, end_date)) = ends else { return Err(no_rates(request)) };
        Ok(ManyDays { amount: request.amount()?, base: request.base.to_string(), start_date, end_date, rates: days })
    }
}

/// Returns the request for the daily candles of a range.
fn days_request(pair: Pair, source: Option<Source>, start: Day, after: Day) -> Result<CandlesRequest, QueryError> {
    Ok(CandlesRequest {
        list: BucketsRequest {
            pair,
            source,
            leg_sources: Vec::new(),
            range: Range::new(Some(start.0), Some(after.0))?,
            known_time: None,
            after: None,
            limit: usize::try_from(DAYS_MAX).unwrap_or(usize::MAX),
        },
        buckets: Buckets { zone: Zone::UTC, interval: Interval::Day },
        fill: false,
        count_observations: false,
        find_bounds: false,
    })
}

#[cfg(test)]
mod tests;
