//! How many rows an export has, by its own account: of a file, or of bytes that pass by.
//!
//! **Invariant**: memory is bounded by a batch of rows, whatever the size.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use polars::prelude::PolarsError;
use polars_parquet::read::read_metadata;
use prost::bytes::Bytes;
use thiserror::Error;

use super::format::Format;
use super::ipc::{IpcDecoder, IpcError};

const READ_BYTES: usize = 256 * 1024;

/// Why the rows of a file cannot be counted.
#[derive(Debug, Error)]
pub enum CountError {
    /// It cannot be read.
    #[error("cannot be read back: {0}")]
    Read(#[from] io::Error),
    /// It is no Parquet.
    #[error("cannot be read back as Parquet: {0}")]
    Parquet(#[from] PolarsError),
    /// It is no Arrow stream.
    #[error("cannot be read back as an Arrow stream: {0}")]
    Arrow(#[from] IpcError),
}

/// Counts the rows of a file that an export wrote: from the footer of Parquet, the batches of Arrow, the lines of CSV.
///
/// # Errors
/// Any [`CountError`].
pub fn count_rows(path: &Path, format: Format) -> Result<u64, CountError> {
    let mut file = File::open(path)?;
    match format {
        Format::Parquet => Ok(read_metadata(&mut file)?.num_rows as u64),
        Format::ArrowStream => {
            let (mut rows, mut buffer) = (ArrowRows::default(), vec![0; READ_BYTES]);
            while let read @ 1.. = read_some(&mut file, &mut buffer)? {
                rows.add(&buffer[..read])?;
            }
            Ok(rows.finish()?)
        }
        Format::Csv => Ok(count_lines(file)?.saturating_sub(1)),
    }
}

/// No cell of ours holds a line's end, so that a line is a row, or the header.
fn count_lines(mut file: File) -> io::Result<u64> {
    let mut buffer = vec![0; READ_BYTES];
    let mut lines = 0;
    while let read @ 1.. = read_some(&mut file, &mut buffer)? {
        lines += line_ends(&buffer[..read]);
    }
    Ok(lines)
}

/// Reads what fits into `buffer`; 0 bytes at the end.
fn read_some(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Counts the rows of an Arrow stream.
#[derive(Default)]
struct ArrowRows {
    decoder: IpcDecoder,
    rows: u64,
}

impl ArrowRows {
    fn add(&mut self, bytes: &[u8]) -> Result<(), IpcError> {
        self.decoder.push(bytes, |_, batch| {
            self.rows += batch.height() as u64;
            Ok(())
        })
    }

    fn finish(&self) -> Result<u64, IpcError> {
        self.decoder.finish()?;
        Ok(self.rows)
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
    Arrow(Box<ArrowRows>),
    Csv {
        lines: u64,
    },
}

impl StreamCounter {
    /// Of bytes in `format`.
    pub fn new(format: Format) -> Self {
        Self(match format {
            Format::Parquet => Counting::Parquet,
            Format::ArrowStream => Counting::Arrow(Box::default()),
            Format::Csv => Counting::Csv { lines: 0 },
        })
    }

    /// The next bytes pass by.
    ///
    /// # Errors
    /// `Arrow`.
    pub fn add(&mut self, bytes: &Bytes) -> Result<(), CountError> {
        match &mut self.0 {
            Counting::Parquet => {}
            Counting::Arrow(rows) => rows.add(bytes)?,
            Counting::Csv { lines } => *lines += line_ends(bytes),
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
            Counting::Arrow(rows) => Some(rows.finish()?),
            // The header is none.
            Counting::Csv { lines } => Some(lines.saturating_sub(1)),
        })
    }
}
