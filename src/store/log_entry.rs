//! The entry of one commit in the log: the ticks and the other changes of the commit.
//!
//! **Invariant**: applying the decoded entry makes the same changes as the commit.

use serde::{Deserialize, Serialize};

use super::archive::ArchiveChange;
use super::polls::LogPoll;
use super::quarantine::QuarantineChange;
use super::rules::{RulesRecord, decode_with_rules};
use super::values::ValueRecord;
use crate::domain::{PublishedValue, Timestamp};

/// The log entry of one commit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LogEntry {
    pub(crate) sequence: u64,
    pub(crate) recorded_us: i64,
    /// Series that this commit creates.
    pub(crate) new_series: Vec<NewSeries>,
    pub(crate) changes: Vec<SeriesChanges>,
    /// Series to recollapse with a new window: series id, and window in microseconds.
    pub(crate) recollapsed: Vec<(u32, i64)>,
    /// Newly held ticks and decisions about held ticks, in the order in which they are applied.
    pub(crate) quarantine: Vec<QuarantineChange>,
    /// Polls of sources, in the order in which they were made.
    pub(crate) polls: Vec<LogPoll>,
    /// The state rules that apply from this commit on; `None` if they are the rules of the previous commit.
    #[serde(skip)]
    pub(super) rules: Option<RulesRecord>,
    /// Decisions to archive and unarchive sources. An entry with decisions also has the state rules, which precede them.
    #[serde(skip)]
    pub(super) archive: Vec<ArchiveChange>,
}

impl LogEntry {
    /// Makes an entry without changes.
    pub(super) fn new(sequence: u64, recorded_us: i64) -> Self {
        Self {
            sequence,
            recorded_us,
            new_series: Vec::new(),
            changes: Vec::new(),
            recollapsed: Vec::new(),
            quarantine: Vec::new(),
            polls: Vec::new(),
            rules: None,
            archive: Vec::new(),
        }
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let (entry, rules, rest) = decode_with_rules::<Self>(payload)?;
        let archive = if rest.is_empty() { Vec::new() } else { postcard::from_bytes(rest).ok()? };
        Some(Self { rules, archive, ..entry })
    }
}

/// A series that a commit creates.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct NewSeries {
    pub(crate) id: u32,
    pub(crate) pair: String,
    pub(crate) source: String,
    pub(crate) collapse_window_us: i64,
}

/// Ticks that a commit stores in one series, sorted by observed time. `base_us` is the time of the first tick.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SeriesChanges {
    pub(crate) series: u32,
    pub(crate) base_us: i64,
    pub(crate) ticks: Vec<LogTick>,
}

/// A tick as the difference from the previous tick: microseconds since the previous tick (for the first tick, since the
/// base), and the value, which is `None` if it equals the value of the previous tick.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LogTick {
    delta_us: u64,
    value: Option<ValueRecord>,
}

impl SeriesChanges {
    /// Encodes ticks, which must be sorted by observed time.
    pub(crate) fn new(series: u32, ticks: &[(Timestamp, PublishedValue)]) -> Self {
        let base_us = ticks.first().map_or(0, |(time, _)| time.micros());
        let mut previous = (base_us, None);
        let encode = |(time, value): &(Timestamp, PublishedValue)| {
            let delta_us = time.micros().wrapping_sub(previous.0).cast_unsigned();
            let repeats = previous.1 == Some(*value);
            previous = (time.micros(), Some(*value));
            LogTick { delta_us, value: (!repeats).then(|| ValueRecord::new(value)) }
        };
        Self { series, base_us, ticks: ticks.iter().map(encode).collect() }
    }

    /// Decodes the ticks. Returns `None` if they are invalid.
    pub(crate) fn values(&self) -> Option<Vec<(Timestamp, PublishedValue)>> {
        let mut time_us = self.base_us;
        let mut value: Option<PublishedValue> = None;
        let decode = |tick: &LogTick| {
            time_us = time_us.checked_add_unsigned(tick.delta_us)?;
            if let Some(new) = &tick.value {
                value = Some(new.value()?);
            }
            Some((Timestamp::from_micros(time_us), value?))
        };
        self.ticks.iter().map(decode).collect()
    }
}
