//! Checkpoints: write the items that changed in memory as blocks, then clear the log.
//!
//! **Invariants**:
//!
//! - The index and the small records change in one atomic batch. The batch also holds the sequence of the newest commit
//!   that the checkpoint contains. The log is cleared only after this batch is durable.
//! - A large checkpoint writes blocks in earlier batches, and slices write blocks before the checkpoint. No index entry
//!   refers to these blocks before the last batch.
//! - A block id is never reused.

use super::block_builder::{BlockBuilder, BuiltBlock, remove_unread};
use super::digest::Digest;
use super::error::StoreError;
use super::keys;
use super::quarantine::QuarantineIndex;
use super::records::{Meta, SeriesRecord};
use super::rules::RulesRecord;
use super::series::Series;
use super::slices::SLICE_SEGMENTS_MAX;
use super::{COMMITS_ID, Store};

/// While the disk has no room for a checkpoint, changes may accumulate in memory up to this multiple of the checkpoint
/// limits. With the default limits this is a few hundred MB.
const OVERDUE_FACTOR: usize = 8;
/// The writer seals slices while more than one part in this many of the limit of mutable segments is mutable.
const SLICE_FRACTION: usize = 4;
/// Slices before the next commit when a checkpoint is due, at least. More than one, so that the mutable segments become
/// few although each commit makes more segments mutable.
const SLICES_BEFORE_CHECKPOINT: usize = 2;
/// A checkpoint is not postponed for slices beyond this multiple of its limits.
const POSTPONED_FACTOR: u64 = 2;
/// A checkpoint removes at most this many unused blocks, or as many as it builds.
const REMOVED_BLOCKS: usize = 64;
/// Disk space that sled may use in addition to the bytes written: two segments (the current and the next one).
const SPARE_BYTES: u64 = 2 << 20;

/// What the writer has to write to sled between commits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upkeep {
    /// Nothing.
    None,
    /// [`Store::seal_slice`]: this many times before the next commit, and more often while no caller waits.
    Slices {
        /// Slices before the next commit.
        before_next_commit: usize,
    },
    /// [`Store::checkpoint`], before the next commit.
    Checkpoint,
}

impl Store {
    /// Returns true if the disk has room for a checkpoint.
    ///
    /// After a failed write, sled refuses all reads. The caller therefore postpones the checkpoint if there is no room.
    /// Meanwhile the log may still accept commits. Reads continue even when the disk has no room for the log.
    pub fn has_room_for_checkpoint(&self) -> bool {
        let changed = self.replaced.blocks.iter().map(|meta| meta.bytes()).sum::<u64>() + self.log.bytes();
        self.engine.has_room_for(changed.saturating_mul(2).saturating_add(SPARE_BYTES))
    }

    /// Returns what the writer has to write to sled now, between two commits.
    pub fn upkeep(&self) -> Upkeep {
        let limits = &self.options.checkpoint;
        let mutable = self.mutable_segment_count();
        let reaches = |factor: u64| {
            let times = usize::try_from(factor).unwrap_or(usize::MAX);
            self.log.bytes() >= limits.log_bytes.saturating_mul(factor)
                || self.head_item_count() >= limits.head_items.saturating_mul(times)
                || self.unindexed.used_count() >= limits.sealed_blocks.saturating_mul(times)
                || self.quarantine.changed_count() >= QuarantineIndex::CHANGED_MAX.saturating_mul(times)
        };
        // The more segments are mutable, the more slices precede a commit. So their number stays in proportion to the
        // number of segments that a commit makes mutable.
        let share = |parts: usize| mutable / (limits.mutable_segments / parts).max(SLICE_SEGMENTS_MAX);
        let is_due = reaches(1);
        if is_due && (mutable <= SLICE_SEGMENTS_MAX || reaches(POSTPONED_FACTOR)) {
            Upkeep::Checkpoint
        } else if mutable >= limits.mutable_segments.saturating_mul(OVERDUE_FACTOR).max(1) {
            Upkeep::Slices { before_next_commit: usize::MAX }
        } else if is_due {
            Upkeep::Slices { before_next_commit: share(4).max(SLICES_BEFORE_CHECKPOINT) }
        } else if mutable > limits.mutable_segments / SLICE_FRACTION {
            Upkeep::Slices { before_next_commit: share(2).max(1) }
        } else {
            Upkeep::None
        }
    }

