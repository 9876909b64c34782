//! The `compare` command: how two sources of a pair differ day by day, and which of them lags the other.

use std::fmt::Write as _;
use std::io::Write as _;

use clap::Args;

use super::change::{missing, rate_of};
use super::changes::{age_of, older};
use super::output::Column;
use super::pages::{OrderArgs, Page, is_narrow, list, note_rest};
use super::text::{clean, fold, plural, trim_zeros};
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, KnownArgs, Outcome, Session, ZoneArgs, note, parse_pair, rate, stdout};
use crate::analysis::Zone;
use crate::proto::v1::{
    ApartStretch, CompareSourcesRequest, ComparedDay, ComparisonSummary, Derivation, GetRateResponse,
};

/// The maximum number of days per page. A page is about one megabyte.
const PAGE_DAYS_MAX: u64 = 1_000;
/// The number of days without `--days`, `--from` and `--to`.
const DAYS_DEFAULT: u32 = 30;
/// The decimal places of percentages in a table without `--decimal-places`. More places do not fit the width of a
/// terminal.
const TABLE_PLACES: u32 = 4;

const EXAMPLES: &str = "\
Examples:
  silkrate compare KGS/USD --sources timesca,nbkr
  silkrate compare USD/UZS --sources cbu,timesca --days 90 --time-zone Asia/Tashkent
  silkrate compare KZT/USD --sources timesca,nbk --from 2025-01-01 --output csv

Each row has the rates in force at the end of a day (or now), and the percent
difference of the second source from the first. The published digits of a rate
allow an interval of values. The sources are apart on a day if their intervals
do not overlap. A source lags by N days if its interval overlaps the interval
that the other source had N days earlier. The smallest such N counts; it is at
most 14.";

/// Arguments of `compare`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    /// Pair as BASE/QUOTE, like KGS/USD: the rate is in USD for one KGS
    #[arg(value_name = "PAIR", value_parser = parse_pair, required_unless_present = "pair_option")]
    pair: Option<String>,
    /// The earlier spelling of PAIR.
    #[arg(long = "pair", id = "pair_option", hide = true, value_parser = parse_pair, conflicts_with = "pair")]
    pair_option: Option<String>,
    /// The two sources to compare; if a source does not publish the pair, its rate is derived
    #[arg(long, alias = "source", value_name = "SLUG,SLUG", value_delimiter = ',', required = true)]
    sources: Vec<String>,
    /// Number of most recent days, including today; default 30 without --from and --to
    #[arg(long, alias = "last-days", value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "from")]
    days: Option<u32>,
    /// Show only days that begin at this time or later
    #[arg(long, alias = "start-time", value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArgument>,
    /// Show only days that begin before this time
    #[arg(long, alias = "end-time", value_name = "TIME", allow_hyphen_values = true)]
    to: Option<TimeArgument>,
    #[command(flatten)]
    zone: ZoneArgs,
    /// Decimal places of the percentages, 0 to 12; default 4 in a table, 6 in json and csv
    #[arg(long = "decimal-places", alias = "places", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=12))]
    places: Option<u32>,
    /// Maximum number of rows; default the value of --days; without --days, 50 in a table and unlimited in json and csv
    #[arg(long, alias = "page-size", value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    order: OrderArgs,
    #[command(flatten)]
    known: KnownArgs,
}

impl CompareArgs {
    /// Returns true if the pair is given by its earlier spelling `--pair`.
    pub(super) const fn has_pair_option(&self) -> bool {
        self.pair_option.is_some()
    }
}

/// The requested comparison, which responses do not contain.
#[derive(Clone)]
struct Comparison {
    pair: String,
    first: String,
    second: String,
    zone: Zone,
}

/// A day with the requested comparison.
struct Row {
    comparison: Comparison,
    day: ComparedDay,
}

