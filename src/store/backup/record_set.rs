//! The records of one commit, as a backup contains them: their encoding and their checks.
//!
//! Encoding: the records sorted by key; of each the length of the key (u8), the key, the length of the value (u32 LE) and
//! the value.
//!
//! **Invariant**: a record set is complete and undamaged: each value matches its checksum, and the records together match
//! the digest in the meta record.

use thiserror::Error;

use super::RECORD_KINDS;
use crate::domain::{SeriesKey, Timestamp};
use crate::store::block::{BlockKind, BlockMeta, COLUMN_BYTES_MAX, COLUMNS_MAX, split_columns};
use crate::store::digest::Digest;
use crate::store::keys::{self, ValueError};
use crate::store::records::{Meta, SeriesRecord};
use crate::store::view::Commit;

/// A key and its value.
pub(super) type Record = (Vec<u8>, Vec<u8>);

/// Why records are not those of one commit of a store.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordsError {
    /// The encoding ends within a record.
    #[error("the list of records ends within record {number}")]
    Truncated {
        /// Number of the record, counted from 1.
        number: usize,
    },
    /// A key is unknown, or is not after the key before it.
    #[error("the key of record {number} is unexpected")]
    Key {
        /// Number of the record, counted from 1.
        number: usize,
    },
    /// A value is damaged.
    #[error("{what} {problem}")]
    Value {
        /// The kind of record.
        what: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A newer version of silkrate wrote a value.
    #[error("{what} has format {found}, but this silkrate reads formats up to {supported}; run a newer silkrate", supported = keys::FORMAT)]
    NewerFormat {
        /// The kind of record.
        what: &'static str,
        /// The format of the value.
        found: u8,
    },
    /// There is no meta record.
    #[error("the meta record is missing")]
    NoMeta,
    /// The records are not those that the meta record counts.
    #[error("records are missing or unexpected: they do not match the digest in the meta record")]
    Digest,
    /// An index entry has an id that was not assigned yet.
    #[error("an index entry names block {block}, and ids are assigned only below {next}")]
    BlockId {
        /// The id in the index entry.
        block: u64,
        /// The next block id of the store.
        next: u64,
    },
}

/// A block that an index entry names.
#[derive(Clone, Debug)]
pub struct IndexedBlock {
    pub(super) series: u32,
    pub(super) kind: BlockKind,
    pub(super) meta: BlockMeta,
}

impl IndexedBlock {
    /// The id of the block. It is never reused within a store.
    pub fn id(&self) -> u64 {
        self.meta.id
    }

    /// Size of its columns, in bytes.
    pub fn bytes(&self) -> u64 {
        self.meta.bytes()
    }

    /// Compares the columns of the block, concatenated in order, with the lengths and checksums of its index entry.
    ///
    /// # Errors
    /// Returns what is wrong.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        split_columns(&self.meta, bytes).map(drop)
    }
}

/// All records of one commit of a store, sorted by key and checked.
pub struct RecordSet {
    records: Vec<Record>,
    meta: Meta,
    /// The blocks of the index, sorted by id.
    blocks: Vec<IndexedBlock>,
    /// The series with id `n` at index `n - 1`.
    series: Vec<SeriesKey>,
}

impl RecordSet {
    /// Checks records, which must be sorted by key.
    pub(super) fn new(records: Vec<Record>) -> Result<Self, RecordsError> {
        let mut digest = Digest::default();
        let (mut meta, mut blocks, mut series) = (None, Vec::new(), Vec::new());
        let mut before: &[u8] = &[];
        for (number, (key, value)) in (1..).zip(&records) {
            let kind = key.first().copied().unwrap_or_default();
            if !RECORD_KINDS.contains(&kind) || key.as_slice() <= before {
                return Err(RecordsError::Key { number });
            }
            before = key;
            let what = name(kind);
            let (payload, crc) = keys::verify_checksum(key, value).map_err(|error| match error {
                ValueError::NewerFormat(found) => RecordsError::NewerFormat { what, found },
                ValueError::Damaged(problem) => RecordsError::Value { what, problem },
            })?;
            let undecodable = RecordsError::Value { what, problem: "cannot be decoded" };
            if kind == keys::META[0] {
                meta = Some(Meta::decode(payload).ok_or(undecodable)?);
                continue;
            }
            digest.add(crc);
            if kind == keys::INDEX {
                blocks.push(indexed_block(key, payload).ok_or(undecodable)?);
            } else if kind == keys::SERIES {
                let record: SeriesRecord = postcard::from_bytes(payload).map_err(|_| undecodable.clone())?;
                series.push((*record.series().ok_or(undecodable)?.key).clone());
            }
        }
        let meta = meta.ok_or(RecordsError::NoMeta)?;
        if digest != meta.digest {
            return Err(RecordsError::Digest);
        }
        blocks.sort_unstable_by_key(IndexedBlock::id);
        match blocks.last().map(IndexedBlock::id) {
            Some(block) if block >= meta.next_block_id => {
                Err(RecordsError::BlockId { block, next: meta.next_block_id })
            }
            Some(_) | None => Ok(Self { records, meta, blocks, series }),
        }
    }

