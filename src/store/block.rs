//! Blocks: a few thousand consecutive items, encoded by column, immutable.
//!
//! **Invariant**: a block decodes to exactly what was encoded or to an error; the checksum in its
//! index entry is compared before a byte of it is interpreted.

mod run_columns;

pub(crate) use run_columns::{
    RevisionTimes, RunTimes, decode_rates, decode_revision_times, decode_run, decode_run_times,
};

use run_columns::{REVISIONS_OUT_OF_ORDER, RUNS_OUT_OF_ORDER, SUPERSEDED_COLUMN, decode_runs, encode_runs};

use pco::standalone::{simple_compress, simple_decompress};
use pco::{ChunkConfig, DeltaSpec, ModeSpec};
use serde::{Deserialize, Serialize};

use crate::domain::{Rate, ReportedChange, Revision, Run, Timestamp};

/// Largest column, in bytes. Larger sled values and the pages they make are written to files that
/// sled never syncs.
pub(crate) const COLUMN_BYTES_MAX: usize = 7_500;
/// Columns of the widest kind of block.
pub(crate) const COLUMNS_MAX: usize = 9;
/// Late rewrites are four times cheaper than at pco's default of 8, and blocks 7 % larger.
const COMPRESSION_LEVEL: usize = 4;

/// What a block holds. The number is part of the key of its index entry.
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

/// What the index knows of a block without reading it. Times in microseconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct BlockMeta {
    pub(crate) id: u64,
    pub(crate) item_count: u32,
    /// Sort keys of the first and the last item.
    pub(crate) first_key_us: i64,
    pub(crate) last_key_us: i64,
    /// Latest time that any item covers: for runs the last observation.
    pub(crate) end_us: i64,
    /// Observations of all items together.
    pub(crate) observation_count: u64,
    /// Earliest first observed time in it: for runs and instants the first key.
    pub(crate) observed_min_us: i64,
    /// Earliest and latest recorded time in it.
    pub(crate) recorded_min_us: i64,
    pub(crate) recorded_max_us: i64,
    /// Mantissa and places of the one number that every run in it has, if there is one.
    pub(crate) uniform_rate: Option<(u128, u8)>,
    /// Bytes of each column, zero for one that is left out.
    pub(crate) column_bytes: Vec<u16>,
    /// CRC-32C of the columns in their order.
    pub(crate) crc: u32,
}

impl BlockMeta {
    pub(crate) fn first_key(&self) -> Timestamp {
        Timestamp::from_micros(self.first_key_us)
    }

    pub(crate) fn last_key(&self) -> Timestamp {
        Timestamp::from_micros(self.last_key_us)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.column_bytes.iter().map(|bytes| u64::from(*bytes)).sum()
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

/// A block ready to be written.
pub(crate) struct EncodedBlock {
    pub(crate) meta: BlockMeta,
    /// In order of their numbers, one that is left out being empty.
    pub(crate) columns: Vec<Vec<u8>>,
}

/// Whether a block is at fault, or what it is stored on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockFault {
    /// Its bytes are not those that were written.
    Damage,
    /// The operating system gave none, and may give them another time.
    Disk { is_full: bool },
    /// Neither: the commit has opened as many blocks as it may.
    NoRoom,
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

/// Something that is stored in order in blocks.
pub(crate) trait Item: Clone + Send + Sync + 'static {
    const KIND: BlockKind;
    /// Most items of a block.
    const BLOCK_ITEMS_MAX: usize;
    /// Most items of one chunk of the head; small, since the last chunk is copied when a commit
    /// grows it while readers hold it.
    const CHUNK_ITEMS_MAX: usize;

    /// What items are sorted by.
    fn key(&self) -> Timestamp;
    fn encode(items: &[Self]) -> Result<Vec<Vec<u8>>, String>;
    fn decode(columns: &[&[u8]], count: usize) -> Result<Vec<Self>, String>;
    fn observations(&self) -> u64;
    fn end(&self) -> Timestamp;
    fn observed_min(&self) -> Timestamp;
    fn recorded(&self) -> Timestamp;
    fn rate(&self) -> Option<Rate>;
}

/// Encodes items, at most [`Item::BLOCK_ITEMS_MAX`] of them, as one block, or as more where a column
/// would grow over its limit. Ids count on from `next_id`.
pub(crate) fn encode_blocks<T: Item>(items: &[T], next_id: &mut u64) -> Result<Vec<EncodedBlock>, String> {
    debug_assert!(items.len() <= T::BLOCK_ITEMS_MAX);
    let mut blocks = Vec::new();
    encode_piece(items, next_id, &mut blocks)?;
    Ok(blocks)
}

fn encode_piece<T: Item>(items: &[T], next_id: &mut u64, blocks: &mut Vec<EncodedBlock>) -> Result<(), String> {
    let columns = T::encode(items)?;
    if items.len() > 1 && columns.iter().any(|column| column.len() > COLUMN_BYTES_MAX) {
        let (left, right) = items.split_at(items.len() / 2);
        encode_piece(left, next_id, blocks)?;
        return encode_piece(right, next_id, blocks);
    }
    blocks.push(EncodedBlock { meta: describe(items, &columns, *next_id), columns });
    *next_id += 1;
    Ok(())
}

/// What the index is to know of a block.
fn describe<T: Item>(items: &[T], columns: &[Vec<u8>], id: u64) -> BlockMeta {
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
        column_bytes: columns.iter().map(|column| u16::try_from(column.len()).unwrap_or(u16::MAX)).collect(),
        crc: columns.iter().fold(0, |crc, column| crc32c::crc32c_append(crc, column)),
    }
}

