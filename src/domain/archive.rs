//! Decisions to archive sources.

use super::quarantine::Note;
use super::series::Source;
use super::time::Timestamp;

/// A decision of an operator to archive a source, or to unarchive it. An archived source stays readable, but does not
/// answer requests that name no source while another source can.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchiveDecision {
    /// The source.
    pub source: Source,
    /// True if the source is archived from this decision on.
    pub is_archived: bool,
    /// The recorded time of the commit of the decision.
    pub recorded_time: Timestamp,
    /// The reason that the operator wrote, if any.
    pub note: Option<Note>,
}
