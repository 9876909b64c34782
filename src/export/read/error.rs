//! Why files cannot be read back.

use std::io;

use thiserror::Error;

use super::{MANIFEST_NAME, SCHEMA_VERSION};
use crate::domain::{PairError, RateError, ReportedChangeError, SourceError, TimestampError};
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
    /// Written by another version.
    #[error(
        "{file}: schema_version is {found}, but this silkrate reads {SCHEMA_VERSION}; use the version that wrote it, {product_version}"
    )]
    SchemaVersion {
        /// The manifest.
        file: String,
        /// As it says.
        found: u32,
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
    #[error("{file}: column '{column}' is {found}; expected is {expected}")]
    ColumnType {
        /// Which file.
        file: String,
        /// Which column.
        column: &'static str,
        /// Its type.
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
    /// A rate that is none.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// A reported change that is none.
    #[error(transparent)]
    ReportedChange(#[from] ReportedChangeError),
    /// A reported change without places or sign, or the other way round, or of the other sign.
    #[error("does not agree with reported_change_places and reported_change_negative")]
    PartialChange,
    /// A pair that is none.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// A source that is none.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A commit out of its place.
    #[error("is {found} where {expected} comes next")]
    Sequence {
        /// Next.
        expected: u64,
        /// As written.
        found: u64,
    },
}
