//! Rows of a Parquet file, one by one.
//!
//! The types are those of Parquet itself: what arrow notes beside them, such as that a text was a
//! dictionary, is left unread, so that a file that another program wrote on reads the same.
//!
//! **Invariant**: a file that is damaged or of another schema ends in an error that names it, never in
//! a panic or in silence.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use parquet::basic::Compression;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};

use super::accept::{accepts, converted, wanted};
use super::cells::{BadCell, Column, CommitRow, Row, SEQUENCE};
use super::error::{CellProblem, ReadError};
use super::quiet::guarded;
use crate::domain::{Timestamp, clip};
use crate::export::layout::{SCHEMA_VERSION, SCHEMA_VERSION_KEY, VERSION_KEY};
use crate::export::seal::CREATED_BY_PREFIX;

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8_192;
/// The rows of a file, in its order.
pub(super) struct Rows<'a, T: Row> {
    file: String,
    total: u64,
    batches: ParquetRecordBatchReader,
    is_of_silkrate: bool,
    /// Of a batch whose columns have been converted.
    schema: SchemaRef,
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
        check_version(&name, builder.metadata())?;
        for Column { name: column, data_type } in T::COLUMNS {
            let expected = data_type();
            match builder.schema().field_with_name(column) {
                Ok(field) if accepts(&expected, field.data_type()) => {}
                Ok(field) => {
                    let (expected, found) = (wanted(&expected), field.data_type().to_string());
                    return Err(ReadError::ColumnType { file: name(), column, expected, found });
                }
                Err(_) => {
                    let expected = wanted(&expected);
                    return Err(ReadError::MissingColumn { file: name(), column, what: T::WHAT, expected });
                }
            }
        }
        check_codecs(&name, builder.metadata())?;
        let created_by = builder.metadata().file_metadata().created_by().unwrap_or_default();
        let is_of_silkrate = created_by.starts_with(CREATED_BY_PREFIX);
        let fields = T::COLUMNS.iter().map(|column| Field::new(column.name, (column.data_type)(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let mask = ProjectionMask::columns(builder.parquet_schema(), T::COLUMNS.iter().map(|column| column.name));
        let batches = guarded(|| builder.with_projection(mask).with_batch_size(BATCH_ROWS).build());
        let batches = batches.map_err(unreadable)?;
        let file = name();
        let (cells, in_batch, at, before, is_over) = (None, 0, 0, 0, false);
        Ok(Self { file, total, batches, is_of_silkrate, schema, cells, in_batch, at, before, is_over, read })
    }

    /// Whether it says that silkrate made it as it is.
    pub(super) fn is_of_silkrate(&self) -> bool {
        self.is_of_silkrate
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
            let next = guarded(|| batches.next().transpose());
            match next.map_err(|problem| self.unreadable(problem))? {
                None => self.is_over = true,
                Some(batch) => {
                    self.cells = Some(self.cells_of(&batch)?);
                    self.in_batch = batch.num_rows();
                }
            }
        }
        Ok(!self.is_over)
    }

    /// The columns of a batch, as this reads them.
    fn cells_of(&self, batch: &RecordBatch) -> Result<T::Cells, ReadError> {
        let other = || self.unreadable("a batch has other columns than the file".to_owned());
        let mut arrays = Vec::with_capacity(T::COLUMNS.len());
        for Column { name: column, data_type } in T::COLUMNS {
            let array = batch.column_by_name(column).ok_or_else(other)?;
            arrays.push(converted(array, &data_type()).map_err(|(at, problem)| ReadError::Cell {
                file: self.file.clone(),
                row: self.before + at as u64 + 1,
                column,
                problem,
            })?);
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays);
        batch.ok().as_ref().and_then(T::cells).ok_or_else(other)
    }

    fn unreadable(&self, problem: String) -> ReadError {
        ReadError::Parquet { file: self.file.clone(), problem }
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

/// Refuses a file whose columns may mean something else. One without a version was written by another program, and its
/// columns tell what it is.
fn check_version(name: &dyn Fn() -> String, metadata: &ParquetMetaData) -> Result<(), ReadError> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let value = |key: &str| {
        let pair = pairs?.iter().find(|pair| pair.key == key)?;
        pair.value.as_deref()
    };
    let Some(found) = value(SCHEMA_VERSION_KEY).filter(|found| *found != SCHEMA_VERSION.to_string()) else {
        return Ok(());
    };
    let product_version = clip(value(VERSION_KEY).unwrap_or("which it does not name"));
    Err(ReadError::SchemaVersion { file: name(), found: clip(found), product_version })
}

/// Refuses what is compressed in a way that is not known here.
fn check_codecs(name: &dyn Fn() -> String, metadata: &ParquetMetaData) -> Result<(), ReadError> {
    let columns = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
    let mut codecs = columns.map(ColumnChunkMetaData::compression);
    let is_unknown = |codec: &Compression| matches!(codec, Compression::BROTLI(_) | Compression::LZO);
    match codecs.find(is_unknown) {
        Some(codec) => Err(ReadError::Codec { file: name(), codec: codec.to_string() }),
        None => Ok(()),
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
