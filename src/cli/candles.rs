//! The `candles` command: open, high, low, close and average of a rate by bucket of time.

use std::sync::Arc;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::legs::{self, CommonParts, note_parts};
use super::output::Column;
use super::pages::{OrderArgs, Page, list, note_rest};
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, KnownArgs, LegArgs, Outcome, PairArgs, Session, ZoneArgs};
use crate::domain::Interval;
use crate::proto::v1::{Candle, CandleInterval, ListCandlesRequest, RateBounds};

/// The maximum number of candles per page. A page is about one megabyte.
const PAGE_CANDLES_MAX: u64 = 5_000;

/// Returns a parser for the length of a candle. The help text lists the possible values.
pub(super) fn candle_length() -> impl TypedValueParser<Value = Interval> {
    PossibleValuesParser::new(Interval::CANDLES.map(Interval::name)).try_map(|text| text.parse::<Interval>())
}

const EXAMPLES: &str = "\
Examples:
  silkrate candles KGS/USD --from -1mo
  silkrate candles KGS/KZT --interval 1h --from -2d --time-zone Asia/Almaty
  silkrate candles KGS/USD --interval 1w --fill --observations --output csv

A rate holds until the next observation. The open is the rate in force at the
start of the bucket, and the average is weighted by time. Buckets without
observations are omitted unless --fill is given.";

/// Arguments of `candles`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CandlesArgs {
    #[command(flatten)]
    series: PairArgs,
    #[command(flatten)]
    legs: LegArgs,
    /// Length of a bucket; weeks begin on Monday
    #[arg(long, value_name = "LENGTH", default_value_t = Interval::Day, value_parser = candle_length())]
    interval: Interval,
    #[command(flatten)]
    zone: ZoneArgs,
    /// Show only buckets that begin at this time or later
    #[arg(long, alias = "start-time", value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArgument>,
    /// Show only buckets that begin before this time
    #[arg(long, alias = "end-time", value_name = "TIME", allow_hyphen_values = true)]
    to: Option<TimeArgument>,
    /// Also show buckets without observations, with the previous close
    #[arg(long, alias = "fill-empty")]
    fill: bool,
    /// Count the observations of each bucket; slower
    #[arg(long)]
    observations: bool,
    /// Maximum number of rows; default 50 in a table, unlimited in json and csv
    #[arg(long, alias = "page-size", value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    order: OrderArgs,
    #[command(flatten)]
    known: KnownArgs,
}

/// A candle, and what it does not contain: the requested pair and interval, and the common parts of the list.
struct Row {
    pair: String,
    interval: Interval,
    candle: Candle,
    parts: Arc<CommonParts>,
}

