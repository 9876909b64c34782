//! Held ticks as the log and sled have them.
//!
//! **Invariant**: what a commit did to the quarantine is in its log entry; replaying it judges no rate again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::checkpoint::sealed_value;
use super::super::keys;
use super::super::log::LogValue;
use super::super::records::Digest;
use super::super::{Series, Store};
use super::Keeper;
use crate::domain::{Decision, HeldTick, Note, Rate, Timestamp, Verdict};

/// What a commit does to the quarantine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum QuarantineChange {
    /// Holds a tick under the next id.
    Held { id: u64, tick: TickLayout },
    /// Decides ticks.
    Decided { ids: Vec<u64>, released: bool, note: Option<String> },
}

/// A tick, and the rate that it was compared with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct TickLayout {
    series: u32,
    observed_us: i64,
    value: LogValue,
    in_force: (u128, u8),
}

impl TickLayout {
    pub(super) fn new(series: u32, tick: &HeldTick) -> Self {
        Self {
            series,
            observed_us: tick.observed_time.micros(),
            value: LogValue::new(&tick.value),
            in_force: (tick.rate_in_force.mantissa(), tick.rate_in_force.places()),
        }
    }

    /// The tick again, not decided; `None` if it makes no sense.
    fn tick(&self, id: u64, held_time: Timestamp, series: &[Series]) -> Option<HeldTick> {
        let series = series.get((self.series as usize).checked_sub(1)?)?;
        let (mantissa, places) = self.in_force;
        Some(HeldTick {
            id,
            series: Arc::clone(&series.key),
            observed_time: Timestamp::from_micros(self.observed_us),
            value: self.value.value()?,
            rate_in_force: Rate::from_parts(mantissa, u32::from(places)).ok()?,
            held_time,
            decision: None,
        })
    }
}

/// A held tick as of the last checkpoint that touched it.
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

    /// The tick again; `None` if it makes no sense.
    fn tick(&self, id: u64, series: &[Series]) -> Option<HeldTick> {
        let mut tick = self.tick.tick(id, Timestamp::from_micros(self.held_us), series)?;
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

impl Keeper {
    /// Does again what a commit did; `None` if that makes no sense.
    pub(in super::super) fn apply(
        &mut self,
        change: &QuarantineChange,
        recorded_time: Timestamp,
        series: &[Series],
    ) -> Option<()> {
        match change {
            QuarantineChange::Held { id, tick } => {
                let held = tick.tick(*id, recorded_time, series).filter(|_| *id == self.next_id())?;
                self.push(tick.series, held, None);
                Some(())
            }
            QuarantineChange::Decided { ids, released, note } => {
                let decision = decision(*released, recorded_time, note.as_deref())?;
                ids.iter().all(|id| self.decide(*id, decision.clone())).then_some(())
            }
        }
    }

    /// Takes a record that sled has; records come in order of their keys. `None` if it makes no sense there.
    pub(in super::super) fn load(
        &mut self,
        key: &[u8],
        record: &HeldRecord,
        crc: u32,
        series: &[Series],
    ) -> Option<()> {
        let id = keys::u64_at(key, 1).filter(|id| *id == self.next_id())?;
        self.push(record.tick.series, record.tick(id, series)?, Some(crc));
        Some(())
    }
}

impl Store {
    /// Writes the records of changed ticks into a batch.
    pub(in super::super) fn index_quarantine(&mut self, batch: &mut sled::Batch, digest: &mut Digest) {
        for id in std::mem::take(&mut self.quarantine.changed) {
            let Some(tick) = self.quarantine.list.get(id) else { continue };
            let Some(series) = self.ids.get(&*tick.series).copied() else { continue };
            let key = keys::quarantine(id);
            let payload = postcard::to_stdvec(&HeldRecord::new(series, tick)).unwrap_or_default();
            let (value, crc) = sealed_value(&key, &payload);
            let stored = super::place(id).and_then(|place| self.quarantine.record_crcs.get_mut(place));
            if let Some(old) = stored.and_then(|stored| stored.replace(crc)) {
                digest.remove(old);
            }
            digest.add(crc);
            batch.insert(&key, value);
        }
    }
}
