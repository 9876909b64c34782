//! Checkpoints: write the items that changed in memory as blocks, then clear the log.
//!
//! **Invariants**:
//!
//! - The index and the small records change in one atomic batch. The batch also holds the sequence of the newest commit
//!   that the checkpoint contains. The log is cleared only after this batch is durable.
//! - A large checkpoint writes blocks in earlier batches. No index entry refers to these blocks before the last batch.
//! - A block id is never reused.

use std::sync::Arc;

use super::block::{BlockKind, BlockMeta, Item, encode_blocks};
use super::digest::Digest;
use super::engine::Engine;
use super::error::StoreError;
use super::keys;
use super::quarantine::QuarantineIndex;
use super::records::{Meta, SeriesRecord};
use super::rules::RulesRecord;
use super::segments::Segments;
use super::{COMMITS_ID, Store};

/// Largest size of the columns in one batch, in bytes.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 20;

/// Encodes items as blocks and collects the blocks in batches.
struct BlockBuilder<'a> {
    engine: &'a Engine,
    next_block_id: &'a mut u64,
    batch: sled::Batch,
    batch_bytes: usize,
    /// Series id, kind and index entry of each block built so far.
    built: Vec<(u32, BlockKind, Arc<BlockMeta>)>,
}

impl BlockBuilder<'_> {
    /// Replaces the mutable segments of a series with new blocks.
    fn build<T: Item>(&mut self, series: u32, segments: &mut Segments<T>) -> Result<(), StoreError> {
        segments.make_immutable(|items| {
            let blocks = encode_blocks(items, self.next_block_id).map_err(|problem| StoreError::Io {
                action: "cannot encode a block".to_owned(),
                problem,
                disk_full: false,
            })?;
            let mut metas = Vec::with_capacity(blocks.len());
            for block in blocks {
                self.put(block.meta.id, &block.columns)?;
                let meta = Arc::new(block.meta);
                self.built.push((series, T::KIND, Arc::clone(&meta)));
                metas.push(meta);
            }
            Ok(metas)
        })
    }

    fn put(&mut self, block: u64, columns: &[Vec<u8>]) -> Result<(), StoreError> {
        let bytes: usize = columns.iter().map(Vec::len).sum();
        if self.batch_bytes + bytes > BATCH_BYTES_MAX {
            self.engine.apply(std::mem::take(&mut self.batch))?;
            // Sync after each batch: if a write replaces old bytes, sled reuses the space of the old bytes. With more
            // than one segment of unsynced writes, old bytes could be overwritten before the new bytes are durable.
            self.engine.sync()?;
            self.batch_bytes = 0;
        }
        self.batch_bytes += bytes;
        put_columns(&mut self.batch, block, columns);
        Ok(())
    }
}

/// Adds the columns of a block to a batch.
pub(super) fn put_columns(batch: &mut sled::Batch, block: u64, columns: &[Vec<u8>]) {
    for (number, column) in (0_u8..).zip(columns) {
        if !column.is_empty() {
            batch.insert(&keys::column(block, number), column.as_slice());
        }
    }
}

/// Adds the removal of a retired block to a batch: its columns and its `r` key.
pub(super) fn remove_block(batch: &mut sled::Batch, meta: &BlockMeta) {
    for (number, column) in (0_u8..).zip(&meta.columns) {
        if column.bytes > 0 {
            batch.remove(&keys::column(meta.id, number));
        }
    }
    batch.remove(&keys::retired(meta.id));
}

/// While the disk has no room for a checkpoint, changes may accumulate in memory up to this multiple of the checkpoint
/// limits. With the default limits this is a few hundred MB.
const OVERDUE_FACTOR: usize = 8;
/// Disk space that sled may use in addition to the bytes written: two segments (the current and the next one).
const SPARE_BYTES: u64 = 2 << 20;

impl Store {
    /// Returns true if the disk has room for a checkpoint.
    ///
    /// After a failed write, sled refuses all reads. The caller therefore postpones the checkpoint if there is no room.
    /// Meanwhile the log may still accept commits. Reads continue even when the disk has no room for the log.
    pub fn has_room_for_checkpoint(&self) -> bool {
        let changed = self.replaced.blocks.iter().map(|meta| meta.bytes()).sum::<u64>() + self.log.bytes();
        self.engine.has_room_for(changed.saturating_mul(2).saturating_add(SPARE_BYTES))
    }

    /// Returns true if the changes in memory or the log have reached a [checkpoint limit](super::CheckpointLimits).
    pub fn checkpoint_is_due(&self) -> bool {
        self.log.bytes() >= self.options.checkpoint.log_bytes
            || self.reaches_limits(1)
            || self.quarantine.changed_count() >= QuarantineIndex::CHANGED_MAX
    }

    /// Returns true if the changes in memory exceed the checkpoint limits by so much that a checkpoint can no longer be
    /// postponed, even if the disk has no room for it.
    pub fn checkpoint_is_overdue(&self) -> bool {
        self.reaches_limits(OVERDUE_FACTOR)
    }

