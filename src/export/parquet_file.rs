//! Writes data frames to a Parquet file, one row group per frame. Several threads encode the columns of a row group
//! while the caller collects the rows of the next one.
//!
//! The frame writer of `polars` chooses the encodings itself, and its files are twice as large. This module therefore
//! makes the pages with `polars-parquet`, with the encoding of each column from [`Kind::encoding`].
//!
//! **Invariant**: row groups are written completely and in order. At most one row group is being encoded. Only the
//! footer entries of the earlier row groups are in memory.

use std::borrow::Cow;
use std::io::{self, Write};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use data_encoding::BASE64;
use polars::prelude::{ArrayRef, Column as FrameColumn, DataFrame, DataType, PolarsError, PolarsResult};
use polars_arrow::array::{Array as _, DictionaryArray, PrimitiveArray, Utf8Array};
use polars_arrow::datatypes::ArrowSchema;
use polars_arrow::io::ipc::write::{default_ipc_fields, schema_to_bytes};
use polars_parquet::parquet::write::{FileWriter, Version, WriteOptions as FileOptions};
use polars_parquet::write::{
    CompressedPage, CompressionOptions, DynIter, DynStreamingIterator, KeyValue, ParquetType, SchemaDescriptor,
    StatisticsOptions, WriteOptions, ZstdLevel, array_to_columns, compress, fallible_streaming_iterator,
    to_parquet_schema,
};

use super::checksum_trailer::{CREATED_BY, ChecksumHandle, ChecksumWriter};
use super::schema::{Column, Kind, arrow_metadata, arrow_schema};
use thiserror::Error;

/// Maximum number of rows in a row group. Memory holds a frame that is being filled, a frame that is being encoded, and
/// the pages of the encoded frame: about 30 MB for runs.
pub(super) const ROW_GROUP_ROWS_MAX: usize = 128 * 1024;
/// The fastest level, because encoding limits the speed of an export.
const ZSTD_LEVEL: i32 = 1;
/// Arrow's standard metadata key for its schema.
const ARROW_SCHEMA_KEY: &str = "ARROW:schema";
/// Maximum number of threads that encode the columns of one row group.
const ENCODE_THREADS_MAX: usize = 4;

/// Why a Parquet file could not be written.
#[derive(Debug, Error)]
pub enum ParquetFileError {
    /// A write failed.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// A frame could not be encoded.
    #[error(transparent)]
    Encode(#[from] PolarsError),
}

/// A Parquet file that is being written, with a [checksum trailer](super::checksum_trailer).
pub(super) struct ParquetFile<W: Write> {
    writer: FileWriter<ChecksumWriter<W>>,
    encoder: Arc<ColumnEncoder>,
    metadata: Vec<KeyValue>,
    checksum: ChecksumHandle,
    pending: Option<PendingRowGroup>,
}

/// The compressed pages of each column of a row group.
type Pages = Vec<Vec<CompressedPage>>;

/// A row group that a background thread encodes.
struct PendingRowGroup {
    rows: u64,
    /// `None` after the thread has been joined.
    thread: Option<JoinHandle<PolarsResult<Pages>>>,
}

impl PendingRowGroup {
    /// Waits for the thread and returns the encoded pages.
    fn pages(&mut self) -> PolarsResult<Pages> {
        let broken = || Err(PolarsError::ComputeError("a row group was not encoded".into()));
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_else(broken)
    }
}

impl Drop for PendingRowGroup {
    /// Waits for the thread, so that the server counts a failed export as a running read until its threads have ended.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // The encoded pages are not needed.
            drop(thread.join());
        }
    }
}

/// Encodes the columns of a row group into compressed pages.
struct ColumnEncoder {
    columns: Vec<Column>,
    types: Vec<ParquetType>,
    options: WriteOptions,
}

impl<W: Write> ParquetFile<W> {
    /// Begins a file with these columns, with `metadata` in its footer.
    ///
    /// # Errors
    /// Returns an error if Parquet cannot represent a column type. The columns of an export never cause an error.
    pub(super) fn new(out: W, columns: Vec<Column>, metadata: &[(String, String)]) -> PolarsResult<Self> {
        let schema = arrow_schema(&columns);
        let descriptor: SchemaDescriptor = to_parquet_schema(&schema)?;
        let types = descriptor.fields().to_vec();
        let (out, checksum) = ChecksumWriter::new(out);
        let options = WriteOptions {
            statistics: StatisticsOptions::default(),
            version: Version::V1,
            compression: CompressionOptions::Zstd(Some(ZstdLevel::try_new(ZSTD_LEVEL)?)),
            data_page_size: None,
        };
        let file_options = FileOptions { write_statistics: true, version: Version::V1 };
        let writer = FileWriter::new(out, descriptor, file_options, Some(CREATED_BY.to_owned()));
        let pair = |(key, value): &(String, String)| KeyValue { key: key.clone(), value: Some(value.clone()) };
        let metadata = metadata.iter().map(pair).chain([schema_pair(&schema, metadata)]).collect();
        let encoder = Arc::new(ColumnEncoder { columns, types, options });
        Ok(Self { writer, encoder, metadata, checksum, pending: None })
    }

