//! Blocks: immutable groups of at most a few thousand consecutive items, encoded by column.
//!
//! **Invariant**: decoding a block gives exactly the items that were encoded, or an error. The checksum of a column is
//! compared with the checksum in the index entry before any byte of the column is interpreted.

mod raw_columns;
mod run_columns;

pub(crate) use raw_columns::split_columns;
pub(crate) use run_columns::{RevisionTimes, RunColumns, RunNumbers, decode_rates, decode_revision_times, decode_run};

use run_columns::{Ends, REVISIONS_OUT_OF_ORDER, RUNS_OUT_OF_ORDER, SUPERSEDED_COLUMN, decode_runs, encode_runs};

use pco::standalone::{simple_compress, simple_decompress};
use pco::{ChunkConfig, DeltaSpec, ModeSpec};
use serde::{Deserialize, Serialize};

use crate::domain::{Rate, ReportedChange, Revision, Run, Timestamp};

/// Largest size of a column, in bytes. sled writes larger values, and the pages that hold them, to separate files
/// that it never syncs.
pub(crate) const COLUMN_BYTES_MAX: usize = 7_500;
/// Number of columns of the widest kind of block (revisions).
pub(crate) const COLUMNS_MAX: usize = 9;
/// pco compression level. Compared with pco's default of 8, rewriting a block after a late tick is four times cheaper,
/// and blocks are 7 % larger.
const COMPRESSION_LEVEL: usize = 4;

/// The kind of items in a block. Its number is part of the key of the block's index entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum BlockKind {
    Runs = 0,
    Instants = 1,
    Revisions = 2,
}

impl BlockKind {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Runs, Self::Instants, Self::Revisions].into_iter().find(|kind| *kind as u8 == number)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Instants => "instants",
            Self::Revisions => "revisions",
        }
    }
}

/// A column of a block, as its index entry describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ColumnMeta {
    /// Size in bytes; zero if the column is omitted.
    pub(crate) bytes: u16,
    /// CRC-32C of the bytes.
    pub(crate) crc: u32,
}

/// The index entry of a block: what is known about the block without reading it. Times are in microseconds since 1970,
/// UTC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct BlockMeta {
    pub(crate) id: u64,
    pub(crate) item_count: u32,
    /// Sort key of the first item; `last_key_us` is the sort key of the last item.
    pub(crate) first_key_us: i64,
    pub(crate) last_key_us: i64,
    /// Latest time that any item covers: the last observed time of the last run, the last instant, or the last
    /// superseded time.
    pub(crate) end_us: i64,
    /// Sum of the observation counts of all items.
    pub(crate) observation_count: u64,
    /// Earliest first observed time of the items. For runs and instants, this is the first key.
    pub(crate) observed_min_us: i64,
    /// Earliest recorded time of the items; `recorded_max_us` is the latest.
    pub(crate) recorded_min_us: i64,
    pub(crate) recorded_max_us: i64,
    /// Mantissa and places of the rate, if all runs of the block have numerically the same rate.
    pub(crate) uniform_rate: Option<(u128, u8)>,
    /// The columns in the order of their numbers.
    pub(crate) columns: Vec<ColumnMeta>,
}

impl BlockMeta {
    pub(crate) fn first_key(&self) -> Timestamp {
        Timestamp::from_micros(self.first_key_us)
    }

    pub(crate) fn last_key(&self) -> Timestamp {
        Timestamp::from_micros(self.last_key_us)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.columns.iter().map(|column| u64::from(column.bytes)).sum()
    }

    pub(crate) fn damaged(&self, kind: BlockKind, problem: String) -> BlockError {
        let to = Timestamp::from_micros(self.end_us.max(self.last_key_us));
        BlockError { kind, from: self.first_key(), to, fault: BlockFault::Damage, problem }
    }

    pub(crate) fn uniform_rate(&self) -> Option<Rate> {
        let (mantissa, places) = self.uniform_rate?;
        Rate::from_parts(mantissa, u32::from(places)).ok()
    }
}

/// An encoded block that is ready to be written.
pub(crate) struct EncodedBlock {
    pub(crate) meta: BlockMeta,
    /// Columns in the order of their numbers. An omitted column is empty.
    pub(crate) columns: Vec<Vec<u8>>,
}

/// The kind of failure that prevents a block from being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockFault {
    /// The block is damaged: its bytes differ from the bytes that were written.
    Damage,
    /// The operating system returned an I/O error. A later read may succeed.
    Disk { is_full: bool },
    /// The block was not read, because the thread must not read the disk now.
    NotInMemory,
    /// The block was not read, because the commit has already made the maximum number of segments mutable.
    LimitReached,
}

