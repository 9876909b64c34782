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

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Date32Type, Int32Type, TimestampMicrosecondType};
use arrow_array::{Array as _, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::{ArrowError, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use prost::bytes::Bytes;
use thiserror::Error;

use super::candle_rows::CandleColumn;
use super::encode::ZSTD_LEVEL;
use super::layout::{Column, FILTER_KEY};
use super::manifest::filter_of_parquet;
use super::seal::{self, CREATED_BY, SealWriter};
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
pub enum TreeError {
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
    Arrow(#[from] ArrowError),
    /// A file of the tree could not be written.
    #[error("{path}: {problem}", path = path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: ParquetError,
    },
    /// A column to partition by is not there, or not of the type that is known.
    #[error("the export has no column {0} to partition by")]
    NoColumn(&'static str),
}

/// Takes the bytes of an Arrow stream and writes the tree.
pub struct PartitionWriter {
    root: PathBuf,
    keys: Arc<[PartitionKey]>,
    /// Whose clocks tell the month.
    zone: Zone,
    decoder: StreamDecoder,
    /// Of the files: without the columns that the paths tell.
    schema: Option<(SchemaRef, Vec<usize>)>,
    open: Option<OpenFile>,
    /// How many files each directory has.
    file_counts: HashMap<PathBuf, u64>,
    totals: TreeTotals,
}

/// What a tree consists of.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TreeTotals {
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
    writer: ArrowWriter<SealWriter<File>>,
}

impl PartitionWriter {
    /// Into the directory `root`, which is there and empty. The zone is that of the candles, if it is an export of such.
    pub fn new(root: &Path, keys: Vec<PartitionKey>, manifest: &v1::ExportManifest) -> Self {
        let zone = manifest.request.as_ref().map_or("", |request| request.time_zone.as_str());
        Self {
            root: root.to_owned(),
            keys: keys.into(),
            // A server's own echo: it is empty for UTC, and otherwise a zone.
            zone: Zone::parse(zone).unwrap_or(Zone::UTC),
            decoder: StreamDecoder::new(),
            schema: None,
            open: None,
            file_counts: HashMap::new(),
            totals: TreeTotals::default(),
        }
    }

    /// Takes the next bytes of the stream. Blocks.
    ///
    /// # Errors
    /// Any [`TreeError`]; then the tree is not whole.
    pub fn write(&mut self, bytes: Bytes) -> Result<(), TreeError> {
        let mut buffer = Buffer::from(bytes);
        while !buffer.is_empty() {
            if let Some(batch) = self.decoder.decode(&mut buffer)? {
                self.write_batch(&batch)?;
            }
        }
        Ok(())
    }

    /// Ends the last file, everything durable. Where no row came there is one file without rows, so that whoever reads
    /// the tree finds its columns.
    ///
    /// # Errors
    /// Any [`TreeError`].
    pub fn finish(mut self) -> Result<TreeTotals, TreeError> {
        self.decoder.finish()?;
        self.close()?;
        if let (true, Some(table)) = (self.file_counts.is_empty(), self.decoder.schema()) {
            self.open = Some(self.create(&Segment::without_rows(&self.keys), &table)?);
            self.close()?;
        }
        for directory in self.file_counts.keys().flat_map(|directory| directory.ancestors()) {
            if directory.starts_with(&self.root) {
                sync(directory)?;
            }
        }
        Ok(self.totals)
    }

    fn write_batch(&mut self, batch: &RecordBatch) -> Result<(), TreeError> {
        let keys = Arc::clone(&self.keys);
        let segments = Segments::of(batch, &keys, self.zone)?;
        let mut begin = 0;
        while begin < batch.num_rows() {
            let segment = segments.at(begin);
            let len = (begin..batch.num_rows()).take_while(|row| segments.is_same(begin, *row)).count();
            self.write_segment(&segment, &batch.slice(begin, len))?;
            begin += len;
        }
        self.totals.row_count += batch.num_rows() as u64;
        Ok(())
    }

    fn write_segment(&mut self, segment: &Segment, rows: &RecordBatch) -> Result<(), TreeError> {
        if self.open.as_ref().is_none_or(|open| open.segment != segment.identity) {
            self.close()?;
            self.open = Some(self.create(segment, &rows.schema())?);
        }
        let (Some(open), Some((_, kept))) = (&mut self.open, &self.schema) else { return Ok(()) };
        let rows = rows.project(kept)?;
        open.writer.write(&rows).map_err(|problem| TreeError::Parquet { path: open.path.clone(), problem })
    }

    fn create(&mut self, segment: &Segment, table: &SchemaRef) -> Result<OpenFile, TreeError> {
        self.make_directories(segment)?;
        let (schema, _) = self.schema.get_or_insert_with(|| without(table, &self.keys));
        let directory = segment.path.iter().fold(self.root.clone(), |path, part| path.join(part));
        let failed = |path: &Path| {
            let path = path.to_owned();
            |problem| TreeError::Write { path, problem }
        };
        let count = self.file_counts.entry(directory.clone()).or_default();
        let path = directory.join(part_name(*count));
        *count += 1;
        let file = File::options().write(true).create_new(true).open(&path).map_err(failed(&path))?;
        let properties = properties(schema).map_err(|problem| TreeError::Parquet { path: path.clone(), problem })?;
        let writer = ArrowWriter::try_new(SealWriter::new(file), Arc::clone(schema), Some(properties))
            .map_err(|problem| TreeError::Parquet { path: path.clone(), problem })?;
        Ok(OpenFile { segment: segment.identity.clone(), path, writer })
    }

    /// Those of a segment, but not the root: once that is removed, nothing comes back.
    fn make_directories(&self, segment: &Segment) -> Result<(), TreeError> {
        let mut path = self.root.clone();
        for part in &segment.path {
            path.push(part);
            match fs::create_dir(&path) {
                Err(problem) if problem.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(TreeError::Write { path, problem });
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), TreeError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let OpenFile { path, writer, .. } = open;
        match seal::end(writer) {
            Ok(file) => {
                let synced = file.sync_all().and_then(|()| file.metadata());
                self.totals.byte_count += synced.map_err(|problem| TreeError::Write { path, problem })?.len();
                Ok(())
            }
            Err(problem) => Err(TreeError::Parquet { path, problem }),
        }
    }
}

fn sync(directory: &Path) -> Result<(), TreeError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|problem| TreeError::Write { path: directory.to_owned(), problem })
}

/// The table without the columns that paths tell, and which of its columns are left.
fn without(table: &Schema, keys: &[PartitionKey]) -> (SchemaRef, Vec<usize>) {
    let is_kept = |name: &str| keys.iter().all(|key| key.name() != name);
    let kept: Vec<usize> = (0..table.fields().len()).filter(|at| is_kept(table.field(*at).name())).collect();
    let fields: Vec<_> = kept.iter().map(|at| Arc::clone(&table.fields()[*at])).collect();
    let mut metadata = table.metadata().clone();
    if let Some(filter) = metadata.get(FILTER_KEY).map(|filter| filter_of_parquet(filter)) {
        metadata.insert(FILTER_KEY.to_owned(), filter);
    }
    (Arc::new(Schema::new_with_metadata(fields, metadata)), kept)
}

fn properties(schema: &Schema) -> Result<WriterProperties, ParquetError> {
    let metadata: Vec<KeyValue> =
        schema.metadata().iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    Ok(WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_key_value_metadata(Some(metadata))
        .build())
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
    numbers: &'a [i32],
    texts: &'a arrow_array::StringArray,
}

impl<'a> Names<'a> {
    fn of(batch: &'a RecordBatch, column: Column) -> Result<Self, TreeError> {
        let missing = TreeError::NoColumn(column.name());
        let Some(array) = batch.column_by_name(column.name()) else { return Err(missing) };
        let Some(array) = array.as_dictionary_opt::<Int32Type>() else { return Err(missing) };
        let Some(texts) = array.values().as_string_opt::<i32>() else { return Err(missing) };
        Ok(Self { numbers: array.keys().values(), texts })
    }

    fn text(&self, row: usize) -> &str {
        let number = usize::try_from(self.numbers[row]).unwrap_or(usize::MAX);
        if number < self.texts.len() { self.texts.value(number) } else { "" }
    }
}

impl<'a> Segments<'a> {
    fn of(batch: &'a RecordBatch, keys: &'a [PartitionKey], zone: Zone) -> Result<Self, TreeError> {
        let dates = batch.column_by_name(Column::Date.name());
        let months = if let Some(days) = dates.and_then(|dates| dates.as_primitive_opt::<Date32Type>()) {
            let start = |day: i32| Timestamp::from_micros(i64::from(day) * Timestamp::DAY_US);
            days.values().iter().map(|day| Zone::UTC.month_of(start(*day))).collect()
        } else {
            let missing = TreeError::NoColumn(Column::FirstObserved.name());
            let times = [Column::FirstObserved, Column::Candle(CandleColumn::Start)];
            let times = times.iter().find_map(|column| batch.column_by_name(column.name()));
            let times = times.and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>()).ok_or(missing)?;
            times.values().iter().map(|micros| zone.month_of(Timestamp::from_micros(*micros))).collect()
        };
        Ok(Self { keys, pairs: Names::of(batch, Column::Pair)?, sources: Names::of(batch, Column::Source)?, months })
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
