//! `/v1/...`: each call of `RateService`, asked by a query and answered as JSON or CSV.
//!
//! **Invariant**: an answer is read, and written, on a thread that may block: no task of the server waits for either.

use std::cmp::Reverse;
use std::mem;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, CONTENT_TYPE, LINK};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Site;
use super::body::Held;
use super::csv::{self, Page, one_row};
use super::entity_tag::{Basis, has_it, keep, not_modified};
use super::parameters::{Parameters, invalid};
use super::problem::{Problem, broken};
use super::schema::{Call, Schema, TIME};
use crate::api::{Rates, ServiceError, Work};
use crate::proto::v1;
use crate::query::Reader;

/// The parameter that every call has beside its own.
pub(super) const FORMAT: &str = "format";
/// How many rows a caller wants at a time; who asks for more than there may be gets those.
const PAGE_SIZE: &str = "page_size";
/// The page that a caller wants, of those who read page by page.
const PAGE_TOKEN: &str = "page_token";
/// The sequence of the commit that was seen, for those who read CSV.
const SEQUENCE: HeaderName = HeaderName::from_static("silkrate-sequence");

/// How an answer is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) enum Format {
    Json,
    Csv,
}

impl Format {
    /// As the parameter says, else whichever of both the caller would rather have, else JSON.
    fn choose(asked: Option<&str>, headers: &HeaderMap) -> Result<Self, ServiceError> {
        match asked {
            Some("json") => return Ok(Self::Json),
            Some("csv") => return Ok(Self::Csv),
            Some(_) => return Err(invalid(FORMAT, "is neither json nor csv")),
            None => {}
        }
        let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let (json, csv) = (preference(accepted, "application", "json"), preference(accepted, "text", "csv"));
        Ok(if csv > json { Self::Csv } else { Self::Json })
    }

    const fn content_type(self) -> HeaderValue {
        match self {
            Self::Json => HeaderValue::from_static("application/json"),
            Self::Csv => HeaderValue::from_static("text/csv; charset=utf-8; header=present"),
        }
    }
}

/// How much a type is wanted, to be compared: its quality in thousandths, how closely it was named, and how early. None
/// where it was not named, or named to be refused.
fn preference(accepted: &str, kind: &str, subkind: &str) -> Option<(u32, u8, Reverse<usize>)> {
    let named = accepted.split(',').enumerate().filter_map(|(at, range)| {
        let mut parts = range.split(';').map(str::trim);
        let closeness = match parts.next()?.split_once('/')? {
            ("*", "*") => 0,
            (named, "*") if named.eq_ignore_ascii_case(kind) => 1,
            (named, sub) if named.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subkind) => 2,
            _ => return None,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some((quality.map_or(1_000, thousandths), closeness, Reverse(at)))
    });
    // What is said of the type itself goes before what is said of all.
    named.max_by_key(|(_, closeness, at)| (*closeness, *at)).filter(|(quality, ..)| *quality > 0)
}

/// A quality of RFC 9110: from 0 to 1, of up to three places; what is none is taken for 1.
fn thousandths(quality: &str) -> u32 {
    let (whole, places) = quality.split_once('.').unwrap_or((quality, ""));
    let digits = format!("{whole}{places:0<3}");
    digits.parse().ok().filter(|thousandths| *thousandths <= 1_000 && places.len() <= 3).unwrap_or(1_000)
}

