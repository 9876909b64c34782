//! Canned responses of `CompareSources`.

use silkrate::proto::v1::{
    ApartStretch, CompareSourcesRequest, CompareSourcesResponse, ComparedDay, ComparisonSummary,
};

use super::{day, rate};

/// Returns two pages of one day each: the sources overlap on the first day and are apart on the second.
pub(super) fn response(request: &CompareSourcesRequest) -> CompareSourcesResponse {
    let first = request.page_token.is_empty();
    let rates = if first { ["0.01144", "0.01143"] } else { ["0.01144", "0.01146"] };
    let differences = if first { ["-0.0874", "-0.1748", "0.0001"] } else { ["0.1748", "0.0874", "0.2624"] };
    let text = |at: usize| Some(differences[at].to_owned());
    let compared = ComparedDay {
        period_start_time: day(i64::from(!first)),
        period_end_time: day(1 + i64::from(!first)),
        complete: first,
        first: Some(rate(&request.pair, rates[0])),
        second: Some(rate(&request.pair, rates[1])),
        absolute_difference: Some(if first { "-0.00001" } else { "0.00002" }.to_owned()),
        percent_difference: text(0),
        percent_difference_low: text(1),
        percent_difference_high: text(2),
        overlap: Some(first),
        stretch_begins: !first,
        first_lag_days: (!first).then_some(3),
        ..ComparedDay::default()
    };
    let stretch =
        ApartStretch { start_time: day(1), end_time: day(2), day_count: 1, began_earlier: false, goes_on: true };
    let summary = ComparisonSummary {
        compared_day_count: 2,
        apart_day_count: 1,
        first_lag_day_count: 1,
        longest_stretch: Some(stretch),
        last_stretch: Some(stretch),
        largest_percent_difference: Some("0.1748".to_owned()),
        largest_difference_time: day(1),
        ..ComparisonSummary::default()
    };
    CompareSourcesResponse {
        days: vec![compared],
        summary: first.then_some(summary),
        next_page_token: if first { "2".to_owned() } else { String::new() },
        sequence: 7,
        recorded_time: day(1),
        time_zone: "UTC".to_owned(),
    }
}
