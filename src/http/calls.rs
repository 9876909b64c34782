//! `/v1/...`: each call of `RateService`, asked by a query and answered as JSON or CSV.
//!
//! **Invariant**: an answer that carries a tag is a function of its question, the settings, its commit and, where it
//! depends on the present, of the start of the present minute; so the tag alone says that nothing has changed, and the store is not
//! read to find that out.

use std::cmp::Reverse;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LINK, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage as _, Value};

use super::Site;
use super::body::Held;
use super::json::Json;
use super::parameters::{Parameters, invalid};
use super::problem::{Problem, broken};
use super::schema::{Call, CallSchema};
use super::sheet;
use crate::api::{Rates, Read, ReadPlace, ServiceError};
use crate::domain::Timestamp;
use crate::proto::v1::GetLatestRatesRequest;
use crate::store::View;

/// Bytes of a message up to which it is written where it was read, not on a thread of its own.
const INLINE_BYTES_MAX: usize = 64 * 1024;
/// The parameter that every call has beside its own.
pub(super) const FORMAT: &str = "format";
/// How many rows a caller wants at a time; who asks for more than there may be gets those.
const PAGE_SIZE: &str = "page_size";
/// The parameters of those who read page by page.
const PAGING: [&str; 2] = [PAGE_SIZE, "page_token"];
/// The sequence of the commit that was seen, for those who read CSV.
const SEQUENCE: HeaderName = HeaderName::from_static("silkrate-sequence");

const MINUTE_US: i64 = 60 * Timestamp::SECOND_US;

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

/// What an answer is a function of, beside its question.
pub(super) struct Basis {
    pub(super) view: Arc<View>,
    pub(super) now: Timestamp,
    /// Whether the two say all: then the answer may be kept under a tag made of them.
    pub(super) may_tag: bool,
    /// Of the settings that answers depend on.
    settings_hash: u64,
}

impl Basis {
    /// Between two commits nothing changes by time but what time alone is the measure of: the writer commits when a
    /// rate comes due or a state changes. So the present of most calls is that of the newest commit; where it ends a
    /// change or a candle, it is the start of the minute, or that commit if it is later.
    pub(super) fn new(site: &Site, counts_minutes: bool, counts_ages: bool) -> Self {
        let (view, present) = (site.rates.view(), site.rates.now());
        let (recorded, settings_hash) = (view.commit.recorded_time, site.settings_hash);
        // A writer that stopped makes no such commits any more.
        if counts_ages || site.ingest.poisoned().is_some() {
            return Self { view, now: present, may_tag: false, settings_hash };
        }
        let minute = present.saturating_add_us(-present.micros().rem_euclid(MINUTE_US));
        let now = if counts_minutes { minute.max(recorded) } else { recorded };
        Self { view, now, may_tag: true, settings_hash }
    }

    fn of(site: &Site, call: Call, question: &DynamicMessage) -> Self {
        let asked = |name| question.has_field_by_name(name);
        let counts_minutes = match call {
            Call::Change => !asked("end_time"),
            Call::Changes | Call::Compare | Call::Candles | Call::Gaps => true,
            Call::Latest
            | Call::Rate
            | Call::Convert
            | Call::History
            | Call::Series
            | Call::Revisions
            | Call::Sources
            | Call::Quarantine => false,
        };
        Self::new(site, counts_minutes, asked("max_age") && !asked("time"))
    }