/// Answers `call` as the query and the headers ask.
pub(super) async fn answer(
    site: &Site,
    call: Call,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response<Body>, Problem> {
    let asked = Asked::new(site, call, query, headers)?;
    match call {
        Call::Latest => asked.latest().await,
        Call::Rate => asked.read(|rates, request| ask_rate(rates, &request), one_row).await,
        Call::Convert => asked.read(ask_amount, one_row).await,
        Call::Change => asked.read(|rates, request| rates.get_change(&request), one_row).await,
        Call::History => asked.read(Rates::list_runs, history).await,
        Call::Series => {
            asked.read(|rates, request| rates.list_series(&request), |answer| Page::new("", &answer.series)).await
        }
        Call::Sources => {
            asked.read(|rates, request| rates.list_sources(&request), |answer| Page::new("", &answer.sources)).await
        }
        Call::Changes => {
            asked.read(Rates::list_changes, |answer| Page::new(&answer.next_page_token, &answer.changes)).await
        }
        Call::Compare => {
            asked.read(Rates::compare_sources, |answer| Page::new(&answer.next_page_token, &answer.days)).await
        }
        Call::Candles => {
            asked.read(Rates::list_candles, |answer| Page::new(&answer.next_page_token, &answer.candles)).await
        }
        Call::Revisions => {
            asked.read(Rates::list_revisions, |answer| Page::new(&answer.next_page_token, &answer.revisions)).await
        }
        Call::Gaps => asked.read(Rates::list_gaps, |answer| Page::new(&answer.next_page_token, &answer.gaps)).await,
        Call::Quarantine => {
            asked.read(Rates::list_quarantine, |answer| Page::new(&answer.next_page_token, &answer.ticks)).await
        }
    }
}

fn history(answer: &v1::ListRunsResponse) -> Page<'_, v1::Run> {
    Page { before: answer.baseline.as_ref(), ..Page::new(&answer.next_page_token, &answer.runs) }
}

/// The moment of a rate is told only where it was asked for; see [`Call::tells_time`].
fn ask_rate(
    rates: &Rates,
    request: &v1::GetRateRequest,
) -> Result<impl Work<v1::GetRateResponse> + use<>, ServiceError> {
    let (asked, work) = (request.time, rates.get_rate(request)?);
    Ok(move |reader: &Reader| {
        let answer = work(reader)?;
        Ok(v1::GetRateResponse { time: asked.and(answer.time), ..answer })
    })
}

fn ask_amount(
    rates: &Rates,
    request: v1::ConvertRequest,
) -> Result<impl Work<v1::ConvertResponse> + use<>, ServiceError> {
    let (asked, work) = (request.time, rates.convert(request)?);
    Ok(move |reader: &Reader| {
        let mut answer = work(reader)?;
        if let Some(rate) = &mut answer.rate {
            rate.time = asked.and(rate.time);
        }
        Ok(answer)
    })
}

/// A call that is to be answered.
struct Asked<'a> {
    site: &'a Site,
    headers: &'a HeaderMap,
    /// Those of the call's own request.
    parameters: Parameters,
    basis: Basis,
    form: Form,
}

/// How the answer to a call is written.
struct Form {
    schema: Arc<Schema>,
    call: Call,
    format: Format,
    /// Whether all rows are to come at once.
    is_whole: bool,
    tells_time: bool,
    /// What each row repeats of the request.
    repeated: Vec<String>,
    query: String,
}

/// An answer in bytes.
struct Written {
    bytes: Bytes,
    next: Option<HeaderValue>,
}

impl<'a> Asked<'a> {
    fn new(site: &'a Site, call: Call, query: Option<&str>, headers: &'a HeaderMap) -> Result<Self, Problem> {
        let mut parameters = Parameters::parse(query)?;
        let format = Format::choose(parameters.take(FORMAT).as_deref(), headers)?;
        // Who reads a sheet sees no link to a next page: it comes whole, or not at all.
        let is_paged = parameters.get(PAGE_TOKEN).is_some()
            || parameters.get(PAGE_SIZE).is_some_and(|size| size.parse::<i32>() != Ok(0));
        let is_whole = format == Format::Csv && !is_paged;
        let request = &site.schema.call(call).ok_or_else(|| broken(&"no such call"))?.request;
        if is_whole && request.field(PAGE_SIZE).is_some() {
            parameters.set(PAGE_SIZE, i32::MAX.to_string());
        }
        let repeated = call.rows().asked.iter().map(|name| parameters.get(name).unwrap_or_default().to_owned());
        let form = Form {
            schema: Arc::clone(&site.schema),
            call,
            format,
            is_whole,
            tells_time: call.tells_time(parameters.get(TIME).is_some()),
            repeated: repeated.collect(),
            query: query.unwrap_or_default().to_owned(),
        };
        Ok(Self { site, headers, basis: Basis::of(site, call, &parameters), parameters, form })
    }

