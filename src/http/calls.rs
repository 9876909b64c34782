//! The routes `/v1/...`: each call with its request in the query string and its response as JSON or CSV.
//!
//! **Invariant**: reading the store and encoding the response happen on a thread that may block, never on a thread of
//! the async runtime.

use std::cmp::Reverse;
use std::mem;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, CONTENT_TYPE, LINK};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Site;
use super::body::PermitBody;
use super::csv::{self, Page, one_row};
use super::entity_tag::{Snapshot, matches_tag, not_modified, set_cache_headers};
use super::parameters::{Parameters, invalid};
use super::problem::{Problem, internal_error};
use super::schema::{Call, Schema};
use super::short_forms;
use crate::api::{Cost, PointReadTask, Rates, Read, ReadPermit, ReadTask, ServiceError};
use crate::domain::truncate_for_display;
use crate::proto::v1;
use crate::query::Reader;

/// The parameter of every call that chooses JSON or CSV.
pub(super) const FORMAT: &str = "format";
/// The parameter for the maximum number of rows of a page. A value beyond the limit of the call counts as the limit.
const PAGE_SIZE: &str = "page_size";
/// The parameter for the token of the wanted page.
const PAGE_TOKEN: &str = "page_token";
/// The header with the sequence of the commit that was read. A CSV response has no other place for the sequence.
const SEQUENCE: HeaderName = HeaderName::from_static("silkrate-sequence");

/// The format of a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) enum Format {
    Json,
    Csv,
}

