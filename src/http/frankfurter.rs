//! `/frankfurter/...`: rates in the shapes of the Frankfurter service, so that its clients work when pointed here.
//!
//! What is meant is ours. A date is a day in UTC, and its rate the one in force at its end, or now; a day on which
//! nothing was observed is left out of a range. One unit of `base` (the dollar unless another is asked for) is worth so
//! many units of each symbol. Where several sources have a pair, the one chosen for these shapes answers for each day
//! that its rate counts on, else the next by preference and then by name whose rate does, else legs of different ones. A
//! rate counts on the day it was observed and for its source's stale limit after that, in whole days.
//!
//! **Invariant**: rates are JSON numbers with the digits of the answer: no float stands between the two.

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
use super::body::Held;
use super::entity_tag::{Basis, has_it, keep, not_modified};
use super::parameters::{Parameters, invalid};
use super::problem::{Problem, broken};
use crate::analysis::{Buckets, Rounded, Zone, product};
use crate::api::{Rates, Read, ServiceError};
use crate::domain::{Amount, Currency, Interval, Pair, Source, Timestamp};
use crate::latest_quotes::StateRules;
use crate::query::{BucketsRequest, CandleRow, CandlesRequest, QueryError, Range, RateAnswer, RateRequest, Reader};

/// Where it is; without `v1` for clients of the earlier host.
pub(super) const PATHS: [&str; 2] = ["/frankfurter/v1/{what}", "/frankfurter/{what}"];
const PREFIXES: [&str; 2] = ["/frankfurter/v1/", "/frankfurter/"];

/// Days of one range.
const DAYS_MAX: i64 = 10_000;
/// Currencies asked for at once.
const SYMBOLS_MAX: usize = 50;
const DATE_CHARS: usize = "2025-12-08".len();

/// A day, named by its start in UTC.
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

    /// The last day on which what was observed on this one is not stale, a part of a day counting as one.
    fn holds_until(self, stale_limit_us: i64) -> Self {
        let part = i64::from(stale_limit_us % Timestamp::DAY_US > 0);
        let days = (stale_limit_us / Timestamp::DAY_US).saturating_add(part);
        Self(self.0.saturating_add_us(days.saturating_mul(Timestamp::DAY_US)))
    }

    fn text(self) -> String {
        self.0.to_string().chars().take(DATE_CHARS).collect()
    }
}

/// What a path asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Latest,
    Currencies,
    Day(Day),
    /// Both included; no end means up to now.
    Days(Day, Option<Day>),
}

impl What {
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

/// What a query asks for.
struct Asked {
    base: Currency,
    /// None: all there are.
    symbols: Option<Vec<Currency>>,
    amount: Amount,
    /// The same without the zeros that end its fraction, so that one unit leaves the published digits as they are.
    factor: Amount,
}

impl Asked {
    /// By either spelling of each parameter. A currency that is not served is not found, as clients expect it.
    fn read(site: &Site, mut parameters: Parameters) -> Result<Self, Problem> {
        let mut take = |name: &'static str, other: &'static str| match (parameters.take(name), parameters.take(other)) {
            (Some(_), Some(_)) => Err(invalid(other, format!("and {name} are both given; give one of them"))),
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
                return Err(invalid(name, format!("has more than {SYMBOLS_MAX} currencies")).into());
            }
            Some((name, codes)) => {
                Some(codes.split(',').map(|code| currency(name, code)).collect::<Result<Vec<_>, _>>()?)
            }
        };
        if symbols.as_ref().is_some_and(|symbols| symbols.iter().all(|symbol| *symbol == base)) {
            let problem = format!("symbols: {base} is the base itself; ask for another currency");
            return Err(Problem::new(StatusCode::NOT_FOUND, problem));
        }
        let parse = |text: &str| Amount::parse(text).map_err(|problem| invalid("amount", problem.to_string()));
        let short = if amount.contains('.') { amount.trim_end_matches('0').trim_end_matches('.') } else { &amount };
        Ok(Self { base, symbols, factor: parse(short)?, amount: parse(&amount)? })
    }

    /// What is to be answered of each: never the base itself.
    fn symbols(&self, rates: &Rates) -> Vec<Currency> {
        let asked = self.symbols.clone().unwrap_or_else(|| rates.currencies().iter().collect());
        asked.into_iter().filter(|symbol| *symbol != self.base).collect()
    }

    /// As a number.
    fn amount(&self) -> Result<Box<RawValue>, ServiceError> {
        RawValue::from_string(self.amount.to_string()).map_err(|problem| broken(&problem))
    }

