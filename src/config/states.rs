//! The settings that decide the states of rates: the configuration file, the stale limits and the moving window.
//!
//! `serve` and `import` share them, so that an imported store has the states of the server that opens it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::ConfigError;
use super::file::{FileError, FileSettings};
use super::sources::{self, SourceFlags, is_bank, named_us, unique_durations};
use super::value::{LONGEST_DURATION, SourceDuration, parse_source_duration};
use crate::domain::{Source, duration_us, parse_duration};
use crate::follow::FollowedSource;
use crate::latest_quotes::StateRules;
use crate::sources::{SourceSettings, SourceTable};

const MOVING_WINDOW_DEFAULT: Duration = Duration::from_hours(24);

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

    /// Time after a move during which a rate is MOVING, from 1m to 366d
    #[arg(long, value_name = "DURATION", env = "SILKRATE_MOVING_WINDOW", default_value = "24h",
          value_parser = |text: &str| parse_duration(text, Duration::from_mins(1), LONGEST_DURATION))]
    pub moving_window: Duration,
}

impl StateArgs {
    /// Returns the rules of rate states.
    ///
    /// # Errors
    /// `Twice` if `--stale-limit` sets two values for one source; `File` if the configuration file cannot be read or is
    /// invalid; `Preference` if two sources in it have the same preference.
    pub fn rules(&self) -> Result<StateRules, ConfigError> {
        let flags = SourceFlags { stale_limit: self.stale_limits()?, ..SourceFlags::default() };
        let table = sources::table(&flags, &self.file()?)?;
        Ok(rules(&table, self.moving_window))
    }

    /// Reads the configuration file. Without a file, no source has settings.
    pub(super) fn file(&self) -> Result<FileSettings, FileError> {
        self.config.as_deref().map_or(Ok(FileSettings::default()), FileSettings::read)
    }

    /// Returns the values of `--stale-limit` by source.
    pub(super) fn stale_limits(&self) -> Result<BTreeMap<Option<Source>, Duration>, ConfigError> {
        unique_durations("--stale-limit", self.stale_limit.clone())
    }
}

/// Returns the rules of rate states of all sources.
pub(super) fn rules(table: &SourceTable, moving_window: Duration) -> StateRules {
    StateRules {
        stale_limit_default_us: table.others().stale_limit_us.value,
        stale_limits_us: named_us(table, |settings| settings.stale_limit_us),
        moving_window_us: duration_us(moving_window),
    }
}

/// Returns the built-in rules of rate states.
pub fn default_state_rules() -> StateRules {
    let banks = FollowedSource::ALL.into_iter().filter(|followed| is_bank(Some(*followed)));
    let limit_us = SourceSettings::BUILT_IN_BANK.stale_limit_us.value;
    StateRules {
        stale_limit_default_us: SourceSettings::BUILT_IN.stale_limit_us.value,
        stale_limits_us: banks.filter_map(|bank| Some((bank.source().ok()?, limit_us))).collect(),
        moving_window_us: duration_us(MOVING_WINDOW_DEFAULT),
    }
}