impl Format {
    /// Chooses the format that the parameter names. Without a parameter, chooses the format that the `Accept` header
    /// prefers. Without a preference, chooses JSON.
    fn choose(parameter: Option<&str>, headers: &HeaderMap) -> Result<Self, ServiceError> {
        match parameter {
            Some("json") => return Ok(Self::Json),
            Some("csv") => return Ok(Self::Csv),
            Some(text) => {
                let problem = format!("'{}' is neither json nor csv", truncate_for_display(text));
                return Err(invalid(FORMAT, problem));
            }
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

/// Returns the preference of a client for a media type; the client prefers the type with the greater value. The value
/// consists of the quality in thousandths, the specificity of the media range, and the position in the header. None if
/// `accepted` does not contain the type, or refuses the type with a quality of 0.
fn preference(accepted: &str, kind: &str, subkind: &str) -> Option<(u32, u8, Reverse<usize>)> {
    let matches = accepted.split(',').enumerate().filter_map(|(at, range)| {
        let mut parts = range.split(';').map(str::trim);
        let specificity = match parts.next()?.split_once('/')? {
            ("*", "*") => 0,
            (named, "*") if named.eq_ignore_ascii_case(kind) => 1,
            (named, sub) if named.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subkind) => 2,
            _ => return None,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some((quality.map_or(1_000, thousandths), specificity, Reverse(at)))
    });
    // The most specific range decides the quality.
    matches.max_by_key(|(_, specificity, at)| (*specificity, *at)).filter(|(quality, ..)| *quality > 0)
}

/// Parses a quality value of RFC 9110, 0 to 1 with at most three decimal places, into thousandths. An invalid value
/// counts as 1.
fn thousandths(quality: &str) -> u32 {
    let (whole, places) = quality.split_once('.').unwrap_or((quality, ""));
    let digits = format!("{whole}{places:0<3}");
    digits.parse().ok().filter(|thousandths| *thousandths <= 1_000 && places.len() <= 3).unwrap_or(1_000)
}

/// Answers `call` for a request without a body.
pub(super) async fn answer(site: &Site, call: Call, request: &Parts) -> Result<Response<Body>, Problem> {
    let request = CallRequest::new(site, call, request)?;
    match call {
        Call::Latest => request.latest().await,
        Call::Rate => request.read_point(|rates, request| rate_task(rates, &request), one_row).await,
        Call::Convert => request.read_point(convert_task, one_row).await,
        Call::Change => request.read_point(|rates, request| rates.get_change(&request), one_row).await,
        Call::History => request.read(Rates::list_runs, history).await,
        Call::Series => {
            request.read(|rates, request| rates.list_series(&request), |answer| Page::new("", &answer.series)).await
        }
        Call::Sources => {
            request.read(|rates, request| rates.list_sources(&request), |answer| Page::new("", &answer.sources)).await
        }
        Call::Changes => {
            request.read(Rates::list_changes, |answer| Page::new(&answer.next_page_token, &answer.changes)).await
        }
        Call::Compare => {
            request.read(Rates::compare_sources, |answer| Page::new(&answer.next_page_token, &answer.days)).await
        }
        Call::Candles => {
            request.read(Rates::list_candles, |answer| Page::new(&answer.next_page_token, &answer.candles)).await
        }
        Call::Revisions => {
            request.read(Rates::list_revisions, |answer| Page::new(&answer.next_page_token, &answer.revisions)).await
        }
        Call::Gaps => request.read(Rates::list_gaps, |answer| Page::new(&answer.next_page_token, &answer.gaps)).await,
        Call::Quarantine => {
            request.read(Rates::list_quarantine, |answer| Page::new(&answer.next_page_token, &answer.ticks)).await
        }
    }
}

fn history(answer: &v1::ListRunsResponse) -> Page<'_, v1::Run> {
    Page { baseline: answer.baseline.as_ref(), ..Page::new(&answer.next_page_token, &answer.runs) }
}

/// Prepares `GetRate`. The time in the response is null if the request has none: without one, a rate is read at the time
/// of the newest commit, which changes even if the rate does not.
fn rate_task(
    rates: &Rates,
    request: &v1::GetRateRequest,
) -> Result<impl PointReadTask<v1::GetRateResponse> + use<>, ServiceError> {
    let (requested_time, task) = (request.time, rates.get_rate(request)?);
    Ok(move |reader: &Reader| {
        let answer = task(reader)?;
        Ok(v1::GetRateResponse { time: requested_time.and(answer.time), ..answer })
    })
}

/// Prepares `Convert`. The rate in the response has a time only if the request has one.
fn convert_task(
    rates: &Rates,
    request: v1::ConvertRequest,
) -> Result<impl PointReadTask<v1::ConvertResponse> + use<>, ServiceError> {
    let (requested_time, task) = (request.time, rates.convert(request)?);
    Ok(move |reader: &Reader| {
        let mut answer = task(reader)?;
        if let Some(rate) = &mut answer.rate {
            rate.time = requested_time.and(rate.time);
        }
        Ok(answer)
    })
}

/// A request for a call. Only the parts that all calls have in common are parsed.
struct CallRequest<'a> {
    site: &'a Site,
    headers: &'a HeaderMap,
    cost: Cost,
    /// The parameters that are fields of the call's request message.
    parameters: Parameters,
    snapshot: Snapshot,
    writer: ResponseWriter,
}

/// Encodes the response of a call as JSON or CSV.
struct ResponseWriter {
    schema: Arc<Schema>,
    call: Call,
    format: Format,
    /// Whether the response must contain all rows: CSV without paging parameters.
    is_whole: bool,
    /// The values of request parameters that each CSV row repeats.
    repeated: Vec<String>,
    query: String,
}

/// An encoded response.
struct EncodedResponse {
    bytes: Bytes,
    /// The `Link` header to the next page.
    next: Option<HeaderValue>,
}

/// The format, the sequence and the tag of a response.
type Headers = (Format, u64, Option<HeaderValue>);

/// A call whose response the client does not have yet.
struct Begun<W> {
    rates: Rates,
    task: W,
    headers: Headers,
}

/// Makes the response of a read. The body holds the permit until it is sent.
fn response(encoded: EncodedResponse, permit: Option<ReadPermit>, (format, sequence, tag): Headers) -> Response<Body> {
    let mut response = Response::new(PermitBody::body(encoded.bytes, permit));
    if let Some(next) = encoded.next {
        response.headers_mut().insert(LINK, next);
    }
    set_headers(&mut response, format, sequence, tag);
    response
}

impl<'a> CallRequest<'a> {
    fn new(site: &'a Site, call: Call, request: &'a Parts) -> Result<Self, Problem> {
        let Parts { uri, headers, .. } = request;
        let query = uri.query();
        let is_expensive = matches!(call, Call::Compare | Call::Gaps | Call::Candles);
        let cost = if is_expensive { Cost::Expensive } else { Cost::Cheap };
        let mut parameters = Parameters::parse(query)?;
        let request = &site.schema.call(call).ok_or_else(|| internal_error(&"no such call"))?.request;
        short_forms::expand(&mut parameters, site.rates.now(), |name| request.field(name).is_some())?;
        let format = Format::choose(parameters.take(FORMAT).as_deref(), headers)?;
        // Readers of CSV, such as spreadsheets, do not follow links to a next page. The response must therefore have
        // all rows, or be an error.
        let is_paged = parameters.get(PAGE_TOKEN).is_some()
            || parameters.get(PAGE_SIZE).is_some_and(|size| size.parse::<i32>() != Ok(0));
        let is_whole = format == Format::Csv && !is_paged;
        if is_whole && request.field(PAGE_SIZE).is_some() {
            parameters.set(PAGE_SIZE, i32::MAX.to_string());
        }
        let repeated = call.rows().repeated.iter().flat_map(|repeated| {
            let mut values = parameters.get(repeated.parameter).unwrap_or_default().splitn(repeated.titles.len(), ',');
            repeated.titles.iter().map(move |_| values.next().unwrap_or_default().to_owned())
        });
        let writer = ResponseWriter {
            schema: Arc::clone(&site.schema),
            call,
            format,
            is_whole,
            repeated: repeated.collect(),
            query: query.unwrap_or_default().to_owned(),
        };
        Ok(Self { site, headers, cost, snapshot: Snapshot::of(site, call, &parameters), parameters, writer })
    }

