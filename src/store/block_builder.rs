//! Building of blocks: encodes items, and collects the columns of the blocks in batches.
//!
//! **Invariants**: no index entry refers to a block that is built before the batch that contains the index entry. A
//! block id is never reused.

use std::sync::Arc;

use super::block::{BlockKind, BlockMeta, Item, encode_blocks};
use super::engine::Engine;
use super::error::StoreError;
use super::keys;

/// Largest size of the columns in one batch, in bytes.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 20;

/// A block with its series id and its kind, which the index entry lacks.
pub(super) type BuiltBlock = (u32, BlockKind, Arc<BlockMeta>);

/// Encodes items as blocks and collects the blocks in batches.
pub(super) struct BlockBuilder<'a> {
    engine: &'a Engine,
    next_block_id: &'a mut u64,
    /// The columns that are not written yet.
    pub(super) batch: sled::Batch,
    batch_bytes: usize,
    /// The blocks built so far.
    pub(super) built: Vec<BuiltBlock>,
}

impl<'a> BlockBuilder<'a> {
    pub(super) fn new(engine: &'a Engine, next_block_id: &'a mut u64) -> Self {
        Self { engine, next_block_id, batch: sled::Batch::default(), batch_bytes: 0, built: Vec::new() }
    }

    /// Encodes items of a series as blocks.
    pub(super) fn build<T: Item>(&mut self, series: u32, items: &[T]) -> Result<Vec<Arc<BlockMeta>>, StoreError> {
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
pub(super) fn put_columns(batch: &mut sled::Batch, block: u64, columns: &[impl AsRef<[u8]>]) {
    for (number, column) in (0_u8..).zip(columns) {
        let column = column.as_ref();
        if !column.is_empty() {
            batch.insert(&keys::column(block, number), column);
        }
    }
}

/// Adds the removal of at most `blocks_max` of these blocks to a batch: of blocks that no reader holds. A block is
/// removed with its columns and its `r` key. The caller ensures that no index entry on disk names the blocks.
pub(super) fn remove_unread(batch: &mut sled::Batch, blocks: &mut Vec<Arc<BlockMeta>>, blocks_max: usize) -> usize {
    let unread = blocks.extract_if(.., |meta| Arc::strong_count(meta) == 1).take(blocks_max);
    let mut count = 0;
    for meta in unread {
        for (number, column) in (0_u8..).zip(&meta.columns) {
            if column.bytes > 0 {
                batch.remove(&keys::column(meta.id, number));
            }
        }
        batch.remove(&keys::retired(meta.id));
        count += 1;
    }
    count
}
