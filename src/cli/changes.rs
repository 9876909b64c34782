//! The `changes` command: percent changes by period, with their bounds.

use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::change::{missing, rate_of};
use super::legs::{self, CommonParts, note_parts};
use super::output::Column;
use super::pages::{OrderArgs, Page, list, note_rest};
use super::text::trim_zeros;
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, KnownArgs, LegArgs, Outcome, PairArgs, Session, ZoneArgs, rate};
use crate::domain::Timestamp;
use crate::proto::v1::{ChangePeriod, GetRateResponse, ListChangesRequest, PeriodChange};

/// The maximum number of changes per page. A page is about one megabyte.
const PAGE_CHANGES_MAX: u64 = 1_000;

const EXAMPLES: &str = "\
Examples:
  silkrate changes KGS/USD --from -1mo
  silkrate changes KGS/USD --period month --time-zone Asia/Bishkek
  silkrate changes UZS/USD --period ytd --from 2025-12-01 --output csv

Each row is one period. The change goes from the end of the previous period to
the end of this period (or to now). In the table, start and end are the rates at
these two times. Because published rates are rounded to their last digit, the
percentage has bounds, low and high. If the bounds include 0 %, the change is
below resolution: the digits cannot tell whether the rate changed. The age is
the time since a rate was last observed. The table shows the larger of the two
ages.";

/// Arguments of `changes`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ChangesArgs {
    #[command(flatten)]
    series: PairArgs,
    #[command(flatten)]
    legs: LegArgs,
    /// Length of a period; ytd compares each day with the end of the previous year
    #[arg(long, value_enum, ignore_case = true, value_name = "PERIOD", default_value_t = Period::Day)]
    period: Period,
    #[command(flatten)]
    zone: ZoneArgs,
    /// Show only periods that begin at this time or later
    #[arg(long, alias = "start-time", value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArgument>,
    /// Show only periods that begin before this time
    #[arg(long, alias = "end-time", value_name = "TIME", allow_hyphen_values = true)]
    to: Option<TimeArgument>,
    /// Decimal places of the percentages, 0 to 12; default 6
    #[arg(long = "decimal-places", alias = "places", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=12))]
    places: Option<u32>,
    /// Maximum number of rows; default 50 in a table, unlimited in json and csv
    #[arg(long, alias = "page-size", value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    order: OrderArgs,
    #[command(flatten)]
    known: KnownArgs,
}

/// The length of a period. `Ytd` compares each day with the end of the previous year.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Period {
    #[value(aliases = ["day-on-day", "day_on_day"])]
    Day,
    #[value(aliases = ["week-on-week", "week_on_week"])]
    Week,
    #[value(aliases = ["month-on-month", "month_on_month"])]
    Month,
    #[value(aliases = ["year-on-year", "year_on_year"])]
    Year,
    #[value(aliases = ["year-to-date", "year_to_date"])]
    Ytd,
}

impl From<Period> for ChangePeriod {
    fn from(period: Period) -> Self {
        match period {
            Period::Day => Self::DayOnDay,
            Period::Week => Self::WeekOnWeek,
            Period::Month => Self::MonthOnMonth,
            Period::Year => Self::YearOnYear,
            Period::Ytd => Self::YearToDate,
        }
    }
}

/// A change, and what it does not contain: the requested pair and period, and the common parts of the list.
struct Row {
    pair: String,
    period: Period,
    change: PeriodChange,
    parts: Arc<CommonParts>,
}

/// Formats a percentage for a table, without trailing zeros.
fn percent(text: Option<&String>) -> Value {
    text.map_or(Value::Absent, |text| Value::decimal(trim_zeros(text)))
}

