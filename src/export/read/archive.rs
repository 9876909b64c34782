//! Rows of decisions to archive and unarchive sources in a full export.
//!
//! **Invariant**: a decision is read exactly, or refused with the name of the invalid column. The order of the decisions
//! is not checked here.

use polars_arrow::array::{BooleanArray, PrimitiveArray, Utf8ViewArray};

use super::cells::{BadCell, Row, flag, text, timestamp};
use super::frame::Frame;
use crate::domain::{ArchiveDecision, Note, Source};
use crate::export::schema::{ARCHIVED, NOTE, Part, RECORDED, SOURCE};

/// The columns of a decision.
pub(super) struct ArchiveCells {
    source: Utf8ViewArray,
    recorded: PrimitiveArray<i64>,
    archived: BooleanArray,
    note: Utf8ViewArray,
}

impl Row for ArchiveDecision {
    const WHAT: &'static str = "decisions to archive sources";
    const PART: Part = Part::Archive;
    type Cells = ArchiveCells;

    fn cells(frame: &Frame<'_>) -> Option<ArchiveCells> {
        Some(ArchiveCells {
            source: frame.texts(SOURCE)?,
            recorded: frame.numbers(RECORDED)?,
            archived: frame.flags(ARCHIVED)?,
            note: frame.texts(NOTE)?,
        })
    }

    fn series(_: &ArchiveCells) -> Option<(&Utf8ViewArray, &Utf8ViewArray)> {
        None
    }

    fn read(cells: &ArchiveCells, at: usize) -> Result<Self, BadCell> {
        let source = Source::parse(text(&cells.source, at, SOURCE)?);
        let note = cells.note.get(at).map(Note::parse).transpose();
        Ok(Self {
            source: source.map_err(|problem| BadCell::new(SOURCE, problem))?,
            recorded_time: timestamp(&cells.recorded, at, RECORDED)?,
            is_archived: flag(&cells.archived, at, ARCHIVED)?,
            note: note.map_err(|problem| BadCell::new(NOTE, problem))?,
        })
    }
}
