//! Backups: a consistent set of records with the blocks that it refers to, read while the store goes on, and stores that
//! are built from such a set.
//!
//! A checkpoint makes memory and sled equal. Directly after it, and before the next commit, the writer reads all small
//! records of sled ([`BackupPoint`]). The blocks are read later, by any thread: blocks never change, and the view of the
//! point keeps those from removal that late ticks replace meanwhile.
//!
//! **Invariants**:
//!
//! - The records of a point are those of one commit, and each block that they refer to can be read while the point exists.
//! - A block with an id below the *next block id* of a point has its final content, also after a crash: the checkpoint
//!   that contains this id is durable.

mod frames;
mod rebuild;
mod record_set;

pub use frames::{FrameTail, LogFrame, LogFrames, TailFrames};
pub use rebuild::{Rebuild, RebuildError};
pub use record_set::{IndexedBlock, RecordSet, RecordsError};

use std::sync::Arc;

use super::error::StoreError;
use super::keys;
use super::reader::BlockReader;
use super::view::{Commit, View};
use super::{COMMITS_ID, Store};
use record_set::Record;

/// The kinds of keys whose values a backup contains. The values of the other keys are blocks, or have no meaning in
/// another store.
const RECORD_KINDS: [u8; 6] = [keys::ARCHIVE, keys::POLLS, keys::META[0], keys::QUARANTINE, keys::SERIES, keys::INDEX];

/// The records of one commit as stored, and a view that keeps the blocks of this commit.
pub struct BackupPoint {
    store: String,
    records: Vec<Record>,
    view: Arc<View>,
}

/// What a backup reads: the checked records of one commit, and the blocks that they refer to.
pub struct BackupSource {
    records: RecordSet,
    view: Arc<View>,
    reader: BlockReader,
}

impl Store {
    /// Returns the records of the newest commit. The caller makes a checkpoint directly before.
    ///
    /// # Errors
    /// `Io` if the store has changes that no checkpoint contains, or if the records cannot be read.
    pub fn backup_point(&self) -> Result<BackupPoint, StoreError> {
        if self.has_changes() {
            return Err(StoreError::Io {
                action: "cannot read the records for a backup".to_owned(),
                problem: "the store has changes that no checkpoint contains".to_owned(),
                disk_full: false,
            });
        }
        Ok(BackupPoint { store: self.engine.name(), records: self.scan_records()?, view: Arc::new(self.view()) })
    }

    /// The random id of the store.
    pub fn id(&self) -> u64 {
        self.store_id
    }

    /// Keeps the frames of the commits from now on.
    pub fn keep_frames(&mut self, tail: Arc<FrameTail>) {
        self.frame_tail = Some(tail);
    }

    /// Reads all records. They are those of the last checkpoint.
    fn scan_records(&self) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        for kind in RECORD_KINDS {
            for entry in self.engine.scan(&[kind]) {
                let (key, value) = entry?;
                records.push((key.to_vec(), value.to_vec()));
            }
        }
        Ok(records)
    }

    /// Reads and checks the records of the last checkpoint.
    fn stored_records(&self) -> Result<RecordSet, StoreError> {
        RecordSet::new(self.scan_records()?)
            .map_err(|problem| StoreError::Damaged { path: self.engine.name(), problem: problem.to_string() })
    }
}

impl BackupPoint {
    /// Checks the records. This takes too long for the thread of the writer.
    ///
    /// # Errors
    /// `Damaged` if a record does not match its checksum, or if the records do not belong together.
    pub fn open(self) -> Result<BackupSource, StoreError> {
        let Self { store, records, view } = self;
        let damaged = |problem: &dyn std::fmt::Display| StoreError::Damaged {
            path: store.clone(),
            problem: format!("cannot back it up: {problem}"),
        };
        let records = RecordSet::new(records).map_err(|problem| damaged(&problem))?;
        if records.commit() != view.commit {
            let (found, expected) = (records.commit().sequence, view.commit.sequence);
            return Err(damaged(&format!("its records are of commit {found}, but its newest commit is {expected}")));
        }
        let reader = view.reader.clone();
        Ok(BackupSource { records, view, reader })
    }
}

impl BackupSource {
    /// The records of the commit.
    pub fn records(&self) -> &RecordSet {
        &self.records
    }

    /// Returns true if the store has this commit: the sequence and the recorded time are those of one of its commits. May
    /// block on disk reads.
    ///
    /// # Errors
    /// `DamagedCommits` if a block of the list of commits cannot be decoded.
    pub fn has_commit(&self, commit: Commit) -> Result<bool, StoreError> {
        if commit.sequence == 0 {
            return Ok(false);
        }
        Ok(self.view.commit_at(commit.recorded_time)? == Some(commit))
    }

