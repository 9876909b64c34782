//! `convert`: an amount in another currency, with what the digits of the rate leave open.

use clap::Args;

use super::output::{Column, write_one};
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, KnownArgs, LegArgs, Outcome, PairArgs, Session, rate, stdout};
use crate::proto::v1::{ConvertRequest, ConvertResponse, GetRateResponse};

const EXAMPLES: &str = "\
Examples:
  silkrate convert 1500 KGS/USD
  silkrate convert 99.90 USD/UZS --at 2025-12-08
  silkrate convert 1000 KGS/KZT --source timesca --output json

The amount is in the first currency of the pair, the answer in the second. It
lies between low and high: the rate is known to half a unit in its last place.";

/// Arguments of `convert`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConvertArgs {
    /// Units of the first currency, like 1500 or 99.90
    amount: String,
    #[command(flatten)]
    series: PairArgs,
    #[command(flatten)]
    legs: LegArgs,
    /// At the rate of this moment; now if left out
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: Option<TimeArgument>,
    /// Refuse a rate last confirmed longer before than this, like 2d
    #[arg(long, value_name = "SPAN", value_parser = rate::parse_length)]
    max_age: Option<prost_types::Duration>,
    #[command(flatten)]
    known: KnownArgs,
}

/// An answer under what was asked for, which it leaves out.
struct Asked {
    pair: String,
    amount: String,
    answer: ConvertResponse,
}

impl Asked {
    fn rate(&self, cell: impl Fn(&GetRateResponse) -> Value) -> Value {
        self.answer.rate.as_ref().map_or(Value::Absent, cell)
    }
}

const COLUMNS: &[Column<Asked>] = &[
    Column::new("pair", "pair", |row| Value::text(&row.pair)),
    Column::new("amount", "amount", |row| Value::decimal(&row.amount)),
    Column::new("converted_amount", "converted", |row| Value::decimal(&row.answer.converted_amount)),
    Column::new("converted_amount_low", "low", |row| Value::decimal(&row.answer.converted_amount_low)),
    Column::new("converted_amount_high", "high", |row| Value::decimal(&row.answer.converted_amount_high)),
    Column::table("rate", |row| row.rate(|rate| Value::decimal(&rate.rate))),
    Column::csv("rate", |row| row.rate(|rate| Value::decimal(&rate.rate))),
    Column::json("rate", |row| row.rate(|answer| rate::object(&row.pair, answer))),
    Column::table("from", |row| row.rate(rate::legs_in_words)),
    Column::table("age", |row| row.rate(rate::age_in_words)),
    Column::table("at", |row| row.rate(|rate| Value::time(rate.time.as_ref()))),
    Column::csv("time", |row| row.rate(|rate| Value::time(rate.time.as_ref()))),
    Column::data("sequence", |row| Value::Count(row.answer.sequence)),
    Column::new("recorded_time", "known at", |row| Value::time(row.answer.recorded_time.as_ref())),
];

pub(super) async fn run(args: ConvertArgs, session: &Session) -> Result<Outcome, CliError> {
    let request = ConvertRequest {
        pair: args.series.pair.clone(),
        amount: args.amount.clone(),
        source: args.series.source,
        leg_sources: args.legs.leg_sources,
        time: session.time(args.at)?,
        max_age: args.max_age,
        known_time: session.time(args.known.known)?,
    };
    let client = session.connect().await?;
    let answer = client.answer(client.rates().convert(client.request(request))).await?;
    write_one(stdout(), session.style, COLUMNS, &Asked { pair: args.series.pair, amount: args.amount, answer })?;
    Ok(Outcome::Done)
}
