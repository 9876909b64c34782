//! The table `[backup]`: the backups that the server makes by itself.
//!
//! **Invariant**: a table has a destination.

use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::settings::{EVERY, KEEP, LOG_EVERY, SettingScope, TO, setting_names};
use super::{BACKUP, FileParser, text};
use crate::backup::{BackupSettings, Keep, Location};
use crate::config::value::{LONGEST_DURATION, SHORTEST_DURATION, ValueError};
use crate::domain::parse_duration;

const EVERY_DEFAULT: Duration = Duration::from_hours(1);
const LOG_EVERY_DEFAULT: Duration = Duration::from_secs(10);
/// The longest time between two archives of commits.
const LONGEST_LOG_EVERY: Duration = Duration::from_hours(1);

impl FileParser<'_> {
    /// Parses `[backup]`. `at` is the byte offset of its name.
    pub(super) fn parse_backup(&mut self, at: usize, table: &DeTable<'_>) -> Option<BackupSettings> {
        let (mut to, mut every, mut keep, mut log_every) = (None, None, None, None);
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = format!("{BACKUP}.{name}");
            match name {
                TO => to = self.parse_value(&path, value, location),
                EVERY => every = self.parse_value(&path, value, |value| duration(value, LONGEST_DURATION)),
                KEEP => keep = self.parse_value(&path, value, rule),
                LOG_EVERY => log_every = self.parse_value(&path, value, |value| duration(value, LONGEST_LOG_EVERY)),
                other => {
                    let allowed = setting_names(|scope| scope == SettingScope::Backup);
                    self.refuse_key("backup.", other, key.span(), &format!("the settings are {allowed}"));
                }
            }
        }
        if !table.iter().any(|(key, _)| key.get_ref() == TO) {
            self.refuse(
                at,
                "backup: it has no destination; add to = \"DIRECTORY\" or to = \"s3://bucket/prefix\"".to_owned(),
            );
        }
        Some(BackupSettings {
            to: to?.value,
            every: every.map_or(EVERY_DEFAULT, |every| every.value),
            keep: keep.map(|keep| keep.value),
            log_every: log_every.map_or(LOG_EVERY_DEFAULT, |log_every| log_every.value),
        })
    }
}

fn location(value: &DeValue<'_>) -> Result<Location, ValueError> {
    Location::parse(text(value)?).map_err(|problem| ValueError::Domain(problem.to_string()))
}

fn rule(value: &DeValue<'_>) -> Result<Keep, ValueError> {
    text(value)?.parse().map_err(|problem: crate::backup::KeepError| ValueError::Domain(problem.to_string()))
}

fn duration(value: &DeValue<'_>, longest: Duration) -> Result<Duration, ValueError> {
    Ok(parse_duration(text(value)?, SHORTEST_DURATION, longest)?)
}
