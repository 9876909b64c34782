//! Rebuilding a store from a backup: writes blocks and records into an empty directory, then opens the store and compares
//! it with the backup.
//!
//! The mark of an unfinished restore is durable before the first byte of data, and is removed after the comparison, so a
//! server never opens a store that is not complete.
//!
//! **Invariants**:
//!
//! - A block is written only after its bytes match the checksums of its index entry.
//! - The new store has a store id of its own. Blocks of stores that diverge after a restore are therefore never confused.

use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::frames::LogFrames;
use super::record_set::{IndexedBlock, RecordSet};
use crate::store::block::split_columns;
use crate::store::block_builder::{BATCH_BYTES_MAX, put_columns};
use crate::store::checkpoint::put_meta;
use crate::store::engine::Engine;
use crate::store::error::StoreError;
use crate::store::high_water_mark::HighWaterMark;
use crate::store::log::Log;
use crate::store::records::Meta;
use crate::store::restore::RestoreError;
use crate::store::restore::directory::{lock_empty, prepare_directory, remove_mark};
use crate::store::view::Commit;
use crate::store::{Store, StoreOptions};

/// Content of the mark file, for a person who opens it.
const UNFINISHED_TEXT: &str = "A restore into this directory has not finished. Run 'silkrate restore' again.\n";

/// Why a store cannot be rebuilt from a backup.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RebuildError {
    /// The directory is not empty.
    #[error("{directory} is not empty; choose a new or empty directory with --db")]
    NotEmpty {
        /// The directory for the new store.
        directory: String,
    },
    /// The bytes of a block are not those of its index entry.
    #[error("{what}: {problem}")]
    Block {
        /// The block: series, kind and times.
        what: String,
        /// How the bytes differ.
        problem: String,
    },
    /// The backup lacks blocks.
    #[error("{what}: the backup does not have block {block}")]
    MissingBlock {
        /// The block: series, kind and times.
        what: String,
        /// The id of the block.
        block: u64,
    },
    /// The opened store differs from the backup.
    #[error("the restored store differs from the backup: {problem}; report this as a bug")]
    Differs {
        /// The difference.
        problem: String,
    },
    /// The directory cannot be locked, read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RebuildError {
    fn of_directory(error: RestoreError, directory: &Path) -> Self {
        match error {
            RestoreError::Store(error) => Self::Store(error),
            // The directory has no other errors.
            RestoreError::NotEmpty { .. }
            | RestoreError::Series { .. }
            | RestoreError::Commits(_)
            | RestoreError::Polls { .. }
            | RestoreError::TooManyPolled(_)
            | RestoreError::Archive { .. }
            | RestoreError::Quarantine { .. } => Self::NotEmpty { directory: directory.display().to_string() },
        }
    }
}

/// A store that is being rebuilt. If it is dropped before [`Rebuild::finish`], the directory remains marked: it cannot be
/// opened, and another [`Rebuild::begin`] starts again.
pub struct Rebuild {
    directory: PathBuf,
    lock: File,
    engine: Engine,
    batch: sled::Batch,
    batch_bytes: usize,
    written: u64,
}

impl Rebuild {
    /// Checks that [`Rebuild::begin`] would accept a directory.
    ///
    /// # Errors
    /// `NotEmpty` if the directory has other contents; `Store` if it is in use or cannot be read.
    pub fn check_directory(directory: &Path) -> Result<(), RebuildError> {
        if !directory.exists() {
            return Ok(());
        }
        lock_empty(directory).map(drop).map_err(|error| RebuildError::of_directory(error, directory))
    }

    /// Starts to build a store in a directory, which may be missing or empty, or may contain an unfinished restore or
    /// import, or a store without commits. Blocks on disk I/O.
    ///
    /// # Errors
    /// `NotEmpty` if the directory has other contents; `Store` if it is in use or cannot be written.
    pub fn begin(directory: &Path) -> Result<Self, RebuildError> {
        let lock = prepare_directory(directory, UNFINISHED_TEXT)
            .map_err(|error| RebuildError::of_directory(error, directory))?;
        let engine = Engine::open_locked(directory, duplicate(&lock)?, 0, None)?;
        let (batch, batch_bytes, written) = (sled::Batch::default(), 0, 0);
        Ok(Self { directory: directory.to_owned(), lock, engine, batch, batch_bytes, written })
    }