/// Decodes the columns of a block after comparing them with what the index says.
pub(crate) fn decode_block<T>(
    meta: &BlockMeta,
    kind: BlockKind,
    columns: &[impl AsRef<[u8]>],
    decode: impl FnOnce(&[&[u8]], usize) -> Result<T, String>,
) -> Result<T, BlockError> {
    let columns: Vec<&[u8]> = columns.iter().map(AsRef::as_ref).collect();
    let crc = columns.iter().fold(0, |crc, column| crc32c::crc32c_append(crc, column));
    if crc != meta.crc {
        return Err(meta.damaged(kind, format!("the checksum of block {} does not fit", meta.id)));
    }
    decode(&columns, meta.item_count as usize).map_err(|problem| meta.damaged(kind, problem))
}

fn compress<N: pco::data_types::Number>(numbers: &[N], delta: DeltaSpec, mode: ModeSpec) -> Result<Vec<u8>, String> {
    let config =
        ChunkConfig::default().with_compression_level(COMPRESSION_LEVEL).with_delta_spec(delta).with_mode_spec(mode);
    simple_compress(numbers, &config).map_err(|error| error.to_string())
}

/// Numbers that tend to stand alone, such as counts.
fn compress_plain<N: pco::data_types::Number>(numbers: &[N]) -> Result<Vec<u8>, String> {
    compress(numbers, DeltaSpec::NoOp, ModeSpec::Classic)
}

/// Numbers that follow from the one before, such as times.
fn compress_following<N: pco::data_types::Number>(numbers: &[N]) -> Result<Vec<u8>, String> {
    compress(numbers, DeltaSpec::TryConsecutive(1), ModeSpec::Classic)
}

fn decompress<N: pco::data_types::Number>(column: &[u8], count: usize) -> Result<Vec<N>, String> {
    let numbers = simple_decompress::<N>(column).map_err(|error| error.to_string())?;
    if numbers.len() != count {
        return Err(format!("a column holds {} numbers instead of {count}", numbers.len()));
    }
    Ok(numbers)
}

/// The columns of a block by number, an absent one being empty.
struct Columns<'a>(&'a [&'a [u8]]);

impl<'a> Columns<'a> {
    fn get(&self, number: usize) -> Result<&'a [u8], String> {
        self.0.get(number).copied().ok_or_else(|| format!("column {number} is missing"))
    }

    fn numbers<N: pco::data_types::Number>(&self, number: usize, count: usize) -> Result<Vec<N>, String> {
        decompress(self.get(number)?, count)
    }
}

/// One number for a reported change: 0 for none, else one more than mantissa, places and sign
/// packed together.
pub(crate) fn pack_change(change: Option<ReportedChange>) -> u64 {
    change.map_or(0, |change| {
        1 + ((change.mantissa() << 5 | u64::from(change.places())) << 1 | u64::from(change.is_negative()))
    })
}

/// The reverse of [`pack_change`].
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
        Ok(vec![compress_following(&micros)?])
    }

    fn decode(columns: &[&[u8]], count: usize) -> Result<Vec<Self>, String> {
        let micros = Columns(columns).numbers::<i64>(0, count)?;
        if !micros.is_sorted_by(|a, b| a < b) {
            return Err("its instants are out of order".to_owned());
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
        encode_runs(&items.iter())
    }

    fn decode(columns: &[&[u8]], count: usize) -> Result<Vec<Self>, String> {
        let runs = decode_runs(columns, count)?;
        if !runs.is_sorted_by(|a, b| a.last_observed_time < b.first_observed_time) {
            return Err(RUNS_OUT_OF_ORDER.to_owned());
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
        let mut columns = encode_runs(&items.iter().map(|revision| &revision.run))?;
        let superseded: Vec<i64> = items.iter().map(|revision| revision.superseded_time.micros()).collect();
        columns.push(compress_following(&superseded)?);
        Ok(columns)
    }

    fn decode(columns: &[&[u8]], count: usize) -> Result<Vec<Self>, String> {
        let superseded = Columns(columns).numbers::<i64>(SUPERSEDED_COLUMN, count)?;
        if !superseded.is_sorted() {
            return Err(REVISIONS_OUT_OF_ORDER.to_owned());
        }
        let runs = decode_runs(columns, count)?;
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
mod tests;
