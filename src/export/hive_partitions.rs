//! An Arrow stream of an export into a Hive-style tree: `pair=KGS%2FUSD/month=2025-12/part-0.parquet`.
//!
//! The columns that the path tells are not in the files: tools that read the tree as one table add them. A value is
//! escaped by `%` and two digits, as Hive does, and as `DuckDB`, polars, pyarrow and Spark undo it: the pair they show is
//! `KGS/USD`.
//!
//! The month of a candle is that of its zone: February of Tashkent begins on 31 January, 19:00 UTC, and lies under
//! February.
//!
//! **Invariant**: one file is open at a time, since rows come in order: memory is bounded whatever the size. A row is
//! in exactly one file.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polars::prelude::{ArrowField, Column as FrameColumn, DataFrame, IntoColumn as _, PlSmallStr, PolarsError, Series};
use polars_arrow::array::{DictionaryArray, PrimitiveArray, Utf8Array};
use thiserror::Error;

use super::ipc::{Batch, IpcDecoder, IpcError};
use super::manifest::filter_of_parquet;
use super::parquet_file::{ParquetFile, ParquetFileError, ROW_GROUP_ROWS_MAX};
use super::request::FILTER_KEY;
use super::schema::{Column, DATE, FIRST_OBSERVED, PAIR, Part, SOURCE, START};
use crate::analysis::Zone;
use crate::domain::Timestamp;
use crate::proto::v1;

/// What the directories of a tree are named after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartitionKey {
    /// `pair=KGS%2FUSD`.
    Pair,
    /// `source=nbkr`.
    Source,
    /// `month=2025-12`: of the first observed time or the day, UTC; of the start of a candle, by the clocks of its zone.
    /// No column of the table itself.
    Month,
}

impl PartitionKey {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Pair, Self::Source, Self::Month];

    /// The name of the column that the tree gives to a table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Source => "source",
            Self::Month => "month",
        }
    }
}

/// Why a tree could not be written.
#[derive(Debug, Error)]
pub enum PartitionError {
    /// The system refused.
    #[error("{path}: {problem}", path = path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        problem: io::Error,
    },
    /// What came is no stream of such a table.
    #[error("the export cannot be read as an Arrow stream: {0}")]
    Arrow(#[from] IpcError),
    /// A file of the tree could not be encoded.
    #[error("{path}: {problem}", path = path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: PolarsError,
    },
    /// A column is not there, or not of the type that is known.
    #[error("the export has no column {0} as this command knows it; use the server's version of silkrate")]
    NoColumn(String),
}

impl PartitionError {
    fn of_file(path: &Path, error: ParquetFileError) -> Self {
        let path = path.to_owned();
        match error {
            ParquetFileError::Write(problem) => Self::Write { path, problem },
            ParquetFileError::Encode(problem) => Self::Parquet { path, problem },
        }
    }
}

impl From<PolarsError> for PartitionError {
    fn from(error: PolarsError) -> Self {
        Self::Arrow(error.into())
    }
}

/// Takes the bytes of an Arrow stream and writes the tree.
pub struct PartitionWriter {
    decoder: IpcDecoder,
    tree: Tree,
}

/// The files of a tree.
struct Tree {
    root: PathBuf,
    keys: Arc<[PartitionKey]>,
    /// Whose clocks tell the month.
    zone: Zone,
    /// Of the files: without the columns that the paths tell. None before the first rows.
    table: Option<Table>,
    open: Option<OpenFile>,
    /// How many files each directory has.
    file_counts: HashMap<PathBuf, u64>,
    totals: PartitionTotals,
}

/// The columns of a tree's files, and what their footers hold.
#[derive(Clone)]
struct Table {
    columns: Vec<Column>,
    metadata: Vec<(String, String)>,
}

/// What a tree consists of.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PartitionTotals {
    /// In all files.
    pub row_count: u64,
    /// Of all files, on disk.
    pub byte_count: u64,
}

/// The file that rows go into.
struct OpenFile {
    /// Of the series and the month that its rows are of.
    segment: Vec<String>,
    path: PathBuf,
    file: ParquetFile<File>,
    /// Rows of the next row group, a frame of each batch.
    pending: Option<DataFrame>,
}