    /// Returns true if the changes in memory or the log have reached a [checkpoint limit](super::CheckpointLimits). A
    /// caller that seals slices uses [`Store::upkeep`] instead.
    pub fn checkpoint_is_due(&self) -> bool {
        self.log.bytes() >= self.options.checkpoint.log_bytes
            || self.reaches_limits(1)
            || self.unindexed.used_count() >= self.options.checkpoint.sealed_blocks
            || self.quarantine.changed_count() >= QuarantineIndex::CHANGED_MAX
    }

    /// Returns true if the changes in memory exceed the checkpoint limits by so much that a checkpoint can no longer be
    /// postponed, even if the disk has no room for it.
    pub fn checkpoint_is_overdue(&self) -> bool {
        self.reaches_limits(OVERDUE_FACTOR)
    }

    /// Returns true if the changes in memory reach `factor` times a checkpoint limit.
    fn reaches_limits(&self, factor: usize) -> bool {
        let limits = &self.options.checkpoint;
        self.head_item_count() >= limits.head_items.saturating_mul(factor)
            || self.mutable_segment_count() >= limits.mutable_segments.saturating_mul(factor)
    }

    fn changed_series(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().zip(&self.changed).filter(|(_, changed)| **changed).map(|(series, _)| series)
    }

    fn head_item_count(&self) -> usize {
        let of_series = |series: &Series| {
            series.runs.head_item_count() + series.instants.head_item_count() + series.revisions.head_item_count()
        };
        self.changed_series().map(of_series).sum()
    }

    /// Counts the mutable segments outside heads.
    fn mutable_segment_count(&self) -> usize {
        let of_series = |series: &Series| series.runs.mutable_segment_count() + series.instants.mutable_segment_count();
        self.changed_series().map(of_series).sum()
    }

    /// Returns true if a checkpoint would write anything.
    pub fn has_changes(&self) -> bool {
        self.log.bytes() > 0 || !self.replaced.blocks.is_empty() || self.unindexed.used_count() > 0
    }

