//! The `change` command: the percent change between two times, with its bounds.

use std::fmt::Write as _;
use std::io::Write as _;

use clap::{ArgGroup, Args};

use super::output::{Column, Format, write_one};
use super::text::{clean, fold, trim_zeros};
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, KnownArgs, LegArgs, Outcome, PairArgs, Session, ZoneArgs, note, rate, runs, stdout};
use crate::domain::{Span, Timestamp, format_rounded_duration};
use crate::proto::v1::{GetChangeRequest, GetChangeResponse, GetRateResponse, MissingReason, Window};

const EXAMPLES: &str = "\
Examples:
  silkrate change KGS/USD --over 7d
  silkrate change KGS/USD --from 2025-01-01 --to 2025-12-08
  silkrate change UZS/USD --over 1mo --decimal-places 3 --output json

Because published rates are rounded to their last digit, the percentage has
bounds. If the bounds include 0 %, the change is below resolution: the rate may
not have changed at all.";

/// The width of the label `  from  ` before the start of a change, and of the label `  to    ` before the end.
const LABEL_CHARS: usize = 8;

/// Arguments of `change`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("start").required(true).args(["from", "over"]))]
pub struct ChangeArgs {
    #[command(flatten)]
    series: PairArgs,
    #[command(flatten)]
    legs: LegArgs,
    /// Start time of the change
    #[arg(long, alias = "start-time", value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArgument>,
    /// Length of the change, like 7d or 1mo: the change starts this long before --to
    #[arg(long, alias = "window", value_name = "SPAN")]
    over: Option<Span>,
    /// End time of the change; default now
    #[arg(long, alias = "end-time", value_name = "TIME", allow_hyphen_values = true)]
    to: Option<TimeArgument>,
    /// Decimal places of the percentages, 0 to 12; default 6
    #[arg(long = "decimal-places", alias = "places", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=12))]
    places: Option<u32>,
    #[command(flatten)]
    zone: ZoneArgs,
    #[command(flatten)]
    known: KnownArgs,
}

/// The requested pair and the response. The response does not contain the pair.
struct Row {
    pair: String,
    response: GetChangeResponse,
}

impl Row {
    /// Applies `value` to the rate at the start. Returns `Absent` if there is none.
    fn start(&self, value: impl Fn(&GetRateResponse) -> Value) -> Value {
        self.response.start.as_ref().map_or(Value::Absent, value)
    }

    /// Applies `value` to the rate at the end. Returns `Absent` if there is none.
    fn end(&self, value: impl Fn(&GetRateResponse) -> Value) -> Value {
        self.response.end.as_ref().map_or(Value::Absent, value)
    }
}

const COLUMNS: &[Column<Row>] = &[
    Column::data("pair", |row| Value::text(&row.pair)),
    Column::json("start", |row| row.start(|rate| rate::object(&row.pair, rate))),
    Column::csv("start_rate", |row| row.start(|rate| Value::decimal(&rate.rate))),
    Column::csv("start_time", |row| row.start(|rate| Value::time(rate.time.as_ref()))),
    Column::json("end", |row| row.end(|rate| rate::object(&row.pair, rate))),
    Column::csv("end_rate", |row| row.end(|rate| Value::decimal(&rate.rate))),
    Column::csv("end_time", |row| row.end(|rate| Value::time(rate.time.as_ref()))),
    Column::data("start_missing_reason", |row| missing(row.response.start_missing_reason())),
    Column::data("end_missing_reason", |row| missing(row.response.end_missing_reason())),
    Column::data("absolute_change", |row| Value::decimal_or_absent(row.response.absolute_change.as_ref())),
    Column::data("percent_change", |row| Value::decimal_or_absent(row.response.percent_change.as_ref())),
    Column::data("percent_change_low", |row| Value::decimal_or_absent(row.response.percent_change_low.as_ref())),
    Column::data("percent_change_high", |row| Value::decimal_or_absent(row.response.percent_change_high.as_ref())),
    Column::data("below_resolution", |row| row.response.below_resolution.map_or(Value::Absent, Value::Flag)),
    Column::data("observed", |row| row.response.observed.map_or(Value::Absent, Value::Flag)),
    Column::csv("start_derivation", |row| row.start(|rate| Value::derivation(rate.derivation()))),
    Column::csv("start_legs", |row| row.start(|rate| runs::objects(&rate.legs))),
    Column::csv("start_age", |row| row.start(|rate| Value::duration(rate.age.as_ref()))),
    Column::csv("start_stale", |row| row.start(|rate| Value::Flag(rate.stale))),
    Column::csv("start_archived", |row| row.start(|rate| Value::Flag(rate.archived))),
    Column::csv("end_derivation", |row| row.end(|rate| Value::derivation(rate.derivation()))),
    Column::csv("end_legs", |row| row.end(|rate| runs::objects(&rate.legs))),
    Column::csv("end_age", |row| row.end(|rate| Value::duration(rate.age.as_ref()))),
    Column::csv("end_stale", |row| row.end(|rate| Value::Flag(rate.stale))),
    Column::csv("end_archived", |row| row.end(|rate| Value::Flag(rate.archived))),
    Column::data("sequence", |row| Value::Count(row.response.sequence)),
    Column::data("recorded_time", |row| Value::time(row.response.recorded_time.as_ref())),
];

