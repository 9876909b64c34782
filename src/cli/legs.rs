//! The series that answer a list: their columns, and the notes on standard error about them.

use super::output::{Column, record};
use super::text::clean;
use super::value::Value;
use super::{Session, note};
use crate::proto::v1::{Derivation, Leg};

const COLUMNS: &[Column<Leg>] = &[
    Column::new("pair", "pair", |leg| Value::text(&leg.pair)),
    Column::new("source", "source", |leg| Value::text(&leg.source)),
    Column::new("stale", "stale", |leg| Value::Flag(leg.stale)),
    Column::new("archived", "archived", |leg| Value::Flag(leg.archived)),
];

/// What all rows of a list have in common.
#[derive(Debug, Default)]
pub(super) struct CommonParts {
    /// The series that the rates come from.
    pub(super) legs: Vec<Leg>,
    /// How the rates are derived from them.
    pub(super) derivation: Derivation,
    /// The time zone of the days.
    pub(super) time_zone: String,
}

/// Converts the legs of an answer to a list of the records that JSON writes as objects.
pub(super) fn objects(legs: &[Leg]) -> Value {
    Value::List(legs.iter().map(|leg| record(COLUMNS, leg)).collect())
}

/// Returns true if a leg was stale at the end of the requested range.
pub(super) fn any_stale(legs: &[Leg]) -> bool {
    legs.iter().any(|leg| leg.stale)
}

/// Returns true if the source of a leg is archived.
pub(super) fn any_archived(legs: &[Leg]) -> bool {
    legs.iter().any(|leg| leg.archived)
}

/// Notes the source of each leg, and the time zone if the rows are days or longer, in a table. Warns in every format of
/// a leg that was stale, and of an archived source.
pub(super) fn note_parts(session: &Session, CommonParts { legs, time_zone, .. }: &CommonParts, has_days: bool) {
    if session.is_table() && !legs.is_empty() {
        let sources: Vec<String> =
            legs.iter().map(|leg| format!("{} by {}", clean(&leg.pair), clean(&leg.source))).collect();
        let zone = if has_days { format!("; days of {}", clean(time_zone)) } else { String::new() };
        note(&format!("from {}{zone}", sources.join(" and ")));
    }
    warn_of_legs(legs);
}

/// Warns of a leg that was stale, and of an archived source.
pub(super) fn warn_of_legs(legs: &[Leg]) {
    for leg in legs {
        let (pair, source) = (clean(&leg.pair), clean(&leg.source));
        if leg.stale {
            note(&format!("warning: the rate of {pair} by {source} was stale at the end of the range"));
        }
        if leg.archived {
            note(&format!("warning: the source {source} of {pair} is archived"));
        }
    }
}
