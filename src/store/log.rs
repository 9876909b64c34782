//! The commit log: a file beside sled that each commit is appended to, and that a checkpoint empties.
//!
//! Why not in sled: entries are written once, read at most once and soon dropped. In sled they made
//! its files half as large again and cost two more calls a commit; an append and one fdatasync is
//! the least that a durable write can cost.
//!
//! File: header of 16 bytes (magic, store id), then frames. Frame: magic (4), format (1), checksum of
//! the frame before (4), length of the payload (4), payload (postcard), CRC-32C of all that is before
//! it in the frame (4). Numbers are little-endian.
//!
//! **Invariants**: a frame is accepted only whole, in its place in the sequence, and chained to the
//! one before. Frames are synced one by one, so that only the last can be torn: a broken frame with a
//! sound one after it is damage.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::keys;
use super::polls::LogPoll;
use super::quarantine::QuarantineChange;
use super::rules::{RulesRecord, decode_with, encode_with};
use super::values::ValueRecord;
use crate::domain::{PublishedValue, Timestamp};

const FILE_MAGIC: &[u8; 8] = b"silklog1";
/// Length of the file's header, as a place in the file and as a size in memory.
pub(crate) const FILE_HEADER_BYTES: u64 = 16;
const FILE_HEADER_SIZE: usize = 16;
const FRAME_MAGIC: [u8; 4] = *b"\xF5rmE";
const FRAME_HEADER_BYTES: usize = 13;
const FRAME_TRAILER_BYTES: usize = 4;

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
    /// Ticks held, and what was decided of held ones, in this order.
    pub(crate) quarantine: Vec<QuarantineChange>,
    /// Polls of sources, in order.
    pub(crate) polls: Vec<LogPoll>,
    /// The rules that states are found by from this commit on; none if they are those of the commit before.
    #[serde(skip)]
    pub(super) rules: Option<RulesRecord>,
}

impl LogEntry {
    /// An entry of nothing yet.
    pub(super) fn new(sequence: u64, recorded_us: i64) -> Self {
        Self {
            sequence,
            recorded_us,
            new_series: Vec::new(),
            changes: Vec::new(),
            recollapsed: Vec::new(),
            quarantine: Vec::new(),
            polls: Vec::new(),
            rules: None,
        }
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let (entry, rules) = decode_with::<Self>(payload)?;
        Some(Self { rules, ..entry })
    }
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
    value: Option<ValueRecord>,
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
            LogTick { delta_us, value: (!repeats).then(|| ValueRecord::new(value)) }
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
                value = Some(new.value()?);
            }
            Some((Timestamp::from_micros(time_us), value?))
        };
        self.ticks.iter().map(decode).collect()
    }
}

/// The log of an open store.
pub(crate) struct Log {
    file: File,
    length: u64,
}

/// A frame as it was found.
struct Frame<'a> {
    format: u8,
    chained_to: u32,
    payload: &'a [u8],
    crc: u32,
    length: usize,
}

/// What a log holds beyond a checkpoint.
pub(crate) struct Replay {
    pub(crate) entries: Vec<LogEntry>,
    /// Checksum of the last of them, or of the checkpoint's.
    pub(crate) chain: u32,
    /// Where the sound frames end.
    pub(crate) end: u64,
}

impl Log {
    /// Makes the log of a new store, durably but for its name.
    pub(crate) fn create(directory: &Path, store_id: u64) -> Result<Self, StoreError> {
        let failed = |error: &io::Error| StoreError::io("cannot create the log", error);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(directory.join("log"))
            .map_err(|error| failed(&error))?;
        let mut header = [0; FILE_HEADER_SIZE];
        header[..8].copy_from_slice(FILE_MAGIC);
        header[8..].copy_from_slice(&store_id.to_le_bytes());
        file.write_all_at(&header, 0).and_then(|()| file.sync_all()).map_err(|error| failed(&error))?;
        Ok(Self { file, length: FILE_HEADER_BYTES })
    }

