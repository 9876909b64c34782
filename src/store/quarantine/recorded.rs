//! The stored form of held ticks and decisions, in the log and in sled.
//!
//! **Invariant**: the log entry of a commit has all changes that the commit makes to the quarantine. So replay does not
//! compare the rates of ticks with the rates in force.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::digest::Digest;
use super::super::error::StoreError;
use super::super::keys;
use super::super::values::ValueRecord;
use super::QuarantineIndex;
use crate::domain::{Decision, HeldTick, Note, Rate, SeriesKey, Timestamp, Verdict};

/// A sled key and its new value; `None` if the key is removed.
type RecordChange = ([u8; 9], Option<Vec<u8>>);

/// Looks up the key of a series by its id.
type SeriesOf<'a> = &'a dyn Fn(u32) -> Option<Arc<SeriesKey>>;

/// A change that a commit makes to the quarantine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum QuarantineChange {
    /// Holds a tick under the next id.
    Held { id: u64, tick: TickLayout },
    /// Releases or discards held ticks.
    Decided { ids: Vec<u64>, released: bool, note: Option<String> },
}

/// A held tick, and the rate in force that it was compared with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct TickLayout {
    series: u32,
    observed_us: i64,
    value: ValueRecord,
    in_force: (u128, u8),
}

impl TickLayout {
    pub(in super::super) fn new(series: u32, tick: &HeldTick) -> Self {
        Self {
            series,
            observed_us: tick.observed_time.micros(),
            value: ValueRecord::new(&tick.value),
            in_force: (tick.rate_in_force.mantissa(), tick.rate_in_force.places()),
        }
    }

    /// Decodes the tick, without a decision; `None` if a field is invalid.
    fn tick(&self, id: u64, held_time: Timestamp, key: SeriesOf<'_>) -> Option<HeldTick> {
        let (mantissa, places) = self.in_force;
        Some(HeldTick {
            id,
            series: key(self.series)?,
            observed_time: Timestamp::from_micros(self.observed_us),
            value: self.value.value()?,
            rate_in_force: Rate::from_parts(mantissa, u32::from(places)).ok()?,
            held_time,
            decision: None,
        })
    }
}

/// A held tick and its decision, as stored in sled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HeldRecord {
    tick: TickLayout,
    held_us: i64,
    decision: Option<DecisionLayout>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct DecisionLayout {
    released: bool,
    decided_us: i64,
    note: Option<String>,
}

impl HeldRecord {
    pub(crate) fn new(series: u32, tick: &HeldTick) -> Self {
        let decision = tick.decision.as_ref().map(|decision| DecisionLayout {
            released: decision.verdict == Verdict::Released,
            decided_us: decision.decided_time.micros(),
            note: decision.note.as_ref().map(Note::to_string),
        });
        Self { tick: TickLayout::new(series, tick), held_us: tick.held_time.micros(), decision }
    }

    /// Decodes the tick; `None` if a field is invalid.
    fn tick(&self, id: u64, key: SeriesOf<'_>) -> Option<HeldTick> {
        let mut tick = self.tick.tick(id, Timestamp::from_micros(self.held_us), key)?;
        if let Some(DecisionLayout { released, decided_us, note }) = &self.decision {
            tick.decision = Some(decision(*released, Timestamp::from_micros(*decided_us), note.as_deref())?);
        }
        Some(tick)
    }
}

fn decision(released: bool, decided_time: Timestamp, note: Option<&str>) -> Option<Decision> {
    let note = match note {
        Some(text) => Some(Note::parse(text).ok()?),
        None => None,
    };
    let verdict = if released { Verdict::Released } else { Verdict::Discarded };
    Some(Decision { verdict, decided_time, note })
}

impl QuarantineIndex {
    /// Applies a logged change during replay; `None` if the change is invalid.
    pub(in super::super) fn apply(
        &mut self,
        change: &QuarantineChange,
        recorded_time: Timestamp,
        key: SeriesOf<'_>,
    ) -> Option<()> {
        match change {
            QuarantineChange::Held { id, tick } => {
                let held = tick.tick(*id, recorded_time, key).filter(|_| *id == self.next_id())?;
                self.push(tick.series, held, None);
                Some(())
            }
            QuarantineChange::Decided { ids, released, note } => {
                let decision = decision(*released, recorded_time, note.as_deref())?;
                ids.iter().all(|id| self.decide(*id, decision.clone())).then_some(())
            }
        }
    }

    /// Adds a record from sled. Records must be added in the order of their keys. An id may be missing: its tick was
    /// decided and has left the list. `None` if the record is invalid or out of order.
    pub(in super::super) fn load(
        &mut self,
        key: &[u8],
        record: &HeldRecord,
        crc: u32,
        series_of: SeriesOf<'_>,
    ) -> Option<()> {
        let id = keys::u64_at(key, 1).filter(|id| *id >= self.next_id())?;
        self.push(record.tick.series, record.tick(id, series_of)?, Some(crc));
        Some(())
    }

    /// Returns the keys and records of the ticks changed or removed since the last checkpoint, and updates the digest of all
    /// records.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a record cannot be encoded.
    pub(in super::super) fn changes(
        &mut self,
        id_of: impl Fn(&SeriesKey) -> Option<u32>,
        digest: &mut Digest,
    ) -> Result<Vec<RecordChange>, StoreError> {
        let mut changes = Vec::with_capacity(self.changed.len());
        for id in std::mem::take(&mut self.changed) {
            let key = keys::quarantine(id);
            let value = match self.list.get(id) {
                None => None,
                Some(tick) => {
                    let Some(series) = id_of(&tick.series) else { continue };
                    Some(keys::encode_checksummed(&key, &HeldRecord::new(series, tick))?)
                }
            };
            let old = match value {
                Some((_, crc)) => self.record_crcs.insert(id, crc),
                None => self.record_crcs.remove(&id),
            };
            if let Some(old) = old {
                digest.remove(old);
            }
            if let Some((_, crc)) = value {
                digest.add(crc);
            }
            changes.push((key, value.map(|(value, _)| value)));
        }
        Ok(changes)
    }
}
