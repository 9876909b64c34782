//! Splits the bytes of a part into chunk messages and computes the checksum of the part.
//!
//! **Invariant**: the concatenated chunks of a part are exactly the bytes written, and the part's end message follows
//! the last chunk.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prost::bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::proto::v1;
use crate::proto::v1::export_snapshot_response::Message;

/// Maximum number of bytes in a chunk.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// Maximum number of rows between two chunks. A chunk is sent after this many rows even if it is not full: very similar
/// rows compress to few bytes, and the client must still see progress.
const CHUNK_ROWS_MAX: u64 = 256 * 1024;

/// The receiver of the messages has disconnected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceiverGone;

/// Sends one message of the stream.
pub(super) type SendMessage<'a> = dyn FnMut(v1::ExportSnapshotResponse) -> Result<(), ReceiverGone> + Send + 'a;

/// Writer for the bytes of one part.
pub(super) struct ChunkWriter<'a> {
    send: &'a mut SendMessage<'a>,
    part: String,
    chunk: Vec<u8>,
    hash: Sha256,
    row_count: Arc<AtomicU64>,
    /// Row count that the last chunk reported.
    reported_rows: u64,
    is_receiver_gone: bool,
}

impl<'a> ChunkWriter<'a> {
    pub(super) fn new(send: &'a mut SendMessage<'a>, part: String) -> Self {
        let chunk = Vec::with_capacity(CHUNK_BYTES_MAX);
        let (hash, row_count) = (Sha256::new(), Arc::default());
        Self { send, part, chunk, hash, row_count, reported_rows: 0, is_receiver_gone: false }
    }

    /// Returns the counter of the part's rows, which the encoder increments. The encoder cannot call this
    /// `ChunkWriter`, because the Parquet, Arrow or CSV writer borrows the `ChunkWriter`.
    pub(super) fn row_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.row_count)
    }

    fn rows(&self) -> u64 {
        // Relaxed: one thread increments and reads the counter.
        self.row_count.load(Ordering::Relaxed)
    }

    /// Returns true if a write failed because the receiver has disconnected.
    pub(super) fn is_receiver_gone(&self) -> bool {
        self.is_receiver_gone
    }

    fn send_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.hash.update(&self.chunk);
        self.reported_rows = self.rows();
        let data = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES_MAX));
        let message = v1::ExportChunk { part: self.part.clone(), data: Bytes::from(data), row_count: self.rows() };
        (self.send)(response(Message::Chunk(message))).map_err(|ReceiverGone| {
            self.is_receiver_gone = true;
            io::ErrorKind::BrokenPipe.into()
        })
    }

    /// Sends the remaining bytes and the part's end message. Returns the number of rows in the part.
    pub(super) fn end(mut self) -> Result<u64, ReceiverGone> {
        self.send_chunk().map_err(|_| ReceiverGone)?;
        let row_count = self.rows();
        let sha256 = self.hash.finalize().to_vec();
        let end = v1::ExportPartEnd { part: self.part, row_count, sha256 };
        (self.send)(response(Message::PartEnd(end)))?;
        Ok(row_count)
    }
}

pub(super) fn response(message: Message) -> v1::ExportSnapshotResponse {
    v1::ExportSnapshotResponse { message: Some(message) }
}

impl Write for ChunkWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.len() == CHUNK_BYTES_MAX || self.rows() - self.reported_rows >= CHUNK_ROWS_MAX {
            self.send_chunk()?;
        }
        let fits = bytes.len().min(CHUNK_BYTES_MAX - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..fits]);
        Ok(fits)
    }

    /// Does nothing: encoders flush often, and a chunk is sent when it is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_before_the_last_are_full_and_concatenate_to_the_part() {
        let check = |writes: &[usize], expect: &[usize]| {
            let (mut sizes, mut joined, mut ends) = (Vec::new(), Vec::new(), Vec::new());
            let mut send = |response: v1::ExportSnapshotResponse| {
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
            let mut writer = ChunkWriter::new(&mut send, "p".to_owned());
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
    fn row_count_is_reported_before_a_chunk_is_full() {
        let mut reported = Vec::new();
        let mut send = |response: v1::ExportSnapshotResponse| {
            if let Some(Message::Chunk(chunk)) = response.message {
                reported.push((chunk.data.len(), chunk.row_count));
            }
            Ok(())
        };
        let mut writer = ChunkWriter::new(&mut send, "p".to_owned());
        let rows = writer.row_counter();
        for _ in 0..6 {
            rows.fetch_add(CHUNK_ROWS_MAX / 2, Ordering::Relaxed);
            writer.write_all(&[0; 10]).unwrap();
        }
        writer.end().unwrap();
        let half = CHUNK_ROWS_MAX / 2;
        assert_eq!(reported, [(10, 2 * half), (20, 4 * half), (20, 6 * half), (10, 6 * half)]);
    }

    #[test]
    fn write_fails_after_the_receiver_disconnects() {
        let mut send = |_| Err(ReceiverGone);
        let mut writer = ChunkWriter::new(&mut send, "p".to_owned());
        assert!(writer.write_all(&vec![0; CHUNK_BYTES_MAX]).is_ok());
        assert!(writer.write_all(&[0]).is_err());
        assert!(writer.is_receiver_gone());
    }
}