    /// The tag of the answer to a question; another version of this program may write another answer.
    pub(super) fn tag(&self, question: &[&[u8]]) -> Option<HeaderValue> {
        if !self.may_tag {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (env!("CARGO_PKG_VERSION"), self.settings_hash, question).hash(&mut hasher);
        let commit = self.view.commit;
        let (recorded, now) = (commit.recorded_time.micros(), self.now.micros());
        let tag = format!("\"{}-{recorded:x}-{now:x}-{:x}\"", commit.sequence, hasher.finish());
        HeaderValue::from_str(&tag).ok()
    }
}

/// Whether the caller has what bears this tag.
pub(super) fn has_it(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let mut tags = tags.flat_map(|tags| tags.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    tags.any(|other| other.as_bytes() == tag.as_bytes())
}

pub(super) fn not_modified(tag: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    keep(&mut response, Some(tag));
    response
}

/// Says how an answer may be kept: asked for again each time, under its tag.
pub(super) fn keep(response: &mut Response<Body>, tag: Option<HeaderValue>) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.append(VARY, HeaderValue::from_static("Accept"));
    if let Some(tag) = tag {
        headers.insert(ETAG, tag);
    }
}

/// Answers `call` as the query and the headers ask.
pub(super) async fn answer(
    site: &Site,
    call: Call,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response<Body>, Problem> {
    let schema = site.schema.call(call).ok_or_else(|| broken(&"no such call"))?;
    let mut parameters = Parameters::parse(query)?;
    let format = Format::choose(parameters.take(FORMAT).as_deref(), headers)?;
    let mut question = parameters.into_message(&schema.request, &[FORMAT])?;
    // Who reads a sheet sees no link to a next page: it comes whole, or not at all.
    let is_whole = format == Format::Csv && !PAGING.iter().any(|name| question.has_field_by_name(name));
    if is_whole && question.descriptor().get_field_by_name(PAGE_SIZE).is_some() {
        question.set_field_by_name(PAGE_SIZE, Value::I32(i32::MAX));
    }
    let basis = Basis::of(site, call, &question);
    let encoded = question.encode_to_vec();
    let tag = basis.tag(&[call.name().as_bytes(), format.content_type().as_bytes(), &encoded]);
    if let Some(tag) = tag.as_ref().filter(|tag| has_it(headers, tag)) {
        return Ok(not_modified(tag.clone()));
    }
    let is_whole_board = call == Call::Latest && encoded.is_empty() && format == Format::Json;
    let mut response = if is_whole_board {
        whole_board(site, &basis, schema)?
    } else {
        let rates = site.rates.at(Arc::clone(&basis.view), basis.now);
        let (answer, place) = ask(&rates, call, &question, &schema.response).await?;
        let next = next_page(call, query, &answer);
        if is_whole && next.is_some() {
            return Err(too_long(call, &answer));
        }
        let bytes = write_anywhere(call, format, question, answer).await?;
        let mut response = Response::new(Held::body(bytes, place));
        if let Some(next) = next {
            response.headers_mut().insert(LINK, next);
        }
        response
    };
    response.headers_mut().insert(CONTENT_TYPE, format.content_type());
    response.headers_mut().insert(SEQUENCE, HeaderValue::from(basis.view.commit.sequence));
    keep(&mut response, tag);
    Ok(response)
}

/// The answer has more rows than there are at a time.
fn too_long(call: Call, answer: &DynamicMessage) -> Problem {
    let rows = call.rows().list.and_then(|list| answer.get_field_by_name(list));
    let count = rows.as_deref().and_then(Value::as_list).map_or(0, <[Value]>::len);
    let problem = format!(
        "the answer has more than {count} rows, which are the most at a time; narrow start_time and end_time, or give page_size and follow the page_token in Link"
    );
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem)
}

/// What everybody asks for, written once a board.
fn whole_board(site: &Site, basis: &Basis, schema: &CallSchema) -> Result<Response<Body>, ServiceError> {
    let board = &basis.view.board;
    let kept = site.latest.load();
    if let Some((_, bytes)) = kept.as_deref().filter(|(of, _)| Arc::ptr_eq(of, board)) {
        return Ok(Response::new(Body::from(bytes.clone())));
    }
    let answer =
        site.rates.at(Arc::clone(&basis.view), basis.now).get_latest_rates(&GetLatestRatesRequest::default())?;
    let answer = described(&schema.response, &answer)?;
    let without = Call::Latest.left_out(false);
    let bytes =
        Bytes::from(serde_json::to_vec(&Json { message: &answer, without }).map_err(|problem| broken(&problem))?);
    site.latest.store(Some(Arc::new((Arc::clone(board), bytes.clone()))));
    Ok(Response::new(Body::from(bytes)))
}

fn described(of: &MessageDescriptor, message: &impl Message) -> Result<DynamicMessage, ServiceError> {
    DynamicMessage::decode(of.clone(), message.encode_to_vec().as_slice()).map_err(|problem| broken(&problem))
}

/// Asks what gRPC would be asked.
async fn ask(
    rates: &Rates,
    call: Call,
    question: &DynamicMessage,
    response: &MessageDescriptor,
) -> Result<(DynamicMessage, Option<ReadPlace>), ServiceError> {
    fn read<T: Message + Default>(question: &DynamicMessage) -> Result<T, ServiceError> {
        question.transcode_to().map_err(|problem| broken(&problem))
    }
    match call {
        // The latest quotes are in memory, and no read of the store.
        Call::Latest => Ok((described(response, &rates.get_latest_rates(&read(question)?)?)?, None)),
        Call::Rate => of_read(response, rates.get_rate(&read(question)?).await?),
        Call::History => of_read(response, rates.list_runs(read(question)?).await?),
        Call::Change => of_read(response, rates.get_change(&read(question)?).await?),
        Call::Changes => of_read(response, rates.list_changes(read(question)?).await?),
        Call::Compare => of_read(response, rates.compare_sources(read(question)?).await?),
        Call::Candles => of_read(response, rates.list_candles(read(question)?).await?),
        Call::Convert => of_read(response, rates.convert(read(question)?).await?),
        Call::Series => of_read(response, rates.list_series(&read(question)?).await?),
        Call::Gaps => of_read(response, rates.list_gaps(read(question)?).await?),
        Call::Revisions => of_read(response, rates.list_revisions(read(question)?).await?),
        Call::Sources => of_read(response, rates.list_sources(&read(question)?).await?),
        Call::Quarantine => of_read(response, rates.list_quarantine(read(question)?).await?),
    }
}

fn of_read(
    of: &MessageDescriptor,
    read: Read<impl Message>,
) -> Result<(DynamicMessage, Option<ReadPlace>), ServiceError> {
    Ok((described(of, &read.answer)?, Some(read.place)))
}

/// Where the next page is: the same query with the token of the answer.
fn next_page(call: Call, query: Option<&str>, answer: &DynamicMessage) -> Option<HeaderValue> {
    let token = answer.get_field_by_name("next_page_token")?;
    let token = token.as_str().filter(|token| !token.is_empty())?;
    // A name may be written with escapes, too.
    let is_token = |part: &str| form_urlencoded::parse(part.as_bytes()).any(|(name, _)| name == "page_token");
    let same = query.unwrap_or_default().split('&').filter(|part| !part.is_empty() && !is_token(part));
    let token = format!("page_token={}", utf8_percent_encode(token, NON_ALPHANUMERIC));
    let query = same.chain([token.as_str()]).collect::<Vec<_>>().join("&");
    // What would end the reference early is not in any query that hyper takes but `>`.
    let query = query.replace('>', "%3E");
    HeaderValue::from_str(&format!("</v1/{}?{query}>; rel=\"next\"", call.name())).ok()
}

async fn write_anywhere(
    call: Call,
    format: Format,
    question: DynamicMessage,
    answer: DynamicMessage,
) -> Result<Bytes, ServiceError> {
    if answer.encoded_len() <= INLINE_BYTES_MAX {
        return write(call, format, &question, &answer);
    }
    match tokio::task::spawn_blocking(move || write(call, format, &question, &answer)).await {
        Ok(written) => written,
        Err(problem) => Err(broken(&problem)),
    }
}

fn write(
    call: Call,
    format: Format,
    question: &DynamicMessage,
    answer: &DynamicMessage,
) -> Result<Bytes, ServiceError> {
    let without = call.left_out(question.get_field_by_name("time").is_some_and(|time| is_set(&time)));
    let bytes = match format {
        Format::Json => serde_json::to_vec(&Json { message: answer, without }).map_err(|problem| broken(&problem))?,
        Format::Csv => sheet::write(call.rows(), question, answer, without).map_err(|problem| broken(&problem))?,
    };
    Ok(bytes.into())
}

fn is_set(value: &Value) -> bool {
    value.as_message().is_some_and(|message| message.encoded_len() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1;

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
        let schema = super::super::schema::Schema::new().unwrap();
        let answer = v1::ListRunsResponse { next_page_token: "next".to_owned(), ..Default::default() };
        let answer = described(&schema.call(Call::History).unwrap().response, &answer).unwrap();
        let check = |query: Option<&str>, expect: &str| {
            let link = next_page(Call::History, query, &answer).unwrap();
            assert_eq!(link.to_str().unwrap(), format!("</v1/history?{expect}>; rel=\"next\""), "{query:?}");
        };
        check(None, "page_token=next");
        check(Some("pair=KGS/USD&page_size=2"), "pair=KGS/USD&page_size=2&page_token=next");
        check(Some("page_token=one&pair=KGS/USD"), "pair=KGS/USD&page_token=next");
        for escaped in ["page%5Ftoken=one", "page%5ftoken=one", "%70age_token=one", "page_token", "page%5Ftoken"] {
            check(Some(&format!("pair=KGS/USD&{escaped}")), "pair=KGS/USD&page_token=next");
        }
        check(Some("pair=KGS>USD"), "pair=KGS%3EUSD&page_token=next");
    }

    #[test]
    fn tags_are_compared_one_by_one() {
        let check = |given: &[&'static str], expect: bool| {
            let mut headers = HeaderMap::new();
            for tags in given {
                headers.append(IF_NONE_MATCH, HeaderValue::from_static(tags));
            }
            assert_eq!(has_it(&headers, &HeaderValue::from_static("\"7-a\"")), expect, "{given:?}");
        };
        check(&[], false);
        check(&["\"7-a\""], true);
        check(&["W/\"7-a\""], true);
        check(&["\"6-a\", \"7-a\""], true);
        check(&["\"6-a\"", "\"7-a\""], true);
        check(&["\"7-ab\""], false);
        check(&["7-a"], false);
    }
}
