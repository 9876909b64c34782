//! Errors of reading an export back.

use std::io;

use thiserror::Error;

use super::{MANIFEST_NAME, SCHEMA_VERSION, SCHEMA_VERSION_OLDEST};
use crate::domain::{NoteError, PairError, RateError, ReportedChangeError, SourceError, Timestamp, TimestampError};
use crate::store::RestoreError;

/// Why an export or a file of runs cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Reading a file failed.
    #[error("cannot read {file}: {problem}")]
    Io {
        /// The file.
        file: String,
        /// The I/O error.
        #[source]
        problem: io::Error,
    },
    /// The directory has no manifest.
    #[error("{directory} is not a full export: it has no {MANIFEST_NAME}; make one with 'silkrate export --full'")]
    NotAnExport {
        /// The directory.
        directory: String,
    },
    /// The manifest cannot be parsed.
    #[error("{file} is not a manifest of a full export: {problem}")]
    Manifest {
        /// The manifest.
        file: String,
        /// The JSON error.
        problem: serde_json::Error,
    },
    /// A time in the manifest is invalid.
    #[error("{file}: {field}: {problem}")]
    ManifestTime {
        /// The manifest.
        file: String,
        /// The field of the manifest.
        field: &'static str,
        /// Why the time is invalid.
        problem: TimestampError,
    },
    /// The manifest or file has another schema version.
    #[error(
        "{file}: schema_version is {found}, but this silkrate reads {SCHEMA_VERSION_OLDEST} to {SCHEMA_VERSION}; \
         use the silkrate version that wrote it ({product_version})"
    )]
    SchemaVersion {
        /// The manifest or file.
        file: String,
        /// The schema version found.
        found: String,
        /// The silkrate version that wrote it.
        product_version: String,
    },
    /// The manifest does not name a file that a full export must have.
    #[error("{file}: 'parts' does not list {part}; export again with 'silkrate export --full'")]
    MissingPart {
        /// The manifest.
        file: String,
        /// The missing file.
        part: &'static str,
    },
    /// A file has another row count than its manifest states.
    #[error("{file} has {found} rows, but the manifest states {expected}; copy or export it again")]
    RowCount {
        /// The file.
        file: String,
        /// Row count in the manifest.
        expected: u64,
        /// Row count in the file.
        found: u64,
    },
    /// A file has another SHA-256 than its manifest states.
    #[error("{file} has SHA-256 {found}, but the manifest states {expected}; copy or export it again")]
    Checksum {
        /// The file.
        file: String,
        /// SHA-256 in the manifest, in hexadecimal.
        expected: String,
        /// SHA-256 of the file, in hexadecimal.
        found: String,
    },
    /// The checksum trailer of a file does not match, or a file written by silkrate has none.
    #[error("{file} is damaged: its bytes are not those that silkrate wrote; copy or export it again")]
    ChecksumTrailer {
        /// The file.
        file: String,
    },
    /// A row group has too many rows for the memory limit.
    #[error("{file} has a row group of {rows} rows; the limit is {rows_max}: write it with smaller row groups")]
    RowGroup {
        /// The file.
        file: String,
        /// Rows in the longest row group.
        rows: usize,
        /// Maximum number of rows.
        rows_max: usize,
    },
    /// A row group has too many bytes for the memory limit.
    #[error("{file} has a row group of {bytes} bytes; the limit is {bytes_max}: write it with smaller row groups")]
    RowGroupBytes {
        /// The file.
        file: String,
        /// Bytes of the columns in the largest row group, according to the footer.
        bytes: u64,
        /// Maximum number of bytes.
        bytes_max: u64,
    },
    /// The compression of the file is not supported.
    #[error(
        "{file} is compressed with {codec}, which is not supported; \
         write it with zstd, snappy, gzip or lz4, or without compression"
    )]
    Codec {
        /// The file.
        file: String,
        /// The compression found.
        codec: String,
    },
    /// The file is not Parquet, or it is incomplete or damaged.
    #[error("{file} cannot be read as Parquet: {problem}; check that the file is complete")]
    Parquet {
        /// The file.
        file: String,
        /// Message of the Parquet reader.
        problem: String,
    },
    /// A column is missing.
    #[error("{file}: column '{column}' is missing; a file of {what} must have it as {expected}")]
    MissingColumn {
        /// The file.
        file: String,
        /// Name of the column.
        column: &'static str,
        /// The expected content of the file.
        what: &'static str,
        /// The expected type.
        expected: String,
    },
    /// A column has a type that cannot be converted.
    #[error("{file}: column '{column}' is {found}; write it as {expected}")]
    ColumnType {
        /// The file.
        file: String,
        /// Name of the column.
        column: &'static str,
        /// The types that can be read.
        expected: String,
        /// The type found.
        found: String,
    },
    /// A value is invalid.
    #[error("{file}: row {row}: {column}: {problem}")]
    Cell {
        /// The file.
        file: String,
        /// Row number, from 1.
        row: u64,
        /// Name of the column.
        column: &'static str,
        /// Why the value is invalid.
        problem: CellProblem,
    },
    /// A row does not belong to the series that comes next in the file of series.
    #[error(
        "{file}: row {row} of {pair} from {source_name} is out of order: \
         rows must be sorted by series, in the order of series.parquet"
    )]
    Order {
        /// The file.
        file: String,
        /// Row number, from 1.
        row: u64,
        /// The pair, as in the file.
        pair: String,
        /// The source, as in the file.
        source_name: String,
    },
    /// The rows are not a consistent store.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// Why one value is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CellProblem {
    /// The value is null in a required column.
    #[error("is null")]
    Null,
    /// The value has more decimal places than its column of places states.
    #[error("has more digits after the decimal point than its {0} published places")]
    Inexact(u8),
    /// The value overflows 38 digits when it is converted to the scale of the column.
    #[error("has too many digits before the decimal point")]
    Digits,
    /// The time is not a whole number of microseconds.
    #[error("is finer than a microsecond; round it to whole microseconds")]
    Finer,
    /// The number is out of range or not a whole number.
    #[error("is {0}, which is out of range or not a whole number")]
    Number(String),
    /// The run ends before it begins.
    #[error("is {last}, before first_observed_time {first}")]
    Reversed {
        /// First observed time.
        first: Timestamp,
        /// Last observed time.
        last: Timestamp,
    },
    /// The run has no observations.
    #[error("is 0; a run has at least one observation")]
    NoObservation,
    /// The rate is invalid.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// The reported change is invalid.
    #[error(transparent)]
    ReportedChange(#[from] ReportedChangeError),
    /// Only some of the three columns of a reported change have a value, or the signs differ.
    #[error("does not agree with reported_change_places and reported_change_negative")]
    PartialChange,
    /// The health is invalid.
    #[error("is '{0}'; it must be ok, silent, refused or unreachable")]
    Health(String),
    /// The pair is invalid.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// The source is invalid.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The state is invalid.
    #[error("is '{0}'; it must be HELD, RELEASED or DISCARDED")]
    State(String),
    /// The tick has a decided time or a note, but its state is HELD.
    #[error("must be null, because state is HELD; note must be null too")]
    Undecided,
    /// The note is invalid.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The commit is not the next one.
    #[error("is {found}, but the next sequence must be {expected}")]
    Sequence {
        /// The next sequence.
        expected: u64,
        /// The sequence in the file.
        found: u64,
    },
}
