//! The `series` command: the series in the store.

use clap::Args;

use super::client::Client;
use super::output::Column;
use super::pages::{report_missing, write_all};
use super::value::Value;
use super::{CliError, KnownArgs, Outcome, Session, note, parse_pair};
use crate::proto::v1::{ListSeriesRequest, Series};

const EXAMPLES: &str = "\
Examples:
  silkrate series
  silkrate series KGS/USD --output json
  silkrate series --known-time 2025-12-08";

/// Arguments of `series`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SeriesArgs {
    /// Show only these pairs, like KGS/USD; default all
    #[arg(value_name = "PAIR", value_delimiter = ',', value_parser = parse_pair)]
    pairs: Vec<String>,
    /// Show only series of this source; repeat the option for several sources
    #[arg(long = "source", alias = "sources", value_name = "SLUG", value_delimiter = ',')]
    sources: Vec<String>,
    #[command(flatten)]
    known: KnownArgs,
}

const COLUMNS: &[Column<Series>] = &[
    Column::new("pair", "pair", |row| Value::text(&row.pair)),
    Column::new("source", "source", |row| Value::text(&row.source)),
    Column::new("first_observed_time", "first observed", |row| Value::time(row.first_observed_time.as_ref())),
    Column::new("last_observed_time", "last observed", |row| Value::time(row.last_observed_time.as_ref())),
    Column::new("run_count", "runs", |row| Value::Count(row.run_count)),
    Column::new("observation_count", "observations", |row| Value::Count(row.observation_count)),
    Column::new("revision_count", "revisions", |row| Value::Count(row.revision_count)),
    Column::new("state", "state", |row| Value::state(row.state())),
    Column::data("archived", |row| Value::Flag(row.archived)),
    Column::table("archived", |row| if row.archived { Value::Flag(true) } else { Value::Absent }),
    Column::new("collapse_window", "collapse window", |row| Value::duration(row.collapse_window.as_ref())),
];

pub(super) async fn run(args: SeriesArgs, session: &Session) -> Result<Outcome, CliError> {
    let known_time = session.time(args.known.known)?;
    let request = ListSeriesRequest { pairs: args.pairs.clone(), sources: args.sources.clone(), known_time };
    let client = session.connect().await?;
    let response = client.answer(client.rates().list_series(client.request(request))).await?;
    write_all(session, COLUMNS, &response.series)?;
    let outcome = report_unknown(&response.series, &args.pairs, &args.sources);
    if session.is_table() && response.series.is_empty() && outcome == Outcome::Done {
        note("no matching series");
    }
    Ok(outcome)
}

/// Reports each pair and each source that no listed series has.
fn report_unknown(series: &[Series], pairs: &[String], sources: &[String]) -> Outcome {
    let has = |of_row: fn(&Series) -> &String, name: &str| series.iter().any(|row| of_row(row) == name);
    let missing_pairs = report_missing("series of", pairs, |name| has(|row| &row.pair, name));
    missing_pairs.max(report_missing("series from", sources, |name| has(|row| &row.source, name)))
}

/// Reports each pair and each source of a filter that no series of the server has.
///
/// # Errors
/// Returns the errors of the request.
pub(super) async fn report_unknown_of_filter(
    client: &Client,
    pairs: &[String],
    sources: &[String],
) -> Result<Outcome, CliError> {
    if pairs.is_empty() && sources.is_empty() {
        return Ok(Outcome::Done);
    }
    let response = client.answer(client.rates().list_series(client.request(ListSeriesRequest::default()))).await?;
    Ok(report_unknown(&response.series, pairs, sources))
}