    /// Returns true if the changes in memory reach `factor` times a checkpoint limit.
    fn reaches_limits(&self, factor: usize) -> bool {
        let changed =
            || self.series.iter().zip(&self.changed).filter(|(_, changed)| **changed).map(|(series, _)| series);
        let head_items = || {
            changed()
                .map(|series| {
                    series.runs.head_item_count()
                        + series.instants.head_item_count()
                        + series.revisions.head_item_count()
                })
                .sum::<usize>()
        };
        let mutable_segments = || {
            changed()
                .map(|series| series.runs.mutable_segment_count() + series.instants.mutable_segment_count())
                .sum::<usize>()
        };
        let limits = &self.options.checkpoint;
        head_items() >= limits.head_items.saturating_mul(factor)
            || mutable_segments() >= limits.mutable_segments.saturating_mul(factor)
    }

    /// Returns true if a checkpoint would write anything.
    pub fn has_changes(&self) -> bool {
        self.log.bytes() > 0 || !self.replaced.blocks.is_empty()
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
        let mut builder = BlockBuilder {
            engine: &self.engine,
            next_block_id: &mut self.next_block_id,
            batch: sled::Batch::default(),
            batch_bytes: 0,
            built: Vec::new(),
        };
        for (series, _) in self.series.iter_mut().zip(&self.changed).filter(|(_, changed)| **changed) {
            builder.build(series.id, &mut series.runs)?;
            builder.build(series.id, &mut series.instants)?;
            builder.build(series.id, &mut series.revisions)?;
        }
        builder.build(COMMITS_ID, &mut self.commits)?;
        let BlockBuilder { mut batch, built, .. } = builder;
        let removed = self.index(&mut batch, &built)?;
        self.engine.apply(batch)?;
        self.engine.clean(built.iter().map(|(_, _, meta)| meta.bytes()).sum())?;
        self.engine.sync()?;
        self.high_water_mark.write(self.commit.sequence)?;
        // If the files of the store were replaced, the checkpoint is lost and the log must not be cleared.
        self.check_files()?;
        self.retired.retain(|meta| !removed.contains(&meta.id));
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

    /// Adds the index entries and the small records to a batch, and removes retired blocks that no reader holds.
    /// Returns the ids of the removed blocks.
    fn index(
        &mut self,
        batch: &mut sled::Batch,
        built: &[(u32, BlockKind, Arc<BlockMeta>)],
    ) -> Result<Vec<u64>, StoreError> {
        let mut digest = self.digest;
        let mut entries = Vec::with_capacity(built.len());
        for (series, kind, meta) in built {
            let key = keys::index(*series, *kind as u8, meta.id);
            let (value, crc) = keys::encode_checksummed(&key, &**meta)?;
            digest.add(crc);
            batch.insert(&key, value);
            entries.push((meta.id, (key, crc)));
        }
        for meta in &self.replaced.blocks {
            // `entries` has the keys of the index entries: a key contains the series and the kind, which `meta` lacks.
            if let Some((key, crc)) = self.entries.remove(&meta.id) {
                digest.remove(crc);
                batch.remove(&key);
            }
            batch.insert(&keys::retired(meta.id), &[]);
        }
        self.entries.extend(entries);
        let mut removed = Vec::new();
        for meta in self.retired.iter().filter(|meta| Arc::strong_count(meta) == 1) {
            remove_block(batch, meta);
            removed.push(meta.id);
        }
        self.index_series(batch, &mut digest)?;
        for (key, value) in self.polls.changes(&mut digest)? {
            match value {
                Some(value) => batch.insert(&key, value),
                None => batch.remove(&key),
            }
        }
        for (key, value) in self.quarantine.changes(|key| self.ids.get(key).copied(), &mut digest)? {
            batch.insert(&key, value);
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
        put_meta(batch, &meta)?;
        Ok(removed)
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
    use crate::domain::{Currency, Pair, PublishedValue, Rate, SeriesKey, Source, Timestamp};
    use crate::store::{CheckpointLimits, Store, StoreOptions};

    #[test]
    fn checkpoint_becomes_due_before_it_is_overdue() {
        let directory = tempfile::tempdir().unwrap();
        let checkpoint = CheckpointLimits { head_items: 100, ..CheckpointLimits::default() };
        let options = StoreOptions { checkpoint, ..StoreOptions::of_test(directory.path()) };
        let now = Timestamp::from_micros(Timestamp::DAY_US);
        let mut store = Store::open(options, now).unwrap();
        let currency = |code| Currency::parse(code).unwrap();
        let pair = Pair::new(currency("KGS"), currency("USD")).unwrap();
        let key = SeriesKey { pair, source: Source::parse("timesca").unwrap() };
        let mut due_and_overdue = |ticks: std::ops::Range<i64>| {
            let mut transaction = store.begin(now);
            let series = transaction.series(&key).unwrap();
            for at in ticks {
                let rate = Rate::from_parts(u128::from(at.unsigned_abs()) + 1, 5).unwrap();
                let value = PublishedValue { rate, reported_change: None };
                transaction.upsert(series, Timestamp::from_micros(at * Timestamp::DAY_US), value, false).unwrap();
            }
            transaction.commit().unwrap();
            (store.checkpoint_is_due(), store.checkpoint_is_overdue())
        };
        assert_eq!(due_and_overdue(0..40), (false, false));
        assert_eq!(due_and_overdue(40..200), (true, false));
        assert_eq!(due_and_overdue(200..1_000), (true, true));
    }
}
