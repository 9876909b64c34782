//! Sources of ticks: CSV files, and Parquet files of runs.
//!
//! **Invariant**: every row has its line or row number in the file, so that a refused row can be found.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::batches::{Batch, BatchBuilder};
use crate::cli::error::{CliError, Problem};
use crate::export::read::{RunTick, RunTicks};
use crate::feed::{TickCsv, TickCsvError, TickCsvHeader, TickCsvPart, TickCsvRow};

/// Bytes of CSV that one thread parses at a time: about 40,000 rows.
const PART_BYTES_MAX: usize = 2 << 20;
/// Bytes of CSV that are worth sending while a pipe has no more: about 3,000 rows.
const PART_BYTES_MIN: usize = 128 << 10;
/// Number of rows of a Parquet file in one group of batches.
const PARQUET_ROWS: usize = 50_000;

/// Reads the rows of a file in batches. Rows of the same series are in file order.
pub(super) trait TickBatches {
    /// Returns the next batches; none at the end of the file.
    ///
    /// # Errors
    /// Returns the error of reading the file, and the batches that were read before it.
    fn next(&mut self) -> (Vec<Batch>, Option<CliError>);
}

/// The rows of a CSV file.
pub(super) struct CsvBatches<R> {
    path: PathBuf,
    rows: TickCsv<R>,
}

impl<R: BufRead> CsvBatches<R> {
    /// Reads the header of the CSV file.
    ///
    /// # Errors
    /// `Read` if the file cannot be read; `Header` if the header is invalid.
    pub(super) fn open(path: &Path, input: R) -> Result<Self, CliError> {
        let path = path.to_owned();
        match TickCsv::new(input) {
            Ok(rows) => Ok(Self { path, rows }),
            Err(TickCsvError::Read(problem)) => Err(Problem::Read { path, problem }.into()),
            Err(TickCsvError::Header(problem)) => Err(Problem::Header { path, problem }.into()),
        }
    }
}

impl<R: BufRead> TickBatches for CsvBatches<R> {
    fn next(&mut self) -> (Vec<Batch>, Option<CliError>) {
        let (mut parts, mut failure) = (Vec::new(), None);
        // Each thread parses one part.
        for _ in 0..rayon::current_num_threads() {
            let begin_bytes = self.rows.bytes();
            match self.rows.next_part(PART_BYTES_MIN, PART_BYTES_MAX) {
                Ok(Some(part)) => {
                    let end_bytes = self.rows.bytes();
                    parts.push((part, begin_bytes, end_bytes));
                    // A pipe that has no more now may be slow.
                    if end_bytes - begin_bytes < PART_BYTES_MAX as u64 {
                        break;
                    }
                }
                Ok(None) => break,
                Err(problem) => {
                    failure = Some(Problem::Read { path: self.path.clone(), problem }.into());
                    break;
                }
            }
        }
        let header = self.rows.header();
        let parsed = parts.par_iter().flat_map_iter(|(part, begin, end)| batches_of(header, part, [*begin, *end]));
        (parsed.collect(), failure)
    }
}

/// Parses a part of a CSV file.
fn batches_of(header: &TickCsvHeader, part: &TickCsvPart, [begin, end]: [u64; 2]) -> Vec<Batch> {
    let mut builder = BatchBuilder::default();
    for TickCsvRow { line, values } in header.rows_of(part) {
        match values {
            Ok(values) => {
                for time in values.observed_times() {
                    let value = (&*values.rate, values.reported_change_percent.as_deref());
                    builder.push_text(line, (&values.pair, &values.source), time, value);
                }
            }
            Err(problem) => builder.push_malformed(line, problem),
        }
    }
    builder.finish(begin, end)
}

/// The first and the last tick of each run in a Parquet file. The file does not have the ticks between them.
pub(super) struct ParquetBatches(RunTicks);

impl ParquetBatches {
    /// Opens the file and checks its schema and checksum.
    ///
    /// # Errors
    /// Returns the [`ReadError`](crate::export::read::ReadError) if the file is damaged or has another schema.
    pub(super) fn open(path: &Path) -> Result<Self, CliError> {
        Ok(Self(RunTicks::open(path)?))
    }
}

impl TickBatches for ParquetBatches {
    fn next(&mut self) -> (Vec<Batch>, Option<CliError>) {
        let begin_bytes = self.0.bytes();
        let (mut builder, mut failure) = (BatchBuilder::default(), None);
        while builder.rows() < PARQUET_ROWS {
            match self.0.next_tick() {
                Ok(Some(RunTick { row, pair, source, observed_time, value })) => {
                    builder.push(row, (&pair, &source), observed_time, value);
                }
                Ok(None) => break,
                Err(problem) => {
                    failure = Some(problem.into());
                    break;
                }
            }
        }
        (builder.finish(begin_bytes, self.0.bytes()), failure)
    }
}
