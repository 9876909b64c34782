//! `latest`: the newest rate of every series, and whether it still moves.

use clap::Args;

use super::output::{Column, Sheet};
use super::runs::{REPORTED_TITLE, of, reported};
use super::text::{clean, relative_age};
use super::value::Value;
use super::{CliError, Outcome, Session, note, stdout};
use crate::domain::Timestamp;
use crate::proto::v1::{GetLatestRatesRequest, GetLatestRatesResponse, LatestRate};

const EXAMPLES: &str = "\
Examples:
  silkrate latest
  silkrate latest KGS/USD UZS/USD --source timesca
  silkrate latest --output csv > rates.csv

States: MOVING moved lately, FLAT stands still, PEGGED has for half a year,
STALE was not confirmed in time: the feed may be dead.";

/// Arguments of `latest`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LatestArgs {
    /// Only these pairs, like KGS/USD
    #[arg(value_name = "PAIR")]
    pairs: Vec<String>,
    /// Only what these sources published
    #[arg(long = "source", value_name = "SLUG")]
    sources: Vec<String>,
}

/// A rate as `latest` and `watch` show it.
pub(super) const COLUMNS: &[Column<LatestRate>] = &[
    Column::new("pair", "pair", |row| of(row.run.as_ref(), |run| Value::text(&run.pair))),
    Column::new("source", "source", |row| of(row.run.as_ref(), |run| Value::text(&run.source))),
    Column::new("rate", "rate", |row| of(row.run.as_ref(), |run| Value::decimal(&run.rate))),
    Column::new("previous_rate", "previous", |row| Value::decimal_or_absent(row.previous_rate.as_ref())),
    Column::new("moved_time", "moved", |row| Value::time(row.moved_time.as_ref())),
    Column::new("reported_change_percent", REPORTED_TITLE, |row| of(row.run.as_ref(), reported)),
    Column::new("state", "state", |row| Value::state(row.state())),
    Column::data("first_observed_time", |row| {
        of(row.run.as_ref(), |run| Value::time(run.first_observed_time.as_ref()))
    }),
    Column::new("last_observed_time", "last observed", |row| {
        of(row.run.as_ref(), |run| Value::time(run.last_observed_time.as_ref()))
    }),
    Column::data("observation_count", |row| of(row.run.as_ref(), |run| Value::Count(run.observation_count))),
    Column::new("stale_time", "stale at", |row| Value::time(row.stale_time.as_ref())),
    Column::data("recorded_time", |row| of(row.run.as_ref(), |run| Value::time(run.recorded_time.as_ref()))),
];

pub(super) async fn run(args: LatestArgs, session: &Session) -> Result<Outcome, CliError> {
    let client = session.connect().await?;
    let request = GetLatestRatesRequest { pairs: args.pairs, sources: args.sources, since_sequence: 0 };
    let asked: Vec<String> = request.pairs.clone();
    let answer = client.answer(client.rates().get_latest_rates(client.request(request))).await?;
    let mut sheet = Sheet::new(stdout(), session.style, COLUMNS)?;
    for rate in &answer.rates {
        sheet.row(rate)?;
    }
    sheet.finish()?;
    for pair in asked.iter().filter(|pair| !answer.rates.iter().any(|rate| is_of(rate, pair))) {
        note(&format!("no rate for {}", clean(pair)));
    }
    if session.is_table() {
        note(&freshness(&answer, session.style.now));
    }
    Ok(Outcome::Done)
}

fn is_of(rate: &LatestRate, pair: &str) -> bool {
    rate.run.as_ref().is_some_and(|run| run.pair == pair)
}

/// When anything came in last: what tells a quiet market from a dead feed.
fn freshness(answer: &GetLatestRatesResponse, now: Timestamp) -> String {
    let Value::Time(time) = Value::time(answer.last_ingest_time.as_ref()) else {
        return "nothing ingested yet; send a ticker page with 'silkrate ingest FILE'".to_owned();
    };
    format!("sequence {}; last ingest {time} ({})", answer.sequence, relative_age(time, now))
}