const COLUMNS: &[Column<Row>] = &[
    Column::new("pair", "pair", |row| Value::text(&row.pair)),
    Column::data("derivation", |row| Value::derivation(row.parts.derivation)),
    Column::data("period_start_time", |row| Value::time(row.change.period_start_time.as_ref())),
    Column::data("period_start_date", |row| Value::text(&row.change.period_start_date)),
    Column::table("period", |row| {
        let date = row.change.period_start_date.as_str();
        Value::text(match row.period {
            Period::Month => date.get(..7).unwrap_or(date),
            Period::Year => date.get(..4).unwrap_or(date),
            Period::Day | Period::Week | Period::Ytd => date,
        })
    }),
    Column::data("period_end_time", |row| Value::time(row.change.period_end_time.as_ref())),
    Column::new("complete", "complete", |row| Value::Flag(row.change.complete)),
    Column::json("start", |row| object_of(row, row.change.start.as_ref())),
    Column::csv("start_rate", |row| rate_of(row.change.start.as_ref())),
    Column::table("start", |row| rate_of(row.change.start.as_ref())),
    Column::json("end", |row| object_of(row, row.change.end.as_ref())),
    Column::csv("end_rate", |row| rate_of(row.change.end.as_ref())),
    Column::csv("start_age", |row| age_of(row.change.start.as_ref())),
    Column::csv("end_age", |row| age_of(row.change.end.as_ref())),
    Column::table("end", |row| rate_of(row.change.end.as_ref())),
    Column::data("start_missing_reason", |row| missing(row.change.start_missing_reason())),
    Column::data("end_missing_reason", |row| missing(row.change.end_missing_reason())),
    Column::data("absolute_change", |row| Value::decimal_or_absent(row.change.absolute_change.as_ref())),
    Column::data("percent_change", |row| Value::decimal_or_absent(row.change.percent_change.as_ref())),
    Column::data("percent_change_low", |row| Value::decimal_or_absent(row.change.percent_change_low.as_ref())),
    Column::data("percent_change_high", |row| Value::decimal_or_absent(row.change.percent_change_high.as_ref())),
    Column::table("%", |row| match row.change.observed {
        Some(false) => Value::text("not observed"),
        _ => percent(row.change.percent_change.as_ref()),
    }),
    Column::table("low %", |row| percent(observed(row, row.change.percent_change_low.as_ref()))),
    Column::table("high %", |row| percent(observed(row, row.change.percent_change_high.as_ref()))),
    Column::data("below_resolution", |row| row.change.below_resolution.map_or(Value::Absent, Value::Flag)),
    Column::table("cannot tell", |row| observed(row, row.change.below_resolution).map_or(Value::Absent, Value::Flag)),
    Column::data("observed", |row| row.change.observed.map_or(Value::Absent, Value::Flag)),
    Column::data("time_zone", |row| Value::text(&row.parts.time_zone)),
    Column::data("legs", |row| legs::objects(&row.parts.legs)),
    Column::data("archived", |row| Value::Flag(legs::any_archived(&row.parts.legs))),
    Column::table("age", |row| older(age_of(row.change.start.as_ref()), age_of(row.change.end.as_ref()))),
];

/// Returns `value`, or `None` if the rate was stale at the start or the end of the change: a table then says "not
/// observed" and shows no numbers.
fn observed<T>(row: &Row, value: Option<T>) -> Option<T> {
    value.filter(|_| row.change.observed != Some(false))
}

/// Converts the rate at the start or the end of a change to a JSON record; `Absent` if there is no rate.
fn object_of(row: &Row, response: Option<&GetRateResponse>) -> Value {
    response.map_or(Value::Absent, |response| rate::object(&row.pair, response))
}

/// Returns the age of the rate at the start or the end of a change; `Absent` if there is no rate.
pub(super) fn age_of(response: Option<&GetRateResponse>) -> Value {
    response.map_or(Value::Absent, |response| Value::duration(response.age.as_ref()))
}

/// Returns the larger of two ages, or `Absent` if both are under a second.
pub(super) fn older(start: Value, end: Value) -> Value {
    let micros = |age: &Value| if let Value::Duration(micros) = age { *micros } else { 0 };
    let older = if micros(&start) > micros(&end) { start } else { end };
    if micros(&older) < Timestamp::SECOND_US { Value::Absent } else { older }
}

pub(super) async fn run(args: ChangesArgs, session: &Session) -> Result<Outcome, CliError> {
    let selection = args.order.selection(session, args.limit, args.from.is_some());
    let (start_time, start_date) = session.time_or_date(args.from)?;
    let (end_time, end_date) = session.time_or_date(args.to)?;
    let request = ListChangesRequest {
        pair: args.series.pair.clone(),
        source: args.series.choice.source,
        strict: args.series.choice.strict,
        leg_sources: args.legs.leg_sources,
        period: ChangePeriod::from(args.period).into(),
        time_zone: args.zone.zone,
        start_time,
        end_time,
        start_date,
        end_date,
        decimal_places: args.places,
        known_time: session.time(args.known.known)?,
        descending: selection.descending,
        page_size: 0,
        page_token: String::new(),
    };
    let client = session.connect().await?;
    let mut parts = Arc::<CommonParts>::default();
    let listed = list(session, COLUMNS, &[], selection, PAGE_CHANGES_MAX, async |page_size, page_token| {
        let request = ListChangesRequest { page_size, page_token, ..request.clone() };
        let page = client.answer(client.rates().list_changes(client.request(request))).await?;
        let derivation = page.derivation();
        parts = Arc::new(CommonParts { legs: page.legs, derivation, time_zone: page.time_zone });
        let row = |change| {
            let (pair, period) = (args.series.pair.clone(), args.period);
            Row { pair, period, change, parts: Arc::clone(&parts) }
        };
        Ok(Page::new(page.changes.into_iter().map(row), page.next_page_token))
    });
    let listed = listed.await?;
    note_parts(session, &parts, true);
    note_rest(session, (&listed, selection), args.limit, "periods", "no period in that range has a rate");
    Ok(Outcome::Done)
}
