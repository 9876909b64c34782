//! The `history` command: the runs of a series.

use std::io::Write as _;

use clap::Args;

use super::client::Client;
use super::error::Problem;
use super::output::{Column, Format, write_csv_header};
use super::pages::{OrderArgs, Page, is_narrow, list, note_rest};
use super::run_csv::RunCsv;
use super::runs::{REPORTED_TITLE, reported};
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, KnownArgs, Outcome, PairArgs, Session, ZoneArgs, legs, stdout};
use crate::columns::decode_runs;
use crate::proto::v1::{Leg, ListRunsRequest, Run, StreamRunsRequest};

/// The maximum number of runs per page. A page is under one megabyte.
const PAGE_RUNS_MAX: u64 = 5_000;

const BASELINE_TITLE: &str = "baseline";
const COUNT_TITLE: &str = "observations";
/// The titles of the columns that a narrow table omits.
const WIDE_TITLES: [&str; 2] = [REPORTED_TITLE, COUNT_TITLE];

const EXAMPLES: &str = "\
Examples:
  silkrate history KGS/USD
  silkrate history KGS/USD --from -1mo --baseline
  silkrate history KGS/USD --desc --limit 10
  silkrate history KGS/USD --from 2025-01-01 --to 2026-01-01 --output csv > kgs.csv

Each row is a run: consecutive ticks with the same published value. The range
includes runs first observed at --from and excludes runs first observed at --to.";

/// Arguments of `history`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct HistoryArgs {
    #[command(flatten)]
    series: PairArgs,
    /// Show only runs first observed at this time or later
    #[arg(long, alias = "start-time", value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArgument>,
    /// Show only runs first observed before this time
    #[arg(long, alias = "end-time", value_name = "TIME", allow_hyphen_values = true)]
    to: Option<TimeArgument>,
    /// Maximum number of rows; default 50 in a table, unlimited in json and csv
    #[arg(long, alias = "page-size", value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    order: OrderArgs,
    /// Also show the run in force at --from, before the other rows
    #[arg(long, alias = "include-baseline", requires = "from")]
    baseline: bool,
    #[command(flatten)]
    zone: ZoneArgs,
    #[command(flatten)]
    known: KnownArgs,
}

/// A row: a run of the range, or the baseline before it.
struct Row {
    run: Run,
    is_baseline: bool,
    leg: Leg,
}

const COLUMNS: &[Column<Row>] = &[
    Column::new("pair", "pair", |row| Value::text(&row.run.pair)),
    Column::new("source", "source", |row| Value::text(&row.run.source)),
    Column::new("rate", "rate", |row| Value::decimal(&row.run.rate)),
    Column::new("reported_change_percent", REPORTED_TITLE, |row| reported(&row.run)),
    Column::new("first_observed_time", "first observed", |row| Value::time(row.run.first_observed_time.as_ref())),
    Column::new("last_observed_time", "last observed", |row| Value::time(row.run.last_observed_time.as_ref())),
    Column::new("observation_count", COUNT_TITLE, |row| Value::Count(row.run.observation_count)),
    Column::data("recorded_time", |row| Value::time(row.run.recorded_time.as_ref())),
    Column::data("stale", |row| Value::Flag(row.leg.stale)),
    Column::data("archived", |row| Value::Flag(row.leg.archived)),
    Column::data("baseline", |row| Value::Flag(row.is_baseline)),
    Column::table(BASELINE_TITLE, |row| Value::Flag(row.is_baseline)),
];

pub(super) async fn run(args: HistoryArgs, session: &Session) -> Result<Outcome, CliError> {
    let selection = args.order.selection(session, args.limit, args.from.is_some());
    let (start_time, start_date) = session.time_or_date(args.from)?;
    let (end_time, end_date) = session.time_or_date(args.to)?;
    let request = ListRunsRequest {
        pair: args.series.pair,
        source: args.series.choice.source,
        strict: args.series.choice.strict,
        start_time,
        end_time,
        start_date,
        end_date,
        time_zone: args.zone.zone,
        descending: selection.descending,
        include_baseline: args.baseline,
        known_time: session.time(args.known.known)?,
        page_size: 0,
        page_token: String::new(),
    };
    let client = session.connect().await?;
    if session.style.format == Format::Csv && selection.is_all_ascending() && !args.baseline {
        return stream_csv(&client, request).await;
    }
    let mut hidden = if is_narrow(session) { WIDE_TITLES.to_vec() } else { Vec::new() };
    if !args.baseline {
        hidden.push(BASELINE_TITLE);
    }
    let mut answered: Option<Leg> = None;
    let fetch = async |page_size, page_token| {
        let request = ListRunsRequest { page_size, page_token, ..request.clone() };
        let page = client.answer(client.rates().list_runs(client.request(request))).await?;
        let leg = page.leg.unwrap_or_default();
        let row = |run| Row { run, is_baseline: false, leg: leg.clone() };
        let lead = page.baseline.map(|run| Row { run, is_baseline: true, leg: leg.clone() });
        answered = Some(leg.clone());
        Ok(Page { lead, ..Page::new(page.runs.into_iter().map(row), page.next_page_token) })
    };
    let listed = list(session, COLUMNS, &hidden, selection, PAGE_RUNS_MAX, fetch).await?;
    legs::warn_of_legs(answered.as_slice());
    note_rest(session, (&listed, selection), args.limit, "runs", "no runs in that range");
    Ok(Outcome::Done)
}

/// Writes all runs as CSV, as they arrive in columns.
async fn stream_csv(client: &Client, request: ListRunsRequest) -> Result<Outcome, CliError> {
    let request = StreamRunsRequest {
        pair: request.pair,
        source: request.source,
        start_time: request.start_time,
        end_time: request.end_time,
        known_time: request.known_time,
        start_date: request.start_date,
        end_date: request.end_date,
        time_zone: request.time_zone,
        strict: request.strict,
    };
    let mut messages = client.with_timeout(client.rates().stream_runs(request)).await?.into_inner();
    let mut out = stdout();
    write_csv_header(&mut out, COLUMNS)?;
    let mut answered: Option<(Leg, RunCsv)> = None;
    let mut text = Vec::new();
    while let Some(message) = client.with_timeout(messages.message()).await? {
        let runs =
            decode_runs(&message).map_err(|_| Problem::Protocol("the columns of a message are not valid runs"))?;
        if answered.is_none() {
            let leg = message.leg.unwrap_or_default();
            let lines = RunCsv::new(&leg)?;
            answered = Some((leg, lines));
        }
        text.clear();
        if let Some((_, lines)) = &mut answered {
            lines.write(&runs, &mut text)?;
        }
        out.write_all(&text)?;
    }
    out.flush()?;
    legs::warn_of_legs(answered.map(|(leg, _)| leg).as_slice());
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::table;

    #[test]
    fn narrow_table_with_baseline_has_a_line_of_titles() {
        let time = Some(prost_types::Timestamp { seconds: 1_763_769_600, nanos: 0 });
        let run = Run {
            pair: "KGS/USD".to_owned(),
            source: "fawazahmed0-mirror".to_owned(),
            rate: "0.01144".to_owned(),
            first_observed_time: time,
            last_observed_time: time,
            observation_count: 123_456,
            ..Run::default()
        };
        let shown = table(COLUMNS, &WIDE_TITLES, 80, &[Row { run, is_baseline: true, leg: Leg::default() }]);
        assert!(shown.starts_with("pair     source                 rate  first observed  last observed"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    }
}
