//! Validates the requests of `RateService` and converts them into query requests.
//!
//! **Invariant**: a query request that this module returns is valid. This module does not read the store, so the
//! requested series may still be unknown.

use prost::Message;

use super::convert::{as_of, bound, each, length_us, pair, source};
use super::moments::{change_end, change_start, moment_range, rate_moment, request_zone};
use super::page_token::{Cursor, Fingerprint, PageToken};
use crate::analysis::{DECIMAL_PLACES_DEFAULT, DECIMAL_PLACES_MAX, Zone};
use crate::domain::{Amount, CurrencySet, Interval, Pair, ScanOrder, Source, Span, Timestamp};
use crate::proto::convert::{candle_interval, window_unit};
use crate::proto::v1;
use crate::query::{
    BucketsRequest, CandlesRequest, ChangeRequest, ChangeStart, ChangesRequest, MomentRange, Period, QueryError, Range,
    RateRequest, RevisionsRequest, RunsRequest, SeriesFilter, SeriesRequest,
};
use crate::sources::SourceTable;

/// Maximum number of entries in a filter.
pub(super) const FILTER_ENTRIES_MAX: usize = 100;
/// Rows of a page if the request does not set a page size.
const PAGE_ROWS_DEFAULT: usize = 1_000;
/// Maximum number of rows of a page. A larger page size counts as this number.
pub(super) const PAGE_ROWS_MAX: usize = 10_000;
/// Maximum number of rows of a page of changes or comparisons. Each row has two rates with their legs, and the page has
/// up to about 2 MB.
pub(super) const CHANGES_PAGE_ROWS_MAX: usize = 2_000;
/// Maximum number of entries in `leg_sources`: a cross has two legs.
const LEG_SOURCES_MAX: usize = 2;

/// A query request for one page of a list.
pub(super) struct Paged<T> {
    pub(super) request: T,
    /// The fingerprint of the proto request, which the page tokens of the list carry.
    pub(super) fingerprint: Fingerprint,
}

/// A query request of `StreamRuns`.
pub(super) struct StreamRequest {
    pub(super) pair: Pair,
    pub(super) source: Option<Source>,
    pub(super) range: MomentRange,
    pub(super) zone: Option<Zone>,
    pub(super) known_time: Option<Timestamp>,
}

pub(super) fn filter(pairs: &[String], sources: &[String], served: &CurrencySet) -> Result<SeriesFilter, QueryError> {
    let one_source = |field: &str, text: &str| {
        Source::parse(text).map_err(|problem| QueryError::invalid(field, problem.to_string()))
    };
    Ok(SeriesFilter {
        pairs: each("pairs", pairs, FILTER_ENTRIES_MAX, |field, text| pair(field, text, served))?,
        sources: each("sources", sources, FILTER_ENTRIES_MAX, one_source)?,
    })
}

pub(super) fn series(request: &v1::ListSeriesRequest, served: &CurrencySet) -> Result<SeriesRequest, QueryError> {
    Ok(SeriesRequest {
        filter: filter(&request.pairs, &request.sources, served)?,
        known_time: as_of("known_time", request.known_time)?,
    })
}

fn leg_sources(texts: &[String]) -> Result<Vec<Source>, QueryError> {
    each("leg_sources", texts, LEG_SOURCES_MAX, |field, text| {
        Source::parse(text).map_err(|problem| QueryError::invalid(field, problem.to_string()))
    })
}

pub(super) fn rate(request: &v1::GetRateRequest, served: &CurrencySet) -> Result<RateRequest, QueryError> {
    Ok(RateRequest {
        pair: pair("pair", &request.pair, served)?,
        source: source("source", &request.source)?,
        leg_sources: leg_sources(&request.leg_sources)?,
        time: rate_moment(request.time, &request.date)?,
        zone: request_zone(&request.time_zone)?,
        max_age_us: length_us("max_age", request.max_age)?,
        known_time: as_of("known_time", request.known_time)?,
    })
}

