//! The quarantine: held ticks and the decisions about them. The rate of a held tick is too far from the rate in force
//! at the tick's observed time. The list in memory has all held ticks and the last decided ticks. On disk, the log has
//! the changes since the last checkpoint, and sled has the rest.
//!
//! **Invariants**: ids count from 1, ascend in the list and are never reused; a held tick stays in the list until it is
//! decided; at most [`Quarantine::DECIDED_MAX`] decided ticks are in the list after a commit; at most one tick of the
//! list with a given series, instant and value is held or was discarded; the list of a view never changes.

mod recorded;

pub(super) use recorded::{HeldRecord, QuarantineChange, TickLayout};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::domain::{Decision, HeldTick, PublishedValue, SeriesKey, Source, Timestamp};

/// Number of ids in a chunk of the list. A change copies one chunk while readers hold the list.
const CHUNK_IDS: u64 = 256;

/// The held ticks as of one commit, and the last decided ticks. A clone is cheap and never changes.
#[derive(Clone, Debug, Default)]
pub struct Quarantine {
    /// The ticks by id divided by [`CHUNK_IDS`]. A chunk is sorted by id and is not empty.
    chunks: Arc<BTreeMap<u64, Arc<Vec<HeldTick>>>>,
    /// Number of held ticks without a decision, by series.
    held: Arc<BTreeMap<Arc<SeriesKey>, usize>>,
    /// Number of held ticks without a decision, by source.
    held_of_source: Arc<BTreeMap<Source, usize>>,
    held_count: usize,
    count: usize,
}

impl Quarantine {
    /// Maximum number of held ticks without a decision.
    pub const HELD_MAX: usize = 10_000;
    /// Maximum number of held ticks of one source without a decision, so that one source cannot take the places of the
    /// others.
    pub const SOURCE_HELD_MAX: usize = 2_500;
    /// Maximum number of held ticks of all sources together that are not configured, so that they cannot take the places
    /// of configured ones.
    pub const OPEN_HELD_MAX: usize = 5_000;
    /// Maximum number of held ticks of one series without a decision.
    pub const SERIES_HELD_MAX: usize = 1_000;
    /// Maximum number of decided ticks in the list. Beyond it, the oldest decided tick of the source that has the most
    /// decided ticks leaves the list.
    pub const DECIDED_MAX: usize = 100_000;

    /// Returns the number of ticks in the list, decided ticks included.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Returns the greatest id that was assigned; 0 if none was. The tick with the greatest id never leaves the list.
    pub fn last_id(&self) -> u64 {
        self.chunks.last_key_value().and_then(|(_, chunk)| chunk.last()).map_or(0, |tick| tick.id)
    }

    /// Returns the number of held ticks without a decision.
    pub const fn held_count(&self) -> usize {
        self.held_count
    }

    /// Returns the number of held ticks without a decision by series. Series without such ticks are left out.
    pub fn held_by_series(&self) -> impl Iterator<Item = (&SeriesKey, usize)> {
        self.held.iter().map(|(key, count)| (&**key, *count))
    }

    /// Returns the tick with this id, decided or not; `None` if the list has no such tick.
    pub fn get(&self, id: u64) -> Option<&HeldTick> {
        let chunk = self.chunks.get(&(id / CHUNK_IDS))?;
        chunk.get(position(chunk, id)?)
    }

    /// Iterates over the ticks with a greater id, sorted by id. Id 0 gives all ticks.
    pub fn after(&self, id: u64) -> impl Iterator<Item = &HeldTick> {
        let chunks = self.chunks.range(id / CHUNK_IDS..);
        chunks.flat_map(|(_, chunk)| chunk.iter()).skip_while(move |tick| tick.id <= id)
    }

    /// Iterates over the ticks with a smaller id, newest first. Id 0 gives all ticks.
    pub fn before(&self, id: u64) -> impl Iterator<Item = &HeldTick> {
        let end = if id == 0 { u64::MAX } else { id };
        let chunks = self.chunks.range(..=end / CHUNK_IDS).rev();
        chunks.flat_map(|(_, chunk)| chunk.iter().rev()).skip_while(move |tick| tick.id >= end)
    }

