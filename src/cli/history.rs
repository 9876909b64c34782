//! `history`: the runs of a series, row by row as they come.

use clap::Args;

use super::cell::Cell;
use super::client::Client;
use super::error::Problem;
use super::output::{Column, Sheet};
use super::runs::{REPORTED_TITLE, reported};
use super::when::When;
use super::{CliError, KnownArgs, Outcome, PairArgs, Session, note, stdout};
use crate::proto::v1::{ListRunsRequest, Run};

/// Rows of a table unless `--limit` says otherwise; JSON and CSV have no limit.
const TABLE_ROWS_DEFAULT: u64 = 50;
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
    from: Option<When>,
    /// Runs first observed before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<When>,
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
    Column::new("pair", "pair", |row| Cell::text(&row.run.pair)),
    Column::new("source", "source", |row| Cell::text(&row.run.source)),
    Column::new("rate", "rate", |row| Cell::decimal(&row.run.rate)),
    Column::new("reported_change_percent", REPORTED_TITLE, |row| reported(&row.run)),
    Column::new("first_observed_time", "first observed", |row| Cell::time(row.run.first_observed_time.as_ref())),
    Column::new("last_observed_time", "last observed", |row| Cell::time(row.run.last_observed_time.as_ref())),
    Column::new("observation_count", "observations", |row| Cell::Count(row.run.observation_count)),
    Column::data("recorded_time", |row| Cell::time(row.run.recorded_time.as_ref())),
    Column::data("baseline", |row| Cell::Flag(row.is_baseline)),
    Column::table(BASELINE_TITLE, |row| Cell::Flag(row.is_baseline)),
];

pub(super) async fn run(args: HistoryArgs, session: &Session) -> Result<Outcome, CliError> {
    let default_limit = if session.is_table() { TABLE_ROWS_DEFAULT } else { u64::MAX };
    let limit = args.limit.unwrap_or(default_limit);
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
    let listed = list(&client, session, request, limit).await?;
    if listed.more && args.limit.is_none() {
        note(&format!("the first {limit} runs; there are more: --limit ROWS, or --desc for the newest"));
    } else if listed.rows == 0 && session.is_table() {
        note("no runs in that range");
    }
    Ok(Outcome::Done)
}

struct Listed {
    rows: u64,
    more: bool,
}

/// Writes page after page. The pages after the first see the same commit: their token pins it.
async fn list(client: &Client, session: &Session, request: ListRunsRequest, limit: u64) -> Result<Listed, CliError> {
    // Nothing is written before the server has agreed to answer.
    let mut request = ListRunsRequest { page_size: page_size(limit), ..request };
    let mut page = client.answer(client.rates().list_runs(client.request(request.clone()))).await?;
    let mut sheet = Sheet::new(stdout(), session.style, COLUMNS)?;
    if !request.include_baseline {
        sheet.hide(BASELINE_TITLE);
    }
    if let Some(run) = page.baseline.take() {
        sheet.row(&Row { run, is_baseline: true })?;
    }
    let mut rows = 0;
    loop {
        for run in page.runs {
            if rows == limit {
                return Err(Problem::Protocol("more runs in a page than asked for").into());
            }
            sheet.row(&Row { run, is_baseline: false })?;
            rows += 1;
        }
        if page.next_page_token.is_empty() || rows == limit {
            sheet.finish()?;
            return Ok(Listed { rows, more: !page.next_page_token.is_empty() });
        }
        request.page_size = page_size(limit - rows);
        request.page_token = page.next_page_token;
        page = match client.answer(client.rates().list_runs(client.request(request.clone()))).await {
            Ok(page) => page,
            Err(error) => {
                sheet.abandon()?;
                return Err(error);
            }
        };
    }
}

fn page_size(rows: u64) -> i32 {
    i32::try_from(PAGE_RUNS_MAX.min(rows)).unwrap_or(i32::MAX)
}
