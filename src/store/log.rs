//! The commit log: a file beside sled. Each commit appends a frame; after a checkpoint, the next commits overwrite the
//! frames from the beginning.
//!
//! The log is not in sled, because its entries are written once, read at most once, and soon dropped. In sled, they
//! made the files 50 % larger and cost two more system calls per commit. One append and one fdatasync are the minimum
//! for a durable write. The space of the file is reused and grows in steps, because a sync after a write into existing
//! space is several times faster than a sync after a write that makes the file longer.
//!
//! File: a header of 16 bytes (magic, store id), then frames. Frame, sizes in bytes: magic (4), format (1), checksum of
//! the previous frame (4), payload length (4), payload (postcard), CRC-32C of all preceding bytes of the frame (4).
//! Numbers are little-endian.
//!
//! **Invariants**:
//!
//! - A frame is accepted only if it is complete, has the next sequence and contains the previous frame's checksum.
//! - Each frame is synced before the next one is written, so only the last frame can be torn. An invalid frame followed
//!   by a valid frame of a later commit is damage.
//! - Frames after the last one are of commits that a checkpoint contains, or torn. Their sequences are not greater than
//!   that of the last frame.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use super::error::StoreError;
use super::keys;
use super::log_entry::LogEntry;
use super::rules::encode_with_rules;

const FILE_MAGIC: &[u8; 8] = b"silklog1";
/// Length of the file's header: the offset of the first frame.
pub(crate) const FILE_HEADER_BYTES: u64 = 16;
/// Same length as `FILE_HEADER_BYTES`, for arrays in memory.
const FILE_HEADER_SIZE: usize = 16;
const FRAME_MAGIC: [u8; 4] = *b"\xF5rmE";
const FRAME_HEADER_BYTES: usize = 13;
const FRAME_TRAILER_BYTES: usize = 4;

/// Step in which the file grows.
const GROWTH_BYTES: u64 = 256 << 10;
/// Maximum size of the file that is kept after a checkpoint. A checkpoint is due at half of it.
const KEPT_BYTES_MAX: u64 = 8 << 20;

/// The log of an open store.
pub(crate) struct Log {
    file: File,
    /// Offset of the end of the last frame.
    length: u64,
    /// Size of the file. The bytes after `length` are zeros or old frames.
    size: u64,
}

/// A valid frame that was read from the log.
struct Frame<'a> {
    format: u8,
    /// Checksum of the previous frame.
    previous_crc: u32,
    payload: &'a [u8],
    crc: u32,
    length: usize,
}

/// The log entries that follow the last checkpoint.
pub(crate) struct Replay {
    pub(crate) entries: Vec<LogEntry>,
    /// Checksum of the frame of the last entry, or the checksum that the checkpoint recorded if there are no entries.
    pub(crate) chain: u32,
    /// File offset of the end of the last valid frame after the checkpoint.
    end: u64,
    /// Sequence of the last entry, or of the checkpoint.
    sequence: u64,
    /// Whether the beginning of a frame of the next commit follows.
    is_torn: bool,
}

impl Log {
    /// Creates the log of a new store. The file's content is durable on return, but its directory entry may not be.
    pub(crate) fn create(directory: &Path, store_id: u64) -> Result<Self, StoreError> {
        Self::create_with(directory, store_id, &[])
    }

    /// Creates a log that contains these frames.
    pub(crate) fn create_with(directory: &Path, store_id: u64, frames: &[u8]) -> Result<Self, StoreError> {
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
        file.write_all_at(&header, 0)
            .and_then(|()| file.write_all_at(frames, FILE_HEADER_BYTES))
            .and_then(|()| file.sync_all())
            .map_err(|error| failed(&error))?;
        let length = FILE_HEADER_BYTES + frames.len() as u64;
        Ok(Self { file, length, size: length })
    }

