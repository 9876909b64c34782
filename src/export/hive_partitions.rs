//! Writes the Arrow stream of an export as a Hive-partitioned dataset of Parquet files, such as
//! `pair=KGS%2FUSD/month=2025-12/part-0.parquet`.
//!
//! The files do not contain the columns that the path gives; tools that read the dataset as one table add these
//! columns. Special characters in a value are escaped as `%` and two hexadecimal digits, as in Hive. `DuckDB`, polars,
//! pyarrow and Spark decode them and show the pair as `KGS/USD`.
//!
//! The month of a day or candle is the month of its local date: February in Tashkent begins on 31 January, 19:00 UTC, and
//! is stored under February.
//!
//! **Invariant**: only one file is open at a time, because rows arrive in order, so memory is bounded whatever the size
//! of the export. Each row is in exactly one file.

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
use super::schema::{Column, DATE, FIRST_OBSERVED, PAIR, Part, SOURCE};
use crate::analysis::Zone;
use crate::domain::Timestamp;

/// A key of the partition directories.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartitionKey {
    /// The pair: `pair=KGS%2FUSD`.
    Pair,
    /// The source: `source=nbkr`.
    Source,
    /// The month: `month=2025-12`. For runs the month of the first observed time, UTC; for days and candles the month of
    /// the date, in their time zone. The exported table has no such column.
    Month,
}

impl PartitionKey {
    /// Every key.
    pub const ALL: [Self; 3] = [Self::Pair, Self::Source, Self::Month];

    /// The name of the column that tools derive from the directory names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Source => "source",
            Self::Month => "month",
        }
    }
}

/// Why a partitioned dataset could not be written.
#[derive(Debug, Error)]
pub enum PartitionError {
    /// A file or directory could not be created or written.
    #[error("{path}: {problem}", path = path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The I/O error.
        problem: io::Error,
    },
    /// The received bytes are not a valid Arrow stream.
    #[error("the export cannot be read as an Arrow stream: {0}")]
    Arrow(#[from] IpcError),
    /// The rows of a file could not be encoded.
    #[error("{path}: {problem}", path = path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The error of the Parquet library.
        problem: PolarsError,
    },
    /// A column is missing, is unknown, or has an unexpected type.
    #[error("the export has no column {0} of the type that this command expects; use the server's version of silkrate")]
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

/// Decodes the bytes of an Arrow stream and writes the partitioned dataset.
pub struct PartitionWriter {
    decoder: IpcDecoder,
    dataset: PartitionedDataset,
}

/// The files of a partitioned dataset.
struct PartitionedDataset {
    root: PathBuf,
    keys: Arc<[PartitionKey]>,
    /// Columns and metadata of the files, without the columns that the paths give. `None` before the first rows.
    file_schema: Option<FileSchema>,
    open: Option<OpenFile>,
    /// Number of files created in each directory.
    file_counts: HashMap<PathBuf, u64>,
    totals: PartitionTotals,
}

/// The columns of the dataset's files and the metadata of their footers.
#[derive(Clone)]
struct FileSchema {
    columns: Vec<Column>,
    metadata: Vec<(String, String)>,
}

/// The size of a partitioned dataset.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PartitionTotals {
    /// Rows in all files.
    pub row_count: u64,
    /// Bytes of all files on disk.
    pub byte_count: u64,
}

/// The file that is being written.
struct OpenFile {
    /// [`Destination::identity`] of its rows.
    identity: Vec<String>,
    path: PathBuf,
    file: ParquetFile<File>,
    /// Rows of the next row group, one chunk per batch.
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
    /// Creates a writer for the directory `root`, which must exist and be empty.
    pub fn new(root: &Path, keys: Vec<PartitionKey>) -> Self {
        let dataset = PartitionedDataset {
            root: root.to_owned(),
            keys: keys.into(),
            file_schema: None,
            open: None,
            file_counts: HashMap::new(),
            totals: PartitionTotals::default(),
        };
        Self { decoder: IpcDecoder::default(), dataset }
    }

