//! Held ticks: those that came in too far from the rate in force at their own place in time, and what was decided of
//! them. All are in memory; the log has what changed since the last checkpoint, sled has the rest.
//!
//! **Invariants**: ids count from 1 without gaps, so that a tick's id is its place; of one series, instant and value at
//! most one tick is held or was discarded; a reader's list never changes.

mod recorded;

pub(super) use recorded::{HeldRecord, QuarantineChange, TickLayout};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::domain::{Decision, HeldTick, PublishedValue, SeriesKey, Timestamp};

/// Ticks of one piece of the list: what a change copies while readers hold the list.
const CHUNK_TICKS: usize = 256;

/// The held ticks of one commit, decided ones included. Cheap to clone; a clone never changes.
#[derive(Clone, Debug, Default)]
pub struct Quarantine {
    chunks: Arc<Vec<Arc<Vec<HeldTick>>>>,
    /// By series: how many are held and not decided.
    held: Arc<BTreeMap<Arc<SeriesKey>, usize>>,
    held_count: usize,
}

impl Quarantine {
    /// Most ticks held at one time.
    pub const HELD_MAX: usize = 10_000;
    /// Most ticks of one series held at one time.
    pub const SERIES_HELD_MAX: usize = 1_000;
    /// Most ticks listed, decided ones included.
    pub const LISTED_MAX: usize = 100_000;

    /// How many are listed, decided ones included.
    pub fn count(&self) -> usize {
        match self.chunks.split_last() {
            None => 0,
            Some((last, full)) => full.len() * CHUNK_TICKS + last.len(),
        }
    }

    /// How many are held and not decided.
    pub const fn held_count(&self) -> usize {
        self.held_count
    }

    /// The same by series, those without any left out.
    pub fn held_by_series(&self) -> impl Iterator<Item = (&SeriesKey, usize)> {
        self.held.iter().map(|(key, count)| (&**key, *count))
    }

    /// By id.
    pub fn get(&self, id: u64) -> Option<&HeldTick> {
        let place = place(id)?;
        self.chunks.get(place / CHUNK_TICKS)?.get(place % CHUNK_TICKS)
    }

    /// Those with a greater id, in order; all for 0.
    pub fn after(&self, id: u64) -> impl Iterator<Item = &HeldTick> {
        let from = usize::try_from(id).unwrap_or(usize::MAX);
        let chunks = self.chunks.get(from / CHUNK_TICKS..).unwrap_or_default();
        chunks.iter().flat_map(|chunk| chunk.iter()).skip(from % CHUNK_TICKS)
    }

    fn push(&mut self, tick: HeldTick) {
        if tick.is_held() {
            self.count_held(&tick.series, 1);
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        match chunks.last_mut() {
            Some(last) if last.len() < CHUNK_TICKS => Arc::make_mut(last).push(tick),
            _ => chunks.push(Arc::new(vec![tick])),
        }
    }

    fn pop(&mut self) -> Option<HeldTick> {
        let chunks = Arc::make_mut(&mut self.chunks);
        let last = Arc::make_mut(chunks.last_mut()?);
        let tick = last.pop();
        if last.is_empty() {
            chunks.pop();
        }
        if let Some(tick) = tick.as_ref().filter(|tick| tick.is_held()) {
            self.count_held(&Arc::clone(&tick.series), -1);
        }
        tick
    }

    /// Decides a held tick; false if there is none of this id.
    fn decide(&mut self, id: u64, decision: Decision) -> bool {
        let Some(place) = place(id) else { return false };
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(place / CHUNK_TICKS) else { return false };
        let Some(tick) = Arc::make_mut(chunk).get_mut(place % CHUNK_TICKS).filter(|tick| tick.is_held()) else {
            return false;
        };
        tick.decision = Some(decision);
        let series = Arc::clone(&tick.series);
        self.count_held(&series, -1);
        true
    }

    fn count_held(&mut self, series: &Arc<SeriesKey>, by: isize) {
        let held = Arc::make_mut(&mut self.held);
        let count = held.entry(Arc::clone(series)).or_default();
        *count = count.saturating_add_signed(by);
        if *count == 0 {
            held.remove(series);
        }
        self.held_count = self.held_count.saturating_add_signed(by);
    }
}

/// Where a tick of this id is in the list.
fn place(id: u64) -> Option<usize> {
    usize::try_from(id.checked_sub(1)?).ok()
}

/// Why no more ticks are held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuarantineLimit {
    /// [`Quarantine::HELD_MAX`].
    Store,
    /// [`Quarantine::SERIES_HELD_MAX`].
    Series,
    /// [`Quarantine::LISTED_MAX`].
    Listed,
}

/// The writer's side: the list, and what it takes to find a tick in it and to store it.
#[derive(Default)]
pub(super) struct Keeper {
    list: Quarantine,
    /// Ids by series and instant.
    by_instant: HashMap<(u32, Timestamp), Vec<u64>>,
    /// By series: no tick later than this was ever held. It spares the newest end a look into the table.
    held_until: Vec<Timestamp>,
    /// Checksum of each tick's record as stored, by id less one.
    record_crcs: Vec<Option<u32>>,
    /// Ids of those that are not stored, or are stored otherwise.
    changed: BTreeSet<u64>,
}