    /// Parses the request message, and returns it with the tag of its response.
    fn request<Q: Message + DeserializeOwned>(&mut self) -> Result<(Q, Option<HeaderValue>), ServiceError> {
        let request: Q = mem::take(&mut self.parameters).read(&[FORMAT])?;
        let ResponseWriter { call, format, .. } = &self.writer;
        let encoded = request.encode_to_vec();
        let tag = self.snapshot.tag(&[call.name().as_bytes(), format.content_type().as_bytes(), &encoded]);
        Ok((request, tag))
    }

    /// Returns a 304 response if the client has the response with this tag already.
    fn unchanged(&self, tag: Option<&HeaderValue>) -> Option<Response<Body>> {
        tag.filter(|tag| matches_tag(self.headers, tag)).cloned().map(not_modified)
    }

    fn rates(&self) -> Rates {
        self.site.rates.at(Arc::clone(&self.snapshot.view), self.snapshot.now)
    }

    /// Makes the task of the call with `prepare`, or the response if the client has the answer already.
    fn begin<Q: Message + DeserializeOwned, W>(
        &mut self,
        prepare: impl FnOnce(&Rates, Q) -> Result<W, ServiceError>,
    ) -> Result<ControlFlow<Response<Body>, Begun<W>>, Problem> {
        let (request, tag) = self.request()?;
        if let Some(response) = self.unchanged(tag.as_ref()) {
            return Ok(ControlFlow::Break(response));
        }
        let rates = self.rates();
        let task = prepare(&rates, request)?;
        let headers = (self.writer.format, self.snapshot.view.commit.sequence, tag);
        Ok(ControlFlow::Continue(Begun { rates, task, headers }))
    }

    /// Runs the read that `prepare` makes from the request, and encodes the result on the same thread. `page` returns
    /// the rows of the result.
    async fn read<Q, A, R, W>(
        mut self,
        prepare: impl FnOnce(&Rates, Q) -> Result<W, ServiceError>,
        page: fn(&A) -> Page<'_, R>,
    ) -> Result<Response<Body>, Problem>
    where
        Q: Message + DeserializeOwned,
        A: Serialize + 'static,
        R: Serialize + 'static,
        W: ReadTask<A>,
    {
        let Begun { rates, task, headers } = match self.begin(prepare)? {
            ControlFlow::Continue(begun) => begun,
            ControlFlow::Break(response) => return Ok(response),
        };
        let (cost, writer) = (self.cost, self.writer);
        let read = rates.read_at_cost(cost, move |reader| {
            let answer = task(reader)?;
            Ok(writer.write(&answer, &page(&answer)))
        });
        let Read { answer, permit } = read.await?;
        Ok(response(answer?, Some(permit), headers))
    }

    /// Answers a read of single rates: on this thread if all it needs is in memory, else as [`Self::read`] does.
    async fn read_point<Q, A, R, W>(
        mut self,
        prepare: impl FnOnce(&Rates, Q) -> Result<W, ServiceError>,
        page: fn(&A) -> Page<'_, R>,
    ) -> Result<Response<Body>, Problem>
    where
        Q: Message + DeserializeOwned,
        A: Serialize + 'static,
        R: Serialize + 'static,
        W: PointReadTask<A>,
    {
        let Begun { rates, task, headers } = match self.begin(prepare)? {
            ControlFlow::Continue(begun) => begun,
            ControlFlow::Break(response) => return Ok(response),
        };
        let writer = self.writer;
        let read = rates.read_point(move |reader| {
            let answer = task(reader)?;
            Ok(writer.write(&answer, &page(&answer)))
        });
        let (encoded, permit) = read.await?;
        Ok(response(encoded?, permit, headers))
    }

