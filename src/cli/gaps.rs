//! The `gaps` command: long times without observations, and their reasons.

use clap::Args;

use super::output::Column;
use super::pages::{OrderArgs, Page, list, note_rest};
use super::rate::parse_duration;
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, Outcome, Session};
use crate::domain::format_rounded_duration;
use crate::proto::v1::{Gap, GapReason, GapStretch, ListGapsRequest};

/// The maximum number of gaps per page.
const PAGE_GAPS_MAX: u64 = 1_000;

const EXAMPLES: &str = "\
Examples:
  silkrate gaps
  silkrate gaps TMT/USD --from -7d --min 2h
  silkrate gaps --source nbt --min 2d --output json

A gap is a time without observations: between two observations, or since the
last observation. It is longer than the collapse window of the series, or than
--min if given. The polls of the source during the gap give its reason:
  asked and silent  the source answered, but without this rate
  refused           the source refused the poll, or its data was not accepted
  unreachable       the source did not answer, or failed
  not asked         the source was not polled";

/// Arguments of `gaps`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GapsArgs {
    /// Show only this pair, like KGS/USD; default all
    #[arg(value_name = "PAIR", default_value = "", hide_default_value = true)]
    pair: String,
    /// Show only this source; default all, or with PAIR the source that the choice rule selects
    #[arg(long, value_name = "SLUG", default_value = "", hide_default_value = true)]
    source: String,
    /// Fail if a pair but no source is named and several sources publish it; the error lists them
    #[arg(long)]
    strict: bool,
    /// Show only gaps that end after this time
    #[arg(long, alias = "start-time", value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArgument>,
    /// Show only gaps that begin before this time
    #[arg(long, alias = "end-time", value_name = "TIME", allow_hyphen_values = true)]
    to: Option<TimeArgument>,
    /// Show only gaps longer than this, like 2h; default the collapse window of the series
    #[arg(long, alias = "minimum-length", value_name = "SPAN", value_parser = parse_duration)]
    min: Option<prost_types::Duration>,
    /// Maximum number of rows; default 50 in a table, unlimited in json and csv
    #[arg(long, alias = "page-size", value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    order: OrderArgs,
}

const COLUMNS: &[Column<Gap>] = &[
    Column::new("pair", "pair", |row| Value::text(&row.pair)),
    Column::new("source", "source", |row| Value::text(&row.source)),
    Column::new("start_time", "last observed", |row| Value::time(row.start_time.as_ref())),
    Column::data("end_time", |row| Value::time(row.end_time.as_ref())),
    Column::table(
        "observed again",
        |row| if row.open { Value::text("not yet") } else { Value::time(row.end_time.as_ref()) },
    ),
    Column::data("open", |row| Value::Flag(row.open)),
    Column::new("length", "length", |row| Value::duration(row.length.as_ref())),
    Column::data("reason", |row| name(row.reason())),
    Column::table("reason", describe_reasons),
    Column::data("asked_silent_length", |row| Value::duration(row.asked_silent_length.as_ref())),
    Column::data("refused_length", |row| Value::duration(row.refused_length.as_ref())),
    Column::data("unreachable_length", |row| Value::duration(row.unreachable_length.as_ref())),
    Column::data("not_asked_length", |row| Value::duration(row.not_asked_length.as_ref())),
    Column::data("stretches", |row| Value::List(row.stretches.iter().map(stretch).collect())),
];

/// Converts a part of a gap with a single reason to a JSON record.
fn stretch(stretch: &GapStretch) -> Value {
    Value::Record(vec![
        ("start_time", Value::time(stretch.start_time.as_ref())),
        ("end_time", Value::time(stretch.end_time.as_ref())),
        ("reason", name(stretch.reason())),
    ])
}

fn name(reason: GapReason) -> Value {
    Value::name(reason.as_str_name(), "GAP_REASON_")
}

const fn describe_reason(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Unspecified => "",
        GapReason::AskedSilent => "asked and silent",
        GapReason::Refused => "refused",
        GapReason::Unreachable => "unreachable",
        GapReason::NotAsked => "not asked",
    }
}

