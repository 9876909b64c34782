//! Reading blocks from sled.
//!
//! **Invariant**: a block that does not decode is an error for its range; what the disk refuses is told apart from damage.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::block::{
    BlockError, BlockFault, BlockKind, BlockMeta, Item, RevisionTimes, RunTimes, decode_block, decode_rates,
    decode_revision_times, decode_run, decode_run_times,
};
use super::closing::Closing;
use super::keys;
use super::run_times_cache::RunTimesCache;
use crate::catch_panic::catch_panic;
use crate::domain::{RateSpan, Run};

/// Reads blocks by `get`, on whatever thread it is called; cheap to clone.
#[derive(Clone)]
pub(crate) struct BlockReader {
    tree: sled::Tree,
    gets: Arc<AtomicU64>,
    /// Blocks read since the store was opened.
    blocks: Arc<AtomicU64>,
    run_times: Arc<RunTimesCache>,
    _closing: Arc<Closing>,
}

impl BlockReader {
    /// Of a store's tree, which is closed when `closing` goes.
    pub(super) fn new(tree: sled::Tree, closing: Arc<Closing>) -> Self {
        Self { tree, gets: Arc::default(), blocks: Arc::default(), run_times: Arc::default(), _closing: closing }
    }

    /// sled evicts a page only when its accesses, counted in batches, push it out. A scan of blocks
    /// touches each page a few times and would keep all of them: after every so many reads, so many
    /// repeats of one small read fill the batches and keep its cache at some tens of megabytes.
    const REPEAT_AFTER_GETS: u64 = 8;
    const REPEATS: u64 = 64;

    /// The items of a block.
    pub(crate) fn read<T: Item>(&self, meta: &BlockMeta) -> Result<Vec<T>, BlockError> {
        decode_block(meta, T::KIND, &self.columns(meta, T::KIND)?, T::decode)
    }

    /// What the runs of a block say of the rate.
    pub(crate) fn read_rates(&self, meta: &BlockMeta) -> Result<Vec<RateSpan>, BlockError> {
        decode_block(meta, BlockKind::Runs, &self.columns(meta, BlockKind::Runs)?, decode_rates)
    }

    /// The one run of a block that `find` chooses by their times. If it chooses none, no other column is decoded, and the
    /// block is not even read where its times are in memory.
    pub(crate) fn read_run(
        &self,
        meta: &BlockMeta,
        find: impl FnOnce(&RunTimes) -> Option<usize>,
    ) -> Result<Option<Run>, BlockError> {
        let kind = BlockKind::Runs;
        let (times, columns) = if let Some(times) = self.run_times.get(meta.id) {
            (times, None)
        } else {
            let columns = self.columns(meta, kind)?;
            let times = Arc::new(decode_block(meta, kind, &columns, decode_run_times)?);
            self.run_times.put(meta.id, &times);
            (times, Some(columns))
        };
        let Some(at) = find(&times) else { return Ok(None) };
        let [Some(first_us), Some(recorded_us)] = [&times.first_us, &times.recorded_us].map(|times| times.get(at))
        else {
            return Ok(None);
        };
        let columns = columns.map_or_else(|| self.columns(meta, kind), Ok)?;
        let decode = |columns: &[&[u8]], count| decode_run(columns, count, at, [*first_us, *recorded_us]);
        decode_block(meta, kind, &columns, decode).map(Some)
    }

    /// When the revisions of a block were believed.
    pub(crate) fn read_revision_times(&self, meta: &BlockMeta) -> Result<Vec<RevisionTimes>, BlockError> {
        let kind = BlockKind::Revisions;
        decode_block(meta, kind, &self.columns(meta, kind)?, decode_revision_times)
    }

    /// The run of the revision with this place in a block of revisions, whose times are known.
    pub(crate) fn read_revised_run(
        &self,
        meta: &BlockMeta,
        at: usize,
        times: RevisionTimes,
    ) -> Result<Run, BlockError> {
        let kind = BlockKind::Revisions;
        let decode = |columns: &[&[u8]], count| decode_run(columns, count, at, [times.observed_us, times.recorded_us]);
        decode_block(meta, kind, &self.columns(meta, kind)?, decode)
    }

    /// How many blocks were read since the store was opened, by all readers and the writer.
    pub(crate) fn blocks_read(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// All columns of a block, one that is left out being empty.
    fn columns(&self, meta: &BlockMeta, kind: BlockKind) -> Result<Vec<sled::IVec>, BlockError> {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        let damaged = |problem| meta.damaged(kind, problem);
        let mut columns = Vec::with_capacity(meta.column_bytes.len());
        for (number, bytes) in meta.column_bytes.iter().enumerate() {
            if *bytes == 0 {
                columns.push(sled::IVec::default());
                continue;
            }
            let number = u8::try_from(number).unwrap_or(u8::MAX);
            match self.get(&keys::column(meta.id, number)) {
                Ok(Some(value)) if value.len() == usize::from(*bytes) => columns.push(value),
                Ok(Some(value)) => {
                    return Err(damaged(format!(
                        "column {number} of block {} has {} bytes instead of {bytes}",
                        meta.id,
                        value.len()
                    )));
                }
                Ok(None) => return Err(damaged(format!("column {number} of block {} is missing", meta.id))),
                Err(Unread { fault, problem }) => return Err(BlockError { fault, ..damaged(problem) }),
            }
        }
        Ok(columns)
    }

    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, Unread> {
        // A damaged page can make sled panic; for its range that is damage like any other.
        let read = || {
            let value = self.tree.get(key)?;
            if self.gets.fetch_add(1, Ordering::Relaxed).is_multiple_of(Self::REPEAT_AFTER_GETS) {
                for _ in 0..Self::REPEATS {
                    self.tree.get(keys::META)?;
                }
            }
            Ok(value)
        };
        match catch_panic(read) {
            Ok(result) => result.map_err(|error| Unread::new(&error)),
            Err(said) => {
                Err(Unread { fault: BlockFault::Damage, problem: format!("the engine gave up on its page: {said}") })
            }
        }
    }
}

/// Why sled gave no value.
struct Unread {
    fault: BlockFault,
    problem: String,
}

impl Unread {
    fn new(error: &sled::Error) -> Self {
        match error {
            // After one of its writes failed, sled answers every read with that.
            sled::Error::Io(error) => Self {
                fault: BlockFault::Disk { is_full: error.kind() == io::ErrorKind::StorageFull },
                problem: error.to_string(),
            },
            sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. } => Self { fault: BlockFault::Damage, problem: error.to_string() },
        }
    }
}