/// Returns true if the source of a rate is archived.
fn is_archived(response: &GetChangeResponse) -> bool {
    response.start.iter().chain(&response.end).any(|rate| rate.archived)
}

/// Returns the rate at the start or the end of a change; `Absent` if there is no rate.
pub(super) fn rate_of(response: Option<&GetRateResponse>) -> Value {
    response.map_or(Value::Absent, |rate| Value::decimal(&rate.rate))
}

/// Returns the reason why a rate is missing; `Absent` if there is a rate.
pub(super) fn missing(reason: MissingReason) -> Value {
    Value::name(reason.as_str_name(), "MISSING_REASON_")
}

pub(super) async fn run(args: ChangeArgs, session: &Session) -> Result<Outcome, CliError> {
    let (start_time, start_date) = session.time_or_date(args.from)?;
    let (end_time, end_date) = session.time_or_date(args.to)?;
    let request = GetChangeRequest {
        pair: args.series.pair.clone(),
        source: args.series.choice.source,
        strict: args.series.choice.strict,
        leg_sources: args.legs.leg_sources,
        start_time,
        end_time,
        start_date,
        end_date,
        time_zone: args.zone.zone,
        window: args.over.map(Window::try_from).transpose()?,
        decimal_places: args.places,
        known_time: session.time(args.known.known)?,
    };
    let is_table = session.style.format == Format::Table;
    let client = session.connect().await?;
    let response = client.answer(client.rates().get_change(client.request(request))).await?;
    let row = Row { pair: args.series.pair, response };
    if row.response.observed.is_some() && is_archived(&row.response) {
        note(&format!("warning: the rates of {} come from an archived source", clean(&row.pair)));
    }
    warn_of_stale_ends(&row, is_table);
    if is_table {
        let mut out = stdout();
        let text = describe(&row);
        for (number, line) in text.lines().enumerate() {
            let indent = if number == 0 { 2 } else { LABEL_CHARS };
            writeln!(out, "{}", fold(line, session.style.width, indent))?;
        }
        out.flush()?;
    } else {
        write_one(stdout(), session.style, COLUMNS, &row)?;
    }
    Ok(Outcome::Done)
}

/// Warns that a change is not observed, or that an end without the other was stale. A table says the former itself.
fn warn_of_stale_ends(Row { pair, response }: &Row, is_table: bool) {
    match response.observed {
        Some(false) if !is_table => {
            note(&format!("warning: the change of {} is not observed: the rate was stale", clean(pair)));
        }
        Some(_) => {}
        // Only one end has a rate.
        None => {
            for rate in response.start.iter().chain(&response.end) {
                rate::warn_of_rate(pair, rate);
            }
        }
    }
}

/// Describes a change: the percentage on the first line, then the start and the end on a line each.
fn describe(Row { pair, response }: &Row) -> String {
    let describe_rate = |response: &Option<GetRateResponse>| match response {
        Some(response) => clean(&response.rate).into_owned(),
        None => "?".to_owned(),
    };
    let mut text = format!("{}  {} -> {}", clean(pair), describe_rate(&response.start), describe_rate(&response.end));
    text.push_str(&describe_percent(response));
    text.push('\n');
    let start = describe_rate_at_time(response.start.as_ref(), response.start_missing_reason());
    let end = describe_rate_at_time(response.end.as_ref(), response.end_missing_reason());
    let _ = write!(text, "  from  {start}\n  to    {end}\n");
    text
}

/// Describes the percentage with its bounds. A change between rates that were stale has no percentage for people: nobody
/// observed whether the rate moved.
fn describe_percent(response: &GetChangeResponse) -> String {
    if response.observed == Some(false) {
        return "  not observed: the rate was stale".to_owned();
    }
    let mut text = String::new();
    if let Some(percent) = &response.percent_change {
        let _ = write!(text, "  {} %", clean(trim_zeros(percent)));
    }
    if let (Some(low), Some(high)) = (&response.percent_change_low, &response.percent_change_high) {
        let _ = write!(text, "  ({} % .. {} %)", clean(trim_zeros(low)), clean(trim_zeros(high)));
    }
    if response.below_resolution == Some(true) {
        text.push_str("  below resolution: the bounds include 0 %");
    }
    text
}