    /// Adds a tick. Its id is greater than all ids of the list.
    fn push(&mut self, tick: HeldTick) {
        if tick.is_held() {
            self.count_held(&tick.series, 1);
        }
        self.count += 1;
        Arc::make_mut(Arc::make_mut(&mut self.chunks).entry(tick.id / CHUNK_IDS).or_default()).push(tick);
    }

    /// Removes the tick with this id.
    fn remove(&mut self, id: u64) -> Option<HeldTick> {
        let chunk = self.chunks.get(&(id / CHUNK_IDS))?;
        let at = position(chunk, id)?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(chunks.get_mut(&(id / CHUNK_IDS))?);
        let tick = chunk.remove(at);
        if chunk.is_empty() {
            chunks.remove(&(id / CHUNK_IDS));
        }
        self.count -= 1;
        if tick.is_held() {
            self.count_held(&tick.series, -1);
        }
        Some(tick)
    }

    /// Marks a held tick as decided. Returns false if no tick with this id awaits a decision.
    fn decide(&mut self, id: u64, decision: Decision) -> bool {
        if !self.get(id).is_some_and(HeldTick::is_held) {
            return false;
        }
        let Some(chunk) = Arc::make_mut(&mut self.chunks).get_mut(&(id / CHUNK_IDS)) else { return false };
        let Some(at) = position(chunk, id) else { return false };
        let tick = &mut Arc::make_mut(chunk)[at];
        tick.decision = Some(decision);
        let series = Arc::clone(&tick.series);
        self.count_held(&series, -1);
        true
    }

    fn count_held(&mut self, series: &Arc<SeriesKey>, by: isize) {
        add(Arc::make_mut(&mut self.held), series, by);
        add(Arc::make_mut(&mut self.held_of_source), &series.source, by);
        self.held_count = self.held_count.saturating_add_signed(by);
    }
}

/// Returns the position in a chunk of the tick with this id.
fn position(chunk: &[HeldTick], id: u64) -> Option<usize> {
    chunk.binary_search_by_key(&id, |tick| tick.id).ok()
}

/// Adds `by` to the count of a key. A key with count 0 is removed.
fn add<K: Clone + Ord>(counts: &mut BTreeMap<K, usize>, key: &K, by: isize) {
    let count = counts.entry(key.clone()).or_default();
    *count = count.saturating_add_signed(by);
    if *count == 0 {
        counts.remove(key);
    }
}

/// The limit that prevents another tick from being held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuarantineLimit {
    /// The limit of the store, [`Quarantine::HELD_MAX`].
    Store,
    /// The limit of sources that are not configured, [`Quarantine::OPEN_HELD_MAX`].
    Open,
    /// The limit of the source, [`Quarantine::SOURCE_HELD_MAX`].
    Source,
    /// The limit of the series, [`Quarantine::SERIES_HELD_MAX`].
    Series,
}