/// Describes the reason of a gap. Several reasons are listed with their durations, longest first; the reason of the gap
/// comes before others of the same duration.
fn describe_reasons(gap: &Gap) -> Value {
    let parts = [
        (gap.asked_silent_length.as_ref(), GapReason::AskedSilent),
        (gap.refused_length.as_ref(), GapReason::Refused),
        (gap.unreachable_length.as_ref(), GapReason::Unreachable),
        (gap.not_asked_length.as_ref(), GapReason::NotAsked),
    ];
    let mut parts: Vec<(i64, GapReason)> = parts
        .into_iter()
        .filter_map(|(length, reason)| {
            let Value::Duration(micros) = Value::duration(length) else { return None };
            (micros > 0).then_some((micros, reason))
        })
        .collect();
    if parts.len() < 2 {
        return Value::text(describe_reason(gap.reason()));
    }
    parts.sort_by_key(|(micros, reason)| (std::cmp::Reverse(*micros), *reason != gap.reason()));
    let texts = parts
        .iter()
        .map(|(us, reason)| Value::Text(format!("{} {}", describe_reason(*reason), format_rounded_duration(*us))));
    Value::List(texts.collect())
}

pub(super) async fn run(args: GapsArgs, session: &Session) -> Result<Outcome, CliError> {
    let selection = args.order.selection(session, args.limit, args.from.is_some());
    let request = ListGapsRequest {
        strict: args.strict,
        pair: args.pair,
        source: args.source,
        start_time: session.time(args.from)?,
        end_time: session.time(args.to)?,
        minimum_length: args.min,
        descending: selection.descending,
        page_size: 0,
        page_token: String::new(),
    };
    let client = session.connect().await?;
    let listed = list(session, COLUMNS, &[], selection, PAGE_GAPS_MAX, async |page_size, page_token| {
        let request = ListGapsRequest { page_size, page_token, ..request.clone() };
        let page = client.answer(client.rates().list_gaps(client.request(request))).await?;
        Ok(Page::new(page.gaps, page.next_page_token))
    });
    note_rest(session, (&listed.await?, selection), args.limit, "gaps", "no gaps");
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::table;
    use crate::domain::Timestamp;

    #[test]
    fn several_reasons_are_listed_longest_first() {
        let hours = |hours: i64| {
            (hours > 0).then_some(prost_types::Duration {
                seconds: hours * Timestamp::HOUR_US / Timestamp::SECOND_US,
                nanos: 0,
            })
        };
        let check = |[silent, refused, unreachable, not_asked]: [i64; 4], leading: GapReason, expect: &[&str]| {
            let gap = Gap {
                reason: leading.into(),
                asked_silent_length: hours(silent),
                refused_length: hours(refused),
                unreachable_length: hours(unreachable),
                not_asked_length: hours(not_asked),
                ..Gap::default()
            };
            let formatted = describe_reasons(&gap).to_formatted(Timestamp::from_micros(0));
            assert_eq!((formatted.line, formatted.folded), (expect.join("; "), expect.join("\n")));
        };
        check([0, 0, 3, 0], GapReason::Unreachable, &["unreachable"]);
        check([2, 0, 30, 0], GapReason::Unreachable, &["unreachable 30 h", "asked and silent 2 h"]);
        check(
            [2, 2, 2, 72],
            GapReason::NotAsked,
            &["not asked 3 d", "asked and silent 2 h", "refused 2 h", "unreachable 2 h"],
        );
        // Two reasons of the same duration: the reason of the gap comes first.
        check([2, 0, 2, 0], GapReason::Unreachable, &["unreachable 2 h", "asked and silent 2 h"]);
    }

    #[test]
    fn gap_with_several_reasons_fits_80_columns() {
        let gap = Gap {
            pair: "KGS/USD".to_owned(),
            source: "timesca".to_owned(),
            start_time: Some(prost_types::Timestamp { seconds: 1_763_769_600, nanos: 0 }),
            open: true,
            length: Some(prost_types::Duration { seconds: 90_000, nanos: 0 }),
            reason: GapReason::AskedSilent.into(),
            asked_silent_length: Some(prost_types::Duration { seconds: 80_000, nanos: 0 }),
            unreachable_length: Some(prost_types::Duration { seconds: 10_000, nanos: 0 }),
            ..Gap::default()
        };
        let shown = table(COLUMNS, &[], 80, &[gap]);
        assert!(shown.starts_with("pair     source   last observed  observed again  length  reason\n"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    }
}