    /// Writes the rows of the next bytes of the stream. Blocks the thread.
    ///
    /// # Errors
    /// Any [`PartitionError`]; then the dataset is incomplete.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PartitionError> {
        let Self { decoder, dataset } = self;
        decoder.push(bytes, |decoder, batch| {
            if dataset.file_schema.is_none() {
                dataset.file_schema = Some(FileSchema::of(decoder, &dataset.keys)?);
            }
            dataset.write_batch(&batch)
        })
    }

    /// Completes the last file and syncs all files and directories. An export without rows gets one file without rows,
    /// so that readers of the dataset find its columns.
    ///
    /// # Errors
    /// Any [`PartitionError`].
    pub fn finish(self) -> Result<PartitionTotals, PartitionError> {
        let Self { decoder, mut dataset } = self;
        decoder.finish()?;
        dataset.close()?;
        if dataset.file_counts.is_empty() {
            dataset.file_schema = Some(FileSchema::of(&decoder, &dataset.keys)?);
            dataset.open = Some(dataset.create(&Destination::without_rows(&dataset.keys))?);
            dataset.close()?;
        }
        for directory in dataset.file_counts.keys().flat_map(|directory| directory.ancestors()) {
            if directory.starts_with(&dataset.root) {
                sync(directory)?;
            }
        }
        Ok(dataset.totals)
    }
}

impl FileSchema {
    /// Takes columns and metadata from the decoded stream, without the columns of `keys`, which the paths give.
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

/// Returns the column with this name. It has the same type in every part.
fn known_column(name: &str) -> Option<Column> {
    Part::partitionable().flat_map(Part::columns).find(|column| column.name == name).copied()
}

impl PartitionedDataset {
    fn write_batch(&mut self, batch: &Batch) -> Result<(), PartitionError> {
        let keys = Arc::clone(&self.keys);
        let destinations = Destinations::of(batch, &keys)?;
        let frame = self.frame(batch)?;
        let mut begin = 0;
        while begin < batch.height() {
            let destination = destinations.at(begin);
            let len = (begin..batch.height()).take_while(|row| destinations.is_same(begin, *row)).count();
            let offset = i64::try_from(begin).unwrap_or(i64::MAX);
            self.write_rows(&destination, &frame.slice(offset, len))?;
            begin += len;
        }
        self.totals.row_count += batch.height() as u64;
        Ok(())
    }

    /// Returns the rows of a batch with the columns of the files.
    fn frame(&self, batch: &Batch) -> Result<DataFrame, PartitionError> {
        let columns = self.file_schema.iter().flat_map(|schema| &schema.columns).map(|column| {
            let values = array(batch, column)?;
            let field: &ArrowField = &column.arrow_field();
            Ok::<FrameColumn, PartitionError>(Series::try_from((field, values.to_boxed()))?.into_column())
        });
        Ok(DataFrame::new(batch.height(), columns.collect::<Result<_, _>>()?)?)
    }

    fn write_rows(&mut self, destination: &Destination, rows: &DataFrame) -> Result<(), PartitionError> {
        if self.open.as_ref().is_none_or(|open| open.identity != destination.identity) {
            self.close()?;
            self.open = Some(self.create(destination)?);
        }
        self.open.as_mut().map_or(Ok(()), |open| open.push(rows))
    }

    fn create(&mut self, destination: &Destination) -> Result<OpenFile, PartitionError> {
        self.create_directories(destination)?;
        let directory = destination.directories.iter().fold(self.root.clone(), |path, name| path.join(name));
        let count = self.file_counts.entry(directory.clone()).or_default();
        let path = directory.join(part_name(*count));
        *count += 1;
        let created = File::options().write(true).create_new(true).open(&path);
        let file = created.map_err(|problem| PartitionError::Write { path: path.clone(), problem })?;
        let FileSchema { columns, metadata } = self.file_schema.clone().ok_or(IpcError::NoEnd)?;
        let file = ParquetFile::new(file, columns, &metadata)
            .map_err(|problem| PartitionError::Parquet { path: path.clone(), problem })?;
        Ok(OpenFile { identity: destination.identity.clone(), path, file, pending: None })
    }

