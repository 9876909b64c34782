//! The `sources` command: the settings of each source, where each setting comes from, and the health of its feed.

use std::collections::BTreeMap;

use clap::Args;
use prost_types::Duration;

use super::output::Column;
use super::pages::write_all;
use super::text::clean;
use super::value::Value;
use super::{CliError, Outcome, Session, note};
use crate::analysis::Zone;
use crate::domain::format_duration;
use crate::proto::v1::{ListSourcesRequest, PairStaleLimit, SettingOrigin, SourceInfo};

const EXAMPLES: &str = "\
Examples:
  silkrate sources
  silkrate sources timesca nbkr
  silkrate sources --output json

Columns of the table:
  feed    health of the last poll; off if the source is not followed; archived
          if 'silkrate source archive' hid it from default answers
  window  collapse window: the longest gap inside a run
  stale   time without an observation after which a rate is stale
  pace    poll interval; time of publication, around which polls are frequent
  prefer  preference; the source with the lowest number is used
  factor  a tick is held if its rate is at least this many times the rate in
          force, or if the rate in force is at least this many times its rate
  places  minimum number of decimal places
  series  number of series; day of the newest observation in the source's zone";

/// Arguments of `sources`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SourcesArgs {
    /// Show only these sources, like nbkr; default all
    #[arg(value_name = "SLUG", value_delimiter = ',')]
    sources: Vec<String>,
}

/// The mark of a value from the configuration file.
const FILE_MARK: &str = "*";
/// The mark of a value from a flag or an environment variable.
const FLAG_MARK: &str = "!";

/// Formats a value with the mark of its origin. Built-in defaults have no mark.
fn marked(value: &str, origin: SettingOrigin) -> Value {
    let mark = match origin {
        SettingOrigin::Unspecified | SettingOrigin::Default => "",
        SettingOrigin::File => FILE_MARK,
        SettingOrigin::Flag => FLAG_MARK,
    };
    Value::Text(format!("{value}{mark}"))
}

/// Formats a duration with the mark of its origin.
fn marked_duration(value: Option<&Duration>, origin: SettingOrigin) -> Value {
    let duration = Value::duration(value);
    let Value::Duration(micros) = duration else { return duration };
    marked(&format_duration(micros), origin)
}

/// Returns `archived` for an archived source; else the health of a followed source after its last poll; `off` if the
/// source is not followed; `Absent` if it cannot be followed.
fn feed(row: &SourceInfo) -> Value {
    if row.archived {
        return Value::text("archived");
    }
    let text = match (row.followed_origin(), row.followed, health(row)) {
        (SettingOrigin::Unspecified, ..) => return Value::Absent,
        (_, false, _) => "off".to_owned(),
        (_, true, None) => "followed".to_owned(),
        (_, true, Some(health)) => health.to_lowercase(),
    };
    marked(&text, row.followed_origin())
}

/// Returns the poll interval, and the time of publication, around which the source is polled more often.
fn poll_interval(row: &SourceInfo) -> Value {
    let Value::Text(interval) = marked_duration(row.pace.as_ref(), row.pace_origin()) else { return Value::Absent };
    let publication = row.publication.as_ref().map(|time| marked(time, row.publication_origin()));
    Value::List(std::iter::once(Value::Text(interval)).chain(publication).collect())
}

/// Returns the number of series, and the day of the newest observation in any of these series, in the time zone of the
/// source.
fn series(row: &SourceInfo) -> Value {
    let zone = Zone::parse(&row.time_zone).unwrap_or(Zone::UTC);
    let newest = Value::time(row.last_observed_time.as_ref());
    let newest = if let Value::Time(time) = newest { Some(zone.local(time).date().to_string()) } else { None };
    let newest = newest.map(Value::Text);
    Value::List(std::iter::once(Value::Count(row.series_count.into())).chain(newest).collect())
}

/// Returns the name of an origin; `Absent` if the source does not have the setting.
fn origin(origin: SettingOrigin) -> Value {
    Value::name(origin.as_str_name(), "SETTING_ORIGIN_")
}

