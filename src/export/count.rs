//! Counts the rows of an export, in a file or in a byte stream, to verify that the output is complete.
//!
//! **Invariant**: memory is bounded by one batch of rows, whatever the size of the export.

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
    /// Reading the file failed.
    #[error("cannot be read back: {0}")]
    Read(#[from] io::Error),
    /// The file is not valid Parquet.
    #[error("cannot be read back as Parquet: {0}")]
    Parquet(#[from] PolarsError),
    /// The bytes are not a valid Arrow stream.
    #[error("cannot be read back as an Arrow stream: {0}")]
    Arrow(#[from] IpcError),
}

/// Counts the rows of an exported file: in Parquet from the footer, in Arrow from the batches, in CSV from the lines.
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

/// Counts line feeds. No exported CSV cell contains a line feed, so each line is a row or the header.
fn count_lines(mut file: File) -> io::Result<u64> {
    let mut buffer = vec![0; READ_BYTES];
    let mut lines = 0;
    while let read @ 1.. = read_some(&mut file, &mut buffer)? {
        lines += line_ends(&buffer[..read]);
    }
    Ok(lines)
}

/// Fills `buffer` as far as one read allows, and retries interrupted reads. Returns 0 at the end of the file.
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

#[allow(clippy::naive_bytecount, reason = "the compiler vectorizes this loop, and reading the file takes longer")]
fn line_ends(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Counts the rows of an export that is written to a pipe and cannot be read back.
pub struct StreamCounter(Counting);

enum Counting {
    /// Not counted: a Parquet reader starts at the footer, but the bytes before the footer are already in the pipe.
    Parquet,
    Arrow(Box<ArrowRows>),
    Csv {
        lines: u64,
    },
}

impl StreamCounter {
    /// A counter for bytes in `format`.
    pub fn new(format: Format) -> Self {
        Self(match format {
            Format::Parquet => Counting::Parquet,
            Format::ArrowStream => Counting::Arrow(Box::default()),
            Format::Csv => Counting::Csv { lines: 0 },
        })
    }

    /// Counts the rows in the next bytes of the stream.
    ///
    /// # Errors
    /// `Arrow` if the bytes are not a valid Arrow stream.
    pub fn add(&mut self, bytes: &Bytes) -> Result<(), CountError> {
        match &mut self.0 {
            Counting::Parquet => {}
            Counting::Arrow(rows) => rows.add(bytes)?,
            Counting::Csv { lines } => *lines += line_ends(bytes),
        }
        Ok(())
    }

    /// Returns the number of rows; `None` for Parquet, which is not counted. Must be called after the last bytes
    /// of the stream.
    ///
    /// # Errors
    /// `Arrow` if the stream has no end marker.
    pub fn finish(&mut self) -> Result<Option<u64>, CountError> {
        Ok(match &mut self.0 {
            Counting::Parquet => None,
            Counting::Arrow(rows) => Some(rows.finish()?),
            // The header line is not a row.
            Counting::Csv { lines } => Some(lines.saturating_sub(1)),
        })
    }
}