/// Returns the request for the rate of a conversion, and the amount to convert.
pub(super) fn convert(request: v1::ConvertRequest, served: &CurrencySet) -> Result<(RateRequest, Amount), QueryError> {
    let amount =
        Amount::parse(&request.amount).map_err(|problem| QueryError::invalid("amount", problem.to_string()))?;
    let v1::ConvertRequest { pair, amount: _, source, leg_sources, time, max_age, known_time, date, time_zone, strict } =
        request;
    let of_rate = v1::GetRateRequest { pair, source, leg_sources, time, max_age, known_time, date, time_zone, strict };
    Ok((rate(&of_rate, served)?, amount))
}

fn window(window: v1::Window) -> Result<Span, QueryError> {
    let unit = window_unit(window.unit).ok_or_else(|| {
        let problem = format!("{} is not a unit; name one from WINDOW_UNIT_MINUTE to WINDOW_UNIT_YEAR", window.unit);
        QueryError::invalid("window.unit", problem)
    })?;
    Ok(Span::new(window.count, unit))
}

/// Returns the number of decimal places of percentages: `requested`, or the default.
pub(super) fn decimal_places(requested: Option<u32>) -> Result<u32, QueryError> {
    match requested.unwrap_or(DECIMAL_PLACES_DEFAULT) {
        places @ 0..=DECIMAL_PLACES_MAX => Ok(places),
        more => {
            let problem = format!("is {more}; percentages have at most {DECIMAL_PLACES_MAX}");
            Err(QueryError::invalid("decimal_places", problem))
        }
    }
}

pub(super) fn change(request: &v1::GetChangeRequest, served: &CurrencySet) -> Result<ChangeRequest, QueryError> {
    let start = match (change_start(request.start_time, &request.start_date)?, request.window) {
        (Some(start), None) => ChangeStart::Time(start),
        (None, Some(given)) => ChangeStart::Before(window(given)?),
        (Some(_), Some(_)) => {
            return Err(QueryError::invalid("window", "is given together with start_time; give one of them"));
        }
        (None, None) => return Err(QueryError::invalid("start_time", "is missing; give start_time or window")),
    };
    Ok(ChangeRequest {
        pair: pair("pair", &request.pair, served)?,
        source: source("source", &request.source)?,
        leg_sources: leg_sources(&request.leg_sources)?,
        start,
        end_time: change_end(request.end_time, &request.end_date)?,
        zone: request_zone(&request.time_zone)?,
        known_time: as_of("known_time", request.known_time)?,
    })
}

pub(super) fn range(
    start: Option<prost_types::Timestamp>,
    end: Option<prost_types::Timestamp>,
) -> Result<Range, QueryError> {
    Range::new(bound("start_time", start)?, bound("end_time", end)?)
}

/// Returns the number of rows of a page: the default for zero, and at most `rows_max`.
pub(super) fn page_rows(page_size: i32, rows_max: usize) -> Result<usize, QueryError> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(PAGE_ROWS_DEFAULT),
        Ok(rows) => Ok(rows.min(rows_max)),
        Err(_) => Err(QueryError::invalid(
            "page_size",
            format!("is {page_size}; give 1 to {rows_max}, or 0 for {PAGE_ROWS_DEFAULT}"),
        )),
    }
}

/// Returns the fingerprint of `request`, and the decoded `token` unless it is empty. The caller clears the page fields
/// of `request` first.
pub(super) fn resume(
    token: &str,
    method: &str,
    request: &impl Message,
) -> Result<(Fingerprint, Option<PageToken>), QueryError> {
    resume_with(token, Fingerprint::of(method, request))
}

/// Like [`resume`], for a list that chooses its series if the request names no source. The token of such a request is
/// valid only as long as the settings of the sources, which decide the choice, do not change.
pub(super) fn resume_chosen(
    token: &str,
    method: &str,
    request: &impl Message,
    (named, sources): (Option<&Source>, &SourceTable),
) -> Result<(Fingerprint, Option<PageToken>), QueryError> {
    let fingerprint = Fingerprint::of(method, request);
    resume_with(token, if named.is_some() { fingerprint } else { fingerprint.with_settings(sources) })
}

fn resume_with(token: &str, fingerprint: Fingerprint) -> Result<(Fingerprint, Option<PageToken>), QueryError> {
    Ok((fingerprint, PageToken::decode(token, fingerprint)?))
}

/// Converts the field `descending` of a list.
pub(super) const fn order(descending: bool) -> ScanOrder {
    if descending { ScanOrder::Descending } else { ScanOrder::Ascending }
}

