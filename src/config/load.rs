//! The ticker pages that `serve` ingests at start.
//!
//! **Invariant**: all pages are from one source.

use std::path::PathBuf;

use crate::domain::{Source, Timestamp};

/// The ticker pages to ingest at start.
#[derive(Clone, Debug)]
pub struct Load {
    /// Paths of the pages, in the order in which they are ingested.
    pub files: Vec<PathBuf>,
    /// The source of the quotes on the pages.
    pub source: Source,
    /// The observed time of the quotes; if `None`, the date printed on each page.
    pub observed_time: Option<Timestamp>,
}
