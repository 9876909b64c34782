//! Reads the row groups of a Parquet file, each as a data frame.
//!
//! The file reader of `polars` maps the file into memory; if the file is truncated meanwhile, the process is killed.
//! This module therefore reads the bytes of a group's columns into a buffer and decodes the buffer.
//!
//! The column types come from the Parquet schema. The Arrow schema in the metadata, which for example marks text as a
//! dictionary, is ignored, so that a file from another program is read in the same way.
//!
//! **Invariant**: memory is bounded by one row group, of at most [`GROUP_ROWS_MAX`] rows and [`GROUP_BYTES_MAX`] bytes.
//! A damaged file is an error.

use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use polars::prelude::{
    ArrowDataType, ArrowField, ArrowSchema, Column as FrameColumn, DataFrame, IntoColumn as _, Series,
};
use polars_buffer::Buffer;
use polars_parquet::parquet::compression::Compression;
use polars_parquet::parquet::page::CompressedPage;
use polars_parquet::parquet::schema::types::{ParquetType, PrimitiveLogicalType, PrimitiveType};
use polars_parquet::read::schema::parquet_to_arrow_schema;
use polars_parquet::read::{
    BasicDecompressor, ColumnChunkMetadata, FileMetadata, PageReader, RowGroupMetadata, column_iter_to_arrays,
    read_metadata,
};

use super::error::ReadError;
use super::schema_adapter::{expected_type, is_compatible, type_name};
use crate::domain::truncate_for_display;
use crate::export::checksum_trailer::CREATED_BY_PREFIX;
use crate::export::decode_untrusted;
use crate::export::request::{SCHEMA_VERSION_KEY, VERSION_KEY};
use crate::export::schema::{Column, SCHEMA_VERSION, SCHEMA_VERSION_OLDEST};

/// Maximum number of rows in a row group: 32 times the row groups that silkrate writes, and four times the default of
/// other programs.
const GROUP_ROWS_MAX: usize = 4 * 1024 * 1024;
/// Maximum size of a row group's columns, compressed or uncompressed, in bytes. A row group with the maximum number of
/// rows takes a quarter of this size.
const GROUP_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Maximum size of a page in the file, in bytes. Programs write pages of a few megabytes.
const PAGE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// A Parquet file with a valid footer and valid columns.
pub(super) struct RowGroups {
    name: String,
    file: File,
    metadata: FileMetadata,
    fields: Vec<ArrowField>,
    next: usize,
}

impl RowGroups {
    /// Opens a file and checks its schema version, columns, compression and row group sizes. `what` names the expected
    /// content in error messages.
    pub(super) fn open(path: &Path, columns: &[Column], what: &'static str) -> Result<Self, ReadError> {
        let name = path.display().to_string();
        let failed = |problem| ReadError::Io { file: name.clone(), problem };
        let mut file = File::open(path).map_err(failed)?;
        let metadata = decode_untrusted(|| read_metadata(&mut file));
        let metadata = metadata.map_err(|problem| ReadError::Parquet { file: name.clone(), problem })?;
        let mut this = Self { name, file, metadata, fields: Vec::new(), next: 0 };
        this.check_version()?;
        this.fields = this.checked_fields(columns, what)?;
        this.check_codecs(columns)?;
        this.check_sizes(columns)?;
        Ok(this)
    }

    /// The path of the file, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Number of rows in the file, according to the footer.
    pub(super) fn row_count(&self) -> u64 {
        self.metadata.row_groups.iter().map(|group| group.num_rows() as u64).sum()
    }

    /// Returns true if `created_by` in the footer states that silkrate wrote the file.
    pub(super) fn is_written_by_silkrate(&self) -> bool {
        self.metadata.created_by.as_ref().is_some_and(|by| by.starts_with(CREATED_BY_PREFIX))
    }