const COLUMNS: &[Column<Row>] = &[
    Column::data("pair", |row| Value::text(&row.comparison.pair)),
    Column::data("first_source", |row| Value::text(&row.comparison.first)),
    Column::data("second_source", |row| Value::text(&row.comparison.second)),
    Column::data("period_start_time", |row| Value::time(row.day.period_start_time.as_ref())),
    Column::data("period_end_time", |row| Value::time(row.day.period_end_time.as_ref())),
    Column::table("day", |row| Value::text(&date(row.comparison.zone, row.day.period_start_time.as_ref()))),
    Column::data("time_zone", |row| Value::text(&row.comparison.zone.to_string())),
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
    Column::table("apart", |row| describe_apart(&row.day)),
    Column::data("stretch_begins", |row| Value::Flag(row.day.stretch_begins)),
    Column::data("stretch_ends", |row| Value::Flag(row.day.stretch_ends)),
    Column::data("first_lag_days", |row| lag(row.day.first_lag_days)),
    Column::data("second_lag_days", |row| lag(row.day.second_lag_days)),
    Column::table("lags", |row| describe_lags(&row.comparison, &row.day)),
    Column::table("age", |row| older(age_of(row.day.first.as_ref()), age_of(row.day.second.as_ref()))),
];

/// The titles of the columns of bounds, which a narrow table omits.
const BOUNDS: [&str; 2] = ["low %", "high %"];

impl Row {
    /// Converts the rate of one source to a JSON record.
    fn side(&self, side: Option<&GetRateResponse>) -> Value {
        side.map_or(Value::Absent, |side| rate::object(&self.comparison.pair, side))
    }
}

/// Returns the rate that one source published for the pair or the reversed pair; `Absent` for a cross rate.
fn published(side: Option<&GetRateResponse>) -> Value {
    match side.map(|side| side.legs.as_slice()) {
        Some([only]) => Value::decimal(&only.rate),
        _ => Value::Absent,
    }
}

fn lag(days: Option<u32>) -> Value {
    days.map_or(Value::Absent, |days| Value::Count(days.into()))
}

/// Returns the date in `zone` of the day that begins at `start`.
fn date(zone: Zone, start: Option<&prost_types::Timestamp>) -> String {
    day_at(zone, start, 0)
}

/// Returns the date in `zone` of the day that ends at `end`.
fn date_before(zone: Zone, end: Option<&prost_types::Timestamp>) -> String {
    day_at(zone, end, -1)
}

/// Returns the date in `zone` of the instant `offset_us` microseconds after `time`.
fn day_at(zone: Zone, time: Option<&prost_types::Timestamp>, offset_us: i64) -> String {
    let Value::Time(time) = Value::time(time) else { return String::new() };
    zone.local(time.saturating_add_us(offset_us)).date().to_string()
}

/// Describes whether the sources are apart on a day, and whether a stretch of such days begins or ends with the day.
fn describe_apart(day: &ComparedDay) -> Value {
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

/// Describes the lags of a day: `timesca 2 d`, or a list of two if each source lags the other.
fn describe_lags(comparison: &Comparison, day: &ComparedDay) -> Value {
    let sides = [(&comparison.first, day.first_lag_days), (&comparison.second, day.second_lag_days)];
    let lags = sides.iter().filter_map(|(source, days)| Some(Value::Text(format!("{source} {} d", (*days)?))));
    let lags: Vec<Value> = lags.collect();
    if lags.is_empty() { Value::Absent } else { Value::List(lags) }
}

/// Describes the derivation of a source's rate: `as published`, or the pairs from which it was derived.
fn describe_derivation(side: Option<&GetRateResponse>) -> String {
    let Some(side) = side else { return "without a rate yet".to_owned() };
    let pairs: Vec<&str> = side.legs.iter().map(|leg| leg.pair.as_str()).collect();
    match side.derivation() {
        Derivation::Direct | Derivation::Unspecified => "as published".to_owned(),
        Derivation::Inverse => format!("as the inverse of {}", pairs.join("")),
        Derivation::Cross => format!("as a cross of {}", pairs.join(" and ")),
    }
}

/// Data of the pages for the summary below the table.
#[derive(Default)]
struct SummaryData {
    /// The summary of all requested days, from the first page.
    summary: Option<ComparisonSummary>,
    /// The newest day of the pages so far.
    newest: Option<ComparedDay>,
}

/// Returns the newest of the days, which are in order of time or the newest first.
fn newest_of<'d>(days: impl Iterator<Item = &'d ComparedDay>) -> Option<&'d ComparedDay> {
    days.max_by_key(|day| day.period_start_time.map(|time| (time.seconds, time.nanos)))
}

