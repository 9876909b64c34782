//! The `latest` command: the latest rate of every series, and whether it still moves.

use clap::Args;

use super::output::Column;
use super::pages::{report_missing, write_all};
use super::runs::{REPORTED_TITLE, from_run, reported};
use super::text::plural;
use super::value::Value;
use super::{CliError, Outcome, Session, note, parse_pair};
use crate::analysis::{Derived, PercentChange};
use crate::domain::{Rate, Timestamp, relative_age};
use crate::proto::v1::{GetLatestRatesRequest, GetLatestRatesResponse, LatestRate, Run};

const EXAMPLES: &str = "\
Examples:
  silkrate latest
  silkrate latest KGS/USD UZS/USD --source timesca
  silkrate latest --output csv > rates.csv

States (a rate has the first one that applies):
  STALE   not observed within the source's stale limit: its feed may be dead
  PEGGED  the same rate for 180 days or more, at a precision of 0.1 % or finer
  MOVING  moved within the moving window: by default 24 hours, for banks 4 days
  FLAT    none of these";

/// Arguments of `latest`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LatestArgs {
    /// Show only these pairs, like KGS/USD; default all
    #[arg(value_name = "PAIR", value_delimiter = ',', value_parser = parse_pair)]
    pairs: Vec<String>,
    /// Show only rates of this source; repeat the option for several sources
    #[arg(long = "source", alias = "sources", value_name = "SLUG", value_delimiter = ',')]
    sources: Vec<String>,
    /// Also show rates of archived sources in a table
    #[arg(long)]
    archived: bool,
    /// Show all columns in a table: also the previous rate, the times and the reported change
    #[arg(long)]
    wide: bool,
}

/// The columns of a latest rate. `latest` and `watch` share them.
pub(super) const COLUMNS: &[Column<LatestRate>] = &[
    Column::new("pair", "pair", |row| from_run(row.run.as_ref(), |run| Value::text(&run.pair))),
    Column::new("source", "source", |row| from_run(row.run.as_ref(), |run| Value::text(&run.source))),
    Column::new("rate", "rate", |row| from_run(row.run.as_ref(), |run| Value::decimal(&run.rate))),
    Column::new("previous_rate", "previous", |row| Value::decimal_or_absent(row.previous_rate.as_ref())),
    Column::new("moved_time", "moved", |row| Value::time(row.moved_time.as_ref())),
    Column::new("reported_change_percent", REPORTED_TITLE, |row| from_run(row.run.as_ref(), reported)),
    Column::data("state", |row| Value::state(row.state())),
    Column::table("state", state_and_archived),
    Column::data("archived", |row| Value::Flag(row.archived)),
    Column::data("first_observed_time", |row| {
        from_run(row.run.as_ref(), |run| Value::time(run.first_observed_time.as_ref()))
    }),
    Column::new("last_observed_time", "last observed", |row| {
        from_run(row.run.as_ref(), |run| Value::time(run.last_observed_time.as_ref()))
    }),
    Column::data("observation_count", |row| from_run(row.run.as_ref(), |run| Value::Count(run.observation_count))),
    Column::new("stale_time", "stale at", |row| Value::time(row.stale_time.as_ref())),
    Column::data("recorded_time", |row| from_run(row.run.as_ref(), |run| Value::time(run.recorded_time.as_ref()))),
];

/// The decimal places of the change in a table.
const CHANGE_PLACES: u32 = 2;

/// A latest rate, and the time from which its age counts.
struct AgedRate {
    rate: LatestRate,
    now: Timestamp,
}

