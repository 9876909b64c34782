//! Entries of the commit log: what one commit changed, logically, so that replaying it onto the
//! checkpoint before it gives the very same store.
//!
//! **Invariant**: an entry is accepted only whole, in its place in the sequence, and chained to the
//! entry before it.

use serde::{Deserialize, Serialize};

use super::block::{pack_change, unpack_change};
use super::keys;
use crate::domain::{PublishedValue, Rate, Timestamp};

/// Longest piece of an entry, in bytes, for the same reason as a column's.
const PART_BYTES_MAX: usize = 7_400;

/// One commit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LogEntry {
    pub(crate) sequence: u64,
    pub(crate) recorded_us: i64,
    /// Series that this commit begins.
    pub(crate) new_series: Vec<NewSeries>,
    pub(crate) changes: Vec<SeriesChanges>,
    /// Series to collapse anew with another window: id and microseconds.
    pub(crate) recollapsed: Vec<(u32, i64)>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct NewSeries {
    pub(crate) id: u32,
    pub(crate) pair: String,
    pub(crate) source: String,
    pub(crate) collapse_window_us: i64,
}

/// Values put at instants of one series, in order of time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SeriesChanges {
    pub(crate) series: u32,
    pub(crate) base_us: i64,
    pub(crate) ticks: Vec<LogTick>,
}

/// Microseconds since the tick before (the first: since the base), and the value unless it is that
/// of the tick before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LogTick {
    delta_us: u64,
    value: Option<LogValue>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct LogValue {
    mantissa: u128,
    places: u8,
    change: u64,
}

/// Why the log cannot be replayed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogError {
    #[error("commit {0} of the log is cut off or does not decode")]
    Broken(u64),
    #[error("commit {0} of the log does not follow from the one before it")]
    Unchained(u64),
    #[error("commit {0} of the log was written by a newer format, {1}")]
    Newer(u64, u8),
}

impl SeriesChanges {
    /// From values in order of time.
    pub(crate) fn new(series: u32, ticks: &[(Timestamp, PublishedValue)]) -> Self {
        let base_us = ticks.first().map_or(0, |(time, _)| time.micros());
        let mut before = (base_us, None);
        let encode = |(time, value): &(Timestamp, PublishedValue)| {
            let delta_us = time.micros().wrapping_sub(before.0).cast_unsigned();
            let repeats = before.1 == Some(*value);
            before = (time.micros(), Some(*value));
            LogTick {
                delta_us,
                value: (!repeats).then(|| LogValue {
                    mantissa: value.rate.mantissa(),
                    places: value.rate.places(),
                    change: pack_change(value.reported_change),
                }),
            }
        };
        Self { series, base_us, ticks: ticks.iter().map(encode).collect() }
    }

    /// The values again; `None` if they make no sense.
    pub(crate) fn values(&self) -> Option<Vec<(Timestamp, PublishedValue)>> {
        let mut time_us = self.base_us;
        let mut value: Option<PublishedValue> = None;
        let decode = |tick: &LogTick| {
            time_us = time_us.checked_add_unsigned(tick.delta_us)?;
            if let Some(new) = &tick.value {
                value = Some(PublishedValue {
                    rate: Rate::from_parts(new.mantissa, u32::from(new.places)).ok()?,
                    reported_change: unpack_change(new.change).ok()?,
                });
            }
            Some((Timestamp::from_micros(time_us), value?))
        };
        self.ticks.iter().map(decode).collect()
    }
}