pub(super) async fn run(args: CompareArgs, session: &Session) -> Result<Outcome, CliError> {
    let pair = args.pair.or(args.pair_option).unwrap_or_default();
    let mut comparison = Comparison {
        pair: pair.clone(),
        first: args.sources.first().cloned().unwrap_or_default(),
        second: args.sources.get(1).cloned().unwrap_or_default(),
        zone: Zone::UTC,
    };
    // --days keeps its last day: a limit cuts off the first days.
    let requested_rows = args.limit.or(args.days.map(u64::from));
    let selection = args.order.selection(session, requested_rows, args.from.is_some());
    let (start_time, start_date) = session.time_or_date(args.from)?;
    let (end_time, end_date) = session.time_or_date(args.to)?;
    let has_range = start_time.is_some() || end_time.is_some() || !(start_date.is_empty() && end_date.is_empty());
    let request = CompareSourcesRequest {
        pair,
        sources: args.sources,
        start_time,
        end_time,
        start_date,
        end_date,
        last_days: args.days.or_else(|| (!has_range).then_some(DAYS_DEFAULT)),
        time_zone: args.zone.zone,
        decimal_places: args.places.or_else(|| session.is_table().then_some(TABLE_PLACES)),
        known_time: session.time(args.known.known)?,
        descending: selection.descending,
        page_size: 0,
        page_token: String::new(),
    };
    let client = session.connect().await?;
    let mut data = SummaryData::default();
    let hidden: &[&str] = if is_narrow(session) { &BOUNDS } else { &[] };
    let listed = list(session, COLUMNS, hidden, selection, PAGE_DAYS_MAX, async |page_size, page_token| {
        let request = CompareSourcesRequest { page_size, page_token, ..request.clone() };
        let page = client.answer(client.rates().compare_sources(client.request(request))).await?;
        comparison.zone = Zone::parse(&page.time_zone).unwrap_or(Zone::UTC);
        if page.summary.is_some() && session.is_table() && !page.days.is_empty() {
            write_folded(session, &heading(&comparison, &page.days))?;
        }
        data.summary = data.summary.take().or(page.summary);
        data.newest = newest_of(page.days.iter().chain(&data.newest)).cloned();
        let row = |day| Row { comparison: comparison.clone(), day };
        Ok(Page::new(page.days.into_iter().map(row), page.next_page_token))
    });
    let listed = listed.await?;
    let newest = data.newest.filter(|_| selection.descending || !listed.more);
    if let Some(newest) = &newest {
        warn_of_newest(&comparison, newest);
    }
    if let Some(summary) = data.summary.filter(|_| session.is_table() && listed.rows > 0) {
        write_folded(session, &describe(&comparison, &summary, newest.as_ref()))?;
    }
    note_rest(session, (&listed, selection), requested_rows, "days", "no day in that range has a rate");
    Ok(Outcome::Done)
}

/// Warns if the newest rate of a source is stale or comes from an archived source.
fn warn_of_newest(Comparison { first, second, .. }: &Comparison, newest: &ComparedDay) {
    for (source, rate) in [(first, &newest.first), (second, &newest.second)] {
        let Some(rate) = rate else { continue };
        if rate.stale {
            let source = clean(source);
            note(&format!("warning: {source} was stale on the last day; its rate may differ only because it is old"));
        }
        if rate.archived {
            note(&format!("warning: the source {} is archived", clean(source)));
        }
    }
}

/// Writes a line to standard output, folded to the width of the terminal.
fn write_folded(session: &Session, line: &str) -> Result<(), CliError> {
    let mut out = stdout();
    writeln!(out, "{}", fold(line, session.style.width, 2))?;
    Ok(out.flush()?)
}

