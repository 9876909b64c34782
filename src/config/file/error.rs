//! Errors of the configuration file.

use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::FILE_BYTES_MAX;

/// Largest number of problems that an error message lists, because one mistake can cause many.
const PROBLEMS_SHOWN_MAX: usize = 20;

/// Why a configuration file is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read {}: {problem}; give --config the path of a readable file", path.display())]
    Read {
        /// The path, as given to `--config`.
        path: PathBuf,
        /// The error of the operating system.
        problem: String,
    },
    /// The file is too large.
    #[error("{} has more than {FILE_BYTES_MAX} bytes, the limit of a configuration file; give --config the right file", path.display())]
    TooLong {
        /// The path, as given to `--config`.
        path: PathBuf,
    },
    /// The file is not UTF-8.
    #[error("{}:{line}: the file is not valid UTF-8 from this line on; save it as UTF-8", path.display())]
    NotText {
        /// The path, as given to `--config`.
        path: PathBuf,
        /// The first line that is not valid UTF-8, counted from 1.
        line: usize,
    },
    /// The file is not TOML, or has unknown settings or invalid values.
    #[error("{}", problem_lines(path, problems))]
    Problems {
        /// The path, as given to `--config`.
        path: PathBuf,
        /// The problems, sorted by line; at least one.
        problems: Vec<FileProblem>,
    },
}

/// One problem of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileProblem {
    /// The line of the problem, counted from 1.
    pub line: usize,
    /// The key, the value, what is wrong, and the remedy.
    pub text: String,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.text)
    }
}

/// Formats the problems as an error message with a line for each.
fn problem_lines(path: &Path, problems: &[FileProblem]) -> String {
    let shown = problems.iter().take(PROBLEMS_SHOWN_MAX).map(|problem| format!("{}:{problem}", path.display()));
    let more = problems.len().saturating_sub(PROBLEMS_SHOWN_MAX);
    let more = (more > 0).then(|| format!("and {more} more"));
    shown.chain(more).collect::<Vec<_>>().join("\n")
}
