//! Columns of a run, shared by the commands that list runs.

use super::output::{Column, record};
use super::value::Value;
use crate::proto::v1::Run;

/// Heads the percentage that a source printed, told from those computed here.
pub(super) const REPORTED_TITLE: &str = "reported %";

/// A run on its own, as a leg is shown.
pub(super) const COLUMNS: &[Column<Run>] = &[
    Column::new("pair", "pair", |run| Value::text(&run.pair)),
    Column::new("source", "source", |run| Value::text(&run.source)),
    Column::new("rate", "rate", |run| Value::decimal(&run.rate)),
    Column::new("reported_change_percent", REPORTED_TITLE, reported),
    Column::new("first_observed_time", "first observed", |run| Value::time(run.first_observed_time.as_ref())),
    Column::new("last_observed_time", "last observed", |run| Value::time(run.last_observed_time.as_ref())),
    Column::new("observation_count", "observations", |run| Value::Count(run.observation_count)),
    Column::new("recorded_time", "recorded", |run| Value::time(run.recorded_time.as_ref())),
];

/// The percentage that the source printed.
pub(super) fn reported(run: &Run) -> Value {
    Value::decimal_or_absent(run.reported_change_percent.as_ref())
}

/// Of a run that the message holds or not.
pub(super) fn of(run: Option<&Run>, cell: impl Fn(&Run) -> Value) -> Value {
    run.map_or(Value::Absent, cell)
}

/// The object it is in JSON.
pub(super) fn object(run: &Run) -> Value {
    record(COLUMNS, run)
}
