//! `candles`: what a rate did in one bucket of time after the other.

use clap::{Args, ValueEnum};

use super::cell::Cell;
use super::output::Column;
use super::pages::{Page, limit, list, note_rest};
use super::when::When;
use super::{CliError, KnownArgs, LegArgs, Outcome, PairArgs, Session, ZoneArgs};
use crate::proto::v1::{Candle, CandleInterval, Derivation, ListCandlesRequest};

/// Candles asked for at a time: a megabyte a message.
const PAGE_CANDLES_MAX: u64 = 5_000;

const EXAMPLES: &str = "\
Examples:
  silkrate candles KGS/USD --from -1mo
  silkrate candles KGS/KZT --interval 1h --from -2d --zone Asia/Almaty
  silkrate candles KGS/USD --interval 1w --fill --observations --output csv

Rates hold until the next one comes: the open is the rate in force when the
bucket begins, and the average is weighted by time.";

/// Arguments of `candles`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CandlesArgs {
    #[command(flatten)]
    series: PairArgs,
    #[command(flatten)]
    legs: LegArgs,
    /// How long buckets are; weeks begin on Monday
    #[arg(long, value_enum, value_name = "LENGTH", default_value_t = Interval::Day)]
    interval: Interval,
    #[command(flatten)]
    zone: ZoneArgs,
    /// Buckets that begin at this time or later
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<When>,
    /// Buckets that begin before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<When>,
    /// Also buckets in which nothing was observed, with the close before
    #[arg(long)]
    fill: bool,
    /// Also count observations, which takes longer
    #[arg(long)]
    observations: bool,
    /// Most rows; 50 in a table, no limit in JSON and CSV unless given
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    known: KnownArgs,
}

/// How long buckets are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Interval {
    #[value(name = "1m")]
    Minute,
    #[value(name = "5m")]
    FiveMinutes,
    #[value(name = "15m")]
    FifteenMinutes,
    #[value(name = "1h")]
    Hour,
    #[value(name = "4h")]
    FourHours,
    #[value(name = "1d")]
    Day,
    #[value(name = "1w")]
    Week,
    #[value(name = "1mo")]
    Month,
}

impl From<Interval> for CandleInterval {
    fn from(interval: Interval) -> Self {
        match interval {
            Interval::Minute => Self::Minute,
            Interval::FiveMinutes => Self::FiveMinutes,
            Interval::FifteenMinutes => Self::FifteenMinutes,
            Interval::Hour => Self::Hour,
            Interval::FourHours => Self::FourHours,
            Interval::Day => Self::Day,
            Interval::Week => Self::Week,
            Interval::Month => Self::Month,
        }
    }
}

/// A row under the pair asked for, which it leaves out.
struct Row {
    pair: String,
    derivation: Derivation,
    candle: Candle,
}

const COLUMNS: &[Column<Row>] = &[
    Column::new("pair", "pair", |row| Cell::text(&row.pair)),
    Column::data("derivation", |row| Cell::derivation(row.derivation)),
    Column::new("start_time", "from", |row| Cell::time(row.candle.start_time.as_ref())),
    Column::data("end_time", |row| Cell::time(row.candle.end_time.as_ref())),
    Column::new("complete", "complete", |row| Cell::Flag(row.candle.complete)),
    Column::data("filled", |row| Cell::Flag(row.candle.filled)),
    Column::new("open", "open", |row| Cell::decimal(&row.candle.open)),
    Column::data("open_time", |row| Cell::time(row.candle.open_time.as_ref())),
    Column::new("high", "high", |row| Cell::decimal(&row.candle.high)),
    Column::data("high_time", |row| Cell::time(row.candle.high_time.as_ref())),
    Column::new("low", "low", |row| Cell::decimal(&row.candle.low)),
    Column::data("low_time", |row| Cell::time(row.candle.low_time.as_ref())),
    Column::new("close", "close", |row| Cell::decimal(&row.candle.close)),
    Column::data("close_time", |row| Cell::time(row.candle.close_time.as_ref())),
    Column::new("average", "average", |row| Cell::decimal(&row.candle.average)),
    Column::new("move_count", "moves", |row| Cell::Count(row.candle.move_count)),
    Column::new("observation_count", "observations", |row| {
        row.candle.observation_count.map_or(Cell::Absent, Cell::Count)
    }),
];

pub(super) async fn run(args: CandlesArgs, session: &Session) -> Result<Outcome, CliError> {
    let request = ListCandlesRequest {
        pair: args.series.pair.clone(),
        source: args.series.source,
        leg_sources: args.legs.leg_sources,
        interval: CandleInterval::from(args.interval).into(),
        time_zone: args.zone.zone,
        start_time: session.time(args.from)?,
        end_time: session.time(args.to)?,
        fill_empty: args.fill,
        count_observations: args.observations,
        known_time: session.time(args.known.known)?,
        page_size: 0,
        page_token: String::new(),
    };
    let client = session.connect().await?;
    let rows = limit(session, args.limit);
    let listed = list(session, COLUMNS, rows, PAGE_CANDLES_MAX, async |page_size, page_token| {
        let request = ListCandlesRequest { page_size, page_token, ..request.clone() };
        let page = client.answer(client.rates().list_candles(client.request(request))).await?;
        let derivation = page.derivation();
        let row = |candle| Row { pair: args.series.pair.clone(), derivation, candle };
        Ok(Page { rows: page.candles.into_iter().map(row).collect(), next_page_token: page.next_page_token })
    });
    note_rest(
        session,
        &listed.await?,
        args.limit,
        "candles",
        "nothing was observed in that range; --fill shows what held",
    );
    Ok(Outcome::Done)
}
