//! The row groups of a Parquet file, each as a data frame.
//!
//! The reader of whole files in `polars` maps the file into memory, where a file that is cut meanwhile ends the process.
//! So the bytes of a group's columns are read into memory of our own, and only those are decoded.
//!
//! The types are those of Parquet itself: what Arrow notes beside them, such as that a text was a dictionary, is left
//! unread, so that a file that another program wrote reads the same.
//!
//! **Invariant**: memory is bounded by a row group of at most [`GROUP_ROWS_MAX`] rows and [`GROUP_BYTES_MAX`], and a damaged file is an error.

use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use polars::prelude::{
    ArrowDataType, ArrowField, ArrowSchema, Column as FrameColumn, DataFrame, IntoColumn as _, Series,
};
use polars_buffer::Buffer;
use polars_parquet::parquet::compression::Compression;
use polars_parquet::parquet::schema::types::{ParquetType, PrimitiveLogicalType, PrimitiveType};
use polars_parquet::read::schema::parquet_to_arrow_schema;
use polars_parquet::read::{
    BasicDecompressor, ColumnChunkMetadata, FileMetadata, PageReader, RowGroupMetadata, column_iter_to_arrays,
    read_metadata,
};

use super::error::ReadError;
use super::schema_adapter::{accepts, type_name, wanted};
use crate::domain::truncate_for_display;
use crate::export::checksum_trailer::CREATED_BY_PREFIX;
use crate::export::guarded;
use crate::export::request::{SCHEMA_VERSION_KEY, VERSION_KEY};
use crate::export::schema::{Column, SCHEMA_VERSION};

/// Rows of a group that are decoded: 16 times those of ours, and four times the groups that other programs write unless
/// told otherwise.
const GROUP_ROWS_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a group's columns, compressed or not: the rows of a largest group take a quarter.
const GROUP_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes of a page as it is in the file: programs write a megabyte or a few.
const PAGE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// A Parquet file whose footer is sound.
pub(super) struct RowGroups {
    name: String,
    file: File,
    metadata: FileMetadata,
    fields: Vec<ArrowField>,
    next: usize,
}

impl RowGroups {
    /// Opens a file and checks its columns; `what` says what it should hold.
    pub(super) fn open(path: &Path, columns: &[Column], what: &'static str) -> Result<Self, ReadError> {
        let name = path.display().to_string();
        let failed = |problem| ReadError::Io { file: name.clone(), problem };
        let mut file = File::open(path).map_err(failed)?;
        let metadata = guarded(|| read_metadata(&mut file));
        let metadata = metadata.map_err(|problem| ReadError::Parquet { file: name.clone(), problem })?;
        let mut this = Self { name, file, metadata, fields: Vec::new(), next: 0 };
        this.check_version()?;
        this.fields = this.checked_fields(columns, what)?;
        this.check_codecs(columns)?;
        this.check_sizes(columns)?;
        Ok(this)
    }

    /// For messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Rows of the file, as it says itself.
    pub(super) fn row_count(&self) -> u64 {
        self.metadata.row_groups.iter().map(|group| group.num_rows() as u64).sum()
    }

    /// Whether it says that silkrate made it as it is.
    pub(super) fn is_of_silkrate(&self) -> bool {
        self.metadata.created_by.as_ref().is_some_and(|by| by.starts_with(CREATED_BY_PREFIX))
    }

    /// The columns of the next row group; none at the end.
    pub(super) fn next_group(&mut self) -> Result<Option<DataFrame>, ReadError> {
        let Self { name, file, metadata, fields, next, .. } = self;
        let Some(group) = metadata.row_groups.get(*next) else { return Ok(None) };
        *next += 1;
        let frame = guarded(|| {
            let columns = fields.iter().map(|field| read_column(file, group, field));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            DataFrame::new(group.num_rows(), columns).map_err(|problem| problem.to_string())
        });
        frame.map(Some).map_err(|problem| ReadError::Parquet { file: name.clone(), problem })
    }