/// Why a block cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockError {
    pub(crate) kind: BlockKind,
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) fault: BlockFault,
    pub(crate) problem: String,
}

/// A type of item that blocks store, sorted by key.
pub(crate) trait Item: Clone + Send + Sync + 'static {
    const KIND: BlockKind;
    /// Largest number of items in a block.
    const BLOCK_ITEMS_MAX: usize;
    /// Largest number of items in one chunk of the head. The number is small, because a commit that appends to the
    /// last chunk copies the chunk if a reader holds it.
    const CHUNK_ITEMS_MAX: usize;

    /// The sort key.
    fn key(&self) -> Timestamp;
    fn encode(items: &[Self]) -> Result<Vec<Vec<u8>>, String>;
    fn decode(columns: &Columns<'_>) -> Result<Vec<Self>, DecodeError>;
    fn observations(&self) -> u64;
    fn end(&self) -> Timestamp;
    fn observed_min(&self) -> Timestamp;
    fn recorded(&self) -> Timestamp;
    fn rate(&self) -> Option<Rate>;
}

/// Encodes at most [`Item::BLOCK_ITEMS_MAX`] items as one block, or as several blocks if a column would exceed
/// [`COLUMN_BYTES_MAX`]. Block ids are taken from `next_id`, which is advanced.
pub(crate) fn encode_blocks<T: Item>(items: &[T], next_id: &mut u64) -> Result<Vec<EncodedBlock>, String> {
    debug_assert!(items.len() <= T::BLOCK_ITEMS_MAX);
    let mut blocks = Vec::new();
    encode_or_split(items, next_id, &mut blocks)?;
    Ok(blocks)
}

/// Encodes items as one block, or splits them in two halves if a column exceeds its limit.
fn encode_or_split<T: Item>(items: &[T], next_id: &mut u64, blocks: &mut Vec<EncodedBlock>) -> Result<(), String> {
    let columns = T::encode(items)?;
    if items.len() > 1 && columns.iter().any(|column| column.len() > COLUMN_BYTES_MAX) {
        let (left, right) = items.split_at(items.len() / 2);
        encode_or_split(left, next_id, blocks)?;
        return encode_or_split(right, next_id, blocks);
    }
    blocks.push(EncodedBlock { meta: block_meta(items, &columns, *next_id), columns });
    *next_id += 1;
    Ok(())
}

/// Computes the index entry of a block.
fn block_meta<T: Item>(items: &[T], columns: &[Vec<u8>], id: u64) -> BlockMeta {
    let times = |time: fn(&T) -> Timestamp| items.iter().map(time).map(Timestamp::micros);
    let uniform_rate = items
        .first()
        .and_then(T::rate)
        .filter(|first| items.iter().all(|item| item.rate().is_some_and(|rate| rate.same_number(*first))));
    BlockMeta {
        id,
        item_count: u32::try_from(items.len()).unwrap_or(u32::MAX),
        first_key_us: items.first().map_or(0, |item| item.key().micros()),
        last_key_us: items.last().map_or(0, |item| item.key().micros()),
        end_us: times(T::end).max().unwrap_or(0),
        observation_count: items.iter().map(T::observations).sum(),
        observed_min_us: times(T::observed_min).min().unwrap_or(0),
        recorded_min_us: times(T::recorded).min().unwrap_or(0),
        recorded_max_us: times(T::recorded).max().unwrap_or(0),
        uniform_rate: uniform_rate.map(|rate| (rate.mantissa(), rate.places())),
        columns: columns.iter().map(|column| column_meta(column)).collect(),
    }
}

fn column_meta(column: &[u8]) -> ColumnMeta {
    ColumnMeta { bytes: u16::try_from(column.len()).unwrap_or(u16::MAX), crc: crc32c::crc32c(column) }
}

