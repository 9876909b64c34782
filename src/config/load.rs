//! What `serve` is told of files to ingest at start.
//!
//! **Invariant**: all files are of one source.

use std::path::PathBuf;

use crate::domain::{Source, Timestamp};

/// What to ingest at start.
#[derive(Clone, Debug)]
pub struct Load {
    /// Ticker pages, in this order.
    pub files: Vec<PathBuf>,
    /// Whose they are.
    pub source: Source,
    /// When they showed their quotes; without it, the date on each page.
    pub observed_time: Option<Timestamp>,
}
