//! Rows of a Parquet file, one by one.
//!
//! The types are those of Parquet itself: what arrow notes beside them, such as that a text was a
//! dictionary, is left unread, so that a file that another program wrote on reads the same.
//!
//! **Invariant**: a file that is damaged or of another schema ends in an error that names it, never in
//! a panic or in silence.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_schema::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::cells::{BadCell, Column, CommitRow, Row, SEQUENCE};
use super::error::{CellProblem, ReadError};
use crate::domain::{Timestamp, clip};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8_192;
/// The rows of a file, in its order.
pub(super) struct Rows<'a, T: Row> {
    file: String,
    total: u64,
    batches: ParquetRecordBatchReader,
    /// The batch under way.
    cells: Option<T::Cells>,
    in_batch: usize,
    /// In the batch.
    at: usize,
    /// Rows before the batch.
    before: u64,
    is_over: bool,
    /// Counts the rows of all files that share it, a batch at a time.
    read: &'a AtomicU64,
}

impl<'a, T: Row> Rows<'a, T> {
    /// Opens a file and checks its schema.
    pub(super) fn open(path: &Path, read: &'a AtomicU64) -> Result<Self, ReadError> {
        let name = || path.display().to_string();
        let file = File::open(path).map_err(|problem| ReadError::Io { file: name(), problem })?;
        let opened = guarded(|| {
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        });
        let unreadable = |problem| ReadError::Parquet { file: name(), problem };
        let builder = opened.map_err(unreadable)?;
        for Column { name: column, data_type } in T::COLUMNS {
            let expected = data_type();
            match builder.schema().field_with_name(column) {
                Ok(field) if *field.data_type() == expected => {}
                Ok(field) => {
                    let (expected, found) = (expected.to_string(), field.data_type().to_string());
                    return Err(ReadError::ColumnType { file: name(), column, expected, found });
                }
                Err(_) => {
                    let expected = expected.to_string();
                    return Err(ReadError::MissingColumn { file: name(), column, what: T::WHAT, expected });
                }
            }
        }
        let total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let mask = ProjectionMask::columns(builder.parquet_schema(), T::COLUMNS.iter().map(|column| column.name));
        let batches = guarded(|| builder.with_projection(mask).with_batch_size(BATCH_ROWS).build());
        let batches = batches.map_err(unreadable)?;
        let file = name();
        Ok(Self { file, total, batches, cells: None, in_batch: 0, at: 0, before: 0, is_over: false, read })
    }

    /// For messages.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Rows of the file, as it says itself.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The number of the next row, from 1.
    pub(super) fn next_number(&self) -> u64 {
        self.before + self.at as u64 + 1
    }

    /// The next row.
    pub(super) fn next_row(&mut self) -> Result<Option<T>, ReadError> {
        if !self.ensure()? {
            return Ok(None);
        }
        let Some(cells) = &self.cells else { return Ok(None) };
        match T::read(cells, self.at) {
            Ok(row) => {
                self.at += 1;
                Ok(Some(row))
            }
            Err(BadCell(column, problem)) => {
                Err(ReadError::Cell { file: self.file.clone(), row: self.next_number(), column, problem })
            }
        }
    }

    /// Decodes the next batch where the last one is used up; says whether there is a next row.
    fn ensure(&mut self) -> Result<bool, ReadError> {
        while self.at == self.in_batch && !self.is_over {
            self.before += self.in_batch as u64;
            self.read.fetch_add(self.in_batch as u64, Ordering::Relaxed);
            (self.at, self.in_batch, self.cells) = (0, 0, None);
            let batches = &mut self.batches;
            let next = guarded(|| match batches.next().transpose()? {
                None => Ok(None),
                Some(batch) => {
                    let cells = T::cells(&batch);
                    cells
                        .map(|cells| Some((batch.num_rows(), cells)))
                        .ok_or(ArrowError::SchemaError("a batch has other columns than the file".to_owned()))
                }
            });
            match next.map_err(|problem| ReadError::Parquet { file: self.file.clone(), problem })? {
                None => self.is_over = true,
                Some((rows, cells)) => (self.in_batch, self.cells) = (rows, Some(cells)),
            }
        }
        Ok(!self.is_over)
    }

    /// The rows that are next as long as they are of a series.
    pub(super) fn of_series<'r>(&'r mut self, pair: &'r str, source: &'r str) -> OfSeries<'r, 'a, T> {
        OfSeries { rows: self, pair, source }
    }

    /// The series that the next row is of, as written; none at the end.
    fn next_series(&mut self) -> Result<Option<(&str, &str)>, ReadError> {
        if !self.ensure()? {
            return Ok(None);
        }
        let columns = self.cells.as_ref().and_then(T::series);
        Ok(columns.map(|(pairs, sources)| (pairs.value(self.at), sources.value(self.at))))
    }

    /// Makes sure that no row is left.
    pub(super) fn expect_end(&mut self) -> Result<(), ReadError> {
        let Some((pair, source)) = self.next_series()? else { return Ok(()) };
        let (pair, source_name) = (clip(pair), clip(source));
        Err(ReadError::Order { file: self.file.clone(), row: self.next_number(), pair, source_name })
    }
}

/// See [`Rows::of_series`].
pub(super) struct OfSeries<'r, 'a, T: Row> {
    rows: &'r mut Rows<'a, T>,
    pair: &'r str,
    source: &'r str,
}

impl<T: Row> Iterator for OfSeries<'_, '_, T> {
    type Item = Result<T, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.rows.next_series() {
            Ok(Some(next)) if next == (self.pair, self.source) => self.rows.next_row().transpose(),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// Damaged pages can make the reader panic; for its file that is damage like any other.
fn guarded<T, E: ToString>(read: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("its pages do not decode".to_owned()),
    }
}

/// The recorded time of the next commit, whose sequence must be this one.
pub(super) fn next_commit(rows: &mut Rows<'_, CommitRow>, expected: u64) -> Result<Option<Timestamp>, ReadError> {
    let row = rows.next_number();
    let Some(CommitRow(found, recorded_time)) = rows.next_row()? else { return Ok(None) };
    if found != expected {
        let problem = CellProblem::Sequence { expected, found };
        return Err(ReadError::Cell { file: rows.file.clone(), row, column: SEQUENCE, problem });
    }
    Ok(Some(recorded_time))
}