    /// Writes all changes in memory as blocks and clears the log. The caller must then publish [`Store::view`], so that
    /// readers release the decoded items.
    ///
    /// # Errors
    /// Returns the I/O error. After an error, the store must not be written to.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        if !self.has_changes() {
            return Ok(());
        }
        self.unindexed.take_replaced(&mut self.replaced.blocks);
        let mut builder = BlockBuilder::new(&self.engine, &mut self.next_block_id);
        for (series, _) in self.series.iter_mut().zip(&self.changed).filter(|(_, changed)| **changed) {
            let id = series.id;
            series.runs.make_immutable(|items| builder.build(id, items))?;
            series.instants.make_immutable(|items| builder.build(id, items))?;
            series.revisions.make_immutable(|items| builder.build(id, items))?;
        }
        self.commits.make_immutable(|items| builder.build(COMMITS_ID, items))?;
        let BlockBuilder { mut batch, built, .. } = builder;
        let built_bytes = built.iter().map(|(_, _, meta)| meta.bytes()).sum();
        remove_unread(&mut batch, &mut self.retired, built.len().max(REMOVED_BLOCKS));
        let (mut new_blocks, unused) = self.unindexed.take();
        new_blocks.extend(built);
        self.replaced.blocks.extend(unused);
        self.index(&mut batch, &new_blocks)?;
        self.engine.apply(batch)?;
        self.engine.clean(built_bytes)?;
        self.engine.sync()?;
        self.high_water_mark.write(self.commit.sequence)?;
        // If the files of the store were replaced, the checkpoint is lost and the log must not be cleared.
        self.check_files()?;
        self.retired.append(&mut self.replaced.blocks);
        self.engine.clear_log(&mut self.log)?;
        let changed: Vec<u32> = (1_u32..)
            .zip(&mut self.changed)
            .filter_map(|(id, changed)| std::mem::take(changed).then_some(id))
            .collect();
        for id in changed {
            self.refresh_view(id);
        }
        Ok(())
    }

    /// Adds the index entries of new blocks and the small records to a batch, and marks replaced blocks as retired.
    fn index(&mut self, batch: &mut sled::Batch, new_blocks: &[BuiltBlock]) -> Result<(), StoreError> {
        let mut digest = self.digest;
        let mut entries = Vec::with_capacity(new_blocks.len());
        for (series, kind, meta) in new_blocks {
            let key = keys::index(*series, *kind as u8, meta.id);
            let (value, crc) = keys::encode_checksummed(&key, &**meta)?;
            digest.add(crc);
            batch.insert(&key, value);
            entries.push((meta.id, (key, crc)));
        }
        for meta in &self.replaced.blocks {
            // `entries` has the keys of the index entries: a key contains the series and the kind, which `meta` lacks. A
            // block of a slice that was replaced before this checkpoint has no index entry.
            if let Some((key, crc)) = self.entries.remove(&meta.id) {
                digest.remove(crc);
                batch.remove(&key);
            }
            batch.insert(&keys::retired(meta.id), &[]);
        }
        self.entries.extend(entries);
        self.index_series(batch, &mut digest)?;
        for (key, value) in self.polls.changes(&mut digest)? {
            match value {
                Some(value) => batch.insert(&key, value),
                None => batch.remove(&key),
            }
        }
        for (key, value) in self.quarantine.changes(|key| self.ids.get(key).copied(), &mut digest)? {
            match value {
                Some(value) => batch.insert(&key, value),
                None => batch.remove(&key),
            }
        }
        for (key, value) in self.archive.changes(&mut digest)? {
            batch.insert(&key, value);
        }
        self.digest = digest;
        let meta = Meta {
            store_id: self.store_id,
            sequence: self.commit.sequence,
            recorded_us: self.commit.recorded_time.micros(),
            last_ingest_us: self.last_ingest_time.map(crate::domain::Timestamp::micros),
            chain: self.chain,
            next_block_id: self.next_block_id,
            digest,
            rules: self.logged_rules.as_ref().map(RulesRecord::new),
        };
        put_meta(batch, &meta)
    }

    /// Adds the records of changed series to a batch.
    fn index_series(&mut self, batch: &mut sled::Batch, digest: &mut Digest) -> Result<(), StoreError> {
        for (at, series) in self.series.iter().enumerate().filter(|(at, _)| self.changed[*at]) {
            let key = keys::series(series.id);
            let (value, crc) = keys::encode_checksummed(&key, &SeriesRecord::new(series))?;
            if let Some(old) = self.record_crcs[at].replace(crc) {
                digest.remove(old);
            }
            digest.add(crc);
            batch.insert(&key, value);
        }
        Ok(())
    }
}