    /// So many units of a symbol, digit for digit, as a number.
    fn number(&self, rate: &str) -> Result<Box<RawValue>, ServiceError> {
        let text = product(self.factor, rate).map(|product| product.to_string());
        let number = text.map(RawValue::from_string);
        number.and_then(Result::ok).ok_or_else(|| broken(&format!("'{rate}' is no number")))
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

/// Answers whatever stands behind one of [`PATHS`].
pub(super) async fn answer(State(site): State<Site>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    match answer_or_problem(&site, &uri, &headers).await {
        Ok(response) => response,
        Err(problem) => problem.with_message().into_response(),
    }
}

async fn answer_or_problem(site: &Site, uri: &Uri, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
    let rest = PREFIXES.iter().find_map(|prefix| uri.path().strip_prefix(prefix));
    let Some(what) = rest.and_then(What::parse) else {
        let problem = "there are latest, currencies, a date like 2025-12-08, and ranges like 2025-12-01..2025-12-08";
        return Err(Problem::new(StatusCode::NOT_FOUND, problem));
    };
    let parameters = Parameters::parse(uri.query())?;
    let basis = Basis::new(site, matches!(what, What::Days(..)), false);
    let question = [uri.path().as_bytes(), uri.query().unwrap_or_default().as_bytes()];
    let tag = basis.tag(&question);
    let rates = site.rates.at(Arc::clone(&basis.view), basis.now);
    let chosen = site.settings.frankfurter_source.clone();
    let asked = match what {
        What::Currencies => {
            parameters.finish([])?;
            None
        }
        What::Latest | What::Day(_) | What::Days(..) => Some(Asked::read(site, parameters)?),
    };
    if let Some(tag) = tag.as_ref().filter(|tag| has_it(headers, tag)) {
        return Ok(not_modified(tag.clone()));
    }
    let of_read = rates.clone();
    // All of an answer is one read, made where it is read.
    let read = rates.read(move |reader| {
        let answers = Answers { rates: &of_read, reader, sources: sources(&of_read, chosen.as_ref()) };
        Ok(match (what, &asked) {
            (What::Days(start, end), Some(asked)) => {
                answers.many_days(asked, start, end).and_then(|days| written(&days))
            }
            (What::Day(day), Some(asked)) => answers.one_day(asked, Some(day)).and_then(|day| written(&day)),
            (What::Latest, Some(asked)) => answers.one_day(asked, None).and_then(|day| written(&day)),
            (_, _) => written(&currencies(&of_read)),
        })
    });
    let Read { answer, place } = read.await?;
    let mut response = Response::new(Held::body(answer?.into(), Some(place)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    keep(&mut response, tag);
    Ok(response)
}

fn written(body: &impl Serialize) -> Result<Vec<u8>, Problem> {
    Ok(serde_json::to_vec(body).map_err(|problem| broken(&problem))?)
}

/// Those that some series has, by code.
fn currencies(rates: &Rates) -> BTreeMap<String, String> {
    let view = rates.view();
    let pairs = view.series().map(|series| series.key().pair);
    pairs.flat_map(|pair| [pair.base(), pair.quote()]).map(|one| (one.to_string(), one.name())).collect()
}

/// Each source once: the chosen one, then those with a preference, then the others by name; in the end none, for legs of
/// different ones.
fn sources(rates: &Rates, chosen: Option<&Source>) -> Vec<Option<Source>> {
    let view = rates.view();
    let preferences = rates.sources().preferences();
    let mut sources: Vec<&Source> = view.series().map(|series| &series.key().source).chain(chosen).collect();
    sources.sort_unstable_by_key(|source| {
        (Some(*source) != chosen, preferences.place(source).unwrap_or(u32::MAX), *source)
    });
    sources.dedup();
    sources.into_iter().cloned().map(Some).chain([None]).collect()
}

/// The rate of a pair at a moment.
struct Found {
    rate: Rounded,
    /// When it was last observed up to then; a cross is as old as its older leg.
    seen: Day,
    /// The last day that it counts for.
    until: Day,
}

impl Found {
    /// None without legs, which no answer is.
    fn new(rules: &StateRules, answer: &RateAnswer, moment: Timestamp) -> Option<Self> {
        let legs = answer.legs.iter().map(|(series, run)| {
            // What was confirmed beyond the moment asked for was so at that moment.
            let seen = Day::of(run.last_observed_time.min(moment));
            (seen, seen.holds_until(rules.stale_limit_us(&series.source)))
        });
        let (seen, until) = legs.reduce(|one, other| (one.0.min(other.0), one.1.min(other.1)))?;
        Some(Self { rate: answer.rate.rounded_value(), seen, until })
    }
}

/// Why a source does not answer, where another may.
enum Absence {
    /// It has the pair, and no quote yet.
    NoQuoteYet,
    /// It does not have the pair.
    NoPair,
}

impl Absence {
    /// None of an error that ends the answer.
    fn of(error: &QueryError, source: Option<&Source>) -> Option<Self> {
        match error {
            QueryError::NoQuoteYet { .. } | QueryError::NothingKnownYet { .. } => Some(Self::NoQuoteYet),
            QueryError::UnknownSeries { .. }
            | QueryError::UnknownSource { .. }
            | QueryError::OnlyInverse { .. }
            | QueryError::NotExported { .. } => Some(Self::NoPair),
            // Several might answer, and none of them does so alone.
            QueryError::Ambiguous { .. } if source.is_none() => Some(Self::NoPair),
            QueryError::Ambiguous { .. }
            | QueryError::InvalidArgument { .. }
            | QueryError::Stale { .. }
            | QueryError::Stopped
            | QueryError::Store(_) => None,
        }
    }
}

fn no_rates(asked: &Asked) -> Problem {
    let problem = format!("there are no rates of {} then; see /frankfurter/v1/currencies", asked.base);
    Problem::new(StatusCode::NOT_FOUND, problem)
}

fn failed(error: QueryError) -> Problem {
    ServiceError::from(error).into()
}

/// Answers in these shapes, all from one commit.
struct Answers<'a> {
    rates: &'a Rates,
    reader: &'a Reader,
    /// In the order in which they are asked.
    sources: Vec<Option<Source>>,
}

impl Answers<'_> {
    /// The rate of a pair at `time`, or now: of the first source whose rate still counts on that day, else the one
    /// observed last; none if nobody has it, or not yet.
    fn rate(&self, pair: Pair, time: Option<Timestamp>) -> Result<Option<Found>, QueryError> {
        let moment = time.unwrap_or_else(|| self.rates.now());
        let (mut best, mut is_known): (Option<Found>, bool) = (None, false);
        for source in &self.sources {
            // Legs of different sources are for pairs that no source has alone.
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
                    let Some(found) = Found::new(self.rates.rules(), &answer.body, moment) else { continue };
                    if found.until >= Day::of(moment) {
                        return Ok(Some(found));
                    }
                    if best.as_ref().is_none_or(|best| best.seen < found.seen) {
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

    /// The rates at the end of a day, or now; without those that no longer count on the day of the newest.
    fn one_day(&self, asked: &Asked, day: Option<Day>) -> Result<OneDay, Problem> {
        let now = self.rates.now();
        let time = day.map(|day| day.next().0.saturating_add_us(-1)).filter(|time| *time < now);
        let mut found = Vec::new();
        for symbol in asked.symbols(self.rates) {
            let Ok(pair) = Pair::new(asked.base, symbol) else { continue };
            let of_symbol = self.rate(pair, time).map_err(failed)?;
            found.extend(of_symbol.map(|found| (symbol, found)));
        }
        let Some(newest) = found.iter().map(|(_, found)| found.seen).max() else { return Err(no_rates(asked)) };
        let mut numbers = Numbers::new();
        for (symbol, found) in found.iter().filter(|(_, found)| found.until >= newest) {
            numbers.insert(symbol.to_string(), asked.number(&found.rate.to_string())?);
        }
        Ok(OneDay { amount: asked.amount()?, base: asked.base.to_string(), date: newest.text(), rates: numbers })
    }

    /// The day of the first quote of any of `symbols`.
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

    /// From which day and before which one: no earlier than the first quote, no later than today.
    fn bounded(&self, symbols: &[Currency], start: Day, end: Option<Day>) -> Result<(Day, Day), Problem> {
        let today = Day::of(self.rates.now());
        if end.unwrap_or(today) < start {
            let problem = format!("the range ends before it begins, on {}; swap its ends", start.text());
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem));
        }
        let first = self.first_day(symbols).map_err(failed)?.unwrap_or(start);
        let (start, after) = (start.max(first), end.unwrap_or(today).min(today).next());
        if after.0.micros_since(start.0) / Timestamp::DAY_US > DAYS_MAX {
            let problem = format!("the range has more than {DAYS_MAX} days; ask for less at a time");
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem));
        }
        Ok((start, after))
    }

    /// The rates of each day on which something was observed: of the first source that observed that day.
    fn many_days(&self, asked: &Asked, start: Day, end: Option<Day>) -> Result<ManyDays, Problem> {
        let symbols = asked.symbols(self.rates);
        let (start, after) = self.bounded(&symbols, start, end)?;
        let mut days: BTreeMap<String, Numbers> = BTreeMap::new();
        // What begins after its end, the first quote being later, has no days.
        for symbol in symbols.into_iter().filter(|_| start < after) {
            let Ok(pair) = Pair::new(asked.base, symbol) else { continue };
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
                        free.insert(asked.number(&candle.close.rate.to_string())?);
                    }
                }
            }
        }
        let ends = days.first_key_value().zip(days.last_key_value());
        let ends = ends.map(|((first, _), (last, _))| (first.clone(), last.clone()));
        let Some((start_date, end_date)) = ends else { return Err(no_rates(asked)) };
        Ok(ManyDays { amount: asked.amount()?, base: asked.base.to_string(), start_date, end_date, rates: days })
    }
}

/// The candles of the days of a range.
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
