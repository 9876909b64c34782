//! The immutable latest quotes. (skeleton)
use std::sync::Arc;
use crate::domain::{Rate, Run, SeriesKey, Timestamp};

/// State of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RateState { /// .
 Stale, /// .
 Pegged, /// .
 Moving, /// .
 Flat }

/// Per-source and global settings that states depend on.
#[derive(Clone, Debug)]
pub struct StateRules { /// default limit
 pub stale_limit_default_us: i64, /// per source
 pub stale_limits_us: std::collections::BTreeMap<String, i64>, /// moving window
 pub moving_window_us: i64 }

impl StateRules {
    /// The state at `now` of a series whose rate in force is that of `run` and has moved at `moved_time`
    /// (`None`: never moved), the unbroken sequence of runs with that rate having begun at `since`.
    pub fn state(&self, _key: &SeriesKey, _run: &Run, _moved: Option<Timestamp>, _since: Timestamp, _now: Timestamp) -> RateState { unimplemented!() }
}

/// The latest quote of one series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LatestQuote {
    /// series
    pub series: SeriesKey,
    /// run in force
    pub run: Run,
    /// state
    pub state: RateState,
    /// When it becomes stale unless confirmed.
    pub stale_time: Timestamp,
    /// When the present rate began, none if it never moved.
    pub moved_time: Option<Timestamp>,
    /// The rate before.
    pub previous_rate: Option<Rate>,
    /// The sequence at which any of this last changed.
    pub changed_sequence: u64,
}

/// The latest quotes at one commit, sorted by series.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// commit
    pub sequence: u64,
    /// commit
    pub recorded_time: Timestamp,
    /// recorded time of the newest commit that held ticks
    pub last_ingest_time: Option<Timestamp>,
    /// sorted by series key
    pub quotes: Vec<Arc<LatestQuote>>,
}