impl OpenFile {
    fn push(&mut self, rows: &DataFrame) -> Result<(), PartitionError> {
        match &mut self.pending {
            Some(pending) => {
                pending.vstack_mut(rows)?;
            }
            None => self.pending = Some(rows.clone()),
        }
        let is_full = |pending: &DataFrame| pending.height() >= ROW_GROUP_ROWS_MAX;
        if self.pending.as_ref().is_some_and(is_full) { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), PartitionError> {
        let Some(mut rows) = self.pending.take() else { return Ok(()) };
        rows.rechunk_mut();
        self.file.write(&rows).map_err(|error| PartitionError::of_file(&self.path, error))
    }
}

impl PartitionWriter {
    /// Into the directory `root`, which is there and empty. The zone is that of the candles, if it is an export of such.
    pub fn new(root: &Path, keys: Vec<PartitionKey>, manifest: &v1::ExportManifest) -> Self {
        let zone = manifest.request.as_ref().map_or("", |request| request.time_zone.as_str());
        let tree = Tree {
            root: root.to_owned(),
            keys: keys.into(),
            // A server's own echo: it is empty for UTC, and otherwise a zone.
            zone: Zone::parse(zone).unwrap_or(Zone::UTC),
            table: None,
            open: None,
            file_counts: HashMap::new(),
            totals: PartitionTotals::default(),
        };
        Self { decoder: IpcDecoder::default(), tree }
    }

    /// Takes the next bytes of the stream. Blocks.
    ///
    /// # Errors
    /// Any [`PartitionError`]; then the tree is not whole.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PartitionError> {
        let Self { decoder, tree } = self;
        decoder.push(bytes, |decoder, batch| {
            if tree.table.is_none() {
                tree.table = Some(Table::of(decoder, &tree.keys)?);
            }
            tree.write_batch(&batch)
        })
    }

    /// Ends the last file, everything durable. Where no row came there is one file without rows, so that whoever reads
    /// the tree finds its columns.
    ///
    /// # Errors
    /// Any [`PartitionError`].
    pub fn finish(self) -> Result<PartitionTotals, PartitionError> {
        let Self { decoder, mut tree } = self;
        decoder.finish()?;
        tree.close()?;
        if tree.file_counts.is_empty() {
            tree.table = Some(Table::of(&decoder, &tree.keys)?);
            tree.open = Some(tree.create(&Segment::without_rows(&tree.keys))?);
            tree.close()?;
        }
        for directory in tree.file_counts.keys().flat_map(|directory| directory.ancestors()) {
            if directory.starts_with(&tree.root) {
                sync(directory)?;
            }
        }
        Ok(tree.totals)
    }
}

impl Table {
    /// Of the columns that have come, without those that paths tell.
    fn of(decoder: &IpcDecoder, keys: &[PartitionKey]) -> Result<Self, PartitionError> {
        let stream = decoder.metadata().ok_or(IpcError::NoEnd)?;
        let is_kept = |name: &&str| keys.iter().all(|key| key.name() != *name);
        let names = stream.schema.iter_names().map(PlSmallStr::as_str).filter(is_kept);
        let column = |name: &str| known_column(name).ok_or_else(|| PartitionError::NoColumn(name.to_owned()));
        let columns = names.map(column).collect::<Result<_, _>>()?;
        let metadata = stream.custom_schema_metadata.iter().flatten();
        let pair = |(key, value): (&_, &_)| {
            let (key, value) = (ToString::to_string(key), ToString::to_string(value));
            if key == FILTER_KEY { (key, filter_of_parquet(&value)) } else { (key, value) }
        };
        Ok(Self { columns, metadata: metadata.map(pair).collect() })
    }
}

/// The column of this name; it has the same type in every part.
fn known_column(name: &str) -> Option<Column> {
    Part::of_trees().flat_map(Part::columns).find(|column| column.name == name).copied()
}

