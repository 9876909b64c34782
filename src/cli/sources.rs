//! `sources`: how each source is treated, and who says so.

use clap::Args;
use prost_types::Duration;

use super::output::Column;
use super::pages::write_all;
use super::value::Value;
use super::{CliError, Outcome, Session, note};
use crate::domain::whole_length;
use crate::proto::v1::{ListSourcesRequest, SettingOrigin, SourceInfo};

const EXAMPLES: &str = "\
Examples:
  silkrate sources
  silkrate sources timesca nbkr
  silkrate sources --output json";

/// Arguments of `sources`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SourcesArgs {
    /// Only these sources, like nbkr
    #[arg(value_name = "SLUG")]
    sources: Vec<String>,
}

/// What follows a value that the file says.
const FILE_MARK: &str = "*";
/// What follows a value that a flag says.
const FLAG_MARK: &str = "!";

/// A value with the mark of who says it; what is built in has none.
fn marked(value: &str, origin: SettingOrigin) -> Value {
    let mark = match origin {
        SettingOrigin::Unspecified | SettingOrigin::Default => "",
        SettingOrigin::File => FILE_MARK,
        SettingOrigin::Flag => FLAG_MARK,
    };
    Value::Text(format!("{value}{mark}"))
}

fn marked_length(value: Option<&Duration>, origin: SettingOrigin) -> Value {
    let length = Value::length(value);
    let Value::Length(micros) = length else { return length };
    marked(&whole_length(micros), origin)
}

/// Whether it is followed, and if so how it is, going by the last poll.
fn feed(row: &SourceInfo) -> Value {
    let words = match (row.followed_origin(), row.followed, health(row)) {
        (SettingOrigin::Unspecified, ..) => return Value::Absent,
        (_, false, _) => "off".to_owned(),
        (_, true, None) => "followed".to_owned(),
        (_, true, Some(health)) => health.to_lowercase(),
    };
    marked(&words, row.followed_origin())
}

/// How often it is asked, and from which hour on more often.
fn pace(row: &SourceInfo) -> Value {
    let Value::Text(pace) = marked_length(row.pace.as_ref(), row.pace_origin()) else { return Value::Absent };
    let hour = row.publication.as_ref().map(|hour| marked(hour, row.publication_origin()));
    Value::List(std::iter::once(Value::Text(pace)).chain(hour).collect())
}

/// How many there are, and the day of the newest observation of all.
fn series(row: &SourceInfo) -> Value {
    let newest = row.last_observed_time.as_ref().map(|time| Value::date(Some(time)));
    Value::List(std::iter::once(Value::Count(row.series_count.into())).chain(newest).collect())
}

/// One word; nothing where there is no such setting.
fn origin(origin: SettingOrigin) -> Value {
    Value::name(origin.as_str_name(), "SETTING_ORIGIN_")
}

/// One word; nothing of a feed that was never polled.
fn health(row: &SourceInfo) -> Option<&'static str> {
    let name = row.last_poll_health().as_str_name();
    name.strip_prefix("FEED_HEALTH_").filter(|name| *name != "UNSPECIFIED")
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
    Column::table("window", |row| marked_length(row.collapse_window.as_ref(), row.collapse_window_origin())),
    Column::data("collapse_window", |row| Value::length(row.collapse_window.as_ref())),
    Column::data("collapse_window_origin", |row| origin(row.collapse_window_origin())),
    Column::table("stale", |row| marked_length(row.stale_limit.as_ref(), row.stale_limit_origin())),
    Column::data("stale_limit", |row| Value::length(row.stale_limit.as_ref())),
    Column::data("stale_limit_origin", |row| origin(row.stale_limit_origin())),
    Column::table("pace", pace),
    Column::table("prefer", |row| {
        row.preference.map_or(Value::Absent, |place| marked(&place.to_string(), row.preference_origin()))
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
    Column::data("pace", |row| Value::length(row.pace.as_ref())),
    Column::data("pace_origin", |row| origin(row.pace_origin())),
    Column::data("publication", |row| Value::text(row.publication())),
    Column::data("publication_origin", |row| origin(row.publication_origin())),
    Column::data("url", |row| Value::text(row.url())),
    Column::data("url_origin", |row| origin(row.url_origin())),
    Column::data("last_poll_health", |row| health(row).map_or(Value::Absent, Value::text)),
    Column::data("last_poll_time", |row| Value::time(row.last_poll_time.as_ref())),
    Column::data("health_since_time", |row| Value::time(row.health_since_time.as_ref())),
    Column::table("series", series),
];

/// Which marks are worth a word.
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
        (SettingOrigin::File, format!("{FILE_MARK} set in the file of --config")),
        (SettingOrigin::Flag, format!("{FLAG_MARK} set by a flag or its variable")),
    ];
    let told: Vec<String> = marks.into_iter().filter(|(origin, _)| has(*origin)).map(|(_, words)| words).collect();
    (!told.is_empty()).then(|| told.join(", "))
}

pub(super) async fn run(args: SourcesArgs, session: &Session) -> Result<Outcome, CliError> {
    let client = session.connect().await?;
    let request = client.request(ListSourcesRequest { sources: args.sources.clone() });
    let answer = client.answer(client.rates().list_sources(request)).await?;
    write_all(session, COLUMNS, &answer.sources)?;
    let is_there = |name: &&String| answer.sources.iter().any(|row| row.source == **name);
    for absent in args.sources.iter().filter(|name| !is_there(name)) {
        note(&format!("no source {absent}; 'silkrate sources' lists those there are"));
    }
    if session.is_table()
        && let Some(words) = legend(&answer.sources)
    {
        note(&words);
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::table;
    use crate::domain::Timestamp;
    use crate::proto::v1::FeedHealth;

    #[test]
    fn a_source_with_a_mark_on_every_setting_fits_a_terminal() {
        let length = |seconds| Some(Duration { seconds, nanos: 0 });
        let file = SettingOrigin::File.into();
        let source = SourceInfo {
            source: "timesca".to_owned(),
            followed: true,
            followed_origin: SettingOrigin::Flag.into(),
            last_poll_health: FeedHealth::Unreachable.into(),
            series_count: 5,
            last_observed_time: Some(prost_types::Timestamp {
                seconds: 20_430 * Timestamp::DAY_US / Timestamp::SECOND_US,
                nanos: 0,
            }),
            collapse_window: length(5_400),
            collapse_window_origin: file,
            stale_limit: length(172_800),
            stale_limit_origin: file,
            pace: length(1_800),
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