pub(super) fn runs(
    mut request: v1::ListRunsRequest,
    served: &CurrencySet,
    sources: &SourceTable,
) -> Result<Paged<RunsRequest>, QueryError> {
    let limit = page_rows(std::mem::take(&mut request.page_size), PAGE_ROWS_MAX)?;
    let token = std::mem::take(&mut request.page_token);
    let mut parsed = RunsRequest {
        pair: pair("pair", &request.pair, served)?,
        source: source("source", &request.source)?,
        range: moment_range((request.start_time, &request.start_date), (request.end_time, &request.end_date))?,
        zone: request_zone(&request.time_zone)?,
        order: order(request.descending),
        include_baseline: request.include_baseline,
        known_time: as_of("known_time", request.known_time)?,
        after: None,
        limit,
    };
    let (fingerprint, token) = resume_chosen(&token, "ListRuns", &request, (parsed.source.as_ref(), sources))?;
    if let Some(PageToken { known_time, cursor: Cursor::Run(after) }) = token {
        parsed.known_time = Some(known_time);
        parsed.after = Some(after);
        // The baseline is separate from the rows, and the first page contains it.
        parsed.include_baseline = false;
    }
    Ok(Paged { request: parsed, fingerprint })
}

pub(super) fn stream(request: &v1::StreamRunsRequest, served: &CurrencySet) -> Result<StreamRequest, QueryError> {
    Ok(StreamRequest {
        pair: pair("pair", &request.pair, served)?,
        source: source("source", &request.source)?,
        range: moment_range((request.start_time, &request.start_date), (request.end_time, &request.end_date))?,
        zone: request_zone(&request.time_zone)?,
        known_time: as_of("known_time", request.known_time)?,
    })
}

pub(super) fn revisions(
    mut request: v1::ListRevisionsRequest,
    served: &CurrencySet,
    sources: &SourceTable,
) -> Result<Paged<RevisionsRequest>, QueryError> {
    let limit = page_rows(std::mem::take(&mut request.page_size), PAGE_ROWS_MAX)?;
    let token = std::mem::take(&mut request.page_token);
    let mut parsed = RevisionsRequest {
        pair: pair("pair", &request.pair, served)?,
        source: source("source", &request.source)?,
        range: range(request.start_time, request.end_time)?,
        known_time: as_of("known_time", request.known_time)?,
        order: order(request.descending),
        after: None,
        limit,
    };
    let (fingerprint, token) = resume_chosen(&token, "ListRevisions", &request, (parsed.source.as_ref(), sources))?;
    if let Some(PageToken { known_time, cursor: Cursor::Revision(after) }) = token {
        parsed.known_time = Some(known_time);
        parsed.after = Some(after);
    }
    Ok(Paged { request: parsed, fingerprint })
}

/// Continues a list of buckets after the position of its token.
fn resume_buckets(list: &mut BucketsRequest, token: Option<PageToken>) {
    if let Some(PageToken { known_time, cursor: Cursor::Bucket(after) }) = token {
        list.known_time = Some(known_time);
        list.after = Some(after);
    }
}

fn period(request: &v1::ListChangesRequest) -> Result<Period, QueryError> {
    Ok(match request.period() {
        v1::ChangePeriod::DayOnDay => Period::DayOnDay,
        v1::ChangePeriod::WeekOnWeek => Period::WeekOnWeek,
        v1::ChangePeriod::MonthOnMonth => Period::MonthOnMonth,
        v1::ChangePeriod::YearOnYear => Period::YearOnYear,
        v1::ChangePeriod::YearToDate => Period::YearToDate,
        v1::ChangePeriod::Unspecified => {
            let problem = format!(
                "{} is not a period; name one from CHANGE_PERIOD_DAY_ON_DAY to CHANGE_PERIOD_YEAR_TO_DATE",
                request.period
            );
            return Err(QueryError::invalid("period", problem));
        }
    })
}

