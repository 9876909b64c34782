//! Columns of a run, shared by several commands.

use super::output::{Column, record};
use super::value::Value;
use crate::proto::v1::Run;

/// The title of the reported change: the percentage that the source printed, as opposed to computed changes.
pub(super) const REPORTED_TITLE: &str = "reported %";

/// The columns of a run, as in the legs of a rate.
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

/// Returns the percentage that the source printed, if it printed one.
pub(super) fn reported(run: &Run) -> Value {
    Value::decimal_or_absent(run.reported_change_percent.as_ref())
}

/// Applies `value` to a run. Returns `Absent` if the message has no run.
pub(super) fn from_run(run: Option<&Run>, value: impl Fn(&Run) -> Value) -> Value {
    run.map_or(Value::Absent, value)
}

/// Converts runs to a list of the records that JSON writes as objects.
pub(super) fn objects(runs: &[Run]) -> Value {
    Value::List(runs.iter().map(|run| record(COLUMNS, run)).collect())
}