impl Keeper {
    /// Ticks changed since the last checkpoint at which one is due: their records go in one batch.
    pub(super) const CHANGED_MAX: usize = 2_048;

    /// What readers see.
    pub(super) fn list(&self) -> &Quarantine {
        &self.list
    }

    pub(super) fn changed_count(&self) -> usize {
        self.changed.len()
    }

    pub(super) fn next_id(&self) -> u64 {
        self.list.count() as u64 + 1
    }

    /// The tick of this series, instant and value, whatever was decided of it.
    pub(super) fn find(&self, series: u32, time: Timestamp, value: PublishedValue) -> Option<&HeldTick> {
        self.held_until.get(series as usize).filter(|until| time <= **until)?;
        let ids = self.by_instant.get(&(series, time))?;
        ids.iter().rev().filter_map(|id| self.list.get(*id)).find(|tick| tick.value == value)
    }

    /// Whether one more tick of a series may be held.
    pub(super) fn room_for(&self, series: &SeriesKey) -> Result<(), QuarantineLimit> {
        if self.list.held.get(series).is_some_and(|count| *count >= Quarantine::SERIES_HELD_MAX) {
            return Err(QuarantineLimit::Series);
        }
        if self.list.held_count >= Quarantine::HELD_MAX {
            return Err(QuarantineLimit::Store);
        }
        if self.list.count() >= Quarantine::LISTED_MAX {
            return Err(QuarantineLimit::Listed);
        }
        Ok(())
    }

    /// Adds a tick whose id is the next one.
    pub(super) fn push(&mut self, series: u32, tick: HeldTick, record_crc: Option<u32>) {
        self.by_instant.entry((series, tick.observed_time)).or_default().push(tick.id);
        let at = series as usize;
        if self.held_until.len() <= at {
            self.held_until.resize(at + 1, Timestamp::MIN);
        }
        self.held_until[at] = self.held_until[at].max(tick.observed_time);
        if record_crc.is_none() {
            self.changed.insert(tick.id);
        }
        self.record_crcs.push(record_crc);
        self.list.push(tick);
    }

    /// Takes back all ticks but the first `count`. They are of a commit under way, so that none is decided or stored.
    pub(super) fn truncate(&mut self, count: usize, series_id: impl Fn(&SeriesKey) -> Option<u32>) {
        while self.list.count() > count
            && let Some(tick) = self.list.pop()
        {
            self.changed.remove(&tick.id);
            self.record_crcs.pop();
            let Some(key) = series_id(&tick.series).map(|series| (series, tick.observed_time)) else { continue };
            if let Some(ids) = self.by_instant.get_mut(&key) {
                ids.retain(|id| *id != tick.id);
                if ids.is_empty() {
                    self.by_instant.remove(&key);
                }
            }
        }
    }

    /// Decides a held tick; false if there is none of this id.
    pub(super) fn decide(&mut self, id: u64, decision: Decision) -> bool {
        let decided = self.list.decide(id, decision);
        if decided {
            self.changed.insert(id);
        }
        decided
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Currency, Pair, Rate, Source, Verdict};

    fn tick(id: u64) -> HeldTick {
        let currency = |code| Currency::parse(code).unwrap();
        let series = SeriesKey {
            pair: Pair::new(currency("KGS"), currency("USD")).unwrap(),
            source: Source::parse("timesca").unwrap(),
        };
        let rate = |text| Rate::parse(text).unwrap();
        HeldTick {
            id,
            series: Arc::new(series),
            observed_time: Timestamp::from_micros(id.cast_signed()),
            value: PublishedValue { rate: rate("0.1144"), reported_change: None },
            rate_in_force: rate("0.01144"),
            held_time: Timestamp::from_micros(1),
            decision: None,
        }
    }

    #[test]
    fn a_clone_of_the_list_stays_as_it_was() {
        let mut list = Quarantine::default();
        let length = CHUNK_TICKS * 2 + 3;
        let count = length as u64;
        for id in 1..=count {
            list.push(tick(id));
        }
        let before = list.clone();
        let decision = Decision { verdict: Verdict::Discarded, decided_time: Timestamp::from_micros(2), note: None };
        assert!(list.decide(CHUNK_TICKS as u64, decision.clone()));
        assert!(!list.decide(CHUNK_TICKS as u64, decision.clone()), "decided once");
        assert!(!list.decide(0, decision.clone()) && !list.decide(count + 1, decision));
        list.push(tick(count + 1));
        assert_eq!((before.count(), before.held_count()), (length, length));
        assert!(before.after(0).all(HeldTick::is_held));
        assert_eq!((list.count(), list.held_count()), (length + 1, length));
        let ids: Vec<u64> = list.after(CHUNK_TICKS as u64 - 1).map(|tick| tick.id).collect();
        assert_eq!(ids, (CHUNK_TICKS as u64..=count + 1).collect::<Vec<_>>());
        assert_eq!(list.after(count + 1).count(), 0);
        assert_eq!(list.after(u64::MAX).count(), 0);
        while list.pop().is_some() {}
        assert_eq!((list.count(), list.held_count(), list.held_by_series().count()), (0, 0, 0));
    }
}
