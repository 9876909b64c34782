//! Errors of the `export` command.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::cli::error::{CliError, ErrorKind, Problem};
use crate::export::{CountError, PartitionError, StreamError};

/// Why an export was not written.
#[derive(Debug, Error)]
pub(in crate::cli) enum ExportError {
    /// The target exists, and `--force` was not given.
    #[error("{path} exists; choose another name, or replace it with --force", path = .0.display())]
    Exists(PathBuf),
    /// The target has another type than the export, so `--force` does not replace it.
    #[error("{path} {what}; choose another name", path = path.display())]
    NotReplaced {
        /// The target.
        path: PathBuf,
        /// Why it is not replaced.
        what: &'static str,
    },
    /// The target directory has an entry that does not belong to an export of this kind.
    #[error(
        "{path} is not replaced: {foreign} is not part of {what}; choose another name",
        path = path.display(),
        foreign = foreign.display()
    )]
    Foreign {
        /// The target.
        path: PathBuf,
        /// The first foreign entry in the target.
        foreign: PathBuf,
        /// The kind of export.
        what: &'static str,
    },
    /// The export cannot be written to standard output.
    #[error("{0}")]
    NotForStdout(&'static str),
    /// The extension of the target is unknown.
    #[error(
        "{path}: cannot tell the format from the file name; use a name that ends in .parquet, .arrows or .csv, or \
         give --format (for a compressed file: silkrate export - --format csv | gzip > FILE)",
        path = path.display()
    )]
    Ending {
        /// The target.
        path: PathBuf,
    },
    /// The target of a partitioned dataset has the extension of another format.
    #[error(
        "{path}: --partition writes a directory of Parquet files; name a directory without the extension of a file",
        path = path.display()
    )]
    DirectoryEnding {
        /// The target.
        path: PathBuf,
    },
    /// An option that applies only to candles was given with another shape.
    #[error("{flag} applies only to --shape candles; leave it out, or add --shape candles")]
    CandlesOnly {
        /// The option.
        flag: &'static str,
    },
    /// The target could not be written.
    #[error("cannot write {path}: {problem}", path = path.display())]
    Write {
        /// The target.
        path: PathBuf,
        /// The I/O error.
        problem: io::Error,
    },
    /// A write to standard output failed. If its reader has closed it, the command ends quietly, as `export - | head` should.
    #[error("the export to standard output is incomplete: {0}")]
    WriteStdout(#[source] io::Error),
    /// The received stream is invalid or damaged.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The written rows could not be read back and counted.
    #[error("{part} {problem}; run the export again")]
    Count {
        /// Name of the part.
        part: String,
        /// Why counting failed.
        problem: CountError,
    },
    /// The partitioned dataset could not be written.
    #[error(transparent)]
    Partition(#[from] PartitionError),
}

impl From<ExportError> for CliError {
    fn from(problem: ExportError) -> Self {
        if let ExportError::WriteStdout(closed) = problem {
            // A closed reader is no failure; see `CliError::is_closed_pipe`.
            let is_closed = closed.kind() == io::ErrorKind::BrokenPipe;
            return if is_closed {
                Problem::Output(closed).into()
            } else {
                Self::new(ErrorKind::Io, ExportError::WriteStdout(closed))
            };
        }
        Self::new(if problem.is_usage() { ErrorKind::Usage } else { ErrorKind::Io }, problem)
    }
}

impl ExportError {
    /// Returns true if the command line is wrong.
    pub(in crate::cli) fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::NotForStdout(_) | Self::CandlesOnly { .. } | Self::Ending { .. } | Self::DirectoryEnding { .. }
        )
    }
}
