//! Data frames to a Parquet file: one row group a frame, its columns encoded on several threads, while the rows of the next
//! one are collected.
//!
//! The writer of whole frames in `polars` chooses the encodings itself and takes twice the bytes, so that the pages are
//! made here by the layer below it, each column as [`Kind::encoding`] says.
//!
//! **Invariant**: row groups are passed on whole and in order, and one at most is being encoded; of those before it, only
//! what the footer says of them is in memory.

use std::borrow::Cow;
use std::io::{self, Write};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
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

/// Rows of a row group. Two frames are in memory, one being filled and one being encoded, and the pages of the latter: some
/// 30 MB of runs.
pub(super) const ROW_GROUP_ROWS_MAX: usize = 128 * 1024;
/// The fastest level: encoding is what an export waits for.
const ZSTD_LEVEL: i32 = 1;
/// The key of the schema of Arrow, as Arrow has it.
const ARROW_SCHEMA_KEY: &str = "ARROW:schema";
/// Threads that encode the columns of one row group.
const ENCODE_THREADS_MAX: usize = 4;

/// Why a Parquet file could not be written.
#[derive(Debug, Error)]
pub enum ParquetFileError {
    /// The system refused a write.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// A frame could not be encoded.
    #[error(transparent)]
    Encode(#[from] PolarsError),
}

/// A Parquet file under way, which ends with a [seal](super::seal).
pub(super) struct ParquetFile<W: Write> {
    writer: FileWriter<ChecksumWriter<W>>,
    encoder: Arc<ColumnEncoder>,
    metadata: Vec<KeyValue>,
    seal: ChecksumHandle,
    under_way: Option<UnderWay>,
}

/// The compressed pages of each column of a row group.
type Pages = Vec<Vec<CompressedPage>>;

/// A row group that a thread encodes.
struct UnderWay {
    rows: u64,
    /// Some until it is waited for.
    thread: Option<JoinHandle<PolarsResult<Pages>>>,
}

impl UnderWay {
    fn pages(&mut self) -> PolarsResult<Pages> {
        let broken = || Err(PolarsError::ComputeError("a row group was not encoded".into()));
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_else(broken)
    }
}

impl Drop for UnderWay {
    /// An export that breaks off keeps its place until nothing of it is under way.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Nobody wants what it encoded.
            drop(thread.join());
        }
    }
}

/// Makes the pages of columns.
struct ColumnEncoder {
    columns: Vec<Column>,
    types: Vec<ParquetType>,
    options: WriteOptions,
}

impl<W: Write> ParquetFile<W> {
    /// Begins a file of these columns, with `metadata` in its footer.
    ///
    /// # Errors
    /// None for the columns of an export.
    pub(super) fn new(out: W, columns: Vec<Column>, metadata: &[(String, String)]) -> PolarsResult<Self> {
        let schema = arrow_schema(&columns);
        let descriptor: SchemaDescriptor = to_parquet_schema(&schema)?;
        let types = descriptor.fields().to_vec();
        let (out, seal) = ChecksumWriter::new(out);
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
        Ok(Self { writer, encoder, metadata, seal, under_way: None })
    }

    /// Writes a frame as a row group.
    ///
    /// # Errors
    /// Those of what takes the bytes.
    pub(super) fn write(&mut self, frame: &DataFrame) -> Result<(), ParquetFileError> {
        self.await_group()?;
        let pages = self.encoder.encode(frame)?;
        self.write_pages(frame.height() as u64, &pages)
    }

    /// Has a frame encoded by a thread, and written as a row group by the call after this one.
    ///
    /// # Errors
    /// Those of the row group before it, and of what takes its bytes; no thread.
    pub(super) fn write_behind(&mut self, frame: DataFrame) -> Result<(), ParquetFileError> {
        self.await_group()?;
        let (rows, encoder) = (frame.height() as u64, Arc::clone(&self.encoder));
        let thread = thread::Builder::new().name("silkrate-encode".to_owned());
        let thread = thread.spawn(move || encoder.encode(&frame))?;
        self.under_way = Some(UnderWay { rows, thread: Some(thread) });
        Ok(())
    }

