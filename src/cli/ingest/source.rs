//! Sources of tick rows: CSV files, and Parquet files of runs.
//!
//! **Invariant**: every row has its line or row number in the file, so that a refused row can be found.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use crate::cli::error::{CliError, Problem};
use crate::export::read::{RunTick, RunTicks};
use crate::feed::{TickCsv, TickCsvError, TickCsvRow, TickCsvRowError, TickCsvValues};
use crate::proto::convert::timestamp;
use crate::proto::v1::Tick;

/// A row of a file: its tick, or the parse error.
pub(super) struct Row {
    /// The position of the row in the file, from 1: the line number in CSV (the header is usually line 1), or the row
    /// number in Parquet.
    pub(super) line: u64,
    pub(super) tick: Result<Tick, TickCsvRowError>,
}

/// Reads the rows of a file, in file order.
pub(super) trait TickRows {
    /// Returns the next row; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<Row>, CliError>;
    /// Bytes of the file read so far.
    fn bytes(&self) -> u64;
}

/// The rows of a CSV file.
pub(super) struct CsvRows<R> {
    path: PathBuf,
    rows: TickCsv<R>,
}

impl<R: BufRead> CsvRows<R> {
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

impl<R: BufRead> TickRows for CsvRows<R> {
    fn next(&mut self) -> Result<Option<Row>, CliError> {
        let row = self.rows.next_row();
        let row = row.map_err(|problem| Problem::Read { path: self.path.clone(), problem })?;
        Ok(row.map(|TickCsvRow { line, tick }| Row { line, tick: tick.map(tick_message) }))
    }

    fn bytes(&self) -> u64 {
        self.rows.bytes()
    }
}

fn tick_message(values: TickCsvValues) -> Tick {
    let TickCsvValues { pair, source, observed_time, rate, reported_change_percent } = values;
    Tick { pair, source, observed_time: Some(timestamp(observed_time)), rate, reported_change_percent }
}

/// The first and the last tick of each run in a Parquet file. The file does not have the ticks between them.
pub(super) struct ParquetRows(RunTicks);

impl ParquetRows {
    /// Opens the file and checks its schema and checksum.
    ///
    /// # Errors
    /// Returns the [`ReadError`](crate::export::read::ReadError) if the file is damaged or has another schema.
    pub(super) fn open(path: &Path) -> Result<Self, CliError> {
        Ok(Self(RunTicks::open(path)?))
    }
}

impl TickRows for ParquetRows {
    fn next(&mut self) -> Result<Option<Row>, CliError> {
        let Some(RunTick { row, pair, source, observed_time, value }) = self.0.next_tick()? else { return Ok(None) };
        let tick = Tick {
            pair,
            source,
            observed_time: Some(timestamp(observed_time)),
            rate: value.rate.to_string(),
            reported_change_percent: value.reported_change.map(|change| change.to_string()),
        };
        Ok(Some(Row { line: row, tick: Ok(tick) }))
    }

    fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}