    /// Opens the log of a store and reads the commits after the commit `sequence`, which has a frame with the checksum
    /// `chain`. The next commit overwrites a torn frame at the end.
    ///
    /// # Errors
    /// `Damaged` if the log is missing, belongs to another store, or has an invalid frame before a later commit;
    /// `NewerFormat` if a newer version wrote a frame; `Io` if the file cannot be read or written.
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
            return Err(damaged("its log is truncated".to_owned()));
        };
        if !header.starts_with(FILE_MAGIC) || header[8..] != store_id.to_le_bytes() {
            return Err(damaged("its log belongs to another store".to_owned()));
        }
        let replay = replay(frames, sequence, chain).map_err(|problem| match problem {
            LogProblem::NewerFormat(found) => {
                StoreError::NewerFormat { path: directory.display().to_string(), found, supported: keys::FORMAT }
            }
            LogProblem::Damaged(problem) => damaged(problem),
        })?;
        let file = File::options().read(true).write(true).open(&path).map_err(|error| failed(&error))?;
        if replay.is_torn {
            tracing::warn!("dropping the torn commit after sequence {} from the log", replay.sequence);
        }
        // A killed process may have left its last frame unsynced. The frame must be durable, because its commit is
        // replayed and then visible to readers and clients.
        file.sync_data().map_err(|error| failed(&error))?;
        Ok((Self { file, length: replay.end, size: bytes.len() as u64 }, replay))
    }

    /// Total size of the frames, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.length - FILE_HEADER_BYTES
    }

    /// Appends a frame. The frame is durable only after [`Log::sync`].
    pub(crate) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        let end = self.length + frame.len() as u64;
        if end > self.size {
            self.grow(end);
        }
        self.file.write_all_at(frame, self.length)?;
        self.length = end;
        self.size = self.size.max(end);
        Ok(())
    }

    /// Writes zeros to the file, up to the next step after `end`. A failure is ignored: if the disk has no room, the
    /// write of the frame fails, too, or needs no more room.
    fn grow(&mut self, end: u64) {
        let size = end.next_multiple_of(GROWTH_BYTES);
        let zeros = vec![0; usize::try_from(size - self.size).unwrap_or_default()];
        if self.file.write_all_at(&zeros, self.size).is_ok() {
            self.size = size;
        }
    }

    /// The open file of the log.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Returns true if the open file still has a name. A deleted file has no name.
    pub(crate) fn is_linked(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() > 0)
    }

    /// Makes all appended frames durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Makes the next frame the first one of the log. A durable checkpoint must contain the commits of all frames. Their
    /// bytes stay until other frames overwrite them: the next start skips them, because the checkpoint contains their
    /// commits. A file that has grown large is cut; the cut is not synced.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        if self.size > KEPT_BYTES_MAX {
            self.file.set_len(KEPT_BYTES_MAX)?;
            self.size = KEPT_BYTES_MAX;
        }
        self.length = FILE_HEADER_BYTES;
        Ok(())
    }
}

/// Encodes an entry as a frame. `chain` is the checksum of the previous frame. Returns the frame and its checksum.
///
/// # Errors
/// Returns `Io` if the entry cannot be encoded, or if its length exceeds `u32::MAX`.
pub(crate) fn encode(entry: &LogEntry, chain: u32) -> Result<(Vec<u8>, u32), StoreError> {
    let mut payload = encode_with_rules(entry, entry.rules.as_ref())?;
    if !entry.archive.is_empty() {
        payload.extend(keys::encode(&entry.archive)?);
    }
    frame_of(&payload, chain)
}