pub(super) fn changes(
    mut request: v1::ListChangesRequest,
    served: &CurrencySet,
    sources: &SourceTable,
) -> Result<Paged<ChangesRequest>, QueryError> {
    let limit = page_rows(std::mem::take(&mut request.page_size), CHANGES_PAGE_ROWS_MAX)?;
    let token = std::mem::take(&mut request.page_token);
    let mut list = BucketsRequest {
        pair: pair("pair", &request.pair, served)?,
        source: source("source", &request.source)?,
        leg_sources: leg_sources(&request.leg_sources)?,
        range: moment_range((request.start_time, &request.start_date), (request.end_time, &request.end_date))?,
        zone: request_zone(&request.time_zone)?,
        known_time: as_of("known_time", request.known_time)?,
        order: order(request.descending),
        after: None,
        limit,
    };
    let period = period(&request)?;
    let (fingerprint, token) = resume_chosen(&token, "ListChanges", &request, (list.source.as_ref(), sources))?;
    resume_buckets(&mut list, token);
    Ok(Paged { request: ChangesRequest { list, period }, fingerprint })
}

/// Converts the number of a `CandleInterval`.
pub(super) fn interval(number: i32) -> Result<Interval, QueryError> {
    candle_interval(number).ok_or_else(|| {
        let problem =
            format!("{number} is not an interval; name one from CANDLE_INTERVAL_MINUTE to CANDLE_INTERVAL_MONTH");
        QueryError::invalid("interval", problem)
    })
}

pub(super) fn candles(
    mut request: v1::ListCandlesRequest,
    served: &CurrencySet,
    sources: &SourceTable,
) -> Result<Paged<CandlesRequest>, QueryError> {
    let limit = page_rows(std::mem::take(&mut request.page_size), PAGE_ROWS_MAX)?;
    let token = std::mem::take(&mut request.page_token);
    let mut list = BucketsRequest {
        pair: pair("pair", &request.pair, served)?,
        source: source("source", &request.source)?,
        leg_sources: leg_sources(&request.leg_sources)?,
        range: moment_range((request.start_time, &request.start_date), (request.end_time, &request.end_date))?,
        zone: request_zone(&request.time_zone)?,
        known_time: as_of("known_time", request.known_time)?,
        order: order(request.descending),
        after: None,
        limit,
    };
    let interval = interval(request.interval)?;
    let (fingerprint, token) = resume_chosen(&token, "ListCandles", &request, (list.source.as_ref(), sources))?;
    resume_buckets(&mut list, token);
    let (fill, count_observations) = (request.fill_empty, request.count_observations);
    Ok(Paged { request: CandlesRequest { list, interval, fill, count_observations, find_bounds: true }, fingerprint })
}

#[cfg(test)]
mod tests {
    use prost_types::{Duration, Timestamp as ProtoTimestamp};

    use super::*;

    fn served() -> CurrencySet {
        CurrencySet::central_asia()
    }

    fn second(seconds: i64) -> ProtoTimestamp {
        ProtoTimestamp { seconds, nanos: 0 }
    }