    /// Creates the directories of a destination below the root. Does not create the root itself: if the root has been
    /// removed, the export must fail.
    fn create_directories(&self, destination: &Destination) -> Result<(), PartitionError> {
        let mut path = self.root.clone();
        for name in &destination.directories {
            path.push(name);
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

/// The file that consecutive rows belong to.
struct Destination {
    /// Names of the partition directories, from the root down.
    directories: Vec<String>,
    /// Identity of the file: the directories, the pair and the source. A file has rows of one series only.
    identity: Vec<String>,
}

/// The value of each key if the export has no rows. Hive's value for null is not used, because pyarrow cannot infer the
/// type of a column that has only this value.
const NO_VALUE: &str = "none";

impl Destination {
    /// The destination of the only file of an export without rows.
    fn without_rows(keys: &[PartitionKey]) -> Self {
        let directories: Vec<String> = keys.iter().map(|key| format!("{}={NO_VALUE}", key.name())).collect();
        Self { identity: directories.clone(), directories }
    }
}

/// The destinations of the rows of a batch.
struct Destinations<'a> {
    keys: &'a [PartitionKey],
    pairs: NameColumn<'a>,
    sources: NameColumn<'a>,
    /// Year and month of each row.
    months: Vec<(i32, u32)>,
}

/// A dictionary-encoded text column of a batch.
struct NameColumn<'a> {
    /// Index in `texts` for each row.
    numbers: &'a [u32],
    texts: &'a Utf8Array<i64>,
}

impl<'a> NameColumn<'a> {
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

/// The values of an integer column in a batch.
fn integers<'a, T: polars_arrow::types::NativeType>(
    batch: &'a Batch,
    column: &Column,
) -> Result<&'a [T], PartitionError> {
    let integers = array(batch, column)?.as_any().downcast_ref::<PrimitiveArray<T>>();
    let missing = || PartitionError::NoColumn(column.name.to_owned());
    integers.map(|integers| integers.values().as_slice()).ok_or_else(missing)
}

impl<'a> Destinations<'a> {
    fn of(batch: &'a Batch, keys: &'a [PartitionKey]) -> Result<Self, PartitionError> {
        let months = if batch.schema().contains(DATE.name) {
            let start = |day: i32| Timestamp::from_micros(i64::from(day) * Timestamp::DAY_US);
            integers(batch, &DATE)?.iter().map(|day| Zone::UTC.month_of(start(*day))).collect()
        } else {
            let month = |micros: &i64| Zone::UTC.month_of(Timestamp::from_micros(*micros));
            integers(batch, &FIRST_OBSERVED)?.iter().map(month).collect()
        };
        let (pairs, sources) = (NameColumn::of(batch, &PAIR)?, NameColumn::of(batch, &SOURCE)?);
        Ok(Self { keys, pairs, sources, months })
    }

    /// Returns true if two rows belong to the same file.
    fn is_same(&self, row: usize, other: usize) -> bool {
        self.pairs.numbers[row] == self.pairs.numbers[other]
            && self.sources.numbers[row] == self.sources.numbers[other]
            && (self.months[row] == self.months[other] || !self.keys.contains(&PartitionKey::Month))
    }

    fn at(&self, row: usize) -> Destination {
        let value = |key: PartitionKey| match key {
            PartitionKey::Pair => escape(self.pairs.text(row)),
            PartitionKey::Source => escape(self.sources.text(row)),
            PartitionKey::Month => {
                let (year, month) = self.months[row];
                format!("{year:04}-{month:02}")
            }
        };
        let directory = |key: &PartitionKey| format!("{}={}", key.name(), value(*key));
        let directories: Vec<String> = self.keys.iter().map(directory).collect();
        let series = [value(PartitionKey::Pair), value(PartitionKey::Source)];
        Destination { identity: directories.iter().cloned().chain(series).collect(), directories }
    }
}

/// Returns the number in the name of a partition file, such as 0 in `part-0.parquet`; `None` for any other name.
pub fn part_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("part-")?.strip_suffix(".parquet")?;
    let number = number.parse().ok()?;
    (part_name(number) == name).then_some(number)
}

fn part_name(number: u64) -> String {
    format!("part-{number}.parquet")
}

/// Escapes a partition value as Hive does: `%` and two hexadecimal digits for special characters.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_values_are_percent_encoded() {
        let check = |text: &str, expect: &str| assert_eq!(escape(text), expect);
        check("KGS/USD", "KGS%2FUSD");
        check("nbkr-2", "nbkr-2");
        check("a=b%", "a%3Db%25");
    }
}