impl Tree {
    fn write_batch(&mut self, batch: &Batch) -> Result<(), PartitionError> {
        let keys = Arc::clone(&self.keys);
        let segments = Segments::of(batch, &keys, self.zone)?;
        let frame = self.frame(batch)?;
        let mut begin = 0;
        while begin < batch.height() {
            let segment = segments.at(begin);
            let len = (begin..batch.height()).take_while(|row| segments.is_same(begin, *row)).count();
            let offset = i64::try_from(begin).unwrap_or(i64::MAX);
            self.write_segment(&segment, &frame.slice(offset, len))?;
            begin += len;
        }
        self.totals.row_count += batch.height() as u64;
        Ok(())
    }

    /// The columns of the files, of a batch.
    fn frame(&self, batch: &Batch) -> Result<DataFrame, PartitionError> {
        let columns = self.table.iter().flat_map(|table| &table.columns).map(|column| {
            let values = array(batch, column)?;
            let field: &ArrowField = &column.arrow_field();
            Ok::<FrameColumn, PartitionError>(Series::try_from((field, values.to_boxed()))?.into_column())
        });
        Ok(DataFrame::new(batch.height(), columns.collect::<Result<_, _>>()?)?)
    }

    fn write_segment(&mut self, segment: &Segment, rows: &DataFrame) -> Result<(), PartitionError> {
        if self.open.as_ref().is_none_or(|open| open.segment != segment.identity) {
            self.close()?;
            self.open = Some(self.create(segment)?);
        }
        self.open.as_mut().map_or(Ok(()), |open| open.push(rows))
    }

    fn create(&mut self, segment: &Segment) -> Result<OpenFile, PartitionError> {
        self.make_directories(segment)?;
        let directory = segment.path.iter().fold(self.root.clone(), |path, part| path.join(part));
        let count = self.file_counts.entry(directory.clone()).or_default();
        let path = directory.join(part_name(*count));
        *count += 1;
        let created = File::options().write(true).create_new(true).open(&path);
        let file = created.map_err(|problem| PartitionError::Write { path: path.clone(), problem })?;
        let Table { columns, metadata } = self.table.clone().ok_or(IpcError::NoEnd)?;
        let file = ParquetFile::new(file, columns, &metadata)
            .map_err(|problem| PartitionError::Parquet { path: path.clone(), problem })?;
        Ok(OpenFile { segment: segment.identity.clone(), path, file, pending: None })
    }

    /// Those of a segment, but not the root: once that is removed, nothing comes back.
    fn make_directories(&self, segment: &Segment) -> Result<(), PartitionError> {
        let mut path = self.root.clone();
        for part in &segment.path {
            path.push(part);
            match fs::create_dir(&path) {
                Err(problem) if problem.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(PartitionError::Write { path, problem });
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), PartitionError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.flush()?;
        let OpenFile { path, file, .. } = open;
        let file = file.end().map_err(|error| PartitionError::of_file(&path, error))?;
        let synced = file.sync_all().and_then(|()| file.metadata());
        self.totals.byte_count += synced.map_err(|problem| PartitionError::Write { path, problem })?.len();
        Ok(())
    }
}

fn sync(directory: &Path) -> Result<(), PartitionError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|problem| PartitionError::Write { path: directory.to_owned(), problem })
}

/// The values of a column in a batch.
fn array<'b>(batch: &'b Batch, column: &Column) -> Result<&'b dyn polars_arrow::array::Array, PartitionError> {
    let at = batch.schema().index_of(column.name);
    let array = at.and_then(|at| batch.arrays().get(at)).map(AsRef::as_ref);
    array.ok_or_else(|| PartitionError::NoColumn(column.name.to_owned()))
}

/// A stretch of rows that goes into one file.
struct Segment {
    /// Names of the directories.
    path: Vec<String>,
    /// The same, with series and month whether or not a directory is named after them.
    identity: Vec<String>,
}

/// The value of each key where there is no row to have one. Not that which Hive has for null: pyarrow finds no type of a
/// column that has no other.
const NO_VALUE: &str = "none";

