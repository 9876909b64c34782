//! The settings that decide the states of rates: the configuration file, the stale limits and the moving window.
//!
//! `serve` and `import` share them, so that an imported store has the states of the server that opens it.

use std::path::PathBuf;

use super::ConfigError;
use super::file::{FileError, FileSettings};
use super::sources::{self, SourceFlags, named_us, unique_durations};
use super::value::{SourceDuration, parse_source_duration};
use crate::latest_quotes::StateRules;
use crate::sources::SourceTable;

/// The flags that decide the states of rates. The doc comments are their help texts.
#[derive(Clone, Debug, clap::Args)]
pub struct StateArgs {
    /// TOML file with settings of sources, such as data/silkrate.toml. A flag takes precedence over the same setting of
    /// the same source in the file
    #[arg(long, value_name = "FILE", env = "SILKRATE_CONFIG")]
    pub config: Option<PathBuf>,

    /// Time from the last confirmation of a rate until the rate becomes STALE, from 1s to 366d. Without SOURCE=, it
    /// applies to every source that has no value of its own. May be repeated or comma-separated [default: 1h, and 5d
    /// for the banks nbkr, nbk, nbt, cbu and cbt]
    #[arg(long, value_name = "[SOURCE=]DURATION", env = "SILKRATE_STALE_LIMIT", value_delimiter = ',',
          value_parser = parse_source_duration)]
    pub stale_limit: Vec<SourceDuration>,

    /// Time after a move during which a rate is MOVING, from 1s to 366d. Without SOURCE=, it applies to every source that
    /// has no value of its own. May be repeated or comma-separated [default: 24h, and 4d for the banks nbkr, nbk, nbt,
    /// cbu and cbt]
    #[arg(long, value_name = "[SOURCE=]DURATION", env = "SILKRATE_MOVING_WINDOW", value_delimiter = ',',
          value_parser = parse_source_duration)]
    pub moving_window: Vec<SourceDuration>,
}

impl StateArgs {
    /// Returns the rules of rate states.
    ///
    /// # Errors
    /// `Twice` if a flag sets two values for one source; `File` if the configuration file cannot be read or is
    /// invalid; `Preference` if two sources in it have the same preference.
    pub fn rules(&self) -> Result<StateRules, ConfigError> {
        Ok(rules(&sources::table(&self.flags()?, &self.file()?)?))
    }

    /// Reads the configuration file. Without a file, no source has settings.
    pub(super) fn file(&self) -> Result<FileSettings, FileError> {
        self.config.as_deref().map_or(Ok(FileSettings::default()), FileSettings::read)
    }

    /// Returns the values of `--stale-limit` and `--moving-window`. All other settings are as without flags.
    pub(super) fn flags(&self) -> Result<SourceFlags, ConfigError> {
        Ok(SourceFlags {
            stale_limit: unique_durations("--stale-limit", self.stale_limit.clone())?,
            moving_window: unique_durations("--moving-window", self.moving_window.clone())?,
            ..SourceFlags::default()
        })
    }
}

/// Returns the rules of rate states of all sources.
pub(super) fn rules(table: &SourceTable) -> StateRules {
    StateRules {
        stale_limit_default_us: table.others().stale_limit_us.value,
        stale_limits_us: named_us(table, |settings| settings.stale_limit_us),
        series_stale_limits_us: sources::series_stale_limits_us(table),
        moving_window_default_us: table.others().moving_window_us.value,
        moving_windows_us: named_us(table, |settings| settings.moving_window_us),
    }
}
