//! Reads the rows of a Parquet file one by one.
//!
//! **Invariant**: a damaged file, or a file with another schema, causes an error that names the file. It never causes a
//! panic or silently missing rows.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use polars::prelude::DataFrame;

use super::cells::{BadCell, CommitRow, Row};
use super::error::{CellProblem, ReadError};
use super::frame::Frame;
use super::row_groups::RowGroups;
use super::schema_adapter::{Problem, converted};
use crate::domain::{Timestamp, truncate_for_display};
use crate::export::schema::Column;
use crate::export::schema::SEQUENCE;

/// The rows of a file, in file order.
pub(super) struct Rows<'a, T: Row> {
    groups: RowGroups,
    /// The columns to read, in this order.
    columns: Vec<Column>,
    /// The columns of the current row group.
    cells: Option<T::Cells>,
    /// Number of rows in the current row group.
    in_group: usize,
    /// Index of the next row in the current row group.
    at: usize,
    /// Number of rows before the current row group.
    before: u64,
    is_over: bool,
    /// Shared counter of rows read, incremented once per row group.
    read: &'a AtomicU64,
}

impl<'a, T: Row> Rows<'a, T> {
    /// Opens a file and checks its schema.
    pub(super) fn open(path: &Path, read: &'a AtomicU64) -> Result<Self, ReadError> {
        let columns = T::PART.exact_columns();
        let groups = RowGroups::open(path, &columns, T::WHAT)?;
        Ok(Self { groups, columns, cells: None, in_group: 0, at: 0, before: 0, is_over: false, read })
    }

    /// Returns true if `created_by` in the footer states that silkrate wrote the file.
    pub(super) fn is_written_by_silkrate(&self) -> bool {
        self.groups.is_written_by_silkrate()
    }

    /// The path of the file, for messages.
    pub(super) fn file(&self) -> &str {
        self.groups.name()
    }

    /// Number of rows in the file, according to the footer.
    pub(super) fn total(&self) -> u64 {
        self.groups.row_count()
    }

    /// The number of the next row, from 1.
    pub(super) fn next_number(&self) -> u64 {
        self.before + self.at as u64 + 1
    }

    /// Returns the next row; `None` at the end of the file.
    pub(super) fn next_row(&mut self) -> Result<Option<T>, ReadError> {
        if !self.load_next_row()? {
            return Ok(None);
        }
        let Some(cells) = &self.cells else { return Ok(None) };
        match T::read(cells, self.at) {
            Ok(row) => {
                self.at += 1;
                Ok(Some(row))
            }
            Err(BadCell(column, problem)) => {
                let file = self.file().to_owned();
                Err(ReadError::Cell { file, row: self.next_number(), column, problem })
            }
        }
    }

    /// Decodes the next row group if the current one is used up. Returns true if there is a next row.
    fn load_next_row(&mut self) -> Result<bool, ReadError> {
        while self.at == self.in_group && !self.is_over {
            self.before += self.in_group as u64;
            self.read.fetch_add(self.in_group as u64, Ordering::Relaxed);
            (self.at, self.in_group, self.cells) = (0, 0, None);
            match self.groups.next_group()? {
                None => self.is_over = true,
                Some(frame) => {
                    self.cells = Some(self.cells_of(&frame)?);
                    self.in_group = frame.height();
                }
            }
        }
        Ok(!self.is_over)
    }

    /// Converts the columns of a row group to their expected types.
    fn cells_of(&self, frame: &DataFrame) -> Result<T::Cells, ReadError> {
        let file = || self.file().to_owned();
        let mut columns = Vec::with_capacity(self.columns.len());
        for (column, values) in self.columns.iter().zip(frame.columns()) {
            columns.push(converted(values, column.kind).map_err(|problem| match problem {
                Problem::Cell(at, problem) => {
                    ReadError::Cell { file: file(), row: self.before + at as u64 + 1, column: column.name, problem }
                }
                Problem::Polars(problem) => ReadError::Parquet { file: file(), problem: problem.to_string() },
            })?);
        }
        let other = || ReadError::Parquet { file: file(), problem: "a row group has unexpected columns".to_owned() };
        T::cells(&Frame::new(&self.columns, columns)).ok_or_else(other)
    }

    /// Iterates over the next rows while they belong to the series of `pair` and `source`.
    pub(super) fn of_series<'r>(&'r mut self, pair: &'r str, source: &'r str) -> OfSeries<'r, 'a, T> {
        OfSeries { rows: self, pair, source }
    }

    /// Returns the pair and source of the next row, as in the file; `None` at the end of the file.
    fn next_series(&mut self) -> Result<Option<(&str, &str)>, ReadError> {
        if !self.load_next_row()? {
            return Ok(None);
        }
        let columns = self.cells.as_ref().and_then(T::series);
        Ok(columns
            .map(|(pairs, sources)| (pairs.get(self.at).unwrap_or_default(), sources.get(self.at).unwrap_or_default())))
    }

    /// Returns an `Order` error if a row is left.
    pub(super) fn expect_end(&mut self) -> Result<(), ReadError> {
        let Some((pair, source)) = self.next_series()? else { return Ok(()) };
        let (pair, source_name) = (truncate_for_display(pair), truncate_for_display(source));
        Err(ReadError::Order { file: self.file().to_owned(), row: self.next_number(), pair, source_name })
    }
}

/// Iterator over the next rows of one series; see [`Rows::of_series`].
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

/// Returns the recorded time of the next commit. Its sequence must be `expected`.
pub(super) fn next_commit(rows: &mut Rows<'_, CommitRow>, expected: u64) -> Result<Option<Timestamp>, ReadError> {
    let row = rows.next_number();
    let Some(CommitRow(found, recorded_time)) = rows.next_row()? else { return Ok(None) };
    if found != expected {
        let problem = CellProblem::Sequence { expected, found };
        return Err(ReadError::Cell { file: rows.file().to_owned(), row, column: SEQUENCE.name, problem });
    }
    Ok(Some(recorded_time))
}
