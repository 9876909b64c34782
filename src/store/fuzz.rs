//! Bodies of the fuzz targets of the store: what it reads from disk.
//!
//! **Invariant**: no body panics for any bytes. Checksums are made for the bytes, because a fuzzer does not find them.

use super::block::{BlockKind, BlockMeta, ColumnMeta, Columns, Item as _, decode_block, decode_rates};
use super::log_entry::LogEntry;
use super::packed_runs::PackedRuns;
use super::quarantine::HeldRecord;
use super::records::{Meta, SeriesRecord};
use super::{keys, log};
use crate::domain::{Revision, Run, Timestamp};

/// The log: the bytes as frames, and the bytes as the payload of an intact frame.
///
/// # Panics
/// Panics if an entry is not the same after it was encoded and decoded.
pub fn log_frames(bytes: &[u8]) {
    let _ = log::replay(bytes, 0, 0);
    if let Ok((frame, _)) = log::frame_of(bytes, 0) {
        let _ = log::replay(&frame, 0, 0);
    }
    // Sequences count from 1.
    if let Some(entry) = LogEntry::decode(bytes).filter(|entry| entry.sequence > 0)
        && let Ok((frame, chain)) = log::encode(&entry, 0)
    {
        let replayed = log::replay(&frame, entry.sequence - 1, 0);
        let same = replayed.is_ok_and(|replay| replay.chain == chain && replay.entries == [entry]);
        assert!(same, "an entry differs after encoding");
    }
}

/// A block of two byte counts for each column, and the columns.
pub fn block(bytes: &[u8]) {
    let Some((&[count, kind], mut rest)) = bytes.split_first_chunk() else { return };
    let mut columns = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (column, after) = after.split_at(usize::from(u16::from_le_bytes(*length)).min(after.len()));
        columns.push(column);
        rest = after;
    }
    let meta = BlockMeta {
        id: 1,
        item_count: u32::from(count),
        first_key_us: 0,
        last_key_us: 0,
        end_us: 0,
        observation_count: 0,
        observed_min_us: 0,
        recorded_min_us: 0,
        recorded_max_us: 0,
        uniform_rate: None,
        columns: columns
            .iter()
            .map(|column| ColumnMeta {
                bytes: u16::try_from(column.len()).unwrap_or(u16::MAX),
                crc: crc32c::crc32c(column),
            })
            .collect(),
    };
    let read = |number: u8| Ok(columns.get(usize::from(number)).map(|column| sled::IVec::from(*column)));
    let decode = |kind, decode: &dyn Fn(&Columns<'_>) -> bool| {
        let _ = decode_block(&meta, kind, &read, |columns| Ok(decode(columns)));
    };
    match kind % 3 {
        0 => {
            decode(BlockKind::Runs, &|columns| Run::decode(columns).is_ok());
            decode(BlockKind::Runs, &|columns| decode_rates(columns).is_ok());
            decode(BlockKind::Runs, &|columns| {
                PackedRuns::decode(columns).is_ok_and(|runs| runs.get(runs.count_up_to(Timestamp::default())).is_some())
            });
        }
        1 => decode(BlockKind::Instants, &|columns| Timestamp::decode(columns).is_ok()),
        _ => decode(BlockKind::Revisions, &|columns| Revision::decode(columns).is_ok()),
    }
}

/// A checksummed value: the bytes as they are, and the bytes as the payload of each record.
///
/// # Panics
/// Panics if a value is not the same after it was sealed and opened.
pub fn sealed_value(bytes: &[u8]) {
    let _ = keys::verify_checksum(&keys::META, bytes);
    let (value, crc) = keys::add_checksum(&keys::META, bytes);
    let payload = keys::verify_checksum(&keys::META, &value);
    assert!(payload.is_ok_and(|payload| payload == (bytes, crc)), "a sealed value differs after sealing");
    let _ = Meta::decode(bytes);
    let _ = postcard::from_bytes::<SeriesRecord>(bytes);
    let _ = postcard::from_bytes::<HeldRecord>(bytes);
    let _ = postcard::from_bytes::<BlockMeta>(bytes);
}

/// Valid inputs: target, name and bytes.
#[cfg(test)]
pub(crate) fn corpus() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use super::block::{EncodedBlock, encode_blocks};
    use super::log_entry::{NewSeries, SeriesChanges};
    use crate::domain::{PublishedValue, Rate};

    let value = |mantissa| PublishedValue { rate: Rate::from_parts(mantissa, 5).unwrap(), reported_change: None };
    let time = |second| Timestamp::from_micros(second * Timestamp::SECOND_US);
    let new = NewSeries { id: 1, pair: "KGS/USD".into(), source: "nbkr".into(), collapse_window_us: Timestamp::DAY_US };
    let changes = SeriesChanges::new(1, &[(time(1), value(1_144)), (time(2), value(1_145))]);
    let entry = LogEntry { new_series: vec![new], changes: vec![changes], ..LogEntry::new(1, 5) };
    let (frame, chain) = log::encode(&entry, 0).unwrap();
    let (second, _) = log::encode(&LogEntry::new(2, 6), chain).unwrap();
    let runs: Vec<Run> = (0..40)
        .map(|at| Run {
            first_observed_time: time(at * 60),
            last_observed_time: time(at * 60 + 30),
            observation_count: 2,
            value: value(1_144 + u128::from(at.unsigned_abs()) % 3),
            recorded_time: time(9_000),
        })
        .collect();
    let bytes = |kind: u8, EncodedBlock { meta, columns }: EncodedBlock| {
        let mut bytes = vec![u8::try_from(meta.item_count).unwrap(), kind];
        for column in columns {
            bytes.extend(u16::try_from(column.len()).unwrap().to_le_bytes());
            bytes.extend(column);
        }
        bytes
    };
    let instants: Vec<Timestamp> = runs.iter().map(|run| run.first_observed_time).collect();
    let revisions: Vec<Revision> =
        runs.iter().map(|run| Revision { run: run.clone(), superseded_time: time(9_999) }).collect();
    let run_block = encode_blocks(&runs, &mut 1).unwrap().remove(0);
    let meta = postcard::to_stdvec(&run_block.meta).unwrap();
    vec![
        ("log_frames", "frames", [frame, second].concat()),
        ("log_frames", "payload", postcard::to_stdvec(&entry).unwrap()),
        ("block", "runs", bytes(0, run_block)),
        ("block", "instants", bytes(1, encode_blocks(&instants, &mut 1).unwrap().remove(0))),
        ("block", "revisions", bytes(2, encode_blocks(&revisions, &mut 1).unwrap().remove(0))),
        ("sealed_value", "index-entry", meta),
        ("sealed_value", "sealed", keys::add_checksum(&keys::META, b"payload").0),
    ]
}