    /// Returns the columns of the next row group; `None` at the end of the file.
    pub(super) fn next_group(&mut self) -> Result<Option<DataFrame>, ReadError> {
        let Self { name, file, metadata, fields, next, .. } = self;
        let Some(group) = metadata.row_groups.get(*next) else { return Ok(None) };
        *next += 1;
        let frame = decode_untrusted(|| {
            let columns = fields.iter().map(|field| read_column(file, group, field));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            DataFrame::new(group.num_rows(), columns).map_err(|problem| problem.to_string())
        });
        frame.map(Some).map_err(|problem| ReadError::Parquet { file: name.clone(), problem })
    }

    /// Refuses a file with another schema version. A file without a version comes from another program; only its
    /// columns are checked.
    fn check_version(&self) -> Result<(), ReadError> {
        let value = |key: &str| {
            let pairs = self.metadata.key_value_metadata.iter().flatten();
            pairs.filter(|pair| pair.key == key).find_map(|pair| pair.value.as_deref())
        };
        let is_known =
            |text: &str| text.parse().is_ok_and(|found: u32| (SCHEMA_VERSION_OLDEST..=SCHEMA_VERSION).contains(&found));
        let Some(found) = value(SCHEMA_VERSION_KEY).filter(|found| !is_known(found)) else { return Ok(()) };
        let product_version = truncate_for_display(value(VERSION_KEY).unwrap_or("not stated in the file"));
        Err(ReadError::SchemaVersion { file: self.name.clone(), found: truncate_for_display(found), product_version })
    }

    /// Checks the types of the columns and returns the fields that the file defines for the columns.
    fn checked_fields(&self, columns: &[Column], what: &'static str) -> Result<Vec<ArrowField>, ReadError> {
        let schema = decode_untrusted(|| Ok::<_, String>(arrow_types(self.metadata.schema_descr.fields())));
        let schema = schema.map_err(|problem| ReadError::Parquet { file: self.name.clone(), problem })?;
        let checked = columns.iter().map(|column| {
            let (file, expected) = (self.name.clone(), expected_type(column.kind));
            let Some(field) = schema.get(column.name) else {
                return Err(ReadError::MissingColumn { file, column: column.name, what, expected });
            };
            if !is_compatible(column.kind, field.dtype()) {
                let found = type_name(field.dtype());
                return Err(ReadError::ColumnType { file, column: column.name, expected, found });
            }
            Ok(field.clone())
        });
        checked.collect()
    }

    fn chunks<'a>(&'a self, columns: &'a [Column]) -> impl Iterator<Item = &'a ColumnChunkMetadata> {
        let groups = self.metadata.row_groups.iter();
        groups.flat_map(|group| columns.iter().filter_map(|column| chunk(group, column.name)))
    }

    /// Refuses a file with an unsupported compression.
    fn check_codecs(&self, columns: &[Column]) -> Result<(), ReadError> {
        let mut codecs = self.chunks(columns).map(ColumnChunkMetadata::compression);
        match codecs.find(|codec| matches!(codec, Compression::Brotli | Compression::Lzo)) {
            Some(codec) => Err(ReadError::Codec { file: self.name.clone(), codec: format!("{codec:?}") }),
            None => Ok(()),
        }
    }

    /// Refuses a file with a row group that exceeds the memory limits.
    fn check_sizes(&self, columns: &[Column]) -> Result<(), ReadError> {
        let rows = self.metadata.row_groups.iter().map(RowGroupMetadata::num_rows).max().unwrap_or(0);
        if rows > GROUP_ROWS_MAX {
            return Err(ReadError::RowGroup { file: self.name.clone(), rows, rows_max: GROUP_ROWS_MAX });
        }
        let size = |chunk: &ColumnChunkMetadata| chunk.uncompressed_size().max(chunk.compressed_size()).unsigned_abs();
        let bytes = self.metadata.row_groups.iter().map(|group| {
            let chunks = columns.iter().filter_map(|column| chunk(group, column.name));
            chunks.map(size).fold(0, u64::saturating_add)
        });
        let bytes = bytes.max().unwrap_or(0);
        if bytes > GROUP_BYTES_MAX {
            return Err(ReadError::RowGroupBytes { file: self.name.clone(), bytes, bytes_max: GROUP_BYTES_MAX });
        }
        Ok(())
    }
}