    /// Writes a block after it has compared its columns, concatenated in order, with its index entry.
    ///
    /// # Errors
    /// `Block` if the bytes differ from the index entry; `Store` if they cannot be written.
    pub fn block(&mut self, records: &RecordSet, block: &IndexedBlock, bytes: &[u8]) -> Result<(), RebuildError> {
        let columns = split_columns(&block.meta, bytes)
            .map_err(|problem| RebuildError::Block { what: records.describe(block), problem })?;
        self.make_room(bytes.len())?;
        put_columns(&mut self.batch, block.id(), &columns);
        self.written += 1;
        Ok(())
    }

    /// Writes the records and the log, opens the store, and compares it with the backup. The log contains `frames`, the
    /// frames of the commits after that of the records. Returns the newest commit. Then the store can be served.
    ///
    /// # Errors
    /// `Differs` if the opened store is not that of the backup; `Store` if it cannot be written or opened.
    pub fn finish(mut self, records: &RecordSet, frames: &LogFrames) -> Result<Commit, RebuildError> {
        let expected = records.blocks().len() as u64;
        if self.written != expected {
            let problem = format!("{} of {expected} blocks were written", self.written);
            return Err(RebuildError::Differs { problem });
        }
        for (key, value) in records.without_meta() {
            self.make_room(key.len() + value.len())?;
            self.batch.insert(key.as_slice(), value.as_slice());
        }
        let store_id = RandomState::new().build_hasher().finish();
        put_meta(&mut self.batch, &Meta { store_id, ..records.meta().clone() })?;
        self.write()?;
        self.engine.sync()?;
        Log::create_with(&self.directory, store_id, frames.bytes())?;
        let newest = frames.newest().unwrap_or(records.commit());
        HighWaterMark::create(&self.directory, store_id)?.write(newest.sequence)?;
        let Self { directory, lock, engine, .. } = self;
        drop(engine);
        let commit = compare(&directory, &lock, records, frames)?;
        remove_mark(&directory, UNFINISHED_TEXT)?;
        Ok(commit)
    }

    /// Writes the batch if it would exceed its maximum size.
    fn make_room(&mut self, bytes: usize) -> Result<(), StoreError> {
        if self.batch_bytes + bytes > BATCH_BYTES_MAX {
            self.write()?;
        }
        self.batch_bytes += bytes;
        Ok(())
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.batch_bytes = 0;
        self.engine.apply(std::mem::take(&mut self.batch))
    }
}

/// Opens the new store as a server does, and compares its records, its blocks and its newest commit with the backup.
fn compare(directory: &Path, lock: &File, records: &RecordSet, frames: &LogFrames) -> Result<Commit, RebuildError> {
    let differs = |problem: String| RebuildError::Differs { problem };
    let store = Store::load_locked(StoreOptions::unchanging(directory), duplicate(lock)?)?;
    let found = store.stored_records().map_err(|problem| differs(problem.to_string()))?;
    if found.encode_content() != records.encode_content() {
        return Err(differs("its records are not those of the backup".to_owned()));
    }
    for block in found.blocks() {
        super::read_raw(&store.reader, &found, block)?;
    }
    let (commit, expected) = (store.newest_commit(), frames.newest().unwrap_or(records.commit()));
    if commit != expected {
        return Err(differs(format!("its newest commit is {}, not {}", commit.sequence, expected.sequence)));
    }
    Ok(commit)
}

fn duplicate(lock: &File) -> Result<File, StoreError> {
    lock.try_clone().map_err(|error| StoreError::io("cannot duplicate the lock file handle", &error))
}
