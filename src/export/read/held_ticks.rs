//! Rows of held ticks in a full export.
//!
//! **Invariant**: a value is read exactly, or refused with the name of its column. A decided tick has a decided time;
//! an undecided tick has none.

use std::sync::Arc;

use polars::prelude::StaticArray as _;
use polars_arrow::array::{PrimitiveArray, Utf8ViewArray};

use super::cells::{BadCell, Row, ValueCells, exact_rate, number, series_key, text, timestamp};
use super::error::CellProblem;
use super::frame::Frame;
use crate::domain::{Decision, HeldTick, Note, Verdict, truncate_for_display};
use crate::export::row::{DISCARDED, HELD, RELEASED};
use crate::export::schema::{
    DECIDED, HELD_TIME, ID, IN_FORCE, IN_FORCE_PLACES, NOTE, OBSERVED, PAIR, Part, SOURCE, STATE,
};

/// The columns of a held tick.
pub(super) struct HeldCells {
    id: PrimitiveArray<u64>,
    pair: Utf8ViewArray,
    source: Utf8ViewArray,
    observed: PrimitiveArray<i64>,
    value: ValueCells,
    in_force: PrimitiveArray<i128>,
    in_force_places: PrimitiveArray<u8>,
    held: PrimitiveArray<i64>,
    state: Utf8ViewArray,
    decided: PrimitiveArray<i64>,
    note: Utf8ViewArray,
}

impl HeldCells {
    fn decision(&self, at: usize) -> Result<Option<Decision>, BadCell> {
        let verdict = match text(&self.state, at, STATE)? {
            HELD => None,
            RELEASED => Some(Verdict::Released),
            DISCARDED => Some(Verdict::Discarded),
            other => return Err(BadCell::new(STATE, CellProblem::State(truncate_for_display(other)))),
        };
        let Some(verdict) = verdict else {
            let is_decided = self.decided.get(at).is_some() || self.note.get(at).is_some();
            return if is_decided { Err(BadCell::new(DECIDED, CellProblem::Undecided)) } else { Ok(None) };
        };
        let decided_time = timestamp(&self.decided, at, DECIDED)?;
        let note = self.note.get(at).map(Note::parse).transpose();
        let note = note.map_err(|problem| BadCell::new(NOTE, problem))?;
        Ok(Some(Decision { verdict, decided_time, note }))
    }
}

impl Row for HeldTick {
    const WHAT: &'static str = "held ticks";
    const PART: Part = Part::Quarantine;
    type Cells = HeldCells;

    fn cells(frame: &Frame<'_>) -> Option<HeldCells> {
        Some(HeldCells {
            id: frame.numbers(ID)?,
            pair: frame.texts(PAIR)?,
            source: frame.texts(SOURCE)?,
            observed: frame.numbers(OBSERVED)?,
            value: ValueCells::new(frame)?,
            in_force: frame.numbers(IN_FORCE)?,
            in_force_places: frame.numbers(IN_FORCE_PLACES)?,
            held: frame.numbers(HELD_TIME)?,
            state: frame.texts(STATE)?,
            decided: frame.numbers(DECIDED)?,
            note: frame.texts(NOTE)?,
        })
    }

    fn series(_: &HeldCells) -> Option<(&Utf8ViewArray, &Utf8ViewArray)> {
        // Held ticks are sorted by held time, not by series.
        None
    }

    fn read(cells: &HeldCells, at: usize) -> Result<Self, BadCell> {
        let in_force_places = number(&cells.in_force_places, at, IN_FORCE_PLACES)?;
        Ok(Self {
            id: number(&cells.id, at, ID)?,
            series: Arc::new(series_key(text(&cells.pair, at, PAIR)?, text(&cells.source, at, SOURCE)?)?),
            observed_time: timestamp(&cells.observed, at, OBSERVED)?,
            value: cells.value.value(at)?,
            rate_in_force: exact_rate(&cells.in_force, at, in_force_places, IN_FORCE)?,
            held_time: timestamp(&cells.held, at, HELD_TIME)?,
            decision: cells.decision(at)?,
        })
    }
}