    /// Answers `GetLatestRates` from memory. Each response is encoded once for a commit.
    async fn latest(mut self) -> Result<Response<Body>, Problem> {
        let (request, tag) = self.request::<v1::GetLatestRatesRequest>()?;
        if let Some(response) = self.unchanged(tag.as_ref()) {
            return Ok(response);
        }
        let (sequence, format) = (self.snapshot.view.commit.sequence, self.writer.format);
        let body = if let Some(body) = self.site.latest_bodies.get(tag.as_ref()) {
            body
        } else {
            let (rates, writer) = (self.rates(), self.writer);
            let write = move || {
                let answer = rates.get_latest_rates(&request)?;
                writer.write(&answer, &Page::new("", &answer.rates))
            };
            // Encoding needs a read permit, because for many series it takes as much time as a read.
            let encoded = self.site.rates.read(move |_: &Reader| Ok(write())).await?.answer?;
            self.site.latest_bodies.insert(tag.as_ref(), &encoded.bytes);
            encoded.bytes
        };
        let mut response = Response::new(Body::from(body));
        set_headers(&mut response, format, sequence, tag);
        Ok(response)
    }
}

/// Sets the content type, the sequence and the cache headers of a response.
fn set_headers(response: &mut Response<Body>, format: Format, sequence: u64, tag: Option<HeaderValue>) {
    response.headers_mut().insert(CONTENT_TYPE, format.content_type());
    response.headers_mut().insert(SEQUENCE, HeaderValue::from(sequence));
    set_cache_headers(response, tag);
}

impl ResponseWriter {
    /// Encodes a response with the rows of `page`.
    fn write<R: Serialize>(&self, answer: &impl Serialize, page: &Page<'_, R>) -> Result<EncodedResponse, Problem> {
        if self.is_whole && !page.next_page_token.is_empty() {
            return Err(too_long(page.rows.len()));
        }
        let bytes = match self.format {
            Format::Json => serde_json::to_vec(answer).map_err(|problem| internal_error(&problem))?,
            Format::Csv => self.csv(answer, page)?,
        };
        Ok(EncodedResponse { bytes: bytes.into(), next: next_page(self.call, &self.query, page.next_page_token) })
    }

    fn csv<R: Serialize>(&self, answer: &impl Serialize, page: &Page<'_, R>) -> Result<Vec<u8>, ServiceError> {
        let message = &self.schema.call(self.call).ok_or_else(|| internal_error(&"no such call"))?.response;
        let bytes = csv::write(self.call.rows(), message, &self.repeated, answer, page);
        bytes.map_err(|problem| internal_error(&problem))
    }
}

/// Returns the error for a CSV response with more rows than the maximum.
fn too_long(rows: usize) -> Problem {
    let problem = format!(
        "the response has more than {rows} rows, the maximum of one response; request a shorter range (start_time to end_time), or set page_size and request the next page from the Link header"
    );
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem)
}

/// Returns the `Link` to the next page: the same query with the token of the response.
fn next_page(call: Call, query: &str, token: &str) -> Option<HeaderValue> {
    if token.is_empty() {
        return None;
    }
    // The name of the parameter may be percent-encoded.
    let is_token = |part: &str| form_urlencoded::parse(part.as_bytes()).any(|(name, _)| name == PAGE_TOKEN);
    let same = query.split('&').filter(|part| !part.is_empty() && !is_token(part));
    let token = format!("{PAGE_TOKEN}={}", utf8_percent_encode(token, NON_ALPHANUMERIC));
    let query = same.chain([token.as_str()]).collect::<Vec<_>>().join("&");
    // `>` would end the link early. Hyper accepts no other character in a query that could end the link.
    let query = query.replace('>', "%3E");
    HeaderValue::from_str(&format!("</v1/{}?{query}>; rel=\"next\"", call.name())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_is_chosen_by_parameter_then_by_accept_header() {
        let check = |parameter: Option<&str>, accept: &'static str, expect: Option<Format>| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Format::choose(parameter, &headers).ok(), expect, "{parameter:?} {accept}");
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
    fn next_page_repeats_query_with_one_token() {
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
