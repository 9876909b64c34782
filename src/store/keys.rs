//! The keys of the one sled tree, and small values that carry their own checksum.
//!
//! | key | value |
//! |---|---|
//! | `b` block id, column | one column of a block, compressed by pco |
//! | `f` source, chunk | consecutive poll spans of a source, both numbered from 0 |
//! | `m` | the store's own record: format, sequence, counters |
//! | `q` id | a held tick, and what was decided of it |
//! | `r` block id | nothing: a block that no index entry names any more |
//! | `s` series id | a series: its key, window, totals, latest quote |
//! | `x` series id, kind, block id | an index entry: where a block's items lie and its checksum |
//! | `z` | nothing of use: written over and over to make sled clean its file |
//!
//! Numbers are big-endian, so that keys sort as numbers do.
//!
//! **Invariant**: a small value (`f`, `m`, `q`, `s`, `x`) that opens was written for that very key.

use serde::Serialize;

use super::error::StoreError;

/// The format that this version writes, and the newest that it reads.
pub(crate) const FORMAT: u8 = 1;

pub(crate) const META: [u8; 1] = *b"m";
pub(crate) const BLOCK: u8 = b'b';
pub(crate) const POLLS: u8 = b'f';
pub(crate) const QUARANTINE: u8 = b'q';
pub(crate) const RETIRED: u8 = b'r';
pub(crate) const SERIES: u8 = b's';
pub(crate) const INDEX: u8 = b'x';
pub(crate) const CLEANING: u8 = b'z';

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

/// The big-endian `u64` that begins at byte `at` of a key.
pub(crate) fn u64_at(key: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(at..at + 8)?.try_into().ok()?))
}

/// Why a small value does not open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SealError {
    Newer(u8),
    Broken(&'static str),
}

/// A small value and its checksum: format version, payload, CRC-32C of key, version and payload (little-endian).
pub(crate) fn seal(key: &[u8], payload: &[u8]) -> (Vec<u8>, u32) {
    let mut value = Vec::with_capacity(payload.len() + 5);
    value.push(FORMAT);
    value.extend_from_slice(payload);
    let crc = checksum(key, &value);
    value.extend_from_slice(&crc.to_le_bytes());
    (value, crc)
}

/// A record as a small value, and its checksum.
///
/// # Errors
/// The record cannot be encoded.
pub(crate) fn seal_record<R: Serialize>(key: &[u8], record: &R) -> Result<(Vec<u8>, u32), StoreError> {
    Ok(seal(key, &encode(record)?))
}

/// The bytes of a record. They are never made up where encoding fails: an empty value would be durable, and no record.
///
/// # Errors
/// The record cannot be encoded.
pub(crate) fn encode<R: Serialize>(record: &R) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(record).map_err(|error| StoreError::Io {
        action: format!("cannot encode {}", std::any::type_name::<R>()),
        problem: error.to_string(),
        disk_full: false,
    })
}

/// The payload of a small value and its checksum.
pub(crate) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<(&'a [u8], u32), SealError> {
    let Some((sealed, crc)) = value.split_last_chunk::<4>() else {
        return Err(SealError::Broken("it is cut off"));
    };
    let crc = u32::from_le_bytes(*crc);
    let Some((version, payload)) = sealed.split_first() else {
        return Err(SealError::Broken("it is cut off"));
    };
    if checksum(key, sealed) != crc {
        return Err(SealError::Broken("its checksum does not fit"));
    }
    if *version > FORMAT {
        return Err(SealError::Newer(*version));
    }
    Ok((payload, crc))
}

fn checksum(key: &[u8], sealed: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_under_its_own_key_only() {
        let (value, _) = seal(b"s1", b"payload");
        assert_eq!(unseal(b"s1", &value).unwrap().0, b"payload");
        assert!(unseal(b"s2", &value).is_err());
        for cut in 0..value.len() {
            assert!(unseal(b"s1", &value[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(b"s1", &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let mut value = vec![FORMAT + 1];
        value.extend_from_slice(b"whatever comes");
        let crc = checksum(b"m", &value);
        value.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(unseal(b"m", &value), Err(SealError::Newer(FORMAT + 1)));
    }

    #[test]
    fn what_cannot_be_encoded_is_an_error_and_no_empty_value() {
        struct Endless;
        impl Serialize for Endless {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // The length of a sequence stands before it.
                serializer
                    .collect_seq((0..3).filter(|number| number % 2 == 0))
                    .and(Err(serde::ser::Error::custom("no")))
            }
        }
        let error = seal_record(b"s1", &Endless).unwrap_err().to_string();
        assert!(error.starts_with("cannot encode ") && error.contains("Endless"), "{error}");
    }

    #[test]
    fn keys_sort_as_their_numbers_do() {
        assert!(series(255) < series(256));
        assert!(retired(255) < retired(256));
        assert!(column(7, 8) < column(8, 0));
        assert_eq!(u64_at(&retired(77), 1), Some(77));
    }
}