const COLUMNS: &[Column<Row>] = &[
    Column::new("pair", "pair", |row| Value::text(&row.pair)),
    Column::data("derivation", |row| Value::derivation(row.parts.derivation)),
    Column::data("start_time", |row| Value::time(row.candle.start_time.as_ref())),
    Column::data("start_date", |row| Value::text(&row.candle.start_date)),
    Column::table("from", |row| match row.candle.start_date.as_str() {
        "" => Value::time(row.candle.start_time.as_ref()),
        date if row.interval == Interval::Month => Value::text(date.get(..7).unwrap_or(date)),
        date => Value::text(date),
    }),
    Column::data("end_time", |row| Value::time(row.candle.end_time.as_ref())),
    Column::new("complete", "complete", |row| Value::Flag(row.candle.complete)),
    Column::data("filled", |row| Value::Flag(row.candle.filled)),
    Column::new("open", "open", |row| Value::decimal(&row.candle.open)),
    Column::data("open_time", |row| Value::time(row.candle.open_time.as_ref())),
    Column::new("high", "high", |row| Value::decimal(&row.candle.high)),
    Column::data("high_time", |row| Value::time(row.candle.high_time.as_ref())),
    Column::new("low", "low", |row| Value::decimal(&row.candle.low)),
    Column::data("low_time", |row| Value::time(row.candle.low_time.as_ref())),
    Column::new("close", "close", |row| Value::decimal(&row.candle.close)),
    Column::data("close_time", |row| Value::time(row.candle.close_time.as_ref())),
    Column::new("average", "average", |row| Value::decimal(&row.candle.average)),
    Column::new("move_count", "moves", |row| Value::Count(row.candle.move_count)),
    Column::json("open_bounds", |row| bounds(row.candle.open_bounds.as_ref())),
    Column::json("high_bounds", |row| bounds(row.candle.high_bounds.as_ref())),
    Column::json("low_bounds", |row| bounds(row.candle.low_bounds.as_ref())),
    Column::json("close_bounds", |row| bounds(row.candle.close_bounds.as_ref())),
    Column::json("average_bounds", |row| bounds(row.candle.average_bounds.as_ref())),
    Column::csv("open_low", |row| low(row.candle.open_bounds.as_ref())),
    Column::csv("open_high", |row| high(row.candle.open_bounds.as_ref())),
    Column::csv("high_low", |row| low(row.candle.high_bounds.as_ref())),
    Column::csv("high_high", |row| high(row.candle.high_bounds.as_ref())),
    Column::csv("low_low", |row| low(row.candle.low_bounds.as_ref())),
    Column::csv("low_high", |row| high(row.candle.low_bounds.as_ref())),
    Column::csv("close_low", |row| low(row.candle.close_bounds.as_ref())),
    Column::csv("close_high", |row| high(row.candle.close_bounds.as_ref())),
    Column::csv("average_low", |row| low(row.candle.average_bounds.as_ref())),
    Column::csv("average_high", |row| high(row.candle.average_bounds.as_ref())),
    Column::data("leg_age_difference", |row| Value::duration(row.candle.leg_age_difference.as_ref())),
    Column::data("time_zone", |row| Value::text(&row.parts.time_zone)),
    Column::data("legs", |row| legs::objects(&row.parts.legs)),
    Column::data("stale", |row| Value::Flag(legs::any_stale(&row.parts.legs))),
    Column::data("archived", |row| Value::Flag(legs::any_archived(&row.parts.legs))),
    Column::new("observation_count", "observations", |row| {
        row.candle.observation_count.map_or(Value::Absent, Value::Count)
    }),
];

/// Converts bounds to a JSON record.
fn bounds(bounds: Option<&RateBounds>) -> Value {
    let both = |bounds: &RateBounds| {
        Value::Record(vec![("low", Value::decimal(&bounds.low)), ("high", Value::decimal(&bounds.high))])
    };
    bounds.map_or(Value::Absent, both)
}

fn low(bounds: Option<&RateBounds>) -> Value {
    bounds.map_or(Value::Absent, |bounds| Value::decimal(&bounds.low))
}

fn high(bounds: Option<&RateBounds>) -> Value {
    bounds.map_or(Value::Absent, |bounds| Value::decimal(&bounds.high))
}

pub(super) async fn run(args: CandlesArgs, session: &Session) -> Result<Outcome, CliError> {
    let selection = args.order.selection(session, args.limit, args.from.is_some());
    let (start_time, start_date) = session.time_or_date(args.from)?;
    let (end_time, end_date) = session.time_or_date(args.to)?;
    let request = ListCandlesRequest {
        pair: args.series.pair.clone(),
        source: args.series.choice.source,
        strict: args.series.choice.strict,
        leg_sources: args.legs.leg_sources,
        interval: CandleInterval::from(args.interval).into(),
        time_zone: args.zone.zone,
        start_time,
        end_time,
        start_date,
        end_date,
        fill_empty: args.fill,
        count_observations: args.observations,
        known_time: session.time(args.known.known)?,
        descending: selection.descending,
        page_size: 0,
        page_token: String::new(),
    };
    let client = session.connect().await?;
    let mut parts = Arc::<CommonParts>::default();
    let listed = list(session, COLUMNS, &[], selection, PAGE_CANDLES_MAX, async |page_size, page_token| {
        let request = ListCandlesRequest { page_size, page_token, ..request.clone() };
        let page = client.answer(client.rates().list_candles(client.request(request))).await?;
        let derivation = page.derivation();
        parts = Arc::new(CommonParts { legs: page.legs, derivation, time_zone: page.time_zone });
        let row = |candle| {
            let (pair, interval) = (args.series.pair.clone(), args.interval);
            Row { pair, interval, candle, parts: Arc::clone(&parts) }
        };
        Ok(Page::new(page.candles.into_iter().map(row), page.next_page_token))
    });
    let listed = listed.await?;
    note_parts(session, &parts, args.interval.has_calendar_days());
    note_rest(
        session,
        (&listed, selection),
        args.limit,
        "candles",
        "no observations in that range; use --fill for the rates in force",
    );
    Ok(Outcome::Done)
}
