//! Checkpoints: what changed in memory becomes blocks, and the log up to here is dropped.
//!
//! **Invariants**: blocks, index and series records change together, in the one batch that also names
//! the sequence contained, and only then is the log cleared; a large checkpoint writes blocks in
//! batches before it, which nothing names yet; an id is never used again.

use std::sync::Arc;

use super::block::{BlockKind, BlockMeta, Item, encode_blocks};
use super::digest::Digest;
use super::engine::Engine;
use super::error::StoreError;
use super::keys;
use super::quarantine::Keeper;
use super::records::{Meta, SeriesRecord};
use super::rules::RulesRecord;
use super::segments::Segments;
use super::{COMMITS_ID, Store};

/// Most bytes of columns in one batch.
pub(super) const BATCH_BYTES_MAX: usize = 4 << 20;

/// Blocks on their way into the store.
struct Sealer<'a> {
    engine: &'a Engine,
    next_block_id: &'a mut u64,
    batch: sled::Batch,
    batch_bytes: usize,
    sealed: Vec<(u32, BlockKind, Arc<BlockMeta>)>,
}

impl Sealer<'_> {
    fn seal<T: Item>(&mut self, series: u32, segments: &mut Segments<T>) -> Result<(), StoreError> {
        segments.seal(|items| {
            let blocks = encode_blocks(items, self.next_block_id).map_err(|problem| StoreError::Io {
                action: "cannot encode a block".to_owned(),
                problem,
                disk_full: false,
            })?;
            let mut metas = Vec::with_capacity(blocks.len());
            for block in blocks {
                self.put(block.meta.id, &block.columns)?;
                let meta = Arc::new(block.meta);
                self.sealed.push((series, T::KIND, Arc::clone(&meta)));
                metas.push(meta);
            }
            Ok(metas)
        })
    }

    fn put(&mut self, block: u64, columns: &[Vec<u8>]) -> Result<(), StoreError> {
        let bytes: usize = columns.iter().map(Vec::len).sum();
        if self.batch_bytes + bytes > BATCH_BYTES_MAX {
            self.engine.apply(std::mem::take(&mut self.batch))?;
            // At once: sled reuses room in its file that later writes freed, and with more than a
            // segment of them on the way to the disk the old bytes could go before the new ones come.
            self.engine.sync()?;
            self.batch_bytes = 0;
        }
        self.batch_bytes += bytes;
        put_columns(&mut self.batch, block, columns);
        Ok(())
    }
}

/// Writes the columns of a block into a batch.
pub(super) fn put_columns(batch: &mut sled::Batch, block: u64, columns: &[Vec<u8>]) {
    for (number, column) in (0_u8..).zip(columns) {
        if !column.is_empty() {
            batch.insert(&keys::column(block, number), column.as_slice());
        }
    }
}

/// Drops the columns of a block.
pub(super) fn remove_block(batch: &mut sled::Batch, meta: &BlockMeta) {
    for (number, bytes) in (0_u8..).zip(&meta.column_bytes) {
        if *bytes > 0 {
            batch.remove(&keys::column(meta.id, number));
        }
    }
    batch.remove(&keys::retired(meta.id));
}

/// How many times what makes a checkpoint due may be in memory while the disk has no room for one: some hundred MB with
/// the default limits.
const OVERDUE_FACTOR: usize = 8;
/// Room on the disk that sled may take beyond what is written: two segments, the one under way and the next.
const SPARE_BYTES: u64 = 8 << 20;

impl Store {
    /// Whether the disk has room for a checkpoint. sled answers no read any more once a write of its own has failed;
    /// the log may take commits for a while yet, and reads go on when it cannot.
    pub fn has_room_for_checkpoint(&self) -> bool {
        let changed = self.replaced.blocks.iter().map(|meta| meta.bytes()).sum::<u64>() + self.log.bytes();
        self.engine.has_room_for(changed.saturating_mul(2).saturating_add(SPARE_BYTES))
    }

    /// Whether enough has come together in memory and in the log.
    pub fn checkpoint_is_due(&self) -> bool {
        self.log.bytes() >= self.options.checkpoint.log_bytes
            || self.holds_in_memory(1)
            || self.quarantine.changed_count() >= Keeper::CHANGED_MAX
    }

    /// Whether so much is in memory that a checkpoint that the disk has no room for can be put off no longer.
    pub fn checkpoint_is_overdue(&self) -> bool {
        self.holds_in_memory(OVERDUE_FACTOR)
    }

