//! `compare`: two sources of a pair, day by day: by how much they differ, where they part, and which of them lags.

use std::fmt::Write as _;
use std::io::Write as _;

use clap::Args;

use super::change::{missing, rate_of};
use super::changes::{age_of, older};
use super::output::Column;
use super::pages::{Page, limit, list_without, note_rest};
use super::text::{clean, fold, plural, trim_zeros};
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, KnownArgs, Outcome, Session, ZoneArgs, rate, stdout};
use crate::analysis::Zone;
use crate::proto::v1::{
    ApartStretch, CompareSourcesRequest, ComparedDay, ComparisonSummary, Derivation, GetRateResponse,
};

/// Days asked for at a time: a megabyte a message.
const PAGE_DAYS_MAX: u64 = 1_000;
/// Days where none are named.
const DAYS_DEFAULT: u32 = 30;
/// Columns of a terminal that has room for bounds beside the rest.
const BOUNDS_WIDTH_MIN: u16 = 100;
/// Places of percentages in a table where none are asked for: more do not fit beside the rest.
const TABLE_PLACES: u32 = 4;

const EXAMPLES: &str = "\
Examples:
  silkrate compare --pair KGS/USD --sources timesca,nbkr
  silkrate compare --pair USD/UZS --sources cbu,timesca --days 90 --zone Asia/Tashkent
  silkrate compare --pair KZT/USD --sources timesca,nbk --from 2025-01-01 --output csv

A row has the rates in force at the end of a day, or now, and by how much the
second differs from the first. The sources are apart where the bounds that
their published digits leave share no point. One lags the other by the fewest
days, up to 14, for which its rate is what the other said then.";

/// Arguments of `compare`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    /// Currencies around a slash, like KGS/USD
    #[arg(long, value_name = "PAIR")]
    pair: String,
    /// The two who published it; a pair that one does not publish is derived
    #[arg(long, value_name = "SLUG,SLUG", value_delimiter = ',', required = true)]
    sources: Vec<String>,
    /// The last so many days, the present one included; 30 if neither they nor a time is given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "from")]
    days: Option<u32>,
    /// Days that begin at this time or later
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArgument>,
    /// Days that begin before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<TimeArgument>,
    #[command(flatten)]
    zone: ZoneArgs,
    /// Decimal places of the percentages; 4 in a table and else 6 if left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=12))]
    places: Option<u32>,
    /// Most rows; in a table as many as --days asks for, else 50; no limit in JSON and CSV unless given
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    known: KnownArgs,
}

/// What was asked for, which answers leave out.
#[derive(Clone)]
struct Asked {
    pair: String,
    first: String,
    second: String,
    zone: Zone,
}

/// A row under what was asked for.
struct Row {
    asked: Asked,
    day: ComparedDay,
}