/// The Arrow types of the columns. A column without values may have the Parquet type "unknown", which the library maps
/// to integers; here it becomes the null type.
fn arrow_types(fields: &[ParquetType]) -> ArrowSchema {
    let mut schema = parquet_to_arrow_schema(fields);
    for field in fields {
        if let ParquetType::PrimitiveType(PrimitiveType { logical_type: Some(PrimitiveLogicalType::Unknown), .. }) =
            field
            && let Some(untyped) = schema.get_mut(field.name())
        {
            untyped.dtype = ArrowDataType::Null;
        }
    }
    schema
}

/// The chunk of a column that has no nested columns; `None` otherwise.
fn chunk<'g>(group: &'g RowGroupMetadata, name: &str) -> Option<&'g ColumnChunkMetadata> {
    let mut chunks = group.columns_under_root_iter(name)?;
    chunks.next().filter(|_| chunks.next().is_none())
}

/// The values of a column in a row group.
fn read_column(file: &mut File, group: &RowGroupMetadata, field: &ArrowField) -> Result<FrameColumn, String> {
    let chunk = chunk(group, &field.name).ok_or("a row group lacks a column")?;
    if usize::try_from(chunk.num_values()) != Ok(group.num_rows()) {
        return Err(format!("column '{}' has another number of values than its row group", field.name));
    }
    let bytes = read_bytes(file, chunk).map_err(|problem| problem.to_string())?;
    let bytes = Buffer::from_vec(bytes);
    let pages = || PageReader::new(Cursor::new(bytes.clone()), chunk, Vec::new(), PAGE_BYTES_MAX);
    check_pages(pages(), group.num_rows()).map_err(|problem| format!("column '{}' {problem}", field.name))?;
    let types = vec![&chunk.descriptor().descriptor.primitive_type];
    let decoded = column_iter_to_arrays(vec![BasicDecompressor::new(pages(), Vec::new())], types, field.clone(), None);
    let (arrays, _) = decoded.map_err(|problem| problem.to_string())?;
    let rows: usize = arrays.iter().map(|array| array.len()).sum();
    if rows != group.num_rows() {
        return Err(format!("column '{}' has another number of values than its row group", field.name));
    }
    let series = Series::try_from((field, arrays)).map_err(|problem| problem.to_string())?;
    Ok(series.rechunk().into_column())
}

/// Checks that the pages of a column have as many values as its row group. The decoder reserves memory for the number in
/// the header of a page, and a process that cannot reserve memory ends.
fn check_pages(pages: PageReader, rows: usize) -> Result<(), String> {
    let mut values = 0_usize;
    for page in pages {
        if let CompressedPage::Data(page) = page.map_err(|problem| problem.to_string())? {
            values = values.saturating_add(page.num_values());
        }
    }
    if values == rows { Ok(()) } else { Err(format!("has {values} values in its pages instead of {rows}")) }
}

fn read_bytes(file: &mut File, chunk: &ColumnChunkMetadata) -> std::io::Result<Vec<u8>> {
    let range = chunk.byte_range();
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(range.start))?;
    // `read_to_end` allocates memory only for bytes that are in the file, even if the footer gives a larger range.
    file.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::schema::Part;

    /// Reads all row groups of a file of runs. Returns the error.
    fn problem(bytes: &[u8]) -> Option<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let read = || {
            let mut groups = RowGroups::open(file.path(), &Part::Runs.exact_columns(), "runs")?;
            while groups.next_group()?.is_some() {}
            Ok::<_, ReadError>(())
        };
        read().err().map(|error| error.to_string())
    }

    #[test]
    fn page_with_another_number_of_values_is_refused_before_memory_is_reserved() {
        let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/import/runs")).unwrap();
        assert_eq!(problem(&file), None);
        let changed = |at: usize| {
            let mut bytes = file.clone();
            bytes[at] = bytes[at].wrapping_add(2);
            problem(&bytes)
        };
        let problems: Vec<String> = (0..file.len() / 2).filter_map(changed).collect();
        let count = problems.iter().filter(|problem| problem.contains("values in its pages instead of 39")).count();
        assert!(count >= 8, "{count} of {} problems", problems.len());
    }
}
