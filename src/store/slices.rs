//! Slices: between two checkpoints, the writer seals a few mutable segments at a time, so that no checkpoint has to write
//! all of them. Sealing encodes the items as blocks, writes the columns of the blocks, and makes the segments immutable.
//! The next checkpoint writes the index entries of these blocks.
//!
//! **Invariants**:
//!
//! - The blocks of slices have ids at or above the *next block id* on disk, and no index entry on disk names them. Until
//!   the next checkpoint is durable, the log has their ticks.
//! - A slice syncs what it wrote, so the unsynced writes of sled stay far below one of sled's segments.
//! - The work of one slice is limited: the segments that it seals and the blocks that it removes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Store;
use super::block::{BlockKind, BlockMeta};
use super::block_builder::{BlockBuilder, BuiltBlock, remove_unread};
use super::error::StoreError;
use crate::domain::Timestamp;

/// Largest number of segments that one slice seals. Encoding them takes most of the time of a slice.
pub(super) const SLICE_SEGMENTS_MAX: usize = 8;
/// Largest number of blocks that one slice removes, of those that are no longer used. It is larger than the number of
/// blocks that a slice replaces, so that unused blocks do not accumulate.
const SLICE_REMOVED_MAX: usize = 16;

/// Where the next slice begins: after this key, in this list of segments. Slices visit all lists in turn, so a segment
/// that late ticks change again and again is sealed at most once per turn.
#[derive(Clone, Copy, Debug)]
struct Position {
    series: u32,
    kind: BlockKind,
    after: Timestamp,
}

/// The blocks that slices wrote since the last checkpoint. They have no index entry yet.
#[derive(Debug)]
pub(super) struct UnindexedBlocks {
    /// The blocks in use, by id.
    used: BTreeMap<u64, BuiltBlock>,
    /// The blocks that mutable segments replaced. Older views may still read them.
    unused: Vec<Arc<BlockMeta>>,
    next: Position,
    /// Number of slices since the store was opened.
    slice_count: u64,
}

impl Default for UnindexedBlocks {
    fn default() -> Self {
        let next = Position { series: 0, kind: BlockKind::Runs, after: Timestamp::MIN };
        Self { used: BTreeMap::new(), unused: Vec::new(), next, slice_count: 0 }
    }
}

impl UnindexedBlocks {
    /// Number of blocks in use.
    pub(super) fn used_count(&self) -> usize {
        self.used.len()
    }

    /// Takes the blocks without an index entry out of `replaced`: they are not in use any more.
    pub(super) fn take_replaced(&mut self, replaced: &mut Vec<Arc<BlockMeta>>) {
        let (used, unused) = (&mut self.used, &mut self.unused);
        unused.extend(replaced.extract_if(.., |meta| used.remove(&meta.id).is_some()));
    }

    /// Takes all blocks, for a checkpoint: those in use, by id, and the others.
    pub(super) fn take(&mut self) -> (Vec<BuiltBlock>, Vec<Arc<BlockMeta>>) {
        (std::mem::take(&mut self.used).into_values().collect(), std::mem::take(&mut self.unused))
    }
}

impl Store {
    /// Number of slices since the store was opened.
    pub fn slice_count(&self) -> u64 {
        self.unindexed.slice_count
    }

    /// Number of blocks that slices wrote and that the next checkpoint adds to the index.
    pub fn sealed_block_count(&self) -> usize {
        self.unindexed.used_count()
    }

    /// Seals a few mutable segments outside heads, and removes a few blocks that are no longer used. Returns false if
    /// there is nothing to do. The caller must then publish [`Store::view`], so that readers release the decoded items.
    ///
    /// # Errors
    /// Returns the I/O error. After an error, the store must not be written to.
    pub fn seal_slice(&mut self) -> Result<bool, StoreError> {
        self.unindexed.take_replaced(&mut self.replaced.blocks);
        let mut builder = BlockBuilder::new(&self.engine, &mut self.next_block_id);
        let begin = self.unindexed.next;
        let mut remaining = SLICE_SEGMENTS_MAX;
        for Position { series: id, kind, after } in lists_from(begin, &self.changed) {
            if remaining == 0 {
                break;
            }
            let Some(series) = self.series.get_mut(id as usize - 1) else { continue };
            let sealed = match kind {
                BlockKind::Runs => series.runs.seal(after, remaining, |items| builder.build(id, items))?,
                BlockKind::Instants => series.instants.seal(after, remaining, |items| builder.build(id, items))?,
                // New revisions are in the head.
                BlockKind::Revisions => None,
            };
            if let Some(sealed) = sealed {
                remaining -= sealed.segment_count;
                self.unindexed.next = Position { series: id, kind, after: sealed.last_key };
            }
        }
        let BlockBuilder { mut batch, built, .. } = builder;
        let removed = remove_unread(&mut batch, &mut self.unindexed.unused, SLICE_REMOVED_MAX);
        let removed = removed + remove_unread(&mut batch, &mut self.retired, SLICE_REMOVED_MAX - removed);
        if built.is_empty() && removed == 0 {
            return Ok(false);
        }
        self.engine.apply(batch)?;
        self.engine.clean(built.iter().map(|(_, _, meta)| meta.bytes()).sum())?;
        self.engine.sync()?;
        self.unindexed.slice_count += 1;
        let mut series: Vec<u32> = built.iter().map(|(id, _, _)| *id).collect();
        series.dedup();
        self.unindexed.used.extend(built.into_iter().map(|block| (block.2.id, block)));
        for id in series {
            self.refresh_view(id);
        }
        Ok(true)
    }
}

/// Returns the lists of segments that a slice visits: those of the changed series from `begin` on, then the others.
fn lists_from(begin: Position, changed: &[bool]) -> Vec<Position> {
    let ids = (1_u32..).zip(changed).filter(|(_, changed)| **changed).map(|(id, _)| id);
    let list = |series: u32, kind: BlockKind| Position { series, kind, after: Timestamp::MIN };
    let mut lists: Vec<Position> =
        ids.flat_map(|id| [list(id, BlockKind::Runs), list(id, BlockKind::Instants)]).collect();
    let order = |position: &Position| (position.series, position.kind as u8);
    let first = lists.partition_point(|position| order(position) < order(&begin));
    lists.rotate_left(first);
    // The part of the first list before `begin` comes last.
    if let Some(first) = lists.first_mut()
        && order(first) == order(&begin)
    {
        first.after = begin.after;
        lists.push(list(begin.series, begin.kind));
    }
    lists
}
