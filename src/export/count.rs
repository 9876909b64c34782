//! How many rows an export has, by its own account: of a file, or of bytes that pass by.
//!
//! **Invariant**: memory is bounded by a batch of rows, whatever the size.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use arrow_buffer::Buffer;
use arrow_ipc::reader::{StreamDecoder, StreamReader};
use arrow_schema::ArrowError;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use prost::bytes::Bytes;
use thiserror::Error;

use super::layout::Format;

const READ_BYTES: usize = 256 * 1024;

/// Why the rows of a file cannot be counted.
#[derive(Debug, Error)]
pub enum CountError {
    /// It cannot be read.
    #[error("cannot be read back: {0}")]
    Read(#[from] io::Error),
    /// It is no Parquet.
    #[error("cannot be read back as Parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// It is no Arrow stream.
    #[error("cannot be read back as an Arrow stream: {0}")]
    Arrow(#[from] ArrowError),
}

/// Counts the rows of a file that an export wrote: from the footer of Parquet, the batches of Arrow, the lines of CSV.
///
/// # Errors
/// Any [`CountError`].
pub fn count_rows(path: &Path, format: Format) -> Result<u64, CountError> {
    let file = File::open(path)?;
    match format {
        Format::Parquet => {
            let rows = SerializedFileReader::new(file)?.metadata().file_metadata().num_rows();
            Ok(u64::try_from(rows).unwrap_or(0))
        }
        Format::ArrowStream => {
            // One column suffices, since all of a batch have its length.
            let reader = StreamReader::try_new(BufReader::with_capacity(READ_BYTES, file), Some(vec![0]))?;
            reader.into_iter().try_fold(0, |rows, batch| Ok(rows + batch?.num_rows() as u64))
        }
        Format::Csv => Ok(count_lines(file)?.saturating_sub(1)),
    }
}

/// No cell of ours holds a line's end, so that a line is a row, or the header.
fn count_lines(mut file: File) -> io::Result<u64> {
    let mut buffer = vec![0; READ_BYTES];
    let mut lines = 0;
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(lines),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        lines += line_ends(&buffer[..read]);
    }
}

#[allow(clippy::naive_bytecount, reason = "the compiler makes it fast enough beside the disk")]
fn line_ends(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Counts the rows of an export that goes where it cannot be read back from: a pipe.
pub struct StreamCounter(Counting);

enum Counting {
    /// Its rows are told by its end, which leads to places that have passed by.
    Parquet,
    Arrow {
        decoder: Box<StreamDecoder>,
        rows: u64,
    },
    Csv {
        lines: u64,
    },
}

impl StreamCounter {
    /// Of bytes in `format`.
    pub fn new(format: Format) -> Self {
        Self(match format {
            Format::Parquet => Counting::Parquet,
            Format::ArrowStream => Counting::Arrow { decoder: Box::default(), rows: 0 },
            Format::Csv => Counting::Csv { lines: 0 },
        })
    }

    /// The next bytes pass by.
    ///
    /// # Errors
    /// `Arrow`.
    pub fn add(&mut self, bytes: Bytes) -> Result<(), CountError> {
        match &mut self.0 {
            Counting::Parquet => {}
            Counting::Arrow { decoder, rows } => {
                let mut buffer = Buffer::from(bytes);
                while !buffer.is_empty() {
                    if let Some(batch) = decoder.decode(&mut buffer)? {
                        *rows += batch.num_rows() as u64;
                    }
                }
            }
            Counting::Csv { lines } => *lines += line_ends(&bytes),
        }
        Ok(())
    }

    /// All have: gives their rows, where the format tells.
    ///
    /// # Errors
    /// `Arrow`, where the stream has no end.
    pub fn finish(&mut self) -> Result<Option<u64>, CountError> {
        Ok(match &mut self.0 {
            Counting::Parquet => None,
            Counting::Arrow { decoder, rows } => {
                decoder.finish()?;
                Some(*rows)
            }
            // The header is none.
            Counting::Csv { lines } => Some(lines.saturating_sub(1)),
        })
    }
}
