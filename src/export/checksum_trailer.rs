//! The checksum trailer of a Parquet file: a checksum of the whole file, because the Parquet library writes none.
//!
//! Parquet defines a checksum for each page, but none for the footer, and the library does not write page checksums.
//! silkrate therefore puts twelve bytes directly before the footer: [`MAGIC`], and the CRC-32C, little-endian, of all
//! other bytes of the file. No offset in the footer points to them, so every Parquet reader skips them. A program that
//! rewrites a file drops the trailer and replaces `created_by` with its own name.
//!
//! **Invariant**: a change of any byte is detected. If a change destroys the trailer, `created_by` still names
//! silkrate. A file whose `created_by` names silkrate and that has no trailer counts as damaged.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crc32c::crc32c_append;

/// `created_by` in the footer of a Parquet file that silkrate writes.
pub(super) const CREATED_BY: &str = concat!("silkrate ", env!("CARGO_PKG_VERSION"));
/// The prefix of [`CREATED_BY`] in every version of silkrate.
pub(super) const CREATED_BY_PREFIX: &str = "silkrate ";

const MAGIC: &[u8; 8] = b"SILKSEAL";
const TRAILER_BYTES: usize = MAGIC.len() + 4;
/// Bytes at the end of every Parquet file: the length of the footer, 4 bytes little-endian, and [`PARQUET_MAGIC`].
const TAIL_BYTES: usize = 8;
const PARQUET_MAGIC: &[u8; 4] = b"PAR1";
/// Buffer size for reading a file.
const READ_BYTES: usize = 256 * 1024;

/// Forwards the bytes of a Parquet file and inserts the checksum trailer before the footer.
pub(super) struct ChecksumWriter<W: Write> {
    out: W,
    crc: u32,
    /// Bytes written since [`ChecksumHandle::begin_footer`]. They contain the footer.
    buffered: Vec<u8>,
    handle: ChecksumHandle,
}

/// Controls a [`ChecksumWriter`] after it has moved into the library's file writer.
#[derive(Clone, Default)]
pub(super) struct ChecksumHandle(Arc<ChecksumState>);

#[derive(Default)]
struct ChecksumState {
    is_in_footer: AtomicBool,
    failure: Mutex<Option<io::Error>>,
}

impl ChecksumHandle {
    /// Declares that no row group follows, so that the bytes from now on may belong to the footer.
    pub(super) fn begin_footer(&self) {
        // Relaxed: one thread sets and reads the flag.
        self.0.is_in_footer.store(true, Ordering::Relaxed);
    }

    /// Takes the I/O error of a failed write. The library's file writer keeps only the error's text.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.0.failure.lock().ok()?.take()
    }
}

impl<W: Write> ChecksumWriter<W> {
    pub(super) fn new(out: W) -> (Self, ChecksumHandle) {
        let handle = ChecksumHandle::default();
        (Self { out, crc: 0, buffered: Vec::new(), handle: handle.clone() }, handle)
    }

    fn forward(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc32c_append(self.crc, bytes);
        self.out.write_all(bytes).map_err(|problem| {
            let kind = problem.kind();
            if let Ok(mut failure) = self.handle.0.failure.lock() {
                *failure = Some(problem);
            }
            kind.into()
        })
    }