    /// Opens the log of a store, and reads what it holds after the commit `sequence`, whose checksum
    /// was `chain`. A frame torn by a crash is cut off.
    pub(crate) fn open(
        directory: &Path,
        store_id: u64,
        sequence: u64,
        chain: u32,
    ) -> Result<(Self, Replay), StoreError> {
        let path = directory.join("log");
        let failed = |error: &io::Error| StoreError::io(format!("cannot read {}", path.display()), error);
        let damaged = |problem: String| StoreError::Damaged { path: directory.display().to_string(), problem };
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("its log is missing".to_owned()));
            }
            other => other.map_err(|error| failed(&error))?,
        };
        let Some((header, frames)) = bytes.split_first_chunk::<FILE_HEADER_SIZE>() else {
            return Err(damaged("its log is cut off".to_owned()));
        };
        if !header.starts_with(FILE_MAGIC) || header[8..] != store_id.to_le_bytes() {
            return Err(damaged("its log belongs to another store".to_owned()));
        }
        let replay = replay(frames, sequence, chain).map_err(|problem| match problem {
            LogProblem::Newer(found) => {
                StoreError::NewerFormat { path: directory.display().to_string(), found, supported: keys::FORMAT }
            }
            LogProblem::Damaged(problem) => damaged(problem),
        })?;
        let file = File::options().read(true).write(true).open(&path).map_err(|error| failed(&error))?;
        if replay.end < bytes.len() as u64 {
            tracing::warn!("cutting a torn commit of {} bytes off the log", bytes.len() as u64 - replay.end);
            file.set_len(replay.end).map_err(|error| failed(&error))?;
        }
        // A killed process may have left its last frame unsynced. It is replayed, seen and answered
        // for as known from now on, so it must last.
        file.sync_data().map_err(|error| failed(&error))?;
        Ok((Self { file, length: replay.end }, replay))
    }

    /// Bytes of frames.
    pub(crate) fn bytes(&self) -> u64 {
        self.length - FILE_HEADER_BYTES
    }

    /// Appends a frame, not durable yet.
    pub(crate) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        self.file.write_all_at(frame, self.length)?;
        self.length += frame.len() as u64;
        Ok(())
    }

    /// The file that frames go to.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether that file has a name still.
    pub(crate) fn is_linked(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() > 0)
    }

    /// Makes what was appended durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Drops all frames, which a durable checkpoint contains by now. Not synced: a power cut that
    /// brings them back finds them older than the checkpoint.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(FILE_HEADER_BYTES)?;
        self.length = FILE_HEADER_BYTES;
        Ok(())
    }
}

/// The frame of an entry, and the checksum that the next one is chained to.
///
/// # Errors
/// The entry cannot be encoded, or its length does not fit the header.
pub(crate) fn encode(entry: &LogEntry, chain: u32) -> Result<(Vec<u8>, u32), StoreError> {
    let payload = encode_with(entry, entry.rules.as_ref())?;
    let length = u32::try_from(payload.len()).map_err(|_| StoreError::Io {
        action: "cannot write a commit".to_owned(),
        problem: format!("its {} bytes are more than a frame of the log holds", payload.len()),
        disk_full: false,
    })?;
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + payload.len() + FRAME_TRAILER_BYTES);
    frame.extend_from_slice(&FRAME_MAGIC);
    frame.push(keys::FORMAT);
    frame.extend_from_slice(&chain.to_le_bytes());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&payload);
    let crc = crc32c::crc32c(&frame);
    frame.extend_from_slice(&crc.to_le_bytes());
    Ok((frame, crc))
}

/// Why a log cannot be replayed.
#[derive(Debug, PartialEq, Eq)]
enum LogProblem {
    Newer(u8),
    Damaged(String),
}

/// The frame that begins here, if it is whole and sound.
fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let number = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
    if !header.starts_with(&FRAME_MAGIC) {
        return None;
    }
    let payload_bytes = number(9)? as usize;
    let payload = rest.get(..payload_bytes)?;
    let crc = u32::from_le_bytes(*rest.get(payload_bytes..)?.first_chunk::<FRAME_TRAILER_BYTES>()?);
    let sealed = bytes.get(..FRAME_HEADER_BYTES + payload_bytes)?;
    (crc32c::crc32c(sealed) == crc).then_some(Frame {
        format: header[4],
        chained_to: number(5)?,
        payload,
        crc,
        length: FRAME_HEADER_BYTES + payload_bytes + FRAME_TRAILER_BYTES,
    })
}

