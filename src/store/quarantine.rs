//! The quarantine: held ticks and the decisions about them. The rate of a held tick is too far from the rate in force
//! at the tick's observed time. All held ticks are in memory. On disk, the log has the changes since the last
//! checkpoint, and sled has the rest.
//!
//! **Invariants**: ids count from 1 without gaps, so that the id of a tick gives its position in the list; at most one
//! tick with a given series, instant and value is held or was discarded; the list of a view never changes.

mod recorded;

pub(super) use recorded::{HeldRecord, QuarantineChange, TickLayout};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::domain::{Decision, HeldTick, PublishedValue, SeriesKey, Timestamp};

/// Number of ticks in a chunk of the list. A change copies one chunk while readers hold the list.
const CHUNK_TICKS: usize = 256;

/// All held ticks as of one commit, decided ticks included. A clone is cheap and never changes.
#[derive(Clone, Debug, Default)]
pub struct Quarantine {
    chunks: Arc<Vec<Arc<Vec<HeldTick>>>>,
    /// Number of held ticks without a decision, by series.
    held: Arc<BTreeMap<Arc<SeriesKey>, usize>>,
    held_count: usize,
}

impl Quarantine {
    /// Maximum number of held ticks without a decision.
    pub const HELD_MAX: usize = 10_000;
    /// Maximum number of held ticks of one series without a decision.
    pub const SERIES_HELD_MAX: usize = 1_000;
    /// Maximum number of ticks in the list, decided ticks included.
    pub const LISTED_MAX: usize = 100_000;

    /// Returns the number of ticks in the list, decided ticks included.
    pub fn count(&self) -> usize {
        match self.chunks.split_last() {
            None => 0,
            Some((last, full)) => full.len() * CHUNK_TICKS + last.len(),
        }
    }

    /// Returns the number of held ticks without a decision.
    pub const fn held_count(&self) -> usize {
        self.held_count
    }

    /// Returns the number of held ticks without a decision by series. Series without such ticks are left out.
    pub fn held_by_series(&self) -> impl Iterator<Item = (&SeriesKey, usize)> {
        self.held.iter().map(|(key, count)| (&**key, *count))
    }

    /// Returns the tick with this id, decided or not.
    pub fn get(&self, id: u64) -> Option<&HeldTick> {
        let position = position(id)?;
        self.chunks.get(position / CHUNK_TICKS)?.get(position % CHUNK_TICKS)
    }

    /// Iterates over the ticks with a greater id, sorted by id. Id 0 gives all ticks.
    pub fn after(&self, id: u64) -> impl Iterator<Item = &HeldTick> {
        let from = usize::try_from(id).unwrap_or(usize::MAX);
        let chunks = self.chunks.get(from / CHUNK_TICKS..).unwrap_or_default();
        chunks.iter().flat_map(|chunk| chunk.iter()).skip(from % CHUNK_TICKS)
    }

    /// Iterates over the ticks with a smaller id, newest first. Id 0 gives all ticks.
    pub fn before(&self, id: u64) -> impl Iterator<Item = &HeldTick> {
        let count = position(id).map_or(self.count(), |position| position.min(self.count()));
        (0..count).rev().filter_map(|position| self.chunks.get(position / CHUNK_TICKS)?.get(position % CHUNK_TICKS))
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

    /// Marks a held tick as decided. Returns false if no tick with this id awaits a decision.
    fn decide(&mut self, id: u64, decision: Decision) -> bool {
        let Some(position) = position(id) else { return false };
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(position / CHUNK_TICKS) else { return false };
        let Some(tick) = Arc::make_mut(chunk).get_mut(position % CHUNK_TICKS).filter(|tick| tick.is_held()) else {
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

/// Returns the position in the list of the tick with this id.
fn position(id: u64) -> Option<usize> {
    usize::try_from(id.checked_sub(1)?).ok()
}

/// The limit that prevents another tick from being held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuarantineLimit {
    /// The limit of the store, [`Quarantine::HELD_MAX`].
    Store,
    /// The limit of the series, [`Quarantine::SERIES_HELD_MAX`].
    Series,
    /// The limit of the list, [`Quarantine::LISTED_MAX`].
    Listed,
}

/// The writer's side of the quarantine: the list, an index by series and instant, and the state of the records on disk.
#[derive(Default)]
pub(super) struct QuarantineIndex {
    list: Quarantine,
    /// Ids of ticks by series and instant.
    by_instant: HashMap<(u32, Timestamp), Vec<u64>>,
    /// Latest observed time of any held tick, by series id. New ticks are usually later, and need no search by instant.
    latest_held: Vec<Timestamp>,
    /// Checksum of the stored record of each tick, at index `id - 1`; `None` if no record is stored yet.
    record_crcs: Vec<Option<u32>>,
    /// Ids of ticks with no stored record, or with a record that is out of date.
    changed: BTreeSet<u64>,
}

impl QuarantineIndex {
    /// Number of changed ticks at which a checkpoint is due. A checkpoint writes their records in one batch.
    pub(super) const CHANGED_MAX: usize = 2_048;

    /// Returns the list that views share.
    pub(super) fn list(&self) -> &Quarantine {
        &self.list
    }

    pub(super) fn changed_count(&self) -> usize {
        self.changed.len()
    }

    pub(super) fn next_id(&self) -> u64 {
        self.list.count() as u64 + 1
    }

    /// Returns the newest tick with this series, instant and value, decided or not.
    pub(super) fn find(&self, series: u32, time: Timestamp, value: PublishedValue) -> Option<&HeldTick> {
        self.latest_held.get(series as usize).filter(|latest| time <= **latest)?;
        let ids = self.by_instant.get(&(series, time))?;
        ids.iter().rev().filter_map(|id| self.list.get(*id)).find(|tick| tick.value == value)
    }

    /// Checks that another tick of a series may be held.
    ///
    /// # Errors
    /// Returns the limit that is reached.
    pub(super) fn check_room(&self, series: &SeriesKey) -> Result<(), QuarantineLimit> {
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

    /// Adds a tick. Its id must be [`Self::next_id`]. `record_crc` is the checksum of its stored record, if it has one.
    pub(super) fn push(&mut self, series: u32, tick: HeldTick, record_crc: Option<u32>) {
        self.by_instant.entry((series, tick.observed_time)).or_default().push(tick.id);
        let at = series as usize;
        if self.latest_held.len() <= at {
            self.latest_held.resize(at + 1, Timestamp::MIN);
        }
        self.latest_held[at] = self.latest_held[at].max(tick.observed_time);
        if record_crc.is_none() {
            self.changed.insert(tick.id);
        }
        self.record_crcs.push(record_crc);
        self.list.push(tick);
    }

    /// Removes all ticks after the first `count`. The removed ticks belong to a commit in progress, so none of them is
    /// decided or stored.
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

    /// Marks a held tick as decided. Returns false if no tick with this id awaits a decision.
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
    fn clone_of_list_does_not_change() {
        let mut list = Quarantine::default();
        let length = CHUNK_TICKS * 2 + 3;
        let count = length as u64;
        for id in 1..=count {
            list.push(tick(id));
        }
        let before = list.clone();
        let decision = Decision { verdict: Verdict::Discarded, decided_time: Timestamp::from_micros(2), note: None };
        assert!(list.decide(CHUNK_TICKS as u64, decision.clone()));
        assert!(!list.decide(CHUNK_TICKS as u64, decision.clone()), "a tick is decided once");
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