/// Formats the heading: both sources, with the derivation of the newest rate of each.
fn heading(Comparison { pair, first, second, .. }: &Comparison, days: &[ComparedDay]) -> String {
    let derivation =
        |side: fn(&ComparedDay) -> Option<&GetRateResponse>| describe_derivation(days.iter().rev().find_map(side));
    let (of_first, of_second) = (derivation(|day| day.first.as_ref()), derivation(|day| day.second.as_ref()));
    let line = format!("{pair}: first {first} {of_first}, second {second} {of_second}");
    clean(&line).into_owned()
}

/// Describes the summary: `Apart on 3 of 30 days. ...`, and the state on `newest`, the last requested day.
fn describe(comparison: &Comparison, summary: &ComparisonSummary, newest: Option<&ComparedDay>) -> String {
    let days = plural(summary.compared_day_count.into(), "day");
    let mut text = match summary.apart_day_count {
        _ if summary.compared_day_count == 0 => "No day has a rate of both sources.".to_owned(),
        0 => format!("Never apart on {days}: on each day, one rate fits the published digits of both sources."),
        apart => format!("Apart on {apart} of {days}."),
    };
    let lags = [
        (&comparison.first, summary.first_lag_day_count, &comparison.second),
        (&comparison.second, summary.second_lag_day_count, &comparison.first),
    ];
    for (source, count, other) in lags.into_iter().filter(|(_, count, _)| *count > 0) {
        let _ = write!(text, " On {count} of these days {source} lags {other}.");
    }
    if let Some(longest) = summary.longest_stretch.filter(|longest| longest.day_count > 1) {
        let _ = write!(text, " Longest stretch: {}.", describe_stretch(comparison.zone, &longest));
    }
    if let Some(percent) = &summary.largest_percent_difference {
        let day = date(comparison.zone, summary.largest_difference_time.as_ref());
        let _ = write!(text, " Largest difference: {} % on {day}.", trim_zeros(percent));
    }
    text.push_str(&describe_now(comparison, summary.last_stretch.as_ref(), newest));
    clean(&text).into_owned()
}

/// Describes a stretch of days on which the sources are apart: `5 days, 2025-12-01 to 2025-12-05`.
fn describe_stretch(zone: Zone, stretch: &ApartStretch) -> String {
    let (start, end) = (date(zone, stretch.start_time.as_ref()), date_before(zone, stretch.end_time.as_ref()));
    let earlier = if stretch.began_earlier { " (the stretch began before the requested days)" } else { "" };
    format!("{}, {start} to {end}{earlier}", plural(stretch.day_count.into(), "day"))
}

/// Describes since when the sources are apart, or overlap again.
fn describe_now(comparison: &Comparison, last: Option<&ApartStretch>, newest: Option<&ComparedDay>) -> String {
    let Some(last) = last else { return String::new() };
    if !last.goes_on {
        return format!(" Overlapping again since {}.", date(comparison.zone, last.end_time.as_ref()));
    }
    let since = if last.began_earlier { "since before" } else { "since" };
    let mut text = format!(" Apart {since} {}", date(comparison.zone, last.start_time.as_ref()));
    if let Some(day) = newest {
        let lags = [
            (&comparison.first, day.first_lag_days, &comparison.second),
            (&comparison.second, day.second_lag_days, &comparison.first),
        ];
        for (source, days, other) in lags {
            if let Some(days) = days {
                let _ = write!(text, "; {source} lags {other} by {}", plural(days.into(), "day"));
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
    use crate::cli::pages::WIDE_CHARS_MIN;

    #[test]
    fn day_with_two_lags_fits_80_columns() {
        let [first, second] = ["timesca", "nbkr"].map(str::to_owned);
        let comparison = Comparison { pair: "KGS/USD".to_owned(), first, second, zone: Zone::UTC };
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
        let rows = [Row { comparison, day }];
        assert_eq!(
            table(COLUMNS, &BOUNDS, 80, &rows),
            "day           first              second        %  apart   lags          age\n\
             2025-11-22  0.01033  0.0103993344425957  -0.6712  begins  timesca 12 d  47 h\n                                                          \
             nbkr 8 d\n"
        );
        let with_bounds = table(COLUMNS, &[], WIDE_CHARS_MIN, &rows);
        assert!(with_bounds.starts_with("day           first              second        %    low %"), "{with_bounds}");
    }
}
