//! Rows of a Parquet file, one by one.
//!
//! **Invariant**: a file that is damaged or of another schema ends in an error that names it, never in
//! a panic or in silence.

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

/// The rows of a file, in its order.
pub(super) struct Rows<'a, T: Row> {
    groups: RowGroups,
    /// Those that are read, in this order.
    columns: Vec<Column>,
    /// The row group under way.
    cells: Option<T::Cells>,
    in_group: usize,
    /// In the group.
    at: usize,
    /// Rows before the group.
    before: u64,
    is_over: bool,
    /// Counts the rows of all files that share it, a group at a time.
    read: &'a AtomicU64,
}

impl<'a, T: Row> Rows<'a, T> {
    /// Opens a file and checks its schema.
    pub(super) fn open(path: &Path, read: &'a AtomicU64) -> Result<Self, ReadError> {
        let columns = T::PART.exact_columns();
        let groups = RowGroups::open(path, &columns, T::WHAT)?;
        Ok(Self { groups, columns, cells: None, in_group: 0, at: 0, before: 0, is_over: false, read })
    }

    /// Whether it says that silkrate made it as it is.
    pub(super) fn is_of_silkrate(&self) -> bool {
        self.groups.is_of_silkrate()
    }

    /// For messages.
    pub(super) fn file(&self) -> &str {
        self.groups.name()
    }

    /// Rows of the file, as it says itself.
    pub(super) fn total(&self) -> u64 {
        self.groups.row_count()
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
                let file = self.file().to_owned();
                Err(ReadError::Cell { file, row: self.next_number(), column, problem })
            }
        }
    }

    /// Decodes the next row group where the last one is used up; says whether there is a next row.
    fn ensure(&mut self) -> Result<bool, ReadError> {
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

    /// The columns of a row group, as this reads them.
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
        let other = || ReadError::Parquet { file: file(), problem: "a row group has other columns".to_owned() };
        T::cells(&Frame::new(&self.columns, columns)).ok_or_else(other)
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
        Ok(columns
            .map(|(pairs, sources)| (pairs.get(self.at).unwrap_or_default(), sources.get(self.at).unwrap_or_default())))
    }

    /// Makes sure that no row is left.
    pub(super) fn expect_end(&mut self) -> Result<(), ReadError> {
        let Some((pair, source)) = self.next_series()? else { return Ok(()) };
        let (pair, source_name) = (truncate_for_display(pair), truncate_for_display(source));
        Err(ReadError::Order { file: self.file().to_owned(), row: self.next_number(), pair, source_name })
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

/// The recorded time of the next commit, whose sequence must be this one.
pub(super) fn next_commit(rows: &mut Rows<'_, CommitRow>, expected: u64) -> Result<Option<Timestamp>, ReadError> {
    let row = rows.next_number();
    let Some(CommitRow(found, recorded_time)) = rows.next_row()? else { return Ok(None) };
    if found != expected {
        let problem = CellProblem::Sequence { expected, found };
        return Err(ReadError::Cell { file: rows.file().to_owned(), row, column: SEQUENCE.name, problem });
    }
    Ok(Some(recorded_time))
}