const COLUMNS: &[Column<Row>] = &[
    Column::data("pair", |row| Value::text(&row.asked.pair)),
    Column::data("first_source", |row| Value::text(&row.asked.first)),
    Column::data("second_source", |row| Value::text(&row.asked.second)),
    Column::data("period_start_time", |row| Value::time(row.day.period_start_time.as_ref())),
    Column::data("period_end_time", |row| Value::time(row.day.period_end_time.as_ref())),
    Column::table("day", |row| Value::text(&date(row.asked.zone, row.day.period_start_time.as_ref()))),
    Column::data("complete", |row| Value::Flag(row.day.complete)),
    Column::json("first", |row| row.side(row.day.first.as_ref())),
    Column::json("second", |row| row.side(row.day.second.as_ref())),
    Column::csv("first_rate", |row| rate_of(row.day.first.as_ref())),
    Column::csv("first_published", |row| published(row.day.first.as_ref())),
    Column::csv("first_age", |row| age_of(row.day.first.as_ref())),
    Column::csv("second_rate", |row| rate_of(row.day.second.as_ref())),
    Column::csv("second_published", |row| published(row.day.second.as_ref())),
    Column::csv("second_age", |row| age_of(row.day.second.as_ref())),
    Column::table("first", |row| rate_of(row.day.first.as_ref())),
    Column::table("second", |row| rate_of(row.day.second.as_ref())),
    Column::data("first_missing_reason", |row| missing(row.day.first_missing_reason())),
    Column::data("second_missing_reason", |row| missing(row.day.second_missing_reason())),
    Column::data("absolute_difference", |row| Value::decimal_or_absent(row.day.absolute_difference.as_ref())),
    Column::new("percent_difference", "%", |row| Value::decimal_or_absent(row.day.percent_difference.as_ref())),
    Column::new("percent_difference_low", BOUNDS[0], |row| {
        Value::decimal_or_absent(row.day.percent_difference_low.as_ref())
    }),
    Column::new("percent_difference_high", BOUNDS[1], |row| {
        Value::decimal_or_absent(row.day.percent_difference_high.as_ref())
    }),
    Column::data("overlap", |row| row.day.overlap.map_or(Value::Absent, Value::Flag)),
    Column::table("apart", |row| apart_in_words(&row.day)),
    Column::data("stretch_begins", |row| Value::Flag(row.day.stretch_begins)),
    Column::data("stretch_ends", |row| Value::Flag(row.day.stretch_ends)),
    Column::data("first_lag_days", |row| lag(row.day.first_lag_days)),
    Column::data("second_lag_days", |row| lag(row.day.second_lag_days)),
    Column::table("lags", |row| lags_in_words(&row.asked, &row.day)),
    Column::table("age", |row| older(age_of(row.day.first.as_ref()), age_of(row.day.second.as_ref()))),
];

/// Heads of the columns of bounds.
const BOUNDS: [&str; 2] = ["low %", "high %"];

impl Row {
    fn side(&self, side: Option<&GetRateResponse>) -> Value {
        side.map_or(Value::Absent, |side| rate::object(&self.asked.pair, side))
    }
}

/// What a side published, if it is one number.
fn published(side: Option<&GetRateResponse>) -> Value {
    match side.map(|side| side.legs.as_slice()) {
        Some([only]) => Value::decimal(&only.rate),
        _ => Value::Absent,
    }
}

fn lag(days: Option<u32>) -> Value {
    days.map_or(Value::Absent, |days| Value::Count(days.into()))
}

/// The day that begins at `start`, by the clocks of `zone`.
fn date(zone: Zone, start: Option<&prost_types::Timestamp>) -> String {
    day_at(zone, start, 0)
}

/// The day before the one that begins at `end`.
fn date_before(zone: Zone, end: Option<&prost_types::Timestamp>) -> String {
    day_at(zone, end, -1)
}

/// The day so many microseconds after `time`.
fn day_at(zone: Zone, time: Option<&prost_types::Timestamp>, after_us: i64) -> String {
    let Value::Time(time) = Value::time(time) else { return String::new() };
    zone.local(time.saturating_add_us(after_us)).date().to_string()
}

fn apart_in_words(day: &ComparedDay) -> Value {
    match day.overlap {
        None => Value::Absent,
        Some(true) => Value::text("no"),
        Some(false) => Value::text(match (day.stretch_begins, day.stretch_ends) {
            (true, true) => "1 day",
            (true, false) => "begins",
            (false, true) => "ends",
            (false, false) => "yes",
        }),
    }
}

/// `timesca 2 d`; where each lags the other, one below the other if there is no room.
fn lags_in_words(asked: &Asked, day: &ComparedDay) -> Value {
    let sides = [(&asked.first, day.first_lag_days), (&asked.second, day.second_lag_days)];
    let said = sides.iter().filter_map(|(who, days)| Some(Value::Text(format!("{who} {} d", (*days)?))));
    let said: Vec<Value> = said.collect();
    if said.is_empty() { Value::Absent } else { Value::List(said) }
}

/// How a side came about: `as published`, or from what.
fn derived_in_words(side: Option<&GetRateResponse>) -> String {
    let Some(side) = side else { return "without a rate yet".to_owned() };
    let of: Vec<&str> = side.legs.iter().map(|leg| leg.pair.as_str()).collect();
    match side.derivation() {
        Derivation::Direct | Derivation::Unspecified => "as published".to_owned(),
        Derivation::Inverse => format!("as one over {}", of.join("")),
        Derivation::Cross => format!("as a cross of {}", of.join(" and ")),
    }
}