    /// Reads the columns of a block, concatenated in order, after it has compared each with its checksum. Blocks on disk
    /// reads.
    ///
    /// # Errors
    /// `DamagedBlock` or `DamagedCommits` if a column differs from its index entry; `Io` if it cannot be read.
    pub fn read(&self, block: &IndexedBlock) -> Result<Vec<u8>, StoreError> {
        read_raw(&self.reader, &self.records, block)
    }
}

/// Reads the columns of a block, and names its series and its times if that fails.
fn read_raw(reader: &BlockReader, records: &RecordSet, block: &IndexedBlock) -> Result<Vec<u8>, StoreError> {
    reader.read_raw(&block.meta, block.kind).map_err(|error| match records.series(block) {
        Some(series) if block.series != COMMITS_ID => StoreError::of_block(series, error),
        _ => StoreError::of_commits(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Currency, Pair, PublishedValue, Rate, SeriesKey, Source, Timestamp};
    use crate::store::StoreOptions;

    fn store_with_ticks(directory: &tempfile::TempDir) -> Store {
        let now = Timestamp::from_micros(Timestamp::DAY_US);
        let mut store = Store::open(StoreOptions::of_test(directory.path()), now).unwrap();
        let currency = |code| Currency::parse(code).unwrap();
        let pair = Pair::new(currency("KGS"), currency("USD")).unwrap();
        let mut transaction = store.begin(now);
        let series = transaction.series(&SeriesKey { pair, source: Source::parse("timesca").unwrap() }).unwrap();
        for at in 0..100_i64 {
            let rate = Rate::from_parts(u128::from(at.unsigned_abs()) + 1, 5).unwrap();
            let value = PublishedValue { rate, reported_change: None };
            transaction.upsert(series, Timestamp::from_micros(at * Timestamp::SECOND_US), value, false).unwrap();
        }
        transaction.commit().unwrap();
        store
    }

    #[test]
    fn point_needs_a_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = store_with_ticks(&directory);
        assert!(store.backup_point().is_err());
        store.checkpoint().unwrap();
        let source = store.backup_point().unwrap().open().unwrap();
        assert_eq!(source.records().commit(), store.newest_commit());
        assert!(source.has_commit(store.newest_commit()).unwrap());
        let other = Commit { sequence: 1, recorded_time: Timestamp::default() };
        assert!(!source.has_commit(other).unwrap() && !source.has_commit(Commit::default()).unwrap());
    }

    #[test]
    fn damaged_block_is_an_error_with_series_and_times() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = store_with_ticks(&directory);
        store.checkpoint().unwrap();
        let source = store.backup_point().unwrap().open().unwrap();
        let runs = source.records().blocks().iter().find(|block| block.kind.name() == "runs").unwrap();
        assert!(source.read(runs).is_ok());
        let mut batch = sled::Batch::default();
        batch.insert(&keys::column(runs.id(), 0), b"other bytes".as_slice());
        store.engine.apply(batch).unwrap();
        let error = source.read(runs).unwrap_err();
        assert!(matches!(error, StoreError::DamagedBlock { .. }), "{error}");
        let text = error.to_string();
        assert!(text.starts_with("KGS/USD from timesca: the stored runs from 1970-01-01T00:00:00Z to "), "{text}");
    }

    #[test]
    fn missing_changed_and_foreign_records_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = store_with_ticks(&directory);
        store.checkpoint().unwrap();
        let records = store.scan_records().unwrap();
        let whole = RecordSet::new(records.clone()).unwrap();
        let encoded = whole.encode();
        assert_eq!(RecordSet::decode(&encoded).unwrap().encode(), encoded);
        for at in 0..records.len() {
            let mut fewer = records.clone();
            fewer.remove(at);
            assert!(RecordSet::new(fewer).is_err(), "without record {at}");
            let mut changed = records.clone();
            changed[at].1[1] ^= 1;
            assert!(RecordSet::new(changed).is_err(), "record {at} is changed");
        }
        for cut in 0..encoded.len() {
            assert!(RecordSet::decode(&encoded[..cut]).is_err(), "cut at {cut}");
        }
        let mut foreign = records;
        foreign.push((b"z".to_vec(), vec![0; 8]));
        assert!(matches!(RecordSet::new(foreign), Err(RecordsError::Key { .. })));
    }
}
