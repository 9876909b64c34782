//! Frames of the commit log outside the log: kept in memory until a backup writes them, and read back for a restore.
//!
//! **Invariants**: frames are kept in the order of their commits, without a gap. A frame is accepted only if it matches its
//! checksum and follows the frame before it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::record_set::RecordsError;
use crate::domain::Timestamp;
use crate::store::log::{self, FrameProblem};
use crate::store::view::Commit;

/// The frame of one commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogFrame {
    /// The commit.
    pub commit: Commit,
    /// The frame as in the log.
    pub bytes: Vec<u8>,
}

/// The frames of the newest commits, up to a size. The writer adds frames, and the schedule of backups takes them.
pub struct FrameTail {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    frames: VecDeque<LogFrame>,
    bytes: usize,
    /// The newest commit whose frame was dropped because of the size.
    lost: u64,
}

/// The frames after a commit.
#[derive(PartialEq, Eq, Debug)]
pub enum TailFrames {
    /// The frames of all commits after it, oldest first; empty if there is no such commit.
    All(Vec<LogFrame>),
    /// The frame of the next commit is not kept: a backup must precede further frames.
    Gap,
}

impl FrameTail {
    /// Creates a tail that keeps at most `bytes_max` bytes of frames.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the frame of a commit. If the frames exceed the maximum size, all are dropped: the next backup contains their
    /// commits.
    pub(in crate::store) fn push(&self, frame: LogFrame) {
        let mut kept = self.kept();
        kept.bytes += frame.bytes.len();
        kept.frames.push_back(frame);
        if kept.bytes > self.bytes_max {
            kept.lost = kept.frames.back().map_or(kept.lost, |frame| frame.commit.sequence);
            kept.frames.clear();
            kept.bytes = 0;
        }
    }

    /// Returns the frames of the commits after `sequence`, and drops the frames of the commits up to it.
    pub fn after(&self, sequence: u64) -> TailFrames {
        let mut kept = self.kept();
        while kept.frames.front().is_some_and(|frame| frame.commit.sequence <= sequence) {
            if let Some(frame) = kept.frames.pop_front() {
                kept.bytes -= frame.bytes.len();
            }
        }
        let first = kept.frames.front().map(|frame| frame.commit.sequence);
        if kept.lost > sequence || first.is_some_and(|first| first != sequence + 1) {
            return TailFrames::Gap;
        }
        TailFrames::All(kept.frames.iter().cloned().collect())
    }

    /// Returns true if frames were dropped that no backup up to the commit `sequence` contains.
    pub fn has_gap_after(&self, sequence: u64) -> bool {
        self.kept().lost > sequence
    }
}

/// Consecutive frames that were read back.
#[derive(Clone, Debug, Default)]
pub struct LogFrames {
    frames: Vec<(Commit, usize)>,
    bytes: Vec<u8>,
    chain: u32,
}

impl LogFrames {
    /// Starts a list of the frames after a commit, whose frame has the checksum `chain`.
    pub fn after(chain: u32) -> Self {
        Self { frames: Vec::new(), bytes: Vec::new(), chain }
    }

    /// Appends frames. Frames of commits up to `newest` are skipped, where `newest` is the commit before the next frame.
    ///
    /// # Errors
    /// `Value` if the bytes are not complete frames that follow each other; `NewerFormat` if a newer version wrote one.
    pub fn append(&mut self, bytes: &[u8], newest: u64) -> Result<(), RecordsError> {
        const WHAT: &str = "a frame of the log";
        let mut newest = self.frames.last().map_or(newest, |(commit, _)| commit.sequence);
        let mut rest = bytes;
        while !rest.is_empty() {
            let frame = log::read_frame(rest).map_err(|problem| match problem {
                FrameProblem::NewerFormat(found) => RecordsError::NewerFormat { what: WHAT, found },
                FrameProblem::Damaged => RecordsError::Value { what: WHAT, problem: "does not match its checksum" },
            })?;
            let (bytes, after) = rest.split_at(frame.length);
            rest = after;
            if frame.sequence <= newest {
                continue;
            }
            if frame.sequence != newest + 1 || frame.previous_crc != self.chain {
                return Err(RecordsError::Value { what: WHAT, problem: "does not follow the commit before it" });
            }
            newest = frame.sequence;
            self.chain = frame.crc;
            self.bytes.extend_from_slice(bytes);
            let recorded_time = Timestamp::from_micros(frame.recorded_us);
            self.frames.push((Commit { sequence: newest, recorded_time }, self.bytes.len()));
        }
        Ok(())
    }

    /// Checks that bytes are complete frames that follow each other.
    ///
    /// # Errors
    /// As [`LogFrames::append`].
    pub fn check(bytes: &[u8]) -> Result<(), RecordsError> {
        let Ok(first) = log::read_frame(bytes) else { return Self::default().append(bytes, 0) };
        Self::after(first.previous_crc).append(bytes, first.sequence.saturating_sub(1))
    }

    /// Removes the frames of all commits for which `is_wanted` is false, from the first such commit on.
    pub fn keep_while(&mut self, is_wanted: impl Fn(Commit) -> bool) {
        let count = self.frames.iter().take_while(|(commit, _)| is_wanted(*commit)).count();
        self.frames.truncate(count);
        self.bytes.truncate(self.frames.last().map_or(0, |(_, end)| *end));
    }

    /// The newest commit; `None` if there is no frame.
    pub fn newest(&self) -> Option<Commit> {
        self.frames.last().map(|(commit, _)| *commit)
    }

    /// The number of commits.
    pub fn count(&self) -> usize {
        self.frames.len()
    }

    /// The frames, as in the log.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u64, bytes: usize) -> LogFrame {
        LogFrame { commit: Commit { sequence, recorded_time: Timestamp::default() }, bytes: vec![0; bytes] }
    }

    fn sequences(tail: &FrameTail, after: u64) -> Option<Vec<u64>> {
        match tail.after(after) {
            TailFrames::All(frames) => Some(frames.iter().map(|frame| frame.commit.sequence).collect()),
            TailFrames::Gap => None,
        }
    }

    #[test]
    fn tail_returns_all_frames_after_a_commit_or_reports_a_gap() {
        let tail = FrameTail::new(100);
        assert_eq!(sequences(&tail, 4), Some(vec![]));
        for sequence in 5..8 {
            tail.push(frame(sequence, 10));
        }
        assert_eq!(sequences(&tail, 3), None, "commit 4 is not kept");
        assert_eq!(sequences(&tail, 4), Some(vec![5, 6, 7]));
        assert_eq!(sequences(&tail, 5), Some(vec![6, 7]));
        assert_eq!(sequences(&tail, 4), None, "commit 5 was dropped");
        assert_eq!(sequences(&tail, 9), Some(vec![]));
    }

    #[test]
    fn tail_drops_all_frames_beyond_its_size_until_a_backup_contains_them() {
        let tail = FrameTail::new(100);
        for sequence in 1..6 {
            tail.push(frame(sequence, 30));
        }
        assert!(tail.has_gap_after(3) && !tail.has_gap_after(4));
        assert_eq!(sequences(&tail, 3), None);
        assert_eq!(sequences(&tail, 4), Some(vec![5]));
    }
}
