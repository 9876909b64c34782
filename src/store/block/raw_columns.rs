//! The columns of a block as stored bytes, for backups.
//!
//! **Invariant**: bytes are passed on only after each column has the length and the checksum of its index entry.

use super::{BlockMeta, Columns, DecodeError};

impl Columns<'_> {
    /// Reads all columns, concatenated in the order of their numbers.
    pub(crate) fn raw(&self) -> Result<Vec<u8>, DecodeError> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.meta.bytes()).unwrap_or_default());
        for number in 0..self.meta.columns.len() {
            bytes.extend_from_slice(&self.get(number)?);
        }
        Ok(bytes)
    }
}

/// Divides the concatenated columns of a block. An omitted column is empty.
///
/// # Errors
/// Returns what is wrong if the length or the checksum of a column differs from its index entry.
pub(crate) fn split_columns<'b>(meta: &BlockMeta, bytes: &'b [u8]) -> Result<Vec<&'b [u8]>, String> {
    let block = meta.id;
    let (found, expected) = (bytes.len() as u64, meta.bytes());
    if found != expected {
        return Err(format!("block {block} has {found} bytes instead of {expected}"));
    }
    let mut rest = bytes;
    let mut columns = Vec::with_capacity(meta.columns.len());
    for (number, column) in meta.columns.iter().enumerate() {
        let (bytes, after) = rest.split_at(usize::from(column.bytes));
        if column.bytes > 0 && crc32c::crc32c(bytes) != column.crc {
            return Err(format!("column {number} of block {block} does not match its checksum"));
        }
        columns.push(bytes);
        rest = after;
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::store::block::encode_blocks;

    #[test]
    fn changed_bytes_of_a_block_are_refused() {
        let times: Vec<Timestamp> = (0..100).map(|at| Timestamp::from_micros(at * at)).collect();
        let blocks = encode_blocks(&times, &mut 7).unwrap();
        let (meta, bytes) = (&blocks[0].meta, blocks[0].columns.concat());
        assert_eq!(split_columns(meta, &bytes).unwrap(), blocks[0].columns);
        assert!(split_columns(meta, &bytes[1..]).unwrap_err().contains("block 7 has"));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let problem = split_columns(meta, &flipped).unwrap_err();
            assert_eq!(problem, "column 0 of block 7 does not match its checksum", "bit {bit}");
        }
    }
}
