//! `/frankfurter/...`: rates in the shapes of the Frankfurter service, so that its clients work when pointed here.
//!
//! What is meant is ours. A date is a day in UTC, and its rate the one in force at its end, or now; a day on which
//! nothing was observed is left out of a range. One unit of `base` (the dollar unless another is asked for) is worth so
//! many units of each symbol. Where several sources have a pair, the preferred one answers, else the first by name that
//! has it, else legs of different ones.
//!
//! **Invariant**: rates are JSON numbers with the digits of the answer: no float stands between the two.

use std::collections::BTreeMap;
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
use super::calls::{Basis, has_it, keep, not_modified, turn};
use super::parameters::{Parameters, invalid};
use super::problem::{Problem, broken};
use crate::analysis::product;
use crate::api::convert::timestamp;
use crate::api::{ErrorDetail, REASON_NO_QUOTE_YET, REASON_UNKNOWN_SERIES, Rates, ServiceError};
use crate::domain::{Amount, Currency, Source, Timestamp};
use crate::proto::v1;
use crate::query::QueryError;

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
    /// By either spelling of each parameter.
    fn read(site: &Site, mut parameters: Parameters) -> Result<Self, ServiceError> {
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
            served.parse(&code.to_ascii_uppercase()).map_err(|problem| invalid(name, problem.to_string()))
        };
        let base = base.map_or(Ok(Currency::USD), |(name, code)| currency(name, &code))?;
        let symbols = match symbols {
            None => None,
            Some((name, codes)) if codes.split(',').count() > SYMBOLS_MAX => {
                return Err(invalid(name, format!("has more than {SYMBOLS_MAX} currencies")));
            }
            Some((name, codes)) => Some(codes.split(',').map(|code| currency(name, code)).collect::<Result<_, _>>()?),
        };
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
        let text = product(self.factor, rate);
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
    let source = &site.settings.frankfurter_source;
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
    let permit = turn(&site.reads).await?;
    let body = match (what, &asked) {
        (What::Days(start, end), Some(asked)) => written(&many_days(&rates, source, asked, start, end).await?)?,
        (What::Day(day), Some(asked)) => written(&one_day(&rates, source, asked, Some(day)).await?)?,
        (What::Latest, Some(asked)) => written(&one_day(&rates, source, asked, None).await?)?,
        (_, _) => written(&currencies(&rates))?,
    };
    let mut response = Response::new(Held::body(body.into(), Some(permit)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    keep(&mut response, tag);
    Ok(response)
}

fn written(body: &impl Serialize) -> Result<Vec<u8>, ServiceError> {
    serde_json::to_vec(body).map_err(|problem| broken(&problem))
}

/// Those that some series has, by code.
fn currencies(rates: &Rates) -> BTreeMap<String, String> {
    let view = rates.view();
    let pairs = view.series().map(|series| series.key().pair);
    pairs.flat_map(|pair| [pair.base(), pair.quote()]).map(|one| (one.to_string(), one.name())).collect()
}

/// Each source once, the preferred one first.
fn sources(rates: &Rates, preferred: &Source) -> Vec<String> {
    let mut names: Vec<String> = rates.view().series().map(|series| series.key().source.to_string()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| name != preferred.as_str());
    names.insert(0, preferred.to_string());
    // In the end, legs of different ones.
    names.push(String::new());
    names
}

/// Whether there is nothing of the kind, for `reason`.
fn is_nothing(error: &ServiceError, reason: &str) -> bool {
    matches!(error.describe().1, ErrorDetail::Reason(other) if other == reason)
}

/// The rate of a pair at `time` and its source; none if nobody has it, or not yet.
async fn rate(
    rates: &Rates,
    sources: &[String],
    pair: &str,
    time: Option<Timestamp>,
) -> Result<Option<(v1::GetRateResponse, String)>, ServiceError> {
    for source in sources {
        let request = v1::GetRateRequest {
            pair: pair.to_owned(),
            source: source.clone(),
            time: time.map(timestamp),
            ..Default::default()
        };
        match rates.get_rate(&request).await {
            Ok(answer) => return Ok(Some((answer, source.clone()))),
            Err(error) if is_nothing(&error, REASON_NO_QUOTE_YET) => return Ok(None),
            Err(error) if is_nothing(&error, REASON_UNKNOWN_SERIES) => {}
            // Several might answer, and none of them does so alone.
            Err(ServiceError::Query(QueryError::Ambiguous { .. })) if source.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn no_rates(asked: &Asked) -> Problem {
    let problem = format!("there are no rates of {} then; see /frankfurter/v1/currencies", asked.base);
    Problem::new(StatusCode::NOT_FOUND, problem)
}

/// The rates at the end of a day, or now.
async fn one_day(rates: &Rates, preferred: &Source, asked: &Asked, day: Option<Day>) -> Result<OneDay, Problem> {
    let now = rates.now();
    let time = day.map(|day| day.next().0.saturating_add_us(-1)).filter(|time| *time < now);
    let sources = sources(rates, preferred);
    let (mut numbers, mut newest) = (Numbers::new(), None);
    for symbol in asked.symbols(rates) {
        let pair = format!("{}/{symbol}", asked.base);
        let Some((answer, _)) = rate(rates, &sources, &pair, time).await? else { continue };
        numbers.insert(symbol.to_string(), asked.number(&answer.rate)?);
        let seen = answer.legs.iter().filter_map(|leg| {
            let last = leg.last_observed_time?;
            Timestamp::from_parts_floor(last.seconds, last.nanos).ok()
        });
        // A cross is as old as its older leg; what was confirmed beyond the moment asked for was so at that moment.
        newest = newest.max(seen.min().map(|seen| Day::of(seen.min(time.unwrap_or(now)))));
    }
    let Some(newest) = newest else { return Err(no_rates(asked)) };
    Ok(OneDay { amount: asked.amount()?, base: asked.base.to_string(), date: newest.text(), rates: numbers })
}

/// The rates of each day on which something was observed.
async fn many_days(
    rates: &Rates,
    preferred: &Source,
    asked: &Asked,
    start: Day,
    end: Option<Day>,
) -> Result<ManyDays, Problem> {
    let after = end.unwrap_or_else(|| Day::of(rates.now())).next();
    if after.0 <= start.0 {
        let problem = format!("the range ends before it begins, on {}; swap its ends", start.text());
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem));
    }
    if after.0.micros_since(start.0) / Timestamp::DAY_US > DAYS_MAX {
        let problem = format!("the range has more than {DAYS_MAX} days; ask for less at a time");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem));
    }
    let sources = sources(rates, preferred);
    let mut days: BTreeMap<String, Numbers> = BTreeMap::new();
    for symbol in asked.symbols(rates) {
        let pair = format!("{}/{symbol}", asked.base);
        // Whoever answers for the present answers for the past.
        let Some((_, source)) = rate(rates, &sources, &pair, None).await? else { continue };
        let request = v1::ListCandlesRequest {
            pair,
            source,
            interval: v1::CandleInterval::Day.into(),
            start_time: Some(timestamp(start.0)),
            end_time: Some(timestamp(after.0)),
            page_size: i32::try_from(DAYS_MAX).unwrap_or(i32::MAX),
            ..Default::default()
        };
        for candle in rates.list_candles(request).await?.candles {
            let begins = candle.start_time.and_then(|time| Timestamp::from_parts_floor(time.seconds, time.nanos).ok());
            let Some(day) = begins.map(Day) else { continue };
            days.entry(day.text()).or_default().insert(symbol.to_string(), asked.number(&candle.close)?);
        }
    }
    let ends =
        days.first_key_value().map(|(first, _)| first.clone()).zip(days.last_key_value().map(|(last, _)| last.clone()));
    let Some((start_date, end_date)) = ends else { return Err(no_rates(asked)) };
    Ok(ManyDays { amount: asked.amount()?, base: asked.base.to_string(), start_date, end_date, rates: days })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_ask_for_days() {
        let day = |text: &str| Day::parse(text).unwrap();
        let check = |text: &str, expect: Option<What>| assert_eq!(What::parse(text), expect, "{text}");
        check("latest", Some(What::Latest));
        check("currencies", Some(What::Currencies));
        check("2025-12-08", Some(What::Day(day("2025-12-08"))));
        check("2025-12-01..2025-12-08", Some(What::Days(day("2025-12-01"), Some(day("2025-12-08")))));
        check("2025-12-01..", Some(What::Days(day("2025-12-01"), None)));
        for bad in [
            "",
            "..",
            "..2025-12-08",
            "2025-12-8",
            "2025-02-30",
            "2025-12-01...2025-12-08",
            "Latest",
            "2025-12-08T00:00:00Z",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_day_is_that_of_utc() {
        let check = |time: &str, expect: &str| {
            assert_eq!(Day::of(Timestamp::parse_rfc3339(time).unwrap()).text(), expect);
        };
        check("2025-12-08T23:59:59.999999Z", "2025-12-08");
        check("2025-12-08T00:00:00Z", "2025-12-08");
        check("1969-12-31T23:00:00Z", "1969-12-31");
        assert_eq!(Day::parse("2025-12-31").unwrap().next().text(), "2026-01-01");
    }
}
