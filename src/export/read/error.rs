//! Why files cannot be read back.

use std::io;

use thiserror::Error;

use super::{MANIFEST_NAME, SCHEMA_VERSION};
use crate::domain::{NoteError, PairError, RateError, ReportedChangeError, SourceError, Timestamp, TimestampError};
use crate::store::RestoreError;

/// Why an export, or a file of runs, cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The system says so.
    #[error("cannot read {file}: {problem}")]
    Io {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        problem: io::Error,
    },
    /// A directory of something else.
    #[error("{directory} holds no {MANIFEST_NAME}, so it is no full export; make one with 'silkrate export --full'")]
    NotAnExport {
        /// Which.
        directory: String,
    },
    /// A manifest that does not decode.
    #[error("{file} is no manifest of a full export: {problem}")]
    Manifest {
        /// The manifest.
        file: String,
        /// What is wrong with it.
        problem: serde_json::Error,
    },
    /// A manifest with a bad time.
    #[error("{file}: {field}: {problem}")]
    ManifestTime {
        /// The manifest.
        file: String,
        /// Of it.
        field: &'static str,
        /// What is wrong with it.
        problem: TimestampError,
    },
    /// Written by another version: a manifest, or a file.
    #[error(
        "{file}: schema_version is {found}, but this silkrate reads {SCHEMA_VERSION}; use the version that wrote it, {product_version}"
    )]
    SchemaVersion {
        /// Which.
        file: String,
        /// As it says.
        found: String,
        /// Who wrote it.
        product_version: String,
    },
    /// A manifest that leaves a file out.
    #[error("{file}: parts do not name {part}; export again with 'silkrate export --full'")]
    MissingPart {
        /// The manifest.
        file: String,
        /// The file that is not named.
        part: &'static str,
    },
    /// Not as many rows as the manifest says.
    #[error("{file} has {found} rows, but the manifest says {expected}; copy or export it again")]
    RowCount {
        /// Which file.
        file: String,
        /// In the manifest.
        expected: u64,
        /// In the file.
        found: u64,
    },
    /// Not the bytes that were written.
    #[error("{file} has SHA-256 {found}, but the manifest says {expected}; copy or export it again")]
    Checksum {
        /// Which file.
        file: String,
        /// In the manifest.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// Not the bytes that were written, by the file's own account.
    #[error("{file} is damaged: it is not as silkrate wrote it; copy or export it again")]
    Seal {
        /// Which file.
        file: String,
    },
    /// Row groups that would take too much memory.
    #[error("{file} has a row group of {rows} rows; at most {rows_max} are read: write it with smaller row groups")]
    RowGroup {
        /// Which file.
        file: String,
        /// Of its longest row group.
        rows: usize,
        /// That are read.
        rows_max: usize,
    },
    /// The same by their bytes.
    #[error("{file} has a row group of {bytes} bytes; at most {bytes_max} are read: write it with smaller row groups")]
    RowGroupBytes {
        /// Which file.
        file: String,
        /// Of the columns of its largest row group, as it says itself.
        bytes: u64,
        /// That are read.
        bytes_max: u64,
    },
    /// Compressed in a way that is not read here.
    #[error("{file} is compressed with {codec}, which is not read here; write it with zstd, snappy, gzip, lz4 or none")]
    Codec {
        /// Which file.
        file: String,
        /// Its compression.
        codec: String,
    },
    /// No Parquet, or cut off, or damaged.
    #[error("{file} cannot be read as Parquet: {problem}; is it whole?")]
    Parquet {
        /// Which file.
        file: String,
        /// What the reader says.
        problem: String,
    },
    /// Parquet of another schema.
    #[error("{file}: column '{column}' is missing; a file of {what} has it as {expected}")]
    MissingColumn {
        /// Which file.
        file: String,
        /// Which column.
        column: &'static str,
        /// What the file should hold.
        what: &'static str,
        /// Its type.
        expected: String,
    },
    /// Parquet of another schema.
    #[error("{file}: column '{column}' is {found}; write it as {expected}")]
    ColumnType {
        /// Which file.
        file: String,
        /// Which column.
        column: &'static str,
        /// What can be read.
        expected: String,
        /// The type found.
        found: String,
    },
    /// A value that makes no sense.
    #[error("{file}: row {row}: {column}: {problem}")]
    Cell {
        /// Which file.
        file: String,
        /// From 1.
        row: u64,
        /// Which column.
        column: &'static str,
        /// What is wrong.
        problem: CellProblem,
    },
    /// Rows of a series that is not next.
    #[error(
        "{file}: row {row} is of {pair} from {source_name}, which is not its turn: rows are sorted by series in the order of series.parquet"
    )]
    Order {
        /// Which file.
        file: String,
        /// From 1.
        row: u64,
        /// As written.
        pair: String,
        /// As written.
        source_name: String,
    },
    /// What was read makes no store.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// What is wrong with one value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CellProblem {
    /// Nothing where something must be.
    #[error("is null")]
    Null,
    /// More digits than its number of places.
    #[error("has more digits after the point than the {0} that are said to be published")]
    Inexact(u8),
    /// More digits than the column has room for once it has all its places.
    #[error("has more digits before the point than can be read")]
    Digits,
    /// A time between two microseconds.
    #[error("is finer than a microsecond; round it to whole microseconds")]
    Finer,
    /// A number out of its range, or one that is not whole.
    #[error("is {0}, which does not fit")]
    Number(String),
    /// A run that ends before it begins.
    #[error("is {last}, before first_observed_time {first}")]
    Reversed {
        /// First observed time.
        first: Timestamp,
        /// Last observed time.
        last: Timestamp,
    },
    /// A run of nothing.
    #[error("is 0; a run has one observation at least")]
    NoObservation,
    /// A rate that is none.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// A reported change that is none.
    #[error(transparent)]
    ReportedChange(#[from] ReportedChangeError),
    /// A reported change without places or sign, or the other way round, or of the other sign.
    #[error("does not agree with reported_change_places and reported_change_negative")]
    PartialChange,
    /// A health that is none.
    #[error("is '{0}'; it is ok, silent, refused or unreachable")]
    Health(String),
    /// A pair that is none.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// A source that is none.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A state that is none.
    #[error("is '{0}'; it must be HELD, RELEASED or DISCARDED")]
    State(String),
    /// A decision of a tick that is held.
    #[error("is there, but state is HELD")]
    Undecided,
    /// A note that is none.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A commit out of its place.
    #[error("is {found} where {expected} comes next")]
    Sequence {
        /// Next.
        expected: u64,
        /// As written.
        found: u64,
    },
}
