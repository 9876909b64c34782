//! The `rate` command: the rate in force at a time, with its bounds.

use clap::Args;

use super::output::{Column, record, write_one};
use super::runs;
use super::text::{clean, plural};
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, KnownArgs, LegArgs, Outcome, PairArgs, Session, ZoneArgs, note, stdout};
use crate::domain::{Span, SpanError, format_rounded_duration};
use crate::proto::convert::duration;
use crate::proto::v1::{GetRateRequest, GetRateResponse, RateState, Run};

const EXAMPLES: &str = "\
Examples:
  silkrate rate KGS/USD
  silkrate rate USD/KGS --at 2025-12-08
  silkrate rate KGS/KZT --leg-source nbkr --leg-source nbk
  silkrate rate KGS/USD --at -1mo --max-age 2d
  silkrate rate KGS/USD --at 2025-12-08 --known-time 2025-12-09T12:00:00Z

The rate in force at a time is the last rate observed at or before that time.
Because a published rate is rounded to its last digit, the true rate lies
between low and high. A pair that no source publishes is derived: as the inverse
of the reversed pair, or as a cross of two rates through the US dollar.";

/// Arguments of `rate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RateArgs {
    #[command(flatten)]
    series: PairArgs,
    #[command(flatten)]
    legs: LegArgs,
    /// Time of the rate; a date means the rate at the end of that day; default now
    #[arg(long, alias = "time", value_name = "TIME", allow_hyphen_values = true)]
    at: Option<TimeArgument>,
    /// Longest time from the last observation of the rate to --at, like 2d; an older rate is an error
    #[arg(long, value_name = "SPAN", value_parser = parse_duration)]
    max_age: Option<prost_types::Duration>,
    #[command(flatten)]
    zone: ZoneArgs,
    #[command(flatten)]
    known: KnownArgs,
}

/// Parses a span of fixed length, like `2d`.
///
/// # Errors
/// Returns a [`SpanError`] if the text is not a span, or is in months or years, which have no fixed length.
pub(super) fn parse_duration(text: &str) -> Result<prost_types::Duration, SpanError> {
    Ok(duration(text.parse::<Span>()?.micros()?))
}

/// The requested pair and the response. The response does not contain the pair.
struct Row {
    pair: String,
    response: GetRateResponse,
}

const COLUMNS: &[Column<Row>] = &[
    Column::new("pair", "pair", |row| Value::text(&row.pair)),
    Column::new("rate", "rate", |row| Value::decimal(&row.response.rate)),
    Column::new("rate_low", "low", |row| Value::decimal(&row.response.rate_low)),
    Column::new("rate_high", "high", |row| Value::decimal(&row.response.rate_high)),
    Column::new("derivation", "derived", |row| Value::derivation(row.response.derivation())),
    Column::table("from", |row| describe_legs(&row.response)),
    Column::data("legs", |row| runs::objects(&row.response.legs)),
    Column::data("age", |row| Value::duration(row.response.age.as_ref())),
    Column::table("age", |row| describe_age(&row.response)),
    Column::data("leg_age_difference", |row| Value::duration(row.response.leg_age_difference.as_ref())),
    Column::data("state", |row| Value::state(row.response.state())),
    Column::table("state", |row| state_or_stale(&row.response)),
    Column::data("stale", |row| Value::Flag(row.response.stale)),
    Column::data("archived", |row| Value::Flag(row.response.archived)),
    Column::data("time", |row| Value::time(row.response.time.as_ref())),
    Column::table("at", |row| at(&row.response)),
    Column::data("date", |row| Value::text(&row.response.date)),
    Column::data("time_zone", |row| Value::text(&row.response.time_zone)),
    Column::data("sequence", |row| Value::Count(row.response.sequence)),
    Column::new("recorded_time", "known at", |row| Value::time(row.response.recorded_time.as_ref())),
];

/// Returns the time of a rate for a table: the requested day with its time zone, or else the time.
pub(super) fn at(response: &GetRateResponse) -> Value {
    if response.date.is_empty() {
        return Value::time(response.time.as_ref());
    }
    Value::Text(format!("{} ({})", response.date, response.time_zone))
}

/// Returns the state for a table. A rate at an earlier time has no state, but it can have been stale then.
fn state_or_stale(response: &GetRateResponse) -> Value {
    let is_unspecified = response.state() == RateState::Unspecified;
    Value::state(if is_unspecified && response.stale { RateState::Stale } else { response.state() })
}

/// Warns on stderr if a rate was stale at its time, or if its source is archived.
pub(super) fn warn_of_rate(pair: &str, response: &GetRateResponse) {
    if response.archived {
        note(&format!("warning: the rate of {} comes from an archived source", clean(pair)));
    }
    if !response.stale {
        return;
    }
    let age = if let Value::Duration(age) = Value::duration(response.age.as_ref()) {
        format!(", last observed {} earlier", format_rounded_duration(age))
    } else {
        String::new()
    };
    note(&format!("warning: the rate of {} is stale{age}", clean(pair)));
}

/// Converts a response to the record that JSON writes as an object, for commands that nest rates.
pub(super) fn object(pair: &str, response: &GetRateResponse) -> Value {
    record(COLUMNS, &Row { pair: pair.to_owned(), response: response.clone() })
}

/// Describes the published rates from which the rate was derived, one text per leg.
pub(super) fn describe_legs(response: &GetRateResponse) -> Value {
    Value::List(response.legs.iter().map(describe_leg).collect())
}

/// Describes the age of a rate: `2 h`, or `3 d; leg ages differ by 2 d` for a cross of legs of different ages.
pub(super) fn describe_age(response: &GetRateResponse) -> Value {
    match (Value::duration(response.age.as_ref()), Value::duration(response.leg_age_difference.as_ref())) {
        (Value::Duration(age), Value::Duration(difference)) => Value::Text(format!(
            "{}; leg ages differ by {}",
            format_rounded_duration(age),
            format_rounded_duration(difference)
        )),
        (age, _) => age,
    }
}

/// Describes a leg: `KGS/USD 0.01144 by timesca, 5 observations, last 2025-12-08T00:00:00Z`.
fn describe_leg(run: &Run) -> Value {
    let last = Value::time(run.last_observed_time.as_ref()).to_csv().unwrap_or_default();
    let count = plural(run.observation_count, "observation");
    Value::Text(format!("{} {} by {}, {count}, last {last}", run.pair, run.rate, run.source))
}

pub(super) async fn run(args: RateArgs, session: &Session) -> Result<Outcome, CliError> {
    let (time, date) = session.time_or_date(args.at)?;
    let request = GetRateRequest {
        pair: args.series.pair.clone(),
        source: args.series.choice.source,
        strict: args.series.choice.strict,
        leg_sources: args.legs.leg_sources,
        time,
        date,
        time_zone: args.zone.zone,
        max_age: args.max_age,
        known_time: session.time(args.known.known)?,
    };
    let client = session.connect().await?;
    let response = client.answer(client.rates().get_rate(client.request(request))).await?;
    warn_of_rate(&args.series.pair, &response);
    write_one(stdout(), session.style, COLUMNS, &Row { pair: args.series.pair, response })?;
    Ok(Outcome::Done)
}
