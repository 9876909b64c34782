//! Which days of a bank the server has.
//!
//! **Invariant**: a day is called known only if it must be: one too few costs a fetch, one too many would leave a gap.

use std::collections::BTreeSet;

use chrono::NaiveDate;

use crate::analysis::Zone;
use crate::cli::CliError;
use crate::cli::client::Client;
use crate::domain::Timestamp;
use crate::feed::BankFeed;
use crate::proto::convert::{duration, timestamp};
use crate::proto::v1::{Gap, ListGapsRequest, ListRunsRequest, Run};

/// Runs asked for at a time.
const PAGE_RUNS_MAX: i32 = 5_000;
/// Days from `from` to `to` of which the server has the dollar, in order: a table is sent whole.
///
/// # Errors
/// Whatever the server answers, but that it has no such series.
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
        // The run that was in force already may hold days of the range.
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
    // Asked for after the runs: what came in between ends gaps and makes none. The first run may have begun long before
    // the range.
    let begin = runs.iter().filter_map(|run| time(run.first_observed_time.as_ref())).min();
    let gaps = gaps(client, ListRunsRequest { start_time: begin.map(timestamp), ..request }).await?;
    let mut days = BTreeSet::new();
    for run in &runs {
        add(&mut days, run, &gaps, zone);
    }
    Ok(days.range(from..=to).copied().collect())
}

/// Where the series of `runs` was not observed for longer than a day, in the same range.
async fn gaps(client: &Client, runs: ListRunsRequest) -> Result<Vec<Span>, CliError> {
    let mut request = ListGapsRequest {
        pair: runs.pair,
        source: runs.source,
        start_time: runs.start_time,
        end_time: runs.end_time,
        // From one table to that of the next day it is no longer, but for a day on which clocks are put back.
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

/// Two neighbouring observations.
type Span = (Timestamp, Timestamp);

fn span(gap: &Gap) -> Option<Span> {
    Some((time(gap.start_time.as_ref())?, time(gap.end_time.as_ref())?))
}

fn time(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    Timestamp::try_from(time?).ok()
}

/// The days that a run must hold: those of its ends, and all that begin outside of gaps if it has as many observations
/// as these. An observation at another time of day is one too many: without the one at the start of a day, it takes
/// one more than there are such days to leave no gap.
fn add(days: &mut BTreeSet<NaiveDate>, run: &Run, gaps: &[Span], zone: Zone) {
    let day = |at: Option<&prost_types::Timestamp>| {
        let at = time(at)?;
        let day = zone.local(at).date();
        // Something else than a table of that day, if it is not at its start.
        (zone.day_start(day) == at).then_some(day)
    };
    let (first, last) = (day(run.first_observed_time.as_ref()), day(run.last_observed_time.as_ref()));
    days.extend(first.iter().chain(&last));
    let (Some(first), Some(last)) = (first, last) else { return };
    let is_missed = |day: &NaiveDate| {
        let start = zone.day_start(*day);
        // In order of time and end to end at most.
        let at = gaps.partition_point(|(_, end)| *end <= start);
        gaps.get(at).is_some_and(|(begin, _)| *begin < start)
    };
    let held: Vec<NaiveDate> = first.iter_days().take_while(|day| *day <= last).filter(|day| !is_missed(day)).collect();
    if u64::try_from(held.len()).ok() == Some(run.observation_count) {
        days.extend(held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_holds_its_ends_and_all_days_outside_of_gaps_if_it_has_as_many() {
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
        // A Sunday without a table in a run of a pegged rate, and gaps of other runs.
        let sunday = ("2026-04-03T19:00:00Z", "2026-04-05T19:00:00Z");
        let others = [("2026-03-01T19:00:00Z", "2026-04-02T19:00:00Z"), sunday];
        let expect = ["2026-04-03", "2026-04-04", "2026-04-06"];
        check("2026-04-02T19:00:00Z", "2026-04-05T19:00:00Z", 3, &others, &expect);
        check("2026-04-02T19:00:00Z", "2026-04-05T19:00:00Z", 3, &[], &["2026-04-03", "2026-04-06"]);
        // As many observations as days, one of which is at noon: the day after it is missing.
        let noon = [("2026-04-01T07:00:00Z", "2026-04-02T19:00:00Z")];
        check("2026-03-31T19:00:00Z", "2026-04-02T19:00:00Z", 3, &noon, &["2026-04-01", "2026-04-03"]);
    }
}
