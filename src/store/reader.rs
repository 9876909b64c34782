//! Reading blocks from sled.
//!
//! **Invariant**: if a column of a block is damaged, only reads of this column in the time range of the block fail. A
//! read gets and checks only the columns that it decodes. I/O errors are distinguished from damage.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::block::{
    BlockError, BlockFault, BlockKind, BlockMeta, Columns, DecodeError, Item, ReadFailure, RevisionTimes, decode_block,
    decode_rates, decode_revision_times, decode_run,
};
use super::closing::Closing;
use super::keys;
use super::memory_only::is_memory_only;
use super::packed_runs::PackedRuns;
use super::run_cache::RunCache;
use crate::catch_panic::catch_panic;
use crate::domain::{RateSpan, Run};

/// Reads blocks from sled's tree. It can be used on any thread and is cheap to clone.
#[derive(Clone)]
pub(crate) struct BlockReader {
    tree: sled::Tree,
    /// Number of values read from sled so far. It determines when extra reads are made.
    gets: Arc<AtomicU64>,
    /// Number of blocks read since the store was opened.
    blocks: Arc<AtomicU64>,
    run_cache: Arc<RunCache>,
    _closing: Arc<Closing>,
}

impl BlockReader {
    /// Makes a reader of a store's tree with a cache of `cache_bytes`. The database is closed when the last clone of
    /// `closing` is dropped.
    pub(super) fn new(tree: sled::Tree, closing: Arc<Closing>, cache_bytes: u64) -> Self {
        let run_cache = Arc::new(RunCache::new(cache_bytes));
        Self { tree, gets: Arc::default(), blocks: Arc::default(), run_cache, _closing: closing }
    }

    /// After each group of this many reads, the reader makes [`Self::EXTRA_READS`] extra reads.
    ///
    /// sled evicts pages only when it processes accesses, which it collects in batches. A scan of blocks accesses each
    /// page only a few times, so sled would keep all pages. Extra reads of one small value fill the batches, and keep
    /// sled's cache at some tens of megabytes.
    const EXTRA_READS_AFTER_GETS: u64 = 8;
    const EXTRA_READS: u64 = 64;

    /// Reads the items of a block.
    pub(crate) fn read<T: Item>(&self, meta: &BlockMeta) -> Result<Vec<T>, BlockError> {
        self.decode(meta, T::KIND, T::decode)
    }

    /// Reads the rate, the first observed time and the last observed time of each run of a block.
    pub(crate) fn read_rates(&self, meta: &BlockMeta) -> Result<Vec<RateSpan>, BlockError> {
        self.decode(meta, BlockKind::Runs, decode_rates)
    }

    /// Reads one run of a block. `find` receives all runs and returns the index of the wanted run.
    pub(crate) fn read_run(
        &self,
        meta: &BlockMeta,
        find: impl FnOnce(&PackedRuns) -> Option<usize>,
    ) -> Result<Option<Run>, BlockError> {
        let kind = BlockKind::Runs;
        let runs = match self.run_cache.get(meta.id) {
            Some(runs) => runs,
            None if is_memory_only() => return Err(not_in_memory(meta, kind)),
            None => self.run_cache.get_or_read(meta.id, || self.decode(meta, kind, PackedRuns::decode))?,
        };
        let found = find(&runs).and_then(|at| runs.get(at)).transpose();
        found.map_err(|problem| meta.damaged(kind, problem))
    }

    /// Reads the times of all revisions of a block.
    pub(crate) fn read_revision_times(&self, meta: &BlockMeta) -> Result<Vec<RevisionTimes>, BlockError> {
        self.decode(meta, BlockKind::Revisions, decode_revision_times)
    }

    /// Reads the run of the revision with index `at` in a block of revisions. The caller passes the revision's times.
    pub(crate) fn read_revised_run(
        &self,
        meta: &BlockMeta,
        at: usize,
        times: RevisionTimes,
    ) -> Result<Run, BlockError> {
        let decode = |columns: &Columns<'_>| decode_run(columns, at, [times.observed_us, times.recorded_us]);
        self.decode(meta, BlockKind::Revisions, decode)
    }

    /// Reads the columns of a block as stored, concatenated in the order of their numbers. Each is compared with its index
    /// entry.
    pub(crate) fn read_raw(&self, meta: &BlockMeta, kind: BlockKind) -> Result<Vec<u8>, BlockError> {
        self.decode(meta, kind, |columns: &Columns<'_>| columns.raw())
    }

    /// Number of blocks that all readers and the writer have read since the store was opened.
    pub(crate) fn blocks_read(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Reads and decodes the columns of a block that `decode` uses.
    fn decode<T>(
        &self,
        meta: &BlockMeta,
        kind: BlockKind,
        decode: impl FnOnce(&Columns<'_>) -> Result<T, DecodeError>,
    ) -> Result<T, BlockError> {
        if is_memory_only() {
            return Err(not_in_memory(meta, kind));
        }
        self.blocks.fetch_add(1, Ordering::Relaxed);
        decode_block(meta, kind, &|number| self.get(&keys::column(meta.id, number)), decode)
    }

    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, ReadFailure> {
        // sled can panic on a damaged page. The panic is reported as damage of the block.
        let read = || {
            let value = self.tree.get(key)?;
            if self.gets.fetch_add(1, Ordering::Relaxed).is_multiple_of(Self::EXTRA_READS_AFTER_GETS) {
                for _ in 0..Self::EXTRA_READS {
                    self.tree.get(keys::META)?;
                }
            }
            Ok(value)
        };
        match catch_panic(read) {
            Ok(result) => result.map_err(|error| read_failure(&error)),
            Err(panic) => {
                let problem = format!("sled panicked while it read the page of the block: {panic}");
                Err(ReadFailure { fault: BlockFault::Damage, problem })
            }
        }
    }
}

fn not_in_memory(meta: &BlockMeta, kind: BlockKind) -> BlockError {
    BlockError { fault: BlockFault::NotInMemory, ..meta.damaged(kind, "the block is not in memory".to_owned()) }
}

fn read_failure(error: &sled::Error) -> ReadFailure {
    match error {
        // After a failed write, sled returns the error of that write for every read.
        sled::Error::Io(error) => ReadFailure {
            fault: BlockFault::Disk { is_full: error.kind() == io::ErrorKind::StorageFull },
            problem: error.to_string(),
        },
        sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. } => ReadFailure { fault: BlockFault::Damage, problem: error.to_string() },
    }
}