/// Returns the name of the health after the last poll; `None` if the source was never polled.
fn health(row: &SourceInfo) -> Option<&'static str> {
    let name = row.last_poll_health().as_str_name();
    name.strip_prefix("FEED_HEALTH_").filter(|name| *name != "UNSPECIFIED")
}

/// Converts the stale limit of a pair to a JSON record.
fn pair_limit(limit: &PairStaleLimit) -> Value {
    Value::Record(vec![
        ("pair", Value::text(&limit.pair)),
        ("stale_limit", Value::duration(limit.stale_limit.as_ref())),
        ("stale_limit_origin", origin(limit.stale_limit_origin())),
    ])
}

/// Describes the stale limits of single pairs of a source: `nbkr: stale limit 9d for TJS/KGS, UZS/KGS`.
fn pair_limits_note(row: &SourceInfo) -> Option<String> {
    let mut pairs: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for limit in &row.pair_stale_limits {
        if let Value::Duration(limit_us) = Value::duration(limit.stale_limit.as_ref()) {
            pairs.entry(limit_us).or_default().push(&limit.pair);
        }
    }
    let limits =
        pairs.iter().map(|(limit_us, pairs)| format!("{} for {}", format_duration(*limit_us), pairs.join(", ")));
    let limits: Vec<String> = limits.collect();
    (!limits.is_empty()).then(|| format!("{}: stale limit {}", clean(&row.source), clean(&limits.join("; "))))
}

fn count(value: Option<u32>) -> Value {
    value.map_or(Value::Absent, |value| Value::Count(value.into()))
}

const COLUMNS: &[Column<SourceInfo>] = &[
    Column::new("source", "source", |row| Value::text(&row.source)),
    Column::table("feed", feed),
    Column::data("followed", |row| Value::Flag(row.followed)),
    Column::data("followed_origin", |row| origin(row.followed_origin())),
    Column::data("series_count", |row| count(Some(row.series_count))),
    Column::data("last_observed_time", |row| Value::time(row.last_observed_time.as_ref())),
    Column::data("last_recorded_time", |row| Value::time(row.last_recorded_time.as_ref())),
    Column::table("window", |row| marked_duration(row.collapse_window.as_ref(), row.collapse_window_origin())),
    Column::data("collapse_window", |row| Value::duration(row.collapse_window.as_ref())),
    Column::data("collapse_window_origin", |row| origin(row.collapse_window_origin())),
    Column::table("stale", |row| marked_duration(row.stale_limit.as_ref(), row.stale_limit_origin())),
    Column::data("stale_limit", |row| Value::duration(row.stale_limit.as_ref())),
    Column::data("stale_limit_origin", |row| origin(row.stale_limit_origin())),
    Column::table("pace", poll_interval),
    Column::table("prefer", |row| {
        row.preference.map_or(Value::Absent, |rank| marked(&rank.to_string(), row.preference_origin()))
    }),
    Column::data("preference", |row| count(row.preference)),
    Column::data("preference_origin", |row| origin(row.preference_origin())),
    Column::table("factor", |row| {
        marked(row.quarantine_factor.as_deref().unwrap_or("none"), row.quarantine_factor_origin())
    }),
    Column::data("quarantine_factor", |row| Value::decimal(row.quarantine_factor())),
    Column::data("quarantine_factor_origin", |row| origin(row.quarantine_factor_origin())),
    Column::table("places", |row| marked(&row.minimum_places.to_string(), row.minimum_places_origin())),
    Column::data("minimum_places", |row| count(Some(row.minimum_places))),
    Column::data("minimum_places_origin", |row| origin(row.minimum_places_origin())),
    Column::data("pace", |row| Value::duration(row.pace.as_ref())),
    Column::data("pace_origin", |row| origin(row.pace_origin())),
    Column::data("publication", |row| Value::text(row.publication())),
    Column::data("publication_origin", |row| origin(row.publication_origin())),
    Column::data("url", |row| Value::text(row.url())),
    Column::data("url_origin", |row| origin(row.url_origin())),
    Column::data("last_poll_health", |row| health(row).map_or(Value::Absent, Value::text)),
    Column::data("last_poll_time", |row| Value::time(row.last_poll_time.as_ref())),
    Column::data("health_since_time", |row| Value::time(row.health_since_time.as_ref())),
    Column::data("time_zone", |row| Value::text(&row.time_zone)),
    Column::data("time_zone_origin", |row| origin(row.time_zone_origin())),
    Column::data("moving_window", |row| Value::duration(row.moving_window.as_ref())),
    Column::data("moving_window_origin", |row| origin(row.moving_window_origin())),
    Column::data("pair_stale_limits", |row| Value::List(row.pair_stale_limits.iter().map(pair_limit).collect())),
    Column::data("archived", |row| Value::Flag(row.archived)),
    Column::data("archived_changed_time", |row| Value::time(row.archived_changed_time.as_ref())),
    Column::data("archived_note", |row| Value::text(row.archived_note())),
    Column::table("series", series),
];