/// The columns of a table of 80 characters.
const SHORT_COLUMNS: &[Column<AgedRate>] = &[
    Column::new("pair", "pair", |row| from_run(row.rate.run.as_ref(), |run| Value::text(&run.pair))),
    Column::new("source", "source", |row| from_run(row.rate.run.as_ref(), |run| Value::text(&run.source))),
    Column::new("rate", "rate", |row| from_run(row.rate.run.as_ref(), |run| Value::decimal(&run.rate))),
    Column::table("change", |row| last_change(&row.rate)),
    Column::table("state", |row| state_and_archived(&row.rate)),
    Column::table("age", |row| {
        let observed = row.rate.run.as_ref().map(|run| Value::time(run.last_observed_time.as_ref()));
        match observed {
            Some(Value::Time(observed)) => Value::Duration(row.now.micros_since(observed).max(0)),
            _ => Value::Absent,
        }
    }),
];

/// Returns the last change of a published rate in percent, or `cannot tell` if rounding alone can explain it. Absent if
/// the rate never moved.
fn last_change(rate: &LatestRate) -> Value {
    let parse = |text: &str| Rate::parse(text).ok().map(Derived::direct);
    let previous = rate.previous_rate.as_deref().and_then(parse);
    let Some((previous, present)) = previous.zip(rate.run.as_ref().and_then(|run| parse(&run.rate))) else {
        return Value::Absent;
    };
    let change = PercentChange::between(&previous, &present);
    if change.below_resolution() {
        return Value::text("cannot tell");
    }
    let sign = if change.direction().is_gt() { "+" } else { "" };
    Value::Text(format!("{sign}{} %", change.value(CHANGE_PLACES)))
}

/// Returns the state for a table, with a mark if the source is archived: `FLAT, archived`.
fn state_and_archived(row: &LatestRate) -> Value {
    match (row.archived, Value::state(row.state())) {
        (true, Value::Text(state)) => Value::Text(format!("{state}, archived")),
        (true, _) => Value::text("archived"),
        (false, state) => state,
    }
}

pub(super) async fn run(args: LatestArgs, session: &Session) -> Result<Outcome, CliError> {
    let client = session.connect().await?;
    let names_sources = !args.sources.is_empty();
    let request = GetLatestRatesRequest { pairs: args.pairs, sources: args.sources, since_sequence: 0 };
    let (requested_pairs, requested_sources) = (request.pairs.clone(), request.sources.clone());
    let response = client.answer(client.rates().get_latest_rates(client.request(request))).await?;
    // A table shows archived sources only on request. JSON and CSV show them with a flag.
    let shows_archived = args.archived || names_sources || !session.is_table();
    let shown = response.rates.iter().filter(|rate| shows_archived || !rate.archived);
    if session.is_table() && !args.wide {
        let now = session.style.now;
        let rows: Vec<AgedRate> = shown.clone().map(|rate| AgedRate { rate: rate.clone(), now }).collect();
        write_all(session, SHORT_COLUMNS, &rows)?;
    } else {
        write_all(session, COLUMNS, shown.clone())?;
    }
    let hidden_count = u64::try_from(response.rates.len() - shown.count()).unwrap_or(u64::MAX);
    if hidden_count > 0 {
        note(&format!("{} of archived sources hidden; --archived shows them", plural(hidden_count, "rate")));
    }
    let has = |of_run: fn(&Run) -> &String, name: &str| {
        response.rates.iter().filter_map(|rate| rate.run.as_ref()).any(|run| of_run(run) == name)
    };
    let missing_pairs = report_missing("rate of", &requested_pairs, |name| has(|run| &run.pair, name));
    let missing_sources = report_missing("rate from", &requested_sources, |name| has(|run| &run.source, name));
    if session.is_table() {
        note(&freshness(&response, session.style.now));
    }
    Ok(missing_pairs.max(missing_sources))
}

/// Formats the time of the last ingest, which distinguishes a quiet market from a dead feed.
fn freshness(response: &GetLatestRatesResponse, now: Timestamp) -> String {
    let Value::Time(time) = Value::time(response.last_ingest_time.as_ref()) else {
        return "nothing ingested yet; send a ticker page with 'silkrate ingest FILE'".to_owned();
    };
    format!("sequence {}; last ingest {time} ({})", response.sequence, relative_age(time, now))
}