    fn error_text<T>(result: Result<T, QueryError>) -> String {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[track_caller]
    fn check_error<T>(result: Result<T, QueryError>, expect: &str) {
        let error = error_text(result);
        assert!(error.starts_with(expect) && error.is_empty() == expect.is_empty(), "{error}");
    }

    #[test]
    fn rate_request_names_the_invalid_field() {
        let check = |edit: fn(&mut v1::GetRateRequest), expect: &str| {
            let mut request = v1::GetRateRequest { pair: "KGS/USD".to_owned(), ..v1::GetRateRequest::default() };
            edit(&mut request);
            check_error(rate(&request, &served()), expect);
        };
        check(|_| (), "");
        check(|r| r.pair.clear(), "pair: pair ''");
        check(|r| r.pair = "EUR/USD".to_owned(), "pair: pair 'EUR/USD': currency 'EUR' is not served here");
        check(|r| r.source = "NBKR".to_owned(), "source: source 'NBKR' is not a slug");
        check(|r| r.leg_sources = vec!["a".to_owned(), String::new()], "leg_sources[1]: source ''");
        check(|r| r.leg_sources = vec!["a".to_owned(); 3], "leg_sources: has 3 entries");
        check(|r| r.time = Some(ProtoTimestamp { seconds: 0, nanos: -1 }), "time: ");
        check(|r| r.max_age = Some(Duration { seconds: -1, nanos: 0 }), "max_age: is negative: -1 s and 0 ns");
        check(|r| r.known_time = Some(second(i64::MAX)), "known_time: ");
    }

    #[test]
    fn change_request_has_either_a_start_or_a_window() {
        let check = |edit: fn(&mut v1::GetChangeRequest), expect: &str| {
            let mut request = v1::GetChangeRequest {
                pair: "KGS/USD".to_owned(),
                start_time: Some(second(5)),
                ..v1::GetChangeRequest::default()
            };
            edit(&mut request);
            check_error(change(&request, &served()), expect);
        };
        let day = v1::Window { count: 1, unit: v1::WindowUnit::Day.into() };
        assert!(
            change(
                &v1::GetChangeRequest { pair: "KGS/USD".to_owned(), window: Some(day), ..Default::default() },
                &served()
            )
            .is_ok()
        );
        check(|_| (), "");
        check(|r| r.start_time = None, "start_time: is missing");
        check(|r| r.window = Some(v1::Window::default()), "window: is given together with start_time");
        check(
            |r| (r.start_time, r.window) = (None, Some(v1::Window { count: 1, unit: 0 })),
            "window.unit: 0 is not a unit",
        );
        check(
            |r| (r.start_time, r.window) = (None, Some(v1::Window { count: 1, unit: 9 })),
            "window.unit: 9 is not a unit",
        );
        assert_eq!(decimal_places(None).unwrap(), 6);
        assert_eq!(decimal_places(Some(12)).unwrap(), 12);
        check_error(decimal_places(Some(13)), "decimal_places: is 13; percentages have at most 12");
    }

    #[test]
    fn page_size_is_limited_and_not_negative() {
        let check =
            |page_size: i32, expect: Option<usize>| assert_eq!(page_rows(page_size, PAGE_ROWS_MAX).ok(), expect);
        check(0, Some(1_000));
        check(1, Some(1));
        check(10_000, Some(10_000));
        check(10_001, Some(10_000));
        check(i32::MAX, Some(10_000));
        check(-1, None);
    }

    #[test]
    fn later_page_reads_the_commit_of_the_first_page_without_the_baseline() {
        let request = v1::ListRunsRequest {
            pair: "KGS/USD".to_owned(),
            start_time: Some(second(1)),
            end_time: Some(second(9)),
            include_baseline: true,
            ..v1::ListRunsRequest::default()
        };
        let first = runs(request.clone(), &served(), &SourceTable::default()).unwrap();
        assert!(first.request.include_baseline && first.request.known_time.is_none());
        let at = Timestamp::from_micros;
        let token = PageToken { known_time: at(77), cursor: Cursor::Run(at(5_000_000)) }.encode(first.fingerprint);

        let next = v1::ListRunsRequest { page_token: token.clone(), page_size: 7, ..request.clone() };
        let next = runs(next, &served(), &SourceTable::default()).unwrap().request;
        assert_eq!((next.known_time, next.after, next.limit), (Some(at(77)), Some(at(5_000_000)), 7));
        assert!(!next.include_baseline);

        let other = v1::ListRunsRequest { page_token: token.clone(), descending: true, ..request };
        check_error(runs(other, &served(), &SourceTable::default()), "page_token: belongs to another request");
        let revisions_of = v1::ListRevisionsRequest {
            pair: "KGS/USD".to_owned(),
            page_token: token,
            ..v1::ListRevisionsRequest::default()
        };
        check_error(
            revisions(revisions_of, &served(), &SourceTable::default()),
            "page_token: belongs to another request",
        );
    }

    #[test]
    fn inverted_range_and_long_filter_are_refused() {
        let inverted = v1::StreamRunsRequest {
            pair: "KGS/USD".to_owned(),
            start_time: Some(second(9)),
            end_time: Some(second(8)),
            ..v1::StreamRunsRequest::default()
        };
        check_error(stream(&inverted, &served()), "end_time: 1970-01-01T00:00:08Z is before start_time");
        let many = vec!["KGS/USD".to_owned(); FILTER_ENTRIES_MAX + 1];
        check_error(filter(&many, &[], &served()), "pairs: has 101 entries; give at most 100");
        check_error(filter(&many[1..], &[], &served()), "");
        check_error(filter(&[], &["a".to_owned(), "B".to_owned()], &served()), "sources[1]: source 'B'");
    }
}