    /// Completes the file: writes the trailer and then the footer. Memory holds one copy of the footer and no row
    /// group.
    ///
    /// # Errors
    /// Any I/O error of the writer; `InvalidData` if the bytes since `begin_footer` do not end with a footer.
    pub(super) fn write_trailer(mut self) -> io::Result<W> {
        let buffered = std::mem::take(&mut self.buffered);
        let footer = footer_bytes(&buffered).and_then(|bytes| buffered.len().checked_sub(bytes));
        let (before, footer) = buffered.split_at(footer.ok_or(io::ErrorKind::InvalidData)?);
        self.crc = crc32c_append(self.crc, before);
        self.out.write_all(before)?;
        let crc = crc32c_append(self.crc, footer);
        self.out.write_all(MAGIC)?;
        self.out.write_all(&crc.to_le_bytes())?;
        self.out.write_all(footer)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for ChecksumWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.handle.0.is_in_footer.load(Ordering::Relaxed) {
            self.buffered.extend_from_slice(bytes);
        } else {
            self.forward(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Length of the footer at the end of `bytes`, including its last [`TAIL_BYTES`]; `None` if there is no footer.
fn footer_bytes(bytes: &[u8]) -> Option<usize> {
    let (length, magic) = bytes.last_chunk::<TAIL_BYTES>()?.split_at(4);
    let length = u32::from_le_bytes(length.try_into().ok()?);
    (magic == PARQUET_MAGIC).then_some(usize::try_from(length).ok()?.checked_add(TAIL_BYTES)?)
}

/// Result of comparing a file with its checksum trailer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TrailerState {
    /// The file has no trailer: another program wrote or rewrote the file, or the file is damaged.
    Absent,
    /// The checksum matches the file.
    Valid,
    /// The checksum does not match the file.
    Invalid,
}

/// Reads the whole file and compares it with its trailer. Blocks the thread.
///
/// # Errors
/// Any I/O error.
pub(super) fn verify(file: &File) -> io::Result<TrailerState> {
    let Some((before, footer, stored_crc)) = find_trailer(file)? else { return Ok(TrailerState::Absent) };
    let mut input = file;
    input.seek(SeekFrom::Start(0))?;
    let crc = crc_of(&mut input.take(before), 0)?;
    input.seek(SeekFrom::Start(before + TRAILER_BYTES as u64))?;
    let crc = crc_of(&mut input.take(footer), crc)?;
    input.seek(SeekFrom::Start(0))?;
    Ok(if crc == stored_crc { TrailerState::Valid } else { TrailerState::Invalid })
}

/// Returns true if a file has a checksum trailer, valid or not. Only silkrate writes this trailer.
///
/// # Errors
/// Any I/O error.
pub fn has_checksum_trailer(path: &Path) -> io::Result<bool> {
    Ok(find_trailer(&File::open(path)?)?.is_some())
}

/// Returns the number of bytes before the trailer, the number of bytes after it, and its checksum; `None` if the file
/// has no trailer.
fn find_trailer(file: &File) -> io::Result<Option<(u64, u64, u32)>> {
    let len = file.metadata()?.len();
    let mut input = file;
    let mut tail = [0; TAIL_BYTES];
    if len < (TAIL_BYTES + TRAILER_BYTES) as u64 {
        return Ok(None);
    }
    input.seek(SeekFrom::Start(len - TAIL_BYTES as u64))?;
    input.read_exact(&mut tail)?;
    let footer = footer_bytes(&tail).map(|bytes| bytes as u64);
    let Some((footer, before)) =
        footer.and_then(|footer| Some((footer, len.checked_sub(footer)?.checked_sub(TRAILER_BYTES as u64)?)))
    else {
        return Ok(None);
    };
    let mut trailer = [0; TRAILER_BYTES];
    input.seek(SeekFrom::Start(before))?;
    input.read_exact(&mut trailer)?;
    input.seek(SeekFrom::Start(0))?;
    let (magic, crc) = trailer.split_at(MAGIC.len());
    let crc = crc.try_into().map_or(0, u32::from_le_bytes);
    Ok((magic == MAGIC).then_some((before, footer, crc)))
}

fn crc_of(input: &mut impl Read, mut crc: u32) -> io::Result<u32> {
    let mut input = BufReader::with_capacity(READ_BYTES, input);
    loop {
        let bytes = io::BufRead::fill_buf(&mut input)?;
        if bytes.is_empty() {
            return Ok(crc);
        }
        crc = crc32c_append(crc, bytes);
        let read = bytes.len();
        io::BufRead::consume(&mut input, read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::parquet_file::tests::{read_back, written};

    /// A file with a trailer, with `rows` rows in row groups of ten.
    fn file_with_trailer(rows: u64) -> Vec<u8> {
        written(rows, 10)
    }

    fn state_of(bytes: &[u8]) -> TrailerState {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        verify(&file).unwrap()
    }

    #[test]
    fn file_with_trailer_is_readable_parquet() {
        for rows in [0, 1, 25] {
            let bytes = file_with_trailer(rows);
            assert_eq!(state_of(&bytes), TrailerState::Valid, "{rows}");
            let (created_by, read) = read_back(&bytes);
            assert!(created_by.starts_with(CREATED_BY_PREFIX), "{created_by}");
            assert_eq!(read, rows);
        }
    }

    #[test]
    fn flip_of_any_bit_is_detected() {
        let intact = file_with_trailer(25);
        let mut bytes = intact.clone();
        let mut without_trailer = 0;
        for at in 0..intact.len() * 8 {
            bytes[at / 8] ^= 1 << (at % 8);
            match state_of(&bytes) {
                TrailerState::Valid => panic!("a flip of bit {at} is not detected"),
                TrailerState::Invalid => {}
                TrailerState::Absent => without_trailer += 1,
            }
            bytes[at / 8] ^= 1 << (at % 8);
        }
        // The trailer is not found if its magic, the magic of the file or the length of the footer changes.
        assert_eq!(without_trailer, (MAGIC.len() + TAIL_BYTES) * 8);
        for len in [0, 4, 11, 19, 20, intact.len() / 2, intact.len() - 1] {
            assert_eq!(state_of(&intact[..len]), TrailerState::Absent, "{len}");
        }
    }
}
