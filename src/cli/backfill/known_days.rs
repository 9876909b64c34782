//! Finds the days of a bank that the server already has.
//!
//! **Invariant**: a day counts as known only if the server certainly has it. A stored day that counts as unknown is
//! fetched once more. A missing day that counted as known would leave a gap.

use std::collections::BTreeSet;

use chrono::NaiveDate;

use crate::analysis::Zone;
use crate::cli::CliError;
use crate::cli::client::Client;
use crate::domain::Timestamp;
use crate::feed::BankFeed;
use crate::proto::convert::{duration, timestamp};
use crate::proto::v1::{Gap, ListGapsRequest, ListRunsRequest, Run};

/// Number of runs per page.
const PAGE_RUNS_MAX: i32 = 5_000;

/// Returns, in order, the days for which the server has the rate of the dollar. The range includes `from` and `to`. The
/// dollar stands for the whole table, because a table is sent in one request.
///
/// # Errors
/// Returns any error of the server except `NotFound`. If the series does not exist, no day is known.
pub(super) async fn known_days(
    client: &Client,
    feed: BankFeed,
    from: NaiveDate,
    to: NaiveDate,
) -> Result<Vec<NaiveDate>, CliError> {
    let zone = feed.zone();
    let mut request = ListRunsRequest {
        pair: format!("USD/{}", feed.home()),
        source: feed.source_name().to_owned(),
        start_time: Some(timestamp(zone.day_start(from))),
        end_time: to.succ_opt().map(|end| timestamp(zone.day_start(end))),
        // The run in force at the start of the range may contain days of the range.
        include_baseline: true,
        page_size: PAGE_RUNS_MAX,
        ..ListRunsRequest::default()
    };
    let mut runs = Vec::new();
    loop {
        let page = match client.answer(client.rates().list_runs(client.request(request.clone()))).await {
            Ok(page) => page,
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        runs.extend(page.runs.into_iter().chain(page.baseline));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    // The gaps are requested after the runs. Ticks that arrive between the two requests can only close gaps. At worst,
    // a day is then fetched again although the server has it. The first run may begin long before the range, so the
    // gaps are requested from the start of that run.
    let begin = runs.iter().filter_map(|run| time(run.first_observed_time.as_ref())).min();
    let gaps = gaps(client, ListRunsRequest { start_time: begin.map(timestamp), ..request }).await?;
    let mut days = BTreeSet::new();
    for run in &runs {
        add(&mut days, run, &gaps, zone);
    }
    Ok(days.range(from..=to).copied().collect())
}

/// Returns the gaps of more than a day, for the series and the range of the request `runs`.
async fn gaps(client: &Client, runs: ListRunsRequest) -> Result<Vec<Span>, CliError> {
    let mut request = ListGapsRequest {
        pair: runs.pair,
        source: runs.source,
        start_time: runs.start_time,
        end_time: runs.end_time,
        // Tables of consecutive days are at most a day apart, except when clocks are set back.
        minimum_length: Some(duration(Timestamp::DAY_US)),
        ..ListGapsRequest::default()
    };
    let mut gaps = Vec::new();
    loop {
        let page = client.answer(client.rates().list_gaps(client.request(request.clone()))).await?;
        gaps.extend(page.gaps.iter().filter_map(span));
        if page.next_page_token.is_empty() {
            return Ok(gaps);
        }
        request.page_token = page.next_page_token;
    }
}

/// The two observations around a gap.
type Span = (Timestamp, Timestamp);

fn span(gap: &Gap) -> Option<Span> {
    Some((time(gap.start_time.as_ref())?, time(gap.end_time.as_ref())?))
}

fn time(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    Timestamp::try_from(time?).ok()
}

/// Adds the days that a run certainly contains. A run contains the days of its first and last observation. For the
/// other days, the function counts all days from the first to the last that do not start in a gap. It adds these days
/// only if the count equals the observation count of the run. The two counts are equal only if the run has one
/// observation at the start of each counted day, and no other observation. Observations at other times of day make the
/// observation count larger.
fn add(days: &mut BTreeSet<NaiveDate>, run: &Run, gaps: &[Span], zone: Zone) {
    let day = |at: Option<&prost_types::Timestamp>| {
        let at = time(at)?;
        let day = zone.local(at).date();
        // A table is observed at the start of its day; an observation at another time is not from a table.
        (zone.day_start(day) == at).then_some(day)
    };
    let (first, last) = (day(run.first_observed_time.as_ref()), day(run.last_observed_time.as_ref()));
    days.extend(first.iter().chain(&last));
    let (Some(first), Some(last)) = (first, last) else { return };
    let is_in_gap = |day: &NaiveDate| {
        let start = zone.day_start(*day);
        // Gaps are sorted and do not overlap.
        let at = gaps.partition_point(|(_, end)| *end <= start);
        gaps.get(at).is_some_and(|(begin, _)| *begin < start)
    };
    let observed: Vec<NaiveDate> =
        first.iter_days().take_while(|day| *day <= last).filter(|day| !is_in_gap(day)).collect();
    if u64::try_from(observed.len()).ok() == Some(run.observation_count) {
        days.extend(observed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_contains_days_outside_gaps_if_day_count_equals_observation_count() {
        let check = |first: &str, last: &str, observation_count: u64, gaps: &[(&str, &str)], expect: &[&str]| {
            let time = |text: &str| Timestamp::parse(text).unwrap();
            let run = Run {
                first_observed_time: Some(timestamp(time(first))),
                last_observed_time: Some(timestamp(time(last))),
                observation_count,
                ..Run::default()
            };
            let gaps: Vec<Span> = gaps.iter().map(|(start, end)| (time(start), time(end))).collect();
            let mut days = BTreeSet::new();
            add(&mut days, &run, &gaps, Zone::TASHKENT);
            assert_eq!(days.iter().map(ToString::to_string).collect::<Vec<_>>(), expect, "{first} to {last}");
        };
        check("2026-03-31T19:00:00Z", "2026-03-31T19:00:00Z", 1, &[], &["2026-04-01"]);
        check("2026-03-31T19:00:00Z", "2026-04-02T19:00:00Z", 3, &[], &["2026-04-01", "2026-04-02", "2026-04-03"]);
        check("2026-03-31T19:00:00Z", "2026-04-02T19:00:00Z", 2, &[], &["2026-04-01", "2026-04-03"]);
        check("2026-03-31T19:00:01Z", "2026-04-01T19:00:00Z", 2, &[], &["2026-04-02"]);
        check("2026-03-31T12:00:00Z", "2026-04-02T12:00:00Z", 3, &[], &[]);
        // A run of a pegged rate with a Sunday without a table, and gaps of other runs.
        let sunday = ("2026-04-03T19:00:00Z", "2026-04-05T19:00:00Z");
        let others = [("2026-03-01T19:00:00Z", "2026-04-02T19:00:00Z"), sunday];
        let expect = ["2026-04-03", "2026-04-04", "2026-04-06"];
        check("2026-04-02T19:00:00Z", "2026-04-05T19:00:00Z", 3, &others, &expect);
        check("2026-04-02T19:00:00Z", "2026-04-05T19:00:00Z", 3, &[], &["2026-04-03", "2026-04-06"]);
        // Three observations in three days, but one is at noon, so the start of the next day is missing.
        let noon = [("2026-04-01T07:00:00Z", "2026-04-02T19:00:00Z")];
        check("2026-03-31T19:00:00Z", "2026-04-02T19:00:00Z", 3, &noon, &["2026-04-01", "2026-04-03"]);
    }
}
