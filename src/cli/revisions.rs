//! The `revisions` command: the runs of a series that later ticks replaced.

use clap::Args;

use super::output::Column;
use super::pages::{OrderArgs, Page, list, note_rest};
use super::runs::{REPORTED_TITLE, from_run, reported};
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, KnownArgs, Outcome, PairArgs, Session};
use crate::proto::v1::{ListRevisionsRequest, Revision};

/// The maximum number of revisions per page.
const PAGE_REVISIONS_MAX: u64 = 5_000;

const EXAMPLES: &str = "\
Examples:
  silkrate revisions KGS/USD
  silkrate revisions KGS/USD --from -7d --output json

A revision is a run that a later commit replaced, because a late or corrected
tick arrived. It was current from its recorded time until its superseded time.";

/// Arguments of `revisions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RevisionsArgs {
    #[command(flatten)]
    series: PairArgs,
    /// Show only runs superseded at this time or later
    #[arg(long, alias = "start-time", value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArgument>,
    /// Show only runs superseded before this time
    #[arg(long, alias = "end-time", value_name = "TIME", allow_hyphen_values = true)]
    to: Option<TimeArgument>,
    /// Maximum number of rows; default 50 in a table, unlimited in json and csv
    #[arg(long, alias = "page-size", value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    order: OrderArgs,
    #[command(flatten)]
    known: KnownArgs,
}

const COLUMNS: &[Column<Revision>] = &[
    Column::new("pair", "pair", |row| from_run(row.run.as_ref(), |run| Value::text(&run.pair))),
    Column::new("source", "source", |row| from_run(row.run.as_ref(), |run| Value::text(&run.source))),
    Column::new("rate", "rate", |row| from_run(row.run.as_ref(), |run| Value::decimal(&run.rate))),
    Column::new("reported_change_percent", REPORTED_TITLE, |row| from_run(row.run.as_ref(), reported)),
    Column::new("first_observed_time", "first observed", |row| {
        from_run(row.run.as_ref(), |run| Value::time(run.first_observed_time.as_ref()))
    }),
    Column::new("last_observed_time", "last observed", |row| {
        from_run(row.run.as_ref(), |run| Value::time(run.last_observed_time.as_ref()))
    }),
    Column::data("observation_count", |row| from_run(row.run.as_ref(), |run| Value::Count(run.observation_count))),
    Column::new("recorded_time", "recorded", |row| {
        from_run(row.run.as_ref(), |run| Value::time(run.recorded_time.as_ref()))
    }),
    Column::new("superseded_time", "superseded", |row| Value::time(row.superseded_time.as_ref())),
];

pub(super) async fn run(args: RevisionsArgs, session: &Session) -> Result<Outcome, CliError> {
    let selection = args.order.selection(session, args.limit, args.from.is_some());
    let request = ListRevisionsRequest {
        descending: selection.descending,
        pair: args.series.pair,
        source: args.series.choice.source,
        strict: args.series.choice.strict,
        start_time: session.time(args.from)?,
        end_time: session.time(args.to)?,
        known_time: session.time(args.known.known)?,
        page_size: 0,
        page_token: String::new(),
    };
    let client = session.connect().await?;
    let listed = list(session, COLUMNS, &[], selection, PAGE_REVISIONS_MAX, async |page_size, page_token| {
        let request = ListRevisionsRequest { page_size, page_token, ..request.clone() };
        let page = client.answer(client.rates().list_revisions(client.request(request))).await?;
        Ok(Page::new(page.revisions, page.next_page_token))
    });
    note_rest(session, (&listed.await?, selection), args.limit, "revisions", "no revisions in that range");
    Ok(Outcome::Done)
}
