//! Converts ingest messages into batches, and ingest reports into response messages.
//!
//! **Invariant**: an invalid message is refused as a whole, and the error names the invalid field. Each tick of a valid
//! message is either in the batch or in the refusals, with its index in the message.

use tonic::Status;

use crate::columns::{ColumnTick, ColumnValueError, ColumnsError, TICK_COLUMN_ROWS_MAX, decode_tick_columns};
use crate::domain::{RateError, Tick, Timestamp};
use crate::ingest::batch::{BatchBuilder, NAMED_REFUSALS_MAX, ObservedTime, TickRules, TickText};
use crate::ingest::{Batch, ConflictPolicy, HeldBatchTick, IngestReport, Refusal, RefusalReason, Summary};
use crate::proto::convert::timestamp;
use crate::proto::v1;
use crate::proto::v1::stream_ticks_request::Batch as StreamBatch;

use crate::api::ServiceError;

/// Maximum number of ticks in one batch that is sent as `Tick` messages.
pub const BATCH_TICKS_MAX: usize = 10_000;

/// An invalid field. The server refuses the whole message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BadField {
    field: String,
    problem: String,
}

impl BadField {
    pub(super) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// Converts the error into the status of a call.
    pub(super) fn into_status(self) -> Status {
        ServiceError::InvalidField { field: self.field, problem: self.problem }.into()
    }

    /// Converts the error into the final status of a stream. The message names the batch.
    pub(super) fn into_batch_status(self, batch_index: u64) -> Status {
        Self { problem: format!("batch {batch_index}: {}", self.problem), ..self }.into_status()
    }
}

/// The conflict policy of a request, and whether the request is only validated.
#[derive(Clone, Copy, Debug)]
pub(super) struct IngestOptions {
    pub(super) conflict_policy: ConflictPolicy,
    pub(super) validate_only: bool,
}

impl IngestOptions {
    pub(super) fn parse(conflict_policy: i32, validate_only: bool) -> Result<Self, BadField> {
        use v1::ConflictPolicy as Proto;
        let conflict_policy = match Proto::try_from(conflict_policy) {
            Ok(Proto::Unspecified | Proto::Refuse) => ConflictPolicy::Refuse,
            Ok(Proto::Revise) => ConflictPolicy::Revise,
            Err(_) => {
                return Err(BadField::new(
                    "conflict_policy",
                    format!("{conflict_policy} is not a conflict policy; use 1 (refuse) or 2 (revise)"),
                ));
            }
        };
        Ok(Self { conflict_policy, validate_only })
    }
}

pub(super) fn batch_of_ticks(
    ticks: &[v1::Tick],
    options: IngestOptions,
    now: Timestamp,
    rules: &TickRules,
) -> Result<Batch, BadField> {
    if ticks.is_empty() || ticks.len() > BATCH_TICKS_MAX {
        let problem = format!("a batch of {} ticks; send 1 to {BATCH_TICKS_MAX} at a time", ticks.len());
        return Err(BadField::new("ticks", problem));
    }
    let mut builder = BatchBuilder::new(now, rules);
    for (index, tick) in (0..).zip(ticks) {
        builder.push_text(
            index,
            TickText {
                pair: &tick.pair,
                source: &tick.source,
                observed_time: observed_time(tick.observed_time.as_ref()),
                rate: &tick.rate,
                reported_change: tick.reported_change_percent.as_deref(),
            },
        );
    }
    Ok(builder.finish(options.conflict_policy, options.validate_only))
}

fn observed_time(message: Option<&prost_types::Timestamp>) -> ObservedTime {
    message.map_or(ObservedTime::Absent, |time| ObservedTime::Parts { seconds: time.seconds, nanos: time.nanos })
}

pub(super) fn batch_of_columns(
    columns: &v1::TickColumns,
    options: IngestOptions,
    now: Timestamp,
    rules: &TickRules,
) -> Result<Batch, BadField> {
    let rows = decode_tick_columns(columns).map_err(|error| BadField::new(columns_field(&error), error.to_string()))?;
    if rows.is_empty() {
        let problem = format!("a batch of 0 rows; send 1 to {TICK_COLUMN_ROWS_MAX} at a time");
        return Err(BadField::new("columns.observed_time_deltas", problem));
    }
    let mut builder = BatchBuilder::new(now, rules);
    match builder.series(&columns.pair, &columns.source) {
        // All rows have one series. If the series is invalid, each row is refused.
        Err(problem) => builder.refuse_all((0..).zip(&rows).map(|(index, _)| index), &problem),
        Ok(series) => {
            for (index, row) in (0..).zip(rows) {
                match row {
                    ColumnTick { observed_time: Ok(time), value: Ok(value) } => {
                        builder.push_value(index, series, time, value);
                    }
                    ColumnTick { observed_time: Err(error), .. } => {
                        builder.refuse(index, RefusalReason::InvalidTime, &error);
                    }
                    ColumnTick { value: Err(error), .. } => builder.refuse(index, value_reason(&error), &error),
                }
            }
        }
    }
    Ok(builder.finish(options.conflict_policy, options.validate_only))
}

fn value_reason(error: &ColumnValueError) -> RefusalReason {
    match error {
        ColumnValueError::Rate(
            RateError::Zero(_) | RateError::Negative(_) | RateError::Decimal { .. } | RateError::Parts { .. },
        ) => RefusalReason::InvalidRate,
        ColumnValueError::ReportedChange(_) | ColumnValueError::ReportedChangeCode(_) => {
            RefusalReason::InvalidReportedChange
        }
    }
}

