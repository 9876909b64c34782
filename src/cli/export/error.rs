//! Why an export came to nothing.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::cli::error::{CliError, ErrorKind};
use crate::export::{CountError, PartitionError, StreamError};

/// Why nothing stands under the name that was asked for.
#[derive(Debug, Error)]
pub(in crate::cli) enum ExportError {
    /// Something is there.
    #[error("{path} exists; choose another name, or replace it with --force", path = .0.display())]
    Exists(PathBuf),
    /// Something is there that even `--force` does not replace.
    #[error("{path} {what}; choose another name", path = path.display())]
    NotReplaced {
        /// The target.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A directory with something in it that is of no export.
    #[error("{foreign} is not of {what}, so that {path} is not replaced by one; choose another name", path = path.display(), foreign = foreign.display())]
    Foreign {
        /// The target.
        path: PathBuf,
        /// The first thing in it that is not.
        foreign: PathBuf,
        /// Of what.
        what: &'static str,
    },
    /// Standard output cannot take this.
    #[error("{0}")]
    Stdout(&'static str),
    /// A name that does not say what the file is to be.
    #[error("{path}: nothing is known to be written under such a name; end it in .parquet, .arrows or .csv, or give --format (compressed: silkrate export - --format csv | gzip > FILE)", path = path.display())]
    Ending {
        /// The target.
        path: PathBuf,
    },
    /// An option that another shape than that asked for takes.
    #[error("{flag} is for --shape candles; leave it out, or ask for them")]
    CandlesOnly {
        /// The option.
        flag: &'static str,
    },
    /// The system refused to write.
    #[error("cannot write {path}: {problem}", path = path.display())]
    Write {
        /// The target.
        path: PathBuf,
        /// Why.
        problem: io::Error,
    },
    /// Standard output took no more of it. Whoever went away before the end has no whole export, and a pipe that ends
    /// in success would say otherwise.
    #[error("the export to - broke off: {0}")]
    Standard(#[source] io::Error),
    /// What came is not what was sent.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// What was written is not what was sent.
    #[error("{part} {problem}; run the export again")]
    Count {
        /// Which part.
        part: String,
        /// Why.
        problem: CountError,
    },
    /// The tree could not be written.
    #[error(transparent)]
    Tree(#[from] PartitionError),
}

impl From<ExportError> for CliError {
    fn from(problem: ExportError) -> Self {
        Self::new(if problem.is_usage() { ErrorKind::Usage } else { ErrorKind::Io }, problem)
    }
}

impl ExportError {
    /// Whether the command line is at fault.
    pub(in crate::cli) fn is_usage(&self) -> bool {
        matches!(self, Self::Stdout(_) | Self::CandlesOnly { .. } | Self::Ending { .. })
    }
}