    /// The request that the parameters are, and the tag of its answer.
    fn request<Q: Message + DeserializeOwned>(&mut self) -> Result<(Q, Option<HeaderValue>), ServiceError> {
        let request: Q = mem::take(&mut self.parameters).read(&[FORMAT])?;
        let Form { call, format, .. } = &self.form;
        let encoded = request.encode_to_vec();
        let tag = self.basis.tag(&[call.name().as_bytes(), format.content_type().as_bytes(), &encoded]);
        Ok((request, tag))
    }

    /// What the caller needs, where it has the answer of this tag: to know that it does.
    fn unchanged(&self, tag: Option<&HeaderValue>) -> Option<Response<Body>> {
        tag.filter(|tag| has_it(self.headers, tag)).cloned().map(not_modified)
    }

    fn rates(&self) -> Rates {
        self.site.rates.at(Arc::clone(&self.basis.view), self.basis.now)
    }

    /// Reads what `ask` makes of the request, and writes the answer, whose rows are `page`, on the thread that reads it.
    async fn read<Q, A, R, W>(
        mut self,
        ask: impl FnOnce(&Rates, Q) -> Result<W, ServiceError>,
        page: fn(&A) -> Page<'_, R>,
    ) -> Result<Response<Body>, Problem>
    where
        Q: Message + DeserializeOwned,
        A: Serialize + 'static,
        R: Serialize + 'static,
        W: Work<A>,
    {
        let (request, tag) = self.request()?;
        if let Some(response) = self.unchanged(tag.as_ref()) {
            return Ok(response);
        }
        let (rates, sequence, format) = (self.rates(), self.basis.view.commit.sequence, self.form.format);
        let (work, form) = (ask(&rates, request)?, self.form);
        let read = rates.read(move |reader| {
            let answer = work(reader)?;
            Ok(form.write(&answer, &page(&answer)))
        });
        let read = read.await?;
        let written = read.answer?;
        let mut response = Response::new(Held::body(written.bytes, Some(read.place)));
        if let Some(next) = written.next {
            response.headers_mut().insert(LINK, next);
        }
        describe(&mut response, format, sequence, tag);
        Ok(response)
    }

    /// The latest rates, which are in memory. What everybody asks for is written once a latest quotes.
    async fn latest(mut self) -> Result<Response<Body>, Problem> {
        let (request, tag) = self.request::<v1::GetLatestRatesRequest>()?;
        if let Some(response) = self.unchanged(tag.as_ref()) {
            return Ok(response);
        }
        let (view, format) = (Arc::clone(&self.basis.view), self.form.format);
        let is_unfiltered = request == v1::GetLatestRatesRequest::default() && format == Format::Json;
        let kept =
            self.site.latest.load_full().filter(|kept| is_unfiltered && Arc::ptr_eq(&kept.0, &view.latest_quotes));
        let bytes = if let Some(kept) = kept {
            kept.1.clone()
        } else {
            let (rates, form) = (self.rates(), self.form);
            let write = move || {
                let answer = rates.get_latest_rates(&request)?;
                form.write(&answer, &Page::new("", &answer.rates))
            };
            // In the place of a read: of many series this is as much work as one.
            let written = self.site.rates.read(move |_: &Reader| Ok(write())).await?.answer?;
            if is_unfiltered {
                self.site.latest.store(Some(Arc::new((Arc::clone(&view.latest_quotes), written.bytes.clone()))));
            }
            written.bytes
        };
        let mut response = Response::new(Body::from(bytes));
        describe(&mut response, format, view.commit.sequence, tag);
        Ok(response)
    }
}

/// Says what an answer is, and how it may be kept.
fn describe(response: &mut Response<Body>, format: Format, sequence: u64, tag: Option<HeaderValue>) {
    response.headers_mut().insert(CONTENT_TYPE, format.content_type());
    response.headers_mut().insert(SEQUENCE, HeaderValue::from(sequence));
    keep(response, tag);
}

impl Form {
    /// Writes an answer, whose rows are `page`.
    fn write<R: Serialize>(&self, answer: &impl Serialize, page: &Page<'_, R>) -> Result<Written, Problem> {
        if self.is_whole && !page.next_page_token.is_empty() {
            return Err(too_long(page.rows.len()));
        }
        let bytes = match self.format {
            Format::Json => serde_json::to_vec(answer).map_err(|problem| broken(&problem))?,
            Format::Csv => self.sheet(answer, page)?,
        };
        Ok(Written { bytes: bytes.into(), next: next_page(self.call, &self.query, page.next_page_token) })
    }

