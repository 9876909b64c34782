//! The keys of the sled tree, and the encoding of small values with a checksum.
//!
//! | key | value |
//! |---|---|
//! | `a` number | a decision to archive or unarchive a source |
//! | `b` block id, column | one column of a block, compressed by pco |
//! | `f` source, chunk | consecutive poll spans of a source; sources and chunks are numbered from 0 |
//! | `m` | the meta record: format, sequence, counters |
//! | `q` id | a held tick and the decision about it |
//! | `r` block id | empty; marks a retired block, to which no index entry refers |
//! | `s` series id | a series record: key, collapse window, totals, latest quote |
//! | `x` series id, kind, block id | an index entry: time range, counts and checksum of a block |
//! | `z` | a counter without meaning, overwritten repeatedly to make sled clean its file |
//!
//! Numbers in keys are big-endian, so that keys sort in numeric order.
//!
//! **Invariant**: a checksummed value (`a`, `f`, `m`, `q`, `s`, `x`) is accepted only under the key that it was written for:
//! its checksum covers the key.

use serde::Serialize;

use super::error::StoreError;

/// The store format that this version writes, and the newest format that it reads.
pub(crate) const FORMAT: u8 = 1;

pub(crate) const META: [u8; 1] = *b"m";
pub(crate) const ARCHIVE: u8 = b'a';
pub(crate) const BLOCK: u8 = b'b';
pub(crate) const POLLS: u8 = b'f';
pub(crate) const QUARANTINE: u8 = b'q';
pub(crate) const RETIRED: u8 = b'r';
pub(crate) const SERIES: u8 = b's';
pub(crate) const INDEX: u8 = b'x';
pub(crate) const CLEANING: u8 = b'z';

pub(crate) fn archive(number: u64) -> [u8; 9] {
    let mut key = [ARCHIVE; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn column(block: u64, column: u8) -> [u8; 10] {
    let mut key = [BLOCK; 10];
    key[1..9].copy_from_slice(&block.to_be_bytes());
    key[9] = column;
    key
}

pub(crate) fn quarantine(id: u64) -> [u8; 9] {
    let mut key = [QUARANTINE; 9];
    key[1..].copy_from_slice(&id.to_be_bytes());
    key
}

pub(crate) fn retired(block: u64) -> [u8; 9] {
    let mut key = [RETIRED; 9];
    key[1..].copy_from_slice(&block.to_be_bytes());
    key
}

pub(crate) fn series(id: u32) -> [u8; 5] {
    let mut key = [SERIES; 5];
    key[1..].copy_from_slice(&id.to_be_bytes());
    key
}

pub(crate) fn index(series: u32, kind: u8, block: u64) -> [u8; 14] {
    let mut key = [INDEX; 14];
    key[1..5].copy_from_slice(&series.to_be_bytes());
    key[5] = kind;
    key[6..].copy_from_slice(&block.to_be_bytes());
    key
}

pub(crate) fn polls(source: u32, chunk: u32) -> [u8; 9] {
    let mut key = [POLLS; 9];
    key[1..5].copy_from_slice(&source.to_be_bytes());
    key[5..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// Reads the big-endian `u64` that begins at byte `at` of a key.
pub(crate) fn u64_at(key: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(at..at + 8)?.try_into().ok()?))
}

/// Why a checksummed value is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ValueError {
    /// The value has a newer format, which is given.
    NewerFormat(u8),
    /// The value is damaged. A message consists of the name of the value and this text, such as "is truncated".
    Damaged(&'static str),
}

/// Makes a checksummed value: format version (1 byte), payload, and CRC-32C of key, version and payload (4 bytes,
/// little-endian). Returns the value and its checksum.
pub(crate) fn add_checksum(key: &[u8], payload: &[u8]) -> (Vec<u8>, u32) {
    let mut value = Vec::with_capacity(payload.len() + 5);
    value.push(FORMAT);
    value.extend_from_slice(payload);
    let crc = checksum(key, &value);
    value.extend_from_slice(&crc.to_le_bytes());
    (value, crc)
}

/// Encodes a record as a checksummed value. Returns the value and its checksum.
///
/// # Errors
/// Returns `Io` if the record cannot be encoded.
pub(crate) fn encode_checksummed<R: Serialize>(key: &[u8], record: &R) -> Result<(Vec<u8>, u32), StoreError> {
    Ok(add_checksum(key, &encode(record)?))
}

/// Encodes a record with postcard.
///
/// # Errors
/// Returns `Io` if the record cannot be encoded. The caller must not write an empty value in place of the record.
pub(crate) fn encode<R: Serialize>(record: &R) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(record).map_err(|error| StoreError::Io {
        action: format!("cannot encode {}", std::any::type_name::<R>()),
        problem: error.to_string(),
        disk_full: false,
    })
}

/// Verifies the checksum of a checksummed value. Returns the payload and the checksum.
///
/// # Errors
/// `Damaged` if the value is truncated or its checksum differs; `NewerFormat` if a newer version wrote the value.
pub(crate) fn verify_checksum<'a>(key: &[u8], value: &'a [u8]) -> Result<(&'a [u8], u32), ValueError> {
    let Some((checked, crc)) = value.split_last_chunk::<4>() else {
        return Err(ValueError::Damaged("is truncated"));
    };
    let crc = u32::from_le_bytes(*crc);
    let Some((version, payload)) = checked.split_first() else {
        return Err(ValueError::Damaged("is truncated"));
    };
    if checksum(key, checked) != crc {
        return Err(ValueError::Damaged("does not match its checksum"));
    }
    if *version > FORMAT {
        return Err(ValueError::NewerFormat(*version));
    }
    Ok((payload, crc))
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksummed_value_is_accepted_only_under_its_own_key() {
        let (value, _) = add_checksum(b"s1", b"payload");
        assert_eq!(verify_checksum(b"s1", &value).unwrap().0, b"payload");
        assert!(verify_checksum(b"s2", &value).is_err());
        for cut in 0..value.len() {
            assert!(verify_checksum(b"s1", &value[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(verify_checksum(b"s1", &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn newer_format_is_distinguished_from_damage() {
        let mut value = vec![FORMAT + 1];
        value.extend_from_slice(b"newer data");
        let crc = checksum(b"m", &value);
        value.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(verify_checksum(b"m", &value), Err(ValueError::NewerFormat(FORMAT + 1)));
    }

    #[test]
    fn encoding_failure_is_an_error_instead_of_an_empty_value() {
        struct UnknownLength;
        impl Serialize for UnknownLength {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // postcard needs the length of a sequence. The iterator `filter` does not know its length.
                serializer
                    .collect_seq((0..3).filter(|number| number % 2 == 0))
                    .and(Err(serde::ser::Error::custom("no")))
            }
        }
        let error = encode_checksummed(b"s1", &UnknownLength).unwrap_err().to_string();
        assert!(error.starts_with("cannot encode ") && error.contains("UnknownLength"), "{error}");
    }

    #[test]
    fn keys_sort_in_numeric_order() {
        assert!(series(255) < series(256));
        assert!(retired(255) < retired(256));
        assert!(column(7, 8) < column(8, 0));
        assert_eq!(u64_at(&retired(77), 1), Some(77));
    }
}
