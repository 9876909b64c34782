//! The seal of a Parquet file: a checksum of all of it, which the library that writes the file has no place for.
//!
//! Parquet has a checksum for each page, but none of the footer, and the library cannot write the former. So a sealed
//! file has twelve bytes of its own just before its footer, where nothing refers to, so that every reader passes over
//! them: [`MAGIC`], and the CRC-32C, little-endian, of all other bytes of the file. Programs that write a file anew leave
//! the seal out, and their name in place of ours as that of who created it.
//!
//! **Invariant**: of a sealed file every byte is covered, the seal's own included: a file of ours with its seal amiss
//! has lost it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crc32c::crc32c_append;

/// Who created a file that is ours.
pub(super) const CREATED_BY: &str = concat!("silkrate ", env!("CARGO_PKG_VERSION"));
/// How [`CREATED_BY`] begins in every version.
pub(super) const CREATED_BY_PREFIX: &str = "silkrate ";

const MAGIC: &[u8; 8] = b"SILKSEAL";
const TRAILER_BYTES: usize = MAGIC.len() + 4;
/// The length of the footer, little-endian, and what every Parquet file ends with.
const TAIL_BYTES: usize = 8;
const PARQUET_MAGIC: &[u8; 4] = b"PAR1";
/// Read at a time.
const READ_BYTES: usize = 256 * 1024;

/// Passes the bytes of a Parquet file on, and puts the seal into them.
pub(super) struct ChecksumWriter<W: Write> {
    out: W,
    crc: u32,
    /// Bytes since the end began, among them the footer.
    held: Vec<u8>,
    handle: ChecksumHandle,
}

/// The way to a [`ChecksumWriter`] that the file's writer owns.
#[derive(Clone, Default)]
pub(super) struct ChecksumHandle(Arc<ChecksumState>);

#[derive(Default)]
struct ChecksumState {
    is_ending: AtomicBool,
    failure: Mutex<Option<io::Error>>,
}

impl ChecksumHandle {
    /// No row group follows: what is written from now on may be the footer.
    pub(super) fn begin_end(&self) {
        // Set and read on one thread.
        self.0.is_ending.store(true, Ordering::Relaxed);
    }

    /// The error with which a write failed. The file's writer keeps its text alone.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.0.failure.lock().ok()?.take()
    }
}

impl<W: Write> ChecksumWriter<W> {
    pub(super) fn new(out: W) -> (Self, ChecksumHandle) {
        let handle = ChecksumHandle::default();
        (Self { out, crc: 0, held: Vec::new(), handle: handle.clone() }, handle)
    }

    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc32c_append(self.crc, bytes);
        self.out.write_all(bytes).map_err(|problem| {
            let kind = problem.kind();
            if let Ok(mut failure) = self.handle.0.failure.lock() {
                *failure = Some(problem);
            }
            kind.into()
        })
    }

    /// The file is complete: puts the seal before its footer. Its footer is in memory once more meanwhile, but no row
    /// group is.
    ///
    /// # Errors
    /// The system's; `InvalidData` if what was written since the end began has no footer.
    pub(super) fn seal(mut self) -> io::Result<W> {
        let held = std::mem::take(&mut self.held);
        let footer = footer_bytes(&held).and_then(|bytes| held.len().checked_sub(bytes));
        let (before, footer) = held.split_at(footer.ok_or(io::ErrorKind::InvalidData)?);
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
        if self.handle.0.is_ending.load(Ordering::Relaxed) {
            self.held.extend_from_slice(bytes);
        } else {
            self.pass(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// How long the footer is that some bytes end with, its tail included.
fn footer_bytes(bytes: &[u8]) -> Option<usize> {
    let (length, magic) = bytes.last_chunk::<TAIL_BYTES>()?.split_at(4);
    let length = u32::from_le_bytes(length.try_into().ok()?);
    (magic == PARQUET_MAGIC).then_some(usize::try_from(length).ok()?.checked_add(TAIL_BYTES)?)
}

/// What the seal of a file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seal {
    /// There is none: not ours, or written anew by another program.
    Absent,
    /// The file is as it was written.
    Whole,
    /// It is not.
    Broken,
}

/// Reads the file once and compares. Blocks.
///
/// # Errors
/// The system's.
pub(super) fn check(file: &File) -> io::Result<Seal> {
    let Some((before, footer, said)) = find(file)? else { return Ok(Seal::Absent) };
    let mut input = file;
    input.seek(SeekFrom::Start(0))?;
    let crc = crc_of(&mut input.take(before), 0)?;
    input.seek(SeekFrom::Start(before + TRAILER_BYTES as u64))?;
    let crc = crc_of(&mut input.take(footer), crc)?;
    input.seek(SeekFrom::Start(0))?;
    Ok(if crc == said { Seal::Whole } else { Seal::Broken })
}

/// Whether a file bears our seal, be it whole or broken.
///
/// # Errors
/// The system's.
pub fn is_of_silkrate(path: &Path) -> io::Result<bool> {
    Ok(find(&File::open(path)?)?.is_some())
}

/// The bytes before the seal, those after it, and what it says; none if there is no seal.
fn find(file: &File) -> io::Result<Option<(u64, u64, u32)>> {
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
    let mut seal = [0; TRAILER_BYTES];
    input.seek(SeekFrom::Start(before))?;
    input.read_exact(&mut seal)?;
    input.seek(SeekFrom::Start(0))?;
    let (magic, said) = seal.split_at(MAGIC.len());
    let said = said.try_into().map_or(0, u32::from_le_bytes);
    Ok((magic == MAGIC).then_some((before, footer, said)))
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

    /// A sealed file of these rows in groups of ten.
    fn sealed(rows: u64) -> Vec<u8> {
        written(rows, 10)
    }

    fn seal_of(bytes: &[u8]) -> Seal {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        check(&file).unwrap()
    }

    #[test]
    fn a_sealed_file_is_parquet_like_any_other() {
        for rows in [0, 1, 25] {
            let bytes = sealed(rows);
            assert_eq!(seal_of(&bytes), Seal::Whole, "{rows}");
            let (created_by, read) = read_back(&bytes);
            assert!(created_by.starts_with(CREATED_BY_PREFIX), "{created_by}");
            assert_eq!(read, rows);
        }
    }

    #[test]
    fn every_bit_is_covered() {
        let sound = sealed(25);
        let mut bytes = sound.clone();
        let mut unsealed = 0;
        for at in 0..sound.len() * 8 {
            bytes[at / 8] ^= 1 << (at % 8);
            match seal_of(&bytes) {
                Seal::Whole => panic!("bit {at} can be changed"),
                Seal::Broken => {}
                Seal::Absent => unsealed += 1,
            }
            bytes[at / 8] ^= 1 << (at % 8);
        }
        // The magic of seal and file, and the footer's length: without those no seal is found.
        assert_eq!(unsealed, (MAGIC.len() + TAIL_BYTES) * 8);
        for len in [0, 4, 11, 19, 20, sound.len() / 2, sound.len() - 1] {
            assert_eq!(seal_of(&sound[..len]), Seal::Absent, "{len}");
        }
    }
}