/// Decodes a block. `read` reads the column with a number, or returns `None` if there is no such column. It is called
/// only for the columns that `decode` uses.
pub(crate) fn decode_block<T>(
    meta: &BlockMeta,
    kind: BlockKind,
    read: &ReadColumn<'_>,
    decode: impl FnOnce(&Columns<'_>) -> Result<T, DecodeError>,
) -> Result<T, BlockError> {
    decode(&Columns { meta, read }).map_err(|error| match error {
        DecodeError::Damage(problem) => meta.damaged(kind, problem),
        DecodeError::Read(ReadFailure { fault, problem }) => BlockError { fault, ..meta.damaged(kind, problem) },
    })
}

fn compress<N: pco::data_types::Number>(numbers: &[N], delta: DeltaSpec, mode: ModeSpec) -> Result<Vec<u8>, String> {
    let config =
        ChunkConfig::default().with_compression_level(COMPRESSION_LEVEL).with_delta_spec(delta).with_mode_spec(mode);
    simple_compress(numbers, &config).map_err(|error| error.to_string())
}

/// Compresses numbers that do not depend on their predecessors, such as counts.
fn compress_independent<N: pco::data_types::Number>(numbers: &[N]) -> Result<Vec<u8>, String> {
    compress(numbers, DeltaSpec::NoOp, ModeSpec::Classic)
}

/// Compresses times as differences from their predecessors. Times of whole seconds or minutes are multiples of a unit
/// apart, and pco needs fewer bits for these multiples. It could find the unit itself, at the cost of all other steps
/// together.
fn compress_times(times_us: &[i64]) -> Result<Vec<u8>, String> {
    let apart = |(one, next): (&i64, &i64)| next.wrapping_sub(*one).unsigned_abs();
    let unit = times_us.iter().zip(times_us.iter().skip(1)).map(apart).fold(0, greatest_common_divisor);
    let mode = if unit > 1 { ModeSpec::TryIntMult(unit) } else { ModeSpec::Classic };
    compress(times_us, DeltaSpec::TryConsecutive(1), mode)
}

/// Returns the greatest common divisor. The divisor of zero and a number is the number.
pub(super) fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    match (a, b) {
        (1, _) => 1,
        (a, 0) => a,
        (a, b) if a != 0 && b.is_multiple_of(a) => a,
        (a, b) => num_integer::gcd(a, b),
    }
}

fn decompress<N: pco::data_types::Number>(column: &[u8], count: usize) -> Result<Vec<N>, String> {
    let numbers = simple_decompress::<N>(column).map_err(|error| error.to_string())?;
    if numbers.len() != count {
        return Err(format!("a column holds {} numbers instead of {count}", numbers.len()));
    }
    Ok(numbers)
}

/// Reads the column with a number; `None` if there is no such column.
pub(crate) type ReadColumn<'a> = dyn Fn(u8) -> Result<Option<sled::IVec>, ReadFailure> + 'a;

/// The cause of a failed read of a column.
#[derive(Debug)]
pub(crate) struct ReadFailure {
    pub(crate) fault: BlockFault,
    pub(crate) problem: String,
}

/// Why a block cannot be decoded.
#[derive(Debug)]
pub(crate) enum DecodeError {
    /// The bytes are not those that were written.
    Damage(String),
    /// A column cannot be read.
    Read(ReadFailure),
}

impl From<String> for DecodeError {
    fn from(problem: String) -> Self {
        Self::Damage(problem)
    }
}

impl From<&str> for DecodeError {
    fn from(problem: &str) -> Self {
        Self::Damage(problem.to_owned())
    }
}

/// The columns of a block. A column is read and compared with its index entry when it is used.
pub(crate) struct Columns<'a> {
    meta: &'a BlockMeta,
    read: &'a ReadColumn<'a>,
}

impl Columns<'_> {
    /// Number of items of the block.
    pub(crate) fn count(&self) -> usize {
        self.meta.item_count as usize
    }

    /// Reads a column and compares it with its index entry. An omitted column is empty.
    fn get(&self, number: usize) -> Result<sled::IVec, DecodeError> {
        let block = self.meta.id;
        let missing = || format!("column {number} of block {block} is missing");
        let (Some(expected), Ok(key)) = (self.meta.columns.get(number), u8::try_from(number)) else {
            return Err(missing().into());
        };
        if expected.bytes == 0 {
            return Ok(sled::IVec::default());
        }
        let column = (self.read)(key).map_err(DecodeError::Read)?.ok_or_else(missing)?;
        if column.len() != usize::from(expected.bytes) {
            let (found, expected) = (column.len(), expected.bytes);
            return Err(format!("column {number} of block {block} has {found} bytes instead of {expected}").into());
        }
        if crc32c::crc32c(&column) != expected.crc {
            return Err(format!("column {number} of block {block} does not match its checksum").into());
        }
        Ok(column)
    }

    fn numbers<N: pco::data_types::Number>(&self, number: usize) -> Result<Vec<N>, DecodeError> {
        Ok(decompress(&self.get(number)?, self.count())?)
    }

    /// Decodes a column that may be omitted. The numbers of an omitted column are an empty list.
    fn optional_numbers<N: pco::data_types::Number>(&self, number: usize) -> Result<Vec<N>, DecodeError> {
        let column = self.get(number)?;
        if column.is_empty() { Ok(Vec::new()) } else { Ok(decompress(&column, self.count())?) }
    }
}

/// Packs a reported change into one number: 0 if there is none, else 1 plus the packed mantissa, places (5 bits) and
/// sign (1 bit).
pub(crate) fn pack_change(change: Option<ReportedChange>) -> u64 {
    change.map_or(0, |change| {
        1 + ((change.mantissa() << 5 | u64::from(change.places())) << 1 | u64::from(change.is_negative()))
    })
}

