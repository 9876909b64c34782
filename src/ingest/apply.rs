//! Application of one batch to a write transaction. A batch that is only validated is rolled back to a savepoint.
//!
//! **Invariant**: every tick of the batch is counted exactly once, and a refused tick does not affect other ticks.

use super::new_series::Allowance;
use super::{Batch, BatchTick, ConflictPolicy, HeldBatchTick, Refusal, RefusalReason, SeriesTicks, Summary};
use crate::domain::{PublishedValue, SeriesKey, Timestamp};
use crate::store::{Admitted, Quarantine, QuarantineLimit, StoreError, UpsertError, Upserted, WriteTransaction};

/// Results of a batch.
pub(super) struct Applied {
    pub(super) summary: Summary,
    /// Refused ticks, sorted by index.
    pub(super) refusals: Vec<Refusal>,
    /// Held ticks, sorted by index.
    pub(super) held: Vec<HeldBatchTick>,
}

/// Applies a batch to `transaction`. `allowance` limits the new series.
pub(super) fn apply(transaction: &mut WriteTransaction<'_>, batch: Batch, allowance: &mut Allowance) -> Applied {
    let savepoint = batch.validate_only.then(|| transaction.savepoint(batch.groups.iter().map(|group| &group.series)));
    let revise = batch.conflict_policy == ConflictPolicy::Revise;
    let mut applied = Applied { summary: Summary::default(), refusals: batch.refusals, held: Vec::new() };
    for group in batch.groups {
        applied.apply_group(transaction, group, revise, allowance);
    }
    applied.refusals.sort_by_key(|refusal| refusal.index);
    applied.held.sort_by_key(|held| held.index);
    applied.summary.refused_count = u32::try_from(applied.refusals.len()).unwrap_or(u32::MAX);
    if let Some(savepoint) = savepoint {
        transaction.roll_back(savepoint);
        applied.held.iter_mut().for_each(|held| held.id = None);
    }
    applied
}

impl Applied {
    fn apply_group(
        &mut self,
        transaction: &mut WriteTransaction<'_>,
        mut group: SeriesTicks,
        revise: bool,
        allowance: &mut Allowance,
    ) {
        let is_limited = match allowance.check(transaction, &group.series) {
            Ok(is_limited) => is_limited,
            Err((reason, message)) => {
                let refuse =
                    |tick: &BatchTick| Refusal { index: tick.index, reason, message: message.clone(), stored: None };
                self.refusals.extend(group.ticks.iter().map(refuse));
                return;
            }
        };
        // Sorting by time keeps late ticks of one block together. The sort is stable: if ticks are equal, the first one
        // counts as new and the others count as known.
        if !group.ticks.is_sorted_by_key(|tick| tick.observed_time) {
            group.ticks.sort_by_key(|tick| tick.observed_time);
        }
        // The series is created at the first tick that is not refused, so that refused ticks alone create no series.
        let mut series_id = None;
        for same_instant in group.ticks.chunk_by(|a, b| a.observed_time == b.observed_time) {
            if same_instant.iter().any(|tick| tick.value != same_instant[0].value) {
                self.refusals.extend(same_instant.iter().map(|tick| ambiguous(&group.series, tick)));
                continue;
            }
            for tick in same_instant {
                let admitted = series_id.map_or_else(|| transaction.series(&group.series), Ok).and_then(|series| {
                    series_id = Some(series);
                    transaction.admit(series, tick.observed_time, tick.value, revise, group.quarantine_threshold)
                });
                match admitted {
                    Ok(Admitted::Stored(upserted)) => self.count(upserted),
                    Ok(Admitted::Held { id, is_discarded, rate_in_force, .. }) => {
                        self.summary.quarantined_count += 1;
                        self.held.push(HeldBatchTick { index: tick.index, id: Some(id), is_discarded, rate_in_force });
                    }
                    Err(error) => self.refuse(&group.series, tick, &error),
                }
            }
        }
        if is_limited && series_id.is_some() {
            allowance.count(&group.series);
        }
    }

    fn count(&mut self, upserted: Upserted) {
        let summary = &mut self.summary;
        let late = match upserted {
            Upserted::NewRun { late } => {
                summary.new_run_count += 1;
                late
            }
            Upserted::Collapsed { late } => {
                summary.collapsed_count += 1;
                late
            }
            Upserted::Revised { late } => {
                summary.revised_count += 1;
                late
            }
            Upserted::Known => {
                summary.known_count += 1;
                false
            }
        };
        summary.late_count += u32::from(late);
    }