/// The pieces of an entry under their keys, and the checksum that the next entry is chained to.
///
/// The bytes of an entry are: format (1), length of the payload (4, little-endian), payload
/// (postcard), CRC-32C (4, little-endian) of all that is before it, continued from the checksum of
/// the entry before.
pub(crate) fn encode(entry: &LogEntry, chain: u32) -> (Vec<([u8; 11], Vec<u8>)>, u32) {
    let mut bytes = vec![keys::FORMAT, 0, 0, 0, 0];
    bytes = postcard::to_extend(entry, bytes).unwrap_or_default();
    debug_assert!(bytes.len() > 5, "encoding plain structs to memory cannot fail");
    let length = u32::try_from(bytes.len().saturating_sub(5)).unwrap_or(u32::MAX);
    bytes[1..5].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(chain, &bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let parts = (0_u16..)
        .zip(bytes.chunks(PART_BYTES_MAX))
        .map(|(part, piece)| (keys::log(entry.sequence, part), piece.to_vec()))
        .collect();
    (parts, crc)
}

/// An entry from its joined pieces, and its checksum.
pub(crate) fn decode(sequence: u64, bytes: &[u8], chain: u32) -> Result<(LogEntry, u32), LogError> {
    let broken = LogError::Broken(sequence);
    let Some((sealed, crc)) = bytes.split_last_chunk::<4>() else { return Err(broken) };
    let Some((&[format, a, b, c, d], payload)) = sealed.split_first_chunk::<5>() else { return Err(broken) };
    if format > keys::FORMAT {
        return Err(LogError::Newer(sequence, format));
    }
    if u32::from_le_bytes([a, b, c, d]) as usize != payload.len() {
        return Err(broken);
    }
    let crc = u32::from_le_bytes(*crc);
    if crc32c::crc32c_append(chain, sealed) != crc {
        return Err(LogError::Unchained(sequence));
    }
    match postcard::from_bytes::<LogEntry>(payload) {
        Ok(entry) if entry.sequence == sequence => Ok((entry, crc)),
        _ => Err(broken),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::ReportedChange;

    fn entry(values: &[(Timestamp, PublishedValue)]) -> LogEntry {
        LogEntry {
            sequence: 9,
            recorded_us: -5,
            new_series: vec![NewSeries {
                id: 1,
                pair: "KGS/USD".into(),
                source: "timesca".into(),
                collapse_window_us: 3_600_000_000,
            }],
            changes: vec![SeriesChanges::new(1, values)],
            recollapsed: vec![],
        }
    }

    proptest! {
        #[test]
        fn entries_go_there_and_back(raw in proptest::collection::btree_map(any::<i32>(), (1_u128..10_u128.pow(28), any::<bool>()), 0..2_000)) {
            let values: Vec<_> = raw
                .into_iter()
                .map(|(time, (mantissa, changed))| {
                    let reported_change = changed.then(|| ReportedChange::parse("-0").unwrap());
                    let rate = Rate::from_parts(mantissa, 10).unwrap();
                    (Timestamp::from_micros(i64::from(time)), PublishedValue { rate, reported_change })
                })
                .collect();
            let entry = entry(&values);
            let (parts, crc) = encode(&entry, 77);
            prop_assert!(parts.iter().all(|(_, piece)| piece.len() <= PART_BYTES_MAX));
            let bytes: Vec<u8> = parts.into_iter().flat_map(|(_, piece)| piece).collect();
            let (back, back_crc) = decode(9, &bytes, 77).unwrap();
            prop_assert_eq!(back_crc, crc);
            prop_assert_eq!(back.changes[0].values().unwrap(), values);
            prop_assert_eq!(back, entry);
        }
    }

    #[test]
    fn an_entry_stands_in_its_place_only() {
        let (parts, _) = encode(&entry(&[]), 77);
        let bytes = &parts[0].1;
        assert!(decode(9, bytes, 77).is_ok());
        assert_eq!(decode(9, bytes, 78).unwrap_err(), LogError::Unchained(9));
        assert_eq!(decode(8, bytes, 77).unwrap_err(), LogError::Broken(8));
        for cut in 0..bytes.len() {
            assert!(decode(9, &bytes[..cut], 77).is_err(), "cut at {cut}");
        }
        let mut newer = bytes.clone();
        newer[0] += 1;
        assert_eq!(decode(9, &newer, 77).unwrap_err(), LogError::Newer(9, keys::FORMAT + 1));
    }
}