/// Describes the start or the end of a change:
/// `2025-12-08T00:00:00Z  0.00008 by timesca, reported change -0 %; last observed 3 d earlier`.
fn describe_rate_at_time(rate: Option<&GetRateResponse>, reason: MissingReason) -> String {
    let Some(rate) = rate else {
        return match reason {
            MissingReason::NoQuoteYet => "no quote yet at that time".to_owned(),
            MissingReason::Unspecified => "no rate".to_owned(),
        };
    };
    let mut text = clean(&rate.rate).into_owned();
    if let Value::Time(time) = Value::time(rate.time.as_ref()) {
        text.insert_str(0, &format!("{time}  "));
    }
    for (at, leg) in rate.legs.iter().enumerate() {
        let _ = write!(text, "{} {}", if at == 0 { " by" } else { " and" }, clean(&leg.source));
        if let Some(reported) = &leg.reported_change_percent {
            let _ = write!(text, ", reported change {} %", clean(reported));
        }
    }
    if let Value::Duration(age @ Timestamp::SECOND_US..) = Value::duration(rate.age.as_ref()) {
        let stale = if rate.stale { "STALE, " } else { "" };
        let _ = write!(text, "; {stale}last observed {} earlier", format_rounded_duration(age));
    }
    if let Value::Duration(difference) = Value::duration(rate.leg_age_difference.as_ref()) {
        let _ = write!(text, ", leg ages differ by {}", format_rounded_duration(difference));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::Run;

    fn rate_response(rate: &str, age_s: i64, reported: Option<&str>) -> GetRateResponse {
        let leg = Run {
            source: "timesca".to_owned(),
            rate: rate.to_owned(),
            reported_change_percent: reported.map(str::to_owned),
            ..Run::default()
        };
        GetRateResponse {
            rate: rate.to_owned(),
            legs: vec![leg],
            age: Some(prost_types::Duration { seconds: age_s, nanos: 0 }),
            time: Some(prost_types::Timestamp { seconds: 86_400, nanos: 0 }),
            ..GetRateResponse::default()
        }
    }

    #[test]
    fn change_is_described_with_bounds_start_and_end() {
        let check = |response, expect: &str| {
            assert_eq!(describe(&Row { pair: "UZS/USD".to_owned(), response }), expect);
        };
        let flat = GetChangeResponse {
            start: Some(rate_response("0.00008", 0, None)),
            end: Some(rate_response("0.00008", 259_200, Some("-0"))),
            percent_change: Some("0.000000".to_owned()),
            percent_change_low: Some("-11.764706".to_owned()),
            percent_change_high: Some("13.333334".to_owned()),
            below_resolution: Some(true),
            ..GetChangeResponse::default()
        };
        check(
            flat,
            "UZS/USD  0.00008 -> 0.00008  0 %  (-11.764706 % .. 13.333334 %)  below resolution: the bounds include 0 %\n  \
             from  1970-01-02T00:00:00Z  0.00008 by timesca\n  \
             to    1970-01-02T00:00:00Z  0.00008 by timesca, reported change -0 %; last observed 3 d earlier\n",
        );
        let mut stale = rate_response("0.00009", 27_648_000, None);
        stale.stale = true;
        let unobserved = GetChangeResponse {
            start: Some(rate_response("0.00009", 0, None)),
            end: Some(stale),
            percent_change: Some("0.000000".to_owned()),
            percent_change_low: Some("-10.526316".to_owned()),
            percent_change_high: Some("11.764706".to_owned()),
            below_resolution: Some(true),
            observed: Some(false),
            ..GetChangeResponse::default()
        };
        check(
            unobserved,
            "UZS/USD  0.00009 -> 0.00009  not observed: the rate was stale\n  \
             from  1970-01-02T00:00:00Z  0.00009 by timesca\n  \
             to    1970-01-02T00:00:00Z  0.00009 by timesca; STALE, last observed 10 mo earlier\n",
        );
        let without_start = GetChangeResponse {
            start_missing_reason: MissingReason::NoQuoteYet.into(),
            end: Some(rate_response("0.00009", 0, None)),
            ..GetChangeResponse::default()
        };
        check(
            without_start,
            "UZS/USD  ? -> 0.00009\n  from  no quote yet at that time\n  to    1970-01-02T00:00:00Z  0.00009 by timesca\n",
        );
    }
}
