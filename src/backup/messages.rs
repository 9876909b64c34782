//! Conversion between pieces of a backup and the messages of `BackupService`.
//!
//! **Invariant**: converting a piece to a message and back does not change it.

use super::error::BackupError;
use super::names::StoreId;
use super::produce::{Base, End, Header, Piece, RawBlock};
use crate::domain::Timestamp;
use crate::proto::convert::timestamp;
use crate::proto::v1::stream_backup_response::Message;
use crate::proto::v1::{
    BackupBase, BackupBlock, BackupBlocks, BackupEnd, BackupHeader, BackupRecords, BlockRange, StreamBackupRequest,
    StreamBackupResponse,
};
use crate::store::Commit;

/// Largest number of bases in a request.
pub(super) const BASES_MAX: usize = 16;
/// Largest number of ranges of one base. This many packs have 800 GB.
const RANGES_MAX: usize = 100_000;

/// Makes the request for a backup with these bases.
pub fn request(bases: &[Base]) -> StreamBackupRequest {
    let base = |base: &Base| BackupBase {
        store_id: base.store_id.0,
        sequence: base.commit.sequence,
        recorded_time: Some(timestamp(base.commit.recorded_time)),
        blocks: base.blocks.iter().map(|range| BlockRange { first_id: range.start, end_id: range.end }).collect(),
    };
    StreamBackupRequest { bases: bases.iter().map(base).collect() }
}

/// Converts the bases of a request.
///
/// # Errors
/// Returns the field, and what is wrong with it.
pub fn bases(request: &StreamBackupRequest) -> Result<Vec<Base>, (String, String)> {
    if request.bases.len() > BASES_MAX {
        let problem = format!("has {} entries; give at most {BASES_MAX}", request.bases.len());
        return Err(("bases".to_owned(), problem));
    }
    request.bases.iter().enumerate().map(|(at, base)| decode_base(at, base)).collect()
}

fn decode_base(at: usize, base: &BackupBase) -> Result<Base, (String, String)> {
    if base.blocks.len() > RANGES_MAX {
        let problem = format!("has {} ranges; give at most {RANGES_MAX}", base.blocks.len());
        return Err((format!("bases[{at}].blocks"), problem));
    }
    let recorded_time = base.recorded_time.as_ref().map_or(Ok(Timestamp::default()), Timestamp::try_from);
    let recorded_time = recorded_time.map_err(|error| (format!("bases[{at}].recorded_time"), error.to_string()))?;
    Ok(Base {
        store_id: StoreId(base.store_id),
        commit: Commit { sequence: base.sequence, recorded_time },
        blocks: base.blocks.iter().map(|range| range.first_id..range.end_id).collect(),
    })
}

impl From<Piece> for StreamBackupResponse {
    fn from(piece: Piece) -> Self {
        let message = match piece {
            Piece::Header(header) => Message::Header(BackupHeader {
                product_version: header.silkrate_version,
                store_id: header.store_id.0,
                sequence: header.commit.sequence,
                recorded_time: Some(timestamp(header.commit.recorded_time)),
                base_sequence: header.base_sequence,
                block_count: header.block_count,
                block_bytes: header.block_bytes,
            }),
            Piece::Records(data) => Message::Records(BackupRecords { data }),
            Piece::Blocks(blocks) => {
                let block = |RawBlock { id, columns }| BackupBlock { id, columns };
                Message::Blocks(BackupBlocks { blocks: blocks.into_iter().map(block).collect() })
            }
            Piece::End(End { block_count, record_bytes, records_sha256 }) => {
                Message::End(BackupEnd { block_count, record_bytes, records_sha256 })
            }
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<StreamBackupResponse> for Piece {
    type Error = BackupError;

    fn try_from(response: StreamBackupResponse) -> Result<Self, BackupError> {
        Ok(match response.message {
            Some(Message::Header(header)) => {
                let time = header.recorded_time.as_ref().map_or(Ok(Timestamp::default()), Timestamp::try_from);
                let recorded_time = time.map_err(|error| BackupError::Pieces(error.to_string()))?;
                Self::Header(Header {
                    silkrate_version: header.product_version,
                    store_id: StoreId(header.store_id),
                    commit: Commit { sequence: header.sequence, recorded_time },
                    base_sequence: header.base_sequence,
                    block_count: header.block_count,
                    block_bytes: header.block_bytes,
                })
            }
            Some(Message::Records(BackupRecords { data })) => Self::Records(data),
            Some(Message::Blocks(BackupBlocks { blocks })) => {
                Self::Blocks(blocks.into_iter().map(|BackupBlock { id, columns }| RawBlock { id, columns }).collect())
            }
            Some(Message::End(BackupEnd { block_count, record_bytes, records_sha256 })) => {
                Self::End(End { block_count, record_bytes, records_sha256 })
            }
            None => return Err(BackupError::Pieces("a message is empty".to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_bases_round_trip() {
        let commit = Commit { sequence: 7, recorded_time: Timestamp::from_micros(1_765_195_200_000_001) };
        let pieces = [
            Piece::Header(Header {
                silkrate_version: "0.1.0".to_owned(),
                store_id: StoreId(u64::MAX),
                commit,
                base_sequence: Some(3),
                block_count: 4,
                block_bytes: 5,
            }),
            Piece::Records(vec![1, 2]),
            Piece::Blocks(vec![RawBlock { id: 9, columns: vec![3] }]),
            Piece::End(End { block_count: 1, record_bytes: 2, records_sha256: "ab".to_owned() }),
        ];
        for piece in pieces {
            assert_eq!(Piece::try_from(StreamBackupResponse::from(piece.clone())).unwrap(), piece);
        }
        assert!(Piece::try_from(StreamBackupResponse { message: None }).is_err());
        let known = vec![Base { store_id: StoreId(1), commit, blocks: vec![1..5, 7..9] }];
        assert_eq!(bases(&request(&known)).unwrap(), known);
        let many = StreamBackupRequest { bases: vec![BackupBase::default(); BASES_MAX + 1] };
        assert_eq!(bases(&many).unwrap_err().0, "bases");
    }
}