    /// Encodes a frame and writes it as a row group.
    ///
    /// # Errors
    /// `Write` if the output fails; `Encode` if a column cannot be encoded.
    pub(super) fn write(&mut self, frame: &DataFrame) -> Result<(), ParquetFileError> {
        self.write_pending()?;
        let pages = self.encoder.encode(frame)?;
        self.write_pages(frame.height() as u64, &pages)
    }

    /// Starts a thread that encodes a frame. The next call on this file writes the row group.
    ///
    /// # Errors
    /// `Write` or `Encode` if the previous row group fails; `Write` if no thread can be started.
    pub(super) fn write_behind(&mut self, frame: DataFrame) -> Result<(), ParquetFileError> {
        self.write_pending()?;
        let (rows, encoder) = (frame.height() as u64, Arc::clone(&self.encoder));
        let thread = thread::Builder::new().name("silkrate-encode".to_owned());
        let thread = thread.spawn(move || encoder.encode(&frame))?;
        self.pending = Some(PendingRowGroup { rows, thread: Some(thread) });
        Ok(())
    }

    /// Waits for the row group that is being encoded, if there is one, and writes it.
    fn write_pending(&mut self) -> Result<(), ParquetFileError> {
        let Some(mut group) = self.pending.take() else { return Ok(()) };
        let pages = group.pages()?;
        self.write_pages(group.rows, &pages)
    }

    fn write_pages(&mut self, rows: u64, pages: &Pages) -> Result<(), ParquetFileError> {
        let columns = pages.iter().map(|pages| {
            let pages = pages.iter().map(Ok::<_, PolarsError>);
            Ok(DynStreamingIterator::new(fallible_streaming_iterator::convert(pages)))
        });
        self.writer.write(rows, DynIter::new(columns)).map_err(|error| self.failure(error.into()))
    }

    /// Returns the I/O error that caused a library error, or the library error if no I/O error caused it.
    fn failure(&self, error: PolarsError) -> ParquetFileError {
        self.checksum.take_failure().map_or(ParquetFileError::Encode(error), ParquetFileError::Write)
    }

    /// Writes the pending row group, the checksum trailer and the footer. Returns the output.
    ///
    /// # Errors
    /// `Write` if the output fails; `Encode` if the pending row group cannot be encoded.
    pub(super) fn end(mut self) -> Result<W, ParquetFileError> {
        self.write_pending()?;
        // If the file has no row groups, the library has not written the leading magic bytes yet. It writes them in
        // `end`.
        self.checksum.begin_footer();
        let metadata = std::mem::take(&mut self.metadata);
        self.writer.end(Some(metadata)).map_err(|error| self.failure(error.into()))?;
        Ok(self.writer.into_inner().write_trailer()?)
    }
}

/// The metadata entry with the Arrow schema. Programs based on Arrow read dictionaries, time zones and `metadata` from
/// this entry, and some programs read `metadata` only from this entry. The writer of polars omits `metadata` in the
/// entry.
fn schema_pair(schema: &ArrowSchema, metadata: &[(String, String)]) -> KeyValue {
    let message = schema_to_bytes(schema, &default_ipc_fields(schema.iter_values()), Some(&arrow_metadata(metadata)));
    // A continuation marker and the length of the message precede an Arrow message.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let framed = [&u32::MAX.to_le_bytes(), length.to_le_bytes().as_slice(), &message].concat();
    KeyValue { key: ARROW_SCHEMA_KEY.to_owned(), value: Some(BASE64.encode(&framed)) }
}

impl ColumnEncoder {
    /// Returns the pages of a row group.
    fn encode(&self, frame: &DataFrame) -> PolarsResult<Pages> {
        let columns = frame.columns();
        let next = AtomicUsize::new(0);
        let encoded: Vec<Mutex<Option<PolarsResult<Vec<CompressedPage>>>>> =
            columns.iter().map(|_| Mutex::default()).collect();
        let work = || {
            while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < columns.len()) {
                let pages = self.encode_column(at, &columns[at]);
                if let Ok(mut slot) = encoded[at].lock() {
                    *slot = Some(pages);
                }
            }
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(ENCODE_THREADS_MAX);
        thread::scope(|scope| {
            for _ in 1..threads.min(columns.len()) {
                scope.spawn(work);
            }
            work();
        });
        let missing = || Err(PolarsError::ComputeError("a column was not encoded".into()));
        let pages = encoded.into_iter().map(|slot| slot.into_inner().ok().flatten().unwrap_or_else(missing));
        pages.collect()
    }