    /// Decodes and checks the records of a backup.
    ///
    /// # Errors
    /// Returns why the bytes are not all records of one commit.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordsError> {
        let mut records = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let truncated = RecordsError::Truncated { number: records.len() + 1 };
            records.push(decode_record(&mut rest).ok_or(truncated)?);
        }
        Self::new(records)
    }

    /// Encodes the records.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in &self.records {
            encode_record(&mut bytes, key, value);
        }
        bytes
    }

    /// Encodes the records as [`RecordSet::encode`] does, but without the store id in the meta record. The bytes are equal
    /// for a store and for a store that was restored from its backup. They contain the checksums of all blocks.
    pub fn encode_content(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in &self.records {
            if key.as_slice() == keys::META {
                // The checksum of the value covers the store id, so the value is encoded again.
                let meta = Meta { store_id: 0, ..self.meta.clone() };
                encode_record(&mut bytes, key, &meta.encode().unwrap_or_default());
            } else {
                encode_record(&mut bytes, key, value);
            }
        }
        bytes
    }

    /// The id of the store. A restored store has an id of its own.
    pub fn store_id(&self) -> u64 {
        self.meta.store_id
    }

    /// The commit of which these are the records.
    pub fn commit(&self) -> Commit {
        Commit { sequence: self.meta.sequence, recorded_time: Timestamp::from_micros(self.meta.recorded_us) }
    }

    /// The checksum of the log frame of the commit. The frame of the next commit contains it.
    pub fn chain(&self) -> u32 {
        self.meta.chain
    }

    /// All blocks have ids below this one, and blocks of later commits have this id or a higher one.
    pub fn next_block_id(&self) -> u64 {
        self.meta.next_block_id
    }

    /// The number of records.
    pub fn record_count(&self) -> usize {
        self.records.len()
    }

    /// The number of series.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// The blocks of the index, sorted by id.
    pub fn blocks(&self) -> &[IndexedBlock] {
        &self.blocks
    }

    /// Finds a block of the index.
    pub fn block(&self, id: u64) -> Option<&IndexedBlock> {
        self.blocks.binary_search_by_key(&id, IndexedBlock::id).ok().and_then(|at| self.blocks.get(at))
    }

    /// The series of a block; `None` for a block of the list of commits.
    pub fn series(&self, block: &IndexedBlock) -> Option<&SeriesKey> {
        self.series.get((block.series as usize).checked_sub(1)?)
    }

    /// Describes a block for messages: its series, its kind and its times.
    pub fn describe(&self, block: &IndexedBlock) -> String {
        let (from, to) =
            (block.meta.first_key(), Timestamp::from_micros(block.meta.end_us.max(block.meta.last_key_us)));
        match self.series(block) {
            Some(series) => format!("the {} of {series} from {from} to {to}", block.kind.name()),
            None => format!("the commits from {from} to {to}"),
        }
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The records in the order of their keys, without the meta record.
    pub(super) fn without_meta(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|(key, _)| key.as_slice() != keys::META)
    }
}

fn name(kind: u8) -> &'static str {
    match kind {
        keys::ARCHIVE => "a decision to archive a source",
        keys::POLLS => "a chunk of polls",
        keys::QUARANTINE => "the record of a held tick",
        keys::SERIES => "a series record",
        keys::INDEX => "an index entry",
        _ => "the meta record",
    }
}

/// Decodes an index entry. Returns `None` if it is invalid, or if its key is not its own.
fn indexed_block(key: &[u8], payload: &[u8]) -> Option<IndexedBlock> {
    let key: &[u8; 14] = key.try_into().ok()?;
    let (series, kind) = (u32::from_be_bytes(*key[1..].first_chunk()?), BlockKind::from_number(key[5])?);
    let meta: BlockMeta = postcard::from_bytes(payload).ok()?;
    let is_valid = keys::u64_at(key, 6) == Some(meta.id)
        && meta.columns.len() <= COLUMNS_MAX
        && meta.columns.iter().all(|column| usize::from(column.bytes) <= COLUMN_BYTES_MAX);
    is_valid.then_some(IndexedBlock { series, kind, meta })
}

fn encode_record(bytes: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The longest key has 14 bytes, and no value exceeds a few kilobytes.
    bytes.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(value);
}

fn decode_record(rest: &mut &[u8]) -> Option<Record> {
    let (key_length, after) = rest.split_first()?;
    let (key, after) = after.split_at_checked(usize::from(*key_length))?;
    let (length, after) = after.split_first_chunk::<4>()?;
    let (value, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    Some((key.to_vec(), value.to_vec()))
}
