//! Which days of a bank the server has.
//!
//! **Invariant**: a day is called known only if it must be: one too few costs a fetch, one too many would leave a gap.

use std::collections::BTreeSet;

use chrono::NaiveDate;

use crate::analysis::Zone;
use crate::cli::client::Client;
use crate::cli::{CliError, to_wire};
use crate::domain::Timestamp;
use crate::feed::BankFeed;
use crate::proto::v1::{ListRunsRequest, Run};

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
        start_time: Some(to_wire(zone.day_start(from))),
        end_time: to.succ_opt().map(|end| to_wire(zone.day_start(end))),
        // The run that was in force already may hold days of the range.
        include_baseline: true,
        page_size: PAGE_RUNS_MAX,
        ..ListRunsRequest::default()
    };
    let mut days = BTreeSet::new();
    loop {
        let page = match client.answer(client.rates().list_runs(client.request(request.clone()))).await {
            Ok(page) => page,
            Err(error) if error.is_not_found() => break,
            Err(error) => return Err(error),
        };
        for run in page.runs.iter().chain(&page.baseline) {
            add(&mut days, run, zone);
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(days.range(from..=to).copied().collect())
}

/// The days that a run must hold: those of its ends, and all of them if it has as many observations as days.
fn add(days: &mut BTreeSet<NaiveDate>, run: &Run, zone: Zone) {
    let day = |time: Option<&prost_types::Timestamp>| {
        let time = Timestamp::from_parts_exact(time?.seconds, time?.nanos).ok()?;
        let day = zone.local(time).date();
        // Something else than a table of that day, if it is not at its start.
        (zone.day_start(day) == time).then_some(day)
    };
    let (first, last) = (day(run.first_observed_time.as_ref()), day(run.last_observed_time.as_ref()));
    days.extend(first.iter().chain(&last));
    let (Some(first), Some(last)) = (first, last) else { return };
    if u64::try_from((last - first).num_days() + 1).ok() == Some(run.observation_count) {
        days.extend(first.iter_days().take_while(|day| *day <= last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_holds_its_ends_and_all_days_if_it_has_as_many() {
        let check = |first: &str, last: &str, observation_count: u64, expect: &[&str]| {
            let time = |text: &str| Some(to_wire(Timestamp::parse(text).unwrap()));
            let run = Run {
                first_observed_time: time(first),
                last_observed_time: time(last),
                observation_count,
                ..Run::default()
            };
            let mut days = BTreeSet::new();
            add(&mut days, &run, Zone::TASHKENT);
            assert_eq!(days.iter().map(ToString::to_string).collect::<Vec<_>>(), expect, "{first} to {last}");
        };
        check("2026-03-31T19:00:00Z", "2026-03-31T19:00:00Z", 1, &["2026-04-01"]);
        check("2026-03-31T19:00:00Z", "2026-04-02T19:00:00Z", 3, &["2026-04-01", "2026-04-02", "2026-04-03"]);
        check("2026-03-31T19:00:00Z", "2026-04-02T19:00:00Z", 2, &["2026-04-01", "2026-04-03"]);
        check("2026-03-31T19:00:01Z", "2026-04-01T19:00:00Z", 2, &["2026-04-02"]);
        check("2026-03-31T12:00:00Z", "2026-04-02T12:00:00Z", 3, &[]);
    }
}
