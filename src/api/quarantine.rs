//! Validates the requests to list held ticks and to decide about held ticks, and builds the responses.
//!
//! **Invariant**: a decision request that this module returns names each tick once, and at most [`DECISION_IDS_MAX`]
//! ticks.

use std::collections::HashSet;

use super::convert::{as_of, optional_note};
use super::error::ServiceError;
use super::page_token::{Cursor, Fingerprint, PageToken};
use super::rate_request::{PAGE_ROWS_MAX, Paged, filter, order, page_rows, range, resume};
use super::rate_response::next_token;
use super::rates::{Rates, ReadTask};
use crate::domain::{CurrencySet, HeldTick, Note, Verdict};
use crate::ingest::{ConflictPolicy, DecisionReport, DecisionRequest};
use crate::proto::convert::timestamp;
use crate::proto::v1;
use crate::query::{Answer, QuarantinePage, QuarantineRequest, QueryError, Reader};
use crate::store::{Decided, DecisionRefusal, UpsertError, Upserted};

/// Maximum number of held ticks in one decision request.
pub const DECISION_IDS_MAX: usize = 1_000;

impl Rates {
    /// Validates the request and returns the task that reads a page of held ticks.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid.
    pub fn list_quarantine(
        &self,
        request: v1::ListQuarantineRequest,
    ) -> Result<impl ReadTask<v1::ListQuarantineResponse> + use<>, ServiceError> {
        let Paged { request, fingerprint } = quarantine_request(request, self.currencies())?;
        Ok(move |reader: &Reader| Ok(page(&reader.quarantine(&request)?, fingerprint)))
    }
}

fn quarantine_request(
    mut request: v1::ListQuarantineRequest,
    served: &CurrencySet,
) -> Result<Paged<QuarantineRequest>, QueryError> {
    let limit = page_rows(std::mem::take(&mut request.page_size), PAGE_ROWS_MAX)?;
    let token = std::mem::take(&mut request.page_token);
    let mut parsed = QuarantineRequest {
        filter: filter(&request.pairs, &request.sources, served)?,
        verdicts: verdicts(&request.states)?,
        range: range(request.start_time, request.end_time)?,
        known_time: as_of("known_time", request.known_time)?,
        order: order(request.descending),
        after: 0,
        limit,
    };
    let (fingerprint, token) = resume(&token, "ListQuarantine", &request)?;
    if let Some(PageToken { known_time, cursor: Cursor::HeldTick(after) }) = token {
        parsed.known_time = Some(known_time);
        parsed.after = after;
    }
    Ok(Paged { request: parsed, fingerprint })
}

/// Converts the states of a filter to verdicts; `None` means ticks without a verdict.
fn verdicts(states: &[i32]) -> Result<Vec<Option<Verdict>>, QueryError> {
    if states.is_empty() {
        return Ok(vec![None]);
    }
    let verdict = |(index, number): (usize, &i32)| match v1::QuarantineState::try_from(*number) {
        Ok(v1::QuarantineState::Held) => Ok(None),
        Ok(v1::QuarantineState::Released) => Ok(Some(Verdict::Released)),
        Ok(v1::QuarantineState::Discarded) => Ok(Some(Verdict::Discarded)),
        Ok(v1::QuarantineState::Unspecified) | Err(_) => {
            let problem = format!("{number} is not a state; use HELD, RELEASED or DISCARDED; an empty list means HELD");
            Err(QueryError::invalid(format!("states[{index}]"), problem))
        }
    };
    states.iter().enumerate().map(verdict).collect()
}

fn page(answer: &Answer<QuarantinePage>, fingerprint: Fingerprint) -> v1::ListQuarantineResponse {
    let Answer { commit, body: QuarantinePage { ticks, next } } = answer;
    v1::ListQuarantineResponse {
        ticks: ticks.iter().map(tick_message).collect(),
        next_page_token: next_token(*commit, next.map(Cursor::HeldTick), fingerprint),
        sequence: commit.sequence,
        recorded_time: Some(timestamp(commit.recorded_time)),
    }
}

fn tick_message(tick: &HeldTick) -> v1::QuarantinedTick {
    let decision = tick.decision.as_ref();
    let state = match decision.map(|decision| decision.verdict) {
        None => v1::QuarantineState::Held,
        Some(Verdict::Released) => v1::QuarantineState::Released,
        Some(Verdict::Discarded) => v1::QuarantineState::Discarded,
    };
    v1::QuarantinedTick {
        id: tick.id,
        pair: tick.series.pair.to_string(),
        source: tick.series.source.to_string(),
        observed_time: Some(timestamp(tick.observed_time)),
        rate: tick.value.rate.to_string(),
        reported_change_percent: tick.value.reported_change.map(|change| change.to_string()),
        rate_in_force: tick.rate_in_force.to_string(),
        held_time: Some(timestamp(tick.held_time)),
        state: state.into(),
        decided_time: decision.map(|decision| timestamp(decision.decided_time)),
        note: decision.and_then(|decision| decision.note.as_ref()).map(Note::to_string),
    }
}