/// Adds the meta record to a batch.
pub(super) fn put_meta(batch: &mut sled::Batch, meta: &Meta) -> Result<(), StoreError> {
    let (value, _) = keys::add_checksum(&keys::META, &meta.encode()?);
    batch.insert(&keys::META, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::SLICE_SEGMENTS_MAX;
    use crate::domain::{Currency, Pair, PublishedValue, Rate, Run, SeriesKey, Source, Timestamp};
    use crate::store::block::Item as _;
    use crate::store::{CheckpointLimits, Store, StoreOptions, Upkeep};

    const NOW: Timestamp = Timestamp::from_micros(Timestamp::DAY_US);

    fn store(directory: &tempfile::TempDir, checkpoint: CheckpointLimits) -> Store {
        Store::open(StoreOptions { checkpoint, ..StoreOptions::of_test(directory.path()) }, NOW).unwrap()
    }

    /// Commits ticks at these hours. Each tick has a rate of its own.
    fn commit(store: &mut Store, hours: impl Iterator<Item = i64>) {
        let currency = |code| Currency::parse(code).unwrap();
        let pair = Pair::new(currency("KGS"), currency("USD")).unwrap();
        let key = SeriesKey { pair, source: Source::parse("timesca").unwrap() };
        let mut transaction = store.begin(NOW);
        let series = transaction.series(&key).unwrap();
        for at in hours {
            let rate = Rate::from_parts(u128::from(at.unsigned_abs()) + 1, 5).unwrap();
            let value = PublishedValue { rate, reported_change: None };
            transaction.upsert(series, Timestamp::from_micros(at * Timestamp::HOUR_US), value, false).unwrap();
        }
        transaction.commit().unwrap();
    }

    #[test]
    fn slices_keep_few_segments_mutable_and_precede_the_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let limits = CheckpointLimits { mutable_segments: 16, sealed_blocks: 16, ..CheckpointLimits::default() };
        let mut store = store(&directory, limits);
        // Twelve blocks of runs and six blocks of instants, with room for late ticks between their ticks.
        let of_block = |block: i64| block * 2 * 2_048;
        assert_eq!(Run::BLOCK_ITEMS_MAX, 2_048);
        commit(&mut store, (0..of_block(12)).step_by(2));
        store.checkpoint().unwrap();
        let late = |store: &mut Store, blocks: std::ops::Range<i64>, hour: i64| {
            commit(store, blocks.map(|block| of_block(block) + hour));
        };
        // A late tick splits a full block of runs, and a full block of instants.
        late(&mut store, 0..1, 1_001);
        assert_eq!((store.mutable_segment_count(), store.upkeep()), (4, Upkeep::None));
        late(&mut store, 2..4, 1_001);
        assert_eq!((store.mutable_segment_count(), store.upkeep()), (10, Upkeep::Slices { before_next_commit: 1 }));
        assert!(store.seal_slice().unwrap());
        assert_eq!((store.mutable_segment_count(), store.upkeep()), (2, Upkeep::None));
        late(&mut store, 0..12, 1_003);
        let mutable = store.mutable_segment_count();
        assert!(mutable > 24, "{mutable} mutable segments");
        let mut slices = 0;
        while let Upkeep::Slices { before_next_commit } = store.upkeep() {
            assert!((1..=mutable).contains(&before_next_commit));
            let before = store.mutable_segment_count();
            assert!(store.seal_slice().unwrap());
            assert_eq!(before - store.mutable_segment_count(), SLICE_SEGMENTS_MAX);
            slices += 1;
        }
        assert_eq!((slices, store.upkeep()), ((mutable - 1) / SLICE_SEGMENTS_MAX, Upkeep::Checkpoint));
        assert!(store.sealed_block_count() >= 16);
        store.checkpoint().unwrap();
        assert_eq!((store.sealed_block_count(), store.upkeep()), (0, Upkeep::None));
        assert_eq!(store.verify().problems, Vec::<String>::new());
    }

    #[test]
    fn checkpoint_becomes_due_before_it_is_overdue() {
        let directory = tempfile::tempdir().unwrap();
        let limits = CheckpointLimits { head_items: 100, ..CheckpointLimits::default() };
        let mut store = store(&directory, limits);
        let mut due_and_overdue = |ticks: std::ops::Range<i64>| {
            commit(&mut store, ticks.map(|day| day * 24));
            (store.checkpoint_is_due(), store.checkpoint_is_overdue())
        };
        assert_eq!(due_and_overdue(0..40), (false, false));
        assert_eq!(due_and_overdue(40..200), (true, false));
        assert_eq!(due_and_overdue(200..1_000), (true, true));
    }
}