    fn refuse(&mut self, series: &SeriesKey, tick: &BatchTick, error: &UpsertError) {
        let UpsertRefusal { reason, message, stored } = explain_upsert(series, tick.observed_time, tick.value, error);
        self.refusals.push(Refusal { index: tick.index, reason, message, stored });
    }
}

/// Why the store refused a tick.
pub(super) struct UpsertRefusal {
    pub(super) reason: RefusalReason,
    /// Message that names the field, the value and the remedy.
    pub(super) message: String,
    /// The stored value, for a conflict.
    pub(super) stored: Option<PublishedValue>,
}

/// Converts an error of the store to a refusal.
pub(super) fn explain_upsert(
    series: &SeriesKey,
    time: Timestamp,
    value: PublishedValue,
    error: &UpsertError,
) -> UpsertRefusal {
    let (reason, message) = match error {
        UpsertError::Conflict(stored) => (
            RefusalReason::Conflict,
            format!(
                "{}; give another observed_time, or use the conflict policy revise",
                conflict_text(series, time, stored, value)
            ),
        ),
        UpsertError::Damaged(error) => {
            let remedy = match **error {
                StoreError::Io { disk_full: true, .. } => {
                    "make room on the disk, restart the server and send the tick again"
                }
                StoreError::Io { .. } => "remove the cause, restart the server and send the tick again",
                StoreError::InUse { .. }
                | StoreError::NotInMemory
                | StoreError::NewerFormat { .. }
                | StoreError::UnfinishedImport { .. }
                | StoreError::Damaged { .. }
                | StoreError::Behind { .. }
                | StoreError::DamagedBlock { .. }
                | StoreError::DamagedCommits { .. }
                | StoreError::WindowDiffers { .. } => "restore the store from a backup",
            };
            (RefusalReason::DamagedRange, format!("{error}; {remedy}"))
        }
        UpsertError::TooScattered => (
            RefusalReason::TooScattered,
            format!("{series} at {time}: {}; send smaller requests, sorted by series and time", too_scattered_text()),
        ),
        UpsertError::TooManySeries => (
            RefusalReason::TooManySeries,
            format!(
                "{series} would exceed the series limit of this store; check the source, archive sources that are \
                 mistaken, or raise --series-max"
            ),
        ),
        UpsertError::QuarantineFull(limit) => (
            RefusalReason::QuarantineFull,
            format!(
                "{series} at {time}: {} is too far from the rate in force to be stored, and {}",
                value.rate,
                quarantine_full_text(*limit)
            ),
        ),
    };
    let stored = match error {
        UpsertError::Conflict(stored) => Some(*stored),
        UpsertError::Damaged(_)
        | UpsertError::TooScattered
        | UpsertError::TooManySeries
        | UpsertError::QuarantineFull(_) => None,
    };
    UpsertRefusal { reason, message, stored }
}

/// Describes a conflict between the stored value of an instant and a new one.
pub(super) fn conflict_text(
    series: &SeriesKey,
    time: Timestamp,
    stored: &PublishedValue,
    value: PublishedValue,
) -> String {
    let (stored_change, change) = (change_text(stored), change_text(&value));
    format!("{series} at {time} is stored as {}{stored_change}, not {}{change}", stored.rate, value.rate)
}

/// Returns why a commit accepts no more late ticks.
pub(super) fn too_scattered_text() -> String {
    format!("this request touches more than {} old blocks at once", WriteTransaction::MUTABLE_SEGMENTS_MAX)
}

/// Returns a text that names the limit of the quarantine that is reached, and the remedy.
fn quarantine_full_text(limit: QuarantineLimit) -> String {
    let (count, what, remedy) = match limit {
        QuarantineLimit::Series => {
            (Quarantine::SERIES_HELD_MAX, "of this series are held", "release or discard some and send the tick again")
        }
        QuarantineLimit::Open => (
            Quarantine::OPEN_HELD_MAX,
            "of sources that are not configured are held",
            "release or discard some, or name the source in the configuration file, and send the tick again",
        ),
        QuarantineLimit::Source => {
            (Quarantine::SOURCE_HELD_MAX, "of this source are held", "release or discard some and send the tick again")
        }
        QuarantineLimit::Store => (Quarantine::HELD_MAX, "are held", "release or discard some and send the tick again"),
    };
    format!("{count} ticks {what}, which is the limit; {remedy}")
}

fn ambiguous(series: &SeriesKey, tick: &BatchTick) -> Refusal {
    Refusal {
        index: tick.index,
        reason: RefusalReason::Ambiguous,
        message: format!(
            "{series} at {} has different values in this batch; send only the correct value",
            tick.observed_time
        ),
        stored: None,
    }
}

fn change_text(value: &PublishedValue) -> String {
    value.reported_change.map_or_else(String::new, |change| format!(" ({change} %)"))
}