    fn sheet<R: Serialize>(&self, answer: &impl Serialize, page: &Page<'_, R>) -> Result<Vec<u8>, ServiceError> {
        let of = &self.schema.call(self.call).ok_or_else(|| broken(&"no such call"))?.response;
        let written = csv::write(self.call.rows(), of, self.tells_time, &self.repeated, answer, page);
        written.map_err(|problem| broken(&problem))
    }
}

/// The answer has more rows than there are at a time.
fn too_long(rows: usize) -> Problem {
    let problem = format!(
        "the answer has more than {rows} rows, which are the most at a time; narrow start_time and end_time, or give page_size and follow the page_token in Link"
    );
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem)
}

/// Where the next page is: the same query with the token of the answer.
fn next_page(call: Call, query: &str, token: &str) -> Option<HeaderValue> {
    if token.is_empty() {
        return None;
    }
    // A name may be written with escapes, too.
    let is_token = |part: &str| form_urlencoded::parse(part.as_bytes()).any(|(name, _)| name == PAGE_TOKEN);
    let same = query.split('&').filter(|part| !part.is_empty() && !is_token(part));
    let token = format!("{PAGE_TOKEN}={}", utf8_percent_encode(token, NON_ALPHANUMERIC));
    let query = same.chain([token.as_str()]).collect::<Vec<_>>().join("&");
    // What would end the reference early is not in any query that hyper takes but `>`.
    let query = query.replace('>', "%3E");
    HeaderValue::from_str(&format!("</v1/{}?{query}>; rel=\"next\"", call.name())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_chosen_by_parameter_then_by_what_is_accepted() {
        let check = |asked: Option<&str>, accept: &'static str, expect: Option<Format>| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Format::choose(asked, &headers).ok(), expect, "{asked:?} {accept}");
        };
        check(None, "", Some(Format::Json));
        check(None, "*/*", Some(Format::Json));
        check(None, "text/csv", Some(Format::Csv));
        check(None, "text/html, text/csv;q=0.9, */*;q=0.8", Some(Format::Csv));
        check(None, "application/json, text/csv", Some(Format::Json));
        check(None, "image/png", Some(Format::Json));
        check(None, "text/csv, application/json", Some(Format::Csv));
        check(None, "text/csv, */*", Some(Format::Csv));
        check(None, "text/html,application/xml;q=0.9,*/*;q=0.8", Some(Format::Json));
        check(None, "text/csv;q=0", Some(Format::Json));
        check(None, "*/*, text/csv;q=0", Some(Format::Json));
        check(None, "application/json;q=0.5, text/csv", Some(Format::Csv));
        check(None, "application/json; q=0.501 , TEXT/CSV;header=present;q=0.5", Some(Format::Json));
        check(None, "application/json;q=0, */*", Some(Format::Csv));
        check(None, "text/*, application/json;q=0.9", Some(Format::Csv));
        check(None, "text/csv;q=soon, application/json;q=0.9", Some(Format::Csv));
        check(Some("csv"), "application/json", Some(Format::Csv));
        check(Some("json"), "text/csv", Some(Format::Json));
        check(Some("xml"), "", None);
    }

    #[test]
    fn the_next_page_repeats_the_query_with_one_token() {
        let check = |query: &str, expect: &str| {
            let link = next_page(Call::History, query, "next").unwrap();
            assert_eq!(link.to_str().unwrap(), format!("</v1/history?{expect}>; rel=\"next\""), "{query:?}");
        };
        assert_eq!(next_page(Call::History, "pair=KGS/USD", ""), None);
        check("", "page_token=next");
        check("pair=KGS/USD&page_size=2", "pair=KGS/USD&page_size=2&page_token=next");
        check("page_token=one&pair=KGS/USD", "pair=KGS/USD&page_token=next");
        for escaped in ["page%5Ftoken=one", "page%5ftoken=one", "%70age_token=one", "page_token", "page%5Ftoken"] {
            check(&format!("pair=KGS/USD&{escaped}"), "pair=KGS/USD&page_token=next");
        }
        check("pair=KGS>USD", "pair=KGS%3EUSD&page_token=next");
    }
}