/// Returns the invalid field that an error of the columns names.
fn columns_field(error: &ColumnsError) -> String {
    let column = match error {
        ColumnsError::Length { column, .. } | ColumnsError::PartRow { column, .. } => column,
        ColumnsError::Places { field, .. } | ColumnsError::MixedPlaces { field, .. } => field,
        ColumnsError::NoBaseTime | ColumnsError::BaseTime(_) => "base_time",
        ColumnsError::TooManyRows { .. } | ColumnsError::Value { .. } | ColumnsError::Run { .. } => {
            return "columns".to_owned();
        }
    };
    format!("columns.{column}")
}

/// Converts a batch of a stream, which contains ticks or columns.
pub(super) fn batch_of_stream(
    request: &v1::StreamTicksRequest,
    now: Timestamp,
    rules: &TickRules,
) -> Result<Batch, BadField> {
    let options = IngestOptions::parse(request.conflict_policy, request.validate_only)?;
    match &request.batch {
        Some(StreamBatch::Ticks(batch)) => batch_of_ticks(&batch.ticks, options, now, rules),
        Some(StreamBatch::Columns(columns)) => batch_of_columns(columns, options, now, rules),
        None => Err(BadField::new("batch", "neither ticks nor columns; send one of them")),
    }
}

/// Returns the number of rows of a batch without decoding it.
pub(super) fn row_count(request: &v1::StreamTicksRequest) -> usize {
    match &request.batch {
        Some(StreamBatch::Ticks(batch)) => batch.ticks.len(),
        Some(StreamBatch::Columns(columns)) => columns.observed_time_deltas.len() / size_of::<i64>(),
        None => 0,
    }
}

pub(super) fn ticks_response(report: IngestReport) -> v1::IngestTicksResponse {
    v1::IngestTicksResponse {
        sequence: report.sequence,
        recorded_time: Some(timestamp(report.recorded_time)),
        summary: Some(summary_message(report.summary)),
        held_ticks: held_messages(&report.held),
        refusals: refusal_messages(report.refusals),
    }
}

pub(super) fn summary_message(summary: Summary) -> v1::IngestSummary {
    v1::IngestSummary {
        new_run_count: summary.new_run_count,
        collapsed_count: summary.collapsed_count,
        known_count: summary.known_count,
        revised_count: summary.revised_count,
        refused_count: summary.refused_count,
        late_count: summary.late_count,
        quarantined_count: summary.quarantined_count,
    }
}

pub(super) fn tick_message(tick: &Tick) -> v1::Tick {
    v1::Tick {
        pair: tick.series.pair.to_string(),
        source: tick.series.source.to_string(),
        observed_time: Some(timestamp(tick.observed_time)),
        rate: tick.value.rate.to_string(),
        reported_change_percent: tick.value.reported_change.map(|change| change.to_string()),
    }
}

/// Converts all refusals, because the client must know for every tick whether it is stored. Only the first
/// [`NAMED_REFUSALS_MAX`] have texts, so that 100,000 refusals fit into the 4 MiB that clients accept by default.
pub(super) fn refusal_messages(refusals: Vec<Refusal>) -> Vec<v1::Refusal> {
    let mut refusals = refusals.into_iter();
    let mut messages: Vec<v1::Refusal> = refusals.by_ref().take(NAMED_REFUSALS_MAX).map(refusal_message).collect();
    messages.extend(refusals.map(|refusal| v1::Refusal {
        index: refusal.index,
        reason: reason_message(refusal.reason).into(),
        ..v1::Refusal::default()
    }));
    messages
}

fn refusal_message(refusal: Refusal) -> v1::Refusal {
    v1::Refusal {
        index: refusal.index,
        reason: reason_message(refusal.reason).into(),
        message: refusal.message,
        stored_rate: refusal.stored.map(|value| value.rate.to_string()),
        stored_reported_change_percent: refusal
            .stored
            .and_then(|value| value.reported_change)
            .map(|change| change.to_string()),
    }
}

/// Converts all held ticks. Only the first [`NAMED_REFUSALS_MAX`] have their rate in force, for the reason given at
/// [`refusal_messages`].
pub(super) fn held_messages(held: &[HeldBatchTick]) -> Vec<v1::HeldTick> {
    let message = |(position, held): (usize, &HeldBatchTick)| {
        let has_rate_in_force = position < NAMED_REFUSALS_MAX;
        let state = if held.is_discarded { v1::QuarantineState::Discarded } else { v1::QuarantineState::Held };
        v1::HeldTick {
            index: held.index,
            id: held.id,
            state: state.into(),
            rate_in_force: if has_rate_in_force { held.rate_in_force.to_string() } else { String::new() },
        }
    };
    held.iter().enumerate().map(message).collect()
}

fn reason_message(reason: RefusalReason) -> v1::RefusalReason {
    use v1::RefusalReason as Proto;
    match reason {
        RefusalReason::InvalidPair => Proto::InvalidPair,
        RefusalReason::UnknownCurrency => Proto::UnknownCurrency,
        RefusalReason::InvalidSource => Proto::InvalidSource,
        RefusalReason::InvalidRate => Proto::InvalidRate,
        RefusalReason::InvalidReportedChange => Proto::InvalidReportedChange,
        RefusalReason::InvalidTime => Proto::InvalidTime,
        RefusalReason::TimeTooOld => Proto::TimeTooOld,
        RefusalReason::TimeTooFarAhead => Proto::TimeTooFarAhead,
        RefusalReason::Conflict => Proto::Conflict,
        RefusalReason::Ambiguous => Proto::Ambiguous,
        RefusalReason::DamagedRange => Proto::DamagedRange,
        RefusalReason::TooScattered => Proto::TooScattered,
        RefusalReason::Truncated => Proto::Truncated,
        RefusalReason::TooManySeries => Proto::TooManySeries,
        RefusalReason::QuarantineFull => Proto::QuarantineFull,
        RefusalReason::CallerLimit => Proto::CallerLimit,
    }
}