    /// Whether what the series hold in memory is so many times what makes a checkpoint due.
    fn holds_in_memory(&self, factor: usize) -> bool {
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
        let opened_blocks = || {
            changed()
                .map(|series| series.runs.opened_block_count() + series.instants.opened_block_count())
                .sum::<usize>()
        };
        let limits = &self.options.checkpoint;
        head_items() >= limits.head_items.saturating_mul(factor)
            || opened_blocks() >= limits.opened_blocks.saturating_mul(factor)
    }

    /// Whether there is anything that a checkpoint would write.
    pub fn has_changes(&self) -> bool {
        self.log.bytes() > 0 || !self.replaced.blocks.is_empty()
    }

    /// Makes blocks of all that is in memory and drops the log. The caller publishes
    /// [`Store::view`] then, so that readers let go of what was decoded.
    ///
    /// # Errors
    /// What the disk says. Then the store must not be written any more.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        if !self.has_changes() {
            return Ok(());
        }
        let mut sealer = Sealer {
            engine: &self.engine,
            next_block_id: &mut self.next_block_id,
            batch: sled::Batch::default(),
            batch_bytes: 0,
            sealed: Vec::new(),
        };
        for (series, _) in self.series.iter_mut().zip(&self.changed).filter(|(_, changed)| **changed) {
            sealer.seal(series.id, &mut series.runs)?;
            sealer.seal(series.id, &mut series.instants)?;
            sealer.seal(series.id, &mut series.revisions)?;
        }
        sealer.seal(COMMITS_ID, &mut self.commits)?;
        let Sealer { mut batch, sealed, .. } = sealer;
        let removed = self.index(&mut batch, &sealed)?;
        self.engine.apply(batch)?;
        self.engine.clean(sealed.iter().map(|(_, _, meta)| meta.bytes()).sum())?;
        self.engine.sync()?;
        self.high_water_mark.write(self.commit.sequence)?;
        // The log holds commits that the checkpoint contains only if it went to the store's own files.
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

    /// Writes everything but the blocks into a batch. Gives the ids whose columns it removes.
    fn index(
        &mut self,
        batch: &mut sled::Batch,
        sealed: &[(u32, BlockKind, Arc<BlockMeta>)],
    ) -> Result<Vec<u64>, StoreError> {
        let mut digest = self.digest;
        let mut entries = Vec::with_capacity(sealed.len());
        for (series, kind, meta) in sealed {
            let key = keys::index(*series, *kind as u8, meta.id);
            let (value, crc) = keys::seal_record(&key, &**meta)?;
            digest.add(crc);
            batch.insert(&key, value);
            entries.push((meta.id, (key, crc)));
        }
        for meta in &self.replaced.blocks {
            // The entry's key holds the series and the kind; its place was noted when it was made.
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

    fn index_series(&mut self, batch: &mut sled::Batch, digest: &mut Digest) -> Result<(), StoreError> {
        for (at, series) in self.series.iter().enumerate().filter(|(at, _)| self.changed[*at]) {
            let key = keys::series(series.id);
            let (value, crc) = keys::seal_record(&key, &SeriesRecord::new(series))?;
            if let Some(old) = self.record_crcs[at].replace(crc) {
                digest.remove(old);
            }
            digest.add(crc);
            batch.insert(&key, value);
        }
        Ok(())
    }
}

/// Writes the meta record into a batch.
pub(super) fn put_meta(batch: &mut sled::Batch, meta: &Meta) -> Result<(), StoreError> {
    let (value, _) = keys::seal(&keys::META, &meta.encode()?);
    batch.insert(&keys::META, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::domain::{Currency, Pair, PublishedValue, Rate, SeriesKey, Source, Timestamp};
    use crate::store::{CheckpointLimits, Store, StoreOptions};

    #[test]
    fn a_checkpoint_is_overdue_long_after_it_is_due() {
        let directory = tempfile::tempdir().unwrap();
        let checkpoint = CheckpointLimits { head_items: 100, ..CheckpointLimits::default() };
        let options = StoreOptions { checkpoint, ..StoreOptions::of_test(directory.path()) };
        let now = Timestamp::from_micros(Timestamp::DAY_US);
        let mut store = Store::open(options, now).unwrap();
        let currency = |code| Currency::parse(code).unwrap();
        let pair = Pair::new(currency("KGS"), currency("USD")).unwrap();
        let key = SeriesKey { pair, source: Source::parse("timesca").unwrap() };
        let mut state = |ticks: std::ops::Range<i64>| {
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
        assert_eq!(state(0..40), (false, false));
        assert_eq!(state(40..200), (true, false));
        assert_eq!(state(200..1_000), (true, true));
    }
}
