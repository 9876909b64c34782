//! The `convert` command: an amount in another currency, with its bounds.

use clap::Args;

use super::error::ErrorKind;
use super::output::{Column, write_one};
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, KnownArgs, LegArgs, Outcome, Session, SourceArgs, ZoneArgs, parse_pair, rate, runs, stdout};
use crate::domain::{Amount, AmountError};
use crate::proto::v1::{ConvertRequest, ConvertResponse, GetRateResponse};

const EXAMPLES: &str = "\
Examples:
  silkrate convert 1500 KGS/USD
  silkrate convert 99.90 USD/UZS --at 2025-12-08
  silkrate convert 1000 KGS/KZT --source timesca --output json

The amount is in the first currency of the pair, the result in the second.
Because a published rate is rounded to its last digit, the true result lies
between low and high.";

/// Arguments of `convert`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConvertArgs {
    /// Amount in the first currency of the pair, like 1500 or 99.90
    #[arg(value_parser = parse_amount)]
    amount: String,
    /// Pair as BASE/QUOTE, like KGS/USD, or its two currencies as two arguments: KGS USD
    #[arg(value_name = "PAIR", required = true, num_args = 1..=2)]
    pair: Vec<String>,
    #[command(flatten)]
    choice: SourceArgs,
    #[command(flatten)]
    legs: LegArgs,
    /// Time of the rate; a date means the rate at the end of that day; default now
    #[arg(long, alias = "time", value_name = "TIME", allow_hyphen_values = true)]
    at: Option<TimeArgument>,
    /// Longest time from the last observation of the rate to --at, like 2d; an older rate is an error
    #[arg(long, value_name = "SPAN", value_parser = rate::parse_duration)]
    max_age: Option<prost_types::Duration>,
    #[command(flatten)]
    zone: ZoneArgs,
    #[command(flatten)]
    known: KnownArgs,
}

/// The requested pair and amount, and the response. The response does not contain the pair and the amount.
struct Row {
    pair: String,
    amount: String,
    response: ConvertResponse,
}

impl Row {
    /// Applies `value` to the rate. Returns `Absent` if the response has no rate.
    fn rate(&self, value: impl Fn(&GetRateResponse) -> Value) -> Value {
        self.response.rate.as_ref().map_or(Value::Absent, value)
    }
}

const COLUMNS: &[Column<Row>] = &[
    Column::new("pair", "pair", |row| Value::text(&row.pair)),
    Column::new("amount", "amount", |row| Value::decimal(&row.amount)),
    Column::new("converted_amount", "converted", |row| Value::decimal(&row.response.converted_amount)),
    Column::new("converted_amount_low", "low", |row| Value::decimal(&row.response.converted_amount_low)),
    Column::new("converted_amount_high", "high", |row| Value::decimal(&row.response.converted_amount_high)),
    Column::table("rate", |row| row.rate(|rate| Value::decimal(&rate.rate))),
    Column::csv("rate", |row| row.rate(|rate| Value::decimal(&rate.rate))),
    Column::json("rate", |row| row.rate(|rate| rate::object(&row.pair, rate))),
    Column::table("from", |row| row.rate(rate::describe_legs)),
    Column::table("age", |row| row.rate(rate::describe_age)),
    Column::table("at", |row| row.rate(rate::at)),
    Column::csv("derivation", |row| row.rate(|rate| Value::derivation(rate.derivation()))),
    Column::csv("legs", |row| row.rate(|rate| runs::objects(&rate.legs))),
    Column::csv("age", |row| row.rate(|rate| Value::duration(rate.age.as_ref()))),
    Column::csv("time", |row| row.rate(|rate| Value::time(rate.time.as_ref()))),
    Column::csv("date", |row| row.rate(|rate| Value::text(&rate.date))),
    Column::csv("time_zone", |row| row.rate(|rate| Value::text(&rate.time_zone))),
    Column::table("stale", |row| row.rate(|rate| if rate.stale { Value::text("STALE") } else { Value::Absent })),
    Column::csv("stale", |row| row.rate(|rate| Value::Flag(rate.stale))),
    Column::csv("archived", |row| row.rate(|rate| Value::Flag(rate.archived))),
    Column::data("sequence", |row| Value::Count(row.response.sequence)),
    Column::new("recorded_time", "known at", |row| Value::time(row.response.recorded_time.as_ref())),
];

/// Checks the amount and returns its text, so that the server gets the digits as they were written.
///
/// # Errors
/// Returns an [`AmountError`] if the text is not an amount.
fn parse_amount(text: &str) -> Result<String, AmountError> {
    Amount::parse(text).map(|_| text.to_owned())
}

pub(super) async fn run(args: ConvertArgs, session: &Session) -> Result<Outcome, CliError> {
    let pair = parse_pair(&args.pair.join("/")).map_err(|problem| CliError::new(ErrorKind::Usage, problem))?;
    let (time, date) = session.time_or_date(args.at)?;
    let request = ConvertRequest {
        pair: pair.clone(),
        amount: args.amount.clone(),
        source: args.choice.source,
        strict: args.choice.strict,
        leg_sources: args.legs.leg_sources,
        time,
        date,
        time_zone: args.zone.zone,
        max_age: args.max_age,
        known_time: session.time(args.known.known)?,
    };
    let client = session.connect().await?;
    let response = client.answer(client.rates().convert(client.request(request))).await?;
    if let Some(rate) = &response.rate {
        rate::warn_of_rate(&pair, rate);
    }
    write_one(stdout(), session.style, COLUMNS, &Row { pair, amount: args.amount, response })?;
    Ok(Outcome::Done)
}
