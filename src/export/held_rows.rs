//! Held ticks by column, on their way into Arrow or CSV: what only they have.
//!
//! **Invariant**: as of runs, decimals go through integers and text.

use std::sync::Arc;

use arrow_array::{ArrayRef, Decimal128Array, StringArray, TimestampMicrosecondArray, UInt8Array, UInt64Array};
use arrow_schema::{ArrowError, DataType};

use super::layout::{RATE_PRECISION, RATE_SCALE, rate_type, time_type};
use super::rows::rate_units;
use crate::domain::{Decision, HeldTick, Note, Timestamp, Verdict};

/// Of a tick that is not decided.
pub(super) const HELD: &str = "HELD";
/// Of one that went in.
pub(super) const RELEASED: &str = "RELEASED";
/// Of one that stays out.
pub(super) const DISCARDED: &str = "DISCARDED";

/// A column that only held ticks have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeldColumn {
    Id,
    RateInForce,
    InForcePlaces,
    HeldTime,
    State,
    DecidedTime,
    Note,
}

impl HeldColumn {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::RateInForce => "rate_in_force",
            Self::InForcePlaces => "rate_in_force_places",
            Self::HeldTime => "held_time",
            Self::State => "state",
            Self::DecidedTime => "decided_time",
            Self::Note => "note",
        }
    }

    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Id => DataType::UInt64,
            Self::RateInForce => rate_type(),
            Self::InForcePlaces => DataType::UInt8,
            Self::HeldTime | Self::DecidedTime => time_type(),
            Self::State | Self::Note => DataType::Utf8,
        }
    }
}

/// Some held ticks.
#[derive(Default)]
pub(super) struct HeldRows(Vec<HeldTick>);

impl HeldRows {
    pub(super) fn push(&mut self, tick: HeldTick) {
        self.0.push(tick);
    }

    pub(super) fn array(&self, column: HeldColumn) -> Result<ArrayRef, ArrowError> {
        let ticks = || self.0.iter();
        let times = |times: TimestampMicrosecondArray| -> ArrayRef { Arc::new(times.with_timezone("UTC")) };
        Ok(match column {
            HeldColumn::Id => Arc::new(UInt64Array::from_iter_values(ticks().map(|tick| tick.id))),
            HeldColumn::RateInForce => {
                let units = Decimal128Array::from_iter_values(ticks().map(|tick| rate_units(tick.rate_in_force)));
                Arc::new(units.with_precision_and_scale(RATE_PRECISION, RATE_SCALE)?)
            }
            HeldColumn::InForcePlaces => {
                Arc::new(UInt8Array::from_iter_values(ticks().map(|tick| tick.rate_in_force.places())))
            }
            HeldColumn::HeldTime => times(ticks().map(|tick| Some(tick.held_time.micros())).collect()),
            HeldColumn::State => Arc::new(StringArray::from_iter_values(ticks().map(state))),
            HeldColumn::DecidedTime => times(ticks().map(|tick| decided_time(tick).map(Timestamp::micros)).collect()),
            HeldColumn::Note => Arc::new(ticks().map(note).collect::<StringArray>()),
        })
    }

    pub(super) fn cell(&self, column: HeldColumn, row: usize) -> String {
        let tick = &self.0[row];
        match column {
            HeldColumn::Id => tick.id.to_string(),
            HeldColumn::RateInForce => tick.rate_in_force.to_string(),
            HeldColumn::InForcePlaces => tick.rate_in_force.places().to_string(),
            HeldColumn::HeldTime => tick.held_time.to_string(),
            HeldColumn::State => state(tick).to_owned(),
            HeldColumn::DecidedTime => decided_time(tick).map_or_else(String::new, |time| time.to_string()),
            HeldColumn::Note => note(tick).unwrap_or_default().to_owned(),
        }
    }
}

fn state(tick: &HeldTick) -> &'static str {
    match tick.decision.as_ref().map(|decision| decision.verdict) {
        None => HELD,
        Some(Verdict::Released) => RELEASED,
        Some(Verdict::Discarded) => DISCARDED,
    }
}

fn decided_time(tick: &HeldTick) -> Option<Timestamp> {
    tick.decision.as_ref().map(|decision| decision.decided_time)
}

fn note(tick: &HeldTick) -> Option<&str> {
    tick.decision.as_ref().and_then(|Decision { note, .. }| note.as_ref()).map(Note::as_str)
}
