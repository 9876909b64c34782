//! Requests to archive and unarchive sources.

use thiserror::Error;

use super::IngestError;
use crate::domain::{Note, Source, Timestamp};
use crate::store::ArchiveRefusal;

/// A request to archive or unarchive a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchiveRequest {
    /// The source.
    pub source: Source,
    /// True to archive the source, false to unarchive it.
    pub is_archived: bool,
    /// The reason for the decision.
    pub note: Option<Note>,
}

/// The response to an [`ArchiveRequest`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArchiveReport {
    /// Sequence of the decision's commit, or of the newest commit if nothing changed.
    pub sequence: u64,
    /// Recorded time of that commit.
    pub recorded_time: Timestamp,
    /// False if the source already was in the requested state.
    pub is_changed: bool,
}

/// Why a source was not archived or unarchived.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArchiveError {
    /// The store refuses the decision.
    #[error(transparent)]
    Refused(#[from] ArchiveRefusal),
    /// The writer does not accept the request.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}