/// Returns the legend of the marks that the table contains.
fn legend(sources: &[SourceInfo]) -> Option<String> {
    let origins = |row: &SourceInfo| {
        [
            row.followed_origin(),
            row.collapse_window_origin(),
            row.stale_limit_origin(),
            row.pace_origin(),
            row.publication_origin(),
            row.preference_origin(),
            row.minimum_places_origin(),
            row.quarantine_factor_origin(),
        ]
    };
    let has = |origin| sources.iter().any(|row| origins(row).contains(&origin));
    let marks = [
        (SettingOrigin::File, format!("{FILE_MARK} set in the configuration file")),
        (SettingOrigin::Flag, format!("{FLAG_MARK} set by a flag or an environment variable")),
    ];
    let texts: Vec<String> = marks.into_iter().filter(|(origin, _)| has(*origin)).map(|(_, text)| text).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

pub(super) async fn run(args: SourcesArgs, session: &Session) -> Result<Outcome, CliError> {
    let client = session.connect().await?;
    let request = client.request(ListSourcesRequest { sources: args.sources.clone() });
    let response = client.answer(client.rates().list_sources(request)).await?;
    write_all(session, COLUMNS, &response.sources)?;
    let mut outcome = Outcome::Done;
    let exists = |name: &&String| response.sources.iter().any(|row| row.source == **name);
    for missing in args.sources.iter().filter(|name| !exists(name)) {
        note(&format!("error: there is no source '{}'; 'silkrate sources' lists all sources", clean(missing)));
        outcome = Outcome::Failed;
    }
    if session.is_table() {
        for text in response.sources.iter().filter_map(pair_limits_note) {
            note(&text);
        }
    }
    if session.is_table()
        && let Some(text) = legend(&response.sources)
    {
        note(&text);
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::table;
    use crate::domain::Timestamp;
    use crate::proto::v1::FeedHealth;

    #[test]
    fn source_with_marks_on_all_settings_fits_80_columns() {
        let duration = |seconds| Some(Duration { seconds, nanos: 0 });
        let file = SettingOrigin::File.into();
        let source = SourceInfo {
            source: "timesca".to_owned(),
            followed: true,
            followed_origin: SettingOrigin::Flag.into(),
            last_poll_health: FeedHealth::Unreachable.into(),
            series_count: 5,
            last_observed_time: Some(prost_types::Timestamp {
                // 19:00 UTC of the day before, which is the next day in Tashkent.
                seconds: 20_430 * Timestamp::DAY_US / Timestamp::SECOND_US - 5 * 3_600,
                nanos: 0,
            }),
            time_zone: "Asia/Tashkent".to_owned(),
            collapse_window: duration(5_400),
            collapse_window_origin: file,
            stale_limit: duration(172_800),
            stale_limit_origin: file,
            pace: duration(1_800),
            pace_origin: file,
            publication: Some("16:30".to_owned()),
            publication_origin: file,
            preference: Some(12),
            preference_origin: file,
            quarantine_factor: Some("2.5".to_owned()),
            quarantine_factor_origin: file,
            minimum_places: 5,
            minimum_places_origin: file,
            ..SourceInfo::default()
        };
        assert_eq!(
            table(COLUMNS, &[], 80, &[source]),
            "source   feed          window  stale  pace    prefer  factor  places  series\n\
             timesca  unreachable!  90m*    2d*    30m*    12*     2.5*    5*      5\n                                      \
             16:30*                          2025-12-08\n"
        );
    }
}