    /// Refuses a file whose columns may mean something else. One without a version was written by another program, and
    /// its columns tell what it is.
    fn check_version(&self) -> Result<(), ReadError> {
        let value = |key: &str| {
            let pairs = self.metadata.key_value_metadata.iter().flatten();
            pairs.filter(|pair| pair.key == key).find_map(|pair| pair.value.as_deref())
        };
        let Some(found) = value(SCHEMA_VERSION_KEY).filter(|found| *found != SCHEMA_VERSION.to_string()) else {
            return Ok(());
        };
        let product_version = truncate_for_display(value(VERSION_KEY).unwrap_or("which it does not name"));
        Err(ReadError::SchemaVersion { file: self.name.clone(), found: truncate_for_display(found), product_version })
    }

    /// The columns as the file has them.
    fn checked_fields(&self, columns: &[Column], what: &'static str) -> Result<Vec<ArrowField>, ReadError> {
        let schema = guarded(|| Ok::<_, String>(arrow_types(self.metadata.schema_descr.fields())));
        let schema = schema.map_err(|problem| ReadError::Parquet { file: self.name.clone(), problem })?;
        let checked = columns.iter().map(|column| {
            let (file, expected) = (self.name.clone(), wanted(column.kind));
            let Some(field) = schema.get(column.name) else {
                return Err(ReadError::MissingColumn { file, column: column.name, what, expected });
            };
            if !accepts(column.kind, field.dtype()) {
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

    /// Refuses what is compressed in a way that is not known here.
    fn check_codecs(&self, columns: &[Column]) -> Result<(), ReadError> {
        let mut codecs = self.chunks(columns).map(ColumnChunkMetadata::compression);
        match codecs.find(|codec| matches!(codec, Compression::Brotli | Compression::Lzo)) {
            Some(codec) => Err(ReadError::Codec { file: self.name.clone(), codec: format!("{codec:?}") }),
            None => Ok(()),
        }
    }

    /// Refuses row groups that would take more memory than is bounded here.
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

/// The types of columns in Arrow. A column that never has a value may have no type in Parquet; there it is one of
/// integers.
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

/// The one chunk of a column, which has no columns within it.
fn chunk<'g>(group: &'g RowGroupMetadata, name: &str) -> Option<&'g ColumnChunkMetadata> {
    let mut chunks = group.columns_under_root_iter(name)?;
    chunks.next().filter(|_| chunks.next().is_none())
}

/// The values of a column in a row group.
fn read_column(file: &mut File, group: &RowGroupMetadata, field: &ArrowField) -> Result<FrameColumn, String> {
    let chunk = chunk(group, &field.name).ok_or("a row group lacks a column")?;
    if usize::try_from(chunk.num_values()) != Ok(group.num_rows()) {
        return Err(format!("column '{}' has not as many values as its row group", field.name));
    }
    let bytes = read_bytes(file, chunk).map_err(|problem| problem.to_string())?;
    let pages = PageReader::new(Cursor::new(Buffer::from_vec(bytes)), chunk, Vec::new(), PAGE_BYTES_MAX);
    let types = vec![&chunk.descriptor().descriptor.primitive_type];
    let decoded = column_iter_to_arrays(vec![BasicDecompressor::new(pages, Vec::new())], types, field.clone(), None);
    let (arrays, _) = decoded.map_err(|problem| problem.to_string())?;
    let rows: usize = arrays.iter().map(|array| array.len()).sum();
    if rows != group.num_rows() {
        return Err(format!("column '{}' has not as many values as its row group", field.name));
    }
    let series = Series::try_from((field, arrays)).map_err(|problem| problem.to_string())?;
    Ok(series.rechunk().into_column())
}

fn read_bytes(file: &mut File, chunk: &ColumnChunkMetadata) -> std::io::Result<Vec<u8>> {
    let range = chunk.byte_range();
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(range.start))?;
    // What the file lacks is not made room for.
    file.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