/// Validates a decision about held ticks.
///
/// # Errors
/// Returns `InvalidField` for `ids` or `note` if its value is invalid.
pub fn decision_request(
    ids: Vec<u64>,
    note: &str,
    verdict: Verdict,
    conflict_policy: ConflictPolicy,
) -> Result<DecisionRequest, ServiceError> {
    let invalid = |field: String, problem: String| ServiceError::InvalidField { field, problem };
    if ids.is_empty() || ids.len() > DECISION_IDS_MAX {
        let problem = format!("{} ids; give 1 to {DECISION_IDS_MAX} at a time", ids.len());
        return Err(invalid("ids".to_owned(), problem));
    }
    let mut seen = HashSet::with_capacity(ids.len());
    if let Some((index, id)) = ids.iter().enumerate().find(|(_, id)| !seen.insert(**id)) {
        return Err(invalid(format!("ids[{index}]"), format!("{id} is given twice; give each id once")));
    }
    Ok(DecisionRequest { ids, verdict, note: optional_note(note)?, conflict_policy })
}

/// Converts the result of a decision to messages, one for each of `ids`, in the same order.
pub fn decision_messages(ids: &[u64], report: &DecisionReport) -> Vec<v1::QuarantineDecision> {
    ids.iter().zip(&report.decided).map(|(id, (decided, message))| decision_message(*id, decided, message)).collect()
}

fn decision_message(id: u64, decided: &Decided, message: &str) -> v1::QuarantineDecision {
    use v1::{QuarantineOutcome as Outcome, QuarantineRefusal as Reason};
    let (outcome, reason) = match decided {
        Decided::Released(Upserted::NewRun { .. }) => (Outcome::NewRun, Reason::Unspecified),
        Decided::Released(Upserted::Collapsed { .. }) => (Outcome::Collapsed, Reason::Unspecified),
        Decided::Released(Upserted::Known) => (Outcome::Known, Reason::Unspecified),
        Decided::Released(Upserted::Revised { .. }) => (Outcome::Revised, Reason::Unspecified),
        Decided::Discarded => (Outcome::Discarded, Reason::Unspecified),
        Decided::Already => (Outcome::AlreadyDecided, Reason::Unspecified),
        Decided::Refused(DecisionRefusal::UnknownId) => (Outcome::Refused, Reason::UnknownId),
        Decided::Refused(DecisionRefusal::DecidedOtherwise(_)) => (Outcome::Refused, Reason::DecidedOtherwise),
        Decided::Refused(DecisionRefusal::Upsert(error)) => (Outcome::Refused, reason(error)),
    };
    let stored = match decided {
        Decided::Refused(DecisionRefusal::Upsert(UpsertError::Conflict(stored))) => Some(stored),
        Decided::Released(_) | Decided::Discarded | Decided::Already | Decided::Refused(_) => None,
    };
    v1::QuarantineDecision {
        id,
        outcome: outcome.into(),
        reason: reason.into(),
        message: message.to_owned(),
        stored_rate: stored.map(|value| value.rate.to_string()),
        stored_reported_change_percent: stored.and_then(|value| value.reported_change).map(|change| change.to_string()),
    }
}

fn reason(error: &UpsertError) -> v1::QuarantineRefusal {
    match error {
        UpsertError::Conflict(_) => v1::QuarantineRefusal::Conflict,
        UpsertError::Damaged(_) => v1::QuarantineRefusal::DamagedRange,
        UpsertError::TooScattered => v1::QuarantineRefusal::TooScattered,
        // Impossible: the series of a held tick exists, and a released tick is not compared with the rate in force.
        UpsertError::TooManySeries | UpsertError::QuarantineFull(_) => v1::QuarantineRefusal::Unspecified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decision_names_each_tick_once() {
        let check = |ids: Vec<u64>, note: &str, expect: &str| {
            let error = decision_request(ids, note, Verdict::Released, ConflictPolicy::Refuse).err();
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with(expect) && error.is_empty() == expect.is_empty(), "{error}");
        };
        check(vec![7, 3], "", "");
        check(vec![7], "checked with the bank", "");
        check(vec![], "", "ids: 0 ids; give 1 to 1000");
        check(vec![1; DECISION_IDS_MAX + 1], "", "ids: 1001 ids");
        check(vec![7, 3, 7], "", "ids[2]: 7 is given twice");
        check(vec![7], "two\nlines", "note: note 'two\\nlines' contains control characters");
    }

    #[test]
    fn only_held_ticks_are_listed_by_default() {
        let check = |states: &[i32], expect: Result<&[Option<Verdict>], &str>| match (verdicts(states), expect) {
            (Ok(found), Ok(expect)) => assert_eq!(found, expect),
            (Err(error), Err(part)) => assert!(error.to_string().starts_with(part), "{error}"),
            (found, _) => panic!("{found:?}"),
        };
        check(&[], Ok(&[None]));
        check(&[1], Ok(&[None]));
        check(&[3, 2], Ok(&[Some(Verdict::Discarded), Some(Verdict::Released)]));
        check(&[1, 0], Err("states[1]: 0 is not a state"));
        check(&[4], Err("states[0]: 4 is not a state"));
    }
}
