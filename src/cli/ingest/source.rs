//! Where rows of ticks come from: CSV, or runs in Parquet.
//!
//! **Invariant**: whatever they come from, rows are numbered from the file, so that a refusal can be found in it.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use crate::cli::error::{CliError, Problem};
use crate::export::read::{RunTick, RunTicks};
use crate::feed::{TickCsv, TickCsvError, TickCsvRow, TickCsvRowError, TickCsvValues};
use crate::proto::convert::timestamp;
use crate::proto::v1::Tick;

/// A row that gave a tick, or why it did not.
pub(super) struct Row {
    /// From 1: of CSV the line, where the header's is usually 1; of Parquet the row.
    pub(super) line: u64,
    pub(super) tick: Result<Tick, TickCsvRowError>,
}

/// Rows of a file, in its order.
pub(super) trait TickRows {
    /// The next row; none at the end.
    fn next(&mut self) -> Result<Option<Row>, CliError>;
    /// Bytes of the file up to here.
    fn bytes(&self) -> u64;
}

/// Rows of CSV.
pub(super) struct CsvRows<R> {
    path: PathBuf,
    rows: TickCsv<R>,
}

impl<R: BufRead> CsvRows<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// `Read` or `Header`.
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

/// The first and the last tick of each run of a Parquet file; what was between them is not in it.
pub(super) struct ParquetRows(RunTicks);

impl ParquetRows {
    /// Checks the schema.
    ///
    /// # Errors
    /// `Import`.
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