/// What the pages hold beside the rows of the table.
#[derive(Default)]
struct Beside {
    summary: Option<ComparisonSummary>,
    newest: Option<ComparedDay>,
}

pub(super) async fn run(args: CompareArgs, session: &Session) -> Result<Outcome, CliError> {
    let asked = Asked {
        pair: args.pair.clone(),
        first: args.sources.first().cloned().unwrap_or_default(),
        second: args.sources.get(1).cloned().unwrap_or_default(),
        zone: Zone::parse(&args.zone.zone).unwrap_or(Zone::UTC),
    };
    let named = args.from.is_some() || args.to.is_some();
    let request = CompareSourcesRequest {
        pair: args.pair,
        sources: args.sources,
        start_time: session.time(args.from)?,
        end_time: session.time(args.to)?,
        last_days: args.days.or_else(|| (!named).then_some(DAYS_DEFAULT)),
        time_zone: args.zone.zone,
        decimal_places: args.places.or_else(|| session.is_table().then_some(TABLE_PLACES)),
        known_time: session.time(args.known.known)?,
        page_size: 0,
        page_token: String::new(),
    };
    let client = session.connect().await?;
    let mut beside = Beside::default();
    let is_narrow = session.style.width.is_some_and(|width| width < BOUNDS_WIDTH_MIN);
    let hidden: &[&str] = if session.is_table() && is_narrow { &BOUNDS } else { &[] };
    // The newest day comes last: who asks for so many days is not to miss it.
    let asked_rows = args.limit.or(args.days.map(u64::from));
    let rows = limit(session, asked_rows);
    let listed = list_without(session, COLUMNS, hidden, rows, PAGE_DAYS_MAX, async |page_size, page_token| {
        let request = CompareSourcesRequest { page_size, page_token, ..request.clone() };
        let page = client.answer(client.rates().compare_sources(client.request(request))).await?;
        if page.summary.is_some() && session.is_table() && !page.days.is_empty() {
            write_folded(session, &heading(&asked, &page.days))?;
        }
        beside.summary = beside.summary.take().or(page.summary);
        beside.newest = page.days.last().cloned().or(beside.newest.take());
        let row = |day| Row { asked: asked.clone(), day };
        Ok(Page::new(page.days.into_iter().map(row), page.next_page_token))
    });
    let listed = listed.await?;
    if session.is_table() && listed.rows > 0 {
        let newest = beside.newest.filter(|_| !listed.more);
        if let Some(summary) = &beside.summary {
            write_folded(session, &in_words(&asked, summary, newest.as_ref()))?;
        }
    }
    note_rest(session, &listed, asked_rows, "days", "no day of that range has a rate");
    Ok(Outcome::Done)
}

fn write_folded(session: &Session, line: &str) -> Result<(), CliError> {
    let mut out = stdout();
    writeln!(out, "{}", fold(line, session.style.width, 2))?;
    Ok(out.flush()?)
}

/// Which side is whose, and how it came about on the newest of these days.
fn heading(asked: &Asked, days: &[ComparedDay]) -> String {
    let side = |of: fn(&ComparedDay) -> Option<&GetRateResponse>| derived_in_words(days.iter().rev().find_map(of));
    let (first, second) = (side(|day| day.first.as_ref()), side(|day| day.second.as_ref()));
    let line = format!("{}: first {} {first}, second {} {second}", asked.pair, asked.first, asked.second);
    clean(&line).into_owned()
}

