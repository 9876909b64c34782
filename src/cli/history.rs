//! `history`: the runs of a series, row by row as they come.

use clap::Args;

use super::output::Column;
use super::pages::{Page, limit, list_without};
use super::runs::{REPORTED_TITLE, reported};
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, KnownArgs, Outcome, PairArgs, Session, note};
use crate::proto::v1::{ListRunsRequest, Run};

/// Runs asked for at a time: under a megabyte a message.
const PAGE_RUNS_MAX: u64 = 5_000;

const BASELINE_TITLE: &str = "baseline";

const EXAMPLES: &str = "\
Examples:
  silkrate history KGS/USD
  silkrate history KGS/USD --from -1mo --baseline
  silkrate history KGS/USD --desc --limit 10
  silkrate history KGS/USD --from 2025-01-01 --to 2026-01-01 --output csv > kgs.csv

A row is a run: ticks that followed each other with the same published value.
Runs first observed at --from are in, those first observed at --to are not.";

/// Arguments of `history`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct HistoryArgs {
    #[command(flatten)]
    series: PairArgs,
    /// Runs first observed at this time or later
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArgument>,
    /// Runs first observed before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<TimeArgument>,
    /// Most rows; 50 in a table, no limit in JSON and CSV unless given
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Newest first
    #[arg(long)]
    desc: bool,
    /// Also the run in force at --from, ahead of the others
    #[arg(long, requires = "from")]
    baseline: bool,
    #[command(flatten)]
    known: KnownArgs,
}

/// A run of the range, or the one before it.
struct Row {
    run: Run,
    is_baseline: bool,
}

const COLUMNS: &[Column<Row>] = &[
    Column::new("pair", "pair", |row| Value::text(&row.run.pair)),
    Column::new("source", "source", |row| Value::text(&row.run.source)),
    Column::new("rate", "rate", |row| Value::decimal(&row.run.rate)),
    Column::new("reported_change_percent", REPORTED_TITLE, |row| reported(&row.run)),
    Column::new("first_observed_time", "first observed", |row| Value::time(row.run.first_observed_time.as_ref())),
    Column::new("last_observed_time", "last observed", |row| Value::time(row.run.last_observed_time.as_ref())),
    Column::new("observation_count", "observations", |row| Value::Count(row.run.observation_count)),
    Column::data("recorded_time", |row| Value::time(row.run.recorded_time.as_ref())),
    Column::data("baseline", |row| Value::Flag(row.is_baseline)),
    Column::table(BASELINE_TITLE, |row| Value::Flag(row.is_baseline)),
];

pub(super) async fn run(args: HistoryArgs, session: &Session) -> Result<Outcome, CliError> {
    let request = ListRunsRequest {
        pair: args.series.pair,
        source: args.series.source,
        start_time: session.time(args.from)?,
        end_time: session.time(args.to)?,
        descending: args.desc,
        include_baseline: args.baseline,
        known_time: session.time(args.known.known)?,
        page_size: 0,
        page_token: String::new(),
    };
    let client = session.connect().await?;
    let hidden: &[&str] = if args.baseline { &[] } else { &[BASELINE_TITLE] };
    let rows = limit(session, args.limit);
    let listed = list_without(session, COLUMNS, hidden, rows, PAGE_RUNS_MAX, async |page_size, page_token| {
        let request = ListRunsRequest { page_size, page_token, ..request.clone() };
        let page = client.answer(client.rates().list_runs(client.request(request))).await?;
        let row = |run| Row { run, is_baseline: false };
        let lead = page.baseline.map(|run| Row { run, is_baseline: true });
        Ok(Page { lead, ..Page::new(page.runs.into_iter().map(row), page.next_page_token) })
    });
    let listed = listed.await?;
    if listed.more && args.limit.is_none() {
        note(&format!("the first {rows} runs; there are more: --limit ROWS, or --desc for the newest"));
    } else if listed.rows == 0 && session.is_table() {
        note("no runs in that range");
    }
    Ok(Outcome::Done)
}