impl Segment {
    /// Where the one file of an export without rows goes.
    fn without_rows(keys: &[PartitionKey]) -> Self {
        let path: Vec<String> = keys.iter().map(|key| format!("{}={NO_VALUE}", key.name())).collect();
        Self { identity: path.clone(), path }
    }
}

/// Which segment each row of a batch belongs to.
struct Segments<'a> {
    keys: &'a [PartitionKey],
    pairs: Names<'a>,
    sources: Names<'a>,
    months: Vec<(i32, u32)>,
}

/// A dictionary column of texts.
struct Names<'a> {
    numbers: &'a [u32],
    texts: &'a Utf8Array<i64>,
}

impl<'a> Names<'a> {
    fn of(batch: &'a Batch, column: &Column) -> Result<Self, PartitionError> {
        let missing = || PartitionError::NoColumn(column.name.to_owned());
        let names = array(batch, column)?.as_any().downcast_ref::<DictionaryArray<u32>>().ok_or_else(missing)?;
        let texts = names.values().as_any().downcast_ref::<Utf8Array<i64>>().ok_or_else(missing)?;
        Ok(Self { numbers: names.keys().values().as_slice(), texts })
    }

    fn text(&self, row: usize) -> &str {
        let number = self.numbers[row] as usize;
        if number < self.texts.len() { self.texts.value(number) } else { "" }
    }
}

/// The values of a column of integers.
fn integers<'a, T: polars_arrow::types::NativeType>(
    batch: &'a Batch,
    column: &Column,
) -> Result<&'a [T], PartitionError> {
    let integers = array(batch, column)?.as_any().downcast_ref::<PrimitiveArray<T>>();
    let missing = || PartitionError::NoColumn(column.name.to_owned());
    integers.map(|integers| integers.values().as_slice()).ok_or_else(missing)
}

impl<'a> Segments<'a> {
    fn of(batch: &'a Batch, keys: &'a [PartitionKey], zone: Zone) -> Result<Self, PartitionError> {
        let months = if batch.schema().contains(DATE.name) {
            let start = |day: i32| Timestamp::from_micros(i64::from(day) * Timestamp::DAY_US);
            integers(batch, &DATE)?.iter().map(|day| Zone::UTC.month_of(start(*day))).collect()
        } else {
            let time = if batch.schema().contains(START.name) { START } else { FIRST_OBSERVED };
            integers(batch, &time)?.iter().map(|micros| zone.month_of(Timestamp::from_micros(*micros))).collect()
        };
        Ok(Self { keys, pairs: Names::of(batch, &PAIR)?, sources: Names::of(batch, &SOURCE)?, months })
    }

    fn is_same(&self, row: usize, other: usize) -> bool {
        self.pairs.numbers[row] == self.pairs.numbers[other]
            && self.sources.numbers[row] == self.sources.numbers[other]
            && (self.months[row] == self.months[other] || !self.keys.contains(&PartitionKey::Month))
    }

    fn at(&self, row: usize) -> Segment {
        let value = |key: PartitionKey| match key {
            PartitionKey::Pair => escape(self.pairs.text(row)),
            PartitionKey::Source => escape(self.sources.text(row)),
            PartitionKey::Month => {
                let (year, month) = self.months[row];
                format!("{year:04}-{month:02}")
            }
        };
        let path: Vec<String> = self.keys.iter().map(|key| format!("{}={}", key.name(), value(*key))).collect();
        let series = [value(PartitionKey::Pair), value(PartitionKey::Source)];
        Segment { identity: path.iter().cloned().chain(series).collect(), path }
    }
}

/// The number of a file of a tree, by its name.
pub fn part_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("part-")?.strip_suffix(".parquet")?;
    let number = number.parse().ok()?;
    (part_name(number) == name).then_some(number)
}

fn part_name(number: u64) -> String {
    format!("part-{number}.parquet")
}

/// As Hive escapes the values of partitions.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_names_of_directories() {
        let check = |text: &str, expect: &str| assert_eq!(escape(text), expect);
        check("KGS/USD", "KGS%2FUSD");
        check("nbkr-2", "nbkr-2");
        check("a=b%", "a%3Db%25");
    }
}