/// Unpacks a number made by [`pack_change`].
pub(crate) fn unpack_change(packed: u64) -> Result<Option<ReportedChange>, String> {
    let Some(bits) = packed.checked_sub(1) else { return Ok(None) };
    let places = u32::try_from((bits >> 1) & 31).unwrap_or(u32::MAX);
    ReportedChange::from_parts(bits & 1 == 1, bits >> 6, places).map(Some).map_err(|error| error.to_string())
}

impl Item for Timestamp {
    const KIND: BlockKind = BlockKind::Instants;
    const BLOCK_ITEMS_MAX: usize = 4_096;
    const CHUNK_ITEMS_MAX: usize = 1_024;

    fn key(&self) -> Timestamp {
        *self
    }

    fn encode(items: &[Self]) -> Result<Vec<Vec<u8>>, String> {
        let micros: Vec<i64> = items.iter().map(|time| time.micros()).collect();
        Ok(vec![compress_times(&micros)?])
    }

    fn decode(columns: &Columns<'_>) -> Result<Vec<Self>, DecodeError> {
        let micros = columns.numbers::<i64>(0)?;
        if !micros.is_sorted_by(|a, b| a < b) {
            return Err("the instants are out of order".into());
        }
        Ok(micros.into_iter().map(Self::from_micros).collect())
    }

    fn observations(&self) -> u64 {
        1
    }

    fn end(&self) -> Timestamp {
        *self
    }

    fn observed_min(&self) -> Timestamp {
        *self
    }

    fn recorded(&self) -> Timestamp {
        Timestamp::default()
    }

    fn rate(&self) -> Option<Rate> {
        None
    }
}

impl Item for Run {
    const KIND: BlockKind = BlockKind::Runs;
    const BLOCK_ITEMS_MAX: usize = 2_048;
    const CHUNK_ITEMS_MAX: usize = 256;

    fn key(&self) -> Timestamp {
        self.first_observed_time
    }

    fn encode(items: &[Self]) -> Result<Vec<Vec<u8>>, String> {
        encode_runs(&items.iter(), Ends::Gaps)
    }

    fn decode(columns: &Columns<'_>) -> Result<Vec<Self>, DecodeError> {
        let runs = decode_runs(columns, Ends::Gaps)?;
        if !runs.is_sorted_by(|a, b| a.last_observed_time < b.first_observed_time) {
            return Err(RUNS_OUT_OF_ORDER.into());
        }
        Ok(runs)
    }

    fn observations(&self) -> u64 {
        self.observation_count
    }

    fn end(&self) -> Timestamp {
        self.last_observed_time
    }

    fn observed_min(&self) -> Timestamp {
        self.first_observed_time
    }

    fn recorded(&self) -> Timestamp {
        self.recorded_time
    }

    fn rate(&self) -> Option<Rate> {
        Some(self.value.rate)
    }
}

impl Item for Revision {
    const KIND: BlockKind = BlockKind::Revisions;
    const BLOCK_ITEMS_MAX: usize = 2_048;
    const CHUNK_ITEMS_MAX: usize = 256;

    fn key(&self) -> Timestamp {
        self.superseded_time
    }

    fn encode(items: &[Self]) -> Result<Vec<Vec<u8>>, String> {
        let mut columns = encode_runs(&items.iter().map(|revision| &revision.run), Ends::Spans)?;
        let superseded: Vec<i64> = items.iter().map(|revision| revision.superseded_time.micros()).collect();
        columns.push(compress_times(&superseded)?);
        Ok(columns)
    }

    fn decode(columns: &Columns<'_>) -> Result<Vec<Self>, DecodeError> {
        let superseded = columns.numbers::<i64>(SUPERSEDED_COLUMN)?;
        if !superseded.is_sorted() {
            return Err(REVISIONS_OUT_OF_ORDER.into());
        }
        let runs = decode_runs(columns, Ends::Spans)?;
        Ok(runs
            .into_iter()
            .zip(superseded)
            .map(|(run, micros)| Self { run, superseded_time: Timestamp::from_micros(micros) })
            .collect())
    }

    fn observations(&self) -> u64 {
        self.run.observation_count
    }

    fn end(&self) -> Timestamp {
        self.superseded_time
    }

    fn observed_min(&self) -> Timestamp {
        self.run.first_observed_time
    }

    fn recorded(&self) -> Timestamp {
        self.run.recorded_time
    }

    fn rate(&self) -> Option<Rate> {
        None
    }
}

#[cfg(test)]
pub(crate) mod tests;
