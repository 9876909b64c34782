//! `rate`: the rate in force at a moment, with what its digits leave open.

use clap::Args;

use super::output::{Column, record, write_one};
use super::runs;
use super::text::{length, plural};
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, KnownArgs, LegArgs, Outcome, PairArgs, Session, stdout};
use crate::domain::{Span, SpanError};
use crate::proto::convert::duration;
use crate::proto::v1::{GetRateRequest, GetRateResponse, Run};

const EXAMPLES: &str = "\
Examples:
  silkrate rate KGS/USD
  silkrate rate USD/KGS --at 2025-12-08
  silkrate rate KGS/KZT --leg-source nbkr --leg-source nbk
  silkrate rate KGS/USD --at -1mo --max-age 2d
  silkrate rate KGS/USD --at 2025-12-08 --known 2025-12-09T12:00:00Z

A published rate stands for half a unit in its last place either side: the
true rate lies between low and high. A pair that nobody publishes is derived:
from its inverse, or as a cross through the dollar.";

/// Arguments of `rate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RateArgs {
    #[command(flatten)]
    series: PairArgs,
    #[command(flatten)]
    legs: LegArgs,
    /// The moment; now if left out
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: Option<TimeArgument>,
    /// Refuse a rate last confirmed longer before than this, like 2d
    #[arg(long, value_name = "SPAN", value_parser = parse_length)]
    max_age: Option<prost_types::Duration>,
    #[command(flatten)]
    known: KnownArgs,
}

pub(super) fn parse_length(text: &str) -> Result<prost_types::Duration, SpanError> {
    Ok(duration(text.parse::<Span>()?.micros()?))
}

/// An answer under the pair asked for, which it leaves out.
struct Asked {
    pair: String,
    answer: GetRateResponse,
}

const COLUMNS: &[Column<Asked>] = &[
    Column::new("pair", "pair", |row| Value::text(&row.pair)),
    Column::new("rate", "rate", |row| Value::decimal(&row.answer.rate)),
    Column::new("rate_low", "low", |row| Value::decimal(&row.answer.rate_low)),
    Column::new("rate_high", "high", |row| Value::decimal(&row.answer.rate_high)),
    Column::new("derivation", "derived", |row| Value::derivation(row.answer.derivation())),
    Column::table("from", |row| legs_in_words(&row.answer)),
    Column::data("legs", |row| Value::List(row.answer.legs.iter().map(runs::object).collect())),
    Column::data("age", |row| Value::length(row.answer.age.as_ref())),
    Column::table("age", |row| age_in_words(&row.answer)),
    Column::data("leg_age_difference", |row| Value::length(row.answer.leg_age_difference.as_ref())),
    Column::new("state", "state", |row| Value::state(row.answer.state())),
    Column::new("time", "at", |row| Value::time(row.answer.time.as_ref())),
    Column::data("sequence", |row| Value::Count(row.answer.sequence)),
    Column::new("recorded_time", "known at", |row| Value::time(row.answer.recorded_time.as_ref())),
];

/// The object that an answer is in JSON, as an end of a change.
pub(super) fn object(pair: &str, answer: &GetRateResponse) -> Value {
    record(COLUMNS, &Asked { pair: pair.to_owned(), answer: answer.clone() })
}

/// The published rates that an answer comes from.
pub(super) fn legs_in_words(answer: &GetRateResponse) -> Value {
    Value::List(answer.legs.iter().map(leg_in_words).collect())
}

/// `2 h`, or `3 d; the legs are 2 d apart`: then the rate puts together what was not confirmed at one time.
pub(super) fn age_in_words(answer: &GetRateResponse) -> Value {
    match (Value::length(answer.age.as_ref()), Value::length(answer.leg_age_difference.as_ref())) {
        (Value::Length(age), Value::Length(apart)) => {
            Value::Text(format!("{}; the legs are {} apart", length(age), length(apart)))
        }
        (age, _) => age,
    }
}

/// `KGS/USD 0.01144 by timesca, seen 5 times up to 2025-12-08T00:00:00Z`.
fn leg_in_words(run: &Run) -> Value {
    let last = Value::time(run.last_observed_time.as_ref()).to_csv().unwrap_or_default();
    let count = plural(run.observation_count, "observation");
    Value::Text(format!("{} {} by {}, {count}, last {last}", run.pair, run.rate, run.source))
}

pub(super) async fn run(args: RateArgs, session: &Session) -> Result<Outcome, CliError> {
    let request = GetRateRequest {
        pair: args.series.pair.clone(),
        source: args.series.source,
        leg_sources: args.legs.leg_sources,
        time: session.time(args.at)?,
        max_age: args.max_age,
        known_time: session.time(args.known.known)?,
    };
    let client = session.connect().await?;
    let answer = client.answer(client.rates().get_rate(client.request(request))).await?;
    write_one(stdout(), session.style, COLUMNS, &Asked { pair: args.series.pair, answer })?;
    Ok(Outcome::Done)
}
