//! The pieces of a backup, as a server makes them.
//!
//! Order: the header, the records, the blocks by id, the end. The records come first, so that the receiver can compare each
//! block with its checksums.
//!
//! **Invariant**: a block is sent only after its columns match their checksums.

use std::ops::Range;

use thiserror::Error;

use super::manifest::sha256;
use super::names::StoreId;
use crate::store::{BackupSource, Commit, StoreError};

/// Largest piece of records, in bytes.
const RECORD_PIECE_BYTES: usize = 256 << 10;
/// A piece of blocks ends with the block that makes it this large.
const BLOCK_PIECE_BYTES: usize = 1 << 20;

/// An earlier backup, whose packs the next backup can name again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Base {
    /// The id of its store.
    pub store_id: StoreId,
    /// Its commit.
    pub commit: Commit,
    /// Ranges of ids of the blocks that it has.
    pub blocks: Vec<Range<u64>>,
}

/// The first piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The version of the server.
    pub silkrate_version: String,
    /// The id of the store.
    pub store_id: StoreId,
    /// The commit that is backed up.
    pub commit: Commit,
    /// The sequence of the earlier backup that was accepted as a base; none if all blocks follow.
    pub base_sequence: Option<u64>,
    /// The number of blocks that follow.
    pub block_count: u64,
    /// The size of these blocks, in bytes.
    pub block_bytes: u64,
}

/// A block: its id, and its columns concatenated in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawBlock {
    /// The id.
    pub id: u64,
    /// The columns.
    pub columns: Vec<u8>,
}

/// The last piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// The number of blocks that were sent.
    pub block_count: u64,
    /// The size of the records, in bytes.
    pub record_bytes: u64,
    /// SHA-256 of the records, in hexadecimal digits.
    pub records_sha256: String,
}

/// A piece of a backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// The first piece.
    Header(Header),
    /// A part of the records.
    Records(Vec<u8>),
    /// Some blocks, sorted by id.
    Blocks(Vec<RawBlock>),
    /// The last piece.
    End(End),
}

/// Why a backup cannot be produced.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProduceError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The receiver has gone.
    #[error("the receiver of the backup has disconnected")]
    ReceiverGone,
}

/// Makes the pieces of a backup. `send` returns false if the receiver has gone. Of the bases, the newest one that is a
/// backup of an earlier commit of this store counts; the blocks that it has are not sent. Blocks on disk reads.
///
/// # Errors
/// `Store` if the store cannot be read; `ReceiverGone` if `send` returned false.
pub fn produce(source: &BackupSource, bases: &[Base], send: &mut dyn FnMut(Piece) -> bool) -> Result<(), ProduceError> {
    let mut send = |piece| if send(piece) { Ok(()) } else { Err(ProduceError::ReceiverGone) };
    let records = source.records();
    let base = base_of(source, bases)?;
    let mut ranges: Vec<Range<u64>> = base.map_or_else(Vec::new, |base| base.blocks.clone());
    ranges.sort_unstable_by_key(|range| range.start);
    let has = |id: u64| {
        let at = ranges.partition_point(|range| range.end <= id);
        ranges.get(at).is_some_and(|range| range.contains(&id))
    };
    let wanted: Vec<_> = records.blocks().iter().filter(|block| !has(block.id())).collect();
    send(Piece::Header(Header {
        silkrate_version: env!("CARGO_PKG_VERSION").to_owned(),
        store_id: StoreId(records.store_id()),
        commit: records.commit(),
        base_sequence: base.map(|base| base.commit.sequence),
        block_count: wanted.len() as u64,
        block_bytes: wanted.iter().map(|block| block.bytes()).sum(),
    }))?;
    let encoded = records.encode();
    for piece in encoded.chunks(RECORD_PIECE_BYTES) {
        send(Piece::Records(piece.to_vec()))?;
    }
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    for block in &wanted {
        let columns = source.read(block)?;
        bytes += columns.len();
        blocks.push(RawBlock { id: block.id(), columns });
        if bytes >= BLOCK_PIECE_BYTES {
            send(Piece::Blocks(std::mem::take(&mut blocks)))?;
            bytes = 0;
        }
    }
    if !blocks.is_empty() {
        send(Piece::Blocks(blocks))?;
    }
    send(Piece::End(End {
        block_count: wanted.len() as u64,
        record_bytes: encoded.len() as u64,
        records_sha256: sha256(&encoded),
    }))
}

/// Returns the newest base that is a backup of this store at one of its commits. A store that was copied or reset has the
/// id of another store, but not its commits.
fn base_of<'b>(source: &BackupSource, bases: &'b [Base]) -> Result<Option<&'b Base>, ProduceError> {
    let mut found: Option<&Base> = None;
    for base in bases.iter().filter(|base| base.store_id.0 == source.records().store_id()) {
        let is_newer = found.is_none_or(|found| found.commit.sequence < base.commit.sequence);
        if is_newer && source.has_commit(base.commit)? {
            found = Some(base);
        }
    }
    Ok(found)
}