/// The writer's side of the quarantine: the list, an index by series and instant, and the state of the records on disk.
#[derive(Default)]
pub(super) struct QuarantineIndex {
    list: Quarantine,
    /// Ids of ticks by series and instant.
    by_instant: HashMap<(u32, Timestamp), Vec<u64>>,
    /// Latest observed time of any held tick, by series id. New ticks are usually later, and need no search by instant.
    latest_held: Vec<Timestamp>,
    /// Checksums of the stored records, by id.
    record_crcs: HashMap<u64, u32>,
    /// Ids of ticks with no stored record, with a record that is out of date, or with a record that is no longer needed.
    changed: BTreeSet<u64>,
    /// Ids of decided ticks in the list, by source.
    decided: BTreeMap<Source, BTreeSet<u64>>,
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
        self.list.last_id() + 1
    }

    /// Returns the newest tick with this series, instant and value, decided or not.
    pub(super) fn find(&self, series: u32, time: Timestamp, value: PublishedValue) -> Option<&HeldTick> {
        self.latest_held.get(series as usize).filter(|latest| time <= **latest)?;
        let ids = self.by_instant.get(&(series, time))?;
        ids.iter().rev().filter_map(|id| self.list.get(*id)).find(|tick| tick.value == value)
    }

    /// Checks that another tick of a series may be held. `configured` are the sources of
    /// [`super::StoreOptions::configured_sources`].
    ///
    /// # Errors
    /// Returns the limit that is reached.
    pub(super) fn check_room(&self, series: &SeriesKey, configured: &BTreeSet<Source>) -> Result<(), QuarantineLimit> {
        let is_open = |source: &Source| !configured.is_empty() && !configured.contains(source);
        let held_of_open = || {
            let of_source = self.list.held_of_source.iter();
            of_source.filter(|(source, _)| is_open(source)).map(|(_, count)| count).sum::<usize>()
        };
        if is_open(&series.source) && held_of_open() >= Quarantine::OPEN_HELD_MAX {
            return Err(QuarantineLimit::Open);
        }
        if self.list.held.get(series).is_some_and(|count| *count >= Quarantine::SERIES_HELD_MAX) {
            return Err(QuarantineLimit::Series);
        }
        if self.list.held_of_source.get(&series.source).is_some_and(|count| *count >= Quarantine::SOURCE_HELD_MAX) {
            return Err(QuarantineLimit::Source);
        }
        if self.list.held_count >= Quarantine::HELD_MAX {
            return Err(QuarantineLimit::Store);
        }
        Ok(())
    }

    /// Adds a tick. Its id must be at least [`Self::next_id`]. `record_crc` is the checksum of its stored record, if it has one.
    pub(super) fn push(&mut self, series: u32, tick: HeldTick, record_crc: Option<u32>) {
        self.by_instant.entry((series, tick.observed_time)).or_default().push(tick.id);
        let at = series as usize;
        if self.latest_held.len() <= at {
            self.latest_held.resize(at + 1, Timestamp::MIN);
        }
        self.latest_held[at] = self.latest_held[at].max(tick.observed_time);
        match record_crc {
            Some(crc) => drop(self.record_crcs.insert(tick.id, crc)),
            None => drop(self.changed.insert(tick.id)),
        }
        if !tick.is_held() {
            self.decided.entry(tick.series.source.clone()).or_default().insert(tick.id);
        }
        self.list.push(tick);
    }

    /// Removes all ticks with an id greater than `last_id`. The removed ticks belong to a commit in progress, so none of
    /// them is decided or stored.
    pub(super) fn truncate(&mut self, last_id: u64, series_id: impl Fn(&SeriesKey) -> Option<u32>) {
        while self.list.last_id() > last_id
            && let Some(tick) = self.list.remove(self.list.last_id())
        {
            self.changed.remove(&tick.id);
            self.forget_instant(&tick, &series_id);
        }
    }

    /// Removes a tick that left the list from the index by instant.
    fn forget_instant(&mut self, tick: &HeldTick, series_id: impl Fn(&SeriesKey) -> Option<u32>) {
        let Some(key) = series_id(&tick.series).map(|series| (series, tick.observed_time)) else { return };
        if let Some(ids) = self.by_instant.get_mut(&key) {
            ids.retain(|id| *id != tick.id);
            if ids.is_empty() {
                self.by_instant.remove(&key);
            }
        }
    }

    /// Marks a held tick as decided. Returns false if no tick with this id awaits a decision.
    pub(super) fn decide(&mut self, id: u64, decision: Decision) -> bool {
        let decided = self.list.decide(id, decision);
        if let Some(tick) = self.list.get(id).filter(|_| decided) {
            self.changed.insert(id);
            self.decided.entry(tick.series.source.clone()).or_default().insert(id);
        }
        decided
    }

    /// Removes decided ticks beyond [`Quarantine::DECIDED_MAX`] from the list. A commit and its replay call this at the
    /// same point, so that both remove the same ticks.
    pub(super) fn trim(&mut self, series_id: impl Fn(&SeriesKey) -> Option<u32>) {
        self.trim_to(Quarantine::DECIDED_MAX, series_id);
    }

    fn trim_to(&mut self, decided_max: usize, series_id: impl Fn(&SeriesKey) -> Option<u32>) {
        let last_id = self.list.last_id();
        while self.list.count - self.list.held_count > decided_max {
            // The tick with the greatest id stays, because the next id follows from it.
            let removable = self.decided.iter_mut().filter(|(_, ids)| ids.first().is_some_and(|id| *id != last_id));
            // Of the sources with the most decided ticks, the first in the order of names.
            let longest = removable.rev().max_by_key(|(_, ids)| ids.len());
            let oldest = longest.and_then(|(_, ids)| ids.pop_first());
            let Some(tick) = oldest.and_then(|id| self.list.remove(id)) else { return };
            self.forget_instant(&tick, &series_id);
            if self.record_crcs.contains_key(&tick.id) {
                self.changed.insert(tick.id);
            } else {
                self.changed.remove(&tick.id);
            }
            if self.decided.get(&tick.series.source).is_some_and(BTreeSet::is_empty) {
                self.decided.remove(&tick.series.source);
            }
        }
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

    const DECISION_TIME: Timestamp = Timestamp::from_micros(2);

    fn discard() -> Decision {
        Decision { verdict: Verdict::Discarded, decided_time: DECISION_TIME, note: None }
    }

    #[test]
    fn clone_of_list_does_not_change() {
        let mut list = Quarantine::default();
        let count = CHUNK_IDS * 2 + 3;
        let length = usize::try_from(count).unwrap();
        for id in 1..=count {
            list.push(tick(id));
        }
        let before = list.clone();
        assert!(list.decide(CHUNK_IDS, discard()));
        assert!(!list.decide(CHUNK_IDS, discard()), "a tick is decided once");
        assert!(!list.decide(0, discard()) && !list.decide(count + 1, discard()));
        list.push(tick(count + 1));
        assert_eq!((before.count(), before.held_count()), (length, length));
        assert!(before.after(0).all(HeldTick::is_held));
        assert_eq!((list.count(), list.held_count()), (length + 1, length));
        let ids: Vec<u64> = list.after(CHUNK_IDS - 1).map(|tick| tick.id).collect();
        assert_eq!(ids, (CHUNK_IDS..=count + 1).collect::<Vec<_>>());
        let ids: Vec<u64> = list.before(CHUNK_IDS + 1).map(|tick| tick.id).collect();
        assert_eq!(ids, (1..=CHUNK_IDS).rev().collect::<Vec<_>>());
        assert_eq!((list.before(0).count(), list.before(u64::MAX).count()), (length + 1, length + 1));
        assert_eq!(list.after(count + 1).count(), 0);
        assert_eq!(list.after(u64::MAX).count(), 0);
        while list.remove(list.last_id()).is_some() {}
        assert_eq!((list.count(), list.held_count(), list.held_by_series().count()), (0, 0, 0));
        assert!(list.held_of_source.is_empty());
    }

    #[test]
    fn oldest_decided_ticks_of_the_source_with_most_leave_the_list() {
        let mut index = QuarantineIndex::default();
        let of = |id: u64, source: &str| {
            let mut tick = tick(id);
            Arc::make_mut(&mut tick.series).source = Source::parse(source).unwrap();
            tick
        };
        index.push(1, of(1, "a"), None);
        for id in 2..=4 {
            index.push(2, of(id, "b"), Some(7));
        }
        index.push(1, of(5, "a"), None);
        for id in [1, 2, 3, 4] {
            assert!(index.decide(id, discard()));
        }
        let ids = |index: &QuarantineIndex| index.list().after(0).map(|tick| tick.id).collect::<Vec<_>>();
        index.trim_to(2, |_| Some(2));
        assert_eq!(ids(&index), [1, 4, 5], "the two oldest ticks of b leave");
        assert_eq!(index.next_id(), 6);
        assert!(!index.decide(2, discard()), "a tick that left the list cannot be decided");
        assert!(index.changed.contains(&2) && index.changed.contains(&3), "the records of b are removed");
        assert!(index.decide(5, discard()));
        index.trim_to(1, |_| Some(1));
        assert_eq!((ids(&index), index.next_id()), (vec![5], 6), "the greatest id stays");
        assert!(!index.changed.contains(&1), "the tick without a record needs no removal");
    }
}