    fn encode_column(&self, at: usize, values: &FrameColumn) -> PolarsResult<Vec<CompressedPage>> {
        let column = &self.columns[at];
        let array = arrow_array(values, column)?;
        let mut compressed = Vec::new();
        for pages in array_to_columns(array, self.types[at].clone(), self.options, &[column.kind.encoding()])? {
            for page in pages {
                compressed.push(compress(page?, Vec::new(), self.options.compression)?);
            }
        }
        Ok(compressed)
    }
}

/// Converts the values of a column to an Arrow array of the schema's type.
///
/// # Errors
/// Returns an error if the values have another type, or if a column that is not nullable has nulls.
pub(super) fn arrow_array(values: &FrameColumn, column: &Column) -> PolarsResult<ArrayRef> {
    let series = values.as_materialized_series();
    match (column.kind, series.dtype()) {
        (Kind::Name, DataType::Categorical(_, _)) => {
            let categories = series.cat32()?;
            let numbers = categories.physical().downcast_iter().next();
            let numbers = numbers.map_or(&[] as &[u32], |numbers| numbers.values().as_slice());
            Ok(Box::new(dictionary(numbers, |number| categories.get_mapping().cat_to_str(number).unwrap_or_default())?))
        }
        _ => series.to_arrow_with_field(0, Cow::Owned(column.arrow_field()), true),
    }
}

/// Builds a dictionary of only the names that occur in `numbers`, in order of first occurrence, so that the statistics
/// of a row group cover only the pairs in it.
fn dictionary<'t>(numbers: &[u32], text: impl Fn(u32) -> &'t str) -> PolarsResult<DictionaryArray<u32>> {
    let mut texts: Vec<&str> = Vec::new();
    // For each number its index in `texts` plus 1; 0 if the number has not occurred.
    let mut positions: Vec<u32> = Vec::new();
    let keys = numbers.iter().map(|number| {
        let at = *number as usize;
        if at >= positions.len() {
            positions.resize(at + 1, 0);
        }
        if positions[at] == 0 {
            texts.push(text(*number));
            positions[at] = u32::try_from(texts.len()).unwrap_or(u32::MAX);
        }
        positions[at] - 1
    });
    let keys: Vec<u32> = keys.collect();
    let values = Utf8Array::<i64>::from_slice(&texts);
    DictionaryArray::try_new(Kind::Name.arrow_type(), PrimitiveArray::from_vec(keys), values.to_boxed())
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Cursor;

    use polars::prelude::{IntoColumn as _, NamedFrom as _, Series};

    use super::*;
    use crate::export::schema::SEQUENCE;

    /// A file with the sequence numbers from 0 to `rows`, in row groups of `group_rows` rows.
    pub(in crate::export) fn written(rows: u64, group_rows: u64) -> Vec<u8> {
        let mut file = ParquetFile::new(Vec::new(), vec![SEQUENCE], &[]).unwrap();
        for start in (0..rows).step_by(usize::try_from(group_rows).unwrap()) {
            let numbers: Vec<u64> = (start..rows.min(start + group_rows)).collect();
            let height = numbers.len();
            let column = Series::new(SEQUENCE.name.into(), numbers).into_column();
            file.write(&DataFrame::new(height, vec![column]).unwrap()).unwrap();
        }
        file.end().unwrap()
    }

    /// Returns `created_by` and the row count of a file.
    pub(in crate::export) fn read_back(bytes: &[u8]) -> (String, u64) {
        let metadata = polars_parquet::read::read_metadata(&mut Cursor::new(bytes)).unwrap();
        (metadata.created_by.unwrap(), metadata.num_rows as u64)
    }

    #[test]
    fn dropping_a_file_waits_for_its_encoding_thread() {
        let mut file = ParquetFile::new(Vec::new(), vec![SEQUENCE], &[]).unwrap();
        let numbers: Vec<u64> = (0..1_000_000).collect();
        let column = Series::new(SEQUENCE.name.into(), &numbers).into_column();
        file.write_behind(DataFrame::new(numbers.len(), vec![column]).unwrap()).unwrap();
        let encoder = Arc::clone(&file.encoder);
        drop(file);
        assert_eq!(Arc::strong_count(&encoder), 1, "a thread is still encoding");
    }

    #[test]
    fn dictionary_contains_only_the_names_of_its_rows() {
        let texts = ["a", "b", "c", "d"];
        let check = |numbers: &[u32], keys: &[u32], names: &[&str]| {
            let array = dictionary(numbers, |number| texts[number as usize]).unwrap();
            assert_eq!(array.keys().values().as_slice(), keys);
            let values = array.values().as_any().downcast_ref::<Utf8Array<i64>>().unwrap();
            assert_eq!(values.values_iter().collect::<Vec<_>>(), names);
        };
        check(&[2, 2, 3, 0, 3], &[0, 0, 1, 2, 1], &["c", "d", "a"]);
        check(&[], &[], &[]);
    }
}
