//! The call `CompareSources`: validates the request and builds the response.
//!
//! **Invariant**: a request that this module returns is valid. This module does not check whether the sources have the
//! pair.

use super::convert::{as_of, each, pair};
use super::error::ServiceError;
use super::moments::{moment_range, request_zone};
use super::page_token::{Cursor, Fingerprint, PageToken};
use super::rate_request::{CHANGES_PAGE_ROWS_MAX, Paged, decimal_places, order, page_rows, resume};
use super::rate_response::{missing, next_token, rate};
use super::rates::{Rates, ReadTask};
use crate::analysis::{Apart, ApartStretch, Bucket, ComparisonSummary, PercentChange, Rounded, Sides};
use crate::domain::{CurrencySet, Source};
use crate::proto::convert::timestamp;
use crate::proto::v1;
use crate::query::{
    Answer, COMPARED_DAYS_MAX, ComparePage, CompareRequest, ComparedDay, ComparedDays, QueryError, Reader,
};
use crate::store::Commit;

/// The number of sources of a comparison.
const COMPARED_SOURCES: usize = 2;

impl Rates {
    /// Validates the request and returns the task that compares two sources and reads a page of days.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid.
    pub fn compare_sources(
        &self,
        request: v1::CompareSourcesRequest,
    ) -> Result<impl ReadTask<v1::CompareSourcesResponse> + use<>, ServiceError> {
        let decimal_places = decimal_places(request.decimal_places)?;
        let Paged { request, fingerprint } = compare_request(request, self.currencies())?;
        Ok(move |reader: &Reader| Ok(response(&reader.compare(&request)?, decimal_places, fingerprint)))
    }
}

fn sources(texts: &[String]) -> Result<Sides<Source>, QueryError> {
    let found = each("sources", texts, COMPARED_SOURCES, |field, text| {
        Source::parse(text).map_err(|problem| QueryError::invalid(field, problem.to_string()))
    })?;
    let sides: Sides<Source> = found.try_into().map_err(|found: Vec<Source>| {
        let problem = format!("has {} of the two sources to compare; name both", found.len());
        QueryError::invalid("sources", problem)
    })?;
    if sides[0] == sides[1] {
        return Err(QueryError::invalid("sources", format!("has '{}' twice; name two different sources", sides[0])));
    }
    Ok(sides)
}

fn days(request: &v1::CompareSourcesRequest) -> Result<ComparedDays, QueryError> {
    let range = moment_range((request.start_time, &request.start_date), (request.end_time, &request.end_date))?;
    match request.last_days {
        None => Ok(ComparedDays::Within(range)),
        Some(_) if range.start.is_some() => {
            Err(QueryError::invalid("last_days", "is given together with start_time; give one of them"))
        }
        Some(count @ 1..=COMPARED_DAYS_MAX) => Ok(ComparedDays::Last { count, before: range.end }),
        Some(count) => Err(QueryError::invalid("last_days", format!("is {count}; give 1 to {COMPARED_DAYS_MAX}"))),
    }
}

fn compare_request(
    mut request: v1::CompareSourcesRequest,
    served: &CurrencySet,
) -> Result<Paged<CompareRequest>, QueryError> {
    let limit = page_rows(std::mem::take(&mut request.page_size), CHANGES_PAGE_ROWS_MAX)?;
    let token = std::mem::take(&mut request.page_token);
    let mut parsed = CompareRequest {
        pair: pair("pair", &request.pair, served)?,
        sources: sources(&request.sources)?,
        days: days(&request)?,
        zone: request_zone(&request.time_zone)?,
        known_time: as_of("known_time", request.known_time)?,
        order: order(request.descending),
        after: None,
        limit,
    };
    let (fingerprint, token) = resume(&token, "CompareSources", &request)?;
    if let Some(PageToken { known_time, cursor: Cursor::Bucket(after) }) = token {
        parsed.known_time = Some(known_time);
        parsed.after = Some(after);
    }
    Ok(Paged { request: parsed, fingerprint })
}

fn day(commit: Commit, row: &ComparedDay, decimal_places: u32) -> v1::ComparedDay {
    let [first, second] = row.rates.each_ref().map(Option::as_ref);
    let difference = row.difference.as_ref();
    let apart = difference.and_then(|difference| difference.apart);
    let percent = |pick: fn(&PercentChange, u32) -> Rounded| {
        difference.map(|difference| pick(&difference.percent, decimal_places).to_string())
    };
    let [first_lag_days, second_lag_days] = apart.map_or([None; 2], |apart: Apart| apart.lag_days);
    v1::ComparedDay {
        period_start_time: Some(timestamp(row.day.start)),
        period_end_time: Some(timestamp(row.day.end)),
        complete: row.complete,
        first: first.map(|first| rate(commit, first)),
        second: second.map(|second| rate(commit, second)),
        first_missing_reason: missing(first),
        second_missing_reason: missing(second),
        absolute_difference: difference.map(|difference| difference.absolute.to_string()),
        percent_difference: percent(PercentChange::value),
        percent_difference_low: percent(PercentChange::low),
        percent_difference_high: percent(PercentChange::high),
        overlap: difference.map(|difference| difference.apart.is_none()),
        stretch_begins: apart.is_some_and(|apart| apart.begins),
        stretch_ends: apart.is_some_and(|apart| apart.ends),
        first_lag_days,
        second_lag_days,
    }
}

fn stretch(stretch: ApartStretch) -> v1::ApartStretch {
    v1::ApartStretch {
        start_time: Some(timestamp(stretch.start)),
        end_time: Some(timestamp(stretch.end)),
        day_count: stretch.day_count,
        began_earlier: stretch.began_earlier,
        goes_on: stretch.goes_on,
    }
}

fn summary(summary: &ComparisonSummary, decimal_places: u32) -> v1::ComparisonSummary {
    let largest = summary.largest.as_ref();
    let percent = |pick: fn(&PercentChange, u32) -> Rounded| {
        largest.map(|(_, percent)| pick(percent, decimal_places).to_string())
    };
    let [first_lag_day_count, second_lag_day_count] = summary.lag_day_counts;
    v1::ComparisonSummary {
        compared_day_count: summary.compared_day_count,
        apart_day_count: summary.apart_day_count,
        first_lag_day_count,
        second_lag_day_count,
        longest_stretch: summary.longest.map(stretch),
        last_stretch: summary.last.map(stretch),
        largest_percent_difference: percent(PercentChange::value),
        largest_percent_difference_low: percent(PercentChange::low),
        largest_percent_difference_high: percent(PercentChange::high),
        largest_difference_time: largest.map(|(Bucket { start, .. }, _)| timestamp(*start)),
    }
}

fn response(answer: &Answer<ComparePage>, decimal_places: u32, fingerprint: Fingerprint) -> v1::CompareSourcesResponse {
    let Answer { commit, body: page } = answer;
    v1::CompareSourcesResponse {
        days: page.rows.iter().map(|row| day(*commit, row, decimal_places)).collect(),
        summary: page.summary.as_ref().map(|all_days| summary(all_days, decimal_places)),
        next_page_token: next_token(*commit, page.next.map(Cursor::Bucket), fingerprint),
        sequence: commit.sequence,
        recorded_time: Some(timestamp(commit.recorded_time)),
        time_zone: page.zone.to_string(),
    }
}
