//! Options of the stores that these tests export and import.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Parser;
use silkrate::config::StateArgs;
use silkrate::domain::Timestamp;
use silkrate::latest_quotes::StateRules;
use silkrate::store::{CheckpointLimits, StoreOptions};

/// Returns the state rules of a server without flags.
pub(crate) fn state_rules() -> StateRules {
    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        states: StateArgs,
    }
    Flags::parse_from(["silkrate"]).states.rules().unwrap()
}

/// Returns the options of a small store, with the default state rules of a server.
pub(crate) fn options(directory: &Path) -> StoreOptions {
    StoreOptions {
        directory: directory.to_owned(),
        collapse_window_default_us: Timestamp::HOUR_US,
        collapse_windows_us: BTreeMap::new(),
        recollapse: false,
        state_rules: state_rules(),
        reserve_bytes: 0,
        cache_bytes: 64 << 20,
        series_count_max: 100,
        configured_sources: std::sync::Arc::default(),
        checkpoint: CheckpointLimits::default(),
        disk_fault: None,
    }
}