/// Makes the frame of a payload. Returns the frame and its checksum.
pub(super) fn frame_of(payload: &[u8], chain: u32) -> Result<(Vec<u8>, u32), StoreError> {
    let length = u32::try_from(payload.len()).map_err(|_| StoreError::Io {
        action: "cannot write a commit".to_owned(),
        problem: format!("its {} bytes exceed the largest frame of the log", payload.len()),
        disk_full: false,
    })?;
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + payload.len() + FRAME_TRAILER_BYTES);
    frame.extend_from_slice(&FRAME_MAGIC);
    frame.push(keys::FORMAT);
    frame.extend_from_slice(&chain.to_le_bytes());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(payload);
    let crc = crc32c::crc32c(&frame);
    frame.extend_from_slice(&crc.to_le_bytes());
    Ok((frame, crc))
}

/// Why a log cannot be replayed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LogProblem {
    NewerFormat(u8),
    Damaged(String),
}

/// Reads the frame at the start of `bytes`. Returns `None` if the frame is incomplete or does not match its checksum.
fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let number = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
    if !header.starts_with(&FRAME_MAGIC) {
        return None;
    }
    let payload_bytes = number(9)? as usize;
    let payload = rest.get(..payload_bytes)?;
    let crc = u32::from_le_bytes(*rest.get(payload_bytes..)?.first_chunk::<FRAME_TRAILER_BYTES>()?);
    let checked = bytes.get(..FRAME_HEADER_BYTES + payload_bytes)?;
    (crc32c::crc32c(checked) == crc).then_some(Frame {
        format: header[4],
        previous_crc: number(5)?,
        payload,
        crc,
        length: FRAME_HEADER_BYTES + payload_bytes + FRAME_TRAILER_BYTES,
    })
}

/// A frame outside the log: its commit, its checksums and its length.
pub(super) struct FrameHead {
    pub(super) sequence: u64,
    pub(super) recorded_us: i64,
    pub(super) previous_crc: u32,
    pub(super) crc: u32,
    pub(super) length: usize,
}

/// Why bytes do not begin with a frame.
pub(super) enum FrameProblem {
    NewerFormat(u8),
    Damaged,
}

/// Reads the frame at the start of `bytes`.
pub(super) fn read_frame(bytes: &[u8]) -> Result<FrameHead, FrameProblem> {
    let Frame { format, previous_crc, payload, crc, length } = frame(bytes).ok_or(FrameProblem::Damaged)?;
    if format > keys::FORMAT {
        return Err(FrameProblem::NewerFormat(format));
    }
    let LogEntry { sequence, recorded_us, .. } = LogEntry::decode(payload).ok_or(FrameProblem::Damaged)?;
    Ok(FrameHead { sequence, recorded_us, previous_crc, crc, length })
}

/// Reads the commits after the commit `sequence`, which has a frame with the checksum `chain`.
pub(super) fn replay(frames: &[u8], mut sequence: u64, mut chain: u32) -> Result<Replay, LogProblem> {
    let mut entries = Vec::new();
    let (mut at, mut end) = (0, 0);
    while let Some(found) = frame(&frames[at..]) {
        if found.format > keys::FORMAT {
            return Err(LogProblem::NewerFormat(found.format));
        }
        let entry = LogEntry::decode(found.payload)
            .ok_or_else(|| LogProblem::Damaged(format!("the commit after {sequence} in its log cannot be decoded")))?;
        if entry.sequence <= sequence {
            // The checkpoint contains this commit. Before the first commit after the checkpoint, no frame has been
            // overwritten yet, and the next commit begins at the first frame.
            if entries.is_empty() {
                at += found.length;
                continue;
            }
            break;
        }
        at += found.length;
        end = at;
        if entry.sequence != sequence + 1 || found.previous_crc != chain {
            return Err(LogProblem::Damaged(format!(
                "commit {} in its log does not follow commit {sequence}",
                entry.sequence
            )));
        }
        sequence = entry.sequence;
        chain = found.crc;
        entries.push(entry);
    }
    let rest = &frames[end..];
    if newer_frame_follows(rest, sequence) {
        return Err(LogProblem::Damaged(format!(
            "the commit after {sequence} in its log is invalid, but later commits follow"
        )));
    }
    let is_torn =
        rest.starts_with(&FRAME_MAGIC) && rest.get(5..9) == Some(&chain.to_le_bytes()) && frame(rest).is_none();
    Ok(Replay { entries, chain, end: FILE_HEADER_BYTES + end as u64, sequence, is_torn })
}

