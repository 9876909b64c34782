//! Rows to the bytes of a format.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use thiserror::Error;

use super::layout::{Column, Format, Part};
use super::outlet::Outlet;
use super::rows::{Names, Rows};
use super::seal::{self, CREATED_BY, SealWriter};

/// Rows of a row group of Parquet. All of a group's encoded bytes are in memory until its end: some 5 MiB.
const ROW_GROUP_ROWS_MAX: usize = 256 * 1024;
/// The fastest: encoding is what an export waits for.
pub(super) const ZSTD_LEVEL: i32 = 1;

/// Why rows could not be written.
#[derive(Debug, Error)]
pub(super) enum EncodeError {
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    #[error(transparent)]
    Csv(#[from] csv::Error),
    #[error(transparent)]
    Write(#[from] std::io::Error),
}

enum Writer<'p, 'a> {
    Parquet(Box<ArrowWriter<SealWriter<&'p mut Outlet<'a>>>>),
    Arrow(Box<StreamWriter<&'p mut Outlet<'a>>>),
    Csv(Box<csv::Writer<&'p mut Outlet<'a>>>),
}

/// Writes the rows of one part.
pub(super) struct Encoder<'p, 'a> {
    columns: &'static [Column],
    schema: SchemaRef,
    row_counter: Arc<AtomicU64>,
    writer: Writer<'p, 'a>,
}

impl<'p, 'a> Encoder<'p, 'a> {
    /// Begins a part. CSV has no place for `metadata`.
    pub(super) fn new(
        part: Part,
        format: Format,
        metadata: HashMap<String, String>,
        outlet: &'p mut Outlet<'a>,
    ) -> Result<Self, EncodeError> {
        let properties = parquet_properties(part, &metadata)?;
        let row_counter = outlet.row_counter();
        let schema: SchemaRef = Arc::new(part.schema(metadata));
        let writer = match format {
            Format::Parquet => {
                let out = SealWriter::new(outlet);
                Writer::Parquet(Box::new(ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties))?))
            }
            Format::ArrowStream => Writer::Arrow(Box::new(StreamWriter::try_new(outlet, &schema)?)),
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(outlet);
                writer.write_record(part.columns().iter().map(|column| column.name()))?;
                Writer::Csv(Box::new(writer))
            }
        };
        Ok(Self { columns: part.columns(), schema, row_counter, writer })
    }

    /// Writes `rows`, which leaves none in them.
    pub(super) fn write(&mut self, rows: &mut Rows, names: &Names) -> Result<(), EncodeError> {
        self.row_counter.fetch_add(rows.len() as u64, Ordering::Relaxed);
        match &mut self.writer {
            Writer::Parquet(writer) => {
                writer.write(&rows.take_batch(self.columns, &self.schema, names)?)?;
            }
            Writer::Arrow(writer) => {
                writer.write(&rows.take_batch(self.columns, &self.schema, names)?)?;
            }
            Writer::Csv(writer) => rows.take_csv(self.columns, writer, names)?,
        }
        Ok(())
    }

    /// Writes what belongs at the end of the part.
    pub(super) fn finish(self) -> Result<(), EncodeError> {
        match self.writer {
            Writer::Parquet(writer) => {
                seal::end(*writer)?;
            }
            Writer::Arrow(mut writer) => writer.finish()?,
            Writer::Csv(mut writer) => writer.flush()?,
        }
        Ok(())
    }
}

/// How Parquet is written.
fn parquet_properties(part: Part, metadata: &HashMap<String, String>) -> Result<WriterProperties, ParquetError> {
    let mut pairs: Vec<KeyValue> =
        metadata.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    pairs.sort_by(|a, b| a.key.cmp(&b.key));
    let place = |sorted: &Column| part.columns().iter().position(|column| column == sorted);
    let sorting = part.sorted_by().iter().filter_map(place).filter_map(|at| i32::try_from(at).ok());
    let sorting = sorting.map(|column_idx| SortingColumn { column_idx, descending: false, nulls_first: false });
    let mut properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(sorting.collect()))
        .set_key_value_metadata(Some(pairs));
    for column in part.columns().iter().filter(|column| column.is_time_like()) {
        // Nearly every time is another one: a dictionary of them would be given up after a megabyte.
        let path = ColumnPath::from(column.name());
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties.build())
}