    /// Writes the row group that is being encoded, if there is one.
    fn await_group(&mut self) -> Result<(), ParquetFileError> {
        let Some(mut group) = self.under_way.take() else { return Ok(()) };
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

    fn failure(&self, error: PolarsError) -> ParquetFileError {
        self.seal.take_failure().map_or(ParquetFileError::Encode(error), ParquetFileError::Write)
    }

    /// Ends the file; gives what took its bytes.
    ///
    /// # Errors
    /// Those of what takes the bytes.
    pub(super) fn end(mut self) -> Result<W, ParquetFileError> {
        self.await_group()?;
        // Before the first row group the writer has not written how every file begins.
        self.seal.begin_end();
        let metadata = std::mem::take(&mut self.metadata);
        self.writer.end(Some(metadata)).map_err(|error| self.failure(error.into()))?;
        Ok(self.writer.into_inner().seal()?)
    }
}

/// The key-value pair from which programs that know Arrow read dictionaries, the zone of times, and `metadata` once more:
/// some read it nowhere else. The writer of polars leaves that out.
fn schema_pair(schema: &ArrowSchema, metadata: &[(String, String)]) -> KeyValue {
    let message = schema_to_bytes(schema, &default_ipc_fields(schema.iter_values()), Some(&arrow_metadata(metadata)));
    // A continuation and a length stand before a message of Arrow.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let framed = [&u32::MAX.to_le_bytes(), length.to_le_bytes().as_slice(), &message].concat();
    KeyValue { key: ARROW_SCHEMA_KEY.to_owned(), value: Some(BASE64.encode(framed)) }
}

impl ColumnEncoder {
    /// The pages of a row group.
    fn encode(&self, frame: &DataFrame) -> PolarsResult<Pages> {
        let columns = frame.columns();
        let next = AtomicUsize::new(0);
        let encoded: Vec<Mutex<Option<PolarsResult<Vec<CompressedPage>>>>> =
            columns.iter().map(|_| Mutex::default()).collect();
        let work = || {
            while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < columns.len()) {
                let pages = self.encode_column(at, &columns[at]);
                if let Ok(mut place) = encoded[at].lock() {
                    *place = Some(pages);
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
        let pages = encoded.into_iter().map(|place| place.into_inner().ok().flatten().unwrap_or_else(missing));
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

/// The values of a column in Arrow, as the schema has them.
///
/// # Errors
/// Values of another type, or nulls where there are to be none.
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

/// A dictionary of those names alone that `numbers` hold, in the order of their first places: so the statistics of a row
/// group name the pairs that are in it.
fn dictionary<'t>(numbers: &[u32], text: impl Fn(u32) -> &'t str) -> PolarsResult<DictionaryArray<u32>> {
    let mut texts: Vec<&str> = Vec::new();
    // The place in `texts` of each number, one above.
    let mut places: Vec<u32> = Vec::new();
    let keys = numbers.iter().map(|number| {
        let at = *number as usize;
        if at >= places.len() {
            places.resize(at + 1, 0);
        }
        if places[at] == 0 {
            texts.push(text(*number));
            places[at] = u32::try_from(texts.len()).unwrap_or(u32::MAX);
        }
        places[at] - 1
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

    /// A file of the numbers from 0, in groups of `group_rows`.
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

    /// Who created a file, and how many rows it says that it has.
    pub(in crate::export) fn read_back(bytes: &[u8]) -> (String, u64) {
        let metadata = polars_parquet::read::read_metadata(&mut Cursor::new(bytes)).unwrap();
        (metadata.created_by.unwrap(), metadata.num_rows as u64)
    }

    #[test]
    fn a_file_that_breaks_off_leaves_no_work_under_way() {
        let mut file = ParquetFile::new(Vec::new(), vec![SEQUENCE], &[]).unwrap();
        let numbers: Vec<u64> = (0..1_000_000).collect();
        let column = Series::new(SEQUENCE.name.into(), &numbers).into_column();
        file.write_behind(DataFrame::new(numbers.len(), vec![column]).unwrap()).unwrap();
        let encoder = Arc::clone(&file.encoder);
        drop(file);
        assert_eq!(Arc::strong_count(&encoder), 1, "a thread encodes still");
    }

    #[test]
    fn a_dictionary_holds_the_names_of_its_rows_only() {
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
