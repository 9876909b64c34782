//! The held ticks of a full export.
//!
//! **Invariant**: a value is read exactly or refused with its column; what is decided has its time, what is held none.

use std::sync::Arc;

use arrow_array::types::{Decimal128Type, TimestampMicrosecondType, UInt8Type, UInt64Type};
use arrow_array::{
    Array as _, Decimal128Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt8Array, UInt64Array,
};
use arrow_schema::DataType;

use super::cells::{
    BadCell, Column, PAIR, Row, SOURCE, VALUE_COLUMNS, ValueCells, column, exact_rate, present, primitive, rate,
    series_key, strings, text, time, timestamp,
};
use super::error::CellProblem;
use crate::domain::{Decision, HeldTick, Note, Verdict};
use crate::export::held_rows::{DISCARDED, HELD, RELEASED};

const ID: &str = "id";
const OBSERVED: &str = "observed_time";
const IN_FORCE: &str = "rate_in_force";
const IN_FORCE_PLACES: &str = "rate_in_force_places";
const HELD_TIME: &str = "held_time";
const STATE: &str = "state";
const DECIDED: &str = "decided_time";
const NOTE: &str = "note";

/// The columns of held ticks.
pub(super) struct HeldCells {
    id: UInt64Array,
    pair: StringArray,
    source: StringArray,
    observed: TimestampMicrosecondArray,
    value: ValueCells,
    in_force: Decimal128Array,
    in_force_places: UInt8Array,
    held: TimestampMicrosecondArray,
    state: StringArray,
    decided: TimestampMicrosecondArray,
    note: StringArray,
}

impl HeldCells {
    fn decision(&self, at: usize) -> Result<Option<Decision>, BadCell> {
        let verdict = match text(&self.state, at, STATE)? {
            HELD => None,
            RELEASED => Some(Verdict::Released),
            DISCARDED => Some(Verdict::Discarded),
            other => return Err(BadCell(STATE, CellProblem::State(crate::domain::clip(other)))),
        };
        let Some(verdict) = verdict else {
            let is_decided = self.decided.is_valid(at) || self.note.is_valid(at);
            return if is_decided { Err(BadCell(DECIDED, CellProblem::Undecided)) } else { Ok(None) };
        };
        let decided_time = timestamp(&self.decided, at, DECIDED)?;
        let note = self.note.is_valid(at).then(|| Note::parse(self.note.value(at)));
        let note = note.transpose().map_err(|problem| BadCell(NOTE, problem.into()))?;
        Ok(Some(Decision { verdict, decided_time, note }))
    }
}

impl Row for HeldTick {
    const WHAT: &'static str = "held ticks";
    const COLUMNS: &'static [Column] = &{
        let [a, b, c, d, e] = VALUE_COLUMNS;
        [
            column(ID, || DataType::UInt64),
            column(PAIR, || DataType::Utf8),
            column(SOURCE, || DataType::Utf8),
            column(OBSERVED, time),
            a,
            b,
            c,
            d,
            e,
            column(IN_FORCE, rate),
            column(IN_FORCE_PLACES, || DataType::UInt8),
            column(HELD_TIME, time),
            column(STATE, || DataType::Utf8),
            column(DECIDED, time),
            column(NOTE, || DataType::Utf8),
        ]
    };
    type Cells = HeldCells;

    fn cells(batch: &RecordBatch) -> Option<HeldCells> {
        Some(HeldCells {
            id: primitive::<UInt64Type>(batch, ID)?,
            pair: strings(batch, PAIR)?,
            source: strings(batch, SOURCE)?,
            observed: primitive::<TimestampMicrosecondType>(batch, OBSERVED)?,
            value: ValueCells::new(batch)?,
            in_force: primitive::<Decimal128Type>(batch, IN_FORCE)?,
            in_force_places: primitive::<UInt8Type>(batch, IN_FORCE_PLACES)?,
            held: primitive::<TimestampMicrosecondType>(batch, HELD_TIME)?,
            state: strings(batch, STATE)?,
            decided: primitive::<TimestampMicrosecondType>(batch, DECIDED)?,
            note: strings(batch, NOTE)?,
        })
    }

    fn series(_: &HeldCells) -> Option<(&StringArray, &StringArray)> {
        // They are in the order in which they were held, not in that of series.
        None
    }

    fn read(cells: &HeldCells, at: usize) -> Result<Self, BadCell> {
        present(&cells.id, at, ID)?;
        present(&cells.in_force_places, at, IN_FORCE_PLACES)?;
        Ok(Self {
            id: cells.id.value(at),
            series: Arc::new(series_key(text(&cells.pair, at, PAIR)?, text(&cells.source, at, SOURCE)?)?),
            observed_time: timestamp(&cells.observed, at, OBSERVED)?,
            value: cells.value.value(at)?,
            rate_in_force: exact_rate(&cells.in_force, at, cells.in_force_places.value(at), IN_FORCE)?,
            held_time: timestamp(&cells.held, at, HELD_TIME)?,
            decision: cells.decision(at)?,
        })
    }
}
