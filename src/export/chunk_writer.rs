//! From written bytes to the messages of the stream: chunks, and the checksum of a part.
//!
//! **Invariant**: a part's chunks, put one after the other, are what was written, and its end comes after all of them.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prost::bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::proto::v1;
use crate::proto::v1::export_snapshot_response::Message;

/// Most bytes of a chunk.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// Rows after which a chunk goes though it is not full: rows that are much alike take next to no bytes, and whoever
/// waits for them is to see that they come.
const CHUNK_ROWS_MAX: u64 = 256 * 1024;

/// Whoever takes the messages wants no more of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceiverGone;

/// Takes one message of the stream.
pub(super) type HandOver<'a> = dyn FnMut(v1::ExportSnapshotResponse) -> Result<(), ReceiverGone> + Send + 'a;

/// Takes the bytes of one part.
pub(super) struct ChunkWriter<'a> {
    hand_over: &'a mut HandOver<'a>,
    part: String,
    chunk: Vec<u8>,
    hash: Sha256,
    row_count: Arc<AtomicU64>,
    /// How many rows the last chunk told of.
    told_rows: u64,
    unwanted: bool,
}

impl<'a> ChunkWriter<'a> {
    pub(super) fn new(hand_over: &'a mut HandOver<'a>, part: String) -> Self {
        let chunk = Vec::with_capacity(CHUNK_BYTES_MAX);
        Self { hand_over, part, chunk, hash: Sha256::new(), row_count: Arc::default(), told_rows: 0, unwanted: false }
    }

    /// Counts the rows of the part, for whoever encodes them: this itself is inside the format's writer by then.
    pub(super) fn row_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.row_count)
    }

    fn rows(&self) -> u64 {
        // Counted on the thread that asks.
        self.row_count.load(Ordering::Relaxed)
    }

    /// Whether a write failed because nobody wants the bytes.
    pub(super) fn is_unwanted(&self) -> bool {
        self.unwanted
    }

    fn send_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.hash.update(&self.chunk);
        self.told_rows = self.rows();
        let data = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES_MAX));
        let message = v1::ExportChunk { part: self.part.clone(), data: Bytes::from(data), row_count: self.rows() };
        (self.hand_over)(response(Message::Chunk(message))).map_err(|ReceiverGone| {
            self.unwanted = true;
            io::ErrorKind::BrokenPipe.into()
        })
    }

    /// Sends what is left and the part's end; gives its rows.
    pub(super) fn end(mut self) -> Result<u64, ReceiverGone> {
        self.send_chunk().map_err(|_| ReceiverGone)?;
        let row_count = self.rows();
        let sha256 = self.hash.finalize().to_vec();
        let end = v1::ExportPartEnd { part: self.part, row_count, sha256 };
        (self.hand_over)(response(Message::PartEnd(end)))?;
        Ok(row_count)
    }
}

pub(super) fn response(message: Message) -> v1::ExportSnapshotResponse {
    v1::ExportSnapshotResponse { message: Some(message) }
}

impl Write for ChunkWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.len() == CHUNK_BYTES_MAX || self.rows() - self.told_rows >= CHUNK_ROWS_MAX {
            self.send_chunk()?;
        }
        let fits = bytes.len().min(CHUNK_BYTES_MAX - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..fits]);
        Ok(fits)
    }

    /// Encoders flush at every turn; a chunk goes when it is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_full_but_the_last_and_make_up_the_part() {
        let check = |writes: &[usize], expect: &[usize]| {
            let (mut sizes, mut joined, mut ends) = (Vec::new(), Vec::new(), Vec::new());
            let mut hand_over = |response: v1::ExportSnapshotResponse| {
                match response.message.unwrap() {
                    Message::Chunk(chunk) => {
                        sizes.push(chunk.data.len());
                        joined.extend_from_slice(&chunk.data);
                    }
                    Message::PartEnd(end) => ends.push(end),
                    other @ (Message::Manifest(_) | Message::End(_)) => panic!("{other:?}"),
                }
                Ok(())
            };
            let mut writer = ChunkWriter::new(&mut hand_over, "p".to_owned());
            let mut written = Vec::new();
            for (fill, len) in (0_u8..).zip(writes) {
                writer.write_all(&vec![fill; *len]).unwrap();
                written.extend(vec![fill; *len]);
            }
            writer.row_counter().fetch_add(7, Ordering::Relaxed);
            assert_eq!(writer.end(), Ok(7));
            assert_eq!(sizes, expect);
            assert!(joined == written);
            assert_eq!(ends.len(), 1);
            assert_eq!(ends[0].sha256.as_ref() as &[u8], Sha256::digest(&written).as_slice());
        };
        let full = CHUNK_BYTES_MAX;
        check(&[], &[]);
        check(&[1], &[1]);
        check(&[full], &[full]);
        check(&[full, 1], &[full, 1]);
        check(&[1, full, 2 * full, 5], &[full, full, full, 6]);
    }

    #[test]
    fn rows_that_take_no_bytes_are_told_of() {
        let mut told = Vec::new();
        let mut hand_over = |response: v1::ExportSnapshotResponse| {
            if let Some(Message::Chunk(chunk)) = response.message {
                told.push((chunk.data.len(), chunk.row_count));
            }
            Ok(())
        };
        let mut writer = ChunkWriter::new(&mut hand_over, "p".to_owned());
        let rows = writer.row_counter();
        for _ in 0..6 {
            rows.fetch_add(CHUNK_ROWS_MAX / 2, Ordering::Relaxed);
            writer.write_all(&[0; 10]).unwrap();
        }
        writer.end().unwrap();
        let half = CHUNK_ROWS_MAX / 2;
        assert_eq!(told, [(10, 2 * half), (20, 4 * half), (20, 6 * half), (10, 6 * half)]);
    }

    #[test]
    fn bytes_that_nobody_wants_stop_the_writer() {
        let mut hand_over = |_| Err(ReceiverGone);
        let mut writer = ChunkWriter::new(&mut hand_over, "p".to_owned());
        assert!(writer.write_all(&vec![0; CHUNK_BYTES_MAX]).is_ok());
        assert!(writer.write_all(&[0]).is_err());
        assert!(writer.is_unwanted());
    }
}