/// Returns true if these bytes contain a valid frame of a commit after `sequence`, at any offset greater than zero.
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
    use crate::domain::{PublishedValue, Rate, ReportedChange, Timestamp};
    use crate::store::log_entry::{NewSeries, SeriesChanges};

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
        fn entries_round_trip(raw in proptest::collection::btree_map(any::<i32>(), (1_u128..10_u128.pow(28), any::<bool>()), 0..2_000)) {
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
            let decoded = replay(&bytes, 8, 77).unwrap();
            prop_assert_eq!(decoded.chain, crc);
            prop_assert_eq!(decoded.end, FILE_HEADER_BYTES + bytes.len() as u64);
            prop_assert_eq!(decoded.entries[0].changes[0].values().unwrap(), values);
            prop_assert_eq!(decoded.entries, vec![entry]);
        }
    }

    /// Returns the frames of commits 9, 10 and 11, and their end offsets. The first frame contains 77 as the checksum
    /// of the previous frame.
    fn three_frames() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends, mut chain) = (Vec::new(), Vec::new(), 77);
        for sequence in 9..12 {
            let (frame, crc) = encode(&entry(sequence, &[]), chain).unwrap();
            bytes.extend_from_slice(&frame);
            ends.push(bytes.len());
            chain = crc;
        }
        (bytes, ends)
    }

    /// Returns the sequences of the replayed commits.
    fn sequences(bytes: &[u8], sequence: u64, chain: u32) -> Result<Vec<u64>, LogProblem> {
        Ok(replay(bytes, sequence, chain)?.entries.iter().map(|entry| entry.sequence).collect())
    }

    #[test]
    fn commit_is_accepted_only_after_its_predecessor() {
        let (bytes, ends) = three_frames();
        assert_eq!(sequences(&bytes, 8, 77).unwrap(), [9, 10, 11]);
        assert!(sequences(&bytes, 8, 78).is_err(), "different previous checksum");
        assert!(sequences(&bytes, 7, 77).is_err(), "missing commit before the first frame");
        let without_the_second = [&bytes[..ends[0]], &bytes[ends[1]..]].concat();
        assert!(sequences(&without_the_second, 8, 77).is_err(), "missing commit between two frames");
    }

    #[test]
    fn replay_skips_commits_of_the_checkpoint() {
        let (bytes, ends) = three_frames();
        let chain_of_ten = frame(&bytes[ends[0]..]).unwrap().crc;
        assert_eq!(sequences(&bytes, 10, chain_of_ten).unwrap(), [11]);
        assert_eq!(sequences(&bytes, 12, 5).unwrap(), Vec::<u64>::new());
    }

    #[test]
    fn torn_last_frame_is_dropped_and_earlier_damage_is_an_error() {
        let (bytes, ends) = three_frames();
        for cut in 0..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count() as u64;
            assert_eq!(sequences(&bytes[..cut], 8, 77).unwrap(), (9..9 + whole).collect::<Vec<_>>(), "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match sequences(&flipped, 8, 77) {
                Ok(found) => assert!(bit / 8 >= ends[1] && found == [9, 10], "bit {bit}: {found:?}"),
                Err(_) => assert!(bit / 8 < ends[1], "bit {bit}"),
            }
        }
    }

    #[test]
    fn newer_format_is_distinguished_from_damage() {
        let (mut bytes, ends) = three_frames();
        bytes[4] += 1;
        let end = ends[0] - FRAME_TRAILER_BYTES;
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..ends[0]].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(sequences(&bytes, 8, 77), Err(LogProblem::NewerFormat(keys::FORMAT + 1)));
    }
}