/// What it comes to: `Apart on 3 of 30 days, ...`, and how it stands on `newest`, the last of the days asked for.
fn in_words(asked: &Asked, summary: &ComparisonSummary, newest: Option<&ComparedDay>) -> String {
    let days = plural(summary.compared_day_count.into(), "day");
    let mut text = match summary.apart_day_count {
        _ if summary.compared_day_count == 0 => "No day has a rate of both.".to_owned(),
        0 => format!("Never apart on {days}: the published digits may mean one rate."),
        apart => format!("Apart on {apart} of {days}."),
    };
    let lags = [
        (&asked.first, summary.first_lag_day_count, &asked.second),
        (&asked.second, summary.second_lag_day_count, &asked.first),
    ];
    for (who, count, whom) in lags.into_iter().filter(|(_, count, _)| *count > 0) {
        let _ = write!(text, " On {count} of these {who} lags {whom}.");
    }
    if let Some(longest) = summary.longest_stretch.filter(|longest| longest.day_count > 1) {
        let _ = write!(text, " The longest stretch: {}.", stretch_in_words(asked.zone, &longest));
    }
    if let Some(percent) = &summary.largest_percent_difference {
        let day = date(asked.zone, summary.largest_difference_time.as_ref());
        let _ = write!(text, " The largest difference: {} % on {day}.", trim_zeros(percent));
    }
    text.push_str(&now_in_words(asked, summary.last_stretch.as_ref(), newest));
    clean(&text).into_owned()
}

/// `5 days, 2025-12-01 to 2025-12-05`.
fn stretch_in_words(zone: Zone, stretch: &ApartStretch) -> String {
    let (start, end) = (date(zone, stretch.start_time.as_ref()), date_before(zone, stretch.end_time.as_ref()));
    let earlier = if stretch.began_earlier { ", begun earlier" } else { "" };
    format!("{}, {start} to {end}{earlier}", plural(stretch.day_count.into(), "day"))
}

/// Since when they are apart, or together again.
fn now_in_words(asked: &Asked, last: Option<&ApartStretch>, newest: Option<&ComparedDay>) -> String {
    let Some(last) = last else { return String::new() };
    if !last.goes_on {
        return format!(" Together since {}.", date(asked.zone, last.end_time.as_ref()));
    }
    let since = if last.began_earlier { "since before" } else { "since" };
    let mut text = format!(" Apart {since} {}", date(asked.zone, last.start_time.as_ref()));
    if let Some(day) = newest {
        let lags =
            [(&asked.first, day.first_lag_days, &asked.second), (&asked.second, day.second_lag_days, &asked.first)];
        for (who, days, whom) in lags {
            if let Some(days) = days {
                let _ = write!(text, "; {who} lags {whom} by {}", plural(days.into(), "day"));
            }
        }
    }
    text.push('.');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::table;

    #[test]
    fn a_day_on_which_each_lags_the_other_fits_a_terminal() {
        let [first, second] = ["timesca", "nbkr"].map(str::to_owned);
        let asked = Asked { pair: "KGS/USD".to_owned(), first, second, zone: Zone::UTC };
        let rate = |rate: &str| Some(GetRateResponse { rate: rate.to_owned(), ..GetRateResponse::default() });
        let age = prost_types::Duration { seconds: 47 * 3_600, nanos: 0 };
        let day = ComparedDay {
            period_start_time: Some(prost_types::Timestamp { seconds: 1_763_769_600, nanos: 0 }),
            first: rate("0.01033").map(|first| GetRateResponse { age: Some(age), ..first }),
            second: rate("0.0103993344425957"),
            percent_difference: Some("-0.6712".to_owned()),
            percent_difference_low: Some("-0.7200".to_owned()),
            percent_difference_high: Some("-0.6224".to_owned()),
            overlap: Some(false),
            stretch_begins: true,
            first_lag_days: Some(12),
            second_lag_days: Some(8),
            ..ComparedDay::default()
        };
        let rows = [Row { asked, day }];
        assert_eq!(
            table(COLUMNS, &BOUNDS, 80, &rows),
            "day           first              second        %  apart   lags          age\n\
             2025-11-22  0.01033  0.0103993344425957  -0.6712  begins  timesca 12 d  47 h\n                                                          \
             nbkr 8 d\n"
        );
        let with_bounds = table(COLUMNS, &[], BOUNDS_WIDTH_MIN, &rows);
        assert!(with_bounds.starts_with("day           first              second        %    low %"), "{with_bounds}");
    }
}