fn replay(frames: &[u8], mut sequence: u64, mut chain: u32) -> Result<Replay, LogProblem> {
    let mut entries = Vec::new();
    let mut at = 0;
    while let Some(found) = frame(&frames[at..]) {
        if found.format > keys::FORMAT {
            return Err(LogProblem::Newer(found.format));
        }
        let entry = LogEntry::decode(found.payload)
            .ok_or_else(|| LogProblem::Damaged(format!("the commit after {sequence} in its log does not decode")))?;
        at += found.length;
        if entry.sequence <= sequence && entries.is_empty() {
            // The checkpoint contains it: the log was not cleared before the power went.
            continue;
        }
        if entry.sequence != sequence + 1 || found.chained_to != chain {
            return Err(LogProblem::Damaged(format!(
                "commit {} in its log does not follow from commit {sequence}",
                entry.sequence
            )));
        }
        sequence = entry.sequence;
        chain = found.crc;
        entries.push(entry);
    }
    if newer_frame_follows(&frames[at..], sequence) {
        return Err(LogProblem::Damaged(format!(
            "the commit after {sequence} in its log is broken, and others follow"
        )));
    }
    Ok(Replay { entries, chain, end: FILE_HEADER_BYTES + at as u64 })
}

/// Whether a sound frame of a commit after `sequence` lies anywhere in these bytes.
fn newer_frame_follows(bytes: &[u8], sequence: u64) -> bool {
    (1..bytes.len())
        .filter(|at| bytes[*at..].starts_with(&FRAME_MAGIC))
        .filter_map(|at| frame(&bytes[at..]))
        .filter_map(|found| LogEntry::decode(found.payload))
        .any(|entry| entry.sequence > sequence)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Rate, ReportedChange};

    fn entry(sequence: u64, values: &[(Timestamp, PublishedValue)]) -> LogEntry {
        LogEntry {
            new_series: vec![NewSeries {
                id: 1,
                pair: "KGS/USD".into(),
                source: "timesca".into(),
                collapse_window_us: 3_600_000_000,
            }],
            changes: vec![SeriesChanges::new(1, values)],
            ..LogEntry::new(sequence, -5)
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
            let entry = entry(9, &values);
            let (bytes, crc) = encode(&entry, 77).unwrap();
            let back = replay(&bytes, 8, 77).unwrap();
            prop_assert_eq!(back.chain, crc);
            prop_assert_eq!(back.end, FILE_HEADER_BYTES + bytes.len() as u64);
            prop_assert_eq!(back.entries[0].changes[0].values().unwrap(), values);
            prop_assert_eq!(back.entries, vec![entry]);
        }
    }

    /// Frames of the commits 9, 10 and 11, the first chained to 77, and where each ends.
    fn three() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends, mut chain) = (Vec::new(), Vec::new(), 77);
        for sequence in 9..12 {
            let (frame, crc) = encode(&entry(sequence, &[]), chain).unwrap();
            bytes.extend_from_slice(&frame);
            ends.push(bytes.len());
            chain = crc;
        }
        (bytes, ends)
    }

    fn sequences(bytes: &[u8], sequence: u64, chain: u32) -> Result<Vec<u64>, LogProblem> {
        Ok(replay(bytes, sequence, chain)?.entries.iter().map(|entry| entry.sequence).collect())
    }

    #[test]
    fn a_commit_stands_in_its_place_only() {
        let (bytes, ends) = three();
        assert_eq!(sequences(&bytes, 8, 77).unwrap(), [9, 10, 11]);
        assert!(sequences(&bytes, 8, 78).is_err(), "another chain");
        assert!(sequences(&bytes, 7, 77).is_err(), "one is missing before");
        let without_the_second = [&bytes[..ends[0]], &bytes[ends[1]..]].concat();
        assert!(sequences(&without_the_second, 8, 77).is_err(), "one is missing between");
    }

    #[test]
    fn what_the_checkpoint_contains_is_passed_over() {
        let (bytes, ends) = three();
        let chain_of_ten = frame(&bytes[ends[0]..]).unwrap().crc;
        assert_eq!(sequences(&bytes, 10, chain_of_ten).unwrap(), [11]);
        assert_eq!(sequences(&bytes, 12, 5).unwrap(), Vec::<u64>::new());
    }

    #[test]
    fn only_the_last_commit_can_be_torn() {
        let (bytes, ends) = three();
        for cut in 0..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count() as u64;
            assert_eq!(sequences(&bytes[..cut], 8, 77).unwrap(), (9..9 + whole).collect::<Vec<_>>(), "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match sequences(&flipped, 8, 77) {
                Ok(left) => assert!(bit / 8 >= ends[1] && left == [9, 10], "bit {bit}: {left:?}"),
                Err(_) => assert!(bit / 8 < ends[1], "bit {bit}"),
            }
        }
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let (mut bytes, ends) = three();
        bytes[4] += 1;
        let end = ends[0] - FRAME_TRAILER_BYTES;
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..ends[0]].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(sequences(&bytes, 8, 77), Err(LogProblem::Newer(keys::FORMAT + 1)));
    }
}
